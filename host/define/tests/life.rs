//! The life of a definition: renamed, left out, pruned, taken over, removed, rolled back.

use super::*;
use crate::registry::{plan_removal, plan_rollback};

impl Bench {
    fn error(&self, text: &str) -> String {
        self.plan(text).unwrap_err().to_string()
    }

    fn commit(&self, proposal: &Proposal) -> Revision {
        commit(&self.registry, &CACHE, proposal, 1).unwrap()
    }

    fn remove(&self, removed: &Removed) -> Result<Proposal, RegistryError> {
        plan_removal(&self.registry, &CACHE, removed, &ApplyOptions::default())
    }
}

fn pruning() -> ApplyOptions {
    ApplyOptions { prune: true, ..ApplyOptions::default() }
}

fn signs(proposal: &Proposal) -> Vec<String> {
    let shown = |change: &Change| {
        let feature = change.feature.as_ref().map(|feature| format!(".{feature}")).unwrap_or_default();
        let from = change.renamed_from.as_ref().map(|from| format!(" < {from}")).unwrap_or_default();
        format!("{} {} {}{feature}{from}", change.change.sign(), change.kind, change.name)
    };
    proposal.plan.changes.iter().map(shown).collect()
}

const RENAMED: &str = "
kind: source
name: purchases
renamed_from: orders
stream: { push: {} }
event_time: at
schema: { at: timestamp, user_id: utf8, item_id: utf8, quantity: int64, price: float64, note: utf8 }
transforms:
  - { udf: std.coalesce, inputs: [quantity], outputs: [units] }
---
kind: entity
name: customer
renamed_from: user
join_keys: { user_id: utf8 }
---
kind: feature_view
name: customer_totals
renamed_from: totals
source: purchases
entities: [customer]
ttl: 90d
features:
  pieces_30d: { udf: std.sum, inputs: [units], window: 30d, where: { column: price, op: gt, value: 1 }, renamed_from: units_30d }
  spent: { udf: std.last_n_mean, inputs: [price], params: { n: 5 } }
---
kind: on_demand_feature_view
name: at_once
renamed_from: now
request: { price: float64 }
features:
  asked: { udf: std.coalesce, inputs: [request.price, customer_totals.spent], renamed_from: price }
---
kind: feature_service
name: big_model
renamed_from: model
features: [customer_totals, at_once]
";

#[test]
fn everything_renamed_is_renamed_and_nothing_is_built() {
    let bench = Bench::new();
    let before = bench.apply(SHOP).project;
    let proposal = bench.plan(RENAMED).unwrap();
    assert_eq!(
        signs(&proposal),
        [
            "> source purchases < orders",
            "> entity customer < user",
            "> feature_view customer_totals < totals",
            "> on_demand_feature_view at_once < now",
            "> feature_service big_model < model",
            "> feature_view customer_totals.pieces_30d < units_30d",
            "> on_demand_feature_view at_once.asked < price",
        ]
    );
    assert!(proposal.plan.changes.iter().all(|change| change.cost.build == Build::None));
    assert_eq!(proposal.plan.breaks(), Vec::<&str>::new());
    let revision = bench.commit(&proposal);
    assert_eq!(revision.project.sources["purchases"].lineage, "orders");
    let fingerprints =
        |project: &Project| digests(project).into_iter().map(|(_, digest)| digest).collect::<BTreeSet<_>>();
    assert_eq!(fingerprints(&revision.project), fingerprints(&before));

    // The same file again changes nothing, and says that it need not say so any more.
    let again = bench.plan(RENAMED).unwrap();
    assert_eq!(signs(&again), Vec::<String>::new());
    let notes = again.plan.warnings.iter().filter(|warning| warning.contains("is called")).count();
    assert_eq!(notes, 7, "{:?}", again.plan.warnings);

    let back = plan_rollback(&bench.registry, 1, &ApplyOptions::default()).unwrap();
    assert_eq!(signs(&back).len(), 7);
    assert!(back.plan.changes.iter().all(|change| change.change == ChangeKind::Rename), "{}", back.plan);
    assert_eq!(back.plan.breaks(), Vec::<&str>::new());
    assert_eq!(back.project, before);

    // And there and back again: what a rollback renamed is undone like any other.
    bench.commit(&back);
    let forth = plan_rollback(&bench.registry, 2, &ApplyOptions::default()).unwrap();
    assert_eq!(signs(&forth), signs(&proposal));
    assert_eq!(forth.plan.breaks(), Vec::<&str>::new());
    bench.commit(&forth);

    // Another source may have the old name, and shares nothing with the first.
    let proposal = bench.plan(SHOP.split("---").next().unwrap()).unwrap();
    assert_eq!(proposal.project.sources["orders"].lineage, "orders-2");
    bench.commit(&proposal);
    let back = bench.commit(&plan_rollback(&bench.registry, 1, &allowing()).unwrap());
    assert_eq!(back.project, before);
}

