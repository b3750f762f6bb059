//! The entities of one table in one shard group: keys, newest rows, and a column of cells for each feature.

use crate::arena::{Arena, Slice};
use hashbrown::HashTable;
use onefold_fold::{DamagedCell, Window, persist, restore};
use std::collections::BTreeMap;

/// An entity's number in its table. Numbers of dropped entities are given again.
pub type EntityNumber = u32;

/// One feature's state for every entity of the table.
pub struct CellColumn {
    pub window: Window,
    heads: Vec<Slice>,
    tails: Vec<Slice>,
}

/// Entities with the state of all features that hang on the same rows and keys.
pub struct EntityTable {
    index: HashTable<EntityNumber>,
    hashes: Vec<u64>,
    keys: Vec<Slice>,
    newest_us: Vec<i64>,
    /// The instant for which the entity stands in `timers`; `i64::MAX`: in none.
    due_us: Vec<i64>,
    free: Vec<EntityNumber>,
    columns: Vec<CellColumn>,
    arena: Arena,
    /// Entities by the instant at which a value of theirs changes by time alone. Instants lie on hops, so there are
    /// few; an entity whose `due_us` says otherwise has moved on.
    timers: BTreeMap<i64, Vec<EntityNumber>>,
    /// Entities changed since the last checkpoint, each once.
    dirty: Vec<EntityNumber>,
    is_dirty: Vec<bool>,
    /// Keys dropped since the last checkpoint.
    dropped: Vec<Vec<u8>>,
}

impl EntityTable {
    pub fn new(windows: impl IntoIterator<Item = Window>) -> EntityTable {
        let column = |window| CellColumn { window, heads: Vec::new(), tails: Vec::new() };
        EntityTable {
            index: HashTable::new(),
            hashes: Vec::new(),
            keys: Vec::new(),
            newest_us: Vec::new(),
            due_us: Vec::new(),
            free: Vec::new(),
            columns: windows.into_iter().map(column).collect(),
            arena: Arena::default(),
            timers: BTreeMap::new(),
            dirty: Vec::new(),
            is_dirty: Vec::new(),
            dropped: Vec::new(),
        }
    }

    /// Keeps some columns and adds empty ones: for each new column, where it was and what its window is.
    pub fn reshape(&mut self, columns: &[(Option<usize>, Window)]) {
        let places = self.hashes.len();
        let mut old: Vec<Option<CellColumn>> = std::mem::take(&mut self.columns).into_iter().map(Some).collect();
        for (from, window) in columns {
            let kept = from.and_then(|from| old.get_mut(from)).and_then(Option::take);
            self.columns.push(kept.unwrap_or_else(|| CellColumn {
                window: *window,
                heads: vec![Slice::default(); places],
                tails: vec![Slice::default(); places],
            }));
        }
        for mut column in old.into_iter().flatten() {
            for slice in column.heads.iter_mut().chain(&mut column.tails) {
                self.arena.remove(slice);
            }
        }
    }

    /// How many entities it holds.
    pub fn len(&self) -> usize {
        self.index.len()
    }

    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    /// Bytes of keys and states.
    pub fn state_bytes(&self) -> usize {
        self.arena.live_bytes()
    }

    /// The entity of this key, if it is known.
    #[inline]
    pub fn find(&self, key: &[u8], hash: u64) -> Option<EntityNumber> {
        let EntityTable { index, keys, hashes, arena, .. } = self;
        let same = |number: &EntityNumber| {
            let place = *number as usize;
            hashes[place] == hash && arena.get(keys[place]) == key
        };
        index.find(hash, same).copied()
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
        let number = self.free.pop().unwrap_or_else(|| {
            self.hashes.push(0);
            self.keys.push(Slice::default());
            self.newest_us.push(i64::MIN);
            self.due_us.push(i64::MAX);
            self.is_dirty.push(false);
            for column in &mut self.columns {
                column.heads.push(Slice::default());
                column.tails.push(Slice::default());
            }
            self.hashes.len() as u32 - 1
        });
        let place = number as usize;
        self.hashes[place] = hash;
        self.arena.set(&mut self.keys[place], key);
        self.newest_us[place] = i64::MIN;
        self.due_us[place] = i64::MAX;
        let hashes = &self.hashes;
        self.index.insert_unique(hash, number, |number| hashes[*number as usize]);
        number
    }

