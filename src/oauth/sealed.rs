//! Authenticated encryption of data that others hold or store for us.
//!
//! AES-256-GCM with a random nonce, or with one derived from the message if equal messages must give equal
//! texts. The installation's secret key never encrypts anything itself: each [`Purpose`] has a key of its
//! own, derived with HKDF-SHA-256. Each sealed text is bound to its context (table, column and row, or the
//! page that carries it), so that it cannot be moved elsewhere.

use std::fmt;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Salt};
use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use zeroize::Zeroizing;

use super::secret::{Kind, Secret, random_bytes};

/// The text was not sealed by us, was changed or moved, or was sealed with another key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the sealed text cannot be opened")]
pub struct CannotOpen;

/// The purpose of a sealed text or MAC. Each has its own key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Columns of the database.
    Storage,
    /// Data that browsers hold for us, such as the request in the consent page.
    Consent,
    /// Session ids of MCP servers, which clients hold.
    Session,
    /// The hash chain of the audit trail.
    Audit,
    /// The search index of people.
    Search,
    /// Proof that a sign-in to our pages began here.
    SignIn,
    /// Proof of what a confirmation page showed.
    Confirmation,
}

/// The keys for every purpose, derived from the installation's secret key.
#[derive(Clone)]
pub struct Sealer {
    storage: Key,
    consent: Key,
    session: Key,
    session_nonce: Key,
    audit: Key,
    search: Key,
    sign_in: Key,
    confirmation: Key,
}

impl Sealer {
    /// Derives the keys from the installation's secret key, which may have any length.
    pub fn new(secret_key: &[u8]) -> Self {
        Self {
            storage: Key::derive(secret_key, b"portcullis storage v1"),
            consent: Key::derive(secret_key, b"portcullis consent v1"),
            session: Key::derive(secret_key, b"portcullis session v1"),
            session_nonce: Key::derive(secret_key, b"portcullis session nonce v1"),
            audit: Key::derive(secret_key, b"portcullis audit v1"),
            search: Key::derive(secret_key, b"portcullis search v1"),
            sign_in: Key::derive(secret_key, b"portcullis sign-in v1"),
            confirmation: Key::derive(secret_key, b"portcullis confirmation v1"),
        }
    }

    /// Seals `plaintext`. It opens only with the same purpose and `context`.
    pub fn seal(&self, purpose: Purpose, context: &str, plaintext: &[u8]) -> String {
        self.key(purpose).seal(context, plaintext)
    }

    /// Seals a session id of an MCP server ([`Purpose::Session`]) deterministically: the same text in the
    /// same context gives the same result in every replica, because clients compare session ids.
    ///
    /// The nonce is an HMAC of context and text under its own key (the idea of RFC 5297). It repeats only
    /// for the same message, and reveals only that the message is the same.
    pub fn seal_alike(&self, context: &str, plaintext: &[u8]) -> String {
        let key = hmac::Key::new(hmac::HMAC_SHA256, self.session_nonce.0.as_ref());
        let mut mac = hmac::Context::with_key(&key);
        mac.update(&(context.len() as u64).to_be_bytes());
        mac.update(context.as_bytes());
        mac.update(plaintext);
        let mut nonce = [0; NONCE_LEN];
        for (to, from) in nonce.iter_mut().zip(mac.sign().as_ref()) {
            *to = *from;
        }
        self.session.seal_with(nonce, context, plaintext)
    }

    /// Opens a text from [`Self::seal`] or [`Self::seal_alike`] with the same purpose and context.
    pub fn open(
        &self,
        purpose: Purpose,
        context: &str,
        sealed: &str,
    ) -> Result<Zeroizing<Vec<u8>>, CannotOpen> {
        self.key(purpose).open(context, sealed)
    }

    fn key(&self, purpose: Purpose) -> &Key {
        match purpose {
            Purpose::Storage => &self.storage,
            Purpose::Consent => &self.consent,
            Purpose::Session => &self.session,
            Purpose::Audit => &self.audit,
            Purpose::Search => &self.search,
            Purpose::SignIn => &self.sign_in,
            Purpose::Confirmation => &self.confirmation,
        }
    }

    /// Returns an HMAC-SHA-256 over `parts`. The length of each part is included, so that different lists
    /// never give the same input. Only a holder of the secret key can compute it.
    pub fn mac(&self, purpose: Purpose, parts: &[&[u8]]) -> String {
        let key = hmac::Key::new(hmac::HMAC_SHA256, self.key(purpose).0.as_ref());
        let mut context = hmac::Context::with_key(&key);
        for part in parts {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part);
        }
        URL_SAFE_NO_PAD.encode(context.sign())
    }
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sealer")
    }
}

/// Seals `successor` so that only the holder of `presented` can open it (rule R1). The database does not
/// suffice, not even together with the installation's secret key.
pub fn seal_under<K: Kind>(presented: &Secret<K>, successor: &Secret<K>) -> String {
    Key::derive(presented.expose().as_bytes(), b"portcullis successor v1")
        .seal(presented.id(), successor.expose().as_bytes())
}

/// Opens a secret that [`seal_under`] sealed with the same presented secret.
pub fn open_under<K: Kind>(presented: &Secret<K>, sealed: &str) -> Result<Secret<K>, CannotOpen> {
    let opened = Key::derive(presented.expose().as_bytes(), b"portcullis successor v1")
        .open(presented.id(), sealed)?;
    std::str::from_utf8(&opened).ok().and_then(Secret::parse).ok_or(CannotOpen)
}

