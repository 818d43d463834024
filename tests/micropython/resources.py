"""Nothing leaks: file descriptors, heap; clients side by side; a dropped client; a collector that runs all the time."""

import broker
from harness import scenario
from outage import COLLECT


@scenario(unix=True)
def two_hundred_connections_leave_no_descriptor(t):
    b = t.broker()
    mp = t.mp("""
        c = client()
        for n in range(200):
            c.connect()
            if n % 2:
                c.disconnect()
            else:
                c.close()
            if n == 9 or n == 199:
                say("count")
                hear()
    """, b)
    counts = []
    for n in range(200):
        link = b.welcome()
        if n % 2:
            link.expect(broker.DISCONNECT)
        link.expect_end()
        if n in (9, 199):
            mp.expect("count")
            counts.append(mp.open_files())
            mp.tell()
    t.equal(counts[1], counts[0], "open files")


@scenario(unix=True)
def failed_connections_leave_no_descriptor(t):
    b = t.broker()
    gone = t.broker()
    gone.down()
    mp = t.mp("""
        c = client(reconn=False)
        refused = MQTTClient("c", HOST, GONE)
        nameless = MQTTClient("c", "a..b")
        for n in range(60):
            outcome(refused.connect)
            outcome(nameless.connect)
            if outcome(c.connect) == "0":
                outcome(c.wait_msg)
            if n == 9 or n == 59:
                say("count")
                hear()
    """, b, GONE=gone.port)
    counts = []
    for n in range(60):
        link = b.accept()
        link.expect_connect()
        end = n % 5
        if end == 0:
            link.send(broker.connack(code=5))
        elif end == 1:
            link.send(b"garbage!")
        elif end == 2:
            link.rst()
        elif end == 3:
            link.send(broker.connack())
            link.fin()
        else:
            link.send(broker.connack(), b"\xff\xff\xff\xff\xff\xff")
        if end != 2:
            link.expect_end()
        if n in (9, 59):
            mp.expect("count")
            counts.append(mp.open_files())
            mp.tell()
    t.equal(counts[1], counts[0], "open files")


@scenario(network=True)
def a_dropped_client_is_collected_and_its_socket_closes(t):
    b = t.broker()
    mp = t.mp("""
        def make(n):
            for _ in range(n):
                c = client()
                c.connect()
                c.publish("t", "m")
            c = None
        make(8)
        say("made")
        collect()
        say("collected")
        hear()
    """, b, COLLECT)
    links = []
    for _ in range(8):
        links.append(b.welcome())
        links[-1].expect_publish("t", "m")
    mp.expect("made", "collected")
    ended = 0
    for link in links:
        if link._fill(1 if ended < 6 else 0) is False:
            ended += 1
            t.equal(bytes(link.buffer), b"", "sent at the end")
    t.between(ended, 6, 8, "closed connections")  # a stale pointer may keep one
    mp.tell()


@scenario(unix=True)
def a_script_may_make_a_new_client_for_every_connection(t):
    # ...and drop the old one as it is, with its link up or failed, far more often than the heap has room for clients
    b = t.broker()
    mp = t.mp("""
        for n in range(600):
            c = client(reconn=False)
            c.connect()
            if n % 2:
                outcome(c.wait_msg)
        say("done")
        c.disconnect()
    """, b)
    for n in range(600):
        link = b.welcome()
        link.strict = False
        if n % 2:
            link.fin()
    mp.expect("done")


@scenario
def what_is_over_and_done_with_is_let_go(t):
    # the collector finds what the engine only says it has forgotten
    b = t.broker()
    mp = t.mp("""
        c = client()
        c.connect()
        def used():
            collect()
            return gc.mem_alloc()
        def let_go():
            for _ in range(20):
                outcome(c.check_msg)  # other calls write over what the stack still knows
                if used() - before < 7000:
                    return True
            return False
        def send(n, size, qos, wait):
            for _ in range(n):
                c.publish("t", bytes(size), qos=qos, wait=wait)
        send(2, 10, 1, True)
        before = used()
        send(14, 3000, 1, False)
        say("taken", used() - before > 14 * 3000)
        send(1, 10, 1, True)
        say("acknowledged", let_go())
        send(1, 12000, 0, True)
        say("sent", let_go())
        c.set_callback(None)
        c.wait_msg()
        say("handled", let_go())
        c.disconnect()
        say("disconnected", let_go())
    """, b, COLLECT)
    link = b.welcome()
    for _ in range(2):
        link.send(broker.puback(link.expect_publish("t", bytes(10), qos=1)))
    mp.expect("taken True")
    ids = [link.expect_publish("t", bytes(3000), qos=1) for _ in range(14)]
    ids.append(link.expect_publish("t", bytes(10), qos=1))
    for packet_id in ids:
        link.send(broker.puback(packet_id))
    mp.expect("acknowledged True")
    link.expect_publish("t", bytes(12000))
    mp.expect("sent True")
    link.send(broker.publish("t", bytes(12000)))
    mp.expect("handled True")
    link.expect(broker.DISCONNECT)
    mp.expect("disconnected True")
    mp.finish()


