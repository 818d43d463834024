// Connections: MicroPython's sockets, and its TLS module over them. Nothing here blocks, but for a resolver that does. What
// the engine calls, at the end, never raises through it: see port.c.
//
// The TLS module is given the link itself for a socket. So the link sees which way the module could not go on, whatever
// the module says of it, and the wait is always for the socket below.
//
// A context of TLS is not made for two threads: but for the handshake, which belongs to the thread that connects, all is
// done under the client's lock.

#include <string.h>

#include "py/mperrno.h"
#include "py/objstr.h"
#include "py/runtime.h"
#include "py/stream.h"
#include "compat.h"
#include "link.h"
#include "outcome.h"
#include "port.h"

#if UMQTT_LINUX
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#endif

// Bytes that the TLS module surely puts into one record, as its output buffer goes: MBEDTLS_SSL_OUT_CONTENT_LEN, which is
// this in MicroPython's own configuration. It may turn out to be more.
#ifndef UMQTT_TLS_RECORD
#define UMQTT_TLS_RECORD (4096)
#endif
// The most that there may be in one (RFC 8446, 5.1).
#define TLS_LARGEST_RECORD (16384)

/******************************************************************************/
// The socket

int umqtt_stream_ioctl(mp_obj_t stream, mp_uint_t request, uintptr_t arg) {
    int error;
    mp_uint_t result = mp_get_stream(stream)->ioctl(stream, request, arg, &error);
    return result == MP_STREAM_ERROR ? -1 : (int)result;
}

#if UMQTT_LINUX
int umqtt_link_fd(const umqtt_link_t *link) {
    return umqtt_stream_ioctl(link->socket, MP_STREAM_GET_FILENO, 0);
}

static void set_tcp_option(int fd, int option, int value) {
    // It is about time only.
    (void)!setsockopt(fd, IPPROTO_TCP, option, &value, sizeof(value));
}

// Messages that no call waits for go as TCP likes it: many small ones make one segment.
static void set_at_once(umqtt_link_t *link, int fd, bool at_once) {
    link->at_once = at_once;
    set_tcp_option(fd, TCP_NODELAY, at_once);
}

// It would wait up to 40 ms, here for the answer to what was sent before, there for the acknowledgement of what was received.
void umqtt_link_hurry(umqtt_link_t *link, int fd) {
    if (link->sent && !link->at_once) {
        set_at_once(link, fd, true);
    }
    if (link->received && link->asking > 0) {
        link->asking--;
        set_tcp_option(fd, TCP_QUICKACK, true);
    }
    link->sent = link->received = false;
}
#endif

/******************************************************************************/
// The link as a stream

#if UMQTT_TLS
// What records begin with (RFC 8446, B.1).
enum { ALERT = 21, HANDSHAKE = 22, APPLICATION_DATA = 23 };

static bool not_now(int error) {
    return error == MP_EAGAIN || error == -MP_EAGAIN; // the latter on QuecPython
}

// The size of the record that comes in; 0: not known yet.
static size_t record_size(const umqtt_link_t *link) {
    return link->seen < UMQTT_TLS_HEADER ? 0 : UMQTT_TLS_HEADER + (link->record[3] << 8 | link->record[4]);
}

// Goes along with the records that come in: all of them begin with a type, a version and a length (RFC 8446, 5.1).
static void follow(umqtt_link_t *link, const byte *data, size_t n) {
    while (n > 0) {
        size_t size = record_size(link);
        if (link->seen == size) {
            link->agreed = link->agreed || link->record[0] == HANDSHAKE;
            link->seen = 0;
        }
        size_t step = 1;
        if (link->seen < sizeof(link->record)) {
            link->record[link->seen] = *data;
        } else {
            step = MIN(n, size - link->seen);
        }
        link->seen += step;
        data += step;
        n -= step;
        link->partial = link->seen != record_size(link);
    }
}

// Reads in one call, two a record.
#define MOST_READS (255)

