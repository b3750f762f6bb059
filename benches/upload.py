#!/usr/bin/env python3
"""From a module's upload to the first value of a feature that uses it: benches/upload.py [ROWS [ROUNDS]]

Run it after `cargo build --release` and, in udfs/, `cargo build --release --target wasm32-unknown-unknown`. A running
`onefold dev` has ROWS of history (default 100,000), once in pinned Parquet files and once in its push log. Each round
uploads udfs/ecommerce over HTTP as bytes that were never there before (a custom section with the round's number), so
it is checked, tried and compiled anew; applies a new view whose feature runs through it; and asks for a value until it
is there and right. Building the module from Rust is not in it. Prints each round in milliseconds, then the median.
"""

import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parent.parent
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
ONEFOLD = os.environ.get("ONEFOLD_BIN", TARGET / "release" / "onefold")
MODULE = ROOT / "udfs/target/wasm32-unknown-unknown/release/ecommerce.wasm"
PUSH_ROWS = 20_000

SHOP = """
kind: project
name: shop
---
kind: source
name: transactions
stream: { push: {} }
batch: { parquet: { path: ../data/transactions } }
event_time: transaction_date
schema:
  transaction_date: timestamp
  product_id: utf8
  quantity: int64
  unit_price: float64
---
kind: entity
name: product
join_keys: { product_id: utf8 }
---
kind: feature_view
name: before
entities: [product]
source: transactions
features:
  rows: { udf: std.count }
"""

VIEW = """
kind: feature_view
name: round_{number}
entities: [product]
source: transactions
transforms:
  - {{ udf: ecommerce.amount@{version}, inputs: [quantity, unit_price], outputs: [amount] }}
features:
  revenue: {{ udf: std.sum, inputs: [amount] }}
"""


def main() -> None:
    rows = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 5
    print(f"{rows} rows of history, milliseconds; {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} before")
    print(f"{'history in':12}{'round':>8}{'module push':>13}{'apply':>8}{'first value':>13}{'all':>8}")
    for history in ("files", "log"):
        with tempfile.TemporaryDirectory() as name:
            work = pathlib.Path(name)
            expected = lay_out(work, rows, history)
            server, url = start(work)
            try:
                if history == "log":
                    push(url, work / "data/transactions.jsonl")
                measured = [measure(url, number, expected) for number in range(1, rounds + 1)]
            finally:
                server.terminate()
                server.wait()
        shown = [(str(number + 1), steps) for number, steps in enumerate(measured)]
        shown.append(("median", [statistics.median(steps) for steps in zip(*measured)]))
        for label, (pushed, applied, found, whole) in shown:
            print(f"{history:12}{label:>8}{pushed:13.0f}{applied:8.0f}{found:13.1f}{whole:8.0f}")


def measure(url: str, number: int, expected: tuple[str, float]) -> list[float]:
    """Milliseconds of the upload, of the apply, until the first value after it, and of all three."""
    product, revenue = expected
    payload = b"\x05round" + str(number).encode()
    module = MODULE.read_bytes() + bytes([0, len(payload)]) + payload
    began = time.monotonic()
    uploaded = ask(f"{url}/modules?name=ecommerce", module, "application/wasm")
    pushed = time.monotonic()
    assert uploaded["version"] == number, f"a module that was there before: {uploaded}"
    view = VIEW.format(number=number, version=number).encode()
    ask(f"{url}/definitions", view, "application/yaml", "PUT")
    applied = time.monotonic()
    while True:
        try:
            feature = ask(f"{url}/feature-views/round_{number}/values?product_id={product}")["features"]["revenue"]
        except urllib.error.HTTPError as error:
            if error.code != 404:
                raise
            feature = {"status": "NOT_FOUND"}
        if feature["status"] != "NOT_FOUND":
            break
        time.sleep(0.001)
    found = time.monotonic()
    # It is the whole history's at once, or it would not be served: near, since Python adds one by one.
    assert abs(feature["value"] - revenue) <= 1e-9 * revenue, f"{feature} is not {revenue}"
    return [1e3 * step for step in (pushed - began, applied - pushed, found - applied, found - began)]


def lay_out(work: pathlib.Path, rows: int, history: str) -> tuple[str, float]:
    """Gives a product that sells, and what it has brought in."""
    (work / "definitions").mkdir()
    (work / "definitions/shop.yaml").write_text(SHOP)
    run(work, "generate", "ecommerce", "--rows", str(rows), "--out", "data", "--end", "now")
    run(work, "--data", "state", "apply", "definitions")
    if history == "files":
        run(work, "--data", "state", "materialize")
    with open(work / "data/transactions.jsonl") as lines:
        sold = [(row["product_id"], row["quantity"] * row["unit_price"]) for row in map(json.loads, lines)]
    product = sold[0][0]
    return product, sum(amount for name, amount in sold if name == product)


def start(work: pathlib.Path) -> tuple[subprocess.Popen, str]:
    command = [ONEFOLD, "--data", "state", "dev", "definitions", "--listen", "127.0.0.1:0"]
    quiet = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
    server = subprocess.Popen(command, cwd=work, **quiet)
    for line in server.stdout:
        if line.startswith("listening at "):
            return server, line.split()[-1] + "/v1/projects/shop"
    sys.exit(f"onefold dev ended with {server.wait()}")


def push(url: str, path: pathlib.Path) -> None:
    lines = path.read_bytes().splitlines(keepends=True)
    for start in range(0, len(lines), PUSH_ROWS):
        body = b"".join(lines[start : start + PUSH_ROWS])
        told = ask(f"{url}/sources/transactions/events?wait=served", body, "application/x-ndjson")
        assert told["dead_lettered"] == 0, told


def ask(url: str, body: bytes | None = None, kind: str = "application/json", method: str | None = None) -> dict:
    request = urllib.request.Request(url, body, {"content-type": kind}, method=method)
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


def run(work: pathlib.Path, *arguments: str) -> None:
    done = subprocess.run([ONEFOLD, *arguments], cwd=work, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"onefold {' '.join(arguments)} failed with {done.returncode}: {done.stderr}")


if __name__ == "__main__":
    main()
