//! A forward proxy that knows CONNECT alone: it writes down what is asked of it, and leads names to this
//! machine as the test says. So it also plays the name server of a cluster.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use portcullis::oauth::secret::random_text;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::PrivatePkcs8KeyDer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

/// What was asked of the proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Connect {
    /// The first line, up to the protocol: `CONNECT host:port`.
    pub line: String,
    /// The `Proxy-Authorization` that came with it.
    pub authorization: Option<String>,
}

#[derive(Default)]
struct State {
    places: BTreeMap<String, SocketAddr>,
    asked: Vec<Connect>,
    answer: Option<u16>,
    silent: watch::Sender<bool>,
    wanted: Option<String>,
    cuts_second_requests: bool,
}

pub(crate) struct Proxy {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    task: JoinHandle<()>,
}

impl Proxy {
    /// Leads each `host:port` to a server on this machine; others are answered with 502.
    pub(crate) async fn start(places: &[(&str, SocketAddr)]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state: Arc<Mutex<State>> = Arc::default();
        let shared = Arc::clone(&state);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let state = Arc::clone(&shared);
                tokio::spawn(async move {
                    let _ = Box::pin(serve(stream, &state)).await;
                });
            }
        });
        let proxy = Self { address, state, task };
        for (name, place) in places {
            proxy.lead(name, *place);
        }
        proxy
    }

    pub(crate) fn lead(&self, name: &str, place: SocketAddr) {
        self.state.lock().unwrap().places.insert(name.to_owned(), place);
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Its address with a user name and a password in it.
    pub(crate) fn url_with(&self, user_info: &str) -> String {
        format!("http://{user_info}@{}", self.address)
    }

    /// From now on CONNECT is answered with this status; `None`: as usual.
    pub(crate) fn answers(&self, status: Option<u16>) {
        self.state.lock().unwrap().answer = status;
    }

    /// From now on nothing is answered, on tunnels that are open neither.
    pub(crate) fn falls_silent(&self, silent: bool) {
        self.state.lock().unwrap().silent.send_replace(silent);
    }

    /// Who does not send this `Proxy-Authorization` is answered with 407.
    pub(crate) fn wants(&self, authorization: &str) {
        self.state.lock().unwrap().wanted = Some(authorization.to_owned());
    }

    /// A connection is closed, without a word, as soon as a second request comes on it: what a client
    /// sees when the other side has given the connection up at that very moment.
    pub(crate) fn cuts_second_requests(&self) {
        self.state.lock().unwrap().cuts_second_requests = true;
    }

    pub(crate) fn asked(&self) -> Vec<Connect> {
        self.state.lock().unwrap().asked.clone()
    }

    /// The places that were asked for, each once, in order.
    pub(crate) fn places_asked(&self) -> Vec<String> {
        let mut places: Vec<String> = self.asked().into_iter().map(|asked| asked.line).collect();
        places.sort();
        places.dedup();
        places
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(mut client: TcpStream, state: &Mutex<State>) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let byte = client.read_u8().await?;
        head.push(byte);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let line = head.split(" HTTP/").next().unwrap_or_default().to_owned();
    let authorization = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("proxy-authorization").then(|| value.trim().to_owned())
    });
    let (answer, mut silent, cuts) = {
        let mut state = state.lock().unwrap();
        state.asked.push(Connect { line: line.clone(), authorization: authorization.clone() });
        let place = line.strip_prefix("CONNECT ").and_then(|name| state.places.get(name)).copied();
        let answer = match (state.answer, &state.wanted, place) {
            (Some(status), _, _) => Err(status),
            (None, Some(wanted), _) if authorization.as_ref() != Some(wanted) => Err(407),
            (None, _, Some(place)) => Ok(place),
            (None, _, None) => Err(502),
        };
        (answer, state.silent.subscribe(), state.cuts_second_requests)
    };
    if *silent.borrow() {
        std::future::pending::<()>().await;
    }
    let place = match answer {
        Ok(place) => place,
        Err(status) => {
            let answer = format!("HTTP/1.1 {status} No\r\ncontent-length: 0\r\n\r\n");
            return client.write_all(answer.as_bytes()).await;
        }
    };
    let mut server = TcpStream::connect(place).await?;
    client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await?;
    if cuts {
        return Box::pin(one_request(client, server)).await;
    }
    tokio::select! {
        copied = tokio::io::copy_bidirectional(&mut client, &mut server) => copied.map(drop),
        () = async { drop(silent.wait_for(|silent| *silent).await) } => std::future::pending().await,
    }
}

/// Passes one request and its answer on, and closes when another one begins.
async fn one_request(mut client: TcpStream, mut server: TcpStream) -> std::io::Result<()> {
    let mut answered = false;
    let (mut from_client, mut from_server) = ([0; 16 * 1024], [0; 16 * 1024]);
    loop {
        tokio::select! {
            read = client.read(&mut from_client) => match read? {
                0 => return Ok(()),
                _ if answered => return Ok(()),
                read => server.write_all(&from_client[..read]).await?,
            },
            read = server.read(&mut from_server) => match read? {
                0 => return Ok(()),
                read => {
                    answered = true;
                    client.write_all(&from_server[..read]).await?;
                }
            },
        }
    }
}

/// Speaks TLS in front of a server on this machine, under names of its own choice.
pub(crate) struct TlsFront {
    pub address: SocketAddr,
    /// The file with the authority that vouches for the names.
    pub authority: PathBuf,
    task: JoinHandle<()>,
}

impl TlsFront {
    pub(crate) async fn of(place: SocketAddr, names: &[&str]) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).unwrap();
        let name = format!("portcullis-authority-{}.pem", random_text());
        let authority = std::env::temp_dir().join(name);
        std::fs::write(&authority, certificate.pem()).unwrap();
        let issuer = Issuer::new(params, key);
        let leaf_key = KeyPair::generate().unwrap();
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let leaf = CertificateParams::new(names).unwrap().signed_by(&leaf_key, &issuer).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![leaf.der().clone()],
                PrivatePkcs8KeyDer::from(leaf_key.serialize_der()).into(),
            )
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    let Ok(mut client) = acceptor.accept(stream).await else { return };
                    let Ok(mut server) = TcpStream::connect(place).await else { return };
                    let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
                });
            }
        });
        Self { address, authority, task }
    }
}

impl Drop for TlsFront {
    fn drop(&mut self) {
        self.task.abort();
        let _ = std::fs::remove_file(&self.authority);
    }
}
