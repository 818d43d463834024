//! Reads the fields of a packet's body, one after the other.

use super::{Malformed, PacketId, Result, packet_id};

/// What is left of a body. A field that runs past its end is [`Malformed::RemainingLength`].
#[derive(Clone, Copy)]
pub struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub fn new(body: &'a [u8]) -> Reader<'a> {
        Reader(body)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let (array, rest) = self
            .0
            .split_first_chunk()
            .ok_or(Malformed::RemainingLength)?;
        self.0 = rest;
        Ok(*array)
    }

    pub fn u8(&mut self) -> Result<u8> {
        self.array().map(u8::from_be_bytes)
    }

    pub fn u16(&mut self) -> Result<u16> {
        self.array().map(u16::from_be_bytes)
    }

    pub fn id(&mut self) -> Result<PacketId> {
        packet_id(self.array()?)
    }

    /// A 2-byte length and as many bytes (section 1.5.3).
    pub fn text(&mut self) -> Result<&'a [u8]> {
        let length = usize::from(self.u16()?);
        let (text, rest) = self
            .0
            .split_at_checked(length)
            .ok_or(Malformed::RemainingLength)?;
        self.0 = rest;
        Ok(text)
    }

    pub fn rest(&self) -> &'a [u8] {
        self.0
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn end(&self) -> Result<()> {
        if self.is_empty() {
            Ok(())
        } else {
            Err(Malformed::RemainingLength)
        }
    }
}
