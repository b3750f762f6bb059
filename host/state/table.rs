//! The entities of one table in one shard group: keys, newest rows, and a column of cells for each feature.

use super::frozen::Frozen;
use super::heads::Heads;
use super::record::{self, Head, INLINE_BYTES};
use super::timers::Timers;
use crate::arena::{Arena, Slice};
use hashbrown::HashTable;
use onefold_fold::{DamagedCell, Pending, Window, persist, persist_ordered, restore, restore_ordered};
use std::collections::BTreeMap;

/// What memory is fetched in.
const LINE_BYTES: usize = 64;

/// An entity's number in its table. Numbers of dropped entities are given again.
pub type EntityNumber = u32;

/// One entity. What is read and written together stands together: one line of the cache.
#[derive(Clone, Copy)]
pub(super) struct Entity {
    hash: u64,
    /// Its key and its cells' heads. Empty: the number is free.
    pub(super) record: Slice,
    newest_us: i64,
    /// The instant for which the entity stands in `timers`; `i64::MAX`: in none.
    due_us: i64,
    /// The epoch in which it changed last, and the one whose changes it is encoded in; 0: none.
    pub(super) changed: u32,
    pub(super) encoded: u32,
}

/// Entities with the state of all features that hang on the same rows and keys.
pub struct EntityTable {
    /// Hash and number: a probe of another key's entry stays within the index.
    index: HashTable<(u64, EntityNumber)>,
    pub(super) entities: Vec<Entity>,
    free: Vec<EntityNumber>,
    /// One for each feature.
    pub(super) windows: Vec<Window>,
    /// Which features take their rows in order.
    ordered: Vec<bool>,
    /// Their waiting rows, by feature. A cell that has none is not here.
    pending: BTreeMap<(usize, EntityNumber), Pending>,
    pending_bytes: usize,
    /// For each feature with a window, which of an entity's tails is its own; the others have none.
    tail_places: Vec<Option<usize>>,
    /// Entity by entity.
    tails: Vec<Slice>,
    tails_each: usize,
    arena: Arena,
    /// A record that is being put together.
    scratch: Vec<u8>,
    /// Entities by the instant at which a value of theirs changes by time alone; one whose `due_us` says otherwise has
    /// moved on.
    timers: Timers,
    /// From one checkpoint to the next; counts from 1.
    pub(super) epoch: u32,
    /// Entities changed in this epoch, each once.
    pub(super) dirty: Vec<EntityNumber>,
    /// Keys dropped in this epoch.
    pub(super) dropped: Vec<Vec<u8>>,
    /// What is being encoded of the epoch before.
    pub(super) frozen: Option<Frozen>,
}

impl EntityTable {
    /// For each feature its window, and whether it takes its rows in order.
    pub fn new(features: impl IntoIterator<Item = (Window, bool)>) -> EntityTable {
        let (windows, ordered): (Vec<Window>, Vec<bool>) = features.into_iter().unzip();
        let (tail_places, tails_each) = tail_places(&windows);
        EntityTable {
            index: HashTable::new(),
            entities: Vec::new(),
            free: Vec::new(),
            windows,
            ordered,
            pending: BTreeMap::new(),
            pending_bytes: 0,
            tail_places,
            tails: Vec::new(),
            tails_each,
            arena: Arena::default(),
            scratch: Vec::new(),
            timers: Timers::default(),
            epoch: 1,
            dirty: Vec::new(),
            dropped: Vec::new(),
            frozen: None,
        }
    }

