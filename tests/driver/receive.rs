//! Receiving: any cut of the stream, any size, and each message exactly as often as its QoS says.

use umqtt::{
    calls::{self, Error, Reply},
    client::{Fault, Status},
    packet::{Kind, Malformed, Version},
};

use crate::{bytes::*, world::*};

const NOTHING: Outcome<Got> = Ok(Got::Nothing);

/// A stream of everything that a server sends, what the script gets of it, and what is sent back.
fn everything() -> (Vec<u8>, Vec<Got>, Vec<u8>) {
    let long_topic = "long/".repeat(60);
    let messages = [
        (0, 0, "a", vec![]),
        (QOS1, 0x0102, "b", b"one".to_vec()),
        (QOS2, 0x0304, "c", vec![0; 200]),
        (RETAIN, 0, &long_topic, vec![1; 20]),
        (QOS1 | DUP, 7, &long_topic, vec![]),
        (
            QOS2 | RETAIN,
            8,
            "d",
            (0..=255).cycle().take(1000).collect(),
        ),
        (0, 0, "\u{1F980}", b"the end".to_vec()),
    ];
    let mut stream = [PINGRESP, &ack(PUBACK, 9), &suback(1, 0x80)].concat();
    let (mut gets, mut acks) = (Vec::new(), Vec::new());
    for (flags, id, topic, payload) in messages {
        stream.extend(publish(flags, topic, id, &payload));
        gets.push(Got::Message(topic.into(), payload));
        match flags & 6 {
            0 => {}
            QOS1 => acks.extend(ack(PUBACK, id)),
            _ => {
                acks.extend(ack(PUBREC, id));
                acks.extend(ack(PUBCOMP, id));
                stream.extend(ack(PUBREL, id));
            }
        }
        stream.extend(PINGRESP);
    }
    (stream, gets, acks)
}

fn receives_everything(rx: usize, wait: bool, limits: Vec<usize>) {
    let rig = connected(Setup {
        rx,
        ..Setup::default()
    });
    let (stream, gets, acks) = everything();
    let count = acks.len();
    let before = rig.net().sent.len();
    rig.script([flood(stream), expect(acks)]);
    rig.net().read_limits = limits.clone().into();
    let mut calls = 0;
    for expected in gets {
        loop {
            calls += 1;
            assert!(calls < 20_000, "{rx} {limits:?}: too little progress");
            match rig.receive(wait) {
                Ok(Got::Nothing) if !wait => {}
                other => break assert_eq!(other, Ok(expected), "{rx} {limits:?}"),
            }
        }
    }
    while !rig.is_over() {
        assert_eq!(rig.receive(false), NOTHING);
    }
    assert_eq!(rig.receive(false), NOTHING);
    assert_eq!(rig.net().sent.len() - before, count);
}

#[test]
fn chunks_of_every_size() {
    let (stream, ..) = everything();
    for size in (1..300).chain([stream.len() - 1, stream.len()]) {
        receives_everything(256, size % 2 == 0, vec![size]);
    }
    for rx in [16, 17, 100, 4096] {
        for size in [1, 2, 3, 15, 16, 17, 1000] {
            receives_everything(rx, true, vec![size]);
            receives_everything(rx, false, vec![size, 0]);
        }
    }
}

#[test]
fn cut_at_every_byte() {
    let (stream, ..) = everything();
    for cut in 1..stream.len() {
        receives_everything(64, cut % 2 == 0, vec![cut, 0, stream.len()]);
    }
}

