//! One feature over many cells: plan, call the module, hand back states and values; and what to do when it fails.
//!
//! Nothing of a failed call counts. The failing operations are found, the rows and tiles behind them set aside, and
//! the same cells are planned once more without them (rule 11 of the window rules):
//!
//! - a row whose `update` also fails alone, on a new state, is refused for this feature, and told to the caller;
//! - a row that passes alone has broken its tile: the tile is `failed`, with the reason, until it leaves its windows;
//! - a merge that fails while a value is made fails that value; one that was only kept for later is not kept;
//! - a value that is made from too large a state is failed, whatever the module gave for it.

use crate::call::{FoldCall, Folded, Udf};
use crate::cell::{self, DamagedCell};
use crate::error::CallFailure;
use crate::plan::{BrokenTile, PlannedCell, PlannedProbe, Planner};
use crate::split::{refused_alone, resolve};
use crate::tape::Origin;
use crate::tiles::State;
use crate::window::Window;
use arrow::array::ArrayRef;
use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};

/// A call is closed when its cells hold this much, so that a batch of large states does not outgrow a module's memory.
const CALL_STATE_BYTES: usize = 1 << 18;
/// ... or when its tape has this many operations: what is planned for them then stays in the cache.
const CALL_OPS: usize = 1 << 12;

/// Why there is no value though the module gave one. Without the size: of two states that are one value, one may be
/// the shorter.
const OVERSIZED: &str = "the state is above 1 MiB encoded, the most that a value is made from: keep less in it, or use a \
                         shorter window";

/// Entities whose cells are folded together. Cells are planned in order, some of them twice when a row fails.
pub trait Cells {
    /// How many cells there are.
    fn count(&self) -> usize;
    /// Plans one cell: exactly one `begin … end`, the same each time it is asked.
    fn plan(&self, cell: usize, planner: &mut Planner);
    /// The cells of a call are planned, and the module is called next: for who measures.
    fn planned(&mut self) {}
    /// Takes the results of `results.len()` cells from `first_cell` on.
    fn settle(&mut self, first_cell: usize, results: &Results<'_>);
}

/// A row that this feature refuses, as the module said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailedRow {
    pub row: u32,
    pub message: String,
}

