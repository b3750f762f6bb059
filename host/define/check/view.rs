//! Feature views: keys, windows, filters, and what each aggregate gives.

use super::{Checker, Group, Report};
use crate::define::located::{Located, TextOr};
use crate::define::names::{check_name, hint};
use crate::define::read::DocumentPlace;
use crate::define::typed::{EntityUse, FeatureShape, FeatureViewDocument, OnlineIn, WindowShape};
use crate::define::window_text::{parse_length, parse_span, resolve_window};
use crate::define::{Digest, Feature, FeatureView, JoinKey, Source, Transform};
use onefold_fold::{Field, Window};
use std::collections::BTreeSet;

/// What snapshots and training sets call their own columns.
const RESERVED: [&str; 2] = ["event_timestamp", "valid_until"];
const LAST_ROW: &str = "std.last_row";
const ALL_COLUMNS: &str = "*";

impl Checker<'_> {
    pub(super) fn feature_view(&mut self, place: &DocumentPlace, typed: &FeatureViewDocument) {
        let mut report = Report::new(place);
        let view = self.read_view(&mut report, typed);
        if let Some(view) = view.filter(|_| report.problems.is_empty()) {
            self.project.feature_views.insert(view.name.clone(), view);
        }
        self.problems.append(&mut report.problems);
    }

    fn read_view(&mut self, report: &mut Report<'_>, typed: &FeatureViewDocument) -> Option<FeatureView> {
        let online = self.online(report, &typed.online);
        let ttl_us = typed.ttl.as_ref().and_then(|ttl| report.take(ttl, parse_length(&ttl.value)));
        let right_exclusive = match typed.right.as_ref().map(|right| (right, right.value.as_str())) {
            None | Some((_, "inclusive")) => false,
            Some((_, "exclusive")) => true,
            Some((at, other)) => {
                report.say(at, format!("right is inclusive or exclusive, not `{other}`: write one of them"));
                false
            }
        };
        let lateness = &typed.allowed_lateness;
        let lateness_us = lateness.as_ref().and_then(|length| report.take(length, parse_span(&length.value)));
        let source = self.source_named(report, &typed.source)?;
        let source_columns: Vec<Field> = source.fields();
        let mut columns = source_columns.clone();
        let transforms = self.transforms(report, &typed.transforms, &mut columns);
        let join_keys = self.join_keys(report, typed, &source_columns);
        let user = format!("feature view `{}`", typed.name.value);
        self.warn_deprecated("source", &source.name, &user, &source.about.deprecated);
        let mut view = FeatureView {
            name: typed.name.value.clone(),
            about: self.about(&typed.description, &typed.owner, &typed.tags, &typed.deprecated),
            entities: typed.entities.iter().map(|entity| entity.name.value.clone()).collect(),
            join_keys,
            source: source.name.clone(),
            transforms,
            ttl_us,
            online,
            right_exclusive,
            paused: self.registered.as_ref().and_then(|project| project.feature_views.get(&typed.name.value)?.paused),
            features: Vec::new(),
        };
        if typed.features.0.is_empty() {
            report.say(&typed.name, "a view needs a feature: write `features:` and one below it");
        }
        // A wrong transform took its outputs with it: what uses those would be a second problem of the same cause.
        if report.problems.is_empty() {
            for (name, shape) in &typed.features.0 {
                let features = self.feature(report, name, shape, &source, &view, &columns);
                view.features.extend(features);
            }
            for given_us in view.features.iter_mut().filter_map(|feature| feature.allowed_lateness_us.as_mut()) {
                *given_us = lateness_us.unwrap_or(0);
            }
            check_outputs(report, typed, &view);
            let kept = self.kept_features(&view, &columns);
            check_kept_outputs(report, &typed.name, &view, &kept);
            view.features.extend(kept);
            let takes_any = |feature: &Feature| feature.allowed_lateness_us.is_none();
            let none = report.problems.is_empty() && view.features.iter().all(takes_any);
            if let Some(lateness) = lateness.as_ref().filter(|_| none) {
                let message = format!(
                    "allowed_lateness `{}` concerns ordered aggregates alone, and view `{}` has none: remove it, the \
                     others take a row however late it comes, as long as it falls in their window",
                    lateness.value, view.name
                );
                report.say(lateness, message);
            }
        }
        Some(view)
    }

    fn online(&self, report: &mut Report<'_>, typed: &Option<Located<OnlineIn>>) -> bool {
        match typed {
            None => true,
            Some(Located { value: OnlineIn::Switch(online), .. }) => *online,
            Some(at) => {
                report.say(at, "a connection or layout of a view's own is not supported yet: write true or false");
                false
            }
        }
    }

    fn source_named(&self, report: &mut Report<'_>, name: &Located<String>) -> Option<Source> {
        let found = self.project.sources.get(&name.value).cloned();
        if found.is_none() && !self.is_defined(Group::Source, &name.value) {
            let near = hint(&name.value, self.names_in(Group::Source));
            report.say(name, format!("no source `{}`: {near}", name.value));
        }
        found
    }

    /// All names of a group, registered or defined here.
    pub(super) fn names_in(&self, group: Group) -> impl Iterator<Item = &str> {
        let project = &self.project;
        let kept: Vec<&String> = match group {
            Group::Source => project.sources.keys().collect(),
            Group::Entity => project.entities.keys().collect(),
            Group::View => project.feature_views.keys().chain(project.on_demand_feature_views.keys()).collect(),
            Group::Service => project.feature_services.keys().collect(),
        };
        let defined = self.defined.keys().filter(move |(of, _)| *of == group).map(|(_, name)| name);
        kept.into_iter().chain(defined).map(String::as_str)
    }

    fn join_keys(&mut self, report: &mut Report<'_>, typed: &FeatureViewDocument, columns: &[Field]) -> Vec<JoinKey> {
        let mut keys: Vec<JoinKey> = Vec::new();
        if typed.entities.is_empty() {
            report.say(&typed.name, "a view needs an entity: write `entities: [product]`");
        }
        for entity in &typed.entities {
            for key in self.keys_of(report, typed, entity, columns) {
                if keys.iter().any(|other| other.name == key.name) {
                    let message = format!(
                        "two join keys are called `{}`: give one a role, {{ {}: {{ {}: column }}, as: name }}",
                        key.name, entity.name.value, key.name
                    );
                    report.say(&entity.name, message);
                }
                keys.push(key);
            }
        }
        keys
    }

    fn keys_of(
        &mut self,
        report: &mut Report<'_>,
        typed: &FeatureViewDocument,
        entity_use: &EntityUse,
        columns: &[Field],
    ) -> Vec<JoinKey> {
        let name = &entity_use.name;
        let Some(entity) = self.project.entities.get(&name.value).cloned() else {
            if !self.is_defined(Group::Entity, &name.value) {
                let near = hint(&name.value, self.names_in(Group::Entity));
                report.say(name, format!("no entity `{}`: {near}", name.value));
            }
            return Vec::new();
        };
        let user = format!("feature view `{}`", typed.name.value);
        self.warn_deprecated("entity", &entity.name, &user, &entity.about.deprecated);
        for (key, _) in &entity_use.columns {
            if !entity.join_keys.iter().any(|field| field.name == key.value) {
                let near = hint(&key.value, entity.join_keys.iter().map(|field| field.name.as_str()));
                report.say(key, format!("entity `{}` has no join key `{}`: {near}", entity.name, key.value));
            }
        }
        if let Some(alias) = &entity_use.alias {
            report.take(alias, check_name(&alias.value));
            if entity.join_keys.len() > 1 {
                let keys = entity.join_keys.len();
                report.say(
                    alias,
                    format!("`as` names one join key, `{}` has {keys}: use entities of one key", entity.name),
                );
            }
        }
        let mut keys = Vec::new();
        for field in &entity.join_keys {
            let mapped = entity_use.columns.iter().find(|(key, _)| key.value == field.name).map(|(_, column)| column);
            let column = mapped.cloned().unwrap_or_else(|| name.with(field.name.clone()));
            let Some(found) = columns.iter().find(|candidate| candidate.name == column.value) else {
                let near = hint(&column.value, columns.iter().map(|column| column.name.as_str()));
                let message = format!(
                    "join key `{}` of entity `{}`: source `{}` has no column `{}`: {near}",
                    field.name, entity.name, typed.source.value, column.value
                );
                report.say(&column, message);
                continue;
            };
            if found.kind != field.kind {
                let message = format!(
                    "join key `{}` of entity `{}` is {}, column `{}` is {}: give both one type",
                    field.name, entity.name, field.kind, found.name, found.kind
                );
                report.say(&column, message);
                continue;
            }
            let name = entity_use.alias.as_ref().map_or(&field.name, |alias| &alias.value).clone();
            keys.push(JoinKey { name, column: found.name.clone(), kind: field.kind });
        }
        keys
    }

    fn feature(
        &mut self,
        report: &mut Report<'_>,
        name: &Located<String>,
        typed: &TextOr<FeatureShape>,
        source: &Source,
        view: &FeatureView,
        columns: &[Field],
    ) -> Vec<Feature> {
        let shape = match typed {
            TextOr::Shape(shape) => shape,
            TextOr::Text(text) if text == "last" && name.value == ALL_COLUMNS => {
                return self.all_columns(report, name, source, view, columns).into_iter().collect();
            }
            TextOr::Text(_) if name.value == ALL_COLUMNS => {
                report.say(name, "the newest row as it is is written `\"*\": last`");
                return Vec::new();
            }
            TextOr::Text(text) => {
                let message = format!("`{text}` is no feature: write {{ udf: std.last, inputs: [column] }}");
                report.say(name, message);
                return Vec::new();
            }
        };
        if report.take(name, check_name(&name.value)).is_none() {
            return Vec::new();
        }
        let windows = named_windows(report, name, shape);
        let inputs = self.columns_named(report, &shape.inputs, columns);
        let filter = self.filter(report, &shape.filter.0, columns);
        let udf = report.take(&shape.udf, self.udfs.resolve(&shape.udf.value, &shape.params));
        let (Some(inputs), Some(filter), Some(udf)) = (inputs, filter, udf) else { return Vec::new() };
        let Some(facts) = report.take(&shape.udf, self.udfs.aggregate(&udf, &inputs)) else { return Vec::new() };
        report.take(&shape.udf, self.udfs.try_claims(&format!("feature `{}`", name.value), &udf, &inputs));
        let mut features = Vec::new();
        for (feature_name, window) in windows {
            if !facts.mergeable && matches!(window, Window::Sliding { .. }) {
                let message = format!(
                    "`{}` cannot be merged, so no window can slide over it: use {{ tumbling: … }} or none",
                    shape.udf.value
                );
                report.say(&shape.udf, message);
            }
            let outputs = match facts.outputs.as_slice() {
                [only] => vec![Field::new(&feature_name, only.kind)],
                several => several
                    .iter()
                    .map(|output| Field::new(format!("{feature_name}__{}", output.name), output.kind))
                    .collect(),
            };
            features.push(Feature {
                name: feature_name,
                udf: udf.clone(),
                inputs: inputs.clone(),
                filter: filter.clone(),
                window,
                outputs,
                needs_event_time: facts.needs_event_time,
                allowed_lateness_us: facts.ordered.then_some(0),
                fingerprint: Digest([0; 32]),
            });
        }
        features
    }

    /// `"*": last`: every column that is neither key nor time, together the newest row with its nulls.
    fn all_columns(
        &mut self,
        report: &mut Report<'_>,
        name: &Located<String>,
        source: &Source,
        view: &FeatureView,
        columns: &[Field],
    ) -> Option<Feature> {
        let is_key = |column: &Field| view.join_keys.iter().any(|key| key.column == column.name);
        let inputs: Vec<Field> =
            columns.iter().filter(|column| !is_key(column) && column.name != source.event_time).cloned().collect();
        if inputs.is_empty() {
            report.say(name, "every column is key or time, nothing is left for `\"*\"`: add a column to the source");
            return None;
        }
        let udf = report.take(name, self.udfs.resolve(LAST_ROW, &Default::default()))?;
        let facts = report.take(name, self.udfs.aggregate(&udf, &inputs))?;
        report.take(name, self.udfs.try_claims(&format!("feature `{ALL_COLUMNS}`"), &udf, &inputs));
        if facts.outputs.len() != inputs.len() {
            let (has, needed) = (facts.outputs.len(), inputs.len());
            report.say(
                name,
                format!("`{LAST_ROW}` gives {has} outputs for {needed} columns: use the program's own `std`"),
            );
            return None;
        }
        let outputs = inputs.iter().zip(&facts.outputs).map(|(input, output)| Field::new(&input.name, output.kind));
        Some(Feature {
            name: ALL_COLUMNS.to_owned(),
            udf,
            outputs: outputs.collect(),
            inputs,
            filter: Vec::new(),
            window: Window::Unbounded,
            needs_event_time: facts.needs_event_time,
            allowed_lateness_us: facts.ordered.then_some(0),
            fingerprint: Digest([0; 32]),
        })
    }
}

