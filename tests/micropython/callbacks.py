"""Inside the callback: exceptions, calls on the client, and floods."""

import time

import broker
from harness import scenario


@scenario
def an_exception_is_printed_and_goes_no_further(t):
    for call in "wait_msg", "check_msg":
        mp, link, _ = t.connected(f"""
            def cb(topic, msg):
                say(msg)
                if msg != b"3":
                    raise KeyError("bad " + str(msg))
            c.set_callback(cb)
            hear()
            if "{call}" == "wait_msg":
                for _ in range(4):
                    tell(c.wait_msg)
            else:
                tell(c.check_msg)
            c.disconnect()
        """)
        link.send(broker.publish("t", "0"), broker.publish("t", "1", qos=1, id=1), broker.publish("t", "2", qos=2, id=2),
                  broker.publish("t", "3", qos=1, id=3))
        link.arrived()
        mp.tell()
        for n in range(3):
            mp.expect(f"b'{n}'")
            mp.match("Traceback .*")
            mp.match('  File ".*", line [0-9]+, in cb')
            mp.expect(f"KeyError: bad b'{n}'")
            if call == "wait_msg":
                mp.expect("None")
        mp.expect("b'3'", "None")
        link.expect(broker.puback(1), broker.pubrec(2), broker.puback(3), broker.DISCONNECT)


@scenario
def keyboard_interrupt_and_system_exit_leave(t):
    for kind in "KeyboardInterrupt", "SystemExit":
        for call in "wait_msg", "check_msg":
            mp, link, _ = t.connected(f"""
                def cb(topic, msg):
                    say(msg)
                    if msg != b"last":
                        raise {kind}
                c.set_callback(cb)
                hear()
                for _ in range(3):
                    try:
                        c.{call}()
                    except {kind}:
                        say("left")
                    hear()
                c.{call}()
                c.disconnect()
            """)
            link.send(broker.publish("t", "0"), broker.publish("t", "1", qos=1, id=1), broker.publish("t", "2", qos=2, id=2),
                      broker.publish("t", "last", qos=1, id=3))
            link.arrived()
            for n, answer in enumerate((None, broker.puback(1), broker.pubrec(2))):
                mp.tell()
                mp.expect(f"b'{n}'", "left")
                if answer:
                    link.expect(answer)  # it counts as handled
            mp.tell()
            mp.expect("b'last'")
            link.expect(broker.puback(3), broker.DISCONNECT)
            mp.finish()


@scenario
def publish_in_the_callback(t):
    mp, link, _ = t.connected("""
        def cb(topic, msg):
            say("in", msg)
            for qos in 0, 1, 2:
                tell(c.publish, "answer", msg, False, qos)
            say("out", msg)
        c.set_callback(cb)
        for _ in range(3):
            c.wait_msg()
        c.disconnect()
    """)
    link.send(broker.publish("t", "a", qos=1, id=1), broker.publish("t", "b", qos=2, id=2))
    for n, letter in enumerate("abc"):
        mp.expect(f"in b'{letter}'")
        link.expect_publish("answer", letter)
        mp.expect("True")
        one = link.expect_publish("answer", letter, qos=1)
        if letter == "a":
            link.send(broker.publish("t", "c"))  # arrives while publish waits: kept, no callback within the callback
            mp.silent(50)
        link.send(broker.puback(one))
        mp.expect("True")
        two = link.expect_publish("answer", letter, qos=2)
        link.send(broker.pubrec(two))
        link.expect(broker.pubrel(two))
        link.send(broker.pubcomp(two))
        mp.expect("True", f"out b'{letter}'")
        if letter == "a":
            link.expect(broker.puback(1))
        elif letter == "b":
            link.expect(broker.pubrec(2))
    link.expect(broker.DISCONNECT)


@scenario
def subscribe_and_unsubscribe_in_the_callback(t):
    mp, link, _ = t.connected("""
        def cb(topic, msg):
            tell(c.subscribe, msg, 1)
            tell(c.unsubscribe, msg)
        c.set_callback(cb)
        c.wait_msg()
        c.wait_msg()
        c.disconnect()
    """)
    link.send(broker.publish("t", "x", qos=1, id=1), broker.publish("t", "y", qos=1, id=2))
    for n, topic in enumerate("xy", 1):
        link.send(broker.suback(link.expect_subscribe(topic, 1), 1))
        mp.expect("None")
        link.send(broker.unsuback(link.expect_unsubscribe(topic)))
        mp.expect("None")
        link.expect(broker.puback(n))
    link.expect(broker.DISCONNECT)


@scenario
def wait_msg_and_check_msg_in_the_callback(t):
    mp, link, _ = t.connected("""
        def cb(topic, msg):
            say("in", msg)
            clock(c.check_msg)
            try:
                c.wait_msg()
            except RuntimeError:
                say("RuntimeError")
            say("out")
        c.set_callback(cb)
        hear()
        c.wait_msg()
        hear()
        c.check_msg()
        c.disconnect()
    """)
    link.send(broker.publish("t", "1"), broker.publish("t", "2"), broker.publish("t", "3"))
    link.arrived()
    for messages in [[1], [2, 3]]:
        mp.tell()
        for n in messages:
            mp.expect(f"in b'{n}'")
            mp.took("None", 0, 100)
            mp.expect("RuntimeError", "out")
    link.expect(broker.DISCONNECT)


