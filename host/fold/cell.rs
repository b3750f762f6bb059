//! The state of one feature of one entity, as bytes: tiles, and merges of tiles kept at hand.
//!
//! In memory a cell is two byte strings, so that the usual row (it falls in the newest tile) reads and rewrites only
//! the short one:
//!
//! - **head**: the newest tile's state and `total`, the merge of all closed tiles;
//! - **tail**: every closed tile, and the two stacks (`front`, `back`) from which a new `total` is made in one merge
//!   when the oldest tile leaves.
//!
//! A checkpoint holds the *persisted* form: tiles alone. What is cached can be made again from them, and because an
//! aggregate's merge gives equal bytes however it is grouped (it is refused otherwise), never reaches a value.

use crate::window::Window;

/// A state inside a cell: bytes as the module encoded them, or the reason why the tile has none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stored {
    /// Where the bytes stand in the buffer that was parsed.
    pub start: usize,
    pub end: usize,
    /// The tile is `failed`: the bytes are the reason's text.
    pub failed: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StoredTile {
    pub index: i64,
    pub state: Stored,
}

/// What a head says. `oldest` equals `newest.index` when no tile is closed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Head {
    pub newest: StoredTile,
    pub oldest: i64,
    pub total: Option<Stored>,
}

/// Bytes that are no cell. They come from memory or from a checksummed file, so this is a fault of ours or the disk's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the stored state of a feature is damaged at byte {at}: restore an older checkpoint or rebuild the view")]
pub struct DamagedCell {
    pub at: usize,
}

/// Reads cell bytes front to back. All positions it returns are absolute in the buffer it was given.
pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    end: usize,
}

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8], start: usize, end: usize) -> Reader<'a> {
        Reader { bytes, at: start, end: end.min(bytes.len()) }
    }

    fn damaged(&self) -> DamagedCell {
        DamagedCell { at: self.at }
    }

    #[inline]
    pub fn varint(&mut self) -> Result<u64, DamagedCell> {
        let mut value = 0u64;
        let mut shift = 0;
        while self.at < self.end && shift < 64 {
            let byte = self.bytes[self.at];
            self.at += 1;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
            shift += 7;
        }
        Err(self.damaged())
    }

    #[inline]
    pub fn zigzag(&mut self) -> Result<i64, DamagedCell> {
        let value = self.varint()?;
        Ok((value >> 1) as i64 ^ -((value & 1) as i64))
    }

    #[inline]
    pub fn take(&mut self, len: u64) -> Result<(usize, usize), DamagedCell> {
        let start = self.at;
        let end = usize::try_from(len).ok().and_then(|len| start.checked_add(len)).filter(|end| *end <= self.end);
        self.at = end.ok_or(self.damaged())?;
        Ok((start, self.at))
    }

    #[inline]
    pub fn stored(&mut self) -> Result<Stored, DamagedCell> {
        let tag = self.varint()?;
        let (start, end) = self.take(tag >> 1)?;
        Ok(Stored { start, end, failed: tag & 1 == 1 })
    }

    fn optional(&mut self) -> Result<Option<Stored>, DamagedCell> {
        match self.varint()? {
            0 => Ok(None),
            len => {
                let (start, end) = self.take(len - 1)?;
                Ok(Some(Stored { start, end, failed: false }))
            }
        }
    }

    fn tiles(&mut self, mut take: impl FnMut(StoredTile)) -> Result<(), DamagedCell> {
        let count = self.varint()?;
        let mut index = 0i64;
        for _ in 0..count {
            index = index.wrapping_add(self.zigzag()?);
            take(StoredTile { index, state: self.stored()? });
        }
        Ok(())
    }
}

#[inline]
pub(crate) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

#[inline]
pub(crate) fn put_zigzag(out: &mut Vec<u8>, value: i64) {
    put_varint(out, ((value << 1) ^ (value >> 63)) as u64);
}

#[inline]
pub(crate) fn put_stored(out: &mut Vec<u8>, bytes: &[u8], failed: bool) {
    put_varint(out, (bytes.len() as u64) << 1 | u64::from(failed));
    out.extend_from_slice(bytes);
}

fn put_optional(out: &mut Vec<u8>, bytes: Option<&[u8]>) {
    match bytes {
        None => out.push(0),
        Some(bytes) => {
            put_varint(out, bytes.len() as u64 + 1);
            out.extend_from_slice(bytes);
        }
    }
}

/// Writes a list of tiles: the count, then for each the distance to the one before and its state.
pub(crate) fn put_tiles<'a>(out: &mut Vec<u8>, count: usize, tiles: impl Iterator<Item = (i64, &'a [u8], bool)>) {
    put_varint(out, count as u64);
    let mut before = 0i64;
    for (index, bytes, failed) in tiles {
        put_zigzag(out, index.wrapping_sub(before));
        put_stored(out, bytes, failed);
        before = index;
    }
}

#[inline]
pub(crate) fn put_head(out: &mut Vec<u8>, newest: i64, state: &[u8], failed: bool, oldest: i64, total: Option<&[u8]>) {
    put_zigzag(out, newest);
    put_varint(out, newest.wrapping_sub(oldest) as u64);
    put_optional(out, total);
    put_stored(out, state, failed);
}

/// Reads the head that stands at `start..end` of `bytes`.
#[inline]
pub(crate) fn read_head(bytes: &[u8], start: usize, end: usize) -> Result<Head, DamagedCell> {
    let mut reader = Reader::new(bytes, start, end);
    let index = reader.zigzag()?;
    let oldest = index.wrapping_sub(reader.varint()? as i64);
    let total = reader.optional()?;
    Ok(Head { newest: StoredTile { index, state: reader.stored()? }, oldest, total })
}

