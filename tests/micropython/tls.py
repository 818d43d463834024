"""TLS: what is verified, what is refused and in which words, handshakes that hang, records in pieces, both ways at once."""

import contextlib
import functools
import os
import random
import socket
import ssl
import threading
import time

import broker
import endurance
import tls
from harness import scenario as plain_scenario
from outage import HELPERS, eventually, library, small_buffers, tick

NAME = tls.NAME
scenario = functools.partial(plain_scenario, unix=True, tcp=True)

# Connects and says what came of it: 0, or the exception, the text behind the address, and the state
TRY = '''
def attempt(*args, **kw):
    c = MQTTClient("c", *args, ssl=kw.pop("ssl", True), **kw)
    t0 = time.ticks_ms()
    try:
        say(c.connect())
        c.disconnect()
    except MQTTException as e:
        where = "%s:%d: " % args
        say(words(e), e.args[1].replace(where, ""), c.get_mqttsta())
    return time.ticks_diff(time.ticks_ms(), t0)
'''

REFUSED = "server refused the connection: maybe it wants a client certificate, or another one"
CLOSED = "server closed the connection: maybe it does not speak TLS at this port"


def failed(text):
    return f"MQTTException -EPROTO TLS handshake failed: {text} -1"


def served(b):
    """A whole visit of a client that connects and disconnects."""
    link = b.welcome()
    link.expect(broker.DISCONNECT)
    link.expect_end()


def turned_away(t, b, context):
    """A handshake that the client or this server breaks off."""
    link = b.accept()
    link.strict = False
    try:
        tls.Server(link.sock, context).handshake()
    except OSError as error:
        t.log(link.name, repr(error))
    else:
        while link._fill(5):
            pass
        t.equal(link._fill(0), False, "the end of the connection")
    link.sock.close()


# --- what is verified

@scenario
def a_certificate_has_to_be_trusted_and_in_date_and_for_this_host(t):
    b = t.broker()
    cases = [
        ("server", tls.text("other"), NAME, "certificate not trusted"),
        ("server", tls.text("rsa-ca"), NAME, "certificate not trusted"),
        ("rsa", tls.text("ca"), NAME, "certificate not trusted"),
        ("expired", tls.text("ca"), NAME, "certificate expired"),
        ("stranger", tls.text("ca"), NAME, "wrong host name: the certificate is not for this one"),
        ("server", tls.text("ca"), "local", "wrong host name: the certificate is not for this one"),
        ("server", tls.text("ca"), "x." + NAME, "wrong host name: the certificate is not for this one"),
        ("weak", tls.text("ca"), NAME, "The certificate is signed with an unacceptable key (eg bad curve, RSA too short)."),
        ("stranger", tls.text("other"), NAME, "certificate not trusted, wrong host name: the certificate is not for this one"),
    ]
    mp = t.mp("""
        for ca, name in CASES:
            attempt(HOST, PORT, ssl_params={"ca": ca, "server_hostname": name})
    """, b, TRY, CASES=[case[1:3] for case in cases])
    for certificate, _, name, text in cases:
        t.log("case", f"{certificate} {name}")
        turned_away(t, b, tls.context(certificate))
        mp.expect(failed(text))


@scenario
def a_ca_in_every_shape(t):
    m = t.mosquitto(over_tls=True)
    mp = t.mp("""
        name = {"server_hostname": NAME}
        for ca in PEM, PEM.encode(), DER, OTHER + PEM:
            for key in "ca", "cadata":
                attempt(HOST, PORT, ssl_params=dict(name, **{key: ca}))
                attempt(HOST, PORT, ssl_params=dict(name, cert_reqs=2, **{key: ca}))
            attempt(NAME, PORT, ssl_params={"ca": ca})
            attempt(NAME, PORT, ssl_params=ca)
        attempt(HOST, PORT, ssl_params=dict(name, ca=b"", cadata=PEM, cert=None, key=""))
        attempt(HOST, PORT, ssl_params={"ca": PEM, "server_hostname": NAME.encode()})
    """, m, TRY, NAME=NAME, PEM=tls.text("ca"), DER=tls.der("ca"), OTHER=tls.text("other"))
    mp.expect(*["0"] * 26)


@scenario
def without_a_ca_nothing_is_verified(t):
    b = t.broker()
    names = "server", "expired", "stranger", "rsa"
    mp = t.mp("""
        for _ in range(4):
            for kw in {}, {"ssl_params": None}, {"ssl_params": {"cert_reqs": 0}}, {"ssl_params": {"cert_reqs": 1, "ca": None}}, \\
                      {"ssl": 1, "ssl_params": b""}:
                attempt(HOST, PORT, **kw)
    """, b, TRY)
    for name in names:
        b.tls = tls.context(name)
        for _ in range(5):
            served(b)
            mp.expect("0")


@scenario
def client_certificates_in_every_shape(t):
    m = t.mosquitto("require_certificate true", over_tls=True)
    mp = t.mp("""
        for cert in CERT, CERT.encode(), CERT_DER:
            for key in KEY, KEY.encode(), KEY_DER:
                attempt(HOST, PORT, ssl_params={"ca": CA, "server_hostname": NAME, "cert": cert, "key": key})
        attempt(HOST, PORT, ssl_params={"cert": CERT, "key": KEY})
        attempt(HOST, PORT, ssl_params={"ca": CA, "server_hostname": NAME})
        attempt(HOST, PORT, ssl_params={"ca": CA, "server_hostname": NAME, "cert": WRONG, "key": WRONG_KEY})
        attempt(HOST, PORT, ssl_params={"ca": CA, "server_hostname": NAME, "cert": CERT, "key": KEY})
    """, m, TRY, NAME=NAME, CA=tls.text("ca"), CERT=tls.text("client"), KEY=tls.key("client"), CERT_DER=tls.der("client"),
              KEY_DER=tls.key_der("client"), WRONG=tls.text("impostor"), WRONG_KEY=tls.key("impostor"))
    mp.expect(*["0"] * 10, failed(REFUSED), failed(REFUSED), "0")


@scenario
def an_rsa_client_certificate(t):
    b = t.broker(tls=tls.context("rsa", verify="rsa-ca"))
    mp = t.mp("attempt(HOST, PORT, ssl_params=PARAMS)", b, TRY, PARAMS={
        "ca": tls.text("rsa-ca"), "server_hostname": NAME, "cert": tls.text("rsa-client"), "key": tls.key("rsa-client")})
    served(b)
    mp.expect("0")