@scenario
def the_heap_does_not_grow(t):
    mp, link, _ = t.connected("""
        c.set_callback(lambda topic, msg: None)
        def round():
            for qos in 0, 1, 2:
                for _ in range(50):
                    c.publish("topic", "message", False, qos)
            c.subscribe("topic", 1)
            c.unsubscribe("topic")
            say("round")
            for _ in range(90):
                c.wait_msg()
            gc.collect()
            gc.collect()
            return gc.mem_alloc()
        round()
        first = round()
        for _ in range(20):
            last = round()
        say("grown", last - first)
        c.disconnect()
    """)
    with link.answering():
        for _ in range(22):
            mp.expect("round")
            for id in range(1, 91):
                link.send(broker.publish("in", b"x" * 100, qos=id % 3, id=id))
        grown = int(mp.match("grown (-?[0-9]+)", within=30)[1])
        mp.finish()
    t.between(grown, -100000, 2048, "bytes of heap in 20 rounds")


@scenario
def the_heap_does_not_grow_with_connections(t):
    b = t.broker()
    mp = t.mp("""
        c = client()
        def round():
            for _ in range(10):
                c.connect()
                c.publish("t", "m", qos=1)
                c.disconnect()
            gc.collect()
            gc.collect()
            return gc.mem_alloc()
        round()
        first = round()
        for _ in range(10):
            last = round()
        say("grown", last - first)
    """, b)
    for _ in range(120):
        link = b.welcome()
        link.send(broker.puback(link.expect_publish("t", "m", qos=1)))
        link.expect(broker.DISCONNECT)
        link.expect_end()
    t.between(int(mp.match("grown (-?[0-9]+)")[1]), -100000, 2048, "bytes of heap")


@scenario(unix=True)
def a_collector_that_runs_at_every_allocation(t):
    # what the client holds on to and the collector does not see is lost here
    mp, link, b = t.connected("""
        gc.threshold(1)
        n = 0
        def cb(topic, msg):
            global n
            if topic != b"topic/%d" % n or msg != b"message %d" % n * 20:
                say("wrong:", topic, msg)
            n += 1
        c.set_callback(cb)
        c.set_last_will("wi" + "ll", "mes" + "sage", qos=1)
        for i in range(60):
            c.publish("t" + str(i), "m" * i, False, i % 3)
            if i % 10 == 0:
                c.publish("w" + str(i), bytearray(b"m" * i), False, 1, False)
            if i % 15 == 0:
                c.subscribe("s" + str(i), i % 3)
            c.wait_msg()
        say("served", n)
        c.close()
        c.connect()
        say("connected")
        c.disconnect()
    """, clean=False)
    with link.answering() as side:
        for n in range(60):
            link.send(broker.publish(f"topic/{n}", f"message {n}" * 20, qos=n % 3, id=n + 1))
        mp.expect("served 60", within=30)
    got = [broker.publish("t%d" % i, "m" * i, i % 3, broker.packet_id(raw)) for i, raw in
           enumerate(raw for raw in side.published if broker.body(raw)[2:3] == b"t")]
    t.equal([raw for raw in side.published if broker.body(raw)[2:3] == b"t"], got, "published")
    link = b.accept()
    link.expect_connect(will=("will", "message", 1, False))
    link.strict = False
    link.send(broker.connack(session=True))
    mp.expect("connected")


@scenario
def clients_side_by_side(t):
    b = t.broker()
    mp = t.mp("""
        clients = []
        for n in range(10):
            c = MQTTClient("client%d" % n, HOST, PORT, version=3 + n % 2, keepalive=60 + n)
            c.set_callback(lambda topic, msg, n=n: say(n, topic, msg))
            c.connect()
            clients.append(c)
        for n, c in enumerate(clients):
            c.publish("t", str(n))
            tell(c.publish, "t", str(n), qos=1)
        for c in reversed(clients):
            c.wait_msg()
        clients[3].disconnect()
        clients[4].close()
        tell(clients[3].publish, "t", "x")
        for n, c in enumerate(clients):
            if n not in (3, 4):
                tell(c.publish, "t", "still")
                c.disconnect()
    """, b)
    links = [b.welcome(client_id=f"client{n}", version=3 + n % 2, keepalive=60 + n) for n in range(10)]
    for n, link in enumerate(links):
        link.expect_publish("t", str(n))
        link.send(broker.puback(link.expect_publish("t", str(n), qos=1)))
        mp.expect("True")
    for n, link in enumerate(links):
        link.send(broker.publish("in", str(n)))
    for n in reversed(range(10)):
        mp.expect(f"{n} b'in' b'{n}'")
    links[3].expect(broker.DISCONNECT)
    links[4].expect_end()
    mp.expect("OSError ENOTCONN")
    for n, link in enumerate(links):
        if n not in (3, 4):
            link.expect_publish("t", "still")
            mp.expect("True")
            link.expect(broker.DISCONNECT)


