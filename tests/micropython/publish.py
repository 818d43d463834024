"""publish: the bytes, what it returns, what it refuses, and what it costs."""

import broker
from harness import scenario

# payload sizes of a topic of 3 bytes where the remaining length grows by a byte, and the usual sizes
EDGES = [0, 1, 32, 122, 123, 255, 256, 4096, 16383 - 5, 16384 - 5, 65535, 65536, 1 << 20, 2097151 - 5, 2097152 - 5]


@scenario(unix=True)
def qos0_in_every_size(t):
    mp, link, _ = t.connected("""
        for n in SIZES:
            tell(c.publish, "a/b", b"x" * n)
        c.disconnect()
    """, names={"SIZES": EDGES}, heap="32m")
    for size in EDGES:
        link.expect_publish("a/b", b"x" * size)
        mp.expect("True")
    link.expect(broker.DISCONNECT)


@scenario(unix=True)
def qos1_in_every_size(t):
    sizes = [n - 2 if n > 100 else n for n in EDGES]
    mp, link, _ = t.connected("""
        for n in SIZES:
            tell(c.publish, "a/b", b"x" * n, False, 1)
        c.disconnect()
    """, names={"SIZES": sizes}, heap="32m")
    for size in sizes:
        id = link.expect_publish("a/b", b"x" * size, qos=1)
        link.send(broker.puback(id))
        mp.expect("True")
    link.expect(broker.DISCONNECT)


@scenario(unix=True)
def qos2_in_every_size(t):
    sizes = [n - 2 if n > 100 else n for n in EDGES]
    mp, link, _ = t.connected("""
        for n in SIZES:
            tell(c.publish, "a/b", b"x" * n, False, 2)
        c.disconnect()
    """, names={"SIZES": sizes}, heap="32m")
    for size in sizes:
        id = link.expect_publish("a/b", b"x" * size, qos=2)
        link.send(broker.pubrec(id))
        link.expect(broker.pubrel(id))
        link.send(broker.pubcomp(id))
        mp.expect("True")
    link.expect(broker.DISCONNECT)


@scenario
def any_buffer_is_a_message(t):
    mp, link, _ = t.connected("""
        from array import array
        big = bytearray(range(100))
        for qos in 0, 1, 2:
            for msg in "text", "é€", b"\\x00\\xff", bytearray(b"ba"), memoryview(big)[10:20], array("H", [1, 2]), "", b"":
                tell(c.publish, "t", msg, False, qos)
        c.disconnect()
    """)
    for qos in 0, 1, 2:
        for payload in ("text", "é€", b"\x00\xff", b"ba", bytes(range(10, 20)), b"\x01\x00\x02\x00", b"", b""):
            id = link.expect_publish("t", payload, qos=qos)
            if qos == 1:
                link.send(broker.puback(id))
            elif qos == 2:
                link.send(broker.pubrec(id))
                link.expect(broker.pubrel(id))
                link.send(broker.pubcomp(id))
            mp.expect("True")
    link.expect(broker.DISCONNECT)


@scenario
def topics_of_any_length_and_kind(t):
    topics = ["t", "/", "a/b/c", "tä/€", "$SYS/x", "a b", "x" * 122, "x" * 123, "x" * 128, "x" * 65535]
    mp, link, _ = t.connected("""
        for n in 122, 123, 128, 65535:
            TOPICS.append("x" * n)
        for topic in TOPICS:
            tell(c.publish, topic, "m")
            tell(c.publish, topic.encode(), b"m")
        tell(c.publish, topic="kw", msg="m", retain=True, qos=0, wait=False)
        c.disconnect()
    """, names={"TOPICS": topics[:6]})
    for topic in topics:
        link.expect_publish(topic, "m")
        link.expect_publish(topic, "m")
        mp.expect("True", "True")
    link.expect_publish("kw", "m", retain=True)
    mp.expect("True")
    link.expect(broker.DISCONNECT)


@scenario
def any_truthy_value_is_retain(t):
    values = "False, True, 0, 1, 2, -1, None, 'yes', '', [], [0], b'', b'x', 0.0, 0.5"
    mp, link, _ = t.connected(f"""
        for retain in ({values}):
            c.publish("t", "m", retain)
            c.publish("t", "m", retain=retain)
        c.disconnect()
    """)
    for retain in eval(values):
        link.expect_publish("t", "m", retain=bool(retain))
        link.expect_publish("t", "m", retain=bool(retain))
    link.expect(broker.DISCONNECT)


