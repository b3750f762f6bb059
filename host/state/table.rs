//! The entities of one table in one shard group: keys, newest rows, and a column of cells for each feature.

use crate::arena::{Arena, Slice};
use hashbrown::HashTable;
use onefold_fold::{DamagedCell, Pending, Window, persist, persist_ordered, restore, restore_ordered};
use std::collections::BTreeMap;

/// An entity's number in its table. Numbers of dropped entities are given again.
pub type EntityNumber = u32;

/// One entity. What is read and written together stands together: one line of the cache.
#[derive(Clone, Copy)]
struct Entity {
    hash: u64,
    /// Empty: the number is free.
    key: Slice,
    newest_us: i64,
    /// The instant for which the entity stands in `timers`; `i64::MAX`: in none.
    due_us: i64,
    is_dirty: bool,
}

/// One feature's state of one entity.
#[derive(Clone, Copy, Default)]
struct Cell {
    head: Slice,
    tail: Slice,
}

/// Entities with the state of all features that hang on the same rows and keys.
pub struct EntityTable {
    /// Hash and number: a probe of another key's entry stays within the index.
    index: HashTable<(u64, EntityNumber)>,
    entities: Vec<Entity>,
    free: Vec<EntityNumber>,
    /// One for each feature.
    windows: Vec<Window>,
    /// Which features take their rows in order.
    ordered: Vec<bool>,
    /// Their waiting rows, by feature. A cell that has none is not here.
    pending: BTreeMap<(usize, EntityNumber), Pending>,
    pending_bytes: usize,
    /// Entity by entity, in the order of `windows`.
    cells: Vec<Cell>,
    arena: Arena,
    /// Entities by the instant at which a value of theirs changes by time alone. Instants lie on hops, so there are
    /// few; an entity whose `due_us` says otherwise has moved on.
    timers: BTreeMap<i64, Vec<EntityNumber>>,
    /// Entities changed since the last checkpoint, each once.
    dirty: Vec<EntityNumber>,
    /// Keys dropped since the last checkpoint.
    dropped: Vec<Vec<u8>>,
}

impl EntityTable {
    /// For each feature its window, and whether it takes its rows in order.
    pub fn new(features: impl IntoIterator<Item = (Window, bool)>) -> EntityTable {
        let (windows, ordered) = features.into_iter().unzip();
        EntityTable {
            index: HashTable::new(),
            entities: Vec::new(),
            free: Vec::new(),
            windows,
            ordered,
            pending: BTreeMap::new(),
            pending_bytes: 0,
            cells: Vec::new(),
            arena: Arena::default(),
            timers: BTreeMap::new(),
            dirty: Vec::new(),
            dropped: Vec::new(),
        }
    }

    /// The same entities with other columns: for each one its window, whether it takes its rows in order, and the column
    /// that it was (none: it is empty
    /// as yet). All entities count as changed, so that the next checkpoint holds the new columns.
    pub fn reshape(mut self, columns: &[(Window, bool, Option<usize>)]) -> EntityTable {
        let before = self.windows.len();
        let mut cells = Vec::with_capacity(self.entities.len() * columns.len());
        for number in 0..self.entities.len() {
            let old = &mut self.cells[number * before..(number + 1) * before];
            cells.extend(
                columns.iter().map(|(.., was)| was.map_or(Cell::default(), |was| std::mem::take(&mut old[was]))),
            );
            for dropped in old {
                self.arena.remove(&mut dropped.head);
                self.arena.remove(&mut dropped.tail);
            }
        }
        let mut pending = std::mem::take(&mut self.pending);
        for (column, (.., was)) in columns.iter().enumerate() {
            let Some(was) = *was else { continue };
            let waiting: Vec<(usize, EntityNumber)> =
                pending.range((was, 0)..=(was, EntityNumber::MAX)).map(|(place, _)| *place).collect();
            for place in waiting {
                self.pending.extend(pending.remove(&place).map(|rows| ((column, place.1), rows)));
            }
        }
        self.pending_bytes = self.pending.values().map(Pending::bytes).sum();
        self.ordered = columns.iter().map(|(_, ordered, _)| *ordered).collect();
        self.windows = columns.iter().map(|(window, ..)| *window).collect();
        self.cells = cells;
        let known: Vec<EntityNumber> = self.numbers().collect();
        known.into_iter().for_each(|number| self.mark_dirty(number));
        self
    }

    /// Some of its columns, in a table of their own: for each one its window, whether it takes its rows in order, and
    /// which it is here (none: it is empty as yet).
    pub fn copy(&self, columns: &[(Window, bool, Option<usize>)]) -> EntityTable {
        let mut copy = EntityTable::new(columns.iter().map(|(window, ordered, _)| (*window, *ordered)));
        for number in self.numbers() {
            let own = copy.insert(self.key(number), self.entities[number as usize].hash);
            copy.touch(own, self.newest_us(number));
            copy.mark_dirty(own);
            for (column, (_, ordered, was)) in columns.iter().enumerate() {
                let Some(was) = was else { continue };
                copy.set_head(column, own, self.head(*was, number));
                copy.set_tail(column, own, self.tail(*was, number));
                if let Some(waiting) = self.pending(*was, number).filter(|_| *ordered) {
                    copy.edit_pending(column, own, |pending| *pending = waiting.clone());
                }
            }
        }
        copy
    }

