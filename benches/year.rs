//! A year of ten thousand people in minutes: `cargo bench --bench year -- FOLDER [PEOPLE] [DAYS]`. How the
//! database grows, what clean-up keeps, and how long anybody waits for it. `benches/year.sh` runs it.
//! docs/capacity.md computes the same year from the sizes of rows.
//!
//! A server with the default limits and retention runs on a clock that is moved. Sign-ins, registrations,
//! denials and revocations go through its pages and endpoints, over HTTP. Refreshes, usage and clean-up go
//! through the methods of `Storage` that the server itself calls. The identity provider and the browsers are
//! played here, as far as the database can see the difference.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::panic,
    reason = "a tool that stops at the first trouble"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use axum::extract::{RawForm, State};
use axum::routing::{get, post};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures_util::StreamExt;
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use portcullis::app::App;
use portcullis::clock::{Clock, ManualClock, Timestamp};
use portcullis::config::Config;
use portcullis::oauth::secret::{RefreshToken, Secret, new_id};
use portcullis::server;
use portcullis::storage::{
    CallCounts, CalledName, RefreshExchange, Retention, Rotated, Rotation, Storage, UsageKey,
    UsageRetention,
};
use portcullis::telemetry::audit::{Actor, AuditEvent};
use regex_lite::Regex;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::time::Instant;
use url::Url;

const START: i64 = 1_767_600_000; // 2026-01-05, a Monday, 08:00 UTC
const DAY: i64 = 86_400;
const CALLBACK: &str = "http://127.0.0.1:53124/callback";
const VERIFIER: &str = "a-verifier-of-43-characters-or-more-0123456789";
/// Requests at once.
const AT_ONCE: usize = 16;

// The model. docs/capacity.md explains it.

/// Each person uses so many clients.
const CLIENTS_EACH: usize = 2;
/// Of a hundred pairs of person and client so many are used on nearly every working day …
const DAILY: u64 = 10;
/// … and so many about once a week. The others are used about every seventh week.
const WEEKLY: u64 = 60;
/// Refreshes of a pair on a day on which it is used.
const REFRESHES: usize = 2;
/// Tools that are called on such a day, and hours in which each is called.
const TOOLS: u64 = 2;
const HOURS: i64 = 2;
/// Applications that many people share, because equal metadata are one client.
const APPLICATIONS: usize = 30;
/// Of a hundred people so many have a client of their own.
const OWN_CLIENT: u64 = 10;
/// Of the people, one in so many leaves in a month, and another one comes.
const TURNOVER: usize = 100;
/// On each day: registrations that nobody uses, pages that strangers deny, sign-ins that are not finished,
/// people without access, and people who end a connection.
const ABANDONED: usize = 100;
const DENIED: usize = 50;
const UNFINISHED: usize = 30;
const REFUSED: u64 = 20;
const REVOKED: usize = 10;

#[tokio::main]
async fn main() {
    let arguments: Vec<String> =
        std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    let Some(folder) = arguments.first() else {
        println!("cargo bench --bench year -- FOLDER [PEOPLE] [DAYS]");
        return;
    };
    let number = |place: usize, otherwise: usize| {
        arguments.get(place).map_or(otherwise, |text| text.parse().unwrap())
    };
    let mut year = Year::begin(Path::new(folder), number(1, 10_000)).await;
    let days = number(2, 365);
    for day in 0..i64::try_from(days).unwrap() {
        year.day(day).await;
        if (day + 1) % 30 == 0 || day + 1 == i64::try_from(days).unwrap() {
            year.month(day + 1).await;
        }
    }
    println!("{}", year.report);
}

/// One person's use of one client.
struct Pair {
    person: u64,
    slot: usize,
    /// Per thousand working days.
    used: u64,
    token: Option<String>,
    client: String,
}

#[derive(Default)]
struct Counts {
    sign_ins: u64,
    refreshes: u64,
    usage_rows: u64,
    removed: u64,
    clean_up: Duration,
    longest_wait: Duration,
}

