//! The fixed header that every packet begins with (section 2.2).

use super::{Malformed, PacketId, Reader, Result, Version, Writer};

/// The largest remaining length, in bytes (section 2.2.3).
pub const MAX_REMAINING: usize = 268_435_455;

/// The packet type (section 2.2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// A client asks for a connection.
    Connect = 1,
    /// The server's answer to it.
    Connack,
    /// A message.
    Publish,
    /// The answer to a message with QoS 1.
    Puback,
    /// The first answer to a message with QoS 2.
    Pubrec,
    /// The answer to that.
    Pubrel,
    /// The answer to that.
    Pubcomp,
    /// A client asks for messages.
    Subscribe,
    /// The server's answer to it.
    Suback,
    /// A client asks for no more messages.
    Unsubscribe,
    /// The server's answer to it.
    Unsuback,
    /// A client shows that it is there.
    Pingreq,
    /// The server's answer to it.
    Pingresp,
    /// A client takes its leave.
    Disconnect = 14,
}

impl Kind {
    /// The flags that go with the type; PUBLISH has its own (section 2.2.2).
    pub(super) const fn flags(self) -> u8 {
        match self {
            Kind::Pubrel | Kind::Subscribe | Kind::Unsubscribe => 0b0010,
            _ => 0,
        }
    }
}

/// A fixed header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The packet type.
    pub kind: Kind,
    /// The low four bits of the first byte.
    pub flags: u8,
    /// Bytes that follow the header.
    pub remaining: u32,
}

const DUP: u8 = 0b1000;

/// For each type from 1 on: the flags that go with it, and the length of its shortest body in bytes. Two
/// bytes, or none, are all there can be.
const TYPES: [(Kind, u8, u8); 14] = [
    shape(Kind::Connect, 12),
    shape(Kind::Connack, 2),
    shape(Kind::Publish, 3), // and 2 more for a packet identifier
    shape(Kind::Puback, 2),
    shape(Kind::Pubrec, 2),
    shape(Kind::Pubrel, 2),
    shape(Kind::Pubcomp, 2),
    shape(Kind::Subscribe, 6), // [MQTT-3.8.3-3]
    shape(Kind::Suback, 3),
    shape(Kind::Unsubscribe, 5), // [MQTT-3.10.3-2]
    shape(Kind::Unsuback, 2),
    shape(Kind::Pingreq, 0),
    shape(Kind::Pingresp, 0),
    shape(Kind::Disconnect, 0),
];

const fn shape(kind: Kind, shortest: u8) -> (Kind, u8, u8) {
    (kind, kind.flags(), shortest)
}

impl Header {
    /// The header of a packet with `remaining` bytes after it and the flags that go with its type, which is
    /// not PUBLISH.
    pub const fn new(kind: Kind, remaining: usize) -> Header {
        Header {
            kind,
            flags: kind.flags(),
            remaining: remaining as u32,
        }
    }

    /// The header at the start of `bytes`, and its length in bytes (2 to 5); `None` if more are
    /// needed.
    ///
    /// # Errors
    /// Whatever shows that no valid packet follows, as soon as it is there: the type, its flags,
    /// a QoS of 3, a length of more than four bytes, a length that the type cannot have.
    pub fn parse(bytes: &[u8], version: Version) -> Result<Option<(Header, usize)>> {
        let Some((&first, rest)) = bytes.split_first() else {
            return Ok(None);
        };
        let row = TYPES.get(usize::from(first >> 4).wrapping_sub(1));
        let &(kind, expected, mut shortest) = row.ok_or(Malformed::Kind)?;
        let flags = first & 0x0F;
        if kind == Kind::Publish {
            match flags & 0b0110 {
                0 if flags & DUP != 0 => return Err(Malformed::Flags), // [MQTT-3.3.1-2]
                0 => {}
                0b0110 => return Err(Malformed::Qos), // [MQTT-3.3.1-4]
                _ => shortest += 2,
            }
        } else if flags != expected {
            // MQTT 3.1 sets DUP on whatever is sent again and waits for an answer.
            let resent = version == Version::V31 && expected != 0 && flags == expected | DUP;
            if !resent {
                return Err(Malformed::Flags); // [MQTT-2.2.2-2]
            }
        }
        let mut remaining = 0;
        for (index, &byte) in rest.iter().take(4).enumerate() {
            remaining |= u32::from(byte & 0x7F) << (7 * index);
            if byte & 0x80 == 0 {
                let shortest = u32::from(shortest);
                if remaining < shortest || (shortest <= 2 && remaining > shortest) {
                    return Err(Malformed::RemainingLength);
                }
                return Ok(Some((
                    Header {
                        kind,
                        flags,
                        remaining,
                    },
                    index + 2,
                )));
            }
        }
        if rest.len() < 4 {
            Ok(None)
        } else {
            Err(Malformed::RemainingLength)
        }
    }

    /// Writes the header.
    pub fn emit(&self, out: &mut Writer) {
        out.put_u8((self.kind as u8) << 4 | self.flags);
        let mut left = self.remaining;
        while left > 0x7F {
            out.put_u8(left as u8 | 0x80);
            left >>= 7;
        }
        out.put_u8(left as u8);
    }

