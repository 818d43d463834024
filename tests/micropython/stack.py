"""How much stack the internal thread and wait_msg take, measured by painting it: at most 4 KiB, without TLS."""

import os
import subprocess
import tempfile

from harness import scenario

SOURCE = os.path.join(os.path.dirname(__file__), "..", "stack", "paint.c")


@scenario(threads=True, tcp=True)
def four_kib_are_enough(t):
    with tempfile.TemporaryDirectory() as directory:
        paint = os.path.join(directory, "paint.so")
        subprocess.run(["cc", "-O1", "-shared", "-fPIC", "-o", paint, SOURCE, "-ldl"], check=True)
        port = t.mosquitto().port
        used = {}
        # A thread that calls nothing of ours tells what MicroPython takes by itself.
        for what, calls in ("nothing", "pass"), ("wait_msg", "c.wait_msg()"):
            mp = t.mp(f"""
                import _thread
                gc.disable()
                c = client(keepalive=1)
                c.set_callback(None)
                c.connect()
                c.subscribe("in", 2)
                def work():
                    {calls}
                _thread.start_new_thread(work, ())
                pause(100)
                c.publish("in", "m" * 1000, qos=2)
                hear()
                pause(2500)  # two pings
                c.disconnect()
                pause(500)
            """, port, environment={"LD_PRELOAD": paint, "LD_BIND_NOW": "1"})
            used[what] = int(mp.match(r"stack ([0-9]+)")[1])
            mp.tell()
            used["internal thread"] = int(mp.match(r"stack ([0-9]+)")[1])
            mp.finish()
    used["wait_msg"] -= used.pop("nothing")
    t.log("bytes of stack", used)
    print("    bytes of stack:", used)
    for what, size in used.items():
        t.between(size, 1, 4096, f"bytes of stack for {what}")
