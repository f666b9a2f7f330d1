//! GitHub speaks OAuth and has no ID token: who somebody is, and where they belong, is asked of its API
//! with the access token that our own code was redeemed for.

use axum::http::{Request, StatusCode, header};
use serde_json::{Value, json};

use super::answer::TokenFailure;
use super::oidc::Identity;
use super::provider::Metadata;
use super::{Inner, UpstreamError};

/// Most pages read of a list; a hundred entries each.
const MAX_PAGES: u32 = 10;
const PER_PAGE: usize = 100;

impl Inner {
    /// What a discovery document would say, if GitHub had one.
    pub(super) fn github_metadata(&self) -> Result<Metadata, UpstreamError> {
        let at = &self.config.issuer;
        serde_json::from_value(json!({
            "issuer": at,
            "authorization_endpoint": format!("{at}/login/oauth/authorize"),
            "token_endpoint": format!("{at}/login/oauth/access_token"),
            "jwks_uri": format!("{at}/no-keys"),
            "response_types_supported": ["code"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["RS256"],
        }))
        .map_err(|error| UpstreamError::Misconfigured(error.to_string()))
    }

    /// Who the access token belongs to, as claims: number, name, address, organisations, and teams as
    /// `organisation/team`.
    pub(super) async fn github_identity(
        &self,
        access_token: &str,
    ) -> Result<Identity, TokenFailure> {
        let user = self.github_get(access_token, "/user").await?;
        let subject = user["id"]
            .as_u64()
            .ok_or_else(|| TokenFailure::Transient("GitHub names no user".to_owned()))?
            .to_string();
        let emails = self.github_list(access_token, "/user/emails").await?;
        let email = emails.iter().find(|email| email["primary"] == true);
        let organizations: Vec<String> = self
            .github_list(access_token, "/user/orgs")
            .await?
            .iter()
            .filter_map(|organization| organization["login"].as_str().map(str::to_owned))
            .collect();
        let teams = self.github_list(access_token, "/user/teams").await?;
        let mut groups = organizations.clone();
        groups.extend(teams.iter().filter_map(|team| {
            let organization = team.pointer("/organization/login")?.as_str()?;
            Some(format!("{organization}/{}", team["slug"].as_str()?))
        }));
        let claims = json!({
            "sub": subject,
            "name": user["name"].as_str().or(user["login"].as_str()),
            "email": email.and_then(|email| email["email"].as_str()),
            "email_verified": email.is_some_and(|email| email["verified"] == true),
            "organizations": organizations,
            "groups": groups,
        });
        Ok(Identity { sub: subject.clone(), subject, sid: None, claims })
    }

    /// Where the API is: of github.com, or of an own GitHub Enterprise Server.
    pub(super) fn github_api(&self) -> String {
        match self.config.issuer.as_str() {
            "https://github.com" => "https://api.github.com".to_owned(),
            server => format!("{server}/api/v3"),
        }
    }

    async fn github_list(&self, token: &str, path: &str) -> Result<Vec<Value>, TokenFailure> {
        let mut all = Vec::new();
        for page in 1..=MAX_PAGES {
            let path = format!("{path}?per_page={PER_PAGE}&page={page}");
            let Value::Array(items) = self.github_get(token, &path).await? else {
                return Err(TokenFailure::Transient("GitHub's answer is no list".to_owned()));
            };
            let last = items.len() < PER_PAGE;
            all.extend(items);
            if last {
                return Ok(all);
            }
        }
        Ok(all)
    }

    async fn github_get(&self, token: &str, path: &str) -> Result<Value, TokenFailure> {
        let request = Request::get(format!("{}{path}", self.github_api()))
            .header(header::AUTHORIZATION, format!("Bearer {token}"))
            .header(header::ACCEPT, "application/vnd.github+json")
            .header(header::USER_AGENT, "portcullis")
            .body(Vec::new())
            .map_err(|error| TokenFailure::Ours(error.to_string()))?;
        let response = self
            .http
            .send(request)
            .await
            .map_err(|error| TokenFailure::Transient(error.to_string()))?;
        match response.status() {
            StatusCode::OK => serde_json::from_slice(response.body())
                .map_err(|_| TokenFailure::Transient("GitHub's answer is not JSON".to_owned())),
            // The person, or their organisation, has withdrawn what they allowed.
            StatusCode::UNAUTHORIZED => {
                Err(TokenFailure::Refused("the token is revoked".to_owned()))
            }
            status => Err(TokenFailure::Transient(format!("GitHub answers {status}"))),
        }
    }
}
