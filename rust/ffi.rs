//! The C ABI, and every `unsafe` of the crate: pointers become slices and references here.
//!
//! The C side gives memory for an engine, defines the functions `umqtt_port_...` for what the engine
//! needs of its port, and gives with each call a pointer to a frame of its own, which names the
//! engine and comes back in those functions. None of them may raise (`longjmp`) through the engine.
//!
//! What the C side promises, and all the `unsafe` here rests on:
//! - an `umqtt_engine_t` lies in [`umqtt_size`] bytes, zeroed and aligned to 8, that stay where
//!   they are, and has been through [`umqtt_init`] before anything else;
//! - the data of an `umqtt_bytes_t` stays as it is while the engine holds on to it;
//! - `lock` keeps all other threads from the engine until `unlock`, and no function of the port
//!   calls the engine;
//! - a message, and a list, that the port made stays until the engine has let it go.

#![allow(unsafe_code)]
#![allow(clippy::not_unsafe_ptr_arg_deref)] // the promises above are about every pointer

use core::{
    cell::Cell,
    mem,
    net::SocketAddr,
    ptr::{self, NonNull},
    slice,
};

use cty::{c_void, size_t};
use embedded_nal::{TcpClientStack, TcpError, TcpErrorKind, nb};
use heap::{Buffer, Heap, HeapList, Messages};

use crate::{
    calls::{self, Error, Interrupted, Port, Reply, Wait},
    client::{Client, Config, Fault, Signals},
    config::{OTHERS, RX_BUFFER, THREADS, TX_BUFFER},
    memory::Tag,
    packet::{QoS, check_filter, check_text, check_topic},
    service,
    session::{Message, Session},
    time::Time,
};

/// How the C side's frame of one call begins.
#[repr(C)]
pub struct Call {
    /// The engine that it calls.
    engine: Cell<*mut Engine>,
}
/// What [`umqtt_init`] makes.
pub type Engine = c_void;
/// An object of the C side, such as a socket.
pub type Object = c_void;

/// Bytes that belong to the C side. That the engine holds on to `data` is what keeps them alive.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Bytes {
    /// Not NULL, also where there are none; but see `umqtt_port_message_new`.
    data: *const u8,
    len: size_t,
}

impl Default for Bytes {
    fn default() -> Self {
        let data = NonNull::dangling().as_ptr();
        Bytes { data, len: 0 }
    }
}

impl AsRef<[u8]> for Bytes {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: the C side keeps the data as it is while the engine holds on to it.
        unsafe { slice::from_raw_parts(self.data, self.len) }
    }
}

/// A message that comes in.
#[repr(C)]
pub struct Node {
    next: *mut Node,
    /// For the port: the objects that own the data.
    pub topic: *mut Object,
    /// For the port: the objects that own the data.
    pub payload: *mut Object,
    topic_data: *mut u8,
    topic_len: size_t,
    payload_data: *mut u8,
    payload_len: size_t,
    tag: Tag,
    whole: bool,
}

