//! A second, independent opinion on a suspect box, asked over a way that the box's own beats do not take. Only of what an
//! operator declared, never of what the box declares itself.
//!
//! - [`tcp`]: does an address take or refuse a connection?
//! - [`tailscale`]: does the server's own tailscaled reach the peer?
//! - [`fold`]: several answers as one (pure)
//! - [`vigil`]: whom to ask again, and when (pure)
//!
//! The closed connection is a witness too; liveness hears of that directly. A witness decides nothing: it answers, and
//! liveness judges.

pub mod tcp;
pub mod tailscale;
pub mod fold;
pub mod vigil;
