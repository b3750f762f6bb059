//! The heads of the entities that a batch touches, brought together: features are folded one after the other, and each
//! then finds its states side by side, not all over memory.

use super::record::{self, Head, INLINE_BYTES};
use super::table::{EntityNumber, EntityTable};

/// Heads of some entities of one table (in several groups), entity by entity.
#[derive(Default)]
pub struct Heads {
    columns: usize,
    bytes: Vec<u8>,
    places: Vec<Head>,
    /// Which entities are to be written back.
    changed: Vec<bool>,
}

impl Heads {
    /// Begins anew, for tables of so many features.
    pub fn clear(&mut self, columns: usize) {
        self.columns = columns;
        self.bytes.clear();
        self.places.clear();
        self.changed.clear();
    }

    /// Adds an entity's heads; the first is entity 0.
    #[inline]
    pub fn load(&mut self, table: &mut EntityTable, number: EntityNumber) {
        // What is loaded is about to be set.
        table.thaw(number);
        let record = table.record(number);
        let (_, from) = record::key(record);
        let mut at = self.bytes.len();
        self.bytes.extend_from_slice(&record[from..]);
        self.places.extend((0..self.columns).map(|_| record::head(&self.bytes, &mut at)));
        self.changed.push(false);
    }

    /// The head of a feature of an entity.
    #[inline]
    pub fn get<'a>(&'a self, table: &'a EntityTable, entity: usize, column: usize) -> &'a [u8] {
        match self.places[entity * self.columns + column] {
            Head::Inline { start, len } => &self.bytes[start..start + len as usize],
            Head::Apart(slice) => table.string(slice),
        }
    }

    /// Sets it. The table holds it after `store`.
    #[inline]
    pub fn set(&mut self, table: &mut EntityTable, entity: usize, column: usize, bytes: &[u8]) {
        let place = &mut self.places[entity * self.columns + column];
        self.changed[entity] = true;
        let mut apart = match *place {
            Head::Apart(slice) => slice,
            Head::Inline { .. } => crate::arena::Slice::EMPTY,
        };
        if bytes.len() > INLINE_BYTES {
            table.set_string(&mut apart, bytes);
            *place = Head::Apart(apart);
        } else {
            table.set_string(&mut apart, &[]);
            *place = Head::Inline { start: self.bytes.len(), len: bytes.len() as u32 };
            self.bytes.extend_from_slice(bytes);
        }
    }

    /// Writes an entity's heads into its table, if one was set.
    #[inline]
    pub fn store(&self, table: &mut EntityTable, entity: usize, number: EntityNumber) {
        if self.changed[entity] {
            let places = &self.places[entity * self.columns..(entity + 1) * self.columns];
            table.set_heads(number, places, &self.bytes);
        }
    }
}
