//! From rows to the place that owns their entity.

mod key;

pub use key::{GROUPS, KeyError, Keys, decode, from_ordered_bytes, group_of, hash, ordered_bytes};
