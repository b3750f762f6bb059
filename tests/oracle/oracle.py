"""The oracle: the eight e-commerce features computed from the Parquet rows alone, and held against what onefold gave.

It shares no code with the fold. Two judges look at each `onefold snapshot`:
- Python integers and `fractions`, on all categories and a fixed choice of values of the other views, equal to the bit;
- DuckDB's SQL, on all entities: integers, keys and times exactly, floats within 1e-9 of each other.
Training sets (`onefold historical`) are judged label by label in the first way.

    oracle.py --rows history/ --snapshot product_stats=p.parquet --snapshot category_stats=c.parquet
    oracle.py --rows history/ --historical labels.parquet training.parquet

Exit 0: all equal; 1: something differs (the first differences are printed); 2: wrong usage.
`--plant` changes one expected value first: the oracle must then exit with 1.
"""

import argparse
import bisect
import hashlib
import math
import struct
import sys
from collections import defaultdict
from fractions import Fraction

import duckdb
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet

DAY_US = 86_400_000_000
SHOWN = 10
SCALE_BITS = 1074  # every finite float64 is an integer times 2**-1074

# view: (join keys, {feature: (aggregate, input, n, window in days)})
VIEWS = {
    "product_stats": (
        ("product_id",),
        {
            "avg_review_last_5": ("last_n_mean", "review_rating", 5, None),
            "units_sold_30d": ("sum", "quantity", None, 30),
            "revenue_30d": ("sum", "amount", None, 30),
            "avg_review_30d": ("mean", "review_rating", None, 30),
        },
    ),
    "customer_stats": (("customer_id",), {"last_purchase_amount": ("last", "amount", None, None)}),
    "customer_product": (("customer_id", "product_id"), {"last_review": ("last", "review_rating", None, None)}),
    "category_stats": (
        ("category",),
        {
            "revenue_last_3_orders": ("last_n_sum", "amount", 3, None),
            "revenue_30d": ("sum", "amount", None, 30),
        },
    ),
}


# --- The definitions ---------------------------------------------------------------------------------------------


def order(value):
    """Canonical order of the values of one instant: -0.0 below 0.0, NaN greatest."""
    if isinstance(value, float):
        return (1, 0.0, 0) if math.isnan(value) else (0, value, math.copysign(1, value))
    return (0, value, 0)


def exact_sum(values):
    """int64: exact, null outside the type. float64: the exact sum rounded once; a sum of zero is 0.0."""
    if not values:
        return None
    if all(isinstance(value, int) for value in values):
        total = sum(values)
        return total if -(2**63) <= total < 2**63 else None
    special = [value for value in values if not math.isfinite(value)]
    if special:
        return sum(special)
    scaled = 0
    for value in values:
        numerator, denominator = value.as_integer_ratio()
        scaled += numerator << (SCALE_BITS - denominator.bit_length() + 1)
    return to_float(Fraction(scaled, 1 << SCALE_BITS))


def to_float(number):
    try:
        return float(number) + 0.0
    except OverflowError:
        return math.inf if number > 0 else -math.inf


def mean(values):
    if not values:
        return None
    if all(isinstance(value, int) for value in values):
        return to_float(Fraction(sum(values))) / len(values)
    return exact_sum(values) / len(values)


def feature_value(definition, rows, as_of_us):
    """One feature over an entity's rows (dicts) with event time <= as_of_us."""
    aggregate, column, n, days = definition
    if days is not None:  # 30 d slides by days: a hop of 1 d from a size of 12 d on
        left_us = (as_of_us - days * DAY_US) // DAY_US * DAY_US
        rows = [row for row in rows if row["e"] >= left_us]
    values = [(row["e"], row[column]) for row in rows if row[column] is not None]
    values = [value for _, value in sorted(values, key=lambda pair: (pair[0], order(pair[1])))]
    if aggregate == "last":
        return values[-1] if values else None
    if n is not None:
        values = values[-n:]
    return exact_sum(values) if aggregate in ("sum", "last_n_sum") else mean(values)


def valid_until_us(features, rows, as_of_us):
    """When the first day leaves a window; None when nothing will."""
    leaves = [
        row["e"] // DAY_US * DAY_US + (days + 1) * DAY_US
        for (_, _, _, days) in features.values()
        if days is not None
        for row in rows
    ]
    return min((instant for instant in leaves if instant > as_of_us), default=None)


# --- Input -------------------------------------------------------------------------------------------------------


