//! A module is what it claims, or it is refused: claims are tried on generated rows (rule 13 of the window rules).

use crate::call::{FoldCall, Folded, Udf, op};
use crate::error::{CallFailure, ClaimRefused, PrepareError};
use crate::generate::{PROFILES, Rng, column, parameters, times};
use crate::kind::{Field, Kind};
use crate::module::{Module, Role};
use crate::pool::Instance;
use crate::resolve::judge;
use crate::wire::encode;
use arrow::array::{Array, ArrayRef, UInt32Array};
use arrow::compute::take;

/// Rows of a trial: more than any small constant that a state might be bounded by, fewer than a batch.
const ROWS: u32 = 200;
const ORDER: &str = "declare `ordered`, carry the event time (claim `event-time`), or make the result independent of \
                     order (exact sums, for floats)";
const MERGE: &str =
    "declare not mergeable (leave the claim `mergeable` out), or keep in the state what the whole needs";
const CONTRACT: &str = "return what the contract lays down, which an SDK does by itself: as many states, offsets and values as \
                        were asked for, each within its bytes";
const STATELESS: &str = "keep nothing between calls: no globals that change, no caches that a result can see";
const ROW_ALONE: &str = "accept or refuse a row by the row alone, never by what the state holds; bound the state another \
                         way, or give a null with a reason at emit";

