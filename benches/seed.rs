//! Makes a database of the size that the admin pages must bear: `cargo bench --bench seed -- FOLDER
//! [CLIENTS] [GRANTS] [HOURS OF USE]`. It is meant for `portcullis demo --data FOLDER`, and no part of the product: a
//! bench target, so that it is compiled with optimisations, linted with everything else, and run by nobody
//! who has not asked for it.
//!
//! The server's own code makes the schema and the key. The rows are then written past it, a table at a
//! time in one transaction each, by the engine itself where nothing is sealed.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a tool that stops at the first trouble"
)]

use std::path::PathBuf;

use portcullis::oauth::sealed::Purpose;
use portcullis::policy::Facts;
use portcullis::storage::{
    CallCounts, CalledName, Person, Storage, UpstreamTokens, UsageKey, session_id,
};
use sqlx::{AnyConnection, AssertSqlSafe, Connection};

const ISSUER: &str = "http://127.0.0.1:8002";
const RESOURCES: [&str; 2] = ["http://127.0.0.1:8000/mcp", "https://reports.example.com/mcp"];
/// Grants of one person.
const EACH: u64 = 10;
const FIRST_NAMES: [&str; 8] = ["Ada", "Ben", "Cleo", "Dan", "Eva", "Finn", "Gia", "Hugo"];
const LAST_NAMES: [&str; 8] = ["Adams", "Brown", "Clark", "Diaz", "Evans", "Ford", "Green", "Hall"];

#[tokio::main]
async fn main() {
    let arguments: Vec<String> =
        std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    let Some(folder) = arguments.first() else {
        println!("cargo bench --bench seed -- FOLDER [CLIENTS] [GRANTS] [HOURS OF USE]");
        return;
    };
    let number = |place: usize, otherwise: u64| {
        arguments.get(place).map_or(otherwise, |text| text.parse().unwrap())
    };
    let (clients, grants) = (number(1, 1_000_000), number(2, 200_000));
    let hours = number(3, 1_000_000);
    std::fs::create_dir_all(folder).unwrap();
    let url = format!("sqlite://{}", PathBuf::from(folder).join("portcullis.db").display());
    let storage = Storage::open(&url, None).await.unwrap();
    let now = portcullis::clock::Clock::System.now().unix();
    let mut connection = AnyConnection::connect(&url).await.unwrap();
    for pragma in
        ["PRAGMA busy_timeout = 5000", "PRAGMA cache_size = -400000", "PRAGMA synchronous = OFF"]
    {
        sqlx::query(pragma).execute(&mut connection).await.unwrap();
    }
    write(&mut connection, "clients", &clients_sql(clients, now)).await;
    write(&mut connection, "standings", &standings_sql(clients, now)).await;
    people(&mut connection, &storage, grants / EACH, now).await;
    write(&mut connection, "grants", &grants_sql(clients, grants, now)).await;
    write(&mut connection, "audit events", &audit_sql(clients, grants, now)).await;
    sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)").execute(&mut connection).await.unwrap();
    while storage.settle_audit().await.unwrap() > 0 {}
    usage(&storage, hours, (grants / EACH).max(1), now).await;
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
        "WITH RECURSIVE row (n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM row WHERE n + 1 < {count})"
    )
}

/// Ids begin with their milliseconds, as the server's do.
fn id(millis: &str) -> String {
    format!("printf('%012x%020x', {millis}, n)")
}

fn clients_sql(clients: u64, now: i64) -> String {
    // One registration a second, the newest just now; the hundredth was used an hour later.
    let issued = format!("({now} - {clients} + n)");
    format!(
        "{rows}, made AS (SELECT n, 'Robot ' || n AS name, 'host' || (n % 5000) || '.example.com' AS host,
                                 {issued} AS issued FROM row)
         INSERT INTO clients (id, identity, metadata, issued_at, last_registered_at, last_used_at,
                              kind, name_key, search_text)
         SELECT 'client_' || {id}, 'seed' || n,
                '{{\"client_name\":\"' || name || '\",\"redirect_uris\":[\"https://' || host
                || '/cb\"],\"token_endpoint_auth_method\":\"none\",\"grant_types\":[\"authorization_code\",\"refresh_token\"],\"response_types\":[\"code\"]}}',
                issued, {now}, CASE WHEN n % 100 = 0 THEN {now} END, 'registered',
                lower(hex(lower(name))), lower(name) || char(10) || host
         FROM made",
        rows = rows(clients),
        id = id("issued * 1000"),
    )
}

fn standings_sql(clients: u64, now: i64) -> String {
    format!(
        "INSERT INTO client_reviews (client_id, state, trusted, blocked, requested_at, changed_at, changed_by)
         SELECT id, CASE issued_at % 5 WHEN 0 THEN 'waiting' WHEN 1 THEN 'refused' ELSE 'approved' END,
                issued_at % 5 = 2, issued_at % 5 = 3, issued_at, issued_at, 'seed'
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

fn grants_sql(clients: u64, grants: u64, now: i64) -> String {
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
         SELECT {id}, 'client_' || printf('%012x%020x', {issued} * 1000, {client}), s.id,
                'oidc:' || s.subject, CASE WHEN n % 1000 = 0 THEN '{second}' ELSE '{first}' END,
                'create:todos', {created}, {now} + 90 * 86400, {created},
                CASE WHEN n % 4 = 0 THEN {created} + 60 END,
                CASE WHEN n % 4 = 0 THEN 'ended by an administrator' END
         FROM row JOIN upstream_sessions s
              ON s.issuer = '{ISSUER}' AND s.subject = 'seed-' || (n % {people}) AND s.sid = '-'",
        rows = rows(grants),
        id = id(&format!("{created} * 1000")),
    )
}

/// A trail whose later nine tenths are routine, so that what is worth showing is far from its end.
fn audit_sql(clients: u64, grants: u64, now: i64) -> String {
    let people = (grants / EACH).max(1);
    let at = format!("(({now} - {grants} * 30 + n * 30) * 1000)");
    let client = format!("(n * 37 % {clients})");
    let issued = format!("({now} - {clients} + {client})");
    format!(
        "{rows}
         INSERT INTO audit_events (id, at, event, actor, client_id, subject, resource, detail)
         SELECT {id}, {at},
                CASE WHEN n > {grants} / 10 THEN 'refresh_rotated' WHEN n % 20 = 0 THEN 'access_denied'
                     WHEN n % 20 = 1 THEN 'page_shown' ELSE 'code_issued' END,
                'person', 'client_' || printf('%012x%020x', {issued} * 1000, {client}),
                'oidc:seed-' || (n % {people}), '{resource}', '{{}}'
         FROM row",
        rows = rows(grants),
        id = id(&at),
        resource = RESOURCES[0],
    )
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
