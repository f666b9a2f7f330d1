//! Tests for the network environment: reserved paths, service links of Kubernetes and Docker, origins.

use super::*;

/// Returns the problem of a resource at this path.
fn problem_of_path(public_url: &str, path: &str) -> Option<Problem> {
    let text = OK.replace("https://mcp.example.com", public_url);
    let text = text.replace("\"/mcp\"", &format!("{path:?}"));
    let found = load_with(&text, &[]).err()?.0;
    assert_eq!(found.len(), 1, "{path}: {found:#?}");
    Some(found[0].clone())
}

#[test]
fn a_resource_at_or_below_a_path_of_ours_is_refused_and_that_path_is_named() {
    for public_url in ["https://mcp.example.com", "https://example.com/auth"] {
        for (path, ours) in [
            ("/waiting", "/waiting"),
            ("/waiting/mcp", "/waiting"),
            ("/Waiting", "/waiting"),
            ("/WAITING/mcp", "/waiting"),
            ("/authorize", "/authorize"),
            ("/consent", "/consent"),
            ("/auth", "/auth/callback"),
            ("/auth/callback", "/auth/callback"),
            ("/auth/mcp", "/auth/callback"),
            ("/token", "/token"),
            ("/Token", "/token"),
            ("/revoke", "/revoke"),
            ("/introspect", "/introspect"),
            ("/register", "/register"),
            ("/register/mcp", "/register"),
            ("/account", "/account"),
            ("/account/sign-in", "/account"),
            ("/account/mcp", "/account"),
            ("/health", "/health"),
            ("/ready", "/ready"),
            ("/ready/mcp", "/ready"),
            ("/backchannel-logout", "/backchannel-logout"),
            ("/global-token-revocation", "/global-token-revocation"),
            ("/.well-known", "/.well-known"),
            ("/.well-known/mcp", "/.well-known"),
            ("/.Well-Known/mcp", "/.well-known"),
            // The metadata of a resource is below that resource too.
            ("/mcp/.well-known", "/.well-known"),
            ("/mcp/.well-known/openid-configuration", "/.well-known"),
        ] {
            let problem = problem_of_path(public_url, path).unwrap_or_else(|| panic!("{path}"));
            assert_eq!(problem.key, "resource[0].path");
            assert!(problem.reason.contains(ours), "{path}: {}", problem.reason);
        }
        for ours in super::super::paths::ALL {
            for path in [(*ours).to_owned(), ours.to_uppercase(), format!("{ours}/mcp")] {
                let path = path.replace("{client_id}", "x").replace("{CLIENT_ID}", "x");
                let path = path.replace("{name}", "x").replace("{NAME}", "x");
                let problem = problem_of_path(public_url, &path);
                let problem = problem.unwrap_or_else(|| panic!("{path}"));
                assert_eq!(problem.key, "resource[0].path");
                assert!(problem.reason.contains("a path of Portcullis itself"), "{problem:?}");
            }
        }
        for path in ["/waiting-room", "/mcp", "/tokens", "/mcp/token", "/authorization", "/wait"] {
            assert_eq!(problem_of_path(public_url, path), None, "{path}");
        }
        // With a slash at the end, the path is not plain.
        assert!(problem_of_path(public_url, "/waiting/").is_some());
        // An MCP server elsewhere must not have one of our own URLs as its id.
        for (id, fits) in [
            (format!("{public_url}/waiting"), false),
            (format!("{public_url}/token/mcp"), false),
            (format!("{public_url}/mcp/.well-known/x"), false),
            (format!("{public_url}/mcp"), true),
            ("https://elsewhere.example.com/waiting".to_owned(), true),
        ] {
            let text = OK.replace("https://mcp.example.com", public_url);
            let text = text.replace("path = \"/mcp\"", &format!("id = {id:?}"));
            assert_eq!(load_with(&text, &[]).is_ok(), fits, "{id}");
        }
    }
}

