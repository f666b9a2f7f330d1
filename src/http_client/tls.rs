//! TLS configurations: which certificate authorities connections trust. Either those of the system, read
//! once, or those that a test names.

use std::sync::{Arc, OnceLock};

use hyper_rustls::ConfigBuilderExt;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, ConfigBuilder, RootCertStore, WantsVerifier};

use crate::config::TargetConnection;

/// Trusts the system's root certificates. They are read from up to hundreds of files, so all clients share
/// one result. On a system without any, every HTTPS request fails; the log has a warning that says why.
pub(super) fn of_the_system() -> ClientConfig {
    static ROOTS: OnceLock<ClientConfig> = OnceLock::new();
    let read = || {
        let builder = builder().with_native_roots().unwrap_or_else(|cause| {
            tracing::warn!(%cause, "no root certificates on this system: https will not work");
            builder().with_root_certificates(RootCertStore::empty())
        });
        builder.with_no_client_auth()
    };
    ROOTS.get_or_init(read).clone()
}

/// What a connection to a target of the gateway trusts, and what it authenticates itself with.
pub(super) fn of_target(settings: &TargetConnection) -> Result<ClientConfig, rustls::Error> {
    let Some(identity) = &settings.identity else {
        return Ok(match settings.authorities.as_slice() {
            [] => of_the_system(),
            own => builder().with_root_certificates(store(own)?).with_no_client_auth(),
        });
    };
    let builder = match settings.authorities.as_slice() {
        [] => builder().with_native_roots().unwrap_or_else(|_| {
            // `of_the_system` has logged why.
            builder().with_root_certificates(RootCertStore::empty())
        }),
        own => builder().with_root_certificates(store(own)?),
    };
    builder.with_client_auth_cert(identity.chain.clone(), identity.key.clone_key())
}

fn store(authorities: &[CertificateDer<'static>]) -> Result<RootCertStore, rustls::Error> {
    let mut roots = RootCertStore::empty();
    for authority in authorities {
        roots.add(authority.clone())?;
    }
    Ok(roots)
}

/// Trusts only the certificates in `authority` (PEM).
pub(super) fn of(authority: &[u8]) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(authority).flatten() {
        let _ = roots.add(certificate); // an invalid certificate is ignored
    }
    builder().with_root_certificates(roots).with_no_client_auth()
}

#[expect(clippy::expect_used, reason = "the provider supports the default protocol versions")]
fn builder() -> ConfigBuilder<ClientConfig, WantsVerifier> {
    ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .expect("aws-lc-rs speaks TLS 1.2 and 1.3")
}

/// The crypto provider, the same for all connections.
pub(super) fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}
