//! What PostgreSQL rolled back because of another transaction is repeated, and happens once.
//!
//! Triggers of the test's schema raise the errors. A sequence counts them, because it does not roll back.

use std::collections::BTreeSet;

use futures_util::future::join_all;
use serde_json::json;
use sqlx::{AssertSqlSafe, Connection};

use crate::harness::client::Tokens;
use crate::harness::http::Answer;
use crate::harness::{Setup, TestApp, logs};

const SERIALIZATION: &str = "portcullis_database_retries_total{cause=\"serialization\"}";
const DEADLOCK: &str = "portcullis_database_retries_total{cause=\"deadlock\"}";

/// Where the error is raised.
#[derive(Clone, Copy, Debug, PartialEq)]
enum At {
    Statement,
    Commit,
}

async fn start() -> Option<TestApp> {
    let limits = "[limits]\nrequest_rates = false\ngrace_replays = 1000";
    let app = TestApp::with(Setup::toml(limits.to_owned())).await;
    app.database.is_postgres().then_some(app)
}

/// Writes of these tables fail with this SQLSTATE, whenever `condition` is true of `n`, the number of the
/// write.
async fn fail_writes(app: &TestApp, tables: &[&str], at: At, code: &str, condition: &str) {
    app.database.execute("CREATE SEQUENCE writes").await;
    let function = format!(
        "CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$
         DECLARE n BIGINT := nextval('writes');
         BEGIN
             IF {condition} THEN RAISE EXCEPTION 'injected' USING ERRCODE = '{code}'; END IF;
             RETURN COALESCE(NEW, OLD);
         END $$"
    );
    app.database.execute(&function).await;
    for table in tables {
        let trigger = match at {
            At::Statement => format!(
                "CREATE TRIGGER fail BEFORE INSERT OR UPDATE OR DELETE ON {table}
                 FOR EACH ROW EXECUTE FUNCTION fail()"
            ),
            At::Commit => format!(
                "CREATE CONSTRAINT TRIGGER fail AFTER INSERT OR UPDATE OR DELETE ON {table}
                 DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION fail()"
            ),
        };
        app.database.execute(&trigger).await;
    }
}

async fn stop_failing(app: &TestApp) {
    app.database.execute("DROP FUNCTION fail() CASCADE").await;
    app.database.execute("DROP SEQUENCE writes").await;
}

/// The number of writes so far, those that failed included.
async fn writes(app: &TestApp) -> i64 {
    app.database.number("SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM writes").await
}

async fn recorded(app: &TestApp, event: &str) -> i64 {
    let sql = format!("SELECT COUNT(*) FROM audit_events WHERE event = '{event}'");
    app.database.number_of(&sql).await
}

/// The whole life of a connection, while the first writes of every table that it needs fail.
#[tokio::test]
async fn everything_succeeds_and_happens_once_whatever_loses_to_another_transaction() {
    for (code, series) in [("40001", SERIALIZATION), ("40P01", DEADLOCK)] {
        for at in [At::Statement, At::Commit] {
            let Some(app) = start().await else { return };
            for tables in [
                &["clients", "logins"] as &[&str],
                &["grants", "authorization_codes", "people"],
                &["refresh_tokens", "upstream_sessions"],
                &["audit_events"],
            ] {
                // Read first: a write of a background task may fail as soon as the triggers exist.
                let before = app.metrics().await[series];
                fail_writes(&app, tables, at, code, "n IN (1, 2, 4, 6, 9)").await;
                let events =
                    ["client_registered", "code_redeemed", "refresh_rotated", "grant_revoked"];
                let had = join_all(events.map(|event| recorded(&app, event))).await;

                let client = app.client_named(&tables.join(" ")).await;
                let tokens = client.sign_in("bob").await;
                let next = Tokens::of(&client.refresh(&tokens.refresh_token).await);
                client
                    .call_tool(&next.access_token, "get-todos", json!({}))
                    .await
                    .assert_status(200);
                client.revoke(&next.refresh_token).await.assert_status(200);
                client.refresh(&next.refresh_token).await.assert_error(400, "invalid_grant");

                let has = join_all(events.map(|event| recorded(&app, event))).await;
                for ((event, had), has) in events.iter().zip(had).zip(has) {
                    assert_eq!(has - had, 1, "{event}, {tables:?} {code} {at:?}");
                }
                assert!(writes(&app).await > 2, "{tables:?} {at:?}");
                let repeated = app.metrics().await[series] - before;
                assert!(repeated > 1.5, "{repeated} {tables:?} {code} {at:?}");
                stop_failing(&app).await;
            }
        }
    }
}