#[test]
fn variables_that_kubernetes_and_docker_make_for_a_service_are_ignored() {
    let links: &[&[(&str, &str)]] = &[
        // A Service called `portcullis`, as Kubernetes writes it.
        &[
            ("PORTCULLIS_SERVICE_HOST", "10.96.13.7"),
            ("PORTCULLIS_SERVICE_PORT", "8000"),
            ("PORTCULLIS_SERVICE_PORT_HTTP", "8000"),
            ("PORTCULLIS_PORT", "tcp://10.96.13.7:8000"),
            ("PORTCULLIS_PORT_8000_TCP", "tcp://10.96.13.7:8000"),
            ("PORTCULLIS_PORT_8000_TCP_PROTO", "tcp"),
            ("PORTCULLIS_PORT_8000_TCP_PORT", "8000"),
            ("PORTCULLIS_PORT_8000_TCP_ADDR", "10.96.13.7"),
        ],
        // A second Service for the admin listener.
        &[
            ("PORTCULLIS_ADMIN_SERVICE_HOST", "10.96.13.8"),
            ("PORTCULLIS_ADMIN_SERVICE_PORT", "8001"),
            ("PORTCULLIS_ADMIN_SERVICE_PORT_ADMIN_PAGES", "8001"),
            ("PORTCULLIS_ADMIN_PORT", "tcp://10.96.13.8:8001"),
            ("PORTCULLIS_ADMIN_PORT_8001_TCP", "tcp://10.96.13.8:8001"),
            ("PORTCULLIS_ADMIN_PORT_8001_TCP_ADDR", "10.96.13.8"),
        ],
        // Services of its database and of a chart's release; names with a digit and with two dashes.
        &[("PORTCULLIS_POSTGRES_SERVICE_HOST", "10.96.13.9")],
        &[("PORTCULLIS_POSTGRES_RW_PORT_5432_TCP", "tcp://10.96.13.9:5432")],
        &[("PORTCULLIS_2_SERVICE_PORT", "80")],
        &[("PORTCULLIS__BLUE_SERVICE_PORT_HTTP_ALT", "8080")],
        // Other protocols, and IPv6 as Kubernetes writes it, with and without brackets.
        &[("PORTCULLIS_PORT_443_UDP", "udp://10.96.13.7:443")],
        &[("PORTCULLIS_PORT_9999_SCTP_PROTO", "sctp")],
        &[("PORTCULLIS_PORT", "tcp://[fd00:10:96::7]:8000")],
        &[("PORTCULLIS_SERVICE_HOST", "fd00:10:96::7")],
        // Docker links, with the variables of the other container, and a host name in place of an address.
        &[
            ("PORTCULLIS_NAME", "/web/portcullis"),
            ("PORTCULLIS_PORT", "tcp://172.17.0.5:8000"),
            ("PORTCULLIS_PORT_8000_TCP_START", "tcp://172.17.0.5:8000"),
            ("PORTCULLIS_PORT_8000_TCP_END", "tcp://172.17.0.5:8002"),
            ("PORTCULLIS_PORT_8000_TCP_PORT_START", "8000"),
            ("PORTCULLIS_PORT_8000_TCP_PORT_END", "8002"),
            ("PORTCULLIS_ENV_RUST_LOG", "anything at all"),
            ("PORTCULLIS_1_NAME", "/web/portcullis_1"),
            ("PORTCULLIS_1_ENV_PATH", "/usr/bin"),
        ],
    ];
    for link in links {
        let loaded = load_with(OK, link).unwrap_or_else(|problems| panic!("{link:?}: {problems}"));
        assert!(!loaded.show().contains("tcp://"), "it is no part of the configuration");
    }
}

#[test]
fn variables_that_only_look_like_those_of_a_service_are_still_mistakes() {
    for (variable, value, meant) in [
        ("PORTCULLIS_LISTN", "127.0.0.1:1", Some("listen")),
        ("PORTCULLIS_PUBLIC_URI", "https://mcp.example.com", Some("public_url")),
        ("PORTCULLIS_UPSTREAM__CLIENT_ID_", "x", Some("upstream.client_id")),
        ("PORTCULLIS_SERVICE_HOSTS", "10.96.13.7", Some("PORTCULLIS_SERVICE_HOST")),
        ("PORTCULLIS_SERVICE_PORTS", "8000", Some("PORTCULLIS_SERVICE_PORT")),
        ("PORTCULLIS_ADMIN_SERVICE_HOSTT", "10.96.13.7", Some("PORTCULLIS_ADMIN_SERVICE_HOST")),
        // The name matches, but the value shows that a person set the variable.
        ("PORTCULLIS_PORT", "8000", None),
        ("PORTCULLIS_PORT", "http://10.96.13.7:8000", None),
        ("PORTCULLIS_PORT", "tcp://10.96.13.7", None),
        ("PORTCULLIS_SERVICE_PORT", "http", None),
        ("PORTCULLIS_SERVICE_PORT", "80000", None),
        ("PORTCULLIS_PORT_8000_TCP", "8000", None),
        ("PORTCULLIS_PORT_HTTP_TCP", "tcp://10.96.13.7:8000", None),
        ("PORTCULLIS_PORT_8000_TCP_PROTO", "http", None),
        ("PORTCULLIS_PORT_8000_TCP_ADDRESS", "10.96.13.7", None),
        ("PORTCULLIS_SERVICE_HOST", "", None),
        ("PORTCULLIS_service_HOST", "10.96.13.7", None),
        ("PORTCULLIS_NAME", "portcullis", None),
        // Only a Docker link sets these, and there is no link.
        ("PORTCULLIS_ENV_LISTEN", "127.0.0.1:1", None),
    ] {
        let found = load_with(OK, &[(variable, value)]).map(|_| ()).unwrap_err().0;
        assert_eq!(found.len(), 1, "{variable}={value}: {found:#?}");
        assert!(found[0].reason.contains(variable), "{variable}: {}", found[0].reason);
        if let Some(meant) = meant {
            let hint = &found[0].hint;
            assert!(hint.contains(&format!("did you mean {meant}")), "{variable}: {hint}");
        }
    }
}

