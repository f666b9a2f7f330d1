//! `portcullis check` and `portcullis explain`, as an administrator runs them.

use std::io::{BufRead, BufReader, Read};
use std::process::{Output, Stdio};

use portcullis::demo::Misbehaviour;
use serde_json::{Value, json};
use tokio_rustls::TlsConnector;

use crate::harness::browser::{Browser, Form};
use crate::harness::process::{portcullis, run};
use crate::harness::publisher::Publisher;
use crate::harness::tls::{CertificateAuthority, Folder, HOST, Kept, connect, with_files};
use crate::harness::{Setup, TestApp};

const KEY: &str = "a test key that is long enough to be one, 0123456789";

/// The configuration of the tests, with its secrets where an administrator puts them.
fn config_of(app: &TestApp) -> String {
    app.config_text()
        .replace("\"upstream-secret-canary\"", "{ env = \"SECRET\" }")
        .replace(&format!("{KEY:?}"), "{ env = \"KEY\" }")
}

/// The same without a look at what clients publish, unless a test says where that is: tests need no internet.
fn offline(config: &str) -> String {
    let says = config.contains("[client_documents]");
    let off = if says { "" } else { "\n[client_documents]\nenabled = false\n" };
    format!("{config}{off}")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Runs the command beside the provider, which lives in this process.
async fn command(app: &TestApp, config: &str, arguments: &[&str]) -> Output {
    let folder = app.database.folder.clone();
    std::fs::write(folder.join("portcullis.toml"), offline(config)).unwrap();
    let arguments: Vec<String> = arguments.iter().map(|&argument| argument.to_owned()).collect();
    tokio::task::spawn_blocking(move || {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        run(&folder, &arguments, &[("SECRET", "upstream-secret-canary"), ("KEY", KEY)])
    })
    .await
    .unwrap()
}

/// The findings of `check --json` by probe, and the exit code.
async fn check(app: &TestApp, config: &str) -> (Vec<Value>, i32) {
    let output = command(app, config, &["check", "--json"]).await;
    let json: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|_| panic!("{}{}", text(&output.stdout), text(&output.stderr)));
    (json["findings"].as_array().unwrap().clone(), output.status.code().unwrap())
}

/// The same with variables of the environment.
pub(crate) async fn check_with(
    app: &TestApp,
    config: &str,
    env: &[(&'static str, String)],
) -> (Vec<Value>, i32) {
    let folder = app.database.folder.clone();
    std::fs::write(folder.join("portcullis.toml"), offline(config)).unwrap();
    let env = env.to_vec();
    let output = tokio::task::spawn_blocking(move || {
        let env: Vec<(&str, &str)> =
            env.iter().map(|(name, value)| (*name, value.as_str())).collect();
        run(&folder, &["check", "--json"], &env)
    });
    let output = output.await.unwrap();
    let json: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|_| panic!("{}{}", text(&output.stdout), text(&output.stderr)));
    // That secrets stand in the file itself is warned about, and no matter here.
    let mut findings = json["findings"].as_array().unwrap().clone();
    let in_file =
        |finding: &Value| finding["found"].as_str().unwrap().contains("is in the file itself");
    findings.retain(|finding| !in_file(finding));
    let warned = findings.iter().any(|finding| finding["severity"] == "warning");
    let code = output.status.code().unwrap();
    (findings, if code == 1 && !warned { 0 } else { code })
}

/// What a probe found.
#[track_caller]
pub(crate) fn finding<'a>(findings: &'a [Value], probe: &str) -> &'a Value {
    let found = findings.iter().find(|finding| finding["probe"] == probe);
    found.unwrap_or_else(|| panic!("no {probe} in {findings:#?}"))
}

#[track_caller]
fn severity<'a>(findings: &'a [Value], probe: &str) -> &'a str {
    let found = findings.iter().find(|finding| finding["probe"] == probe);
    found.unwrap_or_else(|| panic!("no {probe} in {findings:#?}"))["severity"].as_str().unwrap()
}

#[tokio::test]
async fn all_is_well_when_it_is() {
    let app = TestApp::start_on_the_real_clock().await;
    let (findings, code) = check(&app, &config_of(&app)).await;
    for probe in [
        "discovery",
        "clock",
        "endpoints",
        "algorithms",
        "secret",
        "redirect_uri",
        "scopes",
        "refresh",
        "logout",
        "rules",
    ] {
        assert_eq!(severity(&findings, probe), "ok", "{probe}: {findings:#?}");
    }
    assert_eq!(code, 0);
}

