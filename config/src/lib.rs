//! How both programs read their configuration file: a walk over the TOML table that names every mistake at once, each
//! with file, line, key, value and what would be right.
//!
//! It knows types, ranges and spelling; what a key means stands in each program's own `config`.
//!
//! - [`file`]: bytes, UTF-8, TOML
//! - [`problem`]: what is wrong with a file, and how it is said
//! - [`section`]: one table, one value
//! - [`scalar`]: durations, sizes, near misses
//! - [`address`]: where a secret may go in the clear

pub mod file;
pub mod problem;
pub mod section;
pub mod scalar;
pub mod address;
