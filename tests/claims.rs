//! A module is what it claims, or it is refused: when it is pushed, and with a definition's parameters when it is used.

use crate::modules::{ecommerce, guest, root};
use arrow::array::StringArray;
use onefold::clock::{Clock, ManualClock, SystemClock};
use onefold::define::{Definitions, read_directory, read_text};
use onefold::platform::{Platform, PlatformError, PlatformSettings, module_cache};
use onefold::registry::{ApplyOptions, ModuleCache};
use onefold::std_module::STD_WASM;
use onefold::storage::LocalStorage;
use onefold_fold::{Compared, Field, FoldCall, Kind, Limits, check_module, op};
use std::sync::{Arc, LazyLock};

static MODULES: LazyLock<Arc<ModuleCache>> = LazyLock::new(|| module_cache().expect("an engine"));

/// UDFs that are refused, and a part of the rule that each breaks.
const REFUSED: [(&str, &str, &str); 4] = [
    ("naive_float_sum", "float64", "in any order of its rows"),
    ("mean_of_means", "float64", "gives the same bytes"),
    ("last_untimed", "int64", "in any order of its rows"),
    ("errs_when_full", "int64", "accepted depends on that row alone"),
];

struct Bench {
    platform: Arc<Platform>,
    _directory: tempfile::TempDir,
}

impl Bench {
    fn new() -> Bench {
        Bench::with(MODULES.clone())
    }

    fn with(modules: Arc<ModuleCache>) -> Bench {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let storage = Arc::new(LocalStorage::open(directory.path()).expect("storage"));
        let clock = Arc::new(ManualClock::at(1_767_355_200_000_000));
        let platform = Platform::at_rest(PlatformSettings::default(), storage, clock, modules);
        Bench { platform, _directory: directory }
    }

    /// Registers a module past all trials, as one of an earlier version may be.
    fn register(&self, name: &str, bytes: &[u8]) {
        let module = self.platform.modules().load(name, bytes).expect("it loads");
        self.platform.registry("shop").expect("a registry").put_module(name, bytes, &module).expect("registered");
    }

    fn plan(&self, definitions: &Definitions) -> Result<onefold::registry::Proposal, PlatformError> {
        self.platform.plan("shop", definitions, &ApplyOptions::default())
    }
}

/// A shop whose feature `suspect`, on line 16, is this.
fn shop(kind: &str, feature: &str) -> String {
    format!(
        "kind: source
name: orders
stream: {{ push: {{}} }}
event_time: at
schema: {{ at: timestamp, user_id: utf8, value: {kind} }}
---
kind: entity
name: user
join_keys: {{ user_id: utf8 }}
---
kind: feature_view
name: totals
source: orders
entities: [user]
features:
  suspect: {feature}
  harmless: {{ udf: std.count, inputs: [value] }}
"
    )
}

fn definitions(text: &str) -> Definitions {
    read_text("shop.yaml", text).expect("the text is read")
}

#[test]
fn what_is_not_what_it_claims_is_refused_at_push_and_at_apply() {
    for (udf, kind, rule) in REFUSED {
        let bytes = guest(udf);
        let bench = Bench::new();
        let pushed = bench.platform.push_module("shop", "bad", &bytes).expect_err(udf).to_string();
        assert!(pushed.contains(&format!("udf `{udf}` is not what it claims")) && pushed.contains(rule), "{pushed}");
        assert!(bench.platform.registry("shop").expect("a registry").modules().expect("modules").is_empty());

        bench.register("bad", &bytes);
        let text = shop(kind, &format!("{{ udf: bad.{udf}, inputs: [value], window: 1h }}"));
        let applied = bench.plan(&definitions(&text)).expect_err(udf).to_string();
        let parts = ["shop.yaml:16: ", "feature `suspect`", "rows", rule, "declare"];
        let remedy = ["declare", "by the row alone"].iter().any(|remedy| applied.contains(remedy));
        assert!(parts[..4].iter().all(|part| applied.contains(part)) && remedy, "{applied}");
        assert_eq!(applied.lines().count(), 1, "{applied}");
    }
}

#[test]
fn a_module_beside_its_definitions_is_tried_as_an_upload() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    std::fs::write(directory.path().join("bad.wasm"), guest("last_untimed")).expect("written");
    let text = format!("{}---\nkind: module\nname: bad\npath: bad.wasm\n", shop("int64", "{ udf: std.count }"));
    std::fs::write(directory.path().join("shop.yaml"), text).expect("written");
    let read = read_directory(directory.path()).expect("the directory is read");
    let refused = Bench::new().plan(&read).expect_err("nobody uses it, and it is refused").to_string();
    assert!(refused.contains("shop.yaml:21: ") && refused.contains("udf `last_untimed`"), "{refused}");
}