WRONG = """
ValueError cert_reqs       ssl_params={"ca": CA, "server_hostname": "a.b", "cert_reqs": 0}
ValueError cert_reqs       ssl_params={"cert_reqs": 2}
ValueError cert_reqs       ssl_params={"cert_reqs": 2, "ca": ""}
ValueError cert_reqs       ssl_params={"cert_reqs": 3}
ValueError cert_reqs       ssl_params={"cert_reqs": -1}
ValueError server_hostname ssl_params={"ca": CA}
ValueError server_hostname ssl_params=CA
ValueError server_hostname ssl_params=CA, server="::1"
ValueError server_hostname ssl_params={"server_hostname": "10.0.0.1"}
ValueError server_hostname ssl_params={"server_hostname": "::1"}
ValueError server_hostname ssl_params={"server_hostname": b"\\xff"}
ValueError server_hostname ssl_params={"server_hostname": "a\\0b"}
ValueError server_hostname ssl=tls.SSLContext(tls.PROTOCOL_TLS_CLIENT)
ValueError ssl_params      ssl=context(), ssl_params={"ca": CA, "server_hostname": "a.b"}
ValueError ssl_params      ssl=context(), ssl_params={"cert": CERT, "key": KEY}
ValueError ssl_params      ssl=context(), ssl_params={"cert_reqs": 0}
ValueError ssl_params      ssl=context(), ssl_params="text"
ValueError ssl_params      ssl_params={"cert": CERT}
ValueError ssl_params      ssl_params={"key": KEY}
ValueError ssl_params      ssl_params={"cacert": CA}
ValueError ssl_params      ssl_params={"ca": CA, "server_hostname": "a.b", "Cert_reqs": 2}
TypeError  ssl_params      ssl_params=5
TypeError  ssl_params      ssl_params=["ca"]
TypeError  ca              ssl_params={"ca": 5}
TypeError  cadata          ssl_params={"cadata": bytearray(5)}
TypeError  cert            ssl_params={"cert": 5, "key": KEY}
TypeError  key             ssl_params={"cert": CERT, "key": 5}
TypeError  server_hostname ssl_params={"server_hostname": 5}
TypeError  cert_reqs       ssl_params={"cert_reqs": "2"}
TypeError  ssl             ssl="yes"
TypeError  ssl             ssl={"ca": CA}
"""


@scenario
def wrong_parameters_raise_at_once_and_are_named(t):
    cases = [line.split(None, 2) for line in WRONG.strip().splitlines()]
    script = """import tls
def context():
    made = tls.SSLContext(tls.PROTOCOL_TLS_CLIENT)
    made.verify_mode = tls.CERT_NONE
    return made
good = dict(client_id="c", server=HOST, port=1, ssl=True)
"""
    for _, _, arguments in cases:
        script += f"tell(lambda: MQTTClient(**dict(good, **dict({arguments}))))\n"
    mp = t.mp(script, CA=tls.text("ca"), CERT=tls.text("client"), KEY=tls.key("client"))
    for kind, name, arguments in cases:
        t.log("case", arguments)
        mp.match(f"{kind} .*\\b{name}\\b.*")


@scenario
def a_module_with_contexts_that_cannot_verify(t):
    # as MicroPython's over axTLS
    b = t.broker(tls=tls.context())
    mp = t.mp("""
        import tls
        class Context:
            def __init__(self, protocol):
                self.verify_mode = None
            def load_cert_chain(self, cert, key):
                say("load_cert_chain", cert, key)
            def wrap_socket(self, sock, **kw):
                say("verify_mode", self.verify_mode)
                context = tls.SSLContext(tls.PROTOCOL_TLS_CLIENT)
                context.verify_mode = tls.CERT_NONE
                return context.wrap_socket(sock, **kw)
        class Module:
            SSLContext, PROTOCOL_TLS_CLIENT, CERT_NONE = Context, 0, 0
        sys.modules["tls"] = Module
        for params in {"ca": CA}, CA, {"cadata": CA, "cert_reqs": 2}:
            tell(lambda: MQTTClient("c", NAME, 1, ssl=True, ssl_params=params))
        Module.CERT_REQUIRED = 2
        tell(lambda: MQTTClient("c", NAME, 1, ssl=True, ssl_params=CA))
        attempt(HOST, PORT)
        attempt(HOST, PORT, ssl_params={"cert": b"CERT", "key": b"KEY"})
    """, b, TRY, NAME=NAME, CA=tls.text("ca"))
    for _ in range(4):
        mp.match("ValueError .*ca.* cannot verify .*")
    for lines in ["verify_mode 0"], ["load_cert_chain b'CERT' b'KEY'", "verify_mode 0"]:
        served(b)
        mp.expect(*lines, "0")


@scenario
def what_is_no_certificate_is_refused_at_once(t):
    mp = t.mp("""
        name = {"server_hostname": NAME}
        for params in {"ca": "rubbish"}, {"ca": b"\\x30\\x82\\x01"}, {"ca": CA[:200]}, {"ca": CA[:-40]}, {"ca": KEY}, \\
                      {"cert": CERT, "key": "rubbish"}, {"cert": "rubbish", "key": KEY}, {"cert": KEY, "key": CERT}:
            try:
                MQTTClient("c", HOST, 1, ssl=True, ssl_params=dict(name, **params))
            except MQTTException as e:
                say(words(e), e.args[1])
    """, NAME=NAME, CA=tls.text("ca"), CERT=tls.text("client"), KEY=tls.key("client"))
    mp.expect(*["MQTTException -EPROTO ssl_params: ca: no certificate in PEM or DER"] * 5)
    mp.expect(*["MQTTException -EPROTO ssl_params: cert, key: no certificate with its key in PEM or DER"] * 3)


@scenario
def without_ssl_the_parameters_change_nothing(t):
    b = t.broker()
    mp = t.mp("""
        for ssl in False, 0, None:
            attempt(HOST, PORT, ssl=ssl, ssl_params={"ca": CA, "cert_reqs": 2})
    """, b, TRY, CA=tls.text("ca"))
    for _ in range(3):
        served(b)
        mp.expect("0")


