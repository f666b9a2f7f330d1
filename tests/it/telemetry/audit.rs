//! The audit trail: complete, free of secrets, and chained so that tampering shows (threat LG-04).

use std::time::Duration;

use portcullis::oauth::sealed::Purpose;
use portcullis::storage::{AuditFilter, AuditLine, ChainBroken, SETTLED_AT_ONCE};
use portcullis::telemetry::audit::AuditEvent;

use crate::harness::TestApp;

async fn settled(app: &TestApp) {
    while app.storage().settle_audit().await.unwrap() > 0 {}
}

async fn lines(app: &TestApp, filter: AuditFilter) -> Vec<AuditLine> {
    let mut lines = app.storage().audit_lines(&filter, 1000).await.unwrap();
    lines.reverse();
    lines
}

#[tokio::test]
async fn lg_04_the_trail_tells_the_whole_story_of_a_connection() {
    let app = TestApp::start().await;
    let (client, tokens) = app.tokens_of("bob").await;
    client.refresh(&tokens.refresh_token).await.assert_status(200);
    client.refresh(&tokens.refresh_token).await.assert_status(200);
    client.revoke(&tokens.access_token).await.assert_status(200);

    let story =
        lines(&app, AuditFilter { client_id: client.id.clone(), ..Default::default() }).await;

    let events: Vec<&str> = story.iter().map(|line| line.event.as_str()).collect();
    assert_eq!(
        events,
        [
            "client_registered",
            "consent_approved",
            "code_issued",
            "code_redeemed",
            "refresh_rotated",
            "refresh_grace_replayed",
            "grant_revoked",
        ]
    );
    let issued = &story[2];
    assert_eq!(issued.subject.as_deref(), Some("oidc:demo-bob"));
    assert!(issued.detail.contains("rule 2"), "{}", issued.detail);
    assert!(story[1].detail.contains("shown_at"));
    let of_bob = AuditFilter { subject: "oidc:demo-bob".to_owned(), ..Default::default() };
    assert_eq!(lines(&app, of_bob).await.len(), 4);
    let all = format!("{story:?}");
    assert!(!all.contains("Bob") && !all.contains("example.com"), "{all}");
}

#[tokio::test]
async fn a_reuse_and_a_replay_are_told() {
    let app = TestApp::start().await;
    let client = app.client().await;
    let code = client.code("bob").await;
    let first = crate::harness::client::Tokens::of(&client.redeem(&code).await);
    client.redeem(&code).await.assert_error(400, "invalid_grant");
    let (other, tokens) = app.tokens_of("bob").await;
    other.refresh(&tokens.refresh_token).await.assert_status(200);
    app.advance(600);
    other.refresh(&tokens.refresh_token).await.assert_error(400, "invalid_grant");

    for (client, event) in [(&client, "code_replayed"), (&other, "refresh_reused")] {
        let filter = AuditFilter {
            client_id: client.id.clone(),
            event: event.to_owned(),
            ..Default::default()
        };
        assert_eq!(lines(&app, filter).await.len(), 1, "{event}");
    }
    client.refresh(&first.refresh_token).await.assert_error(400, "invalid_grant");
}

#[tokio::test]
async fn the_reference_of_an_error_page_is_found() {
    let app = TestApp::start().await;
    let page = app.http.get(&app.at("/authorize?client_id=unknown")).await;
    let reference = page.reference();

    let filter = AuditFilter { reference, ..Default::default() };
    let mut found = lines(&app, filter.clone()).await;
    while found.is_empty() {
        tokio::task::yield_now().await;
        found = lines(&app, filter.clone()).await;
    }

    assert_eq!(found[0].event, "page_shown");
    assert!(found[0].detail.contains("unknown client"));
}

#[tokio::test]
async fn a_flood_of_refused_requests_is_bounded() {
    let mut app = TestApp::start().await;
    for _ in 0..400 {
        app.http.get(&app.at("/authorize?client_id=unknown")).await.assert_page(400);
    }
    app.stop().await;

    let shown = "SELECT COUNT(*) FROM audit_events WHERE event = 'page_shown'";
    assert_eq!(app.database.number(shown).await, 300);
    let told = "SELECT COUNT(*) FROM audit_events
                WHERE event = 'audit_left_out' AND detail = '{\"events\":100}'";
    assert_eq!(app.database.number(told).await, 1);
}

