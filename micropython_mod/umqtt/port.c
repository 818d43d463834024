// The engine's port: its functions run under the engine, and never raise through it. An exception
// is caught where it arises, kept in the call's frame, and raised by umqtt_leave().
//
// Ctrl-C: where the unix port raises KeyboardInterrupt from inside the signal handler, the signal
// is put off while the engine or its lock is on the stack, and let through where the call waits.

#define _GNU_SOURCE // ppoll

#include <string.h>

#include "py/mperrno.h"
#include "py/mphal.h"
#include "py/objstr.h"
#include "py/runtime.h"
#include "py/stream.h"
#include "compat.h"
#include "link.h"
#include "port.h"

#if UMQTT_LINUX
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>
#endif

#ifdef __linux__
// The prebuilt core library for a host refers to it; nothing unwinds.
void rust_eh_personality(void);

__attribute__((weak)) void rust_eh_personality(void) {
}
#endif

#ifdef __ARM_EABI__
// The engine calls these for memcpy and the like, by the names of ARM's run-time ABI (3.1, 4.3.4).
// A firmware whose C library lacks them gets these; they go where nothing calls them.
#define WEAK __attribute__((weak))
#define ALIAS(name) __attribute__((weak, alias(#name)))

void __aeabi_memcpy(void *to, const void *from, size_t n);
void __aeabi_memmove(void *to, const void *from, size_t n);
void __aeabi_memset(void *to, size_t n, int value);
void __aeabi_memclr(void *to, size_t n);

WEAK void __aeabi_memcpy(void *to, const void *from, size_t n) {
    memcpy(to, from, n);
}
ALIAS(__aeabi_memcpy) void __aeabi_memcpy4(void *to, const void *from, size_t n);
ALIAS(__aeabi_memcpy) void __aeabi_memcpy8(void *to, const void *from, size_t n);

WEAK void __aeabi_memmove(void *to, const void *from, size_t n) {
    memmove(to, from, n);
}
ALIAS(__aeabi_memmove) void __aeabi_memmove4(void *to, const void *from, size_t n);
ALIAS(__aeabi_memmove) void __aeabi_memmove8(void *to, const void *from, size_t n);

WEAK void __aeabi_memset(void *to, size_t n, int value) {
    memset(to, value, n);
}
ALIAS(__aeabi_memset) void __aeabi_memset4(void *to, size_t n, int value);
ALIAS(__aeabi_memset) void __aeabi_memset8(void *to, size_t n, int value);

WEAK void __aeabi_memclr(void *to, size_t n) {
    memset(to, 0, n);
}
ALIAS(__aeabi_memclr) void __aeabi_memclr4(void *to, size_t n);
ALIAS(__aeabi_memclr) void __aeabi_memclr8(void *to, size_t n);
#endif

/******************************************************************************/
// Ctrl-C

#if UMQTT_LINUX
static bool is_main_thread(void) {
    #if MICROPY_PY_THREAD
    // It is asked with every call, and the answer never changes.
    static __thread enum { UNKNOWN, MAIN, OTHER } this;
    if (this == UNKNOWN) {
        this = umqtt_this_thread() == &mp_state_ctx.thread ? MAIN : OTHER;
    }
    return this == MAIN;
    #else
    return true;
    #endif
}
#endif

#if MICROPY_ASYNC_KBD_INTR
// Where the main thread is: outside, in the engine, or waiting outside of it.
enum { GUARD_NONE, GUARD_ENGINE, GUARD_WAITING };

// Blocking the signal instead would cost two system calls a publish, each half as long as its
// write.
static volatile sig_atomic_t guard;
// SIGINT came while it could not be let through.
static volatile sig_atomic_t sigint_pending;

// MicroPython's own handler, which raises KeyboardInterrupt where it stands.
static void (*raise_interrupt)(int);

static void handle_sigint(int signum) {
    if (guard == GUARD_ENGINE) {
        sigint_pending = 1;
        return;
    }
    // A second one must not find the way out that the first one is taking.
    if (guard == GUARD_WAITING) {
        guard = GUARD_ENGINE;
    }
    raise_interrupt(signum);
}

