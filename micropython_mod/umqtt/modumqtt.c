// The Python face: the type MQTTClient, its arguments, exceptions and callbacks. Of MQTT it knows
// the names; bytes and timing rules are the engine's.

#include <string.h>

#include "py/builtin.h"
#include "py/objmodule.h"
#include "py/objstr.h"
#include "py/runtime.h"
#include "compat.h"
#include "link.h"
#include "outcome.h"
#include "port.h"

// The largest text, and the largest remaining length of a packet (sections 1.5.3 and 2.2.3).
#define MAX_TEXT (65535)
#define MAX_REMAINING (268435455)

const mp_obj_type_t mp_type_MQTTClient;

static umqtt_core_t *core_of(mp_obj_t self_in) {
    umqtt_client_t *self = MP_OBJ_TO_PTR(self_in);
    return self->core;
}

// The end of most methods: leaves the engine, and raises what the call came to, if it failed.
static mp_obj_t finish(umqtt_frame_t *frame, umqtt_outcome_t outcome) {
    umqtt_leave(frame);
    if (outcome.what != UMQTT_WHAT_DONE) {
        umqtt_raise(frame, outcome, false);
    }
    return mp_const_none;
}

/******************************************************************************/
// Arguments

static MP_NORETURN void raise_type(qstr name, const char *expected) {
    mp_raise_msg_varg(&mp_type_TypeError, MP_ERROR_TEXT("%q: %s expected"), name, expected);
}

static MP_NORETURN void raise_value(qstr name, const char *problem) {
    mp_raise_msg_varg(&mp_type_ValueError, MP_ERROR_TEXT("%q: %s"), name, problem);
}

// What is in a str or bytes object; `false`: it is none. The engine may hold on to it: it begins a block of the heap, which
// the collector finds without the object, or lies outside of the heap.
static inline bool get_text(mp_obj_t object, umqtt_bytes_t *text) {
    if (!mp_obj_is_str(object) && !mp_obj_is_type(object, &mp_type_bytes)) {
        return false;
    }
    GET_STR_DATA_LEN(object, data, len);
    *text = (umqtt_bytes_t) { data, len };
    return true;
}

static inline void bytes_arg(umqtt_bytes_t *bytes, mp_obj_t arg, qstr name) {
    if (!get_text(arg, bytes)) {
        raise_type(name, "str or bytes");
    }
}

// What the engine asks of a text.
typedef struct _rule_t {
    bool (*check)(umqtt_bytes_t text);
    const char *problem;
} rule_t;

// Each text is the end of the one before.
static const char problems[] = "misplaced wildcard, empty, not UTF-8, or a NUL in it";
static const rule_t topic_filter = { umqtt_check_filter, problems };
static const rule_t topic_name = { umqtt_check_topic, problems + sizeof("misplaced ") - 1 };
static const rule_t utf8 = { umqtt_check_text, problems + sizeof("misplaced wildcard, empty, ") - 1 };

// `rule` NULL: any bytes.
static void text_arg(umqtt_bytes_t *text, mp_obj_t arg, qstr name, const rule_t *rule) {
    bytes_arg(text, arg, name);
    if (text->len > MAX_TEXT) {
        raise_value(name, "longer than 65535 bytes");
    }
    if (rule != NULL && !rule->check(*text)) {
        raise_value(name, rule->problem);
    }
}

// None and empty both mean absent.
static mp_obj_t none_to_empty(mp_obj_t arg) {
    return arg == mp_const_none ? MP_OBJ_NEW_QSTR(MP_QSTR_) : arg;
}

// A payload. `fixed`: the script cannot change it.
typedef struct _msg_t {
    umqtt_bytes_t bytes;
    bool fixed;
} msg_t;

// A str or any buffer.
static void msg_arg(msg_t *msg, mp_obj_t arg, size_t limit) {
    msg->fixed = get_text(arg, &msg->bytes);
    if (!msg->fixed) {
        mp_buffer_info_t buffer;
        if (!mp_get_buffer(arg, &buffer, MP_BUFFER_READ)) {
            raise_type(MP_QSTR_msg, "str or buffer");
        }
        // An empty buffer may be nowhere.
        msg->bytes = (umqtt_bytes_t) { buffer.len == 0 ? "" : buffer.buf, buffer.len };
    }
    if (msg->bytes.len > limit) {
        raise_value(MP_QSTR_msg, "too long");
    }
}

