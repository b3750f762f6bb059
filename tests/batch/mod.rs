//! The batch host against the brute force, against itself under other settings, and with broken files.

pub mod random;
mod same;
mod broken;
pub mod world;
