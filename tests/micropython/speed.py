"""QoS 0 publish against a bare socket.write of the ready-made packet, in the same process."""

import socket
import threading

import broker
from harness import scenario


@scenario(alone=True, unix=True, tcp=True)
def qos0_costs_at_most_1_3_times_a_bare_write(t):
    sink = socket.create_server(("127.0.0.1", 0))
    port = sink.getsockname()[1]

    def swallow(sock, first):
        if first:
            sock.sendall(broker.connack())
        # So that both are read alike: a reader that waits for every byte makes the next write wake it.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1 << 16)
        while sock.recv(1 << 18):
            pass

    def serve():
        for first in True, False:
            threading.Thread(target=swallow, args=(sink.accept()[0], first), daemon=True).start()
    threading.Thread(target=serve, daemon=True).start()
    mp = t.mp("""
        import socket
        c = MQTTClient("c", HOST, PORT)
        c.connect()
        s = socket.socket()
        s.connect(socket.getaddrinfo(HOST, PORT)[0][-1])
        topic, msg = "dev/0001/telemetry", b"m" * 32
        packet = b"\\x30" + bytes([2 + len(topic) + len(msg), 0, len(topic)]) + topic.encode() + msg
        def bare(n):
            write = s.write
            t = time.ticks_us()
            for _ in range(n):
                write(packet)
            return time.ticks_diff(time.ticks_us(), t)
        def ours(n):
            publish = c.publish
            t = time.ticks_us()
            for _ in range(n):
                publish(topic, msg)
            return time.ticks_diff(time.ticks_us(), t)
        # Short rounds, in turn, and the best tenth of each: what else the machine does falls on the others.
        times = [(bare(200), ours(200)) for _ in range(1001)]
        b, o = (sorted(column)[100] for column in zip(*times))
        say("%d %d" % (b, o))
        c.close()
    """, port)
    bare, ours = map(int, mp.match("([0-9]+) ([0-9]+)", within=50).groups())
    t.between(ours / bare, 0, 1.3, "publish over bare write")
    sink.close()
