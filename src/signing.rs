//! The key ring: issues and verifies access tokens (RFC 9068) and publishes the public keys (RFC 7517).
//!
//! A token has the type `at+jwt`, exactly one audience, and the id of its grant, so that tokens of a revoked
//! grant are rejected immediately. Keys are parsed once, because parsing costs as much as signing. A verified
//! token is cached by its hash; `exp` and `iat` are still checked on every use. `rotation.rs` rotates the
//! keys.

mod assertion;
mod key;
mod rotation;

use std::collections::BTreeMap;
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use quick_cache::UnitWeighter;
use quick_cache::sync::{Cache, DefaultLifecycle};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::watch;

pub use assertion::CallerAssertion;
use key::{SigningKey, generate, parse};
pub use rotation::{KeyRotation, PUBLISHED_BEFORE, rotate};
use strum::IntoStaticStr;

use crate::clock::{Clock, REPLICAS_APART, Timestamp};
use crate::config::TokenAlg;
use crate::jose::jws::{self, Compact, HeaderError};
use crate::oauth::random_key::RandomKeys;
use crate::oauth::scope::ScopeSet;
use crate::oauth::secret::new_id;
use crate::storage::{Storage, StorageError, StoredKey};

/// The `typ` of our access tokens (RFC 9068 §2.1).
const ACCESS_TOKEN_TYPE: &str = "at+jwt";
/// Longest bearer token that we parse, in bytes. Our own tokens are shorter; the limit bounds the work that
/// strangers can cause.
pub const MAX_TOKEN: usize = 8 * 1024;
/// Number of verified tokens in the cache, with their claims. A larger cache costs memory; a smaller one
/// repeats signature checks.
const REMEMBERED: usize = 16 * 1024;

/// Claims of an access token (RFC 9068 §2.2). A token with a missing or mistyped claim is rejected.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccessToken {
    /// Our issuer, `public_url` byte for byte.
    pub iss: String,
    /// Our identifier of the person.
    pub sub: String,
    /// The only MCP server that accepts this token.
    pub aud: String,
    /// The client it was issued to.
    pub client_id: String,
    /// Granted scopes, separated by spaces; may be empty.
    pub scope: ScopeSet,
    /// Unique id of the token.
    pub jti: String,
    /// Time of issue, in Unix seconds.
    pub iat: i64,
    /// Expiry, in Unix seconds.
    pub exp: i64,
    /// The grant. Tokens of a revoked grant are rejected regardless of `exp`.
    pub grant_id: String,
}

/// Input for a new access token.
pub struct NewToken<'a> {
    /// The grant that the token belongs to.
    pub grant_id: &'a str,
    /// Our identifier of the person, for `sub`.
    pub subject: &'a str,
    /// The only audience.
    pub resource: &'a str,
    /// The id of the client.
    pub client_id: &'a str,
    pub scopes: &'a ScopeSet,
    pub alg: TokenAlg,
    pub expires_at: Timestamp,
}

/// Types of JWT that we sign besides access tokens. Each has its own `typ`, so that none is accepted in place
/// of another (RFC 8725 §3.11). Its text is the `typ` of the JWT header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoStaticStr)]
pub enum TokenType {
    /// Assertion about the caller, for the MCP server behind the gateway.
    #[strum(serialize = "portcullis-assertion+jwt")]
    Assertion,
    /// An introspection response (RFC 9701 §5).
    #[strum(serialize = "token-introspection+jwt")]
    Introspection,
}

impl TokenType {
    /// Returns the `typ` of the JWT header.
    pub fn typ(self) -> &'static str {
        self.into()
    }
}

