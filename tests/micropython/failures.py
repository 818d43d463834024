"""With `reconn=False`: how a failure is reported, once, and how the script goes on from there."""

import textwrap
import time

import broker
from harness import scenario
from outage import HELPERS, threaded


SAY_ERROR = """
main = _thread and _thread.get_ident()
def on_error(text):
    say("error", type(text) is str and text != "", c.get_mqttsta(), not _thread or _thread.get_ident() != main)
"""


FAILURES = {
    "fin": (lambda link: link.fin(), 2),
    "rst": (lambda link: link.rst(), 2),
    "garbage": (lambda link: link.send(b"\xff\xff\xff\xff\xff\xff"), -1),
}


def each_failure(t, script, *lines, prepare=None):
    """For each failure: one report, in which the state tells already; and beside it, in any order, these lines."""
    for end, state in FAILURES.values():
        mp, link, b = t.connected("c.error_register_cb(on_error)\nsay('ready')\n" + textwrap.dedent(script),
                                  helpers=HELPERS + SAY_ERROR, reconn=False, keepalive=0)
        mp.expect("ready")
        if prepare:
            prepare(mp, link)
        end(link)
        want = [f"error True {state} True", *lines]
        got = [mp.line() for _ in want]
        t.equal(sorted(got), sorted(want), "lines")
        mp.silent(150)
        b.nobody(50)
        mp.tell()
        mp.expect(str(state), "OSError ENOTCONN", "None")
        mp.finish()
        link.strict = False


AFTERWARDS = """
hear()
say(c.get_mqttsta())
tell(c.wait_msg)
tell(c.disconnect)
"""


@scenario(idle=True, threads=True)
def a_failure_is_reported_while_the_script_does_nothing(t):
    each_failure(t, AFTERWARDS)


@scenario
def a_failure_is_reported_while_the_script_checks(t):
    each_failure(t, """
        while True:
            try:
                c.check_msg()
            except OSError:
                say("raised", c.get_mqttsta() in (2, -1))
                break
            pause(5)
    """ + AFTERWARDS.replace("\n", "\n" + " " * 8), "raised True")


@scenario
def a_failure_is_reported_while_the_script_waits(t):
    each_failure(t, """
        try:
            c.wait_msg()
        except OSError:
            say("raised", c.get_mqttsta() in (2, -1))
    """ + AFTERWARDS.replace("\n", "\n" + " " * 8), "raised True")


def failure_while_publishing(t, qos):
    each_failure(t, f"""
        try:
            while c.publish("t", "m", qos={qos}):
                pause(5)
            say("returned")
        except OSError:
            say("raised", c.get_mqttsta() in (2, -1))
    """ + AFTERWARDS.replace("\n", "\n" + " " * 8), "raised True", prepare=lambda mp, link: link.packet())


@scenario
def a_failure_is_reported_while_the_script_publishes_qos0(t):
    failure_while_publishing(t, 0)


@scenario
def a_failure_is_reported_while_the_script_publishes_qos1(t):
    failure_while_publishing(t, 1)


@scenario
def a_failure_is_reported_while_the_script_publishes_qos2(t):
    failure_while_publishing(t, 2)


@scenario(threads=True)
def a_failure_is_reported_while_a_callback_runs(t):
    each_failure(t, """
        def cb(topic, msg):
            say("in")
            hear()
        c.set_callback(cb)
        c.wait_msg()
    """ + AFTERWARDS.replace("\n", "\n" + " " * 8).replace("hear()", "pass"),
        prepare=lambda mp, link: (link.send(broker.publish("t", "m")), mp.expect("in")))


@scenario(threads=True)
def a_failure_that_many_threads_meet_is_one_failure(t):
    each_failure(t, """
        def work(f, *args):
            try:
                while True:
                    f(*args)
                    pause(1)
            except OSError:
                say("raised", c.get_mqttsta() in (2, -1))
        ends = [start(work, c.publish, "t", "m", False, 0) for _ in range(3)]
        ends += [start(work, c.publish, "t", "m", False, 1) for _ in range(2)]
        ends += [start(work, c.wait_msg), start(work, c.check_msg)]
        for end in ends:
            end()
    """ + AFTERWARDS.replace("\n", "\n" + " " * 8), *["raised True"] * 7, prepare=lambda mp, link: link.packet())


