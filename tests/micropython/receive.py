"""check_msg and wait_msg: what is delivered, when, how often, and how it is acknowledged."""

import itertools

import broker
from harness import scenario


@scenario
def check_msg_without_messages(t):
    mp, link, _ = t.connected("""
        worst = 0
        for _ in range(1000):
            t0 = time.ticks_us()
            if c.check_msg() is not None:
                say("not None")
            worst = max(worst, time.ticks_diff(time.ticks_us(), t0))
        say("slow" if worst > LIMIT else "quick")
        c.disconnect()
    """, names={"LIMIT": 50000 + 1000 * t.target.SLACK})
    mp.expect("quick")
    link.expect(broker.DISCONNECT)


@scenario
def check_msg_never_blocks_on_half_a_packet(t):
    raw = broker.publish("topic", "payload", qos=1, id=77)
    mp, link, _ = t.connected("""
        for _ in range(CUTS):
            hear()
            clock(c.check_msg)
            say("half")
            hear()
            clock(c.check_msg)
        c.disconnect()
    """, names={"CUTS": len(raw) - 1})
    for cut in range(1, len(raw)):
        link.send(raw[:cut])
        link.arrived()
        mp.tell()
        mp.took("None", 0, 100)
        mp.expect("half")
        link.send(raw[cut:])
        link.arrived()
        mp.tell()
        mp.expect("got b'topic' b'payload'")
        mp.took("None", 0, 100)
        link.expect(broker.puback(77))
    link.expect(broker.DISCONNECT)


@scenario(unix=True)
def check_msg_never_blocks_on_half_a_large_message(t):
    raw = broker.publish("t", b"x" * 500000)
    mp, link, _ = t.connected("""
        def cb(topic, msg):
            say("got", len(msg), msg == b"x" * 500000)
        c.set_callback(cb)
        for _ in range(40):
            t0 = time.ticks_ms()
            c.check_msg()
            if time.ticks_diff(time.ticks_ms(), t0) > 200:
                say("slow")
        say("half")
        hear()
        while True:
            c.check_msg()
            time.sleep_ms(1)
    """, heap="8m", reconn=False)
    link.send(raw[:300000])
    mp.expect("half")
    mp.tell()
    link.send(raw[300000:])
    mp.expect("got 500000 True")
    link.fin()
    mp.match("Traceback.*")
    mp.until("OSError.*")
    mp.until_end()
    mp.ends_with(1)


@scenario
def check_msg_delivers_all_that_has_arrived(t):
    mp, link, _ = t.connected("""
        hear()
        tell(c.check_msg)
        c.disconnect()
    """)
    link.send(*[broker.publish("t", str(n), qos=n % 3, id=n + 1) for n in range(10)])
    link.arrived()
    mp.tell()
    mp.expect(*[f"got b't' b'{n}'" for n in range(10)], "None")
    for n in range(10):
        if n % 3:
            link.expect(broker.puback(n + 1) if n % 3 == 1 else broker.pubrec(n + 1))
    link.expect(broker.DISCONNECT)


COUNT = """
n = 0
def count(topic, msg):
    global n
    n += 1
"""


@scenario(unix=True)
def check_msg_delivers_as_much_as_the_receive_buffer_holds(t):
    # 4096 bytes of messages of 6: the smallest of all
    mp, link, _ = t.connected("""
        c.set_callback(count)
        for _ in range(2):
            hear()
            c.check_msg()
            say(n)
        c.disconnect()
    """, helpers=COUNT)
    for total in 682, 1364:
        link.send(broker.publish("t", "m") * 682)
        link.arrived()
        mp.tell()
        mp.expect(str(total))
    link.expect(broker.DISCONNECT)


@scenario
def check_msg_ends_under_a_flood(t):
    mp, link, _ = t.connected("""
        c.set_callback(count)
        hear()
        worst = 0
        for _ in range(20):
            n = 0
            t0 = time.ticks_ms()
            c.check_msg()
            worst = max(worst, time.ticks_diff(time.ticks_ms(), t0))
            if n > 1024:
                say("more than a receive buffer:", n)
        say("worst", worst)
        c.close()
    """, helpers=COUNT)
    link.strict = False
    link.send_while_room(itertools.repeat(broker.publish("t", b"x" * 60) * 1000))  # the client's kernel is full of messages
    mp.tell()
    worst = int(mp.match("worst ([0-9]+)")[1])
    t.between(worst, 0, 1000, "ms in check_msg")


