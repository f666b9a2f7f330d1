//! `[[connection]]`, `[[resource.connection]]` and `[resource.upstream_token]` in the configuration file: what is
//! accepted, what is refused and in which words, and what `config show` and a reload make of it.

use std::collections::BTreeMap;
use std::path::Path;

use portcullis::app::Reloaded;
use portcullis::config::Config;
use serde_json::Value;

use crate::harness::TestApp;
use crate::harness::database::Database;
use crate::harness::process::run;

/// A configuration with a connection to GitHub and a header for it.
const FILE: &str = r#"
public_url = "https://mcp.example.com"

[upstream]
provider = "oidc"
issuer = "https://id.example.com"
client_id = "portcullis"
client_secret = { env = "SECRET" }

[[connection]]
name = "github"
provider = "github"
client_id = "Iv23li"
client_secret = { env = "GITHUB_SECRET" }
scopes = ["repo", "read:org"]

[[resource]]
path = "/mcp"
target = "https://todo.internal/mcp"
scopes = ["read"]

[[resource.connection]]
name = "github"
scopes = ["repo"]
header = "X-GitHub-Token"
"#;

const ENV: [(&str, &str); 4] = [
    ("SECRET", "canary-of-sign-in"),
    ("GITHUB_SECRET", "canary-of-github"),
    ("OTHER_SECRET", "canary-of-another"),
    ("TODO_SECRET", "0123456789abcdef0123456789abcdef"),
];

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Runs `config check --json` on this text; the result and the exit code.
fn check(folder: &Path, config: &str) -> (Value, i32) {
    std::fs::write(folder.join("portcullis.toml"), config).unwrap();
    let ran = run(folder, &["config", "check", "--json"], &ENV);
    let json = serde_json::from_slice(&ran.stdout)
        .unwrap_or_else(|_| panic!("{}{}", text(&ran.stdout), text(&ran.stderr)));
    (json, ran.status.code().unwrap())
}

#[track_caller]
fn replaced(file: &str, wrong: &str, right: &str) -> String {
    assert!(file.contains(wrong), "{wrong:?} is not in the file");
    file.replacen(wrong, right, 1)
}

/// The configuration whose connection is another service.
fn service(lines: &str) -> String {
    let usual = "provider = \"github\"\nclient_id = \"Iv23li\"\nclient_secret = { env = \"GITHUB_SECRET\" }\nscopes = [\"repo\", \"read:org\"]\n";
    let file = replaced(FILE, "scopes = [\"repo\"]\n", "");
    replaced(&file, usual, &format!("{lines}\n"))
}

/// Asserts that the configuration has exactly this problem.
#[track_caller]
fn assert_refused(folder: &Path, config: &str, (key, reason, hint): (&str, &str, &str)) {
    let (json, code) = check(folder, config);
    assert_eq!(code, 2, "{key}: {json}\n{config}");
    let problems = json["problems"].as_array().unwrap();
    assert_eq!(problems.len(), 1, "{key}: {json:#}");
    let problem = &problems[0];
    assert_eq!(problem["key"], key, "{problem}");
    let said = problem["reason"].as_str().unwrap();
    assert!(said.contains(reason), "{key}: {said:?} without {reason:?}");
    let said = problem["hint"].as_str().unwrap();
    assert!(said.contains(hint), "{key}: {said:?} without {hint:?}");
    assert!(!json.to_string().contains("canary-of"), "{json}");
}