struct Year {
    clock: ManualClock,
    storage: Storage,
    app: App,
    visitor: Visitor,
    url: String,
    database: String,
    pairs: Vec<Pair>,
    /// Names of the applications that many people share.
    applications: Vec<String>,
    /// People with a client of their own.
    own: BTreeSet<u64>,
    next_person: u64,
    random: u64,
    strangers: u64,
    counts: Counts,
    begun: Instant,
    report: String,
}

/// The configuration of the simulated installation: defaults, without rates for each address.
fn configuration(url: &str, database: &str, provider: &str) -> String {
    format!(
        r#"public_url = "{url}"
           database_url = "{database}"
           secret_key = "a key for a simulated year, 0123456789 0123456789"
           [upstream]
           provider = "oidc"
           issuer = "{provider}"
           client_id = "year"
           client_secret = "year-secret-year-secret"
           [upstream.claims]
           roles = "roles"
           [[resource]]
           path = "/mcp"
           target = "http://127.0.0.1:9/mcp"
           scopes = ["read", "write"]
           [[resource.rule]]
           roles = ["user"]
           allow = ["read", "write"]
           [limits]
           request_rates = false
           "#
    )
}

impl Year {
    async fn begin(folder: &Path, people: usize) -> Self {
        std::fs::create_dir_all(folder).unwrap();
        let clock = ManualClock::at(Timestamp::from_unix(START));
        let provider = Provider::start(clock.clone()).await;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let database = format!("sqlite://{}", folder.join("portcullis.db").display());
        let text = configuration(&url, &database, &provider);
        let config = Config::load(Some((Path::new("year.toml"), text)), &BTreeMap::new())
            .unwrap_or_else(|problems| panic!("{problems}"))
            .config;
        let key = config.secret_key.as_ref().map(|key| key.expose().as_bytes().to_vec());
        let storage = Storage::open(&database, key.as_deref()).await.unwrap();
        let app = Box::pin(App::new(config, Clock::Manual(clock.clone()), storage.clone())).await;
        let app = app.unwrap();
        tokio::spawn(server::serve(app.clone(), listener.into(), std::future::pending()));
        let visitor = Visitor::new(&url);
        let pairs = Vec::with_capacity(people * CLIENTS_EACH);
        let mut year = Self {
            clock,
            storage,
            app,
            visitor,
            url,
            database,
            pairs,
            applications: Vec::new(),
            own: BTreeSet::new(),
            next_person: 0,
            random: 0x2545_f491_4f6c_dd1d,
            strangers: 0,
            counts: Counts::default(),
            begun: Instant::now(),
            report: String::new(),
        };
        for application in 0..APPLICATIONS {
            year.applications.push(format!("Application {application}"));
        }
        for _ in 0..people {
            year.arrives();
        }
        year
    }

