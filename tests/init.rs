//! `onefold init`: from data of one's own to a project that passes its test and serves.

use crate::command_line::{Answering, says};
use arrow::array::{
    ArrayRef, Date32Array, Decimal128Array, Int32Array, Int64Array, StringArray, StructArray, TimestampMillisecondArray,
};
use arrow::record_batch::RecordBatch;
use parquet::arrow::ArrowWriter;
use serde_json::{Value, json};
use std::path::Path;
use std::sync::Arc;

/// The values of one entity, by feature.
fn values(directory: &Path, view: &str, key: &str) -> Value {
    let told: Value = serde_json::from_str(&says(directory, &["lookup", view, key, "--json"], 0, &[]).said()).unwrap();
    let columns = told["columns"].as_object().unwrap_or_else(|| panic!("{told}"));
    let name = |name: &String| name.split_once("__").map_or(name.clone(), |(_, feature)| feature.to_owned());
    columns.iter().map(|(column, told)| (name(column), told["values"][0].clone())).collect()
}

#[test]
fn without_data_a_project_with_sample_events_runs() {
    let directory = tempfile::tempdir().unwrap();
    let said = says(directory.path(), &["init", "shop"], 0, &[]).said();
    for file in ["shop/events.jsonl", "shop/shop.yaml", "shop/shop_test.yaml"] {
        assert!(directory.path().join(file).is_file() && said.contains(file), "{file}:\n{said}");
    }
    let tested = says(directory.path(), &["test", "shop"], 0, &[]).said();
    assert!(tested.starts_with("1 test, 2 lookups, "), "{tested}");
    let dev = Answering::start(directory.path(), &["dev", "shop", "--listen", "127.0.0.1:0"]);
    let pushed = says(directory.path(), &["push", "events", "shop/events.jsonl"], 0, &[]).said();
    assert_eq!(pushed, "8 accepted, 0 dead-lettered\n");
    let mut told = values(directory.path(), "customer_stats", "customer_id=c1");
    for _ in 0..100 {
        if told["events"] == 4 {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
        told = values(directory.path(), "customer_stats", "customer_id=c1");
    }
    // The sample is of the days before now, so that windows see it.
    let expected = json!({ "events": 4, "events_7d": 4, "last_item": "tea", "last_quantity": 3, "quantity_sum_7d": 7 });
    for (feature, value) in expected.as_object().unwrap() {
        assert_eq!(told[feature], *value, "{feature}: {told}");
    }
    assert!(dev.stop().success());
    says(directory.path(), &["verify"], 0, &[]);
    let second = says(directory.path(), &["init", "other"], 0, &[]).said();
    assert!(second.contains("onefold push events other/events.jsonl --project other\n"), "{second}");
    let again = says(directory.path(), &["init", "shop"], 2, &[]).said();
    assert!(
        again.contains("shop: there are definitions already, shop.yaml among them: name another directory"),
        "{again}"
    );
}

const EVENTS: &str = r##"{"eventTime": 1609459200000, "userId": "u 1", "order": {"unitPrice": 2.5, "tags": ["a"]}, "n": 1, "raw": 1, "x.y": 1, "void": null}
not json
{"eventTime": 1609459260000, "userId": "u2", "order": {"unitPrice": 3, "tags": []}, "n": 18446744073709551615, "raw": "x", "no": "yes"}

{"eventTime": 1609459320000, "userId": "u 1", "order": {"unitPrice": 1.5}, "raw": {"k": 1}, "no": "#:\u0085'\"", "created": "2026-01-01T00:00:00Z"}
{"eventTime": null, "userId": "u 1"}
"##;

#[test]
fn a_schema_is_read_from_lines_of_json() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("My-Events.jsonl"), EVENTS).unwrap();
    let said = says(directory.path(), &["init", "p", "--from", "My-Events.jsonl", "--name", "mine"], 0, &[]).said();
    for part in [
        "My-Events.jsonl: skipped 1 line: no JSON object\n  line 2: ",
        "  time  event_time: its name is that of an event's time; other times are created",
        "        1 row without event_time, which would be a dead letter each",
        "  key   user_id: it is named as keys are, and its values repeat: 2 different values in 4 rows",
        "  left out: x.y: its name has characters that no path into an event can hold",
        "  left out: void: always null, so that nobody can tell its type",
        "the newest row is of 2021-01-01: windows look back from the moment of a lookup, and give null or 0 today",
        "onefold push my_events My-Events.jsonl",
        "onefold lookup user_stats 'user_id=u 1'",
    ] {
        assert!(said.contains(part), "`{part}` is missing in\n{said}");
    }
    let definitions = std::fs::read_to_string(directory.path().join("p/mine.yaml")).unwrap();
    for line in [
        "name: mine",
        "name: my_events",
        "  event_time: { type: timestamp_ms, stream: $.eventTime }",
        "  user_id: { type: utf8, stream: $.userId }",
        "  order_unit_price: { type: float64, stream: $.order.unitPrice }",
        "  order_tags: { type: list<utf8>, stream: $.order.tags }",
        "  n: float64   # some whole numbers are beyond 64 bits: rounded",
        "  raw: json   # values of several kinds: its text",
        "  \"no\": utf8",
        "  created: timestamp",
        "#   void: always null, so that nobody can tell its type",
        "# There is no `ttl`: how long a value may be used after the newest row is known to you, not to the data, and one",
        "  order_unit_price_mean_7d: { udf: std.mean, inputs: [order_unit_price], window: 7d }",
    ] {
        assert!(definitions.lines().any(|one| one == line), "`{line}` is missing in\n{definitions}");
    }
    assert!(says(directory.path(), &["test", "p"], 0, &[]).said().starts_with("1 test, 2 lookups, "));
    says(directory.path(), &["apply", "p"], 0, &[]);
    let pushed = says(directory.path(), &["push", "my_events", "My-Events.jsonl"], 0, &[]).said();
    assert!(pushed.starts_with("3 accepted, 2 dead-lettered"), "{pushed}");
    let told = values(directory.path(), "user_stats", "user_id=u 1");
    assert_eq!((&told["events"], &told["last_order_unit_price"]), (&json!(2), &json!(1.5)), "{told}");
    let floats =
        says(directory.path(), &["init", "q", "--from", "My-Events.jsonl", "--key", "user_id,n"], 2, &[]).said();
    assert!(floats.contains("--key n: it is float64"), "{floats}");
    let json =
        says(directory.path(), &["init", "q", "--from", "My-Events.jsonl", "--key", "userId,no", "--json"], 0, &[])
            .said();
    let told: Value = serde_json::from_str(json.split_inclusive('\n').next().unwrap()).unwrap();
    assert_eq!(
        (&told["key"]["columns"], &told["view"]),
        (&json!(["user_id", "no"]), &json!("user_no_stats")),
        "{told}"
    );
    says(directory.path(), &["test", "q"], 0, &[]);
}

