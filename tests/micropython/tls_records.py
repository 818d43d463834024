"""TLS records, whole and in pieces, with data both ways at once."""

import contextlib
import threading
import time

import broker
import endurance
import tls
from handshake import scenario
from outage import small_buffers

NAME = tls.NAME


STREAM = [broker.publish("t", "m" * n, qos, n if qos else None) for n, qos in ((1, 0), (2, 1), (30, 2), (300, 1))]


@scenario
def all_of_it_byte_by_byte(t):
    # the handshake and what follows
    b = t.broker(tls=tls.context())
    mp = t.mp("""
        c = client(ssl=True, ssl_params={"ca": CA, "server_hostname": NAME})
        tell(c.connect)
        serve(c)
        c.disconnect()
    """, b, NAME=NAME, CA=tls.text("ca"))
    link = b.accept(dribble=True, within=30)
    link.expect_connect()
    link.send(broker.connack(), within=30)
    mp.expect("0", within=20)
    link.send(*STREAM, broker.publish("end"), within=30)
    for n in 1, 2, 30:
        mp.expect(f"got b't' {(b'm' * n)!r}", within=20)
    mp.expect("got b't' 300 bytes")
    link.expect(broker.puback(2), broker.pubrec(30), broker.puback(300), broker.DISCONNECT)


@scenario
def records_with_nothing_in_them(t):
    # RFC 5246, 6.2.1; they are not the end, which is told by an alert. More than three in a row mbedTLS takes for an attack.
    b = t.broker()
    mp = t.mp("""
        c = client(ssl=True, reconn=False)
        c.connect()
        for _ in range(4):
            c.wait_msg()
        say("and now together")
        hear()
        pause(100)
        tell(c.check_msg)
        hear()
        tell(c.wait_msg)
        say(c.get_mqttsta())
    """, b)
    link = by_records(t, b)
    for n in range(4):
        for _ in range(n):
            link.sock.record(tls.APPLICATION_DATA, b"")
        link.send(broker.publish("t", str(n)))
        mp.expect(f"got b't' b'{n}'")
    mp.expect("and now together")
    link.send(broker.publish("t", "1"))
    for _ in range(3):
        link.sock.record(tls.APPLICATION_DATA, b"")
    link.send(broker.publish("t", "2"))
    mp.tell()
    mp.expect("got b't' b'1'", "got b't' b'2'", "None")
    link.sock.record(tls.ALERT, CLOSE_NOTIFY)
    mp.tell()
    mp.match("OSError (ECONNRESET|ENOTCONN)")
    mp.expect("2")


@scenario
def what_came_before_the_end_is_delivered(t):
    for end in "notify", "fin", "rst":
        b = t.broker(tls=tls.context())
        mp, link, _ = t.connected("""
            hear()
            c.wait_msg()
            c.wait_msg()
            tell(c.wait_msg)
            say(c.get_mqttsta())
        """, broker=b, reconn=False, **tls.options())
        link.send(broker.publish("t", "1"), broker.publish("t", "2"))
        if end == "rst":
            mp.tell()
            mp.expect("got b't' b'1'", "got b't' b'2'")
            link.rst()
        else:
            (link.sock.notify if end == "notify" else link.fin)()
            mp.tell()
            mp.expect("got b't' b'1'", "got b't' b'2'")
        mp.match("OSError (ECONNRESET|ENOTCONN)")
        mp.expect("2")


@scenario
def a_record_that_was_changed_ends_the_connection(t):
    for change in "flip", "truncate":
        b = t.broker(tls=tls.context())
        mp, link, _ = t.connected("""
            try:
                c.wait_msg()
            except OSError as e:
                say(words(e), e.args[1])
            say(c.get_mqttsta())
        """, broker=b, reconn=False, **tls.options())
        mp.asleep()  # in wait_msg
        sock = link.sock
        sock.tls.write(broker.publish("t", "secret"))
        record = bytearray(sock.outgoing.read())
        if change == "flip":
            record[-3] ^= 1
        else:
            record = record[:4] + bytes([record[4] - 1]) + record[5:-1]
        sock.sock.sendall(record)
        mp.match("OSError EPROTO TLS failed: SSL - .*")
        mp.expect("-1")
        link.strict = False


