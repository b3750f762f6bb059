//! `onefold test`: the tests of a user's directory, as the program runs them, and what CI servers read of it.

use crate::command_line::run;
use crate::modules::ecommerce;
use serde_json::Value;
use std::path::Path;

const DEFINITIONS: &str = "
kind: project
name: shop
---
kind: module
name: ecommerce
path: built/ecommerce.wasm
---
kind: source
name: orders
stream: { push: {} }
event_time: at
schema: { at: timestamp, item: utf8, count: { type: int64, stream: $.line.count }, price: float64 }
transforms:
  - { udf: ecommerce.amount, inputs: [count, price], outputs: [amount] }
---
kind: entity
name: item
join_keys: { item: utf8 }
---
kind: feature_view
name: items
entities: [item]
source: orders
features:
  sold: { udf: std.sum, inputs: [count] }
  revenue_7d: { udf: std.sum, inputs: [amount], window: 7d }
---
kind: on_demand_feature_view
name: asked
request: { price: float64 }
features:
  ratio: { udf: ecommerce.price_ratio, inputs: [request.price, items.revenue_7d, items.sold] }
";

const TESTS: &str = "
kind: test
name: sums & windows <forget>
source: orders
events:
  - { at: 2026-01-01T10:00:00Z, item: a, count: 2, price: 3.5 }
  - { at: 2026-01-02T10:00:00Z, item: a, count: 1, price: 0.5 }
  - { at: 2026-01-02T10:00:00Z, item: b, count: 9, price: 0.5 }
lookups:
  - { at: 2026-01-03T00:00:00Z, view: items, entity: { item: a }, expect: { sold: 3, revenue_7d: 7.5 } }
  - { at: 2026-02-03T00:00:00Z, view: items, entity: { item: a }, expect: { sold: 3, revenue_7d: null } }
  - { at: 2026-01-03T00:00:00Z, view: asked, entity: { item: a }, request: { price: 5 }, expect: { ratio: 2.0 } }
---
kind: test
name: nobody
source: orders
events: []
lookups:
  - { at: 2026-01-03T00:00:00Z, view: items, entity: { item: c }, expect: { sold: null }, expect_status: NOT_FOUND }
";

fn shop(tests: &str) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let shop = directory.path().join("shop");
    std::fs::create_dir_all(shop.join("built")).unwrap();
    std::fs::write(shop.join("shop.yaml"), DEFINITIONS).unwrap();
    std::fs::write(shop.join("built/ecommerce.wasm"), ecommerce()).unwrap();
    std::fs::write(shop.join("tests.yaml"), tests).unwrap();
    directory
}

/// Its name, its attributes, its text.
type Element = (String, Vec<(String, String)>, String);

/// The elements of a document with their attributes and, for those that hold text alone, the text. Panics where it is
/// not well formed.
fn elements(xml: &str) -> Vec<Element> {
    let plain = |text: &str| {
        assert!(!text.contains('<') && text.split('&').skip(1).all(|part| part.contains(';')), "{text}");
        let text = [("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&apos;", "'"), ("&#10;", "\n"), ("&#9;", "\t")]
            .iter()
            .fold(text.to_owned(), |text, (entity, means)| text.replace(entity, means));
        text.replace("&amp;", "&")
    };
    let (mut found, mut open) = (Vec::new(), Vec::<String>::new());
    let mut parts = xml.strip_prefix("<?xml version=\"1.0\" encoding=\"UTF-8\"?>").expect("a declaration").split('<');
    assert_eq!(parts.next().map(str::trim), Some(""));
    for part in parts {
        let (tag, text) = part.split_once('>').unwrap_or_else(|| panic!("`<{part}` does not end"));
        if let Some(name) = tag.strip_prefix('/') {
            assert_eq!(open.pop().as_deref(), Some(name));
            continue;
        }
        let (tag, empty) = tag.strip_suffix('/').map_or((tag, false), |tag| (tag, true));
        let (name, mut rest) = tag.split_once(' ').unwrap_or((tag, ""));
        let mut attributes = Vec::new();
        while let Some((attribute, after)) = rest.split_once("=\"") {
            let (value, after) = after.split_once('"').expect("a value ends");
            attributes.push((attribute.trim().to_owned(), plain(value)));
            rest = after;
        }
        assert_eq!(rest.trim(), "", "{tag}");
        found.push((name.to_owned(), attributes, plain(text)));
        if !empty {
            open.push(name.to_owned());
        }
    }
    assert_eq!(open, Vec::<String>::new());
    found
}

fn attribute<'a>(element: &'a Element, name: &str) -> &'a str {
    let found = element.1.iter().find(|(one, _)| one == name);
    found.map_or_else(|| panic!("{element:?} has no {name}"), |(_, value)| value.as_str())
}

fn junit(path: &Path) -> Vec<Element> {
    elements(&std::fs::read_to_string(path).unwrap())
}

