//! One lookup: from entities and request data to columns of values with their statuses.
//!
//! Pure but for the online store's read: the instant of reading is an argument. What a status means is rules 7 and 9 of
//! the windows: an entity is known when one of the view's tables knows it, its age is that of its newest row in any of
//! them, and it is forgotten once that row is older than the view keeps entities.

use super::problem::Problem;
use super::values::{self, WrongValue};
use crate::define::{Digest, FeatureReference, OnDemandFeatureView, OnDemandInput, Project, hint};
use crate::online::{OnlineFeature, OnlineRows, OnlineStore};
use crate::route::Keys;
use crate::rows::{Layout, ViewColumn, ViewLayout, on_demand_values};
use arrow::array::{Array, ArrayRef, BooleanArray, new_null_array};
use onefold_fold::{Kind, Udf};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// What is served: one revision of a project and where its values are.
pub struct Served<'a> {
    pub project: &'a Project,
    pub layout: &'a Layout,
    pub online: &'a dyn OnlineStore,
    /// The prepared UDF of a feature of an on-demand view.
    pub on_demand_udf: &'a (dyn Fn(&str, &str) -> Option<Udf> + 'a),
}

/// What is asked for.
pub struct Lookup<'a> {
    /// Value columns, in the order of the answer.
    pub features: &'a [FeatureReference],
    /// Join key: one value an entity row.
    pub entities: &'a BTreeMap<String, Vec<Value>>,
    /// Request data: one value an entity row.
    pub request: &'a BTreeMap<String, Vec<Value>>,
    /// The instant of reading: what ages are counted to.
    pub now_us: i64,
}

/// Whether there is a value, and if not, why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    Present,
    /// The entity is known, its value is null.
    NullValue,
    /// There is no such entity.
    NotFound,
    /// Its newest row is older than the view's ttl.
    OutsideMaxAge,
    /// An on-demand UDF failed, or the state of the feature did.
    Error,
}

impl Status {
    pub fn name(self) -> &'static str {
        match self {
            Status::Present => "PRESENT",
            Status::NullValue => "NULL_VALUE",
            Status::NotFound => "NOT_FOUND",
            Status::OutsideMaxAge => "OUTSIDE_MAX_AGE",
            Status::Error => "ERROR",
        }
    }
}

/// One value column; all vectors have one position an entity row.
#[derive(Clone, Debug)]
pub struct Column {
    pub fingerprint: Digest,
    /// Null unless the status is `Present`.
    pub values: ArrayRef,
    pub statuses: Vec<Status>,
    pub reasons: Vec<Option<String>>,
    pub rows: Arc<RowTimes>,
}

/// What the features of a view have in common.
#[derive(Clone, Debug, Default)]
pub struct RowTimes {
    /// Event time of the newest row; `None` when there is none.
    pub event_us: Vec<Option<i64>>,
    /// Until when the values hold without a new row; `None`: for good.
    pub valid_until_us: Vec<Option<i64>>,
    /// The view's clock has passed that instant and the row is not rewritten yet.
    pub stale: Vec<bool>,
}

/// The answer.
#[derive(Debug)]
pub struct Found {
    /// In the order asked.
    pub columns: Vec<Arc<Column>>,
    /// The clock of each feature view that was read: the smallest among its rows; `None` before its first row.
    pub as_of_us: BTreeMap<String, Option<i64>>,
    pub entity_rows: usize,
}

/// Looks up.
pub fn lookup(served: &Served<'_>, asked: &Lookup<'_>) -> Result<Found, Problem> {
    let entity_rows = entity_rows(asked)?;
    let mut reader = Reader { served, asked, entity_rows, columns: BTreeMap::new(), as_of_us: BTreeMap::new() };
    let mut needed = BTreeSet::new();
    for reference in asked.features {
        need(served.project, &reference.view, &reference.feature, &mut needed);
    }
    let views: BTreeSet<&str> = needed.iter().map(|(view, _)| *view).collect();
    for view in views {
        if let Some(layout) = served.layout.views.get(view) {
            let features: BTreeSet<&str> =
                needed.iter().filter(|(of, _)| *of == view).map(|(_, feature)| *feature).collect();
            reader.read_view(layout, &features)?;
        }
    }
    let mut columns = Vec::with_capacity(asked.features.len());
    for reference in asked.features {
        columns.push(reader.column(&reference.view, &reference.feature)?);
    }
    Ok(Found { columns, as_of_us: reader.as_of_us, entity_rows })
}

