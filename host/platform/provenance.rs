//! What a training set was made of, in its file: enough to make it again, or to say what has gone since.

use super::{BatchDone, BatchRequest, PlatformError, ProjectHost};
use crate::batch::{
    BatchHost, HistoricalAsk, HistoricalSummary, LogRows, PinnedFile, Rows, changed_files, differing_columns,
    feature_references, file_metadata,
};
use crate::define::{Digest, FeatureReference, Project};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// The key of the Parquet file's metadata; the value is JSON.
pub const PROVENANCE_KEY: &str = "onefold";

/// How much of a file is read at once.
const READ_BYTES: usize = 1 << 20;

/// What a training set was made of.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Provenance {
    /// Name and version of the program.
    pub program: String,
    pub project: String,
    pub revision: u64,
    /// Of the rows that the state is made of, without those that the stream had refused.
    #[serde(default)]
    pub as_served: bool,
    /// In the order of the columns.
    pub features: Vec<FeatureMade>,
    pub labels: LabelsMade,
    /// By name: what the values were computed from.
    pub sources: BTreeMap<String, SourceMade>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FeatureMade {
    pub view: String,
    pub feature: String,
    pub fingerprint: Digest,
}

/// The label file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LabelsMade {
    /// Absolute.
    pub path: String,
    pub size: u64,
    pub digest: Digest,
    /// The column of instants.
    pub timestamp: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SourceMade {
    pub files: Vec<PinnedFile>,
    /// Positions of the push log, from the first up to (not with) the second.
    pub log: Option<(u64, u64)>,
}

/// What became of a training set that was to be made again.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Reproduced {
    /// It was made, and every column is what it was, to the last bit.
    pub same: bool,
    pub labels: u64,
    /// What is gone or has changed, so that it was not made.
    pub gone: Vec<String>,
    /// Columns that came out differently; the file is there to be looked at.
    pub differing: Vec<String>,
    /// What is another and need not matter.
    pub notes: Vec<String>,
}

impl ProjectHost {
    /// Writes the training set of a label file to a Parquet file that says what it was made of. `as_served`: of the
    /// rows that the state is made of, without those that the stream refused.
    pub fn historical(
        &self,
        labels: &Path,
        features: &str,
        timestamp: &str,
        out: &Path,
        as_served: bool,
        request: BatchRequest,
    ) -> Result<BatchDone<HistoricalSummary>, PlatformError> {
        let live = self.live()?;
        let project = &live.revision.project;
        let features = feature_references(project, features)?;
        let labels_made = labels_made(labels, timestamp).map_err(PlatformError::Invalid)?;
        let rows = if as_served { self.served_rows(&features)? } else { self.rows_now(project)? };
        let ask = HistoricalAsk { labels: labels.to_owned(), features, timestamp: timestamp.to_owned() };
        self.with_batch_host(project, request, |host| {
            let made = |summary: &HistoricalSummary| {
                let made = provenance(project, live.revision.number, &ask, &labels_made, &rows, summary);
                Provenance { as_served, ..made }
            };
            write(host, &ask, &rows, out, made)
        })
    }

    /// Makes the training set of a file again, from the revision, the labels, the files and the stretch of the log
    /// that it names. `labels`: where its label file lies now, if not where it lay.
    pub fn reproduce(
        &self,
        file: &Path,
        labels: Option<&Path>,
        out: &Path,
        request: BatchRequest,
    ) -> Result<BatchDone<Reproduced>, PlatformError> {
        let made = read(file)?;
        let labels = labels.map_or_else(|| PathBuf::from(&made.labels.path), Path::to_owned);
        let mut gone = Vec::new();
        if made.project != self.name() {
            gone.push(format!("it is of project `{}`, this is `{}`: use --project", made.project, self.name()));
        }
        match labels_made(&labels, &made.labels.timestamp) {
            Err(reason) => gone.push(reason),
            Ok(now) if now.digest != made.labels.digest => gone.push(format!(
                "labels {}: the file is another (it was {} of {} bytes): name the right one with --entities",
                labels.display(),
                made.labels.digest,
                made.labels.size
            )),
            Ok(_) => {}
        }
        if made.as_served {
            let text = "it was made with --as-served: what the stream had refused by then is not recorded";
            gone.push(text.to_owned());
        }
        let project = self.project_then(&made, &mut gone);
        let mut rows = Rows::default();
        if let Some(project) = &project {
            let logs = self.open_logs(project)?;
            for (name, source) in &made.sources {
                gone.extend(changed_files(&source.files));
                rows.pinned.insert(name.clone(), source.files.clone());
                let Some((first, end)) = source.log else { continue };
                match logs.get(name) {
                    None => gone.push(format!("source `{name}` has no push log any more")),
                    Some(log) if log.first_position() > first || log.end_position() < end => gone.push(format!(
                        "the log of source `{name}` has positions {} to {}, and it was made of {first} to {end}",
                        log.first_position(),
                        log.end_position()
                    )),
                    Some(log) => drop(rows.logs.insert(name.clone(), LogRows { log: log.clone(), from: first, end })),
                }
            }
        }
        let (Some(project), true) = (project, gone.is_empty()) else {
            let done = Reproduced { gone, ..Reproduced::default() };
            return Ok(BatchDone { done, refused_rows: 0, refused: Vec::new() });
        };
        let reference =
            |made: &FeatureMade| FeatureReference { view: made.view.clone(), feature: made.feature.clone() };
        let ask = HistoricalAsk {
            labels,
            features: made.features.iter().map(reference).collect(),
            timestamp: made.labels.timestamp.clone(),
        };
        self.with_batch_host(&project, request, |host| {
            let again =
                |summary: &HistoricalSummary| provenance(&project, made.revision, &ask, &made.labels, &rows, summary);
            let summary = write(host, &ask, &rows, out, again)?;
            let differing = differing_columns(file, out)?;
            let notes =
                (made.program != program()).then(|| format!("it was made by {}, now by {}", made.program, program()));
            Ok(Reproduced {
                same: differing.is_empty(),
                labels: summary.labels,
                gone: Vec::new(),
                differing,
                notes: notes.into_iter().collect(),
            })
        })
    }

