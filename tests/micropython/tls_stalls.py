"""TLS handshakes that hang, and reconnection over TLS."""

import contextlib
import threading
import time

import broker
import tls
from handshake import TRY, flight, scenario, served, silent, turned_away
from outage import HELPERS, eventually, tick


def halfway(t, b):
    """Answers the ClientHello by half."""
    link = silent(t, b)
    link.send(flight(link)[:400])
    link.taken()
    return link


@scenario(idle=True)
def a_handshake_that_hangs_ends_after_20_s(t):
    for begin in silent, halfway:
        b = t.broker()
        mp = t.mp("""
            ms = attempt(HOST, PORT)
            say("in time" if 19500 <= ms <= 21500 else ms)
        """, b, TRY)
        link = begin(t, b)
        mp.expect("MQTTException -ETIMEDOUT TLS handshake timed out -1", "in time", within=25)
        while link._fill(2):
            pass
        t.equal(link._fill(0), False, "the end of the connection")


@scenario(idle=True)
def each_sign_of_life_in_time_but_not_the_whole(t):
    b = t.broker()
    mp = t.mp("say(19500 <= attempt(HOST, PORT) <= 21500)", b, TRY)
    link = silent(t, b)
    data = flight(link)
    for at in range(6):
        link.send(data[at * 20:at * 20 + 20])
        time.sleep(3)
    mp.expect("MQTTException -ETIMEDOUT TLS handshake timed out -1", "True", within=10)


QUICK = '''
def quick(f, *args, **kw):
    """the outcome, and whether it took more than 50 ms"""
    t0 = time.ticks_ms()
    r = outcome(f, *args, **kw)
    ms = time.ticks_diff(time.ticks_ms(), t0)
    say(r if ms <= 50 else "%s after %d ms" % (r, ms))
'''


@scenario(idle=True, threads=True)
def while_connect_hangs_in_the_handshake_all_else_answers(t):
    for begin in silent, halfway:
        for call in "close", "disconnect":
            b = t.broker()
            mp = t.mp(f"""
                c = client(ssl=True)
                end = start(clock, c.connect)
                hear()
                quick(c.get_mqttsta)
                quick(c.publish, "t", "m")
                quick(c.publish, "t", "m", qos=1)
                quick(c.ping)
                quick(c.check_msg)
                quick(c.{call})
                end()
                quick(c.get_mqttsta)
            """, b, QUICK)
            link = begin(t, b)
            mp.tell()
            mp.expect("1", "False", "False", "None", "None")
            lines = sorted([mp.line(), mp.line()])
            t.equal(lines[1], "None", "what the call returns")
            t.true(lines[0].startswith("MQTTException -103 after "), lines[0])
            mp.expect("-1")
            while link._fill(2):
                pass
            t.equal(link._fill(0), False, "the end of the connection")


@scenario(idle=True)
def while_a_reconnection_hangs_in_the_handshake_all_else_answers(t):
    for begin in silent, halfway:
        b = t.broker(tls=tls.context())
        mp, link, _ = t.connected("""
            rest(c)
            quick(c.get_mqttsta)
            quick(c.publish, "t", "lost")
            quick(c.publish, "t", "kept", qos=1)
            quick(c.publish, "t", "kept too", qos=2, wait=False)
            quick(c.ping)
            quick(c.check_msg)
            quick(c.subscribe, "t")
            quick(c.disconnect)
            quick(c.get_mqttsta)
        """, broker=b, helpers=HELPERS + QUICK, **tls.options())
        link.fin()
        context, b.tls = b.tls, None
        second = begin(t, b)
        mp.tell()
        mp.expect("1", "False", "False", "False", "None", "None", "OSError ENOTCONN", "None", "-1")
        mp.finish()


