//! Connections to PostgreSQL: all in use, or none to be had. Busy is not down.

use futures_util::future::join_all;
use serde_json::json;
use sqlx::{AssertSqlSafe, Connection};

use crate::harness::logs;
use crate::harness::{Setup, TestApp};

/// Longest wait for what happens at once on a machine that is not busy.
const A_WHILE: std::time::Duration = std::time::Duration::from_secs(20);

fn no_rates(more: &str) -> Setup {
    Setup::toml(format!("[limits]\nrequest_rates = false\n{more}"))
}

/// Somebody who holds rows or tables, and sees who waits.
struct Holder(sqlx::AnyConnection);

impl Holder {
    async fn of(app: &TestApp, statement: &str) -> Self {
        let mut connection = sqlx::AnyConnection::connect(&app.database.url).await.unwrap();
        sqlx::raw_sql("BEGIN").execute(&mut connection).await.unwrap();
        let statement = AssertSqlSafe(statement.to_owned());
        sqlx::raw_sql(statement).execute(&mut connection).await.unwrap();
        Self(connection)
    }

    async fn until_waiting(&mut self, sessions: i64) {
        let waiting = "SELECT COUNT(DISTINCT pid) FROM pg_locks WHERE NOT granted
                       AND pg_backend_pid() = ANY(pg_blocking_pids(pid))";
        let connection = &mut self.0;
        while sqlx::query_scalar::<_, i64>(waiting).fetch_one(&mut *connection).await.unwrap()
            < sessions
        {}
    }

    async fn release(mut self) {
        sqlx::raw_sql("ROLLBACK").execute(&mut self.0).await.unwrap();
        self.0.close().await.unwrap();
    }
}

#[tokio::test]
async fn callers_behind_one_row_leave_connections_for_everybody_who_only_reads() {
    let app = TestApp::with(no_rates("database_connections = 6")).await;
    if !app.database.is_postgres() {
        return;
    }
    let (client, tokens) = app.tokens_of("bob").await;
    let (others, theirs) = app.tokens_of("alice").await;
    // Whoever writes there waits, each on a connection of its own; whoever reads does not.
    let mut holder = Holder::of(&app, "LOCK TABLE refresh_tokens IN SHARE MODE").await;

    let waiting = join_all((0..30).map(|_| client.refresh(&tokens.refresh_token)));
    let served = async {
        holder.until_waiting(2).await;
        app.advance(90); // nothing that is remembered is new enough
        app.http.get(&app.at("/.well-known/jwks.json")).await.assert_status(200);
        let ready = app.http.get(&app.at("/ready")).await;
        assert_eq!(ready.assert_status(200).json()["database"], "ok");
        others.call_tool(&theirs.access_token, "get-todos", json!({})).await.assert_status(200);
        others.ask(&[]).await;
        // Whoever must write and gets no connection reads 503, and the log does not call it an outage.
        others.refresh(&theirs.refresh_token).await
    };
    let (answers, refused) = tokio::join!(waiting, served);

    refused.assert_error(503, "temporarily_unavailable");
    assert!(refused.header("retry-after").is_some());
    for answer in answers {
        answer.assert_error(503, "temporarily_unavailable");
    }
    assert!(logs::all().contains("the database is busy: requests are answered 503"));
    holder.release().await;
    app.advance(5);
    client.refresh(&tokens.refresh_token).await.assert_status(200);
    others.refresh(&theirs.refresh_token).await.assert_status(200);
}

/// A role for a test, which may have so many connections; its URL.
async fn role_with(app: &TestApp, connections: u32) -> String {
    let name = format!("few_{:x}", u128::from_be_bytes(portcullis::oauth::secret::random_bytes()));
    for statement in [
        format!("CREATE ROLE {name} LOGIN CONNECTION LIMIT {connections}"),
        format!("GRANT ALL ON ALL TABLES IN SCHEMA {} TO {name}", app.database.schema_name()),
        format!("GRANT USAGE ON SCHEMA {} TO {name}", app.database.schema_name()),
    ] {
        app.database.execute(&statement).await;
    }
    app.database.url.replace("portcullis@", &format!("{name}@"))
}

