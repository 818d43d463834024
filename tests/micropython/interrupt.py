"""Ctrl-C at every moment: KeyboardInterrupt leaves the call, and the same client works on in the same process."""

import random
import time

import broker
from harness import scenario
from outage import library

HELPERS = '''
def interrupted(f, *args, **kw):
    try:
        say("ready")
        say("not interrupted:", outcome(f, *args, **kw))
    except KeyboardInterrupt:
        say("interrupted")

def works_on(c):
    tell(c.publish, "after", "0")
    tell(c.publish, "after", "1", qos=1)
    tell(c.publish, "after", "2", qos=2)
    tell(c.subscribe, "after", 1)
    c.wait_msg()
    c.disconnect()
'''


def connected(t, script, **options):
    mp, link, _ = t.connected(script, helpers=HELPERS, **options)
    return mp, link


def interrupt(mp):
    mp.expect("ready")
    mp.asleep()
    mp.interrupt()
    mp.expect("interrupted", within=2)


def works_on(mp, link, first_seen=False):
    """The other side of the script's `works_on`."""
    if not first_seen:
        link.expect_publish("after", "0")
    mp.expect("True")
    link.send(broker.puback(link.expect_publish("after", "1", qos=1)))
    mp.expect("True")
    id = link.expect_publish("after", "2", qos=2)
    link.send(broker.pubrec(id))
    link.expect(broker.pubrel(id))
    link.send(broker.pubcomp(id))
    mp.expect("True")
    link.send(broker.suback(link.expect_subscribe("after", 1), 1), broker.publish("after", "3", qos=1, id=3))
    mp.expect("None", "got b'after' b'3'")
    link.expect(broker.puback(3), broker.DISCONNECT)


@scenario
def in_wait_msg(t):
    mp, link = connected(t, """
        for _ in range(20):
            interrupted(c.wait_msg)
        works_on(c)
    """)
    for _ in range(20):
        interrupt(mp)
    works_on(mp, link)


@scenario(network=True)
def in_wait_msg_with_half_a_message_received(t):
    raw = broker.publish("t", b"x" * 100000, qos=1, id=5)
    for cut in 1, 3, 8, 2000, 60000, len(raw) - 1:
        mp, link = connected(t, """
            interrupted(c.wait_msg)
            c.wait_msg()
            works_on(c)
        """)
        link.send(raw[:cut])
        link.taken()
        interrupt(mp)
        link.send(raw[cut:])
        mp.expect("got b't' 100000 bytes")
        link.expect(broker.puback(5))
        works_on(mp, link)


@scenario
def in_publish_waiting_for_its_acknowledgement(t):
    for qos in 1, 2:
        mp, link = connected(t, f"""
            interrupted(c.publish, "t", "m", qos={qos})
            serve(c)
            works_on(c)
        """)
        id = link.expect_publish("t", "m", qos=qos)
        interrupt(mp)
        if qos == 1:  # it stays in flight: its acknowledgement is still awaited
            link.send(broker.puback(id))
        else:
            link.send(broker.pubrec(id))
            link.expect(broker.pubrel(id))
            link.send(broker.pubcomp(id))
        link.send(broker.publish("end"))
        works_on(mp, link)


@scenario
def in_publish_and_sent_again_after_a_new_connect(t):
    b = t.broker()
    mp, link = connected(t, """
        interrupted(c.publish, "t", "m", qos=1)
        c.close()
        c.connect()
        serve(c)
        works_on(c)
    """, broker=b)
    id = link.expect_publish("t", "m", qos=1)
    interrupt(mp)
    link.expect_end()
    link = b.welcome(session=True)
    t.equal(link.expect_publish("t", "m", qos=1, dup=True), id, "packet id")
    link.send(broker.puback(id), broker.publish("end"))
    works_on(mp, link)


@scenario
def in_subscribe_and_unsubscribe(t):
    mp, link = connected(t, """
        interrupted(c.subscribe, "t", 1)
        interrupted(c.unsubscribe, "t")
        works_on(c)
    """)
    id = link.expect_subscribe("t", 1)
    interrupt(mp)
    link.send(broker.suback(id, 1))
    id = link.expect_unsubscribe("t")
    interrupt(mp)
    link.send(broker.unsuback(id))
    works_on(mp, link)


@scenario
def in_the_callback(t):
    mp, link = connected(t, """
        def cb(topic, msg):
            say("ready")
            time.sleep(30)
            say("not interrupted")
        for qos in 0, 1, 2:
            c.set_callback(cb)
            try:
                c.wait_msg()
            except KeyboardInterrupt:
                say("interrupted")
            c.set_callback(show)
            c.wait_msg()
        works_on(c)
    """)
    for qos in 0, 1, 2:
        link.send(broker.publish("t", "m", qos=qos, id=8), broker.publish("t", str(qos)))
        interrupt(mp)
        if qos:
            link.expect(broker.puback(8) if qos == 1 else broker.pubrec(8))  # it counts as handled
        mp.expect(f"got b't' b'{qos}'")
    works_on(mp, link)


