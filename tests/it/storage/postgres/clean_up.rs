//! Clean-up waits for a row that somebody is writing, and then looks at it again.

use std::time::Duration;

use portcullis::storage::Retention;
use sqlx::{AssertSqlSafe, Connection};

use crate::harness::TestApp;

const KEEP: Retention = Retention {
    unused_client: Duration::from_hours(24),
    idle_client: Duration::from_hours(24 * 90),
    audit: Duration::from_hours(24 * 400),
    refused_person: Duration::from_hours(24 * 7),
    refresh_idle: Duration::from_hours(1),
    rows: 500,
};

/// One kind of row: how one is made that has long expired (`$now` stands for the time), and how it comes alive.
struct Kind {
    table: &'static str,
    made: &'static str,
    revived: &'static str,
}

const KINDS: &[Kind] = &[
    Kind {
        table: "clients",
        made: "INSERT INTO clients (id, metadata, issued_at, last_registered_at, kind)
               VALUES ('odd', '{}', 1, 1, 'registered')",
        revived: "UPDATE clients SET last_used_at = $now",
    },
    Kind {
        table: "clients",
        made: "INSERT INTO clients (id, identity, metadata, issued_at, last_registered_at, kind)
               VALUES ('odd', 'i', '{}', 1, 1, 'registered')",
        revived: "UPDATE clients SET last_registered_at = $now",
    },
    Kind {
        table: "clients",
        made: "INSERT INTO clients (id, metadata, issued_at, last_registered_at, last_used_at, kind)
               VALUES ('odd', '{}', 1, 1, 1, 'registered')",
        revived: "UPDATE clients SET last_used_at = $now",
    },
    Kind {
        table: "clients",
        made: "INSERT INTO clients (id, metadata, issued_at, last_registered_at, last_used_at, kind)
               VALUES ('https://a.example/c', '{}', 1, 1, 1, 'document')",
        revived: "UPDATE clients SET last_used_at = $now",
    },
    Kind {
        table: "upstream_sessions",
        made: "INSERT INTO upstream_sessions (id, upstream, issuer, subject, sid, state, person, tokens, version,
                                              last_ok_at, facts_read_at, created_at)
               VALUES ('odd', 'oidc', 'i', 's', '-', 'active', '', '', 1, 1, 1, 1)",
        revived: "UPDATE upstream_sessions SET last_ok_at = $now",
    },
    Kind {
        table: "logins",
        made: "INSERT INTO logins (id, state_hash, binding_hash, client_id, request, created_at, expires_at)
               VALUES ('odd', '', '', '', '', 1, 1)",
        revived: "UPDATE logins SET expires_at = $now + 600",
    },
    Kind {
        table: "web_sessions",
        made: "INSERT INTO web_sessions (id, token_hash, realm, subject, session_id, signed_in_at,
                                             seen_at, expires_at)
               VALUES ('odd', '', 'account', '', '', 1, 1, 1)",
        revived: "UPDATE web_sessions SET expires_at = $now + 600",
    },
    Kind {
        table: "remembered_consents",
        made: "INSERT INTO remembered_consents (id, token_hash, subject, client_id, redirect_uri, resource,
                                                scopes, metadata_hash, created_at, expires_at)
               VALUES ('odd', '', '', '', '', '', '', '', 1, 1)",
        revived: "UPDATE remembered_consents SET expires_at = $now + 600",
    },
    Kind {
        table: "logins_awaiting_approval",
        made: "INSERT INTO logins_awaiting_approval (id, token_hash, client_id, subject, resource,
                                                     session_id, login, created_at, expires_at)
               VALUES ('odd', '', '', '', '', '', '', 1, 1)",
        revived: "UPDATE logins_awaiting_approval SET expires_at = $now + 600",
    },
    Kind {
        table: "refused_people",
        made: "INSERT INTO refused_people (subject, resource, client_id, person, first_at, refused_at, times)
               VALUES ('odd', '', '', '', 1, 1, 1)",
        revived: "UPDATE refused_people SET refused_at = $now",
    },
    Kind {
        table: "mcp_tasks",
        made: "INSERT INTO mcp_tasks (task_hash, subject, client_id, scopes, created_at, expires_at)
               VALUES ('odd', '', '', '', 1, 1)",
        revived: "UPDATE mcp_tasks SET expires_at = $now + 600",
    },
    Kind {
        table: "connection_attempts",
        made: "INSERT INTO connection_attempts (id, state_hash, binding_hash, subject, web_session_id, name,
                                                scopes, resource, request, created_at, expires_at)
               VALUES ('odd', '', '', '', '', '', '', '', '', 1, 1)",
        revived: "UPDATE connection_attempts SET expires_at = $now + 600",
    },
    Kind {
        table: "connections",
        made: "INSERT INTO connections (id, subject, name, provider_key, scopes, tokens, access_until, version,
                                        state, state_at, created_at)
               VALUES ('odd', '', '', '', '', '', 0, 1, 'broken', 1, 1)",
        revived: "UPDATE connections SET state = 'active'",
    },
    Kind {
        table: "upstream_sign_outs",
        made: "INSERT INTO upstream_sign_outs (id, number, expires_at) VALUES ('odd', 1, 1)",
        revived: "UPDATE upstream_sign_outs SET number = 2, expires_at = $now + 600",
    },
    Kind {
        table: "replay_guard",
        made: "INSERT INTO replay_guard (purpose, id, expires_at) VALUES ('sign_in', 'odd', 1)",
        revived: "UPDATE replay_guard SET expires_at = $now + 600",
    },
    Kind {
        table: "replay_guard",
        made: "INSERT INTO replay_guard (purpose, id, expires_at) VALUES ('client_assertion', 'odd', 1)",
        revived: "UPDATE replay_guard SET expires_at = $now + 600",
    },
    Kind {
        table: "replay_guard",
        made: "INSERT INTO replay_guard (purpose, id, expires_at) VALUES ('logout_token', 'odd', 1)",
        revived: "UPDATE replay_guard SET expires_at = $now + 600",
    },
    Kind {
        table: "consents",
        made: "INSERT INTO consents (id, decision, expires_at) VALUES ('odd', 'denied', 1)",
        revived: "UPDATE consents SET expires_at = $now + 600",
    },
    Kind {
        table: "consents",
        made: "INSERT INTO consents (id, decision, expires_at) VALUES ('odd', 'approved', 1)",
        revived: "UPDATE consents SET expires_at = $now + 600",
    },
];