    /// Takes the cells of these columns from a table of the same rows and shape. Entities that only the other knows
    /// were dropped here; they are taken too where they are kept for longer from now on (`grown`).
    pub fn absorb(&mut self, columns: &[usize], other: &EntityTable, grown: bool) {
        for number in other.numbers() {
            let hash = other.entities[number as usize].hash;
            let own = match self.find(other.key(number), hash) {
                Some(own) => own,
                None if grown => self.insert(other.key(number), hash),
                None => continue,
            };
            self.touch(own, other.newest_us(number));
            self.mark_dirty(own);
            for column in columns {
                self.set_head(*column, own, other.head(*column, number));
                self.set_tail(*column, own, other.tail(*column, number));
                if self.ordered[*column] {
                    let waiting = other.pending(*column, number).cloned().unwrap_or_default();
                    self.edit_pending(*column, own, |pending| *pending = waiting);
                }
            }
        }
    }

    /// Whether the number is an entity's now.
    pub fn is_known(&self, number: EntityNumber) -> bool {
        self.entities.get(number as usize).is_some_and(|entity| entity.key != Slice::EMPTY)
    }

    #[inline]
    fn cell(&self, column: usize, number: EntityNumber) -> usize {
        number as usize * self.windows.len() + column
    }

    /// How many entities it holds.
    pub fn len(&self) -> usize {
        self.index.len()
    }

    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    /// Bytes of keys and states, waiting rows among them.
    pub fn state_bytes(&self) -> usize {
        self.arena.live_bytes() + self.pending_bytes
    }

    /// The entity of this key, if it is known.
    #[inline]
    pub fn find(&self, key: &[u8], hash: u64) -> Option<EntityNumber> {
        let EntityTable { index, entities, arena, .. } = self;
        let same =
            |(other, number): &(u64, EntityNumber)| *other == hash && arena.get(entities[*number as usize].key) == key;
        index.find(hash, same).map(|(_, number)| *number)
    }

    /// The entity of this key, made known if it was not (second: whether it is new).
    #[inline]
    pub fn find_or_insert(&mut self, key: &[u8], hash: u64) -> (EntityNumber, bool) {
        match self.find(key, hash) {
            Some(number) => (number, false),
            None => (self.insert(key, hash), true),
        }
    }

    fn insert(&mut self, key: &[u8], hash: u64) -> EntityNumber {
        let mut entity = Entity { hash, key: Slice::EMPTY, newest_us: i64::MIN, due_us: i64::MAX, is_dirty: false };
        self.arena.set(&mut entity.key, key);
        let number = match self.free.pop() {
            Some(number) => {
                // It may stand in `dirty` still.
                entity.is_dirty = self.entities[number as usize].is_dirty;
                self.entities[number as usize] = entity;
                number
            }
            None => {
                self.entities.push(entity);
                self.cells.resize(self.entities.len() * self.windows.len(), Cell::default());
                self.entities.len() as u32 - 1
            }
        };
        self.index.insert_unique(hash, (hash, number), |(hash, _)| *hash);
        number
    }

    /// Forgets the entity: its key, its cells and its timer.
    pub fn drop_entity(&mut self, number: EntityNumber) {
        let entity = &mut self.entities[number as usize];
        self.dropped.push(self.arena.get(entity.key).to_vec());
        if let Ok(entry) = self.index.find_entry(entity.hash, |(_, other)| *other == number) {
            entry.remove();
        }
        self.arena.remove(&mut entity.key);
        entity.due_us = i64::MAX;
        entity.newest_us = i64::MIN;
        let columns = self.windows.len();
        for cell in &mut self.cells[number as usize * columns..(number as usize + 1) * columns] {
            self.arena.remove(&mut cell.head);
            self.arena.remove(&mut cell.tail);
        }
        for column in (0..columns).filter(|column| self.ordered[*column]) {
            if let Some(gone) = self.pending.remove(&(column, number)) {
                self.pending_bytes -= gone.bytes();
            }
        }
        self.free.push(number);
    }

    pub fn key(&self, number: EntityNumber) -> &[u8] {
        self.arena.get(self.entities[number as usize].key)
    }

    /// Event time of the entity's newest row.
    #[inline]
    pub fn newest_us(&self, number: EntityNumber) -> i64 {
        self.entities[number as usize].newest_us
    }

    /// Takes note of a row of the entity.
    #[inline]
    pub fn touch(&mut self, number: EntityNumber, event_time_us: i64) {
        let newest = &mut self.entities[number as usize].newest_us;
        *newest = (*newest).max(event_time_us);
    }

    /// Marks the entity as changed since the last checkpoint.
    #[inline]
    pub fn mark_dirty(&mut self, number: EntityNumber) {
        let flag = &mut self.entities[number as usize].is_dirty;
        if !*flag {
            *flag = true;
            self.dirty.push(number);
        }
    }

