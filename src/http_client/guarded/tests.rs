//! The test vectors of threats CI-01 to CI-03. Names resolve as the test says, every address that is
//! connected to is recorded, and each leads to one scripted TLS server.

use std::collections::VecDeque;
use std::sync::Mutex;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::outgoing::{OutgoingPost, PostAnswer};
use super::*;

const HOST: &str = "client.example";
const PUBLIC: &str = "8.8.8.8";

pub(super) struct Stage {
    /// Results of the resolver, in order; the last one is repeated.
    answers: Mutex<VecDeque<Vec<IpAddr>>>,
    asked: Mutex<Vec<String>>,
    dialled: Mutex<Vec<SocketAddr>>,
    server: SocketAddr,
}

impl Stage {
    pub(super) fn resolve(&self, host: &str) -> Vec<IpAddr> {
        self.asked.lock().unwrap().push(host.to_owned());
        let mut answers = self.answers.lock().unwrap();
        if answers.len() > 1 { answers.pop_front().unwrap() } else { answers[0].clone() }
    }

    pub(super) async fn dial(&self, address: SocketAddr) -> std::io::Result<TcpStream> {
        self.dialled.lock().unwrap().push(address);
        TcpStream::connect(self.server).await
    }

    fn dialled(&self) -> Vec<SocketAddr> {
        self.dialled.lock().unwrap().clone()
    }
}

/// What the server sends after the request, piece by piece; `None` keeps the connection open.
type Script = &'static [Option<&'static str>];

struct Play {
    client: GuardedClient,
    stage: Arc<Stage>,
    accepted: Arc<Mutex<usize>>,
}

impl Play {
    async fn start(answers: &[&[&str]], certificate_for: &str, script: Script) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = params.self_signed(&key).unwrap();
        let issuer = Issuer::new(params, key);
        let leaf_key = KeyPair::generate().unwrap();
        let leaf = CertificateParams::new(vec![certificate_for.to_owned()]).unwrap();
        let leaf = leaf.signed_by(&leaf_key, &issuer).unwrap();
        let config =
            rustls::ServerConfig::builder_with_provider(crate::http_client::tls::provider())
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_no_client_auth()
                .with_single_cert(
                    vec![leaf.der().clone()],
                    rustls::pki_types::PrivatePkcs8KeyDer::from(leaf_key.serialize_der()).into(),
                )
                .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = listener.local_addr().unwrap();
        let accepted = Arc::new(Mutex::new(0));
        let counter = Arc::clone(&accepted);
        tokio::spawn(async move {
            let acceptor = TlsAcceptor::from(Arc::new(config));
            while let Ok((stream, _)) = listener.accept().await {
                *counter.lock().unwrap() += 1;
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    let Ok(mut stream) = acceptor.accept(stream).await else { return };
                    let mut request = vec![0; 4096];
                    let _ = stream.read(&mut request).await;
                    for piece in script {
                        match piece {
                            Some(text) => {
                                if stream.write_all(text.as_bytes()).await.is_err() {
                                    return;
                                }
                                let _ = stream.flush().await;
                            }
                            None => std::future::pending::<()>().await,
                        }
                    }
                    let _ = stream.shutdown().await;
                });
            }
        });
        let parse = |list: &&[&str]| list.iter().map(|text| text.parse().unwrap()).collect();
        let stage = Arc::new(Stage {
            answers: Mutex::new(answers.iter().map(parse).collect()),
            asked: Mutex::new(Vec::new()),
            dialled: Mutex::new(Vec::new()),
            server,
        });
        let client = GuardedClient {
            network: Arc::new(Network::Staged(Arc::clone(&stage))),
            tls: trusting(authority.pem().as_bytes()),
            times: FetchTimeouts {
                connect: Duration::from_secs(2),
                total: Duration::from_millis(500),
            },
            ways: Ways::default(),
        };
        Self { client, stage, accepted }
    }

    async fn resolving(answers: &[&[&str]]) -> Self {
        Self::start(answers, HOST, &[Some(GOOD)]).await
    }

    async fn saying(script: Script) -> Self {
        Self::start(&[&[PUBLIC]], HOST, script).await
    }

    async fn get(&self) -> Result<Fetched, FetchError> {
        self.client.get_json(&WebUrl::parse("https://client.example/doc").unwrap(), 5 * 1024).await
    }

    /// Sends a notification to the host.
    async fn post(&self, reach: Reach) -> Result<PostAnswer, FetchError> {
        let url = "https://client.example:8443/hook?x=1".parse().unwrap();
        let (headers, body) = (Vec::new(), b"{}".to_vec());
        self.client.post(OutgoingPost { url: &url, reach, headers, body }).await
    }

    /// Asserts that the fetch is refused and that nothing was connected to.
    async fn assert_nothing_is_opened(&self) {
        assert_eq!(self.get().await.unwrap_err(), FetchError::ForbiddenAddress);
        assert_eq!(self.stage.dialled(), []);
        assert_eq!(*self.accepted.lock().unwrap(), 0);
    }
}

