"""What a scenario has at hand: MicroPython processes, scripted brokers, Mosquitto, and a deadline on everything.

A scenario is a function `def topic(t)` under `@scenario` in `tests/micropython/`. It starts a script with `t.mp(...)`, plays
the broker, and checks the lines that the script prints. It passes when it checked something, every script ended by itself
with exit code 0, and neither a printed line nor a byte on a connection was left that nobody asked for.
"""

import functools
import os
import re
import select
import shutil
import signal
import socket
import subprocess
import tempfile
import textwrap
import time

import broker as scripted
import tls


class Failure(AssertionError):
    pass


def scenario(function=None, *, threads=False, unix=False, board=False, network=False, tcp=False, idle=False, alone=False,
             limit=60):
    """threads: needs `_thread`. unix: needs what a board has not, such as strace, or a heap of its choice. board: needs what
    only an emulated board has, such as a stack at a known place. network: needs sockets of MicroPython's own, for speed,
    heap, or Ctrl-C (those of `bridge.py` are Python). tcp: makes no sense over TLS. idle: mostly waits, so it runs beside the
    others. alone: measures, so nothing runs beside it. limit: seconds in all."""
    def mark(function):
        function.scenario = {"threads": threads, "unix": unix, "board": board, "network": network, "tcp": tcp, "idle": idle,
                             "alone": alone, "over_tls": False, "limit": limit}
        return function
    return mark(function) if function else mark


PRELUDE = r'''
import errno, gc, sys, time
from umqtt import MQTTClient, MQTTException
if TLS:  # the scenario is run over TLS
    _MQTTClient = MQTTClient
    def MQTTClient(*args, **kw):
        return _MQTTClient(*args, **dict(TLS, **kw))
ERRORS = {2: "ENOENT", 32: "EPIPE", 71: "EPROTO", 104: "ECONNRESET", 107: "ENOTCONN", 110: "ETIMEDOUT", 111: "ECONNREFUSED"}

def say(*words):
    """print in one write, so that the lines of two threads do not mix"""
    sys.stdout.write(" ".join([str(w) for w in words]) + "\n")

def words(e):
    """OSError ETIMEDOUT, MQTTException 5, MQTTException -EPROTO, ValueError <text>"""
    a = e.args[0] if e.args else ""
    if isinstance(e, MQTTException):
        a = "-" + ERRORS.get(-a, str(-a)) if a < 0 else a
    elif isinstance(e, OSError):
        a = ERRORS.get(a, a)
    return "%s %s" % (type(e).__name__, a)

def outcome(f, *args, **kw):
    try:
        return repr(f(*args, **kw))
    except Exception as e:
        return words(e)

def tell(f, *args, **kw):
    """says what the call returns or raises"""
    say(outcome(f, *args, **kw))

def clock(f, *args, **kw):
    """the same, and how many ms it took"""
    t = time.ticks_ms()
    r = outcome(f, *args, **kw)
    say(r, "after", time.ticks_diff(time.ticks_ms(), t), "ms")

def hear():
    """waits for a line from the scenario"""
    return sys.stdin.readline().strip()

def told():
    """whether the scenario has sent a line"""
    import select
    poll = select.poll()
    poll.register(sys.stdin, select.POLLIN)
    return poll.poll(5)

def show(topic, msg):
    global serving
    if topic == b"end":
        serving = False
    else:
        say("got", topic, msg if len(msg) <= 64 else "%d bytes" % len(msg))

def serve(c):
    """takes messages until one with the topic `end`, which `show` keeps for itself"""
    global serving
    serving = True
    while serving:
        c.wait_msg()

def pause(ms):
    """time.sleep_ms keeps the GIL while it sleeps, on MicroPython's unix port, and the other threads starve; this does not"""
    import select
    poll = select.poll()
    poll.register(sys.stdin, 0)
    poll.poll(ms)

def start(f, *args):
    """runs it on a thread; what comes back is called to wait for its end"""
    import _thread
    ended = _thread.allocate_lock()
    ended.acquire()
    def run():
        try:
            f(*args)
        finally:
            ended.release()
    _thread.start_new_thread(run, ())
    return ended.acquire

def client(**kw):
    c = MQTTClient("c", HOST, PORT, **kw)
    c.set_callback(show)
    return c
'''