@scenario
def wait_msg_delivers_exactly_one(t):
    mp, link, _ = t.connected("""
        for _ in range(6):
            tell(c.wait_msg)
        c.disconnect()
    """)
    link.send(*[broker.publish("t", str(n), qos=n % 3, id=n + 1) for n in range(5)])
    for n in range(5):
        mp.expect(f"got b't' b'{n}'", "None")
        if n % 3:
            link.expect(broker.puback(n + 1) if n % 3 == 1 else broker.pubrec(n + 1))
    mp.silent(100)
    link.send(broker.PINGRESP, broker.puback(99), broker.pubrel(99))  # no messages: wait_msg goes on
    link.expect(broker.pubcomp(99))
    mp.silent(100)
    link.send(broker.publish("t", "last"))
    mp.expect("got b't' b'last'", "None")
    link.expect(broker.DISCONNECT)


@scenario
def without_a_callback_a_message_counts_as_handled(t):
    mp, link, _ = t.connected("""
        c.set_callback(None)
        for _ in range(3):
            tell(c.wait_msg)
        c.set_callback(show)
        tell(c.wait_msg)
        c.disconnect()
    """)
    link.send(broker.publish("t", "0"), broker.publish("t", "1", qos=1, id=1), broker.publish("t", "2", qos=2, id=2),
              broker.publish("t", "3"))
    mp.expect("None", "None", "None", "got b't' b'3'", "None")
    link.expect(broker.puback(1), broker.pubrec(2), broker.DISCONNECT)


@scenario(unix=True)
def every_size_of_payload(t):
    sizes = [0, 1, 32, 121, 122, 123, 124, 125, 126, 127, 128, 129, 255, 256, 257, 511, 512, 513, 1000, 1023, 1024, 1025, 1460,
             2047, 2048, 2049, 4095, 4096, 4097, 8191, 8192, 8193, 16375, 16376, 16377, 16378, 16379, 16380, 16381, 65535, 65536, 65537,
             1 << 20, 2097145, 2097146, 2097147, 2097148]
    mp, link, _ = t.connected("""
        def cb(topic, msg):
            # every byte tells its place
            good = all(msg[i] == i % 251 for i in (range(len(msg)) if len(msg) < 5000 else range(0, len(msg), 997)))
            say(len(msg), type(topic) is bytes and type(msg) is bytes and topic == b"t", good)
        c.set_callback(cb)
        for _ in range(COUNT):
            c.wait_msg()
            gc.collect()
        c.disconnect()
    """, names={"COUNT": len(sizes) * 3}, heap="32m")
    pattern = bytes(n % 251 for n in range(251)) * 9000
    for qos in 0, 1, 2:
        for size in sizes:
            link.send(broker.publish("t", pattern[:size], qos, id=5))
            mp.expect(f"{size} True True")
            if qos == 1:
                link.expect(broker.puback(5))
            elif qos == 2:
                link.expect(broker.pubrec(5))
                link.send(broker.pubrel(5))
                if size != sizes[-1]:
                    link.expect(broker.pubcomp(5))
    if link.packet() != broker.DISCONNECT:  # PUBCOMP: whether it still goes out depends on the moment
        link.expect(broker.DISCONNECT)


@scenario(unix=True)
def topics_of_any_length(t):
    topics = ["t", "/", "tä/€/𝄞", "x" * 127, "x" * 128, "x" * 4096, "x" * 65535, "$SYS/broker/load"]
    mp, link, _ = t.connected("""
        def cb(topic, msg):
            say(len(topic), topic[-4:], msg)
        c.set_callback(cb)
        for _ in range(COUNT):
            c.wait_msg()
        c.disconnect()
    """, names={"COUNT": len(topics)}, heap="8m")
    for topic in topics:
        link.send(broker.publish(topic, "m", qos=1, id=9))
        mp.expect(f"{len(topic.encode())} {topic.encode()[-4:]} b'm'")
        link.expect(broker.puback(9))
    link.expect(broker.DISCONNECT)


STREAM = [broker.publish("a", "zero"), broker.publish("b/c", "one", qos=1, id=300), broker.PINGRESP,
          broker.publish("d", "", qos=2, id=301, retain=True), broker.pubrel(77), broker.puback(4711),
          broker.publish("e", "x" * 200, retain=True), broker.publish("f", "dup", qos=1, id=302, dup=True)]
