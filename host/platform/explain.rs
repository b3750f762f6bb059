//! Why a value is what it is: an entity's rows, from where the state has them, beside the value that is served.

use super::letters::late_rows;
use super::{BatchRequest, CompleteSince, Live, PlatformError, ProjectHost};
use crate::batch::{BatchHost, ExplainAsk, ExplainedRows, Place, Refusals, Rows};
use crate::define::{Feature, Source, hint};
use crate::online::OnlineStore;
use crate::route::Keys;
use crate::rows::{TableLayout, ViewColumn, ViewLayout};
use crate::stream::{Letter, RefusedBy};
use arrow::array::ArrayRef;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The most rows of one explanation: each brings its values along.
pub const EXPLAINED_ROWS: usize = 10_000;

/// Which value to explain.
pub struct ExplainRequest {
    pub view: String,
    /// A value column of it.
    pub feature: String,
    /// The entity: one key.
    pub keys: Keys,
    /// None: the instant of the served value.
    pub as_of_us: Option<i64>,
    /// The last rows that are told, at most [`EXPLAINED_ROWS`].
    pub rows: usize,
}

/// A value, what it is made of, and what is served.
pub struct Explanation {
    pub revision: u64,
    pub feature: Feature,
    pub source: Source,
    /// Which of the feature's outputs is explained.
    pub output: usize,
    /// The view's ttl, which the value itself does not know.
    pub ttl_us: Option<i64>,
    pub as_of_us: i64,
    pub complete_since: CompleteSince,
    pub rows: ExplainedRows,
    /// None: another instant than that of the served value was asked for.
    pub served: Option<ServedValue>,
    /// How long after its newest row the entity is known; none: for good.
    pub retention_us: Option<i64>,
    /// Open letters of rows that are told as refused, by position and row of the record.
    pub letters: BTreeMap<(u64, u32), Letter>,
}

/// What the online store had when the rows were counted off.
pub struct ServedValue {
    /// The store knows the entity.
    pub found: bool,
    pub newest_us: i64,
    /// One array of one row; null where there is none.
    pub value: ArrayRef,
    pub reason: Option<String>,
    pub failed: bool,
    pub clock_us: i64,
    /// The view says `online: false`: nothing of it can be looked up.
    pub hidden: bool,
}

impl Explanation {
    /// Whether what is served is what the rows give, to the last bit: the value, and which row is the newest. A value
    /// that has failed on either side is neither equal nor different.
    pub fn is_served(&self) -> Option<bool> {
        let served = self.served.as_ref().filter(|served| !served.hidden)?;
        let known_us = self.rows.newest_us.filter(|newest_us| self.is_kept(*newest_us));
        let Some(newest_us) = known_us else { return Some(!served.found) };
        if !served.found || served.newest_us != newest_us {
            return Some(false);
        }
        if served.failed || self.rows.value.failed {
            return None;
        }
        let by_rows = self.rows.value.outputs.get(self.output)?;
        Some(served.value.data_type() == by_rows.data_type() && served.value.to_data() == by_rows.to_data())
    }

    /// Whether an entity with this newest row is known still (rule 7 lets go of some).
    pub fn is_kept(&self, newest_us: i64) -> bool {
        self.retention_us.is_none_or(|kept_us| newest_us.saturating_add(kept_us) >= self.as_of_us)
    }
}

/// What is fixed before the rows are read.
struct Basis {
    live: Arc<Live>,
    column: ViewColumn,
    rows: Rows,
    as_of_us: i64,
    retention_us: Option<i64>,
    served: Option<ServedValue>,
}

impl ProjectHost {
    /// Explains one value. Without an instant of its own the stream stands still for a moment, a stored barrier, so
    /// that the served value and the rows it is made of are of one position; the rows are read while it goes on.
    pub fn explain(&self, request: &ExplainRequest, run: BatchRequest) -> Result<Explanation, PlatformError> {
        if request.rows == 0 || request.rows > EXPLAINED_ROWS {
            let text = format!("{} rows: ask for 1 to {EXPLAINED_ROWS}", request.rows);
            return Err(PlatformError::Invalid(text));
        }
        let basis = match request.as_of_us {
            Some(as_of_us) => self.basis_at(request, as_of_us)?,
            None => self.basis_served(request)?,
        };
        let project = &basis.live.revision.project;
        let view = project.feature_views.get(&request.view);
        let feature = view.and_then(|view| view.features.get(basis.column.feature));
        let source = view.and_then(|view| project.sources.get(&view.source));
        let (Some(view), Some(feature), Some(source)) = (view, feature, source) else {
            return Err(PlatformError::Engine(format!("view `{}` has no definition: apply again", request.view)));
        };
        let prepare = self.preparer();
        let BatchRequest { settings, progress } = run;
        let host =
            BatchHost { project, prepare: &prepare, settings, refusals: Arc::new(Refusals::default()), progress };
        let ask = ExplainAsk {
            view: view.name.clone(),
            fingerprint: feature.fingerprint,
            key: request.keys.key(0).to_vec(),
            as_of_us: basis.as_of_us,
            rows: request.rows,
        };
        let rows = host.explain(&ask, &basis.rows)?;
        let since = self.complete_since(&basis.live)?;
        let complete_since = since.get(&view.name).and_then(|columns| columns.get(&request.feature)).copied();
        Ok(Explanation {
            revision: basis.live.revision.number,
            feature: feature.clone(),
            source: source.clone(),
            output: basis.column.output,
            ttl_us: view.ttl_us,
            as_of_us: basis.as_of_us,
            complete_since: complete_since.unwrap_or(CompleteSince::NoRows),
            letters: self.refused_letters(&basis.live, feature, source, &rows)?,
            rows,
            served: basis.served,
            retention_us: basis.retention_us,
        })
    }

