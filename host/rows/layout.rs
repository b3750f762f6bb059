//! A project as the hosts run it: which columns are computed from a source's rows, and which tables hold what.
//!
//! A *row space* is a set of rows: those of a source, or those a transform that is not one-to-one makes of another
//! space. One-to-one transforms are *steps* of their space: they add columns, and views that use the same transform
//! of the same columns share the step. A *table* holds the entities of one space under one key, with the state of
//! every feature on them: features are known by fingerprint and folded once, however many views read them.

use crate::define::{Digest, Feature, FeatureView, JoinKey, Project, Source, Transform, UdfUse, entity_table_of};
use onefold_fold::{Comparison, Field, Kind, Window};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What a table's state is made of. Two tables of the same keys with different row sets hold different state.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RowSet {
    /// The source's lineage.
    pub source: String,
    /// The files that `materialize` pinned, by the digest of their list; none: only what was pushed.
    pub files: Option<Digest>,
    /// Where it is made of what was pushed from some moment on; none: of the log from its beginning.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Since>,
    /// Where it stands still, because its view is paused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused: Option<Paused>,
}

/// Where state begins that was made without history.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Since {
    /// The first position of the log that is in it.
    pub position: u64,
    /// What happens from here on is in it: microseconds since the epoch, UTC.
    pub at_us: i64,
}

/// Where state stands still.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Paused {
    /// The revision that did it, by which it is known: the rest is only known once the stream has stopped for it.
    pub revision: u64,
    /// When that was, wall time.
    pub at_us: i64,
    /// The first position of the log that is not in it.
    pub position: u64,
    /// The clock of its source there: its values are as of that.
    pub clock_us: i64,
    /// What was settled there, as in `SourceClock`.
    pub settled_us: i64,
}

impl RowSet {
    /// What was pushed to the source of this lineage.
    pub fn of_log(lineage: &str) -> RowSet {
        RowSet::of_files(lineage, None)
    }

    /// The same, and these pinned files.
    pub fn of_files(lineage: &str, files: Option<Digest>) -> RowSet {
        RowSet { source: lineage.to_owned(), files, since: None, paused: None }
    }

    /// Which rows of the log are in it, of those before `end`: `from..until`.
    pub fn stretch(&self, first: u64, end: u64) -> (u64, u64) {
        let from = self.since.map_or(first, |since| since.position.max(first));
        let until = self.paused.map_or(end, |paused| paused.position.min(end));
        (from, until.max(from))
    }

    /// The clock that its values are as of, where the source's is `clock_us`.
    pub fn clock_us(&self, clock_us: i64) -> i64 {
        self.paused.map_or(clock_us, |paused| paused.clock_us)
    }

    /// What tells it from others before it is known where it stands still.
    fn identity(&self) -> RowSet {
        let known = |paused: Paused| Paused { at_us: 0, position: 0, clock_us: 0, settled_us: 0, ..paused };
        RowSet { paused: self.paused.map(known), ..self.clone() }
    }
}

/// Everything the hosts run for one project.
#[derive(Debug, Clone, Default)]
pub struct Layout {
    pub spaces: Vec<RowSpace>,
    pub tables: Vec<TableLayout>,
    pub views: BTreeMap<String, ViewLayout>,
}

#[derive(Debug, Clone)]
pub struct RowSpace {
    /// The source's name.
    pub source: String,
    pub made_of: MadeOf,
    /// Columns that come with the rows, then those of the steps in order.
    pub columns: Vec<Field>,
    pub steps: Vec<Step>,
    /// The first space of this source has the source's own columns in their declared order.
    pub event_time: usize,
}

#[derive(Debug, Clone)]
pub enum MadeOf {
    Source,
    /// Rows that a transform makes of another space's rows; `carried` columns of it come along, before the outputs.
    Transform {
        space: usize,
        step: Step,
        carried: Vec<usize>,
    },
}

/// One use of a transform: inputs are columns of its space; outputs follow each other from `first_output`.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    pub udf: UdfUse,
    pub inputs: Vec<usize>,
    pub first_output: usize,
    pub outputs: Vec<Field>,
}

