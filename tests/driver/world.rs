//! The world of a client under test: a network whose peer follows a script, a clock that jumps,
//! and memory with limits.
//!
//! A wait takes no real time: the clock goes on to its deadline, or to the next thing that happens
//! before. What the client sends is compared with the script byte by byte; a client that sends
//! something else, closes where it should not, waits for ever or spins fails the test at once, and
//! so does a script that is not over when the [`Rig`] is dropped.

use std::{
    cell::{Cell, RefCell, RefMut},
    collections::VecDeque,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    rc::Rc,
    thread,
};

use embedded_nal::{AddrType, Dns, TcpClientStack, TcpError, TcpErrorKind, nb};
use umqtt::{
    calls::{self, Error, Interrupted, Port, Published, Received, Wait},
    client::{Client, Config, Fault, Signals, Status},
    memory::{Inbox, List, Memory, Tag},
    packet::{QoS, Version},
    session::{self, Message, Session, Subscription},
    time::Time,
};

use crate::bytes::{CONNACK, CONNECT};

/// The build's sizes.
#[allow(dead_code)]
pub mod config {
    include!(concat!(env!("OUT_DIR"), "/config.rs"));
}

/// The clock goes round three seconds into each test.
const START: u32 = u32::MAX - 3_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NetError {
    NoSuchName,
    NoSocket,
    Refused,
    Reset,
    /// [`Net::fail_at`].
    Injected,
}

impl TcpError for NetError {
    fn kind(&self) -> TcpErrorKind {
        TcpErrorKind::Other
    }
}

pub type Outcome<T> = Result<T, Error<NetError>>;

/// A fault of the connection, as the calls report it.
pub fn fault<T>(fault: Fault<NetError>) -> Outcome<T> {
    Err(Error::Fault(fault))
}

/// What the peer does, and waits for, next.
#[derive(Clone, Debug)]
pub enum Step {
    /// The client sends this.
    Expect(Vec<u8>),
    /// The peer sends this; what the script expects next comes when the client has read it.
    Send(Vec<u8>),
    /// The same, but what is expected next may come before it is all read.
    Flood(Vec<u8>),
    /// The peer neither takes nor sends anything for so many milliseconds.
    Pause(u64),
    /// The rest of a pause.
    Until(u64),
    /// The peer closes the connection.
    Fin,
    /// The connection fails.
    Reset,
    /// The client closes the socket.
    Close,
}

pub fn expect(bytes: impl Into<Vec<u8>>) -> Step {
    Step::Expect(bytes.into())
}

pub fn send(bytes: impl Into<Vec<u8>>) -> Step {
    Step::Send(bytes.into())
}

pub fn flood(bytes: impl Into<Vec<u8>>) -> Step {
    Step::Flood(bytes.into())
}

/// What the resolver or TCP comes to, and after how many milliseconds.
#[derive(Clone, Copy, Debug)]
pub enum Attempt {
    After(u64),
    Fails,
    Never,
}

/// How many bytes each call may move, again and again; 0: it would block. Empty: any number.
#[derive(Default)]
pub struct Limits {
    sizes: Vec<usize>,
    at: usize,
}

impl Limits {
    fn next(&mut self) -> usize {
        let Some(&size) = self.sizes.get(self.at) else {
            return usize::MAX;
        };
        self.at = (self.at + 1) % self.sizes.len();
        size
    }
}

impl From<Vec<usize>> for Limits {
    fn from(sizes: Vec<usize>) -> Self {
        Limits { sizes, at: 0 }
    }
}

pub struct Socket(usize);

/// A reactive peer: takes what the client sends, and what it returns is sent.
pub type Peer = Box<dyn FnMut(&[u8]) -> Vec<u8>>;

