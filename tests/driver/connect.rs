//! From `connect` to CONNACK, and the ways out.

use umqtt::{
    calls::{self, Error, Reply},
    client::{Fault, Status},
    packet::{Kind, Malformed, QoS, Version},
};

use crate::{bytes::*, world::*};

#[test]
fn connects_with_3_1_1() {
    let rig = rig(Setup::default());
    assert_eq!(rig.status(), Status::Idle);
    rig.script([expect(CONNECT), Step::Pause(100), send(CONNACK)]);
    rig.later(50, |rig| assert_eq!(rig.status(), Status::Connecting));
    assert_eq!(rig.connect(), Ok(()));
    assert_eq!(rig.status(), Status::Connected);
    assert_eq!(rig.net().log, ["broker.example IPv4", "192.0.2.7:1883"]);
    assert_eq!(rig.net().writes, 1);
    rig.script([expect(DISCONNECT), Step::Close]);
    calls::disconnect(&rig);
    assert_eq!(rig.status(), Status::Idle);
}

#[test]
fn connects_with_3_1_and_everything() {
    let mut will = message(2, "w/t", "bye");
    will.retain = true;
    let rig = rig(Setup {
        version: Version::V31,
        ipv6: true,
        keepalive: 0x1234,
        login: Some(("me", "pw")),
        will: Some(will),
        ..Setup::default()
    });
    let fields = b"\x00\x06MQIsdp\x03\xF6\x12\x34\
        \x00\x01c\x00\x03w/t\x00\x03bye\x00\x02me\x00\x02pw";
    // In 3.1 the first byte is reserved, whatever it is.
    rig.script([expect(packet(0x10, fields)), send([0x20, 2, 0xFF, 0])]);
    assert!(calls::connect(&rig, true).is_ok());
    assert_eq!(rig.net().log[0], "broker.example IPv6");
}

/// CONNECT is longer than the buffer, and the socket takes so many bytes at a time.
#[test]
fn connect_in_pieces() {
    for sizes in [vec![], vec![1], vec![0, 1], vec![3, 0, 5], vec![16]] {
        let rig = rig(Setup {
            tx: 16,
            login: Some(("a user with a long name", "a password that is long")),
            ..Setup::default()
        });
        let mut body = b"\x00\x04MQTT\x04\xC0\x00\x3C\x00\x01c".to_vec();
        body.extend(
            [
                field("a user with a long name"),
                field("a password that is long"),
            ]
            .concat(),
        );
        rig.net().write_limits = sizes.into();
        rig.script([expect(packet(0x10, &body)), send(CONNACK)]);
        assert_eq!(rig.connect(), Ok(()));
    }
}

#[test]
fn clean_session_is_asked_for() {
    let rig = rig(Setup::default());
    let mut connect = CONNECT.to_vec();
    connect[9] = 2;
    rig.script([expect(connect), send(CONNACK)]);
    assert!(calls::connect(&rig, true).is_ok());
}

#[test]
fn refused_by_the_broker() {
    for code in 1..=5 {
        let rig = rig(Setup::default());
        rig.script([expect(CONNECT), send([0x20, 2, 0, code]), Step::Close]);
        assert_eq!(rig.connect(), fault(Fault::Refused(code)));
        assert_eq!(rig.status(), Status::Idle);
        assert_eq!(rig.publish(0, "t", "x"), Err(Error::NotConnected));
    }
}

#[test]
fn anything_but_connack_first() {
    let cases = [
        (publish(0, "t", 0, "x"), Kind::Publish),
        (ack(PUBACK, 1), Kind::Puback),
        (ack(PUBREC, 1), Kind::Pubrec),
        (ack(PUBREL, 1), Kind::Pubrel),
        (ack(PUBCOMP, 1), Kind::Pubcomp),
        (suback(1, 0), Kind::Suback),
        (ack(UNSUBACK, 1), Kind::Unsuback),
        (PINGRESP.to_vec(), Kind::Pingresp),
        (DISCONNECT.to_vec(), Kind::Disconnect),
        (CONNECT.to_vec(), Kind::Connect),
    ];
    for (first, kind) in cases {
        let rig = rig(Setup::default());
        rig.script([
            expect(CONNECT),
            flood([first, CONNACK.into()].concat()),
            Step::Close,
        ]);
        let outcome = rig.connect();
        assert_eq!(outcome, fault(Fault::Unexpected(kind)));
    }
}

