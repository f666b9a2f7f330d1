//! Races: what may happen once, asked for many times at once over HTTP. The exact counts of each race
//! are known beforehand, whatever the order.
//!
//! Each test runs one round; `ROUNDS=200` repeats each that often, `scripts/test-races` does so on both
//! engines.
//!
//! | Race | Test | Exactly |
//! |---|---|---|
//! | 100 × one code | `ac_01_of_a_hundred_redemptions_one_succeeds_and_its_tokens_die` | 1 × 200, 99 × 400, one grant, and it is revoked |
//! | 11 × one refresh token | `rt_01_eleven_at_once_all_get_one_and_the_same_successor` | 11 × 200, one successor, grant alive |
//! | 100 × one refresh token, grace 60 and 120 | `rt_01_of_a_hundred_at_once_eleven_succeed_and_the_rest_is_told_to_wait` | 11 × 200, 89 × 429, one successor, grant alive, the provider asked once |
//! | 100 × one refresh token, grace 0 | `rt_02_without_grace_a_second_use_revokes_the_family` | 1 × 200, 99 × 400, grant revoked |
//! | refreshes × revocation | `c7_revocation_wins_every_race` | nothing lives after the answer to the revocation |
//! | redemptions × deletion of the client | `c8_a_deletion_wins_every_race_with_a_redemption` | no grant lives |
//! | redemptions × block of the client | `c8_a_block_wins_every_race_with_redemptions` | no grant lives |
//! | redemptions × disconnection by the person | `c8_a_disconnection_wins_every_race_with_redemptions` | no grant lives |
//! | redemptions × sign-out, block, logout message of the person | `c8_the_end_of_a_session_wins_every_race_with_redemptions` | no grant lives |
//! | 100 × Approve on one page | `cd_04_one_page_approves_once_however_often_it_is_pressed` | 1 × 303, 99 × 403, one login |
//! | 50 × Approve and 50 × Deny on one page | `cd_04_a_page_that_is_approved_and_denied_at_once_is_decided_once` | 1 × 303, 99 × 403, one decision |
//! | 100 × one callback | `br_04_one_callback_wins_of_a_hundred` | 1 × 303, 99 × 403, one code |
//! | 100 × one callback with an error that begins again | `one_of_a_hundred_callbacks_with_an_error_begins_again` | 1 × 303, 99 × 403, two logins |
//! | 100 × one sign-in to the pages | `a_sign_in_to_the_pages_counts_once_of_a_hundred` | 1 × 303, 99 × 403, the provider asked once |
//! | 100 × one registration | `rg_01_identical_registrations_are_the_same_public_client_and_cost_one_row` | 100 × 201, one client id, one row |
//! | 100 × one confidential registration | `rg_01_confidential_registrations_are_never_shared` | 100 × 201, a hundred ids and secrets |
//! | 100 × one client assertion | `jw_06_of_a_hundred_uses_of_one_assertion_one_counts_and_a_restart_forgets_none` | 1 admitted, 99 × 401 |
//! | 100 × one waiting page after the approval | `a_hundred_looks_at_once_after_the_approval_bring_one_code` | 1 × 303, 99 × 410, one code |
//! | 100 × a remembered approval | `a_hundred_uses_at_once_are_a_hundred_logins_and_respect_the_quota` | as many logins as the quota, each its own |
//! | 100 × rotation of keys | `of_a_hundred_rotations_at_once_one_begins` | one begins, two keys |
//! | first starts on one database | `c9_however_many_start_at_once_there_is_one_key` | one key of each algorithm |
//! | 100 × one refused tool call | `a_hundred_refusals_at_once_are_remembered_as_one` | 100 × 403, one row |
//! | a callback × the sign-out of its session | `a_sign_out_and_a_callback_at_once_leave_nothing_alive` | no session lives |
//! | 100 × one logout token | `a_logout_token_counts_once_of_a_hundred` | 100 × 200, one event |

use std::collections::BTreeSet;
use std::ops::Range;

use futures_util::future::join_all;
use portcullis::app::App;
use portcullis::clock::Clock;
use portcullis::storage::{ClientDecision, LogoutNotice, LogoutSubject, ReviewDecision};
use serde_json::json;

