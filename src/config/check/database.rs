//! Reads `database_url`: checks its options, and masks it for display.

use std::collections::BTreeMap;
use std::path::Path;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use toml::Value;
use url::Url;

use super::super::keys::nearest;
use super::super::reader::ConfigReader;
use super::super::values::SecretText;

const KEY: &str = "database_url";
const DEFAULT: &str = "sqlite://portcullis.db";
const MASK: &str = "********";

/// Options of a PostgreSQL URL that the driver supports.
const OPTIONS: &[&str] = &[
    "sslmode",
    "ssl-mode",
    "sslrootcert",
    "ssl-root-cert",
    "ssl-ca",
    "sslcert",
    "ssl-cert",
    "sslkey",
    "ssl-key",
    "statement-cache-capacity",
    "host",
    "hostaddr",
    "port",
    "dbname",
    "user",
    "password",
    "application_name",
    "options",
];
/// Options whose values are shown; all other values are masked.
const HARMLESS: &[&str] = &[
    "sslmode",
    "ssl-mode",
    "sslrootcert",
    "ssl-root-cert",
    "ssl-ca",
    "statement-cache-capacity",
    "host",
    "hostaddr",
    "port",
    "dbname",
    "user",
    "application_name",
];
/// Characters that are percent-encoded in the shown options.
const QUERY: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'*').remove(b'-').remove(b'.').remove(b'_').remove(b'/').remove(b':');
const MODES: &[&str] = &["disable", "allow", "prefer", "require", "verify-ca", "verify-full"];

pub(super) fn database_url(r: &mut ConfigReader, env: &BTreeMap<String, String>) -> SecretText {
    let text = match r.value(KEY) {
        None => {
            r.show(KEY, DEFAULT, false);
            return SecretText::new(DEFAULT);
        }
        Some(Value::String(text)) => {
            r.show(KEY, shown(&text), true);
            SecretText::new(text)
        }
        Some(_) => match r.secret(KEY, env) {
            Some(secret) => secret,
            None => return SecretText::new(DEFAULT),
        },
    };
    check(r, text.expose());
    text
}

/// Hint for a URL that names several servers.
const NAME_ONE: &str =
    "name one; where several may serve, let an address or a proxy in front decide which";

fn check(r: &mut ConfigReader, text: &str) {
    let mut problem = |reason: String, hint: String| {
        r.problem(KEY, Some(format!("{:?}", shown(text))), reason, hint);
    };
    let scheme = text.split(':').next().unwrap_or_default();
    match scheme {
        "sqlite" => return,
        "postgres" | "postgresql" => {}
        _ => {
            let hint = "write \"sqlite://portcullis.db\" or \"postgres://user@host/database\"";
            return problem("is neither SQLite nor PostgreSQL".to_owned(), hint.to_owned());
        }
    }
    let authority = text.split(['/', '?']).nth(2).unwrap_or_default();
    if authority.rsplit('@').next().unwrap_or_default().contains(',') {
        return problem("names several hosts".to_owned(), NAME_ONE.to_owned());
    }
    let Ok(url) = Url::parse(text) else {
        let hint = "write \"postgres://user@host/database\"; what has other characters in a name or password is percent-encoded; for a socket, write postgres:///database?host=/folder&user=name";
        return problem("cannot be read".to_owned(), hint.to_owned());
    };
    let (mut mode, mut root) = (None, None);
    for (name, value) in url.query_pairs() {
        let named = name.split('[').next().unwrap_or_default();
        if !OPTIONS.contains(&named) || (named != name && named != "options") {
            let hint = match nearest(&name, OPTIONS.iter().copied()) {
                Some(nearest) => format!("did you mean {nearest}?"),
                None => format!("it can be {}", OPTIONS.join(", ")),
            };
            let name: String = name.chars().filter(|c| !c.is_control()).take(64).collect();
            problem(format!("has the unknown option {name}"), hint);
            continue;
        }
        if let Some((reason, hint)) = option_problem(named, &value) {
            problem(reason, hint);
        }
        match named {
            "sslmode" | "ssl-mode" => mode = Some(value.to_ascii_lowercase()),
            "sslrootcert" | "ssl-root-cert" | "ssl-ca" => root = Some(named.to_owned()),
            _ => {}
        }
    }
    let mode = mode.unwrap_or_else(|| "prefer".to_owned());
    if mode == "verify-ca" {
        r.warn(
            KEY,
            "database_url: sslmode=verify-ca accepts any certificate of any authority that this machine trusts, for whatever name, so others can pose as the database; write sslmode=verify-full",
        );
    }
    if let Some(root) = root.filter(|_| !mode.starts_with("verify")) {
        let text = format!(
            "database_url: with sslmode={mode} nobody looks at the server's certificate, and {root} is not used; write sslmode=verify-full"
        );
        r.warn("database_url", &text);
    }
}

