//! Which column says when, and which say whom: guessed where one stands out, asked for where none does.

use super::{Column, DraftError, counted};

/// A choice and its reason, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Guess {
    /// Numbers of the columns.
    pub columns: Vec<usize>,
    pub why: String,
    /// Somebody said so: nothing was guessed.
    pub asked: bool,
}

/// What producers call the time of an event.
const TIME_NAMES: [&str; 12] = [
    "event_time",
    "event_timestamp",
    "event_ts",
    "event_date",
    "occurred_at",
    "happened_at",
    "timestamp",
    "ts",
    "time",
    "datetime",
    "at",
    "date",
];
const TIME_WORDS: [&str; 11] =
    ["time", "timestamp", "ts", "date", "datetime", "at", "when", "epoch", "created", "updated", "occurred"];
const KEY_WORDS: [&str; 26] = [
    "user", "customer", "account", "device", "product", "item", "sensor", "driver", "card", "merchant", "session",
    "email", "symbol", "station", "vehicle", "player", "patient", "store", "seller", "member", "machine", "host",
    "client", "shop", "city", "ip",
];
/// Candidates that a message lists.
const LISTED: usize = 8;

/// Whether a name speaks of time: numbers under it are taken for times.
pub fn is_time_name(name: &str) -> bool {
    name.split('_').any(|word| TIME_WORDS.contains(&word))
}

/// Whether a name is that of an identifier.
pub fn is_id_name(name: &str) -> bool {
    name.split('_').next_back().is_some_and(|word| ["id", "key", "uuid", "guid"].contains(&word))
}

fn guessed(column: usize, why: String) -> Guess {
    Guess { columns: vec![column], why, asked: false }
}

/// The column of the event time. `asked`: `--time`.
pub fn time(columns: &[Column], rows: u64, asked: Option<&str>) -> Result<Guess, DraftError> {
    if let Some(asked) = asked {
        let number = find(columns, asked, "--time")?;
        return match time_type(&columns[number]) {
            Some(_) => Ok(Guess { columns: vec![number], why: "as --time says".to_owned(), asked: true }),
            None => Err(DraftError::Ask(format!("--time {asked}: {}", not_a_time(&columns[number])))),
        };
    }
    let is_time = |column: &Column| column.type_name.starts_with("timestamp");
    let mut candidates: Vec<usize> = (0..columns.len()).filter(|number| is_time(&columns[*number])).collect();
    let declared = !candidates.is_empty();
    if !declared {
        candidates = (0..columns.len()).filter(|number| time_type(&columns[*number]).is_some()).collect();
    }
    let rank = |number: &usize| {
        let Column { name, seen, .. } = &columns[*number];
        (TIME_NAMES.contains(&name.as_str()), seen.present == rows)
    };
    let best = candidates.iter().map(rank).max();
    let finest: Vec<usize> = candidates.iter().copied().filter(|number| Some(rank(number)) == best).collect();
    match (finest.as_slice(), candidates.len()) {
        ([], _) => {
            let near = columns.iter().filter(|column| column.seen.texts > 0 || column.seen.is_number());
            let near = near.filter(|column| is_time_name(&column.name)).map(not_a_time).take(LISTED);
            let near = near.collect::<Vec<_>>().join("\n  ");
            let near = if near.is_empty() { near } else { format!("\n  {near}") };
            Err(DraftError::Ask(format!(
                "no column says when a row happened: that takes RFC 3339 text with an offset (2026-01-31T12:00:00Z), or \
                 seconds, milliseconds or microseconds since 1970; name the column with --time COL{near}"
            )))
        }
        ([one], 1) if declared => Ok(guessed(*one, "the only column that holds times".to_owned())),
        ([one], 1) => {
            let unit = time_type(&columns[*one]).unwrap_or_default();
            Ok(guessed(*one, format!("its numbers are times of this century as {unit}")))
        }
        ([one], _) => {
            let others = candidates.iter().filter(|other| *other != one).map(|other| columns[*other].name.as_str());
            let others = others.take(LISTED).collect::<Vec<_>>().join(", ");
            let why = match TIME_NAMES.contains(&columns[*one].name.as_str()) {
                true => format!("its name is that of an event's time; other times are {others}"),
                false => format!("every row has it, unlike {others}"),
            };
            Ok(guessed(*one, why))
        }
        (several, _) => Err(DraftError::Ask(format!(
            "several columns hold times, say which of them is an event's own with --time:{}",
            listed(columns, several)
        ))),
    }
}

/// The type under which a column is a time: its own, or the unit of its numbers.
pub fn time_type(column: &Column) -> Option<&'static str> {
    match column.type_name {
        "int64" => column.seen.epoch(),
        // Files hold times of fractions in types of their own.
        "float64" if column.batch.is_none() => column.seen.epoch(),
        name => Some(name).filter(|name| name.starts_with("timestamp")),
    }
}

