"""Keepalive: when PINGREQ goes out, what its missing answer means, and that nothing else wakes an idle client."""

import textwrap
import time

import broker
from harness import scenario
from outage import HELPERS, threaded, tick


def connected(t, script, **options):
    return t.connected(textwrap.dedent(script), helpers=HELPERS, **options)


IDLE = """
rest(c)
c.disconnect()
"""


def done(mp, link):
    mp.tell()
    link.expect(broker.DISCONNECT)


@scenario(idle=True)
def ping_when_nothing_goes_either_way(t):
    mp, link, _ = connected(t, IDLE, keepalive=2)
    last = time.monotonic()
    for _ in range(3):
        link.expect(broker.PINGREQ, within=4)
        now = time.monotonic()
        t.between(now - last, 1.9, 2.9, "seconds of silence")
        last = now
        link.send(broker.PINGRESP)
    done(mp, link)


def pings_within(t, mp, link, send, seconds, keepalive=1, rounds=3):
    """While `send` sends something each time, and whatever the client sends beside, PINGREQ comes within so many seconds, and
    the client is never silent for too long."""
    sent = pinged = time.monotonic()
    pings = 0
    while pings < rounds:
        send()
        if link.buffer or link._fill(0.1) is not None:
            raw = link.packet()
            now = time.monotonic()
            t.between(now - sent, 0, 1.5 * keepalive, "seconds without a packet")
            sent = now
            if raw == broker.PINGREQ:
                t.between(now - pinged, 0.9 * keepalive - t.target.LATENCY, seconds, "seconds between pings")
                pinged = now
                pings += 1
                link.send(broker.PINGRESP)
        t.between(time.monotonic() - pinged, 0, seconds, "seconds without a ping")
    link.strict = False
    mp.tell()


@scenario(idle=True)
def ping_though_qos0_goes_out(t):
    mp, link, _ = connected(t, """
        while not told():
            c.publish("t", "m")
            pause(50)
        hear()
        c.disconnect()
    """, keepalive=1)
    # Without threads a QoS 0 publish does not read: the answer is received when it is due, and counts from there.
    pings_within(t, mp, link, lambda: None, (1.5 if threaded(t) else 2.5) + tick(t))


@scenario(idle=True)
def ping_though_messages_come_in(t):
    mp, link, _ = connected(t, """
        c.set_callback(None)
        while not told():
            c.check_msg()
        hear()
        c.disconnect()
    """, keepalive=1)
    pings_within(t, mp, link, lambda: link.send(broker.publish("in", "m")), 1.5)


@scenario(idle=True)
def acknowledged_publishes_are_no_silence(t):
    mp, link, _ = connected(t, """
        for n in range(12):
            tell(c.publish, "t", "m", qos=1)
            pause(250)
        c.disconnect()
    """, keepalive=1)
    for _ in range(12):
        link.send(broker.puback(link.expect_publish("t", "m", qos=1)))
        mp.expect("True")
    link.expect(broker.DISCONNECT)


@scenario(idle=True)
def keepalive_0_never_pings(t):
    mp, link, _ = connected(t, IDLE, keepalive=0)
    link.idle(3000)
    done(mp, link)


REPORT = """
c.error_register_cb(lambda text: say("error", type(text) is str, c.get_mqttsta()))
rest(c)
"""


def dead(t, keepalive, due, pings=1, **options):
    before = time.monotonic()
    mp, link, _ = connected(t, REPORT, keepalive=keepalive, reconn=False, **options)
    connected_by = time.monotonic()
    link.expect(broker.PINGREQ, within=keepalive + 2)
    last = time.monotonic()
    # It was connected at some moment between the two.
    t.true(last - before >= 0.95 * keepalive, "the first ping comes too soon")
    t.true(last - connected_by <= 1.4 * keepalive, "the first ping comes too late")
    for _ in range(1, pings):
        link.expect(broker.PINGREQ, within=keepalive + 2)
        now = time.monotonic()
        t.between(now - last, 0.95 * due, 1.1 * due + 0.4, "seconds before a ping")
        last = now
    link.expect_end(within=due + 2)
    t.between(time.monotonic() - last, 0.95 * due, 1.1 * due + 0.4, "seconds until the link counts as dead")
    mp.expect("error True -1")
    mp.tell()