#[tokio::test]
async fn a_connection_of_every_kind_is_accepted_without_a_warning() {
    let place = Database::new().await;
    let secret = "client_id = \"id\"\nclient_secret = { env = \"OTHER_SECRET\" }";
    for lines in [
        format!("provider = \"github\"\n{secret}"), // a GitHub App has no scopes
        format!("provider = \"github\"\n{secret}\nscopes = [\"repo\"]"),
        format!(
            "provider = \"google\"\n{secret}\nscopes = [\"https://www.googleapis.com/auth/calendar\"]"
        ),
        format!(
            "provider = \"entra\"\n{secret}\ntenant = \"organizations\"\nscopes = [\"Mail.Read\", \"https://graph.microsoft.com/User.Read\", \"openid\"]"
        ),
        format!("provider = \"slack\"\n{secret}\nscopes = [\"channels:read\", \"chat:write\"]"),
        format!("provider = \"atlassian\"\n{secret}\nscopes = [\"read:jira-work\", \"read:me\"]"),
        format!("provider = \"gitlab\"\n{secret}\nscopes = [\"read_api\"]"),
        format!(
            "provider = \"gitlab\"\n{secret}\nscopes = [\"read_api\"]\nauthorize_url = \"https://git.example.com/oauth/authorize\"\ntoken_url = \"https://git.example.com/oauth/token\""
        ),
        format!(
            "provider = \"oidc\"\n{secret}\nissuer = \"https://x.example.com\"\nscopes = [\"api\"]"
        ),
        format!(
            "provider = \"oauth2\"\n{secret}\nauthorize_url = \"http://127.0.0.1:1/a?tenant=x\"\ntoken_url = \"http://localhost:1/t\"\nrevoke_url = \"http://[::1]:1/r\""
        ),
        "provider = \"sign-in\"\nscopes = [\"calendar\"]".to_owned(),
    ] {
        let (json, code) = check(&place.folder, &service(&lines));
        assert_eq!((code, &json["warnings"]), (0, &serde_json::json!([])), "{lines}: {json:#}");
    }
}

