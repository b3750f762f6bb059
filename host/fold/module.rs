//! Modules: checked, compiled and described; what `prepare` says of their UDFs, checked and remembered.

use crate::call::Udf;
use crate::engine::{Engine, Limits};
use crate::error::{CallFailure, ModuleRefused, PrepareError};
use crate::kind::{Field, Kind};
use crate::pool::{Guard, Instance, Pool, Spec, SpecKey};
use crate::upload::componentize;
use crate::wire::message;
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use wasmtime::component::{Component, Linker};

/// The contract, as modules' authors read it.
pub const CONTRACT: &str = include_str!("../../sdk/wit/udf.wit");

/// Typed calls of the contract. Parameters borrow, so that a column's bytes go from Arrow into the guest in one copy.
#[expect(clippy::too_many_arguments, reason = "generated: `fold` has the contract's parameters, flat")]
pub(crate) mod contract {
    wasmtime::component::bindgen!({
        path: "../../sdk/wit/udf.wit",
        world: "udf",
        ownership: Borrowing { duplicate_if_necessary: true },
    });
    pub(crate) use onefold::udf::types;
}

/// What a UDF does: keep a state, or map rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    Aggregate,
    Transform,
}

/// What a module says of one of its UDFs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UdfInfo {
    /// `[a-z][a-z0-9_]*`, unique in the module.
    pub name: String,
    pub role: Role,
    pub doc: String,
    /// JSON Schema of the parameters; empty = takes none.
    pub params_schema: String,
}

/// A checked, compiled module. Cheap to clone; shared by all threads.
#[derive(Clone)]
pub struct Module {
    pub(crate) inner: Arc<ModuleInner>,
}

pub(crate) struct ModuleInner {
    pub(crate) limits: Arc<Limits>,
    digest: [u8; 32],
    component: Vec<u8>,
    udfs: Vec<UdfInfo>,
    pub(crate) pool: Pool,
    /// What `prepare` said of each (UDF, parameters, inputs): asked once, and held against every new instance.
    prepared: Mutex<BTreeMap<SpecKey, Arc<Prepared>>>,
}

/// A checked answer of `prepare`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Prepared {
    /// Names this spec in the handle tables of instances.
    pub(crate) id: u64,
    pub(crate) spec: Spec,
    pub(crate) role: Role,
    pub(crate) outputs: Vec<Field>,
    pub(crate) claims: Claims,
}

/// What a UDF says of itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Claims {
    pub(crate) event_time: bool,
    pub(crate) ordered: bool,
    pub(crate) mergeable: bool,
    pub(crate) one_to_one: bool,
}

impl Engine {
    /// Takes an upload (core module or component), makes a component of it, checks, compiles and asks it what it holds.
    pub fn load(&self, bytes: &[u8]) -> Result<Module, ModuleRefused> {
        let component = componentize(bytes, &self.limits)?;
        let compiled = self.compile(&component)?;
        let pool = Pool::new(self, &compiled)?;
        let udfs = describe(&pool)?;
        Ok(Module {
            inner: Arc::new(ModuleInner {
                limits: self.limits.clone(),
                digest: Sha256::digest(bytes).into(),
                component,
                udfs,
                pool,
                prepared: Mutex::new(BTreeMap::new()),
            }),
        })
    }

    /// The one place where outside code meets the compiler.
    fn compile(&self, component: &[u8]) -> Result<Component, ModuleRefused> {
        Component::from_binary(&self.wasm, component).map_err(|error| {
            ModuleRefused::new(
                format!("the module does not compile: {error:#}"),
                "a module is WebAssembly 2.0 without garbage collection, threads, exceptions and 64-bit memories",
                "switch the feature named here off in the compiler",
            )
        })
    }
}

impl Module {
    /// SHA-256 of the bytes that were uploaded: the identity of the module.
    pub fn digest(&self) -> [u8; 32] {
        self.inner.digest
    }

    /// The component made of the upload.
    pub fn component(&self) -> &[u8] {
        &self.inner.component
    }

    /// The UDFs, in the module's order.
    pub fn udfs(&self) -> &[UdfInfo] {
        &self.inner.udfs
    }

