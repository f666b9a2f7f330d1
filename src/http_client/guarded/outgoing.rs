//! Sends notifications to URLs and mail servers that an administrator named: threat NT-01.
//!
//! The administrator's URL may be wrong, and the owner of its name may lead it into our network later. So the
//! guard is that for strangers' URLs: every address is checked before a connection, unless the target may be
//! private; redirects are not followed, nothing of the answer but its status is read, and time is limited.

use std::time::Duration;

use axum::http::{HeaderName, HeaderValue, Request, StatusCode, header};
use http_body_util::Full;
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::client::TlsStream;
use url::Url;

use super::{FetchError, GuardedClient, MAX_HEADERS, Reach, broken};

/// Timeout of a whole request, from name resolution to the status of the answer: 10 s. Chat services answer
/// slowly at times.
pub const LONGEST_POST: Duration = Duration::from_secs(10);

/// A stream to a server.
pub trait OutgoingStream: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin + 'static> OutgoingStream for S {}

#[derive(Debug)]
pub struct OutgoingPost<'a> {
    /// The URL; `http` only if the configuration allowed it.
    pub url: &'a Url,
    /// Which addresses its host may have.
    pub reach: Reach,
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// JSON.
    pub body: Vec<u8>,
}

/// The answer to a request.
#[derive(Clone, Copy, Debug)]
pub struct PostAnswer {
    pub status: StatusCode,
    /// How long the server wants to be left alone (`Retry-After` in seconds).
    pub retry_after: Option<Duration>,
}

impl GuardedClient {
    /// Sends a request and returns the status of its answer, which may be a redirect or an error.
    pub async fn post(&self, post: OutgoingPost<'_>) -> Result<PostAnswer, FetchError> {
        tokio::time::timeout(LONGEST_POST, self.exchange_post(post))
            .await
            .map_err(|_| FetchError::Timeout)?
    }

    /// Connects to the host of a URL, with TLS where the URL wants it, and sends nothing.
    pub async fn knock(&self, url: &Url, reach: Reach) -> Result<(), FetchError> {
        tokio::time::timeout(LONGEST_POST, self.wire(url, reach))
            .await
            .map_err(|_| FetchError::Timeout)?
            .map(drop)
    }

    /// Connects to `host`, without TLS.
    pub async fn dial(&self, host: &str, port: u16, reach: Reach) -> Result<TcpStream, FetchError> {
        self.open(host, port, reach).await
    }

    /// Starts TLS over a connection from [`Self::dial`].
    pub async fn encrypt<S>(&self, host: &str, stream: S) -> Result<TlsStream<S>, FetchError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        self.protect(host, stream).await
    }

    async fn wire(&self, url: &Url, reach: Reach) -> Result<Box<dyn OutgoingStream>, FetchError> {
        let host = url.host_str().unwrap_or_default();
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let port = url.port_or_known_default().unwrap_or(443);
        if url.scheme() != "https" {
            return Ok(Box::new(self.open(host, port, reach).await?));
        }
        let origin = url.as_str().parse().map_err(broken)?;
        if let Some(hop) = self.ways.through(&origin) {
            let to_proxy = crate::http_client::connector(self.times.connect);
            let tunnel = hop.open(to_proxy, LONGEST_POST).await.map_err(broken)?;
            return Ok(Box::new(self.protect(host, TokioIo::new(tunnel)).await?));
        }
        let stream = self.open(host, port, reach).await?;
        Ok(Box::new(self.protect(host, stream).await?))
    }

    async fn exchange_post(&self, post: OutgoingPost<'_>) -> Result<PostAnswer, FetchError> {
        let OutgoingPost { url, reach, headers, body } = post;
        let stream = self.wire(url, reach).await?;
        let (mut sender, connection) = hyper::client::conn::http1::Builder::new()
            .max_buf_size(MAX_HEADERS.0)
            .max_headers(MAX_HEADERS.1)
            .handshake::<_, Full<Bytes>>(TokioIo::new(stream))
            .await
            .map_err(broken)?;
        // The task is aborted at the end of this function, which closes the connection.
        let mut driver = JoinSet::new();
        driver.spawn(connection);
        let mut request = Request::post(&url[url::Position::BeforePath..])
            .header(header::HOST, &url[url::Position::BeforeHost..url::Position::AfterPort])
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::USER_AGENT, "portcullis");
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let request = request.body(Full::new(Bytes::from(body))).map_err(broken)?;
        let answer = sender.send_request(request).await.map_err(broken)?;
        let seconds =
            answer.headers().get(header::RETRY_AFTER).and_then(|value| value.to_str().ok());
        let retry_after =
            seconds.and_then(|text| text.trim().parse().ok()).map(Duration::from_secs);
        Ok(PostAnswer { status: answer.status(), retry_after })
    }
}
