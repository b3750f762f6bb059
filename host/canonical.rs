//! The canonical e-commerce rows: one workload for the example, the tests and the benchmarks.
//!
//! Every row is made from the seed and its number alone, so any part of the rows can be made anywhere, and the same seed
//! gives the same bytes.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use std::io::Write as _;

/// What the rows look like. Two equal ones give equal rows.
#[derive(Clone, Debug, PartialEq)]
pub struct Canonical {
    pub seed: u64,
    pub rows: u64,
    pub customers: u64,
    pub products: u64,
    pub categories: u64,
    /// Of the power law that customers and products are drawn by.
    pub exponent: f64,
    /// Event times advance evenly from `end_us - span_us` to just before `end_us`.
    pub end_us: i64,
    pub span_us: i64,
    /// Share of the rows whose time lies up to ten minutes before their place.
    pub late_share: f64,
    /// Share of the rows without a rating.
    pub unrated_share: f64,
    /// Share of the lines that are no event: cut, no JSON, or with a value of a wrong type.
    pub broken_share: f64,
}

/// 2026-03-02T00:00:00Z: sixty days after New Year.
pub const DEFAULT_END_US: i64 = 1_772_409_600_000_000;

const LATE_US: u64 = 600_000_000;

impl Canonical {
    /// The canonical workload of `rows` rows.
    pub fn new(seed: u64, rows: u64) -> Canonical {
        Canonical {
            seed,
            rows,
            customers: 1_000_000,
            products: 100_000,
            categories: 50,
            exponent: 1.05,
            end_us: DEFAULT_END_US,
            span_us: 60 * 86_400_000_000,
            late_share: 0.01,
            unrated_share: 0.7,
            broken_share: 0.0,
        }
    }

    /// The rows in the order in which they arrive.
    pub fn rows(&self) -> Rows {
        Rows {
            random: ChaCha8Rng::seed_from_u64(self.seed),
            customers: PowerLaw::new(self.customers, self.exponent),
            products: PowerLaw::new(self.products, self.exponent),
            next: 0,
            shape: self.clone(),
        }
    }

    /// All rows as JSON, one a line, and where each line ends (its line feed not counted): for tests and benchmarks.
    pub fn lines(&self) -> (Vec<u8>, Vec<usize>) {
        let mut bytes = Vec::new();
        let mut ends = Vec::new();
        for row in self.rows() {
            row.write_json(&mut bytes);
            ends.push(bytes.len());
            bytes.push(b'\n');
        }
        (bytes, ends)
    }
}

/// One purchase.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// The place among all rows; `transaction_id` is made of it.
    pub number: u64,
    pub transaction_date_us: i64,
    /// How far that is before the row's place: 0 for most.
    pub late_us: i64,
    pub customer: u64,
    pub product: u64,
    pub category: u64,
    pub quantity: i64,
    /// In hundredths.
    pub unit_price_cents: u64,
    pub review_rating: Option<i64>,
    /// Set when the line of this row is to be no event: which way it is broken.
    pub broken: Option<Breakage>,
    tag: u64,
}

/// The ways in which a line is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Breakage {
    /// The line ends in the middle.
    Cut,
    /// No JSON at all.
    NoJson,
    /// `quantity` is text: the row is fine but for what uses that column.
    WrongType,
    /// The event time says no time.
    NoTime,
}

impl Row {
    pub fn transaction_id(&self) -> String {
        // Looks like other systems' ids, and is unique by the number in it.
        format!("{:08x}{:08x}", self.tag >> 32, self.number)
    }

    pub fn customer_id(&self) -> String {
        format!("c-{:07}", self.customer)
    }

    pub fn product_id(&self) -> String {
        format!("p-{:06}", self.product)
    }

    pub fn category_name(&self) -> String {
        format!("category-{:02}", self.category)
    }

    pub fn unit_price(&self) -> f64 {
        self.unit_price_cents as f64 / 100.0
    }

