//! A module is what it claims, or it is refused: claims are tried on generated rows (rule 13 of the window rules).
//! An aggregate that declares `ordered` is tried on them in canonical order alone.

use crate::call::{FoldCall, Folded, Udf, count, op, size};
use crate::error::{CallFailure, ClaimRefused, PrepareError};
use crate::generate::{PROFILES, Rng, column, parameters, times};
use crate::kind::{Field, Kind};
use crate::module::{Module, Role};
use crate::order::RowOrder;
use crate::pool::Instance;
use crate::split::refused_alone;
use crate::wire::encode;
use arrow::array::{Array, ArrayRef, AsArray, UInt32Array};
use arrow::compute::take;
use arrow::datatypes::TimestampMicrosecondType;
use std::cell::Cell;

/// Rows of a trial: more than any small constant that a state might be bounded by, fewer than a batch.
const ROWS: u32 = 200;
/// What an operation that asks for too much memory costs of a trial's fuel, as a share of a call's: growing takes time.
const MEMORY_SHARE: u64 = 10;
/// What a trap costs: a new instance.
const TRAP_FUEL: u64 = 1_000_000;

/// What holds for every UDF, and what its author can do who broke it.
struct Law {
    rule: &'static str,
    remedy: &'static str,
}

const ORDER: Law = Law {
    rule: "an aggregate that does not declare `ordered` gives the same bytes in any order of its rows",
    remedy: "declare `ordered`, carry the event time (claim `event-time`), or make the result independent of order \
             (exact sums, for floats)",
};
const MERGE: Law = Law {
    rule: "parts that are folded alone and merged give the same bytes as the whole",
    remedy: "declare not mergeable (leave the claim `mergeable` out), or keep in the state what the whole needs",
};
const STATELESS: Law = Law {
    rule: "a call gives the same bytes in a fresh instance and in a warm one",
    remedy: "keep nothing between calls: no globals that change, no caches that a result can see",
};
const ROW_ALONE: Law = Law {
    rule: "whether a row is accepted depends on that row alone",
    remedy: "accept or refuse a row by the row alone, never by what the state holds; bound the state another way, or \
             give a null with a reason at emit",
};
const EMIT: Law = Law { rule: "a value can be asked for at any time", remedy: "let emit change nothing in the state" };
const ENCODING: Law = Law {
    rule: "a state that is encoded and decoded is the same state",
    remedy: "encode everything that `update` and `emit` read of the state",
};
const PREPARE: Law = Law {
    rule: "`prepare` answers every call, an error being an answer",
    remedy: "return an error for parameters and inputs that do not fit",
};
const MAPPING: Law = Law {
    rule: "a transform gives the rows that it claims, and what a row gives depends on that row alone",
    remedy: "give exactly the rows that are claimed, within the contract; name a failing row in `failed`",
};
const CONTRACT: Law = Law {
    rule: "what a call returns is as the contract lays it down",
    remedy: "return as many states, offsets and values as were asked for, each within its bytes; an SDK does it by itself",
};
const EFFORT: Law = Law {
    rule: "a trial of a few hundred calls of 200 rows ends within its fuel",
    remedy: "make the work per row smaller",
};

/// What must be equal in any order, split and merge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Compared {
    /// What is emitted.
    Values,
    /// The encoded states as well: for the program's own library.
    ValuesAndStates,
}

/// Tries every UDF of a module with the input kinds that its `prepare` accepts, out of a small set of signatures,
/// and parameters made from its schema. Returns the names of those for which none was accepted: they are tried when
/// a definition says what they are given.
pub fn check_module(module: &Module, compared: Compared) -> Result<Vec<String>, ClaimRefused> {
    let mut untried = Vec::new();
    for info in module.udfs() {
        let params = parameters(&info.params_schema);
        let mut tried = false;
        for inputs in signatures() {
            match module.prepare(&info.name, &params, &inputs) {
                Ok(udf) => {
                    check_claims(&udf, compared)?;
                    tried = true;
                }
                Err(PrepareError::Failed { udf, failure }) => {
                    return Err(refused(udf, format!("`prepare` failed: {failure}"), &PREPARE));
                }
                Err(PrepareError::Refused(_) | PrepareError::Unknown(..)) => {}
            }
        }
        if !tried {
            untried.push(info.name.clone());
        }
    }
    Ok(untried)
}

