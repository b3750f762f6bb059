//! A group's changes as bytes: tables, dropped keys, and for each changed entity its newest row and persisted cells.
//!
//! Layout, little-endian: magic `OFG1`, then tables until the end; last four bytes: CRC32 of all before. A table: id
//! (32 bytes), number of features (u32) and their fingerprints (32 bytes each), number of dropped keys (u32), each a
//! u32 length and bytes, number of entities (u32), each a key, i64 newest row, and for each feature a u32 length and
//! the persisted cell.

use super::table::{EntityNumber, EntityTable};
use crate::define::Digest;
use onefold_fold::DamagedCell;

const MAGIC: &[u8; 4] = b"OFG1";

/// Bytes that are not what was written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct CodecError(&'static str);

/// What one range of a delta says.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct GroupChanges {
    pub tables: Vec<TableChanges>,
}

#[derive(Debug, PartialEq, Eq)]
pub struct TableChanges {
    pub id: Digest,
    pub fingerprints: Vec<Digest>,
    pub dropped: Vec<Vec<u8>>,
    pub entities: Vec<EntityRecord>,
}

#[derive(Debug, PartialEq, Eq)]
pub struct EntityRecord {
    pub key: Vec<u8>,
    pub newest_us: i64,
    /// One a fingerprint.
    pub cells: Vec<Vec<u8>>,
}

/// Writes a group's changes.
pub struct ChangesWriter {
    bytes: Vec<u8>,
    wrote: bool,
}

impl Default for ChangesWriter {
    fn default() -> ChangesWriter {
        ChangesWriter { bytes: MAGIC.to_vec(), wrote: false }
    }
}

impl ChangesWriter {
    /// Adds what was frozen of a table and is encoded by now.
    pub fn table(&mut self, id: Digest, fingerprints: &[Digest], table: &mut EntityTable) -> Result<(), DamagedCell> {
        let Some(frozen) = table.take_frozen()? else { return Ok(()) };
        let keys: Vec<&[u8]> = frozen.dropped.iter().map(Vec::as_slice).collect();
        if frozen.is_full() || !keys.is_empty() || frozen.count > 0 {
            self.header(id, fingerprints, &keys, frozen.count);
            self.bytes.extend_from_slice(&frozen.bytes);
        }
        Ok(())
    }

    /// Adds a table of entities that are held elsewhere.
    pub fn entities(&mut self, id: Digest, fingerprints: &[Digest], entities: &[EntityRecord]) {
        self.header(id, fingerprints, &[], entities.len());
        for entity in entities {
            self.block(&entity.key);
            self.bytes.extend_from_slice(&entity.newest_us.to_le_bytes());
            entity.cells.iter().for_each(|cell| self.block(cell));
        }
    }

    fn header(&mut self, id: Digest, fingerprints: &[Digest], dropped: &[&[u8]], entities: usize) {
        self.wrote = true;
        self.bytes.extend_from_slice(&id.0);
        self.number(fingerprints.len());
        fingerprints.iter().for_each(|fingerprint| self.bytes.extend_from_slice(&fingerprint.0));
        self.number(dropped.len());
        dropped.iter().for_each(|key| self.block(key));
        self.number(entities);
    }

    fn number(&mut self, number: usize) {
        self.bytes.extend_from_slice(&(number as u32).to_le_bytes());
    }

    fn block(&mut self, bytes: &[u8]) {
        self.number(bytes.len());
        self.bytes.extend_from_slice(bytes);
    }

    /// The bytes with their checksum; empty when nothing was added.
    pub fn finish(mut self) -> Vec<u8> {
        if !self.wrote {
            return Vec::new();
        }
        let checksum = crc32fast::hash(&self.bytes);
        self.bytes.extend_from_slice(&checksum.to_le_bytes());
        self.bytes
    }
}

/// Appends an entity of a table, with the persisted form of its cells.
pub(super) fn put_entity(table: &EntityTable, number: EntityNumber, out: &mut Vec<u8>) -> Result<(), DamagedCell> {
    let key = table.key(number);
    out.extend_from_slice(&(key.len() as u32).to_le_bytes());
    out.extend_from_slice(key);
    out.extend_from_slice(&table.newest_us(number).to_le_bytes());
    for column in 0..table.windows.len() {
        let start = out.len();
        out.extend_from_slice(&[0; 4]);
        table.persist(column, number, out)?;
        let length = (out.len() - start - 4) as u32;
        out[start..start + 4].copy_from_slice(&length.to_le_bytes());
    }
    Ok(())
}

