//! Runs UDFs natively over rows, through the very code that runs them in Wasm: for unit tests and benchmarks.

use crate::column::AnyColumn;
use crate::fold::{Call, FoldError};
use crate::kind::{Field, Kind};
use crate::module::{Instance, Module};
use crate::output::{Buffers, Builder};
use crate::value::Value;

/// A row: its event time (microseconds, UTC) and a value for each input.
pub type TimedRow = (i64, Vec<Value<'static>>);

/// An aggregate of a module, prepared.
pub struct Aggregation {
    instance: Instance,
    handle: u32,
    inputs: Vec<Field>,
    pub outputs: Vec<Field>,
    pub claims: Vec<&'static str>,
}

/// What a tape gave: the kept states, one row of values an emit, and the reasons.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    pub states: Vec<Vec<u8>>,
    pub emitted: Vec<Vec<Value<'static>>>,
    pub reasons: Vec<String>,
}

/// An op of a tape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    Update { slot: u32, row: u32 },
    Merge { slot: u32, later: u32 },
    Copy { slot: u32, from: u32 },
    Reset { slot: u32 },
    Emit { slot: u32 },
}

/// The bytes of a tape.
pub fn tape(ops: &[Op]) -> Vec<u8> {
    let word = |op: &Op| match *op {
        Op::Update { slot, row } => [slot << 3, row],
        Op::Merge { slot, later } => [slot << 3 | 1, later],
        Op::Copy { slot, from } => [slot << 3 | 2, from],
        Op::Reset { slot } => [slot << 3 | 3, 0],
        Op::Emit { slot } => [slot << 3 | 4, 0],
    };
    ops.iter().flat_map(|op| word(op).map(u32::to_le_bytes)).flatten().collect()
}

/// Columns of these kinds with these rows.
pub fn columns(kinds: &[Kind], rows: &[Vec<Value<'static>>]) -> Result<Vec<Buffers>, String> {
    let mut builders: Vec<Builder> = kinds.iter().map(|kind| Builder::new(*kind)).collect();
    for row in rows {
        if row.len() != kinds.len() {
            return Err(format!("{} values: the row needs {}", row.len(), kinds.len()));
        }
        builders.iter_mut().zip(row).try_for_each(|(builder, value)| builder.push(value))?;
    }
    Ok(builders.into_iter().map(Builder::finish).collect())
}

/// The values of columns, row by row.
pub fn values(fields: &[Field], columns: &[Buffers], rows: usize) -> Result<Vec<Vec<Value<'static>>>, String> {
    let views = fields.iter().zip(columns).map(|(field, buffers)| AnyColumn::of(field.kind, &buffers.column(), rows));
    let views = views.collect::<Result<Vec<_>, _>>()?;
    Ok((0..rows).map(|row| views.iter().map(|view| view.value(row).into_owned()).collect()).collect())
}

impl Aggregation {
    /// Prepares an aggregate; errors are those of `prepare`.
    pub fn new(module: Module, name: &str, params: &str, inputs: &[Field]) -> Result<Aggregation, String> {
        let mut instance = Instance::new(module);
        let (handle, prepared) = instance.prepare(name, params, inputs)?;
        let (outputs, claims) = (prepared.outputs.clone(), prepared.claims.clone());
        Ok(Aggregation { instance, handle, inputs: inputs.to_vec(), outputs, claims })
    }

    /// Runs a tape over rows, with states that come in.
    pub fn run(
        &self,
        states: &[Vec<u8>],
        slots: u32,
        keep: u32,
        ops: &[Op],
        rows: &[TimedRow],
    ) -> Result<Outcome, String> {
        self.try_run(states, slots, keep, ops, rows).map_err(|error| match error.list().first() {
            Some((op, message)) => format!("op {op}: {message}"),
            None => "failed without an op".to_owned(),
        })
    }

