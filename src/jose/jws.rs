//! JWS in compact serialization (RFC 7515 §7.1): three parts in base64url, separated by dots.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::alg::Alg;
use super::jwk::{VerifyError, VerifyingKey};

/// A compact JWS, cut into its parts. Nothing in it is verified.
#[derive(Clone, Copy, Debug)]
pub struct Compact<'a> {
    header: &'a str,
    claims: &'a str,
    signature: &'a str,
    /// Header and claims with the dot between them, which the signature covers.
    signed: &'a str,
}

/// Why a text is no compact JWS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotCompact {
    /// Five parts, as in JWE.
    #[error("it is encrypted (JWE)")]
    Encrypted,
    /// Another number of parts.
    #[error("it is not a signed JWT")]
    Other,
}

/// A part is not base64url. Padding and unused bits that are set are refused: they would be a second spelling
/// of the same token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it is not base64url")]
pub struct NotBase64;

/// Why a header cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum HeaderError {
    #[error(transparent)]
    NotBase64(#[from] NotBase64),
    /// It is not JSON, or not of the expected shape.
    #[error(transparent)]
    Json(#[from] serde_json::Error),
}

impl<'a> Compact<'a> {
    /// Cuts a token into its parts.
    pub fn split(token: &'a str) -> Result<Self, NotCompact> {
        let mut parts = token.split('.');
        let (Some(header), Some(claims), Some(signature)) =
            (parts.next(), parts.next(), parts.next())
        else {
            return Err(NotCompact::Other);
        };
        match parts.count() {
            0 => {
                let signed = &token[..header.len() + 1 + claims.len()];
                Ok(Self { header, claims, signature, signed })
            }
            2 => Err(NotCompact::Encrypted),
            _ => Err(NotCompact::Other),
        }
    }

    pub fn header<T: DeserializeOwned>(&self) -> Result<T, HeaderError> {
        Ok(serde_json::from_slice(&decode(self.header)?)?)
    }

    /// Returns the claims as JSON text. Verify the signature before you trust them.
    pub fn claims(&self) -> Result<Vec<u8>, NotBase64> {
        decode(self.claims)
    }

    /// Returns the signature, for [`Self::verify`].
    pub fn signature(&self) -> Result<Vec<u8>, NotBase64> {
        decode(self.signature)
    }

    /// Verifies `signature`, which is that of this token.
    pub fn verify(
        &self,
        key: &VerifyingKey,
        alg: Alg,
        signature: &[u8],
    ) -> Result<(), VerifyError> {
        key.verify(alg, self.signed.as_bytes(), signature)
    }
}

fn decode(part: &str) -> Result<Vec<u8>, NotBase64> {
    URL_SAFE_NO_PAD.decode(part).map_err(|_| NotBase64)
}

/// Returns the second part of a token as JSON without verifying anything. Use it only for a token that was
/// verified before, or that comes directly from its issuer.
pub fn unverified_claims(token: &str) -> Option<serde_json::Value> {
    serde_json::from_slice(&decode(token.split('.').nth(1)?).ok()?).ok()
}

/// Writes a token with the signature that `sign` returns.
pub fn write<S, E>(
    header: &impl Serialize,
    claims: &impl Serialize,
    sign: impl FnOnce(&[u8]) -> Result<S, E>,
) -> Result<String, E>
where
    S: AsRef<[u8]>,
    E: From<serde_json::Error>,
{
    let mut token = URL_SAFE_NO_PAD.encode(serde_json::to_vec(header)?);
    token.push('.');
    URL_SAFE_NO_PAD.encode_string(serde_json::to_vec(claims)?, &mut token);
    let signature = sign(token.as_bytes())?;
    token.push('.');
    URL_SAFE_NO_PAD.encode_string(signature, &mut token);
    Ok(token)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_has_three_parts_and_five_are_called_encrypted() {
        for (token, parts) in
            [("a.b.c", Ok(("a.b", "c"))), ("..", Ok((".", ""))), ("a..c", Ok(("a.", "c")))]
        {
            let compact = Compact::split(token).map(|compact| (compact.signed, compact.signature));
            assert_eq!(compact, parts, "{token}");
        }
        for (token, why) in [
            ("", NotCompact::Other),
            ("a", NotCompact::Other),
            ("a.b", NotCompact::Other),
            ("a.b.c.d", NotCompact::Other),
            ("a.b.c.d.e", NotCompact::Encrypted),
            ("a.b.c.d.e.f", NotCompact::Other),
        ] {
            assert_eq!(Compact::split(token).unwrap_err(), why, "{token}");
        }
    }

    #[test]
    fn jw_01_a_part_has_one_spelling() {
        for part in ["QQ==", "QR", "+A", "Q Q", "Q\nQ", "QQ\n", "Q", "é"] {
            let token = format!("{part}.{part}.{part}");
            let compact = Compact::split(&token).unwrap();
            assert_eq!(
                (compact.claims(), compact.signature()),
                (Err(NotBase64), Err(NotBase64)),
                "{part}"
            );
            assert!(matches!(compact.header::<u8>(), Err(HeaderError::NotBase64(_))), "{part}");
        }
        assert_eq!(Compact::split("MQ.MQ.MQ").unwrap().header::<u8>().unwrap(), 1);
    }
}
