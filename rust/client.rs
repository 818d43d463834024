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

use embedded_nal::{AddrType, TcpClientStack, TcpError, TcpErrorKind};
use heapless::Vec;

use crate::{
    calls::{Dialer, Wait},
    config::OTHERS,
    memory::{Inbox, Memory, Tag, cost},
    packet::{Kind, Malformed, QoS, Version},
    service::{CONNECT_TIMEOUT, Service},
    session::{Due, Message, Session, Ticket},
    time::Time,
    wire::{Incoming, Outgoing},
};

mod receive;
mod send;
mod serve;

/// How long a socket may take no byte, in milliseconds.
pub const STALL: u32 = 5_000;

/// Faults that can be owed to the error callback at a time.
const OWED: usize = 4;

/// Acknowledgements that can be due at a time; when as many are, reading stops.
const ACKS: usize = 8;

/// What the script chose.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Config<B> {
    /// Client identifier, may be empty.
    pub client_id: B,
    /// Host name or address of the broker.
    pub server: B,
    /// User name; empty: none.
    pub user: B,
    /// Password; empty: none; only with a user name [MQTT-3.1.2-22].
    pub password: B,
    /// TCP port of the broker.
    pub port: u16,
    /// Seconds; 0 turns it off.
    pub keepalive: u16,
    /// Protocol version.
    pub version: Version,
    /// How many unanswered PINGREQs are repeated before the connection counts as dead.
    pub ping_max: u8,
    /// Ask for an IPv6 address.
    pub ipv6: bool,
    /// Does the script leave reconnecting to us?
    pub reconnect: bool,
}

impl<B: Clone> Config<B> {
    /// Whom to ask the resolver for: a name, and the family of its address.
    pub fn host(&self) -> (B, AddrType) {
        let family = if self.ipv6 {
            AddrType::IPv6
        } else {
            AddrType::IPv4
        };
        (self.server.clone(), family)
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
    /// Failed, and to be connected again at [`Service::deadline`].
    Lost,
    /// DNS and TCP are under way, outside of the client.
    Dialing,
    /// CONNACK is awaited.
    Greeting,
    Up,
}

/// Answer of [`Client::status`], in the numbers of `get_mqttsta`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Never connected, closed, disconnected, or failed.
    Idle = -1,
    /// Connected.
    Connected,
    /// Connecting, for the first time or again.
    Connecting,
    /// The server closed the connection.
    ServerClosed,
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

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Header,
    Topic,
    Id,
    Payload,
}

/// What becomes of the PUBLISH that is being read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// It goes to the inbox.
    Stored,
    /// It is skipped, for want of memory.
    Skipped,
    /// It is skipped, for it came before, with QoS 2; `true` if it has been handled.
    Known(bool),
}

/// The PUBLISH that is being read.
#[derive(Debug)]
#[repr(C)] // small fields first, as in `Client`
struct Reading {
    part: Part,
    fate: Fate,
    dup: bool,
    tag: Tag,
    /// Bytes that the part still lacks.
    left: usize,
    /// Length in bytes.
    payload: usize,
}

