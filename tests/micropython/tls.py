"""TLS: what is verified, and what is refused, in which words."""

import random
import ssl

import broker
import tls
from handshake import CLOSED, REFUSED, TRY, failed, flight, scenario, served, silent, turned_away

NAME = tls.NAME


# --- what is verified

@scenario
def a_certificate_has_to_be_trusted_and_in_date_and_for_this_host(t):
    b = t.broker()
    cases = [
        ("server", tls.text("other"), NAME, "certificate not trusted"),
        ("server", tls.text("rsa-ca"), NAME, "certificate not trusted"),
        ("rsa", tls.text("ca"), NAME, "certificate not trusted"),
        ("expired", tls.text("ca"), NAME, "certificate expired"),
        ("server-to-come", tls.text("ca"), NAME, "certificate not valid yet"),
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
        attempt(HOST, PORT, ssl_params=dict(name, ca=None, cadata=PEM, cert=None, key=""))
        attempt(HOST, PORT, ssl_params={"ca": PEM, "server_hostname": NAME.encode()})
        attempt(HOST, PORT, ssl_params=dict(name, ca=OTHER * 150 + PEM))  # over 65535 bytes
    """, m, TRY, NAME=NAME, PEM=tls.text("ca"), DER=tls.der("ca"), OTHER=tls.text("other"))
    mp.expect(*["0"] * 27)


@scenario
def without_a_ca_nothing_is_verified(t):
    b = t.broker()
    names = "server", "expired", "stranger", "rsa"
    mp = t.mp("""
        for _ in range(4):
            for kw in {}, {"ssl_params": None}, {"ssl_params": {"cert_reqs": 0}}, {"ssl_params": {"cert_reqs": 1, "ca": None}}, \\
                      {"ssl": 1, "ssl_params": {}}:
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
ValueError ca              ssl_params={"cert_reqs": 2, "ca": ""}
ValueError ca              ssl_params={"ca": b""}
ValueError ca              ssl_params={"cadata": "", "server_hostname": "h"}
ValueError ca              ssl_params=""
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
    can = "in PEM or DER that this firmware's TLS can read"
    mp.expect(*[f"MQTTException -EPROTO ssl_params: ca: no certificate {can}"] * 5)
    mp.expect(*[f"MQTTException -EPROTO ssl_params: cert, key: no certificate with its key {can}"] * 3)


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
        mp.match("MQTTException -EPROTO TLS handshake failed: (SSL - .*|that is no TLS: maybe .*) -1")
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


def attempts(t, b):
    """Twenty to connect, one after the other, that tell what they came to."""
    return t.mp("""
        for _ in range(20):
            attempt(HOST, PORT, ssl_params={"ca": CA, "server_hostname": NAME})
    """, b, TRY, NAME=NAME, CA=tls.text("ca"))


@scenario
def a_server_that_says_all_it_has_to_say_and_closes(t):
    # what the client then writes fails at the second or third piece
    b = t.broker()
    mp = attempts(t, b)
    for _ in range(20):
        link = silent(t, b)
        link.send(flight(link))
        link.close()
        mp.expect(failed(CLOSED))


@scenario
def a_server_that_closes_right_after_the_handshake(t):
    # at once, while the client may still be in it; and when CONNECT has come
    b = t.broker()
    mp = attempts(t, b)
    for n in range(20):
        link = b.accept()
        link.strict = False
        link.sock = tls.Server(link.sock, tls.context())
        link.sock.handshake()
        closed = "MQTTException -(ECONNRESET|EPIPE) server closed the connection -1"
        if n < 10:
            link.close()
            mp.match(closed + "|" + failed(CLOSED))
        else:
            link.expect_connect()
            (link.rst if n % 2 else link.close)()
            mp.match(closed)


@scenario
def why_a_server_refuses(t):
    # as far as its alert tells
    b = t.broker()
    mp = t.mp("""
        attempt(HOST, PORT)
        attempt(HOST, PORT, ssl_params={"cert": CERT, "key": KEY})
        attempt(HOST, PORT, ssl_params={"cert": CERT, "key": OTHER})
        attempt(HOST, PORT, ssl_params={"cert": CERT, "key": KEY})
    """, b, TRY, CERT=tls.text("client"), KEY=tls.key("client"), OTHER=tls.key("impostor"))
    newest, ours, theirs = tls.context(), tls.context(verify="ca"), tls.context(verify="other")
    newest.minimum_version = ssl.TLSVersion.TLSv1_3
    strange = tls.context()
    strange.maximum_version = ssl.TLSVersion.TLSv1_2
    strange.set_ciphers("ECDHE-ECDSA-ARIA128-GCM-SHA256")
    for context, text in ((newest, "server wants another version of TLS"), (theirs, REFUSED),
                          (ours, "server refused the client's signature: maybe the key is not that of the certificate"),
                          (strange, "server and client have no cipher in common")):
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
