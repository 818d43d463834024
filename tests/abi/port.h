// The port of abi.c: a socket whose peer follows a script, a clock that jumps, messages and lists from malloc.

#include <errno.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "umqtt.h"

#define CHECK(condition) check(condition, #condition, __LINE__)

static void check(bool condition, const char *text, int line) {
    if (!condition) {
        printf("abi.c:%d: %s\n", line, text);
        exit(1);
    }
}

/******************************************************************************/
// The world

typedef struct {
    umqtt_call_t call;
    bool announced; // the last unlock was one before a wait
    umqtt_object_t *socket; // of the last unlock
    bool resolved;
} call_t;

// A call in a frame of its own.
#define CALL (&(call_t) { .call.engine = world.engine }.call)

typedef enum {
    EXPECT, // the client sends this
    SEND, // the client receives this
    FULL, // the socket takes nothing any more
    FIN,
    RESET,
} kind_t;

typedef struct {
    kind_t kind;
    const char *data;
    size_t len, done;
} step_t;

// Allocations that the engine's side lets go without a word, as a collector would take them.
typedef struct _garbage_t {
    struct _garbage_t *next;
    uint64_t data[];
} garbage_t;

static struct {
    uint32_t now;
    umqtt_call_t *lock; // who holds the lock
    step_t script[64];
    int first, last;
    size_t write_limit; // bytes a send; 0: any number
    bool blocked; // the socket takes nothing
    int resolve_error, socket_error, connect_error;
    int sockets, messages; // that there are
    size_t largest; // message that there is memory for
    bool no_memory; // for lists
    bool no_threads;
    int waits;
    void (*on_wait)(void); // what another thread does when a call waits at the end of the script, once
    jmp_buf *kill; // the next wait does not return
    bool interrupt; // the next wait is broken off
    int reports;
    umqtt_outcome_t reported;
    garbage_t *garbage;
    umqtt_engine_t *engine;
} world;

static void *allocate(size_t size) {
    garbage_t *block = calloc(1, sizeof(garbage_t) + size);
    block->next = world.garbage;
    world.garbage = block;
    return block->data;
}

// Bytes with nothing behind them that could be read by mistake.
static umqtt_bytes_t bytes(const char *data, size_t len) {
    uint8_t *copy = memcpy(allocate(len), data, len);
    return (umqtt_bytes_t) { .data = copy, .len = len };
}

static umqtt_bytes_t text(const char *data) {
    return bytes(data, strlen(data));
}

static void step(kind_t kind, const char *data, size_t len) {
    CHECK(world.last < 64);
    world.script[world.last++] = (step_t) { kind, data, len, 0 };
}

// What the client sends, and what it receives, as string literals.
#define EXPECTS(literal) step(EXPECT, literal, sizeof(literal) - 1)
#define SENDS(literal) step(SEND, literal, sizeof(literal) - 1)

static step_t *front(void) {
    return world.first < world.last ? &world.script[world.first] : NULL;
}

static bool front_is(kind_t kind) {
    return front() != NULL && front()->kind == kind;
}

static void step_done(void) {
    if (++world.first == world.last) {
        world.first = world.last = 0;
    }
}

/******************************************************************************/
// The port

bool umqtt_port_has_threads(void) {
    return !world.no_threads;
}

uint32_t umqtt_port_now(void) {
    return world.now;
}

uint32_t umqtt_port_lock(umqtt_call_t *call) {
    CHECK(world.lock == NULL);
    world.lock = call;
    return umqtt_port_now();
}

void umqtt_port_unlock(umqtt_call_t *call, bool changed, bool alarm, bool waiting, umqtt_object_t *socket) {
    (void)changed;
    (void)alarm;
    CHECK(world.lock == call);
    world.lock = NULL;
    call_t *frame = (call_t *)call;
    frame->announced = waiting;
    frame->socket = socket;
}

bool umqtt_port_wait(umqtt_call_t *call, umqtt_object_t *socket, bool readable, bool writable, int32_t timeout) {
    call_t *frame = (call_t *)call;
    CHECK(world.lock == NULL);
    CHECK(frame->announced);
    CHECK(timeout >= 0);
    CHECK(++world.waits < 100000);
    if (world.kill != NULL) {
        longjmp(*world.kill, 1);
    }
    if (world.on_wait != NULL && front() == NULL) {
        void (*on_wait)(void) = world.on_wait;
        world.on_wait = NULL;
        on_wait();
        return false;
    }
    if (world.interrupt) {
        world.interrupt = false;
        return true;
    }
    bool has_socket = socket != NULL || frame->socket != NULL;
    bool can_read = front_is(SEND) || front_is(FIN) || front_is(RESET);
    bool can_write = !world.blocked && !front_is(FULL) && !(socket != NULL && world.connect_error == EAGAIN);
    if (!has_socket || !((readable && can_read) || (writable && can_write))) {
        CHECK(timeout < 1 << 29);
        world.now += timeout;
    }
    return false;
}

