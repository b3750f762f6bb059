//! From what was typed to what it means: the second of two steps, against the modules and the registered project.
//!
//! Documents are checked in the order in which they can refer to each other: sources and entities, feature views,
//! on-demand views, services, tests. A document that is wrong does not make those wrong that refer to it.

mod filter;
mod kept;
mod names;
mod on_demand;
mod reference;
mod service;
mod source;
mod test_case;
mod udf;
mod view;

use super::catalog::ModuleCatalog;
use super::error::{DefineError, Problem};
use super::located::{Located, NotYet};
use super::names::check_name;
use super::read::{Definitions, Document, DocumentPlace};
use super::typed::Typed;
use super::window_text::parse_span;
use super::{About, Feature, ModuleVersion, Project, Rename, fingerprint};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

pub use kept::{Break, services_lose};
pub use names::Removed;
pub use reference::Referred;
use source::request_kind;
pub use test_case::{EntityStatus, LookupCase, TestCase};
pub use udf::Pins;
use udf::UdfResolver;

/// What a check is made against.
#[derive(Clone, Copy)]
pub struct CheckOptions<'a> {
    /// `--project`, or the project in the URL: overrides the name in the documents.
    pub project: Option<&'a str>,
    /// The registered project: what is in it and not in the documents stays.
    pub registered: Option<&'a Project>,
    /// Which bytes a module's name without `@` means; the newest where nothing is said.
    pub pins: &'a Pins,
    /// What this set has registered and the documents do not have any more goes.
    pub prune: bool,
    /// A set whose documents may be claimed by this one.
    pub take_over: Option<&'a str>,
    /// What else goes.
    pub removed: Option<&'a Removed>,
}

/// What a check gives.
#[derive(Clone, Debug)]
pub struct Checked {
    /// All of the project as it would be registered: what the documents define, and what stays.
    pub project: Project,
    pub tests: Vec<TestCase>,
    /// What modules' bare names were resolved to: the lines of the lock.
    pub resolved: BTreeMap<String, ModuleVersion>,
    /// The registered project under the names of now: what `project` is to be compared with.
    pub before: Option<Project>,
    /// How it came by those names.
    pub renames: Vec<Rename>,
    /// What would stop working among the things that stay; it is left out of `project`.
    pub breaks: Vec<Break>,
    /// Sentences that stop nothing.
    pub warnings: Vec<String>,
}

/// A `kind: module` document: a name, and where its bytes lie.
#[derive(Clone, Debug)]
pub struct ModuleFile {
    pub name: String,
    pub path: PathBuf,
    pub(super) place: DocumentPlace,
    pub(super) at: Located<String>,
}

impl ModuleFile {
    /// A problem with the file or its bytes, at the line that names it.
    pub fn problem(&self, message: impl Into<String>) -> DefineError {
        DefineError::Wrong(vec![self.place.problem(&self.at, message)])
    }
}

/// The modules that lie beside the definitions, by name. They are staged before the rest is checked.
pub fn module_files(definitions: &Definitions) -> Result<Vec<ModuleFile>, DefineError> {
    let (mut files, mut problems) = (BTreeMap::new(), Vec::new());
    for Document { place, typed } in &definitions.documents {
        let Typed::Module(module) = typed else { continue };
        let mut report = Report::new(place);
        report.take(&module.name, check_name(&module.name.value));
        if module.name.value == "std" {
            report.say(&module.name, "the module `std` comes with the program: give this one another name");
        }
        match &place.directory {
            None => report.say(
                &module.path,
                "a module sent by HTTP has no file beside it: upload the .wasm with POST …/modules?name=… first",
            ),
            Some(directory) => {
                let path = directory.join(&module.path.value);
                let at = module.path.clone();
                let file = ModuleFile { name: module.name.value.clone(), path, place: place.clone(), at };
                if files.insert(module.name.value.clone(), file).is_some() {
                    report.say(&module.name, format!("module `{}` is defined twice: remove one", module.name.value));
                }
            }
        }
        problems.append(&mut report.problems);
    }
    if problems.is_empty() { Ok(files.into_values().collect()) } else { Err(DefineError::Wrong(problems)) }
}

/// The project that the documents are of: as overridden, or as `kind: project` says.
pub fn project_name(definitions: &Definitions, overridden: Option<&str>) -> Result<String, DefineError> {
    if let Some(name) = overridden {
        let wrong = |message| Problem { file: "--project".into(), line: 0, column: 0, message };
        check_name(name).map_err(|message| DefineError::Wrong(vec![wrong(message)]))?;
        return Ok(name.to_owned());
    }
    for Document { place, typed } in &definitions.documents {
        if let Typed::Project(typed) = typed {
            let wrong = |message: String| DefineError::Wrong(vec![place.problem(&typed.name, message)]);
            return check_name(&typed.name.value).map_err(wrong).map(|()| typed.name.value.clone());
        }
    }
    let file = definitions.documents.first().map_or_else(|| "definitions".into(), |first| first.place.file.clone());
    let message = "no document says which project this is: add `kind: project` with a `name`, or use --project";
    Err(DefineError::Wrong(vec![Problem { file, line: 0, column: 0, message: message.to_owned() }]))
}