#[test]
fn an_allowed_origin_is_exact_and_what_could_never_match_is_refused_with_the_reason() {
    for origin in [
        "https://app.example.com",
        "https://app.example.com:8443",
        "http://intranet.example:8080",
        "https://xn--bcher-kva.example",
        "https://[2001:db8::1]:8443",
        "chrome-extension://aaaabbbbccccddddeeeeffffgggghhhh",
        "moz-extension://1b2c3d4e-5f60-4718-8293-a4b5c6d7e8f9",
        // Hosts of schemes other than http and https keep their case.
        "safari-web-extension://E6A1C5F0-1111-4222-8333-444455556666",
        "app://obsidian.md",
        "vscode-webview://1a2b3c4d5e6f",
        "vscode-file://vscode-app",
        "capacitor://localhost",
        "tauri://localhost",
        "ionic://localhost:8100",
    ] {
        let text = format!("allowed_origins = [{origin:?}]\n{OK}");
        assert!(load_with(&text, &[]).is_ok(), "{origin}: {:?}", problems(&text));
    }
    for (origin, reason, hint) in [
        ("https://*.example.com", "wildcard", "each origin"),
        ("*", "wildcard", "each origin"),
        ("chrome-extension://*", "wildcard", "each origin"),
        ("https://app.example.com/", "slash", "https://app.example.com"),
        ("https://app.example.com/app", "path", "https://app.example.com"),
        (
            "chrome-extension://aaaabbbbccccddddeeeeffffgggghhhh/",
            "slash",
            "chrome-extension://aaaa",
        ),
        ("app://obsidian.md/index.html", "path", "app://obsidian.md"),
        ("https://app.example.com?x", "path", "https://app.example.com"),
        ("https://app.example.com#x", "path", "https://app.example.com"),
        ("https://App.example.com", "browsers write", "https://app.example.com"),
        ("HTTPS://app.example.com", "browsers write", "https://app.example.com"),
        ("App://obsidian.md", "browsers write", "app://obsidian.md"),
        ("https://app.example.com:443", "browsers write", "https://app.example.com"),
        ("http://app.example.com:80", "browsers write", "http://app.example.com"),
        ("https://b\u{fc}cher.example", "browsers write", "https://xn--bcher-kva.example"),
        ("https://[2001:DB8::1]", "browsers write", "https://[2001:db8::1]"),
        ("https://127.1", "browsers write", "https://127.0.0.1"),
        ("null", "sandboxed", "take it out"),
        ("https://user@app.example.com", "user name", "take it out"),
        ("file://", "no origin", "take it out"),
        ("file:///home/me/page.html", "no origin", "take it out"),
        ("data:text/html,x", "no origin", "take it out"),
        ("blob:https://app.example.com", "no origin", "take it out"),
        ("about:blank", "no origin", "take it out"),
        ("wss://app.example.com", "no origin", "https://"),
        ("app.example.com", "scheme", "https://app.example.com"),
        ("localhost:3000", "scheme", ""),
        ("app:obsidian.md", "scheme", ""),
        ("app://", "host", ""),
        ("app://obsidian.md:x", "host", ""),
        ("app://obsidian md", "host", ""),
        ("https://", "host", ""),
        ("https://app.example.com:99999", "host", ""),
        (" https://app.example.com", "browsers write", "https://app.example.com"),
        ("", "scheme", ""),
    ] {
        let found = problems(&format!("allowed_origins = [{origin:?}]\n{OK}"));
        assert_eq!(found.len(), 1, "{origin}: {found:#?}");
        assert_eq!(found[0].key, "allowed_origins");
        assert!(found[0].reason.contains(reason), "{origin}: {}", found[0].reason);
        assert!(found[0].hint.contains(hint), "{origin}: {}", found[0].hint);
    }
}

#[test]
fn the_admin_pages_are_never_on_the_origin_of_the_public_url() {
    for (public_url, admin_url, fits) in [
        ("https://example.com/auth", "https://example.com", false),
        ("https://example.com", "https://example.com", false),
        ("https://example.com/auth", "https://example.com/admin", false),
        ("https://example.com/auth", "https://admin.example.com/pages", false),
        ("https://example.com/auth", "https://example.com:8443", true),
        ("https://example.com/auth", "https://admin.example.com", true),
    ] {
        let text = OK.replace("https://mcp.example.com", public_url);
        let text = format!("{text}\n[admin]\nurl = {admin_url:?}\nroles = [\"Admin\"]");
        assert_eq!(load_with(&text, &[]).is_ok(), fits, "{public_url} {admin_url}");
    }
}
