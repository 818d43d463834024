"""subscribe and unsubscribe: the bytes, the answers, the time-outs, and what a new connect repeats."""

import broker
from harness import scenario


@scenario
def waits_for_the_suback(t):
    mp, link, _ = t.connected("""
        for topic in "a/b", b"a/b", "a/+/b", "#", "+", "$SYS/#", "tä/#":
            for qos in 0, 1, 2:
                tell(c.subscribe, topic, qos)
        tell(c.subscribe, "default")
        tell(c.subscribe, topic="kw", qos=1)
        c.disconnect()
    """)
    for topic in "a/b", "a/b", "a/+/b", "#", "+", "$SYS/#", "tä/#":
        for qos in 0, 1, 2:
            id = link.expect_subscribe(topic, qos)
            link.send(broker.suback(id, qos))
            mp.expect("None")
    id = link.expect_subscribe("default", 0)
    link.idle(100)
    mp.silent(1)
    link.send(broker.suback(id))
    mp.expect("None")
    id = link.expect_subscribe("kw", 1)
    link.dribble(broker.suback(id, 0))  # granted less than asked for: no failure
    mp.expect("None")
    link.expect(broker.DISCONNECT)


@scenario
def needs_no_callback(t):
    b = t.broker()
    mp = t.mp("""
        c = MQTTClient("c", HOST, PORT)
        c.connect()
        tell(c.subscribe, "t")
        c.set_callback(show)
        c.wait_msg()
        c.disconnect()
    """, b)
    link = b.welcome()
    link.send(broker.suback(link.expect_subscribe("t")), broker.publish("t", "m"))
    mp.expect("None", "got b't' b'm'")
    link.expect(broker.DISCONNECT)


@scenario
def a_refusal_raises_128(t):
    mp, link, _ = t.connected("""
        try:
            c.subscribe("secret", 1)
        except MQTTException as e:
            say(e.args[0], isinstance(e.args[1], str) and len(e.args[1]) > 3)
        tell(c.subscribe, "open", 1)
        c.disconnect()
    """)
    link.send(broker.suback(link.expect_subscribe("secret", 1), 128))
    mp.expect("128 True")
    link.send(broker.suback(link.expect_subscribe("open", 1), 1))
    mp.expect("None")
    link.expect(broker.DISCONNECT)


@scenario(idle=True)
def no_suback_in_5_s(t):
    mp, link, _ = t.connected("""
        clock(c.subscribe, "t", 1)
        clock(c.unsubscribe, "t")
        serve(c)
        tell(c.subscribe, "u")
        c.disconnect()
    """)
    first = link.expect_subscribe("t", 1)
    mp.took("OSError ETIMEDOUT", 4900, 6500)
    second = link.expect_unsubscribe("t")
    mp.took("OSError ETIMEDOUT", 4900, 6500)
    link.send(broker.suback(first, 1), broker.unsuback(second), broker.publish("end"))  # late, and no fault
    link.send(broker.suback(link.expect_subscribe("u")))
    mp.expect("None")
    link.expect(broker.DISCONNECT)


@scenario
def unsubscribe_waits_for_the_unsuback(t):
    mp, link, _ = t.connected("""
        for topic in "a/b", b"a/b", "a/+/#", "never subscribed":
            tell(c.unsubscribe, topic)
        c.disconnect()
    """)
    for topic in "a/b", "a/b", "a/+/#", "never subscribed":
        id = link.expect_unsubscribe(topic)
        link.idle(30)
        mp.silent(1)
        link.send(broker.unsuback(id))
        mp.expect("None")
    link.expect(broker.DISCONNECT)


@scenario(unix=True)
def topics_of_any_length(t):
    # QuecPython breaks from 123 bytes on
    sizes = [121, 122, 123, 124, 125, 128, 16378, 16379, 65535]
    mp, link, _ = t.connected("""
        for n in SIZES:
            tell(c.subscribe, "x" * n, 1)
            tell(c.unsubscribe, "x" * n)
        c.disconnect()
    """, names={"SIZES": sizes}, heap="8m")
    for size in sizes:
        link.send(broker.suback(link.expect_subscribe("x" * size, 1), 1))
        link.send(broker.unsuback(link.expect_unsubscribe("x" * size)))
        mp.expect("None", "None")
    link.expect(broker.DISCONNECT)


