//! Nothing that `publish` took is lost: failures at every call, and what is sent again.

use std::rc::Rc;

use umqtt::{
    calls::{self, Error, Reply},
    client::{Fault, Status},
    packet::Kind,
    session::Due,
};

use crate::{bytes::*, world::*};

/// Four messages at once, then their acknowledgements, then the end.
const QOS: [u8; 4] = [1, 2, 1, 2];

fn id(at: usize) -> u16 {
    at as u16 + 1
}

fn first(at: usize, dup: u8) -> Vec<u8> {
    publish(QOS[at] << 1 | dup, "t", id(at), [at as u8; 20])
}

/// The acknowledgements, in the order in which the broker of the scenario sends them.
fn acks() -> [Vec<u8>; 6] {
    [
        ack(PUBACK, id(0)),
        ack(PUBREC, id(1)),
        ack(PUBREC, id(3)),
        ack(PUBACK, id(2)),
        ack(PUBCOMP, id(1)),
        ack(PUBCOMP, id(3)),
    ]
}

/// How many of the messages were taken.
fn publish_all(rig: &Rig) -> usize {
    let [puback1, pubrec2, pubrec4, puback3, pubcomp2, pubcomp4] = acks();
    for at in 0..4 {
        rig.script([expect(first(at, 0))]);
    }
    rig.script([
        send(puback1),
        send(pubrec2),
        expect(ack(PUBREL, id(1))),
        send(pubrec4),
        expect(ack(PUBREL, id(3))),
        send(puback3),
        send([pubcomp2, pubcomp4].concat()),
        send(publish(0, "the", 0, "end")),
    ]);
    let mut taken = 0;
    for (at, qos) in QOS.into_iter().enumerate() {
        match rig.post(qos, "t", [at as u8; 20]) {
            Ok(Reply::Done) => taken += 1,
            Err(Error::Fault(Fault::Io(NetError::Injected))) => taken += 1,
            other => assert_eq!(other, Err(Error::NotConnected)),
        }
    }
    let _ = rig.receive(true);
    taken
}

/// What has to be sent again after these bytes were sent and read, by the standard (section 4.4).
fn again(rig: &Rig, taken: usize, sent: usize, read: &[u8]) -> Vec<u8> {
    let has = |ack: Vec<u8>| read.chunks(4).any(|packet| packet == ack);
    let mut bytes = Vec::new();
    let mut before = 0;
    for (at, qos) in QOS.into_iter().enumerate().take(taken) {
        let id = id(at);
        // It is for the client to say whether it tried to send what the socket took nothing of.
        let tried = |(_, dup)| if dup { DUP } else { 0 };
        let due = Due {
            kind: Kind::Publish,
            id: None,
            at: at as u16,
        };
        let dup = match rig.client().session.message(&due) {
            Some(first) if sent <= before => tried(first),
            _ => DUP,
        };
        before += first(at, 0).len();
        match qos {
            1 if has(ack(PUBACK, id)) => {}
            2 if has(ack(PUBCOMP, id)) => {}
            2 if has(ack(PUBREC, id)) => bytes.extend(ack(PUBREL, id)),
            _ => bytes.extend(first(at, dup)),
        }
    }
    bytes
}

/// How much was sent and read so far.
fn lengths(rig: &Rig) -> (usize, usize) {
    let net = rig.net();
    (net.sent.len(), net.read.len())
}

/// The handshakes of what was sent again, to their end.
fn finish(rig: &Rig, again: &[u8]) {
    let mut rest = again;
    while let [kind, len, body @ ..] = rest {
        let (body, after) = body.split_at(usize::from(*len));
        let id = |at: usize| u16::from_be_bytes([body[at], body[at + 1]]);
        match kind & 0xF6 {
            0x32 => rig.script([send(ack(PUBACK, id(3)))]),
            0x34 => rig.script([
                send(ack(PUBREC, id(3))),
                expect(ack(PUBREL, id(3))),
                send(ack(PUBCOMP, id(3))),
            ]),
            _ => rig.script([send(ack(PUBCOMP, id(0)))]),
        }
        rest = after;
    }
    rig.script([send(publish(0, "the", 0, "end"))]);
    assert_eq!(rig.receive(true), got("the", "end"));
}

