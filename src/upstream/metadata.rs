//! The provider's metadata (OpenID Connect Discovery §3). Members that we use are checked, and errors name
//! the member; all other members are ignored.

use serde_json::{Map, Value};
use url::Url;

use super::endpoints::{ENDPOINTS, Requester, carriage, hint};
use crate::config::ClientAuth;

/// The metadata members that we use.
#[derive(Clone, Debug)]
pub(super) struct Metadata {
    pub(super) issuer: String,
    pub(super) authorization_endpoint: Url,
    pub(super) token_endpoint: Url,
    pub(super) userinfo_endpoint: Option<Url>,
    pub(super) jwks_uri: Url,
    pub(super) revocation_endpoint: Option<Url>,
    pub(super) scopes_supported: Vec<String>,
    pub(super) token_endpoint_auth_methods_supported: Vec<String>,
    /// The provider sends `iss` at the callback (RFC 9207 §3).
    pub(super) sends_iss: bool,
    pub(super) end_session_endpoint: Option<String>,
    pub(super) ping_end_session_endpoint: Option<String>,
    /// Supported `prompt` values (OpenID Connect Prompt Create §4.2); empty if the provider does not list
    /// them.
    pub(super) prompt_values_supported: Vec<String>,
    /// Harmless deviations from the standard.
    pub(super) tolerated: Vec<String>,
}

/// Members that the standard requires and we do not use. If they are missing, `check` reports it.
const UNREAD: [&str; 3] = [
    "response_types_supported",
    "subject_types_supported",
    "id_token_signing_alg_values_supported",
];

/// A member that cannot be used.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{member} {what}")]
pub(super) struct Odd {
    pub(super) member: &'static str,
    what: &'static str,
    /// How an administrator can fix it, if they can.
    pub(super) hint: Option<&'static str>,
}

fn odd(member: &'static str, what: &'static str) -> Odd {
    Odd { member, what, hint: None }
}

impl Odd {
    /// Returns whether the member names an endpoint that sign-ins need.
    pub(super) fn is_endpoint(&self) -> bool {
        ENDPOINTS.iter().any(|(name, _)| *name == self.member)
    }

    /// Returns the error text followed by the hint.
    pub(super) fn with_hint(&self) -> String {
        let hint = self.hint.map(|hint| format!("; {hint}")).unwrap_or_default();
        format!("{self}{hint}")
    }
}

impl Metadata {
    /// Reads a discovery document. `reads_userinfo` says whether we use the userinfo endpoint; only then is
    /// an unusable URL of it an error.
    pub(super) fn read(
        document: &Map<String, Value>,
        reads_userinfo: bool,
        allow_http: bool,
    ) -> Result<Self, Odd> {
        let mut reader = MetadataReader { document, allow_http, tolerated: Vec::new() };
        let issuer = match reader.member("issuer") {
            Some(Value::String(issuer)) => issuer.clone(),
            Some(_) => return Err(odd("issuer", "is not a text")),
            None => return Err(odd("issuer", "is missing")),
        };
        let authorization_endpoint = reader.required("authorization_endpoint")?;
        let token_endpoint = reader.required("token_endpoint")?;
        let jwks_uri = reader.required("jwks_uri")?;
        let userinfo_endpoint = match reader.optional("userinfo_endpoint") {
            Err(odd) if reads_userinfo => return Err(odd),
            Err(odd) => {
                reader.tolerated.push(odd.to_string());
                None
            }
            Ok(url) => url,
        };
        let revocation_endpoint = reader.lenient("revocation_endpoint");
        let sends_iss = reader.flag("authorization_response_iss_parameter_supported")?;
        let scopes_supported = reader.texts("scopes_supported");
        let methods = reader.texts("token_endpoint_auth_methods_supported");
        let prompt_values_supported = reader.texts("prompt_values_supported");
        let mut address = |name| reader.lenient(name).map(|url| url.to_string());
        let end_session_endpoint = address("end_session_endpoint");
        let ping_end_session_endpoint = address("ping_end_session_endpoint");
        for name in UNREAD {
            if reader.member(name).is_none() {
                reader.tolerated.push(format!("{name} is missing"));
            } else {
                reader.texts(name);
            }
        }
        Ok(Self {
            issuer,
            authorization_endpoint,
            token_endpoint,
            userinfo_endpoint,
            jwks_uri,
            revocation_endpoint,
            scopes_supported,
            token_endpoint_auth_methods_supported: methods,
            sends_iss,
            end_session_endpoint,
            ping_end_session_endpoint,
            prompt_values_supported,
            tolerated: reader.tolerated,
        })
    }

