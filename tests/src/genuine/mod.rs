//! Genuine third-party programs, built or installed once into the cache and driven from outside.
//!
//! Nothing here imitates them: where one cannot be had, [`crate::scenario::Need`] says why and its scenarios are
//! skipped.
//!
//! - [`cache`]: build once, keep for later runs
//! - [`tailscale`]: tailscaled against a control plane of the test's own
//! - [`hermes`]: a Hermes Agent gateway, installed by its own command
//! - [`fastclock`]: a clock that runs faster, for programs that must be watched for long
//! - [`sickdisk`]: a disk that turns read-only under a running program

pub mod cache;
pub mod fastclock;
pub mod hermes;
pub mod sickdisk;
pub mod tailscale;
