//! Refusals of the gateway, and the challenges that tell a client how to get access: RFC 6750 §3, RFC 9728
//! §5.1.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use serde_json::{Value, json};

use crate::app::App;
use crate::config::ResourceConfig;
use crate::oauth::scope::ScopeSet;
use crate::rate_limits::PermitRefused;
use crate::storage::StorageError;
use crate::web::error;

/// JSON-RPC error code for refusals that neither JSON-RPC nor MCP has a code for. It lies in the range that
/// JSON-RPC leaves to servers. `error.data` says what was refused.
const REFUSED: i32 = -32010;

/// Why the gateway did not forward a request.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum GatewayRefused {
    /// The request has no token. The challenge carries no error code (RFC 6750 §3.1).
    NoToken,
    /// The token is invalid, expired, revoked, or not valid for this resource.
    InvalidToken,
    /// The `Authorization` header is malformed.
    MalformedAuthorization,
    /// The operation needs scopes that the token lacks.
    InsufficientScope {
        /// All scopes that the operation needs.
        needed: ScopeSet,
        /// The scopes to ask for: those needed and those that the token has already. A client that asks for
        /// exactly these must not lose any.
        ask: ScopeSet,
    },
    /// The rules do not allow this person the tool. Holds the JSON-RPC result that says so.
    DeniedTool(Value),
    /// The `Origin` is not allowed.
    Origin,
    /// Not GET, POST or DELETE.
    Method,
    /// The client wants a WebSocket, which is not offered because the gateway could not check its messages.
    Upgrade,
    /// The body is larger than the gateway reads.
    TooLarge,
    /// The body did not arrive in time.
    TooSlow,
    /// The message is refused with an error of JSON-RPC or MCP.
    Message(MessageRefused),
    /// The client broke off its request body, or framed it wrongly.
    BrokenBody,
    /// A message to a server of the HTTP+SSE transport names no event stream.
    NoEventStream,
    /// This person, or this client of this person, has too many requests or streams open.
    TooMany(PermitRefused),
    /// The database cannot be reached, so the grant cannot be checked. Fails closed.
    Unavailable,
    /// The grant cannot be checked because of a fault of ours; retrying does not help.
    Broken,
    /// The MCP server cannot be reached, or its response cannot be passed on.
    BadGateway(&'static str),
    /// The MCP server does not respond in time.
    GatewayTimeout,
    /// The call needs a person's token of a service, and cannot have it.
    Service(ServiceRefused),
}

/// Why a call that needs a person's token of a service is not answered by the MCP server.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ServiceRefused {
    /// The person has to do something first. Holds the JSON-RPC response that says so.
    NotConnected(Value),
    /// The same for a request that cannot have such a response. Holds the words.
    Forbidden(String),
    /// The service that issues the token does not answer. Holds the words.
    Unavailable(String),
    /// The MCP server refused the token that was sent with the request. Holds the words.
    TokenRefused(String),
}

impl From<ServiceRefused> for GatewayRefused {
    fn from(refused: ServiceRefused) -> Self {
        Self::Service(refused)
    }
}

/// Why a message is refused with an error that JSON-RPC or MCP has a code for. Holds the id of the request
/// where it is known.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum MessageRefused {
    /// The body is not JSON-RPC, and tool rules need to read it.
    NotJsonRpc,
    /// Some servers would read the method as another one.
    Misspelled(Value),
    /// The name of a method, tool or member has control characters, where some servers end it.
    Unclear(Value),
    /// The session id was not issued to this caller. A client then starts a new session.
    UnknownSession,
    /// The event id was not issued to this caller.
    UnknownEvent,
    /// The task is not this caller's.
    UnknownTask(Value),
    /// The `requestState` is ours, and belongs to another caller or request, or has ended.
    WrongState(Value),
    /// Headers of the request contradict its body (MCP 2026-07-28).
    HeaderMismatch(Value),
    /// A header that MCP demands since 2026-07-28 is missing.
    HeaderMissing(Value, &'static str),
}

impl From<MessageRefused> for GatewayRefused {
    fn from(refused: MessageRefused) -> Self {
        Self::Message(refused)
    }
}

impl GatewayRefused {
    /// Returns the refusal for a failed database lookup.
    pub(super) fn not_looked_up(cause: &StorageError) -> Self {
        match cause {
            StorageError::Refused(_) => Self::Broken,
            _ => Self::Unavailable,
        }
    }

