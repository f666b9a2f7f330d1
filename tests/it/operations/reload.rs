//! Another configuration without a restart.

#[cfg(unix)]
use std::os::unix::fs::symlink;
#[cfg(unix)]
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use http_body_util::BodyExt;
use hyper::Response;
use hyper::body::Incoming;
use portcullis::app::Reloaded;
use serde_json::json;

use crate::harness::client::{McpClient, Tokens};
use crate::harness::console::Console;
use crate::harness::http::Http;
use crate::harness::process::{Served, portcullis};
use crate::harness::{Setup, TestApp, raw};

#[track_caller]
fn assert_taken(reloaded: &Reloaded, keys: &[&str]) {
    let Reloaded::Applied { changed, waiting } = reloaded else { panic!("{reloaded:?}") };
    assert_eq!(changed, keys);
    assert!(waiting.is_empty(), "{waiting:?}");
}

/// The lines of the audit trail with this event.
async fn told(app: &TestApp, event: &str) -> Vec<serde_json::Value> {
    let filter = portcullis::storage::AuditFilter {
        event: event.to_owned(),
        ..portcullis::storage::AuditFilter::default()
    };
    let lines = app.storage().audit_lines(&filter, 100).await.unwrap();
    lines.iter().map(|line| serde_json::from_str(&line.detail).unwrap()).collect()
}

/// Asks for an event stream, in a session of its own.
async fn open_stream(app: &TestApp, client: &McpClient, tokens: &Tokens) -> Response<Incoming> {
    let params = json!({
        "protocolVersion": "2025-06-18", "capabilities": {},
        "clientInfo": { "name": "t", "version": "1" },
    });
    let started = client.rpc(&tokens.access_token, "initialize", params).await;
    let session = started.assert_status(200).header("mcp-session-id").unwrap().to_owned();
    let bearer = format!("Bearer {}", tokens.access_token);
    let headers = [
        ("authorization", bearer.as_str()),
        ("accept", "text/event-stream"),
        ("mcp-session-id", session.as_str()),
        ("mcp-protocol-version", "2025-06-18"),
    ];
    app.http.open("GET", &app.mcp_url(), &headers, "").await
}

#[tokio::test]
async fn a_tightened_rule_holds_for_tokens_that_are_out_already() {
    let mut app = TestApp::start().await;
    let (bob, tokens) = app.tokens_of("bob").await;
    let (alice, admin) = app.tokens_of("alice").await;
    let call = async |tool: &str| bob.call_tool(&tokens.access_token, tool, json!({})).await;
    call("create-todo").await.assert_status(200);

    app.change_config("[resource.tools]", "[resource.tools]\n\"create-todo\" = [\"delete:todos\"]");
    assert_taken(&app.reload().await, &["resource[0].tools.create-todo"]);

    call("create-todo").await.assert_status(403);
    alice.call_tool(&admin.access_token, "create-todo", json!({})).await.assert_status(200);
}

#[tokio::test]
async fn a_narrowed_allow_narrows_the_next_refresh() {
    let mut app = TestApp::start().await;
    let (alice, tokens) = app.tokens_of("alice").await;
    let before = tokens.scope.clone();
    assert!(before.contains("delete:todos"), "{before}");

    app.change_config("roles = [\"Admin\"]\nallow = [", "roles = [\"Nobody\"]\nallow = [");
    let reloaded = app.reload().await;
    assert!(matches!(reloaded, Reloaded::Applied { .. }), "{reloaded:?}");

    let answer = alice.refresh(&tokens.refresh_token).await;
    let granted = answer.json()["scope"].as_str().unwrap_or_default().to_owned();
    assert!(!granted.contains("delete:todos"), "{granted}");
}

