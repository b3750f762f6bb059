//! The batch host against the brute force, against itself under other settings, and with broken files.

mod random;
mod same;
mod broken;
mod world;