static mp_uint_t link_read(mp_obj_t self_in, void *buf, mp_uint_t size, int *errcode) {
    umqtt_link_t *self = MP_OBJ_TO_PTR(self_in);
    self->blocked = MP_STREAM_POLL_RD;
    // The TLS module reads on as long as records bring nothing that it could tell of. Who sends such for ever must not keep
    // it for ever: there seems to be nothing more at this moment.
    if (self->reads == MOST_READS) {
        *errcode = MP_EAGAIN;
        return MP_STREAM_ERROR;
    }
    self->reads++;
    mp_uint_t n = mp_get_stream(self->socket)->read(self->socket, buf, size, errcode);
    self->fed = n != MP_STREAM_ERROR;
    self->ended = self->ended || n == 0;
    if (self->fed) {
        follow(self, buf, n);
    }
    return n;
}

static mp_uint_t link_write(mp_obj_t self_in, const void *buf, mp_uint_t size, int *errcode) {
    umqtt_link_t *self = MP_OBJ_TO_PTR(self_in);
    self->blocked = MP_STREAM_POLL_WR;
    mp_uint_t n = mp_get_stream(self->socket)->write(self->socket, buf, size, errcode);
    self->moved = self->moved || n != MP_STREAM_ERROR;
    self->pending = n != size;
    if (n == MP_STREAM_ERROR && !not_now(*errcode)) {
        // Who refuses a client says so and closes, and the client may be sending more before it reads.
        byte alert[64];
        int error;
        link_read(self_in, alert, sizeof(alert), &error);
    }
    return n;
}

static mp_uint_t link_ioctl(mp_obj_t self_in, mp_uint_t request, uintptr_t arg, int *errcode) {
    umqtt_link_t *self = MP_OBJ_TO_PTR(self_in);
    if (request == MP_STREAM_CLOSE) {
        // umqtt_port_close() closes the socket: a TLS stream that failed would not do it. And the collector may be here, with
        // the socket gone.
        return 0;
    }
    return mp_get_stream(self->socket)->ioctl(self->socket, request, arg, errcode);
}

static const mp_stream_p_t link_stream_p = {
    .read = link_read,
    .write = link_write,
    .ioctl = link_ioctl,
};

static UMQTT_DEFINE_STREAM_TYPE(umqtt_link_type, MP_QSTR_socket, &link_stream_p);
#define LINK_TYPE umqtt_link_type
#else
#define LINK_TYPE mp_type_object
#endif

/******************************************************************************/
// TCP

// A link without a socket.
static umqtt_link_t *link_new(void) {
    umqtt_link_t *link = m_new0(umqtt_link_t, 1);
    link->base.type = &LINK_TYPE;
    link->read_wants = MP_STREAM_POLL_RD;
    link->write_wants = MP_STREAM_POLL_WR;
    #if UMQTT_TLS
    link->sure = UMQTT_TLS_RECORD;
    link->most = TLS_LARGEST_RECORD;
    #endif
    return link;
}

// Calls a method with one argument.
static void call_method(mp_obj_t object, qstr name, mp_obj_t arg) {
    mp_obj_t method[3];
    mp_load_method(object, name, method);
    method[2] = arg;
    mp_call_method_n_kw(1, 0, method);
}

// A non-blocking socket for it, for an entry of getaddrinfo's.
static void link_open(umqtt_link_t *link, mp_obj_t socket_module, mp_obj_t address) {
    size_t n;
    mp_obj_t *entry;
    mp_obj_get_array(address, &n, &entry);
    mp_obj_t socket = mp_call_function_n_kw(mp_load_attr(socket_module, MP_QSTR_socket), 3, 0, entry);
    link->socket = socket;
    call_method(socket, MP_QSTR_setblocking, mp_const_false);
    umqtt_settle(MP_OBJ_TO_PTR(socket));
}

// A step of connecting by TCP; raises OSError while it is under way.
static void link_connect(umqtt_link_t *link, mp_obj_t address) {
    call_method(link->socket, MP_QSTR_connect, mp_obj_subscr(address, MP_OBJ_NEW_SMALL_INT(-1), MP_OBJ_SENTINEL));
}

/******************************************************************************/
// TLS

MP_NORETURN void umqtt_raise_no_tls(void) {
    mp_raise_NotImplementedError(MP_ERROR_TEXT("ssl: no TLS module in this firmware"));
}

