//! Power loss, a full disk, a broken and a read-only one: with a library between the server and its
//! files (`tests/disk/disk.c`), by `scripts/test-crashes`.

use std::io::Write;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use serde_json::json;
use tokio::time::sleep;

use super::random::{Family, at_random, redeeming, refreshing};
use super::{assert_never, assert_sound};
use crate::harness::client::{McpClient, Tokens};
use crate::harness::process::Served;

const FILES: [&str; 2] = ["portcullis.db", "portcullis.db-wal"];

/// A server whose disk we hold in our hands.
struct OnDisk {
    server: Served,
    /// What a power loss leaves, and the files that say what the disk refuses.
    disk: PathBuf,
}

impl OnDisk {
    async fn start(forgetful: bool) -> Self {
        let mut server = Served::without_rates().await;
        let disk = server.database.folder.join("disk");
        std::fs::create_dir(&disk).unwrap();
        let library = std::env::var("DISK_LIBRARY").unwrap();
        server.env =
            vec![("LD_PRELOAD", library), ("TEST_DISK", disk.to_str().unwrap().to_owned())];
        if forgetful {
            server.env.push(("TEST_FORGETFUL", "1".to_owned()));
        }
        server.kill();
        let mut server = Self { server, disk };
        for file in FILES {
            let _ = std::fs::copy(server.server.database.folder.join(file), server.disk.join(file));
        }
        server.server.launch();
        server
    }

    /// Kills the process, takes every byte away that was not synced, and starts again.
    fn lose_power(&mut self) {
        let folder = self.server.database.folder.clone();
        self.server.kill();
        let _ = std::fs::remove_file(folder.join("portcullis.db-shm"));
        for file in FILES {
            let _ = std::fs::remove_file(folder.join(file));
            let _ = std::fs::copy(self.disk.join(file), folder.join(file));
        }
        self.server.launch();
    }

    fn refuses(&self, fault: &str) {
        std::fs::write(self.disk.join(fault), "").unwrap();
    }

    fn works_again(&self, fault: &str) {
        std::fs::remove_file(self.disk.join(fault)).unwrap();
    }
}

#[derive(Debug)]
struct Losses {
    rotations: usize,
    /// Grants of which a client held a token that was answered.
    held: usize,
    /// Of these, how many did not know that token.
    lost: usize,
}

