//! Subscriptions: asked for once, remembered, and asked for again when the broker has forgotten.

use umqtt::{
    calls::{self, Error, Reply},
    client::{Fault, Status},
    packet::Malformed,
};

use crate::{bytes::*, world::*};

fn subscribed(rig: &Rig, id: u16, filter: &str, qos: u8) {
    rig.script([expect(subscribe(id, filter, qos)), send(suback(id, qos))]);
    assert_eq!(rig.subscribe(filter, qos), Ok(()));
}

/// The broker has forgotten the session, and is asked for these, under the same identifiers.
fn asked_again(rig: &Rig, filters: &[(u16, &str, u8)]) {
    rig.script([Step::Reset]);
    assert_eq!(rig.receive(true), fault(Fault::Io(NetError::Reset)));
    rig.script([expect(CONNECT), send(CONNACK)]);
    for &(id, filter, qos) in filters {
        rig.script([expect(subscribe(id, filter, qos))]);
    }
    for &(id, _, qos) in filters {
        rig.script([send(suback(id, qos))]);
    }
    assert_eq!(rig.connect(), Ok(()));
    assert_eq!(rig.receive(false), Ok(Got::Nothing));
    assert!(rig.is_over());
}

#[test]
fn subscribes() {
    let rig = connected(Setup::default());
    for (id, qos) in [(1, 0), (2, 1), (3, 2)] {
        subscribed(&rig, id, "a/+/#", qos);
    }
    // The broker may grant less.
    rig.script([expect(subscribe(4, "b", 2)), send(suback(4, 0))]);
    assert_eq!(rig.subscribe("b", 2), Ok(()));
}

/// Messages that come between are kept for `receive`.
#[test]
fn messages_before_the_suback() {
    let rig = connected(Setup::default());
    rig.script([
        expect(subscribe(1, "t", 1)),
        send(publish(QOS1, "t", 5, "retained")),
        send(publish(0, "t", 0, "next")),
        send(suback(1, 1)),
        expect(ack(PUBACK, 5)),
    ]);
    assert_eq!(rig.subscribe("t", 1), Ok(()));
    assert_eq!(rig.receive(false), got("t", "retained"));
    assert_eq!(rig.receive(false), got("t", "next"));
}

#[test]
fn refused() {
    let rig = connected(Setup::default());
    subscribed(&rig, 1, "yes", 1);
    rig.script([expect(subscribe(2, "no", 1)), send(suback(2, 0x80))]);
    assert_eq!(rig.subscribe("no", 1), Err(Error::SubscriptionRefused));
    asked_again(&rig, &[(1, "yes", 1)]);
    // Asked for once more by the script, it may be granted.
    subscribed(&rig, 3, "no", 2);
    asked_again(&rig, &[(1, "yes", 1), (3, "no", 2)]);
    // Refused after a reconnection, it is not asked for any more.
    rig.script([Step::Reset]);
    assert_eq!(rig.receive(true), fault(Fault::Io(NetError::Reset)));
    rig.script([
        expect(CONNECT),
        send(CONNACK),
        expect([subscribe(1, "yes", 1), subscribe(3, "no", 2)].concat()),
        send([suback(1, 0x80), suback(3, 2)].concat()),
    ]);
    assert_eq!(rig.connect(), Ok(()));
    assert_eq!(rig.receive(false), Ok(Got::Nothing));
    asked_again(&rig, &[(3, "no", 2)]);
}

#[test]
fn no_answer() {
    let rig = connected(Setup::default());
    rig.script([expect(subscribe(1, "a", 1))]);
    let outcome = rig.time(|| rig.subscribe("a", 1));
    assert_eq!(outcome, (Err(Error::TimedOut), 5_000));
    rig.script([expect(unsubscribe(2, "b"))]);
    let outcome = rig.time(|| rig.unsubscribe("b"));
    assert_eq!(outcome, (Err(Error::TimedOut), 5_000));
    // The subscription is asked for again; an end of one needs no asking without a session.
    asked_again(&rig, &[(1, "a", 1)]);
    // With the session, what was not answered is asked again, and nothing else.
    rig.script([expect(subscribe(3, "c", 0))]);
    assert_eq!(rig.subscribe("c", 0), Err(Error::TimedOut));
    rig.script([expect(unsubscribe(4, "a"))]);
    assert_eq!(rig.unsubscribe("a"), Err(Error::TimedOut));
    rig.script([Step::Reset]);
    assert_eq!(rig.receive(true), fault(Fault::Io(NetError::Reset)));
    rig.script([
        expect(CONNECT),
        send(PRESENT),
        expect([subscribe(3, "c", 0), unsubscribe(4, "a")].concat()),
        send([suback(3, 0), ack(UNSUBACK, 4)].concat()),
    ]);
    assert_eq!(rig.connect(), Ok(()));
    assert_eq!(rig.receive(false), Ok(Got::Nothing));
    asked_again(&rig, &[(3, "c", 0)]);
}

