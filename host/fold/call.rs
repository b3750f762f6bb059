//! Typed calls: one `fold` or `transform` for a whole batch, everything that comes back checked before it is used.

use crate::engine::Limits;
use crate::error::CallFailure;
use crate::kind::{Field, Kind};
use crate::module::contract::types::{ColumnResult, FoldError};
use crate::module::{Module, Prepared, Role, contract};
use crate::pool::{Instance, WireFold};
use crate::wire::{Rejected, Wire, decode, encode, spans, texts, words};
use arrow::array::ArrayRef;
use arrow::datatypes::ToByteSlice;
use std::cell::Cell;
use std::sync::Arc;

/// The ops of a tape (`udf.wit`): the low three bits of a pair's first word. The others are the slot.
pub mod op {
    /// Slot takes in a row.
    pub const UPDATE: u32 = 0;
    /// Slot takes in another slot, whose rows are later.
    pub const MERGE: u32 = 1;
    /// Slot becomes a copy of another.
    pub const COPY: u32 = 2;
    /// Slot becomes new.
    pub const RESET: u32 = 3;
    /// Slot gives one output row.
    pub const EMIT: u32 = 4;
    /// The largest slot number: the op takes three bits.
    pub const MOST_SLOT: u32 = u32::MAX >> 3;

    /// The first word of an op.
    pub const fn word(op: u32, slot: u32) -> u32 {
        slot << 3 | op
    }
}

/// A UDF with its parameters and input kinds fixed. Cheap to clone; calls from many threads go to different instances.
#[derive(Clone)]
pub struct Udf {
    pub(crate) module: Module,
    pub(crate) prepared: Arc<Prepared>,
    /// What the columns of a call are: the inputs, and the event time where it is asked for.
    pub(crate) columns: Arc<[Field]>,
}

/// One call of an aggregate.
#[derive(Clone, Copy, Debug)]
pub struct FoldCall<'a> {
    /// Slots in all; those beyond the states that come in start new.
    pub slots: u32,
    /// Slots `0..keep` go out again.
    pub keep: u32,
    /// The next so many go out to be measured: they may have any size, and only that comes back.
    pub measure: u32,
    /// Pairs of words: `op::word(op, slot)`, operand.
    pub tape: &'a [u32],
    /// One more than states that come in, from 0; state `i` is `state_data[state_offsets[i]..state_offsets[i + 1]]`,
    /// empty = new. No offsets at all = no states.
    pub state_offsets: &'a [u32],
    pub state_data: &'a [u8],
    /// Rows of the columns.
    pub rows: u32,
    /// The inputs in the order of `prepare`, then the event time if the UDF needs it.
    pub columns: &'a [ArrayRef],
}

/// What an aggregate's call gave.
#[derive(Clone, Debug)]
pub struct Folded {
    /// `keep + 1` offsets into `state_data`.
    pub state_offsets: Vec<u32>,
    pub state_data: Vec<u8>,
    /// Bytes of the encoded states that were to be measured.
    pub measured: Vec<u32>,
    /// One array an output, one row an emit, in the tape's order.
    pub outputs: Vec<ArrayRef>,
    /// Why values of an emit are null: (number of the emit, reason), ascending.
    pub reasons: Vec<(u32, String)>,
}

/// What a transform's call gave.
#[derive(Clone, Debug)]
pub struct Mapped {
    /// The input row of each output row, never falling.
    pub parents: Vec<u32>,
    /// One array an output, one row for each of `parents`.
    pub outputs: Vec<ArrayRef>,
    /// Input rows that failed, ascending, and why. They have no output; the others count.
    pub failed: Vec<(u32, String)>,
}

impl Udf {
    pub(crate) fn new(module: Module, prepared: Arc<Prepared>) -> Udf {
        let mut columns = prepared.spec.inputs.clone();
        if prepared.claims.event_time {
            columns.push(Field::new("event_time", Kind::Timestamp));
        }
        Udf { module, prepared, columns: columns.into() }
    }

    /// The module it is in.
    pub fn module(&self) -> &Module {
        &self.module
    }

    /// Its name in the module.
    pub fn name(&self) -> &str {
        &self.prepared.spec.udf
    }

    pub fn role(&self) -> Role {
        self.prepared.role
    }