#[tokio::test]
async fn every_mistake_of_a_connection_is_answered_with_its_key_the_reason_and_a_way_out() {
    let place = Database::new().await;
    let long = "a".repeat(41);
    let many: Vec<String> = (0..101).map(|n| format!("s{n}")).collect();
    let many = format!("scopes = {many:?}");
    // Without an MCP server that uses it.
    let (alone, _) = FILE.split_once("[[resource.connection]]").unwrap();
    let name = |name: &str| replaced(alone, "name = \"github\"", &format!("name = {name:?}"));
    let line = |wrong: &str, right: &str| replaced(FILE, wrong, right);
    let added = |lines: &str| {
        line("client_id = \"Iv23li\"\n", &format!("client_id = \"Iv23li\"\n{lines}\n"))
    };
    let key = |name: &str| format!("connection[0].{name}");
    for (config, name, reason, hint) in [
        (replaced(alone, "name = \"github\"\n", ""), "name", "is missing", "such as \"github\""),
        (name("Git Hub"), "name", "is not a name", "a-z, 0-9 and -"),
        (name(&long), "name", "is not a name", "40 at most"),
        (name("../x"), "name", "is not a name", "part of URLs"),
        (name("sign-in"), "name", "the sign-in provider's own token", "another name"),
        (line("provider = \"github\"\n", ""), "provider", "is missing", "write one of github"),
        (
            line("provider = \"github\"", "provider = \"githup\""),
            "provider",
            "is not one of",
            "did you mean \"github\"",
        ),
        (
            line("provider = \"github\"", "provider = \"okta\""),
            "provider",
            "is not one of",
            "\"oidc\" with its issuer",
        ),
        (
            line("provider = \"github\"", "provider = \"dropbox\""),
            "provider",
            "is not one of",
            "\"oauth2\" is for every other",
        ),
        (line("client_id = \"Iv23li\"\n", ""), "client_id", "is missing", "Developer settings"),
        (line("\"Iv23li\"", "\"Iv 23li\""), "client_id", "contains spaces", "copy it again"),
        (
            line("client_secret = { env = \"GITHUB_SECRET\" }\n", ""),
            "client_secret",
            "is missing",
            "client_secret = { env",
        ),
        (line("GITHUB_SECRET", "ABSENT"), "client_secret", "is not set", "set ABSENT"),
        (added("client_auth = \"post\""), "client_auth", "is not one of", "client_secret_post"),
        (
            line("[\"repo\", \"read:org\"]", "[\"repo,read:org\", \"repo\"]"),
            "scopes",
            "contains a comma",
            "a text of its own",
        ),
        (
            line("[\"repo\", \"read:org\"]", "[\"repo read:org\", \"repo\"]"),
            "scopes",
            "is not a scope",
            "without spaces",
        ),
        (
            line("[\"repo\", \"read:org\"]", "[\"repo\", \"repo\"]"),
            "scopes",
            "is listed twice",
            "once",
        ),
        (
            line("scopes = [\"repo\", \"read:org\"]", &many.replace("s0", "repo")),
            "scopes",
            "too many or too long",
            "need",
        ),
        (added("title = \"\""), "title", "is not a title", "1 to 40"),
        (added("title = \"GitHub\\nof Acme\""), "title", "is not a title", "buttons"),
        (added("tenant = \"x\""), "tenant", "is for entra", "take it out"),
        (
            added("issuer = \"https://github.com\""),
            "issuer",
            "are those of the preset",
            "take it out",
        ),
        (
            added("authorize_params = { scope = \"x\" }"),
            "authorize_params.scope",
            "by Portcullis itself",
            "take it out",
        ),
        (
            added("authorize_params = { state = \"x\" }"),
            "authorize_params.state",
            "by Portcullis itself",
            "take it out",
        ),
        (
            added("authorize_params = { login = 1 }"),
            "authorize_params.login",
            "is not a text",
            "quotes",
        ),
        (
            added("scope_texts = { rep = \"Repositories\" }"),
            "scope_texts.rep",
            "is not a scope of this",
            "did you mean \"repo\"",
        ),
        (
            added("scope_texts = { repo = \"\" }"),
            "scope_texts.repo",
            "is empty",
            "write what people read",
        ),
        (
            added("scope_texts = { repo = { de = \"Ablagen\" } }"),
            "scope_texts.repo",
            "no text in English",
            "add en",
        ),
        (
            added("scope_texts = { repo = { en = \"x\", xx = \"y\" } }"),
            "scope_texts.repo.xx",
            "is not a language",
            "zh-Hans",
        ),
        (
            added("redirect_uri = \"https://x\""),
            "redirect_uri",
            "is not a key",
            "`portcullis check` says",
        ),
    ] {
        assert_refused(&place.folder, &config, (&key(name), reason, hint));
    }
}

