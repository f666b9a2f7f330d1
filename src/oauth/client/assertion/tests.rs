use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256,
    RSA_PSS_SHA256, RsaEncoding, RsaKeyPair,
};
use serde_json::json;

use super::*;

const CLIENT: &str = "client_1";
const ISSUER: &str = "https://mcp.example.com";
const ENDPOINT: &str = "https://mcp.example.com/token";
const NOW: i64 = 1_795_219_200;

struct Signer {
    ec: EcdsaKeyPair,
    ed: Ed25519KeyPair,
    rsa: RsaKeyPair,
}

fn b64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

impl Signer {
    fn new() -> Self {
        Self {
            ec: EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap(),
            ed: Ed25519KeyPair::generate().unwrap(),
            rsa: RsaKeyPair::generate(KeySize::Rsa2048).unwrap(),
        }
    }

    fn jwks(&self) -> Value {
        let point = self.ec.public_key().as_ref();
        let rsa = self.rsa.public_key();
        json!({ "keys": [
            { "kty": "EC", "crv": "P-256", "kid": "ec", "use": "sig", "x": b64(&point[1..33]), "y": b64(&point[33..]) },
            { "kty": "OKP", "crv": "Ed25519", "kid": "ed", "x": b64(self.ed.public_key()) },
            { "kty": "RSA", "kid": "rsa",
              "n": b64(rsa.modulus().big_endian_without_leading_zero()),
              "e": b64(rsa.exponent().big_endian_without_leading_zero()) },
            { "kty": "EC", "crv": "P-384", "kid": "other", "x": "AA", "y": "AA" },
            { "kty": "RSA", "kid": "enc", "use": "enc", "n": "AA", "e": "AQAB" },
        ]})
    }

    fn keys(&self) -> KeySet {
        KeySet::parse(&self.jwks()).unwrap()
    }

    fn sign(&self, header: &Value, claims: &Value) -> String {
        let signed = format!("{}.{}", b64(header.to_string()), b64(claims.to_string()));
        let rsa = |padding: &'static dyn RsaEncoding| {
            let mut signature = vec![0; self.rsa.public_modulus_len()];
            let random = SystemRandom::new();
            self.rsa.sign(padding, &random, signed.as_bytes(), &mut signature).unwrap();
            signature
        };
        let signature = match header["alg"].as_str().unwrap_or_default() {
            "ES256" => {
                self.ec.sign(&SystemRandom::new(), signed.as_bytes()).unwrap().as_ref().to_vec()
            }
            "EdDSA" => self.ed.sign(signed.as_bytes()).as_ref().to_vec(),
            "RS256" => rsa(&RSA_PKCS1_SHA256),
            "PS256" => rsa(&RSA_PSS_SHA256),
            "HS256" => {
                // The classic attack: the RSA public key, used as the shared secret of an HMAC.
                let public: aws_lc_rs::encoding::PublicKeyX509Der<'_> =
                    self.rsa.public_key().as_der().unwrap();
                let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, public.as_ref());
                aws_lc_rs::hmac::sign(&key, signed.as_bytes()).as_ref().to_vec()
            }
            _ => Vec::new(),
        };
        format!("{signed}.{}", b64(signature))
    }
}

fn claims() -> Value {
    json!({ "iss": CLIENT, "sub": CLIENT, "aud": ISSUER, "jti": "1", "exp": NOW + 60, "iat": NOW })
}

fn prove(token: &str, keys: &KeySet, old_rule: bool) -> Result<Proof, AssertionRefused> {
    let audience = Audience { issuer: ISSUER, token_endpoint: old_rule.then_some(ENDPOINT) };
    Assertion::parse(token)?.prove(CLIENT, keys, &audience, Timestamp::from_unix(NOW))
}

