//! Forward proxies from the environment: `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY`, in upper or
//! lower case. They are read at start; a reload keeps them.

use super::SecretText;

/// The forward proxies of this environment.
#[derive(Clone, Debug, Default)]
pub struct Proxies {
    /// Proxy for `https://` URLs.
    pub https: Option<Proxy>,
    /// Proxy for `http://` URLs.
    pub http: Option<Proxy>,
    /// The entries of `NO_PROXY`.
    pub exceptions: Vec<String>,
}

#[derive(Clone, Debug)]
pub struct Proxy {
    /// The environment variable that names it.
    pub variable: &'static str,
    /// Its URL; may contain a user name and a password.
    pub url: SecretText,
    /// Only scheme, host and port, for logs and messages.
    pub shown: String,
}