impl GroupChanges {
    /// Reads what [`ChangesWriter`] wrote; every bit is checked.
    pub fn read(bytes: &[u8]) -> Result<GroupChanges, CodecError> {
        let (body, checksum) = bytes.split_last_chunk::<4>().ok_or(CodecError("too short"))?;
        if crc32fast::hash(body) != u32::from_le_bytes(*checksum) {
            return Err(CodecError("the checksum does not fit the bytes"));
        }
        let mut rest = body.strip_prefix(MAGIC).ok_or(CodecError("it is no state file of this version"))?;
        let mut changes = GroupChanges::default();
        while !rest.is_empty() {
            let id = digest(&mut rest)?;
            let features = number(&mut rest)?;
            let fingerprints = (0..features).map(|_| digest(&mut rest)).collect::<Result<Vec<_>, _>>()?;
            let dropped = number(&mut rest)?;
            let dropped = (0..dropped).map(|_| block(&mut rest)).collect::<Result<Vec<_>, _>>()?;
            let count = number(&mut rest)?;
            let mut entities = Vec::new();
            for _ in 0..count {
                let key = block(&mut rest)?;
                let newest_us = i64::from_le_bytes(chunk(&mut rest)?);
                let cells = (0..features).map(|_| block(&mut rest)).collect::<Result<Vec<_>, _>>()?;
                entities.push(EntityRecord { key, newest_us, cells });
            }
            changes.tables.push(TableChanges { id, fingerprints, dropped, entities });
        }
        Ok(changes)
    }
}

fn chunk<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], CodecError> {
    let (bytes, after) = rest.split_first_chunk::<N>().ok_or(CodecError("it ends in the middle"))?;
    *rest = after;
    Ok(*bytes)
}

fn digest(rest: &mut &[u8]) -> Result<Digest, CodecError> {
    chunk(rest).map(Digest)
}

fn number(rest: &mut &[u8]) -> Result<u32, CodecError> {
    chunk(rest).map(u32::from_le_bytes)
}

fn block(rest: &mut &[u8]) -> Result<Vec<u8>, CodecError> {
    let length = number(rest)? as usize;
    let (bytes, after) = rest.split_at_checked(length).ok_or(CodecError("it ends in the middle"))?;
    *rest = after;
    Ok(bytes.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mangle::outside;
    use proptest::prelude::*;

    #[test]
    fn every_changed_bit_is_noticed() {
        let mut writer = ChangesWriter::default();
        let entity = EntityRecord { key: b"p1".to_vec(), newest_us: 7, cells: vec![b"cell".to_vec(), Vec::new()] };
        writer.entities(Digest([1; 32]), &[Digest([2; 32]), Digest([3; 32])], &[entity]);
        let bytes = writer.finish();
        let read = GroupChanges::read(&bytes).unwrap();
        assert_eq!(read.tables[0].entities[0].cells, [b"cell".to_vec(), Vec::new()]);
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(GroupChanges::read(&damaged).is_err(), "bit {bit}");
        }
        for length in 0..bytes.len() {
            assert!(GroupChanges::read(&bytes[..length]).is_err(), "length {length}");
        }
    }

    fn valid() -> Vec<u8> {
        let mut writer = ChangesWriter::default();
        let entity = |key: &[u8]| EntityRecord { key: key.to_vec(), newest_us: 7, cells: vec![vec![1, 2], Vec::new()] };
        writer.header(Digest([9; 32]), &[], &[b"gone"], 0);
        writer.entities(Digest([1; 32]), &[Digest([2; 32]), Digest([3; 32])], &[entity(b"a"), entity(b"")]);
        writer.finish()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4096))]

        /// Behind a right checksum too: it is written by whoever writes the bytes.
        #[test]
        fn outside_bytes_are_changes_or_an_error(bytes in outside(&valid()[..valid().len() - 4])) {
            let mut bytes = bytes;
            let sum = crc32fast::hash(&bytes);
            bytes.extend_from_slice(&sum.to_le_bytes());
            if let Ok(read) = GroupChanges::read(&bytes) {
                for table in &read.tables {
                    prop_assert!(table.entities.iter().all(|entity| entity.cells.len() == table.fingerprints.len()));
                }
            }
        }
    }
}
