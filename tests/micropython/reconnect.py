"""Outages one by one: when the client tries again, what it sends then, and what the calls answer meanwhile. (All kinds of
outages by all that a script may be doing: outages.py.)"""

import textwrap
import time

import broker
from harness import scenario
from outage import HELPERS, Resolver, eventually, library, phase_of, tasks, tick


def connected(t, script, **options):
    options = {"keepalive": 0, **options}
    return t.connected(textwrap.dedent(script), helpers=HELPERS, **options)


def done(mp, link):
    mp.tell()
    link.expect(broker.DISCONNECT)


REST = """
rest(c)
until_state(c, 0)
c.disconnect()
"""


# --- when

def first_attempt(t, end, script=REST, prepare=None, ended=True):
    mp, link, b = connected(t, script)
    if prepare:
        prepare(mp, link)
    since = time.monotonic()
    end(link)
    if ended:
        link.expect_end(within=0.7)  # at once, not with the next attempt
    link = b.welcome(session=True, keepalive=0)
    t.between(time.monotonic() - since, 0.74, 1.5 + tick(t), "seconds to the first attempt")
    return mp, link


@scenario(idle=True)
def first_attempt_after_a_fin(t):
    done(*first_attempt(t, lambda link: link.fin()))


@scenario(idle=True)
def first_attempt_after_a_reset(t):
    done(*first_attempt(t, lambda link: link.rst(), ended=False))


@scenario(idle=True)
def first_attempt_after_garbage(t):
    done(*first_attempt(t, lambda link: link.send(b"\xff\xff\xff\xff\xff\xff")))


@scenario(idle=True)
def first_attempt_while_the_script_waits(t):
    mp, link = first_attempt(t, lambda link: link.fin(), """
        serve(c)
        c.disconnect()
    """, lambda mp, link: mp.asleep())
    link.send(broker.publish("in", "m", qos=1, id=3), broker.publish("end"))  # wait_msg has outlived the outage
    mp.expect("got b'in' b'm'")
    link.expect(broker.puback(3), broker.DISCONNECT)


@scenario(idle=True)
def first_attempt_while_the_script_publishes(t):
    mp, link = first_attempt(t, lambda link: link.rst(), """
        said = True
        while not told():
            r = c.publish("t", "m")
            if r is not said:
                say(r)
                said = r
        hear()
        c.disconnect()
    """, ended=False)
    mp.expect("False", "True")
    link.strict = False
    mp.tell()


@scenario(idle=True, threads=True)
def first_attempt_while_a_callback_runs(t):
    mp, link = first_attempt(t, lambda link: link.fin(), """
        def cb(topic, msg):
            say("in")
            hear()
            until_state(c, 0)
            say(c.get_mqttsta(), c.publish("t", "from the callback", qos=1))
        c.set_callback(cb)
        c.wait_msg()
        c.disconnect()
    """, lambda mp, link: (link.send(broker.publish("in", "m", qos=1, id=3)), mp.expect("in")))
    mp.tell()
    link.send(broker.puback(link.expect_publish("t", "from the callback", qos=1)))  # no PUBACK 3: that was another connection
    mp.expect("0 True")
    link.expect(broker.DISCONNECT)


STEPS = (0.74, 1.35), (1.49, 2.65), (2.99, 5.2)


def kicked(t, kick):
    """The attempts after the first connection are kicked, and come later and later."""
    mp, link, b = connected(t, "rest(c)\nc.disconnect()")
    link.fin()
    since = time.monotonic()
    link.expect_end()
    for low, high in STEPS:
        link = b.accept()
        t.between(time.monotonic() - since, low, high + tick(t), "seconds to the next attempt")
        link.expect_connect(keepalive=0)
        kick(link)
        since = time.monotonic()
        if link.sock.fileno() >= 0:
            link.expect_end()
    b.nobody(4000)  # it would be 8 s now
    mp.tell()


@scenario(idle=True)
def a_broker_that_takes_connect_and_kicks_is_no_storm(t):
    kicked(t, lambda link: link.fin())


@scenario(idle=True)
def a_broker_that_welcomes_and_kicks_is_no_storm(t):
    kicked(t, lambda link: (link.send(broker.connack(True)), link.fin()))


@scenario(idle=True)
def a_broker_that_resets_is_no_storm(t):
    kicked(t, lambda link: link.rst())


@scenario(idle=True)
def a_refusal_is_retried_like_any_other_failure(t):
    codes = iter((5, 3, 2))
    kicked(t, lambda link: link.send(broker.connack(code=next(codes))))


