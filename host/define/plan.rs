//! What an apply would change, and what each change costs.

use super::{Break, Digest, DocumentKind, Feature, FeatureView, Project, Rename, Renamed, entity_table, window_words};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// The difference between what is registered and what would be: the answer of `plan --json` and `PUT /definitions`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// The revision that an apply makes; the registered one when nothing changes.
    pub revision: u64,
    pub changes: Vec<Change>,
    pub warnings: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Change {
    pub kind: &'static str,
    pub name: String,
    pub change: ChangeKind,
    /// The feature of a view that changes; null where the document itself does.
    pub feature: Option<String>,
    /// Of a rename, the name until now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub renamed_from: Option<String>,
    pub cost: Cost,
    /// What would stop working: refused unless breaking is allowed.
    pub breaks: Vec<String>,
    /// What a feature computes, in words.
    pub summary: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChangeKind {
    Create,
    Update,
    Delete,
    /// State and values stay.
    Rename,
    /// A view's state and values stand still.
    Pause,
    /// They go on, with all that has come meanwhile.
    Resume,
}

impl ChangeKind {
    /// As it stands before a line of a plan.
    pub fn sign(self) -> char {
        match self {
            ChangeKind::Create => '+',
            ChangeKind::Update => '~',
            ChangeKind::Delete => '-',
            ChangeKind::Rename => '>',
            ChangeKind::Pause => '=',
            ChangeKind::Resume => '*',
        }
    }
}

/// A change as a revision remembers it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangeNote {
    pub kind: String,
    pub name: String,
    pub change: ChangeKind,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub feature: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub renamed_from: Option<String>,
}

/// What must be computed before a change is served.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Cost {
    pub build: Build,
    /// Rows to read; null where only the host that does it can count them.
    pub history_rows: Option<u64>,
    /// Entities that get state; null where nothing is known of how many there are.
    pub entities: Option<u64>,
    /// State to keep, estimated by what such state takes now; null likewise.
    pub state_bytes: Option<u64>,
    /// It begins empty, where the stream stands, instead of with its history.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub begins_empty: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Build {
    /// The values are there already.
    #[default]
    None,
    /// One feature's state beside those of entities that are known.
    Column,
    /// A new table of entities.
    Rebuild,
}

impl Plan {
    /// What stands between two projects. `revision` is the registered one, 0 for none; `before` has the names that
    /// `renames` gave it.
    pub fn between(
        before: Option<&Project>,
        after: &Project,
        revision: u64,
        breaks: &[Break],
        renames: &[Rename],
    ) -> Plan {
        let nothing = Project::empty(&after.name);
        let mut differ = Differ::new(before.unwrap_or(&nothing), after);
        differ.renames(renames);
        differ.project(before.is_some());
        differ.modules();
        differ.documents("source", |project| &project.sources);
        differ.documents("entity", |project| &project.entities);
        differ.views();
        differ.on_demand_views();
        differ.documents("feature_service", |project| &project.feature_services);
        let mut changes = differ.changes;
        let mut warnings = standing_warnings(after);
        for broken in breaks {
            let cause = changes.iter().position(|change| change.name == broken.because_of);
            let place = cause.or_else(|| changes.iter().position(|change| change.name == broken.name));
            match place.and_then(|place| changes.get_mut(place)) {
                Some(change) => change.breaks.push(broken.message.clone()),
                None => warnings.push(broken.message.clone()),
            }
        }
        let revision = revision + u64::from(!changes.is_empty());
        Plan { revision, changes, warnings }
    }

    /// What a revision remembers of it.
    pub fn notes(&self) -> Vec<ChangeNote> {
        let note = |change: &Change| ChangeNote {
            kind: change.kind.to_owned(),
            name: change.name.clone(),
            change: change.change,
            feature: change.feature.clone(),
            renamed_from: change.renamed_from.clone(),
        };
        self.changes.iter().map(note).collect()
    }

    /// All that would stop working.
    pub fn breaks(&self) -> Vec<&str> {
        self.changes.iter().flat_map(|change| change.breaks.iter().map(String::as_str)).collect()
    }
}

struct Differ<'a> {
    before: &'a Project,
    after: &'a Project,
    /// What is folded already: entity tables, and fingerprints within them.
    tables: BTreeSet<Digest>,
    folded: BTreeSet<(Digest, Digest)>,
    changes: Vec<Change>,
}

