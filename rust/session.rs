//! The state that MQTT keeps for a client, across connections (section 4.1): messages in flight
//! in both directions, subscriptions, and the packet identifiers of all of them.
//!
//! No I/O and no bytes: acknowledgements come in as calls, and [`Session::next_due`] names what
//! has to be sent next, in order. A message that was taken leaves only when its handshake is
//! complete, or with [`Session::forget`]. Entries never move from slot to slot: a garbage
//! collector may be looking at them.

use crate::{
    config::IN_FLIGHT,
    memory::{List, Memory, Tag},
    packet::{Kind, PacketId, Publish, QoS},
};

/// An application message on its way out.
#[derive(Clone, Debug)]
pub struct Message<B> {
    /// Topic name, checked.
    pub topic: B,
    /// Payload.
    pub payload: B,
    /// Quality of service.
    pub qos: QoS,
    /// Is the broker to keep it?
    pub retain: bool,
}

impl<B: Default> Message<B> {
    /// Forgets what it refers to. A collector would find that in a place which is only said to be
    /// free.
    pub fn let_go(&mut self) {
        (self.topic, self.payload) = (B::default(), B::default());
    }
}

impl<B: AsRef<[u8]>> Message<B> {
    /// The PUBLISH that carries it.
    pub fn packet(&self, id: Option<PacketId>, dup: bool) -> Publish<'_> {
        let (topic, payload) = (self.topic.as_ref(), self.payload.as_ref());
        Publish {
            dup,
            qos: self.qos,
            retain: self.retain,
            topic,
            id,
            payload,
        }
    }
}

/// Names a message or a subscription request for the call that waits for it. Later ones are
/// larger, going round; a message's place in the order of sending.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket(u32);

impl Ticket {
    fn before(self, other: Ticket) -> bool {
        self.0.wrapping_sub(other.0) > u32::MAX / 2
    }
}

/// An incoming QoS 2 message between its PUBLISH and its PUBREL.
#[derive(Clone, Copy, Debug, Default)]
pub struct Received {
    /// `None`: the entry is free.
    id: Option<PacketId>,
    handled: bool,
    /// PUBREL came before the message was handled.
    released: bool,
    /// The connections over which the message came first, and either came last.
    origin: u8,
    link: u8,
}

/// As it stands on the wire; 0: none. Comparing these is a few instructions less.
fn number(id: Option<PacketId>) -> u16 {
    id.map_or(0, PacketId::get)
}

/// How far a message or a subscription has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Its packet is to be sent.
    Due,
    /// That packet may have been sent before.
    DueAgain,
    /// The acknowledgement is awaited.
    Sent,
    /// The broker granted the subscription.
    Granted,
    Refused,
}

/// A message in flight, or a subscription, made or asked for.
#[derive(Debug)]
pub struct Request<B> {
    /// The packet it is about: PUBLISH, then PUBREL with QoS 2; SUBSCRIBE or UNSUBSCRIBE.
    kind: Kind,
    stage: Stage,
    id: PacketId,
    ticket: Ticket,
    /// Of a subscription, the topic is the filter, and there is nothing more to it but its QoS.
    message: Message<B>,
}

impl<B> Request<B> {
    /// The type of the packet that acknowledges its packet: the next in number, but for QoS 2.
    fn answer(&self) -> u8 {
        self.kind as u8
            + match self.kind {
                Kind::Publish => self.message.qos as u8,
                _ => 1,
            }
    }
}

/// The place is free.
fn free<B: Default>(entry: &mut Option<Request<B>>) {
    if let Some(request) = entry {
        request.message.let_go();
    }
    *entry = None;
}

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Nothing yet.
    Pending,
    /// It is complete.
    Done,
    /// The broker refused the subscription: return code 0x80 (section 3.9.3).
    Refused,
}

/// A packet to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Due {
    /// Its type.
    pub kind: Kind,
    /// Its identifier, if it has one.
    pub id: Option<PacketId>,
    /// The entry it is about, for [`Session::message`].
    pub at: u16,
}

impl Due {
    /// A packet that has no identifier, and is about no entry.
    pub const fn new(kind: Kind) -> Self {
        Due {
            kind,
            id: None,
            at: u16::MAX,
        }
    }
}

/// The state of one MQTT session.
pub struct Session<M: Memory> {
    /// Beside the subscriptions there is room for all messages that may be in flight.
    requests: M::Requests,
    received: M::Received,
    next_id: PacketId,
    next_ticket: Ticket,
    /// Something may be due.
    due: bool,
}

impl<M: Memory> Session<M> {
    /// An empty session over these empty lists.
    pub fn new(requests: M::Requests, received: M::Received) -> Self {
        Session {
            requests,
            received,
            next_id: PacketId::MIN,
            next_ticket: Ticket(0),
            due: false,
        }
    }

