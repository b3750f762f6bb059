//! How far a build is, over all of its parts: each counts its rows from zero.

use crate::batch::Progress;
use std::sync::{Arc, Mutex, PoisonError};

/// Whoever is told of progress.
type Listener = Arc<dyn Fn(Progress) + Send + Sync>;

/// Adds up what the parts of one piece of work say.
pub(super) struct Told {
    listener: Listener,
    /// Of the parts before, and of the one that runs.
    seen: Arc<Mutex<(Progress, Progress)>>,
}

const NOTHING: Progress = Progress { rows: 0, total: 0 };

impl Told {
    pub fn new(listener: Listener) -> Told {
        Told { listener, seen: Arc::new(Mutex::new((NOTHING, NOTHING))) }
    }

    /// Begins the next part; what it says comes on top of what those before it have said.
    pub fn part(&self) -> Listener {
        {
            let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            seen.0 = sum(seen.0, seen.1);
            seen.1 = NOTHING;
        }
        let (listener, seen) = (self.listener.clone(), self.seen.clone());
        Arc::new(move |progress| {
            let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
            // Told from several threads: what comes late says less.
            let (rows, total) = (seen.1.rows.max(progress.rows), seen.1.total.max(progress.total));
            seen.1 = Progress { rows, total };
            listener(sum(seen.0, seen.1));
        })
    }
}

fn sum(one: Progress, other: Progress) -> Progress {
    Progress { rows: one.rows + other.rows, total: one.total + other.total }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guards: a second source's rows were hidden behind the first one's count until they exceeded it.
    #[test]
    fn parts_add_up() {
        let heard = Arc::new(Mutex::new(Vec::new()));
        let told = Told::new({
            let heard = heard.clone();
            Arc::new(move |progress: Progress| heard.lock().unwrap().push((progress.rows, progress.total)))
        });
        let first = told.part();
        first(Progress { rows: 5, total: 10 });
        first(Progress { rows: 10, total: 10 });
        first(Progress { rows: 7, total: 10 });
        told.part()(Progress { rows: 1, total: 2 });
        assert_eq!(*heard.lock().unwrap(), [(5, 10), (10, 10), (10, 10), (11, 12)]);
    }
}