// Copies what the script may change.
static UMQTT_SHARED void fix(msg_t *msg) {
    if (!msg->fixed) {
        // Empty ones are somewhere, too.
        msg->bytes.data = memcpy(m_new(uint8_t, msg->bytes.len + 1), msg->bytes.data, msg->bytes.len);
        msg->fixed = true;
    }
}

static mp_int_t int_arg(mp_obj_t arg, qstr name, mp_int_t min, mp_int_t max) {
    mp_int_t value = min - 1;
    if (mp_obj_is_small_int(arg) || mp_obj_is_bool(arg)) {
        value = mp_obj_get_int(arg);
    } else if (!mp_obj_is_int(arg)) {
        raise_type(name, "int");
    }
    if (value < min || value > max) {
        mp_raise_msg_varg(&mp_type_ValueError, MP_ERROR_TEXT("%q: %d to %d expected"), name, (int)min, (int)max);
    }
    return value;
}

#if UMQTT_TLS
// The value of a key of ssl_params, str or bytes; None: absent, or empty, if it may be.
static mp_obj_t pem_arg(mp_obj_t params, qstr name, bool may_be_empty) {
    mp_map_elem_t *elem = mp_map_lookup(mp_obj_dict_get_map(params), MP_OBJ_NEW_QSTR(name), MP_MAP_LOOKUP);
    mp_obj_t value = elem == NULL ? mp_const_none : elem->value;
    if (value == mp_const_none) {
        return value;
    }
    umqtt_bytes_t bytes;
    bytes_arg(&bytes, value, name);
    return bytes.len == 0 && may_be_empty ? mp_const_none : value;
}

static void check_ssl_params(mp_obj_t params) {
    static const qstr known[] = { MP_QSTR_ca, MP_QSTR_cadata, MP_QSTR_cert, MP_QSTR_key, MP_QSTR_server_hostname, MP_QSTR_cert_reqs };
    mp_map_t *map = mp_obj_dict_get_map(params);
    size_t n = 0;
    for (size_t i = 0; i < MP_ARRAY_SIZE(known); i++) {
        n += mp_map_lookup(map, MP_OBJ_NEW_QSTR(known[i]), MP_MAP_LOOKUP) != NULL;
    }
    if (n != map->used) {
        // What is misspelt might be what the connection's safety rests on.
        raise_value(MP_QSTR_ssl_params, "ca, cadata, cert, key, server_hostname or cert_reqs expected");
    }
}
#endif

