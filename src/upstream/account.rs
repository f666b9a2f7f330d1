//! Letting a person choose the account: `prompt` (OpenID Connect Core §3.1.2.1).
//!
//! Of all that a client may write into `prompt`, its wish for `login` or `select_account` alone goes on to the provider,
//! and that where the provider knows it: some refuse a sign-in for a value that they do not know. `none` and `consent`
//! are between the provider and us.

use url::Url;

use super::metadata::Metadata;
use super::{Inner, Upstream};
use crate::oauth::authorization_request::AccountPrompt;

impl Upstream {
    /// Whether the provider can be asked to let a person choose, as far as that is known: nobody is asked, because a
    /// page must not wait for the provider.
    pub async fn lets_choose_account(&self) -> bool {
        let provider = self.0.known_metadata().await;
        let metadata = provider.as_ref().map(|provider| &provider.metadata);
        self.0.account_prompt(AccountPrompt::SelectAccount, metadata).is_some()
    }
}

impl Inner {
    /// What the provider is asked for somebody who wants to choose: what was wanted, where the provider knows it, else
    /// the other one. Either lets a person change accounts, and nobody relies on more: clients hear nothing of it.
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

/// The authorization request with this choice beside what is configured: a provider that must be asked for `consent` to
/// issue a refresh token is asked for both. `none` stands alone or not at all.
pub(super) fn with_choice(url: Url, choice: Option<AccountPrompt>) -> Url {
    let Some(choice) = choice.map(AccountPrompt::as_str) else { return url };
    let configured = url.query_pairs().find(|(name, _)| name == "prompt");
    let configured = configured.map(|(_, value)| value.into_owned()).unwrap_or_default();
    let others = configured.split(' ').filter(|value| !["", "none", choice].contains(value));
    let values: Vec<&str> = others.chain([choice]).collect();
    super::with_prompt(url, Some(&values.join(" ")))
}