    /// Builds the response. If the request was a JSON-RPC request with an id, the response is a JSON-RPC
    /// error, whose `error.data` carries the OAuth error.
    pub(super) fn into_response(
        self,
        resource: &ResourceConfig,
        app: &App,
        id: Option<Value>,
    ) -> Response {
        let challenge = Challenge { resource, app, id };
        let plain = |status, error, description| challenge.refusal(status, error, description);
        match self {
            Self::NoToken => challenge.unauthorized(None, "Sign in to use this MCP server"),
            Self::InvalidToken => challenge.invalid_token(),
            Self::InsufficientScope { needed, ask } => challenge.insufficient(&needed, &ask),
            Self::DeniedTool(result) => error::json(StatusCode::OK, &result),
            Self::MalformedAuthorization => challenge.malformed_authorization(),
            Self::Origin => plain(
                StatusCode::FORBIDDEN,
                "origin_not_allowed",
                "Web pages of this origin may not use this MCP server; the administrator can list it in allowed_origins",
            ),
            Self::Method => challenge
                .other_methods("GET, POST, DELETE", "Only GET, POST and DELETE are used by MCP"),
            Self::Upgrade => challenge.no_upgrade(),
            Self::TooLarge => plain(
                StatusCode::PAYLOAD_TOO_LARGE,
                "request_too_large",
                "The request body is too large for this gateway",
            ),
            Self::TooSlow => plain(
                StatusCode::REQUEST_TIMEOUT,
                "request_too_slow",
                "The request body did not arrive in time",
            ),
            Self::Message(refused) => refused.into_response(),
            Self::BrokenBody => plain(
                StatusCode::BAD_REQUEST,
                "invalid_request",
                "The request body did not arrive whole",
            ),
            Self::NoEventStream => challenge.no_event_stream(),
            Self::TooMany(whose) => challenge.too_many(whose),
            Self::Unavailable => retry_soon(plain(
                StatusCode::SERVICE_UNAVAILABLE,
                "temporarily_unavailable",
                "Access cannot be checked right now; try again",
            )),
            Self::Broken => {
                plain(StatusCode::INTERNAL_SERVER_ERROR, "server_error", "Access cannot be checked")
            }
            Self::BadGateway(what) => plain(StatusCode::BAD_GATEWAY, "bad_gateway", what),
            Self::GatewayTimeout => plain(
                StatusCode::GATEWAY_TIMEOUT,
                "gateway_timeout",
                "The MCP server did not answer in time",
            ),
            Self::Service(refused) => challenge.of_service(&refused),
        }
    }
}

impl MessageRefused {
    /// Builds the response: a JSON-RPC error.
    fn into_response(self) -> Response {
        let invalid =
            |id: &Value, message: &str| json_rpc(StatusCode::BAD_REQUEST, id, -32600, message);
        let header =
            |id: &Value, message: &str| json_rpc(StatusCode::BAD_REQUEST, id, -32020, message);
        match self {
            Self::NotJsonRpc => {
                json_rpc(StatusCode::BAD_REQUEST, &Value::Null, -32700, "The body is not JSON-RPC")
            }
            Self::Misspelled(id) => {
                invalid(&id, "The method is spelled in a way that some servers read as another one")
            }
            Self::Unclear(id) => {
                invalid(&id, "The name of a method, tool or member has control characters")
            }
            Self::UnknownEvent => invalid(
                &Value::Null,
                "Last-Event-ID names no event that this person and client were sent",
            ),
            // The same error as the tasks extension prescribes for a task that does not exist, so that the
            // caller cannot tell the two apart.
            Self::UnknownTask(id) => {
                json_rpc(StatusCode::BAD_REQUEST, &id, -32602, "Task not found")
            }
            Self::WrongState(id) => {
                let told = "requestState has ended or belongs to another request; send the request without it";
                json_rpc(StatusCode::BAD_REQUEST, &id, -32602, told)
            }
            Self::UnknownSession => {
                json_rpc(StatusCode::NOT_FOUND, &Value::Null, -32001, "Session not found")
            }
            Self::HeaderMismatch(id) => {
                header(&id, "Mcp-Method, Mcp-Name or MCP-Protocol-Version contradicts the body")
            }
            Self::HeaderMissing(id, name) => header(
                &id,
                &format!("The header {name} is missing; MCP demands it since 2026-07-28"),
            ),
        }
    }
}

/// Returns the challenge to add to a 403 that the MCP server sends for missing scopes. `scopes` holds the
/// needed scopes and those to ask for; `None` if the server does not say which scopes it needs.
pub(super) fn beside_a_refusal(
    resource: &ResourceConfig,
    app: &App,
    scopes: Option<(&ScopeSet, &ScopeSet)>,
) -> Option<HeaderValue> {
    let challenge = Challenge { resource, app, id: None };
    match scopes {
        Some((needed, ask)) => challenge.of_scopes(&describe(needed), Some(ask)),
        None => challenge.of_scopes("This needs more than the access token allows", None),
    }
}

fn describe(needed: &ScopeSet) -> String {
    format!("This needs the scope {needed}")
}

fn json_rpc(status: StatusCode, id: &Value, code: i32, message: &str) -> Response {
    let body = json!({ "jsonrpc": "2.0", "id": id, "error": { "code": code, "message": message } });
    error::json(status, &body)
}

fn retry_soon(mut response: Response) -> Response {
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("2"));
    response
}

struct Challenge<'a> {
    resource: &'a ResourceConfig,
    app: &'a App,
    /// The JSON-RPC id of the request.
    id: Option<Value>,
}

