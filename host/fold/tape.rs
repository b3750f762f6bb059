//! The tape being written: operations on slots whose numbers are not known yet.
//!
//! The contract wants slots in a fixed order (first those whose states go out, then those that are only read, then
//! scratch), but which is which is known only when the last operation has been written. So operations name
//! provisional slots, and `finish` numbers them in one pass.
//!
//! A state that a value is made from has a limit of its own, so it goes out as well, to be measured: the slot itself
//! where nothing writes to it afterwards, else a copy from before the write. One that is emitted as it was loaded has
//! been measured.

use crate::call::{Folded, op};
use std::collections::BTreeSet;

/// A provisional slot.
pub(crate) type SlotId = u32;

/// No state that a value was made from shows the slot as it stands.
const NOT_SEEN: u32 = u32::MAX;

/// What an operation of the tape is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    Update { cell: u32, tile: i64, row: u32 },
    Cache { cell: u32 },
    Probe { cell: u32, nth: u32 },
}

#[derive(Clone, Copy)]
struct Slot {
    /// The encoded state it starts from, as a range of the job's bytes; empty = new.
    start: usize,
    end: usize,
    keep: bool,
    measure: bool,
    /// An operation has written to it.
    written: bool,
    /// Which of `emitted` it stands for, until it is written to.
    seen: u32,
    number: u32,
}

/// A state that a value was made from.
#[derive(Clone, Copy)]
struct Emitted {
    /// Where it can be measured after the call; none where its size is known.
    slot: Option<SlotId>,
    /// The size of a state that was emitted as it was loaded.
    loaded_bytes: usize,
    origin: Origin,
}

pub(crate) struct Tape {
    slots: Vec<Slot>,
    /// Pairs (op | provisional slot << 3, operand); after `finish` with real numbers.
    words: Vec<u32>,
    emitted: Vec<Emitted>,
    /// For each emit, the state it was made from.
    emits: Vec<u32>,
    keep: u32,
    measure: u32,
    state_offsets: Vec<u32>,
    state_data: Vec<u8>,
    /// What the operations that are written now are for.
    pub origin: Origin,
    /// What each operation is for, where that is noted.
    pub origins: Option<Vec<Origin>>,
}

impl Default for Tape {
    fn default() -> Tape {
        Tape {
            slots: Vec::new(),
            words: Vec::new(),
            emitted: Vec::new(),
            emits: Vec::new(),
            keep: 0,
            measure: 0,
            state_offsets: Vec::new(),
            state_data: Vec::new(),
            origin: Origin::Cache { cell: 0 },
            origins: None,
        }
    }
}

impl Tape {
    pub fn clear(&mut self) {
        self.slots.clear();
        self.words.clear();
        self.emitted.clear();
        self.emits.clear();
        self.keep = 0;
        self.measure = 0;
        if let Some(origins) = &mut self.origins {
            origins.clear();
        }
    }

    /// A slot that starts from the encoded state at this range of the job's bytes (an empty range: new).
    #[inline]
    pub fn load(&mut self, start: usize, end: usize) -> SlotId {
        let slot = Slot { start, end, keep: false, measure: false, written: false, seen: NOT_SEEN, number: 0 };
        self.slots.push(slot);
        self.slots.len() as u32 - 1
    }

    #[inline]
    pub fn new_slot(&mut self) -> SlotId {
        self.load(0, 0)
    }

    #[inline]
    pub fn keep(&mut self, slot: SlotId) {
        self.slots[slot as usize].keep = true;
    }

    #[inline]
    pub fn update(&mut self, slot: SlotId, row: u32) {
        self.write(slot);
        self.push(op::UPDATE, slot, row, self.origin);
    }

    /// Merges `later` into `slot`.
    #[inline]
    pub fn merge(&mut self, slot: SlotId, later: SlotId) {
        self.write(slot);
        self.push(op::MERGE, slot, later, self.origin);
    }

    #[inline]
    pub fn copy(&mut self, slot: SlotId, from: SlotId) {
        self.write(slot);
        self.push(op::COPY, slot, from, self.origin);
    }

    /// Emits the slot's value; returns which row of the outputs it will be.
    #[inline]
    pub fn emit(&mut self, slot: SlotId) -> u32 {
        let entry = &mut self.slots[slot as usize];
        if entry.seen == NOT_SEEN {
            entry.seen = self.emitted.len() as u32;
            self.emitted.push(Emitted {
                slot: entry.written.then_some(slot),
                loaded_bytes: entry.end - entry.start,
                origin: self.origin,
            });
        }
        self.emits.push(entry.seen);
        self.push(op::EMIT, slot, 0, self.origin);
        self.emits.len() as u32 - 1
    }

