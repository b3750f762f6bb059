//! What checking needs to know of modules: the one seam between definitions and Wasm.

use super::{Digest, ModuleVersion};
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

/// The modules that definitions can name. Errors are sentences for the author: value, rule, remedy.
pub trait ModuleCatalog {
    /// The module of this name: that version, or the newest.
    fn resolve(&self, module: &str, version: Option<u32>) -> Result<ModuleVersion, String>;

    /// The names of the UDFs in a resolved module, in its order.
    fn udfs(&self, digest: &Digest) -> Result<Vec<String>, String>;

    /// What a UDF makes of these parameters (canonical JSON) and inputs.
    fn prepare(&self, digest: &Digest, udf: &str, params: &str, inputs: &[Field]) -> Result<PreparedFacts, String>;
}
