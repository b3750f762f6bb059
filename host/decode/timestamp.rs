//! RFC 3339 text and decimal numbers to microseconds since the epoch, floored.

use super::scan::Number;

/// 0001-01-01T00:00:00Z: the first microsecond that is a time.
pub const FIRST_US: i64 = -62_135_596_800_000_000;
/// 9999-12-31T23:59:59.999999Z: the last.
pub const LAST_US: i64 = 253_402_300_799_999_999;

const DAY_SECONDS: i64 = 86_400;

/// The time that an RFC 3339 text with an offset says, floored to microseconds. The error says what is wrong with it.
pub fn parse_rfc3339(text: &[u8]) -> Result<i64, &'static str> {
    const FORM: &str = "no RFC 3339 time with an offset and a year of four digits (2026-01-31T12:00:00Z)";
    let (Some(fixed), Some(rest)) = (text.first_chunk::<19>(), text.get(19..)) else { return Err(FORM) };
    let mut bad = 0u8;
    let mut digit = |at: usize| {
        let value = fixed[at].wrapping_sub(b'0');
        bad |= u8::from(value > 9);
        i64::from(value)
    };
    let year = digit(0) * 1000 + digit(1) * 100 + digit(2) * 10 + digit(3);
    let month = digit(5) * 10 + digit(6);
    let day = digit(8) * 10 + digit(9);
    let hour = digit(11) * 10 + digit(12);
    let minute = digit(14) * 10 + digit(15);
    let second = digit(17) * 10 + digit(18);
    let separated = fixed[4] == b'-' && fixed[7] == b'-' && fixed[13] == b':' && fixed[16] == b':';
    if bad != 0 || !separated || !matches!(fixed[10], b'T' | b't' | b' ') {
        return Err(FORM);
    }
    let (fraction_us, rest) = fraction(rest).ok_or(FORM)?;
    let offset_minutes = match rest {
        [b'Z' | b'z'] => 0,
        [sign @ (b'+' | b'-'), h1, h2, b':', m1, m2] => {
            let two = |high: u8, low: u8| {
                (high.is_ascii_digit() && low.is_ascii_digit())
                    .then(|| i64::from(high - b'0') * 10 + i64::from(low - b'0'))
            };
            let (hours, minutes) = (two(*h1, *h2).ok_or(FORM)?, two(*m1, *m2).ok_or(FORM)?);
            if hours > 23 || minutes > 59 {
                return Err("a time whose offset is above 23:59");
            }
            if *sign == b'-' { -(hours * 60 + minutes) } else { hours * 60 + minutes }
        }
        [] => return Err("a time without an offset; add Z or +hh:mm"),
        _ => return Err(FORM),
    };
    if month == 0 || month > 12 || day == 0 || day > days_in(year, month) || hour > 23 || minute > 59 || second > 60 {
        return Err("no date and time of the calendar");
    }
    let leap = second == 60;
    let second_of_day = hour * 3600 + (minute - offset_minutes) * 60 + second.min(59);
    let seconds = days_since_epoch(year, month, day) * DAY_SECONDS + second_of_day;
    if leap && seconds.rem_euclid(DAY_SECONDS) != DAY_SECONDS - 1 {
        return Err("a leap second that is not at 23:59:60 UTC");
    }
    in_range(seconds * 1_000_000 + if leap { 999_999 } else { fraction_us })
}

/// The time that a number of units since the epoch says; `digits_per_unit` is 6 for seconds, 3 for milliseconds, 0 for
/// microseconds. Exact in decimal: no float stands between.
pub(super) fn from_number(number: &Number, digits_per_unit: i32) -> Result<i64, &'static str> {
    if number.is_integer && !number.overflows {
        // At most 19 digits times 10^6 fits an i128.
        let units = i128::from(number.mantissa) * 10i128.pow(digits_per_unit.unsigned_abs());
        return narrow(if number.negative { -units } else { units });
    }
    let (mantissa, exponent) = match number.text.iter().position(|byte| matches!(byte, b'e' | b'E')) {
        Some(at) => (number.text.get(..at).unwrap_or_default(), number.exponent),
        None => (number.text, 0),
    };
    let point = mantissa.iter().position(|byte| *byte == b'.').unwrap_or(mantissa.len());
    let fraction_digits = mantissa.len().saturating_sub(point + 1);
    let digits = mantissa.iter().filter(|byte| byte.is_ascii_digit()).skip_while(|byte| **byte == b'0');
    let digits: Vec<u8> = digits.copied().collect();
    // How many of the digits stand before the point once the number is in microseconds.
    let whole = digits.len() as i64 - fraction_digits as i64 + i64::from(exponent) + i64::from(digits_per_unit);
    if digits.is_empty() {
        return Ok(0);
    }
    if whole > 19 {
        return Err(OUT_OF_RANGE);
    }
    let whole = usize::try_from(whole).unwrap_or(0);
    let units = (0..whole).fold(0i128, |sum, at| sum * 10 + digits.get(at).map_or(0, |digit| i128::from(digit - b'0')));
    let finer = digits.get(whole..).is_some_and(|rest| rest.iter().any(|digit| *digit != b'0'));
    narrow(if number.negative { -units - i128::from(finer) } else { units })
}