@scenario(idle=True)
def a_closed_port_is_tried_later_and_later(t):
    mp, link, b = connected(t, REST)
    b.down()
    link.fin()
    since = time.monotonic()
    link.expect_end()
    time.sleep(max(0, since + 4.3 - time.monotonic()))  # two attempts are refused: at 1 and 3 s; the next is due at 7 s
    b.up()
    link = b.welcome(session=True, keepalive=0)
    t.between(time.monotonic() - since, 5.2, 9.2, "seconds to the third attempt")
    done(mp, link)


@scenario(idle=True)
def a_link_that_held_starts_the_delays_anew(t):
    mp, link, b = connected(t, REST)
    for hold, (low, high) in (0, STEPS[0]), (0, STEPS[1]), (1.4, STEPS[0]), (0, STEPS[1]), (1.4, STEPS[0]):
        link.idle(hold * 1000)
        link.fin()
        since = time.monotonic()
        link.expect_end()
        link = b.welcome(session=True, keepalive=0)
        t.between(time.monotonic() - since, low, high + tick(t), f"seconds to the attempt after {hold} s")
    done(mp, link)


@scenario(idle=True)
def a_connect_that_fails_is_not_repeated(t):
    b = t.broker()
    mp = t.mp("""
        c = client(keepalive=0)
        tell(c.connect)
        rest(c)
        say(c.get_mqttsta())
    """, b, HELPERS)
    link = b.accept()
    link.expect_connect(keepalive=0)
    link.send(broker.connack(code=3))
    link.expect_end()
    mp.expect("MQTTException 3")
    b.nobody(2500)
    mp.tell()
    mp.expect("-1")


# --- what is sent then

@scenario(idle=True)
def connect_is_repeated_as_it_was(t):
    for clean in True, False:
        b = t.broker()
        mp = t.mp(f"""
            c = client(keepalive=33, user="u", password="p")
            c.set_last_will("will", "gone", True, 1)
            c.connect({clean})
            rest(c)
            until_state(c, 0)
            c.disconnect()
        """, b, HELPERS)
        fields = {"clean": clean, "keepalive": 33, "user": "u", "password": "p", "will": ("will", "gone", 1, True)}
        b.welcome(**fields).fin()
        done(mp, b.welcome(**fields))
        mp.finish()


@scenario(idle=True)
def in_flight_is_sent_again_in_order(t):
    for session in False, True:
        mp, link, b = connected(t, """
            for n, qos in enumerate((1, 2, 1, 2, 1)):
                tell(c.publish, "t", str(n), n == 4, qos, False)
            hear()
            c.check_msg()
            rest(c)
            until_state(c, 0)
            tell(c.publish, "t", "new", False, 1)
            c.disconnect()
        """)
        mp.expect(*["True"] * 5)
        ids = [link.expect_publish("t", str(n), qos, retain=n == 4) for n, qos in enumerate((1, 2, 1, 2, 1))]
        link.send(broker.puback(ids[0]), broker.pubrec(ids[1]))
        link.arrived()
        mp.tell()
        link.expect(broker.pubrel(ids[1]))
        link.fin()
        link.expect_end()
        link = b.welcome(session=session, keepalive=0)
        link.expect(broker.pubrel(ids[1]))
        for n, qos in (2, 1), (3, 2), (4, 1):
            t.equal(link.expect_publish("t", str(n), qos, retain=n == 4, dup=True), ids[n], "packet id")
        link.send(broker.pubcomp(ids[1]), broker.puback(ids[2]), broker.pubrec(ids[3]), broker.puback(ids[4]))
        link.expect(broker.pubrel(ids[3]))
        link.send(broker.pubcomp(ids[3]))
        mp.tell()
        link.send(broker.puback(link.expect_publish("t", "new", 1)))
        mp.expect("True")
        link.expect(broker.DISCONNECT)


@scenario(idle=True)
def in_flight_survives_several_outages(t):
    mp, link, b = connected(t, """
        c.publish("t", "one", False, 2, False)
        c.publish("t", "two", False, 1, False)
        rest(c)
        until_state(c, 0)
        c.disconnect()
    """)
    one, two = link.expect_publish("t", "one", 2), link.expect_publish("t", "two", 1)
    for stage in 0, 1, 2:
        link.fin()
        link.expect_end()
        link = b.welcome(session=True, keepalive=0)
        if stage < 2:
            t.equal(link.expect_publish("t", "one", 2, dup=True), one, "packet id")
        else:
            link.expect(broker.pubrel(one))
        t.equal(link.expect_publish("t", "two", 1, dup=True), two, "packet id")
        if stage == 1:
            link.send(broker.pubrec(one))
            link.expect(broker.pubrel(one))
    link.send(broker.pubcomp(one), broker.puback(two))
    link.taken()
    done(mp, link)


