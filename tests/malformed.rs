//! Each way in which a packet can be malformed, and what it is called.

use umqtt::packet::*;

/// In 3.1.1 and in 3.1.
type Outcome = (Option<Malformed>, Option<Malformed>);

type Parser = fn(Header, &[u8]) -> Option<Malformed>;

/// Each way to be malformed: the bytes, and what is wrong with them.
#[test]
fn malformations() {
    use Malformed::*;
    let both = |error| (Some(error), Some(error));
    let cases: &[(&[u8], Outcome)] = &[
        // The header.
        (b"\x00\x00", both(Kind)),
        (b"\xF0\x00", both(Kind)),
        (b"\x11", both(Flags)),
        (b"\x60\x02\x00\x01", both(Flags)), // [MQTT-3.6.1-1]
        (b"\x6A\x02\x00\x01", (Some(Flags), None)),
        (b"\x80\x06\x00\x01\x00\x01a\x00", both(Flags)), // [MQTT-3.8.1-1]
        (b"\x8A\x06\x00\x01\x00\x01a\x00", (Some(Flags), None)),
        (b"\xA0\x05\x00\x01\x00\x01a", both(Flags)), // [MQTT-3.10.1-1]
        (b"\xAA\x05\x00\x01\x00\x01a", (Some(Flags), None)),
        (b"\xC8\x00", both(Flags)),
        (b"\xE1\x00", both(Flags)),          // [MQTT-3.14.1-1]
        (b"\x38\x03\x00\x01a", both(Flags)), // [MQTT-3.3.1-2]
        (b"\x36", both(Qos)),                // [MQTT-3.3.1-4]
        (b"\x30\xFF\xFF\xFF\x80", both(RemainingLength)),
        (b"\x40\x03", both(RemainingLength)),
        (b"\x40\x01", both(RemainingLength)),
        (b"\x40\x82\x01", both(RemainingLength)),
        (b"\xD0\x01", both(RemainingLength)),
        (b"\x90\x02", both(RemainingLength)),
        (b"\x82\x02", both(RemainingLength)), // [MQTT-3.8.3-3]
        (b"\xA2\x02", both(RemainingLength)), // [MQTT-3.10.3-2]
        // CONNECT.
        (
            b"\x10\x0C\x00\x04mqtt\x04\x02\x00\x00\x00\x00",
            both(Protocol),
        ),
        (
            b"\x10\x0C\x00\x04MQTT\x05\x02\x00\x00\x00\x00",
            both(Version),
        ),
        (
            b"\x10\x0C\x00\x04MQTT\x03\x02\x00\x00\x00\x00",
            both(Version),
        ),
        (
            b"\x10\x0E\x00\x06MQIsdp\x04\x02\x00\x00\x00\x00",
            both(Version),
        ),
        (
            b"\x10\x0C\x00\x04MQTT\x04\x03\x00\x00\x00\x00",
            both(ConnectFlags),
        ), // [MQTT-3.1.2-3]
        (
            b"\x10\x0C\x00\x04MQTT\x04\x08\x00\x00\x00\x00",
            both(ConnectFlags),
        ), // [MQTT-3.1.2-13]
        (
            b"\x10\x0C\x00\x04MQTT\x04\x20\x00\x00\x00\x00",
            both(ConnectFlags),
        ), // [MQTT-3.1.2-15]
        (
            b"\x10\x0E\x00\x04MQTT\x04\x40\x00\x00\x00\x00\x00\x00",
            both(ConnectFlags),
        ), // [MQTT-3.1.2-22]
        (
            b"\x10\x11\x00\x04MQTT\x04\x1C\x00\x00\x00\x00\x00\x01w\x00\x00",
            both(Qos),
        ), // [MQTT-3.1.2-14]
        (
            b"\x10\x10\x00\x04MQTT\x04\x04\x00\x00\x00\x00\x00\x00\x00\x00",
            both(Topic),
        ),
        (
            b"\x10\x11\x00\x04MQTT\x04\x04\x00\x00\x00\x00\x00\x01#\x00\x00",
            both(Topic),
        ),
        (
            b"\x10\x0F\x00\x04MQTT\x04\x04\x00\x00\x00\x00\x00\x01w",
            both(RemainingLength),
        ),
        (
            b"\x10\x0D\x00\x04MQTT\x04\x02\x00\x00\x00\x01\x00",
            both(Utf8),
        ),
        (
            b"\x10\x0F\x00\x04MQTT\x04\x80\x00\x00\x00\x00\x00\x01\xFF",
            both(Utf8),
        ),
        (
            b"\x10\x0C\x00\x04MQTT\x04\x80\x00\x00\x00\x00",
            both(RemainingLength),
        ), // [MQTT-3.1.2-19]
        (
            b"\x10\x0D\x00\x04MQTT\x04\x02\x00\x00\x00\x00x",
            both(RemainingLength),
        ),
        (
            b"\x10\x0F\x00\x06MQIsdp\x03\x02\x00\x00\x00\x00x",
            both(RemainingLength),
        ),
        (
            b"\x10\x0C\x00\x04MQTT\x04\x02\x00\x00\x00\x01",
            both(RemainingLength),
        ),
        (
            b"\x10\x0C\xFF\xFFMQTT\x04\x02\x00\x00\x00\x00",
            both(RemainingLength),
        ),
        // CONNACK.
        (b"\x20\x02\x02\x00", (Some(SessionPresent), None)),
        (b"\x20\x02\x81\x00", (Some(SessionPresent), None)),
        (b"\x20\x02\x01\x05", (Some(SessionPresent), None)), // [MQTT-3.2.2-4]
        (b"\x20\x02\x00\x06", both(ReturnCode)),
        (b"\x20\x02\x00\x80", both(ReturnCode)),
        // PUBLISH.
        (b"\x30\x02", both(RemainingLength)),
        (b"\x32\x04", both(RemainingLength)),
        (b"\x30\x03\x00\x02a", both(RemainingLength)),
        (b"\x32\x05\x00\x03abc", both(RemainingLength)),
        (b"\x30\x03\x00\x00a", both(Topic)),   // [MQTT-4.7.3-1]
        (b"\x30\x05\x00\x03a/#", both(Topic)), // [MQTT-3.3.2-2]
        (b"\x30\x05\x00\x03a/+", both(Topic)),
        (b"\x30\x05\x00\x03a\x00b", both(Utf8)), // [MQTT-1.5.3-2]
        (b"\x30\x05\x00\x03a\xC0\x80", both(Utf8)), // [MQTT-1.5.3-1]
        (b"\x30\x05\x00\x03\xED\xA0\x80", both(Utf8)),
        (b"\x32\x05\x00\x01a\x00\x00", both(PacketId)), // [MQTT-2.3.1-1]
        // Acknowledgements.
        (b"\x40\x02\x00\x00", both(PacketId)),
        (b"\x50\x02\x00\x00", both(PacketId)),
        (b"\x62\x02\x00\x00", both(PacketId)),
        (b"\x70\x02\x00\x00", both(PacketId)),
        (b"\xB0\x02\x00\x00", both(PacketId)),
        // SUBSCRIBE, SUBACK and UNSUBSCRIBE.
        (b"\x82\x06\x00\x00\x00\x01a\x00", both(PacketId)),
        (b"\x82\x06\x00\x01\x00\x01a\x03", both(Qos)), // [MQTT-3.8.3-4]
        (b"\x82\x06\x00\x01\x00\x01a\x10", both(Qos)),
        (b"\x82\x07\x00\x01\x00\x02a#\x00", both(Topic)), // [MQTT-4.7.1-2]
        (b"\x82\x07\x00\x01\x00\x02+a\x00", both(Topic)), // [MQTT-4.7.1-3]
        (b"\x82\x06\x00\x01\x00\x00\x00\x00", both(Topic)),
        (b"\x82\x07\x00\x01\x00\x01a\x00\x00", both(RemainingLength)),
        (b"\x82\x0A\x00\x01\x00\x01a\x00\x00\x01a\x03", both(Qos)),
        (b"\x82\x06\x00\x01\x00\x01\xFF\x00", both(Utf8)),
        (b"\x90\x03\x00\x00\x00", both(PacketId)),
        (b"\x90\x03\x00\x01\x03", both(ReturnCode)), // [MQTT-3.9.3-2]
        (b"\x90\x04\x00\x01\x00\x81", both(ReturnCode)),
        (b"\xA2\x05\x00\x00\x00\x01a", both(PacketId)),
        (b"\xA2\x06\x00\x01\x00\x02#a", both(Topic)),
        (b"\xA2\x08\x00\x01\x00\x01a\x00\x01\x00", both(Utf8)),
        (b"\xA2\x06\x00\x01\x00\x01a\x00", both(RemainingLength)),
    ];
    for (bytes, (v311, v31)) in cases {
        let versions = [
            (umqtt::packet::Version::V311, v311),
            (umqtt::packet::Version::V31, v31),
        ];
        for (version, expected) in versions {
            let parsed = Packet::parse(bytes, version);
            match expected {
                Some(error) => assert_eq!(parsed, Err(*error), "{bytes:x?} {version:?}"),
                None => assert!(matches!(parsed, Ok(Some(_))), "{bytes:x?} {version:?}"),
            }
        }
    }
}

