//! The one test binary: judges that share no code with the fold, the data they are held to, and the house rules.

mod modules;
mod reference;
mod stream;
mod tidy;
