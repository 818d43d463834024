//! Publishing: what is sent, in which pieces, and when it is given up.

use std::rc::Rc;

use umqtt::{
    calls::{self, Error, Reply},
    client::{Fault, Status},
    packet::Kind,
};

use crate::{bytes::*, world::*};

const NOT_YET: Outcome<Reply> = Ok(Reply::NotYet);
const DONE: Outcome<Reply> = Ok(Reply::Done);
const NO_ROOM: Outcome<Reply> = Ok(Reply::NoRoom);

/// A client that takes time-outs and failures as its script has to that leaves reconnecting to it.
fn reconnecting() -> Rig {
    connected(Setup {
        reconnect: true,
        ..Setup::default()
    })
}

/// The whole handshake of a message.
fn handshake(rig: &Rig, qos: u8, id: u16, payload: &[u8]) {
    rig.script([expect(publish(qos << 1, "t", id, payload))]);
    match qos {
        0 => {}
        1 => rig.script([send(ack(PUBACK, id))]),
        _ => rig.script([
            send(ack(PUBREC, id)),
            expect(ack(PUBREL, id)),
            send(ack(PUBCOMP, id)),
        ]),
    }
}

#[test]
fn every_qos() {
    let rig = connected(Setup::default());
    for (qos, id) in [(0, 0), (1, 1), (2, 2), (1, 3), (0, 0), (2, 4)] {
        handshake(&rig, qos, id, b"hello");
        assert_eq!(rig.publish(qos, "t", "hello"), DONE);
        assert!(rig.is_over());
    }
    let mut retained = message(1, "a/b", "");
    retained.retain = true;
    rig.script([
        expect(publish(QOS1 | RETAIN, "a/b", 5, "")),
        send(ack(PUBACK, 5)),
    ]);
    assert_eq!(calls::publish(&rig, &retained, true, true), DONE);
}

#[test]
fn one_write_when_it_fits() {
    let rig = connected(Setup::default());
    for (payload, writes) in [(0, 1), (200, 1), (256 - 5 - 1, 1), (256 - 5, 2), (5000, 2)] {
        rig.script([expect(publish(0, "t", 0, vec![7; payload]))]);
        let before = rig.net().writes;
        assert_eq!(rig.publish(0, "t", vec![7; payload]), DONE);
        assert_eq!(rig.net().writes - before, writes, "{payload} bytes");
    }
}

/// The socket takes any number of bytes at a time, and none now and then.
#[test]
fn short_writes() {
    let limits = (1..40).map(|n| vec![n]);
    let limits = limits.chain([vec![0, 1], vec![1, 0, 3], vec![0, 0, 7, 2], vec![0, 1000]]);
    for limit in limits {
        for size in [0, 1, 8, 9, 10, 11, 15, 16, 17, 31, 32, 33, 64, 100] {
            let rig = connected(Setup {
                tx: 16,
                ..Setup::default()
            });
            rig.net().write_limits = limit.clone().into();
            let payload: Vec<u8> = (0..size).collect();
            for (qos, id) in [(1, 1), (0, 0), (2, 2)] {
                handshake(&rig, qos, id, &payload);
                assert_eq!(rig.publish(qos, "t", &payload), DONE, "{limit:?} {size}");
            }
        }
    }
}

/// Several packets that wait for a socket that takes nothing go out in order, and whole.
#[test]
fn one_after_another() {
    for limit in [1, 3, 16, 1000] {
        let rig = connected(Setup {
            tx: 16,
            ..Setup::default()
        });
        rig.net().blocked = true;
        for payload in ["one", "two", "a longer one that does not fit", "four"] {
            assert_eq!(rig.post(1, "t", payload), DONE);
        }
        rig.net().write_limits = vec![limit].into();
        rig.later(100, |rig| rig.net().blocked = false);
        rig.script([
            expect(publish(QOS1, "t", 1, "one")),
            expect(publish(QOS1, "t", 2, "two")),
            expect(publish(QOS1, "t", 3, "a longer one that does not fit")),
            expect(publish(QOS1, "t", 4, "four")),
            expect(publish(0, "t", 0, "five")),
        ]);
        assert_eq!(rig.publish(0, "t", "five"), DONE);
    }
}

