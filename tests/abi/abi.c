// Drives the C ABI of the engine, with a port of its own (port.h). Everything is allocated with malloc, in its exact
// size, so that a sanitizer or valgrind sees every step beyond it. tests/abi.rs builds and runs it; it prints the name
// of each test, and stops with what is wrong at the first failure.

#include "port.h"

// The prebuilt core library for a host refers to it; nothing unwinds.
__attribute__((weak)) void rust_eh_personality(void) {
}

/******************************************************************************/
// Helpers

static umqtt_settings_t settings(void) {
    return (umqtt_settings_t) {
        .client_id = text("c"), .server = text("broker"), .user = text(""), .password = text(""),
        .port = 1883, .keepalive = 60, .version = UMQTT_VERSION_V311,
    };
}

static void begin_with(umqtt_settings_t with) {
    // The clock goes round in the middle of a test.
    world.now = -2000;
    world.largest = 1 << 20;
    world.engine = allocate(umqtt_size());
    CHECK((uintptr_t)world.engine % 8 == 0);
    world.no_memory = true;
    CHECK(!umqtt_init(world.engine, &world, &with));
    world.no_memory = false;
    CHECK(umqtt_init(world.engine, &world, &with));
    CHECK(umqtt_status(CALL) == -1);
}

static void begin(void) {
    begin_with(settings());
}

#define EXPECTS_CONNECT() EXPECTS("\x10\x0D\0\4MQTT\4\0\0\x3C\0\1c")

// The answer is the number of the internal thread, or -1.
static int connects(void) {
    EXPECTS_CONNECT();
    SENDS("\x20\2\0\0");
    umqtt_outcome_t outcome = umqtt_connect(CALL, false);
    CHECK(outcome.what == UMQTT_WHAT_DONE && front() == NULL);
    CHECK(umqtt_status(CALL) == 0);
    return outcome.detail;
}

// All is let go.
static void end(void) {
    CHECK(front() == NULL);
    if (umqtt_status(CALL) == 0) {
        EXPECTS("\xE0\0");
    }
    umqtt_disconnect(CALL);
    CHECK(front() == NULL);
    CHECK(umqtt_status(CALL) == -1);
    CHECK(world.sockets == 0 && world.messages == 0 && world.lock == NULL);
    while (world.garbage != NULL) {
        garbage_t *block = world.garbage;
        world.garbage = block->next;
        free(block);
    }
    memset(&world, 0, sizeof(world));
}

static umqtt_outcome_t publish(int qos, const char *payload, bool wait) {
    return umqtt_publish(CALL, text("t"), text(payload), false, qos, wait, true);
}

static umqtt_outcome_t subscribe(const char *filter, int qos) {
    return umqtt_subscribe(CALL, text(filter), qos);
}

static uint32_t length;

static umqtt_outcome_t receive(bool wait) {
    return umqtt_receive(CALL, wait, &length);
}

static bool is(umqtt_outcome_t outcome, umqtt_what what, int32_t detail) {
    if (outcome.what != what || outcome.detail != detail) {
        printf("outcome %d, %d\n", outcome.what, (int)outcome.detail);
    }
    return outcome.what == what && outcome.detail == detail;
}

static bool done(umqtt_outcome_t outcome, int32_t detail) {
    return is(outcome, UMQTT_WHAT_DONE, detail);
}

// The next message is this one.
static void receives(const char *topic, const char *payload, size_t len) {
    umqtt_outcome_t outcome = receive(true);
    umqtt_message_t *message = umqtt_first_message(CALL);
    size_t size = 2 + strlen(topic) + (message->tag.qos > 0 ? 2 : 0) + len;
    CHECK(done(outcome, 1) && length == size);
    CHECK(message->whole && message->tag.size == size);
    CHECK(message->topic_len == strlen(topic) && memcmp(message->topic_data, topic, message->topic_len) == 0);
    CHECK(message->payload_len == len && memcmp(message->payload_data, payload, len) == 0);
}

