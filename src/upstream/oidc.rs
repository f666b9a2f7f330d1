//! OpenID Connect with the provider, through the `openidconnect` crate: codes, refresh, ID tokens.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{DateTime, Utc};
use oauth2::{
    AccessToken, AuthType, AuthorizationCode, ClientId, ClientSecret, EndpointMaybeSet,
    EndpointNotSet, EndpointSet, PkceCodeVerifier, RedirectUrl, RefreshToken,
    StandardErrorResponse, TokenResponse as _,
};
use openidconnect::core::{
    CoreAuthDisplay, CoreAuthPrompt, CoreClientAuthMethod, CoreErrorResponseType, CoreGenderClaim,
    CoreIdToken, CoreJweContentEncryptionAlgorithm, CoreJwsSigningAlgorithm, CoreRevocableToken,
    CoreRevocationErrorResponse, CoreTokenIntrospectionResponse, CoreTokenResponse,
};
use openidconnect::{
    AccessTokenHash, ClaimsVerificationError, EmptyAdditionalClaims, JsonWebKey as _, Nonce, Scope,
    SignatureVerificationError, TokenResponse as _,
};
use serde_json::Value;

use super::answer::{Answer, Caller, TokenFailure, classify};
use super::provider::Provider;
use super::provider_key::{ACCEPTED, ProviderKey};
use super::{Inner, LoginFailed};
use crate::clock::Timestamp;
use crate::config::{ClientAuth, Offline, Protocol, SubjectForm};
use crate::policy::FactSet;
use crate::storage::Person;

/// Clocks of provider and server may differ by this much.
const SKEW: Duration = Duration::from_mins(1);
/// An ID token of a login is not older than this.
const FRESH_LOGIN: Duration = Duration::from_mins(10);
/// Longest subject accepted (OIDC Core §2).
const MAX_SUBJECT: usize = 255;

/// The library's client, with keys that we verify with ourselves.
type Client = openidconnect::Client<
    EmptyAdditionalClaims,
    CoreAuthDisplay,
    CoreGenderClaim,
    CoreJweContentEncryptionAlgorithm,
    ProviderKey,
    CoreAuthPrompt,
    StandardErrorResponse<CoreErrorResponseType>,
    CoreTokenResponse,
    CoreTokenIntrospectionResponse,
    CoreRevocableToken,
    CoreRevocationErrorResponse,
    EndpointSet,
    EndpointNotSet,
    EndpointNotSet,
    EndpointNotSet,
    EndpointMaybeSet,
    EndpointMaybeSet,
>;

/// Who an ID token is about.
pub(super) struct Identity {
    /// Who it is to us: by the preset's rule.
    pub(super) subject: String,
    /// The claim `sub`.
    pub(super) sub: String,
    pub(super) sid: Option<String>,
    /// All claims of the ID token.
    pub(super) claims: Value,
}

/// What an answer tells of a person.
pub(super) struct ReadPerson {
    pub(super) person: Person,
    /// What is as an earlier answer told it.
    pub(super) taken_over: FactSet,
    /// Whether every source answered, if only to say that it tells nothing.
    pub(super) answered: bool,
}

impl Inner {
    pub(super) fn client(&self, provider: &Provider) -> Client {
        let secret = ClientSecret::new(self.config.client_secret.expose().to_owned());
        let client = Client::from_provider_metadata(
            provider.metadata.clone(),
            ClientId::new(self.config.client_id.clone()),
            Some(secret),
        );
        let client = match RedirectUrl::new(self.redirect_uri.clone()) {
            Ok(redirect_uri) => client.set_redirect_uri(redirect_uri),
            Err(_) => client, // public_url was checked; a URL of ours always parses
        };
        let client = client.set_auth_type(self.auth_type(provider));
        match self.config.preset.protocol {
            Protocol::Oidc => client,
            Protocol::GitHub => client.disable_openid_scope(),
        }
    }

    fn auth_type(&self, provider: &Provider) -> AuthType {
        match self.config.client_auth {
            ClientAuth::Basic => AuthType::BasicAuth,
            ClientAuth::Post => AuthType::RequestBody,
            ClientAuth::Auto => {
                let methods = provider.metadata.token_endpoint_auth_methods_supported();
                let only_post = methods.is_some_and(|methods| {
                    methods.contains(&CoreClientAuthMethod::ClientSecretPost)
                        && !methods.contains(&CoreClientAuthMethod::ClientSecretBasic)
                });
                if only_post { AuthType::RequestBody } else { AuthType::BasicAuth }
            }
        }
    }

