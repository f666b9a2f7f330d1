//! Limits whose number is not met at one endpoint: the identity provider, what
//! clients publish, the admin pages, the database, the connections of an address. Each at its number and
//! one past it.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;
use std::time::Duration;

use serde_json::json;
use tokio::io::AsyncReadExt;
use tokio::net::{TcpSocket, TcpStream};

use crate::harness::client::{McpClient, REDIRECT_URI, Tokens};
use crate::harness::http::encode;
use crate::harness::publisher::Publisher;
use crate::harness::{Setup, TestApp, raw};

/// One question more than there may be waits for its turn; when that does not come, nobody was asked: that is no
/// outage, so the last answer is not used for it, and nobody is logged out by it.
#[tokio::test]
async fn requests_to_the_identity_provider_hold_at_their_number() {
    let app = TestApp::with(
        Setup::toml("[upstream]\ntimeout = \"2s\"").and("[limits]\nupstream_requests = 2"),
    )
    .await;
    let mut people = Vec::new();
    for _ in 0..3 {
        people.push(app.tokens_of("bob").await);
    }
    let refresh_all = async |people: &[(McpClient, Tokens)]| {
        let [(a, one), (b, two), (c, three)] = people else { panic!("three of them") };
        let (one, two, three) = tokio::join!(
            a.refresh(&one.refresh_token),
            b.refresh(&two.refresh_token),
            c.refresh(&three.refresh_token),
        );
        [Tokens::of(&one), Tokens::of(&two), Tokens::of(&three)]
    };
    let renewed = |people: &mut Vec<(McpClient, Tokens)>, tokens: [Tokens; 3]| {
        people.iter_mut().zip(tokens).for_each(|(person, tokens)| person.1 = tokens);
    };
    let gate = app.idp.token_gate();

    app.advance(16 * 60);
    let before = app.idp.requests_to("/token");
    gate.close();
    let (tokens, ()) = tokio::join!(refresh_all(&people), async {
        gate.until_waiting(2).await;
        // Long enough for a third to come, if it could.
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert_eq!(app.idp.requests_to("/token") - before, 2);
        gate.open();
    });
    assert!(tokens.iter().all(|tokens| tokens.expires_in == 600), "each had its turn");
    assert_eq!(app.idp.requests_to("/token") - before, 3);
    renewed(&mut people, tokens);

    app.advance(16 * 60);
    gate.close();
    let [(a, one), (b, two), (c, three)] = people.as_slice() else { panic!("three of them") };
    // The third comes when both places are taken; the provider answers the two when it has given up.
    let taken =
        async { tokio::join!(a.refresh(&one.refresh_token), b.refresh(&two.refresh_token)) };
    let third = async {
        gate.until_waiting(2).await;
        c.refresh(&three.refresh_token).await
    };
    let ((one, two), refused) = tokio::join!(taken, third);
    for bridged in [one, two] {
        assert_eq!(Tokens::of(&bridged).expires_in, 300, "it was asked and is silent");
    }
    refused.assert_error(503, "temporarily_unavailable");
    assert!(refused.header("retry-after").is_some());
    gate.open();
    // Nothing was used up, and the provider is not left alone for what was our doing.
    while app.metrics().await["portcullis_upstream_paused"] > 0.5 {
        app.advance(1);
    }
    assert_eq!(Tokens::of(&c.refresh(&three.refresh_token).await).expires_in, 600);
}

#[tokio::test]
async fn failed_sign_ins_to_the_admin_pages_hold_at_their_number_per_address() {
    let app = TestApp::with(
        Setup::toml("trusted_proxies = [\"127.0.0.1\"]")
            .and("[limits]\nadmin_sign_in_failures = 5"),
    )
    .await;
    let get = async |path: &str, from: &str| {
        let headers = [("x-forwarded-for", from), ("accept", "text/html")];
        app.http.send("GET", &format!("{}{path}", app.admin_url), &headers, "").await
    };
    let made_up = "/signed-in?state=made-up&code=made-up";
    for _ in 0..5 {
        get(made_up, "203.0.113.7").await.assert_page(403);
    }
    let page = get(made_up, "203.0.113.7").await;
    page.assert_page(429);
    let wait: u64 = page.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=180).contains(&wait), "{wait}");

    // Nobody is locked out by it: not who comes from elsewhere, nor who does not fail.
    get(made_up, "203.0.113.8").await.assert_page(403);
    get("/", "203.0.113.7").await.assert_page(401);
    app.advance(180);
    get(made_up, "203.0.113.7").await.assert_page(403);
    get(made_up, "203.0.113.7").await.assert_page(429);
}