    fn random(&mut self, below: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 33) % below.max(1)
    }

    fn arrives(&mut self) {
        let person = self.next_person;
        self.next_person += 1;
        if self.random(100) < OWN_CLIENT {
            self.own.insert(person);
        }
        for slot in 0..CLIENTS_EACH {
            let used = match self.random(100) {
                class if class < DAILY => 900,
                class if class < DAILY + WEEKLY => 200,
                _ => 30,
            };
            self.pairs.push(Pair { person, slot, used, token: None, client: String::new() });
        }
    }

    async fn day(&mut self, day: i64) {
        let evening = START + day * DAY + 20 * 3600 - 8 * 3600;
        if day % 7 < 5 {
            self.working_day().await;
        }
        self.strangers_come().await;
        if day % 30 == 29 {
            self.some_leave();
        }
        let left = evening - self.clock.now().unix();
        assert!(left > 0, "the day is too short");
        self.clock.advance(left);
        self.clean_up().await;
        self.clock.advance(START + (day + 1) * DAY - self.clock.now().unix());
    }

    /// Those who use a client today refresh, or sign in where their connection has ended.
    async fn working_day(&mut self) {
        let today: Vec<usize> = (0..self.pairs.len())
            .filter(|&at| {
                let used = self.pairs[at].used;
                self.random(1000) < used
            })
            .collect();
        let held: Vec<(usize, Option<String>)> =
            today.iter().map(|&at| (at, self.pairs[at].token.take())).collect();
        let refreshed = self.refresh_all(held).await;
        let mut without = Vec::new();
        for (at, token) in refreshed {
            if token.is_some() {
                self.counts.refreshes += REFRESHES as u64;
                self.pairs[at].token = token;
            } else {
                without.push(at);
            }
        }
        let sign_ins: Vec<(usize, u64, String)> = without
            .into_iter()
            .map(|at| {
                let (person, slot) = (self.pairs[at].person, self.pairs[at].slot);
                let shared = usize::try_from(person).unwrap() * 7 + slot * 13;
                let name = if slot == 1 && self.own.contains(&person) {
                    format!("Application of person {person}")
                } else {
                    self.applications[shared % APPLICATIONS].clone()
                };
                (at, person, name)
            })
            .collect();
        self.counts.sign_ins += sign_ins.len() as u64;
        let clock = self.clock.clone();
        let day = clock.now().unix() / DAY;
        let signed_in: Vec<(usize, String, String)> = futures_util::stream::iter(sign_ins)
            .map(|(at, person, name)| {
                let (visitor, clock) = (self.visitor.clone(), clock.clone());
                async move {
                    clock.advance(1);
                    let who = Who { person, session: format!("{person}-{day}"), role: "user" };
                    // A client that was unused for too long is gone. Equal metadata find one that is not.
                    let client = visitor.register(&name).await;
                    let token = visitor.sign_in(&client, &who).await.expect("may sign in");
                    (at, client, token)
                }
            })
            .buffer_unordered(AT_ONCE)
            .collect()
            .await;
        for (at, client, token) in signed_in {
            self.pairs[at].client = client;
            self.pairs[at].token = Some(token);
        }
        self.use_tools(&today).await;
    }

    /// Refreshes each token [`REFRESHES`] times. Returns the last successors; `None` where there is no token, or where
    /// the connection has ended.
    async fn refresh_all(
        &self,
        held: Vec<(usize, Option<String>)>,
    ) -> Vec<(usize, Option<String>)> {
        let (storage, clock) = (self.storage.clone(), self.clock.clone());
        let rotation = Rotation {
            grace: self.app.config().tokens.refresh_grace,
            replays: self.app.config().limits.grace_replays,
            idle: self.app.config().tokens.refresh_idle,
            from: Some([203, 0, 113, 9].into()),
        };
        futures_util::stream::iter(held)
            .map(|(at, token)| {
                let (storage, clock) = (storage.clone(), clock.clone());
                async move {
                    let Some(mut token) = token else { return (at, None) };
                    for _ in 0..REFRESHES {
                        match refresh(&storage, &clock, &token, rotation).await {
                            Some(next) => token = next,
                            None => return (at, None),
                        }
                    }
                    (at, Some(token))
                }
            })
            .buffer_unordered(AT_ONCE)
            .collect()
            .await
    }

    async fn use_tools(&mut self, today: &[usize]) {
        let hour = self.clock.now().unix().div_euclid(3600);
        let mut rows = Vec::new();
        for &at in today {
            let pair = &self.pairs[at];
            let (subject, client_id) =
                (format!("oidc:person-{}", pair.person), pair.client.clone());
            for tool in 0..TOOLS {
                for later in 0..HOURS {
                    let mut counts = CallCounts::default();
                    counts.0[0] = 7;
                    let key = UsageKey {
                        hour: hour + later,
                        resource: format!("{}/mcp", self.url),
                        subject: subject.clone(),
                        client_id: client_id.clone(),
                        called: CalledName::Tool(format!("tool-{}", (pair.person + tool * 3) % 12)),
                    };
                    rows.push((key, counts));
                }
            }
        }
        for rows in rows.chunks(2000) {
            self.storage.add_usage(rows).await.unwrap();
        }
        self.counts.usage_rows += rows.len() as u64;
    }

    async fn strangers_come(&mut self) {
        for _ in 0..ABANDONED {
            self.clock.advance(1);
            self.strangers += 1;
            self.visitor.register(&format!("Abandoned {}", self.strangers)).await;
        }
        for turn in 0..DENIED + UNFINISHED {
            self.clock.advance(1);
            let client = self.visitor.register(&self.applications[turn % APPLICATIONS]).await;
            let decision = if turn < DENIED { "deny" } else { "approve" };
            self.visitor.decide(&client, decision).await;
        }
        for _ in 0..REFUSED {
            self.clock.advance(1);
            let person = 1_000_000 + self.random(5_000);
            let who = Who { person, session: format!("{person}"), role: "guest" };
            let client = self.visitor.register(&self.applications[0]).await;
            assert!(self.visitor.sign_in(&client, &who).await.is_none(), "a guest may not");
        }
        for _ in 0..REVOKED {
            let at = self.random(self.pairs.len() as u64);
            let pair = &mut self.pairs[usize::try_from(at).unwrap()];
            if let Some(token) = pair.token.take() {
                self.visitor.revoke(&pair.client, &token).await;
            }
        }
    }

    fn some_leave(&mut self) {
        for _ in 0..self.pairs.len() / CLIENTS_EACH / TURNOVER {
            let of_whom = self.random(self.pairs.len() as u64);
            let person = self.pairs[usize::try_from(of_whom).unwrap()].person;
            self.pairs.retain(|pair| pair.person != person);
            self.own.remove(&person);
            self.arrives();
        }
        // New versions of some applications.
        for turn in 0..5 {
            self.strangers += 1;
            let name = format!("Application {turn} of {}", self.strangers);
            let at = usize::try_from(self.random(APPLICATIONS as u64)).unwrap();
            self.applications[at] = name;
        }
    }

    /// What the server does each minute, once in the evening. Somebody refreshes meanwhile, without a pause.
    async fn clean_up(&mut self) {
        let keep = self.retention();
        let usage = UsageRetention {
            age: self.app.config().usage_retention,
            hours: self.app.config().limits.usage_rows,
            rows: keep.rows,
        };
        let now = self.clock.now();
        let clock = Clock::Manual(self.clock.clone());
        let waiting = tokio::spawn(waits(self.storage.clone()));
        let before = Instant::now();
        self.storage.note_time(now).await.unwrap();
        loop {
            let removed = self.storage.sweep(now, keep).await.unwrap()
                + self.storage.sweep_usage(now, usage).await.unwrap();
            self.counts.removed += removed;
            if removed == 0 {
                break;
            }
        }
        self.counts.clean_up += before.elapsed();
        waiting.abort();
        let longest = LONGEST.swap(0, Ordering::Relaxed);
        self.counts.longest_wait = self.counts.longest_wait.max(Duration::from_micros(longest));
        while self.storage.settle_audit_and_tell(&clock).await.unwrap() > 0 {}
        while self.storage.trim_audit(&clock).await.unwrap() > 0 {}
        // The queue of tokens to be revoked, which the server looks at every ten seconds.
        while self.app.revoke_due().await > 0 {}
    }

    fn retention(&self) -> Retention {
        let limits = &self.app.config().limits;
        Retention {
            unused_client: limits.unused_client_expiry,
            idle_client: limits.idle_client_expiry,
            audit: self.app.config().audit_retention,
            refused_person: limits.refused_person_expiry,
            refresh_idle: self.app.config().tokens.refresh_idle,
            rows: limits.sweep_rows,
        }
    }

    async fn month(&mut self, days: i64) {
        let before = Instant::now();
        let removed = self.storage.sweep(self.clock.now(), self.retention()).await.unwrap();
        let idle = before.elapsed();
        let tables = tables(&self.database);
        let size: i64 = tables.values().map(|(_, bytes)| bytes).sum();
        let counts = std::mem::take(&mut self.counts);
        let line = format!(
            "day {days}: {:.1} MB; {} sign-ins, {} refreshes, {} usage rows; clean-up removed {} rows in {:.1} s; \
             longest write that waited {:.1} ms; a clean-up that finds {removed} rows takes {:.1} ms; {:.0} s so far",
            mega(size),
            counts.sign_ins,
            counts.refreshes,
            counts.usage_rows,
            counts.removed,
            counts.clean_up.as_secs_f64(),
            counts.longest_wait.as_secs_f64() * 1e3,
            idle.as_secs_f64() * 1e3,
            self.begun.elapsed().as_secs_f64(),
        );
        println!("{line}");
        let report = &mut self.report;
        let _ =
            writeln!(report, "\n{line}\n\n| table | rows | MB | bytes a row |\n|---|---|---|---|");
        for (table, (rows, bytes)) in &tables {
            if *rows > 0 {
                let each = bytes / rows;
                let _ = writeln!(report, "| {table} | {rows} | {:.1} | {each} |", mega(*bytes));
            }
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "megabytes")]
fn mega(bytes: i64) -> f64 {
    bytes as f64 / 1e6
}

