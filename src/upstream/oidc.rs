//! OpenID Connect requests to the provider, and verification of its ID tokens.

use std::sync::Arc;

use axum::http::Request;
use serde_json::Value;
use url::Url;

use super::claims::{self, Userinfo};
use super::client_login::ClientLogin;
use super::id_token::{self, Expected};
use super::metadata::Metadata;
use super::provider::Provider;
use super::signed::{Signed, SignedRefused};
use super::token_response::{ResponseForm, TokenFailure, TokenResponse};
use super::userinfo::UserinfoOutcome;
use super::values::{MAX_SID, MAX_SUBJECT, check_identifier};
use super::{LoginFailed, UpstreamInner, token_response};
use crate::config::{ClientAuth, Offline, Protocol, SubjectForm};
use crate::jose::jws;
use crate::policy::FactSet;
use crate::storage::Person;

/// The person that an ID token identifies.
pub(super) struct IdTokenIdentity {
    /// Our identifier of the person, built by the preset's rule.
    pub(super) subject: String,
    pub(super) sub: String,
    pub(super) sid: Option<String>,
    /// All claims of the ID token.
    pub(super) claims: Value,
}

/// The person as read from a response.
pub(super) struct ReadPerson {
    pub(super) person: Person,
    /// The facts that were carried over from an earlier response.
    pub(super) reused_facts: FactSet,
    /// Whether every source responded, even if without claims about the person.
    pub(super) answered: bool,
    /// Why some facts are unknown, for the administrator.
    pub(super) trouble: Option<String>,
}

impl UpstreamInner {
    /// Returns our authentication method at the token endpoint: the configured one, or one that the provider
    /// lists.
    pub(super) fn client_auth(&self, metadata: &Metadata) -> ClientAuth {
        if self.config.client_auth != ClientAuth::Auto {
            return self.config.client_auth;
        }
        metadata.listed_client_auth()
    }

    /// Returns the configured scopes without `openid`. Adds `offline_access` if the preset wants it or the
    /// provider lists it, because without a refresh token we cannot re-check people.
    pub(super) fn scopes(&self, metadata: &Metadata) -> Vec<String> {
        let mut scopes: Vec<String> =
            self.config.scopes.iter().filter(|scope| *scope != "openid").cloned().collect();
        let wanted = match self.config.offline {
            Offline::Scope => true,
            Offline::ScopeWhenListed => {
                metadata.scopes_supported.iter().any(|scope| scope == "offline_access")
            }
            Offline::NoScope => false,
        };
        if wanted && !scopes.iter().any(|scope| scope == "offline_access") {
            scopes.push("offline_access".to_owned());
        }
        scopes
    }

    /// Returns all scopes of the authorization request.
    pub(super) fn scopes_asked(&self, metadata: &Metadata) -> Vec<String> {
        let openid = self.config.preset.protocol == Protocol::Oidc;
        openid.then(|| "openid".to_owned()).into_iter().chain(self.scopes(metadata)).collect()
    }

    /// Builds the authorization request. It contains nothing that the client sent.
    pub(super) fn authorization_request(
        &self,
        metadata: &Metadata,
        state: &str,
        nonce: &str,
        code_challenge: &str,
    ) -> Url {
        let mut url = metadata.authorization_endpoint.clone();
        url.query_pairs_mut()
            .append_pair("response_type", "code")
            .append_pair("client_id", &self.config.client_id)
            .append_pair("redirect_uri", &self.redirect_uri)
            .append_pair("scope", &self.scopes_asked(metadata).join(" "))
            .append_pair("state", state)
            .append_pair("nonce", nonce)
            .append_pair("code_challenge", code_challenge)
            .append_pair("code_challenge_method", "S256")
            .extend_pairs(&self.config.authorize_params);
        url
    }

