//! An authorization request that a page offers to repeat. The page carries it sealed, so that neither the client's
//! parameters nor anybody else's are part of a link, and no other website can make one. Repeating it approves
//! nothing: it leads to `/authorize`, which checks everything again and shows the consent page.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::app::App;
use crate::clock::Timestamp;
use crate::config::paths;
use crate::oauth::authorization_request::{AccountPrompt, AuthorizationRequest};
use crate::oauth::sealed::Purpose;

/// 1 hour: how long a page can repeat its request. Few clients wait longer for the answer.
const REPEATABLE_FOR: Duration = Duration::from_hours(1);

const CONTEXT: &str = "again";

#[derive(Serialize, Deserialize)]
struct RequestToRepeat {
    request: AuthorizationRequest,
    /// Unix seconds.
    expires_at: i64,
}

/// Seals a request for a page that offers to repeat it.
pub fn seal(app: &App, request: &AuthorizationRequest) -> String {
    let expires_at = app.now().plus(REPEATABLE_FOR).unix();
    let sealed = RequestToRepeat { request: request.clone(), expires_at };
    let json = serde_json::to_vec(&sealed).unwrap_or_default();
    app.sealer().seal(Purpose::Consent, CONTEXT, &json)
}

/// Returns the request that [`seal`] sealed, if it was sealed within the last hour.
pub fn open(app: &App, sealed: &str) -> Option<AuthorizationRequest> {
    let json = app.sealer().open(Purpose::Consent, CONTEXT, sealed).ok()?;
    let RequestToRepeat { request, expires_at } = serde_json::from_slice(&json).ok()?;
    (app.now() < Timestamp::from_unix(expires_at)).then_some(request)
}

/// Returns the path and the query that show the consent page for this request. `prompt=consent`, because the
/// browser comes from one of our pages, and a remembered approval would skip the consent page, although another
/// website may have led the person to it (threat CD-02).
pub fn authorize_again(request: &AuthorizationRequest, account: Option<AccountPrompt>) -> String {
    let scope = request.scopes.to_string();
    let prompt = match account {
        None => "consent".to_owned(),
        Some(account) => format!("consent {}", account.as_str()),
    };
    let mut query = form_urlencoded::Serializer::new(String::new());
    query.extend_pairs([
        ("response_type", "code"),
        ("client_id", request.client_id.as_str()),
        ("redirect_uri", request.redirect_uri.as_str()),
        ("code_challenge", request.code_challenge.as_str()),
        ("code_challenge_method", "S256"),
        ("resource", request.resource.as_str()),
        ("prompt", prompt.as_str()),
    ]);
    if !scope.is_empty() {
        query.append_pair("scope", &scope);
    }
    if let Some(state) = &request.state {
        query.append_pair("state", state);
    }
    format!("{}?{}", paths::AUTHORIZE, query.finish())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oauth::scope::ScopeSet;
    use crate::web::params::Params;

    #[test]
    fn the_same_request_is_made_again_and_the_consent_page_is_asked_for() {
        let request = AuthorizationRequest {
            client_id: "https://client.example/a?b&c".to_owned(),
            redirect_uri: "http://127.0.0.1:7/cb?x=1&y=2".to_owned(),
            state: Some("a&b=c#d%20 é".to_owned()),
            code_challenge: "challenge".to_owned(),
            resource: "https://mcp.example.com/mcp".to_owned(),
            scopes: ScopeSet::parse("read write").unwrap(),
            unknown_scopes: "other".to_owned(),
            upstream: std::collections::BTreeSet::from(["github:repo".to_owned()]),
            account: None,
            trace: None,
        };
        let path = authorize_again(&request, None);
        let query = path.strip_prefix("/authorize?").unwrap();
        assert!(query.is_ascii() && !query.contains(' '), "{query}");
        let params = Params::parse(query).unwrap();
        for (name, value) in [
            ("response_type", "code"),
            ("client_id", request.client_id.as_str()),
            ("redirect_uri", request.redirect_uri.as_str()),
            ("state", "a&b=c#d%20 é"),
            ("code_challenge", "challenge"),
            ("code_challenge_method", "S256"),
            ("resource", request.resource.as_str()),
            ("scope", "read write"),
            ("prompt", "consent"),
        ] {
            assert_eq!(params.get(name).unwrap(), Some(value), "{name}");
        }
        let other = authorize_again(&request, Some(AccountPrompt::SelectAccount));
        assert!(other.contains("prompt=consent+select_account"), "{other}");
        let bare = AuthorizationRequest { state: None, scopes: ScopeSet::default(), ..request };
        let bare = authorize_again(&bare, None);
        assert!(!bare.contains("state=") && !bare.contains("scope="), "{bare}");
    }
}
