//! Training sets: for each label the values as of its instant, and the label's own columns as they were.
//!
//! Each table that is asked is one run with the labels as probes; what comes out is sorted by label and kept in a
//! temporary file. Then labels and files are read side by side, so that no more than a few batches are in memory.

use super::BatchError;
use super::files::PinnedFile;
use super::fold_exec::Wanted;
use super::label_file::{LabelBatch, Labels};
use super::on_demand::{OnDemand, Values, feature_of};
use super::parquet_out::ParquetOut;
use super::probes::Probes;
use super::run::Run;
use super::settings::{BatchHost, Rows};
use super::slice::{Slice, whole_layout};
use crate::define::{Digest, FeatureReference, OnDemandInput, Project};
use crate::rows::retention_us;
use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, UInt32Array};
use arrow::compute::{concat_batches, nullif, take};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef, UInt64Type};
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;
use arrow::record_batch::RecordBatch;
use onefold_fold::Kind;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{BufReader, BufWriter};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

#[derive(Clone, Debug)]
pub struct HistoricalAsk {
    /// Parquet, or CSV by its name.
    pub labels: PathBuf,
    /// Value columns, in the order wanted.
    pub features: Vec<FeatureReference>,
    /// The labels' column of instants.
    pub timestamp: String,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct HistoricalSummary {
    pub labels: u64,
    /// By source.
    pub files: BTreeMap<String, Vec<PinnedFile>>,
}

/// What a person writes after `--features`: a service, or views and value columns with commas between.
pub fn feature_references(project: &Project, text: &str) -> Result<Vec<FeatureReference>, BatchError> {
    if let Some(service) = project.feature_services.get(text.trim()) {
        return Ok(service.features.clone());
    }
    let mut references: Vec<FeatureReference> = Vec::new();
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let (view, feature) = match part.split_once(['.', ':']) {
            Some((view, feature)) => (view, Some(feature)),
            None => (part, None),
        };
        let outputs = outputs_of(project, view).ok_or_else(|| {
            BatchError::Input(format!(
                "there is no feature service or view `{view}`: write SERVICE, or view.feature with commas between"
            ))
        })?;
        let before = references.len();
        let wanted = outputs.into_iter().filter(|output| feature.is_none_or(|feature| feature == *output));
        references.extend(wanted.map(|output| FeatureReference { view: view.to_owned(), feature: output.to_owned() }));
        if references.len() == before {
            return Err(BatchError::Input(format!("view `{view}` has no feature `{}`", feature.unwrap_or_default())));
        }
    }
    match references.is_empty() {
        true => {
            Err(BatchError::Input("no feature is asked for: write SERVICE, or view.feature with commas between".into()))
        }
        false => Ok(references),
    }
}

fn outputs_of<'a>(project: &'a Project, view: &str) -> Option<Vec<&'a str>> {
    if let Some(view) = project.feature_views.get(view) {
        let outputs = view.features.iter().flat_map(|feature| &feature.outputs);
        return Some(outputs.map(|field| field.name.as_str()).collect());
    }
    let view = project.on_demand_feature_views.get(view)?;
    Some(view.features.iter().flat_map(|feature| &feature.outputs).map(|field| field.name.as_str()).collect())
}

/// Views that are asked in one run: one table, one kind of right edge, one set of label columns.
type Group = (usize, bool, Vec<String>);

/// Everything that the asked columns need.
struct Needed<'a> {
    project: &'a Project,
    /// Value columns of feature views.
    columns: BTreeSet<(&'a str, &'a str)>,
    on_demand: Vec<(&'a str, &'a str)>,
    /// Label columns: join keys and request data.
    fields: BTreeMap<String, Kind>,
}