/// Each call to the network fails in turn, with any cut of what is sent and received, and again on
/// the second connection: everything that was taken is sent again, in order, as far as its
/// handshake had not come.
fn failure_at_every_call(tx: usize, writes: Vec<usize>, reads: Vec<usize>) -> usize {
    let mut k = 0;
    loop {
        let rig = connected(Setup {
            tx,
            ..Setup::default()
        });
        let (sent, read) = lengths(&rig);
        rig.net().write_limits = writes.clone().into();
        rig.net().read_limits = reads.clone().into();
        rig.fail_call(k);
        let taken = publish_all(&rig);
        if !rig.net().failed {
            return k;
        }
        assert_eq!(rig.status(), Status::Idle);
        rig.forget_script();
        let sent = lengths(&rig).0 - sent;
        let read = rig.net().read[read..].to_vec();
        let resent = again(&rig, taken, sent, &read);
        rig.net().write_limits = vec![].into();
        rig.net().read_limits = vec![].into();
        // The second connection breaks as well, at the first byte that is sent again.
        rig.script([expect(CONNECT), send(PRESENT), Step::Reset]);
        // It was made, all the same.
        assert_eq!(rig.connect(), Ok(()), "call {k}");
        let idle = rig.status() == Status::Idle;
        let outcome = rig.receive(true).map(drop);
        let expected = if idle {
            Err(Error::NotConnected)
        } else {
            fault(Fault::Io(NetError::Reset))
        };
        assert_eq!(outcome, expected, "call {k}");
        rig.script([expect(CONNECT), send(PRESENT), expect(resent.clone())]);
        assert_eq!(rig.connect(), Ok(()), "call {k}");
        finish(&rig, &resent);
        k += 1;
    }
}

#[test]
fn failures() {
    for tx in [256, 16] {
        let calls = failure_at_every_call(tx, vec![], vec![]);
        assert!(calls >= 8, "only {calls} calls");
        let calls = failure_at_every_call(tx, vec![1], vec![4]);
        assert!(calls > 100, "only {calls} calls");
        failure_at_every_call(tx, vec![5, 0, 1], vec![4, 0]);
        failure_at_every_call(tx, vec![0, 27], vec![4]);
    }
}

/// The same for a call that waits: whatever happens, it says so, and the message stays.
#[test]
fn failure_while_it_waits() {
    for reconnect in [false, true] {
        for (qos, replies) in [(1, [PUBACK, 0]), (2, [PUBREC, PUBCOMP])] {
            let mut k = 0;
            loop {
                let rig = connected(Setup {
                    reconnect,
                    ..Setup::default()
                });
                rig.net().write_limits = vec![3].into();
                rig.fail_call(k);
                rig.script([
                    expect(publish(qos << 1, "t", 1, "x")),
                    send(ack(replies[0], 1)),
                ]);
                if qos == 2 {
                    rig.script([expect(ack(PUBREL, 1)), send(ack(replies[1], 1))]);
                }
                let mine = message(qos, "t", "x");
                let outcome = calls::publish(&rig, &mine, true, true);
                if !rig.net().failed {
                    assert_eq!(outcome, Ok(Reply::Done));
                    assert_eq!(Rc::strong_count(&mine.payload), 1);
                    break;
                }
                let expected = match reconnect {
                    true => Ok(Reply::NotYet),
                    false => fault(Fault::Io(NetError::Injected)),
                };
                assert_eq!(outcome, expected, "call {k}");
                assert_eq!(Rc::strong_count(&mine.payload), 2);
                k += 1;
                rig.forget_script();
            }
        }
    }
}

