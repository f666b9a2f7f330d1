//! Attempts: once, in time, in the same browser, by the same person, at the same service.

use std::time::Duration;

use futures_util::future::join_all;
use portcullis::oauth::secret::{ConnectState, Secret};
use portcullis::storage::{AttemptClaim, AttemptComer, Begun, PutConnection};

use super::{BOB, Store, github, words};

#[tokio::test]
async fn an_attempt_that_comes_back_a_hundred_times_at_once_has_one_winner() {
    let store = Store::new().await;
    let attempted = store.begin(BOB, "github").await.unwrap();

    let claims =
        join_all((0..100).map(|_| store.take(&attempted, attempted.comer(BOB, "github")))).await;

    let first: Vec<_> = claims
        .iter()
        .filter_map(|claim| match claim {
            AttemptClaim::First(attempt) => Some(attempt),
            other => {
                assert!(matches!(other, AttemptClaim::Already), "{other:?}");
                None
            }
        })
        .collect();
    let [won] = first.as_slice() else { panic!("{} winners", first.len()) };
    assert_eq!((won.subject.as_str(), won.name.as_str()), (BOB, "github"));
    assert_eq!(won.request.verifier, "verifier-canary");
    assert_eq!(won.scopes, words("read write"));
    assert_eq!(won.resource, "https://todo.example/mcp");
    assert_eq!(store.lines("connection_refused").await, 0);
}

#[tokio::test]
async fn an_attempt_ends_after_five_minutes() {
    let store = Store::new().await;
    let (early, late) =
        (store.begin(BOB, "github").await.unwrap(), store.begin(BOB, "github").await.unwrap());
    store.clock.advance(299);
    let in_time = store.take(&early, early.comer(BOB, "github")).await;
    assert!(matches!(in_time, AttemptClaim::First(_)), "{in_time:?}");
    store.clock.advance(1);
    let too_late = store.take(&late, late.comer(BOB, "github")).await;
    assert!(matches!(too_late, AttemptClaim::Expired), "{too_late:?}");
}

#[tokio::test]
async fn ut_01_an_attempt_in_another_browser_or_by_another_person_is_refused_and_over() {
    let store = Store::new().await;
    let mut lines = 0;
    for other in ["browser", "no browser", "person"] {
        lines += 1;
        let attackers = store.begin("oidc:alice", "github").await.unwrap();
        let victims = store.begin(BOB, "github").await.unwrap();
        let comer = match other {
            "browser" => {
                AttemptComer { binding: Some(&victims.binding), subject: BOB, name: "github" }
            }
            "no browser" => AttemptComer { binding: None, subject: "oidc:alice", name: "github" },
            _ => attackers.comer(BOB, "github"),
        };
        let claim = store.take(&attackers, comer).await;
        match other {
            "person" => assert!(matches!(claim, AttemptClaim::OtherPerson), "{claim:?}"),
            _ => assert!(matches!(claim, AttemptClaim::OtherBrowser), "{other}: {claim:?}"),
        }
        assert_eq!(store.lines("connection_refused").await, lines, "{other}");
        // The attacker cannot finish it either, and a repetition adds no line.
        let again = store.take(&attackers, attackers.comer("oidc:alice", "github")).await;
        assert!(matches!(again, AttemptClaim::Already), "{other}: {again:?}");
        let again = store.take(&attackers, comer).await;
        assert!(!matches!(again, AttemptClaim::First(_)), "{other}: {again:?}");
        assert_eq!(store.lines("connection_refused").await, lines, "{other}");
        // The victim's own attempt is as it was.
        let own = store.take(&victims, victims.comer(BOB, "github")).await;
        assert!(matches!(own, AttemptClaim::First(_)), "{other}: {own:?}");
    }
}

#[tokio::test]
async fn ut_02_an_attempt_at_the_callback_of_another_service_is_refused_and_over() {
    let store = Store::new().await;
    let attempted = store.begin(BOB, "google").await.unwrap();
    let mixed_up = store.take(&attempted, attempted.comer(BOB, "github")).await;
    assert!(matches!(mixed_up, AttemptClaim::OtherService), "{mixed_up:?}");
    assert_eq!(store.lines("connection_refused").await, 1);
    let again = store.take(&attempted, attempted.comer(BOB, "google")).await;
    assert!(matches!(again, AttemptClaim::Already), "{again:?}");
}

#[tokio::test]
async fn a_made_up_state_is_unknown_and_ends_nothing() {
    let store = Store::new().await;
    let attempted = store.begin(BOB, "github").await.unwrap();
    let guessed = Secret::<ConnectState>::generate(attempted.state.id());
    let comer = attempted.comer(BOB, "github");
    let event = store.event("connection_refused");
    let claim = store.storage.take_attempt(&guessed, comer, store.now(), event).await.unwrap();
    assert!(matches!(claim, AttemptClaim::Unknown), "{claim:?}");
    let own = store.take(&attempted, comer).await;
    assert!(matches!(own, AttemptClaim::First(_)), "{own:?}");
}

#[tokio::test]
async fn a_person_has_five_open_attempts_whatever_begins_at_once() {
    let store = Store::new().await;
    let begun = join_all((0..20).map(|_| store.begin(BOB, "github"))).await;
    let (started, full): (Vec<_>, Vec<_>) = begun.into_iter().partition(Result::is_ok);
    assert_eq!(started.len(), 5);
    let free_at = store.now().plus(Duration::from_mins(5));
    for refused in full {
        assert_eq!(refused.err(), Some(Begun::TooMany { free_at }));
    }
    // Another person's attempts are counted apart.
    store.begin("oidc:alice", "github").await.unwrap();
    // One that comes back, or expires, makes room for another one.
    let one = started.into_iter().next().unwrap().unwrap();
    store.take(&one, one.comer(BOB, "github")).await;
    store.begin(BOB, "github").await.unwrap();
    assert!(store.begin(BOB, "github").await.is_err());
    store.clock.advance(300);
    store.begin(BOB, "github").await.unwrap();
}

#[tokio::test]
async fn attempts_end_with_a_sign_out_everywhere_and_with_a_block() {
    let store = Store::new().await;
    let (open, back) =
        (store.begin(BOB, "github").await.unwrap(), store.came_back(BOB, "github").await);
    let event = store.event("person_signed_out");
    store.storage.sign_out_everywhere(BOB, "a test", store.now(), event).await.unwrap();
    let claim = store.take(&open, open.comer(BOB, "github")).await;
    assert!(matches!(claim, AttemptClaim::Unknown), "{claim:?}");
    // Neither does one that was at the service's token endpoint meanwhile give a connection.
    assert_eq!(store.put(&back, &github()).await, PutConnection::Refused);
    assert!(store.connection(BOB, "github").await.is_none());
}

#[tokio::test]
async fn ut_08_an_attempt_that_was_moved_to_another_person_in_the_database_gives_nothing() {
    let store = Store::new().await;
    let attempted = store.begin("oidc:alice", "github").await.unwrap();
    store.database.execute("UPDATE connection_attempts SET subject = 'oidc:bob'").await;
    let comer = attempted.comer(BOB, "github");
    let event = store.event("connection_refused");
    let claim = store.storage.take_attempt(&attempted.state, comer, store.now(), event).await;
    assert!(claim.is_err(), "{claim:?}");
}