    /// The configured scopes without `openid`, which the library adds itself; `offline_access` when
    /// the provider lists it, because without a refresh token nobody can be asked about again.
    pub(super) fn scopes(&self, provider: &Provider) -> Vec<String> {
        let mut scopes: Vec<String> =
            self.config.scopes.iter().filter(|scope| *scope != "openid").cloned().collect();
        let listed = provider
            .metadata
            .scopes_supported()
            .is_some_and(|scopes| scopes.iter().any(|scope| scope.as_str() == "offline_access"));
        let wanted = match self.config.offline {
            Offline::Scope => true,
            Offline::ScopeWhenListed => listed,
            Offline::NoScope => false,
        };
        if wanted && !scopes.iter().any(|scope| scope == "offline_access") {
            scopes.push("offline_access".to_owned());
        }
        scopes
    }

    /// Redeems the provider's code.
    pub(super) async fn redeem(
        &self,
        provider: &Provider,
        code: &str,
        pkce_verifier: &str,
    ) -> Result<Answer, LoginFailed> {
        let client = self.client(provider);
        let request = client
            .exchange_code(AuthorizationCode::new(code.to_owned()))
            .map_err(|error| LoginFailed::Misconfigured(error.to_string()))?
            .set_pkce_verifier(PkceCodeVerifier::new(pkce_verifier.to_owned()));
        let caller = self.caller();
        match request.request_async(&caller).await {
            Ok(response) => Ok(caller.answer(response)),
            Err(error) => Err(classify(&error, caller.status(), self.config.preset).into()),
        }
    }

    /// Uses the provider's refresh token.
    pub(super) async fn refresh(
        &self,
        provider: &Provider,
        refresh_token: &str,
    ) -> Result<Answer, TokenFailure> {
        let client = self.client(provider);
        let refresh_token = RefreshToken::new(refresh_token.to_owned());
        let mut request = client
            .exchange_refresh_token(&refresh_token)
            .map_err(|error| TokenFailure::Ours(error.to_string()))?;
        if self.config.preset.refresh_names_scopes {
            let scopes = self.scopes(provider).into_iter().chain(["openid".to_owned()]);
            request = request.add_scopes(scopes.map(Scope::new));
        }
        let caller = self.caller();
        match request.request_async(&caller).await {
            Ok(response) => Ok(caller.answer(response)),
            Err(error) => Err(classify(&error, caller.status(), self.config.preset)),
        }
    }

    /// Sends requests for the library, and remembers the status of the last answer.
    pub(super) fn caller(&self) -> Caller {
        let aliases = self.config.preset.issuer_aliases;
        Caller::new(self.http.clone(), aliases, &self.config.issuer)
    }

    /// Verifies the ID token of an answer (OIDC Core §3.1.3.7). With a nonce it is that of a login;
    /// without, a refresh: then a nonce inside is not required.
    pub(super) async fn verify_id_token(
        &self,
        provider: &Arc<Provider>,
        answer: &Answer,
        nonce: Option<&Nonce>,
    ) -> Result<Identity, LoginFailed> {
        if let Some(reason) = answer.unreadable {
            return Err(LoginFailed::Misconfigured(format!(
                "the ID token cannot be read: {reason}"
            )));
        }
        let id_token = answer
            .response
            .id_token()
            .ok_or_else(|| LoginFailed::Misconfigured("no ID token in the answer".to_owned()))?;
        let access_token = answer.response.access_token();
        let as_it_came = answer.as_it_came.as_deref();
        let verify = |provider: &Provider| {
            self.verify_with(provider, id_token, as_it_came, access_token, nonce)
        };
        match verify(provider) {
            Err(ClaimsVerificationError::SignatureVerification(cause)) => {
                // The provider may have rotated its keys since we last looked.
                match self.with_new_keys(provider).await {
                    Ok(Some(renewed)) => verify(&renewed),
                    Ok(None) => Err(ClaimsVerificationError::SignatureVerification(cause)),
                    Err(error) => {
                        return Err(LoginFailed::Unavailable(format!("its keys: {error}")));
                    }
                }
            }
            other => other,
        }
        .map_err(|error| LoginFailed::Untrusted(format!("ID token: {error}")))
    }

