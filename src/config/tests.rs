mod branding;
mod connections;
mod consent;
mod network;
mod notify;
mod targets;
mod tls;

use super::*;

const OK: &str = r#"
public_url = "https://mcp.example.com"
[upstream]
provider = "oidc"
issuer = "https://id.example.com"
client_id = "portcullis"
client_secret = { env = "SECRET" }
[[resource]]
path = "/mcp"
scopes = ["read", "write"]
"#;

fn env(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    let mut env = BTreeMap::from([("SECRET".to_owned(), "canary-1f3a".to_owned())]);
    env.extend(pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
    env
}

fn load_with(text: &str, pairs: &[(&str, &str)]) -> Result<Loaded, Problems> {
    Config::load(Some((Path::new("portcullis.toml"), text.to_owned())), &env(pairs))
}

fn load(text: &str) -> Config {
    load_with(text, &[]).unwrap_or_else(|problems| panic!("{problems}")).config
}

#[track_caller]
fn problems(text: &str) -> Vec<Problem> {
    load_with(text, &[]).err().unwrap_or_else(|| panic!("was accepted:\n{text}")).0
}

/// Returns the only problem of a valid configuration with `line` added at the top.
#[track_caller]
fn problem_of_top(line: &str) -> Problem {
    let mut found = problems(&format!("{line}\n{OK}"));
    assert_eq!(found.len(), 1, "{found:#?}");
    found.remove(0)
}

#[test]
fn hh_01_nobody_trusts_the_whole_world_however_it_is_written() {
    for world in ["0.0.0.0/0", "::/0", "::ffff:0.0.0.0/96"] {
        let problem = problem_of_top(&format!("trusted_proxies = [{world:?}]"));
        assert_eq!(problem.key, "trusted_proxies", "{world}");
    }
    let config = load(&format!("trusted_proxies = [\"::ffff:10.0.0.0/104\"]\n{OK}"));
    assert_eq!(config.trusted_proxies, ["10.0.0.0/8".parse().unwrap()]);
}

#[test]
fn a_key_of_an_earlier_version_is_refused_and_its_new_name_is_given() {
    let file = problems(&format!("{OK}\n[limits]\ndatabase_log = 65536"));
    let variable = [("PORTCULLIS_LIMITS__DATABASE_LOG", "65536")];
    let variable = load_with(OK, &variable).err().unwrap_or_else(|| panic!("was accepted")).0;
    for (found, hint) in [
        (file, "write limits.wal_size in its place"),
        (variable, "set PORTCULLIS_LIMITS__WAL_SIZE instead of PORTCULLIS_LIMITS__DATABASE_LOG"),
    ] {
        assert_eq!(found.len(), 1, "{found:#?}");
        assert_eq!(found[0].key, "limits.database_log");
        assert_eq!(found[0].reason, "was renamed to limits.wal_size");
        assert_eq!(found[0].hint, hint);
    }
    assert_eq!(load(&format!("{OK}\n[limits]\nwal_size = 65536")).limits.wal_size, 65_536);
}

#[test]
fn ten_lines_are_enough_for_okta() {
    let config = load(
        r#"
        public_url = "https://mcp.example.com"
        [upstream]
        provider = "okta"
        domain = "acme.okta.com"
        client_id = "0oa1"
        client_secret = { env = "SECRET" }
        [[resource]]
        path = "/mcp"
        target = "http://127.0.0.1:9000/mcp"
        scopes = ["read"]
        "#,
    );
    assert_eq!(config.upstream.issuer, "https://acme.okta.com");
    assert_eq!(config.upstream.client_secret.expose(), "canary-1f3a");
    assert_eq!(config.upstream.offline, Offline::Scope);
    assert!(config.upstream.scopes.contains(&"groups".to_owned()));
    assert_eq!(config.resources[0].id, "https://mcp.example.com/mcp");
}

#[test]
fn ten_lines_are_enough_for_auth0_and_its_issuer_ends_with_a_slash() {
    let text = OK
        .replace("\"oidc\"", "\"auth0\"")
        .replace("issuer = \"https://id.example.com\"", "domain = \"acme.eu.auth0.com\"");
    assert_eq!(load(&text).upstream.issuer, "https://acme.eu.auth0.com/");
}

#[test]
fn ten_lines_are_enough_for_keycloak_and_roles_are_where_it_puts_them() {
    let text = OK
        .replace("\"oidc\"", "\"keycloak\"")
        .replace("issuer = \"https://id", "realm = \"acme\"\nurl = \"https://id");
    let config = load(&text);
    assert_eq!(config.upstream.issuer, "https://id.example.com/realms/acme");
    assert_eq!(config.upstream.claims.roles.as_str(), "/realm_access/roles");
}

#[test]
fn the_example_file_is_a_configuration() {
    let text = include_str!("../../portcullis.example.toml");
    let loaded = load_with(text, &[("OKTA_CLIENT_SECRET", "x-y-z")]);
    let loaded = loaded.unwrap_or_else(|problems| panic!("{problems}"));
    assert_eq!(loaded.warnings, Vec::<String>::new());

    // The defaults that `show` prints are the real defaults.
    let bare = load(OK);
    assert_eq!(format!("{:?}", loaded.config.tokens), format!("{:?}", bare.tokens));
    assert_eq!(format!("{:?}", loaded.config.limits), format!("{:?}", bare.limits));
}

#[test]
fn every_commented_key_of_the_example_file_exists() {
    let text = include_str!("../../portcullis.example.toml");
    let is_key = |line: &&str| {
        let name = line.split([' ', '=']).next().unwrap_or_default();
        line.starts_with('[') || (line.contains('=') && !name.contains(|c: char| c.is_uppercase()))
    };
    let uncommented: Vec<&str> =
        text.lines().map(|line| line.strip_prefix("# ").filter(is_key).unwrap_or(line)).collect();
    let uncommented = uncommented.join("\n");
    assert!(uncommented.contains("\nrecheck = ") && uncommented.contains("\nacr_values = "));
    let not_keys = |provider: &str| -> Vec<String> {
        let text = uncommented.replace("\"okta\"  ", &format!("{provider:?}  "));
        let found = load_with(&text, &[]).err().map(|problems| problems.0).unwrap_or_default();
        let unread = found.into_iter().filter(|problem| problem.reason.starts_with("is not a key"));
        unread.map(|problem| problem.key).collect()
    };
    assert_eq!(not_keys("okta"), ["upstream.url", "upstream.realm", "upstream.issuer"]);
    let keys_of_others = ["upstream.domain", "upstream.authorization_server"];
    assert_eq!(not_keys("keycloak"), [keys_of_others.as_slice(), &["upstream.issuer"]].concat());
    assert_eq!(
        not_keys("oidc"),
        [keys_of_others.as_slice(), &["upstream.url", "upstream.realm"]].concat()
    );
}

#[test]
fn every_problem_is_reported_at_once_with_key_reason_and_hint() {
    let found = problems(
        r#"
        public_url = "http://mcp.example.com"
        listen = "8000"
        databse_url = "sqlite://x"
        [upstream]
        provider = "oktta"
        client_id = 7
        [[resource]]
        path = "mcp/"
        scopes = ["read it"]
        [[resource.rule]]
        role = ["Admin"]
        allow = ["raed"]
        [tokens]
        access = "3 weeks"
        [limits]
        clients = 0
        "#,
    );
    let keys: Vec<&str> = found.iter().map(|problem| problem.key.as_str()).collect();
    for key in [
        "public_url",
        "listen",
        "databse_url",
        "upstream.provider",
        "upstream.client_id",
        "upstream.client_secret",
        "resource[0].path",
        "resource[0].scopes",
        "resource[0].rule[0].role",
        "resource[0].rule[0].allow",
        "tokens.access",
        "limits.clients",
    ] {
        assert!(keys.contains(&key), "{key} is not among {keys:?}");
    }
    for problem in &found {
        assert!(!problem.reason.is_empty() && !problem.hint.is_empty(), "{problem:?}");
    }
    let text = Problems(found).to_string();
    assert!(text.contains("database_url"), "did you mean: {text}");
    assert!(text.contains("\"okta\""), "did you mean: {text}");
}

#[test]
fn an_unknown_key_is_an_error_with_the_nearest_known_one() {
    let problem = problem_of_top("allowed_redirect_uri = []");
    assert!(problem.hint.contains("allowed_redirect_uris"), "{problem:?}");
    let found = load_with(OK, &[("PORTCULLIS_LISTNE", "127.0.0.1:1")]).unwrap_err().0;
    assert!(found[0].key.contains("listne"), "{found:?}");
}

#[test]
fn environment_beats_file_and_is_enough_alone() {
    let loaded = load_with(OK, &[("PORTCULLIS_LISTEN", "127.0.0.1:9")]).unwrap();
    assert_eq!(loaded.config.listen.port(), 9);

    let alone = env(&[
        ("PORTCULLIS_PUBLIC_URL", "https://mcp.example.com"),
        ("PORTCULLIS_UPSTREAM__PROVIDER", "okta"),
        ("PORTCULLIS_UPSTREAM__DOMAIN", "acme.okta.com"),
        ("PORTCULLIS_UPSTREAM__CLIENT_ID", "0oa1"),
        ("PORTCULLIS_UPSTREAM__CLIENT_SECRET", "canary-77"),
        ("PORTCULLIS_RESOURCE__PATH", "/mcp"),
        ("PORTCULLIS_RESOURCE__TARGET", "http://127.0.0.1:9000/mcp"),
        ("PORTCULLIS_RESOURCE__SCOPES", "read,write"),
    ]);
    let loaded = Config::load(None, &alone).unwrap_or_else(|problems| panic!("{problems}"));
    assert_eq!(loaded.config.resources[0].scopes.len(), 2);
    assert_eq!(loaded.config.upstream.client_secret.expose(), "canary-77");
}

#[test]
fn a_secret_can_stand_in_a_file() {
    let name = format!("portcullis-test-{}", crate::oauth::secret::random_text());
    let path = std::env::temp_dir().join(name);
    std::fs::write(&path, "from-a-file\n").unwrap();
    let variable = [("PORTCULLIS_UPSTREAM__CLIENT_SECRET_FILE", path.to_str().unwrap())];
    let loaded = load_with(OK, &variable).unwrap_or_else(|problems| panic!("{problems}"));
    std::fs::remove_file(&path).unwrap();
    assert_eq!(loaded.config.upstream.client_secret.expose(), "from-a-file");
}

#[test]
fn lg_01_no_output_of_the_configuration_holds_a_secret() {
    let text = OK.replace("{ env = \"SECRET\" }", "\"canary-1f3a\"");
    let text = format!(
        "database_url = \"postgres://u:canary-db@h/d\"\nsecret_key = \"canary-key-canary-key-canary-key-canary\"\n{text}"
    );
    let loaded = load_with(&text, &[]).unwrap_or_else(|problems| panic!("{problems}"));
    let shown = format!("{}\n{:?}\n{:?}", loaded.show(), loaded.config, loaded.warnings);
    assert!(!shown.contains("canary"), "{shown}");
    assert!(loaded.show().contains("portcullis.toml"), "each value says where it came from");
    assert!(!loaded.warnings.is_empty(), "a secret in the file deserves a warning");

    let broken = text.replace("[[resource]]", "client_secret = \"canary-2\"\n[[resource]]\nx = 1");
    assert!(!Problems(problems(&broken)).to_string().contains("canary"));
    let not_toml = text.replace("provider =", "provider = = ");
    assert!(!Problems(problems(&not_toml)).to_string().contains("canary"));
    let short = text.replace("canary-key-canary-key-canary-key-canary", "canary-k");
    assert!(!Problems(problems(&short)).to_string().contains("canary"));
}

#[test]
fn public_urls_and_issuers_are_https_or_on_loopback() {
    for (url, fits) in [
        ("https://mcp.example.com", true),
        ("https://mcp.example.com:8443", true),
        ("https://example.com/tenant1", true),
        ("http://127.0.0.1:8000", true),
        ("http://localhost:8000", true),
        ("http://[::1]:8000", true),
        ("http://mcp.example.com", false),
        ("http://127.0.0.1.example.com", false),
        ("https://mcp.example.com/", false),
        ("https://mcp.example.com?x", false),
        ("https://MCP.example.com", false),
        ("https://user@mcp.example.com", false),
        ("https://mcp.example.com:443", false),
        ("mcp.example.com", false),
    ] {
        let text = OK.replace("https://mcp.example.com", url);
        assert_eq!(load_with(&text, &[]).is_ok(), fits, "{url}");
    }
    let text = OK.replace("https://id.example.com", "http://id.example.com");
    assert!(load_with(&text, &[]).is_err());
}

#[test]
fn rules_need_something_to_ask_for() {
    let rule = "[[resource.rule]]\nroles = [\"Admin\"]\nallow = [\"read\"]";
    let empty = format!("{OK}\ndefault_scopes = []\n{rule}");
    assert_eq!(problems(&empty)[0].key, "resource[0].default_scopes");
    assert!(load_with(&format!("{OK}\n{rule}"), &[]).is_ok());
    let many: Vec<String> = (0..60).map(|n| format!("scope:{n}")).collect();
    let many = OK.replace("[\"read\", \"write\"]", &format!("{many:?}"));
    assert_eq!(problems(&many)[0].key, "resource[0].scopes");
}

#[test]
fn nobody_is_let_in_by_accident() {
    let google = OK.replace("https://id.example.com", "https://accounts.google.com");
    assert_eq!(problems(&google)[0].key, "upstream.issuer");
    let meant = google.replace("provider =", "allow_anyone = true\nprovider =");
    assert!(load_with(&meant, &[]).is_ok());
}

#[test]
fn postgres_needs_a_secret_key_and_a_short_one_is_refused() {
    assert_eq!(problem_of_top("database_url = \"postgres://u@h/d\"").key, "secret_key");
    assert_eq!(problem_of_top("secret_key = \"too short\"").key, "secret_key");
    assert_eq!(problem_of_top("database_url = \"mysql://u@h/d\"").key, "database_url");
}

#[test]
fn request_rates_can_be_turned_off_on_loopback_only() {
    let off = "[limits]\nrequest_rates = false";
    assert_eq!(problems(&format!("{OK}\n{off}"))[0].key, "limits.request_rates");
    let local = OK.replace("https://mcp.example.com", "http://127.0.0.1:8000");
    assert!(load_with(&format!("{local}\n{off}"), &[]).is_ok());
}

#[test]
fn resources_keep_out_of_our_own_paths_and_apart_from_each_other() {
    for path in
        ["/token", "/authorize", "/.well-known/x", "/", "mcp", "/mcp/", "/a//b", "/a/../b", "/ü"]
    {
        let text = OK.replace("\"/mcp\"", &format!("{path:?}"));
        assert!(load_with(&text, &[]).is_err(), "{path}");
    }
    let twice = format!("{OK}\n[[resource]]\npath = \"/mcp\"\nscopes = [\"read\"]");
    assert_eq!(problems(&twice)[0].key, "resource[1]");
    let both = OK.replace("path =", "id = \"https://x.example/mcp\"\npath =");
    assert_eq!(problems(&both)[0].key, "resource[0].id");
    assert!(load_with(&OK.replace("path = \"/mcp\"", ""), &[]).is_err());
}

#[test]
fn gw_07_scopes_imply_declared_scopes_and_never_themselves() {
    let config = load(&format!("{OK}implies = {{ write = [\"read\"] }}\n"));
    let hierarchy = &config.resources[0].policy.hierarchy;
    let write = ScopeSet::parse("write").unwrap();
    assert_eq!(hierarchy.with_implied(&write).to_string(), "read write");

    for (implies, key, reason) in [
        ("{ write = [\"write\"] }", "resource[0].implies", "implies itself"),
        ("{ write = [\"read\"], read = [\"write\"] }", "resource[0].implies", "implies itself"),
        ("{ write = [\"raed\"] }", "resource[0].implies.write", "is not a scope of this resource"),
        ("{ admin = [\"read\"] }", "resource[0].implies.admin", "is not a scope of this resource"),
        ("{ write = \"read\" }", "resource[0].implies.write", "is not a list of scopes"),
    ] {
        let found = problems(&format!("{OK}implies = {implies}\n"));
        assert_eq!(found.len(), 1, "{implies}: {found:#?}");
        assert_eq!(found[0].key, key, "{implies}");
        assert!(found[0].reason.contains(reason), "{implies}: {}", found[0].reason);
    }
}

/// Claude Code refreshes a token with at most five minutes left before every request.
#[test]
fn short_access_tokens_are_warned_about_and_may_be_refreshed_as_often_as_they_make_necessary() {
    for (access, is_warned, most) in [
        ("1m", true, 120),
        ("3m", true, 40),
        ("5m", true, 40),
        ("359s", true, 40),
        ("6m", false, 20),
        ("10m", false, 20),
    ] {
        let loaded = load_with(&format!("{OK}\n[tokens]\naccess = \"{access}\"\n"), &[]).unwrap();
        let warned = loaded.warnings.iter().any(|warning| warning.contains("tokens.access"));
        assert_eq!(warned, is_warned, "{access}: {:?}", loaded.warnings);
        assert_eq!(loaded.config.limits.rates.refreshes_per_minute.get(), most, "{access}");
        assert!(loaded.show().contains("refreshes_per_minute"), "{}", loaded.show());
    }
}

#[test]
fn what_only_the_gateway_does_needs_a_target() {
    let forwarded = "forward_headers = [\"x-tenant-id\"]";
    for line in ["assertion = true", "transport = \"http+sse\"", forwarded] {
        let found = problems(&format!("{OK}{line}\n"));
        assert_eq!(found.len(), 1, "{line}: {found:#?}");
        let target = "target = \"http://127.0.0.1:9000/mcp\"";
        load(&format!("{OK}{target}\n{line}\n"));
    }
    let loaded = load_with(&format!("{OK}hide_forbidden_tools = true\n"), &[]).unwrap();
    assert!(loaded.warnings[0].contains("no effect"), "{:?}", loaded.warnings);
    // A warning has file and line, as a problem has, or the variable.
    let line = OK.lines().count() + 1;
    let begins = format!("portcullis.toml:{line}: resource[0].hide_forbidden_tools");
    assert!(loaded.warnings[0].starts_with(&begins), "{:?}", loaded.warnings);
    let loaded = load_with(OK, &[("PORTCULLIS_TOKENS__ACCESS", "1m")]).unwrap();
    let begins = "PORTCULLIS_TOKENS__ACCESS: tokens.access is shorter";
    assert!(loaded.warnings[0].starts_with(begins), "{:?}", loaded.warnings);
}

#[test]
fn gw_01_a_header_that_must_never_pass_is_refused_by_name_with_the_reason() {
    let with = |names: &str| {
        format!("{OK}target = \"http://127.0.0.1:9000/mcp\"\nforward_headers = [{names}]\n")
    };
    let names = "\"X-Tenant-Id\", \"baggage\"";
    let loaded = load_with(&with(names), &[]).unwrap();
    let read: Vec<&str> =
        loaded.config.resources[0].forward_headers.iter().map(HeaderName::as_str).collect();
    assert_eq!(read, ["x-tenant-id", "baggage"]);
    assert!(loaded.show().contains("X-Tenant-Id"), "{}", loaded.show());
    for (name, reason) in [
        ("Authorization", "proves itself"),
        ("x_portcullis_subject", "ours to say"),
        ("X-Forwarded-For", "where a request comes from"),
        ("Transfer-Encoding", "connection"),
        ("Mcp-Session-Id", "translated"),
        ("x_tenant_id", "underscore"),
        ("x-*", "pattern"),
        ("mcp-name", "already"),
        ("x-tenant-id\", \"X-Tenant-ID", "twice"),
    ] {
        let found = problems(&with(&format!("\"{name}\"")));
        assert_eq!(found.len(), 1, "{name}: {found:#?}");
        assert_eq!(found[0].key, "resource[0].forward_headers");
        assert!(found[0].reason.contains(reason), "{name}: {found:#?}");
    }
    let many: Vec<String> = (0..33).map(|n| format!("\"x-{n}\"")).collect();
    assert!(problems(&with(&many.join(",")))[0].reason.contains("more than 32"));
}

#[test]
fn the_secret_of_an_mcp_server_is_read_like_every_other_and_is_not_short() {
    let long = "an introspection secret of forty characters";
    let variable = [("PORTCULLIS_RESOURCE__INTROSPECTION_SECRET", long)];
    let loaded = load_with(OK, &variable).unwrap();
    let secret = loaded.config.resources[0].introspection_secret.as_ref().unwrap();
    assert_eq!(secret.expose(), long);
    assert!(!loaded.show().contains(long));
    let name = format!("portcullis-test-{}", crate::oauth::secret::random_text());
    let path = std::env::temp_dir().join(name);
    std::fs::write(&path, long).unwrap();
    let variable = [("PORTCULLIS_RESOURCE__INTROSPECTION_SECRET_FILE", path.to_str().unwrap())];
    assert!(load_with(OK, &variable).unwrap().config.offers_introspection());
    std::fs::remove_file(&path).unwrap();
    let found = problems(&format!("{OK}introspection_secret = \"short\"\n"));
    assert!(found[0].reason.contains("shorter than 32"), "{found:#?}");
}

#[test]
fn names_may_be_patterns_and_other_conditions_may_not() {
    let with_rule =
        |condition: &str| format!("{OK}\n[[resource.rule]]\n{condition}\nallow = [\"read\"]");
    for condition in [
        "groups = ['glob:todo-*']",
        "roles = ['regex:todo-(admin|owner)']",
        "not_groups = ['regex:contractor-.*']",
        "permissions = ['glob:read:*', 'plain']",
    ] {
        load(&with_rule(condition));
    }
    for (condition, key, reason) in [
        ("groups = ['regex:a)|(b']", "groups", "not a regular expression"),
        (r"not_roles = ['regex:(\w{100}){100}']", "not_roles", "too much memory"),
        ("subjects = ['glob:*']", "subjects", "is a pattern"),
        ("clients = ['regex:.*']", "clients", "is a pattern"),
    ] {
        let found = problems(&with_rule(condition));
        assert_eq!(found.len(), 1, "{found:#?}");
        assert_eq!(found[0].key, format!("resource[0].rule[0].{key}"));
        assert!(found[0].reason.contains(reason), "{found:#?}");
    }
}

#[test]
fn rules_about_domains_need_trust_in_the_providers_addresses() {
    let rule = "[[resource.rule]]\nemail_domains = [\"acme.com\"]\nallow = [\"read\"]";
    let found = problems(&format!("{OK}\n{rule}"));
    assert_eq!((found.len(), found[0].key.as_str()), (1, "upstream.trust_email"), "{found:#?}");
    let provider = "issuer = \"https://id.example.com\"";
    load(&format!("{}\n{rule}", OK.replace(provider, &format!("{provider}\ntrust_email = true"))));

    // `email_verified` concerns only the claim `email`.
    for (claim, trusted) in [
        ("email", true),
        ("/email", true),
        ("upn", false),
        ("mail", false),
        ("/profile/email", false),
        ("https://acme.example/email", false),
    ] {
        let text = OK.replace(provider, &format!("{provider}\ntrust_email = true"));
        let text = format!("{text}\n{rule}\n[upstream.claims]\nemail = {claim:?}");
        if trusted {
            load(&text);
            continue;
        }
        let found = problems(&text);
        assert_eq!((found.len(), found[0].key.as_str()), (1, "upstream.trust_email"), "{found:#?}");
        assert!(found[0].reason.contains("email_verified"), "{found:#?}");
    }

    let entra = OK
        .replace("\"oidc\"", "\"entra\"")
        .replace(provider, "tenant = \"11111111-2222-3333-4444-555555555555\"\ntrust_email = true");
    let found = problems(&entra);
    assert_eq!((found.len(), found[0].key.as_str()), (1, "upstream.trust_email"), "{found:#?}");
}

/// Loads 5,000 of everything that a file may contain. The time limit detects quadratic algorithms, which take
/// minutes here.
#[test]
fn large_configurations_are_read_in_time_that_grows_with_their_size() {
    fn many(of: impl Fn(usize) -> String) -> String {
        (0..5_000).map(of).collect()
    }
    let rule = "[[resource.rule]]\n";
    let cases = [
        ("rules", many(|n| format!("{rule}groups = [\"g{n}\"]\nallow = [\"read\"]\n"))),
        (
            "rules of every kind",
            many(|n| {
                format!(
                    "{rule}name = \"r{n}\"\nroles = [\"glob:r{n}-*\"]\nclaim = {{ \"/c{n}\" = [\"x\"] }}\n\
                     allow = [\"read\"]\ndeny = [\"write\"]\n"
                )
            }),
        ),
        ("tools", format!("[resource.tools]\n{}", many(|n| format!("t{n} = [\"write\"]\n")))),
        ("servers", many(|n| format!("[[resource]]\npath = \"/p{n}\"\nscopes = [\"a\"]\n"))),
        (
            "clients",
            many(|n| {
                format!(
                    "[[client]]\nclient_id = \"c{n}\"\nname = \"C {n}\"\npublic = true\n\
                     redirect_uris = [\"https://c{n}.example/back\"]\n"
                )
            }),
        ),
        ("keys that are not known", many(|n| format!("[[resource.rule]]\ngruops = [\"g{n}\"]\n"))),
        ("rules with mistakes", many(|n| format!("{rule}groups = [\"g\"]\nallow = [\"no{n}\"]\n"))),
        ("names in one rule", {
            let names: Vec<String> = (0..5_000).map(|n| format!("\"g{n}\"")).collect();
            format!("{rule}groups = [{}]\nallow = [\"read\"]\n", names.join(", "))
        }),
    ];
    for (what, more) in cases {
        let (done, read) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let loaded = load_with(&format!("{OK}{more}"), &[]);
            if let Ok(loaded) = &loaded {
                let again = load_with(&format!("{OK}{more}"), &[]).unwrap();
                assert_eq!(loaded.digest(), again.digest());
                assert!(loaded.config.written.changes(&again.config.written).is_empty());
            }
            done.send(loaded.map_err(|problems| problems.to_string().len()).map(drop)).unwrap();
        });
        let read = read.recv_timeout(Duration::from_secs(30));
        let read = read.unwrap_or_else(|_| panic!("5,000 {what} are not read"));
        let fits = !matches!(what, "keys that are not known" | "rules with mistakes");
        assert_eq!(read.is_ok(), fits, "{what}: {read:?}");
    }
}
