//! Secrets: generated in one place, hashed by kind, never printed.
//!
//! A secret has the form `<kind>_<id>.<secret>`. The time-ordered id finds the row, and the hash of the
//! whole text proves the secret. The kind is part of the hash, so that a code can never be used as a refresh
//! token (threat AC-04).

use std::fmt;
use std::marker::PhantomData;

use aws_lc_rs::digest;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rand::TryRng;
use zeroize::Zeroizing;

use crate::clock::{Clock, Timestamp};

/// Returns random bytes from the operating system. All secrets and ids come from here, except for the ids of
/// traces (`telemetry/trace_context.rs`); signing keys come from the cryptographic library's own generator.
///
/// # Panics
/// If the operating system has no randomness. Nothing safe can be done without it.
#[expect(clippy::expect_used, reason = "without randomness no answer is a safe one")]
pub fn random_bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    rand::rngs::SysRng.try_fill_bytes(&mut bytes).expect("the operating system has randomness");
    bytes
}

/// Returns 256 random bits as 43 characters of `[A-Za-z0-9_-]`.
pub fn random_text() -> String {
    URL_SAFE_NO_PAD.encode(random_bytes::<32>())
}

/// Returns a new row id: 48 bits of time in milliseconds, then 80 random bits, as 32 lower-case hex digits.
///
/// Newer ids sort later. Random keys would halve the database's durable write rate.
pub fn new_id(clock: &Clock) -> String {
    let random = u128::from_be_bytes(random_bytes::<16>()) >> 48;
    format!("{:012x}{random:020x}", clock.unix_millis())
}

/// Returns when a row id was made, in whole seconds. Returns the far future if it is no id.
pub fn made_at(id: &str) -> Timestamp {
    let millis = id.get(..12).and_then(|time| i64::from_str_radix(time, 16).ok());
    Timestamp::from_unix(millis.map_or(i64::MAX, |millis| millis / 1000))
}

/// The purpose of a secret. Kinds cannot be swapped: each has its own prefix and its own hash domain.
pub trait SecretKind: fmt::Debug + Clone + Copy + Send + Sync + 'static {
    /// The part before the underscore.
    const PREFIX: &'static str;
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident = $prefix:literal;)*) => {
        $(
            $(#[$doc])*
            #[derive(Debug, Clone, Copy, PartialEq, Eq)]
            pub struct $name;
            impl SecretKind for $name {
                const PREFIX: &'static str = $prefix;
            }
        )*
    };
}

kinds! {
    /// The authorization code a client redeems at the token endpoint.
    AuthorizationCode = "ac";
    /// The refresh token a client holds.
    RefreshToken = "rt";
    /// The secret of a confidential client.
    ClientSecret = "cs";
    /// The token with which a client manages its own registration (RFC 7592).
    RegistrationToken = "ra";
    /// The `state` that travels through the identity provider.
    LoginState = "ls";
    /// The cookie that binds a login to one browser.
    BrowserBinding = "bb";
    /// The `state` of a sign-in to the admin pages.
    AdminState = "ca";
    /// The `state` of a sign-in to `/account`.
    AccountState = "cp";
    /// The `state` that travels through a service that a person connects.
    ConnectState = "cx";
    /// The session cookie of a person who is signed in to our pages.
    ConsoleSession = "cn";
    /// The cookie of a remembered approval.
    RememberedConsent = "rc";
    /// The cookie of a login that waits for an administrator.
    HeldLogin = "hl";
    /// The token of a metrics scraper, chosen by the administrator.
    MetricsToken = "mt";
}

/// A secret in clear text. Never stored, never printed, erased from memory when dropped.
pub struct Secret<K: SecretKind> {
    text: Zeroizing<String>,
    kind: PhantomData<K>,
}

impl<K: SecretKind> Secret<K> {
    /// Generates a new secret for the row `id`, see [`new_id`].
    pub fn generate(id: &str) -> Self {
        Self::from_text(format!("{}_{id}.{}", K::PREFIX, random_text()))
    }