// All that is under way comes to its end, and no message is among it.
static void settles(void) {
    for (int i = 0; i < 5; i++) {
        CHECK(done(receive(false), 0));
    }
    CHECK(front() == NULL);
}

static void handled(void) {
    umqtt_handled(CALL);
}

/******************************************************************************/
// Tests

static void test_checks(void) {
    CHECK(umqtt_check_text(text("")) && umqtt_check_text(text("\xC3\xA4")));
    CHECK(!umqtt_check_text(bytes("\0", 1)) && !umqtt_check_text(text("\xC3")));
    CHECK(umqtt_check_topic(text("a/b")) && !umqtt_check_topic(text("a/#")) && !umqtt_check_topic(text("")));
    CHECK(umqtt_check_filter(text("a/+/#")) && !umqtt_check_filter(text("a#")) && !umqtt_check_filter(text("")));
    CHECK(umqtt_receive_buffer() >= 64);
    CHECK(umqtt_size() > (size_t)umqtt_receive_buffer());
    begin();
    const umqtt_settings_t *got = umqtt_settings(CALL);
    CHECK(got->server.len == 6 && memcmp(got->server.data, "broker", 6) == 0 && got->port == 1883);
    end();
}

static void test_connect(void) {
    begin();
    connects();
    end();

    umqtt_settings_t all = settings();
    all.version = 3;
    all.keepalive = 0x1234;
    all.user = text("me");
    all.password = bytes("\0\xFF", 2);
    begin_with(all);
    umqtt_set_will(CALL, text("w"), text("bye"), true, 2);
    world.write_limit = 1;
    EXPECTS("\x10\x1F\0\6MQIsdp\3\xF6\x12\x34\0\1c\0\1w\0\3bye\0\2me\0\2\0\xFF");
    SENDS("\x20\2\0\0");
    umqtt_outcome_t outcome = umqtt_connect(CALL, true);
    CHECK(outcome.what == UMQTT_WHAT_DONE && outcome.detail >= 0);
    // While connected: closes first. The internal thread is wanted once.
    EXPECTS("\x10\x1F\0\6MQIsdp\3\xF4\x12\x34\0\1c\0\1w\0\3bye\0\2me\0\2\0\xFF");
    SENDS("\x20\2\0\0");
    CHECK(done(umqtt_connect(CALL, false), -1));
    CHECK(world.sockets == 1);
    end();
}

static umqtt_outcome_t connect_fails(void) {
    umqtt_outcome_t outcome = umqtt_connect(CALL, false);
    CHECK(front() == NULL && world.sockets == 0);
    CHECK(umqtt_status(CALL) == -1);
    return outcome;
}

static void test_connect_fails(void) {
    begin();
    world.resolve_error = ENOENT;
    CHECK(is(connect_fails(), UMQTT_WHAT_DNS, ENOENT));
    world.resolve_error = 0;
    world.socket_error = ENOMEM;
    CHECK(is(connect_fails(), UMQTT_WHAT_DIAL, ENOMEM));
    world.socket_error = 0;
    world.connect_error = ECONNREFUSED;
    CHECK(is(connect_fails(), UMQTT_WHAT_DIAL, ECONNREFUSED));
    world.connect_error = EAGAIN;
    uint32_t start = world.now;
    CHECK(is(connect_fails(), UMQTT_WHAT_UNREACHABLE, 0));
    CHECK(world.now - start == 20000);
    world.connect_error = 0;
    EXPECTS_CONNECT();
    start = world.now;
    CHECK(is(connect_fails(), UMQTT_WHAT_SILENT, 0));
    CHECK(world.now - start == 20000);
    EXPECTS_CONNECT();
    SENDS("\x20\2\0\5");
    CHECK(is(connect_fails(), UMQTT_WHAT_REFUSED, 5));
    EXPECTS_CONNECT();
    SENDS("\xD0\0");
    CHECK(is(connect_fails(), UMQTT_WHAT_UNEXPECTED, 13));
    EXPECTS_CONNECT();
    step(FIN, NULL, 0);
    CHECK(is(connect_fails(), UMQTT_WHAT_CLOSED, 0));
    step(RESET, NULL, 0);
    CHECK(is(connect_fails(), UMQTT_WHAT_IO, ECONNRESET));
    EXPECTS_CONNECT();
    world.interrupt = true;
    CHECK(is(connect_fails(), UMQTT_WHAT_INTERRUPTED, 0));
    connects();
    end();
}