SUBSCRIPTIONS = """
for topic, qos in ("a", 0), ("b", 1), ("c", 2), ("refused", 1), ("gone", 2), ("late", 1):
    tell(c.subscribe, topic, qos)
tell(c.unsubscribe, "gone")
rest(c)
until_state(c, 0)
c.disconnect()
"""


def subscribed(t):
    mp, link, b = connected(t, SUBSCRIPTIONS)
    for topic, qos in ("a", 0), ("b", 1), ("c", 2), ("refused", 1), ("gone", 2), ("late", 1):
        id = link.expect_subscribe(topic, qos)
        if topic == "late":
            mp.expect("OSError ETIMEDOUT")
        else:
            link.send(broker.suback(id, 0x80 if topic == "refused" else qos))
            mp.expect("MQTTException 128" if topic == "refused" else "None")
    link.send(broker.unsuback(link.expect_unsubscribe("gone")))
    mp.expect("None")
    link.fin()
    link.expect_end()
    return mp, b


def subscribed_again(link, *subscriptions):
    for topic, qos in subscriptions:
        link.send(broker.suback(link.expect_subscribe(topic, qos), qos))


@scenario(idle=True)
def a_broker_without_the_session_is_asked_for_the_subscriptions(t):
    mp, b = subscribed(t)
    link = b.welcome(session=False, keepalive=0)
    subscribed_again(link, ("a", 0), ("b", 1), ("c", 2), ("late", 1))
    link.idle(200)
    done(mp, link)


@scenario(idle=True)
def a_broker_with_the_session_is_asked_for_what_it_did_not_answer(t):
    mp, b = subscribed(t)
    link = b.welcome(session=True, keepalive=0)
    subscribed_again(link, ("late", 1))
    link.idle(200)
    done(mp, link)


@scenario(idle=True)
def what_is_refused_after_an_outage_is_not_asked_for_again(t):
    mp, link, b = connected(t, """
        for n, topic in enumerate("abc"):
            tell(c.subscribe, topic, n)
        rest(c)
        until_state(c, 0)
        c.disconnect()
    """)
    for n, topic in enumerate("abc"):
        link.send(broker.suback(link.expect_subscribe(topic, n), n))
        mp.expect("None")
    link.fin()
    link = b.welcome(session=False, keepalive=0)
    for n, topic in enumerate("abc"):
        link.send(broker.suback(link.expect_subscribe(topic, n), 0x80 if topic == "b" else n))
    link.idle(50)
    link.fin()
    link = b.welcome(session=False, keepalive=0)
    subscribed_again(link, ("a", 0), ("c", 2))
    link.idle(200)
    done(mp, link)


@scenario(idle=True)
def a_subscription_that_an_outage_interrupts_is_asked_for_again(t):
    mp, link, b = connected(t, """
        tell(c.subscribe, "t", 1)
        rest(c)
        until_state(c, 0)
        c.disconnect()
    """)
    link.expect_subscribe("t", 1)
    link.fin()
    link = b.welcome(session=True, keepalive=0)
    subscribed_again(link, ("t", 1))
    mp.match("None|OSError ETIMEDOUT")
    done(mp, link)


@scenario(idle=True)
def an_unsubscription_that_an_outage_interrupts(t):
    for session in False, True:
        mp, link, b = connected(t, """
            tell(c.subscribe, "t", 1)
            tell(c.unsubscribe, "t")
            rest(c)
            until_state(c, 0)
            c.disconnect()
        """)
        subscribed_again(link, ("t", 1))
        mp.expect("None")
        link.expect_unsubscribe("t")
        link.fin()
        link = b.welcome(session=session, keepalive=0)
        if session:
            link.send(broker.unsuback(link.expect_unsubscribe("t")))
        mp.match("None|OSError .*")
        link.idle(200)
        done(mp, link)


