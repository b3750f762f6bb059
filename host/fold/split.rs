//! A call that failed, taken apart: which operations are to blame, or, if none is, what the call gives in parts.
//!
//! - A module that names its failing operations is believed: the others are run without them.
//! - After a trap, when fuel, memory or output ran out, or when a result cannot be read, the tape is cut into parts
//!   that run one after the other, with the slots and rows they use and no others, down to one operation: one update
//!   of one slot, one merge of two. Only that is judged, in an instance that nothing ran in before.
//! - A kept state that is too large is the fault of the last operation that wrote it. States in the middle of a tape
//!   have no limit of their own.
//!
//! So what an operation may use never depends on the operations it came with. Whether the row or the state is at fault
//! is a second question: `refused_alone` asks it of rows, each on a new slot.

use crate::call::{FoldCall, Folded, count, op, size};
use crate::error::CallFailure;
use arrow::array::{Array, ArrayRef, UInt32Array};
use arrow::compute::{concat, take};
use std::collections::{BTreeMap, BTreeSet};

/// A call that fails is cut into so many parts. Two would do; but an operation that never ends uses up a whole call's
/// fuel in every part that holds it, and so there are a quarter as many.
const PARTS: usize = 16;

/// Runs a call without a limit on its states; the flag: in an instance that nothing ran in before.
pub(crate) type Run<'a> = &'a dyn Fn(&FoldCall<'_>, bool) -> Result<Folded, CallFailure>;

/// Takes apart a call that failed with `failure`: `Ok` with its results when every part passes, else the operations
/// that failed (index in the tape, ascending) and why.
pub(crate) fn resolve(
    run: Run<'_>,
    state_bytes: usize,
    call: &FoldCall<'_>,
    failure: CallFailure,
) -> Result<Folded, Vec<(u32, String)>> {
    match failure {
        CallFailure::Ops(failed) => return Err(failed),
        CallFailure::StatesTooLarge { slots, limit } => return Err(last_writers(call, &slots, limit)),
        _ => {}
    }
    let mut parts = Parts::of(run, call);
    let ops: Vec<u32> = (0..).take(call.tape.len() / 2).collect();
    parts.cut(&ops);
    if parts.failed.is_empty() { parts.folded(state_bytes) } else { Err(parts.failed.into_iter().collect()) }
}

/// Which of these rows fail on a new slot with nothing else, and why. `columns` have `row_count` rows.
pub(crate) fn refused_alone(
    run: Run<'_>,
    state_bytes: usize,
    rows: &BTreeSet<u32>,
    row_count: u32,
    columns: &[ArrayRef],
) -> BTreeMap<u32, String> {
    let tape: Vec<u32> = (0..).zip(rows).flat_map(|(slot, row)| [op::word(op::UPDATE, slot), *row]).collect();
    let slots = u32::try_from(rows.len()).unwrap_or(u32::MAX);
    let nothing = FoldCall {
        slots,
        keep: slots,
        measure: 0,
        tape: &tape,
        state_offsets: &[],
        state_data: &[],
        rows: row_count,
        columns,
    };
    let mut parts = Parts::of(run, &nothing);
    let ops: Vec<u32> = (0..slots).collect();
    if slots == 1 {
        parts.cut(&ops)
    } else {
        parts.run(&ops)
    }
    let mut failed = std::mem::take(&mut parts.failed);
    if let Err(too_large) = parts.folded(state_bytes) {
        failed.extend(too_large);
    }
    let rows: Vec<u32> = rows.iter().copied().collect();
    failed.into_iter().filter_map(|(op, why)| Some((*rows.get(size(op))?, why))).collect()
}

fn last_writers(call: &FoldCall<'_>, slots: &[u32], limit: u64) -> Vec<(u32, String)> {
    let reason = format!("the state is above the limit of {limit} bytes encoded; keep less in it");
    let last_writer = |slot: &u32| {
        let writes = |pair: &[u32]| pair[0] >> 3 == *slot && pair[0] & 7 != op::EMIT;
        (0..).zip(call.tape.chunks_exact(2)).filter(|(_, pair)| writes(pair)).last()
    };
    let blamed: BTreeSet<u32> = slots.iter().filter_map(last_writer).map(|(index, _)| index).collect();
    blamed.into_iter().map(|op| (op, reason.clone())).collect()
}

struct Parts<'a> {
    run: Run<'a>,
    call: &'a FoldCall<'a>,
    /// The encoded states of all slots between two parts; of a slot that nothing needs any more, nothing.
    states: Vec<Vec<u8>>,
    measured: Vec<u32>,
    /// For each slot the last operation that names it.
    last_uses: Vec<u32>,
    /// Outputs of the parts that ran, in order.
    outputs: Vec<Vec<ArrayRef>>,
    reasons: Vec<(u32, String)>,
    emitted: u32,
    failed: BTreeMap<u32, String>,
}

