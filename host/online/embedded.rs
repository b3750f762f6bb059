//! The online store of a lone process: a row of values for each entity, in memory, rebuilt from the checkpoint.

use super::value;
use super::{FeatureWrite, NewValue, OnlineBatch, OnlineEntity, OnlineError, OnlineFeature, OnlineRows, OnlineStore};
use crate::arena::{Arena, Slice};
use crate::define::Digest;
use crate::route::{Groups, Keys};
use crate::rows::Layout;
use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Float64Array, Int64Array, TimestampMicrosecondArray};
use arrow::datatypes::{Float64Type, Int64Type, TimestampMicrosecondType};
use hashbrown::HashTable;
use onefold_fold::Kind;
use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// One lock a group, taken once a batch by the group's only writer, so lookups never wait longer than a batch's write.
pub struct EmbeddedStore {
    shards: Groups,
    groups: Vec<RwLock<BTreeMap<Digest, Table>>>,
}

#[derive(Default)]
struct Table {
    /// Hash and number: a probe of another key's entry stays within the index.
    index: HashTable<(u64, u32)>,
    /// By number; an empty key is nobody's.
    entities: Vec<Entity>,
    clock_us: i64,
    arena: Arena,
    features: BTreeMap<Digest, Vec<Output>>,
    /// By number, `width` words each: first a bit for each output, whether it has a value, then the values. What is
    /// written at once stands together. A value of no fixed size is a `Slice` of the arena.
    rows: Vec<u64>,
    width: usize,
    /// Why a value is missing or null: (feature, number) -> (failed, reason).
    reasons: BTreeMap<(Digest, u32), (bool, Box<str>)>,
}

/// What is read and written together stands together: an entity is one line of the cache, not four.
#[derive(Clone, Copy)]
struct Entity {
    hash: u64,
    key: Slice,
    newest_us: i64,
    valid_until_us: i64,
}

const NOBODY: Entity = Entity { hash: 0, key: Slice::EMPTY, newest_us: i64::MIN, valid_until_us: i64::MAX };

/// One output of a feature.
#[derive(Clone, Copy)]
struct Output {
    kind: Kind,
    /// Which of the row's outputs it is.
    place: usize,
    /// The word of the row that holds it.
    word: usize,
}

impl EmbeddedStore {
    /// An empty store of so many groups.
    pub fn new(groups: Groups) -> EmbeddedStore {
        EmbeddedStore { shards: groups, groups: groups.all().map(|_| RwLock::default()).collect() }
    }

    /// Lets go of what is not in the layout.
    pub fn retire(&self, layout: &Layout) {
        for group in self.shards.all() {
            let mut tables = self.write_lock(group);
            tables.retain(|id, _| layout.tables.iter().any(|table| table.id == *id));
            for table in &layout.tables {
                if let Some(standing) = tables.get_mut(&table.id) {
                    let kept = |id: &Digest| table.features.iter().any(|feature| feature.fingerprint == *id);
                    if !standing.features.keys().all(kept) {
                        let kinds = standing.kinds().filter(|(id, _)| kept(id)).collect();
                        standing.lay_out(kinds);
                    }
                }
            }
        }
    }

    /// Makes room for the layout's tables and features, beside those that are there.
    pub fn prepare(&self, layout: &Layout) {
        for group in self.shards.all() {
            let mut tables = self.write_lock(group);
            for table in &layout.tables {
                let standing =
                    tables.entry(table.id).or_insert_with(|| Table { clock_us: i64::MIN, ..Table::default() });
                let mut kinds: BTreeMap<Digest, Vec<Kind>> = standing.kinds().collect();
                let before = kinds.len();
                for feature in &table.features {
                    let outputs = || feature.outputs.iter().map(|field| field.kind).collect();
                    kinds.entry(feature.fingerprint).or_insert_with(outputs);
                }
                if kinds.len() > before {
                    standing.lay_out(kinds);
                }
            }
        }
    }

