//! Rows from a seed, made of the values that break things: nulls, NaN, the zeros, infinities, limits, ties, tile edges.

use super::value::{Row, Value};
use onefold_fold::Kind;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use std::collections::BTreeMap;

/// The columns of every random source beside its event time `at`, one of each kind.
pub const COLUMNS: [(&str, Kind); 12] = [
    ("key", Kind::Utf8),
    ("number", Kind::Int64),
    ("flag", Kind::Boolean),
    ("whole", Kind::Int64),
    ("real", Kind::Float64),
    ("instant", Kind::Timestamp),
    ("words", Kind::Utf8),
    ("octets", Kind::Binary),
    ("wholes", Kind::Int64List),
    ("reals", Kind::Float64List),
    ("singles", Kind::Float32List),
    ("phrases", Kind::Utf8List),
];

/// 2026-01-02T00:00:00Z: where the random rows begin.
pub const BEGIN_US: i64 = 1_767_312_000_000_000;
const MINUTE_US: i64 = 60_000_000;
/// How far the rows reach: about 60 of them in ten hours, so that windows of an hour hold some and lose some.
pub const SPAN_US: i64 = 10 * 60 * MINUTE_US;

/// Chance with a seed: the same everywhere, and the same tomorrow.
pub struct Chance(ChaCha8Rng);

impl Chance {
    pub fn new(seed: u64) -> Chance {
        Chance(ChaCha8Rng::seed_from_u64(seed))
    }

    pub fn below(&mut self, limit: usize) -> usize {
        (self.0.next_u64() % limit as u64) as usize
    }

    /// True once in `times`.
    pub fn one_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }

    pub fn shuffle<T>(&mut self, list: &mut [T]) {
        for index in (1..list.len()).rev() {
            let other = self.below(index + 1);
            list.swap(index, other);
        }
    }

    fn bits(&mut self) -> u64 {
        self.0.next_u64()
    }
}

/// `count` rows in arrival order: mostly in the order of time, some late, some twice.
pub fn random_rows(chance: &mut Chance, count: usize) -> Vec<Row> {
    let mut rows: Vec<Row> = Vec::new();
    for _ in 0..count {
        let earlier = (!rows.is_empty()).then(|| chance.pick(&rows).clone());
        let row = match earlier {
            Some(copy) if chance.one_in(15) => copy,
            Some(tied) if chance.one_in(6) => random_row(chance, tied.event_time_us, Some(&tied)),
            _ => {
                let time_us = random_time_us(chance);
                random_row(chance, time_us, None)
            }
        };
        rows.push(row);
    }
    rows.sort_by_key(|row| row.event_time_us);
    for _ in 0..count / 5 {
        let (from, to) = (chance.below(count), chance.below(count));
        let moved = rows.remove(from);
        rows.insert(to, moved);
    }
    rows
}

/// `count` rows of about `keys` entities, three of which have more rows than the others, in arrival order: mostly in the
/// order of time, some a little late, a few much.
pub fn many_random_rows(chance: &mut Chance, count: usize, keys: usize) -> Vec<Row> {
    let mut rows: Vec<Row> = Vec::with_capacity(count);
    for number in 0..count {
        let again = (number > 0 && chance.one_in(5)).then(|| chance.below(number));
        let row = match again {
            Some(earlier) if chance.one_in(3) => rows[earlier].clone(),
            Some(earlier) => random_row(chance, rows[earlier].event_time_us, Some(&rows[earlier])),
            None => {
                let time_us = random_time_us(chance);
                let mut row = random_row(chance, time_us, None);
                if !chance.one_in(40) {
                    row.values.insert("key".to_owned(), Value::Utf8(format!("k{}", chance.below(keys))));
                }
                row
            }
        };
        rows.push(row);
    }
    rows.sort_by_key(|row| row.event_time_us);
    for _ in 0..count / 5 {
        let from = chance.below(count);
        let far = if chance.one_in(200) { count } else { 300 };
        let to = (from + chance.below(far)).min(count - 1);
        rows.swap(from, to);
    }
    rows
}

