"""A peer that does not read, a script that does not take its messages: flow control and full sockets."""

import time

import broker
from harness import scenario
from outage import HELPERS


@scenario(network=True)
def a_script_that_takes_nothing_stops_the_broker(t):
    # Only the kernel's buffers fill; the client neither reads ahead nor grows; afterwards not one message is missing.
    mp, link, _ = t.connected("""
        n = 0
        def cb(topic, msg):
            global n, serving
            if topic == b"end":
                serving = False
            elif int(msg[:8]) != n:
                say("out of order", msg[:8], n)
            n += 1
        c.set_callback(cb)
        gc.collect()
        before = gc.mem_alloc()
        say("idle")
        hear()
        say(gc.mem_alloc() - before)
        serve(c)
        say(n)
        c.disconnect()
    """)
    mp.expect("idle")
    n, rest = link.send_while_room(broker.publish("t", b"%08d" % n + b"x" * 1000) for n in range(200000))
    t.between(n, 10, 199999, "messages until the broker had to stop")
    mp.tell()
    grown = int(mp.match("(-?[0-9]+)")[1])
    t.between(grown, -100000, 65536, "bytes of heap")
    link.send(rest, broker.publish("end"), within=20)
    mp.expect(str(n + bool(rest) + 1), within=20)
    link.expect(broker.DISCONNECT)


# Packets of 1,024 bytes: of those Linux takes all or nothing when a socket has no more room.
FILL = """
def fill():
    n = 0
    while True:
        t0 = time.ticks_ms()
        r = outcome(c.publish, "t", "%06d" % n + "x" * 1012)
        if r != "True":
            return say("full", n, r, "after", time.ticks_diff(time.ticks_ms(), t0), "ms")
        n += 1
"""


def full(mp, outcome):
    found = mp.match(f"full ([0-9]+) {outcome} after ([0-9]+) ms", within=40)
    mp.trace.between(int(found[2]), 4900, 6500 + mp.SLACK, "ms until publish gave up")
    return int(found[1])


@scenario(idle=True, unix=True, tcp=True)
def no_byte_taken_in_5_s_is_false_and_the_stream_stays_in_order(t):
    b = t.broker(receive_buffer=4096)
    mp, link, _ = t.connected("""
        fill()
        hear()
        tell(c.publish, "t", "after", qos=1)
        c.disconnect()
    """, helpers=FILL, broker=b, keepalive=0)
    n = full(mp, "False")
    for i in range(n):
        link.expect_publish("t", "%06d" % i + "x" * 1012)
    link.idle(100)
    mp.tell()
    link.send(broker.puback(link.expect_publish("t", "after", qos=1)))
    mp.expect("True")
    link.expect(broker.DISCONNECT)


@scenario(idle=True, threads=True, unix=True, tcp=True)
def no_thread_waits_for_longer_because_others_wait_too(t):
    b = t.broker(receive_buffer=4096)
    mp, link, _ = t.connected("""
        fill()
        ends = []
        for _ in range(4):
            ends.append(start(lambda: clock(c.publish, "t", "x" * 1018)))
            pause(1000)
        for end in ends:
            end()
        c.close()
    """, helpers=HELPERS + FILL, broker=b, keepalive=0)
    link.strict = False
    full(mp, "False")
    for _ in range(4):
        mp.took("False", 4900, 6500)


@scenario(idle=True, network=True)
def no_byte_taken_in_5_s_is_etimedout_without_reconn(t):
    b = t.broker(receive_buffer=4096)
    mp, link, _ = t.connected("fill(); c.close()", helpers=FILL, broker=b, keepalive=0, reconn=False)
    link.strict = False
    full(mp, "OSError ETIMEDOUT")


@scenario(idle=True, unix=True)
def half_a_packet_sent_and_then_nothing_is_a_failed_link(t):
    b = t.broker(receive_buffer=4096)
    mp, link, _ = t.connected("""
        big = bytes(16000000)
        clock(c.publish, "t", big)
        say(c.get_mqttsta())
        tell(c.publish, "t", "m")
        hear()
    """, broker=b, keepalive=0, reconn=False, heap="64m")
    link.strict = False
    # Linux may have room for a little more when asked again after 5 s
    mp.took("OSError ETIMEDOUT", 4900, 11500)
    mp.expect("-1", "OSError ENOTCONN")
    mp.tell()


