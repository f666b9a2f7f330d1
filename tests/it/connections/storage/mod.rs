//! What is stored of connections: each step is atomic, whoever does it at the same time.

mod attempts;
mod leases;
mod put;
mod revocations;
mod sessions;

use std::collections::BTreeSet;

use portcullis::clock::{Clock, ManualClock, Timestamp};
use portcullis::oauth::secret::{BrowserBinding, ConnectState, Secret, new_id};
use portcullis::storage::{
    AttemptClaim, AttemptComer, AttemptRequest, Begun, Connection, ConnectionState, NewAttempt,
    NewConnection, PutConnection, Retention, ServiceTokens, Storage,
};
use portcullis::telemetry::audit::{Actor, AuditEvent};

use crate::harness::database::Database;

const KEY: &[u8] = b"a test key that is long enough to be one, 0123456789";
const BOB: &str = "oidc:bob";

/// A storage without a server, so that nobody else takes what waits in it.
struct Store {
    database: Database,
    storage: Storage,
    clock: ManualClock,
}

/// An attempt in the browser that began it.
struct Attempted {
    state: Secret<ConnectState>,
    binding: Secret<BrowserBinding>,
}

impl Attempted {
    /// Comes back as `subject` to the callback of `name`.
    fn comer<'a>(&'a self, subject: &'a str, name: &'a str) -> AttemptComer<'a> {
        AttemptComer { binding: Some(&self.binding), subject, name }
    }
}

impl Store {
    async fn new() -> Self {
        let database = Database::new().await;
        let storage = Storage::open(&database.url, Some(KEY)).await.unwrap();
        let clock = ManualClock::at(Timestamp::from_unix(1_800_000_000));
        let store = Self { database, storage, clock };
        for person in ["bob", "alice"] {
            let sql = format!(
                "INSERT INTO people
                     (subject, upstream, issuer, upstream_subject, first_seen_at, last_seen_at)
                 VALUES ('oidc:{person}', 'oidc', 'https://idp.example', '{person}', 1, 1)"
            );
            store.database.execute(&sql).await;
        }
        store
    }

    fn now(&self) -> Timestamp {
        self.clock.now()
    }

    fn event(&self, name: &'static str) -> AuditEvent {
        AuditEvent::new(name, Actor::Person, &Clock::Manual(self.clock.clone()))
    }

    async fn lines(&self, event: &str) -> i64 {
        let sql = format!("SELECT COUNT(*) FROM audit_events WHERE event = '{event}'");
        self.database.number_of(&sql).await
    }

    /// Begins an attempt of five minutes.
    async fn begin(&self, subject: &str, name: &str) -> Result<Attempted, Begun> {
        let id = new_id(&Clock::Manual(self.clock.clone()));
        let attempted = Attempted { state: Secret::generate(&id), binding: Secret::generate(&id) };
        let request = AttemptRequest {
            verifier: "verifier-canary".to_owned(),
            nonce: "nonce".to_owned(),
            return_to: "/connect/github".to_owned(),
        };
        let new = NewAttempt {
            state: &attempted.state,
            binding: attempted.binding.hash(),
            subject,
            web_session_id: "session",
            name,
            scopes: &words("read write"),
            resource: "https://todo.example/mcp",
            request: &request,
            expires_at: self.now().plus(std::time::Duration::from_mins(5)),
        };
        match self.storage.begin_connection(&new, self.now()).await.unwrap() {
            Begun::Started => Ok(attempted),
            full @ Begun::TooMany { .. } => Err(full),
        }
    }

    async fn take(&self, attempted: &Attempted, comer: AttemptComer<'_>) -> AttemptClaim {
        let event = self.event("connection_refused").subject(comer.subject);
        self.storage.take_attempt(&attempted.state, comer, self.now(), event).await.unwrap()
    }

    /// An attempt that came back: its id.
    async fn came_back(&self, subject: &str, name: &str) -> String {
        let attempted = self.begin(subject, name).await.unwrap();
        match self.take(&attempted, attempted.comer(subject, name)).await {
            AttemptClaim::First(attempt) => attempt.id,
            other => panic!("{other:?}"),
        }
    }

    async fn put(&self, attempt_id: &str, new: &NewConnection) -> PutConnection {
        let event = self.event("connection_made");
        self.storage.put_connection(attempt_id, new, self.now(), event).await.unwrap()
    }

    /// The person connects the service.
    async fn connect(&self, new: &NewConnection) -> PutConnection {
        let attempt = self.came_back(&new.subject, &new.name).await;
        self.put(&attempt, new).await
    }

    async fn connection(&self, subject: &str, name: &str) -> Option<Connection> {
        self.storage.connection(subject, name).await.unwrap()
    }

    async fn bobs(&self) -> Connection {
        self.connection(BOB, "github").await.expect("connected")
    }

    async fn remove(&self, subject: &str, name: &str) -> bool {
        let event = self.event("connection_removed");
        self.storage.remove_connection(subject, name, self.now(), event).await.unwrap()
    }

    async fn sweep(&self) {
        let day = std::time::Duration::from_hours(24);
        let keep = Retention {
            unused_client: day,
            idle_client: day * 90,
            audit: day * 400,
            refused_person: day,
            refresh_idle: std::time::Duration::from_hours(1),
            rows: 3,
        };
        while self.storage.sweep(self.now(), keep).await.unwrap() > 0 {}
    }
}

fn words(text: &str) -> BTreeSet<String> {
    text.split(' ').map(str::to_owned).collect()
}

fn tokens(access: &str, refresh: Option<&str>) -> ServiceTokens {
    ServiceTokens {
        access_token: access.to_owned(),
        refresh_token: refresh.map(str::to_owned),
        token_type: "Bearer".to_owned(),
    }
}

/// Bob's connection of GitHub, as the account `octocat`.
fn github() -> NewConnection {
    NewConnection {
        subject: BOB.to_owned(),
        name: "github".to_owned(),
        provider_key: "key-of-github".to_owned(),
        account_key: Some("1".to_owned()),
        account_label: Some("octocat".to_owned()),
        scopes: words("read write"),
        tokens: tokens("access-canary", Some("refresh-canary")),
        access_until: Some(Timestamp::from_unix(1_800_003_600)),
    }
}

fn is_broken(connection: &Connection) -> bool {
    matches!(connection.state, ConnectionState::Broken { .. })
}
