//! HTTPS on the listener: certificate chain and key from PEM files, TLS 1.2 and 1.3, ring.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

use crate::settings::Tls;

/// Certificates of a chain: root, some intermediates, the server's own.
const CHAIN: usize = 16;

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

/// Reads both files.
pub fn acceptor(tls: &Tls) -> Result<TlsAcceptor, TlsError> {
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