#[tokio::test]
async fn a_role_with_few_connections_serves_with_these_and_the_log_says_why_there_are_no_more() {
    let mut app = TestApp::with(no_rates("")).await;
    if !app.database.is_postgres() {
        return;
    }
    let (client, tokens) = app.tokens_of("bob").await;
    let url = role_with(&app, 6).await;
    let before = app.database.url.clone();
    app.change_config(&before, &url);
    app.restart().await;

    let answers =
        join_all((0..40).map(|_| client.rpc(&tokens.access_token, "tools/list", json!({}))));
    let registered = join_all((0..40).map(|n| {
        let metadata =
            json!({ "client_name": n.to_string(), "redirect_uris": ["http://127.0.0.1/"] });
        let app = &app;
        async move { app.http.post_json(&app.at("/register"), &metadata, &[]).await.status }
    }));
    let (answers, registered) = tokio::join!(answers, registered);

    assert!(answers.iter().all(|answer| answer.status == 200 || answer.status == 429));
    assert!(registered.iter().all(|status| *status == 201), "{registered:?}");
    let log = logs::all();
    assert!(log.contains("SQLSTATE 53300") && log.contains("limits.database_connections"));
    app.advance(5);
    app.http.get(&app.at("/ready")).await.assert_status(200);
}

#[tokio::test]
async fn a_replica_opens_no_more_connections_than_it_may() {
    let app = TestApp::with(no_rates("database_connections = 7")).await;
    if !app.database.is_postgres() {
        return;
    }
    let (client, tokens) = app.tokens_of("bob").await;
    let ours = format!(
        "SELECT COUNT(*) FROM pg_stat_activity WHERE application_name = 'portcullis'
         AND pid IN (SELECT pid FROM pg_locks l JOIN pg_class c ON c.oid = l.relation
                     JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = '{}')",
        app.database.schema_name()
    );
    let mut holder = Holder::of(&app, "LOCK TABLE grants IN ACCESS EXCLUSIVE MODE").await;

    let asked = join_all((0..40).map(|_| client.refresh(&tokens.refresh_token)));
    let counted = async {
        // On a busy machine, all of them may have given up before the first look.
        let _ = tokio::time::timeout(A_WHILE, holder.until_waiting(1)).await;
        let mut most = 0;
        for _ in 0..100 {
            most = most.max(app.database.number_of(&ours).await);
        }
        most
    };
    let (_, most) = tokio::join!(asked, counted);

    assert!(most <= 7, "{most}");
    holder.release().await;
}

/// What a start says when it is not let in, by what PostgreSQL calls it.
#[tokio::test]
async fn a_start_that_is_not_let_in_says_why() {
    let app = TestApp::start().await;
    if !app.database.is_postgres() {
        return;
    }
    let url = app.database.url.clone();
    let full = role_with(&app, 0).await;
    let gone = url.replace("/postgres?", "/not_there?");
    let nobody = url.replace("portcullis@", "nobody_of_this_name@");
    for (url, says) in [
        (full, "limits.database_connections"),
        (gone, "the database in database_url does not exist"),
        (nobody, "may not connect from here"),
    ] {
        let refused = portcullis::storage::Storage::open(&url, Some(&[7; 32])).await;
        let said = refused.err().map(|cause| cause.to_string()).unwrap_or_default();
        assert!(said.contains(says) && said.contains("SQLSTATE"), "{said}");
        assert!(!said.contains("at line"), "{said}");
    }
}

/// Keys that were published once are published on, whatever becomes of the database.
#[tokio::test]
async fn keys_are_published_while_the_database_hangs() {
    let app = TestApp::start().await;
    if !app.database.is_postgres() {
        return;
    }
    let keys = app.http.get(&app.at("/.well-known/jwks.json")).await;
    let mut holder = Holder::of(&app, "LOCK TABLE signing_keys IN ACCESS EXCLUSIVE MODE").await;
    app.advance(120);

    let url = app.at("/.well-known/jwks.json");
    let first = app.http.get(&url);
    let waits = holder.until_waiting(1);
    let (again, ()) = tokio::join!(first, waits);
    holder.until_waiting(1).await; // it still hangs, and the answer was there
    let others = app.http.get(&app.at("/.well-known/jwks.json")).await;
    holder.until_waiting(1).await;

    assert_eq!((again.text(), others.text()), (keys.text(), keys.text()));
    holder.release().await;
}
