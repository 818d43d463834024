//! One client on one connection: a machine of non-blocking steps.
//!
//! Nothing here waits. A step sends and reads what the socket takes and has at this moment, keeps
//! its place in a half-sent and in a half-read packet, and leaves the client in a state in which
//! any other step may follow, from any thread. `crate::calls` builds the waiting calls of the API
//! from these steps.
//!
//! What comes from the network becomes a typed value or a [`Fault`]; a fault ends the connection,
//! whatever else was going on, and keeps what the session has in flight.

use core::mem;

use embedded_nal::{AddrType, TcpClientStack, TcpError, TcpErrorKind, nb};
use heapless::Deque;

use crate::{
    calls::{Dialer, Wait},
    config::KEPT,
    memory::{Inbox, Memory, Tag},
    packet::{
        Ack, Connack, Connect, Header, Kind, Malformed, Packet, PacketId, QoS, Suback, Subscribe,
        Unsubscribe, Version, Will, check_topic, publish_flags,
    },
    service::{CONNECT_TIMEOUT, Duty, Ping, Service},
    session::{Due, Message, Session, Ticket},
    time::Time,
    wire::{Incoming, Outgoing},
};

/// How long a socket may take no byte, in milliseconds.
pub const STALL: u32 = 5_000;

/// How long no call has to read before the internal thread does, in milliseconds.
const READER_TICK: u32 = 100;

/// How long there may be nothing to serve, in milliseconds.
const LEISURE: u32 = 60_000;

/// Acknowledgements that can be due at a time; when as many are, reading stops.
const ACKS: usize = 8;

/// What the script chose.
#[derive(Debug)]
pub struct Config<B> {
    /// Client identifier, may be empty.
    pub client_id: B,
    /// Host name or address of the broker.
    pub server: B,
    /// TCP port of the broker.
    pub port: u16,
    /// Ask for an IPv6 address.
    pub ipv6: bool,
    /// User name.
    pub user: Option<B>,
    /// Password; only with a user name [MQTT-3.1.2-22].
    pub password: Option<B>,
    /// Seconds; 0 turns it off.
    pub keepalive: u16,
    /// Protocol version.
    pub version: Version,
    /// How many unanswered PINGREQs are repeated before the connection counts as dead.
    pub ping_max: u8,
    /// Does the script leave reconnecting to us?
    pub reconnect: bool,
    /// Last will.
    pub will: Option<Message<B>>,
}

impl<B: Clone> Config<B> {
    /// Whom to connect to: host, TCP port, and the family to ask the resolver for.
    pub fn endpoint(&self) -> (B, u16, AddrType) {
        let family = if self.ipv6 {
            AddrType::IPv6
        } else {
            AddrType::IPv4
        };
        (self.server.clone(), self.port, family)
    }
}

/// What ended a connection, or kept it from being made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault<E> {
    /// The name was not resolved.
    Dns(E),
    /// The connection was not made.
    Dial(E),
    /// The socket failed.
    Io(E),
    /// The server closed the connection.
    Closed,
    /// The connection was not made in time.
    Unreachable,
    /// CONNECT was not answered in time.
    Silent,
    /// The socket took only a part of a packet.
    Stalled,
    /// PINGREQ was not answered in time.
    NoPingresp,
    /// The server sent something that is no MQTT packet, or not a valid one.
    Malformed(Malformed),
    /// The server sent a packet that does not belong here.
    Unexpected(Kind),
    /// The server refused the connection: return code of CONNACK (section 3.2.2.3).
    Refused(u8),
}

impl<E> From<Malformed> for Fault<E> {
    fn from(malformed: Malformed) -> Self {
        Fault::Malformed(malformed)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Never connected, closed, disconnected, or failed.
    Idle,
    /// Failed, and to be connected again; at this moment, once it is known.
    Lost(Option<Time>),
    /// DNS and TCP are under way, outside of the client.
    Dialing,
    /// CONNACK is awaited.
    Greeting,
    Up,
}

/// Answer of [`Client::status`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Connected.
    Connected,
    /// Connecting, for the first time or again.
    Connecting,
    /// The server closed the connection.
    ServerClosed,
    /// Never connected, closed, disconnected, or failed.
    Idle,
}

impl Status {
    /// Is there neither a connection nor the attempt to make one?
    pub fn is_idle(self) -> bool {
        matches!(self, Status::ServerClosed | Status::Idle)
    }
}

/// How the script itself ended a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// `close`.
    Closed,
    /// `disconnect`.
    Disconnected,
}

/// What the port has to know when a call is done with the client for now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Signals {
    /// Something happened that another call may wait for.
    pub changed: bool,
    /// Something happened that the internal thread has to know, and everybody else.
    pub alarm: bool,
    /// The call is going to wait, for anything that happens from now on.
    pub waiting: bool,
}

/// What tells the internal thread that there is something to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Watch {
    /// It waits for the socket.
    Socket,
    /// A call of the script waits for the socket.
    Reader,
    /// No call does any more, and the thread does not yet.
    Tick,
}