HEARD = ["got b'a' b'zero'", "got b'b/c' b'one'", "got b'd' b''", "got b'e' 200 bytes", "got b'f' b'dup'"]
ANSWERS = [broker.puback(300), broker.pubrec(301), broker.puback(302)]


def expect_answers(t, link):
    """Of each message behind its callback, and one to the PUBREL, whenever that is met; then releases the QoS 2 message."""
    got = [link.packet() for _ in range(4)]
    t.equal([raw for raw in got if raw != broker.pubcomp(77)], ANSWERS, "acknowledgements")
    link.send(broker.pubrel(301))
    link.expect(broker.pubcomp(301))


@scenario
def byte_by_byte_to_wait_msg(t):
    mp, link, _ = t.connected("serve(c); c.disconnect()")
    link.dribble(b"".join(STREAM))
    mp.expect(*HEARD)
    expect_answers(t, link)
    link.send(broker.publish("end"))
    link.expect(broker.DISCONNECT)


@scenario
def byte_by_byte_to_check_msg(t):
    mp, link, _ = t.connected("""
        serving = True
        while serving:
            c.check_msg()
        c.disconnect()
    """)
    link.dribble(b"".join(STREAM))
    mp.expect(*HEARD)
    expect_answers(t, link)
    link.send(broker.publish("end"))
    link.expect(broker.DISCONNECT)


@scenario(idle=True)
def split_at_every_byte(t):
    stream = b"".join(STREAM)
    mp, link, _ = t.connected("serve(c); c.disconnect()")
    for cut in range(1, len(stream)):
        link.send(stream[:cut])
        link.taken()
        link.send(stream[cut:])
        mp.expect(*HEARD)
        expect_answers(t, link)
    link.send(broker.publish("end"))
    link.expect(broker.DISCONNECT)


@scenario
def messages_before_the_end_of_the_stream_are_delivered(t):
    mp, link, _ = t.connected("""
        tell(c.wait_msg)
        tell(c.wait_msg)
        tell(c.wait_msg)
    """, reconn=False)
    link.send(broker.publish("t", "1"), broker.publish("t", "2"))
    link.fin()
    mp.expect("got b't' b'1'", "None", "got b't' b'2'", "None")
    mp.match("OSError .*")


@scenario
def the_end_within_a_packet_is_an_error(t):
    raw = broker.publish("topic", "payload", qos=1, id=77)
    b = t.broker()
    mp = t.mp("""
        for _ in range(CUTS):
            c = client(reconn=False)
            c.connect()
            say("connected")
            tell(c.wait_msg)
    """, b, CUTS=len(raw))
    for cut in range(len(raw)):
        link = b.welcome()
        mp.expect("connected")
        link.send(raw[:cut])
        link.fin()
        mp.match("OSError .*")
        link.expect_end()


@scenario(network=True)
def a_message_cut_off_is_forgotten_by_the_next_connection(t):
    mp, link, b = t.connected("""
        for _ in range(3):
            tell(c.wait_msg)
            c.close()
            c.connect()
            say("connected again")
        serve(c)
        c.disconnect()
    """, reconn=False)
    for cut in 2, 5000, 299000:
        link.send(broker.publish("t", b"x" * 300000, qos=1, id=7)[:cut])
        link.fin()
        mp.match("OSError .*")
        link.expect_end()
        link = b.welcome(session=True)
        mp.expect("connected again")
    link.send(broker.publish("t", "whole", qos=1, id=7, dup=True), broker.publish("end"))
    mp.expect("got b't' b'whole'")
    link.expect(broker.puback(7), broker.DISCONNECT)


@scenario
def check_msg_raises_when_the_link_has_failed(t):
    for end in "fin", "rst":
        mp, link, _ = t.connected("""
            hear()
            while (told := outcome(c.check_msg)) == "None":
                pass  # a busy machine takes its time with the end
            say(told)
            tell(c.check_msg)
        """, reconn=False)
        getattr(link, end)()
        mp.tell()
        mp.match("OSError .*")
        mp.expect("OSError ENOTCONN")


