//! Mail: threats NT-01 and NT-04. The connection and its TLS are ours (`http_client::guarded`), the messages and the
//! dialogue are `lettre`'s.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, UNIX_EPOCH};

use lettre::address::Envelope;
use lettre::message::header::{ContentType, HeaderName, HeaderValue};
use lettre::message::{Mailbox, Message};
use lettre::transport::smtp::authentication::{Credentials, Mechanism};
use lettre::transport::smtp::client::{AsyncSmtpConnection, AsyncTokioStream};
use lettre::transport::smtp::extension::ClientId;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;

use super::DeliveryFailed;
use super::message::Notification;
use crate::config::{MailSecurity, MailServer};
use crate::http_client::guarded::{FetchError, GuardedClient, Reach};

/// Timeout of a whole delivery: 30 s. Mail servers greet slowly on purpose.
const LONGEST_MAIL: Duration = Duration::from_secs(30);
/// Longest line, and most lines, of a server's reply before TLS (RFC 5321 §4.5.3.1.5 allows 512 bytes).
const LONGEST_LINE: usize = 1_024;
const MOST_LINES: usize = 64;
/// How we greet. Reveals no name of this machine.
const HELLO: &str = "[127.0.0.1]";

pub(super) async fn send(
    http: &GuardedClient,
    server: &MailServer,
    reach: Reach,
    message: &Notification,
) -> Result<(), DeliveryFailed> {
    let (envelope, bytes) = composed(server, message)?;
    within(async {
        let mut connection = connected(http, server, reach).await?;
        connection.send(&envelope, &bytes).await.map_err(|error| refused("the message", &error))?;
        let _ = connection.quit().await; // the message is accepted, whatever the server says to this
        Ok(())
    })
    .await
}

/// Connects and signs in, without a message.
pub(super) async fn knock(
    http: &GuardedClient,
    server: &MailServer,
    reach: Reach,
) -> Result<(), DeliveryFailed> {
    within(async {
        let mut connection = connected(http, server, reach).await?;
        let _ = connection.quit().await;
        Ok(())
    })
    .await
}

async fn within(
    dialogue: impl Future<Output = Result<(), DeliveryFailed>>,
) -> Result<(), DeliveryFailed> {
    let late = DeliveryFailed::Unreachable(FetchError::Timeout);
    tokio::time::timeout(LONGEST_MAIL, dialogue).await.unwrap_or(Err(late))
}

/// Composes the message. The subject has no names, and the body is encoded, so nobody else's text becomes a
/// header.
fn composed(
    server: &MailServer,
    message: &Notification,
) -> Result<(Envelope, Vec<u8>), DeliveryFailed> {
    let odd = |what: &str| DeliveryFailed::Mail(format!("gets no message: {what} is not valid"));
    let mailbox = |name: Option<&str>, address: &str| {
        let address = address.parse().map_err(|_| odd("an address"))?;
        Ok::<_, DeliveryFailed>(Mailbox::new(name.map(str::to_owned), address))
    };
    let seconds = u64::try_from(message.created_at.unix()).unwrap_or_default();
    let mut builder = Message::builder()
        .from(mailbox(Some("Portcullis"), &server.from)?)
        .subject(format!("[Portcullis] {}", message.title()))
        .date(UNIX_EPOCH + Duration::from_secs(seconds))
        // The same for every attempt, so that mailboxes show a message once.
        .message_id(Some(format!("<{}@portcullis>", message.id)))
        .header(ContentType::TEXT_PLAIN);
    for recipient in &server.to {
        builder = builder.to(mailbox(None, recipient)?);
    }
    let mut mail = builder.body(message.text()).map_err(|_| odd("the message"))?;
    // So that nobody's holiday answers it (RFC 3834).
    let name = HeaderName::new_from_ascii_str("Auto-Submitted");
    mail.headers_mut().insert_raw(HeaderValue::new(name, "auto-generated".to_owned()));
    Ok((mail.envelope().clone(), mail.formatted()))
}

