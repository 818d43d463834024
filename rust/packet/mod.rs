//! MQTT packets: one type for each, with a checked `parse` and an `emit`, both without a copy.
//!
//! What this layer guarantees: bytes become a valid packet or a [`Malformed`] that says what was
//! wrong with them, never half of either, and nothing is read past the packet. MQTT 3.1 and 3.1.1
//! ([`Version`]) differ here and nowhere above. It keeps no state and knows neither sessions nor
//! time; `[MQTT-x.y.z-n]` marks the check that enforces that statement of MQTT 3.1.1.
//!
//! What is emitted is trusted: the caller has put its texts through [`check_topic`],
//! [`check_filter`] or [`check_text`], and a payload through [`Publish::fits`].

mod ack;
mod connack;
mod connect;
mod header;
mod publish;
mod reader;
mod suback;
mod subscribe;
mod text;
mod unsubscribe;
mod writer;

use reader::Reader;

pub use ack::Ack;
pub use connack::Connack;
pub use connect::{Connect, Will};
pub use header::{Header, Kind, MAX_REMAINING};
pub use publish::{Publish, publish_flags};
pub use suback::Suback;
pub use subscribe::Subscribe;
pub use text::{check_filter, check_text, check_topic};
pub use unsubscribe::Unsubscribe;
pub use writer::Writer;
pub(crate) use writer::copy;

/// The value, or what was wrong with the bytes.
pub type Result<T> = core::result::Result<T, Malformed>;

/// A packet identifier: never 0 `[MQTT-2.3.1-1]` (section 2.3.1).
pub type PacketId = core::num::NonZeroU16;

/// The packet identifier that stands on the wire like this.
pub(crate) fn packet_id(bytes: [u8; 2]) -> Result<PacketId> {
    PacketId::new(u16::from_be_bytes(bytes)).ok_or(Malformed::PacketId) // [MQTT-2.3.1-1]
}

/// What was wrong with the bytes. The numbers are stable: other languages map them to words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Malformed {
    /// The remaining length is no valid length, or not one that this packet can have, or a field
    /// runs past it, or bytes are left over.
    RemainingLength = 1,
    /// Packet type 0 or 15, or not the type that was asked for.
    Kind = 2,
    /// The low four bits of the first byte do not go with the packet type, or DUP with QoS 0.
    Flags = 3,
    /// QoS 3, or reserved bits beside a requested QoS.
    Qos = 4,
    /// Packet identifier 0.
    PacketId = 5,
    /// The protocol name in CONNECT is neither `MQTT` nor `MQIsdp`.
    Protocol = 6,
    /// The protocol level in CONNECT does not go with the protocol name.
    Version = 7,
    /// Flags of CONNECT that are reserved or contradict each other.
    ConnectFlags = 8,
    /// A return code of CONNACK or SUBACK that does not exist.
    ReturnCode = 9,
    /// Reserved bits beside CONNACK's session present, or session present in a refusal.
    SessionPresent = 10,
    /// An empty topic, a wildcard in a topic name, or one at a wrong place in a topic filter.
    Topic = 11,
    /// A text that is not UTF-8, or has U+0000 in it.
    Utf8 = 12,
    /// A text of more than 65,535 bytes (never from the wire).
    TooLong = 13,
}

/// The protocol version, by its level in CONNECT (section 3.1.2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Version {
    /// MQTT 3.1, `MQIsdp`.
    V31 = 3,
    /// MQTT 3.1.1, `MQTT`.
    V311 = 4,
}

/// Quality of service (section 4.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum QoS {
    /// QoS 0.
    AtMostOnce = 0,
    /// QoS 1.
    AtLeastOnce = 1,
    /// QoS 2.
    ExactlyOnce = 2,
}

impl QoS {
    /// The QoS with this number; `None` unless 0, 1 or 2.
    pub const fn from_bits(bits: u8) -> Option<QoS> {
        match bits {
            0 => Some(QoS::AtMostOnce),
            1 => Some(QoS::AtLeastOnce),
            2 => Some(QoS::ExactlyOnce),
            _ => None,
        }
    }
}