#[tokio::test]
async fn endless_failures_are_answered_503_and_change_nothing() {
    for at in [At::Statement, At::Commit] {
        let Some(app) = start().await else { return };
        let (client, tokens) = app.tokens_of("bob").await;
        let used = "SELECT COUNT(*) FROM refresh_tokens WHERE used_at IS NOT NULL";
        let all = "SELECT COUNT(*) FROM refresh_tokens";
        let (had_used, had) = (app.database.number(used).await, app.database.number(all).await);
        fail_writes(&app, &["audit_events"], at, "40001", "TRUE").await;

        let refused = client.refresh(&tokens.refresh_token).await;
        refused.assert_error(503, "temporarily_unavailable");
        assert!(refused.header("retry-after").is_some());
        client.revoke(&tokens.refresh_token).await.assert_error(503, "temporarily_unavailable");
        let register = json!({ "redirect_uris": ["http://127.0.0.1/"] });
        let registered = app.http.post_json(&app.at("/register"), &register, &[]).await;
        registered.assert_status(503);

        assert_eq!(app.database.number(used).await, had_used, "{at:?}");
        assert_eq!(app.database.number(all).await, had, "{at:?}");
        assert!(logs::all().contains("SQLSTATE 40001"));
        stop_failing(&app).await;
        let next = Tokens::of(&client.refresh(&tokens.refresh_token).await);
        client.call_tool(&next.access_token, "get-todos", json!({})).await.assert_status(200);
        assert_eq!(recorded(&app, "refresh_rotated").await, 1);
    }
}

/// An error that does not say that nothing was committed, and one that would come again.
#[tokio::test]
async fn other_errors_are_not_repeated() {
    for code in ["40003", "08007", "57014", "23514"] {
        let Some(app) = start().await else { return };
        let (client, tokens) = app.tokens_of("bob").await;
        fail_writes(&app, &["refresh_tokens"], At::Commit, code, "TRUE").await;
        let status = client.refresh(&tokens.refresh_token).await.status;
        assert!(status == 503 || status == 500, "{code}: {status}");
        assert_eq!(writes(&app).await, 1, "{code}");
        let metrics = app.metrics().await;
        assert!(metrics[SERIALIZATION] + metrics[DEADLOCK] < 0.5);
    }
}

#[tokio::test]
async fn a_hundred_refreshes_of_one_token_that_keep_losing_have_one_successor() {
    let Some(app) = start().await else { return };
    let (client, tokens) = app.tokens_of("bob").await;
    let had = app.database.number("SELECT COUNT(*) FROM refresh_tokens").await;
    fail_writes(
        &app,
        &["refresh_tokens", "grants", "audit_events"],
        At::Statement,
        "40001",
        "n % 7 = 0",
    )
    .await;

    let answers = client.refresh_at_once(&tokens.refresh_token, 100).await;

    let successors: BTreeSet<String> = answers
        .iter()
        .filter(|answer| answer.status == 200)
        .map(|answer| Tokens::of(answer).refresh_token)
        .collect();
    let statuses: Vec<u16> = answers.iter().map(|answer| answer.status.as_u16()).collect();
    assert_eq!(successors.len(), 1, "{statuses:?}");
    assert!(statuses.iter().all(|status| *status == 200), "{statuses:?}");
    let has = app.database.number("SELECT COUNT(*) FROM refresh_tokens").await;
    assert_eq!(has - had, 1);
    assert_eq!(recorded(&app, "refresh_rotated").await, 1);
    assert_eq!(recorded(&app, "refresh_reused").await, 0);
    stop_failing(&app).await;
    let successor = successors.first().unwrap();
    client.refresh(successor).await.assert_status(200);
}

/// A session that takes the rows of a refresh in the other order.
struct Opponent(sqlx::AnyConnection);

impl Opponent {
    async fn holding(app: &TestApp, statement: &str) -> Self {
        let mut connection = sqlx::AnyConnection::connect(&app.database.url).await.unwrap();
        sqlx::raw_sql("BEGIN").execute(&mut connection).await.unwrap();
        let mut opponent = Self(connection);
        opponent.execute(statement).await;
        opponent
    }