    fn read_lock(&self, group: u32) -> RwLockReadGuard<'_, BTreeMap<Digest, Table>> {
        self.groups[group as usize].read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_lock(&self, group: u32) -> RwLockWriteGuard<'_, BTreeMap<Digest, Table>> {
        self.groups[group as usize].write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Which groups these are, in the one order in which every reader and writer locks them: in two orders, two would wait
/// for each other for ever.
fn ascending(shards: Groups, groups: impl Iterator<Item = u32>) -> impl Iterator<Item = u32> {
    let mut wanted: Vec<bool> = shards.all().map(|_| false).collect();
    groups.for_each(|group| wanted[group as usize] = true);
    shards.all().zip(wanted).filter_map(|(group, wanted)| wanted.then_some(group))
}

impl OnlineStore for EmbeddedStore {
    fn write(&self, batch: &OnlineBatch<'_>) -> Result<(), OnlineError> {
        let mut guards: Vec<Option<RwLockWriteGuard<'_, _>>> = self.shards.all().map(|_| None).collect();
        for group in ascending(self.shards, batch.entities.iter().map(|entity| entity.group)) {
            guards[group as usize] = Some(self.write_lock(group));
        }
        let mut tables: Vec<Option<&mut Table>> = Vec::with_capacity(guards.len());
        for guard in &mut guards {
            tables.push(match guard {
                None => None,
                Some(guard) => Some(guard.get_mut(&batch.table).ok_or(OnlineError::UnknownTable(batch.table))?),
            });
        }
        bring_near(&tables, batch.entities);
        for entity in batch.entities {
            if let Some(table) = &mut tables[entity.group as usize] {
                table.place(entity);
            }
        }
        for feature in batch.features {
            write_feature(&mut tables, batch.entities, feature)?;
        }
        Ok(())
    }

