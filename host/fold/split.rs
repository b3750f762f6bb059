//! A call that failed, taken apart: which operations are to blame, or, if none is, what the call gives in parts.
//!
//! The module names failing operations itself where it can. After a trap, or when fuel or memory ran out, the tape
//! is run in halves, one after the other, with the states of all slots passed along, until one operation is left;
//! only that one is judged. So whether a row is accepted never depends on the rows it came with.

use crate::call::{FoldCall, Folded, Udf};
use crate::error::CallFailure;
use arrow::array::ArrayRef;

struct Parts<'a> {
    udf: &'a Udf,
    call: FoldCall<'a>,
    state_offsets: Vec<u32>,
    state_data: Vec<u8>,
    /// Outputs of the parts that ran, in order.
    outputs: Vec<Vec<ArrayRef>>,
    reasons: Vec<(u32, String)>,
    emitted: u32,
    failed: Vec<(u32, String)>,
}

/// Runs a call that failed whole: `Ok` with its results when every part passes, else the operations that failed
/// (index in the tape, ascending) and why.
pub(crate) fn resolve(udf: &Udf, call: &FoldCall<'_>) -> Result<Folded, Vec<(u32, String)>> {
    match udf.fold(call) {
        Ok(folded) => return Ok(folded),
        Err(CallFailure::Ops(failed)) if !failed.is_empty() => return Err(failed),
        Err(_) => {}
    }
    let given = call.state_offsets.len().saturating_sub(1);
    let mut state_offsets = call.state_offsets.to_vec();
    if state_offsets.is_empty() {
        state_offsets.push(0);
    }
    state_offsets.resize(call.slots as usize + 1, call.state_data.len() as u32);
    debug_assert!(given <= call.slots as usize, "states come in for the first slots");
    let mut parts = Parts {
        udf,
        call: *call,
        state_offsets,
        state_data: call.state_data.to_vec(),
        outputs: Vec::new(),
        reasons: Vec::new(),
        emitted: 0,
        failed: Vec::new(),
    };
    let ops: Vec<u32> = (0..call.tape.len() as u32 / 2).collect();
    parts.run(&ops);
    if parts.failed.is_empty() {
        parts.folded().map_err(|message| ops.iter().map(|op| (*op, message.clone())).collect())
    } else {
        parts.failed.sort_by_key(|failed| failed.0);
        Err(parts.failed)
    }
}

impl Parts<'_> {
    /// Runs these operations on the states as they stand, leaving out those that fail.
    fn run(&mut self, ops: &[u32]) {
        if ops.is_empty() {
            return;
        }
        let tape: Vec<u32> =
            ops.iter().flat_map(|op| self.call.tape[*op as usize * 2..][..2].iter().copied()).collect();
        let call = FoldCall {
            keep: self.call.slots,
            tape: &tape,
            state_offsets: &self.state_offsets,
            state_data: &self.state_data,
            ..self.call
        };
        match self.udf.fold(&call) {
            Ok(folded) => {
                let first = self.emitted;
                self.emitted += folded.outputs.first().map_or(0, |output| output.len() as u32);
                self.reasons.extend(folded.reasons.into_iter().map(|(emit, reason)| (first + emit, reason)));
                self.outputs.push(folded.outputs);
                self.state_offsets = folded.state_offsets;
                self.state_data = folded.state_data;
            }
            Err(CallFailure::Ops(failed)) if !failed.is_empty() => {
                let blamed: Vec<u32> = failed.iter().filter_map(|(op, _)| ops.get(*op as usize).copied()).collect();
                let named = failed.into_iter().filter_map(|(op, why)| Some((*ops.get(op as usize)?, why)));
                self.failed.extend(named);
                let others: Vec<u32> = ops.iter().copied().filter(|op| !blamed.contains(op)).collect();
                if others.len() < ops.len() {
                    self.run(&others);
                }
            }
            Err(failure) if ops.len() == 1 => self.failed.push((ops[0], failure.to_string())),
            Err(_) => {
                let (first, second) = ops.split_at(ops.len() / 2);
                self.run(first);
                self.run(second);
            }
        }
    }

    fn folded(mut self) -> Result<Folded, String> {
        let columns = self.udf.outputs().len();
        let mut outputs = Vec::with_capacity(columns);
        for column in 0..columns {
            let parts: Vec<&dyn arrow::array::Array> = self.outputs.iter().map(|part| part[column].as_ref()).collect();
            outputs.push(arrow::compute::concat(&parts).map_err(|error| error.to_string())?);
        }
        let keep = self.call.keep as usize;
        self.state_offsets.truncate(keep + 1);
        self.state_data.truncate(self.state_offsets[keep] as usize);
        let Parts { state_offsets, state_data, reasons, .. } = self;
        Ok(Folded { state_offsets, state_data, outputs, reasons })
    }
}
