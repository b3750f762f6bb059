//! The online store of a lone process: values in columns by entity number, in memory, rebuilt from the checkpoint.

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
    features: BTreeMap<Digest, Vec<Column>>,
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

struct Column {
    kind: Kind,
    valid: Vec<bool>,
    fixed: Vec<u64>,
    slices: Vec<Slice>,
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
                    standing.features.retain(|id, _| table.features.iter().any(|feature| feature.fingerprint == *id));
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
                for feature in &table.features {
                    let column = |kind| Column { kind, valid: Vec::new(), fixed: Vec::new(), slices: Vec::new() };
                    let columns = || feature.outputs.iter().map(|field| column(field.kind)).collect();
                    standing.features.entry(feature.fingerprint).or_insert_with(columns);
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

impl OnlineStore for EmbeddedStore {
    fn write(&self, batch: &OnlineBatch<'_>) -> Result<(), OnlineError> {
        let mut guards: Vec<Option<RwLockWriteGuard<'_, _>>> = self.shards.all().map(|_| None).collect();
        for entity in batch.entities {
            let guard = guards[entity.group as usize].get_or_insert_with(|| self.write_lock(entity.group));
            let table = guard.get_mut(&batch.table).ok_or(OnlineError::UnknownTable(batch.table))?;
            table.place(entity);
        }
        let mut tables: Vec<Option<&mut Table>> =
            guards.iter_mut().map(|guard| guard.as_mut().and_then(|guard| guard.get_mut(&batch.table))).collect();
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
        for row in 0..keys.len() {
            let group = self.shards.of(keys.hash(row));
            guards[group as usize].get_or_insert_with(|| self.read_lock(group));
        }
        let mut places = Vec::with_capacity(keys.len());
        for row in 0..keys.len() {
            let group = self.shards.of(keys.hash(row));
            let tables = guards[group as usize].as_ref().and_then(|guard| guard.get(table));
            let table = tables.ok_or(OnlineError::UnknownTable(*table))?;
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
        let cell = |place: &(&'_ Table, Option<u32>)| -> Option<(u64, Slice)> {
            let column = place.0.features.get(fingerprint)?.get(output)?;
            let number = place.1? as usize;
            let valid = *column.valid.get(number)?;
            let slice = column.slices.get(number).copied().unwrap_or_default();
            valid.then(|| (column.fixed.get(number).copied().unwrap_or(0), slice))
        };
        let fixed = || places.iter().map(|place| cell(place).map(|(value, _)| value));
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
                value::column(kind, places.iter().map(|place| cell(place).map(|(_, slice)| place.0.arena.get(slice))))
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

fn write_feature(
    tables: &mut [Option<&mut Table>],
    entities: &[OnlineEntity<'_>],
    write: &FeatureWrite<'_>,
) -> Result<(), OnlineError> {
    let unknown = || OnlineError::UnknownFeature(write.fingerprint);
    for (output, array) in write.outputs.iter().enumerate() {
        let kind = Kind::of(array.data_type()).ok_or_else(unknown)?;
        let bits: Box<dyn Fn(usize) -> u64 + '_> = match kind {
            Kind::Boolean => {
                let array = array.as_boolean();
                Box::new(|row| u64::from(array.value(row)))
            }
            Kind::Int64 => {
                let values = array.as_primitive::<Int64Type>().values();
                Box::new(|row| values[row] as u64)
            }
            Kind::Float64 => {
                let values = array.as_primitive::<Float64Type>().values();
                Box::new(|row| values[row].to_bits())
            }
            Kind::Timestamp => {
                let values = array.as_primitive::<TimestampMicrosecondType>().values();
                Box::new(|row| values[row] as u64)
            }
            _ => Box::new(|_| 0),
        };
        let mut columns: Vec<Option<(&mut Column, &mut Arena)>> = Vec::with_capacity(tables.len());
        for table in tables.iter_mut() {
            columns.push(match table {
                None => None,
                Some(table) => {
                    let column = table.features.get_mut(&write.fingerprint).and_then(|all| all.get_mut(output));
                    Some((column.ok_or_else(unknown)?, &mut table.arena))
                }
            });
        }
        let mut text = Vec::new();
        for (position, new) in write.rows {
            let entity = &entities[*position as usize];
            let Some((column, arena)) = &mut columns[entity.group as usize] else { continue };
            let number = entity.number as usize;
            let row = match new {
                NewValue::Row(row, _) if array.is_valid(*row as usize) => Some(*row as usize),
                _ => None,
            };
            column.reserve(number);
            column.valid[number] = row.is_some();
            if value::is_fixed(kind) {
                column.fixed[number] = row.map_or(0, &bits);
            } else {
                text.clear();
                if let Some(row) = row {
                    value::put(kind, array, row, &mut text);
                }
                arena.set(&mut column.slices[number], &text);
            }
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
                for column in table.features.get_mut(&write.fingerprint).ok_or_else(unknown)? {
                    column.reserve(entity.number as usize);
                    column.valid[entity.number as usize] = false;
                }
                table.reasons.insert(place, (true, (*reason).into()));
            }
        }
    }
    Ok(())
}

impl Column {
    fn reserve(&mut self, number: usize) {
        if self.valid.len() <= number {
            self.valid.resize(number + 1, false);
            if value::is_fixed(self.kind) {
                self.fixed.resize(number + 1, 0);
            } else {
                self.slices.resize(number + 1, Slice::default());
            }
        }
    }
}

impl Table {
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
        for (fingerprint, columns) in &mut self.features {
            for column in columns {
                if let Some(slice) = column.slices.get_mut(number) {
                    self.arena.remove(slice);
                }
                if let Some(valid) = column.valid.get_mut(number) {
                    *valid = false;
                }
            }
            self.reasons.remove(&(*fingerprint, entity.number));
        }
    }
}
