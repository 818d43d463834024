//! CONNECT (section 3.1).

use super::{
    Header, Kind, Malformed, QoS, Reader, Result, Version, Writer, check_text, check_topic,
};

const USER: u8 = 0x80;
const PASSWORD: u8 = 0x40;
const WILL_RETAIN: u8 = 0x20;
const WILL: u8 = 0x04;
const CLEAN: u8 = 0x02;
const RESERVED: u8 = 0x01;

/// A client's first packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connect<'a> {
    /// The protocol version.
    pub version: Version,
    /// The client identifier; the server may refuse an empty one.
    pub client_id: &'a [u8],
    /// Begin without what the server has kept of an earlier session, and keep nothing of this.
    pub clean_session: bool,
    /// Seconds between two packets of the client at most, as the server sees it (which allows
    /// for half as much again); 0 for any number.
    pub keepalive: u16,
    /// What the server is to publish should the client vanish.
    pub will: Option<Will<'a>>,
    /// The user's name.
    pub user: Option<&'a [u8]>,
    /// The password, any bytes; only with a user `[MQTT-3.1.2-22]`.
    pub password: Option<&'a [u8]>,
}

/// A message for the server to publish should the client vanish (section 3.1.2.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Will<'a> {
    /// The topic name, as [`check_topic`] wants it.
    pub topic: &'a [u8],
    /// The message, at most 65,535 bytes.
    pub message: &'a [u8],
    /// Quality of service.
    pub qos: QoS,
    /// The server is to keep it for later subscribers.
    pub retain: bool,
}

impl<'a> Connect<'a> {
    /// The packet with this header and body.
    ///
    /// # Errors
    /// Which field is wrong. A client identifier that the server may refuse in CONNACK is not.
    pub fn parse(header: Header, body: &'a [u8]) -> Result<Connect<'a>> {
        let mut body = header.open(Kind::Connect, body)?;
        let version = match body.text()? {
            b"MQIsdp" => Version::V31,
            b"MQTT" => Version::V311,
            _ => return Err(Malformed::Protocol), // [MQTT-3.1.2-1]
        };
        if body.u8()? != version as u8 {
            return Err(Malformed::Version); // [MQTT-3.1.2-2]
        }
        let flags = body.u8()?;
        if flags & RESERVED != 0 || flags & (USER | PASSWORD) == PASSWORD {
            return Err(Malformed::ConnectFlags); // [MQTT-3.1.2-3] [MQTT-3.1.2-22]
        }
        let keepalive = body.u16()?;
        let client_id = body.text()?;
        check_text(client_id)?; // [MQTT-3.1.3-4]
        let will = Will::parse(flags, &mut body)?;
        let mut field = |flag| {
            // MQTT 3.1 lets the remaining length win over the flag.
            if flags & flag == 0 || (version == Version::V31 && body.is_empty()) {
                return Ok(None);
            }
            body.text().map(Some)
        };
        let user = field(USER)?; // [MQTT-3.1.2-18]
        let password = field(PASSWORD)?; // [MQTT-3.1.2-20]
        check_text(user.unwrap_or_default())?; // [MQTT-3.1.3-11]
        body.end()?;
        let clean_session = flags & CLEAN != 0;
        Ok(Connect {
            version,
            client_id,
            clean_session,
            keepalive,
            will,
            user,
            password,
        })
    }

    /// Writes the packet.
    pub fn emit(&self, out: &mut Writer) {
        // [MQTT-3.1.3-1]
        let will = self.will.as_ref();
        let fields = [
            Some(self.client_id),
            will.map(|will| will.topic),
            will.map(|will| will.message),
            self.user,
            self.password,
        ];
        let protocol = self.protocol();
        let fields = fields.iter().flatten();
        let lengths = fields.clone().map(|field| 2 + field.len());
        let remaining = 2 + protocol.len() + 4 + lengths.sum::<usize>();
        Header::new(Kind::Connect, remaining).emit(out);
        out.put_text(protocol);
        out.put_u8(self.version as u8);
        out.put_u8(self.flags());
        out.put_u16(self.keepalive);
        for field in fields {
            out.put_text(field);
        }
    }

    fn protocol(&self) -> &'static [u8] {
        match self.version {
            Version::V31 => b"MQIsdp",
            Version::V311 => b"MQTT",
        }
    }

