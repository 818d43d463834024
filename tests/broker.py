"""A strict scripted MQTT broker.

Nothing here answers by itself: a scenario says what the broker does, packet by packet, and every byte that the client
sends is compared with the one packet that is allowed there. What can be checked without being told is checked always:
a remaining length in its shortest form, packet ids that are not zero and not in use, DUP only on what was sent before.

The encoders below serve both directions: for what the broker sends and for what it expects.
"""

import select
import socket
import ssl
import struct
import threading
import time

from tls import Server

PINGREQ = b"\xc0\x00"
PINGRESP = b"\xd0\x00"
DISCONNECT = b"\xe0\x00"
PUBLISH, PUBACK, PUBREC, PUBREL, PUBCOMP, SUBSCRIBE, SUBACK, UNSUBSCRIBE, UNSUBACK = range(3, 12)


# --- encoders ------------------------------------------------------------------------------------------------------

def octets(value):
    return value.encode() if isinstance(value, str) else bytes(value)


def remaining_length(n):
    out = bytearray()
    while True:
        n, digit = divmod(n, 128)
        out.append(digit | (0x80 if n else 0))
        if not n:
            return bytes(out)


def packet(first, *parts):
    body = b"".join(parts)
    return bytes([first]) + remaining_length(len(body)) + body


def text(value):
    value = octets(value)
    return struct.pack(">H", len(value)) + value


def number(n):
    return struct.pack(">H", n)


def connect(client_id="c", version=4, clean=False, keepalive=60, user=None, password=None, will=None):
    """will: (topic, message, qos, retain)"""
    flags = 2 if clean else 0
    payload = text(client_id)
    if will:
        topic, message, qos, retain = will
        flags |= 4 | qos << 3 | (32 if retain else 0)
        payload += text(topic) + text(message)
    if user is not None:
        flags |= 128
        payload += text(user)
    if password is not None:
        flags |= 64
        payload += text(password)
    name = {3: "MQIsdp", 4: "MQTT"}[version]
    return packet(0x10, text(name), bytes([version, flags]), number(keepalive), payload)


def connack(session=False, code=0):
    return bytes([0x20, 2, session, code])


def publish(topic, payload=b"", qos=0, id=None, retain=False, dup=False):
    first = 0x30 | (8 if dup else 0) | qos << 1 | (1 if retain else 0)
    return packet(first, text(topic), number(id) if qos else b"", octets(payload))


def puback(id):
    return packet(0x40, number(id))


def pubrec(id):
    return packet(0x50, number(id))


def pubrel(id):
    return packet(0x62, number(id))


def pubcomp(id):
    return packet(0x70, number(id))


def subscribe(id, topic, qos=0):
    return packet(0x82, number(id), text(topic), bytes([qos]))


def suback(id, *codes):
    return packet(0x90, number(id), bytes(codes or (0,)))


def unsubscribe(id, topic):
    return packet(0xA2, number(id), text(topic))


def unsuback(id):
    return packet(0xB0, number(id))


def body(raw):
    """What follows the fixed header."""
    at = 1
    while raw[at] & 0x80:
        at += 1
    return raw[at + 1:]


def packet_id(raw):
    """The id of a packet that has one, else None."""
    kind, rest = raw[0] >> 4, body(raw)
    at = 0
    if kind == PUBLISH:
        if not raw[0] & 6:
            return None
        at = 2 + struct.unpack_from(">H", rest)[0]
    return struct.unpack_from(">H", rest, at)[0] if PUBLISH <= kind <= UNSUBACK else None


def short(raw):
    """Bytes for a log line."""
    return raw.hex(" ", 1) + "  " + repr(raw) if len(raw) <= 48 else f"{short(raw[:40])}… {len(raw)} bytes"


# --- connections ---------------------------------------------------------------------------------------------------