    fn verify_with(
        &self,
        provider: &Provider,
        id_token: &CoreIdToken,
        as_it_came: Option<&str>,
        access_token: &AccessToken,
        nonce: Option<&Nonce>,
    ) -> Result<Identity, ClaimsVerificationError> {
        let now = self.clock.now();
        let is_login = nonce.is_some();
        let client = self.client(provider);
        let verifier = client
            .id_token_verifier()
            .set_allowed_algs(ACCEPTED)
            .set_time_fn(move || date_time(now.minus(SKEW)))
            .set_issue_time_verifier_fn(move |issued| {
                let issued = Timestamp::from_unix(issued.timestamp());
                if issued > now.plus(SKEW) {
                    return Err("issued in the future".to_owned());
                }
                if is_login && issued < now.minus(FRESH_LOGIN) {
                    return Err("issued too long ago".to_owned());
                }
                Ok(())
            });
        let verifier = match as_it_came {
            None => verifier,
            Some(original) => {
                // What the provider signed is the original: that signature is checked here, and the
                // library reads the same claims but for the spelling of the issuer.
                Self::check_signature(provider, original)?;
                verifier.insecure_disable_signature_check()
            }
        };
        let claims = match nonce {
            Some(nonce) => id_token.claims(&verifier, nonce)?,
            None => id_token.claims(&verifier, |_: Option<&Nonce>| Ok(()))?,
        };
        if claims.authorized_party().is_some_and(|azp| **azp != self.config.client_id) {
            return Err(ClaimsVerificationError::InvalidAudience("azp is not us".to_owned()));
        }
        if let Some(expected) = claims.access_token_hash() {
            let invalid = |what: &str| ClaimsVerificationError::Other(what.to_owned());
            let alg = id_token.signing_alg().map_err(|_| invalid("at_hash"))?;
            let key = id_token
                .signing_key(&verifier)
                .map_err(ClaimsVerificationError::SignatureVerification)?;
            let actual = AccessTokenHash::from_token(access_token, alg, key)
                .map_err(|_| invalid("at_hash"))?;
            if actual != *expected {
                return Err(invalid("at_hash does not fit the access token"));
            }
        }
        let sub = claims.subject().as_str().to_owned();
        let claims = payload(&id_token.to_string()).unwrap_or_default();
        // The library leaves `nbf` alone (RFC 7519 §4.1.5).
        let not_before = claims.get("nbf").filter(|nbf| !nbf.is_null());
        if not_before.is_some_and(|nbf| nbf.as_f64().is_none_or(|nbf| nbf > skewed(now))) {
            return Err(ClaimsVerificationError::Other("not valid yet".to_owned()));
        }
        let subject = subject_of(self.config.preset.subject, &claims).unwrap_or_default();
        if subject.is_empty() || subject.len() > MAX_SUBJECT {
            return Err(ClaimsVerificationError::InvalidSubject("empty or too long".to_owned()));
        }
        let sid = claims.get("sid").and_then(Value::as_str).map(str::to_owned);
        Ok(Identity { subject, sub, sid, claims })
    }

    /// Checks the signature of an ID token by the one key of the provider that fits. Whom it is for, the
    /// library reads out of the same claims.
    fn check_signature(provider: &Provider, id_token: &str) -> Result<(), ClaimsVerificationError> {
        let refused = ClaimsVerificationError::SignatureVerification;
        let no_key = || refused(SignatureVerificationError::NoMatchingKey);
        let header = jsonwebtoken::decode_header(id_token).map_err(|_| no_key())?;
        if header.alg != jsonwebtoken::Algorithm::RS256 {
            let reason = "only RS256 is accepted here".to_owned();
            return Err(refused(SignatureVerificationError::DisallowedAlg(reason)));
        }
        let alg = CoreJwsSigningAlgorithm::RsaSsaPkcs1V15Sha256;
        let named = |key: &&ProviderKey| {
            header.kid.is_none() || header.kid.as_ref() == key.key_id().map(|kid| &**kid)
        };
        let fitting = provider.metadata.jwks().keys().iter().filter(named);
        let fitting: Vec<_> = fitting.filter(|key| key.check(&alg).is_ok()).collect();
        let [key] = fitting.as_slice() else { return Err(no_key()) };
        let (signed, signature) = id_token.rsplit_once('.').ok_or_else(no_key)?;
        let signature = URL_SAFE_NO_PAD.decode(signature).map_err(|_| no_key())?;
        key.verify_signature(&alg, signed.as_bytes(), &signature).map_err(refused)
    }

    /// Whether the provider vouches for somebody we let in: of our domain, tenant or organisation.
    pub(super) fn is_one_of_ours(&self, identity: &Identity) -> bool {
        self.config.required_claim.as_ref().is_none_or(|(claim, values)| {
            let is_known = |value: &Value| values.iter().any(|known| value == known);
            match identity.claims.get(claim) {
                Some(Value::Array(items)) => items.iter().any(is_known),
                claim => claim.is_some_and(is_known),
            }
        })
    }

