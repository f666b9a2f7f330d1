//! Reads `[[notify]]`: where notifications go.

use std::collections::{BTreeMap, HashSet};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use url::{Host, Url};
use zeroize::Zeroizing;

use super::super::keys::nearest;
use super::super::notify::{
    Hook, HookFormat, HookUrl, MailSecurity, MailServer, NotifyChannel, NotifyEvent, NotifyEvents,
    NotifyTarget, SigningSecret,
};
use super::super::reader::ConfigReader;
use super::super::values::is_loopback;
use super::one_of;

/// Most targets: 16. Each message is stored and sent once for each of them.
const MOST: usize = 16;
/// Most recipients of a message: 20.
const MOST_RECIPIENTS: usize = 20;
/// Longest name, in characters.
const LONGEST_NAME: usize = 32;
/// Lengths of a key in bytes, as the Standard Webhooks specification wants them.
const KEY_BYTES: std::ops::RangeInclusive<usize> = 24..=64;
/// Longest e-mail address, in bytes (RFC 5321 §4.5.3.1.3).
const LONGEST_ADDRESS: usize = 254;

const MASKED: &str = "********";
const KINDS: [&str; 5] = ["webhook", "slack", "teams", "discord", "smtp"];

pub(super) fn all(r: &mut ConfigReader, env: &BTreeMap<String, String>) -> Vec<NotifyTarget> {
    let count = r.count("notify");
    if count > MOST {
        let hint = format!("keep {MOST} at most");
        r.problem("notify", Some(count.to_string()), "are too many targets", hint);
    }
    let targets: Vec<NotifyTarget> =
        (0..count.min(MOST)).filter_map(|index| one(r, env, &format!("notify[{index}]"))).collect();
    let mut seen = HashSet::new();
    for target in &targets {
        if !seen.insert(target.name.as_str()) {
            let shown = Some(format!("{:?}", target.name));
            r.problem("notify", shown, "is the name of two targets", "give each its own");
        }
    }
    targets
}

fn one(r: &mut ConfigReader, env: &BTreeMap<String, String>, key: &str) -> Option<NotifyTarget> {
    let at = |name: &str| format!("{key}.{name}");
    let name = name(r, &at("name"));
    let kind = kind(r, &at("kind"));
    let events = events(r, &at("events"));
    let interval = r.duration(&at("interval"), "5m", "1m", "24h");
    let allow_private = r.flag(&at("allow_private"), false);
    let hook = |format| (format, allow_private);
    let Some(kind) = kind else {
        // The other keys depend on the kind: no problem of theirs would help.
        for name in ["url", "secret", "host", "port", "security", "username", "password"] {
            r.has(&at(name));
        }
        let _ = (r.has(&at("from")), r.has(&at("to")));
        return None;
    };
    let channel = match kind.as_str() {
        "webhook" => hook_of(r, env, key, hook(HookFormat::Webhook)),
        "slack" => hook_of(r, env, key, hook(HookFormat::Slack)),
        "teams" => hook_of(r, env, key, hook(HookFormat::Teams)),
        "discord" => hook_of(r, env, key, hook(HookFormat::Discord)),
        _ => mail(r, env, key, allow_private).map(|mail| NotifyChannel::Mail(Box::new(mail))),
    };
    Some(NotifyTarget { name: name?, channel: channel?, events, interval, allow_private })
}

