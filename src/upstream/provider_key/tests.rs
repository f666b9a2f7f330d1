//! Tests every algorithm with its own kind of key, and every mismatch. Compares with the library's own
//! verification, which must accept everything that ours accepts.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P256_SHA256_FIXED_SIGNING,
    ECDSA_P384_SHA384_FIXED_SIGNING, ECDSA_P521_SHA512_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair,
    KeyPair, RSA_PKCS1_SHA256, RSA_PKCS1_SHA384, RSA_PKCS1_SHA512, RSA_PSS_SHA256, RSA_PSS_SHA384,
    RSA_PSS_SHA512, RsaEncoding, RsaKeyPair,
};
use openidconnect::core::CoreJsonWebKey;
use openidconnect::{JsonWebKey, JsonWebKeySet};
use serde_json::json;

use super::*;

const MESSAGE: &[u8] = b"a message";

struct Signers {
    rsa: RsaKeyPair,
    p256: EcdsaKeyPair,
    p384: EcdsaKeyPair,
    p521: EcdsaKeyPair,
    ed25519: Ed25519KeyPair,
}

fn b64(bytes: &[u8]) -> String {
    BASE64.encode(bytes)
}

impl Signers {
    fn new() -> Self {
        Self {
            rsa: RsaKeyPair::generate(KeySize::Rsa2048).unwrap(),
            p256: EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap(),
            p384: EcdsaKeyPair::generate(&ECDSA_P384_SHA384_FIXED_SIGNING).unwrap(),
            p521: EcdsaKeyPair::generate(&ECDSA_P521_SHA512_FIXED_SIGNING).unwrap(),
            ed25519: Ed25519KeyPair::generate().unwrap(),
        }
    }

    /// Returns a public key for each algorithm, and a signature by it.
    fn cases(&self) -> Vec<(Alg, Value, Vec<u8>)> {
        let ec = |crv: &str, key: &EcdsaKeyPair| {
            let (x, y) =
                key.public_key().as_ref()[1..].split_at(key.public_key().as_ref().len() / 2);
            json!({ "kty": "EC", "crv": crv, "kid": "k", "x": b64(x), "y": b64(y) })
        };
        let x = b64(self.ed25519.public_key().as_ref());
        let okp = json!({ "kty": "OKP", "crv": "Ed25519", "kid": "k", "x": x });
        let random = SystemRandom::new();
        let signed = |key: &EcdsaKeyPair| key.sign(&random, MESSAGE).unwrap().as_ref().to_vec();
        vec![
            (Alg::Rs256, self.rsa_key(), self.by_rsa(&RSA_PKCS1_SHA256)),
            (Alg::Rs384, self.rsa_key(), self.by_rsa(&RSA_PKCS1_SHA384)),
            (Alg::Rs512, self.rsa_key(), self.by_rsa(&RSA_PKCS1_SHA512)),
            (Alg::Ps256, self.rsa_key(), self.by_rsa(&RSA_PSS_SHA256)),
            (Alg::Ps384, self.rsa_key(), self.by_rsa(&RSA_PSS_SHA384)),
            (Alg::Ps512, self.rsa_key(), self.by_rsa(&RSA_PSS_SHA512)),
            (Alg::Es256, ec("P-256", &self.p256), signed(&self.p256)),
            (Alg::Es384, ec("P-384", &self.p384), signed(&self.p384)),
            (Alg::Es512, ec("P-521", &self.p521), signed(&self.p521)),
            (Alg::EdDsa, okp, self.ed25519.sign(MESSAGE).as_ref().to_vec()),
        ]
    }

    fn rsa_key(&self) -> Value {
        let public = self.rsa.public_key();
        let n = b64(public.modulus().big_endian_without_leading_zero());
        let e = b64(public.exponent().big_endian_without_leading_zero());
        json!({ "kty": "RSA", "kid": "k", "n": n, "e": e })
    }

    fn by_rsa(&self, how: &'static dyn RsaEncoding) -> Vec<u8> {
        let mut signature = vec![0; self.rsa.public_modulus_len()];
        self.rsa.sign(how, &SystemRandom::new(), MESSAGE, &mut signature).unwrap();
        signature
    }
}

fn key(jwk: &Value) -> ProviderKey {
    serde_json::from_value(jwk.clone()).unwrap()
}

fn with(jwk: &Value, name: &str, value: impl Into<Value>) -> Value {
    let mut changed = jwk.clone();
    changed[name] = value.into();
    changed
}