class Link:
    """One TCP connection, seen from the broker (or from a second client: the encoders fit both ways)."""

    def __init__(self, sock, trace, name, sessions=None):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock, self.trace, self.name = sock, trace, name
        self.sessions = {} if sessions is None else sessions  # client id -> `ids`
        # packet ids that the client has in use (the broker's own ids are the scenario's business)
        self.ids = set()       # of messages: they outlive the connection
        self.requests = set()  # of SUBSCRIBE and UNSUBSCRIBE: they do not
        self.buffer = bytearray()
        self.sending = threading.Lock()  # `answering` sends beside the scenario
        self.strict = True  # at the end of the scenario nothing may be left unread

    # reading

    def _fill(self, seconds):
        """Adds what arrives within that time to the buffer; False at the end of the stream, None for nothing."""
        if not select.select([self.sock], [], [], max(0, seconds))[0]:
            return None
        try:
            data = self.sock.recv(1 << 16)
        except ConnectionError as error:
            self.trace.log(self.name, f"<- {error!r}")
            return False
        if data is None:
            return None  # half a record
        if not data:
            self.trace.log(self.name, "<- end of stream")
        self.buffer += data
        return bool(data)

    def _need(self, n, until):
        while len(self.buffer) < n:
            got = self._fill(until - time.monotonic())
            if got is None and time.monotonic() >= until:
                self.trace.fail(f"{self.name}: no (whole) packet in time; so far: {short(bytes(self.buffer))}")
            if got is False:
                self.trace.fail(f"{self.name}: end of stream instead of a packet; before it: {short(bytes(self.buffer))}")

    def packet(self, within=10):
        """The next packet, raw."""
        until = self.trace.until(within)
        length = shift = 0
        for at in range(1, 5):
            self._need(at + 1, until)
            length |= (self.buffer[at] & 0x7F) << shift
            shift += 7
            if not self.buffer[at] & 0x80:
                break
        else:
            self.trace.fail(f"{self.name}: remaining length too long: {short(bytes(self.buffer[:5]))}")
        if bytes(self.buffer[1:at + 1]) != remaining_length(length):
            self.trace.fail(f"{self.name}: remaining length not in its shortest form: {short(bytes(self.buffer[:5]))}")
        end = at + 1 + length
        self._need(end, until)
        raw = bytes(self.buffer[:end])
        del self.buffer[:end]
        self.trace.log(self.name, f"<- {short(raw)}")
        return raw

    def skip(self, n, within=30):
        """Reads n bytes, whatever they are."""
        until = self.trace.until(within)
        while n:
            self._need(1, until)
            taken = min(n, len(self.buffer))
            del self.buffer[:taken]
            n -= taken

    def _same(self, raw, want):
        if raw != want:
            self.trace.fail(f"{self.name}: the client sent\n    {short(raw)}\n  instead of\n    {short(want)}")
        self.trace.checked()

    def expect(self, *packets, within=10):
        """The next packets are these, byte for byte."""
        for want in packets:
            self._same(self.packet(within), want)
            if want == DISCONNECT:
                self.ids.clear()

    def _expect_id(self, make, again=False, within=10):
        """A packet that the client gave an id of its own choice; `make(id)` is the whole packet."""
        raw = self.packet(within)
        try:
            id = packet_id(raw)
        except (struct.error, IndexError):
            id = None
        self._same(raw, make(id or 0))
        if not id:
            self.trace.fail(f"{self.name}: packet id {id}")
        self._note(raw, id, again)
        return id

    def _note(self, raw, id, again=False):
        """A packet with a new id, or one that comes again."""
        if not again and id in self.ids | self.requests:
            self.trace.fail(f"{self.name}: packet id {id} is in use already")
        if again and id not in self.ids:
            self.trace.fail(f"{self.name}: packet id {id} was not in use: {sorted(self.ids)}")
        (self.ids if raw[0] >> 4 == PUBLISH else self.requests).add(id)

    def expect_connect(self, **fields):
        self.expect(connect(**fields))
        client_id = fields.get("client_id", "c")
        self.ids = self.sessions.setdefault(client_id, set())

    def expect_publish(self, topic, payload=b"", qos=0, retain=False, dup=False, within=10):
        """Returns the packet id (None for QoS 0)."""
        if not qos:
            return self.expect(publish(topic, payload, 0, None, retain), within=within)
        return self._expect_id(lambda id: publish(topic, payload, qos, id, retain, dup), again=dup, within=within)

    def expect_subscribe(self, topic, qos=0, within=10):
        return self._expect_id(lambda id: subscribe(id, topic, qos), within=within)

    def expect_unsubscribe(self, topic, within=10):
        return self._expect_id(lambda id: unsubscribe(id, topic), within=within)

    def expect_end(self, within=10):
        """The client closes the connection, with nothing sent before."""
        until = self.trace.until(within)
        while self._fill(until - time.monotonic()) is not False:
            if time.monotonic() >= until:
                self.trace.fail(f"{self.name}: the client does not close the connection")
        if self.buffer:
            self.trace.fail(f"{self.name}: before its end the client sent {short(bytes(self.buffer))}")
        self.trace.checked()
        self.sock.close()

    def idle(self, ms):
        """For that time nothing arrives, not even the end."""
        until = self.trace.until(ms / 1000)
        while not self.buffer and time.monotonic() < until:
            if self._fill(until - time.monotonic()) is False:
                self.trace.fail(f"{self.name}: end of stream, expected quiet")
        if self.buffer:
            self.trace.fail(f"{self.name}: expected quiet, the client sent {short(bytes(self.buffer))}")
        self.trace.checked()

    def leftover(self):
        """What the client sent and no scenario asked for; call it when the client is gone."""
        if self.sock.fileno() >= 0 and self.strict:
            while self._fill(0):
                pass
            if self.buffer:
                self.trace.fail(f"{self.name}: never asked for: {short(bytes(self.buffer))}")

    def answering(self):
        return Answering(self)

    # writing

    def send(self, *packets, within=10):
        """Sends all of it; the ids of acknowledged packets become free."""
        until = self.trace.until(within)
        for raw in packets:
            if len(raw) in (4, 5) and raw[1] == len(raw) - 2 and raw[0] in (0x40, 0x70, 0x90, 0xB0):
                (self.ids if raw[0] < 0x80 else self.requests).discard(packet_id(raw))
        data = b"".join(packets)
        self.trace.log(self.name, f"-> {short(data)}")
        with self.sending:
            self.sock.settimeout(max(0.01, until - time.monotonic()))
            try:
                self.sock.sendall(data)
            except socket.timeout:
                self.trace.fail(f"{self.name}: the client does not read")
            finally:
                self.sock.settimeout(None)

    def send_while_room(self, packets):
        """Sends until nothing more is taken; returns how many went out whole, and what is left of the one in work."""
        self.sock.settimeout(1)
        sent, data = 0, b""
        try:
            for data in packets:
                while data:
                    data = data[self.sock.send(data):]
                sent += 1
                self.trace.until(1)
        except socket.timeout:
            pass
        finally:
            self.sock.settimeout(None)
        self.trace.log(self.name, f"-> {sent} packets, and no room for {len(data)} bytes")
        return sent, data

    def taken(self, within=10):
        """Waits until the client has read all that was sent to it: its kernel holds nothing more."""
        until = self.trace.until(within)
        while self._queued():
            if time.monotonic() > until:
                self.trace.fail(f"{self.name}: the client does not read")
            time.sleep(0.0002)

    def arrived(self, within=10):
        """Waits until the client's kernel has all that was sent."""
        until = self.trace.until(within)
        while self._queued(read=False):
            if time.monotonic() > until:
                self.trace.fail(f"{self.name}: the client's kernel has no room")
            time.sleep(0.0002)
        time.sleep(self.trace.target.LATENCY)

    def _queued(self, read=True):
        here, there = self.sock.getsockname(), self.sock.getpeername()
        table = "/proc/net/tcp6" if self.sock.family == socket.AF_INET6 else "/proc/net/tcp"
        ours = f":{here[1]:04X} "
        for line in [line for line in open(table) if ours in line]:
            _, local, remote, _, queues = line.split()[:5]
            ports = int(local.split(":")[1], 16), int(remote.split(":")[1], 16)
            sent, received = (int(n, 16) for n in queues.split(":"))
            if (ports == (there[1], here[1]) and received and read) or (ports == (here[1], there[1]) and sent):
                return True
        return False

    def dribble(self, data, within=20):
        """Sends byte by byte, each only when the client has read the one before."""
        self.trace.log(self.name, f"-> (byte by byte) {short(data)}")
        for byte in data:
            self.sock.sendall(bytes([byte]))
            self.taken(within)

    def fin(self):
        self.trace.log(self.name, "-> FIN")
        self.sock.shutdown(socket.SHUT_WR)

    def rst(self):
        self.trace.log(self.name, "-> RST")
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def close(self):
        self.sock.close()


