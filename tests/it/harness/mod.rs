//! The cast: Portcullis itself, and everybody around it played over real HTTP: identity provider,
//! MCP server, browser, MCP client, database.

// Each test uses some of the cast.
#![allow(dead_code, reason = "a harness offers more than any one test uses")]

pub(crate) mod backend;
pub(crate) mod browser;
pub(crate) mod client;
pub(crate) mod collector;
pub(crate) mod connect;
pub(crate) mod console;
pub(crate) mod database;
pub(crate) mod demo;
pub(crate) mod http;
pub(crate) mod logs;
pub(crate) mod mailbox;
pub(crate) mod process;
pub(crate) mod proxy;
pub(crate) mod publisher;
pub(crate) mod raw;
pub(crate) mod recorder;
pub(crate) mod role;
pub(crate) mod service;
pub(crate) mod setup;
pub(crate) mod signer;
pub(crate) mod tls;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;

use portcullis::app::{App, Reloaded};
use portcullis::clock::{Clock, ManualClock, Timestamp};
use portcullis::config::Config;
use portcullis::demo::{
    CalendarClient, IdentityProvider, IdentityProviderOptions, TodoServer, TodoServerOptions,
};
use portcullis::server::{self, Listeners};
use portcullis::storage::{Storage, StorageError};
use portcullis::telemetry::audit::{Actor, AuditEvent};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use client::McpClient;
use database::Database;
use http::Http;
use setup::ServerAt;
pub(crate) use setup::{Setup, todo_resource};

/// Where the hand of every test's clock starts: 2026-11-21.
pub(crate) const START: i64 = 1_795_219_200;

/// A running Portcullis in front of the to-do MCP server and the demo identity provider.
pub(crate) struct TestApp {
    pub url: String,
    /// The same without its path.
    pub origin: String,
    /// Where the admin pages are.
    pub admin_url: String,
    pub clock: ManualClock,
    /// What the database shows, where replicas ask it; moves along with `clock`.
    pub database_clock: ManualClock,
    pub idp: IdentityProvider,
    pub todo: TodoServer,
    pub database: Database,
    pub http: Http,
    config: String,
    /// Environment variables that the server finds.
    env: BTreeMap<String, String>,
    /// What names resolve to, for the guard of what strangers name.
    resolves: BTreeMap<String, SocketAddr>,
    plays_persona: bool,
    running: Option<Running>,
}

struct Running {
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
    storage: Storage,
    app: App,
    /// Where the server redirects to https, if it does.
    plain: Option<SocketAddr>,
}

impl TestApp {
    pub(crate) async fn start() -> Self {
        Self::with(Setup::default()).await
    }

    /// For commands that run as processes of their own and have no other clock.
    pub(crate) async fn start_on_the_real_clock() -> Self {
        Self::on_the_real_clock(Setup::default()).await
    }

    pub(crate) async fn on_the_real_clock(setup: Setup) -> Self {
        Self::start_at(Clock::System.now(), setup).await
    }

    /// The same with a setup.
    pub(crate) async fn with_on_the_real_clock(setup: Setup) -> Self {
        Self::start_at(Clock::System.now(), setup).await
    }

    pub(crate) async fn with(setup: Setup) -> Self {
        Self::start_at(Timestamp::from_unix(START), setup).await
    }

    async fn start_at(start: Timestamp, setup: Setup) -> Self {
        logs::install();
        let clock = ManualClock::at(start);
        let database_clock = ManualClock::at(start);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let origin = format!("http://{address}");
        let path = setup.path.map_or_else(path_of_every_test, str::to_owned);
        let url = format!("{origin}{path}");
        let admin = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let admin_address = admin.local_addr().unwrap();
        let (idp, todo) = around(&url, &Clock::Manual(clock.clone())).await;
        let mut database = Database::new().await;
        if !setup.role.is_empty() {
            role::connect_as_role(&mut database, &setup.role).await;
        }
        if let Some(secret) = setup.client_secret {
            idp.set_client_secret(secret);
        }
        let admin_url = format!("http://{admin_address}");
        let place = ServerAt {
            url: &url,
            listen: &address.to_string(),
            admin: Some(&admin_address.to_string()),
            database: &database,
        };
        let config = setup.config(&place, &idp, &todo);
        let (http, plays_persona, running) = (Http::default(), setup.persona, None);
        let env = setup.env.iter().map(|(name, value)| ((*name).to_owned(), value.clone()));
        let resolved =
            |(name, to): &(&str, &str)| ((*name).to_owned(), format!("{to}:443").parse().unwrap());
        let (env, resolves) = (env.collect(), setup.resolves.iter().map(resolved).collect());
        let mut app = Self {
            url,
            origin,
            admin_url,
            clock,
            database_clock,
            idp,
            todo,
            database,
            http,
            config,
            env,
            resolves,
            plays_persona,
            running,
        };
        app.running = Some(app.launch(listener, Some(admin)).await);
        app
    }