/// An MQTT client. `S` is the network, `M` the memory.
///
/// In this order, for a small field near the start takes the short instructions of a small
/// machine.
#[repr(C)]
pub struct Client<S: TcpClientStack, M: Memory> {
    phase: Phase,
    /// Counts connections; tells an acknowledgement that belongs to an earlier one.
    link: u8,
    signals: Signals,
    ping_due: bool,
    /// Something was left unread when reading was tried last.
    reading_stopped: bool,
    /// The oldest message in the inbox is in the script's callback.
    delivering: bool,
    /// Connections that fail are made again: from `connect` to `close` or `disconnect`.
    persistent: bool,
    watch: Watch,
    /// A call of the script has read since the internal thread looked last.
    script_read: bool,
    /// Counts `close`, `disconnect` and `connect`.
    epoch: u8,
    /// Counts `close` and `disconnect`.
    ends: u8,
    /// Counts connections that failed and are not made again.
    failures: u8,
    end: End,
    clean_session: bool,
    /// CONNACK has come since `connect`.
    greeted: bool,
    /// The server ended the last connection, after CONNACK.
    server_closed: bool,
    /// Calls of the script that wait for the socket to become readable.
    readers: u16,
    /// The packet that is being put into the buffer, which may be smaller than the packet.
    sending: Option<Due>,
    reading: Reading,
    /// What ended the last connection, if it was not the script.
    fault: Option<Fault<S::Error>>,
    socket: Option<S::TcpSocket>,
    /// The time of the present step.
    now: Time,
    /// Bytes of the packet being sent that are in the buffer or further, and its length.
    sent: usize,
    len: usize,
    outgoing: Outgoing<M::TransmitBuffer>,
    incoming: Incoming<M::ReceiveBuffer>,
    /// Bytes of messages in the inbox.
    kept: u32,
    /// Messages for the script.
    pub inbox: M::Inbox,
    acks: Vec<Due, ACKS>,
    service: Service,
    /// The QoS 0 message of that packet. It stays until the socket has taken all of it.
    at_most_once: Option<(Message<M::Bytes>, Ticket)>,
    /// When keepalive asks for something next, as far as is known, and when it was looked last.
    served_until: Time,
    served_at: Time,
    /// When a call was last there, on a port without threads.
    left: Time,
    /// Size of a message that was skipped for want of memory, until it is reported.
    skipped: Option<u32>,
    /// Faults that are still to be told to the script's error callback: a script may be quicker
    /// than the internal thread.
    owed: Vec<Fault<S::Error>, OWED>,
    /// The attempt to connect that the calls go on with, on a port without threads.
    pub(crate) dialer: Option<Dialer<S>>,
    /// Who connects to whom; used by the next CONNECT.
    pub config: Config<M::Bytes>,
    /// Last will, for the next CONNECT.
    pub will: Option<Message<M::Bytes>>,
    /// What outlives the connection.
    pub session: Session<M>,
}

