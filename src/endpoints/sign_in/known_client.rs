//! The client of a login: whether it exists, whether administrators have denied it, and where the response to it
//! goes. Every step of a login checks all of it again.

use std::net::IpAddr;

use crate::app::App;
use crate::oauth::authorization_request::AuthorizationRequest;
use crate::oauth::client::{Client, Currency};
use crate::oauth::redirect_uri::RegisteredRedirectUri;
use crate::storage::ClientReview;
use crate::web::client_redirect::ClientRedirect;
use crate::web::page_error::PageError;
use crate::web::pages::Message;

/// A client that may go on with a login.
pub(super) struct KnownClient<'a> {
    pub(super) client: Client,
    /// Its review, reduced to what applies to its current metadata.
    pub(super) review: ClientReview,
    pub(super) back: ClientRedirect<'a>,
}

impl<'a> KnownClient<'a> {
    /// Checks the client of a request that has been checked before.
    pub(super) async fn again(
        app: &'a App,
        request: &AuthorizationRequest,
    ) -> Result<Self, PageError> {
        let client = find(app, &request.client_id, None).await?;
        let back = redirect_of(app, &client, request)?;
        let review = review(app, &client).await?;
        Ok(Self { client, review, back })
    }
}

/// Finds the client with this id. Its metadata must be recent enough. A failure shows a page and never
/// redirects. Fetching a metadata document counts towards the rate limit of `from`.
pub(super) async fn find(
    app: &App,
    client_id: &str,
    from: Option<IpAddr>,
) -> Result<Client, PageError> {
    let found = app.clients().find(client_id, from).await?;
    let client = found.ok_or_else(|| Message::UnknownClient.because("unknown client"))?;
    match client.currency(app.now()) {
        Currency::Good => Ok(client),
        Currency::Stale => {
            let reason = "the client's document has not been seen for too long";
            Err(Message::ClientDocumentUnavailable.because(reason))
        }
        Currency::Gone => {
            Err(Message::ClientDocumentRefused.because("the client's document is gone"))
        }
    }
}

/// Resolves `presented` to a redirect URI that the client registered and that the current configuration
/// allows. A failure shows a page and never redirects.
pub(super) fn redirect_uri(
    app: &App,
    client: &Client,
    presented: Option<&str>,
) -> Result<RegisteredRedirectUri, PageError> {
    let registered = &client.metadata.redirect_uris;
    Ok(match client.held_to(app.redirect_policy()) {
        Some(policy) => RegisteredRedirectUri::resolve_under(policy, registered, presented)?,
        None => RegisteredRedirectUri::resolve(registered, presented)?,
    })
}

/// Returns where the response to a request that has been checked before goes.
pub(super) fn redirect_of<'a>(
    app: &'a App,
    client: &Client,
    request: &AuthorizationRequest,
) -> Result<ClientRedirect<'a>, PageError> {
    let address = redirect_uri(app, client, Some(&request.redirect_uri))?;
    Ok(ClientRedirect {
        issuer: app.issuer(),
        address,
        state: request.state.clone(),
        name: link_name(client),
        request: Some(request.clone()),
    })
}

/// Returns the name that a link back to this client shows beside the host: none if it imitates another.
pub(super) fn link_name(client: &Client) -> Option<String> {
    let name = client.display_name();
    name.text.filter(|_| !name.suspicious)
}

/// Returns the review of a client that administrators have not denied, reduced to what applies to its current
/// metadata.
pub(super) async fn review(app: &App, client: &Client) -> Result<ClientReview, PageError> {
    let review = app.storage().client_review(&client.id).await?;
    if review.is_denied() {
        let reason = if review.blocked { "the client is blocked" } else { "the client is refused" };
        return Err(Message::ClientShutOut.because(reason));
    }
    Ok(review.of_today(client))
}
