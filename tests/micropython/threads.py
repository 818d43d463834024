"""Several threads on one client. (What the internal thread does by itself is not tested here.)"""

import textwrap

import broker
from harness import scenario

LISTENER = """
import _thread

def listen():
    while True:
        r = outcome(c.wait_msg)
        if r != "None" or c.get_mqttsta() != 0:
            say("listener:", r)
            break

def start_listening():
    _thread.stack_size(0x2000)
    end = start(listen)
    _thread.stack_size(0)
    return end
"""


def listening(t, script, **options):
    """A script whose second thread sits in wait_msg, as QuecPython's scripts do; the first goes on at `mp.tell()`."""
    mp, link, b = t.connected("end = start_listening()\nhear()\n" + textwrap.dedent(script), helpers=LISTENER, **options)
    mp.asleep()
    return mp, link, b


@scenario(threads=True)
def disconnect_ends_a_waiting_thread(t):
    mp, link, _ = listening(t, """
        c.disconnect()
        end()
        say(c.get_mqttsta())
    """)
    mp.tell()
    mp.expect("listener: None", "-1")
    link.expect(broker.DISCONNECT)
    link.expect_end()


@scenario(threads=True)
def close_raises_in_a_waiting_thread_at_once(t):
    mp, link, _ = listening(t, """
        t0 = time.ticks_ms()
        c.close()
        end()
        clock(lambda: time.ticks_diff(time.ticks_ms(), t0) < 500)
    """)
    mp.tell()
    mp.match("listener: OSError .*")
    mp.took("True", 0, 100)
    link.expect_end()


@scenario(threads=True)
def connect_again_after_a_waiting_thread_was_let_go(t):
    mp, link, b = listening(t, """
        for _ in range(5):
            c.disconnect()
            end()
            c.connect()
            end = start_listening()
            hear()
        c.disconnect()
        end()
    """)
    for n in range(5):
        mp.tell()
        link.expect(broker.DISCONNECT)
        link.expect_end()
        mp.expect("listener: None")
        link = b.welcome()
        link.send(broker.publish("t", str(n)))
        mp.expect(f"got b't' b'{n}'")
        mp.asleep()
    mp.tell()
    link.expect(broker.DISCONNECT)
    mp.expect("listener: None")


@scenario(threads=True)
def publish_while_another_thread_waits(t):
    mp, link, _ = listening(t, """
        for qos in 0, 1, 2:
            clock(c.publish, "t", "m", False, qos)
        clock(c.subscribe, "t", 1)
        clock(c.unsubscribe, "t")
        hear()
        c.disconnect()
        end()
    """)
    mp.tell()
    link.expect_publish("t", "m")
    mp.took("True", 0, 500)
    link.send(broker.puback(link.expect_publish("t", "m", qos=1)))
    mp.took("True", 0, 500)  # whichever thread reads the acknowledgement
    id = link.expect_publish("t", "m", qos=2)
    link.send(broker.pubrec(id))
    link.expect(broker.pubrel(id))
    link.send(broker.pubcomp(id))
    mp.took("True", 0, 500)
    link.send(broker.suback(link.expect_subscribe("t", 1), 1))
    mp.took("None", 0, 500)
    link.send(broker.unsuback(link.expect_unsubscribe("t")))
    mp.took("None", 0, 500)
    link.send(broker.publish("in", "m", qos=2, id=3))
    mp.expect("got b'in' b'm'")
    link.expect(broker.pubrec(3))
    mp.asleep()
    mp.tell()
    link.expect(broker.DISCONNECT)
    mp.expect("listener: None")


GATE = """
import _thread
gate = _thread.allocate_lock()
gate.acquire()

def cb(topic, msg):
    say("in")
    gate.acquire()
    say("out")
"""


@scenario(threads=True)
def no_lock_is_held_in_a_callback(t):
    mp, link, _ = t.connected("""
        c.set_callback(cb)
        end = start(c.wait_msg)
        hear()
        clock(c.get_mqttsta)
        clock(c.publish, "t", "m", False, 0)
        clock(c.publish, "t", "m", False, 1)
        clock(c.subscribe, "t")
        clock(c.ping)
        gate.release()
        end()
        c.disconnect()
    """, helpers=GATE)
    link.send(broker.publish("in", "m", qos=1, id=9))
    mp.expect("in")
    mp.tell()
    mp.took("0", 0, 200)
    link.expect_publish("t", "m")
    mp.took("True", 0, 200)
    link.send(broker.puback(link.expect_publish("t", "m", qos=1)))
    mp.took("True", 0, 500)
    link.send(broker.suback(link.expect_subscribe("t")))
    mp.took("None", 0, 500)
    link.expect(broker.PINGREQ)
    link.send(broker.PINGRESP)
    mp.took("None", 0, 200)
    mp.expect("out")
    link.expect(broker.puback(9), broker.DISCONNECT)


