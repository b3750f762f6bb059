//! The tape being written: operations on slots whose numbers are not known yet.
//!
//! The contract wants slots in a fixed order (first those whose states go out, then those that are only read, then
//! scratch), but which is which is known only when the last operation has been written. So operations name
//! provisional slots, and `finish` numbers them in one pass.

/// A provisional slot.
pub(crate) type SlotId = u32;

pub(crate) const UPDATE: u32 = 0;
pub(crate) const MERGE: u32 = 1;
pub(crate) const COPY: u32 = 2;
pub(crate) const EMIT: u32 = 4;

#[derive(Clone, Copy)]
struct Slot {
    /// The encoded state it starts from, as a range of the job's bytes; empty = new.
    start: usize,
    end: usize,
    keep: bool,
    number: u32,
}

#[derive(Default)]
pub(crate) struct Tape {
    slots: Vec<Slot>,
    /// Pairs (op | provisional slot << 3, operand); after `finish` with real numbers.
    words: Vec<u32>,
    emits: u32,
    keep: u32,
    state_offsets: Vec<u32>,
    state_data: Vec<u8>,
}

impl Tape {
    pub fn clear(&mut self) {
        self.slots.clear();
        self.words.clear();
        self.emits = 0;
        self.keep = 0;
    }

    /// A slot that starts from the encoded state at this range of the job's bytes (an empty range: new).
    #[inline]
    pub fn load(&mut self, start: usize, end: usize) -> SlotId {
        self.slots.push(Slot { start, end, keep: false, number: 0 });
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
        self.words.extend([UPDATE | slot << 3, row]);
    }

    /// Merges `later` into `slot`.
    #[inline]
    pub fn merge(&mut self, slot: SlotId, later: SlotId) {
        self.words.extend([MERGE | slot << 3, later]);
    }

    #[inline]
    pub fn copy(&mut self, slot: SlotId, from: SlotId) {
        self.words.extend([COPY | slot << 3, from]);
    }

    /// Emits the slot's value; returns which row of the outputs it will be.
    #[inline]
    pub fn emit(&mut self, slot: SlotId) -> u32 {
        self.words.extend([EMIT | slot << 3, 0]);
        self.emits += 1;
        self.emits - 1
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
        let mut next = 0;
        for slot in self.slots.iter_mut().filter(|slot| slot.keep) {
            slot.number = next;
            next += 1;
            self.state_data.extend_from_slice(&bytes[slot.start..slot.end]);
            self.state_offsets.push(self.state_data.len() as u32);
        }
        self.keep = next;
        for slot in self.slots.iter_mut().filter(|slot| !slot.keep && slot.start < slot.end) {
            slot.number = next;
            next += 1;
            self.state_data.extend_from_slice(&bytes[slot.start..slot.end]);
            self.state_offsets.push(self.state_data.len() as u32);
        }
        for slot in self.slots.iter_mut().filter(|slot| !slot.keep && slot.start == slot.end) {
            slot.number = next;
            next += 1;
        }
        for pair in self.words.chunks_exact_mut(2) {
            let op = pair[0] & 7;
            pair[0] = op | self.slots[(pair[0] >> 3) as usize].number << 3;
            if op == MERGE || op == COPY {
                pair[1] = self.slots[pair[1] as usize].number;
            }
        }
    }

    /// Which of the states that came out is this kept slot's.
    #[inline]
    pub fn number(&self, slot: SlotId) -> u32 {
        self.slots[slot as usize].number
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
}