#[derive(Debug, Clone)]
pub struct TableLayout {
    /// Known by what it hangs on: row set, space, key columns.
    pub id: Digest,
    /// What a row must pass to be one of the table's: the same for every row set.
    pub entity_table: Digest,
    pub row_set: RowSet,
    pub space: usize,
    /// Columns of the space, one a join key.
    pub key_columns: Vec<usize>,
    pub key_kinds: Vec<Kind>,
    pub features: Vec<TableFeature>,
    /// How long after its newest row an entity is kept; none: for good.
    pub retention_us: Option<i64>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct TableFeature {
    pub fingerprint: Digest,
    pub udf: UdfUse,
    /// Columns of the space. Where `needs_event_time`, the event time follows them.
    pub inputs: Vec<usize>,
    pub needs_event_time: bool,
    /// Comparisons with the column of each.
    pub filter: Vec<(usize, Comparison)>,
    pub window: Window,
    /// Of an aggregate that takes its rows in order: how long after the watermark a row may come.
    pub allowed_lateness_us: Option<i64>,
    pub outputs: Vec<Field>,
}

impl TableFeature {
    /// All columns a row must have decoded to take part, each once.
    pub fn used_columns(&self) -> Vec<usize> {
        let mut columns: Vec<usize> =
            self.inputs.iter().copied().chain(self.filter.iter().map(|(column, _)| *column)).collect();
        columns.sort_unstable();
        columns.dedup();
        columns
    }
}

/// Where a view's values are: for each value column, in declared order.
#[derive(Debug, Clone)]
pub struct ViewLayout {
    pub name: String,
    pub join_keys: Vec<JoinKey>,
    pub columns: Vec<ViewColumn>,
    pub ttl_us: Option<i64>,
    /// How long after its newest row an entity is known; none: for good.
    pub retention_us: Option<i64>,
    pub right_exclusive: bool,
    pub online: bool,
    pub source: String,
}

#[derive(Debug, Clone)]
pub struct ViewColumn {
    pub field: Field,
    /// Feature of the definition, by position.
    pub feature: usize,
    pub table: usize,
    /// Feature of the table, and which of its outputs.
    pub table_feature: usize,
    pub output: usize,
    pub fingerprint: Digest,
}

/// A definition that the checks should have refused.
#[derive(Debug, thiserror::Error)]
#[error(
    "`{view}` uses column `{column}`, which neither its source nor its transforms have: apply the definitions again"
)]
pub struct UnknownColumn {
    pub view: String,
    pub column: String,
}

impl Layout {
    /// Lays a project out. `row_set` says what the state of a feature of a source is (to be) made of.
    pub fn of(
        project: &Project,
        row_set: impl Fn(&Source, &FeatureView, &Feature) -> RowSet,
    ) -> Result<Layout, UnknownColumn> {
        let mut layout = Layout::default();
        for view in project.feature_views.values() {
            if let Some(source) = project.sources.get(&view.source) {
                let laid_out = layout.lay_out(source, view, &row_set)?;
                layout.views.insert(view.name.clone(), laid_out);
            }
        }
        Ok(layout)
    }

    /// For each table, the views that read it; `retired` where none does any more.
    pub fn table_names(&self) -> Vec<String> {
        let name = |table: usize| {
            let reads = |view: &&ViewLayout| view.columns.iter().any(|column| column.table == table);
            let names: Vec<&str> = self.views.values().filter(reads).map(|view| view.name.as_str()).collect();
            if names.is_empty() { "retired".to_owned() } else { names.join("+") }
        };
        (0..self.tables.len()).map(name).collect()
    }

    /// Whether the rows of `space` are those of `other`, or made of them.
    pub fn hangs_on(&self, space: usize, other: usize) -> bool {
        space == other
            || match &self.spaces[space].made_of {
                MadeOf::Source => false,
                MadeOf::Transform { space: parent, .. } => self.hangs_on(*parent, other),
            }
    }

    /// Adds the tables and features of a view that nobody reads any more, so that they are folded on.
    pub fn keep(
        &mut self,
        source: &Source,
        view: &FeatureView,
        row_set: &impl Fn(&Source, &FeatureView, &Feature) -> RowSet,
    ) -> Result<(), UnknownColumn> {
        self.lay_out(source, view, row_set).map(drop)
    }

