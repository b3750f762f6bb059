//! One feature over many cells: plan, call the module, hand back states and values; and what to do when it fails.
//!
//! Nothing of a failed call counts. The failing operations are found, the rows and tiles behind them set aside, and
//! the same cells are planned once more without them (rule 11 of the window rules):
//!
//! - a row whose `update` also fails alone, on a new state, is refused for this feature, and told to the caller;
//! - a row that passes alone has broken its tile: the tile is `failed`, with the reason, until it leaves its windows;
//! - a merge that fails while a value is made fails that value; one that was only kept for later is not kept.

use crate::call::{FoldCall, Folded, Udf};
use crate::cell::{self, DamagedCell};
use crate::error::CallFailure;
use crate::plan::{Origin, PlannedCell, PlannedProbe, Planner, State};
use crate::split::resolve;
use crate::window::Window;
use arrow::array::ArrayRef;
use std::collections::BTreeMap;

/// A call is closed when its cells hold this much, so that a batch of large states does not outgrow a module's memory.
const CALL_STATE_BYTES: usize = 1 << 18;
/// ... or when its tape has this many operations.
const CALL_OPS: usize = 1 << 13;

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
        self.planner.origins = None;
        let mut refused = BTreeMap::new();
        let mut first = 0;
        while first < cells.count() {
            let end = self.plan_from(first, cells)?;
            cells.planned();
            match self.call(rows, columns) {
                Ok(folded) => {
                    let results = Results { planner: &self.planner, folded: &folded };
                    cells.settle(first, &results);
                    first = end;
                }
                Err(failure @ CallFailure::Input(_)) => return Err(failure.into()),
                Err(_) if self.planner.origins.is_none() => {
                    // The same plan again, this time noting what each operation is for.
                    self.planner.origins = Some(Vec::new());
                    self.plan_from(first, cells)?;
                    match self.resolve(rows, columns) {
                        Ok(folded) => {
                            let results = Results { planner: &self.planner, folded: &folded };
                            cells.settle(first, &results);
                            first = end;
                        }
                        Err(failed) => self.set_aside(rows, columns, failed, &mut refused)?,
                    }
                    self.planner.origins = None;
                }
                Err(failure) => return Err(failure.into()),
            }
        }
        Ok(refused.into_iter().map(|(row, message)| FailedRow { row, message }).collect())
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

    fn resolve(&self, rows: u32, columns: &[ArrayRef]) -> Result<Folded, Vec<(u32, String)>> {
        resolve(&self.udf, &self.fold_call(rows, columns))
    }

    /// Puts what lies behind the failed operations aside.
    fn set_aside(
        &mut self,
        rows: u32,
        columns: &[ArrayRef],
        failed: Vec<(u32, String)>,
        refused: &mut BTreeMap<u32, String>,
    ) -> Result<(), JobError> {
        let origins = self.planner.origins.take().unwrap_or_default();
        if failed.is_empty() {
            let text = "the call fails whole and passes in parts, and no operation of it is to blame".into();
            return Err(CallFailure::Invalid(text).into());
        }
        let mut alone = BTreeMap::new();
        for (op, message) in failed {
            match origins.get(op as usize) {
                Some(Origin::Update { cell, tile, row }) => {
                    let verdict = alone.entry(*row).or_insert_with(|| self.fails_alone(*row, rows, columns)).clone();
                    match verdict {
                        Some(reason) => {
                            self.planner.set_aside.rows.insert(*row);
                            refused.insert(*row, reason);
                        }
                        None => {
                            self.planner.set_aside.tiles.insert((*cell, *tile), message);
                        }
                    }
                }
                Some(Origin::Cache { cell }) => {
                    self.planner.set_aside.uncached.insert(*cell);
                }
                Some(Origin::Probe { cell, nth }) => {
                    self.planner.set_aside.probes.insert((*cell, *nth), message);
                }
                None => {
                    let text = format!("op {op} failed that is not on the tape: {message}");
                    return Err(CallFailure::Invalid(text).into());
                }
            }
        }
        Ok(())
    }

    /// Whether the row's `update` fails on a new state with nothing else in the call, and why.
    fn fails_alone(&self, row: u32, rows: u32, columns: &[ArrayRef]) -> Option<String> {
        let call = FoldCall {
            slots: 1,
            keep: 1,
            tape: &[crate::tape::UPDATE, row],
            state_offsets: &[0, 0],
            state_data: &[],
            rows,
            columns,
        };
        match self.udf.fold(&call) {
            Ok(_) => None,
            Err(CallFailure::Ops(mut ops)) if !ops.is_empty() => Some(ops.swap_remove(0).1),
            Err(failure) => Some(failure.to_string()),
        }
    }
}

/// What a call without operations gives.
fn nothing(udf: &Udf) -> Folded {
    let outputs = udf.outputs().iter().map(|field| arrow::array::new_empty_array(&field.kind.data_type()));
    Folded { state_offsets: vec![0], state_data: Vec::new(), outputs: outputs.collect(), reasons: Vec::new() }
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
