#!/usr/bin/env python3
"""Rows a second of the batch host on the canonical job, as whole processes: benches/batch.py [ROWS [LABELS]] [options]

Run it after `cargo build --release` and, in udfs/, `cargo build --release --target wasm32-unknown-unknown`, with a
Python that has benches/requirements.txt (PYTHON names another one). Prints for materialize (four views, eight
features), snapshot (one view), verify, and historical (the training set of all stored features) wall and CPU seconds,
rows a second of wall time, and the largest memory of the process. `historical` stands beside Polars and DuckDB
(benches/rivals.py) in the same run; all three answers are compared on every label, and a difference is an error.

    --historical      only the training sets
    --rounds N        runs of each training set, in turn; the fastest is shown, the slowest beside it [default: 3]
    --data DIR        keep the generated rows there, and take those that are there already
"""

import argparse
import datetime
import importlib.metadata
import os
import pathlib
import platform
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
ONEFOLD = os.environ.get("ONEFOLD_BIN", TARGET / "release" / "onefold")
PYTHON = os.environ.get("PYTHON", sys.executable)
VIEWS = ["product_stats", "customer_stats", "customer_product", "category_stats"]
FLOATS = [
    "product_stats__avg_review_last_5",
    "product_stats__revenue_30d",
    "product_stats__avg_review_30d",
    "customer_stats__last_purchase_amount",
    "category_stats__revenue_last_3_orders",
    "category_stats__revenue_30d",
]
INTEGERS = ["product_stats__units_sold_30d", "customer_product__last_review"]
NEAR = 1e-9


def main() -> None:
    parser = argparse.ArgumentParser(usage=__doc__.splitlines()[0].split(": ", 1)[1])
    parser.add_argument("rows", type=int, nargs="?", default=1_000_000)
    parser.add_argument("labels", type=int, nargs="?")
    parser.add_argument("--historical", action="store_true")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--data", type=pathlib.Path)
    asked = parser.parse_args()
    rows, labels = asked.rows, asked.labels or asked.rows // 10
    with tempfile.TemporaryDirectory() as name:
        work = pathlib.Path(name)
        lay_out(work)
        data = asked.data.resolve() if asked.data else work / "data"
        if not (data / "transactions").exists():
            run(work, "generate", "ecommerce", "--rows", str(rows), "--out", str(data))
        (work / "shop/data").symlink_to(data)
        run(work, "--data", "state", "apply", "shop/definitions")
        oracle = ROOT / "tests/oracle/labels.py"
        subprocess.run([PYTHON, oracle, "shop/data/transactions", str(labels), "labels.parquet"], cwd=work, check=True)
        print(f"{rows} rows, {labels} labels; {machine()}; load {os.getloadavg()[0]:.1f} before")
        print(f"{'':19}{'wall s':>6}{'(max)':>6}{'CPU s':>8}{'rows/s':>12}{'peak MB':>9}")
        if not asked.historical:
            snapshot = ["snapshot", "customer_product", "--out", "snapshot.parquet"]
            for what in (["materialize"], snapshot, ["verify"]):
                report(what[0], rows, [timed(work, ONEFOLD, "--data", "state", *what)])
        training_sets(work, rows, asked.rounds)


def training_sets(work: pathlib.Path, rows: int, rounds: int) -> None:
    asked = ["--entities", "labels.parquet", "--features", ",".join(VIEWS), "--out", "onefold.parquet"]
    rivals, paths = ROOT / "benches/rivals.py", ["shop/data/transactions", "labels.parquet"]
    commands = {
        "onefold": [ONEFOLD, "--data", "state", "historical", *asked],
        "polars": [PYTHON, rivals, "polars", *paths, "polars.parquet"],
        "duckdb": [PYTHON, rivals, "duckdb", *paths, "duckdb.parquet"],
    }
    runs = {name: [] for name in commands}
    for _ in range(rounds):
        for name, command in commands.items():
            runs[name].append(timed(work, *command))
    for name, measured in runs.items():
        report(f"historical{'' if name == 'onefold' else ', ' + name}", rows, measured)
    failed = [text for rival in ("polars", "duckdb") for text in differences(work, rival)]
    if failed:
        sys.exit("\n".join(failed))


