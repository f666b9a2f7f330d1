//! The configuration file that the demo writes, and what the other commands do with it.

use std::process::Output;

use serde_json::json;

use crate::harness::demo::DemoProcess;
use crate::harness::http::Http;
use crate::harness::process::{portcullis, run};

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

async fn in_folder(demo: &DemoProcess, arguments: &[&str]) -> Output {
    let (folder, arguments) = (demo.folder().to_owned(), arguments.join("\n"));
    let ran = move || run(&folder, &arguments.split('\n').collect::<Vec<_>>(), &[]);
    tokio::task::spawn_blocking(ran).await.unwrap()
}

/// The line that the demo prints works as it is, in the folder in which the demo was started and in any other.
#[tokio::test]
async fn every_other_command_can_be_tried_on_the_running_demo() {
    let demo = DemoProcess::start(&["--no-client-documents"], &[]).await;
    let url = format!("http://{}", demo.address);
    let metadata = json!({
        "client_name": "Curious", "redirect_uris": ["http://127.0.0.1:9999/callback"],
        "token_endpoint_auth_method": "none",
    });
    Http::default().post_json(&format!("{url}/register"), &metadata, &[]).await.assert_status(201);

    let line = demo.text.lines().find_map(|line| line.trim().strip_prefix("Try the CLI"));
    let line = line.unwrap_or_else(|| panic!("no line for the command line: {}", demo.text));
    let words: Vec<&str> = line.split_whitespace().collect();
    assert_eq!(words[0], env!("CARGO_BIN_EXE_portcullis"), "the program as it was called");
    assert_eq!(words[1..], ["clients", "list", "--config", "portcullis-demo/portcullis.toml"]);
    let ran = in_folder(&demo, &words[1..]).await;
    assert!(ran.status.success(), "{}", text(&ran.stderr));
    assert!(text(&ran.stdout).contains("Curious"), "{}", text(&ran.stdout));

    let file = demo.configuration().display().to_string();
    for arguments in [
        vec!["config", "show", "--config", file.as_str()],
        vec!["check", "--config", file.as_str()],
        vec!["people", "list", "--config", file.as_str()],
        vec!["grants", "list", "--config", file.as_str()],
        vec!["keys", "list", "--config", file.as_str()],
        vec!["audit", "list", "--config", file.as_str()],
        vec!["audit", "verify", "--config", file.as_str()],
        vec!["clock", "show", "--config", file.as_str()],
    ] {
        let arguments: Vec<String> = arguments.into_iter().map(str::to_owned).collect();
        let elsewhere = std::env::temp_dir();
        let named = arguments.join(" ");
        let ran = move || portcullis(&elsewhere).args(arguments).output().unwrap();
        let ran = tokio::task::spawn_blocking(ran).await.unwrap();
        let said = format!("{named}: {}{}", text(&ran.stdout), text(&ran.stderr));
        assert!(ran.status.success(), "{said}");
        assert_eq!(text(&ran.stderr), "", "no warning: {said}");
    }
    let second = in_folder(&demo, &["serve", "--config", &file]).await;
    assert!(text(&second.stderr).contains("another Portcullis"), "{}", text(&second.stderr));
}

/// `--data .` in a folder with a configuration of somebody must not cost it.
#[tokio::test]
async fn a_configuration_that_the_demo_did_not_write_is_left_as_it_is() {
    let mut demo = DemoProcess::start(&["--no-client-documents"], &[]).await;
    demo.kill();
    let file = demo.configuration();
    let written = std::fs::read_to_string(&file).unwrap();
    assert!(written.starts_with("# Written by `portcullis demo`"), "{written}");
    let listen = demo.address.to_string();

    let own = "public_url = \"https://mcp.example.com\"\n";
    std::fs::write(&file, own).unwrap();
    let ran = in_folder(&demo, &["demo", "--listen", &listen]).await;
    assert!(!ran.status.success());
    let said = text(&ran.stderr);
    for part in ["portcullis.toml", "not written by the demo", "--data"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert_eq!(std::fs::read_to_string(&file).unwrap(), own);
}

/// What the demo prints stays in view.
#[tokio::test]
async fn the_demo_logs_warnings_only_unless_it_is_asked_for_more() {
    let quiet = DemoProcess::start(&["--no-client-documents"], &[]).await;
    let lines = quiet.logged();
    assert!(!lines.contains(" INFO "), "{lines}");

    let env = [("PORTCULLIS_LOG", "debug".to_owned())];
    let mut chatty = DemoProcess::start(&["--no-client-documents"], &env).await;
    chatty.says(" INFO ").await;
}

#[tokio::test]
async fn the_demo_prints_lines_for_the_clients_of_today() {
    let demo = DemoProcess::start(&["--no-client-documents"], &[]).await;
    let mcp = format!("http://{}/mcp", demo.address);
    for line in [
        format!("claude mcp add --transport http todos {mcp}"),
        format!("npx @modelcontextprotocol/inspector@2 --web --transport http --server-url {mcp}"),
        "needs Node 22.19".to_owned(),
    ] {
        assert!(demo.text.contains(&line), "{line} is not in: {}", demo.text);
    }
}
