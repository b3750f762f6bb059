//! A first project drafted from data: what its columns are, which says when and which whom, a few features, and a test
//! whose values the fold itself has computed. What was guessed is said, in the files and to whoever asked.

mod features;
mod fields;
mod first_test;
mod guess;
mod names;
mod read;
mod text;

pub use fields::Seen;
pub use first_test::drafted;
pub use guess::Guess;
pub use names::{column_name, counted};
pub use read::{Data, read};

use features::Feature;
use std::path::PathBuf;

/// What a draft is asked for. Names are guessed where they are not given.
#[derive(Clone, Debug, Default)]
pub struct Ask {
    /// Of the project.
    pub name: String,
    /// Of the source; most often the data's own.
    pub source: String,
    /// The columns that say whom a row is about.
    pub key: Vec<String>,
    /// The column that says when.
    pub time: Option<String>,
    /// As people know the data.
    pub shown: String,
    /// Where the definitions will lie: absolute.
    pub directory: PathBuf,
}

/// A project in two files, and what was guessed on the way.
#[derive(Clone, Debug)]
pub struct Draft {
    pub name: String,
    pub source: String,
    pub entity: String,
    pub view: String,
    pub data: Data,
    pub time: Guess,
    pub key: Guess,
    pub shown: String,
    /// The path of Parquet files as the definitions write it.
    pub batch: Option<String>,
    features: Vec<Feature>,
    /// The file of definitions.
    pub definitions: String,
    /// The file of its test.
    pub test: String,
    /// A key with rows in the test: `name`, value.
    pub entity_values: Vec<(String, serde_json::Value)>,
}

/// A column of the data under a name that definitions can have.
#[derive(Clone, Debug)]
pub struct Column {
    pub name: String,
    pub type_name: &'static str,
    /// Where it stands in a row of the data.
    pub path: Vec<String>,
    /// Its name in Parquet files, where the data are such.
    pub batch: Option<String>,
    /// What to know of it.
    pub note: Option<String>,
    /// Values of another kind than nearly all.
    pub odd: u64,
    pub seen: Seen,
}

/// Why there is no draft.
#[derive(Debug, thiserror::Error)]
pub enum DraftError {
    /// Say what could not be guessed, or bring other data.
    #[error("{0}")]
    Ask(String),
    /// See to the machine, or report it.
    #[error("{0}")]
    Failed(String),
}

impl Draft {
    /// Drafts a project from what was read. Its test is still to come.
    fn new(ask: &Ask, mut data: Data) -> Result<Draft, DraftError> {
        let time = match guess::time(&data.columns, data.rows, ask.time.as_deref()) {
            Err(DraftError::Ask(time)) => {
                // Told at once, so that nobody has to ask twice.
                let key = guess::key(&data.columns, usize::MAX, &ask.key).err();
                let key = key.map(|key| format!("\n{key}")).unwrap_or_default();
                return Err(DraftError::Ask(format!("{time}{key}")));
            }
            other => other?,
        };
        if let Some(column) = time.columns.first().and_then(|number| data.columns.get_mut(*number))
            && let Some(type_name) = guess::time_type(column)
        {
            column.type_name = type_name;
        }
        let key = guess::key(&data.columns, time.columns.first().copied().unwrap_or(usize::MAX), &ask.key)?;
        let keys: Vec<&str> = key.columns.iter().map(|number| data.columns[*number].name.as_str()).collect();
        let entity = names::entity_name(&keys);
        let batch = data.files.as_ref().map(|files| names::relative(files, &ask.directory));
        let batch = batch.transpose().map_err(DraftError::Ask)?;
        let features = features::propose(&data.columns, &time, &key);
        let mut draft = Draft {
            name: ask.name.clone(),
            source: ask.source.clone(),
            view: format!("{entity}_stats"),
            entity,
            time,
            key,
            shown: ask.shown.clone(),
            batch,
            features,
            definitions: String::new(),
            test: String::new(),
            entity_values: Vec::new(),
            data,
        };
        draft.definitions = text::definitions(&draft);
        Ok(draft)
    }

    /// The event time's column.
    pub fn time_column(&self) -> Option<&Column> {
        self.data.columns.get(*self.time.columns.first()?)
    }

    /// The key's columns.
    pub fn key_columns(&self) -> impl Iterator<Item = &Column> {
        self.key.columns.iter().filter_map(|number| self.data.columns.get(*number))
    }

    /// How many features the view has.
    pub fn features(&self) -> usize {
        self.features.len()
    }
}
