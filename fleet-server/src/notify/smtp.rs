//! The shell that speaks SMTP, through lettre: one connection a mail, protected as the configuration says or not made.
//! It composes nothing.

use std::time::Duration;

use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Certificate, CertificateStore, Tls, TlsParameters};
use lettre::transport::smtp::response::Response;
use lettre::transport::smtp::{AsyncSmtpTransportBuilder, Error};
use lettre::{AsyncSmtpTransport, AsyncTransport, Tokio1Executor};

use super::receivers::MailRequest;
use super::receivers::answer::{SmtpAnswer, one_line};
use super::retry::SendError;
use crate::settings::MailTls;

/// For each step: connection, greeting, each command.
const STEP_TIMEOUT: Duration = Duration::from_secs(5);
/// For all of it.
const MAIL_TIMEOUT: Duration = Duration::from_secs(12);

/// Sends `mail`; whatever reply code the server ends with is an answer.
pub async fn send(mail: &MailRequest) -> Result<SmtpAnswer, SendError> {
    let transport = transport(mail)?.build::<Tokio1Executor>();
    let sending = transport.send_raw(&mail.envelope, &mail.letter);
    match tokio::time::timeout(MAIL_TIMEOUT, sending).await {
        Ok(Ok(response)) => Ok(taken(&response)),
        Ok(Err(err)) => answered(&err),
        Err(_) => Err(SendError::unavailable(format!(
            "no answer within {} s",
            MAIL_TIMEOUT.as_secs()
        ))),
    }
}

fn transport(mail: &MailRequest) -> Result<AsyncSmtpTransportBuilder, SendError> {
    let mut transport = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(&mail.host)
        .port(mail.port)
        .timeout(Some(STEP_TIMEOUT))
        .tls(tls(mail).map_err(|err| SendError::unavailable(format!("cannot set up TLS: {}", words(&err))))?);
    if let Some((user, password)) = &mail.login {
        transport = transport.credentials(Credentials::new(user.clone(), password.expose().to_owned()));
    }
    Ok(transport)
}

fn tls(mail: &MailRequest) -> Result<Tls, Error> {
    let parameters = || {
        let mut builder = TlsParameters::builder(mail.host.clone());
        if let Some(pem) = &mail.ca {
            // A server with a certificate of one's own authority is trusted by that one alone.
            builder = builder.certificate_store(CertificateStore::None);
            for certificate in authorities(pem)? {
                builder = builder.add_root_certificate(certificate);
            }
        }
        builder.build()
    };
    Ok(match mail.tls {
        MailTls::StartTls => Tls::Required(parameters()?),
        MailTls::Implicit => Tls::Wrapper(parameters()?),
        MailTls::None => Tls::None,
    })
}

fn authorities(pem: &[u8]) -> Result<Vec<Certificate>, Error> {
    use rustls_pki_types::CertificateDer;
    use rustls_pki_types::pem::PemObject;
    CertificateDer::pem_slice_iter(pem)
        .flatten()
        .map(|der| Certificate::from_der(der.to_vec()))
        .collect()
}

fn taken(response: &Response) -> SmtpAnswer {
    SmtpAnswer {
        code: response.code().into(),
        text: one_line(&response.message().collect::<Vec<_>>().join(" ")),
    }
}

/// A reply code is an answer; anything else never got that far.
fn answered(err: &Error) -> Result<SmtpAnswer, SendError> {
    match err.status() {
        Some(code) => Ok(SmtpAnswer {
            code: code.into(),
            text: words(err),
        }),
        None if err.is_timeout() => Err(SendError::unavailable("no answer in time")),
        None => Err(SendError::unavailable(words(err))),
    }
}

/// The error and its causes.
fn words(err: &Error) -> String {
    let mut text = String::new();
    let mut cause: Option<&dyn std::error::Error> = Some(err);
    while let Some(err) = cause {
        let said = err.to_string();
        if !text.contains(&said) {
            if !text.is_empty() {
                text.push_str(": ");
            }
            text.push_str(&said);
        }
        cause = err.source();
    }
    one_line(&text)
}
