//! The calls of the API that wait: each repeats a step of the client until it has its answer.
//!
//! Between two steps nothing is held: no lock, no borrow of the client. So any number of threads
//! can be in any of these calls at a time, and every wait ends at a deadline, when something
//! happens on the socket, or when another thread's step has changed something.

use core::{mem, net::SocketAddr};

use embedded_nal::{Dns, TcpClientStack, nb};

use crate::{
    client::{Appetite, Client, End, Fault, STALL, Stop},
    memory::Memory,
    packet::{Kind, QoS},
    service::{self, Duty},
    session::{Answer, Message, Ticket},
    time::Time,
};

/// Milliseconds for an acknowledgement, and for room for one more message.
const ANSWER_TIMEOUT: u32 = 5_000;
/// Milliseconds between two questions to a resolver that does not block.
const DNS_TICK: u32 = 10;

/// What the calls need of the place they run in.
pub trait Port {
    /// The network.
    type Stack: TcpClientStack<Error: Copy>;
    /// The memory.
    type Memory: Memory;

    /// Runs `work` alone with the client, to which it says what time it is
    /// ([`Client::set_now`]), then looks at [`Client::take_signals`]: if a wait is to follow,
    /// anything that happens from now on ends it; if something changed, or on an alarm, the waits
    /// of others end.
    fn with<T>(
        &self,
        work: impl FnOnce(&mut Client<Self::Stack, Self::Memory>, &mut Self::Stack) -> T,
    ) -> T;

    /// Runs `work` with the network, but without the client: it may take its time.
    fn outside<T>(&self, work: impl FnOnce(&mut Self::Stack) -> T) -> T;

    /// Looks the server's name up, and keeps its address for [`Port::connect`]; see [`look_up`].
    fn resolve(&self) -> nb::Result<(), NetError<Self>>;

    /// Begins to connect to that address, or looks how it is going.
    fn connect(
        &self,
        socket: &mut <Self::Stack as TcpClientStack>::TcpSocket,
    ) -> nb::Result<(), NetError<Self>>;

    /// Does an internal thread run [`crate::service::run`]? Otherwise the calls do its work.
    fn has_thread(&self) -> bool {
        true
    }

    /// Tells the script's error callback what ended the connection.
    fn report(&self, fault: Fault<<Self::Stack as TcpClientStack>::Error>) {
        let _ = fault;
    }

    /// Waits for `socket`, or for the client's as it was last; it may end early.
    fn wait(
        &self,
        socket: Option<&<Self::Stack as TcpClientStack>::TcpSocket>,
        wait: Wait,
    ) -> Result<(), Interrupted>;
}

/// The server's address, from a stack that resolves names. One that is not UTF-8 is none.
///
/// # Errors
/// What the stack says.
pub fn look_up<P: Port<Stack: Dns>>(port: &P) -> nb::Result<SocketAddr, <P::Stack as Dns>::Error> {
    let (host, family, tcp_port) = port.with(|client, _| {
        client.will_wait(); // for a resolver that does not block
        let (host, family) = client.config.host();
        (host, family, client.config.port)
    });
    let host = str::from_utf8(host.as_ref()).unwrap_or_default();
    let ip = port.outside(|stack| stack.get_host_by_name(host, family))?;
    Ok(SocketAddr::new(ip, tcp_port))
}