pub struct Net {
    elapsed: u64,
    script: VecDeque<Step>,
    /// Takes the script's place for what the client sends.
    pub peer: Option<Peer>,
    pub name: Attempt,
    pub tcp: Attempt,
    /// When the resolver and TCP began.
    began: [Option<u64>; 2],
    pub read_limits: Limits,
    pub write_limits: Limits,
    /// The socket takes nothing.
    pub blocked: bool,
    /// Calls so far, and the one that fails, and everything on that connection after it.
    pub calls: usize,
    pub fail_at: Option<usize>,
    pub failed: bool,
    dead: bool,
    /// Sockets that are open.
    open: Vec<usize>,
    sockets: usize,
    /// Names asked for and addresses dialed.
    pub log: Vec<String>,
    /// Bytes that the client sent, in how many writes, and bytes that it read.
    pub sent: Vec<u8>,
    pub writes: usize,
    pub read: Vec<u8>,
    /// Grows when anything moves.
    progress: usize,
}

impl Net {
    fn new() -> Self {
        Net {
            elapsed: 0,
            script: VecDeque::new(),
            peer: None,
            name: Attempt::After(0),
            tcp: Attempt::After(0),
            began: [None; 2],
            read_limits: Limits::default(),
            write_limits: Limits::default(),
            blocked: false,
            calls: 0,
            fail_at: None,
            failed: false,
            dead: false,
            open: Vec::new(),
            sockets: 0,
            log: Vec::new(),
            sent: Vec::new(),
            writes: 0,
            read: Vec::new(),
            progress: 0,
        }
    }

    /// One more call that may fail.
    fn call(&mut self, socket: Option<&Socket>) -> Result<(), NetError> {
        if let Some(socket) = socket {
            assert!(self.open.contains(&socket.0), "this socket is not open");
        }
        self.calls += 1;
        let fails = self.fail_at == Some(self.calls - 1);
        self.failed |= fails;
        self.dead |= fails && socket.is_some();
        if self.dead || fails {
            Err(NetError::Injected)
        } else {
            Ok(())
        }
    }

    /// Is the resolver, or TCP, done?
    fn attempt(&mut self, which: usize) -> nb::Result<(), NetError> {
        let (attempt, error) = match which {
            0 => (self.name, NetError::NoSuchName),
            _ => (self.tcp, NetError::Refused),
        };
        let began = *self.began[which].get_or_insert(self.elapsed);
        match attempt {
            Attempt::After(ms) if self.elapsed >= began + ms => {
                self.began[which] = None;
                Ok(())
            }
            Attempt::Fails => Err(nb::Error::Other(error)),
            _ => Err(nb::Error::WouldBlock),
        }
    }

    /// The step that is under way now.
    fn front(&mut self) -> Option<&mut Step> {
        loop {
            match self.script.front_mut() {
                Some(Step::Pause(ms)) => {
                    let until = self.elapsed + *ms;
                    self.script[0] = Step::Until(until);
                }
                Some(Step::Until(time)) if *time <= self.elapsed => {}
                Some(Step::Expect(bytes) | Step::Send(bytes) | Step::Flood(bytes))
                    if bytes.is_empty() => {}
                _ => break,
            }
            if !matches!(self.script.front(), Some(Step::Until(time)) if *time > self.elapsed) {
                self.script.pop_front();
            }
        }
        self.script.front_mut()
    }

    /// What the client is to send now.
    fn expected(&mut self) -> Option<&mut Vec<u8>> {
        self.front();
        let next = self.script.iter_mut().find(|step| match step {
            Step::Flood(_) => false,
            Step::Expect(bytes) => !bytes.is_empty(),
            _ => true,
        });
        match next {
            Some(Step::Expect(bytes)) => Some(bytes),
            _ => None,
        }
    }

    fn readable(&mut self) -> bool {
        self.dead
            || matches!(
                self.front(),
                Some(Step::Send(_) | Step::Flood(_) | Step::Fin | Step::Reset)
            )
    }

    fn writable(&mut self) -> bool {
        let dialing = self.began[1].is_some_and(|began| match self.tcp {
            Attempt::After(ms) => self.elapsed < began + ms,
            _ => true,
        });
        let stuck = matches!(self.front(), Some(Step::Until(_)));
        self.dead || !(self.blocked || dialing || stuck)
    }

    /// When something may change by itself.
    fn wakes_at(&mut self) -> Option<u64> {
        let dialing = match (self.began[1], self.tcp) {
            (Some(began), Attempt::After(ms)) => Some(began + ms),
            _ => None,
        };
        match self.front() {
            Some(Step::Until(time)) => Some(*time),
            _ => dialing,
        }
    }
}

