//! The entities that one batch touches: each once, with its rows; looked up in parts that fit a core's cache.

use super::fold_ordered::Asked;
use crate::arena::Slice;
use crate::route::{Groups, Keys};
use crate::rows::{RowBatch, TableLayout};
use crate::state::{EntityNumber, EntityTable, Heads};
use onefold_fold::Window;
use std::ops::Range;

/// Lines of memory that a part looks at, about: half of a core's L2 cache, the module and the batch have the other.
const PART_LINES: usize = 8192;
/// What is looked at of an entity, about: index, entity, key and online row; besides a line for each feature, and what
/// a window's tail has.
const ENTITY_LINES: usize = 6;
const TAIL_LINES: usize = 5;

/// The tables of one kind in the groups that a thread owns, by group; groups of others are `None`.
pub type GroupTables<'a> = Vec<Option<&'a mut EntityTable>>;

/// Rows whose entities are not found yet.
pub struct NewRows<'a> {
    pub keys: &'a Keys,
    pub groups: Groups,
    /// The clock of the rows' source.
    pub clock_us: i64,
}

/// The entities that one batch touches.
#[derive(Default)]
pub struct Touched {
    /// How many there are.
    count: usize,
    pub(super) groups: Vec<u32>,
    pub(super) numbers: Vec<EntityNumber>,
    pub(super) hashes: Vec<u64>,
    /// Entities met for the first time: every feature has a value from now on.
    pub(super) is_new: Vec<bool>,
    /// Rows of entity `i`: `rows[starts[i]..starts[i + 1]]`.
    pub(super) starts: Vec<u32>,
    pub(super) rows: Vec<u32>,
    pub(super) as_of_us: Vec<i64>,
    pub(super) next_change_us: Vec<i64>,
    /// The heads of a part's cells.
    pub(super) heads: Heads,
    // Scratch.
    slots: Vec<u32>,
    first_rows: Vec<u32>,
    entity_of: Vec<u32>,
    near: Vec<Option<EntityNumber>>,
    strings: Vec<(u32, Slice)>,
}

impl Touched {
    fn clear(&mut self) {
        self.groups.clear();
        self.numbers.clear();
        self.hashes.clear();
        self.is_new.clear();
        self.starts.clear();
        self.rows.clear();
        self.as_of_us.clear();
        self.next_change_us.clear();
        self.first_rows.clear();
        self.entity_of.clear();
    }

    /// The entities in parts that stay near while they are worked on.
    pub fn parts(&self, layout: &TableLayout) -> impl Iterator<Item = Range<usize>> + use<> {
        let tails = layout.features.iter().filter(|feature| !matches!(feature.window, Window::Unbounded)).count();
        let part = PART_LINES / (ENTITY_LINES + layout.features.len() + tails * TAIL_LINES);
        let (count, part) = (self.count, part.max(64));
        (0..count).step_by(part).map(move |start| start..count.min(start + part))
    }

    /// The rows of an entity.
    #[inline]
    pub fn rows_of(&self, entity: usize) -> &[u32] {
        &self.rows[self.starts[entity] as usize..self.starts[entity + 1] as usize]
    }

    /// Groups these rows by key. Their entities are to be found, part by part.
    pub fn of_rows(&mut self, keys: &Keys, rows: &[u32]) {
        self.clear();
        self.group_rows(keys, rows);
        self.count = self.first_rows.len();
    }

    /// Finds the entities of the next part, and makes unknown ones known.
    pub fn find(&mut self, part: Range<usize>, new_rows: &NewRows<'_>, tables: &mut GroupTables<'_>, batch: &RowBatch) {
        self.bring_near(part.clone(), new_rows, tables);
        let NewRows { keys, groups, clock_us } = new_rows;
        let near = std::mem::take(&mut self.near);
        for (entity, near) in part.zip(&near) {
            let first_row = self.first_rows[entity] as usize;
            let (hash, key) = (keys.hash(first_row), keys.key(first_row));
            let group = groups.of(hash);
            let Some(table) = &mut tables[group as usize] else { continue };
            let (number, is_new) = match near {
                Some(number) if table.has_key(*number, key) => (*number, false),
                // Another key has the hash.
                Some(_) => table.find_or_insert(key, hash),
                None => (table.insert(key, hash), true),
            };
            let newest_us = self.rows_of(entity).iter().map(|row| batch.event_time_us[*row as usize]).max();
            table.mark_dirty(number);
            table.touch(number, newest_us.unwrap_or(i64::MIN));
            self.groups.push(group);
            self.numbers.push(number);
            self.hashes.push(hash);
            self.is_new.push(is_new);
            self.as_of_us.push((*clock_us).max(table.newest_us(number)));
            self.next_change_us.push(i64::MAX);
        }
        self.near = near;
    }

    /// Looks the entities of a part up by their hashes, and reads what will be looked at of each, in loops that do
    /// nothing else: the machine then waits for many of them at once, and not for one after the other.
    fn bring_near(&mut self, part: Range<usize>, new_rows: &NewRows<'_>, tables: &GroupTables<'_>) {
        let rows = &self.first_rows[part];
        let hash = |row: &u32| new_rows.keys.hash(*row as usize);
        let table = |row: &u32| tables[new_rows.groups.of(hash(row)) as usize].as_deref();
        self.near.clear();
        self.near.extend(rows.iter().map(|row| table(row)?.candidate(hash(row))));
        self.strings.clear();
        for (row, number) in rows.iter().zip(&self.near) {
            let (Some(table), Some(number)) = (table(row), *number) else { continue };
            let group = new_rows.groups.of(hash(row));
            self.strings.push((group, table.place(number)));
            self.strings.extend(table.tail_places(number).iter().map(|tail| (group, *tail)));
        }
        bring_strings_near(&self.strings, tables);
    }

