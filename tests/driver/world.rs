//! The world of a client under test: a network whose peer follows a script, a clock that jumps,
//! and memory with limits.
//!
//! A wait takes no real time: the clock goes on to its deadline, or to the next thing that happens
//! before. A client that waits for ever or spins fails the test at once, and so does a script that
//! is not over when the [`Rig`] is dropped.

use std::{
    cell::{Cell, RefCell, RefMut},
    net::SocketAddr,
    thread,
};

use embedded_nal::{TcpClientStack, nb};
use umqtt::{
    calls::{self, Error, Interrupted, Port, Reply, Wait},
    client::{Client, Config, Fault, Signals, Status},
    memory::Inbox,
    packet::{QoS, Version},
    session::{Message, Session},
    time::Time,
};

use crate::bytes::{CONNACK, CONNECT};
pub use crate::{memory::*, net::*};

/// The build's sizes.
#[allow(dead_code)]
pub mod config {
    include!(concat!(env!("OUT_DIR"), "/config.rs"));
}

/// The clock goes round three seconds into each test.
const START: u32 = u32::MAX - 3_000;

pub type Outcome<T> = Result<T, Error<NetError>>;

/// A fault of the connection, as the calls report it.
pub fn fault<T>(fault: Fault<NetError>) -> Outcome<T> {
    Err(Error::Fault(fault))
}

/// What is different from one test to the next.
pub struct Setup {
    pub version: Version,
    pub ipv6: bool,
    pub keepalive: u16,
    pub reconnect: bool,
    /// Has the port threads of its own?
    pub threads: bool,
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
            threads: true,
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
    threads: bool,
    /// What the resolver said last.
    address: Cell<Option<SocketAddr>>,
    /// Milliseconds that go by at each look at the clock.
    pub tick: Cell<u64>,
    /// What the error callback was told.
    pub reports: RefCell<Vec<Fault<NetError>>>,
    /// What other threads do, and when.
    later: RefCell<Vec<(u64, Hook)>>,
    /// Of the last time that a call had the client.
    last: Cell<(Signals, bool)>,
    /// How often something changed that waits may be about.
    changes: Cell<usize>,
    /// The next wait that is woken is broken off.
    pub interrupt: Cell<bool>,
    /// What another thread does when a call has had the client so many times more.
    between: RefCell<Option<(usize, Hook)>>,
    /// Waits in a row that ended at once, and the progress at the last of them.
    spins: Cell<(usize, usize)>,
}

fn client<S: TcpClientStack<Error: Copy>>(
    (server, port): (&str, u16),
    setup: Setup,
    room: &Room,
) -> Client<S, Heap> {
    let config = Config {
        client_id: text("c"),
        server: text(server),
        port,
        ipv6: setup.ipv6,
        user: text(setup.login.map_or("", |(user, _)| user)),
        password: text(setup.login.map_or("", |(_, password)| password)),
        keepalive: setup.keepalive,
        ping_max: 0,
        version: setup.version,
        reconnect: setup.reconnect,
    };
    let session = Session::new(Entries::new(room), Entries::new(room));
    let inbox = Queue::new(room);
    let buffer = |size| vec![0xEE; size].into_boxed_slice();
    let mut client = Client::new(config, session, inbox, buffer(setup.rx), buffer(setup.tx));
    client.will = setup.will;
    client
}

/// A client for another network than ours.
pub fn new_client<S: TcpClientStack<Error: Copy>>(server: &str, port: u16) -> Client<S, Heap> {
    let room = Room::default();
    room.payload.set(usize::MAX);
    room.entries.set(usize::MAX);
    client((server, port), Setup::default(), &room)
}