def differences(work: pathlib.Path, rival: str) -> list[str]:
    """Every label's eight values against onefold's; prints how far the floats are apart at most."""
    import duckdb

    near = "abs({0} - {1}) / greatest(abs({0}), abs({1}), 1e-300)"
    pairs = {name: (f"o.{name}", f"r.{name}") for name in FLOATS + INTEGERS}
    wrong = {name: "{0} IS DISTINCT FROM {1}".format(*pairs[name]) for name in INTEGERS}
    apart = {name: near.format(*pairs[name]) for name in FLOATS}
    wrong |= {
        name: "({0} IS NULL) <> ({1} IS NULL) OR coalesce({2} > {3}, false)".format(*pairs[name], apart[name], NEAR)
        for name in FLOATS
    }
    counts = [f"count(*) FILTER ({text})" for text in wrong.values()]
    present = [f"count({ours})" for ours, _ in pairs.values()]
    furthest = [f"max({text})" for text in apart.values()]
    joined = f"'{work}/onefold.parquet' o FULL JOIN '{work}/{rival}.parquet' r USING (label)"
    [found] = duckdb.sql(f"SELECT count(*), {', '.join(counts + present + furthest)} FROM {joined}").fetchall()
    sizes = [duckdb.sql(f"SELECT count(*) FROM '{work}/{name}.parquet'").fetchall()[0][0] for name in ("labels", rival)]
    labels, differing = found[0], dict(zip(wrong, found[1 : 1 + len(wrong)]))
    values, most = sum(found[1 + len(wrong) : 1 + len(wrong) + len(pairs)]), max(found[-len(apart) :])
    told = [f"{rival}: {count} of {labels} labels differ in {name}" for name, count in differing.items() if count]
    if len({labels, *sizes}) != 1:
        told.append(f"{rival}: {sizes[1]} rows for {sizes[0]} labels")
    if not told:
        print(f"{rival} agrees on {labels} labels, {values} values present: integers equal, floats within {most:.1e}")
    return told


def machine() -> str:
    versions = [f"{name} {importlib.metadata.version(name)}" for name in ("polars", "duckdb", "pyarrow")]
    with open("/proc/cpuinfo") as lines:
        models = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    memory_gb = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    model = models[0] if models else platform.machine()
    versions.append(f"Python {platform.python_version()}")
    return f"{os.cpu_count()} cores of {model}, {memory_gb:.0f} GB, {', '.join(versions)}, {datetime.date.today()}"


def lay_out(work: pathlib.Path) -> None:
    definitions = work / "shop" / "definitions"
    definitions.mkdir(parents=True)
    module = ROOT / "udfs/target/wasm32-unknown-unknown/release/ecommerce.wasm"
    # Without the lock: what is measured is the standard library that this program brings.
    for file in (ROOT / "examples/ecommerce/definitions").glob("*.yaml"):
        lines = file.read_text().splitlines()
        lines = [f"path: {module}" if line.startswith("path: ../../../udfs/") else line for line in lines]
        (definitions / file.name).write_text("\n".join(lines) + "\n")


def run(work: pathlib.Path, *arguments: str) -> None:
    done = subprocess.run([ONEFOLD, *arguments], cwd=work, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"onefold {' '.join(arguments)} failed with {done.returncode}: {done.stderr}")


def timed(work: pathlib.Path, *command: str | pathlib.Path) -> tuple[float, float, float]:
    """Wall seconds, CPU seconds of the process and its children, peak memory in MB."""
    began = time.monotonic()
    with open(work / "errors.txt", "w+") as errors:
        process = subprocess.Popen(command, cwd=work, stdout=subprocess.DEVNULL, stderr=errors)
        _, status, used = os.wait4(process.pid, 0)
        wall = time.monotonic() - began
        if status != 0:
            errors.seek(0)
            code = os.waitstatus_to_exitcode(status)
            sys.exit(f"{' '.join(map(str, command))} failed with {code}: {errors.read()[-2000:]}")
    return wall, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024


def report(name: str, rows: int, runs: list[tuple[float, float, float]]) -> None:
    wall, cpu, peak = min(runs)
    print(f"{name:19}{wall:6.1f}{max(runs)[0]:6.1f}{cpu:8.1f}{rows / wall:12.0f}{peak:9.0f}", flush=True)


if __name__ == "__main__":
    main()