/// Checks documents against modules and the registered project, and gives the project as it would be.
pub fn check(
    definitions: &Definitions,
    catalog: &dyn ModuleCatalog,
    options: CheckOptions<'_>,
) -> Result<Checked, DefineError> {
    let mut checker = Checker::new(catalog, options);
    checker.project_document(definitions);
    checker.on_demand = definitions.documents.iter().filter_map(on_demand_name).collect();
    checker.note_names(definitions);
    for Document { place, typed } in &definitions.documents {
        match typed {
            Typed::Source(typed) => checker.source(place, typed),
            Typed::Entity(typed) => checker.entity(place, typed),
            _ => {}
        }
    }
    for Document { place, typed } in &definitions.documents {
        if let Typed::FeatureView(typed) = typed {
            checker.feature_view(place, typed);
        }
    }
    checker.settle_kept_views();
    checker.on_demand_views(definitions);
    checker.settle_kept_on_demand();
    for Document { place, typed } in &definitions.documents {
        if let Typed::FeatureService(typed) = typed {
            checker.service(place, typed);
        }
    }
    checker.settle_kept_services();
    let mut tests = Vec::new();
    for Document { place, typed } in &definitions.documents {
        if let Typed::Test(typed) = typed {
            tests.extend(checker.test(place, typed));
        }
    }
    checker.finish(tests)
}

/// The names a document can have: unique among those of its group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Group {
    Source,
    Entity,
    /// Feature views and on-demand views share their names: both are asked for as `view.feature`.
    View,
    Service,
}

/// Everything a check reads and builds.
struct Checker<'a> {
    udfs: UdfResolver<'a>,
    /// Under the names of now.
    registered: Option<Project>,
    override_name: Option<&'a str>,
    prune: bool,
    take_over: Option<&'a str>,
    removed: Option<&'a Removed>,
    set: String,
    /// What the documents say of it; what is registered stays where they say nothing.
    keep_revisions_us: Option<i64>,
    project: Project,
    renames: Vec<Rename>,
    /// Which of the documents' views are on-demand views.
    on_demand: BTreeSet<String>,
    /// What this set has registered, is not in the documents, and stays.
    left: Vec<String>,
    /// Names that the documents define, right or wrong: those are not unknown.
    defined: BTreeMap<(Group, String), String>,
    problems: Vec<Problem>,
    breaks: Vec<Break>,
    warnings: Vec<String>,
}

/// The problems of one document.
struct Report<'a> {
    place: &'a DocumentPlace,
    problems: Vec<Problem>,
}

impl<'a> Report<'a> {
    fn new(place: &'a DocumentPlace) -> Report<'a> {
        Report { place, problems: Vec::new() }
    }

    fn say<T>(&mut self, at: &Located<T>, message: impl Into<String>) {
        self.problems.push(self.place.problem(at, message));
    }

    fn take<T, U>(&mut self, at: &Located<T>, result: Result<U, String>) -> Option<U> {
        result.map_err(|message| self.say(at, message)).ok()
    }

    /// Refuses a key of the interface that this version does not run.
    fn not_yet(&mut self, given: &Option<Located<NotYet>>, key: &str, remedy: &str) {
        if let Some(at) = given {
            self.say(at, format!("`{key}` is not supported yet: {remedy}"));
        }
    }
}

impl<'a> Checker<'a> {
    fn new(catalog: &'a dyn ModuleCatalog, options: CheckOptions<'a>) -> Checker<'a> {
        Checker {
            udfs: UdfResolver::new(catalog, options.pins, options.registered),
            registered: options.registered.cloned(),
            override_name: options.project,
            prune: options.prune,
            take_over: options.take_over,
            removed: options.removed,
            set: String::new(),
            keep_revisions_us: None,
            project: Project::empty(""),
            renames: Vec::new(),
            on_demand: BTreeSet::new(),
            left: Vec::new(),
            defined: BTreeMap::new(),
            problems: Vec::new(),
            breaks: Vec::new(),
            warnings: Vec::new(),
        }
    }