impl TcpClientStack for Net {
    type TcpSocket = Socket;
    type Error = NetError;

    fn socket(&mut self) -> Result<Socket, NetError> {
        self.call(None)?;
        self.sockets += 1;
        self.open.push(self.sockets);
        Ok(Socket(self.sockets))
    }

    fn connect(&mut self, socket: &mut Socket, address: SocketAddr) -> nb::Result<(), NetError> {
        self.call(Some(socket))?;
        if self.began[1].is_none() {
            self.log.push(address.to_string());
        }
        self.attempt(1)
    }

    fn send(&mut self, socket: &mut Socket, data: &[u8]) -> nb::Result<usize, NetError> {
        assert!(!data.is_empty(), "nothing to send");
        self.call(Some(socket))?;
        let limit = self.write_limits.next();
        if limit == 0 {
            self.progress += 1;
            return Err(nb::Error::WouldBlock);
        }
        if !self.writable() {
            return Err(nb::Error::WouldBlock);
        }
        if matches!(self.front(), Some(Step::Reset | Step::Fin)) {
            return Err(nb::Error::Other(NetError::Reset));
        }
        let data = &data[..limit.min(data.len())];
        let mut taken = 0;
        if let Some(peer) = &mut self.peer {
            taken = data.len();
            let answer = peer(data);
            self.script.push_back(Step::Flood(answer));
        }
        while taken < data.len() {
            let Some(expected) = self.expected() else {
                break;
            };
            let n = expected.len().min(data.len() - taken);
            let both = (&data[taken..taken + n], &expected[..n]);
            assert_eq!(both.0, both.1, "of {data:02x?}");
            expected.drain(..n);
            taken += n;
        }
        assert_ne!(taken, 0, "sent {data:02x?}, next is {:02x?}", self.front());
        self.sent.extend(&data[..taken]);
        self.writes += 1;
        self.progress += 1;
        Ok(taken)
    }

    fn receive(&mut self, socket: &mut Socket, room: &mut [u8]) -> nb::Result<usize, NetError> {
        assert!(!room.is_empty(), "no room to receive to");
        self.call(Some(socket))?;
        let limit = self.read_limits.next();
        if limit == 0 {
            self.progress += 1;
            return Err(nb::Error::WouldBlock);
        }
        let mut n = 0;
        while n < limit.min(room.len()) {
            let Some(Step::Send(bytes) | Step::Flood(bytes)) = self.front() else {
                break;
            };
            let some = bytes.len().min(limit.min(room.len()) - n);
            room[n..n + some].copy_from_slice(&bytes[..some]);
            bytes.drain(..some);
            n += some;
        }
        self.read.extend(&room[..n]);
        self.progress += n;
        match self.front() {
            _ if n > 0 => Ok(n),
            Some(Step::Fin) => Ok(0),
            Some(Step::Reset) => Err(nb::Error::Other(NetError::Reset)),
            _ => Err(nb::Error::WouldBlock),
        }
    }

    fn close(&mut self, socket: Socket) -> Result<(), NetError> {
        let place = self.open.iter().position(|open| *open == socket.0);
        self.open.remove(place.expect("this socket is open"));
        self.began = [None; 2];
        let free = self.dead || self.peer.is_some();
        match self.front() {
            Some(Step::Close | Step::Fin | Step::Reset) => drop(self.script.pop_front()),
            other => assert!(free, "closed before {other:02x?}"),
        }
        self.dead = false;
        // What nobody can do anything about.
        Err(NetError::Reset)
    }
}

impl Dns for Net {
    type Error = NetError;

    fn get_host_by_name(&mut self, name: &str, family: AddrType) -> nb::Result<IpAddr, NetError> {
        self.call(None)?;
        if self.began[0].is_none() {
            self.log.push(format!("{name} {family:?}"));
        }
        self.attempt(0)?;
        Ok(Ipv4Addr::new(192, 0, 2, 7).into())
    }

    fn get_host_by_address(&mut self, _: IpAddr, _: &mut [u8]) -> nb::Result<usize, NetError> {
        unreachable!()
    }
}

/// Bytes that the script keeps; the count tells whether the engine still holds on to them.
pub type Text = Rc<[u8]>;

