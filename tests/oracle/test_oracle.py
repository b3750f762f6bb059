"""The oracle on seven rows whose features were worked out by hand: it passes them, and sees every change planted.

Run: python -m unittest discover tests/oracle
"""

import datetime
import pathlib
import tempfile
import unittest

import pyarrow as pa
import pyarrow.parquet

import oracle

UTC = pa.timestamp("us", "UTC")
VIEWS = oracle.VIEWS


def at(text):
    return datetime.datetime.fromisoformat(text).replace(tzinfo=datetime.timezone.utc)


# transaction, time, customer, product, category, quantity, unit price, rating
ROWS = [
    ("t1", at("2026-01-01T09:00"), "c1", "p1", "books", 1, 0.1, 5),
    ("t2", at("2026-02-01T00:00"), "c1", "p1", "books", 3, 0.1, None),
    ("t3", at("2026-02-01T00:00"), "c2", "p1", "books", 2, 0.1, 4),
    ("t4", at("2026-03-02T12:00"), "c2", "p2", "books", 10, 0.1, 1),
    ("t5", at("2026-03-02T12:00"), "c2", "p2", "books", None, 0.1, 2),
    ("t6", at("2026-03-03T12:00"), None, "p1", "toys", 1, 1e16, None),
    ("t7", at("2026-03-03T12:00"), "c1", "p1", "toys", 1, 1.0, None),
]
NAMES = ("transaction_id", "transaction_date", "customer_id", "product_id", "category", "quantity", "unit_price", "review_rating")
KINDS = (pa.string(), UTC, pa.string(), pa.string(), pa.string(), pa.int64(), pa.float64(), pa.int64())

# As of 2026-03-03T12:00 the thirty days begin at 2026-02-01T00:00; what came on that day leaves on 2026-03-04.
SOON, LATER = at("2026-03-04T00:00"), at("2026-04-02T00:00")
NEWEST = at("2026-03-03T12:00")
PRODUCTS = pa.table(
    {
        "product_id": pa.array(["p1", "p2"]),
        "avg_review_last_5": pa.array([4.5, 1.5]),
        "units_sold_30d": pa.array([7, 10], pa.int64()),
        "revenue_30d": pa.array([1e16 + 2.0, 1.0]),  # 0.3 + 0.2 + 1e16 + 1.0, rounded once
        "avg_review_30d": pa.array([4.0, 1.5]),
        "event_timestamp": pa.array([NEWEST, at("2026-03-02T12:00")], UTC),
        "valid_until": pa.array([SOON, LATER], UTC),
    }
)
CUSTOMERS = pa.table(
    {
        "customer_id": pa.array(["c1", "c2"]),
        "last_purchase_amount": pa.array([1.0, 1.0]),
        "event_timestamp": pa.array([NEWEST, at("2026-03-02T12:00")], UTC),
        "valid_until": pa.array([None, None], UTC),
    }
)
CUSTOMER_PRODUCTS = pa.table(
    {
        "customer_id": pa.array(["c1", "c2", "c2"]),
        "product_id": pa.array(["p1", "p1", "p2"]),
        "last_review": pa.array([5, 4, 2], pa.int64()),
        "event_timestamp": pa.array([NEWEST, at("2026-02-01T00:00"), at("2026-03-02T12:00")], UTC),
        "valid_until": pa.array([None, None, None], UTC),
    }
)
CATEGORIES = pa.table(
    {
        "category": pa.array(["books", "toys"]),
        "revenue_last_3_orders": pa.array([1.5, 1e16]),  # 1e16 + 1.0: a tie, to even
        "revenue_30d": pa.array([1.5, 1e16]),
        "event_timestamp": pa.array([at("2026-03-02T12:00"), NEWEST], UTC),
        "valid_until": pa.array([SOON, at("2026-04-03T00:00")], UTC),
    }
)
SNAPSHOTS = dict(zip(VIEWS, (PRODUCTS, CUSTOMERS, CUSTOMER_PRODUCTS, CATEGORIES)))
LABELS = pa.table(
    {
        "product_id": pa.array(["p1", "p1", "p9", "p1"]),
        "event_timestamp": pa.array([at("2026-02-01T00:00"), at("2026-01-01T09:00"), NEWEST, at("2025-12-31T00:00")], UTC),
        "label": pa.array([1, 0, 1, 0]),
    }
)


class OracleTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        columns = [pa.array(column, kind) for column, kind in zip(zip(*ROWS), KINDS)]
        self.rows = self.write("rows", pa.table(columns, names=NAMES))

    def write(self, name, table):
        path = str(self.folder / f"{name}.parquet")
        pa.parquet.write_table(table, path)
        return path

    def judged(self, snapshots, *flags):
        argv = ["--rows", self.rows, *flags]
        for view, table in snapshots.items():
            argv += ["--snapshot", f"{view}={self.write(view, table)}"]
        return oracle.main(argv)

    def test_passes_what_was_worked_out_by_hand(self):
        self.assertEqual(self.judged(SNAPSHOTS), 0)

    def test_fails_with_a_planted_expectation(self):
        for view, table in SNAPSHOTS.items():
            self.assertEqual(self.judged({view: table}, "--plant"), 1, view)

    def test_sees_one_changed_value_of_any_column(self):
        for view, table in SNAPSHOTS.items():
            for name in VIEWS[view][1]:
                values = table[name].to_pylist()
                values[-1] = oracle.planted(values[-1])
                index = table.column_names.index(name)
                changed = table.set_column(index, name, pa.array(values, table[name].type))
                self.assertEqual(self.judged({view: changed}), 1, f"{view}.{name}")

    def test_sees_a_missing_entity_and_a_value_that_went_null(self):
        self.assertEqual(self.judged({"product_stats": PRODUCTS.slice(0, 1)}), 1)
        null = CUSTOMERS.set_column(1, "last_purchase_amount", pa.array([None, 1.0], pa.float64()))
        self.assertEqual(self.judged({"customer_stats": null}), 1)

    def test_sql_alone_sees_a_change_that_the_sample_does_not(self):
        changed = CUSTOMERS.set_column(1, "last_purchase_amount", pa.array([1.0, 1.000001]))
        self.assertEqual(self.judged({"customer_stats": changed}, "--sample", "0"), 1)
        self.assertEqual(self.judged({"customer_stats": CUSTOMERS}, "--sample", "0"), 0)

    def test_judges_training_sets(self):
        right = LABELS.append_column("product_stats__units_sold_30d", pa.array([5, 1, None, None], pa.int64()))
        wrong = LABELS.append_column("product_stats__units_sold_30d", pa.array([5, 1, 0, None], pa.int64()))
        labels = self.write("labels", LABELS)
        for table, code in ((right, 0), (wrong, 1), (LABELS, 1), (right.slice(1), 1)):
            output = self.write("training", table)
            self.assertEqual(oracle.main(["--rows", self.rows, "--historical", labels, output]), code)

    def test_ttl_makes_values_null(self):
        old = CUSTOMERS.set_column(1, "last_purchase_amount", pa.array([1.0, None], pa.float64()))
        self.assertEqual(self.judged({"customer_stats": old}, "--ttl-days", "customer_stats=0"), 0)
        self.assertEqual(self.judged({"customer_stats": CUSTOMERS}, "--ttl-days", "customer_stats=0"), 1)

    def test_sums_are_exact_and_rounded_once(self):
        self.assertEqual(oracle.exact_sum([0.1] * 10), 1.0)
        self.assertEqual(oracle.exact_sum([1e308, 1e308, -1e308]), 1e308)
        self.assertEqual(oracle.exact_sum([1e308, 1e308]), float("inf"))
        self.assertTrue(oracle.same(oracle.exact_sum([-0.0]), 0.0))
        self.assertIsNone(oracle.exact_sum([2**63 - 1, 1]))


if __name__ == "__main__":
    unittest.main()