/// Refuses what is in no year from 0001 to 9999.
pub(super) fn in_range(us: i64) -> Result<i64, &'static str> {
    if (FIRST_US..=LAST_US).contains(&us) { Ok(us) } else { Err(OUT_OF_RANGE) }
}

const OUT_OF_RANGE: &str = "a time outside the years 0001 to 9999: see to its unit";

fn narrow(us: i128) -> Result<i64, &'static str> {
    i64::try_from(us).map_err(|_| OUT_OF_RANGE).and_then(in_range)
}

/// The fraction of a second in microseconds, and what follows it.
fn fraction(text: &[u8]) -> Option<(i64, &[u8])> {
    let Some(digits) = text.strip_prefix(b".") else { return Some((0, text)) };
    let count = digits.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (digits, rest) = digits.split_at_checked(count)?;
    let us = (0..6).fold(0, |sum, at| sum * 10 + digits.get(at).map_or(0, |digit| i64::from(digit - b'0')));
    (count > 0).then_some((us, rest))
}

fn days_in(year: i64, month: i64) -> i64 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days from 1970-01-01 in the proleptic Gregorian calendar; years begin in March here, so that the leap day is last.
fn days_since_epoch(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts() {
        for (text, us) in [
            ("1970-01-01T00:00:00Z", 0),
            ("1969-12-31T23:59:59.9999999Z", -1),
            ("1970-01-01T00:00:00.0000009Z", 0),
            ("2026-01-01T00:00:00.5+01:00", 1_767_222_000_500_000),
            ("2026-01-01t00:00:00z", 1_767_225_600_000_000),
            ("2026-01-01 00:00:00-00:30", 1_767_227_400_000_000),
            ("2000-02-29T00:00:00Z", 951_782_400_000_000),
            ("0001-01-01T00:00:00Z", FIRST_US),
            ("9999-12-31T23:59:59.999999Z", LAST_US),
            ("2016-12-31T23:59:60Z", 1_483_228_799_999_999),
            ("2017-01-01T00:59:60.25+01:00", 1_483_228_799_999_999),
        ] {
            assert_eq!(parse_rfc3339(text.as_bytes()), Ok(us), "{text}");
        }
        for text in [
            "",
            "2026-01-01",
            "2026-01-01T00:00:00",
            "2026-01-01T00:00Z",
            "2026-13-01T00:00:00Z",
            "2026-02-29T00:00:00Z",
            "2026-01-01T24:00:00Z",
            "2026-01-01T00:00:00.Z",
            "2026-01-01T00:00:00+0100",
            "2026-01-01T00:00:00+24:00",
            "20000-01-01T00:00:00Z",
            "0000-12-31T23:59:59Z",
            "2026-01-01T00:00:60Z",
            "9999-12-31T23:59:59-01:00",
            "2026-01-01T00:00:00Zx",
            "2026-1-01T00:00:00Z",
            "２026-01-01T00:00:00Z",
        ] {
            assert!(parse_rfc3339(text.as_bytes()).is_err(), "{text}");
        }
    }

    proptest::proptest! {
        /// Against another library's calendar, over all years.
        #[test]
        fn agrees_with_jiff(us in FIRST_US..=LAST_US, offset in -86_399 / 60..86_399 / 60) {
            let offset = jiff::tz::Offset::from_seconds(offset * 60).unwrap();
            let instant = jiff::Timestamp::from_microsecond(us).unwrap();
            let local = offset.to_datetime(instant);
            proptest::prop_assume!((1..=9999).contains(&local.year()));
            let minutes = offset.seconds() / 60;
            let sign = if minutes < 0 { '-' } else { '+' };
            let text = format!("{local}{sign}{:02}:{:02}", minutes.abs() / 60, minutes.abs() % 60);
            proptest::prop_assert_eq!(parse_rfc3339(text.as_bytes()), Ok(us), "{}", text);
        }
    }
}