    /// The columns that a call takes: the inputs, then `event_time` where it is needed.
    pub fn columns(&self) -> &[Field] {
        &self.columns
    }

    /// One or more, with unique names.
    pub fn outputs(&self) -> &[Field] {
        &self.prepared.outputs
    }

    /// Calls take the event time as one more column behind the inputs.
    pub fn needs_event_time(&self) -> bool {
        self.prepared.claims.event_time
    }

    /// The rows of a slot must come in canonical order.
    pub fn ordered(&self) -> bool {
        self.prepared.claims.ordered
    }

    /// Knows `merge`; without it only tumbling windows and none are possible.
    pub fn mergeable(&self) -> bool {
        self.prepared.claims.mergeable
    }

    /// A transform that gives exactly one row for each.
    pub fn one_to_one(&self) -> bool {
        self.prepared.claims.one_to_one
    }

    /// Runs a tape. Nothing of a failed call counts; `FoldJob` finds the ops to leave out.
    pub fn fold(&self, call: &FoldCall<'_>) -> Result<Folded, CallFailure> {
        self.fold_pooled(self.module.inner.pool.take()?, call, self.limits().state_bytes, &Cell::new(0))
    }

    /// `fold` of a part of a tape, in the middle of which states have no limit; `fresh`: in a new instance. Says what
    /// fuel it took.
    pub(crate) fn fold_part(&self, call: &FoldCall<'_>, fresh: bool, fuel: &Cell<u64>) -> Result<Folded, CallFailure> {
        let pool = &self.module.inner.pool;
        self.fold_pooled(if fresh { pool.start() } else { pool.take() }?, call, usize::MAX, fuel)
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.module.inner.limits
    }

    fn fold_pooled(
        &self,
        mut instance: Instance,
        call: &FoldCall<'_>,
        state_bytes: usize,
        fuel: &Cell<u64>,
    ) -> Result<Folded, CallFailure> {
        let folded = self.fold_in(&mut instance, call, state_bytes);
        fuel.set(instance.fuel_spent());
        // After the UDF's own word (and after a call that never reached it) the instance is as good as before.
        if matches!(
            folded,
            Ok(_) | Err(CallFailure::Ops(_) | CallFailure::StatesTooLarge { .. } | CallFailure::Input(_))
        ) {
            self.module.inner.pool.give_back(instance);
        }
        folded
    }

    /// `fold`, in an instance of the caller's.
    pub(crate) fn fold_in(
        &self,
        instance: &mut Instance,
        call: &FoldCall<'_>,
        state_bytes: usize,
    ) -> Result<Folded, CallFailure> {
        self.expect(Role::Aggregate)?;
        let emits = check_call(call).map_err(CallFailure::Input)?;
        let limits = &self.module.inner.limits;
        let wires = self.encode(call.columns, call.rows)?;
        let columns: Vec<_> = wires.iter().map(Wire::column).collect();
        let zero = [0u32];
        let state_offsets = if call.state_offsets.is_empty() { &zero } else { call.state_offsets };
        let wire = WireFold {
            slots: call.slots,
            keep: call.keep.saturating_add(call.measure),
            tape: call.tape.to_byte_slice(),
            state_offsets: state_offsets.to_byte_slice(),
            state_data: call.state_data,
            rows: call.rows,
            columns: &columns,
        };
        let handle = self.module.inner.handle(instance, &self.prepared)?;
        match instance.fold(handle, &wire)? {
            Ok(folded) => self.check_folded(call, emits, folded, state_bytes),
            Err(error) => Err(check_fold_error(call, &error, limits.message_bytes)),
        }
    }

