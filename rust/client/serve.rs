//! What the internal thread does between the calls: see [`crate::service`].

use core::mem;

use embedded_nal::TcpClientStack;

use super::{Appetite, Client, Fault, Part, Phase, STALL, Stop, Watch};
use crate::{
    calls::{Dialer, Wait},
    config::OTHERS,
    memory::Memory,
    service::{CONNECT_TIMEOUT, Duty, Pinging},
    time::Time,
};

/// How long no call has to read before the internal thread does, in milliseconds.
const READER_TICK: u32 = 100;

/// How often the calls look for themselves what there is to serve, on a port without threads.
const SELDOM: u32 = 250;

/// How much of the time between two calls an attempt to connect is charged, in milliseconds, on a
/// port without threads.
const ABSENCE: u32 = 1_000;

impl<S, M> Client<S, M>
where
    S: TcpClientStack<Error: Clone + Copy>,
    M: Memory,
{
    /// A call of the script is going to wait for the socket to become readable: the internal
    /// thread need not.
    pub fn begin_reading(&mut self) {
        self.readers = self.readers.saturating_add(1);
    }

    /// It has woken up.
    pub fn end_reading(&mut self) {
        self.readers = self.readers.saturating_sub(1);
        if self.readers == 0 && self.watch == Watch::Reader {
            self.watch = Watch::Tick;
            self.signals.alarm = OTHERS;
        }
    }

    /// The internal thread is going to wait: should it wait for the socket to become readable? Not
    /// while a call of the script does: both would wake up for every packet. When one has just
    /// read, another one may come at once, so a while passes first.
    pub fn watch(&mut self, wait: &mut Wait) {
        let mut look_again = self.now.after(Time::FOREVER);
        if self.readers > 0 {
            self.watch = Watch::Reader;
            wait.readable = false;
        } else if mem::take(&mut self.script_read) || self.watch == Watch::Tick {
            self.watch = Watch::Socket;
            wait.readable = false;
            look_again = self.now.after(READER_TICK);
        }
        wait.until = wait.until.min(look_again).min(self.stalls_at());
    }

    /// A call begins, on a port without threads. Of the time since the last one, an attempt to
    /// connect is charged a second: nobody could go on with it.
    pub fn enter(&mut self) {
        if matches!(self.phase, Phase::Dialing | Phase::Greeting) {
            let absence = self.now.since(self.left).saturating_sub(ABSENCE);
            self.service.deadline = self.service.deadline.after(absence);
        }
    }

    /// A call ends, on a port without threads.
    pub fn leave(&mut self) {
        self.left = self.now;
    }

    /// Until when there is nothing for [`Client::serve`] to do on a port without threads, where
    /// the calls see to the socket themselves.
    pub fn leisure(&self) -> Time {
        match self.phase {
            _ if !self.owed.is_empty() => self.now,
            // A script that only publishes does not read.
            Phase::Up if self.now.since(self.served_at) >= SELDOM => self.now,
            Phase::Up => self.served_until,
            _ if self.persistent => self.now,
            _ => self.now.after(Time::FOREVER),
        }
    }

    /// The fault that the script's error callback has to be told.
    pub fn take_owed(&mut self) -> Option<Fault<S::Error>> {
        (!self.owed.is_empty()).then(|| self.owed.remove(0))
    }

    /// What the internal thread has to do next: see [`crate::service`].
    #[inline(always)] // an answer by way of memory takes more
    pub fn serve(&mut self, stack: &mut S) -> Duty<S> {
        let now = self.now;
        let stop = self.pump(stack, Appetite::Nothing, true);
        if let Some(fault) = self.take_owed() {
            return Duty::Report(fault);
        }
        let phase = self.phase;
        let due = match phase {
            Phase::Up => {
                // Now, for the clock goes round before some links are lost.
                self.service.link_held(now);
                self.keep_alive()
            }
            Phase::Greeting if self.persistent => match self.service.deadline {
                deadline if now.reached(deadline) => Err(Fault::Silent),
                deadline => Ok(deadline),
            },
            Phase::Lost if now.reached(self.service.deadline) => {
                self.phase = Phase::Dialing;
                self.service.deadline = now.after(CONNECT_TIMEOUT);
                return Duty::Dial(Dialer::new(self.epoch));
            }
            Phase::Lost => Ok(self.service.deadline),
            Phase::Idle | Phase::Dialing | Phase::Greeting => Ok(now.after(Time::FOREVER)),
        };
        let until = match due {
            Ok(until) => until,
            Err(fault) => {
                self.lose(stack, fault);
                return Duty::Again;
            }
        };
        if self.ping_due {
            self.pump(stack, Appetite::Nothing, false);
        }
        if stop == Stop::More || self.phase != phase {
            return Duty::Again;
        }
        self.served_at = now;
        self.served_until = until;
        Duty::Wait(Wait {
            readable: stop == Stop::Dry,
            writable: self.wants_write(),
            until,
        })
    }

    /// An attempt of the internal thread to connect came to nothing.
    pub fn attempt_failed(&mut self, stack: &mut S, epoch: u8, fault: Fault<S::Error>) {
        if epoch == self.epoch {
            self.lose(stack, fault);
        }
    }

    /// The keepalive interval in milliseconds.
    pub(super) fn keepalive(&self) -> u32 {
        u32::from(self.config.keepalive) * 1_000
    }

    /// Sends a PINGREQ when nothing was sent or received for a keepalive interval; the answer
    /// says when to look again. [MQTT-3.1.2-23]
    fn keep_alive(&mut self) -> Result<Time, Fault<S::Error>> {
        let (keepalive, now) = (self.keepalive(), self.now);
        if keepalive == 0 {
            return Ok(now.after(Time::FOREVER));
        }
        let sent = self.outgoing.progress();
        if self.service.pinging == Pinging::Wanted {
            if now.since(sent) < STALL {
                return Ok(sent.after(STALL));
            }
            self.service.ping_sent(now); // as far as the socket lets us
        }
        // While messages keep the answer from being read, its absence means nothing: as long as
        // there is no room to read into, or something comes in.
        let silence = now.since(self.service.received);
        let busy = if self.reading_stopped {
            self.incoming.is_full() || silence <= now.since(self.service.pinged)
        } else {
            self.reading.part != Part::Header && silence < STALL
        };
        if !self.reading_stopped && self.reading.part == Part::Header {
            // All has been read again.
            self.service.excused = false;
        }
        let max = self.config.ping_max;
        let due = self.service.ping_due(now, keepalive, sent, busy, max)?;
        self.ping_due |= due.is_none();
        Ok(due.unwrap_or(now)) // after a PINGREQ at once
    }

    /// The internal thread is wanted: its number, if it has to be started.
    pub fn hire(&mut self) -> Option<u8> {
        self.service.hire()
    }

    /// Is the internal thread with this number still wanted?
    pub fn employs(&self, thread: u8) -> bool {
        self.service.employs(thread)
    }

    /// The internal thread with this number ends.
    pub fn quit(&mut self, thread: u8) {
        if self.service.employs(thread) {
            self.service.dismiss();
        }
    }
}
