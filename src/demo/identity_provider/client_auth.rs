//! The id and secret that a client shows at an endpoint (RFC 6749 §2.3.1).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::demo::http::Recorded;

/// Returns id and secret from Basic authentication or from the form; `only` names the one method that counts.
pub(super) fn shown(request: &Recorded, only: Option<&str>) -> Option<(String, String)> {
    let decoded = |text: &str| {
        form_urlencoded::parse(text.as_bytes()).next().map(|(text, _)| text.into_owned())
    };
    let basic = request
        .header("authorization")
        .and_then(|value| value.strip_prefix("Basic "))
        .and_then(|encoded| String::from_utf8(STANDARD.decode(encoded).ok()?).ok())
        .and_then(|pair| {
            let (id, secret) = pair.split_once(':')?;
            Some((decoded(id)?, decoded(secret)?))
        });
    let post = || Some((request.form_field("client_id")?, request.form_field("client_secret")?));
    match only {
        Some("client_secret_basic") => basic,
        Some(_) => post(),
        None => basic.or_else(post),
    }
}
