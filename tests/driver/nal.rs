//! The engine over somebody else's stack, with real sockets: std-embedded-nal.

use std::{
    cell::{Cell, RefCell},
    io::{ErrorKind, Read, Write},
    net::{IpAddr, SocketAddr, TcpListener},
    thread,
    time::{Duration, Instant},
};

use embedded_nal::{AddrType, Dns, TcpClientStack, TcpError, TcpErrorKind, nb};
use umqtt::{
    calls::{self, Interrupted, Port, Reply, Wait},
    client::Client,
    packet::QoS,
    time::Time,
};

use crate::{
    bytes::*,
    world::{Heap, message, new_client, text},
};

/// Its errors own memory, and are not the same for names and for sockets: ours are the kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Kind(ErrorKind);

impl TcpError for Kind {
    fn kind(&self) -> TcpErrorKind {
        TcpErrorKind::Other
    }
}

fn kind<T>(
    result: nb::Result<T, <std_embedded_nal::Stack as TcpClientStack>::Error>,
) -> nb::Result<T, Kind> {
    result.map_err(|error| error.map(|error| Kind(error.0.kind())))
}

#[derive(Default)]
struct Stack(std_embedded_nal::Stack);

impl TcpClientStack for Stack {
    type TcpSocket = <std_embedded_nal::Stack as TcpClientStack>::TcpSocket;
    type Error = Kind;

    fn socket(&mut self) -> Result<Self::TcpSocket, Kind> {
        self.0.socket().map_err(|error| Kind(error.0.kind()))
    }

    fn connect(&mut self, socket: &mut Self::TcpSocket, to: SocketAddr) -> nb::Result<(), Kind> {
        kind(self.0.connect(socket, to))
    }

    fn send(&mut self, socket: &mut Self::TcpSocket, data: &[u8]) -> nb::Result<usize, Kind> {
        kind(self.0.send(socket, data))
    }

    fn receive(
        &mut self,
        socket: &mut Self::TcpSocket,
        room: &mut [u8],
    ) -> nb::Result<usize, Kind> {
        kind(self.0.receive(socket, room))
    }

    fn close(&mut self, socket: Self::TcpSocket) -> Result<(), Kind> {
        self.0.close(socket).map_err(|error| Kind(error.0.kind()))
    }
}

impl Dns for Stack {
    type Error = Kind;

    fn get_host_by_name(&mut self, name: &str, family: AddrType) -> nb::Result<IpAddr, Kind> {
        let result = self.0.get_host_by_name(name, family);
        result.map_err(|error| error.map(|error| Kind(error.kind())))
    }

    fn get_host_by_address(&mut self, _: IpAddr, _: &mut [u8]) -> nb::Result<usize, Kind> {
        unreachable!()
    }
}

struct Host {
    client: RefCell<Client<Stack, Heap>>,
    stack: RefCell<Stack>,
    address: Cell<Option<SocketAddr>>,
    began: Instant,
}

impl Port for Host {
    type Stack = Stack;
    type Memory = Heap;

    fn with<T>(&self, work: impl FnOnce(&mut Client<Stack, Heap>, &mut Stack) -> T) -> T {
        let mut client = self.client.borrow_mut();
        client.set_now(Time(self.began.elapsed().as_millis() as u32));
        work(&mut client, &mut self.stack.borrow_mut())
    }

    fn outside<T>(&self, work: impl FnOnce(&mut Stack) -> T) -> T {
        work(&mut self.stack.borrow_mut())
    }

    fn resolve(&self) -> nb::Result<(), Kind> {
        self.address.set(Some(calls::look_up(self)?));
        Ok(())
    }

    fn connect(&self, socket: &mut <Stack as TcpClientStack>::TcpSocket) -> nb::Result<(), Kind> {
        let address = self.address.get().unwrap();
        self.outside(|stack| stack.connect(socket, address))
    }

    fn wait(
        &self,
        _: Option<&<Stack as TcpClientStack>::TcpSocket>,
        _: Wait,
    ) -> Result<(), Interrupted> {
        thread::sleep(Duration::from_millis(1));
        Ok(())
    }
}

#[test]
fn a_conversation() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    // Larger than the buffers of the sockets.
    let large = vec![7; 8 << 20];
    let copy = large.clone();
    let broker = thread::spawn(move || {
        let (mut socket, _) = listener.accept().unwrap();
        let mut talk = |expected: &[u8], answer: &[u8]| {
            let mut bytes = vec![0; expected.len()];
            socket.read_exact(&mut bytes).unwrap();
            assert!(bytes == expected, "{:02x?}", &bytes[..bytes.len().min(20)]);
            socket.write_all(answer).unwrap();
        };
        talk(CONNECT, CONNACK);
        talk(&subscribe(1, "t", 2), &suback(1, 2));
        talk(&publish(QOS1, "t", 2, &copy), &ack(PUBACK, 2));
        talk(&publish(0, "t", 0, "zero"), &publish(QOS2, "t", 9, &copy));
        talk(&ack(PUBREC, 9), &ack(PUBREL, 9));
        talk(&ack(PUBCOMP, 9), &publish(0, "t", 0, "last"));
        talk(DISCONNECT, b"");
        assert_eq!(socket.read(&mut [0]).unwrap(), 0);
    });
    let host = Host {
        client: RefCell::new(new_client("127.0.0.1", port)),
        stack: RefCell::default(),
        address: Cell::default(),
        began: Instant::now(),
    };
    let receive = || {
        let received = calls::receive(&host, true, &mut 0).unwrap();
        assert!(matches!(received, Reply::Message), "{received:?}");
        let (topic, payload) = host.client.borrow().inbox.oldest();
        assert_eq!(topic, "t");
        calls::handled(&host);
        payload
    };
    let publish =
        |qos, payload: &[u8]| calls::publish(&host, &message(qos, "t", payload), true, true);
    assert!(calls::connect(&host, false).is_ok());
    assert_eq!(
        calls::subscribe(&host, &text("t"), QoS::ExactlyOnce),
        Ok(Reply::Done)
    );
    assert_eq!(publish(1, &large), Ok(Reply::Done));
    assert_eq!(publish(0, b"zero"), Ok(Reply::Done));
    assert!(receive() == large);
    assert_eq!(receive(), b"last");
    calls::disconnect(&host);
    broker.join().unwrap();
}

#[test]
fn nobody_listens() {
    let port = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let host = Host {
        client: RefCell::new(new_client("127.0.0.1", port)),
        stack: RefCell::default(),
        address: Cell::default(),
        began: Instant::now(),
    };
    let refused = umqtt::client::Fault::Dial(Kind(ErrorKind::ConnectionRefused));
    assert_eq!(
        calls::connect(&host, false),
        Err(calls::Error::Fault(refused))
    );
}
