//! Encryption between this host and PostgreSQL, as libpq's `sslmode`, `sslrootcert`, `sslcert` and `sslkey` ask
//! for it.
//!
//! # Invariants
//!
//! - `verify-ca` and `verify-full` accept no certificate that does not lead to a trusted root. `prefer` and
//!   `require` encrypt and believe, as libpq does: they protect against those who listen, no others.
//! - `require` and more never send a password in the clear.

use std::sync::Arc;

use postgres::config::SslMode;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::db::ConfigError;

/// What a URL says about encryption.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Wanted {
    mode: Mode,
    /// A file of certificates in PEM; without it, the system's.
    root: Option<String>,
    /// A file in PEM: who this host is, and those who vouch for it.
    certificate: Option<String>,
    /// A file in PEM: the key of that certificate.
    key: Option<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Mode {
    Disable,
    #[default]
    Prefer,
    Require,
    VerifyCa,
    VerifyFull,
}

impl Wanted {
    /// Takes libpq's settings out of a URL; the driver knows only some of them.
    ///
    /// # Errors
    ///
    /// When `sslmode` is none of libpq's, or a certificate comes without its key.
    pub(super) fn take_from(url: &str) -> Result<(String, Wanted), ConfigError> {
        let mut wanted = Wanted::default();
        let Some((base, query)) = url.split_once('?') else { return Ok((url.to_owned(), wanted)) };
        let mut kept = Vec::new();
        for part in query.split('&') {
            match part.split_once('=') {
                Some(("sslmode", mode)) => wanted.mode = Mode::parse(mode)?,
                Some(("sslrootcert", path)) => wanted.root = Some(file(path)),
                Some(("sslcert", path)) => wanted.certificate = Some(file(path)),
                Some(("sslkey", path)) => wanted.key = Some(file(path)),
                _ => kept.push(part),
            }
        }
        let (named, missing) = match (&wanted.certificate, &wanted.key) {
            (Some(_), None) => ("sslcert", "sslkey"),
            (None, Some(_)) => ("sslkey", "sslcert"),
            _ => ("", ""),
        };
        if !named.is_empty() {
            return Err(refused(format!("`{named}` is there and `{missing}` is not: name both")));
        }
        let query = if kept.is_empty() { String::new() } else { format!("?{}", kept.join("&")) };
        Ok((format!("{base}{query}"), wanted))
    }

    /// What the driver is to insist on.
    pub(super) fn ssl_mode(&self) -> SslMode {
        match self.mode {
            Mode::Disable => SslMode::Disable,
            Mode::Prefer => SslMode::Prefer,
            Mode::Require | Mode::VerifyCa | Mode::VerifyFull => SslMode::Require,
        }
    }

    /// The connector that does so.
    ///
    /// # Errors
    ///
    /// When there is no trusted root, or one of the files cannot be read.
    pub(super) fn connector(&self) -> Result<MakeRustlsConnect, ConfigError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = Arc::new(Verifier {
            provider: Arc::clone(&provider),
            roots: match self.mode {
                Mode::VerifyCa | Mode::VerifyFull => Some(self.trusted(&provider)?),
                // As libpq: a file of roots that is named is used.
                Mode::Require if self.root.is_some() => Some(self.trusted(&provider)?),
                _ => None,
            },
            checks_name: self.mode == Mode::VerifyFull,
        });
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| refused(error.to_string()))?
            .dangerous()
            .with_custom_certificate_verifier(verifier);
        let config = match self.own()? {
            Some((chain, key)) => builder.with_client_auth_cert(chain, key).map_err(|error| {
                refused(format!("`sslcert` and `sslkey` do not belong together or cannot be used: {error}"))
            })?,
            None => builder.with_no_client_auth(),
        };
        Ok(MakeRustlsConnect::new(config))
    }

    /// This host's own certificate, with those who vouch for it, and its key.
    fn own(&self) -> Result<Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>, ConfigError> {
        let (Some(certificate), Some(key)) = (&self.certificate, &self.key) else { return Ok(None) };
        let chain = CertificateDer::pem_file_iter(certificate)
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .map_err(|error| refused(format!("`sslcert={certificate}` cannot be read: {error}")))?;
        let key = PrivateKeyDer::from_pem_file(key)
            .map_err(|error| refused(format!("`sslkey={key}` cannot be read: {error}")))?;
        Ok(Some((chain, key)))
    }

    fn trusted(&self, provider: &Arc<CryptoProvider>) -> Result<Arc<WebPkiServerVerifier>, ConfigError> {
        let mut roots = RootCertStore::empty();
        match &self.root {
            Some(path) => {
                let unreadable = |error| refused(format!("`sslrootcert={path}` cannot be read: {error}"));
                for certificate in CertificateDer::pem_file_iter(path).map_err(unreadable)? {
                    let added = roots.add(certificate.map_err(unreadable)?);
                    added.map_err(|error| refused(format!("`sslrootcert={path}`: {error}")))?;
                }
            }
            None => {
                let found = rustls_native_certs::load_native_certs();
                roots.add_parsable_certificates(found.certs);
            }
        }
        if roots.is_empty() {
            return Err(refused(
                "no certificate to trust: name a file of them with `sslrootcert=`".to_owned(),
            ));
        }
        WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider))
            .build()
            .map_err(|error| refused(error.to_string()))
    }
}

impl Mode {
    fn parse(text: &str) -> Result<Mode, ConfigError> {
        Ok(match text {
            "disable" => Mode::Disable,
            "allow" | "prefer" => Mode::Prefer,
            "require" => Mode::Require,
            "verify-ca" => Mode::VerifyCa,
            "verify-full" => Mode::VerifyFull,
            other => {
                let words = format!(
                    "`sslmode={other}`: write `disable`, `prefer`, `require`, `verify-ca` or `verify-full`"
                );
                return Err(refused(words));
            }
        })
    }
}

/// A path in a URL.
fn file(path: &str) -> String {
    percent_encoding::percent_decode_str(path).decode_utf8_lossy().into_owned()
}

pub(super) fn refused(reason: String) -> ConfigError {
    ConfigError::Address { driver: "postgres", reason }
}

/// Verifies what was asked for, and nothing else.
#[derive(Debug)]
struct Verifier {
    provider: Arc<CryptoProvider>,
    /// None: whoever answers is believed.
    roots: Option<Arc<WebPkiServerVerifier>>,
    checks_name: bool,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let Some(roots) = &self.roots else { return Ok(ServerCertVerified::assertion()) };
        match roots.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now) {
            Err(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) if !self.checks_name => Ok(ServerCertVerified::assertion()),
            outcome => outcome,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
