#!/bin/sh
# Formats, lints and tests the SDK, then makes a project of the template, tests it and builds its module.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
cd "$here"
cargo fmt --check
cargo clippy --release --all-targets -- -D warnings
cargo test --release
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
find template -name '*.in' | while read -r file; do
    made=$(echo "${file#template/}" | sed 's/NAME/my_features/; s/\.in$//')
    mkdir -p "$work/$(dirname "$made")"
    sed "s|{{name}}|my_features|g; s|{{sdk_path}}|$here|g" "$file" > "$work/$made"
done
cd "$work"
cargo test --release --quiet
cargo build --release --quiet --target wasm32-unknown-unknown
ls -l "${CARGO_TARGET_DIR:-target}/wasm32-unknown-unknown/release/my_features.wasm"