#[tokio::test]
async fn every_mistake_of_an_endpoint_is_answered_and_no_token_goes_to_a_server_of_another_kind() {
    let place = Database::new().await;
    let secret = "client_id = \"id\"\nclient_secret = { env = \"OTHER_SECRET\" }";
    let oauth2 = |lines: &str| service(&format!("provider = \"oauth2\"\n{secret}\n{lines}"));
    let both =
        "authorize_url = \"https://x.example.com/a\"\ntoken_url = \"https://x.example.com/t\"";
    let oidc = |lines: &str| {
        service(&format!("provider = \"oidc\"\n{secret}\nscopes = [\"api\"]\n{lines}"))
    };
    let entra = |lines: &str| service(&format!("provider = \"entra\"\n{secret}\n{lines}"));
    let graph = "scopes = [\"Mail.Read\"]";
    let github = |lines: &str| service(&format!("provider = \"github\"\n{secret}\n{lines}"));
    for (config, name, reason, hint) in [
        (
            oauth2("token_url = \"https://x.example.com/t\""),
            "authorize_url",
            "is missing",
            "write both",
        ),
        (
            oauth2("authorize_url = \"https://x.example.com/a\""),
            "token_url",
            "is missing",
            "write both",
        ),
        (
            oauth2(&both.replace("https://x.example.com/t", "http://x.example.com/t")),
            "token_url",
            "is plain http",
            "write https://",
        ),
        (
            oauth2(&both.replace("https://x.example.com/a", "http://10.0.0.1/a")),
            "authorize_url",
            "is plain http",
            "this machine only",
        ),
        (
            oauth2(&both.replace("https://x.example.com/t", "x.example.com/t")),
            "token_url",
            "is not the URL",
            "write the whole URL",
        ),
        (
            oauth2(&both.replace("/t\"", "/t#x\"")),
            "token_url",
            "is not the URL",
            "without fragment",
        ),
        (
            oauth2(
                &both.replace("https://x.example.com/t", "https://u:canary-of-url@x.example.com/t"),
            ),
            "token_url",
            "user name or password",
            "take both out",
        ),
        (
            oauth2(&format!("{both}\nrevoke_url = \"http://x.example.com/r\"")),
            "revoke_url",
            "is plain http",
            "write https://",
        ),
        (
            oauth2(&format!("{both}\nuserinfo_url = \"ftp://x.example.com/r\"")),
            "userinfo_url",
            "is not the URL",
            "https://",
        ),
        (
            oauth2(&format!("{both}\nissuer = \"https://x.example.com?a\"")),
            "issuer",
            "has a query",
            "exactly as",
        ),
        (oauth2(&format!("{both}\ntenant = \"x\"")), "tenant", "is for entra", "take it out"),
        (oidc(""), "issuer", "is missing", "exactly as its discovery document"),
        (oidc("issuer = \"http://x.example.com\""), "issuer", "is plain http", "write https://"),
        (
            oidc("issuer = \"https://x.example.com\"\nrevoke_url = \"https://x.example.com/r\""),
            "revoke_url",
            "from the discovery document",
            "authorize_url and token_url too",
        ),
        (
            oidc("issuer = \"https://x.example.com\"\nuserinfo_url = \"https://x.example.com/u\""),
            "userinfo_url",
            "from the discovery document",
            "take it out",
        ),
        (
            oidc("issuer = \"https://x.example.com\"")
                .replace("[\"api\"]", "[\"api\", \"offline_access\"]"),
            "scopes",
            "added by Portcullis itself",
            "take it out",
        ),
        (
            oidc("issuer = \"https://x.example.com\"").replace("[\"api\"]", "[]"),
            "scopes",
            "names no scope",
            "gives nothing",
        ),
        (entra(graph), "tenant", "is missing", "directory (tenant) ID"),
        (
            entra(&format!("{graph}\ntenant = \"a/b\"")),
            "tenant",
            "is not the name of a directory",
            "directory (tenant) ID",
        ),
        (
            entra(&format!("{graph}\ntenant = \"x\"\n{both}")),
            "tenant",
            "which have it",
            "take it out",
        ),
        (entra("tenant = \"x\""), "scopes", "is missing", "list what MCP servers may ask for"),
        (
            entra("tenant = \"x\"\nscopes = [\"Mail.Read\", \"api://app/read\"]"),
            "scopes",
            "an access token serves one API",
            "a connection for each API",
        ),
        (
            github("token_url = \"https://git.example.com/t\""),
            "authorize_url",
            "is missing",
            "they belong to one server",
        ),
    ] {
        let key = format!("connection[0].{name}");
        assert_refused(&place.folder, &config, (&key, reason, hint));
    }
}

