"""What the tests of outages share: a proxy that cuts links, a second client that survives them, a broker that remembers,
and a resolver that fails and hangs."""

import atexit
import functools
import os
import select
import socket
import struct
import subprocess
import tempfile
import threading
import time

import broker

# For scripts on all threading models
HELPERS = r'''
try:
    import _thread
except ImportError:
    _thread = None

def rest(*clients):
    """does nothing until the scenario sends a line; without threads the clients need a call now and then"""
    while _thread is None and not told():
        for c in clients:
            outcome(c.check_msg)
    return hear()

def until_state(c, *states):
    """until get_mqttsta is one of these"""
    while c.get_mqttsta() not in states:
        if _thread is None:
            outcome(c.check_msg)
        pause(2)
'''


# For scripts: the collector takes what it finds on the stack for a pointer, so that is overwritten first.
COLLECT = r'''
def scrub(depth):
    return depth and scrub(depth - 1) + depth

def collect():
    for _ in range(2):
        scrub(30)
        gc.collect()
'''


def reset(sock):
    """Closes it with RST."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


class Proxy:
    """Between clients and a broker on this machine. One thread for each connection; `fate` says what happens to those that
    come: "pass", or "kick" (closed as soon as something is sent)."""

    def __init__(self, trace, target):
        self.trace, self.target = trace, target
        self.keeper = broker.reserve()
        self.port = self.keeper.getsockname()[1]
        self.lock = threading.Lock()
        self.pairs = []
        self.fate = "pass"
        self.accepted = 0
        self.since = time.monotonic()  # when the last connection was made
        self.up()

    def up(self):
        self.listener = socket.socket()
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.listener.bind(("127.0.0.1", self.port))
        self.listener.listen(64)
        threading.Thread(target=self._accept, args=(self.listener,), daemon=True).start()

    def down(self):
        """Refuses connections from now on."""
        try:
            self.listener.shutdown(socket.SHUT_RDWR)  # ends accept()
        except OSError:
            pass
        self.listener.close()

    def _accept(self, listener):
        while True:
            try:
                client = listener.accept()[0]
            except OSError:
                return
            self.accepted += 1
            self.since = time.monotonic()
            self.trace.log("proxy", f"connection {self.accepted}: {self.fate}")
            threading.Thread(target=self._kick if self.fate == "kick" else self._pass, args=(client,), daemon=True).start()

    def _kick(self, client):
        with client:
            client.recv(4096)

    def _pass(self, client):
        try:
            server = socket.create_connection(("127.0.0.1", self.target))
        except OSError:
            client.close()
            return
        pair = Pair(self.trace, client, server)
        with self.lock:
            self.pairs.append(pair)
        pair.run()
        with self.lock:
            self.pairs.remove(pair)

    def cut(self, how, *budget):
        """Ends every connection with a "fin", a "rst", or in "silence"; with a budget (0 towards the broker or 1, bytes) only
        when so many more bytes have gone that way."""
        self.trace.log("proxy", f"cut: {how} {budget or ''}")
        with self.lock:
            for pair in self.pairs:
                pair.cut(how, *budget)

    def close(self):
        self.down()
        self.keeper.close()
        with self.lock:
            for pair in self.pairs:
                pair.cut("rst")


class Pair:
    def __init__(self, trace, client, server):
        self.trace, self.socks, self.how, self.budget = trace, (client, server), None, None
        self.wake, self.woken = socket.socketpair()

    def cut(self, how, way=None, count=0):
        self.how, self.budget = how, None if way is None else [way, count]
        try:
            self.wake.send(b"x")
        except OSError:
            pass  # it has ended by itself

    def run(self):
        client, server = self.socks
        try:
            self._forward()
        except OSError:
            self.how = self.how or "rst"
        if self.how == "silence":
            self._swallow(client, server)  # what the client sends is taken, and the broker notices nothing
        elif self.how == "rst":
            reset(client)
        else:
            try:
                client.shutdown(socket.SHUT_WR)
            except OSError:
                pass
            server.close()
            self._swallow(client)
        for sock in (*self.socks, self.wake, self.woken):
            sock.close()

    def _forward(self):
        ways = dict(zip(self.socks, (0, 1)))
        while True:
            for ready in select.select([*self.socks, self.woken], [], [])[0]:
                if ready is self.woken:
                    self.woken.recv(64)
                    if self.budget is None:
                        return
                    continue
                data = ready.recv(1 << 16)
                if not data:
                    return
                way = ways[ready]
                ending = self.budget and self.budget[0] == way and len(data) > self.budget[1]
                if ending:
                    data = data[:self.budget[1]]
                elif self.budget and self.budget[0] == way:
                    self.budget[1] -= len(data)
                self.socks[1 - way].sendall(data)
                if ending:
                    return

    def _swallow(self, *socks):
        """Until the client closes, at most for a minute."""
        until = time.monotonic() + 60
        try:
            while time.monotonic() < until:
                for sock in select.select([*socks, self.woken], [], [], 1)[0]:
                    if not sock.recv(1 << 16) or sock is self.woken:
                        return
        except OSError:
            pass


class Peer:
    """A second client with a persistent session, which connects again whenever the broker goes away. It takes what comes in
    `topic` (with QoS 2, duplicates removed as MQTT has it) and publishes reliably."""

    def __init__(self, trace, port, client_id, *topics):
        self.trace, self.port, self.client_id, self.topics = trace, port, client_id, topics
        self.changed = threading.Condition()
        self.messages = []   # (topic, payload, qos) as they arrived
        self.incoming = set()  # ids of QoS 2 messages between PUBLISH and PUBREL
        self.in_flight = {}  # id: what has to be sent again
        self.last_id = 0
        self.granted = 0
        self.sock = None
        self.closed = False
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()
        self.wait(lambda: self.granted == len(topics) and self.sock, "subscribed")

    def wait(self, condition, what, within=20):
        """Until the condition, which is looked at whenever something arrives, is true."""
        until = self.trace.until(within)
        with self.changed:
            while not condition():
                if not self.changed.wait(max(0, until - time.monotonic())) and time.monotonic() >= until:
                    self.trace.fail(f"{self.client_id}: in vain waited for: {what}")
        self.trace.checked()

    def got(self, topic):
        with self.changed:
            return [payload for where, payload, _ in self.messages if where == topic]

    def publish(self, topic, payload, qos, window=50):
        self.wait(lambda: len(self.in_flight) < window, "room for a message")
        with self.changed:
            self.last_id = self.last_id % 60000 + 1
            raw = broker.publish(topic, payload, qos, self.last_id)
            self.in_flight[self.last_id] = raw
            self._send(raw)

    def acknowledged(self, within=20):
        self.wait(lambda: not self.in_flight, "acknowledgements", within)

    def _send(self, raw):
        if self.sock:
            try:
                self.sock.sendall(raw)
            except OSError:
                pass  # the reading side notices

    def _run(self):
        while not self.closed:
            try:
                with socket.create_connection(("127.0.0.1", self.port), 5) as sock:
                    self._session(sock)
            except OSError:
                pass
            with self.changed:
                self.sock = None
            time.sleep(0.02)

    def _session(self, sock):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.settimeout(None)
        sock.sendall(broker.connect(self.client_id, keepalive=0))
        buffer = bytearray()
        while not self.closed:
            data = sock.recv(1 << 16)
            if not data:
                return
            buffer += data
            with self.changed:
                while len(buffer) > 1:
                    length = shift = 0
                    at = 1
                    while at < len(buffer):
                        length |= (buffer[at] & 0x7F) << shift
                        shift += 7
                        at += 1
                        if not buffer[at - 1] & 0x80:
                            break
                    else:
                        break
                    if len(buffer) < at + length:
                        break
                    raw = bytes(buffer[:at + length])
                    del buffer[:at + length]
                    self._packet(sock, raw)
                self.changed.notify_all()

    def _packet(self, sock, raw):
        kind = raw[0] >> 4
        if kind == 2:
            self.sock = sock
            if not raw[2]:
                self.granted = 0
                for number, topic in enumerate(self.topics, 60001):
                    self._send(broker.subscribe(number, topic, 2))
            for id, again in self.in_flight.items():
                self._send(bytes([again[0] | 8]) + again[1:] if again[0] >> 4 == broker.PUBLISH else again)
            return
        id = broker.packet_id(raw)
        if kind == broker.PUBLISH:
            qos, rest = raw[0] >> 1 & 3, broker.body(raw)
            end = 2 + struct.unpack_from(">H", rest)[0]
            if qos < 2 or id not in self.incoming:
                self.messages.append((rest[2:end].decode(), rest[end + 2 * (qos > 0):].decode(), qos))
            if qos == 1:
                self._send(broker.puback(id))
            elif qos == 2:
                self.incoming.add(id)
                self._send(broker.pubrec(id))
        elif kind == broker.PUBREL:
            self.incoming.discard(id)
            self._send(broker.pubcomp(id))
        elif kind == broker.PUBREC:
            if id in self.in_flight:
                self.in_flight[id] = broker.pubrel(id)
            self._send(broker.pubrel(id))
        elif kind in (broker.PUBACK, broker.PUBCOMP):
            self.in_flight.pop(id, None)
        elif kind == broker.SUBACK:
            self.granted += 1

    def close(self):
        self.closed = True
        with self.changed:
            if self.sock:
                try:
                    self.sock.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass


def remembering(t):
    """A Mosquitto that keeps its sessions over an orderly restart."""
    return t.mosquitto("persistence true", f"persistence_location {t.directory}/")


RESOLVER = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <netdb.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int getaddrinfo(const char *name, const char *service, const struct addrinfo *hints, struct addrinfo **result) {
    int (*real)(const char *, const char *, const struct addrinfo *, struct addrinfo **) = dlsym(RTLD_NEXT, "getaddrinfo");
    const char *file = getenv("RESOLVER");
    if (file == NULL || strcmp(name, "broker.test") != 0) {
        return real(name, service, hints, result);
    }
    int log = open(getenv("RESOLVER_LOG"), O_WRONLY | O_APPEND | O_CREAT, 0600);
    (void)!write(log, "?", 1);
    close(log);
    for (;;) {
        char answer[64] = "";
        int fd = open(file, O_RDONLY);
        ssize_t n = read(fd, answer, sizeof(answer) - 1);
        close(fd);
        if (n > 0 && strcmp(answer, "gone") == 0) {
            return EAI_NONAME;
        }
        if (n > 0 && strcmp(answer, "hang") != 0) {
            return real(answer, service, hints, result);
        }
        usleep(5000);
    }
}
"""
_library_lock = threading.Lock()


