//! Reads `[tls]` and `listen_http`.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use url::Url;
use zeroize::Zeroizing;

use super::super::files::is_readable_by_others;
use super::super::notify::SigningSecret;
use super::super::public_url::PublicUrl;
use super::super::reader::ConfigReader;
use super::super::tls::{
    AcmeConfig, CertificateRefused, ExternalAccount, ServedCertificate, host_of_origin,
};
use super::super::values::is_loopback;
use super::super::{AdminConfig, TlsConfig};
use super::address;
use crate::clock::{Clock, Timestamp};

/// Largest file with certificates or a key: 256 KiB.
const LARGEST: u64 = 256 << 10;
/// Most names in a certificate: 100, as ACME servers allow.
const MOST_DOMAINS: usize = 100;
/// The directory of Let's Encrypt.
const DIRECTORY: &str = "https://acme-v02.api.letsencrypt.org/directory";

/// Reads `[tls]`; `None` if there is none, or if it has problems.
pub(super) fn read(
    r: &mut ConfigReader,
    env: &BTreeMap<String, String>,
    public_url: Option<&PublicUrl>,
) -> Option<TlsConfig> {
    if !r.has("tls") {
        return None;
    }
    if public_url.is_some_and(|url| !url.is_https()) {
        let hint = "write public_url with https://, or take [tls] out";
        r.problem("tls", None, "is set, and public_url is not https", hint);
    }
    if !r.has("tls.acme") {
        return files(r).map(TlsConfig::Files);
    }
    let has_files = [r.has("tls.cert"), r.has("tls.key")].contains(&true);
    if has_files {
        let hint = "keep either cert and key, or [tls.acme]";
        r.problem("tls.acme", None, "is set, and so are files with a certificate", hint);
    }
    acme(r, env).map(|acme| TlsConfig::Acme(Arc::new(acme)))
}

/// Reads the address of the listener that redirects to https.
pub(super) fn listen_http(r: &mut ConfigReader, has_tls: bool) -> Option<SocketAddr> {
    const KEY: &str = "listen_http";
    if !r.has(KEY) {
        return None;
    }
    if !has_tls {
        let hint = "add [tls], or take listen_http out: a proxy in front redirects by itself";
        r.problem(KEY, None, "is set without [tls]", hint);
    }
    let usual = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 80);
    Some(address(r, KEY, usual))
}

fn files(r: &mut ConfigReader) -> Option<ServedCertificate> {
    const CERT: &str = "tls.cert";
    const KEY: &str = "tls.key";
    let hint = "name a PEM file; [tls.acme] obtains a certificate by itself";
    let (cert, key) = (r.required_text(CERT, hint), r.required_text(KEY, hint));
    let (cert, key) = (cert?, key?);
    let chain = r.file(CERT, &cert, LARGEST);
    let secret = r.file(KEY, &key, LARGEST).map(Zeroizing::new);
    if is_readable_by_others(Path::new(&key)) {
        r.warnings.push(format!(
            "{KEY} = {key:?} can be read by every user of this machine: chmod o-rwx it"
        ));
    }
    let read = ServedCertificate::read(&chain?, &secret?);
    let refused = match read {
        Ok(certificate) => return Some(certificate),
        Err(refused) => refused,
    };
    let (at, path, hint) = match refused {
        CertificateRefused::NoCertificate | CertificateRefused::Unreadable => {
            (CERT, cert, "name the file with the certificate and those of its authorities, in PEM")
        }
        CertificateRefused::NoKey | CertificateRefused::UnusableKey => {
            (KEY, key, "name the file with the private key, in PEM and without a password")
        }
        CertificateRefused::OtherKey => {
            (KEY, key, "name the key and the certificate of one order, the server's first")
        }
    };
    r.problem(at, Some(format!("{path:?}")), refused.to_string(), hint);
    None
}

fn acme(r: &mut ConfigReader, env: &BTreeMap<String, String>) -> Option<AcmeConfig> {
    let domains = domains(r);
    let contact = r.text("tls.acme.contact");
    let contact = contact.filter(|contact| is_address(r, contact));
    let directory = directory(r);
    let authority = r.text("tls.acme.ca");
    let authority = authority.and_then(|path| r.file("tls.acme.ca", &path, LARGEST));
    if !r.flag("tls.acme.terms", false) {
        let hint = "read the terms of service of the ACME server, and write terms = true";
        r.problem("tls.acme.terms", None, "is not true: nobody has agreed to the terms", hint);
    }
    let external_account = external_account(r, env);
    let (domains, directory) = (domains?, directory?);
    Some(AcmeConfig { domains, contact, directory, authority, external_account })
}

