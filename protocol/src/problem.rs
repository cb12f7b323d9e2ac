//! Errors on the wire: RFC 9457 problem details, `application/problem+json`.

use serde::{Deserialize, Serialize};

/// The media type of a problem.
pub const CONTENT_TYPE: &str = "application/problem+json";

/// One error, as RFC 9457 shapes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// What kind of error, for programs: `about:blank` or a relative reference such as `/problems/old-seq`.
    #[serde(rename = "type", default = "blank")]
    pub kind: String,
    /// The kind in a few words, for people.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// This one case: which object, and what would be right.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// The offending field of the request, as a path (`report.checks[2].status`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
}

fn blank() -> String {
    "about:blank".to_owned()
}