impl<'a> Needed<'a> {
    fn of(project: &'a Project, references: &'a [FeatureReference]) -> Result<Needed<'a>, BatchError> {
        let mut needed = Needed { project, columns: BTreeSet::new(), on_demand: Vec::new(), fields: BTreeMap::new() };
        for reference in references {
            needed.add(&reference.view, &reference.feature)?;
        }
        Ok(needed)
    }

    fn add(&mut self, view: &'a str, output: &'a str) -> Result<(), BatchError> {
        if let Some(found) = self.project.feature_views.get(view) {
            if !found.features.iter().any(|feature| feature.outputs.iter().any(|field| field.name == output)) {
                return Err(BatchError::Input(format!("view `{view}` has no feature `{output}`")));
            }
            self.columns.insert((view, output));
            for key in &found.join_keys {
                self.label_column(&key.name, key.kind)?;
            }
            return Ok(());
        }
        let feature = feature_of(self.project, view, output)
            .ok_or_else(|| BatchError::Input(format!("there is no feature `{view}.{output}`")))?;
        if self.on_demand.contains(&(view, output)) {
            return Ok(());
        }
        self.on_demand.push((view, output));
        for input in &feature.inputs {
            match input {
                OnDemandInput::Request { field } => self.label_column(&field.name, field.kind)?,
                OnDemandInput::Feature { view, output, .. } => self.add(view, output)?,
            }
        }
        Ok(())
    }

    fn label_column(&mut self, name: &str, kind: Kind) -> Result<(), BatchError> {
        match self.fields.insert(name.to_owned(), kind) {
            Some(other) if other != kind => Err(BatchError::Input(format!(
                "label column `{name}` would have to be {kind} and {other}: ask for the views in two training sets"
            ))),
            _ => Ok(()),
        }
    }

    /// The views of each run.
    fn groups(&self) -> Result<BTreeMap<Group, BTreeSet<String>>, BatchError> {
        let layout = whole_layout(self.project)?;
        let mut groups: BTreeMap<Group, BTreeSet<String>> = BTreeMap::new();
        for (view, _) in &self.columns {
            let Some(view) = layout.views.get(*view) else { continue };
            let Some(column) = view.columns.first() else { continue };
            let keys = view.join_keys.iter().map(|key| key.name.clone()).collect();
            groups.entry((column.table, view.right_exclusive, keys)).or_default().insert(view.name.clone());
        }
        Ok(groups)
    }

    /// The fingerprints of the asked features of these views.
    fn fingerprints(&self, views: &BTreeSet<String>) -> BTreeSet<Digest> {
        let mut fingerprints = BTreeSet::new();
        for (view, output) in self.columns.iter().filter(|(view, _)| views.contains(*view)) {
            let features = self.project.feature_views.get(*view).into_iter().flat_map(|view| &view.features);
            let has = |feature: &&crate::define::Feature| feature.outputs.iter().any(|field| field.name == *output);
            fingerprints.extend(features.filter(has).map(|feature| feature.fingerprint));
        }
        fingerprints
    }
}

