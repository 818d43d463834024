"""TLS: what is verified, what is refused and in which words, handshakes that hang, records in pieces, both ways at once."""

import random
import ssl
import time

import broker
import tls
from harness import scenario
from outage import HELPERS

NAME = tls.NAME

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
        t.true(link.sock.recv(1) == b"", "the client goes on")
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
