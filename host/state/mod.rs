//! State in memory, and the protocol by which it survives.

mod checkpoint;
mod codec;
mod frozen;
mod heads;
mod record;
mod table;
mod timers;

pub use checkpoint::{Barrier, CheckpointError, Checkpoints, FileRange, GroupPart, Manifest, SourceClock, TableRecord};
pub use codec::{ChangesWriter, CodecError, EntityRecord, GroupChanges, TableChanges};
pub use heads::Heads;
pub use table::{EntityNumber, EntityTable};