// Remembers what TLS failed with.
static void link_failed(umqtt_link_t *link, mp_obj_t failure) {
    link->failure = failure;
    umqtt_settle(mp_obj_is_obj(failure) ? MP_OBJ_TO_PTR(failure) : NULL);
}

#if UMQTT_TLS
int umqtt_link_alert(const umqtt_link_t *link) {
    if (link->record[0] != ALERT || link->seen <= UMQTT_TLS_HEADER) {
        return -1;
    }
    return link->seen == sizeof(link->record) && link->record[4] == 2 ? link->record[6] : UMQTT_ALERT_UNKNOWN;
}

// What the error of a TLS stream comes to. TLS libraries have numbers of their own, mostly negative; those of the socket
// below come through negated.
static int failed(umqtt_link_t *link, int error) {
    error = error < 0 && error > -256 ? -error : error;
    // What it raised before says more.
    if (link->failure == MP_OBJ_NULL) {
        link_failed(link, MP_OBJ_NEW_SMALL_INT(error));
    }
    return error > 0 ? error : MP_EPROTO;
}

static bool raised(void *exception, const mp_obj_type_t *type) {
    return mp_obj_exception_match(MP_OBJ_FROM_PTR(exception), MP_OBJ_FROM_PTR(type));
}

static bool has(mp_obj_t object, qstr attribute) {
    mp_obj_t found[2];
    mp_load_method_maybe(object, attribute, found);
    return found[0] != MP_OBJ_NULL;
}

// The first of the modules that TLS goes by in the versions of MicroPython that has this attribute; MP_OBJ_NULL: none.
static mp_obj_t tls_module(qstr attribute) {
    static const qstr names[] = { MP_QSTR_tls, MP_QSTR_ssl, MP_QSTR_ussl };
    for (size_t i = 0; i < MP_ARRAY_SIZE(names); i++) {
        nlr_buf_t nlr;
        if (nlr_push(&nlr) == 0) {
            mp_obj_t module = mp_import_name(names[i], mp_const_none, MP_OBJ_NEW_SMALL_INT(0));
            bool found = has(module, attribute);
            nlr_pop();
            if (found) {
                return module;
            }
        } else if (!raised(nlr.ret_val, &mp_type_ImportError)) {
            nlr_jump(nlr.ret_val);
        }
    }
    return MP_OBJ_NULL;
}

// A context takes much memory, and a client that was collected gives its own back when its thread has ended.
static mp_obj_t new_context(mp_obj_t module) {
    for (int i = 0;; i++) {
        nlr_buf_t nlr;
        if (nlr_push(&nlr) == 0) {
            mp_obj_t protocol = mp_load_attr(module, MP_QSTR_PROTOCOL_TLS_CLIENT);
            mp_obj_t context = mp_call_function_1(mp_load_attr(module, MP_QSTR_SSLContext), protocol);
            nlr_pop();
            return context;
        }
        if (!raised(nlr.ret_val, &mp_type_MemoryError) || !umqtt_memory_may_come(i)) {
            nlr_jump(nlr.ret_val);
        }
    }
}

// Calls a method of the context's that takes certificates. What it raises is said again with a name to it.
static void load(mp_obj_t context, qstr name, size_t n_args, mp_obj_t arg1, mp_obj_t arg2, const char *problem) {
    nlr_buf_t nlr;
    if (nlr_push(&nlr) == 0) {
        mp_obj_t method[4];
        mp_load_method(context, name, method);
        method[2] = arg1;
        method[3] = arg2;
        mp_call_method_n_kw(n_args, 0, method);
        nlr_pop();
        return;
    }
    if (raised(nlr.ret_val, &mp_type_ValueError) || raised(nlr.ret_val, &mp_type_OSError)) {
        umqtt_raise_mqtt(-MP_EPROTO, problem);
    }
    nlr_jump(nlr.ret_val);
}

