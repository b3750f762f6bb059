#!/usr/bin/env python3
"""Rows a second of the batch host on the canonical job, as whole processes: benches/batch.py [ROWS [LABELS]]

Run it after `cargo build --release` and, in udfs/, `cargo build --release --target wasm32-unknown-unknown`. Prints for
materialize (four views, eight features), snapshot (one view) and historical (the training set of all stored features)
wall and CPU seconds, rows a second of wall time, and the largest memory of the process.
"""

import os
import pathlib
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
ONEFOLD = TARGET / "release" / "onefold"
VIEWS = ["product_stats", "customer_stats", "customer_product", "category_stats"]


def main() -> None:
    rows = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    labels = int(sys.argv[2]) if len(sys.argv) > 2 else rows // 10
    with tempfile.TemporaryDirectory() as name:
        work = pathlib.Path(name)
        lay_out(work)
        run(work, "generate", "ecommerce", "--rows", str(rows), "--out", "shop/data")
        run(work, "--data", "state", "apply", "shop/definitions")
        oracle = ROOT / "tests/oracle/labels.py"
        python = os.environ.get("PYTHON", sys.executable)
        subprocess.run([python, oracle, "shop/data/transactions", str(labels), "labels.parquet"], cwd=work, check=True)
        print(f"{rows} rows, {labels} labels, {os.cpu_count()} cores")
        print(f"{'':14}{'wall s':>8}{'CPU s':>8}{'rows/s':>12}{'peak MB':>9}")
        timed(work, rows, "materialize", "--data", "state", "materialize")
        timed(work, rows, "snapshot", "--data", "state", "snapshot", "customer_product", "--out", "snapshot.parquet")
        timed(
            work, rows, "historical", "--data", "state", "historical", "--entities", "labels.parquet",
            "--features", ",".join(VIEWS), "--out", "training.parquet",
        )  # fmt: skip
        timed(work, rows, "verify", "--data", "state", "verify")


def lay_out(work: pathlib.Path) -> None:
    definitions = work / "shop" / "definitions"
    definitions.mkdir(parents=True)
    module = ROOT / "udfs/target/wasm32-unknown-unknown/release/ecommerce.wasm"
    for file in (ROOT / "examples/ecommerce/definitions").iterdir():
        lines = file.read_text().splitlines()
        lines = [f"path: {module}" if line.startswith("path: ") and line.endswith("ecommerce.wasm") else line for line in lines]
        (definitions / file.name).write_text("\n".join(lines) + "\n")


def run(work: pathlib.Path, *arguments: str) -> None:
    subprocess.run([ONEFOLD, *arguments], cwd=work, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def timed(work: pathlib.Path, rows: int, name: str, *arguments: str) -> None:
    began = time.monotonic()
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen([ONEFOLD, *arguments], cwd=work, **quiet)
    _, status, used = os.wait4(process.pid, 0)
    wall = time.monotonic() - began
    if status != 0:
        sys.exit(f"onefold {' '.join(arguments)} failed with {os.waitstatus_to_exitcode(status)}")
    cpu = used.ru_utime + used.ru_stime
    print(f"{name:14}{wall:8.1f}{cpu:8.1f}{rows / wall:12.0f}{used.ru_maxrss / 1024:9.0f}")


if __name__ == "__main__":
    main()