#[tokio::test]
async fn an_added_mcp_server_is_served_and_a_removed_one_is_unknown() {
    let mut app = TestApp::start().await;
    let (client, tokens) = app.tokens_of("bob").await;
    let metadata = "/.well-known/oauth-protected-resource/second";
    app.http.get(&app.at("/second")).await.assert_status(404);
    app.http.get(&app.at(metadata)).await.assert_status(404);
    let second = format!(
        "[[resource]]\npath = \"/second\"\ntarget = \"{}\"\nscopes = [\"a\"]\ntoken_alg = \"EdDSA\"\n",
        app.todo.url()
    );

    app.change_config("[[resource]]", &format!("{second}\n[[resource]]"));
    app.reload().await;
    app.http.get(&app.at(metadata)).await.assert_status(200);
    app.http.get(&app.at("/second")).await.assert_status(401);
    client.rpc(&tokens.access_token, "tools/list", json!({})).await.assert_status(200);
    let resource = app.at("/second");
    let set = [("resource", resource.as_str()), ("scope", "a")];
    let back = client.authorize("alice", &set).await;
    let code = back.location_param("code").unwrap();
    let other = Tokens::of(&client.redeem_with(&code, &[("resource", &resource)]).await);
    let bearer = format!("Bearer {}", other.access_token);
    let http = Http::default();
    let call = async || {
        let headers =
            [("authorization", bearer.as_str()), ("accept", "application/json, text/event-stream")];
        let list = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/list" });
        http.post_json(&resource, &list, &headers).await
    };
    assert_ne!(call().await.status, 401, "its own algorithm has a key by now");

    app.change_config(&second, "");
    app.reload().await;

    call().await.assert_status(404);
    app.http.get(&app.at(metadata)).await.assert_status(404);
    let form = [("resource", resource.as_str())];
    client.refresh_with(&other.refresh_token, &form).await.assert_status(400);
    client.rpc(&tokens.access_token, "tools/list", json!({})).await.assert_status(200);
}

#[tokio::test]
async fn a_stream_ends_when_what_it_carries_is_reconfigured_and_not_before() {
    let mut app = TestApp::start().await;
    let (client, tokens) = app.tokens_of("bob").await;
    let mut stream = open_stream(&app, &client, &tokens).await.into_body();
    stream.frame().await.unwrap().unwrap();

    app.change_config("[upstream]", "[tokens]\naccess = \"9m\"\n[upstream]");
    app.reload().await;
    app.todo.send_event(&json!({ "jsonrpc": "2.0", "method": "one" }));
    let event = stream.frame().await.unwrap().unwrap().into_data().unwrap();
    assert!(String::from_utf8_lossy(&event).contains("one"));

    app.change_config("[resource.tools]", "[resource.tools]\n\"create-todo\" = [\"delete:todos\"]");
    app.reload().await;
    let ended = async { while stream.frame().await.is_some_and(|frame| frame.is_ok()) {} };
    tokio::time::timeout(std::time::Duration::from_secs(10), ended).await.expect("it is cut");
}

#[tokio::test]
async fn a_file_with_mistakes_changes_nothing_and_is_told() {
    let mut app = TestApp::start().await;
    let (client, tokens) = app.tokens_of("bob").await;
    let alice = Console::admin(&app).signed_in(&app, "alice").await;
    assert!(!alice.page("/").await.contains("has mistakes"));

    app.change_config(
        "[upstream]",
        "[limits]\nclients = \"many\"\n[tokens]\nacces = \"1m\"\n[upstream]",
    );
    assert_eq!(app.reload().await, Reloaded::Invalid);

    client.rpc(&tokens.access_token, "tools/list", json!({})).await.assert_status(200);
    let page = alice.page("/").await;
    assert!(page.contains("has mistakes") && page.contains("limits.clients"), "{page}");
    assert!(page.contains("tokens.acces"), "every mistake at once");
    let ready = app.http.get(&app.at("/ready")).await;
    assert!(ready.assert_status(200).text().contains("has mistakes"), "{}", ready.text());
    let refused = told(&app, "configuration_refused").await;
    assert_eq!(refused[0]["mistakes"], json!(["limits.clients", "tokens.acces"]));
    let metrics = app.metrics().await;
    assert!(metrics["portcullis_configuration_mistakes"] > 1.0);

    app.change_config("[limits]\nclients = \"many\"\n[tokens]\nacces = \"1m\"\n", "");
    assert_eq!(app.reload().await, Reloaded::Unchanged);
    assert!(!alice.page("/").await.contains("has mistakes"));
    app.http.get(&app.at("/ready")).await.assert_status(200);
}

