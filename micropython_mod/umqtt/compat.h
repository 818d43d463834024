// What differs between MicroPython 1.13 and 1.28, and on QuecPython's two ports of it (1.13 and
// 1.28), or between compilers, and nowhere else: the rest of the C is written for the newest version,
// and this header gives the older ones what they lack. The one thing that it cannot do is at the end of modumqtt.c.
#ifndef MICROPY_INCLUDED_UMQTT_COMPAT_H
#define MICROPY_INCLUDED_UMQTT_COMPAT_H

// What a package made for a board says of it, beside the sources.
#ifdef __has_include
#if __has_include("umqttboard.h")
#include "umqttboard.h"
#endif
#endif

#include "py/mperrno.h"
#include "py/mpthread.h"
#include "py/runtime.h"

// For a function with several callers, which a compiler that saves space has once, though it may think that it is short.
#ifdef __OPTIMIZE_SIZE__
#define UMQTT_SHARED __attribute__((noinline))
#elif MICROPY_NLR_SETJMP
// GCC never inlines what calls setjmp().
#define UMQTT_SHARED
#else
#define UMQTT_SHARED inline __attribute__((always_inline))
#endif

#ifdef MICROPY_VERSION
#define UMQTT_BEFORE(minor) (MICROPY_VERSION < (1 << 16 | (minor) << 8))
#else
#define UMQTT_BEFORE(minor) (1)
#endif

// QuecPython's mpthreadport.h says so.
#ifdef QPY_WAIT_FOREVER
#define UMQTT_QUECPYTHON (1)
#else
#define UMQTT_QUECPYTHON (0)
#endif

/******************************************************************************/
// Types and objects

// Before 1.20, a type is a struct.
#ifdef MP_DEFINE_CONST_OBJ_TYPE
#define UMQTT_DEFINE_TYPE(obj, qst, new, dict) \
    MP_DEFINE_CONST_OBJ_TYPE(obj, qst, MP_TYPE_FLAG_NONE, make_new, new, locals_dict, dict)
#define UMQTT_DEFINE_STREAM_TYPE(obj, qst, stream) \
    MP_DEFINE_CONST_OBJ_TYPE(obj, qst, MP_TYPE_FLAG_NONE, protocol, stream)
#else
#define UMQTT_DEFINE_TYPE(obj, qst, new, dict) \
    const mp_obj_type_t obj = { \
        { &mp_type_type }, .name = qst, .make_new = new, .locals_dict = (mp_obj_dict_t *)dict, \
    }
#define UMQTT_DEFINE_STREAM_TYPE(obj, qst, stream) \
    const mp_obj_type_t obj = { { &mp_type_type }, .name = qst, .protocol = stream }
#endif

// Before 1.23.
#ifndef mp_obj_malloc_with_finaliser
#define mp_obj_malloc_with_finaliser(struct_type, obj_type) \
    ((struct_type *)umqtt_obj_malloc(sizeof(struct_type), obj_type))

static inline void *umqtt_obj_malloc(size_t size, const mp_obj_type_t *type) {
    mp_obj_base_t *base = m_malloc_with_finaliser(size);
    base->type = type;
    return base;
}
#endif

// Before 1.22.
#if !defined(MICROPY_VERSION_MINOR) || (MICROPY_VERSION_MAJOR == 1 && MICROPY_VERSION_MINOR < 22)
#define mp_event_wait_ms(ms) mp_hal_delay_ms(ms)
#endif

// Before 1.26.
#ifndef MP_NORETURN
#define MP_NORETURN NORETURN
#endif

// Before 1.17, there is one for all threads.
#ifndef MP_STATE_MAIN_THREAD
#define MP_STATE_MAIN_THREAD(x) MP_STATE_VM(x)
#endif

/******************************************************************************/
// Errors

// Not among MicroPython's own.
#if MICROPY_USE_INTERNAL_ERRNO || !defined(EPROTO)
#define MP_EPROTO (71)
#else
#define MP_EPROTO EPROTO
#endif

/******************************************************************************/
// Threads

#if MICROPY_PY_THREAD
// Tries to lock. QuecPython's mutexes say 0 for success, MicroPython's say 1.
static inline bool umqtt_mutex_try(mp_thread_mutex_t *mutex) {
    return mp_thread_mutex_lock(mutex, 0) == (UMQTT_QUECPYTHON ? 0 : 1);
}

// QuecPython's mutexes have memory of their own.
static inline void umqtt_mutex_free(mp_thread_mutex_t *mutex) {
    #if UMQTT_QUECPYTHON
    mp_thread_mutex_del(mutex);
    #else
    (void)mutex;
    #endif
}
#endif

// How many bytes _thread.stack_size() counts as one: QuecPython's 1.13 counts words.
#ifndef UMQTT_STACK_UNIT
#define UMQTT_STACK_UNIT (UMQTT_QUECPYTHON && UMQTT_BEFORE(19) ? 4 : 1)
#endif

/******************************************************************************/
// Sockets

// Before 1.19, modules have u in front of their name; QuecPython keeps it.
#if UMQTT_QUECPYTHON || UMQTT_BEFORE(19)
#define UMQTT_QSTR_SOCKET MP_QSTR_usocket
#else
#define UMQTT_QSTR_SOCKET MP_QSTR_socket
#endif

// The address to connect to, among those that getaddrinfo gives. QuecPython gives those of both
// families, whichever was asked for.
static inline mp_obj_t umqtt_address(mp_obj_t entries, mp_obj_t family) {
    #if UMQTT_QUECPYTHON
    size_t n;
    mp_obj_t *entry;
    mp_obj_get_array(entries, &n, &entry);
    for (size_t i = 0; i < n; i++) {
        if (mp_obj_equal(mp_obj_subscr(entry[i], MP_OBJ_NEW_SMALL_INT(0), MP_OBJ_SENTINEL), family)) {
            return entry[i];
        }
    }
    #else
    (void)family;
    #endif
    return mp_obj_subscr(entries, MP_OBJ_NEW_SMALL_INT(0), MP_OBJ_SENTINEL);
}

// Has the peer ended the stream, when a read fails so? QuecPython's sockets say ENOTCONN once.
#define UMQTT_IS_END_OF_STREAM(error) (UMQTT_QUECPYTHON && (error) == MP_ENOTCONN)

#endif // MICROPY_INCLUDED_UMQTT_COMPAT_H
