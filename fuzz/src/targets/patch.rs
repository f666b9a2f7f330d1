//! Inputs that change something whole, a line for each change: `claims.aud="x"` sets a member (JSON, or
//! else text), `claims.aud=-` takes it out. What can be said in a line is found by a fuzzer sooner than what
//! needs a whole document to be right.

use aws_lc_rs::signature::Ed25519KeyPair;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

/// The changes of one input.
pub struct Patches<'a>(Vec<(&'a str, &'a str)>);

impl<'a> Patches<'a> {
    pub fn read(data: &'a [u8]) -> Option<Self> {
        let lines = std::str::from_utf8(data).ok()?.split('\n');
        Some(Self(lines.filter_map(|line| line.split_once('=')).collect()))
    }

    /// The last word on `name`.
    pub fn get(&self, name: &str) -> Option<&'a str> {
        self.0.iter().rev().find(|(known, _)| *known == name).map(|(_, value)| *value)
    }

    pub fn number(&self, name: &str) -> Option<i64> {
        self.get(name)?.parse().ok()
    }

    /// `object` with the members that `place.…` lines name.
    pub fn apply(&self, place: &str, mut object: Map<String, Value>) -> Map<String, Value> {
        for (name, value) in &self.0 {
            let member = name.strip_prefix(place).and_then(|rest| rest.strip_prefix('.'));
            let Some(member) = member else { continue };
            if *value == "-" {
                object.remove(member);
            } else {
                let value = serde_json::from_str(value).unwrap_or_else(|_| Value::from(*value));
                object.insert(member.to_owned(), value);
            }
        }
        object
    }
}

pub fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(object) => object,
        other => panic!("{other} is no object"),
    }
}

/// A JWT over `header` and `claims`; `sign` says how it is signed. The second value tells whether the
/// signature is what it must be.
pub fn jwt(
    key: &Ed25519KeyPair,
    header: &Map<String, Value>,
    claims: &Map<String, Value>,
    sign: Option<&str>,
) -> (String, bool) {
    let part = |object: &Map<String, Value>| {
        URL_SAFE_NO_PAD.encode(serde_json::to_vec(object).expect("JSON can be written"))
    };
    let signed = format!("{}.{}", part(header), part(claims));
    let mut signature = key.sign(signed.as_bytes()).as_ref().to_vec();
    match sign {
        None => return (format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)), true),
        Some("none") => signature.clear(),
        Some("other") => {
            let other = Ed25519KeyPair::from_seed_unchecked(&[9; 32]).expect("a key");
            signature = other.sign(signed.as_bytes()).as_ref().to_vec();
        }
        Some("hmac") => {
            use aws_lc_rs::signature::KeyPair;
            let public = key.public_key().as_ref();
            let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, public);
            signature = aws_lc_rs::hmac::sign(&key, signed.as_bytes()).as_ref().to_vec();
        }
        // A signature of something else, or one bit of the right one changed.
        Some(other) => match other.parse::<usize>() {
            Ok(bit) => signature[bit / 8 % 64] ^= 1 << (bit % 8),
            Err(_) => signature = key.sign(other.as_bytes()).as_ref().to_vec(),
        },
    }
    (format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)), false)
}
