//! Account choice at the provider with `prompt` (OpenID Connect Core §3.1.2.1).
//!
//! Of the values that a client may send in `prompt`, we forward only `login` and `select_account`, and only
//! if the provider knows the value: some providers reject a sign-in with an unknown value. `none` and
//! `consent` are a matter between the provider and us.

use url::Url;

use super::metadata::Metadata;
use super::{Upstream, UpstreamInner};
use crate::oauth::authorization_request::AccountPrompt;

impl Upstream {
    /// Returns whether the provider can let a person choose the account, as far as we know. Uses only cached
    /// metadata, because a page must not wait for the provider.
    pub async fn lets_choose_account(&self) -> bool {
        self.choice_of_account().await.is_some()
    }

    /// Returns the `prompt` with which it does.
    pub(super) async fn choice_of_account(&self) -> Option<AccountPrompt> {
        let provider = self.0.known_metadata().await;
        let metadata = provider.as_ref().map(|provider| &provider.metadata);
        self.0.account_prompt(AccountPrompt::SelectAccount, metadata)
    }
}

impl UpstreamInner {
    /// Returns the `prompt` value to send for a person who wants to choose: the wanted value if the provider
    /// knows it, otherwise the other one. Both let a person change accounts, and no client relies on the
    /// difference, because clients do not learn which value was sent.
    pub(super) fn account_prompt(
        &self,
        wanted: AccountPrompt,
        metadata: Option<&Metadata>,
    ) -> Option<AccountPrompt> {
        let listed = metadata.map(|metadata| &metadata.prompt_values_supported);
        let listed = listed.filter(|listed| !listed.is_empty());
        let knows = |prompt: AccountPrompt| match listed {
            Some(listed) => listed.iter().any(|value| value == prompt.as_str()),
            None => self.config.preset.account_prompts.contains(&prompt),
        };
        let other = match wanted {
            AccountPrompt::Login => AccountPrompt::SelectAccount,
            AccountPrompt::SelectAccount => AccountPrompt::Login,
        };
        [wanted, other].into_iter().find(|prompt| knows(*prompt))
    }
}

/// Adds the choice to the `prompt` of the authorization request. The configured values stay: a provider that
/// needs `consent` to issue a refresh token receives both. `none` must not be combined, so it is removed.
pub(super) fn with_choice(url: Url, choice: Option<AccountPrompt>) -> Url {
    let Some(choice) = choice.map(AccountPrompt::as_str) else { return url };
    if !super::may_have_prompt(&url) {
        return super::with_prompt(url, Some(choice));
    }
    let configured = url.query_pairs().find(|(name, _)| name == "prompt");
    let configured = configured.map(|(_, value)| value.into_owned()).unwrap_or_default();
    let others = configured.split(' ').filter(|value| !["", "none", choice].contains(value));
    let values: Vec<&str> = others.chain([choice]).collect();
    super::with_prompt(url, Some(&values.join(" ")))
}