@scenario
def port_0_means_8883(t):
    host = f"127.{random.randint(2, 250)}.{random.randint(2, 250)}.{random.randint(2, 250)}"
    b = t.broker(host=host, port=8883, tls=tls.context())
    mp = t.mp("""
        import tls
        context = tls.SSLContext(tls.PROTOCOL_TLS_CLIENT)
        context.verify_mode = tls.CERT_NONE
        for ssl in True, context:
            attempt(SERVER, 0, ssl=ssl)
    """, None, TRY, SERVER=host)
    for _ in range(2):
        served(b)
        mp.expect("0")


@scenario
def the_server_is_asked_for_by_name_and_never_by_address(t):
    asked = []
    context = tls.context()
    context.sni_callback = lambda connection, name, context: asked.append(name)
    b, six = t.broker(tls=context), t.broker(host="::1", tls=context)
    mp = t.mp("""
        import tls
        context = tls.SSLContext(tls.PROTOCOL_TLS_CLIENT)
        context.verify_mode = tls.CERT_NONE
        for ssl in True, context:
            attempt(NAME, PORT, ssl=ssl)
            attempt(NAME.encode(), PORT, ssl=ssl)
            attempt(HOST, PORT, ssl=ssl)
            attempt(HOST, PORT, ssl=ssl, ssl_params={"server_hostname": "one.example"})
            attempt(NAME, PORT, ssl=ssl, ssl_params={"server_hostname": b"two.example"})
            attempt("::1", SIX, ssl=ssl, ipvtype=1)
    """, b, TRY, NAME=NAME, SIX=six.port)
    for _ in range(2):
        for at in b, b, b, b, b, six:
            served(at)
            mp.expect("0")
    t.equal(asked, [NAME, NAME, None, "one.example", "two.example", None] * 2, "names that the server was asked for")


@scenario
def a_ready_made_context(t):
    b = t.broker(tls=tls.context(verify="ca"))
    mp = t.mp("""
        import tls
        context = tls.SSLContext(tls.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(CA)
        context.load_cert_chain(CERT, KEY)
        attempt(NAME, PORT, ssl=context)
        attempt(HOST, PORT, ssl=context, ssl_params={"server_hostname": NAME})
        class SSLContext:  # as in micropython-lib's ssl
            def __init__(self, context):
                self.context = context
            verify_mode = property(lambda self: self.context.verify_mode)
            def wrap_socket(self, sock, server_side=False, do_handshake_on_connect=True, server_hostname=None):
                return self.context.wrap_socket(sock, server_side=server_side, do_handshake_on_connect=do_handshake_on_connect,
                                                server_hostname=server_hostname)
        attempt(NAME, PORT, ssl=SSLContext(context))
        tell(lambda: MQTTClient("c", HOST, PORT, ssl=SSLContext(context)))
        seen = []
        def look(certificate, depth):
            seen.append(depth)
            return 0
        context.verify_callback = look
        attempt(NAME, PORT, ssl=context)
        say(seen)
        def refuse(certificate, depth):
            raise RuntimeError("not this one")
        context.verify_callback = refuse
        attempt(NAME, PORT, ssl=context)
        context.verify_callback = None
        attempt(HOST, PORT, ssl=context, ssl_params={"server_hostname": "else.where"})
        attempt(NAME, PORT, ssl=context)
    """, b, TRY, NAME=NAME, CA=tls.text("ca"), CERT=tls.text("client"), KEY=tls.key("client"))
    for _ in range(3):
        served(b)
        mp.expect("0")
    mp.match("ValueError .*server_hostname.*")
    served(b)
    mp.expect("0", "[1, 0]")
    context, b.tls = b.tls, None
    turned_away(t, b, context)
    mp.expect(failed("not this one"))
    turned_away(t, b, context)
    mp.expect(failed("wrong host name: the certificate is not for this one"))
    b.tls = context
    served(b)
    mp.expect("0")


@scenario
def a_module_that_has_wrap_socket_only(t):
    # As QuecPython's ussl: what it cannot do is refused, the rest goes to it.
    b = t.broker(tls=tls.context())
    mp = t.mp("""
        import tls
        class Ussl:
            @staticmethod
            def wrap_socket(sock, **kw):
                say("wrap_socket", sorted(kw), kw.get("do_handshake"), kw.get("server_hostname"), kw.get("cert"), kw.get("key"))
                context = tls.SSLContext(tls.PROTOCOL_TLS_CLIENT)
                context.verify_mode = tls.CERT_NONE
                return context.wrap_socket(sock, server_hostname=kw.get("server_hostname"), do_handshake_on_connect=False)
        for name in "tls", "ssl":
            class Nothing: pass
            sys.modules[name] = Nothing
        tell(lambda: MQTTClient("c", NAME, 1, ssl=True))
        sys.modules["ussl"] = Ussl
        for params in {"ca": CA}, CA, {"cadata": CA, "cert_reqs": 2}, {"cert_reqs": 2}:
            tell(lambda: MQTTClient("c", NAME, 1, ssl=True, ssl_params=params))
        attempt(HOST, PORT)
        attempt(NAME, PORT, ssl_params={"cert": b"CERT", "key": b"KEY"})
    """, b, TRY, NAME=NAME, CA=tls.text("ca"))
    mp.match("NotImplementedError ssl: no TLS module .*")
    for _ in range(3):
        mp.match("ValueError .*ca.* cannot verify .*")
    mp.match("ValueError .*cert_reqs.*")
    mp.expect("wrap_socket ['do_handshake'] False None None None")
    served(b)
    mp.expect("0", f"wrap_socket ['cert', 'do_handshake', 'key', 'server_hostname'] False {NAME} b'CERT' b'KEY'")
    served(b)
    mp.expect("0")


# --- handshakes that fail