/// The connection ends after every byte: what was whole has been delivered, nothing else, and
/// after a reconnection the rest comes.
#[test]
fn torn_at_every_byte() {
    let large = [8; 300];
    let packets = [
        publish(QOS1, "a", 1, "one"),
        publish(QOS2, "b", 2, large),
        publish(0, "c", 0, "zero"),
        publish(QOS2, "d", 3, "two"),
    ];
    let gets = [
        got("a", "one"),
        got("b", large),
        got("c", "zero"),
        got("d", "two"),
    ];
    let stream = packets.concat();
    for end in [Step::Fin, Step::Reset] {
        for cut in 0..=stream.len() {
            let rig = connected(Setup::default());
            let ends = packets.iter().scan(0, |sum, packet| {
                *sum += packet.len();
                Some(*sum)
            });
            let whole = ends.filter(|end| *end <= cut).count();
            let acks = [ack(PUBACK, 1), ack(PUBREC, 2), vec![], ack(PUBREC, 3)];
            rig.script([flood(&stream[..cut]), expect(acks[..whole].concat())]);
            rig.script([end.clone()]);
            // All that a read brings is there before the end is seen.
            rig.net().read_limits = vec![1].into();
            for expected in &gets[..whole] {
                assert_eq!(&rig.receive(true), expected, "cut at {cut}");
            }
            let outcome = rig.receive(true);
            assert!(
                matches!(outcome, Err(Error::Fault(_))),
                "{cut}: {outcome:?}"
            );
            assert_eq!(rig.client().inbox.len(), 0);
            rig.script([
                expect(CONNECT),
                send(PRESENT),
                flood(publish(0, "new", 0, "link")),
            ]);
            assert_eq!(rig.connect(), Ok(()));
            assert_eq!(rig.receive(true), got("new", "link"));
        }
    }
}

#[test]
fn larger_than_the_buffer() {
    for size in [15, 16, 17, 1000, 100_000] {
        let rig = connected(Setup {
            rx: 16,
            ..Setup::default()
        });
        let payload: Vec<u8> = (0..=255).cycle().take(size).collect();
        let topic = "t".repeat(size.min(65_535));
        rig.script([
            send(publish(QOS1, &topic, 1, &payload)),
            expect(ack(PUBACK, 1)),
            send(publish(0, "after", 0, "it")),
        ]);
        assert_eq!(rig.receive(true), got(&topic, &payload));
        assert_eq!(rig.receive(true), got("after", "it"));
    }
}

/// Flow control is TCP's: no more than the buffer is read ahead of the script.
#[test]
fn reads_no_more_than_the_buffer() {
    let rig = connected(Setup::default());
    rig.script([flood(publish(0, "t", 0, [1; 200]).repeat(20))]);
    rig.script([expect(PINGREQ.repeat(3))]);
    let connack = rig.net().read.len();
    for _ in 0..3 {
        assert_eq!(calls::ping(&rig), Ok(Reply::Done));
    }
    assert!(rig.net().read.len() - connack <= 256);
    for n in 1..=20 {
        assert_eq!(rig.receive(false), got("t", [1; 200]));
        assert!(rig.net().read.len() - connack <= n * 206 + 256);
    }
}

#[test]
fn no_memory() {
    for qos in 0..=2 {
        let rig = connected(Setup::default());
        rig.room.payload.set(1000);
        let (id, size) = (5, 2 + 1 + if qos > 0 { 2 } else { 0 } + 1001);
        let large = || flood(publish(qos << 1, "t", id, [1; 1001]));
        let (first, release) = match qos {
            0 => (vec![], [flood([]), expect([])]),
            1 => (ack(PUBACK, id), [flood([]), expect([])]),
            _ => {
                let release = [send(ack(PUBREL, id)), expect(ack(PUBCOMP, id))];
                (ack(PUBREC, id), release)
            }
        };
        rig.script([flood(publish(0, "t", 0, "before")), large()]);
        rig.script([flood(publish(0, "t", 0, "after")), expect(first)]);
        rig.script(release);
        assert_eq!(rig.receive(true), got("t", "before"));
        assert_eq!(rig.receive(true), Ok(Got::Skipped(size)));
        assert_eq!(rig.receive(true), got("t", "after"));
        assert_eq!(rig.receive(false), NOTHING);
        assert_eq!(rig.status(), Status::Connected);
    }
}