// What `ssl` and `ssl_params` ask for.
static umqtt_tls_t tls_args(mp_obj_t ssl, mp_obj_t params, umqtt_bytes_t server) {
    umqtt_tls_t tls = { .hostname = mp_const_none, .cert = mp_const_none, .key = mp_const_none };
    umqtt_bytes_t text;
    if (params != mp_const_none && !mp_obj_is_type(params, &mp_type_dict) && !get_text(params, &text)) {
        raise_type(MP_QSTR_ssl_params, "dict, str or bytes");
    }
    #if UMQTT_TLS
    mp_obj_t ca = mp_const_none;
    enum { CERT_NONE, CERT_OPTIONAL, CERT_REQUIRED };
    int cert_reqs = CERT_OPTIONAL;
    if (mp_obj_is_type(params, &mp_type_dict)) {
        check_ssl_params(params);
        ca = pem_arg(params, MP_QSTR_ca, false);
        if (ca == mp_const_none) {
            ca = pem_arg(params, MP_QSTR_cadata, false);
        }
        tls.cert = pem_arg(params, MP_QSTR_cert, true);
        tls.key = pem_arg(params, MP_QSTR_key, true);
        tls.hostname = pem_arg(params, MP_QSTR_server_hostname, true);
        mp_map_elem_t *elem = mp_map_lookup(mp_obj_dict_get_map(params), MP_OBJ_NEW_QSTR(MP_QSTR_cert_reqs), MP_MAP_LOOKUP);
        if (elem != NULL) {
            cert_reqs = int_arg(elem->value, MP_QSTR_cert_reqs, CERT_NONE, CERT_REQUIRED);
        }
    } else if (params != mp_const_none) {
        ca = params;
    }
    mp_obj_t context[2];
    mp_load_method_maybe(ssl, MP_QSTR_wrap_socket, context);
    #else
    static const mp_obj_t context[] = { MP_OBJ_NULL };
    #endif
    if (context[0] == MP_OBJ_NULL) {
        if (!mp_obj_is_bool(ssl) && !mp_obj_is_small_int(ssl) && ssl != mp_const_none) {
            raise_type(MP_QSTR_ssl, "bool or SSLContext");
        }
        if (!mp_obj_is_true(ssl)) {
            return tls;
        }
    }
    #if UMQTT_TLS
    umqtt_bytes_t hostname = server;
    if (tls.hostname != mp_const_none) {
        text_arg(&hostname, tls.hostname, MP_QSTR_server_hostname, &utf8);
        if (umqtt_is_address(hostname)) {
            raise_value(MP_QSTR_server_hostname, "a name expected, not an address");
        }
    }
    bool named = !umqtt_is_address(hostname);
    tls.hostname = named ? mp_obj_new_str((const char *)hostname.data, hostname.len) : mp_const_none;
    bool verified = ca != mp_const_none;
    if (verified && get_text(ca, &text) && text.len == 0) {
        // Maybe of a file that was not read. It must not mean that nothing is verified.
        raise_value(MP_QSTR_ca, "empty");
    }
    if (context[0] != MP_OBJ_NULL) {
        if (verified || tls.cert != mp_const_none || tls.key != mp_const_none || cert_reqs != CERT_OPTIONAL) {
            raise_value(MP_QSTR_ssl_params, "only server_hostname goes with an SSLContext");
        }
        mp_obj_t mode[2];
        mp_load_method_maybe(ssl, MP_QSTR_verify_mode, mode);
        verified = mode[0] == MP_OBJ_NEW_SMALL_INT(CERT_REQUIRED);
    } else if (verified && cert_reqs == CERT_NONE) {
        raise_value(MP_QSTR_cert_reqs, "CERT_NONE with a CA");
    } else if (!verified && cert_reqs == CERT_REQUIRED) {
        raise_value(MP_QSTR_cert_reqs, "CERT_REQUIRED without a CA");
    } else if ((tls.cert == mp_const_none) != (tls.key == mp_const_none)) {
        raise_value(MP_QSTR_ssl_params, "cert and key belong together");
    }
    if (verified && !named) {
        raise_value(MP_QSTR_server_hostname, "needed, as server is an address and a certificate is checked for a name");
    }
    if (context[0] != MP_OBJ_NULL) {
        tls.context = ssl;
        return tls;
    }
    umqtt_tls_load(&tls, ca);
    return tls;
    #else
    umqtt_raise_no_tls();
    #endif
}

/******************************************************************************/
// The client

