//! Keepalive and reconnection: by the internal thread, and by the calls where there is none.

use umqtt::{
    calls::{self, Error, Reply},
    client::{Fault, Status},
    service,
};

use crate::{bytes::*, world::*};

/// A client that is connected, and the number of its internal thread.
fn hired(setup: Setup) -> (Rig, u8) {
    let rig = rig(setup);
    rig.script([expect(CONNECT), send(CONNACK)]);
    let thread = calls::connect(&rig, false).unwrap();
    (rig, thread.expect("an internal thread is wanted"))
}

fn reconnecting(threads: bool) -> Setup {
    Setup {
        reconnect: true,
        threads,
        ..Setup::default()
    }
}

/// Lets the work be done, by the internal thread or in a call, until `disconnect` after `ms`.
fn work(rig: &Rig, thread: Option<u8>, ms: u64) {
    rig.later(ms, |rig| {
        if rig.status() == Status::Connected {
            rig.script([expect(DISCONNECT), Step::Close]);
        }
        calls::disconnect(rig);
    });
    match thread {
        Some(thread) => service::run(rig, thread),
        None => assert_eq!(rig.receive(true), Ok(Got::Nothing)),
    }
}

/// The same for both ways of working.
fn both(test: impl Fn(&Rig, Option<u8>)) {
    println!("with an internal thread");
    let (rig, thread) = hired(reconnecting(true));
    test(&rig, Some(thread));
    println!("without threads");
    test(&connected(reconnecting(false)), None);
}

#[test]
fn keepalive() {
    both(|rig, thread| {
        rig.script([
            Step::Pause(60_000),
            expect(PINGREQ),
            Step::Pause(9_999),
            send(PINGRESP),
        ]);
        rig.script([Step::Pause(60_000), expect(PINGREQ), send(PINGRESP)]);
        work(rig, thread, 130_000);
    });
}

#[test]
fn an_answer_behind_something_that_comes_in_slowly() {
    both(|rig, thread| {
        rig.script([Step::Pause(60_000), expect(PINGREQ)]);
        for _ in 0..11 {
            rig.script([Step::Pause(5_000), Step::Part]);
        }
        rig.script([Step::Pause(5_000), expect(PINGREQ)]);
        rig.script([send(PINGRESP), send(PINGRESP)]);
        work(rig, thread, 130_000);
    });
}

#[test]
fn no_answer_to_a_ping() {
    let (rig, thread) = hired(Setup::default());
    rig.script([
        Step::Pause(60_000),
        expect(PINGREQ),
        Step::Pause(10_000),
        Step::Close,
    ]);
    rig.later(75_000, calls::disconnect);
    service::run(&rig, thread);
    assert_eq!(*rig.reports.borrow(), [Fault::NoPingresp]);
}

/// The end of the connection is seen at once, and the first attempt comes a second later.
#[test]
fn reconnects() {
    both(|rig, thread| {
        rig.script([
            Step::Pause(5_000),
            Step::Fin,
            Step::Pause(750),
            expect(CONNECT),
        ]);
        rig.script([send(PRESENT)]);
        rig.later(5_740, |rig| assert_eq!(rig.status(), Status::Connecting));
        rig.later(6_260, |rig| assert_eq!(rig.status(), Status::Connected));
        work(rig, thread, 7_000);
    });
}

/// The server goes away in the middle of CONNACK: that attempt has failed, and the next one comes after its delay.
#[test]
fn lost_while_greeting() {
    both(|rig, thread| {
        rig.script([
            Step::Fin,
            expect(CONNECT),
            send([0x20]),
            Step::Fin,
            expect(CONNECT),
            send(PRESENT),
        ]);
        rig.later(4_000, |rig| assert_eq!(rig.status(), Status::Connected));
        work(rig, thread, 5_000);
    });
}

/// The clock may go on between any two looks at it, also while an attempt is under way.
#[test]
fn dials_while_the_clock_ticks() {
    both(|rig, thread| {
        rig.tick.set(1);
        rig.net().tcp = Attempt::After(500);
        rig.script([Step::Fin, expect(CONNECT), send(PRESENT)]);
        work(rig, thread, 3_000);
    });
}

