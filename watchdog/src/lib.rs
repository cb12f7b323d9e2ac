//! The on-box program: checks the box every two minutes, mends its gateway, and beats every second.
//!
//! In the data's order:

pub mod settings;
pub mod config;
pub mod clock;
pub mod state_dir;
pub mod pause;
pub mod accounts;
pub mod systemd;
pub mod redact;
pub mod tailscale;
pub mod checks;
pub mod verdict;
pub mod remedy;
pub mod state;
pub mod ask;
pub mod evidence;
pub mod act;
pub mod report;
pub mod print;
pub mod run;
pub mod account;
pub mod beat;
pub mod enroll;
pub mod cli;
