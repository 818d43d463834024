// The C ABI of the umqtt engine. Generated from rust/ffi.rs by cbindgen: do not edit.

#ifndef UMQTT_H
#define UMQTT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// What a call came to: a [`Fault`], another [`Error`], or a success; in this order, so that one
// number becomes another.
enum umqtt_what
#if __STDC_VERSION__ >= 202311L
  : uint8_t
#endif // __STDC_VERSION__ >= 202311L
 {
  // The name was not resolved: errno.
  UMQTT_WHAT_DNS,
  // TCP or TLS did not connect: errno.
  UMQTT_WHAT_DIAL,
  // The socket failed: errno.
  UMQTT_WHAT_IO,
  // The server closed the connection.
  UMQTT_WHAT_CLOSED,
  // TCP or TLS did not connect in time.
  UMQTT_WHAT_UNREACHABLE,
  // CONNECT was not answered in time.
  UMQTT_WHAT_SILENT,
  // The socket took only a part of a packet.
  UMQTT_WHAT_STALLED,
  // PINGREQ was not answered in time.
  UMQTT_WHAT_NO_PINGRESP,
  // The server sent a malformed packet: `umqtt_malformed`.
  UMQTT_WHAT_MALFORMED,
  // The server sent a packet that does not belong there: its type.
  UMQTT_WHAT_UNEXPECTED,
  // The server refused the connection: return code of CONNACK.
  UMQTT_WHAT_REFUSED,
  // The port broke a wait off.
  UMQTT_WHAT_INTERRUPTED,
  // Not connected.
  UMQTT_WHAT_NOT_CONNECTED,
  // No answer in time.
  UMQTT_WHAT_TIMED_OUT,
  // The broker refused the subscription.
  UMQTT_WHAT_SUBSCRIPTION_REFUSED,
  // No memory.
  UMQTT_WHAT_NO_MEMORY,
  // `umqtt_publish`: it would have to wait, and the payload may change meanwhile.
  UMQTT_WHAT_BUSY,
  // Success; `detail` as the function says.
  UMQTT_WHAT_DONE,
  // `umqtt_receive`: a message was too large for the memory.
  UMQTT_WHAT_SKIPPED,
};
#if __STDC_VERSION__ >= 202311L
typedef enum umqtt_what umqtt_what;
#else
typedef uint8_t umqtt_what;
#endif // __STDC_VERSION__ >= 202311L

// Quality of service (section 4.3).
enum umqtt_qos
#if __STDC_VERSION__ >= 202311L
  : uint8_t
#endif // __STDC_VERSION__ >= 202311L
 {
  // QoS 0.
  UMQTT_QOS_AT_MOST_ONCE = 0,
  // QoS 1.
  UMQTT_QOS_AT_LEAST_ONCE = 1,
  // QoS 2.
  UMQTT_QOS_EXACTLY_ONCE = 2,
};
#if __STDC_VERSION__ >= 202311L
typedef enum umqtt_qos umqtt_qos;
#else
typedef uint8_t umqtt_qos;
#endif // __STDC_VERSION__ >= 202311L

// The protocol version, by its level in CONNECT (section 3.1.2.2).
enum umqtt_version
#if __STDC_VERSION__ >= 202311L
  : uint8_t
#endif // __STDC_VERSION__ >= 202311L
 {
  // MQTT 3.1, `MQIsdp`.
  UMQTT_VERSION_V31 = 3,
  // MQTT 3.1.1, `MQTT`.
  UMQTT_VERSION_V311 = 4,
};
#if __STDC_VERSION__ >= 202311L
typedef enum umqtt_version umqtt_version;
#else
typedef uint8_t umqtt_version;
#endif // __STDC_VERSION__ >= 202311L

// What was wrong with the bytes. The numbers are stable: other languages map them to words.
enum umqtt_malformed
#if __STDC_VERSION__ >= 202311L
  : uint8_t
#endif // __STDC_VERSION__ >= 202311L
 {
  // The remaining length is no valid length, or not one that this packet can have, or a field
  // runs past it, or bytes are left over.
  UMQTT_MALFORMED_REMAINING_LENGTH = 1,
  // Packet type 0 or 15, or not the type that was asked for.
  UMQTT_MALFORMED_KIND = 2,
  // The low four bits of the first byte do not go with the packet type, or DUP with QoS 0.
  UMQTT_MALFORMED_FLAGS = 3,
  // QoS 3, or reserved bits beside a requested QoS.
  UMQTT_MALFORMED_QOS = 4,
  // Packet identifier 0.
  UMQTT_MALFORMED_PACKET_ID = 5,
  // The protocol name in CONNECT is neither `MQTT` nor `MQIsdp`.
  UMQTT_MALFORMED_PROTOCOL = 6,
  // The protocol level in CONNECT does not go with the protocol name.
  UMQTT_MALFORMED_VERSION = 7,
  // Flags of CONNECT that are reserved or contradict each other.
  UMQTT_MALFORMED_CONNECT_FLAGS = 8,
  // A return code of CONNACK or SUBACK that does not exist.
  UMQTT_MALFORMED_RETURN_CODE = 9,
  // Reserved bits beside CONNACK's session present, or session present in a refusal.
  UMQTT_MALFORMED_SESSION_PRESENT = 10,
  // An empty topic, a wildcard in a topic name, or one at a wrong place in a topic filter.
  UMQTT_MALFORMED_TOPIC = 11,
  // A text that is not UTF-8, or has U+0000 in it.
  UMQTT_MALFORMED_UTF8 = 12,
  // A text of more than 65,535 bytes (never from the wire).
  UMQTT_MALFORMED_TOO_LONG = 13,
};
#if __STDC_VERSION__ >= 202311L
typedef enum umqtt_malformed umqtt_malformed;
#else
typedef uint8_t umqtt_malformed;
#endif // __STDC_VERSION__ >= 202311L

