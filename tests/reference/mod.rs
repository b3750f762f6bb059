//! The brute force: what every value has to be, straight from the definitions, one row list at a time.
//!
//! It shares no code with the fold's windows and planner, nor with the SDK and the modules. It keeps no state, no tiles
//! and no tapes: for each question it walks all rows of the entity again, so that it is slow and plain, and a
//! mistake in the fast paths cannot hide in it. Of the project it uses only the plain data of a checked definition.

mod answer;
mod cases;
mod coverage;
mod exact;
mod filter;
mod large;
mod ordered;
mod random;
mod random_rows;
mod resolve;
mod transform;
mod udf;
mod value;
mod window;

#[allow(unused_imports, reason = "what the tests of all paths take from here, beside the tests in this folder")]
pub use {
    answer::{Answer, Ask, Cell, Known, answer, by_entity, online_instant_us, takes_part, transformed},
    cases::{Case, Lookup, Status, load_cases},
    coverage::{Coverage, Situation, WindowKind},
    filter::passes,
    large::{LARGE_PRICE, large_project},
    ordered::{OrderedProject, Settling, mark_late, ordered_project},
    random::{RandomProject, random_project},
    random_rows::Chance,
    resolve::documents,
    transform::price_ratio,
    udf::AGGREGATES,
    value::{Row, Value, format_time_us, parse_time_us},
    window::holds,
};