fn write_parquet(path: &Path, rows: i64, first: i64) {
    let numbers = || first..first + rows;
    let texts: Vec<String> = numbers().map(|number| format!("d{}", number % 3)).collect();
    let inner: ArrayRef = Arc::new(Int64Array::from_iter_values(numbers()));
    let columns: [(&str, ArrayRef); 7] = [
        ("Device ID", Arc::new(StringArray::from(texts))),
        (
            "measured",
            Arc::new(TimestampMillisecondArray::from_iter_values(
                numbers().map(|number| 1_767_225_600_000 + number * 1000),
            )),
        ),
        ("day", Arc::new(Date32Array::from_iter_values(numbers().map(|_| 20_000)))),
        ("level", Arc::new(Int32Array::from_iter_values(numbers().map(|number| i32::try_from(number).unwrap())))),
        (
            "price",
            Arc::new(
                Decimal128Array::from_iter_values(numbers().map(|number| i128::from(number) * 25))
                    .with_precision_and_scale(10, 2)
                    .unwrap(),
            ),
        ),
        (
            "nested",
            Arc::new(StructArray::from(vec![(
                Arc::new(arrow::datatypes::Field::new("a", inner.data_type().clone(), true)),
                inner,
            )])),
        ),
        ("error_ts", Arc::new(Int64Array::from_iter_values(numbers().map(|number| 1_767_225_600 + number)))),
    ];
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let mut writer = ArrowWriter::try_new(std::fs::File::create(path).unwrap(), batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
}

#[test]
fn a_schema_is_read_from_parquet_and_its_history_is_served() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::create_dir(directory.path().join("data")).unwrap();
    write_parquet(&directory.path().join("data/a.parquet"), 30, 0);
    write_parquet(&directory.path().join("data/b.parquet"), 30, 30);
    let several = says(directory.path(), &["init", "iot", "--from", "data"], 2, &[]).said();
    assert!(several.contains("several columns hold times, say which of them is an event's own with --time:\n  measured: timestamp, as 2026-01-01T00:00:00.000000Z"), "{several}");
    assert!(!directory.path().join("iot").exists(), "what was not done leaves nothing");
    let said = says(directory.path(), &["init", "iot", "--from", "data", "--time", "measured"], 0, &[]).said();
    assert!(said.contains("left out: nested: its type is none that a column can be declared as"), "{said}");
    assert!(
        said.contains("onefold materialize") && said.contains("onefold lookup device_stats device_id=d0"),
        "{said}"
    );
    let definitions = std::fs::read_to_string(directory.path().join("iot/iot.yaml")).unwrap();
    for line in [
        "batch: { parquet: { path: ../data } }   # the history; relative to this file",
        "  device_id: { type: utf8, stream: \"$.Device ID\", batch: \"Device ID\" }",
        "  measured: timestamp",
        "  day: timestamp",
        "  level: int64",
        "  price: float64",
        "  error_ts: timestamp_s",
    ] {
        assert!(definitions.lines().any(|one| one == line), "`{line}` is missing in\n{definitions}");
    }
    says(directory.path(), &["test", "iot"], 0, &[]);
    says(directory.path(), &["apply", "iot"], 0, &[]);
    says(directory.path(), &["materialize"], 0, &[]);
    let told = values(directory.path(), "device_stats", "device_id=d1");
    assert_eq!(
        (&told["events"], &told["last_level"], &told["last_price"]),
        (&json!(20), &json!(58), &json!(14.5)),
        "{told}"
    );
    let pushed = says(directory.path(), &["push", "data", "data/a.parquet"], 0, &[]).said();
    assert!(pushed.starts_with("30 accepted, 0 dead-lettered"), "{pushed}");
    assert_eq!(values(directory.path(), "device_stats", "device_id=d1")["events"], 30, "pushed rows are other rows");
    says(
        directory.path(),
        &["init", "one", "--from", "data/a.parquet", "--time", "measured", "--key", "Device ID,level"],
        0,
        &[],
    );
    says(directory.path(), &["test", "one"], 0, &[]);
}

