//! `listen_http`: redirects to https, and answers health probes.

use axum::Router;
use axum::extract::{Request, State};
use axum::http::uri::PathAndQuery;
use axum::http::{Method, StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::guard::answer;
use crate::app::App;
use crate::endpoints;

/// Returns the routes. Probes find `/health` and `/ready` below the path of `public_url` too.
pub(super) fn routes(base_path: &str) -> Router<App> {
    let routes = endpoints::health_routes().fallback(to_https);
    if base_path.is_empty() {
        return routes;
    }
    routes.nest(base_path, endpoints::health_routes())
}

/// Redirects what a browser asks for. Refuses everything else, and every request with a token: it has crossed the
/// network in plain text, and a client that followed a redirect would do the same again the next time (threat
/// TL-02). The target is `public_url`, whatever the request says its host is.
async fn to_https(State(app): State<App>, request: Request) -> Response {
    let origin = app.config().public_url.origin();
    let reads = matches!(*request.method(), Method::GET | Method::HEAD);
    if !reads || request.headers().contains_key(header::AUTHORIZATION) {
        let told = format!(
            "This port only redirects to https. Send requests to {origin}, and replace a token that was sent here: it was not encrypted"
        );
        return answer(StatusCode::BAD_REQUEST, "https_required", &told);
    }
    let target = request.uri().path_and_query().map_or("/", PathAndQuery::as_str);
    let location = [(header::LOCATION, format!("{origin}{target}"))];
    (StatusCode::PERMANENT_REDIRECT, location).into_response()
}
