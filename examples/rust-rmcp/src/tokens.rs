//! Access tokens of Portcullis: is this one, and is it for us? (RFC 9068)

use std::time::Duration;

use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use serde::Deserialize;
use tokio::sync::Mutex;
use tokio::time::Instant;

/// An unknown key makes us look for new ones, at most this often: anybody can invent key ids.
const LOOK_AGAIN: Duration = Duration::from_secs(30);

/// Who calls, with which permissions.
#[derive(Clone, Deserialize)]
pub struct Caller {
    /// The person; stable, never an e-mail address.
    pub sub: String,
    scope: String,
}

impl Caller {
    /// Whether the token carries this permission.
    pub fn may(&self, scope: &str) -> bool {
        self.scope.split(' ').any(|granted| granted == scope)
    }
}

/// Why a token says nothing about a caller.
pub enum Unproven {
    /// It is not a token of Portcullis for this server.
    Invalid,
    /// The keys cannot be fetched: nobody's fault who calls.
    NoKeys,
}

#[derive(Default)]
struct Keys {
    set: JwkSet,
    looked_at: Option<Instant>,
}

/// Checks tokens for one server.
pub struct Tokens {
    issuer: String,
    validation: Validation,
    keys: Mutex<Keys>,
    http: reqwest::Client,
}

impl Tokens {
    /// For the server `mcp_url`, whose tokens `issuer` signs.
    pub fn new(issuer: &str, mcp_url: &str) -> Self {
        let mut validation = Validation::new(Algorithm::ES256); // never taken from the token
        validation.set_issuer(&[issuer]);
        validation.set_audience(&[mcp_url]);
        validation.set_required_spec_claims(&["iss", "aud", "sub", "exp"]);
        validation.leeway = 5;
        let http = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(Duration::from_secs(10))
            .build()
            .expect("a TLS library");
        Self { issuer: issuer.to_owned(), validation, keys: Mutex::default(), http }
    }

    /// Returns the caller that `token` identifies.
    pub async fn verify(&self, token: &str) -> Result<Caller, Unproven> {
        let header = decode_header(token).map_err(|_| Unproven::Invalid)?;
        if header.typ.as_deref() != Some("at+jwt") {
            return Err(Unproven::Invalid);
        }
        let key = self.key(&header.kid.ok_or(Unproven::Invalid)?).await?;
        decode(token, &key, &self.validation).map(|data| data.claims).map_err(|_| Unproven::Invalid)
    }

    async fn key(&self, kid: &str) -> Result<DecodingKey, Unproven> {
        let mut keys = self.keys.lock().await;
        let lately = keys.looked_at.is_some_and(|at| at.elapsed() < LOOK_AGAIN);
        if keys.set.find(kid).is_none() && !lately {
            keys.looked_at = Some(Instant::now());
            match self.fetch().await {
                Ok(set) => keys.set = set,
                Err(_) => keys.looked_at = None,
            }
        }
        match keys.set.find(kid) {
            Some(jwk) => DecodingKey::from_jwk(jwk).map_err(|_| Unproven::Invalid),
            None if keys.looked_at.is_none() => Err(Unproven::NoKeys),
            None => Err(Unproven::Invalid),
        }
    }

    async fn fetch(&self) -> reqwest::Result<JwkSet> {
        let url = format!("{}/.well-known/jwks.json", self.issuer);
        self.http.get(url).send().await?.error_for_status()?.json().await
    }
}
