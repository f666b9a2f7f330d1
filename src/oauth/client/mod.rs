//! Clients and what they register or publish: RFC 7591, Client ID Metadata Documents.

pub mod assertion;
mod digest;
pub mod document;
pub mod keys;
mod members;
mod refused;

use std::time::Duration;

use aws_lc_rs::digest as hash;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use self::members::Members;
use super::client_name::DisplayName;
use super::error::ensure;
use super::redirect_uri::{RedirectPolicy, RedirectUri};
use super::scope::ScopeSet;
use super::secret::{ClientSecret, SecretHash};
use super::web_url::WebUrl;
use crate::clock::Timestamp;

pub use self::refused::{ManagementRefused, RegistrationRefused};

/// Longest `client_name` stored, in characters.
const MAX_NAME: usize = 128;
/// Longest other text or URI, in bytes.
const MAX_TEXT: usize = 1024;
/// Most `contacts`, and the longest of them in bytes.
const MAX_CONTACTS: (usize, usize) = (5, 254);
/// Most members of a registration, and how deep they may nest.
const MAX_MEMBERS: usize = 64;
const MAX_DEPTH: usize = 8;

/// How a client proves itself at the token endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AuthMethod {
    /// It cannot: a public client.
    None,
    /// Secret in the Authorization header.
    ClientSecretBasic,
    /// Secret in the body.
    ClientSecretPost,
    /// A signature by its own key (RFC 7523).
    PrivateKeyJwt,
}

impl AuthMethod {
    /// As in metadata (RFC 7591 §2).
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::ClientSecretBasic => "client_secret_basic",
            Self::ClientSecretPost => "client_secret_post",
            Self::PrivateKeyJwt => "private_key_jwt",
        }
    }

    /// Whether the client gets a secret.
    pub fn needs_secret(self) -> bool {
        matches!(self, Self::ClientSecretBasic | Self::ClientSecretPost)
    }

    /// Whether the client can prove itself: then it is no other's, and shares its id with none.
    pub fn is_confidential(self) -> bool {
        self != Self::None
    }
}

/// OIDC Registration §2. Stored and echoed; it changes no rule, because shipped clients get it wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ApplicationType {
    /// A website.
    Web,
    /// A program on the person's device.
    Native,
}

/// Bounds of a registration that the operator may change.
#[derive(Clone, Copy, Debug)]
pub struct RegistrationLimits {
    /// Most redirect URIs.
    pub redirect_uris: usize,
}

/// What a client registered, checked. The order of members is the order they are hashed in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientMetadata {
    /// Where answers may go.
    pub redirect_uris: Vec<RedirectUri>,
    /// What it calls itself: a claim, shown only as [`DisplayName`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_name: Option<String>,
    /// How it proves itself.
    pub token_endpoint_auth_method: AuthMethod,
    /// `authorization_code`, and `refresh_token` where asked.
    pub grant_types: Vec<String>,
    /// `code`.
    pub response_types: Vec<String>,
    /// The scope it asked for. It binds nothing: later requests may ask for others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<String>,
    /// `web` or `native`, as sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub application_type: Option<ApplicationType>,
    /// Its home page: never shown as a link, never fetched.
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
    /// The public keys of a client that signs, as sent; no private member is among them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jwks: Option<Value>,
    /// Where such a client publishes its keys; fetched by the guarded client alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jwks_uri: Option<WebUrl>,
}