/// A call that waits.
enum Call<'a, B> {
    /// For the CONNACK, in this epoch.
    Greet { epoch: u8 },
    /// See [`publish`].
    Publish {
        message: &'a Message<B>,
        wait: bool,
        fixed: bool,
    },
    /// A SUBSCRIBE or an UNSUBSCRIBE.
    Request { kind: Kind, filter: &'a Message<B> },
    /// See [`receive`].
    Receive { wait: bool, length: &'a mut u32 },
}

/// What a call remembers from step to step, and what it waits for between two.
struct Turn {
    /// This step is the first one.
    first: bool,
    /// [`Client::ends`] and [`Client::failures`], when that was.
    ends: u8,
    failures: u8,
    /// The connection that there was then has failed, and there is, or may soon be, another one.
    lost: bool,
    /// The message or request of the call, once it is taken, and the connection that there was then.
    taken: Option<(Ticket, u8)>,
    /// [`Client::written`] when the socket took something last.
    written: u32,
    /// What kept the client from going on, and when to give up, or to try again even so.
    stop: Stop,
    deadline: Time,
}

impl Turn {
    fn wait<T>(&mut self, stop: Stop) -> Option<T> {
        self.stop = stop;
        None
    }
}

/// What to wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wait {
    /// The socket has something to read.
    pub readable: bool,
    /// The socket takes something.
    pub writable: bool,
    /// The latest moment; [`Time::FOREVER`] later, if there is none.
    pub until: Time,
}

impl Wait {
    /// For the time alone.
    pub fn until(until: Time) -> Self {
        let (readable, writable) = (false, false);
        Wait {
            readable,
            writable,
            until,
        }
    }
}

/// The wait was broken off, by Ctrl-C for one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interrupted;

/// Why a call failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error<E> {
    /// A wait was broken off.
    Interrupted,
    /// The client is not connected, or the script closed it while the call was waiting.
    NotConnected,
    /// No answer in time.
    TimedOut,
    /// The broker refused the subscription.
    SubscriptionRefused,
    /// There is no memory to remember the subscription.
    NoMemory,
    /// The message cannot be sent at once, and the call may not wait with it.
    Busy,
    /// The connection failed.
    Fault(Fault<E>),
}

impl<E> From<Interrupted> for Error<E> {
    fn from(_: Interrupted) -> Self {
        Error::Interrupted
    }
}

impl<E> From<Fault<E>> for Error<E> {
    fn from(fault: Fault<E>) -> Self {
        Error::Fault(fault)
    }
}

/// What a call came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply {
    /// [`publish`]: with QoS 0 written; with QoS 1 and 2 the handshake is complete, or was not to
    /// be waited for. [`subscribe`] and [`unsubscribe`]: acknowledged.
    Done,
    /// [`publish`]: with QoS 0 not sent; with QoS 1 and 2 in flight, until it is acknowledged.
    NotYet,
    /// [`publish`]: not taken, as many messages are in flight as there can be.
    NoRoom,
    /// [`receive`]: the oldest message in the inbox is to be handled; then comes [`handled`].
    Message,
    /// [`receive`]: a message was too large for the memory.
    Skipped,
    /// [`receive`]: there is nothing, or the client was disconnected.
    Nothing,
}

/// An error of the network.
pub type NetError<P> = <<P as Port>::Stack as TcpClientStack>::Error;
/// The result of a call.
pub type CallResult<P, T> = Result<T, Error<NetError<P>>>;
type ClientOf<P> = Client<<P as Port>::Stack, <P as Port>::Memory>;
type Bytes<P> = <<P as Port>::Memory as Memory>::Bytes;