#[tokio::test]
async fn each_mistake_is_found_and_named() {
    let app = TestApp::start_on_the_real_clock().await;
    let good = config_of(&app);
    let issuer = format!("issuer        = \"{}\"", app.idp.issuer());
    for (from, to, probe, words) in [
        ("{ env = \"SECRET\" }", "\"wrong\"", "secret", "refused"),
        ("\"portcullis\"", "\"somebody\"", "redirect_uri", "client id is unknown"),
        (app.url.as_str(), "http://127.0.0.1:9", "redirect_uri", "not registered"),
        (issuer.as_str(), &issuer.replace("\"\n", "/\""), "discovery", "exactly"),
        (issuer.as_str(), "issuer = \"http://127.0.0.1:9\"", "discovery", "cannot be had"),
    ] {
        let to = if probe == "discovery" && words == "exactly" {
            issuer.trim_end_matches('"').to_owned() + "/\""
        } else {
            to.to_owned()
        };
        let (findings, code) = check(&app, &good.replace(from, &to)).await;
        let finding = findings.iter().find(|finding| finding["probe"] == probe).unwrap();
        if words == "exactly" {
            assert!(finding["hint"].as_str().unwrap().contains(words), "{finding}");
        } else {
            assert!(finding["found"].as_str().unwrap().contains(words), "{probe}: {finding}");
        }
        assert_eq!(finding["severity"], "failed", "{findings:#?}");
        assert!(finding["hint"].is_string(), "{finding}");
        assert_eq!(code, 2);
    }
    app.idp.misbehave(|how| how.only_hs256 = true);
    let (findings, code) = check(&app, &good).await;
    assert_eq!((severity(&findings, "algorithms"), code), ("failed", 2));
    app.idp
        .misbehave(|how| *how = Misbehaviour { discovery_down: true, ..Misbehaviour::default() });
    let (findings, code) = check(&app, &good).await;
    assert_eq!((severity(&findings, "discovery"), code), ("failed", 2));
}

/// A provider that shows its login page whatever it is asked, and has no words for what it refuses.
#[tokio::test]
async fn a_taciturn_provider_is_understood_by_comparison() {
    let app = TestApp::start_on_the_real_clock().await;
    app.idp.misbehave(|how| {
        how.ignores_prompt = true;
        how.vague_about_codes = true;
        how.change_discovery = Some(|document| {
            document.as_object_mut().unwrap().remove("revocation_endpoint");
        });
    });
    let good = config_of(&app);
    let (findings, code) = check(&app, &good).await;
    for probe in ["secret", "redirect_uri", "scopes"] {
        assert_eq!(severity(&findings, probe), "ok", "{probe}: {findings:#?}");
    }
    assert_eq!(code, 0);
    let (findings, code) = check(&app, &good.replace("{ env = \"SECRET\" }", "\"wrong\"")).await;
    assert_eq!((severity(&findings, "secret"), code), ("failed", 2));
    let elsewhere = good.replace(app.url.as_str(), "http://127.0.0.1:9");
    let (findings, code) = check(&app, &elsewhere).await;
    assert_eq!((severity(&findings, "redirect_uri"), code), ("failed", 2));
}

#[tokio::test]
async fn rules_that_say_nothing_or_never_allow_are_warned_about() {
    let app = TestApp::start_on_the_real_clock().await;
    let good = config_of(&app);
    let no_rule_deletes =
        good.replace(", \"delete:todos\"]\n\n[[resource.rule]]", "]\n\n[[resource.rule]]");
    let (findings, code) = check(&app, &no_rule_deletes).await;
    assert_eq!(severity(&findings, "rules"), "warning", "{findings:#?}");
    assert_eq!(code, 1);
}

/// `check --login` with a sign-in by `person`: what it printed, and its exit code. The server must be stopped,
/// because the command listens in its place.
async fn trial(app: &TestApp, config: &str, person: &str) -> (String, i32) {
    trial_through(app, config, person, None).await
}

