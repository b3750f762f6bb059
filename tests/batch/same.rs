//! The same values whatever the threads, the memory, the size of batches and the way they are asked for.

use super::random::read_parquet;
use super::world::{World, rows_with};
use arrow::array::{Array, ArrayRef, AsArray, Float64Array, StringArray};
use arrow::datatypes::{DataType, Field, Schema};
use arrow::record_batch::RecordBatch;
use onefold::batch::{
    AsOf, BatchError, HistoricalAsk, MaterializeAsk, Rows, SnapshotAsk, StateSink, feature_references, list_files,
};
use onefold::canonical::Canonical;
use onefold::rows::{Layout, RowSet};
use onefold_fold::{Cells, FoldJob, Kind, Planner, Probe, Results, restore};
use parquet::arrow::ArrowWriter;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::Path;
use std::sync::Arc;

const VIEWS: [&str; 4] = ["product_stats", "customer_stats", "customer_product", "category_stats"];

/// The e-commerce example with these many canonical rows, two thirds in files and the rest pushed.
pub fn shop(rows: u64) -> (World, Rows) {
    let mut world = World::example();
    let shape = Canonical { customers: 300, products: 100, categories: 8, ..Canonical::new(3, rows) };
    let (bytes, _) = shape.lines();
    let lines = String::from_utf8(bytes).expect("JSON is text");
    let events: Vec<String> = lines.lines().map(str::to_owned).collect();
    let (filed, pushed) = events.split_at(events.len() * 2 / 3);
    let directory = world.path("transactions");
    for (number, part) in filed.chunks(filed.len() / 3 + 1).enumerate() {
        let path = directory.join(format!("dt=2026-01-0{}/part.parquet", number + 1));
        world.write_parquet("transactions", &path, part, 1000);
    }
    if let Some(source) = world.project.sources.get_mut("transactions") {
        source.batch_path = Some(directory.display().to_string());
    }
    let rows = rows_with("transactions", Some(world.log(pushed, shape.end_us)));
    (world, rows)
}

fn snapshot(world: &World, rows: &Rows, view: &str, as_of_us: Option<i64>) -> RecordBatch {
    let out = world.path("snapshot.parquet");
    let ask = SnapshotAsk { view: view.to_owned(), as_of_us };
    world.with_host(|host| host.snapshot_file(&ask, rows, &out)).unwrap_or_else(|error| panic!("{view}: {error}"));
    read_parquet(&out)
}

fn write(path: &Path, batch: &RecordBatch) {
    let mut writer = ArrowWriter::try_new(File::create(path).expect("a file"), batch.schema(), None).expect("Parquet");
    writer.write(batch).expect("rows can be written");
    writer.close().expect("the file can be ended");
}

#[test]
fn threads_memory_and_batches_reach_no_value() {
    let (mut world, rows) = shop(30_000);
    for view in VIEWS {
        (world.threads, world.memory_limit_bytes, world.batch_rows) = (1, 256 << 20, 8192);
        let expected = snapshot(&world, &rows, view, None);
        assert!(expected.num_rows() >= 8, "{view}: {} entities", expected.num_rows());
        for (threads, memory_limit_bytes, batch_rows) in [(2, 256 << 20, 8192), (3, 256 << 20, 100), (2, 1 << 20, 1024)]
        {
            (world.threads, world.memory_limit_bytes, world.batch_rows) = (threads, memory_limit_bytes, batch_rows);
            let found = snapshot(&world, &rows, view, None);
            assert_eq!(found, expected, "{view}: {threads} threads, {memory_limit_bytes} bytes, {batch_rows} rows");
        }
    }
}

#[test]
fn a_label_sees_what_a_snapshot_shows() {
    let (world, rows) = shop(20_000);
    let end_us = Canonical::new(3, 1).end_us;
    for view in VIEWS {
        for as_of_us in [end_us - 40 * 86_400_000_000, end_us - 86_400_000_000 / 2, end_us + 35 * 86_400_000_000] {
            let expected = snapshot(&world, &rows, view, Some(as_of_us));
            let definition = &world.project.feature_views[view];
            let keys = definition.join_keys.len();
            let mut fields: Vec<Field> =
                expected.schema().fields()[..keys].iter().map(|field| field.as_ref().clone()).collect();
            fields.push(Field::new("at", Kind::Timestamp.data_type(), true));
            let mut columns = expected.columns()[..keys].to_vec();
            let times = vec![as_of_us; expected.num_rows()];
            columns.push(Arc::new(arrow::array::TimestampMicrosecondArray::from(times).with_timezone("UTC")));
            let labels = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).expect("columns of one length");
            write(&world.path("labels.parquet"), &labels);
            let ask = HistoricalAsk {
                labels: world.path("labels.parquet"),
                features: feature_references(&world.project, view).expect("the view is there"),
                timestamp: "at".to_owned(),
            };
            let out = world.path("training.parquet");
            let summary = world.with_host(|host| host.historical(&ask, &rows, &out));
            summary.unwrap_or_else(|error| panic!("{view}: {error}"));
            let set = read_parquet(&out);
            let values = definition.features.iter().map(|feature| feature.outputs.len()).sum::<usize>();
            assert_eq!(
                set.columns()[keys + 1..],
                expected.columns()[keys..keys + values],
                "{view} as of {as_of_us}: labels at that instant"
            );
        }
    }
}