    /// Returns the URL of a member of [`ENDPOINTS`].
    pub(super) fn endpoint(&self, member: &str) -> Option<&Url> {
        match member {
            "authorization_endpoint" => Some(&self.authorization_endpoint),
            "token_endpoint" => Some(&self.token_endpoint),
            "jwks_uri" => Some(&self.jwks_uri),
            "userinfo_endpoint" => self.userinfo_endpoint.as_ref(),
            _ => None,
        }
    }

    /// Returns a client authentication method that the provider lists: Basic if it lists both or none.
    pub(super) fn listed_client_auth(&self) -> ClientAuth {
        let listed = |method: &str| {
            self.token_endpoint_auth_methods_supported.iter().any(|known| known == method)
        };
        if listed("client_secret_post") && !listed("client_secret_basic") {
            ClientAuth::Post
        } else {
            ClientAuth::Basic
        }
    }

    /// Checks `iss` of a callback. It must be present if the provider announces it, and correct if present.
    pub(super) fn check_iss(&self, iss: Option<&str>) -> Result<(), &'static str> {
        match iss {
            Some(iss) if iss == self.issuer => Ok(()),
            Some(_) => Err("iss of the callback is wrong"),
            None if self.sends_iss => Err("iss of the callback is missing"),
            None => Ok(()),
        }
    }
}

struct MetadataReader<'a> {
    document: &'a Map<String, Value>,
    allow_http: bool,
    tolerated: Vec<String>,
}

impl<'a> MetadataReader<'a> {
    /// Returns a member; `null` counts as missing.
    fn member(&self, name: &str) -> Option<&'a Value> {
        self.document.get(name).filter(|value| !value.is_null())
    }

    /// Reads `true` or `false`, also as a text. Fails for other values: the member decides whether a callback
    /// without `iss` is rejected, so its value must be certain.
    fn flag(&mut self, name: &'static str) -> Result<bool, Odd> {
        match self.member(name) {
            None => Ok(false),
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(Value::String(text)) if text == "true" || text == "false" => {
                self.tolerated.push(format!("{name} is a text"));
                Ok(text == "true")
            }
            Some(_) => Err(odd(name, "is neither true nor false")),
        }
    }

    /// Reads a URL that our rules allow; an empty text counts as missing.
    fn optional(&mut self, name: &'static str) -> Result<Option<Url>, Odd> {
        match self.member(name) {
            None => Ok(None),
            Some(Value::String(text)) if text.trim().is_empty() => {
                self.tolerated.push(format!("{name} is empty"));
                Ok(None)
            }
            Some(Value::String(text)) => {
                let url = Url::parse(text).map_err(|_| odd(name, "is not a URL"))?;
                // Browsers open the sign-out endpoints too.
                let known = ENDPOINTS.iter().find(|(known, _)| *known == name);
                let asker = known.map_or(
                    if name.ends_with("end_session_endpoint") {
                        Requester::Browser
                    } else {
                        Requester::Server
                    },
                    |(_, asker)| *asker,
                );
                if carriage(&url, asker, self.allow_http).is_none() {
                    let hint = Some(hint(&url, asker));
                    return Err(Odd { hint, ..odd(name, "is not https") });
                }
                Ok(Some(url))
            }
            Some(_) => Err(odd(name, "is not a text")),
        }
    }

    fn required(&mut self, name: &'static str) -> Result<Url, Odd> {
        self.optional(name)?.ok_or_else(|| odd(name, "is missing"))
    }

    /// Reads a URL that we can do without: a bad one is recorded as tolerated.
    fn lenient(&mut self, name: &'static str) -> Option<Url> {
        match self.optional(name) {
            Ok(url) => url,
            Err(odd) => {
                self.tolerated.push(odd.to_string());
                None
            }
        }
    }

    /// Reads a list of texts. A single text is split at whitespace.
    fn texts(&mut self, name: &str) -> Vec<String> {
        match self.member(name) {
            None => Vec::new(),
            Some(Value::Array(items)) => {
                let texts: Vec<String> =
                    items.iter().filter_map(|item| item.as_str().map(str::to_owned)).collect();
                if texts.len() < items.len() {
                    self.tolerated.push(format!("{name} does not list texts alone"));
                }
                texts
            }
            Some(Value::String(text)) => {
                self.tolerated.push(format!("{name} is not a list"));
                text.split_whitespace().map(str::to_owned).collect()
            }
            Some(_) => {
                self.tolerated.push(format!("{name} is not a list"));
                Vec::new()
            }
        }
    }
}
