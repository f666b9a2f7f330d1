//! Our authentication as a client at a token endpoint or beside it (RFC 6749 §2.3.1).

use axum::http::{Request, header};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::config::ClientAuth;

/// How a server knows us.
#[derive(Clone, Copy)]
pub struct ClientLogin<'a> {
    pub client_id: &'a str,
    pub client_secret: &'a str,
    /// Where both are sent; [`ClientAuth::Auto`] is Basic.
    pub method: ClientAuth,
}

impl ClientLogin<'_> {
    /// Builds a form request with client authentication. Fails if `endpoint` is not a URL.
    pub fn form(
        &self,
        endpoint: &str,
        form: &[(&str, &str)],
    ) -> Result<Request<Vec<u8>>, axum::http::Error> {
        let mut body = form_urlencoded::Serializer::new(String::new());
        body.extend_pairs(form);
        let mut request = Request::post(endpoint)
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .header(header::ACCEPT, "application/json");
        if self.method == ClientAuth::Post {
            body.append_pair("client_id", self.client_id)
                .append_pair("client_secret", self.client_secret);
        } else {
            request = request.header(header::AUTHORIZATION, self.basic());
        }
        request.body(body.finish().into_bytes())
    }

    /// Returns the value of an `Authorization` header. Both parts are form-encoded before they are joined.
    pub fn basic(&self) -> String {
        let encode =
            |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
        let pair = format!("{}:{}", encode(self.client_id), encode(self.client_secret));
        format!("Basic {}", STANDARD.encode(pair))
    }
}