    /// Builds a form request with client authentication (RFC 6749 §2.3.1).
    pub(super) fn form_as_client(
        &self,
        endpoint: &str,
        method: ClientAuth,
        client_secret: &str,
        form: &[(&str, &str)],
    ) -> Result<Request<Vec<u8>>, axum::http::Error> {
        let client_id = self.config.client_id.as_str();
        ClientLogin { client_id, client_secret, method }.form(endpoint, form)
    }

    /// Sends a request to the token endpoint, and reads the response.
    pub(super) async fn ask_for_tokens(
        &self,
        provider: &Provider,
        form: &[(&str, &str)],
    ) -> Result<TokenResponse, TokenFailure> {
        let metadata = &provider.metadata;
        let request = self
            .form_as_client(
                metadata.token_endpoint.as_str(),
                self.client_auth(metadata),
                self.config.client_secret.expose(),
                form,
            )
            .map_err(|error| TokenFailure::Ours(error.to_string()))?;
        let response = self.http.send(request).await;
        let response = response.map_err(|error| TokenFailure::Transient(error.to_string()))?;
        let ending_errors = self.config.preset.ending_errors;
        let answer =
            token_response::read(&response, &ResponseForm { token_at: "", ending_errors })?;
        if !answer.tolerated.is_empty() {
            tracing::debug!(odd = ?answer.tolerated, "details of a token answer are tolerated");
        }
        Ok(answer)
    }

    /// Redeems an authorization code of the provider.
    pub(super) async fn redeem(
        &self,
        provider: &Provider,
        code: &str,
        pkce_verifier: &str,
    ) -> Result<TokenResponse, LoginFailed> {
        let form = [
            ("grant_type", "authorization_code"),
            ("code", code),
            ("redirect_uri", self.redirect_uri.as_str()),
            ("code_verifier", pkce_verifier),
        ];
        Ok(self.ask_for_tokens(provider, &form).await?)
    }

    /// Uses a refresh token of the provider.
    pub(super) async fn refresh(
        &self,
        provider: &Provider,
        refresh_token: &str,
    ) -> Result<TokenResponse, TokenFailure> {
        let mut scopes = self.scopes(&provider.metadata);
        scopes.push("openid".to_owned());
        let scopes = scopes.join(" ");
        let mut form = vec![("grant_type", "refresh_token"), ("refresh_token", refresh_token)];
        if self.config.preset.refresh_names_scopes {
            form.push(("scope", &scopes));
        }
        self.ask_for_tokens(provider, &form).await
    }

    /// Verifies the ID token of a token response (OIDC Core §3.1.3.7). With `nonce` it must be the ID token
    /// of that login; without, it comes from a refresh and need not contain a nonce.
    pub(super) async fn verify_id_token(
        &self,
        provider: &Arc<Provider>,
        answer: &TokenResponse,
        nonce: Option<&str>,
    ) -> Result<IdTokenIdentity, LoginFailed> {
        let unreadable = |reason: String| {
            LoginFailed::Misconfigured(format!("the ID token cannot be read: {reason}"))
        };
        let untrusted = |reason: String| LoginFailed::Untrusted(format!("ID token: {reason}"));
        let id_token = answer.id_token().map_err(LoginFailed::Misconfigured)?;
        let access_token = answer.access_token().map_err(LoginFailed::Misconfigured)?;
        let refused = |refused: SignedRefused| match refused {
            SignedRefused::Unreadable(reason) => unreadable(reason),
            SignedRefused::Forged(reason) => untrusted(reason),
            failed @ SignedRefused::KeysUnavailable(_) => {
                LoginFailed::Unavailable(failed.to_string())
            }
        };
        let signed = Signed::parse(id_token).map_err(refused)?;
        // Access tokens and logout tokens of the same provider must not pass as ID tokens.
        if let Some(typ) = signed.typ.as_deref()
            && !matches!(typ.to_ascii_lowercase().as_str(), "jwt" | "application/jwt")
        {
            return Err(untrusted("typ in its header is not JWT".to_owned()));
        }
        let claims = self.signed_claims(provider, &signed).await.map_err(refused)?;
        self.check_issuer(&claims).map_err(untrusted)?;
        let expected = Expected {
            client_id: &self.config.client_id,
            nonce,
            access_token,
            alg: signed.alg,
            now: self.clock.now(),
        };
        id_token::check(&claims, &expected).map_err(untrusted)?;
        let sub = claims.required_text("sub").map_err(untrusted)?;
        let sid = claims.text("sid").ok().flatten();
        let claims = claims.into_value();
        let subject = subject_of(self.config.preset.subject, &claims).unwrap_or_default();
        let (names, are) = match self.config.preset.subject {
            SubjectForm::Sub => ("sub", "is"),
            SubjectForm::TidOid => ("tid and oid", "are"),
        };
        if subject.is_empty() || subject.len() > MAX_SUBJECT {
            return Err(untrusted(format!("{names} {are} missing, empty or too long")));
        }
        check_identifier(names, &subject, MAX_SUBJECT).map_err(untrusted)?;
        check_identifier("sub", &sub, MAX_SUBJECT).map_err(untrusted)?;
        check_identifier("sid", sid.as_deref().unwrap_or_default(), MAX_SID).map_err(untrusted)?;
        Ok(IdTokenIdentity { subject, sub, sid, claims })
    }