fn not_a_time(column: &Column) -> String {
    let Column { name, seen, .. } = column;
    let example = seen.example.clone().unwrap_or_default();
    if seen.is_number() {
        let (least, most) = (seen.least.unwrap_or_default(), seen.most.unwrap_or_default());
        return format!(
            "`{name}` has numbers from {least} to {most}: no seconds, milliseconds or microseconds since 1970"
        );
    }
    match example.get(..10).is_some_and(|day| day.bytes().filter(u8::is_ascii_digit).count() == 8) {
        true => format!(
            "`{name}` has times without an offset or in another form (`{example}`): write them as {}",
            "2026-01-31T12:00:00Z"
        ),
        false => format!("`{name}` is {} (`{example}`), and no time", column.type_name),
    }
}

/// The columns of the key. `asked`: `--key`.
pub fn key(columns: &[Column], time: usize, asked: &[String]) -> Result<Guess, DraftError> {
    if !asked.is_empty() {
        let mut found = Vec::new();
        for name in asked {
            let number = find(columns, name, "--key")?;
            if key_type(columns[number].type_name).is_none() {
                return Err(DraftError::Ask(format!(
                    "--key {name}: it is {}, and keys are utf8, int64, boolean, binary or timestamp",
                    columns[number].type_name
                )));
            }
            if found.contains(&number) {
                return Err(DraftError::Ask(format!("--key {name}: it is named twice")));
            }
            found.push(number);
        }
        return Ok(Guess { columns: found, why: "as --key says".to_owned(), asked: true });
    }
    let possible = (0..columns.len()).filter(|number| {
        let Column { type_name, seen, .. } = &columns[*number];
        *number != time && matches!(*type_name, "utf8" | "int64") && seen.present > 0
    });
    let possible: Vec<usize> = possible.collect();
    let repeats = |number: &usize| columns[*number].seen.distinct() < columns[*number].seen.counted;
    let is_text = |number: &usize| columns[*number].type_name == "utf8";
    let of = |is_it: &dyn Fn(&str) -> bool| -> Vec<usize> {
        possible.iter().copied().filter(|number| is_it(&columns[*number].name)).collect()
    };
    let only_repeating = |numbers: Vec<usize>| -> Vec<usize> { numbers.into_iter().filter(repeats).collect() };
    let ids = of(&is_id_name);
    // The strongest sign first; a weaker one is looked at where no column shows a stronger.
    let signs = [
        (only_repeating(ids.clone()), "it is named as keys are, and its values repeat"),
        (only_repeating(of(&|name| KEY_WORDS.contains(&name))), "its name says whom, and its values repeat"),
        (only_repeating(possible.iter().copied().filter(is_text).collect()), "the only text that repeats"),
        (ids, "it is named as keys are; each row has another value, so a feature sees one row"),
        (possible.clone(), "the only column that can be a key"),
    ];
    match signs.into_iter().find(|(columns, _)| !columns.is_empty()) {
        None => Err(DraftError::Ask(
            "no column can be a key, which is text or whole numbers: add one that says whom a row is about, or name one of another type with --key".to_owned(),
        )),
        Some((found, why)) => match found.as_slice() {
            [one] => {
                let Column { seen, .. } = &columns[*one];
                Ok(guessed(*one, format!("{why}: {} in {}", counted(seen.distinct(), "different value"), counted(seen.counted, "row"))))
            }
            several => Err(DraftError::Ask(format!(
                "several columns could say whom a row is about, say which with --key:{}",
                listed(columns, several)
            ))),
        },
    }
}

/// The type of a join key whose column has this type.
pub fn key_type(type_name: &str) -> Option<&'static str> {
    match type_name {
        "utf8" => Some("utf8"),
        "int64" => Some("int64"),
        "boolean" => Some("boolean"),
        "binary" => Some("binary"),
        name if name.starts_with("timestamp") => Some("timestamp"),
        _ => None,
    }
}

/// A column by its name, or by its name in the data.
fn find(columns: &[Column], asked: &str, flag: &str) -> Result<usize, DraftError> {
    let is_it = |column: &Column| column.name == asked || column.path.join(".") == asked;
    columns.iter().position(is_it).ok_or_else(|| {
        let near = crate::define::hint(asked, columns.iter().map(|column| column.name.as_str()));
        DraftError::Ask(format!("{flag} {asked}: the data have no such column; {near}"))
    })
}

fn listed(columns: &[Column], candidates: &[usize]) -> String {
    let mut lines = String::new();
    for number in candidates.iter().take(LISTED) {
        let Column { name, type_name, seen, .. } = &columns[*number];
        let example = seen.example.clone().filter(|example| !example.is_empty()).unwrap_or_else(|| "\"\"".to_owned());
        let values = match seen.counted {
            0 => String::new(),
            rows => format!(", {} in {}", counted(seen.distinct(), "different value"), counted(rows, "row")),
        };
        lines.push_str(&format!("\n  {name}: {type_name}, as {example}{values}"));
    }
    if candidates.len() > LISTED {
        lines.push_str(&format!("\n  and {} more", candidates.len() - LISTED));
    }
    lines
}