/// Runs `work` while a transaction has changed a row and not yet committed; commits once `work` waits for it.
async fn meanwhile<T>(app: &TestApp, change: String, work: impl Future<Output = T>) -> T {
    let mut holder = sqlx::AnyConnection::connect(&app.database.url).await.unwrap();
    sqlx::raw_sql("BEGIN").execute(&mut holder).await.unwrap();
    sqlx::raw_sql(AssertSqlSafe(change)).execute(&mut holder).await.unwrap();
    let commits = async {
        loop {
            let waits: i64 = sqlx::query_scalar(
                "SELECT COUNT(*) FROM pg_locks
                 WHERE NOT granted AND pg_backend_pid() = ANY(pg_blocking_pids(pid))",
            )
            .fetch_one(&mut holder)
            .await
            .unwrap();
            if waits > 0 {
                break;
            }
        }
        sqlx::raw_sql("COMMIT").execute(&mut holder).await.unwrap();
        holder.close().await.unwrap();
    };
    tokio::join!(work, commits).0
}

#[tokio::test]
async fn clean_up_leaves_what_has_come_alive_while_it_waited() {
    let app = TestApp::start().await;
    if !app.database.is_postgres() {
        return;
    }
    let mut lost = Vec::new();
    for kind in KINDS {
        let table = kind.table;
        app.database.execute(&format!("TRUNCATE {table} CASCADE")).await;
        app.database.execute(kind.made).await;
        let revived = kind.revived.replace("$now", &app.now().unix().to_string());
        let storage = app.storage();

        meanwhile(&app, revived, storage.sweep(app.now(), KEEP)).await.unwrap();

        let count = format!("SELECT COUNT(*) FROM {table}");
        if app.database.number_of(&count).await != 1 {
            lost.push(kind.revived);
        }
    }
    assert!(lost.is_empty(), "deleted although they were alive again:\n{}", lost.join("\n"));
}

#[tokio::test]
async fn room_for_newcomers_is_not_made_of_clients_that_came_into_use_meanwhile() {
    let app = TestApp::start().await;
    if !app.database.is_postgres() {
        return;
    }
    let client = app.client().await;
    let code = client.code("bob").await;
    let storage = app.storage();
    let used = format!("UPDATE clients SET last_used_at = {}", app.now().unix());

    meanwhile(&app, used, storage.make_room_for_clients(app.now())).await.unwrap();

    client.redeem(&code).await.assert_status(200);
}

/// A person who signed in and waits stands on their session at the provider, and on the client.
#[tokio::test]
async fn a_person_who_waits_keeps_their_session_and_their_client() {
    let setup = crate::harness::Setup::toml("client_approval = \"first_use\"");
    let app = TestApp::with(setup).await;
    let client = app.client().await;
    app.advance(24 * 3600 - 1800);
    client.authorize("bob", &[]).await.assert_leads_to(&app.at("/waiting?id="));
    app.advance(2700);

    while app.storage().sweep(app.now(), KEEP).await.unwrap() > 0 {}

    assert_eq!(app.database.number("SELECT COUNT(*) FROM upstream_sessions").await, 1);
    assert_eq!(app.database.number("SELECT COUNT(*) FROM clients").await, 1);
}
