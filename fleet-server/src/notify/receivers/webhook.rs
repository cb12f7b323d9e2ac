//! Webhook: the alert as JSON, signed where the receiver has a secret.
//!
//! `fleet-signature: t=<unix seconds>,v1=<hex HMAC-SHA256 of "<t>.<body>">`: the time is signed with the body, so
//! that a recorded request cannot be played back later. A receiver should refuse what is older than five minutes.
//! Templates change nothing here: the body is for programs.

use hmac::{Hmac, KeyInit, Mac};
use jiff::Timestamp;
use protocol::alert::{KEY_HEADER, SIGNATURE_HEADER};
use protocol::secret::Secret;
use sha2::Sha256;

use super::answer::{HttpAnswer, Taken};
use super::{HttpRequest, Message, Request};
use crate::notify::retry::SendError;
use crate::settings::Webhook;

/// The request for one notification.
pub fn request(webhook: &Webhook, message: &Message<'_>, now: Timestamp) -> Request {
    let body = serde_json::to_vec(message.alert).expect("an alert has only string keys");
    let mut headers = vec![(KEY_HEADER, message.alert.idempotency_key())];
    if let Some(secret) = &webhook.secret {
        headers.push((SIGNATURE_HEADER, signature(secret, &body, now)));
    }
    Request::Http(HttpRequest {
        url: webhook.url.expose().clone(),
        headers,
        body,
    })
}

/// Any 2xx is taken.
pub fn judge(answer: &HttpAnswer, now: Timestamp) -> Result<Taken, SendError> {
    answer.usual(
        now,
        &answer.said(),
        None,
        "is the webhook's url right, and does it check signatures with the key of secret_file?",
    )
}

/// The signature header's value.
pub fn signature(secret: &Secret, body: &[u8], now: Timestamp) -> String {
    let t = now.as_second();
    let mut mac =
        Hmac::<Sha256>::new_from_slice(secret.expose().as_bytes()).expect("HMAC takes a key of any length");
    mac.update(format!("{t}.").as_bytes());
    mac.update(body);
    format!("t={t},v1={}", hex::encode(mac.finalize().into_bytes()))
}

#[cfg(test)]
mod tests {
    use super::super::tests::{alert, http, message};
    use super::*;

    #[test]
    fn the_body_is_the_documented_one() {
        let webhook = Webhook {
            url: "http://127.0.0.1:9999/alert".parse().unwrap(),
            secret: None,
        };
        let alert = alert();
        let request = http(request(&webhook, &message(&alert), Timestamp::UNIX_EPOCH));
        let body: serde_json::Value = serde_json::from_slice(&request.body).unwrap();
        insta::assert_json_snapshot!(body);
        assert_eq!(
            request.headers,
            [("idempotency-key", "box_dark:box-17:4:1763755200000/1".to_owned())]
        );
    }

    #[test]
    fn the_signature_is_rfc_2104_over_time_and_body() {
        // Reference: printf '1763755200.{}' | openssl dgst -sha256 -hmac key
        let at = Timestamp::from_second(1_763_755_200).unwrap();
        let expected = "t=1763755200,v1=f1f1b43e5c12d578e54a485eaecbd2df3d4338136262b8f640f58c31f6966c81";
        assert_eq!(signature(&Secret::new("key"), b"{}", at), expected);
    }
}