#[test]
fn request_data_meets_features_in_a_training_set() {
    let (world, rows) = shop(5_000);
    let end = "2026-03-02T00:00:00Z";
    let csv = format!(
        "note,product_id,price,customer_id,event_timestamp\n\
         first,p-000000,10.5,c-0000000,{end}\n\
         second,nobody,1.0,c-0000001,{end}\n\
         third,p-000001,,c-0000000,{end}\n"
    );
    std::fs::write(world.path("labels.csv"), csv).expect("a file");
    let ask = HistoricalAsk {
        labels: world.path("labels.csv"),
        features: feature_references(&world.project, "recommendation").expect("the service is there"),
        timestamp: "event_timestamp".to_owned(),
    };
    let out = world.path("training.parquet");
    world.with_host(|host| host.historical(&ask, &rows, &out)).unwrap_or_else(|error| panic!("{error}"));
    let set = read_parquet(&out);
    let number = |name: &str, row: usize| -> Option<f64> {
        let column = set.column_by_name(name).unwrap_or_else(|| panic!("no column {name}"));
        let column = arrow::compute::cast(column, &DataType::Float64).expect("a number");
        let column: &Float64Array = column.as_primitive();
        column.is_valid(row).then(|| column.value(row))
    };
    let notes: ArrayRef = Arc::new(StringArray::from(vec!["first", "second", "third"]));
    assert_eq!(set.column_by_name("note"), Some(&notes));
    let revenue = number("product_stats__revenue_30d", 0).expect("the most sold product has sold");
    let units = number("product_stats__units_sold_30d", 0).expect("the most sold product has sold");
    assert_eq!(number("basket__price_ratio", 0), Some(10.5 / (revenue / units)));
    assert_eq!(number("basket__price_ratio", 1), None, "no such product");
    assert_eq!(number("product_stats__units_sold_30d", 1), None, "not even a count");
    assert_eq!(number("basket__price_ratio", 2), None, "no price");
}

#[derive(Default)]
struct Kept(BTreeMap<(usize, Vec<u8>), NewestAndCells>);

type NewestAndCells = (i64, Vec<Vec<u8>>);

impl StateSink for Kept {
    fn entity(&mut self, table: usize, key: &[u8], newest_us: i64, cells: &[&[u8]]) -> Result<(), BatchError> {
        let cells = cells.iter().map(|cell| cell.to_vec()).collect();
        let before = self.0.insert((table, key.to_vec()), (newest_us, cells));
        assert_eq!(before, None, "an entity is given once");
        Ok(())
    }
}

/// One value of one stored cell.
struct Stored {
    head: Vec<u8>,
    tail: Vec<u8>,
    as_of_us: i64,
    value: Option<ArrayRef>,
}

impl Cells for Stored {
    fn count(&self) -> usize {
        1
    }

    fn plan(&self, _: usize, planner: &mut Planner) {
        let mut plan = planner.begin(&self.head, &self.tail, self.as_of_us);
        plan.probe(self.as_of_us);
        plan.end(false);
    }

    fn settle(&mut self, _: usize, results: &Results<'_>) {
        let Some(Probe::Row(row)) = results.probes(0).next() else { panic!("a value was asked for") };
        self.value = Some(results.outputs()[0].slice(row, 1));
    }
}

