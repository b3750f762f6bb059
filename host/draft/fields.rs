//! What stands where in rows of JSON: a tree of fields, each with the kinds of its values.

use crate::decode::parse_rfc3339;
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};

/// An object with more keys than this is no record but a map, whose keys are data.
const MOST_KEYS: usize = 100;
/// As deep as a source's paths go.
const DEEPEST: usize = 32;
/// Different values are counted over so many rows.
const COUNTED_ROWS: u64 = 10_000;
/// Longer text is no key, and is not kept to be counted.
const LONGEST_COUNTED: usize = 200;
/// Where no more than one value in so many is of another kind, it is a fault, and not what the field holds.
const ODD_IN: u64 = 100;
/// Characters of a value that are shown.
const SHOWN: usize = 40;

/// How JSON's text says numbers that JSON does not have.
const SPECIALS: [&str; 3] = ["NaN", "Infinity", "-Infinity"];

/// Rows that were looked at.
#[derive(Default)]
pub struct Fields {
    pub rows: u64,
    root: Node,
}

#[derive(Default)]
struct Node {
    /// In the order in which they were first met.
    order: Vec<String>,
    children: BTreeMap<String, Child>,
}

#[derive(Default)]
struct Child {
    seen: Seen,
    below: Node,
}

/// The values of one field, counted by what they are.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Not null.
    pub present: u64,
    pub booleans: u64,
    /// Within 64 bits.
    pub integers: u64,
    /// Whole numbers beyond 64 bits.
    pub wide: u64,
    pub fractions: u64,
    pub texts: u64,
    /// Texts that are RFC 3339 times with an offset.
    pub times: u64,
    /// Texts that stand for numbers JSON does not have.
    pub specials: u64,
    pub objects: u64,
    pub lists: u64,
    /// What the lists hold, as far as it can be one kind; nulls are of any.
    items: Items,
    /// Of numbers.
    pub least: Option<f64>,
    pub most: Option<f64>,
    /// Of texts, in bytes.
    pub longest: usize,
    /// Of texts that are times.
    pub newest_us: Option<i64>,
    /// A value, for people.
    pub example: Option<String>,
    /// The first value of each kind, for people.
    examples: BTreeMap<Sort, String>,
    distinct: BTreeSet<String>,
    /// Values that took part in counting different ones.
    pub counted: u64,
}

/// What values are told apart by, where a few are unlike the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Sort {
    Boolean,
    Integer,
    Number,
    Time,
    Special,
    Text,
    Whole,
}

/// Values of another kind than nearly all of their field.
pub struct Odd<'a> {
    /// The type of nearly all.
    pub type_name: &'static str,
    pub count: u64,
    /// One of them, as JSON writes it.
    pub example: &'a str,
}

#[derive(Clone, Debug, Default)]
struct Items {
    integers: u64,
    numbers: u64,
    texts: u64,
    others: u64,
}

/// A field that can be a column: where it stands, and what it holds.
pub struct Leaf<'a> {
    pub path: Vec<String>,
    pub seen: &'a Seen,
    /// An object that cannot be taken apart.
    pub is_whole_object: bool,
}

/// The type that values can be declared as, or why there is none.
pub type Declared = Result<&'static str, &'static str>;

impl Fields {
    pub fn add(&mut self, row: &Map<String, Value>) {
        let counts = self.rows < COUNTED_ROWS;
        self.rows += 1;
        self.root.add(row, 1, counts);
    }

    /// All leaves, in the order in which they were first met.
    pub fn leaves(&self) -> Vec<Leaf<'_>> {
        let mut leaves = Vec::new();
        self.root.walk(&mut Vec::new(), &mut leaves);
        leaves
    }
}

impl Node {
    fn add(&mut self, object: &Map<String, Value>, depth: usize, counts: bool) {
        for (key, value) in object {
            if !self.children.contains_key(key) {
                if depth > 1 && self.order.len() > MOST_KEYS {
                    continue;
                }
                self.order.push(key.clone());
            }
            let child = self.children.entry(key.clone()).or_default();
            child.seen.add(value, counts);
            if let Value::Object(members) = value
                && depth < DEEPEST
            {
                child.below.add(members, depth + 1, counts);
            }
        }
    }

    fn walk<'a>(&'a self, way: &mut Vec<String>, leaves: &mut Vec<Leaf<'a>>) {
        for key in &self.order {
            let Some(Child { seen, below }) = self.children.get(key) else { continue };
            way.push(key.clone());
            let is_object = seen.objects > 0 && seen.objects == seen.present;
            let can_be_taken_apart = !below.order.is_empty() && below.order.len() <= MOST_KEYS;
            match is_object && can_be_taken_apart {
                true => below.walk(way, leaves),
                false => leaves.push(Leaf { path: way.clone(), seen, is_whole_object: is_object }),
            }
            way.pop();
        }
    }
}