/// A broker without the session gets it all again.
#[test]
fn without_the_session() {
    let rig = connected(Setup::default());
    for (at, qos) in QOS.into_iter().enumerate() {
        rig.script([expect(first(at, 0))]);
        assert_eq!(rig.post(qos, "t", [at as u8; 20]), Ok(Reply::Done));
    }
    rig.script([
        send(ack(PUBREC, id(1))),
        expect(ack(PUBREL, id(1))),
        send(publish(0, "t", 0, "x")),
    ]);
    assert_eq!(rig.receive(true), got("t", "x"));
    rig.script([Step::Reset]);
    assert_eq!(rig.receive(true), fault(Fault::Io(NetError::Reset)));
    let resent = [
        first(0, DUP),
        ack(PUBREL, id(1)),
        first(2, DUP),
        first(3, DUP),
    ];
    rig.script([expect(CONNECT), send(CONNACK), expect(resent.concat())]);
    assert_eq!(rig.connect(), Ok(()));
    finish(&rig, &resent.concat());
}

/// `close` keeps what is in flight.
#[test]
fn close_keeps_it() {
    let rig = connected(Setup::default());
    rig.script([expect(publish(QOS1, "t", 1, "x"))]);
    assert_eq!(rig.post(1, "t", "x"), Ok(Reply::Done));
    rig.script([Step::Close]);
    calls::close(&rig);
    rig.script([
        expect(CONNECT),
        send(PRESENT),
        expect(publish(QOS1 | DUP, "t", 1, "x")),
    ]);
    assert_eq!(rig.connect(), Ok(()));
    rig.script([
        expect(publish(QOS1, "t", 2, "y")),
        send([ack(PUBACK, 1), ack(PUBACK, 2)].concat()),
    ]);
    assert_eq!(rig.publish(1, "t", "y"), Ok(Reply::Done));
}

/// What is sent again goes before what is new, and does not overtake itself in short writes.
#[test]
fn in_order() {
    let rig = connected(Setup {
        tx: 16,
        ..Setup::default()
    });
    let body = |n: u16| vec![n as u8; usize::from(n) * 7];
    for n in 1..=10 {
        rig.script([expect(publish(QOS1, "t", n, body(n)))]);
        assert_eq!(rig.post(1, "t", body(n)), Ok(Reply::Done));
    }
    // A gap in the window is filled with the newest.
    rig.script([send([ack(PUBACK, 2), ack(PUBACK, 5)].concat())]);
    assert_eq!(rig.receive(false), Ok(Got::Nothing));
    for n in 11..=12 {
        rig.script([expect(publish(QOS1, "t", n, body(n)))]);
        assert_eq!(rig.post(1, "t", body(n)), Ok(Reply::Done));
    }
    rig.script([Step::Reset]);
    assert_eq!(rig.receive(true), fault(Fault::Io(NetError::Reset)));
    rig.net().write_limits = vec![0, 11].into();
    rig.script([expect(CONNECT), send(PRESENT)]);
    for n in [1, 3, 4, 6, 7, 8, 9, 10, 11, 12] {
        rig.script([expect(publish(QOS1 | DUP, "t", n, body(n)))]);
    }
    rig.script([expect(publish(0, "t", 0, "new"))]);
    assert_eq!(rig.connect(), Ok(()));
    assert_eq!(rig.publish(0, "t", "new"), Ok(Reply::Done));
}

/// A client that knows nothing of the session that the broker has for it uses no identifiers that
/// the broker may still hold.
#[test]
fn a_session_from_before() {
    let rig = rig(Setup::default());
    rig.pass(12_345);
    rig.script([expect(CONNECT), send(PRESENT)]);
    assert_eq!(rig.connect(), Ok(()));
    let before = rig.net().sent.len();
    rig.net().peer = Some(Box::new(|_| vec![]));
    assert_eq!(rig.post(2, "t", "x"), Ok(Reply::Done));
    let sent = rig.net().sent[before..].to_vec();
    let id = u16::from_be_bytes([sent[5], sent[6]]);
    assert_eq!(sent, publish(QOS2, "t", id, "x"));
    assert!(id > 1);
}
