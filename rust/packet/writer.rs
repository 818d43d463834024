//! Writes packets into a buffer of any size.

/// Emits a packet from any byte of it on, into whatever room there is: bytes before `skip` and
/// bytes past the end of `out` are dropped, so that a packet larger than the buffer is sent in
/// several pieces.
#[derive(Debug)]
pub struct Writer<'a> {
    out: &'a mut [u8],
    skip: usize,
    len: usize,
}

impl<'a> Writer<'a> {
    /// A writer into `out` that leaves out the first `skip` bytes.
    pub fn new(out: &'a mut [u8], skip: usize) -> Writer<'a> {
        Writer { out, skip, len: 0 }
    }

    /// Bytes that went into the buffer.
    pub fn written(&self) -> usize {
        self.len.saturating_sub(self.skip).min(self.out.len())
    }

    /// Bytes of all that was written, with those that were dropped.
    pub fn total(&self) -> usize {
        self.len
    }

    /// Bytes that `emit` writes.
    pub(super) fn count(emit: impl FnOnce(&mut Writer)) -> usize {
        let mut counter = Writer::new(&mut [], 0);
        emit(&mut counter);
        counter.len
    }

    /// Writes `bytes`.
    pub fn put(&mut self, bytes: &[u8]) {
        let (from, to) = (
            self.skip.saturating_sub(self.len),
            self.len.saturating_sub(self.skip),
        );
        self.len += bytes.len();
        let (from, to) = (bytes.get(from..), self.out.get_mut(to..));
        copy(from.unwrap_or_default(), to.unwrap_or_default());
    }

    /// Writes one byte.
    pub fn put_u8(&mut self, value: u8) {
        // A byte to be skipped is beyond the end, too.
        if let Some(slot) = self.out.get_mut(self.len.wrapping_sub(self.skip)) {
            *slot = value;
        }
        self.len += 1;
    }

    /// Writes two bytes, the high one first (section 1.5.2).
    pub fn put_u16(&mut self, value: u16) {
        for byte in value.to_be_bytes() {
            self.put_u8(byte);
        }
    }

    /// Writes a 2-byte length and `text`, at most 65,535 bytes (section 1.5.3).
    pub fn put_text(&mut self, text: &[u8]) {
        self.put_u16(text.len() as u16);
        self.put(text);
    }
}

/// Copies as many bytes as there are and fit; how many that is.
pub fn copy(from: &[u8], to: &mut [u8]) -> usize {
    let n = from.len().min(to.len());
    if let (Some(from), Some(to)) = (from.get(..n), to.get_mut(..n)) {
        to.copy_from_slice(from);
    }
    n
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_part_of_what_is_written() {
        let whole = b"A\x01\x02\x00\x03xyz....";
        for skip in 0..15 {
            for room in 0..15 {
                let mut out = [0xEE; 16];
                let mut writer = Writer::new(&mut out[..room], skip);
                writer.put_u8(b'A');
                writer.put_u16(0x0102);
                writer.put_text(b"xyz");
                writer.put(b"");
                writer.put(b"....");
                let expected = &whole[skip.min(12)..(skip + room).min(12)];
                assert_eq!(writer.written(), expected.len());
                assert_eq!(&out[..expected.len()], expected);
                assert!(out[expected.len()..].iter().all(|byte| *byte == 0xEE));
            }
        }
    }
}
