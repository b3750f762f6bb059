//! Case files: events and what lookups must then say, run through every path that makes a value.
//!
//! A *suite* is a set of definitions with its `kind: test` documents. A *way* is one path with one choice of what must
//! not matter: order of arrival, size of batches, threads, where rows lie, when the process ends. Each way runs in a
//! world of its own, in memory, whose clock stands where the case puts it: no registry, no port, and no file but the
//! Parquet of a batch.

mod batch;
mod events;
mod judge;
mod report;
mod stream;
mod way;

pub use report::{Difference, Finding, Outcome, Report};
pub use way::{BatchWay, Order, StreamWay, Way, all_ways};

use crate::batch::BatchError;
use crate::define::{Definitions, LookupCase, Project, TestCase};
use crate::platform::{PlatformError, module_cache};
use crate::registry::{ApplyOptions, ModuleCache, Proposal, Registry, RegistryError, plan_apply};
use crate::std_module::STD_WASM;
use crate::storage::Storage;
use crate::storage::forgetful::Forgetful;
use events::Event;
use serde_json::Value;
use std::sync::Arc;

/// Every world has one project. Its name reaches no value.
const PROJECT: &str = "cases";

/// Runs suites. What it compiled is used by all of them.
pub struct Runner {
    modules: Arc<ModuleCache>,
    /// Modules that definitions may name besides `std`.
    own: Vec<(String, Vec<u8>)>,
    /// The bytes of `std`: the program's own, unless another is tried.
    standard: Vec<u8>,
    scratch: tempfile::TempDir,
}

/// Definitions that were checked, with their tests.
pub struct Suite {
    /// What is run. Expectations may be changed; events and lookups stand where they stood.
    pub tests: Vec<TestCase>,
    proposal: Proposal,
    /// Of each test, in the order given.
    events: Vec<Vec<Event>>,
    /// Entities of different tests can be told apart by their keys, so that one world holds them all.
    shares_worlds: bool,
}

/// Why a suite could not be run; a difference is none.
#[derive(Debug, thiserror::Error)]
pub enum CaseError {
    /// Mend the case, its definitions or the module.
    #[error("{0}")]
    Wrong(String),
    /// See to the machine, or report it: it is no fault of the case.
    #[error("{0}")]
    Failed(String),
}

impl Runner {
    pub fn new() -> Result<Runner, CaseError> {
        Runner::with_modules(module_cache().map_err(CaseError::failed)?)
    }

    /// The same with modules that may have been compiled already.
    pub fn with_modules(modules: Arc<ModuleCache>) -> Result<Runner, CaseError> {
        let scratch = tempfile::Builder::new().prefix("onefold-cases-").tempdir().map_err(CaseError::failed)?;
        Ok(Runner { modules, own: Vec::new(), standard: STD_WASM.to_vec(), scratch })
    }

    /// Lets definitions name a module, if it is what it claims to be. One named `std` stands in for the program's own.
    pub fn add_module(&mut self, name: &str, bytes: Vec<u8>) -> Result<(), CaseError> {
        let module = self.modules.load(name, &bytes)?;
        self.modules.try_module(name, &module)?;
        match name {
            "std" => self.standard = bytes,
            _ => self.own.push((name.to_owned(), bytes)),
        }
        Ok(())
    }

    /// Checks definitions and their tests.
    pub fn suite(&self, definitions: &Definitions) -> Result<Suite, CaseError> {
        self.suite_of(definitions, ApplyOptions::default())
    }

    /// The same where a lock lies beside the definitions.
    pub fn suite_of(&self, definitions: &Definitions, options: ApplyOptions) -> Result<Suite, CaseError> {
        let registry = self.registry(Forgetful::new().storage())?;
        let options = ApplyOptions { alone: true, ..options };
        let mut proposal = plan_apply(&registry, &self.modules, &self.standard, definitions, &options)?;
        let tests = std::mem::take(&mut proposal.tests);
        let project = &proposal.project;
        judge::check_expectations(project, &tests)?;
        let events = tests.iter().map(|test| events::read(project, test)).collect::<Result<Vec<_>, _>>()?;
        let shares_worlds = events::keys_tell_apart(project);
        Ok(Suite { tests, events, shares_worlds, proposal })
    }

    /// Asks every lookup of the suite that this way can answer.
    pub fn run(&self, suite: &Suite, way: &Way) -> Result<Outcome, CaseError> {
        let mut outcome = Outcome::default();
        match way {
            Way::Stream(way) => {
                for sittings in suite.worlds(way.late) {
                    stream::run(self, suite, way, &sittings, &mut outcome)?;
                }
            }
            Way::Batch(way) => {
                for sittings in suite.worlds(false) {
                    batch::run(self, suite, way, &sittings, &mut outcome)?;
                }
            }
        }
        Ok(outcome)
    }