/// The same; with a client for TLS, that is how the browser comes back.
async fn trial_through(
    app: &TestApp,
    config: &str,
    person: &str,
    tls: Option<&TlsConnector>,
) -> (String, i32) {
    let folder = app.database.folder.clone();
    std::fs::write(folder.join("portcullis.toml"), offline(config)).unwrap();
    let mut child = portcullis(&folder)
        .args(["check", "--login"])
        .envs([("SECRET", "upstream-secret-canary"), ("KEY", KEY)])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let stderr = child.stderr.take().unwrap();
    // The pipe stays open: a command that cannot speak any more would end.
    let (url, _lines) = tokio::task::spawn_blocking(move || {
        let mut lines = BufReader::new(stderr).lines();
        let url = lines.find_map(|line| line.ok().filter(|line| line.trim().starts_with("http")));
        (url.unwrap_or_default(), lines)
    })
    .await
    .unwrap();
    if !url.is_empty() {
        let browser = Browser::default();
        let page = browser.get(url.trim()).await;
        let form = Form::of(&page, url.trim());
        let fields = form.with(&[("username", person), ("password", person)]);
        let answer = browser.post(&form.action, &fields, app.idp.issuer()).await;
        match tls {
            None => browser.get(answer.location()).await.assert_status(200),
            Some(client) => {
                let back = answer.location().strip_prefix(&format!("https://{HOST}")).unwrap();
                let stream = connect(app, client).await;
                let (status, _, body) = Kept::over(stream).await.get(back).await;
                assert_eq!(status, 200);
                assert!(body.contains("Back to the terminal."), "{body}");
                &answer
            }
        };
    }
    let mut said = String::new();
    let mut stdout = child.stdout.take().unwrap();
    let said = tokio::task::spawn_blocking(move || {
        stdout.read_to_string(&mut said).unwrap();
        said
    })
    .await
    .unwrap();
    (said, child.wait().unwrap().code().unwrap())
}

#[tokio::test]
async fn a_trial_login_tells_claims_rules_and_refresh() {
    for path in ["", "/auth"] {
        trial_login(path).await;
    }
}

async fn trial_login(path: &'static str) {
    let setup = Setup { path: Some(path), ..Setup::default() };
    let mut app = TestApp::on_the_real_clock(setup).await;
    let config = config_of(&app);
    app.stop().await; // check listens in the server's place
    let (said, code) = trial(&app, &config, "bob").await;
    assert_eq!(code, 0, "{said}");
    for part in [
        "signed in as demo-bob",
        "roles: User",
        "e-mail: bob@example.com (verified)",
        "may create:todos",
        "refreshed",
    ] {
        assert!(said.contains(part), "{part} is not in {said}");
    }
}

/// The command shows the certificate of `[tls]`, as the server does.
#[tokio::test]
async fn a_trial_login_comes_back_over_tls() {
    let (folder, authority) = (Folder::new(), CertificateAuthority::new());
    authority.issue().write(folder.path());
    let mut app = TestApp::on_the_real_clock(with_files(folder.path())).await;
    let config = config_of(&app);
    app.stop().await;
    for protocols in [&["h2", "http/1.1"][..], &["http/1.1"], &[]] {
        let client = authority.client(protocols);
        let (said, code) = trial_through(&app, &config, "bob", Some(&client)).await;
        assert_eq!(code, 0, "{said}");
        assert!(said.contains("signed in as demo-bob") && said.contains("refreshed"), "{said}");
    }
}

type Misbehave = fn(&mut Misbehaviour);