    #[inline]
    fn push(&mut self, op: u32, slot: SlotId, operand: u32, origin: Origin) {
        self.words.extend([op::word(op, slot), operand]);
        if let Some(origins) = &mut self.origins {
            origins.push(origin);
        }
    }

    /// The slot is about to change: a state that was emitted from it and is still to be measured is copied away.
    #[inline]
    fn write(&mut self, slot: SlotId) {
        let entry = &mut self.slots[slot as usize];
        entry.written = true;
        if entry.seen != NOT_SEEN {
            let seen = std::mem::replace(&mut entry.seen, NOT_SEEN);
            self.preserve(slot, seen);
        }
    }

    fn preserve(&mut self, slot: SlotId, seen: u32) {
        let emitted = self.emitted[seen as usize];
        if emitted.slot.is_some() {
            let copy = self.new_slot();
            self.push(op::COPY, copy, slot, emitted.origin);
            self.emitted[seen as usize].slot = Some(copy);
        }
    }

    pub fn op_count(&self) -> usize {
        self.words.len() / 2
    }

    pub fn slot_count(&self) -> usize {
        self.slots.len()
    }

    pub fn is_empty(&self) -> bool {
        self.words.is_empty()
    }

    /// Numbers the slots, gathers the states that come in, and writes the numbers into the tape.
    pub fn finish(&mut self, bytes: &[u8]) {
        self.state_offsets.clear();
        self.state_data.clear();
        self.state_offsets.push(0);
        for slot in self.emitted.iter().filter_map(|emitted| emitted.slot) {
            let slot = &mut self.slots[slot as usize];
            slot.measure = !slot.keep;
        }
        let mut next = 0;
        for slot in self.slots.iter_mut().filter(|slot| slot.keep) {
            slot.number = next;
            next += 1;
            self.state_data.extend_from_slice(&bytes[slot.start..slot.end]);
            self.state_offsets.push(self.state_data.len() as u32);
        }
        self.keep = next;
        for slot in self.slots.iter_mut().filter(|slot| slot.measure) {
            slot.number = next;
            next += 1;
            self.state_data.extend_from_slice(&bytes[slot.start..slot.end]);
            self.state_offsets.push(self.state_data.len() as u32);
        }
        self.measure = next - self.keep;
        let goes_out = |slot: &Slot| slot.keep || slot.measure;
        for slot in self.slots.iter_mut().filter(|slot| !goes_out(slot) && slot.start < slot.end) {
            slot.number = next;
            next += 1;
            self.state_data.extend_from_slice(&bytes[slot.start..slot.end]);
            self.state_offsets.push(self.state_data.len() as u32);
        }
        for slot in self.slots.iter_mut().filter(|slot| !goes_out(slot) && slot.start == slot.end) {
            slot.number = next;
            next += 1;
        }
        for pair in self.words.chunks_exact_mut(2) {
            let op = pair[0] & 7;
            pair[0] = op::word(op, self.slots[(pair[0] >> 3) as usize].number);
            if op == op::MERGE || op == op::COPY {
                pair[1] = self.slots[pair[1] as usize].number;
            }
        }
    }

    /// Which of the states that came out is this kept slot's.
    #[inline]
    pub fn number(&self, slot: SlotId) -> u32 {
        self.slots[slot as usize].number
    }

    /// The emits (rows of the outputs) of values that were made from a state above `limit` bytes.
    pub fn oversized(&self, folded: &Folded, limit: usize) -> BTreeSet<u32> {
        let kept = |number: usize| (folded.state_offsets[number + 1] - folded.state_offsets[number]) as usize;
        let bytes = |emitted: &Emitted| match emitted.slot.map(|slot| self.number(slot)) {
            None => emitted.loaded_bytes,
            Some(number) if number < self.keep => kept(number as usize),
            Some(number) => folded.measured[(number - self.keep) as usize] as usize,
        };
        let large: BTreeSet<u32> =
            (0..).zip(&self.emitted).filter(|(_, emitted)| bytes(emitted) > limit).map(|(seen, _)| seen).collect();
        if large.is_empty() {
            return large;
        }
        (0..).zip(&self.emits).filter(|(_, seen)| large.contains(*seen)).map(|(row, _)| row).collect()
    }

    pub fn words(&self) -> &[u32] {
        &self.words
    }

    pub fn state_offsets(&self) -> &[u32] {
        &self.state_offsets
    }

    pub fn state_data(&self) -> &[u8] {
        &self.state_data
    }

    pub fn keep_count(&self) -> u32 {
        self.keep
    }

    pub fn measure_count(&self) -> u32 {
        self.measure
    }
}
