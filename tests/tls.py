"""TLS for the tests: certificates that the `openssl` command makes, once a run, and a server's end of a connection."""

import atexit
import ctypes
import functools
import hmac
import os
import ssl
import struct
import subprocess
import tempfile
import threading
import time

NAME = "localhost"  # the server's name in all certificates

_lock = threading.Lock()


@functools.cache
def _folder():
    folder = tempfile.TemporaryDirectory(prefix="umqtt-test-")
    atexit.register(folder.cleanup)
    return folder.name


def path(file):
    return os.path.join(_folder(), file)


def _openssl(*arguments):
    done = subprocess.run(["openssl", *arguments], cwd=_folder(), stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"openssl {' '.join(arguments)}: {done.stderr}")


def _certificate(name, subject, issuer=None, days=30, key="EC -pkeyopt ec_paramgen_curve:P-256"):
    """`name`.pem with its key `name`.key, signed by `issuer`, or by itself; both as .der too."""
    _openssl("genpkey", "-algorithm", *key.split(), "-out", f"{name}.key")
    _openssl("req", "-new", "-key", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={subject}")
    with open(path(f"{name}.ext"), "w") as file:
        file.write(f"subjectAltName=DNS:{subject}\n" if issuer else "basicConstraints=critical,CA:TRUE\n")
    signer = ["-CA", f"{issuer}.pem", "-CAkey", f"{issuer}.key"] if issuer else ["-signkey", f"{name}.key"]
    _openssl("x509", "-req", "-in", f"{name}.csr", *signer, "-set_serial", str(time.time_ns()), "-days", str(days),
             "-extfile", f"{name}.ext", "-out", f"{name}.pem")
    _openssl("x509", "-in", f"{name}.pem", "-outform", "DER", "-out", f"{name}.der")
    _openssl("pkey", "-in", f"{name}.key", "-outform", "DER", "-out", f"{name}.key.der")


def _to_come(name):
    """`name`-to-come.pem: as `name`.pem, but valid from the year 2090 on. Only `openssl ca` makes such."""
    with open(path("ca.conf"), "w") as file:
        file.write("[ca]\ndefault_ca = test\n[test]\ndatabase = index\nnew_certs_dir = .\nrand_serial = yes\n"
                   "default_md = sha256\npolicy = any\n[any]\ncommonName = supplied\n")
    open(path("index"), "w").close()
    _openssl("ca", "-batch", "-notext", "-config", "ca.conf", "-cert", "ca.pem", "-keyfile", "ca.key", "-in", f"{name}.csr",
             "-extfile", f"{name}.ext", "-startdate", "20900101000000Z", "-enddate", "20910101000000Z",
             "-out", f"{name}-to-come.pem")
    os.link(path(f"{name}.key"), path(f"{name}-to-come.key"))


@functools.cache
def _make():
    _certificate("ca", "umqtt test CA")
    _certificate("other", "another CA")
    _certificate("server", NAME, "ca")
    _certificate("expired", NAME, "ca", days=-1)
    _to_come("server")
    _certificate("stranger", "stranger.example", "ca")
    _certificate("client", "client", "ca")
    _certificate("impostor", "client", "other")
    _certificate("rsa-ca", "umqtt test CA (RSA)", key="RSA -pkeyopt rsa_keygen_bits:2048")
    _certificate("rsa", NAME, "rsa-ca", key="RSA -pkeyopt rsa_keygen_bits:2048")
    _certificate("rsa-client", "client", "rsa-ca", key="RSA -pkeyopt rsa_keygen_bits:2048")
    _certificate("weak", NAME, "ca", key="RSA -pkeyopt rsa_keygen_bits:1024")


def pem(name):
    """ca, other, server, server-to-come, expired, stranger, client, impostor, weak; and rsa-ca, rsa, rsa-client."""
    with _lock:
        _make()
    return path(f"{name}.pem")


def text(name):
    return open(pem(name)).read()


def key(name):
    pem(name)
    return open(path(f"{name}.key")).read()


def der(name):
    pem(name)
    return open(path(f"{name}.der"), "rb").read()


def key_der(name):
    pem(name)
    return open(path(f"{name}.key.der"), "rb").read()


def options(**more):
    """Of a client that verifies the server: for MQTTClient(**options)."""
    return {"ssl": True, "ssl_params": {"ca": text("ca"), "server_hostname": NAME, **more}}


def context(certificate="server", verify=None):
    """What a server needs; `verify`: clients have to have a certificate of this CA."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    if certificate == "weak":
        made.set_ciphers("ALL:@SECLEVEL=0")
    made.load_cert_chain(pem(certificate), path(f"{certificate}.key"))
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    if verify:
        made.load_verify_locations(pem(verify))
        made.verify_mode = ssl.CERT_REQUIRED
    return made


class Server:
    """A socket for broker.Link with TLS on it. One thread may send while another receives, which Python's own SSLSocket
    does not allow for; and the scenario has a hand in what goes over the wire."""

    def __init__(self, sock, context):
        self.sock = sock
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_side=True)
        self.lock = threading.Lock()
        self.backlog = bytearray()  # encrypted, and not sent yet
        self.trickle = None  # called after each piece, if they are to go one by one: 64 single bytes, then larger ones

    def __getattr__(self, name):
        return getattr(self.sock, name)

    def flush(self):
        self.backlog += self.outgoing.read()
        done = 0
        while self.backlog:
            piece = len(self.backlog) if not self.trickle else 1 if done < 64 else 11
            sent = self.sock.send(self.backlog[:piece])
            done += sent
            del self.backlog[:sent]
            if self.trickle:
                self.trickle()

    def _step(self, call, *arguments):
        """What the call returns, and whether it did: more may have to arrive first."""
        with self.lock:
            try:
                return call(*arguments), True
            except ssl.SSLWantReadError:
                return None, False

    def handshake(self):
        """All of it; ssl.SSLError if it fails."""
        while True:
            try:
                done = self._step(self.tls.do_handshake)[1]
            finally:
                self.flush()
            if done:
                return
            data = self.sock.recv(1 << 16)
            self.incoming.write(data) if data else self.incoming.write_eof()

    def recv(self, size):
        """What has arrived, b"" at the end of the stream; None: no whole record."""
        data = self.sock.recv(size)
        if not data:
            return data
        self.incoming.write(data)
        plain = bytearray()
        while True:
            more, done = self._step(self.tls.read, size)
            if not done or not more:
                return bytes(plain) or (b"" if done else None)
            plain += more

    def sendall(self, data):
        if data:
            self._step(self.tls.write, data)
        self.flush()

    def send(self, data):
        """As much as one record; a TimeoutError has taken nothing."""
        self.flush()
        data = data[:16384]
        try:
            self.sendall(data)
        except TimeoutError:
            pass
        return len(data)

    def notify(self):
        """Sends close_notify."""
        try:
            self._step(self.tls.unwrap)
        finally:
            self.flush()


# --- a server's records, one by one

APPLICATION_DATA, ALERT, HANDSHAKE = 23, 21, 22
HELLO_REQUEST = bytes(4)


@functools.cache
def _libcrypto():
    # the one that Python's own ssl module has brought
    with open("/proc/self/maps") as maps:
        library = ctypes.CDLL(next(line.split()[-1] for line in maps if "libcrypto" in line))
    for name in "EVP_CIPHER_CTX_new", "EVP_aes_128_gcm":
        getattr(library, name).restype = ctypes.c_void_p
    return library


def _gcm(key, nonce, more, data, tag=None):
    """AES-128-GCM: the encrypted data with their tag; with a tag the decrypted ones, or None if it is not theirs."""
    c, pointer, size = _libcrypto(), ctypes.c_void_p, ctypes.c_int()
    context = pointer(c.EVP_CIPHER_CTX_new())
    out, encrypt = ctypes.create_string_buffer(len(data) + 16), int(tag is None)
    c.EVP_CipherInit_ex(context, pointer(c.EVP_aes_128_gcm()), None, key, nonce, encrypt)
    c.EVP_CipherUpdate(context, None, ctypes.byref(size), more, len(more))
    c.EVP_CipherUpdate(context, out, ctypes.byref(size), data, len(data))
    if tag:
        c.EVP_CIPHER_CTX_ctrl(context, 0x11, 16, tag)  # EVP_CTRL_AEAD_SET_TAG
    good = c.EVP_CipherFinal_ex(context, ctypes.byref(ctypes.create_string_buffer(16)), ctypes.byref(size))
    tag = tag or ctypes.create_string_buffer(16)
    if encrypt:
        c.EVP_CIPHER_CTX_ctrl(context, 0x10, 16, tag)  # EVP_CTRL_AEAD_GET_TAG
    c.EVP_CIPHER_CTX_free(context)
    return out.raw[:len(data)] + (tag.raw if encrypt else b"") if good == 1 else None


class Records(Server):
    """A server that makes each record itself once the handshake, of TLS 1.2, is over: Python's ssl module sends neither an
    empty one nor a HelloRequest, and takes no answer to the latter. What the client sends that is no data is kept in `alerts`."""

    def __init__(self, sock, certificate="server"):
        made = context(certificate)
        made.maximum_version = ssl.TLSVersion.TLSv1_2
        made.set_ciphers("ECDHE-ECDSA-AES128-GCM-SHA256")
        made.keylog_filename = path(f"keys-{time.time_ns()}")
        super().__init__(sock, made)
        self.hello = bytearray()  # what went out first
        self.keys, self.raw, self.alerts = made.keylog_filename, bytearray(), []

    def flush(self):
        sent = self.outgoing.read()
        if len(self.hello) < 64:
            self.hello += sent
        self.backlog += sent
        super().flush()

    def handshake(self):
        super().handshake()
        _, client_random, master = next(line.split() for line in open(self.keys) if line.startswith("CLIENT_RANDOM"))
        seed = b"key expansion" + self.hello[11:43] + bytes.fromhex(client_random)
        block, a = b"", seed
        while len(block) < 40:  # RFC 5246, 5 and 6.3
            a = hmac.digest(bytes.fromhex(master), a, "sha256")
            block += hmac.digest(bytes.fromhex(master), a + seed, "sha256")
        self.theirs, self.ours = (block[:16], block[32:36]), (block[16:32], block[36:40])
        self.received = self.sent = 1  # after Finished

    @staticmethod
    def _about(number, kind, size):
        return struct.pack(">QBHH", number, kind, 0x303, size)

    def record(self, kind, data):
        with self.lock:
            key, salt = self.ours
            nonce = struct.pack(">Q", self.sent)
            body = nonce + _gcm(key, salt + nonce, self._about(self.sent, kind, len(data)), data)
            self.sent += 1
            self.backlog += struct.pack(">BHH", kind, 0x303, len(body)) + body
            super().flush()

    def sendall(self, data):
        self.record(APPLICATION_DATA, data)

    def recv(self, size):
        data = self.sock.recv(size)
        if not data:
            return data
        self.raw += self.incoming.read() + data  # what came right behind the handshake
        plain = b""
        while len(self.raw) >= 5:
            kind, _, length = struct.unpack_from(">BHH", self.raw)
            if len(self.raw) < 5 + length:
                break
            body = bytes(self.raw[5:5 + length])
            del self.raw[:5 + length]
            key, salt = self.theirs
            body = _gcm(key, salt + body[:8], self._about(self.received, kind, length - 24), body[8:-16], body[-16:])
            if body is None:
                raise ssl.SSLError(f"record {self.received} is not as the client made it")
            self.received += 1
            if kind == APPLICATION_DATA:
                plain += body
            else:
                self.alerts.append((kind, body))
        return plain or None