/// Reasons why a bearer token is not one of our valid access tokens. They are for the log; the caller does
/// not learn them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenInvalid {
    /// Too long, not three parts, or not base64url.
    #[error("the token is malformed")]
    Malformed,
    /// Wrong `typ` or `alg`, or a header with members that we do not use.
    #[error("this server never writes such a token header")]
    Header,
    /// The `kid` names a key that is not, or no longer, ours.
    #[error("the token names an unknown key")]
    UnknownKey,
    #[error("the signature does not fit")]
    Signature,
    /// A claim is missing, mistyped or wrong.
    #[error("a claim is missing or wrong")]
    Claims,
    /// The token is for another MCP server.
    #[error("the token is for another audience")]
    Audience,
    #[error("the token has expired")]
    Expired,
    /// Issued by a replica whose clock is ahead, or before the clock was set back.
    #[error(
        "the token was made in the future: the clocks of the replicas differ, or this one went back"
    )]
    OfTheFuture,
}

/// Errors of generating, loading or using keys.
#[derive(Debug, thiserror::Error)]
pub enum SigningError {
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The cryptographic library failed.
    #[error("a signing key could not be made or read")]
    Key,
    /// The claims could not be serialized.
    #[error("the claims could not be written")]
    Claims(#[from] serde_json::Error),
}

impl From<aws_lc_rs::error::Unspecified> for SigningError {
    fn from(_: aws_lc_rs::error::Unspecified) -> Self {
        Self::Key
    }
}

impl From<aws_lc_rs::error::KeyRejected> for SigningError {
    fn from(_: aws_lc_rs::error::KeyRejected) -> Self {
        Self::Key
    }
}

/// A key as administrators see it.
#[derive(Clone, Debug)]
pub struct KeyDescription {
    /// Key id: the JWK thumbprint (RFC 7638).
    pub kid: String,
    /// `ES256`, `RS256` or `EdDSA`.
    pub alg: &'static str,
    /// Generation of the key within its algorithm: 1, 2, 3 …
    pub generation: i64,
    /// When the key was generated.
    pub created_at: Timestamp,
    /// The key signs from this time on.
    pub signs_from: Timestamp,
    /// The time from which no token of this key can be valid; `None` while it has no successor.
    pub retires_at: Option<Timestamp>,
    /// Current use of the key.
    pub state: KeyState,
}

/// Current use of a published key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyState {
    /// Published, and will sign soon.
    Next,
    /// Signs new tokens.
    Current,
    /// Published only to verify tokens that it signed before.
    Former,
}

/// All signing keys that are not retired, parsed. Cheap to clone.
#[derive(Clone)]
pub struct KeyRing {
    /// Replaced as a whole, so that a request sees either all keys before a change or all keys after it.
    keys: Arc<watch::Sender<Arc<SigningKeys>>>,
    issuer: Arc<str>,
    keeper: Arc<rotation::Keeper>,
}

/// An immutable set of keys.
struct SigningKeys {
    by_kid: BTreeMap<String, SigningKey>,
    jwks: Arc<str>,
    /// Cache of the tokens that these keys have verified, by hash.
    verified: Cache<[u8; 32], Arc<AccessToken>, UnitWeighter, RandomKeys>,
}

impl SigningKeys {
    fn parse(stored: &[StoredKey]) -> Result<Self, SigningError> {
        let by_kid = stored
            .iter()
            .map(|stored| parse(stored).map(|key| (key.kid.clone(), key)))
            .collect::<Result<BTreeMap<_, _>, _>>()?;
        let in_order = stored.iter().filter_map(|stored| by_kid.get(&stored.kid));
        let public: Vec<&Value> = in_order.map(|key| &key.public).collect();
        let jwks = json!({ "keys": public }).to_string().into();
        let (keys, lifecycle) = (RandomKeys::default(), DefaultLifecycle::default());
        let verified = Cache::with(REMEMBERED, REMEMBERED as u64, UnitWeighter, keys, lifecycle);
        Ok(Self { by_kid, jwks, verified })
    }

    /// Returns the signing key: the newest whose `signs_from` has passed. If none has passed, the clock was
    /// set back, and the oldest key signs.
    fn current(&self, alg: TokenAlg, now: Timestamp) -> Option<&SigningKey> {
        let of_alg = || self.by_kid.values().filter(|key| key.alg == alg);
        of_alg()
            .filter(|key| key.signs_from <= now)
            .max_by_key(|key| key.generation)
            .or_else(|| of_alg().min_by_key(|key| key.generation))
    }
}

