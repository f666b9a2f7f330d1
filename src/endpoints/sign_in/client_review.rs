//! Checks at every step of a login whether administrators have denied the client.

use axum::http::{HeaderMap, StatusCode};

use crate::app::App;
use crate::oauth::client::Client;
use crate::storage::ClientReview;
use crate::web::browser::PageError;
use crate::web::pages::Message;

/// Returns the review of a client that is not denied, reduced to what applies to its current metadata.
pub(super) async fn of_client(
    app: &App,
    headers: &HeaderMap,
    client: &Client,
) -> Result<ClientReview, PageError> {
    let standing = app.storage().client_review(&client.id).await;
    let standing = standing.map_err(|error| PageError::storage(headers, &error))?;
    if standing.is_denied() {
        let (status, message) = (StatusCode::FORBIDDEN, Message::ClientShutOut);
        let reason =
            if standing.blocked { "the client is blocked" } else { "the client is refused" };
        return Err(PageError::new(headers, status, message, &reason));
    }
    Ok(standing.of_today(client))
}
