//! Stub to compile against.
use crate::clock::Clock;
use crate::define::Definitions;
use crate::online::OnlineStore;
use crate::registry::*;
use crate::source::{IdempotencyKey, Records};
use crate::storage::Storage;
use crate::stream::Compiled;
use onefold_fold::Udf;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
pub struct Platform;
pub struct PlatformSettings { pub data: PathBuf, pub threads: usize, pub checkpoint_every_us: i64, pub idle_us: i64, pub memory_bytes: usize }
#[derive(Debug, thiserror::Error)]
pub enum PlatformError { #[error(transparent)] Registry(#[from] RegistryError), #[error("{0}")] Other(String) }
#[derive(serde::Serialize)] pub struct ProjectStatus {}
#[derive(serde::Serialize)] pub struct Letter {}
#[derive(serde::Serialize)] pub struct Replayed {}
pub struct Pushed { pub accepted: u64, pub dead_lettered: u64, pub position: u64, pub errors: Vec<(usize, String)>, pub repeated: bool }
pub struct ProjectHost;
impl Platform {
  pub fn open(_: PlatformSettings, _: Arc<dyn Storage>, _: Arc<dyn Clock>) -> Result<Arc<Platform>, PlatformError> { unimplemented!() }
  pub fn projects(&self) -> Vec<String> { vec![] }
  pub fn project(&self, _: &str) -> Option<Arc<ProjectHost>> { None }
  pub fn registry(&self, _: &str) -> Result<Registry, PlatformError> { unimplemented!() }
  pub fn modules(&self) -> &ModuleCache { unimplemented!() }
  pub fn plan(&self, _: &str, _: &Definitions, _: &ApplyOptions) -> Result<Proposal, PlatformError> { unimplemented!() }
  pub fn apply(&self, _: &str, _: Proposal) -> Result<Revision, PlatformError> { unimplemented!() }
  pub fn push_module(&self, _: &str, _: &str, _: &[u8]) -> Result<Put, PlatformError> { unimplemented!() }
  pub fn close(&self) {}
}
impl ProjectHost {
  pub fn revision(&self) -> Arc<Revision> { unimplemented!() }
  pub fn compiled(&self) -> Arc<Compiled> { unimplemented!() }
  pub fn online(&self) -> &dyn OnlineStore { unimplemented!() }
  pub fn push(&self, _: &str, _: Records, _: Option<IdempotencyKey>) -> Result<Pushed, PlatformError> { unimplemented!() }
  pub fn wait_served(&self, _: &str, _: u64, _: Duration) -> bool { true }
  pub fn status(&self) -> ProjectStatus { unimplemented!() }
  pub fn dead_letters(&self, _: Option<&str>) -> Result<Vec<Letter>, PlatformError> { unimplemented!() }
  pub fn replay(&self, _: Option<&[String]>, _: Option<&str>) -> Result<Replayed, PlatformError> { unimplemented!() }
  pub fn on_demand_udf(&self, _: &str, _: &str) -> Option<Udf> { None }
}