pub fn text(text: impl AsRef<[u8]>) -> Text {
    text.as_ref().into()
}

/// What the memory has room for.
#[derive(Clone)]
pub struct Room {
    /// Bytes of the largest payload.
    pub payload: Rc<Cell<usize>>,
    /// Entries of a list.
    pub entries: Rc<Cell<usize>>,
}

pub struct Heap;

impl Memory for Heap {
    type Bytes = Text;
    type Buffer = Box<[u8]>;
    type Received = Entries<session::Received>;
    type Subscriptions = Entries<Option<Subscription<Text>>>;
    type Inbox = Queue;
}

pub struct Entries<T>(Vec<T>, Room);

impl<T> List<T> for Entries<T> {
    fn entries(&self) -> &[T] {
        &self.0
    }

    fn entries_mut(&mut self) -> &mut [T] {
        &mut self.0
    }

    fn push(&mut self, entry: T) -> Result<(), T> {
        if self.0.len() >= self.1.entries.get() {
            return Err(entry);
        }
        self.0.push(entry);
        Ok(())
    }

    fn clear(&mut self) {
        self.0.clear();
    }
}

struct Incoming {
    topic: Vec<u8>,
    payload: Vec<u8>,
    tag: Option<Tag>,
}

pub struct Queue(VecDeque<Incoming>, Room);

impl Queue {
    fn begun(&mut self) -> &mut Incoming {
        let message = self.0.back_mut().expect("no message was begun");
        assert!(message.tag.is_none(), "the message is whole");
        message
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }
}

impl Inbox for Queue {
    fn begin(&mut self, topic: usize, payload: usize) -> bool {
        let whole = self.0.back().is_none_or(|message| message.tag.is_some());
        assert!(whole, "the message before is not whole");
        if payload > self.1.payload.get() {
            return false;
        }
        self.0.push_back(Incoming {
            topic: vec![0; topic],
            payload: vec![0; payload],
            tag: None,
        });
        true
    }

    fn topic(&mut self) -> &mut [u8] {
        &mut self.begun().topic
    }

    fn payload(&mut self) -> &mut [u8] {
        &mut self.begun().payload
    }

    fn finish(&mut self, tag: Tag) {
        self.begun().tag = Some(tag);
    }

    fn abandon(&mut self) {
        self.begun();
        self.0.pop_back();
    }

    fn first(&self) -> Option<Tag> {
        self.0.front()?.tag
    }

    fn pop(&mut self) {
        let message = self.0.pop_front().expect("the inbox is empty");
        assert!(message.tag.is_some(), "the message is not whole");
    }

    fn keep(&mut self, n: usize) {
        self.0.truncate(n);
    }
}

/// What is different from one test to the next.
pub struct Setup {
    pub version: Version,
    pub ipv6: bool,
    pub keepalive: u16,
    pub reconnect: bool,
    pub login: Option<(&'static str, &'static str)>,
    pub will: Option<Message<Text>>,
    /// Sizes of the buffers.
    pub rx: usize,
    pub tx: usize,
}

impl Default for Setup {
    fn default() -> Self {
        Setup {
            version: Version::V311,
            ipv6: false,
            keepalive: 60,
            reconnect: false,
            login: None,
            will: None,
            rx: 256,
            tx: 256,
        }
    }
}

type Hook = Box<dyn FnOnce(&Rig)>;

/// A client, its world, and the port between them.
pub struct Rig {
    client: RefCell<Client<Net, Heap>>,
    net: RefCell<Net>,
    pub room: Room,
    /// What other threads do, and when.
    later: RefCell<Vec<(u64, Hook)>>,
    /// Of the last time that a call had the client.
    last: Cell<(Signals, bool)>,
    /// How often something changed that waits may be about.
    changes: Cell<usize>,
    /// The next wait that is woken is broken off.
    pub interrupt: Cell<bool>,
    /// Waits in a row that ended at once, and the progress at the last of them.
    spins: Cell<(usize, usize)>,
    pub waits: Cell<usize>,
}

