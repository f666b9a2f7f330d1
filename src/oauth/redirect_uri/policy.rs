//! The administrator's policy: private-use schemes, whole callbacks of apps, and a list of redirect URIs.

use url::Url;

use super::{Loopback, RedirectUri, RedirectUriRefused, app_callbacks};

/// Longest part of a URI that a refusal repeats, in bytes.
const SHOWN: usize = 200;

/// Which redirect URIs may be registered and used.
#[derive(Clone, Debug, Default)]
pub struct RedirectPolicy {
    /// Private-use schemes without the colon, or whole callbacks of apps.
    pub private_schemes: Vec<String>,
    /// The operator's exact list. `None`: only the general rules apply.
    pub allowed: Option<Vec<String>>,
}

impl RedirectPolicy {
    /// Returns the policy without the operator's list.
    #[must_use]
    pub fn without_list(&self) -> Self {
        Self { allowed: None, ..self.clone() }
    }

    /// Checks that a registered URI, or one that it admits, may be used under the current policy. All rules
    /// are applied again.
    pub fn admits(&self, text: &str) -> Result<(), RedirectUriRefused> {
        if Loopback::of(text).is_some() {
            return self.check_list(text); // only the list: the port need not be canonical
        }
        RedirectUri::register(text, self).map(|_| ())
    }

    /// Returns whether the operator listed this address. The port of a loopback URI may differ, as for
    /// clients.
    pub fn lists(&self, text: &str) -> bool {
        let admits = |entry: &String| entry == text || RedirectUri(entry.clone()).admits(text);
        self.allowed.as_ref().is_some_and(|allowed| allowed.iter().any(admits))
    }

    pub(super) fn check_list(&self, text: &str) -> Result<(), RedirectUriRefused> {
        if self.allowed.is_none() || self.lists(text) {
            return Ok(());
        }
        Err(RedirectUriRefused::NotListed(shown(text)))
    }

    /// Checks that a response may go to an app: the scheme is allowed, and the address is a callback. Other
    /// addresses of an app may make it act, for example install what the link names.
    pub(super) fn check_private_scheme(
        &self,
        url: &Url,
        text: &str,
    ) -> Result<(), RedirectUriRefused> {
        let (scheme, names) =
            (url.scheme(), |entry: &str| self.private_schemes.iter().any(|known| known == entry));
        if names(text) {
            return Ok(()); // the administrator listed the whole address
        }
        // A reverse domain name has an owner (RFC 8252 §7.1); any app can claim a bare word.
        if !names(scheme) && !scheme.contains('.') {
            return Err(RedirectUriRefused::SchemeNotListed(shown(scheme)));
        }
        if self.lists(text) {
            return Ok(());
        }
        if app_callbacks::is_known_app(scheme) && !app_callbacks::is_known(scheme, text) {
            return Err(RedirectUriRefused::UnknownCallback(shown(text)));
        }
        if url.query().is_some() {
            return Err(RedirectUriRefused::AppQuery(shown(text)));
        }
        Ok(())
    }
}

/// Returns the beginning of an ASCII text, at most [`SHOWN`] bytes.
fn shown(text: &str) -> String {
    match text.get(..SHOWN) {
        Some(beginning) if text.len() > SHOWN => format!("{beginning}..."),
        _ => text.to_owned(),
    }
}
