//! Authenticated encryption of data that others hold or store for us.
//!
//! AES-256-GCM with a random nonce, or with one derived from the message if equal messages must give equal
//! texts. The installation's secret key never encrypts anything itself: each [`Purpose`] has a key of its
//! own, derived with HKDF-SHA-256. Each sealed text is bound to its context (table, column and row, or the
//! page that carries it), so that it cannot be moved elsewhere.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Salt};
use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use zeroize::Zeroizing;

use super::secret::{Secret, SecretKind, random_bytes};

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
    /// Ids of people and clients in telemetry.
    Telemetry,
}

/// The keys for every purpose, derived from the installation's secret key. Cheap to clone: every transaction
/// has it.
#[derive(Clone)]
pub struct Sealer(Arc<SealerKeys>);

struct SealerKeys {
    storage: SealingKey,
    consent: SealingKey,
    session: SealingKey,
    session_nonce: SealingKey,
    audit: SealingKey,
    search: SealingKey,
    sign_in: SealingKey,
    confirmation: SealingKey,
    telemetry: SealingKey,
}

/// The input of a MAC: a list of parts. The length of each part is included, so that different lists never
/// give the same input.
#[derive(Default)]
pub struct MacInput(Vec<u8>);

impl MacInput {
    /// Makes an empty list with room for `bytes`.
    pub fn with_room(bytes: usize) -> Self {
        Self(Vec::with_capacity(bytes))
    }

    pub fn add(&mut self, part: &[u8]) {
        self.0.extend_from_slice(&(part.len() as u64).to_be_bytes());
        self.0.extend_from_slice(part);
    }

    /// Adds a part for a text that may be absent, which is not the same as empty.
    pub fn add_optional(&mut self, text: Option<&str>) {
        let Some(text) = text else { return self.add(&[0]) };
        self.0.extend_from_slice(&(text.len() as u64 + 1).to_be_bytes());
        self.0.push(1);
        self.0.extend_from_slice(text.as_bytes());
    }
}

impl Sealer {
    /// Derives the keys from the installation's secret key, which may have any length.
    pub fn new(secret_key: &[u8]) -> Self {
        let key = |info: &[u8]| SealingKey::new(&derive(secret_key, info));
        Self(Arc::new(SealerKeys {
            storage: key(b"portcullis storage v1"),
            consent: key(b"portcullis consent v1"),
            session: key(b"portcullis session v1"),
            session_nonce: key(b"portcullis session nonce v1"),
            audit: key(b"portcullis audit v1"),
            search: key(b"portcullis search v1"),
            sign_in: key(b"portcullis sign-in v1"),
            confirmation: key(b"portcullis confirmation v1"),
            telemetry: key(b"portcullis telemetry v1"),
        }))
    }

    /// Seals `plaintext`. It opens only with the same purpose and `context`.
    pub fn seal(&self, purpose: Purpose, context: &str, plaintext: &[u8]) -> String {
        seal(&self.key(purpose).cipher, context, plaintext)
    }

    /// Seals a session id of an MCP server ([`Purpose::Session`]) deterministically: the same text in the
    /// same context gives the same result in every replica, because clients compare session ids.
    ///
    /// The nonce is an HMAC of context and text under its own key (the idea of RFC 5297). It repeats only
    /// for the same message, and reveals only that the message is the same.
    pub fn seal_alike(&self, context: &str, plaintext: &[u8]) -> String {
        let mut mac = hmac::Context::with_key(&self.0.session_nonce.mac);
        mac.update(&(context.len() as u64).to_be_bytes());
        mac.update(context.as_bytes());
        mac.update(plaintext);
        let mut nonce = [0; NONCE_LEN];
        for (to, from) in nonce.iter_mut().zip(mac.sign().as_ref()) {
            *to = *from;
        }
        seal_with(&self.0.session.cipher, nonce, context, plaintext)
    }