#[tokio::test]
async fn what_only_a_restart_can_change_is_named_and_left_as_it_is() {
    let mut app = TestApp::start().await;
    let alice = Console::admin(&app).signed_in(&app, "alice").await;
    app.change_config("[upstream]", "[limits]\nconnections = 77\ncode_attempts = 3\n[upstream]");
    app.change_config("0123456789\"", "9876543210\"");

    let Reloaded::Applied { changed, mut waiting } = app.reload().await else { panic!() };

    assert_eq!(changed, ["limits.code_attempts", "limits.connections", "secret_key"]);
    waiting.sort();
    assert_eq!(waiting, ["limits.connections", "secret_key"]);
    let page = alice.page("/").await;
    assert!(page.contains("limits.connections"), "{page}");
    let line = &told(&app, "configuration_reloaded").await[0];
    assert_eq!(line["changed"], json!(changed));
    assert!(!line.to_string().contains("9876543210"), "{line}");
}

#[tokio::test]
async fn a_reload_that_fails_names_what_needs_a_restart_in_the_file_as_it_is_now() {
    let mut app = TestApp::start().await;
    let alice = Console::admin(&app).signed_in(&app, "alice").await;
    app.change_config("[upstream]", "[limits]\nconnections = 77\n[upstream]");
    let Reloaded::Applied { waiting, .. } = app.reload().await else { panic!() };
    assert_eq!(waiting, ["limits.connections"]);

    // A key for the other algorithm cannot be stored.
    app.database.execute("ALTER TABLE signing_keys RENAME TO signing_keys_away").await;
    app.change_config("connections = 77", "idle_time = \"50s\"");
    app.change_config("on_denied_tool", "token_alg = \"EdDSA\"\non_denied_tool");
    assert_eq!(app.reload().await, Reloaded::Failed);
    app.database.execute("ALTER TABLE signing_keys_away RENAME TO signing_keys").await;

    let page = alice.page("/").await;
    assert!(page.contains("limits.idle_time"), "{page}");
    assert!(!page.contains("limits.connections"), "{page}");
    let Reloaded::Applied { waiting, .. } = app.reload().await else { panic!() };
    assert_eq!(waiting, ["limits.idle_time"]);
}

#[tokio::test]
async fn another_identity_provider_or_issuer_waits_with_everything_else() {
    let mut app = TestApp::start().await;
    let (client, tokens) = app.tokens_of("bob").await;
    let issuer = app.idp.issuer().to_owned();
    app.change_config(&issuer, "https://idp.elsewhere.example");
    app.change_config("[resource.tools]", "[resource.tools]\n\"create-todo\" = [\"delete:todos\"]");

    assert_eq!(app.reload().await, Reloaded::NeedsRestart(vec!["upstream.issuer".to_owned()]));

    client.call_tool(&tokens.access_token, "create-todo", json!({})).await.assert_status(200);
    app.advance(16 * 60);
    client.refresh(&tokens.refresh_token).await.assert_status(200);
    assert_eq!(told(&app, "configuration_refused").await[0]["waiting"], json!(["upstream.issuer"]));
}

#[tokio::test]
async fn a_new_client_secret_is_used_from_the_next_question_on() {
    let mut app = TestApp::start().await;
    let (client, tokens) = app.tokens_of("bob").await;
    app.idp.set_client_secret("another-secret-canary");
    app.change_config("upstream-secret-canary", "another-secret-canary");

    assert_taken(&app.reload().await, &["upstream.client_secret"]);

    app.advance(16 * 60);
    client.refresh(&tokens.refresh_token).await.assert_status(200);
    assert!(app.metrics().await["portcullis_rechecks_total{outcome=\"confirmed\"}"] > 0.5);
    app.tokens_of("alice").await;
}

