//! The state as of a barrier, encoded while the stream goes on.
//!
//! At a barrier nothing is copied: what changed up to it is *frozen*. Frozen entities are encoded some at a time, between
//! batches; one that is about to change is encoded before that. So a barrier stops a folding thread for no longer than
//! it takes to begin a new list.

use super::codec::put_entity;
use super::table::{EntityNumber, EntityTable};
use onefold_fold::DamagedCell;

/// What of one table is being encoded.
pub struct Frozen {
    /// Entities that changed last in this epoch are meant.
    pub(super) epoch: u32,
    /// All entities below this number are meant, whenever they changed.
    all_below: Option<u32>,
    list: Vec<EntityNumber>,
    /// How many of the list (or of all) have been looked at.
    next: usize,
    /// Keys dropped in that epoch.
    pub(super) dropped: Vec<Vec<u8>>,
    /// Encoded entities, and how many.
    pub(super) bytes: Vec<u8>,
    pub(super) count: usize,
    damaged: Option<DamagedCell>,
}

impl Frozen {
    /// Whether it is the whole table.
    pub(super) fn is_full(&self) -> bool {
        self.all_below.is_some()
    }
}

impl EntityTable {
    /// All is as the files say.
    pub fn forget_changes(&mut self) {
        self.dirty.clear();
        self.dropped.clear();
        self.epoch += 1;
    }

    /// Freezes what changed since the last time, or (`full`) everything. The last one must have been taken.
    pub fn freeze(&mut self, full: bool) {
        debug_assert!(self.frozen.is_none(), "one barrier after the other");
        let (list, dropped) = (std::mem::take(&mut self.dirty), std::mem::take(&mut self.dropped));
        self.frozen = Some(Frozen {
            epoch: self.epoch,
            all_below: full.then_some(self.entities.len() as u32),
            list: if full { Vec::new() } else { list },
            next: 0,
            dropped: if full { Vec::new() } else { dropped },
            bytes: Vec::new(),
            count: 0,
            damaged: None,
        });
        self.epoch += 1;
    }

    /// Encodes up to `limit` frozen entities. Returns how many of them are left of the limit: some, when all are done.
    pub fn encode_some(&mut self, limit: usize) -> usize {
        for left in (0..limit).rev() {
            let Some(frozen) = &mut self.frozen else { return left + 1 };
            let next = match frozen.all_below {
                Some(end) => (frozen.next < end as usize).then_some(frozen.next as u32),
                None => frozen.list.get(frozen.next).copied(),
            };
            let Some(number) = next else { return left + 1 };
            frozen.next += 1;
            self.thaw(number);
        }
        0
    }

    /// Takes what was frozen, once all of it is encoded.
    pub fn take_frozen(&mut self) -> Result<Option<Frozen>, DamagedCell> {
        let frozen = self.frozen.take();
        match frozen.as_ref().and_then(|frozen| frozen.damaged.clone()) {
            Some(damaged) => Err(damaged),
            None => Ok(frozen),
        }
    }

    /// Encodes an entity if it is frozen: it is about to change.
    #[inline]
    pub(super) fn thaw(&mut self, number: EntityNumber) {
        if self.is_frozen(number) {
            self.encode_frozen(number);
        }
    }

    #[inline]
    fn is_frozen(&self, number: EntityNumber) -> bool {
        let Some(frozen) = &self.frozen else { return false };
        let entity = &self.entities[number as usize];
        let is_meant = match frozen.all_below {
            Some(end) => number < end,
            None => entity.changed == frozen.epoch,
        };
        is_meant && entity.encoded != frozen.epoch && self.is_known(number)
    }

    fn encode_frozen(&mut self, number: EntityNumber) {
        let Some(mut frozen) = self.frozen.take() else { return };
        self.entities[number as usize].encoded = frozen.epoch;
        match put_entity(self, number, &mut frozen.bytes) {
            Ok(()) => frozen.count += 1,
            Err(damaged) => drop(frozen.damaged.get_or_insert(damaged)),
        }
        self.frozen = Some(frozen);
    }
}
