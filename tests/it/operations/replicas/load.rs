//! Clients that refresh all the time and try again when a replica has no answer for them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::fleet::{Came, Fleet, a_moment, token};
use crate::harness::client::{McpClient, VERIFIER};

/// Longest time that a client tries.
const PATIENCE: Duration = Duration::from_mins(1);

/// What a client has met.
#[derive(Debug, Default)]
pub(super) struct Met {
    pub rotations: usize,
    /// Answers with 503, each with a `Retry-After`.
    pub unavailable: usize,
    /// Connections that ended without an answer.
    pub no_answer: usize,
    /// The longest time from the first attempt to the answer.
    pub longest: Duration,
}

impl Met {
    pub(super) fn and(mut self, other: &Self) -> Self {
        self.rotations += other.rotations;
        self.unavailable += other.unavailable;
        self.no_answer += other.no_answer;
        self.longest = self.longest.max(other.longest);
        self
    }
}

/// Asks until there is an answer that settles it.
pub(super) async fn patiently(url: &str, form: &[(&str, &str)], met: &mut Met) -> Came {
    let began = Instant::now();
    loop {
        match token(url, form).await {
            Some(came) if came.status == 503 => {
                assert!(came.head.contains("\r\nretry-after: "), "{}", came.head);
                assert_eq!(came.body["error"], "temporarily_unavailable");
                met.unavailable += 1;
            }
            Some(came) => {
                met.longest = met.longest.max(began.elapsed());
                return came;
            }
            None => met.no_answer += 1,
        }
        assert!(began.elapsed() < PATIENCE, "nobody answers: {met:?}");
        a_moment(20).await;
    }
}

/// The load of some grants, until it is told to stop.
pub(super) struct Load {
    stop: Arc<AtomicBool>,
    families: Vec<JoinHandle<(Met, String)>>,
}

impl Load {
    /// So many grants, each refreshing one token after the other with a pause between.
    pub(super) async fn begin(
        fleet: &Fleet,
        client: &McpClient,
        grants: usize,
        pause: u64,
    ) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let mut families = Vec::new();
        for _ in 0..grants {
            let mut newest = client.sign_in("bob").await.refresh_token;
            let (url, id, stop) = (fleet.url.clone(), client.id.clone(), Arc::clone(&stop));
            families.push(tokio::spawn(async move {
                let mut met = Met::default();
                while !stop.load(Ordering::SeqCst) {
                    let form = [
                        ("grant_type", "refresh_token"),
                        ("refresh_token", newest.as_str()),
                        ("client_id", id.as_str()),
                    ];
                    let came = patiently(&url, &form, &mut met).await;
                    assert_eq!(came.status, 200, "a login is lost: {}", came.body);
                    newest = came.body["refresh_token"].as_str().unwrap().to_owned();
                    met.rotations += 1;
                    a_moment(pause).await;
                }
                (met, newest)
            }));
        }
        Self { stop, families }
    }

    /// Stops it; answers what was met in all, and the newest token of each grant.
    pub(super) async fn end(self) -> (Met, Vec<String>) {
        self.stop.store(true, Ordering::SeqCst);
        let (mut all, mut tokens) = (Met::default(), Vec::new());
        for family in self.families {
            let (met, newest) = family.await.unwrap();
            all = all.and(&met);
            tokens.push(newest);
        }
        (all, tokens)
    }
}

/// Redeems a code, once more when no answer came.
pub(super) async fn redeem_patiently(fleet: &Fleet, client: &McpClient, code: &str) -> (Came, Met) {
    let form = [
        ("grant_type", "authorization_code"),
        ("code", code),
        ("redirect_uri", &client.redirect_uri),
        ("code_verifier", VERIFIER),
        ("client_id", &client.id),
    ];
    let mut met = Met::default();
    let came = patiently(&fleet.url, &form, &mut met).await;
    (came, met)
}