impl<'a> Differ<'a> {
    fn new(before: &'a Project, after: &'a Project) -> Differ<'a> {
        let (mut tables, mut folded) = (BTreeSet::new(), BTreeSet::new());
        for view in before.feature_views.values() {
            let Some(table) = entity_table(before, view) else { continue };
            tables.insert(table);
            folded.extend(view.features.iter().map(|feature| (table, feature.fingerprint)));
        }
        Differ { before, after, tables, folded, changes: Vec::new() }
    }

    fn push(
        &mut self,
        kind: &'static str,
        name: &str,
        change: ChangeKind,
        feature: Option<(&str, String)>,
        build: Build,
    ) {
        let (feature, summary) = feature.map(|(feature, summary)| (feature.to_owned(), summary)).unzip();
        let cost = Cost { build, ..Cost::default() };
        let (name, breaks) = (name.to_owned(), Vec::new());
        self.changes.push(Change { kind, name, change, feature, renamed_from: None, cost, breaks, summary });
    }

    fn renames(&mut self, renames: &[Rename]) {
        for rename in renames {
            let of_view = |view: &str| match self.after.on_demand_feature_views.contains_key(view) {
                true => "on_demand_feature_view",
                false => "feature_view",
            };
            let (kind, name, feature) = match &rename.what {
                Renamed::Document(DocumentKind::Source) => ("source", &rename.to, None),
                Renamed::Document(DocumentKind::Entity) => ("entity", &rename.to, None),
                Renamed::Document(DocumentKind::FeatureView) => (of_view(&rename.to), &rename.to, None),
                Renamed::Document(DocumentKind::FeatureService) => ("feature_service", &rename.to, None),
                Renamed::Feature { view } => (of_view(view), view, Some((rename.to.as_str(), String::new()))),
            };
            self.push(kind, name, ChangeKind::Rename, feature, Build::None);
            if let Some(change) = self.changes.last_mut() {
                change.renamed_from = Some(rename.from.clone());
                change.summary = None;
            }
        }
    }

    /// What is said of the project itself.
    fn project(&mut self, is_registered: bool) {
        let (before, after) = (self.before.keep_revisions_us, self.after.keep_revisions_us);
        if is_registered && before != after {
            self.push("project", &self.after.name, ChangeKind::Update, None, Build::None);
        }
    }

    fn modules(&mut self) {
        let (before, after) = (self.before, self.after);
        for module in after.modules.difference(&before.modules) {
            let known = before.modules.iter().any(|other| other.name == module.name);
            let change = if known { ChangeKind::Update } else { ChangeKind::Create };
            self.push("module", &module.name, change, None, Build::None);
        }
    }

    fn documents<T: PartialEq>(&mut self, kind: &'static str, of: fn(&Project) -> &BTreeMap<String, T>) {
        let (before, after) = (of(self.before), of(self.after));
        for (name, change) in changed(before, after) {
            self.push(kind, name, change, None, Build::None);
        }
    }

    fn views(&mut self) {
        let (before, after) = (self.before, self.after);
        for (name, view) in &after.feature_views {
            let table = entity_table(after, view);
            let known_table = table.is_some_and(|table| self.tables.contains(&table));
            let old = before.feature_views.get(name);
            let new_table = if known_table { Build::None } else { Build::Rebuild };
            match old {
                None => self.push("feature_view", name, ChangeKind::Create, None, new_table),
                Some(old) if without_features(old) != without_features(view) || !known_table => {
                    self.push("feature_view", name, ChangeKind::Update, None, new_table);
                }
                Some(_) => {}
            }
            match old.map(|old| (old.paused, view.paused)) {
                Some((None, Some(_))) => self.push("feature_view", name, ChangeKind::Pause, None, Build::None),
                Some((Some(_), None)) => self.push("feature_view", name, ChangeKind::Resume, None, Build::None),
                _ => {}
            }
            for feature in &view.features {
                let build = match table {
                    Some(table) if self.folded.contains(&(table, feature.fingerprint)) => Build::None,
                    _ if known_table => Build::Column,
                    _ => Build::Rebuild,
                };
                let old = old.and_then(|old| old.features.iter().find(|other| other.name == feature.name));
                let change = match old {
                    None => ChangeKind::Create,
                    Some(old) if old != feature => ChangeKind::Update,
                    Some(_) => continue,
                };
                self.push("feature_view", name, change, Some((&feature.name, in_words(feature))), build);
            }
            let gone = old.into_iter().flat_map(|old| &old.features);
            for feature in gone.filter(|old| !view.features.iter().any(|feature| feature.name == old.name)) {
                let words = in_words(feature);
                self.push("feature_view", name, ChangeKind::Delete, Some((&feature.name, words)), Build::None);
            }
        }
        for name in before.feature_views.keys().filter(|name| !after.feature_views.contains_key(*name)) {
            self.push("feature_view", name, ChangeKind::Delete, None, Build::None);
        }
    }

    fn on_demand_views(&mut self) {
        let (before, after) = (self.before, self.after);
        for (name, change) in changed(&before.on_demand_feature_views, &after.on_demand_feature_views) {
            self.push("on_demand_feature_view", name, change, None, Build::None);
        }
    }
}

fn changed<'a, T: PartialEq>(
    before: &'a BTreeMap<String, T>,
    after: &'a BTreeMap<String, T>,
) -> Vec<(&'a str, ChangeKind)> {
    let mut changes = Vec::new();
    for (name, document) in after {
        match before.get(name) {
            None => changes.push((name.as_str(), ChangeKind::Create)),
            Some(old) if old != document => changes.push((name.as_str(), ChangeKind::Update)),
            Some(_) => {}
        }
    }
    let gone = before.keys().filter(|name| !after.contains_key(*name));
    changes.extend(gone.map(|name| (name.as_str(), ChangeKind::Delete)));
    changes
}

