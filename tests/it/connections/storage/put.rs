//! Connections are made, replaced, moved and removed.

use futures_util::future::join_all;
use portcullis::clock::Timestamp;
use portcullis::storage::{
    CANNOT_BE_OPENED, ConnectionFilter, ConnectionState, NewConnection, PutConnection, Storage,
};

use super::{BOB, KEY, Store, github, is_broken, tokens, words};

#[tokio::test]
async fn a_connection_holds_what_the_service_granted() {
    let store = Store::new().await;
    assert_eq!(store.connect(&github()).await, PutConnection::Made);

    let known = store.bobs().await;
    assert_eq!(known.tokens, github().tokens);
    assert_eq!(known.scopes, words("read write"));
    assert_eq!(known.account_label.as_deref(), Some("octocat"));
    assert_eq!(known.access_until, Some(Timestamp::from_unix(1_800_003_600)));
    assert_eq!((known.state.clone(), known.used_at), (ConnectionState::Active, None));
    assert_eq!(known.created_at, store.now());
    assert_eq!(store.lines("connection_made").await, 1);
    assert!(store.connection("oidc:alice", "github").await.is_none());
    assert!(store.connection(BOB, "google").await.is_none());
    let all = store.storage.connections_of(BOB).await.unwrap();
    assert_eq!(all.iter().map(|one| one.name.as_str()).collect::<Vec<_>>(), ["github"]);
    // No token and no name lies open in the database.
    let dump = store.database.dump().await;
    for secret in ["access-canary", "refresh-canary", "octocat", "verifier-canary"] {
        assert!(!dump.windows(secret.len()).any(|seen| seen == secret.as_bytes()), "{secret}");
    }
}

#[tokio::test]
async fn a_hundred_connections_at_once_leave_one_whole_row() {
    let store = Store::new().await;
    let mut attempts = Vec::new();
    for _ in 0..100 {
        attempts.push(store.came_back(BOB, "github").await);
    }
    let put = async |n: usize| {
        let new = NewConnection { tokens: tokens(&format!("access {n}"), None), ..github() };
        store.put(&attempts[n], &new).await
    };
    let puts = (0..attempts.len()).map(put);

    let outcomes = join_all(puts).await;

    assert!(outcomes.iter().all(|put| *put == PutConnection::Made), "{outcomes:?}");
    assert_eq!(store.database.number("SELECT COUNT(*) FROM connections").await, 1);
    let known = store.bobs().await;
    assert_eq!(known.version, 100);
    assert!(known.tokens.access_token.starts_with("access "), "it can be opened");
    assert_eq!(store.lines("connection_made").await, 100);
}

#[tokio::test]
async fn an_attempt_gives_one_connection_and_what_else_it_brings_is_revoked() {
    let store = Store::new().await;
    let attempt = store.came_back(BOB, "github").await;
    let new = github();
    let outcomes = join_all((0..10).map(|_| store.put(&attempt, &new))).await;
    let made = outcomes.iter().filter(|put| **put == PutConnection::Made).count();
    assert_eq!(made, 1, "{outcomes:?}");
    assert!(outcomes.iter().all(|put| [PutConnection::Made, PutConnection::Refused].contains(put)));
    assert_eq!(store.storage.take_revocations(true, store.now()).await.unwrap().len(), 9);
    // Nor does it give one of another person or service.
    let attempt = store.came_back(BOB, "github").await;
    let other = NewConnection { subject: "oidc:alice".to_owned(), ..github() };
    assert_eq!(store.put(&attempt, &other).await, PutConnection::Refused);
    let other = NewConnection { name: "google".to_owned(), ..github() };
    assert_eq!(store.put(&attempt, &other).await, PutConnection::Refused);
    // An attempt that did not come back gives none at all.
    let attempted = store.begin(BOB, "github").await.unwrap();
    assert_eq!(store.put(attempted.state.id(), &github()).await, PutConnection::Refused);
}