/// Repeats the call's step until it has an answer. `taken`: its message is on its way already.
fn repeat<P: Port>(
    port: &P,
    call: &mut Call<Bytes<P>>,
    taken: Option<(Ticket, u8)>,
) -> CallResult<P, Reply> {
    let mut turn = Turn {
        first: true,
        ends: 0,
        failures: 0,
        lost: false,
        taken,
        written: 0,
        stop: Stop::Dry,
        deadline: Time(0),
    };
    let has_thread = port.has_thread();
    let mut reading = false;
    loop {
        let mut service = match has_thread {
            true => None,
            false => Some(assist(port, turn.first)),
        };
        let outcome = port.with(|client, stack| {
            if mem::take(&mut reading) {
                client.end_reading();
            }
            let had_socket = client.socket().is_some();
            if turn.first {
                (turn.ends, turn.failures) = (client.ends(), client.failures());
                turn.deadline = client.now().after(ANSWER_TIMEOUT);
            }
            // Another call may have connected anew, the error callback's maybe, before this one saw the failure.
            turn.lost = turn.failures != client.failures() && !client.is_idle();
            if let Some(answer) = step::<P>(client, stack, call, &mut turn) {
                if !has_thread {
                    client.leave();
                }
                return Err(answer);
            }
            if had_socket && client.socket().is_none() {
                // What there is to serve is not what it was.
                service = service.and(Some(client.now()));
            }
            client.will_wait();
            let deadline = turn.deadline;
            let wait = client.wait(turn.stop, service.map_or(deadline, |at| deadline.min(at)));
            reading = has_thread && wait.readable;
            if reading {
                client.begin_reading();
            }
            Ok(wait)
        });
        let wait = match outcome {
            Ok(wait) => wait,
            Err(answer) => {
                tell(port);
                return answer;
            }
        };
        if port.wait(None, wait).is_err() {
            if reading {
                port.with(|client, _| client.end_reading());
            }
            return Err(Error::Interrupted);
        }
        turn.first = false;
    }
}

/// The step of a call. One function for all: what they have in common is in the firmware once.
fn step<P: Port>(
    client: &mut ClientOf<P>,
    stack: &mut P::Stack,
    call: &mut Call<Bytes<P>>,
    turn: &mut Turn,
) -> Option<CallResult<P, Reply>> {
    match call {
        Call::Greet { epoch } => greet::<P>(client, stack, turn, *epoch),
        Call::Publish {
            message,
            wait,
            fixed,
        } => match message.qos {
            QoS::AtMostOnce => publish_at_most_once::<P>(client, stack, turn, message, *fixed),
            _ => publish_in_flight::<P>(client, stack, turn, message, *wait),
        },
        Call::Request { kind, filter } => request::<P>(client, stack, turn, *kind, filter),
        Call::Receive { wait, length } => receive_one::<P>(client, stack, turn, *wait, length),
    }
}

/// Why the client is not connected, for a call that found it connected, or connecting, before.
#[inline(never)]
fn lost<P: Port>(client: &ClientOf<P>) -> Error<NetError<P>> {
    client.fault().map_or(Error::NotConnected, Error::Fault)
}

/// Does, in a call, what the internal thread would do now: on a port without threads. The answer
/// says when there is more to do. `first`: the call has just begun.
fn assist<P: Port>(port: &P, mut first: bool) -> Time {
    loop {
        // One look at the clock says what is due, and whether it is: by an earlier one, what is due
        // now is not yet. And who takes the attempt has to go on with it.
        let (now, duty) = port.with(|client, stack| {
            if mem::take(&mut first) {
                client.enter();
            }
            let (now, leisure) = (client.now(), client.leisure());
            let duty = if !now.reached(leisure) {
                Duty::Wait(Wait::until(leisure))
            } else if let Some(dialer) = client.dialer.take() {
                Duty::Dial(dialer)
            } else {
                client.serve(stack)
            };
            (now, duty)
        });
        match duty {
            Duty::Wait(wait) => return wait.until,
            Duty::Again => {}
            Duty::Report(fault) => port.report(fault),
            Duty::Dial(mut dialer) => match dialer.step(port) {
                Ok(true) => {}
                Ok(false) => {
                    port.with(|client, _| client.dialer = Some(dialer));
                    return now.after(DNS_TICK);
                }
                Err(error) => service::attempt_failed(port, dialer.epoch, error),
            },
        }
    }
}