impl<'a> Parts<'a> {
    fn of(run: Run<'a>, call: &'a FoldCall<'a>) -> Parts<'a> {
        let mut states = vec![Vec::new(); size(call.slots)];
        for (state, span) in states.iter_mut().zip(call.state_offsets.windows(2)) {
            *state = call.state_data.get(size(span[0])..size(span[1])).unwrap_or_default().to_vec();
        }
        let mut last_uses = vec![0; size(call.slots)];
        for (index, pair) in (0..).zip(call.tape.chunks_exact(2)) {
            let other = takes_slot(pair[0]).then_some(pair[1]);
            for slot in [Some(pair[0] >> 3), other].into_iter().flatten() {
                if let Some(last) = last_uses.get_mut(size(slot)) {
                    *last = index;
                }
            }
        }
        Parts {
            run,
            call,
            states,
            measured: vec![0; size(call.measure)],
            last_uses,
            outputs: Vec::new(),
            reasons: Vec::new(),
            emitted: 0,
            failed: BTreeMap::new(),
        }
    }

    /// Runs operations that fail together in parts; one that is left is judged.
    fn cut(&mut self, ops: &[u32]) {
        if let [op] = ops {
            if let Err(failure) = self.part(ops, true) {
                let reason = match failure {
                    CallFailure::Ops(mut named) if !named.is_empty() => named.swap_remove(0).1,
                    failure => failure.to_string(),
                };
                self.failed.insert(*op, reason);
            }
            return;
        }
        for part in ops.chunks(ops.len().div_ceil(PARTS).max(1)) {
            self.run(part);
        }
    }

    /// Runs these operations on the states as they stand, leaving out those that fail.
    fn run(&mut self, ops: &[u32]) {
        if ops.is_empty() {
            return;
        }
        match self.part(ops, false) {
            Ok(()) => {}
            Err(CallFailure::Ops(named)) => {
                let before = self.failed.len();
                let named = named.into_iter().filter_map(|(index, why)| Some((*ops.get(size(index))?, why)));
                self.failed.extend(named);
                let others: Vec<u32> = ops.iter().copied().filter(|op| !self.failed.contains_key(op)).collect();
                if self.failed.len() > before {
                    self.run(&others);
                }
            }
            Err(_) => self.cut(ops),
        }
    }

    /// Runs operations as a call of their own. On an error nothing has changed.
    fn part(&mut self, ops: &[u32], fresh: bool) -> Result<(), CallFailure> {
        let Some(last) = ops.last() else { return Ok(()) };
        let pairs: Vec<(u32, u32)> = ops
            .iter()
            .filter_map(|op| self.call.tape.get(size(*op) * 2..size(*op) * 2 + 2))
            .map(|pair| (pair[0], pair[1]))
            .collect();
        // Slots that somebody needs afterwards come first, then those that are done and measured; no other goes out.
        let (keep, measure) = (self.call.keep, self.call.measure);
        let way_out = |slot: u32| match self.last_uses.get(size(slot)) {
            _ if slot < keep => Out::Kept,
            Some(last_use) if last_use > last => Out::Kept,
            _ if slot - keep < measure => Out::Measured,
            _ => Out::Dropped,
        };
        let mut slots = BTreeSet::new();
        let mut rows = BTreeSet::new();
        for (word, operand) in &pairs {
            slots.insert((way_out(word >> 3), word >> 3));
            if takes_slot(*word) {
                slots.insert((way_out(*operand), *operand));
            } else if word & 7 == op::UPDATE {
                rows.insert(*operand);
            }
        }
        let going = |way| slots.iter().filter(|(out, _)| *out == way).count();
        let (kept, to_measure) = (going(Out::Kept), going(Out::Measured));
        let slots: Vec<u32> = slots.into_iter().map(|(_, slot)| slot).collect();
        let slot_numbers: BTreeMap<u32, u32> = slots.iter().copied().zip(0..).collect();
        let row_numbers: BTreeMap<u32, u32> = rows.iter().copied().zip(0..).collect();
        let new = |numbers: &BTreeMap<u32, u32>, old: u32| numbers.get(&old).copied().unwrap_or(0);
        let mut tape = Vec::with_capacity(pairs.len() * 2);
        for (word, operand) in &pairs {
            tape.push(op::word(word & 7, new(&slot_numbers, word >> 3)));
            tape.push(match word & 7 {
                op::UPDATE => new(&row_numbers, *operand),
                _ if takes_slot(*word) => new(&slot_numbers, *operand),
                _ => *operand,
            });
        }
        let mut state_offsets = vec![0u32];
        let mut state_data = Vec::new();
        for slot in &slots {
            state_data.extend_from_slice(self.states.get(size(*slot)).map_or(&[], Vec::as_slice));
            let end = u32::try_from(state_data.len());
            state_offsets.push(end.map_err(|_| CallFailure::Input("states of more than 4 GiB".to_owned()))?);
        }
        let chosen = UInt32Array::from_iter_values(rows.iter().copied());
        let columns: Result<Vec<ArrayRef>, _> =
            self.call.columns.iter().map(|column| take(column, &chosen, None)).collect();
        let small = |length: usize| u32::try_from(length).unwrap_or(u32::MAX);
        let part = FoldCall {
            slots: small(slots.len()),
            keep: small(kept),
            measure: small(to_measure),
            tape: &tape,
            state_offsets: &state_offsets,
            state_data: &state_data,
            rows: small(rows.len()),
            columns: &columns.map_err(|error| CallFailure::Input(error.to_string()))?,
        };
        let folded = (self.run)(&part, fresh)?;
        for (number, slot) in slots.iter().enumerate() {
            let Some(state) = self.states.get_mut(size(*slot)) else { continue };
            let span = folded.state_offsets.get(number..number + 2);
            let bytes = span.and_then(|span| folded.state_data.get(size(span[0])..size(span[1])));
            *state = bytes.unwrap_or_default().to_vec();
        }
        for (slot, bytes) in slots[kept..].iter().zip(folded.measured) {
            if let Some(measured) = self.measured.get_mut(size(slot - keep)) {
                *measured = bytes;
            }
        }
        let first = self.emitted;
        self.emitted += small(pairs.iter().filter(|(word, _)| word & 7 == op::EMIT).count());
        self.reasons.extend(folded.reasons.into_iter().map(|(emit, reason)| (first + emit, reason)));
        self.outputs.push(folded.outputs);
        Ok(())
    }

    /// What all parts give together. An error: states that are too large.
    fn folded(self, state_bytes: usize) -> Result<Folded, Vec<(u32, String)>> {
        let kept = self.states.get(..size(self.call.keep)).unwrap_or_default();
        let too_large = (0..).zip(kept).filter(|(_, state)| state.len() > state_bytes).map(|(slot, _)| slot);
        let too_large: Vec<u32> = too_large.collect();
        if !too_large.is_empty() {
            return Err(last_writers(self.call, &too_large, count(state_bytes)));
        }
        let whole = |message: &dyn std::fmt::Display| vec![(0, message.to_string())];
        let mut state_offsets = vec![0u32];
        let mut state_data = Vec::new();
        for state in kept {
            state_data.extend_from_slice(state);
            state_offsets.push(u32::try_from(state_data.len()).map_err(|_| whole(&"states of more than 4 GiB"))?);
        }
        let columns = self.outputs.first().map_or(0, Vec::len);
        let mut outputs = Vec::with_capacity(columns);
        for column in 0..columns {
            let parts: Vec<&dyn Array> =
                self.outputs.iter().filter_map(|part| part.get(column)).map(|array| array.as_ref()).collect();
            outputs.push(concat(&parts).map_err(|error| whole(&error))?);
        }
        Ok(Folded { state_offsets, state_data, measured: self.measured, outputs, reasons: self.reasons })
    }
}

/// What becomes of a slot after a part.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Out {
    Kept,
    Measured,
    Dropped,
}

fn takes_slot(word: u32) -> bool {
    matches!(word & 7, op::MERGE | op::COPY)
}
