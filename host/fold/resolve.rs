//! Which ops are to blame for a call that failed, so that the caller can plan it once more without them.

use crate::call::{FoldCall, Folded, Udf, op, size};
use crate::error::CallFailure;
use arrow::array::{ArrayRef, UInt32Array};
use arrow::compute::take;
use std::collections::{BTreeMap, BTreeSet};

/// Finds the ops that fail in a call that failed: (index in the tape, reason), ascending. Empty when the call runs
/// after all, or when no op alone is to blame.
///
/// - A UDF that names its failing ops is believed; the rest is run again without them, since they may fail otherwise.
/// - After a trap, or when fuel, memory or output ran out, or a result cannot be read, the tape is run in halves, one
///   after the other, all slots kept in between as encoded states, down to one op. Only that is judged, on the fuel
///   of one op with its row and its states; then it is skipped, and its slot stays as it was.
/// - A kept state that is too large at the end is the fault of the last op that wrote its slot. States in the middle
///   of a tape and scratch slots have no limit of their own.
///
/// So the answer depends on the call alone, never on the instance or on other calls. It may differ from what one op
/// does on a new slot: whoever needs that (the row's fault or the state's?) makes that call.
pub fn judge(udf: &Udf, call: &FoldCall<'_>) -> Vec<(u32, String)> {
    let mut blamed = BTreeMap::new();
    match udf.fold(call) {
        Ok(_) => {}
        Err(CallFailure::StatesTooLarge { slots, limit }) => blame_last_writers(call, &slots, limit, &mut blamed),
        Err(_) => {
            let mut states = States::of(call);
            let ops: Vec<u32> = (0..).take(call.tape.len() / 2).collect();
            Judge { udf, call, blamed: &mut blamed }.run(&ops, &mut states);
        }
    }
    blamed.into_iter().collect()
}

fn blame_last_writers(call: &FoldCall<'_>, slots: &[u32], limit: u64, blamed: &mut BTreeMap<u32, String>) {
    for slot in slots {
        let writes = |pair: &[u32]| pair[0] >> 3 == *slot && pair[0] & 7 != op::EMIT;
        let last = (0..).zip(call.tape.chunks_exact(2)).filter(|(_, pair)| writes(pair)).last();
        if let Some((index, _)) = last {
            blamed.insert(index, format!("the state is above the limit of {limit} bytes encoded"));
        }
    }
}

/// The encoded states of all slots between two parts of a tape.
struct States(Vec<Vec<u8>>);

impl States {
    fn of(call: &FoldCall<'_>) -> States {
        let mut states = vec![Vec::new(); size(call.slots)];
        for (state, span) in states.iter_mut().zip(call.state_offsets.windows(2)) {
            *state = call.state_data.get(size(span[0])..size(span[1])).unwrap_or_default().to_vec();
        }
        States(states)
    }
}

struct Judge<'a, 'b> {
    udf: &'a Udf,
    call: &'a FoldCall<'a>,
    blamed: &'b mut BTreeMap<u32, String>,
}

impl Judge<'_, '_> {
    /// Runs these ops, blames those that fail, and leaves the states as the others make them.
    fn run(&mut self, ops: &[u32], states: &mut States) {
        let mut ops = ops.to_vec();
        while !ops.is_empty() {
            let failure = match self.part(&ops, states) {
                Ok(()) => return,
                Err(failure) => failure,
            };
            match failure {
                CallFailure::Ops(failed) => {
                    for (index, reason) in &failed {
                        if let Some(op) = ops.get(size(*index)) {
                            self.blamed.insert(*op, reason.clone());
                        }
                    }
                    ops.retain(|op| !self.blamed.contains_key(op));
                }
                failure if ops.len() == 1 => {
                    self.blamed.insert(ops[0], failure.to_string());
                    return;
                }
                _ => {
                    let (earlier, later) = ops.split_at(ops.len() / 2);
                    self.run(earlier, states);
                    self.run(later, states);
                    return;
                }
            }
        }
    }

    /// Runs ops as a call of their own, with the slots and rows that they use and no others.
    fn part(&self, ops: &[u32], states: &mut States) -> Result<(), CallFailure> {
        let pairs: Vec<(u32, u32)> = ops
            .iter()
            .filter_map(|op| self.call.tape.get(size(*op) * 2..size(*op) * 2 + 2))
            .map(|pair| (pair[0], pair[1]))
            .collect();
        let takes_slot = |word: u32| matches!(word & 7, op::MERGE | op::COPY);
        let mut slots = BTreeSet::new();
        let mut rows = BTreeSet::new();
        for (word, operand) in &pairs {
            slots.insert(word >> 3);
            if takes_slot(*word) {
                slots.insert(*operand);
            } else if word & 7 == op::UPDATE {
                rows.insert(*operand);
            }
        }
        let number = |set: &BTreeSet<u32>| -> BTreeMap<u32, u32> { set.iter().copied().zip(0..).collect() };
        let (slot_numbers, row_numbers) = (number(&slots), number(&rows));
        let new = |numbers: &BTreeMap<u32, u32>, old: u32| numbers.get(&old).copied().unwrap_or(0);
        let mut tape = Vec::with_capacity(pairs.len() * 2);
        for (word, operand) in pairs {
            tape.push(op::word(word & 7, new(&slot_numbers, word >> 3)));
            tape.push(match word & 7 {
                op::UPDATE => new(&row_numbers, operand),
                _ if takes_slot(word) => new(&slot_numbers, operand),
                _ => operand,
            });
        }
        let mut state_offsets = vec![0u32];
        let mut state_data = Vec::new();
        for slot in &slots {
            state_data.extend_from_slice(states.0.get(size(*slot)).map_or(&[], Vec::as_slice));
            let end = u32::try_from(state_data.len());
            state_offsets.push(end.map_err(|_| CallFailure::Input("states of more than 4 GiB".to_owned()))?);
        }
        let chosen = UInt32Array::from_iter_values(rows.iter().copied());
        let columns: Result<Vec<ArrayRef>, _> =
            self.call.columns.iter().map(|column| take(column, &chosen, None)).collect();
        let columns = columns.map_err(|error| CallFailure::Input(error.to_string()))?;
        let count = |length: usize| u32::try_from(length).unwrap_or(u32::MAX);
        let folded: Folded = self.udf.fold_unlimited(&FoldCall {
            slots: count(slots.len()),
            keep: count(slots.len()),
            tape: &tape,
            state_offsets: &state_offsets,
            state_data: &state_data,
            rows: count(rows.len()),
            columns: &columns,
        })?;
        for (slot, span) in slots.iter().zip(folded.state_offsets.windows(2)) {
            if let Some(state) = states.0.get_mut(size(*slot)) {
                *state = folded.state_data.get(size(span[0])..size(span[1])).unwrap_or_default().to_vec();
            }
        }
        Ok(())
    }
}
