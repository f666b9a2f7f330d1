//! One process at a time renews a connection.

use std::time::Duration;

use futures_util::future::join_all;
use portcullis::clock::Timestamp;
use portcullis::storage::{Lease, RenewedConnection, Storage};

use super::{BOB, KEY, Store, github, tokens, words};

const LEASE: Duration = Duration::from_secs(15);

fn renewed() -> RenewedConnection {
    RenewedConnection {
        tokens: tokens("second", Some("second refresh")),
        access_until: Some(Timestamp::from_unix(1_800_007_200)),
        scopes: Some(words("read")),
    }
}

#[tokio::test]
async fn ut_05_of_a_hundred_processes_one_gets_the_lease() {
    let store = Store::new().await;
    store.connect(&github()).await;
    let known = store.bobs().await;
    let now = store.now();
    let owners: Vec<String> = (0..100).map(|n| format!("owner {n}")).collect();
    let asked =
        owners.iter().map(|owner| store.storage.lease_connection(&known, owner, now, LEASE));
    let leases: Vec<Lease> = join_all(asked).await.into_iter().map(Result::unwrap).collect();
    let won: Vec<usize> = (0..100).filter(|n| leases[*n] == Lease::Won).collect();
    let [winner] = won.as_slice() else { panic!("{} leases", won.len()) };

    // Nobody else may store an answer, extend the lease or give it back.
    let loser = &owners[(winner + 1) % 100];
    let storage = &store.storage;
    assert!(!storage.renew_connection(&known, loser, &renewed()).await.unwrap());
    assert!(!storage.extend_connection_lease(&known.id, loser, now.plus(LEASE)).await.unwrap());
    storage.release_connection(&known, loser).await.unwrap();
    assert_eq!(storage.lease_connection(&known, loser, now, LEASE).await.unwrap(), Lease::Taken);

    let winner = &owners[*winner];
    assert!(storage.renew_connection(&known, winner, &renewed()).await.unwrap());
    let after = store.bobs().await;
    assert_eq!(after.tokens, renewed().tokens);
    assert_eq!((after.scopes.clone(), after.version), (words("read"), known.version + 1));
    assert_eq!(after.access_until, renewed().access_until);
    assert!(!storage.renew_connection(&known, winner, &renewed()).await.unwrap(), "once");
    // What was read before cannot be leased any more.
    assert_eq!(storage.lease_connection(&known, loser, now, LEASE).await.unwrap(), Lease::Taken);
    assert_eq!(storage.lease_connection(&after, loser, now, LEASE).await.unwrap(), Lease::Won);
}

#[tokio::test]
async fn a_lease_ends_by_itself_and_can_be_given_back() {
    let store = Store::new().await;
    store.connect(&github()).await;
    let (known, storage) = (store.bobs().await, &store.storage);
    let lease =
        async |owner| storage.lease_connection(&known, owner, store.now(), LEASE).await.unwrap();
    assert_eq!(lease("one").await, Lease::Won);
    store.clock.advance(10);
    let until = store.now().plus(LEASE);
    assert!(storage.extend_connection_lease(&known.id, "one", until).await.unwrap());
    store.clock.advance(14);
    assert_eq!(lease("two").await, Lease::Taken);
    store.clock.advance(1);
    assert_eq!(lease("two").await, Lease::Won, "the holder is gone");
    assert!(!storage.extend_connection_lease(&known.id, "one", until).await.unwrap());
    storage.release_connection(&known, "two").await.unwrap();
    assert_eq!(lease("three").await, Lease::Won);
    // A clock that was set back leaves no lease for ever.
    store.clock.advance(-3600);
    assert_eq!(lease("four").await, Lease::Won);
}

#[tokio::test]
async fn a_connection_that_is_replaced_removed_or_broken_takes_no_answer_of_before() {
    for how in ["replaced", "removed", "broken"] {
        let store = Store::new().await;
        store.connect(&github()).await;
        let (known, storage) = (store.bobs().await, &store.storage);
        let won = storage.lease_connection(&known, "one", store.now(), LEASE).await.unwrap();
        assert_eq!(won, Lease::Won);
        match how {
            "replaced" => {
                store.connect(&github()).await;
            }
            "removed" => assert!(store.remove(BOB, "github").await),
            _ => {
                let event = store.event("connection_broken");
                storage.break_connection(&known, "refused", store.now(), event).await.unwrap();
            }
        }
        assert!(!storage.renew_connection(&known, "one", &renewed()).await.unwrap(), "{how}");
        let event = store.event("connection_broken");
        let broken = storage.break_connection(&known, "late", store.now(), event).await.unwrap();
        assert!(!broken, "{how}: the refusal was not about this one");
        let lease = storage.lease_connection(&known, "two", store.now(), LEASE).await.unwrap();
        assert_eq!(lease, Lease::Taken, "{how}");
    }
}

#[tokio::test]
async fn a_start_on_sqlite_frees_the_leases_of_the_process_before() {
    let store = Store::new().await;
    if store.database.is_postgres() {
        return; // other replicas may hold them
    }
    store.connect(&github()).await;
    store.connect(&super::NewConnection { name: "google".to_owned(), ..github() }).await;
    store.remove(BOB, "google").await;
    let known = store.bobs().await;
    store.storage.lease_connection(&known, "one", store.now(), LEASE).await.unwrap();
    assert_eq!(store.storage.take_revocations(true, store.now()).await.unwrap().len(), 1);
    assert!(store.storage.take_revocations(true, store.now()).await.unwrap().is_empty());
    let now = store.now();
    let Store { database, storage, .. } = store;
    storage.close().await;
    drop(storage); // its lock on the file goes with it

    let url = &database.url;
    let storage = crate::harness::patiently(async || Storage::open(url, Some(KEY)).await).await;
    let lease = storage.lease_connection(&known, "two", now, LEASE).await.unwrap();
    assert_eq!(lease, Lease::Won);
    assert_eq!(storage.take_revocations(true, now).await.unwrap().len(), 1);
    storage.close().await;
}
