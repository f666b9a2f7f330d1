//! Everything that one listener serves: its routes behind the guard.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::http::uri::PathAndQuery;
use axum::http::{StatusCode, Uri};
use axum::middleware;
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt as _;
use hyper::service::Service as _;
use hyper_util::service::TowerToHyperService;
use tower_http::catch_panic::CatchPanicLayer;

use super::guard::{Arrival, ListenerContext, answer, guard, pass_guard};
use super::redirect;
use crate::app::App;
use crate::config::PublicUrl;
use crate::gateway::GatewayRoutes;
use crate::telemetry;
use crate::telemetry::metrics::ListenerKind;
use crate::web::client_address::Peer;
use crate::{admin, endpoints};

/// Everything that one listener serves.
pub struct Service {
    context: Arc<ListenerContext>,
    gateway_routes: Option<GatewayRoutes>,
    router: Router,
    /// Responds to requests outside the path of `public_url`.
    elsewhere: Router,
}

impl Service {
    /// The service of the public listener: the OAuth endpoints and the MCP gateway.
    pub fn public(app: App) -> Self {
        let routes = endpoints::routes(&app).fallback(endpoints::not_found);
        let gateway_routes = Some(GatewayRoutes::of(&app));
        let (url, listen) = (app.config().public_url.clone(), app.config().listen);
        Self::new(
            routes,
            gateway_routes,
            ListenerContext { app, side: ListenerKind::Public, url, listen },
        )
    }

    /// The service of the admin listener; `None` if none is configured.
    pub(super) fn admin(app: App) -> Option<Self> {
        let admin = app.config().admin.as_ref()?;
        let (url, listen) = (admin.url.clone(), admin.listen);
        let context = ListenerContext { app, side: ListenerKind::Admin, url, listen };
        Some(Self::new(admin::routes(), None, context))
    }

    /// The service of the listener that redirects to https; `None` if none is configured.
    pub(super) fn redirecting(app: App) -> Option<Self> {
        let listen = app.config().listen_http?;
        let url = app.config().public_url.clone();
        let routes = redirect::routes(url.base_path());
        let context = ListenerContext { app, side: ListenerKind::Plain, url, listen };
        Some(Self::new(routes, None, context))
    }

    fn new(
        routes: Router<App>,
        gateway_routes: Option<GatewayRoutes>,
        context: ListenerContext,
    ) -> Self {
        let (app, context) = (context.app.clone(), Arc::new(context));
        let guarded = |routes: Router<App>| {
            routes
                .layer(middleware::from_fn_with_state(Arc::clone(&context), guard))
                .layer(CatchPanicLayer::custom(panicked))
                .with_state(app.clone())
        };
        let elsewhere = guarded(Router::new().fallback(endpoints::not_below_our_path));
        let router = guarded(routes);
        Self { context, gateway_routes, router, elsewhere }
    }

    /// Returns the response to a request that came over no connection.
    pub async fn answer(&self, request: Request) -> Response {
        self.answer_to(Box::new(request), Arrival::default()).await
    }

    /// Returns the response to a request. Calls of MCP servers are by far the most frequent requests. They
    /// bypass the route table, because each of its layers would wrap them once more, but they pass the same
    /// guard.
    ///
    /// This is the only place that strips the path of `public_url`; the routes do not know it.
    pub(super) async fn answer_to(&self, mut request: Box<Request>, arrival: Arrival) -> Response {
        let is_rooted = self.context.url.base_path().is_empty();
        if !is_rooted && self.context.side != ListenerKind::Plain {
            let Some(uri) = below_our_path(&self.context.url, request.uri()) else {
                return routed(&self.elsewhere, request, arrival).await;
            };
            *request.uri_mut() = uri;
        }
        let gateway_routes = self.gateway_routes.as_ref();
        let Some(gateway_route) =
            gateway_routes.and_then(|gateway_routes| gateway_routes.at(request.uri().path()))
        else {
            return routed(&self.router, request, arrival).await;
        };
        if let (Some(peer), Some(_)) = (arrival.peer, self.context.app.tracing()) {
            request.extensions_mut().insert(Peer(peer)); // only traces show it
        }
        let next = |request| gateway_route.pass(&self.context.app, request);
        let path = gateway_route.path();
        let guarded = pass_guard(&self.context, path, (request, arrival), next);
        AssertUnwindSafe(guarded).catch_unwind().await.unwrap_or_else(panicked)
    }
}

/// Passes a request to a route table.
async fn routed(router: &Router, mut request: Box<Request>, arrival: Arrival) -> Response {
    let extensions = request.extensions_mut();
    extensions.insert(arrival);
    if let Some(peer) = arrival.peer {
        extensions.insert(Peer(peer));
    }
    let Ok(response) = TowerToHyperService::new(router.clone()).call(*request).await;
    response
}

/// Returns the URI without the path of `public_url`; `None` if the request is not below that path.
fn below_our_path(url: &PublicUrl, asked: &Uri) -> Option<Uri> {
    let path = url.within(asked.path())?;
    let target = match asked.query() {
        Some(query) => format!("{path}?{query}"),
        None => path.into_owned(),
    };
    let mut parts = asked.clone().into_parts();
    parts.path_and_query = Some(PathAndQuery::try_from(target).ok()?);
    Uri::from_parts(parts).ok()
}

#[expect(clippy::needless_pass_by_value, reason = "the layer hands it over")]
/// Responds with a bare 500 after a panic; only the log has the panic message.
fn panicked(panic: Box<dyn std::any::Any + Send + 'static>) -> Response {
    tracing::error!(panic = telemetry::message_of(&*panic), "a request panicked");
    answer(StatusCode::INTERNAL_SERVER_ERROR, "server_error", "Something broke on our side")
        .into_response()
}