use crate::harness::TestApp;
use crate::harness::client::{REDIRECT_URI, Tokens};
use crate::harness::http::Answer;

/// How often each race is run.
pub(crate) fn rounds() -> Range<usize> {
    0..std::env::var("ROUNDS").map_or(1, |rounds| rounds.parse().expect("ROUNDS is a number"))
}

fn count(answers: &[Answer], status: u16) -> usize {
    answers.iter().filter(|answer| answer.status == status).count()
}

#[test]
fn every_race_of_the_table_has_its_test() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it");
    let mut files = Vec::new();
    crate::repository::architecture::rust_files(&root, &mut files);
    let code: String = files.iter().map(|file| std::fs::read_to_string(file).unwrap()).collect();
    let table = std::fs::read_to_string(root.join("laws/races.rs")).unwrap();
    let rows: Vec<&str> = table.lines().filter(|line| line.starts_with("//! | ")).skip(1).collect();
    assert!(rows.len() >= 21, "only {} races", rows.len());
    for row in rows {
        let name = row.split('`').nth(1).unwrap();
        assert!(code.contains(&format!("fn {name}(")), "there is no {name}");
    }
}

#[tokio::test]
async fn cd_04_a_page_that_is_approved_and_denied_at_once_is_decided_once() {
    for _ in rounds() {
        let app = TestApp::start().await;
        let client = app.client().await;
        let (_, form) = client.ask(&[]).await;
        let decisions = (0..100).map(|n| client.decide(&form, ["approve", "deny"][n % 2]));

        let answers = join_all(decisions).await;

        assert_eq!((count(&answers, 303), count(&answers, 403)), (1, 99));
        let first = answers.iter().find(|answer| answer.status == 303).unwrap();
        let approved = first.location().starts_with(app.idp.issuer());
        assert!(approved || first.location_param("error").unwrap() == "access_denied");
        assert_eq!(app.database.number("SELECT COUNT(*) FROM consents").await, 1);
        let logins = app.database.number("SELECT COUNT(*) FROM logins").await;
        assert_eq!(logins, i64::from(approved), "a login is begun by an approval only");
    }
}

#[tokio::test]
async fn rg_01_confidential_registrations_are_never_shared() {
    for _ in rounds() {
        let app = TestApp::start().await;
        let metadata = json!({
            "client_name": "Same",
            "redirect_uris": [REDIRECT_URI],
            "token_endpoint_auth_method": "client_secret_basic",
        })
        .to_string();
        let headers = [("content-type", "application/json")];
        let url = app.at("/register");
        let register = || app.http.send("POST", &url, &headers, metadata.clone());

        let answers = join_all((0..100).map(|_| register())).await;

        assert_eq!(count(&answers, 201), 100);
        for member in ["client_id", "client_secret"] {
            let of = |answer: &Answer| answer.json()[member].as_str().unwrap().to_owned();
            let distinct: BTreeSet<String> = answers.iter().map(of).collect();
            assert_eq!(distinct.len(), 100, "{member}");
        }
        assert_eq!(app.database.number("SELECT COUNT(*) FROM clients").await, 100);
        let counted = "SELECT CAST(SUM(value) AS BIGINT) FROM counters
                       WHERE name = 'clients' OR name LIKE 'clients/%'";
        assert_eq!(app.database.number(counted).await, 100, "the number that is kept is right");
    }
}

/// C8: an administrator blocks a client while its codes are redeemed.
#[tokio::test]
async fn c8_a_block_wins_every_race_with_redemptions() {
    for _ in rounds() {
        let app = TestApp::start().await;
        let client = app.client().await;
        let mut codes = Vec::new();
        for _ in 0..4 {
            codes.push(client.code("bob").await);
        }
        let storage = app.storage();
        let event = app.audit_event("client_blocked");
        let block = storage.decide_client(
            ClientDecision::new(&client.id, ReviewDecision::Block, "test"),
            app.now(),
            event,
        );

        let redeeming = join_all(codes.iter().map(|code| client.redeem(code)));
        let (answers, blocked) = tokio::join!(redeeming, block);

        assert!(blocked.unwrap());
        assert_eq!(
            app.database.number("SELECT COUNT(*) FROM grants WHERE revoked_at IS NULL").await,
            0
        );
        for answer in answers.iter().filter(|answer| answer.status == 200) {
            let tokens = Tokens::of(answer);
            client.call_tool(&tokens.access_token, "get-todos", json!({})).await.assert_status(401);
            let refreshed = client.refresh(&tokens.refresh_token).await;
            assert!(refreshed.status == 400 || refreshed.status == 401, "{}", refreshed.status);
        }
    }
}