#[test]
fn malformed_connack() {
    let cases: [(&[u8], Malformed); 5] = [
        (&[0x20, 2, 2, 0], Malformed::SessionPresent),
        (&[0x20, 2, 1, 5], Malformed::SessionPresent),
        (&[0x20, 2, 0, 6], Malformed::ReturnCode),
        (&[0x20, 3], Malformed::RemainingLength),
        (&[0x21], Malformed::Flags),
    ];
    for (connack, malformed) in cases {
        let rig = rig(Setup::default());
        rig.script([expect(CONNECT), send(connack), Step::Close]);
        assert_eq!(rig.connect(), fault(Fault::Malformed(malformed)));
    }
}

#[test]
fn connack_twice() {
    let rig = rig(Setup::default());
    rig.script([
        expect(CONNECT),
        send([CONNACK, CONNACK].concat()),
        Step::Close,
    ]);
    let outcome = rig.connect().and_then(|()| rig.receive(true).map(drop));
    assert_eq!(outcome, fault(Fault::Unexpected(Kind::Connack)));
    assert_eq!(rig.status(), Status::Idle);
}

#[test]
fn lost_before_connack() {
    let cases = [
        (Step::Fin, Fault::Closed),
        (Step::Reset, Fault::Io(NetError::Reset)),
    ];
    for (end, expected) in cases {
        for part in 0..4 {
            let rig = rig(Setup::default());
            rig.script([expect(CONNECT), send(&CONNACK[..part]), end.clone()]);
            assert_eq!(rig.connect(), fault(expected));
            assert_eq!(rig.status(), Status::Idle);
        }
    }
}

/// 20 seconds are for the resolver, TCP and CONNACK together.
#[test]
fn silence() {
    let timed = |name, tcp, greets: bool| {
        let rig = rig(Setup::default());
        rig.net().name = name;
        rig.net().tcp = tcp;
        if greets {
            rig.script([expect(CONNECT)]);
        }
        let has_socket = matches!(name, Attempt::After(_));
        rig.script([Step::Close].map(|close| if has_socket { close } else { send([]) }));
        let outcome = rig.time(|| rig.connect());
        assert_eq!(rig.status(), Status::Idle);
        outcome
    };
    let (soon, later) = (Attempt::After(0), Attempt::After(9_000));
    let silent = (fault(Fault::Silent), 20_000);
    let unreachable = (fault(Fault::Unreachable), 20_000);
    assert_eq!(timed(soon, soon, true), silent);
    assert_eq!(timed(later, later, true), silent);
    assert_eq!(timed(soon, Attempt::Never, false), unreachable);
    assert_eq!(timed(later, Attempt::After(11_001), false), unreachable);
    assert_eq!(timed(Attempt::Never, soon, false), unreachable);
}

#[test]
fn a_late_connack_is_in_time() {
    let rig = rig(Setup::default());
    rig.net().tcp = Attempt::After(10_000);
    rig.script([expect(CONNECT), Step::Pause(9_999), send(CONNACK)]);
    assert_eq!(rig.time(|| rig.connect()), (Ok(()), 19_999));
}

#[test]
fn no_name_no_tcp() {
    let rig = rig(Setup::default());
    rig.net().name = Attempt::Fails;
    assert_eq!(rig.connect(), fault(Fault::Dns(NetError::NoSuchName)));
    rig.net().name = Attempt::After(0);
    rig.net().tcp = Attempt::Fails;
    rig.script([Step::Close]);
    assert_eq!(rig.connect(), fault(Fault::Dial(NetError::Refused)));
    assert_eq!(rig.status(), Status::Idle);
    rig.net().tcp = Attempt::After(0);
    rig.script([expect(CONNECT), send(CONNACK)]);
    assert_eq!(rig.connect(), Ok(()));
}

