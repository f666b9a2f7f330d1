//! Reads `forward_headers` of a resource: further request headers that the gateway forwards to the MCP
//! server. Some headers are never forwarded.

use axum::http::HeaderName;

use super::super::reader::ConfigReader;

/// Maximum number of names. A longer list is probably a mistake, and each name costs a look-up per request.
const MOST: usize = 32;

/// Headers that are never forwarded, with the reason. A name may end with a star.
const REFUSED: &[(&str, &[&str])] = &[
    (
        "carries what the client proves itself with, which is not for the MCP server",
        &[
            "authorization",
            "cookie",
            "cookie2",
            "dpop",
            "proxy-*",
            "authentication-*",
            "www-authenticate",
            "set-cookie",
            "set-cookie2",
        ],
    ),
    (
        "is ours to say: the MCP server believes it, and a client could write anything",
        &["x-portcullis-*"],
    ),
    (
        "says where a request comes from or what was asked for, which MCP servers believe of a proxy: a client could \
         write anything",
        &[
            "forwarded",
            "x-forwarded",
            "x-forwarded-*",
            "via",
            "x-real-ip",
            "x-client-ip",
            "x-cluster-client-ip",
            "x-original-*",
            "x-rewrite-url",
            "x-host",
            "true-client-ip",
            "cf-connecting-*",
            "fastly-client-ip",
            "x-envoy-*",
            "x-http-method",
            "x-http-method-override",
            "x-method-override",
        ],
    ),
    (
        "says who is calling, which some servers believe of a proxy: a client could write anything; read \
         X-Portcullis-Subject in its place",
        &[
            "remote-user",
            "x-remote-*",
            "x-auth-request-*",
            "x-authenticated-*",
            "x-webauth-*",
            "client-cert",
            "client-cert-chain",
            "x-client-cert",
            "x-ssl-*",
            "ssl-client-*",
        ],
    ),
    (
        "belongs to the connection, and ends with it (RFC 9110 §7.6.1)",
        &[
            "connection",
            "keep-alive",
            "te",
            "trailer",
            "transfer-encoding",
            "upgrade",
            "http2-settings",
            "host",
            "content-length",
            "expect",
            "max-forwards",
        ],
    ),
    (
        "would let the MCP server pack or cut answers that the gateway reads",
        &["accept-encoding", "range", "if-range"],
    ),
    ("is translated: what the client holds is sealed", &["mcp-session-id", "last-event-id"]),
    (
        "passes already",
        &[
            "mcp-*",
            "accept",
            "accept-language",
            "content-type",
            "content-encoding",
            "user-agent",
            "traceparent",
            "tracestate",
        ],
    ),
];

pub(super) fn read(r: &mut ConfigReader, key: &str, has_target: bool) -> Vec<HeaderName> {
    let names = r.texts(key).unwrap_or_default();
    if !names.is_empty() && !has_target {
        let reason = "says what passes to the server behind, and there is none";
        r.problem(key, None, reason, "add target, or take forward_headers out");
    }
    if names.len() > MOST {
        let reason = format!("has more than {MOST} names");
        r.problem(key, None, reason, "name those that the MCP server reads");
    }
    let mut read = Vec::new();
    for name in &names {
        match header_name(name) {
            Ok(name) if read.contains(&name) => {
                r.problem(key, Some(format!("{name:?}")), "is named twice", "name it once");
            }
            Ok(name) => read.push(name),
            Err((reason, hint)) => r.problem(key, Some(format!("{name:?}")), reason, hint),
        }
    }
    read
}

/// Header of the gateway's own kind that may carry a token: clients cannot send any `x-portcullis-*`.
const OWN_TOKEN_HEADER: &str = "x-portcullis-upstream-token";

