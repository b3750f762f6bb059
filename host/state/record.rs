//! How an entity lies in memory: its key and the heads of all its cells in one string, since they are used together.
//!
//! A read of an entity is then one wait for memory, not one for each feature. Layout: the key (a length and its bytes),
//! then for each feature a tag and the head. The tag is twice the head's length; a head above `INLINE_BYTES` stands by
//! itself, so that one large state is not rewritten whenever another feature changes: its tag is 1, and its place
//! follows.

use crate::arena::Slice;

/// A head of at most so many bytes stands in the record.
pub(super) const INLINE_BYTES: usize = 256;

/// Where a head is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Head {
    /// In the bytes that were read, from `start` on.
    Inline { start: usize, len: u32 },
    /// A string of its own.
    Apart(Slice),
}

impl Head {
    /// No row yet.
    pub const EMPTY: Head = Head::Inline { start: 0, len: 0 };
}

const APART: u32 = 1;

#[inline]
pub(super) fn put_number(out: &mut Vec<u8>, mut number: u32) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// Reads a number at `at`, and moves on. The bytes are this program's own.
#[inline]
fn number(bytes: &[u8], at: &mut usize) -> u32 {
    let mut number = 0;
    let mut shift = 0;
    loop {
        let byte = bytes[*at];
        *at += 1;
        number |= u32::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return number;
        }
        shift += 7;
    }
}

/// Appends a record's first part, the key.
pub(super) fn put_key(out: &mut Vec<u8>, key: &[u8]) {
    put_number(out, key.len() as u32);
    out.extend_from_slice(key);
}

/// The key, and where the heads begin.
#[inline]
pub(super) fn key(record: &[u8]) -> (&[u8], usize) {
    let mut at = 0;
    let len = number(record, &mut at) as usize;
    (&record[at..at + len], at + len)
}

/// Appends a head that stands in the record.
#[inline]
pub(super) fn put_inline(out: &mut Vec<u8>, head: &[u8]) {
    put_number(out, (head.len() as u32) << 1);
    out.extend_from_slice(head);
}

/// Appends the place of a head that stands by itself.
pub(super) fn put_apart(out: &mut Vec<u8>, slice: Slice) {
    put_number(out, APART);
    out.extend_from_slice(&slice.to_bytes());
}

/// Reads the head at `at`, and moves on to the next.
#[inline]
pub(super) fn head(bytes: &[u8], at: &mut usize) -> Head {
    let tag = number(bytes, at);
    let start = *at;
    if tag == APART {
        let mut slice = [0; 8];
        *at += slice.len();
        slice.copy_from_slice(&bytes[start..*at]);
        return Head::Apart(Slice::from_bytes(slice));
    }
    *at += (tag >> 1) as usize;
    Head::Inline { start, len: tag >> 1 }
}