#[tokio::test]
async fn verify_finds_one_changed_removed_reordered_or_added_line() {
    let app = TestApp::start().await;
    let (client, tokens) = app.tokens_of("bob").await;
    client.revoke(&tokens.access_token).await;
    settled(&app).await;
    let verified = app.storage().verify_audit().await.unwrap().unwrap();
    assert_eq!((verified.first, verified.head.seq, verified.unsettled), (1, 5, 0));

    // One after the other on the same rows, each undone before the next.
    for (harm, undo, found) in [
        (
            "UPDATE audit_events SET subject = 'oidc:demo-alice' WHERE seq = 3",
            "UPDATE audit_events SET subject = 'oidc:demo-bob' WHERE seq = 3",
            "line 3 ",
        ),
        (
            "UPDATE audit_events SET detail = detail || ' ' WHERE seq = 5",
            "UPDATE audit_events SET detail = RTRIM(detail) WHERE seq = 5",
            "line 5 ",
        ),
        (
            "UPDATE audit_events SET grant_id = '' WHERE seq = 1",
            "UPDATE audit_events SET grant_id = NULL WHERE seq = 1",
            "line 1 ",
        ),
        (
            "UPDATE audit_events SET seq = seq + 100 WHERE seq = 4",
            "UPDATE audit_events SET seq = seq - 100 WHERE seq > 100",
            "line 4 is missing",
        ),
        (
            "UPDATE audit_events SET seq = 100 WHERE seq = 5",
            "UPDATE audit_events SET seq = 5 WHERE seq = 100",
            "line 5 is missing",
        ),
        (
            "INSERT INTO audit_events (id, at, event, actor, detail, seq, mac)
             SELECT 'f', at, event, actor, detail, 6, mac FROM audit_events WHERE seq = 5",
            "DELETE FROM audit_events WHERE id = 'f'",
            "line 6 ",
        ),
        (
            "UPDATE installation SET value = '4 x y' WHERE name = 'audit_head'",
            "SELECT 1",
            "end was changed",
        ),
    ] {
        app.database.execute(harm).await;
        let broken = app.storage().verify_audit().await.unwrap().unwrap_err();
        assert!(broken.to_string().contains(found), "{harm}: {broken}");
        app.database.execute(undo).await;
    }
}

#[tokio::test]
async fn two_lines_that_changed_places_are_found() {
    let app = TestApp::start().await;
    app.tokens_of("bob").await;
    settled(&app).await;
    for sql in [
        "UPDATE audit_events SET seq = 1000 WHERE seq = 2",
        "UPDATE audit_events SET seq = 2 WHERE seq = 3",
        "UPDATE audit_events SET seq = 3 WHERE seq = 1000",
    ] {
        app.database.execute(sql).await;
    }

    let broken = app.storage().verify_audit().await.unwrap().unwrap_err();

    assert!(matches!(broken, ChainBroken::Changed { seq: 2, .. }), "{broken}");
}

#[tokio::test]
async fn the_end_cannot_be_cut_off_unnoticed() {
    let app = TestApp::start().await;
    app.tokens_of("bob").await;
    settled(&app).await;
    app.database.execute("DELETE FROM audit_events WHERE seq = 4").await;

    let broken = app.storage().verify_audit().await.unwrap().unwrap_err();

    assert_eq!(broken, ChainBroken::Missing(4));
}

