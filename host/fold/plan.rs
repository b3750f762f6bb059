//! The planner: what happens to one feature of many entities, written as one tape.
//!
//! Stream, batch and point-in-time retrieval differ only in the calls they make here: for each entity `begin` with
//! its stored cell, `row` for every row, `probe` for every instant whose value is wanted, `end`. Rows may come in any
//! order; probes of one cell come in ascending order, and no row newer than a probe comes before it.
//!
//! The usual row falls in the newest tile, and only its state is read. What else a cell holds is in `tiles`.

use crate::cell::{self, DamagedCell, Head, StoredTile};
use crate::tape::{Origin, SlotId, Tape};
use crate::tiles::{FullPlan, State, Tile, Work};
use crate::window::Window;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

/// What earlier attempts at the same call found: these parts are left out, so that the rest goes through.
#[derive(Default, Debug)]
pub(crate) struct SetAside {
    /// Rows that fail by themselves.
    pub rows: BTreeSet<u32>,
    /// (cell, tile) whose state a row broke that passes by itself.
    pub tiles: BTreeMap<(u32, i64), BrokenTile>,
    /// Cells in which a merge for later use failed: their values are merged anew each time.
    pub uncached: BTreeSet<u32>,
    /// (cell, how manieth probe of it) whose merges or emit fail: why.
    pub probes: BTreeMap<(u32, u32), String>,
}

/// A tile is whole up to the row that broke it, and `failed` from there on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BrokenTile {
    pub by_row: u32,
    pub reason: String,
}

/// What was planned for one asked value.
#[derive(Clone, Debug)]
pub(crate) enum PlannedProbe {
    /// Row of the outputs.
    Emit(u32),
    Failed(String),
}

/// What became of one cell.
#[derive(Debug)]
pub(crate) enum PlannedCell {
    /// Nothing to write: no row and no change.
    Unchanged,
    /// An unbounded window's only state.
    Single(State),
    /// The usual path: only the newest tile's state changed.
    Newest { index: i64, state: State, oldest: i64, total: Option<(usize, usize)> },
    /// Everything is written anew, from `Planner::works`.
    Full(usize),
}

/// Plans the cells of one call. Reused from call to call; holds no state of its own between them.
pub struct Planner {
    pub(crate) window: Window,
    pub(crate) tape: Tape,
    pub(crate) bytes: Vec<u8>,
    pub(crate) cells: Vec<PlannedCell>,
    pub(crate) next_changes: Vec<i64>,
    pub(crate) probes: Vec<PlannedProbe>,
    /// For each cell, the end of its probes in `probes`.
    pub(crate) probe_ends: Vec<u32>,
    pub(crate) works: Vec<Work>,
    works_used: usize,
    /// Never updated: the value of no rows.
    empty: Option<SlotId>,
    pub(crate) set_aside: SetAside,
    pub(crate) damaged: Option<DamagedCell>,
    /// The number of the first cell of this call among all cells of the job.
    pub(crate) first_cell: u32,
}

impl Planner {
    pub(crate) fn new(window: Window) -> Planner {
        Planner {
            window,
            tape: Tape::default(),
            bytes: Vec::new(),
            cells: Vec::new(),
            next_changes: Vec::new(),
            probes: Vec::new(),
            probe_ends: Vec::new(),
            works: Vec::new(),
            works_used: 0,
            empty: None,
            set_aside: SetAside::default(),
            damaged: None,
            first_cell: 0,
        }
    }

    pub(crate) fn clear(&mut self, first_cell: u32) {
        self.tape.clear();
        self.bytes.clear();
        self.cells.clear();
        self.next_changes.clear();
        self.probes.clear();
        self.probe_ends.clear();
        self.works_used = 0;
        self.empty = None;
        self.damaged = None;
        self.first_cell = first_cell;
    }

    /// Begins the next cell. `head` and `tail` are what the last run gave for it (both empty: no row yet). No probe
    /// will ask for an instant before `not_before_us`: rows of tiles that have left by then are not folded.
    pub fn begin<'p>(&'p mut self, head: &[u8], tail: &'p [u8], not_before_us: i64) -> CellPlan<'p> {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(head);
        let end = self.bytes.len();
        let mode = if head.is_empty() {
            Mode::Empty
        } else if let Window::Unbounded = self.window {
            match cell::Reader::new(&self.bytes, start, end).stored() {
                Ok(stored) => Mode::Single(State::stored(stored)),
                Err(damaged) => self.give_up(damaged),
            }
        } else {
            match cell::read_head(&self.bytes, start, end) {
                Ok(head) => {
                    let leaves_us = self.window.leaves_at_us(head.oldest);
                    Mode::Newest { head, state: State::stored(head.newest.state), leaves_us }
                }
                Err(damaged) => self.give_up(damaged),
            }
        };
        CellPlan {
            cell: self.first_cell + self.cells.len() as u32,
            nth: 0,
            now_us: not_before_us,
            mode,
            tail,
            planner: self,
        }
    }

