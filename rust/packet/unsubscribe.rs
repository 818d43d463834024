//! UNSUBSCRIBE (section 3.10).

use super::{Header, Kind, PacketId, Reader, Result, Writer, check_filter};

/// The end of subscriptions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unsubscribe<'a> {
    /// The packet identifier.
    pub id: PacketId,
    /// The first topic filter, as [`check_filter`] wants it.
    pub filter: &'a [u8],
    /// Further filters, as they stand on the wire; empty for one filter.
    pub rest: &'a [u8],
}

impl<'a> Unsubscribe<'a> {
    /// The packet with this header and body.
    ///
    /// # Errors
    /// What is wrong with the identifier or a filter.
    pub fn parse(header: Header, body: &'a [u8]) -> Result<Unsubscribe<'a>> {
        let mut body = header.open(Kind::Unsubscribe, body)?;
        let id = body.id()?;
        let filter = next(&mut body)?; // [MQTT-3.10.3-2]
        let rest = body.rest();
        while !body.is_empty() {
            next(&mut body)?;
        }
        Ok(Unsubscribe { id, filter, rest })
    }

    /// All topic filters.
    pub fn filters(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let mut rest = Reader::new(self.rest);
        let further = core::iter::from_fn(move || next(&mut rest).ok());
        core::iter::once(self.filter).chain(further)
    }

    /// Writes the packet.
    pub fn emit(&self, out: &mut Writer) {
        let header = Header::new(Kind::Unsubscribe, 0);
        header.emit_packet(self.filter, Some(self.id), &[], self.rest, out);
    }
}

fn next<'a>(body: &mut Reader<'a>) -> Result<&'a [u8]> {
    let filter = body.text()?;
    check_filter(filter)?; // [MQTT-3.10.3-1]
    Ok(filter)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::tests::both_ways;
    use crate::packet::{Packet, Version};

    /// Figures 3.29 and 3.31.
    #[test]
    fn example_of_the_standard() {
        let packet = Unsubscribe {
            id: PacketId::new(10).unwrap(),
            filter: b"a/b",
            rest: b"\x00\x03c/d",
        };
        let bytes = b"\xA2\x0C\x00\x0A\x00\x03a/b\x00\x03c/d";
        both_ways(Packet::Unsubscribe(packet), bytes, Version::V311);
        let filters: Vec<_> = packet.filters().collect();
        assert_eq!(filters, [b"a/b", b"c/d"]);
    }
}