// What the engine needs of its port, which the C side defines. Errors are `errno` values.
unsafe extern "C" {
    /// Does the port have threads, so that `umqtt_run` can be called from one of its own?
    fn umqtt_port_has_threads() -> bool;

    /// Milliseconds, going round at 2^32.
    fn umqtt_port_now() -> u32;

    /// Waits until no other thread has the engine. The time it is then.
    fn umqtt_port_lock(call: *mut Call) -> u32;

    /// Lets others have the engine. `changed`: the waits of other calls end; `alarm`: that of the
    /// internal thread too. `waiting`: this call is going to wait with this socket (NULL: none),
    /// and from now on nothing may be missed.
    fn umqtt_port_unlock(
        call: *mut Call,
        changed: bool,
        alarm: bool,
        waiting: bool,
        socket: *mut Object,
    );

    /// Waits for the socket to become readable or writable, at most `timeout` milliseconds; it may
    /// end early. `socket` NULL: the one of the last unlock. `true`: the call is to be broken off.
    fn umqtt_port_wait(
        call: *mut Call,
        socket: *mut Object,
        readable: bool,
        writable: bool,
        timeout: i32,
    ) -> bool;

    /// Resolves the name of the server, blocking, and keeps the address in the call's frame. 0 or
    /// an error.
    fn umqtt_port_resolve(call: *mut Call) -> i32;

    /// Makes a socket for the address in the call's frame. NULL and an error, if it fails.
    fn umqtt_port_socket(call: *mut Call, error: *mut i32) -> *mut Object;

    /// Begins to connect to the address in the call's frame, or looks how it is going. 0 when
    /// connected, `EAGAIN` when under way, or an error.
    fn umqtt_port_connect(call: *mut Call, socket: *mut Object) -> i32;

    /// Sends. How many bytes, or an error (`EAGAIN`: none at this moment), negated.
    fn umqtt_port_send(call: *mut Call, socket: *mut Object, data: *const u8, len: size_t)
    -> isize;

    /// Receives. How many bytes (0: the peer closed; more than `len`: none, but something has come that
    /// can only be given when more has), or an error, negated.
    fn umqtt_port_receive(
        call: *mut Call,
        socket: *mut Object,
        data: *mut u8,
        len: size_t,
    ) -> isize;

    /// Closes a socket.
    fn umqtt_port_close(call: *mut Call, socket: *mut Object);

    /// Tells the script's error callback what ended the connection.
    fn umqtt_port_report(call: *mut Call, outcome: Outcome);

    /// Makes a message with room for a topic and a payload, and stores it at `link`. `topic.data` is
    /// the topic, unless NULL: the room for it may be where an equal one is. NULL: there is no
    /// memory, and nothing is stored.
    fn umqtt_port_message_new(
        owner: *mut Object,
        link: *mut *mut Node,
        topic: Bytes,
        payload: size_t,
    ) -> *mut Node;

    /// Lets a message go.
    fn umqtt_port_message_free(owner: *mut Object, message: *mut Node);

    /// Moves the list at `list` to a larger block, zeroed beyond the old one; with an `old_size` of
    /// 0, there is none yet. `false`: there is no memory, and all is as it was.
    fn umqtt_port_grow(list: *mut *mut c_void, old_size: size_t, new_size: size_t) -> bool;
}

/// Calls a function of the port.
macro_rules! port {
    ($function:ident($($argument:expr),* $(,)?)) => {
        // SAFETY: the C side promises that it can be called with what comes from the C side.
        unsafe { $function($($argument),*) }
    };
}

mod heap;

/// What a call came to: a [`Fault`], another [`Error`], or a success; in this order, so that one
/// number becomes another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum What {
    /// The name was not resolved: errno.
    Dns,
    /// TCP or TLS did not connect: errno.
    Dial,
    /// The socket failed: errno.
    Io,
    /// The server closed the connection.
    Closed,
    /// TCP or TLS did not connect in time.
    Unreachable,
    /// CONNECT was not answered in time.
    Silent,
    /// The socket took only a part of a packet.
    Stalled,
    /// PINGREQ was not answered in time.
    NoPingresp,
    /// The server sent a malformed packet: `umqtt_malformed`.
    Malformed,
    /// The server sent a packet that does not belong there: its type.
    Unexpected,
    /// The server refused the connection: return code of CONNACK.
    Refused,
    /// The port broke a wait off.
    Interrupted,
    /// Not connected.
    NotConnected,
    /// No answer in time.
    TimedOut,
    /// The broker refused the subscription.
    SubscriptionRefused,
    /// No memory.
    NoMemory,
    /// `umqtt_publish`: it would have to wait, and the payload may change meanwhile.
    Busy,
    /// Success; `detail` as the function says.
    Done,
    /// `umqtt_receive`: a message was too large for the memory.
    Skipped,
}

