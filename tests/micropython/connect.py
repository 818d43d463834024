"""connect: the bytes of CONNECT, every answer to it, every way to fail, and the last will."""

import itertools

import broker
from harness import scenario
from outage import library


@scenario
def returns_0_for_every_kind_of_connect(t):
    b = t.broker()
    mp = t.mp("""
        for version in 3, 4:
            for keepalive in 0, 1, 600:
                for user, password in (None, None), ("u", None), ("u", "p"):
                    for clean in False, True:
                        c = MQTTClient("id", HOST, PORT, user, password, keepalive, version=version)
                        tell(c.connect, clean)
                        c.disconnect()
    """, b)
    for version, keepalive, (user, password), clean in itertools.product(
            (3, 4), (0, 1, 600), ((None, None), ("u", None), ("u", "p")), (False, True)):
        link = b.welcome(client_id="id", version=version, keepalive=keepalive, user=user, password=password, clean=clean)
        mp.expect("0")
        link.expect(broker.DISCONNECT)
        link.expect_end()


@scenario
def clean_session_by_keyword_and_by_default(t):
    b = t.broker()
    mp = t.mp("""
        c = client()
        for kw in {}, dict(clean_session=True), dict(clean_session=False), dict(clean_session=1):
            tell(c.connect, **kw)
            c.disconnect()
    """, b)
    for clean in (False, True, False, True):
        link = b.welcome(clean=clean)
        mp.expect("0")
        link.expect(broker.DISCONNECT)


@scenario
def session_present_makes_no_difference_to_the_script(t):
    mp, link, _ = t.connected("say(c.get_mqttsta()); c.disconnect()", session=True)
    mp.expect("0")
    link.expect(broker.DISCONNECT)


@scenario
def refusals_raise_the_return_code(t):
    b = t.broker()
    mp = t.mp("""
        for code in range(1, 6):
            c = client()
            try:
                c.connect()
            except ValueError as e:  # as QuecPython's scripts catch it
                say(isinstance(e, MQTTException), len(e.args), e.args[0], isinstance(e.args[1], str) and len(e.args[1]) > 3)
            say(c.get_mqttsta())
    """, b)
    for code in range(1, 6):
        link = b.accept()
        link.expect_connect()
        link.send(broker.connack(code=code))
        mp.expect(f"True 2 {code} True", "-1")
        link.expect_end()


@scenario
def connects_after_a_refusal(t):
    b = t.broker()
    mp = t.mp("""
        c = client()
        tell(c.connect)
        tell(c.connect)
        c.disconnect()
    """, b)
    link = b.accept()
    link.expect_connect()
    link.send(broker.connack(code=3))
    mp.expect("MQTTException 3")
    link.expect_end()
    link = b.welcome()
    mp.expect("0")
    link.expect(broker.DISCONNECT)


@scenario
def nobody_listens(t):
    b = t.broker()
    b.down()
    mp = t.mp("""
        c = client()
        try:
            c.connect()
        except MQTTException as e:
            say(words(e), isinstance(e.args[1], str) and len(e.args[1]) > 3, c.get_mqttsta())
    """, b)
    mp.expect("MQTTException -ECONNREFUSED True -1")


@scenario(idle=True)
def a_name_that_does_not_resolve(t):
    mp = t.mp("""
        for name in "no-such-host.invalid", "a..b", "x" * 300:
            tell(MQTTClient("c", name).connect)
    """, environment={"RES_OPTIONS": "timeout:1 attempts:1"} if t.target.UNIX else {})
    mp.expect(*["MQTTException -ENOENT"] * 3, within=40)


@scenario(idle=True)
def no_connack_in_20_s(t):
    b = t.broker()
    mp = t.mp("""
        c = client()
        clock(c.connect)
        say(c.get_mqttsta())
    """, b)
    link = b.accept()
    link.expect_connect()
    mp.took("MQTTException -ETIMEDOUT", 19500, 21500)
    mp.expect("-1")
    link.expect_end()


@scenario(idle=True)
def the_20_s_are_for_all_of_it(t):
    b = t.broker()
    mp = t.mp("clock(client().connect)", b)
    link = b.accept()
    link.expect_connect()
    for byte in broker.connack()[:3]:  # each sign of life comes in time, the whole does not
        link.idle(6000)
        link.send(bytes([byte]))
    mp.took("MQTTException -ETIMEDOUT", 19500, 21500)
    link.expect_end()


@scenario(idle=True)
def a_black_hole_in_20_s(t):
    mp = t.mp("clock(client().connect)", t.black_hole())
    mp.took("MQTTException -ETIMEDOUT", 19500, 21500)


@scenario
def the_peer_ends_before_its_connack(t):
    b = t.broker()
    mp = t.mp("""
        for _ in range(4):
            tell(client().connect)
    """, b)
    for cut in range(4):
        link = b.accept()
        link.expect_connect()
        link.send(broker.connack()[:cut])
        link.fin()
        mp.match(r"MQTTException -\w+")
        link.expect_end()


@scenario
def the_peer_resets_before_its_connack(t):
    b = t.broker()
    mp = t.mp("tell(client().connect)", b)
    link = b.accept()
    link.expect_connect()
    link.rst()
    mp.expect("MQTTException -ECONNRESET")


