#!/bin/sh
# Formats, lints and tests the SDK, then makes a project of the template, tests it and builds its module:
# sdk/rust/check.sh [ONEFOLD]. With the program named, it is the program that makes the project and runs its cases on
# every path, and it must see an expectation that is wrong.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
cd "$here"
cargo fmt --check
cargo clippy --release --all-targets -- -D warnings
cargo test --release
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
if [ -n "${1:-}" ]; then
    onefold=$(realpath "$1")
    cd "$work"
    "$onefold" udf new my_features --sdk "$here"
    "$onefold" udf test my_features
    sed -i 's/share_good: 0.75/share_good: 0.5/' my_features/cases/my_features.yaml
    if "$onefold" udf test my_features; then
        echo "udf test did not see that 0.75 is not 0.5" >&2
        exit 1
    fi
    exit
fi
find template -name '*.in' | while read -r file; do
    made=$(echo "${file#template/}" | sed 's/NAME/my_features/; s/\.in$//')
    mkdir -p "$work/$(dirname "$made")"
    sed "s|{{name}}|my_features|g; s|{{sdk_path}}|$here|g" "$file" > "$work/$made"
done
cd "$work"
cargo test --release --quiet
cargo build --release --quiet --target wasm32-unknown-unknown
ls -l "${CARGO_TARGET_DIR:-target}/wasm32-unknown-unknown/release/my_features.wasm"
