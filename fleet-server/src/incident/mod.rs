//! Pure: what is wrong, opened once and resolved once.

pub mod change;