/// What the provider does, what `check --login` says of it, and its exit code: 1 for what is tolerated, 2 for
/// what the server refuses.
#[tokio::test]
async fn a_trial_login_reads_as_a_sign_in_does() {
    let mut app = TestApp::start_on_the_real_clock().await;
    let config = config_of(&app);
    app.stop().await;
    let cases: [(Misbehave, &str, i32); 21] = [
        (|how| change(how, |it| remove(it, "token_type")), "token_type is missing", 1),
        (|how| change(how, |it| it["token_type"] = 7.into()), "token_type is not a text", 1),
        (|how| change(how, |it| it["scope"] = json!(["openid"])), "scope is not a text", 1),
        (
            |how| change(how, |it| it["expires_in"] = "300".into()),
            "expires_in is not a whole number",
            1,
        ),
        (
            |how| how.content_type = Some(("/token", "text/plain")),
            "the content type is text/plain",
            1,
        ),
        (|how| how.no_refresh_token = true, "no refresh token came", 1),
        (|how| change(how, |it| it["id_token"] = 7.into()), "id_token is not a text", 2),
        (|how| change(how, |it| it["id_token"] = "e30.a.b.c.d".into()), "it is encrypted (JWE)", 2),
        (|how| change(how, |it| remove(it, "id_token")), "id_token is missing", 2),
        (|how| change(how, |it| remove(it, "access_token")), "access_token is missing", 2),
        (|how| extra(how, &json!({ "amr": "x", "address": "y" })), "signed in as demo-bob", 0),
        (
            |how| extra(how, &json!({ "aud": ["portcullis", "x"], "azp": "portcullis" })),
            "signed in as demo-bob",
            0,
        ),
        (
            |how| extra(how, &json!({ "aud": ["portcullis", "x"] })),
            "aud names others beside us, and azp is missing",
            2,
        ),
        (|how| extra(how, &json!({ "iat": 1e300 })), "iat: issued in the future", 2),
        (|how| extra(how, &json!({ "exp": "soon" })), "exp is not a time", 2),
        (|how| how.algorithm = Some("HS256".to_owned()), "ID tokens are signed with HS256 only", 2),
        (|how| how.algorithm = Some("PS512".to_owned()), "signed in as demo-bob", 0),
        (
            |how| {
                how.signed_userinfo = Some(|_| ());
                how.change_id_token = Some(roles_elsewhere);
            },
            "roles: User",
            0,
        ),
        (
            |how| {
                how.signed_userinfo = Some(|claims| claims["aud"] = "x".into());
                how.change_id_token = Some(roles_elsewhere);
            },
            "userinfo: aud does not name us",
            1,
        ),
        (
            |how| {
                how.userinfo_down = true;
                how.change_id_token = Some(roles_elsewhere);
            },
            "userinfo: it answers 503",
            1,
        ),
        (|how| how.other_subject_on_refresh = true, "refresh failed: another subject", 2),
    ];
    for (misbehave, part, expected) in cases {
        app.idp.misbehave(|how| {
            *how = Misbehaviour::default();
            misbehave(how);
        });
        let (said, code) = trial(&app, &config, "bob").await;
        assert!(said.contains(part), "{part} is not in {said}");
        assert_eq!(code, expected, "{part}: {said}");
    }
}

fn change(how: &mut Misbehaviour, change: fn(&mut Value)) {
    how.change_token_answer = Some(change);
}

fn extra(how: &mut Misbehaviour, claims: &Value) {
    how.extra_claims.clone_from(claims.as_object().unwrap());
}

fn remove(json: &mut Value, name: &str) {
    json.as_object_mut().unwrap().remove(name);
}

fn roles_elsewhere(claims: &mut Value) {
    remove(claims, "roles");
}

