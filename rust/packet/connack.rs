//! CONNACK (section 3.2).

use super::{Header, Kind, Malformed, Result, Version, Writer};

/// The server's answer to CONNECT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connack {
    /// The server has a session of this client; always false in MQTT 3.1.
    pub session_present: bool,
    /// 0: accepted; 1 to 5: refused, see table 3.1 of the standard.
    pub code: u8,
}

impl Connack {
    /// The packet with this header and body.
    ///
    /// # Errors
    /// [`Malformed::RemainingLength`], [`Malformed::ReturnCode`], [`Malformed::SessionPresent`].
    pub fn parse(header: Header, body: &[u8], version: Version) -> Result<Connack> {
        header.open(Kind::Connack, body)?;
        let &[flags, code] = body else {
            return Err(Malformed::RemainingLength);
        };
        if code > 5 {
            return Err(Malformed::ReturnCode);
        }
        if version == Version::V31 {
            // The byte is reserved there, and nothing is said about its value.
            return Ok(Connack {
                session_present: false,
                code,
            });
        }
        if flags > u8::from(code == 0) {
            return Err(Malformed::SessionPresent); // [MQTT-3.2.2-4]
        }
        Ok(Connack {
            session_present: flags != 0,
            code,
        })
    }

    /// Writes the packet.
    pub fn emit(&self, out: &mut Writer) {
        Header::new(Kind::Connack, 2).emit(out);
        out.put(&[self.session_present.into(), self.code]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::Packet;
    use crate::packet::tests::both_ways;

    #[test]
    fn both_versions() {
        for code in 0..=5 {
            let packet = Packet::Connack(Connack {
                session_present: false,
                code,
            });
            both_ways(packet, &[0x20, 2, 0, code], Version::V31);
            both_ways(packet, &[0x20, 2, 0, code], Version::V311);
        }
        let packet = Packet::Connack(Connack {
            session_present: true,
            code: 0,
        });
        both_ways(packet, &[0x20, 2, 1, 0], Version::V311);
    }

    #[test]
    fn the_first_byte_is_reserved_in_3_1() {
        for first in 0..=0xFF {
            let header = Header::new(Kind::Connack, 2);
            let parsed = Connack::parse(header, &[first, 5], Version::V31);
            assert_eq!(
                parsed,
                Ok(Connack {
                    session_present: false,
                    code: 5
                })
            );
        }
    }
}