pub fn rig(setup: Setup) -> Rig {
    let room = Room::default();
    room.payload.set(1 << 20);
    room.entries.set(1000);
    let threads = setup.threads;
    let client = client(("broker.example", 1883), setup, &room);
    Rig {
        client: RefCell::new(client),
        net: RefCell::new(Net::new()),
        room,
        threads,
        address: Cell::default(),
        tick: Cell::default(),
        reports: RefCell::default(),
        later: RefCell::default(),
        last: Cell::default(),
        changes: Cell::default(),
        interrupt: Cell::default(),
        between: RefCell::default(),
        spins: Cell::default(),
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

    /// The call to the network after `n` more fails, and so does its connection from then on.
    pub fn fail_call(&self, n: usize) {
        let mut net = self.net();
        net.fail_at = Some(net.calls + n);
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

    /// Another thread does something as soon as calls have had the client so many times.
    pub fn after(&self, times: usize, hook: impl FnOnce(&Rig) + 'static) {
        *self.between.borrow_mut() = Some((times, Box::new(hook)));
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

    pub fn publish(&self, qos: u8, topic: &str, payload: impl AsRef<[u8]>) -> Outcome<Reply> {
        calls::publish(self, &message(qos, topic, payload), true, true)
    }

    /// The same, without waiting for the acknowledgement.
    pub fn post(&self, qos: u8, topic: &str, payload: impl AsRef<[u8]>) -> Outcome<Reply> {
        calls::publish(self, &message(qos, topic, payload), false, true)
    }

    pub fn subscribe(&self, filter: &str, qos: u8) -> Outcome<()> {
        calls::subscribe(self, &text(filter), QoS::from_bits(qos).unwrap()).map(drop)
    }

    pub fn unsubscribe(&self, filter: &str) -> Outcome<()> {
        calls::unsubscribe(self, &text(filter)).map(drop)
    }

    /// Receives a message and runs `callback` with it in the script's hands.
    pub fn receive_and(&self, wait: bool, callback: impl FnOnce()) -> Outcome<Got> {
        let mut length = 0;
        Ok(match calls::receive(self, wait, &mut length)? {
            Reply::Message => {
                let (topic, payload) = self.client().inbox.oldest();
                let size = self.client().inbox.first().map(|tag| tag.size);
                assert_eq!(size, Some(length));
                callback();
                calls::handled(self);
                Got::Message(topic, payload)
            }
            Reply::Skipped => Got::Skipped(length),
            Reply::Nothing => Got::Nothing,
            other => panic!("{other:?}"),
        })
    }

    pub fn receive(&self, wait: bool) -> Outcome<Got> {
        self.receive_and(wait, || ())
    }
}

impl Rig {
    /// Every look at the clock takes a tick.
    fn now(&self) -> Time {
        self.pass(self.tick.get());
        Time(START.wrapping_add(self.elapsed() as u32))
    }
}

impl Port for Rig {
    type Stack = Net;
    type Memory = Heap;

    fn with<T>(&self, work: impl FnOnce(&mut Client<Net, Heap>, &mut Net) -> T) -> T {
        let mut client = self.client.try_borrow_mut().expect("the client is free");
        client.set_now(self.now());
        let result = work(&mut client, &mut self.net());
        let signals = client.take_signals();
        let has_socket = client.socket().is_some();
        let changed = signals.changed || signals.alarm;
        self.changes.set(self.changes.get() + usize::from(changed));
        drop(client);
        let between = self.between.take();
        match between {
            Some((1, hook)) => hook(self),
            Some((times, hook)) => *self.between.borrow_mut() = Some((times - 1, hook)),
            None => {}
        }
        self.last.set((signals, has_socket));
        result
    }

    fn outside<T>(&self, work: impl FnOnce(&mut Net) -> T) -> T {
        assert!(self.client.try_borrow_mut().is_ok(), "the client is free");
        work(&mut self.net())
    }

    fn resolve(&self) -> nb::Result<(), NetError> {
        self.address.set(Some(calls::look_up(self)?));
        Ok(())
    }

    fn connect(&self, socket: &mut Socket) -> nb::Result<(), NetError> {
        let address = self.address.get().expect("the name is resolved");
        self.outside(|net| net.connect(socket, address))
    }

    fn has_thread(&self) -> bool {
        self.threads
    }

    fn report(&self, fault: Fault<NetError>) {
        assert!(self.client.try_borrow_mut().is_ok(), "the client is free");
        self.reports.borrow_mut().push(fault);
    }

    fn wait(&self, socket: Option<&Socket>, wait: Wait) -> Result<(), Interrupted> {
        assert!(self.client.try_borrow_mut().is_ok(), "the client is free");
        let (signals, has_socket) = self.last.get();
        assert!(signals.waiting, "a wait that was not announced");
        let has_socket = has_socket || socket.is_some();
        let ms = wait.until.since(self.now());
        let until = (ms < Time::FOREVER / 2).then(|| self.elapsed() + u64::from(ms));
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
