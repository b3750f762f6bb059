//! A suite as batches: a snapshot for each lookup, and the lookups of a view as one training set.

use super::judge::{self, Told};
use super::{BatchWay, CaseError, Outcome, PROJECT, Runner, Sitting, Suite, events};
use crate::batch::{BatchHost, BatchSettings, HistoricalAsk, LogRows, Refusals, Rows, SnapshotAsk};
use crate::clock::ManualClock;
use crate::decode::JsonDecoder;
use crate::define::{LookupCase, OnDemandInput, Project, Source, TestCase, UdfUse};
use crate::registry::{Registry, upload_modules};
use crate::route::Keys;
use crate::serve::values;
use crate::source::{Append, LogSettings, PushLog, Records};
use crate::storage::forgetful::Forgetful;
use arrow::array::{Array, ArrayRef, AsArray, TimestampMicrosecondArray};
use arrow::compute::concat_batches;
use arrow::datatypes::{Field, Schema, TimestampMicrosecondType};
use arrow::record_batch::RecordBatch;
use onefold_fold::{Field as KindField, Kind, Udf};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::file::properties::WriterProperties;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::Path;
use std::sync::Arc;

/// When everything came: rule 10 of the windows refuses nothing.
const ARRIVAL_US: i64 = i64::MAX / 2;
/// Events of one append, and bytes of a segment: few, so that there are several.
const APPENDED: usize = 7;
const SEGMENT_BYTES: u64 = 4096;
/// No column that a definition can name.
const INSTANT: &str = "instant of the label";

/// A lookup, of which test, and the mark on its entity.
type Asked<'a> = (&'a TestCase, &'a LookupCase, &'a str);

/// Puts these tests through one world.
pub(super) fn run(
    runner: &Runner,
    suite: &Suite,
    way: &BatchWay,
    sittings: &[Sitting],
    outcome: &mut Outcome,
) -> Result<(), CaseError> {
    let directory = tempfile::tempdir_in(runner.scratch.path()).map_err(CaseError::failed)?;
    let mut world = World {
        registry: runner.registry(Forgetful::new().storage())?,
        // Rows are only where this way puts them.
        project: without_files(suite.project()),
        suite,
        way,
        sittings,
        runner,
        directory: directory.path(),
        refusals: Arc::new(Refusals::default()),
    };
    upload_modules(&world.registry, &runner.modules, &suite.proposal)?;
    let Some(rows) = world.rows()? else { return Ok(()) };
    for sitting in sittings {
        let test = &suite.tests[sitting.test];
        for place in &sitting.lookups {
            world.snapshot(test, &test.lookups[*place], &sitting.mark, &rows, outcome)?;
        }
    }
    world.training_sets(&rows, outcome)?;
    let told = world.refusals.summary().examples;
    outcome.refused.extend(told.into_iter().map(|refusal| format!("source `{}`: {}", refusal.source, refusal.message)));
    Ok(())
}

fn without_files(project: &Project) -> Project {
    let mut project = project.clone();
    project.sources.values_mut().for_each(|source| source.batch_path = None);
    project
}

struct World<'a> {
    runner: &'a Runner,
    suite: &'a Suite,
    way: &'a BatchWay,
    sittings: &'a [Sitting],
    registry: Registry,
    project: Project,
    directory: &'a Path,
    refusals: Arc<Refusals>,
}