#[tokio::test]
async fn lines_go_when_their_time_is_over_and_the_chain_still_holds() {
    let app = TestApp::start().await;
    app.tokens_of("bob").await;
    settled(&app).await;
    app.advance(100 * 24 * 60 * 60);
    app.tokens_of("bob").await;
    settled(&app).await;
    let day = std::time::Duration::from_hours(24);
    let keep = portcullis::storage::Retention {
        unused_client: day * 1000,
        idle_client: day * 1000,
        audit: day * 30,
        refused_person: day,
        refresh_idle: Duration::from_hours(1),
        rows: 500,
    };

    while app.storage().sweep(app.now(), keep).await.unwrap() > 0 {}

    let verified = app.storage().verify_audit().await.unwrap().unwrap();
    assert_eq!((verified.first, verified.head.seq), (5, 7));
    // Nobody without the secret key can move the beginning, for instance to hide more lines.
    app.database.execute("DELETE FROM audit_events WHERE seq = 5").await;
    let broken = app.storage().verify_audit().await.unwrap().unwrap_err();
    assert_eq!(broken, ChainBroken::Missing(5));
}

/// By everything that lines are searched by, in pages of two, newest first.
async fn found_by_everything(app: &TestApp, like: &AuditLine) -> Vec<Vec<String>> {
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    let now = app.now();
    let mut found = Vec::new();
    for filter in [
        AuditFilter::default(),
        AuditFilter { event: like.event.clone(), ..Default::default() },
        AuditFilter { client_id: text(&like.client_id), ..Default::default() },
        AuditFilter { subject: text(&like.subject), ..Default::default() },
        AuditFilter { grant_id: text(&like.grant_id), ..Default::default() },
        AuditFilter { since: Some(now.minus(Duration::from_secs(5))), ..Default::default() },
        AuditFilter {
            event: like.event.clone(),
            subject: text(&like.subject),
            ..Default::default()
        },
    ] {
        let mut ids: Vec<String> = Vec::new();
        loop {
            let before = ids.last().cloned().unwrap_or_default();
            let page = AuditFilter { before, ..filter.clone() };
            let page = app.storage().audit_lines(&page, 2).await.unwrap();
            if page.is_empty() {
                break;
            }
            ids.extend(page.into_iter().map(|line| line.id));
        }
        found.push(ids);
    }
    found
}

#[tokio::test]
async fn a_line_is_found_by_everything_before_and_after_it_is_settled() {
    let app = TestApp::start().await;
    app.tokens_of("bob").await;
    settled(&app).await;
    app.advance(10);
    let (client, tokens) = app.tokens_of("bob").await;
    client.refresh(&tokens.refresh_token).await.assert_status(200);
    let newest = app.storage().audit_lines(&AuditFilter::default(), 1).await.unwrap().remove(0);
    assert_eq!((newest.event.as_str(), newest.seq), ("refresh_rotated", None));

    let before = found_by_everything(&app, &newest).await;
    let overview = app.storage().overview(app.now()).await.unwrap();
    settled(&app).await;
    let after = found_by_everything(&app, &newest).await;

    let numbers: Vec<usize> = before.iter().map(Vec::len).collect();
    assert_eq!(numbers, [8, 1, 8, 5, 2, 4, 1]);
    assert_eq!(before, after);
    for ids in &after {
        assert!(ids.is_sorted_by(|newer, older| newer > older), "{ids:?}");
    }
    assert_eq!(overview.logins.iter().map(|(_, n)| n).sum::<i64>(), 2);
}

#[tokio::test]
async fn more_lines_than_are_settled_at_once_make_one_chain() {
    let app = TestApp::start().await;
    let events: Vec<AuditEvent> =
        (0..SETTLED_AT_ONCE + 7).map(|_| app.audit_event("page_shown")).collect();
    app.storage().note(&events).await.unwrap();

    let mut at_once = Vec::new();
    while at_once.last() != Some(&0) {
        at_once.push(app.storage().settle_audit().await.unwrap());
    }

    assert_eq!(at_once, [SETTLED_AT_ONCE, 7, 0]);
    let verified = app.storage().verify_audit().await.unwrap().unwrap();
    assert_eq!((verified.head.seq, verified.unsettled), (507, 0));
}

#[tokio::test]
async fn replicas_that_settle_at_once_make_one_chain() {
    let app = TestApp::start().await;
    for _ in 0..5 {
        app.tokens_of("bob").await;
    }
    let storage = app.storage();
    let all = (0..20).map(|_| {
        let storage = storage.clone();
        async move { while storage.settle_audit().await.unwrap_or(1) > 0 {} }
    });
    futures_util::future::join_all(all).await;

    let verified = app.storage().verify_audit().await.unwrap().unwrap();

    assert_eq!((verified.head.seq, verified.unsettled), (16, 0));
}

