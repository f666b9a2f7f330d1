//! P11: the clock goes where it likes, and nothing dead lives again. What was used up, replayed, rotated away
//! or ended stays so at any reading of the clock. What expired is dead at every later reading, and a code,
//! which lives a minute, is dead for good once it was refused in or after that minute. Stored ends never move, and
//! no token outlives its grant.

use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::json;
use sqlx::{Connection, Row};

use crate::harness::TestApp;
use crate::harness::client::{McpClient, REDIRECT_URI, Tokens, VERIFIER, jwt_part};
use crate::harness::http::Answer;

#[derive(Clone, Copy, Debug)]
enum Step {
    /// Moves the clock.
    Jump(i64),
    /// Uses a refresh token, counted from the newest.
    Refresh(usize),
    /// Presents a code.
    Redeem(usize),
    /// Calls with an access token, counted from the newest.
    Call(usize),
    /// Gives the grant back.
    Revoke,
}

fn step() -> impl Strategy<Value = Step> {
    const DAY: i64 = 24 * 3600;
    let far = vec![
        61,
        -61,
        601,
        -601,
        121,
        -121,
        3600,
        -3600,
        DAY,
        -DAY,
        13 * DAY,
        15 * DAY,
        -15 * DAY,
        91 * DAY,
    ];
    prop_oneof![
        3 => (-130..130_i64).prop_map(Step::Jump),
        3 => prop::sample::select(far).prop_map(Step::Jump),
        5 => (0..3_usize).prop_map(Step::Refresh),
        3 => (0..2_usize).prop_map(Step::Redeem),
        4 => (0..3_usize).prop_map(Step::Call),
        1 => Just(Step::Revoke),
    ]
}

/// Ends as they are stored, by row, of grants and refresh tokens; and what has ended.
async fn stored(app: &TestApp) -> (BTreeMap<String, i64>, BTreeMap<String, bool>) {
    let mut connection = sqlx::AnyConnection::connect(&app.database.url).await.unwrap();
    let rows = sqlx::query(
        "SELECT 'grant ' || id AS id, expires_at, CASE WHEN revoked_at IS NULL THEN 0 ELSE 1 END AS ended, expires_at AS most FROM grants
         UNION ALL SELECT 'token ' || r.id, r.expires_at, CASE WHEN r.used_at IS NULL THEN 0 ELSE 1 END, g.expires_at
                   FROM refresh_tokens r JOIN grants g ON g.id = r.grant_id",
    )
    .fetch_all(&mut connection)
    .await
    .unwrap();
    connection.close().await.unwrap();
    let (mut ends, mut ended) = (BTreeMap::new(), BTreeMap::new());
    for row in rows {
        let (id, end, most): (String, i64, i64) = (row.get(0), row.get(1), row.get(3));
        assert!(end <= most, "a token outlives its grant");
        ended.insert(id.clone(), row.get::<i64, _>(2) == 1);
        ends.insert(id, end);
    }
    (ends, ended)
}

/// A token, and the earliest reading of the clock at which it was seen dead.
struct Seen<T> {
    what: T,
    dead_from: Option<i64>,
    /// Used up or refused for good, whatever the clock says.
    for_good: bool,
}

impl<T> Seen<T> {
    fn new(what: T) -> Self {
        Self { what, dead_from: None, for_good: false }
    }

    fn judge(&mut self, answer: &Answer, now: i64, what: &str) -> bool {
        let lives = answer.status == 200;
        assert!(answer.status.as_u16() < 500, "{what}: {}", answer.status);
        assert!(!(lives && self.for_good), "{what} lives again");
        if lives {
            assert!(self.dead_from.is_none_or(|dead| now < dead), "{what} was dead already");
        } else {
            self.dead_from = Some(self.dead_from.map_or(now, |dead| dead.min(now)));
        }
        lives
    }
}