/// A parser of one type refuses the header of another, and a body of another length.
#[test]
fn header_and_body_go_together() {
    let other = Header::new(Kind::Pingreq, 2);
    let body = [0, 1];
    let parsers: [(Kind, Parser); 7] = [
        (Kind::Connect, |header, body| {
            Connect::parse(header, body).err()
        }),
        (Kind::Connack, |header, body| {
            Connack::parse(header, body, Version::V311).err()
        }),
        (Kind::Publish, |header, body| {
            Publish::parse(header, body).err()
        }),
        (Kind::Puback, |header, body| Ack::parse(header, body).err()),
        (Kind::Subscribe, |header, body| {
            Subscribe::parse(header, body).err()
        }),
        (Kind::Suback, |header, body| {
            Suback::parse(header, body).err()
        }),
        (Kind::Unsubscribe, |header, body| {
            Unsubscribe::parse(header, body).err()
        }),
    ];
    for (kind, parse) in parsers {
        assert_eq!(parse(other, &body), Some(Malformed::Kind));
        for remaining in [1, 3] {
            let header = Header::new(kind, remaining);
            assert_eq!(parse(header, &body), Some(Malformed::RemainingLength));
        }
    }
    // A header that no other parser has looked at.
    let longer = |kind| Header::new(kind, 3);
    let acked = Ack::parse(longer(Kind::Puback), &[0, 1, 2]);
    assert_eq!(acked, Err(Malformed::RemainingLength));
    let accepted = Connack::parse(longer(Kind::Connack), &[0, 0, 0], Version::V311);
    assert_eq!(accepted, Err(Malformed::RemainingLength));
}