static mp_obj_t mqttclient_make_new(const mp_obj_type_t *type, size_t n_args, size_t n_kw, const mp_obj_t *all_args) {
    enum { ARG_client_id, ARG_server, ARG_port, ARG_user, ARG_password, ARG_keepalive, ARG_ssl, ARG_ssl_params,
           ARG_reconn, ARG_version, ARG_pingmaxnum, ARG_manage, ARG_ipvtype };
    static const mp_arg_t allowed_args[] = {
        { MP_QSTR_client_id, MP_ARG_REQUIRED | MP_ARG_OBJ, { .u_rom_obj = MP_ROM_NONE } },
        { MP_QSTR_server, MP_ARG_REQUIRED | MP_ARG_OBJ, { .u_rom_obj = MP_ROM_NONE } },
        { MP_QSTR_port, MP_ARG_OBJ, { .u_rom_obj = MP_ROM_INT(0) } },
        { MP_QSTR_user, MP_ARG_OBJ, { .u_rom_obj = MP_ROM_NONE } },
        { MP_QSTR_password, MP_ARG_OBJ, { .u_rom_obj = MP_ROM_NONE } },
        { MP_QSTR_keepalive, MP_ARG_OBJ, { .u_rom_obj = MP_ROM_INT(60) } },
        { MP_QSTR_ssl, MP_ARG_OBJ, { .u_rom_obj = MP_ROM_FALSE } },
        { MP_QSTR_ssl_params, MP_ARG_OBJ, { .u_rom_obj = MP_ROM_NONE } },
        { MP_QSTR_reconn, MP_ARG_OBJ, { .u_rom_obj = MP_ROM_TRUE } },
        { MP_QSTR_version, MP_ARG_OBJ, { .u_rom_obj = MP_ROM_INT(4) } },
        { MP_QSTR_pingmaxnum, MP_ARG_OBJ, { .u_rom_obj = MP_ROM_INT(0) } },
        { MP_QSTR_manage, MP_ARG_OBJ, { .u_rom_obj = MP_ROM_FALSE } },
        { MP_QSTR_ipvtype, MP_ARG_OBJ, { .u_rom_obj = MP_ROM_INT(0) } },
    };
    mp_arg_val_t args[MP_ARRAY_SIZE(allowed_args)];
    mp_arg_parse_all_kw_array(n_args, n_kw, all_args, MP_ARRAY_SIZE(allowed_args), allowed_args, args);

    umqtt_settings_t settings;
    text_arg(&settings.client_id, args[ARG_client_id].u_obj, MP_QSTR_client_id, &utf8);
    text_arg(&settings.server, args[ARG_server].u_obj, MP_QSTR_server, &utf8);
    text_arg(&settings.user, none_to_empty(args[ARG_user].u_obj), MP_QSTR_user, &utf8);
    text_arg(&settings.password, none_to_empty(args[ARG_password].u_obj), MP_QSTR_password, NULL);
    settings.port = int_arg(args[ARG_port].u_obj, MP_QSTR_port, 0, 65535);
    settings.keepalive = int_arg(args[ARG_keepalive].u_obj, MP_QSTR_keepalive, 0, 65535);
    settings.ping_max = int_arg(args[ARG_pingmaxnum].u_obj, MP_QSTR_pingmaxnum, 0, 255);
    settings.version = int_arg(args[ARG_version].u_obj, MP_QSTR_version, 3, 4);
    settings.ipv6 = int_arg(args[ARG_ipvtype].u_obj, MP_QSTR_ipvtype, 0, 1);
    settings.reconnect = mp_obj_is_true(args[ARG_reconn].u_obj);
    if (settings.server.len == 0) {
        raise_value(MP_QSTR_server, "empty");
    }
    if (settings.password.len > 0 && settings.user.len == 0) {
        raise_value(MP_QSTR_password, "given without a user"); // [MQTT-3.1.2-22]
    }
    umqtt_tls_t tls = tls_args(args[ARG_ssl].u_obj, args[ARG_ssl_params].u_obj, settings.server);
    if (settings.port == 0) {
        settings.port = tls.context == MP_OBJ_NULL ? 1883 : 8883;
    }

    umqtt_client_t *self = mp_obj_malloc_with_finaliser(umqtt_client_t, type);
    self->core = NULL;
    self->callback = mp_const_none;
    self->error_callback = mp_const_none;
    self->core = umqtt_core_new(self, &settings);
    #if UMQTT_TLS
    self->core->tls = tls;
    #endif
    return MP_OBJ_FROM_PTR(self);
}

static UMQTT_SHARED mp_obj_t store_callback(mp_obj_t *place, mp_obj_t callback) {
    if (callback != mp_const_none && !mp_obj_is_callable(callback)) {
        raise_type(MP_QSTR_callback, "callable or None");
    }
    *place = callback;
    umqtt_settle(MP_OBJ_TO_PTR(callback));
    return mp_const_none;
}

static mp_obj_t mqttclient_set_callback(mp_obj_t self_in, mp_obj_t callback) {
    umqtt_client_t *self = MP_OBJ_TO_PTR(self_in);
    return store_callback(&self->callback, callback);
}
static MP_DEFINE_CONST_FUN_OBJ_2(mqttclient_set_callback_obj, mqttclient_set_callback);

static mp_obj_t mqttclient_error_register_cb(mp_obj_t self_in, mp_obj_t callback) {
    umqtt_client_t *self = MP_OBJ_TO_PTR(self_in);
    return store_callback(&self->error_callback, callback);
}
static MP_DEFINE_CONST_FUN_OBJ_2(mqttclient_error_register_cb_obj, mqttclient_error_register_cb);

// Those of publish(); set_last_will() has all but the last.
enum { MESSAGE_topic, MESSAGE_msg, MESSAGE_retain, MESSAGE_qos, MESSAGE_wait };
static const mp_arg_t message_args[] = {
    { MP_QSTR_topic, MP_ARG_REQUIRED | MP_ARG_OBJ, { .u_rom_obj = MP_ROM_NONE } },
    { MP_QSTR_msg, MP_ARG_REQUIRED | MP_ARG_OBJ, { .u_rom_obj = MP_ROM_NONE } },
    { MP_QSTR_retain, MP_ARG_OBJ, { .u_rom_obj = MP_ROM_FALSE } },
    { MP_QSTR_qos, MP_ARG_OBJ, { .u_rom_obj = MP_ROM_INT(0) } },
    { MP_QSTR_wait, MP_ARG_OBJ, { .u_rom_obj = MP_ROM_TRUE } },
};