impl World<'_> {
    /// The rows, in files or in logs. None when a file cannot hold one: a value that cannot be decoded has no type.
    fn rows(&mut self) -> Result<Option<Rows>, CaseError> {
        let mut by_source: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for sitting in self.sittings {
            let test = &self.suite.tests[sitting.test];
            let texts = by_source.entry(test.source.as_str()).or_default();
            for event in &self.suite.events[sitting.test] {
                if self.way.in_files && !event.whole {
                    return Ok(None);
                }
                texts.push(event.marked(&self.project, &test.source, &sitting.mark));
            }
        }
        let mut rows = Rows::default();
        for (name, texts) in by_source {
            match self.way.in_files {
                false => drop(rows.logs.insert(name.to_owned(), log(name, &texts)?)),
                true => {
                    let directory = self.directory.join("rows").join(name);
                    std::fs::create_dir_all(&directory).map_err(CaseError::failed)?;
                    if let Some(source) = self.project.sources.get_mut(name) {
                        let (first, second) = texts.split_at(texts.len() / 2);
                        write_rows(source, second, &directory.join("a.parquet"), 3)?;
                        write_rows(source, first, &directory.join("b.parquet"), 100)?;
                        source.batch_path = Some(directory.display().to_string());
                    }
                }
            }
        }
        Ok(Some(rows))
    }

    /// Calls `use_host` with the host of this world.
    fn with_host<T>(&self, use_host: impl FnOnce(&BatchHost<'_>) -> T) -> T {
        let prepare = |udf: &UdfUse, inputs: &[KindField]| -> Result<Udf, String> {
            let module = self.runner.modules.registered(&self.registry, &udf.module, &udf.digest);
            let module = module.map_err(|error| error.to_string())?;
            module.prepare(&udf.udf, &udf.params, inputs).map_err(|error| error.to_string())
        };
        let mut settings = BatchSettings::new(self.directory);
        settings.threads = self.way.threads;
        settings.batch_rows = self.way.batch_rows;
        use_host(&BatchHost {
            project: &self.project,
            prepare: &prepare,
            settings,
            refusals: self.refusals.clone(),
            progress: Arc::new(|_| ()),
        })
    }

    fn snapshot(
        &self,
        test: &TestCase,
        lookup: &LookupCase,
        mark: &str,
        rows: &Rows,
        outcome: &mut Outcome,
    ) -> Result<(), CaseError> {
        let Some(view) = self.project.feature_views.get(&lookup.view).filter(|_| !lookup.label) else { return Ok(()) };
        let entity = events::marked(&lookup.entity, mark);
        let wanted = view.join_keys.iter().map(|key| column(key.kind, &key.name, &[&entity]));
        let wanted = wanted.collect::<Result<Vec<_>, _>>().map_err(|wrong| CaseError::at(test, lookup.line, wrong))?;
        let wanted = Keys::encode(&wanted).map_err(CaseError::failed)?;
        let mut told = Told { is_found: Some(false), ..Told::default() };
        let ask = SnapshotAsk { view: lookup.view.clone(), as_of_us: Some(lookup.at_us) };
        let features = judge::asked(&self.project, lookup);
        self.with_host(|host| {
            host.snapshot(&ask, rows, |batch| {
                let keys = Keys::encode(&batch.columns()[..view.join_keys.len()]).ok();
                let row = keys.and_then(|keys| (0..keys.len()).find(|row| keys.key(*row) == wanted.key(0)));
                let Some(row) = row else { return Ok(()) };
                told.is_found = Some(true);
                let at = |name: &str| batch.column_by_name(name).map(|column| column.slice(row, 1));
                told.valid_until_us = at("valid_until").map(|until| {
                    let until = until.as_primitive_opt::<TimestampMicrosecondType>()?;
                    until.iter().next().flatten()
                });
                let values = features.iter().filter_map(|asked| Some((asked.feature.clone(), at(&asked.feature)?)));
                told.values = values.collect();
                Ok(())
            })
        })?;
        if told.is_found == Some(false) {
            told.values = nulls(&self.project, lookup);
        }
        let path = self.way.of("snapshot");
        let differences = judge::differences(&self.project, test, lookup, &told, &path)?;
        outcome.judged(test, lookup.line, &path, differences);
        Ok(())
    }

    /// All questions about a view, of the same features, as one training set. Those of a lookup mean the same there,
    /// unless labels see less.
    fn training_sets(&self, rows: &Rows, outcome: &mut Outcome) -> Result<(), CaseError> {
        let mut sets: BTreeMap<(&str, Vec<String>), Vec<Asked>> = BTreeMap::new();
        for sitting in self.sittings {
            let test = &self.suite.tests[sitting.test];
            for lookup in sitting.lookups.iter().map(|place| &test.lookups[*place]) {
                let view = self.project.feature_views.get(&lookup.view);
                if lookup.label || !view.is_some_and(|view| view.right_exclusive) {
                    let names = judge::asked(&self.project, lookup).into_iter().map(|asked| asked.feature).collect();
                    sets.entry((&lookup.view, names)).or_default().push((test, lookup, &sitting.mark));
                }
            }
        }
        let path = self.way.of("historical");
        for ((view, names), asks) in sets {
            let labels = self.directory.join("labels.parquet");
            self.write_labels(view, &asks, &labels)?;
            let features = judge::asked(&self.project, asks[0].1);
            let ask = HistoricalAsk { labels, features, timestamp: INSTANT.to_owned() };
            let out = self.directory.join("training.parquet");
            self.with_host(|host| host.historical(&ask, rows, &out))?;
            let set = read_parquet(&out)?;
            for (row, (test, lookup, _)) in asks.into_iter().enumerate() {
                let value = |name: &String| {
                    let column = set.column_by_name(&format!("{view}__{name}"))?;
                    Some((name.clone(), column.slice(row, 1)))
                };
                let told = Told { values: names.iter().filter_map(value).collect(), ..Told::default() };
                let differences = judge::differences(&self.project, test, lookup, &told, &path)?;
                outcome.judged(test, lookup.line, &path, differences);
            }
        }
        Ok(())
    }

    /// The lookups as labels: every join key, the request data and the instant.
    fn write_labels(&self, view: &str, asks: &[Asked], path: &Path) -> Result<(), CaseError> {
        let entities: Vec<_> = asks.iter().map(|(_, lookup, mark)| events::marked(&lookup.entity, mark)).collect();
        let times = asks.iter().map(|(_, lookup, _)| lookup.at_us).collect::<Vec<_>>();
        let times: ArrayRef = Arc::new(TimestampMicrosecondArray::from(times).with_timezone("UTC"));
        let mut columns = BTreeMap::from([(INSTANT.to_owned(), times)]);
        let wrong = |message: String| CaseError::at(asks[0].0, asks[0].1.line, message);
        for key in self.views_of(view).into_iter().flat_map(|view| &self.project.feature_views[view].join_keys) {
            let given: Vec<_> = entities.iter().collect();
            columns.insert(key.name.clone(), column(key.kind, &key.name, &given).map_err(wrong)?);
        }
        let requests: Vec<_> = asks.iter().map(|(_, lookup, _)| &lookup.request).collect();
        let mut on_demand = Vec::new();
        self.walk(view, &mut on_demand);
        for name in on_demand {
            for field in self.project.on_demand_feature_views.get(name).into_iter().flat_map(|view| &view.request) {
                columns.insert(field.name.clone(), column(field.kind, &field.name, &requests).map_err(wrong)?);
            }
        }
        let fields = columns.iter().map(|(name, column)| Field::new(name, column.data_type().clone(), true));
        let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        let batch = RecordBatch::try_new(schema, columns.into_values().collect()).map_err(CaseError::failed)?;
        write_parquet(&batch, path, None)
    }

    /// The feature views that a view is, or is computed from.
    fn views_of(&self, view: &str) -> BTreeSet<&str> {
        let mut all = Vec::new();
        self.walk(view, &mut all);
        all.into_iter().filter(|name| self.project.feature_views.contains_key(*name)).collect()
    }

    /// A view and all that it is computed from.
    fn walk<'b>(&'b self, view: &str, seen: &mut Vec<&'b str>) {
        if let Some((name, _)) = self.project.feature_views.get_key_value(view) {
            seen.push(name);
        }
        let Some((name, view)) = self.project.on_demand_feature_views.get_key_value(view) else { return };
        seen.push(name);
        for input in view.features.iter().flat_map(|feature| &feature.inputs) {
            if let OnDemandInput::Feature { view, .. } = input
                && !seen.contains(&view.as_str())
            {
                self.walk(view, seen);
            }
        }
    }
}

