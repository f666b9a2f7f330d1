//! A small mail server (RFC 5321): takes messages and keeps them, with TLS, STARTTLS or neither.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use super::publisher::certified;

/// What a test waits for must come within this time; nothing depends on how soon.
const PATIENCE: Duration = Duration::from_mins(1);

/// The name that the certificate is for.
pub(crate) const MAIL_HOST: &str = "mail.example";

/// How the server protects itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protection {
    /// Not at all.
    None,
    /// TLS from the first byte.
    Tls,
    /// It offers STARTTLS.
    StartTls,
    /// It offers STARTTLS, and its answer to it brings a command of somebody on the way along.
    InjectedStartTls,
}

/// A message that came.
#[derive(Clone, Debug, Default)]
pub(crate) struct ReceivedMail {
    pub from: String,
    pub to: Vec<String>,
    /// Whether TLS protected it.
    pub encrypted: bool,
    /// Header section and body, as sent.
    pub text: String,
}

impl ReceivedMail {
    /// The header section, with folded lines joined.
    pub(crate) fn headers(&self) -> Vec<String> {
        let head = self.text.split("\r\n\r\n").next().unwrap().replace("\r\n ", " ");
        head.split("\r\n").map(str::to_owned).collect()
    }

    pub(crate) fn header(&self, name: &str) -> Option<String> {
        let start = format!("{name}: ");
        self.headers().into_iter().find_map(|line| line.strip_prefix(&start).map(str::to_owned))
    }

    /// The body, decoded.
    pub(crate) fn body(&self) -> String {
        let body = self.text.split_once("\r\n\r\n").unwrap().1;
        match self.header("Content-Transfer-Encoding").as_deref() {
            Some("base64") => {
                let bytes = STANDARD.decode(body.replace("\r\n", "")).unwrap();
                String::from_utf8(bytes).unwrap()
            }
            Some("quoted-printable") => unquoted(body),
            _ => body.to_owned(),
        }
    }
}

/// Decodes quoted-printable text (RFC 2045 §6.7).
fn unquoted(body: &str) -> String {
    let joined = body.replace("=\r\n", "");
    let mut bytes = Vec::new();
    let mut rest = joined.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        if first == b'=' {
            let digits = std::str::from_utf8(&after[..2]).unwrap();
            bytes.push(u8::from_str_radix(digits, 16).unwrap());
            rest = &after[2..];
        } else {
            bytes.push(first);
            rest = after;
        }
    }
    String::from_utf8(bytes).unwrap()
}

struct Server {
    protection: Protection,
    acceptor: TlsAcceptor,
    /// The password that it wants; `None`: anybody may send.
    password: Option<&'static str>,
    /// Every line that came before TLS.
    plain: Mutex<Vec<String>>,
    arrived: mpsc::UnboundedSender<ReceivedMail>,
}

pub(crate) struct Mailbox {
    pub address: SocketAddr,
    authority: PathBuf,
    server: Arc<Server>,
    arrivals: tokio::sync::Mutex<mpsc::UnboundedReceiver<ReceivedMail>>,
    task: JoinHandle<()>,
}

impl Mailbox {
    pub(crate) async fn start(protection: Protection, password: Option<&'static str>) -> Self {
        let (authority, config) = certified(&[MAIL_HOST.to_owned()]);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (arrived, arrivals) = mpsc::unbounded_channel();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let plain = Mutex::default();
        let server = Arc::new(Server { protection, acceptor, password, plain, arrived });
        let task = tokio::spawn(serve(listener, Arc::clone(&server)));
        Self { address, authority, server, arrivals: tokio::sync::Mutex::new(arrivals), task }
    }

    /// TOML that leads [`MAIL_HOST`] here, and believes its certificate.
    pub(crate) fn tables(&self) -> String {
        format!(
            "[client_documents]\nunsafe_loopback_hosts = {{ \"{MAIL_HOST}\" = \"{}\" }}\nunsafe_loopback_authority = {:?}\n",
            self.address,
            self.authority.to_str().unwrap(),
        )
    }

    pub(crate) async fn next(&self) -> ReceivedMail {
        let mut arrivals = self.arrivals.lock().await;
        tokio::time::timeout(PATIENCE, arrivals.recv()).await.expect("no mail came").unwrap()
    }

    /// Whether a message came that nobody has waited for.
    pub(crate) async fn is_empty(&self) -> bool {
        self.arrivals.lock().await.try_recv().is_err()
    }