/// Each attempt is put off twice as long as the one before, up to a minute, give or take a quarter.
#[test]
fn backs_off() {
    both(|rig, thread| {
        rig.net().tcp = Attempt::Fails;
        rig.script([Step::Fin]);
        for _ in 0..10 {
            rig.script([Step::Close]);
        }
        let attempts = |rig: &Rig| rig.net().log.len() / 2 - 1;
        let (mut earliest, mut latest) = (0, 0);
        for n in 0..9 {
            let step = (1_000 << n).min(60_000);
            (earliest, latest) = (earliest + step * 3 / 4, latest + step * 5 / 4);
            rig.later(earliest - 1, move |rig| assert!(attempts(rig) <= n));
            rig.later(latest + 100, move |rig| assert!(attempts(rig) > n));
        }
        rig.later(latest + 200, |rig| rig.forget_script());
        work(rig, thread, latest + 200);
    });
}

/// An attempt that is under way when the script gives up leaves no socket behind.
#[test]
fn given_up_while_dialing() {
    let ways: [fn(&Rig); 2] = [calls::close, calls::disconnect];
    for end in ways {
        let rig = connected(reconnecting(false));
        rig.net().tcp = Attempt::Never;
        rig.script([Step::Fin]);
        for _ in 0..30 {
            assert_eq!(rig.receive(false), Ok(Got::Nothing));
            rig.pass(100);
        }
        assert_eq!(rig.status(), Status::Connecting);
        rig.script([Step::Close]);
        end(&rig);
        assert!(rig.is_over());
        assert_eq!(rig.receive(false), Err(Error::NotConnected));
    }
}

/// What a call finds of an attempt that began in the one before counts, however long ago that was.
#[test]
fn attempts_go_on_though_calls_are_rare() {
    for every in [1_000, 25_000, 100_000] {
        let rig = connected(reconnecting(false));
        rig.net().tcp = Attempt::After(100);
        rig.script([Step::Fin, expect(CONNECT), send(PRESENT)]);
        let mut calls = 0;
        while rig.status() != Status::Connected || !rig.is_over() {
            assert_eq!(rig.receive(false), Ok(Got::Nothing));
            rig.pass(every);
            calls += 1;
            assert!(calls < 8, "a call every {every} ms");
        }
    }
}

/// A client without threads that has come back from an outage, with the fourth attempt.
fn back_after_three_failures() -> Rig {
    let rig = connected(reconnecting(false));
    let attempts = |rig: &Rig| rig.net().log.len();
    rig.net().tcp = Attempt::Fails;
    rig.script([Step::Fin, Step::Close, Step::Close, Step::Close]);
    let before = attempts(&rig);
    while attempts(&rig) < before + 6 {
        assert_eq!(rig.receive(false), Ok(Got::Nothing));
        rig.pass(50);
    }
    rig.net().tcp = Attempt::After(0);
    rig.script([expect(CONNECT), send(PRESENT)]);
    while rig.status() != Status::Connected {
        assert_eq!(rig.receive(false), Ok(Got::Nothing));
        rig.pass(50);
    }
    rig
}

/// A link that held starts the delays anew, also if it was the script that ended it.
#[test]
fn delays_start_anew_after_a_link_that_held() {
    type End = fn(&Rig);
    let ways: [(End, &[u8]); 3] = [
        (calls::close, &[]),
        (calls::disconnect, DISCONNECT),
        (|_| (), &[]),
    ];
    for (end, last) in ways {
        let rig = back_after_three_failures();
        rig.pass(11_000); // longer than the last delay
        rig.script([expect(last), Step::Close, expect(CONNECT), send(PRESENT)]);
        end(&rig);
        assert_eq!(rig.connect(), Ok(()));
        rig.script([Step::Fin, expect(CONNECT), send(PRESENT)]);
        let ((), ms) = rig.time(|| {
            while !rig.is_over() || rig.status() != Status::Connected {
                assert_eq!(rig.receive(false), Ok(Got::Nothing));
                rig.pass(10);
            }
        });
        assert!((750..1_400).contains(&ms), "{ms} ms");
    }
}

