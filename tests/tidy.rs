//! The rules of the house as tests: each failure says what to do.

use std::path::{Path, PathBuf};

/// The longest a source file may be; what is longer has become a place. Tests move out before code does.
const LONGEST_LINES: usize = 600;

/// Files that were longer when the rule came, with their length then. They may only shrink; below the limit they go from here.
const LONG_FILES: &[(&str, usize)] = &[];

/// Which modules of the host must not be named in which (folder or file below `host/`).
const MUST_NOT_KNOW: &[(&str, &[&str])] = &[
    ("define", &["source", "decode", "online", "serve", "state", "stream", "batch"]),
    ("route", &["source", "online", "serve", "state"]),
    ("source", &["online", "serve", "state", "stream", "batch"]),
    ("decode", &["online", "serve", "state", "stream", "batch"]),
    ("online", &["source", "decode", "serve", "state", "stream", "batch"]),
    ("state", &["source", "decode", "online", "serve", "stream", "batch"]),
    ("serve", &["source", "state", "stream", "batch"]),
    ("stream", &["serve", "batch"]),
    ("batch", &["serve", "stream"]),
];

/// What the fold's manifest must never name: it performs no I/O and reads no clock.
const NOT_IN_THE_FOLD: &[&str] =
    &["rdkafka", "redis", "scylla", "axum", "tokio", "ureq", "object_store", "datafusion", "jiff"];

#[test]
fn sources_open_with_what_they_are() {
    hold(rust_files(), |path, text| {
        (!text.starts_with("//!")).then(|| format!("{path}: begin the file with a `//!` line that says what it is"))
    });
}

#[test]
fn parts_know_only_whom_they_may() {
    hold(rust_files(), forbidden_use);
    let manifest = read(&root().join("host/fold/Cargo.toml"));
    let named = NOT_IN_THE_FOLD.iter().find(|name| manifest.lines().any(|line| line.trim_start().starts_with(**name)));
    assert_eq!(named, None, "host/fold/Cargo.toml: the fold knows no I/O and no clock; do it in the host");
}

#[test]
fn time_is_asked_for_in_one_file() {
    hold(
        rust_files().into_iter().filter(|path| in_folder(path, "host") && *path != root().join("host/clock.rs")),
        taken_time,
    );
}

#[test]
fn nothing_is_left_for_later() {
    hold(text_files(), left_for_later);
}

#[test]
fn files_stay_short() {
    hold(rust_files().into_iter().chain(files_ending(&["py"])), |path, text| too_long(path, text, LONG_FILES));
}

#[test]
fn files_name_no_package_registry() {
    hold(text_files(), registry_host);
}

#[test]
fn paths_named_in_readmes_exist() {
    let readmes = files_ending(&["md"]).into_iter().filter(|path| path.ends_with("README.md"));
    hold(readmes, |path, text| {
        let missing = named_paths(text).into_iter().find(|named| !root().join(named).exists());
        missing.map(|named| format!("{path}: `{named}` does not exist; name what is there"))
    });
}

#[test]
fn every_module_of_udfs_is_described_and_has_cases() {
    let udfs = root().join("udfs");
    let Ok(listing) = std::fs::read_dir(&udfs) else { return };
    let modules = listing.map(|entry| entry.expect("a directory can be listed").path());
    for module in modules.filter(|path| path.join("Cargo.toml").exists()) {
        let name = module.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let readme = read(&udfs.join("README.md"));
        assert!(readme.contains(&name), "udfs/README.md: describe the module `{name}`, a line a UDF");
        let cases = std::fs::read_dir(module.join("cases")).map_or(0, Iterator::count);
        assert!(cases > 0, "udfs/{name}/cases: put at least one case there, in the form of `kind: test`");
        if name == "std" {
            let transforms = ["filter", "coalesce", "cast"];
            let unnamed = crate::reference::AGGREGATES
                .iter()
                .chain(&transforms)
                .find(|udf| !readme.contains(&format!("`{udf}`")));
            assert_eq!(unnamed, None, "udfs/README.md: give this UDF of `std` its line");
        }
    }
}

#[test]
fn the_rules_see_what_breaks_them() {
    assert!(forbidden_use("host/define/check.rs", "use crate::online::Store;\n").is_some());
    assert!(forbidden_use("host/define/check.rs", "use crate::define::Project;\n//! as in crate::online\n").is_none());
    assert!(forbidden_use("host/stream.rs", "    crate::serve::listen();\n").is_some());
    assert!(taken_time("host/state/map.rs", "let now = std::time::Instant::now();\n").is_some());
    assert!(
        taken_time("host/state/map.rs", "// an Instant would do\nstruct Instance; let instantiated = 1;\n").is_none()
    );
    assert!(left_for_later("host/lib.rs", &format!("// TO{}: later\n", "DO")).is_some());
    let long = "\n".repeat(LONGEST_LINES + 2);
    assert!(
        too_long("a.rs", &long, &[]).is_some() && too_long("a.rs", &long, &[("a.rs", LONGEST_LINES + 2)]).is_none()
    );
    assert!(too_long("a.rs", &long, &[("a.rs", LONGEST_LINES + 1)]).is_some(), "an exception may only shrink");
    assert!(too_long("a.rs", "short", &[("a.rs", LONGEST_LINES + 1)]).is_some(), "and goes when it is short");
    assert!(registry_host("a.toml", &format!("index = \"https://py{}\"", "pi.org")).is_some());
    assert_eq!(
        named_paths("see `host/fold/window.rs:12`, `tests/`, `a/b`, `host/*`"),
        ["host/fold/window.rs", "tests/"]
    );
}

