//! Every packet type, both ways, whole and in pieces; and whatever else may come from the wire.

use proptest::collection::vec;
use proptest::prelude::*;
use umqtt::packet::*;

/// What any packet can be made of.
#[derive(Clone, Debug)]
struct Parts {
    version: Version,
    kind: u8,
    flags: [bool; 3],
    qos: QoS,
    number: u16,
    id: PacketId,
    topic: String,
    filters: Vec<(String, u8)>,
    texts: [Option<String>; 2],
    bytes: Vec<u8>,
    codes: Vec<u8>,
    /// All filters but the first, as in SUBSCRIBE and as in UNSUBSCRIBE.
    rest: [Vec<u8>; 2],
}

impl Parts {
    fn packet(&self) -> Packet<'_> {
        let [a, b, c] = self.flags;
        let id = self.id;
        let topic = self.topic.as_bytes();
        let (filter, _) = &self.filters[0];
        let filter = filter.as_bytes();
        let [user, client_id] = self
            .texts
            .each_ref()
            .map(|text| text.as_deref().map(str::as_bytes));
        let ack = |kind| Packet::Ack(Ack { kind, id });
        match self.kind {
            1 => Packet::Connect(Connect {
                version: self.version,
                client_id: client_id.unwrap_or_default(),
                clean_session: a,
                keepalive: self.number,
                will: b.then_some(Will {
                    topic,
                    message: &self.bytes,
                    qos: self.qos,
                    retain: c,
                }),
                user,
                password: user.and(c.then_some(&self.bytes)),
            }),
            2 => Packet::Connack(Connack {
                session_present: a && self.version == Version::V311,
                code: if a { 0 } else { (self.number % 6) as u8 },
            }),
            3 => Packet::Publish(Publish {
                dup: a && self.qos > QoS::AtMostOnce,
                qos: self.qos,
                retain: b,
                topic,
                id: Some(id).filter(|_| self.qos > QoS::AtMostOnce),
                payload: &self.bytes,
            }),
            4 => ack(Kind::Puback),
            5 => ack(Kind::Pubrec),
            6 => ack(Kind::Pubrel),
            7 => ack(Kind::Pubcomp),
            8 => Packet::Subscribe(Subscribe {
                id,
                filter,
                qos: self.qos,
                rest: &self.rest[0],
            }),
            9 => Packet::Suback(Suback {
                id,
                codes: &self.codes,
            }),
            10 => Packet::Unsubscribe(Unsubscribe {
                id,
                filter,
                rest: &self.rest[1],
            }),
            11 => ack(Kind::Unsuback),
            12 => Packet::Pingreq,
            13 => Packet::Pingresp,
            _ => Packet::Disconnect,
        }
    }
}

fn version() -> impl Strategy<Value = Version> {
    prop_oneof![Just(Version::V31), Just(Version::V311)]
}

fn parts() -> impl Strategy<Value = Parts> {
    let topic = "[^\u{0}+#]{1,30}";
    let text = || proptest::option::of("[^\u{0}]{0,20}");
    let level = prop_oneof![Just("+".to_string()), "[^\u{0}+#/]{0,5}"];
    let filter = (vec(level, 0..4), any::<bool>()).prop_map(|(mut levels, all)| {
        if all || levels.iter().all(String::is_empty) {
            levels.push("#".to_string());
        }
        levels.join("/")
    });
    let code = prop_oneof![0..=2_u8, Just(0x80)];
    let qos = (0..=2_u8).prop_map(|qos| QoS::from_bits(qos).unwrap());
    // Short ones mostly, and ones whose remaining length takes a byte more.
    let bytes = prop_oneof![9 => vec(any::<u8>(), 0..40), 1 => vec(any::<u8>(), 90..260)];
    (
        (
            version(),
            1..=14_u8,
            any::<[bool; 3]>(),
            qos,
            any::<u16>(),
            any::<PacketId>(),
            topic,
        ),
        (
            vec((filter, 0..=2_u8), 1..4),
            [text(), text()],
            bytes,
            vec(code, 1..10),
        ),
    )
        .prop_map(
            |((version, kind, flags, qos, number, id, topic), (filters, texts, bytes, codes))| {
                let mut rest = [vec![], vec![]];
                for (filter, qos) in &filters[1..] {
                    for rest in &mut rest {
                        rest.extend((filter.len() as u16).to_be_bytes());
                        rest.extend(filter.as_bytes());
                    }
                    rest[0].push(*qos);
                }
                Parts {
                    version,
                    kind,
                    flags,
                    qos,
                    number,
                    id,
                    topic,
                    filters,
                    texts,
                    bytes,
                    codes,
                    rest,
                }
            },
        )
}

