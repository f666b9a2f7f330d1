//! `POST /authorize/again`: a person tries again what a page said did not work, or with another account. Nothing is
//! approved: the browser goes to `/authorize`, which shows the consent page.

use axum::response::Response;

use crate::oauth::authorization_request::AccountPrompt;
use crate::web::again;
use crate::web::browser::BrowserForm;
use crate::web::page_error::PageError;
use crate::web::pages::Message;
use crate::web::web_session;

pub(super) async fn post(sent: BrowserForm) -> Result<Response, PageError> {
    let (browser, form) = web_session::read_form(sent).await?;
    let field = |name| form.get(name).ok().flatten().unwrap_or_default();
    let Some(request) = again::open(&browser.app, field("request")) else {
        return Err(Message::LoginExpired.because("the request in the form is too old or not ours"));
    };
    let account = match field("account") {
        "other" => Some(AccountPrompt::SelectAccount),
        _ => request.account,
    };
    Ok(browser.go(&again::authorize_again(&request, account)))
}