@scenario(threads=True)
def disconnect_while_a_callback_runs_elsewhere(t):
    mp, link, _ = t.connected("""
        c.set_callback(cb)
        end = start(tell, c.wait_msg)
        hear()
        clock(c.disconnect)
        gate.release()
        end()
    """, helpers=GATE)
    link.send(broker.publish("in", "1", qos=1, id=9), broker.publish("in", "2"))
    mp.expect("in")
    mp.tell()
    mp.took("None", 0, 200)
    link.expect(broker.DISCONNECT)
    mp.expect("out", "None")


@scenario(threads=True)
def connect_while_a_callback_runs_elsewhere(t):
    # the acknowledgement of a message of the old connection is no business of the new one
    mp, link, b = t.connected("""
        c.set_callback(cb)
        end = start(tell, c.wait_msg)
        hear()
        c.disconnect()
        c.connect()
        gate.release()
        end()
        c.set_callback(show)
        serve(c)
        c.disconnect()
    """, helpers=GATE)
    link.send(broker.publish("in", "1", qos=1, id=9))
    mp.expect("in")
    mp.tell()
    link.expect(broker.DISCONNECT)
    link = b.welcome(session=False)
    mp.expect("out", "None")
    link.idle(50)
    link.send(broker.publish("in", "2", qos=1, id=9), broker.publish("end"))
    mp.expect("got b'in' b'2'")
    link.expect(broker.puback(9), broker.DISCONNECT)


@scenario(threads=True)
def packets_of_several_threads_do_not_mix(t):
    mp, link, _ = t.connected("""
        def work(k):
            bad = 0
            for n in range(60):
                r = c.publish("t%d" % k, bytes([k]) * (1 + n * 997 % 30000), False, (k + n) % 3)
                if r is not True:
                    bad += 1
            say("worker", k, "bad", bad)
        ends = [start(work, k) for k in range(4)]
        for end in ends:
            end()
        c.disconnect()
    """, heap="16m")
    with link.answering() as side:
        lines = sorted(mp.line(30) or "" for _ in range(4))
        mp.finish()
    t.equal(lines, [f"worker {k} bad 0" for k in range(4)])
    for k in range(4):
        mine = [raw for raw in side.published if broker.body(raw)[2:4] == b"t%d" % k]
        want = [broker.publish(f"t{k}", bytes([k]) * (1 + n * 997 % 30000), (k + n) % 3, broker.packet_id(raw))
                for n, raw in enumerate(mine)]
        t.equal(mine == want and len(mine), 60, f"messages of thread {k}, whole and in order")


@scenario(threads=True)
def every_message_goes_to_one_of_two_waiting_threads(t):
    mp, link, _ = t.connected("""
        import _thread
        got = [0] * 500
        lock = _thread.allocate_lock()
        def cb(topic, msg):
            with lock:
                got[int(msg)] += 1
                if sum(got) == 500:
                    say("all", set(got))
        def listen():
            r = "None"
            while r == "None" and c.get_mqttsta() == 0:
                r = outcome(c.wait_msg)
            say("ended", r)
        c.set_callback(cb)
        ends = [start(listen), start(listen)]
        hear()
        c.disconnect()
        for end in ends:
            end()
    """)
    with link.answering():
        for n in range(500):
            link.send(broker.publish("t", str(n), qos=n % 3, id=n + 1))
        mp.expect("all {1}", within=20)
        mp.asleep()
        mp.tell()
        mp.expect("ended None", "ended None")
        mp.finish()


@scenario(threads=True)
def the_state_is_1_while_connecting(t):
    b = t.broker()
    mp = t.mp("""
        c = client()
        end = start(tell, c.connect)
        hear()
        clock(c.get_mqttsta)
        end()
        say(c.get_mqttsta())
        c.disconnect()
    """, b)
    link = b.accept()
    link.expect_connect()
    mp.tell()
    mp.took("1", 0, 50)
    link.send(broker.connack())
    mp.expect("0", "0")
    link.expect(broker.DISCONNECT)


@scenario(threads=True)
def disconnect_and_close_stop_a_connect(t):
    for call in "disconnect", "close":
        for silent in t.black_hole(), t.broker():
            mp = t.mp(f"""
                c = client()
                end = start(tell, c.connect)
                hear()
                c.{call}()
                t0 = time.ticks_ms()
                end()
                say(c.get_mqttsta(), "in time" if time.ticks_diff(time.ticks_ms(), t0) < 500 else "late")
            """, silent)
            mp.asleep()
            mp.tell()
            mp.match(r"MQTTException -\w+")
            mp.expect("-1 in time")


