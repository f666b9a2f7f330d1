//! Clients and their metadata, registered or published: RFC 7591, Client ID Metadata Documents.

pub mod assertion;
mod digest;
pub mod document;
pub mod keys;
mod members;
mod refused;
pub mod website;

use std::time::Duration;

use aws_lc_rs::digest as hash;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use self::members::MetadataMembers;
use super::client_name::DisplayName;
use super::error::ensure;
use super::redirect_uri::{RedirectPolicy, RedirectUri};
use super::scope::ScopeSet;
use super::secret::{ClientSecret, SecretHash};
use super::web_url::WebUrl;
use crate::clock::Timestamp;

pub use self::refused::{ManagementRefused, RegistrationRefused};

/// Longest stored `client_name`, in characters.
const MAX_NAME: usize = 128;
/// Longest other text or URI, in bytes.
const MAX_TEXT: usize = 1024;
/// Most `contacts`, and the longest of them in bytes.
const MAX_CONTACTS: (usize, usize) = (5, 254);
/// Most members of a registration.
const MAX_MEMBERS: usize = 64;
/// Arrays and objects in a member must nest less deeply than this.
const MAX_DEPTH: usize = 8;

/// How a client authenticates at the token endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AuthMethod {
    /// Not at all: a public client.
    None,
    /// A secret in the Authorization header.
    ClientSecretBasic,
    /// A secret in the body.
    ClientSecretPost,
    /// An assertion signed with its own key (RFC 7523).
    PrivateKeyJwt,
}

impl AuthMethod {
    /// Returns the name as in metadata (RFC 7591 §2).
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::ClientSecretBasic => "client_secret_basic",
            Self::ClientSecretPost => "client_secret_post",
            Self::PrivateKeyJwt => "private_key_jwt",
        }
    }

    /// Returns whether the client gets a secret.
    pub fn needs_secret(self) -> bool {
        matches!(self, Self::ClientSecretBasic | Self::ClientSecretPost)
    }

    /// Returns whether the client can authenticate. Such a client never shares its registration with others.
    pub fn is_confidential(self) -> bool {
        self != Self::None
    }
}

/// OIDC Registration §2. Stored and returned, but without effect, because existing clients send the wrong
/// value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ApplicationType {
    Web,
    /// A program on the person's device.
    Native,
}

/// Configurable limits of a registration.
#[derive(Clone, Copy, Debug)]
pub struct RegistrationLimits {
    /// Most redirect URIs.
    pub redirect_uris: usize,
}

/// The checked metadata of a client. [`Self::identity`] hashes the members in this order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientMetadata {
    pub redirect_uris: Vec<RedirectUri>,
    /// The name it gives itself. Unverified, so it is displayed only as a [`DisplayName`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_name: Option<String>,
    pub token_endpoint_auth_method: AuthMethod,
    /// `authorization_code`, and `refresh_token` if requested.
    pub grant_types: Vec<String>,
    /// Always `code`.
    pub response_types: Vec<String>,
    /// The scope it registered. Without effect: requests may ask for others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<String>,
    /// `web` or `native`, as sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub application_type: Option<ApplicationType>,
    /// Its home page. Never shown as a link, never fetched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_uri: Option<String>,
    /// Never shown, never fetched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub logo_uri: Option<String>,
    /// Never shown as a link, never fetched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy_uri: Option<String>,
    /// Never shown as a link, never fetched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tos_uri: Option<String>,
    /// As sent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub contacts: Vec<String>,
    /// As sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub software_id: Option<String>,
    /// As sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub software_version: Option<String>,
    /// The public keys of a client that signs, as sent. Contains no private member.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jwks: Option<Value>,
    /// The URL of the keys of such a client. Only the guarded HTTP client fetches it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jwks_uri: Option<WebUrl>,
}

