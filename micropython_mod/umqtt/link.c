// Connections: MicroPython's sockets, and its TLS module over them. Nothing here blocks.
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

// Bytes that the TLS module surely puts into one record, as its output buffer goes: MBEDTLS_SSL_OUT_CONTENT_LEN, which is
// this in MicroPython's own configuration. It may turn out to be more.
#ifndef UMQTT_TLS_RECORD
#define UMQTT_TLS_RECORD (4096)
#endif
// The most that there may be in one (RFC 8446, 5.1).
#define TLS_LARGEST_RECORD (16384)

/******************************************************************************/
// The link as a stream

#if UMQTT_TLS
static bool not_now(int error) {
    return error == MP_EAGAIN || error == -MP_EAGAIN; // the latter on QuecPython
}

// Goes along with the records that come in: all of them begin with a type, a version and a length (RFC 8446, 5.1).
static void follow(umqtt_link_t *link, const byte *data, size_t n) {
    while (n > 0) {
        size_t size = UMQTT_TLS_HEADER + (link->record[3] << 8 | link->record[4]);
        if (link->seen >= UMQTT_TLS_HEADER && link->seen == size) {
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
        // The socket is closed by port.c: a TLS stream that failed would not do it. And the collector may be here, with
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

umqtt_link_t *umqtt_link_new(void) {
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

void umqtt_link_open(umqtt_link_t *link, mp_obj_t socket_module, mp_obj_t address) {
    size_t n;
    mp_obj_t *entry;
    mp_obj_get_array(address, &n, &entry);
    mp_obj_t socket = mp_call_function_n_kw(mp_load_attr(socket_module, MP_QSTR_socket), 3, 0, entry);
    link->socket = socket;
    call_method(socket, MP_QSTR_setblocking, mp_const_false);
    umqtt_settle(MP_OBJ_TO_PTR(socket));
}

void umqtt_link_connect(umqtt_link_t *link, mp_obj_t address) {
    call_method(link->socket, MP_QSTR_connect, mp_obj_subscr(address, MP_OBJ_NEW_SMALL_INT(-1), MP_OBJ_SENTINEL));
}

/******************************************************************************/
// TLS

MP_NORETURN void umqtt_raise_no_tls(void) {
    mp_raise_NotImplementedError(MP_ERROR_TEXT("ssl: no TLS module in this firmware"));
}

void umqtt_link_failed(umqtt_link_t *link, mp_obj_t failure) {
    link->failure = failure;
    umqtt_settle(mp_obj_is_obj(failure) ? MP_OBJ_TO_PTR(failure) : NULL);
}

#if UMQTT_TLS
int umqtt_link_alert(const umqtt_link_t *link) {
    enum { ALERT = 21 };
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
        umqtt_link_failed(link, MP_OBJ_NEW_SMALL_INT(error));
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
            "ssl_params: ca: no certificate in PEM or DER");
    }
    if (tls->cert != mp_const_none) {
        load(context, MP_QSTR_load_cert_chain, 2, tls->cert, tls->key,
            "ssl_params: cert, key: no certificate with its key in PEM or DER");
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

// TLS 1.0 has long been given up as unsafe; and its records, of which mbedTLS makes two a call, would break umqtt_tls_send().
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

int umqtt_link_handshake(umqtt_link_t *link, const umqtt_tls_t *tls) {
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

// The TLS module has encrypted the data when the socket does not take them, and wants nothing but to be called again, with
// the same. So they are as good as sent; but they are counted byte by byte, one whenever the socket has taken a part of the
// record, and the rest when it has taken all of it: nobody gives up what has been encrypted, and a slow peer is no dead one.
// How much went into the record, the module says only then. Should it be off by then, as a read may send it off, the module
// is not asked again: it would encrypt the same data once more.
mp_int_t umqtt_tls_send(umqtt_link_t *link, const uint8_t *data, size_t len) {
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
    enum { APPLICATION_DATA = 23, ALERT_SIZE = 2 + 1 + 16, SHORT_ALERT_SIZE = 2 + 1 + 8 };
    size_t size = link->seen - UMQTT_TLS_HEADER;
    return link->record[0] == APPLICATION_DATA && !link->ended && size != ALERT_SIZE && size != SHORT_ALERT_SIZE;
}

// Reads record after record, for no wait for the socket tells of data that the TLS module has. Nor of an end, or a failure,
// that it has met behind them, and maybe says only once: then the next wait is for what there is always.
mp_int_t umqtt_tls_receive(umqtt_link_t *link, uint8_t *data, size_t len) {
    enum { AT_ONCE = MP_STREAM_POLL_RD | MP_STREAM_POLL_WR };
    volatile size_t done = 0;
    nlr_buf_t nlr;
    if (nlr_push(&nlr) != 0) {
        if (done == 0) {
            nlr_jump(nlr.ret_val);
        }
        umqtt_link_failed(link, MP_OBJ_FROM_PTR(nlr.ret_val));
        link->read_wants = AT_ONCE;
        return done;
    }
    int error = 0;
    mp_uint_t n = 0;
    link->reads = 0;
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
    return not_now(error) ? -MP_EAGAIN : -failed(link, error);
}
#endif