@scenario
def a_failure_behind_a_message_is_told_in_words(t):
    # both in one read
    b = t.broker(tls=tls.context())
    mp, link, _ = t.connected("""
        c.error_register_cb(say)
        outcome(c.wait_msg)
        outcome(c.wait_msg)
        hear()
    """, broker=b, reconn=False, **tls.options())
    mp.asleep()  # in wait_msg
    sock = link.sock
    sock.tls.write(broker.publish("t", "first"))
    sock.tls.write(broker.publish("t", "second"))
    records = bytearray(sock.outgoing.read())
    records[-3] ^= 1
    sock.sock.sendall(records)
    said = sorted(mp.line() for _ in range(2))  # in the one order or the other
    t.equal(said[1], "got b't' b'first'")
    t.true(said[0].startswith("TLS failed: SSL - "), f"words: {said[0]}")
    mp.tell()
    link.strict = False


def sizes(middle, width):
    return range(max(0, middle - width), middle + width + 1)


@scenario
def payloads_of_every_size_around_a_record(t):
    # of the transmit buffer, and of one, two and three records; the peer reads little at a time and the client's socket
    # takes little, so that every write falls short
    b = t.broker(tls=tls.context(), receive_buffer=2048)
    ours = [n for middle in (4608, 16384, 2 * 16384, 16384 + 4608) for n in sizes(middle - 8, 12)]
    mp = t.mp("""
        c = client(**OPTIONS)
        c.connect()
        data = bytes([n & 255 for n in range(65536)])
        for n, size in enumerate(SIZES):
            if c.publish("t", data[n:n + size]) is not True:
                say("not sent", n, size)
        hear()  # for DISCONNECT is sent only if the socket has room for it
        c.disconnect()
    """, b, environment=small_buffers(), SIZES=ours, OPTIONS=tls.options(), heap="8m")
    link = b.welcome()
    data = bytes(n & 255 for n in range(65536))
    for n, size in enumerate(ours):
        link.expect_publish("t", data[n:n + size])
    mp.tell()
    link.expect(broker.DISCONNECT)


# A TLS module whose records are as large as the script says, and the same bytes as their data. Like mbedTLS it has made a
# record when the socket does not take it, answers how much of what it is given would go into one, and wants to be given
# the same again until it is off.
RECORDS = '''
import io, socket
write, readinto = socket.socket.__dict__["write"], socket.socket.__dict__["readinto"]  # of any stream
class Records(io.IOBase):
    def __init__(self, link):
        self.link, self.given, self.rest, self.held, self.others = link, None, b"", 0, 0
    def write(self, data):
        n = min(len(data), SIZE)
        if self.rest:
            self.others += data != self.given
        else:
            self.given, self.rest = bytes(data), bytes(data[:n])
        while self.rest:
            sent = write(self.link, self.rest)
            if sent is None:
                self.held += 1
                return None
            self.rest = self.rest[sent:]
        return n
    def readinto(self, into):
        return readinto(self.link, into)
    def ioctl(self, request, arg):
        return 0
class Context:
    verify_mode = 0
    def wrap_socket(self, link, **kw):
        global stream
        stream = Records(link)
        return stream
'''


