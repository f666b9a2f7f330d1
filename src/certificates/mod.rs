//! The certificate of our listeners: from files, or from an ACME server (RFC 8555).
//!
//! Files are read with the configuration, and again when they change. A certificate from an ACME server is in the
//! database: one replica orders it (`order.rs`), all load it within seconds, and a handshake uses whatever is loaded
//! at that moment. Open connections keep theirs. Until there is a first one, listeners use a certificate that
//! nobody vouches for, so that health probes are answered.

mod directory;
mod order;
mod renewal;
mod transport;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use parking_lot::RwLock;
use rcgen::{CertificateParams, KeyPair};
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use strum::IntoStaticStr;
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::clock::{Clock, Timestamp};
use crate::config::{AcmeConfig, Config, Proxies, ServedCertificate, TlsConfig};
use crate::storage::{ChallengeAnswer, Storage};
use crate::telemetry::log_throttle::LogThrottle;

static NO_ANSWERS: LogThrottle = LogThrottle::a_minute();

/// Answers to challenges in memory are as old as 1 s, so that a stranger who asks for them causes one read a second.
/// An order waits longer than this before it asks for the validation.
const ANSWERS_STALE: Duration = Duration::from_secs(1);
/// The protocols of HTTP in a handshake, the preferred one first.
const HTTP: [&[u8]; 2] = [b"h2", b"http/1.1"];
/// The protocol of a validation (RFC 8737).
const ACME_TLS: &[u8] = b"acme-tls/1";

/// The certificate of one configuration. Cheap to clone.
#[derive(Clone)]
pub struct Certificates(Arc<CertificateSource>);

struct CertificateSource {
    tls: Option<TlsConfig>,
    /// Forward proxies for requests to the ACME server.
    proxies: Proxies,
    storage: Storage,
    clock: Clock,
    /// That of `tls.cert`.
    from_files: Option<ReadyCertificate>,
    obtained: Arc<Obtained>,
}

/// What came from an ACME server; shared by all configurations of this process.
#[derive(Default)]
struct Obtained {
    current: RwLock<Option<ObtainedCertificate>>,
    placeholder: OnceLock<Option<ReadyCertificate>>,
    answers: Mutex<ReadAnswers>,
}

/// A certificate from an ACME server.
#[derive(Clone)]
struct ObtainedCertificate {
    /// Which one: a hash of the directory, the names and the external account.
    name: String,
    version: i64,
    ready: ReadyCertificate,
}

/// The answers to challenges, as read last.
#[derive(Default)]
struct ReadAnswers {
    at: Option<Instant>,
    answers: Vec<ChallengeAnswer>,
}

/// A certificate, ready for handshakes.
#[derive(Clone)]
struct ReadyCertificate {
    certificate: ServedCertificate,
    with_http2: Arc<ServerConfig>,
    http1_only: Arc<ServerConfig>,
}

/// Where a certificate comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoStaticStr)]
pub enum CertificateOrigin {
    /// `tls.cert`.
    #[strum(serialize = "files")]
    Files,
    /// An ACME server.
    #[strum(serialize = "acme")]
    Acme,
}

impl Certificates {
    /// Takes the certificate of the configuration, if it has one.
    pub fn new(config: &Config, storage: Storage, clock: Clock) -> Self {
        Self::of(config, storage, clock, Arc::default())
    }

    /// The same with another configuration; what came from an ACME server stays.
    #[must_use]
    pub fn with_config(&self, config: &Config) -> Self {
        let (storage, clock) = (self.0.storage.clone(), self.0.clock.clone());
        Self::of(config, storage, clock, Arc::clone(&self.0.obtained))
    }

    fn of(config: &Config, storage: Storage, clock: Clock, obtained: Arc<Obtained>) -> Self {
        let from_files = match &config.tls {
            Some(TlsConfig::Files(certificate)) => Some(ReadyCertificate::of(certificate.clone())),
            Some(TlsConfig::Acme(_)) | None => None,
        };
        let (tls, proxies) = (config.tls.clone(), config.upstream.proxies.clone());
        Self(Arc::new(CertificateSource { tls, proxies, storage, clock, from_files, obtained }))
    }

    /// Returns how a handshake begins now; `None` without `[tls]`. With `http2`, HTTP/2 is offered too.
    pub fn server_config(&self, http2: bool) -> Option<Arc<ServerConfig>> {
        let ready = self.ready().or_else(|| self.placeholder())?;
        Some(if http2 { ready.with_http2 } else { ready.http1_only })
    }

    /// Returns when the certificate in use expires, and where it came from; `None` while there is none.
    pub fn expires_at(&self) -> Option<(CertificateOrigin, Timestamp)> {
        let origin = match self.0.tls.as_ref()? {
            TlsConfig::Files(_) => CertificateOrigin::Files,
            TlsConfig::Acme(_) => CertificateOrigin::Acme,
        };
        Some((origin, self.ready()?.certificate.expires_at))
    }

