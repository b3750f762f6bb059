# What the two commands need of a machine; sourced by examples/ecommerce/run and tests/run.

# packages_for PROGRAM:PACKAGE…: installs the packages of Debian whose programs are missing.
packages_for() {
    local pair missing=()
    for pair in "$@"; do
        command -v "${pair%%:*}" >/dev/null || missing+=("${pair#*:}")
    done
    # A linker without the C library's files is of no use.
    if ! [ -e /usr/include/stdlib.h ]; then
        missing+=(libc6-dev)
    fi
    if [ ${#missing[@]} -gt 0 ]; then
        install_packages "${missing[@]}"
    fi
}

# install_packages PACKAGE…: as root or with sudo, or says what to type.
install_packages() {
    local missing=("$@") as_root=()
    if ! command -v apt-get >/dev/null; then
        echo "error: install ${missing[*]} (the names are Debian's), then run this again" >&2
        exit 3
    fi
    if [ "$(id -u)" -ne 0 ]; then
        if ! command -v sudo >/dev/null; then
            echo "error: as root, run: apt-get install ${missing[*]}" >&2
            exit 3
        fi
        as_root=(sudo)
    fi
    "${as_root[@]}" apt-get update -qq
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "${missing[@]}"
}

# The toolchain of rust-toolchain.toml with its Wasm target: a toolchain that is there already does not fetch it by itself.
rust_with_wasm() {
    if ! command -v cargo >/dev/null && [ -x "${CARGO_HOME:-$HOME/.cargo}/bin/cargo" ]; then
        PATH=${CARGO_HOME:-$HOME/.cargo}/bin:$PATH
    fi
    if ! command -v cargo >/dev/null; then
        echo "error: there is no cargo: install rustup (https://rustup.rs), then run this again" >&2
        exit 3
    fi
    if command -v rustup >/dev/null; then
        rustup show active-toolchain >/dev/null 2>&1 || rustup toolchain install
        rustup target list --installed | grep -qx wasm32-unknown-unknown || rustup target add wasm32-unknown-unknown
    fi
}