@scenario(idle=True)
def no_answer_within_keepalive_is_a_dead_link(t):
    dead(t, 2, 2)


@scenario(idle=True)
def no_answer_within_10_s_is_a_dead_link(t):
    dead(t, 12, 10)


@scenario(idle=True)
def unanswered_pings_are_repeated_pingmaxnum_times(t):
    dead(t, 1, 1, pings=4, pingmaxnum=3)


@scenario(idle=True)
def an_answer_starts_the_count_anew(t):
    mp, link, _ = connected(t, IDLE, keepalive=1, pingmaxnum=1)
    for _ in range(2):
        link.expect(broker.PINGREQ, broker.PINGREQ, within=3)  # the second repeats the first
        link.send(broker.PINGRESP)
    link.expect(broker.PINGREQ, within=3)
    link.send(broker.PINGRESP)
    done(mp, link)


@scenario(idle=True)
def no_answer_though_sending_succeeds(t):
    mp, link, b = connected(t, """
        while not told():
            c.publish("t", "m")
            pause(50)
        hear()
        c.disconnect()
    """, keepalive=1)
    end, pinged = time.monotonic() + 6, None
    while link.buffer or link._fill(max(0, end - time.monotonic())):
        if link.packet() == broker.PINGREQ:
            pinged = pinged or time.monotonic()
    t.between(time.monotonic() - (pinged or 0), 0.9, 1.7, "seconds from PINGREQ to the end")
    link.strict = False
    link = b.welcome(session=True, keepalive=1)
    link.strict = False
    mp.tell()


@scenario(idle=True, network=True)
def a_script_that_takes_nothing_has_no_dead_link(t):
    mp, link, _ = connected(t, """
        if _thread:
            hear()
        else:
            while not told():
                c.publish("t", "m")  # something has to do the work
                pause(50)
            hear()
        n = 0
        def cb(topic, msg):
            global n, serving
            n += 1
            serving = topic != b"end"
        c.set_callback(cb)
        serve(c)
        say(n)
        c.disconnect()
    """, keepalive=1)
    link.strict = False
    n, rest = link.send_while_room(broker.publish("in", b"x" * 1000) for _ in range(200000))
    end, pings = time.monotonic() + 5, 0
    while time.monotonic() < end:
        if link.buffer or link._fill(0.1) is not None:
            pings += link.packet() == broker.PINGREQ
    t.between(pings, 1 if threaded(t) else 0, 12, "pings, though their answers cannot be read")
    mp.tell()
    link.send(rest, *[broker.PINGRESP] * pings, broker.publish("end"), within=20)
    mp.expect(str(n + bool(rest) + 1), within=20)


@scenario(threads=True, idle=True)
def an_unread_message_hides_no_dead_link(t):
    # The receive buffer has room: an answer would be there, behind the message
    for reconn in True, False:
        mp, link, b = connected(t, REPORT, keepalive=1, reconn=reconn)
        link.send(broker.publish("in", "m"))
        for _ in range(2):
            link.expect(broker.PINGREQ, within=2)
            link.send(broker.PINGRESP)
        link.expect(broker.PINGREQ, within=2)
        link.expect_end(within=3)
        if reconn:
            b.welcome(session=True, keepalive=1).strict = False
        else:
            mp.expect("error True -1")
        mp.tell()
        mp.finish()


@scenario(threads=True, idle=True)
def pings_go_on_while_a_callback_runs(t):
    mp, link, _ = connected(t, """
        def cb(topic, msg):
            say("in")
            hear()
            say("out")
        c.set_callback(cb)
        c.wait_msg()
        c.disconnect()
    """, keepalive=1)
    link.send(broker.publish("in", "m", qos=1, id=7))
    mp.expect("in")
    for _ in range(4):
        link.expect(broker.PINGREQ, within=1.5)
        link.send(broker.PINGRESP)
    mp.tell()
    mp.expect("out")
    link.expect(broker.puback(7), broker.DISCONNECT)