impl Seen {
    fn add(&mut self, value: &Value, counts: bool) {
        if value.is_null() {
            return;
        }
        self.present += 1;
        let sort = Sort::of(value);
        self.examples.entry(sort).or_insert_with(|| value.to_string().chars().take(SHOWN).collect());
        match value {
            Value::Null => {}
            Value::Bool(_) => self.booleans += 1,
            Value::Number(number) => {
                match (number.is_i64(), number.is_u64()) {
                    (true, _) => self.integers += 1,
                    (false, true) => self.wide += 1,
                    (false, false) => self.fractions += 1,
                }
                if let Some(number) = number.as_f64() {
                    self.least = Some(self.least.map_or(number, |least| least.min(number)));
                    self.most = Some(self.most.map_or(number, |most| most.max(number)));
                }
            }
            Value::String(text) => {
                self.texts += 1;
                self.longest = self.longest.max(text.len());
                if let Ok(time_us) = parse_rfc3339(text.as_bytes()) {
                    self.times += 1;
                    self.newest_us = self.newest_us.max(Some(time_us));
                }
                self.specials += u64::from(SPECIALS.contains(&text.as_str()));
            }
            Value::Object(_) => self.objects += 1,
            Value::Array(items) => {
                self.lists += 1;
                items.iter().for_each(|item| self.items.add(item));
            }
        }
        if self.example.is_none() && !value.is_object() && !value.is_array() {
            self.example = Some(value.as_str().map_or_else(|| value.to_string(), str::to_owned));
        }
        if counts && (value.is_string() || value.is_i64()) {
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            self.counted += 1;
            if text.len() <= LONGEST_COUNTED {
                self.distinct.insert(text);
            }
        }
    }

    /// Different values among those counted.
    pub fn distinct(&self) -> u64 {
        self.distinct.len() as u64
    }

    /// Every value is a number.
    pub fn is_number(&self) -> bool {
        self.present > 0 && self.integers + self.wide + self.fractions == self.present
    }

    pub fn declared(&self) -> Declared {
        let numbers = self.integers + self.wide + self.fractions;
        let all = |count: u64| count == self.present;
        match self.present {
            0 => Err("always null, so that nobody can tell its type"),
            _ if all(self.booleans) => Ok("boolean"),
            _ if all(self.integers) => Ok("int64"),
            _ if numbers > 0 && all(numbers + self.specials) => Ok("float64"),
            _ if all(self.times) => Ok("timestamp"),
            _ => match self.odd() {
                Some(odd) => Ok(odd.type_name),
                None if all(self.texts) => Ok("utf8"),
                None if all(self.lists) => self.items.declared(),
                None => Ok("json"),
            },
        }
    }

    /// The values that are faults, where nearly all are of one kind.
    pub fn odd(&self) -> Option<Odd<'_>> {
        let numbers = self.integers + self.wide + self.fractions;
        if numbers > 0 && numbers + self.specials == self.present {
            return None;
        }
        let whole = if numbers == self.integers { self.integers } else { 0 };
        let kinds: [(&'static str, u64, &[Sort]); 5] = [
            ("boolean", self.booleans, &[Sort::Boolean]),
            ("int64", whole, &[Sort::Integer]),
            ("float64", numbers + self.specials, &[Sort::Integer, Sort::Number, Sort::Special]),
            ("timestamp", self.times, &[Sort::Time]),
            ("utf8", self.texts, &[Sort::Time, Sort::Special, Sort::Text]),
        ];
        let is_nearly_all = |count: u64| count < self.present && self.present - count <= self.present / ODD_IN;
        let (type_name, count, usual) = kinds.into_iter().find(|(_, count, _)| is_nearly_all(*count))?;
        let example = self.examples.iter().find(|(sort, _)| !usual.contains(sort))?.1;
        Some(Odd { type_name, count: self.present - count, example })
    }

    /// The unit in which the numbers are times of this century, since 1970.
    pub fn epoch(&self) -> Option<&'static str> {
        const FROM_SECONDS: f64 = 946_684_800.0;
        const TO_SECONDS: f64 = 4_102_444_800.0;
        let (least, most) = (self.least?, self.most?);
        let units = [("timestamp_s", 1.0), ("timestamp_ms", 1e3), ("timestamp_us", 1e6)];
        let is_unit = |(_, factor): &(&str, f64)| FROM_SECONDS * factor <= least && most < TO_SECONDS * factor;
        let is_nearly_number = || self.odd().is_some_and(|odd| matches!(odd.type_name, "int64" | "float64"));
        units.into_iter().find(is_unit).filter(|_| self.is_number() || is_nearly_number()).map(|(name, _)| name)
    }
}

impl Sort {
    fn of(value: &Value) -> Sort {
        match value {
            Value::Bool(_) => Sort::Boolean,
            Value::Number(number) if number.is_i64() => Sort::Integer,
            Value::Number(_) => Sort::Number,
            Value::String(text) if parse_rfc3339(text.as_bytes()).is_ok() => Sort::Time,
            Value::String(text) if SPECIALS.contains(&text.as_str()) => Sort::Special,
            Value::String(_) => Sort::Text,
            Value::Null | Value::Array(_) | Value::Object(_) => Sort::Whole,
        }
    }
}