/// The value columns that names mean: `view`, `view.feature` or `view:feature`.
pub fn resolve(project: &Project, names: &[String]) -> Result<Vec<FeatureReference>, Problem> {
    let mut references = Vec::new();
    for (number, name) in names.iter().enumerate() {
        let at = |problem: Problem| problem.at(format!("/features/{number}"));
        let (view, feature) = match name.split_once(['.', ':']) {
            Some((view, feature)) => (view, Some(feature)),
            None => (name.as_str(), None),
        };
        let given = value_columns(project, view).ok_or_else(|| at(unknown_view(project, view)))?;
        match feature {
            None => {
                references.extend(given.into_iter().map(|feature| FeatureReference { view: view.to_owned(), feature }))
            }
            Some(feature) if given.iter().any(|known| known == feature) => {
                references.push(FeatureReference { view: view.to_owned(), feature: feature.to_owned() });
            }
            Some(feature) => {
                let hint = hint(feature, given.iter().map(String::as_str));
                return Err(at(Problem::not_found(format!("view `{view}` has no feature `{feature}`; {hint}"))));
            }
        }
    }
    Ok(references)
}

/// The value columns of a service.
pub fn resolve_service(project: &Project, name: &str) -> Result<Vec<FeatureReference>, Problem> {
    match project.feature_services.get(name) {
        Some(service) => Ok(service.features.clone()),
        None => {
            let hint = hint(name, project.feature_services.keys().map(String::as_str));
            Err(Problem::not_found(format!("there is no feature service `{name}`; {hint}")).at("/service"))
        }
    }
}

/// The names of a view's value columns, in declared order; `None` when there is no such view.
pub fn value_columns(project: &Project, view: &str) -> Option<Vec<String>> {
    if let Some(view) = project.feature_views.get(view) {
        let outputs = view.features.iter().flat_map(|feature| &feature.outputs);
        return Some(outputs.map(|output| output.name.clone()).collect());
    }
    let view = project.on_demand_feature_views.get(view)?;
    Some(view.features.iter().flat_map(|feature| &feature.outputs).map(|output| output.name.clone()).collect())
}

/// The fingerprint of a value column.
pub fn fingerprint(project: &Project, view: &str, value: &str) -> Option<Digest> {
    if let Some(view) = project.feature_views.get(view) {
        let mut features = view.features.iter();
        let feature = features.find(|feature| feature.outputs.iter().any(|output| output.name == value))?;
        return Some(feature.fingerprint);
    }
    let view = project.on_demand_feature_views.get(view)?;
    let mut features = view.features.iter();
    let feature = features.find(|feature| feature.outputs.iter().any(|output| output.name == value))?;
    Some(feature.fingerprint)
}

/// The problem of a view that does not exist.
pub fn unknown_view(project: &Project, view: &str) -> Problem {
    let known = project.feature_views.keys().chain(project.on_demand_feature_views.keys());
    Problem::not_found(format!("there is no view `{view}`; {}", hint(view, known.map(String::as_str))))
}

/// All value columns that one needs: itself, and what an on-demand feature reads.
fn need<'a>(project: &'a Project, view: &'a str, value: &'a str, needed: &mut BTreeSet<(&'a str, &'a str)>) {
    if !needed.insert((view, value)) {
        return;
    }
    let features = project.on_demand_feature_views.get(view).into_iter().flat_map(|view| &view.features);
    for feature in features.filter(|feature| feature.outputs.iter().any(|output| output.name == value)) {
        for input in &feature.inputs {
            if let OnDemandInput::Feature { view, output, .. } = input {
                need(project, view, output, needed);
            }
        }
    }
}