    /// The same entities with other columns: for each one its window, whether it takes its rows in order, and the column
    /// that it was (none: it is empty
    /// as yet). All entities count as changed, so that the next checkpoint holds the new columns.
    pub fn reshape(mut self, columns: &[(Window, bool, Option<usize>)]) -> EntityTable {
        let windows: Vec<Window> = columns.iter().map(|(window, ..)| *window).collect();
        let (places, tails_each) = tail_places(&windows);
        let mut tails = vec![Slice::EMPTY; self.entities.len() * tails_each];
        let known: Vec<EntityNumber> = self.numbers().collect();
        for number in known.iter().copied() {
            for (column, (.., was)) in columns.iter().enumerate() {
                let was = was.and_then(|was| self.tail_place(was, number));
                if let (Some(was), Some(place)) = (was, places[column]) {
                    tails[number as usize * tails_each + place] = std::mem::take(&mut self.tails[was]);
                }
            }
            let gone = number as usize * self.tails_each..(number as usize + 1) * self.tails_each;
            self.tails[gone].iter_mut().for_each(|tail| self.arena.remove(tail));
            let mut heads = self.heads(number);
            let kept: Vec<Head> = columns.iter().map(|(.., was)| was.map_or(Head::EMPTY, |was| heads[was])).collect();
            for (column, head) in heads.iter_mut().enumerate() {
                let is_kept = columns.iter().any(|(.., was)| *was == Some(column));
                if let Head::Apart(slice) = head
                    && !is_kept
                {
                    self.arena.remove(slice);
                }
            }
            let bytes = self.record(number).to_vec();
            self.set_heads(number, &kept, &bytes);
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
        (self.windows, self.tails, self.tail_places, self.tails_each) = (windows, tails, places, tails_each);
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
            self.mark_dirty(own);
            self.touch(own, other.newest_us(number));
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
        self.entities.get(number as usize).is_some_and(|entity| entity.record != Slice::EMPTY)
    }

    #[inline]
    fn tail_place(&self, column: usize, number: EntityNumber) -> Option<usize> {
        self.tail_places[column].map(|place| number as usize * self.tails_each + place)
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
        let same = |(other, number): &(u64, EntityNumber)| {
            *other == hash && record::key(arena.get(entities[*number as usize].record)).0 == key
        };
        index.find(hash, same).map(|(_, number)| *number)
    }

    /// The entity that has this hash, most likely the one of the key: for who looks many up and would wait for each.
    #[inline]
    pub fn candidate(&self, hash: u64) -> Option<EntityNumber> {
        self.index.find(hash, |(other, _)| *other == hash).map(|(_, number)| *number)
    }

    /// Where a candidate's record stands.
    #[inline]
    pub fn place(&self, number: EntityNumber) -> Slice {
        self.entities[number as usize].record
    }

    /// Whether the entity's key is this one.
    #[inline]
    pub fn has_key(&self, number: EntityNumber, key: &[u8]) -> bool {
        record::key(self.record(number)).0 == key
    }

    /// Where the entity's tails stand.
    #[inline]
    pub fn tail_places(&self, number: EntityNumber) -> &[Slice] {
        &self.tails[number as usize * self.tails_each..(number as usize + 1) * self.tails_each]
    }

    /// Reads something of each line of a string, which brings it near.
    #[inline]
    pub fn peek(&self, string: Slice) -> u8 {
        self.arena.get(string).iter().step_by(LINE_BYTES).fold(0, |seen, byte| seen | byte)
    }

    /// The entity of this key, made known if it was not (second: whether it is new).
    #[inline]
    pub fn find_or_insert(&mut self, key: &[u8], hash: u64) -> (EntityNumber, bool) {
        match self.find(key, hash) {
            Some(number) => (number, false),
            None => (self.insert(key, hash), true),
        }
    }

    /// Makes an entity known that is not.
    pub fn insert(&mut self, key: &[u8], hash: u64) -> EntityNumber {
        let encoded = self.frozen.as_ref().map_or(0, |frozen| frozen.epoch);
        let record = Slice::EMPTY;
        let mut entity = Entity { hash, record, newest_us: i64::MIN, due_us: i64::MAX, changed: 0, encoded };
        self.scratch.clear();
        record::put_key(&mut self.scratch, key);
        self.scratch.resize(self.scratch.len() + self.windows.len(), 0);
        self.arena.set(&mut entity.record, &self.scratch);
        let number = match self.free.pop() {
            Some(number) => {
                // It may stand in `dirty` still.
                entity.changed = self.entities[number as usize].changed;
                self.entities[number as usize] = entity;
                number
            }
            None => {
                self.entities.push(entity);
                self.tails.resize(self.entities.len() * self.tails_each, Slice::EMPTY);
                self.entities.len() as u32 - 1
            }
        };
        self.index.insert_unique(hash, (hash, number), |(hash, _)| *hash);
        number
    }

    /// Forgets the entity: its key, its cells and its timer.
    pub fn drop_entity(&mut self, number: EntityNumber) {
        self.thaw(number);
        self.dropped.push(self.key(number).to_vec());
        for mut head in self.heads(number) {
            if let Head::Apart(slice) = &mut head {
                self.arena.remove(slice);
            }
        }
        let entity = &mut self.entities[number as usize];
        if let Ok(entry) = self.index.find_entry(entity.hash, |(_, other)| *other == number) {
            entry.remove();
        }
        self.arena.remove(&mut entity.record);
        entity.due_us = i64::MAX;
        entity.newest_us = i64::MIN;
        let tails = number as usize * self.tails_each..(number as usize + 1) * self.tails_each;
        self.tails[tails].iter_mut().for_each(|tail| self.arena.remove(tail));
        for column in (0..self.windows.len()).filter(|column| self.ordered[*column]) {
            if let Some(gone) = self.pending.remove(&(column, number)) {
                self.pending_bytes -= gone.bytes();
            }
        }
        self.free.push(number);
    }

    pub fn key(&self, number: EntityNumber) -> &[u8] {
        record::key(self.record(number)).0
    }

    #[inline]
    pub(super) fn record(&self, number: EntityNumber) -> &[u8] {
        self.arena.get(self.entities[number as usize].record)
    }

    #[inline]
    pub(super) fn string(&self, slice: Slice) -> &[u8] {
        self.arena.get(slice)
    }

    #[inline]
    pub(super) fn set_string(&mut self, slice: &mut Slice, bytes: &[u8]) {
        self.arena.set(slice, bytes);
    }

    fn heads(&self, number: EntityNumber) -> Vec<Head> {
        let record = self.record(number);
        let (_, mut at) = record::key(record);
        (0..self.windows.len()).map(|_| record::head(record, &mut at)).collect()
    }

    /// Sets all heads of an entity: those that are inline stand in `bytes`.
    #[inline]
    pub(super) fn set_heads(&mut self, number: EntityNumber, heads: &[Head], bytes: &[u8]) {
        let EntityTable { scratch, arena, entities, .. } = self;
        let slice = &mut entities[number as usize].record;
        scratch.clear();
        let record = arena.get(*slice);
        scratch.extend_from_slice(&record[..record::key(record).1]);
        for head in heads {
            match *head {
                Head::Inline { start, len } => record::put_inline(scratch, &bytes[start..start + len as usize]),
                Head::Apart(slice) => record::put_apart(scratch, slice),
            }
        }
        arena.set(slice, scratch);
    }

    /// The hash of the entity's key.
    #[inline]
    pub fn hash(&self, number: EntityNumber) -> u64 {
        self.entities[number as usize].hash
    }

    /// Event time of the entity's newest row.
    #[inline]
    pub fn newest_us(&self, number: EntityNumber) -> i64 {
        self.entities[number as usize].newest_us
    }

    /// Takes note of a row of the entity, behind `mark_dirty`.
    #[inline]
    pub fn touch(&mut self, number: EntityNumber, event_time_us: i64) {
        let newest = &mut self.entities[number as usize].newest_us;
        *newest = (*newest).max(event_time_us);
    }

    /// Marks the entity as changed since the last checkpoint, before it is changed.
    #[inline]
    pub fn mark_dirty(&mut self, number: EntityNumber) {
        if self.entities[number as usize].changed != self.epoch {
            self.thaw(number);
            self.entities[number as usize].changed = self.epoch;
            self.dirty.push(number);
        }
    }

    /// The head of a cell; empty before its first row.
    pub fn head(&self, column: usize, number: EntityNumber) -> &[u8] {
        let record = self.record(number);
        let (_, mut at) = record::key(record);
        (0..column).for_each(|_| _ = record::head(record, &mut at));
        match record::head(record, &mut at) {
            Head::Inline { start, len } => &record[start..start + len as usize],
            Head::Apart(slice) => self.arena.get(slice),
        }
    }

    #[inline]
    pub fn tail(&self, column: usize, number: EntityNumber) -> &[u8] {
        self.tail_place(column, number).map_or(&[], |place| self.arena.get(self.tails[place]))
    }

    /// Sets one head of an entity. Where many are set, [`Heads`](super::Heads) is the way.
    pub fn set_head(&mut self, column: usize, number: EntityNumber, bytes: &[u8]) {
        self.thaw(number);
        let mut heads = self.heads(number);
        let mut all = self.record(number).to_vec();
        let mut apart = match heads[column] {
            Head::Apart(slice) => slice,
            Head::Inline { .. } => Slice::EMPTY,
        };
        self.arena.set(&mut apart, if bytes.len() > INLINE_BYTES { bytes } else { &[] });
        heads[column] = match bytes.len() > INLINE_BYTES {
            true => Head::Apart(apart),
            false => Head::Inline { start: all.len(), len: bytes.len() as u32 },
        };
        all.extend_from_slice(bytes);
        self.set_heads(number, &heads, &all);
    }

    pub fn set_tail(&mut self, column: usize, number: EntityNumber, bytes: &[u8]) {
        self.thaw(number);
        if let Some(place) = self.tail_place(column, number) {
            self.arena.set(&mut self.tails[place], bytes);
        }
    }

    /// The waiting rows of an ordered feature; none where no row waits.
    pub fn pending(&self, column: usize, number: EntityNumber) -> Option<&Pending> {
        self.pending.get(&(column, number))
    }

    /// Changes the waiting rows of an ordered feature.
    pub fn edit_pending<T>(&mut self, column: usize, number: EntityNumber, edit: impl FnOnce(&mut Pending) -> T) -> T {
        self.thaw(number);
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
            self.timers.set(due_us, number);
        }
    }

