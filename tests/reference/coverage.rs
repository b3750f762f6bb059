//! What random tests met: each aggregate, window kind and operator against each hard situation. A zero is a failure.

use super::answer::{Answer, Ask, feature_rows, retention_us};
use super::udf::AGGREGATES;
use super::value::{Row, Value};
use super::window::{floor, holds};
use onefold::define::{Feature, FeatureView};
use onefold_fold::{Operator, Window};
use std::collections::BTreeMap;
use std::fmt;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Situation {
    /// A null in an input or in the column of `where`.
    Null,
    /// A NaN there.
    NaN,
    /// Two rows that count have one event time.
    Tie,
    /// A row stands on the edge of a tile.
    TileEdge,
    /// One microsecond before it.
    BeforeEdge,
    /// One microsecond after it.
    AfterEdge,
    /// A row that counts came after a newer one.
    LateRow,
    /// The entity is no longer known (rule 7).
    DroppedEntity,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum WindowKind {
    Unbounded,
    Sliding,
    Offset,
    Tumbling,
    Closed,
}

const SITUATIONS: [Situation; 8] = [
    Situation::Null,
    Situation::NaN,
    Situation::Tie,
    Situation::TileEdge,
    Situation::BeforeEdge,
    Situation::AfterEdge,
    Situation::LateRow,
    Situation::DroppedEntity,
];
const WINDOW_KINDS: [WindowKind; 5] =
    [WindowKind::Unbounded, WindowKind::Sliding, WindowKind::Offset, WindowKind::Tumbling, WindowKind::Closed];
const OPERATORS: [Operator; 10] = [
    Operator::Eq,
    Operator::Ne,
    Operator::Lt,
    Operator::Le,
    Operator::Gt,
    Operator::Ge,
    Operator::In,
    Operator::NotIn,
    Operator::IsNull,
    Operator::NotNull,
];

/// The cells that the rules make impossible: a window kind, a situation, and why.
const IMPOSSIBLE: [(WindowKind, Situation, &str); 4] = [
    (WindowKind::Unbounded, Situation::TileEdge, "without a window there is one tile, and it has no edge"),
    (WindowKind::Unbounded, Situation::BeforeEdge, "without a window there is one tile, and it has no edge"),
    (WindowKind::Unbounded, Situation::AfterEdge, "without a window there is one tile, and it has no edge"),
    (WindowKind::Unbounded, Situation::DroppedEntity, "a view with an unwindowed feature keeps its entities (rule 7)"),
];

/// One line of the table.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Pair {
    AggregateWindow(String, WindowKind),
    AggregateOperator(String, Operator),
    WindowOperator(WindowKind, Operator),
}

/// How often each pair met each situation.
#[derive(Default)]
pub struct Coverage(BTreeMap<(Pair, Situation), u64>);

impl Coverage {
    /// Counts one situation that a feature of this aggregate, window kind and these operators met.
    pub fn hit(&mut self, aggregate: &str, window: WindowKind, operators: &[Operator], situation: Situation) {
        let mut count = |pair| *self.0.entry((pair, situation)).or_default() += 1;
        count(Pair::AggregateWindow(aggregate.to_owned(), window));
        for operator in operators {
            count(Pair::AggregateOperator(aggregate.to_owned(), *operator));
            count(Pair::WindowOperator(window, *operator));
        }
    }

    /// Counts all that one question about one entity meets. `rows` are the entity's, in arrival order.
    pub fn observe(&mut self, view: &FeatureView, rows: &[Row], ask: Ask, answer: &Answer) {
        let exclusive = ask.label && view.right_exclusive;
        let happened =
            |row: &&Row| if exclusive { row.event_time_us < ask.as_of_us } else { row.event_time_us <= ask.as_of_us };
        let visible: Vec<&Row> = rows.iter().filter(happened).collect();
        let dropped = *answer == Answer::NotFound && !visible.is_empty() && retention_us(view).is_some();
        for feature in &view.features {
            let kind = WindowKind::of(&feature.window);
            let operators: Vec<Operator> = feature.filter.iter().map(|comparison| comparison.operator).collect();
            let met = if dropped {
                vec![Situation::DroppedEntity]
            } else {
                situations(feature, &visible, ask.as_of_us, exclusive)
            };
            for situation in met {
                self.hit(&feature.udf.udf, kind, &operators, situation);
            }
        }
    }

    /// `Err` names every cell that was never met though the rules allow it.
    pub fn check(&self) -> Result<(), String> {
        let never = |pair: &Pair, situation| self.count(pair, situation) == 0 && impossible(pair, situation).is_none();
        let missing: Vec<String> = pairs()
            .iter()
            .flat_map(|pair| SITUATIONS.map(|situation| (pair, situation)))
            .filter(|(pair, situation)| never(pair, *situation))
            .map(|(pair, situation)| format!("{pair} never met {situation:?}"))
            .collect();
        if missing.is_empty() { Ok(()) } else { Err(missing.join("\n")) }
    }

    fn count(&self, pair: &Pair, situation: Situation) -> u64 {
        self.0.get(&(pair.clone(), situation)).copied().unwrap_or(0)
    }
}

