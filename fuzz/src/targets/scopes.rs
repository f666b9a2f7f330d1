//! F3: lists of scopes.

use std::collections::BTreeSet;

use portcullis::oauth::grant::narrowed;
use portcullis::oauth::scope::{Scope, ScopeSet};

/// Contradicted when the reader leaves the grammar of RFC 6749 §3.3, or a refresh widens.
pub fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let legal = |byte: u8| matches!(byte, 0x21 | 0x23..=0x5b | 0x5d..=0x7e);
    let tokens: BTreeSet<&str> = text.split(' ').filter(|token| !token.is_empty()).collect();
    let fits = text.len() <= 1000
        && tokens.len() <= 50
        && tokens.iter().all(|token| token.bytes().all(legal));
    let parsed = ScopeSet::parse(text);
    assert_eq!(parsed.is_ok(), fits, "{text:?}");
    let Ok(scopes) = parsed else { return };
    let found: BTreeSet<&str> = scopes.iter().map(Scope::as_str).collect();
    assert_eq!(found, tokens);
    assert_eq!(ScopeSet::parse(&scopes.to_string()).as_ref(), Ok(&scopes));
    let held: ScopeSet = scopes.iter().step_by(2).cloned().collect();
    if let Ok(granted) = narrowed(&held, Some(text)) {
        assert!(granted.is_subset(&held), "{text:?}");
    }
}