/// Each call to the network fails in turn: the socket is closed, and the next `connect` works.
#[test]
fn failure_at_every_call() {
    let mut k = 0;
    loop {
        let rig = rig(Setup::default());
        rig.net().name = Attempt::After(30);
        rig.fail_call(k);
        rig.net().write_limits = vec![5].into();
        rig.net().read_limits = vec![1, 0].into();
        rig.script([expect(CONNECT), send(CONNACK)]);
        let outcome = rig.connect();
        if !rig.net().failed {
            assert_eq!(outcome, Ok(()));
            break;
        }
        let failed = match k {
            0..4 => Fault::Dns(NetError::Injected),
            4..6 => Fault::Dial(NetError::Injected),
            _ => Fault::Io(NetError::Injected),
        };
        assert_eq!(outcome, fault(failed), "call {k}");
        assert_eq!(rig.status(), Status::Idle);
        rig.forget_script();
        rig.script([expect(CONNECT), send(CONNACK)]);
        assert_eq!(rig.connect(), Ok(()));
        k += 1;
    }
    assert!(k > 10, "only {k} calls");
}

#[test]
fn connect_while_connected_closes_first() {
    let rig = connected(Setup::default());
    rig.script([Step::Close, expect(CONNECT), send(CONNACK)]);
    assert_eq!(rig.connect(), Ok(()));
}

/// While `connect` waits for the resolver, for TCP and for CONNACK.
#[test]
fn another_thread_ends_it() {
    let ends: [fn(&Rig); 2] = [calls::close, calls::disconnect];
    for end in ends {
        for at in [50, 150, 250] {
            let rig = rig(Setup::default());
            rig.net().name = Attempt::After(100);
            rig.net().tcp = Attempt::After(100);
            match at {
                50 => {}
                150 => rig.script([Step::Close]),
                _ => rig.script([expect(CONNECT), Step::Close]),
            }
            rig.later(at, end);
            assert_eq!(rig.time(|| rig.connect()), (Err(Error::NotConnected), at));
            assert_eq!(rig.status(), Status::Idle);
        }
    }
}

/// The one that began later wins.
#[test]
fn another_thread_connects_too() {
    let rig = rig(Setup::default());
    rig.script([expect(CONNECT), Step::Close, expect(CONNECT), send(CONNACK)]);
    rig.later(100, |rig| assert_eq!(rig.connect(), Ok(())));
    assert_eq!(rig.connect(), Err(Error::NotConnected));
    assert_eq!(rig.status(), Status::Connected);
}

#[test]
fn ctrl_c() {
    for at in [50, 150, 250] {
        let rig = rig(Setup::default());
        rig.net().name = Attempt::After(100);
        rig.net().tcp = Attempt::After(100);
        match at {
            50 => {}
            150 => rig.script([Step::Close]),
            _ => rig.script([expect(CONNECT), Step::Close]),
        }
        rig.later(at, |rig| rig.interrupt.set(true));
        assert_eq!(rig.connect(), Err(Error::Interrupted));
        assert_eq!(rig.status(), Status::Idle);
    }
}

#[test]
fn not_connected() {
    let rig = rig(Setup::default());
    for _ in 0..2 {
        assert_eq!(rig.publish(0, "t", "x"), Err(Error::NotConnected));
        assert_eq!(rig.publish(1, "t", "x"), Err(Error::NotConnected));
        assert_eq!(rig.subscribe("t", 0), Err(Error::NotConnected));
        assert_eq!(rig.unsubscribe("t"), Err(Error::NotConnected));
        assert_eq!(rig.receive(true), Err(Error::NotConnected));
        assert_eq!(rig.receive(false), Err(Error::NotConnected));
        assert_eq!(calls::ping(&rig), Err(Error::NotConnected));
        calls::close(&rig);
        calls::disconnect(&rig);
        calls::disconnect(&rig);
    }
    // Nothing of that is in flight.
    rig.script([expect(CONNECT), send(CONNACK)]);
    assert_eq!(rig.connect(), Ok(()));
}

/// What other threads' calls come to when the client is closed or disconnected while they wait.
#[test]
fn ended_while_calls_wait() {
    type End = fn(&Rig);
    let ways: [(End, bool); 2] = [
        (|rig| calls::close(rig), false),
        (|rig| calls::disconnect(rig), true),
    ];
    for (end, disconnects) in ways {
        let waiting = |first: Vec<u8>| {
            let rig = connected(Setup {
                reconnect: false,
                ..Setup::default()
            });
            let last = if disconnects { DISCONNECT } else { &[] };
            rig.script([expect(first), expect(last), Step::Close]);
            rig.later(500, end);
            rig
        };
        let rig = waiting(vec![]);
        let expected = if disconnects {
            Ok(Reply::Nothing)
        } else {
            Err(Error::NotConnected)
        };
        assert_eq!(
            rig.time(|| calls::receive(&rig, true, &mut 0)),
            (expected, 500)
        );
        let rig = waiting(publish(QOS1, "t", 1, "x"));
        let outcome = rig.time(|| rig.publish(1, "t", "x"));
        assert_eq!(outcome, (Err(Error::NotConnected), 500));
        let rig = waiting(subscribe(1, "t", 0));
        let outcome = rig.time(|| rig.subscribe("t", 0));
        assert_eq!(outcome, (Err(Error::NotConnected), 500));
        let rig = waiting(unsubscribe(1, "t"));
        let outcome = rig.time(|| rig.unsubscribe("t"));
        assert_eq!(outcome, (Err(Error::NotConnected), 500));
    }
}

