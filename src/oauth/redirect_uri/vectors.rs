//! Test tables: which redirect URIs may be registered, which match, and what is sent. Every row is an attack
//! (threats RU-01 to RU-11) or a URI of an existing client.

use super::*;

fn policy() -> RedirectPolicy {
    let schemes = ["cursor", "vscode", "vscode-insiders", "windsurf", "claude", "zed"];
    RedirectPolicy { private_schemes: schemes.map(str::to_owned).to_vec(), allowed: None }
}

fn register(text: &str) -> Result<RedirectUri, RedirectUriRefused> {
    RedirectUri::register(text, &policy())
}

#[test]
fn ru_02_the_table_of_registrations() {
    use RedirectUriRefused as No;
    let table: &[(&str, Result<(), No>)] = &[
        // URIs of existing clients.
        ("https://claude.ai/api/mcp/auth_callback", Ok(())),
        ("https://claude.com/api/mcp/auth_callback", Ok(())),
        ("https://chatgpt.com/connector_platform_oauth_redirect", Ok(())),
        ("https://chatgpt.com/connector/oauth/abc123", Ok(())),
        ("https://vscode.dev/redirect", Ok(())),
        ("http://127.0.0.1:33418", Ok(())),
        ("http://127.0.0.1:33418/", Ok(())),
        ("cursor://anysphere.cursor-mcp/oauth/callback", Ok(())),
        ("https://www.cursor.com/agents/mcp/oauth/callback", Ok(())),
        ("http://localhost:8787/callback", Ok(())),
        ("http://localhost:6274/oauth/callback", Ok(())),
        ("http://localhost:6274/oauth/callback/debug", Ok(())),
        ("http://127.0.0.1:6276/oauth/callback", Ok(())),
        ("http://localhost/callback", Ok(())),
        ("http://127.0.0.1/callback", Ok(())),
        ("http://[::1]:8080/cb", Ok(())),
        ("http://localhost:3334/oauth/callback", Ok(())),
        ("vscode://vscode.github-authentication/did-authenticate", Ok(())),
        ("com.example.app:/oauth2redirect", Ok(())),
        ("com.example.app://oauth", Ok(())),
        ("https://good.example/cb?tenant=1", Ok(())),
        ("https://good.example", Ok(())),
        ("https://good.example:8443/cb", Ok(())),
        ("https://xn--laude-eze.ai/cb", Ok(())),
        // Texts that parsers repair into a legitimate host.
        (r"https:\\good.example\cb", Err(No::Characters)),
        ("https:good.example/cb", Err(No::NotCanonical)),
        ("https:///good.example/cb", Err(No::Path)),
        ("https://good.example/\tcb", Err(No::Characters)),
        ("https://good.example/\ncb", Err(No::Characters)),
        (" https://good.example/cb", Err(No::Characters)),
        ("https://good.example/cb ", Err(No::Characters)),
        ("https://good。example/cb", Err(No::Characters)),
        ("https://ｇood.example/cb", Err(No::Characters)),
        ("https://сlaude.ai/cb", Err(No::Characters)),
        // Found by fuzzing: hosts and queries that one parser accepts and others refuse.
        ("https://good`.example/cb", Err(No::Characters)),
        ("https://good\".example/cb", Err(No::Characters)),
        ("https://good.example;evil/cb", Err(No::Host)),
        ("https://good.example,evil.example/cb", Err(No::Host)),
        ("https://good.example&x/cb", Err(No::Host)),
        ("https://good..example/cb", Err(No::Host)),
        ("https://.good.example/cb", Err(No::Host)),
        ("https://good.example/cb?a={b}", Err(No::Characters)),
        ("https://good.example/cb?a=%zz", Err(No::Characters)),
        ("https://good.example/cb?a=%4", Err(No::Characters)),
        ("https://good.example/cb?a=%41", Ok(())),
        ("https://GOOD.example/cb", Err(No::NotCanonical)),
        ("HTTPS://good.example/cb", Err(No::NotCanonical)),
        ("https://127.1/cb", Err(No::NotCanonical)),
        ("https://2130706433/cb", Err(No::NotCanonical)),
        ("https://0x7f.0.0.1/cb", Err(No::NotCanonical)),
        ("https://017700000001/cb", Err(No::NotCanonical)),
        ("https://good.example/a/../cb", Err(No::Path)),
        ("https://good.example/./cb", Err(No::Path)),
        ("https://good.example/%2e%2e/cb", Err(No::Path)),
        ("https://good.example/%2E%2E/cb", Err(No::Path)),
        ("https://good.example/..;/cb", Err(No::Path)),
        ("https://good.example%2eevil.example/cb", Err(No::Path)),
        ("https://good.example:443/cb", Err(No::NotCanonical)),
        ("https://good.example:00080/cb", Err(No::NotCanonical)),
        ("https://good.example:0/cb", Err(No::Port)),
        // Texts that parsers leave unchanged but that still deceive.
        ("https://good.example@evil.example/cb", Err(No::UserInfo)),
        ("https://@evil.example/cb", Err(No::UserInfo)),
        ("https://user:pass@good.example/cb", Err(No::UserInfo)),
        ("https://good.example./cb", Err(No::Host)),
        ("https://good.example//cb", Err(No::Path)),
        ("https://good.example/cb#", Err(No::Fragment)),
        ("https://good.example/cb#x", Err(No::Fragment)),
        ("https://good.example/cb%0d%0aSet-Cookie:x", Err(No::Path)),
        ("https://good.example/cb%00", Err(No::Path)),
        ("https://good.example/a%2fb", Err(No::Path)),
        ("https://good.example/a%5cb", Err(No::Path)),
        ("https://good.example/a%252fb", Err(No::Path)),
        (r"https://good.example/\evil.example", Err(No::Characters)),
        // Parameters of the response (RU-07).
        ("https://good.example/cb?code=evil", Err(No::ResponseParameter)),
        ("https://good.example/cb?a=1&STATE=evil", Err(No::ResponseParameter)),
        ("https://good.example/cb?%63ode=evil", Err(No::ResponseParameter)),
        ("https://good.example/cb?a=1;iss=evil", Err(No::ResponseParameter)),
        ("https://good.example/cb?error", Err(No::ResponseParameter)),
        // Schemes (RU-03).
        ("javascript:alert(1)", Err(No::Scheme)),
        ("JavaScript:alert(1)", Err(No::Scheme)),
        ("data:text/html,x", Err(No::Scheme)),
        ("vbscript:x", Err(No::Scheme)),
        ("file:///etc/passwd", Err(No::Scheme)),
        ("blob:https://good.example/x", Err(No::Scheme)),
        ("about:blank", Err(No::Scheme)),
        ("filesystem:https://good.example/x", Err(No::Scheme)),
        ("view-source:https://good.example", Err(No::Scheme)),
        ("intent://x#Intent;end", Err(No::Fragment)),
        ("ms-settings:x", Err(No::Scheme)),
        ("ms.settings.ws:x", Ok(())),
        ("ws://good.example/cb", Err(No::Scheme)),
        ("myapp://cb", Err(No::SchemeNotListed("myapp".to_owned()))),
        // Plain http and addresses.
        ("http://good.example/cb", Err(No::PlainHttp)),
        ("http://localhost.evil.example/cb", Err(No::PlainHttp)),
        ("http://127.0.0.1.nip.io/cb", Err(No::PlainHttp)),
        ("http://localhost@evil.example/cb", Err(No::UserInfo)),
        ("http://0.0.0.0/cb", Err(No::PlainHttp)),
        ("http://127.0.0.2/cb", Err(No::PlainHttp)),
        ("http://[::ffff:127.0.0.1]/cb", Err(No::NotCanonical)),
        ("https://192.0.2.1/cb", Err(No::Host)),
        ("https://[2001:db8::1]/cb", Err(No::Host)),
        // Not absolute URLs.
        ("", Err(No::NotAUrl)),
        ("/cb", Err(No::NotAUrl)),
        ("//good.example/cb", Err(No::NotAUrl)),
        ("https://", Err(No::NotAUrl)),
        ("*", Err(No::NotAUrl)),
        ("https://*.good.example/cb", Err(No::Host)), // a literal star matches nothing but itself
    ];
    assert!(table.len() >= 57);
    for (text, expected) in table {
        let verdict = register(text).map(drop);
        // If there are several faults, any may be reported; only the refusal counts.
        assert_eq!(verdict.is_ok(), expected.is_ok(), "{text:?}: {verdict:?}");
    }
    let long = format!("https://good.example/{}", "a".repeat(MAX_REDIRECT_URI));
    assert_eq!(register(&long), Err(No::TooLong));
    let just = format!("https://good.example/{}", "a".repeat(MAX_REDIRECT_URI - 21));
    assert!(register(&just).is_ok());
}

