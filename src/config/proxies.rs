//! Proxies on the way out, as the environment names them: `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and
//! `NO_PROXY`, in upper or lower case. They are read at start; a reload keeps them.

use super::SecretText;

/// The proxies of this environment.
#[derive(Clone, Debug, Default)]
pub struct Proxies {
    /// For `https://`.
    pub https: Option<Proxy>,
    /// For `http://`.
    pub http: Option<Proxy>,
    /// The entries of `NO_PROXY`.
    pub exceptions: Vec<String>,
}

/// A forward proxy.
#[derive(Clone, Debug)]
pub struct Proxy {
    /// The variable that names it.
    pub variable: &'static str,
    /// Its URL; may hold a user name and a password.
    pub url: SecretText,
    /// Scheme, host and port alone, for logs and messages.
    pub shown: String,
}
