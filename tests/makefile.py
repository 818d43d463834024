#!/usr/bin/env python3
"""Looks at what the Makefile refuses and notices, in a copy of it.

    tests/makefile.py

One line a check, the sum as the last one.
"""

import os
import shutil
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def make(folder, *arguments):
    """What make says, and whether it was content."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("UMQTT_", "MAKE"))}
    done = subprocess.run(["make", "-s", "--no-print-directory", "-C", folder, *arguments], env=environment,
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    return done.stdout, done.returncode == 0


def copy(above, name="umqtt"):
    """What make needs of the project, in a folder of this name."""
    folder = os.path.join(above, name)
    for part in ("boards", "micropython_mod", "tools"):
        shutil.copytree(os.path.join(ROOT, part), os.path.join(folder, part))
    shutil.copy(os.path.join(ROOT, "Makefile"), folder)
    return folder


def check_folders(above):
    """A folder's path that MicroPython's makefiles do not bear is refused, another one is not."""
    for sign in " '\"($#:,=%;&\\*é+~@^-.":
        said, content = make(copy(above, f"a{sign}b"), "help")
        assert content == (sign in "é+~@^-."), (sign, said)
        assert content or "This folder's path" in said, (sign, said)


def check_boards(above):
    """BOARD is one board."""
    folder = copy(above)
    for board in ("nix", "", "%", "unix rv32"):
        said, content = make(folder, f"BOARD={board}", "help")
        assert not content and f"There is no board '{board}'" in said, (board, said)


def check_tools(above):
    """`make test` asks at its start for all that it takes of cargo; a build does not ask for as much."""
    folder = copy(above)
    cargo = os.path.join(folder, "cargo")
    with open(cargo, "w") as file:
        file.write('#!/bin/sh\n[ "$1" != clippy ]\n')
    os.chmod(cargo, 0o755)
    said, content = make(folder, f"CARGO={cargo}", "test")
    assert not content and said.startswith("cargo clippy is missing"), said
    said, content = make(folder, f"CARGO={cargo}", "tools")
    assert content, said


def check_origin(above):
    """A build starts over if a makefile has changed that it may include, but not for a comment or a budget."""
    folder = copy(above)

    def origins():
        return [make(folder, f"BOARD={board}", "facts")[0].split("ORIGIN=")[1] for board in ("unix", "mps2-m3", "rp2")]

    before = origins()
    for path, line, changes in (("boards/qemu/common.mk", "# A comment", False), ("boards/linux/common.mk", "BUDGET = flash=1", False),
                                ("boards/qemu/common.mk", "CFLAGS += -DX", True), ("boards/quectel/Makefile", "CFLAGS += -DX", True),
                                ("micropython_mod/umqtt/micropython.mk", "CFLAGS += -DX", True)):
        with open(os.path.join(folder, path), "a") as file:
            file.write(line + "\n")
        after = origins()
        assert all((old != new) == changes for old, new in zip(before, after)), (path, line, before, after)
        before = after


def check_settings(above):
    """What is set for the C reaches its compiler."""
    folder = copy(above)
    with open(os.path.join(folder, "Makefile"), "w") as file:
        file.write("USERMOD_DIR = micropython_mod/umqtt\nBUILD = build\nall:\ninclude micropython_mod/umqtt/micropython.mk\n"
                   "all:\n\t@echo '$(subst ','\\'',$(CFLAGS_USERMOD))'\n")
    for name in ("UMQTT_THREADS", "UMQTT_THREAD_STACK", "UMQTT_STACK_UNIT"):
        said, content = make(folder, f"{name}=7", "all")
        assert content and said.split() == [f"-D{name}='(7)'"], said


def main():
    passed = failed = 0
    for check in (check_folders, check_boards, check_tools, check_origin, check_settings):
        name = check.__name__.removeprefix("check_")
        with tempfile.TemporaryDirectory() as above:
            try:
                check(above)
                print(f"ok   Makefile: {name}", flush=True)
                passed += 1
            except (AssertionError, LookupError, OSError) as error:
                print(f"FAIL Makefile: {name}: {type(error).__name__}: {error}", flush=True)
                failed += 1
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
