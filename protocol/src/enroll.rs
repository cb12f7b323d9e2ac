//! How a box gets its token: `POST /v1/enroll`.

use serde::{Deserialize, Serialize};

use crate::names::{BoxName, Labels};
use crate::secret::Secret;

/// What a new box asks with.
#[derive(Debug, Deserialize)]
pub struct EnrollRequest {
    /// The enrolment code that an operator created.
    pub code: Secret,
    /// The name that the box wants.
    pub name: BoxName,
    /// The labels that the box declares.
    #[serde(default)]
    pub labels: Labels,
}

/// The token, given once. Serialised by hand at the one place that sends it.
#[derive(Debug, Deserialize)]
pub struct EnrollAnswer {
    /// The box's token.
    pub token: Secret,
    /// The name that the server knows the box by.
    pub name: BoxName,
}

/// [`EnrollRequest`] as a client writes it: the one place where the code leaves its type.
#[derive(Serialize)]
pub struct EnrollRequestBody<'a> {
    /// The code, exposed.
    pub code: &'a str,
    /// The wanted name.
    pub name: &'a BoxName,
    /// The declared labels.
    pub labels: &'a Labels,
}

/// [`EnrollAnswer`] as a server writes it: the one place where the token leaves its type.
#[derive(Serialize)]
pub struct EnrollAnswerBody<'a> {
    /// The token, exposed.
    pub token: &'a str,
    /// The box's name.
    pub name: &'a BoxName,
}