/// C8: a person disconnects a client while its codes are redeemed.
#[tokio::test]
async fn c8_a_disconnection_wins_every_race_with_redemptions() {
    for _ in rounds() {
        let app = TestApp::start().await;
        let client = app.client().await;
        for _ in 0..5 {
            let mut codes = Vec::new();
            for _ in 0..4 {
                codes.push(client.code("bob").await);
            }
            let (storage, mcp_url) = (app.storage(), app.mcp_url());
            let event = app.audit_event("grants_revoked");
            let end = storage.disconnect("oidc:demo-bob", &client.id, &mcp_url, app.now(), event);

            let redeeming = join_all(codes.iter().map(|code| client.redeem(code)));
            let (answers, ended) = tokio::join!(redeeming, end);

            let won = u64::try_from(count(&answers, 200)).unwrap();
            assert_eq!(ended.unwrap(), won, "what was redeemed before has ended");
            let live = "SELECT COUNT(*) FROM grants WHERE revoked_at IS NULL";
            assert_eq!(app.database.number(live).await, 0);
            for code in &codes {
                client.redeem(code).await.assert_error(400, "invalid_grant");
            }
        }
    }
}

/// C8: a person signs out everywhere, is blocked, or is signed out by the provider, while codes of the
/// session are redeemed.
#[tokio::test]
async fn c8_the_end_of_a_session_wins_every_race_with_redemptions() {
    const PERSON: &str = "oidc:demo-bob";
    for _ in rounds() {
        let app = TestApp::start().await;
        let client = app.client().await;
        for way in ["sign-out", "logout message", "block"] {
            let mut codes = Vec::new();
            for _ in 0..4 {
                codes.push(client.code("bob").await);
            }
            let (storage, now) = (app.storage(), app.now());
            let end = async {
                match way {
                    "sign-out" => {
                        let event = app.audit_event("person_signed_out");
                        storage.sign_out_everywhere(PERSON, "test", now, event).await.unwrap();
                    }
                    "logout message" => {
                        let (issuer, whom) =
                            (app.idp.issuer(), LogoutSubject::Subject("demo-bob".to_owned()));
                        let notice = LogoutNotice::new(issuer.to_owned(), "once", whom, now);
                        let event = app.audit_event("upstream_logout");
                        storage.apply_logout_notice(&notice, "test", now, event).await.unwrap();
                    }
                    _ => {
                        let event = app.audit_event("person_blocked");
                        assert!(storage.block_person(PERSON, "test", now, event).await.unwrap());
                    }
                }
            };

            let redeeming = join_all(codes.iter().map(|code| client.redeem(code)));
            let (answers, ()) = tokio::join!(redeeming, end);

            let live = "SELECT COUNT(*) FROM grants WHERE revoked_at IS NULL";
            assert_eq!(app.database.number(live).await, 0, "{way}");
            assert_eq!(count(&answers, 200) + count(&answers, 400), 4, "{way}");
            for code in &codes {
                client.redeem(code).await.assert_error(400, "invalid_grant");
            }
        }
    }
}

/// C9: replicas that start at once on an empty database, which has no key yet.
#[tokio::test]
async fn c9_however_many_start_at_once_there_is_one_key() {
    for _ in rounds() {
        let app = TestApp::start().await;
        app.database.execute("DELETE FROM signing_keys").await;
        let clock = || Clock::Manual(app.clock.clone());

        let starts = (0..20).map(|_| App::new(app.config(), clock(), app.storage()));
        let started = join_all(starts).await;

        assert!(started.iter().all(Result::is_ok));
        assert_eq!(app.database.number("SELECT COUNT(*) FROM signing_keys").await, 1);
    }
}
