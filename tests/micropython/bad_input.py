"""What no broker may send: the link is closed with an error, no callback, no hang, no crash; the next connect works."""

import random

import broker
from harness import scenario

text, number, packet = broker.text, broker.number, broker.packet

HEADERS = {
    "remaining length of five bytes": b"\x30\x80\x80\x80\x80\x01",
    "remaining length without an end": b"\x30\xff\xff\xff\xff\xff",
    "packet type 0": b"\x00\x00",
    "packet type 15": b"\xf0\x00",
    "packet type 15, huge": b"\xf0\xff\xff\xff\x7f",
    "PUBLISH with QoS 3": packet(0x36, text("t"), number(1), b"m"),
    "PUBLISH with QoS 3 and DUP": packet(0x3E, text("t"), number(1), b"m"),
    "PUBLISH with QoS 0 and DUP": packet(0x38, text("t"), b"m"),  # [MQTT-3.3.1-2]
    "CONNACK twice": broker.connack(),
    "CONNACK twice, a refusal": broker.connack(code=5),
    "PUBACK with flags": packet(0x41, number(1)),
    "PUBREC with flags": packet(0x52, number(1)),
    "PUBREL without its flag": packet(0x60, number(1)),
    "PUBREL with flag 1": packet(0x61, number(1)),
    "PUBREL with flag 3": packet(0x63, number(1)),
    "PUBCOMP with flags": packet(0x71, number(1)),
    "SUBACK with flags": packet(0x92, number(1), b"\0"),
    "UNSUBACK with flags": packet(0xB1, number(1)),
    "PINGRESP with flags": b"\xd8\x00",
}
IDS = {
    "PUBLISH QoS 1 with id 0": broker.publish("t", "m", qos=1, id=0),
    "PUBLISH QoS 2 with id 0": broker.publish("t", "m", qos=2, id=0),
    "PUBACK with id 0": broker.puback(0),
    "PUBREC with id 0": broker.pubrec(0),
    "PUBREL with id 0": broker.pubrel(0),
    "PUBCOMP with id 0": broker.pubcomp(0),
    "SUBACK with id 0": broker.suback(0, 0),
    "UNSUBACK with id 0": broker.unsuback(0),
}
LENGTHS = {
    "PUBACK of 0 bytes": b"\x40\x00",
    "PUBACK of 1 byte": b"\x40\x01\x01",
    "PUBACK of 3 bytes": b"\x40\x03\x00\x01\x00",
    "PUBACK, huge": b"\x40\xff\xff\xff\x7f",
    "PUBREC of 1 byte": b"\x50\x01\x01",
    "PUBREC of 4 bytes": b"\x50\x04\x00\x01\x00\x00",
    "PUBREL of 0 bytes": b"\x62\x00",
    "PUBREL of 3 bytes": b"\x62\x03\x00\x01\x00",
    "PUBCOMP of 1 byte": b"\x70\x01\x01",
    "PUBCOMP of 3 bytes": b"\x70\x03\x00\x01\x00",
    "SUBACK of 0 bytes": b"\x90\x00",
    "SUBACK without a code": b"\x90\x02\x00\x01",
    "SUBACK, huge": b"\x90\xff\xff\xff\x7f",
    "UNSUBACK of 0 bytes": b"\xb0\x00",
    "UNSUBACK of 3 bytes": b"\xb0\x03\x00\x01\x00",
    "PINGRESP of 1 byte": b"\xd0\x01\x00",
    "PUBLISH of 0 bytes": b"\x30\x00",
    "PUBLISH of 1 byte": b"\x30\x01\x00",
    "PUBLISH with half a topic": b"\x30\x04\x00\x05ab",
    "PUBLISH whose topic ends one past the packet": b"\x30\x04\x00\x03ab",
    "PUBLISH QoS 1 without an id": b"\x32\x03\x00\x01t",
    "PUBLISH QoS 1 with half an id": b"\x32\x04\x00\x01t\x01",
    "PUBLISH QoS 2 whose topic takes the id's place": b"\x34\x05\x00\x03tab",
}
TOPICS = {
    "empty topic": broker.publish("", "m"),
    "empty topic, QoS 1": broker.publish("", "m", qos=1, id=1),
    "topic +": broker.publish("+", "m"),
    "topic a/+/b": broker.publish("a/+/b", "m"),
    "topic #": broker.publish("#", "m"),
    "topic a/#": broker.publish("a/#", "m"),
    "topic with NUL": broker.publish("a\0b", "m"),
    "topic: a lone 0xff": broker.publish(b"\xff", "m"),
    "topic: a lone continuation byte": broker.publish(b"a\x80", "m"),
    "topic: cut off": broker.publish(b"a\xe2\x82", "m"),
    "topic: overlong": broker.publish(b"\xc0\xaf", "m"),
    "topic: a surrogate": broker.publish(b"\xed\xa0\x80", "m"),
    "topic: past U+10FFFF": broker.publish(b"\xf4\x90\x80\x80", "m"),
}
OF_CLIENTS = {
    "CONNECT": broker.connect(),
    "SUBSCRIBE": broker.subscribe(1, "t"),
    "UNSUBSCRIBE": broker.unsubscribe(1, "t"),
    "PINGREQ": broker.PINGREQ,
    "DISCONNECT": broker.DISCONNECT,
    "CONNECT, huge": b"\x10\xff\xff\xff\x7f",
}