class Micropython:
    """A running script. Its standard output and error come as one stream of lines, in their order."""

    UNIX = NETWORK = True
    HOST = "127.0.0.1"  # where the brokers are
    SETUP = ""  # what it takes before there are sockets
    LATENCY = 0  # seconds that a byte may take from here to the script's socket
    SLACK = 0  # ms that anything may take longer

    def __init__(self, trace, binary, script, directory, heap=None, strace=None, environment=None, name="mp"):
        self.trace, self.name = trace, name
        path = os.path.join(directory, f"{name}.py")
        with open(path, "w") as file:
            file.write(script)
        command = [binary, *(["-X", f"heapsize={heap}"] if heap else []), path]
        self.strace_log = os.path.join(directory, f"{name}.strace") if strace else None
        if strace:
            command = ["strace", "-f", "-s", "64", "-e", f"trace={strace}", "-o", self.strace_log, *command]
        environment = {"PATH": os.environ["PATH"], "HOME": directory, **(environment or {})}
        self.process = subprocess.Popen(command, cwd=directory, env=environment, stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, bufsize=0)
        self.output = self.process.stdout.fileno()
        self.buffer = b""
        self.finished = False

    @property
    def pid(self):
        """The interpreter itself, below strace."""
        if not self.strace_log:
            return self.process.pid
        return int(open(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read().split()[0])

    def more(self, seconds):
        """What it prints within that time; None: nothing yet, b"": nothing any more."""
        if not select.select([self.output], [], [], seconds)[0]:
            return None
        return os.read(self.output, 1 << 16)

    def line(self, within=10):
        """The next line; None when the output has ended."""
        until = self.trace.until(within)
        while b"\n" not in self.buffer:
            data = self.more(max(0, until - time.monotonic()))
            if data is None:
                self.trace.fail(f"{self.name}: no (whole) line in time {self.buffer or ''}")
            if not data:
                rest, self.buffer = self.buffer, b""
                if rest:
                    self.trace.log(self.name, rest.decode(errors="replace"))
                return rest.decode(errors="replace") or None
            self.buffer += data
        line, _, self.buffer = self.buffer.partition(b"\n")
        line = line.decode(errors="replace").rstrip("\r")
        self.trace.log(self.name, line)
        return line

    def expect(self, *lines, within=10):
        """The next lines are these."""
        for want in lines:
            got = self.line(within)
            if got != want:
                self.trace.fail(f"{self.name}: the script printed\n    {got}\n  instead of\n    {want}{self._rest(got)}")
            self.trace.checked()

    def match(self, pattern, within=10):
        """The next line matches as a whole; returns the match."""
        got = self.line(within)
        found = got is not None and re.fullmatch(pattern, got)
        if not found:
            self.trace.fail(f"{self.name}: the script printed\n    {got}\n  which is not\n    {pattern}{self._rest(got)}")
        self.trace.checked()
        return found

    def until(self, pattern, within=10):
        """Reads lines up to one that matches as a whole; returns those before it."""
        before = []
        while True:
            line = self.line(within)
            if line is None:
                self.trace.fail(f"{self.name}: ended before {pattern}")
            if re.fullmatch(pattern, line):
                self.trace.checked()
                return before
            before.append(line)

    def until_end(self, within=10):
        """Reads lines up to the end of the output."""
        while self.line(within) is not None:
            pass

    def took(self, want, low, high, within=40):
        """The next line comes from `clock`: this outcome, after so many ms (inclusive)."""
        found = self.match(f"({want}) after ([0-9]+) ms", within)
        ms = int(found[2])
        high += self.SLACK
        if not low <= ms <= high:
            self.trace.fail(f"{self.name}: took {ms} ms, expected {low}..{high}")
        return ms

    def silent(self, ms):
        """For that time the script prints nothing, and does not end."""
        more = None if self.buffer else self.more(ms / 1000)
        if self.buffer or more is not None:
            self.buffer += more or b""
            self.trace.fail(f"{self.name}: expected silence, but: {self.line()}")
        self.trace.checked()

    def asleep(self, within=10):
        """Waits until every thread sleeps in the kernel, for more than a moment."""
        until = self.trace.until(within)
        tasks = f"/proc/{self.pid}/task"
        seen = 0
        while seen < 5:
            try:
                states = {open(f"{tasks}/{task}/stat").read().rpartition(")")[2].split()[0] for task in os.listdir(tasks)}
            except FileNotFoundError:
                states = set()  # a thread ended meanwhile
            seen = seen + 1 if states == {"S"} else 0
            if time.monotonic() > until:
                self.trace.fail(f"{self.name}: does not go to sleep")
            time.sleep(0.004)

    def _rest(self, got):
        """Output that follows a surprise: most often the rest of a traceback."""
        if got is None:
            return f"\n  exit code {self.process.poll()}"
        until = time.monotonic() + 0.3
        while data := self.more(max(0, until - time.monotonic())):
            self.buffer += data
        return "\n  followed by\n" + textwrap.indent(self.buffer.decode(errors="replace"), "    ") if self.buffer else ""

    def tell(self, line=""):
        """A line for `hear`."""
        self.trace.log(self.name, f"(tell) {line}")
        self.process.stdin.write(line.encode() + b"\n")

    def interrupt(self):
        """Ctrl-C."""
        self.trace.log(self.name, "(Ctrl-C)")
        os.kill(self.pid, signal.SIGINT)

    def drain(self):
        """After a failure: puts what is left of the output into the log."""
        self._rest("")
        for line in self.buffer.decode(errors="replace").splitlines():
            self.trace.log(self.name, line)
        code = self.process.poll()
        self.trace.log(self.name, "(still running)" if code is None else f"(exit code {code})")

    def finish(self, within=10):
        """The script ends by itself, has nothing more to say, and its exit code is 0."""
        if self.finished:
            return
        line = self.line(within)
        if line is not None:
            self.trace.fail(f"{self.name}: an unexpected line\n    {line}{self._rest(line)}")
        self.ends_with(0, within)

    def ends_with(self, code, within=10):
        """The output has ended; so does the script, with this exit code."""
        self.finished = True
        got = self.exit_code(within)
        if got is None:
            self.trace.fail(f"{self.name}: closed its output and does not end")
        if got != code:
            self.trace.fail(f"{self.name}: exit code {got}")
        self.trace.checked()

    def exit_code(self, within):
        """None: it has not ended."""
        try:
            return self.process.wait(within)
        except subprocess.TimeoutExpired:
            return None

    def calls(self):
        """The lines of the strace log so far."""
        return open(self.strace_log).read().splitlines()

    def cpu(self):
        """Seconds that the interpreter has computed."""
        fields = open(f"/proc/{self.pid}/stat").read().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def open_files(self):
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def kill(self):
        if self.process.poll() is None:
            if self.strace_log:
                try:
                    os.kill(self.pid, signal.SIGKILL)
                except (OSError, IndexError):
                    pass
            self.process.kill()
            self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()


class Mosquitto:
    """A real broker on a free loopback port."""

    def __init__(self, trace, directory, *options, over_tls=False):
        self.trace, self.directory = trace, directory
        self.keepers = scripted.reserve(), scripted.reserve()
        # `plain` is for the scenario, `port` for the script
        self.port = self.plain = self.keepers[0].getsockname()[1]
        if over_tls:
            self.port = self.keepers[1].getsockname()[1]
        self.config = os.path.join(directory, "mosquitto.conf")
        with open(self.config, "w") as file:
            file.write(f"listener {self.plain} 127.0.0.1\nallow_anonymous true\nset_tcp_nodelay true\n"
                       "max_queued_messages 0\nmax_inflight_messages 100\nlog_type all\n")
            if os.getuid() == 0:
                file.write("user root\n")
            if over_tls:
                file.write(f"listener {self.port} 127.0.0.1\ncafile {tls.pem('ca')}\ncertfile {tls.pem('server')}\n"
                           f"keyfile {tls.path('server.key')}\n")
            file.writelines(f"{option}\n" for option in options)
        self.links = []
        self.up()

    def up(self):
        self.log = open(os.path.join(self.directory, "mosquitto.log"), "a")
        path = shutil.which("mosquitto") or "/usr/sbin/mosquitto"
        self.process = subprocess.Popen([path, "-c", self.config], stdout=self.log, stderr=self.log)
        until = self.trace.until(10)
        while True:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            if self.process.poll() is not None or time.monotonic() > until:
                self.trace.fail("Mosquitto does not start: " + open(self.log.name).read())
            time.sleep(0.01)

    def peer(self, client_id, *subscriptions, clean=True, qos=2):
        """A second client, spoken byte for byte, subscribed to these topics."""
        link = scripted.Link(socket.create_connection(("127.0.0.1", self.plain)), self.trace, client_id)
        self.links.append(link)
        link.strict = False
        link.send(scripted.connect(client_id, clean=clean, keepalive=0))
        link.packet()
        for id, topic in enumerate(subscriptions, 60000):
            link.send(scripted.subscribe(id, topic, qos))
            link.expect(scripted.suback(id, qos))
        return link

    def down(self):
        self.process.terminate()
        self.process.wait(10)
        self.log.close()

    def close(self):
        for link in self.links:
            link.close()
        for keeper in self.keepers:
            keeper.close()
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.log.close()


@functools.cache
def has(binary, target, module):
    """Whether the binary has this module."""
    return evaluate(binary, target, f"import {module}")[0]


def evaluate(binary, target, script):
    """Whether a script runs through, and what it prints."""
    test = Test(binary, 30, target)
    try:
        script = test.mp(script, bare=True)
        printed = list(iter(script.line, None))
        return script.exit_code(10) == 0, "\n".join(printed)
    finally:
        test.close()


class Test:
    """One run of one scenario on one binary; `t` in the scenarios. Also the trace that its parts write to."""

    def __init__(self, binary, limit, target=Micropython, over_tls=False):
        self.binary, self.target = os.path.abspath(binary), target
        self.over_tls = over_tls  # all connections but those that a scenario says something else of
        self.start = time.monotonic()
        self.deadline = self.start + limit
        self.directory = tempfile.mkdtemp(prefix="umqtt-test-")
        self.lines, self.checks, self.parts = [], 0, []

    # the trace

    def log(self, who, what):
        self.lines.append(f"{time.monotonic() - self.start:8.3f} {who}: {what}")

    def checked(self):
        self.checks += 1

    def fail(self, why):
        raise Failure(why)

    def until(self, seconds):
        """The point in time so far away, but never past the scenario's own limit."""
        now = time.monotonic()
        if now > self.deadline:
            self.fail("the scenario's time is over")
        return min(now + seconds, self.deadline)

    # the parts

    def mp(self, script, port=None, helpers="", heap=None, strace=None, environment=None, bare=False, **names):
        """Starts a script, below the prelude and the helpers unless `bare`; `names` become its globals."""
        if isinstance(port, (scripted.Broker, scripted.BlackHole, Mosquitto)):
            port = port.port
        names = {"HOST": self.target.HOST, "PORT": port, "TLS": tls.options() if self.over_tls else {}, **names}
        head = "".join(f"{name} = {value!r}\n" for name, value in names.items())
        script = ("" if bare else head + PRELUDE + self.target.SETUP + helpers) + textwrap.dedent(script)
        count = sum(isinstance(part, Micropython) for part in self.parts)
        return self._part(self.target(self, self.binary, script, self.directory, heap, strace, environment,
                                      f"mp{count + 1 if count else ''}"))

    def broker(self, **options):
        if self.over_tls:
            options.setdefault("tls", tls.context())
        count = sum(isinstance(part, scripted.Broker) for part in self.parts)
        return self._part(scripted.Broker(self, name=f"broker{count + 1 if count else ''}", **options))

    def black_hole(self):
        return self._part(scripted.BlackHole())

    def mosquitto(self, *options, over_tls=None):
        """With these further lines in its configuration."""
        return self._part(Mosquitto(self, self.directory, *options, over_tls=self.over_tls if over_tls is None else over_tls))

    def _part(self, part):
        self.parts.append(part)
        return part

    def connected(self, script, *, helpers="", broker=None, session=False, clean=False, heap=None, strace=None, names=None,
                  **options):
        """A script that begins with `c`, connected, made with these options; returns script, link and broker. What the broker
        sends then comes after `connect` has returned."""
        broker = broker or self.broker()
        arguments = "".join(f", {name}={value!r}" for name, value in options.items())
        head = f"c = client({arguments[2:]})\nc.connect({clean or ''})\nsay('connected')\n"
        mp = self.mp(head + textwrap.dedent(script), broker, helpers, heap, strace, **(names or {}))
        fields = {name: options[name] for name in ("keepalive", "version") if name in options}
        link = broker.welcome(session=session, clean=clean, **fields)
        mp.expect("connected")
        return mp, link, broker

    def has(self, module):
        """Whether the binary has it."""
        return has(self.binary, self.target, module)

    # checks

    def equal(self, got, want, what=""):
        if got != want:
            self.fail(f"{what or 'value'}: {got!r} instead of {want!r}")
        self.checked()

    def true(self, condition, what):
        if not condition:
            self.fail(what)
        self.checked()

    def between(self, value, low, high, what):
        self.true(low <= value <= high, f"{what}: {value}, expected {low}..{high}")

    # the end

    def finish(self):
        """The rules that hold for every scenario that came to its end."""
        for part in self.parts:
            if isinstance(part, Micropython):
                part.finish()
        for part in self.parts:
            for link in getattr(part, "links", []):
                link.leftover()
        if not self.checks:
            self.fail("the scenario checked nothing")

    def abort(self):
        """The time is over: whatever the scenario waits for comes to an end."""
        self.log("time", "over")
        for part in list(self.parts):
            if isinstance(part, Micropython):
                part.process.kill()
            for link in getattr(part, "links", []):
                try:
                    link.sock.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass

    def close(self):
        for part in self.parts:
            if isinstance(part, Micropython):
                part.kill()
            else:
                part.close()
        shutil.rmtree(self.directory, ignore_errors=True)