#[test]
fn ru_05_the_port_is_free_on_loopback_http_and_nothing_else_is() {
    let table: &[(&str, &str, bool)] = &[
        ("http://127.0.0.1/cb", "http://127.0.0.1/cb", true),
        ("http://127.0.0.1/cb", "http://127.0.0.1:1/cb", true),
        ("http://127.0.0.1/cb", "http://127.0.0.1:65535/cb", true),
        ("http://127.0.0.1:8080/cb", "http://127.0.0.1:8081/cb", true),
        ("http://127.0.0.1:5000/cb", "http://127.0.0.1/cb", true),
        ("http://localhost:5000/cb", "http://localhost:6000/cb", true),
        ("http://[::1]:5000/cb", "http://[::1]:6000/cb", true),
        ("http://127.0.0.1:33418", "http://127.0.0.1:1234", true),
        ("http://127.0.0.1:33418", "http://127.0.0.1:1234/", false),
        ("http://127.0.0.1/cb", "http://127.0.0.1:0/cb", false),
        ("http://127.0.0.1/cb", "http://127.0.0.1:65536/cb", false),
        ("http://127.0.0.1/cb", "http://127.0.0.1:080/cb", false),
        ("http://127.0.0.1/cb", "http://127.0.0.1:/cb", false),
        ("http://127.0.0.1/cb", "http://127.0.0.1:+80/cb", false),
        ("http://127.0.0.1/cb", "http://127.0.0.1:8a/cb", false),
        ("http://127.0.0.1/cb", "http://127.0.0.1:80@evil.example/cb", false),
        ("http://127.0.0.1/cb", "http://localhost/cb", false),
        ("http://localhost/cb", "http://127.0.0.1/cb", false),
        ("http://localhost/cb", "http://[::1]/cb", false),
        ("http://localhost/cb", "https://localhost/cb", false),
        ("https://localhost/cb", "https://localhost:5000/cb", false),
        ("http://localhost/cb", "http://LOCALHOST/cb", false),
        ("http://localhost/cb", "http://localhost.evil.example/cb", false),
        ("http://localhost/cb", "http://localhost@evil.example/cb", false),
        ("http://localhost/cb", "http://localhost:1@evil.example/cb", false),
        ("http://127.0.0.1/cb", "http://127.0.0.1.nip.io/cb", false),
        ("http://127.0.0.1/cb", "http://127.1/cb", false),
        ("http://127.0.0.1/cb", "http://127.0.0.2/cb", false),
        ("http://localhost/cb", "http://localhost/CB", false),
        ("http://localhost/cb", "http://localhost/cb/", false),
        ("http://localhost/cb", "http://localhost/cb?x=1", false),
        ("http://localhost/cb?x=1", "http://localhost:9/cb?x=1", true),
        ("http://localhost/cb", "http://localhost:9/cb#x", false),
        ("http://localhost/cb", "http://localhost:9/a/../cb", false),
        ("https://good.example/cb", "https://good.example:8443/cb", false),
        ("https://good.example/cb", "https://good.example/cb/", false),
        ("com.example.app://x/cb", "com.example.app://x:1/cb", false),
    ];
    for (registered, presented, expected) in table {
        let uri = register(registered).unwrap();
        assert_eq!(uri.admits(presented), *expected, "{registered} {presented}");
    }
}

