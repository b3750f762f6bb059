//! How far long work is, on a terminal: rows, rate and time left.

use indicatif::{HumanCount, ProgressBar, ProgressState, ProgressStyle};
use std::fmt::Write;

/// A bar over `rows` rows (it may learn their number later); hidden when nobody watches.
pub fn rows_bar(rows: u64, watched: bool) -> ProgressBar {
    if !watched {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{bar:30} {human_pos}/{human_len} rows  {rate}  {eta} left");
    ProgressBar::new(rows).with_style(with_rate(style.unwrap_or_else(|_| ProgressStyle::default_bar())))
}

/// A spinner with the number of events so far, where nobody knows how many there are.
pub fn events_spinner(watched: bool) -> ProgressBar {
    if !watched {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{spinner} {human_pos} events  {rate}  {elapsed}");
    ProgressBar::new_spinner().with_style(with_rate(style.unwrap_or_else(|_| ProgressStyle::default_spinner())))
}

/// Whole rows a second: the library's own rate has four decimals.
fn with_rate(style: ProgressStyle) -> ProgressStyle {
    style.with_key("rate", |state: &ProgressState, text: &mut dyn Write| {
        // Text that cannot be written is a bar that cannot be drawn: nothing hangs on it.
        let _ = write!(text, "{}/s", HumanCount(state.per_sec() as u64));
    })
}