async fn connected(
    http: &GuardedClient,
    server: &MailServer,
    reach: Reach,
) -> Result<AsyncSmtpConnection, DeliveryFailed> {
    let host = server.host.trim_start_matches('[').trim_end_matches(']');
    let mut stream = http.dial(host, server.port, reach).await?;
    let peer = stream.peer_addr().map_err(|error| broken(&error))?;
    let wire: Box<dyn AsyncTokioStream> = match server.security {
        MailSecurity::Tls => {
            Box::new(MailStream { greeting: b"", peer, inner: http.encrypt(host, stream).await? })
        }
        MailSecurity::StartTls => {
            start_tls(&mut stream).await?;
            // The server has greeted already, and lettre waits for it.
            let inner = http.encrypt(host, stream).await?;
            Box::new(MailStream { greeting: b"220 protected\r\n", peer, inner })
        }
        MailSecurity::None => Box::new(stream),
    };
    let hello = ClientId::default();
    let mut connection = AsyncSmtpConnection::connect_with_transport(wire, &hello)
        .await
        .map_err(|error| refused("the greeting", &error))?;
    if let Some((name, password)) = &server.login {
        let credentials = Credentials::new(name.clone(), password.expose().to_owned());
        connection
            .auth(&[Mechanism::Plain, Mechanism::Login], &credentials)
            .await
            .map_err(|error| refused("the user name and password", &error))?;
    }
    Ok(connection)
}

fn refused(what: &str, error: &lettre::transport::smtp::Error) -> DeliveryFailed {
    DeliveryFailed::Mail(match error.status() {
        Some(code) => format!("refused {what} with {code}"),
        None if error.is_timeout() => format!("did not answer to {what} in time"),
        None => format!("broke off at {what}"),
    })
}

fn broken(error: &io::Error) -> DeliveryFailed {
    DeliveryFailed::Unreachable(FetchError::Connection(error.to_string()))
}

/// Asks for TLS (RFC 3207). Every byte before it can be somebody else's, so nothing of it is kept; bytes that come
/// with the last reply are read by TLS, which refuses them.
async fn start_tls(stream: &mut TcpStream) -> Result<(), DeliveryFailed> {
    expect(stream, 220, "the connection").await?;
    say(stream, &format!("EHLO {HELLO}\r\n")).await?;
    let offers = expect(stream, 250, "the greeting").await?;
    if !offers.iter().any(|offer| offer.eq_ignore_ascii_case("STARTTLS")) {
        let text = "does not offer STARTTLS, and nothing is sent without it";
        return Err(DeliveryFailed::Mail(text.to_owned()));
    }
    say(stream, "STARTTLS\r\n").await?;
    expect(stream, 220, "STARTTLS").await?;
    Ok(())
}

async fn say(stream: &mut TcpStream, line: &str) -> Result<(), DeliveryFailed> {
    stream.write_all(line.as_bytes()).await.map_err(|error| broken(&error))
}

/// Reads a reply that must have this code, and returns the texts of its lines.
async fn expect(
    stream: &mut TcpStream,
    code: u16,
    what: &str,
) -> Result<Vec<String>, DeliveryFailed> {
    let mut texts = Vec::new();
    while texts.len() < MOST_LINES {
        let line = line(stream).await?;
        let (Some(status), Some(separator)) =
            (line.get(..3), line.as_bytes().get(3).or(Some(&b' ')))
        else {
            break;
        };
        if status.parse() != Ok(code) {
            let status: String = status.chars().filter(char::is_ascii_digit).collect();
            return Err(DeliveryFailed::Mail(format!("refused {what} with {status}")));
        }
        texts.push(line.get(4..).unwrap_or_default().trim().to_owned());
        if *separator != b'-' {
            return Ok(texts);
        }
    }
    Err(DeliveryFailed::Mail(format!("broke off at {what}")))
}

/// Reads a line, byte by byte: what follows it belongs to TLS.
async fn line(stream: &mut TcpStream) -> Result<String, DeliveryFailed> {
    let mut bytes = Vec::new();
    while bytes.len() < LONGEST_LINE {
        match stream.read_u8().await.map_err(|error| broken(&error))? {
            b'\n' => break,
            byte => bytes.push(byte),
        }
    }
    Ok(String::from_utf8_lossy(&bytes).trim_end().to_owned())
}

/// A stream on which the server seems to greet, although it did before TLS.
#[derive(Debug)]
struct MailStream<S> {
    greeting: &'static [u8],
    peer: SocketAddr,
    inner: S,
}

impl<S> AsyncTokioStream for MailStream<S>
where
    S: AsyncRead + AsyncWrite + Send + Sync + Unpin + std::fmt::Debug,
{
    fn peer_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.peer)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for MailStream<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.greeting.is_empty() {
            return Pin::new(&mut this.inner).poll_read(context, buffer);
        }
        let (now, later) = this.greeting.split_at(this.greeting.len().min(buffer.remaining()));
        buffer.put_slice(now);
        this.greeting = later;
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for MailStream<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().inner).poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_shutdown(context)
    }
}
