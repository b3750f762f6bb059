//! coalesce: the first input that is not null.

use onefold_udf::column::{Column, all};
use onefold_udf::transform::{Map, Mapping};
use onefold_udf::{Field, Info, Kind, Prepared, Role, Udf, Value, params};

/// `std.coalesce`.
pub enum Coalesce {}

impl Udf for Coalesce {
    fn info() -> Info {
        let doc = "The first input that is not null; all inputs are of one kind";
        Info { name: "coalesce", role: Role::Transform, doc, params: String::new() }
    }

    fn prepare(text: &str, inputs: &[Field]) -> Result<Prepared, String> {
        params::parse::<()>("coalesce", text)?;
        let Some(Field { kind, .. }) = inputs.first() else {
            return Err("0 inputs: coalesce takes at least one; name columns in `inputs`".to_owned());
        };
        if let Some(other) = inputs.iter().find(|input| input.kind != *kind) {
            let Field { name, kind: found } = other;
            return Err(format!("input `{name}` is {found}, the first is {kind}: coalesce takes one kind; cast one of them"));
        }
        let map = CoalesceMap { kinds: vec![*kind; inputs.len()] };
        Ok(Prepared::map(map, vec![Field::new("value", *kind)]).one_to_one())
    }
}

struct CoalesceMap {
    kinds: Vec<Kind>,
}

impl Map for CoalesceMap {
    fn map(&self, columns: &[Column<'_>], rows: usize, out: &mut Mapping) -> Result<(), String> {
        let columns = all(&self.kinds, columns, rows)?;
        for row in 0..rows {
            let value = columns.iter().find(|column| column.has(row)).map_or(Value::Null, |column| column.value(row));
            out.builders.iter_mut().try_for_each(|builder| builder.push(&value))?;
            out.made_of(row);
        }
        Ok(())
    }
}