#[tokio::test]
async fn a_limit_that_is_lowered_holds_at_once_and_forgets_nobody_at_the_gateway() {
    let mut app = TestApp::with(Setup::toml("[limits]\nstreams_per_person = 2")).await;
    let (client, tokens) = app.tokens_of("bob").await;
    let _stream = open_stream(&app, &client, &tokens).await;

    app.change_config("streams_per_person = 2", "streams_per_person = 1");
    assert_taken(&app.reload().await, &["limits.streams_per_person"]);

    let second = open_stream(&app, &client, &tokens).await;
    assert_eq!(second.status(), 429, "the stream of before still counts");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_reloads_under_load_lose_no_request() {
    let mut app =
        TestApp::with(Setup::toml("[limits]\nrequest_rates = false\ncode_attempts = 5")).await;
    let (client, tokens) = app.tokens_of("bob").await;
    let over = Arc::new(AtomicBool::new(false));
    let client = Arc::new(client);
    let calls = (0..4).map(|_| {
        let (over, client, token) =
            (Arc::clone(&over), Arc::clone(&client), tokens.access_token.clone());
        tokio::spawn(async move {
            let mut answered = 0;
            while !over.load(Ordering::Relaxed) {
                client.call_tool(&token, "get-todos", json!({})).await.assert_status(200);
                answered += 1;
            }
            answered
        })
    });
    let calls: Vec<_> = calls.collect();
    let flows = {
        let over = Arc::clone(&over);
        let mut refresh_token = tokens.refresh_token.clone();
        let client = Arc::clone(&client);
        tokio::spawn(async move {
            let mut answered = 0;
            while !over.load(Ordering::Relaxed) {
                refresh_token = Tokens::of(&client.refresh(&refresh_token).await).refresh_token;
                answered += 1;
            }
            answered
        })
    };

    for round in 0..100 {
        let (from, to) = if round % 2 == 0 { (5, 6) } else { (6, 5) };
        app.change_config(&format!("code_attempts = {from}"), &format!("code_attempts = {to}"));
        assert_taken(&app.reload().await, &["limits.code_attempts"]);
    }

    over.store(true, Ordering::Relaxed);
    let mut answered = flows.await.unwrap();
    for call in calls {
        answered += call.await.unwrap();
    }
    assert!(answered > 50, "{answered}");
}

#[tokio::test]
async fn the_server_reads_its_file_again_on_sighup_and_when_it_changes() {
    let mut server = Served::start().await;
    let client = McpClient::register(&server).await;
    let tokens = client.sign_in("bob").await;
    let call =
        async || client.call_tool(&tokens.access_token, "create-todo", json!({})).await.status;
    assert_eq!(call().await, 200);
    let text = std::fs::read_to_string(&server.config).unwrap();
    let tight = "[resource.tools]\n\"create-todo\" = [\"delete:todos\"]";
    let until = async |status: u16| {
        let come = async {
            while call().await != status {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(std::time::Duration::from_secs(20), come).await.expect("it is read");
    };

    std::fs::write(&server.config, text.replace("[resource.tools]", tight)).unwrap();
    server.signal("HUP");
    until(403).await;
    // As an orchestrator puts another file in its place; nobody sends a signal.
    let new = server.config.with_extension("new");
    std::fs::write(&new, &text).unwrap();
    std::fs::rename(&new, &server.config).unwrap();
    until(200).await;
    std::fs::write(&server.config, "public_url = 7").unwrap();
    server.signal("HUP");
    server.http.get(&format!("{}/ready", server.url)).await.assert_status(200);
    assert_eq!(call().await, 200);
    assert!(server.terminate().await.unwrap().success());
}

/// A folder of files as the kubelet mounts a Secret: the files are links into `..data`, which is a link itself. To
/// change them, the kubelet replaces that link; no file and no link to a file is written.
#[cfg(unix)]
struct MountedSecret {
    folder: PathBuf,
    versions: u32,
}

#[cfg(unix)]
impl MountedSecret {
    fn new(folder: PathBuf, files: &[(&str, &str)]) -> Self {
        std::fs::create_dir(&folder).unwrap();
        let mut mounted = Self { folder, versions: 0 };
        mounted.replace(files);
        for (name, _) in files {
            symlink(format!("..data/{name}"), mounted.folder.join(name)).unwrap();
        }
        mounted
    }

    fn replace(&mut self, files: &[(&str, &str)]) {
        let data = self.folder.join("..data");
        let before = std::fs::read_link(&data);
        self.versions += 1;
        let version = format!("..version_{}", self.versions);
        std::fs::create_dir(self.folder.join(&version)).unwrap();
        for (name, text) in files {
            std::fs::write(self.folder.join(&version).join(name), text).unwrap();
        }
        let new = self.folder.join("..data_tmp");
        symlink(version, &new).unwrap();
        std::fs::rename(new, data).unwrap();
        if let Ok(before) = before {
            std::fs::remove_dir_all(self.folder.join(before)).unwrap();
        }
    }
}

#[cfg(unix)]
#[tokio::test]
async fn a_secret_that_kubernetes_replaces_in_a_running_pod_is_read_again() {
    let mut server = Served::prepared().await;
    let folder = server.database.folder.join("mounted");
    let text = std::fs::read_to_string(&server.config).unwrap();
    let text = text.replace(
        "client_secret = \"upstream-secret-canary\"",
        &format!("client_secret = {{ file = {:?} }}", folder.join("secret").display().to_string()),
    );
    let tight = "[resource.tools]\n\"create-todo\" = [\"delete:todos\"]";
    let tight = text.replace("[resource.tools]", tight);
    let (config, secret) = ("portcullis.toml", ("secret", "upstream-secret-canary"));
    let mut mounted = MountedSecret::new(folder.clone(), &[(config, &text), secret]);
    std::fs::remove_file(&server.config).unwrap();
    symlink(folder.join(config), &server.config).unwrap();
    server.launch();
    let client = McpClient::register(&server).await;
    let tokens = client.sign_in("bob").await;
    let call =
        async || client.call_tool(&tokens.access_token, "create-todo", json!({})).await.status;
    assert_eq!(call().await, 200);
    let patience = std::time::Duration::from_secs(20);

    mounted.replace(&[(config, &tight), secret]);
    let taken = async {
        while call().await != 403 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(patience, taken).await.expect("the configuration is read");

    server.idp.set_client_secret("another-secret-canary");
    mounted.replace(&[(config, &tight), ("secret", "another-secret-canary")]);
    let taken = async {
        while server.logged("upstream.client_secret") == 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(patience, taken).await.expect("the secret is read");
    client.sign_in("alice").await;
    assert!(server.terminate().await.unwrap().success());
}

#[tokio::test]
async fn the_level_of_the_log_changes_without_a_restart() {
    use std::io::Read;
    let server = Served::prepared().await;
    let text = std::fs::read_to_string(&server.config).unwrap();
    let level = |level: &str| {
        std::fs::write(&server.config, format!("log = \"{level}\"\n{text}")).unwrap();
    };
    level("error");
    let mut command = portcullis(&server.database.folder);
    let mut child = command.arg("serve").stderr(std::process::Stdio::piped()).spawn().unwrap();
    let hang_up = format!("kill -HUP {}", child.id());
    let hang_up = || std::process::Command::new("sh").args(["-c", &hang_up]).status().unwrap();
    let ready = format!(
        "GET /ready HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n",
        server.url.trim_start_matches("http://")
    );
    while raw::try_exchange(&server.url, &ready).await.is_err() {
        tokio::task::yield_now().await;
    }

    level("info");
    // What the second one has to say is of the level that was set by the first.
    for _ in 0..2 {
        assert!(hang_up().success());
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    }
    child.kill().unwrap();
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    child.wait().unwrap();

    assert!(!said.contains("serving"), "that was before: {said}");
    assert!(said.contains("nothing has changed"), "{said}");
}

#[tokio::test]
async fn a_configuration_that_came_while_the_database_was_locked_is_taken_later() {
    let server = Served::start().await;
    if server.database.is_postgres() {
        return; // a lock there is a lock of rows
    }
    let client = McpClient::register(&server).await;
    let tokens = client.sign_in("bob").await;
    let call =
        async || client.call_tool(&tokens.access_token, "create-todo", json!({})).await.status;
    assert_eq!(call().await, 200);
    let text = std::fs::read_to_string(&server.config).unwrap();
    let lock = server.database.lock().await;

    let tight = "[resource.tools]\n\"create-todo\" = [\"delete:todos\"]";
    std::fs::write(&server.config, text.replace("[resource.tools]", tight)).unwrap();
    server.signal("HUP");
    let ready = async || server.http.get(&format!("{}/ready", server.url)).await.json();
    let said = "has mistakes; the one before is in use";
    let refused = async { while ready().await["configuration"] != said {} };
    tokio::time::timeout(std::time::Duration::from_secs(20), refused).await.expect("it is told");
    assert_eq!(call().await, 200);

    lock.release().await; // and nobody sends a signal again
    let taken = async { while call().await != 403 {} };
    tokio::time::timeout(std::time::Duration::from_secs(20), taken).await.expect("it is taken");
    assert_eq!(ready().await["configuration"], "as written");
}

/// A configuration that takes long to be read (many rules, a slow disk, here a pipe that nobody writes to) keeps
/// no request waiting, and not the end of the process either.
#[cfg(unix)]
#[tokio::test]
async fn a_configuration_that_is_read_slowly_holds_up_no_request_and_not_the_end() {
    let mut server = Served::prepared().await;
    let secret = server.database.folder.join("secret");
    let text = std::fs::read_to_string(&server.config).unwrap();
    let before = "client_secret = \"upstream-secret-canary\"";
    assert!(text.contains(before));
    let text = text.replace(
        before,
        &format!("client_secret = {{ file = {:?} }}", secret.display().to_string()),
    );
    std::fs::write(&server.config, &text).unwrap();
    std::fs::write(&secret, "upstream-secret-canary").unwrap();
    server.env.push(("TOKIO_WORKER_THREADS", "1".to_owned())); // one that waits would be all
    server.launch();
    let client = McpClient::register(&server).await;
    let tokens = client.sign_in("bob").await;

    std::fs::remove_file(&secret).unwrap();
    let made = std::process::Command::new("mkfifo").arg(&secret).status().unwrap();
    assert!(made.success());
    server.signal("HUP");
    // Whoever opens the other end knows that the server has begun to read.
    let (opening, pipe) = (secret.clone(), tokio::time::Duration::from_mins(1));
    let opened = tokio::task::spawn_blocking(move || {
        std::fs::File::options().write(true).open(opening).unwrap()
    });
    let opened = tokio::time::timeout(pipe, opened).await.expect("it is read").unwrap();
    let answered = async {
        server.http.get(&format!("{}/health", server.url)).await.assert_status(200);
        client.refresh(&tokens.refresh_token).await.assert_status(200);
    };
    tokio::time::timeout(pipe, answered).await.expect("requests are answered meanwhile");
    let ended = tokio::time::timeout(pipe, server.terminate()).await;
    assert!(ended.expect("and the process ends").unwrap().success());
    drop(opened);
}

#[tokio::test]
async fn an_audit_event_of_the_server_says_why_it_read() {
    let mut app = TestApp::start().await;
    app.change_config("[upstream]", "[tokens]\naccess = \"9m\"\n[upstream]");
    app.reload().await;

    let line = &told(&app, "configuration_reloaded").await[0];

    assert_eq!(line["because"], "a test");
    assert_eq!(line["changed"], json!(["tokens.access"]));
}
