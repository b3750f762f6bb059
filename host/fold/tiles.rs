//! A cell beyond the usual path: all its tiles, and the merges of them that are kept at hand.
//!
//! A plain sliding window keeps `total` (the merge of all closed tiles) and two stacks, so that a new tile and a
//! leaving one cost one or two merges whatever the window's length. A row that falls into a tile of the older stack
//! updates `total` and lets go of the stacks; the next leaving tile makes them again with one merge a tile.

use crate::cell;
use crate::tape::{Origin, SlotId, Tape};
use crate::window::Window;

/// With fewer closed tiles than this, merging them anew is cheaper than keeping stacks.
const STACKS_FROM_TILES: usize = 4;

/// A state in the plan: the bytes it had, the slot it is loaded in, and whether that slot has changed since.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct State {
    pub start: usize,
    pub end: usize,
    pub slot: Option<SlotId>,
    pub dirty: bool,
    pub failed: bool,
}

impl State {
    pub fn stored(stored: cell::Stored) -> State {
        State { start: stored.start, end: stored.end, failed: stored.failed, ..State::default() }
    }

    /// The slot of this state, loaded on first use.
    #[inline]
    pub fn slot(&mut self, tape: &mut Tape) -> SlotId {
        match self.slot {
            Some(slot) => slot,
            None => {
                let slot = tape.load(self.start, self.end);
                self.slot = Some(slot);
                slot
            }
        }
    }
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Tile {
    pub index: i64,
    pub state: State,
}

/// A cell being worked on beyond the usual path: everything it holds.
#[derive(Default, Debug)]
pub(crate) struct Work {
    /// Ascending; the last is the newest, all others are closed.
    pub tiles: Vec<Tile>,
    /// Suffix merges, ascending; those before `front_at` belong to tiles that have left.
    pub front: Vec<Tile>,
    front_at: usize,
    pub back: Option<State>,
    pub total: Option<State>,
}

/// The steps on a cell beyond the usual path.
pub(crate) struct FullPlan<'a> {
    pub work: &'a mut Work,
    pub tape: &'a mut Tape,
    pub window: &'a Window,
    pub cell: u32,
}

