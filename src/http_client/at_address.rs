//! A request to one address of our choice, whatever host its URL names: our own listener, asked on this machine.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::iter::{Once, once};
use std::net::{IpAddr, SocketAddr};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::http::{Request, Response};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::dns::Name;
use hyper_util::rt::TokioExecutor;
use tower_service::Service;

use super::{HttpError, LONGEST_CONNECT, MAX_ANSWER, failed, with_tls};

/// Resolves every name to the same address. The port is that of the URL.
#[derive(Clone)]
struct AlwaysAt(IpAddr);

impl Service<Name> for AlwaysAt {
    type Response = Once<SocketAddr>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Name) -> Self::Future {
        ready(Ok(once(SocketAddr::new(self.0, 0))))
    }
}

/// Sends `request` to `address` without a proxy, and reads the whole response. The certificate must be for the
/// host of the URL.
pub async fn send_to(
    address: IpAddr,
    request: Request<Vec<u8>>,
    timeout: Duration,
) -> Result<Response<Vec<u8>>, HttpError> {
    let mut tcp = HttpConnector::new_with_resolver(AlwaysAt(address));
    tcp.enforce_http(false);
    tcp.set_connect_timeout(Some(timeout.min(LONGEST_CONNECT)));
    let client: Client<_, Full<Bytes>> = Client::builder(TokioExecutor::new()).build(with_tls(tcp));
    let exchange = async {
        let request = request.map(|body| Full::new(Bytes::from(body)));
        let answer = client.request(request).await.map_err(|error| failed(&error))?;
        let (parts, body) = answer.into_parts();
        let body = Limited::new(body, MAX_ANSWER).collect().await;
        let body = body.map_err(|error| HttpError::Connection(error.to_string()))?;
        Ok(Response::from_parts(parts, body.to_bytes().to_vec()))
    };
    tokio::time::timeout(timeout, exchange).await.map_err(|_| HttpError::Timeout(timeout))?
}