def read_rows(path):
    """The canonical rows as columns; `e` is microseconds since the epoch, `amount` quantity x unit price."""
    names = ["transaction_date", "customer_id", "product_id", "category", "quantity", "unit_price", "review_rating"]
    table = pa.dataset.dataset(path, format="parquet").to_table(columns=names)
    columns = {name: table[name].to_pylist() for name in names[1:]}
    columns["e"] = micros(table["transaction_date"])
    pairs = zip(columns["quantity"], columns["unit_price"])
    columns["amount"] = [None if q is None or p is None else float(q) * p for q, p in pairs]
    return columns


def micros(column):
    kind = column.type
    if pa.types.is_timestamp(kind):
        column = column.cast(pa.timestamp("us", kind.tz), safe=False)
    return column.cast(pa.int64()).to_pylist()


def rows_by_entity(columns, keys, wanted=None):
    """Rows of each entity (those in `wanted`, or all); rows with a null key take no part."""
    entities = defaultdict(list)
    inputs = ("e", "quantity", "amount", "review_rating")
    for index, key in enumerate(zip(*(columns[name] for name in keys))):
        if None not in key and (wanted is None or key in wanted):
            entities[key].append({name: columns[name][index] for name in inputs})
    return entities


def chosen(view, keys, count):
    """`count` of the keys, the same ones each time, spread by their hash."""
    return sorted(keys, key=lambda key: hashlib.sha256(repr((view, key)).encode()).digest())[:count]


# --- Comparison --------------------------------------------------------------------------------------------------


class Judge:
    """Counts what was compared, keeps the first differences; plants one wrong expectation on request."""

    def __init__(self, plant):
        self.plant = plant
        self.compared = 0
        self.differ = 0

    def value(self, where, expected, found):
        if self.plant:
            self.plant = False
            expected = planted(expected)
        self.compared += 1
        if not same(expected, found):
            self.difference(f"{where}: expected {shown(expected)}, found {shown(found)}")

    def difference(self, text):
        self.differ += 1
        if self.differ <= SHOWN:
            print(f"  DIFFERS {text}")


def same(a, b):
    """Equal in type and to the bit; any NaN is NaN."""
    if type(a) is not type(b):
        return False
    if isinstance(a, float):
        return (math.isnan(a) and math.isnan(b)) or struct.pack("<d", a) == struct.pack("<d", b)
    return a == b


def planted(value):
    if value is None:
        return 1
    return math.nextafter(value, math.inf) if isinstance(value, float) else value + 1


def shown(value):
    return f"{value!r} ({value.hex()})" if isinstance(value, float) else repr(value)


