//! `GET /auth/connect/{name}/callback`: a service sends the browser back to here.
//!
//! Order of the checks: first browser, person and service, on success and on error; then the attempt is used up; only
//! then is the code redeemed (threats UT-01 and UT-02).

use axum::response::{IntoResponse, Response};

use super::explain;
use crate::config::paths;
use crate::connections::{ConnectFailed, ConnectReturn, Connected};
use crate::oauth::secret::{ConnectState, Secret};
use crate::storage::{AttemptClaim, AttemptComer, PutConnection, TakenAttempt};
use crate::telemetry::audit::Actor;
use crate::upstream::CallbackParams;
use crate::web::browser::Browser;
use crate::web::cookies;
use crate::web::page_error::PageError;
use crate::web::pages::Message;
use crate::web::params::Params;
use crate::web::web_session;

/// What the person did at the service.
enum CameBack {
    Connected(PutConnection, Vec<String>),
    /// They said no.
    Refused,
}

pub(super) async fn get(browser: Browser) -> Result<Response, PageError> {
    let name = paths::called_back(browser.path()).unwrap_or_default();
    let params = read(&browser)?;
    let begin = paths::connect(name);
    let state = params.get("state").ok().flatten().and_then(Secret::<ConnectState>::parse);
    let state = state.ok_or_else(|| elsewhere("state is missing or not ours"))?;
    let attempt =
        claim(&browser, name, &state).await.map_err(|error| error.beginning_at(&begin))?;
    let return_to = attempt.request.return_to.as_str();
    let came_back = finish(&browser, &attempt, CallbackParams::from(&params)).await;
    let came_back = came_back.map_err(|error| error.beginning_at(return_to))?;
    let clear = cookies::CONNECT.clear(&browser.cookies, state.id());
    Ok((clear, browser.go(&with_news(return_to, &came_back))).into_response())
}

fn elsewhere(reason: &str) -> PageError {
    Message::ConnectFromElsewhere.because(reason)
}

fn read(browser: &Browser) -> Result<Params, PageError> {
    let params = browser.params().map_err(|_| elsewhere("the callback cannot be read"))?;
    if params.repeats_any(&["code", "state", "iss", "error"]) {
        return Err(elsewhere("a parameter came twice"));
    }
    Ok(params)
}

/// Uses up the attempt, if this is the browser that began it, the same person is signed in there, and the callback is
/// that of the same service. Otherwise the attempt ends, and nobody can finish it any more.
async fn claim(
    browser: &Browser,
    name: &str,
    state: &Secret<ConnectState>,
) -> Result<TakenAttempt, PageError> {
    let app = &browser.app;
    let binding = cookies::CONNECT.get(&browser.cookies, state.id());
    let visitor = web_session::visitor(browser).await?;
    if visitor.is_none() && binding.is_some() {
        // The session has ended meanwhile. The person signs in and begins again.
        return Err(web_session::sign_in_page(browser, &paths::connect(name), false).into());
    }
    let subject = visitor.as_ref().map_or("", |visitor| visitor.session.subject.as_str());
    let event = app.event("connection_refused", Actor::Person);
    let event = if subject.is_empty() { event } else { event.subject(subject) };
    let comer = AttemptComer { binding: binding.as_ref(), subject, name };
    Err(match app.storage().take_attempt(state, comer, app.now(), event).await? {
        AttemptClaim::First(attempt) => return Ok(*attempt),
        AttemptClaim::Unknown => elsewhere("unknown attempt"),
        AttemptClaim::OtherBrowser => elsewhere("another browser came back"),
        AttemptClaim::OtherPerson => elsewhere("another person came back"),
        AttemptClaim::OtherService => elsewhere("it is the callback of another service"),
        AttemptClaim::Already => Message::ConnectUsed.because("the attempt came back before"),
        AttemptClaim::Expired => Message::ConnectExpired.because("the attempt has expired"),
    })
}

/// Redeems the code of an attempt that [`claim`] has used up, and stores the connection.
async fn finish(
    browser: &Browser,
    attempt: &TakenAttempt,
    came: CallbackParams<'_>,
) -> Result<CameBack, PageError> {
    let app = &browser.app;
    let TakenAttempt { id, subject, name, scopes, resource, request } = attempt;
    let scopes: Vec<String> = scopes.iter().cloned().collect();
    let redirect_uri = app.config().public_url.join(&paths::connect_callback(name));
    let back = ConnectReturn {
        name,
        subject,
        scopes: &scopes,
        verifier: &request.verifier,
        nonce: &request.nonce,
        redirect_uri: &redirect_uri,
    };
    let Connected { connection, missing } = match app.connections().finish(&back, came).await {
        Ok(connected) => connected,
        Err(ConnectFailed::Refused) => {
            tracing::info!(connection = name, "a person refused at the service");
            return Ok(CameBack::Refused);
        }
        Err(failed) => return Err(explain(&failed)),
    };
    // The transaction names the event after what happened.
    let mut event = app.event("connection_made", Actor::Person);
    if !resource.is_empty() {
        event = event.resource(resource);
    }
    match app.storage().put_connection(id, &connection, app.now(), event).await? {
        PutConnection::Refused => {
            Err(Message::ConnectUsed.because("the attempt ended while the code was redeemed"))
        }
        put => Ok(CameBack::Connected(put, missing)),
    }
}

/// Returns the path and the query of the page to which the browser returns, with what to say there.
fn with_news(return_to: &str, answered: &CameBack) -> String {
    let mut news = Vec::new();
    match answered {
        CameBack::Refused => news.push("came=refused"),
        CameBack::Connected(put, missing) => {
            if !missing.is_empty() {
                news.push("came=partial");
            }
            if *put == PutConnection::AccountChanged {
                news.push("account=other");
            }
        }
    }
    if news.is_empty() {
        return return_to.to_owned();
    }
    let separator = if return_to.contains('?') { '&' } else { '?' };
    format!("{return_to}{separator}{}", news.join("&"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_gets_what_to_say_in_its_query() {
        let missing = || vec!["write".to_owned()];
        let made = |missing| CameBack::Connected(PutConnection::Made, missing);
        let other = |missing| CameBack::Connected(PutConnection::AccountChanged, missing);
        for (return_to, answered, page) in [
            ("/connect/x", made(Vec::new()), "/connect/x"),
            ("/connect/x?for=y", made(Vec::new()), "/connect/x?for=y"),
            ("/connect/x?for=y", made(missing()), "/connect/x?for=y&came=partial"),
            ("/connect/x", other(missing()), "/connect/x?came=partial&account=other"),
            ("/connect/x", CameBack::Refused, "/connect/x?came=refused"),
        ] {
            assert_eq!(with_news(return_to, &answered), page);
        }
    }
}
