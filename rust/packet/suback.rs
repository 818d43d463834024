//! SUBACK (section 3.9).

use super::{Header, Kind, Malformed, PacketId, Result, Writer, packet_id};

/// The server's answer to SUBSCRIBE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Suback<'a> {
    /// The packet identifier of the SUBSCRIBE.
    pub id: PacketId,
    /// For each filter, in the same order, the QoS that was granted, or 0x80 for a refusal.
    pub codes: &'a [u8],
}

impl<'a> Suback<'a> {
    /// The packet with this header and body.
    ///
    /// # Errors
    /// [`Malformed::RemainingLength`] also without a code, [`Malformed::PacketId`],
    /// [`Malformed::ReturnCode`].
    pub fn parse(header: Header, body: &'a [u8]) -> Result<Suback<'a>> {
        header.open(Kind::Suback, body)?;
        let &[high, low, ref codes @ ..] = body else {
            return Err(Malformed::RemainingLength);
        };
        let id = packet_id([high, low])?;
        if codes.is_empty() {
            return Err(Malformed::RemainingLength);
        }
        // MQTT 3.1 has no 0x80, but brokers send it there too.
        if !codes.iter().all(|code| matches!(code, 0..=2 | 0x80)) {
            return Err(Malformed::ReturnCode); // [MQTT-3.9.3-2]
        }
        Ok(Suback { id, codes })
    }

    /// Writes the packet.
    pub fn emit(&self, out: &mut Writer) {
        Header::new(Kind::Suback, self.remaining()).emit(out);
        out.put_u16(self.id.get());
        out.put(self.codes);
    }

    fn remaining(&self) -> usize {
        2 + self.codes.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::tests::both_ways;
    use crate::packet::{Packet, Version};

    /// Figure 3.27.
    #[test]
    fn example_of_the_standard() {
        let packet = Suback {
            id: PacketId::new(10).unwrap(),
            codes: &[0x00, 0x02, 0x80],
        };
        let bytes = [0x90, 5, 0, 10, 0x00, 0x02, 0x80];
        both_ways(Packet::Suback(packet), &bytes, Version::V311);
        both_ways(Packet::Suback(packet), &bytes, Version::V31);
    }

    #[test]
    fn every_code() {
        for code in 0..=0xFF {
            let body = [0, 1, code];
            let parsed = Suback::parse(Header::new(Kind::Suback, 3), &body);
            assert_eq!(parsed.is_ok(), [0, 1, 2, 0x80].contains(&code));
        }
        let parsed = Suback::parse(Header::new(Kind::Suback, 2), &[0, 1]);
        assert_eq!(parsed, Err(Malformed::RemainingLength));
    }
}
