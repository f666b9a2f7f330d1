//! `portcullis check` and `portcullis explain`, as an administrator runs them.

use std::io::{BufRead, BufReader, Read};
use std::process::{Output, Stdio};

use portcullis::demo::Misbehaviour;
use serde_json::{Value, json};

use crate::harness::browser::{Browser, Form};
use crate::harness::process::{portcullis, run};
use crate::harness::{Setup, TestApp};

const KEY: &str = "a test key that is long enough to be one, 0123456789";

/// The configuration of the tests, with its secrets where an administrator puts them.
fn config_of(app: &TestApp) -> String {
    app.config_text()
        .replace("\"upstream-secret-canary\"", "{ env = \"SECRET\" }")
        .replace(&format!("{KEY:?}"), "{ env = \"KEY\" }")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Runs the command beside the provider, which lives in this process.
async fn command(app: &TestApp, config: &str, arguments: &[&str]) -> Output {
    let folder = app.database.folder.clone();
    std::fs::write(folder.join("portcullis.toml"), config).unwrap();
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
    std::fs::write(folder.join("portcullis.toml"), config).unwrap();
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
        |finding: &Value| finding["found"].as_str().unwrap().contains("stands in the file");
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
            assert!(finding["mend"].as_str().unwrap().contains(words), "{finding}");
        } else {
            assert!(finding["found"].as_str().unwrap().contains(words), "{probe}: {finding}");
        }
        assert_eq!(finding["severity"], "failed", "{findings:#?}");
        assert!(finding["mend"].is_string(), "{finding}");
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
    let folder = app.database.folder.clone();
    std::fs::write(folder.join("portcullis.toml"), config).unwrap();
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
        (url.unwrap(), lines)
    })
    .await
    .unwrap();
    let browser = Browser::default();
    let page = browser.get(url.trim()).await;
    let form = Form::of(&page, url.trim());
    let fields = form.with(&[("username", "bob"), ("password", "bob")]);
    let answer = browser.post(&form.action, &fields, app.idp.issuer()).await;
    browser.get(answer.location()).await.assert_status(200);
    let mut said = String::new();
    let mut stdout = child.stdout.take().unwrap();
    let said = tokio::task::spawn_blocking(move || {
        stdout.read_to_string(&mut said).unwrap();
        said
    })
    .await
    .unwrap();
    assert!(child.wait().unwrap().success(), "{said}");
    for part in ["signed in as demo-bob", "roles: User", "may create:todos", "refreshed"] {
        assert!(said.contains(part), "{part} is not in {said}");
    }
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

    app.stop().await;
    let output = command(&app, &config, &["explain", "--user", "oidc:demo-bob"]).await;
    let said = format!("{}{}", text(&output.stdout), text(&output.stderr));
    assert!(said.contains("roles          User"), "{said}");
    assert!(said.contains("granted        create:todos"), "{said}");
    assert!(said.contains("not granted    delete:todos read:todos"), "{said}");

    let output = command(&app, &config, &["explain", "--user", "oidc:nobody"]).await;
    assert!(text(&output.stderr).contains("nobody with the sub"), "{}", text(&output.stderr));
    let wrong = ["explain", "--claims", "claims.json", "--resource", "/other"];
    let output = command(&app, &config, &wrong).await;
    assert!(text(&output.stderr).contains("is not one of"), "{}", text(&output.stderr));
}
