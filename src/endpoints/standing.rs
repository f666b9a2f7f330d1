//! Whether administrators let a client, or a person, in at all; asked at every step of the way.

use axum::http::{HeaderMap, StatusCode};

use crate::app::App;
use crate::oauth::client::Client;
use crate::storage::Standing;
use crate::web::pages::Message;
use crate::web::people::PageError;

/// The standing of a client that is not shut out, as far as it is about the client of today.
pub(super) async fn of_client(
    app: &App,
    headers: &HeaderMap,
    client: &Client,
) -> Result<Standing, PageError> {
    let standing = app.storage().standing(&client.id).await;
    let standing = standing.map_err(|error| PageError::storage(headers, &error))?;
    if standing.shut_out() {
        let (status, message) = (StatusCode::FORBIDDEN, Message::ClientShutOut);
        let reason =
            if standing.blocked { "the client is blocked" } else { "the client is refused" };
        return Err(PageError::new(headers, status, message, &reason));
    }
    Ok(standing.of_today(client))
}