/// What a step may do with messages that come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Appetite {
    /// Leave them where they are.
    Nothing,
    /// Keep them for later, up to the build's limit.
    Keep,
    /// Read one, to hand it to the script.
    Deliver,
}

/// Why a step stopped reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// There is nothing more to read at this moment.
    Dry,
    /// There may be more to read at once.
    More,
    /// A message is whole.
    Message,
    /// A message is next, and there is no appetite for it, or no room to keep it.
    Full,
    /// Acknowledgements have to be sent first.
    Acks,
}

impl Stop {
    /// This reason, or the other one if this is just that nothing is there.
    pub fn or(self, other: Stop) -> Stop {
        if self == Stop::Dry { other } else { self }
    }
}

/// The packet that is being put into the buffer, which may be smaller than the packet.
#[derive(Debug)]
enum Sending<B> {
    Connect {
        clean_session: bool,
    },
    /// QoS 0. It stays here until the socket has taken all of it.
    Publish(Message<B>, Ticket),
    Ack(Ack),
    Ping,
    Due(Due, PacketId),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Header,
    Topic,
    Id,
    Payload,
}

/// The PUBLISH that is being read.
#[derive(Debug)]
struct Reading {
    part: Part,
    /// Lengths in bytes, and how much of the part is there.
    topic: usize,
    payload: usize,
    done: usize,
    qos: QoS,
    id: Option<PacketId>,
    /// It goes to the inbox; otherwise it is skipped.
    stored: bool,
    /// A repeated QoS 2 message; `true` if it has been handled.
    known: Option<bool>,
}

/// An MQTT client. `S` is the network, `M` the memory.
pub struct Client<S: TcpClientStack, M: Memory> {
    /// Who connects to whom; used by the next CONNECT.
    pub config: Config<M::Bytes>,
    /// What outlives the connection.
    pub session: Session<M>,
    /// Messages for the script.
    pub inbox: M::Inbox,
    phase: Phase,
    /// What ended the last connection, if it was not the script.
    fault: Option<Fault<S::Error>>,
    /// The fault came after CONNACK.
    was_up: bool,
    /// The fault is still to be told to the script's error callback.
    unreported: bool,
    /// Connections that fail are made again: from `connect` to `close` or `disconnect`.
    persistent: bool,
    /// The attempt to connect that the calls go on with, on a port without threads.
    pub(crate) dialer: Option<Dialer<S>>,
    /// The time of the present step.
    now: Time,
    service: Service,
    /// Calls of the script that wait for the socket to become readable.
    readers: u16,
    /// One of them has read since the internal thread looked last.
    script_read: bool,
    watch: Watch,
    /// When keepalive asks for something next, as far as is known.
    served_until: Option<Time>,
    socket: Option<S::TcpSocket>,
    outgoing: Outgoing<M::Buffer>,
    incoming: Incoming<M::Buffer>,
    sending: Option<Sending<M::Bytes>>,
    /// Bytes of the packet being sent that are in the buffer or further, and its length.
    sent: usize,
    len: usize,
    acks: Deque<Ack, ACKS>,
    ping_due: bool,
    reading: Reading,
    /// Something was left unread when reading was tried last.
    reading_stopped: bool,
    clean_session: bool,
    /// Counts connections; tells an acknowledgement that belongs to an earlier one.
    link: u8,
    /// Counts `close`, `disconnect` and `connect`.
    epoch: u8,
    /// Counts `close` and `disconnect`.
    ends: u8,
    end: End,
    /// The oldest message in the inbox is in the script's callback.
    delivering: bool,
    /// Bytes of messages in the inbox.
    kept: u32,
    /// Size of a message that was skipped for want of memory, until it is reported.
    skipped: Option<u32>,
    signals: Signals,
}