static mp_obj_t mqttclient_set_last_will(size_t n_args, const mp_obj_t *pos_args, mp_map_t *kw_args) {
    mp_arg_val_t args[MESSAGE_wait];
    mp_arg_parse_all(n_args - 1, pos_args + 1, kw_args, MP_ARRAY_SIZE(args), message_args, args);
    umqtt_bytes_t topic;
    text_arg(&topic, args[MESSAGE_topic].u_obj, MP_QSTR_topic, &topic_name);
    int qos = int_arg(args[MESSAGE_qos].u_obj, MP_QSTR_qos, 0, 2);
    bool retain = mp_obj_is_true(args[MESSAGE_retain].u_obj);
    msg_t msg;
    msg_arg(&msg, args[MESSAGE_msg].u_obj, MAX_TEXT);
    fix(&msg);
    umqtt_frame_t frame;
    umqtt_enter(&frame, core_of(pos_args[0]));
    umqtt_set_will(&frame.call, topic, msg.bytes, retain, qos);
    umqtt_leave(&frame);
    umqtt_settle(topic.data);
    umqtt_settle(msg.bytes.data);
    return mp_const_none;
}
static MP_DEFINE_CONST_FUN_OBJ_KW(mqttclient_set_last_will_obj, 1, mqttclient_set_last_will);

static mp_obj_t mqttclient_connect(size_t n_args, const mp_obj_t *pos_args, mp_map_t *kw_args) {
    static const mp_arg_t allowed_args[] = {
        { MP_QSTR_clean_session, MP_ARG_BOOL, { .u_bool = false } },
    };
    mp_arg_val_t clean_session;
    mp_arg_parse_all(n_args - 1, pos_args + 1, kw_args, 1, allowed_args, &clean_session);
    umqtt_core_t *core = core_of(pos_args[0]);
    umqtt_frame_t frame;
    umqtt_enter(&frame, core);
    umqtt_outcome_t outcome = umqtt_connect(&frame.call, clean_session.u_bool);
    #if MICROPY_PY_THREAD
    if (outcome.what == UMQTT_WHAT_DONE && outcome.detail >= 0) {
        // Before umqtt_leave(), which lets Ctrl-C through: a client that is connected has its thread.
        nlr_buf_t nlr;
        if (nlr_push(&nlr) == 0) {
            umqtt_start_thread(core, outcome.detail);
            nlr_pop();
        } else {
            frame.exception = MP_OBJ_FROM_PTR(nlr.ret_val);
        }
    }
    #endif
    umqtt_leave(&frame);
    if (outcome.what != UMQTT_WHAT_DONE) {
        umqtt_raise(&frame, outcome, true);
    }
    return MP_OBJ_NEW_SMALL_INT(0);
}
static MP_DEFINE_CONST_FUN_OBJ_KW(mqttclient_connect_obj, 1, mqttclient_connect);

// disconnect() or close().
static UMQTT_SHARED mp_obj_t end(mp_obj_t self_in, void (*call)(umqtt_call_t *)) {
    umqtt_frame_t frame;
    umqtt_enter(&frame, core_of(self_in));
    call(&frame.call);
    umqtt_leave(&frame);
    return mp_const_none;
}

static mp_obj_t mqttclient_disconnect(mp_obj_t self_in) {
    return end(self_in, umqtt_disconnect);
}
static MP_DEFINE_CONST_FUN_OBJ_1(mqttclient_disconnect_obj, mqttclient_disconnect);

static mp_obj_t mqttclient_close(mp_obj_t self_in) {
    return end(self_in, umqtt_close);
}
static MP_DEFINE_CONST_FUN_OBJ_1(mqttclient_close_obj, mqttclient_close);

static mp_obj_t mqttclient___del__(mp_obj_t self_in) {
    umqtt_core_t *core = core_of(self_in);
    if (core != NULL) {
        umqtt_core_drop(core);
    }
    return mp_const_none;
}
static MP_DEFINE_CONST_FUN_OBJ_1(mqttclient___del___obj, mqttclient___del__);

static mp_obj_t mqttclient_ping(mp_obj_t self_in) {
    umqtt_frame_t frame;
    umqtt_enter(&frame, core_of(self_in));
    return finish(&frame, umqtt_ping(&frame.call));
}
static MP_DEFINE_CONST_FUN_OBJ_1(mqttclient_ping_obj, mqttclient_ping);