static void test_publish(void) {
    begin();
    CHECK(is(publish(0, "x", true), UMQTT_WHAT_NOT_CONNECTED, 0));
    connects();
    EXPECTS("\x30\x08\0\1thello");
    CHECK(done(publish(0, "hello", true), 1));
    EXPECTS("\x32\x0A\0\1t\0\1hello");
    SENDS("\x40\2\0\1");
    CHECK(done(publish(1, "hello", true), 1));
    EXPECTS("\x34\5\0\1t\0\2");
    SENDS("\x50\2\0\2");
    EXPECTS("\x62\2\0\2");
    SENDS("\x70\2\0\2");
    CHECK(done(publish(2, "", true), 1));
    EXPECTS("\x33\6\0\1t\0\3x");
    SENDS("\x40\2\0\3");
    CHECK(done(umqtt_publish(CALL, text("t"), text("x"), true, 1, true, true), 1));
    // A payload larger than the buffers goes from where it lies, in pieces.
    static char packet[20000 + 7] = "\x30\xA3\x9C\1\0\1t";
    memset(packet + 7, 'p', 20000);
    step(EXPECT, packet, sizeof(packet));
    world.write_limit = 1000;
    CHECK(done(umqtt_publish(CALL, text("t"), bytes(packet + 7, 20000), false, 0, true, true), 1));
    CHECK(front() == NULL);
    umqtt_bytes_t large = bytes(packet, sizeof(packet));
    CHECK(is(umqtt_publish(CALL, text("t"), large, false, 0, true, false), UMQTT_WHAT_BUSY, 0));
    // A window's worth at once, and no more.
    static const char small[] = "\x32\6\0\1t\0\4x\x32\6\0\1t\0\5x\x32\6\0\1t\0\6x\x32\6\0\1t\0\7x\x32\6\0\1t\0\x08x";
    step(EXPECT, small, sizeof(small) - 1);
    for (int i = 0; i < 5; i++) {
        CHECK(done(publish(1, "x", false), 1));
    }
    CHECK(front() == NULL);
    world.blocked = true;
    int taken = 5;
    while (publish(1, "x", false).detail == 1) {
        taken++;
    }
    CHECK(done(publish(1, "x", false), -1) && taken >= 16);
    CHECK(is(publish(0, "x", true), UMQTT_WHAT_TIMED_OUT, 0));
    umqtt_close(CALL);
    CHECK(umqtt_status(CALL) == -1);
    end();
}

static void test_stalled(void) {
    begin();
    connects();
    // Half of a packet is sent, and then nothing any more.
    EXPECTS("\x30\4\0");
    step(FULL, NULL, 0);
    uint32_t start = world.now;
    CHECK(is(publish(0, "x", true), UMQTT_WHAT_STALLED, 0));
    CHECK(world.now - start == 5000);
    CHECK(umqtt_status(CALL) == -1 && world.sockets == 0);
    end();
}