#[test]
fn a_socket_that_takes_nothing() {
    for (reconnect, given_up) in [(true, NOT_YET), (false, Err(Error::TimedOut))] {
        let rig = connected(Setup {
            reconnect,
            ..Setup::default()
        });
        rig.net().blocked = true;
        for payload in ["short", "a long one ".repeat(100).as_str()] {
            let outcome = rig.time(|| rig.publish(0, "t", payload));
            assert_eq!(outcome, (given_up, 5_000));
        }
        // Nothing of it was sent, nor will be.
        rig.net().blocked = false;
        rig.script([expect(publish(0, "t", 0, "next"))]);
        assert_eq!(rig.publish(0, "t", "next"), DONE);
    }
}

#[test]
fn a_socket_that_takes_a_part() {
    for part in [1, 5, 255, 256, 300, 345, 400] {
        let rig = connected(Setup::default());
        let bytes = publish(0, "t", 0, [9; 600]);
        // Each byte that it takes gives it five more seconds.
        rig.script([
            expect(&bytes[..part]),
            Step::Pause(4_999),
            expect(&bytes[part..part + 1]),
            Step::Pause(60_000),
        ]);
        rig.later(9_998, |rig| {
            rig.forget_script();
            rig.net().blocked = true;
            rig.script([Step::Close]);
        });
        let outcome = rig.time(|| rig.publish(0, "t", [9; 600]));
        assert_eq!(outcome, (fault(Fault::Stalled), 9_999));
        assert_eq!(rig.status(), Status::Idle);
    }
}

/// Nor is a message given up of which all but the last buffer's worth is gone.
#[test]
fn a_socket_that_takes_all_but_the_end() {
    for part in [1, 256, 344, 345, 400, 604] {
        let rig = connected(Setup::default());
        let bytes = publish(0, "t", 0, [9; 600]);
        rig.script([expect(&bytes[..part]), Step::Pause(60_000)]);
        rig.later(4_999, |rig| {
            rig.forget_script();
            rig.net().blocked = true;
            rig.script([Step::Close]);
        });
        let outcome = rig.time(|| rig.publish(0, "t", [9; 600]));
        assert_eq!(outcome, (fault(Fault::Stalled), 5_000), "{part} bytes");
    }
}

/// A payload that may change is taken at once or not at all.
#[test]
fn a_payload_that_may_change() {
    let rig = connected(Setup {
        tx: 16,
        ..Setup::default()
    });
    let publish_mutable = |payload: &str| {
        let message = message(0, "t", payload);
        let outcome = calls::publish(&rig, &message, true, false);
        (outcome, Rc::strong_count(&message.payload))
    };
    rig.script([expect(publish(0, "t", 0, "0123456789A"))]);
    assert_eq!(publish_mutable("0123456789A"), (DONE, 1));
    assert_eq!(publish_mutable("0123456789AB"), (Err(Error::Busy), 1));
    // A part of it is gone, and the rest is in the buffer.
    let bytes = publish(0, "t", 0, "9876543210A");
    rig.script([expect(&bytes[..7]), Step::Pause(10), expect(&bytes[7..])]);
    assert_eq!(publish_mutable("9876543210A"), (DONE, 1));
    rig.net().blocked = true;
    assert_eq!(rig.post(1, "t", "first"), DONE);
    assert_eq!(publish_mutable("x"), (Err(Error::Busy), 1));
    rig.net().blocked = false;
    rig.script([
        expect(publish(QOS1, "t", 1, "first")),
        expect(publish(0, "t", 0, "x")),
    ]);
    assert_eq!(publish_mutable("x"), (DONE, 1));
}