    fn remove(&self, table: &Digest, entities: &[OnlineEntity<'_>]) -> Result<(), OnlineError> {
        for entity in entities {
            let mut group = self.write_lock(entity.group);
            group.get_mut(table).ok_or(OnlineError::UnknownTable(*table))?.remove(entity);
        }
        Ok(())
    }

    fn set_clock(&self, table: &Digest, groups: &[u32], clock_us: i64) -> Result<(), OnlineError> {
        for group in groups {
            let mut group = self.write_lock(*group);
            let table = group.get_mut(table).ok_or(OnlineError::UnknownTable(*table))?;
            table.clock_us = table.clock_us.max(clock_us);
        }
        Ok(())
    }

    fn read(&self, table: &Digest, fingerprints: &[Digest], keys: &Keys) -> Result<OnlineRows, OnlineError> {
        let mut guards: Vec<Option<RwLockReadGuard<'_, _>>> = self.shards.all().map(|_| None).collect();
        for group in ascending(self.shards, (0..keys.len()).map(|row| self.shards.of(keys.hash(row)))) {
            guards[group as usize] = Some(self.read_lock(group));
        }
        let tables: Vec<Option<&Table>> =
            guards.iter().map(|guard| guard.as_ref().and_then(|guard| guard.get(table))).collect();
        let mut places = Vec::with_capacity(keys.len());
        for row in 0..keys.len() {
            let group = self.shards.of(keys.hash(row));
            let table = tables[group as usize].ok_or(OnlineError::UnknownTable(*table))?;
            let number = if keys.is_null(row) { None } else { table.find(keys.key(row), keys.hash(row)) };
            places.push((table, number));
        }
        let at = |of: fn(&Entity) -> i64| {
            let of = |(table, number): &(&Table, Option<u32>)| {
                number.map_or(i64::MIN, |number| of(&table.entities[number as usize]))
            };
            places.iter().map(of).collect()
        };
        let mut rows = OnlineRows {
            found: places.iter().map(|(_, number)| number.is_some()).collect(),
            newest_us: at(|entity| entity.newest_us),
            valid_until_us: at(|entity| entity.valid_until_us),
            clock_us: places.iter().map(|(table, _)| table.clock_us).collect(),
            features: Vec::with_capacity(fingerprints.len()),
        };
        for fingerprint in fingerprints {
            rows.features.push(read_feature(fingerprint, &places)?);
        }
        Ok(rows)
    }
}

fn read_feature(fingerprint: &Digest, places: &[(&Table, Option<u32>)]) -> Result<OnlineFeature, OnlineError> {
    let outputs = match places.first() {
        None => 0,
        Some((table, _)) => table.features.get(fingerprint).ok_or(OnlineError::UnknownFeature(*fingerprint))?.len(),
    };
    let mut feature = OnlineFeature { outputs: Vec::new(), reasons: Vec::new() };
    for output in 0..outputs {
        let cell = |place: &(&'_ Table, Option<u32>)| -> Option<u64> {
            let output = place.0.features.get(fingerprint)?.get(output)?;
            place.0.value(place.1?, output)
        };
        let fixed = || places.iter().map(cell);
        let kind = places.first().and_then(|(table, _)| Some(table.features.get(fingerprint)?.get(output)?.kind));
        let array: ArrayRef = match kind {
            None => continue,
            Some(Kind::Boolean) => Arc::new(fixed().map(|bits| bits.map(|bits| bits != 0)).collect::<BooleanArray>()),
            Some(Kind::Int64) => Arc::new(fixed().map(|bits| bits.map(|bits| bits as i64)).collect::<Int64Array>()),
            Some(Kind::Float64) => Arc::new(fixed().map(|bits| bits.map(f64::from_bits)).collect::<Float64Array>()),
            Some(Kind::Timestamp) => {
                let times = fixed().map(|bits| bits.map(|bits| bits as i64));
                Arc::new(times.collect::<TimestampMicrosecondArray>().with_timezone("UTC"))
            }
            Some(kind) => {
                let slice = |place| cell(place).map(|word| Slice::from_bytes(word.to_le_bytes()));
                value::column(kind, places.iter().map(|place| slice(place).map(|slice| place.0.arena.get(slice))))
            }
        };
        feature.outputs.push(array);
    }
    for (row, (table, number)) in places.iter().enumerate() {
        if let Some(number) = number
            && let Some((failed, reason)) = table.reasons.get(&(*fingerprint, *number))
        {
            feature.reasons.push((row, *failed, reason.to_string()));
        }
    }
    Ok(feature)
}

/// Reads something of where each entity stands, in a loop that does nothing else: the machine then waits for many of
/// them at once.
fn bring_near(tables: &[Option<&mut Table>], entities: &[OnlineEntity<'_>]) {
    let peek = |entity: &OnlineEntity<'_>| -> Option<u64> {
        let table = tables[entity.group as usize].as_deref()?;
        let number = entity.number as usize;
        match table.entities.get(number).filter(|standing| standing.key != Slice::EMPTY) {
            Some(standing) => Some(standing.hash | table.rows.get(number * table.width)?),
            // Where it will stand in the index.
            None => table.index.find(entity.hash, |(hash, _)| *hash == entity.hash).map(|(hash, _)| *hash),
        }
    };
    std::hint::black_box(entities.iter().filter_map(peek).fold(0, |seen, word| seen | word));
}

fn write_feature(
    tables: &mut [Option<&mut Table>],
    entities: &[OnlineEntity<'_>],
    write: &FeatureWrite<'_>,
) -> Result<(), OnlineError> {
    let unknown = || OnlineError::UnknownFeature(write.fingerprint);
    for (output, array) in write.outputs.iter().enumerate() {
        let kind = Kind::of(array.data_type()).ok_or_else(unknown)?;
        // By table; all have it at the same place, unless one was made at another time.
        let mut outputs = Vec::with_capacity(tables.len());
        for table in tables.iter() {
            outputs.push(match table {
                None => None,
                Some(table) => {
                    let output = table.features.get(&write.fingerprint).and_then(|all| all.get(output));
                    Some(*output.ok_or_else(unknown)?)
                }
            });
        }
        let nulls = array.nulls();
        let row_of = |new: &NewValue<'_>| match new {
            NewValue::Row(row, _) if nulls.is_none_or(|nulls| nulls.is_valid(*row as usize)) => Some(*row as usize),
            _ => None,
        };
        let words: &[u64] = match kind {
            Kind::Int64 => array.as_primitive::<Int64Type>().values().inner().typed_data(),
            Kind::Float64 => array.as_primitive::<Float64Type>().values().inner().typed_data(),
            Kind::Timestamp => array.as_primitive::<TimestampMicrosecondType>().values().inner().typed_data(),
            _ => &[],
        };
        let booleans = array.as_boolean_opt();
        let mut text = Vec::new();
        for (position, new) in write.rows {
            let entity = &entities[*position as usize];
            let group = entity.group as usize;
            let (Some(table), Some(output)) = (&mut tables[group], &outputs[group]) else { continue };
            let row = row_of(new);
            let start = entity.number as usize * table.width;
            let own = &mut table.rows[start..start + table.width];
            let word = if value::is_fixed(kind) {
                row.map_or(0, |row| match booleans {
                    Some(booleans) => u64::from(booleans.value(row)),
                    None => words[row],
                })
            } else {
                text.clear();
                if let Some(row) = row {
                    value::put(kind, array, row, &mut text);
                }
                let mut slice = Slice::from_bytes(own[output.word].to_le_bytes());
                table.arena.set(&mut slice, &text);
                u64::from_le_bytes(slice.to_bytes())
            };
            own[output.word] = word;
            set_valid(own, output.place, row.is_some());
        }
    }
    let plain = write.rows.iter().all(|(_, new)| matches!(new, NewValue::Row(_, None)));
    if plain && tables.iter().flatten().all(|table| table.reasons.is_empty()) {
        return Ok(());
    }
    for (position, new) in write.rows {
        let entity = &entities[*position as usize];
        let Some(table) = &mut tables[entity.group as usize] else { continue };
        let place = (write.fingerprint, entity.number);
        match new {
            NewValue::Row(_, None) => {
                table.reasons.remove(&place);
            }
            NewValue::Row(_, Some(reason)) => {
                table.reasons.insert(place, (false, (*reason).into()));
            }
            NewValue::Failed(reason) => {
                let start = entity.number as usize * table.width;
                for output in table.features.get(&write.fingerprint).ok_or_else(unknown)? {
                    set_valid(&mut table.rows[start..start + table.width], output.place, false);
                }
                table.reasons.insert(place, (true, (*reason).into()));
            }
        }
    }
    Ok(())
}

fn set_valid(row: &mut [u64], place: usize, valid: bool) {
    let (word, bit) = (place / 64, 1 << (place % 64));
    row[word] = if valid { row[word] | bit } else { row[word] & !bit };
}

impl Table {
    fn kinds(&self) -> impl Iterator<Item = (Digest, Vec<Kind>)> + '_ {
        self.features.iter().map(|(id, outputs)| (*id, outputs.iter().map(|output| output.kind).collect()))
    }