/// How many grants, of which a client holds a token, are gone after `losses` of power under load.
async fn grants_lost(forgetful: bool, losses: usize) -> Losses {
    let mut on = OnDisk::start(forgetful).await;
    let (mut held, mut lost, mut rotations) = (0, 0, 0);
    for loss in 0..losses {
        let client = McpClient::register(&on.server).await;
        let mut load = Vec::new();
        for _ in 0..4 {
            let newest = client.sign_in("bob").await.refresh_token;
            let family = Family { newest, older: Vec::new() };
            load.push(refreshing(&on.server, &client, family));
        }
        let code = client.code("alice").await;
        let redeemed = redeeming(&on.server, &client, code);
        sleep(Duration::from_millis(at_random(80))).await;
        on.lose_power();
        assert_sound(&on.server.database, &format!("loss {loss}")).await;
        let mut newest: Vec<String> = redeemed.await.unwrap().1.into_iter().collect();
        for family in load {
            let family = family.await.unwrap();
            rotations += family.older.len();
            newest.push(family.newest);
        }
        for token in newest {
            held += 1;
            lost += usize::from(client.refresh(&token).await.status != 200);
        }
    }
    Losses { rotations, held, lost }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a library: scripts/test-crashes"]
async fn what_was_answered_survives_a_loss_of_power() {
    let figures = grants_lost(false, 20).await;

    println!("{figures:?}");
    assert!(figures.held >= 80 && figures.rotations > 0);
    assert_eq!(figures.lost, 0);
}

/// The negative test: the one above would notice.
#[cfg(debug_assertions)]
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a library: scripts/test-crashes"]
async fn with_synchronous_normal_a_loss_of_power_would_lose_what_was_answered() {
    let figures = grants_lost(true, 5).await;

    println!("{figures:?}");
    assert!(figures.held >= 20);
    assert!(figures.lost > 0);
}

/// It is found out every five seconds at most.
async fn until_ready_says(server: &Served, status: u16) {
    let said = async {
        while server.http.get(&format!("{}/ready", server.url)).await.status != status {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), said).await.expect("/ready says so");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a library: scripts/test-crashes"]
async fn a_full_broken_or_read_only_disk_is_503_loses_nothing_and_is_over_when_it_is_over() {
    let mut on = OnDisk::start(false).await;
    let client = McpClient::register(&on.server).await;
    let mut tokens = client.sign_in("bob").await;
    for fault in ["full", "broken", "read-only"] {
        let code = client.code("bob").await;
        let (_, form) = client.ask(&[]).await;
        on.refuses(fault);

        for _ in 0..3 {
            let refused = client.refresh(&tokens.refresh_token).await;
            refused.assert_error(503, "temporarily_unavailable");
            assert!(refused.header("retry-after").is_some());
            client.redeem(&code).await.assert_error(503, "temporarily_unavailable");
            client.decide(&form, "approve").await.assert_page(503);
        }
        // What needs no writing goes on.
        let place = &on.server;
        until_ready_says(place, 503).await;
        place.http.get(&format!("{}/health", place.url)).await.assert_status(200);
        let metadata = format!("{}/.well-known/oauth-authorization-server", place.url);
        place.http.get(&metadata).await.assert_status(200);
        client.call_tool(&tokens.access_token, "get-todos", json!({})).await.assert_status(200);

        on.works_again(fault);
        until_ready_says(&on.server, 200).await;

        tokens = Tokens::of(&client.refresh(&tokens.refresh_token).await);
        let others = Tokens::of(&client.redeem(&code).await);
        client.decide(&form, "approve").await.assert_leads_to(&client.server.idp);
        assert_sound(&on.server.database, fault).await;
        on.lose_power();
        assert_sound(&on.server.database, fault).await;
        assert_never(&on.server.database, super::NEVER_AT_FIRST, fault).await;
        tokens = Tokens::of(&client.refresh(&tokens.refresh_token).await);
        client.refresh(&others.refresh_token).await.assert_status(200);
    }
}

/// A disk of a few megabytes of its own.
struct Small(PathBuf);

impl Small {
    fn mount(at: PathBuf) -> Option<Self> {
        std::fs::create_dir(&at).unwrap();
        let mount = format!(
            "sudo=$([ $(id -u) -eq 0 ] || echo sudo -n); $sudo mount -t tmpfs -o size=24m,mode=777 tmpfs {}",
            at.display()
        );
        let mounted = Command::new("sh").args(["-c", &mount]).status().unwrap();
        mounted.success().then_some(Self(at))
    }

    fn fill(&self) {
        let mut file = std::fs::File::create(self.0.join("others")).unwrap();
        while file.write_all(&[0x5a; 4096]).is_ok() {}
    }

    fn make_room(&self) {
        std::fs::remove_file(self.0.join("others")).unwrap();
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let unmount = "$([ $(id -u) -eq 0 ] || echo sudo -n) umount -l \"$0\"";
        let _ = Command::new("sh").args(["-c", unmount]).arg(&self.0).status();
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a disk of its own: scripts/test-crashes"]
async fn k5_on_a_full_disk_grants_can_still_be_ended() {
    let mut server = Served::without_rates().await;
    let Some(disk) = Small::mount(server.database.folder.join("small")) else {
        println!("nobody here may mount a disk: not tried");
        return;
    };
    server.kill();
    let text = std::fs::read_to_string(&server.config).unwrap();
    let text = text.replace("/portcullis.db\"", "/small/portcullis.db\"");
    std::fs::write(&server.config, text).unwrap();
    server.launch();
    let client = McpClient::register(&server).await;
    let (one, other) = (client.sign_in("bob").await, client.sign_in("bob").await);
    let mut load = client.sign_in("bob").await;
    let works = async |tokens: &Tokens| {
        client.rpc(&tokens.access_token, "tools/list", json!({})).await.status == 200
    };

    let reserve = disk.0.join("portcullis.db.reserve");
    while !std::fs::metadata(&reserve).is_ok_and(|file| file.len() == 4 << 20) {
        tokio::task::yield_now().await;
    }
    disk.fill();
    loop {
        let answer = client.refresh(&load.refresh_token).await;
        if answer.status != 200 {
            answer.assert_error(503, "temporarily_unavailable");
            break;
        }
        load = Tokens::of(&answer);
    }
    until_ready_says(&server, 503).await;
    for tokens in [&one, &other] {
        client.revoke(&tokens.refresh_token).await.assert_status(200);
        assert!(!works(tokens).await);
    }
    // What is left is for that alone.
    for _ in 0..20 {
        client.refresh(&load.refresh_token).await.assert_error(503, "temporarily_unavailable");
    }
    assert!(works(&load).await);

    disk.make_room();
    until_ready_says(&server, 200).await;
    let again = Tokens::of(&client.refresh(&load.refresh_token).await);
    client.revoke(&again.refresh_token).await.assert_status(200);
    assert!(reserve.exists(), "it is there for the next time");
    server.kill();
}