void umqtt_tls_load(umqtt_tls_t *tls, mp_obj_t ca) {
    mp_obj_t module = tls_module(MP_QSTR_SSLContext);
    if (module == MP_OBJ_NULL) {
        tls->context = tls_module(MP_QSTR_wrap_socket);
        if (tls->context == MP_OBJ_NULL) {
            umqtt_raise_no_tls();
        }
        tls->module = true;
    }
    mp_obj_t context = tls->module ? MP_OBJ_NULL : new_context(module);
    // Over axTLS, MicroPython has contexts that cannot either.
    if (ca != mp_const_none
        && (tls->module || !has(module, MP_QSTR_CERT_REQUIRED) || !has(context, MP_QSTR_load_verify_locations))) {
        mp_raise_ValueError(MP_ERROR_TEXT("ssl_params: ca: this firmware's TLS cannot verify a certificate"));
    }
    if (tls->module) {
        return;
    }
    mp_obj_t verify_mode = mp_load_attr(module, ca == mp_const_none ? MP_QSTR_CERT_NONE : MP_QSTR_CERT_REQUIRED);
    mp_store_attr(context, MP_QSTR_verify_mode, verify_mode);
    if (ca != mp_const_none) {
        load(context, MP_QSTR_load_verify_locations, 1, ca, MP_OBJ_NULL,
            "ssl_params: ca: no certificate in PEM or DER that this firmware's TLS can read");
    }
    if (tls->cert != mp_const_none) {
        load(context, MP_QSTR_load_cert_chain, 2, tls->cert, tls->key,
            "ssl_params: cert, key: no certificate with its key in PEM or DER that this firmware's TLS can read");
    }
    tls->context = context;
    tls->cert = tls->key = mp_const_none;
}

// The TLS module's stream over the link.
static mp_obj_t wrap(umqtt_link_t *link, const umqtt_tls_t *tls) {
    mp_obj_t args[2 + 1 + 2 * 4];
    mp_load_method(tls->context, MP_QSTR_wrap_socket, args);
    args[2] = MP_OBJ_FROM_PTR(link);
    mp_obj_t *kw = &args[3];
    *kw++ = MP_OBJ_NEW_QSTR(tls->module ? MP_QSTR_do_handshake : MP_QSTR_do_handshake_on_connect);
    *kw++ = mp_const_false;
    if (tls->hostname != mp_const_none) {
        *kw++ = MP_OBJ_NEW_QSTR(MP_QSTR_server_hostname);
        *kw++ = tls->hostname;
    }
    if (tls->module && tls->cert != mp_const_none) {
        *kw++ = MP_OBJ_NEW_QSTR(MP_QSTR_cert);
        *kw++ = tls->cert;
        *kw++ = MP_OBJ_NEW_QSTR(MP_QSTR_key);
        *kw++ = tls->key;
    }
    return mp_call_method_n_kw(1, (kw - &args[3]) / 2, args);
}

// TLS 1.0 has long been given up as unsafe; and its records, of which mbedTLS makes two a call, would break tls_send().
static void refuse_old(mp_obj_t stream) {
    mp_obj_t cipher[2];
    mp_load_method_maybe(stream, MP_QSTR_cipher, cipher);
    if (cipher[0] != MP_OBJ_NULL) {
        mp_obj_t version = mp_obj_subscr(mp_call_method_n_kw(0, 0, cipher), MP_OBJ_NEW_SMALL_INT(1), MP_OBJ_SENTINEL);
        if (strcmp(mp_obj_str_get_str(version), "TLSv1.0") == 0) {
            mp_raise_ValueError(MP_ERROR_TEXT("server speaks no later version than TLS 1.0"));
        }
    }
}

// A step of the handshake: 0 when it is over, MP_EAGAIN while it is under way, MP_EPROTO.
static int shake_hands(umqtt_link_t *link, const umqtt_tls_t *tls) {
    if (link->tls == MP_OBJ_NULL) {
        mp_obj_t stream = wrap(link, tls);
        mp_get_stream_raise(stream, MP_STREAM_OP_READ | MP_STREAM_OP_WRITE | MP_STREAM_OP_IOCTL);
        link->tls = stream;
        umqtt_settle(MP_OBJ_TO_PTR(stream));
    }
    // There is no telling when a handshake is over, but by something to send. Nothing will do: an empty record.
    int error = 0;
    link->reads = 0;
    if (mp_get_stream(link->tls)->write(link->tls, "", 0, &error) != MP_STREAM_ERROR) {
        refuse_old(link->tls);
        link->write_wants = MP_STREAM_POLL_WR;
        return 0;
    }
    link->write_wants = link->blocked;
    if (not_now(error)) {
        return MP_EAGAIN;
    }
    failed(link, error);
    return MP_EPROTO;
}

