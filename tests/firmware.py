#!/usr/bin/env python3
"""Looks at what `make` built for boards: that its objects fit into a firmware, cannot panic, and keep to the budget.

    tests/firmware.py BOARD...

One line a check, the sum as the last one. These hold for a board whether or not it runs here.
"""

import os
import re
import shutil
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(ROOT, "tools"))

import elf  # noqa: E402
import size  # noqa: E402

# What the engine may take from the firmware: its port, the C library's, and ARM's run-time ABI. __aeabi_mem...: port.c has them.
NEEDED = r"(umqtt_port_\w+|mem(cpy|move|set|cmp)|bcmp|__aeabi_(mem(cpy|move|set|clr)[48]?|u?idiv(mod)?|u?ldivmod|l(mul|ls[lr]|asr)))$"
# Rust's panic machinery, by the names its symbols are made of.
PANIC = r"(_R|_ZN).*(panic|(unwrap|expect)_failed|index_fail|slice_\w*fail|4core3fmt)|_*rust_|_Unwind"


class Wrong(Exception):
    pass


def expect(condition, message):
    if not condition:
        raise Wrong(message)


def entry_points():
    """The functions that umqtt.h declares, but for those that the port has."""
    with open(os.path.join(ROOT, "micropython_mod/umqtt/umqtt.h")) as file:
        found = set(re.findall(r"^(?!extern)[^/\n]*?\b(umqtt_[a-z0-9_]+)\(", file.read(), re.M))
    expect(len(found) > 10, "umqtt.h declares next to nothing")
    return found


def check_symbols(fact):
    """Only the entry points are visible, only what a firmware has is needed, and nothing is static."""
    engine = size.objects(fact["OUT"])[0]
    found = elf.symbols(engine)
    visible = {name for _, _, _, binding, section, name in found if binding != "LOCAL" and section != "UND"}
    needed = {name for *_, section, name in found if section == "UND" and name}
    expect(visible == entry_points(), f"visible: {visible ^ entry_points()}")
    expect(needed, "nothing is needed: is this the engine?")
    text, data, bss = map(int, elf.output("size", engine).splitlines()[1].split()[:3])
    expect(text and not data and not bss, f"{data} bytes of data and {bss} of bss")
    strange = sorted(name for name in needed if not re.match(NEEDED, name))
    expect(not strange, f"a firmware does not have {strange}")


def check_panic_free(fact):
    """No symbol of Rust's panic machinery, neither in the engine nor in the firmware; and no endless loop, which is what
    is left of our panic handler where the compiler puts it in line."""
    out = fact["OUT"]
    engine = size.objects(out)[0]
    paths = [engine]
    # The unix port strips its program.
    if size.map_file(out, fact["PROG"]) and not elf.machine(engine).endswith("X86-64"):
        paths.append(os.path.join(out, fact["PROG"]))
    for path in paths:
        names = {name for *_, name in elf.symbols(path)}
        expect("umqtt_publish" in names, f"{path} has no symbols")
        # The host's core library wants this one; port.c has it, and it does nothing.
        panics = sorted(name for name in names if re.match(PANIC, name) and name != "rust_eh_personality")
        expect(not panics, f"{path}: {panics}")
    listing = elf.output(elf.PREFIX[elf.machine(engine)] + "objdump", "-d", "--no-show-raw-insn", engine)
    branches = re.findall(r"^\s*(\w+):\s+(?:b\S*|j|jmp)\s+([0-9a-f]+) <", listing, re.M)
    expect(len(branches) > 100, "the engine has no branches")
    expect(all(at != to for at, to in branches), "the engine has an endless loop")


def check_budget(fact):
    """The sizes can be told of every board, and are within its budget, if it has one."""
    found, budget = size.measure(fact["BOARD"])
    expect(all(found[name] > 0 for name in ("engine", "shim", "client", "buffers", "publish", "wait_msg")), f"sizes: {found}")
    expect(not size.over(found, budget), "; ".join(size.over(found, budget)))