impl<S, M> Client<S, M>
where
    S: TcpClientStack<Error: Clone + Copy>,
    M: Memory,
{
    /// A client that has not connected yet. A PUBLISH that fits the transmit buffer is one write;
    /// the receive buffer is what a server can make us read ahead. At least 64 bytes each.
    #[inline(always)] // written where it stays, not by way of the stack
    pub fn new(
        config: Config<M::Bytes>,
        session: Session<M>,
        inbox: M::Inbox,
        receive_buffer: M::ReceiveBuffer,
        transmit_buffer: M::TransmitBuffer,
    ) -> Self {
        Client {
            config,
            will: None,
            session,
            inbox,
            phase: Phase::Idle,
            fault: None,
            server_closed: false,
            owed: Vec::new(),
            persistent: false,
            dialer: None,
            now: Time(0),
            service: Service::default(),
            readers: 0,
            script_read: false,
            watch: Watch::Socket,
            served_until: Time(0),
            served_at: Time(0),
            left: Time(0),
            socket: None,
            outgoing: Outgoing::new(transmit_buffer),
            incoming: Incoming::new(receive_buffer),
            sending: None,
            at_most_once: None,
            sent: 0,
            len: 0,
            acks: Vec::new(),
            ping_due: false,
            reading: Reading {
                part: Part::Header,
                fate: Fate::Skipped,
                dup: false,
                tag: Tag {
                    id: None,
                    qos: QoS::AtMostOnce,
                    link: 0,
                    size: 0,
                },
                left: 0,
                payload: 0,
            },
            reading_stopped: false,
            clean_session: false,
            greeted: false,
            link: 0,
            epoch: 0,
            ends: 0,
            failures: 0,
            end: End::Closed,
            delivering: false,
            kept: 0,
            skipped: None,
            signals: Signals::default(),
        }
    }

    /// The state of the connection.
    pub fn status(&self) -> Status {
        match self.phase {
            Phase::Up => Status::Connected,
            Phase::Lost | Phase::Dialing | Phase::Greeting => Status::Connecting,
            Phase::Idle if self.server_closed => Status::ServerClosed,
            Phase::Idle => Status::Idle,
        }
    }

    /// Is there a connection?
    pub fn is_up(&self) -> bool {
        self.phase == Phase::Up
    }

    /// Is there neither a connection nor the attempt to make one?
    pub fn is_idle(&self) -> bool {
        self.phase == Phase::Idle
    }

    /// What ended the last connection, if it was not the script.
    pub fn fault(&self) -> Option<Fault<S::Error>> {
        self.fault
    }

    /// Has CONNACK come since [`Client::dial`]? Whatever became of the connection since.
    pub fn was_greeted(&self) -> bool {
        self.greeted
    }

    /// When the present attempt to connect ends.
    pub fn connect_deadline(&self) -> Time {
        self.service.deadline
    }

    /// Changes with each `close`, `disconnect` and `connect`.
    pub fn epoch(&self) -> u8 {
        self.epoch
    }

    /// Changes with each `close` and `disconnect`.
    pub fn ends(&self) -> u8 {
        self.ends
    }

    /// Changes with each failure of a connection that is not made again.
    pub fn failures(&self) -> u8 {
        self.failures
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

    /// What the port has to know when a call is done with the client for now.
    pub fn take_signals(&mut self) -> Signals {
        // What a call leaves unsent is the internal thread's to send.
        self.signals.alarm |= OTHERS && !self.signals.waiting && self.wants_write();
        mem::take(&mut self.signals)
    }

    /// The time of the present step.
    pub fn now(&self) -> Time {
        self.now
    }

    /// A step begins.
    pub fn set_now(&mut self, now: Time) {
        self.now = now;
    }

    /// What a call waits for whose step stopped here, until `deadline` at the latest.
    pub fn wait(&self, stop: Stop, deadline: Time) -> Wait {
        let until = match stop {
            Stop::More => self.now,
            _ => deadline.min(self.stalls_at()),
        };
        Wait {
            readable: stop == Stop::Dry,
            writable: self.wants_write(),
            until,
        }
    }

    /// When the link counts as failed unless the socket takes something.
    pub fn stalls_at(&self) -> Time {
        if self.wants_write() && !self.outgoing.is_untouched() {
            self.outgoing.progress().after(STALL)
        } else {
            self.now.after(Time::FOREVER)
        }
    }

    /// Is something waiting to be sent?
    pub fn wants_write(&self) -> bool {
        self.socket.is_some() && (!self.outgoing.is_empty() || self.sending.is_some())
    }

    /// How many bytes the sockets have taken, going round at 2^32.
    pub fn written(&self) -> u32 {
        self.outgoing.written()
    }

    /// `connect` begins: what there was of a connection is closed. The answer is the epoch in
    /// which [`Client::attach`] has to come.
    pub fn dial(&mut self, stack: &mut S, clean_session: bool) -> u8 {
        self.abandon_attempt();
        self.hang_up(stack);
        // One that was killed while it was waiting is not coming back.
        self.readers = 0;
        self.persistent = false;
        self.clean_session = clean_session;
        self.greeted = false;
        self.epoch = self.epoch.wrapping_add(1);
        self.phase = Phase::Dialing;
        self.service.deadline = self.now.after(CONNECT_TIMEOUT);
        self.left = self.now;
        self.epoch
    }

    /// TCP is connected: CONNECT goes out. `false`: the script has changed its mind since
    /// [`Client::dial`], and the socket stays where it is.
    pub fn attach(&mut self, socket: &mut Option<S::TcpSocket>, epoch: u8) -> bool {
        if epoch != self.epoch {
            return false;
        }
        self.socket = socket.take();
        self.left = self.now;
        self.link = self.link.wrapping_add(1);
        self.start(Some(Due::new(Kind::Connect)));
        self.phase = Phase::Greeting;
        true
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
        }
        self.hang_up(stack);
        if self.persistent {
            self.phase = Phase::Lost;
            let name = self.config.client_id.as_ref();
            self.service.deadline = self.service.next_attempt(self.now, name);
        }
        self.fault = Some(fault);
        self.server_closed = was_up
            && match fault {
                Fault::Closed => true,
                Fault::Io(error) => error.kind() == TcpErrorKind::PipeClosed,
                _ => false,
            };
        if was_up && !self.persistent {
            self.failures = self.failures.wrapping_add(1);
            if self.owed.is_full() {
                self.take_owed();
            }
            let _ = self.owed.push(fault);
        }
    }

    /// `close`: lets the socket go. What is in flight stays, and so do the subscriptions.
    pub fn close(&mut self, stack: &mut S) {
        self.abandon_attempt();
        self.finish(stack, End::Closed);
    }

    /// The internal thread may be in the resolver, and stay there for long: the next connection
    /// gets another one.
    fn abandon_attempt(&mut self) {
        if self.persistent && self.phase == Phase::Dialing {
            self.service.dismiss();
        }
    }

    /// With nothing to end, how the last connection ended stays.
    fn finish(&mut self, stack: &mut S, end: End) {
        if self.phase != Phase::Idle {
            self.end = end;
            self.ends = self.ends.wrapping_add(1);
            self.epoch = self.epoch.wrapping_add(1);
        } else if end == End::Disconnected {
            // What calls may be waiting for is let go.
            self.ends = self.ends.wrapping_add(1);
        }
        self.hang_up(stack);
        self.persistent = false;
    }

    /// `disconnect`: sends DISCONNECT if the socket takes it at once, and lets everything go.
    pub fn disconnect(&mut self, stack: &mut S) {
        if self.phase == Phase::Up && self.flush(stack).is_ok() && !self.wants_write() {
            self.start(Some(Due::new(Kind::Disconnect)));
            let _ = self.flush(stack);
            self.drain(stack);
        }
        self.finish(stack, End::Disconnected);
        self.service.dismiss();
        self.service.forget_delays();
        self.owed.clear();
        self.inbox.keep(usize::from(self.delivering));
        let handling = self.inbox.first();
        self.session.forget(handling);
        self.kept = handling.map_or(0, |tag| cost(tag.size));
    }

    /// Closing a socket with unread data resets the connection, and the reset may overtake the
    /// DISCONNECT. Reads what is there, within reason.
    fn drain(&mut self, stack: &mut S) {
        for _ in 0..64 {
            self.incoming.reset();
            if !matches!(self.read(stack, false), Ok(Some(_))) {
                break;
            }
        }
    }

    fn hang_up(&mut self, stack: &mut S) {
        if self.phase == Phase::Up {
            self.service.link_held(self.now);
        }
        self.phase = Phase::Idle;
        (self.fault, self.server_closed) = (None, false);
        // Nothing can be done about a socket that fails to close.
        let mut close = |socket: Option<_>| socket.map(|socket| stack.close(socket));
        close(self.socket.take());
        close(self.dialer.take().and_then(|dialer| dialer.socket));
        if self.reading.part != Part::Header {
            self.skip(Fate::Skipped);
        }
        self.reading.part = Part::Header;
        if let Some(due) = &self.sending.take() {
            self.session.half_sent(due);
        }
        self.published();
        self.acks.clear();
        self.ping_due = false;
        self.outgoing.drop_pending();
        self.incoming.reset();
        self.session.link_lost();
        self.signals.alarm = OTHERS;
    }

    /// Sends what there is to send, reads what there is to read (if `read`; in any case what was
    /// read before). A fault ends the connection.
    pub fn pump(&mut self, stack: &mut S, appetite: Appetite, read: bool) -> Stop {
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
        if self.now.reached(self.stalls_at()) {
            return Err(Fault::Stalled);
        }
        Ok(stop)
    }
}