    /// Makes rows for these features; values of those that stay are kept.
    fn lay_out(&mut self, kinds: BTreeMap<Digest, Vec<Kind>>) {
        let bit_words = kinds.values().map(Vec::len).sum::<usize>().div_ceil(64);
        let mut place = 0;
        let mut output = |kind: Kind| {
            place += 1;
            Output { kind, place: place - 1, word: bit_words + place - 1 }
        };
        let features: BTreeMap<Digest, Vec<Output>> =
            kinds.into_iter().map(|(id, kinds)| (id, kinds.into_iter().map(&mut output).collect())).collect();
        let width = bit_words + place;
        let mut rows = vec![0; self.entities.len() * width];
        for number in 0..self.entities.len() {
            let own = &mut rows[number * width..(number + 1) * width];
            for (id, outputs) in &self.features {
                for (at, old) in outputs.iter().enumerate() {
                    let word = self.rows[number * self.width + old.word];
                    match features.get(id).and_then(|outputs| outputs.get(at)) {
                        Some(new) => {
                            own[new.word] = word;
                            set_valid(own, new.place, self.value(number as u32, old).is_some());
                        }
                        None if value::is_fixed(old.kind) => {}
                        None => self.arena.remove(&mut Slice::from_bytes(word.to_le_bytes())),
                    }
                }
            }
        }
        self.reasons.retain(|(id, _), _| features.contains_key(id));
        (self.features, self.rows, self.width) = (features, rows, width);
    }

