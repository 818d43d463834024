"""The constructor: every parameter, its defaults, and what is refused at once."""

import random

import broker
from harness import scenario


@scenario(tcp=True)
def positional_in_the_documented_order(t):
    b = t.broker()
    mp = t.mp("""
        c = MQTTClient("id", HOST, PORT, "user", "secret", 77, False, {}, False, 3, 2, True, 0)
        tell(c.connect)
        c.disconnect()
    """, b)
    link = b.welcome(client_id="id", version=3, keepalive=77, user="user", password="secret")
    mp.expect("0")
    link.expect(broker.DISCONNECT)


@scenario(tcp=True)
def by_keyword_in_any_order(t):
    b = t.broker()
    mp = t.mp("""
        c = MQTTClient(ipvtype=0, manage=True, pingmaxnum=3, version=3, reconn=False, ssl_params={}, ssl=False, keepalive=5,
                       password="secret", user="user", port=PORT, server=HOST, client_id="id")
        tell(c.connect)
        c.disconnect()
    """, b)
    link = b.welcome(client_id="id", version=3, keepalive=5, user="user", password="secret")
    mp.expect("0")
    link.expect(broker.DISCONNECT)


@scenario(unix=True, tcp=True)
def defaults(t):
    # port 0 means 1883: on a loopback address that nobody else uses
    host = f"127.{random.randint(2, 250)}.{random.randint(2, 250)}.{random.randint(2, 250)}"
    b = t.broker(host=host, port=1883)
    mp = t.mp("""
        for c in MQTTClient("id", SERVER), MQTTClient("id", SERVER, 0):
            tell(c.connect)
            c.disconnect()
    """, SERVER=host)
    for _ in range(2):
        link = b.welcome(client_id="id", version=4, clean=False, keepalive=60)
        mp.expect("0")
        link.expect(broker.DISCONNECT)


@scenario
def bytes_for_every_text(t):
    b = t.broker()
    mp = t.mp("""
        c = MQTTClient(b"id", HOST.encode(), PORT, b"user", b"\\x00\\xff\\xfe")
        tell(c.connect)
        c.disconnect()
    """, b)
    link = b.welcome(client_id="id", user="user", password=b"\x00\xff\xfe")  # a password is binary data
    mp.expect("0")
    link.expect(broker.DISCONNECT)


@scenario
def texts_beyond_ascii_go_as_utf8(t):
    b = t.broker()
    mp = t.mp("""
        c = MQTTClient("gerät", HOST, PORT, "bücher", "geheimnis€")
        tell(c.connect)
        c.disconnect()
    """, b)
    link = b.welcome(client_id="gerät", user="bücher", password="geheimnis€")
    mp.expect("0")
    link.expect(broker.DISCONNECT)


@scenario
def none_and_empty_credentials_are_absent(t):
    b = t.broker()
    cases = [("None", "None"), ('""', '""'), ('b""', 'b""'), ("None", '""'), ('""', "None")]
    mp = t.mp(f"""
        for user, password in [{', '.join(f'({u}, {p})' for u, p in cases)}, ("u", None), ("u", "")]:
            c = MQTTClient("c", HOST, PORT, user, password)
            tell(c.connect)
            c.disconnect()
    """, b)
    for user in [None] * len(cases) + ["u", "u"]:
        link = b.welcome(user=user)
        mp.expect("0")
        link.expect(broker.DISCONNECT)


@scenario(unix=True)
def extremes_that_are_allowed(t):
    b = t.broker()
    mp = t.mp("""
        long = "x" * 65535
        for kw in dict(client_id="", keepalive=1), dict(client_id=long, keepalive=65535), \\
                  dict(client_id="c", user=long, password=long), dict(client_id="", version=3, keepalive=0):
            c = MQTTClient(server=HOST, port=PORT, **kw)
            tell(c.connect, True)
            c.disconnect()
    """, b, heap="8m")
    long = "x" * 65535
    for fields in (dict(client_id="", keepalive=1), dict(client_id=long, keepalive=65535),
                   dict(client_id="c", user=long, password=long), dict(client_id="", version=3, keepalive=0)):
        link = b.welcome(clean=True, **fields)
        mp.expect("0")
        link.expect(broker.DISCONNECT)