    fn project_document(&mut self, definitions: &Definitions) {
        let mut name = self.override_name.map(str::to_owned);
        let (mut set, mut first) = (None, None::<String>);
        for Document { place, typed } in &definitions.documents {
            let Typed::Project(typed) = typed else { continue };
            let mut report = Report::new(place);
            if let Some(first) = &first {
                report.say(&typed.name, format!("a second `kind: project`, the first is at {first}: remove one"));
            }
            first.get_or_insert_with(|| shown(place, &typed.name));
            report.take(&typed.name, check_name(&typed.name.value));
            name.get_or_insert_with(|| typed.name.value.clone());
            if let Some(typed) = &typed.set {
                report.take(typed, check_name(&typed.value));
                set = Some(typed.value.clone());
            }
            report.not_yet(&typed.online_store, "online_store", "remove it, values are served from the embedded store");
            if let Some(typed) = &typed.keep_revisions {
                self.keep_revisions_us = report.take(typed, parse_span(&typed.value));
            }
            report.not_yet(&typed.renamed_from, "renamed_from", "apply under the old name");
            self.problems.append(&mut report.problems);
        }
        // Without a name nothing was read from a registry: `project_name` has refused it.
        let name = name.unwrap_or_default();
        self.set = set.unwrap_or_else(|| name.clone());
        self.project.name = name;
    }

    /// Whether the documents define this name, so that a reference to it that finds nothing is no second problem.
    fn is_defined(&self, group: Group, name: &str) -> bool {
        self.defined.contains_key(&(group, name.to_owned()))
    }

    fn about(
        &self,
        description: &Option<String>,
        owner: &Option<String>,
        tags: &BTreeMap<String, String>,
        deprecated: &Option<String>,
    ) -> About {
        About {
            description: description.clone(),
            owner: owner.clone(),
            tags: tags.clone(),
            deprecated: deprecated.clone(),
            set: self.set.clone(),
        }
    }

    /// Says that something deprecated is used.
    fn warn_deprecated(&mut self, what: &str, name: &str, user: &str, deprecated: &Option<String>) {
        if let Some(instead) = deprecated {
            self.warnings.push(format!("{user} uses {what} `{name}`, which is deprecated: {instead}"));
        }
    }

    fn finish(mut self, tests: Vec<TestCase>) -> Result<Checked, DefineError> {
        if !self.problems.is_empty() {
            self.problems.sort();
            self.problems.dedup();
            return Err(DefineError::Wrong(self.problems));
        }
        self.warn_of_what_is_left();
        let used: BTreeSet<_> =
            self.project.udf_uses().into_iter().map(|udf| (udf.module.clone(), udf.digest)).collect();
        let registered = self.registered.as_ref().map(|project| project.modules.clone()).unwrap_or_default();
        let (used_here, resolved) = self.udfs.into_used();
        let known = registered.into_iter().chain(used_here);
        self.project.keep_revisions_us = self.keep_revisions_us.or(self.project.keep_revisions_us);
        self.project.modules = known.filter(|module| used.contains(&(module.name.clone(), module.digest))).collect();
        fingerprint::fill(&mut self.project).map_err(|circle| DefineError::Wrong(vec![circle_problem(&circle)]))?;
        let changed = changed_while_paused(&self.project, self.registered.as_ref());
        if !changed.is_empty() {
            return Err(DefineError::Wrong(changed));
        }
        Ok(Checked {
            project: self.project,
            tests,
            resolved,
            before: self.registered,
            renames: self.renames,
            breaks: self.breaks,
            warnings: self.warnings,
        })
    }
}

/// State that stands still has no features that it did not have.
fn changed_while_paused(project: &Project, registered: Option<&Project>) -> Vec<Problem> {
    let mut problems = Vec::new();
    for view in project.feature_views.values().filter(|view| view.paused.is_some()) {
        let name = &view.name;
        let standing = registered.and_then(|project| project.feature_views.get(name));
        let standing = || standing.into_iter().flat_map(|view| &view.features);
        let is_there = |feature: &Feature| standing().any(|other| other.fingerprint == feature.fingerprint);
        if let Some(feature) = view.features.iter().find(|feature| !is_there(feature)) {
            let message = format!(
                "view `{name}` is paused and its feature `{}` would be another or a new one: \
                 `onefold resume {name}` first",
                feature.name
            );
            problems.push(Problem { file: "definitions".into(), line: 0, column: 0, message });
        }
    }
    problems
}

fn on_demand_name(document: &Document) -> Option<String> {
    match &document.typed {
        Typed::OnDemandFeatureView(typed) => Some(typed.name.value.clone()),
        _ => None,
    }
}

/// A circle that runs through what stays registered, so that no document shows it.
fn circle_problem(circle: &[String]) -> Problem {
    let names = circle.join(", ");
    let message =
        format!("on-demand features read each other in a circle ({names}): let one of them read feature views only");
    Problem { file: "definitions".into(), line: 0, column: 0, message }
}

fn shown<T>(place: &DocumentPlace, at: &Located<T>) -> String {
    let problem = place.problem(at, "");
    format!("{}:{}", problem.file, problem.line)
}
