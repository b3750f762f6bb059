#!/bin/sh
# Builds the standard library's module from two clones of this repository, at paths of different length, and compares.
# Needs git, cargo and the wasm target. Each build is a nested one of host/build.rs, taken by itself.
set -eu
root=$(git -C "$(dirname "$0")" rev-parse --show-toplevel)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
for clone in a another/and/longer; do
    git clone --quiet "$root" "$work/$clone"
    # The manifest of a package with the same build script and nothing else: the host need not be built twice.
    (
        cd "$work/$clone"
        cat > Cargo.toml <<'MANIFEST'
[package]
name = "probe"
version = "0.0.0"
edition = "2024"
build = "host/build.rs"
autobins = false
[lib]
path = "host/std_module.rs"
[workspace]
members = []
exclude = ["udfs", "sdk"]
MANIFEST
        rm Cargo.lock
        cargo build --quiet --target-dir "$work/target-$(basename "$clone")"
    )
done
set -- "$work"/target-*/debug/build/probe-*/out/std.wasm
sha256sum "$@"
cmp "$1" "$2"
echo "the same bytes: $(wc -c < "$1")"