// Sends what can be without waiting: the number of bytes, or an error, negated.
//
// The TLS module has encrypted the data when the socket does not take them, and wants nothing but to be called again, with
// the same. So they are as good as sent; but they are counted byte by byte, one whenever the socket has taken a part of the
// record, and the rest when it has taken all of it: nobody gives up what has been encrypted, and a slow peer is no dead one.
// How much went into the record, the module says only then. Should it be off by then, as a read may send it off, the module
// is not asked again: it would encrypt the same data once more.
static mp_int_t tls_send(umqtt_link_t *link, const uint8_t *data, size_t len) {
    enum { SMALLEST = 64 }; // What a record may be limited to at worst: RFC 8449, 4.
    size_t given = link->held;
    if (given > 0) {
        given = MIN(given, link->counted + len);
    } else if (!link->pending) {
        given = MIN(len, link->most);
    }
    // Otherwise, a record of its own (an alert) goes first, with nothing: it would take that for the data, sent already.
    int error = 0;
    link->moved = false;
    link->reads = 0;
    mp_uint_t n = given;
    if (link->held == 0) {
        link->data = data;
    }
    if (link->held == 0 || link->pending) {
        n = mp_get_stream(link->tls)->write(link->tls, link->data, given, &error);
    } else if (given > link->sure) {
        // It is off, and there is no telling how much was in it.
        return -failed(link, MP_EPROTO);
    }
    if (n != MP_STREAM_ERROR) {
        link->sure = n < given ? n : MAX(link->sure, n);
        if (n < given && n >= UMQTT_TLS_RECORD) {
            link->most = n;
        }
        mp_int_t done = n - link->counted;
        link->held = link->counted = 0;
        link->data = NULL; // else the collector would find the payload here
        link->write_wants = MP_STREAM_POLL_WR;
        return done;
    }
    if (!not_now(error)) {
        return -failed(link, error);
    }
    link->write_wants = link->blocked;
    if (link->pending && given > 0) {
        bool moved = link->moved || link->held == 0;
        link->held = given;
        if (moved && MIN(given, SMALLEST) > link->counted + 1u) {
            link->counted++;
            return 1;
        }
    }
    return -MP_EAGAIN;
}

// Was there nothing in the last record? There may be such (RFC 5246, 6.2.1), and TLS modules report them like the end of the
// stream, of which an alert tells: in TLS 1.3 it looks like data, of a size that is known.
static bool is_empty(const umqtt_link_t *link) {
    enum { ALERT_SIZE = 2 + 1 + 16, SHORT_ALERT_SIZE = 2 + 1 + 8 };
    size_t size = link->seen - UMQTT_TLS_HEADER;
    return link->record[0] == APPLICATION_DATA && !link->ended && size != ALERT_SIZE && size != SHORT_ALERT_SIZE;
}