/// A topic that is longer than the receive buffer, of a message for which there is no memory: what is looked at in
/// pieces begins within a character.
#[test]
fn no_memory_and_a_long_topic() {
    for piece in [101, 4096] {
        let rig = connected(Setup::default());
        rig.room.payload.set(10);
        let topic = "\u{442}".repeat(2500) + "a";
        for piece in publish(0, &topic, 0, [1; 50]).chunks(piece) {
            rig.script([send(piece)]);
        }
        rig.script([flood(publish(0, "t", 0, "after"))]);
        let size = 2 + topic.len() as u32 + 50;
        assert_eq!(rig.receive(true), Ok(Got::Skipped(size)));
        assert_eq!(rig.receive(true), got("t", "after"));
    }
}

/// Without memory for its identifier a QoS 2 message is not delivered: it could come twice.
#[test]
fn no_memory_for_an_identifier() {
    let rig = connected(Setup::default());
    rig.room.entries.set(2);
    for id in 1..=2 {
        rig.script([send(publish(QOS2, "t", id, "x")), expect(ack(PUBREC, id))]);
        assert_eq!(rig.receive(true), got("t", "x"));
    }
    rig.script([send(publish(QOS2, "t", 3, "x")), expect(ack(PUBREC, 3))]);
    assert_eq!(rig.receive(true), Ok(Got::Skipped(6)));
    rig.script([send(ack(PUBREL, 1)), expect(ack(PUBCOMP, 1))]);
    rig.script([send(publish(QOS2, "t", 4, "y")), expect(ack(PUBREC, 4))]);
    assert_eq!(rig.receive(true), got("t", "y"));
}

#[test]
fn acknowledged_after_the_callback() {
    for (flags, reply) in [(QOS1, PUBACK), (QOS2, PUBREC)] {
        let rig = connected(Setup::default());
        rig.script([send(publish(flags, "t", 9, "x"))]);
        let outcome = rig.receive_and(true, || {
            assert!(rig.is_over());
            // Other calls do not acknowledge it either.
            assert_eq!(rig.receive(false), NOTHING);
            rig.script([expect(publish(0, "u", 0, "y"))]);
            assert!(rig.publish(0, "u", "y").is_ok());
            rig.script([expect(ack(reply, 9))]);
        });
        assert_eq!(outcome, got("t", "x"));
    }
}

/// The callback publishes with QoS 1 while more messages come in.
#[test]
fn publishing_in_the_callback() {
    let rig = connected(Setup::default());
    rig.script([flood(publish(QOS1, "in", 1, "first"))]);
    let outcome = rig.receive_and(true, || {
        rig.script([
            expect(publish(QOS1, "out", 1, "answer")),
            send(publish(QOS2, "in", 2, "second")),
            send(ack(PUBACK, 1)),
        ]);
        assert!(rig.publish(1, "out", "answer").is_ok());
        rig.script([expect(ack(PUBACK, 1))]);
    });
    assert_eq!(outcome, got("in", "first"));
    rig.script([expect(ack(PUBREC, 2))]);
    assert_eq!(rig.receive(true), got("in", "second"));
}

/// A QoS 2 message that comes again is not delivered again.
#[test]
fn exactly_once() {
    let first = || publish(QOS2, "t", 1, "once");
    let again = || publish(QOS2 | DUP, "t", 1, "once");
    let rig = connected(Setup::default());
    rig.script([send(first()), expect(ack(PUBREC, 1))]);
    assert_eq!(rig.receive(true), got("t", "once"));
    // On the same connection, and on the next ones, as long as the broker has the session.
    rig.script([send(again()), expect(ack(PUBREC, 1))]);
    assert_eq!(rig.receive(false), NOTHING);
    for _ in 0..2 {
        rig.reconnect(PRESENT);
        rig.script([send(again()), expect(ack(PUBREC, 1))]);
        assert_eq!(rig.receive(false), NOTHING);
    }
    // PUBREL, which may come again as well, makes the identifier free.
    for _ in 0..2 {
        rig.script([send(ack(PUBREL, 1)), expect(ack(PUBCOMP, 1))]);
        assert_eq!(rig.receive(false), NOTHING);
    }
    rig.script([send(first()), expect(ack(PUBREC, 1))]);
    assert_eq!(rig.receive(true), got("t", "once"));
    // A broker without the session counts anew.
    rig.reconnect(CONNACK);
    rig.script([send(first()), expect(ack(PUBREC, 1))]);
    assert_eq!(rig.receive(true), got("t", "once"));
}

