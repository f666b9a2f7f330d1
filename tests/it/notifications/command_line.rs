//! `portcullis notify test` and `portcullis check`, as an administrator runs them.

use std::process::Output;

use serde_json::Value;

use super::{SECRET, webhook_at};
use crate::cli::check::check_with;
use crate::harness::mailbox::{MAIL_HOST, Mailbox, Protection};
use crate::harness::process::run;
use crate::harness::recorder::Recorder;
use crate::harness::{Setup, TestApp};

async fn command(app: &TestApp, arguments: &[&str]) -> Output {
    let folder = app.database.folder.clone();
    std::fs::write(folder.join("portcullis.toml"), app.config_text()).unwrap();
    let arguments: Vec<String> = arguments.iter().map(|&argument| argument.to_owned()).collect();
    tokio::task::spawn_blocking(move || {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        run(&folder, &arguments, &[])
    })
    .await
    .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[tokio::test]
async fn a_test_message_is_sent_from_the_shell() {
    let hook = Recorder::start().await;
    let second = webhook_at(&hook.url("/second")).replace("\"ops\"", "\"second\"");
    let setup = Setup::toml(webhook_at(&hook.url("/hook"))).and(second);
    let app = TestApp::with_on_the_real_clock(setup).await;

    let output = command(&app, &["notify", "test", "ops"]).await;
    let (said, err) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{said}{err}");
    assert_eq!(said, format!("ops ({}): delivered\n", hook.address()));
    let request = hook.next().await;
    assert_eq!((request.path.as_str(), &request.json()["type"]), ("/hook", &"test".into()));
    assert_eq!(hook.received().len(), 1, "that target alone");

    hook.answer_next(&[404]);
    let output = command(&app, &["notify", "test", "--json"]).await;
    assert_eq!(output.status.code(), Some(2));
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    let (first, second) = (&json["targets"][0], &json["targets"][1]);
    assert_eq!((&first["name"], &first["delivered"]), (&"ops".into(), &false.into()));
    assert_eq!(first["reason"], "it answered with status 404");
    assert!(first["hint"].as_str().unwrap().contains("copy it whole"), "{first}");
    assert_eq!((&second["name"], &second["delivered"]), (&"second".into(), &true.into()));
    for secret in ["/hook", SECRET] {
        assert!(!text(&output.stdout).contains(secret), "{secret} is shown");
    }

    let output = command(&app, &["notify", "test", "nobody"]).await;
    assert_eq!(output.status.code(), Some(2));
    let err = text(&output.stderr);
    assert!(err.contains("no target is named \"nobody\"; there is ops, second"), "{err}");
}

#[tokio::test]
async fn check_tells_of_each_target_whether_it_can_be_reached_and_sends_nothing() {
    let hook = Recorder::start().await;
    let mailbox = Mailbox::start(Protection::Tls, Some("right")).await;
    let mail = |name: &str, password: &str| {
        format!(
            "[[notify]]\nname = {name:?}\nkind = \"smtp\"\nhost = {MAIL_HOST:?}\nport = {}\nusername = \"portcullis\"\n\
             password = {password:?}\nfrom = \"a@example.com\"\nto = [\"b@example.com\"]\n",
            mailbox.address.port()
        )
    };
    let gone = webhook_at("http://127.0.0.1:9/x").replace("\"ops\"", "\"gone\"");
    let setup = Setup::toml(mailbox.tables())
        .and(format!(
            "[client_documents]\nallowed_hosts = [\"nobody.example\"]\n{}",
            webhook_at(&hook.url("/hook"))
        ))
        .and(gone)
        .and(mail("right", "right"))
        .and(mail("wrong", "wrong"));
    let app = TestApp::with_on_the_real_clock(setup).await;

    let (findings, code) = check_with(&app, &app.config_text(), &[]).await;

    assert_eq!(code, 1, "{findings:#?}");
    let found = |name: &str| {
        let of = |finding: &&Value| {
            finding["probe"] == "notify" && finding["found"].as_str().unwrap().starts_with(name)
        };
        findings.iter().find(of).unwrap_or_else(|| panic!("{name}: {findings:#?}")).clone()
    };
    assert_eq!(found("ops ")["severity"], "ok");
    assert!(found("ops ")["found"].as_str().unwrap().ends_with("can be reached"));
    assert_eq!(found("gone ")["severity"], "warning");
    assert_eq!(found("right ")["severity"], "ok");
    assert!(found("right ")["found"].as_str().unwrap().ends_with("takes the password"));
    assert_eq!(found("wrong ")["severity"], "warning");
    assert!(found("wrong ")["found"].as_str().unwrap().contains("535"));
    assert!(hook.received().is_empty() && mailbox.is_empty().await);
}
