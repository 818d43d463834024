// What a call of the engine came to, in words and as an exception: see outcome.h.

#include <string.h>

#include "py/builtin.h"
#include "py/mperrno.h"
#include "py/objexcept.h"
#include "py/runtime.h"
#include "compat.h"
#include "link.h"
#include "outcome.h"
#include "port.h"

MP_DEFINE_EXCEPTION(MQTTException, ValueError);

// Texts by number, one behind the other: a table of pointers would take four bytes more for each. The first are what an
// outcome is in words, with `detail` for a number; empty: nobody asks for it in words.
static const char texts[] =
    "name not resolved\0" // UMQTT_WHAT_DNS
    " failed (errno %d)\0" // UMQTT_WHAT_DIAL
    "connection failed (errno %d)\0" // UMQTT_WHAT_IO
    "server closed the connection\0" // UMQTT_WHAT_CLOSED
    " timed out\0" // UMQTT_WHAT_UNREACHABLE
    "no CONNACK in time\0" // UMQTT_WHAT_SILENT
    "server stopped reading within a packet\0" // UMQTT_WHAT_STALLED
    "no PINGRESP in time\0" // UMQTT_WHAT_NO_PINGRESP
    "server sent a malformed packet: \0" // UMQTT_WHAT_MALFORMED
    "server sent an unexpected packet: type %d\0" // UMQTT_WHAT_UNEXPECTED
    "connection refused: \0" // UMQTT_WHAT_REFUSED
    "\0" // UMQTT_WHAT_INTERRUPTED
    "closed while connecting\0" // UMQTT_WHAT_NOT_CONNECTED
    "\0" // UMQTT_WHAT_TIMED_OUT
    "server refused the subscription\0" // UMQTT_WHAT_SUBSCRIPTION_REFUSED
    "\0" // UMQTT_WHAT_NO_MEMORY
    // For UMQTT_WHAT_MALFORMED; empty: no server's packet is wrong in this way.
    "wrong remaining length\0" // UMQTT_MALFORMED_REMAINING_LENGTH
    "reserved packet type\0" // UMQTT_MALFORMED_KIND
    "wrong flags\0" // UMQTT_MALFORMED_FLAGS
    "QoS 3\0" // UMQTT_MALFORMED_QOS
    "packet identifier 0\0" // UMQTT_MALFORMED_PACKET_ID
    "\0" // UMQTT_MALFORMED_PROTOCOL
    "\0" // UMQTT_MALFORMED_VERSION
    "\0" // UMQTT_MALFORMED_CONNECT_FLAGS
    "unknown return code\0" // UMQTT_MALFORMED_RETURN_CODE
    "wrong session present\0" // UMQTT_MALFORMED_SESSION_PRESENT
    "empty topic, or one with a wildcard\0" // UMQTT_MALFORMED_TOPIC
    "text that is not UTF-8\0" // UMQTT_MALFORMED_UTF8
    "\0" // UMQTT_MALFORMED_TOO_LONG
    // For UMQTT_WHAT_REFUSED: table 3.1.
    "unacceptable protocol version\0"
    "client identifier rejected\0"
    "server unavailable\0"
    "bad user name or password\0"
    "not authorized";

// What comes before the text with number 1 of the latter two.
enum { BEFORE_MALFORMED = UMQTT_WHAT_NO_MEMORY, BEFORE_REFUSED = BEFORE_MALFORMED + UMQTT_MALFORMED_TOO_LONG };

// The text with this number, counted from 0.
static const char *text_of(int number) {
    const char *text = texts;
    while (number-- > 0) {
        text += strlen(text) + 1;
    }
    return text;
}

