//! A network whose peer follows a script.
//!
//! What the client sends is compared with the script byte by byte; a client that sends something
//! else, or closes where it should not, fails the test at once.

use std::{
    collections::VecDeque,
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

use embedded_nal::{AddrType, Dns, TcpClientStack, TcpError, TcpErrorKind, nb};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NetError {
    NoSuchName,
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

/// What the peer does, and waits for, next.
#[derive(Clone, Debug)]
pub enum Step {
    /// The client sends this.
    Expect(Vec<u8>),
    /// The peer sends this; what the script expects next comes when the client has read it.
    Send(Vec<u8>),
    /// The same, but what is expected next may come before it is all read.
    Flood(Vec<u8>),
    /// The peer sends something of which the socket gives nothing yet.
    Part,
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
    pub elapsed: u64,
    pub script: VecDeque<Step>,
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
    pub open: Vec<usize>,
    sockets: usize,
    /// Names asked for and addresses dialed.
    pub log: Vec<String>,
    /// Bytes that the client sent, in how many writes, and bytes that it read.
    pub sent: Vec<u8>,
    pub writes: usize,
    pub read: Vec<u8>,
    /// Grows when anything moves.
    pub progress: usize,
}

impl Net {
    pub fn new() -> Self {
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
    pub fn front(&mut self) -> Option<&mut Step> {
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

    pub fn readable(&mut self) -> bool {
        self.dead
            || matches!(
                self.front(),
                Some(Step::Send(_) | Step::Flood(_) | Step::Part | Step::Fin | Step::Reset)
            )
    }

    pub fn writable(&mut self) -> bool {
        let dialing = self.began[1].is_some_and(|began| match self.tcp {
            Attempt::After(ms) => self.elapsed < began + ms,
            _ => true,
        });
        let stuck = matches!(self.front(), Some(Step::Until(_)));
        self.dead || !(self.blocked || dialing || stuck)
    }

    /// When something may change by itself.
    pub fn wakes_at(&mut self) -> Option<u64> {
        let dialing = match (self.began[1], self.tcp) {
            (Some(began), Attempt::After(ms)) => Some(began + ms).filter(|at| *at > self.elapsed),
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
            Some(Step::Part) => {
                self.script.pop_front();
                self.progress += 1;
                Ok(room.len() + 1)
            }
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
        // What was sent need not be read.
        while let Some(Step::Send(_) | Step::Flood(_)) = self.front() {
            self.script.pop_front();
        }
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