/// No input, each kind alone, each kind twice.
fn signatures() -> Vec<Vec<Field>> {
    let alone = Kind::ALL.into_iter().map(|kind| vec![Field::new("a", kind)]);
    let twice = Kind::ALL.into_iter().map(|kind| vec![Field::new("a", kind), Field::new("b", kind)]);
    std::iter::once(vec![]).chain(alone).chain(twice).collect()
}

/// Tries a UDF with the parameters and input kinds it was prepared for. The same UDF always meets the same rows, and
/// no trial takes more than `Limits::fuel_trial`.
pub fn check_claims(udf: &Udf, compared: Compared) -> Result<(), ClaimRefused> {
    let spent = Cell::new(0);
    for profile in PROFILES {
        let mut rng = Rng::new(profile.seed);
        let mut columns: Vec<ArrayRef> =
            (udf.prepared.spec.inputs.iter()).map(|field| column(field.kind, profile, ROWS, &mut rng)).collect();
        if udf.needs_event_time() {
            columns.push(times(ROWS));
        }
        let trial = Trial { udf, what: profile.name, columns, compared, spent: &spent };
        match udf.role() {
            Role::Aggregate => trial.aggregate(&mut rng)?,
            Role::Transform => trial.transform()?,
        }
    }
    Ok(())
}

fn refused(udf: String, saw: String, law: &Law) -> ClaimRefused {
    ClaimRefused { udf, saw, rule: law.rule.to_owned(), remedy: law.remedy.to_owned() }
}

/// One UDF over one set of rows.
struct Trial<'a> {
    udf: &'a Udf,
    /// The kind of rows, for messages.
    what: &'static str,
    columns: Vec<ArrayRef>,
    compared: Compared,
    /// Fuel that all trials of the UDF have used.
    spent: &'a Cell<u64>,
}