#[test]
fn as_many_pings_as_the_script_wants() {
    let (rig, thread) = hired(Setup::default());
    rig.client().config.ping_max = 255;
    rig.script([Step::Pause(60_000)]);
    for _ in 0..256 {
        rig.script([expect(PINGREQ), Step::Pause(10_000)]);
    }
    rig.script([Step::Close]);
    rig.later(60_000 + 257 * 10_000, calls::disconnect);
    service::run(&rig, thread);
    assert_eq!(*rig.reports.borrow(), [Fault::NoPingresp]);
}

/// In the middle of a message no PINGREQ can be sent, and its answer is due only when it has been.
#[test]
fn a_message_that_takes_longer_than_keepalive() {
    let rig = connected(reconnecting(false));
    let payload = vec![7; 20_000];
    for piece in publish(0, "t", 0, &payload).chunks(1_000) {
        rig.script([expect(piece), Step::Pause(4_900)]);
    }
    rig.script([expect(PINGREQ), Step::Pause(4_000), send(PINGRESP)]);
    let (outcome, ms) = rig.time(|| rig.publish(0, "t", &payload));
    assert_eq!(outcome, Ok(Reply::Done));
    assert!(ms > 90_000, "{ms} ms");
    while !rig.is_over() {
        rig.pass(500);
        assert_eq!(rig.receive(false), Ok(Got::Nothing));
    }
    assert_eq!(rig.status(), Status::Connected);
}

/// A socket that takes nothing keeps the PINGREQ, too: the connection is dead all the same.
#[test]
fn a_ping_that_cannot_be_sent() {
    let rig = connected(reconnecting(false));
    rig.net().blocked = true;
    assert_eq!(rig.post(1, "t", "x"), Ok(Reply::Done));
    rig.script([Step::Close]);
    let ((), ms) = rig.time(|| {
        while rig.status() == Status::Connected {
            rig.pass(500);
            assert_eq!(rig.receive(false), Ok(Got::Nothing));
        }
    });
    assert!((65_000..80_000).contains(&ms), "{ms} ms");
    rig.net().blocked = false;
}

/// A PINGREQ was excused, as the script took no messages; then it takes them, and the link is dead.
#[test]
fn an_excuse_does_not_last() {
    let (rig, thread) = hired(Setup::default());
    let many: Vec<u8> = (0..40)
        .flat_map(|_| publish(0, "t", 0, "0123456789"))
        .collect();
    rig.script([flood(many), expect(PINGREQ)]);
    rig.later(75_000, |rig| {
        for _ in 0..40 {
            assert_eq!(rig.receive(false), got("t", "0123456789"));
        }
        // The link is dead from here on.
        rig.script([Step::Pause(1)]);
    });
    for n in 0..40 {
        rig.later(76_000 + n * 30_000, |rig| {
            if rig.status() == Status::Connected {
                rig.net().peer = Some(Box::new(|_| vec![]));
                let _ = rig.publish(0, "t", "x");
            }
        });
    }
    rig.later(76_000 + 41 * 30_000, |rig| {
        let status = rig.status();
        calls::disconnect(rig);
        assert_eq!(
            status,
            Status::Idle,
            "the dead link is not found in 20 minutes"
        );
    });
    service::run(&rig, thread);
}

/// A link that held for 30 days: the first attempt comes after a second.
#[test]
fn a_link_that_held_for_longer_than_the_clock() {
    for days in [1u64, 30] {
        let rig = back_after_three_failures();
        for _ in 0..days * 24 * 3600 / 50 {
            rig.script([
                flood(publish(0, "t", 0, "x")),
                expect(publish(0, "t", 0, "y")),
            ]);
            assert_eq!(rig.receive(false), got("t", "x"));
            assert_eq!(rig.publish(0, "t", "y"), Ok(Reply::Done));
            rig.pass(50_000);
        }
        rig.script([Step::Fin, expect(CONNECT), send(PRESENT)]);
        let ((), ms) = rig.time(|| {
            while !rig.is_over() || rig.status() != Status::Connected {
                assert_eq!(rig.receive(false), Ok(Got::Nothing));
                rig.pass(10);
            }
        });
        rig.script([expect(DISCONNECT), Step::Close]);
        calls::disconnect(&rig);
        assert!((750..1_400).contains(&ms), "{days} days: {ms} ms");
    }
}