    /// Forgets the entity: its key, its cells and its timer.
    pub fn drop_entity(&mut self, number: EntityNumber) {
        let place = number as usize;
        self.dropped.push(self.arena.get(self.keys[place]).to_vec());
        if let Ok(entry) = self.index.find_entry(self.hashes[place], |other| *other == number) {
            entry.remove();
        }
        self.arena.remove(&mut self.keys[place]);
        for column in &mut self.columns {
            self.arena.remove(&mut column.heads[place]);
            self.arena.remove(&mut column.tails[place]);
        }
        self.due_us[place] = i64::MAX;
        self.newest_us[place] = i64::MIN;
        self.free.push(number);
    }

    pub fn key(&self, number: EntityNumber) -> &[u8] {
        self.arena.get(self.keys[number as usize])
    }

    /// Event time of the entity's newest row.
    #[inline]
    pub fn newest_us(&self, number: EntityNumber) -> i64 {
        self.newest_us[number as usize]
    }

    /// Takes note of a row of the entity.
    #[inline]
    pub fn touch(&mut self, number: EntityNumber, event_time_us: i64) {
        let newest = &mut self.newest_us[number as usize];
        *newest = (*newest).max(event_time_us);
    }

    /// Marks the entity as changed since the last checkpoint.
    #[inline]
    pub fn mark_dirty(&mut self, number: EntityNumber) {
        let flag = &mut self.is_dirty[number as usize];
        if !*flag {
            *flag = true;
            self.dirty.push(number);
        }
    }

    #[inline]
    pub fn head(&self, column: usize, number: EntityNumber) -> &[u8] {
        self.arena.get(self.columns[column].heads[number as usize])
    }

    #[inline]
    pub fn tail(&self, column: usize, number: EntityNumber) -> &[u8] {
        self.arena.get(self.columns[column].tails[number as usize])
    }

    #[inline]
    pub fn set_head(&mut self, column: usize, number: EntityNumber, bytes: &[u8]) {
        self.arena.set(&mut self.columns[column].heads[number as usize], bytes);
    }

    pub fn set_tail(&mut self, column: usize, number: EntityNumber, bytes: &[u8]) {
        self.arena.set(&mut self.columns[column].tails[number as usize], bytes);
    }

    /// Sets the entity's timer. It may ring earlier than asked (an earlier one stands), never later.
    #[inline]
    pub fn set_due(&mut self, number: EntityNumber, due_us: i64) {
        let standing = &mut self.due_us[number as usize];
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
                let standing = &mut self.due_us[number as usize];
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
        self.index.iter().copied()
    }

    /// Takes what changed since the last time: dropped keys, then changed entities (those still known).
    pub fn take_changes(&mut self) -> (Vec<Vec<u8>>, Vec<EntityNumber>) {
        let mut changed = std::mem::take(&mut self.dirty);
        for number in &changed {
            self.is_dirty[*number as usize] = false;
        }
        changed.retain(|number| self.keys[*number as usize] != Slice::default());
        (std::mem::take(&mut self.dropped), changed)
    }

    /// Appends the persisted form of a cell.
    pub fn persist(&self, column: usize, number: EntityNumber, out: &mut Vec<u8>) -> Result<(), DamagedCell> {
        persist(&self.columns[column].window, self.head(column, number), self.tail(column, number), out)
    }

    /// Sets a cell from its persisted form.
    pub fn restore(&mut self, column: usize, number: EntityNumber, persisted: &[u8]) -> Result<(), DamagedCell> {
        let (mut head, mut tail) = (Vec::new(), Vec::new());
        restore(&self.columns[column].window, persisted, &mut head, &mut tail)?;
        self.set_head(column, number, &head);
        self.set_tail(column, number, &tail);
        Ok(())
    }
}