#[test]
fn pkj_08_each_algorithm_proves_with_its_own_kind_of_key_alone() {
    let signer = Signer::new();
    let keys = signer.keys();
    for (alg, kid) in [("ES256", "ec"), ("EdDSA", "ed"), ("RS256", "rsa"), ("PS256", "rsa")] {
        for header in [json!({ "alg": alg, "kid": kid }), json!({ "alg": alg })] {
            let token = signer.sign(&header, &claims());
            assert!(prove(&token, &keys, false).is_ok(), "{header}");
        }
        for other in ["ec", "ed", "rsa", "enc", "nobody", "../../dev/null", "' OR 1=1"] {
            if other != kid {
                let token = signer.sign(&json!({ "alg": alg, "kid": other }), &claims());
                let refused = prove(&token, &keys, false).unwrap_err();
                assert_eq!(refused, AssertionRefused::Signature, "{alg} {other}");
            }
        }
    }
    let other = Signer::new().sign(&json!({ "alg": "ES256", "kid": "ec" }), &claims());
    assert_eq!(prove(&other, &keys, false).unwrap_err(), AssertionRefused::Signature);
}

#[test]
fn jw_02_no_other_algorithm_and_no_other_header_is_taken() {
    let signer = Signer::new();
    let keys = signer.keys();
    for alg in ["none", "None", "nOnE", "HS256", "ES384", "ES256K", "RS512", "es256", ""] {
        let token = signer.sign(&json!({ "alg": alg }), &claims());
        assert_eq!(prove(&token, &keys, false).unwrap_err(), AssertionRefused::Algorithm, "{alg}");
    }
    for name in CLOSED_HEADERS {
        let token = signer.sign(&json!({ "alg": "ES256", *name: "x" }), &claims());
        assert_eq!(prove(&token, &keys, false).unwrap_err(), AssertionRefused::Header, "{name}");
    }
    for (typ, fits) in [
        ("JWT", true),
        ("client-authentication+jwt", true),
        ("application/client-authentication+jwt", true),
        ("at+jwt", false),
        ("oauth-id-jag+jwt", false),
        ("dpop+jwt", false),
        ("logout+jwt", false),
    ] {
        let token = signer.sign(&json!({ "alg": "ES256", "typ": typ }), &claims());
        assert_eq!(prove(&token, &keys, false).is_ok(), fits, "{typ}");
    }
}

#[test]
fn jw_06_each_claim_is_needed_and_bounded() {
    let signer = Signer::new();
    let keys = signer.keys();
    let signed = |change: &Value| {
        let mut claims = claims();
        for (name, value) in change.as_object().unwrap() {
            if value == "absent" {
                claims.as_object_mut().unwrap().remove(name);
            } else {
                claims[name] = value.clone();
            }
        }
        signer.sign(&json!({ "alg": "ES256" }), &claims)
    };
    for fits in [
        json!({}),
        json!({ "aud": [ISSUER] }),
        json!({ "iat": "absent" }),
        json!({ "nbf": NOW }),
        json!({ "exp": NOW + 3630, "iat": NOW + 30 }),
        json!({ "exp": NOW - 29 }),
    ] {
        assert!(prove(&signed(&fits), &keys, false).is_ok(), "{fits}");
    }
    for (wrong, refused) in [
        (json!({ "iss": "client_2" }), AssertionRefused::Issuer),
        (json!({ "sub": "client_2" }), AssertionRefused::Issuer),
        (json!({ "iss": "absent" }), AssertionRefused::Malformed),
        (json!({ "sub": "absent" }), AssertionRefused::Malformed),
        (json!({ "aud": "absent" }), AssertionRefused::Malformed),
        (json!({ "exp": "absent" }), AssertionRefused::Malformed),
        (json!({ "exp": (NOW + 60).to_string() }), AssertionRefused::Malformed),
        (json!({ "exp": 1e300 }), AssertionRefused::Malformed),
        (json!({ "exp": i64::MAX }), AssertionRefused::Time("exp")),
        (json!({ "exp": i64::MIN }), AssertionRefused::Time("exp")),
        (json!({ "jti": "absent" }), AssertionRefused::Malformed),
        (json!({ "jti": "" }), AssertionRefused::Malformed),
        (json!({ "jti": "x".repeat(257) }), AssertionRefused::Malformed),
        (json!({ "jti": 7 }), AssertionRefused::Malformed),
        (json!({ "exp": NOW - 30 }), AssertionRefused::Time("exp")),
        (json!({ "exp": NOW + 3631 }), AssertionRefused::Time("exp")),
        (json!({ "iat": NOW + 31 }), AssertionRefused::Time("iat")),
        (json!({ "iat": NOW - 3630 }), AssertionRefused::Time("iat")),
        (json!({ "nbf": NOW + 31 }), AssertionRefused::Time("nbf")),
        (json!({ "aud": ENDPOINT }), AssertionRefused::Audience),
        (json!({ "aud": format!("{ISSUER}/") }), AssertionRefused::Audience),
        (json!({ "aud": [ISSUER, "https://evil.example"] }), AssertionRefused::Audience),
        (json!({ "aud": [ISSUER, ISSUER] }), AssertionRefused::Audience),
        (json!({ "aud": [] }), AssertionRefused::Audience),
        (json!({ "aud": "https://evil.example" }), AssertionRefused::Audience),
        (json!({ "aud": 7 }), AssertionRefused::Malformed),
    ] {
        assert_eq!(prove(&signed(&wrong), &keys, false).unwrap_err(), refused, "{wrong}");
    }
}