static mp_obj_t mqttclient_publish(size_t n_args, const mp_obj_t *pos_args, mp_map_t *kw_args) {
    mp_arg_val_t args[MP_ARRAY_SIZE(message_args)];
    // The parser takes longer than all the rest.
    bool parsed = n_args != 3 || kw_args->used != 0;
    if (parsed) {
        mp_arg_parse_all(n_args - 1, pos_args + 1, kw_args, MP_ARRAY_SIZE(args), message_args, args);
    }
    umqtt_bytes_t topic;
    text_arg(&topic, parsed ? args[MESSAGE_topic].u_obj : pos_args[1], MP_QSTR_topic, &topic_name);
    int qos = 0;
    bool retain = false, wait = true;
    if (parsed) {
        qos = int_arg(args[MESSAGE_qos].u_obj, MP_QSTR_qos, 0, 2);
        retain = mp_obj_is_true(args[MESSAGE_retain].u_obj);
        wait = mp_obj_is_true(args[MESSAGE_wait].u_obj);
    }
    // Beside the payload: the topic with its length, and the packet identifier.
    msg_t msg;
    msg_arg(&msg, parsed ? args[MESSAGE_msg].u_obj : pos_args[2], MAX_REMAINING - topic.len - 4);
    umqtt_frame_t frame;
    umqtt_outcome_t outcome;
    // What the script can change is copied; with QoS 0 only if it is not off at once.
    for (bool keep = qos > 0;; keep = true) {
        if (keep) {
            fix(&msg);
        }
        umqtt_enter(&frame, core_of(pos_args[0]));
        outcome = umqtt_publish(&frame.call, topic, msg.bytes, retain, qos, wait, msg.fixed);
        if (outcome.what != UMQTT_WHAT_BUSY) {
            break;
        }
        umqtt_leave(&frame);
    }
    if (qos > 0) {
        umqtt_settle(topic.data);
        umqtt_settle(msg.bytes.data);
    }
    finish(&frame, outcome);
    return outcome.detail < 0 ? mp_const_none : mp_obj_new_bool(outcome.detail);
}
static MP_DEFINE_CONST_FUN_OBJ_KW(mqttclient_publish_obj, 1, mqttclient_publish);

// subscribe(), or unsubscribe(), which has no `qos`.
static mp_obj_t change_subscription(size_t n_args, const mp_obj_t *pos_args, mp_map_t *kw_args, bool subscribe) {
    enum { ARG_topic, ARG_qos };
    static const mp_arg_t allowed_args[] = {
        { MP_QSTR_topic, MP_ARG_REQUIRED | MP_ARG_OBJ, { .u_rom_obj = MP_ROM_NONE } },
        { MP_QSTR_qos, MP_ARG_OBJ, { .u_rom_obj = MP_ROM_INT(0) } },
    };
    mp_arg_val_t args[MP_ARRAY_SIZE(allowed_args)];
    size_t n = subscribe ? MP_ARRAY_SIZE(allowed_args) : ARG_qos;
    mp_arg_parse_all(n_args - 1, pos_args + 1, kw_args, n, allowed_args, args);
    umqtt_bytes_t filter;
    text_arg(&filter, args[ARG_topic].u_obj, MP_QSTR_topic, &topic_filter);
    int qos = subscribe ? int_arg(args[ARG_qos].u_obj, MP_QSTR_qos, 0, 2) : 0;
    umqtt_frame_t frame;
    umqtt_enter(&frame, core_of(pos_args[0]));
    umqtt_outcome_t outcome = subscribe ? umqtt_subscribe(&frame.call, filter, qos) : umqtt_unsubscribe(&frame.call, filter);
    umqtt_settle(filter.data);
    return finish(&frame, outcome);
}

static mp_obj_t mqttclient_subscribe(size_t n_args, const mp_obj_t *pos_args, mp_map_t *kw_args) {
    return change_subscription(n_args, pos_args, kw_args, true);
}
static MP_DEFINE_CONST_FUN_OBJ_KW(mqttclient_subscribe_obj, 1, mqttclient_subscribe);

static mp_obj_t mqttclient_unsubscribe(size_t n_args, const mp_obj_t *pos_args, mp_map_t *kw_args) {
    return change_subscription(n_args, pos_args, kw_args, false);
}
static MP_DEFINE_CONST_FUN_OBJ_KW(mqttclient_unsubscribe_obj, 1, mqttclient_unsubscribe);

