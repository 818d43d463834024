// A connection as MicroPython makes it: a socket, and TLS over it where the client asks for that.
// See link.c.
#ifndef MICROPY_INCLUDED_UMQTT_LINK_H
#define MICROPY_INCLUDED_UMQTT_LINK_H

#include "py/obj.h"
#include "compat.h"
#include "umqtt.h"

// Is there a TLS module in the firmware? (MICROPY_PY_USSL: before 1.21.)
#ifndef UMQTT_TLS
#if MICROPY_PY_SSL || MICROPY_PY_USSL
#define UMQTT_TLS (1)
#else
#define UMQTT_TLS (0)
#endif
#endif

// Bytes that each record of TLS begins with.
#define UMQTT_TLS_HEADER (5)

// What a client asks of TLS.
typedef struct _umqtt_tls_t {
    // An SSLContext, or a `module` that has wrap_socket() only; MP_OBJ_NULL: no TLS.
    mp_obj_t context;
    bool module;
    // The name that the server is asked for (SNI), and that its certificate has to have: str, or None.
    mp_obj_t hostname;
    // The client's certificate and its key; None: absent.
    mp_obj_t cert;
    mp_obj_t key;
} umqtt_tls_t;

typedef struct _umqtt_link_t {
    // It is a stream: the one that the TLS module reads from and writes to.
    mp_obj_base_t base;
    mp_obj_t socket;
    // The TLS module's stream; MP_OBJ_NULL: none, or not yet.
    mp_obj_t tls;
    // What TLS failed with: an exception, or the number that its stream gave; MP_OBJ_NULL: it did not.
    mp_obj_t failure;
    // MP_STREAM_POLL_RD or _WR: what the socket did not do at once when the TLS module asked last, and what has to be
    // waited for before receiving, or sending and connecting, can go on.
    uint8_t blocked;
    uint8_t read_wants;
    uint8_t write_wants;
    // The socket has taken something since it was asked for more; it had something when it was read last; and it has come to
    // the end of the stream.
    bool moved;
    bool fed;
    bool ended;
    // Small segments do not wait for the answer to an earlier one; something was sent since a call waited last, or received
    // since something was sent.
    bool at_once;
    bool sent;
    bool received;
    // So many waits may yet be for the answers to what was sent.
    uint8_t asking;
    #if UMQTT_TLS
    // How often the TLS module has read in this call.
    uint8_t reads;
    // The TLS module has a record that the socket has not taken, or not all of it.
    bool pending;
    // What the TLS module was given to send when it did not get rid of the record, until it is told that it has; and how much
    // of that counts as sent.
    const uint8_t *data;
    uint16_t held;
    uint8_t counted;
    // How much one record surely has room for, and the most there is use in giving: so much more has the module put into one,
    // or no more.
    uint16_t sure;
    uint16_t most;
    // How much of the record that comes in has been read, and what it begins with: its header, and an alert, if it is one that
    // is not encrypted.
    uint32_t seen;
    uint8_t record[UMQTT_TLS_HEADER + 2];
    // What has come in this call ends within a record.
    bool partial;
    // A record of a handshake came before this one: the server has agreed on how to go on.
    bool agreed;
    // umqtt_port_close() is through with it.
    bool closed;
    #endif
} umqtt_link_t;

// Makes the context, from a certificate authority (str or bytes; None: do not verify) and the certificate and key that
// are there. Raises ValueError for what the firmware cannot do, MQTTException for what its TLS module does not take.
void umqtt_tls_load(umqtt_tls_t *tls, mp_obj_t ca);
// Raises NotImplementedError.
MP_NORETURN void umqtt_raise_no_tls(void);

// The answer of a stream's ioctl; -1: an error.
int umqtt_stream_ioctl(mp_obj_t stream, mp_uint_t request, uintptr_t arg);

// On Linux: the descriptor of the link's socket; and what a call is going to wait for must not itself wait.
int umqtt_link_fd(const umqtt_link_t *link);
void umqtt_link_hurry(umqtt_link_t *link, int fd);

// It is no name: there is nothing to resolve, and nothing that a certificate could have.
bool umqtt_is_address(umqtt_bytes_t host);

// The alert that came last, as RFC 8446 numbers them (6); unknown, if it is encrypted; negative: it was no alert that came.
enum { UMQTT_ALERT_UNKNOWN = 255 };
int umqtt_link_alert(const umqtt_link_t *link);

#endif // MICROPY_INCLUDED_UMQTT_LINK_H
