//! Real reverse proxies in front of a real process, configured as `docs/proxies/` says: `scripts/test-proxies`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::harness::Setup;
use crate::harness::client::{McpClient, Server, Tokens};
use crate::harness::http::{Answer, Http};
use crate::harness::process::{Served, free_address};

/// Where the documents say that Portcullis is.
const DOCUMENTED: &str = "127.0.0.1:8000";
const DISCOVERY_PER_MINUTE: usize = 5;

/// What differs in a test from what the documents say: no TLS, and other addresses.
fn documented(file: &str, portcullis: SocketAddr, changes: &[(&str, String)]) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("docs/proxies").join(file);
    let mut text = std::fs::read_to_string(path).unwrap();
    let portcullis = (DOCUMENTED, portcullis.to_string());
    for (before, after) in changes.iter().cloned().chain([portcullis]) {
        assert!(text.contains(before), "{before} is not in {file}");
        text = text.replace(before, &after);
    }
    text
}

/// A proxy that runs until it is dropped.
struct Proxy(Child);

impl Proxy {
    async fn start(mut command: Command, front: SocketAddr) -> Self {
        let started = command.stdout(Stdio::null()).spawn();
        let process = started.unwrap_or_else(|cause| panic!("scripts/test-proxies: {cause}"));
        let start = Instant::now();
        while TcpStream::connect(front).await.is_err() {
            assert!(start.elapsed() < Duration::from_secs(20), "the proxy does not listen");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Self(process)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // As it likes to be told: its workers go with it.
        let end = format!("kill -TERM {}", self.0.id());
        let _ = Command::new("sh").args(["-c", &end]).status();
        let _ = self.0.wait();
    }
}

/// Portcullis behind an address that the proxy is to listen on.
async fn behind() -> (Served, SocketAddr, SocketAddr) {
    behind_at(None).await
}

/// The same below a path.
async fn behind_at(path: Option<&'static str>) -> (Served, SocketAddr, SocketAddr) {
    let front = free_address();
    let setup = Setup {
        path,
        ..Setup::toml("trusted_proxies = [\"127.0.0.1\"]")
            .and(format!("[limits]\ndiscovery_per_minute = {DISCOVERY_PER_MINUTE}"))
    };
    let (mut served, portcullis) = Served::prepared_behind(front, &setup).await;
    served.launch();
    (served, front, portcullis)
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs nginx: scripts/test-proxies"]
async fn nginx_passes_everything_on() {
    let (served, front, portcullis) = behind().await;
    let _proxy = nginx(&served, front, portcullis, "nginx.conf", "mcp.example.com").await;
    everything_passes(&served).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs nginx: scripts/test-proxies"]
async fn nginx_passes_everything_on_below_a_path() {
    let (served, front, portcullis) = behind_at(Some("/auth")).await;
    let _proxy = nginx(&served, front, portcullis, "nginx-path.conf", "example.com").await;
    everything_passes(&served).await;
    // Documents of the path are ours, and nothing else of the host is.
    let at = |path: &str| format!("http://{front}{path}");
    for document in ["oauth-authorization-server", "openid-configuration"] {
        let answer = served.http.get(&at(&format!("/.well-known/{document}/auth"))).await;
        assert_eq!(answer.assert_status(200).json()["issuer"], served.place().url);
    }
    for path in ["/token", "/.well-known/oauth-authorization-server/authx", "/authx", "/"] {
        let answer = served.http.get(&at(path)).await;
        assert!(answer.assert_status(404).text().contains("nginx"), "{path}");
    }
}

async fn nginx(
    served: &Served,
    front: SocketAddr,
    portcullis: SocketAddr,
    file: &str,
    host: &str,
) -> Proxy {
    let changes = [
        ("listen 443 ssl http2;", format!("listen {front};")),
        (&*format!("    ssl_certificate     /etc/ssl/{host}.pem;\n"), String::new()),
        (&*format!("    ssl_certificate_key /etc/ssl/{host}.key;\n"), String::new()),
    ];
    let folder = served.database.folder.display().to_string();
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|of| format!("{of}_temp_path {folder}/{of};\n"))
        .concat();
    let text = format!(
        "pid {folder}/nginx.pid;\nerror_log {folder}/nginx.log;\nworker_processes 1;\n\
         events {{ worker_connections 1024; }}\nhttp {{\naccess_log off;\n{temporary}{}\n}}\n",
        documented(file, portcullis, &changes)
    );
    let file = served.database.folder.join("nginx.conf");
    std::fs::write(&file, text).unwrap();
    let mut command = Command::new("nginx");
    command.args(["-g", "daemon off;", "-e", "/dev/null", "-c"]).arg(&file);
    Proxy::start(command, front).await
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs haproxy: scripts/test-proxies"]
async fn haproxy_passes_everything_on_and_restarts_cost_no_request() {
    let (mut served, front, portcullis) = behind().await;
    let tls = ":443 ssl crt /etc/haproxy/mcp.example.com.pem alpn h2,http/1.1";
    let text = documented("haproxy.cfg", portcullis, &[(tls, front.to_string())]);
    let file = served.database.folder.join("haproxy.cfg");
    std::fs::write(&file, text).unwrap();
    let mut command = Command::new("haproxy");
    command.args(["-db", "-f"]).arg(&file);
    let _proxy = Proxy::start(command, front).await;

    everything_passes(&served).await;
    let (well, told) = restarts(&mut served).await;
    println!("three restarts: {well} requests answered, {told} told to come back");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Caddy: scripts/test-proxies"]
async fn caddy_passes_everything_on_and_restarts_cost_no_request() {
    let (mut served, front, portcullis) = behind().await;
    let changes = [("\nmcp.example.com {", format!("\nhttp://{front} {{"))];
    let text = documented("Caddyfile", portcullis, &changes);
    let text = format!("{{\n\tadmin off\n\tauto_https off\n}}\n{text}");
    let file = served.database.folder.join("Caddyfile");
    std::fs::write(&file, text).unwrap();
    let mut command = Command::new("caddy");
    command.env("HOME", &served.database.folder).stderr(Stdio::null());
    command.args(["run", "--adapter", "caddyfile", "--config"]).arg(&file);
    let _proxy = Proxy::start(command, front).await;

    everything_passes(&served).await;
    let (well, told) = restarts(&mut served).await;
    println!("three restarts: {well} requests answered, {told} told to come back");
}

/// What clients and people do, and what they must see of it.
async fn everything_passes(served: &Served) {
    let client = McpClient::register(served).await;
    let tokens = client.sign_in("bob").await;
    let tokens = Tokens::of(&client.refresh(&tokens.refresh_token).await);
    client.call_tool(&tokens.access_token, "get-todos", json!({})).await.assert_status(200);

    refusals_arrive_whole(served, &client, &tokens).await;
    callers_are_told_apart_by_their_addresses(served).await;
    a_stream_passes_at_once_and_ends_with_its_grant(served, &client, &tokens).await;
}

async fn refusals_arrive_whole(served: &Served, client: &McpClient, tokens: &Tokens) {
    let bearer = format!("Bearer {}", tokens.access_token);
    let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
    let is_ours = |answer: &Answer, status: u16| {
        answer.assert_status(status);
        assert!(answer.json()["error"].is_string(), "in our words: {}", answer.text());
    };
    let large = " ".repeat(5_000_000);
    for _ in 0..5 {
        let refused =
            served.http.send("POST", &served.place().at("/mcp"), &headers, large.clone()).await;
        is_ours(&refused, 413);
        let form = [("content-type", "application/x-www-form-urlencoded")];
        let refused = served
            .http
            .send("POST", &served.place().at("/token"), &form, "x".repeat(100_000))
            .await;
        is_ours(&refused, 413);
    }
    let long = "x".repeat(9000);
    is_ours(
        &served.http.send("GET", &served.place().at("/nothing"), &[("x-long", &long)], "").await,
        431,
    );
    let path = format!("/nothing?{long}");
    is_ours(&served.http.get(&served.place().at(&path)).await, 414);
    let challenge = served.http.send("POST", &served.place().at("/mcp"), &[], "{}").await;
    challenge.assert_status(401);
    let metadata = served.place().mcp_metadata();
    assert!(challenge.header("www-authenticate").unwrap().contains(&metadata));
    client.call_tool(&tokens.access_token, "get-todos", json!({})).await.assert_status(200);
}

/// Each has what it may, whatever it writes into the headers that proxies write.
async fn callers_are_told_apart_by_their_addresses(served: &Served) {
    let ask = async |from: [u8; 4], made_up: &str| {
        let forwarded = format!("for={made_up}");
        let headers = [("x-forwarded-for", made_up), ("forwarded", forwarded.as_str())];
        let url = served.place().at("/.well-known/jwks.json");
        Http::from_address(from.into()).send("GET", &url, &headers, "").await.status
    };
    for number in 0..DISCOVERY_PER_MINUTE {
        assert_eq!(ask([127, 0, 0, 2], &format!("203.0.113.{number}")).await, 200);
    }
    for made_up in ["198.51.100.1", "127.0.0.1", "127.0.0.3", "198.51.100.1, 127.0.0.1", "unknown"]
    {
        assert_eq!(ask([127, 0, 0, 2], made_up).await, 429, "{made_up}");
    }
    assert_eq!(ask([127, 0, 0, 3], "127.0.0.2").await, 200, "somebody else does not pay");
}

async fn a_stream_passes_at_once_and_ends_with_its_grant(
    served: &Served,
    client: &McpClient,
    tokens: &Tokens,
) {
    let url = served.place().at("/mcp");
    let bearer = format!("Bearer {}", tokens.access_token);
    let mut headers = vec![
        ("authorization", bearer.as_str()),
        ("accept", "application/json, text/event-stream"),
        ("mcp-protocol-version", "2025-06-18"),
    ];
    let initialize = json!({
        "jsonrpc": "2.0", "id": 1, "method": "initialize",
        "params": { "protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": { "name": "t", "version": "1" } },
    });
    let answer = served.http.post_json(&url, &initialize, &headers).await;
    let session = answer.assert_status(200).header("mcp-session-id").unwrap().to_owned();
    headers.push(("mcp-session-id", &session));
    let stream = served.http.open("GET", &url, &headers, "").await;
    assert_eq!(stream.status(), 200);
    let mut stream = stream.into_body();
    for number in 0..20 {
        let event = json!({ "jsonrpc": "2.0", "method": format!("notifications/event-{number}") });
        served.todo.send_event(&event);
        until(&mut stream, event["method"].as_str().unwrap()).await;
    }
    client.revoke(&tokens.refresh_token).await.assert_status(200);
    let end = async { while matches!(stream.frame().await, Some(Ok(_))) {} };
    tokio::time::timeout(Duration::from_secs(2), end).await.expect("the stream is cut at once");
}

/// Reads a stream up to this text, which must come soon.
async fn until(stream: &mut Incoming, text: &str) {
    let mut seen = String::new();
    let reading = async {
        while !seen.contains(text) {
            let frame = stream.frame().await.expect("the stream goes on").unwrap();
            seen.push_str(&String::from_utf8_lossy(frame.data_ref().unwrap()));
        }
    };
    tokio::time::timeout(Duration::from_secs(1), reading).await.expect("events pass at once");
}

/// Clients at work while the process is replaced three times: how many requests were answered well, and how
/// many with 503 and when to come back. No other answer is right; one may be lost, which the system had let in
/// when the process closed its listener.
async fn restarts(served: &mut Served) -> (usize, usize) {
    let done = Arc::new(AtomicBool::new(false));
    let mut workers = Vec::new();
    for _ in 0..4 {
        let client = McpClient::register(served).await;
        let tokens = client.sign_in("bob").await;
        let (done, place) = (Arc::clone(&done), served.place());
        workers.push(tokio::spawn(async move {
            let (mut well, mut told, mut lost, mut newest) = (0, 0, 0, tokens.refresh_token);
            let mut count = |answer: &Answer| match answer.status.as_u16() {
                200 => well += 1,
                503 if answer.header("retry-after").is_some() => told += 1,
                502 => lost += 1,
                other => panic!("{other}: {}", answer.text()),
            };
            while !done.load(Ordering::SeqCst) {
                // As often as a grant may refresh, others are asked twenty times.
                for _ in 0..20 {
                    count(&client.call_tool(&tokens.access_token, "get-todos", json!({})).await);
                    let metadata = place.at("/.well-known/oauth-authorization-server");
                    count(&place.http.get(&metadata).await);
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                let refreshed = client.refresh(&newest).await;
                count(&refreshed);
                if refreshed.status == 200 {
                    let json: Value = refreshed.json();
                    json["refresh_token"].as_str().unwrap().clone_into(&mut newest);
                }
            }
            (well, told, lost)
        }));
    }
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_millis(700)).await;
        let ended = served.terminate().await.unwrap();
        assert!(ended.success(), "{ended}");
        served.launch();
    }
    done.store(true, Ordering::SeqCst);
    let mut all = (0, 0, 0);
    for worker in workers {
        let (well, told, lost) = worker.await.unwrap();
        all = (all.0 + well, all.1 + told, all.2 + lost);
    }
    let (well, told, lost) = all;
    assert!(well > 200 && lost <= 1, "{well} answered, {told} told to come back, {lost} lost");
    (well, told)
}
