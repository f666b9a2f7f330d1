//! What the reader makes of `[[connection]]`, `[[resource.connection]]` and `[resource.upstream_token]`. What it
//! refuses, and in which words: `tests/it/connections/config.rs`.

use super::*;

const GITHUB: &str = "provider = \"github\"\nclient_id = \"Iv1.a/b\"\n\
    client_secret = { env = \"SECRET\" }\nscopes = [\"repo\", \"read:org\"]\n";
const CREDENTIALS: &str = "client_id = \"id\"\nclient_secret = { env = \"SECRET\" }\n";

/// A configuration with one connection, and an MCP server that uses it by token exchange.
fn with(connection: &str, resource: &str) -> String {
    format!(
        "{OK}target = \"http://127.0.0.1:9000/mcp\"\n\
         introspection_secret = \"0123456789abcdef0123456789abcdef\"\n{resource}\n\
         [[resource.connection]]\nname = \"one\"\n\
         [[connection]]\nname = \"one\"\n{connection}\n"
    )
}

fn connection(lines: &str) -> ConnectionConfig {
    load(&with(lines, "")).connections.remove(0)
}

/// The endpoints as texts: authorize, token, revoke, userinfo, issuer.
fn endpoints(connection: &ConnectionConfig) -> [String; 5] {
    let ServiceEndpoints::Stated { authorize, token, revoke, userinfo, issuer } =
        &connection.endpoints
    else {
        panic!("{:?}", connection.endpoints)
    };
    let text = |url: &Option<Url>| url.as_ref().map(Url::to_string).unwrap_or_default();
    [
        authorize.to_string(),
        token.to_string(),
        text(revoke),
        text(userinfo),
        issuer.clone().unwrap_or_default(),
    ]
}

#[test]
fn a_preset_of_a_service_fills_in_the_endpoints() {
    let github = connection(GITHUB);
    assert_eq!((github.name.as_str(), github.title.as_str()), ("one", "GitHub"));
    assert_eq!(
        endpoints(&github),
        [
            "https://github.com/login/oauth/authorize",
            "https://github.com/login/oauth/access_token",
            "https://api.github.com/applications/Iv1.a%2Fb/token",
            "https://api.github.com/user",
            "",
        ]
    );
    assert_eq!(github.client_auth, ClientAuth::Post);
    assert_eq!(github.client_secret.as_ref().unwrap().expose(), "canary-1f3a");
    assert_eq!(github.scopes, ["repo", "read:org"]);
    assert!(!format!("{github:?}").contains("canary"), "{github:?}");

    let google = connection(&format!("provider = \"google\"\n{CREDENTIALS}scopes = [\"x\"]"));
    assert_eq!(endpoints(&google)[4], "https://accounts.google.com");
    let offline = ("access_type".to_owned(), "offline".to_owned());
    assert!(google.authorize_params.contains(&offline), "{:?}", google.authorize_params);
}

#[test]
fn endpoints_of_an_own_server_replace_all_of_the_preset_so_that_no_token_goes_to_the_public_one() {
    let own = "authorize_url = \"https://git.example.com/a\"\n\
        token_url = \"https://git.example.com/t\"\n";
    let github = connection(&format!("{GITHUB}{own}"));
    assert_eq!(
        endpoints(&github),
        ["https://git.example.com/a", "https://git.example.com/t", "", "", ""]
    );
    let all = format!(
        "{GITHUB}{own}revoke_url = \"https://git.example.com/r\"\n\
         userinfo_url = \"https://git.example.com/u\"\nissuer = \"https://git.example.com\""
    );
    assert_eq!(
        endpoints(&connection(&all))[2..],
        ["https://git.example.com/r", "https://git.example.com/u", "https://git.example.com"]
    );
    let google = format!("provider = \"google\"\n{CREDENTIALS}scopes = [\"x\"]\n{own}");
    assert_eq!(endpoints(&connection(&google))[2..], ["", "", ""]);
}

#[test]
fn the_directory_of_entra_is_that_of_the_sign_in_provider_unless_it_is_written() {
    const TENANT: &str = "11111111-2222-3333-4444-555555555555";
    let entra = format!("provider = \"entra\"\n{CREDENTIALS}scopes = [\"Mail.Read\"]\n");
    let written = connection(&format!("{entra}tenant = {TENANT:?}"));
    let authorize = format!("https://login.microsoftonline.com/{TENANT}/oauth2/v2.0/authorize");
    let issuer = format!("https://login.microsoftonline.com/{TENANT}/v2.0");
    let [first, _, revoke, _, last] = endpoints(&written);
    assert_eq!([first, revoke, last], [authorize, String::new(), issuer]);

    let any = connection(&format!("{entra}tenant = \"organizations\""));
    assert_eq!(endpoints(&any)[4], "", "each directory has an issuer of its own");

    let issuer = "provider = \"oidc\"\nissuer = \"https://id.example.com\"";
    let text =
        with(&entra, "").replace(issuer, &format!("provider = \"entra\"\ntenant = {TENANT:?}"));
    let config = load(&text);
    assert!(endpoints(&config.connections[0])[1].contains(TENANT));
}

