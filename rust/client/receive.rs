//! Receiving: packets as they come in, byte by byte if need be, and messages on their way to the
//! script.

use embedded_nal::{TcpClientStack, nb};

use super::{ACKS, Appetite, Client, Fate, Fault, Part, Phase, Reading, Stop};
use crate::{
    config::{KEPT, OTHERS},
    memory::{Inbox, Memory, Tag, cost},
    packet::{
        Ack, Connack, Header, Kind, Malformed, PacketId, QoS, Suback, Version, check_topic, copy,
        packet_id, publish_flags,
    },
    session::Due,
};

impl<S, M> Client<S, M>
where
    S: TcpClientStack<Error: Clone + Copy>,
    M: Memory,
{
    /// Parses what is there and reads on, as far as the appetite goes.
    pub(super) fn receive(
        &mut self,
        stack: &mut S,
        appetite: Appetite,
        read: bool,
    ) -> Result<Stop, Fault<S::Error>> {
        self.script_read |= read && appetite != Appetite::Nothing;
        // One look at the socket at a time: other threads, and the caller's deadline, have their turn.
        let mut last = (!read).then_some(Stop::Dry);
        loop {
            let stop = self.parse(appetite)?;
            self.reading_stopped = stop != Stop::Dry;
            // What one call has read may be for another, and no socket tells it.
            self.signals.changed |= OTHERS && read && last.is_some() && self.reading_stopped;
            // Without appetite too the buffer fills, to see the end of the connection.
            let stop = match stop {
                Stop::Full if appetite == Appetite::Nothing && !self.incoming.is_full() => {
                    Stop::Dry
                }
                stop => stop,
            };
            if stop != Stop::Dry {
                return Ok(stop);
            }
            if let Some(last) = last {
                return Ok(last);
            }
            let direct = self.reading.part == Part::Payload && self.reading.fate == Fate::Stored;
            match self.read(stack, direct)? {
                None => return Ok(Stop::Dry),
                Some(_) if direct => {}
                stop => last = stop,
            }
        }
    }

    /// Reads what there is, into the buffer or `direct` into the message. The answer says whether
    /// there may be more; `None`: there was nothing, or only a part of what the stack gives as a whole,
    /// for which it answers with more bytes than it was asked for.
    pub(super) fn read(
        &mut self,
        stack: &mut S,
        direct: bool,
    ) -> Result<Option<Stop>, Fault<S::Error>> {
        let Some(socket) = &mut self.socket else {
            return Ok(None);
        };
        let room = if direct {
            let payload = self.inbox.payload();
            let there = payload.len().saturating_sub(self.reading.left);
            payload.get_mut(there..).unwrap_or_default()
        } else {
            self.incoming.room()
        };
        let wanted = room.len();
        let n = match stack.receive(socket, room) {
            Ok(0) => return Err(Fault::Closed),
            Ok(n) => n,
            Err(nb::Error::WouldBlock) => return Ok(None),
            Err(nb::Error::Other(error)) => return Err(Fault::Io(error)),
        };
        self.service.received = self.now;
        if n > wanted {
            // It may come slowly, with the answer to a PINGREQ behind it.
            self.service.ping_answered();
            return Ok(None);
        }
        if direct {
            self.reading.left -= n;
        } else {
            self.incoming.filled(n);
        }
        Ok(Some(if n < wanted { Stop::Dry } else { Stop::More }))
    }

    /// Parses packets until something is missing.
    pub(super) fn parse(&mut self, appetite: Appetite) -> Result<Stop, Fault<S::Error>> {
        loop {
            let more = match self.reading.part {
                Part::Header => {
                    if let Some(stop) = self.parse_header(appetite)? {
                        return Ok(stop);
                    }
                    true
                }
                Part::Topic => self.read_topic()?,
                Part::Id => self.read_id()?,
                Part::Payload => self.read_payload(),
            };
            if !more {
                return Ok(Stop::Dry);
            }
        }
    }

    /// The next packet: all of it, or the start of a PUBLISH.
    fn parse_header(&mut self, appetite: Appetite) -> Result<Option<Stop>, Fault<S::Error>> {
        if appetite == Appetite::Deliver && (self.inbox.first().is_some() || self.skipped.is_some())
        {
            return Ok(Some(Stop::Message));
        }
        let Some((header, start)) = Header::parse(self.incoming.bytes(), self.config.version)?
        else {
            return Ok(Some(Stop::Dry));
        };
        // [MQTT-3.2.0-1] [MQTT-3.2.0-2]
        if (header.kind == Kind::Connack) != (self.phase == Phase::Greeting) {
            return Err(Fault::Unexpected(header.kind));
        }
        if !self.has_room_for_acks() {
            return Ok(Some(Stop::Acks));
        }
        if header.kind == Kind::Publish {
            return self.begin_message(header, start, appetite);
        }
        // One filter a SUBSCRIBE: this is the longest packet there can be, and it fits.
        if header.remaining > 3 {
            return Err(Malformed::RemainingLength.into());
        }
        let end = start + header.remaining as usize;
        let Some(body) = self.incoming.bytes().get(start..end) else {
            return Ok(Some(Stop::Dry));
        };
        match header.kind {
            Kind::Connack => {
                let connack = Connack::parse(header, body, self.config.version)?;
                self.incoming.consume(end);
                self.greeted(connack)?;
                // Whatever follows, the connection was made.
                return Ok(Some(Stop::More));
            }
            Kind::Puback
            | Kind::Pubrec
            | Kind::Pubrel
            | Kind::Pubcomp
            | Kind::Suback
            | Kind::Unsuback => {
                let (id, granted) = if header.kind == Kind::Suback {
                    let suback = Suback::parse(header, body)?;
                    (suback.id, suback.codes != [0x80])
                } else {
                    (Ack::parse(header, body)?.id, true)
                };
                if header.kind != Kind::Pubrel {
                    self.session.acknowledge(header.kind, id, granted);
                } else if self.session.release(id, self.link) {
                    self.answer(Kind::Pubcomp, id);
                }
            }
            Kind::Pingresp => self.service.ping_answered(),
            kind => return Err(Fault::Unexpected(kind)),
        }
        self.incoming.consume(end);
        self.signals.changed = OTHERS;
        Ok(None)
    }

    fn greeted(&mut self, connack: Connack) -> Result<(), Fault<S::Error>> {
        if connack.code != 0 {
            return Err(Fault::Refused(connack.code));
        }
        if connack.session_present {
            self.session
                .inherit(self.outgoing.progress().0.wrapping_mul(0x9E37_79B9));
        } else {
            // In MQTT 3.1 the server does not tell: it may know the QoS 2 messages that it sent.
            self.session.start_afresh(!self.may_be_known());
        }
        self.greeted = true;
        self.phase = Phase::Up;
        self.signals.alarm = OTHERS;
        self.service.link_up(self.now);
        self.served_until = self.now;
        self.persistent = self.config.reconnect;
        Ok(())
    }

    /// Is it unknown whether the server still has a session of ours?
    fn may_be_known(&self) -> bool {
        self.config.version == Version::V31 && !self.clean_session
    }

    /// A PUBLISH begins. Its topic and its payload are read straight to where they will stay.
    fn begin_message(
        &mut self,
        header: Header,
        start: usize,
        appetite: Appetite,
    ) -> Result<Option<Stop>, Fault<S::Error>> {
        if appetite == Appetite::Nothing {
            return Ok(Some(Stop::Full));
        }
        let Some(&[high, low]) = self.incoming.bytes().get(start..start + 2) else {
            return Ok(Some(Stop::Dry));
        };
        let topic = usize::from(u16::from_be_bytes([high, low]));
        let (dup, qos, _) = publish_flags(header.flags);
        let fixed = if qos == QoS::AtMostOnce { 2 } else { 4 };
        let payload = (header.remaining as usize)
            .checked_sub(fixed + topic)
            .ok_or(Malformed::RemainingLength)?;
        if topic == 0 {
            return Err(Malformed::Topic.into()); // [MQTT-4.7.3-1]
        }
        let keep = appetite == Appetite::Keep;
        if keep && self.kept + cost(header.remaining) > KEPT as u32 {
            return Ok(Some(Stop::Full));
        }
        let known = self.incoming.bytes().get(start + 2..start + 2 + topic);
        let stored = self.inbox.begin(topic, known, payload);
        if keep && !stored {
            return Ok(Some(Stop::Full));
        }
        self.incoming.consume(start + 2);
        self.reading = Reading {
            part: Part::Topic,
            fate: if stored { Fate::Stored } else { Fate::Skipped },
            dup,
            tag: Tag {
                id: None,
                qos,
                link: self.link,
                size: header.remaining,
            },
            left: topic,
            payload,
        };
        Ok(None)
    }

    /// Moves what is there of the topic or the payload to where it will stay. Is it whole?
    fn fetch(&mut self) -> bool {
        let reading = &mut self.reading;
        let bytes = self.incoming.take(reading.left);
        if reading.fate == Fate::Stored {
            let place = match reading.part {
                Part::Topic => self.inbox.topic(),
                _ => self.inbox.payload(),
            };
            let there = place.len().saturating_sub(reading.left);
            copy(bytes, place.get_mut(there..).unwrap_or_default());
        }
        reading.left -= bytes.len();
        reading.left == 0
    }

    fn read_topic(&mut self) -> Result<bool, Fault<S::Error>> {
        let stored = self.reading.fate == Fate::Stored;
        // With what else stands before the payload.
        let length = self.reading.tag.size as usize - self.reading.payload;
        if !stored && length <= self.incoming.capacity() {
            // It is checked where it lies. One that does not fit there is skipped as it is, piece by piece.
            let Some(topic) = self.incoming.bytes().get(..self.reading.left) else {
                return Ok(false);
            };
            check_topic(topic)?;
        }
        if !self.fetch() {
            return Ok(false);
        }
        if stored {
            check_topic(self.inbox.topic())?; // [MQTT-3.3.2-1] [MQTT-3.3.2-2]
        }
        let reading = &mut self.reading;
        reading.part = if reading.tag.qos == QoS::AtMostOnce {
            Part::Payload
        } else {
            Part::Id
        };
        reading.left = reading.payload;
        Ok(true)
    }

    fn read_id(&mut self) -> Result<bool, Fault<S::Error>> {
        let Some(&[high, low]) = self.incoming.bytes().get(..2) else {
            return Ok(false);
        };
        let id = packet_id([high, low])?;
        self.incoming.consume(2);
        self.reading.part = Part::Payload;
        self.reading.tag.id = Some(id);
        if self.reading.tag.qos == QoS::ExactlyOnce {
            // No session tells that it can't be one that was received already.
            if !self.reading.dup && self.may_be_known() {
                self.session.forget_received(id);
            }
            if let Some(handled) = self.session.seen(id, self.link) {
                self.skip(Fate::Known(handled));
            }
        }
        Ok(true)
    }

    fn read_payload(&mut self) -> bool {
        if !self.fetch() {
            return false;
        }
        self.reading.part = Part::Header;
        let Reading { tag, fate, .. } = self.reading;
        if let Fate::Known(handled) = fate {
            if handled {
                self.acknowledge(tag.qos, tag.id);
            }
            return true;
        }
        self.signals.changed = OTHERS;
        let stored = fate == Fate::Stored;
        let remembered = match (tag.qos, tag.id) {
            (QoS::ExactlyOnce, Some(id)) => self.session.receive(id, tag.link, !stored),
            _ => true,
        };
        if stored && remembered {
            self.inbox.finish(tag);
            self.kept += cost(tag.size);
        } else {
            self.skip(Fate::Skipped);
            self.skipped = Some(tag.size);
            self.acknowledge(tag.qos, tag.id);
        }
        true
    }

    /// The message that is being read does not go to the inbox, after all.
    pub(super) fn skip(&mut self, fate: Fate) {
        if self.reading.fate == Fate::Stored {
            self.inbox.abandon();
        }
        self.reading.fate = fate;
    }

    /// For the message that is being read, and two for the one that is in the callback.
    pub(super) fn has_room_for_acks(&self) -> bool {
        self.acks.len() + 3 <= ACKS
    }

    #[inline(never)]
    fn answer(&mut self, kind: Kind, id: PacketId) {
        // There is room: reading and delivering stop in time.
        let id = Some(id);
        let _ = self.acks.push(Due {
            id,
            ..Due::new(kind)
        });
    }

    /// A message has been received and handled: PUBACK or PUBREC is due.
    fn acknowledge(&mut self, qos: QoS, id: Option<PacketId>) {
        if let Some(id) = id {
            let exactly_once = qos == QoS::ExactlyOnce;
            self.answer(
                if exactly_once {
                    Kind::Pubrec
                } else {
                    Kind::Puback
                },
                id,
            );
        }
    }

    /// Is the script's callback busy with a message?
    pub fn is_delivering(&self) -> bool {
        self.delivering
    }

    /// The oldest message goes to the script's callback: one at a time, so that they stay in
    /// order. The answer is the remaining length of its packet; `None`: there is none, or its
    /// acknowledgement would have no room, or the script itself has ended the connection.
    pub fn deliver(&mut self) -> Option<u32> {
        let ended = self.phase == Phase::Idle && self.fault.is_none();
        let ready = !self.delivering && self.has_room_for_acks() && !ended;
        let tag = self.inbox.first().filter(|_| ready)?;
        self.delivering = true;
        Some(tag.size)
    }

    /// The script's callback has not begun.
    pub fn put_back(&mut self) {
        self.delivering = false;
        self.signals.changed = OTHERS;
    }

    /// The script's callback has come back: the message is let go, and acknowledged.
    pub fn handled(&mut self, stack: &mut S) {
        self.delivering = false;
        self.signals.changed = OTHERS;
        let Some(&tag) = self.inbox.first() else {
            return;
        };
        self.inbox.pop();
        self.kept = self.kept.saturating_sub(cost(tag.size));
        let (acknowledge, complete) = match (tag.qos, tag.id) {
            (QoS::ExactlyOnce, Some(id)) => self.session.handled(id, tag.link, self.link),
            _ => (tag.link == self.link, false),
        };
        if self.phase != Phase::Up {
            return;
        }
        if acknowledge {
            self.acknowledge(tag.qos, tag.id);
        }
        if let (true, Some(id)) = (complete, tag.id) {
            self.answer(Kind::Pubcomp, id);
        }
        if let Err(fault) = self.flush(stack) {
            self.lose(stack, fault);
        }
    }

    /// Size in bytes of a message that was skipped, for there was no memory for it.
    pub fn take_skipped(&mut self) -> Option<u32> {
        self.skipped.take()
    }
}
