//! Which entities change by time alone, and when.
//!
//! Instants of windows lie on hops, but those at which an entity expires are as many as there are entities. So timers
//! far ahead lie in buckets of a good hour, in no order; a bucket is sorted when its time has come.

use super::table::EntityNumber;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

/// A bucket is two to the power of so many microseconds: 71 minutes.
const BUCKET_BITS: u32 = 32;

/// Timers of the entities of one table: (instant, entity).
#[derive(Default)]
pub(super) struct Timers {
    /// By bucket.
    far: BTreeMap<i64, Vec<(i64, EntityNumber)>>,
    /// Those of buckets that have begun.
    near: BinaryHeap<Reverse<(i64, EntityNumber)>>,
    /// The first bucket that has not.
    next_bucket: Option<i64>,
}

impl Timers {
    #[inline]
    pub fn set(&mut self, instant_us: i64, number: EntityNumber) {
        let bucket = instant_us >> BUCKET_BITS;
        if self.next_bucket.is_some_and(|next| bucket < next) {
            self.near.push(Reverse((instant_us, number)));
        } else {
            self.far.entry(bucket).or_default().push((instant_us, number));
        }
    }

    /// Takes the timer that rings first, if it does so at or before `now_us`. Of those of one instant the entity with
    /// the smallest number comes first.
    pub fn take(&mut self, now_us: i64) -> Option<(i64, EntityNumber)> {
        while let Some(bucket) = self.far.first_entry().filter(|bucket| *bucket.key() <= now_us >> BUCKET_BITS) {
            self.next_bucket = Some(bucket.key() + 1);
            self.near.extend(bucket.remove().into_iter().map(Reverse));
        }
        let first = self.near.peek_mut().filter(|first| first.0.0 <= now_us)?;
        Some(std::collections::binary_heap::PeekMut::pop(first).0)
    }

    /// Whether a timer stands at or before `now_us`, or may do so.
    pub fn rings(&self, now_us: i64) -> bool {
        self.near.peek().is_some_and(|first| first.0.0 <= now_us)
            || self.far.first_key_value().is_some_and(|(bucket, _)| *bucket <= now_us >> BUCKET_BITS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// A timer that is set into a bucket that has begun, or before it, rings all the same, and each rings once.
        #[test]
        fn each_rings_once_in_order_and_not_before_its_time(
            steps in prop::collection::vec((any::<bool>(), -40i64..40, 0i64..3, 0u32..5), 1..80)
        ) {
            let mut timers = Timers::default();
            let mut expected = std::collections::BTreeSet::new();
            for (takes, bucket, within, number) in steps {
                let instant_us = (bucket << (BUCKET_BITS - 2)) + within;
                if !takes {
                    if expected.insert((instant_us, number)) {
                        timers.set(instant_us, number);
                    }
                    continue;
                }
                while let Some(first) = timers.take(instant_us) {
                    prop_assert_eq!(expected.pop_first(), Some(first));
                    prop_assert!(first.0 <= instant_us);
                }
                prop_assert!(!timers.rings(instant_us));
                prop_assert!(expected.first().is_none_or(|first| first.0 > instant_us));
            }
        }
    }
}
