//! Killed at random moments under load, again and again: `scripts/test-crashes`.

use std::time::Duration;

use portcullis::oauth::secret::random_bytes;
use serde_json::Value;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::{assert_sound, killed_while_starting};
use crate::harness::client::{McpClient, Tokens, VERIFIER};
use crate::harness::http::encode;
use crate::harness::process::Served;
use crate::harness::raw;

/// Families that refresh at the same time.
const FAMILIES: usize = 8;
/// Latest moment of a kill, after the load began.
const LATEST_KILL: u64 = 60;

/// The tokens of one grant, as its client knows them.
pub(super) struct Family {
    pub(super) newest: String,
    /// The ones before, oldest first.
    pub(super) older: Vec<String>,
}

impl Family {
    fn rotated(&mut self, successor: String) {
        self.older.push(std::mem::replace(&mut self.newest, successor));
    }
}

#[derive(Debug, Default)]
struct Figures {
    kills: usize,
    kills_while_starting: usize,
    codes: usize,
    rotations: usize,
    revocations: usize,
    /// Requests that the kill left without an answer, and that had happened all the same.
    answers_lost: usize,
}

/// Up to `most`, from the operating system.
pub(super) fn at_random(most: u64) -> u64 {
    u64::from_be_bytes(random_bytes::<8>()) % (most + 1)
}

/// Asks for tokens; `None` when the server died before its answer was whole.
async fn token(url: &str, form: &[(&str, &str)]) -> Option<(u16, Value)> {
    let form = encode(form);
    let request = format!(
        "POST /token HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\
         Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\r\n{form}",
        url.trim_start_matches("http://"),
        form.len()
    );
    let answer = raw::try_exchange(url, &request).await.ok()?;
    let (_, body) = answer.split_once("\r\n\r\n")?;
    Some((raw::status(&answer), serde_json::from_str(body).ok()?))
}

async fn refresh(url: &str, client_id: &str, token_: &str) -> Option<(u16, Value)> {
    let form =
        [("grant_type", "refresh_token"), ("refresh_token", token_), ("client_id", client_id)];
    token(url, &form).await
}

fn refresh_token_of(answer: &Value) -> String {
    answer["refresh_token"].as_str().unwrap().to_owned()
}

/// Refreshes one token after the other until the server dies.
pub(super) fn refreshing(
    server: &Served,
    client: &McpClient,
    mut family: Family,
) -> JoinHandle<Family> {
    let (url, client_id) = (server.url.clone(), client.id.clone());
    tokio::spawn(async move {
        while let Some((status, answer)) = refresh(&url, &client_id, &family.newest).await {
            assert_eq!(status, 200, "{answer}");
            family.rotated(refresh_token_of(&answer));
        }
        family
    })
}

/// Redeems a code once; `None` when the answer did not come.
pub(super) fn redeeming(
    server: &Served,
    client: &McpClient,
    code: String,
) -> JoinHandle<(String, Option<String>)> {
    let (url, id, redirect_uri) =
        (server.url.clone(), client.id.clone(), client.redirect_uri.clone());
    tokio::spawn(async move {
        let form = [
            ("grant_type", "authorization_code"),
            ("code", code.as_str()),
            ("redirect_uri", redirect_uri.as_str()),
            ("code_verifier", VERIFIER),
            ("client_id", id.as_str()),
        ];
        let answer = token(&url, &form).await;
        let answer = answer.map(|(status, answer)| {
            assert_eq!(status, 200, "{answer}");
            refresh_token_of(&answer)
        });
        (code, answer)
    })
}

/// Presents a token whose successor was used; whether the answer came.
fn reusing(server: &Served, client: &McpClient, family: Family) -> JoinHandle<(Family, bool)> {
    let (url, client_id) = (server.url.clone(), client.id.clone());
    tokio::spawn(async move {
        let answer = refresh(&url, &client_id, &family.older[0]).await;
        if let Some((status, answer)) = &answer {
            assert_eq!((*status, &answer["error"]), (400, &"invalid_grant".into()));
        }
        (family, answer.is_some())
    })
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes: scripts/test-crashes"]
async fn killed_at_random_moments_under_load_nothing_answered_is_lost_and_nothing_is_half_done() {
    let rounds: usize = std::env::var("KILLS").map_or(20, |kills| kills.parse().unwrap());
    let mut server = Served::without_rates().await;
    let client = McpClient::register(&server).await;
    let (mut families, mut dead, mut figures) =
        (Vec::<Family>::new(), Vec::<String>::new(), Figures::default());
    for round in 1..=rounds {
        let codes = [client.code("bob").await, client.code("alice").await];
        let surplus = families.len().saturating_sub(FAMILIES);
        let (attacked, used): (Vec<_>, Vec<_>) = families
            .drain(..)
            .enumerate()
            .partition(|(n, family)| *n < surplus && family.older.len() > 1);
        let before: usize = used.iter().map(|(_, family)| family.older.len()).sum();
        let refreshing: Vec<_> =
            used.into_iter().map(|(_, family)| refreshing(&server, &client, family)).collect();
        sleep(Duration::from_millis(at_random(20))).await;
        let redeeming = codes.map(|code| redeeming(&server, &client, code));
        let reusing: Vec<_> =
            attacked.into_iter().map(|(_, family)| reusing(&server, &client, family)).collect();

        sleep(Duration::from_millis(at_random(LATEST_KILL - 20))).await;
        server.kill();
        figures.kills += 1;
        if round % 10 == 0 {
            killed_while_starting(&server, Duration::from_millis(at_random(200))).await;
            figures.kills_while_starting += 1;
        }
        server.launch();
        let when = format!("kill {round}");
        assert_sound(&server.database, &when).await;

        for family in refreshing {
            families.push(family.await.unwrap());
        }
        let rotated: usize = families.iter().map(|family| family.older.len()).sum();
        figures.rotations += rotated - before;
        for redeemed in redeeming {
            let (code, answered) = redeemed.await.unwrap();
            figures.codes += 1;
            let newest = if let Some(token) = answered {
                token
            } else {
                let again = client.redeem(&code).await;
                if again.status != 200 {
                    again.assert_error(400, "invalid_grant");
                    figures.answers_lost += 1; // used, and now ended: the person signs in again
                    continue;
                }
                Tokens::of(&again).refresh_token
            };
            families.push(Family { newest, older: Vec::new() });
        }
        let uses = "SELECT COUNT(used_at) FROM refresh_tokens";
        for family in &mut families {
            // What was answered has lasted, and what was not is asked for again: nobody is out.
            let before = server.database.number(uses).await;
            let tokens = Tokens::of(&client.refresh(&family.newest).await);
            figures.answers_lost += usize::from(server.database.number(uses).await == before);
            family.rotated(tokens.refresh_token);
        }
        for reused in reusing {
            let (family, answered) = reused.await.unwrap();
            if !answered {
                client.refresh(&family.older[0]).await.assert_error(400, "invalid_grant");
            }
            figures.revocations += 1;
            dead.push(family.newest);
        }
        for token in dead.iter().rev().take(5) {
            client.refresh(token).await.assert_error(400, "invalid_grant");
        }
        assert_sound(&server.database, &when).await;
    }
    println!("{figures:?}");
}