async fn walk(steps: &[Step]) {
    let app = TestApp::start().await;
    let client = McpClient::register(&app).await;
    let mut codes = [
        Seen::new(client.elsewhere().code("bob").await),
        Seen::new(client.elsewhere().code("bob").await),
    ];
    let codes_issued = app.now().unix();
    let first = client.sign_in("bob").await;
    let mut access = vec![Seen::new(first.access_token)];
    let mut refresh = vec![Seen::new(first.refresh_token)];
    let grant = jwt_part(&access[0].what, 1)["grant_id"].as_str().unwrap().to_owned();
    let grant = format!("grant {grant}");
    let (mut ends, mut ended) = stored(&app).await;
    for step in steps {
        let now = app.now().unix();
        match *step {
            Step::Jump(seconds) => app.advance(seconds),
            Step::Call(which) => {
                let at = access.len().saturating_sub(1 + which);
                let token = &mut access[at];
                let answer = client.call_tool(&token.what, "get-todos", json!({})).await;
                // A token lives when it is told that it may not do this.
                let mut told = answer.clone();
                if answer.status == 403 {
                    told.status = hyper::StatusCode::OK;
                }
                let issued = jwt_part(&token.what, 1)["iat"].as_i64().unwrap();
                if told.status != 200 && now < issued && !token.for_good {
                    continue; // not yet valid, which is not dead
                }
                let lives = token.judge(&told, now, "an access token");
                assert!(!(lives && ended[&grant]), "a token of an ended grant lives");
            }
            Step::Refresh(which) => {
                let at = refresh.len().saturating_sub(1 + which);
                let answer = client.refresh(&refresh[at].what).await;
                if answer.status == 429 || answer.status == 503 {
                    continue;
                }
                let lives = refresh[at].judge(&answer, now, "a refresh token");
                if lives {
                    assert!(!ended[&grant], "an ended grant mints");
                    let tokens = Tokens::of(&answer);
                    let exp = jwt_part(&tokens.access_token, 1)["exp"].as_i64().unwrap();
                    assert!(exp <= ends[&grant], "an access token outlives its grant");
                    access.push(Seen::new(tokens.access_token));
                    if refresh.iter().all(|known| known.what != tokens.refresh_token) {
                        refresh.push(Seen::new(tokens.refresh_token));
                    }
                }
            }
            Step::Redeem(which) => {
                let code = &mut codes[which];
                let form = [("redirect_uri", REDIRECT_URI), ("code_verifier", VERIFIER)];
                let answer = client.redeem_with(&code.what, &form).await;
                if answer.status != 200 && now < codes_issued && !code.for_good {
                    continue; // made in the future: not yet valid, which is not dead
                }
                code.judge(&answer, now, "a code");
                code.for_good = true;
            }
            Step::Revoke => {
                let token = refresh[refresh.len() - 1].what.clone();
                let answer = client.revoke(&token).await;
                // After months a client that nobody used is forgotten.
                assert!(matches!(answer.status.as_u16(), 200 | 401), "{}", answer.status);
            }
        }
        let (new_ends, new_ended) = stored(&app).await;
        for (id, end) in &ends {
            assert!(new_ends.get(id).is_none_or(|new| new == end), "a stored end moved");
        }
        for (id, was) in &ended {
            assert!(!was || new_ended.get(id).is_none_or(|now| *now), "what had ended has not");
        }
        if new_ended[&grant] {
            for token in &mut refresh {
                token.for_good = true;
            }
            for token in &mut access {
                token.for_good = true;
            }
        }
        (ends, ended) = (new_ends, new_ended);
    }
}

#[test]
fn p11_no_reading_of_the_clock_makes_a_dead_thing_live_again() {
    let cases =
        std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(12);
    let config =
        Config { cases, failure_persistence: None, max_shrink_iters: 200, ..Config::default() };
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let steps = prop::collection::vec(step(), 1..25);
    TestRunner::new(config)
        .run(&steps, |steps| {
            runtime.block_on(walk(&steps)); // what panics is shrunk
            Ok(())
        })
        .unwrap_or_else(|failure| panic!("{failure}"));
}

#[tokio::test]
async fn ac_05_a_code_that_expired_stays_dead_when_the_clock_goes_back() {
    let app = TestApp::start().await;
    let client = app.client().await;
    let code = client.code("bob").await;
    app.advance(61);
    client.redeem(&code).await.assert_error(400, "invalid_grant");
    app.advance(-61);
    client.redeem(&code).await.assert_error(400, "invalid_grant");
}