const GOOD: &str = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncache-control: max-age=300\r\ncontent-length: 2\r\n\r\n{}";

#[tokio::test]
async fn a_public_address_is_dialled_on_443_and_answers() {
    let play = Play::resolving(&[&["2606:4700::1111", PUBLIC]]).await;

    let fetched = play.get().await.unwrap();

    assert_eq!(fetched.body, b"{}");
    assert_eq!(fetched.lifetime, Some(Duration::from_mins(5)));
    assert_eq!(play.stage.dialled(), ["[2606:4700::1111]:443".parse().unwrap()]);
}

#[tokio::test]
async fn nt_01_a_notification_goes_to_checked_addresses_unless_private_ones_are_allowed() {
    for addresses in [&["10.0.0.5"][..], &["169.254.169.254"], &["::1"], &[PUBLIC, "10.0.0.5"]] {
        let play = Play::resolving(&[addresses]).await;
        assert_eq!(play.post(Reach::Public).await.unwrap_err(), FetchError::ForbiddenAddress);
        assert_eq!(play.stage.dialled(), []);
    }
    let play = Play::resolving(&[&["10.0.0.5"]]).await;
    assert_eq!(play.post(Reach::Anywhere).await.unwrap().status, 200);
    assert_eq!(play.stage.dialled(), ["10.0.0.5:8443".parse().unwrap()]);
}

/// A name that leads elsewhere when it is looked up a second time: it is looked up once.
#[tokio::test]
async fn nt_01_a_notification_is_sent_to_the_address_that_was_checked() {
    let play = Play::resolving(&[&[PUBLIC], &["10.0.0.5"]]).await;
    assert_eq!(play.post(Reach::Public).await.unwrap().status, 200);
    assert_eq!(play.stage.dialled(), ["8.8.8.8:8443".parse().unwrap()]);
}

#[tokio::test]
async fn nt_01_a_redirect_of_a_notification_is_an_answer_like_any_other() {
    const REDIRECT: &str =
        "HTTP/1.1 302 Found\r\nlocation: https://169.254.169.254/\r\ncontent-length: 0\r\n\r\n";
    let play = Play::saying(&[Some(REDIRECT)]).await;
    assert_eq!(play.post(Reach::Public).await.unwrap().status, 302);
    assert_eq!(*play.accepted.lock().unwrap(), 1);
}

#[tokio::test]
async fn nt_01_a_notification_goes_to_nobody_with_the_certificate_of_another_host() {
    let play = Play::start(&[&[PUBLIC]], "other.example", &[Some(GOOD)]).await;
    let failed = play.post(Reach::Public).await.unwrap_err();
    assert!(matches!(failed, FetchError::Connection(_)), "{failed:?}");
}

/// Vectors 1 to 4: addresses of our own networks, in every notation.
#[tokio::test]
async fn ci_01_no_connection_is_opened_to_any_address_that_is_not_public() {
    for address in [
        // loopback, private, shared, link-local and metadata
        "127.0.0.1",
        "127.8.8.8",
        "0.0.0.0",
        "10.0.0.5",
        "172.16.0.1",
        "192.168.1.1",
        "100.64.0.1",
        "169.254.169.254",
        "100.100.100.200",
        "168.63.129.16",
        "192.0.0.192",
        "224.0.0.1",
        "255.255.255.255",
        // the same in IPv6
        "::",
        "::1",
        "fe80::1",
        "fc00::1",
        "fd00:ec2::254",
        "fec0::1",
        "ff02::1",
        // mapped and compatible
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "::ffff:169.254.169.254",
        "::ffff:8.8.8.8",
        "::7f00:1",
        // translated: NAT64, 6to4, Teredo, ISATAP
        "64:ff9b::a00:1",
        "64:ff9b::a9fe:a9fe",
        "64:ff9b:1::a00:1",
        "2002:a00:1::",
        "2002:7f00:1::1",
        "2001:0:4136:e378:8000:63bf:3fff:fdd2",
        "2606:4700::5efe:a00:1",
        // special
        "2001:db8::1",
        "3fff::1",
        "100::1",
        "5f00::1",
        "2001:2::1",
        "198.18.0.1",
        "203.0.113.1",
    ] {
        Play::resolving(&[&[address]]).await.assert_nothing_is_opened().await;
    }
}

