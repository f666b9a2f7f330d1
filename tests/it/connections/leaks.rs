//! UT-07: the tokens of services are in no log, page, audit trail, export, metric or command, and in the database
//! only sealed. A whole life is led with marked tokens, by every way that a token takes; then everything that
//! anybody could read is searched for them.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::json;

use crate::harness::backend::{Backend, post, request, tokens};
use crate::harness::client::{Tokens, random_part};
use crate::harness::connect::{begin, connect, connect_as};
use crate::harness::console::{Console, with_query};
use crate::harness::http::Answer;
use crate::harness::process::portcullis;
use crate::harness::service::{FakeService, SERVICE_SECRET};
use crate::harness::{Setup, TestApp, logs};

const SECRET: &str = "the secret of the MCP server, 0123456789abcdef";

/// Everything that anybody was shown.
#[derive(Default)]
struct Shown(String);

impl Shown {
    fn add(&mut self, answer: &Answer) {
        let body = String::from_utf8_lossy(&answer.body);
        self.0 = format!("{}{} {:?}\n{body}\n", self.0, answer.status, answer.headers);
    }
}

struct Life {
    app: TestApp,
    backend: Backend,
    service: FakeService,
    shown: Shown,
}

impl Life {
    async fn start() -> Self {
        let (backend, service) = (Backend::start().await, FakeService::start().await);
        let setup = Setup::toml(format!(
            r#"
[[resource]]
path   = "/mcp"
target = "{}/mcp"
scopes = ["read", "write"]
introspection_secret = "{SECRET}"
rule   = [{{ roles = ["Admin", "User"], allow = ["read", "write"] }}]
[[resource.connection]]
name   = "github"
header = "X-GitHub-Token"
{}
"#,
            backend.url,
            service.toml("github", "oauth2"),
        ));
        // The commands of administrators go by the real clock.
        let app = TestApp::with_on_the_real_clock(setup).await;
        Self { app, backend, service, shown: Shown::default() }
    }

    async fn call(&mut self, tokens: &Tokens) -> u16 {
        let body = request("tools/call", &json!({ "name": "x", "arguments": {} }));
        let answer = post(&self.app, tokens, &[], &body).await;
        self.shown.add(&answer);
        answer.status.as_u16()
    }

    /// The MCP server asks for the token of the service; answers whether it got one. What it got is its own.
    async fn exchange(&mut self, tokens: &Tokens, audience: &str) -> bool {
        let pair = STANDARD.encode(format!("{}:{SECRET}", self.app.mcp_url()));
        let authorization = format!("Basic {pair}");
        let form = [
            ("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange"),
            ("subject_token", tokens.access_token.as_str()),
            ("subject_token_type", "urn:ietf:params:oauth:token-type:access_token"),
            ("audience", audience),
        ];
        let headers = [("authorization", authorization.as_str())];
        let answer = self.app.http.post_form(&self.app.at("/token"), &form, &headers).await;
        if answer.status != 200 {
            self.shown.add(&answer);
        }
        answer.status == 200
    }

    async fn look_at_pages(&mut self, console: &Console, paths: &[String]) {
        for path in paths {
            let answer = console.get(path).await;
            self.shown.add(&answer);
        }
    }

    /// What administrators read at this moment: pages, downloads and metrics.
    async fn look_at_everything(&mut self) {
        let alice = Console::admin(&self.app).signed_in(&self.app, "alice").await;
        let id = "SELECT COALESCE(MIN(id), 'none') FROM connections";
        let id = self.app.database.text(id).await;
        let mut paths: Vec<String> =
            ["/", "/connections", "/connections?broken=1", "/grants", "/people"]
                .into_iter()
                .chain(["/servers", "/usage", "/usage/export", "/audit?routine=1"])
                .chain(["/audit/export?format=csv", "/audit/export?format=jsonl"])
                .map(str::to_owned)
                .collect();
        paths.push(with_query("/person", &[("sub", "oidc:demo-bob")]));
        paths.push(with_query("/confirm", &[("act", "remove_service"), ("id", &id)]));
        paths.push(with_query("/confirm", &[("act", "remove_services"), ("name", "github")]));
        self.look_at_pages(&alice, &paths).await;
        let metrics = self.app.http.get(&format!("{}/metrics", self.app.admin_url)).await;
        self.shown.add(&metrics);
    }

    async fn run_every_command(&mut self) {
        for arguments in [
            &["connections", "list", "--json"][..],
            &["connections", "list"],
            &["connections", "remove", "--service", "github", "--dry-run"],
            &["audit", "export", "--format", "jsonl"],
            &["config", "show"],
            &["doctor", "--connections"],
            &["check"],
        ] {
            self.run(arguments).await;
        }
    }

