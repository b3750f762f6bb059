//! The ways through a suite, and how they are called.

use crate::route::Groups;
use std::fmt;

/// One path with one choice of what must not matter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Pushes, checkpoints, lookups.
    Stream(StreamWay),
    /// Snapshots, and training sets whose labels are the lookups.
    Batch(BatchWay),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamWay {
    pub order: Order,
    /// Events a push.
    pub batch: usize,
    /// That fold.
    pub threads: usize,
    pub groups: Groups,
    /// Each lookup has entities of its own, whose rows all come just before it, however late they are. Otherwise rows
    /// come as soon as the clock has reached them, and time alone must do the rest.
    pub late: bool,
}

/// In which order events that are due at once arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    AsGiven,
    Reversed,
    /// By this seed.
    Shuffled(u64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchWay {
    /// Rows lie in Parquet files, the later ones in the first; otherwise in a push log.
    pub in_files: bool,
    pub threads: usize,
    /// Rows of one batch.
    pub batch_rows: usize,
}

/// All that a suite is put through: every order with every size of push, in time and late, on one thread and
/// on two, in one group and in many;
/// batch over a log and over files. The seed is the shuffles'.
pub fn all_ways(seed: u64) -> Vec<Way> {
    let mut ways = Vec::new();
    for order in [Order::AsGiven, Order::Reversed, Order::Shuffled(seed)] {
        for (place, batch) in [1, 7, 4096].into_iter().enumerate() {
            // So that either number meets every size of push, both numbers of threads, and late rows.
            let groups = if ways.len() / 2 % 2 == 0 { Groups::ONE } else { Groups::default() };
            for late in [false, true] {
                let threads = 1 + (place + usize::from(late)) % 2;
                ways.push(Way::Stream(StreamWay { order, batch, threads, groups, late }));
            }
        }
    }
    for (in_files, threads, batch_rows) in [(false, 1, 1), (false, 2, 8192), (true, 2, 2)] {
        ways.push(Way::Batch(BatchWay { in_files, threads, batch_rows }));
    }
    ways
}

impl fmt::Display for StreamWay {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let order = match self.order {
            Order::AsGiven => "as given",
            Order::Reversed => "reversed",
            Order::Shuffled(_) => "shuffled",
        };
        write!(
            formatter,
            "stream {order}, batch {}, groups {}, threads {}",
            self.batch,
            self.groups.count(),
            self.threads
        )?;
        if self.late { formatter.write_str(", late") } else { Ok(()) }
    }
}

impl BatchWay {
    /// What is called `path` (snapshot, historical) this way.
    pub(super) fn of(&self, path: &str) -> String {
        match self.in_files {
            true => format!("{path} of files"),
            false => format!("{path}, {} threads", self.threads).replace("1 threads", "1 thread"),
        }
    }
}