@scenario
def the_same_topic_again_is_the_same_object(t):
    mp, link, _ = t.connected("""
        topics = []
        c.set_callback(lambda topic, msg: topics.append((topic, msg)))
        for _ in range(7):
            c.wait_msg()
        say([b"".join(pair) for pair in topics])
        say([b[0] is a[0] for a, b in zip(topics, topics[1:])])
        c.disconnect()
    """)
    one, other = broker.publish("a/b", "1"), broker.publish("a/c", "2")
    link.send(one + one + broker.publish("a/b", "3", retain=True) + other)
    link.send(one[:6])
    link.idle(50)
    link.send(one[6:] + other + other)
    mp.expect(str([b"a/b1", b"a/b1", b"a/b3", b"a/c2", b"a/b1", b"a/c2", b"a/c2"]),
              str([True, True, False, False, False, True]))
    link.expect(broker.DISCONNECT)


@scenario
def check_msg_returns_when_its_callback_ends_the_connection(t):
    for end in "disconnect", "close":
        mp, link, _ = t.connected(f"""
            topics = []
            def cb(topic, msg):
                topics.append(topic)
                c.{end}()
            c.set_callback(cb)
            while not topics:
                told = outcome(c.check_msg)
            say(told)
            tell(c.check_msg)
        """)
        link.send(broker.publish("t"))
        mp.expect("None", "OSError ENOTCONN")
        if end == "disconnect":
            link.expect(broker.DISCONNECT)


# --- acknowledgements

@scenario
def qos1_is_acknowledged_after_the_callback(t):
    mp, link, _ = t.connected("""
        def cb(topic, msg):
            say("in")
            hear()
            say("out")
        c.set_callback(cb)
        c.wait_msg()
        c.disconnect()
    """)
    link.send(broker.publish("t", "m", qos=1, id=65535))
    mp.expect("in")
    link.idle(150)
    mp.tell()
    mp.expect("out")
    link.expect(broker.puback(65535), broker.DISCONNECT)


@scenario
def qos1_may_come_twice(t):
    mp, link, _ = t.connected("serve(c); c.disconnect()")
    for dup in False, True, True:
        link.send(broker.publish("t", "m", qos=1, id=3, dup=dup))
        mp.expect("got b't' b'm'")
        link.expect(broker.puback(3))
    link.send(broker.publish("end"))
    link.expect(broker.DISCONNECT)


@scenario
def qos2_is_received_after_the_callback_and_once(t):
    mp, link, _ = t.connected("""
        def cb(topic, msg):
            say("in", msg)
            hear()
        c.set_callback(cb)
        for _ in range(3):
            c.wait_msg()
        c.disconnect()
    """)
    message = broker.publish("t", "m", qos=2, id=3)
    again = broker.publish("t", "m", qos=2, id=3, dup=True)
    link.send(message)
    mp.expect("in b'm'")
    link.idle(150)
    mp.tell()
    link.expect(broker.pubrec(3))
    for raw in again, message, again:
        link.send(raw)
        link.expect(broker.pubrec(3))
    mp.silent(50)
    link.send(broker.pubrel(3))
    link.expect(broker.pubcomp(3))
    link.send(broker.pubrel(3))  # by now an unknown one
    link.expect(broker.pubcomp(3))
    mp.silent(1)
    link.send(again)  # the id is free: a new message, whatever its DUP says
    mp.expect("in b'm'")
    mp.tell()
    link.expect(broker.pubrec(3))
    link.send(broker.pubrel(3))
    link.expect(broker.pubcomp(3))
    link.send(broker.publish("t", "last"))
    mp.expect("in b'last'")
    mp.tell()
    link.expect(broker.DISCONNECT)


@scenario
def qos2_is_once_across_connections_too(t):
    mp, link, b = t.connected("""
        c.wait_msg()
        c.wait_msg()
        c.close()
        c.connect()
        serve(c)
        c.disconnect()
    """)
    link.send(broker.publish("t", "1", qos=2, id=1), broker.publish("t", "2", qos=2, id=2))
    mp.expect("got b't' b'1'", "got b't' b'2'")
    link.expect(broker.pubrec(1), broker.pubrec(2))
    link.expect_end()
    link = b.welcome(session=True)
    link.send(broker.publish("t", "1", qos=2, id=1, dup=True), broker.pubrel(2), broker.publish("t", "3", qos=2, id=3))
    link.expect(broker.pubrec(1), broker.pubcomp(2))
    mp.expect("got b't' b'3'")
    link.expect(broker.pubrec(3))
    link.send(broker.publish("end"))
    link.expect(broker.DISCONNECT)