/// Connects: DNS, TCP, CONNECT and CONNACK within 20 s in all, or as long as the resolver takes.
/// The answer is the number of the internal thread, if it has to be started:
/// [`crate::service::run`].
///
/// # Errors
/// What failed, or [`Error::NotConnected`] if another thread closed the client meanwhile.
pub fn connect<P: Port>(port: &P, clean_session: bool) -> CallResult<P, Option<u8>> {
    let epoch = port.with(|client, stack| client.dial(stack, clean_session));
    let result = dial(port, &mut Dialer::new(epoch))
        .and_then(|()| repeat(port, &mut Call::Greet { epoch }, None));
    port.with(|client, stack| match result {
        // Another thread may have ended it since.
        Ok(_) if port.has_thread() && client.epoch() == epoch => Ok(client.hire()),
        Ok(_) => Ok(None),
        Err(error) => {
            if client.epoch() == epoch {
                match error {
                    Error::Fault(fault) => client.lose(stack, fault),
                    _ => client.close(stack),
                }
            }
            Err(error)
        }
    })
}

/// An attempt to connect as far as TCP, in steps that do not block (but for a resolver that does).
/// It is its own: until the end it shares nothing with the client.
pub struct Dialer<S: TcpClientStack> {
    /// The epoch of the client in which it began: in another one it is not wanted any more.
    pub(crate) epoch: u8,
    pub(crate) socket: Option<S::TcpSocket>,
}

impl<S: TcpClientStack<Error: Copy>> Dialer<S> {
    /// An attempt in this epoch.
    pub fn new(epoch: u8) -> Self {
        Dialer {
            epoch,
            socket: None,
        }
    }

    /// Goes on. `true`: the client has its socket, and sends CONNECT.
    fn step<P: Port<Stack = S>>(&mut self, port: &P) -> CallResult<P, bool> {
        let result = self.try_step(port);
        if result.is_err() {
            self.give_up(port);
        }
        result
    }

    fn try_step<P: Port<Stack = S>>(&mut self, port: &P) -> CallResult<P, bool> {
        if self.socket.is_none() {
            let resolved = port.resolve();
            if let Err(nb::Error::Other(error)) = resolved {
                return Err(Fault::Dns(error).into());
            }
            self.check(port)?;
            if resolved.is_err() {
                return Ok(false);
            }
        }
        let socket = match &mut self.socket {
            Some(socket) => socket,
            none => none.insert(port.outside(|stack| stack.socket()).map_err(Fault::Dial)?),
        };
        match port.connect(socket) {
            Ok(()) => {}
            Err(nb::Error::WouldBlock) => {
                self.check(port)?;
                return Ok(false);
            }
            Err(nb::Error::Other(error)) => return Err(Fault::Dial(error).into()),
        }
        match port.with(|client, _| client.attach(&mut self.socket, self.epoch)) {
            true => Ok(true),
            false => Err(Error::NotConnected),
        }
    }

    /// Is the attempt still wanted, and is there time left? From here on nothing is missed by the
    /// wait that may follow.
    fn check<P: Port<Stack = S>>(&self, port: &P) -> CallResult<P, ()> {
        port.with(|client, _| {
            client.will_wait();
            if client.epoch() != self.epoch {
                Err(Error::NotConnected)
            } else if client.now().reached(client.connect_deadline()) {
                Err(Fault::Unreachable.into())
            } else {
                Ok(())
            }
        })
    }

    fn give_up<P: Port<Stack = S>>(&mut self, port: &P) {
        if let Some(socket) = self.socket.take() {
            // Nothing can be done about a socket that fails to close.
            let _ = port.outside(|stack| stack.close(socket));
        }
    }
}

/// DNS and TCP: all the steps.
pub(crate) fn dial<P: Port>(port: &P, dialer: &mut Dialer<P::Stack>) -> CallResult<P, ()> {
    while !dialer.step(port)? {
        let connecting = dialer.socket.as_ref();
        let until = port.with(|client, _| {
            client.will_wait();
            match connecting {
                // That was what the wait would have waited for.
                _ if client.epoch() != dialer.epoch => client.now(),
                Some(_) => client.connect_deadline(),
                None => client.now().after(DNS_TICK),
            }
        });
        let wait = Wait {
            readable: false,
            writable: connecting.is_some(),
            until,
        };
        if let Err(interrupted) = port.wait(connecting, wait) {
            dialer.give_up(port);
            return Err(interrupted.into());
        }
    }
    Ok(())
}

