//! The state that MQTT keeps for a client, across connections (section 4.1): messages in flight
//! in both directions, subscriptions, and the packet identifiers of all of them.
//!
//! No I/O and no bytes: acknowledgements come in as calls, and [`Session::next_due`] names what
//! has to be sent next, in order. A message that was taken leaves only when its handshake is
//! complete, or with [`Session::forget`]. Entries never move from slot to slot: a garbage
//! collector may be looking at them.

use heapless::Vec;

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

/// What messages in flight and subscriptions have in common.
#[derive(Clone, Copy, Debug)]
struct Pending {
    /// The packet it is about: PUBLISH, then PUBREL with QoS 2; SUBSCRIBE or UNSUBSCRIBE.
    kind: Kind,
    stage: Stage,
    /// SUBSCRIBE and UNSUBSCRIBE get theirs when they are sent.
    id: Option<PacketId>,
    ticket: Ticket,
}

impl Pending {
    fn is_due(&self) -> bool {
        matches!(self.stage, Stage::Due | Stage::DueAgain)
    }

    /// Does it wait for the acknowledgement of this packet?
    fn awaits(&self, kind: Kind, id: PacketId) -> bool {
        self.id == Some(id) && self.kind == kind && self.stage == Stage::Sent
    }
}

#[derive(Debug)]
struct InFlight<B> {
    pending: Pending,
    message: Message<B>,
}

/// A topic filter that is subscribed to, or about to be, or about not to be any more.
#[derive(Debug)]
pub struct Subscription<B> {
    pending: Pending,
    filter: B,
    qos: QoS,
}

/// What became of a subscription request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// None yet.
    Pending,
    /// The broker acknowledged it.
    Done,
    /// The broker refused it: return code 0x80 (section 3.9.3).
    Refused,
}

/// A packet to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Due {
    /// Its type.
    pub kind: Kind,
    /// Its identifier, if it has one.
    pub id: Option<PacketId>,
    /// The entry it is about, for [`Session::publish`] and [`Session::filter`].
    pub at: u16,
}

/// The state of one MQTT session.
#[repr(C)] // the long array last, as in `Client`
pub struct Session<M: Memory> {
    subscriptions: M::Subscriptions,
    received: M::Received,
    next_id: PacketId,
    next_ticket: Ticket,
    /// Something may be due.
    due: bool,
    /// As many slots as were needed so far.
    in_flight: Vec<Option<InFlight<M::Bytes>>, IN_FLIGHT>,
}

impl<M: Memory> Session<M> {
    /// An empty session over these empty lists.
    pub fn new(subscriptions: M::Subscriptions, received: M::Received) -> Self {
        Session {
            in_flight: Vec::new(),
            subscriptions,
            received,
            next_id: PacketId::MIN,
            next_ticket: Ticket(0),
            due: false,
        }
    }

    /// Something new to send.
    fn pending(&mut self, kind: Kind, id: Option<PacketId>) -> Pending {
        self.due = true;
        Pending {
            kind,
            stage: Stage::Due,
            id,
            ticket: self.new_ticket(),
        }
    }

    /// All that may be due, each with the number of its entry.
    fn each(&mut self, visit: &mut dyn FnMut(usize, &mut Pending)) {
        for (at, entry) in self.in_flight.iter_mut().enumerate() {
            if let Some(entry) = entry {
                visit(at, &mut entry.pending);
            }
        }
        for (at, entry) in self.subscriptions.entries_mut().iter_mut().enumerate() {
            if let Some(entry) = entry {
                visit(at, &mut entry.pending);
            }
        }
    }

    /// Takes a QoS 1 or 2 message in flight; `None`: there is no room.
    pub fn take(&mut self, message: &Message<M::Bytes>) -> Option<Ticket> {
        let free = self.in_flight.iter().position(Option::is_none);
        let at = free.unwrap_or(self.in_flight.len());
        if free.is_none() {
            self.in_flight.push(None).ok()?;
        }
        let id = self.new_id();
        let pending = self.pending(Kind::Publish, Some(id));
        *self.in_flight.get_mut(at)? = Some(InFlight {
            pending,
            message: message.clone(),
        });
        Some(pending.ticket)
    }

    /// Is the message's handshake still incomplete?
    pub fn is_in_flight(&self, ticket: Ticket) -> bool {
        self.in_flight
            .iter()
            .flatten()
            .any(|m| m.pending.ticket == ticket)
    }

    /// Asks for a subscription, or for the end of one (`kind`). `None`: there is no memory to
    /// remember it.
    #[inline(never)]
    pub fn request(&mut self, kind: Kind, filter: &M::Bytes, qos: QoS) -> Option<Ticket> {
        let pending = self.pending(kind, None);
        let entries = self.subscriptions.entries_mut();
        let same = |entry: &Option<Subscription<M::Bytes>>| {
            entry
                .as_ref()
                .is_some_and(|s| s.filter.as_ref() == filter.as_ref())
        };
        let place = entries
            .iter()
            .position(same)
            .or_else(|| entries.iter().position(Option::is_none));
        let new = Some(Subscription {
            pending,
            filter: filter.clone(),
            qos,
        });
        match place.and_then(|at| entries.get_mut(at)) {
            Some(entry) => *entry = new,
            None => self.subscriptions.push(new).ok()?,
        }
        Some(pending.ticket)
    }