    /// What was sent without TLS.
    pub(crate) fn plain(&self) -> Vec<String> {
        self.server.plain.lock().unwrap().clone()
    }
}

impl Drop for Mailbox {
    fn drop(&mut self) {
        self.task.abort();
        let _ = std::fs::remove_file(&self.authority);
    }
}

async fn serve(listener: TcpListener, server: Arc<Server>) {
    while let Ok((stream, _)) = listener.accept().await {
        let server = Arc::clone(&server);
        tokio::spawn(async move { converse(&server, stream).await });
    }
}

async fn converse(server: &Server, stream: TcpStream) -> Option<()> {
    if server.protection == Protection::Tls {
        let stream = server.acceptor.accept(stream).await.ok()?;
        return dialogue(server, stream, true, true).await.map(drop);
    }
    let stream = dialogue(server, stream, false, true).await?;
    let stream = server.acceptor.accept(stream).await.ok()?;
    dialogue(server, stream, true, false).await.map(drop)
}

/// Returns the stream after `STARTTLS`, and `None` after anything else.
async fn dialogue<S>(server: &Server, stream: S, encrypted: bool, greets: bool) -> Option<S>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut stream = BufReader::new(stream);
    let mut mail = ReceivedMail { encrypted, ..ReceivedMail::default() };
    let mut known = server.password.is_none();
    if greets {
        say(&mut stream, "220 mail.example ready").await?;
    }
    loop {
        let line = read_line(&mut stream).await?;
        if !encrypted {
            server.plain.lock().unwrap().push(line.clone());
        }
        let word = line.split(' ').next().unwrap_or_default().to_ascii_uppercase();
        let offers_tls =
            matches!(server.protection, Protection::StartTls | Protection::InjectedStartTls);
        match word.as_str() {
            "EHLO" => {
                say(&mut stream, "250-mail.example").await?;
                if offers_tls && !encrypted {
                    say(&mut stream, "250-STARTTLS").await?;
                }
                say(&mut stream, "250 AUTH PLAIN").await?;
            }
            "STARTTLS" if server.protection == Protection::InjectedStartTls => {
                say(&mut stream, "220 go on\r\n250 taken over").await?;
                return Some(stream.into_inner());
            }
            "STARTTLS" if offers_tls && !encrypted => {
                say(&mut stream, "220 go on").await?;
                return Some(stream.into_inner());
            }
            "AUTH" => {
                let sent = line.split(' ').nth(2).unwrap_or_default();
                let sent = STANDARD.decode(sent).unwrap_or_default();
                let wanted = format!("\0portcullis\0{}", server.password.unwrap_or_default());
                known = sent == wanted.as_bytes();
                say(&mut stream, if known { "235 welcome" } else { "535 wrong" }).await?;
            }
            "MAIL" if !known => say(&mut stream, "530 sign in first").await?,
            "MAIL" => {
                address_of(&line).clone_into(&mut mail.from);
                say(&mut stream, "250 ok").await?;
            }
            "RCPT" => {
                mail.to.push(address_of(&line).to_owned());
                say(&mut stream, "250 ok").await?;
            }
            "DATA" => {
                say(&mut stream, "354 go on").await?;
                mail.text = data(&mut stream).await?;
                say(&mut stream, "250 kept").await?;
                let _ = server.arrived.send(std::mem::take(&mut mail));
            }
            "QUIT" => {
                say(&mut stream, "221 bye").await?;
                return None;
            }
            _ => say(&mut stream, "500 what").await?,
        }
    }
}

fn address_of(line: &str) -> &str {
    line.split(['<', '>']).nth(1).unwrap_or_default()
}

/// Reads the message, without its final dot and without the dots that lines begin with for its sake.
async fn data<S: AsyncRead + Unpin>(stream: &mut BufReader<S>) -> Option<String> {
    let mut text = String::new();
    loop {
        let line = read_line(stream).await?;
        if line == "." {
            return Some(text);
        }
        text.push_str(line.strip_prefix('.').unwrap_or(&line));
        text.push_str("\r\n");
    }
}

async fn read_line<S: AsyncRead + Unpin>(stream: &mut BufReader<S>) -> Option<String> {
    let mut line = String::new();
    let read = stream.read_line(&mut line).await.ok()?;
    (read > 0).then(|| line.trim_end_matches(['\r', '\n']).to_owned())
}

async fn say<S>(stream: &mut BufReader<S>, line: &str) -> Option<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    stream.get_mut().write_all(format!("{line}\r\n").as_bytes()).await.ok()?;
    stream.get_mut().flush().await.ok()
}
