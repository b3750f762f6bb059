//! Events that are too large, too deep, no text, or of a strange time: told, kept, and what does not use them counts.

use super::{PROJECT, Wrong, letters, server, shown, values};
use crate::serve::Server;
use serde_json::{Value, json};

const HEAD: &str = r#"{"at":"2026-01-02T10:00:00Z""#;

/// What becomes of an event.
enum Fate {
    /// Every feature counts it; the newest row's time is this.
    Taken(&'static str),
    /// This column cannot be decoded: its feature lacks the row, the others count it.
    Column(&'static str),
    /// The table of its entities refuses it: no feature has it, and its letter names no feature.
    Key,
    /// Nothing of it can be used.
    Whole(&'static str),
}

struct Case {
    name: &'static str,
    event: Vec<u8>,
    fate: Fate,
    said: &'static [&'static str],
}

fn cases() -> Vec<Case> {
    let case = |name, event: String, fate, said| Case { name, event: event.into_bytes(), fate, said };
    let with = |number: usize, rest: &str| format!("{HEAD},\"key\":\"e{number}\",{rest}}}");
    let at = |number: usize, at: &str| format!("{{\"at\":\"{at}\",\"key\":\"e{number}\"}}");
    let long = "x".repeat(10_000_000);
    let nested = |depth: usize| format!("{}1{}", "[".repeat(depth), "]".repeat(depth));
    let ten = "2026-01-02T10:00:00Z";
    let no_text = |number: usize, before: &str| {
        let mut event = format!("{HEAD},\"key\":\"e{number}\",\"{before}").into_bytes();
        event.extend_from_slice(b"\xff\xfe\"}");
        event
    };
    vec![
        case(
            "10 MB in a column",
            with(0, &format!("\"text\":\"{long}\"")),
            Fate::Column("text"),
            &["10000000 bytes", "1048576"],
        ),
        case("10 MB that nobody reads", with(1, &format!("\"other\":\"{long}\"")), Fate::Taken(ten), &[]),
        case("10 MB of key", format!("{HEAD},\"key\":\"{long}\"}}"), Fate::Key, &["`key`", "1048576"]),
        case(
            "10 MB of JSON in a part",
            with(3, &format!("\"order\":{{\"a\":\"{long}\"}}")),
            Fate::Column("part"),
            &["`part`", "1048576"],
        ),
        case("100 levels that nobody reads", with(4, &format!("\"other\":{}", nested(100))), Fate::Taken(ten), &[]),
        case(
            "200 levels that nobody reads",
            with(5, &format!("\"other\":{}", nested(200))),
            Fate::Whole("decode"),
            &["the text is no JSON object", "more than 128 objects and lists"],
        ),
        case(
            "100,000 levels",
            with(6, &format!("\"order\":{}", nested(100_000))),
            Fate::Whole("decode"),
            &["the text is no JSON object", "more than 128 objects and lists"],
        ),
        Case {
            name: "no UTF-8 in a column",
            event: no_text(7, "text\":\""),
            fate: Fate::Whole("decode"),
            said: &["the text is not UTF-8 at byte "],
        },
        Case {
            name: "no UTF-8 that nobody reads",
            event: no_text(8, "other\":\""),
            fate: Fate::Whole("decode"),
            said: &["the text is not UTF-8 at byte "],
        },
        case("a leap second", at(9, "2016-12-31T23:59:60Z"), Fate::Taken("2016-12-31T23:59:59.999999Z"), &[]),
        case(
            "a leap second elsewhere in the world",
            at(10, "2017-01-01T08:59:60.5+09:00"),
            Fate::Taken("2016-12-31T23:59:59.999999Z"),
            &[],
        ),
        case(
            "a sixtieth second at noon",
            at(11, "2016-12-31T12:00:60Z"),
            Fate::Whole("decode"),
            &["`at`", "2016-12-31T12:00:60Z", "23:59:60 UTC"],
        ),
        case("before 1970", at(12, "1969-07-20T20:17:40Z"), Fate::Taken("1969-07-20T20:17:40Z"), &[]),
        case("half a second before 1970", at(13, "1969-12-31T23:59:59.5Z"), Fate::Taken("1969-12-31T23:59:59.5Z"), &[]),
        case("the first second of all", at(14, "0001-01-01T00:00:00Z"), Fate::Taken("0001-01-01T00:00:00Z"), &[]),
        case(
            "the year 0",
            at(15, "0000-12-31T23:59:59Z"),
            Fate::Whole("decode"),
            &["`at`", "0000-12-31T23:59:59Z", "0001"],
        ),
        case(
            "a millisecond before 1970 in a column",
            with(16, "\"millis\":-1,\"time\":\"1901-01-01T00:00:00Z\""),
            Fate::Taken(ten),
            &[],
        ),
    ]
}

/// Times as texts of one form, whatever digits of a second they show.
fn same_time(one: &str, other: &str) -> bool {
    let plain = |text: &str| match text.trim_end_matches('Z').split_once('.') {
        Some((seconds, part)) => (seconds.to_owned(), part.trim_end_matches('0').to_owned()),
        None => (text.trim_end_matches('Z').to_owned(), String::new()),
    };
    plain(one) == plain(other)
}

fn push(server: &Server, events: &[&[u8]]) -> Value {
    let path = format!("{PROJECT}/sources/events/events?wait=served");
    let told = server.send("POST", &path, super::NDJSON, &events.join(&b'\n'));
    assert_eq!(told.status, 202, "{}", told.body);
    told.body
}

#[test]
fn large_deep_garbled_and_ancient_events_cost_only_themselves() {
    let mut wrong = Wrong::default();
    let server = server(super::DEFINITIONS);
    let cases = cases();
    for (number, Case { name, event, fate, said }) in cases.iter().enumerate() {
        // A good event of another entity comes in the same push.
        let good = format!("{HEAD},\"key\":\"good{number}\",\"text\":\"t\"}}");
        let told = push(&server, &[event, good.as_bytes()]);
        let message = told["errors"][0]["reason"].as_str().unwrap_or_default().to_owned();
        shown("push", name, format!("202 line {}:", told["errors"][0]["line"]), &message);
        let whole = u64::from(matches!(fate, Fate::Whole(_)));
        let counted = (told["accepted"].as_u64(), told["dead_lettered"].as_u64());
        wrong.unless(counted == (Some(2 - whole), Some(whole)), format!("{name}: {counted:?}"));
        wrong.unless_says(name, &message, said);
        wrong.unless(said.is_empty() == message.is_empty(), format!("{name}: `{message}`"));
        wrong.unless(message.len() < 500, format!("{name}: the message repeats the event"));
        wrong
            .unless(values(&server, "things", &format!("good{number}"))["rows"]["value"] == 1, format!("{name}: good"));
        let found = server.get(&format!("{PROJECT}/feature-views/things/values?key=e{number}")).body;
        let value = |feature: &str| found["features"][feature]["value"].clone();
        match fate {
            Fate::Taken(at) => {
                let is_then = found["event_timestamp"].as_str().is_some_and(|told| same_time(told, at));
                wrong.unless(value("rows") == 1 && is_then, format!("{name}: {at}, but {found}"));
            }
            Fate::Column(column) => {
                wrong.unless(value("rows") == 1 && value(column) == 0, format!("{name}: {found}"));
            }
            Fate::Key | Fate::Whole(_) => wrong.unless(value("rows").is_null(), format!("{name}: {found}")),
        }
    }
    let refused = cases.iter().filter(|case| !matches!(case.fate, Fate::Taken(_))).count();
    let letters = letters(&server, refused);
    for Case { name, fate, said, .. } in &cases {
        let (feature, reason) = match fate {
            Fate::Taken(_) => continue,
            Fate::Column(column) => (json!(format!("things.{column}")), "decode"),
            Fate::Key => (Value::Null, "decode"),
            Fate::Whole(reason) => (Value::Null, *reason),
        };
        let is_it = |letter: &&Value| {
            let message = letter["message"].as_str().unwrap_or_default();
            // The letter's feature says which column it is.
            let says = |part: &&str| part.starts_with('`') || message.contains(*part);
            letter["feature"] == feature && letter["reason"] == reason && said.iter().all(says)
        };
        wrong.unless(letters.iter().any(|letter| is_it(&letter)), format!("{name}: no letter says so"));
    }
}
