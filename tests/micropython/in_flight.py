"""What is in flight: the window, the time-outs, and what is sent again after a new connect."""

import broker
from harness import scenario


@scenario(idle=True)
def no_acknowledgement_in_5_s_is_false(t):
    mp, link, _ = t.connected("""
        clock(c.publish, "t", "1", qos=1)
        clock(c.publish, "t", "2", qos=2)
        tell(c.publish, "t", "3", qos=1)
        c.disconnect()
    """)
    first = link.expect_publish("t", "1", qos=1)
    mp.took("False", 4900, 6500)
    second = link.expect_publish("t", "2", qos=2)
    mp.took("False", 4900, 6500)
    third = link.expect_publish("t", "3", qos=1)  # nothing is sent again on the same connection
    link.send(broker.puback(first), broker.pubrec(second))  # late, and welcome
    link.expect(broker.pubrel(second))
    link.send(broker.pubcomp(second), broker.puback(third))
    mp.expect("True")
    link.expect(broker.DISCONNECT)


@scenario(idle=True)
def no_pubcomp_in_5_s_is_false(t):
    mp, link, _ = t.connected("""
        clock(c.publish, "t", "m", qos=2)
        c.disconnect()
    """)
    id = link.expect_publish("t", "m", qos=2)
    link.send(broker.pubrec(id))
    link.expect(broker.pubrel(id))
    mp.took("False", 4900, 6500)
    link.expect(broker.DISCONNECT)


FILL = """
def fill(qos):
    n = 0
    while True:
        t0 = time.ticks_ms()
        r = c.publish("t", str(n), qos=qos, wait=False)
        if time.ticks_diff(time.ticks_ms(), t0) > 500:
            say("slow")
        if r is not True:
            return say("full", n, r)
        n += 1
"""


def taken(mp):
    """How many `fill` got in flight; at least the 16 that the contract promises."""
    n = int(mp.match("full ([0-9]+) None")[1])
    mp.trace.between(n, 16, 100000, "messages in flight")
    return n


@scenario
def without_waiting_the_window_fills_and_then_nothing_is_taken(t):
    mp, link, _ = t.connected("""
        fill(1)
        hear()
        c.check_msg()
        tell(c.publish, "t", "again", qos=1, wait=False)
        tell(c.publish, "t", "again", qos=1, wait=False)
        tell(c.publish, "t", "still", qos=0)
        c.disconnect()
    """, helpers=FILL)
    n = taken(mp)
    ids = [link.expect_publish("t", str(i), qos=1) for i in range(n)]
    link.idle(50)
    link.send(broker.puback(ids[3]))  # acknowledged out of order: room is room
    link.arrived()
    mp.tell()
    mp.expect("True", "None", "True")
    link.expect_publish("t", "again", qos=1)
    link.expect_publish("t", "still")  # QoS 0 needs no room
    link.expect(broker.DISCONNECT)


@scenario
def qos2_keeps_its_place_until_pubcomp(t):
    mp, link, _ = t.connected("""
        fill(2)
        hear()
        c.check_msg()
        tell(c.publish, "t", "again", qos=2, wait=False)
        hear()
        c.check_msg()
        tell(c.publish, "t", "again", qos=2, wait=False)
        c.disconnect()
    """, helpers=FILL)
    n = taken(mp)
    ids = [link.expect_publish("t", str(i), qos=2) for i in range(n)]
    link.send(broker.pubrec(ids[0]))
    link.arrived()
    mp.tell()
    mp.expect("None")
    link.expect(broker.pubrel(ids[0]))
    link.send(broker.pubcomp(ids[0]))
    link.arrived()
    mp.tell()
    mp.expect("True")
    link.expect_publish("t", "again", qos=2)
    link.expect(broker.DISCONNECT)


@scenario(idle=True)
def with_waiting_a_full_window_is_none_after_5_s(t):
    mp, link, _ = t.connected("""
        fill(1)
        clock(c.publish, "t", "no room", qos=1)
        clock(c.publish, "t", "no room", qos=2)
        c.disconnect()
    """, helpers=FILL)
    for i in range(taken(mp)):
        link.expect_publish("t", str(i), qos=1)
    mp.took("None", 4900, 6500)
    mp.took("None", 4900, 6500)
    link.expect(broker.DISCONNECT)  # nothing sent


