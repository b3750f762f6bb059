//! The transforms of the e-commerce example: module `ecommerce`.

use onefold_udf::prelude::*;

/// What a row of an order is worth: quantity times unit price; null when either is.
#[transform(outputs(amount))]
pub fn amount(quantity: i64, unit_price: f64) -> f64 {
    quantity as f64 * unit_price
}

/// A price against the mean price at which a product sold: price / (revenue / units); null when any is null or nothing sold.
#[transform(outputs(price_ratio))]
pub fn price_ratio(price: f64, revenue: f64, units: i64) -> Option<f64> {
    (units != 0 && revenue != 0.0).then(|| price / (revenue / units as f64))
}

onefold_udf::export![amount, price_ratio];
