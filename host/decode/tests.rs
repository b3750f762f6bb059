//! The decoding table line by line, and random text against a slow reference.

use super::*;
use crate::define::{DecodeAs, Source, SourceColumn};
use crate::mangle::{outside, outside_text};
use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{Float64Type, Int64Type, TimestampMicrosecondType};
use onefold_fold::Kind;
use proptest::prelude::*;
use std::sync::Arc;

fn source(columns: &[(&str, DecodeAs, &str)]) -> Source {
    let column = |(name, decode, path): &(&str, DecodeAs, &str)| SourceColumn {
        name: (*name).into(),
        decode: *decode,
        stream_path: path.split('.').filter(|part| !part.is_empty()).map(str::to_owned).collect(),
        batch_column: (*name).into(),
    };
    let time = ("at", DecodeAs::TimestampMicros, "at");
    Source {
        name: "events".into(),
        about: Default::default(),
        lineage: "events".into(),
        push: true,
        batch_path: None,
        event_time: "at".into(),
        out_of_orderness_us: 0,
        max_future_us: 0,
        columns: [&[time], columns].concat().iter().map(column).collect(),
        transforms: Vec::new(),
    }
}

fn decode(columns: &[(&str, DecodeAs, &str)], events: &[&str]) -> Decoded {
    let mut decoder = JsonDecoder::new(&source(columns)).unwrap();
    decoder.decode(events.iter().map(|event| event.as_bytes())).unwrap()
}

