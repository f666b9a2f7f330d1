//! Parsers and matchers against generated inputs: none panics, what is accepted stays what it was, and
//! each agrees with a model that is too simple to be wrong. The properties P1 to P12:
//!
//! | Property | Test |
//! |---|---|
//! | P1 an accepted redirect URI is a fixpoint of the parser | `p1_an_accepted_redirect_uri_is_read_by_a_parser_as_it_stands` |
//! | P2 what matches has scheme, host and path in common | `p2_uris_that_match_differ_in_a_loopback_port_at_most` |
//! | P3 a match forgives one byte of a loopback port and nothing else | `p3_no_changed_byte_matches_but_in_a_loopback_port` |
//! | P4 an answer keeps the registered text and says everything once | `p4_an_answer_says_everything_once_and_state_comes_back_as_it_went` |
//! | P5 a secret of one kind is never one of another | `p5_a_secret_of_one_kind_is_none_of_another` |
//! | P6 the life of grants | `p6_no_sequence_of_steps_breaks_a_safety_invariant` |
//! | P7 a refusal changes nothing | `p7_a_refusal_leaves_the_database_as_it_was` |
//! | P8 no canary gets out | `p8_no_canary_is_in_logs_pages_audit_trail_or_database` |
//! | P9 a hostile name stays text | `p9_a_name_that_is_shown_is_short_plain_and_settled` |
//! | P10 no window admits more than the limit | `p10_no_window_admits_more_than_the_limit` |
//! | P11 the clock revives nothing | `p11_no_reading_of_the_clock_makes_a_dead_thing_live_again` |
//! | P12 a sealed text opens in its own place only | `p12_a_sealed_text_opens_in_its_own_place_and_unchanged_only` |
//!
//! What is private is asked beside its code: globs in `src/policy/pattern.rs`, strict JSON in
//! `src/gateway/authorize.rs`. `PROPTEST_CASES=100000` runs more cases, `PROPTEST_RNG_SEED` repeats a run.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use axum::http::HeaderMap;
use portcullis::clock::{Clock, ManualClock, Timestamp};
use portcullis::http_client::address::is_public;
use portcullis::oauth::client::{ClientMetadata, RegistrationLimits};
use portcullis::oauth::client_name::DisplayName;
use portcullis::oauth::grant::narrowed;
use portcullis::oauth::pkce::CodeChallenge;
use portcullis::oauth::redirect_uri::{
    RedirectPolicy, RedirectUri, RegisteredRedirectUri, destination,
};
use portcullis::oauth::resource;
use portcullis::oauth::scope::{Scope, ScopeSet};
use portcullis::oauth::scope_hierarchy::ScopeHierarchy;
use portcullis::oauth::sealed::{Purpose, Sealer};
use portcullis::oauth::secret::{AuthorizationCode, RefreshToken, Secret, new_id};
use portcullis::oauth::web_url::{ClientIdUrl, WebUrl};
use portcullis::web::client_address::ClientAddress;
use portcullis::web::params::Params;
use portcullis::web::words::Language;
use proptest::prelude::*;
use serde_json::{Value, json};
use url::Url;

use crate::harness::client::challenge_of;

fn config() -> ProptestConfig {
    ProptestConfig { failure_persistence: None, ..ProptestConfig::default() }
}

fn policy() -> RedirectPolicy {
    RedirectPolicy { private_schemes: vec!["cursor".to_owned()], allowed: None }
}

