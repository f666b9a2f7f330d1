//! PKCE with S256, required for every client: RFC 7636.

use aws_lc_rs::{constant_time, digest};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// The challenge is not a SHA-256 hash in base64url.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("code_challenge must be 43 base64url characters")]
pub struct ChallengeRefused;

/// An S256 challenge. No other method is supported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CodeChallenge(String);

impl CodeChallenge {
    /// Parses a challenge: exactly 43 base64url characters that decode to 32 bytes.
    pub fn parse(text: &str) -> Result<Self, ChallengeRefused> {
        match URL_SAFE_NO_PAD.decode(text) {
            Ok(hash) if hash.len() == 32 => Ok(Self(text.to_owned())),
            _ => Err(ChallengeRefused),
        }
    }

    /// Returns the challenge as it was sent.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns whether `verifier` is well formed (RFC 7636 §4.1) and its hash is this challenge. Compares in
    /// constant time.
    pub fn is_met_by(&self, verifier: &str) -> bool {
        let well_formed = (43..=128).contains(&verifier.len())
            && verifier
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~'));
        let hash = digest::digest(&digest::SHA256, verifier.as_bytes());
        let hash = URL_SAFE_NO_PAD.encode(hash);
        well_formed
            && constant_time::verify_slices_are_equal(hash.as_bytes(), self.0.as_bytes()).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
    const CHALLENGE: &str = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";

    #[test]
    fn ac_06_the_vector_of_rfc_7636_appendix_b_holds() {
        let challenge = CodeChallenge::parse(CHALLENGE).unwrap();

        assert!(challenge.is_met_by(VERIFIER));
        assert!(!challenge.is_met_by(CHALLENGE), "the challenge is not its own verifier (plain)");
        assert!(!challenge.is_met_by(""));
        assert!(!challenge.is_met_by(&VERIFIER[..42]));
        assert!(!challenge.is_met_by(&VERIFIER.replace('d', "e")));
    }

    #[test]
    fn pk_02_only_a_sha_256_hash_is_a_challenge() {
        for bad in [
            "",
            "plain",
            VERIFIER.get(..42).unwrap(),
            &format!("{CHALLENGE}="),
            &"a".repeat(44),
            &"é".repeat(43),
        ] {
            assert_eq!(CodeChallenge::parse(bad), Err(ChallengeRefused), "{bad:?}");
        }
    }

    #[test]
    fn ac_06_a_verifier_keeps_to_its_alphabet_and_length() {
        for odd in ["+", "/", "=", " ", "%"] {
            let verifier = format!("{odd}{}", "a".repeat(43));
            let hash = URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, verifier.as_bytes()));
            assert!(!CodeChallenge::parse(&hash).unwrap().is_met_by(&verifier), "{odd}");
        }
        for (length, good) in [(42, false), (43, true), (128, true), (129, false)] {
            let verifier = "~".repeat(length);
            let hash = URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, verifier.as_bytes()));
            assert_eq!(CodeChallenge::parse(&hash).unwrap().is_met_by(&verifier), good, "{length}");
        }
    }
}
