//! What goes on between the calls of a script: keepalive, dead links, reconnection.
//!
//! [`run`] is the internal thread's loop. It asks the client what is due, does it, and waits; it
//! holds nothing meanwhile. On a port without threads the calls of the script ask instead.

use embedded_nal::TcpClientStack;

use crate::{
    calls::{self, Dialer, Error, Interrupted, NetError, Port, Wait},
    client::Fault,
    time::Time,
};

/// Milliseconds from the start of an attempt to connect to CONNACK.
pub const CONNECT_TIMEOUT: u32 = 20_000;
/// Milliseconds for the answer to a PINGREQ, unless the keepalive is shorter.
const PING_TIMEOUT: u32 = 10_000;
/// Milliseconds before the first and the slowest attempt to connect again, without jitter.
const BACKOFF: core::ops::RangeInclusive<u32> = 1_000..=60_000;

/// What the internal thread has to do.
pub enum Duty<S: TcpClientStack> {
    /// Wait, then ask again.
    Wait(Wait),
    /// Ask again.
    Again,
    /// Go on with this attempt to connect.
    Dial(Dialer<S>),
    /// Tell the script's error callback.
    Report(Fault<S::Error>),
}

/// How far keepalive's last PINGREQ has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Pinging {
    /// It is answered, or there was none.
    #[default]
    Done,
    /// It has to be sent.
    Wanted,
    /// It was sent, and its answer is awaited.
    Sent,
}

/// The timers of a client.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Service {
    /// Number of the internal thread; another number is that of one that has to end.
    thread: u8,
    running: bool,
    /// When something was received last.
    pub received: Time,
    pub pinging: Pinging,
    /// When the last such PINGREQ was sent.
    pub pinged: Time,
    /// An answer could not be read in time: what is received says nothing for now.
    pub excused: bool,
    /// PINGREQs without an answer.
    pub pings: u16,
    /// When an attempt to connect ends, or the next one begins.
    pub deadline: Time,
    /// Milliseconds that the last attempt was put off; 0: there was none.
    backoff: u32,
    up_since: Time,
}

impl Service {
    pub fn hire(&mut self) -> Option<u8> {
        if self.running {
            return None;
        }
        self.running = true;
        self.thread = self.thread.wrapping_add(1);
        Some(self.thread)
    }

    pub fn dismiss(&mut self) {
        self.running = false;
    }

    pub fn forget_delays(&mut self) {
        self.backoff = 0;
    }

    pub fn employs(&self, thread: u8) -> bool {
        self.running && self.thread == thread
    }

    pub fn link_up(&mut self, now: Time) {
        (self.up_since, self.received) = (now, now);
        self.ping_answered();
    }

    /// The connection has held until now: for as long as the first delay, it starts the delays anew.
    /// Where links are short, a device that waited longer and longer would miss most of them.
    #[inline(never)] // called in two places
    pub fn link_held(&mut self, now: Time) {
        if now.since(self.up_since) >= *BACKOFF.start() {
            self.backoff = 0;
        }
    }

    /// When to try again: after twice the last delay, give or take a quarter, so that the devices
    /// that lost a broker together do not come back together. `name` tells them apart.
    pub fn next_attempt(&mut self, now: Time, name: &[u8]) -> Time {
        self.backoff = (self.backoff * 2).clamp(*BACKOFF.start(), *BACKOFF.end());
        let mut random = now.0.wrapping_mul(0x9E37_79B9);
        for &byte in name {
            random = (random ^ u32::from(byte)).wrapping_mul(0x9E37_79B9);
        }
        let half = self.backoff / 2;
        let jitter = (u64::from(random) * u64::from(half)) >> 32;
        now.after(self.backoff - half / 2 + jitter as u32)
    }

    #[inline(never)] // called in several places
    pub fn ping_answered(&mut self) {
        self.pinging = Pinging::Done;
        (self.pings, self.excused) = (0, false);
    }

    /// The PINGREQ that is wanted, if one is, is on its way, or cannot be: from now on the answer
    /// is awaited. In the middle of a large message none can be sent.
    #[inline(never)] // called in two places
    pub fn ping_sent(&mut self, now: Time) {
        if self.pinging == Pinging::Wanted {
            (self.pinging, self.pinged) = (Pinging::Sent, now);
            self.pings = self.pings.saturating_add(1);
        }
    }

    /// When to look again; `None`: a PINGREQ is wanted. `keepalive` in milliseconds, not 0; `sent`:
    /// when something was sent last; `busy`: the answer may be there, unread; `max`: how many
    /// PINGREQs without an answer are repeated.
    pub fn ping_due<E>(
        &mut self,
        now: Time,
        keepalive: u32,
        sent: Time,
        busy: bool,
        max: u8,
    ) -> Result<Option<Time>, Fault<E>> {
        let awaited = self.pinging == Pinging::Sent;
        let pong_due = self.pinged.after(keepalive.min(PING_TIMEOUT));
        if awaited && !now.reached(pong_due) {
            return Ok(Some(pong_due));
        }
        if awaited && !busy {
            if self.pings > u16::from(max) {
                return Err(Fault::NoPingresp);
            }
        } else {
            if awaited {
                self.ping_answered();
                self.excused = true;
            }
            let quiet_since = if self.excused {
                sent
            } else {
                sent.min(self.received)
            };
            let due = quiet_since.after(keepalive);
            if !now.reached(due) {
                return Ok(Some(due));
            }
        }
        self.pinging = Pinging::Wanted;
        Ok(None)
    }
}

/// The internal thread with this number. It returns when the client does not want it any more, or
/// when the port breaks its wait off: then the client is gone.
pub fn run<P: Port>(port: &P, thread: u8) {
    loop {
        let duty = port.with(|client, stack| {
            client.employs(thread).then(|| {
                let mut duty = client.serve(stack);
                if let Duty::Wait(wait) = &mut duty {
                    client.watch(wait);
                    client.will_wait();
                }
                duty
            })
        });
        let done = match duty {
            None => return,
            Some(Duty::Again) => Ok(()),
            Some(Duty::Wait(wait)) => port.wait(None, wait),
            Some(Duty::Report(fault)) => {
                port.report(fault);
                Ok(())
            }
            Some(Duty::Dial(mut dialer)) => match calls::dial(port, &mut dialer) {
                Err(Error::Interrupted) => Err(Interrupted),
                Err(error) => {
                    attempt_failed(port, dialer.epoch, error);
                    Ok(())
                }
                Ok(()) => Ok(()),
            },
        };
        if done.is_err() {
            port.with(|client, stack| {
                client.quit(thread);
                client.close(stack);
            });
            return;
        }
    }
}

/// An attempt failed; the next one follows, unless this one was not wanted any more.
pub(crate) fn attempt_failed<P: Port>(port: &P, epoch: u8, error: Error<NetError<P>>) {
    if let Error::Fault(fault) = error {
        port.with(|client, stack| client.attempt_failed(stack, epoch, fault));
    }
}