impl ClientMetadata {
    /// Parses a registration. Unknown members are ignored, and `null` and `""` count as absent. Unsupported
    /// grant and response types are dropped as long as a usable one is left.
    ///
    /// By RFC 7591 §2 an absent `token_endpoint_auth_method` means `client_secret_basic`. But existing
    /// clients on the person's own device omit it and then send no secret. A program that only listens on
    /// loopback or a private scheme cannot keep a secret anyway, so it is registered as `none`.
    pub fn parse(
        body: &[u8],
        policy: &RedirectPolicy,
        limits: &RegistrationLimits,
    ) -> Result<Self, RegistrationRefused> {
        let members = MetadataMembers::parse(body)?;
        let redirect_uris = members.redirect_uris(policy, *limits, false)?;
        let on_device = members.application_type()? == Some(ApplicationType::Native)
            || redirect_uris.iter().all(RedirectUri::is_native);
        let auth_method = members.auth_method()?.unwrap_or(if on_device {
            AuthMethod::None
        } else {
            AuthMethod::ClientSecretBasic
        });
        Self::read(&members, redirect_uris, auth_method)
    }

    fn read(
        members: &MetadataMembers,
        redirect_uris: Vec<RedirectUri>,
        auth_method: AuthMethod,
    ) -> Result<Self, RegistrationRefused> {
        let (jwks, jwks_uri) = members.keys(auth_method)?;
        let scope = members.text("scope", super::scope::MAX_SCOPE_PARAMETER)?;
        if let Some(scope) = scope {
            ScopeSet::parse(scope).map_err(|_| RegistrationRefused::Scope)?;
        }
        let contacts = members.texts("contacts")?.unwrap_or_default();
        ensure(
            contacts.len() <= MAX_CONTACTS.0
                && contacts.iter().all(|contact| contact.len() <= MAX_CONTACTS.1),
            RegistrationRefused::TooLong("contacts"),
        )?;
        Ok(Self {
            redirect_uris,
            client_name: members.name()?,
            token_endpoint_auth_method: auth_method,
            grant_types: members.offered(
                "grant_types",
                &["authorization_code", "refresh_token"],
                "authorization_code",
            )?,
            response_types: members.offered("response_types", &["code"], "code")?,
            scope: scope.map(str::to_owned),
            application_type: members.application_type()?,
            client_uri: members.web_uri("client_uri")?,
            logo_uri: members.web_uri("logo_uri")?,
            policy_uri: members.web_uri("policy_uri")?,
            tos_uri: members.web_uri("tos_uri")?,
            contacts: contacts.into_iter().map(str::to_owned).collect(),
            software_id: members.text("software_id", MAX_TEXT)?.map(str::to_owned),
            software_version: members.text("software_version", MAX_TEXT)?.map(str::to_owned),
            jwks,
            jwks_uri,
        })
    }

    /// Serializes the metadata for storage.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Parses metadata from [`Self::to_json`].
    pub fn from_stored_json(text: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(text)
    }

    /// Returns a hash of all the metadata, including their order: equal metadata mean the same public
    /// client. The ports of loopback redirect URIs do not count, because a program listens on another port
    /// each time it runs (RFC 8252 §7.3).
    pub fn identity(&self) -> String {
        let redirect_uris =
            self.redirect_uris.iter().map(RedirectUri::without_loopback_port).collect();
        let compared = Self { redirect_uris, ..self.clone() };
        URL_SAFE_NO_PAD.encode(hash::digest(&hash::SHA256, compared.to_json().as_bytes()))
    }

    /// Returns whether the code flow was registered. Always true, because nothing else is offered.
    pub fn may_use_authorization_code(&self) -> bool {
        self.grant_types.iter().any(|grant| grant == "authorization_code")
    }
}

/// The source of a client's metadata.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Dynamic registration (RFC 7591).
    Registered,
    /// Created by an administrator.
    Created,
    Configured {
        /// Whether the administrator vouches for it.
        trusted: bool,
    },
    /// A metadata document at the URL that is the client's id (Client ID Metadata Document).
    Document {
        /// The publisher: the host of that URL.
        host: String,
        /// When the document was last read there.
        seen_at: Timestamp,
        /// The current state of the document.
        state: DocumentState,
    },
}

/// The current state of a metadata document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DocumentState {
    /// It was read and is fresh.
    Current,
    /// It cannot be read now. The metadata are the last good copy.
    Unconfirmed,
    /// It is gone or has become invalid. The metadata are the last good copy.
    Withdrawn,
}

/// 24 hours: a copy that cannot be confirmed is valid for this long.
const LONGEST_UNCONFIRMED: Duration = Duration::from_hours(24);

/// Whether a client may be used, as far as its document is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Currency {
    /// The client may start logins and authenticate.
    Good,
    /// The document could not be read for too long. It may become readable later.
    Stale,
    Gone,
}