fn allowing() -> ApplyOptions {
    ApplyOptions { allow_breaking: true, ..ApplyOptions::default() }
}

#[test]
fn a_rename_that_cannot_be_is_said_with_its_line() {
    let bench = Bench::new();
    // Nothing is registered yet: the same files go to every environment.
    let first = bench.plan(&SHOP.replace("name: orders", "name: orders\nrenamed_from: sales")).unwrap();
    assert!(first.plan.warnings.iter().any(|warning| warning.contains("no source `sales`")), "{}", first.plan);
    bench.apply(SHOP);
    let entity = |name: &str, from: &str| {
        format!("kind: entity\nname: {name}\nrenamed_from: {from}\njoin_keys: {{ user_id: utf8 }}\n---\n")
    };
    let set = "kind: project\nname: shop\nset: other\n---\n";
    let feature = "kind: feature_view\nname: totals\nsource: orders\nentities: [user]\nfeatures:\n  ";
    for (text, expected) in [
        (entity("person", "usr"), "shop.yaml:3: no entity `usr` is registered that could be renamed: did you mean `user`?"),
        (entity("user", "user"), "shop.yaml:3: `user` is renamed from itself: remove `renamed_from`"),
        (entity("a", "user") + &entity("b", "user"), "shop.yaml:8: `user` is renamed twice, first at shop.yaml:3"),
        (
            entity("a", "user") + "kind: entity\nname: user\njoin_keys: { user_id: utf8 }",
            "shop.yaml:3: `user` is still defined, at shop.yaml:7: remove it there",
        ),
        (set.to_owned() + &entity("a", "user"), "shop.yaml:7: `user` belongs to set `shop`, this is set `other`"),
        (
            "kind: feature_view\nname: v\nrenamed_from: now\nsource: orders\nentities: [user]\nfeatures: { n: { udf: std.count } }".to_owned(),
            "shop.yaml:3: `now` is a view of the other kind, which is no rename",
        ),
        (
            "kind: feature_view\nname: now\nsource: orders\nentities: [user]\nfeatures: { n: { udf: std.count } }".to_owned(),
            "shop.yaml:2: `now` is registered as a view of the other kind, and nothing is removed without --prune",
        ),
        (
            format!("{feature}n: {{ udf: std.count, renamed_from: spnt }}"),
            "shop.yaml:6: view `totals` has no feature `spnt` registered that could be renamed: did you mean `spent`?",
        ),
        (
            format!("{feature}spent: {{ udf: std.count }}\n  n: {{ udf: std.count, renamed_from: spent }}"),
            "shop.yaml:7: `spent` is still defined, at shop.yaml:6",
        ),
        (
            format!("{feature}m: {{ udf: std.count, renamed_from: spent }}\n  n: {{ udf: std.count, renamed_from: spent }}"),
            "shop.yaml:7: `spent` is renamed twice, first at shop.yaml:6",
        ),
    ] {
        let error = bench.error(&text);
        assert!(error.contains(expected), "{text}\n{error}");
    }
    // References elsewhere must use the new name; what stays registered follows by itself.
    let source = SHOP.split("---").next().unwrap().replace("name: orders", "name: sales\nrenamed_from: orders");
    let view = SHOP.split("---").nth(2).unwrap();
    let error = bench.error(&format!("{source}---{view}"));
    assert!(error.contains("no source `orders`"), "{error}");
    let kept = bench.plan(&source).unwrap();
    assert_eq!(signs(&kept), ["> source sales < orders"]);
    assert_eq!(kept.project.feature_views["totals"].source, "sales");
}

