//! What was tried and failed, in words and for the wire. Pure.
//!
//! What follows from it is [`judge`](super::judge)'s.

use std::time::Duration;

use jiff::Timestamp;
use protocol::account::{Attempt, Step};
use protocol::names::Word;

use super::silence::{TIMED_OUT, Tried};
use crate::checks::span_text;
use crate::redact::redact;

/// The way that failed most often; what the server itself answered counts last.
pub(super) fn main_try(tried: &[Tried]) -> Option<&Tried> {
    tried
        .iter()
        .max_by_key(|tried| (tried.step != Step::HttpStatus, tried.times))
}

/// `connect to 203.0.113.5:443 over IPv4 timed out for 41 s`.
pub(super) fn sentence(tried: &Tried, silent: Duration) -> String {
    let to = match tried.address {
        Some(address) => {
            let family = if address.is_ipv4() { "IPv4" } else { "IPv6" };
            format!(" to {address} over {family}")
        }
        None => String::new(),
    };
    let how = if tried.detail == TIMED_OUT {
        tried.detail.clone()
    } else {
        format!("failed ({})", tried.detail)
    };
    let step = match tried.step {
        Step::Dns => format!("resolving the server's name {how}"),
        Step::Connect => format!("connect{to} {how}"),
        Step::Tls => format!("the TLS handshake{to} {how}"),
        Step::Answer => format!("beats{to} had no answer ({})", tried.detail),
        Step::HttpStatus => format!("the server did not take beats ({})", tried.detail),
    };
    let lasted = tried
        .last
        .since(tried.first)
        .max(silent.min(tried.last.since(tried.first) + Duration::from_secs(4)));
    format!("{step} for {}", span_text(lasted))
}

/// The same for the wire.
pub(super) fn attempt(url: &str, tried: &Tried) -> Attempt {
    let family = tried
        .address
        .map(|address| if address.is_ipv4() { "ipv4" } else { "ipv6" });
    Attempt {
        url: url.to_owned(),
        address: tried.address.map(|address| address.to_string()),
        family: family.and_then(|family| Word::new(family).ok()),
        step: Word::new(tried.step.as_str()).expect("a step's word is a word"),
        detail: redact(&tried.detail),
        times: tried.times,
        first: tried.first.wall,
        last: tried.last.wall,
    }
}

/// To the second, UTC.
pub(super) fn clock(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M:%S UTC").to_string()
}