class Answering:
    """Answers as any broker would, on a thread, while the scenario does something else; every packet is checked as far
    as it can be without knowing the script, and kept in `packets`. Ends with the connection, or as a `with` block ends."""

    def __init__(self, link):
        self.link, self.packets, self.error, self.stop = link, [], None, False
        self.published = []  # the PUBLISH packets that were not repetitions
        self.thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, kind, error, trace):
        self.stop = True
        self.thread.join(10)
        if self.error and not error:
            raise self.error

    def _run(self):
        try:
            while True:
                if not self.link.buffer:
                    more = self.link._fill(0.05)
                    if more is False or more is None and self.stop:
                        return
                if self.link.buffer:
                    raw = self.link.packet()
                    answer = self._answer(raw)
                    if answer:
                        self._send(answer)
        except Exception as error:
            self.error = error

    def _send(self, answer):
        try:
            self.link.send(answer)
        except ConnectionError:
            pass  # the client is gone; what it sent before is still read

    def _answer(self, raw):
        link, kind, id = self.link, raw[0] >> 4, packet_id(raw)
        self.packets.append(raw)
        link.trace.checked()
        if id == 0:
            link.trace.fail(f"{link.name}: packet id 0")
        if kind == PUBLISH and not raw[0] & 8:
            self.published.append(raw)
        if id and (kind in (SUBSCRIBE, UNSUBSCRIBE) or kind == PUBLISH and not raw[0] & 8):
            link._note(raw, id)
        if kind == PUBLISH and id is not None:
            return puback(id) if raw[0] & 6 == 2 else pubrec(id)
        if kind == PUBREL:
            return pubcomp(id)
        if kind == PUBREC:
            return pubrel(id)
        if kind == SUBSCRIBE:
            return suback(id, raw[-1])
        if kind == UNSUBSCRIBE:
            return unsuback(id)
        return PINGRESP if raw == PINGREQ else None