    /// Parses a presented secret. `None` if it does not have the form of this kind.
    pub fn parse(presented: &str) -> Option<Self> {
        let rest = presented.strip_prefix(K::PREFIX)?.strip_prefix('_')?;
        let (id, secret) = rest.split_once('.')?;
        let id_fits = id.len() == 32 && id.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        let secret_fits = secret.len() == 43
            && secret.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
        (id_fits && secret_fits).then(|| Self::from_text(presented.to_owned()))
    }

    pub(super) fn from_text(text: String) -> Self {
        Self { text: Zeroizing::new(text), kind: PhantomData }
    }

    /// Returns the id of the row that this secret belongs to.
    pub fn id(&self) -> &str {
        let start = K::PREFIX.len() + 1;
        self.text.get(start..start + 32).unwrap_or_default()
    }

    /// Returns the text, for its holder only.
    pub fn expose(&self) -> &str {
        &self.text
    }

    /// Returns the hash, the only form that is stored.
    pub fn hash(&self) -> SecretHash<K> {
        SecretHash::of(&self.text)
    }
}

impl<K: SecretKind> Clone for Secret<K> {
    fn clone(&self) -> Self {
        Self { text: self.text.clone(), kind: PhantomData }
    }
}

impl<K: SecretKind> fmt::Debug for Secret<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret<{}>", K::PREFIX)
    }
}

/// SHA-256 of a secret and its kind, in base64url. Storage sees nothing else.
///
/// A fast hash is enough, because 256 random bits cannot be guessed.
#[derive(Clone)]
pub struct SecretHash<K: SecretKind> {
    text: String,
    kind: PhantomData<K>,
}

impl<K: SecretKind> SecretHash<K> {
    /// Hashes `secret` in the domain of `K`.
    pub fn of(secret: &str) -> Self {
        let mut context = digest::Context::new(&digest::SHA256);
        context.update(b"portcullis secret ");
        context.update(K::PREFIX.as_bytes());
        context.update(b"\0");
        context.update(secret.as_bytes());
        Self { text: URL_SAFE_NO_PAD.encode(context.finish()), kind: PhantomData }
    }

    /// Returns the hash as it is stored.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Returns whether `stored` is this hash, in constant time.
    pub fn is(&self, stored: &str) -> bool {
        aws_lc_rs::constant_time::verify_slices_are_equal(self.text.as_bytes(), stored.as_bytes())
            .is_ok()
    }
}

impl<K: SecretKind> fmt::Debug for SecretHash<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretHash<{}>", K::PREFIX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{ManualClock, Timestamp};

    fn clock() -> Clock {
        Clock::Manual(ManualClock::at(Timestamp::from_unix(1_800_000_000)))
    }

    #[test]
    fn ac_04_a_secret_of_one_kind_is_not_one_of_another() {
        let code = Secret::<AuthorizationCode>::generate(&new_id(&clock()));

        assert!(Secret::<AuthorizationCode>::parse(code.expose()).is_some());
        assert!(Secret::<RefreshToken>::parse(code.expose()).is_none());
        assert_ne!(
            SecretHash::<RefreshToken>::of("x").as_str(),
            SecretHash::<AuthorizationCode>::of("x").as_str()
        );
    }

    #[test]
    fn debug_output_holds_no_secret() {
        let code = Secret::<AuthorizationCode>::generate(&new_id(&clock()));

        assert_eq!(format!("{code:?} {:?}", code.hash()), "Secret<ac> SecretHash<ac>");
    }

    #[test]
    fn ac_08_ids_sort_by_time_and_secrets_do_not_repeat() {
        let hand = ManualClock::at(Timestamp::from_unix(1_800_000_000));
        let clock = Clock::Manual(hand.clone());
        let earlier = new_id(&clock);
        hand.advance(1);
        assert!(earlier < new_id(&clock));

        let many: std::collections::HashSet<String> = (0..10_000).map(|_| random_text()).collect();
        assert_eq!(many.len(), 10_000);
    }
}