#[tokio::test]
async fn a_connection_of_the_sign_in_provider_takes_everything_but_its_scopes_from_there() {
    let place = Database::new().await;
    let sign_in =
        |lines: &str| service(&format!("provider = \"sign-in\"\nscopes = [\"calendar\"]\n{lines}"));
    for (lines, name) in [
        ("client_id = \"x\"", "client_id"),
        ("client_secret = { env = \"OTHER_SECRET\" }", "client_secret"),
        ("client_auth = \"client_secret_post\"", "client_auth"),
        ("tenant = \"x\"", "tenant"),
        ("issuer = \"https://x.example.com\"", "issuer"),
        ("authorize_url = \"https://x.example.com/a\"", "authorize_url"),
        ("token_url = \"https://x.example.com/t\"", "token_url"),
        ("revoke_url = \"https://x.example.com/r\"", "revoke_url"),
        ("userinfo_url = \"https://x.example.com/u\"", "userinfo_url"),
    ] {
        let key = format!("connection[0].{name}");
        let wanted = (key.as_str(), "is that of [upstream]", "take it out");
        assert_refused(&place.folder, &sign_in(lines), wanted);
    }
    let none = service("provider = \"sign-in\"");
    assert_refused(&place.folder, &none, ("connection[0].scopes", "is missing", "list what"));
}

#[tokio::test]
async fn every_mistake_of_what_an_mcp_server_uses_is_answered() {
    let place = Database::new().await;
    let line = |wrong: &str, right: &str| replaced(FILE, wrong, right);
    let used = |lines: &str| {
        let usual = "name = \"github\"\nscopes = [\"repo\"]\nheader = \"X-GitHub-Token\"\n";
        replaced(FILE, usual, &format!("{lines}\n"))
    };
    let header = |name: &str| line("\"X-GitHub-Token\"", &format!("{name:?}"));
    let no_target = |file: &str| replaced(file, "target = \"https://todo.internal/mcp\"\n", "");
    let elsewhere = "path = \"/mcp\"\ntarget = \"https://todo.internal/mcp\"\n";
    let resource = |lines: &str| line(elsewhere, &format!("{elsewhere}{lines}\n"));
    for (config, name, reason, hint) in [
        (used("header = \"X-T\""), "name", "is missing", "a [[connection]]"),
        (
            used("name = \"githup\"\nheader = \"X-T\""),
            "name",
            "is not the name",
            "did you mean \"github\"",
        ),
        (
            used("name = \"jira\"\nheader = \"X-T\""),
            "name",
            "is not the name",
            "add [[connection]]",
        ),
        (
            used("name = \"sign-in\"\nheader = \"X-T\""),
            "name",
            "is not the name",
            "[resource.upstream_token]",
        ),
        (
            used("name = \"github\"\nscopes = [\"rep\"]\nheader = \"X-T\""),
            "scopes",
            "is not a scope of the connection \"github\"",
            "did you mean \"repo\"",
        ),
        (
            used("name = \"github\"\nscopes = [\"gist\"]\nheader = \"X-T\""),
            "scopes",
            "is not a scope of the connection",
            "add it to scopes",
        ),
        (
            used("name = \"github\"\nscopes = [\"repo\", \"repo\"]\nheader = \"X-T\""),
            "scopes",
            "is listed twice",
            "once",
        ),
        (
            used("name = \"github\"\ntools = []\nheader = \"X-T\""),
            "tools",
            "names no tool",
            "whole MCP server",
        ),
        (
            used("name = \"github\"\ntools = [\"open issue\"]\nheader = \"X-T\""),
            "tools",
            "is not the name of a tool",
            "exactly",
        ),
        (
            used("name = \"github\"\ntools = [\"a\", \"a\"]\nheader = \"X-T\""),
            "tools",
            "is listed twice",
            "once",
        ),
        (
            used("name = \"github\"\nrequired = \"no\"\nheader = \"X-T\""),
            "required",
            "is not true or false",
            "true or false",
        ),
        (used("name = \"github\""), "", "cannot get", "introspection_secret"),
        (header("X GitHub"), "header", "is no name of a header", "X-GitHub-Token"),
        (header("x_github_token"), "header", "has an underscore", "X-GitHub-Token"),
        (header("X-*"), "header", "is a pattern", "X-GitHub-Token"),
        (header("Cookie"), "header", "proves itself with", "X-GitHub-Token"),
        (header("Host"), "header", "belongs to the connection", "X-GitHub-Token"),
        (header("Mcp-Session-Id"), "header", "is translated", "X-GitHub-Token"),
        (header("Mcp-Name"), "header", "passes already", "X-GitHub-Token"),
        (header("X-Portcullis-Subject"), "header", "is ours to say", "X-GitHub-Token"),
        (header("X-Forwarded-User"), "header", "believe of a proxy", "X-GitHub-Token"),
        (
            resource("forward_headers = [\"x-github-token\"]"),
            "header",
            "is in forward_headers",
            "take it out",
        ),
        (
            resource("forward_headers = [\"x-github.token\"]"),
            "header",
            "is in forward_headers",
            "take it out",
        ),
        (
            line("https://todo.internal", "http://todo.internal"),
            "header",
            "in the clear to \"http://todo.internal/mcp\"",
            "write https",
        ),
        (no_target(FILE), "header", "is set by the gateway, and there is none", "token exchange"),
    ] {
        let key = format!("resource[0].connection[0].{name}");
        let key = key.trim_end_matches('.');
        assert_refused(&place.folder, &config, (key, reason, hint));
    }
    let tools = replaced(FILE, "header = \"X-GitHub-Token\"", "tools = [\"open-issue\"]");
    let tools = replaced(
        &tools,
        "scopes = [\"read\"]",
        "scopes = [\"read\"]\nintrospection_secret = { env = \"TODO_SECRET\" }",
    );
    assert_eq!(check(&place.folder, &tools).1, 0, "with the gateway");
    let wanted = ("resource[0].connection[0].tools", "there is none", "take tools out");
    assert_refused(&place.folder, &no_target(&tools), wanted);
    let twice = format!("{FILE}\n[[resource.connection]]\nname = \"github\"\nheader = \"X-T\"\n");
    let wanted = ("resource[0].connection[1].name", "is named twice", "once");
    assert_refused(&place.folder, &twice, wanted);
}