// What [`umqtt_init`] makes.
typedef void umqtt_engine_t;

// How the C side's frame of one call begins.
typedef struct umqtt_call_t {
  // The engine that it calls.
  umqtt_engine_t *engine;
} umqtt_call_t;

// An object of the C side, such as a socket.
typedef void umqtt_object_t;

// What a call came to.
typedef struct umqtt_outcome_t {
  umqtt_what what;
  int16_t detail;
} umqtt_outcome_t;

// What the engine has to know of a message when it has been handled.
typedef struct umqtt_tag_t {
  // Packet identifier, by the name that cbindgen knows; `None` with QoS 0.
  uint16_t id;
  // Quality of service.
  umqtt_qos qos;
  // The connection it came over: an acknowledgement on another one would be a stranger's.
  uint8_t link;
  // Remaining length of its packet (section 2.2.3).
  uint32_t size;
} umqtt_tag_t;

// A message that comes in.
typedef struct umqtt_message_t {
  struct umqtt_message_t *next;
  // For the port: the objects that own the data.
  umqtt_object_t *topic;
  // For the port: the objects that own the data.
  umqtt_object_t *payload;
  uint8_t *topic_data;
  size_t topic_len;
  uint8_t *payload_data;
  size_t payload_len;
  struct umqtt_tag_t tag;
  bool whole;
} umqtt_message_t;

// Bytes that belong to the C side. That the engine holds on to `data` is what keeps them alive.
typedef struct umqtt_bytes_t {
  // Not NULL, also where there are none; but see `umqtt_port_message_new`.
  const uint8_t *data;
  size_t len;
} umqtt_bytes_t;

// What the script chose.
typedef struct umqtt_settings_t {
  // Client identifier, may be empty.
  struct umqtt_bytes_t client_id;
  // Host name or address of the broker.
  struct umqtt_bytes_t server;
  // User name; empty: none.
  struct umqtt_bytes_t user;
  // Password; empty: none; only with a user name [MQTT-3.1.2-22].
  struct umqtt_bytes_t password;
  // TCP port of the broker.
  uint16_t port;
  // Seconds; 0 turns it off.
  uint16_t keepalive;
  // Protocol version.
  umqtt_version version;
  // How many unanswered PINGREQs are repeated before the connection counts as dead.
  uint8_t ping_max;
  // Ask for an IPv6 address.
  bool ipv6;
  // Does the script leave reconnecting to us?
  bool reconnect;
} umqtt_settings_t;

// Does the port have threads, so that `umqtt_run` can be called from one of its own?
extern bool umqtt_port_has_threads(void);

// Milliseconds, going round at 2^32.
extern uint32_t umqtt_port_now(void);

// Waits until no other thread has the engine. The time it is then.
extern uint32_t umqtt_port_lock(struct umqtt_call_t *call);

// Lets others have the engine. `changed`: the waits of other calls end; `alarm`: that of the
// internal thread too. `waiting`: this call is going to wait with this socket (NULL: none),
// and from now on nothing may be missed.
extern void umqtt_port_unlock(struct umqtt_call_t *call,
                              bool changed,
                              bool alarm,
                              bool waiting,
                              umqtt_object_t *socket);

// Waits for the socket to become readable or writable, at most `timeout` milliseconds; it may
// end early. `socket` NULL: the one of the last unlock. `true`: the call is to be broken off.
extern bool umqtt_port_wait(struct umqtt_call_t *call,
                            umqtt_object_t *socket,
                            bool readable,
                            bool writable,
                            int32_t timeout);

// Resolves the name of the server, blocking, and keeps the address in the call's frame. 0 or
// an error.
extern int32_t umqtt_port_resolve(struct umqtt_call_t *call);

// Makes a socket for the address in the call's frame. NULL and an error, if it fails.
extern umqtt_object_t *umqtt_port_socket(struct umqtt_call_t *call, int32_t *error);

// Begins to connect to the address in the call's frame, or looks how it is going. 0 when
// connected, `EAGAIN` when under way, or an error.
extern int32_t umqtt_port_connect(struct umqtt_call_t *call, umqtt_object_t *socket);

// Sends. How many bytes, or an error (`EAGAIN`: none at this moment), negated.
extern ptrdiff_t umqtt_port_send(struct umqtt_call_t *call,
                                 umqtt_object_t *socket,
                                 const uint8_t *data,
                                 size_t len);