/// It survives `disconnect`: the broker's session may outlive ours.
#[test]
fn exactly_once_after_disconnect() {
    let rig = connected(Setup::default());
    rig.script([send(publish(QOS2, "t", 1, "once")), expect(ack(PUBREC, 1))]);
    assert_eq!(rig.receive(true), got("t", "once"));
    rig.script([
        expect(DISCONNECT),
        Step::Close,
        expect(CONNECT),
        send(PRESENT),
    ]);
    calls::disconnect(&rig);
    assert_eq!(rig.connect(), Ok(()));
    rig.script([
        send(publish(QOS2 | DUP, "t", 1, "once")),
        expect(ack(PUBREC, 1)),
    ]);
    assert_eq!(rig.receive(false), NOTHING);
}

/// The connection is lost while a message is in the callback: nothing goes to the new one but
/// what belongs there.
#[test]
fn acknowledged_only_where_it_came_from() {
    for (flags, reply) in [(QOS1, PUBACK), (QOS2, PUBREC)] {
        for present in [PRESENT, CONNACK] {
            let rig = connected(Setup::default());
            rig.script([send(publish(flags, "t", 9, "x"))]);
            let outcome = rig.receive_and(true, || {
                rig.script([Step::Close, expect(CONNECT), send(present)]);
                assert_eq!(rig.connect(), Ok(()));
            });
            assert_eq!(outcome, got("t", "x"));
            assert_eq!(rig.receive(false), NOTHING);
            rig.script([
                send(publish(flags | DUP, "t", 9, "x")),
                expect(ack(reply, 9)),
            ]);
            let known = flags == QOS2 && present == PRESENT;
            let expected = if known { NOTHING } else { got("t", "x") };
            assert_eq!(rig.receive(false), expected);
        }
    }
}

/// It comes again over the new connection while it is still in the callback: one PUBREC, when the
/// callback is done.
#[test]
fn comes_again_while_in_the_callback() {
    let rig = connected(Setup::default());
    rig.script([expect(publish(0, "u", 0, "y"))]);
    assert!(rig.publish(0, "u", "y").is_ok());
    rig.script([send(publish(QOS2, "t", 9, "x"))]);
    let outcome = rig.receive_and(true, || {
        rig.script([Step::Close, expect(CONNECT), send(PRESENT)]);
        assert_eq!(rig.connect(), Ok(()));
        rig.script([
            expect(publish(QOS1, "u", 1, "y")),
            send(publish(QOS2 | DUP, "t", 9, "x")),
            send(ack(PUBACK, 1)),
        ]);
        assert!(rig.publish(1, "u", "y").is_ok());
        rig.script([expect(ack(PUBREC, 9))]);
    });
    assert_eq!(outcome, got("t", "x"));
}

/// PUBREL overtakes the callback: PUBREC and PUBCOMP follow it, and the identifier is free.
#[test]
fn released_while_in_the_callback() {
    for same_link in [true, false] {
        let rig = connected(Setup::default());
        rig.script([expect(publish(0, "u", 0, "y"))]);
        assert!(rig.publish(0, "u", "y").is_ok());
        rig.script([send(publish(QOS2, "t", 9, "x"))]);
        let outcome = rig.receive_and(true, || {
            rig.script([
                expect(publish(QOS1, "u", 1, "y")),
                send([ack(PUBREL, 9), ack(PUBACK, 1)].concat()),
            ]);
            assert!(rig.publish(1, "u", "y").is_ok());
            if same_link {
                rig.script([expect([ack(PUBREC, 9), ack(PUBCOMP, 9)].concat())]);
            } else {
                rig.script([Step::Close, expect(CONNECT), send(PRESENT)]);
                assert_eq!(rig.connect(), Ok(()));
            }
        });
        assert_eq!(outcome, got("t", "x"));
        rig.script([send(publish(QOS2, "t", 9, "new")), expect(ack(PUBREC, 9))]);
        assert_eq!(rig.receive(true), got("t", "new"));
    }
}