@scenario(idle=True)
def incoming_qos2_stays_exactly_once(t):
    mp, link, b = connected(t, """
        serve(c)
        c.disconnect()
    """)
    link.send(broker.publish("in", "1", 2, 5))
    mp.expect("got b'in' b'1'")
    link.expect(broker.pubrec(5))
    link.fin()
    link.expect_end()
    link = b.welcome(session=True, keepalive=0)
    link.send(broker.publish("in", "1", 2, 5, dup=True))  # the PUBREC was lost
    link.expect(broker.pubrec(5))
    link.send(broker.pubrel(5))
    link.expect(broker.pubcomp(5))
    link.send(broker.publish("in", "2", 2, 5), broker.publish("end"))
    mp.expect("got b'in' b'2'")
    link.expect(broker.pubrec(5), broker.DISCONNECT)


# --- what the calls answer meanwhile

@scenario(idle=True)
def a_publish_that_an_outage_interrupts_is_delivered_later(t):
    for qos in 1, 2:
        mp, link, b = connected(t, f"""
            clock(c.publish, "t", "m", qos={qos})
            rest(c)
            until_state(c, 0)
            c.disconnect()
        """)
        id = link.expect_publish("t", "m", qos=qos)
        link.fin()
        mp.took("False", 0, 300)
        link.expect_end()
        link = b.welcome(session=True, keepalive=0)
        t.equal(link.expect_publish("t", "m", qos=qos, dup=True), id, "packet id")
        link.send(broker.puback(id) if qos == 1 else broker.pubrec(id))
        if qos == 2:
            link.expect(broker.pubrel(id))
            link.send(broker.pubcomp(id))
        link.taken()
        done(mp, link)


CALLS = """
until_state(c, 1)
if PHASE:
    rest(c)
clock(c.get_mqttsta)
clock(c.publish, "t", "lost")
clock(c.publish, "t", "kept1", False, 1)
clock(c.publish, "t", "kept2", False, 2)
clock(c.publish, "t", "kept3", False, 1, False)
clock(c.subscribe, "t")
clock(c.unsubscribe, "t")
clock(c.ping)
clock(c.check_msg)
n = 3
while True:
    r = c.publish("t", "fill", False, 1)
    if r is None:
        break
    n += 1
say(n >= 16)
clock(c.publish, "t", "no room", False, 2)
clock(c.publish, "t", "lost")
"""


def calls(mp):
    mp.took("1", 0, 50)
    for _ in range(3):
        mp.took("False", 0, 50)
    mp.match("(True|False) after [0-9]+ ms")  # `wait=False`
    mp.took("OSError ENOTCONN", 0, 50)
    mp.took("OSError ENOTCONN", 0, 50)
    mp.took("None", 0, 50)
    mp.took("None", 0, 50)
    mp.expect("True")
    mp.took("None", 0, 50)
    mp.took("False", 0, 50)


@scenario(idle=True)
def calls_between_two_attempts(t):
    mp, link, b = connected(t, CALLS + REST, names={"PHASE": 0})
    link.fin()
    link.expect_end()
    calls(mp)
    link = b.welcome(session=True, keepalive=0)
    link.expect_publish("t", "kept1", 1)
    link.expect_publish("t", "kept2", 2)
    link.expect_publish("t", "kept3", 1)
    link.expect_publish("t", "fill", 1)
    link.strict = False
    mp.tell()


def calls_in(t, phase):
    mp, b, link, _ = phase_of(t, phase, CALLS + """
clock(c.disconnect)
say(c.get_mqttsta())
say(outcome(c.publish, "t", "x"))
""")
    mp.tell()
    calls(mp)
    mp.took("None", 0, 50)
    mp.expect("-1", "OSError ENOTCONN")
    if phase == "connack":
        link.expect_end()
    elif phase == "dns":
        b.resolver.answer("127.0.0.1")  # the abandoned thread comes back, and touches nothing
    if phase in ("connack", "dns"):
        b.nobody(500)


@scenario(idle=True)
def calls_while_the_port_is_closed(t):
    calls_in(t, "port")


@scenario(idle=True)
def calls_while_tcp_hangs(t):
    calls_in(t, "tcp")


@scenario(idle=True)
def calls_while_connack_hangs(t):
    calls_in(t, "connack")


@scenario(idle=True, threads=True)
def calls_while_the_resolver_hangs(t):
    calls_in(t, "dns")


