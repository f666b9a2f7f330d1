//! TLS of our listeners: a certificate from files, or from an ACME server.

use std::fmt;
use std::sync::Arc;

use rustls::client::verify_server_name;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::ParsedCertificate;
use rustls::sign::CertifiedKey;
use x509_parser::parse_x509_certificate;

use super::notify::SigningSecret;
use crate::clock::Timestamp;

/// Where the certificate of the listeners comes from.
#[derive(Clone, Debug)]
pub enum TlsConfig {
    /// From the files `tls.cert` and `tls.key`.
    Files(ServedCertificate),
    /// From an ACME server.
    Acme(Arc<AcmeConfig>),
}

/// How to obtain certificates from an ACME server (RFC 8555).
#[derive(Clone, Debug)]
pub struct AcmeConfig {
    /// The names of the certificate, in lower case.
    pub domains: Vec<String>,
    /// E-mail address for the ACME server, which may write to it.
    pub contact: Option<String>,
    /// URL of the server's directory.
    pub directory: String,
    /// The certificate authorities that the server's own certificate may come from, as PEM; `None`: those of the
    /// system.
    pub authority: Option<Vec<u8>>,
    /// `None`: the ACME server takes accounts of anybody.
    pub external_account: Option<ExternalAccount>,
}

/// An account at the certificate authority, to which the ACME account is bound (RFC 8555 section 7.3.4).
#[derive(Clone, Debug)]
pub struct ExternalAccount {
    /// The authority's name of the key.
    pub key_id: String,
    pub hmac_key: SigningSecret,
}

/// A certificate with its chain and private key.
#[derive(Clone)]
pub struct ServedCertificate {
    certified: Arc<CertifiedKey>,
    /// From when it is valid.
    pub valid_from: Timestamp,
    pub expires_at: Timestamp,
}

impl fmt::Debug for ServedCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ServedCertificate({})", self.expires_at.unix())
    }
}

/// Why a certificate cannot be used. Contains nothing of the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CertificateRefused {
    /// There is no certificate in the text.
    #[error("has no certificate in PEM")]
    NoCertificate,
    /// There is no private key in the text.
    #[error("has no private key in PEM")]
    NoKey,
    /// The certificate is not one of X.509.
    #[error("has a certificate that cannot be read")]
    Unreadable,
    /// The key is of a kind that is not supported.
    #[error("has a key that cannot be used: ECDSA, Ed25519 and RSA of 2048 bits or more can")]
    UnusableKey,
    /// The key belongs to another certificate.
    #[error("has a key that does not belong to the certificate")]
    OtherKey,
}

impl ServedCertificate {
    /// Reads a chain, the server's own certificate first, and its key.
    pub fn read(chain: &[u8], key: &[u8]) -> Result<Self, CertificateRefused> {
        let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(chain)
            .collect::<Result<_, _>>()
            .map_err(|_| CertificateRefused::NoCertificate)?;
        let own = chain.first().ok_or(CertificateRefused::NoCertificate)?;
        let (valid_from, expires_at) = validity(own).ok_or(CertificateRefused::Unreadable)?;
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| CertificateRefused::NoKey)?;
        let provider = default_provider();
        let key = provider.key_provider.load_private_key(key);
        let key = key.map_err(|_| CertificateRefused::UnusableKey)?;
        let certified = CertifiedKey::new(chain, key);
        match certified.keys_match() {
            Ok(()) => {}
            Err(rustls::Error::InconsistentKeys(_)) => return Err(CertificateRefused::OtherKey),
            Err(_) => return Err(CertificateRefused::Unreadable),
        }
        Ok(Self { certified: Arc::new(certified), valid_from, expires_at })
    }

    /// The chain and the key as rustls uses them.
    pub fn certified(&self) -> Arc<CertifiedKey> {
        Arc::clone(&self.certified)
    }

    /// Returns whether clients accept it for this host, which may be an IP address.
    pub fn covers(&self, host: &str) -> bool {
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let own = self.certified.cert.first();
        let parsed = own.and_then(|own| ParsedCertificate::try_from(own).ok());
        ServerName::try_from(host).is_ok_and(|name| {
            parsed.is_some_and(|parsed| verify_server_name(&parsed, &name).is_ok())
        })
    }

    /// Returns when a third of its life is left: the time to renew it.
    pub fn renews_at(&self) -> Timestamp {
        self.expires_at.minus(self.expires_at.since(self.valid_from) / 3)
    }
}

/// Returns from when to when a certificate is valid.
fn validity(certificate: &CertificateDer<'_>) -> Option<(Timestamp, Timestamp)> {
    let (_, parsed) = parse_x509_certificate(certificate).ok()?;
    let validity = parsed.validity();
    let moment = |time: x509_parser::time::ASN1Time| Timestamp::from_unix(time.timestamp());
    Some((moment(validity.not_before), moment(validity.not_after)))
}

/// Returns the host of an URL's origin: `https://host:port`, without the port.
pub(super) fn host_of_origin(origin: &str) -> &str {
    let authority = origin.split_once("://").map_or(origin, |(_, rest)| rest);
    match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => authority,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(names: &[&str], years: (i32, i32)) -> (String, String) {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = rcgen::CertificateParams::new(names).unwrap();
        params.not_before = rcgen::date_time_ymd(years.0, 1, 1);
        params.not_after = rcgen::date_time_ymd(years.1, 1, 1);
        let key = rcgen::KeyPair::generate().unwrap();
        (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
    }

    #[test]
    fn a_certificate_tells_its_names_and_its_life() {
        let (chain, key) = pair(&["mcp.example", "*.apps.example", "127.0.0.1"], (2026, 2029));

        let read = ServedCertificate::read(chain.as_bytes(), key.as_bytes()).unwrap();

        assert_eq!(read.valid_from.unix(), 1_767_225_600);
        assert_eq!(read.expires_at.unix(), 1_861_920_000);
        assert_eq!(read.renews_at().unix(), 1_861_920_000 - (1_861_920_000 - 1_767_225_600) / 3);
        for (host, covered) in [
            ("mcp.example", true),
            ("one.apps.example", true),
            ("127.0.0.1", true),
            ("other.example", false),
            ("apps.example", false),
            ("[::1]", false),
        ] {
            assert_eq!(read.covers(host), covered, "{host}");
        }
    }

    #[test]
    fn a_pair_that_is_none_is_refused_with_its_reason() {
        let (chain, key) = pair(&["mcp.example"], (2026, 2029));
        let (_, other) = pair(&["mcp.example"], (2026, 2029));
        let broken = chain.replacen("MII", "AII", 1);

        for (chain, key, refused) in [
            ("", key.as_str(), CertificateRefused::NoCertificate),
            ("no PEM", &key, CertificateRefused::NoCertificate),
            (&broken, &key, CertificateRefused::Unreadable),
            (&chain, "", CertificateRefused::NoKey),
            (&chain, &chain, CertificateRefused::NoKey),
            (&chain, &other, CertificateRefused::OtherKey),
        ] {
            let read = ServedCertificate::read(chain.as_bytes(), key.as_bytes());
            assert_eq!(read.map(|_| ()).unwrap_err(), refused);
        }
    }

    #[test]
    fn the_host_of_an_origin_is_without_its_port() {
        assert_eq!(host_of_origin("https://mcp.example"), "mcp.example");
        assert_eq!(host_of_origin("https://mcp.example:8443"), "mcp.example");
        assert_eq!(host_of_origin("https://[::1]:8443"), "[::1]");
        assert_eq!(host_of_origin("https://[::1]"), "[::1]");
    }
}
