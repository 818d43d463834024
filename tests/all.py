#!/usr/bin/env python3
"""Every check and test there is, and their sum as the last line: `N passed, M failed`.

    tests/all.py BOARD... [BINARY...]

`make test` builds the boards, and binaries of other versions of MicroPython, and calls this. A step that ends with an error
but counts no failed test (it did not compile, a linter complained) is one failure.
"""

import os
import re
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(ROOT, "tools"))

import size  # noqa: E402

CARGO = os.environ.get("CARGO", "cargo")
SUM = re.compile(r"(?:test result: \w+\. )?(\d+) passed[;,] (\d+) failed\b")


def steps(arguments):
    """(command, whether it counts tests) of each."""
    boards = [argument for argument in arguments if "/" not in argument]
    facts = [size.facts(board) for board in boards]
    binaries = [os.path.relpath(os.path.join(fact["OUT"], fact["PROG"]), ROOT) for fact in facts if fact["RUNS"]]
    binaries += [argument for argument in arguments if "/" in argument]
    yield [CARGO, "fmt", "--check"], False
    for features in ([], ["--features", "abi-check"]):
        yield [CARGO, "clippy", "--quiet", "--all-targets", *features, "--", "-D", "warnings"], False
    yield [CARGO, "test", "--quiet", "--no-fail-fast", "--features", "abi-check"], True
    yield [sys.executable, "tests/makefile.py"], True
    yield [sys.executable, "tests/firmware.py", *boards], True
    # An emulated board takes the processor's time, so none runs beside others.
    emulated = [binary for binary in binaries if binary.endswith(".elf")]
    for group in [[binary for binary in binaries if binary not in emulated], *([one] for one in emulated)]:
        if group:
            yield [sys.executable, "tests/run.py", *group], True


def run(command, counts):
    """(passed, failed) of one step; what it prints goes by, but for a last line that could be taken for ours."""
    name = " ".join([os.path.basename(command[0]), *command[1:]])
    print(f"== {name}", flush=True)
    passed = failed = 0
    process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                               stderr=subprocess.STDOUT, text=True, errors="replace")
    for line in process.stdout:
        found = SUM.match(line)
        if found:
            passed += int(found[1])
            failed += int(found[2])
        if not found or found.end() != len(line.rstrip()):
            print(line, end="", flush=True)
    code = process.wait()
    if not failed and (code or (counts and not passed)):
        failed = 1
    result = f"{passed} passed, {failed} failed" if counts else "failed" if failed else "passed"
    print(f"== {name}: {result}" + (f", exit code {code}" if code else ""), flush=True)
    return passed, failed


def main():
    passed = failed = 0
    for command, counts in steps(sys.argv[1:]):
        one = run(command, counts)
        passed, failed = passed + one[0], failed + one[1]
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