/// How many entity rows are asked for: every column has that many.
fn entity_rows(asked: &Lookup<'_>) -> Result<usize, Problem> {
    let mut first: Option<(String, usize)> = None;
    let columns = asked.entities.iter().map(|(name, values)| (format!("/entities/{name}"), values.len()));
    let request = asked.request.iter().map(|(name, values)| (format!("/request/{name}"), values.len()));
    for (path, rows) in columns.chain(request) {
        match &first {
            None => first = Some((path, rows)),
            Some((_, expected)) if *expected == rows => {}
            Some((other, expected)) => {
                let detail =
                    format!("{path} has {rows} values, {other} has {expected}: give each one value an entity row");
                return Err(Problem::unprocessable(detail).at(path));
            }
        }
    }
    Ok(first.map_or(0, |(_, rows)| rows))
}

struct Reader<'a> {
    served: &'a Served<'a>,
    asked: &'a Lookup<'a>,
    entity_rows: usize,
    /// By view and value column.
    columns: BTreeMap<(String, String), Arc<Column>>,
    as_of_us: BTreeMap<String, Option<i64>>,
}

impl Reader<'_> {
    /// Reads the wanted value columns of a feature view, and what says whether its entities are known.
    fn read_view(&mut self, view: &ViewLayout, wanted: &BTreeSet<&str>) -> Result<(), Problem> {
        if !view.online {
            let detail = format!("view `{}` is not served: it says `online: false`", view.name);
            return Err(Problem::unprocessable(detail));
        }
        let mut tables: BTreeMap<usize, TableRead> = BTreeMap::new();
        let columns: Vec<&ViewColumn> =
            view.columns.iter().filter(|column| wanted.contains(column.field.name.as_str())).collect();
        for column in &view.columns {
            tables.entry(column.table).or_default();
        }
        for column in &columns {
            let read = tables.entry(column.table).or_default();
            if !read.fingerprints.contains(&column.fingerprint) {
                read.fingerprints.push(column.fingerprint);
            }
        }
        let keys = self.keys(view)?;
        for (table, read) in &mut tables {
            let layout = self.served.layout.tables.get(*table);
            let layout = layout.ok_or_else(|| Problem::internal(format!("view `{}` has no table", view.name)))?;
            if self.entity_rows > 0 {
                read.rows = Some(self.served.online.read(&layout.id, &read.fingerprints, &keys)?);
            }
        }
        let known = Known::of(view, tables.values(), self.entity_rows, self.asked.now_us);
        self.as_of_us.insert(view.name.clone(), known.as_of_us);
        for column in columns {
            let Some(read) = tables.get(&column.table) else { continue };
            let built = known.column(column, read, self.entity_rows)?;
            self.columns.insert((view.name.clone(), column.field.name.clone()), Arc::new(built));
        }
        Ok(())
    }

    fn keys(&self, view: &ViewLayout) -> Result<Keys, Problem> {
        let mut columns = Vec::with_capacity(view.join_keys.len());
        for key in &view.join_keys {
            let given = self.asked.entities.get(&key.name).ok_or_else(|| {
                let names: Vec<&str> = view.join_keys.iter().map(|key| key.name.as_str()).collect();
                let detail = format!(
                    "view `{}` is looked up by {}: give a value of `{}` for each entity",
                    view.name,
                    names.join(" and "),
                    key.name
                );
                Problem::unprocessable(detail).at(format!("/entities/{}", key.name))
            })?;
            let column = values::from_json(key.kind, given.iter());
            columns.push(column.map_err(|wrong| wrong_value("entities", &key.name, &wrong))?);
        }
        Keys::encode(&columns).map_err(|error| Problem::internal(error.to_string()))
    }

    fn column(&mut self, view: &str, value: &str) -> Result<Arc<Column>, Problem> {
        if let Some(column) = self.columns.get(&(view.to_owned(), value.to_owned())) {
            return Ok(column.clone());
        }
        let served = self.served;
        let on_demand = served.project.on_demand_feature_views.get(view);
        let on_demand = on_demand.ok_or_else(|| unknown_view(served.project, view))?;
        self.compute(on_demand, value)?;
        let column = self.columns.get(&(view.to_owned(), value.to_owned()));
        column.cloned().ok_or_else(|| Problem::not_found(format!("view `{view}` has no feature `{value}`")))
    }

    /// Computes the feature of an on-demand view that gives this value, with all it gives.
    fn compute(&mut self, view: &OnDemandFeatureView, value: &str) -> Result<(), Problem> {
        let mut features = view.features.iter();
        let feature = features.find(|feature| feature.outputs.iter().any(|output| output.name == value));
        let Some(feature) = feature else { return Ok(()) };
        let mut inputs = Vec::with_capacity(feature.inputs.len());
        let mut times = RowTimes {
            event_us: vec![None; self.entity_rows],
            valid_until_us: vec![None; self.entity_rows],
            stale: vec![false; self.entity_rows],
        };
        for input in &feature.inputs {
            inputs.push(match input {
                OnDemandInput::Request { field } => self.request(&view.name, &field.name, field.kind)?,
                OnDemandInput::Feature { view, output, .. } => {
                    let column = self.column(view, output)?;
                    times.join(&column.rows);
                    column.values.clone()
                }
            });
        }
        let udf = (self.served.on_demand_udf)(&view.name, &feature.name).ok_or_else(|| {
            Problem::internal(format!("udf `{}.{}` is not loaded: apply again", feature.udf.module, feature.udf.udf))
        })?;
        let computed = on_demand_values(&udf, self.entity_rows, &inputs)
            .map_err(|failure| Problem::internal(format!("{}.{}: {failure}", view.name, feature.name)))?;
        let times = Arc::new(times);
        for (output, values) in feature.outputs.iter().zip(computed.outputs) {
            let mut statuses: Vec<Status> = (0..self.entity_rows).map(|row| present(&values, row)).collect();
            let mut reasons = vec![None; self.entity_rows];
            for (row, reason) in &computed.failed {
                if let (Some(status), Some(place)) = (statuses.get_mut(*row), reasons.get_mut(*row)) {
                    *status = Status::Error;
                    *place = Some(reason.clone());
                }
            }
            let column = Column { fingerprint: feature.fingerprint, values, statuses, reasons, rows: times.clone() };
            self.columns.insert((view.name.clone(), output.name.clone()), Arc::new(column));
        }
        Ok(())
    }

    fn request(&self, view: &str, name: &str, kind: Kind) -> Result<ArrayRef, Problem> {
        let given = self.asked.request.get(name).ok_or_else(|| {
            let detail =
                format!("view `{view}` computes with `{name}` ({kind}) of the request: give a value for each entity");
            Problem::unprocessable(detail).at(format!("/request/{name}"))
        })?;
        values::from_json(kind, given.iter()).map_err(|wrong| wrong_value("request", name, &wrong))
    }
}

