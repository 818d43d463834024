"""For scenarios about TLS: their mark, servers that break handshakes off or hang, and what the client says of it."""

import functools

import broker
import harness
import tls

scenario = functools.partial(harness.scenario, unix=True, tcp=True)

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


def silent(t, b):
    """Accepts, reads the ClientHello, and says nothing."""
    link = b.accept()
    link.strict = False
    link._need(1, t.until(5))
    return link


def flight(link):
    """What a server would answer to this client's ClientHello."""
    server = tls.Server(link.sock, tls.context())
    server.incoming.write(bytes(link.buffer))
    server._step(server.tls.do_handshake)
    return server.outgoing.read()
