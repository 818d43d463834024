#!/usr/bin/env python3
"""Runs the scenarios of tests/micropython on MicroPython binaries.

    tests/run.py [--filter PATTERN] [--repeat N] [--tls] BINARY...

One line a scenario and binary (named by its folder), a failure with all that the script printed and all that went over
its connections. What fails while the machine stalls is run once more, by itself, and a line says so. The last line is
`N passed, M failed`; the exit code is 1 if anything failed or nothing ran. Nothing is skipped, with these exceptions, and a
line says how many: a binary without `_thread` has no scenarios that need threads, a board none that need unix, unix none that
need a board, and a board without a network none that need its sockets.

Some scenarios run once more over TLS; with `--tls` all those that can, and nothing else.
"""

import argparse
import fnmatch
import functools
import importlib.util
import os
import queue
import shutil
import sys
import threading
import time
import traceback

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(os.path.dirname(HERE), "tools")]

import board  # noqa: E402
import bridge  # noqa: E402
import harness  # noqa: E402

BUSY = 2   # scenarios that compute: as many as the smallest machine has cores
# These come once more over TLS.
OVER_TLS = "outages.*_while_publish*", "outages.*_while_wait*", "threads.*"
IDLE = 24  # scenarios that wait for time-outs


class Pulse:
    """Tells whether this process got the processor when it was due: the scenarios look at the time."""

    BEAT, LATE = 0.02, 0.05  # seconds

    def __init__(self):
        self.stalls = []  # (when, seconds)
        threading.Thread(target=self.beat, daemon=True).start()

    def beat(self):
        due = time.monotonic()
        while True:
            due = max(due + self.BEAT, time.monotonic())
            time.sleep(max(0, due - time.monotonic()))
            late = time.monotonic() - due
            if late > self.LATE:
                self.stalls.append((due, late))

    def longest(self, since):
        """The longest stall from then on, in seconds; 0: none that matters."""
        return max((late for when, late in self.stalls if when >= since), default=0)


class Report:
    """Prints from any thread, and counts."""

    def __init__(self):
        self.lock = threading.Lock()
        self.passed = self.failed = 0
        self.pulse = Pulse()
        self.again = []  # jobs

    def result(self, name, ok, seconds, detail=""):
        with self.lock:
            if ok:
                self.passed += 1
            else:
                self.failed += 1
            print(f"{'ok  ' if ok else 'FAIL'} {name} ({seconds:.1f} s)", flush=True)
            if detail:
                print(detail.rstrip() + "\n", flush=True)

    def note(self, line):
        with self.lock:
            print(line, flush=True)


def over_tls(function):
    """The same scenario with TLS on all its connections."""
    twin = functools.partial(function)
    twin.scenario = {**function.scenario, "unix": True, "over_tls": True}
    return twin


def scenarios(pattern, tls_only):
    """(name, function) of each, in the order of the files."""
    found = []
    folder = os.path.join(HERE, "micropython")
    for file in sorted(os.listdir(folder)):
        topic, extension = os.path.splitext(file)
        if extension != ".py":
            continue
        spec = importlib.util.spec_from_file_location(f"scenarios_{topic}", os.path.join(folder, file))
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        for name, function in vars(module).items():
            if hasattr(function, "scenario"):
                found.append((f"{topic}.{name}", function))
    again = [(f"{name} over TLS", over_tls(function)) for name, function in found if not function.scenario["tcp"] and
             (tls_only or any(fnmatch.fnmatch(name, once_more) for once_more in OVER_TLS))]
    found = again if tls_only else found + again
    if pattern:
        found = [item for item in found if pattern in item[0] or fnmatch.fnmatch(item[0], pattern)]
    return found


def target_of(binary):
    """What runs scripts on this binary: a board has `run` beside it, which says whether QEMU gives it a network."""
    if not binary.endswith(".elf"):
        return harness.Micropython
    with open(os.path.join(os.path.dirname(binary), "run")) as run:
        return board.Board if " -nic " in run.read() else bridge.Bridged


def run(report, name, binary, function, last=False):
    """`last`: the result counts whatever the machine did meanwhile."""
    start = time.monotonic()
    detail = once(name, binary, function)
    stall = 0 if last else report.pulse.longest(start)
    if detail and stall:
        report.note(f"again {name}: it failed while the machine stalled for {stall:.2f} s\n{detail.rstrip()}\n")
        report.again.append((name, binary, function, True))
        return
    report.result(name, not detail, time.monotonic() - start, detail)