@scenario
def qos2_is_once_though_the_client_had_disconnected(t):
    # the broker's session outlives `disconnect`
    mp, link, b = t.connected("""
        c.wait_msg()
        c.disconnect()
        c.connect()
        serve(c)
        c.disconnect()
    """)
    link.send(broker.publish("t", "1", qos=2, id=1))
    mp.expect("got b't' b'1'")
    link.expect(broker.pubrec(1), broker.DISCONNECT)
    link = b.welcome(session=True)
    link.send(broker.publish("t", "1", qos=2, id=1, dup=True), broker.publish("end"))
    link.expect(broker.pubrec(1), broker.DISCONNECT)


@scenario
def a_kept_qos2_message_that_comes_again_is_delivered_once(t):
    # it arrives while publish waits, the link breaks before its callback, and the broker repeats it
    mp, link, b = t.connected("""
        outcome(c.publish, "t", "m", qos=1)
        c.close()
        c.connect()
        serve(c)
        c.disconnect()
    """, reconn=False)
    id = link.expect_publish("t", "m", qos=1)
    link.send(broker.publish("in", "once", qos=2, id=1))
    link.taken()
    link.fin()
    link.expect_end()
    link = b.welcome(session=True)
    link.expect_publish("t", "m", qos=1, dup=True)
    link.send(broker.puback(id), broker.publish("in", "once", qos=2, id=1, dup=True))
    mp.expect("got b'in' b'once'")
    link.expect(broker.pubrec(1))
    link.send(broker.pubrel(1))
    link.expect(broker.pubcomp(1))
    link.send(broker.publish("end"))
    link.expect(broker.DISCONNECT)


@scenario
def qos2_ids_of_a_lost_session_are_new(t):
    mp, link, b = t.connected("""
        c.wait_msg()
        c.close()
        c.connect()
        serve(c)
        c.disconnect()
    """)
    link.send(broker.publish("t", "old", qos=2, id=1))
    mp.expect("got b't' b'old'")
    link.expect(broker.pubrec(1))
    link.expect_end()
    link = b.welcome(session=False)
    link.send(broker.publish("t", "new", qos=2, id=1))
    mp.expect("got b't' b'new'")
    link.expect(broker.pubrec(1))
    link.send(broker.publish("end"))
    link.expect(broker.DISCONNECT)


@scenario
def a_thousand_qos2_ids_at_once(t):
    ids = [n * 61 % 65535 + 1 for n in range(1000)]
    mp, link, _ = t.connected("""
        n = 0
        def cb(topic, msg):
            global n, serving
            n += 1
            serving = topic != b"end"
        c.set_callback(cb)
        serve(c)
        say(n)
        c.disconnect()
    """)
    for dup in False, True:
        for start in range(0, 1000, 50):  # in portions, so that neither side's buffers fill
            part = ids[start:start + 50]
            link.send(*[broker.publish("t", str(id), qos=2, id=id, dup=dup) for id in part])
            link.expect(*[broker.pubrec(id) for id in part])
    for start in range(0, 1000, 50):
        part = ids[start:start + 50]
        link.send(*[broker.pubrel(id) for id in part])
        link.expect(*[broker.pubcomp(id) for id in part])
    link.send(broker.publish("end"))
    mp.expect("1001")
    link.expect(broker.DISCONNECT)


@scenario
def an_unknown_pubrel_is_answered(t):
    mp, link, _ = t.connected("serve(c); c.disconnect()")
    for id in 1, 256, 65535:
        link.send(broker.pubrel(id))
        link.expect(broker.pubcomp(id))
    link.send(broker.publish("end"))
    link.expect(broker.DISCONNECT)
    mp.finish()


@scenario(unix=True, tcp=True)
def more_unreleased_qos2_ids_than_half_of_all(t):
    mp, link, _ = t.connected("""
        called = 0
        def cb(topic, msg):
            global called
            called += 1
        c.set_callback(cb)
        while called < COUNT:
            c.wait_msg()
        say("all")
        c.disconnect()
    """, heap="32M", keepalive=0, names={"COUNT": 33001})
    for start in range(1, 33001, 200):
        ids = range(start, start + 200)
        link.send(*[broker.publish("t", b"x", qos=2, id=id) for id in ids])
        link.expect(*[broker.pubrec(id) for id in ids])
    link.send(broker.publish("t"))
    mp.expect("all")
    link.expect(broker.DISCONNECT)
