//! The tape: what the host asks of an aggregate in one call, and how it is run.

use crate::column::Column;
use crate::kind::Field;
use crate::output::{Buffers, Builder, Texts};
use crate::state::{Malformed, Reader, State};
use std::collections::BTreeMap;

/// A prepared aggregate: parameters and kinds are in `self`, each call brings its columns and states.
///
/// Most aggregates are written with [`Aggregate`](crate::Aggregate); this is for those that take inputs of any kind.
pub trait Fold: 'static {
    type State: State + Clone;

    /// The columns of a call, checked and ready to be read by row.
    type View<'a>;

    fn view<'a>(&self, columns: &[Column<'a>], rows: usize) -> Result<Self::View<'a>, String>;

    /// The state before any row.
    fn start(&self) -> Self::State;

    /// Takes one row in. An error refuses the row; it must depend on the row alone and leave the state as it was.
    fn update(&self, state: &mut Self::State, view: &Self::View<'_>, row: usize) -> Result<(), String>;

    /// Takes in what `later` has seen.
    fn merge(&self, state: &mut Self::State, later: &Self::State) -> Result<(), String>;

    /// Appends one value to each output. The text says why values are null where that is not plain; empty = nothing to say.
    fn finish(&self, state: &Self::State, outputs: &mut [Builder]) -> Result<&'static str, String>;
}

/// One call of the contract's `fold`.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    pub slots: u32,
    pub keep: u32,
    /// Pairs of little-endian u32: op in the low 3 bits and slot in the others, then the operand.
    pub tape: &'a [u8],
    /// u32 offsets of the states that come in, one more than states; empty = none come.
    pub state_offsets: &'a [u8],
    pub state_data: &'a [u8],
    pub rows: u32,
    pub columns: &'a [Column<'a>],
}

/// What a call gives back: the kept states and one output row an emit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Folded {
    pub state_offsets: Vec<u8>,
    pub state_data: Vec<u8>,
    pub outputs: Vec<Buffers>,
    pub reasons: Texts,
}

/// The ops of the tape that failed, ascending, and why.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FoldError {
    pub ops: Vec<u8>,
    pub messages: Texts,
    count: usize,
}

impl FoldError {
    /// A call that is wrong as a whole: reported at its first op.
    pub fn whole(message: String) -> FoldError {
        let mut error = FoldError::default();
        error.add(0, &message);
        error
    }

    fn add(&mut self, op: usize, message: &str) {
        self.ops.extend_from_slice(&(op as u32).to_le_bytes());
        // An op that failed without a word still has to be told from one that did not fail.
        self.messages.push(self.count, if message.is_empty() { "failed" } else { message });
        self.count += 1;
    }

    /// The failed ops with their messages.
    pub fn list(&self) -> Vec<(u32, &str)> {
        let (ops, _) = self.ops.as_chunks::<4>();
        ops.iter().enumerate().map(|(at, op)| (u32::from_le_bytes(*op), self.messages.get(at))).collect()
    }
}

const UPDATE: u32 = 0;
const MERGE: u32 = 1;
const COPY: u32 = 2;
const RESET: u32 = 3;
const EMIT: u32 = 4;

/// No call may ask for more slots than this: a tape of 2^29 ops could not name them either.
const MAX_SLOTS: u32 = 1 << 24;

