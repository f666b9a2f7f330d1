//! Reads the targets of a resource, and how the gateway connects to them.

use std::sync::Arc;
use std::time::Duration;

use rustls::RootCertStore;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use url::Url;

use super::super::reader::ConfigReader;
use super::super::values::is_loopback;
use super::super::{ClientIdentity, TargetConnection};

/// Maximum number of targets of one resource. More replicas of a server belong behind a load balancer.
const MOST: usize = 32;
/// Largest file with certificates or a key: 256 KiB, the size of a bundle of all public authorities.
const LARGEST_PEM: u64 = 256 << 10;

/// Reads `target` or `targets`.
pub(super) fn urls(r: &mut ConfigReader, at: impl Fn(&str) -> String, has_path: bool) -> Vec<Url> {
    let (one, several) = (at("target"), at("targets"));
    let (key, texts) = match (r.text(&one), r.texts(&several)) {
        (None, None) => return Vec::new(),
        (Some(text), None) => (one, vec![text]),
        (None, Some(texts)) => (several, texts),
        (Some(_), Some(_)) => {
            let reason = "is set, and so is target; a resource has one of them";
            r.problem(&several, None, reason, "list all of them in targets, and take target out");
            return Vec::new();
        }
    };
    if !has_path {
        let shown = Some(shown(&texts));
        r.problem(&key, shown, "needs a path to be reached at", "write path instead of id");
        return Vec::new();
    }
    if texts.is_empty() || texts.len() > MOST {
        let reason = format!("has {} entries; it takes 1 to {MOST}", texts.len());
        r.problem(&key, None, reason, "list the URL of each replica of the MCP server");
        return Vec::new();
    }
    let mut urls: Vec<Url> = Vec::new();
    for text in &texts {
        let Some(url) = plain(text) else {
            let hint =
                "write one such as \"http://127.0.0.1:9000/mcp\", without user, query or fragment";
            r.problem(
                &key,
                Some(format!("{text:?}")),
                "is not the plain URL of an MCP server",
                hint,
            );
            continue;
        };
        if urls.contains(&url) {
            r.problem(&key, Some(format!("{text:?}")), "is listed twice", "list each target once");
            continue;
        }
        urls.push(url);
    }
    check_schemes(r, &key, &urls);
    urls
}

fn shown(texts: &[String]) -> String {
    match texts {
        [one] => format!("{one:?}"),
        several => format!("{several:?}"),
    }
}

fn plain(text: &str) -> Option<Url> {
    let url = Url::parse(text).ok()?;
    let is_plain = matches!(url.scheme(), "http" | "https")
        && url.has_host()
        && url.username().is_empty()
        && url.password().is_none()
        && url.query().is_none()
        && url.fragment().is_none();
    is_plain.then_some(url)
}

/// Refuses plain http to another machine beside https: it would be the way around the TLS of the others.
fn check_schemes(r: &mut ConfigReader, key: &str, urls: &[Url]) {
    if !speaks_tls(urls) {
        return;
    }
    let plain = urls.iter().find(|url| url.scheme() == "http" && !is_loopback(url));
    if let Some(plain) = plain {
        let reason =
            "is plain http to another machine, and other targets of this resource are https";
        r.problem(
            key,
            Some(format!("{:?}", plain.as_str())),
            reason,
            "write https for all of them",
        );
    }
}

fn speaks_tls(urls: &[Url]) -> bool {
    urls.iter().any(|url| url.scheme() == "https")
}

/// Reads `timeout`: the longest wait for the head of a response; `None`: `limits.gateway_response`.
pub(super) fn timeout(r: &mut ConfigReader, key: &str) -> Option<Duration> {
    r.has(key).then(|| r.duration(key, "5m", "1s", "1h"))
}

/// Reads `connect_timeout`, `ca`, `client_cert` and `client_key`.
pub(super) fn connection(
    r: &mut ConfigReader,
    at: impl Fn(&str) -> String,
    targets: &[Url],
) -> TargetConnection {
    let connect_timeout = r.duration(&at("connect_timeout"), "5s", "1s", "60s");
    let (ca, cert, key) = (at("ca"), at("client_cert"), at("client_key"));
    let authorities = authorities(r, &ca);
    let identity = identity(r, &cert, &key).map(Arc::new);
    // If the targets themselves have mistakes, these are reported already.
    if !speaks_tls(targets) && (!targets.is_empty() || r.problems.is_empty()) {
        for key in [ca, cert] {
            if r.has(&key) {
                let hint = "write https in target, or take this out";
                r.problem(&key, None, "is for TLS, and no target is https", hint);
            }
        }
    }
    TargetConnection { connect_timeout, authorities, identity }
}

fn authorities(r: &mut ConfigReader, key: &str) -> Vec<CertificateDer<'static>> {
    let Some((path, authorities)) = certificates(r, key) else { return Vec::new() };
    let mut roots = RootCertStore::empty();
    for authority in &authorities {
        if let Err(cause) = roots.add(authority.clone()) {
            let reason = format!("has a certificate that cannot be an authority: {cause}");
            let hint = "put the certificates of the authorities in it, as PEM";
            r.problem(key, Some(format!("{path:?}")), reason, hint);
        }
    }
    authorities
}

/// Reads a file of certificates; returns its path with them.
fn certificates(r: &mut ConfigReader, key: &str) -> Option<(String, Vec<CertificateDer<'static>>)> {
    let path = r.text(key)?;
    let pem = r.file(key, &path, LARGEST_PEM)?;
    match CertificateDer::pem_slice_iter(&pem).collect::<Result<Vec<_>, _>>() {
        Ok(found) if !found.is_empty() => Some((path, found)),
        _ => {
            let hint = "write PEM: -----BEGIN CERTIFICATE-----, base64, -----END CERTIFICATE-----";
            r.problem(key, Some(format!("{path:?}")), "names a file without certificates", hint);
            None
        }
    }
}

fn identity(r: &mut ConfigReader, cert: &str, key: &str) -> Option<ClientIdentity> {
    for (one, other) in [(cert, key), (key, cert)] {
        if r.has(one) && !r.has(other) {
            let name = other.rsplit('.').next().unwrap_or(other);
            let reason = format!("is set without {name}");
            r.problem(one, None, reason, format!("add {name} = \"…\", the other of the two files"));
        }
    }
    let (_, chain) = certificates(r, cert).unzip();
    let private = private_key(r, key);
    let (chain, (path, private)) = chain.zip(private)?;
    if let Err(cause) =
        CertifiedKey::from_der(chain.clone(), private.clone_key(), &aws_lc_rs::default_provider())
    {
        let reason = format!("does not go with the certificate in {cert}: {cause}");
        r.problem(key, Some(format!("{path:?}")), reason, "write the two files as one pair");
        return None;
    }
    Some(ClientIdentity { chain, key: private })
}

/// Reads the file of the private key; returns its path with it.
fn private_key(r: &mut ConfigReader, key: &str) -> Option<(String, PrivateKeyDer<'static>)> {
    let path = r.text(key)?;
    let pem = zeroize::Zeroizing::new(r.file(key, &path, LARGEST_PEM)?);
    let found = PrivateKeyDer::from_pem_slice(&pem).ok();
    if found.is_none() {
        let hint = "write PEM without a password: openssl pkey -in key.pem -out plain.pem";
        let reason = "names a file without a private key that can be read";
        r.problem(key, Some(format!("{path:?}")), reason, hint);
    }
    Some((path, found?))
}
