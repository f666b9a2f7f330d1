//! What the administrator allows: private-use schemes, whole callbacks of apps, and a list of addresses.

use url::Url;

use super::{Loopback, RedirectUri, RedirectUriRefused, app_callbacks};

/// Longest part of a URI that a refusal repeats.
const SHOWN: usize = 200;

/// Which redirect URIs may be registered and used.
#[derive(Clone, Debug, Default)]
pub struct RedirectPolicy {
    /// Private-use schemes without the colon, or whole callbacks of apps.
    pub private_schemes: Vec<String>,
    /// The operator's exact list; `None` leaves it to the general rules.
    pub allowed: Option<Vec<String>>,
}

impl RedirectPolicy {
    /// The same without the operator's list.
    #[must_use]
    pub fn without_list(&self) -> Self {
        Self { allowed: None, ..self.clone() }
    }

    /// Whether a URI that was registered at some time, or that such a one admits, may be used under this
    /// policy: every rule of today is applied to it.
    pub fn admits(&self, text: &str) -> Result<(), RedirectUriRefused> {
        if Loopback::of(text).is_some() {
            return self.check_list(text); // as presented, a port need not be in its canonical form
        }
        RedirectUri::register(text, self).map(|_| ())
    }

    /// Whether the operator listed this very address; the port is free where it is free for clients.
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

    /// Whether answers may go to an app: its scheme is allowed, and the address is one at which it takes
    /// answers. Many addresses of an app make it do something, such as install what the link says.
    pub(super) fn check_private_scheme(
        &self,
        url: &Url,
        text: &str,
    ) -> Result<(), RedirectUriRefused> {
        let (scheme, names) =
            (url.scheme(), |entry: &str| self.private_schemes.iter().any(|known| known == entry));
        if names(text) {
            return Ok(()); // the administrator wrote the whole address
        }
        // A reverse domain name belongs to somebody (RFC 8252 §7.1); a bare word to anybody.
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

/// The beginning of a text that is ASCII.
fn shown(text: &str) -> String {
    match text.get(..SHOWN) {
        Some(beginning) if text.len() > SHOWN => format!("{beginning}..."),
        _ => text.to_owned(),
    }
}