#[test]
fn no_acknowledgement_in_time() {
    let rig = reconnecting();
    rig.script([expect(publish(QOS1, "t", 1, "x"))]);
    assert_eq!(rig.time(|| rig.publish(1, "t", "x")), (NOT_YET, 5_000));
    // With QoS 2 all of the handshake counts.
    rig.script([
        expect(publish(QOS2, "t", 2, "y")),
        Step::Pause(3_000),
        send(ack(PUBREC, 2)),
        expect(ack(PUBREL, 2)),
    ]);
    assert_eq!(rig.time(|| rig.publish(2, "t", "y")), (NOT_YET, 5_000));
    // Late acknowledgements count all the same.
    rig.script([
        expect(publish(QOS1, "t", 3, "z")),
        send(ack(PUBCOMP, 2)),
        send(ack(PUBACK, 1)),
        Step::Pause(4_999),
        send(ack(PUBACK, 3)),
    ]);
    assert_eq!(rig.time(|| rig.publish(1, "t", "z")), (DONE, 4_999));
    fill_window(&rig, 4);
}

/// Takes as many messages in flight as there can be, so that it was empty.
fn fill_window(rig: &Rig, first: u16) {
    for id in first..first + config::IN_FLIGHT as u16 {
        rig.script([expect(publish(QOS1, "t", id, "x"))]);
        assert_eq!(rig.post(1, "t", "x"), DONE);
    }
}

#[test]
fn a_full_window() {
    let rig = reconnecting();
    fill_window(&rig, 1);
    let last = config::IN_FLIGHT as u16;
    for qos in [1, 2] {
        assert_eq!(rig.time(|| rig.post(qos, "t", "x")), (NO_ROOM, 0));
        assert_eq!(rig.time(|| rig.publish(qos, "t", "x")), (NO_ROOM, 5_000));
    }
    // QoS 0 needs no room.
    rig.script([expect(publish(0, "t", 0, "zero"))]);
    assert_eq!(rig.publish(0, "t", "zero"), DONE);
    // Room comes while it waits, and the five seconds begin anew.
    rig.script([
        Step::Pause(4_000),
        send(ack(PUBACK, 3)),
        expect(publish(QOS1, "t", last + 1, "y")),
        Step::Pause(4_000),
        send(ack(PUBACK, last + 1)),
    ]);
    assert_eq!(rig.time(|| rig.publish(1, "t", "y")), (DONE, 8_000));
    // An acknowledgement that is there makes room without waiting.
    rig.script([
        expect(publish(QOS2, "t", last + 2, "z")),
        send(ack(PUBACK, 9)),
        expect(publish(QOS1, "t", last + 3, "z")),
    ]);
    assert_eq!(rig.post(2, "t", "z"), DONE);
    assert_eq!(rig.post(1, "t", "z"), DONE);
    assert_eq!(rig.post(1, "t", "z"), NO_ROOM);
}

/// All of the 65,535 identifiers, around and around: never 0, and never one that is in use.
#[test]
fn packet_identifiers() {
    let rig = reconnecting();
    rig.script([
        expect(publish(QOS1, "t", 1, "stays")),
        expect(publish(QOS2, "t", 2, "stays")),
        send(ack(PUBREC, 2)),
        expect(ack(PUBREL, 2)),
        expect(subscribe(3, "stays", 0)),
    ]);
    assert_eq!(rig.post(1, "t", "stays"), DONE);
    assert_eq!(rig.publish(2, "t", "stays"), NOT_YET);
    assert_eq!(rig.subscribe("stays", 0), Err(Error::TimedOut));
    for id in (4..=u16::MAX).chain(4..=u16::MAX).chain(4..100) {
        handshake(&rig, 1 + (id & 1) as u8, id, b"x");
        assert_eq!(rig.publish(1 + (id & 1) as u8, "t", "x"), DONE);
    }
}