    async fn launch(&self, listener: TcpListener, admin: Option<TcpListener>) -> Running {
        let config = self.config();
        let key = config.secret_key.as_ref().map(|key| key.expose().as_bytes().to_vec());
        let url = config.database_url.expose().to_owned();
        let connections = config.limits.database_connections;
        let open = async || Storage::open_with(&url, key.as_deref(), connections).await;
        let storage = patiently(open).await;
        storage.take_database_time_from(&Clock::Manual(self.database_clock.clone()));
        let clock = Clock::Manual(self.clock.clone());
        let app = Box::pin(App::new(config, clock, storage.clone())).await.unwrap();
        let plain = match app.config().listen_http {
            Some(address) => Some(TcpListener::bind(address).await.unwrap()),
            None => None,
        };
        let plain_at = plain.as_ref().map(|plain| plain.local_addr().unwrap());
        let listeners = Listeners { public: listener, admin, plain };
        let (stop, stopped) = oneshot::channel();
        let serving = app.clone();
        let task = tokio::spawn(async move {
            server::serve(serving, listeners, async {
                let _ = stopped.await;
            })
            .await;
        });
        Running { stop, task, storage, app, plain: plain_at }
    }

    /// The application's configuration, for starting another one.
    pub(crate) fn config(&self) -> Config {
        let mut config = loaded(&self.config, &self.env);
        config.client_documents.loopback.hosts.extend(self.resolves.clone());
        if self.plays_persona {
            self.idp.issuer().clone_into(&mut config.upstream.issuer);
        }
        config
    }

    /// What the next start finds in the file.
    pub(crate) fn change_config(&mut self, before: &str, after: &str) {
        assert!(self.config.contains(before));
        self.config = self.config.replace(before, after);
    }

    pub(crate) fn config_text(&self) -> String {
        self.config.clone()
    }

    /// A second server on the same database, on an address of its own; ends when told.
    pub(crate) async fn replica(&self) -> (String, oneshot::Sender<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = self.url_on(&listener);
        (url, self.launch(listener, None).await.stop)
    }

    /// A second server on the same database that goes by another clock; ends when told.
    pub(crate) async fn replica_with_clock(
        &self,
        clock: &ManualClock,
    ) -> (String, oneshot::Sender<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = self.url_on(&listener);
        // SQLite serves one process: both servers share what has the database open.
        let clock = Clock::Manual(clock.clone());
        let app = App::new(self.config(), clock, self.storage()).await.unwrap();
        let (stop, stopped) = oneshot::channel();
        tokio::spawn(async move {
            server::serve(app, listener.into(), async {
                let _ = stopped.await;
            })
            .await;
        });
        (url, stop)
    }

    /// The URL of a replica, with the path of `public_url`.
    fn url_on(&self, listener: &TcpListener) -> String {
        format!("http://{}{}", listener.local_addr().unwrap(), raw::path(&self.url))
    }

    /// Reads the configuration again, as it is written now.
    pub(crate) async fn reload(&self) -> Reloaded {
        let text = self.config.clone();
        let read = Config::load(Some((Path::new("test.toml"), text)), &self.env);
        self.running.as_ref().unwrap().app.reload(read, "a test").await
    }

    /// Where the server redirects to https.
    pub(crate) fn plain_url(&self) -> String {
        format!("http://{}", self.running.as_ref().unwrap().plain.unwrap())
    }

    /// What the server does every five seconds: loads and renews the certificate.
    pub(crate) async fn look_after_certificate(&self) {
        self.running.as_ref().unwrap().app.current().certificates().round().await.unwrap();
    }