// The number that tells it best: an errno, or the return code of SUBACK; 0: `detail` is the errno.
static const uint8_t errors[] = {
    [UMQTT_WHAT_CLOSED] = MP_ECONNRESET,
    [UMQTT_WHAT_UNREACHABLE] = MP_ETIMEDOUT,
    [UMQTT_WHAT_SILENT] = MP_ETIMEDOUT,
    [UMQTT_WHAT_STALLED] = MP_ETIMEDOUT,
    [UMQTT_WHAT_NO_PINGRESP] = MP_ETIMEDOUT,
    [UMQTT_WHAT_MALFORMED] = MP_EPROTO,
    [UMQTT_WHAT_UNEXPECTED] = MP_EPROTO,
    [UMQTT_WHAT_REFUSED] = MP_ECONNRESET,
    [UMQTT_WHAT_NOT_CONNECTED] = MP_ENOTCONN,
    [UMQTT_WHAT_TIMED_OUT] = MP_ETIMEDOUT,
    [UMQTT_WHAT_SUBSCRIPTION_REFUSED] = 128,
    [UMQTT_WHAT_NO_MEMORY] = MP_ENOMEM,
};

#if UMQTT_TLS
// Lines, some empty, as one.
static void print_lines(const mp_print_t *print, const char *text) {
    const char *between = "";
    while (*text != 0) {
        const char *end = text;
        while (*end != 0 && *end != '\n') {
            end++;
        }
        if (end > text) {
            mp_printf(print, "%s%.*s", between, (int)(end - text), text);
            between = ", ";
        }
        text = *end == 0 ? end : end + 1;
    }
}
#endif

// What TLS failed with, in words: those of the TLS module, but where they are about certificates.
static void print_tls_failure(const mp_print_t *print, const umqtt_link_t *link) {
    #if UMQTT_TLS
    mp_obj_t failure = link->failure;
    // mbedTLS's own number for an alert from the server; it does not tell which.
    enum { REFUSED = -0x7780 };
    static const char *const meanings[][2] = {
        { "not correctly signed", "certificate not trusted" },
        { "not match", "wrong host name: the certificate is not for this one" },
        { "expired", "certificate expired" },
        { "in the future", "certificate not valid yet" },
        { "invalid SSL record", "that is no TLS: maybe the server does not speak it at this port" },
    };
    // RFC 8446, 6.
    enum { CLOSE_NOTIFY = 0, HANDSHAKE_FAILURE = 40, DECRYPT_ERROR = 51, PROTOCOL_VERSION = 70, UNRECOGNIZED_NAME = 112 };
    mp_int_t number = 0;
    const char *text = "";
    if (mp_obj_is_small_int(failure)) {
        number = MP_OBJ_SMALL_INT_VALUE(failure);
    } else if (failure != MP_OBJ_NULL) {
        size_t n;
        mp_obj_t *args;
        mp_obj_get_array(mp_load_attr(failure, MP_QSTR_args), &n, &args);
        for (size_t i = 0; i < n; i++) {
            if (mp_obj_is_small_int(args[i])) {
                number = MP_OBJ_SMALL_INT_VALUE(args[i]);
            } else if (mp_obj_is_str(args[i])) {
                text = mp_obj_str_get_str(args[i]);
            }
        }
    }
    bool found = false;
    for (size_t i = 0; i < MP_ARRAY_SIZE(meanings); i++) {
        if (strstr(text, meanings[i][0]) != NULL) {
            mp_printf(print, found ? ", %s" : "%s", meanings[i][1]);
            found = true;
        }
    }
    int alert = umqtt_link_alert(link);
    if (number == REFUSED || (number > 0 && alert > CLOSE_NOTIFY)) {
        mp_print_str(print, alert == PROTOCOL_VERSION ? "server wants another version of TLS"
            : alert == UNRECOGNIZED_NAME ? "server does not know this host name"
            : alert == HANDSHAKE_FAILURE && !link->agreed ? "server and client have no cipher in common"
            : alert == DECRYPT_ERROR ? "server refused the client's signature: maybe the key is not that of the certificate"
            : "server refused the connection: maybe it wants a client certificate, or another one");
    } else if (link->ended || number == MP_ECONNRESET || number == MP_EPIPE) {
        mp_print_str(print, "server closed the connection: maybe it does not speak TLS at this port");
    } else if (text[0] == 0) {
        mp_printf(print, "error %d", (int)number);
    } else if (!found) {
        print_lines(print, text);
    }
    #endif
}

