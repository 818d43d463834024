//! PUBLISH (section 3.3).

use super::header::encoded_len;
use super::{Header, Kind, MAX_REMAINING, PacketId, QoS, Result, Writer, check_topic};

/// A message on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Publish<'a> {
    /// It may have been sent before.
    pub dup: bool,
    /// Quality of service.
    pub qos: QoS,
    /// The server keeps it for later subscribers, or kept it.
    pub retain: bool,
    /// The topic name, as [`check_topic`] wants it.
    pub topic: &'a [u8],
    /// The packet identifier; `Some` if and only if the QoS is not 0.
    pub id: Option<PacketId>,
    /// The message itself.
    pub payload: &'a [u8],
}

/// DUP, QoS and RETAIN (section 3.3.1) from the flags of a PUBLISH that [`Header::parse`] let
/// through.
pub const fn publish_flags(flags: u8) -> (bool, QoS, bool) {
    let qos = match flags & 0b0110 {
        0 => QoS::AtMostOnce,
        0b0010 => QoS::AtLeastOnce,
        _ => QoS::ExactlyOnce,
    };
    (flags & 0b1000 != 0, qos, flags & 0b0001 != 0)
}

impl<'a> Publish<'a> {
    /// The packet with this header, which [`Header::parse`] let through, and this body.
    ///
    /// # Errors
    /// What is wrong with the topic or the packet identifier.
    #[inline(always)] // called once, and a result by way of memory costs a third more
    pub fn parse(header: Header, body: &'a [u8]) -> Result<Publish<'a>> {
        let mut body = header.open(Kind::Publish, body)?;
        let (dup, qos, retain) = publish_flags(header.flags);
        let topic = body.text()?;
        check_topic(topic)?; // [MQTT-3.3.2-1] [MQTT-3.3.2-2]
        let id = match qos {
            QoS::AtMostOnce => None, // [MQTT-2.3.1-5]
            _ => Some(body.id()?),
        };
        Ok(Publish {
            dup,
            qos,
            retain,
            topic,
            id,
            payload: body.rest(),
        })
    }

    /// Writes the packet.
    #[inline(always)] // what is known of a QoS 0 message halves it
    pub fn emit(&self, out: &mut Writer) {
        let flags = u8::from(self.dup) << 3 | (self.qos as u8) << 1 | u8::from(self.retain);
        let header = Header {
            kind: Kind::Publish,
            flags,
            remaining: 0,
        };
        header.emit_packet(self.topic, self.id, self.payload, &[], out);
    }

    /// Bytes in all on the wire.
    pub fn encoded_len(&self) -> usize {
        encoded_len(self.remaining())
    }

    /// Whether the packet is not too large for MQTT; one that is must not be emitted.
    pub fn fits(&self) -> bool {
        self.remaining() <= MAX_REMAINING
    }

    fn remaining(&self) -> usize {
        let id = if self.id.is_some() { 2 } else { 0 };
        2 + self.topic.len() + id + self.payload.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::tests::both_ways;
    use crate::packet::{Packet, Version};

    const MESSAGE: Publish = Publish {
        dup: false,
        qos: QoS::AtLeastOnce,
        retain: false,
        topic: b"a/b",
        id: PacketId::new(10),
        payload: b"hi",
    };

    /// Figure 3.11 and a payload.
    #[test]
    fn example_of_the_standard() {
        let bytes = b"\x32\x09\x00\x03a/b\x00\x0Ahi";
        both_ways(Packet::Publish(MESSAGE), bytes, Version::V311);
    }

    #[test]
    fn every_flag() {
        for flags in [0, 1, 2, 3, 4, 5, 10, 11, 12, 13] {
            let (dup, qos, retain) = publish_flags(flags);
            let id = PacketId::new(0x0102).filter(|_| flags & 6 != 0);
            let message = Publish {
                dup,
                qos,
                retain,
                topic: b"t",
                id,
                payload: b"",
            };
            let mut bytes = vec![0x30 | flags, 3, 0, 1, b't'];
            if flags & 6 != 0 {
                bytes[1] = 5;
                bytes.extend([1, 2]);
            }
            both_ways(Packet::Publish(message), &bytes, Version::V31);
            both_ways(Packet::Publish(message), &bytes, Version::V311);
            assert_eq!(
                (dup, qos as u8, retain),
                (flags & 8 != 0, flags >> 1 & 3, flags & 1 != 0)
            );
        }
    }

    #[test]
    fn the_largest() {
        let payload = vec![0; MAX_REMAINING - 7 + 1];
        let (largest, _) = payload.split_at(MAX_REMAINING - 7);
        let mut message = Publish {
            payload: largest,
            ..MESSAGE
        };
        assert!(message.fits());
        assert_eq!(message.encoded_len(), 1 + 4 + MAX_REMAINING);
        message.payload = &payload;
        assert!(!message.fits());
    }
}
