//! A few numbers, the first or last in canonical order: what `several` keeps of any kind, without an allocation.

use crate::exact::FloatSum;
use crate::inputs;
use crate::plain::{self, PlainColumn, Sortable};
use crate::several::Gives;
use onefold_udf::column::{Column, Words};
use onefold_udf::fold::Fold;
use onefold_udf::output::Builder;
use onefold_udf::state::{Reader, put_varint};
use onefold_udf::{Kind, Malformed, State, Value};

/// How many are kept at most.
pub const MOST: usize = 8;

/// The n first or last numbers. The bytes of its states are those of `several::Ends`.
pub struct FewEnds {
    pub kinds: [Kind; 2],
    pub n: usize,
    pub last: bool,
    pub gives: Gives,
}

/// Event times and values, from the one that goes first when there are too many to the best.
#[derive(Clone)]
pub struct Few {
    rank: u8,
    len: u8,
    held: [(i64, Sortable); MOST],
}

impl Few {
    #[inline]
    fn held(&self) -> &[(i64, Sortable)] {
        self.held.get(..usize::from(self.len)).unwrap_or_default()
    }
}

impl State for Few {
    fn encode(&self, out: &mut Vec<u8>) {
        put_varint(out, u64::from(self.len));
        for (time, value) in self.held() {
            time.encode(out);
            plain::encode(self.rank, *value, out);
        }
    }

    fn decode(input: &mut Reader<'_>) -> Result<Few, Malformed> {
        let mut few = Few { rank: 0, len: 0, held: [(0, 0); MOST] };
        let len = input.length()?;
        for held in few.held.get_mut(..len).ok_or(Malformed("more values are held than are kept"))? {
            let time = i64::decode(input)?;
            let (rank, value) = plain::decode(input)?;
            (few.rank, *held) = (rank, (time, value));
        }
        few.len = len as u8;
        Ok(few)
    }
}

impl FewEnds {
    /// Takes a value in, if it is among the n best.
    #[inline]
    fn offer(&self, few: &mut Few, new: (i64, Sortable)) -> bool {
        let is_better = |new: &(i64, Sortable), held: &(i64, Sortable)| if self.last { new > held } else { new < held };
        let len = usize::from(few.len);
        let worse = few.held().iter().take_while(|held| is_better(&new, held)).count();
        if len < self.n {
            // Room is made behind the worse ones.
            few.held.copy_within(worse..len, worse + 1);
            few.held[worse] = new;
            few.len += 1;
            return true;
        }
        if worse == 0 {
            return false;
        }
        few.held.copy_within(1..worse, 0);
        few.held[worse - 1] = new;
        true
    }

    /// The kept values in canonical order.
    fn values<'h>(&self, few: &'h Few) -> impl Iterator<Item = Sortable> + use<'h> {
        let (held, last) = (few.held(), self.last);
        (0..held.len()).map(move |at| if last { held[at].1 } else { held[held.len() - 1 - at].1 })
    }
}

impl Fold for FewEnds {
    type State = Few;
    type View<'a> = (PlainColumn<'a>, Words<'a>);

    fn view<'a>(&self, columns: &[Column<'a>], rows: usize) -> Result<Self::View<'a>, String> {
        plain::with_times(&self.kinds, columns, rows)
    }

    #[inline]
    fn start(&self) -> Few {
        Few { rank: plain::rank(self.kinds[0]), len: 0, held: [(0, 0); MOST] }
    }

    #[inline]
    fn update(&self, state: &mut Few, (column, times): &Self::View<'_>, row: usize) -> Result<(), String> {
        if let Some(value) = column.get(row) {
            let time = times.integer(row).ok_or("the event time of the row is null")?;
            state.rank = plain::rank(self.kinds[0]);
            self.offer(state, (time, value));
        }
        Ok(())
    }

    fn merge(&self, state: &mut Few, later: &Few) -> Result<(), String> {
        // The bytes of no values say no kind.
        state.rank = plain::rank(self.kinds[0]);
        for held in later.held().iter().rev() {
            if !self.offer(state, *held) {
                break;
            }
        }
        Ok(())
    }

    fn finish(&self, state: &Few, outputs: &mut [Builder]) -> Result<&'static str, String> {
        let ([kind, _], mean, count) = (self.kinds, self.gives == Gives::Mean, u64::from(state.len));
        let (value, reason) = match (self.gives, kind) {
            (Gives::List, kind) => {
                let values: Vec<Value<'static>> = self.values(state).map(|value| plain::value(kind, value)).collect();
                return inputs::emit(outputs, &inputs::list(kind, values.iter())).map(|()| "");
            }
            (_, Kind::Int64) => {
                let sum = self.values(state).map(|value| i128::from(plain::integer(value))).sum();
                inputs::integer_result(sum, count, mean)
            }
            _ => {
                let mut sum = FloatSum::default();
                self.values(state).for_each(|value| sum.add(plain::float(value)));
                (inputs::float_result(&sum, count, mean), "")
            }
        };
        inputs::emit(outputs, &value).map(|()| reason)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use onefold_udf::state;
    use proptest::prelude::*;

    proptest! {
        /// Of the same values `several` keeps the same, in the same bytes; equal ones among them.
        #[test]
        fn keeps_what_sorting_keeps(values in prop::collection::vec((0i64..6, 0u64..6), 0..20), n in 1usize..=MOST, last: bool) {
            let ends = FewEnds { kinds: [Kind::Int64, Kind::Timestamp], n, last, gives: Gives::List };
            let mut few = ends.start();
            for value in &values {
                ends.offer(&mut few, *value);
            }
            let mut sorted = values.clone();
            sorted.sort_by(|left, right| if last { left.cmp(right) } else { right.cmp(left) });
            let kept = &sorted[sorted.len().saturating_sub(n)..];
            prop_assert_eq!(few.held(), kept);
            let held: Vec<(i64, Value<'static>)> =
                kept.iter().map(|(time, value)| (*time, plain::value(Kind::Int64, *value))).collect();
            let (mut own, mut other) = (Vec::new(), Vec::new());
            few.encode(&mut own);
            held.encode(&mut other);
            prop_assert_eq!(&own, &other);
            let read = state::decode::<Few>(&own).unwrap();
            prop_assert_eq!(read.held(), kept);
        }
    }
}
