"""Against Mosquitto: both directions, every qos, and what only a real broker shows."""

import broker
from harness import scenario


@scenario
def publish_and_receive_in_every_qos(t):
    m = t.mosquitto()
    mp = t.mp("""
        c = client()
        say(c.connect(True))
        for qos in 0, 1, 2:
            tell(c.subscribe, "loop/%d" % qos, qos)
        for qos in 0, 1, 2:
            for n in range(3):
                tell(c.publish, "loop/%d" % qos, "%d" % n, False, qos)
        for _ in range(9):
            c.wait_msg()
        c.unsubscribe("loop/1")
        tell(c.publish, "loop/1", "x", qos=1)
        tell(c.publish, "loop/0", "end", qos=1)
        c.wait_msg()
        c.disconnect()
    """, m)
    mp.expect("0", *["None"] * 3, *["True"] * 9)
    got = sorted(mp.line() for _ in range(9))
    t.equal(got, [f"got b'loop/{qos}' b'{n}'" for qos in (0, 1, 2) for n in range(3)])
    mp.expect("True", "True", "got b'loop/0' b'end'")


@scenario(unix=True)
def another_client_sees_what_was_published(t):
    m = t.mosquitto()
    peer = m.peer("peer", "#")
    mp = t.mp("""
        c = client()
        c.connect()
        for qos in 0, 1, 2:
            tell(c.publish, "tä/€", bytes(range(256)), False, qos)
        tell(c.publish, "big", b"b" * 1000000, False, 2)
        c.disconnect()
    """, m, heap="8m")
    for qos in 0, 1, 2:
        raw = peer.packet()
        t.equal(raw, broker.publish("tä/€", bytes(range(256)), qos, broker.packet_id(raw)))
        if qos:
            peer.send(broker.puback(broker.packet_id(raw)) if qos == 1 else broker.pubrec(broker.packet_id(raw)))
    # The broker may send the next message before the PUBREL of this one.
    pubrel, big = sorted((peer.packet(), peer.packet()), key=len)
    t.equal(pubrel, broker.pubrel(broker.packet_id(raw)))
    peer.send(broker.pubcomp(broker.packet_id(raw)))
    raw = big
    t.equal(raw == broker.publish("big", b"b" * 1000000, 2, broker.packet_id(raw)), True, "the large one")
    mp.expect(*["True"] * 4)


@scenario
def retained_messages(t):
    m = t.mosquitto()
    mp = t.mp("""
        c = client()
        c.connect()
        tell(c.publish, "kept/1", "one", True, 1)
        tell(c.publish, "kept/2", "two", 1)     # QuecPython's scripts pass the qos here
        tell(c.publish, "kept/3", "three", True, 2)
        tell(c.publish, "kept/3", "", True)      # and takes it away again
        c.subscribe("kept/#", 2)
        c.wait_msg()
        c.wait_msg()
        c.publish("kept/x", "last")
        c.wait_msg()
        c.disconnect()
    """, m)
    mp.expect(*["True"] * 4)
    t.equal(sorted([mp.line(), mp.line()]), ["got b'kept/1' b'one'", "got b'kept/2' b'two'"])
    mp.expect("got b'kept/x' b'last'")


@scenario
def the_will_is_published_on_close_and_not_on_disconnect(t):
    m = t.mosquitto()
    peer = m.peer("peer", "will", "other", qos=1)
    mp = t.mp("""
        c = client()
        c.set_last_will("will", "gone", qos=1)
        c.connect()
        c.disconnect()
        c.connect()
        c.publish("other", "still here", qos=1)
        c.close()
        hear()
    """, m)
    raw = peer.packet()
    t.equal(raw, broker.publish("other", "still here", 1, broker.packet_id(raw)))
    peer.send(broker.puback(broker.packet_id(raw)))
    raw = peer.packet()
    t.equal(raw, broker.publish("will", "gone", 1, broker.packet_id(raw)))
    peer.idle(200)
    mp.tell()


@scenario
def a_persistent_session_keeps_messages(t):
    m = t.mosquitto()
    mp = t.mp("""
        c = client()
        c.connect()
        c.subscribe("queue", 2)
        c.close()
        say("away")
        hear()
        c.connect()
        for _ in range(20):
            c.wait_msg()
        c.disconnect()
        c.connect(clean_session=True)
        say("clean")
        hear()
        c.publish("queue", "x", qos=1)
        c.check_msg()
        c.disconnect()
    """, m)
    mp.expect("away")
    peer = m.peer("peer")

    def send(numbers):
        for n in numbers:
            peer.send(broker.publish("queue", str(n), 1 + n % 2, id=n + 1))
            if n % 2:
                peer.expect(broker.pubrec(n + 1))
                peer.send(broker.pubrel(n + 1))
                peer.expect(broker.pubcomp(n + 1))
            else:
                peer.expect(broker.puback(n + 1))
    send(range(20))
    mp.tell()
    mp.expect(*[f"got b'queue' b'{n}'" for n in range(20)])
    mp.expect("clean")
    send(range(4))
    mp.tell()


