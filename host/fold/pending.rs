//! The rows of an ordered aggregate that may still get company before them: they wait, in canonical order.
//!
//! A value is what is settled with the waiting rows folded on top, on a copy. So that a long list is not folded anew
//! for each value, the cell as it stands after some of its rows is kept at hand, and let go of when a row comes before.

use crate::cell::{self, DamagedCell, Reader, put_varint, put_zigzag};
use crate::order::time_of;
use crate::window::Window;
use std::ops::Range;

/// What is kept at hand of one cell.
const MOST_SNAPSHOTS: usize = 16;
/// What a waiting row costs beside its bytes.
const ROW_BYTES: usize = size_of::<PendingRow>() + 16;

/// A waiting row. Rows of one order are interchangeable; so that stored bytes do not depend on which came first, their
/// places are compared last.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PendingRow {
    /// Event time and inputs, as [`RowOrder`](crate::RowOrder) writes them.
    pub order: Box<[u8]>,
    pub place: RowPlace,
}

/// Where a row came from, for whom it concerns should it be refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RowPlace {
    /// In its source's log; of a row of a file none.
    pub position: Option<u64>,
    /// Which of the rows that transforms made of the record.
    pub sub_row: u32,
    pub arrival_us: i64,
}

/// The waiting rows of one cell.
#[derive(Clone, Debug, Default)]
pub struct Pending {
    rows: Vec<PendingRow>,
    /// Ascending by `rows`.
    snapshots: Vec<Snapshot>,
    bytes: usize,
}

/// Head and tail of a cell.
pub type CellBytes<'a> = (&'a [u8], &'a [u8]);

/// The cell after so many of the waiting rows.
#[derive(Clone, Debug)]
struct Snapshot {
    rows: usize,
    head: Vec<u8>,
    tail: Vec<u8>,
}

impl PendingRow {
    pub fn event_time_us(&self) -> i64 {
        time_of(&self.order)
    }
}

impl Pending {
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// What it costs in memory.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// In canonical order.
    pub fn rows(&self) -> &[PendingRow] {
        &self.rows
    }

    /// Takes a row in at its place.
    pub fn insert(&mut self, row: PendingRow) {
        let at = self.rows.partition_point(|other| *other <= row);
        self.forget_after(at);
        self.bytes += ROW_BYTES + row.order.len();
        self.rows.insert(at, row);
    }

    /// Takes out the rows at these places, ascending; they are returned in that order.
    pub fn remove(&mut self, places: &[usize]) -> Vec<PendingRow> {
        let Some(first) = places.first() else { return Vec::new() };
        self.forget_after(*first);
        let (mut kept, mut removed) = (Vec::with_capacity(self.rows.len()), Vec::new());
        for (at, row) in self.rows.drain(..).enumerate() {
            match places.binary_search(&at) {
                Ok(_) => {
                    self.bytes -= ROW_BYTES + row.order.len();
                    removed.push(row);
                }
                Err(_) => kept.push(row),
            }
        }
        self.rows = kept;
        removed
    }

    /// How many rows are not after this instant.
    pub fn until(&self, settled_us: i64) -> usize {
        self.rows.partition_point(|row| row.event_time_us() <= settled_us)
    }

    /// Lets go of the first rows: they are in the cell itself now.
    pub fn settled(&mut self, count: usize) {
        for row in self.rows.drain(..count) {
            self.bytes -= ROW_BYTES + row.order.len();
        }
        let snapshots = std::mem::take(&mut self.snapshots);
        for mut snapshot in snapshots {
            if snapshot.rows > count {
                snapshot.rows -= count;
                self.snapshots.push(snapshot);
            } else {
                self.bytes -= snapshot.bytes();
            }
        }
    }

    /// Keeps the cell after the first rows at hand.
    pub fn keep(&mut self, rows: usize, head: Vec<u8>, tail: Vec<u8>) {
        self.forget_after(rows.saturating_sub(1));
        if self.snapshots.len() == MOST_SNAPSHOTS {
            self.bytes -= self.snapshots.remove(0).bytes();
        }
        let snapshot = Snapshot { rows, head, tail };
        self.bytes += snapshot.bytes();
        self.snapshots.push(snapshot);
    }

    /// The nearest cell at hand for the first `end` rows: how many are in it, and it; none but the settled one.
    pub fn at_hand(&self, end: usize) -> (usize, Option<CellBytes<'_>>) {
        let nearest = self.snapshots.iter().rev().find(|snapshot| snapshot.rows <= end);
        nearest.map_or((0, None), |snapshot| (snapshot.rows, Some((&snapshot.head[..], &snapshot.tail[..]))))
    }

    /// The bytes of some of its rows.
    pub fn orders(&self, rows: Range<usize>) -> impl Iterator<Item = &[u8]> {
        self.rows[rows].iter().map(|row| &row.order[..])
    }

    /// Lets go of what is at hand of more than these rows.
    fn forget_after(&mut self, rows: usize) {
        while let Some(last) = self.snapshots.pop_if(|snapshot| snapshot.rows > rows) {
            self.bytes -= last.bytes();
        }
    }
}