fn without_features(view: &FeatureView) -> FeatureView {
    FeatureView { features: Vec::new(), paused: None, ..view.clone() }
}

fn in_words(feature: &Feature) -> String {
    let inputs: Vec<&str> = feature.inputs.iter().map(|input| input.name.as_str()).collect();
    let filtered = if feature.filter.is_empty() { "" } else { " where its condition holds" };
    let window = window_words(&feature.window);
    format!("{}.{}({}){filtered}, {window}", feature.udf.module, feature.udf.udf, inputs.join(", "))
}

/// What is true of the project whatever has changed.
fn standing_warnings(project: &Project) -> Vec<String> {
    let mut warnings = Vec::new();
    for source in project.sources.values().filter(|source| source.batch_path.is_some()) {
        let name = &source.name;
        warnings.push(format!(
            "source `{name}`: its files do not say when a row arrived, so rows from the future are taken from them"
        ));
    }
    for view in project.feature_views.values() {
        let hasty = view.features.iter().find(|feature| feature.allowed_lateness_us == Some(0));
        if let Some(Feature { name, .. }) = hasty {
            warnings.push(format!(
                "feature view `{}`: `{name}` takes its rows in order and the view has no `allowed_lateness`, so a row that \
                 comes behind a checkpoint becomes a dead letter (`late`): write how late rows may be",
                view.name
            ));
        }
        let unbounded = view.features.iter().filter(|feature| feature.window.reach_us().is_none()).count();
        let name = &view.name;
        if view.ttl_us.is_none() {
            warnings.push(format!("feature view `{name}`: without a ttl the state of an entity is never dropped"));
        } else if unbounded > 0 {
            warnings.push(format!(
                "feature view `{name}`: the state of an entity is never dropped, {unbounded} of its features have no window"
            ));
        }
    }
    warnings
}

/// The figures behind what is built: `: reads 1,000,000 rows; state about 5.2 MB, 100,000 entities x 52 bytes`.
impl fmt::Display for Cost {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        if self.begins_empty {
            parts.push("begins empty".to_owned());
        }
        if let Some(rows) = self.history_rows {
            parts.push(format!("reads {}", counted(rows, "row", "rows")));
        }
        if let (Some(entities @ 1..), Some(bytes)) = (self.entities, self.state_bytes) {
            let (all, each) = (bytes_text(bytes), bytes / entities);
            let entities = counted(entities, "entity", "entities");
            parts.push(format!("state about {all}, {entities} x {} bytes", grouped(each)));
        }
        match parts.is_empty() {
            true => Ok(()),
            false => write!(formatter, ": {}", parts.join("; ")),
        }
    }
}

fn counted(number: u64, one: &str, many: &str) -> String {
    format!("{} {}", grouped(number), if number == 1 { one } else { many })
}

/// `1234567` as `1,234,567`.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn bytes_text(bytes: u64) -> String {
    match bytes {
        0..10_000 => format!("{} bytes", grouped(bytes)),
        10_000..1_000_000 => format!("{:.1} kB", bytes as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} MB", bytes as f64 / 1e6),
        _ => format!("{:.1} GB", bytes as f64 / 1e9),
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.changes.is_empty() {
            writeln!(formatter, "nothing changes (revision {})", self.revision)?;
        } else {
            writeln!(formatter, "revision {}:", self.revision)?;
        }
        for change in &self.changes {
            let sign = change.change.sign();
            match (&change.feature, &change.summary) {
                (Some(feature), Some(summary)) => write!(formatter, "    {sign} {feature}: {summary}")?,
                (Some(feature), None) => write!(formatter, "    {sign} {}.{feature}", change.name)?,
                (None, _) => write!(formatter, "  {sign} {} {}", change.kind.replace('_', " "), change.name)?,
            }
            if let Some(from) = &change.renamed_from {
                write!(formatter, " (until now `{from}`; state and values stay)")?;
            }
            match change.change {
                ChangeKind::Pause => write!(formatter, " (paused: its values stay as they are)")?,
                ChangeKind::Resume => write!(formatter, " (resumed: what has come meanwhile is folded first)")?,
                _ => {}
            }
            match change.cost.build {
                Build::None => {}
                Build::Column => write!(formatter, " [a new column{}]", change.cost)?,
                Build::Rebuild if change.feature.is_none() => {
                    write!(formatter, " [built from its rows{}]", change.cost)?;
                }
                Build::Rebuild => write!(formatter, " [new{}]", change.cost)?,
            }
            writeln!(formatter)?;
            for broken in &change.breaks {
                writeln!(formatter, "      breaks: {broken}")?;
            }
        }
        for warning in &self.warnings {
            writeln!(formatter, "  note: {warning}")?;
        }
        Ok(())
    }
}
