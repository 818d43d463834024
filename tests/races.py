"""Runs a script with many threads on one client, through outages, under Helgrind, and fails if it reports a race in our code.

    make STRIP= && python3 tests/races.py build/unix/micropython

The names of functions are needed, so the binary must not be stripped; `valgrind` and `mosquitto` must be installed.
MicroPython without a GIL has races of its own, which are counted and left alone. Not part of `make test`: it takes minutes.
"""

import glob
import os
import re
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(os.path.dirname(HERE), "tools")]
import elf  # noqa: E402
import harness  # noqa: E402
import outage  # noqa: E402

SCRIPT = """
import _thread, time
from umqtt import MQTTClient
c = MQTTClient("races", "127.0.0.1", PORT, keepalive=1)
c.set_callback(lambda topic, msg: None)
c.connect()
c.subscribe("races/#", 2)
ended = 0

def wait():
    global ended
    try:
        while True:
            c.wait_msg()
    except OSError:
        ended += 1

def publish(qos):
    global ended
    for n in range(40):
        c.publish("races/%d" % qos, "m" * 50, qos=qos)
        c.get_mqttsta()
    ended += 1

_thread.start_new_thread(wait, ())
for qos in (0, 1, 2):
    _thread.start_new_thread(publish, (qos,))

def cut():
    print("cut")
    while c.get_mqttsta() == 0:
        time.sleep_ms(20)

for _ in range(2):
    time.sleep_ms(500)
    cut()
    while c.get_mqttsta() != 0:
        time.sleep_ms(20)
while ended < 3:
    time.sleep_ms(20)
time.sleep_ms(3000)
failing = MQTTClient("failing", "127.0.0.1", PORT, reconn=False)
told = []
failing.error_register_cb(told.append)
failing.connect()
cut()
while not told:
    time.sleep_ms(20)
c.close()
while ended < 4:
    time.sleep_ms(20)
c.connect()
c.publish("races", "m", qos=1)
c.disconnect()
time.sleep_ms(500)
print("done")
"""


def our_functions(binary):
    """Names in our objects; Rust's begin with the name of the crate."""
    folder = os.path.dirname(os.path.abspath(binary))
    objects = [*glob.glob(f"{folder}/umqtt/*.o"), f"{folder}/umqtt-engine/engine.o"]
    return {name for path in objects for *_, kind, _, section, name in elf.symbols(path) if kind == "FUNC" and section != "UND"}


def main(binary):
    test = harness.Test(binary, 600)
    proxy = test._part(outage.Proxy(test, test.mosquitto().port))
    with tempfile.NamedTemporaryFile("w", suffix=".py") as script, tempfile.NamedTemporaryFile("r") as log:
        script.write(SCRIPT.replace("PORT", str(proxy.port)))
        script.flush()
        running = subprocess.Popen(["timeout", "600", "valgrind", "--tool=helgrind", f"--log-file={log.name}", binary,
                                    script.name], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        said = []
        for line in running.stdout:
            said.append(line)
            if line == "cut\n":
                proxy.cut("fin")
        reports = re.split(r"==\d+== -{60,}\n", log.read())
    test.close()
    if said[-1:] != ["done\n"]:
        sys.exit("the script failed: " + "".join(said))
    races = [report for report in reports if "Possible data race" in report]
    # The place of the access, and of the one that it conflicts with. The queue of the lock is one atomic byte, which
    # Helgrind does not know.
    places = [(report, re.findall(r"==    at 0x\w+: (.*)", report)[:2]) for report in races]
    functions = our_functions(binary)

    def is_ours(place):
        name = place.split(" (")[0].split(".")[0]
        return name in functions or re.match("<?umqtt", name)

    ours = [report for report, at in places if any(map(is_ours, at)) and not all("port_lock" in place for place in at)]
    print(*ours, sep="\n")
    print(f"{len(ours)} races in our code, {len(races) - len(ours)} in MicroPython")
    sys.exit(1 if ours else 0)


if __name__ == "__main__":
    main(sys.argv[1])
