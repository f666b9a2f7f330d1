//! Makes a database of the size that the admin pages must bear: `cargo bench --bench seed -- DATABASE_URL
//! [CLIENTS] [GRANTS] [HOURS OF USE]`, for SQLite and PostgreSQL. It is meant for `scripts/measure-admin`, and no part
//! of the product: a bench target, so that it is compiled with optimisations, linted with everything else, and run only
//! on request. A database that has clients is left as it is.
//!
//! The server's own code makes the schema and the key, and writes the audit trail and the usage. The other rows are
//! written past it, a table at a time in one transaction each, by the engine itself where nothing is sealed.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a tool that stops at the first trouble"
)]

use portcullis::clock::{Clock, ManualClock, Timestamp};
use portcullis::oauth::sealed::Purpose;
use portcullis::policy::Facts;
use portcullis::storage::{
    CallCounts, CalledName, Person, Storage, UpstreamTokens, UsageKey, session_id,
};
use portcullis::telemetry::audit::{Actor, AuditEvent};
use sqlx::{AnyConnection, AssertSqlSafe, Connection};

/// The secret key of the configuration that `scripts/measure-admin` writes.
const SECRET_KEY: &[u8] = b"a key for measurements only, and for nothing else";
const ISSUER: &str = "http://127.0.0.1:8002";
const RESOURCES: [&str; 2] = ["http://127.0.0.1:8000/mcp", "https://reports.example.com/mcp"];
/// Grants of one person.
const EACH: u64 = 10;
const FIRST_NAMES: [&str; 8] = ["Ada", "Ben", "Cleo", "Dan", "Eva", "Finn", "Gia", "Hugo"];
const LAST_NAMES: [&str; 8] = ["Adams", "Brown", "Clark", "Diaz", "Evans", "Ford", "Green", "Hall"];

/// What the engines write differently.
#[derive(Clone, Copy)]
enum Dialect {
    Sqlite,
    Postgres,
}

impl Dialect {
    /// Ids begin with their milliseconds, as the server's do.
    fn id(self, millis: &str, number: &str) -> String {
        match self {
            Self::Sqlite => format!("printf('%012x%020x', {millis}, {number})"),
            Self::Postgres => {
                format!("lpad(to_hex({millis}), 12, '0') || lpad(to_hex({number}), 20, '0')")
            }
        }
    }

    /// A text in hexadecimal.
    fn hex(self, text: &str) -> String {
        match self {
            Self::Sqlite => format!("lower(hex({text}))"),
            Self::Postgres => format!("encode(convert_to({text}, 'UTF8'), 'hex')"),
        }
    }

    fn line_feed(self) -> &'static str {
        match self {
            Self::Sqlite => "char(10)",
            Self::Postgres => "chr(10)",
        }
    }

    /// What makes a connection write fast, because nothing is lost if it all begins again.
    fn before(self) -> &'static [&'static str] {
        match self {
            Self::Sqlite => &[
                "PRAGMA busy_timeout = 5000",
                "PRAGMA cache_size = -400000",
                "PRAGMA synchronous = OFF",
            ],
            Self::Postgres => &["SET synchronous_commit = off"],
        }
    }

    /// What the engine does with the rows by itself in the hours after.
    fn after(self) -> &'static str {
        match self {
            Self::Sqlite => "PRAGMA wal_checkpoint(TRUNCATE)",
            Self::Postgres => "VACUUM (ANALYZE)",
        }
    }
}

#[tokio::main]
async fn main() {
    let arguments: Vec<String> =
        std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    let Some(url) = arguments.first() else {
        println!("cargo bench --bench seed -- DATABASE_URL [CLIENTS] [GRANTS] [HOURS OF USE]");
        return;
    };
    let number = |place: usize, otherwise: u64| {
        arguments.get(place).map_or(otherwise, |text| text.parse().unwrap())
    };
    let (clients, grants) = (number(1, 1_000_000), number(2, 200_000));
    let hours = number(3, 1_000_000);
    let dialect = if url.starts_with("postgres") { Dialect::Postgres } else { Dialect::Sqlite };
    let storage = Storage::open(url, Some(SECRET_KEY)).await.unwrap();
    let mut connection = AnyConnection::connect(url).await.unwrap();
    let known = "SELECT COUNT(*) FROM clients WHERE identity = 'seed0'";
    if sqlx::query_scalar::<_, i64>(known).fetch_one(&mut connection).await.unwrap() > 0 {
        println!("the database is filled already");
        return;
    }
    for statement in dialect.before() {
        sqlx::query(*statement).execute(&mut connection).await.unwrap();
    }
    let now = Clock::System.now().unix();
    write(&mut connection, "clients", &clients_sql(dialect, clients, now)).await;
    write(&mut connection, "standings", &standings_sql(clients, now)).await;
    people(&mut connection, &storage, grants / EACH, now).await;
    write(&mut connection, "grants", &grants_sql(dialect, clients, grants, now)).await;
    audit(&storage, clients, grants, now).await;
    usage(&storage, hours, (grants / EACH).max(1), now).await;
    sqlx::query(dialect.after()).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
    storage.close().await;
}

