#!/usr/bin/env python3
"""Thousands of messages through outages: a publisher, then a receiver with a persistent session.

    tests/endurance.py [--messages 10000] [--cuts 50] [--restarts 5] [--seed N] [--tls] BINARY...

So many QoS 1 and so many QoS 2 messages go through Mosquitto while a proxy cuts the client's link, anywhere in the stream
of bytes, and Mosquitto is restarted, orderly and with persistence. None may be lost, none of QoS 2 come twice, and the
order is kept (with QoS 1: of what comes for the first time). Then twice as many go both ways at once, without cuts, of any
size, four threads publishing. The last line is `N passed, M failed`.
"""

import argparse
import os
import random
import sys
import threading
import time
import traceback

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import broker  # noqa: E402
import harness  # noqa: E402
from outage import HELPERS, Peer, Proxy, remembering, small_buffers  # noqa: E402

HELD = 1.35  # seconds after which a link has held for as long as the first delay
LOST = 1.3   # mean seconds of an outage


def pace(messages, cuts, restarts):
    """Milliseconds between two messages, so that they last through the outages."""
    return 1000 * (cuts + restarts) * (HELD + LOST) / (2 * messages)


class Weather(threading.Thread):
    """Cuts and restarts, one after the other, each when the link has held for a while and messages are on their way."""

    def __init__(self, t, m, proxy, cuts, restarts, seed, progress, quiet, over=lambda: None):
        super().__init__(daemon=True)
        self.t, self.m, self.proxy, self.progress, self.quiet = t, m, proxy, progress, quiet
        self.random = random.Random(seed)
        self.events = ["cut"] * cuts + ["restart"] * restarts
        self.random.shuffle(self.events)
        self.done, self.error, self.stop, self.tell = 0, None, False, over
        self.start()

    def run(self):
        try:
            for event in self.events:
                self.calm()
                if event == "cut":
                    way = (self.random.choice((0, 1)), self.random.randrange(200)) if self.random.random() < 0.7 else ()
                    came = self.proxy.accepted
                    self.proxy.cut(self.random.choice(("fin", "rst")), *way)
                    while self.proxy.accepted == came and not self.stop:
                        self.t.until(1)
                        time.sleep(0.02)
                else:
                    self.m.down()
                    time.sleep(0.2)
                    self.m.up()
                self.done += 1
                self.quiet or print(f"  {time.monotonic() - self.t.start:6.1f} s: {event}, {self.progress()} messages",
                                    flush=True)
            self.tell()
        except Exception as error:
            self.error = error

    def calm(self):
        """Until the link has held, and messages have come through it."""
        before = self.progress()
        while (time.monotonic() - self.proxy.since < HELD or self.progress() == before) and not self.stop:
            self.t.until(1)
            time.sleep(0.02)

    def over(self, events):
        """Each of them came before the last message."""
        if self.error:
            raise self.error
        self.t.equal(self.done, events, "outages before the last message")


def firsts(numbers):
    return list(dict.fromkeys(numbers))


PUBLISHER = r'''
c = MQTTClient("endurance", HOST, PORT, keepalive=5)
c.set_callback(None)
c.connect()
late = True
for n in range(N):
    for qos in 1, 2:
        while c.publish("q%d" % qos, str(n), False, qos, n % 8 == 0) is None:
            pause(5)
    late = late and not ((n % 8 == 0 or n > N * 9 // 10) and told())
    # the last tenth lasts until the outages are over
    pause(500 if late and n > N * 9 // 10 else max(1, int(PACE * 2)))
say("published")
if not late:
    hear()
rest(c)
c.disconnect()
'''