/// The features that a definition stands for: its own name, or one name a window.
fn named_windows(report: &mut Report<'_>, name: &Located<String>, shape: &FeatureShape) -> Vec<(String, Window)> {
    let resolve = |report: &mut Report<'_>, typed: &Located<TextOr<WindowShape>>| {
        report.take(typed, resolve_window(&typed.value))
    };
    match (&shape.window, &shape.windows) {
        (Some(_), Some(windows)) => {
            let at = windows.first().map_or_else(|| name.with(()), |window| window.with(()));
            report.say(&at, "a feature has `window` or `windows`: remove one");
            Vec::new()
        }
        (None, None) => vec![(name.value.clone(), Window::Unbounded)],
        (Some(typed), None) => resolve(report, typed).map(|window| (name.value.clone(), window)).into_iter().collect(),
        (None, Some(windows)) => {
            let mut named = Vec::new();
            for typed in windows {
                let TextOr::Text(text) = &typed.value else {
                    report.say(typed, "`windows` lists lengths as in [1d, 30d]: give this window a feature of its own");
                    continue;
                };
                if let Some(window) = resolve(report, typed) {
                    named.push((format!("{}_{text}", name.value), window));
                }
            }
            if windows.is_empty() {
                report.say(name, "`windows` is empty: list lengths as in [1d, 30d], or remove it");
            }
            named
        }
    }
}

