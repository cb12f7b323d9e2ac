//! A genuine tailscaled against a control plane of the test's own, without a way out and without root features.
//!
//! [`build::prepare`] gives the programs' directory (for [`crate::scenario::Need::Tailscale`]). A scenario then does:
//!
//! ```text
//! let programs = resource(Need::Tailscale)?;
//! let plane = ControlPlane::start(lab, &programs, Policy::default())?;
//! let made = lab.boot(boxed::with_tailscale(BoxSpec::new("box-1"), &programs))?;
//! boxed::join(&made, &plane, "any")?;
//! local_api::of_box(&made)?.wait_for("running", secs(10), |status| status.state() == "Running")?;
//! plane.cut()?;
//! ```
//!
//! - [`build`]: tailscaled and the control plane, by Go, once
//! - [`control`]: the control plane and its knobs
//! - [`local_api`]: what tailscaled says of itself
//! - [`boxed`]: tailscaled as a service of a box
//! - [`rows`]: a box brought into each state that the watchdog's check must tell apart
//! - [`hosted`]: tailscaled as a child process on the host's side of the lab

mod ask;
pub mod boxed;
pub mod build;
pub mod control;
pub mod hosted;
pub mod local_api;
pub mod rows;

pub use control::{ControlPlane, Policy};
pub use local_api::{LocalApi, Status};