@scenario
def a_ping_that_meets_a_reset_raises_only_without_reconn(t):
    # an internal thread may meet it first
    for reconn in [True] * 8 + [False]:
        mp, link, b = t.connected("""
            hear()
            outcomes = set(outcome(c.ping) for _ in range(100))
            say(sorted(outcomes))
            c.close()
        """, reconn=reconn)
        link.rst()
        mp.tell()
        if reconn:
            mp.expect("['None']")
        else:
            mp.match(r"\['(None', ')?OSError .*'\]")
        mp.finish()


def system_calls(t, script, ticks, ready=lambda mp: None, seconds=4, **options):
    """There are next to none; where nothing can wait for a socket, so many short sleeps a second."""
    mp, link, _ = connected(t, script, strace="all", **options)
    ready(mp)
    mp.asleep()
    start, before = time.monotonic(), len(mp.calls())
    link.idle(seconds * 1000)
    calls, seconds = mp.calls()[before:], time.monotonic() - start
    sleeps = sum("nanosleep(" in call for call in calls)
    if tick(t):
        t.between(sleeps, 1, int(seconds * ticks) + 1, f"wake-ups in {seconds:.3f} idle seconds")
    else:
        t.true(len(calls) <= 5, f"{len(calls)} system calls in {seconds} idle seconds:\n" + "\n".join(calls))
    return mp, link


@scenario(threads=True, idle=True)
def an_idle_client_wakes_for_nothing(t):
    done(*system_calls(t, IDLE, 2, keepalive=60))


@scenario(idle=True, unix=True)
def a_waiting_client_wakes_for_nothing(t):
    mp, link = system_calls(t, """
        serve(c)
        c.disconnect()
    """, 102, keepalive=60)
    link.send(broker.publish("end"))
    link.expect(broker.DISCONNECT)


@scenario(threads=True, idle=True)
def a_client_with_a_waiting_thread_wakes_for_nothing(t):
    mp, link = system_calls(t, """
        end = start(outcome, c.wait_msg)
        hear()
        c.disconnect()
        end()
    """, 102, keepalive=0)
    done(mp, link)


@scenario(threads=True, idle=True, unix=True, tcp=True)
def many_publishers_do_not_hide_a_dead_link(t):
    b = t.broker(receive_buffer=4096)
    mp, link, _ = t.connected("""
        start_ms = time.ticks_ms()
        def publish():
            while c.get_mqttsta() == 0:
                outcome(c.publish, "t", "x" * 1018)
        ends = [start(publish) for _ in range(12)]
        for end in ends:
            end()
        say("dead after", time.ticks_diff(time.ticks_ms(), start_ms))
        c.disconnect()
    """, broker=b, keepalive=4, reconn=False)
    link.strict = False
    t.between(int(mp.match("dead after ([0-9]+)", within=30)[1]), 4000, 14000, "ms until the link counts as dead")


@scenario(threads=True, unix=True, tcp=True, idle=True)
def messages_that_the_socket_does_not_take_count_as_nothing_sent(t):
    # each publish gives up after 5 s, and the next one begins
    b = t.broker(receive_buffer=4096)
    mp = t.mp("""
        c = client(keepalive=7)
        c.set_callback(lambda topic, msg: None)
        c.connect()
        msg = "x" * 1018  # a packet of 1 KB: the socket takes all of it or nothing
        while c.publish("t", msg):
            pass
        since = time.ticks_ms()
        while c.get_mqttsta() == 0:
            c.publish("t", msg)
            c.check_msg()
        say(time.ticks_diff(time.ticks_ms(), since))
    """, b)
    link = b.accept()
    link.expect_connect(keepalive=7)
    link.send(broker.connack())
    link.strict = False
    try:
        for _ in range(80):
            link.send(broker.publish("t", "m"))  # the other way is open
            time.sleep(0.5)
    except OSError:
        pass
    # keepalive, and as long for the answer; less what went by before a publish was refused
    t.between(int(mp.match("([0-9]+)", within=50)[1]), 1000, 2 * 7000 + 5500, "ms until the link is found dead")
