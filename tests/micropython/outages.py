"""Every outage while the script does everything: with `reconn=True` it recovers and nothing of QoS 1 and 2 is lost; with
`reconn=False` it is told, and resumes. The other end is Mosquitto, behind a proxy; a second client publishes to the script
and takes what it publishes."""

import time

import broker
import endurance
from harness import scenario
from outage import HELPERS, Peer, Proxy, Resolver, eventually, remembering

KEEPALIVE = 2

# --- outages: begin(t, broker, proxy) returns what ends it, if it does not end by itself


def fin(t, m, proxy):
    proxy.cut("fin")


def rst(t, m, proxy):
    proxy.cut("rst")


def silence(t, m, proxy):
    proxy.cut("silence")


def refused(t, m, proxy):
    proxy.down()
    proxy.cut("fin")

    def end():
        time.sleep(1.5)  # for one attempt at least
        proxy.up()
    return end


def kicked(t, m, proxy):
    proxy.fate = "kick"
    came = proxy.accepted
    proxy.cut("fin")

    def end():
        eventually(t, lambda: proxy.accepted > came, "no attempt to connect", 4)
        proxy.fate = "pass"
    return end


def restarted(t, m, proxy):
    m.down()

    def end():
        time.sleep(0.3)
        m.up()
    return end


def black_hole(t, m, proxy):
    proxy.down()
    hole = t._part(broker.BlackHole(proxy.port))
    proxy.cut("fin")

    def end():
        time.sleep(1.5)  # for an attempt to begin
        hole.close()
        proxy.up()
    return end


def unresolved(t, m, proxy):
    asked = t.resolver.asked()
    t.resolver.answer("gone")
    proxy.cut("fin")

    def end():
        eventually(t, lambda: t.resolver.asked() > asked, "the resolver is not asked again", 4)
        t.resolver.answer("127.0.0.1")
    return end


OUTAGES = fin, rst, silence, refused, kicked, restarted, black_hole, unresolved

# --- activities: what the script does from `say("doing")` until the scenario sends a line; `resume` is for reconn=False

SCRIPT = r'''
failures = 0
sent = {}
stop = False
got_end = False

def on_error(text):
    say("error", c.get_mqttsta() in (2, -1))

def on_message(topic, msg):
    global got_end
    if topic == b"in/end":
        got_end = True
    elif topic == b"in/callback":
        say("in the callback")
        while not told():
            attempt(c.publish, "out/callback", "0", False, 1)  # without threads something has to do the work
        hear()
    else:
        say("got", msg)

def attempt(f, *args):
    """what the call returns; None when it raises OSError, which it must only do without reconnection"""
    global failures
    try:
        return f(*args)
    except OSError as e:
        if RECONN:
            say("raised", words(e))
        failures += 1
        pause(20)

def publish(k, stopped):
    while not stopped():
        n = sent.setdefault(k, [0, 0, 0])
        qos = sum(n) % 3
        if attempt(c.publish, "out/%d" % qos, "%d %d" % (k, n[qos]), False, qos) is not None:
            n[qos] += 1
        elif not RECONN and not stopped():
            if k == 0 and c.get_mqttsta() != 0 and _thread is None:
                attempt(c.check_msg)
        pause(15)

c = MQTTClient("c", SERVER, PORT, keepalive=KEEPALIVE, reconn=RECONN)
c.set_callback(on_message)
c.error_register_cb(on_error)
c.connect()
c.subscribe("in/#", 2)
say("doing")

ends = []
if DOING == "nothing":
    hear()
elif DOING == "wait":
    def wait():
        while not got_end:
            attempt(c.wait_msg)
    _thread.stack_size(0x2000)
    ends.append(start(wait))
    _thread.stack_size(0)
    hear()
elif DOING == "check":
    while not told():
        attempt(c.check_msg)
    hear()
elif DOING == "publish":
    if _thread:
        ends += [start(publish, k, lambda: stop) for k in range(4)]
        hear()
    else:
        publish(0, told)
        hear()
    stop = True
elif DOING == "callback":
    attempt(c.wait_msg)

if not RECONN:
    # the outage is over
    if DOING == "publish":
        for end in ends:
            end()
    tries = 0
    while True:
        try:
            c.close()
            c.connect()
            c.subscribe("in/#", 2)
            break
        except (MQTTException, OSError) as e:
            tries += 1
            if tries > 50:
                say("not resumed:", words(e))
            pause(100)
    say("resumed")
    hear()

# both directions
while not c.publish("out/1", "after", False, 1):
    pause(20)
while not c.publish("out/2", "after", False, 2):
    pause(20)
say("published")
if DOING == "publish" and RECONN:
    for end in ends:
        end()
while not got_end:
    if DOING == "wait":
        pause(10)
    else:
        c.wait_msg()
for end in ends if DOING == "wait" else ():
    end()
say("sent", [n[1:] for k, n in sorted(sent.items())])
hear()  # until all of it has arrived
c.disconnect()
'''