int32_t umqtt_port_resolve(umqtt_call_t *call) {
    CHECK(world.lock == NULL);
    ((call_t *)call)->resolved = true;
    return world.resolve_error;
}

umqtt_object_t *umqtt_port_socket(umqtt_call_t *call, int32_t *error) {
    CHECK(world.lock == NULL);
    CHECK(((call_t *)call)->resolved);
    if (world.socket_error != 0) {
        *error = world.socket_error;
        return NULL;
    }
    world.sockets++;
    return malloc(1);
}

int32_t umqtt_port_connect(umqtt_call_t *call, umqtt_object_t *socket) {
    CHECK(world.lock == NULL);
    CHECK(((call_t *)call)->resolved && socket != NULL);
    return world.connect_error;
}

ptrdiff_t umqtt_port_send(umqtt_call_t *call, umqtt_object_t *socket, const uint8_t *data, size_t len) {
    CHECK(world.lock == call);
    *(char *)socket = 's'; // it is there still
    CHECK(len > 0);
    if (world.blocked || front_is(FULL)) {
        return -EAGAIN;
    }
    if (front_is(RESET)) {
        return -ECONNRESET;
    }
    CHECK(front_is(EXPECT));
    size_t n = front()->len - front()->done;
    n = n < len ? n : len;
    n = world.write_limit != 0 && world.write_limit < n ? world.write_limit : n;
    CHECK(memcmp(data, front()->data + front()->done, n) == 0);
    front()->done += n;
    if (front()->done == front()->len) {
        step_done();
    }
    return n;
}

ptrdiff_t umqtt_port_receive(umqtt_call_t *call, umqtt_object_t *socket, uint8_t *data, size_t len) {
    CHECK(world.lock == call);
    *(char *)socket = 'r';
    CHECK(len > 0);
    if (front_is(FIN)) {
        return 0;
    }
    if (front_is(RESET)) {
        return -ECONNRESET;
    }
    if (!front_is(SEND)) {
        return -EAGAIN;
    }
    size_t n = front()->len - front()->done;
    n = n < len ? n : len;
    memcpy(data, front()->data + front()->done, n);
    front()->done += n;
    if (front()->done == front()->len) {
        step_done();
    }
    return n;
}

void umqtt_port_close(umqtt_call_t *call, umqtt_object_t *socket) {
    (void)call;
    world.sockets--;
    free(socket);
    if (front_is(FULL) || front_is(FIN) || front_is(RESET)) {
        step_done();
    }
}

void umqtt_port_report(umqtt_call_t *call, umqtt_outcome_t outcome) {
    (void)call;
    CHECK(world.lock == NULL);
    world.reports++;
    world.reported = outcome;
}

umqtt_message_t *umqtt_port_message_new(umqtt_object_t *owner, umqtt_message_t **link, umqtt_bytes_t topic, size_t payload) {
    CHECK(owner == &world && world.lock != NULL && *link == NULL);
    if (payload > world.largest) {
        return NULL;
    }
    world.messages++;
    umqtt_message_t *message = calloc(1, sizeof(umqtt_message_t));
    message->topic = message->topic_data = malloc(topic.len);
    message->topic_len = topic.len;
    message->payload = message->payload_data = malloc(payload);
    message->payload_len = payload;
    *link = message;
    return message;
}

void umqtt_port_message_free(umqtt_object_t *owner, umqtt_message_t *message) {
    CHECK(owner == &world && world.lock != NULL);
    world.messages--;
    free(message->topic);
    free(message->payload);
    free(message);
}

bool umqtt_port_grow(void **list, size_t old_size, size_t new_size) {
    CHECK(new_size > old_size);
    if (world.no_memory) {
        return false;
    }
    void *new_list = allocate(new_size);
    if (old_size > 0) {
        memcpy(new_list, *list, old_size);
        // Nobody may look at the old one.
        memset(*list, 0xEE, old_size);
    }
    *list = new_list;
    return true;
}