impl Challenge<'_> {
    fn refusal(&self, status: StatusCode, error: &str, description: &str) -> Response {
        let said = json!({ "error": error, "error_description": description });
        let Some(id) = &self.id else { return error::json(status, &said) };
        let error = json!({ "code": REFUSED, "message": description, "data": said });
        error::json(status, &json!({ "jsonrpc": "2.0", "id": id, "error": error }))
    }

    /// Returns the response to a call that cannot have a token of a service. It is no challenge: more scopes at our
    /// end would not help.
    fn of_service(&self, refused: &ServiceRefused) -> Response {
        match refused {
            ServiceRefused::NotConnected(response) => error::json(StatusCode::OK, response),
            ServiceRefused::Forbidden(words) => {
                self.refusal(StatusCode::FORBIDDEN, "connection_required", words)
            }
            ServiceRefused::Unavailable(words) => retry_soon(self.refusal(
                StatusCode::SERVICE_UNAVAILABLE,
                "temporarily_unavailable",
                words,
            )),
            ServiceRefused::TokenRefused(words) => {
                self.refusal(StatusCode::BAD_GATEWAY, "bad_gateway", words)
            }
        }
    }

    /// Returns a 401. It names all default scopes, because several clients cannot step up later.
    fn unauthorized(&self, error: Option<&str>, description: &str) -> Response {
        let code = error.unwrap_or("unauthorized");
        let mut response = self.refusal(StatusCode::UNAUTHORIZED, code, description);
        let scope = self.resource.policy.default_scopes.to_string();
        let mut params: Vec<(&str, &str)> = Vec::new();
        if let Some(error) = error {
            params.push(("error", error));
            params.push(("error_description", description));
        }
        if !scope.is_empty() {
            params.push(("scope", &scope));
        }
        self.attach(&mut response, &params);
        response
    }

    fn invalid_token(&self) -> Response {
        self.unauthorized(
            Some("invalid_token"),
            "The access token is invalid, expired, revoked or for another MCP server",
        )
    }

    fn malformed_authorization(&self) -> Response {
        let description = "The Authorization header is malformed";
        let mut response = self.refusal(StatusCode::BAD_REQUEST, "invalid_request", description);
        self.attach(
            &mut response,
            &[("error", "invalid_request"), ("error_description", description)],
        );
        response
    }

    /// Returns a 405 that names the methods to use instead.
    fn other_methods(&self, methods: &'static str, description: &str) -> Response {
        let status = StatusCode::METHOD_NOT_ALLOWED;
        let mut response = self.refusal(status, "method_not_allowed", description);
        response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(methods));
        response
    }

    fn no_event_stream(&self) -> Response {
        self.other_methods(
            "GET",
            "This MCP server speaks HTTP+SSE (2024-11-05): open the event stream with GET; it names the address of messages",
        )
    }

    fn no_upgrade(&self) -> Response {
        let mut response = self.refusal(
            StatusCode::UPGRADE_REQUIRED,
            "upgrade_not_supported",
            "WebSocket is not supported: MCP is spoken over HTTP here",
        );
        // A 426 must name the protocol to use instead (RFC 9110 §15.5.22).
        let headers = response.headers_mut();
        headers.insert(header::UPGRADE, HeaderValue::from_static("HTTP/1.1"));
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        response
    }

    fn too_many(&self, whose: PermitRefused) -> Response {
        let description = match whose {
            PermitRefused::Person => {
                "Too many requests or event streams of this person are open at once"
            }
            PermitRefused::Client => {
                "Too many requests or event streams of this client are open at once for this person"
            }
        };
        let status = StatusCode::TOO_MANY_REQUESTS;
        retry_soon(self.refusal(status, "too_many_requests", description))
    }

    /// Returns a 403 that names every scope to ask for.
    fn insufficient(&self, needed: &ScopeSet, ask: &ScopeSet) -> Response {
        let description = describe(needed);
        let mut response = self.refusal(StatusCode::FORBIDDEN, "insufficient_scope", &description);
        if let Some(value) = self.of_scopes(&description, Some(ask)) {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, value);
        }
        response
    }

    fn of_scopes(&self, description: &str, ask: Option<&ScopeSet>) -> Option<HeaderValue> {
        let ask = ask.map(ToString::to_string);
        let mut params = vec![("error", "insufficient_scope"), ("error_description", description)];
        params.extend(ask.as_deref().map(|ask| ("scope", ask)));
        self.value(&params)
    }

    fn attach(&self, response: &mut Response, params: &[(&str, &str)]) {
        if let Some(value) = self.value(params) {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, value);
        }
    }

    fn value(&self, params: &[(&str, &str)]) -> Option<HeaderValue> {
        let path = self.resource.path.as_deref().unwrap_or_default();
        let metadata = self.app.config().public_url.well_known("oauth-protected-resource", path);
        let mut value = format!("Bearer resource_metadata=\"{metadata}\"");
        for (name, text) in params {
            // Neither scopes (RFC 6749 §3.3) nor our own texts contain `"` or `\`.
            value.extend([", ", name, "=\"", text, "\""]);
        }
        HeaderValue::from_str(&value).ok()
    }
}
