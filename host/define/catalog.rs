//! What checking needs to know of modules: the one seam between definitions and Wasm.

use super::{Digest, ModuleVersion, UdfUse};
use onefold_fold::Field;

/// Whether a UDF keeps a state or maps rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UdfRole {
    Aggregate,
    Transform,
}

/// What a module said of a UDF with given parameters and inputs, checked by the engine.
#[derive(Clone, Debug, PartialEq)]
pub struct PreparedFacts {
    pub role: UdfRole,
    pub outputs: Vec<Field>,
    pub needs_event_time: bool,
    pub ordered: bool,
    pub mergeable: bool,
    pub one_to_one: bool,
}

/// Which version of a module is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    Newest,
    /// `module.udf@3`.
    Version(u32),
    /// What the lock holds: the bytes themselves, since numbers differ between registries.
    Bytes(Digest),
}

/// The modules that definitions can name. Errors are sentences for the author: value, rule, remedy.
pub trait ModuleCatalog {
    /// The module of this name.
    fn resolve(&self, module: &str, wanted: Wanted) -> Result<ModuleVersion, String>;

    /// The names of the UDFs in a resolved module, in its order.
    fn udfs(&self, digest: &Digest) -> Result<Vec<String>, String>;

    /// What a UDF makes of these parameters (canonical JSON) and inputs.
    fn prepare(&self, digest: &Digest, udf: &str, params: &str, inputs: &[Field]) -> Result<PreparedFacts, String>;

    /// Tries on generated rows whether a UDF is what it claims with these parameters and inputs.
    fn try_claims(&self, udf: &UdfUse, inputs: &[Field]) -> Result<(), String>;
}