fn random_row(chance: &mut Chance, event_time_us: i64, same_entity_as: Option<&Row>) -> Row {
    let mut values: BTreeMap<String, Value> =
        COLUMNS.iter().map(|(name, kind)| ((*name).to_owned(), hard_value(chance, *kind))).collect();
    values.insert("at".to_owned(), Value::Timestamp(event_time_us));
    let key = if chance.one_in(20) { Value::Null } else { Value::Utf8((*chance.pick(&["a", "b", ""])).to_owned()) };
    let number = if chance.one_in(20) { Value::Null } else { Value::Int64(*chance.pick(&[0, -1, i64::MAX])) };
    values.insert("key".to_owned(), same_entity_as.map_or(key, |row| row.value("key")));
    values.insert("number".to_owned(), same_entity_as.map_or(number, |row| row.value("number")));
    Row { event_time_us, values }
}

/// A time on the edge of some tile, a microsecond beside it, or anywhere.
fn random_time_us(chance: &mut Chance) -> i64 {
    if chance.one_in(4) {
        return BEGIN_US + chance.below(SPAN_US as usize) as i64;
    }
    let grid_us = chance.pick(&[5, 10, 30, 60, 120]) * MINUTE_US;
    let shift_us = chance.pick(&[0, 0, 7]) * MINUTE_US;
    let edge_us = BEGIN_US + chance.below((SPAN_US / grid_us) as usize) as i64 * grid_us + shift_us;
    edge_us + chance.pick(&[0, -1, 1])
}

/// A value of a kind, null once in seven.
pub fn hard_value(chance: &mut Chance, kind: Kind) -> Value {
    if chance.one_in(7) { Value::Null } else { hard_constant(chance, kind) }
}

/// A value of a kind that is not null; few enough of them that equal ones meet.
pub fn hard_constant(chance: &mut Chance, kind: Kind) -> Value {
    let short = chance.below(4);
    match kind {
        Kind::Boolean => Value::Boolean(chance.one_in(2)),
        Kind::Int64 => Value::Int64(integer(chance)),
        Kind::Float64 => Value::Float64(float(chance)),
        Kind::Timestamp => Value::Timestamp(BEGIN_US + chance.pick(&[0, -1, 1, MINUTE_US, -BEGIN_US, -BEGIN_US - 1])),
        Kind::Utf8 => Value::Utf8(words(chance)),
        Kind::Binary => Value::Binary(chance.pick(&[&b""[..], b"\0", b"\0\xff", b"\xff", b"a"]).to_vec()),
        Kind::Int64List => Value::Int64List((0..short).map(|_| integer(chance)).collect()),
        Kind::Float64List => Value::Float64List((0..short).map(|_| float(chance)).collect()),
        Kind::Float32List => {
            let singles = [0.0, -0.0, 1.5, f32::MAX, f32::MIN_POSITIVE, f32::NAN, f32::INFINITY, 0.1];
            Value::Float32List((0..short).map(|_| *chance.pick(&singles)).collect())
        }
        Kind::Utf8List => Value::Utf8List((0..short).map(|_| words(chance)).collect()),
    }
}

fn integer(chance: &mut Chance) -> i64 {
    match chance.below(8) {
        0 => *chance.pick(&[i64::MAX, i64::MIN, i64::MAX - 1, i64::MIN + 1]),
        1 => chance.bits() as i64,
        _ => *chance.pick(&[0, 1, -1, 2, 3, 10, 12, -7, 1 << 53]),
    }
}

fn float(chance: &mut Chance) -> f64 {
    match chance.below(10) {
        0 => f64::NAN,
        1 => *chance.pick(&[f64::INFINITY, f64::NEG_INFINITY, f64::MAX, f64::MIN, 1e308, -1e308]),
        2 => *chance.pick(&[5e-324, -5e-324, f64::MIN_POSITIVE, 2.225_073_858_507_201e-308]),
        3 => *chance.pick(&[1e16, -1e16, 1.0, 9_007_199_254_740_993.0]),
        4 => {
            let any = f64::from_bits(chance.bits());
            if any.is_nan() { f64::NAN } else { any }
        }
        _ => *chance.pick(&[0.0, -0.0, 0.1, 0.2, -0.3, 1.0, 2.5, 10.0, 12.0]),
    }
}

fn words(chance: &mut Chance) -> String {
    (*chance.pick(&["", "a", "b", "aa", "Z", "0", "12", "\u{e9}", "\u{10000}", "\u{ffff}", "\n\"'", "x y"])).to_owned()
}