@scenario
def a_server_that_does_not_speak_tls(t):
    b = t.broker()
    rubbish = [b"HTTP/1.1 400 Bad Request\r\n\r\n", bytes(4096), b"\xff" * 4096, broker.connack() * 2, b"\x16\x03\x03\xff\xff" + bytes(70000),
               b"\x16\x03\x03\x00\x04\x02\x00\x00\x00", b"\x17\x03\x03\x00\x05abcde"]
    mp = t.mp("""
        for _ in range(N):
            say("quick" if attempt(HOST, PORT, ssl_params={"ca": CA, "server_hostname": NAME}) < 2000 else "slow")
    """, b, TRY, N=len(rubbish) + 6, NAME=NAME, CA=tls.text("ca"))
    for raw in rubbish:
        link = silent(t, b)
        try:
            link.send(raw)
        except ConnectionError:
            pass  # it has seen enough
        mp.match("MQTTException -EPROTO TLS handshake failed: SSL - .* -1")
        mp.expect("quick")
    # closed, reset; at once, and when the client has said something
    for end in "fin", "rst", "close":
        for late in False, True:
            link = b.accept()
            link.strict = False
            if late:
                link._need(1, t.until(5))
            getattr(link, end)()
            if end == "rst" and not late:
                mp.match(failed(CLOSED) + r"|MQTTException -ECONN(RESET|REFUSED) TCP connection failed \(errno 1(04|11)\) -1")
            else:
                mp.expect(failed(CLOSED))
            mp.expect("quick")


@scenario
def a_server_that_breaks_the_handshake_off(t):
    # after each of the bytes of its part
    b = t.broker()
    cuts = [*range(1, 700, 61), 5, -1]
    mp = t.mp("""
        for _ in range(N):
            attempt(HOST, PORT, ssl_params={"ca": CA, "server_hostname": NAME})
        say("done")
    """, b, TRY, N=2 * len(cuts), NAME=NAME, CA=tls.text("ca"))
    for end in "fin", "rst":
        for cut in cuts:
            link = silent(t, b)
            link.send(flight(link)[:cut])
            link.taken()
            getattr(link, end)()
            mp.expect(failed(CLOSED))
    mp.expect("done")


def flight(link):
    """What a server would answer to this client's ClientHello."""
    server = tls.Server(link.sock, tls.context())
    server.incoming.write(bytes(link.buffer))
    server._step(server.tls.do_handshake)
    return server.outgoing.read()


@scenario
def a_server_that_says_all_it_has_to_say_and_closes(t):
    # what the client then writes fails at the second or third piece
    b = t.broker()
    mp = t.mp("""
        for _ in range(20):
            attempt(HOST, PORT, ssl_params={"ca": CA, "server_hostname": NAME})
    """, b, TRY, NAME=NAME, CA=tls.text("ca"))
    for _ in range(20):
        link = silent(t, b)
        link.send(flight(link))
        link.close()
        mp.expect(failed(CLOSED))


@scenario
def why_a_server_refuses(t):
    # as far as its alert tells
    b = t.broker()
    mp = t.mp("""
        attempt(HOST, PORT)
        attempt(HOST, PORT, ssl_params={"cert": CERT, "key": KEY})
        attempt(HOST, PORT, ssl_params={"cert": CERT, "key": OTHER})
    """, b, TRY, CERT=tls.text("client"), KEY=tls.key("client"), OTHER=tls.key("impostor"))
    newest, ours, theirs = tls.context(), tls.context(verify="ca"), tls.context(verify="other")
    newest.minimum_version = ssl.TLSVersion.TLSv1_3
    for context, text in ((newest, "server wants another version of TLS"), (theirs, REFUSED),
                          (ours, "server refused the client's signature: maybe the key is not that of the certificate")):
        turned_away(t, b, context)
        mp.expect(failed(text))


@scenario
def nothing_older_than_tls_1_1(t):
    # mbedTLS 2.28 would; its records of one byte each would not go well with short writes
    context = tls.context("rsa")
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version, context.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1
    b = t.broker()
    mp = t.mp("attempt(HOST, PORT)", b, TRY)
    turned_away(t, b, context)
    mp.expect(failed("server speaks no later version than TLS 1.0"))


@scenario
def failed_handshakes_leave_no_descriptor(t):
    b = t.broker()
    mp = t.mp("""
        c = MQTTClient("c", HOST, PORT, ssl=True, ssl_params={"ca": CA, "server_hostname": NAME})
        for n in range(48):
            outcome(c.connect)
            if n in (7, 47):
                gc.collect()
                say("count")
                hear()
    """, b, NAME=NAME, CA=tls.text("ca"))
    good, bad = tls.context(), tls.context("stranger")
    counts = []
    for n in range(48):
        if n % 4 == 0:
            turned_away(t, b, bad)
        elif n % 4 == 1:
            b.tls = good
            link = b.welcome()
            link.strict = False
            b.tls = None
        else:
            link = silent(t, b)
            link.rst() if n % 4 == 2 else link.fin()
        if n in (7, 47):
            mp.expect("count")
            counts.append(mp.open_files())
            mp.tell()
    t.equal(counts[1], counts[0], "open files")


# --- handshakes that hang

def silent(t, b):
    """Accepts, reads the ClientHello, and says nothing."""
    link = b.accept()
    link.strict = False
    link._need(1, t.until(5))
    return link


def halfway(t, b):
    """Answers the ClientHello by half."""
    link = silent(t, b)
    link.send(flight(link)[:400])
    link.taken()
    return link


@scenario(idle=True)
def a_handshake_that_hangs_ends_after_20_s(t):
    for begin in silent, halfway:
        b = t.broker()
        mp = t.mp("""
            ms = attempt(HOST, PORT)
            say("in time" if 19500 <= ms <= 21500 else ms)
        """, b, TRY)
        link = begin(t, b)
        mp.expect("MQTTException -ETIMEDOUT TLS handshake timed out -1", "in time", within=25)
        while link._fill(2):
            pass
        t.equal(link._fill(0), False, "the end of the connection")


@scenario(idle=True)
def each_sign_of_life_in_time_but_not_the_whole(t):
    b = t.broker()
    mp = t.mp("say(19500 <= attempt(HOST, PORT) <= 21500)", b, TRY)
    link = silent(t, b)
    data = flight(link)
    for at in range(6):
        link.send(data[at * 20:at * 20 + 20])
        time.sleep(3)
    mp.expect("MQTTException -ETIMEDOUT TLS handshake timed out -1", "True", within=10)


QUICK = '''
def quick(f, *args, **kw):
    """the outcome, and whether it took more than 50 ms"""
    t0 = time.ticks_ms()
    r = outcome(f, *args, **kw)
    ms = time.ticks_diff(time.ticks_ms(), t0)
    say(r if ms <= 50 else "%s after %d ms" % (r, ms))
'''


