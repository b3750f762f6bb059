"""Labels for a training set, made of the rows themselves: keys that exist, at, just before and long after their rows.

    labels.py ROWS COUNT OUT.parquet

Every third label keeps a row's keys and time, every third is one microsecond before it, every third a week later. The
category of some labels is one that never was.
"""

import sys

import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet

WEEK_US = 7 * 86_400_000_000
MOVES_US = (0, -1, WEEK_US)


def main(rows, count, out):
    names = ["transaction_date", "customer_id", "product_id", "category"]
    table = pa.dataset.dataset(rows, format="parquet").to_table(columns=names)
    count = min(count, table.num_rows)
    # A step that shares no factor with most sizes spreads the labels over all of the rows.
    chosen = table.take([index * 7_919 % table.num_rows for index in range(count)])
    times = chosen["transaction_date"].cast(pa.timestamp("us", "UTC")).cast(pa.int64()).to_pylist()
    moved = [time + MOVES_US[index % len(MOVES_US)] for index, time in enumerate(times)]
    categories = chosen["category"].to_pylist()
    labels = pa.table(
        {
            "label": pa.array(range(count), pa.int64()),
            "customer_id": chosen["customer_id"],
            "product_id": chosen["product_id"],
            "category": ["unheard-of" if index % 50 == 49 else name for index, name in enumerate(categories)],
            "event_timestamp": pa.array(moved, pa.timestamp("us", "UTC")),
        }
    )
    pa.parquet.write_table(labels, out)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3])
