//! Anything at all: random calls, cuts, would-blocks and failures against a broker that keeps a
//! session as the standard says. Nothing is lost, nothing comes twice that must not, and nothing
//! is held on to.

use std::{cell::RefCell, collections::BTreeSet, rc::Rc};

use proptest::{collection::vec, prelude::*};
use umqtt::{
    calls::{self, Error, Reply},
    client::Status,
    packet::*,
};

use crate::{bytes, world::*};

/// How far a message to the client has come.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Stage {
    Publish,
    Pubrel,
    Done,
}

/// A broker with a session for the one client.
#[derive(Default)]
struct Broker {
    /// Bytes of a packet that is not whole yet.
    part: Vec<u8>,
    has_session: bool,
    connected: bool,
    /// Payloads that came in with QoS 1, and with QoS 2, and the identifiers of the latter.
    once_or_more: Vec<u8>,
    exactly_once: Vec<u8>,
    received: BTreeSet<u16>,
    /// Identifiers in the order of their first PUBLISH.
    order: Vec<u16>,
    /// What goes to the client: QoS, and how far it is. The place is the identifier and payload.
    out: Vec<(u8, Stage)>,
}

impl Broker {
    fn message(&self, at: usize, dup: u8) -> Vec<u8> {
        let payload = vec![at as u8; at * 7 % 100 + 1];
        bytes::publish(self.out[at].0 << 1 | dup, "t", at as u16 + 1, payload)
    }

    /// A new message for the client.
    fn send(&mut self, qos: u8) -> Vec<u8> {
        let lost = qos == 0 && !self.connected;
        let stage = if qos == 0 {
            Stage::Done
        } else {
            Stage::Publish
        };
        self.out.push((qos, stage));
        match self.connected && !lost {
            true => self.message(self.out.len() - 1, 0),
            false => vec![],
        }
    }

    fn settle(&mut self, id: u16, from: Stage, to: Stage) {
        let (_, stage) = &mut self.out[usize::from(id) - 1];
        if *stage == from {
            *stage = to;
        }
    }

    /// What it answers to these bytes.
    fn take(&mut self, data: &[u8]) -> Vec<u8> {
        self.part.extend(data);
        let mut answer = Vec::new();
        let bytes = std::mem::take(&mut self.part);
        let mut rest = &bytes[..];
        while let Some((packet, len)) = Packet::parse(rest, Version::V311).expect("well-formed") {
            self.handle(packet, &mut answer);
            rest = &rest[len..];
        }
        self.part = rest.to_vec();
        answer
    }

    fn handle(&mut self, packet: Packet, answer: &mut Vec<u8>) {
        let connects = matches!(packet, Packet::Connect(_));
        assert_ne!(self.connected, connects, "{packet:?}");
        match packet {
            Packet::Connect(_) => {
                self.connected = true;
                answer.extend([0x20, 2, u8::from(self.has_session), 0]);
                self.has_session = true;
                for at in 0..self.out.len() {
                    match self.out[at].1 {
                        Stage::Publish => answer.extend(self.message(at, bytes::DUP)),
                        Stage::Pubrel => answer.extend(bytes::ack(bytes::PUBREL, at as u16 + 1)),
                        Stage::Done => {}
                    }
                }
            }
            Packet::Publish(Publish {
                dup,
                qos,
                id,
                payload,
                ..
            }) => {
                let payload = payload[0];
                let id = id.map_or(0, PacketId::get);
                match qos {
                    QoS::AtMostOnce => {}
                    QoS::AtLeastOnce => {
                        let known = self.once_or_more.contains(&payload);
                        assert!(dup || !known, "{payload} again, without DUP");
                        self.once_or_more.push(payload);
                        answer.extend(bytes::ack(bytes::PUBACK, id));
                    }
                    QoS::ExactlyOnce => {
                        if self.received.insert(id) {
                            self.exactly_once.push(payload);
                        } else {
                            assert!(dup, "{payload} again, without DUP");
                        }
                        answer.extend(bytes::ack(bytes::PUBREC, id));
                    }
                }
                if !self.order.contains(&payload.into()) && qos != QoS::AtMostOnce {
                    self.order.push(payload.into());
                }
            }
            Packet::Ack(Ack { kind, id }) => match kind {
                Kind::Puback => self.settle(id.get(), Stage::Publish, Stage::Done),
                Kind::Pubrec => {
                    self.settle(id.get(), Stage::Publish, Stage::Pubrel);
                    answer.extend(bytes::ack(bytes::PUBREL, id.get()));
                }
                Kind::Pubcomp => self.settle(id.get(), Stage::Pubrel, Stage::Done),
                Kind::Pubrel => {
                    self.received.remove(&id.get());
                    answer.extend(bytes::ack(bytes::PUBCOMP, id.get()));
                }
                other => panic!("{other:?}"),
            },
            Packet::Subscribe(Subscribe { id, qos, .. }) => {
                answer.extend(bytes::suback(id.get(), qos as u8));
            }
            Packet::Unsubscribe(Unsubscribe { id, .. }) => {
                answer.extend(bytes::ack(bytes::UNSUBACK, id.get()));
            }
            Packet::Pingreq => answer.extend(bytes::PINGRESP),
            other => panic!("{other:?}"),
        }
    }
}

#[derive(Clone, Debug)]
enum Deed {
    Publish {
        qos: u8,
        size: usize,
        wait: bool,
    },
    Receive,
    Subscribe,
    Ping,
    BrokerSends {
        qos: u8,
    },
    /// The call to the network after so many more fails.
    Fail(usize),
    Close,
}