    /// Makes room for all messages that may be in flight, for good. `false`: there is no memory.
    pub fn prepare(&mut self) -> bool {
        self.requests.reserve(IN_FLIGHT)
    }

    /// What is asked of the broker.
    fn requests(&mut self) -> impl Iterator<Item = &mut Request<M::Bytes>> {
        self.requests.entries_mut().iter_mut().flatten()
    }

    /// Takes a QoS 1 or 2 message in flight (`kind`: PUBLISH), or asks for a subscription, or for
    /// the end of one. `None`: there is no room.
    pub fn take(&mut self, kind: Kind, message: &Message<M::Bytes>) -> Option<Ticket> {
        let publish = kind == Kind::Publish;
        let entries = self.requests.entries();
        let (mut messages, mut room, mut place) = (0, IN_FLIGHT, entries.len());
        for (at, entry) in entries.iter().enumerate() {
            match entry {
                None => place = at,
                Some(r) if !matches!(r.kind, Kind::Subscribe | Kind::Unsubscribe) => messages += 1,
                Some(r) if !publish && r.message.topic.as_ref() == message.topic.as_ref() => {
                    place = at;
                    break;
                }
                Some(_) => room += 1,
            }
        }
        if publish && messages == IN_FLIGHT {
            return None;
        }
        if !publish {
            room += 1;
        }
        if !self.requests.reserve(room) {
            return None;
        }
        if place == self.requests.entries().len() {
            self.requests.push(None).ok()?;
        }
        self.due = true;
        let (id, ticket) = (self.new_id(), self.new_ticket());
        *self.requests.entries_mut().get_mut(place)? = Some(Request {
            kind,
            stage: Stage::Due,
            id,
            ticket,
            message: message.clone(),
        });
        Some(ticket)
    }

    /// What became of a request. One that a later request for the same filter has replaced, or
    /// that was forgotten, is done. A refused topic is not asked for again, an unanswered one is.
    pub fn answer(&mut self, ticket: Ticket) -> Answer {
        for entry in self.requests.entries_mut() {
            match entry {
                Some(request) if request.ticket == ticket => match request.stage {
                    Stage::Granted => {}
                    Stage::Refused => {
                        free(entry);
                        return Answer::Refused;
                    }
                    _ => return Answer::Pending,
                },
                _ => {}
            }
        }
        Answer::Done
    }

    /// May there be something to send?
    pub fn has_due(&self) -> bool {
        self.due
    }

    /// What has to be sent next: what was asked for first.
    pub fn next_due(&mut self) -> Option<Due> {
        if !self.due {
            return None;
        }
        let mut next: Option<(Due, Ticket)> = None;
        for (at, entry) in self.requests.entries().iter().enumerate() {
            if let Some(request) = entry
                && matches!(request.stage, Stage::Due | Stage::DueAgain)
                && next.is_none_or(|(_, next)| request.ticket.before(next))
            {
                let (kind, id, at) = (request.kind, Some(request.id), at as u16);
                next = Some((Due { kind, id, at }, request.ticket));
            }
        }
        self.due = next.is_some();
        next.map(|(due, _)| due)
    }

    /// The message of a PUBLISH or PUBREL, and its DUP flag; or the topic filter of a SUBSCRIBE
    /// or UNSUBSCRIBE.
    pub fn message(&self, due: &Due) -> Option<(&Message<M::Bytes>, bool)> {
        let entry = self.requests.entries().get(usize::from(due.at))?;
        let request = entry.as_ref()?;
        Some((&request.message, request.stage == Stage::DueAgain))
    }

    /// The packet is on its way, whole: from now on its acknowledgement is awaited.
    pub fn sent(&mut self, due: &Due) {
        self.advance(due, Stage::Sent);
    }

    /// The packet was cut off in the middle, and counts as sent once.
    pub fn half_sent(&mut self, due: &Due) {
        self.advance(due, Stage::DueAgain);
    }

    /// Unless the packet is not of the session, or another request has taken its entry over while
    /// it was being sent.
    fn advance(&mut self, due: &Due, stage: Stage) {
        if let Some(Some(request)) = self.requests.entries_mut().get_mut(usize::from(due.at))
            && (Some(request.id), request.kind) == (due.id, due.kind)
        {
            request.stage = stage;
        }
    }

    /// An acknowledgement came in. One that nothing waits for is ignored. `granted`: by SUBACK.
    pub fn acknowledge(&mut self, kind: Kind, id: PacketId, granted: bool) {
        for entry in self.requests.entries_mut() {
            let Some(request) = entry else { continue };
            if request.id != id || request.stage != Stage::Sent {
                continue;
            }
            // A PUBREC may come again.
            if kind as u8 != request.answer()
                && (kind, request.kind) != (Kind::Pubrec, Kind::Pubrel)
            {
                continue;
            }
            match kind {
                Kind::Pubrec => {
                    (request.kind, request.stage) = (Kind::Pubrel, Stage::Due);
                    self.due = true;
                }
                Kind::Suback if granted => request.stage = Stage::Granted,
                Kind::Suback => request.stage = Stage::Refused,
                _ => free(entry),
            }
        }
    }

