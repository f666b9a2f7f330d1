//! PostgreSQL's host is gone without a word: nothing is refused or closed, nothing answers any more.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::Instant;

use super::fleet::a_moment;
use super::paused::{cut_after, listen};
use crate::harness::client::McpClient;
use crate::harness::process::Served;

/// What lies between a server and PostgreSQL.
struct Network {
    address: String,
    /// What it carries until it is cut.
    cut: Arc<Mutex<watch::Sender<bool>>>,
}

impl Network {
    async fn before(postgres: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let cut = Arc::new(Mutex::new(watch::Sender::new(false)));
        let cuts = Arc::clone(&cut);
        tokio::spawn(async move {
            while let Ok((mut here, _)) = listener.accept().await {
                let (postgres, mut cut) = (postgres.clone(), cuts.lock().unwrap().subscribe());
                tokio::spawn(async move {
                    let carried = async {
                        let mut there = TcpStream::connect(postgres).await.unwrap();
                        let _ = tokio::io::copy_bidirectional(&mut here, &mut there).await;
                    };
                    let cut_off = tokio::select! {
                        () = carried => false,
                        _ = cut.wait_for(|cut| *cut) => true,
                    };
                    if cut_off {
                        // Open for ever, on our side: nobody is told.
                        std::future::pending::<()>().await;
                    }
                });
            }
        });
        Self { address, cut }
    }

    /// Nothing gets through any more, on connections old and new.
    fn cut(&self) {
        self.cut.lock().unwrap().send_replace(true);
    }

    /// New connections get through; those that were cut never will.
    fn repair(&self) {
        *self.cut.lock().unwrap() = watch::Sender::new(false);
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes long: scripts/test-replicas"]
async fn a_database_that_vanishes_is_503_in_bounded_time_and_over_when_it_is_back() {
    let mut server = Served::prepared().await;
    assert!(server.database.is_postgres(), "scripts/test-replicas");
    let url = server.database.url.clone();
    let postgres = url.split('@').nth(1).unwrap().split('/').next().unwrap().to_owned();
    let network = Network::before(postgres.clone()).await;
    let text = std::fs::read_to_string(&server.config).unwrap();
    std::fs::write(&server.config, text.replace(&postgres, &network.address)).unwrap();
    server.launch();
    let client = McpClient::register(&server).await;
    let (tokens, others) = (client.sign_in("bob").await, client.sign_in("alice").await);
    let code = client.code("bob").await;
    let stream = listen(&client, &others).await;
    let at = |path: &str| format!("{}{path}", server.url);

    // One is in the middle of a statement, the others come later: more than there are connections.
    let holder = server.database.lock_grants().await;
    let waits = async {
        let since = Instant::now();
        client.refresh(&tokens.refresh_token).await.assert_error(503, "temporarily_unavailable");
        since.elapsed()
    };
    let later = async {
        a_moment(500).await;
        network.cut();
        holder.release().await;
        let since = Instant::now();
        let refused = join_all((0..40).map(|_| client.refresh(&others.refresh_token))).await;
        for answer in &refused {
            answer.assert_error(503, "temporarily_unavailable");
            assert!(answer.header("retry-after").is_some());
        }
        let longest = since.elapsed();
        server.http.get(&at("/health")).await.assert_status(200);
        server.http.get(&at("/ready")).await.assert_status(503);
        longest
    };
    let both = async { tokio::join!(waits, later) };
    let (waited, longest) =
        tokio::time::timeout(Duration::from_mins(1), both).await.expect("an end to every wait");
    println!("vanished: in the middle of a statement {waited:?}, later {longest:?}");
    assert!(waited < Duration::from_secs(14) && longest < Duration::from_secs(14));
    a_moment(13_000).await; // whatever was on its way has been given up

    network.repair();

    let since = Instant::now();
    while server.http.get(&at("/ready")).await.status != 200 {
        a_moment(50).await;
    }
    println!("back: ready after {:?}", since.elapsed());
    assert!(since.elapsed() < Duration::from_secs(12));
    let all = join_all((0..40).map(|_| client.refresh(&tokens.refresh_token))).await;
    assert!(all.iter().all(|answer| [200, 429].contains(&answer.status.as_u16())));
    client.redeem(&code).await; // its minute may be over

    // It hears again what others say.
    let revoked = "UPDATE grants SET revoked_at = 1, end_reason = 'a test'";
    server.database.execute(revoked).await;
    server.database.execute("SELECT pg_notify('portcullis_grants_ended', '')").await;
    let cut = cut_after(stream).await;
    println!("back: a stream is cut {cut:?} after others said so");
    assert!(cut < Duration::from_secs(3));
}