/// Returns what is wrong with the value of a known option, and a hint.
fn option_problem(named: &str, value: &str) -> Option<(String, String)> {
    let (reason, hint) = match named {
        "host" | "hostaddr" | "port" if value.contains(',') => {
            (format!("names several of {named}"), NAME_ONE.to_owned())
        }
        "port" if value.parse::<u16>().is_err() => {
            ("has a port that is no number".to_owned(), "write port=5432".to_owned())
        }
        "statement-cache-capacity" if value.parse::<usize>().is_err() => {
            (format!("has a {named} that is no number"), "take it out".to_owned())
        }
        "sslmode" | "ssl-mode" if !MODES.contains(&&*value.to_ascii_lowercase()) => {
            (format!("has an unknown {named}"), format!("it can be {}", MODES.join(", ")))
        }
        "sslrootcert" | "ssl-root-cert" | "ssl-ca" => {
            let reason = unreadable(value, "CERTIFICATE")?;
            let hint = "give the file with the certificate of the authority, in PEM";
            (format!("{named} names {reason}"), hint.to_owned())
        }
        "sslcert" | "ssl-cert" => {
            let reason = unreadable(value, "CERTIFICATE")?;
            (format!("{named} names {reason}"), "give a file in PEM".to_owned())
        }
        "sslkey" | "ssl-key" => {
            let reason = unreadable(value, "PRIVATE KEY")?;
            (format!("{named} names {reason}"), "give a file in PEM".to_owned())
        }
        _ => return None,
    };
    Some((reason, hint))
}

/// Returns why the file cannot be used; `None` if it can, or if the value itself is PEM.
fn unreadable(value: &str, what: &str) -> Option<String> {
    let begins = format!("{what}-----");
    if value.contains("-----BEGIN") {
        return None;
    }
    match std::fs::read_to_string(Path::new(value)) {
        Ok(text) if text.contains(&begins) => None,
        Ok(_) => Some(format!("{value}, which has no {} in PEM", what.to_lowercase())),
        Err(cause) => Some(format!("{value}, which cannot be read: {cause}")),
    }
}

/// Returns the URL with the password and all options masked, except those in `HARMLESS`.
pub(super) fn shown(text: &str) -> String {
    let Ok(mut url) = Url::parse(text) else { return MASK.to_owned() };
    if url.password().is_some() {
        let _ = url.set_password(Some(MASK));
    }
    if url.query().is_none() || url.scheme() == "sqlite" {
        return url.to_string();
    }
    let options: Vec<String> = url
        .query_pairs()
        .map(|(name, value)| {
            let harmless = HARMLESS.contains(&&*name) && !value.contains("-----BEGIN");
            let value = if harmless { &*value } else { MASK };
            let encoded = |text: &str| utf8_percent_encode(text, QUERY).to_string();
            let (name, value) = (encoded(&name), encoded(value));
            format!("{name}={value}")
        })
        .collect();
    url.set_query(Some(&options.join("&")));
    url.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_known_to_be_harmless_is_shown() {
        for (url, expected) in [
            ("postgres://u:canary@h/d", "postgres://u:********@h/d"),
            ("postgres://u@h/d?password=canary", "postgres://u@h/d?password=********"),
            (
                "postgres://u@h/d?sslmode=require&sslpassword=canary&user=x",
                "postgres://u@h/d?sslmode=require&sslpassword=********&user=x",
            ),
            ("postgres://u@h/d?Password=canary", "postgres://u@h/d?Password=********"),
            ("postgres://u@h/d?passfile=canary", "postgres://u@h/d?passfile=********"),
            ("postgres://u@h/d?sslkey=canary", "postgres://u@h/d?sslkey=********"),
            ("postgres://u@h/d?options=-c%20x.y%3Dcanary", "postgres://u@h/d?options=********"),
            ("postgres://u@h/d?options[x]=canary", "postgres://u@h/d?options%5Bx%5D=********"),
            (
                "postgres://u@h/d?sslrootcert=-----BEGIN%20canary",
                "postgres://u@h/d?sslrootcert=********",
            ),
            ("postgres:///d?host=/run/pg&port=1", "postgres:///d?host=/run/pg&port=1"),
            ("postgres://u@h/d?x%0ay=canary", "postgres://u@h/d?x%0Ay=********"),
            ("postgres://a:1,b:2/d?password=canary", "********"),
            ("sqlite://portcullis.db", "sqlite://portcullis.db"),
        ] {
            assert_eq!(shown(url), expected, "{url}");
        }
    }
}