#[tokio::test]
async fn ut_03_two_tokens_never_share_a_header_and_each_has_a_way_to_the_mcp_server() {
    let place = Database::new().await;
    let own = |lines: &str| format!("{FILE}\n[resource.upstream_token]\n{lines}\n");
    for name in ["X-GitHub-Token", "x-github-token", "X-GITHUB-TOKEN", "X.GitHub.Token"] {
        let wanted =
            ("resource[0].connection[0].header", "carries another token", "a header of its own");
        assert_refused(&place.folder, &own(&format!("header = {name:?}")), wanted);
    }
    for name in ["Authorization", "X-Portcullis-Upstream-Token"] {
        let (json, code) = check(&place.folder, &own(&format!("header = {name:?}")));
        assert_eq!(code, 0, "{json:#}");
    }
    let wanted = ("resource[0].upstream_token", "cannot get", "introspection_secret");
    assert_refused(&place.folder, &own(""), wanted);
    let text =
        FILE.replace("[[resource.connection]]", "upstream_token = true\n[[resource.connection]]");
    let wanted = ("resource[0].upstream_token", "is not a table", "[resource.upstream_token]");
    assert_refused(&place.folder, &text, wanted);
}

#[tokio::test]
async fn an_exchange_needs_an_audience_and_a_provider_that_knows_it() {
    let place = Database::new().await;
    let own = |lines: &str| {
        format!("{FILE}\n[resource.upstream_token]\nheader = \"Authorization\"\n{lines}\n")
    };
    let provider = |provider: &str, file: &str| {
        let issuer = "provider = \"oidc\"\nissuer = \"https://id.example.com\"";
        replaced(file, issuer, provider)
    };
    let entra = "provider = \"entra\"\ntenant = \"11111111-2222-3333-4444-555555555555\"";
    let github = "provider = \"github\"\norganizations = [\"acme\"]";
    let google = "provider = \"google\"\nhosted_domains = [\"acme.com\"]";
    let rfc8693 = own("exchange = \"rfc8693\"\naudience = \"api://x\"\nscopes = [\"read\"]");
    let obo = own("exchange = \"entra_obo\"\naudience = \"api://x\"");
    for (config, name, reason, hint) in [
        (
            own("exchange = \"rfc8963\"\naudience = \"x\"\nscopes = [\"x\"]"),
            "exchange",
            "is not one of",
            "did you mean \"rfc8693\"",
        ),
        (own("exchange = \"rfc8693\""), "audience", "is missing", "api://backend"),
        (
            own("exchange = \"rfc8693\"\naudience = \"\""),
            "audience",
            "is not an audience",
            "the provider knows",
        ),
        (
            own("exchange = \"rfc8693\"\naudience = \"a b\""),
            "audience",
            "is not an audience",
            "the provider knows",
        ),
        (own("audience = \"api://x\""), "audience", "exchange is \"none\"", "rfc8693"),
        (own("scopes = [\"read\"]"), "scopes", "exchange is \"none\"", "extra_scopes"),
        (
            own("exchange = \"rfc8693\"\naudience = \"x\"\nscopes = [\"re ad\"]"),
            "scopes",
            "is not a scope",
            "without spaces",
        ),
        (obo.clone(), "exchange", "upstream.provider = \"entra\" only", "rfc8693"),
        (provider(entra, &rfc8693), "exchange", "is not known to Entra", "entra_obo"),
        (provider(github, &rfc8693), "exchange", "is not known to github", "\"sign-in\""),
        (provider(google, &rfc8693), "exchange", "is not known to google", "\"sign-in\""),
        (provider(github, &obo), "exchange", "\"entra\" only", "take it out"),
    ] {
        let key = format!("resource[0].upstream_token.{name}");
        assert_refused(&place.folder, &config, (&key, reason, hint));
    }
    for config in [rfc8693, provider(entra, &obo)] {
        let (json, code) = check(&place.folder, &config);
        assert_eq!(code, 0, "{json:#}");
    }
}

