//! The steps that every client takes are one statement each on PostgreSQL
//! (`src/storage/single_statements/`), and such a statement does all of its step or nothing.

use sqlx::Connection;

use crate::harness::client::Tokens;
use crate::harness::{Setup, TestApp};

async fn app() -> Option<TestApp> {
    let app = TestApp::with(Setup::toml("[limits]\nrequest_rates = false")).await;
    app.database.is_postgres().then_some(app)
}

/// Returns how many rows of a table the first command of its transaction wrote. In a step of several statements,
/// that is not so for the rows of the later ones.
async fn written_first(app: &TestApp, table: &str, which: &str) -> i64 {
    let sql = format!("SELECT COUNT(*) FROM {table} WHERE CAST(cmin AS TEXT) = '0' AND {which}");
    app.database.number_of(&sql).await
}

#[tokio::test]
async fn what_every_client_does_is_one_statement_each() {
    let Some(app) = app().await else { return };
    let client = app.client().await;
    let counted = "name LIKE 'clients/%' AND value = 1";
    assert_eq!(written_first(&app, "counters", counted).await, 1, "a registration");
    let idp = client.approve(&[]).await;
    assert_eq!(written_first(&app, "logins", "ended_at IS NULL").await, 1, "an approval");
    let back = client.log_in(&idp, "bob").await;
    let code = client.browser.get(&back).await.location_param("code").unwrap();
    assert_eq!(written_first(&app, "authorization_codes", "1 = 1").await, 1, "a login");
    let tokens = Tokens::of(&client.redeem(&code).await);
    assert_eq!(written_first(&app, "refresh_tokens", "parent_id IS NULL").await, 1, "a code");
    client.refresh(&tokens.refresh_token).await.assert_status(200);
    assert_eq!(written_first(&app, "refresh_tokens", "parent_id IS NOT NULL").await, 1, "a token");
    client.code("bob").await; // so that the person is known
    let unused = "redeemed_at IS NULL";
    assert_eq!(written_first(&app, "authorization_codes", unused).await, 1, "another login");
    for (event, lines) in
        [("consent_approved", 2), ("code_issued", 2), ("code_redeemed", 1), ("refresh_rotated", 1)]
    {
        let sql = format!("SELECT COUNT(*) FROM audit_events WHERE event = '{event}'");
        assert_eq!(app.database.number_of(&sql).await, lines, "{event}");
    }
}

/// Runs `change` in a transaction of its own, commits it once `request` waits for it, and returns the answer.
async fn while_it_waits<T: Send + 'static>(
    app: &TestApp,
    change: &'static str,
    request: impl Future<Output = T> + Send + 'static,
) -> T {
    let mut other = sqlx::AnyConnection::connect(&app.database.url).await.unwrap();
    sqlx::raw_sql("BEGIN").execute(&mut other).await.unwrap();
    sqlx::raw_sql(change).execute(&mut other).await.unwrap();
    let asking = tokio::spawn(request);
    let waiting = "SELECT COUNT(DISTINCT pid) FROM pg_locks WHERE NOT granted
                   AND pg_backend_pid() = ANY(pg_blocking_pids(pid))";
    while sqlx::query_scalar::<_, i64>(waiting).fetch_one(&mut other).await.unwrap() == 0 {}
    sqlx::raw_sql("COMMIT").execute(&mut other).await.unwrap();
    other.close().await.unwrap();
    asking.await.unwrap()
}

#[tokio::test]
async fn a_refresh_that_meets_a_revocation_takes_back_what_it_did() {
    let Some(app) = app().await else { return };
    let (client, tokens) = app.tokens_of("bob").await;
    let token = tokens.refresh_token.clone();
    let revoke = "UPDATE grants SET revoked_at = 1, end_reason = 'test'";

    let answer = while_it_waits(&app, revoke, async move { client.refresh(&token).await }).await;

    answer.assert_error(400, "invalid_grant");
    let used = "SELECT COUNT(*) FROM refresh_tokens WHERE used_at IS NOT NULL";
    assert_eq!(app.database.number(used).await, 0);
    let told = "SELECT COUNT(*) FROM audit_events WHERE event = 'refresh_rotated'";
    assert_eq!(app.database.number(told).await, 0);
}

#[tokio::test]
async fn a_redemption_that_meets_the_end_of_its_code_stores_nothing() {
    let Some(app) = app().await else { return };
    let client = app.client().await;
    let code = client.code("bob").await;
    let end = "UPDATE authorization_codes SET redeemed_at = 1";

    let answer = while_it_waits(&app, end, async move { client.redeem(&code).await }).await;

    answer.assert_error(400, "invalid_grant");
    assert_eq!(app.database.number("SELECT COUNT(*) FROM grants").await, 0);
    assert_eq!(app.database.number("SELECT COUNT(*) FROM refresh_tokens").await, 0);
}

#[tokio::test]
async fn a_login_that_meets_a_sign_out_stores_nothing() {
    let Some(app) = app().await else { return };
    let client = app.client().await;
    let idp = client.approve(&[]).await;
    let back = client.log_in(&idp, "bob").await;
    // The first login leaves the marks, which are those of a later sign-out then.
    client.browser.get(&back).await.location_param("code").unwrap();
    let idp = client.approve(&[]).await;
    let back = client.log_in(&idp, "bob").await;
    let before = app.database.number("SELECT COUNT(*) FROM authorization_codes").await;
    let version = "SELECT MAX(version) FROM upstream_sessions";
    let version_before = app.database.number(version).await;
    let sign_out = "UPDATE upstream_sign_outs SET number = number + 1000";

    let browser = client.browser.clone();
    let answer = while_it_waits(&app, sign_out, async move { browser.get(&back).await }).await;

    assert_ne!(answer.status, 303);
    let codes = app.database.number("SELECT COUNT(*) FROM authorization_codes").await;
    assert_eq!(codes, before);
    assert_eq!(app.database.number(version).await, version_before);
}

#[tokio::test]
async fn clients_are_counted_in_parts_and_up_to_the_quota() {
    let Some(app) = app().await else { return };
    for number in 0..20 {
        app.client_named(&format!("client {number}")).await;
    }
    let sum = "SELECT CAST(SUM(value) AS BIGINT) FROM counters
               WHERE name = 'clients' OR name LIKE 'clients/%'";
    let stored = app.database.number("SELECT COUNT(*) FROM clients").await;
    assert_eq!(app.database.number(sum).await, stored);
    assert_eq!(app.storage().registered_clients().await.unwrap(), stored);
}