/// A column of what entities or requests say under a name; null where they say nothing.
fn column(kind: Kind, name: &str, rows: &[&BTreeMap<String, Value>]) -> Result<ArrayRef, String> {
    let given: Vec<Value> = rows.iter().map(|row| row.get(name).cloned().unwrap_or(Value::Null)).collect();
    values::from_json(kind, given.iter()).map_err(|wrong| format!("`{name}`: {wrong}"))
}

/// What an entity has that is not there.
fn nulls(project: &Project, lookup: &LookupCase) -> BTreeMap<String, ArrayRef> {
    let features = project.feature_views.get(&lookup.view).into_iter().flat_map(|view| &view.features);
    let fields = features.flat_map(|feature| &feature.outputs);
    fields.map(|field| (field.name.clone(), arrow::array::new_null_array(&field.kind.data_type(), 1))).collect()
}

/// A push log in memory with these events.
fn log(source: &str, texts: &[String]) -> Result<LogRows, CaseError> {
    let settings = LogSettings { segment_bytes: SEGMENT_BYTES, ..LogSettings::default() };
    let path = format!("projects/{PROJECT}/log/{source}");
    let clock = Arc::new(ManualClock::at(ARRIVAL_US));
    let log = PushLog::open(Forgetful::new().storage(), &path, clock, settings).map_err(CaseError::failed)?;
    for part in texts.chunks(APPENDED) {
        let records = Records::from_slices(part.iter().map(|event| event.as_bytes()));
        let records = records.ok_or_else(|| CaseError::Wrong("a case holds 4 GiB of events".into()))?;
        let append = Append { records, arrival_us: ARRIVAL_US, idempotency: None, answer: Default::default() };
        log.append(append).map_err(CaseError::failed)?;
    }
    let end = log.end_position();
    Ok(LogRows::until(Arc::new(log), end))
}

