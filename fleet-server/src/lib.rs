//! The off-box program: takes heartbeats, judges liveness, opens incidents, tells on-call.
//!
//! In the data's order:
//! - `settings`: what the server runs by
//! - `directory`: boxes, tokens, operators in memory
//! - `store`: what must survive

pub mod settings;
pub mod directory;
pub mod liveness {
    //! Pure: who is alive, by arrivals alone.
    pub mod time;
}
pub mod incident {
    //! Pure: what is wrong, opened once and resolved once.
    pub mod change;
}
pub mod notify;
pub mod store;