/// A flood does not keep a call that must not block: it reads a buffer's worth, and comes back.
#[test]
fn a_flood_for_a_call_that_does_not_wait() {
    let rig = connected(Setup::default());
    let before = rig.net().read.len();
    rig.script([flood(PINGRESP.repeat(1000))]);
    assert_eq!(rig.receive(false), NOTHING);
    let read = rig.net().read.len() - before;
    assert!((256..=512).contains(&read), "{read} bytes read");
    rig.forget_script();
}

/// Acknowledgements that wait for their turn when the connection ends are not for the next one.
#[test]
fn acknowledgements_end_with_the_connection() {
    let rig = connected(Setup {
        tx: 16,
        ..Setup::default()
    });
    rig.net().blocked = true;
    for id in 1..=6 {
        rig.script([send(publish(QOS1, "t", id, "x"))]);
        assert_eq!(rig.receive(true), got("t", "x"));
    }
    rig.script([Step::Close]);
    calls::close(&rig);
    rig.net().blocked = false;
    rig.script([expect(CONNECT), send(PRESENT)]);
    assert_eq!(rig.connect(), Ok(()));
    assert_eq!(rig.receive(false), NOTHING);
}

/// More acknowledgements are due than there is room for, while the socket takes nothing.
#[test]
fn acknowledgements_without_room() {
    for (flags, reply) in [(QOS1, PUBACK), (QOS2, PUBREC)] {
        let rig = connected(Setup {
            tx: 16,
            ..Setup::default()
        });
        let ids = 1..=40;
        let message = |id| publish(flags, "t", id, [0; 10]);
        let acks = |first| move |id| ack(first, id);
        rig.script([
            flood(ids.clone().flat_map(message).collect::<Vec<_>>()),
            expect(ids.clone().flat_map(acks(reply)).collect::<Vec<_>>()),
        ]);
        rig.net().blocked = true;
        let mut count = 0;
        while let Ok(Got::Message(..)) = rig.receive(false) {
            count += 1;
        }
        assert!((4..40).contains(&count), "{count} delivered");
        assert_eq!(rig.receive(false), NOTHING);
        rig.later(1_000, |rig| rig.net().blocked = false);
        rig.net().write_limits = vec![1, 0, 7].into();
        for _ in count..40 {
            assert_eq!(rig.receive(true), got("t", [0; 10]));
        }
        while !rig.is_over() {
            assert_eq!(rig.receive(false), NOTHING);
        }
        if flags == QOS2 {
            rig.net().blocked = true;
            rig.later(1_000, |rig| rig.net().blocked = false);
            rig.script([
                flood(ids.clone().flat_map(acks(PUBREL)).collect::<Vec<_>>()),
                expect(ids.clone().flat_map(acks(PUBCOMP)).collect::<Vec<_>>()),
                send(publish(0, "t", 0, "end")),
            ]);
            assert_eq!(rig.receive(true), got("t", "end"));
        }
    }
}

