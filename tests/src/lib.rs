//! Tests with real parts: booted machines, the built programs, Prometheus, Alertmanager.
//!
//! It knows the product only from outside: its programs, files, units and HTTP. `README.md` beside this crate says how
//! to write a scenario.
//!
//! - [`clock`], [`exec`]: time and programs
//! - [`programs`]: the product's programs, as built
//! - [`lab`]: a scenario's world: the network, the boxes
//! - [`http`]: one request, one answer
//! - [`server`], [`webhook`], [`monitoring`]: what runs on the lab's host: a fleet server, a receiver, Prometheus
//! - [`checkup`]: the watchdog's checks run in a box, its beats heard meanwhile
//! - [`genuine`]: Tailscale and Hermes Agent themselves
//! - [`sim`]: boxes that are only played
//! - [`faults`]: the real server under random schedules of faults, and the oracle that judges it
//! - [`scenario`], [`scenarios`]: what is shown; [`bench`]: what is measured
//! - [`runner`]: how they are run

pub mod bench;
pub mod checkup;
pub mod clock;
pub mod exec;
pub mod faults;
pub mod genuine;
pub mod http;
pub mod lab;
pub mod monitoring;
pub mod programs;
pub mod reports;
pub mod runner;
pub mod scenario;
pub mod scenarios;
pub mod server;
pub mod sim;
pub mod webhook;