    fn lay_out(
        &mut self,
        source: &Source,
        view: &FeatureView,
        row_set: &impl Fn(&Source, &FeatureView, &Feature) -> RowSet,
    ) -> Result<ViewLayout, UnknownColumn> {
        let (mut space, mut names) = self.source_space(source);
        let find = |names: &BTreeMap<String, usize>, column: &str| {
            names.get(column).copied().ok_or_else(|| UnknownColumn { view: view.name.clone(), column: column.into() })
        };
        for transform in source.transforms.iter().chain(&view.transforms) {
            let inputs = transform.inputs.iter().map(|column| find(&names, column)).collect::<Result<Vec<_>, _>>()?;
            let first = if transform.one_to_one {
                self.add_step(space, transform, inputs)
            } else {
                let (child, first) = self.add_space(space, transform, inputs, &mut names);
                space = child;
                first
            };
            for (number, output) in transform.outputs.iter().enumerate() {
                names.insert(output.name.clone(), first + number);
            }
        }
        let key_columns = view.join_keys.iter().map(|key| find(&names, &key.column)).collect::<Result<Vec<_>, _>>()?;
        let retention_us = retention_us(view);
        let mut columns = Vec::new();
        for (position, feature) in view.features.iter().enumerate() {
            let inputs = feature.inputs.iter().map(|input| find(&names, &input.name)).collect::<Result<Vec<_>, _>>()?;
            let filter = feature
                .filter
                .iter()
                .map(|comparison| Ok((find(&names, &comparison.column)?, comparison.clone())))
                .collect::<Result<Vec<_>, _>>()?;
            let row_set = row_set(source, view, feature);
            let table = self.table(source, view, row_set, space, &key_columns);
            let table_feature = TableFeature {
                fingerprint: feature.fingerprint,
                udf: feature.udf.clone(),
                inputs,
                needs_event_time: feature.needs_event_time,
                filter,
                window: feature.window,
                allowed_lateness_us: feature.allowed_lateness_us,
                outputs: feature.outputs.clone(),
            };
            let features = &mut self.tables[table].features;
            let standing = features.iter().position(|other| other.fingerprint == feature.fingerprint);
            let number = standing.unwrap_or_else(|| {
                features.push(table_feature);
                features.len() - 1
            });
            for (output, field) in feature.outputs.iter().enumerate() {
                columns.push(ViewColumn {
                    field: field.clone(),
                    feature: position,
                    table,
                    table_feature: number,
                    output,
                    fingerprint: feature.fingerprint,
                });
            }
        }
        Ok(ViewLayout {
            name: view.name.clone(),
            join_keys: view.join_keys.clone(),
            columns,
            ttl_us: view.ttl_us,
            retention_us,
            right_exclusive: view.right_exclusive,
            online: view.online,
            source: view.source.clone(),
        })
    }

    /// The space of the source's own rows, and its columns by name.
    fn source_space(&mut self, source: &Source) -> (usize, BTreeMap<String, usize>) {
        let names = source.columns.iter().enumerate().map(|(number, column)| (column.name.clone(), number)).collect();
        let is_it = |space: &RowSpace| space.source == source.name && matches!(space.made_of, MadeOf::Source);
        if let Some(space) = self.spaces.iter().position(is_it) {
            return (space, names);
        }
        let columns = source.columns.iter().map(|column| Field::new(&column.name, column.decode.kind())).collect();
        let event_time = source.columns.iter().position(|column| column.name == source.event_time).unwrap_or(0);
        self.spaces.push(RowSpace {
            source: source.name.clone(),
            made_of: MadeOf::Source,
            columns,
            steps: Vec::new(),
            event_time,
        });
        (self.spaces.len() - 1, names)
    }

    fn add_step(&mut self, space: usize, transform: &Transform, inputs: Vec<usize>) -> usize {
        let space = &mut self.spaces[space];
        let same = |step: &&Step| step.udf == transform.udf && step.inputs == inputs;
        if let Some(step) = space.steps.iter().find(same) {
            return step.first_output;
        }
        let first_output = space.columns.len();
        space.columns.extend(transform.outputs.iter().cloned());
        let outputs = transform.outputs.clone();
        space.steps.push(Step { udf: transform.udf.clone(), inputs, first_output, outputs });
        first_output
    }