/// Texts that are nearly redirect URIs, put together from what attacks are made of.
fn uri() -> impl Strategy<Value = String> {
    let scheme = prop::sample::select(vec![
        "https://",
        "http://",
        "https://",
        "http://",
        "HTTPS://",
        "https:/",
        "https:",
        "cursor://",
        "com.example.app:/",
        "javascript:",
        "data:",
        "//",
        "",
    ]);
    let user = prop::sample::select(vec!["", "", "", "", "user@", "user:pw@", "good.example@"]);
    let host = prop::sample::select(vec![
        "good.example",
        "evil.example",
        "localhost",
        "127.0.0.1",
        "[::1]",
        "localhost.evil.example",
        "127.1",
        "2130706433",
        "GOOD.example",
        "good.example.",
        "xn--bcher-kva.example",
        "10.0.0.1",
        "",
    ]);
    let port = prop_oneof![
        4 => Just(String::new()),
        2 => (0..70_000_u32).prop_map(|port| format!(":{port}")),
        1 => prop::sample::select(vec![":", ":080", ":8a", ":+1", ":-1"]).prop_map(str::to_owned),
    ];
    let path = prop::collection::vec(
        prop::sample::select(vec![
            "/", "cb", "a", ".", "..", ";", "%2e", "%2F", "%5c", "%00", "%41", "\\", "//", " ",
            "\t", "é", "?", "&", "=", "code", "state", "x", "#", "%", "~", "@", ":",
        ]),
        0..8,
    );
    (scheme, user, host, port, path).prop_map(|(scheme, user, host, port, path)| {
        format!("{scheme}{user}{host}{port}{}", path.concat())
    })
}

fn any_uri() -> impl Strategy<Value = String> {
    prop_oneof![4 => uri(), 1 => any::<String>(), 1 => "[ -~]{0,40}"]
}

/// Scope tokens of few letters, so that sets overlap.
fn scope_set() -> impl Strategy<Value = ScopeSet> {
    prop::collection::btree_set("[a-d]", 0..4)
        .prop_map(|names| names.iter().map(|name| name.parse::<Scope>().unwrap()).collect())
}

fn names(set: &ScopeSet) -> BTreeSet<String> {
    set.iter().map(|scope| scope.as_str().to_owned()).collect()
}

fn json_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
        any_uri().prop_map(Value::from),
        prop::sample::select(vec![
            "none",
            "client_secret_basic",
            "private_key_jwt",
            "authorization_code",
            "refresh_token",
            "code",
            "web",
            "native",
            "https://good.example/cb",
            "http://localhost/cb",
            "a b",
        ])
        .prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 24, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::btree_map("[a-z_]{0,8}", inner, 0..5)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

/// A registration in which any member may be anything.
fn registration() -> impl Strategy<Value = Value> {
    let member = prop::sample::select(vec![
        "redirect_uris",
        "client_name",
        "token_endpoint_auth_method",
        "grant_types",
        "response_types",
        "scope",
        "application_type",
        "client_uri",
        "logo_uri",
        "contacts",
        "jwks",
        "jwks_uri",
        "software_id",
        "client_id",
    ]);
    let members = prop::collection::btree_map(member, json_value(), 0..4);
    let uris = prop::collection::vec(any_uri(), 0..2);
    (members, uris, any::<bool>()).prop_map(|(members, uris, usable)| {
        let mut all: serde_json::Map<String, Value> =
            members.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        if usable {
            let good = "http://localhost/cb".to_owned();
            all.insert("redirect_uris".to_owned(), json!([vec![good], uris].concat()));
        }
        Value::Object(all)
    })
}