impl Snapshot {
    fn bytes(&self) -> usize {
        size_of::<Snapshot>() + self.head.len() + self.tail.len()
    }
}

/// Writes the persisted form of an ordered feature's cell: the settled tiles behind their length, then the waiting rows.
pub fn persist_ordered(
    window: &Window,
    head: &[u8],
    tail: &[u8],
    pending: &[PendingRow],
    out: &mut Vec<u8>,
) -> Result<(), DamagedCell> {
    if head.is_empty() && pending.is_empty() {
        return Ok(());
    }
    let mut settled = Vec::new();
    cell::persist(window, head, tail, &mut settled)?;
    put_varint(out, settled.len() as u64);
    out.extend_from_slice(&settled);
    put_varint(out, pending.len() as u64);
    for row in pending {
        put_varint(out, row.order.len() as u64);
        out.extend_from_slice(&row.order);
        put_varint(out, row.place.position.map_or(0, |position| position.saturating_add(1)));
        put_varint(out, u64::from(row.place.sub_row));
        put_zigzag(out, row.place.arrival_us);
    }
    Ok(())
}

/// Reads the persisted form back; the inverse of [`persist_ordered`].
pub fn restore_ordered(
    window: &Window,
    persisted: &[u8],
    head: &mut Vec<u8>,
    tail: &mut Vec<u8>,
) -> Result<Pending, DamagedCell> {
    let mut pending = Pending::default();
    if persisted.is_empty() {
        return Ok(pending);
    }
    let mut reader = Reader::new(persisted, 0, persisted.len());
    let length = reader.varint()?;
    let (start, end) = reader.take(length)?;
    cell::restore(window, &persisted[start..end], head, tail)?;
    for _ in 0..reader.varint()? {
        let length = reader.varint()?;
        let (start, end) = reader.take(length)?;
        let damaged = DamagedCell { at: start };
        let position = reader.varint()?.checked_sub(1);
        let sub_row = u32::try_from(reader.varint()?).map_err(|_| damaged.clone())?;
        let place = RowPlace { position, sub_row, arrival_us: reader.zigzag()? };
        let row = PendingRow { order: persisted[start..end].into(), place };
        if row.order.len() < 8 || pending.rows.last().is_some_and(|last| *last > row) {
            return Err(damaged);
        }
        pending.bytes += ROW_BYTES + row.order.len();
        pending.rows.push(row);
    }
    Ok(pending)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::order::RowOrder;
    use proptest::prelude::*;

    fn row(time_us: i64, position: u64) -> PendingRow {
        let mut order = Vec::new();
        RowOrder::of(&[]).unwrap().put(time_us, 0, &mut order);
        let place = RowPlace { position: Some(position), sub_row: 0, arrival_us: time_us };
        PendingRow { order: order.into(), place }
    }

    #[test]
    fn what_is_at_hand_goes_when_a_row_comes_before() {
        let mut pending = Pending::default();
        let empty = pending.bytes();
        (0..10).for_each(|number| pending.insert(row(number * 10, number as u64)));
        pending.keep(4, vec![4], vec![]);
        pending.keep(8, vec![8], vec![]);
        assert_eq!(pending.at_hand(10), (8, Some((&[8][..], &[][..]))));
        assert_eq!(pending.at_hand(7).0, 4);
        // Behind the rows that are in both: nothing goes.
        pending.insert(row(75, 10));
        assert_eq!(pending.at_hand(11).0, 8);
        pending.insert(row(35, 11));
        assert_eq!(pending.at_hand(12).0, 4);
        pending.settled(3);
        assert_eq!(pending.at_hand(9), (1, Some((&[4][..], &[][..]))));
        assert_eq!(pending.remove(&[0]).len(), 1);
        assert_eq!(pending.at_hand(8), (0, None));
        pending.settled(8);
        assert_eq!((pending.len(), pending.bytes()), (0, empty));
    }

    proptest! {
        /// Also guards: rows of a damaged file that were taken for rows.
        #[test]
        fn a_stored_cell_is_read_as_it_was_or_damaged(
            times in prop::collection::vec(-5i64..5, 0..6), at in any::<prop::sample::Index>(), bit in 0u8..8
        ) {
            let mut pending = Pending::default();
            times.iter().enumerate().for_each(|(number, time_us)| pending.insert(row(*time_us, number as u64)));
            let mut head = Vec::new();
            cell::put_stored(&mut head, b"state", false);
            let mut bytes = Vec::new();
            persist_ordered(&Window::Unbounded, &head, &[], pending.rows(), &mut bytes).unwrap();
            let (mut head_back, mut tail_back) = (Vec::new(), Vec::new());
            let back = restore_ordered(&Window::Unbounded, &bytes, &mut head_back, &mut tail_back).unwrap();
            prop_assert_eq!(back.rows(), pending.rows());
            prop_assert_eq!(back.bytes(), pending.bytes());
            prop_assert_eq!(&head_back, &head);
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            let _ = restore_ordered(&Window::Unbounded, &bytes, &mut head_back, &mut tail_back);
        }
    }
}
