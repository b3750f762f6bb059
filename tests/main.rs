//! The one test binary: judges that share no code with the fold, the data they are held to, and the house rules.

mod batch;
mod cases;
mod chaos;
mod crash;
mod modules;
mod paths;
mod reference;
mod served;
mod stream;
mod tidy;
mod verify;