#[tokio::test]
async fn two_connections_have_two_names_and_one_that_nobody_uses_is_a_warning() {
    let place = Database::new().await;
    let second = |name: &str| {
        let github = FILE.split("[[resource]]").next().unwrap().split("[[connection]]").nth(1);
        let github =
            github.unwrap().replace("\"github\"\nprovider", &format!("{name:?}\nprovider"));
        FILE.replacen("[[resource]]", &format!("[[connection]]{github}[[resource]]"), 1)
    };
    let wanted = ("connection[1].name", "is the name of two connections", "two names");
    assert_refused(&place.folder, &second("github"), wanted);
    let (json, code) = check(&place.folder, &second("github-of-acme"));
    assert_eq!(code, 1, "{json:#}");
    let warnings = json["warnings"].as_array().unwrap();
    assert_eq!(warnings.len(), 1, "{json:#}");
    let said = warnings[0].as_str().unwrap();
    assert!(said.contains("no MCP server uses the connection \"github-of-acme\""), "{said}");
}

#[tokio::test]
async fn one_mistake_in_a_connection_is_not_reported_where_it_is_used() {
    let place = Database::new().await;
    let wrong = replaced(FILE, "client_id = \"Iv23li\"", "client_id = 7");
    assert_refused(&place.folder, &wrong, ("connection[0].client_id", "is not a text", "quotes"));
    let table = FILE.replace("[[connection]]", "[connection]");
    let (json, code) = check(&place.folder, &table);
    assert_eq!(code, 2);
    let problems = json["problems"].as_array().unwrap();
    assert!(problems.iter().any(|one| one["hint"] == "write [[connection]]"), "{json:#}");
}