// Receives what can be without waiting: the number of bytes, or an error, negated. Fewer than asked for means that there are
// no more at this moment; none: the peer closed the connection; more: a part of a record has come, and no data.
//
// Reads record after record, for no wait for the socket tells of data that the TLS module has. Nor of an end, or a failure,
// that it has met behind them, and maybe says only once: then the next wait is for what there is always.
static mp_int_t tls_receive(umqtt_link_t *link, uint8_t *data, size_t len) {
    enum { AT_ONCE = MP_STREAM_POLL_RD | MP_STREAM_POLL_WR };
    volatile size_t done = 0;
    nlr_buf_t nlr;
    if (nlr_push(&nlr) != 0) {
        if (done == 0) {
            nlr_jump(nlr.ret_val);
        }
        link_failed(link, MP_OBJ_FROM_PTR(nlr.ret_val));
        link->read_wants = AT_ONCE;
        return done;
    }
    int error = 0;
    mp_uint_t n = 0;
    link->reads = 0;
    link->partial = false;
    bool again = true;
    while (done < len && again) {
        link->fed = false;
        n = mp_get_stream(link->tls)->read(link->tls, data + done, len - done, &error);
        if (n != MP_STREAM_ERROR && n > 0) {
            done += n;
            continue;
        }
        // There may be more behind a record that it could not answer with an alert, or that says nothing.
        again = link->fed && (n == 0 ? is_empty(link) : not_now(error));
    }
    nlr_pop();
    if (done > 0) {
        link->failure = MP_OBJ_NULL;
    }
    if (n == MP_STREAM_ERROR && not_now(error)) {
        link->read_wants = link->blocked;
    } else if (done < len) {
        link->ended = link->ended || n == 0;
        link->read_wants = AT_ONCE;
    }
    if (done > 0 || link->ended) {
        return done;
    }
    return !not_now(error) ? -failed(link, error) : link->partial ? (mp_int_t)len + 1 : -MP_EAGAIN;
}
#endif

/******************************************************************************/
// The engine's port

bool umqtt_is_address(umqtt_bytes_t host) {
    bool dotted = true;
    for (size_t i = 0; i < host.len; i++) {
        if (host.data[i] == ':') {
            return true;
        }
        dotted = dotted && (host.data[i] == '.' || (host.data[i] >= '0' && host.data[i] <= '9'));
    }
    return dotted;
}

// An attempt to connect belongs to its thread; without threads it goes on from call to call.
static mp_obj_t *address_of(umqtt_frame_t *frame) {
    return MICROPY_PY_THREAD ? &frame->address : &frame->core->address;
}

int32_t umqtt_port_resolve(umqtt_call_t *call) {
    umqtt_frame_t *frame = umqtt_frame_of(call);
    const umqtt_settings_t *to = umqtt_settings(call);
    nlr_buf_t nlr;
    if (nlr_push(&nlr) == 0) {
        mp_obj_t module = frame->core->socket_module;
        if (module == MP_OBJ_NULL) {
            // Once, by the script's first connect(): an import may look through the file system, with more stack than all
            // the rest.
            module = mp_import_name(UMQTT_QSTR_SOCKET, mp_const_none, MP_OBJ_NEW_SMALL_INT(0));
            frame->core->socket_module = module;
            umqtt_settle(MP_OBJ_TO_PTR(module));
        }
        mp_obj_t args[] = {
            mp_obj_new_str((const char *)to->server.data, to->server.len),
            MP_OBJ_NEW_SMALL_INT(to->port),
            mp_load_attr(module, to->ipv6 ? MP_QSTR_AF_INET6 : MP_QSTR_AF_INET),
            mp_load_attr(module, MP_QSTR_SOCK_STREAM),
        };
        mp_obj_t getaddrinfo = mp_load_attr(module, MP_QSTR_getaddrinfo);
        // A resolver that hangs has to be left with Ctrl-C. An address needs none.
        if (!umqtt_is_address(to->server)) {
            umqtt_allow_interrupt(frame);
        }
        mp_obj_t entries = mp_call_function_n_kw(getaddrinfo, 4, 0, args);
        umqtt_block_interrupt(frame);
        *address_of(frame) = umqtt_address(entries, args[2]);
        nlr_pop();
        return 0;
    }
    int error = umqtt_caught(frame, nlr.ret_val);
    return error == MP_ENOMEM ? error : MP_ENOENT;
}

umqtt_object_t *umqtt_port_socket(umqtt_call_t *call, int32_t *error) {
    umqtt_frame_t *frame = umqtt_frame_of(call);
    nlr_buf_t nlr;
    if (nlr_push(&nlr) == 0) {
        frame->link = link_new();
        link_open(frame->link, frame->core->socket_module, *address_of(frame));
        nlr_pop();
        #if UMQTT_LINUX
        // For the pieces of a handshake.
        set_at_once(frame->link, umqtt_link_fd(frame->link), true);
        #endif
        return frame->link;
    }
    *error = umqtt_caught(frame, nlr.ret_val);
    return NULL;
}