/// Any packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packet<'a> {
    /// CONNECT, section 3.1.
    Connect(Connect<'a>),
    /// CONNACK, section 3.2.
    Connack(Connack),
    /// PUBLISH, section 3.3.
    Publish(Publish<'a>),
    /// PUBACK, PUBREC, PUBREL, PUBCOMP and UNSUBACK, sections 3.4 to 3.7 and 3.11.
    Ack(Ack),
    /// SUBSCRIBE, section 3.8.
    Subscribe(Subscribe<'a>),
    /// SUBACK, section 3.9.
    Suback(Suback<'a>),
    /// UNSUBSCRIBE, section 3.10.
    Unsubscribe(Unsubscribe<'a>),
    /// PINGREQ, section 3.12.
    Pingreq,
    /// PINGRESP, section 3.13.
    Pingresp,
    /// DISCONNECT, section 3.14.
    Disconnect,
}

impl Packet<'_> {
    /// The packet at the start of `bytes`, and its length in bytes; `None` if more are needed.
    ///
    /// # Errors
    /// What is wrong with the packet; for what its header shows, before its body is there.
    pub fn parse(bytes: &[u8], version: Version) -> Result<Option<(Packet<'_>, usize)>> {
        let Some((header, start)) = Header::parse(bytes, version)? else {
            return Ok(None);
        };
        let length = header.remaining as usize;
        let Some(body) = bytes.get(start..).and_then(|rest| rest.get(..length)) else {
            return Ok(None);
        };
        let packet = match header.kind {
            Kind::Connect => Packet::Connect(Connect::parse(header, body)?),
            Kind::Connack => Packet::Connack(Connack::parse(header, body, version)?),
            Kind::Publish => Packet::Publish(Publish::parse(header, body)?),
            Kind::Puback | Kind::Pubrec | Kind::Pubrel | Kind::Pubcomp | Kind::Unsuback => {
                Packet::Ack(Ack::parse(header, body)?)
            }
            Kind::Subscribe => Packet::Subscribe(Subscribe::parse(header, body)?),
            Kind::Suback => Packet::Suback(Suback::parse(header, body)?),
            Kind::Unsubscribe => Packet::Unsubscribe(Unsubscribe::parse(header, body)?),
            Kind::Pingreq => Packet::Pingreq,
            Kind::Pingresp => Packet::Pingresp,
            Kind::Disconnect => Packet::Disconnect,
        };
        Ok(Some((packet, start + length)))
    }

    /// Writes the packet.
    pub fn emit(&self, out: &mut Writer) {
        match self {
            Packet::Connect(packet) => packet.emit(out),
            Packet::Connack(packet) => packet.emit(out),
            Packet::Publish(packet) => packet.emit(out),
            Packet::Ack(packet) => packet.emit(out),
            Packet::Subscribe(packet) => packet.emit(out),
            Packet::Suback(packet) => packet.emit(out),
            Packet::Unsubscribe(packet) => packet.emit(out),
            Packet::Pingreq => Header::new(Kind::Pingreq, 0).emit(out),
            Packet::Pingresp => Header::new(Kind::Pingresp, 0).emit(out),
            Packet::Disconnect => Header::new(Kind::Disconnect, 0).emit(out),
        }
    }

    /// Bytes in all on the wire.
    pub fn encoded_len(&self) -> usize {
        Writer::count(|counter| self.emit(counter))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Emits `packet` as exactly `bytes`, and parses `bytes` as `packet`.
    pub(super) fn both_ways(packet: Packet, bytes: &[u8], version: Version) {
        let mut out = [0; 256];
        let mut writer = Writer::new(&mut out, 0);
        packet.emit(&mut writer);
        let written = writer.written();
        assert_eq!(&out[..written], bytes);
        assert_eq!(packet.encoded_len(), bytes.len());
        assert_eq!(
            Packet::parse(bytes, version),
            Ok(Some((packet, bytes.len())))
        );
    }

    #[test]
    fn packets_without_a_body() {
        for version in [Version::V31, Version::V311] {
            both_ways(Packet::Pingreq, &[0xC0, 0], version);
            both_ways(Packet::Pingresp, &[0xD0, 0], version);
            both_ways(Packet::Disconnect, &[0xE0, 0], version);
        }
    }

    #[test]
    fn every_qos() {
        for bits in 0..=0xFF {
            assert_eq!(
                QoS::from_bits(bits).map(|qos| qos as u8),
                Some(bits).filter(|bits| *bits < 3)
            );
        }
    }
}
