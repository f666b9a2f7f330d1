//! A real ACME server, Pebble, and two real processes on one PostgreSQL: `scripts/test-acme`.

use std::collections::BTreeMap;
use std::fs::File;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use portcullis::clock::Clock;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, sleep};
use tokio_rustls::TlsConnector;

use crate::harness::database::Database;
use crate::harness::http::Http;
use crate::harness::process::{free_address, portcullis};
use crate::harness::setup::ServerAt;
use crate::harness::tls::{
    CertificateAuthority, HOST, Kept, client_that_believes, connect_as, shown,
};
use crate::harness::{Setup, around};

/// The second name of the certificate, which leads to the second replica.
const SECOND: &str = "second.mcp.example";
/// Life of a certificate: 45 s. So it is renewed after half a minute.
const LIFE: u64 = 45;
/// Longest wait for a certificate.
const PATIENCE: Duration = Duration::from_mins(1);

/// A process that ends with the test.
struct Running(Child);

impl Running {
    fn start(mut command: Command, log: &Path) -> Self {
        let log = File::create(log).unwrap();
        command.stdout(log.try_clone().unwrap()).stderr(log).stdin(Stdio::null());
        Self(command.spawn().unwrap())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Pebble, with names that lead to the two replicas.
struct Pebble {
    authority: CertificateAuthority,
    directory: String,
    management: SocketAddr,
    log: PathBuf,
    _running: [Running; 2],
}

impl Pebble {
    /// With an external account, it takes only accounts that are bound to that one.
    async fn start(folder: &Path, port: u16, external: Option<(&str, &str)>) -> Self {
        let [dns, names, listen, management] = [(); 4].map(|()| free_address());
        let mut resolver = Command::new(std::env::var("PEBBLE_CHALLTESTSRV").unwrap());
        resolver.args(["-dnsserver", &dns.to_string(), "-management", &names.to_string()]);
        resolver.args(["-defaultIPv4", "127.0.0.1", "-defaultIPv6", ""]);
        for unused in ["-http01", "-https01", "-tlsalpn01", "-doh"] {
            resolver.args([unused, ""]);
        }
        let resolver = Running::start(resolver, &folder.join("names.log"));

        let authority = CertificateAuthority::new();
        let own = authority.issue_for(&["localhost", "127.0.0.1"], (2020, 2090));
        own.write(folder);
        let config = json!({ "pebble": {
            "listenAddress": listen.to_string(),
            "managementListenAddress": management.to_string(),
            "certificate": folder.join("cert.pem"),
            "privateKey": folder.join("key.pem"),
            "httpPort": 1, "tlsPort": port,
            "ocspResponderURL": "",
            "externalAccountBindingRequired": external.is_some(),
            "externalAccountMACKeys": external.into_iter().collect::<BTreeMap<_, _>>(),
            "retryAfter": { "authz": 1, "order": 1 },
            "keyAlgorithm": "ecdsa",
            "profiles": { "default": { "description": "short", "validityPeriod": LIFE } },
        }});
        std::fs::write(folder.join("pebble.json"), config.to_string()).unwrap();
        let mut pebble = Command::new(std::env::var("PEBBLE").unwrap());
        pebble.arg("-strict").args(["-dnsserver", &dns.to_string(), "-config"]);
        pebble.arg(folder.join("pebble.json"));
        // It validates at once, and for each order again.
        pebble.envs([("PEBBLE_VA_NOSLEEP", "1"), ("PEBBLE_AUTHZREUSE", "0")]);
        let log = folder.join("pebble.log");
        let pebble = Running::start(pebble, &log);

        until("the resolver answers", async || {
            tokio::net::TcpStream::connect(names).await.is_ok()
                && tokio::net::TcpStream::connect(management).await.is_ok()
        })
        .await;
        let second = json!({ "host": SECOND, "addresses": ["127.0.0.2"] });
        let added = Http::default().post_json(&format!("http://{names}/add-a"), &second, &[]).await;
        added.assert_status(200);
        let directory = format!("https://{listen}/dir");
        Self { authority, directory, management, log, _running: [resolver, pebble] }
    }

    /// A client that believes what Pebble issues.
    async fn client(&self) -> TlsConnector {
        let ours = self.authority.client(&["http/1.1"]);
        let address = self.management.to_string();
        let mut stream = connect_as("localhost", &address, &ours).await.unwrap();
        let request = b"GET /roots/0 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        stream.write_all(request).await.unwrap();
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        let root = CertificateDer::from_pem_slice(&answer).unwrap();
        client_that_believes(&root, &["http/1.1"], &[&rustls::version::TLS13])
    }

    fn issued(&self) -> usize {
        std::fs::read_to_string(&self.log).unwrap().matches("Issued certificate serial").count()
    }
}

/// Looks twice a second, because the clock of these processes is the system's.
async fn until(what: &str, reached: impl AsyncFn() -> bool) {
    let begun = Instant::now();
    while !reached().await {
        assert!(begun.elapsed() < PATIENCE, "{what}");
        sleep(Duration::from_millis(500)).await;
    }
}

/// Addresses of one port on two addresses of loopback.
fn two_addresses() -> [SocketAddr; 2] {
    loop {
        let one = free_address();
        let other = SocketAddr::from(([127, 0, 0, 2], one.port()));
        if TcpListener::bind(other).is_ok() {
            return [one, other];
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Pebble and PostgreSQL: scripts/test-acme"]
async fn two_replicas_obtain_one_certificate_and_renew_it_and_no_connection_notices() {
    let addresses = two_addresses();
    let database = Database::new().await;
    assert!(database.is_postgres(), "replicas need PostgreSQL: scripts/test-acme");
    let folder = database.folder.clone();
    let pebble = Pebble::start(&folder, addresses[0].port(), None).await;
    let ca = folder.join("acme-ca.pem");
    std::fs::write(&ca, &pebble.authority.pem).unwrap();
    let url = format!("https://{HOST}");
    let (idp, todo) = around(&url, &Clock::System).await;
    let acme = Setup::toml(format!(
        "[tls.acme]\ndomains = [{HOST:?}, {SECOND:?}]\ncontact = \"ops@mcp.example\"\nterms = true\n\
         directory = {:?}\nca = {:?}",
        pebble.directory,
        ca.to_str().unwrap(),
    ));
    let mut replicas = Vec::new();
    for (n, address) in addresses.iter().enumerate() {
        let listen = address.to_string();
        let place = ServerAt { url: &url, listen: &listen, admin: None, database: &database };
        let file = format!("replica-{n}.toml");
        std::fs::write(folder.join(&file), acme.config(&place, &idp, &todo)).unwrap();
        let mut command = portcullis(&folder);
        command.args(["serve", "--config", &file]);
        replicas.push(Running::start(command, &folder.join(format!("replica-{n}.log"))));
    }
    let log = |n: usize| {
        std::fs::read_to_string(folder.join(format!("replica-{n}.log"))).unwrap_or_default()
    };
    let begun = Instant::now();
    let client = pebble.client().await;
    let connect = async |n: usize| {
        let name = [HOST, SECOND][n];
        connect_as(name, &addresses[n].to_string(), &client).await
    };

    for n in [0, 1] {
        until("a first certificate is in use", async || connect(n).await.is_ok()).await;
    }
    println!("the first certificate was in use on both after {:?}", begun.elapsed());
    let first = [shown(&connect(0).await.unwrap()), shown(&connect(1).await.unwrap())];
    assert_eq!(first[0], first[1], "one certificate for both");
    assert_eq!(pebble.issued(), 1);
    let asked = |n: usize| log(n).contains("an ACME server validates a domain");
    assert!(asked(0) && asked(1), "each replica was asked for one name: {}{}", log(0), log(1));

    let mut held = Vec::new();
    for n in [0, 1] {
        held.push(Kept::over(connect(n).await.unwrap()).await);
    }
    for n in [0, 1] {
        let begun = Instant::now();
        while shown(&connect(n).await.unwrap()) == first[0] {
            assert!(begun.elapsed() < PATIENCE, "no renewal: {}{}", log(0), log(1));
            for kept in &mut held {
                assert_eq!(kept.get("/health").await.0, 200);
            }
            sleep(Duration::from_secs(1)).await;
        }
    }
    println!("the renewed one was in use on both after {:?}", begun.elapsed());
    let second = [shown(&connect(0).await.unwrap()), shown(&connect(1).await.unwrap())];
    assert_eq!(second[0], second[1]);
    for kept in &mut held {
        assert_eq!(kept.get("/ready").await.0, 200, "a connection outlives the renewal");
    }

    assert_eq!(pebble.issued(), 2, "one replica renewed, once");
    let told = "SELECT COUNT(*) FROM audit_events WHERE event = 'certificate_obtained'";
    assert_eq!(database.number(told).await, 2);
    let failed = "SELECT COUNT(*) FROM audit_events WHERE event = 'certificate_failed'";
    assert_eq!(database.number(failed).await, 0, "{}{}", log(0), log(1));
    assert_eq!(database.number("SELECT COUNT(*) FROM certificates").await, 1);
    // One account, and no answers to challenges are left.
    assert_eq!(database.number("SELECT COUNT(*) FROM acme_secrets").await, 1);
    let stored = String::from_utf8_lossy(&database.dump().await).into_owned();
    for secret in ["PRIVATE KEY", "key_pkcs8"] {
        assert!(!stored.contains(secret), "{secret} is in the database");
        assert!(!log(0).contains(secret) && !log(1).contains(secret), "{secret} is in the log");
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Pebble: scripts/test-acme"]
async fn an_authority_for_its_customers_issues_once_the_account_is_bound_to_one_of_them() {
    const KEY_ID: &str = "kid-1";
    const HMAC_KEY: &str = "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W";
    let address = free_address();
    let database = Database::new().await;
    let folder = database.folder.clone();
    let pebble = Pebble::start(&folder, address.port(), Some((KEY_ID, HMAC_KEY))).await;
    let ca = folder.join("acme-ca.pem");
    std::fs::write(&ca, &pebble.authority.pem).unwrap();
    std::fs::write(folder.join("eab"), HMAC_KEY).unwrap();
    let url = format!("https://{HOST}");
    let (idp, todo) = around(&url, &Clock::System).await;
    let listen = address.to_string();
    let place = ServerAt { url: &url, listen: &listen, admin: None, database: &database };
    let acme = format!(
        "[tls.acme]\ndomains = [{HOST:?}]\nterms = true\ndirectory = {:?}\nca = {:?}\n",
        pebble.directory,
        ca.to_str().unwrap(),
    );
    let file = folder.join("portcullis.toml");
    std::fs::write(&file, Setup::toml(acme.clone()).config(&place, &idp, &todo)).unwrap();
    let mut command = portcullis(&folder);
    command.args(["serve", "--config", "portcullis.toml"]);
    let log = folder.join("server.log");
    let _server = Running::start(command, &log);
    let failed = "SELECT COUNT(*) FROM audit_events WHERE event = 'certificate_failed'";
    let logged = || std::fs::read_to_string(&log).unwrap_or_default();
    until("an order fails", async || logged().contains("no certificate was obtained")).await;
    assert!(logged().contains("externalAccount"), "{}", logged());

    // The next attempt would be a minute later; another account does not wait.
    let key = folder.join("eab");
    let bound = format!("{acme}eab_key_id = {KEY_ID:?}\neab_hmac_key = {{ file = {key:?} }}\n");
    std::fs::write(&file, Setup::toml(bound).config(&place, &idp, &todo)).unwrap();
    let client = pebble.client().await;
    until("a certificate is in use", async || connect_as(HOST, &listen, &client).await.is_ok())
        .await;
    assert_eq!((pebble.issued(), database.number(failed).await), (1, 1));
    let stored = String::from_utf8_lossy(&database.dump().await).into_owned();
    assert!(!stored.contains(HMAC_KEY), "the key is in the database");
    assert!(!logged().contains(HMAC_KEY), "the key is in the log");
}