// Goes to another place; a SIGINT that was put off is let through where that is possible.
static void set_guard(const umqtt_frame_t *frame, int place) {
    if (frame->main_thread) {
        guard = place;
        if (place != GUARD_ENGINE && sigint_pending) {
            sigint_pending = 0;
            raise(SIGINT);
        }
    }
}

void umqtt_block_interrupt(const umqtt_frame_t *frame) {
    set_guard(frame, GUARD_ENGINE);
}

void umqtt_allow_interrupt(const umqtt_frame_t *frame) {
    set_guard(frame, GUARD_NONE);
}
#endif

#ifdef __linux__
// The linker puts this function in the place of MicroPython's: see micropython.mk.
void __real_mp_hal_set_interrupt_char(char c);
void __wrap_mp_hal_set_interrupt_char(char c);

void __wrap_mp_hal_set_interrupt_char(char c) {
    __real_mp_hal_set_interrupt_char(c);
    #if MICROPY_ASYNC_KBD_INTR
    struct sigaction action;
    sigaction(SIGINT, NULL, &action);
    if (action.sa_handler != SIG_DFL && action.sa_handler != SIG_IGN && action.sa_handler != handle_sigint) {
        raise_interrupt = action.sa_handler;
        action.sa_handler = handle_sigint;
        sigaction(SIGINT, &action, NULL);
    }
    #endif
}
#endif

/******************************************************************************/
// Exceptions

int umqtt_caught(umqtt_frame_t *frame, void *value) {
    umqtt_block_interrupt(frame);
    mp_obj_t exception = MP_OBJ_FROM_PTR(value);
    if (!mp_obj_exception_match(exception, MP_OBJ_FROM_PTR(&mp_type_Exception))) {
        frame->exception = exception;
        return MP_EAGAIN;
    }
    if (mp_obj_exception_match(exception, MP_OBJ_FROM_PTR(&mp_type_MemoryError))) {
        return MP_ENOMEM;
    }
    mp_int_t error;
    if (mp_obj_exception_match(exception, MP_OBJ_FROM_PTR(&mp_type_OSError))
        && mp_obj_get_int_maybe(mp_obj_exception_get_value(exception), &error) && error > 0) {
        return error;
    }
    return MP_EIO;
}

void umqtt_report(umqtt_frame_t *frame, mp_obj_t exception, int32_t skipped) {
    umqtt_block_interrupt(frame);
    nlr_buf_t nlr;
    if (nlr_push(&nlr) == 0) {
        if (exception == MP_OBJ_NULL) {
            mp_printf(&mp_plat_print, "umqtt: skipped a message of %d bytes: too large for the heap\n", (int)skipped);
        } else {
            umqtt_caught(frame, MP_OBJ_TO_PTR(exception));
            if (frame->exception == MP_OBJ_NULL) {
                mp_obj_print_exception(&mp_plat_print, exception);
            }
        }
        nlr_pop();
    } else {
        umqtt_caught(frame, nlr.ret_val);
    }
}

// Puts Ctrl-C off until restore_guard().
static inline void enter_guard(umqtt_frame_t *frame) {
    (void)frame;
    #if UMQTT_LINUX
    frame->main_thread = is_main_thread();
    #endif
    #if MICROPY_ASYNC_KBD_INTR
    // The collector may let go of a client while another one is in the engine.
    frame->outer = frame->main_thread ? guard : GUARD_NONE;
    set_guard(frame, GUARD_ENGINE);
    #endif
}

// Back to where the thread was before enter_guard().
static void restore_guard(const umqtt_frame_t *frame) {
    (void)frame;
    #if MICROPY_ASYNC_KBD_INTR
    set_guard(frame, frame->outer);
    #endif
}

void umqtt_enter(umqtt_frame_t *frame, umqtt_core_t *core) {
    frame->call.engine = core->engine;
    frame->core = core;
    frame->exception = MP_OBJ_NULL;
    frame->address = MP_OBJ_NULL;
    frame->link = NULL;
    frame->internal = false;
    #if UMQTT_LINUX
    frame->registered = false;
    #else
    frame->tick = 1;
    #endif
    enter_guard(frame);
}