fn by(key: &ProviderKey, alg: Alg, message: &[u8], signature: &[u8]) -> bool {
    key.verifying(alg).and_then(|key| key.verify(alg, message, signature)).is_ok()
}

fn verifies(jwk: &Value, alg: Alg, signature: &[u8]) -> bool {
    let ours = by(&key(jwk), alg, MESSAGE, signature);
    let theirs: CoreJsonWebKey = serde_json::from_value(jwk.clone()).unwrap();
    let theirs = theirs.verify_signature(&library_name(alg), MESSAGE, signature).is_ok();
    let beyond_theirs = alg == Alg::Es512; // the library cannot verify ES512
    assert!(theirs || !ours || beyond_theirs, "the library refuses what we accept: {jwk} {alg:?}");
    ours
}

#[test]
fn jw_01_each_algorithm_is_verified_with_its_own_kind_of_key_alone() {
    let cases = Signers::new().cases();
    assert_eq!(cases.iter().map(|(alg, ..)| *alg).collect::<Vec<_>>(), FROM_PROVIDER);
    for (alg, jwk, signature) in &cases {
        assert!(verifies(jwk, *alg, signature), "{alg:?}");
        let core: CoreJsonWebKey = serde_json::from_value(jwk.clone()).unwrap();
        if let Ok(theirs) = core.hash_bytes(b"token", &super::library_name(*alg)) {
            let ours = aws_lc_rs::digest::digest(alg.hash(), b"token");
            assert_eq!(ours.as_ref(), theirs, "{alg:?}");
        }
        for (other, other_jwk, _) in &cases {
            if other != alg {
                assert!(!verifies(jwk, *other, signature), "{alg:?} as {other:?}");
                let by_other = other_jwk != jwk && verifies(other_jwk, *alg, signature);
                assert!(!by_other, "{alg:?} by the key of {other:?}");
            }
        }
    }
    for named in ["none", "None", "", "HS256", "HS384", "HS512", "es256", "ES256 "] {
        assert_eq!(Alg::parse(named, &FROM_PROVIDER), None, "{named}");
    }
}

#[test]
fn jw_01_a_key_is_used_as_it_says_itself() {
    for (alg, jwk, signature) in &Signers::new().cases() {
        let alg = *alg;
        assert!(verifies(&with(jwk, "alg", alg.as_str()), alg, signature));
        assert!(verifies(&with(jwk, "use", "sig"), alg, signature));
        for changed in [
            with(jwk, "use", "enc"),
            with(jwk, "alg", "HS256"),
            with(jwk, "alg", if alg == Alg::Rs512 { "RS384" } else { "RS512" }),
            with(jwk, "alg", "A128GCM"),
            with(jwk, "kty", if jwk["kty"] == "RSA" { "EC" } else { "RSA" }),
            with(jwk, "kty", "oct"),
        ] {
            assert!(!verifies(&changed, alg, signature), "{changed}");
        }
        let curves = ["P-256", "P-384", "P-521", "Ed25519"];
        for crv in curves.into_iter().filter(|crv| jwk["kty"] != "RSA" && jwk["crv"] != *crv) {
            assert!(!verifies(&with(jwk, "crv", crv), alg, signature), "{alg:?} {crv}");
        }
        for name in ["n", "e", "x", "y", "crv"].into_iter().filter(|name| jwk.get(name).is_some()) {
            for value in [json!(null), json!(7), json!(""), json!("AA"), json!("not base64!")] {
                assert!(
                    !verifies(&with(jwk, name, value.clone()), alg, signature),
                    "{name}={value}"
                );
            }
        }
    }
}

#[test]
fn jw_01_a_signature_that_was_changed_or_written_otherwise_is_none() {
    let signers = Signers::new();
    for (alg, jwk, signature) in &signers.cases() {
        let alg = *alg;
        for position in [0, signature.len() / 2, signature.len() - 1] {
            let mut changed = signature.clone();
            changed[position] ^= 1;
            assert!(!verifies(jwk, alg, &changed), "{alg:?} {position}");
        }
        assert!(!verifies(jwk, alg, &signature[1..]) && !verifies(jwk, alg, &[]));
        assert!(!verifies(jwk, alg, &[signature.as_slice(), &[0]].concat()));
        assert!(!by(&key(jwk), alg, b"another message", signature));
    }
    let cases = signers.cases();
    let (alg, jwk, _) = cases.iter().find(|(alg, ..)| *alg == Alg::Es256).unwrap();
    let alg = *alg;
    assert!(!verifies(jwk, alg, &[0; 64]), "the signature of zeros");
    let pkcs8 = signers.p256.to_pkcs8v1().unwrap();
    let asn1 = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, pkcs8.as_ref()).unwrap();
    let asn1 = asn1.sign(&SystemRandom::new(), MESSAGE).unwrap();
    assert!(!verifies(jwk, alg, asn1.as_ref()), "DER is not the form of JWS");
    let sha384 = signers.by_rsa(&RSA_PKCS1_SHA384);
    assert!(!verifies(&signers.rsa_key(), Alg::Rs256, &sha384));
}