pub fn rig(setup: Setup) -> Rig {
    let room = Room {
        payload: Rc::new(Cell::new(1 << 20)),
        entries: Rc::new(Cell::new(1000)),
    };
    let config = Config {
        client_id: text("c"),
        server: text("broker.example"),
        port: 1883,
        ipv6: setup.ipv6,
        user: setup.login.map(|(user, _)| text(user)),
        password: setup.login.map(|(_, password)| text(password)),
        keepalive: setup.keepalive,
        ping_max: 0,
        version: setup.version,
        reconnect: setup.reconnect,
        will: setup.will,
    };
    let session = Session::new(
        Entries(Vec::new(), room.clone()),
        Entries(Vec::new(), room.clone()),
    );
    let inbox = Queue(VecDeque::new(), room.clone());
    let buffer = |size| vec![0xEE; size].into_boxed_slice();
    let client = Client::new(config, session, inbox, buffer(setup.rx), buffer(setup.tx));
    Rig {
        client: RefCell::new(client),
        net: RefCell::new(Net::new()),
        room,
        later: RefCell::default(),
        last: Cell::default(),
        changes: Cell::default(),
        interrupt: Cell::default(),
        spins: Cell::default(),
        waits: Cell::default(),
    }
}

/// A client that is connected, to a broker without a session.
pub fn connected(setup: Setup) -> Rig {
    let rig = rig(setup);
    rig.script([expect(CONNECT), send(CONNACK)]);
    assert_eq!(rig.connect(), Ok(()));
    rig
}

/// What `receive` came to, with the message itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Got {
    Message(String, Vec<u8>),
    Skipped(u32),
    Nothing,
}

pub fn got(topic: &str, payload: impl AsRef<[u8]>) -> Outcome<Got> {
    Ok(Got::Message(topic.into(), payload.as_ref().into()))
}

pub fn message(qos: u8, topic: &str, payload: impl AsRef<[u8]>) -> Message<Text> {
    Message {
        topic: text(topic),
        payload: text(payload),
        qos: QoS::from_bits(qos).unwrap(),
        retain: false,
    }
}

impl Rig {
    pub fn net(&self) -> RefMut<'_, Net> {
        self.net.borrow_mut()
    }

    pub fn client(&self) -> RefMut<'_, Client<Net, Heap>> {
        self.client.borrow_mut()
    }

    /// What the peer does, and waits for, after what it was told before.
    pub fn script<const N: usize>(&self, steps: [Step; N]) {
        self.net().script.extend(steps);
    }

    /// The script has nothing more to come.
    pub fn is_over(&self) -> bool {
        self.net().front().is_none()
    }

    pub fn forget_script(&self) {
        self.net().script.clear();
    }

    /// Milliseconds since the test began.
    pub fn elapsed(&self) -> u64 {
        self.net().elapsed
    }

    pub fn pass(&self, ms: u64) {
        self.net().elapsed += ms;
    }

    /// Milliseconds that `work` takes.
    pub fn time<T>(&self, work: impl FnOnce() -> T) -> (T, u64) {
        let before = self.elapsed();
        let result = work();
        (result, self.elapsed() - before)
    }

    /// Another thread does something in so many milliseconds, while a call waits.
    pub fn later(&self, ms: u64, hook: impl FnOnce(&Rig) + 'static) {
        let hook: Hook = Box::new(hook);
        self.later.borrow_mut().push((self.elapsed() + ms, hook));
    }

    pub fn status(&self) -> Status {
        self.client().status()
    }

    pub fn connect(&self) -> Outcome<()> {
        calls::connect(self, false).map(drop)
    }

    /// The connection is lost, and made anew.
    pub fn reconnect(&self, connack: &[u8]) {
        self.script([Step::Reset]);
        assert_eq!(self.receive(true), fault(Fault::Io(NetError::Reset)));
        self.script([expect(CONNECT), send(connack)]);
        assert_eq!(self.connect(), Ok(()));
    }

    pub fn publish(&self, qos: u8, topic: &str, payload: impl AsRef<[u8]>) -> Outcome<Published> {
        calls::publish(self, &message(qos, topic, payload), true, true)
    }

    /// The same, without waiting for the acknowledgement.
    pub fn post(&self, qos: u8, topic: &str, payload: impl AsRef<[u8]>) -> Outcome<Published> {
        calls::publish(self, &message(qos, topic, payload), false, true)
    }

    pub fn subscribe(&self, filter: &str, qos: u8) -> Outcome<()> {
        calls::subscribe(self, &text(filter), QoS::from_bits(qos).unwrap())
    }

    pub fn unsubscribe(&self, filter: &str) -> Outcome<()> {
        calls::unsubscribe(self, &text(filter))
    }

    /// Receives a message and runs `callback` with it in the script's hands.
    pub fn receive_and(&self, wait: bool, callback: impl FnOnce()) -> Outcome<Got> {
        Ok(match calls::receive(self, wait)? {
            Received::Message(size) => {
                let got = {
                    let client = self.client();
                    let message = &client.inbox.0[0];
                    assert_eq!(message.tag.map(|tag| tag.size), Some(size));
                    let topic = String::from_utf8(message.topic.clone()).unwrap();
                    Got::Message(topic, message.payload.clone())
                };
                callback();
                calls::handled(self);
                got
            }
            Received::Skipped(size) => Got::Skipped(size),
            Received::Nothing => Got::Nothing,
        })
    }

    pub fn receive(&self, wait: bool) -> Outcome<Got> {
        self.receive_and(wait, || ())
    }
}