#[tokio::test]
async fn ut_07_config_show_has_every_key_of_a_connection_and_no_secret() {
    let place = Database::new().await;
    let file = format!(
        "{FILE}tools = [\"open-issue\"]\n[resource.upstream_token]\nheader = \"Authorization\"\n"
    );
    std::fs::write(place.folder.join("portcullis.toml"), file).unwrap();
    let ran = run(&place.folder, &["config", "show"], &ENV);
    let shown = text(&ran.stdout);
    let table: toml::Table = shown.parse().unwrap_or_else(|error| panic!("{error}: {shown}"));
    let connection = &table["connection"][0];
    assert_eq!(connection["client_id"].as_str(), Some("Iv23li"));
    assert_eq!(connection["client_secret"].as_str(), Some("********"));
    let used = &table["resource"][0]["connection"][0];
    assert_eq!(used["header"].as_str(), Some("X-GitHub-Token"));
    assert_eq!(used["required"].as_bool(), Some(true), "the default");
    let own = &table["resource"][0]["upstream_token"];
    assert_eq!(own["exchange"].as_str(), Some("none"));
    assert_eq!(table["upstream"]["revoke_upstream"].as_bool(), Some(true));
    assert!(!shown.contains("canary-of"), "{shown}");
    assert!(shown.contains("env GITHUB_SECRET"), "{shown}");
}

#[test]
fn every_connection_in_the_guides_to_services_loads() {
    let secret = regex_lite::Regex::new("env = \"([A-Z_]+)\"").unwrap();
    let (head, _) = FILE.split_once("[[connection]]").unwrap();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/connections");
    let mut loaded = 0;
    for guide in std::fs::read_dir(folder).unwrap() {
        let guide = guide.unwrap().path();
        let document = std::fs::read_to_string(&guide).unwrap();
        for block in document.split("```toml\n").skip(1) {
            let (lines, _) = block.split_once("```").unwrap();
            if !lines.contains("[[connection]]") {
                continue;
            }
            let server = "[[resource]]\npath = \"/mcp\"\ntarget = \"http://127.0.0.1:1/mcp\"\n";
            let server = if lines.contains("[[resource]]") { "" } else { server };
            let text = format!("{head}{server}{lines}");
            let env = secret.captures_iter(&text).map(|name| (name[1].to_owned(), "s".to_owned()));
            let env: BTreeMap<String, String> = env.collect();
            if let Err(problems) = Config::load(Some((guide.as_path(), text)), &env) {
                panic!("{problems}");
            }
            loaded += 1;
        }
    }
    assert!(loaded >= 9, "{loaded}");
}

#[tokio::test]
async fn connections_are_taken_over_without_a_restart() {
    let mut app = TestApp::start().await;
    let marker = "[[resource]]";
    let connection = "[[connection]]\nname = \"notes\"\nprovider = \"oauth2\"\n\
        client_id = \"portcullis\"\nclient_secret = \"not-so-secret\"\nscopes = [\"notes\"]\n\
        authorize_url = \"http://127.0.0.1:1/authorize\"\ntoken_url = \"http://127.0.0.1:1/token\"\n";
    app.change_config(marker, &format!("{connection}{marker}"));
    let Reloaded::Applied { changed, waiting } = app.reload().await else { panic!() };
    assert!(changed.iter().all(|key| key.starts_with("connection[0].")), "{changed:?}");
    assert!(changed.contains(&"connection[0].client_secret".to_owned()), "{changed:?}");
    assert!(waiting.is_empty(), "{waiting:?}");
    let config = app.config();
    let known = config.connection("notes").unwrap();
    assert_eq!(
        (known.title.as_str(), known.scopes.as_slice()),
        ("notes", ["notes".to_owned()].as_slice())
    );
    assert!(app.config().connection("other").is_none());

    app.change_config(
        "client_id = \"portcullis\"\nclient_secret = \"not-so-secret\"",
        "client_id = \"another\"\nclient_secret = \"not-so-secret\"",
    );
    let Reloaded::Applied { changed, waiting } = app.reload().await else { panic!() };
    assert_eq!((changed, waiting.len()), (vec!["connection[0].client_id".to_owned()], 0));
}
