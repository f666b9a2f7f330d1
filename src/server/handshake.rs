//! TLS handshakes. A client that is silent, slow, or speaks no TLS costs a connection for a limited time and nothing
//! else (threat TL-01): the limits of open connections count it as every other.

use std::io;
use std::time::Duration;

use rustls::server::Acceptor;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;

use super::socket::WriteTimeoutSocket;
use crate::app::App;

/// The first byte of a TLS connection: a handshake record (RFC 8446 §5.1).
const HANDSHAKE: u8 = 22;
/// The protocol by which an ACME server validates a domain (RFC 8737).
const ACME_TLS: &[u8] = b"acme-tls/1";
/// The answer to HTTP without TLS, as other servers give it.
const NOT_TLS: &str =
    "{\"error\":\"https_required\",\"error_description\":\"This port speaks https only\"}";

/// The time limits of a handshake.
#[derive(Clone, Copy, Debug)]
pub(super) struct HandshakeTimes {
    pub(super) first_byte: Duration,
    /// For the rest.
    pub(super) handshake: Duration,
    /// For the peer to read some of what we send.
    pub(super) writes: Duration,
}

/// Which protocols a listener offers to its clients.
#[derive(Clone, Copy, Debug)]
pub(super) struct AlpnOffer {
    /// HTTP/2, besides HTTP/1.1.
    pub(super) http2: bool,
    /// The validation by an ACME server.
    pub(super) acme: bool,
}

/// Returns the connection after its handshake. `None` if the client was silent, too slow or spoke no TLS, or if
/// it was an ACME server that has seen what it came for.
pub(super) async fn accept(
    stream: TcpStream,
    app: &App,
    offer: AlpnOffer,
    times: HandshakeTimes,
) -> Option<Box<TlsStream<WriteTimeoutSocket>>> {
    let mut said = [0];
    let first = timeout_at(Instant::now() + times.first_byte, stream.peek(&mut said));
    if first.await.ok()?.ok()? == 0 {
        return None;
    }
    let until = Instant::now() + times.handshake;
    if said[0] != HANDSHAKE {
        let _ = timeout_at(until, refuse_plain_text(stream)).await;
        return None;
    }
    let socket = WriteTimeoutSocket::new(stream, times.writes);
    match timeout_at(until, Box::pin(shake_hands(socket, app, offer))).await {
        Ok(Ok(stream)) => stream.map(Box::new),
        Ok(Err(cause)) => {
            tracing::debug!(%cause, "a TLS handshake failed");
            None
        }
        Err(_) => {
            tracing::debug!("a TLS handshake took too long");
            None
        }
    }
}

async fn shake_hands(
    socket: WriteTimeoutSocket,
    app: &App,
    offer: AlpnOffer,
) -> io::Result<Option<TlsStream<WriteTimeoutSocket>>> {
    let started = LazyConfigAcceptor::new(Acceptor::default(), socket).await?;
    let certificates = app.certificates();
    let validated = {
        let hello = started.client_hello();
        let asks = hello.alpn().is_some_and(|mut offered| offered.any(|name| name == ACME_TLS));
        (offer.acme && asks).then(|| hello.server_name().unwrap_or_default().to_owned())
    };
    if let Some(name) = validated {
        let Some(config) = certificates.challenge(&name).await else {
            return Err(io::Error::other("an ACME server asks for a name that we did not order"));
        };
        tracing::info!(name, "an ACME server validates a domain");
        let mut stream = started.into_stream(config).await?;
        let _ = stream.shutdown().await;
        return Ok(None);
    }
    let config = certificates.server_config(offer.http2);
    let config = config.ok_or_else(|| io::Error::other("there is no certificate"))?;
    started.into_stream(config).await.map(Some)
}

/// Tells a client that it forgot TLS.
async fn refuse_plain_text(mut stream: TcpStream) -> io::Result<()> {
    // What arrived is read first: the kernel answers unread bytes with a reset, and the client would lose the
    // response.
    let _ = stream.read(&mut [0; 4096]).await?;
    let length = NOT_TLS.len();
    let answer = format!(
        "HTTP/1.1 400 Bad Request\r\nContent-Type: application/json\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{NOT_TLS}"
    );
    stream.write_all(answer.as_bytes()).await?;
    stream.shutdown().await
}