#[test]
fn acknowledgements_that_nobody_waits_for() {
    let rig = connected(Setup::default());
    for first in [PUBACK, PUBREC, PUBCOMP, UNSUBACK] {
        rig.script([send(ack(first, 77))]);
    }
    rig.script([send(suback(77, 0)), send(PINGRESP)]);
    rig.script([send(ack(PUBREL, 77)), expect(ack(PUBCOMP, 77))]);
    assert_eq!(rig.receive(false), Ok(Got::Nothing));
    // The wrong one for a message in flight.
    rig.script([
        expect(publish(QOS1, "t", 1, "x")),
        send(
            [
                ack(PUBREC, 1),
                ack(PUBCOMP, 1),
                ack(UNSUBACK, 1),
                suback(1, 0),
            ]
            .concat(),
        ),
        Step::Pause(1_000),
        send(ack(PUBACK, 1)),
    ]);
    assert_eq!(rig.time(|| rig.publish(1, "t", "x")), (DONE, 1_000));
    rig.script([
        expect(publish(QOS2, "t", 2, "x")),
        send([ack(PUBACK, 2), ack(PUBCOMP, 2)].concat()),
        Step::Pause(1_000),
        send(ack(PUBREC, 2)),
        expect(ack(PUBREL, 2)),
        // Once more: the PUBREL may have been lost.
        send([ack(PUBACK, 2), ack(PUBREC, 2)].concat()),
        expect(ack(PUBREL, 2)),
        Step::Pause(1_000),
        send(ack(PUBCOMP, 2)),
    ]);
    assert_eq!(rig.time(|| rig.publish(2, "t", "x")), (DONE, 2_000));
}

/// What arrives while a call waits is kept, up to a limit, which ends the wait.
#[test]
fn kept_messages() {
    let payload = vec![5; 1000];
    let cost = 1000 + "flood".len() + 64;
    let kept = config::KEPT / cost;
    type Wait = fn(&Rig);
    let waits: [(Vec<u8>, Wait); 4] = [
        (publish(QOS1, "t", 1, "x"), |rig| {
            assert_eq!(rig.publish(1, "t", "x"), NOT_YET);
        }),
        (publish(QOS2, "t", 1, "x"), |rig| {
            assert_eq!(rig.publish(2, "t", "x"), NOT_YET);
        }),
        (subscribe(1, "f", 0), |rig| {
            assert_eq!(rig.subscribe("f", 0), Err(Error::TimedOut));
        }),
        (unsubscribe(1, "f"), |rig| {
            assert_eq!(rig.unsubscribe("f"), Err(Error::TimedOut));
        }),
    ];
    for (first, wait) in waits {
        let rig = reconnecting();
        rig.script([expect(first)]);
        for _ in 0..kept + 3 {
            rig.script([flood(publish(0, "flood", 0, &payload))]);
        }
        assert_eq!(rig.time(|| wait(&rig)).1, 0);
        assert_eq!(rig.client().inbox.len(), kept);
        // QoS 0 goes out all the same.
        rig.script([expect(publish(0, "t", 0, "x"))]);
        assert_eq!(rig.publish(0, "t", "x"), DONE);
        assert_eq!(rig.client().inbox.len(), kept);
        for _ in 0..kept + 3 {
            assert_eq!(rig.receive(true), got("flood", &payload));
        }
        assert_eq!(rig.receive(false), Ok(Got::Nothing));
        assert_eq!(rig.client().inbox.len(), 0);
    }
}

/// One that there is no memory for ends the wait too, and is skipped only when it is its turn.
#[test]
fn nothing_is_skipped_while_a_call_waits() {
    let rig = reconnecting();
    rig.room.payload.set(100);
    rig.script([
        expect(publish(QOS1, "t", 1, "x")),
        flood(publish(0, "small", 0, [1; 100])),
        flood(publish(0, "large", 0, [2; 101])),
        flood(ack(PUBACK, 1)),
    ]);
    assert_eq!(rig.time(|| rig.publish(1, "t", "x")), (NOT_YET, 0));
    assert_eq!(rig.receive(true), got("small", [1; 100]));
    rig.room.payload.set(101);
    assert_eq!(rig.receive(true), got("large", [2; 101]));
    assert_eq!(rig.receive(false), Ok(Got::Nothing));
    fill_window(&rig, 2);
}

#[test]
fn while_connecting() {
    let rig = rig(Setup::default());
    rig.later(500, |rig| {
        assert_eq!(rig.time(|| rig.publish(0, "t", "zero")), (NOT_YET, 0));
        assert_eq!(rig.time(|| rig.publish(1, "t", "one")), (NOT_YET, 0));
        assert_eq!(rig.time(|| rig.post(2, "t", "two")), (NOT_YET, 0));
        assert_eq!(rig.subscribe("f", 0), Err(Error::NotConnected));
    });
    rig.script([
        expect(CONNECT),
        Step::Pause(1_000),
        send(CONNACK),
        expect(publish(QOS1, "t", 1, "one")),
        expect(publish(QOS2, "t", 2, "two")),
        expect(publish(0, "t", 0, "zero")),
    ]);
    assert_eq!(rig.connect(), Ok(()));
    assert_eq!(rig.publish(0, "t", "zero"), DONE);
}