    /// Appends the row as a JSON object on one line, without the line feed.
    pub fn write_json(&self, out: &mut Vec<u8>) {
        let start = out.len();
        let date = time_text(match self.broken {
            Some(Breakage::NoTime) => None,
            _ => Some(self.transaction_date_us),
        });
        let quote = if self.broken == Some(Breakage::WrongType) { "\"" } else { "" };
        let rating = Rating(self.review_rating);
        // A vector takes any number of bytes.
        let _ = write!(
            out,
            r#"{{"transaction_id":"{:08x}{:08x}","transaction_date":"{date}","customer_id":"c-{:07}","product_id":"p-{:06}","category":"category-{:02}","quantity":{quote}{}{quote},"unit_price":{}.{:02},"review_rating":{rating}}}"#,
            self.tag >> 32,
            self.number,
            self.customer,
            self.product,
            self.category,
            self.quantity,
            self.unit_price_cents / 100,
            self.unit_price_cents % 100,
        );
        match self.broken {
            Some(Breakage::Cut) => out.truncate(start + (out.len() - start) / 2),
            Some(Breakage::NoJson) => {
                out.truncate(start);
                let _ = write!(out, "ERROR {:012x}: connection reset by peer", self.number);
            }
            _ => {}
        }
    }
}

struct Rating(Option<i64>);

impl std::fmt::Display for Rating {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Some(rating) => write!(formatter, "{rating}"),
            None => formatter.write_str("null"),
        }
    }
}

fn time_text(us: Option<i64>) -> String {
    let time = us.and_then(|us| jiff::Timestamp::from_microsecond(us).ok());
    time.map_or_else(|| "yesterday".to_owned(), |time| format!("{time:.6}"))
}

/// The rows one after another.
pub struct Rows {
    shape: Canonical,
    random: ChaCha8Rng,
    customers: PowerLaw,
    products: PowerLaw,
    next: u64,
}

impl Rows {
    fn share(&mut self) -> f64 {
        unit(self.random.next_u64())
    }
}

impl Iterator for Rows {
    type Item = Row;

    fn next(&mut self) -> Option<Row> {
        if self.next >= self.shape.rows {
            return None;
        }
        let number = self.next;
        self.next += 1;
        // Every row draws the same number of times, so that a share changes no other value.
        let (tag, customer, product) = (self.random.next_u64(), self.share(), self.share());
        let (quantity, price, rating) = (self.random.next_u64(), self.share(), self.random.next_u64());
        let (late, late_by, unrated) = (self.share(), self.random.next_u64(), self.share());
        let (broken, how) = (self.share(), self.random.next_u64());
        let product = self.products.draw(product);
        let advanced = i128::from(self.shape.span_us) * i128::from(number) / i128::from(self.shape.rows.max(1));
        let place = self.shape.end_us - self.shape.span_us + i64::try_from(advanced).unwrap_or(0);
        let late_us = if late < self.shape.late_share { (late_by % LATE_US) as i64 } else { 0 };
        Some(Row {
            number,
            tag,
            transaction_date_us: place - late_us,
            late_us,
            customer: self.customers.draw(customer),
            product,
            category: mix(product) % self.shape.categories.max(1),
            quantity: if quantity.is_multiple_of(20) {
                10 + (quantity >> 8) as i64 % 40
            } else {
                1 + (quantity >> 8) as i64 % 5
            },
            // Few are dear: a square bends the even draw towards the cheap end.
            unit_price_cents: 100 + (price * price * 49_900.0) as u64,
            review_rating: (unrated >= self.shape.unrated_share).then(|| 1 + (rating % 5) as i64),
            broken: (broken < self.shape.broken_share).then_some(match how % 4 {
                0 => Breakage::Cut,
                1 => Breakage::NoJson,
                2 => Breakage::WrongType,
                _ => Breakage::NoTime,
            }),
        })
    }
}

/// Ranks from 0 to below `count`, rank r about as often as (r + 1)^-exponent: the inverse of the continuous law.
struct PowerLaw {
    count: u64,
    /// 1 - exponent.
    power: f64,
    /// (count + 1)^power - 1.
    range: f64,
}

impl PowerLaw {
    fn new(count: u64, exponent: f64) -> PowerLaw {
        // At exactly 1 the law is a logarithm; a hair beside it is the same to the eye and needs no second formula.
        let power = if (1.0 - exponent).abs() < 1e-9 { 1e-9 } else { 1.0 - exponent };
        PowerLaw { count: count.max(1), power, range: power_of(count.max(1) as f64 + 1.0, power) - 1.0 }
    }