    /// Writes the packet with such a header, whatever its length. This is all that any packet but CONNECT
    /// has: a PUBLISH its topic in front of the identifier, others a filter, unless it is empty, behind it.
    #[cfg_attr(fast, inline(always))] // as `Publish::emit`
    pub fn emit_packet(
        self,
        topic: &[u8],
        id: Option<PacketId>,
        tail: &[u8],
        rest: &[u8],
        out: &mut Writer,
    ) {
        let topic_len = if topic.is_empty() { 0 } else { 2 + topic.len() };
        let id_len = if id.is_some() { 2 } else { 0 };
        let remaining = (topic_len + id_len + tail.len() + rest.len()) as u32;
        Header { remaining, ..self }.emit(out);
        let publish = self.kind == Kind::Publish;
        if publish {
            out.put_text(topic);
        }
        if let Some(id) = id {
            out.put_u16(id.get());
        }
        if !publish && !topic.is_empty() {
            out.put_text(topic);
        }
        out.put(tail);
        if !rest.is_empty() {
            out.put(rest);
        }
    }

    /// A reader of the body, once it is known to be the body of such a packet.
    pub(super) fn open<'a>(&self, kind: Kind, body: &'a [u8]) -> Result<Reader<'a>> {
        if self.kind != kind {
            Err(Malformed::Kind)
        } else if body.len() != self.remaining as usize {
            Err(Malformed::RemainingLength)
        } else {
            Ok(Reader::new(body))
        }
    }
}

/// Bytes of a packet with this remaining length, its header included.
pub(super) fn encoded_len(remaining: usize) -> usize {
    let length = match remaining {
        0..=0x7F => 1,
        0x80..=0x3FFF => 2,
        0x4000..=0x1F_FFFF => 3,
        _ => 4,
    };
    1 + length + remaining
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Table 2.4 of the standard, and the length bytes.
    const LENGTHS: [(usize, &[u8]); 8] = [
        (0, &[0x00]),
        (127, &[0x7F]),
        (128, &[0x80, 0x01]),
        (16_383, &[0xFF, 0x7F]),
        (16_384, &[0x80, 0x80, 0x01]),
        (2_097_151, &[0xFF, 0xFF, 0x7F]),
        (2_097_152, &[0x80, 0x80, 0x80, 0x01]),
        (MAX_REMAINING, &[0xFF, 0xFF, 0xFF, 0x7F]),
    ];

    #[test]
    fn remaining_lengths_of_table_2_4() {
        for (remaining, length) in LENGTHS {
            let kind = if remaining == 0 {
                Kind::Pingreq
            } else {
                Kind::Connect
            };
            let header = Header::new(kind, remaining);
            let mut out = [0; 8];
            let mut writer = Writer::new(&mut out, 0);
            header.emit(&mut writer);
            let written = writer.written();
            let (bytes, _) = out.split_at(written);
            assert_eq!(bytes[0], (kind as u8) << 4);
            assert_eq!(&bytes[1..], length);
            assert_eq!(encoded_len(remaining), bytes.len() + remaining);
            for end in 0..bytes.len() {
                assert_eq!(Header::parse(&bytes[..end], Version::V311), Ok(None));
            }
            let parsed = Header::parse(&out, Version::V311);
            assert_eq!(parsed, Ok(Some((header, bytes.len()))));
        }
    }

    #[test]
    fn a_fifth_length_byte_is_refused_at_the_fourth() {
        let bytes = [0x30, 0x80, 0x80, 0x80, 0x80];
        assert_eq!(Header::parse(&bytes[..4], Version::V311), Ok(None));
        let refused = Err(Malformed::RemainingLength);
        assert_eq!(Header::parse(&bytes, Version::V311), refused);
    }

    /// Every first byte, against table 2.2 and section 2.2.2 written out once more.
    #[test]
    fn every_first_byte() {
        for first in 0..=0xFF {
            let v311 = match first {
                0x00..=0x0F | 0xF0..=0xFF => Err(Malformed::Kind),
                0x36 | 0x37 | 0x3E | 0x3F => Err(Malformed::Qos),
                0x38 | 0x39 => Err(Malformed::Flags),
                0x30..=0x3F | 0x62 | 0x82 | 0xA2 => Ok(None),
                0x10 | 0x20 | 0x40 | 0x50 | 0x70 | 0x90 | 0xB0 | 0xC0 | 0xD0 | 0xE0 => Ok(None),
                _ => Err(Malformed::Flags),
            };
            let v31 = if matches!(first, 0x6A | 0x8A | 0xAA) {
                Ok(None)
            } else {
                v311
            };
            assert_eq!(Header::parse(&[first], Version::V311), v311, "{first:#x}");
            assert_eq!(Header::parse(&[first], Version::V31), v31, "{first:#x}");
        }
    }

    /// The lengths that each type can have, from the first on; `None`: any from there.
    #[test]
    fn lengths_that_a_type_cannot_have() {
        let cases = [
            (0x10, 12, None),
            (0x20, 2, Some(2)),
            (0x30, 3, None),
            (0x32, 5, None),
            (0x34, 5, None),
            (0x40, 2, Some(2)),
            (0x50, 2, Some(2)),
            (0x62, 2, Some(2)),
            (0x70, 2, Some(2)),
            (0x82, 6, None),
            (0x90, 3, None),
            (0xA2, 5, None),
            (0xB0, 2, Some(2)),
            (0xC0, 0, Some(0)),
            (0xD0, 0, Some(0)),
            (0xE0, 0, Some(0)),
        ];
        for (first, shortest, longest) in cases {
            for length in 0..=0x7F {
                let fits = length >= shortest && longest.is_none_or(|longest| length <= longest);
                let parsed = Header::parse(&[first, length], Version::V311);
                assert_eq!(parsed.is_ok(), fits, "{first:#x} {length}");
            }
        }
    }
}