    /// A new QoS 2 message is whole. `false`: there is no memory to remember its identifier.
    pub fn receive(&mut self, id: PacketId, link: u8, handled: bool) -> bool {
        if self.find_received(None).is_none() && self.received.push(Received::default()).is_err() {
            return false;
        }
        if let Some(free) = self.find_received(None) {
            *free = Received {
                id: Some(id),
                handled,
                released: false,
                origin: link,
                link,
            };
        }
        true
    }

    /// A PUBLISH with QoS 2 came in: was its message received already, and if so, has it been
    /// handled, so that its PUBREC can be repeated?
    pub fn seen(&mut self, id: PacketId, link: u8) -> Option<bool> {
        let entry = self.find_received(Some(id))?;
        entry.link = link;
        Some(entry.handled)
    }

    /// The script has handled a QoS 2 message that came over the connection `origin`. Are a
    /// PUBREC, and a PUBCOMP, due on this one?
    pub fn handled(&mut self, id: PacketId, origin: u8, link: u8) -> (bool, bool) {
        let Some(entry) = self.find_received(Some(id)).filter(|r| r.origin == origin) else {
            return (false, false);
        };
        entry.handled = true;
        let (here, released) = (entry.link == link, entry.released);
        if released {
            entry.id = None;
        }
        (here, here && released)
    }

    /// The message with this identifier was an earlier one's.
    pub fn forget_received(&mut self, id: PacketId) {
        if let Some(entry) = self.find_received(Some(id)) {
            entry.id = None;
        }
    }

    /// The entry of this identifier; `None`: a free one.
    fn find_received(&mut self, id: Option<PacketId>) -> Option<&mut Received> {
        let mut entries = self.received.entries_mut().iter_mut();
        entries.find(|r| number(r.id) == number(id))
    }

    /// PUBREL came in: the sender will not repeat the message any more. Is PUBCOMP due? Not
    /// before the message has been handled.
    pub fn release(&mut self, id: PacketId, link: u8) -> bool {
        match self.find_received(Some(id)) {
            Some(entry) if !entry.handled => {
                (entry.released, entry.link) = (true, link);
                return false;
            }
            Some(entry) => entry.id = None,
            None => {}
        }
        true
    }

    /// The connection is gone: what was under way on it is due again. [MQTT-4.4.0-1]
    pub fn link_lost(&mut self) {
        self.due = true;
        for request in self.requests() {
            if request.stage == Stage::Sent {
                request.stage = Stage::DueAgain;
            }
        }
    }

    /// A connection is up, and the broker has no session for us: it knows not our subscriptions,
    /// nor, if `received`, the QoS 2 messages it sent.
    pub fn start_afresh(&mut self, received: bool) {
        self.due = true;
        if received {
            self.received.clear();
        }
        for entry in self.requests.entries_mut() {
            match entry {
                Some(request) if request.kind == Kind::Unsubscribe => free(entry),
                Some(request) if request.stage == Stage::Granted => request.stage = Stage::Due,
                _ => {}
            }
        }
    }

    /// The broker has a session that this client, just started, knows nothing of: identifiers are
    /// used from a random one on, for the broker may drop a QoS 2 message under one that it holds.
    pub fn inherit(&mut self, random: u32) {
        let untouched = self.next_id == PacketId::MIN && self.next_ticket == Ticket(0);
        if let (true, Some(id)) = (untouched, PacketId::new((random >> 16) as u16)) {
            self.next_id = id;
        }
    }

    /// Lets messages in flight and subscriptions go. Which QoS 2 messages were handled, or are
    /// (`handling`), is remembered: the broker's session may outlive ours, and must not deliver
    /// one twice. The others it will send again.
    pub fn forget(&mut self, handling: Option<&Tag>) {
        for entry in self.received.entries_mut() {
            let handling = handling.is_some_and(|tag| {
                let (here, there) = (number(tag.id), number(entry.id));
                (tag.qos, here, tag.link) == (QoS::ExactlyOnce, there, entry.origin)
            });
            if !entry.handled && !handling {
                entry.id = None;
            }
        }
        self.requests.entries_mut().iter_mut().for_each(free);
    }

    /// A packet identifier that is not in use. [MQTT-2.3.1-2]
    fn new_id(&mut self) -> PacketId {
        loop {
            let id = self.next_id;
            self.next_id = id.checked_add(1).unwrap_or(PacketId::MIN);
            if !self.requests().any(|request| request.id == id) {
                return id;
            }
        }
    }

    /// A name for one more thing to wait for.
    pub fn new_ticket(&mut self) -> Ticket {
        let ticket = self.next_ticket;
        self.next_ticket = Ticket(ticket.0.wrapping_add(1));
        ticket
    }
}
