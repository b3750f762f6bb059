//! Raw records side by side in one buffer.

use bytes::Bytes;

/// Raw records in order: their bytes without gaps, and where each ends. Cloning copies no record.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Records {
    bytes: Bytes,
    ends: Vec<u32>,
    /// Where the first record begins: behind 0 when earlier ones were skipped.
    start: u32,
}

impl Records {
    /// Copies records together; `None` when they are 4 GiB or more.
    pub fn from_slices<'a>(slices: impl IntoIterator<Item = &'a [u8]>) -> Option<Records> {
        let mut bytes = Vec::new();
        let mut ends = Vec::new();
        for slice in slices {
            bytes.extend_from_slice(slice);
            ends.push(u32::try_from(bytes.len()).ok()?);
        }
        Some(Records { bytes: bytes.into(), ends, start: 0 })
    }

    /// Records whose ends were read from somewhere; `None` unless they ascend to just the end of the bytes.
    pub(super) fn from_parts(bytes: Bytes, ends: Vec<u32>) -> Option<Records> {
        let ascending = ends.is_sorted() && ends.last().copied().unwrap_or(0) as usize == bytes.len();
        ascending.then_some(Records { bytes, ends, start: 0 })
    }

    pub fn len(&self) -> usize {
        self.ends.len()
    }

    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The records' own bytes together.
    pub fn bytes(&self) -> &[u8] {
        self.bytes.get(self.start as usize..).unwrap_or_default()
    }

    pub fn get(&self, number: usize) -> Option<&[u8]> {
        let end = *self.ends.get(number)?;
        let start = number.checked_sub(1).map_or(Some(self.start), |before| self.ends.get(before).copied())?;
        self.bytes.get(start as usize..end as usize)
    }

    pub fn iter(&self) -> impl Iterator<Item = &[u8]> + Clone {
        (0..self.len()).map(|number| self.get(number).unwrap_or_default())
    }

    /// Where each record ends, from the beginning of `bytes()`.
    pub(super) fn ends(&self) -> impl Iterator<Item = u32> + '_ {
        self.ends.iter().map(|end| end - self.start)
    }

    /// Drops the first records.
    pub fn skip(&mut self, count: usize) {
        if let Some(last) = count.checked_sub(1) {
            self.start = self.ends.get(last).or(self.ends.last()).copied().unwrap_or(self.start);
            self.ends.drain(..count.min(self.ends.len()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn skipped_records_are_gone_and_the_others_stay() {
        let mut records = Records::from_slices([&b"one"[..], b"", b"three"]).unwrap();
        assert_eq!(records.iter().collect::<Vec<_>>(), [&b"one"[..], b"", b"three"]);
        records.skip(1);
        assert_eq!(records.iter().collect::<Vec<_>>(), [&b""[..], b"three"]);
        assert_eq!(records.bytes(), b"three");
        assert_eq!(records.ends().collect::<Vec<_>>(), [0, 5]);
        records.skip(5);
        assert!(records.is_empty() && records.bytes().is_empty());
    }
}
