//! The provider's JWK set (RFC 7517 §5). Keys of an unknown kind are skipped.

use axum::http::Response;
use serde_json::Value;

use super::provider_key::ProviderKey;
use super::values::{object_of, other_than_json};

/// The keys of a JWK set.
pub(super) struct ProviderKeySet {
    pub(super) keys: Vec<ProviderKey>,
    /// Harmless deviations from the standard.
    pub(super) tolerated: Vec<String>,
}

impl ProviderKeySet {
    /// Reads the response of the `jwks_uri`. The error text completes a sentence about the keys.
    pub(super) fn read(response: &Response<Vec<u8>>) -> Result<Self, String> {
        let set = object_of(response.body())?;
        let listed = match set.get("keys") {
            Some(Value::Array(listed)) => listed,
            None | Some(Value::Null) => return Err("keys is missing".to_owned()),
            Some(_) => return Err("keys is not a list".to_owned()),
        };
        // Encryption keys are not for us and no deviation: Keycloak lists one.
        let listed: Vec<&Value> = listed.iter().filter(|key| key["use"] != "enc").collect();
        let keys: Vec<ProviderKey> =
            listed.iter().filter_map(|key| serde_json::from_value((*key).clone()).ok()).collect();
        let mut tolerated = Vec::new();
        if let Some(other) = other_than_json(response) {
            tolerated.push(format!("the content type is {other}"));
        }
        let unread = listed.len() - keys.len();
        if unread > 0 {
            let all = listed.len();
            tolerated.push(format!("{unread} of {all} keys are of a kind that is not known here"));
        }
        Ok(Self { keys, tolerated })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_key_for_encryption_is_left_out_and_nothing_is_said_of_it() {
        let signs = json!({ "kty": "RSA", "use": "sig", "alg": "RS256", "kid": "1", "n": "AQAB", "e": "AQAB" });
        let encrypts = json!({ "kty": "RSA", "use": "enc", "alg": "RSA-OAEP", "kid": "2", "n": "AQAB", "e": "AQAB" });
        let strange = json!({ "kty": "XYZ", "use": "sig", "kid": "3" });
        for (keys, known, tolerated) in [
            (json!([signs, encrypts]), 1, 0),
            (json!([encrypts]), 0, 0),
            (json!([signs, encrypts, strange]), 1, 1),
        ] {
            let body = json!({ "keys": keys }).to_string().into_bytes();
            let answer = Response::builder().header("content-type", "application/json").body(body);
            let set = ProviderKeySet::read(&answer.unwrap()).unwrap();
            assert_eq!((set.keys.len(), set.tolerated.len()), (known, tolerated), "{keys}");
        }
    }
}
