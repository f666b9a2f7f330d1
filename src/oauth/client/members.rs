//! The members of a registration or metadata document, each read with its type and limits.

use serde::Deserialize;
use serde_json::Value;
use url::Url;

use super::keys::KeySet;
use super::{
    ApplicationType, AuthMethod, MAX_DEPTH, MAX_MEMBERS, MAX_NAME, MAX_TEXT, RegistrationLimits,
    RegistrationRefused,
};
use crate::oauth::error::ensure;
use crate::oauth::redirect_uri::{RedirectPolicy, RedirectUri, RedirectUriRefused};
use crate::oauth::web_url::WebUrl;

/// The members of a JSON object without repeated names.
pub(super) struct MetadataMembers(serde_json::Map<String, Value>);

impl MetadataMembers {
    pub(super) fn parse(body: &[u8]) -> Result<Self, RegistrationRefused> {
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

    pub(super) fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    pub(super) fn text(
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

    pub(super) fn texts(
        &self,
        name: &'static str,
    ) -> Result<Option<Vec<&str>>, RegistrationRefused> {
        let Some(value) = self.get(name) else {
            return Ok(None);
        };
        let list = value.as_array().ok_or(RegistrationRefused::Malformed(name))?;
        list.iter()
            .map(|item| item.as_str().ok_or(RegistrationRefused::Malformed(name)))
            .collect::<Result<Vec<_>, _>>()
            .map(Some)
    }

    pub(super) fn name(&self) -> Result<Option<String>, RegistrationRefused> {
        let name = self.text("client_name", MAX_NAME * 4)?;
        let fits = name.is_none_or(|name| name.chars().count() <= MAX_NAME);
        ensure(fits, RegistrationRefused::TooLong("client_name"))?;
        Ok(name.map(str::to_owned))
    }

    /// Returns the members of a list that this server offers, or `required` if the list is absent or empty.
    /// Refuses a list without `required`.
    pub(super) fn offered(
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

    /// Returns an https URI; drops anything else (requirement REG-23).
    pub(super) fn web_uri(
        &self,
        name: &'static str,
    ) -> Result<Option<String>, RegistrationRefused> {
        let uri = self.text(name, MAX_TEXT)?;
        let is_web = |uri: &&str| Url::parse(uri).is_ok_and(|url| url.scheme() == "https");
        Ok(uri.filter(is_web).map(str::to_owned))
    }

    pub(super) fn application_type(&self) -> Result<Option<ApplicationType>, RegistrationRefused> {
        match self.text("application_type", MAX_TEXT)? {
            None => Ok(None),
            Some("web") => Ok(Some(ApplicationType::Web)),
            Some("native") => Ok(Some(ApplicationType::Native)),
            Some(_) => Err(RegistrationRefused::ApplicationType),
        }
    }

    pub(super) fn auth_method(&self) -> Result<Option<AuthMethod>, RegistrationRefused> {
        match self.text("token_endpoint_auth_method", MAX_TEXT)? {
            None => Ok(None),
            Some("none") => Ok(Some(AuthMethod::None)),
            Some("client_secret_basic") => Ok(Some(AuthMethod::ClientSecretBasic)),
            Some("client_secret_post") => Ok(Some(AuthMethod::ClientSecretPost)),
            Some("private_key_jwt") => Ok(Some(AuthMethod::PrivateKeyJwt)),
            Some(_) => Err(RegistrationRefused::AuthMethod),
        }
    }

    /// Parses the redirect URIs and checks all of them. `of_document`: URIs that only the app-scheme policy
    /// refuses are dropped as long as others are left, because a published document cannot adapt to this
    /// server.
    pub(super) fn redirect_uris(
        &self,
        policy: &RedirectPolicy,
        limits: RegistrationLimits,
        of_document: bool,
    ) -> Result<Vec<RedirectUri>, RegistrationRefused> {
        let uris = self.texts("redirect_uris")?.unwrap_or_default();
        ensure(!uris.is_empty(), RegistrationRefused::NoRedirectUri)?;
        let (found, most) = (uris.len(), limits.redirect_uris);
        ensure(found <= most, RegistrationRefused::TooManyRedirectUris { found, most })?;
        let mut registered = Vec::new();
        let mut left_out = None;
        for uri in uris {
            match RedirectUri::register(uri, policy) {
                Ok(uri) => registered.push(uri),
                Err(
                    refused @ (RedirectUriRefused::SchemeNotListed(_)
                    | RedirectUriRefused::UnknownCallback(_)
                    | RedirectUriRefused::AppQuery(_)),
                ) if of_document => left_out = Some(refused),
                Err(refused) => return Err(refused.into()),
            }
        }
        match left_out {
            Some(refused) if registered.is_empty() => Err(refused.into()),
            _ => Ok(registered),
        }
    }

    /// Returns the keys of a client that signs: exactly one of `jwks` and `jwks_uri`. For other clients the
    /// keys are dropped, but `jwks` is still checked, because publishing a private key is a mistake that
    /// must be reported.
    pub(super) fn keys(
        &self,
        method: AuthMethod,
    ) -> Result<(Option<Value>, Option<WebUrl>), RegistrationRefused> {
        let (jwks, jwks_uri) = (self.get("jwks"), self.text("jwks_uri", MAX_TEXT)?);
        ensure(jwks.is_none() || jwks_uri.is_none(), RegistrationRefused::TwoKeySets)?;
        let keys = jwks.map(KeySet::parse).transpose()?;
        if method != AuthMethod::PrivateKeyJwt {
            return Ok((None, None));
        }
        let usable = jwks_uri.is_some() || keys.is_some_and(|keys| !keys.is_empty());
        ensure(usable, RegistrationRefused::NoKeys)?;
        Ok((jwks.cloned(), jwks_uri.map(WebUrl::parse).transpose()?))
    }
}

fn depth(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Object(members) => 1 + members.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

/// An object without repeated members. Otherwise the last one would silently win.
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