// Calls back. What the callback raises is printed, unless it is meant to end the script. `false`: Ctrl-C came before the
// callback began.
static bool deliver(umqtt_frame_t *frame, const umqtt_message_t *message) {
    umqtt_core_t *core = frame->core;
    core->running = umqtt_client(core)->callback;
    nlr_buf_t nlr;
    if (nlr_push(&nlr) == 0) {
        umqtt_allow_interrupt(frame);
        core->running_thread = umqtt_this_thread();
        if (core->running != mp_const_none) {
            mp_call_function_2(core->running, MP_OBJ_FROM_PTR(message->topic), MP_OBJ_FROM_PTR(message->payload));
        }
        umqtt_block_interrupt(frame);
        nlr_pop();
    } else {
        umqtt_report(frame, MP_OBJ_FROM_PTR(nlr.ret_val), 0);
    }
    bool begun = core->running_thread != NULL;
    core->running_thread = NULL;
    core->running = MP_OBJ_NULL;
    return !MICROPY_ASYNC_KBD_INTR || begun;
}

// check_msg(), which handles what there is, or wait_msg().
static mp_obj_t receive(mp_obj_t self_in, bool wait) {
    umqtt_core_t *core = core_of(self_in);
    if (core->running_thread != NULL && core->running_thread == umqtt_this_thread()) {
        if (wait) {
            mp_raise_msg(&mp_type_RuntimeError, MP_ERROR_TEXT("wait_msg inside the callback"));
        }
        return mp_const_none;
    }
    umqtt_frame_t frame;
    umqtt_enter(&frame, core);
    umqtt_outcome_t outcome;
    uint32_t length;
    // A flood must not keep the script for ever.
    enum { SHORTEST_HEADER = 2 };
    int32_t rest = wait ? 0 : umqtt_receive_buffer();
    bool delivered = false;
    do {
        outcome = umqtt_receive(&frame.call, wait, &length);
        rest -= SHORTEST_HEADER + length;
        if (outcome.what == UMQTT_WHAT_SKIPPED) {
            umqtt_report(&frame, MP_OBJ_NULL, length);
            outcome.what = UMQTT_WHAT_DONE;
            continue;
        }
        if (delivered && outcome.what == UMQTT_WHAT_NOT_CONNECTED) {
            // Since this call began: by the callback, maybe.
            outcome.what = UMQTT_WHAT_DONE;
            break;
        }
        if (outcome.what != UMQTT_WHAT_DONE || outcome.detail == 0) {
            break;
        }
        if (!deliver(&frame, umqtt_first_message(&frame.call))) {
            umqtt_put_back(&frame.call);
            break;
        }
        delivered = true;
        umqtt_handled(&frame.call);
    } while ((wait ? !delivered : rest > 0) && frame.exception == MP_OBJ_NULL);
    return finish(&frame, outcome);
}

static mp_obj_t mqttclient_check_msg(mp_obj_t self_in) {
    return receive(self_in, false);
}
static MP_DEFINE_CONST_FUN_OBJ_1(mqttclient_check_msg_obj, mqttclient_check_msg);

static mp_obj_t mqttclient_wait_msg(mp_obj_t self_in) {
    return receive(self_in, true);
}
static MP_DEFINE_CONST_FUN_OBJ_1(mqttclient_wait_msg_obj, mqttclient_wait_msg);

static mp_obj_t mqttclient_get_mqttsta(mp_obj_t self_in) {
    umqtt_core_t *core = core_of(self_in);
    umqtt_frame_t frame;
    umqtt_enter(&frame, core);
    int status = umqtt_status(&frame.call);
    umqtt_leave(&frame);
    return MP_OBJ_NEW_SMALL_INT(status);
}
static MP_DEFINE_CONST_FUN_OBJ_1(mqttclient_get_mqttsta_obj, mqttclient_get_mqttsta);

