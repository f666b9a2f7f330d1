//! A client's own key: publishes it, and signs assertions with it.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use portcullis::oauth::secret::random_text;
use serde_json::{Value, json};

use super::client::McpClient;
use super::http::Answer;
use super::{START, TestApp};

pub(crate) const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

pub(crate) struct Signer {
    key: EcdsaKeyPair,
    kid: &'static str,
}

impl Signer {
    pub(crate) fn new(kid: &'static str) -> Self {
        Self { key: EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap(), kid }
    }

    pub(crate) fn jwks(&self) -> Value {
        let point = self.key.public_key().as_ref();
        let b64 = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        json!({ "keys": [{
            "kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": self.kid,
            "x": b64(&point[1..33]), "y": b64(&point[33..]),
        }] })
    }

    /// An assertion of `client_id` for `app`, good for a minute; `change` replaces claims.
    pub(crate) fn assertion(&self, app: &TestApp, client_id: &str, change: &Value) -> String {
        let now = app.now().unix();
        assert!(now >= START);
        let mut claims = json!({
            "iss": client_id, "sub": client_id, "aud": app.url, "jti": random_text(),
            "iat": now, "exp": now + 60,
        });
        for (name, value) in change.as_object().unwrap() {
            claims[name] = value.clone();
        }
        let header = json!({ "alg": "ES256", "kid": self.kid, "typ": "client-authentication+jwt" });
        let part = |json: &Value| URL_SAFE_NO_PAD.encode(json.to_string());
        let signed = format!("{}.{}", part(&header), part(&claims));
        let signature = self.key.sign(&SystemRandom::new(), signed.as_bytes()).unwrap();
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    /// A token request of `client`, proven with a new assertion.
    pub(crate) async fn token(
        &self,
        app: &TestApp,
        client: &McpClient,
        form: &[(&str, &str)],
    ) -> Answer {
        let assertion = self.assertion(app, &client.id, &json!({}));
        let mut form = form.to_vec();
        form.extend([
            ("client_assertion_type", ASSERTION_TYPE),
            ("client_assertion", assertion.as_str()),
        ]);
        client.token(&form).await
    }

    /// Redeems a code of `client`, proven with a new assertion.
    pub(crate) async fn redeem(&self, app: &TestApp, client: &McpClient, code: &str) -> Answer {
        let assertion = self.assertion(app, &client.id, &json!({}));
        let proof =
            [("client_assertion_type", ASSERTION_TYPE), ("client_assertion", assertion.as_str())];
        client.redeem_with(code, &proof).await
    }
}