fn deed() -> impl Strategy<Value = Deed> {
    prop_oneof![
        4 => (0..3u8, 1..80usize, any::<bool>())
            .prop_map(|(qos, size, wait)| Deed::Publish { qos, size, wait }),
        4 => Just(Deed::Receive),
        1 => Just(Deed::Subscribe),
        1 => Just(Deed::Ping),
        4 => (0..3u8).prop_map(|qos| Deed::BrokerSends { qos }),
        2 => (0..30usize).prop_map(Deed::Fail),
        1 => Just(Deed::Close),
    ]
}

/// Limits that let something through.
fn limits() -> impl Strategy<Value = Vec<usize>> {
    let some = vec(prop_oneof![Just(0), Just(1), 1..40usize, Just(1000)], 0..5);
    some.prop_map(|mut sizes| {
        if sizes.iter().all(|size| *size == 0) {
            sizes.push(20);
        }
        sizes
    })
}

struct Run {
    rig: Rig,
    broker: Rc<RefCell<Broker>>,
    /// Messages that `publish` took, and what the callback got, by number.
    taken: Vec<(u8, umqtt::session::Message<Text>)>,
    got: Vec<u8>,
}

impl Run {
    fn connect(&self) {
        let connected = || self.rig.status() == Status::Connected;
        while !connected() {
            {
                let mut broker = self.broker.borrow_mut();
                (broker.connected, broker.part) = (false, vec![]);
            }
            self.rig.forget_script();
            let _ = self.rig.connect();
        }
    }

    fn receive(&mut self) -> bool {
        match self.rig.receive(false) {
            Ok(Got::Message(topic, payload)) => {
                assert_eq!(topic, "t");
                let number = payload[0];
                assert!(payload.iter().all(|byte| *byte == number));
                assert_eq!(payload.len(), usize::from(number) * 7 % 100 + 1);
                self.got.push(number);
                true
            }
            Ok(other) => {
                assert_eq!(other, Got::Nothing);
                false
            }
            Err(_) => false,
        }
    }

    fn run(&mut self, at: usize, deed: &Deed) {
        self.connect();
        match *deed {
            Deed::Publish { qos, size, wait } => {
                let message = message(qos, "t", vec![at as u8; size]);
                let taken = match calls::publish(&self.rig, &message, wait, true) {
                    Ok(Reply::Done) => true,
                    Ok(Reply::NoRoom) | Err(Error::NotConnected) => false,
                    // It stays in flight.
                    _ => true,
                };
                assert!(taken || Rc::strong_count(&message.payload) == 1);
                if taken && qos > 0 {
                    self.taken.push((at as u8, message));
                }
            }
            Deed::Receive => drop(self.receive()),
            Deed::Subscribe => drop(self.rig.subscribe("t", 2)),
            Deed::Ping => drop(calls::ping(&self.rig)),
            Deed::BrokerSends { qos } => {
                let bytes = self.broker.borrow_mut().send(qos);
                self.rig.script([flood(bytes)]);
            }
            Deed::Fail(n) => self.rig.fail_call(n),
            Deed::Close => calls::close(&self.rig),
        }
    }

    /// No more failures: all comes to its end.
    fn end(&mut self) {
        self.rig.fail_call(usize::MAX / 2);
        let mut idle = 0;
        while idle < 20 {
            self.connect();
            let got = self.receive();
            let busy = got || !self.rig.is_over() || self.rig.client().wants_write();
            idle = if busy { 0 } else { idle + 1 };
        }
        let broker = self.broker.borrow();
        for (number, message) in &self.taken {
            assert_eq!(
                Rc::strong_count(&message.payload),
                1,
                "{number} is still in flight"
            );
            match message.qos {
                QoS::AtLeastOnce => assert!(broker.once_or_more.contains(number)),
                _ => {
                    let times = broker.exactly_once.iter().filter(|n| *n == number);
                    assert_eq!(times.count(), 1, "{number}");
                }
            }
        }
        let order: Vec<_> = self
            .taken
            .iter()
            .map(|(number, _)| u16::from(*number))
            .collect();
        assert_eq!(broker.order, order);
        for (at, (qos, stage)) in broker.out.iter().enumerate() {
            assert_eq!(*stage, Stage::Done, "{at}");
            let times = self.got.iter().filter(|n| usize::from(**n) == at).count();
            let allowed = match qos {
                0 => 0..=1,
                1 => 1..=usize::MAX,
                _ => 1..=1,
            };
            assert!(
                allowed.contains(&times),
                "{at} with QoS {qos} came {times} times"
            );
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn anything_at_all(
        deeds in vec(deed(), 1..60),
        reads in limits(),
        writes in limits(),
        rx in 16..80usize,
        tx in 16..80usize,
    ) {
        let broker = Rc::new(RefCell::new(Broker::default()));
        let rig = rig(Setup { rx, tx, ..Setup::default() });
        let peer = broker.clone();
        rig.net().peer = Some(Box::new(move |data| peer.borrow_mut().take(data)));
        rig.net().read_limits = reads.into();
        rig.net().write_limits = writes.into();
        let mut run = Run { rig, broker, taken: vec![], got: vec![] };
        for (at, deed) in deeds.iter().enumerate() {
            run.run(at, deed);
        }
        run.end();
    }
}
