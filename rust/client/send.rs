//! Sending: what goes out next, through the buffer or straight from where it lies.

use core::mem;

use embedded_nal::{TcpClientStack, nb};

use super::{Client, Config, Fault, Phase, Sending};
use crate::{
    memory::Memory,
    packet::{Ack, Connect, Kind, Packet, Subscribe, Unsubscribe, Will},
    session::{Due, Message, Session, Ticket},
};

impl<S, M> Client<S, M>
where
    S: TcpClientStack<Error: Clone + Copy>,
    M: Memory,
{
    /// Sends a QoS 0 message now, if nothing is before it. `None`: something is.
    pub fn start_publish(&mut self, message: &Message<M::Bytes>) -> Option<Ticket> {
        if self.phase != Phase::Up || self.wants_write() {
            return None;
        }
        let ticket = self.session.new_ticket();
        self.sending = Some(Sending::Publish(message.clone(), ticket));
        (self.sent, self.len) = (0, usize::MAX);
        Some(ticket)
    }

    /// Does the buffer hold all of this QoS 0 message?
    pub fn fits_buffer(&self, message: &Message<M::Bytes>) -> bool {
        message.packet(None, false).encoded_len() <= self.outgoing.capacity()
    }

    /// Is this QoS 0 message still being sent?
    pub fn is_publishing(&self, ticket: Ticket) -> bool {
        matches!(self.sending, Some(Sending::Publish(_, mine)) if mine == ticket)
    }

    /// Gives the QoS 0 message that is being sent up, if the socket has taken nothing of it.
    pub fn cancel_publish(&mut self) -> bool {
        let untouched = self.outgoing.is_untouched();
        if untouched {
            self.outgoing.drop_pending();
            self.sending = None;
            self.signals.changed = true;
        }
        untouched
    }

    /// Sends a PINGREQ as soon as possible.
    pub fn ping(&mut self) {
        self.ping_due = true;
    }

    /// Sends until all is sent or the socket takes no more.
    pub(super) fn flush(&mut self, stack: &mut S) -> Result<(), Fault<S::Error>> {
        loop {
            self.fill();
            let Some(socket) = &mut self.socket else {
                return Ok(());
            };
            let buffered = !self.outgoing.is_empty();
            let piece = match &self.sending {
                _ if buffered => self.outgoing.pending(),
                Some(sending) => large_rest(
                    packet(sending, &self.session, &self.config),
                    self.sent,
                    self.outgoing.capacity(),
                ),
                None => return Ok(()),
            };
            match stack.send(socket, piece) {
                Ok(0) | Err(nb::Error::WouldBlock) => return Ok(()),
                Ok(n) if buffered => self.outgoing.taken(n, self.now),
                Ok(n) => {
                    self.outgoing.count(n, self.now);
                    self.sent += n;
                }
                Err(nb::Error::Other(error)) => return Err(Fault::Io(error)),
            }
        }
    }

    /// Puts what is to be sent into the buffer, as far as it has room.
    fn fill(&mut self) {
        loop {
            if self.sending.is_none() {
                self.sending = self.choose();
                (self.sent, self.len) = (0, usize::MAX);
            }
            let Some(sending) = &self.sending else {
                return;
            };
            if self.sent < self.len {
                let packet = packet(sending, &self.session, &self.config);
                self.len = packet.map_or(0, |packet| packet.encoded_len());
                // A large rest is sent from where it lies, once the buffer is empty.
                if let Some(packet) = packet
                    && large_rest(Some(packet), self.sent, self.outgoing.capacity()).is_empty()
                {
                    self.sent += self
                        .outgoing
                        .append(self.sent, self.now, |out| packet.emit(out));
                }
                if self.sent < self.len {
                    return;
                }
            }
            match sending {
                Sending::Publish(..) if !self.outgoing.is_empty() => return,
                Sending::Due(due, id) => self.session.sent(*due, *id),
                _ => {}
            }
            self.sending = None;
        }
    }

    /// What to send next: acknowledgements, then PINGREQ, then what the session has due.
    fn choose(&mut self) -> Option<Sending<M::Bytes>> {
        if self.phase != Phase::Up {
            return None;
        }
        if let Some(ack) = self.acks.pop_front() {
            return Some(Sending::Ack(ack));
        }
        if mem::take(&mut self.ping_due) {
            return Some(Sending::Ping);
        }
        let due = self.session.next_due()?;
        let id = match due {
            Due::Subscribe(_) | Due::Unsubscribe(_) => self.session.new_id(),
            Due::Publish(_, id) | Due::Pubrel(id) => id,
        };
        Some(Sending::Due(due, id))
    }
}

/// The packet that is being sent; `None` if what it was about is gone.
fn packet<'a, M: Memory>(
    sending: &'a Sending<M::Bytes>,
    session: &'a Session<M>,
    config: &'a Config<M::Bytes>,
) -> Option<Packet<'a>> {
    Some(match sending {
        Sending::Connect { clean_session } => Packet::Connect(Connect {
            version: config.version,
            client_id: config.client_id.as_ref(),
            clean_session: *clean_session,
            keepalive: config.keepalive,
            will: config.will.as_ref().map(|will| Will {
                topic: will.topic.as_ref(),
                message: will.payload.as_ref(),
                qos: will.qos,
                retain: will.retain,
            }),
            user: config.user.as_ref().map(AsRef::as_ref),
            password: config.password.as_ref().map(AsRef::as_ref),
        }),
        Sending::Publish(message, _) => Packet::Publish(message.packet(None, false)),
        Sending::Ack(ack) => Packet::Ack(*ack),
        Sending::Ping => Packet::Pingreq,
        Sending::Due(due, id) => match due {
            Due::Publish(at, id) => {
                let (message, dup) = session.publish(*at)?;
                Packet::Publish(message.packet(Some(*id), dup))
            }
            Due::Pubrel(id) => Packet::Ack(Ack {
                kind: Kind::Pubrel,
                id: *id,
            }),
            Due::Subscribe(at) => {
                let (filter, qos) = session.filter(*at)?;
                Packet::Subscribe(Subscribe {
                    id: *id,
                    filter,
                    qos,
                    rest: &[],
                })
            }
            Due::Unsubscribe(at) => {
                let (filter, _) = session.filter(*at)?;
                Packet::Unsubscribe(Unsubscribe {
                    id: *id,
                    filter,
                    rest: &[],
                })
            }
        },
    })
}

/// What is left of a PUBLISH when the first `sent` bytes are gone, if that is payload, and more of
/// it than the buffer should copy.
fn large_rest(packet: Option<Packet<'_>>, sent: usize, buffer: usize) -> &[u8] {
    match packet {
        Some(Packet::Publish(publish)) if sent > 0 && publish.payload.len() >= buffer => sent
            .checked_sub(publish.head_len())
            .and_then(|from| publish.payload.get(from..))
            .filter(|rest| rest.len() >= buffer)
            .unwrap_or_default(),
        _ => &[],
    }
}