/// Who has the database alone can write a line; only who has the key can have recorded it.
#[tokio::test]
async fn a_line_that_somebody_inserts_into_the_database_is_reported_and_not_chained() {
    let mut app = TestApp::start().await;
    app.tokens_of("bob").await;
    settled(&app).await;
    let real =
        "SELECT id, at, event, actor, client_id, subject, resource, grant_id, reference, detail
                FROM audit_events WHERE event = 'code_issued'";
    // Of its own making, a copy of a line, and a line that was recorded and then changed.
    app.tokens_of("bob").await;
    for forged in [
        "INSERT INTO audit_events (id, at, event, actor, detail)
         VALUES ('0forged1', 1795219200000, 'client_trusted', 'admin oidc:demo-alice', '{}')"
            .to_owned(),
        format!(
            "INSERT INTO audit_events
                 (id, at, event, actor, client_id, subject, resource, grant_id, reference, detail)
             SELECT 'forged2', at, event, actor, client_id, 'oidc:demo-alice', resource, grant_id,
                    reference, detail FROM ({real}) AS line LIMIT 1"
        ),
        "UPDATE audit_events SET subject = 'oidc:demo-alice' WHERE id =
             (SELECT MAX(id) FROM audit_events WHERE seq IS NULL AND event = 'code_redeemed')"
            .to_owned(),
    ] {
        app.database.execute(&forged).await;
        settled(&app).await;
        let found = app.storage().verify_audit().await.unwrap().unwrap_err();
        assert!(found.to_string().contains("was not recorded by this server"), "{found}");
        let chained =
            "SELECT COUNT(*) FROM audit_events WHERE id LIKE '%forged%' AND seq IS NOT NULL";
        assert_eq!(app.database.number(chained).await, 0);
        // While a server runs, it would notice that a line is gone which it has recorded.
        app.stop().await;
        app.database.execute("DELETE FROM audit_events WHERE seq IS NULL").await;
        app.restart().await;
        app.tokens_of("bob").await;
    }
    settled(&app).await;
    app.storage().verify_audit().await.unwrap().unwrap();
}

#[tokio::test]
async fn lines_of_a_version_before_row_macs_are_taken_up_once() {
    let mut app = TestApp::start().await;
    app.tokens_of("bob").await;
    settled(&app).await;
    let head = app.storage().verify_audit().await.unwrap().unwrap().head;
    app.tokens_of("bob").await;
    // As the version before leaves it: lines without a MAC of their own, and ends that count nothing.
    let seq = head.seq.to_string();
    let parts: [&[u8]; 3] = [b"audit_head", seq.as_bytes(), head.mac.as_bytes()];
    let proof = app.storage().sealer().mac(Purpose::Audit, &parts);
    app.stop().await;
    app.database
        .execute("UPDATE audit_events SET row_mac = NULL, mac = NULL, seq = NULL WHERE seq > 4")
        .await;
    let mark = format!("{seq} {} {proof}", head.mac);
    app.database
        .execute(&format!("UPDATE installation SET value = '{mark}' WHERE name = 'audit_head'"))
        .await;

    app.restart().await;
    settled(&app).await;
    let verified = app.storage().verify_audit().await.unwrap().unwrap();
    assert_eq!((verified.first, verified.head.seq, verified.unsettled), (1, 7, 0));
    assert!((7 * 400..7 * 1000).contains(&verified.bytes), "{verified:?}");

    // That was for once.
    app.database
        .execute(
            "INSERT INTO audit_events (id, at, event, actor, detail)
             VALUES ('f', 1795219200000, 'client_trusted', 'server', '{}')",
        )
        .await;
    app.restart().await;
    settled(&app).await;
    let found = app.storage().verify_audit().await.unwrap().unwrap_err();
    assert_eq!(found, ChainBroken::NotRecorded { id: "f".to_owned() });
    let told = AuditFilter { event: "audit_line_refused".to_owned(), ..Default::default() };
    assert!(lines(&app, told).await.len() <= 1);
}