    /// Fixes a UDF's parameters (a JSON object) and input kinds. `inputs` are without the event time: a UDF that
    /// claims `event-time` gets it as one more column behind them in every call (`Udf::needs_event_time`).
    pub fn prepare(&self, udf: &str, params: &str, inputs: &[Field]) -> Result<Udf, PrepareError> {
        let spec = Spec { udf: udf.to_owned(), params: params.to_owned(), inputs: inputs.to_vec() };
        let key = spec.key();
        let known = self.inner.prepared.lock().unwrap_or_else(PoisonError::into_inner).get(&key).cloned();
        if let Some(prepared) = known {
            return Ok(Udf::new(self.clone(), prepared));
        }
        let Some(info) = self.inner.udfs.iter().find(|info| info.name == udf) else {
            let names: Vec<_> = self.inner.udfs.iter().map(|info| info.name.as_str()).collect();
            return Err(PrepareError::Unknown(udf.to_owned(), names.join(", ")));
        };
        let failed = |failure| PrepareError::Failed { udf: udf.to_owned(), failure };
        let mut instance = self.inner.pool.take().map_err(failed)?;
        let answer = instance.prepare(&spec).map_err(failed)?;
        let answer =
            answer.map_err(|reason| PrepareError::Refused(message(&reason, self.inner.limits.message_bytes)))?;
        let (outputs, claims) = check_prepared(info, &answer).map_err(|broken| failed(CallFailure::Invalid(broken)))?;
        let mut all = self.inner.prepared.lock().unwrap_or_else(PoisonError::into_inner);
        let id = u64::try_from(all.len()).unwrap_or(u64::MAX);
        let made = || Arc::new(Prepared { id, spec: spec.clone(), role: info.role, outputs, claims });
        let prepared = all.entry(key).or_insert_with(made).clone();
        drop(all);
        instance.remember(prepared.id, answer.handle);
        self.inner.pool.give_back(instance);
        Ok(Udf::new(self.clone(), prepared))
    }
}

/// Checks what `prepare` answered; the error says what is wrong with it.
pub(crate) fn check_prepared(info: &UdfInfo, answer: &contract::Prepared) -> Result<(Vec<Field>, Claims), String> {
    let mut claims = Claims::default();
    for claim in &answer.claims {
        match (claim.as_str(), info.role) {
            ("event-time", _) => claims.event_time = true,
            ("ordered", Role::Aggregate) => claims.ordered = true,
            ("mergeable", Role::Aggregate) => claims.mergeable = true,
            ("one-to-one", Role::Transform) => claims.one_to_one = true,
            (other, role) => {
                return Err(format!(
                    "udf `{}`, {}, claims `{}`: an aggregate may claim event-time, ordered, mergeable, a transform \
                     event-time, one-to-one",
                    info.name,
                    if role == Role::Aggregate { "an aggregate" } else { "a transform" },
                    message(other, 64),
                ));
            }
        }
    }
    if answer.outputs.is_empty() && info.role == Role::Aggregate {
        return Err(format!("udf `{}` has no output: every aggregate has one or more", info.name));
    }
    let mut names = BTreeSet::new();
    for output in &answer.outputs {
        if !is_name(&output.name) || !names.insert(&output.name) {
            return Err(format!(
                "udf `{}` has the output name `{}`: names are [a-z][a-z0-9_]*, each once",
                info.name,
                message(&output.name, 64)
            ));
        }
    }
    let outputs = answer.outputs.iter().map(|field| Field::new(&field.name, kind_in(field.kind))).collect();
    Ok((outputs, claims))
}

/// Starts the first instance and checks what `describe` says.
fn describe(pool: &Pool) -> Result<Vec<UdfInfo>, ModuleRefused> {
    let failed = |what: &str, failure: CallFailure| {
        ModuleRefused::new(
            format!("{what} failed: {failure}"),
            "a module starts and describes itself within its limits, without clock, randomness or files",
            "run its initializers and `describe` in a bare runtime to see why",
        )
    };
    let mut instance = pool.take().map_err(|failure| failed("starting the module", failure))?;
    let listed = instance.describe().map_err(|failure| failed("`describe`", failure))?;
    pool.give_back(instance);
    let most = pool.limits().udfs;
    if listed.is_empty() || listed.len() > most {
        return Err(ModuleRefused::new(
            format!("`describe` lists {} udfs", listed.len()),
            format!("a module has 1 to {most} udfs"),
            "export at least one udf (in Rust: onefold_udf::export!), or split the module",
        ));
    }
    let mut names = BTreeSet::new();
    for udf in &listed {
        if !is_name(&udf.name) {
            return Err(ModuleRefused::new(
                format!("`describe` names a udf `{}`", message(&udf.name, 64)),
                "names are [a-z][a-z0-9_]*, at most 64 characters",
                "rename it",
            ));
        }
        if !names.insert(udf.name.clone()) {
            return Err(ModuleRefused::new(
                format!("`describe` names `{}` twice", udf.name),
                "names of udfs are unique in a module",
                "rename one",
            ));
        }
        if let Err(why) = check_schema(&udf.params) {
            return Err(ModuleRefused::new(
                format!("the parameters of udf `{}` have a schema that {why}", udf.name),
                "params is empty or the text of a JSON Schema of an object",
                "derive it from the parameters' type, or write {\"type\": \"object\", \"properties\": {…}}",
            ));
        }
    }
    let info = |udf: contract::UdfInfo| UdfInfo {
        name: udf.name,
        role: match udf.role {
            contract::types::Role::Aggregate => Role::Aggregate,
            contract::types::Role::Transform => Role::Transform,
        },
        doc: udf.doc,
        params_schema: udf.params,
    };
    Ok(listed.into_iter().map(info).collect())
}