    /// Opens a text from [`Self::seal`] or [`Self::seal_alike`] with the same purpose and context.
    pub fn open(
        &self,
        purpose: Purpose,
        context: &str,
        sealed: &str,
    ) -> Result<Zeroizing<Vec<u8>>, CannotOpen> {
        open(&self.key(purpose).cipher, context, sealed)
    }

    fn key(&self, purpose: Purpose) -> &SealingKey {
        match purpose {
            Purpose::Storage => &self.0.storage,
            Purpose::Consent => &self.0.consent,
            Purpose::Session => &self.0.session,
            Purpose::Audit => &self.0.audit,
            Purpose::Search => &self.0.search,
            Purpose::SignIn => &self.0.sign_in,
            Purpose::Confirmation => &self.0.confirmation,
            Purpose::Telemetry => &self.0.telemetry,
        }
    }

    /// Returns an HMAC-SHA-256 over `parts`. Only a holder of the secret key can compute it.
    pub fn mac(&self, purpose: Purpose, parts: &[&[u8]]) -> String {
        let mut input = MacInput::with_room(parts.iter().map(|part| 8 + part.len()).sum());
        for part in parts {
            input.add(part);
        }
        self.mac_of(purpose, &input)
    }

    /// Returns the HMAC-SHA-256 of `input`. Only a holder of the secret key can compute it.
    pub fn mac_of(&self, purpose: Purpose, input: &MacInput) -> String {
        URL_SAFE_NO_PAD.encode(hmac::sign(&self.key(purpose).mac, &input.0))
    }
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sealer")
    }
}

impl<K: SecretKind> Secret<K> {
    /// Derives the secret for `id` from the installation's key. It can be recognized without a stored hash.
    pub fn made_by(sealer: &Sealer, id: &str) -> Self {
        let mac = sealer.mac(Purpose::SignIn, &[K::PREFIX.as_bytes(), id.as_bytes()]);
        Self::from_text(format!("{}_{id}.{mac}", K::PREFIX))
    }

    /// Returns whether [`Self::made_by`] made this secret, in constant time.
    pub fn is_made_by(&self, sealer: &Sealer) -> bool {
        let ours = Self::made_by(sealer, self.id());
        let (ours, presented) = (ours.expose().as_bytes(), self.expose().as_bytes());
        aws_lc_rs::constant_time::verify_slices_are_equal(ours, presented).is_ok()
    }
}

/// Seals `successor` so that only the holder of `presented` can open it (rule R1). The database does not
/// suffice, not even together with the installation's secret key.
pub fn seal_under<K: SecretKind>(presented: &Secret<K>, successor: &Secret<K>) -> String {
    seal(&cipher_of_successor(presented), presented.id(), successor.expose().as_bytes())
}

/// Opens a secret that [`seal_under`] sealed with the same presented secret.
pub fn open_under<K: SecretKind>(
    presented: &Secret<K>,
    sealed: &str,
) -> Result<Secret<K>, CannotOpen> {
    let opened = open(&cipher_of_successor(presented), presented.id(), sealed)?;
    std::str::from_utf8(&opened).ok().and_then(Secret::parse).ok_or(CannotOpen)
}

fn cipher_of_successor<K: SecretKind>(presented: &Secret<K>) -> LessSafeKey {
    cipher(&derive(presented.expose().as_bytes(), b"portcullis successor v1"))
}

/// The key of one purpose, prepared for both of its uses. Preparing it costs more than using it. The
/// cryptographic library erases it from memory.
struct SealingKey {
    cipher: LessSafeKey,
    mac: hmac::Key,
}

impl SealingKey {
    fn new(bytes: &[u8; 32]) -> Self {
        Self { cipher: cipher(bytes), mac: hmac::Key::new(hmac::HMAC_SHA256, bytes) }
    }
}

struct KeyLength;

impl KeyType for KeyLength {
    fn len(&self) -> usize {
        32
    }
}

