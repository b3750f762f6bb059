//! `onefold source peek`: what a source's rows are read as, and what could not be.

use crate::command_line::{Answering, run};
use serde_json::{Value, json};
use std::path::Path;

const DEFINITIONS: &str = "
kind: project
name: shop
---
kind: source
name: orders
stream: { push: {} }
event_time: at
schema: { at: timestamp, item: utf8, count: { type: int64, stream: $.line.count } }
---
kind: source
name: history
batch: { parquet: { path: ../data } }
event_time: at
schema: { at: timestamp, item: utf8, gone: float64 }
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

const EVENTS: &str = r#"{"at":"2026-01-01T00:00:00Z","item":"a","line":{"count":1}}
{"at":"2026-01-02T00:00:00Z","item":"b","line":{"count":"two"}}
nothing
{"at":"9000-01-02T00:00:00Z","item":"c","line":{"count":3}}
{"at":"2026-01-04T00:00:00Z","item":null}
"#;

fn write_history(directory: &Path) {
    use arrow::array::{ArrayRef, StringArray};
    let times: ArrayRef =
        std::sync::Arc::new(StringArray::from(vec![Some("2026-01-01T00:00:00Z"), None, Some("soon")]));
    let items: ArrayRef = std::sync::Arc::new(StringArray::from(vec!["x", "y", "z"]));
    let batch = arrow::record_batch::RecordBatch::try_from_iter([("at", times), ("item", items)]).unwrap();
    std::fs::create_dir(directory.join("data")).unwrap();
    let file = std::fs::File::create(directory.join("data/part.parquet")).unwrap();
    let mut writer = parquet::arrow::ArrowWriter::try_new(file, batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
}

#[test]
fn rows_are_shown_as_they_are_read_with_what_could_not_be() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::create_dir(directory.path().join("shop")).unwrap();
    std::fs::write(directory.path().join("shop/shop.yaml"), DEFINITIONS).unwrap();
    std::fs::write(directory.path().join("orders.jsonl"), EVENTS).unwrap();
    write_history(directory.path());
    let here = |arguments: &[&str]| run(directory.path(), arguments);
    assert_eq!(here(&["apply", "shop"]).code, 0);
    let empty = here(&["source", "peek", "orders"]);
    assert_eq!(
        (empty.code, empty.out.as_str()),
        (0, "nothing was pushed to `orders` yet: `onefold push orders FILE`, or look at its files with --batch\n")
    );
    assert_eq!(here(&["push", "orders", "orders.jsonl"]).code, 0);
    let shown = here(&["source", "peek", "orders"]);
    let lines: Vec<&str> = shown.out.lines().collect();
    assert_eq!(
        lines[..6],
        [
            "row  at                           item  count",
            "0:0  2026-01-01T00:00:00.000000Z  a     1",
            "0:1  2026-01-02T00:00:00.000000Z  b     !",
            "0:3  9000-01-02T00:00:00.000000Z  c     3",
            "0:4  2026-01-04T00:00:00.000000Z  -     -",
            "",
        ],
        "{}",
        shown.out
    );
    for line in [
        "0:1 lacks `count` (decode): ",
        "  {\"at\":\"2026-01-02T00:00:00Z\",\"item\":\"b\",\"line\":{\"count\":\"two\"}}",
        "0:2 is no row (decode): the text is no JSON object",
        "  nothing",
        "0:3 is no row (future): `at` is 9000-01-02T00:00:00Z, more than 1 h (max_future) after its arrival",
    ] {
        assert!(lines.iter().any(|one| one.starts_with(line)), "`{line}` is missing in\n{}", shown.out);
    }
    let newest: Value = serde_json::from_str(&here(&["source", "peek", "orders", "-n", "2", "--json"]).out).unwrap();
    let oldest: Value =
        serde_json::from_str(&here(&["source", "peek", "orders", "-n", "2", "--from-start", "--json"]).out).unwrap();
    let places =
        |told: &Value| told["rows"].as_array().unwrap().iter().map(|row| row["place"].clone()).collect::<Vec<_>>();
    assert_eq!(
        (places(&newest), places(&oldest)),
        (vec![json!("0:3"), json!("0:4")], vec![json!("0:0"), json!("0:1")])
    );
    assert_eq!(
        (&oldest["rows"][0]["values"]["count"], &oldest["rows"][0]["raw"]),
        (&json!(1), &Value::Null),
        "{oldest}"
    );
    assert_eq!(oldest["end_position"], 5);

    let files = here(&["source", "peek", "history", "--batch"]);
    assert_eq!(files.code, 0, "{}", files.error);
    assert!(files.out.starts_with("row             at                           item  gone\npart.parquet:0  2026-01-01T00:00:00.000000Z  x     -\n\npart.parquet:1 is no row (decode): event_time `at` is missing or null"), "{}", files.out);
    assert!(
        files.out.contains("part.parquet:2 is no row (decode): ")
            && files.out.contains("has no column `gone`: null in all its rows"),
        "{}",
        files.out
    );

    for (arguments, said) in [
        (&["source", "peek", "ordres"][..], "there is no source `ordres`; did you mean `orders`?"),
        (&["source", "peek", "history"], "source `history` takes no pushes: look at its files with --batch"),
        (&["source", "peek", "orders", "--batch"], "source `orders` has no files: its definition has no `batch:`"),
        (&["source", "peek", "orders", "-n", "0"], "`n=0`: write a number from 1 to 1000"),
    ] {
        let ran = here(arguments);
        assert_eq!(ran.code, 2, "{arguments:?}: {}", ran.error);
        assert!(ran.error.contains(said), "{arguments:?}: {}", ran.error);
    }
    // Through the process that holds the data, and by HTTP itself.
    let dev = Answering::start(directory.path(), &["dev", "shop", "--listen", "127.0.0.1:0"]);
    assert_eq!(here(&["source", "peek", "orders"]).out, shown.out);
    let agent = ureq::Agent::config_builder().proxy(None).build().new_agent();
    let url = format!("{}/v1/projects/shop/sources/orders/peek?n=1", dev.base);
    let told: Value =
        serde_json::from_str(&agent.get(url).call().unwrap().body_mut().read_to_string().unwrap()).unwrap();
    assert_eq!(told["rows"][0]["place"], "0:4");
    assert!(dev.stop().success());
}
