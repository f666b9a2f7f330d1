//! F5: what clients say of themselves: registrations, published documents, key sets, management.

use portcullis::oauth::client::keys::KeySet;
use portcullis::oauth::client::{ClientMetadata, RegistrationLimits};
use portcullis::oauth::client_name::DisplayName;
use portcullis::oauth::redirect_uri::RedirectUri;
use portcullis::oauth::web_url::ClientIdUrl;
use serde_json::Value;

use super::policy;

const DOCUMENT: &str = "https://good.example/client";

/// Contradicted when metadata is accepted that would not be acceptable as it is stored.
pub fn run(data: &[u8]) {
    let limits = RegistrationLimits { redirect_uris: 3 };
    let id = ClientIdUrl::parse(DOCUMENT).expect("a good id");
    let registered = ClientMetadata::parse(data, &policy(), &limits).ok();
    let published = ClientMetadata::parse_document(data, &id, &policy(), &limits).ok();
    let said: Option<Value> = serde_json::from_slice(data).ok();
    if published.is_some() {
        let said = said.as_ref().expect("accepted, and not JSON");
        assert_eq!(said["client_id"], DOCUMENT, "a document of another client");
        assert!(said.get("client_secret").is_none(), "a published secret");
    }
    for client in [registered, published].into_iter().flatten() {
        let said = said.as_ref().expect("accepted, and not JSON");
        assert!((1..=3).contains(&client.redirect_uris.len()));
        for uri in &client.redirect_uris {
            let named = said["redirect_uris"]
                .as_array()
                .is_some_and(|all| all.iter().any(|said| said == uri.as_str()));
            assert!(named, "{uri:?} was not sent");
            assert!(RedirectUri::register(uri.as_str(), &policy()).is_ok(), "{uri:?}");
        }
        let text = client.to_json();
        let stored = ClientMetadata::from_stored_json(&text).expect("stored, and not readable");
        assert_eq!(stored.identity(), client.identity());
        assert_eq!(stored, client);
        assert_eq!(stored.to_json(), text);
    }
    if let Some(said) = &said {
        let name = said.get("client_name").and_then(Value::as_str);
        if let Some(shown) = DisplayName::of(name).text {
            assert!(shown.chars().count() <= 64 && !shown.contains(['<', '>', '"', '/', ':', '@']));
            assert!(!shown.chars().any(char::is_control));
        }
        if let Ok(keys) = KeySet::parse(said) {
            let all = said["keys"].as_array().expect("a set without keys");
            assert!(all.len() <= 16);
            let private = ["d", "p", "q", "dp", "dq", "qi", "k"];
            assert!(all.iter().all(|key| private.iter().all(|member| key.get(member).is_none())));
            assert!(!all.is_empty() || keys.is_empty());
        }
    }
}