@scenario
def a_broken_peer_is_eproto(t):
    b = t.broker()
    first = [
        b"HTTP/1.1 400 Bad Request\r\n\r\n", bytes(4), b"\xff" * 64,
        broker.PINGRESP, broker.publish("t", "x"), broker.puback(1), broker.suback(1, 0), broker.DISCONNECT,
        broker.connect(), b"\x21\x02\x00\x00", b"\x20\x00", b"\x20\x01\x00", b"\x20\x03\x00\x00\x00",
        b"\x20\x02\x02\x00", b"\x20\x02\x80\x00", b"\x20\x02\x00\x06", b"\x20\x02\x00\xff", b"\x20\x82\x80\x80\x80\x00",
        b"\x20\xff\xff\xff\x7f",
    ]
    mp = t.mp("""
        for _ in range(N):
            c = client()
            clock(c.connect)
            say(c.get_mqttsta())
    """, b, N=len(first))
    for raw in first:
        link = b.accept()
        link.expect_connect()
        link.send(raw)
        mp.took("MQTTException -EPROTO", 0, 2000)  # at once, not when the time is over
        mp.expect("-1")
        link.expect_end()


@scenario
def connack_byte_by_byte(t):
    b = t.broker()
    mp = t.mp("""
        c = client()
        tell(c.connect)
        c.disconnect()
    """, b)
    link = b.accept()
    link.expect_connect()
    link.dribble(broker.connack())
    mp.expect("0")
    link.expect(broker.DISCONNECT)


@scenario
def messages_right_behind_the_connack_are_kept(t):
    b = t.broker()
    mp = t.mp("""
        c = client()
        tell(c.connect)
        c.wait_msg()
        c.wait_msg()
        c.disconnect()
    """, b)
    link = b.accept()
    link.expect_connect()
    link.send(broker.connack(session=True), broker.publish("t", "1"), broker.publish("t", "2", qos=1, id=9))
    mp.expect("0", "got b't' b'1'", "got b't' b'2'")
    link.expect(broker.puback(9), broker.DISCONNECT)


@scenario
def connect_while_connected_closes_first(t):
    mp, first, b = t.connected("""
        tell(c.connect)
        tell(c.publish, "t", "x")
        c.disconnect()
    """)
    second = b.welcome()
    first.expect_end()  # no DISCONNECT: it is close(), not disconnect()
    mp.expect("0", "True")
    second.expect_publish("t", "x")
    second.expect(broker.DISCONNECT)


# --- the last will

@scenario
def last_will_in_the_next_connect(t):
    b = t.broker()
    mp = t.mp("""
        for retain in False, True, 1, "yes", 0, None:
            for qos in 0, 1, 2:
                c = client()
                tell(c.set_last_will, "will/topic", "gone", retain, qos)
                c.connect()
                c.disconnect()
    """, b)
    for retain, qos in itertools.product((False, True, True, True, False, False), (0, 1, 2)):
        link = b.welcome(will=("will/topic", "gone", qos, retain))
        mp.expect("None")
        link.expect(broker.DISCONNECT)


@scenario
def last_will_shapes(t):
    b = t.broker()
    mp = t.mp("""
        for args, kw in (("t", ""), {}), ((b"t", b"\\x00\\xff"), {}), (("ü", "é"), dict(qos=1, retain=True)), \\
                        (("t", "x" * 65535), {}), ((), dict(topic="a", msg="b")):
            c = client()
            c.set_last_will("first", "replaced", True, 2)
            c.set_last_will(*args, **kw)
            c.connect(True)
            c.disconnect()
    """, b)
    for will in (("t", "", 0, False), ("t", b"\x00\xff", 0, False), ("ü", "é", 1, True), ("t", "x" * 65535, 0, False),
                 ("a", "b", 0, False)):
        link = b.welcome(clean=True, will=will)
        link.expect(broker.DISCONNECT)


@scenario
def last_will_with_credentials_keeps_the_order_of_the_payload(t):
    b = t.broker()
    t.mp("""
        c = MQTTClient("id", HOST, PORT, "user", "secret", version=3)
        c.set_last_will("w", "m", qos=1)
        c.connect()
        c.disconnect()
    """, b)
    link = b.welcome(client_id="id", version=3, user="user", password="secret", will=("w", "m", 1, False))
    link.expect(broker.DISCONNECT)


@scenario(unix=True)
def bad_wills(t):
    mp = t.mp("""
        c = client()
        for args in ("", "m"), ("a/+", "m"), ("#", "m"), ("a#", "m"), ("t\\0", "m"), ("t", "m", False, 3), ("t", "m", False, -1), \\
                    ("t", "x" * 65536), ("x" * 65536, "m"), (b"\\xff", "m"):
            tell(c.set_last_will, *args)
        for args in (1, "m"), ("t", 1), ("t", "m", False, "1"), (None, "m"), ("t", None):
            tell(c.set_last_will, *args)
    """, 1)
    for _ in range(10):
        mp.match("ValueError .+")
    for _ in range(5):
        mp.match("TypeError .+")


NO_THREAD = r"""
#include <errno.h>
#include <pthread.h>
int pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*routine)(void *), void *argument) {
    return EAGAIN;
}
"""


@scenario(threads=True, unix=True)
def a_thread_that_cannot_be_started(t):
    b = t.broker()
    mp = t.mp("""
        import _thread
        _thread.stack_size(100 * 1024)
        c = client()
        try:
            c.connect()
        except MQTTException as e:
            say(e.args)
        say(c.get_mqttsta(), _thread.stack_size())
    """, b, environment={"LD_PRELOAD": library("no_thread", NO_THREAD)})
    b.welcome()
    mp.expect("(-11, 'the internal thread could not be started')", "-1 102400")
