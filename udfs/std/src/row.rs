//! last_row: all inputs of the canonically last row, nulls kept.

use crate::several::MOST_BYTES;
use onefold_udf::column::{AnyColumn, Column, all};
use onefold_udf::fold::Fold;
use onefold_udf::output::Builder;
use onefold_udf::{Field, Info, Kind, Prepared, Role, Udf, Value, params};

/// `std.last_row`.
pub enum LastRow {}

impl Udf for LastRow {
    fn info() -> Info {
        let doc = "All inputs of the last row in canonical order, nulls kept; one output an input, named as it";
        Info { name: "last_row", role: Role::Aggregate, doc, params: String::new() }
    }

    fn prepare(text: &str, inputs: &[Field]) -> Result<Prepared, String> {
        params::parse::<()>("last_row", text)?;
        if inputs.is_empty() {
            return Err("0 inputs: last_row takes at least one; name columns in `inputs`".to_owned());
        }
        let mut kinds: Vec<Kind> = inputs.iter().map(|input| input.kind).collect();
        kinds.push(Kind::Timestamp);
        Ok(Prepared::fold(LastRowFold { kinds }, inputs.to_vec()).event_time())
    }
}

struct LastRowFold {
    /// Of the inputs and of the event time.
    kinds: Vec<Kind>,
}

impl Fold for LastRowFold {
    type State = Option<(i64, Vec<Value<'static>>)>;
    type View<'a> = Vec<AnyColumn<'a>>;

    fn view<'a>(&self, columns: &[Column<'a>], rows: usize) -> Result<Self::View<'a>, String> {
        all(&self.kinds, columns, rows)
    }

    fn start(&self) -> Self::State {
        None
    }

    fn update(&self, state: &mut Self::State, view: &Self::View<'_>, row: usize) -> Result<(), String> {
        let Some((AnyColumn::Timestamp(times), columns)) = view.split_last() else {
            return Err("the event time did not come".to_owned());
        };
        let time = times.integer(row).ok_or("the event time of the row is null")?;
        let size: usize = columns.iter().map(|column| column.value(row).size_bytes()).sum();
        if size > MOST_BYTES {
            return Err(format!("a row of {size} bytes: last_row keeps {MOST_BYTES} at most; shorten it, or name fewer inputs"));
        }
        let is_later = match state {
            None => true,
            Some((held_time, held)) => {
                let values = || columns.iter().map(|column| column.value(row));
                time.cmp(held_time).then_with(|| values().cmp(held.iter().cloned())).is_gt()
            }
        };
        if is_later {
            *state = Some((time, columns.iter().map(|column| column.value(row).into_owned()).collect()));
        }
        Ok(())
    }

    fn merge(&self, state: &mut Self::State, later: &Self::State) -> Result<(), String> {
        if *later > *state {
            state.clone_from(later);
        }
        Ok(())
    }

    fn finish(&self, state: &Self::State, outputs: &mut [Builder]) -> Result<&'static str, String> {
        let none = vec![Value::Null; outputs.len()];
        let values = state.as_ref().map_or(&none, |(_, values)| values);
        if values.len() != outputs.len() {
            return Err(format!("a state of {} values for {} outputs", values.len(), outputs.len()));
        }
        outputs.iter_mut().zip(values).try_for_each(|(output, value)| output.push(value))?;
        Ok("")
    }
}
