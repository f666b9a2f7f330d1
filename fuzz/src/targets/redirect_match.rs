//! F1: what a client registered against what a request presents, one on each line.

use portcullis::oauth::redirect_uri::{RedirectUri, RegisteredRedirectUri, destination};

use super::{lines, policy};

/// Scheme, authority and the rest, cut at the characters of RFC 3986 and never repaired.
fn parts(uri: &str) -> Option<(&str, &str, &str)> {
    let (scheme, after) = uri.split_once("://")?;
    let end = after.find(['/', '?', '#']).unwrap_or(after.len());
    Some((scheme, &after[..end], &after[end..]))
}

fn without_port(authority: &str) -> &str {
    let digits = authority.rfind(':').filter(|at| !authority[*at..].contains(']'));
    digits.map_or(authority, |at| &authority[..at])
}

/// Contradicted when something matches that is not the registered address.
pub fn run(data: &[u8]) {
    let Some(lines) = lines(data) else { return };
    let [one, presented, ..] = lines.as_slice() else { return };
    destination(presented);
    let Ok(registered) = RedirectUri::register(one, &policy()) else { return };
    assert!(registered.admits(one), "{one:?} does not admit itself");
    let resolved =
        RegisteredRedirectUri::resolve(std::slice::from_ref(&registered), Some(presented));
    assert_eq!(resolved.is_ok(), registered.admits(presented));
    let Ok(address) = resolved else { return };
    assert_eq!(address.as_str(), *presented);
    if one != presented {
        let (ours, theirs) = (parts(one), parts(presented));
        let (Some(ours), Some(theirs)) = (ours, theirs) else {
            panic!("{one:?} admits {presented:?}");
        };
        assert_eq!((ours.0, ours.2), (theirs.0, theirs.2), "{one:?} admits {presented:?}");
        assert_eq!(ours.0, "http", "{one:?} admits {presented:?}");
        let host = without_port(ours.1);
        assert_eq!(host, without_port(theirs.1), "{one:?} admits {presented:?}");
        assert!(
            matches!(host, "localhost" | "127.0.0.1" | "[::1]"),
            "{one:?} admits {presented:?}"
        );
        let port = &theirs.1[host.len()..];
        let digits = port.strip_prefix(':');
        assert!(
            port.is_empty()
                || digits.is_some_and(|digits| digits.parse::<u16>().is_ok_and(|p| p > 0)),
            "{presented:?}"
        );
    }
    // The answer begins with the address, and stays there.
    let location =
        address.with_params(&[("code", "c"), ("state", presented), ("iss", "https://as")]);
    assert!(location.starts_with(*presented));
    let web = presented.starts_with("http");
    if let (true, Some(before), Some(after)) = (web, parts(presented), parts(&location)) {
        assert_eq!((before.0, before.1), (after.0, after.1), "{location:?}");
    }
    assert!(location.bytes().all(|byte| matches!(byte, 0x21..=0x7e)), "{location:?}");
}