fn check_schema(text: &str) -> Result<(), String> {
    if text.is_empty() {
        return Ok(());
    }
    let schema: serde_json::Value = serde_json::from_str(text).map_err(|error| format!("is no JSON ({error})"))?;
    let schema = schema.as_object().ok_or("is no JSON object")?;
    match schema.get("type").map(|kind| kind.as_str()) {
        None | Some(Some("object")) => {}
        Some(_) => return Err("has another type than object".to_owned()),
    }
    match schema.get("properties") {
        Some(properties) if !properties.is_object() => Err("has properties that are no object".to_owned()),
        _ => Ok(()),
    }
}

fn is_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    name.len() <= 64
        && bytes.next().is_some_and(|first| first.is_ascii_lowercase())
        && bytes.all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
}

pub(crate) fn kind_in(kind: contract::types::Kind) -> Kind {
    use contract::types::Kind as Wire;
    match kind {
        Wire::Boolean => Kind::Boolean,
        Wire::Int64 => Kind::Int64,
        Wire::Float64 => Kind::Float64,
        Wire::Timestamp => Kind::Timestamp,
        Wire::Utf8 => Kind::Utf8,
        Wire::Binary => Kind::Binary,
        Wire::Int64List => Kind::Int64List,
        Wire::Float32List => Kind::Float32List,
        Wire::Float64List => Kind::Float64List,
        Wire::Utf8List => Kind::Utf8List,
    }
}

pub(crate) fn kind_out(kind: Kind) -> contract::types::Kind {
    use contract::types::Kind as Wire;
    match kind {
        Kind::Boolean => Wire::Boolean,
        Kind::Int64 => Wire::Int64,
        Kind::Float64 => Wire::Float64,
        Kind::Timestamp => Wire::Timestamp,
        Kind::Utf8 => Wire::Utf8,
        Kind::Binary => Wire::Binary,
        Kind::Int64List => Wire::Int64List,
        Kind::Float32List => Wire::Float32List,
        Kind::Float64List => Wire::Float64List,
        Kind::Utf8List => Wire::Utf8List,
    }
}

/// Links nothing: what a module imports has been answered inside the component.
pub(crate) fn link(engine: &Engine, component: &Component) -> Result<contract::UdfPre<Guard>, ModuleRefused> {
    let linker: Linker<Guard> = Linker::new(&engine.wasm);
    linker.instantiate_pre(component).and_then(contract::UdfPre::new).map_err(|error| {
        ModuleRefused::new(
            format!("the component does not link: {error:#}"),
            "a component exports the four functions of udf.wit and imports nothing",
            "build from sdk/wit/udf.wit, without WASI",
        )
    })
}

impl ModuleInner {
    /// The checked description of a UDF of this module.
    pub(crate) fn info(&self, udf: &str) -> Option<&UdfInfo> {
        self.udfs.iter().find(|info| info.name == udf)
    }

    /// The instance's handle for what was prepared; prepares it there when it is new to the instance.
    pub(crate) fn handle(&self, instance: &mut Instance, prepared: &Prepared) -> Result<u32, CallFailure> {
        if let Some(handle) = instance.handle(prepared.id) {
            return Ok(handle);
        }
        let changed =
            |what: String| CallFailure::Invalid(format!("prepare answers differently in a new instance: {what}"));
        let answer = instance.prepare(&prepared.spec)?.map_err(changed)?;
        let info = self.info(&prepared.spec.udf).ok_or_else(|| changed("the udf is gone".to_owned()))?;
        let (outputs, claims) = check_prepared(info, &answer).map_err(changed)?;
        if outputs != prepared.outputs || claims != prepared.claims {
            return Err(changed("other outputs or claims".to_owned()));
        }
        instance.remember(prepared.id, answer.handle);
        Ok(answer.handle)
    }
}
