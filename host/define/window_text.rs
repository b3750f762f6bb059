//! Durations and windows as people write them, and windows as people read them.

use super::located::TextOr;
use super::typed::WindowShape;
use onefold_fold::{DAY_US, HOUR_US, MINUTE_US, Window, default_hop_us};

const SECOND_US: i64 = 1_000_000;
const MILLISECOND_US: i64 = 1_000;

/// Largest first: the order in which they must be written.
const UNITS: [(&str, i64); 5] =
    [("d", DAY_US), ("h", HOUR_US), ("m", MINUTE_US), ("s", SECOND_US), ("ms", MILLISECOND_US)];

/// A century: more is a mistake in the unit, and sums of a few of these stay far from overflow.
const LONGEST_US: i64 = 36_525 * DAY_US;

/// State holds up to one tile a hop; what a window may cost an entity is bounded by this.
const MOST_TILES: i64 = 10_000;

/// `30d`, `1h30m`, `-9h`, `0s` in microseconds.
pub fn parse_duration(text: &str) -> Result<i64, String> {
    let wrong = || format!("`{text}` is no duration: write numbers with d, h, m, s or ms, as in `30d` or `1h30m`");
    let (sign, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, text),
    };
    if rest.is_empty() {
        return Err(wrong());
    }
    let (mut total, mut units) = (0i64, UNITS.as_slice());
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (number, after) = rest.split_at(digits);
        let letters = after.bytes().take_while(u8::is_ascii_alphabetic).count();
        let (unit, after) = after.split_at(letters);
        let position = units.iter().position(|(name, _)| *name == unit).ok_or_else(wrong)?;
        let (_, unit_us) = units.get(position).ok_or_else(wrong)?;
        let number: i64 = number.parse().map_err(|_| wrong())?;
        total = number.checked_mul(*unit_us).and_then(|part| total.checked_add(part)).ok_or_else(wrong)?;
        units = units.get(position + 1..).unwrap_or_default();
        rest = after;
    }
    if total > LONGEST_US {
        return Err(format!("`{text}` is more than a century: write a shorter duration"));
    }
    Ok(sign * total)
}

/// A duration that may not be negative.
pub fn parse_span(text: &str) -> Result<i64, String> {
    match parse_duration(text)? {
        span if span < 0 => Err(format!("`{text}` is negative: write it without the sign")),
        span => Ok(span),
    }
}

/// A duration above zero.
pub fn parse_length(text: &str) -> Result<i64, String> {
    match parse_duration(text)? {
        length if length <= 0 => Err(format!("`{text}` is not above zero: write a longer duration")),
        length => Ok(length),
    }
}

/// The window that was typed, its hop resolved and its alignment within one hop.
pub fn resolve_window(typed: &TextOr<WindowShape>) -> Result<Window, String> {
    let shape = match typed {
        TextOr::Text(text) => return sliding(parse_length(text)?, None, 0, 0),
        TextOr::Shape(shape) => shape,
    };
    let align_us = shape.align.as_deref().map_or(Ok(0), parse_duration)?;
    match (&shape.sliding, &shape.tumbling) {
        (Some(size), None) => {
            if shape.closed.is_some() {
                return Err("`closed` belongs to tumbling windows: write { tumbling: …, closed: true }".to_owned());
            }
            let hop_us = shape.hop.as_deref().map(parse_length).transpose()?;
            let offset_us = shape.offset.as_deref().map_or(Ok(0), parse_span)?;
            sliding(parse_length(size)?, hop_us, offset_us, align_us)
        }
        (None, Some(size)) => {
            if shape.hop.is_some() || shape.offset.is_some() {
                return Err("`hop` and `offset` belong to sliding windows: write { sliding: …, hop: … }".to_owned());
            }
            let size_us = parse_length(size)?;
            let closed = shape.closed.unwrap_or(false);
            Ok(Window::Tumbling { size_us, closed, align_us: align_us.rem_euclid(size_us) })
        }
        _ => Err("a window has one of `sliding` and `tumbling`: write { sliding: 30d } or { tumbling: 1d }".to_owned()),
    }
}