@scenario
def records_of_any_size(t):
    # The peer reads little at a time and the client's socket takes little, so most records are held. mbedTLS has them of 4096
    # bytes in MicroPython's own configuration and of 16384 in Debian's; a server may ask for less.
    data = bytes(n * 7 + n // 251 & 255 for n in range(65536))
    ours = [*range(1, 6), *range(60, 70), 1000, *range(4090, 4100), 4608, 16384, 16390, 40000, 60000]
    for size in 64, 1000, 4096, 5000, 16384:
        b = t.broker(receive_buffer=2048)
        mp = t.mp("""
            c = client(ssl=Context())
            c.connect()
            for n, size in enumerate(OURS):
                if c.publish("t", DATA[n:n + size]) is not True:
                    say("not sent", n, size)
            hear()
            c.disconnect()
            say("held often" if stream.held > 5 else stream.held, stream.others)
        """, b, RECORDS, environment=small_buffers(), SIZE=size, OURS=ours, DATA=data, heap="8m")
        link = b.welcome()
        for n, size in enumerate(ours):
            time.sleep(0.002)
            link.expect_publish("t", data[n:n + size])
        mp.tell()
        link.expect(broker.DISCONNECT)
        mp.expect("held often 0")


def by_records(t, b):
    """Accepts a client; what this server sends then is the scenario's, record by record."""
    b.tls = None
    link = b.accept()
    link.sock = tls.Records(link.sock)
    link.sock.settimeout(10)
    link.sock.handshake()
    link.sock.settimeout(None)
    link.expect_connect()
    link.send(broker.connack())
    return link


@scenario
def a_server_that_asks_for_another_handshake(t):
    # HelloRequest (RFC 5246, 7.4.1.1), again and again, while records of the client's are held: mbedTLS refuses with an alert,
    # or sends off in its place what it holds.
    count = 600
    b = t.broker(receive_buffer=2048)
    mp = t.mp("""
        c = client(ssl=True, reconn=False)
        c.connect()
        for n in range(COUNT):
            size = n * 397 % 3000 if n % 300 < 200 else 30
            if c.publish("t", "%08d" % n + "x" * size) is not True:
                say("not sent", n)
            c.check_msg()
        hear()
        c.check_msg()
        c.disconnect()
    """, b, environment=small_buffers(), COUNT=count)
    link = by_records(t, b)
    with ended() as end:
        asking = threading.Thread(target=every, args=(end, 0.001, link.sock.record, tls.HANDSHAKE, tls.HELLO_REQUEST))
        asking.start()
        for n in range(count):
            size = n * 397 % 3000 if n % 300 < 200 else 30
            link.expect_publish("t", "%08d" % n + "x" * size)
            if n % 5 == 0:
                time.sleep(0.003)
    mp.tell()
    link.expect(broker.DISCONNECT)
    t.equal({alert for alert in link.sock.alerts if alert[1] != CLOSE_NOTIFY}, {(tls.ALERT, NO_RENEGOTIATION)}, "alerts")


CLOSE_NOTIFY, NO_RENEGOTIATION = b"\1\0", b"\1\x64"


@contextlib.contextmanager
def ended():
    """An event that is set as the block ends."""
    end = threading.Event()
    try:
        yield end
    finally:
        end.set()


def every(end, seconds, call, *arguments):
    while not end.wait(seconds):
        try:
            call(*arguments)
        except OSError:  # the client is gone
            return


@scenario(limit=120)
def both_ways_at_once(t):
    t.over_tls = True
    endurance.duplex(t, 600)


@scenario(limit=120)
def both_ways_at_once_through_small_buffers(t):
    t.over_tls = True
    endurance.duplex(t, 300, small=True)


@scenario(idle=True)
def a_peer_that_takes_a_little_now_and_then_is_no_dead_one(t):
    # a record takes it longer than 5 s
    b = t.broker(tls=tls.context(), receive_buffer=2048)
    mp = t.mp("""
        c = client(**OPTIONS)
        c.connect()
        say(c.publish("t", bytes(60000)))
        c.disconnect()
    """, b, environment=small_buffers(), OPTIONS=tls.options(), heap="8m")
    link = b.welcome()
    sock = link.sock.sock
    taken = bytearray()
    while len(taken) < 16384 - 4096:
        time.sleep(1)
        taken += sock.recv(1200)
    link.sock.incoming.write(bytes(taken))
    link.expect_publish("t", bytes(60000), within=20)
    mp.expect("True")
    link.expect(broker.DISCONNECT)


@scenario(idle=True)
def a_peer_that_takes_nothing_is_given_up_after_5_s(t):
    # and what TLS has encrypted is not followed by anything else
    for reconn in True, False:
        b = t.broker(tls=tls.context(), receive_buffer=2048)
        mp = t.mp("""
            c = client(reconn=RECONN, **OPTIONS)
            c.connect()
            n = 0
            while c.get_mqttsta() == 0:
                t0 = time.ticks_ms()
                r = outcome(c.publish, "t", "%06d" % n + "x" * 1012)
                n += 1
            say(n, r, 4900 < time.ticks_diff(time.ticks_ms(), t0) < 6500, c.get_mqttsta())
            hear()
            c.disconnect()
        """, b, environment=small_buffers(), OPTIONS=tls.options(), RECONN=reconn)
        link = b.welcome()
        n = int(mp.match("([0-9]+) " + ("False True 1" if reconn else "OSError ETIMEDOUT True -1"), within=20)[1])
        for i in range(n - 1):
            if i < n - 4:  # the last ones may be in part
                link.expect_publish("t", "%06d" % i + "x" * 1012)
        link.strict = False
        mp.tell()
        mp.finish()