#[test]
fn every_window_of_a_feature_is_renamed() {
    let bench = Bench::new();
    let view = |name: &str| {
        SHOP.replace("units_30d: { udf: std.sum, inputs: [units], window: 30d", &format!("{name}, windows: [1d, 30d]"))
    };
    bench.apply(&view("units: { udf: std.sum, inputs: [units]"));
    let proposal = bench.plan(&view("pieces: { renamed_from: units, udf: std.sum, inputs: [units]")).unwrap();
    assert_eq!(
        signs(&proposal),
        ["> feature_view totals.pieces_1d < units_1d", "> feature_view totals.pieces_30d < units_30d"]
    );
    // A service that named the whole view goes on with the features that it spelled out.
    let service = &proposal.project.feature_services["model"];
    assert!(service.features.iter().any(|one| one.feature == "pieces_1d"), "{service:?}");
}

#[test]
fn what_a_directory_leaves_out_stays_until_it_is_pruned_by_its_own_set() {
    let bench = Bench::new();
    let other = "kind: project\nname: shop\nset: other\n---\nkind: entity\nname: item\njoin_keys: { item_id: utf8 }\n---\n\
                 kind: feature_view\nname: items\nsource: orders\nentities: [item]\nfeatures:\n  n: { udf: std.count }\n";
    bench.apply(SHOP);
    bench.apply(other);

    // Without --prune: a feature, a view that nothing reads.
    let documents: Vec<&str> = SHOP.split("---").collect();
    let fewer = documents[..3].join("---").replace("  units_30d", "  # units_30d");
    let proposal = bench.plan(&fewer).unwrap();
    assert_eq!(signs(&proposal), Vec::<String>::new());
    let note = "set `shop` has registered what is not here, and it stays: feature view `now`, feature service `model`, \
                feature `totals.units_30d`; --prune removes it";
    assert!(proposal.plan.warnings.contains(&note.to_owned()), "{:?}", proposal.plan.warnings);

    let proposal = bench.plan_with(&fewer, &pruning()).unwrap();
    assert_eq!(
        signs(&proposal),
        ["- feature_view totals.units_30d", "- on_demand_feature_view now", "- feature_service model"]
    );
    assert_eq!(proposal.plan.breaks(), Vec::<&str>::new(), "what goes breaks nothing that stays");
    let project = bench.commit(&proposal).project;
    assert!(project.feature_views.contains_key("items"), "another set's stays");

    // What another set stands on is not pruned away without a word.
    let proposal = bench.plan_with("kind: project\nname: shop", &pruning()).unwrap();
    let breaks = proposal.plan.breaks();
    assert_eq!(breaks, ["feature view `items` loses all features, its source `orders` is removed"]);

    // A feature that stays and no longer fits.
    bench.apply(SHOP);
    let narrower =
        documents[..3].join("---").replace("note: utf8", "note: json").replace("price: float64", "price: int64");
    let without = narrower.replace("  spent", "  # spent").replace("value: 1 }", "value: 2 }");
    let breaks = bench.plan(&without).unwrap();
    let said = "feature view `totals` loses `spent`, column `price` is gone or of another type";
    assert!(breaks.plan.breaks().contains(&said), "{}", breaks.plan);
}

