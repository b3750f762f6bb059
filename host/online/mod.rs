//! The online store: the newest value of every feature of every entity, for lookups.

mod embedded;
mod value;

pub use embedded::EmbeddedStore;

use crate::define::Digest;
use crate::route::Keys;
use arrow::array::ArrayRef;

/// Where newest values go and are looked up. A store holds, for each table and entity, the values of the table's
/// features with the entity's newest event time and the instant until which the values hold.
///
/// Contract: a write is seen whole or not at all by a reader of one entity; writes of one entity come from one
/// thread, in order; a read after a write has returned sees it.
pub trait OnlineStore: Send + Sync {
    /// Writes the rows of some entities of one table.
    fn write(&self, batch: &OnlineBatch<'_>) -> Result<(), OnlineError>;

    /// Forgets entities (group, number, key).
    fn remove(&self, table: &Digest, entities: &[OnlineEntity<'_>]) -> Result<(), OnlineError>;

    /// The clocks of groups, which say whether a value is stale.
    fn set_clock(&self, table: &Digest, groups: &[u32], clock_us: i64) -> Result<(), OnlineError>;

    /// Looks entities up; one row for each key, in order.
    fn read(&self, table: &Digest, fingerprints: &[Digest], keys: &Keys) -> Result<OnlineRows, OnlineError>;
}

/// A store that forgets: for folding of which only the state, or what is refused, is wanted.
pub struct Nowhere;

impl OnlineStore for Nowhere {
    fn write(&self, _: &OnlineBatch<'_>) -> Result<(), OnlineError> {
        Ok(())
    }

    fn remove(&self, _: &Digest, _: &[OnlineEntity<'_>]) -> Result<(), OnlineError> {
        Ok(())
    }

    fn set_clock(&self, _: &Digest, _: &[u32], _: i64) -> Result<(), OnlineError> {
        Ok(())
    }

    fn read(&self, table: &Digest, _: &[Digest], _: &Keys) -> Result<OnlineRows, OnlineError> {
        Err(OnlineError::UnknownTable(*table))
    }
}

/// A store that cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum OnlineError {
    #[error("the online store has no table {0}: the definitions that name it have not been applied here")]
    UnknownTable(Digest),
    #[error("the online store has no feature {0}: the definitions that name it have not been applied here")]
    UnknownFeature(Digest),
}

/// An entity as the writer knows it. `number` is dense in (table, group): a store in memory may use it as a place.
#[derive(Clone, Copy, Debug)]
pub struct OnlineEntity<'a> {
    pub group: u32,
    pub number: u32,
    pub hash: u64,
    pub key: &'a [u8],
    /// Event time of its newest row.
    pub newest_us: i64,
    /// The instant at which a value changes by time alone; `i64::MAX`: none.
    pub valid_until_us: i64,
}

pub struct OnlineBatch<'a> {
    pub table: Digest,
    pub entities: &'a [OnlineEntity<'a>],
    pub features: &'a [FeatureWrite<'a>],
}

/// New values of one feature for some of the batch's entities.
pub struct FeatureWrite<'a> {
    pub fingerprint: Digest,
    /// One array an output.
    pub outputs: &'a [ArrayRef],
    /// (entity of the batch, what it gets); entities that are not here keep their value.
    pub rows: &'a [(u32, NewValue<'a>)],
}

#[derive(Clone, Copy, Debug)]
pub enum NewValue<'a> {
    /// Row of `outputs`, and why it is null, where the module said so.
    Row(u32, Option<&'a str>),
    /// There is no value, for this reason.
    Failed(&'a str),
}

/// Looked-up rows.
#[derive(Debug)]
pub struct OnlineRows {
    pub found: Vec<bool>,
    pub newest_us: Vec<i64>,
    pub valid_until_us: Vec<i64>,
    /// The clock of each row's group.
    pub clock_us: Vec<i64>,
    /// In the order asked.
    pub features: Vec<OnlineFeature>,
}

#[derive(Debug)]
pub struct OnlineFeature {
    /// One array an output, one row a key.
    pub outputs: Vec<ArrayRef>,
    /// Rows without a value because something failed, or null for a reason: (row, failed, reason).
    pub reasons: Vec<(usize, bool, String)>,
}