def publisher(t, messages, cuts, restarts, seed=1, quiet=True):
    m = remembering(t)
    proxy = t._part(Proxy(t, m.port))
    peer = t._part(Peer(t, m.plain, "peer", "q1", "q2"))
    mp = t.mp(PUBLISHER, proxy.port, HELPERS, N=messages, PACE=pace(messages, cuts, restarts))
    weather = Weather(t, m, proxy, cuts, restarts, seed, lambda: len(peer.messages), quiet, mp.tell)
    mp.expect("published", within=100000)
    weather.over(cuts + restarts)
    peer.wait(lambda: len(set(peer.got("q1"))) == messages and len(peer.got("q2")) >= messages, "all messages", 90)
    mp.tell()
    mp.finish(20)
    numbers = [str(n) for n in range(messages)]
    t.equal(firsts(peer.got("q1")) == numbers, True, "QoS 1: all, and in order")
    t.equal(peer.got("q2") == numbers, True, "QoS 2: all once, and in order")
    return f"QoS 1 came {len(peer.got('q1'))} times, QoS 2 {len(peer.got('q2'))} times"


RECEIVER = r'''
ones = 0        # QoS 1 messages that came for the first time are in order: each is the successor of the last new one
twos = 0
again = wrong1 = wrong2 = 0

def take(topic, msg):
    global ones, twos, again, wrong1, wrong2
    n = int(msg)
    if topic == b"q1":
        if n == ones:
            ones += 1
        elif n < ones:
            again += 1
        else:
            wrong1 += 1
    elif n == twos:
        twos += 1
    else:
        wrong2 += 1

c = MQTTClient("endurance", HOST, PORT, keepalive=5)
c.set_callback(take)
c.connect()
c.subscribe("q1", 1)
c.subscribe("q2", 2)
say("subscribed")
told = 0
while ones < N or twos < N:
    c.wait_msg()
    if ones + twos >= told + STEP:
        told = ones + twos
        say("so far", told)
say("end", ones, twos, again, wrong1, wrong2)
hear()
c.check_msg()
say(ones, twos)
c.disconnect()
'''


