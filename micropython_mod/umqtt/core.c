// All of a client but its Python object: its making and its end, and its internal thread, on which the
// script's error callback runs. Whoever is last, the collector or that thread, ends the connection.

#include <string.h>

#include "py/builtin.h"
#include "py/mphal.h"
#include "py/runtime.h"
#include "compat.h"
#include "core.h"
#include "outcome.h"
#include "port.h"

#if UMQTT_LINUX
#include <pthread.h>
#include <signal.h>
#include <unistd.h>
#endif

// For tools/size.py; a linker that drops what nothing uses drops it.
extern const uint16_t umqtt_core_size;
const uint16_t umqtt_core_size = sizeof(umqtt_core_t);

bool umqtt_memory_may_come(int times) {
    #if MICROPY_PY_THREAD
    if (times < 20) {
        MP_THREAD_GIL_EXIT();
        mp_hal_delay_us(10000);
        MP_THREAD_GIL_ENTER();
        return true;
    }
    #endif
    return false;
}

umqtt_core_t *umqtt_core_new(umqtt_client_t *client, const umqtt_settings_t *settings) {
    size_t size = sizeof(umqtt_core_t) + umqtt_size();
    umqtt_core_t *core = m_malloc_maybe(size);
    for (int i = 0; core == NULL && umqtt_memory_may_come(i); i++) {
        core = m_malloc_maybe(size);
    }
    if (core == NULL) {
        m_malloc_fail(size);
    }
    memset(core, 0, size);
    core->base.type = &mp_type_object;
    core->not_client = ~(uintptr_t)client;
    // Before there is anything to be given back.
    for (int i = 0; !umqtt_init(core->engine, core, settings); i++) {
        if (!umqtt_memory_may_come(i)) {
            m_malloc_fail(size);
        }
    }
    #if MICROPY_PY_THREAD
    mp_thread_mutex_init(&core->lock);
    mp_thread_mutex_init(&core->queue_lock);
    #if !MICROPY_PY_THREAD_GIL
    mp_thread_mutex_init(&core->tls_lock);
    #endif
    #endif
    #if UMQTT_LINUX
    core->event = -1;
    #endif
    return core;
}

// Nothing will use the core any more.
static void finish(umqtt_core_t *core) {
    #if UMQTT_LINUX
    // Where threads run free, the collector and the last thread may both come here.
    if (__sync_lock_test_and_set(&core->finished, 1)) {
        return;
    }
    #endif
    umqtt_frame_t frame;
    umqtt_enter(&frame, core);
    umqtt_close(&frame.call);
    frame.exception = MP_OBJ_NULL;
    umqtt_leave(&frame);
    #if MICROPY_PY_THREAD
    umqtt_mutex_free(&core->lock);
    umqtt_mutex_free(&core->queue_lock);
    #if !MICROPY_PY_THREAD_GIL
    umqtt_mutex_free(&core->tls_lock);
    #endif
    #endif
    #if UMQTT_LINUX
    if (core->event >= 0) {
        close(core->event);
        core->event = -1;
    }
    #endif
}

// Called by the collector, maybe while an internal thread, the only other one to know the core,
// has the lock: that thread does the rest.
void umqtt_core_drop(umqtt_core_t *core) {
    #if MICROPY_PY_THREAD
    core->dropped = true;
    __sync_synchronize();
    if (core->threads > 0) {
        #if UMQTT_LINUX
        uint64_t one = 1;
        (void)!write(core->event, &one, sizeof(one));
        #endif
        return;
    }
    #endif
    finish(core);
}

#if defined(UMQTT_THREADS) && UMQTT_THREADS != MICROPY_PY_THREAD
#error "UMQTT_THREADS is not what MICROPY_PY_THREAD says"
#endif

bool umqtt_port_has_threads(void) {
    return MICROPY_PY_THREAD;
}

#if MICROPY_PY_THREAD
static mp_obj_t run_thread(mp_obj_t core_in, mp_obj_t thread) {
    umqtt_core_t *core = MP_OBJ_TO_PTR(core_in);
    umqtt_frame_t frame;
    umqtt_enter(&frame, core);
    frame.internal = true;
    #if !UMQTT_LINUX
    frame.tick = UMQTT_IDLE_TICK_MS;
    #endif
    umqtt_run(&frame.call, MP_OBJ_SMALL_INT_VALUE(thread));
    umqtt_port_lock(&frame.call);
    core->threads--;
    __sync_synchronize();
    bool last = core->threads == 0 && core->dropped;
    umqtt_port_unlock(&frame.call, false, false, false, NULL);
    if (last) {
        finish(core);
    }
    return mp_const_none;
}
static MP_DEFINE_CONST_FUN_OBJ_2(run_thread_obj, run_thread);