static void print_outcome(const mp_print_t *print, umqtt_outcome_t outcome, const umqtt_link_t *link) {
    bool tls = UMQTT_TLS && link != NULL && (link->tls != MP_OBJ_NULL || link->failure != MP_OBJ_NULL);
    if (tls && outcome.detail == MP_EPROTO && (outcome.what == UMQTT_WHAT_DIAL || outcome.what == UMQTT_WHAT_IO)) {
        mp_print_str(print, outcome.what == UMQTT_WHAT_DIAL ? "TLS handshake failed" : "TLS failed");
        // The error callback may be told when there is another connection already.
        if (link->failure != MP_OBJ_NULL) {
            mp_print_str(print, ": ");
            print_tls_failure(print, link);
        }
        return;
    }
    int number = outcome.what;
    if (number == UMQTT_WHAT_DIAL || number == UMQTT_WHAT_UNREACHABLE) {
        mp_print_str(print, tls ? "TLS handshake" : "TCP connection");
    } else if (number == UMQTT_WHAT_IO && (outcome.detail == MP_ECONNRESET || outcome.detail == MP_EPIPE)) {
        number = UMQTT_WHAT_CLOSED;
    }
    mp_printf(print, text_of(number), (int)outcome.detail);
    if (number == UMQTT_WHAT_MALFORMED || number == UMQTT_WHAT_REFUSED) {
        mp_print_str(print, text_of((number == UMQTT_WHAT_MALFORMED ? BEFORE_MALFORMED : BEFORE_REFUSED) + outcome.detail));
    }
}

mp_obj_t umqtt_describe(umqtt_outcome_t outcome, const umqtt_link_t *link, const umqtt_settings_t *server) {
    vstr_t text;
    mp_print_t print;
    vstr_init_print(&text, 64, &print);
    if (server != NULL) {
        umqtt_bytes_t name = server->server;
        mp_printf(&print, "%.*s:%u: ", (int)name.len, (const char *)name.data, (unsigned)server->port);
    }
    print_outcome(&print, outcome, link);
    return mp_obj_new_str(text.buf, text.len);
}

MP_NORETURN void umqtt_raise_mqtt(int code, const char *text) {
    mp_obj_t args[] = { MP_OBJ_NEW_SMALL_INT(code), mp_obj_new_str(text, strlen(text)) };
    nlr_raise(mp_obj_new_exception_args(&mp_type_MQTTException, MP_ARRAY_SIZE(args), args));
}

MP_NORETURN void umqtt_raise(umqtt_frame_t *frame, umqtt_outcome_t outcome, bool connecting) {
    const mp_obj_type_t *type = &mp_type_OSError;
    const umqtt_link_t *link = frame->core->link;
    const umqtt_settings_t *server = NULL;
    int code = errors[outcome.what] != 0 ? errors[outcome.what] : outcome.detail;
    size_t n = 2;
    if (connecting) {
        type = &mp_type_MQTTException;
        link = frame->link;
        server = umqtt_settings(&frame->call);
        code = outcome.what == UMQTT_WHAT_REFUSED ? outcome.detail
            : outcome.what == UMQTT_WHAT_NOT_CONNECTED ? -MP_ECONNABORTED
            : -code;
    } else if (outcome.what == UMQTT_WHAT_SUBSCRIPTION_REFUSED) {
        type = &mp_type_MQTTException;
    } else if (outcome.what == UMQTT_WHAT_NO_MEMORY) {
        type = &mp_type_MemoryError;
        n = 0;
    } else if (code != MP_EPROTO) {
        // Of the others, the number alone says enough.
        n = 1;
    }
    mp_obj_t args[] = { MP_OBJ_NEW_SMALL_INT(code), MP_OBJ_NULL };
    if (n == MP_ARRAY_SIZE(args)) {
        args[1] = umqtt_describe(outcome, link, server);
    }
    nlr_raise(mp_obj_new_exception_args(type, n, args));
}