void umqtt_leave(umqtt_frame_t *frame) {
    #if UMQTT_LINUX
    if (frame->registered) {
        umqtt_port_lock(&frame->call);
        umqtt_port_unlock(&frame->call, false, false, false, NULL);
    }
    #endif
    restore_guard(frame);
    umqtt_settle(frame->link);
    if (frame->exception != MP_OBJ_NULL) {
        nlr_raise(frame->exception);
    }
}

#if MICROPY_PY_THREAD && !MICROPY_PY_THREAD_GIL
void umqtt_settle(const void *object) {
    if (object != NULL) {
        // Ctrl-C must not leave the collector locked.
        umqtt_frame_t frame;
        enter_guard(&frame);
        gc_nbytes(object);
        restore_guard(&frame);
    }
}
#endif

/******************************************************************************/
// Lock and wake-ups

uint32_t umqtt_port_now(void) {
    #if UMQTT_LINUX
    // A fifth of the price of the clock behind mp_hal_ticks_ms(), and good to 4 ms.
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
    return (uint32_t)now.tv_sec * 1000 + (uint32_t)now.tv_nsec / 1000000;
    #else
    return mp_hal_ticks_ms();
    #endif
}

#if UMQTT_LINUX
// Makes the waits of others end. Elsewhere they look again and again.
static void wake(umqtt_core_t *core) {
    if (core->to_wake == 0) {
        uint64_t one = 1;
        // It cannot fail: a counter that is zero has room for one.
        if (core->event < 0 || write(core->event, &one, sizeof(one)) < 0) {
            return;
        }
    }
    core->to_wake = core->waiters;
    core->wakeups++;
}

static void all_awake(umqtt_core_t *core) {
    uint64_t count;
    // Nothing there is as good.
    (void)!read(core->event, &count, sizeof(count));
}

static void begin_wait(umqtt_frame_t *frame) {
    umqtt_core_t *core = frame->core;
    if (core->event < 0) {
        core->event = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    }
    frame->registered = true;
    frame->wakeups = core->wakeups;
    core->waiters++;
    core->idle += frame->internal;
}

static void end_wait(umqtt_frame_t *frame) {
    umqtt_core_t *core = frame->core;
    frame->registered = false;
    core->waiters--;
    core->idle -= frame->internal;
    if (core->to_wake > 0 && frame->wakeups != core->wakeups && --core->to_wake == 0) {
        all_awake(core);
    }
}
#endif

// Keeps what umqtt_port_wait() needs of a link.
static void set_waiting_for(umqtt_frame_t *frame, umqtt_link_t *link) {
    #if UMQTT_LINUX
    // Once the lock is gone, another thread may close the socket, and the collector take the object.
    frame->fd = link == NULL ? -1 : umqtt_link_fd(link);
    if (link != NULL && !frame->internal) {
        umqtt_link_hurry(link, frame->fd);
    }
    frame->read_wants = link == NULL ? 0 : link->read_wants;
    frame->write_wants = link == NULL ? 0 : link->write_wants;
    #else
    frame->waiting_for = link;
    #endif
}

// The socket's events that are waited for.
static int events_of(const umqtt_frame_t *frame, bool readable, bool writable) {
    #if UMQTT_LINUX
    const umqtt_frame_t *from = frame;
    #else
    const umqtt_link_t *from = frame->waiting_for;
    if (from == NULL) {
        return 0;
    }
    #endif
    return (readable ? from->read_wants : 0) | (writable ? from->write_wants : 0);
}