    /// At an instant of the asker's choice: the pinned files and the log as it is now.
    fn basis_at(&self, request: &ExplainRequest, as_of_us: i64) -> Result<Basis, PlatformError> {
        let live = self.live()?;
        let (view, column, table) = find(&live, request)?;
        let end = |source: &str| self.log(source).map_or(0, |log| log.end_position());
        let rows = self.rows_of(&live, table, end)?;
        let (column, retention_us) = (column.clone(), view.retention_us);
        Ok(Basis { column, rows, as_of_us, retention_us, served: None, live })
    }

    fn basis_served(&self, request: &ExplainRequest) -> Result<Basis, PlatformError> {
        // What does not exist must not cost a barrier.
        find(self.live()?.as_ref(), request)?;
        self.while_stopped(|_, stopped| {
            let live = self.live()?;
            let (view, column, table) = find(&live, request)?;
            let source = &live.compiled.layout.spaces[table.space].source;
            let rows = self.rows_of(&live, table, |source| stopped.positions.get(source).copied().unwrap_or(0))?;
            let clock_us = table.row_set.clock_us(stopped.clocks.get(source).map_or(i64::MIN, |clock| clock.clock_us));
            let read = live.online.read(&table.id, &[column.fingerprint], &request.keys)?;
            let value = read.features.first().and_then(|feature| feature.outputs.get(column.output));
            let value = value.ok_or_else(|| {
                PlatformError::Unavailable(format!("the online store has no `{}`: ask again", request.feature))
            })?;
            let reasons = read.features.first().and_then(|feature| feature.reasons.first());
            let served = ServedValue {
                found: read.found.first().copied().unwrap_or(false),
                newest_us: read.newest_us.first().copied().unwrap_or(i64::MIN),
                value: value.clone(),
                reason: reasons.map(|(_, _, reason)| reason.clone()),
                failed: reasons.is_some_and(|(_, failed, _)| *failed),
                clock_us,
                hidden: !view.online,
            };
            let as_of_us = if served.found { clock_us.max(served.newest_us) } else { clock_us };
            let (column, retention_us) = (column.clone(), table.retention_us);
            Ok(Basis { column, rows, as_of_us, retention_us, served: Some(served), live })
        })
    }

    /// The rows that the state of a table is made of.
    fn rows_of(&self, live: &Live, table: &TableLayout, end: impl Fn(&str) -> u64) -> Result<Rows, PlatformError> {
        let source = &live.compiled.layout.spaces[table.space].source;
        let mut rows = self.rows_of_state(live, table, end(source))?;
        let number = live.compiled.layout.tables.iter().position(|other| other.id == table.id);
        rows.late = late_rows(&live.compiled, &self.dead_letters(Some(source))?, number.into_iter());
        Ok(rows)
    }

    /// The open letters of the rows that are told as refused.
    fn refused_letters(
        &self,
        live: &Live,
        feature: &Feature,
        source: &Source,
        rows: &ExplainedRows,
    ) -> Result<BTreeMap<(u64, u32), Letter>, PlatformError> {
        if rows.refused.is_empty() {
            return Ok(BTreeMap::new());
        }
        let refused: BTreeMap<(u64, u32), bool> = rows
            .refused
            .iter()
            .filter_map(|row| match row.place {
                Place::Log { position } => Some(((position, row.sub_row), row.stage == "future")),
                Place::File { .. } => None,
            })
            .collect();
        let is_of_row = |letter: &Letter| match refused.get(&(letter.position, letter.sub_row)) {
            Some(true) => letter.refused_by == RefusedBy::All,
            Some(false) => letter.refused_by == RefusedBy::Feature(feature.fingerprint),
            None => false,
        };
        let letters = self.dead_letters(Some(&source.name))?;
        let open = letters.into_iter().filter(|letter| is_of_row(letter) && live.is_open(letter));
        Ok(open.map(|letter| ((letter.position, letter.sub_row), letter)).collect())
    }
}

fn find<'a>(
    live: &'a Live,
    request: &ExplainRequest,
) -> Result<(&'a ViewLayout, &'a ViewColumn, &'a TableLayout), PlatformError> {
    let layout = &live.compiled.layout;
    let view = layout.views.get(&request.view).ok_or_else(|| {
        let near = hint(&request.view, layout.views.keys().map(String::as_str));
        PlatformError::NotFound(format!("there is no feature view `{}`; {near}", request.view))
    })?;
    let column = view.columns.iter().find(|column| column.field.name == request.feature).ok_or_else(|| {
        let near = hint(&request.feature, view.columns.iter().map(|column| column.field.name.as_str()));
        PlatformError::NotFound(format!("view `{}` has no feature `{}`; {near}", view.name, request.feature))
    })?;
    let table = layout.tables.get(column.table);
    let table = table.ok_or_else(|| PlatformError::Engine(format!("view `{}` has no table", view.name)))?;
    Ok((view, column, table))
}
