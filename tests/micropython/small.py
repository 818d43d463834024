"""What a microcontroller with 100 KB of heap has to manage; the other scenarios have sizes of their own."""

import broker
from harness import scenario

PIECE = b"fifteen letters"
COUNTS = 0, 1, 67, 68, 69, 334, 4370  # around 1 KiB, the size of the buffers, and 64 KiB


@scenario
def messages_of_up_to_64_kib_are_published(t):
    for qos in 0, 1, 2:
        mp, link, _ = t.connected("""
            for count in COUNTS:
                gc.collect()
                tell(c.publish, "size", PIECE * count, qos=QOS)
            c.disconnect()
        """, names={"PIECE": PIECE, "COUNTS": COUNTS, "QOS": qos})
        for count in COUNTS:
            id = link.expect_publish("size", PIECE * count, qos=qos)
            if qos == 1:
                link.send(broker.puback(id))
            elif qos:
                link.send(broker.pubrec(id))
                link.expect(broker.pubrel(id))
                link.send(broker.pubcomp(id))
            mp.expect("True")
        link.expect(broker.DISCONNECT)


@scenario
def messages_of_up_to_64_kib_are_received(t):
    for qos in 0, 1, 2:
        mp, link, _ = t.connected("""
            def check(topic, msg):  # there is no room for a second one to compare it with
                wrong = [i for i in range(0, len(msg), len(PIECE)) if msg[i:i + len(PIECE)] != PIECE]
                say(topic, len(msg), wrong)
            c.set_callback(check)
            for _ in COUNTS:
                gc.collect()
                c.wait_msg()
            c.disconnect()
        """, names={"PIECE": PIECE, "COUNTS": COUNTS})
        for id, count in enumerate(COUNTS, 1):
            link.send(broker.publish("size", PIECE * count, qos=qos, id=id))
            mp.expect(f"b'size' {len(PIECE) * count} []")
            if qos:
                link.expect(broker.puback(id) if qos == 1 else broker.pubrec(id))
        link.expect(broker.DISCONNECT)


@scenario(limit=150)
def what_does_not_fit_the_heap_is_skipped(t):
    mp, link, _ = t.connected("""
        gc.collect()
        say(gc.mem_free() + gc.mem_alloc())
        serve(c)
        say(c.get_mqttsta())
        c.disconnect()
    """)
    heap = int(mp.line())
    # The emulated RISC-V has its sockets over a serial line: 10 KB/s, or less beside other work.
    link.send(broker.publish("large", bytes(heap), qos=1, id=9), within=120)
    mp.match("umqtt: skipped .*", within=120)
    link.expect(broker.puback(9))
    link.send(broker.publish("t", "behind"), broker.publish("end"))
    mp.expect("got b't' b'behind'", "0")
    link.expect(broker.DISCONNECT)


@scenario(limit=120)
def a_thousand_messages_each_way(t):
    m = t.mosquitto()
    peer = m.peer("peer", "out", qos=1)
    mp = t.mp("""
        want = 0
        def count(topic, msg):
            global want
            if msg != b"%d" % want:
                say("got", msg, "instead of", want)
            want += 1
        c = client()
        c.set_callback(count)
        c.connect()
        c.subscribe("in", 1)
        say("subscribed")
        for n in range(1000):
            while not c.publish("out", "%d" % n, False, 1, False):
                c.check_msg()
            c.check_msg()
        while want < 1000:
            c.wait_msg()
        hear()
        c.disconnect()
    """, m)
    mp.expect("subscribed")
    for n in range(1000):
        peer.send(broker.publish("in", str(n), 1, id=n + 1))
        acknowledged = False
        while not acknowledged:
            raw = peer.packet(within=30)
            acknowledged = raw == broker.puback(n + 1)
            take(t, peer, raw)
    while t.arrived < 1000:
        take(t, peer, peer.packet(within=30))
    mp.tell()


def take(t, peer, raw):
    """A message of the script, which comes in order."""
    t.arrived = getattr(t, "arrived", 0)
    if raw[0] >> 4 == broker.PUBLISH:
        t.equal(raw, broker.publish("out", str(t.arrived), 1, id=broker.packet_id(raw)))
        peer.send(broker.puback(broker.packet_id(raw)))
        t.arrived += 1