/// What a call came to.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Outcome {
    what: What,
    detail: i16,
}

fn outcome(result: Result<Reply, Error<Errno>>) -> Outcome {
    let (what, detail) = match result {
        Ok(Reply::Done | Reply::Message) => (What::Done, 1),
        Ok(Reply::NotYet | Reply::Nothing) => (What::Done, 0),
        Ok(Reply::NoRoom) => (What::Done, -1),
        Ok(Reply::Skipped) => (What::Skipped, 0),
        Err(error) => return failed(error),
    };
    Outcome { what, detail }
}

#[cold]
fn failed(error: Error<Errno>) -> Outcome {
    let (what, detail) = match error {
        Error::Fault(fault) => return faulty(fault),
        Error::Interrupted => (What::Interrupted, 0),
        Error::NotConnected => (What::NotConnected, 0),
        Error::TimedOut => (What::TimedOut, 0),
        Error::SubscriptionRefused => (What::SubscriptionRefused, 0),
        Error::NoMemory => (What::NoMemory, 0),
        Error::Busy => (What::Busy, 0),
    };
    Outcome { what, detail }
}

fn faulty(fault: Fault<Errno>) -> Outcome {
    let (what, detail) = match fault {
        Fault::Dns(errno) => (What::Dns, errno.0),
        Fault::Dial(errno) => (What::Dial, errno.0),
        Fault::Io(errno) => (What::Io, errno.0),
        Fault::Closed => (What::Closed, 0),
        Fault::Unreachable => (What::Unreachable, 0),
        Fault::Silent => (What::Silent, 0),
        Fault::Stalled => (What::Stalled, 0),
        Fault::NoPingresp => (What::NoPingresp, 0),
        Fault::Malformed(malformed) => (What::Malformed, malformed as i16),
        Fault::Unexpected(kind) => (What::Unexpected, kind as i16),
        Fault::Refused(code) => (What::Refused, i16::from(code)),
    };
    Outcome { what, detail }
}

/// An error of the port. Two bytes, so that any fault with its errno is returned in a register;
/// no errno is larger.
#[derive(Clone, Copy, Debug)]
struct Errno(i16);

/// Errors that mean more than that something failed, as MicroPython numbers them.
const EAGAIN: i16 = 11;
const EPIPE: i16 = 32;
const ECONNRESET: i16 = 104;

impl Errno {
    fn or_would_block(self) -> nb::Error<Errno> {
        if self.0 == EAGAIN {
            nb::Error::WouldBlock
        } else {
            nb::Error::Other(self)
        }
    }

    /// From a count of bytes, or a negated error.
    fn check(count: isize) -> nb::Result<usize, Errno> {
        usize::try_from(count).map_err(|_| Errno(count.wrapping_neg() as i16).or_would_block())
    }
}

impl TcpError for Errno {
    fn kind(&self) -> TcpErrorKind {
        match self.0 {
            EPIPE | ECONNRESET => TcpErrorKind::PipeClosed,
            _ => TcpErrorKind::Other,
        }
    }
}

/// The network as the C side has it, for one call. A name and the socket's address stay there.
struct Net(*mut Call);

#[derive(Clone, Copy)]
struct Socket(NonNull<Object>);

impl TcpClientStack for Net {
    type TcpSocket = Socket;
    type Error = Errno;

    fn socket(&mut self) -> Result<Socket, Errno> {
        let mut error = 0;
        let socket = port!(umqtt_port_socket(self.0, &mut error));
        NonNull::new(socket).map(Socket).ok_or(Errno(error as i16))
    }

    fn connect(&mut self, socket: &mut Socket, _: SocketAddr) -> nb::Result<(), Errno> {
        match port!(umqtt_port_connect(self.0, socket.0.as_ptr())) {
            0 => Ok(()),
            error => Err(Errno(error as i16).or_would_block()),
        }
    }