uint32_t umqtt_port_lock(umqtt_call_t *call) {
    #if MICROPY_PY_THREAD
    umqtt_core_t *core = umqtt_frame_of(call)->core;
    // Who has to wait does so in a queue, and nobody overtakes it: a thread that comes back at
    // once could otherwise keep the lock from all others.
    if (__atomic_load_n(&core->queue, __ATOMIC_RELAXED) || !umqtt_mutex_try(&core->lock)) {
        MP_THREAD_GIL_EXIT();
        mp_thread_mutex_lock(&core->queue_lock, 1);
        __atomic_store_n(&core->queue, true, __ATOMIC_RELAXED);
        mp_thread_mutex_lock(&core->lock, 1);
        __atomic_store_n(&core->queue, false, __ATOMIC_RELAXED);
        mp_thread_mutex_unlock(&core->queue_lock);
        MP_THREAD_GIL_ENTER();
    }
    #endif
    #if UMQTT_LINUX
    umqtt_frame_t *frame = umqtt_frame_of(call);
    if (frame->registered) {
        end_wait(frame);
    }
    #endif
    return umqtt_port_now();
}

void umqtt_port_unlock(umqtt_call_t *call, bool changed, bool alarm, bool waiting, umqtt_object_t *socket) {
    umqtt_frame_t *frame = umqtt_frame_of(call);
    #if UMQTT_LINUX
    umqtt_core_t *core = frame->core;
    if (core->waiters > (alarm ? 0 : changed ? core->idle : UINT16_MAX)) {
        wake(core);
    }
    #endif
    if (waiting) {
        set_waiting_for(frame, socket);
        #if UMQTT_LINUX
        begin_wait(frame);
        #endif
    }
    #if MICROPY_PY_THREAD
    mp_thread_mutex_unlock(&frame->core->lock);
    #endif
}

#if UMQTT_LINUX
static void wait_for_events(umqtt_frame_t *frame, int events, int timeout) {
    // MicroPython numbers the events as Linux does. Without any the socket would still tell of an error, again and again.
    struct pollfd fds[2] = {
        { .fd = frame->core->event, .events = POLLIN },
        { .fd = events == 0 ? -1 : frame->fd, .events = events },
    };
    #if MICROPY_ASYNC_KBD_INTR
    set_guard(frame, GUARD_WAITING);
    poll(fds, 2, timeout);
    umqtt_block_interrupt(frame);
    #else
    // A signal that comes between the look at what is pending and the wait must end the wait. It
    // is the main thread's: the others keep it blocked, so that it finds its way there.
    sigset_t sigint, before;
    sigemptyset(&sigint);
    sigaddset(&sigint, SIGINT);
    pthread_sigmask(SIG_BLOCK, &sigint, &before);
    if (!frame->main_thread || MP_STATE_MAIN_THREAD(mp_pending_exception) == MP_OBJ_NULL) {
        struct timespec time = { .tv_sec = timeout / 1000, .tv_nsec = timeout % 1000 * 1000000 };
        MP_THREAD_GIL_EXIT();
        ppoll(fds, 2, timeout < 0 ? NULL : &time, frame->main_thread ? &before : NULL);
        MP_THREAD_GIL_ENTER();
    }
    if (frame->main_thread) {
        pthread_sigmask(SIG_SETMASK, &before, NULL);
    }
    #endif
}
#else
// Longest time between two looks of a call at the socket, and at what other threads have changed. That of an internal thread
// is as long while it connects.
#define TICK_MS (10)

static void wait_for_events(umqtt_frame_t *frame, int events, int timeout) {
    uint32_t longest = MICROPY_PY_THREAD && frame->internal && !frame->connecting ? UMQTT_IDLE_TICK_MS : TICK_MS;
    uint32_t tick = MIN(frame->tick, longest);
    // An answer comes soon, or late.
    frame->tick = 2 * tick;
    // A negative timeout, for ever, is longer than any.
    tick = MIN(tick, (uint32_t)timeout);
    if (tick > 0 && (events == 0 || umqtt_stream_ioctl(frame->waiting_for->socket, MP_STREAM_POLL, events) == 0)) {
        #if MICROPY_PY_THREAD
        mp_hal_delay_ms(tick);
        #else
        // It ends early with any event of the port's: the socket's may be among them.
        mp_event_wait_ms(tick);
        #endif
    }
}
#endif

static bool is_broken_off(const umqtt_frame_t *frame) {
    return frame->exception != MP_OBJ_NULL || umqtt_is_dropped(frame->core);
}

