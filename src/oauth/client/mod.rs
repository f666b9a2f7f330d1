//! Clients and what they register: RFC 7591.

use aws_lc_rs::digest;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use url::Url;

use super::client_name::DisplayName;
use super::error::{ErrorCode, Refusal, ensure};
use super::redirect_uri::{RedirectPolicy, RedirectUri, RedirectUriRefused};
use super::scope::ScopeSet;
use super::secret::{ClientSecret, SecretHash};
use crate::clock::Timestamp;

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
}

impl AuthMethod {
    /// As in metadata (RFC 7591 §2).
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::ClientSecretBasic => "client_secret_basic",
            Self::ClientSecretPost => "client_secret_post",
        }
    }

    /// Whether the client gets a secret.
    pub fn needs_secret(self) -> bool {
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

/// Why a registration was turned down: which member, and what is wrong with it. Never repeats input.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RegistrationRefused {
    /// Not JSON, or not an object.
    #[error("the body must be a JSON object sent as application/json")]
    NotJson,
    /// A member has the wrong type or is repeated.
    #[error("{0} is repeated or has the wrong type")]
    Malformed(&'static str),
    /// Too many members, or nested too deeply.
    #[error("the registration has too many members or is nested too deeply")]
    TooLarge,
    /// A text or list is too long.
    #[error("{0} is too long")]
    TooLong(&'static str),
    /// No redirect URI.
    #[error("redirect_uris must hold at least one URI")]
    NoRedirectUri,
    /// More than [`RegistrationLimits::redirect_uris`].
    #[error("redirect_uris holds too many URIs")]
    TooManyRedirectUris,
    /// A redirect URI breaks a rule.
    #[error("{0}")]
    RedirectUri(#[from] RedirectUriRefused),
    /// Not `none`, `client_secret_basic` or `client_secret_post`.
    #[error("token_endpoint_auth_method must be none, client_secret_basic or client_secret_post")]
    AuthMethod,
    /// Nothing usable is left.
    #[error("{0} holds nothing that this server offers")]
    NothingOffered(&'static str),
    /// Neither `web` nor `native`.
    #[error("application_type must be web or native")]
    ApplicationType,
    /// RFC 7591 §2: not both.
    #[error("jwks and jwks_uri must not both be present")]
    TwoKeySets,
    /// The scope is malformed.
    #[error("scope is malformed")]
    Scope,
}

impl Refusal for RegistrationRefused {
    fn code(&self) -> ErrorCode {
        match self {
            Self::NoRedirectUri | Self::TooManyRedirectUris | Self::RedirectUri(_) => {
                ErrorCode::InvalidRedirectUri
            }
            Self::NotJson
            | Self::Malformed(_)
            | Self::TooLarge
            | Self::TooLong(_)
            | Self::AuthMethod
            | Self::NothingOffered(_)
            | Self::ApplicationType
            | Self::TwoKeySets
            | Self::Scope => ErrorCode::InvalidClientMetadata,
        }
    }
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
        ensure(!(members.has("jwks") && members.has("jwks_uri")), RegistrationRefused::TwoKeySets)?;
        let redirect_uris = members.texts("redirect_uris")?.unwrap_or_default();
        ensure(!redirect_uris.is_empty(), RegistrationRefused::NoRedirectUri)?;
        ensure(
            redirect_uris.len() <= limits.redirect_uris,
            RegistrationRefused::TooManyRedirectUris,
        )?;
        let redirect_uris = redirect_uris
            .iter()
            .map(|uri| RedirectUri::register(uri, policy))
            .collect::<Result<Vec<_>, _>>()?;
        let application_type = match members.text("application_type", MAX_TEXT)? {
            None => None,
            Some("web") => Some(ApplicationType::Web),
            Some("native") => Some(ApplicationType::Native),
            Some(_) => return Err(RegistrationRefused::ApplicationType),
        };
        let on_device = application_type == Some(ApplicationType::Native)
            || redirect_uris.iter().all(RedirectUri::is_native);
        let auth_method = match members.text("token_endpoint_auth_method", MAX_TEXT)? {
            None if on_device => AuthMethod::None,
            Some("none") => AuthMethod::None,
            None | Some("client_secret_basic") => AuthMethod::ClientSecretBasic,
            Some("client_secret_post") => AuthMethod::ClientSecretPost,
            Some(_) => return Err(RegistrationRefused::AuthMethod),
        };
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
            application_type,
            client_uri: members.web_uri("client_uri")?,
            logo_uri: members.web_uri("logo_uri")?,
            policy_uri: members.web_uri("policy_uri")?,
            tos_uri: members.web_uri("tos_uri")?,
            contacts: contacts.into_iter().map(str::to_owned).collect(),
            software_id: members.text("software_id", MAX_TEXT)?.map(str::to_owned),
            software_version: members.text("software_version", MAX_TEXT)?.map(str::to_owned),
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

    /// A hash of everything registered, order included: the same metadata is the same public client.
    pub fn identity(&self) -> String {
        URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, self.to_json().as_bytes()))
    }

    /// Whether the code flow was registered (it always is; nothing else is offered).
    pub fn may_use_authorization_code(&self) -> bool {
        self.grant_types.iter().any(|grant| grant == "authorization_code")
    }
}

/// A registered client.
#[derive(Clone, Debug)]
pub struct Client {
    /// `client_id`.
    pub id: String,
    /// What it registered.
    pub metadata: ClientMetadata,
    /// Hash of its secret, when it has one.
    pub secret_hash: Option<String>,
    /// When it was registered.
    pub issued_at: Timestamp,
}

impl Client {
    /// What it calls itself, fit to be shown.
    pub fn display_name(&self) -> DisplayName {
        DisplayName::of(self.metadata.client_name.as_deref())
    }

    /// Whether `presented` is its secret, in constant time.
    pub fn secret_is(&self, presented: &str) -> bool {
        self.secret_hash
            .as_deref()
            .is_some_and(|hash| SecretHash::<ClientSecret>::of(presented).is(hash))
    }

    /// The answer to its registration (RFC 7591 §3.2.1): everything as stored, nothing empty, no
    /// `null`; a secret and its expiry, or neither.
    pub fn registration_response(&self, secret: Option<&str>) -> Value {
        let mut answer = serde_json::to_value(&self.metadata).unwrap_or_default();
        answer["client_id"] = json!(self.id);
        answer["client_id_issued_at"] = json!(self.issued_at.unix());
        if let Some(secret) = secret {
            answer["client_secret"] = json!(secret);
            answer["client_secret_expires_at"] = json!(0);
        }
        answer
    }
}

/// The members of a registration, of which none is named twice.
struct Members(serde_json::Map<String, Value>);

impl Members {
    fn parse(body: &[u8]) -> Result<Self, RegistrationRefused> {
        let members: UniqueMembers =
            serde_json::from_slice(body).map_err(|_| RegistrationRefused::NotJson)?;
        ensure(members.0.len() <= MAX_MEMBERS, RegistrationRefused::TooLarge)?;
        ensure(
            members.0.values().all(|value| depth(value) < MAX_DEPTH),
            RegistrationRefused::TooLarge,
        )?;
        Ok(Self(members.0))
    }

    fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name).filter(|value| !value.is_null())
    }

    fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    fn text(
        &self,
        name: &'static str,
        longest: usize,
    ) -> Result<Option<&str>, RegistrationRefused> {
        let Some(value) = self.get(name) else {
            return Ok(None);
        };
        let text = value.as_str().ok_or(RegistrationRefused::Malformed(name))?;
        ensure(text.len() <= longest, RegistrationRefused::TooLong(name))?;
        Ok(Some(text).filter(|text| !text.trim().is_empty()))
    }

    fn texts(&self, name: &'static str) -> Result<Option<Vec<&str>>, RegistrationRefused> {
        let Some(value) = self.get(name) else {
            return Ok(None);
        };
        let list = value.as_array().ok_or(RegistrationRefused::Malformed(name))?;
        list.iter()
            .map(|item| item.as_str().ok_or(RegistrationRefused::Malformed(name)))
            .collect::<Result<Vec<_>, _>>()
            .map(Some)
    }

    fn name(&self) -> Result<Option<String>, RegistrationRefused> {
        let name = self.text("client_name", MAX_NAME * 4)?;
        let fits = name.is_none_or(|name| name.chars().count() <= MAX_NAME);
        ensure(fits, RegistrationRefused::TooLong("client_name"))?;
        Ok(name.map(str::to_owned))
    }

    /// The offered ones of a list; left out, the default; none of them, a refusal.
    fn offered(
        &self,
        name: &'static str,
        offered: &[&str],
        required: &str,
    ) -> Result<Vec<String>, RegistrationRefused> {
        let Some(asked) = self.texts(name)? else {
            return Ok(vec![required.to_owned()]);
        };
        if asked.is_empty() {
            return Ok(vec![required.to_owned()]);
        }
        ensure(asked.contains(&required), RegistrationRefused::NothingOffered(name))?;
        let kept = offered.iter().filter(|known| asked.contains(known));
        Ok(kept.map(|known| (*known).to_owned()).collect())
    }

    /// An https URI; anything else is dropped (checklist REG-23).
    fn web_uri(&self, name: &'static str) -> Result<Option<String>, RegistrationRefused> {
        let uri = self.text(name, MAX_TEXT)?;
        let is_web = |uri: &&str| Url::parse(uri).is_ok_and(|url| url.scheme() == "https");
        Ok(uri.filter(is_web).map(str::to_owned))
    }
}

fn depth(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Object(members) => 1 + members.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

/// An object that names no member twice: the last of two would win, silently.
struct UniqueMembers(serde_json::Map<String, Value>);

impl<'de> Deserialize<'de> for UniqueMembers {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = UniqueMembers;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: serde::de::MapAccess<'de>>(
                self,
                mut access: A,
            ) -> Result<UniqueMembers, A::Error> {
                let mut members = serde_json::Map::new();
                while let Some((name, value)) = access.next_entry::<String, Value>()? {
                    if members.insert(name, value).is_some() {
                        return Err(serde::de::Error::custom("a member is repeated"));
                    }
                }
                Ok(UniqueMembers(members))
            }
        }
        deserializer.deserialize_map(Visitor)
    }
}

#[cfg(test)]
mod tests;
