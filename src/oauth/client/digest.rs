//! The part of a client's metadata that an administrator decides about: everything that identifies the
//! client, and nothing that it may change freely.

use aws_lc_rs::digest;
use serde_json::{Value, json};

use super::ClientMetadata;

impl ClientMetadata {
    /// Returns a SHA-256 digest of what an administrator decides about, in hexadecimal: the name, the home
    /// page, the redirect URIs, the authentication method, and the keys or their URL. Keys behind a URL may
    /// rotate without changing the digest. The order of members, URIs and keys, and white space, do not
    /// matter.
    pub fn digest(&self) -> String {
        let mut redirect_uris: Vec<&str> =
            self.redirect_uris.iter().map(super::RedirectUri::as_str).collect();
        redirect_uris.sort_unstable();
        redirect_uris.dedup();
        let decided = json!([
            "portcullis client 1",
            self.client_name,
            self.client_uri,
            redirect_uris,
            self.token_endpoint_auth_method.as_str(),
            self.jwks.as_ref().map(keys),
            self.jwks_uri.as_ref().map(super::WebUrl::as_str),
        ]);
        let digest = digest::digest(&digest::SHA256, decided.to_string().as_bytes());
        digest.as_ref().iter().fold(String::with_capacity(64), |mut text, byte| {
            for half in [byte >> 4, byte & 15] {
                text.push(char::from_digit(half.into(), 16).unwrap_or('0'));
            }
            text
        })
    }
}

/// Returns the keys of a set as sorted texts.
fn keys(set: &Value) -> Vec<String> {
    let keys = set.get("keys").and_then(Value::as_array);
    let mut keys: Vec<String> = keys.into_iter().flatten().map(canonical).collect();
    keys.sort_unstable();
    keys
}

/// Serializes JSON with sorted members.
fn canonical(value: &Value) -> String {
    match value {
        Value::Object(members) => {
            let mut members: Vec<(&String, &Value)> = members.iter().collect();
            members.sort_unstable_by_key(|(name, _)| *name);
            let members: Vec<String> = members
                .into_iter()
                .map(|(name, value)| format!("{}:{}", Value::from(name.as_str()), canonical(value)))
                .collect();
            format!("{{{}}}", members.join(","))
        }
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(canonical).collect();
            format!("[{}]", items.join(","))
        }
        plain => plain.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(change: &Value) -> String {
        let mut metadata = json!({
            "client_name": "Reports", "client_uri": "https://a.example",
            "redirect_uris": ["https://a.example/1", "https://a.example/2"],
            "token_endpoint_auth_method": "none",
            "grant_types": ["authorization_code"], "response_types": ["code"],
        });
        for (name, value) in change.as_object().unwrap() {
            metadata[name] = value.clone();
        }
        ClientMetadata::from_stored_json(&metadata.to_string()).unwrap().digest()
    }

    fn key(x: &str) -> Value {
        json!({ "kty": "OKP", "crv": "Ed25519", "x": x })
    }

    #[test]
    fn each_member_that_counts_changes_the_digest_and_no_other() {
        let same = digest(&json!({}));
        assert_eq!(same.len(), 64);
        let mut seen = vec![same.clone()];
        for change in [
            json!({ "client_name": "Report" }),
            json!({ "client_name": null }),
            json!({ "client_uri": null }),
            json!({ "redirect_uris": ["https://a.example/1"] }),
            json!({ "redirect_uris": ["https://a.example/1", "https://a.example/2", "https://a.example/3"] }),
            json!({ "token_endpoint_auth_method": "private_key_jwt" }),
            json!({ "jwks_uri": "https://a.example/keys" }),
            json!({ "jwks_uri": "https://a.example/other" }),
            json!({ "jwks": { "keys": [key("AA")] } }),
            json!({ "jwks": { "keys": [key("AB")] } }),
            json!({ "jwks": { "keys": [key("AA"), key("AB")] } }),
        ] {
            let other = digest(&change);
            assert!(!seen.contains(&other), "{change}");
            seen.push(other);
        }
        for change in [
            json!({ "redirect_uris": ["https://a.example/2", "https://a.example/1", "https://a.example/2"] }),
            json!({ "scope": "a b", "contacts": ["a@b.example"], "software_version": "2" }),
            json!({ "logo_uri": "https://a.example/x", "tos_uri": "https://a.example/t" }),
        ] {
            assert_eq!(digest(&change), same, "{change}");
        }
    }

    #[test]
    fn keys_may_be_written_in_any_order() {
        let two = |keys: Value| digest(&json!({ "jwks": { "keys": keys } }));
        assert_eq!(two(json!([key("AA"), key("AB")])), two(json!([key("AB"), key("AA")])));
        let text = r#"{"x":"AA","crv":"Ed25519","kty":"OKP"}"#;
        let turned: Value = serde_json::from_str(text).unwrap();
        assert_eq!(two(json!([turned])), two(json!([key("AA")])));
    }
}