    /// The same for a part of entities that are known.
    pub(super) fn bring_due_near(&mut self, part: Range<usize>, tables: &GroupTables<'_>) {
        self.strings.clear();
        for (group, number) in self.groups[part.clone()].iter().zip(&self.numbers[part]) {
            let Some(table) = &tables[*group as usize] else { continue };
            self.strings.push((*group, table.place(*number)));
            self.strings.extend(table.tail_places(*number).iter().map(|tail| (*group, *tail)));
        }
        bring_strings_near(&self.strings, tables);
    }

    /// The key of an entity that a row names.
    #[inline]
    pub(super) fn key_of_row<'k>(&self, entity: usize, new_rows: &NewRows<'k>) -> &'k [u8] {
        new_rows.keys.key(self.first_rows[entity] as usize)
    }

    /// Entities without rows: their values change by time alone, or (`all_features`) all are to be written.
    pub fn of_due(&mut self, group: u32, table: &EntityTable, due: &[EntityNumber], clock_us: i64, all_features: bool) {
        self.clear();
        self.count = due.len();
        self.starts.push(0);
        for number in due {
            self.groups.push(group);
            self.numbers.push(*number);
            self.hashes.push(table.hash(*number));
            self.is_new.push(all_features);
            self.starts.push(0);
            self.as_of_us.push(clock_us.max(table.newest_us(*number)));
            self.next_change_us.push(i64::MAX);
        }
    }

    /// Brings the heads of a part's cells together.
    pub(super) fn load_heads(&mut self, part: Range<usize>, tables: &mut GroupTables<'_>, columns: usize) {
        self.heads.clear(columns);
        for (group, number) in self.groups[part.clone()].iter().zip(&self.numbers[part]) {
            if let Some(table) = tables[*group as usize].as_deref_mut() {
                self.heads.load(table, *number);
            }
        }
    }

    /// Writes those that were set into their tables.
    pub(super) fn store_heads(&mut self, part: Range<usize>, tables: &mut GroupTables<'_>) {
        for (place, entity) in part.enumerate() {
            if let Some(table) = &mut tables[self.groups[entity] as usize] {
                self.heads.store(table, place, self.numbers[entity]);
            }
        }
    }

    /// The entities of a part that have a value of an ordered feature to be written; `taken`: which have new rows.
    pub(super) fn asked(&self, window: &Window, part: Range<usize>, taken: &[bool]) -> Vec<Asked> {
        let windowed = !matches!(window, Window::Unbounded);
        let asks = |(entity, taken): &(usize, &bool)| windowed || **taken || self.is_new[*entity];
        let asked = |(entity, _): (usize, &bool)| Asked {
            entity: entity as u32,
            group: self.groups[entity],
            number: self.numbers[entity],
            as_of_us: self.as_of_us[entity],
        };
        part.zip(taken).filter(asks).map(asked).collect()
    }

    /// Groups rows by key: `first_rows`, `starts` and `rows`, entities in the order of their first row.
    fn group_rows(&mut self, keys: &Keys, rows: &[u32]) {
        let capacity = (rows.len() * 2).next_power_of_two().max(16);
        self.slots.clear();
        self.slots.resize(capacity, u32::MAX);
        let mask = capacity - 1;
        for row in rows {
            let row = *row as usize;
            let hash = keys.hash(row);
            let mut slot = hash as usize & mask;
            let entity = loop {
                let entity = self.slots[slot];
                if entity == u32::MAX {
                    let entity = self.first_rows.len() as u32;
                    self.slots[slot] = entity;
                    self.first_rows.push(row as u32);
                    self.starts.push(0);
                    break entity;
                }
                let first = self.first_rows[entity as usize] as usize;
                if keys.hash(first) == hash && keys.key(first) == keys.key(row) {
                    break entity;
                }
                slot = (slot + 1) & mask;
            };
            self.entity_of.push(entity);
            self.starts[entity as usize] += 1;
        }
        let mut start = 0;
        for count in &mut self.starts {
            let rows = *count;
            *count = start;
            start += rows;
        }
        self.rows.resize(rows.len(), 0);
        for (row, entity) in rows.iter().zip(&self.entity_of) {
            let place = &mut self.starts[*entity as usize];
            self.rows[*place as usize] = *row;
            *place += 1;
        }
        // Each start has moved to its end, which is the next one's start.
        self.starts.insert(0, 0);
    }
}

/// Reads something of each line of these strings (group, place).
fn bring_strings_near(strings: &[(u32, Slice)], tables: &GroupTables<'_>) {
    let peek =
        |(group, string): &(u32, Slice)| tables[*group as usize].as_deref().map_or(0, |table| table.peek(*string));
    std::hint::black_box(strings.iter().map(peek).fold(0, |seen, byte| seen | byte));
}