#[test]
fn a_directory_is_tested_with_nothing_but_itself() {
    let directory = shop(TESTS);
    let ran = run(directory.path(), &["test", "shop", "--junit", "junit.xml"]);
    assert_eq!(ran.code, 0, "{}{}", ran.out, ran.error);
    assert!(ran.out.starts_with("2 tests, 4 lookups, "), "{}", ran.out);
    assert!(ran.out.ends_with(": as expected in every stream, snapshot and training set\n"), "{}", ran.out);
    let left: Vec<_> = std::fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left.len(), 2, "neither data nor anything else is left: {left:?}");
    assert!(!directory.path().join("shop/onefold.lock").exists(), "a test resolves and pins nothing");
    let elements = junit(&directory.path().join("junit.xml"));
    let names: Vec<&str> = elements.iter().map(|(name, ..)| name.as_str()).collect();
    assert_eq!(names, ["testsuites", "testsuite", "testcase", "testcase"]);
    assert_eq!(
        (attribute(&elements[1], "tests"), attribute(&elements[1], "failures"), attribute(&elements[1], "errors")),
        ("2", "0", "0")
    );
    assert_eq!(
        (attribute(&elements[2], "classname"), attribute(&elements[2], "name"), attribute(&elements[2], "line")),
        ("shop/tests.yaml", "sums & windows <forget>", "3")
    );
    let json = run(directory.path(), &["test", "shop", "--json"]);
    let told: Value = serde_json::from_str(&json.out).unwrap();
    assert_eq!(
        (json.code, &told["tests"], &told["differ"], &told["cases"][1]["passed"]),
        (0, &2.into(), &0.into(), &true.into())
    );
}

#[test]
fn a_wrong_expectation_fails_and_is_shown_with_its_rows() {
    let directory = shop(&TESTS.replace("sold: 3, revenue_7d: 7.5", "sold: 4, revenue_7d: 7.500000000000001"));
    let ran = run(directory.path(), &["test", "shop", "--junit", "junit.xml"]);
    assert_eq!(ran.code, 1, "{}{}", ran.out, ran.error);
    for said in [
        "shop/tests.yaml:10: `sums & windows <forget>`: items of item=a at 2026-01-03T00:00:00.000000Z\n",
        "  sold: expected 4, found 3\n",
        "  revenue_7d: expected 7.500000000000001, found 7.5\n",
        "  on every path\n",
        "  row 2026-01-01T10:00:00.000000Z {\"at\":",
        "\"line\":{\"count\":2}",
        " answers: 1 test failed, 2 differences\n",
    ] {
        assert!(ran.out.contains(said), "`{said}` is missing in\n{}", ran.out);
    }
    assert!(!ran.out.contains("\"b\""), "rows of others say nothing:\n{}", ran.out);
    let elements = junit(&directory.path().join("junit.xml"));
    let failure = elements.iter().find(|(name, ..)| name == "failure").unwrap();
    assert_eq!(attribute(failure, "message"), "revenue_7d: expected 7.500000000000001, found 7.5; and 1 more");
    assert!(failure.2.contains("`sums & windows <forget>`") && failure.2.contains("sold: expected 4"), "{failure:?}");
    assert_eq!(attribute(&elements[0], "failures"), "1");
}

#[test]
fn what_cannot_be_tested_is_no_success() {
    let directory = shop("");
    let here = |arguments: &[&str]| run(directory.path(), arguments);
    let without = here(&["test", "shop"]);
    assert_eq!(without.code, 2);
    assert!(
        without.error.starts_with("error: shop: there is no test in it: add a document with `kind: test`"),
        "{}",
        without.error
    );
    assert_eq!(here(&["test", "nowhere"]).error, "error: nowhere: there is no such directory\n");

    std::fs::write(directory.path().join("shop/tests.yaml"), TESTS.replace("count: 9", "cuont: 9")).unwrap();
    let ran = here(&["test", "shop", "--junit", "junit.xml"]);
    assert_eq!(ran.code, 2, "{}", ran.error);
    assert!(ran.error.contains("shop/tests.yaml:3: event 3: source `orders` has no column `cuont`"), "{}", ran.error);
    let elements = junit(&directory.path().join("junit.xml"));
    let names: Vec<&str> = elements.iter().map(|(name, ..)| name.as_str()).collect();
    assert_eq!(names, ["testsuites", "testsuite", "testcase", "error"]);
    assert_eq!((attribute(&elements[1], "errors"), attribute(&elements[2], "classname")), ("1", "shop"));
    assert_eq!(here(&["test", "shop", "--junit", "no/where.xml"]).code, 3);

    // A module that only a registry has.
    let definitions = directory.path().join("shop/shop.yaml");
    std::fs::write(directory.path().join("shop/tests.yaml"), TESTS).unwrap();
    std::fs::write(&definitions, DEFINITIONS.replace("kind: module\nname: ecommerce", "kind: module\nname: other"))
        .unwrap();
    let ran = here(&["test", "shop"]);
    assert_eq!(ran.code, 2);
    assert!(
        ran.error.contains(
            "there is no module `ecommerce` beside the definitions, and tests read no registry: add `kind: module`"
        ),
        "{}",
        ran.error
    );
    std::fs::write(&definitions, DEFINITIONS.replace("ecommerce.amount,", "ecommerce.amount@7,")).unwrap();
    assert!(here(&["test", "shop"]).error.contains("write `ecommerce.…` without `@7`"));

    // A lock that pins other bytes of `std` than this program's; a module of the directory takes its own bytes.
    std::fs::write(&definitions, DEFINITIONS).unwrap();
    let other = "sha256:00000000000000000000000000000000000000000000000000000000000000ff";
    let lock = |module: &str| format!("modules:\n  {module}: {{ version: 1, digest: \"{other}\" }}\n");
    std::fs::write(directory.path().join("shop/onefold.lock"), lock("std")).unwrap();
    let ran = here(&["test", "shop"]);
    assert_eq!(ran.code, 2, "{}", ran.out);
    assert!(ran.error.contains("onefold.lock wants sha256:00") && ran.error.contains("--upgrade std"), "{}", ran.error);
    assert_eq!(here(&["test", "shop", "--upgrade", "std"]).code, 0);
    std::fs::write(directory.path().join("shop/onefold.lock"), lock("ecommerce")).unwrap();
    assert_eq!(here(&["test", "shop"]).code, 0);
}