#[test]
fn what_cannot_be_guessed_is_asked_for_and_what_cannot_be_read_is_said() {
    const GOOD: &str = "{\"at\":\"2026-01-01T00:00:00Z\",\"k\":\"a\"}\n{\"at\":\"2026-01-02T00:00:00Z\",\"k\":\"a\"}\n";
    let two = "{\"at\":\"2026-01-01T00:00:00Z\",\"user_id\":1,\"item_id\":7,\"f\":1.5}\n".repeat(2);
    let cases: [(&str, &str, &[&str], &str); 14] = [
        ("", "", &[], "f.jsonl: the file is empty: write one JSON object a line\n"),
        ("\n \n", "", &[], "f.jsonl: no line of it is a JSON object: write one event a line\n"),
        ("1\n\"a\"\n", "", &[], "f.jsonl: no line of it is a JSON object: write one event a line; line 1: "),
        ("[\n{\"a\":1}]", "", &[], "f.jsonl: it begins a JSON array: write one event a line (`jq -c '.[]' FILE`)\n"),
        ("\u{1f}\u{fffd}", "", &[], "f.jsonl: no line of it is a JSON object"),
        ("PAR1", "", &[], "this is no whole Parquet file"),
        ("{\"k\":\"a\"}", "", &[], "no column says when a row happened: that takes RFC 3339 text with an offset"),
        (
            "{\"at\":\"2026-01-01 10:00:00\",\"k\":\"a\"}",
            "",
            &[],
            "`at` has times without an offset or in another form (`2026-01-01 10:00:00`)",
        ),
        (
            "{\"ts\":1767225600000000000,\"k\":\"a\"}",
            "",
            &["--time", "ts"],
            "--time ts: `ts` has numbers from 1767225600000000000 to",
        ),
        (
            &two,
            "",
            &[],
            "several columns could say whom a row is about, say which with --key:\n  user_id: int64, as 1, 1 different value in 2 rows\n  item_id: ",
        ),
        (&two, "", &["--key", "usr_id"], "--key usr_id: the data have no such column; did you mean `user_id`?"),
        (&two, "", &["--key", "f"], "--key f: it is float64, and keys are utf8, int64, boolean, binary or timestamp"),
        (GOOD, "kind: project\nname: x\n", &[], "p: there are definitions already, there.yaml among them"),
        (GOOD, "", &["--name", "Not-A-Name"], "`Not-A-Name` is no name: write a letter a-z"),
    ];
    for (text, there, flags, said) in cases {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("f.jsonl"), text).unwrap();
        if !there.is_empty() {
            std::fs::create_dir(directory.path().join("p")).unwrap();
            std::fs::write(directory.path().join("p/there.yaml"), there).unwrap();
        }
        let told = says(directory.path(), &[&["init", "p", "--from", "f.jsonl"], flags].concat(), 2, &[]).said();
        assert!(told.contains(said), "{text:?} {flags:?}: `{said}` is missing in\n{told}");
        assert_eq!(directory.path().join("p").exists(), !there.is_empty(), "{text:?} {flags:?} left something");
    }
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("f.jsonl"), GOOD).unwrap();
    let missing = says(directory.path(), &["init", "p", "--from", "nothing.jsonl"], 2, &[]).said();
    assert!(missing.contains("nothing.jsonl: No such file"), "{missing}");
    let kafka = says(directory.path(), &["init", "p", "--from", "kafka://c/t"], 2, &[]).said();
    assert!(kafka.contains("only files and directories of this machine"), "{kafka}");
    let none = says(directory.path(), &["init", "p", "--from", "."], 2, &[]).said();
    assert!(none.contains("holds no file that ends in .parquet"), "{none}");
    // Beside the data is a good place, and a file that is there already is not touched.
    says(directory.path(), &["init", ".", "--from", "f.jsonl", "--name", "beside"], 0, &[]);
    says(directory.path(), &["test", "."], 0, &[]);
    assert_eq!(std::fs::read_to_string(directory.path().join("f.jsonl")).unwrap(), GOOD);
}