    /// Name, e-mail and facts, from the sources that the claim plan names. A source that cannot be
    /// read makes its facts unknown; it does not stop the login, because unknown facts can only
    /// take away. At a re-check what was known `before` stays: an outage there takes nothing away, and
    /// what is taken over is named.
    pub(super) async fn read_person(
        &self,
        provider: &Provider,
        answer: &Answer,
        identity: &Identity,
        before: Option<&Person>,
    ) -> ReadPerson {
        let plan = &self.config.claims;
        let access_token = answer.response.access_token().secret();
        let access_token_claims = payload(access_token);
        let userinfo = if super::claims::needs_userinfo(plan, &identity.claims) {
            self.userinfo(provider, access_token, &identity.sub).await
        } else {
            super::claims::Userinfo::NotAsked
        };
        let person = super::claims::read(
            plan,
            &identity.subject,
            &identity.claims,
            access_token_claims.as_ref(),
            &userinfo,
        );
        let answered = userinfo != super::claims::Userinfo::Failed;
        match before {
            Some(before) if userinfo.is_silent() => ReadPerson {
                taken_over: super::claims::taken_over(&person, before),
                person: super::claims::with_facts_of(person, before),
                answered,
            },
            _ => ReadPerson { person, taken_over: FactSet::default(), answered },
        }
    }

    pub(super) async fn userinfo(
        &self,
        provider: &Provider,
        access_token: &str,
        subject: &str,
    ) -> super::claims::Userinfo {
        use super::claims::Userinfo;
        let Some(endpoint) = provider.metadata.userinfo_endpoint() else {
            return Userinfo::NotAsked;
        };
        let request = axum::http::Request::get(endpoint.url().as_str())
            .header(axum::http::header::AUTHORIZATION, format!("Bearer {access_token}"))
            .header(axum::http::header::ACCEPT, "application/json")
            .body(Vec::new());
        let Ok(request) = request else {
            return Userinfo::Failed;
        };
        let response = match self.http.send(request).await {
            Ok(response) => response,
            Err(error) => {
                tracing::warn!(%error, "userinfo failed");
                return Userinfo::Failed;
            }
        };
        let status = response.status();
        if !status.is_success() {
            tracing::warn!(status = status.as_u16(), "userinfo failed");
            let later = matches!(status.as_u16(), 408 | 429);
            let tells_nothing = status.is_client_error() && !later;
            return if tells_nothing { Userinfo::TellsNothing } else { Userinfo::Failed };
        }
        match serde_json::from_slice::<Value>(response.body()) {
            // OIDC Core §5.3.2: another subject is another person.
            Ok(claims) if claims.get("sub").and_then(Value::as_str) == Some(subject) => {
                Userinfo::Claims(claims)
            }
            Ok(_) => {
                tracing::warn!("userinfo is not about the person of the ID token");
                Userinfo::TellsNothing
            }
            Err(_)
                if payload(std::str::from_utf8(response.body()).unwrap_or_default()).is_some() =>
            {
                tracing::warn!("userinfo is a JWT, which was not asked for");
                Userinfo::TellsNothing
            }
            // A page of somebody in between, while the provider is away.
            Err(_) => {
                tracing::warn!("userinfo is not JSON");
                Userinfo::Failed
            }
        }
    }
}

/// Who somebody is to us, by the preset's rule. Entra's stable name of a person: tenant and object.
pub(super) fn subject_of(form: SubjectForm, claims: &Value) -> Option<String> {
    let text = |name: &str| claims.get(name)?.as_str().filter(|text| !text.is_empty());
    match form {
        SubjectForm::Sub => text("sub").map(str::to_owned),
        SubjectForm::TidOid => Some(format!("{}.{}", text("tid")?, text("oid")?)),
    }
}

/// The payload of a JWT, unverified: of an ID token that was verified before, or of an access token
/// that the provider itself just handed us over TLS.
pub(super) fn payload(jwt: &str) -> Option<Value> {
    let payload = jwt.split('.').nth(1)?;
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).ok()?).ok()
}

/// The latest time that `nbf` may name now.
#[expect(clippy::cast_precision_loss, reason = "exact for the next quarter of a million years")]
fn skewed(now: Timestamp) -> f64 {
    now.plus(SKEW).unix() as f64
}

fn date_time(at: Timestamp) -> DateTime<Utc> {
    DateTime::from_timestamp(at.unix(), 0).unwrap_or_default()
}