def close_in(t, phase):
    mp, b, link, choke = phase_of(t, phase, """
until_state(c, 1)
rest(c)
clock(c.close)
say(c.get_mqttsta())
tell(c.check_msg)
rest(c)
tell(c.connect)
c.disconnect()
""")
    mp.tell()
    mp.took("None", 0, 50)
    mp.expect("-1", "OSError ENOTCONN")
    if phase == "connack":
        link.expect_end()
    if phase in ("connack", "dns"):
        b.nobody(3000)  # no attempt follows
    elif phase == "port":
        b.up()
        b.nobody(3000)
    if phase == "tcp":
        choke.close()
        b.down()
        b.up()
    if phase == "dns":
        b.resolver.answer("127.0.0.1")
    mp.tell()
    link = b.welcome(keepalive=0, session=True)
    mp.expect("0")
    link.expect(broker.DISCONNECT)


@scenario(idle=True)
def close_while_the_port_is_closed(t):
    close_in(t, "port")


@scenario(idle=True)
def close_while_tcp_hangs(t):
    close_in(t, "tcp")


@scenario(idle=True)
def close_while_connack_hangs(t):
    close_in(t, "connack")


@scenario(idle=True, threads=True)
def close_while_the_resolver_hangs(t):
    close_in(t, "dns")


@scenario(idle=True, threads=True)
def the_thread_in_the_resolver_is_abandoned(t):
    mp, b, _, _ = phase_of(t, "dns", """
until_state(c, 1)
rest(c)
clock(c.disconnect)
hear()
tell(c.connect)
rest(c)
c.disconnect()
say("disconnected")
hear()
""")
    mp.tell()
    mp.took("None", 0, 50)
    mp.asleep()
    t.equal(tasks(mp), 2, "threads while the resolver hangs")
    asked = b.resolver.asked()
    mp.tell()
    eventually(t, lambda: b.resolver.asked() > asked, "connect does not ask the resolver")
    b.resolver.answer("127.0.0.1")  # to both of them
    link = b.welcome(keepalive=0)
    mp.expect("0")
    b.nobody(500)
    t.equal(tasks(mp), 2, "threads when the resolver has answered")
    done(mp, link)
    mp.expect("disconnected")
    eventually(t, lambda: tasks(mp) == 1, "the thread does not end", 0.5 + tick(t))
    mp.tell()


@scenario(idle=True, threads=True)
def wait_msg_ends_with_disconnect_and_close_while_reconnecting(t):
    for phase in "port", "tcp", "connack":
        for call, outcome in ("disconnect", "None"), ("close", "OSError .*"):
            mp, b, _, _ = phase_of(t, phase, f"""
end = start(tell, c.wait_msg)
until_state(c, 1)
hear()
c.{call}()
t0 = time.ticks_ms()
end()
clock(lambda: time.ticks_diff(time.ticks_ms(), t0) < 100)
""")
            mp.asleep()
            mp.tell()
            mp.match(outcome)
            mp.took("True", 0, 50)
            mp.finish()


@scenario(idle=True)
def ctrl_c_ends_a_wait_while_reconnecting(t):
    for phase in "port", "tcp", "connack":
        mp, b, _, _ = phase_of(t, phase, """
try:
    c.wait_msg()
except KeyboardInterrupt:
    say("interrupted", c.get_mqttsta())
clock(c.publish, "t", "m", False, 1)
clock(c.disconnect)
""")
        mp.interrupt()
        mp.expect("interrupted 1", within=2)
        mp.took("False", 0, 50)
        mp.took("None", 0, 50)
        mp.finish()


@scenario(idle=True, network=True)
def a_name_is_resolved_anew_for_each_attempt(t):
    b = t.broker()
    resolver = Resolver(t)
    mp = t.mp("""
        c = MQTTClient("c", "broker.test", PORT, keepalive=0)
        c.connect()
        rest(c)
        until_state(c, 0)
        c.disconnect()
    """, b, HELPERS, environment=resolver.environment)
    link = b.welcome(keepalive=0)
    t.equal(resolver.asked(), 1, "questions to the resolver")
    resolver.answer("gone")
    link.fin()
    link.expect_end()
    eventually(t, lambda: resolver.asked() == 2, "the resolver is not asked again", 2)
    if t.target.UNIX:  # the broker has moved; boards see one address of this machine only
        b = t.broker(host="127.0.0.2", port=b.port)
    resolver.answer(b.host)
    link = b.welcome(keepalive=0)
    t.equal(resolver.asked(), 3, "questions to the resolver")
    done(mp, link)


@scenario(idle=True)
def a_connack_that_never_comes_ends_the_attempt(t):
    mp, link, b = connected(t, REST)
    link.fin()
    link = b.accept()
    since = time.monotonic()
    link.expect_connect(keepalive=0)
    link.expect_end(within=25)
    t.between(time.monotonic() - since, 19, 22, "seconds")
    done(mp, b.welcome(session=True, keepalive=0))