/// Microseconds.
static LONGEST: AtomicU64 = AtomicU64::new(0);

/// Writes a little again and again, and notes the longest that took.
async fn waits(storage: Storage) {
    let clock = Clock::System;
    loop {
        let before = Instant::now();
        let event = AuditEvent::new("page_shown", Actor::Server, &clock);
        storage.note(&[event]).await.unwrap();
        let took = u64::try_from(before.elapsed().as_micros()).unwrap();
        LONGEST.fetch_max(took, Ordering::Relaxed);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn refresh(
    storage: &Storage,
    clock: &ManualClock,
    token: &str,
    rotation: Rotation,
) -> Option<String> {
    let now = clock.now();
    let presented = Secret::<RefreshToken>::parse(token).unwrap();
    let found = storage.find_refresh_token(&presented, now).await.unwrap()?;
    found.usable.clone().ok()?;
    let clock = Clock::Manual(clock.clone());
    let successor = Secret::<RefreshToken>::generate(&new_id(&clock));
    let event = AuditEvent::new("refresh", Actor::Client, &clock)
        .client(&found.client_id)
        .subject(&found.subject)
        .resource(&found.resource)
        .grant(&found.grant_id)
        .with("scopes", "read write")
        .with("stale", false)
        .with("from", "203.0.113.9");
    let exchange =
        RefreshExchange { presented: &presented, found: &found, successor: &successor, rotation };
    match storage.rotate_refresh_token(&exchange, now, event).await.unwrap() {
        Rotated::First => Some(successor.expose().to_owned()),
        Rotated::Replayed(_) | Rotated::Refused(_) => None,
    }
}

/// Prints name, rows and bytes of each table. The SQLite that we compile in has no `dbstat`; that of Python does.
const SIZES: &str = r#"
import sqlite3, sys
db = sqlite3.connect(f"file:{sys.argv[1]}?mode=ro", uri=True)
sizes = """SELECT m.tbl_name, SUM(s.pgsize) FROM dbstat s JOIN sqlite_master m ON m.name = s.name
           GROUP BY m.tbl_name"""
for name, size in db.execute(sizes).fetchall():
    print(name, db.execute(f"SELECT COUNT(*) FROM {name}").fetchone()[0], size)
"#;

/// Rows and bytes of each table, its indexes included.
fn tables(database: &str) -> BTreeMap<String, (i64, i64)> {
    let path = database.trim_start_matches("sqlite://");
    let said = Command::new("python3").args(["-c", SIZES, path]).output().unwrap();
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    let said = String::from_utf8(said.stdout).unwrap();
    let read = |line: &str| {
        let (name, numbers) = line.split_once(' ').unwrap();
        let (rows, bytes) = numbers.split_once(' ').unwrap();
        (name.to_owned(), (rows.parse().unwrap(), bytes.parse().unwrap()))
    };
    said.lines().map(read).collect()
}

struct Who {
    person: u64,
    /// The session at the identity provider.
    session: String,
    role: &'static str,
}

/// Clients and browsers.
#[derive(Clone)]
struct Visitor {
    http: Client<HttpConnector, Full<Bytes>>,
    url: Arc<str>,
    field: Arc<Regex>,
}

struct Answer {
    status: u16,
    location: Option<String>,
    cookies: Vec<String>,
    body: Bytes,
}

impl Visitor {
    fn new(url: &str) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        let http = Client::builder(TokioExecutor::new()).build(connector);
        let field = Regex::new(r#"name="request" value="([^"]*)""#).unwrap();
        Self { http, url: url.into(), field: Arc::new(field) }
    }

    async fn send(
        &self,
        method: &str,
        url: &str,
        headers: &[(&str, &str)],
        body: String,
    ) -> Answer {
        let mut request = hyper::Request::builder().method(method).uri(url);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(Bytes::from(body))).unwrap();
        let (parts, body) = self.http.request(request).await.unwrap().into_parts();
        let text = |value: &hyper::header::HeaderValue| value.to_str().unwrap().to_owned();
        Answer {
            status: parts.status.as_u16(),
            location: parts.headers.get("location").map(text),
            cookies: parts.headers.get_all("set-cookie").iter().map(text).collect(),
            body: body.collect().await.unwrap().to_bytes(),
        }
    }

    async fn form(&self, path: &str, form: &[(&str, &str)], cookie: &str) -> Answer {
        let headers = [
            ("content-type", "application/x-www-form-urlencoded"),
            ("accept", "text/html"),
            ("origin", &*self.url),
            ("sec-fetch-site", "same-origin"),
            ("cookie", cookie),
        ];
        // A client is no browser.
        let headers = if cookie.is_empty() { &headers[..1] } else { &headers[..] };
        self.send("POST", &format!("{}{path}", self.url), headers, encode(form)).await
    }

    async fn register(&self, name: &str) -> String {
        let metadata = json!({
            "client_name": name, "redirect_uris": [CALLBACK], "token_endpoint_auth_method": "none",
            "grant_types": ["authorization_code", "refresh_token"], "response_types": ["code"],
        });
        let headers = [("content-type", "application/json")];
        let url = format!("{}/register", self.url);
        let answer = self.send("POST", &url, &headers, metadata.to_string()).await;
        let said: Value = serde_json::from_slice(&answer.body).unwrap();
        said["client_id"].as_str().unwrap_or_else(|| panic!("{said}")).to_owned()
    }

    /// Opens the consent page and presses a button. Returns where the browser goes, and its cookies.
    async fn decide(&self, client: &str, decision: &str) -> (String, String) {
        let challenge = URL_SAFE_NO_PAD.encode(digest(&SHA256, VERIFIER.as_bytes()));
        let query = encode(&[
            ("response_type", "code"),
            ("client_id", client),
            ("redirect_uri", CALLBACK),
            ("state", "a-state-of-the-client"),
            ("code_challenge", &challenge),
            ("code_challenge_method", "S256"),
            ("resource", &format!("{}/mcp", self.url)),
        ]);
        let url = format!("{}/authorize?{query}", self.url);
        let page = self.send("GET", &url, &[("accept", "text/html")], String::new()).await;
        let text = String::from_utf8(page.body.to_vec()).unwrap();
        let request = self.field.captures(&text).unwrap_or_else(|| panic!("{text}"));
        let cookies = jar(&page.cookies);
        let form = [
            ("request", &request[1]),
            ("decision", decision),
            ("scope", "read"),
            ("scope", "write"),
        ];
        let answer = self.form("/consent", &form, &cookies).await;
        let to = answer.location.unwrap_or_else(|| {
            panic!("{}: {}", answer.status, String::from_utf8_lossy(&answer.body))
        });
        (to, format!("{cookies}; {}", jar(&answer.cookies)))
    }

    /// The whole way to a refresh token; `None` if the person is refused.
    async fn sign_in(&self, client: &str, who: &Who) -> Option<String> {
        let (to, cookies) = self.decide(client, "approve").await;
        let asked = Url::parse(&to).unwrap();
        let param = |name: &str| {
            asked.query_pairs().find(|(known, _)| known == name).unwrap().1.into_owned()
        };
        let code = json!([param("nonce"), who.person, who.session, who.role]).to_string();
        let query = encode(&[("code", &URL_SAFE_NO_PAD.encode(code)), ("state", &param("state"))]);
        let url = format!("{}?{query}", param("redirect_uri"));
        let headers = [("accept", "text/html"), ("cookie", &*cookies)];
        let back = self.send("GET", &url, &headers, String::new()).await;
        let back = Url::parse(&back.location?).unwrap();
        let (_, code) = back.query_pairs().find(|(name, _)| name == "code")?;
        let form = [
            ("grant_type", "authorization_code"),
            ("client_id", client),
            ("code", &*code),
            ("redirect_uri", CALLBACK),
            ("code_verifier", VERIFIER),
        ];
        let answer = self.form("/token", &form, "").await;
        let said: Value = serde_json::from_slice(&answer.body).unwrap();
        Some(said["refresh_token"].as_str().unwrap_or_else(|| panic!("{said}")).to_owned())
    }

    async fn revoke(&self, client: &str, token: &str) {
        let answer = self.form("/revoke", &[("client_id", client), ("token", token)], "").await;
        // 401: clean-up has removed the client, whose token had expired long before.
        assert!(matches!(answer.status, 200 | 401), "{}", answer.status);
    }
}

fn encode(form: &[(&str, &str)]) -> String {
    form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish()
}

fn jar(cookies: &[String]) -> String {
    let pairs: Vec<&str> = cookies.iter().filter_map(|cookie| cookie.split(';').next()).collect();
    pairs.join("; ")
}

/// The identity provider: signs what the code says. Its tokens are as long as those of common providers.
struct Provider {
    issuer: String,
    key: EcdsaKeyPair,
    clock: ManualClock,
}

impl Provider {
    async fn start(clock: ManualClock) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let issuer = format!("http://{}", listener.local_addr().unwrap());
        let pkcs8 =
            EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new());
        let key =
            EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.unwrap().as_ref());
        let provider = Arc::new(Self { issuer: issuer.clone(), key: key.unwrap(), clock });
        let router = axum::Router::new()
            .route("/.well-known/openid-configuration", get(discovery))
            .route("/jwks", get(keys))
            .route("/token", post(token))
            .with_state(provider);
        tokio::spawn(async move { axum::serve(listener, router).await });
        issuer
    }

    fn sign(&self, claims: &Value) -> String {
        let header = json!({ "alg": "ES256", "typ": "JWT", "kid": "year" }).to_string();
        let mut token = URL_SAFE_NO_PAD.encode(header);
        token.push('.');
        token.push_str(&URL_SAFE_NO_PAD.encode(claims.to_string()));
        let signature = self.key.sign(&SystemRandom::new(), token.as_bytes()).unwrap();
        token.push('.');
        token.push_str(&URL_SAFE_NO_PAD.encode(signature));
        token
    }
}

