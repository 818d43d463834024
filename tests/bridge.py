"""Sockets for a board without a network: the script's end of each is Python, this machine's a real one, and between them
run lines over the board's UART, beside those that the script prints and hears.

A line of theirs begins with MARK: a letter, the number of the connection, and what else there is.

    from the board                                  to the board
    o N HOST PORT   connect                         o N ERRNO   connected (0), or not
    w N HEX         these bytes                     r N HEX     these bytes
    c N COUNT       so many more may come           e N ERRNO   the end (0), or an error
    x N             close
"""

import contextlib
import errno
import os
import socket
import subprocess
import threading

import board

MARK = "\x10"

# The script's end. A write takes 500 bytes at most, and a read's buffer is small: both ways the stream comes in pieces.
SHIM = r'''
import io, select
MARK = "\x10"

class Socket(io.IOBase):
    count = 0
    open = {}

    def __init__(self, *kind):
        Socket.count += 1
        self.n, self.state, self.data, self.end = Socket.count, None, b"", None

    def order(self, letter, *words):
        sys.stdout.write("%s%s %d %s\n" % (MARK, letter, self.n, " ".join([str(w) for w in words])))

    def setblocking(self, flag):
        pass

    def connect(self, address):
        pump()
        if self.state is None:
            self.state = errno.EINPROGRESS
            Socket.open[self.n] = self
            self.order("o", *address)
            self.order("c", 2048)
            raise OSError(errno.EINPROGRESS)
        raise OSError({0: 106, errno.EINPROGRESS: errno.EALREADY}.get(self.state, self.state))

    def readinto(self, buffer):
        pump()
        n = min(len(buffer), len(self.data))
        if n == 0:
            if self.end:
                raise OSError(self.end)
            return self.end
        buffer[:n] = self.data[:n]
        self.data = self.data[n:]
        self.order("c", n)
        return n

    def write(self, data):
        if self.state != 0:
            return None
        if self.end:
            raise OSError(self.end)
        n = min(500, len(data))
        self.order("w", bytes(data[:n]).hex())
        return n

    def ioctl(self, request, flags):
        pump()
        if request == 4:
            Socket.open.pop(self.n, None)
            self.order("x")
        elif request == 3:
            readable = self.data or self.end is not None
            writable = self.state != errno.EINPROGRESS
            return flags & ((1 if readable else 0) | (4 if writable else 0)) | (16 if self.end else 0)
        return 0

class socket:
    AF_INET, AF_INET6, SOCK_STREAM = 2, 10, 1
    socket = Socket

    @staticmethod
    def getaddrinfo(host, port, *kind):
        if not host.replace(".", "").isdigit():
            raise OSError(-2)
        return [(2, 1, 0, "", (host, port))]

sys.modules["socket"] = socket
lines = []
stdin = select.poll()
stdin.register(sys.stdin, select.POLLIN)

def pump(ms=0):
    """takes what has come over the UART"""
    while stdin.poll(ms):
        line = sys.stdin.readline()[:-1]  # this machine sends whole ones
        if line[:1] != MARK:
            lines.append(line)
            continue
        letter, n, value = line[1:].split(" ")
        s = Socket.open.get(int(n))
        if s is None:
            pass
        elif letter == "o":
            s.state = int(value)
        elif letter == "r":
            s.data += bytes.fromhex(value)
        else:
            s.end = int(value)

def told():
    pump(0 if lines else 5)
    return lines

def hear():
    while not lines:
        pump(100)
    return lines.pop(0)
'''


class Bridged(board.Board):
    """Its standard output goes through here."""

    NETWORK = False
    HOST = "127.0.0.1"
    SETUP = SHIM

    def _qemu(self, run, directory, words):
        process = subprocess.Popen([run], cwd=directory, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=words, bufsize=0)
        self.source = process.stdout
        read, write = os.pipe()
        process.stdout = open(read, "rb", buffering=0)
        self.sending = threading.Lock()
        self.connections = {}
        self.bridge = threading.Thread(target=self._bridge, args=(process, write), daemon=True)
        self.bridge.start()
        return process

    def _bridge(self, process, printed):
        """Separates the lines of the sockets from those of the script."""
        order = None
        # The scenario may end before all is read.
        with contextlib.suppress(BrokenPipeError), self.source, open(printed, "wb", buffering=0) as script:
            while data := os.read(self.source.fileno(), 1 << 16):
                while data:
                    if order is None:
                        text, mark, data = data.partition(MARK.encode())
                        if text:
                            script.write(text)
                        order = b"" if mark else None
                    else:
                        part, end, data = data.partition(b"\n")
                        order += part
                        if end:
                            self._obey(process, *order.decode().split())
                            order = None
        for connection in self.connections.values():
            connection.close()

    def _obey(self, process, letter, number, *words):
        if letter == "o":
            self.connections[number] = Connection(lambda *reply: self._reply(process, number, *reply), *words)
        else:
            getattr(self.connections[number], {"w": "write", "c": "grant", "x": "close"}[letter])(*words)

    def _reply(self, process, number, letter, value):
        try:
            with self.sending:
                process.stdin.write(f"{MARK}{letter} {number} {value}\n".encode())
        except (OSError, ValueError):
            pass  # the board is gone

    def tell(self, line=""):
        with self.sending:
            super().tell(line)


class Connection:
    """This machine's end: reads no more than the board has room for."""

    def __init__(self, reply, host, port):
        self.reply, self.credit, self.changed, self.closed = reply, 0, threading.Condition(), False
        self.sock = socket.socket()
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.thread = threading.Thread(target=self._run, args=((host, int(port)),), daemon=True)
        self.thread.start()

    def _run(self, address):
        try:
            self.sock.connect(address)
        except OSError as error:
            return self.reply("o", error.errno or errno.EIO)
        self.reply("o", 0)
        while True:
            with self.changed:
                self.changed.wait_for(lambda: self.credit or self.closed)
                if self.closed:
                    return
            try:
                data = self.sock.recv(min(500, self.credit))
            except OSError as error:
                return self.reply("e", error.errno or errno.EIO)
            if not data:
                return self.reply("e", 0)
            with self.changed:
                self.credit -= len(data)
            self.reply("r", data.hex())

    def grant(self, count):
        with self.changed:
            self.credit += int(count)
            self.changed.notify()

    def write(self, data):
        try:
            self.sock.sendall(bytes.fromhex(data))
        except OSError:
            pass  # the reading side tells of it

    def close(self):
        with self.changed:
            self.closed = True
            self.changed.notify()
        try:
            self.sock.shutdown(socket.SHUT_RDWR)  # ends recv()
        except OSError:
            pass
        self.sock.close()
