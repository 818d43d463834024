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

static const char *malformed_text(int malformed) {
    switch (malformed) {
        case UMQTT_MALFORMED_REMAINING_LENGTH:
            return "wrong remaining length";
        case UMQTT_MALFORMED_KIND:
            return "reserved packet type";
        case UMQTT_MALFORMED_FLAGS:
            return "wrong flags";
        case UMQTT_MALFORMED_QOS:
            return "QoS 3";
        case UMQTT_MALFORMED_PACKET_ID:
            return "packet identifier 0";
        case UMQTT_MALFORMED_RETURN_CODE:
            return "unknown return code";
        case UMQTT_MALFORMED_SESSION_PRESENT:
            return "wrong session present";
        case UMQTT_MALFORMED_TOPIC:
            return "empty topic, or one with a wildcard";
        case UMQTT_MALFORMED_UTF8:
            return "text that is not UTF-8";
        default:
            return "malformed packet";
    }
}

static const char *refused_text(int code) {
    // Table 3.1.
    static const char *const texts[] = {
        "unacceptable protocol version",
        "client identifier rejected",
        "server unavailable",
        "bad user name or password",
        "not authorized",
    };
    return texts[code - 1];
}

// What an outcome is in words, with `detail` for a number, and the errno that tells it best; 0: `detail` is the errno.
static const struct {
    const char *text;
    int16_t error;
} failures[] = {
    [UMQTT_WHAT_NOT_CONNECTED] = { "closed while connecting", MP_ENOTCONN },
    [UMQTT_WHAT_TIMED_OUT] = { NULL, MP_ETIMEDOUT },
    [UMQTT_WHAT_NO_MEMORY] = { NULL, MP_ENOMEM },
    [UMQTT_WHAT_DNS] = { "name not resolved", 0 },
    [UMQTT_WHAT_DIAL] = { " failed (errno %d)", 0 },
    [UMQTT_WHAT_UNREACHABLE] = { " timed out", MP_ETIMEDOUT },
    [UMQTT_WHAT_SILENT] = { "CONNACK did not come in time", MP_ETIMEDOUT },
    [UMQTT_WHAT_IO] = { "connection failed (errno %d)", 0 },
    [UMQTT_WHAT_CLOSED] = { "server closed the connection", MP_ECONNRESET },
    [UMQTT_WHAT_STALLED] = { "server stopped reading in the middle of a packet", MP_ETIMEDOUT },
    [UMQTT_WHAT_NO_PINGRESP] = { "server did not answer PINGREQ in time", MP_ETIMEDOUT },
    [UMQTT_WHAT_MALFORMED] = { "server sent a malformed packet: ", MP_EPROTO },
    [UMQTT_WHAT_UNEXPECTED] = { "server sent a packet that does not belong here: type %d", MP_EPROTO },
    [UMQTT_WHAT_REFUSED] = { "connection refused: ", MP_ECONNRESET },
};

static int outcome_errno(umqtt_outcome_t outcome) {
    int error = outcome.what < MP_ARRAY_SIZE(failures) ? failures[outcome.what].error : 0;
    return error != 0 ? error : outcome.detail;
}

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
    };
    // RFC 8446, 6.
    enum { CLOSE_NOTIFY = 0, DECRYPT_ERROR = 51, PROTOCOL_VERSION = 70 };
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

void umqtt_print_outcome(const mp_print_t *print, umqtt_outcome_t outcome, const umqtt_link_t *link) {
    bool tls = UMQTT_TLS && link != NULL && (link->tls != MP_OBJ_NULL || link->failure != MP_OBJ_NULL);
    if (tls && outcome.detail == MP_EPROTO && (outcome.what == UMQTT_WHAT_DIAL || outcome.what == UMQTT_WHAT_IO)) {
        mp_print_str(print, outcome.what == UMQTT_WHAT_DIAL ? "TLS handshake failed: " : "TLS failed: ");
        print_tls_failure(print, link);
        return;
    }
    if (outcome.what == UMQTT_WHAT_DIAL || outcome.what == UMQTT_WHAT_UNREACHABLE) {
        mp_print_str(print, tls ? "TLS handshake" : "TCP connection");
    }
    const char *text = failures[outcome.what].text;
    mp_printf(print, text != NULL ? text : failures[UMQTT_WHAT_IO].text, (int)outcome.detail);
    if (outcome.what == UMQTT_WHAT_MALFORMED) {
        mp_print_str(print, malformed_text(outcome.detail));
    } else if (outcome.what == UMQTT_WHAT_REFUSED) {
        mp_print_str(print, refused_text(outcome.detail));
    }
}

static MP_NORETURN void raise_with_text(const mp_obj_type_t *type, int code, const vstr_t *text) {
    mp_obj_t args[] = { MP_OBJ_NEW_SMALL_INT(code), mp_obj_new_str(text->buf, text->len) };
    nlr_raise(mp_obj_exception_make_new(type, 2, 0, args));
}

MP_NORETURN void umqtt_raise_mqtt(int code, const char *words) {
    vstr_t text;
    vstr_init(&text, 64);
    vstr_add_str(&text, words);
    raise_with_text(&mp_type_MQTTException, code, &text);
}

MP_NORETURN void umqtt_raise_connect(umqtt_outcome_t outcome, umqtt_frame_t *frame) {
    vstr_t text;
    mp_print_t print;
    vstr_init_print(&text, 64, &print);
    const umqtt_settings_t *to = umqtt_settings(&frame->call);
    mp_printf(&print, "%.*s:%u: ", (int)to->server.len, (const char *)to->server.data, (unsigned)to->port);
    umqtt_print_outcome(&print, outcome, frame->link);
    int code = outcome.what == UMQTT_WHAT_REFUSED ? outcome.detail
        : outcome.what == UMQTT_WHAT_NOT_CONNECTED ? -MP_ECONNABORTED
        : -outcome_errno(outcome);
    raise_with_text(&mp_type_MQTTException, code, &text);
}

mp_obj_t umqtt_finish(umqtt_frame_t *frame, umqtt_outcome_t outcome) {
    umqtt_leave(frame);
    switch (outcome.what) {
        case UMQTT_WHAT_DONE:
            return mp_const_none;
        case UMQTT_WHAT_NO_MEMORY:
            mp_raise_type(&mp_type_MemoryError);
        case UMQTT_WHAT_SUBSCRIPTION_REFUSED:
            umqtt_raise_mqtt(128, "server refused the subscription");
        default:
            break;
    }
    int error = outcome_errno(outcome);
    if (error == MP_EPROTO) {
        // The number alone would not say much.
        vstr_t text;
        mp_print_t print;
        vstr_init_print(&text, 64, &print);
        umqtt_print_outcome(&print, outcome, frame->core->link);
        raise_with_text(&mp_type_OSError, error, &text);
    }
    mp_raise_OSError(error);
}