def judge_snapshot(judge, view, path, columns, as_of_us, ttl_us, count):
    """Compares `count` values of the view to the bit (all of them for `None`); gives how many there were."""
    keys, features = VIEWS[view]
    table = pa.parquet.read_table(path)
    key_columns = [table[name].to_pylist() for name in keys]
    found = {key: index for index, key in enumerate(zip(*key_columns))}
    if len(found) != table.num_rows:
        judge.difference(f"{view}: {table.num_rows - len(found)} entities stand twice")
    if list(found) != sorted(found, key=lambda key: [part.encode() for part in key]):
        judge.difference(f"{view}: rows are not sorted by {keys}")
    times = columns["e"]
    known = {
        key
        for index, key in enumerate(zip(*(columns[name] for name in keys)))
        if None not in key and times[index] <= as_of_us
    }
    for key in sorted(known ^ set(found))[:SHOWN]:
        judge.difference(f"{view} {key}: {'missing' if key in known else 'not known'} in the snapshot")
    entities = chosen(view, known & set(found), None if count is None else -(-count // len(features)))
    values = {name: table[name].to_pylist() for name in features}
    stamps, untils = micros(table["event_timestamp"]), micros(table["valid_until"])
    rows_of = rows_by_entity(columns, keys, set(entities))
    for key in entities:
        rows = [row for row in rows_of[key] if row["e"] <= as_of_us]
        newest_us = max(row["e"] for row in rows)
        too_old = ttl_us is not None and as_of_us - newest_us > ttl_us
        for name, definition in features.items():
            expected = None if too_old else feature_value(definition, rows, as_of_us)
            judge.value(f"{view}.{name} {key}", expected, values[name][found[key]])
        judge.value(f"{view} {key} event_timestamp", newest_us, stamps[found[key]])
        judge.value(f"{view} {key} valid_until", valid_until_us(features, rows, as_of_us), untils[found[key]])
    print(f"{view}: {len(entities)} of {len(known)} entities, {len(entities) * len(features)} values to the bit")
    return len(entities) * len(features)


def judge_historical(judge, labels_path, output_path, columns, ttls_us, count):
    """Compares up to `count` labels of a training set: columns `view__feature`, rows in the order of the labels."""
    labels, output = pa.parquet.read_table(labels_path), pa.parquet.read_table(output_path)
    if labels.num_rows != output.num_rows:
        judge.difference(f"{labels.num_rows} labels gave {output.num_rows} rows")
        return
    for name in labels.column_names:
        if labels[name].to_pylist() != output[name].to_pylist():
            judge.difference(f"column {name} of the labels came out changed")
    instants = micros(labels["event_timestamp"])
    indexes = chosen("labels", range(labels.num_rows), count)
    asked = 0
    for view, (keys, features) in VIEWS.items():
        names = [name for name in features if f"{view}__{name}" in output.column_names]
        if not names:
            continue
        asked += len(names)
        label_keys = list(zip(*(labels[name].to_pylist() for name in keys)))
        rows_of = rows_by_entity(columns, keys, {label_keys[index] for index in indexes})
        for rows in rows_of.values():
            rows.sort(key=lambda row: row["e"])
        for name in names:
            found = output[f"{view}__{name}"].to_pylist()
            for index in indexes:
                at_us, rows = instants[index], rows_of.get(label_keys[index], [])
                rows = rows[: bisect.bisect_right(rows, at_us, key=lambda row: row["e"])]
                too_old = bool(rows) and ttls_us.get(view) is not None and at_us - rows[-1]["e"] > ttls_us[view]
                expected = None if too_old or not rows else feature_value(features[name], rows, at_us)
                judge.value(f"label {index} {view}__{name} {label_keys[index]}", expected, found[index])
    if asked == 0:
        judge.difference(f"{output_path} has no column `view__feature` that the oracle knows")
    print(f"training set: {len(indexes)} of {labels.num_rows} labels, {asked} features to the bit")


# --- SQL ---------------------------------------------------------------------------------------------------------


def sql_of(keys, features, as_of_us, ttl_us):
    """One statement that computes a view for all entities, in SQL's own words."""
    group = ", ".join(keys)
    parts = [f"known AS (SELECT {group}, max(e) AS stamp FROM rows GROUP BY {group})"]
    selected, joins = [], []
    for name, (aggregate, column, n, days) in features.items():
        left_us = None if days is None else (as_of_us - days * DAY_US) // DAY_US * DAY_US
        where = f"{column} IS NOT NULL" + ("" if left_us is None else f" AND e >= {left_us}")
        if aggregate in ("last", "last_n_mean", "last_n_sum"):
            newest = f"row_number() OVER (PARTITION BY {group} ORDER BY e DESC, {column} DESC)"
            source = f"(SELECT * FROM rows WHERE {where} QUALIFY {newest} <= {n or 1})"
        else:
            source = f"(SELECT * FROM rows WHERE {where})"
        function = {"last": "max", "last_n_mean": "avg", "mean": "avg", "last_n_sum": "sum", "sum": "sum"}[aggregate]
        parts.append(f"f_{name} AS (SELECT {group}, {function}({column}) AS value FROM {source} GROUP BY {group})")
        fresh = "" if ttl_us is None else f"CASE WHEN {as_of_us} - stamp <= {ttl_us} THEN "
        selected.append(f"{fresh}f_{name}.value{' END' if fresh else ''} AS {name}")
        joins.append(f"LEFT JOIN f_{name} USING ({group})")
    return f"WITH {', '.join(parts)} SELECT {group}, stamp, {', '.join(selected)} FROM known {' '.join(joins)}"


def judge_with_sql(judge, view, path, rows_path, as_of_us, ttl_us):
    keys, features = VIEWS[view]
    schema = pa.parquet.read_schema(path)
    connection = duckdb.connect()
    files = f"'{rows_path}'" if rows_path.endswith(".parquet") else f"'{rows_path.rstrip('/')}/**/*.parquet'"
    not_null = " AND ".join(f"{key} IS NOT NULL" for key in keys)
    connection.execute(
        "CREATE TABLE rows AS SELECT customer_id, product_id, category, quantity, review_rating, "
        "quantity::DOUBLE * unit_price AS amount, epoch_us(transaction_date) AS e "
        f"FROM read_parquet({files}) WHERE {not_null} AND epoch_us(transaction_date) <= {as_of_us}"
    )
    connection.execute(f"CREATE TABLE expected AS {sql_of(keys, features, as_of_us, ttl_us)}")
    connection.execute(f"CREATE TABLE found AS SELECT *, epoch_us(event_timestamp) AS found_stamp FROM '{path}'")
    checks = {"stamp": "e.stamp IS DISTINCT FROM f.found_stamp"}
    for name in features:
        if pa.types.is_floating(schema.field(name).type):
            near = f"abs(e.{name} - f.{name}) <= 1e-9 * greatest(abs(e.{name}), abs(f.{name}))"
            both_null = f"(e.{name} IS NULL AND f.{name} IS NULL)"
            checks[name] = f"NOT coalesce({near}, false) AND NOT {both_null}"
        else:
            checks[name] = f"e.{name} IS DISTINCT FROM f.{name}"
    on = " AND ".join(f"e.{key} = f.{key}" for key in keys)
    for name, wrong in checks.items():
        query = f"FROM expected e FULL JOIN found f ON {on} WHERE {wrong}"
        count = connection.execute(f"SELECT count(*) {query}").fetchone()[0]
        both = f"{', '.join(f'coalesce(e.{key}, f.{key})' for key in keys)}, e.{name}, f.{'found_' if name == 'stamp' else ''}{name}"
        for row in connection.execute(f"SELECT {both} {query} LIMIT 3").fetchall() if count else []:
            judge.difference(f"SQL {view}.{name}: {row}")
        judge.differ += max(0, count - 3)
    entities = connection.execute("SELECT count(*) FROM expected").fetchone()[0]
    judge.compared += entities * len(features)
    print(f"{view}: {entities} entities, {entities * len(features)} values by SQL")


# --- Command -----------------------------------------------------------------------------------------------------


def arguments(argv):
    parser = argparse.ArgumentParser(description="Judge snapshots and training sets of the e-commerce features.")
    parser.add_argument("--rows", required=True, help="Parquet file or directory of the canonical rows")
    parser.add_argument("--snapshot", action="append", default=[], metavar="VIEW=FILE")
    parser.add_argument("--historical", nargs=2, action="append", default=[], metavar=("LABELS", "OUTPUT"))
    parser.add_argument("--as-of-us", type=int, help="T of the snapshots, microseconds (default: the newest row)")
    parser.add_argument("--ttl-days", action="append", default=[], metavar="VIEW=DAYS", help="the view's ttl")
    parser.add_argument("--sample", type=int, default=10_000, help="values of the larger views, to the bit")
    parser.add_argument("--labels", type=int, default=3_000, help="labels of a training set that are judged")
    parser.add_argument("--plant", action="store_true", help="change one expected value: must end with exit 1")
    options = parser.parse_args(argv)
    options.snapshot = dict(named(parser, text) for text in options.snapshot)
    options.ttls_us = {view: int(days) * DAY_US for view, days in (named(parser, text) for text in options.ttl_days)}
    if not options.snapshot and not options.historical:
        parser.error("nothing to judge: give --snapshot or --historical")
    return options


def named(parser, text):
    view, separator, value = text.partition("=")
    if not separator or view not in VIEWS:
        parser.error(f"`{text}`: write one of {', '.join(VIEWS)}, `=` and a value")
    return view, value


def main(argv=None):
    options = arguments(argv)
    columns = read_rows(options.rows)
    as_of_us = max(columns["e"]) if options.as_of_us is None else options.as_of_us
    print(f"{len(columns['e'])} rows, as of {as_of_us} us")
    judge = Judge(options.plant)
    larger = [view for view in ("customer_stats", "customer_product", "product_stats") if view in options.snapshot]
    left = options.sample
    for position, view in enumerate(larger):  # what a small view cannot give, the next one does
        share = -(-left // (len(larger) - position))
        left -= judge_snapshot(judge, view, options.snapshot[view], columns, as_of_us, options.ttls_us.get(view), share)
    if "category_stats" in options.snapshot:
        path, ttl_us = options.snapshot["category_stats"], options.ttls_us.get("category_stats")
        judge_snapshot(judge, "category_stats", path, columns, as_of_us, ttl_us, None)
    for view, path in options.snapshot.items():
        judge_with_sql(judge, view, path, options.rows, as_of_us, options.ttls_us.get(view))
    for labels, output in options.historical:
        judge_historical(judge, labels, output, columns, options.ttls_us, options.labels)
    print(f"compared {judge.compared}, differ {judge.differ}")
    return 1 if judge.differ or judge.compared == 0 else 0


if __name__ == "__main__":
    sys.exit(main())