@scenario(threads=True)
def every_call_says_what_the_handshake_failed_with(t):
    # not only connect(), the first time and later
    b = t.broker()
    mp = t.mp("""
        c = client(reconn=False, **OPTIONS)
        def wait():
            try:
                c.wait_msg()
            except OSError as e:
                say(words(e), e.args[1] if len(e.args) > 1 else "")
        for _ in range(2):
            end = start(outcome, c.connect)
            until_state(c, 1)
            wait()
            end()
            c.connect()
            wait()
    """, b, HELPERS, OPTIONS=tls.options())
    for _ in range(2):
        b.tls = None
        link = silent(t, b)
        mp.asleep()  # in wait_msg
        link.send(b"rubbish, that is no TLS" * 10)
        mp.match("OSError EPROTO TLS handshake failed: (SSL - .*|that is no TLS: maybe .*)")
        b.tls = tls.context()
        link = b.welcome()
        mp.asleep()
        link.sock.sock.sendall(b"\x17\x03\x03\x00\x40" + bytes(64))
        mp.match("OSError EPROTO TLS failed: SSL - .*")
        link.strict = False


@scenario(threads=True)
def the_error_callback_never_says_error_0(t):
    # there may be another connection when it is called
    b = t.broker(tls=tls.context())
    mp = t.mp("""
        import _thread
        c = client(reconn=False, **OPTIONS)
        busy, texts = _thread.allocate_lock(), []
        def told(text):
            texts.append(text)
            with busy:
                pass
        c.error_register_cb(told)
        busy.acquire()
        for _ in range(2):
            c.connect()
            outcome(c.wait_msg)
        c.connect()
        busy.release()
        while len(texts) < 2:
            pause(10)
        say(texts[1])
        c.disconnect()
    """, b, OPTIONS=tls.options())
    for _ in range(2):
        link = b.welcome()
        link.sock.sock.sendall(b"\x17\x03\x03\x00\x40" + bytes(64))
        link.strict = False
    link = b.welcome()
    mp.expect("TLS failed")
    link.expect(broker.DISCONNECT)


# Warning alerts (RFC 5246, 7.2), of which a TLS module tells nobody. It reads the next record at once.
ALERTS = bytes([21, 3, 3, 0, 2, 1, 90]) * 20000


@contextlib.contextmanager
def flood(link, data):
    """Sends this again and again while the block runs."""
    stop = threading.Event()

    def run():
        link.sock.settimeout(0.1)
        while not stop.is_set():
            try:
                link.sock.sendall(data)
            except OSError:
                pass

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


@scenario(idle=True, threads=True)
def connect_ends_at_once_in_a_flood_that_is_no_handshake(t):
    b = t.broker()
    mp = t.mp("""
        c = client(ssl=True)
        end = start(clock, c.connect)
        hear()
        quick(c.disconnect)
        end()
    """, b, QUICK)
    with flood(silent(t, b), ALERTS):
        time.sleep(0.5)
        mp.tell()
        mp.expect("None")
        mp.match("MQTTException -103 after .*", within=1)


@scenario(idle=True)
def a_reconnection_in_a_flood_keeps_no_call(t):
    b = t.broker(tls=tls.context())
    mp, link, _ = t.connected("""
        rest(c)
        for _ in range(20):
            quick(c.publish, "t", "lost")
            quick(c.check_msg)
            time.sleep_ms(10)
        quick(c.disconnect)
    """, broker=b, helpers=HELPERS + QUICK, **tls.options())
    link.fin()
    b.tls = None
    with flood(silent(t, b), ALERTS):
        mp.tell()
        mp.expect(*["False", "None"] * 20, "None")
        mp.finish()


@scenario(idle=True, threads=True)
def a_handshake_that_hangs_costs_nothing(t):
    b = t.broker(tls=tls.context())
    mp, link, _ = t.connected("""
        hear()
        c.disconnect()
    """, broker=b, strace="poll,ppoll,read,write,recvfrom,sendto", **tls.options())
    link.fin()
    b.tls = None
    second = halfway(t, b)
    time.sleep(0.3)
    before, cpu = len(mp.calls()), mp.cpu()
    time.sleep(4)
    # Where nothing can wait for a socket, a look at it every 10 ms.
    t.between(len(mp.calls()) - before, 0, 2000 if tick(t) else 4, "system calls in 4 s")
    t.between(mp.cpu() - cpu, 0, 0.4 if tick(t) else 0.05, "seconds of computing in 4 s")
    mp.tell()


