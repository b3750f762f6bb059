//! Write a feature as `new`, `update`, `merge` and `finish`, or as one function; the platform runs it everywhere.
//!
//! ```
//! use onefold_udf::prelude::*;
//!
//! /// How often the price was at least `floor`.
//! #[derive(Clone, Default, State)]
//! pub struct AtLeast {
//!     count: i64,
//! }
//!
//! #[params]
//! pub struct Floor {
//!     floor: f64,
//! }
//!
//! impl Aggregate for AtLeast {
//!     const NAME: &'static str = "at_least";
//!     const DOC: &'static str = "How many values are at least `floor`";
//!     type Params = Floor;
//!     type Input<'a> = f64;
//!     type Output = i64;
//!
//!     fn new(_: &Floor) -> Self {
//!         Self::default()
//!     }
//!     fn update(&mut self, params: &Floor, price: f64) -> Result<(), String> {
//!         self.count += i64::from(price >= params.floor);
//!         Ok(())
//!     }
//!     fn merge(&mut self, _: &Floor, later: &Self) -> Result<(), String> {
//!         self.count += later.count;
//!         Ok(())
//!     }
//!     fn finish(&self, _: &Floor) -> Result<i64, Null> {
//!         Ok(self.count)
//!     }
//! }
//!
//! /// Price times quantity.
//! #[transform]
//! pub fn amount(quantity: i64, price: f64) -> f64 {
//!     quantity as f64 * price
//! }
//!
//! onefold_udf::export![AtLeast, amount];
//! # fn main() {}
//! ```

#[doc(hidden)]
pub mod abi;
mod aggregate;
pub mod column;
pub mod fold;
mod kind;
mod module;
pub mod output;
pub mod params;
pub mod row;
pub mod state;
pub mod testing;
pub mod transform;
mod value;

pub use aggregate::{Aggregate, Null};
pub use kind::{Field, Kind};
pub use module::{Entry, Info, Instance, Module, Prepared, Role, Udf};
pub use onefold_udf_derive::{State, params, transform};
pub use row::{EventTime, Timestamp};
pub use state::{Malformed, Reader, State};
pub use transform::Rows;
pub use value::{Value, compare_floats};

// What the macros need, so that the manifest of a UDF names this crate alone.
pub use schemars;
pub use serde;
pub use serde_json;

/// All that most UDFs use.
pub mod prelude {
    pub use crate::{Aggregate, EventTime, Null, Rows, State, Timestamp, params, transform};
}

/// Exports UDFs as a module: `onefold_udf::export![Sum, Mean, filter];`, once in a crate, at its root.
///
/// It makes `MODULE`, the list, for native tests; and, when built for Wasm, the functions of the contract.
#[macro_export]
macro_rules! export {
    ($($udf:ty),* $(,)?) => {
        /// The UDFs of this module.
        pub const MODULE: $crate::Module = $crate::Module::new(&[$($crate::Entry::of::<$udf>()),*]);

        #[cfg(target_arch = "wasm32")]
        $crate::exports!(MODULE);
    };
}
