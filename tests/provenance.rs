//! Training sets that say what they were made of, and are made again from it, or not for a reason.

use crate::batch::random::read_parquet;
use crate::command_line::{Ran, run};
use arrow::array::{ArrayRef, Int64Array, StringArray, TimestampMicrosecondArray};
use arrow::record_batch::RecordBatch;
use onefold::batch::file_metadata;
use onefold::define::Digest;
use onefold::platform::{PROVENANCE_KEY, Provenance};
use parquet::arrow::ArrowWriter;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;

const DEFINITIONS: &str = "
kind: project
name: shop
---
kind: source
name: orders
stream: { push: {} }
batch: { parquet: { path: ../files } }
event_time: at
schema: { at: timestamp, item: utf8, count: int64 }
---
kind: entity
name: item
join_keys: { item: utf8 }
---
kind: feature_view
name: items
entities: [item]
source: orders
features:
  sold: { udf: std.sum, inputs: [count] }
";
const LABELS: &str = "item,event_timestamp\na,2026-01-02T12:00:00Z\nb,2026-01-02T12:00:00Z\na,2026-01-02T09:30:00Z\n";
/// 2026-01-02T09:00:00Z.
const NINE_US: i64 = 1_767_344_400_000_000;

fn write_file(path: &Path, counts: &[i64]) {
    let rows = counts.len();
    let times = TimestampMicrosecondArray::from(vec![NINE_US; rows]).with_timezone("UTC");
    let columns: [(&str, ArrayRef); 3] = [
        ("at", Arc::new(times)),
        ("item", Arc::new(StringArray::from(vec!["a"; rows]))),
        ("count", Arc::new(Int64Array::from(counts.to_vec()))),
    ];
    let batch = RecordBatch::try_from_iter(columns).expect("columns of one length");
    let mut writer = ArrowWriter::try_new(File::create(path).expect("a file"), batch.schema(), None).expect("Parquet");
    writer.write(&batch).expect("rows can be written");
    writer.close().expect("the file can be ended");
}

#[test]
fn a_training_set_is_made_again_or_says_what_has_gone() {
    let directory = tempfile::tempdir().expect("a directory");
    let at = |name: &str| directory.path().join(name);
    let here = |arguments: &[&str]| -> Ran { run(directory.path(), arguments) };
    for name in ["shop", "files"] {
        std::fs::create_dir(at(name)).expect("a directory");
    }
    let write = |name: &str, text: &str| std::fs::write(at(name), text).expect("a file");
    write("shop/shop.yaml", DEFINITIONS);
    write("labels.csv", LABELS);
    write("orders.jsonl", "{\"at\":\"2026-01-02T10:00:00Z\",\"item\":\"a\",\"count\":5}\n");
    write_file(&at("files/a.parquet"), &[1, 2]);
    let done = |arguments: &[&str]| {
        let ran = here(arguments);
        assert_eq!(ran.code, 0, "{arguments:?}: {}{}", ran.out, ran.error);
        ran.out
    };
    done(&["apply", "shop"]);
    done(&["push", "orders", "orders.jsonl"]);
    done(&["historical", "--entities", "labels.csv", "--features", "items", "--out", "set.parquet"]);

    let text = file_metadata(&at("set.parquet"), PROVENANCE_KEY).expect("Parquet").expect("it says what it is made of");
    let made: Provenance = serde_json::from_str(&text).expect("JSON");
    assert_eq!((made.project.as_str(), made.revision, made.features.len()), ("shop", 1, 1), "{text}");
    assert_eq!((made.labels.digest, made.labels.size), (Digest::of(LABELS.as_bytes()), LABELS.len() as u64), "{text}");
    let source = &made.sources["orders"];
    assert_eq!((source.files[0].rows, source.log), (2, Some((0, 1))), "{text}");
    assert_eq!(made.program, format!("onefold {}", env!("CARGO_PKG_VERSION")));

    // What has come since, and a new revision with another meaning of the feature, do not reach it.
    done(&["push", "orders", "orders.jsonl"]);
    write_file(&at("files/b.parquet"), &[1000]);
    write("shop/shop.yaml", &DEFINITIONS.replace("std.sum", "std.max"));
    done(&["apply", "shop"]);
    let again = ["historical", "--reproduce", "set.parquet", "--out", "again.parquet"];
    assert_eq!(done(&again), "3 labels: every column is what it was, to the last bit\n");
    assert_eq!(read_parquet(&at("again.parquet")), read_parquet(&at("set.parquet")));
    assert_eq!(file_metadata(&at("again.parquet"), PROVENANCE_KEY).expect("Parquet"), Some(text));

    let gone = |reason: &str| {
        let ran = here(&again);
        assert_eq!(ran.code, 1, "{}{}", ran.out, ran.error);
        assert!(ran.out.starts_with("set.parquet cannot be made again:\n") && ran.out.contains(reason), "{}", ran.out);
    };
    std::fs::rename(at("labels.csv"), at("moved.csv")).expect("it can be moved");
    gone("labels.csv: No such file");
    done(&[&again[..], &["--entities", "moved.csv"]].concat());
    write("labels.csv", &LABELS.replace("12:00", "13:00"));
    gone("the file is another");
    write("labels.csv", LABELS);
    std::fs::rename(at("files/a.parquet"), at("kept.parquet")).expect("it can be moved");
    write_file(&at("files/a.parquet"), &[1, 2, 3]);
    gone("a.parquet: the file ");
    std::fs::rename(at("kept.parquet"), at("files/a.parquet")).expect("it can be moved");
    done(&again);

    // A set whose values are not those of its inputs is told from one that is.
    let wrong = read_parquet(&at("set.parquet"));
    let sold: ArrayRef = Arc::new(Int64Array::from(vec![Some(8), None, Some(4)]));
    let columns = vec![wrong.column(0).clone(), wrong.column(1).clone(), sold];
    let wrong = RecordBatch::try_new(wrong.schema(), columns).expect("the same columns");
    let file = File::create(at("set.parquet")).expect("a file");
    let mut writer = ArrowWriter::try_new(file, wrong.schema(), None).expect("Parquet");
    writer.write(&wrong).expect("rows can be written");
    let text = file_metadata(&at("again.parquet"), PROVENANCE_KEY).expect("Parquet");
    writer.append_key_value_metadata(parquet::file::metadata::KeyValue::new(PROVENANCE_KEY.to_owned(), text));
    writer.close().expect("the file can be ended");
    let ran = here(&again);
    assert_eq!(
        (ran.code, ran.out.as_str()),
        (1, "3 labels: another than in set.parquet: items__sold\n"),
        "{}",
        ran.error
    );

    let ran = here(&["historical", "--reproduce", "files/a.parquet", "--out", "again.parquet"]);
    assert!(ran.code == 2 && ran.error.contains("does not say what it was made of"), "{} {}", ran.code, ran.error);
}