#[tokio::test]
async fn more_scopes_keep_the_account_and_the_refresh_token() {
    let store = Store::new().await;
    store.connect(&github()).await;
    let first = store.bobs().await;
    store.clock.advance(60);
    let more = NewConnection {
        scopes: words("admin read write"),
        tokens: tokens("second", None),
        access_until: None,
        ..github()
    };
    assert_eq!(store.connect(&more).await, PutConnection::ScopesChanged);
    let known = store.bobs().await;
    assert_eq!((&known.id, known.created_at), (&first.id, first.created_at));
    assert_eq!(known.tokens, tokens("second", Some("refresh-canary")));
    assert_eq!((known.access_until, known.version), (None, 2));
    assert_eq!(store.lines("connection_scopes_changed").await, 1);
    assert!(store.storage.take_revocations(true, store.now()).await.unwrap().is_empty());
}

#[tokio::test]
async fn another_account_replaces_the_former_one_whose_tokens_are_revoked() {
    let store = Store::new().await;
    store.connect(&github()).await;
    store.storage.note_connection_used(BOB, "github", store.now()).await.unwrap();
    store.clock.advance(60);
    let other = NewConnection {
        account_key: Some("2".to_owned()),
        account_label: Some("hubot".to_owned()),
        tokens: tokens("second", None),
        ..github()
    };
    assert_eq!(store.connect(&other).await, PutConnection::AccountChanged);
    let known = store.bobs().await;
    assert_eq!(known.tokens, tokens("second", None), "the other account's refresh token is gone");
    assert_eq!((known.created_at, known.used_at), (store.now(), None));
    assert_eq!(store.lines("connection_account_changed").await, 1);
    let due = store.storage.take_revocations(false, store.now()).await.unwrap();
    assert_eq!(due.len(), 1);
    assert_eq!((due[0].connection.as_str(), &due[0].tokens), ("github", &github().tokens));
}

#[tokio::test]
async fn a_broken_connection_works_again_once_the_person_has_connected_it() {
    let store = Store::new().await;
    store.connect(&github()).await;
    let known = store.bobs().await;
    let (event, now) = (store.event("connection_broken"), store.now());
    assert!(store.storage.break_connection(&known, "refused", now, event.clone()).await.unwrap());
    assert!(!store.storage.break_connection(&known, "refused", now, event).await.unwrap());
    assert_eq!(store.lines("connection_broken").await, 1);
    let broken = store.bobs().await;
    assert_eq!(broken.state, ConnectionState::Broken { reason: "refused".to_owned() });

    let again = NewConnection { tokens: tokens("second", None), ..github() };
    assert_eq!(store.connect(&again).await, PutConnection::Made);
    let known = store.bobs().await;
    assert!(known.is_active());
    assert_eq!(known.tokens.refresh_token, None, "the refused one does not come back");
}

#[tokio::test]
async fn ut_08_a_row_that_was_moved_or_copied_in_the_database_is_broken() {
    for change in [
        // Given to another person.
        "UPDATE connections SET subject = 'oidc:alice'",
        // Its tokens in another person's row.
        "UPDATE connections SET tokens =
             (SELECT c.tokens FROM connections c WHERE c.subject = 'oidc:bob')
         WHERE subject = 'oidc:alice'",
        // Another service, which would receive the tokens.
        "UPDATE connections SET name = 'evil', subject = 'oidc:alice'",
        // Another client of the same name.
        "UPDATE connections SET subject = 'oidc:alice', provider_key = 'other'",
        // Under another id.
        "UPDATE connections SET subject = 'oidc:alice', id = 'other'",
    ] {
        let store = Store::new().await;
        store.connect(&github()).await;
        let name = if change.contains("'evil'") { "evil" } else { "github" };
        if change.contains("SELECT") {
            store.connect(&NewConnection { subject: "oidc:alice".to_owned(), ..github() }).await;
        }
        store.database.execute(change).await;

        let stolen = store.connection("oidc:alice", name).await.expect("a row");

        assert!(is_broken(&stolen), "{change}: {stolen:?}");
        assert_eq!(stolen.state, ConnectionState::Broken { reason: CANNOT_BE_OPENED.to_owned() });
        assert!(stolen.tokens.access_token.is_empty() && stolen.tokens.refresh_token.is_none());
        let all = store.storage.connections_of("oidc:alice").await.unwrap();
        assert!(all.iter().all(is_broken), "{change}");
        // It can be removed, and nothing of it is revoked in the name of another.
        assert!(store.remove("oidc:alice", name).await);
        assert!(store.storage.take_revocations(true, store.now()).await.unwrap().is_empty());
    }
}