static void count_thread(umqtt_core_t *core, int n) {
    umqtt_frame_t frame;
    umqtt_enter(&frame, core);
    umqtt_port_lock(&frame.call);
    core->threads += n;
    umqtt_port_unlock(&frame.call, false, false, false, NULL);
    umqtt_leave(&frame);
}

void umqtt_start_thread(umqtt_core_t *core, uint8_t thread) {
    count_thread(core, 1);
    size_t stack = core->tls.context == MP_OBJ_NULL ? UMQTT_THREAD_STACK : UMQTT_TLS_THREAD_STACK;
    #if UMQTT_LINUX
    // Ctrl-C must neither jump out of the making of a thread, nor reach one that is not ready; the
    // new thread keeps the signal blocked for good.
    sigset_t sigint, before_start;
    sigemptyset(&sigint);
    sigaddset(&sigint, SIGINT);
    pthread_sigmask(SIG_BLOCK, &sigint, &before_start);
    #endif
    #if UMQTT_LINUX && !MICROPY_PY_THREAD_GIL
    // Of two threads that start one at the same time, the later must not take the other's size for the script's.
    static pthread_mutex_t starting = PTHREAD_MUTEX_INITIALIZER;
    pthread_mutex_lock(&starting);
    #endif
    // The script's own threads have the stack size that it chose.
    volatile mp_obj_t stack_size = MP_OBJ_NULL, before = MP_OBJ_NULL;
    void *exception = NULL;
    nlr_buf_t nlr;
    if (nlr_push(&nlr) == 0) {
        mp_obj_t module = mp_import_name(MP_QSTR__thread, mp_const_none, MP_OBJ_NEW_SMALL_INT(0));
        stack_size = mp_load_attr(module, MP_QSTR_stack_size);
        mp_obj_t start = mp_load_attr(module, MP_QSTR_start_new_thread);
        mp_obj_t args[] = { MP_OBJ_FROM_PTR(core), MP_OBJ_NEW_SMALL_INT(thread) };
        mp_obj_t tuple = mp_obj_new_tuple(2, args);
        before = mp_call_function_1(stack_size, MP_OBJ_NEW_SMALL_INT(stack / UMQTT_STACK_UNIT));
        mp_call_function_2(start, MP_OBJ_FROM_PTR(&run_thread_obj), tuple);
        nlr_pop();
    } else {
        exception = nlr.ret_val;
    }
    if (before != MP_OBJ_NULL) {
        mp_call_function_1(stack_size, before);
    }
    #if UMQTT_LINUX && !MICROPY_PY_THREAD_GIL
    pthread_mutex_unlock(&starting);
    #endif
    #if UMQTT_LINUX
    pthread_sigmask(SIG_SETMASK, &before_start, NULL);
    #endif
    if (exception != NULL) {
        count_thread(core, -1);
        umqtt_frame_t frame;
        umqtt_enter(&frame, core);
        umqtt_no_thread(&frame.call, thread);
        umqtt_close(&frame.call);
        int error = umqtt_caught(&frame, exception);
        umqtt_leave(&frame);
        umqtt_raise_mqtt(-error, "the internal thread could not be started");
    }
}

// The internal thread may wait for long after a callback, which may refer to its client, and leaves pointers on the stack:
// where the next frames have holes, the collector would find them.
static __attribute__((noinline)) void clear_stack(void) {
    volatile uint8_t stack[1024];
    for (size_t i = 0; i < sizeof(stack); i++) {
        stack[i] = 0;
    }
}

// Its frame has to be gone by then.
__attribute__((noinline))
#endif
static void report(umqtt_frame_t *frame, umqtt_outcome_t outcome) {
    umqtt_core_t *core = frame->core;
    nlr_buf_t nlr;
    if (nlr_push(&nlr) == 0) {
        umqtt_client_t *client = umqtt_client(core);
        // From here on the collector sees it; unless it has taken it.
        umqtt_settle(client);
        mp_obj_t callback = umqtt_is_dropped(core) ? mp_const_none : client->error_callback;
        if (callback != mp_const_none) {
            mp_obj_t message = umqtt_describe(outcome, core->link, NULL);
            umqtt_allow_interrupt(frame);
            mp_call_function_1(callback, message);
            umqtt_block_interrupt(frame);
        }
        nlr_pop();
    } else {
        umqtt_report(frame, MP_OBJ_FROM_PTR(nlr.ret_val), 0);
        if (frame->internal) {
            // SystemExit has no script to end here.
            frame->exception = MP_OBJ_NULL;
        }
    }
}

void umqtt_port_report(umqtt_call_t *call, umqtt_outcome_t outcome) {
    report(umqtt_frame_of(call), outcome);
    #if MICROPY_PY_THREAD
    clear_stack();
    #endif
}
