//! Definitions as data: every file of `tests/data/define` says on each line what is wrong with it.

use super::*;
use crate::registry::{ApplyOptions, ModuleCache, Proposal, Registry, RegistryError, Revision, commit, plan_apply};
use crate::std_module::STD_WASM;
use crate::storage::LocalStorage;
use onefold_fold::{Engine, Limits};
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, LazyLock};

mod life;

/// Compiling `std` takes longer than all tests here.
static CACHE: LazyLock<ModuleCache> = LazyLock::new(|| ModuleCache::new(Engine::new(Limits::default()).unwrap()));

/// A registry in a directory of its own, and what applies to it.
struct Bench {
    directory: tempfile::TempDir,
    registry: Registry,
}

impl Bench {
    fn new() -> Bench {
        let directory = tempfile::tempdir().unwrap();
        let storage = LocalStorage::open(directory.path()).unwrap();
        Bench { registry: Registry::of(Arc::new(storage), "shop").unwrap(), directory }
    }

    fn plan(&self, text: &str) -> Result<Proposal, RegistryError> {
        self.plan_with(text, &ApplyOptions::default())
    }

    fn plan_with(&self, text: &str, options: &ApplyOptions) -> Result<Proposal, RegistryError> {
        plan_apply(&self.registry, &CACHE, STD_WASM, &read_text("shop.yaml", text)?, options)
    }

    fn apply(&self, text: &str) -> Revision {
        commit(&self.registry, &CACHE, &self.plan(text).unwrap(), 1).unwrap()
    }
}

const SHOP: &str = "
kind: source
name: orders
stream: { push: {} }
event_time: at
schema: { at: timestamp, user_id: utf8, item_id: utf8, quantity: int64, price: float64, note: utf8 }
transforms:
  - { udf: std.coalesce, inputs: [quantity], outputs: [units] }
---
kind: entity
name: user
join_keys: { user_id: utf8 }
---
kind: feature_view
name: totals
source: orders
entities: [user]
ttl: 90d
features:
  units_30d: { udf: std.sum, inputs: [units], window: 30d, where: { column: price, op: gt, value: 1 } }
  spent: { udf: std.last_n_mean, inputs: [price], params: { n: 5 } }
---
kind: on_demand_feature_view
name: now
request: { price: float64 }
features:
  price: { udf: std.coalesce, inputs: [request.price, totals.spent] }
---
kind: feature_service
name: model
features: [totals, now]
";

fn digests(project: &Project) -> Vec<(String, Digest)> {
    let views = project.feature_views.values().flat_map(|view| &view.features);
    let on_demand = project.on_demand_feature_views.values().flat_map(|view| &view.features);
    let views = views.map(|feature| (feature.name.clone(), feature.fingerprint));
    views.chain(on_demand.map(|feature| (feature.name.clone(), feature.fingerprint))).collect()
}

/// The names of the features whose fingerprints an edit moves.
fn moved_by(from: &str, to: &str) -> Vec<String> {
    assert!(SHOP.contains(from), "{from}");
    let bench = Bench::new();
    let before = digests(&bench.plan(SHOP).unwrap().project);
    let after = digests(&bench.plan(&SHOP.replace(from, to)).unwrap().project);
    let moved = before.iter().zip(&after).filter(|(before, after)| before.1 != after.1);
    moved.map(|(before, _)| before.0.clone()).collect()
}