    /// The project as of the revision, with every module that it uses.
    fn project_then(&self, made: &Provenance, gone: &mut Vec<String>) -> Option<Project> {
        let project = match self.registry().revision(made.revision) {
            Ok(revision) => revision.project,
            Err(error) => {
                gone.push(format!("revision {}: {error}", made.revision));
                return None;
            }
        };
        for module in &project.modules {
            if let Err(error) = self.registry().module_bytes(&module.name, &module.digest) {
                gone.push(format!("module `{}`: {error}", module.name));
            }
        }
        for one in &made.features {
            match fingerprint(&project, &one.view, &one.feature) {
                Some(found) if found == one.fingerprint => {}
                found => gone.push(format!(
                    "`{}.{}` was {}, and revision {} has {}",
                    one.view,
                    one.feature,
                    one.fingerprint,
                    made.revision,
                    found.map_or("no such feature".to_owned(), |found| found.to_string())
                )),
            }
        }
        Some(project)
    }
}

fn write(
    host: &BatchHost<'_>,
    ask: &HistoricalAsk,
    rows: &Rows,
    out: &Path,
    made: impl Fn(&HistoricalSummary) -> Provenance,
) -> Result<HistoricalSummary, PlatformError> {
    let describe = |summary: &HistoricalSummary| {
        let text = serde_json::to_string(&made(summary)).unwrap_or_default();
        Some((PROVENANCE_KEY.to_owned(), text))
    };
    Ok(host.historical_described(ask, rows, out, describe)?)
}

fn provenance(
    project: &Project,
    revision: u64,
    ask: &HistoricalAsk,
    labels: &LabelsMade,
    rows: &Rows,
    summary: &HistoricalSummary,
) -> Provenance {
    let features = ask.features.iter().filter_map(|FeatureReference { view, feature }| {
        let fingerprint = fingerprint(project, view, feature)?;
        Some(FeatureMade { view: view.clone(), feature: feature.clone(), fingerprint })
    });
    let sources = summary.files.iter().map(|(name, files)| {
        let log = rows.logs.get(name).map(|rows| (rows.from, rows.end));
        (name.clone(), SourceMade { files: files.clone(), log })
    });
    Provenance {
        program: program(),
        project: project.name.clone(),
        revision,
        as_served: false,
        features: features.collect(),
        labels: labels.clone(),
        sources: sources.collect(),
    }
}

fn program() -> String {
    format!("onefold {}", env!("CARGO_PKG_VERSION"))
}

fn fingerprint(project: &Project, view: &str, value: &str) -> Option<Digest> {
    if let Some(view) = project.feature_views.get(view) {
        let gives = |feature: &&crate::define::Feature| feature.outputs.iter().any(|output| output.name == value);
        return view.features.iter().find(gives).map(|feature| feature.fingerprint);
    }
    let view = project.on_demand_feature_views.get(view)?;
    let gives = |feature: &&crate::define::OnDemandFeature| feature.outputs.iter().any(|output| output.name == value);
    view.features.iter().find(gives).map(|feature| feature.fingerprint)
}

/// The label file as it is now, read once from end to end.
fn labels_made(path: &Path, timestamp: &str) -> Result<LabelsMade, String> {
    let wrong = |error: std::io::Error| format!("labels {}: {error}", path.display());
    let path_now = std::fs::canonicalize(path).map_err(wrong)?;
    let mut file = File::open(&path_now).map_err(wrong)?;
    let (mut hasher, mut buffer, mut size) = (Sha256::new(), vec![0; READ_BYTES], 0);
    loop {
        match file.read(&mut buffer).map_err(wrong)? {
            0 => break,
            read => {
                hasher.update(buffer.get(..read).unwrap_or_default());
                size += read as u64;
            }
        }
    }
    let digest = Digest(hasher.finalize().into());
    Ok(LabelsMade { path: path_now.display().to_string(), size, digest, timestamp: timestamp.to_owned() })
}

/// What a training set says it was made of.
pub fn read(file: &Path) -> Result<Provenance, PlatformError> {
    let shown = file.display();
    let text = file_metadata(file, PROVENANCE_KEY)?.ok_or_else(|| {
        PlatformError::Invalid(format!("{shown} does not say what it was made of: only `historical --out` writes that"))
    })?;
    serde_json::from_str(&text)
        .map_err(|error| PlatformError::Invalid(format!("{shown}: what it was made of cannot be read: {error}")))
}