def once(name, binary, function):
    """What went wrong, in words; empty if nothing did."""
    detail = ""
    test = harness.Test(binary, function.scenario["limit"], target_of(binary), function.scenario["over_tls"])
    alarm = threading.Timer(function.scenario["limit"] + 1, test.abort)
    alarm.start()
    try:
        function(test)
        test.finish()
    except BaseException as error:  # whatever it was, the scenario failed
        frames = traceback.extract_tb(error.__traceback__)
        ours = [f"    {os.path.relpath(f.filename)}:{f.lineno} {f.line}" for f in frames if "micropython" in f.filename]
        why = str(error) if isinstance(error, harness.Failure) else traceback.format_exc()
        for part in test.parts:
            if isinstance(part, harness.Micropython):
                part.drain()
        detail = "\n".join(["  " + why.replace("\n", "\n  "), *ours, "  -- what happened:",
                            *("  " + line.replace("\n", "\n           ") for line in test.lines[-200:])])
    finally:
        alarm.cancel()
        test.close()
    return detail


def worker(report, jobs):
    while True:
        try:
            job = jobs.get_nowait()
        except queue.Empty:
            return
        run(report, *job)


def pool(report, jobs, size):
    """Starts `size` threads over these jobs."""
    waiting = queue.Queue()
    for job in jobs:
        waiting.put(job)
    threads = [threading.Thread(target=worker, args=(report, waiting), daemon=True) for _ in range(min(size, len(jobs)))]
    for thread in threads:
        thread.start()
    return threads


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--filter", metavar="PATTERN", help="only scenarios whose topic.name contains or matches it")
    parser.add_argument("--repeat", type=int, default=1, metavar="N", help="run each N times")
    parser.add_argument("--tls", action="store_true", help="every scenario that can, over TLS")
    parser.add_argument("binaries", nargs="+", metavar="BINARY")
    arguments = parser.parse_args()

    report = Report()
    if not (shutil.which("mosquitto") or os.path.exists("/usr/sbin/mosquitto")):
        report.result("mosquitto is installed", False, 0, "  apt-get install mosquitto")
    for program in "strace", "openssl":
        if not shutil.which(program):
            report.result(f"{program} is installed", False, 0, f"  apt-get install {program}")

    every = scenarios(arguments.filter, arguments.tls)
    if not every:
        report.result(f"scenarios like {arguments.filter}", False, 0, "  there are none")
    jobs = []
    for binary in map(os.path.abspath, arguments.binaries):
        build, target = os.path.basename(os.path.dirname(binary)), target_of(binary)
        try:
            ok, output = harness.evaluate(binary, target, "import umqtt")
        except (OSError, harness.Failure) as error:
            ok, output = False, str(error)
        if not ok:
            report.result(f"{build}: import umqtt", False, 0, "  " + output)
            continue
        here = {"threads": harness.has(binary, target, "_thread"), "unix": target.UNIX, "board": not target.UNIX,
                "network": target.NETWORK}
        left_out = {}
        for name, function in every:
            missing = [need for need, met in here.items() if function.scenario[need] and not met]
            if missing:
                left_out[name] = missing[0]
        for need in here:
            if need in left_out.values():
                report.note(f"note {build}: no {need}, {list(left_out.values()).count(need)} scenarios do not apply")
        jobs += [(f"{build}: {name}", binary, function) for name, function in every if name not in left_out] * arguments.repeat

    def having(**marks):
        return [job for job in jobs if all(job[2].scenario[mark] == value for mark, value in marks.items())]

    slow_first = sorted(having(idle=True, alone=False), key=lambda job: -job[2].scenario["limit"])
    for thread in pool(report, slow_first, IDLE) + pool(report, having(idle=False, alone=False), BUSY):
        thread.join()
    for thread in pool(report, having(alone=True), 1):
        thread.join()
    for job in report.again:
        run(report, *job)

    print(f"{report.passed} passed, {report.failed} failed", flush=True)
    return 1 if report.failed or not report.passed else 0


if __name__ == "__main__":
    sys.exit(main())
