//! `module.udf@3` to the bytes it means, and what those bytes say of parameters and inputs.

use crate::define::canonical::canonical_json;
use crate::define::catalog::{ModuleCatalog, PreparedFacts, UdfRole, Wanted};
use crate::define::names::{check_name, hint};
use crate::define::typed::Parameters;
use crate::define::{Digest, ModuleVersion, OnDemandInput, Project, UdfUse};
use onefold_fold::Field;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// The bytes that a module's bare name means, by module.
pub type Pins = BTreeMap<String, Digest>;

/// Resolves UDFs and remembers which modules were used.
pub struct UdfResolver<'a> {
    catalog: &'a dyn ModuleCatalog,
    pins: &'a Pins,
    used: BTreeSet<ModuleVersion>,
    /// What bare names were resolved to: the lines of the lock.
    bare: BTreeMap<String, ModuleVersion>,
    /// What the registered features use was tried when they were applied.
    tried: BTreeSet<Trial>,
}

/// A UDF with its parameters, and its inputs by name and kind.
type Trial = (UdfUse, Vec<(String, &'static str)>);

fn trial(udf: &UdfUse, inputs: &[Field]) -> Trial {
    (udf.clone(), inputs.iter().map(|input| (input.name.clone(), input.kind.name())).collect())
}

impl<'a> UdfResolver<'a> {
    /// A resolver for a project of which this is registered.
    pub fn new(catalog: &'a dyn ModuleCatalog, pins: &'a Pins, registered: Option<&Project>) -> UdfResolver<'a> {
        let mut tried = BTreeSet::new();
        if let Some(project) = registered {
            let views = project.feature_views.values().flat_map(|view| &view.features);
            tried.extend(views.map(|feature| trial(&feature.udf, &feature.inputs)));
            let on_demand = project.on_demand_feature_views.values().flat_map(|view| &view.features);
            tried.extend(on_demand.map(|feature| {
                let inputs: Vec<Field> = feature.inputs.iter().map(OnDemandInput::field).collect();
                trial(&feature.udf, &inputs)
            }));
        }
        UdfResolver { catalog, pins, used: BTreeSet::new(), bare: BTreeMap::new(), tried }
    }

    /// Every module that was used, and what bare names were resolved to.
    pub fn into_used(self) -> (BTreeSet<ModuleVersion>, BTreeMap<String, ModuleVersion>) {
        (self.used, self.bare)
    }

    /// The UDF that a text means, with its parameters in canonical form.
    pub fn resolve(&mut self, text: &str, params: &Parameters) -> Result<UdfUse, String> {
        let wrong = || format!("`{text}` names no udf: write `module.udf`, or `module.udf@3` for one version");
        let (path, version) = match text.split_once('@') {
            Some((path, version)) => (path, Some(version.parse::<u32>().map_err(|_| wrong())?)),
            None => (text, None),
        };
        let (module, udf) = path.split_once('.').ok_or_else(wrong)?;
        check_name(module).and_then(|()| check_name(udf)).map_err(|_| wrong())?;
        let wanted = match (version, self.pins.get(module)) {
            (Some(version), _) => Wanted::Version(version),
            (None, Some(digest)) => Wanted::Bytes(*digest),
            (None, None) => Wanted::Newest,
        };
        let resolved = self.catalog.resolve(module, wanted)?;
        let names = self.catalog.udfs(&resolved.digest)?;
        if !names.iter().any(|name| name == udf) {
            let near = hint(udf, names.iter().map(String::as_str));
            let newest = match wanted {
                Wanted::Bytes(_) => self.catalog.resolve(module, Wanted::Newest).ok(),
                Wanted::Newest | Wanted::Version(_) => None,
            };
            let newest = newest.map(|newest| newest.version).filter(|newest| *newest > resolved.version);
            let newer = newest.map(|newest| format!("; version {newest} is taken with --upgrade {module}"));
            let (version, newer) = (resolved.version, newer.unwrap_or_default());
            return Err(format!("module `{module}` (version {version}{newer}) has no udf `{udf}`: {near}"));
        }
        let digest = resolved.digest;
        if version.is_none() {
            self.bare.insert(module.to_owned(), resolved.clone());
        }
        self.used.insert(resolved);
        let params = canonical_json(&Value::Object(params.0.clone()));
        Ok(UdfUse { module: module.to_owned(), digest, udf: udf.to_owned(), params })
    }

    /// What an aggregate says; refused where the UDF is none.
    pub fn aggregate(&self, udf: &UdfUse, inputs: &[Field]) -> Result<PreparedFacts, String> {
        let facts = self.prepare(udf, inputs)?;
        if facts.role != UdfRole::Aggregate {
            let name = shown(udf);
            return Err(format!("`{name}` is a transform, a feature needs an aggregate: use it under `transforms:`"));
        }
        Ok(facts)
    }

    /// What a transform says.
    pub fn transform(&self, udf: &UdfUse, inputs: &[Field]) -> Result<PreparedFacts, String> {
        let facts = self.prepare(udf, inputs)?;
        match facts.role {
            UdfRole::Transform => Ok(facts),
            UdfRole::Aggregate => {
                Err(format!("`{}` is an aggregate, a transform is needed here: use it in a feature", shown(udf)))
            }
        }
    }

    /// What a transform says that can run on demand: one row out for each, and no event time.
    pub fn on_demand(&self, udf: &UdfUse, inputs: &[Field]) -> Result<PreparedFacts, String> {
        let facts = self.transform(udf, inputs)?;
        if !facts.one_to_one {
            return Err(format!(
                "`{}` may give none or many rows for one, on demand each gives exactly one: let it claim `one-to-one`",
                shown(udf)
            ));
        }
        if facts.needs_event_time {
            return Err(format!(
                "`{}` asks for the event time, a request has none: pass a timestamp in the request instead",
                shown(udf)
            ));
        }
        Ok(facts)
    }

    /// Tries what a UDF claims with its real parameters and inputs, unless a registered feature uses it just so.
    /// `user`: who uses it, for the message.
    pub fn try_claims(&self, user: &str, udf: &UdfUse, inputs: &[Field]) -> Result<(), String> {
        if self.tried.contains(&trial(udf, inputs)) {
            return Ok(());
        }
        let (name, params) = (shown(udf), &udf.params);
        self.catalog
            .try_claims(udf, inputs)
            .map_err(|refused| format!("{user} cannot use `{name}` with {params}: {refused}"))
    }

    fn prepare(&self, udf: &UdfUse, inputs: &[Field]) -> Result<PreparedFacts, String> {
        self.catalog.prepare(&udf.digest, &udf.udf, &udf.params, inputs).map_err(|reason| {
            let inputs: Vec<_> = inputs.iter().map(|input| format!("{} {}", input.name, input.kind)).collect();
            format!("`{}` refuses ({}) with {}: {reason}", shown(udf), inputs.join(", "), udf.params)
        })
    }
}

fn shown(udf: &UdfUse) -> String {
    format!("{}.{}", udf.module, udf.udf)
}
