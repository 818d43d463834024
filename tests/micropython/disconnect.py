"""disconnect, close, ping, the states, and what a client that is not connected answers."""

import broker
from harness import scenario


@scenario
def disconnect_sends_disconnect_and_closes(t):
    mp, link, b = t.connected("""
        tell(c.disconnect)
        say(c.get_mqttsta())
        tell(c.disconnect)
        hear()
        tell(c.connect)
        say(c.get_mqttsta())
        tell(c.disconnect)
    """)
    mp.expect("None", "-1", "None")
    link.expect(broker.DISCONNECT)
    link.expect_end()
    mp.tell()
    link = b.welcome()
    mp.expect("0", "0", "None")
    link.expect(broker.DISCONNECT)
    link.expect_end()


@scenario
def disconnect_takes_no_time(t):
    # QuecPython sleeps 500 ms in it
    mp, link, _ = t.connected("clock(c.disconnect)")
    mp.took("None", 0, 100)
    link.expect(broker.DISCONNECT)


@scenario
def disconnect_and_close_before_connect(t):
    mp = t.mp("""
        c = client()
        for f in c.disconnect, c.close, c.disconnect, c.close:
            tell(f)
        say(c.get_mqttsta())
    """, 1)
    mp.expect("None", "None", "None", "None", "-1")


@scenario
def close_sends_nothing(t):
    mp, link, b = t.connected("""
        tell(c.close)
        say(c.get_mqttsta())
        tell(c.close)
        hear()
        tell(c.connect)
        tell(c.close)
        tell(c.disconnect)
    """)
    mp.expect("None", "-1", "None")
    link.expect_end()
    mp.tell()
    link = b.welcome()
    mp.expect("0", "None", "None")
    link.expect_end()


@scenario
def disconnect_when_the_peer_is_gone(t):
    mp, link, _ = t.connected("""
        hear()
        tell(c.disconnect)
        say(c.get_mqttsta())
    """, reconn=False)
    link.rst()
    mp.tell()
    mp.expect("None", "-1")


@scenario
def disconnect_in_the_callback(t):
    mp, link, _ = t.connected("""
        def cb(topic, msg):
            say(topic, msg)
            tell(c.disconnect)
        c.set_callback(cb)
        tell(c.wait_msg)
        tell(c.check_msg)
        say(c.get_mqttsta())
    """)
    link.send(*[broker.publish("t", str(n)) for n in range(5)])  # after disconnect no callback begins
    mp.expect("b't' b'0'", "None", "None", "OSError ENOTCONN", "-1")
    link.expect(broker.DISCONNECT)
    link.expect_end()


@scenario
def no_callback_after_disconnect(t):
    mp, link, b = t.connected("""
        c.wait_msg()
        c.disconnect()
        tell(c.check_msg)
        c.connect()
        serve(c)
        c.disconnect()
    """)
    link.send(*[broker.publish("old", str(n)) for n in range(5)])
    mp.expect("got b'old' b'0'", "OSError ENOTCONN")
    link.expect(broker.DISCONNECT)
    link = b.welcome()
    link.send(broker.publish("new", "x"), broker.publish("end"))
    mp.expect("got b'new' b'x'")
    link.expect(broker.DISCONNECT)


@scenario
def disconnect_arrives_though_messages_are_unread(t):
    # closing a socket with unread data resets the connection: the DISCONNECT must not be lost with it
    for _ in range(10):
        mp, link, _ = t.connected("""
            c.publish("t", "m", qos=1, wait=False)
            c.publish("t", "m")
            hear()
            c.publish("t", "last")
            c.disconnect()
        """)
        link.expect_publish("t", "m", qos=1)
        link.expect_publish("t", "m")
        link.send(*[broker.publish("in", b"x" * 1000)] * 20)
        link.arrived()
        mp.tell()
        link.expect_publish("t", "last")
        link.expect(broker.DISCONNECT)
        mp.finish()