WRONG = """
TypeError  client_id  client_id=1
TypeError  client_id  client_id=None
TypeError  client_id  client_id=["c"]
TypeError  server     server=None
TypeError  server     server=1
TypeError  port       port="1883"
TypeError  port       port=None
TypeError  port       port=1883.5
TypeError  user       user=5
TypeError  user       user=["u"]
TypeError  password   user="u", password=5
TypeError  keepalive  keepalive="60"
TypeError  keepalive  keepalive=None
TypeError  keepalive  keepalive=1.5
TypeError  version    version="4"
TypeError  version    version=None
TypeError  ssl_params ssl_params=5
TypeError  pingmaxnum pingmaxnum="1"
TypeError  ipvtype    ipvtype="0"
ValueError client_id  client_id="x" * 65536
ValueError client_id  client_id="ü" * 32768
ValueError server     server=""
ValueError server     server=b""
ValueError server     server="x" * 65536
ValueError port       port=-1
ValueError port       port=65536
ValueError port       port=1 << 70
ValueError user       user="x" * 65536
ValueError password   user="u", password="x" * 65536
ValueError password   password="p"
ValueError password   user="", password="p"
ValueError keepalive  keepalive=-1
ValueError keepalive  keepalive=65536
ValueError keepalive  keepalive=1 << 70
ValueError version    version=0
ValueError version    version=2
ValueError version    version=5
ValueError version    version=-4
ValueError pingmaxnum pingmaxnum=-1
ValueError ipvtype    ipvtype=2
ValueError ipvtype    ipvtype=-1
"""


@scenario(unix=True)
def wrong_values_raise_at_once_and_name_the_parameter(t):
    cases = [line.split(None, 2) for line in WRONG.strip().splitlines()]
    script = "good = dict(client_id='c', server=HOST, port=1)\n"
    for _, _, arguments in cases:
        script += f"tell(lambda: MQTTClient(**dict(good, **dict({arguments}))))\n"
    mp = t.mp(script, heap="8m")
    for kind, name, arguments in cases:
        t.log("case", arguments)
        mp.match(f"{kind} .*\\b{name}\\b.*")


@scenario
def missing_and_unknown_parameters(t):
    mp = t.mp("""
        tell(lambda: MQTTClient())
        tell(lambda: MQTTClient("c"))
        tell(lambda: MQTTClient("c", HOST, colour="red"))
        tell(lambda: MQTTClient("c", HOST, client_id="d"))
        tell(lambda: MQTTClient("c", HOST, 0, None, None, 60, False, {}, True, 4, 0, False, 0, 1))
    """)
    for _ in range(5):
        mp.match("TypeError .*")


@scenario(tcp=True)
def ssl_params_may_be_a_dict_or_text(t):
    mp = t.mp("""
        for value in {}, "text", b"text":
            tell(lambda: MQTTClient("c", HOST, ssl_params=value) and "fine")
    """)
    mp.expect(*["'fine'"] * 3)


@scenario(unix=True)
def ipv6(t):
    b = t.broker(host="::1")
    mp = t.mp("""
        c = MQTTClient("c", "::1", PORT, ipvtype=1)
        tell(c.connect)
        c.disconnect()
    """, b)
    link = b.welcome()
    mp.expect("0")
    link.expect(broker.DISCONNECT)


@scenario(unix=True)
def ipv4_is_asked_for_by_default(t):
    b = t.broker()
    mp = t.mp("""
        c = MQTTClient("c", "localhost", PORT)
        tell(c.connect)
        c.disconnect()
    """, b)
    link = b.welcome()
    mp.expect("0")
    link.expect(broker.DISCONNECT)


@scenario
def attributes_are_not_invented(t):
    mp = t.mp("""
        c = MQTTClient("c", HOST)
        names = ("set_callback error_register_cb set_last_will connect disconnect close ping publish subscribe unsubscribe "
                 "check_msg wait_msg get_mqttsta").split()
        say([n for n in names if not callable(getattr(c, n, None))])
        try:
            c.nonsense
        except AttributeError:
            say("AttributeError")
    """)
    mp.expect("[]", "AttributeError")
