//! Tokens of the identity provider: the last end of what stands on a sign-in queues them, once.

use std::time::Duration;

use portcullis::clock::Clock;
use portcullis::oauth::secret::{ConsoleSession, Secret, new_id};
use portcullis::policy::Facts;
use portcullis::storage::{
    AttemptClaim, DueRevocation, GrantFilter, NewSignIn, Person, Realm, Retention, Selection,
    SessionUpdate, Storage, UpstreamTokens, session_id,
};

use super::{BOB, KEY, Store, github, is_broken};
use crate::harness::client::Tokens;
use crate::harness::{TestApp, patiently};

/// The database of a server that has stopped: nobody else takes what waits in it.
struct Stopped {
    app: TestApp,
    storage: Storage,
}

impl Stopped {
    async fn after(mut app: TestApp) -> Self {
        app.stop().await;
        let url = &app.database.url;
        let storage = patiently(async || Storage::open(url, Some(KEY)).await).await;
        Self { app, storage }
    }

    async fn due(&self) -> Vec<DueRevocation> {
        self.storage.take_revocations(true, self.app.now()).await.unwrap()
    }

    async fn grants(&self) -> Vec<String> {
        let all =
            self.storage.browse_grants(&GrantFilter::default(), self.app.now(), 10).await.unwrap();
        all.into_iter().map(|grant| grant.id).collect()
    }

    async fn revoke(&self, grant: &str) {
        let event = self.app.audit_event("grant_revoked");
        self.storage.revoke_grant(grant, "a test", self.app.now(), event).await.unwrap();
    }
}

/// The tokens of the only session, as they are stored.
async fn of_session(stopped: &Stopped) -> UpstreamTokens {
    let id = stopped.app.database.text("SELECT id FROM upstream_sessions").await;
    stopped.storage.upstream_session(&id).await.unwrap().unwrap().tokens
}

#[tokio::test]
async fn the_end_of_the_last_grant_of_a_sign_in_queues_its_tokens_once() {
    let app = TestApp::start().await;
    let client = app.client().await;
    client.sign_in("bob").await;
    client.sign_in("bob").await; // one session at the provider
    let stopped = Stopped::after(app).await;
    let [one, two] = stopped.grants().await.try_into().unwrap();
    let before = of_session(&stopped).await;
    assert!(!before.access_token.is_empty() && before.refresh_token.is_some());

    stopped.revoke(&one).await;
    assert!(stopped.due().await.is_empty(), "the other grant needs them");
    assert_eq!(of_session(&stopped).await, before);
    stopped.revoke(&two).await;
    stopped.revoke(&two).await;
    let due = stopped.due().await;

    assert_eq!(due.len(), 1);
    assert_eq!(due[0].connection, "");
    assert_eq!(due[0].tokens.access_token, before.access_token);
    assert_eq!(due[0].tokens.refresh_token, before.refresh_token);
    assert_eq!(due[0].provider_key, stopped.app.idp.issuer());
    assert!(stopped.due().await.is_empty(), "once");
    let after = of_session(&stopped).await;
    assert_eq!((after.access_token.as_str(), after.refresh_token), ("", None));
    assert_eq!(after.id_token, before.id_token, "the sign-out at the provider needs it");
}

#[tokio::test]
async fn without_revoke_upstream_the_tokens_stay_where_they_are() {
    let app = TestApp::start().await;
    app.client().await.sign_in("bob").await;
    let stopped = Stopped::after(app).await;
    let before = of_session(&stopped).await;
    stopped.revoke(&stopped.grants().await[0]).await;
    let due = stopped.storage.take_revocations(false, stopped.app.now()).await.unwrap();
    assert!(due.is_empty());
    assert_eq!(of_session(&stopped).await, before);
    assert!(stopped.due().await.is_empty(), "it is decided once");
}

#[tokio::test]
async fn whatever_ends_all_grants_of_a_sign_in_queues_its_tokens() {
    for how in ["person", "client", "sign-out", "block", "before"] {
        let app = TestApp::start().await;
        let (client, _) = app.tokens_of("bob").await;
        let stopped = Stopped::after(app).await;
        let (storage, now) = (&stopped.storage, stopped.app.now());
        let subject = "oidc:demo-bob".to_owned();
        let event = stopped.app.audit_event("grants_revoked");
        let which = match how {
            "person" => Some(Selection::Person(subject.clone())),
            "client" => Some(Selection::Client(client.id.clone())),
            "before" => Some(Selection::Before(now.plus(Duration::from_secs(1)))),
            _ => None,
        };
        match which {
            Some(which) => {
                assert_eq!(storage.revoke_grants(&which, "a test", now, event).await.unwrap(), 1);
            }
            None if how == "block" => {
                assert!(storage.block_person(&subject, "oidc:alice", now, event).await.unwrap());
            }
            None => {
                let ended = storage.sign_out_everywhere(&subject, "a test", now, event).await;
                assert_eq!(ended.unwrap(), 1);
            }
        }
        assert_eq!(stopped.due().await.len(), 1, "{how}");
    }
}