#[test]
fn every_data_file_says_what_is_wrong_with_it() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/define");
    let mut files: Vec<_> = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(files.len() >= 4, "{files:?}");
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        let mut expected: BTreeSet<(u32, &str)> = BTreeSet::new();
        for (line, number) in text.lines().zip(1..) {
            // The comment at the top tells of the mark itself.
            let marked = line.split("#!").skip(1).filter(|_| !line.starts_with('#'));
            expected.extend(marked.map(|message| (number, message.trim())));
        }
        let bench = Bench::new();
        let found = read_directory(&file).map_err(RegistryError::from);
        let found =
            found.and_then(|read| plan_apply(&bench.registry, &CACHE, STD_WASM, &read, &ApplyOptions::default()));
        let problems = match &found {
            Ok(_) => &[],
            Err(RegistryError::Define(error)) => error.problems(),
            Err(other) => panic!("{}: {other}", file.display()),
        };
        let shown = problems.iter().map(Problem::to_string).collect::<Vec<_>>().join("\n");
        for (line, message) in &expected {
            let hit = problems.iter().any(|problem| problem.line == *line && problem.message.contains(message));
            assert!(hit, "{}:{line}: expected `{message}` among\n{shown}", file.display());
        }
        assert_eq!(problems.len(), expected.len(), "{}: more than expected in\n{shown}", file.display());
    }
}

/// What `design.md` lists as part of a fingerprint, line by line, each moving exactly what hangs on it.
#[test]
fn a_fingerprint_moves_with_what_its_values_hang_on() {
    let all = ["units_30d", "spent", "price"];
    for (from, to, moved) in [
        // UDF and parameters, and through them the on-demand features that read the value.
        ("udf: std.last_n_mean", "udf: std.last_n_sum", vec!["spent", "price"]),
        ("n: 5", "n: 6", vec!["spent", "price"]),
        (
            "udf: std.coalesce, inputs: [request.price, totals.spent]",
            "udf: std.coalesce, inputs: [totals.spent, request.price]",
            vec!["price"],
        ),
        // Used columns: their types and where they are taken from.
        ("price: float64, note", "price: { type: float64, stream: $.p }, note", all.to_vec()),
        ("price: float64, note", "price: { type: float64, batch: p }, note", all.to_vec()),
        ("quantity: int64", "quantity: float64", vec!["units_30d"]),
        ("user_id: utf8, item_id", "user_id: { type: utf8, stream: $.u }, item_id", all.to_vec()),
        // Time.
        ("at: timestamp,", "at: timestamp_ms,", all.to_vec()),
        ("event_time: at", "event_time: at\nmax_future: 2h", all.to_vec()),
        // Filter and window, with what the window resolves to.
        ("op: gt", "op: ge", vec!["units_30d"]),
        ("value: 1 }", "value: 2 }", vec!["units_30d"]),
        ("window: 30d", "window: 31d", vec!["units_30d"]),
        ("window: 30d", "window: { sliding: 30d, hop: 1h }", vec!["units_30d"]),
        ("window: 30d", "window: { sliding: 30d, offset: 1d }", vec!["units_30d"]),
        ("window: 30d", "window: { sliding: 30d, align: 1h }", vec!["units_30d"]),
        // A transform that is one-to-one moves what uses its columns; one that is not moves everything.
        ("inputs: [quantity], outputs: [units]", "inputs: [quantity, quantity], outputs: [units]", vec!["units_30d"]),
        (
            "outputs: [units] }",
            "outputs: [units] }\n  - { udf: std.filter, inputs: [note], params: { op: not_null } }",
            all.to_vec(),
        ),
    ] {
        assert_eq!(moved_by(from, to), moved, "{from} -> {to}");
    }
}

/// What `design.md` leaves out of a fingerprint: a change of it keeps state and values.
#[test]
fn a_fingerprint_stays_with_names_and_what_is_not_used() {
    for (from, to) in [
        ("ttl: 90d", "ttl: 1d\ndescription: text\nowner: me\ntags: { a: b }\nright: exclusive\nonline: false"),
        ("note: utf8", "note: json, more: boolean"),
        ("event_time: at", "event_time: at\nout_of_orderness: 5m\nbatch: ~"),
        // The resolved hop is what counts, not that it was written.
        ("window: 30d", "window: { sliding: 30d, hop: 1d, align: 1d }"),
        // A column under another name, from the same places.
        ("schema: { at: timestamp,", "schema: { other: utf8, at: timestamp,"),
        // A one-to-one transform that nothing uses.
        ("outputs: [units] }", "outputs: [units] }\n  - { udf: std.coalesce, inputs: [note], outputs: [noted] }"),
        // All conditions must hold, so one that is written twice, or as a list, is the same.
        ("where: { column: price, op: gt, value: 1 }", "where: [{ column: price, op: gt, value: 1.0 }]"),
    ] {
        assert_eq!(moved_by(from, to), Vec::<String>::new(), "{from} -> {to}");
    }
    let renamed = SHOP
        .replace("quantity: int64", "amount: { type: int64, stream: $.quantity, batch: quantity }")
        .replace("[quantity]", "[amount]")
        .replace("outputs: [units]", "outputs: [pieces]")
        .replace("inputs: [units]", "inputs: [pieces]");
    let bench = Bench::new();
    assert_eq!(digests(&bench.plan(&renamed).unwrap().project), digests(&bench.plan(SHOP).unwrap().project));
}

