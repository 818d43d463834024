// What the engine needs of MicroPython: sockets, clock, lock, waiting and memory. See port.c and link.c.
#ifndef MICROPY_INCLUDED_UMQTT_PORT_H
#define MICROPY_INCLUDED_UMQTT_PORT_H

#include "py/gc.h"
#include "py/mpthread.h"
#include "py/obj.h"
#include "core.h"
#include "link.h"
#include "umqtt.h"

// Longest time between two looks of the internal thread, on a port that cannot wait for a socket.
#define UMQTT_IDLE_TICK_MS (500)

// One call from Python, on the stack of its thread.
typedef struct _umqtt_frame_t {
    umqtt_call_t call;
    umqtt_core_t *core;
    // What has to be raised when the engine is out; MP_OBJ_NULL: nothing.
    mp_obj_t exception;
    // Entry of getaddrinfo, and the connection that was made for it.
    mp_obj_t address;
    umqtt_link_t *link;
    // What the next wait is about.
    #if UMQTT_LINUX
    // A socket, and its events that are meant by readable and writable.
    int fd;
    uint8_t read_wants;
    uint8_t write_wants;
    #else
    umqtt_link_t *waiting_for;
    bool connecting;
    // Milliseconds to sleep before the next look at it.
    uint16_t tick;
    #endif
    // It is an internal thread.
    bool internal;
    #if UMQTT_LINUX
    bool main_thread;
    // It is counted among those that wait, since so many wake-ups.
    bool registered;
    uint16_t wakeups;
    #endif
    #if MICROPY_ASYNC_KBD_INTR
    int outer;
    #endif
} umqtt_frame_t;

static inline umqtt_frame_t *umqtt_frame_of(umqtt_call_t *call) {
    return (umqtt_frame_t *)call;
}

// Every use of the engine is between these two; the second raises what there is to raise.
void umqtt_enter(umqtt_frame_t *frame, umqtt_core_t *core);
void umqtt_leave(umqtt_frame_t *frame);

// Around a callback, between the two above: Ctrl-C reaches Python code.
#if MICROPY_ASYNC_KBD_INTR
void umqtt_allow_interrupt(const umqtt_frame_t *frame);
void umqtt_block_interrupt(const umqtt_frame_t *frame);
#else
static inline void umqtt_allow_interrupt(const umqtt_frame_t *frame) {
    (void)frame;
}
static inline void umqtt_block_interrupt(const umqtt_frame_t *frame) {
    (void)frame;
}
#endif

// To be called when an object has been put into the core, and is still on the stack: waits for a
// collection that may have missed it in both places.
#if MICROPY_PY_THREAD && !MICROPY_PY_THREAD_GIL
void umqtt_settle(const void *object);
#else
static inline void umqtt_settle(const void *object) {
    (void)object;
}
#endif

// Keeps an exception that ends the call for umqtt_leave(); the answer is the errno of any other one.
int umqtt_caught(umqtt_frame_t *frame, void *value);

// Prints what a callback raised, with its traceback; what is meant to end the script is kept for
// umqtt_leave(). MP_OBJ_NULL: prints that a message of so many bytes was skipped.
void umqtt_report(umqtt_frame_t *frame, mp_obj_t exception, int32_t skipped);

// Something to tell the running thread by.
static inline void *umqtt_this_thread(void) {
    #if MICROPY_PY_THREAD
    return mp_thread_get_state();
    #else
    return &mp_state_ctx;
    #endif
}

#endif // MICROPY_INCLUDED_UMQTT_PORT_H