    fn check_folded(
        &self,
        call: &FoldCall<'_>,
        emits: usize,
        folded: contract::Folded,
        state_bytes: usize,
    ) -> Result<Folded, CallFailure> {
        let limits = &self.module.inner.limits;
        let (states, out) = (folded.states, size(call.keep) + size(call.measure));
        let mut state_data = states.data;
        let mut state_offsets =
            spans(&states.offsets, out, state_data.len(), "states").map_err(CallFailure::Invalid)?;
        let measured = state_offsets[size(call.keep)..].windows(2).map(|pair| pair[1] - pair[0]).collect();
        state_offsets.truncate(size(call.keep) + 1);
        state_data.truncate(state_offsets.last().map_or(0, |end| size(*end)));
        let slots: Vec<u32> = (0..)
            .zip(state_offsets.windows(2))
            .filter(|(_, pair)| size(pair[1] - pair[0]) > state_bytes)
            .map(|(slot, _)| slot)
            .collect();
        if !slots.is_empty() {
            return Err(CallFailure::StatesTooLarge { slots, limit: count(state_bytes) });
        }
        let outputs = self.decode(folded.outputs, emits)?;
        let reasons = texts(&folded.reasons, emits, limits.message_bytes, "reasons").map_err(CallFailure::Invalid)?;
        let reasons = (0..).zip(reasons).filter(|(_, reason)| !reason.is_empty()).collect();
        Ok(Folded { state_offsets, state_data, measured, outputs, reasons })
    }

    /// Maps rows. A row that fails is named in the result; a call that fails as a whole gives nothing.
    pub fn transform(&self, rows: usize, columns: &[ArrayRef]) -> Result<Mapped, CallFailure> {
        let pool = &self.module.inner.pool;
        let mut instance = pool.take()?;
        let mut mapped = self.transform_in(&mut instance, rows, columns);
        // One row that fails is judged in an instance that nothing ran in before.
        if rows == 1 && !matches!(mapped, Ok(_) | Err(CallFailure::Input(_))) {
            instance = pool.start()?;
            mapped = self.transform_in(&mut instance, rows, columns);
        }
        if matches!(mapped, Ok(_) | Err(CallFailure::Input(_))) {
            pool.give_back(instance);
        }
        mapped
    }

    /// `transform`, in an instance of the caller's.
    pub(crate) fn transform_in(
        &self,
        instance: &mut Instance,
        rows: usize,
        columns: &[ArrayRef],
    ) -> Result<Mapped, CallFailure> {
        self.expect(Role::Transform)?;
        let limits = &self.module.inner.limits;
        let row_count =
            u32::try_from(rows).map_err(|_| CallFailure::Input(format!("{rows} rows are more than u32")))?;
        let wires = self.encode(columns, row_count)?;
        let columns: Vec<_> = wires.iter().map(Wire::column).collect();
        let handle = self.module.inner.handle(instance, &self.prepared)?;
        let mapped = instance.transform(handle, row_count, &columns)?;
        let parents = words(&mapped.parents, "parents").map_err(CallFailure::Invalid)?;
        let failed = words(&mapped.failed, "failed rows").map_err(CallFailure::Invalid)?;
        self.check_rows(row_count, &parents, &failed).map_err(CallFailure::Invalid)?;
        let messages = texts(&mapped.messages, failed.len(), limits.message_bytes, "messages of failed rows");
        let outputs = self.decode(mapped.outputs, parents.len())?;
        let failed = failed.into_iter().zip(messages.map_err(CallFailure::Invalid)?).collect();
        Ok(Mapped { parents, outputs, failed })
    }

    fn check_rows(&self, rows: u32, parents: &[u32], failed: &[u32]) -> Result<(), String> {
        if let Some(parent) = parents.iter().find(|parent| **parent >= rows) {
            return Err(format!("parent {parent} is not one of {rows} rows"));
        }
        if let Some(pair) = parents.windows(2).find(|pair| pair[0] > pair[1]) {
            return Err(format!("parents fall from {} to {}", pair[0], pair[1]));
        }
        if let Some(row) = failed.iter().find(|row| **row >= rows) {
            return Err(format!("failed row {row} is not one of {rows} rows"));
        }
        if let Some(pair) = failed.windows(2).find(|pair| pair[0] >= pair[1]) {
            return Err(format!("failed rows do not rise: {} before {}", pair[0], pair[1]));
        }
        if let Some(row) = failed.iter().find(|row| parents.binary_search(row).is_ok()) {
            return Err(format!("row {row} failed and has an output"));
        }
        if self.one_to_one() {
            let whole = parents.len().checked_add(failed.len()) == Some(size(rows));
            if let Some(pair) = parents.windows(2).find(|pair| pair[0] == pair[1]) {
                return Err(format!("the udf claims one-to-one and gave two rows for row {}", pair[0]));
            }
            if !whole {
                return Err(format!("the udf claims one-to-one and gave {} rows for {rows}", parents.len()));
            }
        }
        Ok(())
    }

