//! What a change begins with: what goes on from state that is there, and what `--from now` lets begin empty.

use super::recover::standing_row_set;
use super::{Live, PlatformError, ProjectHost};
use crate::define::{Feature, FeatureView, Project, Source, duration_text};
use crate::registry::Proposal;
use crate::rows::RowSet;
use crate::state::TableRecord;
use crate::stream::table_records;
use std::collections::{BTreeMap, BTreeSet};

/// What a feature that is not paused goes on from, if there is state of it: that which is folded, or that which a view
/// that is paused has kept.
pub(super) fn goes_on_from(records: &[TableRecord], live: &Live, source: &Source, feature: &Feature) -> Option<RowSet> {
    let paused = || {
        let mut revisions = live.revision.project.feature_views.values().filter_map(|view| view.paused);
        let held = revisions.find_map(|revision| standing_row_set(records, source, feature, Some(revision)))?;
        Some(RowSet { paused: None, ..held })
    };
    standing_row_set(records, source, feature, None).or_else(paused)
}

/// The features that have no state to go on from.
pub(super) struct New(Vec<TableRecord>);

impl New {
    pub fn over(live: &Live) -> New {
        New(table_records(&live.compiled))
    }

    /// Those of a view, in its order; a paused one has what it has.
    pub fn of<'a>(&self, live: &Live, project: &Project, view: &'a FeatureView) -> Vec<&'a Feature> {
        let Some(source) = project.sources.get(&view.source).filter(|_| view.paused.is_none()) else {
            return Vec::new();
        };
        let is_new = |feature: &&Feature| goes_on_from(&self.0, live, source, feature).is_none();
        view.features.iter().filter(is_new).collect()
    }
}

/// What a plan begins with.
#[derive(Default)]
pub(super) struct Begins {
    /// What begins empty, as (view, feature).
    pub empty: BTreeSet<(String, String)>,
    /// Sources of which everything is made anew, with the rows that are read for it.
    pub anew: BTreeMap<String, u64>,
}

impl ProjectHost {
    /// An error where `--from now` would let something begin empty that would stay so.
    pub(super) fn check_begins(&self, proposal: &Proposal, live: &Live) -> Result<(), PlatformError> {
        if !proposal.from_now {
            return Ok(());
        }
        let (new, project) = (New::over(live), &proposal.project);
        for view in project.feature_views.values() {
            let Some(source) = project.sources.get(&view.source).filter(|source| !source.push) else { continue };
            if !new.of(live, project, view).is_empty() {
                return Err(PlatformError::Invalid(format!(
                    "source `{}` takes no pushes, so what begins empty would stay so: leave --from now out",
                    source.name
                )));
            }
        }
        Ok(())
    }

    /// Refuses a plan where its apply would be, and says in it what that one's flags come to.
    pub(super) fn say_begins(&self, proposal: &mut Proposal, live: &Live) -> Result<Begins, PlatformError> {
        let mut begins = Begins::default();
        if !proposal.plan.changes.is_empty() {
            self.check_begins(proposal, live)?;
        }
        let moved = self.say_moved(proposal, live)?;
        if proposal.same_rows && moved.is_empty() {
            let note = "--same-rows means nothing here: no source whose state is made of files has another path now";
            proposal.plan.warnings.push(note.to_owned());
        }
        if !proposal.same_rows {
            begins.anew = moved;
        }
        if !proposal.from_now {
            return Ok(begins);
        }
        let (new, project) = (New::over(live), &proposal.project);
        let mut notes = Vec::new();
        for view in project.feature_views.values() {
            let empty = new.of(live, project, view);
            if !empty.is_empty() && !begins.anew.contains_key(&view.source) {
                notes.push(begins_empty(view, &empty, live));
                begins.empty.extend(empty.iter().map(|feature| (view.name.clone(), feature.name.clone())));
            }
        }
        if notes.is_empty() {
            notes.push(
                "--from now means nothing here: nothing begins without state that it could go on from".to_owned(),
            );
        }
        proposal.plan.warnings.extend(notes);
        Ok(begins)
    }
}

/// What it means for readers.
fn begins_empty(view: &FeatureView, empty: &[&Feature], live: &Live) -> String {
    let names = |features: &mut dyn Iterator<Item = &&Feature>| {
        features.map(|feature| format!("`{}`", feature.name)).collect::<Vec<_>>().join(", ")
    };
    let one = |singular: &'static str, plural: &'static str| if empty.len() == 1 { singular } else { plural };
    let mut parts = Vec::new();
    if let Some(reach_us) = empty.iter().filter_map(|feature| feature.window.reach_us()).max() {
        parts.push(format!("their windows lack what was before for up to {}", duration_text(reach_us)));
    }
    let endless = names(&mut empty.iter().filter(|feature| feature.window.reach_us().is_none()));
    if !endless.is_empty() {
        parts.push(format!("{endless} never get{} it", if endless.contains(", ") { "" } else { "s" }));
    }
    let is_served = |feature: &&&Feature| {
        let before = live.revision.project.feature_views.get(&view.name);
        before.is_some_and(|before| before.features.iter().any(|other| other.name == feature.name))
    };
    let served = names(&mut empty.iter().filter(is_served));
    if !served.is_empty() {
        parts.push(format!("what {served} served until now is gone"));
    }
    format!(
        "feature view `{}`: {} {} empty, where the stream stands: {}; `onefold rebuild {}` gives {} the history",
        view.name,
        names(&mut empty.iter()),
        one("begins", "begin"),
        parts.join(", "),
        view.name,
        one("it", "them"),
    )
}
