//! A second, independent opinion on a suspect box, asked over a way that the box's own beats do not take.
//!
//! - [`tcp`]: does an address that an operator declared answer a connection? Never one that the box declares itself.
//!
//! The closed connection is the other witness so far; liveness hears of that directly. A witness decides nothing.

pub mod tcp;