    #[inline]
    pub fn head(&self, column: usize, number: EntityNumber) -> &[u8] {
        self.arena.get(self.cells[self.cell(column, number)].head)
    }

    #[inline]
    pub fn tail(&self, column: usize, number: EntityNumber) -> &[u8] {
        self.arena.get(self.cells[self.cell(column, number)].tail)
    }

    #[inline]
    pub fn set_head(&mut self, column: usize, number: EntityNumber, bytes: &[u8]) {
        let cell = self.cell(column, number);
        self.arena.set(&mut self.cells[cell].head, bytes);
    }

    pub fn set_tail(&mut self, column: usize, number: EntityNumber, bytes: &[u8]) {
        let cell = self.cell(column, number);
        self.arena.set(&mut self.cells[cell].tail, bytes);
    }

    /// The waiting rows of an ordered feature; none where no row waits.
    pub fn pending(&self, column: usize, number: EntityNumber) -> Option<&Pending> {
        self.pending.get(&(column, number))
    }

    /// Changes the waiting rows of an ordered feature.
    pub fn edit_pending<T>(&mut self, column: usize, number: EntityNumber, edit: impl FnOnce(&mut Pending) -> T) -> T {
        let pending = self.pending.entry((column, number)).or_default();
        let before = pending.bytes();
        let edited = edit(pending);
        self.pending_bytes = self.pending_bytes - before + pending.bytes();
        if pending.is_empty() {
            self.pending_bytes -= pending.bytes();
            self.pending.remove(&(column, number));
        }
        edited
    }

    /// The entities in which rows of an ordered feature wait that are not after this instant, ascending by number.
    pub fn to_settle(&self, column: usize, settled_us: i64) -> Vec<EntityNumber> {
        let of_feature = self.pending.range((column, 0)..=(column, EntityNumber::MAX));
        let settles = |pending: &Pending| pending.rows().first().is_some_and(|row| row.event_time_us() <= settled_us);
        of_feature.filter(|(_, pending)| settles(pending)).map(|((_, number), _)| *number).collect()
    }

    /// Sets the entity's timer. It may ring earlier than asked (an earlier one stands), never later.
    #[inline]
    pub fn set_due(&mut self, number: EntityNumber, due_us: i64) {
        let standing = &mut self.entities[number as usize].due_us;
        if due_us < *standing {
            *standing = due_us;
            self.timers.entry(due_us).or_default().push(number);
        }
    }

    /// Entities whose timer is at or before `now_us`, at most about `limit`; their timers are taken off.
    pub fn take_due(&mut self, now_us: i64, limit: usize) -> Vec<EntityNumber> {
        let mut due = Vec::new();
        while due.len() < limit {
            let Some(mut entry) = self.timers.first_entry() else { break };
            let instant_us = *entry.key();
            if instant_us > now_us {
                break;
            }
            while due.len() < limit {
                let Some(number) = entry.get_mut().pop() else { break };
                let standing = &mut self.entities[number as usize].due_us;
                if *standing == instant_us {
                    *standing = i64::MAX;
                    due.push(number);
                }
            }
            if entry.get().is_empty() {
                entry.remove();
            }
        }
        due
    }

    /// The earliest instant for which a timer may stand.
    pub fn next_due_us(&self) -> Option<i64> {
        self.timers.first_key_value().map(|(instant_us, _)| *instant_us)
    }

    /// All known entities, in no order that means anything.
    pub fn numbers(&self) -> impl Iterator<Item = EntityNumber> {
        self.index.iter().map(|(_, number)| *number)
    }

    /// Takes what changed since the last time: dropped keys, then changed entities (those still known).
    pub fn take_changes(&mut self) -> (Vec<Vec<u8>>, Vec<EntityNumber>) {
        let mut changed = std::mem::take(&mut self.dirty);
        for number in &changed {
            self.entities[*number as usize].is_dirty = false;
        }
        changed.retain(|number| self.entities[*number as usize].key != Slice::EMPTY);
        (std::mem::take(&mut self.dropped), changed)
    }

    /// Appends the persisted form of a cell.
    pub fn persist(&self, column: usize, number: EntityNumber, out: &mut Vec<u8>) -> Result<(), DamagedCell> {
        let (window, head, tail) = (&self.windows[column], self.head(column, number), self.tail(column, number));
        match self.ordered[column] {
            true => {
                let pending = self.pending(column, number).map_or(&[][..], Pending::rows);
                persist_ordered(window, head, tail, pending, out)
            }
            false => persist(window, head, tail, out),
        }
    }

    /// Sets a cell from its persisted form.
    pub fn restore(&mut self, column: usize, number: EntityNumber, persisted: &[u8]) -> Result<(), DamagedCell> {
        let (mut head, mut tail) = (Vec::new(), Vec::new());
        match self.ordered[column] {
            true => {
                let restored = restore_ordered(&self.windows[column], persisted, &mut head, &mut tail)?;
                self.edit_pending(column, number, |pending| *pending = restored);
            }
            false => restore(&self.windows[column], persisted, &mut head, &mut tail)?,
        }
        self.set_head(column, number, &head);
        self.set_tail(column, number, &tail);
        Ok(())
    }
}