    /// Returns whether the person belongs to the required domain, tenant or organisation.
    pub(super) fn is_one_of_ours(&self, identity: &IdTokenIdentity) -> bool {
        self.config.required_claim.as_ref().is_none_or(|(claim, values)| {
            let is_known = |value: &Value| values.iter().any(|known| value == known);
            match identity.claims.get(claim) {
                Some(Value::Array(items)) => items.iter().any(is_known),
                claim => claim.is_some_and(is_known),
            }
        })
    }

    /// Reads name, email and facts from the sources of the claim plan. A source that cannot be read makes its
    /// facts unknown but does not stop the login, because unknown facts can only reduce access. A re-check
    /// passes the person as known `before`: their facts replace unknown ones, so that an outage takes nothing
    /// away, and the result names the facts that were carried over.
    pub(super) async fn read_person(
        &self,
        provider: &Arc<Provider>,
        access_token: &str,
        identity: &IdTokenIdentity,
        before: Option<&Person>,
    ) -> ReadPerson {
        let plan = &self.config.claims;
        let access_token_claims = payload(access_token);
        let UserinfoOutcome { userinfo, trouble } =
            if claims::needs_userinfo(plan, &identity.claims) {
                self.userinfo(provider, access_token, &identity.sub).await
            } else {
                UserinfoOutcome { userinfo: Userinfo::NotAsked, trouble: None }
            };
        let person = claims::read(
            plan,
            &identity.subject,
            &identity.claims,
            access_token_claims.as_ref(),
            &userinfo,
        );
        let answered = userinfo != Userinfo::Failed;
        match before {
            Some(before) if userinfo.is_silent() => ReadPerson {
                reused_facts: claims::reused_facts(&person, before),
                person: claims::with_facts_of(person, before),
                answered,
                trouble,
            },
            _ => ReadPerson { person, reused_facts: FactSet::default(), answered, trouble },
        }
    }
}

/// Returns our identifier of a person by the preset's rule. For Entra it consists of tenant and object id,
/// which are stable across applications.
pub(super) fn subject_of(form: SubjectForm, claims: &Value) -> Option<String> {
    let text = |name: &str| claims.get(name)?.as_str().filter(|text| !text.is_empty());
    match form {
        SubjectForm::Sub => text("sub").map(str::to_owned),
        SubjectForm::TidOid => Some(format!("{}.{}", text("tid")?, text("oid")?)),
    }
}

/// Returns the payload of a JWT without verifying it. Use it only for an ID token that was verified before,
/// or for an access token that the provider has just sent to us over TLS.
pub(super) fn payload(jwt: &str) -> Option<Value> {
    jws::unverified_claims(jwt)
}