    /// The word of an output, if it has a value.
    #[inline]
    fn value(&self, number: u32, output: &Output) -> Option<u64> {
        let row = &self.rows[number as usize * self.width..];
        (row[output.place / 64] >> (output.place % 64) & 1 == 1).then(|| row[output.word])
    }

    fn find(&self, key: &[u8], hash: u64) -> Option<u32> {
        let same =
            |(other, number): &(u64, u32)| *other == hash && self.arena.get(self.entities[*number as usize].key) == key;
        self.index.find(hash, same).map(|(_, number)| *number)
    }

    /// Writes what is not a feature, and makes the entity known if it was not.
    fn place(&mut self, entity: &OnlineEntity<'_>) {
        let number = entity.number as usize;
        if self.entities.len() <= number {
            self.entities.resize(number + 1, NOBODY);
            self.rows.resize((number + 1) * self.width, 0);
        }
        let standing = &mut self.entities[number];
        if standing.key == Slice::EMPTY {
            standing.hash = entity.hash;
            self.arena.set(&mut standing.key, entity.key);
            self.index.insert_unique(entity.hash, (entity.hash, entity.number), |(hash, _)| *hash);
        }
        standing.newest_us = entity.newest_us;
        standing.valid_until_us = entity.valid_until_us;
    }

    fn remove(&mut self, entity: &OnlineEntity<'_>) {
        let number = entity.number as usize;
        let Some(standing) = self.entities.get_mut(number).filter(|standing| standing.key != Slice::EMPTY) else {
            return;
        };
        if let Ok(found) = self.index.find_entry(standing.hash, |(_, other)| *other == entity.number) {
            found.remove();
        }
        self.arena.remove(&mut standing.key);
        let row = &mut self.rows[number * self.width..(number + 1) * self.width];
        for (fingerprint, outputs) in &self.features {
            for output in outputs.iter().filter(|output| !value::is_fixed(output.kind)) {
                self.arena.remove(&mut Slice::from_bytes(row[output.word].to_le_bytes()));
            }
            self.reasons.remove(&(*fingerprint, entity.number));
        }
        row.fill(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;
    use std::time::Duration;

    /// Groups were locked in the order of a batch's keys: a lookup and a write waited for each other for ever.
    #[test]
    fn lookups_and_writes_of_many_groups_end() {
        let groups = Groups::new(16).unwrap();
        let store = Arc::new(EmbeddedStore::new(groups));
        for group in groups.all() {
            store.write_lock(group).insert(Digest([0; 32]), Table::default());
        }
        let names: Vec<[u8; 8]> = (0..64u64).map(u64::to_le_bytes).collect();
        let (done, ended) = channel();
        for reader in [false, true] {
            let (store, names, done) = (store.clone(), names.clone(), done.clone());
            std::thread::spawn(move || {
                for turn in 0..20_000 {
                    // Each turn in another order.
                    let order = (0..names.len()).map(|at| names[(at * 5 + turn * if reader { 3 } else { 7 }) % 64]);
                    let order: Vec<[u8; 8]> = order.collect();
                    let keys = Keys::from_bytes(order.iter().map(|name| &name[..]));
                    if reader {
                        store.read(&Digest([0; 32]), &[], &keys).unwrap();
                        continue;
                    }
                    let entity = |row: usize| OnlineEntity {
                        group: groups.of(keys.hash(row)),
                        number: 0,
                        hash: keys.hash(row),
                        key: keys.key(row),
                        newest_us: 0,
                        valid_until_us: 0,
                    };
                    let entities: Vec<OnlineEntity<'_>> = (0..keys.len()).map(entity).collect();
                    let batch = OnlineBatch { table: Digest([0; 32]), entities: &entities, features: &[] };
                    store.write(&batch).unwrap();
                }
                done.send(()).unwrap();
            });
        }
        for _ in 0..2 {
            ended.recv_timeout(Duration::from_secs(60)).expect("the two wait for each other");
        }
    }
}