def each_closes_the_link(t, cases, take):
    """`take` names the call that meets the packet; the stream before it is in order, what is behind it is not looked at."""
    b = t.broker()
    mp = t.mp(f"""
        for _ in range(N):
            c = client(reconn=False)
            c.connect()
            tell(c.wait_msg)
            hear()
            clock(c.{take})
            say(c.get_mqttsta())
            tell(c.publish, "t", "m")
            if _ % 3 == 0:
                c.close()
    """, b, N=len(cases))
    for name, raw in cases.items():
        t.log("case", name)
        link = b.welcome()
        link.send(broker.publish("good", "m"), raw + broker.publish("never", "seen"))
        mp.expect("got b'good' b'm'", "None")
        link.arrived()
        mp.tell()
        mp.took("OSError .*", 0, 2000)
        mp.expect("-1", "OSError ENOTCONN")
        link.expect_end()


@scenario
def headers(t):
    each_closes_the_link(t, HEADERS, "wait_msg")


@scenario
def ids(t):
    each_closes_the_link(t, IDS, "wait_msg")


@scenario
def lengths(t):
    each_closes_the_link(t, LENGTHS, "wait_msg")


@scenario
def topics(t):
    each_closes_the_link(t, TOPICS, "wait_msg")


@scenario
def packets_of_clients(t):
    each_closes_the_link(t, OF_CLIENTS, "wait_msg")


@scenario
def met_by_check_msg(t):
    each_closes_the_link(t, {**HEADERS, **IDS, **LENGTHS, **TOPICS, **OF_CLIENTS}, "check_msg")


@scenario
def met_by_publish(t):
    cases = {**HEADERS, **IDS, **LENGTHS, **TOPICS, **OF_CLIENTS}
    b = t.broker()
    mp = t.mp("""
        for _ in range(N):
            c = client(reconn=False)
            c.connect()
            clock(c.publish, "t", "m", qos=1)
            say(c.get_mqttsta())
            tell(c.check_msg)
    """, b, N=len(cases))
    for name, raw in cases.items():
        t.log("case", name)
        link = b.welcome()
        id = link.expect_publish("t", "m", qos=1)
        link.send(raw, broker.puback(id))
        mp.took("OSError .*", 0, 2000)
        mp.expect("-1", "OSError ENOTCONN")
        link.expect_end()


@scenario
def subacks_of_the_wrong_shape(t):
    wrong = [lambda id, code=code: broker.suback(id, code) for code in (3, 4, 0x7F, 0x81, 0xFF)]
    wrong += [lambda id: broker.suback(id, 0, 0), lambda id: broker.suback(id, 0, 0x80), lambda id: packet(0x90, number(id)),
              lambda id: packet(0x90, number(id), bytes(1000))]
    b = t.broker()
    mp = t.mp("""
        for _ in range(N):
            c = client(reconn=False)
            c.connect()
            clock(c.subscribe, "t", 2)
            say(c.get_mqttsta())
    """, b, N=len(wrong))
    for make in wrong:
        link = b.welcome()
        link.send(make(link.expect_subscribe("t", 2)))
        mp.took("OSError .*", 0, 2000)
        mp.expect("-1")
        link.expect_end()


@scenario
def byte_by_byte_it_is_as_wrong(t):
    cases = [broker.publish("a/#", "m"), broker.publish(b"\xff", "m"), broker.puback(0), b"\x30\x04\x00\x05ab",
             b"\x32\x04\x00\x01t\x01", packet(0x36, text("t"), number(1), b"m"), b"\x30\x80\x80\x80\x80\x01", broker.connack()]
    b = t.broker()
    mp = t.mp("""
        for _ in range(N):
            c = client(reconn=False)
            c.connect()
            say("connected")
            tell(c.wait_msg)
    """, b, N=len(cases))
    for raw in cases:
        link = b.welcome()
        mp.expect("connected")
        link.strict = False
        for byte in raw:  # the client may close before the last one
            try:
                link.sock.sendall(bytes([byte]))
                link.taken()
            except OSError:
                break
        mp.match("OSError .*")


