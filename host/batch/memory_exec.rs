//! Part of a plan with memory of its own.
//!
//! In one pool the exchange, which holds what the sorts are too busy to take, leaves them nothing to merge with; one
//! sort's merge takes what another is about to need; and a sort that is being read cannot give anything back. So the
//! exchange and each thread's sorts have shares of their own, and go to disk when those are used up.

use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::error::Result as DataFusionResult;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties};
use std::fmt;
use std::sync::Arc;

/// Runs its input, and all below it, in other contexts: one a partition, or one for all.
pub(super) struct MemoryExec {
    input: Arc<dyn ExecutionPlan>,
    contexts: Vec<Arc<TaskContext>>,
}

impl MemoryExec {
    pub fn new(input: Arc<dyn ExecutionPlan>, contexts: Vec<Arc<TaskContext>>) -> MemoryExec {
        MemoryExec { input, contexts }
    }
}

impl fmt::Debug for MemoryExec {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("MemoryExec")
    }
}

impl DisplayAs for MemoryExec {
    fn fmt_as(&self, _: DisplayFormatType, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("MemoryExec")
    }
}

impl ExecutionPlan for MemoryExec {
    fn name(&self) -> &str {
        "MemoryExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        self.input.properties()
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        vec![true]
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> DataFusionResult<TreeNodeRecursion>,
    ) -> DataFusionResult<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(
        self: Arc<Self>,
        mut children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
        Ok(match children.pop() {
            Some(input) => Arc::new(MemoryExec::new(input, self.contexts.clone())),
            None => self,
        })
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> DataFusionResult<SendableRecordBatchStream> {
        let own = self.contexts.get(partition).or(self.contexts.first()).cloned();
        self.input.execute(partition, own.unwrap_or(context))
    }
}
