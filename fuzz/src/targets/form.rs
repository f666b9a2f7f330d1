//! F4: forms and queries.

use std::collections::BTreeMap;

use axum::http::HeaderValue;
use portcullis::web::params::Params;

/// Undoes the encoding a character at a time; `None` where it is not UTF-8.
fn decoded(encoded: &str) -> Option<String> {
    let hex = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let bytes = encoded.as_bytes();
    let mut plain = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let pair =
            (bytes.get(at + 1).copied().and_then(hex), bytes.get(at + 2).copied().and_then(hex));
        match (bytes[at], pair) {
            (b'%', (Some(high), Some(low))) => {
                plain.push(high * 16 + low);
                at += 2;
            }
            (b'+', _) => plain.push(b' '),
            (other, _) => plain.push(other),
        }
        at += 1;
    }
    String::from_utf8(plain).ok()
}

/// Contradicted when a parameter is read otherwise than by others, or one of several is believed.
pub fn run(data: &[u8]) {
    let form = HeaderValue::from_static("application/x-www-form-urlencoded");
    let posted = Params::from_post(Some(&form), None, data);
    let Ok(text) = std::str::from_utf8(data) else {
        assert!(posted.is_err(), "bytes that are no text");
        return;
    };
    let read = Params::parse(text);
    assert_eq!(read.is_ok(), posted.is_ok());
    let pieces: Vec<&str> = text.split('&').filter(|piece| !piece.is_empty()).collect();
    let by_hand: Option<Vec<(String, String)>> = pieces
        .iter()
        .map(|piece| {
            let (name, value) = piece.split_once('=').unwrap_or((piece, ""));
            Some((decoded(name)?, decoded(value)?))
        })
        .collect();
    let by_hand = by_hand.filter(|pairs| {
        pairs.len() <= 50
            && !pairs.iter().any(|(name, value)| name.contains('\0') || value.contains('\0'))
    });
    assert_eq!(read.is_ok(), by_hand.is_some(), "{text:?}");
    let (Ok(params), Some(pairs)) = (read, by_hand) else { return };
    // The WHATWG's reader is lenient; where we accept at all, it sees the same.
    let lenient: Vec<(String, String)> = form_urlencoded::parse(data).into_owned().collect();
    assert_eq!(pairs, lenient, "{text:?}");
    let mut by_name: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (name, value) in &pairs {
        by_name.entry(name).or_default().push(value);
    }
    for (name, values) in by_name {
        match params.get(name) {
            Ok(value) => {
                assert_eq!(values.len(), 1, "{name:?} is repeated");
                assert_eq!(value.unwrap_or_default(), values[0]);
            }
            Err(_) => assert!(values.len() > 1, "{name:?} came once"),
        }
        let told: Vec<&&str> = values.iter().filter(|value| !value.is_empty()).collect();
        match params.get_agreeing(name) {
            Ok(value) => assert!(told.iter().all(|told| Some(**told) == value)),
            Err(_) => assert!(told.windows(2).any(|pair| pair[0] != pair[1])),
        }
    }
}