    fn send(&mut self, socket: &mut Socket, data: &[u8]) -> nb::Result<usize, Errno> {
        let (socket, len) = (socket.0.as_ptr(), data.len());
        Errno::check(port!(umqtt_port_send(self.0, socket, data.as_ptr(), len)))
    }

    #[inline(always)] // an answer by way of memory takes more
    fn receive(&mut self, socket: &mut Socket, data: &mut [u8]) -> nb::Result<usize, Errno> {
        let (socket, len) = (socket.0.as_ptr(), data.len());
        Errno::check(port!(umqtt_port_receive(
            self.0,
            socket,
            data.as_mut_ptr(),
            len,
        )))
    }

    fn close(&mut self, socket: Socket) -> Result<(), Errno> {
        port!(umqtt_port_close(self.0, socket.0.as_ptr()));
        Ok(())
    }
}

/// One client.
#[repr(C)] // the client first: the buffers are far larger than an offset in an instruction
struct Block {
    client: Client<Net, Heap>,
    receive_buffer: [u8; RX_BUFFER],
    transmit_buffer: [u8; TX_BUFFER],
}

/// One call of the C side: the port as it serves this call.
#[repr(transparent)]
struct Frame(Call);

impl Frame {
    fn of<'a>(call: *mut Call) -> &'a Frame {
        // SAFETY: the C side's frame stays where it is during the call.
        unsafe { &*call.cast() }
    }

    fn call(&self) -> *mut Call {
        ptr::from_ref(&self.0).cast_mut()
    }

    fn client(&self) -> *mut Client<Net, Heap> {
        let block: *mut Block = self.0.engine.get().cast();
        // SAFETY: only a place is calculated.
        unsafe { &raw mut (*block).client }
    }

    /// The beginning of [`Port::with`], which is in every call.
    fn lock(&self) -> *mut Client<Net, Heap> {
        let now = Time(port!(umqtt_port_lock(self.call())));
        let client = self.client();
        // SAFETY: the lock makes this the only reference.
        unsafe { (*client).set_now(now) };
        client
    }

    /// The end of it.
    #[inline(never)] // every step ends with it
    fn unlock(&self, client: &mut Client<Net, Heap>) {
        let Signals {
            changed,
            alarm,
            waiting,
        } = client.take_signals();
        let socket = client
            .socket()
            .map_or(ptr::null_mut(), |socket| socket.0.as_ptr());
        port!(umqtt_port_unlock(
            self.call(),
            changed && OTHERS,
            alarm && OTHERS,
            waiting,
            socket
        ));
    }
}

impl Port for Frame {
    type Stack = Net;
    type Memory = Heap;

    fn with<T>(&self, work: impl FnOnce(&mut Client<Net, Heap>, &mut Net) -> T) -> T {
        // SAFETY: the lock makes this the only reference.
        let client = unsafe { &mut *self.lock() };
        let result = work(client, &mut Net(self.call()));
        self.unlock(client);
        result
    }

    fn outside<T>(&self, work: impl FnOnce(&mut Net) -> T) -> T {
        work(&mut Net(self.call()))
    }

    /// The C side knows the name, and keeps the address in the call's frame.
    fn resolve(&self) -> nb::Result<(), Errno> {
        match port!(umqtt_port_resolve(self.call())) {
            0 => Ok(()),
            error => Err(nb::Error::Other(Errno(error as i16))),
        }
    }

    fn connect(&self, socket: &mut Socket) -> nb::Result<(), Errno> {
        let unknown = SocketAddr::from(([0; 4], 0));
        self.outside(|net| net.connect(socket, unknown))
    }

    fn has_thread(&self) -> bool {
        THREADS.unwrap_or_else(|| port!(umqtt_port_has_threads()))
    }

    #[inline(always)] // as `receive`
    fn report(&self, fault: Fault<Errno>) {
        port!(umqtt_port_report(self.call(), faulty(fault)));
    }

