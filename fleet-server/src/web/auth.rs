//! Who asks: by the bearer token alone, looked up by its hash.

use axum::http::{HeaderMap, StatusCode, header};
use protocol::limits;
use protocol::secret::Secret;

use super::problem::Refusal;
use super::state::App;
use crate::directory::{Operator, Role, TokenHash};
use crate::liveness::BoxIx;

/// Random bytes of a token; 256 bits cannot be guessed however often one tries.
const TOKEN_RANDOM: usize = 32;
/// Random bytes of an enrolment code: it lives for hours and is typed or pasted.
const CODE_RANDOM: usize = 16;

/// What a new secret is for: its first letters say so, so that scanners and people recognise one that leaked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// A box's token.
    BoxToken,
    /// An operator's token.
    OperatorToken,
    /// An enrolment code.
    EnrollCode,
}

/// A new secret from the system's random source.
pub fn new_secret(purpose: Purpose) -> Result<Secret, getrandom::Error> {
    let mut random = [0; TOKEN_RANDOM];
    getrandom::fill(&mut random)?;
    let (prefix, length) = match purpose {
        Purpose::BoxToken => ("fwb_", TOKEN_RANDOM),
        Purpose::OperatorToken => ("fwo_", TOKEN_RANDOM),
        Purpose::EnrollCode => ("fwe_", CODE_RANDOM),
    };
    Ok(Secret::new(format!("{prefix}{}", hex::encode(&random[..length]))))
}

/// The box whose token the request carries.
pub(crate) fn box_of(app: &App, headers: &HeaderMap) -> Result<BoxIx, Refusal> {
    let token = bearer(headers)?;
    let now = app.clock.wall();
    app.directory().box_by_token(&token, now).ok_or_else(|| {
        Refusal::unauthorized(
            "this token is unknown, expired or revoked; ask an operator for a new one (fleetctl box rotate)",
        )
    })
}

/// The operator whose token the request carries, if they may do what needs `role`.
pub(super) fn operator(app: &App, headers: &HeaderMap, role: Role) -> Result<Operator, Refusal> {
    let token = bearer(headers)?;
    let operator = app.directory().operator_by_token(&token).ok_or_else(|| {
        Refusal::unauthorized("this token is no operator's; the first one stands in <data_dir>/admin.token")
    })?;
    if operator.role >= role {
        return Ok(operator);
    }
    let detail = format!(
        "{} is {}; this needs the role {}",
        operator.name,
        operator.role.as_str(),
        role.as_str()
    );
    Err(Refusal::new(
        StatusCode::FORBIDDEN,
        "forbidden",
        "Not with this role",
        detail,
    ))
}

fn bearer(headers: &HeaderMap) -> Result<TokenHash, Refusal> {
    let mut given = headers.get_all(header::AUTHORIZATION).iter();
    let (Some(value), None) = (given.next(), given.next()) else {
        return Err(Refusal::unauthorized(
            "send one header `Authorization: Bearer <token>`",
        ));
    };
    let text = value
        .to_str()
        .map_err(|_| Refusal::unauthorized("the Authorization header is not ASCII"))?;
    let (scheme, token) = text.split_once(' ').unwrap_or((text, ""));
    let token = token.trim();
    if !scheme.eq_ignore_ascii_case("bearer") || token.is_empty() || token.len() > limits::TOKEN_BYTES {
        return Err(Refusal::unauthorized(
            "send the token as `Authorization: Bearer <token>`",
        ));
    }
    Ok(TokenHash::of(&Secret::new(token)))
}