fn name(r: &mut ConfigReader, key: &str) -> Option<String> {
    let name = r.required_text(key, "name the target, such as \"ops\"")?;
    let fits = name.chars().count() <= LONGEST_NAME
        && name.bytes().all(|b| matches!(b, b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_'));
    if !fits {
        let hint = format!("use letters, digits, - and _, {LONGEST_NAME} at most");
        r.problem(key, Some(format!("{name:?}")), "is not a name", hint);
    }
    fits.then_some(name)
}

fn kind(r: &mut ConfigReader, key: &str) -> Option<String> {
    let list = KINDS.join(", ");
    let kind = r.required_text(key, &format!("write one of {list}"))?;
    if KINDS.contains(&kind.as_str()) {
        return Some(kind);
    }
    let hint = match nearest(&kind, KINDS.into_iter()) {
        Some(near) => format!("did you mean {near:?}? It can be {list}"),
        None => format!("it can be {list}"),
    };
    r.problem(key, Some(format!("{kind:?}")), "is not one of the known values", hint);
    None
}

fn events(r: &mut ConfigReader, key: &str) -> NotifyEvents {
    let all = NotifyEvent::SELECTABLE;
    let words = || all.iter().map(|event| event.as_str());
    let Some(listed) = r.texts(key) else {
        if !r.has(key) {
            r.show(key, words().map(toml::Value::from).collect::<Vec<_>>(), false);
        }
        return NotifyEvents::of(&all);
    };
    let mut events = Vec::new();
    for word in &listed {
        if let Some(event) = all.iter().find(|event| event.as_str() == word) {
            events.push(*event);
            continue;
        }
        let list = words().collect::<Vec<_>>().join(", ");
        let hint = match nearest(word, words()) {
            Some(near) => format!("did you mean {near:?}? It can be {list}"),
            None => format!("it can be {list}"),
        };
        r.problem(key, Some(format!("{word:?}")), "is not an event", hint);
    }
    if listed.is_empty() {
        r.problem(key, Some("[]".to_owned()), "names no event", "leave it out to receive all");
    }
    NotifyEvents::of(&events)
}

fn hook_of(
    r: &mut ConfigReader,
    env: &BTreeMap<String, String>,
    key: &str,
    (format, allow_private): (HookFormat, bool),
) -> Option<NotifyChannel> {
    let url = url(r, env, &format!("{key}.url"), allow_private);
    let signing_key =
        (format == HookFormat::Webhook).then(|| secret(r, env, &format!("{key}.secret")));
    let key = match signing_key {
        Some(key) => Some(key?),
        None => None,
    };
    Some(NotifyChannel::Hook(Hook { format, url: url?, key }))
}

/// Reads a URL. Anybody who knows it can post there, so no problem shows it.
fn url(
    r: &mut ConfigReader,
    env: &BTreeMap<String, String>,
    key: &str,
    allow_private: bool,
) -> Option<HookUrl> {
    if !r.has(key) {
        let hint = "write { env = \"NAME\" } or { file = \"path\" }: anybody who knows the URL can post there";
        r.problem(key, None, "is missing", hint);
        return None;
    }
    let text = r.secret(key, env)?;
    let refuse = |r: &mut ConfigReader, reason: &str, hint: &str| {
        r.problem(key, Some(MASKED.to_owned()), reason, hint);
        None
    };
    let Ok(url) = Url::parse(text.expose()) else {
        return refuse(r, "is not a URL", "copy it whole, with https://");
    };
    if !url.username().is_empty() || url.password().is_some() || url.fragment().is_some() {
        let hint = "take them out: they would be sent to nobody, or to everybody";
        return refuse(r, "holds a user name, a password or a fragment", hint);
    }
    let private_host = match url.host() {
        Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        Some(Host::Ipv4(_) | Host::Ipv6(_)) => true,
        None => return refuse(r, "is not a URL", "copy it whole, with https://"),
    };
    if private_host && !allow_private {
        let hint = "write the host's name; or add allow_private = true, if it is meant to be in your own network";
        return refuse(r, "names an address, or this machine", hint);
    }
    match url.scheme() {
        "https" => Some(HookUrl(url)),
        "http" if allow_private && is_loopback(&url) => Some(HookUrl(url)),
        _ => refuse(
            r,
            "is not https",
            "write https://; http:// is for this machine only, with allow_private = true",
        ),
    }
}

/// Reads the key of the signature: `whsec_` and base64, as receivers' libraries read it.
fn secret(
    r: &mut ConfigReader,
    env: &BTreeMap<String, String>,
    key: &str,
) -> Option<SigningSecret> {
    let hint =
        "make one with: echo \"whsec_$(openssl rand -base64 32)\"; the receiver gets the same";
    if !r.has(key) {
        r.problem(key, None, "is missing: a webhook is signed", hint);
        return None;
    }
    let text = r.secret(key, env)?;
    let bytes = text.expose().strip_prefix("whsec_").and_then(|rest| STANDARD.decode(rest).ok());
    let bytes = bytes.map(Zeroizing::new).filter(|bytes| KEY_BYTES.contains(&bytes.len()));
    if bytes.is_none() {
        let reason = "is not whsec_ and 24 to 64 bytes in base64";
        r.problem(key, Some(MASKED.to_owned()), reason, hint);
    }
    bytes.map(SigningSecret)
}

fn mail(
    r: &mut ConfigReader,
    env: &BTreeMap<String, String>,
    key: &str,
    allow_private: bool,
) -> Option<MailServer> {
    let at = |name: &str| format!("{key}.{name}");
    let host = mail_host(r, &at("host"), allow_private);
    let security: MailSecurity = one_of(r, &at("security"), MailSecurity::Tls);
    if security == MailSecurity::None
        && let Some(host) = &host
        && !is_this_machine(host)
    {
        let hint = "write \"tls\" or \"starttls\"; \"none\" is for a mail server on this machine";
        r.problem(&at("security"), Some("\"none\"".to_owned()), "protects nothing", hint);
    }
    let port = r.number(&at("port"), security.port(), 1, u16::MAX);
    let username = r.text(&at("username"));
    let password = if r.has(&at("password")) { r.secret(&at("password"), env) } else { None };
    if username.is_some() != password.is_some() && r.problems.is_empty() {
        let missing = if username.is_some() { "password" } else { "username" };
        r.problem(&at(missing), None, "is missing", "write both, or neither");
    }
    let from = r.required_text(&at("from"), "write the address that the messages come from");
    let from = from.filter(|address| is_address(r, &at("from"), address));
    let to = recipients(r, &at("to"));
    let login = username.zip(password);
    Some(MailServer { host: host?, port, security, login, from: from?, to: to? })
}

fn mail_host(r: &mut ConfigReader, key: &str, allow_private: bool) -> Option<String> {
    let host = r.required_text(key, "write the name of the mail server")?;
    let shown = Some(format!("{host:?}"));
    let Ok(parsed) = Host::parse(&host) else {
        r.problem(key, shown, "is not the name of a host", "write it without scheme and port");
        return None;
    };
    let is_name = matches!(parsed, Host::Domain(_));
    if !allow_private && (!is_name || is_this_machine(&host)) {
        let hint =
            "write its name; or allow_private = true, if it is meant to be in your own network";
        r.problem(key, shown, "is an address, or this machine", hint);
        return None;
    }
    Some(host)
}

fn is_this_machine(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost")
        || bare.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn recipients(r: &mut ConfigReader, key: &str) -> Option<Vec<String>> {
    let Some(to) = r.texts(key) else {
        if !r.has(key) {
            r.problem(key, None, "is missing", "write the recipients: [\"ops@example.com\"]");
        }
        return None;
    };
    if to.is_empty() || to.len() > MOST_RECIPIENTS {
        let hint = format!("write 1 to {MOST_RECIPIENTS} addresses");
        r.problem(key, Some(to.len().to_string()), "is no number of recipients", hint);
        return None;
    }
    let fits: Vec<bool> = to.iter().map(|address| is_address(r, key, address)).collect();
    fits.into_iter().all(|fits| fits).then_some(to)
}

/// Reports an address that a mail header could not carry as it is.
fn is_address(r: &mut ConfigReader, key: &str, address: &str) -> bool {
    let plain = |c: u8| c.is_ascii_alphanumeric() || b"!#$%&'*+-/=?^_`{|}~.".contains(&c);
    let fits = address.len() <= LONGEST_ADDRESS
        && address.split_once('@').is_some_and(|(local, domain)| {
            !local.is_empty()
                && local.bytes().all(plain)
                && !domain.is_empty()
                && domain.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'.'))
        });
    if !fits {
        let hint = "write it without a display name: \"ops@example.com\"";
        r.problem(key, Some(format!("{address:?}")), "is not an e-mail address", hint);
    }
    fits
}