#[test]
fn jw_01_an_rsa_key_has_2048_bits_at_least_and_4096_at_most() {
    let n = "2yeMv7hGRyyI3-MZ1pr3mvg6PlGWnb2rqvPVlobd9e8-yO7V7qtUokdc6Jjq564xHwF7qt4_d9FLgp23yOWSuRCzd5fhGXCXUroAE4Vroj4GAnNnxsy3TdUcfcUChZJ0ROu_6mAyru2iYPq_hGo9t8pHqdsTxSkH3dmqkV1XSAU";
    let signature = BASE64
        .decode("KrIemH4qQ9i6X8gHjrM7TYgLG5Y8If9hwC4ifLhgodSUAxPS_5WrDj5F0pkBYs_QObfUfBfDHS4uG7HR7h34rAxX-lD4yqx1gOAKrFxVtMCdiHwsePltMhflMUE2nJWEK1wjZAUhPSaxxMraejp6CUWnGObVkiimJ_x6Jb03jUw")
        .unwrap();
    let small = json!({ "kty": "RSA", "n": n, "e": "AQAB" });
    let alg = Alg::Rs256;
    let theirs: CoreJsonWebKey = serde_json::from_value(small.clone()).unwrap();
    assert!(
        theirs.verify_signature(&library_name(alg), MESSAGE, &signature).is_ok(),
        "it is a good signature"
    );
    assert!(!by(&key(&small), alg, MESSAGE, &signature));

    let large = with(&small, "n", b64(&[0xff; 513]));
    assert!(key(&large).algorithms().is_empty());
    let signers = Signers::new();
    let padded = format!("AAAA{}", signers.rsa_key()["n"].as_str().unwrap());
    let padded = with(&signers.rsa_key(), "n", padded);
    assert!(verifies(&padded, alg, &signers.by_rsa(&RSA_PKCS1_SHA256)), "zeros in front are none");
}

#[test]
fn jw_01_no_shared_secret_verifies_anything() {
    let signers = Signers::new();
    let public = serde_json::to_vec(&signers.rsa_key()).unwrap();
    for secret in [public, Vec::new(), b"secret".to_vec()] {
        let mac = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, &secret);
        let mac = aws_lc_rs::hmac::sign(&mac, MESSAGE);
        let key = key(&json!({ "kty": "oct", "kid": "k", "k": b64(&secret) }));
        assert_eq!(key.algorithms(), Vec::<&str>::new());
        for alg in FROM_PROVIDER {
            assert!(!by(&key, alg, MESSAGE, mac.as_ref()));
        }
    }
    assert!(FROM_PROVIDER.iter().all(|alg| !library_name(*alg).uses_shared_secret()));
}

#[test]
fn the_library_and_we_leave_the_same_keys_out_of_a_set() {
    let keys = Signers::new().cases();
    let keys: Vec<Value> = keys.into_iter().map(|(_, jwk, _)| jwk).collect();
    let mut set = json!({ "keys": keys });
    let odd = [
        json!({ "kty": "AKP", "alg": "ML-DSA-44", "pub": "AAAA" }),
        json!({ "kty": "RSA", "alg": "RSA-OAEP", "n": "AQ", "e": "AQ" }),
        json!({ "kid": "no kind" }),
        json!(7),
    ];
    set["keys"].as_array_mut().unwrap().extend(odd);
    let listed = set["keys"].as_array().unwrap().iter();
    let ours = listed.filter(|key| ProviderKey::deserialize(*key).is_ok()).count();
    let theirs: JsonWebKeySet<CoreJsonWebKey> = serde_json::from_value(set).unwrap();
    assert_eq!((ours, theirs.keys().len()), (10, 10));
    assert!(serde_json::from_str::<ProviderKey>(r#"{"kty":"RSA","kty":"EC"}"#).is_err());
}
