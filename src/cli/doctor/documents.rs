//! Search for metadata documents: the locations, their order, and the responses that end the search.

use serde_json::Value;
use url::Url;

use super::clients::{MetadataLocation, Resource};
use super::visit::Visit;

/// Result of a search for a document.
pub(super) enum DocumentSearch {
    Found(String, Value),
    Nothing,
    /// The client gives up.
    Ended,
}

impl Visit<'_> {
    /// Searches the resource metadata, at the URL of the challenge or else at the client's own list of
    /// locations.
    pub(super) async fn search_resource(
        &mut self,
        named: Option<&str>,
        version: &str,
    ) -> DocumentSearch {
        const PROBE: &str = "resource metadata";
        let Some(url) = named else {
            let locations = urls_of(self.client.resource_metadata, self.mcp);
            return self.search(PROBE, &locations, version).await;
        };
        let found = self.read(url, version).await;
        if matches!(found, DocumentSearch::Found(..)) {
            return found;
        }
        self.fail(
            PROBE,
            format!("{url}, which the challenge names, is no JSON document"),
            "serve it there, or let resource_metadata in WWW-Authenticate name where it is",
        );
        DocumentSearch::Ended
    }

    async fn search(
        &mut self,
        probe: &'static str,
        urls: &[String],
        version: &str,
    ) -> DocumentSearch {
        for url in urls {
            match self.read(url, version).await {
                DocumentSearch::Nothing => {}
                DocumentSearch::Ended => {
                    let what = match self.wire.document(url, version).await {
                        Err(cause) => format!("brings no answer ({cause})"),
                        Ok(reply) if reply.status < 300 => {
                            "is answered with something that is not JSON".to_owned()
                        }
                        Ok(reply) => format!("is answered {}", reply.status),
                    };
                    self.fail(
                        probe,
                        format!("{url} {what}, and the client looks no further"),
                        "answer 404 where there is no document, also from a catch-all page",
                    );
                    return DocumentSearch::Ended;
                }
                found @ DocumentSearch::Found(..) => return found,
            }
        }
        DocumentSearch::Nothing
    }

    /// Reads one document. The client's behaviour decides what a missing one means.
    async fn read(&mut self, url: &str, version: &str) -> DocumentSearch {
        let Ok(reply) = self.wire.document(url, version).await else {
            return DocumentSearch::Ended;
        };
        match reply.status {
            200..300 => match reply.object() {
                Some(document) => DocumentSearch::Found(url.to_owned(), document),
                None if self.client.dies_of_html => DocumentSearch::Ended,
                None => DocumentSearch::Nothing,
            },
            500.. if self.client.dies_of_5xx => DocumentSearch::Ended,
            _ => DocumentSearch::Nothing,
        }
    }

    /// Checks resource metadata and returns the issuer.
    pub(super) fn resource_metadata(&mut self, url: &str, document: &Value) -> Option<String> {
        let resource = document["resource"].as_str().unwrap_or_default();
        if !fits(self.client.resource, resource, self.mcp) {
            self.fail(
                "resource",
                format!(
                    "{url} names the resource {resource:?}, which this client does not take for {}",
                    self.mcp
                ),
                "name exactly the URL that people type, without a slash at the end",
            );
            return None;
        }
        let Some(issuer) = document["authorization_servers"][0].as_str() else {
            self.fail(
                "resource metadata",
                format!("{url} names no authorization_servers"),
                "list the issuer of the authorization server (RFC 9728 §2)",
            );
            return None;
        };
        if document["scopes_supported"].as_array().is_some_and(Vec::is_empty) {
            self.warn(
                "resource metadata",
                "scopes_supported is an empty list; some clients then ask for nothing at all",
                "leave the member out, or list the scopes",
            );
        } else {
            self.ok("resource metadata", url);
        }
        Some(issuer.to_owned())
    }

    /// Searches server metadata and returns it with its URL. `None` means that the client cannot go on,
    /// `Some(None)` that it uses the default endpoints.
    pub(super) async fn server_metadata(
        &mut self,
        issuer: Option<&str>,
        version: &str,
    ) -> Option<Option<(String, Value)>> {
        let (locations, base) = match issuer {
            Some(issuer) => (self.client.server_metadata, Url::parse(issuer).ok()),
            None => (self.client.legacy, Some(self.mcp.clone())),
        };
        let Some(base) = base else {
            self.fail(
                "server metadata",
                format!("the issuer {issuer:?} is not a URL"),
                "let authorization_servers name the issuer, an https URL",
            );
            return None;
        };
        let urls = urls_of(locations, &base);
        match self.search("server metadata", &urls, version).await {
            DocumentSearch::Ended => None,
            DocumentSearch::Found(url, document) => {
                if issuer.is_none() {
                    self.warn(
                        "resource metadata",
                        "there is none; the client continues as one of 2025-03-26, and some name no resource",
                        "serve /.well-known/oauth-protected-resource before the path of the MCP server (RFC 9728)",
                    );
                }
                self.ok("server metadata", &url);
                Some(Some((url, document)))
            }
            DocumentSearch::Nothing if self.client.default_endpoints => {
                self.warn(
                    "server metadata",
                    "there is none; the client takes /authorize, /token and /register at the origin",
                    "serve /.well-known/oauth-authorization-server (RFC 8414)",
                );
                Some(None)
            }
            DocumentSearch::Nothing => {
                self.fail(
                    "server metadata",
                    format!("there is none at {}", urls.join(", ")),
                    "serve RFC 8414 metadata; for an issuer with a path, at /.well-known/oauth-authorization-server before that path",
                );
                None
            }
        }
    }
}

fn urls_of(locations: &[MetadataLocation], base: &Url) -> Vec<String> {
    let mut urls: Vec<String> = Vec::new();
    for location in locations {
        let url = location.of(base);
        if !urls.contains(&url) {
            urls.push(url);
        }
    }
    urls
}

fn fits(rule: Resource, named: &str, mcp: &Url) -> bool {
    let exact = mcp.as_str();
    let bare = exact.trim_end_matches('/');
    let origin = mcp.origin().ascii_serialization();
    let is_origin = named == origin || named == format!("{origin}/");
    let slashed = named.trim_end_matches('/') == bare;
    match rule {
        Resource::Exact => named == exact || named == bare,
        Resource::Prefix => named == exact || named == bare || is_origin,
        Resource::PrefixOrSlash => slashed || is_origin,
    }
}