    /// What became of a request. One that a later request for the same filter has replaced, or
    /// that was forgotten, is done. A refused topic is not asked for again, an unanswered one is.
    pub fn answer(&mut self, ticket: Ticket) -> Answer {
        for entry in self.subscriptions.entries_mut() {
            match entry.as_ref().map(|s| &s.pending) {
                Some(pending) if pending.ticket == ticket => match pending.stage {
                    Stage::Granted => {}
                    Stage::Refused => {
                        *entry = None;
                        return Answer::Refused;
                    }
                    _ => return Answer::Pending,
                },
                _ => {}
            }
        }
        Answer::Done
    }

    fn remove_subscription(&mut self, which: impl Fn(&Pending) -> bool) {
        for entry in self.subscriptions.entries_mut() {
            if entry.as_ref().is_some_and(|s| which(&s.pending)) {
                *entry = None;
            }
        }
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
        let mut next: Option<(usize, Pending)> = None;
        self.each(&mut |at, pending| {
            if pending.is_due() && next.is_none_or(|(_, next)| pending.ticket.before(next.ticket)) {
                next = Some((at, *pending));
            }
        });
        self.due = next.is_some();
        let (at, Pending { kind, mut id, .. }) = next?;
        if matches!(kind, Kind::Subscribe | Kind::Unsubscribe) {
            id = Some(self.new_id());
            let entry = self.subscriptions.entries_mut().get_mut(at)?;
            entry.as_mut()?.pending.id = id;
        }
        let at = at as u16;
        Some(Due { kind, id, at })
    }

    /// The message of a PUBLISH that is due, and its DUP flag.
    pub fn publish(&self, at: u16) -> Option<(&Message<M::Bytes>, bool)> {
        let entry = self.in_flight.get(usize::from(at))?.as_ref()?;
        Some((&entry.message, entry.pending.stage == Stage::DueAgain))
    }

    /// The topic filter of a SUBSCRIBE or UNSUBSCRIBE that is due.
    pub fn filter(&self, at: u16) -> Option<(&[u8], QoS)> {
        let entry = self.subscriptions.entries().get(usize::from(at))?;
        entry.as_ref().map(|s| (s.filter.as_ref(), s.qos))
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
        if due.id.is_none() {
            return;
        }
        self.each(&mut |_, pending| {
            if pending.id == due.id && pending.kind == due.kind {
                pending.stage = stage;
            }
        });
    }

    /// PUBACK, PUBREC, PUBCOMP or UNSUBACK came in. One that nothing waits for is ignored.
    pub fn acknowledge(&mut self, kind: Kind, id: PacketId) {
        if kind == Kind::Unsuback {
            self.remove_subscription(|s| s.awaits(Kind::Unsubscribe, id));
            return;
        }
        for slot in &mut self.in_flight {
            let Some(InFlight { message, pending }) = slot else {
                continue;
            };
            if pending.id != Some(id) || pending.stage != Stage::Sent {
                continue;
            }
            match (kind, message.qos, pending.kind) {
                (Kind::Puback, QoS::AtLeastOnce, _)
                | (Kind::Pubcomp, QoS::ExactlyOnce, Kind::Pubrel) => *slot = None,
                (Kind::Pubrec, QoS::ExactlyOnce, _) => {
                    (pending.kind, pending.stage) = (Kind::Pubrel, Stage::Due);
                    self.due = true;
                }
                _ => {}
            }
        }
    }

    /// A SUBACK for a single filter came in.
    pub fn suback(&mut self, id: PacketId, granted: bool) {
        self.each(&mut |_, pending| {
            if pending.awaits(Kind::Subscribe, id) {
                pending.stage = if granted {
                    Stage::Granted
                } else {
                    Stage::Refused
                };
            }
        });
    }

    /// A new QoS 2 message is whole. `false`: there is no memory to remember its identifier.
    pub fn receive(&mut self, id: PacketId, link: u8, handled: bool) -> bool {
        if self.find_received(None).is_none() {
            let _ = self.received.push(Received::default());
        }
        let free = self.find_received(None);
        let room = free.is_some();
        if let Some(entry) = free {
            *entry = Received {
                id: Some(id),
                handled,
                released: false,
                origin: link,
                link,
            };
        }
        room
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
        entries.find(|r| r.id == id)
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
        self.each(&mut |_, pending| {
            if pending.stage == Stage::Sent {
                pending.stage = Stage::DueAgain;
            }
        });
    }

    /// A connection is up, and the broker has no session for us: it knows not our subscriptions,
    /// nor, if `received`, the QoS 2 messages it sent.
    pub fn start_afresh(&mut self, received: bool) {
        self.due = true;
        if received {
            self.received.clear();
        }
        self.remove_subscription(|s| s.kind == Kind::Unsubscribe);
        self.each(&mut |_, pending| {
            if pending.stage == Stage::Granted {
                pending.stage = Stage::Due;
            }
        });
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
                (tag.qos, tag.id, tag.link) == (QoS::ExactlyOnce, entry.id, entry.origin)
            });
            if !entry.handled && !handling {
                entry.id = None;
            }
        }
        for entry in &mut self.in_flight {
            *entry = None;
        }
        self.subscriptions.clear();
    }

    /// A packet identifier that is not in use. [MQTT-2.3.1-2]
    fn new_id(&mut self) -> PacketId {
        loop {
            let id = self.next_id;
            self.next_id = id.checked_add(1).unwrap_or(PacketId::MIN);
            let mut used = false;
            self.each(&mut |_, pending| used |= pending.id == Some(id));
            if !used {
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
