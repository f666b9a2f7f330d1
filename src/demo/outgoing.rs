//! Requests that the demo servers send, each on a connection of its own.

use std::net::SocketAddr;

use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// Reasons why a request got no response.
pub(super) type NotSent = Box<dyn std::error::Error + Send + Sync>;

/// Sends the request to `target` with HTTP/1.1. The body of the response is passed on as it arrives.
pub(super) async fn send(target: SocketAddr, mut request: Request) -> Result<Response, NotSent> {
    *request.version_mut() = axum::http::Version::HTTP_11;
    let stream = TcpStream::connect(target).await?;
    stream.set_nodelay(true)?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(async move {
        let _ = connection.await; // ends with the response, or when nobody reads it any more
    });
    Ok(sender.send_request(request).await?.map(Body::new))
}