/// Writes a tail; `front` and `back` as in [`Tail`].
pub(crate) fn put_tail<'a>(
    out: &mut Vec<u8>,
    closed: (usize, impl Iterator<Item = (i64, &'a [u8], bool)>),
    front: (usize, impl Iterator<Item = (i64, &'a [u8], bool)>),
    back: Option<&[u8]>,
) {
    put_tiles(out, closed.0, closed.1);
    put_tiles(out, front.0, front.1);
    put_optional(out, back);
}

/// What a tail says: all closed tiles, oldest first; `front`: for each tile up to a boundary the merge of it and all
/// later tiles up to that boundary; `back`: the merge of the closed tiles after the boundary.
pub(crate) fn read_tail(
    bytes: &[u8],
    start: usize,
    end: usize,
    closed: impl FnMut(StoredTile),
    front: impl FnMut(StoredTile),
) -> Result<Option<Stored>, DamagedCell> {
    if start == end {
        return Ok(None);
    }
    let mut reader = Reader::new(bytes, start, end);
    reader.tiles(closed)?;
    reader.tiles(front)?;
    reader.optional()
}

/// Writes the persisted form (tiles alone) of a cell. An empty head (no row yet) persists as no bytes.
pub fn persist(window: &Window, head: &[u8], tail: &[u8], out: &mut Vec<u8>) -> Result<(), DamagedCell> {
    if head.is_empty() {
        return Ok(());
    }
    if matches!(window, Window::Unbounded) {
        out.extend_from_slice(head);
        return Ok(());
    }
    let newest = read_head(head, 0, head.len())?.newest;
    let mut closed = Vec::new();
    read_tail(tail, 0, tail.len(), |tile| closed.push(tile), |_| {})?;
    let tiles = closed
        .iter()
        .map(|tile| (tile, tail))
        .chain([(&newest, head)])
        .map(|(tile, bytes)| (tile.index, &bytes[tile.state.start..tile.state.end], tile.state.failed));
    put_tiles(out, closed.len() + 1, tiles);
    Ok(())
}

/// Reads the persisted form back into a head and a tail without cached merges; the inverse of [`persist`].
pub fn restore(window: &Window, persisted: &[u8], head: &mut Vec<u8>, tail: &mut Vec<u8>) -> Result<(), DamagedCell> {
    if persisted.is_empty() {
        return Ok(());
    }
    if matches!(window, Window::Unbounded) {
        Reader::new(persisted, 0, persisted.len()).stored()?;
        head.extend_from_slice(persisted);
        return Ok(());
    }
    let mut tiles = Vec::new();
    Reader::new(persisted, 0, persisted.len()).tiles(|tile| tiles.push(tile))?;
    let Some((newest, closed)) = tiles.split_last() else {
        return Err(DamagedCell { at: 0 });
    };
    let bytes = |tile: &StoredTile| &persisted[tile.state.start..tile.state.end];
    let oldest = closed.first().unwrap_or(newest).index;
    put_head(head, newest.index, bytes(newest), newest.state.failed, oldest, None);
    if !closed.is_empty() {
        let closed_tiles = closed.iter().map(|tile| (tile.index, bytes(tile), tile.state.failed));
        put_tail(tail, (closed.len(), closed_tiles), (0, std::iter::empty()), None);
    }
    Ok(())
}

/// A tile of a persisted cell: index, state bytes (of a failed tile its reason), failed.
pub type PersistedTile<'a> = (i64, &'a [u8], bool);

/// The tiles of a persisted cell, for people and checks: index, state bytes, failed.
pub fn persisted_tiles<'a>(window: &Window, persisted: &'a [u8]) -> Result<Vec<PersistedTile<'a>>, DamagedCell> {
    if persisted.is_empty() {
        return Ok(Vec::new());
    }
    let mut reader = Reader::new(persisted, 0, persisted.len());
    let mut tiles = Vec::new();
    if matches!(window, Window::Unbounded) {
        tiles.push(StoredTile { index: 0, state: reader.stored()? });
    } else {
        reader.tiles(|tile| tiles.push(tile))?;
    }
    Ok(tiles.iter().map(|tile| (tile.index, &persisted[tile.state.start..tile.state.end], tile.state.failed)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4096))]

        /// A checkpoint's cell is tiles or damaged, whatever its bytes; what can be restored persists as it was read.
        #[test]
        fn outside_bytes_are_a_cell_or_damaged(
            mut bytes in prop::collection::vec(prop_oneof![0u8..6, any::<u8>()], 0..40),
            tiles in prop::collection::vec((-3i64..300, prop::collection::vec(any::<u8>(), 0..4), any::<bool>()), 0..4),
            valid: bool,
            at in any::<prop::sample::Index>(),
            bit in 0u8..8,
        ) {
            if valid {
                bytes.clear();
                put_tiles(&mut bytes, tiles.len(), tiles.iter().map(|(index, state, failed)| (*index, &state[..], *failed)));
                let at = at.index(bytes.len());
                bytes[at] ^= 1 << bit;
            }
            for window in [Window::Unbounded, Window::Tumbling { size_us: 1000, closed: false, align_us: 0 }] {
                let (mut head, mut tail) = (Vec::new(), Vec::new());
                if restore(&window, &bytes, &mut head, &mut tail).is_ok() {
                    let mut again = Vec::new();
                    prop_assert!(persist(&window, &head, &tail, &mut again).is_ok());
                    let read = persisted_tiles(&window, &bytes);
                    prop_assert_eq!(read.map(|tiles| tiles.len()), persisted_tiles(&window, &again).map(|tiles| tiles.len()));
                }
                let _ = persisted_tiles(&window, &bytes);
                let _ = read_head(&bytes, 0, bytes.len());
                let _ = read_tail(&bytes, 0, bytes.len(), |_| {}, |_| {});
            }
        }
    }
}