@scenario
def what_is_refused_is_not_sent(t):
    refused = ['"", "m"', 'b"", "m"', '"a/+", "m"', '"#", "m"', '"a/#", "m"', '"a+", "m"', '"a\\0b", "m"', 'b"\\xff\\xfe", "m"',
               '"x" * 65536, "m"', '"t", "m", False, 3', '"t", "m", False, -1', '"t", "m", False, 256', '"t", "m", False, 1 << 70']
    wrong = ['None, "m"', '1, "m"', '["t"], "m"', '"t", None', '"t", 1', '"t", [1]', '"t", 1.5', '"t", "m", False, "1"',
             '"t", "m", False, None', '"t"', '']
    mp, link, _ = t.connected(f"""
        for args in [{', '.join(f'({a},)' if a else '()' for a in refused + wrong)}]:
            tell(c.publish, *args)
        c.disconnect()
    """)
    for arguments in refused:
        t.log("case", arguments)
        mp.match("ValueError .+")
    for arguments in wrong:
        t.log("case", arguments)
        mp.match("TypeError .+")
    link.expect(broker.DISCONNECT)


@scenario
def qos1_waits_for_the_puback(t):
    mp, link, _ = t.connected("""
        tell(c.publish, "t", "m", qos=1)
        c.disconnect()
    """)
    id = link.expect_publish("t", "m", qos=1)
    link.idle(150)
    mp.silent(1)
    link.send(broker.puback(id))
    mp.expect("True")
    link.expect(broker.DISCONNECT)


@scenario
def qos2_waits_for_the_whole_handshake(t):
    mp, link, _ = t.connected("""
        tell(c.publish, "t", "m", qos=2)
        c.disconnect()
    """)
    id = link.expect_publish("t", "m", qos=2)
    link.idle(100)
    mp.silent(1)
    link.send(broker.pubrec(id))
    link.expect(broker.pubrel(id))
    link.idle(100)
    mp.silent(1)
    link.send(broker.pubcomp(id))
    mp.expect("True")
    link.expect(broker.DISCONNECT)


@scenario
def acknowledgements_byte_by_byte(t):
    mp, link, _ = t.connected("""
        tell(c.publish, "t", "m", qos=1)
        tell(c.publish, "t", "m", qos=2)
        c.disconnect()
    """)
    id = link.expect_publish("t", "m", qos=1)
    link.dribble(broker.puback(id))
    mp.expect("True")
    id = link.expect_publish("t", "m", qos=2)
    link.dribble(broker.pubrec(id))
    link.expect(broker.pubrel(id))
    link.dribble(broker.pubcomp(id))
    mp.expect("True")
    link.expect(broker.DISCONNECT)


@scenario
def unknown_acknowledgements_are_ignored(t):
    mp, link, _ = t.connected("""
        tell(c.publish, "t", "1", qos=1)
        tell(c.publish, "t", "2", qos=2)
        serve(c)
        c.disconnect()
    """)
    def strangers(known):
        other = known % 65535 + 7 & 0xFFFF or 1
        return (broker.puback(other), broker.pubrec(other), broker.pubcomp(other), broker.suback(other, 0),
                broker.unsuback(other))
    id = link.expect_publish("t", "1", qos=1)
    link.send(*strangers(id), broker.puback(id))
    mp.expect("True")
    id = link.expect_publish("t", "2", qos=2)
    link.send(*strangers(id), broker.pubrec(id))
    link.expect(broker.pubrel(id))
    link.send(*strangers(id), broker.pubcomp(id))
    mp.expect("True")
    link.send(*strangers(id), broker.publish("end"))
    link.expect(broker.DISCONNECT)