@scenario(idle=True, threads=True)
def while_connect_hangs_in_the_handshake_all_else_answers(t):
    for begin in silent, halfway:
        for call in "close", "disconnect":
            b = t.broker()
            mp = t.mp(f"""
                c = client(ssl=True)
                end = start(clock, c.connect)
                hear()
                quick(c.get_mqttsta)
                quick(c.publish, "t", "m")
                quick(c.publish, "t", "m", qos=1)
                quick(c.ping)
                quick(c.check_msg)
                quick(c.{call})
                end()
                quick(c.get_mqttsta)
            """, b, QUICK)
            link = begin(t, b)
            mp.tell()
            mp.expect("1", "False", "False", "None", "None")
            lines = sorted([mp.line(), mp.line()])
            t.equal(lines[1], "None", "what the call returns")
            t.true(lines[0].startswith("MQTTException -103 after "), lines[0])
            mp.expect("-1")
            while link._fill(2):
                pass
            t.equal(link._fill(0), False, "the end of the connection")


@scenario(idle=True)
def while_a_reconnection_hangs_in_the_handshake_all_else_answers(t):
    for begin in silent, halfway:
        b = t.broker(tls=tls.context())
        mp, link, _ = t.connected("""
            rest(c)
            quick(c.get_mqttsta)
            quick(c.publish, "t", "lost")
            quick(c.publish, "t", "kept", qos=1)
            quick(c.publish, "t", "kept too", qos=2, wait=False)
            quick(c.ping)
            quick(c.check_msg)
            quick(c.subscribe, "t")
            quick(c.disconnect)
            quick(c.get_mqttsta)
        """, broker=b, helpers=HELPERS + QUICK, **tls.options())
        link.fin()
        context, b.tls = b.tls, None
        second = begin(t, b)
        mp.tell()
        mp.expect("1", "False", "False", "False", "None", "None", "OSError ENOTCONN", "None", "-1")
        mp.finish()


@scenario(idle=True, threads=True)
def a_handshake_that_hangs_costs_nothing(t):
    b = t.broker(tls=tls.context())
    mp, link, _ = t.connected("""
        hear()
        c.disconnect()
    """, broker=b, strace="poll,ppoll,read,write,recvfrom,sendto", **tls.options())
    link.fin()
    b.tls = None
    second = halfway(t, b)
    time.sleep(0.3)
    before, cpu = len(mp.calls()), mp.cpu()
    time.sleep(4)
    # Where nothing can wait for a socket, a look at it every 10 ms.
    t.between(len(mp.calls()) - before, 0, 2000 if tick(t) else 4, "system calls in 4 s")
    t.between(mp.cpu() - cpu, 0, 0.4 if tick(t) else 0.05, "seconds of computing in 4 s")
    mp.tell()


@scenario(idle=True)
def a_reconnection_is_tried_again_after_each_failure(t):
    b = t.broker(tls=tls.context())
    mp, link, _ = t.connected("""
        until_state(c, 1)
        until_state(c, 0)
        say(c.publish("t", "m", qos=1))
        hear()
        c.disconnect()
    """, broker=b, helpers=HELPERS, **tls.options())
    good, b.tls = b.tls, None
    link.fin()
    eventually(t, lambda: link.sock.sock.fileno() < 0 or link._fill(0) is False, "the client does not close")
    files = mp.open_files()
    turned_away(t, b, tls.context("stranger"))
    link = silent(t, b)
    link.rst()
    link = silent(t, b)
    link.send(b"rubbish" * 10)
    b.tls = good
    link = b.welcome(within=20)
    link.send(broker.puback(link.expect_publish("t", "m", qos=1)))
    mp.expect("True")
    t.equal(mp.open_files(), files + 1, "open files")  # the socket
    mp.tell()
    link.expect(broker.DISCONNECT)


@scenario(idle=True)
def without_reconn_the_error_callback_is_told_in_words(t):
    b = t.broker()
    mp = t.mp("""
        for n in range(4):
            c = MQTTClient("c", HOST, PORT, reconn=False, ssl=True)
            c.set_callback(show)
            c.error_register_cb(lambda text: say("error", text))
            c.connect()
            say("connected")
            hear()
            until_state(c, 2, -1)
            pause(100)
            outcome(c.check_msg)
            say(c.get_mqttsta())
            tell(c.wait_msg)
    """, b, HELPERS)
    for how in "notify", "close", "rst", "rubbish":
        b.tls = tls.context()
        link = b.welcome()
        mp.expect("connected")
        sock = link.sock
        if how == "rubbish":
            sock.sock.sendall(b"\x17\x03\x03\x00\x40" + bytes(64))
        else:
            getattr(sock if how == "notify" else link, how)()
        mp.tell()
        if how == "rubbish":
            mp.match("error TLS failed: SSL - .*")
            mp.expect("-1", "OSError ENOTCONN")
        else:
            mp.match("error server closed the connection|error connection failed \\(errno 104\\)")
            mp.expect("2", "OSError ENOTCONN")
        link.strict = False


@scenario
def ctrl_c_leaves_a_handshake_that_hangs(t):
    for begin in silent, halfway:
        b = t.broker()
        mp = t.mp("""
            c = client(ssl=True)
            for _ in range(5):
                try:
                    c.connect()
                except KeyboardInterrupt:
                    say("interrupted", c.get_mqttsta())
            tell(c.connect)
            c.disconnect()
        """, b)
        for _ in range(5):
            link = begin(t, b)
            mp.asleep()
            mp.interrupt()
            mp.expect("interrupted -1", within=2)
            while link._fill(2):
                pass
        b.tls = tls.context()
        served(b)
        mp.expect("0")


# --- records

STREAM = [broker.publish("t", "m" * n, qos, n if qos else None) for n, qos in ((1, 0), (2, 1), (30, 2), (300, 1))]