def receiver(t, messages, cuts, restarts, seed=2, quiet=True):
    m = remembering(t)
    proxy = t._part(Proxy(t, m.port))
    peer = t._part(Peer(t, m.plain, "peer"))
    mp = t.mp(RECEIVER, proxy.port, HELPERS, N=messages, STEP=max(1, messages // 200))
    mp.expect("subscribed")
    progress = [0]
    weather = Weather(t, m, proxy, cuts, restarts, seed, lambda: progress[0], quiet)
    pause = pace(messages, cuts, restarts) / 1000

    def publish():
        start = time.monotonic()
        for n in range(messages):
            for qos in 1, 2:
                peer.publish(f"q{qos}", str(n), qos)
            time.sleep(max(0, start + 2 * n * pause - time.monotonic()))
            if n > messages * 9 // 10 and weather.is_alive():
                time.sleep(0.5)  # the last tenth lasts until the outages are over
    sender = threading.Thread(target=publish, daemon=True)
    sender.start()
    while True:
        line = mp.line(100)
        if line is None or not line.startswith("so far"):
            break
        progress[0] = int(line.split()[-1])
    weather.over(cuts + restarts)
    sender.join(20)
    t.equal(line and line.split()[:3] + line.split()[4:], ["end", str(messages), str(messages), "0", "0"],
            "end, QoS 1, QoS 2, out of order, out of order or twice")
    peer.acknowledged(30)
    mp.tell()
    mp.expect(f"{messages} {messages}")
    return f"QoS 1 came {messages + int(line.split()[3])} times, QoS 2 {messages} times"


DUPLEX = r'''
came = wrong = sent = 0

def size(n):
    return SIZES[n % len(SIZES)]

def take(topic, msg):
    global came, wrong
    if msg != DATA[came & 255:(came & 255) + size(came)]:
        wrong += 1
    came += 1

def make_room():
    pause(2)
    if _thread is None:
        c.check_msg()

def publish(k):
    for n in range(k, N, THREADS):
        while True:
            r = c.publish("%d" % n, DATA[n & 255:(n & 255) + size(n)], False, n // THREADS & 1)
            if r or r is False and n // THREADS & 1:  # acknowledged, or in flight
                break
            make_room()
        if _thread is None:
            c.check_msg()

DATA = bytes(range(256)) * 162
c = MQTTClient("c", HOST, PORT, keepalive=1)
c.set_callback(take)
c.connect()
THREADS = 4 if _thread else 1
ends = []
if _thread:
    ends = [start(publish, k) for k in range(THREADS)]
else:
    publish(0)
while came < N:
    c.wait_msg()
for end in ends:
    end()
say("end", came, wrong)
hear()
c.disconnect()
'''
SIZES = 1, 32, 7, 256, 1, 4096, 100, 1000, 4599, 33, 16377, 2, 300, 40960, 16, 500, 9000


def duplex(t, messages, small=False):
    """So many each way at once; with `small`, sockets that take hardly anything at a time."""
    b = t.broker(receive_buffer=4096 if small else None)
    mp = t.mp(DUPLEX, b, HELPERS, heap="8m", environment=small_buffers() if small else None, N=messages, SIZES=SIZES)
    link = b.welcome(keepalive=1)
    data = bytes(range(256)) * 162
    with link.answering() as side:
        for n in range(messages):
            payload = data[n & 255:(n & 255) + SIZES[n % len(SIZES)]]
            link.send(broker.publish("in", payload, n & 1, n % 65535 + 1 if n & 1 else None), within=60)
        mp.expect(f"end {messages} 0", within=100 + messages // 20)
        until = t.until(20)
        while len(side.published) < messages and time.monotonic() < until:
            time.sleep(0.02)
        mp.tell()
        mp.finish()
    came = {}
    for raw in side.published:
        rest = broker.body(raw)
        end = 2 + int.from_bytes(rest[:2], "big")
        came[int(rest[2:end])] = rest[end + (2 if raw[0] & 6 else 0):]
    t.equal(len(side.published), messages, "messages of the script")
    for n in range(messages):
        t.equal(came.get(n) == data[n & 255:(n & 255) + SIZES[n % len(SIZES)]], True, f"message {n}")
    return f"{messages} each way"


def both_ways(t, messages, cuts, restarts, seed, quiet):
    return duplex(t, 2 * messages)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--messages", type=int, default=10000, metavar="N", help="of QoS 1, and as many of QoS 2")
    parser.add_argument("--cuts", type=int, default=50, metavar="N")
    parser.add_argument("--restarts", type=int, default=5, metavar="N", help="of the broker")
    parser.add_argument("--seed", type=int, default=1, metavar="N")
    parser.add_argument("--only", choices=["publisher", "receiver", "both_ways"])
    parser.add_argument("--tls", action="store_true", help="over TLS")
    parser.add_argument("binaries", nargs="+", metavar="BINARY")
    arguments = parser.parse_args()
    limit = 120 + 6 * (arguments.cuts + arguments.restarts) + arguments.messages / 50
    passed = failed = 0
    for binary in arguments.binaries:
        for part in publisher, receiver, both_ways:
            if arguments.only not in (None, part.__name__):
                continue
            name = f"{os.path.basename(os.path.dirname(os.path.abspath(binary)))}: {part.__name__}"
            outages = "" if part is both_ways else f", {arguments.cuts} cuts, {arguments.restarts} restarts"
            print(f"{name}: 2 x {arguments.messages} messages{outages}", flush=True)
            t = harness.Test(binary, limit, over_tls=arguments.tls)
            start = time.monotonic()
            try:
                said = part(t, arguments.messages, arguments.cuts, arguments.restarts, arguments.seed, quiet=False)
                t.finish()
                passed += 1
                print(f"ok   {name} ({time.monotonic() - start:.0f} s): {said}", flush=True)
            except Exception as error:
                failed += 1
                why = str(error) if isinstance(error, harness.Failure) else traceback.format_exc()
                print(f"FAIL {name} ({time.monotonic() - start:.0f} s): {why}\n  " + "\n  ".join(t.lines[-60:]), flush=True)
            finally:
                t.close()
    print(f"{passed} passed, {failed} failed", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
