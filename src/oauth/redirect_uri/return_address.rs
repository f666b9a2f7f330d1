//! The address of a response: one that the client registered and that the current policy allows. Responses
//! are never sent elsewhere.

use std::fmt;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::{Loopback, RedirectPolicy, RedirectUri, RedirectUriRefused};

/// Why a request has no usable redirect URI.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReturnRefused {
    /// The request must name one, because the client registered several, or a loopback URI, whose port
    /// changes.
    #[error("redirect_uri is required for this client")]
    Required,
    #[error("redirect_uri is not registered for this client")]
    NotRegistered,
    /// Registered, but not allowed by the current configuration.
    #[error("the present configuration does not allow redirect_uri: {0}")]
    NotAllowed(RedirectUriRefused),
}

/// Returns whether `location` is this redirect URI with parameters. An address that only begins with the same
/// letters is another one.
pub fn leads_to(location: &str, redirect_uri: &str) -> bool {
    let parameters = if redirect_uri.contains('?') { ['&', '#'] } else { ['?', '#'] };
    let rest = location.strip_prefix(redirect_uri);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(parameters))
}

/// A redirect URI that the client registered. Responses are sent only to values of this type.
#[derive(Clone, PartialEq, Eq)]
pub struct RegisteredRedirectUri(String);

impl RegisteredRedirectUri {
    /// Returns the redirect URI that a request means. If absent, it is the only registered one, unless that
    /// is on loopback.
    pub fn resolve(
        registered: &[RedirectUri],
        presented: Option<&str>,
    ) -> Result<Self, ReturnRefused> {
        match (presented, registered) {
            (Some(presented), registered) => registered
                .iter()
                .any(|uri| uri.admits(presented))
                .then(|| Self(presented.to_owned()))
                .ok_or(ReturnRefused::NotRegistered),
            (None, [only]) => {
                // The registered port is that of one run, or of another installation of the program.
                let has_free_port = Loopback::of(&only.0).is_some();
                if has_free_port { Err(ReturnRefused::Required) } else { Ok(Self(only.0.clone())) }
            }
            (None, _) => Err(ReturnRefused::Required),
        }
    }

    /// Like [`Self::resolve`], for a client that is subject to `policy`. Registered URIs count only if the
    /// current policy allows them.
    pub fn resolve_under(
        policy: &RedirectPolicy,
        registered: &[RedirectUri],
        presented: Option<&str>,
    ) -> Result<Self, ReturnRefused> {
        let mut allowed = Vec::new();
        let mut refused = None;
        for uri in registered {
            match policy.admits(uri.as_str()) {
                Ok(()) => allowed.push(uri.clone()),
                Err(reason) if presented.is_none_or(|presented| uri.admits(presented)) => {
                    refused = Some(reason);
                }
                Err(_) => {}
            }
        }
        match (Self::resolve(&allowed, presented), refused) {
            (Ok(address), _) => Ok(address),
            (Err(ReturnRefused::Required), _) if !allowed.is_empty() => {
                Err(ReturnRefused::Required)
            }
            (Err(_), Some(reason)) => Err(ReturnRefused::NotAllowed(reason)),
            (Err(refused), None) => Err(refused),
        }
    }

    /// Returns the address as presented.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Appends parameters to the address. The existing text is not changed.
    pub fn with_params(&self, params: &[(&str, &str)]) -> String {
        let mut uri = self.0.clone();
        for (name, value) in params {
            match uri.split_once('?') {
                None => uri.push('?'),
                // An empty query, or one that ends in `&`, needs no separator.
                Some((_, query)) if query.is_empty() || query.ends_with('&') => {}
                Some(_) => uri.push('&'),
            }
            uri.push_str(name);
            uri.push('=');
            uri.extend(utf8_percent_encode(value, FORM_VALUE));
        }
        uri
    }
}

/// The characters that are percent-encoded in a value: all except letters, digits and `-._~`. A space
/// becomes `%20`.
const FORM_VALUE: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

impl fmt::Debug for RegisteredRedirectUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RegisteredRedirectUri").finish_non_exhaustive()
    }
}