@scenario
def in_publish_with_a_full_socket(t):
    mp, link = connected(t, """
        n = 0
        msg = "x" * 1000
        def fill():
            global n
            while True:
                if c.publish("t", msg) is True:
                    n += 1
        interrupted(fill)
        say(n)
        hear()
        works_on(c)
    """, broker=t.broker(receive_buffer=4096), keepalive=0)
    time.sleep(0.5)
    interrupt(mp)
    n = int(mp.match("([0-9]+)")[1])
    for _ in range(n):
        link.expect_publish("t", "x" * 1000)
    mp.tell()
    raw = link.packet()
    if raw == broker.publish("t", "x" * 1000):  # the one that was interrupted: whole, or not at all
        raw = link.packet()
    t.equal(raw, broker.publish("after", "0"))
    works_on(mp, link, first_seen=True)


@scenario(unix=True)
def in_publish_with_half_a_large_message_sent(t):
    for kind, qos in ("bytes", 0), ("bytes", 1), ("bytearray", 0), ("bytearray", 1):
        mp, link = connected(t, f"""
            big = {kind}(b"x" * 8000000)
            interrupted(c.publish, "t", big, False, {qos})
            hear()
            if "{kind}" == "bytearray":
                big[:] = b"y" * 8000000
            works_on(c)
        """, broker=t.broker(receive_buffer=4096), keepalive=0, heap="64m")
        mp.expect("ready")
        time.sleep(0.3)
        mp.asleep()
        mp.interrupt()
        mp.expect("interrupted")
        mp.tell()
        raw = link.packet(within=20)  # the rest of it goes out before anything else
        id = broker.packet_id(raw)
        whole = raw == broker.publish("t", b"x" * 8000000, qos, id)
        if not whole and (kind, qos) == ("bytearray", 0):  # nobody promised a copy, but the stream is in order
            whole = len(raw) == len(broker.publish("t", b"x" * 8000000))
        t.true(whole, f"{kind}, qos {qos}: {broker.short(raw)}")
        if qos:
            link.send(broker.puback(id))
        works_on(mp, link)
        mp.finish()


@scenario(unix=True)
def in_connect(t):
    b = t.broker()
    mp = t.mp("""
        hole = MQTTClient("h", HOST, HOLE)
        for _ in range(3):
            interrupted(hole.connect)
        say(hole.get_mqttsta())
        c = client()
        for _ in range(3):
            interrupted(c.connect)
        say(c.get_mqttsta())
        hear()
        tell(c.connect)
        works_on(c)
    """, b, HELPERS, HOLE=t.black_hole().port)
    for silent in False, True:
        open_files = set()
        for _ in range(3):
            if silent:  # TCP is connected, the CONNACK never comes
                link = b.accept()
                link.expect_connect()
            mp.expect("ready")
            mp.asleep()
            open_files.add(mp.open_files())
            mp.interrupt()
            mp.expect("interrupted", within=2)
            if silent:
                link.expect_end()
        mp.expect("-1")
        t.equal(len(open_files), 1, f"different numbers of open files {open_files}")
    mp.tell()
    link = b.welcome()
    mp.expect("0")
    works_on(mp, link)


RANDOM = {
    "publish_qos0": ("c.publish('t', 'm')", 0),
    "publish_qos1": ("c.publish('t', 'm', False, 1)", 0),
    "publish_qos2": ("c.publish('t', 'm', False, 2)", 0),
    "publish_without_waiting": ("c.publish('t', 'm', False, 1, False) or c.check_msg()", 0),
    "publish_large": ("c.publish('t', large, False, 1)", 0),
    "check_msg": ("c.check_msg()", 1),
    "wait_msg": ("c.wait_msg()", 1),
    "subscribe": ("c.subscribe('t', 1)", 0),
    "ping": ("c.ping()", 0),
}


def at_random_moments(t, call, flood):
    """The runner interrupts a busy loop 40 times, at moments nobody chose; each time the next round starts clean."""
    mp, link = connected(t, f"""
        c.set_callback(None)
        large = bytes(50000)
        for _ in range(40):
            try:
                say("ready")
                while True:
                    {call}
            except KeyboardInterrupt:
                pass
            say("interrupted")
            hear()
        c.set_callback(show)
        serve(c)
        say("alive", c.get_mqttsta())
        for qos in 0, 1, 2:
            tell(c.publish, "last", "m", False, qos)
        c.disconnect()
    """, keepalive=0)
    chance = random.Random(call)
    with link.answering() as side:
        for n in range(40):
            mp.expect("ready")
            if flood:
                for id in range(1, 40):
                    link.send(broker.publish("in", b"m" * 100, qos=id % 3, id=id))
            time.sleep(chance.random() * 0.02)
            mp.interrupt()
            mp.expect("interrupted", within=5)
            mp.tell()
        link.send(broker.publish("end"))
        mp.until("alive 0")
        mp.expect("True", "True", "True")
        mp.finish()
    t.equal([broker.body(raw)[2:6] for raw in side.published[-3:]], [b"last"] * 3, "published in the end")