/// Events as a file of the source.
fn write_rows(source: &Source, texts: &[String], path: &Path, group_rows: usize) -> Result<(), CaseError> {
    let mut decoder = JsonDecoder::new(source).map_err(CaseError::failed)?;
    let batch = decoder.decode(texts.iter().map(|event| event.as_bytes())).map_err(CaseError::failed)?.batch;
    let fields = source.columns.iter().zip(batch.columns());
    let fields = fields.map(|(column, values)| Field::new(&column.batch_column, values.data_type().clone(), true));
    let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
    let batch = RecordBatch::try_new(schema, batch.columns().to_vec()).map_err(CaseError::failed)?;
    write_parquet(&batch, path, Some(group_rows))
}

fn write_parquet(batch: &RecordBatch, path: &Path, group_rows: Option<usize>) -> Result<(), CaseError> {
    let file = File::create(path).map_err(CaseError::failed)?;
    let properties = WriterProperties::builder().set_max_row_group_row_count(group_rows).build();
    let mut writer = ArrowWriter::try_new(file, batch.schema(), Some(properties)).map_err(CaseError::failed)?;
    writer.write(batch).map_err(CaseError::failed)?;
    writer.close().map(drop).map_err(CaseError::failed)
}

fn read_parquet(path: &Path) -> Result<RecordBatch, CaseError> {
    let file = File::open(path).map_err(CaseError::failed)?;
    let reader = ParquetRecordBatchReaderBuilder::try_new(file).map_err(CaseError::failed)?;
    let schema = reader.schema().clone();
    let batches =
        reader.build().map_err(CaseError::failed)?.collect::<Result<Vec<_>, _>>().map_err(CaseError::failed)?;
    concat_batches(&schema, &batches).map_err(CaseError::failed)
}