    fn flags(&self) -> u8 {
        let flag = |flag, set| if set { flag } else { 0 };
        flag(CLEAN, self.clean_session)
            | self.will.as_ref().map_or(0, |will| {
                WILL | (will.qos as u8) << 3 | flag(WILL_RETAIN, will.retain)
            })
            | flag(USER, self.user.is_some())
            | flag(PASSWORD, self.password.is_some())
    }
}

impl<'a> Will<'a> {
    fn parse(flags: u8, body: &mut Reader<'a>) -> Result<Option<Will<'a>>> {
        let retain = flags & WILL_RETAIN != 0;
        let qos = QoS::from_bits(flags >> 3 & 3).ok_or(Malformed::Qos)?; // [MQTT-3.1.2-14]
        if flags & WILL == 0 {
            let absent = qos == QoS::AtMostOnce && !retain;
            // [MQTT-3.1.2-13] [MQTT-3.1.2-15]
            return if absent {
                Ok(None)
            } else {
                Err(Malformed::ConnectFlags)
            };
        }
        let topic = body.text()?;
        check_topic(topic)?; // [MQTT-3.1.3-10]
        Ok(Some(Will {
            topic,
            message: body.text()?,
            qos,
            retain,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::Packet;
    use crate::packet::tests::both_ways;

    /// Figure 3.6, with a payload to go with it.
    #[test]
    fn example_of_the_standard() {
        let packet = Connect {
            version: Version::V311,
            client_id: b"dev",
            clean_session: true,
            keepalive: 10,
            will: Some(Will {
                topic: b"w/t",
                message: b"bye",
                qos: QoS::AtLeastOnce,
                retain: false,
            }),
            user: Some(b"me"),
            password: Some(b"\x00\xFF"),
        };
        let bytes = b"\x10\x21\x00\x04MQTT\x04\xCE\x00\x0A\
            \x00\x03dev\x00\x03w/t\x00\x03bye\x00\x02me\x00\x02\x00\xFF";
        both_ways(Packet::Connect(packet), bytes, Version::V311);
    }

    #[test]
    fn the_shortest() {
        let mut packet = Connect {
            version: Version::V311,
            client_id: b"",
            clean_session: false,
            keepalive: 0x1234,
            will: None,
            user: None,
            password: None,
        };
        let bytes = b"\x10\x0C\x00\x04MQTT\x04\x00\x12\x34\x00\x00";
        both_ways(Packet::Connect(packet), bytes, Version::V311);
        packet.version = Version::V31;
        let bytes = b"\x10\x0E\x00\x06MQIsdp\x03\x00\x12\x34\x00\x00";
        both_ways(Packet::Connect(packet), bytes, Version::V31);
    }

    #[test]
    fn a_retained_will() {
        let packet = Connect {
            version: Version::V31,
            client_id: b"x",
            clean_session: false,
            keepalive: 0,
            will: Some(Will {
                topic: b"t",
                message: b"",
                qos: QoS::ExactlyOnce,
                retain: true,
            }),
            user: None,
            password: None,
        };
        let bytes = b"\x10\x14\x00\x06MQIsdp\x03\x34\x00\x00\x00\x01x\x00\x01t\x00\x00";
        both_ways(Packet::Connect(packet), bytes, Version::V31);
    }

    /// Section 3.1 of MQTT 3.1: "server implementations must allow for the possibility".
    #[test]
    fn flags_without_fields_in_3_1() {
        let fields = |bytes| match Packet::parse(bytes, Version::V31) {
            Ok(Some((Packet::Connect(connect), _))) => Ok((connect.user, connect.password)),
            other => Err(other),
        };
        let bytes = b"\x10\x0F\x00\x06MQIsdp\x03\xC0\x00\x00\x00\x01x";
        assert_eq!(fields(bytes), Ok((None, None)));
        let bytes = b"\x10\x12\x00\x06MQIsdp\x03\xC0\x00\x00\x00\x01x\x00\x01u";
        assert_eq!(fields(bytes), Ok((Some(&b"u"[..]), None)));
        let bytes = b"\x10\x0D\x00\x04MQTT\x04\xC0\x00\x00\x00\x01x";
        assert_eq!(fields(bytes), Err(Err(Malformed::RemainingLength)));
    }
}