@scenario
def every_call_raises_enotconn_when_not_connected(t):
    b = t.broker()
    mp = t.mp("""
        def calls():
            for f in (lambda: c.publish("t", "x"), lambda: c.publish("t", "x", qos=1),
                      lambda: c.publish("t", "x", qos=2, wait=False), lambda: c.subscribe("t"), lambda: c.unsubscribe("t"), c.check_msg, c.wait_msg, c.ping):
                tell(f)
        c = client(reconn=RECONN)
        calls()
        c.connect()
        c.disconnect()
        calls()
        c.connect()
        c.close()
        calls()
        outcome(c.connect)
        calls()
    """, b, RECONN=True)
    all_of_them = ["OSError ENOTCONN"] * 8
    mp.expect(*all_of_them)
    link = b.welcome()
    link.expect(broker.DISCONNECT)
    mp.expect(*all_of_them)
    link = b.welcome()
    mp.expect(*all_of_them)
    link.expect_end()
    link = b.accept()
    link.expect_connect()
    link.send(broker.connack(code=2))
    mp.expect(*all_of_them)


@scenario
def every_call_raises_enotconn_after_the_link_failed(t):
    mp, link, _ = t.connected("""
        tell(c.wait_msg)
        for f in (lambda: c.publish("t", "x"), lambda: c.publish("t", "x", qos=1), lambda: c.subscribe("t"),
                  lambda: c.unsubscribe("t"), c.check_msg, c.wait_msg, c.ping):
            tell(f)
    """, reconn=False)
    link.fin()
    mp.match("OSError .*")
    mp.expect(*["OSError ENOTCONN"] * 7)
    link.expect_end()


@scenario
def callbacks_must_be_callable_or_none(t):
    mp = t.mp("""
        c = client()
        for f in c.set_callback, c.error_register_cb:
            for value in None, show, c.ping, 5, "x":
                tell(f, value)
    """, 1)
    for _ in range(2):
        mp.expect("None", "None", "None")
        mp.match("TypeError .*")
        mp.match("TypeError .*")


# --- states

@scenario
def states_never_connected_connected_server_gone(t):
    b = t.broker()
    mp = t.mp("""
        c = client(reconn=False)
        say(c.get_mqttsta())
        c.connect()
        say(c.get_mqttsta())
        tell(c.wait_msg)
        say(c.get_mqttsta())
        c.close()
        say(c.get_mqttsta())
    """, b)
    mp.expect("-1")
    link = b.welcome()
    mp.expect("0")
    link.fin()
    mp.match("OSError .*")
    mp.expect("2", "-1")  # the server closed the link; closed


@scenario
def state_after_a_reset(t):
    mp, link, _ = t.connected("""
        tell(c.wait_msg)
        say(c.get_mqttsta())
    """, reconn=False)
    link.rst()
    mp.match("OSError .*")
    mp.match("2|-1")  # the contract leaves open whether a reset is `closed by the server` or `failed`


@scenario
def state_after_a_broken_peer(t):
    mp, link, _ = t.connected("""
        tell(c.wait_msg)
        say(c.get_mqttsta())
    """, reconn=False)
    link.send(b"\xff\xff\xff\xff\xff")
    mp.match("OSError .*")
    mp.expect("-1")


@scenario(unix=True)
def asking_for_the_state_does_no_io(t):
    mp, link, _ = t.connected("""
        say("begin")
        for _ in range(100):
            c.get_mqttsta()
        say("end")
        hear()
        c.disconnect()
    """, strace="all")
    mp.expect("begin", "end")
    mp.asleep()
    calls = mp.calls()
    first = max(n for n, line in enumerate(calls) if '"begin' in line)
    last = min(n for n, line in enumerate(calls) if '"end' in line)
    main = calls[first].split()[0]
    between = [line for line in calls[first + 1:last] if line.split()[0] == main]
    io = [line for line in between if any(name in line for name in ("read", "write", "poll", "recv", "send"))]
    t.equal(io, [], "system calls")
    mp.tell()
    link.expect(broker.DISCONNECT)


# --- ping

@scenario
def ping_sends_pingreq(t):
    mp, link, _ = t.connected("""
        tell(c.ping)
        hear()
        clock(c.check_msg)
        tell(c.ping)
        serve(c)
        c.disconnect()
    """)
    mp.expect("None")
    link.expect(broker.PINGREQ)
    link.send(broker.PINGRESP)
    link.arrived()
    mp.tell()
    mp.took("None", 0, 100)
    mp.expect("None")
    link.expect(broker.PINGREQ)
    link.send(broker.PINGRESP, broker.publish("end"))
    link.expect(broker.DISCONNECT)


@scenario
def ping_is_a_no_op_without_keepalive(t):
    mp, link, _ = t.connected("""
        tell(c.ping)
        c.disconnect()
    """, keepalive=0)
    mp.expect("None")
    link.expect(broker.DISCONNECT)
