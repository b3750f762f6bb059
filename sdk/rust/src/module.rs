//! A module: the list of its UDFs, and the handles that `prepare` gave out.

use crate::column::Column;
use crate::fold::{self, Call, Fold, FoldError, Folded};
use crate::kind::Field;
use crate::transform::{self, Map, Mapped};

/// What kind of UDF.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Aggregate = 0,
    Transform = 1,
}

/// A line of `describe`.
#[derive(Clone, Debug)]
pub struct Info {
    pub name: &'static str,
    pub role: Role,
    pub doc: &'static str,
    /// JSON Schema of the parameters; empty = takes none.
    pub params: String,
}

/// Something a module can export. `Aggregate` and `#[transform]` implement it; a UDF that takes any kind does so by hand.
pub trait Udf {
    fn info() -> Info;

    /// Checks parameters (JSON; empty = none) and inputs. Errors name the value, the rule and the remedy.
    fn prepare(params: &str, inputs: &[Field]) -> Result<Prepared, String>;
}

type RunFold = Box<dyn Fn(&[Field], &Call<'_>) -> Result<Folded, FoldError>>;

enum Program {
    Fold(RunFold),
    Map(Box<dyn Map>),
}

/// A UDF with its parameters and inputs, ready to run.
pub struct Prepared {
    pub outputs: Vec<Field>,
    pub claims: Vec<&'static str>,
    program: Program,
}

impl std::fmt::Debug for Prepared {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Prepared").field("outputs", &self.outputs).field("claims", &self.claims).finish()
    }
}

impl Prepared {
    /// An aggregate; it claims to be mergeable.
    pub fn fold<F: Fold>(fold: F, outputs: Vec<Field>) -> Prepared {
        let run: RunFold = Box::new(move |outputs, call| fold::run(&fold, outputs, call));
        Prepared { outputs, claims: vec!["mergeable"], program: Program::Fold(run) }
    }

    /// A transform.
    pub fn map(map: impl Map, outputs: Vec<Field>) -> Prepared {
        Prepared { outputs, claims: Vec::new(), program: Program::Map(Box::new(map)) }
    }

    /// Asks for the event time as the last column.
    pub fn event_time(mut self) -> Prepared {
        self.claims.push("event-time");
        self
    }

    /// Asks for rows in event-time order.
    pub fn ordered(mut self) -> Prepared {
        self.claims.push("ordered");
        self
    }

    /// Says that it cannot merge.
    pub fn not_mergeable(mut self) -> Prepared {
        self.claims.retain(|claim| *claim != "mergeable");
        self
    }

    /// Promises one row for each.
    pub fn one_to_one(mut self) -> Prepared {
        self.claims.push("one-to-one");
        self
    }
}

/// A UDF in the list of a module; made by `export!`.
#[derive(Clone, Copy)]
pub struct Entry {
    info: fn() -> Info,
    prepare: fn(&str, &[Field]) -> Result<Prepared, String>,
}

impl Entry {
    pub const fn of<U: Udf>() -> Entry {
        Entry { info: U::info, prepare: U::prepare }
    }
}

/// A module's UDFs; made by `export!`.
#[derive(Clone, Copy)]
pub struct Module {
    entries: &'static [Entry],
}

impl Module {
    pub const fn new(entries: &'static [Entry]) -> Module {
        Module { entries }
    }

    /// The UDFs, in the order of the list.
    pub fn describe(&self) -> Vec<Info> {
        self.entries.iter().map(|entry| (entry.info)()).collect()
    }
}

/// A module that runs: the same code natively and in Wasm.
pub struct Instance {
    module: Module,
    prepared: Vec<Prepared>,
}

impl Instance {
    pub fn new(module: Module) -> Instance {
        Instance { module, prepared: Vec::new() }
    }

    /// Makes a handle for (UDF, parameters, inputs).
    pub fn prepare(&mut self, name: &str, params: &str, inputs: &[Field]) -> Result<(u32, &Prepared), String> {
        let Some(entry) = self.module.entries.iter().find(|entry| (entry.info)().name == name) else {
            let names = self.module.describe().iter().map(|info| info.name).collect::<Vec<_>>().join(", ");
            return Err(format!("udf `{name}`: not in this module, which has {names}"));
        };
        let prepared = (entry.prepare)(params, inputs)?;
        self.prepared.push(prepared);
        let handle = self.prepared.len() - 1;
        match self.prepared.last() {
            Some(prepared) => Ok((handle as u32, prepared)),
            None => Err("nothing was prepared".to_owned()),
        }
    }

    /// Runs a tape; the bytes are those of the contract.
    pub fn fold(&self, handle: u32, call: &Call<'_>) -> Result<Folded, FoldError> {
        match self.prepared.get(handle as usize) {
            Some(Prepared { outputs, program: Program::Fold(run), .. }) => run(outputs, call),
            Some(_) => Err(FoldError::whole(format!("handle {handle} is a transform: call `transform`"))),
            None => Err(FoldError::whole(format!("handle {handle} was not given by `prepare`"))),
        }
    }

    /// Transforms rows; the bytes are those of the contract.
    pub fn transform(&self, handle: u32, rows: u32, columns: &[Column<'_>]) -> Mapped {
        match self.prepared.get(handle as usize) {
            Some(Prepared { outputs, program: Program::Map(map), .. }) => {
                transform::run(map.as_ref(), outputs, rows, columns)
            }
            _ => transform::run(&NoTransform(handle), &[], rows, columns),
        }
    }
}

struct NoTransform(u32);

impl Map for NoTransform {
    fn map(&self, _: &[Column<'_>], _: usize, _: &mut transform::Mapping) -> Result<(), String> {
        Err(format!("handle {} is not a transform that `prepare` gave", self.0))
    }
}