    fn give_up(&mut self, damaged: DamagedCell) -> Mode {
        self.damaged.get_or_insert(damaged);
        Mode::Empty
    }

    /// The state bytes that were loaded at this range.
    pub(crate) fn bytes_of(&self, state: &State) -> &[u8] {
        &self.bytes[state.start..state.end]
    }
}

enum Mode {
    /// No tile.
    Empty,
    Single(State),
    Newest {
        head: Head,
        state: State,
        leaves_us: i64,
    },
    Full(usize),
}

/// One cell while it is planned. `end` must be called.
pub struct CellPlan<'p> {
    planner: &'p mut Planner,
    tail: &'p [u8],
    cell: u32,
    nth: u32,
    now_us: i64,
    mode: Mode,
}

impl CellPlan<'_> {
    /// Promises that no later probe asks for an instant before this one. Where rows come in time order, each row's
    /// time is such a promise, and keeps tiles that have left from piling up.
    #[inline]
    pub fn advance(&mut self, now_us: i64) {
        self.now_us = self.now_us.max(now_us);
    }

    /// Folds row `row` of the call's columns.
    #[inline]
    pub fn row(&mut self, row: u32, event_time_us: i64) {
        if !self.planner.set_aside.rows.is_empty() && self.planner.set_aside.rows.contains(&row) {
            return;
        }
        let index = self.planner.window.tile_of(event_time_us);
        if !self.planner.set_aside.tiles.is_empty()
            && let Some(broken) = self.planner.set_aside.tiles.get(&(self.cell, index))
            && broken.by_row == row
        {
            let reason = broken.reason.clone();
            self.break_tile(index, &reason);
            return;
        }
        match &mut self.mode {
            Mode::Single(state) if !state.failed => {
                let slot = state.slot(&mut self.planner.tape);
                state.dirty = true;
                self.planner.tape.origin = Origin::Update { cell: self.cell, tile: index, row };
                self.planner.tape.update(slot, row);
            }
            Mode::Newest { head, state, leaves_us }
                if index == head.newest.index && self.now_us < *leaves_us && !state.failed =>
            {
                let slot = state.slot(&mut self.planner.tape);
                state.dirty = true;
                self.planner.tape.origin = Origin::Update { cell: self.cell, tile: index, row };
                self.planner.tape.update(slot, row);
            }
            _ => self.unusual_row(row, index),
        }
    }

    /// The value as of `as_of_us`, from all rows given so far.
    #[inline]
    pub fn probe(&mut self, as_of_us: i64) {
        self.now_us = self.now_us.max(as_of_us);
        let nth = self.nth;
        self.nth += 1;
        if !self.planner.set_aside.probes.is_empty()
            && let Some(reason) = self.planner.set_aside.probes.get(&(self.cell, nth))
        {
            let reason = reason.clone();
            self.planner.probes.push(PlannedProbe::Failed(reason));
            return;
        }
        self.planner.tape.origin = Origin::Probe { cell: self.cell, nth };
        let probe = match &mut self.mode {
            Mode::Empty => self.emit_empty(),
            Mode::Single(state) if state.failed => PlannedProbe::Failed(reason_text(self.planner.bytes_of(state))),
            Mode::Single(state) => {
                let slot = state.slot(&mut self.planner.tape);
                PlannedProbe::Emit(self.planner.tape.emit(slot))
            }
            Mode::Newest { head, state, leaves_us }
                if as_of_us < *leaves_us
                    && !state.failed
                    && !is_delayed(&self.planner.window)
                    && (head.oldest == head.newest.index || head.total.is_some()) =>
            {
                let newest = state.slot(&mut self.planner.tape);
                let tape = &mut self.planner.tape;
                match head.total.filter(|_| head.oldest != head.newest.index) {
                    None => PlannedProbe::Emit(tape.emit(newest)),
                    Some(total) => {
                        let value = tape.load(total.start, total.end);
                        tape.merge(value, newest);
                        PlannedProbe::Emit(tape.emit(value))
                    }
                }
            }
            Mode::Newest { .. } | Mode::Full(_) => {
                let work = self.promote();
                return self.probe_full(work, as_of_us, nth);
            }
        };
        self.planner.probes.push(probe);
    }

    /// Ends the cell. `keep`: whether its new state is wanted.
    #[inline]
    pub fn end(self, keep: bool) {
        let planner = self.planner;
        let window = planner.window;
        let (planned, next_change_us) = match self.mode {
            Mode::Empty => (PlannedCell::Unchanged, i64::MAX),
            Mode::Single(state) => {
                let planned = match state.slot {
                    Some(slot) if state.dirty && keep => {
                        planner.tape.keep(slot);
                        PlannedCell::Single(state)
                    }
                    _ if state.failed && state.dirty => PlannedCell::Single(state),
                    _ => PlannedCell::Unchanged,
                };
                (planned, i64::MAX)
            }
            Mode::Newest { head, state, .. } => {
                let total = head.total.map(|total| (total.start, total.end));
                let index = head.newest.index;
                let planned = match state.slot {
                    Some(slot) if state.dirty && keep => {
                        planner.tape.keep(slot);
                        PlannedCell::Newest { index, state, oldest: head.oldest, total }
                    }
                    _ => PlannedCell::Unchanged,
                };
                (planned, next_change_us(&window, [head.oldest, index].into_iter(), self.now_us))
            }
            Mode::Full(work) => {
                let tiles = planner.works[work].tiles.iter().map(|tile| tile.index);
                let next_change_us = next_change_us(&window, tiles, self.now_us);
                if keep {
                    let Planner { works, tape, .. } = &mut *planner;
                    for state in works[work].states() {
                        if let Some(slot) = state.slot.filter(|_| state.dirty && !state.failed) {
                            tape.keep(slot);
                        }
                    }
                }
                (PlannedCell::Full(work), next_change_us)
            }
        };
        planner.cells.push(planned);
        planner.next_changes.push(next_change_us);
        planner.probe_ends.push(planner.probes.len() as u32);
    }

    fn emit_empty(&mut self) -> PlannedProbe {
        let slot = match self.planner.empty {
            Some(slot) => slot,
            None => *self.planner.empty.insert(self.planner.tape.new_slot()),
        };
        PlannedProbe::Emit(self.planner.tape.emit(slot))
    }

    /// A row of a first, older, newer or failed tile.
    fn unusual_row(&mut self, row: u32, index: i64) {
        if let Mode::Single(_) = self.mode {
            return; // failed for good: the reason stands in the state
        }
        if self.planner.window.leaves_at_us(index) <= self.now_us {
            return;
        }
        if let Mode::Empty = self.mode {
            let mut state = State::default();
            let slot = state.slot(&mut self.planner.tape);
            state.dirty = true;
            self.planner.tape.origin = Origin::Update { cell: self.cell, tile: index, row };
            self.planner.tape.update(slot, row);
            self.mode = if let Window::Unbounded = self.planner.window {
                Mode::Single(state)
            } else {
                let newest = StoredTile { index, state: cell::Stored { start: 0, end: 0, failed: false } };
                let leaves_us = self.planner.window.leaves_at_us(index);
                Mode::Newest { head: Head { newest, oldest: index, total: None }, state, leaves_us }
            };
            return;
        }
        let work = self.promote();
        let cell = self.cell;
        let Planner { works, tape, window, .. } = &mut *self.planner;
        let mut plan = FullPlan { work: &mut works[work], tape, cell, window };
        plan.evict(self.now_us);
        plan.row(row, index);
    }

    fn probe_full(&mut self, work: usize, as_of_us: i64, nth: u32) {
        let now_us = self.now_us;
        let cached = !is_delayed(&self.planner.window) && !self.planner.set_aside.uncached.contains(&self.cell);
        let cell = self.cell;
        let Planner { works, tape, window, bytes, probes, .. } = &mut *self.planner;
        let mut plan = FullPlan { work: &mut works[work], tape, cell, window };
        plan.evict(now_us);
        let failed = plan.work.tiles.iter().find(|tile| tile.state.failed && plan.window.counts(tile.index, as_of_us));
        if let Some(Tile { state, .. }) = failed {
            probes.push(PlannedProbe::Failed(reason_text(&bytes[state.start..state.end])));
            return;
        }
        if plan.work.tiles.iter().any(|tile| tile.state.failed) || !cached {
            plan.forget_merges();
        } else {
            plan.ensure_total();
        }
        let uses_total = plan.work.total.is_some();
        plan.tape.origin = Origin::Probe { cell, nth };
        let counted: Range<usize> = {
            let counts = |tile: &Tile| plan.window.counts(tile.index, as_of_us);
            let start = plan.work.tiles.iter().position(counts).unwrap_or(0);
            let len = plan.work.tiles[start..].iter().take_while(|tile| counts(tile)).count();
            start..start + len
        };
        let emitted = if counted.is_empty() {
            None
        } else if uses_total || counted.len() == 1 {
            let newest = plan.work.tiles[counted.end - 1].state.slot(plan.tape);
            match plan.work.total.as_mut().filter(|_| counted.len() > 1) {
                None => Some(plan.tape.emit(newest)),
                Some(total) => {
                    let total = total.slot(plan.tape);
                    let value = plan.tape.new_slot();
                    plan.tape.copy(value, total);
                    plan.tape.merge(value, newest);
                    Some(plan.tape.emit(value))
                }
            }
        } else {
            let value = plan.tape.new_slot();
            for (position, tile) in plan.work.tiles[counted].iter_mut().enumerate() {
                let slot = tile.state.slot(plan.tape);
                if position == 0 {
                    plan.tape.copy(value, slot);
                } else {
                    plan.tape.merge(value, slot);
                }
            }
            Some(plan.tape.emit(value))
        };
        let probe = match emitted {
            Some(row) => PlannedProbe::Emit(row),
            None => self.emit_empty(),
        };
        self.planner.probes.push(probe);
    }

    /// Takes the cell off the usual path: parses its tail. Returns which `Work` holds it.
    fn promote(&mut self) -> usize {
        if let Mode::Full(work) = self.mode {
            return work;
        }
        let planner = &mut *self.planner;
        let position = planner.works_used;
        planner.works_used += 1;
        if planner.works.len() == position {
            planner.works.push(Work::default());
        }
        let work = &mut planner.works[position];
        work.clear();
        if let Mode::Newest { head, state, .. } = &self.mode {
            let start = planner.bytes.len();
            planner.bytes.extend_from_slice(self.tail);
            let tile = |tile: StoredTile| Tile { index: tile.index, state: State::stored(tile.state) };
            let Work { tiles, front, .. } = work;
            let tail = cell::read_tail(
                &planner.bytes,
                start,
                planner.bytes.len(),
                |closed| tiles.push(tile(closed)),
                |merged| front.push(tile(merged)),
            );
            match tail {
                Ok(back) => work.back = back.map(State::stored),
                Err(damaged) => {
                    planner.damaged.get_or_insert(damaged);
                }
            }
            work.total = head.total.map(State::stored);
            work.tiles.push(Tile { index: head.newest.index, state: *state });
            if planner.set_aside.uncached.contains(&self.cell) {
                work.forget_merges();
            }
        }
        self.mode = Mode::Full(position);
        position
    }

    /// A row that passes alone broke this tile: the reason takes the place of its state.
    fn break_tile(&mut self, index: i64, reason: &str) {
        let start = self.planner.bytes.len();
        self.planner.bytes.extend_from_slice(reason.as_bytes());
        let end = self.planner.bytes.len();
        let broken = State { start, end, slot: None, dirty: true, failed: true };
        if let Window::Unbounded = self.planner.window {
            self.mode = Mode::Single(broken);
            return;
        }
        let work = self.promote();
        let work = &mut self.planner.works[work];
        work.forget_merges();
        let position = work.tiles.partition_point(|tile| tile.index < index);
        match work.tiles.get_mut(position).filter(|tile| tile.index == index) {
            Some(tile) => tile.state = broken,
            None => work.tiles.insert(position, Tile { index, state: broken }),
        }
    }
}

/// Whether tiles enter the window later than their rows come: then the newest tile is not the last that counts.
fn is_delayed(window: &Window) -> bool {
    match window {
        Window::Unbounded => false,
        Window::Sliding { offset_us, .. } => *offset_us != 0,
        Window::Tumbling { closed, .. } => *closed,
    }
}

/// The first instant after `now_us` at which the value changes by time alone: a tile leaves or enters.
fn next_change_us(window: &Window, tiles: impl Iterator<Item = i64>, now_us: i64) -> i64 {
    let delayed = is_delayed(window);
    tiles
        .map(|tile| {
            let enters = window.enters_at_us(tile);
            if delayed && enters > now_us { enters } else { window.leaves_at_us(tile) }
        })
        .filter(|instant| *instant > now_us)
        .min()
        .unwrap_or(i64::MAX)
}

fn reason_text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
