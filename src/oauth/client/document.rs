//! Client ID Metadata Documents: the id of a client is the URL of its metadata.
//! draft-ietf-oauth-client-id-metadata-document §4, MCP 2025-11-25, threat CI-04.

use super::members::MetadataMembers;
use super::{AuthMethod, ClientMetadata, RegistrationLimits, RegistrationRefused};
use crate::oauth::error::ensure;
use crate::oauth::redirect_uri::RedirectPolicy;
use crate::oauth::web_url::ClientIdUrl;

/// Largest document that is read, in bytes, as the draft recommends.
pub const MAX_DOCUMENT: usize = 5 * 1024;

/// Why a document is refused. The reason is logged, and shown to the person where it helps.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DocumentRefused {
    /// `client_id` is absent or is not the document's URL.
    #[error("client_id in the document is not, byte for byte, the URL it was fetched from")]
    OtherClient,
    /// `client_name` is absent. MCP requires it.
    #[error("client_name is missing")]
    NoName,
    /// The document contains or asks for a shared secret. Everybody can read the document, so nothing in it
    /// is secret.
    #[error("the document holds or asks for a shared secret")]
    SharedSecret,
    /// Another member is invalid.
    #[error(transparent)]
    Metadata(#[from] RegistrationRefused),
}

impl ClientMetadata {
    /// Parses the document published at `client_id`. The operator's list of redirect URIs is not applied
    /// here but when a URI is used, so that it does not change the client's identity.
    pub fn parse_document(
        body: &[u8],
        client_id: &ClientIdUrl,
        policy: &RedirectPolicy,
        limits: &RegistrationLimits,
    ) -> Result<Self, DocumentRefused> {
        let members = MetadataMembers::parse(body)?;
        let said = members.text("client_id", MAX_DOCUMENT)?;
        ensure(said == Some(client_id.url().as_str()), DocumentRefused::OtherClient)?;
        let secret = members.has("client_secret") || members.has("client_secret_expires_at");
        ensure(!secret, DocumentRefused::SharedSecret)?;
        let auth_method = members.auth_method()?.unwrap_or(AuthMethod::None);
        ensure(!auth_method.needs_secret(), DocumentRefused::SharedSecret)?;
        ensure(members.name()?.is_some(), DocumentRefused::NoName)?;
        let redirect_uris = members.redirect_uris(&policy.without_list(), *limits, true)?;
        Ok(Self::read(&members, redirect_uris, auth_method)?)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::oauth::client::keys::KeysRefused;
    use crate::oauth::redirect_uri::RedirectUriRefused;

    const ID: &str = "https://claude.ai/oauth/mcp-oauth-client-metadata";
    const CALLBACK: &str = "https://claude.ai/api/mcp/auth_callback";

    fn parse(text: &str, allowed: Option<Vec<String>>) -> Result<ClientMetadata, DocumentRefused> {
        let policy = RedirectPolicy { private_schemes: vec!["vscode".to_owned()], allowed };
        let limits = RegistrationLimits { redirect_uris: 16 };
        let id = ClientIdUrl::parse(ID).unwrap();
        ClientMetadata::parse_document(text.as_bytes(), &id, &policy, &limits)
    }

    fn with(change: &Value) -> Result<ClientMetadata, DocumentRefused> {
        let mut document =
            json!({ "client_id": ID, "client_name": "Claude", "redirect_uris": [CALLBACK] });
        for (name, value) in change.as_object().unwrap() {
            document[name] = value.clone();
        }
        parse(&document.to_string(), None)
    }

    #[test]
    fn cimd_11_a_document_needs_an_id_a_name_and_an_address_and_is_public_unless_it_signs() {
        let client = with(&json!({})).unwrap();
        assert_eq!(client.token_endpoint_auth_method, AuthMethod::None);
        assert_eq!(client.client_name.as_deref(), Some("Claude"));

        // CIMD-12: unknown grants and members, localized names.
        let client = with(&json!({
            "grant_types": ["authorization_code", "refresh_token", "urn:ietf:params:oauth:grant-type:jwt-bearer",
                            "urn:ietf:params:oauth:grant-type:device_code"],
            "response_types": ["code", "none"],
            "client_name#ja": "クロード", "x": { "y": 1 }, "software_statement": "a.b.c",
        }))
        .unwrap();
        assert_eq!(client.grant_types, ["authorization_code", "refresh_token"]);
    }

    #[test]
    fn ci_04_the_table_of_documents() {
        let private =
            json!({ "keys": [{ "kty": "EC", "crv": "P-256", "x": "AA", "y": "AA", "d": "AA" }] });
        let no_name = json!({ "client_id": ID, "redirect_uris": [CALLBACK] });
        let no_address = json!({ "client_id": ID, "client_name": "Claude" });
        let no_id = json!({ "client_name": "Claude", "redirect_uris": [CALLBACK] });
        for (document, expected) in [
            (no_name, DocumentRefused::NoName),
            (no_address, RegistrationRefused::NoRedirectUri.into()),
            (no_id, DocumentRefused::OtherClient),
        ] {
            assert_eq!(parse(&document.to_string(), None), Err(expected), "{document}");
        }
        for (change, expected) in [
            // CIMD-04: byte for byte.
            (json!({ "client_id": format!("{ID}/") }), DocumentRefused::OtherClient),
            (json!({ "client_id": ID.to_uppercase() }), DocumentRefused::OtherClient),
            (
                json!({ "client_id": "https://claude.ai:443/oauth/mcp-oauth-client-metadata" }),
                DocumentRefused::OtherClient,
            ),
            (json!({ "client_id": "https://evil.example/client" }), DocumentRefused::OtherClient),
            (json!({ "client_id": 7 }), RegistrationRefused::Malformed("client_id").into()),
            (json!({ "client_name": "  " }), DocumentRefused::NoName),
            (json!({ "client_name": 7 }), RegistrationRefused::Malformed("client_name").into()),
            (json!({ "client_name": null }), DocumentRefused::NoName),
            // CIMD-09: no shared secrets.
            (json!({ "client_secret": "x" }), DocumentRefused::SharedSecret),
            (json!({ "client_secret_expires_at": 0 }), DocumentRefused::SharedSecret),
            (
                json!({ "token_endpoint_auth_method": "client_secret_basic" }),
                DocumentRefused::SharedSecret,
            ),
            (
                json!({ "token_endpoint_auth_method": "client_secret_post" }),
                DocumentRefused::SharedSecret,
            ),
            (
                json!({ "token_endpoint_auth_method": "client_secret_jwt" }),
                RegistrationRefused::AuthMethod.into(),
            ),
            (
                json!({ "token_endpoint_auth_method": "private_key_jwt" }),
                RegistrationRefused::NoKeys.into(),
            ),
            (json!({ "jwks": private }), RegistrationRefused::Keys(KeysRefused::NotPublic).into()),
            (
                json!({ "jwks": { "keys": [{ "kty": "oct", "k": "AA" }] } }),
                RegistrationRefused::Keys(KeysRefused::NotPublic).into(),
            ),
            (json!({ "redirect_uris": [] }), RegistrationRefused::NoRedirectUri.into()),
            (
                json!({ "redirect_uris": [CALLBACK, 7] }),
                RegistrationRefused::Malformed("redirect_uris").into(),
            ),
            (
                json!({ "redirect_uris": [CALLBACK, "javascript:alert(1)"] }),
                RegistrationRefused::RedirectUri(RedirectUriRefused::Scheme).into(),
            ),
            (
                json!({ "redirect_uris": ["http://evil.example/cb"] }),
                RegistrationRefused::RedirectUri(RedirectUriRefused::PlainHttp).into(),
            ),
            (
                json!({ "redirect_uris": vec![CALLBACK; 17] }),
                RegistrationRefused::TooManyRedirectUris { found: 17, most: 16 }.into(),
            ),
            (
                json!({ "grant_types": ["client_credentials"] }),
                RegistrationRefused::NothingOffered("grant_types").into(),
            ),
        ] {
            assert_eq!(with(&change), Err(expected), "{change}");
        }
        let twice = format!(
            r#"{{"client_id":"{ID}","client_name":"a","redirect_uris":["{CALLBACK}"],"redirect_uris":["https://evil.example/cb"]}}"#
        );
        for text in [twice.as_str(), "[]", "", "{", "\"x\"", "<html>", "null"] {
            assert_eq!(parse(text, None), Err(RegistrationRefused::NotJson.into()), "{text}");
        }
    }

    /// The operator's list is applied when a URI is used, so the parsed document does not depend on it.
    #[test]
    fn the_administrators_list_changes_nothing_about_a_document() {
        let both = json!({
            "client_id": ID, "client_name": "Claude",
            "redirect_uris": [CALLBACK, "https://claude.com/api/mcp/auth_callback"],
        })
        .to_string();

        let whole = parse(&both, None).unwrap();
        for list in [CALLBACK, "https://other.example/cb"] {
            assert_eq!(parse(&both, Some(vec![list.to_owned()])).unwrap(), whole);
        }
    }

    #[test]
    fn an_address_of_an_app_that_is_not_allowed_is_left_out_of_a_document() {
        let link = "vscode://vscode.git/clone?url=x";
        let one = with(&json!({ "redirect_uris": [link, CALLBACK, "unknown:cb"] })).unwrap();
        assert_eq!(one.redirect_uris.len(), 1);
        assert_eq!(
            with(&json!({ "redirect_uris": [link] })),
            Err(RegistrationRefused::from(RedirectUriRefused::UnknownCallback(link.to_owned()))
                .into())
        );
    }

    #[test]
    fn a_name_is_needed_but_no_picture_or_link_is_taken_that_is_not_https() {
        let client =
            with(&json!({ "logo_uri": "http://x.example/a.png", "client_uri": "javascript:1" }));
        let client = client.unwrap();
        assert_eq!((client.logo_uri, client.client_uri), (None, None));
    }
}