#[test]
fn malformed() {
    use Malformed::*;
    let cases: &[(&[u8], Malformed)] = &[
        (b"\x30\xFF\xFF\xFF\x80", RemainingLength),
        (b"\x30\xFF\xFF\xFF\xFF\x01", RemainingLength),
        (b"\x00", Kind),
        (b"\xF0", Kind),
        (b"\x36", Qos),
        (b"\x38", Flags),
        (b"\x41", Flags),
        (b"\x60", Flags),
        (b"\xD1", Flags),
        (b"\x40\x03", RemainingLength),
        (b"\x40\x02\x00\x00", PacketId),
        (b"\x50\x02\x00\x00", PacketId),
        (b"\x62\x02\x00\x00", PacketId),
        (b"\x70\x02\x00\x00", PacketId),
        (b"\xB0\x02\x00\x00", PacketId),
        (b"\xD0\x01", RemainingLength),
        (b"\x90\x02", RemainingLength),
        (b"\x90\x04\x00\x01\x00\x00", RemainingLength),
        (b"\x90\x03\x00\x00\x00", PacketId),
        (b"\x90\x03\x00\x01\x03", ReturnCode),
        (b"\x30\x02", RemainingLength),
        (b"\x32\x04", RemainingLength),
        (b"\x30\x03\x00\x02", RemainingLength),
        (b"\x32\x05\x00\x02", RemainingLength),
        (b"\x30\x03\x00\x00", Topic),
        (b"\x30\x05\x00\x03a/#", Topic),
        (b"\x30\x05\x00\x03a/+", Topic),
        (b"\x30\x05\x00\x03a\x00b", Utf8),
        (b"\x30\x05\x00\x03a\xC0\x80", Utf8),
        (b"\x32\x06\x00\x01a\x00\x00x", PacketId),
    ];
    for (bytes, expected) in cases {
        for limit in [1, 1000] {
            let rig = connected(Setup::default());
            rig.net().read_limits = vec![limit].into();
            rig.script([send(*bytes), Step::Close]);
            let outcome = rig.receive(true);
            assert_eq!(outcome, fault(Fault::Malformed(*expected)), "{bytes:02x?}");
            assert_eq!(rig.status(), Status::Idle);
            assert_eq!(rig.client().inbox.len(), 0);
            assert_eq!(rig.receive(true), Err(Error::NotConnected));
        }
    }
}

#[test]
fn packets_of_a_client() {
    let long = Fault::Malformed(Malformed::RemainingLength);
    let cases: [(Vec<u8>, Fault<NetError>); 5] = [
        (PINGREQ.into(), Fault::Unexpected(Kind::Pingreq)),
        (DISCONNECT.into(), Fault::Unexpected(Kind::Disconnect)),
        // These are longer than anything that the parser waits for.
        (CONNECT.into(), long),
        (subscribe(1, "t", 0), long),
        (unsubscribe(1, "t"), long),
    ];
    for (bytes, expected) in cases {
        let rig = connected(Setup::default());
        rig.script([send(bytes), Step::Close]);
        assert_eq!(rig.receive(true), fault(expected));
    }
}

/// What came before the fault is delivered, what comes after it is not.
#[test]
fn messages_before_a_fault() {
    let rig = connected(Setup::default());
    let stream = [
        publish(0, "t", 0, "one"),
        publish(0, "t", 0, "two"),
        vec![0xFF],
        publish(0, "t", 0, "three"),
    ];
    rig.script([send(stream.concat()), Step::Close]);
    assert_eq!(rig.receive(true), got("t", "one"));
    assert_eq!(rig.receive(true), got("t", "two"));
    assert_eq!(rig.receive(true), fault(Fault::Malformed(Malformed::Kind)));
    assert_eq!(rig.receive(true), Err(Error::NotConnected));
}

/// After `disconnect` no callback begins; the one that is running comes to its end.
#[test]
fn disconnect_in_the_callback() {
    let rig = connected(Setup::default());
    rig.script([flood(publish(QOS1, "t", 1, "x"))]);
    let outcome = rig.receive_and(true, || {
        rig.script([
            expect(publish(QOS1, "u", 1, "y")),
            send(publish(QOS1, "t", 2, "x").repeat(2)),
            send(ack(PUBACK, 1)),
        ]);
        assert!(rig.publish(1, "u", "y").is_ok());
        assert_eq!(rig.client().inbox.len(), 3);
        rig.script([expect(DISCONNECT), Step::Close]);
        calls::disconnect(&rig);
        assert_eq!(rig.client().inbox.len(), 1);
    });
    assert_eq!(outcome, got("t", "x"));
    assert_eq!(rig.client().inbox.len(), 0);
    assert_eq!(rig.receive(true), Err(Error::NotConnected));
}