// Receives. How many bytes (0: the peer closed; more than `len`: none, but something has come that
// can only be given when more has), or an error, negated.
extern ptrdiff_t umqtt_port_receive(struct umqtt_call_t *call,
                                    umqtt_object_t *socket,
                                    uint8_t *data,
                                    size_t len);

// Closes a socket.
extern void umqtt_port_close(struct umqtt_call_t *call, umqtt_object_t *socket);

// Tells the script's error callback what ended the connection.
extern void umqtt_port_report(struct umqtt_call_t *call, struct umqtt_outcome_t outcome);

// Makes a message with room for a topic and a payload, and stores it at `link`. `topic.data` is
// the topic, unless NULL: the room for it may be where an equal one is. NULL: there is no
// memory, and nothing is stored.
extern struct umqtt_message_t *umqtt_port_message_new(umqtt_object_t *owner,
                                                      struct umqtt_message_t **link,
                                                      struct umqtt_bytes_t topic,
                                                      size_t payload);

// Lets a message go.
extern void umqtt_port_message_free(umqtt_object_t *owner, struct umqtt_message_t *message);

// Moves the list at `list` to a larger block, zeroed beyond the old one; with an `old_size` of
// 0, there is none yet. `false`: there is no memory, and all is as it was.
extern bool umqtt_port_grow(void **list, size_t old_size, size_t new_size);

// Bytes of memory that an engine takes.
size_t umqtt_size(void);

// Makes an engine in zeroed memory of `umqtt_size` bytes. `owner` comes back when messages are
// made. The texts of `settings` are checked already (`umqtt_check_text`). `false`: there is no
// memory for the list of messages in flight.
bool umqtt_init(umqtt_engine_t *engine,
                umqtt_object_t *owner,
                const struct umqtt_settings_t *settings);

// What the client is made of; it stays as it is.
const struct umqtt_settings_t *umqtt_settings(struct umqtt_call_t *call);

// Bytes of the receive buffer.
int32_t umqtt_receive_buffer(void);

// Connects. `detail`: the number of an internal thread that has to be started, or -1.
struct umqtt_outcome_t umqtt_connect(struct umqtt_call_t *call, bool clean);

// The internal thread: returns when it has to end.
void umqtt_run(struct umqtt_call_t *call, uint8_t thread);

// The internal thread could not be started, or has ended without being asked to.
void umqtt_no_thread(struct umqtt_call_t *call, uint8_t thread);

// Publishes. `fixed`: the payload stays as it is; otherwise a QoS 0 message that is not off at
// once is not taken. `detail`: 1 done, 0 not yet, -1 no room.
struct umqtt_outcome_t umqtt_publish(struct umqtt_call_t *call,
                                     struct umqtt_bytes_t topic,
                                     struct umqtt_bytes_t payload,
                                     bool retain,
                                     umqtt_qos qos,
                                     bool wait,
                                     bool fixed);

// Subscribes. `detail` is 1.
struct umqtt_outcome_t umqtt_subscribe(struct umqtt_call_t *call,
                                       struct umqtt_bytes_t filter,
                                       umqtt_qos qos);

// Unsubscribes. `detail` is 1.
struct umqtt_outcome_t umqtt_unsubscribe(struct umqtt_call_t *call, struct umqtt_bytes_t filter);

// Receives the next message; `wait`: blocks until there is one. `detail`: 1, and then
// `umqtt_first_message` has it until `umqtt_handled`; 0: there is none, or the client was
// disconnected. `length`: the remaining length of the packet of the message, or of the one that
// was skipped; otherwise 0.
struct umqtt_outcome_t umqtt_receive(struct umqtt_call_t *call, bool wait, uint32_t *length);

// The message that is to be handled.
struct umqtt_message_t *umqtt_first_message(struct umqtt_call_t *call);

// The message that `umqtt_receive` named has been handled.
void umqtt_handled(struct umqtt_call_t *call);

// The callback of the message that `umqtt_receive` named has not begun: it is the next one again.
void umqtt_put_back(struct umqtt_call_t *call);

// Sends a PINGREQ. `detail` is 1.
struct umqtt_outcome_t umqtt_ping(struct umqtt_call_t *call);

// Lets the socket go.
void umqtt_close(struct umqtt_call_t *call);

// Disconnects and lets everything go.
void umqtt_disconnect(struct umqtt_call_t *call);

// Sets the last will of the next CONNECT.
void umqtt_set_will(struct umqtt_call_t *call,
                    struct umqtt_bytes_t topic,
                    struct umqtt_bytes_t payload,
                    bool retain,
                    umqtt_qos qos);

// State of the connection: 0 connected, 1 connecting, 2 closed by the server, -1 none.
int32_t umqtt_status(struct umqtt_call_t *call);

// Is this a text as MQTT wants it: UTF-8 without U+0000 (section 1.5.3)?
bool umqtt_check_text(struct umqtt_bytes_t text);

// Is this a topic name (section 4.7)?
bool umqtt_check_topic(struct umqtt_bytes_t topic);

// Is this a topic filter (section 4.7)?
bool umqtt_check_filter(struct umqtt_bytes_t filter);

#endif  /* UMQTT_H */