#[expect(clippy::expect_used, reason = "HKDF only fails for more than 8,160 bytes; we ask 32")]
fn derive(secret: &[u8], info: &[u8]) -> Zeroizing<[u8; 32]> {
    let mut key = Zeroizing::new([0; 32]);
    Salt::new(HKDF_SHA256, b"portcullis")
        .extract(secret)
        .expand(&[info], KeyLength)
        .and_then(|okm| okm.fill(key.as_mut()))
        .expect("32 bytes are within HKDF's bound");
    key
}

#[expect(clippy::expect_used, reason = "the key has the length that AES-256 wants")]
fn cipher(key: &[u8; 32]) -> LessSafeKey {
    LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key).expect("32 bytes"))
}

fn seal(cipher: &LessSafeKey, context: &str, plaintext: &[u8]) -> String {
    seal_with(cipher, random_bytes::<NONCE_LEN>(), context, plaintext)
}

#[expect(clippy::expect_used, reason = "AES-GCM only fails beyond 64 GiB")]
fn seal_with(
    cipher: &LessSafeKey,
    nonce: [u8; NONCE_LEN],
    context: &str,
    plaintext: &[u8],
) -> String {
    // In one buffer with its final size: a buffer that grows leaves copies of the plaintext in memory.
    let mut framed = Vec::with_capacity(NONCE_LEN + plaintext.len() + AES_256_GCM.tag_len());
    framed.extend_from_slice(&nonce);
    framed.extend_from_slice(plaintext);
    let tag = cipher
        .seal_in_place_separate_tag(
            Nonce::assume_unique_for_key(nonce),
            Aad::from(context.as_bytes()),
            framed.get_mut(NONCE_LEN..).unwrap_or_default(),
        )
        .expect("the text is far below 64 GiB");
    framed.extend_from_slice(tag.as_ref());
    URL_SAFE_NO_PAD.encode(framed)
}

fn open(
    cipher: &LessSafeKey,
    context: &str,
    sealed: &str,
) -> Result<Zeroizing<Vec<u8>>, CannotOpen> {
    let framed = URL_SAFE_NO_PAD.decode(sealed).map_err(|_| CannotOpen)?;
    let (nonce, body) = framed.split_at_checked(NONCE_LEN).ok_or(CannotOpen)?;
    let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| CannotOpen)?;
    let mut body = Zeroizing::new(body.to_vec());
    let length = cipher
        .open_in_place(nonce, Aad::from(context.as_bytes()), &mut body)
        .map_err(|_| CannotOpen)?
        .len();
    body.truncate(length);
    Ok(body)
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
    fn keys_texts_and_macs_stay_the_same_in_every_version() {
        let sealer = Sealer::new(b"one key");
        let parts: [&[u8]; 3] = [b"a", b"", b"bc"];
        let mut input = MacInput::default();
        input.add(b"a");
        input.add(b"");
        input.add(b"bc");
        assert_eq!(sealer.mac_of(Purpose::Audit, &input), sealer.mac(Purpose::Audit, &parts));
        assert_eq!(
            sealer.mac(Purpose::Audit, &parts),
            "KAUmnafQfOq3C7l2H4dJGXzC3RMhSYBaJQwe_g7VAew"
        );
        input.add_optional(None);
        input.add_optional(Some(""));
        input.add_optional(Some("d"));
        let parts: [&[u8]; 6] = [b"a", b"", b"bc", b"\0", b"\x01", b"\x01d"];
        assert_eq!(sealer.mac_of(Purpose::Search, &input), sealer.mac(Purpose::Search, &parts));
        let alike = sealer.seal_alike("bob", b"session");
        assert_eq!(alike, "7xN9Q62ECulNBzQCE4c8ykskgmw-S1ki_jKdLjGwWQl7FdA");
        let stored = "AAECAwQFBgcICQoLXIRCmXbgn6pUWZMPl0LqVpJACy2Z";
        let opened = sealer.open(Purpose::Storage, "logins.request.1", stored).unwrap();
        assert_eq!(opened.as_slice(), b"hello");
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