    fn draw(&self, unit: f64) -> u64 {
        let rank = power_of(1.0 + unit * self.range, 1.0 / self.power) - 1.0;
        (rank as u64).min(self.count - 1)
    }
}

/// base^power from exact operations only: the standard library's `powf` may differ between platforms, and with it the
/// rows of a seed.
fn power_of(base: f64, power: f64) -> f64 {
    exponential(logarithm(base) * power)
}

fn logarithm(value: f64) -> f64 {
    const LN_2: f64 = std::f64::consts::LN_2;
    let exponent = ((value.to_bits() >> 52) & 0x7ff) as i64 - 1023;
    let mantissa = f64::from_bits(value.to_bits() & 0x000f_ffff_ffff_ffff | 1023 << 52);
    let ratio = (mantissa - 1.0) / (mantissa + 1.0);
    let square = ratio * ratio;
    // 2 (r + r^3/3 + r^5/5 + ...): r is at most 1/3, so 20 terms are beyond double precision.
    let series = (0..20).rev().fold(0.0, |sum, term| sum * square + 1.0 / f64::from(2 * term + 1));
    exponent as f64 * LN_2 + 2.0 * ratio * series
}

fn exponential(value: f64) -> f64 {
    const LN_2: f64 = std::f64::consts::LN_2;
    let halvings = (value / LN_2).floor().clamp(-1000.0, 1000.0);
    let rest = value - halvings * LN_2;
    let series = (1..=22).rev().fold(1.0, |sum, term| 1.0 + sum * rest / f64::from(term));
    series * f64::from_bits(((halvings as i64 + 1023) as u64) << 52)
}

fn unit(bits: u64) -> f64 {
    (bits >> 11) as f64 / (1u64 << 53) as f64
}

/// Spreads numbers, so that neighbours in rank do not share a category.
fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn the_same_seed_gives_the_same_bytes_for_ever() {
        let digest = |seed| crate::define::Digest::of(&Canonical::new(seed, 1000).lines().0).to_string();
        assert_eq!(digest(1), "sha256:5893221ab3f8fcb6e705779a1e2f6651f9f98b3f64afad04f376f61e73dcf920");
        assert_ne!(digest(1), digest(2));
    }

    #[test]
    fn rows_are_as_described() {
        let shape = Canonical { broken_share: 0.01, ..Canonical::new(7, 100_000) };
        let rows: Vec<Row> = shape.rows().collect();
        let share =
            |test: &dyn Fn(&Row) -> bool| rows.iter().filter(|row| test(row)).count() as f64 / rows.len() as f64;
        assert!((share(&|row| row.review_rating.is_none()) - 0.7).abs() < 0.01);
        assert!((share(&|row| row.broken.is_some()) - 0.01).abs() < 0.002);
        let late = rows.windows(2).filter(|pair| pair[1].transaction_date_us < pair[0].transaction_date_us).count();
        assert!((800..1200).contains(&late), "{late}");
        let mut categories = BTreeMap::new();
        let mut customers = BTreeMap::<u64, u32>::new();
        for row in &rows {
            assert_eq!(*categories.entry(row.product).or_insert(row.category), row.category);
            *customers.entry(row.customer).or_default() += 1;
        }
        // Of ln(10^6) = 14 equal shares by rank's logarithm, rank 0 has a little more than 1 (bounded power law).
        let top = f64::from(customers[&0]) / rows.len() as f64;
        assert!((0.04..0.12).contains(&top), "{top}");
        assert!(customers.len() > 20_000 && customers.keys().max() > Some(&900_000), "{}", customers.len());
        let (bytes, ends) = Canonical::new(7, 1000).lines();
        assert_eq!(ends.len(), 1000);
        let mean = bytes.len() / 1000;
        assert!((180..260).contains(&mean), "{mean} bytes a row");
    }

    #[test]
    fn powers_are_right_without_the_machine() {
        for (base, power) in [(2.0, 0.5), (1e6, -0.05), (1.0, 3.0), (123.456, -2.5), (0.5, -20.0)] {
            let (ours, theirs) = (power_of(base, power), f64::powf(base, power));
            assert!((ours / theirs - 1.0).abs() < 1e-13, "{base}^{power}: {ours} {theirs}");
        }
    }
}
