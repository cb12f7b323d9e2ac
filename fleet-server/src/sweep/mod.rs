//! The shell that ticks: drains what ingest brought, asks the pure parts, commits what they decided, wakes notify.

pub mod keep;