static void test_receive(void) {
    begin();
    CHECK(is(receive(true), UMQTT_WHAT_NOT_CONNECTED, 0));
    connects();
    CHECK(done(receive(false), 0));
    SENDS("\x30\5\0\2abc");
    receives("ab", "c", 1);
    CHECK(umqtt_first_message(CALL)->tag.qos == 0 && umqtt_first_message(CALL)->tag.id == 0);
    handled();
    SENDS("\x32\6\0\1t\1\2x");
    receives("t", "x", 1);
    CHECK(umqtt_first_message(CALL)->tag.qos == 1 && umqtt_first_message(CALL)->tag.id == 0x0102);
    EXPECTS("\x40\2\1\2");
    handled();
    // Twice, but only once to the script.
    SENDS("\x34\5\0\1t\0\7\x3C\5\0\1t\0\7");
    receives("t", "", 0);
    EXPECTS("\x50\2\0\7");
    handled();
    EXPECTS("\x50\2\0\7");
    SENDS("\x62\2\0\7");
    EXPECTS("\x70\2\0\7");
    settles();
    // Several at once.
    SENDS("\x30\4\0\1ax\x30\4\0\1by\x30\4\0\1cz");
    receives("a", "x", 1);
    handled();
    receives("b", "y", 1);
    handled();
    receives("c", "z", 1);
    handled();
    // Larger than the buffer.
    static char packet[20000 + 7] = "\x30\xA3\x9C\1\0\1t";
    memset(packet + 7, 'p', 20000);
    step(SEND, packet, sizeof(packet));
    receives("t", packet + 7, 20000);
    handled();
    // Kept while a call waits.
    EXPECTS("\x32\6\0\1t\0\1x");
    SENDS("\x30\4\0\1a1\x30\4\0\1a2\x40\2\0\1\x30\4\0\1a3");
    CHECK(done(publish(1, "x", true), 1));
    receives("a", "1", 1);
    CHECK(world.messages == 3 || world.messages == 2);
    handled();
    receives("a", "2", 1);
    handled();
    // The rest goes with the connection, but for the one that is in the callback.
    receives("a", "3", 1);
    SENDS("\x30\4\0\1a4");
    CHECK(done(receive(false), 0));
    world.first = world.last = 0;
    EXPECTS("\xE0\0");
    umqtt_disconnect(CALL);
    CHECK(world.messages == 1 && memcmp(umqtt_first_message(CALL)->payload_data, "3", 1) == 0);
    handled();
    CHECK(world.messages == 0);
    end();
}

static void test_subscribe(void) {
    begin();
    CHECK(is(subscribe("a", 1), UMQTT_WHAT_NOT_CONNECTED, 0));
    connects();
    EXPECTS("\x82\6\0\1\0\1a\2");
    SENDS("\x90\3\0\1\2");
    CHECK(done(subscribe("a", 2), 1));
    EXPECTS("\x82\6\0\2\0\1b\0");
    SENDS("\x90\3\0\2\x80");
    CHECK(is(subscribe("b", 0), UMQTT_WHAT_SUBSCRIPTION_REFUSED, 0));
    EXPECTS("\xA2\5\0\3\0\1a");
    SENDS("\xB0\2\0\3");
    CHECK(done(umqtt_unsubscribe(CALL, text("a")), 1));
    EXPECTS("\x82\6\0\4\0\1c\1");
    CHECK(is(subscribe("c", 1), UMQTT_WHAT_TIMED_OUT, 0));
    // More than the first block of the list holds; all are asked for again.
    SENDS("\x90\3\0\4\1");
    EXPECTS("\x82\6\0\5\0\1d\0");
    SENDS("\x90\3\0\5\0");
    EXPECTS("\x82\6\0\6\0\1e\0");
    SENDS("\x90\3\0\6\0");
    EXPECTS("\x82\6\0\7\0\1f\0");
    SENDS("\x90\3\0\7\0");
    EXPECTS("\x82\6\0\x08\0\1g\0");
    SENDS("\x90\3\0\x08\0");
    EXPECTS("\x82\6\0\x09\0\1h\0");
    SENDS("\x90\3\0\x09\0");
    CHECK(done(receive(false), 0));
    CHECK(done(subscribe("d", 0), 1) && done(subscribe("e", 0), 1));
    CHECK(done(subscribe("f", 0), 1) && done(subscribe("g", 0), 1) && done(subscribe("h", 0), 1));
    step(RESET, NULL, 0);
    CHECK(is(receive(true), UMQTT_WHAT_IO, ECONNRESET));
    EXPECTS_CONNECT();
    SENDS("\x20\2\0\0");
    EXPECTS("\x82\6\0\4\0\1c\1\x82\6\0\5\0\1d\0\x82\6\0\6\0\1e\0\x82\6\0\7\0\1f\0\x82\6\0\x08\0\1g\0\x82\6\0\x09\0\1h\0");
    CHECK(umqtt_connect(CALL, false).what == UMQTT_WHAT_DONE);
    CHECK(done(receive(false), 0));
    end();
}

