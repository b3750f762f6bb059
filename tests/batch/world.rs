//! A project as `apply` makes it, with rows in files and in a push log, for the batch host.

use crate::modules::ecommerce;
use onefold::batch::{BatchHost, BatchSettings, LogRows, Refusals, Rows};
use onefold::clock::ManualClock;
use onefold::decode::JsonDecoder;
use onefold::define::{DefinitionFile, Definitions, Project, UdfUse, read_directory, read_files, read_text};
use onefold::registry::{ApplyOptions, ModuleCache, Registry, commit, plan_apply};
use onefold::source::{Append, LogSettings, PushLog, Records};
use onefold::std_module::STD_WASM;
use onefold::storage::LocalStorage;
use onefold_fold::{Engine, Field, Limits, Udf};
use parquet::arrow::ArrowWriter;
use parquet::file::properties::WriterProperties;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

/// Compiled once for all tests.
fn modules() -> &'static ModuleCache {
    static CACHE: OnceLock<ModuleCache> = OnceLock::new();
    CACHE.get_or_init(|| ModuleCache::new(Engine::new(Limits::default()).expect("the engine starts")))
}

pub struct World {
    pub directory: tempfile::TempDir,
    pub project: Project,
    registry: Registry,
    pub refusals: Arc<Refusals>,
    pub threads: usize,
    pub memory_limit_bytes: usize,
    pub batch_rows: usize,
}

impl World {
    /// Applies these documents, the module `ecommerce` at hand.
    pub fn apply(definitions: &str) -> World {
        World::of(&read_text("definitions.yaml", definitions).unwrap_or_else(|error| panic!("{error}")))
    }

    /// The e-commerce example, its module built.
    pub fn example() -> World {
        ecommerce();
        let directory = crate::modules::root().join("examples/ecommerce/definitions");
        World::of(&read_directory(&directory).unwrap_or_else(|error| panic!("{error}")))
    }

    fn of(definitions: &Definitions) -> World {
        let directory = tempfile::tempdir().expect("a directory for the test");
        let name = onefold::define::project_name(definitions, Some("test")).expect("a name");
        let storage = Arc::new(LocalStorage::open(&directory.path().join("data")).expect("storage opens"));
        let registry = Registry::of(storage, &name).expect("the name is one");
        let module = modules().load("ecommerce", ecommerce()).expect("the module is sound");
        registry.put_module("ecommerce", ecommerce(), &module).expect("it can be registered");
        let proposal = plan_apply(&registry, modules(), STD_WASM, definitions, &ApplyOptions::default())
            .unwrap_or_else(|error| panic!("{error}"));
        let revision = commit(&registry, modules(), &proposal, 0).unwrap_or_else(|error| panic!("{error}"));
        let refusals = Arc::new(Refusals::default());
        let project = revision.project;
        World { directory, project, registry, refusals, threads: 2, memory_limit_bytes: 64 << 20, batch_rows: 8192 }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub fn prepare(&self, udf: &UdfUse, inputs: &[Field]) -> Result<Udf, String> {
        let module =
            modules().registered(&self.registry, &udf.module, &udf.digest).map_err(|error| error.to_string())?;
        module.prepare(&udf.udf, &udf.params, inputs).map_err(|error| error.to_string())
    }

    /// Calls `use_host` with the host of this world.
    pub fn with_host<T>(&self, use_host: impl FnOnce(&BatchHost<'_>) -> T) -> T {
        let prepare = |udf: &UdfUse, inputs: &[Field]| self.prepare(udf, inputs);
        let mut settings = BatchSettings::new(self.directory.path());
        settings.threads = self.threads;
        settings.memory_limit_bytes = self.memory_limit_bytes;
        settings.batch_rows = self.batch_rows;
        use_host(&BatchHost {
            project: &self.project,
            prepare: &prepare,
            settings,
            refusals: self.refusals.clone(),
            progress: Arc::new(|_| ()),
        })
    }

    /// Writes events as a Parquet file with the source's columns, a few rows a row group.
    pub fn write_parquet(&self, source: &str, path: &Path, events: &[String], group_rows: usize) {
        let source = &self.project.sources[source];
        let mut decoder = JsonDecoder::new(source).expect("the source can be decoded");
        let decoded = decoder.decode(events.iter().map(|event| event.as_bytes())).expect("events can be decoded");
        assert_eq!(decoded.refused, [], "files hold whole rows");
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).expect("a directory can be made");
        }
        let properties = WriterProperties::builder().set_max_row_group_row_count(Some(group_rows)).build();
        let file = File::create(path).expect("a file can be made");
        let mut writer = ArrowWriter::try_new(file, decoded.batch.schema(), Some(properties)).expect("Parquet");
        writer.write(&decoded.batch).expect("rows can be written");
        writer.close().expect("the file can be ended");
    }

    /// A log with these events, a few a push, all of which arrive at this instant.
    pub fn log(&self, events: &[String], arrival_us: i64) -> LogRows {
        let storage = Arc::new(LocalStorage::open(&self.path("data")).expect("storage opens"));
        let settings = LogSettings { segment_bytes: 4096, ..LogSettings::default() };
        let clock = Arc::new(ManualClock::at(arrival_us));
        let log = PushLog::open(storage, "projects/test/log/events", clock, settings).expect("the log opens");
        for part in events.chunks(7) {
            let records = Records::from_slices(part.iter().map(|event| event.as_bytes())).expect("small records");
            let append = Append { records, arrival_us, idempotency: None, answer: Default::default() };
            log.append(append).expect("the log can be written");
        }
        let end = log.end_position();
        LogRows::until(Arc::new(log), end)
    }
}

/// Definitions as they stand in a directory of this machine, whose files they may name.
pub fn read_as_file(text: &str) -> Definitions {
    let file = DefinitionFile { file: "all.yaml".to_owned(), directory: "/".into(), text: text.to_owned() };
    read_files(&[file]).unwrap_or_else(|error| panic!("{error}"))
}

/// Rows of files and of one log.
pub fn rows_with(source: &str, log: Option<LogRows>) -> Rows {
    Rows { logs: log.into_iter().map(|log| (source.to_owned(), log)).collect(), ..Rows::default() }
}