@scenario
def what_is_refused_is_not_sent(t):
    mp, link, _ = t.connected("""
        for args in ("",), (b"",), ("a\\0",), ("t", 3), ("t", -1), ("x" * 65536,), (b"\\xff",):
            tell(c.subscribe, *args)
        for args in (None,), (1,), ("t", "1"), ("t", None), ():
            tell(c.subscribe, *args)
        for args in ("",), ("a\\0",), ("x" * 65536,):
            tell(c.unsubscribe, *args)
        for args in (None,), (1,), ():
            tell(c.unsubscribe, *args)
        c.disconnect()
    """)
    for kind, times in ("ValueError", 7), ("TypeError", 5), ("ValueError", 3), ("TypeError", 3):
        for _ in range(times):
            mp.match(kind + " .+")
    link.expect(broker.DISCONNECT)


@scenario
def retained_messages_may_come_before_the_suback(t):
    mp, link, _ = t.connected("""
        tell(c.subscribe, "t/#", 1)
        say("not yet")
        for _ in range(3):
            c.wait_msg()
        c.disconnect()
    """)
    id = link.expect_subscribe("t/#", 1)
    link.send(broker.publish("t/1", "a", retain=True), broker.publish("t/2", "b", qos=1, id=5, retain=True), broker.suback(id, 1),
              broker.publish("t/3", "c"))
    mp.expect("None", "not yet", "got b't/1' b'a'", "got b't/2' b'b'", "got b't/3' b'c'")
    link.expect(broker.puback(5), broker.DISCONNECT)


@scenario
def the_link_breaks_instead_of_a_suback(t):
    for call in "subscribe", "unsubscribe":
        mp, link, _ = t.connected(f"""
            tell(c.{call}, "t")
            say(c.get_mqttsta())
        """, reconn=False)
        link.packet()
        link.fin()
        mp.match("OSError .*")
        mp.expect("2")
        link.expect_end()


SUBSCRIBED = """
    for topic, qos in ("zero", 0), ("one", 1), ("two", 2), ("gone", 1), ("changed", 0), ("refused", 1):
        outcome(c.subscribe, topic, qos)
    c.unsubscribe("gone")
    c.subscribe("changed", 2)
    c.close()
    say("closed")
    c.connect()
    serve(c)
    say("served")
    c.disconnect()
    c.connect()
    serve(c)
    c.disconnect()
"""


def subscribe_all(link):
    for topic, qos in ("zero", 0), ("one", 1), ("two", 2), ("gone", 1), ("changed", 0):
        link.send(broker.suback(link.expect_subscribe(topic, qos), qos))
    link.send(broker.suback(link.expect_subscribe("refused", 1), 128))
    link.send(broker.unsuback(link.expect_unsubscribe("gone")))
    link.send(broker.suback(link.expect_subscribe("changed", 2), 2))


def nothing_after_disconnect(mp, b, link):
    mp.expect("served")
    link.expect(broker.DISCONNECT)
    link = b.welcome(keepalive=0)
    link.idle(50)
    link.send(broker.publish("end"))
    link.expect(broker.DISCONNECT)


@scenario
def subscriptions_outlive_close_but_not_disconnect(t):
    mp, link, b = t.connected(SUBSCRIBED, keepalive=0)
    subscribe_all(link)
    mp.expect("closed")
    link.expect_end()
    link = b.welcome(session=False, keepalive=0)
    again = {}
    while len(again) < 4:  # in one packet or in several, in any order
        raw = link.packet()
        t.equal(raw[0], 0x82, "first byte")
        rest = broker.body(raw)[2:]
        codes = []
        while rest:
            n = rest[0] << 8 | rest[1]
            again[rest[2:2 + n].decode()] = rest[2 + n]
            codes.append(rest[2 + n])
            rest = rest[3 + n:]
        link.send(broker.suback(broker.packet_id(raw), *codes))
    t.equal(again, {"zero": 0, "one": 1, "two": 2, "changed": 2}, "subscribed again")
    link.send(broker.publish("end"))
    nothing_after_disconnect(mp, b, link)


@scenario
def a_session_at_the_broker_is_not_subscribed_again(t):
    mp, link, b = t.connected(SUBSCRIBED, keepalive=0)
    subscribe_all(link)
    mp.expect("closed")
    link.expect_end()
    link = b.welcome(session=True, keepalive=0)
    link.idle(50)
    link.send(broker.publish("end"))
    nothing_after_disconnect(mp, b, link)