/// CONNECT and CONNACK.
fn greet<P: Port>(
    client: &mut ClientOf<P>,
    stack: &mut P::Stack,
    turn: &mut Turn,
    epoch: u8,
) -> Option<CallResult<P, Reply>> {
    if client.epoch() != epoch {
        return Some(Err(Error::NotConnected));
    }
    let stop = client.pump(stack, Appetite::Nothing, !turn.first);
    turn.deadline = client.connect_deadline();
    Some(if client.was_greeted() {
        Ok(Reply::Done) // another call may have read more than CONNACK
    } else if client.is_idle() {
        Err(lost::<P>(client))
    } else if client.now().reached(turn.deadline) {
        Err(Fault::Silent.into())
    } else {
        return turn.wait(stop);
    })
}

/// Publishes a message, see [`Reply`]. `wait`: for the acknowledgement. `fixed`: nothing
/// changes the payload; otherwise a QoS 0 message is taken only if it is off, or in the buffer,
/// at once.
///
/// # Errors
/// The client is not connected, or, without reconnection, the connection fails.
pub fn publish<P: Port>(
    port: &P,
    message: &Message<Bytes<P>>,
    wait: bool,
    fixed: bool,
) -> CallResult<P, Reply> {
    let mut taken = None;
    // Most messages have nothing in their way: a third of the instructions of all that follows.
    if cfg!(fast) && message.qos == QoS::AtMostOnce {
        let sent = port.with(|client, stack| {
            if port.has_thread() || !client.now().reached(client.leisure()) {
                taken = client.send_at_once(stack, message);
            }
            let off = |(ticket, _)| !client.is_publishing(ticket);
            taken.is_some_and(off) && client.is_up()
        });
        if sent {
            return Ok(Reply::Done);
        }
    }
    let mut call = Call::Publish {
        message,
        wait,
        fixed,
    };
    repeat(port, &mut call, taken)
}

fn publish_at_most_once<P: Port>(
    client: &mut ClientOf<P>,
    stack: &mut P::Stack,
    turn: &mut Turn,
    message: &Message<Bytes<P>>,
    fixed: bool,
) -> Option<CallResult<P, Reply>> {
    if client.is_idle() {
        return match turn.first && turn.taken.is_none() {
            true => Some(Err(Error::NotConnected)),
            false => short_of::<P>(client, Reply::NotYet, lost::<P>(client)),
        };
    }
    if !client.is_up() {
        return Some(Ok(Reply::NotYet));
    }
    if !fixed && turn.taken.is_none() && !client.fits_buffer(message) {
        return Some(Err(Error::Busy));
    }
    // Since then the socket has taken nothing.
    if turn.first || turn.written != client.written() {
        (turn.written, turn.deadline) = (client.written(), client.now().after(STALL));
    }
    let late = client.now().reached(turn.deadline);
    if late && turn.taken.is_none() {
        // In the place of a message that was given up just now, it would wait as long again.
        return short_of::<P>(client, Reply::NotYet, Error::TimedOut);
    }
    let stop = client.offer(stack, message, &mut turn.taken, !turn.first);
    if let Some((ticket, link)) = turn.taken
        && !client.is_publishing(ticket)
    {
        let same = client.is_up() && client.link() == link;
        return match same {
            true => Some(Ok(Reply::Done)),
            false => short_of::<P>(client, Reply::NotYet, lost::<P>(client)),
        };
    }
    if !fixed && turn.taken.is_none() {
        return Some(Err(Error::Busy));
    }
    if late && turn.written == client.written() && client.cancel_publish() {
        return short_of::<P>(client, Reply::NotYet, Error::TimedOut);
    }
    turn.wait(stop)
}