/// The header of our tokens. A token with any other member is not ours.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    alg: String,
    typ: String,
    kid: String,
}

impl KeyRing {
    /// Loads the keys and generates the first key of every algorithm in `algs` that has none.
    pub async fn load(
        storage: &Storage,
        clock: &Clock,
        issuer: &str,
        algs: &[TokenAlg],
    ) -> Result<Self, SigningError> {
        add_missing(storage, algs, clock.now()).await?;
        let stored = storage.signing_keys().await?; // another process may have added one first
        let keys = watch::Sender::new(Arc::new(SigningKeys::parse(&stored)?));
        let keeper = rotation::Keeper::new(storage.clone(), clock.clone(), algs.to_vec());
        Ok(Self { keys: Arc::new(keys), issuer: issuer.into(), keeper: Arc::new(keeper) })
    }

    /// Returns the current set of keys.
    fn keys(&self) -> Arc<SigningKeys> {
        Arc::clone(&self.keys.borrow())
    }

    /// Returns the public keys as a JWK set.
    pub fn jwks(&self) -> Arc<str> {
        Arc::clone(&self.keys().jwks)
    }

    /// Returns all keys, newest first within each algorithm.
    pub fn describe(&self) -> Vec<KeyDescription> {
        let (ring, now) = (self.keys(), self.keeper.now());
        let state = |key: &SigningKey| match ring.current(key.alg, now) {
            Some(current) if current.kid == key.kid => KeyState::Current,
            Some(current) if current.generation < key.generation => KeyState::Next,
            _ => KeyState::Former,
        };
        let mut keys: Vec<KeyDescription> = ring
            .by_kid
            .values()
            .map(|key| KeyDescription {
                kid: key.kid.clone(),
                alg: key.alg.as_str(),
                generation: key.generation,
                created_at: key.created_at,
                signs_from: key.signs_from,
                retires_at: key.retires_at,
                state: state(key),
            })
            .collect();
        keys.sort_by(|a, b| a.alg.cmp(b.alg).then(b.generation.cmp(&a.generation)));
        keys
    }

    /// Signs a new access token.
    pub fn mint(&self, new: &NewToken<'_>, clock: &Clock) -> Result<String, SigningError> {
        let claims = AccessToken {
            iss: self.issuer.to_string(),
            sub: new.subject.to_owned(),
            aud: new.resource.to_owned(),
            client_id: new.client_id.to_owned(),
            scope: new.scopes.clone(),
            jti: new_id(clock),
            iat: clock.now().unix(),
            exp: new.expires_at.unix(),
            grant_id: new.grant_id.to_owned(),
        };
        self.sign(new.alg, ACCESS_TOKEN_TYPE, &claims)
    }

    /// Signs claims for an MCP server. Their `typ` prevents use as an access token.
    pub fn sign_claims(
        &self,
        alg: TokenAlg,
        statement: TokenType,
        claims: &impl Serialize,
    ) -> Result<String, SigningError> {
        self.sign(alg, statement.typ(), claims)
    }

    fn sign(
        &self,
        alg: TokenAlg,
        typ: &str,
        claims: &impl Serialize,
    ) -> Result<String, SigningError> {
        let keys = self.keys();
        let key = keys.current(alg, self.keeper.now()).ok_or(SigningError::Key)?;
        let header =
            Header { alg: key.alg.as_str().to_owned(), typ: typ.to_owned(), kid: key.kid.clone() };
        jws::write(&header, claims, |message| key.sign(message))
    }

    /// Verifies one of our access tokens for one audience.
    ///
    /// Every claim is mandatory by its type, so that no check is skipped because a claim is missing (RFC
    /// 8725, threat JW-01).
    pub fn verify(
        &self,
        token: &str,
        audience: &str,
        now: Timestamp,
    ) -> Result<Arc<AccessToken>, TokenInvalid> {
        let claims = self.verify_any_audience(token, now)?;
        if claims.aud == audience { Ok(claims) } else { Err(TokenInvalid::Audience) }
    }