@scenario
def a_wrong_packet_is_refused_as_soon_as_it_shows(t):
    # the header alone says enough: nothing is waited for
    for raw in b"\x40\xff\xff\xff\x7f", b"\x10\x80\x80\x80\x01", b"\x36\x05", b"\x90\xff\x7f":
        mp, link, _ = t.connected("clock(c.wait_msg)", reconn=False)
        link.send(raw)
        mp.took("OSError .*", 0, 2000)
        link.expect_end()


@scenario(limit=120)
def random_bytes(t):
    seed = random.randrange(1 << 32)
    t.log("seed", seed)
    chance = random.Random(seed)
    stream = b"".join([broker.publish("a/b", "text"), broker.publish("t", "m", qos=1, id=7), broker.publish("u", "m", qos=2, id=8),
                       broker.pubrel(8), broker.PINGRESP, broker.puback(5), broker.suback(6, 1), broker.unsuback(6)])
    b = t.broker()
    mp = t.mp("""
        for n in range(400):
            c = client(reconn=False)
            c.set_callback(None)
            try:
                c.connect()  # it may see what is behind the CONNACK
                while True:
                    if n % 2:
                        c.wait_msg()
                    else:
                        c.check_msg()
            except (OSError, MQTTException):
                pass
            c.disconnect()
        say("alive")
    """, b)
    for n in range(400):
        link = b.welcome()
        link.strict = False
        if n % 3:
            raw = bytearray(stream)
            for _ in range(chance.randint(1, 4)):
                raw[chance.randrange(len(raw))] = chance.randrange(256)
        else:
            raw = bytes(chance.randrange(256) for _ in range(chance.randint(1, 60)))
        try:
            link.send(bytes(raw))
            link.fin()
        except OSError:
            pass  # closed by the client already
    mp.expect("alive", within=30)


# --- too large for the heap

@scenario(network=True)
def a_message_too_large_for_the_heap_is_skipped(t):
    for qos in 0, 1, 2:
        mp, link, _ = t.connected("""
            serve(c)
            say(c.get_mqttsta())
            c.disconnect()
        """, heap="300k", reconn=False)
        link.send(broker.publish("t", "before"))
        mp.expect("got b't' b'before'")
        link.send(broker.publish("large", b"x" * 2000000, qos=qos, id=9), within=20)
        mp.match(".+")  # the contract does not say what the line says
        if qos:
            link.expect(broker.puback(9) if qos == 1 else broker.pubrec(9))
        link.send(broker.publish("t", "behind"), broker.publish("end"))
        mp.expect("got b't' b'behind'", "0")
        link.expect(broker.DISCONNECT)


@scenario(network=True)
def one_too_large_for_any_heap_is_skipped_too(t):
    # 256 MB announced; as much of it is sent as shows that the client reads on
    mp, link, _ = t.connected("""
        serve(c)
    """, heap="300k", reconn=False)
    link.sock.sendall(b"\x30\xff\xff\xff\x7f" + text("large"))
    for _ in range(64):
        link.send(bytes(1 << 18), within=20)
    link.fin()
    before = mp.until("OSError.*")
    t.true(any(line.startswith("Traceback") for line in before), "a traceback")
    mp.until_end()
    mp.ends_with(1)


@scenario(network=True)
def a_large_message_that_arrives_while_publish_waits_is_skipped_as_well(t):
    mp, link, _ = t.connected("""
        outcome(c.publish, "t", "m", qos=1)
        serve(c)
        c.disconnect()
    """, heap="300k")
    id = link.expect_publish("t", "m", qos=1)
    link.send(broker.publish("large", b"x" * 1000000, qos=1, id=9), broker.puback(id), within=20)
    mp.match(".+")
    link.expect(broker.puback(9))
    link.send(broker.publish("t", "behind"), broker.publish("end"))
    mp.expect("got b't' b'behind'")
    link.expect(broker.DISCONNECT)


@scenario(unix=True)
def check_msg_ends_in_a_flood_of_them(t):
    mp, link, _ = t.connected("""
        c.set_callback(lambda topic, msg: None)
        keep = []
        try:
            while True:
                keep.append(bytearray(600))
        except MemoryError:
            keep[3] = keep[40] = None
        hear()
        c.check_msg()
        keep = None
        say("back")
        c.close()
    """, heap="120k", reconn=False)
    flood = [broker.publish("t", b"y" * 3000)] * 20
    link.send(*flood)
    mp.tell()
    skipped = mp.until("back")
    t.between(len(skipped), 1, 2, "messages of 3 KB in one receive buffer of 4 KB")
