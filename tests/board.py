"""A script on an emulated board: QEMU runs the firmware, and the raw REPL takes the script over the board's UART.

The board is started anew for each script, so nothing of one reaches the next. `run` beside the firmware starts it, with
the UART on its standard input and output.
"""

import os
import subprocess
import threading
import time

import harness

RAW_REPL, RUN, END = b"\x01", b"\x04", b"\x04"
# Starting takes the processor's time, and the scenarios that run beside it have deadlines.
STARTING = threading.Semaphore(2)
READY = b"raw REPL; CTRL-B to exit\r\n>OK"


class Board(harness.Micropython):
    """What it prints comes first, and then, once it has ended, the traceback if there is one."""

    # QEMU gives the board a network of its own, in which this is the loopback of this machine. The board's address comes
    # by DHCP, and the resolver's with it.
    UNIX = False
    HOST = "10.0.2.2"
    SETUP = r'''
import network, time
while network.ipconfig("dns") == "0.0.0.0":
    time.sleep_ms(1)
'''
    LATENCY = 0.05
    SLACK = 500  # QEMU is one process among many

    def __init__(self, trace, firmware, script, directory, heap=None, strace=None, environment=None, name="mp"):
        environment = dict(environment or {})
        if environment.pop("DNS", None):
            script = f"import network\nnetwork.ipconfig(dns={self.HOST!r})\n" + script
        # Of a heap, what a scenario may ask for is that it is small.
        if heap not in (None, "300k") or strace or environment:
            trace.fail("a scenario that needs a heap, strace or an environment is to be marked `unix`")
        self.trace, self.name = trace, name
        self.strace_log = None
        self.buffer, self.raw = b"", b""
        self.finished = False
        self.parts = 0  # of the raw REPL's answer that have ended: output, traceback
        self.failed = False
        with STARTING:
            try:
                self._start(os.path.join(os.path.dirname(firmware), "run"), script, directory)
            except BaseException:
                self.kill()
                raise

    def _start(self, run, script, directory, within=20):
        """Up to where the script's output begins."""
        with open(os.path.join(directory, f"{self.name}.qemu"), "w+") as words:  # of QEMU, not of the script
            self.process = self._qemu(run, directory, words)
        self.output = self.process.stdout.fileno()
        self.process.stdin.write(RAW_REPL + script.encode() + RUN)
        until = time.monotonic() + within
        while READY not in self.raw:
            data = super().more(max(0, until - time.monotonic()))
            if not data:
                with open(os.path.join(directory, f"{self.name}.qemu")) as words:
                    self.trace.fail(f"{self.name}: the board does not start: {self.raw!r} {words.read()}")
            self.raw += data
        self.raw = self.raw.partition(READY)[2]

    def _qemu(self, run, directory, words):
        return subprocess.Popen([run], cwd=directory, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=words, bufsize=0)

    def more(self, seconds):
        until = time.monotonic() + seconds
        while True:
            data, mark, rest = self.raw.partition(END)
            if self.parts == 2:
                return b""
            if mark:
                self.raw = rest
                self.failed |= self.parts == 1 and bool(data)
                self.parts += 1
            else:
                self.raw = b""
                self.failed |= self.parts == 1 and bool(data)
            if data:
                return data
            if not mark:
                data = super().more(max(0, until - time.monotonic()))
                if data is None:
                    return None
                if not data:
                    self.parts, self.failed = 2, True  # QEMU has ended
                self.raw = data

    def exit_code(self, within=10):
        return int(self.failed) if self.parts == 2 else None

    def asleep(self, within=10):
        """By then the script waits for what it is about to wait for."""
        time.sleep(0.2)

    def interrupt(self):
        self.trace.log(self.name, "(Ctrl-C)")
        self.process.stdin.write(b"\x03")