@scenario(idle=True)
def a_reconnection_is_tried_again_after_each_failure(t):
    b = t.broker(tls=tls.context())
    mp, link, _ = t.connected("""
        until_state(c, 1)
        until_state(c, 0)
        say(c.publish("t", "m", qos=1))
        hear()
        c.disconnect()
    """, broker=b, helpers=HELPERS, **tls.options())
    good, b.tls = b.tls, None
    link.fin()
    eventually(t, lambda: link.sock.sock.fileno() < 0 or link._fill(0) is False, "the client does not close")
    files = mp.open_files()
    turned_away(t, b, tls.context("stranger"))
    link = silent(t, b)
    link.rst()
    link = silent(t, b)
    link.send(b"rubbish" * 10)
    b.tls = good
    link = b.welcome(within=20)
    link.send(broker.puback(link.expect_publish("t", "m", qos=1)))
    mp.expect("True")
    t.equal(mp.open_files(), files + 1, "open files")  # the socket
    mp.tell()
    link.expect(broker.DISCONNECT)


@scenario(idle=True)
def without_reconn_the_error_callback_is_told_in_words(t):
    b = t.broker()
    mp = t.mp("""
        for n in range(4):
            c = MQTTClient("c", HOST, PORT, reconn=False, ssl=True)
            c.set_callback(show)
            c.error_register_cb(lambda text: say("error", text))
            c.connect()
            say("connected")
            hear()
            until_state(c, 2, -1)
            pause(100)
            outcome(c.check_msg)
            say(c.get_mqttsta())
            tell(c.wait_msg)
    """, b, HELPERS)
    for how in "notify", "close", "rst", "rubbish":
        b.tls = tls.context()
        link = b.welcome()
        mp.expect("connected")
        sock = link.sock
        if how == "rubbish":
            sock.sock.sendall(b"\x17\x03\x03\x00\x40" + bytes(64))
        else:
            getattr(sock if how == "notify" else link, how)()
        mp.tell()
        if how == "rubbish":
            mp.match("error TLS failed: SSL - .*")
            mp.expect("-1", "OSError ENOTCONN")
        else:
            mp.expect("error server closed the connection", "2", "OSError ENOTCONN")
        link.strict = False


@scenario
def ctrl_c_leaves_a_handshake_that_hangs(t):
    for begin in silent, halfway:
        b = t.broker()
        mp = t.mp("""
            c = client(ssl=True)
            for _ in range(5):
                try:
                    c.connect()
                except KeyboardInterrupt:
                    say("interrupted", c.get_mqttsta())
            tell(c.connect)
            c.disconnect()
        """, b)
        for _ in range(5):
            link = begin(t, b)
            mp.asleep()
            mp.interrupt()
            mp.expect("interrupted -1", within=2)
            while link._fill(2):
                pass
        b.tls = tls.context()
        served(b)
        mp.expect("0")


# --- after it

@scenario(idle=True)
def a_record_that_comes_in_slowly_is_no_silence(t):
    # Nothing of it can be read before it is whole, nor the answers to pings behind it. When it stops half-way, the link is dead.
    b = t.broker(tls=tls.context())
    mp, link, _ = t.connected("""
        c.wait_msg()
        say(c.get_mqttsta())
        tell(c.wait_msg)
        say(c.get_mqttsta())
    """, broker=b, keepalive=1, reconn=False, **tls.options())
    sock = link.sock

    def record(payload):
        sock.tls.write(broker.publish("t", payload))
        return sock.outgoing.read()

    slow = record(bytes(16000))
    for at in range(0, len(slow), 800):
        sock.sock.sendall(slow[at:at + 800])
        time.sleep(0.3)
    link.expect(broker.PINGREQ)
    mp.expect("got b't' 16000 bytes", "0")
    link.send(broker.PINGRESP)
    slow, before = record(bytes(16000)), time.monotonic()
    sock.sock.sendall(slow[:800])
    link.strict = False
    while link._fill(10):
        pass
    t.between(time.monotonic() - before, 0.9, 4, "seconds until the link counts as dead")
    mp.expect("OSError ETIMEDOUT", "-1")