static void test_faults(void) {
    static const struct {
        const char *data;
        size_t len;
        umqtt_what what;
        int32_t detail;
    } faults[] = {
        { "\x36", 1, UMQTT_WHAT_MALFORMED, UMQTT_MALFORMED_QOS },
        { "\x40\2\0\0", 4, UMQTT_WHAT_MALFORMED, UMQTT_MALFORMED_PACKET_ID },
        { "\x30\3\0\0", 4, UMQTT_WHAT_MALFORMED, UMQTT_MALFORMED_TOPIC },
        { "\x20\2\0\0", 4, UMQTT_WHAT_UNEXPECTED, 2 },
        { "\xC0\0", 2, UMQTT_WHAT_UNEXPECTED, 12 },
    };
    begin();
    for (size_t i = 0; i < sizeof(faults) / sizeof(*faults); i++) {
        connects();
        step(SEND, faults[i].data, faults[i].len);
        CHECK(is(receive(true), faults[i].what, faults[i].detail));
        CHECK(umqtt_status(CALL) == -1 && world.sockets == 0 && world.messages == 0);
    }
    connects();
    step(FIN, NULL, 0);
    CHECK(is(receive(true), UMQTT_WHAT_CLOSED, 0));
    CHECK(umqtt_status(CALL) == 2 && world.sockets == 0);
    // In the middle of a message.
    connects();
    SENDS("\x32\x20\0\1t\0\1half");
    step(FIN, NULL, 0);
    CHECK(is(receive(true), UMQTT_WHAT_CLOSED, 0));
    CHECK(world.messages == 0);
    end();
}

static void test_ping(void) {
    begin();
    CHECK(is(umqtt_ping(CALL), UMQTT_WHAT_NOT_CONNECTED, 0));
    connects();
    EXPECTS("\xC0\0");
    SENDS("\xD0\0");
    CHECK(done(umqtt_ping(CALL), 1));
    settles();
    end();
}

static void test_no_memory(void) {
    begin();
    connects();
    world.largest = 2;
    SENDS("\x32\x08\0\1t\0\5big\x30\5\0\1tok");
    EXPECTS("\x40\2\0\5");
    CHECK(is(receive(true), UMQTT_WHAT_SKIPPED, 0) && length == 8);
    receives("t", "ok", 2);
    handled();
    world.no_memory = true;
    // Beside all the messages in flight there is room for a few subscriptions.
    for (char id = 1; id <= 4; id++) {
        const char filter[] = { 'a' + id - 1, 0 };
        const char request[] = { 0x82, 6, 0, id, 0, 1, filter[0], 0 }, answer[] = { 0x90, 3, 0, id, 0 };
        step(EXPECT, request, sizeof(request));
        step(SEND, answer, sizeof(answer));
        CHECK(done(subscribe(filter, 0), 1));
    }
    CHECK(is(subscribe("e", 0), UMQTT_WHAT_NO_MEMORY, 0));
    CHECK(is(umqtt_unsubscribe(CALL, text("e")), UMQTT_WHAT_NO_MEMORY, 0));
    // There is no memory for the identifier of a QoS 2 message.
    SENDS("\x34\6\0\1t\0\6x");
    EXPECTS("\x50\2\0\6");
    CHECK(is(receive(true), UMQTT_WHAT_SKIPPED, 0) && length == 6);
    world.no_memory = false;
    SENDS("\x34\6\0\1t\0\7x");
    receives("t", "x", 1);
    EXPECTS("\x50\2\0\7");
    handled();
    // It has to be a valid one all the same.
    world.largest = 2;
    SENDS("\x30\x08\0\3t/#big");
    CHECK(is(receive(true), UMQTT_WHAT_MALFORMED, UMQTT_MALFORMED_TOPIC));
    end();
}

