#!/usr/bin/env python3
"""size.py BOARD...: what the module costs on these boards, which `make` has built, against the budgets in their board.mk.

Flash (code and constants): of the Rust engine and of the C shim, as far as the link took them; and how much larger the
firmware is than the same without the module, with names, tables and what else of MicroPython the module makes it take.
A board whose firmware is not linked here has the size of the objects.
RAM of a client on MicroPython's heap: the engine's state and the shim's, and beside them the two buffers.
Stack: from the entry of the call to the deepest point in our code; MicroPython's functions below it are not counted. `others`
is the deepest of the other methods.
"""

import glob
import os
import re
import sys

import elf

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
ENTRIES = {"publish": "mqttclient_publish", "wait_msg": "mqttclient_wait_msg", "thread": "run_thread"}


def facts(board):
    """What board.mk says."""
    lines = elf.output("make", "-s", "--no-print-directory", "-C", ROOT, f"BOARD={board}", "facts").splitlines()
    return dict(line.split("=", 1) for line in lines)


def objects(out):
    """The engine, and the C shim."""
    shim = [glob.glob(f"{out}/**/umqtt/*.{end}", recursive=True) for end in ("o", "c.obj")]
    # A package's own umqtt.o is the engine again.
    shim = [path for paths in shim for path in paths if not path.endswith("/umqtt.o")]
    if len(shim) < 2:
        raise ValueError(f"the C shim of {out}: {shim}")
    return f"{out}/umqtt-engine/engine.o", sorted(shim)


def map_file(out, prog):
    """The linker's map of the firmware; None: it is not linked."""
    found = [path for path in (f"{out}/{prog}.map", f"{out}/{os.path.splitext(prog)[0]}.map") if os.path.exists(path)]
    return found[0] if found else None


def engine_state(engine):
    """What umqtt_size() returns: it has nothing but that number in it."""
    listing = elf.output(elf.PREFIX[elf.machine(engine)] + "objdump", "-d", "--no-show-raw-insn", engine)
    code = re.search(r"<umqtt_size>:\n((?:.+\n)+)", listing)[1]
    found = re.search(r"\bmov\S*\s+r0, #(\d+)(?:.*\n.*\blsls\s+r0, r0, #(\d+))?", code)
    if found:
        return int(found[1]) << int(found[2] or 0)
    found = re.search(r"\bldr\s+r0, \[pc.*\n(?:.*\n)*?.*\.word\s+0x(\w+)", code) or re.search(r"\bmov\s+\$0x(\w+),%e?ax", code)
    if found:
        return int(found[1], 16)
    high = re.search(r"\blui\s+a0,0x(\w+)", code)
    low = re.search(r"\b(?:li\s+a0,|addi?\s+a0,a0,)(-?\d+)", code)
    if high or low:
        return (int(high[1], 16) << 12 if high else 0) + (int(low[1]) if low else 0)
    raise ValueError("umqtt_size:\n" + code)


def buffers(out):
    """Bytes of the two buffers, as build.rs wrote them down for this build."""
    written = glob.glob(f"{out}/umqtt-engine/**/build/umqtt-*/out/config.rs", recursive=True)
    with open(max(written, key=os.path.getmtime)) as file:
        return sum(map(int, re.findall(r"\b[RT]X_BUFFER: usize = (\d+);", file.read())))


def measure(board):
    """Name to bytes, of what there is on this board, and the budget."""
    fact = facts(board)
    out = fact["OUT"]
    engine, shim = objects(out)
    link = map_file(out, fact["PROG"])
    found = {"engine": elf.flash(engine, link), "shim": sum(elf.flash(path, link) for path in shim)}
    found["flash"] = found["engine"] + found["shim"]
    if link and os.path.exists(f"{out}-bare/{fact['PROG']}"):
        sizes = [int(elf.output("size", f"{path}/{fact['PROG']}").splitlines()[1].split()[0]) for path in (out, out + "-bare")]
        found["whole"] = sizes[0] - sizes[1]
    found["buffers"] = buffers(out)
    core = elf.constant(*(path for path in shim if "/core." in path), "umqtt_core_size")
    found["client"] = engine_state(engine) + core - found["buffers"]
    stack = elf.Stack(engine, shim)
    for name, function in ENTRIES.items():
        if function in stack.frames:
            found[name] = stack.depth(function)
        elif name != "thread":
            raise ValueError(f"{board}: there is no {function}")
    methods = [function for function in stack.frames if function.startswith("mqttclient_")]
    found["others"] = max(stack.depth(function) for function in methods if function not in ENTRIES.values())
    budget = {name: int(limit) for name, limit in (item.split("=") for item in fact["BUDGET"].split())}
    if not budget or budget.keys() - {*found, "stack"}:
        raise ValueError(f"{board}: BUDGET is {fact['BUDGET']!r}: bytes for engine, flash, client or stack are expected")
    return found, budget


def over(found, budget):
    """Sentences on what is over the budget."""
    used = dict(found, stack=max(found.get(name, 0) for name in (*ENTRIES, "others")))
    return [f"{name}: {used[name]} bytes, {limit} allowed" for name, limit in budget.items() if used[name] > limit]


COLUMNS = {"engine": "engine", "shim": "C shim", "flash": "both", "whole": "firmware", "client": "client", "buffers": "buffers",
           "publish": "publish", "wait_msg": "wait_msg", "thread": "thread", "others": "others"}


def main():
    print(f"{'':16}{'flash':>34}{'RAM':>16}{'stack':>36}")
    print(f"{'bytes':16}" + "".join(f"{title:>9}" for title in COLUMNS.values()))
    wrong = []
    for board in sys.argv[1:]:
        found, budget = measure(board)
        print(f"{board:16}" + "".join(f"{found.get(name, '-'):>9}" for name in COLUMNS))
        wrong += [f"{board}: over its budget: {sentence}" for sentence in over(found, budget)]
    print("\n".join(["", *wrong] if wrong else []), end="\n" if wrong else "")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