bool umqtt_port_wait(umqtt_call_t *call, umqtt_object_t *socket, bool readable, bool writable, int32_t timeout) {
    umqtt_frame_t *frame = umqtt_frame_of(call);
    if (!is_broken_off(frame)) {
        nlr_buf_t nlr;
        if (nlr_push(&nlr) == 0) {
            if (socket != NULL) {
                set_waiting_for(frame, socket);
            }
            #if !UMQTT_LINUX && MICROPY_PY_THREAD
            frame->connecting = socket != NULL;
            #endif
            wait_for_events(frame, events_of(frame, readable, writable), timeout);
            mp_handle_pending(true);
            nlr_pop();
        } else {
            umqtt_caught(frame, nlr.ret_val);
        }
    }
    return is_broken_off(frame);
}

/******************************************************************************/
// Memory

// A bytes object to be filled in; NULL: there is no memory.
static mp_obj_str_t *new_bytes(size_t len) {
    // Data of no length are not NULL either.
    mp_obj_str_t *bytes = len == 0 ? (mp_obj_str_t *)&mp_const_empty_bytes_obj : m_new_obj_maybe(mp_obj_str_t);
    if (len == 0 || bytes == NULL) {
        return bytes;
    }
    byte *content = len + 1 == 0 ? NULL : m_new_maybe(byte, len + 1);
    if (content == NULL) {
        return NULL;
    }
    content[len] = 0;
    bytes->base.type = &mp_type_bytes;
    bytes->hash = 0;
    bytes->len = len;
    bytes->data = content;
    return bytes;
}

// The topic of the message before, if it is the same: most messages come under few topics.
static mp_obj_str_t *topic_to_be(umqtt_core_t *core, umqtt_bytes_t topic) {
    mp_obj_str_t *last = MP_OBJ_TO_PTR(core->last_topic);
    if (topic.data == NULL || last == NULL || last->len != topic.len || memcmp(last->data, topic.data, topic.len) != 0) {
        return new_bytes(topic.len);
    }
    return last;
}

umqtt_message_t *umqtt_port_message_new(umqtt_object_t *owner, umqtt_message_t **link, umqtt_bytes_t topic_there, size_t payload_len) {
    umqtt_core_t *core = owner;
    umqtt_message_t *message = core->message_used ? m_new_obj_maybe(umqtt_message_t) : &core->message;
    mp_obj_str_t *topic = message == NULL ? NULL : topic_to_be(core, topic_there);
    mp_obj_str_t *payload = topic == NULL ? NULL : new_bytes(payload_len);
    if (payload == NULL) {
        return NULL;
    }
    memset(message, 0, sizeof(*message));
    message->topic = topic;
    message->topic_data = (uint8_t *)topic->data;
    message->topic_len = topic_there.len;
    message->payload = payload;
    message->payload_data = (uint8_t *)payload->data;
    message->payload_len = payload_len;
    // It is anyway, if the message has a block of its own.
    core->message_used = true;
    if (topic_there.data != NULL) {
        core->last_topic = MP_OBJ_FROM_PTR(topic);
    }
    *link = message;
    #if MICROPY_PY_THREAD && !MICROPY_PY_THREAD_GIL
    void *volatile on_the_stack[] = { topic, payload };
    umqtt_settle(message);
    (void)on_the_stack[0];
    #endif
    return message;
}

void umqtt_port_message_free(umqtt_object_t *owner, umqtt_message_t *message) {
    umqtt_core_t *core = owner;
    // What is left would be found by the collector, but who walks the list may still need `next`.
    message->topic = message->payload = NULL;
    message->topic_data = message->payload_data = NULL;
    if (message == &core->message) {
        core->message_used = false;
    } else {
        m_del_obj(umqtt_message_t, message);
    }
}

bool umqtt_port_grow(void **list, size_t old_size, size_t new_size) {
    byte *new_list = m_renew_maybe(byte, old_size == 0 ? NULL : *list, old_size, new_size, true);
    if (new_list == NULL) {
        return false;
    }
    memset(new_list + old_size, 0, new_size - old_size);
    *list = new_list;
    umqtt_settle(new_list);
    return true;
}