// Ctrl-C.
static void test_interrupted(void) {
    begin();
    connects();
    world.interrupt = true;
    CHECK(is(receive(true), UMQTT_WHAT_INTERRUPTED, 0));
    world.interrupt = true;
    EXPECTS("\x32\6\0\1t\0\1x");
    CHECK(is(publish(1, "x", true), UMQTT_WHAT_INTERRUPTED, 0));
    CHECK(umqtt_status(CALL) == 0);
    umqtt_close(CALL);
    // It is in flight.
    EXPECTS_CONNECT();
    SENDS("\x20\2\1\0");
    EXPECTS("\x3A\6\0\1t\0\1x");
    SENDS("\x40\2\0\1");
    CHECK(done(umqtt_connect(CALL, false), -1));
    CHECK(done(receive(false), 0));
    end();
}

// Runs `body` in a thread that is killed in its first wait: nothing comes back from there.
static bool killed(void (*body)(void)) {
    jmp_buf kill;
    world.kill = &kill;
    if (setjmp(kill) == 0) {
        body();
        world.kill = NULL;
        return false;
    }
    world.kill = NULL;
    return world.lock == NULL;
}

static void connect_waits(void) {
    umqtt_connect(CALL, false);
}

static void receive_waits(void) {
    receive(true);
}

static void publish_waits(void) {
    publish(2, "x", true);
}

static void subscribe_waits(void) {
    subscribe("a", 1);
}

static void unsubscribe_waits(void) {
    umqtt_unsubscribe(CALL, text("a"));
}

static void test_killed(void) {
    begin();
    connects();
    CHECK(killed(receive_waits));
    EXPECTS("\x34\6\0\1t\0\1x");
    CHECK(killed(publish_waits));
    EXPECTS("\x82\6\0\2\0\1a\1");
    CHECK(killed(subscribe_waits));
    EXPECTS("\xA2\5\0\3\0\1a");
    CHECK(killed(unsubscribe_waits));
    // All the others go on.
    EXPECTS("\x30\4\0\1ty");
    CHECK(done(publish(0, "y", true), 1));
    EXPECTS("\x32\6\0\1t\0\4y");
    SENDS("\x50\2\0\1\x40\2\0\4\x90\3\0\2\1\xB0\2\0\3");
    EXPECTS("\x62\2\0\1");
    CHECK(done(publish(1, "y", true), 1));
    SENDS("\x70\2\0\1\x30\4\0\1tz");
    receives("t", "z", 1);
    handled();
    EXPECTS("\x82\6\0\5\0\1b\0");
    SENDS("\x90\3\0\5\0");
    CHECK(done(subscribe("b", 0), 1));
    EXPECTS("\xE0\0");
    umqtt_disconnect(CALL);
    CHECK(umqtt_status(CALL) == -1 && world.sockets == 0);
    // Killed while it waits for CONNACK.
    EXPECTS_CONNECT();
    CHECK(killed(connect_waits));
    CHECK(umqtt_status(CALL) == 1);
    CHECK(done(publish(0, "y", true), 0));
    umqtt_disconnect(CALL);
    CHECK(umqtt_status(CALL) == -1 && world.sockets == 0);
    connects();
    end();
}

static void disconnects(void) {
    EXPECTS("\xE0\0");
    umqtt_disconnect(CALL);
}

static void disconnects_idle(void) {
    umqtt_disconnect(CALL);
}

