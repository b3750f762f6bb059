//! Definitions: from YAML to what they mean, and what a change costs.
//!
//! Read in the order of the flow: `read` gives what was typed (`typed`), `check` what it means (`model`),
//! `fingerprint` what its values hang on, `plan` what a change costs.

mod canonical;
mod catalog;
mod check;
mod digest;
mod embedded;
mod error;
mod fingerprint;
mod located;
mod lock;
mod model;
mod names;
mod plan;
mod project;
mod read;
mod rename;
mod schema;
#[cfg(test)]
mod tests;
mod typed;
mod window_text;
mod written;
mod yaml_text;

pub use canonical::canonical_json;
pub use catalog::{ModuleCatalog, PreparedFacts, UdfRole, Wanted};
pub use check::{
    Break, CheckOptions, Checked, EntityStatus, LookupCase, ModuleFile, Pins, Referred, Removed, TestCase, check,
    module_files, project_name, services_lose,
};
pub use error::{DefineError, Problem};
pub use fingerprint::{FOLD_RULES, entity_table, entity_table_of, intake};
pub use located::{Located, NotYet};
pub use lock::{Lock, LockLine, Upgrade};
pub use model::*;
pub use names::{check_name, hint};
pub use plan::{Build, Change, ChangeKind, ChangeNote, Cost, Plan};
pub use project::DocumentKind;
pub use read::{
    DefinitionFile, Definitions, Document, definition_files, read_directory, read_files, read_text, read_yaml,
};
pub use rename::{Rename, Renamed};
pub use schema::definition_schema;
pub use window_text::{duration_text, parse_duration, window_words};
pub use written::{comparison_text, documents_of};
pub use yaml_text::document_text;
