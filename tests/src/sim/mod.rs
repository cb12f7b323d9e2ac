//! Boxes that are only played: N of them over real HTTP connections, with the wire's own types.
//!
//! They share one thread. They run no checks and restart nothing; what they report is what they were told to. HTTP
//! only, to a server on this machine.
//!
//! In the data's order:
//! - [`command`]: what the fleet can be told, as lines
//! - [`player`]: one box, pure: what it sends next
//! - [`reported`]: the report of a played box, pure
//! - [`credentials`]: tokens from a file, by enrolment, or from the operators' API
//! - [`line`]: one box's connection
//! - [`counts`]: what was sent and answered
//! - [`fleet`]: the shell: the thread that plays them all, and its handle

pub mod command;
pub mod counts;
pub mod credentials;
pub mod fleet;
pub mod line;
pub mod player;
pub mod reported;

pub use command::{Command, Target};
pub use fleet::{Fleet, Settings};
