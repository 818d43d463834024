"""Scripts as QuecPython's users write them, after its documentation and its examples."""

from harness import scenario


@scenario(tcp=True)
def the_example_of_the_documentation(t):
    m = t.mosquitto()
    mp = t.mp("""
        from umqtt import MQTTClient

        CLIENT_ID = b'umqtt_client'
        SERVER = HOST.encode()
        TOPIC = b'public/TEST/quecpython'
        state = 0

        def sub_cb(topic, msg):
            global state
            print("Subscribe Recv: Topic={},Msg={}".format(topic.decode(), msg.decode()))
            state = 1

        c = MQTTClient(CLIENT_ID, SERVER, PORT)
        c.set_callback(sub_cb)
        if c.connect() != 0:
            print("connect failed")
        c.subscribe(TOPIC)
        print("Connected to %s, subscribed to %s topic" % (SERVER, TOPIC))
        c.publish(TOPIC, b"my name is Quecpython!")
        print("Publish topic: %s, message: %s" % (TOPIC, "my name is Quecpython!"))
        while True:
            c.wait_msg()
            if state == 1:
                break
        c.disconnect()
    """, m)
    mp.expect(f"Connected to {t.target.HOST.encode()}, subscribed to b'public/TEST/quecpython' topic",
              "Publish topic: b'public/TEST/quecpython', message: my name is Quecpython!",
              "Subscribe Recv: Topic=public/TEST/quecpython,Msg=my name is Quecpython!")


@scenario(tcp=True)
def positional_arguments_and_a_qos_in_the_place_of_retain(t):
    m = t.mosquitto()
    mp = t.mp("""
        from usr.umqtt import MQTTClient
        c = MQTTClient("dev", HOST, PORT, "user", "password", keepalive=300)
        c.set_callback(lambda topic, msg: print(topic, msg))
        c.error_register_cb(lambda text: print(text))
        c.set_last_will("last", "will", False, 1)
        if c.connect(clean_session=True) == 0 and c.get_mqttsta() == 0:
            print("connected")
        c.subscribe("dev/in", 1)
        if not c.publish("dev/in", "hello", 1):
            print("publish failed")
        if not c.publish("dev/in", "again", False, 1):
            print("publish failed")
        c.wait_msg()
        c.wait_msg()
        c.publish("dev/in", "", 1)
        c.disconnect()
        print(c.get_mqttsta())
    """, m)
    mp.expect("connected", "b'dev/in' b'hello'", "b'dev/in' b'again'", "-1")


@scenario(threads=True)
def a_listening_thread_that_subscribes_from_its_callback(t):
    m = t.mosquitto()
    mp = t.mp("""
        import _thread
        class Mqtt:
            def __init__(self, client_id, server, port, user=None, password=None, keepalive=30):
                self.client = MQTTClient(client_id, server, port, user, password, keepalive=keepalive)
                self.client.set_callback(self.on_message)
                self.client.connect()
                self.client.subscribe("a")
                self.running = True
                self.ended = _thread.allocate_lock()
                self.ended.acquire()
            def on_message(self, topic, msg):
                print(topic, msg)
                if topic == b"a":
                    self.client.subscribe("b")
                    self.client.publish("b", "from the callback")
                else:
                    self.running = False
            def listen(self):
                while self.running:
                    self.client.wait_msg()
                self.ended.release()
            def start(self):
                _thread.stack_size(0x2000)
                _thread.start_new_thread(self.listen, ())
        m = Mqtt("c", HOST, PORT)
        m.start()
        m.client.publish("a", "go")
        m.ended.acquire()
        m.client.disconnect()
    """, m)
    mp.expect("b'a' b'go'", "b'b' b'from the callback'")


@scenario
def a_script_that_reconnects_by_itself(t):
    # with reconn=False: except OSError around wait_msg, then close, connect, subscribe
    m = t.mosquitto()
    mp = t.mp("""
        c = MQTTClient("c", HOST, PORT, reconn=False)
        c.set_callback(lambda topic, msg: print(topic, msg))
        def start():
            c.connect()
            c.subscribe("t", 1)
        start()
        print("started")
        rounds = 0
        while rounds < 2:
            try:
                c.wait_msg()
            except OSError:
                print("lost")
                sys.stdin.readline()
                c.close()
                while True:
                    try:
                        start()
                        break
                    except Exception as e:
                        time.sleep_ms(100)
                rounds += 1
                c.publish("t", "round %d" % rounds, qos=1)
        c.wait_msg()
        c.disconnect()
    """, m)
    mp.expect("started")
    for n in 1, 2:
        m.down()
        mp.expect("lost")
        m.up()
        mp.tell()
        if n == 1:
            mp.expect("b't' b'round 1'")
    mp.expect("b't' b'round 2'")


@scenario
def every_failure_of_connect_is_caught_by_value_error_and_exception(t):
    b = t.broker()
    b.down()
    mp = t.mp("""
        c = MQTTClient("c", HOST, PORT)
        for kind in ValueError, Exception, MQTTException:
            try:
                c.connect()
            except kind as e:
                print("connect failed")
    """, b)
    mp.expect(*["connect failed"] * 3)