@scenario
def with_waiting_room_is_used_as_it_comes(t):
    mp, link, _ = t.connected("""
        fill(1)
        clock(c.publish, "t", "late", qos=1)
        c.disconnect()
    """, helpers=FILL)
    ids = [link.expect_publish("t", str(i), qos=1) for i in range(taken(mp))]
    link.idle(300)
    link.send(broker.puback(ids[0]))
    id = link.expect_publish("t", "late", qos=1)
    link.send(broker.puback(id))
    mp.took("True", 250, 3000)
    link.expect(broker.DISCONNECT)


@scenario
def acknowledgements_are_taken_while_filling(t):
    # wait=False at full speed against a broker that answers: the window never stays full for long
    mp, link, _ = t.connected("""
        for n in range(2000):
            while c.publish("t", str(n), False, 1 + n % 2, False) is None:
                pass
        tell(c.publish, "t", "last", qos=1)
        c.disconnect()
    """)
    with link.answering() as side:
        mp.expect("True", within=30)
        mp.finish()
    got = [broker.body(raw)[5:] for raw in side.published]
    t.equal(got, [str(n).encode() for n in range(2000)] + [b"last"], "payloads in order")


RESEND = """
    buffer = bytearray(b"one")
    tell(c.publish, "t", buffer, qos=1, wait=False)
    tell(c.publish, "t", memoryview(buffer)[1:], False, 2, False)
    tell(c.publish, b"t", "three", True, 1, False)
    tell(c.publish, "t", b"four", False, 2, False)
    buffer[:] = b"XXX"
    hear()
    c.check_msg()
    tell(c.close)
    gc.collect()
    tell(c.connect)
    serve(c)
    fresh = c.publish("t", "fresh", qos=1)
    say(fresh)
    c.disconnect()
"""


def send_again(t, session, acknowledged):
    mp, link, b = t.connected(RESEND, keepalive=0)
    mp.expect("True", "True", "True", "True")
    one = link.expect_publish("t", "one", qos=1)
    two = link.expect_publish("t", "ne", qos=2)
    three = link.expect_publish("t", "three", qos=1, retain=True)
    four = link.expect_publish("t", "four", qos=2)
    if acknowledged:
        link.send(broker.puback(one), broker.pubrec(two))
        link.arrived()
    mp.tell()
    mp.expect("None")
    if acknowledged:
        link.expect(broker.pubrel(two))
    link.expect_end()
    link = b.welcome(session=session, keepalive=0)
    mp.expect("0")
    again = {}
    if not acknowledged:
        again[one] = broker.publish("t", "one", 1, one, dup=True)  # as it was when publish took it
        again[two] = broker.publish("t", "ne", 2, two, dup=True)
    else:
        again[two] = broker.pubrel(two)
    again[three] = broker.publish("t", "three", 1, three, True, True)
    again[four] = broker.publish("t", "four", 2, four, dup=True)
    got = [link.packet() for _ in again]
    publishes = [raw for raw in again.values() if raw[0] >> 4 == broker.PUBLISH]
    t.equal([raw for raw in got if raw[0] >> 4 == broker.PUBLISH], publishes, "sent again")
    t.equal(sorted(got), sorted(again.values()), "sent again")
    for raw in got:
        id = broker.packet_id(raw)
        if raw[0] >> 4 == broker.PUBREL:
            link.send(broker.pubcomp(id))
        elif raw[0] & 6 == 2:
            link.send(broker.puback(id))
        else:
            link.send(broker.pubrec(id))
    link.send(broker.publish("end"))
    for raw in got:
        if raw[0] >> 4 == broker.PUBLISH and raw[0] & 6 == 4:
            link.expect(broker.pubrel(broker.packet_id(raw)))
            link.send(broker.pubcomp(broker.packet_id(raw)))
    link.send(broker.puback(link.expect_publish("t", "fresh", qos=1)))
    mp.expect("True")
    link.expect(broker.DISCONNECT)


@scenario
def sent_again_after_close_and_connect(t):
    send_again(t, session=True, acknowledged=False)


@scenario
def sent_again_though_the_broker_forgot_the_session(t):
    send_again(t, session=False, acknowledged=False)


@scenario
def sent_again_is_only_what_is_not_acknowledged(t):
    send_again(t, session=True, acknowledged=True)


