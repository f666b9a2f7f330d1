//! Test fetches of well-known metadata documents, to learn whether documents can be read from here at all.
//!
//! Nothing is cached or stored. Outsiders can cause such a fetch only on the demo.

use std::time::Duration;

use futures_util::future::join_all;

use super::documents::Documents;
use super::remote::Trouble;
use crate::clock::Timestamp;
use crate::oauth::client::ClientMetadata;
use crate::oauth::client::document::MAX_DOCUMENT;
use crate::oauth::web_url::ClientIdUrl;

/// Metadata documents of widely used clients. Their publishers are independent: if neither responds, our
/// network is at fault.
const WELL_KNOWN: [&str; 2] = [
    "https://claude.ai/oauth/claude-code-client-metadata",
    "https://vscode.dev/oauth/client-metadata.json",
];

/// 30 seconds: a machine without a network is tested again after this time.
const AGAIN: Duration = Duration::from_secs(30);

/// The result of one test fetch: the client's name, or why it failed.
#[derive(Debug)]
pub struct Tried {
    pub url: &'static str,
    /// The name in the document, or the failure.
    pub outcome: Result<Option<String>, TrialFailed>,
}

/// Why a document could not be read.
#[derive(Debug, thiserror::Error)]
#[error("{reason}")]
pub struct TrialFailed {
    reason: String,
    /// Whether no server responded.
    pub silent: bool,
}

impl Documents {
    /// Fetches one well-known document, and another only if the first fails, to find out whether that
    /// website or the network is at fault. Empty if the configuration allows none of their hosts.
    pub(super) async fn try_well_known(&self) -> Vec<Tried> {
        let mut all = Vec::new();
        for url in WELL_KNOWN.into_iter().filter(|url| self.may_be_read(url)) {
            let tried = self.try_one(url).await;
            let read = tried.outcome.is_ok();
            all.push(tried);
            if read {
                break;
            }
        }
        all
    }

    /// Tests whether any well-known website responds, and starts or stops offering documents accordingly.
    /// Concurrent callers share one test.
    pub(super) async fn look_for_network(&self) {
        let Some(offer) = &self.offer else { return };
        let mut looked_at = offer.looked_at.lock().await;
        let recent = |at: &Timestamp| self.now().since(*at) < AGAIN;
        if !offer.stands() && looked_at.as_ref().is_some_and(recent) {
            return;
        }
        let tried = join_all(WELL_KNOWN.map(|url| self.try_one(url))).await;
        let failed = |tried: &Tried| tried.outcome.as_ref().err().map(ToString::to_string);
        let silent = |tried: &Tried| tried.outcome.as_ref().is_err_and(|failed| failed.silent);
        let reached = !tried.iter().all(silent);
        offer.set(reached, &tried.iter().find_map(failed).unwrap_or_default());
        *looked_at = Some(self.now());
    }

    async fn try_one(&self, url: &'static str) -> Tried {
        let read = self.read(url).await;
        let outcome = match read {
            Ok(metadata) => Ok(metadata.client_name),
            Err(trouble) => {
                let silent = trouble.is_silence();
                Err(TrialFailed { reason: trouble.to_string(), silent })
            }
        };
        Tried { url, outcome }
    }

    async fn read(&self, url: &str) -> Result<ClientMetadata, Trouble> {
        let id = ClientIdUrl::parse(url).map_err(|error| Trouble::Refused(error.to_string()))?;
        let fetched = self.http().get_json(id.url(), MAX_DOCUMENT).await?;
        self.parse(&fetched.body, &id).map_err(Trouble::Refused)
    }
}