#[test]
fn disconnect_lets_kept_messages_go() {
    let rig = connected(Setup::default());
    // The limit counts anew as well: without that the third time would not pass.
    for id in 1..=3 {
        rig.script([
            expect(publish(QOS1, "u", id, "y")),
            send(publish(0, "t", 0, [0; 200]).repeat(100)),
            send(ack(PUBACK, id)),
        ]);
        assert_eq!(rig.publish(1, "u", "y"), Ok(Reply::Done));
        assert_eq!(rig.client().inbox.len(), 100);
        rig.script([expect(DISCONNECT), Step::Close]);
        calls::disconnect(&rig);
        assert_eq!(rig.client().inbox.len(), 0);
        rig.script([expect(CONNECT), send(CONNACK)]);
        assert_eq!(rig.connect(), Ok(()));
    }
}

/// Only one thread at a time is in the callback, and the messages stay in order.
#[test]
fn another_thread_receives_too() {
    let rig = connected(Setup::default());
    rig.script([
        flood(publish(0, "t", 0, "one")),
        flood(publish(0, "t", 0, "two")),
    ]);
    let outcome = rig.receive_and(true, || assert_eq!(rig.receive(false), NOTHING));
    assert_eq!(outcome, got("t", "one"));
    // It waits for a message while another thread takes it.
    assert_eq!(rig.receive(true), got("t", "two"));
    rig.script([Step::Pause(100), send(publish(0, "t", 0, "three"))]);
    rig.later(100, |rig| assert_eq!(rig.receive(true), got("t", "three")));
    rig.later(200, |rig| rig.script([send(publish(0, "t", 0, "four"))]));
    assert_eq!(rig.time(|| rig.receive(true)), (got("t", "four"), 200));
}

#[test]
fn closed_by_the_server() {
    let rig = connected(Setup::default());
    rig.script([send(publish(0, "t", 0, "last")), Step::Fin]);
    assert_eq!(rig.receive(true), got("t", "last"));
    assert_eq!(rig.receive(true), fault(Fault::Closed));
    assert_eq!(rig.status(), Status::ServerClosed);
    assert_eq!(rig.receive(true), Err(Error::NotConnected));
}

/// What follows the PUBLISH of a QoS 2 message.
fn handshake(id: u16) -> [Step; 3] {
    [
        expect(ack(PUBREC, id)),
        send(ack(PUBREL, id)),
        expect(ack(PUBCOMP, id)),
    ]
}

/// A QoS 2 message that was kept goes with `disconnect`, and comes again.
#[test]
fn exactly_once_though_the_script_disconnected() {
    for flags in [QOS2 | DUP, QOS2] {
        let rig = connected(Setup::default());
        rig.script([
            expect(publish(QOS1, "t", 1, "x")),
            send(publish(QOS2, "in", 7, "precious")),
        ]);
        rig.script([send(ack(PUBACK, 1))]);
        assert_eq!(rig.publish(1, "t", "x"), Ok(Reply::Done));
        rig.script([
            expect(DISCONNECT),
            Step::Close,
            expect(CONNECT),
            send(PRESENT),
        ]);
        calls::disconnect(&rig);
        assert_eq!(rig.connect(), Ok(()));
        rig.script([send(publish(flags, "in", 7, "precious"))]);
        rig.script(handshake(7));
        assert_eq!(rig.receive(true), got("in", "precious"));
        assert_eq!(rig.receive(false), NOTHING);
    }
}

/// One that is in the callback then does not come again.
#[test]
fn exactly_once_though_the_callback_disconnects() {
    let rig = connected(Setup::default());
    rig.script([send(publish(QOS2, "in", 7, "once"))]);
    let outcome = rig.receive_and(true, || {
        rig.script([expect(DISCONNECT), Step::Close]);
        calls::disconnect(&rig);
    });
    assert_eq!(outcome, got("in", "once"));
    rig.script([
        expect(CONNECT),
        send(PRESENT),
        send(publish(QOS2 | DUP, "in", 7, "once")),
    ]);
    rig.script(handshake(7));
    assert_eq!(rig.connect(), Ok(()));
    assert_eq!(rig.receive(false), NOTHING);
    assert_eq!(rig.receive(false), NOTHING);
}