    #[inline(always)] // as `receive`
    fn wait(&self, socket: Option<&Socket>, wait: Wait) -> Result<(), Interrupted> {
        let socket = socket.map_or(ptr::null_mut(), |socket| socket.0.as_ptr());
        let timeout = wait.until.since(Time(port!(umqtt_port_now()))) as i32;
        if port!(umqtt_port_wait(
            self.call(),
            socket,
            wait.readable,
            wait.writable,
            timeout
        )) {
            return Err(Interrupted);
        }
        Ok(())
    }
}

/// Bytes of memory that an engine takes.
#[unsafe(no_mangle)]
pub extern "C" fn umqtt_size() -> size_t {
    mem::size_of::<Block>()
}

/// Makes an engine in zeroed memory of `umqtt_size` bytes. `owner` comes back when messages are
/// made. The texts of `settings` are checked already (`umqtt_check_text`). `false`: there is no
/// memory for the list of messages in flight.
#[unsafe(no_mangle)]
pub extern "C" fn umqtt_init(
    engine: *mut Engine,
    owner: *mut Object,
    settings: *const Config<Bytes>,
) -> bool {
    let block: *mut Block = engine.cast();
    let session = Session::new(HeapList::new(), HeapList::new());
    let inbox = Messages::new(owner);
    // SAFETY: the settings are there during this call; the memory is large enough and used by
    // nothing else; the buffers, which are larger than a thread's stack may be, are written where
    // they lie: they are zeroed.
    unsafe {
        let receive = Buffer((&raw mut (*block).receive_buffer).cast());
        let transmit = Buffer((&raw mut (*block).transmit_buffer).cast());
        (&raw mut (*block).client).write(Client::new(*settings, session, inbox, receive, transmit));
        (*block).client.session.prepare()
    }
}

/// What the client is made of; it stays as it is.
#[unsafe(no_mangle)]
pub extern "C" fn umqtt_settings(call: *mut Call) -> *const Config<Bytes> {
    // SAFETY: only a place is calculated.
    unsafe { &raw const (*Frame::of(call).client()).config }
}

/// Bytes of the receive buffer.
#[unsafe(no_mangle)]
pub extern "C" fn umqtt_receive_buffer() -> i32 {
    RX_BUFFER as i32
}

/// Connects. `detail`: the number of an internal thread that has to be started, or -1.
#[unsafe(no_mangle)]
pub extern "C" fn umqtt_connect(call: *mut Call, clean: bool) -> Outcome {
    match calls::connect(Frame::of(call), clean) {
        Ok(thread) => Outcome {
            what: What::Done,
            detail: thread.map_or(-1, i16::from),
        },
        Err(error) => failed(error),
    }
}

/// The internal thread: returns when it has to end.
#[unsafe(no_mangle)]
pub extern "C" fn umqtt_run(call: *mut Call, thread: u8) {
    service::run(Frame::of(call), thread);
}

/// The internal thread could not be started, or has ended without being asked to.
#[unsafe(no_mangle)]
pub extern "C" fn umqtt_no_thread(call: *mut Call, thread: u8) {
    Frame::of(call).with(|client, _| client.quit(thread));
}

/// Publishes. `fixed`: the payload stays as it is; otherwise a QoS 0 message that is not off at
/// once is not taken. `detail`: 1 done, 0 not yet, -1 no room.
#[unsafe(no_mangle)]
pub extern "C" fn umqtt_publish(
    call: *mut Call,
    topic: Bytes,
    payload: Bytes,
    retain: bool,
    qos: QoS,
    wait: bool,
    fixed: bool,
) -> Outcome {
    let message = Message {
        topic,
        payload,
        qos,
        retain,
    };
    let port = Frame::of(call);
    outcome(calls::publish(port, &message, wait, fixed))
}

