"""The canonical training set by other engines, for benches/batch.py.

    rivals.py polars|duckdb ROWS LABELS.parquet OUT.parquet

Both compute the eight features of examples/ecommerce/definitions the fastest way we found that gives the same answer
for any such rows: running sums of each entity in time order, looked up as of the label and as of the window's left
edge; their difference is the window. A window of 30 days has a sharp head and a tail of whole days:
floor(t - 30 d, 1 d) <= e <= t. Equal times are ordered by value, values older than the view's ttl are null.
Their sums are ordinary floats: near, not exact.
"""

import sys

DAY_US = 86_400_000_000
WINDOW_US = 30 * DAY_US
TTL_US = 90 * DAY_US
INPUTS = ["transaction_date", "customer_id", "product_id", "category", "quantity", "unit_price", "review_rating"]


# --- Polars ------------------------------------------------------------------------------------------------------


def with_polars(rows_path, labels_path, out):
    import polars as pl

    def time_us(column):
        return pl.col(column).dt.cast_time_unit("us").dt.epoch("us")

    rows = (
        pl.scan_parquet(f"{rows_path}/*.parquet")
        .select(INPUTS)
        .with_columns(e=time_us("transaction_date"), amount=pl.col("quantity").cast(pl.Float64) * pl.col("unit_price"))
        .drop("transaction_date", "unit_price")
        .collect(engine="streaming")
        .sort("e", "amount")
    )
    asked = pl.read_parquet(labels_path)
    labels = asked.select("label", "customer_id", "product_id", "category", t=time_us("event_timestamp"))
    labels = labels.with_columns(before=(pl.col("t") - WINDOW_US) // DAY_US * DAY_US - 1).sort("t")
    out_columns = {}

    def as_of(right, keys, at="t"):
        """The newest row of the keys at or before `at`, in the order of `labels`."""
        left = labels.select("label", *keys, at)
        joined = left.join_asof(
            right, left_on=at, right_on="e", by=keys, strategy="backward", coalesce=False, check_sortedness=False
        )
        assert joined["label"].equals(labels["label"]), "an as-of join keeps the order of its left side"
        return joined

    def keep(name, joined, value, newest=None):
        fresh = labels["t"] - (joined if newest is None else newest)["e"] <= TTL_US
        out_columns[name] = joined.select(pl.when(fresh).then(value))[:, 0]

    def windowed(keys, sums, **more):
        """Joins of running sums at the head, with more of its row, and of the sums just before the tail."""
        sums = {name: value.cum_sum().over(keys) for name, value in sums.items()}
        running = rows.select(*keys, "e", **sums)
        head = as_of(running.with_columns(rows.select(**more)) if more else running, keys)
        return head, as_of(running, keys, "before").select(pl.col(*sums).fill_null(0))

    rating = pl.col("review_rating")
    sums = {
        "rows": pl.col("e").is_not_null().cast(pl.Int64),
        "units": pl.col("quantity"),
        "revenue": pl.col("amount"),
        "rated": rating.is_not_null().cast(pl.Int64),
        "ratings": rating.fill_null(0),
    }
    head, tail = windowed(["product_id"], sums)
    difference = {name: head[name] - tail[name] for name in sums}
    some = difference["rows"] > 0
    keep("product_stats__units_sold_30d", head, pl.when(some).then(difference["units"]))
    keep("product_stats__revenue_30d", head, pl.when(some).then(difference["revenue"]))
    mean = difference["ratings"] / difference["rated"]
    keep("product_stats__avg_review_30d", head, pl.when(difference["rated"] > 0).then(mean))

    rated = rows.lazy().filter(rating.is_not_null()).select("product_id", "e", "review_rating")
    rated = rated.sort("e", "review_rating")
    total, count = rating.cum_sum().over("product_id"), pl.int_range(1, pl.len() + 1).over("product_id")
    before_them = pl.col("total").shift(5).over("product_id").fill_null(0)
    newest_five = rated.with_columns(total=total, count=count).select(
        "product_id", "e", mean=(pl.col("total") - before_them) / pl.col("count").clip(upper_bound=5)
    )
    keep("product_stats__avg_review_last_5", as_of(newest_five.collect(), ["product_id"]), pl.col("mean"), head)

    # Only customers that a label asks for: most of the rows are of others.
    of_labels = rows.lazy().join(labels.lazy().select("customer_id").unique(), on="customer_id", how="semi").collect()
    newest = of_labels.sort("e", "amount").select("customer_id", "e", "amount")
    keep("customer_stats__last_purchase_amount", as_of(newest, ["customer_id"]), pl.col("amount"))

    pair = ["customer_id", "product_id"]
    of_labels = of_labels.lazy().join(labels.lazy().select(pair).unique(), on=pair, how="semi").collect()
    reviews = of_labels.sort("e", "review_rating").select(*pair, "e", rating.forward_fill().over(pair))
    keep("customer_product__last_review", as_of(reviews, pair), rating)

    by_category, amount = ["category"], pl.col("amount")
    earlier = [amount.shift(back).over("category").fill_null(0.0) for back in (1, 2)]
    sums = {"rows": sums["rows"], "revenue": amount}
    head, tail = windowed(by_category, sums, last_three=amount + earlier[0] + earlier[1])
    keep("category_stats__revenue_last_3_orders", head, pl.col("last_three"))
    some = head["rows"] - tail["rows"] > 0
    keep("category_stats__revenue_30d", head, pl.when(some).then(head["revenue"] - tail["revenue"]))

    features = labels.select("label").with_columns(**out_columns)
    asked.join(features, on="label", how="left", maintain_order="left").write_parquet(out)


# --- DuckDB ------------------------------------------------------------------------------------------------------

# Sums over a range of times take all rows of an instant together. Where single rows matter, `lead` keeps the last of
# an instant, so that an as-of join has one to find.
DUCKDB = f"""
CREATE TEMP TABLE rows AS SELECT epoch_us(transaction_date) AS e, customer_id, product_id, category, quantity,
    review_rating, quantity::DOUBLE * unit_price AS amount FROM read_parquet($rows);
CREATE TEMP TABLE labels AS SELECT label, customer_id, product_id, category, epoch_us(event_timestamp) AS t,
    (epoch_us(event_timestamp) - {WINDOW_US}) // {DAY_US} * {DAY_US} - 1 AS before FROM read_parquet($labels);

CREATE TEMP TABLE product AS SELECT product_id, e, count(*) OVER w AS n, sum(quantity) OVER w AS units,
    sum(amount) OVER w AS revenue, count(review_rating) OVER w AS rated, sum(review_rating) OVER w AS ratings
    FROM rows WINDOW w AS (PARTITION BY product_id ORDER BY e)
    QUALIFY lead(e) OVER w IS DISTINCT FROM e;
CREATE TEMP TABLE last_5 AS SELECT product_id, e, avg(review_rating) OVER
    (PARTITION BY product_id ORDER BY e, review_rating ROWS 4 PRECEDING) AS mean
    FROM rows WHERE review_rating IS NOT NULL
    QUALIFY lead(e) OVER (PARTITION BY product_id ORDER BY e, review_rating) IS DISTINCT FROM e;
CREATE TEMP TABLE customer AS SELECT customer_id, e, max(amount) AS amount FROM rows
    WHERE customer_id IN (SELECT customer_id FROM labels) GROUP BY ALL;
CREATE TEMP TABLE pair AS SELECT customer_id, product_id, e, max(review_rating) AS rating FROM rows
    WHERE (customer_id, product_id) IN (SELECT (customer_id, product_id) FROM labels) GROUP BY ALL;
CREATE TEMP TABLE category AS SELECT category, e, count(*) OVER w AS n, sum(amount) OVER w AS revenue,
    sum(amount) OVER (PARTITION BY category ORDER BY e, amount ROWS 2 PRECEDING) AS last_3
    FROM rows WINDOW w AS (PARTITION BY category ORDER BY e)
    QUALIFY lead(e) OVER (PARTITION BY category ORDER BY e, amount) IS DISTINCT FROM e;

CREATE TEMP TABLE of_product AS SELECT label,
    CASE WHEN t - h.e <= {TTL_US} AND h.n > coalesce(b.n, 0) THEN h.units - coalesce(b.units, 0) END AS units,
    CASE WHEN t - h.e <= {TTL_US} AND h.n > coalesce(b.n, 0) THEN h.revenue - coalesce(b.revenue, 0) END AS revenue,
    CASE WHEN t - h.e <= {TTL_US} AND h.rated > coalesce(b.rated, 0)
        THEN (h.ratings - coalesce(b.ratings, 0)) / (h.rated - coalesce(b.rated, 0)) END AS rating,
    CASE WHEN t - h.e <= {TTL_US} THEN r.mean END AS mean
    FROM labels l ASOF LEFT JOIN product h ON l.product_id = h.product_id AND l.t >= h.e
    ASOF LEFT JOIN product b ON l.product_id = b.product_id AND l.before >= b.e
    ASOF LEFT JOIN last_5 r ON l.product_id = r.product_id AND l.t >= r.e;
CREATE TEMP TABLE of_customer AS SELECT label,
    CASE WHEN t - c.e <= {TTL_US} THEN c.amount END AS amount, CASE WHEN t - p.e <= {TTL_US} THEN r.rating END AS rating
    FROM labels l ASOF LEFT JOIN customer c ON l.customer_id = c.customer_id AND l.t >= c.e
    ASOF LEFT JOIN pair p ON l.customer_id = p.customer_id AND l.product_id = p.product_id AND l.t >= p.e
    ASOF LEFT JOIN (FROM pair WHERE rating IS NOT NULL) r
        ON l.customer_id = r.customer_id AND l.product_id = r.product_id AND l.t >= r.e;
CREATE TEMP TABLE of_category AS SELECT label,
    CASE WHEN t - h.e <= {TTL_US} AND h.n > coalesce(b.n, 0) THEN h.revenue - coalesce(b.revenue, 0) END AS revenue,
    CASE WHEN t - h.e <= {TTL_US} THEN h.last_3 END AS last_3
    FROM labels l ASOF LEFT JOIN category h ON l.category = h.category AND l.t >= h.e
    ASOF LEFT JOIN category b ON l.category = b.category AND l.before >= b.e;

COPY (SELECT l.*, mean AS product_stats__avg_review_last_5, units::BIGINT AS product_stats__units_sold_30d,
    p.revenue AS product_stats__revenue_30d, p.rating AS product_stats__avg_review_30d,
    amount AS customer_stats__last_purchase_amount, c.rating AS customer_product__last_review,
    last_3 AS category_stats__revenue_last_3_orders, g.revenue AS category_stats__revenue_30d
    FROM read_parquet($labels) l JOIN of_product p USING (label) JOIN of_customer c USING (label)
    JOIN of_category g USING (label) ORDER BY label) TO $out (FORMAT parquet)
"""


def with_duckdb(rows_path, labels_path, out):
    import duckdb

    connection = duckdb.connect()
    given = {"rows": f"{rows_path}/*.parquet", "labels": labels_path, "out": out}
    for statement in DUCKDB.split(";\n"):
        for name, path in given.items():
            statement = statement.replace(f"${name}", f"'{path}'")
        connection.execute(statement)


if __name__ == "__main__":
    {"polars": with_polars, "duckdb": with_duckdb}[sys.argv[1]](*sys.argv[2:])