static const mp_rom_map_elem_t mqttclient_locals_dict_table[] = {
    { MP_ROM_QSTR(MP_QSTR_publish), MP_ROM_PTR(&mqttclient_publish_obj) },
    { MP_ROM_QSTR(MP_QSTR_check_msg), MP_ROM_PTR(&mqttclient_check_msg_obj) },
    { MP_ROM_QSTR(MP_QSTR_wait_msg), MP_ROM_PTR(&mqttclient_wait_msg_obj) },
    { MP_ROM_QSTR(MP_QSTR_get_mqttsta), MP_ROM_PTR(&mqttclient_get_mqttsta_obj) },
    { MP_ROM_QSTR(MP_QSTR_subscribe), MP_ROM_PTR(&mqttclient_subscribe_obj) },
    { MP_ROM_QSTR(MP_QSTR_unsubscribe), MP_ROM_PTR(&mqttclient_unsubscribe_obj) },
    { MP_ROM_QSTR(MP_QSTR_ping), MP_ROM_PTR(&mqttclient_ping_obj) },
    { MP_ROM_QSTR(MP_QSTR_connect), MP_ROM_PTR(&mqttclient_connect_obj) },
    { MP_ROM_QSTR(MP_QSTR_disconnect), MP_ROM_PTR(&mqttclient_disconnect_obj) },
    { MP_ROM_QSTR(MP_QSTR_close), MP_ROM_PTR(&mqttclient_close_obj) },
    { MP_ROM_QSTR(MP_QSTR_set_callback), MP_ROM_PTR(&mqttclient_set_callback_obj) },
    { MP_ROM_QSTR(MP_QSTR_error_register_cb), MP_ROM_PTR(&mqttclient_error_register_cb_obj) },
    { MP_ROM_QSTR(MP_QSTR_set_last_will), MP_ROM_PTR(&mqttclient_set_last_will_obj) },
    { MP_ROM_QSTR(MP_QSTR___del__), MP_ROM_PTR(&mqttclient___del___obj) },
};
static MP_DEFINE_CONST_DICT(mqttclient_locals_dict, mqttclient_locals_dict_table);

UMQTT_DEFINE_TYPE(mp_type_MQTTClient, MP_QSTR_MQTTClient, mqttclient_make_new, &mqttclient_locals_dict);

/******************************************************************************/
// The modules umqtt and usr.umqtt

static const mp_rom_map_elem_t umqtt_globals_table[] = {
    { MP_ROM_QSTR(MP_QSTR___name__), MP_ROM_QSTR(MP_QSTR_umqtt) },
    { MP_ROM_QSTR(MP_QSTR_MQTTClient), MP_ROM_PTR(&mp_type_MQTTClient) },
    { MP_ROM_QSTR(MP_QSTR_MQTTException), MP_ROM_PTR(&mp_type_MQTTException) },
};
static MP_DEFINE_CONST_DICT(umqtt_globals, umqtt_globals_table);

const mp_obj_module_t mp_module_umqtt = {
    .base = { &mp_type_module },
    .globals = (mp_obj_dict_t *)&umqtt_globals,
};

// Up to 1.18, modules are found by a pattern in the text, whatever the preprocessor would make of
// it, and it takes anything between two commas for an argument. So the form with three arguments
// comes first in this file, and the one with two last.
#if UMQTT_BEFORE(19)
MP_REGISTER_MODULE(MP_QSTR_umqtt, mp_module_umqtt, 1);
#endif

#if !UMQTT_BEFORE(21)
// Before, a built-in usr would hide the folder /usr: put examples/usr/umqtt.py there.
#if MICROPY_MODULE_BUILTIN_INIT
// Not every port looks for submodules in a built-in package: this one is found as if it had been
// imported before.
static mp_obj_t usr___init__(void) {
    mp_obj_t modules = MP_OBJ_FROM_PTR(&MP_STATE_VM(mp_loaded_modules_dict));
    mp_obj_dict_store(modules, MP_OBJ_NEW_QSTR(qstr_from_str("usr.umqtt")), MP_OBJ_FROM_PTR(&mp_module_umqtt));
    return mp_const_none;
}
static MP_DEFINE_CONST_FUN_OBJ_0(usr___init___obj, usr___init__);
#endif

static const mp_rom_map_elem_t usr_globals_table[] = {
    { MP_ROM_QSTR(MP_QSTR___name__), MP_ROM_QSTR(MP_QSTR_usr) },
    #if MICROPY_MODULE_BUILTIN_INIT
    { MP_ROM_QSTR(MP_QSTR___init__), MP_ROM_PTR(&usr___init___obj) },
    #endif
    { MP_ROM_QSTR(MP_QSTR_umqtt), MP_ROM_PTR(&mp_module_umqtt) },
};
static MP_DEFINE_CONST_DICT(usr_globals, usr_globals_table);

const mp_obj_module_t mp_module_usr = {
    .base = { &mp_type_module },
    .globals = (mp_obj_dict_t *)&usr_globals,
};

MP_REGISTER_EXTENSIBLE_MODULE(MP_QSTR_usr, mp_module_usr);
#endif

#if !UMQTT_BEFORE(19)
MP_REGISTER_MODULE(MP_QSTR_umqtt, mp_module_umqtt);
#endif
