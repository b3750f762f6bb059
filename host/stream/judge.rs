//! What refuses records now: the way of a row from its bytes to the fold, on states that nobody keeps.
//!
//! Whether a row is refused depends on that row alone (rule 11 of the window rules), so an empty state tells it.

use super::compiled::Compiled;
use super::letter::Letter;
use super::router::{Places, RouteError, Router};
use super::runtime::StreamError;
use super::steps::Steps;
use super::worker::{GroupState, Worker};
use crate::define::Source;
use crate::online::Nowhere;
use crate::source::LogBatch;
use std::sync::Arc;

/// The letters that these records of a source would be given today. They need not follow each other in the log.
pub fn judge(compiled: &Arc<Compiled>, source: &Source, records: &[LogBatch]) -> Result<Vec<Letter>, StreamError> {
    let steps = Arc::new(Steps::untimed());
    let groups = compiled.groups.all().map(|group| GroupState::new(group, compiled)).collect();
    let mut worker = Worker::new(compiled.clone(), Arc::new(Nowhere), 0, groups, steps.clone());
    let mut router = Router::new(compiled.clone(), source, 1, steps).map_err(RouteError::from)?;
    let routed = router.route(records)?;
    worker.rows(&routed, &Places::new(records))?;
    let mut letters = routed.letters;
    letters.append(&mut worker.letters);
    Ok(letters)
}