@scenario(idle=True)
def after_a_time_out_it_is_the_copy_that_is_sent_again(t):
    mp, link, b = t.connected("""
        buffer = bytearray(b"first")
        tell(c.publish, "t", buffer, qos=1)
        buffer[:] = b"later"
        c.connect()
        serve(c)
        c.disconnect()
    """)
    id = link.expect_publish("t", "first", qos=1)
    mp.expect("False")
    link.expect_end()
    link = b.welcome(session=True)
    t.equal(link.expect_publish("t", "first", qos=1, dup=True), id, "packet id")
    link.send(broker.puback(id), broker.publish("end"))
    link.expect(broker.DISCONNECT)


@scenario
def a_link_that_breaks_keeps_what_is_in_flight(t):
    for qos in 1, 2:
        mp, link, b = t.connected(f"""
            tell(c.publish, "t", "m", qos={qos})
            c.close()
            tell(c.connect)
            serve(c)
            c.disconnect()
        """, reconn=False)
        id = link.expect_publish("t", "m", qos=qos)
        link.fin()
        mp.match("OSError .*")
        link.expect_end()
        link = b.welcome(session=True)
        mp.expect("0")
        t.equal(link.expect_publish("t", "m", qos=qos, dup=True), id, "packet id")
        if qos == 1:
            link.send(broker.puback(id))
        else:
            link.send(broker.pubrec(id))
            link.expect(broker.pubrel(id))
            link.send(broker.pubcomp(id))
        link.send(broker.publish("end"))
        link.expect(broker.DISCONNECT)


@scenario
def disconnect_lets_go_of_what_is_in_flight(t):
    mp, link, b = t.connected("""
        for n in range(5):
            c.publish("t", "m", False, 1 + n % 2, False)
        c.disconnect()
        tell(c.connect)
        hear()
        c.disconnect()
    """)
    for n in range(5):
        link.expect_publish("t", "m", qos=1 + n % 2)
    link.expect(broker.DISCONNECT)
    link = b.welcome(session=True)
    mp.expect("0")
    link.idle(100)
    mp.tell()
    link.expect(broker.DISCONNECT)


@scenario
def a_full_window_is_sent_again_in_order(t):
    mp, link, b = t.connected("""
        fill(1)
        c.close()
        c.connect()
        serve(c)
        c.disconnect()
    """, helpers=FILL)
    n = taken(mp)
    ids = [link.expect_publish("t", str(i), qos=1) for i in range(n)]
    link.expect_end()
    link = b.welcome(session=True)
    t.equal([link.expect_publish("t", str(i), qos=1, dup=True) for i in range(n)], ids, "packet ids")
    link.send(*[broker.puback(id) for id in ids], broker.publish("end"))
    link.expect(broker.DISCONNECT)


@scenario
def more_than_is_kept_ends_the_wait_early(t):
    # 100 KiB of messages arrive instead of the PUBACK: `publish` gives up, and not one of them is lost
    mp, link, _ = t.connected("""
        clock(c.publish, "t", "m", qos=1)
        serve(c)
        tell(c.publish, "t", "n", qos=1)
        c.disconnect()
    """)
    late = link.expect_publish("t", "m", qos=1)
    link.send(*[broker.publish("in", b"%04d" % n + b"x" * 1020) for n in range(100)])
    mp.took("False", 0, 4000)
    link.send(broker.puback(late), broker.publish("end"))
    for n in range(100):
        mp.expect("got b'in' 1024 bytes")
    link.send(broker.puback(link.expect_publish("t", "n", qos=1)))
    mp.expect("True")
    link.expect(broker.DISCONNECT)


@scenario(unix=True)
def one_message_larger_than_what_is_kept(t):
    mp, link, _ = t.connected("""
        clock(c.publish, "t", "m", qos=1)
        clock(c.subscribe, "t")
        serve(c)
        c.disconnect()
    """, heap="8m")
    late = link.expect_publish("t", "m", qos=1)
    link.send(broker.publish("in", b"x" * 300000), broker.puback(late), broker.publish("end"))
    mp.took("False", 0, 4000)
    id = link.expect_subscribe("t")
    mp.took("OSError ETIMEDOUT", 0, 4000)
    mp.expect("got b'in' 300000 bytes")
    link.expect(broker.DISCONNECT)
    t.true(id, "packet id")
