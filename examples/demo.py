# What umqtt does, on one page: connect, subscribe, publish with each quality of service, receive, disconnect.
#
# `make demo` runs it with a broker of its own. Against a broker of yours on this machine:
#   build/unix/micropython examples/demo.py

import os
import sys
import time
from umqtt import MQTTClient

SERVER = "127.0.0.1"
PORT = int(os.getenv("MQTT_PORT") or 1883)
TOPIC = "umqtt/demo"
QOS = ("at most once", "at least once", "exactly once")

received = []


def on_message(topic, msg):
    print('  received "%s" on the topic "%s"' % (msg.decode(), topic.decode()))
    received.append(msg.decode())


def fail(why):
    print("Failed: " + why)
    sys.exit(1)


print("Connecting to the MQTT broker at %s, port %d." % (SERVER, PORT))
client = MQTTClient("umqtt-demo", SERVER, PORT)
client.set_callback(on_message)
client.connect(clean_session=True)

print('Subscribing to the topic "%s": the broker will send us whatever is published there.' % TOPIC)
client.subscribe(TOPIC, qos=2)

sent = []
for qos in range(3):
    msg = "Hello with QoS %d" % qos
    print('Publishing "%s": it arrives %s.' % (msg, QOS[qos]))
    if not client.publish(TOPIC, msg, qos=qos):
        fail("the broker did not take it")
    sent.append(msg)

print("Waiting for the broker to send all three back.")
deadline = time.ticks_add(time.ticks_ms(), 10_000)
while len(received) < len(sent) and time.ticks_diff(deadline, time.ticks_ms()) > 0:
    client.check_msg()
    time.sleep_ms(10)

print("Disconnecting.")
client.disconnect()

if received != sent:
    fail("sent %s, but received %s" % (sent, received))
print("Done: three messages went to the broker and came back.")
