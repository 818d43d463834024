// All of a client but its Python object, and its internal thread. See core.c.
#ifndef MICROPY_INCLUDED_UMQTT_CORE_H
#define MICROPY_INCLUDED_UMQTT_CORE_H

#include "py/mpthread.h"
#include "py/obj.h"
#include "compat.h"
#include "link.h"
#include "umqtt.h"

// The unix port on Linux waits for the socket; elsewhere a tick has to do.
#ifndef UMQTT_LINUX
#ifdef __linux__
#define UMQTT_LINUX (1)
#else
#define UMQTT_LINUX (0)
#endif
#endif
#if !UMQTT_LINUX && MICROPY_ASYNC_KBD_INTR
#error "Ctrl-C would jump out of the engine: set MICROPY_ASYNC_KBD_INTR to 0"
#endif

// Bytes of the internal thread's stack. The error callback runs on it.
#ifndef UMQTT_THREAD_STACK
#define UMQTT_THREAD_STACK (16 * 1024)
#endif
// The same with TLS, whose handshake needs more.
#ifndef UMQTT_TLS_THREAD_STACK
#define UMQTT_TLS_THREAD_STACK (UMQTT_THREAD_STACK + 16 * 1024)
#endif

// The Python object.
typedef struct _umqtt_client_t {
    mp_obj_base_t base;
    struct _umqtt_core_t *core;
    mp_obj_t callback;
    mp_obj_t error_callback;
} umqtt_client_t;

// All of a client but its Python object: what the engine and the internal thread hold on to, so
// that the object can be collected while the thread runs. It lies on the collected heap, and so
// does the engine inside it: everything that they point to is found by the collector. Where threads
// run free, the collector may be looking while an object moves: so none moves from one place in here
// to another, nor to a stack to be used there alone, and one that comes in stays on the stack until
// umqtt_settle().
typedef struct _umqtt_core_t {
    mp_obj_base_t base;
    // `message` is not free. It and other small ones come first: for a low offset, instructions are short.
    bool message_used;
    #if MICROPY_PY_THREAD
    // Internal threads that have not ended; and the Python object is gone.
    uint8_t threads;
    volatile bool dropped;
    #endif
    uint8_t finished;
    // The Python object, in a form that the collector does not take for a pointer: a callback may well refer to its client.
    uintptr_t not_client;
    umqtt_tls_t tls;
    // MicroPython's; MP_OBJ_NULL: not imported yet.
    mp_obj_t socket_module;
    // Entry of getaddrinfo, on a port without threads.
    mp_obj_t address;
    // The callback that is running, and the thread that it runs on; NULL: none.
    mp_obj_t running;
    void *running_thread;
    // The connection that was used last, also while it is being closed.
    umqtt_link_t *link;
    // That of the last message, unless it was longer than what is read ahead.
    mp_obj_t last_topic;
    // The first message waits here, further ones in blocks of their own.
    umqtt_message_t message;
    #if MICROPY_PY_THREAD
    mp_thread_mutex_t lock;
    mp_thread_mutex_t queue_lock;
    bool queue;
    #if !MICROPY_PY_THREAD_GIL
    // For the context of TLS, which an attempt to connect that nobody wants any more may still be using; and how many of
    // them are in a step of a handshake.
    mp_thread_mutex_t tls_lock;
    uint8_t handshakes;
    #endif
    #endif
    #if UMQTT_LINUX
    // Readable while `to_wake` waits have to end; -1: not made yet.
    int event;
    // Calls that wait, or are about to, and those of them that are internal threads; those that
    // have to wake up; and a number that tells those that registered before the last wake-up from
    // the later ones.
    uint16_t waiters;
    uint16_t idle;
    uint16_t to_wake;
    uint16_t wakeups;
    #endif
    // Followed by umqtt_size() bytes.
    uint64_t engine[];
} umqtt_core_t;

// The Python object, as long as it is not dropped.
static inline umqtt_client_t *umqtt_client(const umqtt_core_t *core) {
    return (umqtt_client_t *)~core->not_client;
}

// Is the Python object gone? Who calls without a thread has it.
static inline bool umqtt_is_dropped(const umqtt_core_t *core) {
    #if MICROPY_PY_THREAD
    return core->dropped;
    #else
    (void)core;
    return false;
    #endif
}

// `tls` is not filled in.
umqtt_core_t *umqtt_core_new(umqtt_client_t *client, const umqtt_settings_t *settings);
// The Python object is collected.
void umqtt_core_drop(umqtt_core_t *core);

// Starts the internal thread with this number; raises if that is not possible.
void umqtt_start_thread(umqtt_core_t *core, uint8_t thread);

// For who has found no memory so many times: there may be some now that clients which were collected have ended.
bool umqtt_memory_may_come(int times);

#endif // MICROPY_INCLUDED_UMQTT_CORE_H
