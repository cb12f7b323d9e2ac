//! HTTPS on the listener: certificate chain and key from PEM files, TLS 1.2 and 1.3, ring; read again when renewed.

use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use rustls::ServerConfig;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

use crate::settings::Tls;

/// Certificates of a chain: root, some intermediates, the server's own.
const CHAIN: usize = 16;

/// How often renewed files are looked for: certificates are renewed days before they end.
const LOOK_EVERY: Duration = Duration::from_secs(60);

/// Why there is no HTTPS. The text names the key of the configuration, the file and the fix.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// Not PEM, or nothing in it.
    #[error("tls.{key} = {}: {what}; give a PEM file", .file.display())]
    File {
        /// The key in the configuration.
        key: &'static str,
        /// The file.
        file: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// Both can be read, and do not work.
    #[error("tls.cert_file = {}: cannot be used with tls.key_file ({source}); are they of the same pair?", .file.display())]
    Pair {
        /// The certificate's file.
        file: PathBuf,
        /// What rustls says.
        source: rustls::Error,
    },
}

/// The certificate in use.
pub struct Certificates {
    tls: Tls,
    current: RwLock<TlsAcceptor>,
}

impl Certificates {
    /// Reads both files.
    pub fn load(tls: &Tls) -> Result<Self, TlsError> {
        let current = RwLock::new(acceptor(tls)?);
        Ok(Self {
            tls: tls.clone(),
            current,
        })
    }

    /// For the next connection.
    pub fn acceptor(&self) -> TlsAcceptor {
        self.current
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Looks every minute whether a file was changed, and takes the new pair if it is good. Never ends.
    pub async fn watch(self: Arc<Self>) {
        let mut seen = self.stamps();
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let stamps = self.stamps();
            if stamps == seen {
                continue;
            }
            // A pair is two files: a good one is only there once both are renewed.
            match acceptor(&self.tls) {
                Ok(new) => {
                    *self.current.write().unwrap_or_else(PoisonError::into_inner) = new;
                    tracing::info!(cert_file = %self.tls.cert_file.display(), "the renewed certificate is in use");
                }
                Err(err) => tracing::warn!("the changed certificate is not taken, the old one stays: {err}"),
            }
            seen = stamps;
        }
    }

    fn stamps(&self) -> [Option<SystemTime>; 2] {
        [&self.tls.cert_file, &self.tls.key_file]
            .map(|file| std::fs::metadata(file).and_then(|meta| meta.modified()).ok())
    }
}

/// Reads both files.
fn acceptor(tls: &Tls) -> Result<TlsAcceptor, TlsError> {
    let wrong = |key, file: &PathBuf, what: String| TlsError::File {
        key,
        file: file.clone(),
        what,
    };
    let chain = CertificateDer::pem_file_iter(&tls.cert_file)
        .and_then(|found| found.take(CHAIN).collect::<Result<Vec<_>, _>>())
        .map_err(|err| wrong("cert_file", &tls.cert_file, err.to_string()))?;
    if chain.is_empty() {
        return Err(wrong(
            "cert_file",
            &tls.cert_file,
            "has no certificate in it".to_owned(),
        ));
    }
    let key = PrivateKeyDer::from_pem_file(&tls.key_file)
        .map_err(|err| wrong("key_file", &tls.key_file, err.to_string()))?;
    let pair = |source| TlsError::Pair {
        file: tls.cert_file.clone(),
        source,
    };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(pair)?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(pair)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}