fn wrong_value(part: &str, name: &str, wrong: &WrongValue) -> Problem {
    Problem::unprocessable(format!("`{name}`: {wrong}")).at(format!("/{part}/{name}/{}", wrong.row))
}

fn present(values: &ArrayRef, row: usize) -> Status {
    if values.is_null(row) { Status::NullValue } else { Status::Present }
}

impl RowTimes {
    /// Takes in what another view's rows say: the newest row, the earliest end, stale when one is.
    fn join(&mut self, other: &RowTimes) {
        for (mine, other) in self.event_us.iter_mut().zip(&other.event_us) {
            *mine = (*mine).max(*other);
        }
        for (mine, other) in self.valid_until_us.iter_mut().zip(&other.valid_until_us) {
            *mine = match (*mine, *other) {
                (Some(mine), Some(other)) => Some(mine.min(other)),
                (mine, other) => mine.or(other),
            };
        }
        for (mine, other) in self.stale.iter_mut().zip(&other.stale) {
            *mine |= *other;
        }
    }
}

/// What was read of one table.
#[derive(Default)]
struct TableRead {
    fingerprints: Vec<Digest>,
    /// `None` when no entity was asked for.
    rows: Option<OnlineRows>,
}

/// What a view's tables together say of its entities.
struct Known {
    /// `None`: there is no such entity (any more).
    age: Vec<Option<Age>>,
    times: Arc<RowTimes>,
    as_of_us: Option<i64>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Age {
    Fresh,
    TooOld,
}

impl Known {
    fn of<'a>(
        view: &ViewLayout,
        tables: impl Iterator<Item = &'a TableRead>,
        entity_rows: usize,
        now_us: i64,
    ) -> Known {
        let mut newest_us = vec![i64::MIN; entity_rows];
        let mut found = vec![false; entity_rows];
        let mut until_us = vec![i64::MAX; entity_rows];
        let mut stale = vec![false; entity_rows];
        let mut as_of_us: Option<i64> = None;
        for rows in tables.filter_map(|read| read.rows.as_ref()) {
            for row in 0..entity_rows {
                let clock_us = rows.clock_us[row];
                as_of_us = Some(as_of_us.map_or(clock_us, |before| before.min(clock_us)));
                if rows.found[row] {
                    found[row] = true;
                    newest_us[row] = newest_us[row].max(rows.newest_us[row]);
                    until_us[row] = until_us[row].min(rows.valid_until_us[row]);
                    stale[row] |= clock_us >= rows.valid_until_us[row];
                }
            }
        }
        let mut age = Vec::with_capacity(entity_rows);
        for row in 0..entity_rows {
            let older_than = |limit_us: Option<i64>| {
                limit_us.is_some_and(|limit_us| now_us > newest_us[row].saturating_add(limit_us))
            };
            age.push(match found[row] && !older_than(view.retention_us) {
                false => None,
                true if older_than(view.ttl_us) => Some(Age::TooOld),
                true => Some(Age::Fresh),
            });
        }
        let known = |row: usize| age.get(row).is_some_and(Option::is_some);
        let times = RowTimes {
            event_us: (0..entity_rows).map(|row| known(row).then(|| newest_us[row])).collect(),
            valid_until_us: (0..entity_rows)
                .map(|row| (known(row) && until_us[row] != i64::MAX).then(|| until_us[row]))
                .collect(),
            stale: (0..entity_rows).map(|row| known(row) && stale[row]).collect(),
        };
        Known { age, times: Arc::new(times), as_of_us: as_of_us.filter(|clock_us| *clock_us != i64::MIN) }
    }

