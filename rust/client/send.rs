//! Sending: what goes out next, through the buffer or straight from where it lies.

use core::mem;

use embedded_nal::{TcpClientStack, nb};

use super::{Appetite, Client, Config, Fault, Phase, Stop};
use crate::{
    config::OTHERS,
    memory::Memory,
    packet::{Connect, Header, Kind, QoS, Subscribe, Unsubscribe, Will, Writer},
    session::{Due, Message, Ticket},
};

impl<S, M> Client<S, M>
where
    S: TcpClientStack<Error: Clone + Copy>,
    M: Memory,
{
    /// Sends a message, or takes it in flight, if there is room for it; then `started` is its name
    /// and the number of the connection. Sends and reads what else there is.
    pub fn offer(
        &mut self,
        stack: &mut S,
        message: &Message<M::Bytes>,
        started: &mut Option<(Ticket, u8)>,
        read: bool,
    ) -> Stop {
        let in_flight = message.qos != QoS::AtMostOnce;
        let mut take = |client: &mut Self| {
            if started.is_none() {
                *started = client.take(message).map(|ticket| (ticket, client.link));
            }
            started.is_some()
        };
        if take(self) {
            return self.pump(stack, Appetite::Keep, read);
        }
        // What was before it may be gone after this, and acknowledgements may have come.
        let stop = self.pump(stack, Appetite::Keep, read || in_flight);
        take(self);
        self.pump(stack, Appetite::Keep, false).or(stop)
    }

    /// Sends a QoS 0 message, if nothing is in its way; the answer is as in [`Client::offer`]. Most
    /// messages go this way, half as long as the other.
    pub fn send_at_once(
        &mut self,
        stack: &mut S,
        message: &Message<M::Bytes>,
    ) -> Option<(Ticket, u8)> {
        let clear = self.phase == Phase::Up && self.is_quiet() && self.incoming.bytes().is_empty();
        let socket = self.socket.as_mut().filter(|_| clear)?;
        let packet = message.packet(None, false);
        let (written, len) = self.outgoing.append(0, |out| packet.emit(out));
        if written < len {
            self.outgoing.drop_pending();
            return None;
        }
        match stack.send(socket, self.outgoing.pending()) {
            Ok(n) => self.outgoing.taken(n, self.now),
            Err(nb::Error::WouldBlock) => {}
            Err(nb::Error::Other(error)) => self.lose(stack, Fault::Io(error)),
        }
        let ticket = self.session.new_ticket();
        if !self.outgoing.is_empty() {
            self.at_most_once = Some((message.clone(), ticket));
            self.start(Some(Due::new(Kind::Publish)));
            (self.sent, self.len) = (len, len);
        }
        Some((ticket, self.link))
    }

    fn take(&mut self, message: &Message<M::Bytes>) -> Option<Ticket> {
        if message.qos != QoS::AtMostOnce {
            return self.session.take(Kind::Publish, message);
        }
        if self.phase != Phase::Up || self.wants_write() || self.ping_due {
            return None;
        }
        let ticket = self.session.new_ticket();
        self.at_most_once = Some((message.clone(), ticket));
        self.start(Some(Due::new(Kind::Publish)));
        Some(ticket)
    }

    /// This packet is sent now.
    pub(super) fn start(&mut self, packet: Option<Due>) {
        self.sending = packet;
        (self.sent, self.len) = (0, usize::MAX);
    }

    /// Does the buffer hold all of this QoS 0 message, with the longest header that there is?
    pub fn fits_buffer(&self, message: &Message<M::Bytes>) -> bool {
        let longest = 1 + 4 + 2 + message.topic.as_ref().len() + message.payload.as_ref().len();
        longest <= self.outgoing.capacity()
    }

    /// Is this QoS 0 message still being sent?
    pub fn is_publishing(&self, ticket: Ticket) -> bool {
        matches!(&self.at_most_once, Some((_, mine)) if *mine == ticket)
    }

    /// Gives the QoS 0 message that is being sent up, if the socket has taken nothing of it.
    pub fn cancel_publish(&mut self) -> bool {
        let untouched = self.outgoing.is_untouched();
        if untouched {
            self.outgoing.drop_pending();
            self.sending = None;
            self.published();
            self.signals.changed = OTHERS;
        }
        untouched
    }

    /// The QoS 0 message, if there is one, is not needed any more.
    pub(super) fn published(&mut self) {
        if let Some((message, _)) = &mut self.at_most_once {
            message.let_go();
            self.at_most_once = None;
        }
    }

    /// Sends a PINGREQ as soon as possible.
    pub fn ping(&mut self) {
        self.ping_due = true;
    }

    /// Is there nothing to send?
    fn is_quiet(&self) -> bool {
        !self.wants_write() && !self.ping_due && self.acks.is_empty() && !self.session.has_due()
    }

    /// Sends until all is sent or the socket takes no more. The buffer is filled before it is sent.
    pub(super) fn flush(&mut self, stack: &mut S) -> Result<(), Fault<S::Error>> {
        if cfg!(fast) && self.is_quiet() {
            return Ok(());
        }
        loop {
            if self.sending.is_none() {
                self.choose();
            }
            let mut rest: &[u8] = &[];
            if let Some(due) = &self.sending {
                let message = match &self.at_most_once {
                    Some((message, _)) => Some((message, false)),
                    None => self.session.message(due),
                };
                // A large rest is sent from where it lies, once the buffer is empty.
                let left = self.len.saturating_sub(self.sent);
                rest = large_rest(message, left, self.outgoing.capacity());
                if rest.is_empty() && self.sent < self.len {
                    let (written, len) = self.outgoing.append(self.sent, |out| match due.kind {
                        Kind::Connect => {
                            emit_connect(&self.config, &self.will, self.clean_session, out)
                        }
                        _ => emit(due, message, out),
                    });
                    self.sent += written;
                    self.len = len;
                }
                if self.sent >= self.len
                    && (self.at_most_once.is_none() || self.outgoing.is_empty())
                {
                    self.session.sent(due);
                    self.sending = None;
                    self.published();
                    continue;
                }
            }
            let buffered = !self.outgoing.is_empty();
            let piece = if buffered {
                self.outgoing.pending()
            } else {
                rest
            };
            let Some(socket) = self.socket.as_mut().filter(|_| !piece.is_empty()) else {
                return Ok(());
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

    /// What is sent next: acknowledgements, then PINGREQ, then what the session has due.
    #[inline(never)] // it would take the registers that `flush` needs
    fn choose(&mut self) {
        let next = if self.phase != Phase::Up {
            None
        } else if !self.acks.is_empty() {
            Some(self.acks.remove(0))
        } else if mem::take(&mut self.ping_due) {
            self.service.ping_sent(self.now);
            Some(Due::new(Kind::Pingreq))
        } else {
            self.session.next_due()
        };
        self.start(next);
    }
}

/// Writes the CONNECT of this client.
#[inline(never)] // it would take the registers that `flush` needs
fn emit_connect<B: AsRef<[u8]>>(
    config: &Config<B>,
    will: &Option<Message<B>>,
    clean_session: bool,
    out: &mut Writer,
) {
    let present = |text| Some(text).filter(|text: &&[u8]| !text.is_empty());
    let packet = Connect {
        version: config.version,
        client_id: config.client_id.as_ref(),
        clean_session,
        keepalive: config.keepalive,
        will: will.as_ref().map(|will| Will {
            topic: will.topic.as_ref(),
            message: will.payload.as_ref(),
            qos: will.qos,
            retain: will.retain,
        }),
        user: present(config.user.as_ref()),
        password: present(config.password.as_ref()),
    };
    packet.emit(out);
}

/// Writes the packet to send, which is no CONNECT; nothing if the message that it is about is gone.
fn emit<B: AsRef<[u8]>>(due: &Due, message: Option<(&Message<B>, bool)>, out: &mut Writer) {
    match (due.kind, due.id, message) {
        (Kind::Publish, id, Some((message, dup))) => message.packet(id, dup).emit(out),
        (kind @ (Kind::Subscribe | Kind::Unsubscribe), Some(id), Some((message, _))) => {
            let (filter, qos, rest) = (message.topic.as_ref(), message.qos, &[]);
            if kind == Kind::Unsubscribe {
                Unsubscribe { id, filter, rest }.emit(out);
            } else {
                Subscribe {
                    id,
                    filter,
                    qos,
                    rest,
                }
                .emit(out);
            }
        }
        (Kind::Publish | Kind::Subscribe | Kind::Unsubscribe, ..) => {}
        (kind, id, _) => Header::new(kind, 0).emit_packet(&[], id, &[], &[], out),
    }
}

/// What is left of the message, if these `left` bytes are payload, and more than the buffer should copy.
fn large_rest<B: AsRef<[u8]>>(
    message: Option<(&Message<B>, bool)>,
    left: usize,
    buffer: usize,
) -> &[u8] {
    let large = message.filter(|_| left >= buffer);
    let payload = large.map_or(&[][..], |(message, _)| message.payload.as_ref());
    // Nothing if these are more than the payload.
    let from = payload.len().wrapping_sub(left);
    payload.get(from..).unwrap_or_default()
}
