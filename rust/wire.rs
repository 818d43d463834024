//! The two buffers between packets and the socket.
//!
//! [`Outgoing`] is a queue of bytes that knows how much of it the socket has taken; a short write
//! keeps its place. [`Incoming`] reads ahead, many packets in one read.

use crate::{packet::Writer, time::Time};

/// Bytes on their way to the socket.
pub struct Outgoing<B> {
    buffer: B,
    head: usize,
    tail: usize,
    /// Bytes that sockets took, going round.
    written: u32,
    /// Value of `written` when there was nothing to send last.
    idle: u32,
    /// When the socket took a byte last.
    progress: Time,
}

impl<B: AsRef<[u8]> + AsMut<[u8]>> Outgoing<B> {
    pub const fn new(buffer: B) -> Self {
        Outgoing {
            buffer,
            head: 0,
            tail: 0,
            written: 0,
            idle: 0,
            progress: Time(0),
        }
    }

    /// Bytes it can hold.
    pub fn capacity(&self) -> usize {
        self.buffer.as_ref().len()
    }

    /// Has the socket taken all?
    pub fn is_empty(&self) -> bool {
        self.head == self.tail
    }

    /// Adds what `emit` writes, from the byte `skip` of the packet on; how many bytes fitted, and
    /// how many the packet has.
    pub fn append(&mut self, skip: usize, emit: impl FnOnce(&mut Writer)) -> (usize, usize) {
        if self.is_empty() && skip == 0 {
            self.idle = self.written;
        }
        let room = self.buffer.as_mut().get_mut(self.tail..);
        let mut writer = Writer::new(room.unwrap_or_default(), skip);
        emit(&mut writer);
        let written = writer.written();
        self.tail += written;
        (written, writer.total())
    }

    /// What is to be sent next.
    pub fn pending(&self) -> &[u8] {
        self.buffer
            .as_ref()
            .get(self.head..self.tail)
            .unwrap_or_default()
    }

    /// The socket took `n` bytes of what is pending.
    pub fn taken(&mut self, n: usize, now: Time) {
        self.head = self.tail.min(self.head + n);
        if self.is_empty() {
            (self.head, self.tail) = (0, 0);
        }
        self.count(n, now);
    }

    /// The socket took `n` bytes that did not go through the buffer.
    pub fn count(&mut self, n: usize, now: Time) {
        self.written = self.written.wrapping_add(n as u32);
        self.progress = now;
    }

    /// Drops what is pending.
    pub fn drop_pending(&mut self) {
        (self.head, self.tail) = (0, 0);
    }

    /// How many bytes sockets have taken, going round.
    pub fn written(&self) -> u32 {
        self.written
    }

    /// Has the socket taken nothing since there was nothing to send?
    pub fn is_untouched(&self) -> bool {
        self.written == self.idle
    }

    /// When the socket took a byte last.
    pub fn progress(&self) -> Time {
        self.progress
    }
}

/// Bytes from the socket that are not parsed yet.
pub struct Incoming<B> {
    buffer: B,
    head: usize,
    tail: usize,
}

impl<B: AsRef<[u8]> + AsMut<[u8]>> Incoming<B> {
    pub const fn new(buffer: B) -> Self {
        Incoming {
            buffer,
            head: 0,
            tail: 0,
        }
    }

    /// Bytes it can hold.
    pub fn capacity(&self) -> usize {
        self.buffer.as_ref().len()
    }

    /// Starts anew for another connection.
    pub fn reset(&mut self) {
        (self.head, self.tail) = (0, 0);
    }

    /// Is there no room to read into?
    pub fn is_full(&self) -> bool {
        self.tail - self.head >= self.capacity()
    }

    /// The bytes that are there.
    pub fn bytes(&self) -> &[u8] {
        self.buffer
            .as_ref()
            .get(self.head..self.tail)
            .unwrap_or_default()
    }

    /// The first `n` bytes, which are there, are done with.
    pub fn consume(&mut self, n: usize) {
        self.head += n;
        if self.head == self.tail {
            (self.head, self.tail) = (0, 0);
        }
    }

    /// Room for the socket to fill; empty only if all of the buffer waits to be parsed.
    pub fn room(&mut self) -> &mut [u8] {
        if self.head > 0
            && let Some(used) = self.buffer.as_mut().get_mut(..self.tail)
            && self.head <= used.len()
        {
            used.copy_within(self.head.., 0);
            (self.head, self.tail) = (0, self.tail - self.head);
        }
        self.buffer
            .as_mut()
            .get_mut(self.tail..)
            .unwrap_or_default()
    }

    /// The socket put `n` bytes there, for which there was room.
    pub fn filled(&mut self, n: usize) {
        self.tail += n;
    }

    /// Takes up to `n` bytes.
    pub fn take(&mut self, n: usize) -> &[u8] {
        let (from, n) = (self.head, n.min(self.tail - self.head));
        self.consume(n);
        self.buffer.as_ref().get(from..from + n).unwrap_or_default()
    }
}