/// `disconnect` does not wait for a socket that takes nothing, and does not cut into a packet.
#[test]
fn disconnect_in_the_middle_of_a_packet() {
    let rig = connected(Setup::default());
    rig.script([expect(&publish(0, "t", 0, "half")[..3]), Step::Pause(200)]);
    rig.later(100, |rig| {
        rig.forget_script();
        rig.script([Step::Close]);
        rig.net().blocked = true;
        calls::disconnect(rig);
    });
    assert_eq!(rig.publish(0, "t", "half"), Err(Error::NotConnected));
    assert_eq!(rig.elapsed(), 100);
}

#[test]
fn disconnect_lets_everything_go() {
    let rig = connected(Setup::default());
    let mine = message(1, "t", "x");
    rig.script([expect(publish(QOS1, "t", 1, "x"))]);
    assert_eq!(
        calls::publish(&rig, &mine, false, true),
        Ok(calls::Reply::Done)
    );
    let filter = text("f");
    rig.script([expect(subscribe(2, "f", 1)), send(suback(2, 1))]);
    assert_eq!(
        calls::subscribe(&rig, &filter, QoS::AtLeastOnce),
        Ok(Reply::Done)
    );
    rig.script([expect(DISCONNECT), Step::Close]);
    calls::disconnect(&rig);
    assert_eq!(std::rc::Rc::strong_count(&mine.payload), 1);
    assert_eq!(std::rc::Rc::strong_count(&filter), 1);
    // And nothing is sent again.
    rig.script([expect(CONNECT), send(CONNACK)]);
    assert_eq!(rig.connect(), Ok(()));
    assert_eq!(rig.receive(false), Ok(Got::Nothing));
}

/// Another call reads what this one waits for, or nothing, and the end, and connects anew. Without reconnection.
#[test]
fn connected_anew_by_another_call() {
    for acknowledged in [true, false] {
        let rig = rig(Setup::default());
        rig.script([expect(CONNECT), send(CONNACK)]);
        assert_eq!(rig.connect(), Ok(()));
        rig.script([expect(publish(QOS1, "t", 1, "x"))]);
        rig.later(100, move |rig| {
            if acknowledged {
                rig.script([send(ack(PUBACK, 1))]);
            }
            rig.script([Step::Fin]);
            let _ = (rig.receive(false), rig.receive(false));
            assert_ne!(rig.status(), Status::Connected);
            rig.script([expect(CONNECT), send(CONNACK)]);
            if !acknowledged {
                rig.script([expect(publish(QOS1 | DUP, "t", 1, "x"))]);
            }
            assert_eq!(rig.connect(), Ok(()));
        });
        let expected = match acknowledged {
            true => Ok(Reply::Done),
            false => Err(Error::NotConnected),
        };
        assert_eq!(rig.publish(1, "t", "x"), expected);
    }
}

/// What another call has read, together with CONNACK, does not keep `connect` from seeing it.
#[test]
fn connack_and_the_end_read_by_another_call() {
    for reconnect in [false, true] {
        let rig = rig(Setup {
            reconnect,
            ..Setup::default()
        });
        rig.script([expect(CONNECT)]);
        rig.later(100, |rig| {
            rig.script([send(CONNACK), Step::Fin]);
            // CONNACK, and what follows it.
            let _ = (rig.receive(false), rig.receive(false));
            assert_ne!(rig.status(), Status::Connected);
        });
        assert_eq!(rig.time(|| rig.connect()), (Ok(()), 100));
    }
}