type Said = ([(&'static str, &'static str); 1], String);

fn answered(json: &Value) -> Said {
    ([("content-type", "application/json")], json.to_string())
}

async fn discovery(State(provider): State<Arc<Provider>>) -> Said {
    let issuer = &provider.issuer;
    answered(&json!({
        "issuer": issuer,
        "authorization_endpoint": format!("{issuer}/authorize"),
        "token_endpoint": format!("{issuer}/token"),
        "jwks_uri": format!("{issuer}/jwks"),
        "response_types_supported": ["code"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["ES256"],
        "token_endpoint_auth_methods_supported": ["client_secret_post", "client_secret_basic"],
        "scopes_supported": ["openid", "profile", "email", "offline_access"],
        "code_challenge_methods_supported": ["S256"],
        "grant_types_supported": ["authorization_code", "refresh_token"],
    }))
}

async fn keys(State(provider): State<Arc<Provider>>) -> Said {
    let point = provider.key.public_key().as_ref();
    let b64 = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    answered(&json!({ "keys": [{
        "kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": "year",
        "x": b64(&point[1..33]), "y": b64(&point[33..65]),
    }] }))
}

async fn token(State(provider): State<Arc<Provider>>, RawForm(body): RawForm) -> Said {
    let mut pairs = form_urlencoded::parse(&body);
    let code = pairs.find(|(name, _)| name == "code" || name == "refresh_token").unwrap().1;
    let said: Value =
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(code.as_bytes()).unwrap()).unwrap();
    let (nonce, person, session, role) = (&said[0], &said[1], &said[2], &said[3]);
    let now = provider.clock.now().unix();
    let claims = json!({
        "iss": provider.issuer, "aud": "year", "sub": format!("person-{person}"), "sid": session,
        "name": format!("First{person} Last{person}"), "email": format!("first.last.{person}@example.com"),
        "email_verified": true, "roles": [role], "nonce": nonce,
        "auth_time": now, "iat": now, "exp": now + 3600,
    });
    answered(&json!({
        "access_token": "a".repeat(1100),
        "id_token": provider.sign(&claims),
        "refresh_token": URL_SAFE_NO_PAD.encode(said.to_string()),
        "token_type": "Bearer",
        "expires_in": 3600,
        "scope": "openid profile email offline_access",
    }))
}