/// Runs a tape.
pub fn run<F: Fold>(fold: &F, outputs: &[Field], call: &Call<'_>) -> Result<Folded, FoldError> {
    let rows = call.rows as usize;
    let view = fold.view(call.columns, rows).map_err(FoldError::whole)?;
    let (ops, rest) = call.tape.as_chunks::<8>();
    if !rest.is_empty() {
        return Err(FoldError::whole(format!("a tape of {} bytes is not a whole number of ops", call.tape.len())));
    }
    if call.keep > call.slots || call.slots > MAX_SLOTS {
        let Call { keep, slots, .. } = call;
        return Err(FoldError::whole(format!("{keep} states kept of {slots} slots: keep <= slots <= {MAX_SLOTS}")));
    }
    let (mut states, undecodable) = read_states(fold, call)?;
    let mut builders: Vec<Builder> = outputs.iter().map(|field| Builder::new(field.kind)).collect();
    let mut reasons = Texts::default();
    let mut emits = 0;
    let mut error = FoldError::default();

    for (at, word) in ops.iter().enumerate() {
        let [a, b, c, d, e, f, g, h] = *word;
        let head = u32::from_le_bytes([a, b, c, d]);
        let operand = u32::from_le_bytes([e, f, g, h]) as usize;
        let (op, slot) = (head & 7, (head >> 3) as usize);
        if !undecodable.is_empty() && op != RESET {
            let other = matches!(op, MERGE | COPY).then_some(operand);
            if let Some(malformed) = undecodable.get(&slot).or(other.and_then(|other| undecodable.get(&other))) {
                error.add(at, &malformed.to_string());
                continue;
            }
        }
        let outcome = match op {
            UPDATE => match states.get_mut(slot) {
                Some(state) if operand < rows => fold.update(state, &view, operand),
                Some(_) => Err(format!("row {operand} of {rows}")),
                None => Err(no_slot(slot, call.slots)),
            },
            MERGE => merge(fold, &mut states, slot, operand),
            COPY => match (states.get(operand).cloned(), states.get_mut(slot)) {
                (Some(from), Some(state)) => {
                    *state = from;
                    Ok(())
                }
                _ => Err(no_slot(slot.max(operand), call.slots)),
            },
            RESET => match states.get_mut(slot) {
                Some(state) => {
                    *state = fold.start();
                    Ok(())
                }
                None => Err(no_slot(slot, call.slots)),
            },
            EMIT => match states.get(slot) {
                Some(state) => fold.finish(state, &mut builders).map(|reason| {
                    reasons.push(emits, reason);
                    emits += 1;
                }),
                None => Err(no_slot(slot, call.slots)),
            },
            _ => Err(format!("op {op} is not known: ops are 0 to 4")),
        };
        if let Err(message) = outcome {
            error.add(at, &message);
        }
    }
    if error.count > 0 {
        return Err(error);
    }
    if let Some((slot, malformed)) = undecodable.iter().find(|(slot, _)| **slot < call.keep as usize) {
        return Err(FoldError::whole(format!("slot {slot}: {malformed}")));
    }
    let (state_offsets, state_data) = write_states(states.get(..call.keep as usize).unwrap_or_default());
    Ok(Folded { state_offsets, state_data, outputs: builders.into_iter().map(Builder::finish).collect(), reasons })
}

fn no_slot(slot: usize, slots: u32) -> String {
    format!("slot {slot} of {slots}")
}

fn merge<F: Fold>(fold: &F, states: &mut [F::State], slot: usize, other: usize) -> Result<(), String> {
    match states.get_disjoint_mut([slot, other]) {
        Ok([state, later]) => fold.merge(state, later),
        Err(_) => match (states.get(other).cloned(), states.get_mut(slot)) {
            (Some(later), Some(state)) => fold.merge(state, &later),
            _ => Err(no_slot(slot.max(other), states.len() as u32)),
        },
    }
}

type ReadStates<F> = (Vec<<F as Fold>::State>, BTreeMap<usize, Malformed>);

fn read_states<F: Fold>(fold: &F, call: &Call<'_>) -> Result<ReadStates<F>, FoldError> {
    let (offsets, _) = call.state_offsets.as_chunks::<4>();
    let count = offsets.len().saturating_sub(1);
    if count > call.slots as usize {
        return Err(FoldError::whole(format!("{count} states came for {} slots", call.slots)));
    }
    let mut states = Vec::with_capacity(call.slots as usize);
    let mut undecodable = BTreeMap::new();
    for (slot, pair) in offsets.windows(2).enumerate() {
        let [start, end] = [pair[0], pair[1]].map(|offset| u32::from_le_bytes(offset) as usize);
        let bytes = call.state_data.get(start..end).ok_or_else(|| {
            FoldError::whole(format!("state {slot} lies at {start}..{end} of {} bytes", call.state_data.len()))
        })?;
        if bytes.is_empty() {
            states.push(fold.start());
            continue;
        }
        let mut reader = Reader::new(bytes);
        match F::State::decode(&mut reader) {
            Ok(state) if reader.is_empty() => states.push(state),
            outcome => {
                undecodable.insert(slot, outcome.err().unwrap_or(Malformed("bytes are left after its end")));
                states.push(fold.start());
            }
        }
    }
    states.resize_with(call.slots as usize, || fold.start());
    Ok((states, undecodable))
}

fn write_states<S: State>(states: &[S]) -> (Vec<u8>, Vec<u8>) {
    let mut offsets = Vec::with_capacity((states.len() + 1) * 4);
    let mut data = Vec::with_capacity(states.len() * 16);
    offsets.extend_from_slice(&[0; 4]);
    for state in states {
        state.encode(&mut data);
        offsets.extend_from_slice(&(data.len() as u32).to_le_bytes());
    }
    (offsets, data)
}
