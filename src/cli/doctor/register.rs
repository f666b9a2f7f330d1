//! Tests of registration, and of the authorization and token endpoints as far as possible without a person.

use serde_json::Value;

use super::visit::Visit;
use super::walk::Found;
use super::wire::Ask;
use crate::oauth::redirect_uri::leads_to;

/// The example challenge of RFC 7636, Appendix B. The doctor redeems no code, so it needs no verifier.
const CHALLENGE: &str = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";
/// A client id that no server knows.
const NOBODY: &str = "portcullis-doctor-unknown-client";

struct RegisteredClient {
    client_id: String,
    redirect_uri: String,
    answer: Value,
}

impl Visit<'_> {
    /// Tests everything that changes nothing, and with `register` also the registration and the steps after
    /// it.
    pub(super) async fn authorize(&mut self, found: &Found, register: bool) {
        self.token_endpoint(found).await;
        if self.client.preflights {
            self.unknown_client(found).await;
        }
        if let Some(origin) = self.client.page {
            self.page(found, origin).await;
        }
        self.registration(found, register).await;
        if self.client.hosted && self.mcp.host_str().is_some_and(crate::http_client::is_loopback) {
            self.ok(
                "reach",
                "on loopback: this client calls from elsewhere and needs a public https URL",
            );
        }
    }

    /// Sends a code that nobody issued. The response shows whether the endpoint exists and implements OAuth.
    async fn token_endpoint(&mut self, found: &Found) {
        const HINT: &str = "answer errors as JSON with an error code, 400 or 401 (RFC 6749 §5.2)";
        let body = format!(
            "grant_type=authorization_code&code=portcullis-doctor&client_id={NOBODY}&code_verifier={}",
            "a".repeat(43)
        );
        let form = "application/x-www-form-urlencoded";
        let ask = Ask::post(&found.token_endpoint, form, body).with("accept", "application/json");
        match self.wire.ask(&ask).await {
            Err(cause) => {
                self.fail("token", cause, "let the endpoint be reachable from the client");
            }
            Ok(reply) => {
                let code =
                    reply.object().and_then(|body| body["error"].as_str().map(str::to_owned));
                match (reply.status, code) {
                    (400 | 401, Some(code)) => {
                        self.ok(
                            "token",
                            format!("{}: an unknown code gets {code}", found.token_endpoint),
                        );
                    }
                    (status, code) => {
                        let code = code.unwrap_or_else(|| "no error code".to_owned());
                        let what = format!("an unknown code is answered {status} with {code}");
                        self.fail("token", format!("{}: {what}", found.token_endpoint), HINT);
                    }
                }
            }
        }
    }

    /// Sends an authorization request with an unknown client id, as some clients do before they open a
    /// browser.
    async fn unknown_client(&mut self, found: &Found) {
        let url = authorize_url(found, NOBODY, "http://localhost:13038/callback", &[]);
        match self.wire.ask(&Ask::get(&url)).await {
            Err(cause) => self.fail("unknown client", cause, "let the endpoint be reachable"),
            Ok(reply) if reply.status == 400 => {
                self.ok("unknown client", "400: the client knows that it must register again");
            }
            Ok(reply) => self.warn(
                "unknown client",
                format!(
                    "answered {}, not 400: a client that was removed does not learn of it",
                    reply.status
                ),
                "answer 400 without a redirect when client_id is not known",
            ),
        }
    }

    async fn registration(&mut self, found: &Found, register: bool) {
        let wants = self.client.registration;
        let server = &found.server;
        let lists = |member: &str, value: &str| {
            server[member].as_array().is_some_and(|list| list.iter().any(|one| one == value))
        };
        let none = lists("token_endpoint_auth_methods_supported", "none");
        if let Some(document) = wants.document
            && server["client_id_metadata_document_supported"] == true
        {
            if none || !wants.document_needs_none {
                self.ok("registration", format!("none needed: it is known by {document}"));
                return;
            }
            self.warn(
                "registration",
                "metadata documents are offered, but \"none\" is not among the authentication methods; this client then registers itself",
                "list none in token_endpoint_auth_methods_supported",
            );
        }
        let Some(endpoint) = &found.registration_endpoint else {
            let how = if wants.document.is_some() {
                "offer registration_endpoint, or client_id_metadata_document_supported"
            } else {
                "offer registration_endpoint (RFC 7591), or configure the client by hand"
            };
            self.fail("registration", "the server offers no way to become known to it", how);
            return;
        };
        if !register {
            self.ok("registration", format!("{endpoint} (not tried; --register does)"));
            return;
        }
        let Some(registered) = self.register(found, endpoint).await else { return };
        if self.accepts(&registered) {
            self.ok("registration", format!("registered at {endpoint}"));
            self.authorization_page(found, &registered).await;
        }
        self.unregister(&registered).await;
    }

    /// Registers as the client does.
    async fn register(&mut self, found: &Found, endpoint: &str) -> Option<RegisteredClient> {
        let mut body: Value =
            serde_json::from_str(self.client.registration.body).unwrap_or_default();
        // Changes the name, because a server may treat identical registrations as one client, which may
        // belong to somebody.
        let name = body["client_name"].as_str().unwrap_or_default();
        body["client_name"] = format!("{name} (portcullis doctor)").into();
        if let Some(scope) = &found.scope {
            body["scope"] = scope.as_str().into();
        }
        let ask = Ask::post(endpoint, "application/json", body.to_string());
        let reply = match self.wire.ask(&ask).await {
            Ok(reply) => reply,
            Err(cause) => {
                self.fail("registration", cause, "let the endpoint be reachable from the client");
                return None;
            }
        };
        let answer = reply.object().filter(|_| matches!(reply.status, 200 | 201));
        let Some(answer) = answer else {
            let said = reply.object().map(|body| format!(" {body}")).unwrap_or_default();
            self.fail(
                "registration",
                format!("{endpoint} answered {}{said} to {body}", reply.status),
                "accept what this client registers",
            );
            return None;
        };
        let client_id = answer["client_id"].as_str().filter(|id| !id.is_empty());
        let Some(client_id) = client_id.map(str::to_owned) else {
            self.fail(
                "registration",
                "the answer has no client_id",
                "answer as RFC 7591 §3.2.1 says",
            );
            return None;
        };
        let redirect_uri = body["redirect_uris"][0].as_str().unwrap_or_default().to_owned();
        Some(RegisteredClient { client_id, redirect_uri, answer })
    }

    /// Returns whether this client accepts the response to its registration.
    fn accepts(&mut self, registered: &RegisteredClient) -> bool {
        let answer = &registered.answer;
        let empty: Vec<&str> = answer
            .as_object()
            .into_iter()
            .flatten()
            .filter(|(name, value)| {
                value.is_null()
                    || (*value == "" && (name.ends_with("_uri") || name.ends_with("_url")))
            })
            .map(|(name, _)| name.as_str())
            .collect();
        if self.client.strict_registration && !empty.is_empty() {
            self.fail(
                "registration",
                format!(
                    "the answer holds null or empty members ({}), which this client refuses",
                    empty.join(", ")
                ),
                "leave out what has no value",
            );
            return false;
        }
        if self.client.strict_registration && !answer["redirect_uris"].is_array() {
            self.fail(
                "registration",
                "the answer does not repeat redirect_uris, without which this client refuses it",
                "echo what was registered (RFC 7591 §3.2.1)",
            );
            return false;
        }
        if self.client.registration.wants_secret && !answer["client_secret"].is_string() {
            self.fail(
                "registration",
                "the client registers for client_secret_post and gets no client_secret",
                "support confidential clients: answer with client_secret and client_secret_expires_at",
            );
            return false;
        }
        true
    }

    /// Deletes the registration if the server supports that (RFC 7592).
    async fn unregister(&mut self, registered: &RegisteredClient) {
        let answer = &registered.answer;
        let (Some(uri), Some(token)) = (
            answer["registration_client_uri"].as_str(),
            answer["registration_access_token"].as_str(),
        ) else {
            let client_id = &registered.client_id;
            self.ok("clean-up", format!("the client {client_id} is left to the server to forget"));
            return;
        };
        let ask = Ask { method: "DELETE", url: uri, ..Ask::default() };
        let ask = ask.with("authorization", format!("Bearer {token}"));
        match self.wire.ask(&ask).await.map(|reply| reply.status) {
            Ok(204) => self.ok("clean-up", "the registration was taken back"),
            other => self.warn(
                "clean-up",
                format!("DELETE {uri} was answered {other:?}"),
                "let clients delete their registration, or do not tell them that they can (RFC 7592)",
            ),
        }
    }

    /// Requests the page that the person would see, and checks `iss` in error responses.
    async fn authorization_page(&mut self, found: &Found, registered: &RegisteredClient) {
        const HINT: &str = "accept the request as this client builds it";
        let RegisteredClient { client_id, redirect_uri, .. } = registered;
        let offline = found.server["scopes_supported"].to_string().contains("\"offline_access\"");
        let scope = match (&found.scope, self.client.prompts && offline) {
            (Some(scope), true) => Some(format!("{scope} offline_access")),
            (scope, _) => scope.clone(),
        };
        let mut extra: Vec<(&str, &str)> = Vec::new();
        extra.extend(scope.as_deref().map(|scope| ("scope", scope)));
        if self.client.prompts && offline {
            extra.push(("prompt", "consent"));
        }
        let url = authorize_url(found, client_id, redirect_uri, &extra);
        match self.wire.ask(&Ask::get(&url).with("accept", "text/html")).await {
            Err(cause) => self.fail("authorize", cause, HINT),
            Ok(reply) => {
                let to = reply.header("location").unwrap_or_default();
                if !(200..400).contains(&reply.status)
                    || (leads_to(to, redirect_uri) && to.contains("error="))
                {
                    self.fail("authorize", format!("{url} answered {} {to}", reply.status), HINT);
                } else {
                    self.ok(
                        "authorize",
                        format!("answered {}: a person can continue from here", reply.status),
                    );
                }
            }
        }
        self.error_iss(found, client_id, redirect_uri).await;
    }

    /// Provokes an error that is returned by redirect, to see whether it carries `iss`.
    async fn error_iss(&mut self, found: &Found, client_id: &str, redirect_uri: &str) {
        if found.server["authorization_response_iss_parameter_supported"] != true {
            return;
        }
        let url = authorize_url(found, client_id, redirect_uri, &[]);
        let url = url.replace("response_type=code&", "response_type=none&");
        let Ok(reply) = self.wire.ask(&Ask::get(&url).with("accept", "text/html")).await else {
            return;
        };
        let Some(to) = reply.header("location").filter(|to| leads_to(to, redirect_uri)) else {
            return; // an error page without a redirect shows nothing about `iss`
        };
        let iss = url::Url::parse(to).ok().and_then(|to| {
            to.query_pairs().find(|(name, _)| name == "iss").map(|(_, value)| value.into_owned())
        });
        if iss.as_deref() == found.server["issuer"].as_str() {
            self.ok("iss", "comes with errors too");
            return;
        }
        let what = format!("iss is advertised, and answers carry {iss:?}");
        let hint = "send iss with every authorization response, byte for byte the issuer, or stop advertising it (RFC 9207)";
        if self.client.checks_iss {
            self.fail("iss", format!("{what}; this client aborts"), hint);
        } else {
            self.warn("iss", what, hint);
        }
    }

    /// Checks CORS for clients that run in a web page: preflights and readable responses.
    async fn page(&mut self, found: &Found, origin: &str) {
        const HINT: &str = "answer OPTIONS without a token, with Access-Control-Allow-Origin and the asked headers, on the MCP endpoint, metadata, registration and token endpoints";
        let mcp = self.mcp.to_string();
        let mut asked: Vec<(&str, &'static str, &str)> =
            vec![(&mcp, "POST", "authorization,content-type,mcp-protocol-version")];
        asked.extend(
            found.documents.iter().map(|url| (url.as_str(), "GET", "mcp-protocol-version")),
        );
        asked.extend(
            found.registration_endpoint.iter().map(|url| (url.as_str(), "POST", "content-type")),
        );
        asked.push((&found.token_endpoint, "POST", "content-type"));
        let mut blocked = Vec::new();
        for (url, method, headers) in asked {
            let ask = Ask { method: "OPTIONS", url, ..Ask::default() }
                .with("origin", origin)
                .with("access-control-request-method", method)
                .with("access-control-request-headers", headers);
            let passes = self.wire.ask(&ask).await.is_ok_and(|reply| {
                let allowed = reply.list("access-control-allow-headers");
                let allows = |name: &str| {
                    allowed.split(',').any(|one| one.trim() == name || (one.trim() == "*" && name != "authorization"))
                };
                (200..300).contains(&reply.status)
                    && matches!(reply.header("access-control-allow-origin"), Some(to) if to == "*" || to == origin)
                    && headers.split(',').all(allows)
            });
            if !passes {
                blocked.push(url.to_owned());
            }
        }
        for url in &found.documents {
            let ask = Ask::get(url).with("origin", origin);
            let readable = self
                .wire
                .ask(&ask)
                .await
                .is_ok_and(|reply| reply.header("access-control-allow-origin").is_some());
            if !readable && !blocked.contains(url) {
                blocked.push(url.clone());
            }
        }
        if blocked.is_empty() {
            self.ok("cors", "a web page may call everything it needs");
        } else {
            self.fail(
                "cors",
                format!("browsers do not let a page of {origin} use {}", blocked.join(", ")),
                HINT,
            );
        }
    }
}

/// Builds the URL that the client opens in the browser.
fn authorize_url(
    found: &Found,
    client_id: &str,
    redirect_uri: &str,
    extra: &[(&str, &str)],
) -> String {
    let mut query = form_urlencoded::Serializer::new(String::new());
    query.append_pair("response_type", "code");
    query.append_pair("client_id", client_id);
    query.append_pair("code_challenge", CHALLENGE);
    query.append_pair("code_challenge_method", "S256");
    query.append_pair("redirect_uri", redirect_uri);
    query.append_pair("state", "portcullis-doctor");
    for (name, value) in extra {
        query.append_pair(name, value);
    }
    if let Some(resource) = &found.resource {
        query.append_pair("resource", resource);
    }
    let separator = if found.authorization_endpoint.contains('?') { '&' } else { '?' };
    format!("{}{separator}{}", found.authorization_endpoint, query.finish())
}
