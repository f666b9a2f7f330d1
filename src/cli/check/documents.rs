//! Checks whether this machine can fetch client metadata documents, with those of well-known clients.

use super::{Finding, Severity, finding};
use crate::app::App;
use crate::clients::Tried;

const PROBE: &str = "client_documents";

/// Fetches documents of known clients; `None` if such clients are disabled.
pub(super) async fn run(app: &App) -> Option<Finding> {
    let tried = app.clients().try_documents().await?;
    let Some((last, failed)) = tried.split_last() else {
        let found = "none was tried: client_documents.allowed_hosts names no host of a client that this version knows";
        return Some(finding(PROBE, Severity::Ok, found.to_owned()));
    };
    let found: Vec<String> = failed.iter().chain([last]).map(said).collect();
    let warning = |found: String, hint: &str| Finding {
        hint: Some(hint.to_owned()),
        ..finding(PROBE, Severity::Warning, found)
    };
    let is_silent = |tried: &Tried| tried.outcome.as_ref().is_err_and(|failed| failed.silent);
    Some(if failed.is_empty() && last.outcome.is_ok() {
        finding(PROBE, Severity::Ok, found.concat())
    } else if tried.iter().all(is_silent) {
        warning(
            found.join("; "),
            "clients that publish their metadata (Claude, VS Code, ChatGPT) cannot sign anybody in: let this machine reach their websites, port 443, directly or through HTTPS_PROXY with client_documents.through_proxy = true; or set client_documents.enabled = false, and they register themselves",
        )
    } else {
        warning(
            found.join("; "),
            "this concerns only the clients that this website publishes; if it keeps happening, check whether something on the way changes its answers",
        )
    })
}

/// Describes the result of one fetch.
fn said(tried: &Tried) -> String {
    match &tried.outcome {
        Ok(Some(name)) => format!("{} was read, and is the client {name:?}", tried.url),
        Ok(None) => format!("{} was read, and is a client without a name", tried.url),
        Err(failed) if failed.silent => format!("{} could not be read: {failed}", tried.url),
        Err(failed) => format!("{} was asked, and is no client here: {failed}", tried.url),
    }
}