impl Trial<'_> {
    fn refused(&self, saw: impl Into<String>, law: &Law) -> ClaimRefused {
        let saw = format!("{} (rows: {})", saw.into(), self.what);
        refused(self.udf.name().to_owned(), saw, law)
    }

    fn start(&self) -> Result<Instance, ClaimRefused> {
        let started = self.udf.module.inner.pool.start();
        started.map_err(|failure| self.refused(format!("it does not start: {failure}"), &STATELESS))
    }

    fn call<'c>(&'c self, slots: u32, keep: u32, tape: &'c [u32], before: Option<&'c Folded>) -> FoldCall<'c> {
        let (state_offsets, state_data) =
            before.map_or((&[][..], &[][..]), |folded| (&folded.state_offsets[..], &folded.state_data[..]));
        FoldCall { slots, keep, measure: 0, tape, state_offsets, state_data, rows: ROWS, columns: &self.columns }
    }

    /// A call in an instance of the trial's, with the UDF's limits.
    fn fold(&self, instance: &mut Instance, call: &FoldCall<'_>) -> Result<Folded, CallFailure> {
        self.within_fuel()?;
        let folded = self.udf.fold_in(instance, call, self.udf.limits().state_bytes);
        self.charge(instance.fuel_spent(), folded.as_ref().err());
        folded
    }

    /// An error once the trial's fuel is used up.
    fn within_fuel(&self) -> Result<(), CallFailure> {
        let most = self.udf.limits().fuel_trial;
        if self.spent.get() > most { Err(CallFailure::Fuel(most)) } else { Ok(()) }
    }

    fn charge(&self, fuel: u64, failure: Option<&CallFailure>) {
        let extra = match failure {
            None | Some(CallFailure::Ops(_)) => 0,
            Some(CallFailure::Memory(_)) => self.udf.limits().fuel / MEMORY_SHARE,
            Some(_) => TRAP_FUEL,
        };
        self.spent.set(self.spent.get().saturating_add(fuel).saturating_add(extra));
    }

    /// A call on rows that are fine alone: whatever fails is the UDF's dependence on its state.
    fn must_fold(&self, instance: &mut Instance, call: &FoldCall<'_>) -> Result<Folded, ClaimRefused> {
        self.fold(instance, call).map_err(|failure| match (self.within_fuel(), &failure) {
            (Err(spent), _) => self.refused(spent.to_string(), &EFFORT),
            (Ok(()), CallFailure::Invalid(_)) => self.refused(failure.to_string(), &CONTRACT),
            (Ok(()), _) => self.refused(format!("rows that it takes alone fail together: {failure}"), &ROW_ALONE),
        })
    }

    /// Rows that the UDF takes on a new slot. Refusing a row for what is in it is its right.
    fn accepted(&self) -> Result<Vec<u32>, ClaimRefused> {
        let run = |part: &FoldCall<'_>, fresh| {
            self.within_fuel()?;
            let fuel = Cell::new(0);
            let folded = self.udf.fold_part(part, fresh, &fuel);
            self.charge(fuel.get(), folded.as_ref().err());
            folded
        };
        let alone = refused_alone(&run, self.udf.limits().state_bytes, &(0..ROWS).collect(), ROWS, &self.columns);
        self.within_fuel().map_err(|failure| self.refused(failure.to_string(), &EFFORT))?;
        Ok((0..ROWS).filter(|row| !alone.contains_key(row)).collect())
    }

    fn aggregate(&self, rng: &mut Rng) -> Result<(), ClaimRefused> {
        let mut rows = self.accepted()?;
        if self.udf.ordered() {
            self.sort(&mut rows);
        }
        let whole = updates(0, &rows).chain([(op::EMIT, 0, 0), (op::EMIT, 0, 0)]);
        let whole = tape(whole);
        let call = self.call(1, 1, &whole, None);
        let mut instance = self.start()?;
        let fresh = self.must_fold(&mut instance, &call)?;
        let wanted = Wanted { value: self.value_bytes(&fresh, 0)?, state: fresh.state_data.clone() };
        if self.value_bytes(&fresh, 1)? != wanted.value {
            return Err(self.refused("two emits of one state differ", &EMIT));
        }
        for _ in 0..2 {
            let warm = self.must_fold(&mut instance, &call)?;
            if self.value_bytes(&warm, 0)? != wanted.value || warm.state_data != wanted.state {
                return Err(self.refused("a warm instance answers otherwise than a fresh one", &STATELESS));
            }
        }
        if !self.udf.ordered() {
            for turn in 0..4 {
                let mut other = rows.clone();
                if turn == 0 {
                    other.reverse()
                } else {
                    rng.shuffle(&mut other)
                }
                let ops = tape(updates(0, &other).chain([(op::EMIT, 0, 0)]));
                let folded = self.must_fold(&mut instance, &self.call(1, 1, &ops, None))?;
                self.expect(&folded, 0, &wanted, "the same rows in another order give", &ORDER)?;
            }
        }
        self.batches(&mut instance, &rows, &wanted)?;
        if self.udf.mergeable() {
            self.merges(&mut instance, &rows, &wanted, rng)?;
        }
        Ok(())
    }

    /// Puts rows in canonical order, the only one that an ordered aggregate is asked about.
    fn sort(&self, rows: &mut [u32]) {
        let times = times(ROWS);
        let times = times.as_primitive::<TimestampMicrosecondType>();
        let Some(order) = RowOrder::of(&self.columns[..self.udf.prepared.spec.inputs.len()]) else { return };
        rows.sort_by_cached_key(|row| {
            let mut bytes = Vec::new();
            order.put(times.value(size(*row)), size(*row), &mut bytes);
            bytes
        });
    }

    /// The one value of a call, and the state of this slot, are those of the whole.
    fn expect(&self, folded: &Folded, slot: u32, wanted: &Wanted, what: &str, law: &Law) -> Result<(), ClaimRefused> {
        if self.value_bytes(folded, 0)? != wanted.value {
            return Err(self.refused(format!("{what} another value"), law));
        }
        let span = folded.state_offsets.get(size(slot)..size(slot) + 2);
        let state = span.and_then(|span| folded.state_data.get(size(span[0])..size(span[1])));
        if self.compared == Compared::ValuesAndStates && state != Some(&wanted.state) {
            return Err(self.refused(format!("{what} another state"), law));
        }
        Ok(())
    }

    /// The state encoded and decoded in the middle is the same state.
    fn batches(&self, instance: &mut Instance, rows: &[u32], wanted: &Wanted) -> Result<(), ClaimRefused> {
        for size in [7, 64] {
            let mut before: Option<Folded> = None;
            for part in rows.chunks(size) {
                let ops = tape(updates(0, part));
                before = Some(self.must_fold(instance, &self.call(1, 1, &ops, before.as_ref()))?);
            }
            let ops = tape([(op::EMIT, 0, 0)]);
            let folded = self.must_fold(instance, &self.call(1, 1, &ops, before.as_ref()))?;
            self.expect(&folded, 0, wanted, &format!("batches of {size} rows give"), &ENCODING)?;
        }
        Ok(())
    }

    /// Any split, merged in any grouping (and, where order does not count, any order), is the whole.
    fn merges(
        &self,
        instance: &mut Instance,
        rows: &[u32],
        wanted: &Wanted,
        rng: &mut Rng,
    ) -> Result<(), ClaimRefused> {
        let mut splits = vec![vec![self.widest(rows)]];
        for parts in [1u32, 2, 3, 8] {
            // Parts of different sizes, the last one empty: a tile may be.
            let mut cuts: Vec<usize> = (1..parts).map(|_| rng.below(rows.len() + 1)).collect();
            cuts.sort_unstable();
            splits.push(cuts);
        }
        for cuts in splits {
            let parts = cuts.len() as u32 + 1;
            let mut ops = Vec::new();
            let mut start = 0;
            for (slot, end) in (0..).zip(cuts.into_iter().chain([rows.len()])) {
                ops.extend(updates(slot, rows.get(start..end).unwrap_or_default()));
                start = end;
            }
            let ops = tape(ops);
            let tiles = self.must_fold(instance, &self.call(parts + 1, parts + 1, &ops, None))?;
            let in_order: Vec<(u32, u32)> = (1..=parts).map(|slot| (0, slot)).collect();
            let from_behind: Vec<(u32, u32)> = (0..parts).rev().map(|slot| (slot, slot + 1)).collect();
            let mut shapes = vec![(in_order, 0), (from_behind, 0)];
            if !self.udf.ordered() {
                shapes.push(((0..parts).rev().map(|slot| (parts, slot)).collect(), parts));
            }
            for (shape, last) in shapes {
                let merges = shape.into_iter().map(|(into, from)| (op::MERGE, into, from));
                let ops = tape(merges.chain([(op::EMIT, last, 0)]));
                let folded = self.must_fold(instance, &self.call(parts + 1, parts + 1, &ops, Some(&tiles)))?;
                let what = format!("{parts} parts folded alone and merged give");
                self.expect(&folded, last, wanted, &what, &MERGE)?;
            }
        }
        Ok(())
    }

    /// The row before which the most time has passed: what an aggregate loses between two parts, it loses there.
    fn widest(&self, rows: &[u32]) -> usize {
        let times = times(ROWS);
        let times = times.as_primitive::<TimestampMicrosecondType>();
        let step_us = |at: &usize| times.value(size(rows[*at])) - times.value(size(rows[at - 1]));
        (1..rows.len()).max_by_key(step_us).unwrap_or(0)
    }

    fn transform(&self) -> Result<(), ClaimRefused> {
        let mut instance = self.start()?;
        let all: Vec<u32> = (0..ROWS).collect();
        let fresh = self.map(&mut instance, &all)?;
        if self.map(&mut instance, &all)? != fresh {
            return Err(self.refused("a warm instance answers otherwise than a fresh one", &STATELESS));
        }
        // Every row alone, and in other company: what it gives must depend on the row.
        for size in [1, 7] {
            let mut parts = Vec::new();
            for part in all.chunks(size) {
                parts.extend(self.map(&mut instance, part)?);
            }
            if parts != fresh {
                return Err(self.refused(format!("batches of {size} rows give other rows than all at once"), &MAPPING));
            }
        }
        Ok(())
    }

    /// What these rows give: of each row its outputs as bytes, or its failure.
    fn map(&self, instance: &mut Instance, rows: &[u32]) -> Result<Vec<(u32, Vec<u8>)>, ClaimRefused> {
        self.within_fuel().map_err(|failure| self.refused(failure.to_string(), &EFFORT))?;
        let chosen = UInt32Array::from(rows.to_vec());
        let columns = self.columns.iter().map(|column| take(column, &chosen, None)).collect::<Result<Vec<_>, _>>();
        let columns = columns.map_err(|error| self.refused(error.to_string(), &MAPPING))?;
        let mapped = self.udf.transform_in(instance, rows.len(), &columns);
        self.charge(instance.fuel_spent(), mapped.as_ref().err());
        let mapped = mapped.map_err(|failure| self.refused(format!("transform failed: {failure}"), &MAPPING))?;
        let outer = |row: &u32| rows.get(size(*row)).copied().unwrap_or(*row);
        let mut given = Vec::new();
        for (row, parent) in mapped.parents.iter().enumerate() {
            given.push((outer(parent), self.row_bytes(&mapped.outputs, row)?));
        }
        given.extend(mapped.failed.iter().map(|(row, why)| (outer(row), why.clone().into_bytes())));
        given.sort_by_key(|(row, _)| *row);
        Ok(given)
    }

    /// The emitted bytes of one emit, with its reason.
    fn value_bytes(&self, folded: &Folded, emit: usize) -> Result<Vec<u8>, ClaimRefused> {
        let mut bytes = self.row_bytes(&folded.outputs, emit)?;
        for (number, reason) in &folded.reasons {
            if size(*number) == emit {
                bytes.extend_from_slice(reason.as_bytes());
            }
        }
        Ok(bytes)
    }

    fn row_bytes(&self, outputs: &[ArrayRef], row: usize) -> Result<Vec<u8>, ClaimRefused> {
        let mut bytes = Vec::new();
        for (field, array) in self.udf.outputs().iter().zip(outputs) {
            let one = array.slice(row, 1);
            let wire = encode(field, &one, 1).map_err(|why| self.refused(why, &STATELESS))?;
            let column = wire.column();
            for part in [column.validity, column.lists, column.offsets, column.data] {
                bytes.extend_from_slice(&count(part.len()).to_le_bytes());
                bytes.extend_from_slice(part);
            }
        }
        Ok(bytes)
    }
}

/// What all rows give, folded whole.
struct Wanted {
    value: Vec<u8>,
    state: Vec<u8>,
}

fn updates(slot: u32, rows: &[u32]) -> impl Iterator<Item = (u32, u32, u32)> {
    rows.iter().map(move |row| (op::UPDATE, slot, *row))
}

fn tape(ops: impl IntoIterator<Item = (u32, u32, u32)>) -> Vec<u32> {
    ops.into_iter().flat_map(|(kind, slot, operand)| [op::word(kind, slot), operand]).collect()
}