@scenario
def disconnect_in_the_callback_of_every_qos(t):
    b = t.broker()
    mp = t.mp("""
        for _ in range(3):
            c = client()
            def cb(topic, msg):
                say(msg)
                c.disconnect()
            c.set_callback(cb)
            c.connect()
            tell(c.wait_msg)
            say(c.get_mqttsta())
    """, b)
    for qos in 0, 1, 2:
        link = b.welcome()
        link.send(broker.publish("t", "1", qos=qos, id=1), broker.publish("t", "2"))
        mp.expect("b'1'", "None", "-1")
        link.expect(broker.DISCONNECT)
        link.expect_end()


@scenario(unix=True)
def what_disconnect_drops_leaves_room_for_new_messages(t):
    # 40 KiB of messages wait while the callback of the first one disconnects; the third time they fit as they did at first
    b = t.broker()
    mp = t.mp("""
        c = client()
        c.set_callback(lambda topic, msg: c.disconnect())
        for _ in range(4):
            c.connect()
            tell(c.publish, "t", "m", qos=1)
            c.wait_msg()
    """, b)
    for _ in range(4):
        link = b.welcome()
        id = link.expect_publish("t", "m", qos=1)
        link.send(*[broker.publish("in", b"x" * 1000)] * 40, broker.puback(id))
        mp.expect("True")
        link.expect(broker.DISCONNECT)


@scenario
def close_and_connect_in_the_callback(t):
    mp, link, b = t.connected("""
        def cb(topic, msg):
            say(msg)
            if msg == b"again":
                c.close()
                tell(c.connect)
        c.set_callback(cb)
        tell(c.wait_msg)
        tell(c.wait_msg)
        c.disconnect()
    """)
    link.send(broker.publish("t", "again", qos=1, id=1))
    mp.expect("b'again'")
    link.expect_end()
    link = b.welcome(session=False)
    mp.expect("0", "None")
    link.send(broker.publish("t", "new", qos=1, id=2))
    mp.expect("b'new'", "None")
    while True:  # whether the first message is acknowledged on the new connection is the client's choice
        raw = link.packet()
        if raw != broker.puback(1):
            break
    t.equal(raw, broker.puback(2))
    link.expect(broker.DISCONNECT)


@scenario
def the_callback_may_be_changed_in_the_callback(t):
    mp, link, _ = t.connected("""
        def first(topic, msg):
            say("first", msg)
            c.set_callback(second)
        def second(topic, msg):
            say("second", msg)
            c.set_callback(None)
        c.set_callback(first)
        for _ in range(4):
            c.wait_msg()
        c.disconnect()
    """)
    link.send(*[broker.publish("t", str(n)) for n in range(4)])
    mp.expect("first b'0'", "second b'1'")
    link.expect(broker.DISCONNECT)


@scenario(idle=True, unix=True)
def a_flood_with_publish_in_the_callback(t):
    # 900 messages as fast as the client takes them, each answered with QoS 1 from within the callback
    mp, link, _ = t.connected("""
        depth = n = late = 0
        def cb(topic, msg):
            global depth, n, serving, late
            depth += 1
            if depth > 1:
                say("callback within the callback")
            if topic == b"end":
                serving = False
            else:
                if int(msg) != n:
                    say("out of order:", msg, "instead of", n)
                n += 1
                if c.publish("answer", msg, qos=1) is not True:
                    late += 1
            depth -= 1
        c.set_callback(cb)
        serve(c)
        say("served", n)
        c.disconnect()
    """, heap="8m")
    with link.answering() as side:
        for start in range(0, 900, 30):
            link.send(*[broker.publish("t", str(n), qos=n % 2, id=n + 1) for n in range(start, start + 30)])
            while len(side.published) < start - 200:  # so much may wait in front of a PUBACK, and no more
                t.until(1)
                time.sleep(0.001)
        link.send(broker.publish("end"))
        mp.expect("served 900", within=40)
        mp.finish()
    answers = [broker.body(raw)[10:].decode() for raw in side.published]
    t.equal(answers, [str(n) for n in range(900)], "answers in order")
    acknowledged = [broker.packet_id(raw) for raw in side.packets if raw[0] >> 4 == broker.PUBACK]
    t.equal(acknowledged, [n + 1 for n in range(900) if n % 2], "acknowledged in order")


@scenario(network=True)
def a_flood_that_no_buffer_holds_with_qos0_in_the_callback(t):
    mp, link, _ = t.connected("""
        n = 0
        def cb(topic, msg):
            global n, serving
            if topic == b"end":
                serving = False
            else:
                n += 1
                c.publish("answer", msg)
        c.set_callback(cb)
        serve(c)
        say("served", n)
        c.disconnect()
    """)
    with link.answering() as side:
        for _ in range(200):
            link.send(broker.publish("t", b"x" * 500) * 100, within=30)
        link.send(broker.publish("end"))
        mp.expect("served 20000", within=40)
        mp.finish()
    t.equal(len(side.published), 20000, "answers")


@scenario
def a_callback_may_keep_what_it_got(t):
    mp, link, _ = t.connected("""
        kept = []
        c.set_callback(lambda topic, msg: kept.append((topic, msg)))
        for n in range(300):
            c.wait_msg()
            gc.collect() if n % 10 == 0 else None
        say(all(topic == b"topic/%d" % n and msg == b"message %d" % n for n, (topic, msg) in enumerate(kept)))
        c.disconnect()
    """)
    link.send(*[broker.publish(f"topic/{n}", f"message {n}") for n in range(300)])
    mp.expect("True")
    link.expect(broker.DISCONNECT)