def reserve(host="127.0.0.1", port=0):
    """A socket that keeps a port of the loopback, a free one if none is named. By its number one may listen there, and stop
    to; but the kernel gives it to nobody who asks for any: neither to another scenario's server, nor for the near end of a
    connection."""
    keeper = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    keeper.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    keeper.bind((host, port))
    return keeper


class Broker:
    """A listening socket on a free loopback port; with an ssl.SSLContext its links speak TLS."""

    def __init__(self, trace, host="127.0.0.1", port=0, receive_buffer=None, tls=None, name="broker"):
        self.trace, self.host, self.receive_buffer, self.name = trace, host, receive_buffer, name
        self.tls = tls
        self.links = []
        self.sessions = {}
        self.keeper = reserve(host, port)
        self.port = self.keeper.getsockname()[1]
        self.up()

    def up(self):
        """Listens (again, on the same port)."""
        self.listener = socket.socket(socket.AF_INET6 if ":" in self.host else socket.AF_INET)
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if self.receive_buffer:
            self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self.receive_buffer)
        self.listener.bind((self.host, self.port))
        self.listener.listen(64)

    def down(self):
        """Refuses connections from now on; those that stand, stand."""
        self.listener.shutdown(socket.SHUT_RDWR)  # also where another thread has just forked
        self.listener.close()

    def accept(self, within=10, dribble=False):
        """dribble: TLS goes byte by byte."""
        self.listener.settimeout(max(0.01, self.trace.until(within) - time.monotonic()))
        try:
            sock = self.listener.accept()[0]
        except socket.timeout:
            self.trace.fail(f"{self.name}: nobody connects")
        sock.settimeout(None)
        self.links.append(Link(sock, self.trace, f"{self.name}[{len(self.links)}]", self.sessions))
        link = self.links[-1]
        self.trace.log(link.name, "accepted")
        if self.tls:
            link.sock = Server(sock, self.tls)
            link.sock.trickle = link.taken if dribble else None
            link.sock.settimeout(max(0.01, self.trace.until(within) - time.monotonic()))
            try:
                link.sock.handshake()
            except (OSError, ssl.SSLError) as error:
                self.trace.fail(f"{link.name}: {error!r}")
            link.sock.settimeout(None)
            self.trace.log(link.name, " ".join(map(str, link.sock.tls.cipher()[:2])))
        return link

    def welcome(self, session=False, within=10, **fields):
        """Accepts a connection, expects this CONNECT, answers with a good CONNACK."""
        link = self.accept(within)
        link.expect_connect(**fields)
        link.send(connack(session))
        return link

    def nobody(self, ms):
        """For that time nobody connects."""
        if select.select([self.listener], [], [], ms / 1000)[0]:
            self.trace.fail(f"{self.name}: an unexpected connection")
        self.trace.checked()

    def close(self):
        self.listener.close()
        self.keeper.close()
        for link in self.links:
            link.close()


class BlackHole:
    """A port where connecting never ends: the listener's queue is full, so the kernel drops every SYN. The port is one that
    nobody listens at, or that of a `listener`."""

    def __init__(self, port=0, listener=None):
        self.own = listener is None
        self.listener = listener or socket.socket()
        if self.own:
            self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self.listener.bind(("127.0.0.1", port))
        self.listener.listen(0)
        self.port = self.listener.getsockname()[1]
        self.fillers = []
        for _ in range(4):
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(self.listener.getsockname())
            self.fillers.append(filler)

    def close(self):
        for filler in self.fillers:
            filler.close()
        if self.own and self.listener.fileno() >= 0:
            self.listener.shutdown(socket.SHUT_RDWR)  # also where another thread has just forked
            self.listener.close()