static int connect_tcp(umqtt_frame_t *frame, umqtt_link_t *link) {
    volatile int events = 0;
    nlr_buf_t nlr;
    if (nlr_push(&nlr) == 0) {
        #if !UMQTT_LINUX
        events = umqtt_stream_ioctl(link->socket, MP_STREAM_POLL, MP_STREAM_POLL_WR);
        #endif
        link_connect(link, *address_of(frame));
        nlr_pop();
        return 0;
    }
    int error = umqtt_caught(frame, nlr.ret_val);
    switch (error) {
        case MP_EISCONN:
            return 0;
        case MP_EINPROGRESS:
            return MP_EAGAIN;
        case MP_EALREADY:
            // lwIP says this also of a connection that is made, and whose other end has closed since.
            return events == MP_STREAM_POLL_WR ? 0 : MP_EAGAIN;
        #if !UMQTT_LINUX
        case MP_EBADF: {
            // lwIP has let go of an attempt that failed; a read still tells why.
            uint8_t byte;
            ptrdiff_t n = umqtt_port_receive(&frame->call, link, &byte, sizeof(byte));
            error = n < 0 ? -n : MP_EBADF;
        }
        #endif
    }
    #if !UMQTT_LINUX
    // What lwIP calls them.
    if (error == MP_ECONNRESET) {
        error = MP_ECONNREFUSED;
    } else if (error == MP_ECONNABORTED) {
        error = MP_ETIMEDOUT;
    }
    #endif
    return error;
}

// Around everything that the TLS module does. What is under the client's lock needs the second one only while a handshake
// is in a step, which does not have the client's lock; whether one is, changes under the client's lock to yes.
static inline bool lock_tls(umqtt_frame_t *frame, bool handshake) {
    #if MICROPY_PY_THREAD && !MICROPY_PY_THREAD_GIL
    umqtt_core_t *core = frame->core;
    if (handshake) {
        umqtt_port_lock(&frame->call);
        __atomic_add_fetch(&core->handshakes, 1, __ATOMIC_RELAXED);
        umqtt_port_unlock(&frame->call, false, false, false, NULL);
    } else if (__atomic_load_n(&core->handshakes, __ATOMIC_ACQUIRE) == 0) {
        return false;
    }
    mp_thread_mutex_lock(&core->tls_lock, 1);
    return true;
    #else
    (void)frame;
    (void)handshake;
    return false;
    #endif
}

static inline void unlock_tls(umqtt_frame_t *frame, bool locked, bool handshake) {
    #if MICROPY_PY_THREAD && !MICROPY_PY_THREAD_GIL
    if (locked) {
        mp_thread_mutex_unlock(&frame->core->tls_lock);
    }
    if (handshake) {
        __atomic_sub_fetch(&frame->core->handshakes, 1, __ATOMIC_RELEASE);
    }
    #else
    (void)frame;
    (void)locked;
    (void)handshake;
    #endif
}

// The TLS module raises others than OSError too, and an OSError with a number of its own.
static int caught_tls(umqtt_frame_t *frame, umqtt_link_t *link, void *value) {
    int error = umqtt_caught(frame, value);
    if (UMQTT_TLS && frame->core->tls.context != MP_OBJ_NULL && frame->exception == MP_OBJ_NULL) {
        link_failed(link, MP_OBJ_FROM_PTR(value));
        error = error == MP_EIO ? MP_EPROTO : error;
    }
    return error;
}

static int connect_step(umqtt_frame_t *frame, umqtt_link_t *link) {
    #if !UMQTT_TLS
    return connect_tcp(frame, link);
    #else
    if (link->tls == MP_OBJ_NULL) {
        int error = connect_tcp(frame, link);
        if (error != 0 || frame->core->tls.context == MP_OBJ_NULL) {
            return error;
        }
    }
    nlr_buf_t nlr;
    bool locked = lock_tls(frame, true);
    if (nlr_push(&nlr) == 0) {
        int error = shake_hands(link, &frame->core->tls);
        nlr_pop();
        unlock_tls(frame, locked, true);
        return error;
    }
    unlock_tls(frame, locked, true);
    int error = caught_tls(frame, link, nlr.ret_val);
    return frame->exception != MP_OBJ_NULL || error == MP_ENOMEM ? error : MP_EPROTO;
    #endif
}