#[derive(Clone)]
struct Key(Zeroizing<[u8; 32]>);

struct KeyLength;

impl KeyType for KeyLength {
    fn len(&self) -> usize {
        32
    }
}

impl Key {
    #[expect(clippy::expect_used, reason = "HKDF only fails for more than 8,160 bytes; we ask 32")]
    fn derive(secret: &[u8], info: &[u8]) -> Self {
        let mut key = Zeroizing::new([0; 32]);
        Salt::new(HKDF_SHA256, b"portcullis")
            .extract(secret)
            .expand(&[info], KeyLength)
            .and_then(|okm| okm.fill(key.as_mut()))
            .expect("32 bytes are within HKDF's bound");
        Self(key)
    }

    #[expect(clippy::expect_used, reason = "the key has the length that AES-256 wants")]
    fn cipher(&self) -> LessSafeKey {
        LessSafeKey::new(UnboundKey::new(&AES_256_GCM, self.0.as_ref()).expect("32 bytes"))
    }

    fn seal(&self, context: &str, plaintext: &[u8]) -> String {
        self.seal_with(random_bytes::<NONCE_LEN>(), context, plaintext)
    }

    #[expect(clippy::expect_used, reason = "AES-GCM only fails beyond 64 GiB")]
    fn seal_with(&self, nonce: [u8; NONCE_LEN], context: &str, plaintext: &[u8]) -> String {
        let mut sealed = plaintext.to_vec();
        self.cipher()
            .seal_in_place_append_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(context.as_bytes()),
                &mut sealed,
            )
            .expect("the text is far below 64 GiB");
        let mut framed = nonce.to_vec();
        framed.append(&mut sealed);
        URL_SAFE_NO_PAD.encode(framed)
    }

    fn open(&self, context: &str, sealed: &str) -> Result<Zeroizing<Vec<u8>>, CannotOpen> {
        let framed = URL_SAFE_NO_PAD.decode(sealed).map_err(|_| CannotOpen)?;
        let (nonce, body) = framed.split_at_checked(NONCE_LEN).ok_or(CannotOpen)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| CannotOpen)?;
        let mut body = Zeroizing::new(body.to_vec());
        let length = self
            .cipher()
            .open_in_place(nonce, Aad::from(context.as_bytes()), &mut body)
            .map_err(|_| CannotOpen)?
            .len();
        body.truncate(length);
        Ok(body)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{Clock, ManualClock, Timestamp};
    use crate::oauth::secret::{RefreshToken, new_id};

    #[test]
    fn p12_a_sealed_text_opens_only_where_it_was_sealed() {
        let sealer = Sealer::new(b"one key");
        let sealed = sealer.seal(Purpose::Storage, "logins.request.1", b"hello");

        let open = |sealer: &Sealer, purpose, context| sealer.open(purpose, context, &sealed);
        assert_eq!(
            open(&sealer, Purpose::Storage, "logins.request.1").unwrap().as_slice(),
            b"hello"
        );
        assert!(open(&sealer, Purpose::Storage, "logins.request.2").is_err());
        assert!(open(&sealer, Purpose::Consent, "logins.request.1").is_err());
        assert!(open(&Sealer::new(b"other"), Purpose::Storage, "logins.request.1").is_err());
    }

    #[test]
    fn f9_a_changed_byte_anywhere_is_noticed() {
        let sealer = Sealer::new(b"one key");
        let sealed = sealer.seal(Purpose::Consent, "page", b"hello");
        for position in 0..sealed.len() {
            let mut changed = sealed.clone().into_bytes();
            changed[position] = if changed[position] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(changed).unwrap();
            if changed != sealed {
                assert_eq!(sealer.open(Purpose::Consent, "page", &changed), Err(CannotOpen));
            }
        }
        assert_eq!(sealer.open(Purpose::Consent, "page", ""), Err(CannotOpen));
    }

    #[test]
    fn gw_06_what_is_sealed_alike_differs_wherever_anything_differs() {
        let sealer = Sealer::new(b"one key");
        let sealed = sealer.seal_alike("bob", b"session");
        assert_eq!(Sealer::new(b"one key").seal_alike("bob", b"session"), sealed);
        let others = [
            sealer.seal_alike("alice", b"session"),
            sealer.seal_alike("bob", b"session2"),
            sealer.seal_alike("bobs", b"ession"),
            Sealer::new(b"other").seal_alike("bob", b"session"),
        ];
        for other in &others {
            assert_ne!(other.get(..16), sealed.get(..16), "another nonce");
        }
        assert_eq!(sealer.open(Purpose::Session, "bob", &sealed).unwrap().as_slice(), b"session");
        assert!(sealer.open(Purpose::Session, "alice", &sealed).is_err());
        assert!(sealer.open(Purpose::Storage, "bob", &sealed).is_err());
    }

    #[test]
    fn t8_a_successor_opens_only_for_the_holder_of_its_parent() {
        let clock = Clock::Manual(ManualClock::at(Timestamp::from_unix(1)));
        let parent = Secret::<RefreshToken>::generate(&new_id(&clock));
        let stranger = Secret::<RefreshToken>::generate(parent.id());
        let successor = Secret::<RefreshToken>::generate(&new_id(&clock));

        let sealed = seal_under(&parent, &successor);

        assert_eq!(open_under(&parent, &sealed).unwrap().expose(), successor.expose());
        assert!(open_under(&stranger, &sealed).is_err());
    }
}
