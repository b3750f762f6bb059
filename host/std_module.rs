//! The standard library of UDFs, as the module that comes with the binary. The build script makes it from `udfs/std`.

/// The bytes of module `std`: the same from every checkout.
pub const STD_WASM: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/std.wasm"));
