//! GitHub as a provider. GitHub offers OAuth without ID tokens, so we read the identity and the memberships
//! from its API, with the access token that we got for our own code.

use axum::http::{Request, StatusCode, header};
use serde_json::{Value, json};

use super::metadata::Metadata;
use super::oidc::IdTokenIdentity;
use super::token_response::TokenFailure;
use super::{UpstreamError, UpstreamInner};

/// At most about 1000 entries of a list are read (a page that was begun is read to its end). More entries
/// would cost more requests per re-check; fewer would cut off the memberships of more people.
const MAX_ENTRIES: usize = 1000;
/// At most 20 pages of a list are read. This is more than `MAX_ENTRIES` needs, because GitHub returns some
/// pages with fewer entries than requested.
const MAX_PAGES: u32 = 20;
/// Entries per page; GitHub returns at most 100.
const PER_PAGE: usize = 100;

impl UpstreamInner {
    /// Returns the metadata that a discovery document of GitHub would contain, if it had one.
    pub(super) fn github_metadata(&self) -> Result<Metadata, UpstreamError> {
        let at = &self.config.issuer;
        let at_path = |path: &str| format!("{at}{path}").into();
        let document = [
            ("issuer", at.as_str().into()),
            ("authorization_endpoint", at_path("/login/oauth/authorize")),
            ("token_endpoint", at_path("/login/oauth/access_token")),
            ("jwks_uri", at_path("/no-keys")),
        ];
        let document = document.map(|(name, value)| (name.to_owned(), value)).into_iter().collect();
        Metadata::read(&document, false, false)
            .map_err(|member| UpstreamError::Misconfigured(member.to_string()))
    }

    /// Returns the user of the access token as claims: numeric id, name, email address, organisations, and
    /// teams as `organisation/team`.
    pub(super) async fn github_identity(
        &self,
        access_token: &str,
    ) -> Result<IdTokenIdentity, TokenFailure> {
        let user = self.github_get(access_token, "/user").await?;
        let subject = user["id"]
            .as_u64()
            .ok_or_else(|| TokenFailure::Transient("GitHub names no user".to_owned()))?
            .to_string();
        let (emails, mut all_emails) = self.github_list(access_token, "/user/emails").await?;
        let email = emails.iter().find(|email| email["primary"] == true);
        all_emails |= email.is_some();
        let (organizations, mut all_organizations) =
            self.github_list(access_token, "/user/orgs").await?;
        let listed = organizations.len();
        let organizations: Vec<String> = organizations
            .iter()
            .filter_map(|organization| organization["login"].as_str().map(str::to_owned))
            .collect();
        all_organizations &= organizations.len() == listed;
        let (teams, mut all_teams) = self.github_list(access_token, "/user/teams").await?;
        let listed = teams.len();
        let teams: Vec<String> = teams
            .iter()
            .filter_map(|team| {
                let organization = team.pointer("/organization/login")?.as_str()?;
                Some(format!("{organization}/{}", team["slug"].as_str()?))
            })
            .collect();
        all_teams &= teams.len() == listed;
        let groups = [organizations.as_slice(), &teams].concat();
        let mut claims = json!({
            "sub": subject,
            "name": user["name"].as_str().or(user["login"].as_str()),
            "email": email.and_then(|email| email["email"].as_str()),
            "email_verified": email.is_some_and(|email| email["verified"] == true),
            "organizations": organizations,
            "groups": groups,
        });
        // Marks incomplete lists as OpenID Connect Core §5.6.2 does, so that the reader of claims treats them
        // as unknown.
        for (claim, whole) in [
            ("email", all_emails),
            ("organizations", all_organizations),
            ("groups", all_organizations && all_teams),
        ] {
            if !whole {
                tracing::warn!(claim, "GitHub has more of it than is read: it counts as not known");
                claims["_claim_names"][claim] = "github".into();
            }
        }
        Ok(IdTokenIdentity { sub: subject.clone(), subject, sid: None, claims })
    }

    /// Returns the base URL of the API: of github.com, or of a GitHub Enterprise Server.
    pub(super) fn github_api(&self) -> String {
        match self.config.issuer.as_str() {
            "https://github.com" => "https://api.github.com".to_owned(),
            server => format!("{server}/api/v3"),
        }
    }

    /// Returns a list, and whether it is complete. Very long lists are read only up to `MAX_ENTRIES`.
    async fn github_list(
        &self,
        token: &str,
        path: &str,
    ) -> Result<(Vec<Value>, bool), TokenFailure> {
        let mut all = Vec::new();
        for page in 1..=MAX_PAGES {
            let path = format!("{path}?per_page={PER_PAGE}&page={page}");
            let (answer, more) = self.github_ask(token, &path).await?;
            let Value::Array(items) = answer else {
                return Err(TokenFailure::Transient("GitHub's answer is no list".to_owned()));
            };
            let last = !more.unwrap_or(items.len() >= PER_PAGE);
            all.extend(items);
            if last || all.len() >= MAX_ENTRIES {
                return Ok((all, last));
            }
        }
        Ok((all, false))
    }

    async fn github_get(&self, token: &str, path: &str) -> Result<Value, TokenFailure> {
        Ok(self.github_ask(token, path).await?.0)
    }

    /// Returns the response body, and whether the `Link` header names a next page; `None` without a `Link`
    /// header.
    async fn github_ask(
        &self,
        token: &str,
        path: &str,
    ) -> Result<(Value, Option<bool>), TokenFailure> {
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
            StatusCode::OK => {
                let link = response.headers().get(header::LINK).and_then(|link| link.to_str().ok());
                let more = link.map(|link| link.contains("rel=\"next\""));
                let answer = serde_json::from_slice(response.body()).map_err(|_| {
                    TokenFailure::Transient("GitHub's answer is not JSON".to_owned())
                })?;
                Ok((answer, more))
            }
            // The person or their organisation revoked the authorization.
            StatusCode::UNAUTHORIZED => {
                Err(TokenFailure::Refused("the token is revoked".to_owned()))
            }
            status => Err(TokenFailure::Transient(format!("GitHub answers {status}"))),
        }
    }
}
