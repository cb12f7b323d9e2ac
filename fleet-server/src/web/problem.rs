//! Every refusal as RFC 9457 problem details: one shape for boxes, operators and scripts.
//!
//! It decides no status: callers name the case. No token and no body of a request is ever repeated in one.

use axum::extract::{FromRequestParts, Path};
use axum::http::request::Parts;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use protocol::problem::{CONTENT_TYPE, Problem};
use protocol::report::Invalid;

use crate::store::StoreError;

/// Seconds after which to come again when the store is in trouble.
const STORE_RETRY_SECS: u64 = 5;

/// One refusal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    // Boxed: it travels as the error of every handler.
    problem: Box<Problem>,
    header: Option<Box<(HeaderName, String)>>,
}

impl Refusal {
    /// `kind` is the word behind `/problems/`, `title` the case in a few words, `detail` this one case and its fix.
    pub fn new(status: StatusCode, kind: &str, title: &str, detail: impl Into<String>) -> Self {
        let problem = Problem {
            kind: format!("/problems/{kind}"),
            title: title.to_owned(),
            status: status.as_u16(),
            detail: Some(detail.into()),
            field: None,
        };
        Self {
            problem: Box::new(problem),
            header: None,
        }
    }

    /// A field of the request is wrong.
    pub fn invalid(field: impl Into<String>, detail: impl Into<String>) -> Self {
        let mut refusal = Self::new(
            StatusCode::BAD_REQUEST,
            "invalid",
            "The request is not valid",
            detail,
        );
        refusal.problem.field = Some(field.into());
        refusal
    }

    /// No token, or one that is not known (any more).
    pub fn unauthorized(detail: &str) -> Self {
        let refusal = Self::new(StatusCode::UNAUTHORIZED, "unauthorized", "Who is this?", detail);
        refusal.with(header::WWW_AUTHENTICATE, "Bearer".to_owned())
    }

    /// No such object.
    pub fn not_found(detail: impl Into<String>) -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "not-found",
            "There is no such thing",
            detail,
        )
    }

    /// Too often.
    pub fn too_many(detail: impl Into<String>, retry_after_secs: u64) -> Self {
        let refusal = Self::new(StatusCode::TOO_MANY_REQUESTS, "too-many", "Too often", detail);
        refusal.with(header::RETRY_AFTER, retry_after_secs.max(1).to_string())
    }

    /// The body is over the limit.
    pub fn too_large(limit: usize) -> Self {
        let detail = format!("the body is over {limit} bytes; nothing valid is that long");
        Self::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "too-large",
            "The body is too long",
            detail,
        )
    }

    /// The same, with one header.
    #[must_use]
    pub fn with(mut self, name: HeaderName, value: String) -> Self {
        self.header = Some(Box::new((name, value)));
        self
    }

    /// Its word: what stands behind `/problems/`.
    pub fn kind(&self) -> &str {
        self.problem.kind.rsplit('/').next().unwrap_or("unknown")
    }

    /// Its HTTP status.
    pub fn status(&self) -> StatusCode {
        StatusCode::from_u16(self.problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }
}

/// A segment of the path, decoded; what cannot be decoded names nothing that there is.
pub struct Segment(pub String);

impl<S: Send + Sync> FromRequestParts<S> for Segment {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        match Path::<String>::from_request_parts(parts, state).await {
            Ok(Path(text)) => Ok(Self(text)),
            Err(_) => Err(Refusal::not_found(
                "there is nothing of that name; it is not valid UTF-8",
            )),
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = self.status();
        let body = serde_json::to_vec(&*self.problem).unwrap_or_default();
        let mut response = (status, body).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(CONTENT_TYPE));
        if let Some((name, value)) = self.header.map(|header| *header)
            && let Ok(value) = HeaderValue::from_str(&value)
        {
            headers.insert(name, value);
        }
        response
    }
}

impl From<Invalid> for Refusal {
    fn from(invalid: Invalid) -> Self {
        Self::invalid(invalid.field, invalid.problem)
    }
}

impl From<StoreError> for Refusal {
    fn from(err: StoreError) -> Self {
        let text = err.to_string();
        match err {
            StoreError::NameTaken(_) => {
                Self::new(StatusCode::CONFLICT, "name-taken", "The name is taken", text)
            }
            StoreError::NotFound { .. } => Self::not_found(text),
            StoreError::BadCode => Self::new(StatusCode::FORBIDDEN, "bad-code", "The code is not good", text),
            StoreError::TooMany { .. } => {
                Self::new(StatusCode::CONFLICT, "full", "A limit of this server", text)
            }
            StoreError::Busy { .. }
            | StoreError::Full { .. }
            | StoreError::ReadOnly { .. }
            | StoreError::DiskFails { .. }
            | StoreError::Corrupt { .. }
            | StoreError::Newer { .. }
            | StoreError::Io { .. }
            | StoreError::Database { .. }
            | StoreError::TimedOut { .. }
            | StoreError::Overloaded { .. }
            | StoreError::Closed => {
                tracing::error!(error = %text, "a request failed in the store");
                Self::new(
                    StatusCode::SERVICE_UNAVAILABLE,
                    "store",
                    "The store is in trouble",
                    text,
                )
                .with(header::RETRY_AFTER, STORE_RETRY_SECS.to_string())
            }
        }
    }
}
