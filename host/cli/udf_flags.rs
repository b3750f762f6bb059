//! How a module is built from Rust: target, profile and flags. Used by the build of the standard library's module and by
//! `onefold udf build`, so that both make modules of one kind.

/// The one target of modules in Rust: it has no imports.
pub const TARGET: &str = "wasm32-unknown-unknown";

/// Arguments of cargo.
pub const CARGO_ARGUMENTS: [&str; 4] = ["build", "--release", "--target", TARGET];

/// The release profile, as variables of cargo: they win over a manifest, so all modules are built alike.
pub const PROFILE: [(&str, &str); 7] = [
    ("CARGO_PROFILE_RELEASE_OPT_LEVEL", "3"),
    ("CARGO_PROFILE_RELEASE_LTO", "fat"),
    ("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "1"),
    ("CARGO_PROFILE_RELEASE_PANIC", "abort"),
    ("CARGO_PROFILE_RELEASE_STRIP", "true"),
    ("CARGO_PROFILE_RELEASE_DEBUG", "false"),
    ("CARGO_PROFILE_RELEASE_INCREMENTAL", "false"),
];

/// Variables that are taken away before a build, whole or by their beginning (a trailing `*`): what the outer build, a
/// shell or a wrapper has set would change the bytes.
pub const CLEARED: [&str; 14] = [
    "CARGO_PROFILE_*",
    "CARGO_BUILD_*",
    "CARGO_TARGET_*",
    "CARGO_ENCODED_RUSTFLAGS",
    "CARGO_INCREMENTAL",
    "CARGO_UNSTABLE_*",
    "RUSTFLAGS",
    "RUSTC",
    "RUSTC_WRAPPER",
    "RUSTC_WORKSPACE_WRAPPER",
    "RUSTC_BOOTSTRAP",
    "RUSTDOC",
    "CARGO_CFG_*",
    "CARGO_FEATURE_*",
];

/// Whether a variable of the environment is to be taken away.
pub fn is_cleared(variable: &str) -> bool {
    CLEARED.iter().any(|pattern| match pattern.strip_suffix('*') {
        Some(beginning) => variable.starts_with(beginning),
        None => variable == *pattern,
    })
}

/// Compiler flags that hide where things lie, as the value of `CARGO_ENCODED_RUSTFLAGS`: panics name their file, and the
/// bytes of a module must not depend on a checkout, a home directory or an installed `rust-src`.
///
/// `sources`: directory of the sources; `cargo_home`: where crates are unpacked; `sysroot` and `commit`: as `rustc
/// --print sysroot` and the `commit-hash` of `rustc -vV` say.
pub fn encoded_rustflags(sources: &str, cargo_home: &str, sysroot: &str, commit: &str) -> String {
    let prefixes = [
        (cargo_home.to_owned(), "/cargo".to_owned()),
        (sysroot.to_owned(), "/rust".to_owned()),
        (format!("{sysroot}/lib/rustlib/src/rust"), format!("/rustc/{commit}")),
        (sources.to_owned(), "/onefold".to_owned()),
    ];
    let remap = prefixes.map(|(from, to)| format!("--remap-path-prefix={from}={to}"));
    // Separated as cargo wants it, so that a path may hold spaces.
    remap.join("\x1f")
}
