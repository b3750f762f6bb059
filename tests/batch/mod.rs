//! The batch host against the brute force, against itself under other settings, and with broken files.

mod broken;
pub mod random;
mod same;
pub mod world;
