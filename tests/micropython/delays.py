"""What is awaited does not itself wait for TCP: neither for the answer to an earlier segment, nor for an acknowledgement."""

import socket

import broker
from harness import scenario
from outage import tick

ROUNDS = 25  # each of which would take 40 ms and more


def quick(t, calls, nagle=False):
    """These calls, again and again; `nagle`: the server's small segments wait for the acknowledgement of earlier ones."""
    mp, link, _ = t.connected(f"""
        t0 = time.ticks_ms()
        for _ in range({ROUNDS}):
            {calls}
        say(time.ticks_diff(time.ticks_ms(), t0), "ms")
        c.disconnect()
    """)
    if nagle:
        link.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 0)
    with broker.Answering(link):
        ms = int(mp.match("([0-9]+) ms", within=20)[1])
        # Where nothing can wait for a socket, none of its options is known either.
        if not tick(t):
            t.between(ms, 0, ROUNDS * 40 // 2, f"ms for {ROUNDS} rounds")
        mp.finish()


@scenario(unix=True)
def a_message_behind_one_that_nobody_waits_for(t):
    quick(t, "c.publish('t', 'm'), c.publish('t', 'm', qos=1)")


@scenario(unix=True)
def a_message_of_several_segments(t):
    quick(t, "c.publish('t', b'm' * 4700, qos=1)")


@scenario(unix=True)
def a_window_of_messages(t):
    # at a server with Mosquitto's default
    quick(t, "[c.publish('t', 'm', qos=1, wait=False) for _ in range(15)], c.publish('t', 'm', qos=1)", nagle=True)