/// Claims that hold with the parameters of a trial at push say nothing of others.
#[test]
fn claims_are_tried_with_the_parameters_of_the_definitions() {
    let bytes = guest("sum_or_last");
    let bench = Bench::new();
    bench.platform.push_module("shop", "sums", &bytes).expect("with no parameters it is a sum");
    let with = |params: &str| shop("int64", &format!("{{ udf: sums.sum_or_last, inputs: [value], params: {params} }}"));
    assert!(bench.plan(&definitions(&with("{ last: false }"))).is_ok());
    let refused = bench.plan(&definitions(&with("{ last: true }"))).expect_err("a last without time").to_string();
    for part in ["shop.yaml:16: ", "feature `suspect`", "`sums.sum_or_last` with {\"last\":true}", "in any order"] {
        assert!(refused.contains(part), "{refused}");
    }
}

/// The standard library keeps the rule for values and, since it may, for the bytes of its states.
#[test]
fn the_standard_library_is_what_it_claims() {
    let module = MODULES.load("std", STD_WASM).expect("it loads");
    let untried = check_module(&module, Compared::ValuesAndStates).unwrap_or_else(|refused| panic!("{refused}"));
    // No input of the trial's signatures fits them; definitions say what they are given.
    println!("not tried without a definition: {untried:?}");
    assert!(untried.len() <= 2, "{untried:?}");
}

/// The example's definitions, with every module compiled and nothing tried before; prints what the trials take.
#[test]
fn the_examples_claims_hold() {
    ecommerce();
    let read = read_directory(&root().join("examples/ecommerce/definitions")).expect("the definitions");
    let clock = SystemClock::new();
    let timed = |bench: &Bench| {
        let began = clock.monotonic_us();
        bench.plan(&read).expect("a plan");
        clock.monotonic_us() - began
    };
    let bench = Bench::with(module_cache().expect("an engine"));
    bench.platform.modules().load("std", STD_WASM).expect("it loads");
    bench.platform.modules().load("ecommerce", ecommerce()).expect("it loads");
    let (first, again) = (timed(&bench), timed(&bench));
    println!("plan of the example: {first} us with its trials, {again} us when they are known");
}

/// A call's budget must not undercut the limits of states: sets of short texts, the dearest that the library has, grow
/// to nearly 4 MiB, and two are merged as long as a value may be made from both.
#[test]
fn a_calls_fuel_is_enough_for_states_as_large_as_they_may_be() {
    let limits = Limits::default();
    let module = MODULES.load("std", STD_WASM).expect("it loads");
    let udf = module.prepare("count_distinct", "{}", &[Field::new("value", Kind::Utf8)]).expect("it is prepared");
    let set = |texts: std::ops::Range<u32>| {
        let mut state = Vec::new();
        for first in texts.step_by(10_000) {
            let texts = (first..first + 10_000).map(|row| format!("{row:05x}"));
            let tape: Vec<u32> = (0..10_000).flat_map(|row| [op::word(op::UPDATE, 0), row]).collect();
            let call = FoldCall {
                slots: 1,
                keep: 1,
                measure: 0,
                tape: &tape,
                state_offsets: &[0, state.len() as u32],
                state_data: &state,
                rows: 10_000,
                columns: &[Arc::new(StringArray::from_iter_values(texts))],
            };
            state = udf.fold(&call).expect("rows and their state are below the limits").state_data;
        }
        state
    };
    assert!(set(0..570_000).len() > limits.state_bytes / 20 * 19, "nearly as large as may be");
    let states = [set(0..70_000), set(70_000..140_000)];
    let offsets = [0, states[0].len() as u32, (states[0].len() + states[1].len()) as u32];
    let merge = FoldCall {
        slots: 2,
        keep: 0,
        measure: 1,
        tape: &[op::word(op::MERGE, 0), 1, op::word(op::EMIT, 0), 0],
        state_offsets: &offsets,
        state_data: &states.concat(),
        rows: 0,
        columns: &[Arc::new(StringArray::from_iter_values(Vec::<String>::new()))],
    };
    let merged = udf.fold(&merge).expect("one merge is within the fuel of a call");
    let bytes = merged.measured[0] as usize;
    assert!(bytes <= limits.emitted_state_bytes && bytes > limits.emitted_state_bytes / 10 * 9, "{bytes} bytes");
}
