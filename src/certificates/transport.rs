//! The requests of an order, through our own HTTP client: with its limits, and through the proxies of the environment.

use std::pin::Pin;

use http_body_util::{BodyExt as _, Full};
use hyper::Request;
use hyper::body::Bytes;
use instant_acme::{BodyWrapper, BytesResponse, Error};

use crate::http_client::HttpClient;

/// The HTTP client of an order.
pub(super) struct AcmeTransport(pub(super) HttpClient);

impl instant_acme::HttpClient for AcmeTransport {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        let client = self.0.clone();
        Box::pin(async move {
            let (parts, body) = request.into_parts();
            let Ok(body) = body.collect().await;
            let request = Request::from_parts(parts, body.to_bytes().to_vec());
            let answer = client.send(request).await.map_err(|error| Error::Other(error.into()))?;
            Ok(BytesResponse::from(answer.map(|body| Full::new(Bytes::from(body)))))
        })
    }
}
