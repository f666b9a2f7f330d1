//! The queue of tokens to revoke.

use std::time::Duration;

use futures_util::future::join_all;
use portcullis::storage::{DueRevocation, NewConnection, Settled};

use super::{BOB, Store, github, is_broken};

impl Store {
    async fn due(&self) -> Vec<DueRevocation> {
        self.storage.take_revocations(true, self.now()).await.unwrap()
    }

    async fn settle(&self, due: &DueRevocation, settled: Settled) -> bool {
        self.storage.settle_revocation(due, settled, self.now()).await.unwrap()
    }
}

#[tokio::test]
async fn one_of_fifty_takes_an_entry_and_it_comes_again_until_it_is_done() {
    let store = Store::new().await;
    store.connect(&github()).await;
    store.remove(BOB, "github").await;
    let taken = join_all((0..50).map(|_| store.due())).await;
    let taken: Vec<DueRevocation> = taken.into_iter().flatten().collect();
    assert_eq!(taken.len(), 1);
    assert_eq!(taken[0].attempts, 0);

    // The service is away.
    let later = store.now().plus(Duration::from_mins(3));
    assert!(!store.settle(&taken[0], Settled::Again(later)).await);
    store.clock.advance(179);
    assert!(store.due().await.is_empty());
    store.clock.advance(1);
    let again = store.due().await;
    assert_eq!((again.len(), again[0].attempts), (1, 1));
    // This process is gone: another one takes it over after two minutes, and the first has no say any more.
    store.clock.advance(119);
    assert!(store.due().await.is_empty());
    store.clock.advance(1);
    let other = store.due().await;
    assert_eq!((other.len(), other[0].attempts), (1, 2));
    assert!(!store.settle(&again[0], Settled::Done).await);
    assert_eq!(store.database.number("SELECT COUNT(*) FROM token_revocations").await, 1);
    assert!(!store.settle(&other[0], Settled::Done).await);
    assert_eq!(store.database.number("SELECT COUNT(*) FROM token_revocations").await, 0);
}

#[tokio::test]
async fn an_entry_is_given_up_after_a_day() {
    let store = Store::new().await;
    store.connect(&github()).await;
    store.remove(BOB, "github").await;
    store.clock.advance(24 * 3600 - 1);
    let due = store.due().await;
    assert!(!store.settle(&due[0], Settled::Again(store.now())).await);
    store.clock.advance(1);
    let due = store.due().await;
    assert!(store.settle(&due[0], Settled::Again(store.now())).await, "given up");
    assert!(store.due().await.is_empty());
    assert_eq!(store.database.number("SELECT COUNT(*) FROM token_revocations").await, 0);
}

/// Google ends all tokens of a person and a client with one of them.
#[tokio::test]
async fn an_entry_says_whether_its_person_has_connected_the_service_again() {
    let store = Store::new().await;
    store.connect(&github()).await;
    store.remove(BOB, "github").await;
    let due = store.due().await;
    assert!(!due[0].is_replaced);
    store.connect(&github()).await;
    store.settle(&due[0], Settled::Again(store.now())).await;
    let due = store.due().await;
    assert!(due[0].is_replaced);
    store.settle(&due[0], Settled::Done).await;
    // Another account has nothing to do with the tokens of the former one.
    let other = NewConnection { account_key: Some("2".to_owned()), ..github() };
    store.connect(&other).await;
    let due = store.due().await;
    assert_eq!(due.len(), 1);
    assert!(!due[0].is_replaced);
}

#[tokio::test]
async fn at_most_twenty_entries_are_taken_at_once() {
    let store = Store::new().await;
    for n in 0..25 {
        let name = format!("service-{n}");
        store.connect(&NewConnection { name: name.clone(), ..github() }).await;
        store.remove(BOB, &name).await;
    }
    assert_eq!(store.due().await.len(), 20);
    assert_eq!(store.due().await.len(), 5);
    assert!(store.due().await.is_empty());
}

#[tokio::test]
async fn ut_08_an_entry_that_was_changed_in_the_database_is_sent_nowhere() {
    for change in [
        "UPDATE token_revocations SET connection = 'evil'",
        "UPDATE token_revocations SET provider_key = 'other'",
        "UPDATE token_revocations SET id = 'other'",
    ] {
        let store = Store::new().await;
        store.connect(&github()).await;
        store.remove(BOB, "github").await;
        store.database.execute(change).await;
        assert!(store.due().await.is_empty(), "{change}");
        assert_eq!(store.database.number("SELECT COUNT(*) FROM token_revocations").await, 0);
    }
}

#[tokio::test]
async fn clean_up_removes_what_has_ended_and_nothing_else() {
    let store = Store::new().await;
    store.connect(&github()).await;
    store.connect(&NewConnection { name: "google".to_owned(), ..github() }).await;
    let google = store.connection(BOB, "google").await.unwrap();
    let event = store.event("connection_broken");
    store.storage.break_connection(&google, "refused", store.now(), event).await.unwrap();
    store.connect(&NewConnection { name: "gone".to_owned(), ..github() }).await;
    store.remove(BOB, "gone").await;
    let open = "SELECT COUNT(*) FROM connection_attempts";
    assert_eq!(store.database.number(open).await, 3);

    store.clock.advance(65 * 60 - 1);
    store.sweep().await;
    assert_eq!(store.database.number(open).await, 3, "a late callback is still explained");
    store.clock.advance(2);
    store.sweep().await;
    assert_eq!(store.database.number(open).await, 0);
    let queued = "SELECT COUNT(*) FROM token_revocations";
    assert_eq!(store.database.number(queued).await, 1);
    store.clock.advance(48 * 3600);
    store.sweep().await;
    assert_eq!(store.database.number(queued).await, 0, "no server asked for it");
    store.clock.advance(80 * 24 * 3600);
    store.sweep().await;
    assert!(is_broken(&store.connection(BOB, "google").await.unwrap()));
    store.clock.advance(9 * 24 * 3600);
    store.sweep().await;
    assert!(store.connection(BOB, "google").await.is_none());
    assert!(store.bobs().await.is_active(), "it stays until it is disconnected");
}
