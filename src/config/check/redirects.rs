//! Reads `redirect_schemes`: the apps that may receive authorization responses.

use super::super::reader::ConfigReader;
use crate::oauth::redirect_uri::{Destination, RedirectPolicy, RedirectUri, destination};

/// Private-use schemes of widely used MCP clients.
const KNOWN_SCHEMES: &[&str] =
    &["cursor", "vscode", "vscode-insiders", "windsurf", "claude", "zed"];

pub(super) fn schemes(r: &mut ConfigReader) -> Vec<String> {
    const KEY: &str = "redirect_schemes";
    let Some(schemes) = r.texts(KEY) else {
        let known: Vec<String> = KNOWN_SCHEMES.iter().map(|scheme| (*scheme).to_owned()).collect();
        if !r.has(KEY) {
            r.show(KEY, known.clone(), false);
        }
        return known;
    };
    for scheme in &schemes {
        if scheme.contains(':') {
            whole_callback(r, KEY, scheme);
            continue;
        }
        let legal = scheme.starts_with(|c: char| c.is_ascii_lowercase())
            && scheme
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"+-.".contains(&b));
        if !legal {
            let shown = Some(format!("{scheme:?}"));
            r.problem(
                KEY,
                shown,
                "is not a URL scheme",
                "write it in lower case, without the colon, or the whole callback of an app",
            );
        }
    }
    schemes
}

/// Checks a complete redirect URI of an app. It is for apps whose scheme would allow too much, or whose link
/// is not built in.
fn whole_callback(r: &mut ConfigReader, key: &str, text: &str) {
    let itself = RedirectPolicy { private_schemes: vec![text.to_owned()], allowed: None };
    let refused = RedirectUri::register(text, &itself).err().map(|refused| refused.to_string());
    let to_app = matches!(destination(text), Destination::App { .. });
    let refused = refused.or_else(|| (!to_app).then(|| "it leads to no app".to_owned()));
    if let Some(refused) = refused {
        let hint = "write the address to which the app takes answers, such as \"myapp://callback\"";
        r.problem(
            key,
            Some(format!("{text:?}")),
            format!("is no callback of an app: {refused}"),
            hint,
        );
    }
}