/// The message did not get as far as it should: with reconnection that is a reply, not an error.
#[inline(never)]
fn short_of<P: Port>(
    client: &ClientOf<P>,
    reply: Reply,
    error: Error<NetError<P>>,
) -> Option<CallResult<P, Reply>> {
    Some(if client.config.reconnect {
        Ok(reply)
    } else {
        Err(error)
    })
}

fn publish_in_flight<P: Port>(
    client: &mut ClientOf<P>,
    stack: &mut P::Stack,
    turn: &mut Turn,
    message: &Message<Bytes<P>>,
    wait: bool,
) -> Option<CallResult<P, Reply>> {
    if turn.first && client.is_idle() {
        return Some(Err(Error::NotConnected));
    }
    let ended = turn.ends != client.ends();
    let over = ended || turn.lost;
    let mut stop = Stop::Dry;
    if !over {
        let waited = turn.taken.is_none();
        // Acknowledgements that have come make room.
        stop = client.offer(stack, message, &mut turn.taken, !turn.first);
        if waited && turn.taken.is_some() {
            turn.deadline = client.now().after(ANSWER_TIMEOUT);
        }
    }
    let (reply, same) = match turn.taken {
        None => (Reply::NoRoom, true),
        Some((ticket, _)) if !ended && client.session.answer(ticket) == Answer::Done => {
            return Some(Ok(Reply::Done));
        }
        Some((_, link)) => (Reply::NotYet, link == client.link()),
    };
    let late = client.now().reached(turn.deadline);
    let up = client.is_up() && same;
    let error = if over {
        Error::NotConnected
    } else if up && wait && !late && stop != Stop::Full {
        return turn.wait(stop);
    } else if up && !wait && turn.taken.is_some() {
        return Some(Ok(Reply::Done));
    } else if up && late && turn.taken.is_some() && client.wants_write() {
        Error::TimedOut
    } else if client.is_idle() {
        lost::<P>(client)
    } else {
        return Some(Ok(reply));
    };
    short_of::<P>(client, reply, error)
}

/// Subscribes, and waits for the SUBACK.
///
/// # Errors
/// [`Error::SubscriptionRefused`], [`Error::TimedOut`] after 5 s, or what became of the
/// connection.
pub fn subscribe<P: Port>(port: &P, filter: &Bytes<P>, qos: QoS) -> CallResult<P, Reply> {
    ask(port, Kind::Subscribe, filter, qos)
}

/// Unsubscribes, and waits for the UNSUBACK.
///
/// # Errors
/// [`Error::TimedOut`] after 5 s, or what became of the connection.
pub fn unsubscribe<P: Port>(port: &P, filter: &Bytes<P>) -> CallResult<P, Reply> {
    ask(port, Kind::Unsubscribe, filter, QoS::AtMostOnce)
}

fn ask<P: Port>(port: &P, kind: Kind, filter: &Bytes<P>, qos: QoS) -> CallResult<P, Reply> {
    let (topic, payload) = (filter.clone(), Bytes::<P>::default());
    let filter = &Message {
        topic,
        payload,
        qos,
        retain: false,
    };
    repeat(port, &mut Call::Request { kind, filter }, None)
}

fn request<P: Port>(
    client: &mut ClientOf<P>,
    stack: &mut P::Stack,
    turn: &mut Turn,
    kind: Kind,
    filter: &Message<Bytes<P>>,
) -> Option<CallResult<P, Reply>> {
    if turn.first {
        if !client.is_up() {
            return Some(Err(Error::NotConnected));
        }
        let link = client.link();
        turn.taken = client
            .session
            .take(kind, filter)
            .map(|ticket| (ticket, link));
    }
    if turn.ends != client.ends() {
        return Some(Err(Error::NotConnected));
    }
    let Some((ticket, _)) = turn.taken else {
        return Some(Err(Error::NoMemory));
    };
    let stop = client.pump(stack, Appetite::Keep, !turn.first);
    let answer = client.session.answer(ticket);
    Some(match answer {
        _ if client.is_idle() => Err(lost::<P>(client)),
        Answer::Done => Ok(Reply::Done),
        Answer::Refused => Err(Error::SubscriptionRefused),
        Answer::Pending if turn.lost => Err(Error::NotConnected),
        Answer::Pending if client.now().reached(turn.deadline) || stop == Stop::Full => {
            Err(Error::TimedOut)
        }
        Answer::Pending => return turn.wait(stop),
    })
}