impl Port for Rig {
    type Stack = Net;
    type Memory = Heap;

    fn now(&self) -> Time {
        Time(START.wrapping_add(self.elapsed() as u32))
    }

    fn with<T>(&self, work: impl FnOnce(&mut Client<Net, Heap>, &mut Net) -> T) -> T {
        let mut client = self.client.try_borrow_mut().expect("the client is free");
        let result = work(&mut client, &mut self.net());
        let signals = client.take_signals();
        self.last.set((signals, client.socket().is_some()));
        self.changes.update(|n| n + usize::from(signals.changed));
        result
    }

    fn outside<T>(&self, work: impl FnOnce(&mut Net) -> T) -> T {
        assert!(self.client.try_borrow_mut().is_ok(), "the client is free");
        work(&mut self.net())
    }

    fn wait(&self, socket: Option<&Socket>, wait: Wait) -> Result<(), Interrupted> {
        assert!(self.client.try_borrow_mut().is_ok(), "the client is free");
        let (signals, has_socket) = self.last.get();
        assert!(signals.waiting, "a wait that was not announced");
        let has_socket = has_socket || socket.is_some();
        let until = wait
            .until
            .map(|until| self.elapsed() + u64::from(until.since(self.now())));
        self.waits.update(|n| n + 1);
        let began = self.elapsed();
        loop {
            let now = self.elapsed();
            let due = self.later.borrow().iter().position(|(at, _)| *at <= now);
            if let Some(due) = due {
                let changes = self.changes.get();
                let (_, hook) = self.later.borrow_mut().remove(due);
                hook(self);
                if self.interrupt.take() {
                    return Err(Interrupted);
                } else if self.changes.get() != changes {
                    return Ok(());
                }
                continue;
            }
            let mut net = self.net();
            let ready = (wait.readable && net.readable()) || (wait.writable && net.writable());
            if (has_socket && ready) || until == Some(now) {
                let (spins, before) = self.spins.get();
                let moved = net.progress != before || now != began;
                let spins = if moved { 0 } else { spins + 1 };
                assert!(spins < 5, "the client spins: {wait:?}");
                self.spins.set((spins, net.progress));
                return Ok(());
            }
            let hooks = self.later.borrow().iter().map(|(at, _)| *at).min();
            let next = [until, hooks, net.wakes_at()].into_iter().flatten().min();
            let Some(next) = next else {
                panic!(
                    "the client waits for ever: {wait:?}, next is {:02x?}",
                    net.front()
                );
            };
            net.elapsed = next;
        }
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        if thread::panicking() {
            return;
        }
        assert!(
            self.is_over(),
            "not all of the script: {:02x?}",
            self.net().front()
        );
        assert!(self.later.borrow().is_empty(), "nobody waited long enough");
        let sockets = usize::from(self.client().socket().is_some());
        assert_eq!(sockets, self.net().open.len(), "a socket was lost");
    }
}