/// A client from any source.
#[derive(Clone, Debug)]
pub struct Client {
    pub id: String,
    /// The source of the metadata.
    pub origin: Origin,
    /// The registered or published metadata.
    pub metadata: ClientMetadata,
    /// Hash of its secret, if it has one.
    pub secret_hash: Option<String>,
    /// When it was registered or first seen.
    pub issued_at: Timestamp,
}

impl Client {
    /// Returns the client's own name, safe to display.
    pub fn display_name(&self) -> DisplayName {
        DisplayName::of(self.metadata.client_name.as_deref())
    }

    /// Returns the policy that its redirect URIs must satisfy. `None` for a configured client, whose
    /// redirect URIs the administrator chose.
    pub fn held_to<'a>(&self, policy: &'a RedirectPolicy) -> Option<&'a RedirectPolicy> {
        match self.origin {
            Origin::Configured { .. } => None,
            Origin::Registered | Origin::Created | Origin::Document { .. } => Some(policy),
        }
    }

    /// Returns whether the document is recent enough to start something new. A live grant continues whatever
    /// happens to the document.
    pub fn currency(&self, now: Timestamp) -> Currency {
        match &self.origin {
            Origin::Registered | Origin::Created | Origin::Configured { .. } => Currency::Good,
            Origin::Document { seen_at, state, .. } => match state {
                DocumentState::Current => Currency::Good,
                DocumentState::Withdrawn => Currency::Gone,
                DocumentState::Unconfirmed => {
                    if now.since(*seen_at) < LONGEST_UNCONFIRMED {
                        Currency::Good
                    } else {
                        Currency::Stale
                    }
                }
            },
        }
    }

    /// Returns the host that publishes the client's metadata document, if it has one.
    pub fn publisher(&self) -> Option<&str> {
        match &self.origin {
            Origin::Document { host, .. } => Some(host),
            Origin::Registered | Origin::Created | Origin::Configured { .. } => None,
        }
    }

    /// Returns whether `presented` is the client's secret, in constant time.
    pub fn secret_is(&self, presented: &str) -> bool {
        self.secret_hash
            .as_deref()
            .is_some_and(|hash| SecretHash::<ClientSecret>::of(presented).is(hash))
    }

    /// Parses a replacement of its registration (RFC 7592 §2.2). It must contain the client's own id, and
    /// may contain its current secret. It cannot change these, nor switch between secret, key and no
    /// authentication.
    pub fn replacement(
        &self,
        body: &[u8],
        policy: &RedirectPolicy,
        limits: &RegistrationLimits,
    ) -> Result<ClientMetadata, RegistrationRefused> {
        let members = MetadataMembers::parse(body)?;
        let named = members.text("client_id", MAX_TEXT)? == Some(&self.id);
        let secret = members.text("client_secret", MAX_TEXT)?;
        ensure(
            named && secret.is_none_or(|secret| self.secret_is(secret)),
            RegistrationRefused::OtherClient,
        )?;
        let metadata = ClientMetadata::parse(body, policy, limits)?;
        let (new, old) =
            (metadata.token_endpoint_auth_method, self.metadata.token_endpoint_auth_method);
        let same_proof = new.needs_secret() == old.needs_secret()
            && new.is_confidential() == old.is_confidential();
        ensure(same_proof, RegistrationRefused::OtherProof)?;
        Ok(metadata)
    }

    /// Returns the response to its registration (RFC 7591 §3.2.1): the stored metadata without empty members
    /// or `null`, and a secret with its expiry if there is one. `every_scope` lists the scopes it may
    /// request.
    pub fn registration_response(&self, secret: Option<&str>, every_scope: &str) -> Value {
        let mut answer = serde_json::to_value(&self.metadata).unwrap_or_default();
        // The response states what the client gets, not what it asked for (RFC 7591 §3.2.1): refresh tokens
        // come with every grant, and the registered scope has no effect.
        answer["grant_types"] = json!(["authorization_code", "refresh_token"]);
        if self.metadata.scope.is_some() {
            answer["scope"] = json!(every_scope);
        }
        answer["client_id"] = json!(self.id);
        answer["client_id_issued_at"] = json!(self.issued_at.unix());
        if let Some(secret) = secret {
            answer["client_secret"] = json!(secret);
            answer["client_secret_expires_at"] = json!(0);
        }
        answer
    }
}

#[cfg(test)]
mod tests;