/// The next message for the script; with `wait`, blocks until there is one. `length`: the remaining
/// length (section 2.2.3) of the packet of a message that came, or was skipped.
///
/// # Errors
/// [`Error::NotConnected`], or what became of the connection while the call was waiting.
pub fn receive<P: Port>(port: &P, wait: bool, length: &mut u32) -> CallResult<P, Reply> {
    repeat(port, &mut Call::Receive { wait, length }, None)
}

fn receive_one<P: Port>(
    client: &mut ClientOf<P>,
    stack: &mut P::Stack,
    turn: &mut Turn,
    wait: bool,
    length: &mut u32,
) -> Option<CallResult<P, Reply>> {
    if turn.ends != client.ends() {
        return Some(match client.end() {
            End::Disconnected => Ok(Reply::Nothing),
            End::Closed => Err(Error::NotConnected),
        });
    }
    let idle = client.is_idle();
    let appetite = if client.is_delivering() {
        Appetite::Nothing
    } else {
        Appetite::Deliver
    };
    let stop = match turn.lost {
        true => Stop::Dry,
        false => client.pump(stack, appetite, true),
    };
    if let Some(skipped) = client.take_skipped() {
        *length = skipped;
        return Some(Ok(Reply::Skipped));
    }
    // What arrived before the connection failed is delivered all the same.
    if let Some(size) = client.deliver() {
        *length = size;
        return Some(Ok(Reply::Message));
    }
    if idle && turn.first {
        Some(Err(Error::NotConnected))
    } else if client.is_idle() {
        Some(Err(lost::<P>(client)))
    } else if turn.lost {
        Some(Err(Error::NotConnected))
    } else if wait {
        turn.deadline = client.now().after(Time::FOREVER);
        turn.wait(stop)
    } else {
        Some(Ok(Reply::Nothing))
    }
}

/// The message that [`receive`] named has been handled: it is acknowledged and let go.
pub fn handled<P: Port>(port: &P) {
    port.with(|client, stack| client.handled(stack));
    tell(port);
}

/// The callback of the message that [`receive`] named has not begun: it is the next one again.
pub fn put_back<P: Port>(port: &P) {
    port.with(|client, _| client.put_back());
}

/// Without threads, a failure that a call has met is told before it returns.
fn tell<P: Port>(port: &P) {
    if !port.has_thread()
        && let Some(fault) = port.with(|client, _| client.take_owed())
    {
        port.report(fault);
    }
}

/// Sends a PINGREQ; does nothing with a keepalive of 0, or while connecting.
///
/// # Errors
/// [`Error::NotConnected`].
pub fn ping<P: Port>(port: &P) -> CallResult<P, Reply> {
    let result = port.with(|client, stack| {
        if client.config.keepalive == 0 {
            return Ok(Reply::Done);
        }
        if client.is_idle() {
            return Err(Error::NotConnected);
        }
        if client.is_up() {
            client.ping();
            client.pump(stack, Appetite::Nothing, false);
        }
        match client.is_idle() {
            true => Err(lost::<P>(client)),
            false => Ok(Reply::Done),
        }
    });
    tell(port);
    result
}

/// Lets the socket go, without DISCONNECT. What is in flight stays, and so do the subscriptions.
pub fn close<P: Port>(port: &P) {
    port.with(|client, stack| client.close(stack));
}

/// Sends DISCONNECT if the socket takes it at once, and lets everything go.
pub fn disconnect<P: Port>(port: &P) {
    port.with(|client, stack| client.disconnect(stack));
}