@functools.cache
def _folder():
    folder = tempfile.TemporaryDirectory(prefix="umqtt-test-")
    atexit.register(folder.cleanup)
    return folder.name


def library(name, text):
    """A library to be preloaded, made once a run."""
    with _library_lock:
        path = os.path.join(_folder(), f"{name}.so")
        if not os.path.exists(path):
            with open(os.path.join(_folder(), f"{name}.c"), "w") as file:
                file.write(text)
            subprocess.run(["gcc", "-shared", "-fPIC", "-o", path, file.name, "-ldl"], check=True)
        return path


SMALL = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <sys/socket.h>

int socket(int domain, int type, int protocol) {
    int (*real)(int, int, int) = dlsym(RTLD_NEXT, "socket");
    int fd = real(domain, type, protocol), size = 1;
    setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
    return fd;
}
"""


def small_buffers():
    """The environment of a script whose sockets take hardly anything at a time."""
    return {"LD_PRELOAD": library("small", SMALL)}


class Resolver:
    """Answers for the name `broker.test`, in scripts that run with `environment`: an address, "gone", or "hang" until there is
    another answer. On a board it is a name server."""

    def __init__(self, t, answer="127.0.0.1"):
        self.file, self.log = os.path.join(t.directory, "resolver"), os.path.join(t.directory, "resolver.log")
        self.answer(answer)
        if t.target.UNIX:
            self.environment = {"LD_PRELOAD": library("resolver", RESOLVER), "RESOLVER": self.file, "RESOLVER_LOG": self.log}
        else:
            self.environment = {"DNS": "of this machine"}
            t._part(NameServer(t, self))

    def answer(self, answer):
        with open(self.file + ".new", "w") as file:
            file.write(answer)
        os.rename(self.file + ".new", self.file)

    def asked(self):
        """How many times so far."""
        return os.path.getsize(self.log) if os.path.exists(self.log) else 0


class NameServer:
    """The resolver of boards: port 53 of the loopback, for which it waits its turn."""

    def __init__(self, t, resolver):
        self.resolver, self.host = resolver, t.target.HOST
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        eventually(t, self._bind, "127.0.0.1:53 is taken", 30)
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _bind(self):
        try:
            self.sock.bind(("127.0.0.1", 53))
            return True
        except PermissionError:
            raise
        except OSError:
            return False

    def _run(self):
        last = None
        while True:
            query, client = self.sock.recvfrom(512)
            if not query:
                return
            with open(self.resolver.file) as file:
                answer = file.read()
            if query != last:  # not a repetition
                with open(self.resolver.log, "a") as log:
                    log.write("?")
            last = query
            if answer == "gone":
                self.sock.sendto(query[:2] + b"\x81\x83\0\1\0\0\0\0\0\0" + query[12:], client)
            elif answer != "hang":
                address = self.host if answer == "127.0.0.1" else answer
                # The name is the question's, the class IN, and it may be kept for 0 s.
                record = b"\xc0\x0c\0\1\0\1\0\0\0\0\0\4" + socket.inet_aton(address)
                self.sock.sendto(query[:2] + b"\x81\x80\0\1\0\1\0\0\0\0" + query[12:] + record, client)

    def close(self):
        self.sock.sendto(b"", ("127.0.0.1", 53))
        self.thread.join()
        self.sock.close()


def tasks(mp):
    return len(os.listdir(f"/proc/{mp.pid}/task"))


def eventually(t, condition, what, within=2):
    until = t.until(within)
    while not condition():
        if time.monotonic() > until:
            t.fail(what)
        time.sleep(0.01)
    t.checked()


def threaded(t):
    """Whether the binary has threads."""
    return t.has("_thread")


def tick(t):
    """Seconds that may pass before the internal thread looks at the socket: 0.5 where nothing can wait for one."""
    return 0 if b"eventfd" in open(t.binary, "rb").read() or not threaded(t) else 0.5


def in_phase(t, phase, mp, link, b):
    """Has the reconnection hang in this phase; what is returned has to be kept."""
    choke = t._part(broker.BlackHole(listener=b.listener)) if phase == "tcp" else None
    if phase == "port":
        b.down()
    link.fin()
    link.expect_end()
    if phase == "connack":
        link = b.accept()
        link.expect_connect(keepalive=0)
    elif phase == "dns":
        eventually(t, lambda: b.resolver.asked() > 1, "the resolver is not asked again", 3)
    else:
        time.sleep(1.6)  # the attempt is under way
    return link, choke


def phase_of(t, phase, script):
    b = t.broker()
    options = {}
    host = t.target.HOST
    if phase == "dns":
        b.resolver = Resolver(t)
        host, options = "broker.test", {"environment": b.resolver.environment}
    mp = t.mp("c = MQTTClient('c', HOST, PORT, keepalive=0)\nc.set_callback(show)\nc.connect()\nsay('connected')\n"
              + script, b, HELPERS + f"HOST = {host!r}\n", PHASE=phase, **options)
    link = b.welcome(keepalive=0)
    mp.expect("connected")
    if phase == "dns":
        b.resolver.answer("hang")
    return (mp, b, *in_phase(t, phase, mp, link, b))