#[test]
fn an_openid_provider_is_discovered_and_every_other_service_is_written_out() {
    let oidc = format!("provider = \"oidc\"\n{CREDENTIALS}scopes = [\"api\"]\n");
    let discovered = connection(&format!("{oidc}issuer = \"https://id.example.com\""));
    let ServiceEndpoints::Discovered { issuer } = &discovered.endpoints else { panic!() };
    assert_eq!(issuer, "https://id.example.com", "byte for byte");
    assert_eq!((discovered.client_auth, discovered.title.as_str()), (ClientAuth::Auto, "one"));
    assert_eq!(discovered.offline, Offline::ScopeWhenListed);

    let own =
        "authorize_url = \"https://x.example.com/a\"\ntoken_url = \"https://x.example.com/t\"";
    let stated = connection(&format!("{oidc}issuer = \"https://x.example.com\"\n{own}"));
    assert_eq!(endpoints(&stated)[4], "https://x.example.com");
    assert_eq!(stated.client_auth, ClientAuth::Basic, "there is no metadata to ask");

    let other = format!("provider = \"oauth2\"\n{CREDENTIALS}{own}\n");
    assert_eq!(connection(&other).client_auth, ClientAuth::Basic);
    let post = connection(&format!("{other}client_auth = \"client_secret_post\""));
    assert_eq!(post.client_auth, ClientAuth::Post);
    let listed = connection(&format!("{other}scopes = [\"offline_access\"]"));
    assert_eq!(
        (listed.scopes, listed.offline),
        (vec!["offline_access".to_owned()], Offline::NoScope)
    );
}

#[test]
fn a_connection_of_the_sign_in_provider_is_its_client_with_other_scopes() {
    let sign_in = "provider = \"sign-in\"\nscopes = [\"calendar\"]";
    let text = with(sign_in, "").replace(
        "client_id = \"portcullis\"",
        "client_id = \"portcullis\"\nname = \"Acme\"\nclient_auth = \"client_secret_post\"\nauthorize_params = { acr_values = \"phr\" }",
    );
    let one = load(&text).connections.remove(0);
    assert!(one.is_sign_in() && one.endpoints == ServiceEndpoints::SignIn);
    assert_eq!((one.client_id.as_str(), one.title.as_str()), ("portcullis", "Acme"));
    assert!(one.client_secret.is_none());
    assert_eq!((one.client_auth, one.preset.name), (ClientAuth::Post, "oidc"));
    assert_eq!(one.authorize_params, [("acr_values".to_owned(), "phr".to_owned())]);
    assert_eq!(one.offline, Offline::ScopeWhenListed);

    let google = "provider = \"google\"\nhosted_domains = [\"acme.com\"]";
    let issuer = "provider = \"oidc\"\nissuer = \"https://id.example.com\"";
    let one = load(&with(sign_in, "").replace(issuer, google)).connections.remove(0);
    assert_eq!((one.preset.name, one.offline), ("google", Offline::NoScope));
}

#[test]
fn people_read_the_texts_of_scopes_in_their_language() {
    let github = connection(&format!(
        "{GITHUB}scope_texts = {{ repo = {{ en = \"Repositories\", de = \"Ablagen\" }} }}\ntitle = \"Code\""
    ));
    assert_eq!(github.title, "Code");
    for (scope, language, text) in [
        ("repo", "de", "Ablagen"),
        ("repo", "ja", "Repositories"),
        ("read:org", "de", "read:org"),
        ("gist", "en", "gist"),
    ] {
        assert_eq!(github.scope_text(scope, language), text);
    }
}

#[test]
fn an_mcp_server_needs_all_scopes_of_a_connection_unless_it_names_some() {
    let config = load(&with(GITHUB, ""));
    let used = config.resources[0].connection_to("one").unwrap();
    assert_eq!(used.scopes, ["repo", "read:org"]);
    assert!(used.required && used.tools.is_empty() && used.header.is_none());
    assert!(config.resources[0].wants_upstream());
    assert!(config.resources[0].connection_to("two").is_none());
    assert!(!load(OK).resources[0].wants_upstream());

    let lines = "name = \"one\"\nscopes = [\"repo\"]\ntools = [\"a\", \"b\"]\nrequired = false\nheader = \"Authorization\"\n";
    let text = with(GITHUB, "[resource.upstream_token]\nheader = \"X-Portcullis-Upstream-Token\"")
        .replace(
            "[[resource.connection]]\nname = \"one\"\n",
            &format!("[[resource.connection]]\n{lines}"),
        );
    let config = load(&text);
    let resource = &config.resources[0];
    let used = resource.connection_to("one").unwrap();
    assert_eq!((used.scopes.len(), used.tools.len(), used.required), (1, 2, false));
    let headers: Vec<&str> = resource.token_headers().map(HeaderName::as_str).collect();
    assert_eq!(headers, ["x-portcullis-upstream-token", "authorization"]);
    let own = resource.upstream_token.as_ref().unwrap();
    assert_eq!((own.exchange, &own.audience, own.scopes.len()), (TokenExchange::None, &None, 0));

    let mut other = resource.clone();
    assert!(other.carries_the_same_as(resource));
    other.connections.clear();
    assert!(!other.carries_the_same_as(resource), "a stream was opened with that token");
}

