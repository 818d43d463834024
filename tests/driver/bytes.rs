//! Packets as bytes, put together without the crate's help.

/// CONNECT of the client that [`crate::world::Setup::default`] describes.
pub const CONNECT: &[u8] = b"\x10\x0D\x00\x04MQTT\x04\x00\x00\x3C\x00\x01c";
/// The broker has no session for us.
pub const CONNACK: &[u8] = &[0x20, 2, 0, 0];
/// The broker has one.
pub const PRESENT: &[u8] = &[0x20, 2, 1, 0];
pub const PINGREQ: &[u8] = &[0xC0, 0];
pub const PINGRESP: &[u8] = &[0xD0, 0];
pub const DISCONNECT: &[u8] = &[0xE0, 0];

/// First bytes of the packets that are nothing but a packet identifier.
pub const PUBACK: u8 = 0x40;
pub const PUBREC: u8 = 0x50;
pub const PUBREL: u8 = 0x62;
pub const PUBCOMP: u8 = 0x70;
pub const UNSUBACK: u8 = 0xB0;

/// Flags of PUBLISH.
pub const RETAIN: u8 = 1;
pub const QOS1: u8 = 2;
pub const QOS2: u8 = 4;
pub const DUP: u8 = 8;

pub fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    let mut left = body.len();
    loop {
        let more = if left > 0x7F { 0x80 } else { 0 };
        bytes.push((left & 0x7F) as u8 | more);
        left >>= 7;
        if left == 0 {
            break;
        }
    }
    bytes.extend(body);
    bytes
}

pub fn field(text: &str) -> Vec<u8> {
    let mut bytes = (text.len() as u16).to_be_bytes().to_vec();
    bytes.extend(text.as_bytes());
    bytes
}

pub fn ack(first: u8, id: u16) -> Vec<u8> {
    packet(first, &id.to_be_bytes())
}

/// PUBLISH; `id` is left out with QoS 0.
pub fn publish(flags: u8, topic: &str, id: u16, payload: impl AsRef<[u8]>) -> Vec<u8> {
    let mut body = field(topic);
    if flags & (QOS1 | QOS2) != 0 {
        body.extend(id.to_be_bytes());
    }
    body.extend(payload.as_ref());
    packet(0x30 | flags, &body)
}

pub fn subscribe(id: u16, filter: &str, qos: u8) -> Vec<u8> {
    packet(
        0x82,
        &[&id.to_be_bytes()[..], &field(filter), &[qos]].concat(),
    )
}

pub fn unsubscribe(id: u16, filter: &str) -> Vec<u8> {
    packet(0xA2, &[&id.to_be_bytes()[..], &field(filter)].concat())
}

pub fn suback(id: u16, code: u8) -> Vec<u8> {
    packet(0x90, &[&id.to_be_bytes()[..], &[code]].concat())
}