/// The one value of an event `{"at":0,"v":VALUE}`: its array, or the message of its failure.
fn one(decode_as: DecodeAs, value: &str) -> Result<ArrayRef, String> {
    let decoded = decode(&[("v", decode_as, "v")], &[&format!(r#"{{"at":0,"v":{value}}}"#)]);
    assert!(decoded.refused.is_empty(), "{value}: {:?}", decoded.refused);
    match decoded.cell_failures.first() {
        Some(failure) => {
            assert_eq!((failure.row, failure.column, decoded.cell_failures.len()), (0, 1, 1));
            assert!(decoded.batch.column(1).is_null(0));
            Err(failure.message.clone())
        }
        None => Ok(decoded.batch.column(1).clone()),
    }
}

#[test]
fn integers() {
    let int64 =
        |text: &str| one(DecodeAs::Kind(Kind::Int64), text).map(|array| array.as_primitive::<Int64Type>().value(0));
    assert_eq!(int64("9223372036854775807"), Ok(i64::MAX));
    assert_eq!(int64("-9223372036854775808"), Ok(i64::MIN));
    assert_eq!(int64("-0"), Ok(0));
    for text in [
        "9223372036854775808",
        "-9223372036854775809",
        "99999999999999999999999",
        "3.0",
        "1e3",
        r#""12""#,
        "true",
        "[1]",
    ] {
        assert!(int64(text).is_err(), "{text}");
    }
    assert_eq!(
        int64(r#""12""#).unwrap_err(),
        "`\"12\"` is text: int64 takes an integer of 64 bits without point, exponent or quotes"
    );
}

#[test]
fn floats() {
    let float64 =
        |text: &str| one(DecodeAs::Kind(Kind::Float64), text).map(|array| array.as_primitive::<Float64Type>().value(0));
    for text in [
        "3",
        "0.1",
        "1e-400",
        "2.2250738585072011e-308",
        "9007199254740993",
        "1e308",
        "123456789012345678901234567890",
        "0.30000000000000004",
    ] {
        assert_eq!(float64(text).map(f64::to_bits), Ok(text.parse::<f64>().unwrap().to_bits()), "{text}");
    }
    assert_eq!(float64("-0.0").map(f64::to_bits), Ok((-0.0f64).to_bits()));
    assert!(float64(r#""NaN""#).unwrap().is_nan());
    assert_eq!(float64(r#""-Infinity""#), Ok(f64::NEG_INFINITY));
    for text in ["1e400", "-1e400", r#""nan""#, r#""1.5""#, "false"] {
        assert!(float64(text).is_err(), "{text}");
    }
    // Nearest to the decimal itself: by way of float64 it would round the other way.
    let list = one(DecodeAs::Kind(Kind::Float32List), r#"[1.00000017881393432617187499, "NaN", null]"#).unwrap();
    let items = list.as_list::<i32>().value(0);
    let items = items.as_primitive::<arrow::datatypes::Float32Type>();
    assert_eq!(items.value(0), 1.000_000_1);
    assert!(items.value(1).is_nan() && items.is_null(2));
    assert!(one(DecodeAs::Kind(Kind::Float32List), "[1e39]").is_err());
}

#[test]
fn times() {
    let us = |decode_as, text: &str| {
        one(decode_as, text).map(|array| array.as_primitive::<TimestampMicrosecondType>().value(0))
    };
    assert_eq!(us(DecodeAs::Kind(Kind::Timestamp), r#""1970-01-01T00:00:01.5+00:00""#), Ok(1_500_000));
    assert_eq!(us(DecodeAs::TimestampSeconds, "-0.0000001"), Ok(-1));
    assert_eq!(us(DecodeAs::TimestampSeconds, "1.7e9"), Ok(1_700_000_000_000_000));
    assert_eq!(us(DecodeAs::TimestampMillis, "1700000000000.1239"), Ok(1_700_000_000_000_123));
    assert_eq!(us(DecodeAs::TimestampMillis, "-1.0001"), Ok(-1001));
    assert_eq!(us(DecodeAs::TimestampMicros, "0.000e99"), Ok(0));
    assert_eq!(us(DecodeAs::TimestampMicros, "-1e-400000000000"), Ok(-1));
    for (decode_as, text) in [
        (DecodeAs::Kind(Kind::Timestamp), "0"),
        (DecodeAs::Kind(Kind::Timestamp), r#""20000-01-01T00:00:00Z""#),
        (DecodeAs::TimestampSeconds, r#""1970-01-01T00:00:00Z""#),
        (DecodeAs::TimestampSeconds, "568971820800"),
        (DecodeAs::TimestampSeconds, "1e400"),
    ] {
        assert!(us(decode_as, text).is_err(), "{text}");
    }
}

#[test]
fn texts_binaries_and_parts() {
    let utf8 = |decode_as, text: &str| one(decode_as, text).map(|array| array.as_string::<i32>().value(0).to_owned());
    let text = |text: &str| utf8(DecodeAs::Kind(Kind::Utf8), text);
    assert_eq!(text(r#""a\n\"\\\/\u00e9\ud83d\ude00ü""#).as_deref(), Ok("a\n\"\\/é😀ü"));
    assert!(text(r#""\ud83d""#).is_err() && text(r#""\ude00\ud83d""#).is_err() && text("5").is_err());
    assert_eq!(utf8(DecodeAs::Json, r#" {"a" : [1, 2.0]} "#).as_deref(), Ok(r#"{"a" : [1, 2.0]}"#));
    let binary =
        |text: &str| one(DecodeAs::Kind(Kind::Binary), text).map(|array| array.as_binary::<i32>().value(0).to_vec());
    assert_eq!(binary(r#""aGk\/""#), Ok(vec![0x68, 0x69, 0x3f]));
    assert_eq!(binary(r#""aGk""#), binary(r#""aGk=""#).map(|bytes| bytes[..2].to_vec()));
    assert!(binary(r#""a-_""#).is_err());
    let limit = "x".repeat(VALUE_LIMIT_BYTES);
    assert_eq!(text(&format!("\"{limit}\"")).map(|text| text.len()), Ok(VALUE_LIMIT_BYTES));
    assert!(text(&format!("\"{limit}x\"")).unwrap_err().contains("1048577 bytes"));
    assert!(utf8(DecodeAs::Json, &format!("\"{limit}\"")).is_err());
    assert!(one(DecodeAs::Kind(Kind::Int64List), &format!("[{}1]", "1,".repeat(VALUE_LIMIT_BYTES / 8))).is_err());
    assert!(one(DecodeAs::Kind(Kind::Int64List), r#"[1, "2"]"#).unwrap_err().starts_with("item 1:"));
}

#[test]
fn a_bad_row_or_cell_costs_only_itself() {
    let int64 = DecodeAs::Kind(Kind::Int64);
    let deep = format!(r#"{{"at":1,"other":{}{}}}"#, "[".repeat(200), "]".repeat(200));
    let events = [
        r#"{"at":1,"v":1,"order":{"price":7}}"#,
        r#"{"at":1,"v":2,"order":{"price":8}"#,
        r#"{"at":2,"v":"no","order":{"price":9}}"#,
        r#"{"v":3}"#,
        r#"{"at":"now","v":3}"#,
        r#"{"at":3,"v":1,"v":2}"#,
        r#"{"at":4,"order":{"price":1},"order":{}}"#,
        r#"{"at":5,"order":{"price":1,"pric\u0065":2},"unknown":1,"unknown":2}"#,
        r#"{"at":6,"order":3}"#,
        r#"{"at":7,"order":null} "#,
        r#"{"at":8,"at":8}"#,
        r#"[1]"#,
        r#""#,
        r#"{"at":9,}"#,
        r#"{"at":9} x"#,
        r#"{"at":01}"#,
        &deep,
    ];
    let decoded = decode(&[("v", int64, "v"), ("price", int64, "order.price"), ("raw", DecodeAs::Json, "")], &events);
    assert_eq!(decoded.records, [0, 2, 5, 6, 7, 8, 9]);
    let failed: Vec<_> = decoded.cell_failures.iter().map(|failure| (failure.row, failure.column)).collect();
    assert_eq!(failed, [(1, 1), (2, 1), (3, 2), (4, 2), (5, 2)]);
    let column = |number: usize| {
        let column = decoded.batch.column(number).as_primitive::<Int64Type>();
        column.iter().collect::<Vec<_>>()
    };
    assert_eq!(column(1), [Some(1), None, None, None, None, None, None]);
    assert_eq!(column(2), [Some(7), Some(9), None, None, None, None, None]);
    assert_eq!(decoded.batch.column(3).as_string::<i32>().value(6), r#"{"at":7,"order":null}"#);
    assert_eq!(
        decoded.refused.iter().map(|refused| refused.record).collect::<Vec<_>>(),
        [1, 3, 4, 8 + 2, 11, 12, 13, 14, 15, 16]
    );
    assert_eq!(decoded.refused[1].message, "event_time `at` is missing or null; every event needs one");
    assert!(decoded.refused[3].message.contains("`at` is there twice"));
}

#[test]
fn broken_utf8_is_refused() {
    let mut decoder = JsonDecoder::new(&source(&[])).unwrap();
    let decoded = decoder.decode([&b"{\"at\":1,\"x\":\"\xff\"}"[..], b"{\"at\":1}"]).unwrap();
    assert_eq!((decoded.records, decoded.refused[0].record), (vec![1], 0));
}

#[test]
fn arrow_columns_follow_the_same_rules() {
    use arrow::array::*;
    let decimals = Decimal128Array::from(vec![Some(1250), Some(-1)]).with_precision_and_scale(10, 2).unwrap();
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("at", Arc::new(TimestampNanosecondArray::from(vec![Some(-1), None]))),
        ("big", Arc::new(UInt64Array::from(vec![u64::MAX, 1]))),
        ("exact", Arc::new(decimals.clone())),
        ("near", Arc::new(decimals)),
        ("key", Arc::new(DictionaryArray::<arrow::datatypes::Int8Type>::from_iter(["a", "b"]))),
        ("day", Arc::new(Date32Array::from(vec![1, i32::MAX]))),
    ];
    let batch = arrow::record_batch::RecordBatch::try_from_iter(columns).unwrap();
    let kind = |name, kind| (name, DecodeAs::Kind(kind), name);
    let mut source = source(&[kind("big", Kind::Int64), kind("exact", Kind::Utf8), kind("near", Kind::Float64)]);
    source.columns[0].decode = DecodeAs::Kind(Kind::Timestamp);
    let decoder = ColumnsDecoder::new(&source).unwrap();
    let decoded = decoder.decode(&batch, "part.parquet").unwrap();
    assert_eq!((decoded.records.as_slice(), decoded.refused.len()), (&[0][..], 1));
    assert_eq!(decoded.batch.column(0).as_primitive::<TimestampMicrosecondType>().value(0), -1);
    assert!(decoded.batch.column(1).is_null(0));
    assert_eq!(decoded.cell_failures[0].message, "18446744073709551615 is beyond the largest int64");
    assert_eq!(decoded.batch.column(2).as_string::<i32>().value(0), "12.50");
    assert_eq!(decoded.batch.column(3).as_primitive::<Float64Type>().value(0), 12.5);

    let mut other = source.clone();
    other.columns[1].batch_column = "key".into();
    let error = ColumnsDecoder::new(&other).unwrap().decode(&batch, "part.parquet").unwrap_err().to_string();
    assert!(error.starts_with("part.parquet: column `key` is Dictionary"), "{error}");
    assert!(
        error.ends_with("cannot become `big: int64`; declare it utf8, or name another column with `batch:`"),
        "{error}"
    );
    let mut other = source.clone();
    other.columns[1].batch_column = "gone".into();
    let decoder = ColumnsDecoder::new(&other).unwrap();
    assert_eq!(decoder.missing(batch.schema().as_ref()), ["gone"]);
    assert_eq!(decoder.decode(&batch, "part.parquet").unwrap().batch.column(1).null_count(), 1);
    let mut other = source;
    other.columns[1] = SourceColumn {
        decode: DecodeAs::Kind(Kind::Timestamp),
        batch_column: "day".into(),
        ..other.columns[1].clone()
    };
    let decoded = ColumnsDecoder::new(&other).unwrap().decode(&batch, "part.parquet").unwrap();
    assert_eq!(decoded.batch.column(1).as_primitive::<TimestampMicrosecondType>().value(0), 86_400_000_000);
}

/// Random JSON, with the declared keys more often than others.
fn json() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        any::<f64>().prop_map(Into::into),
        "\\PC{0,12}".prop_map(Into::into),
        "[\"\\\\\n\t\u{0}é]{0,12}".prop_map(Into::into),
    ];
    leaf.prop_recursive(4, 24, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(serde_json::Value::from),
            prop::collection::vec((prop_oneof!["at", "i", "f", "s", "o", "\\PC{0,3}"], inner), 0..6)
                .prop_map(|entries| serde_json::Value::Object(entries.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn random_bytes_never_panic(events in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..60), 0..6)) {
        let mut decoder = JsonDecoder::new(&source(&[("s", DecodeAs::Kind(Kind::Utf8), "s")])).unwrap();
        let decoded = decoder.decode(events.iter().map(Vec::as_slice)).unwrap();
        prop_assert_eq!(decoded.records.len() + decoded.refused.len(), events.len());
    }

    /// A whole text with one byte changed is read by both or by neither.
    #[test]
    fn text_is_broken_where_serde_json_says_so(value in json(), at in any::<prop::sample::Index>(), byte in any::<u8>(), pretty: bool) {
        let event = serde_json::json!({"at": 1, "o": value});
        let mut text = if pretty { serde_json::to_vec_pretty(&event) } else { serde_json::to_vec(&event) }.unwrap();
        let at = at.index(text.len());
        text[at] = byte;
        let reference = std::str::from_utf8(&text).is_ok()
            && serde_json::from_slice::<serde::de::IgnoredAny>(&text).is_ok();
        let mut decoder = JsonDecoder::new(&source(&[])).unwrap();
        let decoded = decoder.decode([text.as_slice()]).unwrap();
        let broken = decoded.refused.iter().any(|refused| refused.message.starts_with("the text is "));
        prop_assert_eq!(!broken, reference && text.trim_ascii_start().first() == Some(&b'{'), "{:?}", String::from_utf8_lossy(&text));
    }

    #[test]
    fn values_are_those_of_serde_json(values in prop::collection::vec(json(), 1..5), pretty: bool) {
        let columns = [
            ("i", DecodeAs::Kind(Kind::Int64), "o.i"),
            ("f", DecodeAs::Kind(Kind::Float64), "o.f"),
            ("s", DecodeAs::Kind(Kind::Utf8), "o.s"),
            ("o", DecodeAs::Json, "o"),
        ];
        let events = values.iter().map(|value| serde_json::json!({"x": value, "o": value, "at": 1}));
        let events: Vec<_> = events.map(|event| if pretty { format!("{event:#}") } else { event.to_string() }).collect();
        let mut decoder = JsonDecoder::new(&source(&columns)).unwrap();
        let decoded = decoder.decode(events.iter().map(String::as_bytes)).unwrap();
        prop_assert_eq!(decoded.records.len(), values.len());
        for (row, value) in values.iter().enumerate() {
            let failed = |column: u32| decoded.cell_failures.iter().any(|f| f.row as usize == row && f.column == column);
            let part = |name: &str| value.get(name).filter(|part| !part.is_null());
            let no_object = !value.is_object() && !value.is_null();
            let [i, f, s, o] = [1, 2, 3, 4].map(|number| decoded.batch.column(number));
            let integer = part("i").and_then(serde_json::Value::as_i64);
            prop_assert_eq!(i.is_valid(row).then(|| i.as_primitive::<Int64Type>().value(row)), integer);
            prop_assert_eq!(failed(1), no_object || (part("i").is_some() && integer.is_none()));
            let float = part("f").and_then(serde_json::Value::as_f64);
            prop_assert_eq!(f.is_valid(row).then(|| f.as_primitive::<Float64Type>().value(row)).map(f64::to_bits), float.map(f64::to_bits));
            prop_assert_eq!(failed(2), no_object || (part("f").is_some() && float.is_none()));
            let text = part("s").and_then(serde_json::Value::as_str);
            prop_assert_eq!(s.is_valid(row).then(|| s.as_string::<i32>().value(row)), text);
            // The text of both is read by the same reader: serde_json's own floats are not the nearest.
            let reread = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
            let raw = o.is_valid(row).then(|| reread(o.as_string::<i32>().value(row)));
            let whole = reread(&events[row]).get("o").cloned().filter(|part| !part.is_null());
            prop_assert_eq!(raw, whole);
        }
    }
}

/// An event with a value of every kind.
const EVERY_KIND: &str = r#"{"at":1,"b":true,"i":-12,"f":1.5e-3,"t":"2026-01-02T10:00:00.5+01:30","s":1.5,"ms":17.25,
 "x":"a\u00e9\ud83d\ude00\n","y":"aGk/","ints":[1,null],"reals":[0.1,"NaN"],"texts":["a",""],"o":{"i":7,"p":{"q":[{}]}}}"#;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2048))]

    /// Whatever comes, each event is a row or refused, and each row has a cell of every column or a failure.
    #[test]
    fn outside_events_are_rows_or_refused(events in prop::collection::vec(outside(EVERY_KIND.as_bytes()), 1..4)) {
        let kind = |name, kind| (name, DecodeAs::Kind(kind), name);
        let columns = [
            kind("b", Kind::Boolean), kind("i", Kind::Int64), kind("f", Kind::Float64), kind("t", Kind::Timestamp),
            ("s", DecodeAs::TimestampSeconds, "s"), ("ms", DecodeAs::TimestampMillis, "ms"), kind("x", Kind::Utf8),
            kind("y", Kind::Binary), kind("ints", Kind::Int64List), kind("reals", Kind::Float32List),
            kind("texts", Kind::Utf8List), ("oi", DecodeAs::Kind(Kind::Int64), "o.i"), ("o", DecodeAs::Json, "o"),
            ("all", DecodeAs::Json, ""),
        ];
        let mut decoder = JsonDecoder::new(&source(&columns)).unwrap();
        let decoded = decoder.decode(events.iter().map(Vec::as_slice)).unwrap();
        prop_assert_eq!(decoded.records.len() + decoded.refused.len(), events.len());
        prop_assert_eq!(decoded.batch.num_rows(), decoded.records.len());
        for column in decoded.batch.columns() {
            prop_assert!(column.to_data().validate_full().is_ok());
        }
        for failure in &decoded.cell_failures {
            prop_assert!(decoded.batch.column(failure.column as usize).is_null(failure.row as usize));
            prop_assert!(!failure.message.contains('\n'), "{}", failure.message);
        }
    }

    #[test]
    fn outside_times_are_of_the_calendar_or_refused(text in outside_text("2026-02-28T23:59:60.123456789-23:59")) {
        if let Ok(us) = parse_rfc3339(text.as_bytes()) {
            prop_assert!((FIRST_US..=LAST_US).contains(&us), "{text}: {us}");
        }
    }
}