def check_attributes(fact):
    """Every object has the float ABI, the processor and the alignment that the board states."""
    stated = dict(item.split("=") for item in fact["ELF"].split())
    expect(stated, "the board states nothing")
    engine, shim = size.objects(fact["OUT"])
    package = os.path.join(fact["OUT"], "package/umqtt")
    packed = [f"{package}/umqtt.o", f"{package}/libumqtt.a"] if fact["PROG"] == "package" else []
    for path in (engine, *shim, *packed):
        found = elf.attributes(path)
        for tag, value in stated.items():
            # "VFP registers", "None" for what the default is anyway.
            is_there = found.get(tag, "None").split()[0]
            expect(is_there == ("None" if value == "-" else value), f"{path}: Tag_{tag} is {is_there}, not {value}")


def check_package(fact):
    """The package alone makes the same firmware objects again: by QuecPython's way of building, without Rust, and without what
    the board says of the module."""
    out = fact["OUT"]
    again = out + "-package"
    shutil.rmtree(again, ignore_errors=True)
    os.makedirs(again)
    environment = {name: value for name, value in os.environ.items() if not re.match("UMQTT_|MAKE", name)}
    done = subprocess.run(
        ["make", "-s", "--no-print-directory", "-C", f"{ROOT}/boards/quectel", "CARGO=/nowhere/cargo", f"BUILD={again}",
         f"MPY_DIR={fact['MPY_DIR']}", "BOARD_MK=/dev/null", f"MACHINE={fact['MACHINE']}", f"USER_C_MODULES={out}/package",
         f"{again}/firmware.a"],
        env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    expect(done.returncode == 0, done.stdout)
    names = elf.output(elf.PREFIX["ARM"] + "ar", "t", f"{again}/firmware.a").split()
    shim = [os.path.basename(path) for path in size.objects(out)[1]]
    expect(sorted(names) == sorted([*shim, "umqtt.o"]), f"firmware.a has {names}")
    sizes = [[elf.sections(path) for path in size.objects(where)[1]] for where in (out, again)]
    expect(sizes[0] == sizes[1], "the package's C makes other objects")
    shutil.rmtree(again)


def check_cmake(fact):
    """CMake's build calls the cargo that it is told, takes an empty setting for one that was not said, and tells C the others."""
    again = fact["OUT"] + "-again"
    shutil.rmtree(again, ignore_errors=True)
    os.makedirs(again)
    done = subprocess.run(
        ["make", "-s", "--no-print-directory", "-C", ROOT, f"BOARD={fact['BOARD']}", "CARGO=/nowhere/cargo", "UMQTT_THREADS=",
         "UMQTT_STACK_UNIT=7", f"OUT={again}", "port"],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    expect(done.returncode and "cargo-for: Rust is missing" in done.stdout, done.stdout)
    with open(f"{again}/CMakeFiles/firmware.dir/flags.make") as file:
        defined = re.findall(r"-DUMQTT_\w+(?:=\S*)?", file.read())
    for name in ("UMQTT_THREAD_STACK=", "UMQTT_STACK_UNIT=7"):
        expect(any(name in one for one in defined), f"C is not told {name}")
    expect(not any("UMQTT_THREADS" in one for one in defined), f"C is told {defined}")
    shutil.rmtree(again)


def checks(fact):
    yield check_symbols
    yield check_panic_free
    yield check_budget
    if fact["ELF"]:
        yield check_attributes
    if fact["PROG"] == "package":
        yield check_package
    # Not where a port's own SDK is at hand.
    if os.path.exists(fact["OUT"] + "/cmake.log"):
        yield check_cmake


def main():
    passed = failed = 0
    for board in sys.argv[1:]:
        fact = dict(size.facts(board), BOARD=board)
        for check in checks(fact):
            problem = ""
            try:
                check(fact)
            except (Wrong, ValueError, OSError, subprocess.CalledProcessError, TypeError, LookupError) as error:
                problem = f"{type(error).__name__ + ': ' if not isinstance(error, Wrong) else ''}{error}"
            name = check.__name__.removeprefix("check_")
            print(f"FAIL {board}: {name}: {problem}" if problem else f"ok   {board}: {name}", flush=True)
            passed, failed = passed + (not problem), failed + bool(problem)
    print(f"{passed} passed, {failed} failed")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