@scenario
def a_client_publishes_in_another_clients_callback(t):
    b = t.broker()
    mp = t.mp("""
        one = MQTTClient("one", HOST, PORT)
        two = MQTTClient("two", HOST, PORT)
        two.set_callback(lambda topic, msg: tell(one.publish, topic, msg, False, 1))
        one.set_callback(lambda topic, msg: two.wait_msg())
        one.connect()
        two.connect()
        one.wait_msg()
        one.disconnect()
        two.disconnect()
    """, b)
    one, two = b.welcome(client_id="one"), b.welcome(client_id="two")
    one.send(broker.publish("t", "1"))
    two.send(broker.publish("t", "2"))
    one.send(broker.puback(one.expect_publish("t", "2", qos=1)))
    mp.expect("True")
    one.expect(broker.DISCONNECT)
    two.expect(broker.DISCONNECT)


@scenario(unix=True, tcp=True)
def a_small_heap_is_enough(t):
    mp, link, _ = t.connected("""
        for n in range(200):
            c.publish("t", "m" * 50, False, n % 3)
            c.wait_msg()
        c.disconnect()
    """, heap="64k")
    with link.answering():
        for n in range(200):
            link.send(broker.publish("in", str(n), qos=n % 3, id=n + 1))
        mp.expect(*[f"got b'in' b'{n}'" for n in range(200)])
        mp.finish()


@scenario
def texts_that_only_the_client_holds_are_kept(t):
    # however they were made, they are in the next connection as they were in the first
    b = t.broker()
    mp = t.mp("""
        import io
        word = "0123456789abcdef"
        def written():
            f = io.BytesIO()
            f.write(word)
            return f.getvalue()
        made = [lambda: word + "x", lambda: word[3:], lambda: "%s!" % word, lambda: word.encode(), lambda: bytes(40),
            lambda: b"".join([b"a", word.encode()]), lambda: (word + ",y").split(",")[1], lambda: str(12345678901),
            lambda: bytes(memoryview(word.encode())[5:]), lambda: bytearray(word.encode()), lambda: memoryview(bytearray(99))[1:],
            lambda: word.upper().strip("0"), lambda: repr(word), written, lambda: (word * 50).replace("a", "")]
        def begin():
            c = MQTTClient("".join(["cli", "ent"]), HOST, PORT, "us" + "er"[:], ("pass" + "word").encode(), 0)
            c.set_last_will("wi" + "ll" * 9, b"mess" + b"age" * 20, False, 1)
            c.connect()
            for i in range(4):
                c.subscribe("topic/%d" % i)
            for n, make in enumerate(made):
                c.publish("/".join(["t", str(n)]), make(), False, 1 + n % 2, False)
            return c
        c = begin()
        say("begun")
        hear()
        del made
        c.close()
        scrub(30)
        for _ in range(3):
            gc.collect()
            junk = []
            try:
                while True:
                    junk.append(b"\\xff" * (16 + len(junk) % 90))
            except MemoryError:
                junk = None
        c.connect()
        say("connected")
        hear()
        c.disconnect()
    """, b, COLLECT)
    fields = {"client_id": "client", "user": "user", "password": "password", "keepalive": 0,
              "will": ("will" + "ll" * 8, b"message" + b"age" * 19, 1, False)}
    link = b.welcome(**fields)
    for i in range(4):
        link.send(broker.suback(link.expect_subscribe(f"topic/{i}"), 0))
    first = [link.packet() for _ in range(15)]
    t.equal([broker.body(raw)[2:5 + (n > 9)] for n, raw in enumerate(first)], [b"t/%d" % n for n in range(15)], "topics")
    mp.expect("begun")
    mp.tell()
    link.expect_end()
    link = b.welcome(session=False, **fields)
    mp.expect("connected", within=30)
    again = [link.packet() for _ in range(19)]
    published = [bytes([raw[0] & ~8]) + raw[1:] for raw in again if raw[0] >> 4 == broker.PUBLISH]
    t.equal(published, first, "sent again")
    subscribed = [broker.body(raw)[2:] for raw in again if raw[0] >> 4 == broker.SUBSCRIBE]
    t.equal(sorted(subscribed), [b"\0\7topic/%d\0" % i for i in range(4)], "subscribed again")
    mp.tell()
    link.expect(broker.DISCONNECT)