#[tokio::test]
async fn a_new_grant_and_an_unused_code_keep_the_tokens_of_their_sign_in() {
    let app = TestApp::start().await;
    let client = app.client().await;
    let first = client.sign_in("bob").await;
    let code = client.code("bob").await;
    client.revoke(&first.refresh_token).await.assert_status(200);
    app.revoke_round().await;
    let second = Tokens::of(&client.redeem(&code).await);
    app.advance(16 * 60); // the provider is asked again
    client.refresh(&second.refresh_token).await.assert_status(200);

    // A code that nobody redeems keeps them for as long as it could be redeemed.
    client.code("bob").await;
    let stopped = Stopped::after(app).await;
    for grant in stopped.grants().await {
        stopped.revoke(&grant).await;
    }
    assert!(stopped.due().await.is_empty());
    stopped.app.advance(10 * 60);
    assert_eq!(stopped.due().await.len(), 1);
}

#[tokio::test]
async fn a_session_at_our_pages_keeps_the_tokens_until_it_ends() {
    let store = Store::new().await;
    let token = Secret::<ConsoleSession>::generate(&new_id(&Clock::Manual(store.clock.clone())));
    let update = SessionUpdate {
        upstream: "oidc".to_owned(),
        issuer: "https://idp.example".to_owned(),
        subject: "bob".to_owned(),
        claim_sub: None,
        sid: None,
        sign_outs_before: 0,
        person: Person { name: None, email: None, facts: Facts::default() },
        tokens: UpstreamTokens { access_token: "access".to_owned(), ..UpstreamTokens::default() },
    };
    let new = NewSignIn {
        token: &token,
        realm: Realm::Account,
        session: &update,
        subject: BOB,
        proved_at: store.now(),
        expires_at: store.now().plus(Duration::from_hours(12)),
    };
    let event = store.event("console_signed_in");
    store.storage.sign_in(&new, None, store.now(), event).await.unwrap();
    // As the end of a grant leaves it.
    let session = session_id("https://idp.example", "bob", None);
    let mark = format!(
        "INSERT INTO token_revocations
             (id, connection, provider_key, tokens, due_at, attempts, leased_until, created_at)
         VALUES ('{session}', '', '', '', 1, 0, 0, 1)"
    );
    store.database.execute(&mark).await;
    let due = async || store.storage.take_revocations(true, store.now()).await.unwrap().len();
    assert_eq!(due().await, 0);
    store.clock.advance(3600);
    assert_eq!(due().await, 0);

    let idle = Duration::from_hours(2);
    let here = store.storage.signed_in(&token, Realm::Account, idle, store.now()).await.unwrap();
    let event = store.event("console_signed_out");
    store.storage.sign_out(&here.unwrap(), store.now(), event).await.unwrap();
    assert_eq!(due().await, 1);
}

#[tokio::test]
async fn tokens_of_many_sign_ins_that_end_together_are_revoked_together() {
    let app = TestApp::start().await;
    let client = app.client().await;
    for person in ["alice", "bob"] {
        for _ in 0..13 {
            client.elsewhere().sign_in(person).await;
        }
    }
    let (which, event) = (Selection::Client(client.id.clone()), app.audit_event("grants_revoked"));
    let ended = app.storage().revoke_grants(&which, "a test", app.now(), event).await.unwrap();
    assert_eq!(ended, 26);

    app.app().revoke_all_due().await;

    // The server looks every ten seconds as well, and may have taken some of them just before.
    for _ in 0..10_000 {
        if app.database.number("SELECT COUNT(*) FROM token_revocations").await == 0 {
            return;
        }
    }
    panic!("tokens still wait");
}

#[tokio::test]
async fn clean_up_queues_the_tokens_of_a_sign_in_whose_grants_ran_out() {
    let app = TestApp::start().await;
    app.client().await.sign_in("bob").await;
    let stopped = Stopped::after(app).await;
    let before = of_session(&stopped).await;
    stopped.app.advance(400 * 24 * 3600);
    let day = Duration::from_hours(24);
    let keep = Retention {
        unused_client: day,
        idle_client: day,
        audit: day,
        refused_person: day,
        refresh_idle: Duration::from_hours(1),
        rows: 500,
    };
    while stopped.storage.sweep(stopped.app.now(), keep).await.unwrap() > 0 {}
    assert_eq!(stopped.app.database.number("SELECT COUNT(*) FROM upstream_sessions").await, 0);
    let due = stopped.due().await;
    assert_eq!(due.len(), 1);
    assert_eq!(due[0].tokens.access_token, before.access_token);
}

#[tokio::test]
async fn a_restored_backup_brings_no_connection_back() {
    let store = Store::new().await;
    store.connect(&github()).await;
    let open = store.begin(BOB, "github").await.unwrap();
    let mark = "INSERT INTO installation (name, value) VALUES ('backup_taken_at', '1800000000')";
    store.database.execute(mark).await;
    let event = store.event("backup_restored");
    let settled = store.storage.settle_restored(store.now(), event).await.unwrap();
    assert!(settled.is_some());
    assert!(is_broken(&store.bobs().await));
    let claim = store.take(&open, open.comer(BOB, "github")).await;
    assert!(matches!(claim, AttemptClaim::Unknown), "{claim:?}");
}
