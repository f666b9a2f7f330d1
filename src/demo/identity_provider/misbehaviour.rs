//! Ways to behave badly, or as some provider out there really does: all of them data.

use serde_json::{Map, Value};

/// Makes another text of an answer.
pub type ChangeText = fn(&str) -> String;

/// Ways to behave badly; the default is to behave well.
#[derive(Clone, Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is one switch of a test")]
pub struct Misbehaviour {
    // Discovery and keys.
    /// Discovery answers 503.
    pub discovery_down: bool,
    /// Discovery answers this status and body.
    pub discovery_answer: Option<(u16, String)>,
    /// Changes what discovery says.
    pub change_discovery: Option<fn(&mut Value)>,
    /// The metadata lists HS256 alone.
    pub only_hs256: bool,
    /// The keys answer 503.
    pub jwks_down: bool,
    /// Changes the published keys.
    pub change_keys: Option<fn(&mut Value)>,
    /// Which keys are published, and which one signs.
    pub keys: KeyUse,
    /// Answers at this path have this content type.
    pub content_type: Option<(&'static str, &'static str)>,
    /// Changes the text of answers at this path.
    pub change_text: Option<(&'static str, ChangeText)>,
    /// Requests to this path are never answered.
    pub silent_at: Option<&'static str>,

    // The way through the browser.
    /// The browser comes back with this `error` at once.
    pub authorize_error: Option<String>,
    /// … and with this `error_description`.
    pub authorize_error_description: Option<String>,
    /// The login page comes whatever `prompt` says.
    pub ignores_prompt: bool,
    /// `iss` on the way back.
    pub callback_iss: Option<String>,
    /// No `iss` on the way back.
    pub no_callback_iss: bool,
    /// The browser comes back with `invalid_scope` when this scope is asked for.
    pub refused_scope: Option<&'static str>,
    /// The browser comes back with `invalid_request` when this parameter is sent.
    pub refused_param: Option<&'static str>,

    // ID tokens.
    /// ID tokens carry another nonce.
    pub wrong_nonce: bool,
    /// ID tokens carry no nonce.
    pub no_nonce: bool,
    /// `iss` of ID tokens.
    pub id_token_issuer: Option<String>,
    /// `aud` of ID tokens.
    pub id_token_audience: Option<Value>,
    /// `alg` of ID tokens: `none`, `HS256` with the client secret, or any of a public key.
    pub algorithm: Option<String>,
    /// Merged into the header of ID tokens; null takes a member out.
    pub id_token_header: Map<String, Value>,
    /// ID tokens have expired an hour ago.
    pub expired_id_token: bool,
    /// Merged into ID tokens.
    pub extra_claims: Map<String, Value>,
    /// Changes the claims of ID tokens before they are signed.
    pub change_id_token: Option<fn(&mut Value)>,

    // The other sources of claims.
    /// Access tokens are JWTs with what this makes of the claims about the person.
    pub access_token: Option<fn(&Value) -> Value>,
    /// Userinfo answers 503.
    pub userinfo_down: bool,
    /// Userinfo answers this status and body.
    pub userinfo_answer: Option<(u16, String)>,
    /// Changes what userinfo says.
    pub change_userinfo: Option<fn(&mut Value)>,
    /// Userinfo is a signed JWT, with `iss` and `aud` beside the claims and what this makes of them.
    pub signed_userinfo: Option<fn(&mut Value)>,

    // The token endpoint.
    /// `/token` answers this status and body.
    pub token_answer: Option<(u16, String)>,
    /// `/token` answers so for refreshes only.
    pub refresh_answer: Option<(u16, String)>,
    /// Changes answers with tokens.
    pub change_token_answer: Option<fn(&mut Value)>,
    /// `/token` says `invalid_request` for a code that it does not know, as Dex does.
    pub vague_about_codes: bool,
    /// The client is accepted with this method only: `client_secret_basic` or `client_secret_post`.
    pub only_client_auth: Option<&'static str>,

    // Refresh tokens.
    /// A refresh answers with somebody else's ID token.
    pub other_subject_on_refresh: bool,
    /// A refresh answers without an ID token.
    pub no_id_token_on_refresh: bool,
    /// No refresh token is issued.
    pub no_refresh_token: bool,
    /// A refresh token needs these authorization parameters, whatever scopes are asked for; one needs
    /// nothing when the list is empty.
    pub refresh_token_needs: Option<&'static [(&'static str, &'static str)]>,
    /// A refresh answers without a refresh token: the one at hand stays.
    pub keeps_refresh_token: bool,
    /// Refresh tokens are single use; a second use kills the session.
    pub strict_rotation: bool,
    /// With strict rotation, the previous token may come again for so many seconds.
    pub rotation_grace: i64,
    /// A session whose refresh tokens rest for so many seconds is over.
    pub refresh_idle: Option<i64>,
    /// The answer to a refresh breaks off after the token was rotated; that many times.
    pub lose_refresh_answers: u32,
}

/// Which keys are published, and which one signs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KeyUse {
    /// The first alone.
    #[default]
    First,
    /// Both; the first still signs.
    NextAnnounced,
    /// Both; the next signs.
    Next,
    /// The first is published, and the next signs.
    NextUnpublished,
}
