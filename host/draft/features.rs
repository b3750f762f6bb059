//! A few features to begin with, from columns of any data.

use super::Column;
use super::guess::{Guess, is_id_name};

/// One feature of the draft's view.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Feature {
    pub name: String,
    pub udf: &'static str,
    /// Number of its column.
    pub input: Option<usize>,
    pub windowed: bool,
}

/// The window of those that have one.
pub const WINDOW: &str = "7d";
/// So long after its newest row nothing of an entity is in the window any more, whatever its hop.
pub const FORGOTTEN_US: i64 = 10 * 86_400_000_000;

/// Longer text is to be read, and no value of a feature.
const LONGEST_TEXT: usize = 100;
/// Columns of each sort that get features.
const EACH: usize = 2;

/// How many rows, all told and lately; the last of two columns; sum and mean of two numbers.
pub fn propose(columns: &[Column], time: &Guess, key: &Guess) -> Vec<Feature> {
    let is_told = |number: &usize| time.columns.contains(number) || key.columns.contains(number);
    let others: Vec<usize> = (0..columns.len()).filter(|number| !is_told(number)).collect();
    let is_number = |number: &usize| matches!(columns[*number].type_name, "int64" | "float64");
    let is_plain = |number: &usize| {
        let Column { type_name, seen, .. } = &columns[*number];
        is_number(number) || *type_name == "boolean" || *type_name == "utf8" && seen.longest <= LONGEST_TEXT
    };
    let is_id = |number: &usize| is_id_name(&columns[*number].name);
    let feature = |name: String, udf, input, windowed| Feature { name, udf, input, windowed };
    let mut features = vec![
        feature("events".to_owned(), "std.count", None, false),
        feature(format!("events_{WINDOW}"), "std.count", None, true),
    ];
    for number in others.iter().filter(|number| is_plain(number) && !is_id(number)).take(EACH) {
        features.push(feature(format!("last_{}", columns[*number].name), "std.last", Some(*number), false));
    }
    for number in others.iter().filter(|number| is_number(number) && !is_id(number)).take(EACH) {
        for (short, udf) in [("sum", "std.sum"), ("mean", "std.mean")] {
            features.push(feature(format!("{}_{short}_{WINDOW}", columns[*number].name), udf, Some(*number), true));
        }
    }
    let mut names = std::collections::BTreeSet::new();
    features.retain(|feature| names.insert(feature.name.clone()));
    features
}