/// What the provider says of itself, and the finding; with the reading code of the server.
#[tokio::test]
async fn each_detail_of_discovery_and_keys_is_tolerated_or_named() {
    let app = TestApp::start_on_the_real_clock().await;
    let config = config_of(&app);
    let of = |change: fn(&mut Value)| Misbehaviour {
        change_discovery: Some(change),
        ..Misbehaviour::default()
    };
    let keys = |change: fn(&mut Value)| Misbehaviour {
        change_keys: Some(change),
        ..Misbehaviour::default()
    };
    let typed = |path, content_type| Misbehaviour {
        content_type: Some((path, content_type)),
        ..Misbehaviour::default()
    };
    let iss = "authorization_response_iss_parameter_supported";
    for (how, probe, severity, part) in [
        (
            of(|it| it["userinfo_endpoint"] = "".into()),
            "discovery",
            "warning",
            "userinfo_endpoint is empty",
        ),
        (
            of(|it| it["end_session_endpoint"] = "".into()),
            "discovery",
            "warning",
            "end_session_endpoint is empty",
        ),
        (
            of(|it| it["scopes_supported"] = "openid offline_access".into()),
            "discovery",
            "warning",
            "scopes_supported is not a list",
        ),
        (
            of(|it| remove(it, "subject_types_supported")),
            "discovery",
            "warning",
            "subject_types_supported is missing",
        ),
        (
            of(|it| remove(it, "response_types_supported")),
            "discovery",
            "warning",
            "response_types_supported is missing",
        ),
        (
            typed("/.well-known/openid-configuration", "text/html"),
            "discovery",
            "warning",
            "the content type is text/html",
        ),
        (
            of(|it| it["token_endpoint"] = "".into()),
            "endpoints",
            "failed",
            "token_endpoint is missing",
        ),
        (
            of(|it| it["token_endpoint"] = 7.into()),
            "endpoints",
            "failed",
            "token_endpoint is not a text",
        ),
        (
            of(|it| it["authorization_endpoint"] = "/authorize".into()),
            "endpoints",
            "failed",
            "authorization_endpoint is not a URL",
        ),
        (
            of(|it| it["userinfo_endpoint"] = "http://other.example/".into()),
            "endpoints",
            "failed",
            "userinfo_endpoint is not https",
        ),
        (
            of(|it| it["authorization_response_iss_parameter_supported"] = 7.into()),
            "discovery",
            "failed",
            "is neither true nor false",
        ),
        (
            Misbehaviour { no_callback_iss: true, ..Misbehaviour::default() },
            "redirect_uri",
            "warning",
            iss,
        ),
        (keys(|it| it["keys"] = json!([])), "algorithms", "failed", "no usable signing key"),
        (keys(|it| it["keys"] = json!({})), "algorithms", "failed", "keys is not a list"),
        (
            keys(|it| it["keys"][0]["use"] = "enc".into()),
            "algorithms",
            "failed",
            "no usable signing key",
        ),
        (
            keys(|it| it["keys"][0]["n"] = "AQAB".into()),
            "algorithms",
            "failed",
            "no usable signing key",
        ),
        (
            keys(|it| it["keys"].as_array_mut().unwrap().push(json!({ "kty": "AKP" }))),
            "algorithms",
            "warning",
            "1 of 2 keys",
        ),
        (typed("/jwks", "text/html"), "algorithms", "warning", "the content type is text/html"),
        (
            Misbehaviour { algorithm: Some("PS384".to_owned()), ..Misbehaviour::default() },
            "algorithms",
            "ok",
            "PS384",
        ),
        (
            Misbehaviour { jwks_down: true, ..Misbehaviour::default() },
            "algorithms",
            "failed",
            "503",
        ),
    ] {
        app.idp.misbehave(|now| *now = how);
        let (findings, code) = check(&app, &config).await;
        let found = findings.iter().any(|finding| {
            finding["probe"] == probe
                && finding["severity"] == severity
                && finding["found"].as_str().unwrap().contains(part)
        });
        assert!(found, "{probe} {severity} {part}: {findings:#?}");
        let expected = match severity {
            "failed" => 2,
            "warning" => 1,
            _ => 0,
        };
        assert_eq!(code, expected, "{part}: {findings:#?}");
    }
}

/// `auto` sends the secret as the metadata says, and in the header when it says nothing: what another way
/// would bring is no comfort.
#[tokio::test]
async fn the_secret_is_tried_in_the_way_that_the_server_sends_it() {
    let app = TestApp::start_on_the_real_clock().await;
    let config = config_of(&app);
    app.idp.misbehave(|how| {
        how.only_client_auth = Some("client_secret_post");
        how.change_discovery = Some(|it| remove(it, "token_endpoint_auth_methods_supported"));
    });
    let (findings, code) = check(&app, &config).await;
    let finding = findings.iter().find(|finding| finding["probe"] == "secret").unwrap();
    assert_eq!((finding["severity"].as_str(), code), (Some("failed"), 2), "{finding}");
    let hint = finding["hint"].as_str().unwrap();
    assert!(hint.contains("client_auth = \"client_secret_post\""), "{finding}");
    let trusting = config
        .replace("[upstream.claims]", "client_auth = \"client_secret_post\"\n[upstream.claims]");
    let (findings, code) = check(&app, &trusting).await;
    assert_eq!((severity(&findings, "secret"), code), ("ok", 0), "{findings:#?}");
}

