//! The state that MQTT keeps for a client, across connections (section 4.1): messages in flight
//! in both directions, subscriptions, and the packet identifiers of all of them.
//!
//! No I/O and no bytes: acknowledgements come in as calls, and [`Session::next_due`] names what
//! has to be sent next, in order. A message that was taken leaves only when its handshake is
//! complete, or with [`Session::forget`]. Entries never move from slot to slot: a garbage
//! collector may be looking at them.

use crate::{
    config::IN_FLIGHT,
    memory::{List, Memory},
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

/// How far the handshake of an outgoing QoS 1 or 2 message has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    DuePublish {
        dup: bool,
    },
    /// PUBACK with QoS 1, PUBREC with QoS 2.
    AwaitAck,
    DuePubrel,
    AwaitPubcomp,
}

#[derive(Debug)]
struct InFlight<B> {
    message: Message<B>,
    id: PacketId,
    ticket: Ticket,
    stage: Stage,
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
#[derive(Clone, Copy, Debug)]
pub struct Received {
    /// `None`: the entry is free.
    id: Option<PacketId>,
    handled: bool,
    /// PUBREL came before the message was handled.
    released: bool,
    /// The connection over which either came last.
    link: u8,
}

/// How far a subscription, or its end, has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Request {
    /// The broker granted it.
    Granted,
    Refused,
    DueSubscribe,
    AwaitSuback(PacketId),
    DueUnsubscribe,
    AwaitUnsuback(PacketId),
}

/// A topic filter that is subscribed to, or about to be, or about not to be any more.
#[derive(Debug)]
pub struct Subscription<B> {
    filter: B,
    qos: QoS,
    ticket: Ticket,
    request: Request,
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

/// The next packet to send; the number is the entry it is about, for [`Session::publish`] and
/// [`Session::filter`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// A PUBLISH.
    Publish(usize, PacketId),
    /// A PUBREL.
    Pubrel(PacketId),
    /// A SUBSCRIBE.
    Subscribe(usize),
    /// An UNSUBSCRIBE.
    Unsubscribe(usize),
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
    in_flight: [Option<InFlight<M::Bytes>>; IN_FLIGHT],
}

impl<M: Memory> Session<M> {
    /// An empty session over these empty lists.
    pub fn new(subscriptions: M::Subscriptions, received: M::Received) -> Self {
        Session {
            in_flight: [const { None }; IN_FLIGHT],
            subscriptions,
            received,
            next_id: PacketId::MIN,
            next_ticket: Ticket(0),
            due: false,
        }
    }

    /// Takes a QoS 1 or 2 message in flight; `None`: there is no room.
    pub fn take(&mut self, message: &Message<M::Bytes>) -> Option<Ticket> {
        let free = self.in_flight.iter().position(Option::is_none)?;
        let (id, ticket) = (self.new_id(), self.new_ticket());
        let (message, stage) = (message.clone(), Stage::DuePublish { dup: false });
        self.due = true;
        *self.in_flight.get_mut(free)? = Some(InFlight {
            message,
            id,
            ticket,
            stage,
        });
        Some(ticket)
    }

    /// Is the message's handshake still incomplete?
    pub fn is_in_flight(&self, ticket: Ticket) -> bool {
        self.in_flight.iter().flatten().any(|m| m.ticket == ticket)
    }

    /// Asks for a subscription. `None`: there is no memory to remember it.
    pub fn subscribe(&mut self, filter: &M::Bytes, qos: QoS) -> Option<Ticket> {
        self.request(filter.clone(), qos, Request::DueSubscribe)
    }

    /// Asks for the end of a subscription. `None`: there is no memory to remember it.
    pub fn unsubscribe(&mut self, filter: &M::Bytes) -> Option<Ticket> {
        self.request(filter.clone(), QoS::AtMostOnce, Request::DueUnsubscribe)
    }

