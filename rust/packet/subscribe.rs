//! SUBSCRIBE (section 3.8).

use super::{Header, Kind, Malformed, PacketId, QoS, Reader, Result, Writer, check_filter};

/// A request for the messages that match topic filters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subscribe<'a> {
    /// The packet identifier.
    pub id: PacketId,
    /// The first topic filter, as [`check_filter`] wants it.
    pub filter: &'a [u8],
    /// The QoS that is asked for with it.
    pub qos: QoS,
    /// Further filters, each with its QoS, as they stand on the wire; empty for one filter.
    pub rest: &'a [u8],
}

impl<'a> Subscribe<'a> {
    /// The packet with this header and body.
    ///
    /// # Errors
    /// What is wrong with the identifier, a filter or a QoS.
    pub fn parse(header: Header, body: &'a [u8]) -> Result<Subscribe<'a>> {
        let mut body = header.open(Kind::Subscribe, body)?;
        let id = body.id()?;
        let (filter, qos) = next(&mut body)?; // [MQTT-3.8.3-3]
        let rest = body.rest();
        while !body.is_empty() {
            next(&mut body)?;
        }
        Ok(Subscribe {
            id,
            filter,
            qos,
            rest,
        })
    }

    /// All topic filters, each with its QoS.
    pub fn filters(&self) -> impl Iterator<Item = (&'a [u8], QoS)> + use<'a> {
        let mut rest = Reader::new(self.rest);
        let further = core::iter::from_fn(move || next(&mut rest).ok());
        core::iter::once((self.filter, self.qos)).chain(further)
    }

    /// Writes the packet.
    pub fn emit(&self, out: &mut Writer) {
        let header = Header::new(Kind::Subscribe, 0);
        let qos = [self.qos as u8];
        header.emit_packet(self.filter, Some(self.id), &qos, self.rest, out);
    }
}

fn next<'a>(body: &mut Reader<'a>) -> Result<(&'a [u8], QoS)> {
    let filter = body.text()?;
    check_filter(filter)?; // [MQTT-3.8.3-1]
    let qos = QoS::from_bits(body.u8()?).ok_or(Malformed::Qos)?; // [MQTT-3.8.3-4]
    Ok((filter, qos))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::tests::both_ways;
    use crate::packet::{Packet, Version};

    /// Figures 3.21 and 3.23.
    #[test]
    fn example_of_the_standard() {
        let packet = Subscribe {
            id: PacketId::new(10).unwrap(),
            filter: b"a/b",
            qos: QoS::AtLeastOnce,
            rest: b"\x00\x03c/d\x02",
        };
        let bytes = b"\x82\x0E\x00\x0A\x00\x03a/b\x01\x00\x03c/d\x02";
        both_ways(Packet::Subscribe(packet), bytes, Version::V311);
        let filters: Vec<_> = packet.filters().collect();
        assert_eq!(
            filters,
            [(&b"a/b"[..], QoS::AtLeastOnce), (b"c/d", QoS::ExactlyOnce)]
        );
    }

    #[test]
    fn one_filter() {
        let packet = Subscribe {
            id: PacketId::new(1).unwrap(),
            filter: b"#",
            qos: QoS::AtMostOnce,
            rest: b"",
        };
        both_ways(
            Packet::Subscribe(packet),
            b"\x82\x06\x00\x01\x00\x01#\x00",
            Version::V31,
        );
        assert_eq!(packet.filters().count(), 1);
    }
}