#[test]
fn pings() {
    let rig = connected(Setup::default());
    rig.script([expect(PINGREQ), send(PINGRESP)]);
    assert_eq!(calls::ping(&rig), Ok(Reply::Done));
    assert_eq!(rig.receive(false), Ok(Got::Nothing));
    rig.script([Step::Reset]);
    assert_eq!(calls::ping(&rig), fault(Fault::Io(NetError::Reset)));
    let rig = self::rig(Setup {
        keepalive: 0,
        ..Setup::default()
    });
    let mut connect = CONNECT.to_vec();
    connect[11] = 0;
    rig.script([expect(connect), send(CONNACK)]);
    assert_eq!(rig.connect(), Ok(()));
    assert_eq!(calls::ping(&rig), Ok(Reply::Done));
}

/// Threads take turns: while one waits for its acknowledgement, others publish.
#[test]
fn publishing_while_another_waits() {
    let rig = connected(Setup::default());
    rig.script([
        expect(publish(QOS1, "t", 1, "outer")),
        expect(publish(QOS2, "t", 2, "inner")),
        send(ack(PUBREC, 2)),
        expect(ack(PUBREL, 2)),
        send(ack(PUBCOMP, 2)),
        expect(publish(0, "t", 0, "zero")),
        Step::Pause(100),
        send(ack(PUBACK, 1)),
    ]);
    rig.later(100, |rig| {
        assert_eq!(rig.publish(2, "t", "inner"), DONE);
        assert_eq!(rig.publish(0, "t", "zero"), DONE);
    });
    assert_eq!(rig.time(|| rig.publish(1, "t", "outer")), (DONE, 200));
    // One thread's call reads the acknowledgement of the other's.
    rig.script([
        expect(publish(QOS1, "t", 3, "outer")),
        expect(publish(QOS1, "t", 4, "inner")),
        send([ack(PUBACK, 3), ack(PUBACK, 4)].concat()),
    ]);
    rig.later(100, |rig| assert_eq!(rig.publish(1, "t", "inner"), DONE));
    assert_eq!(rig.time(|| rig.publish(1, "t", "outer")), (DONE, 100));
    // A large QoS 0 message is not cut into, and both go out.
    let large = publish(0, "t", 0, [3; 1000]);
    rig.script([
        expect(&large[..500]),
        Step::Pause(200),
        expect(&large[500..]),
        expect(publish(0, "t", 0, [4; 1000])),
    ]);
    rig.later(100, |rig| assert_eq!(rig.publish(0, "t", [4; 1000]), DONE));
    assert_eq!(rig.publish(0, "t", [3; 1000]), DONE);
}

#[test]
fn ctrl_c_leaves_the_message_in_flight() {
    let rig = connected(Setup::default());
    rig.script([expect(publish(QOS1, "t", 1, "x"))]);
    rig.later(100, |rig| rig.interrupt.set(true));
    assert_eq!(rig.publish(1, "t", "x"), Err(Error::Interrupted));
    rig.script([Step::Close, expect(CONNECT), send(PRESENT)]);
    rig.script([
        expect(publish(QOS1 | DUP, "t", 1, "x")),
        send(ack(PUBACK, 1)),
    ]);
    assert_eq!(rig.connect(), Ok(()));
    assert_eq!(rig.receive(false), Ok(Got::Nothing));
}

/// The server sends what makes no sense while a call waits.
#[test]
fn a_fault_while_a_call_waits() {
    let rig = connected(Setup::default());
    rig.script([
        expect(publish(QOS1, "t", 1, "x")),
        send(CONNACK),
        Step::Close,
    ]);
    let unexpected = Fault::Unexpected(Kind::Connack);
    assert_eq!(rig.publish(1, "t", "x"), fault(unexpected));
    assert_eq!(rig.status(), Status::Idle);
    assert_eq!(rig.publish(1, "t", "x"), Err(Error::NotConnected));
}