fn forbidden_use(path: &str, text: &str) -> Option<String> {
    let below = path.strip_prefix("host/")?;
    let part = below.split('/').next()?.trim_end_matches(".rs");
    let (_, forbidden) = MUST_NOT_KNOW.iter().find(|(name, _)| *name == part)?;
    let named = forbidden.iter().find(|name| code_lines(text).any(|line| has_word(line, &format!("crate::{name}"))));
    named.map(|name| format!("{path}: `{part}` must not know `{name}`; hand it what it needs as a value or a trait"))
}

fn taken_time(path: &str, text: &str) -> Option<String> {
    let taken = ["SystemTime", "Instant", "Timestamp::now", "Zoned::now"];
    let found = taken.iter().find(|name| code_lines(text).any(|line| has_word(line, name)));
    found
        .map(|name| format!("{path}: `{name}` stands only in host/clock.rs; take a clock or an instant as an argument"))
}

fn left_for_later(path: &str, text: &str) -> Option<String> {
    let words = [concat!("FIX", "ME"), concat!("TO", "DO")];
    let found = words.iter().find(|word| has_word(text, word));
    found.map(|word| format!("{path}: {word}: do it, or open an issue and say what holds today"))
}

fn too_long(path: &str, text: &str, exceptions: &[(&str, usize)]) -> Option<String> {
    let lines = text.lines().count();
    match exceptions.iter().find(|(name, _)| *name == path) {
        Some(_) if lines <= LONGEST_LINES => Some(format!("{path}: short again; take it from LONG_FILES")),
        Some((_, allowed)) if lines > *allowed => {
            Some(format!("{path}: {lines} lines; it may only shrink from {allowed}"))
        }
        None if lines > LONGEST_LINES => {
            Some(format!("{path}: {lines} lines, at most {LONGEST_LINES}; split it by what it does"))
        }
        _ => None,
    }
}

fn registry_host(path: &str, text: &str) -> Option<String> {
    let hosts = [
        concat!("crates", ".io"),
        concat!("pypi", ".org"),
        concat!("python", "hosted.org"),
        concat!("npmjs", ".org"),
        concat!("npmjs", ".com"),
        concat!("proxy.golang", ".org"),
        concat!("deb.debian", ".org"),
    ];
    let found = hosts.iter().find(|host| text.contains(**host));
    found.map(|host| format!("{path}: names {host}; where packages come from is the machine's setting"))
}

/// What a README names in backticks below the top-level folders, without line numbers.
fn named_paths(text: &str) -> Vec<&str> {
    let folders = ["host/", "sdk/", "udfs/", "examples/", "tests/", "benches/"];
    let quoted = text.split('`').skip(1).step_by(2);
    let named = quoted.filter(|name| folders.iter().any(|folder| name.starts_with(folder)));
    let plain =
        named.filter(|name| !name.contains(['*', '{', '<', ' ', '$', '\n', '\u{2026}']) && !name.contains("target/"));
    plain.map(|name| name.split(':').next().unwrap_or(name)).collect()
}

/// Lines that are not comments.
fn code_lines(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter(|line| !line.trim_start().starts_with("//"))
}

fn has_word(text: &str, word: &str) -> bool {
    let joins = |character: Option<char>| character.is_some_and(|c| c.is_alphanumeric() || c == '_');
    text.match_indices(word)
        .any(|(at, _)| !joins(text[..at].chars().next_back()) && !joins(text[at + word.len()..].chars().next()))
}

/// Fails with all that the rule finds in these files, by path from the root.
fn hold(files: impl IntoIterator<Item = PathBuf>, rule: impl Fn(&str, &str) -> Option<String>) {
    let mut seen = 0;
    let mut found = Vec::new();
    for file in files {
        seen += 1;
        let path = file.strip_prefix(root()).unwrap_or(&file).to_string_lossy().into_owned();
        found.extend(rule(&path, &read(&file)));
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
    println!("{seen} files");
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn in_folder(path: &Path, folder: &str) -> bool {
    path.starts_with(root().join(folder))
}

fn rust_files() -> Vec<PathBuf> {
    files_ending(&["rs"])
}

fn text_files() -> Vec<PathBuf> {
    files_ending(&["rs", "py", "toml", "md", "yaml", "yml", "wit", "sh", "wat", "json", "txt"])
}

/// Files of the project by the ends of their names, sorted; without build output, hidden folders and what a build makes.
fn files_ending(ends: &[&str]) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut folders = vec![root().to_owned()];
    while let Some(folder) = folders.pop() {
        let listing = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        for entry in listing {
            let path = entry.expect("a directory can be listed").path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if path.is_dir() {
                if !name.starts_with('.') && !["target", "__pycache__", "venv"].contains(&&*name) {
                    folders.push(path);
                }
            } else if path.extension().is_some_and(|end| ends.iter().any(|wanted| end == *wanted)) {
                files.push(path);
            }
        }
    }
    files.sort();
    files
}