    async fn execute(&mut self, statement: &str) {
        assert!(self.try_execute(statement).await, "{statement}");
    }

    /// Whether the statement succeeded. It may only fail as the victim of a deadlock.
    async fn try_execute(&mut self, statement: &str) -> bool {
        let sql = AssertSqlSafe(statement.to_owned());
        let Err(error) = sqlx::raw_sql(sql).execute(&mut self.0).await else { return true };
        let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code);
        assert_eq!(code.as_deref(), Some("40P01"), "{statement}: {error}");
        false
    }

    async fn until_waited_for(&mut self) {
        let waiting = "SELECT COUNT(*) FROM pg_locks WHERE NOT granted
                       AND pg_backend_pid() = ANY(pg_blocking_pids(pid))";
        while sqlx::query_scalar::<_, i64>(waiting).fetch_one(&mut self.0).await.unwrap() == 0 {}
    }
}

/// A refresh that got into a deadlock with a session that ran `first`, then `second`, and was its victim.
///
/// PostgreSQL ends the transaction of the session that detects the deadlock. On a busy machine that may be the
/// opponent; then the refresh proves nothing, and the test starts again.
async fn victim_of_a_deadlock(first: &str, second: &str) -> Option<(TestApp, Answer)> {
    for _ in 0..20 {
        let app = start().await?;
        let (client, tokens) = app.tokens_of("bob").await;
        let mut opponent = Opponent::holding(&app, first).await;
        let refreshed = client.refresh(&tokens.refresh_token);
        let opposed = async {
            opponent.until_waited_for().await;
            let won = opponent.try_execute(second).await;
            opponent.execute(if won { "COMMIT" } else { "ROLLBACK" }).await;
            won
        };
        let (refreshed, won) = tokio::join!(refreshed, opposed);
        if won {
            return Some((app, refreshed));
        }
    }
    panic!("the refresh was never the victim");
}

#[tokio::test]
async fn the_victim_of_a_real_deadlock_succeeds_when_nothing_has_changed() {
    let first = "SELECT 1 FROM grants FOR UPDATE";
    let second = "SELECT 1 FROM refresh_tokens FOR UPDATE";
    let Some((app, refreshed)) = victim_of_a_deadlock(first, second).await else { return };

    Tokens::of(&refreshed);
    assert!(app.metrics().await[DEADLOCK] > 0.5);
    assert_eq!(recorded(&app, "refresh_rotated").await, 1);
}

/// The repetition finds another row than the first attempt did: it decides again, and the revocation wins.
#[tokio::test]
async fn the_victim_of_a_real_deadlock_decides_again_when_something_has_changed() {
    let first = "UPDATE grants SET revoked_at = 1795219200, end_reason = 'a test'";
    let second = "UPDATE refresh_tokens SET used_at = 1795219200";
    let Some((app, refreshed)) = victim_of_a_deadlock(first, second).await else { return };

    refreshed.assert_error(400, "invalid_grant");
    assert!(app.metrics().await[DEADLOCK] > 0.5);
    assert_eq!(recorded(&app, "refresh_rotated").await, 0);
    assert_eq!(app.database.number("SELECT COUNT(*) FROM refresh_tokens").await, 1);
}

/// A failover that leaves the connection open: the server takes no writes any more.
#[tokio::test]
async fn a_connection_to_a_server_that_takes_no_writes_is_replaced() {
    let Some(app) = start().await else { return };
    let (client, tokens) = app.tokens_of("bob").await;
    // As if this one session were on a server that was demoted.
    app.database.execute("CREATE TABLE demoted (pid INT)").await;
    let demoted = "EXISTS (SELECT 1 FROM demoted WHERE pid = pg_backend_pid())";
    fail_writes(&app, &["refresh_tokens"], At::Statement, "25006", demoted).await;
    let all = "INSERT INTO demoted SELECT pid FROM pg_stat_activity WHERE application_name = 'portcullis'";
    app.database.execute(all).await;

    // Each request that fails gives up one connection, and new ones are admitted.
    let mut statuses = Vec::new();
    for _ in 0..20 {
        statuses.push(client.refresh(&tokens.refresh_token).await.status.as_u16());
    }
    assert!(statuses.contains(&503) && statuses.ends_with(&[200]), "{statuses:?}");
}