fn emitted(packet: &Packet, skip: usize, room: usize) -> Vec<u8> {
    let mut out = vec![0xEE; room];
    let mut writer = Writer::new(&mut out, skip);
    packet.emit(&mut writer);
    let written = writer.written();
    assert!(out[written..].iter().all(|byte| *byte == 0xEE));
    out.truncate(written);
    out
}

fn wire(packet: &Packet) -> Vec<u8> {
    emitted(packet, 0, packet.encoded_len() + 8)
}

/// What holds for any input: the answer is the same however much has arrived; what parses is
/// inside the input, and is the same packet, or the same bytes, when it is emitted.
fn check_any_input(bytes: &[u8], version: Version) {
    let parsed = Packet::parse(bytes, version);
    let known = (0..bytes.len()).map(|end| (end, Packet::parse(&bytes[..end], version)));
    for (end, early) in known {
        match (&early, &parsed) {
            (Ok(None), Ok(Some((_, length)))) => assert!(end < *length),
            (Ok(None), _) => {}
            _ => assert_eq!(early, parsed),
        }
    }
    let Ok(Some((packet, length))) = parsed else {
        return;
    };
    assert!(length <= bytes.len());
    let again = wire(&packet);
    let connect = matches!(packet, Packet::Connect(_));
    if version == Version::V311 && !connect && again.len() == length {
        assert_eq!(again, &bytes[..length]);
    }
    assert_eq!(
        Packet::parse(&again, version),
        Ok(Some((packet, again.len())))
    );
    if let Packet::Publish(message) = packet {
        assert_eq!(message.id.is_some(), message.qos > QoS::AtMostOnce);
        assert!(std::str::from_utf8(message.topic).is_ok());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn round_trip(parts in parts(), next in vec(any::<u8>(), 0..5)) {
        let packet = parts.packet();
        let mut bytes = wire(&packet);
        let length = bytes.len();
        prop_assert_eq!(packet.encoded_len(), length);
        prop_assert_eq!(bytes[0] >> 4, parts.kind);
        for end in 0..length {
            prop_assert_eq!(Packet::parse(&bytes[..end], parts.version), Ok(None));
        }
        bytes.extend(next);
        prop_assert_eq!(Packet::parse(&bytes, parts.version), Ok(Some((packet, length))));
    }

    #[test]
    fn filters(parts in parts()) {
        let (id, qos) = (parts.id, QoS::from_bits(parts.filters[0].1).unwrap());
        let filter = parts.filters[0].0.as_bytes();
        let subscribe = Subscribe { id, filter, qos, rest: &parts.rest[0] };
        let unsubscribe = Unsubscribe { id, filter, rest: &parts.rest[1] };
        let all = || parts.filters.iter().map(|(filter, qos)| (filter.as_bytes(), *qos));
        let filters: Vec<_> = subscribe.filters().map(|(filter, qos)| (filter, qos as u8)).collect();
        prop_assert_eq!(filters, all().collect::<Vec<_>>());
        let filters: Vec<_> = unsubscribe.filters().collect();
        prop_assert_eq!(filters, all().map(|(filter, _)| filter).collect::<Vec<_>>());
    }

    #[test]
    fn random_bytes(bytes in vec(any::<u8>(), 0..64), version in version()) {
        check_any_input(&bytes, version);
    }

    /// A header that holds, with any body.
    #[test]
    fn random_body(kind in 1..=14_u8, flags in any::<u8>(), body in vec(0..=0x42_u8, 0..40), version in version()) {
        let flags = match kind {
            3 => flags & 0x0F,
            6 | 8 | 10 => 2,
            _ => 0,
        };
        let mut bytes = vec![kind << 4 | flags, body.len() as u8];
        bytes.extend(body);
        check_any_input(&bytes, version);
    }

    /// A valid packet with some bytes changed, taken out or put in, and its length put right.
    #[test]
    fn mutated(parts in parts(), edits in vec((any::<prop::sample::Index>(), 0..4, any::<u8>()), 1..4), fix in any::<bool>()) {
        let mut bytes = wire(&parts.packet());
        for (index, edit, value) in edits {
            let index = index.index(bytes.len());
            match edit {
                0 => bytes[index] = value,
                1 => bytes[index] ^= 1 << (value & 7),
                2 => bytes.insert(index, value),
                _ if bytes.len() > 1 => drop(bytes.remove(index)),
                _ => {}
            }
        }
        if fix && (2..0x80).contains(&bytes.len()) {
            bytes[1] = bytes.len() as u8 - 2;
        }
        check_any_input(&bytes, parts.version);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn emitted_in_every_chunking(parts in parts()) {
        let packet = parts.packet();
        let whole = wire(&packet);
        for skip in 0..=whole.len() + 1 {
            for room in 0..=whole.len() + 1 {
                let end = whole.len().min(skip + room);
                let expected = &whole[skip.min(end)..end];
                prop_assert_eq!(emitted(&packet, skip, room), expected);
            }
        }
    }
}