    fn column(&self, column: &ViewColumn, read: &TableRead, entity_rows: usize) -> Result<Column, Problem> {
        let place = read.fingerprints.iter().position(|fingerprint| *fingerprint == column.fingerprint);
        let feature = read.rows.as_ref().zip(place).and_then(|(rows, place)| rows.features.get(place));
        let stored = feature.and_then(|feature| feature.outputs.get(column.output).cloned());
        let stored = stored.unwrap_or_else(|| new_null_array(&column.field.kind.data_type(), entity_rows));
        let no_reasons = OnlineFeature { outputs: Vec::new(), reasons: Vec::new() };
        let mut reasons = vec![None; entity_rows];
        let mut failed = vec![false; entity_rows];
        for (row, is_failed, reason) in &feature.unwrap_or(&no_reasons).reasons {
            if let (Some(place), Some(flag)) = (reasons.get_mut(*row), failed.get_mut(*row)) {
                *place = Some(reason.clone());
                *flag = *is_failed;
            }
        }
        let own = |row: usize| read.rows.as_ref().is_some_and(|rows| rows.found[row]);
        let mut statuses = Vec::with_capacity(entity_rows);
        for (row, age) in self.age.iter().enumerate() {
            statuses.push(match age {
                None => Status::NotFound,
                Some(_) if !own(row) => Status::NotFound,
                Some(Age::TooOld) => Status::OutsideMaxAge,
                Some(Age::Fresh) if failed[row] => Status::Error,
                Some(Age::Fresh) => present(&stored, row),
            });
        }
        for (reason, status) in reasons.iter_mut().zip(&statuses) {
            if !matches!(status, Status::Error | Status::NullValue) {
                *reason = None;
            }
        }
        let hidden: BooleanArray = statuses.iter().map(|status| Some(*status != Status::Present)).collect();
        let values = arrow::compute::nullif(&stored, &hidden).map_err(|error| Problem::internal(error.to_string()))?;
        Ok(Column { fingerprint: column.fingerprint, values, statuses, reasons, rows: self.times.clone() })
    }
}