def run(t, outage, doing, reconn):
    m = remembering(t)
    proxy = t._part(Proxy(t, m.port))
    peer = t._part(Peer(t, m.plain, "peer", "out/#"))
    server, options = t.target.HOST, {}
    if outage is unresolved:
        t.resolver = Resolver(t)
        server, options = "broker.test", {"environment": t.resolver.environment}
    mp = t.mp(SCRIPT, m.port if outage is restarted else proxy.port, HELPERS, **options, SERVER=server, KEEPALIVE=KEEPALIVE, DOING=doing, RECONN=reconn)
    mp.expect("doing")
    want = []

    def publish(text, topic="in/x"):
        peer.publish(topic, text, 2)
        peer.acknowledged()
        if topic == "in/x":
            want.append(f"got {text.encode()!r}")
    if doing == "callback":
        publish("", "in/callback")
        mp.expect("in the callback")
    elif doing == "publish":
        peer.wait(lambda: len(peer.messages) >= 12, "messages of the script")
    elif doing != "nothing":
        publish("before")

    end = outage(t, m, proxy)
    due = 2 * KEEPALIVE + 1.5 if outage is silence else 1.5
    lines = []
    if not reconn:
        # whatever the script does, it is told
        while "error True" not in lines:
            lines.append(mp.line(due))
    if outage is not restarted:
        publish("during")  # the session keeps it
    if end and reconn:
        end()
    mp.tell()
    if end and not reconn:
        end()  # the script has to try more than once
    if not reconn:
        lines += mp.until("resumed", 12)
        mp.tell()
    publish("afterwards")
    lines += mp.until("published", 15)
    peer.wait(lambda: "after" in peer.got("out/1") and "after" in peer.got("out/2"), "a message of the script")
    peer.publish("in/end", "", 2)
    while True:
        line = mp.line(15)
        if line is None or line.startswith("sent "):
            break
        lines.append(line)
    t.equal(sorted(lines), sorted(want + ([] if reconn else ["error True"])), "lines")

    for k, counts in enumerate(eval(line[5:])):
        for qos in 1, 2:
            mine = [f"{k} {n}" for n in range(counts[qos - 1])]

            def arrived():
                return {text for text in peer.got(f"out/{qos}") if text.split()[0] == str(k)} >= set(mine)
            peer.wait(arrived, f"messages of thread {k} with qos {qos}")
            if qos == 2:
                got = [text for text in peer.got("out/2") if text.split()[0] == str(k)]
                t.equal(got[:len(mine)], mine, f"messages of thread {k} with qos 2, in order")
    mp.tell()


def combination(outage, doing, reconn):
    def test(t):
        run(t, outage, doing, reconn)
    # Without threads nobody serves a script that does nothing.
    return scenario(test, idle=True, limit=60, threads=doing in ("nothing", "wait"), unix=outage is unresolved)


for _outage in OUTAGES:
    for _doing in "nothing", "wait", "check", "publish", "callback":
        for _reconn in True, False:
            _name = f"{_outage.__name__}_while_{_doing}" + ("" if _reconn else "_without_reconn")
            globals()[_name] = combination(_outage, _doing, _reconn)


# --- a short run of tests/endurance.py

@scenario(idle=True, limit=120)
def endurance_of_a_publisher(t):
    endurance.publisher(t, 300, 5, 1)


@scenario(idle=True, limit=120)
def endurance_of_a_receiver(t):
    endurance.receiver(t, 300, 5, 1)