    /// Entities whose timer is at or before `now_us`, at most `limit`; their timers are taken off.
    pub fn take_due(&mut self, now_us: i64, limit: usize) -> Vec<EntityNumber> {
        let mut due = Vec::new();
        while due.len() < limit
            && let Some((instant_us, number)) = self.timers.take(now_us)
        {
            let standing = &mut self.entities[number as usize].due_us;
            if *standing == instant_us {
                *standing = i64::MAX;
                due.push(number);
            }
        }
        due
    }

    /// Whether a timer may stand at or before `now_us`.
    pub fn is_due(&self, now_us: i64) -> bool {
        self.timers.rings(now_us)
    }

    /// All known entities, about as they lie in memory.
    pub fn numbers(&self) -> impl Iterator<Item = EntityNumber> {
        (0..self.entities.len() as u32).filter(|number| self.is_known(*number))
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

    /// Sets cells of an entity (feature, persisted form).
    pub fn restore<'a>(
        &mut self,
        number: EntityNumber,
        cells: impl Iterator<Item = (usize, &'a [u8])>,
    ) -> Result<(), DamagedCell> {
        let mut heads = Heads::default();
        heads.clear(self.windows.len());
        heads.load(self, number);
        let (mut head, mut tail) = (Vec::new(), Vec::new());
        for (column, persisted) in cells {
            head.clear();
            tail.clear();
            if self.ordered[column] {
                let restored = restore_ordered(&self.windows[column], persisted, &mut head, &mut tail)?;
                self.edit_pending(column, number, |pending| *pending = restored);
            } else {
                restore(&self.windows[column], persisted, &mut head, &mut tail)?;
            }
            heads.set(self, 0, column, &head);
            self.set_tail(column, number, &tail);
        }
        heads.store(self, 0, number);
        Ok(())
    }
}

/// For each feature which of an entity's tails is its own, and how many an entity has.
fn tail_places(windows: &[Window]) -> (Vec<Option<usize>>, usize) {
    let mut tails = 0;
    let mut place = |window: &Window| match window {
        Window::Unbounded => None,
        _ => {
            tails += 1;
            Some(tails - 1)
        }
    };
    (windows.iter().map(&mut place).collect(), tails)
}
