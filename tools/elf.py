"""What the module's objects are made of: symbols, attributes, sections, stack. From readelf's and objdump's output.

readelf reads ELF files of any machine; unlike nm, it has no plugin that takes an object with bitcode beside its code for
one without symbols.
"""

import re
import subprocess

PREFIX = {"ARM": "arm-none-eabi-", "RISC-V": "riscv64-unknown-elf-", "Advanced Micro Devices X86-64": ""}


def output(*command):
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, errors="replace").stdout


def machine(path):
    return re.search(r"Machine:\s*(.*)", output("readelf", "-h", path))[1].strip()


def attributes(path):
    """Tag to value, of the first file in it."""
    found = {}
    for name, value in re.findall(r"Tag_(\w+): (.*)", output("readelf", "-A", path)):
        found.setdefault(name, value.strip().strip('"'))
    return found


def symbols(path):
    """(value, size, type, binding, section, name) of each; section UND: it is needed, not there."""
    found = []
    for line in output("readelf", "-sW", path).splitlines():
        field = line.split()
        if len(field) >= 8 and field[0].endswith(":") and field[0][:-1].isdigit():
            found.append((int(field[1], 16), int(field[2], 0), field[3], field[4], field[6], field[7]))
    return found


def sections(path):
    """(name, size) of those that go into flash, in the order of the file."""
    found = []
    for line in output("readelf", "-SW", path).splitlines():
        field = re.match(r"\s*\[\s*\d+\] (\S+)\s+(PROGBITS|INIT_ARRAY)\s+\S+\s+\S+\s+(\S+)\s+\S+\s+(\S*A\S*)\s", line)
        if field:
            found.append((field[1], int(field[3], 16)))
    return found


def constant(path, name):
    """The number that a constant holds, which has a section of its own."""
    for prefix in (".rodata.", ".srodata."):
        if prefix + name in dict(sections(path)):
            dump = output("readelf", "-x", prefix + name, path)
            words = [word for line in re.findall(r"^  0x\w+ (.{35})", dump, re.M) for word in line.split()]
            return int.from_bytes(bytes.fromhex("".join(words)), "little")
    raise ValueError(f"{path} has no {name}")


def linked_sections(map_file, path):
    """Names of the object's sections that the link took, from the linker's map."""
    with open(map_file) as file:
        text = file.read()
    text = text[text.index("Linker script and memory map"):]
    # " .text.name  0x... 0x... object", on two lines if the name is long.
    return set(re.findall(r"^ (\.\S+)\s+0x(?!0+\s)[0-9a-f]+\s+0x[0-9a-f]+ " + re.escape(path) + r"$", text, re.M))


def flash(path, map_file=None):
    """Bytes of flash that the object takes: in the link that the map is of, or else all of it. Strings count in full,
    though the linker may find some of them elsewhere, too."""
    taken = linked_sections(map_file, path) if map_file else None
    if taken is not None and not taken:
        raise ValueError(f"{path} is not in {map_file}")
    return sum(size for name, size in sections(path)
               if taken is None or name in taken or re.match(r"\.s?rodata.*\.(str|cst)", name))


# How a function makes room on the stack: a pattern for the instruction, and the bytes it takes.
def registers(text):
    count = 0
    for first, last in re.findall(r"[rdsf]?(\w+)(?:-[rdsf]?(\d+))?", text):
        count += int(last) - int(first) + 1 if last else 1
    return count