    fn request(&mut self, filter: M::Bytes, qos: QoS, request: Request) -> Option<Ticket> {
        let ticket = self.new_ticket();
        self.due = true;
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
            filter,
            qos,
            ticket,
            request,
        });
        match place.and_then(|at| entries.get_mut(at)) {
            Some(entry) => *entry = new,
            None => self.subscriptions.push(new).ok()?,
        }
        Some(ticket)
    }

    /// What became of a request. One that a later request for the same filter has replaced, or
    /// that was forgotten, is done.
    pub fn answer(&self, ticket: Ticket) -> Answer {
        let mine = self
            .subscriptions
            .entries()
            .iter()
            .flatten()
            .find(|s| s.ticket == ticket);
        match mine.map(|s| s.request) {
            None | Some(Request::Granted) => Answer::Done,
            Some(Request::Refused) => Answer::Refused,
            Some(_) => Answer::Pending,
        }
    }

    /// The call that waited for this request has its answer, or gives up: a refused topic is not
    /// asked for again, an unanswered one is.
    pub fn collect(&mut self, ticket: Ticket) {
        let refused = |s: &Subscription<M::Bytes>| {
            s.ticket == ticket && matches!(s.request, Request::Refused)
        };
        self.remove_subscription(refused);
    }

    fn remove_subscription(&mut self, which: impl Fn(&Subscription<M::Bytes>) -> bool) {
        for entry in self.subscriptions.entries_mut() {
            if entry.as_ref().is_some_and(&which) {
                *entry = None;
            }
        }
    }

    /// What has to be sent next: what was asked for first.
    pub fn next_due(&mut self) -> Option<Due> {
        if !self.due {
            return None;
        }
        let mut next: Option<(Ticket, Due)> = None;
        let mut offer = |ticket: Ticket, due| {
            if next.is_none_or(|(earliest, _)| ticket.before(earliest)) {
                next = Some((ticket, due));
            }
        };
        for (at, entry) in self.subscriptions.entries().iter().enumerate() {
            match entry.as_ref().map(|s| (s.ticket, s.request)) {
                Some((ticket, Request::DueSubscribe)) => offer(ticket, Due::Subscribe(at)),
                Some((ticket, Request::DueUnsubscribe)) => offer(ticket, Due::Unsubscribe(at)),
                _ => {}
            }
        }
        for (at, entry) in self.in_flight.iter().enumerate() {
            match entry.as_ref().map(|m| (m.ticket, m.stage, m.id)) {
                Some((ticket, Stage::DuePublish { .. }, id)) => {
                    offer(ticket, Due::Publish(at, id));
                }
                Some((ticket, Stage::DuePubrel, id)) => offer(ticket, Due::Pubrel(id)),
                _ => {}
            }
        }
        self.due = next.is_some();
        next.map(|(_, due)| due)
    }

    /// The message of [`Due::Publish`] and its DUP flag.
    pub fn publish(&self, at: usize) -> Option<(&Message<M::Bytes>, bool)> {
        let entry = self.in_flight.get(at)?.as_ref()?;
        Some((
            &entry.message,
            matches!(entry.stage, Stage::DuePublish { dup: true }),
        ))
    }

    /// The topic filter of [`Due::Subscribe`] and [`Due::Unsubscribe`].
    pub fn filter(&self, at: usize) -> Option<(&[u8], QoS)> {
        let entry = self.subscriptions.entries().get(at)?.as_ref()?;
        Some((entry.filter.as_ref(), entry.qos))
    }

    /// The packet is on its way, whole, under this identifier: from now on its acknowledgement is
    /// awaited.
    pub fn sent(&mut self, due: Due, id: PacketId) {
        match due {
            Due::Publish(at, _) => {
                if let Some(Some(entry)) = self.in_flight.get_mut(at) {
                    entry.stage = Stage::AwaitAck;
                }
            }
            Due::Pubrel(_) => {
                if let Some(entry) = self.find(id) {
                    entry.stage = Stage::AwaitPubcomp;
                }
            }
            Due::Subscribe(at) | Due::Unsubscribe(at) => {
                let entry = self.subscriptions.entries_mut().get_mut(at);
                if let Some(Some(entry)) = entry {
                    // Another request may have taken the entry over while this one was sent.
                    entry.request = match (due, entry.request) {
                        (Due::Subscribe(_), Request::DueSubscribe) => Request::AwaitSuback(id),
                        (Due::Unsubscribe(_), Request::DueUnsubscribe) => {
                            Request::AwaitUnsuback(id)
                        }
                        (_, other) => other,
                    };
                }
            }
        }
    }

    fn find(&mut self, id: PacketId) -> Option<&mut InFlight<M::Bytes>> {
        self.in_flight.iter_mut().flatten().find(|m| m.id == id)
    }

    /// PUBACK, PUBREC, PUBCOMP or UNSUBACK came in. One that nothing waits for is ignored.
    pub fn acknowledge(&mut self, kind: Kind, id: PacketId) {
        if kind == Kind::Unsuback {
            self.remove_subscription(|s| s.request == Request::AwaitUnsuback(id));
            return;
        }
        for slot in &mut self.in_flight {
            let Some(entry) = slot else { continue };
            if entry.id != id {
                continue;
            }
            match (kind, entry.message.qos, entry.stage) {
                (Kind::Puback, QoS::AtLeastOnce, Stage::AwaitAck)
                | (Kind::Pubcomp, QoS::ExactlyOnce, Stage::AwaitPubcomp) => *slot = None,
                (Kind::Pubrec, QoS::ExactlyOnce, Stage::AwaitAck | Stage::AwaitPubcomp) => {
                    entry.stage = Stage::DuePubrel;
                    self.due = true;
                }
                _ => {}
            }
        }
    }

    /// A SUBACK for a single filter came in.
    pub fn suback(&mut self, id: PacketId, granted: bool) {
        for entry in self.subscriptions.entries_mut().iter_mut().flatten() {
            if entry.request == Request::AwaitSuback(id) {
                entry.request = if granted {
                    Request::Granted
                } else {
                    Request::Refused
                };
            }
        }
    }

    /// A new QoS 2 message is whole. `false`: there is no memory to remember its identifier.
    pub fn receive(&mut self, id: PacketId, link: u8, handled: bool) -> bool {
        let new = Received {
            id: Some(id),
            handled,
            released: false,
            link,
        };
        match self
            .received
            .entries_mut()
            .iter_mut()
            .find(|r| r.id.is_none())
        {
            Some(entry) => *entry = new,
            None => return self.received.push(new).is_ok(),
        }
        true
    }

    /// A PUBLISH with QoS 2 came in: was its message received already, and if so, has it been
    /// handled, so that its PUBREC can be repeated?
    pub fn seen(&mut self, id: PacketId, link: u8) -> Option<bool> {
        let entry = self.find_received(id)?;
        entry.link = link;
        Some(entry.handled)
    }

    /// The script has handled a QoS 2 message. Are a PUBREC, and a PUBCOMP, due on this
    /// connection?
    pub fn handled(&mut self, id: PacketId, link: u8) -> (bool, bool) {
        let Some(entry) = self.find_received(id) else {
            return (false, false);
        };
        entry.handled = true;
        let (here, released) = (entry.link == link, entry.released);
        if released {
            entry.id = None;
        }
        (here, here && released)
    }

    fn find_received(&mut self, id: PacketId) -> Option<&mut Received> {
        self.received
            .entries_mut()
            .iter_mut()
            .find(|r| r.id == Some(id))
    }

    /// PUBREL came in: the sender will not repeat the message any more. Is PUBCOMP due? Not
    /// before the message has been handled.
    pub fn release(&mut self, id: PacketId, link: u8) -> bool {
        match self.find_received(id) {
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
        for entry in self.in_flight.iter_mut().flatten() {
            match entry.stage {
                Stage::AwaitAck => entry.stage = Stage::DuePublish { dup: true },
                Stage::AwaitPubcomp => entry.stage = Stage::DuePubrel,
                _ => {}
            }
        }
        self.remove_subscription(|s| s.request == Request::Refused);
        for entry in self.subscriptions.entries_mut().iter_mut().flatten() {
            match entry.request {
                Request::AwaitSuback(_) => entry.request = Request::DueSubscribe,
                Request::AwaitUnsuback(_) => entry.request = Request::DueUnsubscribe,
                _ => {}
            }
        }
    }

    /// The message whose PUBLISH was cut off in the middle counts as sent once.
    pub fn half_sent(&mut self, at: usize) {
        if let Some(Some(InFlight {
            stage: stage @ Stage::DuePublish { .. },
            ..
        })) = self.in_flight.get_mut(at)
        {
            *stage = Stage::DuePublish { dup: true };
        }
    }

    /// A connection is up, and the broker has no session for us: it knows neither our
    /// subscriptions nor the QoS 2 messages it sent.
    pub fn start_afresh(&mut self) {
        self.due = true;
        self.received.clear();
        self.remove_subscription(|s| s.request == Request::DueUnsubscribe);
        for entry in self.subscriptions.entries_mut().iter_mut().flatten() {
            entry.request = Request::DueSubscribe;
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

    /// Lets messages in flight and subscriptions go. Which QoS 2 messages were received is
    /// remembered: the broker's session may outlive ours, and must not deliver one twice.
    pub fn forget(&mut self) {
        for entry in &mut self.in_flight {
            *entry = None;
        }
        self.subscriptions.clear();
    }

    /// A packet identifier that is not in use. [MQTT-2.3.1-2]
    pub fn new_id(&mut self) -> PacketId {
        loop {
            let id = self.next_id;
            self.next_id = id.checked_add(1).unwrap_or(PacketId::MIN);
            let subscription = |s: &Subscription<M::Bytes>| matches!(s.request, Request::AwaitSuback(used) | Request::AwaitUnsuback(used) if used == id);
            if self.find(id).is_none()
                && !self
                    .subscriptions
                    .entries()
                    .iter()
                    .flatten()
                    .any(subscription)
            {
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