impl<S, M> Client<S, M>
where
    S: TcpClientStack<Error: Clone + Copy>,
    M: Memory,
{
    /// A client that has not connected yet. A PUBLISH that fits the transmit buffer is one write;
    /// the receive buffer is what a server can make us read ahead. At least 64 bytes each.
    pub fn new(
        config: Config<M::Bytes>,
        session: Session<M>,
        inbox: M::Inbox,
        receive_buffer: M::Buffer,
        transmit_buffer: M::Buffer,
    ) -> Self {
        let mut service = Service::default();
        service.seed(config.client_id.as_ref());
        Client {
            config,
            session,
            inbox,
            phase: Phase::Idle,
            fault: None,
            was_up: false,
            unreported: false,
            persistent: false,
            dialer: None,
            now: Time(0),
            service,
            readers: 0,
            script_read: false,
            watch: Watch::Socket,
            served_until: None,
            socket: None,
            outgoing: Outgoing::new(transmit_buffer),
            incoming: Incoming::new(receive_buffer),
            sending: None,
            sent: 0,
            len: 0,
            acks: Deque::new(),
            ping_due: false,
            reading: Reading {
                part: Part::Header,
                topic: 0,
                payload: 0,
                done: 0,
                qos: QoS::AtMostOnce,
                id: None,
                stored: false,
                known: None,
            },
            reading_stopped: false,
            clean_session: false,
            link: 0,
            epoch: 0,
            ends: 0,
            end: End::Closed,
            delivering: false,
            kept: 0,
            skipped: None,
            signals: Signals::default(),
        }
    }

    /// The state of the connection.
    pub fn status(&self) -> Status {
        match (self.phase, self.fault) {
            (Phase::Up, _) => Status::Connected,
            (Phase::Lost(_) | Phase::Dialing | Phase::Greeting, _) => Status::Connecting,
            (Phase::Idle, Some(Fault::Closed)) if self.was_up => Status::ServerClosed,
            (Phase::Idle, Some(Fault::Io(error)))
                if self.was_up && error.kind() == TcpErrorKind::PipeClosed =>
            {
                Status::ServerClosed
            }
            (Phase::Idle, _) => Status::Idle,
        }
    }

    /// What ended the last connection, if it was not the script.
    pub fn fault(&self) -> Option<Fault<S::Error>> {
        self.fault
    }

    /// Changes with each `close`, `disconnect` and `connect`.
    pub fn epoch(&self) -> u8 {
        self.epoch
    }

    /// Changes with each `close` and `disconnect`.
    pub fn ends(&self) -> u8 {
        self.ends
    }

    /// Which of `close` and `disconnect` came last.
    pub fn end(&self) -> End {
        self.end
    }

    /// Number of the present connection.
    pub fn link(&self) -> u8 {
        self.link
    }

    /// The socket of the present connection.
    pub fn socket(&self) -> Option<&S::TcpSocket> {
        self.socket.as_ref()
    }

    /// The call that has the client now is going to wait.
    pub fn will_wait(&mut self) {
        self.signals.waiting = true;
    }

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
            self.signals.alarm = true;
        }
    }

    /// Should the internal thread wait for the socket to become readable? Not while a call of the
    /// script does: both would wake up for every packet. When one has just read, another one may
    /// come at once, so a while passes first.
    fn watch(&mut self, now: Time) -> (bool, Option<Time>) {
        if self.readers > 0 {
            self.watch = Watch::Reader;
            (false, None)
        } else if mem::take(&mut self.script_read) || self.watch == Watch::Tick {
            self.watch = Watch::Socket;
            (false, Some(now.after(READER_TICK)))
        } else {
            (true, None)
        }
    }

    /// What the port has to know when a call is done with the client for now.
    pub fn take_signals(&mut self) -> Signals {
        // What a call leaves unsent is the internal thread's to send.
        self.signals.alarm |= !self.signals.waiting && self.wants_write();
        mem::take(&mut self.signals)
    }

    /// When the link counts as failed unless the socket takes something.
    pub fn stalls_at(&self) -> Option<Time> {
        let half_sent = self.wants_write() && !self.outgoing.is_untouched();
        half_sent.then(|| self.outgoing.progress().after(STALL))
    }

    /// Is something waiting to be sent?
    pub fn wants_write(&self) -> bool {
        self.socket.is_some() && (!self.outgoing.is_empty() || self.sending.is_some())
    }

    /// When the socket took a byte last, of what is waiting to be sent.
    pub fn send_progress(&self) -> Time {
        self.outgoing.progress()
    }

    /// `connect` begins: what there was of a connection is closed. The answer is the epoch in
    /// which [`Client::attach`] has to come.
    pub fn dial(&mut self, stack: &mut S, clean_session: bool) -> u8 {
        self.hang_up(stack);
        // One that was killed while it was waiting is not coming back.
        self.readers = 0;
        self.persistent = false;
        self.unreported = false;
        self.clean_session = clean_session;
        self.epoch = self.epoch.wrapping_add(1);
        self.phase = Phase::Dialing;
        self.epoch
    }

    /// TCP is connected: CONNECT goes out. Gives the socket back if the script has changed its
    /// mind since [`Client::dial`].
    pub fn attach(&mut self, socket: S::TcpSocket, epoch: u8) -> Result<(), S::TcpSocket> {
        if epoch != self.epoch {
            return Err(socket);
        }
        self.socket = Some(socket);
        self.link = self.link.wrapping_add(1);
        self.sending = Some(Sending::Connect {
            clean_session: self.clean_session,
        });
        (self.sent, self.len) = (0, usize::MAX);
        self.phase = Phase::Greeting;
        Ok(())
    }

    /// The connection failed, or was not made.
    pub fn lose(&mut self, stack: &mut S, fault: Fault<S::Error>) {
        let was_up = self.phase == Phase::Up;
        if was_up {
            // What arrived before is not lost with the connection, as far as it can be kept.
            while self.reading.part == Part::Header
                && matches!(self.parse(Appetite::Keep), Ok(Stop::Acks))
            {
                self.acks.clear();
            }
            self.service.link_lost(self.now);
        }
        self.hang_up(stack);
        if self.persistent {
            self.phase = Phase::Lost(None);
        }
        self.fault = Some(fault);
        self.was_up = was_up;
        self.unreported = was_up && !self.persistent;
    }

    /// `close`: lets the socket go. What is in flight stays, and so do the subscriptions.
    pub fn close(&mut self, stack: &mut S) {
        self.hang_up(stack);
        self.persistent = false;
        self.unreported = false;
        self.end = End::Closed;
        self.ends = self.ends.wrapping_add(1);
        self.epoch = self.epoch.wrapping_add(1);
    }

    /// `disconnect`: sends DISCONNECT if the socket takes it at once, and lets everything go.
    pub fn disconnect(&mut self, stack: &mut S, now: Time) {
        self.now = now;
        if self.phase == Phase::Up && self.flush(stack).is_ok() && !self.wants_write() {
            let header = Header::new(Kind::Disconnect, 0);
            self.outgoing.append(0, now, |out| header.emit(out));
            let _ = self.flush(stack);
            self.drain(stack);
        }
        self.close(stack);
        self.service.dismiss();
        self.end = End::Disconnected;
        self.session.forget();
        self.inbox.keep(usize::from(self.delivering));
        self.kept = self.inbox.first().map_or(0, |tag| tag.size);
    }

    /// Closing a socket with unread data resets the connection, and the reset may overtake the
    /// DISCONNECT. Reads what is there, within reason.
    fn drain(&mut self, stack: &mut S) {
        for _ in 0..64 {
            self.incoming.reset();
            match self
                .socket
                .as_mut()
                .map(|s| stack.receive(s, self.incoming.room()))
            {
                Some(Ok(n)) if n > 0 => {}
                _ => break,
            }
        }
    }

    fn hang_up(&mut self, stack: &mut S) {
        self.phase = Phase::Idle;
        self.fault = None;
        let dialing = self.dialer.take().and_then(|dialer| dialer.socket);
        for socket in [self.socket.take(), dialing].into_iter().flatten() {
            // Nothing can be done about a socket that fails to close.
            let _ = stack.close(socket);
        }
        if self.reading.part != Part::Header && self.reading.stored {
            self.inbox.abandon();
        }
        self.reading.part = Part::Header;
        if let Some(Sending::Due(Due::Publish(at, _), _)) = self.sending {
            self.session.half_sent(at);
        }
        self.sending = None;
        self.acks.clear();
        self.ping_due = false;
        self.outgoing.drop_pending();
        self.incoming.reset();
        self.session.link_lost();
        self.signals.alarm = true;
    }

    /// Sends a QoS 0 message now, if nothing is before it. `None`: something is.
    pub fn start_publish(&mut self, message: &Message<M::Bytes>) -> Option<Ticket> {
        if self.phase != Phase::Up || self.wants_write() {
            return None;
        }
        let ticket = self.session.new_ticket();
        self.sending = Some(Sending::Publish(message.clone(), ticket));
        (self.sent, self.len) = (0, usize::MAX);
        Some(ticket)
    }

    /// Does the buffer hold all of this QoS 0 message?
    pub fn fits_buffer(&self, message: &Message<M::Bytes>) -> bool {
        message.packet(None, false).encoded_len() <= self.outgoing.capacity()
    }

    /// Is this QoS 0 message still being sent?
    pub fn is_publishing(&self, ticket: Ticket) -> bool {
        matches!(self.sending, Some(Sending::Publish(_, mine)) if mine == ticket)
    }

    /// Gives the QoS 0 message that is being sent up, if the socket has taken nothing of it.
    pub fn cancel_publish(&mut self) -> bool {
        let untouched = self.outgoing.is_untouched();
        if untouched {
            self.outgoing.drop_pending();
            self.sending = None;
            self.signals.changed = true;
        }
        untouched
    }

    /// Until when there is nothing for [`Client::serve`] to do on a port without threads, where
    /// the calls see to the socket themselves. `None`: there is something now.
    pub fn leisure(&self, now: Time) -> Option<Time> {
        let until = match self.phase {
            _ if self.unreported => None,
            Phase::Up => self.served_until,
            _ if self.persistent => None,
            _ => Some(now.after(LEISURE)),
        };
        until.filter(|&until| !now.reached(until))
    }

    /// What the internal thread has to do next: see [`crate::service`].
    pub fn serve(&mut self, stack: &mut S, now: Time) -> Duty<S::Error> {
        let stop = self.pump(stack, now, Appetite::Nothing, true);
        if mem::take(&mut self.unreported)
            && let Some(fault) = self.fault
        {
            return Duty::Report(fault);
        }
        let due = match self.phase {
            Phase::Up => self.keep_alive(),
            Phase::Greeting if self.persistent => match self.service.deadline {
                deadline if now.reached(deadline) => Err(Fault::Silent),
                deadline => Ok(Some(deadline)),
            },
            Phase::Lost(at) => {
                let at = at.unwrap_or_else(|| self.service.next_attempt(now));
                if now.reached(at) {
                    self.phase = Phase::Dialing;
                    self.service.deadline = now.after(CONNECT_TIMEOUT);
                    return Duty::Dial(self.epoch);
                }
                self.phase = Phase::Lost(Some(at));
                Ok(Some(at))
            }
            Phase::Idle | Phase::Dialing | Phase::Greeting => Ok(None),
        };
        let mut until = match due {
            Ok(until) => until,
            Err(fault) => {
                self.lose(stack, fault);
                return Duty::Again;
            }
        };
        if self.ping_due {
            self.pump(stack, now, Appetite::Nothing, false);
        }
        if stop == Stop::More || self.phase == Phase::Lost(None) || self.unreported {
            return Duty::Again;
        }
        self.served_until = Some(until.unwrap_or(now.after(LEISURE)));
        let (watch, look_again) = self.watch(now);
        for other in [self.stalls_at(), look_again].into_iter().flatten() {
            until = Some(until.map_or(other, |until| until.min(other)));
        }
        Duty::Wait(Wait {
            readable: watch && stop == Stop::Dry,
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

    /// Sends a PINGREQ when nothing was sent or received for a keepalive interval; the answer
    /// says when to look again. [MQTT-3.1.2-23]
    fn keep_alive(&mut self) -> Result<Option<Time>, Fault<S::Error>> {
        let (keepalive, now) = (u32::from(self.config.keepalive) * 1_000, self.now);
        if keepalive == 0 {
            return Ok(None);
        }
        // While messages keep the answer from being read, its absence means nothing.
        let busy = self.reading_stopped
            || self.reading.part != Part::Header && now.since(self.service.received) < STALL;
        match self
            .service
            .ping_due(now, keepalive, self.outgoing.progress(), busy)
        {
            Ping::Wait(until) => Ok(Some(until)),
            Ping::Send(until) => {
                self.ping_due = true;
                Ok(Some(until))
            }
            Ping::Unanswered if self.service.pings <= self.config.ping_max => {
                self.ping_due = true;
                Ok(Some(self.service.ping_again(now, keepalive)))
            }
            Ping::Unanswered => Err(Fault::NoPingresp),
        }
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

    /// Sends a PINGREQ as soon as possible.
    pub fn ping(&mut self) {
        self.ping_due = true;
    }

    /// Sends what there is to send, reads what there is to read (if `read`; in any case what was
    /// read before). A fault ends the connection.
    pub fn pump(&mut self, stack: &mut S, now: Time, appetite: Appetite, read: bool) -> Stop {
        self.now = now;
        match self.try_pump(stack, appetite, read) {
            Ok(stop) => stop,
            Err(fault) => {
                self.lose(stack, fault);
                Stop::Dry
            }
        }
    }

    fn try_pump(
        &mut self,
        stack: &mut S,
        appetite: Appetite,
        read: bool,
    ) -> Result<Stop, Fault<S::Error>> {
        self.flush(stack)?;
        let mut stop = Stop::Dry;
        while read || !self.incoming.bytes().is_empty() {
            stop = self.receive(stack, appetite, read)?;
            self.flush(stack)?;
            if stop != Stop::Acks || !self.has_room_for_acks() {
                break;
            }
        }
        match self.stalls_at() {
            Some(deadline) if self.now.reached(deadline) => Err(Fault::Stalled),
            _ => Ok(stop),
        }
    }

    /// Sends until all is sent or the socket takes no more.
    fn flush(&mut self, stack: &mut S) -> Result<(), Fault<S::Error>> {
        loop {
            self.fill();
            let Some(socket) = &mut self.socket else {
                return Ok(());
            };
            let buffered = !self.outgoing.is_empty();
            let piece = match &self.sending {
                _ if buffered => self.outgoing.pending(),
                Some(sending) => large_rest(
                    packet(sending, &self.session, &self.config),
                    self.sent,
                    self.outgoing.capacity(),
                ),
                None => return Ok(()),
            };
            match stack.send(socket, piece) {
                Ok(0) | Err(nb::Error::WouldBlock) => return Ok(()),
                Ok(n) if buffered => self.outgoing.taken(n, self.now),
                Ok(n) => {
                    self.outgoing.count(n, self.now);
                    self.sent += n;
                }
                Err(nb::Error::Other(error)) => return Err(Fault::Io(error)),
            }
        }
    }

    /// Puts what is to be sent into the buffer, as far as it has room.
    fn fill(&mut self) {
        loop {
            if self.sending.is_none() {
                self.sending = self.choose();
                (self.sent, self.len) = (0, usize::MAX);
            }
            let Some(sending) = &self.sending else {
                return;
            };
            if self.sent < self.len {
                let packet = packet(sending, &self.session, &self.config);
                self.len = packet.map_or(0, |packet| packet.encoded_len());
                // A large rest is sent from where it lies, once the buffer is empty.
                if let Some(packet) = packet
                    && large_rest(Some(packet), self.sent, self.outgoing.capacity()).is_empty()
                {
                    self.sent += self
                        .outgoing
                        .append(self.sent, self.now, |out| packet.emit(out));
                }
                if self.sent < self.len {
                    return;
                }
            }
            match sending {
                Sending::Publish(..) if !self.outgoing.is_empty() => return,
                Sending::Due(due, id) => self.session.sent(*due, *id),
                _ => {}
            }
            self.sending = None;
        }
    }

    /// What to send next: acknowledgements, then PINGREQ, then what the session has due.
    fn choose(&mut self) -> Option<Sending<M::Bytes>> {
        if self.phase != Phase::Up {
            return None;
        }
        if let Some(ack) = self.acks.pop_front() {
            return Some(Sending::Ack(ack));
        }
        if mem::take(&mut self.ping_due) {
            return Some(Sending::Ping);
        }
        let due = self.session.next_due()?;
        let id = match due {
            Due::Subscribe(_) | Due::Unsubscribe(_) => self.session.new_id(),
            Due::Publish(_, id) | Due::Pubrel(id) => id,
        };
        Some(Sending::Due(due, id))
    }

    /// Parses what is there and reads on, as far as the appetite goes.
    fn receive(
        &mut self,
        stack: &mut S,
        appetite: Appetite,
        read: bool,
    ) -> Result<Stop, Fault<S::Error>> {
        // So many bytes at a time: other threads, and the caller's deadline, have their turn.
        let mut budget = self.incoming.capacity();
        self.script_read |= read && appetite != Appetite::Nothing;
        let mut drained = !read;
        let mut read_some = false;
        loop {
            let stop = self.parse(appetite)?;
            self.reading_stopped = stop != Stop::Dry;
            // What one call has read may be for another, and no socket tells it.
            self.signals.changed |= read_some && self.reading_stopped;
            // Without appetite too the buffer fills, to see the end of the connection.
            let stop = match stop {
                Stop::Full if appetite == Appetite::Nothing && !self.incoming.is_full() => {
                    Stop::Dry
                }
                stop => stop,
            };
            if stop != Stop::Dry {
                return Ok(stop);
            }
            let Some(socket) = &mut self.socket else {
                return Ok(Stop::Dry);
            };
            if drained {
                return Ok(Stop::Dry);
            }
            if budget == 0 {
                return Ok(Stop::More);
            }
            let reading = &mut self.reading;
            let direct = reading.part == Part::Payload && reading.stored;
            let room = if direct {
                self.inbox
                    .payload()
                    .get_mut(reading.done..)
                    .unwrap_or_default()
            } else {
                self.incoming.room()
            };
            let wanted = room.len();
            match stack.receive(socket, room) {
                Ok(0) => return Err(Fault::Closed),
                Ok(n) if direct => {
                    reading.done += n;
                    self.service.received = self.now;
                }
                Ok(n) => {
                    self.service.received = self.now;
                    self.incoming.filled(n);
                    read_some = true;
                    budget = budget.saturating_sub(n);
                    drained = n < wanted;
                }
                Err(nb::Error::WouldBlock) => return Ok(Stop::Dry),
                Err(nb::Error::Other(error)) => return Err(Fault::Io(error)),
            }
        }
    }

    /// Parses packets until something is missing.
    fn parse(&mut self, appetite: Appetite) -> Result<Stop, Fault<S::Error>> {
        loop {
            let more = match self.reading.part {
                Part::Header => {
                    if let Some(stop) = self.parse_header(appetite)? {
                        return Ok(stop);
                    }
                    true
                }
                Part::Topic => self.read_topic()?,
                Part::Id => self.read_id()?,
                Part::Payload => self.read_payload(),
            };
            if !more {
                return Ok(Stop::Dry);
            }
        }
    }

    /// The next packet: all of it, or the start of a PUBLISH.
    fn parse_header(&mut self, appetite: Appetite) -> Result<Option<Stop>, Fault<S::Error>> {
        if appetite == Appetite::Deliver && (self.inbox.first().is_some() || self.skipped.is_some())
        {
            return Ok(Some(Stop::Message));
        }
        let Some((header, start)) = Header::parse(self.incoming.bytes(), self.config.version)?
        else {
            return Ok(Some(Stop::Dry));
        };
        // [MQTT-3.2.0-1] [MQTT-3.2.0-2]
        if (header.kind == Kind::Connack) != (self.phase == Phase::Greeting) {
            return Err(Fault::Unexpected(header.kind));
        }
        if !self.has_room_for_acks() {
            return Ok(Some(Stop::Acks));
        }
        if header.kind == Kind::Publish {
            return self.begin_message(header, start, appetite);
        }
        // One filter a SUBSCRIBE: this is the longest packet there can be, and it fits.
        if header.remaining > 3 {
            return Err(Malformed::RemainingLength.into());
        }
        let end = start + header.remaining as usize;
        let Some(body) = self.incoming.bytes().get(start..end) else {
            return Ok(Some(Stop::Dry));
        };
        match header.kind {
            Kind::Connack => {
                let connack = Connack::parse(header, body, self.config.version)?;
                self.incoming.consume(end);
                self.greeted(connack)?;
                // Whatever follows, the connection was made.
                return Ok(Some(Stop::More));
            }
            Kind::Suback => {
                let suback = Suback::parse(header, body)?;
                self.session.suback(suback.id, suback.codes != [0x80]);
            }
            Kind::Pubrel => {
                let id = Ack::parse(header, body)?.id;
                if self.session.release(id, self.link) {
                    self.answer(Kind::Pubcomp, id);
                }
            }
            Kind::Puback | Kind::Pubrec | Kind::Pubcomp | Kind::Unsuback => {
                let id = Ack::parse(header, body)?.id;
                self.session.acknowledge(header.kind, id);
            }
            Kind::Pingresp => self.service.ping_answered(),
            kind => return Err(Fault::Unexpected(kind)),
        }
        self.incoming.consume(end);
        self.signals.changed = true;
        Ok(None)
    }

    fn greeted(&mut self, connack: Connack) -> Result<(), Fault<S::Error>> {
        if connack.code != 0 {
            return Err(Fault::Refused(connack.code));
        }
        if connack.session_present {
            self.session
                .inherit(self.outgoing.progress().0.wrapping_mul(0x9E37_79B9));
        } else {
            self.session.start_afresh();
        }
        self.phase = Phase::Up;
        self.signals.alarm = true;
        self.service.link_up(self.now);
        self.served_until = None;
        self.persistent = self.config.reconnect;
        Ok(())
    }

    /// A PUBLISH begins. Its topic and its payload are read straight to where they will stay.
    fn begin_message(
        &mut self,
        header: Header,
        start: usize,
        appetite: Appetite,
    ) -> Result<Option<Stop>, Fault<S::Error>> {
        if appetite == Appetite::Nothing {
            return Ok(Some(Stop::Full));
        }
        let Some(&[high, low]) = self.incoming.bytes().get(start..start + 2) else {
            return Ok(Some(Stop::Dry));
        };
        let topic = usize::from(u16::from_be_bytes([high, low]));
        let (_, qos, _) = publish_flags(header.flags);
        let fixed = if qos == QoS::AtMostOnce { 2 } else { 4 };
        let payload = (header.remaining as usize)
            .checked_sub(fixed + topic)
            .ok_or(Malformed::RemainingLength)?;
        if topic == 0 {
            return Err(Malformed::Topic.into()); // [MQTT-4.7.3-1]
        }
        let keep = appetite == Appetite::Keep;
        let cost = M::Inbox::cost(topic, payload);
        if keep && self.kept.saturating_add(cost) > KEPT as u32 {
            return Ok(Some(Stop::Full));
        }
        let stored = self.inbox.begin(topic, payload);
        if keep && !stored {
            return Ok(Some(Stop::Full));
        }
        self.incoming.consume(start + 2);
        let part = Part::Topic;
        self.reading = Reading {
            part,
            topic,
            payload,
            done: 0,
            qos,
            id: None,
            stored,
            known: None,
        };
        Ok(None)
    }

    fn read_topic(&mut self) -> Result<bool, Fault<S::Error>> {
        let reading = &mut self.reading;
        let rest = reading.topic.saturating_sub(reading.done);
        reading.done += if reading.stored {
            self.incoming.move_to(
                self.inbox
                    .topic()
                    .get_mut(reading.done..)
                    .unwrap_or_default(),
            )
        } else {
            self.incoming.skip(rest)
        };
        if reading.done < reading.topic {
            return Ok(false);
        }
        if reading.stored {
            check_topic(self.inbox.topic())?; // [MQTT-3.3.2-1] [MQTT-3.3.2-2]
        }
        reading.part = if reading.qos == QoS::AtMostOnce {
            Part::Payload
        } else {
            Part::Id
        };
        reading.done = 0;
        Ok(true)
    }

    fn read_id(&mut self) -> Result<bool, Fault<S::Error>> {
        let Some(&[high, low]) = self.incoming.bytes().get(..2) else {
            return Ok(false);
        };
        let id = PacketId::new(u16::from_be_bytes([high, low])).ok_or(Malformed::PacketId)?;
        self.incoming.consume(2);
        let reading = &mut self.reading;
        reading.id = Some(id);
        reading.part = Part::Payload;
        if reading.qos == QoS::ExactlyOnce {
            reading.known = self.session.seen(id, self.link);
            if reading.known.is_some() && mem::take(&mut reading.stored) {
                self.inbox.abandon();
            }
        }
        Ok(true)
    }

    fn read_payload(&mut self) -> bool {
        let reading = &mut self.reading;
        let rest = reading.payload.saturating_sub(reading.done);
        reading.done += if reading.stored {
            self.incoming.move_to(
                self.inbox
                    .payload()
                    .get_mut(reading.done..)
                    .unwrap_or_default(),
            )
        } else {
            self.incoming.skip(rest)
        };
        if reading.done < reading.payload {
            return false;
        }
        reading.part = Part::Header;
        let (qos, id, link) = (reading.qos, reading.id, self.link);
        let size = M::Inbox::cost(reading.topic, reading.payload);
        let exactly_once = id.filter(|_| qos == QoS::ExactlyOnce);
        if let Some(handled) = reading.known {
            if handled {
                self.acknowledge(qos, id);
            }
            return true;
        }
        let remembered =
            exactly_once.is_none_or(|id| self.session.receive(id, link, !reading.stored));
        if reading.stored && remembered {
            self.inbox.finish(Tag {
                id,
                qos,
                link,
                size,
            });
            self.kept = self.kept.saturating_add(size);
        } else {
            if reading.stored {
                self.inbox.abandon();
            }
            self.skipped = Some(size);
            self.acknowledge(qos, id);
        }
        self.signals.changed = true;
        true
    }

    /// For the message that is being read, and two for the one that is in the callback.
    fn has_room_for_acks(&self) -> bool {
        self.acks.len() + 3 <= ACKS
    }

    fn answer(&mut self, kind: Kind, id: PacketId) {
        // There is room: reading and delivering stop in time.
        let _ = self.acks.push_back(Ack { kind, id });
    }

    /// A message has been received and handled: PUBACK or PUBREC is due.
    fn acknowledge(&mut self, qos: QoS, id: Option<PacketId>) {
        if let Some(id) = id {
            let exactly_once = qos == QoS::ExactlyOnce;
            self.answer(
                if exactly_once {
                    Kind::Pubrec
                } else {
                    Kind::Puback
                },
                id,
            );
        }
    }

    /// Is the script's callback busy with a message?
    pub fn is_delivering(&self) -> bool {
        self.delivering
    }

    /// The oldest message goes to the script's callback: one at a time, so that they stay in
    /// order. `None`: there is none, or its acknowledgement would have no room.
    pub fn deliver(&mut self) -> Option<Tag> {
        let ready = !self.delivering && self.has_room_for_acks();
        let tag = self.inbox.first().filter(|_| ready)?;
        self.delivering = true;
        Some(tag)
    }

    /// The script's callback has come back: the message is let go, and acknowledged.
    pub fn handled(&mut self, stack: &mut S, now: Time) {
        self.now = now;
        self.delivering = false;
        self.signals.changed = true;
        let Some(tag) = self.inbox.first() else {
            return;
        };
        self.inbox.pop();
        self.kept = self.kept.saturating_sub(tag.size);
        let (acknowledge, complete) = match (tag.qos, tag.id) {
            (QoS::ExactlyOnce, Some(id)) => self.session.handled(id, self.link),
            _ => (tag.link == self.link, false),
        };
        if self.phase != Phase::Up {
            return;
        }
        if acknowledge {
            self.acknowledge(tag.qos, tag.id);
        }
        if let (true, Some(id)) = (complete, tag.id) {
            self.answer(Kind::Pubcomp, id);
        }
        if let Err(fault) = self.flush(stack) {
            self.lose(stack, fault);
        }
    }

    /// Size in bytes of a message that was skipped, for there was no memory for it.
    pub fn take_skipped(&mut self) -> Option<u32> {
        self.skipped.take()
    }
}

/// The packet that is being sent; `None` if what it was about is gone.
fn packet<'a, M: Memory>(
    sending: &'a Sending<M::Bytes>,
    session: &'a Session<M>,
    config: &'a Config<M::Bytes>,
) -> Option<Packet<'a>> {
    Some(match sending {
        Sending::Connect { clean_session } => Packet::Connect(Connect {
            version: config.version,
            client_id: config.client_id.as_ref(),
            clean_session: *clean_session,
            keepalive: config.keepalive,
            will: config.will.as_ref().map(|will| Will {
                topic: will.topic.as_ref(),
                message: will.payload.as_ref(),
                qos: will.qos,
                retain: will.retain,
            }),
            user: config.user.as_ref().map(AsRef::as_ref),
            password: config.password.as_ref().map(AsRef::as_ref),
        }),
        Sending::Publish(message, _) => Packet::Publish(message.packet(None, false)),
        Sending::Ack(ack) => Packet::Ack(*ack),
        Sending::Ping => Packet::Pingreq,
        Sending::Due(due, id) => match due {
            Due::Publish(at, id) => {
                let (message, dup) = session.publish(*at)?;
                Packet::Publish(message.packet(Some(*id), dup))
            }
            Due::Pubrel(id) => Packet::Ack(Ack {
                kind: Kind::Pubrel,
                id: *id,
            }),
            Due::Subscribe(at) => {
                let (filter, qos) = session.filter(*at)?;
                Packet::Subscribe(Subscribe {
                    id: *id,
                    filter,
                    qos,
                    rest: &[],
                })
            }
            Due::Unsubscribe(at) => {
                let (filter, _) = session.filter(*at)?;
                Packet::Unsubscribe(Unsubscribe {
                    id: *id,
                    filter,
                    rest: &[],
                })
            }
        },
    })
}

/// What is left of a PUBLISH when the first `sent` bytes are gone, if that is payload, and more of
/// it than the buffer should copy.
fn large_rest(packet: Option<Packet<'_>>, sent: usize, buffer: usize) -> &[u8] {
    match packet {
        Some(Packet::Publish(publish)) if sent > 0 && publish.payload.len() >= buffer => sent
            .checked_sub(publish.head_len())
            .and_then(|from| publish.payload.get(from..))
            .filter(|rest| rest.len() >= buffer)
            .unwrap_or_default(),
        _ => &[],
    }
}