@scenario
def messages_come_while_publish_waits(t):
    mp, link, _ = t.connected("""
        for qos in 1, 2:
            tell(c.publish, "t", "m", False, qos)
            for _ in range(3):
                c.wait_msg()
        c.disconnect()
    """)
    incoming = [broker.publish("in", str(n)) for n in range(3)]
    id = link.expect_publish("t", "m", qos=1)
    link.send(*incoming)
    link.idle(100)
    mp.silent(1)  # never from publish
    link.send(broker.puback(id))
    mp.expect("True", *[f"got b'in' b'{n}'" for n in range(3)])
    id = link.expect_publish("t", "m", qos=2)
    link.send(incoming[0], broker.pubrec(id), incoming[1])
    link.expect(broker.pubrel(id))
    link.send(incoming[2], broker.pubcomp(id))
    mp.expect("True", *[f"got b'in' b'{n}'" for n in range(3)])
    link.expect(broker.DISCONNECT)


@scenario
def kept_messages_with_qos_are_acknowledged_only_when_called_back(t):
    mp, link, _ = t.connected("""
        tell(c.publish, "t", "m", qos=1)
        hear()
        for _ in range(3):
            c.wait_msg()
        c.disconnect()
    """)
    id = link.expect_publish("t", "m", qos=1)
    link.send(broker.publish("in", "1", qos=1, id=11), broker.publish("in", "2", qos=2, id=12), broker.publish("in", "3"),
              broker.puback(id))
    mp.expect("True")
    link.idle(150)
    mp.tell()
    mp.expect("got b'in' b'1'", "got b'in' b'2'", "got b'in' b'3'")
    link.expect(broker.puback(11), broker.pubrec(12), broker.DISCONNECT)


# --- what it costs

def writes(calls, topic):
    """Successful system calls that carried this topic."""
    return [line for line in calls if topic in line and not line.rsplit("=", 1)[1].strip().startswith("-1")]


@scenario(unix=True, tcp=True)
def qos0_is_one_write(t):
    sizes = [0, 1, 32, 200]
    mp, link, _ = t.connected("""
        msgs = [b"m" * n for n in SIZES]
        for msg in msgs:
            c.publish("one/write", msg)
        c.disconnect()
    """, names={"SIZES": sizes}, strace="write,writev,sendto,sendmsg,sendmmsg")
    for size in sizes:
        link.expect_publish("one/write", b"m" * size)
    link.expect(broker.DISCONNECT)
    mp.finish()
    calls = writes(mp.calls(), "one/write")
    t.equal(len(calls), len(sizes), "writes")
    for line, size in zip(calls, sizes):
        t.equal(int(line.rsplit("=", 1)[1]), len(broker.publish("one/write", b"m" * size)), "bytes written at once")
    # nothing else went out but CONNECT and DISCONNECT
    sockets = {line.split("(")[1].split(",")[0] for line in calls}
    to_socket = [line for line in mp.calls() if "(" in line and line.split("(")[1].split(",")[0] in sockets]
    t.equal(len(to_socket), len(sizes) + 2, "writes to the socket")


@scenario(network=True)
def qos0_allocates_nothing(t):
    mp, link, _ = t.connected("""
        def measure(topic, msg):
            gc.collect()
            before = gc.mem_alloc()
            for _ in range(50):
                c.publish(topic, msg)
            return gc.mem_alloc() - before
        for topic, msg in ("t", "m" * 32), (b"dev/0001/telemetry", b"m" * 32), ("t", bytearray(200)), ("t", b""):
            measure(topic, msg)
            say(measure(topic, msg))
        c.disconnect()
    """)
    with link.answering():
        mp.expect("0", "0", "0", "0")
        mp.finish()


@scenario(limit=120, unix=True)
def packet_ids_wrap_without_touching_one_in_flight(t):
    mp, link, _ = t.connected("""
        c.publish("stays", "m", qos=1, wait=False)
        for n in range(70000):
            if c.publish("t", "", False, 1) is not True:
                say("not acknowledged", n)
                break
        say("done")
        c.disconnect()
    """)
    stays = link.expect_publish("stays", "m", qos=1)
    seen = set()
    for n in range(70000):
        until = t.until(10)
        link._need(7, until)  # 32 05 00 01 't' id: packet() with its checks is too slow for so many
        raw, link.buffer = bytes(link.buffer[:7]), link.buffer[7:]
        id = raw[5] << 8 | raw[6]
        if raw[:5] != b"\x32\x05\x00\x01t" or id in (0, stays):
            t.fail(f"publish {n}: {raw.hex(' ')}, with {stays} in flight")
        seen.add(id)
        link.sock.sendall(broker.puback(id))
    t.checked()
    mp.expect("done", within=20)
    link.expect(broker.DISCONNECT)
