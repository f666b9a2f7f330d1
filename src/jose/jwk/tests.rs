//! The examples of the standards, and `jsonwebtoken` as a second opinion on every signature.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING,
    ECDSA_P521_SHA512_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256,
    RSA_PSS_SHA512, RsaEncoding, RsaKeyPair,
};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde_json::json;

use super::*;
use crate::jose::alg::{FROM_CLIENTS, FROM_PROVIDER};

const MESSAGE: &[u8] = b"header.claims";

fn read(jwk: &Value) -> Option<PublicKey> {
    let number = |name: &str| URL_SAFE_NO_PAD.decode(jwk[name].as_str()?).ok();
    PublicKey::read(jwk["kty"].as_str()?, jwk["crv"].as_str(), number)
}

#[test]
fn thumbprints_are_those_of_the_standards() {
    // RFC 7638 §3.1 and RFC 8037 appendix A.3.
    let rsa = json!({
        "kty": "RSA", "e": "AQAB",
        "n": "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw",
    });
    let ed25519 = json!({
        "kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo",
    });
    for (jwk, thumbprint) in [
        (rsa, "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"),
        (ed25519, "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"),
    ] {
        assert_eq!(read(&jwk).unwrap().thumbprint().unwrap(), thumbprint);
    }
}

fn ec(key: &EcdsaKeyPair, curve: Curve) -> PublicKey {
    PublicKey::Ec { curve, point: key.public_key().as_ref().to_vec() }
}

fn by_rsa(key: &RsaKeyPair, how: &'static dyn RsaEncoding) -> Vec<u8> {
    let mut signature = vec![0; key.public_modulus_len()];
    key.sign(how, &SystemRandom::new(), MESSAGE, &mut signature).unwrap();
    signature
}

#[test]
fn jw_01_a_key_verifies_with_the_algorithms_of_its_kind_and_jsonwebtoken_agrees() {
    let random = SystemRandom::new();
    let rsa = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
    let p256 = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
    let p384 = EcdsaKeyPair::generate(&ECDSA_P384_SHA384_FIXED_SIGNING).unwrap();
    let p521 = EcdsaKeyPair::generate(&ECDSA_P521_SHA512_FIXED_SIGNING).unwrap();
    let ed25519 = Ed25519KeyPair::generate().unwrap();
    let public_rsa = PublicKey::Rsa {
        modulus: rsa.public_key().modulus().big_endian_without_leading_zero().to_vec(),
        exponent: rsa.public_key().exponent().big_endian_without_leading_zero().to_vec(),
    };
    let signed = |key: &EcdsaKeyPair| key.sign(&random, MESSAGE).unwrap().as_ref().to_vec();
    let cases = [
        (Alg::Rs256, public_rsa.clone(), by_rsa(&rsa, &RSA_PKCS1_SHA256)),
        (Alg::Ps512, public_rsa, by_rsa(&rsa, &RSA_PSS_SHA512)),
        (Alg::Es256, ec(&p256, Curve::P256), signed(&p256)),
        (Alg::Es384, ec(&p384, Curve::P384), signed(&p384)),
        (Alg::Es512, ec(&p521, Curve::P521), signed(&p521)),
        (
            Alg::EdDsa,
            PublicKey::Ed25519(ed25519.public_key().as_ref().to_vec()),
            ed25519.sign(MESSAGE).as_ref().to_vec(),
        ),
    ];
    for (alg, public, signature) in cases {
        let jwk = public.to_jwk(alg.as_str(), "k").unwrap();
        assert_eq!(
            (&jwk["alg"], &jwk["use"], &jwk["kid"]),
            (&json!(alg.as_str()), &json!("sig"), &json!("k"))
        );
        assert_eq!(read(&jwk).as_ref(), Some(&public), "{jwk}");
        let key = VerifyingKey::new(public.clone(), &FROM_PROVIDER);
        for other in FROM_PROVIDER {
            assert_eq!(key.fits(other), public.is_for(other), "{alg:?} {other:?}");
            let verified = key.verify(other, MESSAGE, &signature);
            assert_eq!(verified.is_ok(), other == alg, "{alg:?} {other:?}");
            // A second use of the same parsed key.
            assert_eq!(key.verify(other, MESSAGE, &signature), verified, "{alg:?} {other:?}");
            assert!(key.verify(other, b"other", &signature).is_err(), "{alg:?} {other:?}");
            let Ok(theirs) = other.as_str().parse::<Algorithm>() else { continue }; // ES512
            let decoding = DecodingKey::from_jwk(&public.jwk()).unwrap();
            let encoded = URL_SAFE_NO_PAD.encode(&signature);
            let theirs = jsonwebtoken::crypto::verify(&encoded, MESSAGE, &decoding, theirs);
            assert_eq!(theirs.unwrap_or(false), verified.is_ok(), "{alg:?} {other:?}");
        }
        let few = VerifyingKey::new(public, &FROM_CLIENTS);
        let verified = few.verify(alg, MESSAGE, &signature).is_ok();
        assert_eq!(verified, FROM_CLIENTS.contains(&alg), "{alg:?}");
    }
}

#[test]
fn a_point_off_its_curve_verifies_nothing() {
    let off = PublicKey::Ec { curve: Curve::P256, point: [vec![4], vec![1; 64]].concat() };
    let key = VerifyingKey::new(off, &FROM_CLIENTS);
    assert!(key.fits(Alg::Es256) && !key.is_usable(Alg::Es256));
    assert_eq!(key.verify(Alg::Es256, MESSAGE, &[0; 64]), Err(VerifyError::Key));
}

#[test]
fn a_key_of_another_kind_or_length_is_not_read() {
    let x = URL_SAFE_NO_PAD.encode([1; 32]);
    for jwk in [
        json!({ "kty": "EC", "crv": "P-256", "x": x }),
        json!({ "kty": "EC", "crv": "P-384", "x": x, "y": x }),
        json!({ "kty": "EC", "crv": "secp256k1", "x": x, "y": x }),
        json!({ "kty": "EC", "x": x, "y": x }),
        json!({ "kty": "OKP", "crv": "Ed448", "x": x }),
        json!({ "kty": "OKP", "crv": "X25519", "x": x }),
        json!({ "kty": "OKP", "crv": "Ed25519", "x": "AA" }),
        json!({ "kty": "RSA", "n": "AQ" }),
        json!({ "kty": "oct", "k": x }),
        json!({ "kty": "ec", "crv": "P-256", "x": x, "y": x }),
    ] {
        assert_eq!(read(&jwk), None, "{jwk}");
    }
}