int32_t umqtt_port_connect(umqtt_call_t *call, umqtt_object_t *socket) {
    umqtt_frame_t *frame = umqtt_frame_of(call);
    int error = connect_step(frame, socket);
    #if UMQTT_TLS
    if (error != 0 && error != MP_EAGAIN) {
        // For what the calls of other threads say of it. Nobody may want the attempt any more, and there be another connection.
        umqtt_core_t *core = frame->core;
        umqtt_port_lock(call);
        if (core->link == NULL || core->link->closed) {
            core->link = socket;
        }
        umqtt_port_unlock(call, false, false, false, NULL);
    }
    #endif
    #if !UMQTT_LINUX
    if (error == 0) {
        // CONNACK comes soon.
        frame->tick = 1;
    }
    #endif
    return error;
}

// Sends or receives.
static UMQTT_SHARED ptrdiff_t transfer(umqtt_frame_t *frame, umqtt_link_t *link, uint8_t *data, size_t len, bool sends) {
    nlr_buf_t nlr;
    bool locked = lock_tls(frame, false);
    if (nlr_push(&nlr) != 0) {
        unlock_tls(frame, locked, false);
        return -caught_tls(frame, link, nlr.ret_val);
    }
    ptrdiff_t n;
    #if UMQTT_TLS
    if (link->tls != MP_OBJ_NULL) {
        n = sends ? tls_send(link, data, len) : tls_receive(link, data, len);
    } else
    #endif
    {
        const mp_stream_p_t *stream = mp_get_stream(link->socket);
        // Some ports set no error at the end of the stream.
        int error = sends ? MP_EIO : 0;
        mp_uint_t done = sends ? stream->write(link->socket, data, len, &error) : stream->read(link->socket, data, len, &error);
        n = done != MP_STREAM_ERROR ? (ptrdiff_t)done : !sends && UMQTT_IS_END_OF_STREAM(error) ? 0 : -error;
    }
    nlr_pop();
    unlock_tls(frame, locked, false);
    return n;
}

ptrdiff_t umqtt_port_send(umqtt_call_t *call, umqtt_object_t *socket, const uint8_t *data, size_t len) {
    umqtt_frame_t *frame = umqtt_frame_of(call);
    umqtt_link_t *link = socket;
    frame->core->link = link;
    #if UMQTT_LINUX
    if (link->sent && link->at_once) {
        set_at_once(link, umqtt_link_fd(link), false);
    }
    link->sent = true;
    link->received = false;
    // Those who only listen leave acknowledgements to TCP.
    link->asking = 4;
    #endif
    return transfer(frame, link, (uint8_t *)data, len, true);
}

ptrdiff_t umqtt_port_receive(umqtt_call_t *call, umqtt_object_t *socket, uint8_t *data, size_t len) {
    umqtt_link_t *link = socket;
    ptrdiff_t n = transfer(umqtt_frame_of(call), link, data, len, false);
    #if UMQTT_LINUX
    link->received = link->received || n > 0;
    #endif
    return n;
}

static void close_stream(umqtt_frame_t *frame, mp_obj_t stream) {
    if (stream == MP_OBJ_NULL) {
        return;
    }
    nlr_buf_t nlr;
    if (nlr_push(&nlr) == 0) {
        umqtt_stream_ioctl(stream, MP_STREAM_CLOSE, 0);
        nlr_pop();
    } else {
        umqtt_caught(frame, nlr.ret_val);
    }
}

void umqtt_port_close(umqtt_call_t *call, umqtt_object_t *socket) {
    umqtt_frame_t *frame = umqtt_frame_of(call);
    umqtt_link_t *link = socket;
    #if UMQTT_TLS
    close_stream(frame, link->tls);
    #endif
    close_stream(frame, link->socket);
    #if UMQTT_TLS
    link->closed = true;
    #endif
}