@scenario
def all_of_it_byte_by_byte(t):
    # the handshake and what follows
    b = t.broker(tls=tls.context())
    mp = t.mp("""
        c = client(ssl=True, ssl_params={"ca": CA, "server_hostname": NAME})
        tell(c.connect)
        serve(c)
        c.disconnect()
    """, b, NAME=NAME, CA=tls.text("ca"))
    link = b.accept(dribble=True, within=30)
    link.expect_connect()
    link.send(broker.connack(), within=30)
    mp.expect("0", within=20)
    link.send(*STREAM, broker.publish("end"), within=30)
    for n in 1, 2, 30:
        mp.expect(f"got b't' {(b'm' * n)!r}", within=20)
    mp.expect("got b't' 300 bytes")
    link.expect(broker.puback(2), broker.pubrec(30), broker.puback(300), broker.DISCONNECT)


@scenario
def records_with_nothing_in_them(t):
    # RFC 5246, 6.2.1; they are not the end, which is told by an alert. More than three in a row mbedTLS takes for an attack.
    b = t.broker()
    mp = t.mp("""
        c = client(ssl=True, reconn=False)
        c.connect()
        for _ in range(4):
            c.wait_msg()
        say("and now together")
        hear()
        pause(100)
        tell(c.check_msg)
        hear()
        tell(c.wait_msg)
        say(c.get_mqttsta())
    """, b)
    link = by_records(t, b)
    for n in range(4):
        for _ in range(n):
            link.sock.record(tls.APPLICATION_DATA, b"")
        link.send(broker.publish("t", str(n)))
        mp.expect(f"got b't' b'{n}'")
    mp.expect("and now together")
    link.send(broker.publish("t", "1"))
    for _ in range(3):
        link.sock.record(tls.APPLICATION_DATA, b"")
    link.send(broker.publish("t", "2"))
    mp.tell()
    mp.expect("got b't' b'1'", "got b't' b'2'", "None")
    link.sock.record(tls.ALERT, CLOSE_NOTIFY)
    mp.tell()
    mp.match("OSError (ECONNRESET|ENOTCONN)")
    mp.expect("2")


@scenario
def what_came_before_the_end_is_delivered(t):
    for end in "notify", "fin", "rst":
        b = t.broker(tls=tls.context())
        mp, link, _ = t.connected("""
            hear()
            c.wait_msg()
            c.wait_msg()
            tell(c.wait_msg)
            say(c.get_mqttsta())
        """, broker=b, reconn=False, **tls.options())
        link.send(broker.publish("t", "1"), broker.publish("t", "2"))
        if end == "rst":
            mp.tell()
            mp.expect("got b't' b'1'", "got b't' b'2'")
            link.rst()
        else:
            (link.sock.notify if end == "notify" else link.fin)()
            mp.tell()
            mp.expect("got b't' b'1'", "got b't' b'2'")
        mp.match("OSError (ECONNRESET|ENOTCONN)")
        mp.expect("2")


@scenario
def a_record_that_was_changed_ends_the_connection(t):
    for change in "flip", "truncate":
        b = t.broker(tls=tls.context())
        mp, link, _ = t.connected("""
            try:
                c.wait_msg()
            except OSError as e:
                say(words(e), e.args[1])
            say(c.get_mqttsta())
        """, broker=b, reconn=False, **tls.options())
        mp.asleep()  # in wait_msg
        sock = link.sock
        sock.tls.write(broker.publish("t", "secret"))
        record = bytearray(sock.outgoing.read())
        if change == "flip":
            record[-3] ^= 1
        else:
            record = record[:4] + bytes([record[4] - 1]) + record[5:-1]
        sock.sock.sendall(record)
        mp.match("OSError EPROTO TLS failed: SSL - .*")
        mp.expect("-1")
        link.strict = False


def sizes(middle, width):
    return range(max(0, middle - width), middle + width + 1)


@scenario
def payloads_of_every_size_around_a_record(t):
    # of the transmit buffer, and of one, two and three records; the peer reads little at a time and the client's socket
    # takes little, so that every write falls short
    b = t.broker(tls=tls.context(), receive_buffer=2048)
    ours = [n for middle in (4608, 16384, 2 * 16384, 16384 + 4608) for n in sizes(middle - 8, 12)]
    mp = t.mp("""
        c = client(**OPTIONS)
        c.connect()
        data = bytes([n & 255 for n in range(65536)])
        for n, size in enumerate(SIZES):
            if c.publish("t", data[n:n + size]) is not True:
                say("not sent", n, size)
        c.disconnect()
    """, b, environment=small_buffers(), SIZES=ours, OPTIONS=tls.options(), heap="8m")
    link = b.welcome()
    data = bytes(n & 255 for n in range(65536))
    for n, size in enumerate(ours):
        link.expect_publish("t", data[n:n + size])
    link.expect(broker.DISCONNECT)


# A TLS module whose records are as large as the script says, and the same bytes as their data. Like mbedTLS it has made a
# record when the socket does not take it, answers how much of what it is given would go into one, and wants to be given
# the same again until it is off.
RECORDS = '''
import io, socket
write, readinto = socket.socket.__dict__["write"], socket.socket.__dict__["readinto"]  # of any stream
class Records(io.IOBase):
    def __init__(self, link):
        self.link, self.given, self.rest, self.held, self.others = link, None, b"", 0, 0
    def write(self, data):
        n = min(len(data), SIZE)
        if self.rest:
            self.others += data != self.given
        else:
            self.given, self.rest = bytes(data), bytes(data[:n])
        while self.rest:
            sent = write(self.link, self.rest)
            if sent is None:
                self.held += 1
                return None
            self.rest = self.rest[sent:]
        return n
    def readinto(self, into):
        return readinto(self.link, into)
    def ioctl(self, request, arg):
        return 0
class Context:
    verify_mode = 0
    def wrap_socket(self, link, **kw):
        global stream
        stream = Records(link)
        return stream
'''