/// Tries every UDF of a module with the input kinds that its `prepare` accepts, out of a small set of signatures,
/// and parameters made from its schema. Returns the names of those for which none was accepted: they are tried when
/// a definition says what they are given.
pub fn check_module(module: &Module) -> Result<Vec<String>, ClaimRefused> {
    let mut untried = Vec::new();
    for info in module.udfs() {
        let params = parameters(&info.params_schema);
        let mut tried = false;
        for inputs in signatures() {
            match module.prepare(&info.name, &params, &inputs) {
                Ok(udf) => {
                    check_claims(&udf)?;
                    tried = true;
                }
                Err(PrepareError::Failed { udf, failure }) => {
                    let remedy =
                        "answer every call of `prepare` within the contract, an error being an answer".to_owned();
                    return Err(ClaimRefused { udf, saw: format!("`prepare` failed: {failure}"), remedy });
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

/// Tries a prepared UDF. The same UDF always meets the same rows.
pub fn check_claims(udf: &Udf) -> Result<(), ClaimRefused> {
    for profile in PROFILES {
        let mut rng = Rng::new(profile.seed);
        let mut columns: Vec<ArrayRef> =
            (udf.prepared.spec.inputs.iter()).map(|field| column(field.kind, profile, ROWS, &mut rng)).collect();
        if udf.needs_event_time() {
            columns.push(times(ROWS));
        }
        let trial = Trial { udf, what: profile.name, columns };
        match udf.role() {
            Role::Aggregate => trial.aggregate(&mut rng)?,
            Role::Transform => trial.transform()?,
        }
    }
    Ok(())
}

/// One UDF over one set of rows.
struct Trial<'a> {
    udf: &'a Udf,
    /// The kind of rows, for messages.
    what: &'static str,
    columns: Vec<ArrayRef>,
}

impl Trial<'_> {
    fn refused(&self, saw: impl Into<String>, remedy: &str) -> ClaimRefused {
        let saw = format!("{} (rows: {})", saw.into(), self.what);
        ClaimRefused { udf: self.udf.name().to_owned(), saw, remedy: remedy.to_owned() }
    }

    fn start(&self) -> Result<Instance, ClaimRefused> {
        let started = self.udf.module.inner.pool.start();
        started.map_err(|failure| self.refused(format!("it does not start: {failure}"), STATELESS))
    }

    fn call<'c>(&'c self, slots: u32, keep: u32, tape: &'c [u32], before: Option<&'c Folded>) -> FoldCall<'c> {
        let (state_offsets, state_data) =
            before.map_or((&[][..], &[][..]), |folded| (&folded.state_offsets[..], &folded.state_data[..]));
        FoldCall { slots, keep, tape, state_offsets, state_data, rows: ROWS, columns: &self.columns }
    }

    /// A call in an instance of the trial's, with the UDF's limits.
    fn fold(&self, instance: &mut Instance, call: &FoldCall<'_>) -> Result<Folded, CallFailure> {
        self.udf.fold_in(instance, call, self.udf.module.inner.limits.state_bytes)
    }

    /// A call on rows that are fine alone: whatever fails is the UDF's dependence on its state.
    fn must_fold(&self, instance: &mut Instance, call: &FoldCall<'_>) -> Result<Folded, ClaimRefused> {
        self.fold(instance, call).map_err(|failure| match failure {
            CallFailure::Invalid(_) => self.refused(failure.to_string(), CONTRACT),
            _ => self.refused(format!("rows that it takes alone fail together: {failure}"), ROW_ALONE),
        })
    }

    /// Rows that the UDF takes on a new slot. Refusing a row for what is in it is its right.
    fn accepted(&self) -> Vec<u32> {
        let tape: Vec<u32> = (0..ROWS).flat_map(|row| [op::word(op::UPDATE, row), row]).collect();
        let blamed = judge(self.udf, &self.call(ROWS, 0, &tape, None));
        (0..ROWS).filter(|row| blamed.iter().all(|(op, _)| op != row)).collect()
    }

    fn aggregate(&self, rng: &mut Rng) -> Result<(), ClaimRefused> {
        let rows = self.accepted();
        let whole = updates(0, &rows).chain([(op::EMIT, 0, 0), (op::EMIT, 0, 0)]);
        let whole = tape(whole);
        let call = self.call(1, 1, &whole, None);
        let mut instance = self.start()?;
        let fresh = self.must_fold(&mut instance, &call)?;
        let wanted = self.bytes(&fresh, 0)?;
        if self.bytes(&fresh, 1)? != wanted {
            return Err(self.refused("two emits of one state differ", "let emit change nothing in the state"));
        }
        for _ in 0..2 {
            let warm = self.must_fold(&mut instance, &call)?;
            if self.bytes(&warm, 0)? != wanted || warm.state_data != fresh.state_data {
                return Err(self.refused("a warm instance answers otherwise than a fresh one", STATELESS));
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
                if self.bytes(&folded, 0)? != wanted {
                    return Err(self.refused("the same rows in another order give another value", ORDER));
                }
            }
        }
        self.batches(&mut instance, &rows, &wanted)?;
        if self.udf.mergeable() {
            self.merges(&mut instance, &rows, &wanted, rng)?;
        }
        Ok(())
    }

    /// The state encoded and decoded in the middle is the same state.
    fn batches(&self, instance: &mut Instance, rows: &[u32], wanted: &[u8]) -> Result<(), ClaimRefused> {
        for size in [7, 64] {
            let mut before: Option<Folded> = None;
            for part in rows.chunks(size) {
                let ops = tape(updates(0, part));
                before = Some(self.must_fold(instance, &self.call(1, 1, &ops, before.as_ref()))?);
            }
            let ops = tape([(op::EMIT, 0, 0)]);
            let folded = self.must_fold(instance, &self.call(1, 0, &ops, before.as_ref()))?;
            if self.bytes(&folded, 0)? != wanted {
                let saw = format!("batches of {size} rows give another value than all rows at once");
                return Err(self.refused(saw, "encode everything that `update` and `emit` read of the state"));
            }
        }
        Ok(())
    }

    /// Any split, merged in any grouping (and, where order does not count, any order), is the whole.
    fn merges(&self, instance: &mut Instance, rows: &[u32], wanted: &[u8], rng: &mut Rng) -> Result<(), ClaimRefused> {
        for parts in [1u32, 2, 3, 8] {
            // Parts of different sizes, the last one empty: a tile may be.
            let mut cuts: Vec<usize> = (1..parts).map(|_| rng.below(rows.len() + 1)).collect();
            cuts.sort_unstable();
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
                let folded = self.must_fold(instance, &self.call(parts + 1, 0, &ops, Some(&tiles)))?;
                if self.bytes(&folded, 0)? != wanted {
                    let saw = format!("{parts} parts folded alone and merged give another value than the whole");
                    return Err(self.refused(saw, MERGE));
                }
            }
        }
        Ok(())
    }

    fn transform(&self) -> Result<(), ClaimRefused> {
        let mut instance = self.start()?;
        let all: Vec<u32> = (0..ROWS).collect();
        let fresh = self.map(&mut instance, &all)?;
        if self.map(&mut instance, &all)? != fresh {
            return Err(self.refused("a warm instance answers otherwise than a fresh one", STATELESS));
        }
        // Every row alone, and in other company: what it gives must depend on the row.
        for size in [1, 7] {
            let mut parts = Vec::new();
            for part in all.chunks(size) {
                parts.extend(self.map(&mut instance, part)?);
            }
            if parts != fresh {
                let saw = format!("batches of {size} rows give other rows than all at once");
                return Err(self.refused(saw, "let what a row gives depend on that row alone"));
            }
        }
        Ok(())
    }

    /// What these rows give: of each row its outputs as bytes, or its failure.
    fn map(&self, instance: &mut Instance, rows: &[u32]) -> Result<Vec<(u32, Vec<u8>)>, ClaimRefused> {
        let chosen = UInt32Array::from(rows.to_vec());
        let columns = self.columns.iter().map(|column| take(column, &chosen, None)).collect::<Result<Vec<_>, _>>();
        let columns = columns.map_err(|error| self.refused(error.to_string(), STATELESS))?;
        let mapped = self.udf.transform_in(instance, rows.len(), &columns).map_err(|failure| {
            let remedy = "give exactly the rows that are claimed, within the contract; name a failing row in `failed`";
            self.refused(format!("transform failed: {failure}"), remedy)
        })?;
        let outer = |row: &u32| usize::try_from(*row).ok().and_then(|row| rows.get(row)).copied().unwrap_or(*row);
        let mut given = Vec::new();
        for (row, parent) in mapped.parents.iter().enumerate() {
            given.push((outer(parent), self.row_bytes(&mapped.outputs, row)?));
        }
        given.extend(mapped.failed.iter().map(|(row, why)| (outer(row), why.clone().into_bytes())));
        given.sort_by_key(|(row, _)| *row);
        Ok(given)
    }

    /// The emitted bytes of one emit, with its reason.
    fn bytes(&self, folded: &Folded, emit: usize) -> Result<Vec<u8>, ClaimRefused> {
        let mut bytes = self.row_bytes(&folded.outputs, emit)?;
        for (number, reason) in &folded.reasons {
            if usize::try_from(*number) == Ok(emit) {
                bytes.extend_from_slice(reason.as_bytes());
            }
        }
        Ok(bytes)
    }

    fn row_bytes(&self, outputs: &[ArrayRef], row: usize) -> Result<Vec<u8>, ClaimRefused> {
        let mut bytes = Vec::new();
        for (field, array) in self.udf.outputs().iter().zip(outputs) {
            let one = array.slice(row, 1);
            let wire = encode(field, &one, 1).map_err(|why| self.refused(why, STATELESS))?;
            let column = wire.column();
            for part in [column.validity, column.lists, column.offsets, column.data] {
                bytes.extend_from_slice(&u64::try_from(part.len()).unwrap_or(u64::MAX).to_le_bytes());
                bytes.extend_from_slice(part);
            }
        }
        Ok(bytes)
    }
}

fn updates(slot: u32, rows: &[u32]) -> impl Iterator<Item = (u32, u32, u32)> {
    rows.iter().map(move |row| (op::UPDATE, slot, *row))
}

fn tape(ops: impl IntoIterator<Item = (u32, u32, u32)>) -> Vec<u32> {
    ops.into_iter().flat_map(|(kind, slot, operand)| [op::word(kind, slot), operand]).collect()
}