    /// Verifies everything except the audience. For the revocation endpoint, where a token only names the
    /// grant to end.
    pub fn verify_any_audience(
        &self,
        token: &str,
        now: Timestamp,
    ) -> Result<Arc<AccessToken>, TokenInvalid> {
        if token.len() > MAX_TOKEN || !token.is_ascii() {
            return Err(TokenInvalid::Malformed);
        }
        let keys = self.keys();
        let mut hash = [0; 32];
        hash.copy_from_slice(digest(&SHA256, token.as_bytes()).as_ref());
        let remembered = keys.verified.get(&hash);
        let is_new = remembered.is_none();
        let claims = if let Some(claims) = remembered {
            claims
        } else {
            Arc::new(self.proven_access_token(&keys, token)?)
        };
        if now >= Timestamp::from_unix(claims.exp) {
            keys.verified.remove(&hash);
            return Err(TokenInvalid::Expired);
        }
        if Timestamp::from_unix(claims.iat) > now.plus(REPLICAS_APART) {
            return Err(TokenInvalid::OfTheFuture);
        }
        if is_new {
            keys.verified.insert(hash, Arc::clone(&claims));
        }
        Ok(claims)
    }

    /// Makes all checks of an access token that do not depend on the time.
    fn proven_access_token(
        &self,
        keys: &SigningKeys,
        token: &str,
    ) -> Result<AccessToken, TokenInvalid> {
        let claims: AccessToken = proven(keys, token, is_access_token)?;
        if claims.iss == *self.issuer { Ok(claims) } else { Err(TokenInvalid::Claims) }
    }
}

/// Returns whether this is the `typ` of an access token. The prefix `application/` may be left out (RFC 9068 §4).
fn is_access_token(typ: &str) -> bool {
    typ.eq_ignore_ascii_case(ACCESS_TOKEN_TYPE) || typ.eq_ignore_ascii_case("application/at+jwt")
}

/// Parses one of our tokens whose `typ` satisfies `is_typ`, and verifies its signature. The caller checks the
/// claims.
fn proven<T: DeserializeOwned>(
    keys: &SigningKeys,
    token: &str,
    is_typ: impl Fn(&str) -> bool,
) -> Result<T, TokenInvalid> {
    let token = Compact::split(token).map_err(|_| TokenInvalid::Malformed)?;
    let header: Header = token.header().map_err(|error| match error {
        HeaderError::NotBase64(_) => TokenInvalid::Malformed,
        HeaderError::Json(_) => TokenInvalid::Header,
    })?;
    let key = keys.by_kid.get(&header.kid).ok_or(TokenInvalid::UnknownKey)?;
    if !is_typ(&header.typ) || header.alg != key.alg.as_str() {
        return Err(TokenInvalid::Header);
    }
    let malformed = |_| TokenInvalid::Malformed;
    let claims = token.claims().map_err(malformed)?;
    let signature = token.signature().map_err(malformed)?;
    token.verify(&key.verifier, key.alg.alg(), &signature).map_err(|_| TokenInvalid::Signature)?;
    serde_json::from_slice(&claims).map_err(|_| TokenInvalid::Claims)
}

/// Generates the first key of every algorithm that has none. Returns whether any was missing.
async fn add_missing(
    storage: &Storage,
    algs: &[TokenAlg],
    now: Timestamp,
) -> Result<bool, SigningError> {
    let stored = storage.signing_keys().await?;
    let missing: Vec<_> =
        algs.iter().filter(|alg| !stored.iter().any(|key| key.alg == alg.as_str())).collect();
    for &&alg in &missing {
        storage.add_signing_key(&generate(alg, 1, now, now)?).await?;
    }
    Ok(!missing.is_empty())
}