def _make(name):
    call, flood = RANDOM[name]

    @scenario(network=True)
    def run(t):
        at_random_moments(t, call, flood)
    return run


for _name in RANDOM:
    globals()[f"at_random_moments_in_{_name}"] = _make(_name)


@scenario(network=True)
def at_random_moments_in_connect_and_disconnect(t):
    # each connect makes a thread, and no signal may come upon one in the making
    b = t.mosquitto()
    mp = t.mp("""
        c = client()
        for _ in range(150):
            try:
                say("ready")
                while True:
                    c.connect()
                    c.disconnect()
            except KeyboardInterrupt:
                pass
            say("interrupted")
        say(c.connect(), c.publish("last", "m", qos=1))
        c.disconnect()
    """, b.port)
    chance = random.Random(1)
    for n in range(150):
        mp.expect("ready")
        time.sleep(chance.random() * 0.01)
        mp.interrupt()
        mp.expect("interrupted", within=5)
    mp.expect("0 True")
    mp.finish()


@scenario(threads=True, unix=True, limit=90)
def as_connect_ends_it_leaves_the_client_its_thread(t):
    b = t.broker()
    mp = t.mp("""
        import select
        poll = select.poll()
        poll.register(sys.stdin, 0)
        c = client(keepalive=0)
        while hear() == "go":
            try:
                try:
                    c.connect()
                    end = "connected"
                except KeyboardInterrupt:
                    end = "interrupted %d" % c.get_mqttsta()
                # as pause() does, but without an import or an allocation: MicroPython does not bear Ctrl-C in those
                for _ in poll.ipoll(50):
                    pass
                for _ in range(5):
                    pass  # MicroPython looks for Ctrl-C when it jumps
            except KeyboardInterrupt:
                end += ", late"
            say(end)
            hear()
            if end == "interrupted 0":
                c.connect()
                say("again")
                while c.get_mqttsta() == 0:
                    pause(5)
                say("lost")
            c.disconnect()
    """, b)
    for n in range(150):
        mp.tell("go")
        link = b.accept()
        link.strict = False
        link.packet()
        link.sock.sendall(broker.connack())
        until = time.perf_counter() + n * 2e-6
        while time.perf_counter() < until:
            pass
        mp.interrupt()
        end = mp.match("(connected|interrupted -?[0-9])(, late)?")[0]
        mp.tell()
        if end == "interrupted 0":
            # the thread sees the end of the next connection
            link = b.accept()
            link.strict = False
            link.packet()
            link.send(broker.connack())
            mp.expect("again")
            link.fin()
            mp.expect("lost")
    mp.tell("end")


AS_READ = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <signal.h>
#include <string.h>
#include <sys/types.h>

static ssize_t seen(const char *buffer, ssize_t n) {
    if (n > 0 && memmem(buffer, n, "SIGINT", 6) != NULL) {
        raise(SIGINT);
    }
    return n;
}

ssize_t read(int fd, void *buffer, size_t size) {
    ssize_t (*next)(int, void *, size_t) = dlsym(RTLD_NEXT, "read");
    return seen(buffer, next(fd, buffer, size));
}

ssize_t recv(int fd, void *buffer, size_t size, int flags) {
    ssize_t (*next)(int, void *, size_t, int) = dlsym(RTLD_NEXT, "recv");
    return seen(buffer, next(fd, buffer, size, flags));
}
"""


@scenario(unix=True, tcp=True)
def as_a_message_is_read_keeps_it(t):
    # its callback has not begun, so it is not handled
    for qos in 0, 1, 2:
        b = t.broker()
        mp = t.mp("""
            c = client()
            seen = []
            c.set_callback(lambda topic, msg: seen.append(msg))
            c.connect()
            def receive():
                while b"later" not in seen:
                    c.wait_msg()
            try:
                receive()
            except KeyboardInterrupt:
                say("interrupted")
            receive()
            say(seen)
            c.disconnect()
        """, b, environment={"LD_PRELOAD": library("as_read", AS_READ)})
        link = b.welcome()
        mp.asleep()
        link.send(broker.publish("t", "SIGINT", qos=qos, id=5))
        mp.expect("interrupted")
        if qos:
            link.expect(broker.puback(5) if qos == 1 else broker.pubrec(5))
        link.send(broker.publish("t", "later"))
        mp.expect("[b'SIGINT', b'later']")
        link.expect(broker.DISCONNECT)