#[test]
fn p1_what_is_registered_is_a_fixpoint_of_the_parser() {
    for text in [
        "https://claude.ai/api/mcp/auth_callback",
        "https://good.example",
        "com.example.app://x/cb",
    ] {
        let uri = register(text).unwrap();
        let again = Url::parse(uri.as_str()).unwrap();
        assert!(again.as_str() == text || again.as_str() == format!("{text}/"));
    }
}

#[test]
fn p3_any_single_changed_byte_matches_nothing_but_a_loopback_port() {
    for registered in ["https://good.example/cb?a=1", "http://localhost:8787/callback"] {
        let uri = register(registered).unwrap();
        let port = registered.find("8787").map_or(0..0, |at| at..at + 4);
        for at in 0..registered.len() {
            for byte in 0x21..0x7f_u8 {
                let mut changed = registered.as_bytes().to_vec();
                if changed[at] == byte {
                    continue;
                }
                changed[at] = byte;
                let changed = String::from_utf8(changed).unwrap();
                if uri.admits(&changed) {
                    assert!(port.contains(&at) && byte.is_ascii_digit(), "{changed}");
                }
            }
        }
    }
}

#[test]
fn p4_an_answer_keeps_the_registered_text_and_says_everything_once() {
    for registered in
        ["https://good.example/cb", "https://good.example/cb?a=1", "http://localhost:1/cb?"]
    {
        let uris = [register(registered).unwrap()];
        let address = RegisteredRedirectUri::resolve(&uris, Some(registered)).unwrap();
        let state = "a b&c=d\r\nSet-Cookie: x é %41 +";
        let location =
            address.with_params(&[("code", "ac_1"), ("state", state), ("iss", "https://x")]);

        assert!(location.starts_with(registered), "{location}");
        assert!(location.bytes().all(|b| matches!(b, 0x21..=0x7e)), "{location}");
        let url = Url::parse(&location).unwrap();
        for (name, value) in [("code", "ac_1"), ("state", state), ("iss", "https://x")] {
            let found: Vec<_> = url.query_pairs().filter(|(n, _)| n == name).collect();
            assert_eq!(found.len(), 1, "{location}");
            assert_eq!(found[0].1, value);
        }
    }
}