impl WindowKind {
    pub fn of(window: &Window) -> WindowKind {
        match window {
            Window::Unbounded => WindowKind::Unbounded,
            Window::Sliding { offset_us: 0, .. } => WindowKind::Sliding,
            Window::Sliding { .. } => WindowKind::Offset,
            Window::Tumbling { closed: false, .. } => WindowKind::Tumbling,
            Window::Tumbling { closed: true, .. } => WindowKind::Closed,
        }
    }
}

impl fmt::Display for Coverage {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:<32}", "met")?;
        for situation in SITUATIONS {
            write!(formatter, "{:>14}", format!("{situation:?}"))?;
        }
        for pair in pairs() {
            write!(formatter, "\n{:<32}", pair.to_string())?;
            for situation in SITUATIONS {
                match impossible(&pair, situation) {
                    Some(_) => write!(formatter, "{:>14}", "impossible")?,
                    None => write!(formatter, "{:>14}", self.count(&pair, situation))?,
                }
            }
        }
        for (window, situation, reason) in IMPOSSIBLE {
            write!(formatter, "\nimpossible: {window:?} x {situation:?}: {reason}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Pair {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Pair::AggregateWindow(aggregate, window) => write!(formatter, "{aggregate} x {window:?}"),
            Pair::AggregateOperator(aggregate, operator) => write!(formatter, "{aggregate} x where {operator:?}"),
            Pair::WindowOperator(window, operator) => write!(formatter, "{window:?} x where {operator:?}"),
        }
    }
}

fn pairs() -> Vec<Pair> {
    let of_aggregates = AGGREGATES.iter().flat_map(|aggregate| {
        let windows = WINDOW_KINDS.map(|window| Pair::AggregateWindow((*aggregate).to_owned(), window));
        windows.into_iter().chain(OPERATORS.map(|operator| Pair::AggregateOperator((*aggregate).to_owned(), operator)))
    });
    let of_windows =
        WINDOW_KINDS.into_iter().flat_map(|window| OPERATORS.map(|operator| Pair::WindowOperator(window, operator)));
    of_aggregates.chain(of_windows).collect()
}

fn impossible(pair: &Pair, situation: Situation) -> Option<&'static str> {
    let (Pair::AggregateWindow(_, window) | Pair::WindowOperator(window, _)) = pair else { return None };
    IMPOSSIBLE.iter().find(|(kind, cell, _)| kind == window && *cell == situation).map(|(_, _, reason)| *reason)
}

fn situations(feature: &Feature, visible: &[&Row], as_of_us: i64, exclusive: bool) -> Vec<Situation> {
    let mut met = Vec::new();
    let mut add = |holds: bool, situation| {
        if holds {
            met.push(situation);
        }
    };
    let in_window = |row: &&&Row| holds(&feature.window, row.event_time_us, as_of_us, exclusive);
    let columns =
        feature.inputs.iter().map(|input| &input.name).chain(feature.filter.iter().map(|where_| &where_.column));
    let columns: Vec<&String> = columns.collect();
    let any = |test: fn(&Value) -> bool| {
        visible.iter().filter(in_window).any(|row| columns.iter().any(|column| test(&row.value(column))))
    };
    add(any(Value::is_null), Situation::Null);
    add(any(Value::is_nan), Situation::NaN);
    let existing = feature_rows(feature, visible);
    let times: Vec<i64> = existing.iter().filter(in_window).map(|row| row.event_time_us).collect();
    add((1..times.len()).any(|index| times[..index].contains(&times[index])), Situation::Tie);
    let newer_before = |row: &&&Row| {
        visible
            .iter()
            .take_while(|earlier| !std::ptr::eq(**earlier, **row))
            .any(|earlier| earlier.event_time_us > row.event_time_us)
    };
    add(existing.iter().filter(in_window).any(|row| newer_before(&row)), Situation::LateRow);
    let (hop_us, align_us) = match feature.window {
        Window::Unbounded => return met,
        Window::Sliding { hop_us, align_us, .. } => (hop_us, align_us),
        Window::Tumbling { size_us, align_us, .. } => (size_us, align_us),
    };
    let on_edge = |time_us: i128| floor(time_us, hop_us.into(), align_us.into()) == time_us;
    let beside = |shift: i128| existing.iter().any(|row| on_edge(i128::from(row.event_time_us) + shift));
    add(beside(0), Situation::TileEdge);
    add(beside(1), Situation::BeforeEdge);
    add(beside(-1), Situation::AfterEdge);
    met
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_that_was_never_met_fails_the_check() {
        let mut coverage = Coverage::default();
        assert!(coverage.check().is_err());
        for aggregate in AGGREGATES {
            for window in WINDOW_KINDS {
                for situation in SITUATIONS {
                    coverage.hit(aggregate, window, &OPERATORS, situation);
                }
            }
        }
        assert_eq!(coverage.check(), Ok(()));
        coverage.0.remove(&(Pair::WindowOperator(WindowKind::Closed, Operator::In), Situation::LateRow));
        assert_eq!(coverage.check(), Err("Closed x where In never met LateRow".to_owned()));
    }
}
