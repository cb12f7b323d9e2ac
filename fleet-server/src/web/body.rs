//! A request's body: bounded in size and time, JSON, and an error that names the field.

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, StatusCode, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::de::DeserializeOwned;

use super::problem::Refusal;

/// A body that takes longer is a broken path or an attack: the longest one is 64 KiB.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// The body, if it is JSON by its header and at most `limit` bytes.
pub(crate) async fn read(headers: &HeaderMap, body: Body, limit: usize) -> Result<Bytes, Refusal> {
    json_or_unsaid(headers)?;
    if let Some(length) = headers.get(header::CONTENT_LENGTH)
        && length
            .to_str()
            .ok()
            .and_then(|text| text.parse::<u64>().ok())
            .is_some_and(|n| n > limit as u64)
    {
        return Err(Refusal::too_large(limit));
    }
    match tokio::time::timeout(BODY_TIMEOUT, Limited::new(body, limit).collect()).await {
        Ok(Ok(whole)) => Ok(whole.to_bytes()),
        Ok(Err(err)) if err.downcast_ref::<LengthLimitError>().is_some() || too_long(&*err) => {
            Err(Refusal::too_large(limit))
        }
        Ok(Err(_)) => Err(Refusal::invalid(
            "the body",
            "it ended before its announced length",
        )),
        Err(_) => Err(Refusal::new(
            StatusCode::REQUEST_TIMEOUT,
            "slow",
            "The body came too slowly",
            format!("the body did not arrive within {} s", BODY_TIMEOUT.as_secs()),
        )),
    }
}

/// `bytes` as `T`; nothing stands for an empty object, so that a POST without a body takes every default.
pub(super) fn json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Refusal> {
    let bytes = if bytes.is_empty() { b"{}" } else { bytes };
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut json).map_err(|err| {
        let path = err.path().to_string();
        let field = if path == "." { "the body".to_owned() } else { path };
        Refusal::invalid(field, err.inner().to_string())
    })?;
    json.end()
        .map_err(|err| Refusal::invalid("the body", err.to_string()))?;
    Ok(value)
}

fn too_long(err: &(dyn std::error::Error + 'static)) -> bool {
    let mut cause = err.source();
    while let Some(inner) = cause {
        if inner.downcast_ref::<LengthLimitError>().is_some() {
            return true;
        }
        cause = inner.source();
    }
    false
}

/// `application/json`, or no header at all.
fn json_or_unsaid(headers: &HeaderMap) -> Result<(), Refusal> {
    let Some(value) = headers.get(header::CONTENT_TYPE) else {
        return Ok(());
    };
    let text = value.to_str().unwrap_or_default();
    let essence = text.split(';').next().unwrap_or_default().trim();
    if essence.eq_ignore_ascii_case("application/json") {
        return Ok(());
    }
    Err(Refusal::new(
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
        "media-type",
        "Not JSON",
        "send the body as `Content-Type: application/json`",
    ))
}