@scenario
def no_report_when_the_script_ends_the_connection(t):
    for call in "close", "disconnect":
        mp, link, b = t.connected(f"""
            c.error_register_cb(on_error)
            c.{call}()
            rest(c)
        """, helpers=HELPERS + SAY_ERROR, reconn=False)
        if call == "disconnect":
            link.expect(broker.DISCONNECT)
        link.expect_end()
        mp.silent(200)
        mp.tell()


@scenario
def no_report_with_reconnection(t):
    mp, link, b = t.connected("""
        c.error_register_cb(lambda text: say(text))
        rest(c)
        until_state(c, 0)
        c.disconnect()
    """, helpers=HELPERS, keepalive=0)
    mp.asleep() if threaded(t) else None
    link.fin()
    link = b.welcome(session=True, keepalive=0)
    mp.tell()
    link.expect(broker.DISCONNECT)


@scenario
def no_report_of_a_connect_that_fails(t):
    b = t.broker()
    mp = t.mp("""
        c = client(reconn=False)
        c.error_register_cb(lambda text: say("error"))
        tell(c.connect)
        rest(c)
    """, b, HELPERS)
    link = b.accept()
    link.expect_connect()
    link.fin()
    mp.match("MQTTException .*")
    mp.silent(200)
    mp.tell()


@scenario
def an_exception_in_the_error_callback_is_printed_and_harms_nothing(t):
    mp, link, b = t.connected("""
        def cb(text):
            raise ValueError("mine")
        c.error_register_cb(cb)
        for n in range(3):
            say("ready")
            rest(c)
            c.close()
            say(c.connect())
            tell(c.publish, "t", "m")
        c.disconnect()
    """, helpers=HELPERS, reconn=False)
    for _ in range(3):
        mp.expect("ready")
        link.fin()
        link.expect_end()
        mp.until("ValueError: mine")
        mp.tell()
        link = b.welcome()
        mp.expect("0", "True")
        link.expect_publish("t", "m")
    link.expect(broker.DISCONNECT)


@scenario(idle=True)
def the_error_callback_resumes(t):
    mp, link, b = t.connected("""
        def on_error(text):
            try:
                c.close()
                c.connect()
                c.subscribe("t", 1)
                say("resumed")
            except Exception as e:
                say("failed:", words(e))
        c.error_register_cb(on_error)
        say("ready")
        serving = True
        while serving:
            try:
                c.wait_msg()
            except OSError:
                pause(1)
        c.disconnect()
    """, helpers=HELPERS, reconn=False)
    mp.expect("ready")
    for n in range(5):
        link.fin() if n % 2 else link.rst()
        link = b.welcome(session=False)
        # all subscriptions of before, and the one that is asked for now, which may be the same
        t.between(answer_subscribe(link, "t", 1), 1, 2, "SUBSCRIBE packets")
        mp.expect("resumed")
        link.send(broker.publish("t", str(n)))
        mp.expect(f"got b't' b'{n}'")
    link.send(broker.publish("end"))
    link.expect(broker.DISCONNECT)


def answer_subscribe(link, topic, qos):
    """Answers one SUBSCRIBE, and another one that follows."""
    link.send(broker.suback(link.expect_subscribe(topic, qos), qos))
    if link._fill(0.1) is None and not link.buffer:
        return 1
    link.send(broker.suback(link.expect_subscribe(topic, qos), qos))
    return 2


@scenario(idle=True)
def the_main_script_resumes(t):
    mp, link, b = t.connected("""
        reports = 0
        def on_error(text):
            global reports
            reports += 1
        c.error_register_cb(on_error)
        for n in range(4):
            try:
                serve(c)
            except OSError as e:
                say("failed", c.get_mqttsta())
            c.close()
            tell(c.connect)
            tell(c.subscribe, "t", 1)
        serve(c)
        until = time.ticks_add(time.ticks_ms(), 5000)
        while reports < 4 and time.ticks_diff(until, time.ticks_ms()) > 0:
            pause(10)
        say(reports)
        c.disconnect()
    """, helpers=HELPERS, reconn=False)
    for n in range(4):
        link.send(broker.publish("t", str(n)))
        mp.expect(f"got b't' b'{n}'")
        link.fin()
        mp.expect("failed 2")
        link = b.welcome(session=False)
        mp.expect("0")
        answer_subscribe(link, "t", 1)
        mp.expect("None")
    link.send(broker.publish("end"))
    mp.expect("4")  # each failure is reported, however quick the script is
    link.expect(broker.DISCONNECT)