impl Items {
    fn add(&mut self, item: &Value) {
        match item {
            Value::Null => {}
            Value::Number(number) if number.is_i64() => self.integers += 1,
            Value::Number(_) => self.numbers += 1,
            Value::String(_) => self.texts += 1,
            Value::Bool(_) | Value::Array(_) | Value::Object(_) => self.others += 1,
        }
    }

    fn declared(&self) -> Declared {
        match (self.integers, self.numbers, self.texts, self.others) {
            (0, 0, 0, 0) => Err("always an empty list, so that nobody can tell its type"),
            (_, 0, 0, 0) => Ok("list<int64>"),
            (_, _, 0, 0) => Ok("list<float64>"),
            (0, 0, _, 0) => Ok("list<utf8>"),
            _ => Ok("json"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn types(rows: &[&str]) -> Vec<(String, Declared)> {
        let mut fields = Fields::default();
        for row in rows {
            fields.add(serde_json::from_str::<Value>(row).unwrap().as_object().unwrap());
        }
        let told = fields.leaves().into_iter();
        told.map(|leaf| (leaf.path.join("."), leaf.seen.declared())).collect()
    }

    #[test]
    fn kinds_widen_and_what_is_mixed_is_json() {
        let rows = [
            r#"{"a":1,"b":1,"c":"2026-01-01T00:00:00Z","d":{"e":{"f":true}},"g":1,"h":[1,2],"i":null,"j":[],"k":"x"}"#,
            r#"{"a":2,"b":2.5,"c":"2026-01-01T00:00:00+01:00","d":null,"g":"x","h":[1.5,null],"k":"2026-01-01T00:00:00Z"}"#,
            r#"{"b":"NaN","l":18446744073709551615,"m":{"n":1}}"#,
            r#"{"m":7}"#,
        ];
        let expected: [(&str, Declared); 11] = [
            ("a", Ok("int64")),
            ("b", Ok("float64")),
            ("c", Ok("timestamp")),
            ("d.e.f", Ok("boolean")),
            ("g", Ok("json")),
            ("h", Ok("list<float64>")),
            ("i", Err("always null, so that nobody can tell its type")),
            ("j", Err("always an empty list, so that nobody can tell its type")),
            ("k", Ok("utf8")),
            ("l", Ok("float64")),
            ("m", Ok("json")),
        ];
        assert_eq!(types(&rows), expected.map(|(name, declared)| (name.to_owned(), declared)));
    }

    #[test]
    fn an_object_whose_keys_are_data_stays_whole() {
        let members: Vec<String> = (0..=MOST_KEYS).map(|number| format!("\"k{number}\":1")).collect();
        let row = format!("{{\"by_id\":{{{}}}}}", members.join(","));
        assert_eq!(types(&[&row]), [("by_id".to_owned(), Ok("json"))]);
    }

    #[test]
    fn a_value_in_a_hundred_is_a_fault_and_more_are_data() {
        let declared = |good: &str, of_them: usize, bad: &[&str]| {
            let mut seen = Seen::default();
            let values = std::iter::repeat_n(good, of_them).chain(bad.iter().copied());
            values.for_each(|text| seen.add(&serde_json::from_str(text).unwrap(), true));
            let odd = seen.odd().map(|odd| (odd.count, odd.example.to_owned()));
            (seen.declared().unwrap(), odd)
        };
        assert_eq!(declared("1.5", 99, &["\"heavy\""]), ("float64", Some((1, "\"heavy\"".to_owned()))));
        assert_eq!(declared("1.5", 98, &["\"heavy\""]), ("json", None));
        assert_eq!(declared("1", 198, &["\"\"", "[1]"]), ("int64", Some((2, "\"\"".to_owned()))));
        assert_eq!(
            declared("\"2026-01-01T00:00:00Z\"", 199, &["\"never\""]),
            ("timestamp", Some((1, "\"never\"".to_owned())))
        );
        assert_eq!(declared("\"NaN\"", 99, &["1.5"]), ("float64", None), "they are numbers too");
        assert_eq!(declared("\"a\"", 99, &["\"2026-01-01T00:00:00Z\""]), ("utf8", None), "a time is a text too");
    }

    #[test]
    fn numbers_of_this_century_are_known_by_their_size() {
        let unit = |number: &str| {
            let mut seen = Seen::default();
            seen.add(&serde_json::from_str(number).unwrap(), true);
            seen.epoch()
        };
        assert_eq!(unit("1767225600"), Some("timestamp_s"));
        assert_eq!(unit("1767225600.25"), Some("timestamp_s"));
        assert_eq!(unit("1767225600000"), Some("timestamp_ms"));
        assert_eq!(unit("1767225600000000"), Some("timestamp_us"));
        assert_eq!(unit("1767225600000000000"), None, "nanoseconds are no unit of a source");
        assert_eq!(unit("12"), None);
    }
}