    /// The space of the rows that the transform makes; `names` are turned to its columns.
    fn add_space(
        &mut self,
        parent: usize,
        transform: &Transform,
        inputs: Vec<usize>,
        names: &mut BTreeMap<String, usize>,
    ) -> (usize, usize) {
        let mut carried: Vec<usize> = names.values().copied().chain([self.spaces[parent].event_time]).collect();
        carried.sort_unstable();
        carried.dedup();
        let place = |column: usize| carried.iter().position(|other| *other == column).unwrap_or(0);
        let first_output = carried.len();
        for column in names.values_mut() {
            *column = place(*column);
        }
        let event_time = place(self.spaces[parent].event_time);
        let mut columns: Vec<Field> =
            carried.iter().map(|column| self.spaces[parent].columns[*column].clone()).collect();
        columns.extend(transform.outputs.iter().cloned());
        let step = Step { udf: transform.udf.clone(), inputs, first_output, outputs: transform.outputs.clone() };
        let standing = self.spaces.iter().position(|space| match &space.made_of {
            MadeOf::Source => false,
            MadeOf::Transform { space, step: other, carried: columns } => {
                *space == parent && *other == step && *columns == carried
            }
        });
        let child = standing.unwrap_or_else(|| {
            self.spaces.push(RowSpace {
                source: self.spaces[parent].source.clone(),
                made_of: MadeOf::Transform { space: parent, step, carried },
                columns,
                steps: Vec::new(),
                event_time,
            });
            self.spaces.len() - 1
        });
        (child, first_output)
    }

    fn table(
        &mut self,
        source: &Source,
        view: &FeatureView,
        row_set: RowSet,
        space: usize,
        key_columns: &[usize],
    ) -> usize {
        let retention_us = retention_us(view);
        let id = self.table_id(source, &row_set, space, key_columns);
        if let Some(table) = self.tables.iter().position(|table| table.id == id) {
            let table_retention = &mut self.tables[table].retention_us;
            *table_retention = table_retention.zip(retention_us).map(|(one, other)| one.max(other));
            return table;
        }
        self.tables.push(TableLayout {
            id,
            entity_table: entity_table_of(source, view),
            row_set,
            space,
            key_columns: key_columns.to_vec(),
            key_kinds: view.join_keys.iter().map(|key| key.kind).collect(),
            features: Vec::new(),
            retention_us,
        });
        self.tables.len() - 1
    }

    fn table_id(&self, source: &Source, row_set: &RowSet, space: usize, key_columns: &[usize]) -> Digest {
        let keys: Vec<_> = key_columns.iter().map(|column| self.describe(source, space, *column)).collect();
        let mut makers = Vec::new();
        let mut at = space;
        while let MadeOf::Transform { space, step, carried } = &self.spaces[at].made_of {
            let inputs: Vec<_> = step.inputs.iter().map(|input| self.describe(source, *space, *input)).collect();
            let carried: Vec<_> = carried.iter().map(|column| self.describe(source, *space, *column)).collect();
            makers.push((&step.udf, inputs, carried));
            at = *space;
        }
        let event_time = self.describe(source, at, self.spaces[at].event_time);
        let text = serde_json::json!({
            "row_set": row_set.identity(), "event_time": event_time, "max_future_us": source.max_future_us,
            "keys": keys, "rows_made_by": makers,
        });
        Digest::of(text.to_string().as_bytes())
    }

    /// What a column is, without its name: where it is taken from, or what makes it of what.
    fn describe(&self, source: &Source, space: usize, column: usize) -> serde_json::Value {
        let of = |step: &Step, space: usize| {
            let inputs: Vec<_> = step.inputs.iter().map(|input| self.describe(source, space, *input)).collect();
            serde_json::json!({ "udf": step.udf, "inputs": inputs, "output": column - step.first_output })
        };
        let this = &self.spaces[space];
        let holds = |step: &&Step| (step.first_output..step.first_output + step.outputs.len()).contains(&column);
        if let Some(step) = this.steps.iter().find(holds) {
            return of(step, space);
        }
        match &this.made_of {
            MadeOf::Source => match source.columns.get(column) {
                Some(column) => serde_json::json!({
                    "decode": column.decode, "stream": column.stream_path, "batch": column.batch_column,
                }),
                None => serde_json::Value::Null,
            },
            MadeOf::Transform { space, step, carried } => match carried.get(column) {
                Some(column) => self.describe(source, *space, *column),
                None => of(step, *space),
            },
        }
    }
}

/// Rule 7: a view whose features are all windowed and which has a ttl knows an entity only so long.
pub fn retention_us(view: &FeatureView) -> Option<i64> {
    let ttl_us = view.ttl_us?;
    view.features.iter().try_fold(ttl_us, |longest, feature| Some(longest.max(feature.window.reach_us()?)))
}