@scenario
def both_versions(t):
    m = t.mosquitto()
    mp = t.mp("""
        for version in 3, 4:
            c = client(version=version)
            say(c.connect(True))
            tell(c.subscribe, "t", 2)
            for qos in 0, 1, 2:
                tell(c.publish, "t", "v%d" % version, False, qos)
            for _ in range(3):
                c.wait_msg()
            c.disconnect()
    """, m)
    for version in 3, 4:
        mp.expect("0", "None", "True", "True", "True", *[f"got b't' b'v{version}'"] * 3)


@scenario
def a_thousand_of_each_qos_through_the_broker(t):
    m = t.mosquitto()
    mp = t.mp("""
        got = {0: 0, 1: 0, 2: 0}
        bad = 0
        def cb(topic, msg):
            global bad
            qos = int(topic[-1:])
            if int(msg) != got[qos]:
                bad += 1
            got[qos] += 1
        r = MQTTClient("r", HOST, PORT)
        r.set_callback(cb)
        r.connect(True)
        r.subscribe("n/+", 2)
        c = client()
        c.connect(True)
        for n in range(1000):
            for qos in 0, 1, 2:
                while not c.publish("n/%d" % qos, str(n), False, qos, False):
                    c.check_msg()
            r.check_msg()
        while sum(got.values()) < 3000:
            r.check_msg()  # not wait_msg: without threads the other client needs its turn as well
            c.check_msg()
        say(bad, sum(got.values()))
        c.disconnect()
        r.disconnect()
    """, m)
    mp.expect("0 3000", within=40)


@scenario(unix=True)
def large_messages_through_the_broker(t):
    m = t.mosquitto()
    mp = t.mp("""
        want = None
        def cb(topic, msg):
            say(len(msg), msg == want)
        c = client()
        c.set_callback(cb)
        c.connect(True)
        c.subscribe("large", 2)
        for size in 1000, 65536, 1000000, 3000000:
            for qos in 0, 1, 2:
                want = bytes([size % 251, qos]) * (size // 2)
                r = c.publish("large", want, False, qos)
                while r is None:
                    r = c.publish("large", want, False, qos)
                c.wait_msg()
                gc.collect()
        c.disconnect()
    """, m, heap="64m")
    for size in 1000, 65536, 1000000, 3000000:
        for _ in range(3):
            mp.expect(f"{size} True", within=20)


@scenario(threads=True)
def four_threads_publish_and_one_waits(t):
    m = t.mosquitto()
    mp = t.mp("""
        import _thread
        lock = _thread.allocate_lock()
        got = {}
        bad = 0
        def cb(topic, msg):
            k, n = msg.split(b" ")
            got.setdefault(k, []).append(int(n))
        c = client()
        c.set_callback(cb)
        c.connect(True)
        c.subscribe("work", 2)
        def listen():
            while sum([len(v) for v in got.values()]) < 400:
                c.wait_msg()
        def work(k):
            global bad
            for n in range(100):
                r = c.publish("work", "%d %d" % (k, n), False, 1 + (k + n) % 2)
                if r is not True:
                    with lock:
                        bad += 1
        _thread.stack_size(0x2000)
        ends = [start(listen)]
        _thread.stack_size(0)
        ends += [start(work, k) for k in range(4)]
        for end in ends:
            end()
        c.disconnect()
        say("bad", bad, sorted([(k, len(v), len(set(v))) for k, v in got.items()]))
    """, m)
    mp.expect(f"bad 0 {[(str(k).encode(), 100, 100) for k in range(4)]}", within=40)


@scenario
def a_broker_that_goes_away(t):
    m = t.mosquitto()
    mp = t.mp("""
        c = client(reconn=False)
        c.connect()
        say("connected")
        tell(c.wait_msg)
        say(c.get_mqttsta())
        tell(c.connect)
        hear()
        c.close()
        say(c.connect())
        tell(c.publish, "t", "m", qos=2)
        c.disconnect()
    """, m)
    mp.expect("connected")
    m.down()
    mp.match("OSError .*")
    mp.expect("2", "MQTTException -ECONNREFUSED")
    m.up()
    mp.tell()
    mp.expect("0", "True")