/// Reads the account at the certificate authority: both keys, or neither.
fn external_account(
    r: &mut ConfigReader,
    env: &BTreeMap<String, String>,
) -> Option<ExternalAccount> {
    const ID: &str = "tls.acme.eab_key_id";
    const KEY: &str = "tls.acme.eab_hmac_key";
    let hint = "copy both from the certificate authority, which makes them as a pair";
    match (r.has(ID), r.has(KEY)) {
        (false, false) => return None,
        (true, false) => r.problem(KEY, None, "is missing", hint),
        (false, true) => r.problem(ID, None, "is missing", hint),
        (true, true) => {}
    }
    let key_id = r.text(ID);
    if key_id.as_deref() == Some("") {
        r.problem(ID, Some("\"\"".to_owned()), "is empty", hint);
    }
    let text = r.secret(KEY, env)?;
    let encoded = text.expose().trim_end_matches('=');
    let bytes = URL_SAFE_NO_PAD.decode(encoded).ok().map(Zeroizing::new);
    let hmac_key = bytes.filter(|bytes| !bytes.is_empty()).map(SigningSecret);
    if hmac_key.is_none() {
        r.problem(KEY, None, "is not text in base64url", hint);
    }
    Some(ExternalAccount { key_id: key_id?, hmac_key: hmac_key? })
}

fn domains(r: &mut ConfigReader) -> Option<Vec<String>> {
    const KEY: &str = "tls.acme.domains";
    let hint = "write the names of the certificate, such as [\"mcp.example.com\"]";
    let Some(listed) = r.texts(KEY).filter(|listed| !listed.is_empty()) else {
        r.problem(KEY, None, "names nothing", hint);
        return None;
    };
    let mut domains: Vec<String> = listed.iter().map(|name| name.to_ascii_lowercase()).collect();
    domains.sort();
    domains.dedup();
    if domains.len() > MOST_DOMAINS {
        let hint = format!("keep {MOST_DOMAINS} at most");
        r.problem(KEY, Some(domains.len().to_string()), "are too many names", hint);
    }
    let Some(wrong) = domains.iter().find(|name| !is_domain(name)).cloned() else {
        return Some(domains);
    };
    let (reason, hint) = if wrong.starts_with("*.") {
        ("has a wildcard, which this kind of validation cannot prove", "list each name")
    } else {
        ("has something that is not a domain name", hint)
    };
    r.problem(KEY, Some(format!("{wrong:?}")), reason, hint);
    None
}

fn is_domain(name: &str) -> bool {
    let is_label = |label: &str| {
        let legal = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        (1..=63).contains(&label.len())
            && label.bytes().all(legal)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    name.len() <= 253
        && name.contains('.')
        && name.split('.').all(is_label)
        && name.parse::<IpAddr>().is_err()
}

/// Whether this is an e-mail address; reports what it is not.
fn is_address(r: &mut ConfigReader, contact: &str) -> bool {
    let parts = contact.split_once('@');
    let visible = contact.bytes().all(|byte| byte.is_ascii_graphic() && !b"?&,:<>".contains(&byte));
    let legal = visible && parts.is_some_and(|(local, host)| !local.is_empty() && is_domain(host));
    if !legal {
        let shown = Some(format!("{contact:?}"));
        let hint = "write an address such as \"ops@example.com\"";
        r.problem("tls.acme.contact", shown, "is not an e-mail address", hint);
    }
    legal
}

fn directory(r: &mut ConfigReader) -> Option<String> {
    const KEY: &str = "tls.acme.directory";
    let Some(text) = r.text(KEY) else {
        r.show(KEY, DIRECTORY, false);
        return Some(DIRECTORY.to_owned());
    };
    let legal = Url::parse(&text)
        .is_ok_and(|url| url.scheme() == "https" || url.scheme() == "http" && is_loopback(&url));
    if !legal {
        let hint = "write the URL of the server's directory; http:// is for loopback only";
        r.problem(KEY, Some(format!("{text:?}")), "is not an https URL", hint);
    }
    legal.then_some(text)
}

/// Warns of a certificate that clients will not accept: it has expired, or lacks a name.
pub(super) fn warn(
    r: &mut ConfigReader,
    tls: Option<&TlsConfig>,
    public_url: Option<&PublicUrl>,
    admin: Option<&AdminConfig>,
) {
    let admin_url = admin.filter(|admin| admin.tls).map(|admin| &admin.url);
    for (key, url) in [("public_url", public_url), ("admin.url", admin_url)] {
        let Some(host) = url.map(|url| host_of_origin(url.origin())) else { continue };
        let told = match tls {
            Some(TlsConfig::Files(certificate)) if !certificate.covers(host) => {
                "the certificate in tls.cert is not for"
            }
            Some(TlsConfig::Acme(acme)) if !acme.domains.iter().any(|domain| domain == host) => {
                "tls.acme.domains lacks"
            }
            _ => continue,
        };
        r.warnings.push(format!("{told} {host:?}, the host of {key}: clients will refuse it"));
    }
    if let Some(TlsConfig::Files(certificate)) = tls
        && let Some(told) = out_of_date(certificate, Clock::System.now())
    {
        r.warnings.push(format!("the certificate in tls.cert {told}: clients will refuse it"));
    }
}

fn out_of_date(certificate: &ServedCertificate, now: Timestamp) -> Option<String> {
    let days = |time: std::time::Duration| time.as_secs() / 86_400;
    if certificate.expires_at <= now {
        return Some(format!("expired {} days ago", days(now.since(certificate.expires_at))));
    }
    (certificate.valid_from > now)
        .then(|| format!("is valid in {} days only", days(certificate.valid_from.since(now))))
}