#[tokio::test]
async fn explain_replays_a_decision_from_claims_and_for_a_person() {
    let mut app = TestApp::with(Setup::default()).await;
    app.tokens_of("bob").await;
    let config = app.config_text();
    let claims = json!({ "sub": "x", "roles": ["Admin"] }).to_string();
    std::fs::write(app.database.folder.join("claims.json"), claims).unwrap();
    let arguments = ["explain", "--claims", "claims.json", "--request", "delete:todos"];
    let output = command(&app, &config, &arguments).await;
    let said = text(&output.stdout);
    assert!(said.contains("granted        delete:todos") && said.contains("rule 1"), "{said}");
    assert!(said.contains("e-mail         not told"), "{said}");
    assert!(!said.contains("access "), "{said}");
    let nobody = json!({ "sub": "x", "roles": ["Guest"] }).to_string();
    std::fs::write(app.database.folder.join("guest.json"), nobody).unwrap();
    let output = command(&app, &config, &["explain", "--claims", "guest.json"]).await;
    let said = text(&output.stdout);
    assert!(said.contains("granted        nothing"), "{said}");
    assert!(said.contains("access         refused"), "{said}");
    // Why, and what would let them in.
    for line in [
        "why            No rule matches (roles: Guest).",
        "nearest rule   rule 1 (portcullis.toml:",
        "to let them in Give them the role Admin at the demo identity provider.",
        "or             Give them the role User at the demo identity provider. (gives create:todos)",
        "or             Add their role Guest to rule 1 (portcullis.toml:",
    ] {
        assert!(said.contains(line), "{line} is missing: {said}");
    }
    let output = command(&app, &config, &["explain", "--claims", "guest.json", "--json"]).await;
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&json["refused"], &json["granted"]), (&json!(true), &json!([])), "{json}");
    assert_eq!(json["rules"][1]["conditions"][0]["sent"], "Guest", "{json}");
    assert_eq!(json["rules"][1]["conditions"][0]["met"], false, "{json}");
    assert_eq!(json["ways"][1]["gives"], "create:todos", "{json}");
    // Somebody who was refused is known, too.
    app.idp.set_roles("mallory", &["Auditor"]);
    app.client().await.authorize("mallory", &[]).await;
    app.stop().await;
    let output = command(&app, &config, &["explain", "--user", "oidc:demo-bob"]).await;
    let said = format!("{}{}", text(&output.stdout), text(&output.stderr));
    assert!(said.contains("roles          User"), "{said}");
    assert!(said.contains("granted        create:todos"), "{said}");
    assert!(said.contains("not granted    delete:todos read:todos"), "{said}");

    // The id at the provider will do, which rules have in `subjects`.
    let output = command(&app, &config, &["explain", "--user", "demo-bob"]).await;
    let by_id = format!("{}{}", text(&output.stdout), text(&output.stderr));
    assert_eq!(by_id, said);

    let output = command(&app, &config, &["explain", "--user", "demo-mallory"]).await;
    let by_id = format!("{}{}", text(&output.stdout), text(&output.stderr));
    let output = command(&app, &config, &["explain", "--user", "oidc:demo-mallory"]).await;
    let said = format!("{}{}", text(&output.stdout), text(&output.stderr));
    assert!(said.contains("roles          Auditor") && said.contains("refused"), "{said}");
    assert_eq!(by_id, said);

    let output = command(&app, &config, &["explain", "--user", "oidc:nobody"]).await;
    assert!(text(&output.stderr).contains("nobody with the sub"), "{}", text(&output.stderr));
    let wrong = ["explain", "--claims", "claims.json", "--resource", "/other"];
    let output = command(&app, &config, &wrong).await;
    assert!(text(&output.stderr).contains("is not one of"), "{}", text(&output.stderr));
}