#[test]
fn pkj_04_the_older_rule_of_audiences_is_admitted_by_name_only() {
    let signer = Signer::new();
    let keys = signer.keys();
    let made_for = |audience: &str| {
        let mut claims = claims();
        claims["aud"] = json!(audience);
        signer.sign(&json!({ "alg": "EdDSA" }), &claims)
    };
    for audience in [ENDPOINT, "https://mcp.example.com/"] {
        assert!(prove(&made_for(audience), &keys, false).is_err());
        assert!(prove(&made_for(audience), &keys, true).unwrap().old_audience);
    }
    for audience in [
        "https://mcp.example.com//token",
        "https://mcp.example.com/token/",
        "https://mcp.example.com//",
    ] {
        assert!(prove(&made_for(audience), &keys, true).is_err(), "{audience}");
    }
    assert!(!prove(&made_for(ISSUER), &keys, true).unwrap().old_audience);
}

#[test]
fn jw_05_what_is_no_signed_token_is_refused_at_once() {
    let signer = Signer::new();
    let good = signer.sign(&json!({ "alg": "ES256" }), &claims());
    let long = format!("{good}{}", "x".repeat(MAX_ASSERTION));
    for text in ["", ".", "..", "a.b", "a.b.c", "a.b.c.d.e", long.as_str(), "é.é.é"] {
        assert!(matches!(Assertion::parse(text), Err(AssertionRefused::Malformed)), "{text}");
    }
    let twice = format!(
        "{}.{}.AA",
        b64(r#"{"alg":"ES256"}"#),
        b64(format!(r#"{{"iss":"a","sub":"a","sub":"b","aud":"{ISSUER}","jti":"1","exp":{NOW}}}"#))
    );
    assert!(matches!(Assertion::parse(&twice), Err(AssertionRefused::Malformed)));
}

#[test]
fn claims_that_cannot_be_read_are_called_that() {
    for claim in [r#""iat":1e400"#, r#""sub":"\ud800""#, r#""exp":-1e999"#] {
        let claims = format!(r#"{{"iss":"a","aud":"{ISSUER}","jti":"1",{claim}}}"#);
        let text = format!("{}.{}.AA", b64(r#"{"alg":"ES256"}"#), b64(claims));
        assert!(matches!(Assertion::parse(&text), Err(AssertionRefused::Unreadable)), "{text}");
    }
}

#[test]
fn a_proof_is_known_by_client_and_jti() {
    let signer = Signer::new();
    let keys = signer.keys();
    let one = prove(&signer.sign(&json!({ "alg": "ES256" }), &claims()), &keys, false).unwrap();
    let same = prove(&signer.sign(&json!({ "alg": "EdDSA" }), &claims()), &keys, false).unwrap();
    let mut other = claims();
    other["jti"] = json!("2");
    let other = prove(&signer.sign(&json!({ "alg": "ES256" }), &other), &keys, false).unwrap();

    assert_eq!(one.id, same.id);
    assert_ne!(one.id, other.id);
    assert_eq!(one.forget_at, Timestamp::from_unix(NOW + 90));
}