#[test]
fn materialized_states_give_the_values_of_a_snapshot() {
    let (mut world, rows) = shop(20_000);
    let layout = Layout::of(&world.project, |source, _, _| RowSet::of_log(&source.lineage)).expect("a checked project");
    let features: Vec<Vec<usize>> = layout.tables.iter().map(|table| (0..table.features.len()).collect()).collect();
    let ask = MaterializeAsk { layout: &layout, features: &features };
    let mut states = Kept::default();
    let done =
        world.with_host(|host| host.materialize(&ask, &rows, &mut states)).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(done.tables.len(), layout.tables.len(), "all tables");
    (world.threads, world.memory_limit_bytes) = (1, 1 << 20);
    let mut again = Kept::default();
    assert_eq!(world.with_host(|host| host.materialize(&ask, &rows, &mut again)).ok(), Some(done.clone()));
    assert!(states.0 == again.0, "states depend on threads or memory");
    let clock_us = done.clock_us["transactions"].expect("there are rows");
    let mut compared = 0;
    for view in VIEWS {
        let table = layout.views[view].columns[0].table;
        let ask = world.with_host(|host| host.table_of(&BTreeSet::from([view.to_owned()]))).expect("the view is there");
        let mut compare = |values: onefold::batch::ValueColumns| {
            let keys = values.keys.as_ref().expect("whole tables have keys");
            for row in 0..values.len() {
                let (newest_us, cells) = &states.0[&(table, keys.value(row).to_vec())];
                assert_eq!(*newest_us, values.newest_us.value(row));
                for (feature, cell) in layout.tables[table].features.iter().zip(cells) {
                    let found = values.features.iter().find(|values| values.fingerprint == feature.fingerprint);
                    let Some(found) = found else { continue };
                    let columns = &layout.spaces[layout.tables[table].space].columns;
                    let inputs: Vec<_> = feature.inputs.iter().map(|input| columns[*input].clone()).collect();
                    let udf = world.prepare(&feature.udf, &inputs).expect("it was prepared before");
                    let mut job = FoldJob::new(udf, feature.window);
                    let mut stored = Stored { head: Vec::new(), tail: Vec::new(), as_of_us: clock_us, value: None };
                    restore(&feature.window, cell, &mut stored.head, &mut stored.tail).expect("a sound cell");
                    let inputs: Vec<ArrayRef> = job
                        .udf()
                        .columns()
                        .iter()
                        .map(|field| arrow::array::new_empty_array(&field.kind.data_type()))
                        .collect();
                    job.run(0, &inputs, &mut stored).expect("the module runs");
                    assert_eq!(stored.value, Some(found.outputs[0].slice(row, 1)), "{view} {}", feature.udf.udf);
                    compared += 1;
                }
            }
            Ok(())
        };
        let read = world.with_host(|host| host.table_values(&ask, &rows, AsOf::ClockOrNewest(clock_us), &mut compare));
        assert_eq!(read.unwrap_or_else(|error| panic!("{error}")).0, Some(clock_us));
    }
    assert!(compared > 1000, "{compared}");
    let files = &done.files["transactions"];
    let path = world.project.sources["transactions"].batch_path.clone().expect("it has files");
    assert_eq!(*files, list_files(&path).expect("they can be listed"));
}

#[test]
fn values_at_own_instants_are_those_of_snapshots() {
    let (world, rows) = shop(5_000);
    let end_us = Canonical::new(3, 1).end_us;
    let ask = world.with_host(|host| host.table_of(&BTreeSet::from(["product_stats".to_owned()]))).expect("a view");
    let mut expected = BTreeMap::new();
    let mut asked = Vec::new();
    for (number, as_of_us) in [end_us - 30 * 86_400_000_000, end_us - 86_400_000_000, end_us].into_iter().enumerate() {
        let mut take = |values: onefold::batch::ValueColumns| {
            let keys = values.keys.as_ref().expect("whole tables have keys");
            for row in (0..values.len()).filter(|row| row % 3 == number) {
                let cells: Vec<ArrayRef> =
                    values.features.iter().map(|values| values.outputs[0].slice(row, 1)).collect();
                expected.insert(asked.len() as u64, (values.newest_us.value(row), cells));
                asked.push((keys.value(row).to_vec(), as_of_us));
            }
            Ok(())
        };
        world.with_host(|host| host.table_values(&ask, &rows, AsOf::At(as_of_us), &mut take)).expect("values");
    }
    let mut found = BTreeMap::new();
    let take = |values: onefold::batch::ValueColumns| {
        let labels = values.labels.as_ref().expect("asked entities have labels");
        for row in 0..values.len() {
            let cells: Vec<ArrayRef> = values.features.iter().map(|values| values.outputs[0].slice(row, 1)).collect();
            found.insert(labels.value(row), (values.newest_us.value(row), cells));
        }
        Ok(())
    };
    world.with_host(|host| host.values_at(&ask, &rows, asked, take)).unwrap_or_else(|error| panic!("{error}"));
    assert!(expected.len() > 50);
    assert_eq!(found, expected);
}
