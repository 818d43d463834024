"""How much stack the calls and the internal thread take, measured by painting it, without TLS."""

import os
import subprocess
import tempfile

import broker
import elf
from harness import scenario
from outage import HELPERS, Proxy

SOURCE = os.path.join(os.path.dirname(__file__), "..", "stack", "paint.c")


@scenario(threads=True, tcp=True)
def four_kib_are_enough(t):
    with tempfile.TemporaryDirectory() as directory:
        paint = os.path.join(directory, "paint.so")
        subprocess.run(["cc", "-O1", "-shared", "-fPIC", "-o", paint, SOURCE, "-ldl"], check=True)
        m = t.mosquitto()
        used = {}
        # A thread that calls nothing of ours tells what MicroPython takes by itself.
        for what, calls in ("nothing", "pass"), ("wait_msg", "c.wait_msg()"):
            proxy = t._part(Proxy(t, m.port))
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
                say("cut")
                until_state(c, 1)
                until_state(c, 0)
                c.publish("in", "m" * 1000, qos=2)
                c.disconnect()
                pause(500)
            """, proxy.port, HELPERS, environment={"LD_PRELOAD": paint, "LD_BIND_NOW": "1"})
            used[what] = int(mp.match(r"stack ([0-9]+)")[1])
            mp.tell()
            mp.expect("cut")
            proxy.cut("fin")
            used["internal thread"] = int(mp.match(r"stack ([0-9]+)")[1])
            mp.finish()
    used["wait_msg"] -= used.pop("nothing")
    t.log("bytes of stack", used)
    print("    bytes of stack:", used)
    for what, size in used.items():
        t.between(size, 1, 4096, f"bytes of stack for {what}")


@scenario(board=True, network=True)
def three_kib_are_enough_on_a_microcontroller(t):
    # with all that MicroPython and lwIP take below the call
    top = next(value for value, *_, name in elf.symbols(t.binary) if name == "_estack")
    mp, link, b = t.connected("""
        import micropython, uctypes
        paint = bytes([0xA5]) * 64
        def measure(f, *args):
            used = micropython.stack_use()
            stack = uctypes.bytearray_at(TOP - 32768, 32768 - used - 256)
            for at in range(0, len(stack) - 64, 64):
                stack[at:at + 64] = paint
            try:
                f(*args)
            except OSError:
                pass
            at = 0
            while stack[at] == 0xA5:
                at += 1
            return 32768 - at - used
        c.set_callback(None)
        nothing = measure(gc.mem_free)
        for what, f, *args in [
                ("QoS 0", c.publish, "t", "m"), ("QoS 1", c.publish, "t", "m", False, 1), ("QoS 2", c.publish, "t", "m", False, 2),
                ("subscribe", c.subscribe, "t"), ("wait_msg", c.wait_msg), ("check_msg", c.check_msg), ("close", c.close),
                ("connect", c.connect), ("disconnect", c.disconnect)]:
            say(what, measure(f, *args) - nothing)
    """, names={"TOP": top})
    used = {}

    def measured(what):
        used[what] = int(mp.match(f"{what} ([0-9]+)")[1])
    link.expect_publish("t", "m")
    measured("QoS 0")
    link.send(broker.puback(link.expect_publish("t", "m", qos=1)))
    measured("QoS 1")
    id = link.expect_publish("t", "m", qos=2)
    link.send(broker.pubrec(id))
    link.expect(broker.pubrel(id))
    link.send(broker.pubcomp(id))
    measured("QoS 2")
    link.send(broker.suback(link.expect_subscribe("t"), 0))
    measured("subscribe")
    link.send(broker.publish("t", "m", qos=2, id=5))
    link.expect(broker.pubrec(5))
    measured("wait_msg")
    measured("check_msg")
    link.expect_end()
    measured("close")
    link = b.welcome(session=True)
    for what in "connect", "disconnect":
        measured(what)
    link.expect(broker.DISCONNECT)
    print(f"    bytes of stack on {os.path.basename(os.path.dirname(t.binary))}:", used)
    for what, size in used.items():
        t.between(size, 1, 3072, f"bytes of stack for {what}")