@scenario(threads=True, idle=True)
def four_publishers_and_a_waiter_through_two_outages(t):
    mp, link, b = connected(t, """
        import _thread
        lock = _thread.allocate_lock()
        stop = False
        def work(k):
            n = [0, 0, 0]
            while not stop:
                qos = sum(n) % 3
                if c.publish("t%d/%d" % (k, qos), str(n[qos]), False, qos) is not None:
                    n[qos] += 1
                pause(10)
            say("worker", k, *n)
        ends = [start(work, k) for k in range(4)]
        end = start(serve, c)
        hear()
        stop = True
        for e in ends:
            e()
        say("stopped")
        end()
        c.disconnect()
    """)
    got = {}
    for n in range(3):
        with link.answering() as side:
            link.send(broker.publish("in", str(n), qos=1, id=n + 1))
            mp.expect(f"got b'in' b'{n}'")
            if n == 2:
                mp.tell()
                lines = sorted(mp.line() for _ in range(4))
                mp.expect("stopped")
                link.send(broker.publish("end"))
                mp.finish()
            else:
                until = time.monotonic() + 0.5
                while time.monotonic() < until or len(side.published) < 20:
                    time.sleep(0.01)
                link.rst()
                side.thread.join(5)
                side.error = None
        link.ids.clear()
        for raw in side.packets:
            if raw[0] >> 4 == broker.PUBLISH:
                body = broker.body(raw)
                topic, qos = body[2:6].decode(), raw[0] >> 1 & 3
                got.setdefault(topic, []).append(int(body[6 + 2 * (qos > 0):]))
        if n < 2:
            link = b.welcome(session=True, keepalive=0)
            link.strict = False
    for k, line in enumerate(lines):
        counts = [int(word) for word in line.split()[2:]]
        for qos in 1, 2:
            t.equal(sorted(set(got.get(f"t{k}/{qos}", []))), list(range(counts[qos])), f"messages t{k}/{qos}")


@scenario(threads=True)
def connect_sees_its_connack_whoever_reads_it(t):
    # and the end of the stream that comes with it
    b = t.broker()
    mp = t.mp("""
        def listen():
            while going:
                try:
                    c.wait_msg()
                except OSError:
                    pause(1)
        c = client(keepalive=0)
        going = True
        ends = [start(listen), start(listen)]
        for _ in range(60):
            clock(c.connect)
            c.disconnect()
        going = False
        for end in ends:
            end()
    """, b, HELPERS)
    for _ in range(60):
        link = b.accept()
        link.expect_connect(keepalive=0)
        link.strict = False
        link.sock.sendall(broker.connack())
        link.fin()
        mp.took("0", 0, 3000)


HANGS_ONCE = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <netdb.h>
#include <string.h>
#include <unistd.h>
int getaddrinfo(const char *host, const char *service, const struct addrinfo *hints, struct addrinfo **result) {
    static int calls;
    int (*next)(const char *, const char *, const struct addrinfo *, struct addrinfo **) = dlsym(RTLD_NEXT, "getaddrinfo");
    if (host != NULL && strcmp(host, "broker.test") == 0) {
        if (__atomic_add_fetch(&calls, 1, __ATOMIC_SEQ_CST) == 2) {
            sleep(10);
            return EAI_AGAIN;
        }
        host = "127.0.0.1";
    }
    return next(host, service, hints, result);
}
"""


@scenario(threads=True, unix=True, idle=True)
def a_thread_in_the_resolver_is_replaced(t):
    # by one that serves the next connection
    for how in "connect", "close", "disconnect":
        b = t.broker()
        mp = t.mp("""
            c = MQTTClient("c", "broker.test", PORT, keepalive=2)
            c.connect()
            until_state(c, 1)
            pause(1700)  # the internal thread is in the resolver
            if HOW != "connect":
                getattr(c, HOW)()
            c.connect()
            say("again")
            hear()
            c.disconnect()
        """, b, HELPERS, environment={"LD_PRELOAD": library("hangs_once", HANGS_ONCE)}, HOW=how)
        b.welcome(keepalive=2).fin()
        link = b.welcome(keepalive=2)
        mp.expect("again")
        link.expect(broker.PINGREQ, within=4)
        link.send(broker.PINGRESP)
        mp.tell()
        link.expect(broker.DISCONNECT)
        mp.finish(15)
