//! From rows to the place that owns their entity.

mod groups;
mod key;

pub use groups::Groups;
pub use key::{KeyError, Keys, decode, from_ordered_bytes, hash, ordered_bytes};