@scenario(threads=True)
def wait_msg_waits_with_a_connect_elsewhere(t):
    b = t.broker()
    for reconn in True, False:
        mp = t.mp(f"""
            c = client(reconn={reconn})
            end = start(tell, c.connect)
            hear()
            serve(c)
            end()
            c.disconnect()
        """, b, HELPERS)
        link = b.accept()
        link.expect_connect()
        mp.tell()
        mp.asleep()
        mp.silent(100)
        link.send(broker.connack())
        mp.expect("0")
        link.send(broker.publish("t", "m"), broker.publish("end"))
        mp.expect("got b't' b'm'")
        link.expect(broker.DISCONNECT)
        mp.finish()


@scenario
def publish_is_not_true_when_the_error_callback_disconnects(t):
    # what disconnect lets go has not been acknowledged
    for n in range(3):
        mp, link, _ = t.connected("""
            c.error_register_cb(lambda text: c.disconnect())
            tell(c.publish, "t", "x", False, 1)
        """, reconn=False, keepalive=0)
        link.expect_publish("t", "x", qos=1)
        time.sleep(0.1 * n)
        link.fin()
        mp.match("OSError .*")
        link.expect_end()
        mp.finish()


@scenario(idle=True, threads=True)
def who_waits_sees_a_failure_though_the_error_callback_connects_anew(t):
    mp, link, b = t.connected("""
        def again(text):
            c.close()
            c.connect()
        c.error_register_cb(again)
        end = start(tell, c.publish, "t", "m", False, 1)
        tell(c.wait_msg)
        end()
        hear()
        c.disconnect()
    """, reconn=False, keepalive=1)
    link.expect(broker.publish("t", "m", qos=1, id=1), broker.PINGREQ)  # without an answer
    second = b.welcome(keepalive=1)
    for _ in range(2):
        mp.match("OSError .*")
    second.expect(broker.publish("t", "m", qos=1, id=1, dup=True))
    second.send(broker.puback(1))
    mp.tell()
    second.expect(broker.DISCONNECT)


@scenario(threads=True)
def system_exit_in_the_error_callback_ends_nothing(t):
    mp, link, b = t.connected("""
        def on_error(text):
            c.connect()
            c.subscribe("x")
            say("again")
            raise SystemExit
        c.error_register_cb(on_error)
        say("ready")
        hear()
        say(c.get_mqttsta())
        tell(c.publish, "t", "m", qos=1)
        c.disconnect()
    """, reconn=False)
    mp.expect("ready")
    link.fin()
    link = b.welcome()
    link.send(broker.suback(link.expect_subscribe("x")))
    mp.expect("again")
    time.sleep(0.2)  # for what it may do after the callback
    mp.tell()
    mp.expect("0")
    link.send(broker.puback(link.expect_publish("t", "m", qos=1)))
    mp.expect("True")
    link.expect(broker.DISCONNECT)


def failure_met_by(t, what):
    """The call meets it, and so, without threads, it reports it: `connect` in the error callback finds nobody before it."""
    mp, link, b = t.connected("""
        told = []
        def on_error(text):
            c.connect()
            told.append(c.get_mqttsta())
        c.error_register_cb(on_error)
        c.set_callback(lambda topic, msg: (say("callback"), hear()))
        say("ready")
        WHAT
        if _thread:
            while not told:
                pause(5)
        say(told)
        c.disconnect()
    """.replace("WHAT", what), helpers=HELPERS, reconn=False)
    mp.expect("ready")
    if "wait_msg" in what:
        link.send(broker.publish("t", "m", qos=1, id=7))
        mp.expect("callback")
    link.rst()
    time.sleep(0.1)  # until the reset has come
    mp.tell()
    link = b.welcome()
    mp.expect("[0]")
    sent = link.packet()
    if sent == broker.PINGREQ:  # the internal thread was quicker, so `ping` met the new connection
        sent = link.packet()
    t.equal(sent, broker.DISCONNECT, "the end")


@scenario
def a_failure_that_ping_meets(t):
    failure_met_by(t, "hear(); outcome(c.ping)")


@scenario
def a_failure_that_the_acknowledgement_after_a_callback_meets(t):
    failure_met_by(t, "outcome(c.wait_msg)")