#[test]
fn an_apply_is_a_revision_and_the_next_one_changes_only_what_differs() {
    let bench = Bench::new();
    let first = bench.plan(SHOP).unwrap();
    assert_eq!((first.base, first.plan.revision), (0, 1));
    let spent = first.plan.changes.iter().find(|change| change.feature.as_deref() == Some("spent")).unwrap();
    assert_eq!((spent.change, spent.cost.build), (ChangeKind::Create, Build::Rebuild));
    let text = first.plan.to_string();
    assert!(text.contains("covers 30 d to 31 d, hop 1 d"), "{text}");

    let revision = commit(&bench.registry, &CACHE, &first, 7).unwrap();
    assert_eq!(bench.registry.newest().unwrap().unwrap(), revision);
    assert_eq!(bench.registry.module("std", None).unwrap().version, 1);
    assert!(bench.plan(SHOP).unwrap().plan.changes.is_empty());

    let window = bench.plan(&SHOP.replace("window: 30d", "window: 7d")).unwrap();
    let changes: Vec<_> =
        window.plan.changes.iter().map(|change| (change.feature.as_deref(), change.cost.build)).collect();
    assert_eq!(changes, [(Some("units_30d"), Build::Column)]);

    // Planned on revision 1, committed after revision 2: someone else was faster.
    bench.apply(&SHOP.replace("ttl: 90d", "ttl: 30d"));
    let error = commit(&bench.registry, &CACHE, &window, 9).unwrap_err();
    assert!(matches!(error, RegistryError::Conflict(_)), "{error}");
    let expected = ApplyOptions { expected: Some(1), ..ApplyOptions::default() };
    assert!(matches!(bench.plan_with(SHOP, &expected), Err(RegistryError::Conflict(_))));

    let in_use = bench.registry.delete_module("std", 1).unwrap_err();
    assert!(matches!(in_use, RegistryError::Conflict(_)), "{in_use}");
    assert_eq!(Registry::projects(&LocalStorage::open(bench.directory.path()).unwrap()).unwrap(), ["shop"]);
}

#[test]
fn what_is_not_in_the_directory_stays_and_what_it_loses_is_refused() {
    let bench = Bench::new();
    bench.apply(SHOP);
    let other = "kind: entity\nname: item\njoin_keys: { item_id: utf8 }";
    let more = bench.plan(other).unwrap();
    assert_eq!(more.plan.changes.len(), 1, "{}", more.plan);
    assert!(more.project.feature_views.contains_key("totals"));
    let foreign = "kind: project\nname: shop\nset: other\n---\nkind: entity\nname: user\njoin_keys: { user_id: utf8 }";
    let error = bench.plan(foreign).unwrap_err().to_string();
    assert!(error.contains("belongs to set `shop`, this is set `other`"), "{error}");

    // A column that a feature needs goes, and the feature with it: what reads the feature breaks.
    let documents: Vec<&str> = SHOP.split("---").collect();
    let without = documents[0].replace("price: float64", "price: utf8");
    let proposal = bench.plan(&without).unwrap();
    let breaks = proposal.plan.breaks();
    assert!(
        breaks.iter().any(|text| text.contains("`spent`, column `price` is gone or of another type")),
        "{breaks:?}"
    );
    assert!(breaks.contains(&"feature service `model` loses `totals.spent`"), "{breaks:?}");
    assert!(matches!(commit(&bench.registry, &CACHE, &proposal, 2), Err(RegistryError::Breaks(_))));
    let allowed = ApplyOptions { allow_breaking: true, ..ApplyOptions::default() };
    let revision = commit(&bench.registry, &CACHE, &bench.plan_with(&without, &allowed).unwrap(), 2).unwrap();
    assert!(!revision.project.feature_services.contains_key("model"), "it lost everything");
}