    /// The same, with all failing ops. Rows that do not fit the inputs are an error of op 0.
    pub fn try_run(
        &self,
        states: &[Vec<u8>],
        slots: u32,
        keep: u32,
        ops: &[Op],
        rows: &[TimedRow],
    ) -> Result<Outcome, FoldError> {
        let mut kinds: Vec<Kind> = self.inputs.iter().map(|field| field.kind).collect();
        let mut cells: Vec<Vec<Value<'static>>> = rows.iter().map(|(_, row)| row.clone()).collect();
        if self.claims.contains(&"event-time") {
            kinds.push(Kind::Timestamp);
            cells.iter_mut().zip(rows).for_each(|(cells, (time, _))| cells.push(Value::Timestamp(*time)));
        }
        let buffers = columns(&kinds, &cells).map_err(FoldError::whole)?;
        let views: Vec<_> = buffers.iter().map(Buffers::column).collect();
        let mut state_offsets = vec![0; 4];
        let state_data = states.concat();
        let mut end = 0;
        for state in states {
            end += state.len();
            state_offsets.extend_from_slice(&(end as u32).to_le_bytes());
        }
        let call = Call {
            slots,
            keep,
            tape: &tape(ops),
            state_offsets: &state_offsets,
            state_data: &state_data,
            rows: rows.len() as u32,
            columns: &views,
        };
        let folded = self.instance.fold(self.handle, &call)?;
        let (offsets, _) = folded.state_offsets.as_chunks::<4>();
        let kept = offsets.windows(2).map(|pair| {
            let [start, end] = [pair[0], pair[1]].map(|offset| u32::from_le_bytes(offset) as usize);
            folded.state_data.get(start..end).unwrap_or_default().to_vec()
        });
        let emits = ops.iter().filter(|op| matches!(op, Op::Emit { .. })).count();
        let emitted = values(&self.outputs, &folded.outputs, emits).map_err(FoldError::whole)?;
        let reasons = (0..emits).map(|emit| folded.reasons.get(emit).to_owned()).collect();
        Ok(Outcome { states: kept.collect(), emitted, reasons })
    }

    /// Folds rows one after the other: the state and the values at the end.
    pub fn whole(&self, rows: &[TimedRow]) -> Result<Outcome, String> {
        let mut ops: Vec<Op> = (0..rows.len() as u32).map(|row| Op::Update { slot: 0, row }).collect();
        ops.push(Op::Emit { slot: 0 });
        self.run(&[], 1, 1, &ops, rows)
    }

    /// Folds parts of the rows (`cuts`: where a part begins), each into a state of its own that goes through its bytes,
    /// and merges them from the left or from the right.
    pub fn in_parts(&self, rows: &[TimedRow], cuts: &[usize], from_the_right: bool) -> Result<Outcome, String> {
        let mut bounds: Vec<usize> = cuts.iter().map(|cut| (*cut).min(rows.len())).collect();
        bounds.extend([0, rows.len()]);
        bounds.sort_unstable();
        let mut states = Vec::new();
        for bound in bounds.windows(2) {
            let part = rows.get(bound[0]..bound[1]).unwrap_or_default();
            states.extend(self.whole(part)?.states);
        }
        let count = states.len() as u32;
        let merge = |slot| Op::Merge { slot, later: slot + 1 };
        let mut ops: Vec<Op> = if from_the_right {
            (0..count.saturating_sub(1)).rev().map(merge).collect()
        } else {
            (1..count).map(|later| Op::Merge { slot: 0, later }).collect()
        };
        ops.push(Op::Emit { slot: 0 });
        self.run(&states, count, 1, &ops, &[])
    }
}

/// Runs a transform: for each output row its input row and its values; and the failed rows with their messages.
#[expect(clippy::type_complexity, reason = "two lists of pairs, read at once in a test")]
pub fn transform(
    module: Module,
    name: &str,
    params: &str,
    inputs: &[Field],
    rows: &[Vec<Value<'static>>],
) -> Result<(Vec<(u32, Vec<Value<'static>>)>, Vec<(u32, String)>), String> {
    let mut instance = Instance::new(module);
    let (handle, prepared) = instance.prepare(name, params, inputs)?;
    let outputs = prepared.outputs.clone();
    let kinds: Vec<Kind> = inputs.iter().map(|field| field.kind).collect();
    let buffers = columns(&kinds, rows)?;
    let views: Vec<_> = buffers.iter().map(Buffers::column).collect();
    let mapped = instance.transform(handle, rows.len() as u32, &views);
    let numbers =
        |bytes: &[u8]| bytes.as_chunks::<4>().0.iter().map(|word| u32::from_le_bytes(*word)).collect::<Vec<_>>();
    let parents = numbers(&mapped.parents);
    let values = values(&outputs, &mapped.outputs, parents.len())?;
    let failed = numbers(&mapped.failed).into_iter().enumerate();
    let failed = failed.map(|(at, row)| (row, mapped.messages.get(at).to_owned())).collect();
    Ok((parents.into_iter().zip(values).collect(), failed))
}