    /// Returns whether the certificate is near its end although it should have been renewed by now: less than a sixth
    /// of its life is left.
    pub fn is_overdue(&self, now: Timestamp) -> bool {
        self.ready().is_some_and(|ready| {
            let ReadyCertificate { certificate, .. } = ready;
            let life = certificate.expires_at.since(certificate.valid_from);
            certificate.expires_at.since(now) < life / 6
        })
    }

    /// Returns how to answer the validation of a domain; `None` if no order asked for it.
    pub async fn challenge(&self, domain: &str) -> Option<Arc<ServerConfig>> {
        let domain = domain.to_ascii_lowercase();
        self.acme().filter(|acme| acme.domains.contains(&domain))?;
        let mut read = self.0.obtained.answers.lock().await;
        if read.at.is_none_or(|at| at.elapsed() >= ANSWERS_STALE) {
            match self.0.storage.challenges(self.0.clock.now()).await {
                Ok(answers) => *read = ReadAnswers { at: Some(Instant::now()), answers },
                Err(cause) => {
                    if let Some(left_out) = NO_ANSWERS.admit() {
                        tracing::warn!(%cause, left_out, "an ACME server cannot be answered");
                    }
                    return None;
                }
            }
        }
        let answer = read.answers.iter().find(|answer| answer.domain == domain)?;
        Some(server_config(answering(answer)?, &[ACME_TLS]))
    }

    fn acme(&self) -> Option<&AcmeConfig> {
        match self.0.tls.as_ref()? {
            TlsConfig::Acme(acme) => Some(acme),
            TlsConfig::Files(_) => None,
        }
    }

    /// The certificate in use.
    fn ready(&self) -> Option<ReadyCertificate> {
        if let Some(ready) = &self.0.from_files {
            return Some(ready.clone());
        }
        self.acme()?;
        self.0.obtained.current.read().as_ref().map(|obtained| obtained.ready.clone())
    }

    /// A certificate that nobody vouches for, until there is another one.
    fn placeholder(&self) -> Option<ReadyCertificate> {
        let acme = self.acme()?;
        let make = || {
            let key = KeyPair::generate().ok()?;
            let made = CertificateParams::new(acme.domains.clone()).ok()?.self_signed(&key).ok()?;
            let key = zeroize::Zeroizing::new(key.serialize_pem());
            let read = ServedCertificate::read(made.pem().as_bytes(), key.as_bytes()).ok()?;
            Some(ReadyCertificate::of(read))
        };
        self.0.obtained.placeholder.get_or_init(make).clone()
    }
}

impl ReadyCertificate {
    fn of(certificate: ServedCertificate) -> Self {
        let [_, http1] = HTTP;
        Self {
            with_http2: server_config(certificate.certified(), &HTTP),
            http1_only: server_config(certificate.certified(), &[http1]),
            certificate,
        }
    }
}

#[expect(clippy::expect_used, reason = "the provider supports the default protocol versions")]
fn server_config(certified: Arc<CertifiedKey>, protocols: &[&[u8]]) -> Arc<ServerConfig> {
    let single = SingleCertAndKey::from(Arc::unwrap_or_clone(certified));
    let mut config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .expect("aws-lc-rs speaks TLS 1.2 and 1.3")
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(single));
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    Arc::new(config)
}

/// Returns the certificate that answers a challenge. It is not checked as others are: its only critical extension is
/// one that no client knows.
fn answering(answer: &ChallengeAnswer) -> Option<Arc<CertifiedKey>> {
    let chain = CertificateDer::from_pem_slice(answer.chain.as_bytes()).ok()?;
    let key = PrivateKeyDer::from_pem_slice(answer.key.as_bytes()).ok()?;
    let key = default_provider().key_provider.load_private_key(key).ok()?;
    Some(Arc::new(CertifiedKey::new(vec![chain], key)))
}

/// Returns a hash of these texts.
fn id_of<'a>(texts: impl Iterator<Item = &'a str>) -> String {
    let mut all = String::new();
    for text in texts {
        all.push_str(text);
        all.push('\n');
    }
    URL_SAFE_NO_PAD.encode(digest(&SHA256, all.as_bytes()))
}

/// Returns which certificate this is.
fn name_of(acme: &AcmeConfig) -> String {
    let (names, external) = (acme.domains.iter().map(String::as_str), external_id(acme));
    id_of(std::iter::once(acme.directory.as_str()).chain(names).chain(external.as_deref()))
}

/// Returns the external account in ids of what is stored, in which it looks like no domain: with another one, the
/// account and the certificate are others.
fn external_id(acme: &AcmeConfig) -> Option<String> {
    acme.external_account.as_ref().map(|external| format!("external:{}", external.key_id))
}