async fn write(connection: &mut AnyConnection, what: &str, sql: &str) {
    let mut transaction = connection.begin().await.unwrap();
    let done = sqlx::query(AssertSqlSafe(sql.to_owned())).execute(&mut *transaction).await.unwrap();
    transaction.commit().await.unwrap();
    println!("{:>9} {what}", done.rows_affected());
}

/// A number for each row, from 0.
fn rows(count: u64) -> String {
    format!(
        "WITH RECURSIVE series (n) AS (SELECT CAST(0 AS BIGINT) UNION ALL SELECT n + 1 FROM series WHERE n + 1 < {count})"
    )
}

fn clients_sql(dialect: Dialect, clients: u64, now: i64) -> String {
    // One registration a second, the newest just now; the hundredth was used an hour later.
    let issued = format!("({now} - {clients} + n)");
    format!(
        "{rows}, made AS (SELECT n, 'Robot ' || n AS name, 'host' || (n % 5000) || '.example.com' AS host,
                                 {issued} AS issued FROM series)
         INSERT INTO clients (id, identity, metadata, issued_at, last_registered_at, last_used_at,
                              kind, name_key, search_text)
         SELECT 'client_' || {id}, 'seed' || n,
                '{{\"client_name\":\"' || name || '\",\"redirect_uris\":[\"https://' || host
                || '/cb\"],\"token_endpoint_auth_method\":\"none\",\"grant_types\":[\"authorization_code\",\"refresh_token\"],\"response_types\":[\"code\"]}}',
                issued, {now}, CASE WHEN n % 100 = 0 THEN {now} END, 'registered',
                {name_key}, lower(name) || {line_feed} || host
         FROM made",
        rows = rows(clients),
        id = dialect.id("issued * 1000", "n"),
        name_key = dialect.hex("lower(name)"),
        line_feed = dialect.line_feed(),
    )
}

fn standings_sql(clients: u64, now: i64) -> String {
    format!(
        "INSERT INTO client_reviews (client_id, state, trusted, blocked, requested_at, changed_at, changed_by)
         SELECT id, CASE issued_at % 5 WHEN 0 THEN 'waiting' WHEN 1 THEN 'refused' ELSE 'approved' END,
                CASE issued_at % 5 WHEN 2 THEN 1 ELSE 0 END, CASE issued_at % 5 WHEN 3 THEN 1 ELSE 0 END,
                issued_at, issued_at, 'seed'
         FROM clients WHERE issued_at % 20 < 5 AND identity LIKE 'seed%' AND {now} - {clients} < issued_at"
    )
}

#[expect(clippy::too_many_lines, reason = "one statement for each table")]
async fn people(connection: &mut AnyConnection, storage: &Storage, people: u64, now: i64) {
    let mut transaction = connection.begin().await.unwrap();
    let sealer = storage.sealer();
    for n in 0..people {
        let place = usize::try_from(n).unwrap();
        let first = FIRST_NAMES[place % 8];
        let last = LAST_NAMES[place / 8 % 8];
        let (upstream, subject) = (format!("seed-{n}"), format!("oidc:seed-{n}"));
        let person = Person {
            name: Some(format!("{first} {last}")),
            email: Some(format!("{first}.{last}.{n}@example.com").to_lowercase()),
            facts: Facts { subject: upstream.clone(), ..Facts::default() },
        };
        let id = session_id(ISSUER, &upstream, None);
        let seal = |column: &str, json: Vec<u8>| {
            sealer.seal(Purpose::Storage, &format!("upstream_sessions.{column}/{id}"), &json)
        };
        let seen = now - i64::try_from(people - n).unwrap();
        sqlx::query(
            "INSERT INTO upstream_sessions (id, upstream, issuer, subject, sid, state, person, tokens, version, last_ok_at, facts_read_at, created_at)
             VALUES ($1, 'oidc', $2, $3, '-', 'active', $4, $5, 1, $6, $6, $6)",
        )
        .bind(&id)
        .bind(ISSUER)
        .bind(&upstream)
        .bind(seal("person", serde_json::to_vec(&person).unwrap()))
        .bind(seal("tokens", serde_json::to_vec(&UpstreamTokens::default()).unwrap()))
        .bind(seen)
        .execute(&mut *transaction)
        .await
        .unwrap();
        sqlx::query(
            "INSERT INTO people (subject, upstream, issuer, upstream_subject, first_seen_at, last_seen_at, blocked_at, blocked_by, words_digest)
             VALUES ($1, 'oidc', $2, $3, $4, $4, $5, $6, 'seed')",
        )
        .bind(&subject)
        .bind(ISSUER)
        .bind(&upstream)
        .bind(seen)
        .bind((n % 200 == 0).then_some(seen))
        .bind((n % 200 == 0).then_some("seed"))
        .execute(&mut *transaction)
        .await
        .unwrap();
        let mut words = std::collections::BTreeSet::new();
        for word in [first.to_lowercase(), last.to_lowercase()] {
            words.extend((3..word.len()).map(|end| word[..end].to_owned()));
            words.insert(word);
        }
        words.extend(person.email);
        for word in words {
            sqlx::query("INSERT INTO people_words (word, subject) VALUES ($1, $2)")
                .bind(sealer.mac(Purpose::Search, &[word.as_bytes()]))
                .bind(&subject)
                .execute(&mut *transaction)
                .await
                .unwrap();
        }
    }
    transaction.commit().await.unwrap();
    println!("{people:>9} people");
}