/// Whatever producers call their fields and put into them, what is drafted can be read, and its test passes.
#[test]
fn a_draft_of_any_rows_passes_its_own_test() {
    use onefold::cases::Runner;
    use onefold::draft::{Ask, drafted, read};
    use rand_chacha::ChaCha8Rng;
    use rand_chacha::rand_core::{Rng, SeedableRng};

    const NAMES: [&str; 24] = [
        "true",
        "no",
        "ON",
        "null",
        "~",
        "a b",
        "é",
        "x-y",
        "#",
        "'",
        "1st",
        "camelCase",
        "HTTPCode",
        "$",
        "@at",
        "{}",
        "a:b",
        "- a",
        "&x",
        "*x",
        "!x",
        "%",
        "events",
        "request",
    ];
    const TEXTS: [&str; 14] = [
        "",
        "null",
        "1e5",
        "2026-01-01",
        ": ",
        "#",
        "\u{1}",
        "\u{85}\u{2028}\u{feff}",
        "\u{fffe}",
        "😀",
        "\"'\\",
        "a\nb",
        "---\n",
        "NaN",
    ];
    let runner = Runner::with_modules(crate::stream::modules()).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let mut columns = 0;
    for seed in 0..40 {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let mut below = |limit: usize| usize::try_from(random.next_u64() % limit as u64).unwrap();
        let fields: Vec<(&str, usize)> = (0..1 + below(8)).map(|_| (NAMES[below(NAMES.len())], below(9))).collect();
        let mut lines = String::new();
        for number in 0..2 + below(12) {
            let mut row = serde_json::Map::new();
            row.insert("at".to_owned(), json!(format!("2026-01-{:02}T00:00:00Z", 1 + number)));
            row.insert("user_id".to_owned(), json!(TEXTS[below(3)]));
            for (name, kind) in &fields {
                let value = match kind {
                    _ if below(6) == 0 => Value::Null,
                    0 => json!(below(1000)),
                    1 => json!(-(below(1000) as f64) / 7.0),
                    2 => json!(f64::from_bits(u64::MAX / 3 * below(3) as u64)),
                    3 => json!(below(2) == 0),
                    4 => json!(TEXTS[below(TEXTS.len())]),
                    5 => json!([below(3), TEXTS[below(TEXTS.len())]]),
                    6 => json!({ NAMES[below(NAMES.len())]: below(3), "z": { "z": "z" } }),
                    7 => json!(i64::MAX - below(3) as i64),
                    _ => [json!(1), json!("x"), json!({})][below(3)].clone(),
                };
                row.insert((*name).to_owned(), value);
            }
            lines.push_str(&format!("{}\n", Value::Object(row)));
        }
        let path = directory.path().join(format!("rows {seed}'.jsonl"));
        std::fs::write(&path, &lines).unwrap();
        let ask = Ask {
            name: "any".to_owned(),
            source: "rows".to_owned(),
            time: Some("at".to_owned()),
            key: vec!["user_id".to_owned()],
            shown: "rows\n---".to_owned(),
            directory: directory.path().to_owned(),
        };
        let draft = read(&path).and_then(|data| drafted(&runner, &ask, data));
        let draft = draft.unwrap_or_else(|error| panic!("seed {seed}: {error}\n{lines}"));
        columns += draft.data.columns.len();
    }
    assert!(columns > 150, "{columns} columns in 40 drafts: what is tried has become thin");
}
