//! Sessions: module `sessions`.
//!
//! A session is a run of rows of one entity, each no more than `gap` after the one before. Only event times count: what
//! must not be part of it is kept out by the feature's `where`. An example of an aggregate that takes its rows in order:
//! then its state is five numbers, where one that takes them in any order would have to keep every row.

use onefold_udf::prelude::*;
use onefold_udf::serde::de::Error;
use onefold_udf::serde::{Deserialize, Deserializer};

#[params]
pub struct SessionsParams {
    /// The longest time between two rows of one session: a number and a unit (`us`, `ms`, `s`, `m`, `h`, `d`), or
    /// several, as in `1h30m`.
    #[serde(deserialize_with = "read_gap", rename = "gap")]
    #[schemars(with = "String", extend("examples" = ["30m"]))]
    gap_us: i64,
}

fn read_gap<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i64, D::Error> {
    gap_us(&String::deserialize(deserializer)?).map_err(D::Error::custom)
}

/// The sessions of some rows that follow each other.
#[derive(State, Clone, Copy)]
pub struct Run {
    /// Event time of the first row, microseconds.
    begin_us: i64,
    /// Event time of the last row.
    end_us: i64,
    /// Event time of the first row of the last session.
    last_begin_us: i64,
    count: i64,
    /// The lengths of all sessions together.
    length_us: i128,
}

/// None: no row.
#[derive(State, Clone)]
pub struct Sessions(Option<Run>);

impl Aggregate for Sessions {
    const NAME: &'static str = "sessions";
    const DOC: &'static str = "How many sessions there are, how long they are on average, and how long the last one is";
    const OUTPUTS: &'static [&'static str] = &["count", "mean_length_s", "last_length_s"];
    const ORDERED: bool = true;

    type Params = SessionsParams;
    type Input<'a> = (EventTime,);
    type Output = (i64, Option<f64>, Option<f64>);

    fn new(_: &SessionsParams) -> Sessions {
        Sessions(None)
    }

    fn update(&mut self, params: &SessionsParams, (EventTime(at_us),): (EventTime,)) -> Result<(), String> {
        let alone = Run { begin_us: at_us, end_us: at_us, last_begin_us: at_us, count: 1, length_us: 0 };
        self.merge(params, &Sessions(Some(alone)))
    }

    fn merge(&mut self, params: &SessionsParams, later: &Sessions) -> Result<(), String> {
        self.0 = match (self.0, later.0) {
            (run, None) | (None, run) => run,
            (Some(run), Some(later)) => {
                let between_us = i128::from(later.begin_us) - i128::from(run.end_us);
                let goes_on = between_us <= i128::from(params.gap_us);
                let is_one = goes_on && later.count == 1;
                Some(Run {
                    begin_us: run.begin_us,
                    end_us: later.end_us,
                    last_begin_us: if is_one { run.last_begin_us } else { later.last_begin_us },
                    count: run.count + later.count - i64::from(goes_on),
                    length_us: run.length_us + later.length_us + if goes_on { between_us } else { 0 },
                })
            }
        };
        Ok(())
    }

    fn finish(&self, _: &SessionsParams) -> Result<(i64, Option<f64>, Option<f64>), Null> {
        let Some(run) = self.0 else { return Ok((0, None, None)) };
        let last_us = i128::from(run.end_us) - i128::from(run.last_begin_us);
        let mean_length_s = run.length_us as f64 / (run.count as f64 * 1e6);
        Ok((run.count, Some(mean_length_s), Some(last_us as f64 / 1e6)))
    }
}

/// The microseconds of a duration above zero.
fn gap_us(text: &str) -> Result<i64, String> {
    let wrong = |rule: &str| format!("gap `{text}` {rule}: write a number and a unit, as in 30m or 1h30m");
    let mut total_us: i64 = 0;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|character: char| !character.is_ascii_digit()).ok_or_else(|| wrong("has no unit"))?;
        let (number, behind) = rest.split_at(digits);
        let letters = behind.find(|character: char| character.is_ascii_digit()).unwrap_or(behind.len());
        let (unit, after) = behind.split_at(letters);
        let unit_us: i64 = match unit {
            "us" => 1,
            "ms" => 1_000,
            "s" => 1_000_000,
            "m" => 60_000_000,
            "h" => 3_600_000_000,
            "d" => 86_400_000_000,
            _ => return Err(wrong("has a unit that is none of us, ms, s, m, h, d")),
        };
        let number: i64 = number.parse().map_err(|_| wrong("is no duration"))?;
        let part_us = number.checked_mul(unit_us);
        total_us = part_us.and_then(|part_us| total_us.checked_add(part_us)).ok_or_else(|| wrong("is too long"))?;
        rest = after;
    }
    if total_us == 0 { Err(wrong("is not above zero")) } else { Ok(total_us) }
}

onefold_udf::export![Sessions];

#[cfg(test)]
mod tests {
    use super::*;
    use onefold_udf::Value;
    use onefold_udf::testing::{Aggregation, TimedRow};

    fn sessions(gap: &str) -> Result<Aggregation, String> {
        Aggregation::new(MODULE, "sessions", &format!("{{\"gap\":\"{gap}\"}}"), &[])
    }

    fn at_seconds(seconds: &[i64]) -> Vec<TimedRow> {
        seconds.iter().map(|second| (second * 1_000_000, Vec::new())).collect()
    }

    #[test]
    fn a_session_goes_on_up_to_its_gap_and_no_further() {
        let sessions = sessions("10s").unwrap();
        let value = |seconds: &[i64]| sessions.whole(&at_seconds(seconds)).unwrap().emitted[0].clone();
        let expected = |count, mean, last| vec![Value::Int64(count), Value::float64(mean), Value::float64(last)];
        assert_eq!(value(&[]), [Value::Int64(0), Value::Null, Value::Null]);
        assert_eq!(value(&[5]), expected(1, 0.0, 0.0));
        assert_eq!(value(&[0, 10, 20]), expected(1, 20.0, 20.0));
        assert_eq!(value(&[0, 10, 21, 21]), expected(2, 5.0, 0.0));
    }

    /// Guards: a join that took the begin of the later part for that of its last session.
    #[test]
    fn parts_give_what_the_whole_gives() {
        let sessions = sessions("10s").unwrap();
        let rows = at_seconds(&[0, 1, 11, 30, 41, 42, 52, 62, 90, 91, 200]);
        let whole = sessions.whole(&rows).unwrap();
        for first in 0..=rows.len() {
            for second in first..=rows.len() {
                for from_the_right in [false, true] {
                    let parts = sessions.in_parts(&rows, &[first, second], from_the_right).unwrap();
                    assert_eq!((parts.states, parts.emitted), (whole.states.clone(), whole.emitted.clone()));
                }
            }
        }
    }

    #[test]
    fn the_longest_times_there_are_do_not_wrap() {
        let sessions = sessions("1us").unwrap();
        let rows = [(i64::MIN, Vec::new()), (i64::MAX, Vec::new())];
        assert_eq!(sessions.whole(&rows).unwrap().emitted[0][0], Value::Int64(2));
    }

    #[test]
    fn a_gap_is_a_duration_above_zero() {
        assert_eq!(gap_us("1h30m"), Ok(5_400_000_000));
        for (gap, said) in [("30", "has no unit"), ("5w", "none of us"), ("0s", "not above zero"), ("", "not above")] {
            assert!(sessions(gap).is_err_and(|error| error.contains(said)), "{gap}");
        }
        assert!(sessions("999999999d").is_err_and(|error| error.contains("too long")));
        assert!(sessions("m").is_err_and(|error| error.contains("no duration")));
    }
}