impl BatchHost<'_> {
    /// Writes the labels' rows and columns, in order, with a column `view__feature` for each value column asked for.
    pub fn historical(&self, ask: &HistoricalAsk, rows: &Rows, out: &Path) -> Result<HistoricalSummary, BatchError> {
        self.historical_described(ask, rows, out, |_| None)
    }

    /// The same with a key and a text in the file's metadata, once it is known what was read.
    pub fn historical_described(
        &self,
        ask: &HistoricalAsk,
        rows: &Rows,
        out: &Path,
        describe: impl FnOnce(&HistoricalSummary) -> Option<(String, String)>,
    ) -> Result<HistoricalSummary, BatchError> {
        let needed = Needed::of(self.project, &ask.features)?;
        let labels = Labels::open(&ask.labels, &ask.timestamp, &needed.fields, self.settings.batch_rows)?;
        let labels = Arc::new(labels);
        let schema = self.training_schema(labels.schema(), &ask.features)?;
        let on_demand = OnDemand::prepare(self.project, &needed.on_demand, self.prepare)?;
        let mut summary = HistoricalSummary { labels: labels.rows(), ..Default::default() };
        let mut rows = rows.clone();
        let mut answers = Vec::new();
        for ((_, exclusive, keys), views) in needed.groups()? {
            let slice = Slice::of(self.project, &views, &needed.fingerprints(&views), self.prepare)?;
            let source = slice.source.name.clone();
            let probes = Probes::Labels { labels: labels.clone(), keys, exclusive };
            let run = Run::new(self, slice, &rows, Wanted::Probes, Some(probes), true)?;
            let (answer, pins) = Answers::write(run, views, &self.settings.temporary_dir)?;
            rows.pinned.insert(source.clone(), pins.clone());
            summary.files.insert(source, pins);
            answers.push(answer);
        }
        let mut file = ParquetOut::create(out, schema.clone())?;
        let mut readers = answers.iter().map(Answers::read).collect::<Result<Vec<_>, _>>()?;
        let mut first = 0;
        for batch in labels.read()? {
            let batch = batch?;
            let mut values = Values::new();
            for reader in &mut readers {
                reader.next(first, &batch, self.project, &mut values)?;
            }
            on_demand.add(&batch, &mut values)?;
            let mut columns = batch.whole.columns().to_vec();
            for reference in &ask.features {
                let column = values.get(&(reference.view.clone(), reference.feature.clone()));
                columns.push(column.cloned().ok_or_else(|| {
                    BatchError::internal(format!("no values of `{}.{}`", reference.view, reference.feature))
                })?);
            }
            file.write(&RecordBatch::try_new(schema.clone(), columns)?)?;
            first += batch.len() as u64;
        }
        if let Some((key, text)) = describe(&summary) {
            file.describe(key, text);
        }
        file.finish()?;
        Ok(summary)
    }

    fn training_schema(&self, labels: &SchemaRef, references: &[FeatureReference]) -> Result<SchemaRef, BatchError> {
        let mut fields: Vec<Arc<Field>> = labels.fields().iter().cloned().collect();
        for FeatureReference { view, feature } in references {
            let outputs = self.project.feature_views.get(view).into_iter();
            let outputs = outputs.flat_map(|view| &view.features).flat_map(|feature| &feature.outputs);
            let computed = self.project.on_demand_feature_views.get(view).into_iter();
            let computed = computed.flat_map(|view| &view.features).flat_map(|feature| &feature.outputs);
            let field = outputs.chain(computed).find(|field| field.name == *feature);
            let field = field.ok_or_else(|| BatchError::Input(format!("there is no feature `{view}.{feature}`")))?;
            let name = format!("{view}__{feature}");
            if fields.iter().any(|field| *field.name() == name) {
                let text =
                    format!("the training set would have two columns `{name}`: rename the labels' own, or ask once");
                return Err(BatchError::Input(text));
            }
            fields.push(Arc::new(Field::new(name, field.kind.data_type(), true)));
        }
        Ok(Arc::new(Schema::new_with_metadata(fields, labels.metadata().clone())))
    }
}

/// What one run answered, by label, in a file that goes when this does.
struct Answers {
    path: PathBuf,
    views: BTreeSet<String>,
    /// Fingerprint and how many outputs, in the order of the columns.
    features: Vec<(Digest, usize)>,
}

/// So that two training sets of one process do not meet.
static NEXT_FILE: AtomicU64 = AtomicU64::new(0);

impl Answers {
    fn write(run: Run, views: BTreeSet<String>, directory: &Path) -> Result<(Answers, Vec<PinnedFile>), BatchError> {
        let number = NEXT_FILE.fetch_add(1, Ordering::Relaxed);
        let path = directory.join(format!("onefold-{}-{number}.arrow", std::process::id()));
        let features = &run.scan.slice.layout.tables[0].features;
        let features = features.iter().map(|feature| (feature.fingerprint, feature.outputs.len())).collect();
        let schema = run.schema();
        let answers = Answers { path, views, features };
        let cannot = |error: &dyn std::fmt::Display| {
            BatchError::Resources(format!("temporary file {}: {error}", answers.path.display()))
        };
        let file = File::create(&answers.path).map_err(|error| cannot(&error))?;
        let mut writer = StreamWriter::try_new(BufWriter::new(file), &schema).map_err(|error| cannot(&error))?;
        let (_, pins) = run.each(|batch, _| writer.write(&batch).map_err(|error| cannot(&error)))?;
        writer.finish().map_err(|error| cannot(&error))?;
        drop(writer);
        Ok((answers, pins))
    }

