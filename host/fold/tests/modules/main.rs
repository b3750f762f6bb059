//! The engine against modules, kind and hostile: what they may do, and what each bad one is told.

mod blame;
mod claims;
mod common;
mod good;
mod hostile;
mod refused;