#[test]
fn on_behalf_of_asks_for_the_default_scope_of_the_api() {
    let issuer = "provider = \"oidc\"\nissuer = \"https://id.example.com\"";
    let entra = "provider = \"entra\"\ntenant = \"11111111-2222-3333-4444-555555555555\"";
    let scopes_of = |lines: &str| {
        let own = format!(
            "[resource.upstream_token]\nexchange = \"entra_obo\"\naudience = \"api://x\"\n{lines}"
        );
        let config = load(&with(GITHUB, &own).replace(issuer, entra));
        config.resources[0].upstream_token.clone().unwrap().scopes
    };
    assert_eq!(scopes_of(""), ["api://x/.default"]);
    assert_eq!(scopes_of("scopes = [\"api://x/read\"]"), ["api://x/read"]);
}

#[test]
fn replicas_agree_on_connections_and_may_keep_the_secret_in_different_places() {
    let parts = |text: &str| {
        let loaded = load_with(text, &[("ELSEWHERE", "canary-1f3a"), ("ANOTHER", "canary-2")]);
        loaded.unwrap_or_else(|problems| panic!("{problems}")).config.written.parts()
    };
    let text = with(GITHUB, "");
    let secret = "client_secret = { env = \"SECRET\" }\nscopes = [\"repo\"";
    let moved = |name: &str| {
        let text = text.replace(secret, &secret.replace("SECRET", name));
        assert!(text.contains(name));
        text
    };
    assert_eq!(parts(&text)["connection"], parts(&moved("ELSEWHERE"))["connection"]);
    assert_ne!(parts(&text)["connection"], parts(&moved("ANOTHER"))["connection"]);
}

#[test]
fn a_token_of_a_shared_client_does_not_get_the_scopes_of_the_other_connections() {
    let includes = |text: &str| -> Vec<bool> {
        let params = |one: &ConnectionConfig| {
            one.authorize_params.iter().any(|(name, _)| name == "include_granted_scopes")
        };
        load(text).connections.iter().map(params).collect()
    };
    let google = format!("provider = \"google\"\n{CREDENTIALS}scopes = [\"x\"]\n");
    let second = format!("{}\n[[connection]]\nname = \"two\"\n{google}", with(&google, ""));
    assert_eq!(includes(&with(&google, "")), [true]);
    assert_eq!(includes(&second), [false, false]);
    let off = format!("{google}authorize_params = {{ include_granted_scopes = \"false\" }}\n");
    let written = load(&with(&off, "")).connections.remove(0).authorize_params;
    let values = written.iter().filter(|(name, _)| name == "include_granted_scopes");
    assert_eq!(values.map(|(_, value)| value.as_str()).collect::<Vec<_>>(), ["false"]);
}

#[test]
fn a_token_is_not_revoked_where_that_would_end_the_tokens_of_another_connection() {
    let revokes = |text: &str| -> Vec<bool> {
        load(text).connections.iter().map(|connection| connection.revokes).collect()
    };
    let google = format!("provider = \"google\"\n{CREDENTIALS}scopes = [\"x\"]\n");
    let second = |id: &str| {
        let other = google.replace("\"id\"", &format!("{id:?}"));
        format!("{}\n[[connection]]\nname = \"two\"\n{other}", with(&google, ""))
    };
    assert_eq!(revokes(&second("id")), [false, false]);
    assert_eq!(revokes(&second("other")), [true, true]);
    assert_eq!(revokes(&second("id").replace("\"google\"", "\"slack\"")), [true, true]);

    let issuer = "provider = \"oidc\"\nissuer = \"https://id.example.com\"";
    let signs_in = "provider = \"google\"\nhosted_domains = [\"acme.com\"]";
    let sign_in = with("provider = \"sign-in\"\nscopes = [\"x\"]", "");
    assert_eq!(revokes(&sign_in), [true]);
    assert_eq!(revokes(&sign_in.replace(issuer, signs_in)), [false]);
    assert_eq!(revokes(&with(&google, "").replace(issuer, signs_in)), [true], "another client");
}

#[test]
fn tokens_of_a_sign_in_are_revoked_at_the_provider_unless_that_is_turned_off() {
    assert!(load(OK).upstream.revoke_upstream);
    let off = OK.replace("client_id", "revoke_upstream = false\nclient_id");
    assert!(!load(&off).upstream.revoke_upstream);
}
