//! The engine's memory, which is the C side's: buffers beside the client, lists and messages on the
//! C side's heap.

use core::{
    mem,
    ptr::{self, NonNull},
    slice,
};

use cty::c_void;

use super::{
    Bytes, Node, Object, umqtt_port_grow, umqtt_port_message_free, umqtt_port_message_new,
};
use crate::{
    config::{RX_BUFFER, TX_BUFFER},
    memory::{Inbox, List, Memory, Tag},
    session::{Received, Request},
};

/// `N` bytes inside the engine's memory.
pub struct Buffer<const N: usize>(pub *mut u8);

impl<const N: usize> AsRef<[u8]> for Buffer<N> {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: `umqtt_init` made it from an array that lies beside the client and is used by
        // nothing else.
        unsafe { slice::from_raw_parts(self.0, N) }
    }
}

impl<const N: usize> AsMut<[u8]> for Buffer<N> {
    fn as_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above.
        unsafe { slice::from_raw_parts_mut(self.0, N) }
    }
}

/// A list on the C side's heap.
pub struct HeapList<T> {
    /// Dangling while there is no room for an entry.
    data: NonNull<T>,
    len: u16,
    capacity: u16,
}

impl<T> HeapList<T> {
    pub const fn new() -> Self {
        HeapList {
            data: NonNull::dangling(),
            len: 0,
            capacity: 0,
        }
    }
}

/// Gives the list a block with some more room than this; how much that is. The same for lists of
/// anything.
fn grow(list: *mut *mut c_void, capacity: u16, room: usize, size: usize) -> Option<u16> {
    let most = usize::from(u16::MAX);
    let new = u16::try_from((room + room / 4).min(most).max(room)).ok()?;
    port!(umqtt_port_grow(
        list,
        usize::from(capacity) * size,
        usize::from(new) * size
    ))
    .then_some(new)
}

impl<T> List<T> for HeapList<T> {
    fn entries(&self) -> &[T] {
        // SAFETY: `grow` gave room for `capacity` entries, and `push` wrote the first `len`.
        unsafe { slice::from_raw_parts(self.data.as_ptr(), usize::from(self.len)) }
    }

    fn entries_mut(&mut self) -> &mut [T] {
        // SAFETY: as above.
        unsafe { slice::from_raw_parts_mut(self.data.as_ptr(), usize::from(self.len)) }
    }

    fn reserve(&mut self, room: usize) -> bool {
        if room > usize::from(self.capacity) {
            let list = (&raw mut self.data).cast();
            match grow(list, self.capacity, room, mem::size_of::<T>()) {
                Some(capacity) => self.capacity = capacity,
                None => return false,
            }
        }
        true
    }

    fn push(&mut self, entry: T) -> Result<(), T> {
        if !self.reserve(usize::from(self.len) + 1) {
            return Err(entry);
        }
        // SAFETY: `len` is less than `capacity`.
        unsafe { self.data.as_ptr().add(usize::from(self.len)).write(entry) };
        self.len += 1;
        Ok(())
    }

    fn clear(&mut self) {
        // The entries need no dropping, and the collector need not see them any more.
        self.data = NonNull::dangling();
        (self.len, self.capacity) = (0, 0);
    }
}

/// The inbox: messages that the C side made, linked.
pub struct Messages {
    owner: *mut Object,
    pub first: *mut Node,
    last: *mut Node,
}

impl Messages {
    pub const fn new(owner: *mut Object) -> Self {
        Messages {
            owner,
            first: ptr::null_mut(),
            last: ptr::null_mut(),
        }
    }

    fn last(&mut self) -> Option<&mut Node> {
        // SAFETY: messages stay until `message_free`, and the engine's lock makes us the only one.
        unsafe { self.last.as_mut() }
    }

    fn first(&self) -> Option<&Node> {
        // SAFETY: as above.
        unsafe { self.first.as_ref() }
    }

    /// Cuts the queue off behind `node` (null: all of it).
    fn cut(&mut self, node: *mut Node) {
        // SAFETY: as above.
        let mut rest = match unsafe { node.as_mut() } {
            Some(node) => mem::replace(&mut node.next, ptr::null_mut()),
            None => mem::replace(&mut self.first, ptr::null_mut()),
        };
        self.last = node;
        while !rest.is_null() {
            // SAFETY: as above.
            let next = unsafe { (*rest).next };
            port!(umqtt_port_message_free(self.owner, rest));
            rest = next;
        }
    }
}

impl Inbox for Messages {
    fn begin(&mut self, topic: usize, known: Option<&[u8]>, payload: usize) -> bool {
        let topic = Bytes {
            data: known.map_or(ptr::null(), <[u8]>::as_ptr),
            len: topic,
        };
        let owner = self.owner;
        let link: *mut *mut Node = match self.last() {
            Some(last) => &raw mut last.next,
            None => &raw mut self.first,
        };
        let node = port!(umqtt_port_message_new(owner, link, topic, payload));
        if node.is_null() {
            return false;
        }
        self.last = node;
        true
    }

    fn topic(&mut self) -> &mut [u8] {
        // SAFETY: `message_new` gave this room.
        self.last().map_or(&mut [], |m| unsafe {
            slice::from_raw_parts_mut(m.topic_data, m.topic_len)
        })
    }

    fn payload(&mut self) -> &mut [u8] {
        // SAFETY: as above.
        self.last().map_or(&mut [], |m| unsafe {
            slice::from_raw_parts_mut(m.payload_data, m.payload_len)
        })
    }

    fn finish(&mut self, tag: Tag) {
        if let Some(message) = self.last() {
            (message.tag, message.whole) = (tag, true);
        }
    }

    fn abandon(&mut self) {
        let mut before = ptr::null_mut();
        let mut node = self.first;
        while node != self.last {
            before = node;
            // SAFETY: `last` is in the queue, so this is not the end of it.
            node = unsafe { (*node).next };
        }
        self.cut(before);
    }

    fn first(&self) -> Option<&Tag> {
        self.first()
            .filter(|message| message.whole)
            .map(|message| &message.tag)
    }

    fn pop(&mut self) {
        let Some(message) = self.first() else { return };
        let next = message.next;
        let node = mem::replace(&mut self.first, next);
        if next.is_null() {
            self.last = ptr::null_mut();
        }
        port!(umqtt_port_message_free(self.owner, node));
    }

    fn keep(&mut self, n: usize) {
        self.cut(if n == 0 { ptr::null_mut() } else { self.first });
    }
}

/// The engine's memory is the C side's.
pub enum Heap {}

impl Memory for Heap {
    type Bytes = Bytes;
    type ReceiveBuffer = Buffer<RX_BUFFER>;
    type TransmitBuffer = Buffer<TX_BUFFER>;
    type Received = HeapList<Received>;
    type Requests = HeapList<Option<Request<Bytes>>>;
    type Inbox = Messages;
}
