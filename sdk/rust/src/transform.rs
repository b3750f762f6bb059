//! Transforms: functions of one row that give a row, or any number of rows.

use crate::column::Column;
use crate::kind::{Field, Kind};
use crate::output::{Buffers, Builder, OutputRow, Texts};
use crate::row::Row;

/// A prepared transform. Most are written as functions with `#[transform]`; this is for those that take any kind.
pub trait Map: 'static {
    /// Transforms all rows of a call.
    fn map(&self, columns: &[Column<'_>], rows: usize, out: &mut Mapping) -> Result<(), String>;
}

/// What a call of `transform` gives back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mapped {
    /// u32: the input row of each output row.
    pub parents: Vec<u8>,
    pub outputs: Vec<Buffers>,
    /// u32: the input rows that failed, ascending.
    pub failed: Vec<u8>,
    pub messages: Texts,
}

/// The output rows of a call, while they are written.
pub struct Mapping {
    pub builders: Vec<Builder>,
    parents: Vec<u8>,
    failed: Vec<u8>,
    messages: Texts,
}

impl Mapping {
    fn new(outputs: &[Field]) -> Mapping {
        let builders = outputs.iter().map(|field| Builder::new(field.kind)).collect();
        Mapping { builders, parents: Vec::new(), failed: Vec::new(), messages: Texts::default() }
    }

    /// Says that a row was written, made of input row `row`.
    #[inline]
    pub fn made_of(&mut self, row: usize) {
        self.parents.extend_from_slice(&(row as u32).to_le_bytes());
    }

    /// Says that input row `row` failed, and why.
    pub fn failed(&mut self, row: usize, message: &str) {
        let count = self.failed.len() / 4;
        self.failed.extend_from_slice(&(row as u32).to_le_bytes());
        self.messages.push(count, if message.is_empty() { "failed" } else { message });
    }
}

/// Runs a transform over all rows of a call; an error of the call as a whole fails every row.
pub fn run(map: &dyn Map, outputs: &[Field], rows: u32, columns: &[Column<'_>]) -> Mapped {
    let mut mapping = Mapping::new(outputs);
    if let Err(message) = map.map(columns, rows as usize, &mut mapping) {
        mapping = Mapping::new(outputs);
        (0..rows as usize).for_each(|row| mapping.failed(row, &message));
    }
    let Mapping { builders, parents, failed, messages } = mapping;
    Mapped { parents, outputs: builders.into_iter().map(Builder::finish).collect(), failed, messages }
}

/// Any number of output rows for one input row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rows<T>(pub Vec<T>);

/// What a transform function returns: a row (then it is one-to-one), or `Rows`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is nothing that a transform returns",
    label = "not an output",
    note = "outputs are bool, i64, f64, Timestamp, String, Vec<u8>, Vec<i64>, Vec<f32>, Vec<f64> and Vec<String>, each \
            also in an Option; several are a tuple; `Rows` has any number of them, and a `Result<_, String>` may refuse"
)]
pub trait Returned {
    const ONE_TO_ONE: bool;
    const KINDS: &'static [Kind];
    fn write(&self, row: usize, out: &mut Mapping) -> Result<(), String>;
}

impl<T: OutputRow> Returned for T {
    const ONE_TO_ONE: bool = true;
    const KINDS: &'static [Kind] = T::KINDS;
    #[inline]
    fn write(&self, row: usize, out: &mut Mapping) -> Result<(), String> {
        self.write_to(&mut out.builders)?;
        out.made_of(row);
        Ok(())
    }
}

impl<T: OutputRow> Returned for Rows<T> {
    const ONE_TO_ONE: bool = false;
    const KINDS: &'static [Kind] = T::KINDS;
    fn write(&self, row: usize, out: &mut Mapping) -> Result<(), String> {
        for item in &self.0 {
            item.write_to(&mut out.builders)?;
            out.made_of(row);
        }
        Ok(())
    }
}

/// The rows of a typed transform: reads each, calls, writes. A null in an input that is not an option gives a row of
/// nulls (one-to-one) or no row.
pub fn each_row<'a, I: Row<'a>, R: Returned>(
    columns: &[Column<'a>],
    rows: usize,
    out: &mut Mapping,
    mut call: impl FnMut(I) -> Result<R, String>,
) -> Result<(), String> {
    let view = I::view(columns, rows)?;
    for row in 0..rows {
        match I::read(&view, row) {
            Some(input) => match call(input) {
                Ok(returned) => returned.write(row, out)?,
                Err(message) => out.failed(row, &message),
            },
            None if R::ONE_TO_ONE => {
                crate::output::push_nulls(&mut out.builders);
                out.made_of(row);
            }
            None => {}
        }
    }
    Ok(())
}

/// The output fields of a typed transform.
pub fn outputs(udf: &str, names: &[&str], kinds: &[Kind]) -> Result<Vec<Field>, String> {
    if names.len() != kinds.len() {
        let (names, kinds) = (names.len(), kinds.len());
        return Err(format!("{udf} names {names} outputs and gives {kinds}: write #[transform(outputs(…))]"));
    }
    Ok(names.iter().zip(kinds).map(|(name, kind)| Field::new(*name, *kind)).collect())
}