/// Why a job gave nothing.
#[derive(Debug, thiserror::Error)]
pub enum JobError {
    #[error(transparent)]
    Damaged(#[from] DamagedCell),
    /// The module cannot be called at all, or the caller's columns do not fit it.
    #[error(transparent)]
    Call(#[from] CallFailure),
}

/// Folds one feature. Owns buffers that are used again; keeps nothing else from run to run.
pub struct FoldJob {
    udf: Udf,
    planner: Planner,
}

impl FoldJob {
    pub fn new(udf: Udf, window: Window) -> FoldJob {
        FoldJob { udf, planner: Planner::new(window) }
    }

    /// The UDF it runs.
    pub fn udf(&self) -> &Udf {
        &self.udf
    }

    /// Folds `rows` rows of `columns` (in the order of the UDF's inputs) into the cells. Returns the rows it refused,
    /// ascending. On an error no cell of the call has been settled beyond those of earlier calls.
    pub fn run(&mut self, rows: u32, columns: &[ArrayRef], cells: &mut impl Cells) -> Result<Vec<FailedRow>, JobError> {
        self.planner.set_aside = Default::default();
        self.planner.tape.origins = None;
        let mut refused = BTreeMap::new();
        let mut first = 0;
        while first < cells.count() {
            let end = self.plan_from(first, cells)?;
            cells.planned();
            match self.call(rows, columns) {
                Ok(folded) => {
                    cells.settle(first, &self.results(&folded));
                    first = end;
                }
                Err(failure @ CallFailure::Input(_)) => return Err(failure.into()),
                Err(failure) => {
                    // The same plan again, this time noting what each operation is for.
                    self.planner.tape.origins = Some(Vec::new());
                    self.plan_from(first, cells)?;
                    match self.resolve(rows, columns, failure) {
                        Ok(folded) => {
                            cells.settle(first, &self.results(&folded));
                            first = end;
                        }
                        Err(failed) => self.set_aside(rows, columns, failed, &mut refused)?,
                    }
                    self.planner.tape.origins = None;
                }
            }
        }
        Ok(refused.into_iter().map(|(row, message)| FailedRow { row, message }).collect())
    }

    fn results<'a>(&'a self, folded: &'a Folded) -> Results<'a> {
        let oversized = self.planner.tape.oversized(folded, self.udf.limits().emitted_state_bytes);
        Results { planner: &self.planner, folded, oversized }
    }

    /// Plans cells from `first` on until the call is full; returns the first cell that is not in it.
    fn plan_from(&mut self, first: usize, cells: &impl Cells) -> Result<usize, JobError> {
        self.planner.clear(first as u32);
        let mut next = first;
        while next < cells.count()
            && self.planner.bytes.len() < CALL_STATE_BYTES
            && self.planner.tape.op_count() < CALL_OPS
        {
            cells.plan(next, &mut self.planner);
            next += 1;
        }
        debug_assert_eq!(self.planner.cells.len(), next - first, "each cell is planned once");
        let Planner { tape, bytes, .. } = &mut self.planner;
        tape.finish(bytes);
        match self.planner.damaged.take() {
            Some(damaged) => Err(damaged.into()),
            None => Ok(next),
        }
    }

    fn fold_call<'a>(&'a self, rows: u32, columns: &'a [ArrayRef]) -> FoldCall<'a> {
        let tape = &self.planner.tape;
        FoldCall {
            slots: tape.slot_count() as u32,
            keep: tape.keep_count(),
            measure: tape.measure_count(),
            tape: tape.words(),
            state_offsets: tape.state_offsets(),
            state_data: tape.state_data(),
            rows,
            columns,
        }
    }

    fn call(&self, rows: u32, columns: &[ArrayRef]) -> Result<Folded, CallFailure> {
        if self.planner.tape.is_empty() {
            return Ok(nothing(&self.udf));
        }
        self.udf.fold(&self.fold_call(rows, columns))
    }

    fn resolve(&self, rows: u32, columns: &[ArrayRef], failure: CallFailure) -> Result<Folded, Vec<(u32, String)>> {
        let run = |part: &FoldCall<'_>, fresh| self.udf.fold_part(part, fresh, &Cell::new(0));
        resolve(&run, self.udf.limits().state_bytes, &self.fold_call(rows, columns), failure)
    }

    /// Puts what lies behind the failed operations aside.
    fn set_aside(
        &mut self,
        rows: u32,
        columns: &[ArrayRef],
        failed: Vec<(u32, String)>,
        refused: &mut BTreeMap<u32, String>,
    ) -> Result<(), JobError> {
        let origins = self.planner.tape.origins.take().unwrap_or_default();
        let of_rows = failed.iter().filter_map(|(op, _)| match origins.get(*op as usize) {
            Some(Origin::Update { row, .. }) => Some(*row),
            _ => None,
        });
        let run = |part: &FoldCall<'_>, fresh| self.udf.fold_part(part, fresh, &Cell::new(0));
        let alone = refused_alone(&run, self.udf.limits().state_bytes, &of_rows.collect(), rows, columns);
        let aside = &mut self.planner.set_aside;
        let mut found = false;
        // From behind, so that of several rows the first is the one that broke its tile.
        for (op, message) in failed.into_iter().rev() {
            match origins.get(op as usize) {
                Some(Origin::Update { cell, tile, row }) => match alone.get(row) {
                    Some(reason) => {
                        found |= aside.rows.insert(*row);
                        refused.insert(*row, reason.clone());
                    }
                    None => {
                        let broken = BrokenTile { by_row: *row, reason: message };
                        found |= aside.tiles.insert((*cell, *tile), broken.clone()) != Some(broken);
                    }
                },
                Some(Origin::Cache { cell }) => found |= aside.uncached.insert(*cell),
                Some(Origin::Probe { cell, nth }) => {
                    found |= aside.probes.insert((*cell, *nth), message).is_none();
                }
                None => {
                    let text = format!("op {op} failed that is not on the tape: {message}");
                    return Err(CallFailure::Invalid(text).into());
                }
            }
        }
        if found {
            return Ok(());
        }
        let text = "the call fails whole and passes in parts, and no operation of it is to blame".into();
        Err(CallFailure::Invalid(text).into())
    }
}

/// What a call without operations gives.
fn nothing(udf: &Udf) -> Folded {
    let outputs = udf.outputs().iter().map(|field| arrow::array::new_empty_array(&field.kind.data_type()));
    Folded {
        state_offsets: vec![0],
        state_data: Vec::new(),
        measured: Vec::new(),
        outputs: outputs.collect(),
        reasons: Vec::new(),
    }
}

/// One asked value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Probe<'a> {
    /// Row of `Results::outputs`.
    Row(usize),
    /// There is no value, and this is why.
    Failed(&'a str),
}

/// What one call gave, cell by cell in the order of planning.
pub struct Results<'a> {
    planner: &'a Planner,
    folded: &'a Folded,
    /// Rows of the outputs whose values do not count: they were made from too large a state.
    oversized: BTreeSet<u32>,
}

impl Results<'_> {
    /// How many cells.
    pub fn len(&self) -> usize {
        self.planner.cells.len()
    }