GROWTH = {
    "ARM": [
        (r"(?:push(?:\.w)?|stmdb(?:\.w)?\s+sp!,|stmfd\s+sp!,)\s*\{(.*)\}", lambda m: 4 * registers(m[1])),
        (r"vpush\s*\{(.*)\}", lambda m: 8 * registers(m[1])),
        (r"sub(?:\.w|w)?\s+sp, (?:sp, )?#(\d+)", lambda m: int(m[1])),
        (r"str(?:d|\.w)?\s+.*\[sp, #-(\d+)\]!", lambda m: int(m[1])),
    ],
    "RISC-V": [(r"addi?\s+sp,sp,-(\d+)", lambda m: int(m[1]))],
    "Advanced Micro Devices X86-64": [
        (r"push\s", lambda m: 8), (r"call\s", lambda m: 0), (r"sub\s+\$0x(\w{1,8}),%rsp", lambda m: int(m[1], 16)),
    ],
}
# A stack pointer that moves by a register: nothing that this could add up.
UNKNOWN = r"sub(?:\.w|s)?\s+sp, (?:sp, )?r\d|sub\s+sp,sp,\w|sub\s+%\w+,%rsp"
# Relocations that are a call's; on x86-64 also through the linker's table.
CALLS = r"CALL|JUMP|JAL|PLT32|PC32|BRANCH|PREL31|GOTPCREL"
# On x86-64, a jump through a register is a switch's.
INDIRECT = r"blx\s+r\d|blx\s+(?:ip|lr)|bx\s+(?:r\d|ip)|jalr\s+(?!.*R_)(?:ra,)?\w+$|call\s+\*(?!.*\(%rip\))"


def rust_module(symbol):
    """The module of the crate that a mangled name is of."""
    found = re.search(r"5umqtt\d+([a-z]+)", symbol)
    return found and found[1]


def address_taken(path):
    """Functions that something in the object refers to, other than by calling them."""
    functions = {name for _, _, kind, _, _, name in symbols(path) if kind == "FUNC"}
    found = set()
    for line in output("readelf", "-rW", path).splitlines():
        relocation = re.match(r"[0-9a-f]+\s+[0-9a-f]+\s+(R_\S+)\s+[0-9a-f]+\s+(\S+)", line)
        if relocation and not re.search(CALLS, relocation[1]):
            found.add(re.sub(r"^\.text\.(unlikely\.)?", "", relocation[2]))
    return found & functions


class Stack:
    """Frames and calls of the functions of the engine and of the C shim. A call through a pointer: the shim's go into
    MicroPython, the engine's to a closure of the same module of Rust's, as far as its address is taken at all."""

    def __init__(self, engine, shim):
        self.frames, self.calls = {}, {}
        for path in shim:
            self.read(path)
        for calls in self.calls.values():
            calls.discard("*")
        self.read(engine)
        self.closures = {name for name in address_taken(engine) if name in self.frames}

    def read(self, path):
        kind = machine(path)
        name = None
        listing = output(PREFIX[kind] + "objdump", "-dr", "--no-show-raw-insn", path)
        for line in listing.splitlines():
            start = re.match(r"[0-9a-f]+ <(.+)>:", line)
            relocation = re.match(r"\s+[0-9a-f]+: (R_\S+)\s+(\S+?)([+-]0x[0-9a-f]+)?$", line)
            code = re.match(r"\s+[0-9a-f]+:\s+(.*)", line)
            if start:
                # $x and .L are marks inside a function.
                if not re.match(r"[$.]", start[1]):
                    name = start[1]
                    self.frames[name] = 8 if kind.endswith("64") else 0  # what a call itself pushes
                    self.calls[name] = set()
            elif relocation and name:
                if re.search(CALLS, relocation[1]):
                    self.calls[name].add(re.sub(r"^\.text\.(unlikely\.)?", "", relocation[2]))
            elif code and name:
                text = code[1].split(";")[0].split("@")[0].strip().replace("\t", " ")
                for pattern, size in GROWTH[kind]:
                    found = re.match(pattern, text)
                    if found:
                        self.frames[name] += size(found)
                if re.match(UNKNOWN, text):
                    raise ValueError(f"{name} in {path}: {text}")
                if re.match(INDIRECT, text):
                    self.calls[name].add("*")

    def depth(self, name, above=()):
        """Bytes from the entry of a function to the deepest point in these objects."""
        if name in above:
            raise ValueError("recursion: " + " -> ".join([*above, name]))
        if name not in self.frames:
            return 0  # MicroPython's, or the C library's
        calls = self.calls[name] - {name}
        if "*" in calls:
            calls |= {closure for closure in self.closures if rust_module(closure) == rust_module(name)}
        return self.frames[name] + max((self.depth(call, (*above, name)) for call in calls), default=0)
