//! Shard groups: the pieces that a project's state is cut into, each of which can move between processes as one.

use serde::{Deserialize, Serialize};
use std::ops::Range;

/// How many groups a project's state is cut into. Part of the state's layout: it stands in every manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Groups(u32);

impl Groups {
    /// A checkpoint writes a manifest a group, so more would cost more than they could ever spread.
    pub const MOST: u32 = 256;

    pub const ONE: Groups = Groups(1);

    /// From 1 to `MOST` groups.
    pub fn new(count: u32) -> Option<Groups> {
        (1..=Groups::MOST).contains(&count).then_some(Groups(count))
    }

    pub fn count(self) -> usize {
        self.0 as usize
    }

    pub fn all(self) -> Range<u32> {
        0..self.0
    }

    /// The group of an entity: the upper half of its key's hash, scaled.
    #[inline]
    pub fn of(self, hash: u64) -> u32 {
        (((hash >> 32) * u64::from(self.0)) >> 32) as u32
    }
}

impl Default for Groups {
    fn default() -> Groups {
        Groups(16)
    }
}