#[test]
fn remembered_with_the_last_qos() {
    let rig = connected(Setup::default());
    subscribed(&rig, 1, "a", 0);
    subscribed(&rig, 2, "b", 1);
    subscribed(&rig, 3, "a", 2);
    asked_again(&rig, &[(2, "b", 1), (3, "a", 2)]);
    // A broker with the session is not asked.
    rig.reconnect(PRESENT);
    assert_eq!(rig.receive(false), Ok(Got::Nothing));
    rig.script([expect(unsubscribe(4, "b")), send(ack(UNSUBACK, 4))]);
    assert_eq!(rig.unsubscribe("b"), Ok(()));
    asked_again(&rig, &[(3, "a", 2)]);
    rig.script([expect(DISCONNECT), Step::Close]);
    calls::disconnect(&rig);
    rig.script([expect(CONNECT), send(CONNACK)]);
    assert_eq!(rig.connect(), Ok(()));
    assert_eq!(rig.receive(false), Ok(Got::Nothing));
}

/// `close` keeps the subscriptions.
#[test]
fn close_keeps_them() {
    let rig = connected(Setup::default());
    subscribed(&rig, 1, "a", 1);
    rig.script([Step::Close]);
    calls::close(&rig);
    rig.script([
        expect(CONNECT),
        send(CONNACK),
        expect(subscribe(1, "a", 1)),
        send(suback(1, 1)),
    ]);
    assert_eq!(rig.connect(), Ok(()));
    assert_eq!(rig.receive(false), Ok(Got::Nothing));
}

#[test]
fn a_link_that_breaks() {
    for unsubscribes in [false, true] {
        let rig = connected(Setup::default());
        let request = |rig: &Rig| match unsubscribes {
            true => rig.unsubscribe("a"),
            false => rig.subscribe("a", 1),
        };
        let bytes = |id| match unsubscribes {
            true => unsubscribe(id, "a"),
            false => subscribe(id, "a", 1),
        };
        let answer = |id| match unsubscribes {
            true => ack(UNSUBACK, id),
            false => suback(id, 1),
        };
        rig.script([expect(bytes(1)), Step::Fin]);
        assert_eq!(request(&rig), fault(Fault::Closed));
        assert_eq!(rig.status(), Status::ServerClosed);
        rig.script([
            expect(CONNECT),
            send(PRESENT),
            expect(bytes(1)),
            send(answer(1)),
        ]);
        assert_eq!(rig.connect(), Ok(()));
        assert_eq!(rig.receive(false), Ok(Got::Nothing));
        rig.script([Step::Close]);
        calls::close(&rig);
    }
}

#[test]
fn no_memory() {
    let rig = connected(Setup::default());
    rig.room.entries.set(config::IN_FLIGHT + 1);
    // A refused one takes no memory.
    rig.script([expect(subscribe(1, "no", 0)), send(suback(1, 0x80))]);
    assert_eq!(rig.subscribe("no", 0), Err(Error::SubscriptionRefused));
    subscribed(&rig, 2, "a", 1);
    assert_eq!(rig.subscribe("b", 1), Err(Error::NoMemory));
    assert_eq!(rig.unsubscribe("b"), Err(Error::NoMemory));
    subscribed(&rig, 3, "a", 2);
    rig.script([expect(unsubscribe(4, "a")), send(ack(UNSUBACK, 4))]);
    assert_eq!(rig.unsubscribe("a"), Ok(()));
    subscribed(&rig, 5, "b", 1);
    // The messages have theirs, whatever the subscriptions take.
    for id in 6..6 + config::IN_FLIGHT as u16 {
        rig.script([expect(publish(QOS1, "t", id, "x"))]);
        assert_eq!(rig.post(1, "t", "x"), Ok(Reply::Done));
    }
    assert_eq!(rig.post(1, "t", "x"), Ok(Reply::NoRoom));
}

/// Several threads subscribe at a time, to the same filter and to others.
#[test]
fn several_at_a_time() {
    let rig = connected(Setup::default());
    rig.script([
        expect(subscribe(1, "a", 0)),
        expect(subscribe(2, "b", 1)),
        expect(subscribe(3, "a", 2)),
        send([suback(3, 2), suback(2, 0x80), suback(1, 0)].concat()),
    ]);
    rig.later(100, |rig| {
        rig.later(100, |rig| assert_eq!(rig.subscribe("a", 2), Ok(())));
        assert_eq!(rig.subscribe("b", 1), Err(Error::SubscriptionRefused));
    });
    assert_eq!(rig.time(|| rig.subscribe("a", 0)), (Ok(()), 200));
    asked_again(&rig, &[(3, "a", 2)]);
}

/// The filter is longer than the buffer.
#[test]
fn a_long_filter() {
    for limit in [1, 7, 1000] {
        let rig = connected(Setup {
            tx: 16,
            ..Setup::default()
        });
        rig.net().write_limits = vec![limit, 0].into();
        let filter = "long/".repeat(100);
        subscribed(&rig, 1, &filter, 1);
        rig.script([expect(unsubscribe(2, &filter)), send(ack(UNSUBACK, 2))]);
        assert_eq!(rig.unsubscribe(&filter), Ok(()));
    }
}

#[test]
fn a_bad_suback() {
    let cases = [
        (vec![0x90, 3, 0, 1, 3], Malformed::ReturnCode),
        (vec![0x90, 4, 0, 1, 0, 0], Malformed::RemainingLength),
        (vec![0x90, 2, 0, 1], Malformed::RemainingLength),
    ];
    for (bytes, malformed) in cases {
        let rig = connected(Setup::default());
        rig.script([expect(subscribe(1, "a", 1)), send(bytes), Step::Close]);
        assert_eq!(rig.subscribe("a", 1), fault(Fault::Malformed(malformed)));
    }
}
