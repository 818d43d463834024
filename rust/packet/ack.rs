//! PUBACK, PUBREC, PUBREL, PUBCOMP and UNSUBACK: a packet identifier and nothing else (sections
//! 3.4 to 3.7 and 3.11).

use super::{Header, Kind, Malformed, PacketId, Result, Writer, packet_id};

/// An answer to, or the next step for, the packet with that identifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ack {
    /// One of the five types above.
    pub kind: Kind,
    /// The packet identifier.
    pub id: PacketId,
}

impl Ack {
    /// The packet with this header and body.
    ///
    /// # Errors
    /// [`Malformed::Kind`] for a type that is none of the five, [`Malformed::RemainingLength`],
    /// [`Malformed::PacketId`].
    pub fn parse(header: Header, body: &[u8]) -> Result<Ack> {
        let kind = match header.kind {
            Kind::Puback | Kind::Pubrec | Kind::Pubrel | Kind::Pubcomp | Kind::Unsuback => {
                header.kind
            }
            _ => return Err(Malformed::Kind),
        };
        header.open(kind, body)?;
        let &[high, low] = body else {
            return Err(Malformed::RemainingLength);
        };
        let id = packet_id([high, low])?;
        Ok(Ack { kind, id })
    }

    /// Writes the packet.
    pub fn emit(&self, out: &mut Writer) {
        Header::new(self.kind, 0).emit_packet(&[], Some(self.id), &[], &[], out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::tests::both_ways;
    use crate::packet::{Packet, Version};

    #[test]
    fn all_five() {
        let cases = [
            (Kind::Puback, 0x40),
            (Kind::Pubrec, 0x50),
            (Kind::Pubrel, 0x62), // [MQTT-3.6.1-1]
            (Kind::Pubcomp, 0x70),
            (Kind::Unsuback, 0xB0),
        ];
        for (kind, first) in cases {
            let id = PacketId::new(0x1234).unwrap();
            let ack = Ack { kind, id };
            let bytes = [first, 2, 0x12, 0x34];
            both_ways(Packet::Ack(ack), &bytes, Version::V31);
            both_ways(Packet::Ack(ack), &bytes, Version::V311);
        }
    }

    #[test]
    fn dup_in_3_1() {
        let id = PacketId::new(1).unwrap();
        let ack = Packet::Ack(Ack {
            kind: Kind::Pubrel,
            id,
        });
        assert_eq!(
            Packet::parse(&[0x6A, 2, 0, 1], Version::V31),
            Ok(Some((ack, 4)))
        );
    }

    #[test]
    fn no_other_type() {
        let header = Header::new(Kind::Connack, 2);
        assert_eq!(Ack::parse(header, &[0, 1]), Err(Malformed::Kind));
        let header = Header::new(Kind::Puback, 2);
        assert_eq!(
            Ack::parse(header, &[0, 1, 2]),
            Err(Malformed::RemainingLength)
        );
    }
}