    /// Sets what lookups expect to what this way gives: every value of their views, and nothing else.
    pub fn fill(&self, suite: &mut Suite, way: &Way) -> Result<(), CaseError> {
        let project = suite.proposal.project.clone();
        for lookup in suite.tests.iter_mut().flat_map(|test| &mut test.lookups) {
            let columns = crate::serve::lookup::value_columns(&project, &lookup.view).unwrap_or_default();
            lookup.expect = columns.into_iter().map(|column| (column, Value::Null)).collect();
            (lookup.features, lookup.status, lookup.valid_until_us) = (None, None, None);
        }
        // Whatever is not null differs from what is expected now.
        for Difference { file, line, feature, found, .. } in self.run(suite, way)?.differences {
            let tests = suite.tests.iter_mut().filter(|test| test.file == file);
            let mut lookups = tests.flat_map(|test| &mut test.lookups);
            if let Some(lookup) = lookups.find(|lookup| lookup.line == line) {
                lookup.expect.insert(feature, found);
            }
        }
        Ok(())
    }

    /// A registry that has the runner's modules and no revision.
    fn registry(&self, storage: Arc<dyn Storage>) -> Result<Registry, CaseError> {
        let registry = Registry::of(storage, PROJECT)?;
        for (name, bytes) in &self.own {
            registry.put_module(name, bytes, &self.modules.load(name, bytes)?)?;
        }
        Ok(registry)
    }
}

/// A test in a world: which of its lookups are asked there, of entities with which mark on their keys.
struct Sitting {
    test: usize,
    lookups: Vec<usize>,
    mark: String,
}

impl Suite {
    pub fn project(&self) -> &Project {
        &self.proposal.project
    }

    /// The test of a finding, and its lookup.
    pub fn lookup_at(&self, file: &str, line: u32) -> Option<(&TestCase, &LookupCase)> {
        let tests = self.tests.iter().filter(|test| &*test.file == file);
        tests
            .flat_map(|test| test.lookups.iter().map(move |lookup| (test, lookup)))
            .find(|(_, asked)| asked.line == line)
    }

    /// The events of a test that are rows of a lookup's entity, by event time; none are known where a transform makes
    /// the keys, or where the view is computed from others.
    pub fn rows_of(&self, test: &TestCase, lookup: &LookupCase) -> Vec<(i64, Value)> {
        let events =
            self.tests.iter().zip(&self.events).find(|(one, _)| one.file == test.file && one.line == test.line);
        let Some((_, events)) = events else { return Vec::new() };
        let mut rows: Vec<(i64, Value)> = events
            .iter()
            .filter(|event| event.is_of(self.project(), test, lookup))
            .map(|event| (event.at_us, event.json().clone()))
            .collect();
        rows.sort_by_key(|(at_us, _)| *at_us);
        rows
    }

    /// Which tests meet in one world. `apart`: each lookup has entities and rows of its own.
    fn worlds(&self, apart: bool) -> Vec<Vec<Sitting>> {
        let mut sittings = Vec::new();
        for (test, case) in self.tests.iter().enumerate() {
            let all = 0..case.lookups.len();
            match apart {
                false => sittings.push((test, all.collect())),
                true => sittings.extend(all.map(|lookup| (test, vec![lookup]))),
            }
        }
        let sittings = sittings.into_iter().enumerate().map(|(number, (test, lookups))| {
            let mark = if self.shares_worlds { format!("#{number}") } else { String::new() };
            Sitting { test, lookups, mark }
        });
        match self.shares_worlds {
            true => vec![sittings.collect()],
            false => sittings.map(|sitting| vec![sitting]).collect(),
        }
    }
}

impl CaseError {
    fn failed(error: impl ToString) -> CaseError {
        CaseError::Failed(error.to_string())
    }

    /// Something in a test that only running it shows.
    fn at(test: &TestCase, line: u32, message: impl std::fmt::Display) -> CaseError {
        CaseError::Wrong(format!("{}:{line}: {message}", test.file))
    }
}

impl From<RegistryError> for CaseError {
    fn from(error: RegistryError) -> CaseError {
        match error {
            RegistryError::Storage(_) | RegistryError::Damaged { .. } => CaseError::failed(error),
            other => CaseError::Wrong(other.to_string()),
        }
    }
}

impl From<PlatformError> for CaseError {
    fn from(error: PlatformError) -> CaseError {
        match error {
            PlatformError::Registry(error) => error.into(),
            PlatformError::Batch(error) => error.into(),
            PlatformError::Invalid(text) | PlatformError::NotFound(text) => CaseError::Wrong(text),
            other => CaseError::failed(other),
        }
    }
}

impl From<BatchError> for CaseError {
    fn from(error: BatchError) -> CaseError {
        match error {
            BatchError::Input(text) | BatchError::Fold(text) => CaseError::Wrong(text),
            other => CaseError::failed(other),
        }
    }
}
