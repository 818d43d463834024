"""What a connection leaves behind when it ends, or its client is dropped: no descriptor, no thread."""

import time

import broker
from harness import scenario
from outage import COLLECT, HELPERS, eventually, phase_of, tasks, threaded, tick


@scenario(idle=True, unix=True)
def thirty_failed_attempts_leave_no_descriptor(t):
    b = t.broker()
    mp = t.mp("""
        clients = [MQTTClient("c%d" % n, HOST, PORT, keepalive=0) for n in range(10)]
        for c in clients:
            c.connect()
        say("connected")
        rest(*clients)
        for c in clients:
            c.disconnect()
    """, b, HELPERS)
    links = []
    for n in range(10):
        links.append(b.welcome(client_id=f"c{n}", keepalive=0))
    mp.expect("connected")
    counts = []
    for n in range(40):
        link = links[n] if n < 10 else b.accept()
        if n >= 10:
            link.packet()
        if n % 3 == 0:
            link.rst()
        elif n % 3 == 1 or n < 10:
            link.fin()
            link.expect_end()
        else:
            link.send(broker.connack(code=3))
            link.expect_end()
        if n % 10 == 9:
            # the next attempts come one by one: what is open now is open while nobody tries
            eventually(t, lambda: settled(mp, counts), f"open files: {mp.open_files()}, before {counts}")
    mp.tell()


def settled(mp, counts):
    now = mp.open_files()
    if not counts:
        counts.append(now)
        return False
    if now < counts[0]:
        counts[0] = now
    return now <= counts[0]


@scenario(unix=True)
def the_thread_ends_with_disconnect_and_survives_close(t):
    b = t.broker()
    mp = t.mp("""
        c = client()
        say("made")
        for f in c.connect, c.close, c.connect, c.disconnect, c.connect, c.connect, c.disconnect, c.disconnect:
            hear()
            tell(f)
        hear()
    """, b)
    mp.expect("made")
    t.equal(tasks(mp), 1, "threads")
    threads = 1 + threaded(t)
    for call, running in (("connect", threads), ("close", threads), ("connect", threads), ("disconnect", 1),
                          ("connect", threads), ("connect", threads), ("disconnect", 1), ("disconnect", 1)):
        mp.tell()
        if call == "connect":
            b.welcome().strict = False
            mp.expect("0")
        else:
            mp.expect("None")
        eventually(t, lambda: tasks(mp) == running, f"{tasks(mp)} threads after {call}, expected {running}", 0.5 + tick(t) / 5)
    mp.tell()


@scenario(idle=True, unix=True)
def disconnect_ends_the_thread_in_every_phase(t):
    for phase in "port", "tcp", "connack":
        mp, b, link, choke = phase_of(t, phase, """
until_state(c, 1)
rest(c)
c.disconnect()
say("disconnected")
hear()
""")
        mp.tell()
        mp.expect("disconnected")
        eventually(t, lambda: tasks(mp) == 1, "the thread does not end", 0.5 + tick(t) / 5)
        mp.tell()
        mp.finish()


def dropped(t, kick, check):
    """Clients that are dropped without `disconnect`, and that their own callbacks refer to; a stale pointer may keep one or
    two."""
    b = t.broker()
    mp = t.mp("""
        class App:
            def __init__(self, i):
                self.c = MQTTClient("c%d" % i, HOST, PORT, keepalive=0, reconn=RECONN)
                self.c.set_callback(self.on_message)
                self.c.error_register_cb(self.on_error)
                self.c.connect()
            def on_message(self, topic, msg):
                pass
            def on_error(self, text):
                pass
        all = []
        def make(n):
            for i in range(n):
                all.append(App(i))
        make(8)
        say("made")
        rest(*[app.c for app in all])
        all.clear()
        all = None
        collect()
        say("collected")
        hear()
    """, b, HELPERS + COLLECT, RECONN=kick != "report")
    links = [b.welcome(client_id=f"c{n}", keepalive=0) for n in range(8)]
    mp.expect("made")
    files = mp.open_files()
    if kick:
        for link in links:
            link.fin()
        for link in links:
            link.expect_end()
    mp.tell()
    mp.expect("collected")
    check(mp, b, links, files)
    mp.tell()


@scenario(unix=True)
def a_dropped_client_closes_its_socket_and_ends_its_thread(t):
    def check(mp, b, links, files):
        eventually(t, lambda: tasks(mp) <= 3, "threads go on", 1)
        ended = [link for link in links if link._fill(0.05) is False]
        t.between(len(ended), 6, 8, "closed connections")
    dropped(t, None, check)


@scenario(idle=True, unix=True)
def a_dropped_client_does_not_reconnect(t):
    def check(mp, b, links, files):
        eventually(t, lambda: tasks(mp) <= 3, "threads go on", 1)
        time.sleep(1.6)  # they would all have tried by now
        came = 0
        b.listener.setblocking(False)
        try:
            while True:
                b.listener.accept()[0].close()
                came += 1
        except BlockingIOError:
            pass
        t.between(came, 0, 2, "connections")
    dropped(t, "fin", check)


@scenario(idle=True, unix=True)
def a_dropped_client_that_has_failed_ends_its_thread(t):
    def check(mp, b, links, files):
        eventually(t, lambda: tasks(mp) <= 3, "threads go on", 1)
    dropped(t, "report", check)


@scenario(idle=True)
def a_script_that_ends_while_it_reconnects(t):
    for phase in "port", "tcp", "connack":
        mp, b, link, choke = phase_of(t, phase, "until_state(c, 1)\nrest(c)\nsay('end')\n")
        mp.tell()
        mp.expect("end")
        mp.finish(2)