/// Subscribes. `detail` is 1.
#[unsafe(no_mangle)]
pub extern "C" fn umqtt_subscribe(call: *mut Call, filter: Bytes, qos: QoS) -> Outcome {
    let port = Frame::of(call);
    outcome(calls::subscribe(port, &filter, qos))
}

/// Unsubscribes. `detail` is 1.
#[unsafe(no_mangle)]
pub extern "C" fn umqtt_unsubscribe(call: *mut Call, filter: Bytes) -> Outcome {
    let port = Frame::of(call);
    outcome(calls::unsubscribe(port, &filter))
}

/// Receives the next message; `wait`: blocks until there is one. `detail`: 1, and then
/// `umqtt_first_message` has it until `umqtt_handled`; 0: there is none, or the client was
/// disconnected. `length`: the remaining length of the packet of the message, or of the one that
/// was skipped; otherwise 0.
#[unsafe(no_mangle)]
pub extern "C" fn umqtt_receive(call: *mut Call, wait: bool, length: &mut u32) -> Outcome {
    *length = 0;
    outcome(calls::receive(Frame::of(call), wait, length))
}

/// The message that is to be handled.
#[unsafe(no_mangle)]
pub extern "C" fn umqtt_first_message(call: *mut Call) -> *mut Node {
    // SAFETY: only the thread that handles the message takes it away.
    unsafe { (*Frame::of(call).client()).inbox.first }
}

/// The message that `umqtt_receive` named has been handled.
#[unsafe(no_mangle)]
pub extern "C" fn umqtt_handled(call: *mut Call) {
    calls::handled(Frame::of(call));
}

/// The callback of the message that `umqtt_receive` named has not begun: it is the next one again.
#[unsafe(no_mangle)]
pub extern "C" fn umqtt_put_back(call: *mut Call) {
    calls::put_back(Frame::of(call));
}

/// Sends a PINGREQ. `detail` is 1.
#[unsafe(no_mangle)]
pub extern "C" fn umqtt_ping(call: *mut Call) -> Outcome {
    outcome(calls::ping(Frame::of(call)))
}

/// Lets the socket go.
#[unsafe(no_mangle)]
pub extern "C" fn umqtt_close(call: *mut Call) {
    calls::close(Frame::of(call));
}

/// Disconnects and lets everything go.
#[unsafe(no_mangle)]
pub extern "C" fn umqtt_disconnect(call: *mut Call) {
    calls::disconnect(Frame::of(call));
}

/// Sets the last will of the next CONNECT.
#[unsafe(no_mangle)]
pub extern "C" fn umqtt_set_will(
    call: *mut Call,
    topic: Bytes,
    payload: Bytes,
    retain: bool,
    qos: QoS,
) {
    let will = Message {
        topic,
        payload,
        qos,
        retain,
    };
    Frame::of(call).with(|client, _| client.will = Some(will));
}

/// State of the connection: 0 connected, 1 connecting, 2 closed by the server, -1 none.
#[unsafe(no_mangle)]
pub extern "C" fn umqtt_status(call: *mut Call) -> i32 {
    Frame::of(call).with(|client, _| client.status() as i32)
}

/// Is this a text as MQTT wants it: UTF-8 without U+0000 (section 1.5.3)?
#[unsafe(no_mangle)]
pub extern "C" fn umqtt_check_text(text: Bytes) -> bool {
    check_text(text.as_ref()).is_ok()
}

/// Is this a topic name (section 4.7)?
#[unsafe(no_mangle)]
pub extern "C" fn umqtt_check_topic(topic: Bytes) -> bool {
    check_topic(topic.as_ref()).is_ok()
}

/// Is this a topic filter (section 4.7)?
#[unsafe(no_mangle)]
pub extern "C" fn umqtt_check_filter(filter: Bytes) -> bool {
    check_filter(filter.as_ref()).is_ok()
}

/// A static archive needs one. Nothing here can panic, so the linker drops it.
#[cfg(feature = "archive")]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    loop {}
}