@scenario
def records_of_any_size(t):
    # The peer reads little at a time and the client's socket takes little, so most records are held. mbedTLS has them of 4096
    # bytes in MicroPython's own configuration and of 16384 in Debian's; a server may ask for less.
    data = bytes(n * 7 + n // 251 & 255 for n in range(65536))
    ours = [*range(1, 6), *range(60, 70), 1000, *range(4090, 4100), 4608, 16384, 16390, 40000, 60000]
    for size in 64, 1000, 4096, 5000, 16384:
        b = t.broker(receive_buffer=2048)
        mp = t.mp("""
            c = client(ssl=Context())
            c.connect()
            for n, size in enumerate(OURS):
                if c.publish("t", DATA[n:n + size]) is not True:
                    say("not sent", n, size)
            hear()
            c.disconnect()
            say("held often" if stream.held > 5 else stream.held, stream.others)
        """, b, RECORDS, environment=small_buffers(), SIZE=size, OURS=ours, DATA=data, heap="8m")
        link = b.welcome()
        for n, size in enumerate(ours):
            time.sleep(0.002)
            link.expect_publish("t", data[n:n + size])
        mp.tell()
        link.expect(broker.DISCONNECT)
        mp.expect("held often 0")


def by_records(t, b):
    """Accepts a client; what this server sends then is the scenario's, record by record."""
    b.tls = None
    link = b.accept()
    link.sock = tls.Records(link.sock)
    link.sock.settimeout(10)
    link.sock.handshake()
    link.sock.settimeout(None)
    link.expect_connect()
    link.send(broker.connack())
    return link


@scenario
def a_server_that_asks_for_another_handshake(t):
    # HelloRequest (RFC 5246, 7.4.1.1), again and again, while records of the client's are held: mbedTLS refuses with an alert,
    # or sends off in its place what it holds.
    count = 600
    b = t.broker(receive_buffer=2048)
    mp = t.mp("""
        c = client(ssl=True, reconn=False)
        c.connect()
        for n in range(COUNT):
            size = n * 397 % 3000 if n % 300 < 200 else 30
            if c.publish("t", "%08d" % n + "x" * size) is not True:
                say("not sent", n)
            c.check_msg()
        hear()
        c.check_msg()
        c.disconnect()
    """, b, environment=small_buffers(), COUNT=count)
    link = by_records(t, b)
    with ended() as end:
        asking = threading.Thread(target=every, args=(end, 0.001, link.sock.record, tls.HANDSHAKE, tls.HELLO_REQUEST))
        asking.start()
        for n in range(count):
            size = n * 397 % 3000 if n % 300 < 200 else 30
            link.expect_publish("t", "%08d" % n + "x" * size)
            if n % 5 == 0:
                time.sleep(0.003)
    mp.tell()
    link.expect(broker.DISCONNECT)
    t.equal({alert for alert in link.sock.alerts if alert[1] != CLOSE_NOTIFY}, {(tls.ALERT, NO_RENEGOTIATION)}, "alerts")


CLOSE_NOTIFY, NO_RENEGOTIATION = b"\1\0", b"\1\x64"


@contextlib.contextmanager
def ended():
    """An event that is set as the block ends."""
    end = threading.Event()
    try:
        yield end
    finally:
        end.set()


def every(end, seconds, call, *arguments):
    while not end.wait(seconds):
        try:
            call(*arguments)
        except OSError:  # the client is gone
            return


@scenario(limit=120)
def both_ways_at_once(t):
    t.over_tls = True
    endurance.duplex(t, 600)


@scenario(limit=120)
def both_ways_at_once_through_small_buffers(t):
    t.over_tls = True
    endurance.duplex(t, 300, small=True)


@scenario(idle=True)
def a_peer_that_takes_a_little_now_and_then_is_no_dead_one(t):
    # a record takes it longer than 5 s
    b = t.broker(tls=tls.context(), receive_buffer=2048)
    mp = t.mp("""
        c = client(**OPTIONS)
        c.connect()
        say(c.publish("t", bytes(60000)))
        c.disconnect()
    """, b, environment=small_buffers(), OPTIONS=tls.options(), heap="8m")
    link = b.welcome()
    sock = link.sock.sock
    taken = bytearray()
    while len(taken) < 16384 - 4096:
        time.sleep(1)
        taken += sock.recv(1200)
    link.sock.incoming.write(bytes(taken))
    link.expect_publish("t", bytes(60000), within=20)
    mp.expect("True")
    link.expect(broker.DISCONNECT)


@scenario(idle=True)
def a_peer_that_takes_nothing_is_given_up_after_5_s(t):
    # and what TLS has encrypted is not followed by anything else
    for reconn in True, False:
        b = t.broker(tls=tls.context(), receive_buffer=2048)
        mp = t.mp("""
            c = client(reconn=RECONN, **OPTIONS)
            c.connect()
            n = 0
            while c.get_mqttsta() == 0:
                t0 = time.ticks_ms()
                r = outcome(c.publish, "t", "%06d" % n + "x" * 1012)
                n += 1
            say(n, r, 4900 < time.ticks_diff(time.ticks_ms(), t0) < 6500, c.get_mqttsta())
            hear()
            c.disconnect()
        """, b, environment=small_buffers(), OPTIONS=tls.options(), RECONN=reconn)
        link = b.welcome()
        n = int(mp.match("([0-9]+) " + ("False True 1" if reconn else "OSError ETIMEDOUT True -1"), within=20)[1])
        for i in range(n - 1):
            if i < n - 4:  # the last ones may be in part
                link.expect_publish("t", "%06d" % i + "x" * 1012)
        link.strict = False
        mp.tell()
        mp.finish()


# --- what it costs

@scenario(threads=True)
def clients_come_and_go_while_a_collector_runs_all_the_time(t):
    b = t.broker(tls=tls.context())
    mp = t.mp("""
        stop = False
        def collect():
            while not stop:
                for _ in range(5):
                    gc.collect()
                pause(1)  # nobody else would ever get the GIL
        end = start(collect)
        for n in range(40):
            c = client(**OPTIONS)
            c.connect()
            c.publish("t", "m" * 100)
            if n % 4 == 0:
                c.disconnect()
            elif n % 4 == 1:
                c.wait_msg()
            elif n % 4 == 2:
                c.connect()
            if n == 9:
                say("count")
                hear()
        stop = True
        end()
        c = None
        gc.collect()
        pause(300)
        gc.collect()
        say("count")
        hear()
    """, b, OPTIONS=tls.options())
    counts = []
    for n in range(40):
        link = b.welcome()
        link.expect_publish("t", "m" * 100)
        if n % 4 == 0:
            link.expect(broker.DISCONNECT)
        elif n % 4 == 1:
            link.send(broker.publish("t", "x"))
            mp.expect("got b't' b'x'")
        elif n % 4 == 2:
            link = b.welcome()
        if n == 9:
            mp.expect("count")
            counts.append(mp.open_files())
            mp.tell()
    mp.expect("count")
    t.between(mp.open_files(), 0, counts[0] + 12, "open files")  # two a client that the collector has not found yet
    mp.tell()


@scenario(alone=True, limit=120)
def as_quick_as_a_bare_tls_socket(t):
    # the same packets, one a write and one a read, over a TLS socket of MicroPython's own, in turn with ours
    context = tls.context()
    listener = socket.create_server(("127.0.0.1", 0))

    def serve(sock):
        sock = context.wrap_socket(sock, server_side=True)
        sock.recv(4096)
        sock.sendall(broker.connack())
        while True:
            data = sock.recv(1 << 16)
            if not data:
                return
            while data.endswith(GO):
                # so many messages back, a record each
                count, size = data[-len(GO) - 12:-len(GO)].split()
                raw = broker.publish("t", bytes(int(size)))
                for _ in range(int(count)):
                    sock.sendall(raw)
                data = b""

    def accept():
        for _ in range(2):
            threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
    threading.Thread(target=accept, daemon=True).start()
    mp = t.mp("""
        import tls, socket
        c = MQTTClient("c", HOST, PORT, ssl=True, keepalive=0)
        c.connect()
        c.set_callback(lambda topic, msg: None)
        s = socket.socket()
        s.connect(socket.getaddrinfo(HOST, PORT)[0][-1])
        context = tls.SSLContext(tls.PROTOCOL_TLS_CLIENT)
        context.verify_mode = tls.CERT_NONE
        s = context.wrap_socket(s)
        s.write(b"hello")
        s.read(4)
        def clocked(f, *args):
            t = time.ticks_us()
            f(*args)
            return time.ticks_diff(time.ticks_us(), t)
        def bare_out(n, raw):
            write = s.write
            for _ in range(n):
                write(raw)
        def out(n, msg):
            publish = c.publish
            for _ in range(n):
                publish("t", msg)
        def bare_in(n, size):
            read = s.read
            for _ in range(n):
                read(size)
        def take(n, size):
            wait_msg = c.wait_msg
            for _ in range(n):
                wait_msg()
        def packet(msg):
            rest = 3 + len(msg)
            head = bytes([rest & 127 | 128, rest >> 7]) if rest > 127 else bytes([rest])
            return b"\\x30" + head + b"\\0\\1t" + msg
        def ratio(times):
            # of the best tenth of each: what else the machine does falls on the others
            b, o = (sorted(column)[len(times) // 10] for column in zip(*times))
            return "%.3f %d/s" % (b / o, n * 1000000 // b)
        for size in 32, 256, 4096:
            n = 200000 // (size + 300)
            msg = b"m" * size
            raw = packet(msg)
            say(size, "out", ratio([(clocked(bare_out, n, raw), clocked(out, n, msg)) for _ in range(51)]))
            times = []
            go = ("%12s" % (" %d %d" % (n, size))).encode() + GO
            for _ in range(7):
                s.write(go)
                pause(60)
                b = clocked(bare_in, n, len(raw))
                c.publish("go", go)
                pause(60)
                times.append((b, clocked(take, n, size)))
            say(size, "in", ratio(times))
        c.close()
    """, listener.getsockname()[1], GO=GO)
    for _ in range(6):
        found = mp.match("([0-9]+) (in|out) ([0-9.]+) .*", within=50)
        print("    over TLS, of a bare socket's messages a second:", found[0])
        # The goal is 0.9; there is room for a machine that does something else as well.
        t.between(float(found[3]), 0.6, 9, f"messages a second of a bare socket's, {found[1]} B {found[2]}")
    mp.finish()
    listener.close()


GO = b"go-go-go"
STACK = 32 * 1024  # UMQTT_TLS_THREAD_STACK, see core.h


@scenario(threads=True)
def the_stack_of_the_internal_thread_is_enough_for_a_handshake(t):
    with open(os.path.join(os.path.dirname(__file__), "..", "stack", "paint.c")) as source:
        paint = library("paint", source.read())
    used = {}
    for name, ca in ("server", "ca"), ("rsa", "rsa-ca"):
        b = t.broker(tls=tls.context(name, verify="ca" if name == "server" else "rsa-ca"))
        mine = "client" if name == "server" else "rsa-client"
        mp = t.mp("""
            gc.disable()
            c = client(**OPTIONS)
            c.connect()
            def work():
                c.wait_msg()
                c.publish("t", "m" * 1000, qos=1)
            start(work)
            hear()
            c.disconnect()
            pause(500)
        """, b, environment={"LD_PRELOAD": paint, "LD_BIND_NOW": "1"}, OPTIONS={"ssl": True, "ssl_params": {
            "ca": tls.text(ca), "server_hostname": NAME, "cert": tls.text(mine), "key": tls.key(mine)}})
        link = b.welcome()
        link.fin()
        link = b.welcome()
        link.send(broker.publish("t", "x" * 1000))
        mp.expect("got b't' 1000 bytes")
        link.send(broker.puback(link.expect_publish("t", "m" * 1000, qos=1)))
        used[f"wait_msg and publish, {name}"] = int(mp.match(r"stack ([0-9]+)")[1])
        mp.tell()
        used[f"internal thread, {name}"] = int(mp.match(r"stack ([0-9]+)")[1])
        mp.finish()
        link.strict = False
    print("    bytes of stack over TLS:", used)
    for what, size in used.items():
        t.between(size, 1, STACK * 3 // 4, f"bytes of stack for {what}")


@scenario
def the_heap_that_a_client_takes(t):
    b = t.broker(tls=tls.context())
    mp = t.mp("""
        def made(**kw):
            gc.collect()
            before = gc.mem_alloc()
            c = MQTTClient("c", HOST, PORT, **kw)
            gc.collect()
            return c, gc.mem_alloc() - before
        plain, without = made()
        c, alone = made(**OPTIONS)
        gc.collect()
        before = gc.mem_alloc()
        c.connect()
        gc.collect()
        connected = gc.mem_alloc() - before
        say(without, alone, connected)
        c.disconnect()
    """, b, OPTIONS=tls.options())
    served(b)
    sizes = mp.match("([0-9]+) ([0-9]+) (-?[0-9]+)")
    print("    bytes of heap without TLS, with, and connected:", sizes[0])
    t.between(int(sizes[2]) - int(sizes[1]), 1, 64000, "bytes of heap for TLS")