impl ClientMetadata {
    /// Reads a registration. Unknown members are ignored, `null` and `""` count as left out,
    /// unsupported grant and response types are dropped as long as a usable one is left.
    ///
    /// RFC 7591 §2 makes `client_secret_basic` of a missing `token_endpoint_auth_method`. Shipped
    /// clients on the person's own device leave it out and then send no secret; a program that only
    /// listens on loopback or a private scheme cannot keep one anyway, and is registered as `none`.
    pub fn parse(
        body: &[u8],
        policy: &RedirectPolicy,
        limits: &RegistrationLimits,
    ) -> Result<Self, RegistrationRefused> {
        let members = Members::parse(body)?;
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
        members: &Members,
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

    /// As it is stored.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Reads what [`Self::to_json`] wrote.
    pub fn from_stored_json(text: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(text)
    }

    /// A hash of everything registered, order included: the same metadata is the same public client. The ports of
    /// loopback redirect URIs do not count: a program listens on another one each time it runs (RFC 8252 §7.3).
    pub fn identity(&self) -> String {
        let redirect_uris =
            self.redirect_uris.iter().map(RedirectUri::without_loopback_port).collect();
        let compared = Self { redirect_uris, ..self.clone() };
        URL_SAFE_NO_PAD.encode(hash::digest(&hash::SHA256, compared.to_json().as_bytes()))
    }

    /// Whether the code flow was registered (it always is; nothing else is offered).
    pub fn may_use_authorization_code(&self) -> bool {
        self.grant_types.iter().any(|grant| grant == "authorization_code")
    }
}

/// Where what we know of a client comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// It registered itself (RFC 7591).
    Registered,
    /// An administrator made it.
    Created,
    /// The administrator wrote it into the configuration.
    Configured {
        /// The administrator vouches for it.
        trusted: bool,
    },
    /// It publishes its metadata at the URL that is its id (Client ID Metadata Document).
    Document {
        /// Who publishes: the host of that URL.
        host: String,
        /// When the document was last seen there.
        seen_at: Timestamp,
        /// What is known of it now.
        state: DocumentState,
    },
}

/// What is known of a published document now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DocumentState {
    /// It was read, and is fresh.
    Current,
    /// It cannot be read now; this is the last good copy.
    Unconfirmed,
    /// It is gone or makes no client any more; this is the last good copy.
    Withdrawn,
}

/// A copy that cannot be confirmed is good for this long.
const LONGEST_UNCONFIRMED: Duration = Duration::from_hours(24);

/// What a client may be trusted with, as far as its document goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Currency {
    /// It may begin something new, and prove itself.
    Good,
    /// Its document could not be read for too long; later it may.
    Stale,
    /// Its document is gone.
    Gone,
}

/// A client, however it came to us.
#[derive(Clone, Debug)]
pub struct Client {
    /// `client_id`.
    pub id: String,
    /// Where what follows comes from.
    pub origin: Origin,
    /// What it registered or publishes.
    pub metadata: ClientMetadata,
    /// Hash of its secret, when it has one.
    pub secret_hash: Option<String>,
    /// When it was registered, or first known.
    pub issued_at: Timestamp,
}

impl Client {
    /// What it calls itself, fit to be shown.
    pub fn display_name(&self) -> DisplayName {
        DisplayName::of(self.metadata.client_name.as_deref())
    }

    /// What its redirect URIs are held to: the policy, except for clients of the configuration, whose
    /// addresses the administrator wrote down beside it.
    pub fn held_to<'a>(&self, policy: &'a RedirectPolicy) -> Option<&'a RedirectPolicy> {
        match self.origin {
            Origin::Configured { .. } => None,
            Origin::Registered | Origin::Created | Origin::Document { .. } => Some(policy),
        }
    }

    /// Whether what we know of it is recent enough to begin something new with it. A grant that lives
    /// goes on whatever becomes of the document.
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

    /// Who publishes it, for a client that is known by its own website.
    pub fn publisher(&self) -> Option<&str> {
        match &self.origin {
            Origin::Document { host, .. } => Some(host),
            Origin::Registered | Origin::Created | Origin::Configured { .. } => None,
        }
    }

    /// Whether `presented` is its secret, in constant time.
    pub fn secret_is(&self, presented: &str) -> bool {
        self.secret_hash
            .as_deref()
            .is_some_and(|hash| SecretHash::<ClientSecret>::of(presented).is(hash))
    }

    /// Reads what is to replace its registration (RFC 7592 §2.2). It names the client and, if it likes,
    /// its secret; it chooses neither, and cannot change how the client proves itself.
    pub fn replacement(
        &self,
        body: &[u8],
        policy: &RedirectPolicy,
        limits: &RegistrationLimits,
    ) -> Result<ClientMetadata, RegistrationRefused> {
        let members = Members::parse(body)?;
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

    /// The answer to its registration (RFC 7591 §3.2.1): everything as stored, nothing empty, no
    /// `null`; a secret and its expiry, or neither. `every_scope` is what it may ask for.
    pub fn registration_response(&self, secret: Option<&str>, every_scope: &str) -> Value {
        let mut answer = serde_json::to_value(&self.metadata).unwrap_or_default();
        // What the client gets, whatever it asked for (RFC 7591 §3.2.1): refresh tokens come with every grant, and
        // the scope that it registered with binds nothing.
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