    pub(crate) fn storage(&self) -> Storage {
        self.running.as_ref().unwrap().storage.clone()
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Stops and starts again on the same address and database, as a deployment does.
    pub(crate) async fn restart(&mut self) {
        self.stop().await;
        let address = self.origin.trim_start_matches("http://").to_owned();
        let listener = patiently(async || TcpListener::bind(&address).await).await;
        let admin = self.admin_url.trim_start_matches("http://");
        let admin = patiently(async || TcpListener::bind(admin).await).await;
        self.running = Some(self.launch(listener, Some(admin)).await);
    }

    pub(crate) async fn stop(&mut self) {
        if let Some(running) = self.running.take() {
            let _ = running.stop.send(());
            running.task.await.unwrap();
        }
    }

    pub(crate) fn at(&self, path: &str) -> String {
        format!("{}{path}", self.url)
    }

    pub(crate) fn mcp_url(&self) -> String {
        self.at("/mcp")
    }

    /// Where metadata about a path of ours stands: before the path of `public_url`.
    pub(crate) fn well_known(&self, document: &str, path: &str) -> String {
        let base = self.url.strip_prefix(&self.origin).unwrap();
        format!("{}/.well-known/{document}{base}{path}", self.origin)
    }

    pub(crate) fn advance(&self, seconds: i64) {
        self.clock.advance(seconds);
        self.database_clock.advance(seconds);
    }

    /// What the server does once a second.
    pub(crate) async fn look_back(&self) -> bool {
        let clock = Clock::Manual(self.clock.clone());
        self.storage().look_back(&clock).await.unwrap()
    }

    /// Delivers what is due now of notifications, as the server does every two seconds; answers how many.
    pub(crate) async fn notify_round(&self) -> usize {
        self.running.as_ref().unwrap().app.notify_round().await
    }

    /// What the server does every ten seconds: revokes tokens that were given up; answers how many were due.
    pub(crate) async fn revoke_round(&self) -> usize {
        self.running.as_ref().unwrap().app.revoke_due().await
    }

    /// Waits until no token waits to be revoked any more. The server revokes too, in the background.
    pub(crate) async fn until_revoked(&self) {
        let waiting = "SELECT COUNT(*) FROM token_revocations";
        for _ in 0..1_000 {
            self.revoke_round().await;
            if self.database.number(waiting).await == 0 {
                return;
            }
            tokio::task::yield_now().await;
        }
        panic!("tokens wait for ever to be revoked");
    }

    /// What every handler of the server may reach, for what has no page.
    pub(crate) fn app(&self) -> App {
        self.running.as_ref().unwrap().app.current()
    }

    /// What the server does every thirty seconds: connects to all targets.
    pub(crate) async fn check_targets(&self) {
        self.running.as_ref().unwrap().app.current().check_targets(true).await;
    }

    /// What the server does a few times a minute.
    pub(crate) async fn compare_with_replicas(&self) {
        self.running.as_ref().unwrap().app.compare_with_replicas().await.unwrap();
    }

    /// Sends the collector what waits, as the server does every few seconds, and the metrics.
    pub(crate) async fn export(&self) {
        self.running.as_ref().unwrap().app.export_telemetry().await;
    }

    /// What the server does every ten seconds: writes the sums of the calls so far.
    pub(crate) async fn write_usage(&self) {
        self.try_to_write_usage().await.unwrap();
    }

    pub(crate) async fn try_to_write_usage(&self) -> Result<(), StorageError> {
        self.running.as_ref().unwrap().app.write_usage().await
    }

    /// A registered public client on loopback, with a browser of its own.
    pub(crate) async fn client(&self) -> McpClient {
        McpClient::register(self).await
    }

    /// The same under a name of its own: another client.
    pub(crate) async fn client_named(&self, name: &str) -> McpClient {
        let metadata = serde_json::json!({
            "client_name": name,
            "redirect_uris": [client::REDIRECT_URI],
            "token_endpoint_auth_method": "none",
        });
        McpClient::register_as(self, metadata).await
    }

    /// An audit event, for changes made past the pages.
    pub(crate) fn audit_event(&self, name: &'static str) -> AuditEvent {
        AuditEvent::new(name, Actor::Server, &Clock::Manual(self.clock.clone()))
    }

    /// The shortest way to tokens: a new client, approved and signed in by `person`.
    pub(crate) async fn tokens_of(&self, person: &str) -> (McpClient, client::Tokens) {
        let client = self.client().await;
        let tokens = client.sign_in(person).await;
        (client, tokens)
    }
}

/// `PORTCULLIS_TEST_PATH=/auth cargo test` runs all tests of this kind below that path.
fn path_of_every_test() -> String {
    std::env::var("PORTCULLIS_TEST_PATH").unwrap_or_default()
}

/// Tries until it works. A child process that some other test starts holds copies of this process's
/// sockets and locks until it runs its own program, a moment later.
pub(crate) async fn patiently<T, E: std::fmt::Debug>(attempt: impl AsyncFn() -> Result<T, E>) -> T {
    for _ in 0..50_000 {
        if let Ok(done) = attempt().await {
            return done;
        }
        tokio::task::yield_now().await;
    }
    attempt().await.unwrap()
}

/// The identity provider and the MCP server around the Portcullis at `url`.
pub(crate) async fn around(url: &str, clock: &Clock) -> (IdentityProvider, TodoServer) {
    let idp = IdentityProvider::start(
        TcpListener::bind("127.0.0.1:0").await.unwrap(),
        IdentityProviderOptions {
            clock: clock.clone(),
            client_id: "portcullis".to_owned(),
            client_secret: "upstream-secret-canary".to_owned(),
            // The second one is for tests with TLS.
            redirect_uris: vec![
                format!("{url}/auth/callback"),
                format!("https://{}/auth/callback", tls::HOST),
            ],
            issuer: None,
            pages_url: None,
            state_dir: None,
            calendar: Some(CalendarClient {
                id: "portcullis-calendar".to_owned(),
                secret: "calendar-secret-canary".to_owned(),
                redirect_uris: vec![format!("{url}/auth/connect/calendar/callback")],
            }),
        },
    );
    let idp = idp.unwrap();
    let todo = TodoServer::start(
        TcpListener::bind("127.0.0.1:0").await.unwrap(),
        TodoServerOptions { clock: clock.clone(), calendar: Some(idp.address()) },
    );
    (idp, todo.unwrap())
}

fn loaded(text: &str, env: &BTreeMap<String, String>) -> Config {
    Config::load(Some((Path::new("test.toml"), text.to_owned())), env)
        .unwrap_or_else(|problems| panic!("{problems}"))
        .config
}