/// The value columns of a view are unique, and none is called like a key or a column of ours.
fn check_outputs(report: &mut Report<'_>, typed: &FeatureViewDocument, view: &FeatureView) {
    let mut taken: BTreeSet<&str> = view.join_keys.iter().map(|key| key.name.as_str()).collect();
    taken.extend(RESERVED);
    for feature in &view.features {
        for output in &feature.outputs {
            if !taken.insert(&output.name) {
                let at = typed.features.0.iter().find(|(name, _)| is_of(&feature.name, &name.value));
                let at = at.map_or(&typed.name, |(name, _)| name);
                let message = format!(
                    "`{}` is taken, by another feature, a join key or a column of ours ({}): choose another name",
                    output.name,
                    RESERVED.join(", ")
                );
                report.say(at, message);
            }
        }
    }
}

/// What stays registered keeps its columns.
fn check_kept_outputs(report: &mut Report<'_>, at: &Located<String>, view: &FeatureView, kept: &[Feature]) {
    let mut taken: BTreeSet<&str> = view.join_keys.iter().map(|key| key.name.as_str()).collect();
    taken.extend(view.features.iter().flat_map(|feature| &feature.outputs).map(|output| output.name.as_str()));
    for feature in kept {
        if let Some(output) = feature.outputs.iter().find(|output| taken.contains(output.name.as_str())) {
            let (kept, column) = (&feature.name, &output.name);
            let message = format!(
                "feature `{kept}` is registered, not written here and stays; it has the column `{column}` too: choose \
                 another name, or let it go with --prune"
            );
            report.say(at, message);
        }
    }
}

/// Whether a feature was made of this definition, under its name or with a window behind it.
fn is_of(feature: &str, defined: &str) -> bool {
    feature.strip_prefix(defined).is_some_and(|rest| rest.is_empty() || rest.starts_with('_'))
}

impl Source {
    /// The columns of a row once the source's transforms have run, in order.
    pub fn fields(&self) -> Vec<Field> {
        let declared = self.columns.iter().map(|column| Field::new(&column.name, column.decode.kind()));
        declared.chain(self.transforms.iter().flat_map(Transform::added)).collect()
    }
}

impl Transform {
    fn added(&self) -> impl Iterator<Item = Field> + '_ {
        self.outputs.iter().cloned()
    }
}