/// `disconnect` and `connect` by another thread are not taken for an answer.
#[test]
fn another_session_begins_while_a_request_waits() {
    let again = |rig: &Rig| {
        rig.script([
            expect(DISCONNECT),
            Step::Close,
            expect(CONNECT),
            send(CONNACK),
        ]);
        calls::disconnect(rig);
        assert_eq!(rig.connect(), Ok(()));
    };
    let rig = connected(Setup::default());
    rig.script([expect(subscribe(1, "t", 0))]);
    rig.later(500, again);
    assert_eq!(rig.subscribe("t", 0), Err(Error::NotConnected));
    rig.script([expect(unsubscribe(2, "t"))]);
    rig.later(500, again);
    assert_eq!(rig.unsubscribe("t"), Err(Error::NotConnected));
}

/// What was not taken is not said to be in flight.
#[test]
fn closed_while_waiting_for_room() {
    let rig = connected(Setup {
        reconnect: true,
        ..Setup::default()
    });
    for id in 1..=16 {
        rig.script([expect(publish(QOS1, "t", id, "x"))]);
        assert_eq!(rig.post(1, "t", "x"), Ok(Reply::Done));
    }
    rig.script([Step::Close]);
    rig.later(500, calls::close);
    assert_eq!(rig.publish(1, "t", "one more"), Ok(Reply::NoRoom));
}

/// `close` finds nothing to close, and leaves it at that.
#[test]
fn disconnected_and_closed_while_a_call_waits() {
    let rig = connected(Setup::default());
    rig.script([expect(DISCONNECT), Step::Close]);
    rig.later(500, |rig| {
        calls::disconnect(rig);
        calls::close(rig);
    });
    assert_eq!(rig.receive(true), Ok(Got::Nothing));
}

/// The link fails, and the error callback disconnects, before the call wakes up: what is let go is
/// not acknowledged.
#[test]
fn disconnected_after_a_failure_while_publish_waits() {
    let rig = connected(Setup::default());
    rig.script([expect(publish(QOS1, "t", 1, "x")), Step::Pause(100)]);
    rig.later(50, |rig| {
        rig.forget_script();
        rig.script([Step::Reset]);
        assert_eq!(rig.receive(false), fault(Fault::Io(NetError::Reset)));
        calls::disconnect(rig);
    });
    let outcome = rig.publish(1, "t", "x");
    assert!(outcome.is_err(), "{outcome:?}");
}

#[test]
fn connected_anew_after_a_failure_while_subscribe_waits() {
    let rig = connected(Setup::default());
    rig.script([expect(subscribe(1, "t", 0)), Step::Pause(100)]);
    rig.later(50, |rig| {
        rig.forget_script();
        rig.script([Step::Reset]);
        assert_eq!(rig.receive(false), fault(Fault::Io(NetError::Reset)));
        calls::disconnect(rig);
        rig.script([expect(CONNECT), send(CONNACK)]);
        assert_eq!(rig.connect(), Ok(()));
    });
    let outcome = rig.subscribe("t", 0);
    assert!(outcome.is_err(), "{outcome:?}");
}

/// SUBACK says no, and the server closes; another call reads both.
#[test]
fn refused_and_closed() {
    let rig = connected(Setup {
        reconnect: true,
        ..Setup::default()
    });
    rig.script([expect(subscribe(1, "t", 0)), Step::Pause(100)]);
    rig.later(50, |rig| {
        rig.forget_script();
        rig.script([send(suback(1, 0x80)), Step::Fin]);
        assert_eq!(rig.receive(false), Ok(Got::Nothing));
        assert_eq!(rig.receive(false), Ok(Got::Nothing));
        assert_eq!(rig.status(), Status::Connecting);
    });
    assert_eq!(rig.subscribe("t", 0), Err(Error::SubscriptionRefused));
    calls::disconnect(&rig);
}

/// Another thread closes between an attempt's last look at the client and its wait.
#[test]
fn closed_just_before_the_wait() {
    for looks in 1..5 {
        let rig = rig(Setup::default());
        rig.net().tcp = Attempt::Never;
        rig.script([Step::Close]);
        rig.after(looks, calls::close);
        let (outcome, ms) = rig.time(|| rig.connect());
        assert_eq!(outcome, Err(Error::NotConnected), "after {looks} looks");
        assert!(ms < 50, "after {looks} looks: {ms} ms");
        rig.forget_script(); // maybe there was no socket yet
    }
}
