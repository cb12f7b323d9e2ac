//! Fault schedules: the real server, played boxes and receivers in a world of their own, and a random seeded schedule of
//! what goes wrong; an oracle that knows only what was done and what was seen from outside says whether anything was
//! lost, told without a cause, told out of order, told twice without need, or forgotten over a restart.
//!
//! In the data's order:
//! - [`schedule`]: what goes wrong, and when (pure; a seed makes the same one again)
//! - [`world`]: the network's namespaces and the server's small disk
//! - [`process`]: the server's process, started again when it ends
//! - [`fleet`]: the played boxes, each behind a cable of its own
//! - [`driver`]: the shell that plays a schedule in real time and writes down what it did and saw
//! - [`history`]: what it wrote down
//! - [`oracle`]: judges a history (pure)
//! - [`tamper`]: spoils a history on purpose: an oracle that takes a spoilt one is none
//! - [`shrink`]: the smallest part of a schedule that still fails
//! - [`run`]: many schedules beside each other, each a process of its own
//!
//! It judges no timing closer than its [`history::Rules`] say, and measures nothing.

mod driver;
mod fleet;
mod history;
mod oracle;
mod process;
pub mod run;
mod schedule;
mod shrink;
mod tamper;
mod world;