    pub fn is_empty(&self) -> bool {
        self.planner.cells.is_empty()
    }

    /// One column an output of the UDF.
    pub fn outputs(&self) -> &[ArrayRef] {
        &self.folded.outputs
    }

    /// Why the values of this row of the outputs are null, where the module had something to say (`overflow`).
    pub fn reason(&self, row: usize) -> Option<&str> {
        let position = self.folded.reasons.binary_search_by_key(&(row as u32), |reason| reason.0).ok()?;
        Some(&self.folded.reasons[position].1)
    }

    /// The cell's asked values, in order.
    pub fn probes(&self, cell: usize) -> impl ExactSizeIterator<Item = Probe<'_>> {
        let start = if cell == 0 { 0 } else { self.planner.probe_ends[cell - 1] };
        let end = self.planner.probe_ends[cell];
        self.planner.probes[start as usize..end as usize].iter().map(|probe| match probe {
            PlannedProbe::Emit(row) if !self.oversized.is_empty() && self.oversized.contains(row) => {
                Probe::Failed(OVERSIZED)
            }
            PlannedProbe::Emit(row) => Probe::Row(*row as usize),
            PlannedProbe::Failed(reason) => Probe::Failed(reason),
        })
    }

    /// The first instant after the cell's last one at which its value changes by time alone; `i64::MAX`: never.
    pub fn next_change_us(&self, cell: usize) -> i64 {
        self.planner.next_changes[cell]
    }

    /// Writes the cell's new head and tail into the (empty) buffers and says which are to be stored.
    pub fn write(&self, cell: usize, head: &mut Vec<u8>, tail: &mut Vec<u8>) -> Change {
        match &self.planner.cells[cell] {
            PlannedCell::Unchanged => Change::Nothing,
            PlannedCell::Single(state) => {
                cell::put_stored(head, self.state_bytes(state), state.is_failed());
                Change::Head
            }
            PlannedCell::Newest { index, state, oldest, total } => {
                let total = total.map(|(start, end)| &self.planner.bytes[start..end]);
                cell::put_head(head, *index, self.state_bytes(state), state.is_failed(), *oldest, total);
                Change::Head
            }
            PlannedCell::Full(work) => {
                self.planner.works[*work].write(head, tail, |state| self.state_bytes(state));
                Change::Both
            }
        }
    }

    fn state_bytes(&self, state: &State) -> &[u8] {
        match state.changed_slot() {
            None => self.planner.bytes_of(state),
            Some(slot) => {
                let number = self.planner.tape.number(slot) as usize;
                let offsets = &self.folded.state_offsets;
                &self.folded.state_data[offsets[number] as usize..offsets[number + 1] as usize]
            }
        }
    }
}

/// What of a cell is to be stored anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    Nothing,
    Head,
    Both,
}