/// Parses the name of a header that carries a token of the person to the MCP server. An error consists of
/// reason and hint.
pub(super) fn token_header(name: &str) -> Result<HeaderName, (&'static str, &'static str)> {
    const ALLOWED: [&str; 2] = ["authorization", OWN_TOKEN_HEADER];
    if let Some(allowed) = ALLOWED.into_iter().find(|allowed| name.eq_ignore_ascii_case(allowed)) {
        return Ok(HeaderName::from_static(allowed));
    }
    header_name(name).map_err(|(reason, _)| (reason, "write one such as \"X-GitHub-Token\""))
}

/// Normalizes a name as lenient servers do, so that no spelling evades a list.
fn spelled(name: &str) -> String {
    name.replace(['_', '.'], "-")
}

/// Returns whether some servers take one header for the other.
pub(super) fn are_alike(one: &HeaderName, other: &HeaderName) -> bool {
    spelled(one.as_str()) == spelled(other.as_str())
}

/// Parses a header name. An error consists of reason and hint.
fn header_name(name: &str) -> Result<HeaderName, (&'static str, &'static str)> {
    let take_out = "take it out";
    if name.contains('*') {
        return Err(("is a pattern", "write the whole name of each header"));
    }
    let header: HeaderName = name
        .parse()
        .map_err(|_| ("is no name of a header", "write one such as \"x-tenant-id\""))?;
    let spelled = spelled(header.as_str());
    let matches = |pattern: &str| match pattern.strip_suffix('*') {
        Some(beginning) => spelled.starts_with(beginning),
        None => spelled == pattern,
    };
    let refused = REFUSED.iter().find(|(_, names)| names.iter().any(|name| matches(name)));
    if let Some((reason, _)) = refused {
        return Err((reason, take_out));
    }
    if header.as_str().contains('_') {
        let reason =
            "has an underscore, which many servers read as a hyphen: such headers are refused";
        return Err((reason, "write it with hyphens, and let the client send it so"));
    }
    Ok(header)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gw_01_headers_that_must_not_pass_are_refused_in_every_spelling() {
        for name in [
            "Authorization",
            "COOKIE",
            "proxy-authorization",
            "Proxy-Anything",
            "dpop",
            "X-Portcullis-Subject",
            "x_portcullis_subject",
            "x.portcullis.subject",
            "X-Portcullis-New",
            "forwarded",
            "X-Forwarded-For",
            "x_forwarded_user",
            "X-Forwarded-Client-Cert",
            "x-real-ip",
            "X-Original-URL",
            "x-http-method-override",
            "x-remote-user",
            "X-Auth-Request-Email",
            "connection",
            "TE",
            "transfer-encoding",
            "Upgrade",
            "Keep-Alive",
            "host",
            "content-length",
            "content_length",
            "Mcp-Session-Id",
            "mcp_session_id",
            "last-event-id",
            "mcp-name",
            "Mcp-Param-X",
            "accept-encoding",
            "user-agent",
            "x_tenant_id",
            "x-*",
            "*",
            "",
            "x tenant",
            "x-ü",
            "x:y",
        ] {
            assert!(header_name(name).is_err(), "{name}");
        }
        for name in ["x-tenant-id", "Baggage", "X-Request-ID", "x.dotted", "x-api-version", "b3"] {
            assert_eq!(header_name(name).unwrap().as_str(), name.to_lowercase());
        }
    }

    #[test]
    fn ut_03_a_token_is_carried_by_no_header_that_means_something_else() {
        for name in [
            "Cookie",
            "cookie",
            "Host",
            "X-Portcullis-Subject",
            "X-Portcullis-Assertion",
            "X-Portcullis-Upstream_Token",
            "Mcp-Session-Id",
            "mcp-protocol-version",
            "Content-Type",
            "Proxy-Authorization",
            "DPoP",
            "X-Forwarded-User",
            "Remote-User",
            "x_github_token",
            "authorization ",
            "x-*",
            "",
        ] {
            assert!(token_header(name).is_err(), "{name}");
        }
        for name in
            ["Authorization", "AUTHORIZATION", "X-Portcullis-Upstream-Token", "X-GitHub-Token"]
        {
            assert_eq!(token_header(name).unwrap().as_str(), name.to_lowercase());
        }
    }
}