    /// Runs a command at the finest log level, and keeps all that it prints.
    async fn run(&mut self, arguments: &[&str]) {
        let folder = &self.app.database.folder;
        let config = format!("{}\n[client_documents]\nenabled = false\n", self.app.config_text());
        std::fs::write(folder.join("portcullis.toml"), config).unwrap();
        let mut command = portcullis(folder);
        command.args(arguments).env("PORTCULLIS_LOG", "trace");
        let ran = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        for bytes in [&ran.stdout, &ran.stderr] {
            self.shown.0.push_str(&String::from_utf8_lossy(bytes));
        }
    }
}

#[tokio::test]
async fn ut_07_no_token_of_a_service_is_in_logs_pages_exports_metrics_commands_or_the_database() {
    let mut life = Life::start().await;
    life.service.expire_in(Some(120));

    // Connected, used by header, exchanged, refreshed.
    let bob = Console::account(&life.app).signed_in(&life.app, "bob").await;
    let mcp = life.app.mcp_url();
    let page = connect(&life.app, &bob, "github", &mcp).await;
    life.shown.add(&page);
    let (_, first) = tokens(&life.app, "bob").await;
    assert_eq!(life.call(&first).await, 200);
    assert!(life.exchange(&first, "github").await);
    assert!(!life.exchange(&first, "nothing").await);
    life.look_at_everything().await;
    life.app.advance(130);
    assert_eq!(life.call(&first).await, 200);
    assert!(life.exchange(&first, "github").await);
    assert_eq!(life.service.refreshes(), 1);

    // The service is away, answers nonsense, and refuses: every failure has its log line.
    life.app.advance(130);
    life.service.down(true);
    assert_eq!(life.call(&first).await, 503);
    life.service.down(false);
    for (status, body) in [
        (200, json!({ "access_token": "odd-canary-é", "token_type": "bearer" })),
        (500, json!({ "error": "server_error", "error_description": "description-canary" })),
        (200, json!({ "error": "Bearer description-canary", "access_token": 7 })),
    ] {
        life.app.advance(40);
        life.service.answers_with(status, &body.to_string());
        life.call(&first).await;
    }
    let (_, second) = tokens(&life.app, "bob").await;
    life.service.end_refresh_tokens();
    life.app.advance(130);
    life.call(&second).await;
    life.exchange(&second, "github").await;
    life.look_at_everything().await;
    life.run_every_command().await;

    // Connected again, with a code that comes twice; disconnected; another account; removed by an administrator.
    let at_service = begin(&life.app, &bob, "github", &mcp).await;
    let back = bob.browser.get(&at_service).await.location().to_owned();
    for _ in 0..2 {
        let answer = bob.browser.get(&back).await;
        life.shown.add(&answer);
    }
    bob.press_and_confirm("/account/connections", "action", "disconnect").await;
    life.service.account("hubot");
    connect(&life.app, &bob, "github", &mcp).await;
    let account = ["/account".to_owned(), "/account/connections".to_owned()];
    life.look_at_pages(&bob, &account).await;
    connect_as(&life.app, "alice", "github").await;
    life.run_every_command().await;
    life.run(&["connections", "remove", "--service", "github", "--yes"]).await;
    life.service.down(true);
    life.app.revoke_round().await;
    let queued = life.app.database.dump().await;
    life.service.down(false);
    life.app.advance(3600);
    life.app.revoke_round().await;
    life.look_at_everything().await;

    let mut secrets = life.service.issued();
    secrets.extend(["odd-canary", "description-canary", SERVICE_SECRET].map(str::to_owned));
    assert!(secrets.len() > 12, "{secrets:?}");
    let arrived = life.backend.take();
    let with_token = arrived.iter().filter(|seen| seen.header("x-github-token").is_some());
    assert!(with_token.count() >= 2, "the MCP server got tokens, so the search can find something");
    let stolen = [queued, life.app.database.dump().await].concat();
    let (log, stolen) = (logs::all(), String::from_utf8_lossy(&stolen).into_owned());
    assert!(log.contains("connection_made") && stolen.contains("oidc:demo-bob"));
    for (place, text) in [("log", &log), ("database", &stolen), ("shown", &life.shown.0)] {
        for secret in &secrets {
            for form in forms_of(secret) {
                // The browser carries the code, and nobody else sees it.
                let carried = place == "shown" && secret.starts_with("code-") && form == *secret;
                assert!(carried || !text.contains(&form), "{secret:.12}… is in the {place}");
            }
        }
    }
    assert!(life.shown.0.len() > 100_000, "{}", life.shown.0.len());
}

/// The forms in which a secret may be written: as it is, its random part, and encoded.
fn forms_of(secret: &str) -> Vec<String> {
    vec![
        secret.to_owned(),
        random_part(secret).to_owned(),
        STANDARD.encode(secret),
        URL_SAFE_NO_PAD.encode(secret),
    ]
}