// The internal thread: keepalive, failures, reconnection.
static void test_thread(void) {
    begin();
    int thread = connects();
    CHECK(thread >= 0);
    uint32_t start = world.now;
    EXPECTS("\xC0\0");
    SENDS("\xD0\0");
    world.on_wait = disconnects;
    umqtt_run(CALL, thread);
    CHECK(world.now - start == 60000 && world.reports == 0);
    // That one has ended: another one is wanted.
    int other = connects();
    CHECK(other >= 0 && other != thread);
    umqtt_run(CALL, thread);
    step(FIN, NULL, 0);
    world.on_wait = disconnects_idle;
    umqtt_run(CALL, other);
    CHECK(world.reports == 1 && is(world.reported, UMQTT_WHAT_CLOSED, 0));
    // No answer to a ping.
    thread = connects();
    start = world.now;
    EXPECTS("\xC0\0");
    step(FULL, NULL, 0);
    world.on_wait = disconnects_idle;
    umqtt_run(CALL, thread);
    CHECK(world.now - start == 70000);
    CHECK(world.reports == 2 && is(world.reported, UMQTT_WHAT_NO_PINGRESP, 0));
    // One that could not be started.
    thread = connects();
    umqtt_no_thread(CALL, thread);
    CHECK(connects() >= 0);
    end();

    umqtt_settings_t with = settings();
    with.reconnect = true;
    begin_with(with);
    thread = connects();
    start = world.now;
    EXPECTS("\x32\6\0\1t\0\1x");
    CHECK(done(publish(1, "x", false), 1));
    step(FIN, NULL, 0);
    EXPECTS_CONNECT();
    SENDS("\x20\2\1\0");
    EXPECTS("\x3A\6\0\1t\0\1x");
    SENDS("\x40\2\0\1");
    world.on_wait = disconnects;
    umqtt_run(CALL, thread);
    CHECK(world.now - start >= 750 && world.now - start <= 1250 && world.reports == 0);
    end();
}

// A thread that was killed does not keep the internal thread from its work.
static void test_killed_and_thread(void) {
    begin();
    int thread = connects();
    CHECK(killed(receive_waits));
    uint32_t start = world.now;
    EXPECTS("\xC0\0");
    SENDS("\xD0\0");
    step(FIN, NULL, 0);
    world.on_wait = disconnects_idle;
    umqtt_run(CALL, thread);
    CHECK(world.reports == 1 && is(world.reported, UMQTT_WHAT_CLOSED, 0));
    CHECK(world.now - start <= 120000);
    end();
}

// The same work, done by the calls themselves.
static void test_without_threads(void) {
    umqtt_settings_t with = settings();
    with.reconnect = true;
    world.no_threads = true;
    begin_with(with);
    CHECK(connects() == -1);
    uint32_t start = world.now;
    EXPECTS("\xC0\0");
    SENDS("\xD0\0");
    step(FIN, NULL, 0);
    EXPECTS_CONNECT();
    SENDS("\x20\2\0\0");
    SENDS("\x30\4\0\1tx");
    receives("t", "x", 1);
    CHECK(world.now - start >= 60750 && world.now - start <= 61250);
    handled();
    end();
}

/******************************************************************************/

static const struct {
    const char *name;
    void (*run)(void);
} tests[] = {
    { "checks", test_checks },
    { "connect", test_connect },
    { "connect_fails", test_connect_fails },
    { "publish", test_publish },
    { "stalled", test_stalled },
    { "receive", test_receive },
    { "subscribe", test_subscribe },
    { "faults", test_faults },
    { "ping", test_ping },
    { "no_memory", test_no_memory },
    { "interrupted", test_interrupted },
    { "killed", test_killed },
    { "thread", test_thread },
    { "killed_and_thread", test_killed_and_thread },
    { "without_threads", test_without_threads },
};

int main(void) {
    setvbuf(stdout, NULL, _IONBF, 0);
    for (size_t i = 0; i < sizeof(tests) / sizeof(*tests); i++) {
        printf("%s\n", tests[i].name);
        tests[i].run();
    }
    printf("all passed\n");
    return 0;
}