#[test]
fn a_json_list_says_what_yaml_says() {
    let bench = Bench::new();
    let yaml = bench.plan("kind: entity\nname: item\njoin_keys: { item_id: utf8 }").unwrap();
    let json = bench.plan(r#"[{"kind": "entity", "name": "item", "join_keys": {"item_id": "utf8"}}]"#).unwrap();
    assert_eq!(yaml.project, json.project);
    let error = bench.plan("[\n{\"kind\": \"entity\",\n\"nam\": \"item\"}]").unwrap_err().to_string();
    assert!(error.starts_with("shop.yaml:3: unknown key `nam`: did you mean `name`?"), "{error}");
}

/// An anchor that doubles at every step once took a parser's whole memory.
#[test]
fn anchors_do_not_explode() {
    let mut text = "kind: test\nname: bomb\nsource: s\nlookups: []\nevents:\n - &a0 {x: 1}\n".to_owned();
    for step in 1..40 {
        text.push_str(&format!(" - &a{step} {{x: [*a{0}, *a{0}]}}\n", step - 1));
    }
    let error = read_text("bomb.yaml", &text).unwrap_err().to_string();
    assert!(error.starts_with("bomb.yaml:"), "{error}");
}

mod outside_text {
    use super::*;
    use crate::define::{duration_text, parse_duration};
    use crate::mangle::outside_text;
    use proptest::prelude::*;

    const GOOD: &str = include_str!("../../tests/data/define/good.yaml");

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1024))]

        /// Whatever is sent is documents or problems, each with a line of the text.
        #[test]
        fn is_documents_or_problems(text in outside_text(GOOD)) {
            match read_text("body", &text) {
                Ok(definitions) => {
                    let _ = crate::define::module_files(&definitions);
                    let _ = crate::define::project_name(&definitions, None);
                }
                Err(error) => {
                    prop_assert!(!error.problems().is_empty());
                    for problem in error.problems() {
                        // A lone carriage return ends a line of YAML, too.
                        let lines = text.split(['\n', '\r']).count() as u32;
                        prop_assert!(problem.line <= lines + 1, "{problem} of {lines} lines");
                        prop_assert!(!problem.message.contains('\n'), "{problem}");
                    }
                }
            }
        }

        #[test]
        fn is_json_or_a_problem(text in outside_text(r#"[{"kind":"entity","name":"e","join_keys":{"k":"utf8"}}]"#)) {
            let _ = read_text("body", &text);
        }

        #[test]
        fn is_a_duration_or_none(text in outside_text("-36525d23h59m59s999ms")) {
            if let Ok(us) = parse_duration(&text) {
                let words = duration_text(us).replace(" ", "");
                prop_assert_eq!(parse_duration(&words), Ok(us), "{}", text);
            }
        }

        #[test]
        fn is_a_window_or_a_problem(window in outside_text("{ sliding: 30d, hop: 1d, offset: 7d, align: -9h }")) {
            let text = format!("kind: feature_view\nname: v\nentities: [e]\nsource: s\nfeatures:\n  f: {{ udf: std.count, window: {window} }}\n");
            let _ = read_text("body", &text);
            if let Ok(typed) = crate::define::read_yaml::<crate::define::located::TextOr<crate::define::typed::WindowShape>>("w", &window) {
                let _ = crate::define::window_text::resolve_window(&typed);
            }
        }
    }
}