#[test]
fn a_set_can_take_over_what_another_has_made() {
    let bench = Bench::new();
    bench.apply(SHOP);
    let text = format!("kind: project\nname: shop\nset: web\n---{SHOP}");
    assert!(bench.error(&text).contains("with --take-over shop"));
    let options = ApplyOptions { take_over: Some("shop".into()), ..ApplyOptions::default() };
    let proposal = bench.plan_with(&text, &options).unwrap();
    assert!(
        proposal
            .plan
            .changes
            .iter()
            .all(|change| change.change == ChangeKind::Update && change.cost.build == Build::None)
    );
    bench.commit(&proposal);
    assert!(bench.plan(&text).unwrap().plan.changes.is_empty());
}

#[test]
fn a_removal_says_what_it_breaks() {
    let bench = Bench::new();
    bench.apply(SHOP);
    let document = |kind, name: &str| Removed::Document { kind, name: name.into() };
    for (removed, goes, breaks) in [
        (document(DocumentKind::FeatureService, "model"), vec!["- feature_service model"], vec![]),
        (
            document(DocumentKind::FeatureView, "now"),
            vec!["- on_demand_feature_view now", "~ feature_service model"],
            vec!["feature service `model` loses `now.price`"],
        ),
        (
            document(DocumentKind::Entity, "user"),
            vec!["- entity user", "- feature_view totals", "- on_demand_feature_view now", "- feature_service model"],
            vec![
                "feature view `totals` loses all features, its entity `user` is removed",
                "on demand feature view `now` loses `price`, it reads `totals.spent`",
                "feature service `model` loses `totals.units_30d`",
                "feature service `model` loses `totals.spent`",
                "feature service `model` loses `now.price`",
            ],
        ),
        (
            Removed::Feature { view: "totals".into(), feature: "units_30d".into() },
            vec!["- feature_view totals.units_30d", "~ feature_service model"],
            vec!["feature service `model` loses `totals.units_30d`"],
        ),
    ] {
        let proposal = bench.remove(&removed).unwrap();
        assert_eq!(signs(&proposal), goes);
        let told: BTreeSet<&str> = proposal.plan.breaks().into_iter().collect();
        assert_eq!(told, breaks.into_iter().collect::<BTreeSet<_>>());
    }
    let error = bench.remove(&document(DocumentKind::Source, "order")).unwrap_err().to_string();
    assert_eq!(error, "there is no source `order`; did you mean `orders`?");
}

#[test]
fn a_rollback_is_a_revision_that_says_where_it_went() {
    let bench = Bench::new();
    let first = bench.apply(SHOP);
    let more = SHOP.replace("  spent:", "  visits: { udf: std.count }\n  spent:");
    bench.apply(&more);
    let proposal = plan_rollback(&bench.registry, 1, &ApplyOptions::default()).unwrap();
    assert_eq!(signs(&proposal), ["- feature_view totals.visits", "~ feature_service model"]);
    assert_eq!(proposal.plan.breaks(), ["feature service `model` loses `totals.visits`"]);
    assert!(matches!(commit(&bench.registry, &CACHE, &proposal, 2), Err(RegistryError::Breaks(_))));
    let back = bench.commit(&plan_rollback(&bench.registry, 1, &allowing()).unwrap());
    assert_eq!((back.number, back.rollback_to), (3, Some(1)));
    assert_eq!(back.project, first.project);
    assert_eq!(bench.registry.revision(3).unwrap().changes.len(), 2);
    // Where it is already, and where it never was.
    assert!(plan_rollback(&bench.registry, 3, &allowing()).unwrap().plan.changes.is_empty());
    let error = plan_rollback(&bench.registry, 9, &allowing()).unwrap_err().to_string();
    assert!(error.contains("has no revision 9"), "{error}");
    let seen = ApplyOptions { expected: Some(2), ..allowing() };
    assert!(matches!(plan_rollback(&bench.registry, 1, &seen), Err(RegistryError::Conflict(_))));
}