/// In MQTT 3.1 CONNACK does not tell whether the server has a session: DUP tells an old message.
#[test]
fn exactly_once_in_3_1() {
    const CONNECT_31: &[u8] = b"\x10\x0F\x00\x06MQIsdp\x03\x00\x00\x3C\x00\x01c";
    let rig = rig(Setup {
        version: Version::V31,
        ..Setup::default()
    });
    rig.script([expect(CONNECT_31), send(CONNACK)]);
    assert_eq!(rig.connect(), Ok(()));
    rig.script([
        send(publish(QOS2, "in", 7, "once")),
        expect(ack(PUBREC, 7)),
        Step::Reset,
    ]);
    assert_eq!(rig.receive(true), got("in", "once"));
    assert_eq!(rig.receive(true), fault(Fault::Io(NetError::Reset)));
    rig.script([
        expect(CONNECT_31),
        send(CONNACK),
        send(publish(QOS2 | DUP, "in", 7, "once")),
    ]);
    rig.script([
        expect(ack(PUBREC, 7)),
        send(publish(QOS2, "in", 7, "of another session")),
    ]);
    rig.script(handshake(7));
    assert_eq!(rig.connect(), Ok(()));
    assert_eq!(rig.receive(true), got("in", "of another session"));
    assert_eq!(rig.receive(false), NOTHING);
}

/// The callback of a message outlives its session; a later one with its identifier is not it.
#[test]
fn the_same_identifier_in_a_new_session() {
    let rig = connected(Setup::default());
    rig.script([send(publish(QOS2, "in", 7, "old"))]);
    let outcome = rig.receive_and(true, || {
        rig.script([Step::Reset]);
        assert_eq!(rig.publish(0, "t", "x"), fault(Fault::Io(NetError::Reset)));
        rig.script([
            expect(CONNECT),
            send(CONNACK),
            expect(publish(QOS1, "t", 1, "x")),
        ]);
        rig.script([send(publish(QOS2, "in", 7, "new")), send(ack(PUBACK, 1))]);
        assert_eq!(rig.connect(), Ok(()));
        assert_eq!(rig.publish(1, "t", "x"), Ok(Reply::Done));
    });
    assert_eq!(outcome, got("in", "old"));
    assert_eq!(rig.net().sent.last(), Some(&b'x'), "no PUBREC yet");
    rig.script([expect(ack(PUBREC, 7))]);
    assert_eq!(rig.receive(true), got("in", "new"));
}

/// A message is in the callback while another session's message with its identifier comes in; then
/// the script disconnects. The broker sends that one again: it is delivered, and acknowledged.
#[test]
fn two_messages_with_one_identifier() {
    for qos in [QOS2, QOS1] {
        let rig = connected(Setup::default());
        rig.script([send(publish(qos, "t", 1, "a"))]);
        let outcome = rig.receive_and(true, || {
            rig.script([Step::Reset]);
            assert_eq!(rig.receive(false), fault(Fault::Io(NetError::Reset)));
            rig.script([expect(CONNECT), send(CONNACK)]);
            assert_eq!(rig.connect(), Ok(()));
            rig.script([
                expect(publish(QOS1, "u", 1, "x")),
                flood([publish(QOS2, "t", 1, "b"), ack(PUBACK, 1)].concat()),
            ]);
            assert_eq!(rig.publish(1, "u", "x"), Ok(Reply::Done));
            rig.script([expect(DISCONNECT), Step::Close]);
            calls::disconnect(&rig);
            rig.script([expect(CONNECT), send(PRESENT)]);
            assert_eq!(rig.connect(), Ok(()));
        });
        assert_eq!(outcome, got("t", "a"));
        rig.script([
            flood(publish(QOS2 | DUP, "t", 1, "b")),
            expect(ack(PUBREC, 1)),
        ]);
        assert_eq!(rig.receive(false), got("t", "b"));
    }
}