@scenario(threads=True)
def ctrl_c_while_another_thread_waits(t):
    mp, link, _ = listening(t, """
        for _ in range(10):
            try:
                say("ready")
                hear()
            except KeyboardInterrupt:
                say("interrupted")
            hear()
        tell(c.publish, "t", "m", qos=1)
        c.disconnect()
        end()
    """)
    mp.tell()
    for n in range(10):
        mp.expect("ready")
        mp.asleep()
        mp.interrupt()
        mp.expect("interrupted", within=3)
        link.send(broker.publish("t", str(n), qos=1, id=n + 1))
        mp.expect(f"got b't' b'{n}'")
        link.expect(broker.puback(n + 1))
        mp.tell()
    link.send(broker.puback(link.expect_publish("t", "m", qos=1)))
    mp.expect("True")
    link.expect(broker.DISCONNECT)
    mp.expect("listener: None")


@scenario(threads=True)
def the_collector_runs_while_a_thread_waits(t):
    mp, link, _ = listening(t, """
        for n in range(300):
            junk = [bytearray(100) for _ in range(50)]
            gc.collect()
            if n % 10 == 0:
                c.publish("t", "m" * n, False, 1)
        say("done")
        hear()
        c.disconnect()
        end()
    """)
    mp.tell()
    with link.answering():
        messages = [f"{n:03} " * 10 for n in range(100)]
        for n, message in enumerate(messages):
            link.send(broker.publish("in", message, qos=n % 3, id=n + 1))
        said = mp.until("done", within=40)
        while len(said) < 100:
            said.append(mp.line())
        t.equal(said, [f"got b'in' b'{message}'" for message in messages], "messages")
        mp.asleep()
        mp.tell()
        mp.expect("listener: None")
        mp.finish()


@scenario(threads=True, unix=True, tcp=True)
def clients_that_connect_at_once_leave_the_stack_size_alone(t):
    b = t.broker()
    mp = t.mp("""
        import _thread
        def work():
            c = client()
            for _ in range(10):
                c.connect()
                c.disconnect()
        sizes = set()
        for _ in range(10):
            ends = [start(work) for _ in range(3)]
            for end in ends:
                end()
            sizes.add(_thread.stack_size())
        say(*sizes)
    """, b)
    for _ in range(300):
        link = b.welcome()
        link.strict = False
    mp.expect("0", within=20)


@scenario(threads=True, limit=90)
def everything_at_once(t):
    # No order is expected, only that nothing crashes or hangs: threads use the client while another connects and disconnects
    # it. They begin together: MicroPython without a GIL loses what moves from a stack into a list while another thread
    # collects, and so might lose `ends`.
    b = t.broker()
    mp = t.mp("""
        c = client()
        c.set_callback(lambda topic, msg: None)
        go = stop = False
        def work(calls):
            n = 0
            while not go:
                pause(1)
            while not stop:
                outcome(calls[n % len(calls)])
                n += 1
                if n % 20 == 0:
                    gc.collect()
                if n % 100 == 0:
                    pause(1)
        ends = [start(work, calls) for calls in (
            [lambda: c.publish("t", "m" * 100), c.get_mqttsta, lambda: c.publish("t", b"m" * 3000, False, 1)],
            [lambda: c.publish("t", "m", False, 2, False), lambda: c.subscribe("t", 1), c.ping],
            [c.wait_msg],
            [c.check_msg, lambda: c.unsubscribe("t")])]
        go = True
        for n in range(40):
            outcome(c.connect)
            pause(n)
            c.disconnect() if n % 2 else c.close()
            pause(n % 7)
        stop = True
        for end in ends:
            end()
        say("and now in order:", c.connect())
        tell(c.publish, "t", "m", qos=2)
        c.disconnect()
    """, b)
    for n in range(41):
        link = b.accept()
        link.expect_connect()
        link.strict = False
        with Anything(link) as side:
            try:
                link.send(broker.connack(session=False))
                for id in range(1, 200):
                    link.send(broker.publish("in", b"x" * 100, qos=id % 3, id=id))
            except ConnectionError:
                pass
            if n == 40:
                mp.until("and now in order: 0", within=20)
                mp.expect("True")
                mp.finish()
            else:
                side.thread.join(20)


class Anything(broker.Answering):
    """Answers whatever ids are used, since the broker has forgotten the session each time, and until the connection ends,
    be it within a packet."""

    def _answer(self, raw):
        self.link.ids.clear()
        self.link.requests.clear()
        return super()._answer(raw)

    def _run(self):
        super()._run()
        if self.error and "end of stream" in str(self.error):
            self.error = None