    fn read(&self) -> Result<AnswerReader<'_>, BatchError> {
        let cannot = |error: &dyn std::fmt::Display| {
            BatchError::Resources(format!("temporary file {}: {error}", self.path.display()))
        };
        let file = File::open(&self.path).map_err(|error| cannot(&error))?;
        let reader = StreamReader::try_new(BufReader::new(file), None).map_err(|error| cannot(&error))?;
        Ok(AnswerReader { answers: self, reader, rest: None })
    }
}

impl Drop for Answers {
    fn drop(&mut self) {
        // Nobody else knows of it; one that cannot be removed lies with other temporary files.
        let _ = std::fs::remove_file(&self.path);
    }
}

struct AnswerReader<'a> {
    answers: &'a Answers,
    reader: StreamReader<BufReader<File>>,
    /// Answers that were read and are for later labels.
    rest: Option<RecordBatch>,
}

impl AnswerReader<'_> {
    /// Adds the value columns of the run's views for the labels from `first` on.
    fn next(
        &mut self,
        first: u64,
        labels: &LabelBatch,
        project: &Project,
        values: &mut Values,
    ) -> Result<(), BatchError> {
        let end = first + labels.len() as u64;
        let answers = self.until(end)?;
        let numbers = answers.column(0).as_primitive::<UInt64Type>();
        let mut places: Vec<Option<u32>> = vec![None; labels.len()];
        for (place, number) in numbers.values().iter().enumerate() {
            let row = usize::try_from(number.wrapping_sub(first)).unwrap_or(usize::MAX);
            let slot = places.get_mut(row).ok_or_else(|| BatchError::internal("an answer of no label"))?;
            *slot = Some(place as u32);
        }
        let places = UInt32Array::from(places);
        let newest = take(answers.column(1), &places, None)?;
        let newest = newest.as_primitive::<Int64Type>();
        for name in &self.answers.views {
            let Some(view) = project.feature_views.get(name) else { continue };
            let older_than = |row: usize, age_us: Option<i64>| {
                age_us.is_some_and(|age_us| labels.at_us[row] > newest.value(row).saturating_add(age_us))
            };
            let retention_us = retention_us(view);
            let blank =
                |row: usize| newest.is_null(row) || older_than(row, view.ttl_us) || older_than(row, retention_us);
            let blank: BooleanArray = (0..labels.len()).map(|row| Some(blank(row))).collect();
            for feature in &view.features {
                let Some(column) = self.column_of(&feature.fingerprint) else { continue };
                for (output, field) in feature.outputs.iter().enumerate() {
                    let value: ArrayRef = take(answers.column(column + output), &places, None)?;
                    values.insert((name.clone(), field.name.clone()), nullif(&value, &blank)?);
                }
            }
        }
        Ok(())
    }

    fn column_of(&self, fingerprint: &Digest) -> Option<usize> {
        let mut column = 2;
        for (of, outputs) in &self.answers.features {
            if of == fingerprint {
                return Some(column);
            }
            // Behind the outputs stand `reason` and `failed`.
            column += outputs + 2;
        }
        None
    }

    /// The answers of labels before `end` that have not been given yet.
    fn until(&mut self, end: u64) -> Result<RecordBatch, BatchError> {
        let schema = self.reader.schema();
        let mut parts = Vec::new();
        loop {
            let batch = match self.rest.take() {
                Some(rest) => rest,
                None => match self.reader.next() {
                    Some(batch) => batch?,
                    None => break,
                },
            };
            let numbers = batch.column(0).as_primitive::<UInt64Type>();
            let count = numbers.values().partition_point(|number| *number < end);
            parts.push(batch.slice(0, count));
            if count < batch.num_rows() {
                self.rest = Some(batch.slice(count, batch.num_rows() - count));
                break;
            }
        }
        debug_assert_eq!(*schema.field(0).data_type(), DataType::UInt64, "labels come first");
        Ok(concat_batches(&schema, &parts)?)
    }
}
