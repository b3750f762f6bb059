//! The one test binary: judges that share no code with the fold, the data they are held to, and the house rules.

#![allow(clippy::print_stdout, reason = "what a test has covered is printed, and kept for who asks with --nocapture")]

mod bad_input;
mod batch;
mod cases;
mod changes;
mod chaos;
mod claims;
mod command_line;
mod crash;
mod damage;
mod explain;
mod full_disk;
mod init;
mod kills;
mod large;
mod letters;
mod life;
mod modules;
mod ordered;
mod own_tests;
mod paths;
mod peek;
mod planned;
mod provenance;
mod reference;
mod serve;
mod served;
mod still;
mod stream;
mod tidy;
mod verify;