@scenario(idle=True, unix=True)
def a_slow_reader_is_no_failure(t):
    # it takes a little every second: 5 s are counted from the last byte taken
    b = t.broker(receive_buffer=65536)
    mp, link, _ = t.connected("""
        big = bytes(6000000)
        tell(c.publish, "t", big)
        c.disconnect()
    """, broker=b, keepalive=0, heap="32m")
    size = len(broker.publish("t", bytes(6000000)))
    for _ in range(8):
        time.sleep(1)
        link.skip(60000)
        size -= 60000
    link.skip(size)
    mp.expect("True")
    link.expect(broker.DISCONNECT)


@scenario(idle=True, unix=True)
def a_slow_link_is_no_dead_one(t):
    # no PINGREQ can be sent in the middle of a message, so its answer is not late either
    b = t.broker(receive_buffer=65536)
    mp, link, _ = t.connected("""
        big = bytes(10000000)
        start = time.ticks_ms()
        say(c.publish("t", big), c.get_mqttsta(), time.ticks_diff(time.ticks_ms(), start) > 2500)
        hear()
        c.disconnect()
    """, broker=b, keepalive=1, heap="32m")
    size = len(broker.publish("t", bytes(10000000)))
    while size > 0 and not mp.buffer:
        time.sleep(0.04)
        size -= len(link.sock.recv(min(size, 80000)))
        mp.buffer += mp.more(0) or b""
    link.skip(size)
    mp.expect("True 0 True")
    link.expect(broker.PINGREQ, within=3)
    link.send(broker.PINGRESP)
    mp.tell()
    link.expect(broker.DISCONNECT)


@scenario(unix=True)
def what_the_kernel_cannot_take_at_once_is_not_mixed_up(t):
    # short writes: a small receive buffer, large messages of every qos, read in small portions
    b = t.broker(receive_buffer=4096)
    mp, link, _ = t.connected("""
        for n in range(12):
            tell(c.publish, "t", bytes([n]) * (300000 + n), False, n % 3)
        c.disconnect()
    """, broker=b, keepalive=0, heap="16m")
    for n in range(12):
        id = link.expect_publish("t", bytes([n]) * (300000 + n), qos=n % 3)
        if n % 3 == 1:
            link.send(broker.puback(id))
        elif n % 3 == 2:
            link.send(broker.pubrec(id))
            link.expect(broker.pubrel(id))
            link.send(broker.pubcomp(id))
        mp.expect("True")
    link.expect(broker.DISCONNECT)


@scenario(idle=True, unix=True, tcp=True)
def acknowledgements_wait_for_room_and_check_msg_does_not(t):
    # QoS 1 and 2 messages come in while the socket takes nothing: they are called back as far as acknowledgements can be
    # remembered, nothing blocks, and all is acknowledged in order when the broker reads again
    b = t.broker(receive_buffer=4096)
    mp, link, _ = t.connected("""
        fill()
        worst = 0
        for _ in range(20):
            t0 = time.ticks_ms()
            c.check_msg()
            worst = max(worst, time.ticks_diff(time.ticks_ms(), t0))
            time.sleep(0.01)
        say("slow" if worst > 100 else "quick")
        serve(c)
        c.disconnect()
    """, helpers=FILL, broker=b, keepalive=0)
    link.send(*[broker.publish("in", str(n), qos=1 + n % 2, id=n + 1) for n in range(60)])
    n = full(mp, "False")
    lines = mp.until("quick")
    for i in range(n):
        link.expect_publish("t", "%06d" % i + "x" * 1012)
    link.expect(*[broker.puback(n + 1) if n % 2 == 0 else broker.pubrec(n + 1) for n in range(60)])
    link.send(broker.publish("end"))
    lines += [mp.line() for _ in range(60 - len(lines))]
    t.equal(lines, [f"got b'in' b'{n}'" for n in range(60)])
    link.expect(broker.DISCONNECT)


@scenario(idle=True, network=True)
def disconnect_and_close_do_not_wait_for_a_full_socket(t):
    for call in "disconnect", "close":
        b = t.broker(receive_buffer=4096)
        mp, link, _ = t.connected(f"""
            fill()
            clock(c.{call})
            say(c.get_mqttsta())
        """, helpers=FILL, broker=b, keepalive=0)
        link.strict = False
        full(mp, "False")
        mp.took("None", 0, 200)
        mp.expect("-1")
