//! From rows to the place that owns their entity.

mod key;

pub use key::{GROUPS, KeyError, Keys, decode, group_of, hash};