#[tokio::test]
async fn a_removed_connection_is_gone_at_once_and_its_tokens_are_revoked_once() {
    let store = Store::new().await;
    store.connect(&github()).await;
    let removed = join_all((0..20).map(|_| store.remove(BOB, "github"))).await;
    assert_eq!(removed.iter().filter(|removed| **removed).count(), 1);
    assert!(store.connection(BOB, "github").await.is_none());
    assert_eq!(store.lines("connection_removed").await, 1);
    let due = store.storage.take_revocations(false, store.now()).await.unwrap();
    assert_eq!(due.iter().map(|due| &due.tokens).collect::<Vec<_>>(), [&github().tokens]);
    assert_eq!(due[0].provider_key, "key-of-github");
}

#[tokio::test]
async fn ut_09_a_blocked_persons_connections_are_of_no_use_and_stay() {
    let store = Store::new().await;
    store.connect(&github()).await;
    let attempt = store.came_back(BOB, "google").await;
    let event = store.event("person_blocked");
    let storage = &store.storage;
    assert!(storage.block_person(BOB, "oidc:alice", store.now(), event).await.unwrap());
    assert!(store.connection(BOB, "github").await.is_none());
    assert!(storage.connections_of(BOB).await.unwrap().is_empty());
    let google = NewConnection { name: "google".to_owned(), ..github() };
    assert_eq!(store.put(&attempt, &google).await, PutConnection::Refused);
    // Administrators see what is there.
    let rows = storage.list_connections(&ConnectionFilter::default(), 10).await.unwrap();
    assert_eq!(rows.iter().map(|row| row.name.as_str()).collect::<Vec<_>>(), ["github"]);
    assert!(storage.unblock_person(BOB, store.event("person_unblocked")).await.unwrap());
    assert!(store.bobs().await.is_active());
}

#[tokio::test]
async fn the_use_of_a_connection_is_noted_once_a_minute() {
    let store = Store::new().await;
    store.connect(&github()).await;
    let begun = store.now();
    for (after, noted) in [(0, 0), (59, 0), (1, 60), (59, 60), (61, 180)] {
        store.clock.advance(after);
        store.storage.note_connection_used(BOB, "github", store.now()).await.unwrap();
        let used = store.bobs().await.used_at.unwrap();
        assert_eq!(used.unix() - begun.unix(), noted, "after {after}");
    }
}

#[tokio::test]
async fn every_change_of_a_connection_wakes_this_process_and_the_replicas() {
    let store = Store::new().await;
    let replica = if store.database.is_postgres() {
        Storage::open(&store.database.url, Some(KEY)).await.unwrap()
    } else {
        store.storage.clone()
    };
    let (mut here, mut there) =
        (store.storage.connections_changed(), replica.connections_changed());
    let streams = store.storage.grants_ended();
    let mut woken = async || {
        here.changed().await.unwrap();
        there.changed().await.unwrap();
    };
    store.connect(&github()).await;
    woken().await;
    let known = store.bobs().await;
    let event = store.event("connection_broken");
    store.storage.break_connection(&known, "refused", store.now(), event).await.unwrap();
    woken().await;
    store.remove(BOB, "github").await;
    woken().await;
    let event = store.event("person_blocked");
    assert!(!streams.has_changed().unwrap(), "open streams have nothing to check");
    store.storage.block_person(BOB, "oidc:alice", store.now(), event).await.unwrap();
    woken().await;
    replica.close().await;
}
