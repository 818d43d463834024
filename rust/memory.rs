//! What the engine asks of the memory it runs in: growable lists, and the inbox in which
//! incoming messages are put together.
//!
//! The engine allocates nothing itself. A firmware without a heap can give it `heapless` vectors;
//! under MicroPython the lists and the messages lie on the garbage-collected heap.

use core::num::NonZeroU16;

use crate::{
    packet::QoS,
    session::{Received, Request},
};

/// The types in which a client keeps what is not of a fixed size.
pub trait Memory {
    /// A topic, a payload or another text that the script gave us, kept alive while we hold it. The
    /// default is an empty one.
    type Bytes: AsRef<[u8]> + Clone + Default;
    /// A block of bytes of a fixed size, to read ahead into.
    type ReceiveBuffer: AsRef<[u8]> + AsMut<[u8]>;
    /// A block of bytes of a fixed size, in which packets are put together.
    type TransmitBuffer: AsRef<[u8]> + AsMut<[u8]>;
    /// Identifiers of incoming QoS 2 messages that are not released yet.
    type Received: List<Received>;
    /// Messages in flight and subscriptions.
    type Requests: List<Option<Request<Self::Bytes>>>;
    /// Incoming messages.
    type Inbox: Inbox;
}

/// A list that grows as far as the memory goes. Its entries stay where they are: a collector may
/// look at them while we work.
pub trait List<T> {
    /// The entries.
    fn entries(&self) -> &[T];
    /// The entries, to change.
    fn entries_mut(&mut self) -> &mut [T];
    /// Makes room for so many in all. `false`: there is no memory.
    fn reserve(&mut self, room: usize) -> bool;
    /// Adds one; gives it back when there is no memory.
    fn push(&mut self, entry: T) -> Result<(), T>;
    /// Lets all go.
    fn clear(&mut self);
}

impl<T, const N: usize> List<T> for heapless::Vec<T, N> {
    fn entries(&self) -> &[T] {
        self
    }

    fn entries_mut(&mut self) -> &mut [T] {
        self
    }

    fn reserve(&mut self, room: usize) -> bool {
        room <= N
    }

    fn push(&mut self, entry: T) -> Result<(), T> {
        self.push(entry)
    }

    fn clear(&mut self) {
        self.clear();
    }
}

/// What the engine has to know of a message when it has been handled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Tag {
    /// Packet identifier, by the name that cbindgen knows; `None` with QoS 0.
    pub id: Option<NonZeroU16>,
    /// Quality of service.
    pub qos: QoS,
    /// The connection it came over: an acknowledgement on another one would be a stranger's.
    pub link: u8,
    /// Remaining length of its packet (section 2.2.3).
    pub size: u32,
}

/// Bytes of memory that a message takes, about; `size` as in [`Tag`].
pub(crate) const fn cost(size: u32) -> u32 {
    size + 64
}

/// A queue of incoming messages. The newest may still be incomplete; the oldest is handed to the
/// script, and leaves when it has been handled.
pub trait Inbox {
    /// Adds a message of these lengths to the end. `known`: its topic, if all of it is there, for an
    /// inbox that keeps equal ones once. `false`: there is no memory for it.
    fn begin(&mut self, topic: usize, known: Option<&[u8]>, payload: usize) -> bool;
    /// Topic of the message that was begun, to fill in.
    fn topic(&mut self) -> &mut [u8];
    /// Payload of the message that was begun, to fill in.
    fn payload(&mut self) -> &mut [u8];
    /// The message that was begun is whole.
    fn finish(&mut self, tag: Tag);
    /// The message that was begun will never be whole.
    fn abandon(&mut self);
    /// The oldest message, if it is whole.
    fn first(&self) -> Option<&Tag>;
    /// Lets the oldest message go.
    fn pop(&mut self);
    /// Lets all but the `n` oldest go; `n` is 0 or 1.
    fn keep(&mut self, n: usize);
}