fn sliding(size_us: i64, hop_us: Option<i64>, offset_us: i64, align_us: i64) -> Result<Window, String> {
    let hop_us = hop_us.unwrap_or_else(|| default_hop_us(size_us));
    let tiles = size_us / hop_us;
    if tiles > MOST_TILES {
        let (size, hop) = (duration_text(size_us), duration_text(hop_us));
        return Err(format!(
            "a window of {size} with a hop of {hop} has {tiles} tiles, {MOST_TILES} are allowed: write a longer `hop`"
        ));
    }
    Ok(Window::Sliding { size_us, hop_us, offset_us, align_us: align_us.rem_euclid(hop_us) })
}

/// A duration as people read it: `30 d`, `1 h 30 m`.
pub fn duration_text(duration_us: i64) -> String {
    let mut parts = Vec::new();
    let mut rest = duration_us.unsigned_abs();
    for (name, unit_us) in UNITS {
        let unit_us = unit_us.unsigned_abs();
        if rest >= unit_us {
            parts.push(format!("{} {name}", rest / unit_us));
            rest %= unit_us;
        }
    }
    if rest > 0 || parts.is_empty() {
        parts.push(format!("{rest} {}", if parts.is_empty() && rest == 0 { "s" } else { "us" }));
    }
    let sign = if duration_us < 0 { "-" } else { "" };
    format!("{sign}{}", parts.join(" "))
}

/// What a window covers, in words: `covers 30 d to 31 d, hop 1 d`.
pub fn window_words(window: &Window) -> String {
    let aligned = |align_us: i64| match align_us {
        0 => String::new(),
        align_us => format!(", edges moved by {}", duration_text(align_us)),
    };
    match *window {
        Window::Unbounded => "covers all rows since the beginning".to_owned(),
        Window::Sliding { size_us, hop_us, offset_us, align_us } => {
            let (size, hop) = (duration_text(size_us), duration_text(hop_us));
            let most = duration_text(size_us.saturating_add(hop_us));
            let before = match offset_us {
                0 => String::new(),
                offset_us => format!(", ending {} before the moment", duration_text(offset_us)),
            };
            // With an offset both edges move by hops, so the length is always the same.
            let covers = if offset_us == 0 { format!("{size} to {most}") } else { size };
            format!("covers {covers}{before}, hop {hop}{}", aligned(align_us))
        }
        Window::Tumbling { size_us, closed: false, align_us } => {
            format!("covers the running {}{}", duration_text(size_us), aligned(align_us))
        }
        Window::Tumbling { size_us, closed: true, align_us } => {
            format!("covers the last whole {}{}", duration_text(size_us), aligned(align_us))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_written_and_wrong_ones_refused() {
        assert_eq!(parse_duration("30d"), Ok(30 * DAY_US));
        assert_eq!(parse_duration("1h30m"), Ok(90 * MINUTE_US));
        assert_eq!(parse_duration("-9h"), Ok(-9 * HOUR_US));
        assert_eq!(parse_duration("0s"), Ok(0));
        assert_eq!(parse_duration("250ms"), Ok(250 * MILLISECOND_US));
        for wrong in
            ["", "-", "30", "d", "30 d", "30w", "1m1h", "1h1h", "1.5h", "99999999999999999999d", "99999d", "1é"]
        {
            assert!(parse_duration(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn windows_in_words() {
        let words = |text: &str| window_words(&resolve_window(&TextOr::Text(text.to_owned())).unwrap());
        assert_eq!(words("30d"), "covers 30 d to 31 d, hop 1 d");
        assert_eq!(words("90m"), "covers 1 h 30 m to 1 h 35 m, hop 5 m");
        let tokyo = WindowShape {
            sliding: None,
            hop: None,
            offset: None,
            tumbling: Some("1d".to_owned()),
            closed: Some(true),
            align: Some("-9h".to_owned()),
        };
        let window = resolve_window(&TextOr::Shape(tokyo)).unwrap();
        assert_eq!(window_words(&window), "covers the last whole 1 d, edges moved by 15 h");
    }

    #[test]
    fn a_window_of_too_many_tiles_is_refused() {
        let error = sliding(30 * DAY_US, Some(SECOND_US), 0, 0).unwrap_err();
        assert!(error.contains("2592000 tiles"), "{error}");
    }
}