/// Vector 5: one bad address among good ones.
#[tokio::test]
async fn ci_02_a_public_address_beside_a_private_one_is_refused_outright() {
    for answer in [[PUBLIC, "10.0.0.5"], ["::1", PUBLIC], [PUBLIC, "::ffff:127.0.0.1"]] {
        Play::resolving(&[&answer]).await.assert_nothing_is_opened().await;
    }
}

/// Vector 6, DNS rebinding: the name resolves to another address a moment later.
#[tokio::test]
async fn ci_02_a_name_is_resolved_once_and_only_the_address_that_was_looked_at_is_dialled() {
    let play = Play::resolving(&[&[PUBLIC], &["127.0.0.1"]]).await;

    play.get().await.unwrap();

    assert_eq!(play.stage.dialled(), [format!("{PUBLIC}:443").parse().unwrap()]);
    assert_eq!(*play.stage.asked.lock().unwrap(), [HOST]);
    // The next fetch resolves the name again and gets the new address.
    assert_eq!(play.get().await.unwrap_err(), FetchError::ForbiddenAddress);
    assert_eq!(play.stage.dialled().len(), 1);
}

/// Vector 7: redirects.
#[tokio::test]
async fn ci_03_a_redirect_is_followed_nowhere() {
    for script in [
        &[Some("HTTP/1.1 301 Moved\r\nlocation: https://127.0.0.1/\r\ncontent-length: 0\r\n\r\n")],
        &[Some(
            "HTTP/1.1 302 Found\r\nlocation: https://other.example/\r\ncontent-length: 0\r\n\r\n",
        )],
        &[Some(
            "HTTP/1.1 307 Temporary\r\nlocation: http://10.0.0.5/\r\ncontent-length: 0\r\n\r\n",
        )],
        &[Some("HTTP/1.1 308 Permanent\r\nlocation: /elsewhere\r\ncontent-length: 0\r\n\r\n")],
    ] as [Script; 4]
    {
        let play = Play::saying(script).await;
        assert!(matches!(play.get().await, Err(FetchError::Status(301..=308))));
        assert_eq!(play.stage.dialled().len(), 1);
        assert_eq!(*play.accepted.lock().unwrap(), 1);
    }
}

/// Vector 8: a certificate for another name, and a name without addresses.
#[tokio::test]
async fn ci_02_the_certificate_must_be_for_the_name() {
    let play = Play::start(&[&[PUBLIC]], "other.example", &[Some(GOOD)]).await;
    assert!(matches!(play.get().await, Err(FetchError::Connection(_))));
    let play = Play::resolving(&[&[]]).await;
    assert_eq!(play.get().await.unwrap_err(), FetchError::NoAddress);
}

/// Vector 9: too large, compressed, endless, slow, lying.
#[tokio::test]
async fn ci_03_bombs_end_at_the_limit_and_in_time() {
    const LARGE: &str = "\"0123456789012345678901234567890123456789\"";
    for (script, expected) in [
        (
            &[
                Some(
                    "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 10000000000\r\n\r\n",
                ),
                None,
            ] as Script,
            FetchError::TooLarge,
        ),
        (
            &[
                Some(
                    "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n1401\r\n",
                ),
                Some(BODY),
                None,
            ],
            FetchError::TooLarge,
        ),
        (
            &[Some(
                "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-encoding: gzip\r\ncontent-length: 2\r\n\r\n{}",
            )],
            FetchError::NotJson,
        ),
        (
            &[Some("HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 2\r\n\r\n{}")],
            FetchError::NotJson,
        ),
        (&[Some("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")], FetchError::NotJson),
        (
            &[
                Some(
                    "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 50\r\n\r\n",
                ),
                Some(LARGE),
                None,
            ],
            FetchError::Timeout,
        ),
        (&[Some("HTTP/1.1 200 OK\r\n"), None], FetchError::Timeout),
        (&[None], FetchError::Timeout),
    ] {
        assert_eq!(Play::saying(script).await.get().await.unwrap_err(), expected, "{script:?}");
    }
    for script in [
        // A header section without end, too many headers, a body shorter than promised.
        &[
            Some("HTTP/1.1 200 OK\r\nx: "),
            Some(BODY),
            Some(BODY),
            Some(BODY),
            Some(BODY),
            Some("\r\n\r\n"),
        ] as Script,
        &[Some("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 9\r\n\r\n{}")],
        &[Some("not HTTP at all\r\n\r\n")],
    ] {
        let error = Play::saying(script).await.get().await.unwrap_err();
        assert!(matches!(error, FetchError::Connection(_)), "{error:?}");
    }
}

/// 5 KiB and one byte.
const BODY: &str = {
    const BYTES: [u8; 5 * 1024 + 1] = [b' '; 5 * 1024 + 1];
    match std::str::from_utf8(&BYTES) {
        Ok(text) => text,
        Err(_) => "",
    }
};