fn clock() -> Clock {
    Clock::Manual(ManualClock::at(Timestamp::from_unix(crate::harness::START)))
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn p1_an_accepted_redirect_uri_is_read_by_a_parser_as_it_stands(text in any_uri()) {
        destination(&text); // whatever it is, it can be told
        if let Ok(registered) = RedirectUri::register(&text, &policy()) {
            let parsed = Url::parse(&text).unwrap();
            let with_slash = format!("{text}/");
            prop_assert!(parsed.as_str() == text || parsed.as_str() == with_slash);
            prop_assert!(parsed.username().is_empty() && parsed.fragment().is_none());
            prop_assert!(!text.contains("..") || !parsed.path().split('/').any(|part| part == ".."));
            prop_assert_eq!(RedirectUri::register(registered.as_str(), &policy()), Ok(registered));
        }
    }

    #[test]
    fn p2_uris_that_match_differ_in_a_loopback_port_at_most(one in any_uri(), other in any_uri()) {
        if let Ok(registered) = RedirectUri::register(&one, &policy()) {
            prop_assert!(registered.admits(&one));
            if registered.admits(&other) && one != other {
                let (ours, theirs) = (Url::parse(&one).unwrap(), Url::parse(&other).unwrap());
                prop_assert_eq!(ours.scheme(), "http");
                prop_assert_eq!(theirs.scheme(), "http");
                prop_assert_eq!(ours.host_str(), theirs.host_str());
                prop_assert!(matches!(ours.host_str(), Some("localhost" | "127.0.0.1" | "[::1]")));
                prop_assert_eq!((ours.path(), ours.query()), (theirs.path(), theirs.query()));
                prop_assert!(theirs.username().is_empty() && theirs.fragment().is_none());
            }
        }
    }

    #[test]
    fn p3_no_changed_byte_matches_but_in_a_loopback_port(text in uri(), at in any::<prop::sample::Index>(), byte in 0x20..0x7f_u8) {
        if let Ok(registered) = RedirectUri::register(&text, &policy()) {
            let at = at.index(text.len());
            let mut changed = text.clone().into_bytes();
            let differs = std::mem::replace(&mut changed[at], byte) != byte;
            let changed = String::from_utf8(changed).unwrap();
            if differs && registered.admits(&changed) {
                let loopback = ["http://localhost:", "http://127.0.0.1:", "http://[::1]:"];
                let start = loopback.iter().find(|start| text.starts_with(**start));
                let start = start.map_or(0, |start| start.len());
                let digits = text[start..].bytes().take_while(u8::is_ascii_digit).count();
                prop_assert!(start > 0 && (start..start + digits).contains(&at), "{} {}", text, changed);
                prop_assert!(byte.is_ascii_digit(), "{}", changed);
            }
        }
    }

    #[test]
    fn p4_an_answer_says_everything_once_and_state_comes_back_as_it_went(text in uri(), state in any::<String>(), code in any::<String>()) {
        if let Ok(registered) = RedirectUri::register(&text, &policy()) {
            let address = RegisteredRedirectUri::resolve(&[registered], Some(&text)).unwrap();
            let issuer = "https://portcullis.example";
            let location = address.with_params(&[("code", &code), ("state", &state), ("iss", issuer)]);
            prop_assert!(location.starts_with(&text));
            prop_assert!(location.bytes().all(|byte| matches!(byte, 0x21..=0x7e)), "{}", location);
            let url = Url::parse(&location).unwrap();
            for (name, value) in [("code", code.as_str()), ("state", &state), ("iss", issuer)] {
                let found: Vec<String> =
                    url.query_pairs().filter(|(known, _)| known == name).map(|(_, found)| found.into_owned()).collect();
                prop_assert_eq!(found, vec![value.to_owned()]);
            }
        }
    }

    #[test]
    fn p5_a_secret_of_one_kind_is_none_of_another(text in any::<String>(), shaped in "(rt|ac|xx)_[0-9a-f]{31,33}[.][A-Za-z0-9_-]{42,44}") {
        for text in [text, shaped] {
            if let Some(token) = Secret::<RefreshToken>::parse(&text) {
                prop_assert_eq!(token.expose(), &text);
                prop_assert_eq!(token.id(), &text[3..35]);
                prop_assert!(Secret::<AuthorizationCode>::parse(&text).is_none());
            }
        }
        let code = Secret::<AuthorizationCode>::generate(&new_id(&clock()));
        prop_assert!(Secret::<AuthorizationCode>::parse(code.expose()).is_some());
        prop_assert!(Secret::<RefreshToken>::parse(code.expose()).is_none());
    }

    #[test]
    fn p9_a_name_that_is_shown_is_short_plain_and_settled(name in prop_oneof![any::<String>(), "[ -~\u{202e}\u{200b}\u{430}a-z]{0,90}"]) {
        let shown = DisplayName::of(Some(&name));
        if let Some(text) = shown.text {
            prop_assert!(!text.is_empty() && text.chars().count() <= 64);
            prop_assert!(!text.contains(['<', '>', '"', '/', ':', '@', '\u{202e}', '\u{200b}']), "{:?}", text);
            prop_assert!(!text.chars().any(char::is_control));
            if !text.ends_with('…') {
                prop_assert_eq!(DisplayName::of(Some(&text)).text, Some(text));
            }
        }
    }

    #[test]
    fn p12_a_sealed_text_opens_in_its_own_place_and_unchanged_only(
        plain in any::<Vec<u8>>(), place in any::<String>(), other in any::<String>(),
        at in any::<prop::sample::Index>(), letter in "[A-Za-z0-9_-]", garbage in any::<String>(),
    ) {
        let (sealer, stranger) = (Sealer::new(b"one key"), Sealer::new(b"another key"));
        let sealed = sealer.seal(Purpose::Storage, &place, &plain);
        let opened = sealer.open(Purpose::Storage, &place, &sealed).unwrap();
        prop_assert_eq!(&opened[..], &plain[..]);
        prop_assert!(stranger.open(Purpose::Storage, &place, &sealed).is_err());
        prop_assert!(sealer.open(Purpose::Consent, &place, &sealed).is_err());
        prop_assert!(place == other || sealer.open(Purpose::Storage, &other, &sealed).is_err());
        prop_assert!(sealer.open(Purpose::Storage, &place, &garbage).is_err());
        let at = at.index(sealed.len());
        let changed = format!("{}{letter}{}", &sealed[..at], &sealed[at + 1..]);
        prop_assert!(changed == sealed || sealer.open(Purpose::Storage, &place, &changed).is_err());
    }

    #[test]
    fn scopes_are_read_as_the_rfc_says_and_written_as_they_are_read(text in prop_oneof!["[a-c \"\\\\\t~!#é]{0,20}", any::<String>()]) {
        let legal = |c: char| matches!(c, '\x21' | '\x23'..='\x5b' | '\x5d'..='\x7e');
        let tokens: BTreeSet<&str> = text.split(' ').filter(|token| !token.is_empty()).collect();
        let fits = text.len() <= 1000 && tokens.len() <= 50 && tokens.iter().all(|token| token.chars().all(legal));
        match ScopeSet::parse(&text) {
            Ok(scopes) => {
                prop_assert!(fits);
                prop_assert_eq!(scopes.to_string(), tokens.into_iter().collect::<Vec<_>>().join(" "));
                prop_assert_eq!(ScopeSet::parse(&scopes.to_string()), Ok(scopes));
            }
            Err(_) => prop_assert!(!fits, "{:?}", text),
        }
    }

    #[test]
    fn sets_of_scopes_are_sets_and_a_refresh_never_widens(one in scope_set(), other in scope_set(), text in "[a-e ]{0,8}") {
        let (a, b) = (names(&one), names(&other));
        prop_assert_eq!(names(&one.union(&other)), a.union(&b).cloned().collect::<BTreeSet<_>>());
        prop_assert_eq!(names(&one.intersection(&other)), a.intersection(&b).cloned().collect::<BTreeSet<_>>());
        prop_assert_eq!(names(&one.difference(&other)), a.difference(&b).cloned().collect::<BTreeSet<_>>());
        prop_assert_eq!(one.is_subset(&other), a.is_subset(&b));
        if let Ok(granted) = narrowed(&one, Some(&text)) {
            prop_assert!(granted.is_subset(&one));
        }
    }

    #[test]
    fn implied_scopes_are_those_that_can_be_reached(edges in prop::collection::btree_set((0..6_usize, 0..6_usize), 0..9), held in scope_set()) {
        let letters = ["a", "b", "c", "d", "e", "f"];
        let mut reached = [[false; 6]; 6];
        for (from, to) in &edges {
            reached[*from][*to] = true;
        }
        for by in 0..6 {
            for from in 0..6 {
                for to in 0..6 {
                    reached[from][to] |= reached[from][by] && reached[by][to];
                }
            }
        }
        let mut direct: BTreeMap<Scope, ScopeSet> = BTreeMap::new();
        for (from, to) in &edges {
            let to: ScopeSet = std::iter::once(letters[*to].parse().unwrap()).collect();
            let known = direct.entry(letters[*from].parse().unwrap()).or_default();
            *known = known.union(&to);
        }
        let circular = (0..6).any(|scope| reached[scope][scope]);
        match ScopeHierarchy::new(&direct) {
            Err(_) => prop_assert!(circular),
            Ok(hierarchy) => {
                prop_assert!(!circular);
                let all = hierarchy.with_implied(&held);
                let holds = |to: usize| (0..6).any(|from| {
                    names(&held).contains(letters[from]) && (from == to || reached[from][to])
                });
                let model: BTreeSet<String> = (0..6).filter(|to| holds(*to)).map(|to| letters[to].to_owned()).collect();
                prop_assert_eq!(names(&all), model);
                prop_assert_eq!(hierarchy.with_implied(&all), all);
            }
        }
    }

    #[test]
    fn parameters_come_back_as_they_went_and_repeated_ones_are_refused(pairs in prop::collection::vec(("[a-d]", any::<String>()), 0..8), raw in any::<String>()) {
        let _ = Params::parse(&raw);
        let mut form = form_urlencoded::Serializer::new(String::new());
        form.extend_pairs(&pairs);
        let nul = pairs.iter().any(|(_, value)| value.contains('\0'));
        match Params::parse(&form.finish()) {
            Err(_) => prop_assert!(nul),
            Ok(params) => {
                prop_assert!(!nul);
                for name in ["a", "b", "c", "d"] {
                    let of: Vec<&str> = pairs.iter().filter(|(known, _)| known == name).map(|(_, value)| value.as_str()).collect();
                    match params.get(name) {
                        Ok(value) => {
                            prop_assert!(of.len() <= 1);
                            prop_assert_eq!(value, of.first().copied().filter(|value| !value.is_empty()));
                        }
                        Err(_) => prop_assert!(of.len() > 1),
                    }
                }
            }
        }
    }

    #[test]
    fn the_language_that_weighs_most_is_spoken(ranges in prop::collection::vec((prop::sample::select(vec!["en", "ja", "pt", "ja-JP", "EN-gb", "de-CH", "zh-CN"]), 0..=10_u32), 0..6), raw in any::<String>()) {
        Language::from_accept_language(Some(&raw), &Language::ALL);
        let header: Vec<String> =
            ranges.iter().map(|(tag, tenths)| format!("{tag};q={}.{}", tenths / 10, tenths % 10)).collect();
        let best = |language: &str| {
            let of = ranges.iter().enumerate().filter(|(_, (tag, weight))| tag.to_lowercase().starts_with(language) && *weight > 0);
            of.map(|(at, (_, weight))| (*weight, std::cmp::Reverse(at))).max()
        };
        let header = header.join(", ");
        let expected = |among: &[Language]| {
            let known = among.iter().filter_map(|language| Some((best(&language.tag()[..2])?, *language)));
            known.max_by_key(|(best, _)| *best).map_or(Language::English, |(_, language)| language)
        };
        for among in [&Language::ALL[..], &Language::OF_ADMINISTRATORS[..]] {
            prop_assert_eq!(Language::from_accept_language(Some(&header), among), expected(among));
        }
    }

    #[test]
    fn a_registration_is_stored_as_it_was_accepted(metadata in registration(), raw in any::<Vec<u8>>()) {
        let limits = RegistrationLimits { redirect_uris: 3 };
        let _ = ClientMetadata::parse(&raw, &policy(), &limits);
        let body = metadata.to_string();
        let of = "https://good.example/client";
        let _ = ClientMetadata::parse_document(body.as_bytes(), &ClientIdUrl::parse(of).unwrap(), &policy(), &limits);
        if let Ok(client) = ClientMetadata::parse(body.as_bytes(), &policy(), &limits) {
            prop_assert!((1..=3).contains(&client.redirect_uris.len()));
            let stored = ClientMetadata::from_stored_json(&client.to_json()).unwrap();
            prop_assert_eq!(stored.identity(), client.identity());
            prop_assert_eq!(&stored, &client);
            for uri in &client.redirect_uris {
                prop_assert!(RedirectUri::register(uri.as_str(), &policy()).is_ok());
            }
        }
    }

    #[test]
    fn an_address_that_will_be_fetched_is_canonical_and_named(text in any_uri()) {
        if let Ok(url) = WebUrl::parse(&text) {
            let parsed = Url::parse(&text).unwrap();
            prop_assert_eq!(parsed.as_str(), &text);
            prop_assert_eq!(parsed.host_str(), Some(url.host()));
            prop_assert_eq!(url.as_str(), format!("https://{}{}", url.host(), url.target()));
            prop_assert!(url.host().parse::<IpAddr>().is_err() && parsed.port().is_none());
        }
    }

    #[test]
    fn a_resource_is_named_by_itself_and_by_no_other_path(one in any_uri(), other in any_uri()) {
        let means = |presented: &str| {
            resource::meant([one.as_str()].into_iter(), "https://ours.example", presented).is_some()
        };
        prop_assert!(means(&one));
        // What is configured is a URL.
        if let Ok(ours) = Url::parse(&one) && means(&other) && one != other {
            let theirs = Url::parse(&other).unwrap();
            let path = |url: &Url| url.path().strip_suffix('/').unwrap_or(url.path()).to_owned();
            prop_assert_eq!(ours.origin(), theirs.origin(), "{} {}", one, other);
            prop_assert_eq!(path(&ours), path(&theirs), "{} {}", one, other);
            prop_assert!(theirs.fragment().is_none() && theirs.username().is_empty());
        }
    }

    #[test]
    fn a_verifier_meets_its_own_challenge_only(verifier in "[A-Za-z0-9._~-]{43,128}", other in "[A-Za-z0-9._~-]{43,128}", raw in any::<String>()) {
        let challenge = CodeChallenge::parse(&challenge_of(&verifier)).unwrap();
        prop_assert!(challenge.is_met_by(&verifier));
        prop_assert!(verifier == other || !challenge.is_met_by(&other));
        prop_assert!(!challenge.is_met_by(challenge.as_str()));
        if let Ok(challenge) = CodeChallenge::parse(&raw) {
            prop_assert_eq!(challenge.as_str().len(), 43);
        }
    }

    #[test]
    fn an_address_inside_another_is_never_public(bits in any::<u32>()) {
        let v4 = Ipv4Addr::from(bits);
        let special = v4.is_private() || v4.is_loopback() || v4.is_link_local() || v4.is_broadcast()
            || v4.is_documentation() || v4.is_multicast() || v4.is_unspecified();
        prop_assert!(!(special && is_public(IpAddr::V4(v4))), "{}", v4);
        prop_assert!(!is_public(IpAddr::V6(v4.to_ipv6_mapped())));
        prop_assert!(!is_public(IpAddr::V6(v4.to_ipv6_compatible())));
    }

    #[test]
    fn whoever_is_no_known_proxy_speaks_for_itself(peer in any::<u32>(), header in prop_oneof![any::<String>(), "[0-9.:, \\[\\]]{0,40}"]) {
        let peer = IpAddr::V4(Ipv4Addr::from(peer));
        let mut headers = HeaderMap::new();
        if let Ok(value) = header.parse() {
            headers.insert("x-forwarded-for", value);
        }
        let untrusted = ClientAddress::find(peer, &headers, &[]);
        prop_assert_eq!(untrusted, ClientAddress::find(peer, &HeaderMap::new(), &[]));
        prop_assert!(untrusted.0.is_none_or(|address| address == peer));
        let trusted = ClientAddress::find(peer, &headers, &["0.0.0.0/0".parse().unwrap()]);
        prop_assert!(!matches!(trusted.0, Some(IpAddr::V4(_))), "every IPv4 address is a proxy here");
    }
}

#[test]
fn every_property_of_the_table_has_its_test() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    crate::repository::architecture::rust_files(&root.join("tests/it"), &mut files);
    let code: String = files.iter().map(|file| std::fs::read_to_string(file).unwrap()).collect();
    let table = std::fs::read_to_string(root.join("tests/it/laws/properties.rs")).unwrap();
    let rows: Vec<&str> =
        table.lines().filter(|line| line.starts_with("//! | P")).skip(1).collect();
    assert!(rows.len() >= 12, "only {} properties", rows.len());
    for row in rows {
        let name = row.split('`').nth(1).unwrap();
        assert!(code.contains(&format!("fn {name}(")), "there is no {name}");
    }
}
