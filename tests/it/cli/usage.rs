//! `portcullis usage`: who used what, from the shell.

use serde_json::{Value, json};

use crate::harness::TestApp;
use crate::harness::process::run;

/// Runs a command beside the server; answers its exit code and what it printed.
async fn shell(app: &TestApp, arguments: &[&str]) -> (i32, String, String) {
    let folder = app.database.folder.clone();
    let arguments: Vec<String> = arguments.iter().map(|&text| text.to_owned()).collect();
    let done = tokio::task::spawn_blocking(move || {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        run(&folder, &arguments, &[])
    });
    let done = done.await.unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (done.status.code().unwrap(), text(done.stdout), text(done.stderr))
}

#[tokio::test]
async fn the_shell_lists_who_used_what() {
    let app = TestApp::start_on_the_real_clock().await;
    std::fs::write(app.database.folder.join("portcullis.toml"), app.config_text()).unwrap();
    let (client, bob) = app.tokens_of("bob").await;
    for _ in 0..2 {
        client.call_tool(&bob.access_token, "get-todos", json!({})).await.assert_status(200);
    }
    client.call_tool(&bob.access_token, "purge-todos", json!({})).await;
    app.write_usage().await;

    let (code, table, err) = shell(&app, &["usage", "list"]).await;
    assert_eq!(code, 0, "{err}");
    let lines: Vec<&str> = table.lines().collect();
    assert!(lines[0].starts_with("PERSON"), "{table}");
    assert!(lines[1].contains("Bob Brown") && lines[1].contains("get-todos"), "{table}");
    assert!(lines[2].contains("purge-todos"), "{table}");

    let (code, text, err) =
        shell(&app, &["usage", "list", "--outcome", "scope_refused", "--json"]).await;
    assert_eq!(code, 0, "{err}");
    let listed: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(listed["usage"].as_array().unwrap().len(), 1, "{listed}");
    let row = &listed["usage"][0];
    assert_eq!((&row["tool"], &row["calls"]), (&json!("purge-todos"), &json!(1)));
    assert_eq!(row["outcomes"]["scope_refused"], 1);
    assert_eq!((&row["name"], &row["client_id"]), (&json!("Bob Brown"), &json!(client.id)));

    for (arguments, found) in [
        (["--tool", "get-todos"], 1),
        (["--method", "get-todos"], 0),
        (["--person", "oidc:demo-alice"], 0),
        (["--client", client.id.as_str()], 2),
        (["--since", "2026-01-01"], 2),
    ] {
        let all = [&["usage", "list", "--json"][..], &arguments].concat();
        let (code, text, err) = shell(&app, &all).await;
        assert_eq!(code, 0, "{err}");
        let listed: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(listed["usage"].as_array().unwrap().len(), found, "{arguments:?}");
    }
    let (code, _, err) = shell(&app, &["usage", "list", "--outcome", "good"]).await;
    assert!(code == 2 && err.contains("answered, tool_errors"), "{err}");
    let nothing = ["usage", "list", "--since", "2026-11-02", "--until", "2026-11-01"];
    let (code, _, err) = shell(&app, &nothing).await;
    assert!(code == 1 && err.contains("nothing between"), "{err}");
}
