//! Switches that make the provider misbehave or behave like a specific real provider. All of them are data.

use serde_json::{Map, Value};

/// Changes the text of a response.
pub type ChangeText = fn(&str) -> String;

/// Switches for misbehaviour; by default all are off.
#[derive(Clone, Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is one switch of a test")]
pub struct Misbehaviour {
    // Discovery and keys.
    /// Discovery responds with 503.
    pub discovery_down: bool,
    /// Discovery responds with this status and body.
    pub discovery_answer: Option<(u16, String)>,
    pub change_discovery: Option<fn(&mut Value)>,
    /// The metadata lists only HS256.
    pub only_hs256: bool,
    /// The JWK set responds with 503.
    pub jwks_down: bool,
    pub change_keys: Option<fn(&mut Value)>,
    /// Which keys are published, and which key signs.
    pub keys: KeyUse,
    /// Responses at this path have this content type.
    pub content_type: Option<(&'static str, &'static str)>,
    /// Changes the text of responses at this path.
    pub change_text: Option<(&'static str, ChangeText)>,
    /// Requests to this path never get a response.
    pub silent_at: Option<&'static str>,

    // The browser's redirects.
    /// The authorization endpoint immediately redirects back with this `error`.
    pub authorize_error: Option<String>,
    /// … and with this `error_description`.
    pub authorize_error_description: Option<String>,
    /// The login page is shown even with `prompt=none`.
    pub ignores_prompt: bool,
    pub callback_iss: Option<String>,
    /// No `iss` at the callback.
    pub no_callback_iss: bool,
    /// The authorization endpoint redirects back with `invalid_scope` if this scope is requested.
    pub refused_scope: Option<&'static str>,
    /// The authorization endpoint redirects back with `invalid_request` if this parameter is sent.
    pub refused_param: Option<&'static str>,

    // ID tokens.
    /// ID tokens contain another nonce.
    pub wrong_nonce: bool,
    /// ID tokens contain no nonce.
    pub no_nonce: bool,
    pub id_token_issuer: Option<String>,
    pub id_token_audience: Option<Value>,
    /// `alg` of ID tokens: `none`, `HS256` with the client secret, or one with a public key.
    pub algorithm: Option<String>,
    /// Merged into the header of ID tokens; `null` removes a member.
    pub id_token_header: Map<String, Value>,
    /// ID tokens expired an hour ago.
    pub expired_id_token: bool,
    /// Merged into ID tokens.
    pub extra_claims: Map<String, Value>,
    /// Changes the claims of ID tokens before they are signed.
    pub change_id_token: Option<fn(&mut Value)>,

    // The other sources of claims.
    /// Access tokens are JWTs. Their claims are the result of this function, which receives the claims about
    /// the person.
    pub access_token: Option<fn(&Value) -> Value>,
    /// Userinfo responds with 503.
    pub userinfo_down: bool,
    /// Userinfo responds with this status and body.
    pub userinfo_answer: Option<(u16, String)>,
    /// Changes the claims of userinfo.
    pub change_userinfo: Option<fn(&mut Value)>,
    /// Userinfo is a signed JWT. This function changes its claims, to which `iss` and `aud` were added.
    pub signed_userinfo: Option<fn(&mut Value)>,

    // The token endpoint.
    /// `/token` responds with this status and body.
    pub token_answer: Option<(u16, String)>,
    /// `/token` responds with this status and body to refreshes only.
    pub refresh_answer: Option<(u16, String)>,
    pub change_token_answer: Option<fn(&mut Value)>,
    /// `/token` responds with `invalid_request` to an unknown code, as Dex does.
    pub vague_about_codes: bool,
    /// The only accepted client authentication method: `client_secret_basic` or `client_secret_post`.
    pub only_client_auth: Option<&'static str>,

    // Refresh tokens.
    /// The ID token of a refresh names another person.
    pub other_subject_on_refresh: bool,
    /// Responses to a refresh contain no ID token.
    pub no_id_token_on_refresh: bool,
    /// No refresh token is issued.
    pub no_refresh_token: bool,
    /// A refresh token is issued if the authorization request has these parameters, regardless of its scopes.
    /// With an empty list it is always issued.
    pub refresh_token_needs: Option<&'static [(&'static str, &'static str)]>,
    /// Responses to a refresh contain no refresh token: the current one stays valid.
    pub keeps_refresh_token: bool,
    /// Refresh tokens are single use; a second use ends the session.
    pub strict_rotation: bool,
    /// With strict rotation, the previous token is accepted again for this many seconds.
    pub rotation_grace: i64,
    /// A session ends if its refresh tokens are not used for this many seconds.
    pub refresh_idle: Option<i64>,
    /// This many responses to refreshes break off after the token was rotated.
    pub lose_refresh_answers: u32,
}

/// Which keys are published, and which key signs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KeyUse {
    /// Only the first key is published, and it signs.
    #[default]
    First,
    /// Both keys are published; the first one still signs.
    NextAnnounced,
    /// Both keys are published; the next one signs.
    Next,
    /// Only the first key is published, but the next one signs.
    NextUnpublished,
}
