//! `POST /account/language`: the person chooses the language of the pages. A cookie of the browser holds the
//! choice, and the browser returns to the page on which it was made: `Referer` names it, so that no page has to
//! repeat the text of a request.

use axum::http::header;
use axum::response::{IntoResponse, Response};

use crate::config::paths;
use crate::web::browser::{BrowserForm, is_repeatable};
use crate::web::cookies;
use crate::web::page_error::PageError;
use crate::web::pages::Message;
use crate::web::params::Params;
use crate::web::web_session;
use crate::web::words::Language;

pub(super) async fn post(sent: BrowserForm) -> Result<Response, PageError> {
    let (browser, form) = web_session::read_form(sent).await?;
    let tag = form.get("language").ok().flatten().unwrap_or_default();
    let language = Language::from_tag(tag).ok_or_else(|| {
        Message::InvalidRequest { what: "language" }.because("not a language of the pages")
    })?;
    let set = cookies::LANGUAGE.set(&browser.cookies, "", &language);
    let from = browser.header(header::REFERER.as_str()).unwrap_or_default();
    let here = match from.strip_prefix(browser.url().as_str()) {
        Some("") => paths::LANDING,
        here => here.unwrap_or_default(),
    };
    Ok((set, browser.go(&page_again(here))).into_response())
}

/// Returns the path and the query of the page to which the browser returns: `here`, if that is a page of this server
/// that may be shown again, and otherwise `/account`.
fn page_again(here: &str) -> String {
    let (path, query) = here.split_once('?').unwrap_or((here, ""));
    if !is_repeatable(path) || !here.bytes().all(|byte| byte.is_ascii_graphic()) {
        return paths::ACCOUNT.to_owned();
    }
    if path != paths::AUTHORIZE || asks_for_a_page(query) {
        return here.to_owned();
    }
    // The browser now comes from a page of this server, so a remembered approval would skip the consent page, although
    // another website may have brought the person to it (threat CD-02). They chose a language, and approved
    // nothing.
    let is_prompt = |pair: &str| {
        form_urlencoded::parse(pair.as_bytes()).next().is_some_and(|(name, _)| name == "prompt")
    };
    let mut pairs: Vec<&str> = query.split('&').filter(|pair| !is_prompt(pair)).collect();
    pairs.push("prompt=consent");
    format!("{path}?{}", pairs.join("&"))
}

/// Returns whether the request has a `prompt`, for which `/authorize` always shows the consent page.
fn asks_for_a_page(query: &str) -> bool {
    let params = Params::parse(query);
    params.is_ok_and(|params| params.get("prompt").is_ok_and(|prompt| prompt.is_some()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_browser_returns_to_its_page_and_nowhere_else() {
        let same = [
            "/",
            "/account",
            "/account?done=disconnected",
            "/account/confirm",
            "/account/connections?done=disconnected",
            "/account/connections/confirm?name=github",
            "/connect/github?for=https%3A%2F%2Fmcp.example.com%2Fmcp",
            "/waiting?id=0123",
            "/authorize?client_id=a&prompt=login",
            "/authorize?prompt=select_account&client_id=a%20b",
        ];
        for here in same {
            assert_eq!(page_again(here), here);
        }
        let elsewhere = [
            "",
            "https://evil.example/",
            "//evil.example/",
            "/\\evil.example",
            "/account@evil.example",
            "/account/../admin",
            "/account/sign-out",
            "/account/connections/remove",
            "/connect/",
            "/connect/github/x",
            "/auth/callback?code=x&state=y",
            "/auth/connect/github/callback?code=x&state=y",
            "/consent",
            "/account?x=\r\nset-cookie: a=b",
            "/account?x= y",
            "/account?x=é",
            "/ACCOUNT",
        ];
        for here in elsewhere {
            assert_eq!(page_again(here), "/account", "{here}");
        }
    }

    #[test]
    fn cd_02_the_consent_page_is_shown_again_and_not_skipped() {
        let cases = [
            (
                "/authorize?client_id=a&state=b%26c",
                "/authorize?client_id=a&state=b%26c&prompt=consent",
            ),
            ("/authorize?client_id=a&prompt=", "/authorize?client_id=a&prompt=consent"),
            ("/authorize?pr%6Fmpt=&client_id=a", "/authorize?client_id=a&prompt=consent"),
            ("/authorize?prompt=login&prompt=x", "/authorize?prompt=consent"),
        ];
        for (here, again) in cases {
            assert_eq!(page_again(here), again);
        }
    }
}