#[test]
fn az_09_a_redirect_uri_may_be_left_out_only_when_there_is_one_to_mean() {
    let one = register("https://good.example/cb").unwrap();
    let other = register("https://good.example/other").unwrap();
    // Installations of one program share a client, and each listens on another port.
    let loopback = ["http://localhost/cb", "http://127.0.0.1:3000/cb", "http://[::1]:1/cb"];

    assert!(RegisteredRedirectUri::resolve(std::slice::from_ref(&one), None).is_ok());
    assert_eq!(
        RegisteredRedirectUri::resolve(&[one.clone(), other], None),
        Err(ReturnRefused::Required)
    );
    for uri in loopback {
        let only = register(uri).unwrap();
        assert_eq!(
            RegisteredRedirectUri::resolve(&[only], None),
            Err(ReturnRefused::Required),
            "{uri}"
        );
    }
    assert_eq!(RegisteredRedirectUri::resolve(&[], None), Err(ReturnRefused::Required));
    assert_eq!(
        RegisteredRedirectUri::resolve(&[one], Some("https://evil.example/cb")),
        Err(ReturnRefused::NotRegistered)
    );
}

#[test]
fn the_operators_list_narrows_and_keeps_the_loopback_port_free() {
    let listed = RedirectPolicy {
        allowed: Some(vec![
            "https://claude.ai/api/mcp/auth_callback".to_owned(),
            "http://localhost/callback".to_owned(),
        ]),
        ..policy()
    };
    assert!(RedirectUri::register("https://claude.ai/api/mcp/auth_callback", &listed).is_ok());
    assert!(RedirectUri::register("http://localhost:1234/callback", &listed).is_ok());
    for unlisted in [
        "https://claude.ai/api/mcp/auth_callback/",
        "https://good.example/cb",
        "http://localhost/other",
    ] {
        assert_eq!(
            RedirectUri::register(unlisted, &listed),
            Err(RedirectUriRefused::NotListed(unlisted.to_owned())),
            "{unlisted}"
        );
    }
}

#[test]
fn a_destination_is_told_as_a_person_understands_it() {
    assert_eq!(
        destination("https://claude.ai/api/mcp/auth_callback"),
        Destination::Https { host: "claude.ai".to_owned(), punycode: false }
    );
    assert_eq!(
        destination("https://xn--laude-eze.ai/cb"),
        Destination::Https { host: "xn--laude-eze.ai".to_owned(), punycode: true }
    );
    assert_eq!(
        destination("http://localhost:53124/cb"),
        Destination::Loopback { host_and_port: "localhost:53124".to_owned() }
    );
    assert_eq!(
        destination("cursor://anysphere.cursor-mcp/cb"),
        Destination::App { scheme: "cursor".to_owned() }
    );
}

#[test]
fn an_address_that_only_begins_like_a_redirect_uri_is_another_one() {
    let ours = "https://auth.example/auth/callback";
    for rest in ["", "?error=login_required", "#error=login_required"] {
        assert!(leads_to(&format!("{ours}{rest}"), ours), "{rest}");
    }
    for rest in ["x", "-old?error=x", "/other?error=x", "%20", "&error=x", ".html"] {
        assert!(!leads_to(&format!("{ours}{rest}"), ours), "{rest}");
    }
    assert!(!leads_to("https://auth.example/auth/callbac", ours));
    assert!(leads_to("https://a.example/c?x=1&error=y", "https://a.example/c?x=1"));
    assert!(!leads_to("https://a.example/c?x=12&error=y", "https://a.example/c?x=1"));
    assert!(!leads_to("http://127.0.0.1:80801/?error=y", "http://127.0.0.1:8080"));
}