#[tokio::test]
async fn ci_06_what_strangers_make_us_fetch_holds_at_its_numbers() {
    let hosts = ["a.example", "b.example", "c.example", "d.example", "e.example"];
    let publisher = Publisher::start(&hosts).await;
    let url = |host: &str, number: usize| format!("https://{host}/client-{number}");
    let setup =
        publisher.setup("[limits]\nclient_fetches_per_host = 5\nclient_fetches_per_address = 3");
    let setup = setup.and("trusted_proxies = [\"127.0.0.1\"]");
    let app = TestApp::with(setup).await;
    let ask = async |id: String, from: &str| {
        publisher.publish(
            &id,
            &json!({
                "client_id": id, "client_name": "Published", "redirect_uris": [REDIRECT_URI],
                "token_endpoint_auth_method": "none",
            }),
        );
        let query = encode(&[
            ("client_id", id.as_str()),
            ("redirect_uri", REDIRECT_URI),
            ("response_type", "code"),
            ("code_challenge", "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"),
            ("code_challenge_method", "S256"),
        ]);
        let headers = [("x-forwarded-for", from), ("accept", "text/html")];
        app.http.send("GET", &app.at(&format!("/authorize?{query}")), &headers, "").await.status
    };
    // Of one host: five, of which one is kept for clients that were good before.
    // One part of the network gets a quarter.
    for number in 0..4 {
        let from = format!("203.0.{number}.1");
        assert_eq!(ask(url("a.example", number), &from).await, 200);
        assert_eq!(ask(url("a.example", 9), &from).await, 503, "it had its share");
    }
    assert_eq!(ask(url("a.example", 4), "203.0.113.4").await, 503);
    assert_eq!(ask(url("b.example", 0), "203.0.113.4").await, 200, "another host");

    // For one address: three.
    for host in ["b.example", "c.example", "d.example"] {
        assert_eq!(ask(url(host, 1), "198.51.100.7").await, 200);
    }
    assert_eq!(ask(url("e.example", 1), "198.51.100.7").await, 503);
    assert_eq!(ask(url("e.example", 1), "198.51.100.8").await, 200, "somebody else");
    app.advance(60);
    assert_eq!(ask(url("a.example", 5), "198.51.100.7").await, 200, "a minute later");
}

#[tokio::test]
async fn the_log_of_the_database_is_cut_back_to_its_number() {
    let app = TestApp::with(Setup::toml("[limits]\nwal_size = 65536")).await;
    if app.database.is_postgres() {
        return; // PostgreSQL has an administrator for that
    }
    let log = app.database.folder.join("portcullis.db-wal");
    let length = || std::fs::metadata(&log).unwrap().len();
    let mut largest = 0;
    for number in 0..3000 {
        let metadata =
            json!({ "client_name": format!("{number}"), "redirect_uris": [REDIRECT_URI] });
        app.http.post_json(&app.at("/register"), &metadata, &[]).await.assert_status(201);
        // The step that begins the log again may be a large one of the audit trail: then the next time counts.
        if length() < largest && length() <= 65_536 {
            break;
        }
        largest = largest.max(length());
    }
    assert!(largest > 1_000_000, "it grew: {largest}");
    assert!(length() <= 65_536, "and was cut back: {}", length());
}

#[tokio::test]
async fn clean_up_removes_so_many_rows_in_one_step() {
    let app = TestApp::start().await;
    let client = app.client().await;
    for _ in 0..4 {
        client.approve(&[]).await;
    }
    let logins = async || app.database.number("SELECT COUNT(*) FROM logins").await;
    assert_eq!(logins().await, 4);
    app.advance(2 * 24 * 3600);
    let days = Duration::from_hours(24 * 100);
    let keep = portcullis::storage::Retention {
        unused_client: days,
        idle_client: days,
        audit: days,
        refused_person: days,
        refresh_idle: Duration::from_hours(1),
        rows: 3,
    };

    app.storage().sweep(app.now(), keep).await.unwrap();
    assert_eq!(logins().await, 1);
    app.storage().sweep(app.now(), keep).await.unwrap();
    assert_eq!(logins().await, 0);
}

/// Loopback is never judged by, so this needs addresses that are: in a network of the test's own, made by the
/// system, where it lets us.
#[cfg(target_os = "linux")]
#[test]
fn connections_of_one_address_hold_at_their_number_as_seen_from_outside() {
    let own = ["--user", "--map-root-user", "--net"];
    let can = Command::new("unshare").args(own).args(["ip", "link", "set", "lo", "up"]).output();
    if !can.is_ok_and(|made| made.status.success()) {
        eprintln!("not tried: this system makes no network for it (unshare, ip)");
        return;
    }
    let script = "ip link set lo up && ip addr add 203.0.113.7/32 dev lo && \
        ip addr add 203.0.113.8/32 dev lo && exec \"$0\" --ignored --exact \
        operations::quotas::in_a_network_of_its_own";
    let tried = Command::new("unshare")
        .args(own)
        .args(["sh", "-c", script])
        .arg(std::env::current_exe().unwrap())
        .env_remove("TEST_DATABASE_URL") // out of reach there
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&tried.stdout);
    assert!(tried.status.success() && told.contains("1 passed"), "{told}");
}

#[tokio::test]
#[ignore = "needs addresses of its own: the test above makes them"]
async fn in_a_network_of_its_own() {
    let app = TestApp::with(Setup::toml("[limits]\nconnections_per_address = 2")).await;
    let server: SocketAddr = raw::host(&app.url).parse().unwrap();
    let connect = async |last: u8| {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind((Ipv4Addr::new(203, 0, 113, last), 0).into()).unwrap();
        socket.connect(server).await.unwrap()
    };
    let is_closed = async |mut connection: TcpStream| {
        let mut byte = [0];
        let read = connection.read(&mut byte);
        let read = tokio::time::timeout(Duration::from_secs(1), read).await;
        read.is_ok_and(|read| read.unwrap_or(0) == 0)
    };
    let (one, two) = (connect(7).await, connect(7).await);
    assert!(is_closed(connect(7).await).await, "one past the number");
    assert!(!is_closed(connect(8).await).await, "somebody else");
    drop(one);
    while is_closed(connect(7).await).await {}
    drop(two);
}
