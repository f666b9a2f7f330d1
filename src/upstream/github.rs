//! GitHub speaks OAuth and has no ID token: who somebody is, and where they belong, is asked of its API
//! with the access token that our own code was redeemed for.

use axum::http::{Request, StatusCode, header};
use serde_json::{Value, json};

use super::metadata::Metadata;
use super::oidc::Identity;
use super::token_response::TokenFailure;
use super::{Inner, UpstreamError};

/// Most entries read of a list.
const MAX_ENTRIES: usize = 1000;
/// Most pages read of a list: some are shorter than was asked for.
const MAX_PAGES: u32 = 20;
const PER_PAGE: usize = 100;

impl Inner {
    /// What a discovery document would say, if GitHub had one.
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
        // As OpenID Connect says that a claim is not told whole (Core §5.6.2): the reader of claims knows it.
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
        Ok(Identity { sub: subject.clone(), subject, sid: None, claims })
    }

    /// Where the API is: of github.com, or of an own GitHub Enterprise Server.
    pub(super) fn github_api(&self) -> String {
        match self.config.issuer.as_str() {
            "https://github.com" => "https://api.github.com".to_owned(),
            server => format!("{server}/api/v3"),
        }
    }

    /// A list, and whether it is whole: of a very long one only the beginning is read.
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

    /// An answer, and whether `Link` names a next page; `None` where there is no `Link`.
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
            // The person, or their organisation, has withdrawn what they allowed.
            StatusCode::UNAUTHORIZED => {
                Err(TokenFailure::Refused("the token is revoked".to_owned()))
            }
            status => Err(TokenFailure::Transient(format!("GitHub answers {status}"))),
        }
    }
}