impl FullPlan<'_> {
    pub fn row(&mut self, row: u32, index: i64) {
        let position = self.work.tiles.partition_point(|tile| tile.index < index);
        if position == self.work.tiles.len() {
            self.close_newest();
            self.work.tiles.push(Tile { index, state: State::default() });
        } else if self.work.tiles[position].index != index {
            self.work.tiles.insert(position, Tile { index, state: State::default() });
        }
        if self.work.tiles[position].state.failed {
            return;
        }
        let state = &mut self.work.tiles[position].state;
        let slot = state.slot(self.tape);
        state.dirty = true;
        self.tape.origin = Origin::Update { cell: self.cell, tile: index, row };
        self.tape.update(slot, row);
        if position + 1 < self.work.tiles.len() {
            self.late_row_into_merges(row, index);
        }
    }

    /// The newest tile becomes a closed one.
    fn close_newest(&mut self) {
        let Some(newest) = self.work.tiles.last_mut() else { return };
        let Some(total) = &mut self.work.total else { return };
        self.tape.origin = Origin::Cache { cell: self.cell };
        let closed = newest.state.slot(self.tape);
        let slot = total.slot(self.tape);
        total.dirty = true;
        self.tape.merge(slot, closed);
        if self.work.front_at < self.work.front.len() {
            match &mut self.work.back {
                Some(back) => {
                    let slot = back.slot(self.tape);
                    back.dirty = true;
                    self.tape.merge(slot, closed);
                }
                None => self.work.back = Some(copied(self.tape, closed)),
            }
        }
    }

    /// A row of a closed tile goes into every merge that holds the tile.
    fn late_row_into_merges(&mut self, row: u32, index: i64) {
        let Some(total) = &mut self.work.total else { return };
        self.tape.origin = Origin::Cache { cell: self.cell };
        let slot = total.slot(self.tape);
        total.dirty = true;
        self.tape.update(slot, row);
        if let Some(boundary) = self.work.front.last().map(|tile| tile.index) {
            if index <= boundary {
                self.work.front.clear();
                self.work.front_at = 0;
                self.work.back = None;
            } else {
                let back = self.work.back.get_or_insert_default();
                let slot = back.slot(self.tape);
                back.dirty = true;
                self.tape.update(slot, row);
            }
        }
    }

    /// Lets go of the tiles that have left by `now_us`, and makes `total` anew from the stacks.
    pub fn evict(&mut self, now_us: i64) {
        let window = *self.window;
        let left = self.work.tiles.partition_point(|tile| window.leaves_at_us(tile.index) <= now_us);
        if left == 0 {
            return;
        }
        self.work.tiles.drain(..left);
        self.work.total = None;
        if self.work.tiles.len() <= 1 {
            self.forget_merges();
            return;
        }
        let oldest = self.work.tiles[0].index;
        while self.work.front.get(self.work.front_at).is_some_and(|tile| tile.index < oldest) {
            self.work.front_at += 1;
        }
        if self.work.front_at == self.work.front.len() {
            self.forget_merges();
            return;
        }
        self.tape.origin = Origin::Cache { cell: self.cell };
        let first = self.work.front[self.work.front_at].state.slot(self.tape);
        let total = copied(self.tape, first);
        if let (Some(slot), Some(back)) = (total.slot, &mut self.work.back) {
            let back = back.slot(self.tape);
            self.tape.merge(slot, back);
        }
        self.work.total = Some(total);
    }

    /// Makes `total` where there is none: of few tiles directly, of many by turning them into the front stack.
    pub fn ensure_total(&mut self) {
        let closed = self.work.tiles.len().saturating_sub(1);
        if closed == 0 || self.work.total.is_some() {
            return;
        }
        self.tape.origin = Origin::Cache { cell: self.cell };
        if closed < STACKS_FROM_TILES {
            let oldest = self.work.tiles[0].state.slot(self.tape);
            let total = copied(self.tape, oldest);
            for tile in &mut self.work.tiles[1..closed] {
                let later = tile.state.slot(self.tape);
                if let Some(slot) = total.slot {
                    self.tape.merge(slot, later);
                }
            }
            self.work.total = Some(total);
        } else {
            self.work.front.clear();
            self.work.front_at = 0;
            self.work.back = None;
            let mut later = None;
            for tile in self.work.tiles[..closed].iter_mut().rev() {
                let slot = tile.state.slot(self.tape);
                let suffix = copied(self.tape, slot);
                if let (Some(suffix), Some(later)) = (suffix.slot, later) {
                    self.tape.merge(suffix, later);
                }
                later = suffix.slot;
                self.work.front.push(Tile { index: tile.index, state: suffix });
            }
            self.work.front.reverse();
            self.work.total = later.map(|slot| copied(self.tape, slot));
        }
    }

    pub fn forget_merges(&mut self) {
        self.work.forget_merges();
    }
}

impl Work {
    pub fn clear(&mut self) {
        self.tiles.clear();
        self.forget_merges();
    }

    pub fn forget_merges(&mut self) {
        self.front.clear();
        self.front_at = 0;
        self.back = None;
        self.total = None;
    }

    pub fn states(&self) -> impl Iterator<Item = &State> {
        let front = self.front[self.front_at..].iter();
        self.tiles.iter().chain(front).map(|tile| &tile.state).chain(&self.back).chain(&self.total)
    }

    /// Writes head and tail; `bytes_of` gives a state's bytes after the run.
    pub fn write<'a>(&self, head: &mut Vec<u8>, tail: &mut Vec<u8>, bytes_of: impl Fn(&State) -> &'a [u8]) {
        let Some((newest, closed)) = self.tiles.split_last() else { return };
        let oldest = closed.first().unwrap_or(newest).index;
        let total = self.total.as_ref().map(&bytes_of);
        cell::put_head(head, newest.index, bytes_of(&newest.state), newest.state.failed, oldest, total);
        if closed.is_empty() {
            return;
        }
        let stored = |tile: &Tile| (tile.index, bytes_of(&tile.state), tile.state.failed);
        let front = &self.front[self.front_at..];
        let back = self.back.as_ref().map(&bytes_of);
        cell::put_tail(tail, (closed.len(), closed.iter().map(stored)), (front.len(), front.iter().map(stored)), back);
    }
}

impl State {
    /// The slot whose encoded state is this one's new value, if the run changed it.
    pub fn changed_slot(&self) -> Option<SlotId> {
        self.slot.filter(|_| self.dirty && !self.failed)
    }

    pub fn is_failed(&self) -> bool {
        self.failed
    }
}

/// A new state that begins as a copy of another.
fn copied(tape: &mut Tape, from: SlotId) -> State {
    let mut state = State { dirty: true, ..State::default() };
    let slot = state.slot(tape);
    tape.copy(slot, from);
    state
}
