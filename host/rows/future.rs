//! Rows that say they come from the future (rule 10 of the windows): what is told of them, in a stream and in a batch.

use crate::define::{Source, duration_text};

/// Why a row is refused whose event time is more than the source's `max_future` after its arrival.
pub fn future_message(source: &Source, event_time_us: i64, arrival_us: i64) -> String {
    format!(
        "`{}` is {}, more than {} (max_future) after its arrival at {}: correct the event's time, or raise max_future",
        source.event_time,
        instant(event_time_us),
        duration_text(source.max_future_us),
        instant(arrival_us),
    )
}

/// An instant for people.
pub fn instant(us: i64) -> String {
    jiff::Timestamp::from_microsecond(us).map_or_else(|_| format!("{us} us"), |time| time.to_string())
}