#[tokio::test]
async fn every_target_is_tried_and_what_keeps_it_away_is_named() {
    let app = TestApp::start_on_the_real_clock().await;
    let publisher = Publisher::start(&["mcp.example"]).await;
    let certified = format!("https://{}/mcp", publisher.address());
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let gone = silent.local_addr().unwrap();
    drop(silent);
    let one = format!("target = \"{}\"", app.todo.url());
    let of = async |targets: &str| {
        let config = config_of(&app).replace(&one, targets);
        let (findings, code) = check(&app, &config).await;
        let text =
            |finding: &Value, name: &str| finding[name].as_str().unwrap_or_default().to_owned();
        let of_targets = findings.iter().filter(|finding| finding["probe"] == "target");
        let of_targets: Vec<[String; 3]> = of_targets
            .map(|finding| ["severity", "found", "hint"].map(|name| text(finding, name)))
            .collect();
        (of_targets, code)
    };

    let (found, code) = of(&one).await;
    assert_eq!((found.len(), found[0][0].as_str(), code), (1, "ok", 0), "{found:?}");
    let accepts = format!("/mcp: {} accepts connections", app.todo.url());
    assert_eq!(found[0][1], accepts);

    let targets = format!("targets = [\"{}\", \"http://{gone}/mcp\"]", app.todo.url());
    let (found, code) = of(&targets).await;
    assert_eq!((found.len(), found[1][0].as_str(), code), (2, "warning", 1), "{found:?}");
    assert!(found[1][1].contains("refused") && found[1][2].contains("start the MCP server"));

    let untrusted = format!("target = {certified:?}");
    let (found, code) = of(&untrusted).await;
    assert_eq!((found.len(), found[0][0].as_str(), code), (1, "failed", 2), "{found:?}");
    assert!(found[0][1].contains("UnknownIssuer") && found[0][2].contains("in ca"), "{found:?}");

    let misnamed = format!("{untrusted}\nca = {:?}", publisher.authority());
    let (found, code) = of(&misnamed).await;
    assert_eq!((found.len(), found[0][0].as_str(), code), (1, "failed", 2), "{found:?}");
    assert!(found[0][1].contains("mcp.example"), "the name in the certificate: {found:?}");

    // No name has parts of more than 63 characters, so nobody is asked for this one.
    let (found, _) = of(&format!("target = \"http://{}/mcp\"", "x".repeat(70))).await;
    assert!(found[0][2].contains("correct the host"), "{found:?}");
}

#[tokio::test]
async fn the_certificate_and_the_acme_server_are_looked_at() {
    let app = TestApp::start_on_the_real_clock().await;
    let folder = Folder::new();
    CertificateAuthority::new().issue().write(folder.path());
    let secured = config_of(&app).replacen("public_url   = \"http:", "public_url   = \"https:", 1);

    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (cert, key) = (path("cert.pem"), path("key.pem"));
    let files = format!("{secured}\n[tls]\ncert = {cert:?}\nkey = {key:?}\n");
    let (findings, code) = check(&app, &files).await;
    assert_eq!(severity(&findings, "tls"), "ok", "{findings:#?}");
    // It is for another host than `public_url`.
    let told = finding(&findings, "configuration")["found"].as_str().unwrap();
    assert!(findings.iter().any(|one| one["found"].to_string().contains("is not for")), "{told}");
    assert_ne!(code, 0);

    let nobody =
        "domains = [\"mcp.example\"]\nterms = true\ndirectory = \"http://127.0.0.1:9/dir\"";
    let (findings, code) = check(&app, &format!("{secured}\n[tls.acme]\n{nobody}\n")).await;
    assert_eq!((severity(&findings, "tls"), code), ("failed", 2), "{findings:#?}");
    let no_acme = nobody.replace("http://127.0.0.1:9/dir", &format!("{}/jwks", app.idp.issuer()));
    let (findings, _) = check(&app, &format!("{secured}\n[tls.acme]\n{no_acme}\n")).await;
    assert_eq!(severity(&findings, "tls"), "failed", "{findings:#?}");

    // The demo provider's discovery document plays the directory of an authority for its customers only.
    app.idp.misbehave(|how| {
        how.change_discovery = Some(|document| {
            document["newOrder"] = "https://acme.example/order".into();
            document["meta"] = json!({ "externalAccountRequired": true });
        });
    });
    let directory = format!("{}/.well-known/openid-configuration", app.idp.issuer());
    let customer = nobody.replace("http://127.0.0.1:9/dir", &directory);
    let (findings, _) = check(&app, &format!("{secured}\n[tls.acme]\n{customer}\n")).await;
    let told = finding(&findings, "tls")["found"].as_str().unwrap();
    assert!(told.contains("set eab_key_id and eab_hmac_key"), "{told}");
    let bound = format!("{customer}\neab_key_id = \"key-1\"\neab_hmac_key = \"Zm9vYmFy\"");
    let (findings, _) = check(&app, &format!("{secured}\n[tls.acme]\n{bound}\n")).await;
    assert_eq!(severity(&findings, "tls"), "ok", "{findings:#?}");
}