    fn expect(&self, role: Role) -> Result<(), CallFailure> {
        if self.prepared.role == role {
            return Ok(());
        }
        Err(CallFailure::Input(format!("`{}` is not {role:?}", self.name())))
    }

    fn encode<'a>(&self, columns: &'a [ArrayRef], rows: u32) -> Result<Vec<Wire<'a>>, CallFailure> {
        if columns.len() != self.columns.len() {
            let wanted = self.columns.len();
            return Err(CallFailure::Input(format!("{} columns were passed, the udf takes {wanted}", columns.len())));
        }
        let wires = self.columns.iter().zip(columns).map(|(field, array)| encode(field, array, size(rows)));
        wires.collect::<Result<_, _>>().map_err(CallFailure::Input)
    }

    fn decode(&self, columns: Vec<ColumnResult>, rows: usize) -> Result<Vec<ArrayRef>, CallFailure> {
        let limits = &self.module.inner.limits;
        let outputs = &self.prepared.outputs;
        if columns.len() != outputs.len() {
            let wanted = outputs.len();
            return Err(CallFailure::Invalid(format!("{} output columns, prepare said {wanted}", columns.len())));
        }
        let arrays = outputs.iter().zip(columns).map(|(field, column)| {
            decode(field, column, rows, limits.column_value_bytes).map_err(|rejected| match rejected {
                Rejected::Broken(why) => CallFailure::Invalid(why),
                Rejected::TooLarge(what) => {
                    CallFailure::OutputTooLarge { what, limit: count(limits.column_value_bytes) }
                }
            })
        });
        arrays.collect()
    }
}

/// Checks that the host's own call is whole, and counts its emits.
fn check_call(call: &FoldCall<'_>) -> Result<usize, String> {
    let states = call.state_offsets.len().saturating_sub(1);
    let out = size(call.keep) + size(call.measure);
    if size(call.slots) < states.max(out) || call.slots > op::MOST_SLOT {
        return Err(format!("{} slots for {states} states, {out} to go out", call.slots));
    }
    let ends = call.state_offsets.last().copied().unwrap_or(0);
    if call.state_offsets.first().is_some_and(|first| *first != 0) || size(ends) != call.state_data.len() {
        return Err(format!("state offsets do not span the {} bytes of states", call.state_data.len()));
    }
    let (pairs, rest) = call.tape.as_chunks::<2>();
    if !rest.is_empty() {
        return Err("the tape has half an op".to_owned());
    }
    let mut emits = 0;
    for [word, operand] in pairs {
        let known = match word & 7 {
            op::UPDATE => *operand < call.rows,
            op::MERGE | op::COPY => *operand < call.slots,
            op::RESET => true,
            op::EMIT => {
                emits += 1;
                true
            }
            _ => false,
        };
        if !known || word >> 3 >= call.slots {
            return Err(format!("op {} on slot {} with operand {operand} is not possible", word & 7, word >> 3));
        }
    }
    Ok(emits)
}

fn check_fold_error(call: &FoldCall<'_>, error: &FoldError, message_bytes: usize) -> CallFailure {
    let ops = match words(&error.ops, "failed ops") {
        Ok(ops) => ops,
        Err(why) => return CallFailure::Invalid(why),
    };
    if ops.is_empty() {
        return CallFailure::Invalid("fold failed and names no op that did".to_owned());
    }
    if let Some(op) = ops.iter().find(|op| size(**op) >= call.tape.len() / 2) {
        return CallFailure::Invalid(format!("failed op {op} is not one of {} ops", call.tape.len() / 2));
    }
    if let Some(pair) = ops.windows(2).find(|pair| pair[0] >= pair[1]) {
        return CallFailure::Invalid(format!("failed ops do not rise: {} before {}", pair[0], pair[1]));
    }
    match texts(&error.messages, ops.len(), message_bytes, "messages of failed ops") {
        Ok(messages) => CallFailure::Ops(ops.into_iter().zip(messages).collect()),
        Err(why) => CallFailure::Invalid(why),
    }
}

/// A u32 as a size: this program runs on 64 bits.
pub(crate) fn size(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

pub(crate) fn count(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}