fn grants_sql(dialect: Dialect, clients: u64, grants: u64, now: i64) -> String {
    let people = (grants / EACH).max(1);
    let created = format!("({now} - {grants} * 30 + n * 30)");
    // Every fifth grant is of one popular client.
    let client = format!("(CASE WHEN n % 5 = 1 THEN 0 ELSE n * 37 % {clients} END)");
    let issued = format!("({now} - {clients} + {client})");
    let [first, second] = RESOURCES;
    format!(
        "{rows}
         INSERT INTO grants (id, client_id, session_id, subject, resource, consented_scopes, created_at,
                             expires_at, last_used_at, revoked_at, end_reason)
         SELECT {id}, 'client_' || {client_id}, s.id,
                'oidc:' || s.subject, CASE WHEN n % 1000 = 0 THEN '{second}' ELSE '{first}' END,
                'create:todos', {created}, {now} + 90 * 86400, {created},
                CASE WHEN n % 4 = 0 THEN {created} + 60 END,
                CASE WHEN n % 4 = 0 THEN 'ended by an administrator' END
         FROM series JOIN upstream_sessions s
              ON s.issuer = '{ISSUER}' AND s.subject = 'seed-' || (n % {people}) AND s.sid = '-'",
        rows = rows(grants),
        id = dialect.id(&format!("{created} * 1000"), "n"),
        client_id = dialect.id(&format!("{issued} * 1000"), &client),
    )
}

/// A trail whose later nine tenths are routine, so that what is worth showing is far from its end. The server's own
/// code writes it: a line that it has not written is never shown.
async fn audit(storage: &Storage, clients: u64, grants: u64, now: i64) {
    let [people, clients, grants] = [(grants / EACH).max(1), clients, grants].map(signed);
    let clock = ManualClock::at(Timestamp::from_unix(now - grants * 30));
    storage.bound_lines_of_people(false);
    let mut events = Vec::new();
    for n in 0..grants {
        let client = n * 37 % clients;
        let client = format!("client_{:012x}{client:020x}", (now - clients + client) * 1000);
        let event = match n % 20 {
            _ if n > grants / 10 => "refresh_rotated",
            0 => "access_denied",
            1 => "page_shown",
            _ => "code_issued",
        };
        let event = AuditEvent::new(event, Actor::Person, &Clock::Manual(clock.clone()));
        let event = event.client(&client).subject(&format!("oidc:seed-{}", n % people));
        events.push(event.resource(RESOURCES[0]));
        clock.advance(30);
        if events.len() == 2000 || n + 1 == grants {
            storage.record(std::mem::take(&mut events)).await.unwrap();
        }
    }
    while storage.settle_audit().await.unwrap() > 0 {}
    println!("{:>9} audit events", storage.audit_head().await.unwrap());
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap()
}

/// So many sums of an hour, over 90 days: each day the same number of people use three of eight tools in four
/// hours each. The server's own code writes them.
async fn usage(storage: &Storage, hours: u64, people: u64, now: i64) {
    const DAYS: u64 = 90;
    const A_PERSON: u64 = 12;
    let each_day = (hours / DAYS / A_PERSON).clamp(1, people);
    let this_hour = now.div_euclid(3600);
    let mut written = 0;
    for day in 0..DAYS {
        let mut rows = Vec::new();
        for person in 0..each_day {
            for turn in 0..A_PERSON {
                let tool = (person + day + turn % 3 * 3) % 8;
                let hour = day * 24 + (person * 5 + turn * 2) % 24;
                let mut counts = CallCounts::default();
                counts.0[0] = i64::try_from(1 + (person + turn) % 17).unwrap();
                counts.0[1] = i64::from((person + turn) % 11 == 0);
                counts.0[3] = i64::from((person + day) % 29 == 0);
                let key = UsageKey {
                    hour: this_hour - i64::try_from(hour).unwrap(),
                    resource: RESOURCES[usize::from(tool == 7)].to_owned(),
                    subject: format!("oidc:seed-{person}"),
                    client_id: format!("client_{:032x}", person % 50),
                    called: CalledName::Tool(format!("tool-{tool}")),
                };
                rows.push((key, counts));
            }
        }
        for rows in rows.chunks(2000) {
            storage.add_usage(rows).await.unwrap();
        }
        written += rows.len();
    }
    println!("{written:>9} hours of use");
}
