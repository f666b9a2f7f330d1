//! The frame of pages with lists: the admin pages and `/account`.

use askama::Template;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;

use super::browser;
use super::console::{SignedInPerson, Site};
use super::pages::{Style, respond};
use super::words::{Language, words};
use crate::app::App;
use crate::clock::Timestamp;
use crate::config::paths;
use crate::storage::Realm;

words! {
    /// Words of the frame.
    pub struct FrameWords {
        skip: "Skip to the content", "本文へ移動";
        read_only: "read only", "閲覧のみ";
        sign_out: "Sign out", "サインアウト";
        navigation: "Pages", "ページ";
    }
}

/// An entry of the navigation.
#[derive(Debug)]
pub struct Section {
    /// Path of the link.
    pub path: &'static str,
    /// Text of the link.
    pub label: &'static str,
    /// Whether it is the current page.
    pub current: bool,
    /// Number of items there that need attention.
    pub count: i64,
}

/// The parts that surround the content of a page.
#[derive(Debug)]
pub struct Frame {
    /// The person's language.
    pub language: Language,
    /// Words of the frame.
    pub w: &'static FrameWords,
    /// Display name of the signed-in person.
    pub name: String,
    /// The CSRF token for forms.
    pub csrf: String,
    /// Whether forms are shown.
    pub may_change: bool,
    /// URL path of the sign-out form.
    pub sign_out: String,
    /// Base path, placed before every path of ours on the page.
    pub base: String,
    /// The navigation.
    pub sections: Vec<Section>,
    /// Confirms what the last form did.
    pub notice: Option<String>,
    /// Text of the footer.
    pub footer: String,
}

impl Frame {
    /// Builds the frame for a signed-in person, without navigation, notice and footer.
    pub fn new(headers: &HeaderMap, visitor: &SignedInPerson, site: &Site<'_>) -> Self {
        let language = browser::language(headers);
        let person = &visitor.person;
        let name = person.name.clone().or_else(|| person.email.clone());
        Self {
            language,
            w: FrameWords::of(language),
            name: name.unwrap_or_else(|| visitor.session.subject.clone()),
            csrf: visitor.csrf.clone(),
            may_change: visitor.may_change,
            sign_out: match site.realm {
                Realm::Admin => format!("{}/sign-out", site.url.base_path()),
                Realm::Account => format!("{}{}", site.url.base_path(), paths::ACCOUNT_SIGN_OUT),
            },
            base: site.url.base_path().to_owned(),
            sections: Vec::new(),
            notice: None,
            footer: String::new(),
        }
    }

    /// Formats a time for people: `2026-11-21 08:41 UTC`.
    pub fn utc(&self, moment: &Timestamp) -> String {
        utc(*moment)
    }

    /// The same, with seconds.
    pub fn utc_seconds(&self, moment: &Timestamp) -> String {
        utc_seconds(*moment)
    }

    /// The same, for `<time datetime>`.
    pub fn iso(&self, moment: &Timestamp) -> String {
        format(*moment, "%Y-%m-%dT%H:%M:%SZ")
    }

    /// Formats an optional time; returns `never` if there is none.
    pub fn utc_or(&self, moment: &Option<Timestamp>, never: &str) -> String {
        moment.map_or_else(|| never.to_owned(), utc)
    }

    /// Builds the response with this page.
    pub fn answer(&self, status: StatusCode, html: askama::Result<String>) -> Response {
        respond(status, self.language, Style::Lists, html)
    }
}

/// Formats a time for people: `2026-11-21 08:41 UTC`. Always with the zone, because readers may be in any.
pub fn utc(moment: Timestamp) -> String {
    format(moment, "%Y-%m-%d %H:%M UTC")
}

/// The same, with seconds.
pub fn utc_seconds(moment: Timestamp) -> String {
    format(moment, "%Y-%m-%d %H:%M:%S UTC")
}

fn format(moment: Timestamp, how: &str) -> String {
    chrono::DateTime::from_timestamp(moment.unix(), 0)
        .map(|time| time.format(how).to_string())
        .unwrap_or_default()
}

words! {
    /// Words of the sign-in page.
    struct SignInWords {
        lang: "en", "ja";
        title: "Sign in", "サインイン";
        admin: "These pages are for the administrators of this server.", "このサーバーの管理者のためのページです。";
        account: "Sign in to see which applications you have connected, and to disconnect them.", "サインインすると、接続したアプリケーションを確認し、接続を解除できます。";
        anew: "This changes something for others, and you signed in a while ago. Sign in again to show that it is you, then repeat what you did.", "ほかの人に影響する操作です。サインインから時間が経っているため、本人であることを示すためにもう一度サインインし、操作をやり直してください。";
        with_before: "Sign in with ", "";
        with_after: "", " でサインイン";
    }
}

#[derive(Template)]
#[template(path = "sign_in.html")]
struct SignInTemplate<'a> {
    w: &'static SignInWords,
    explanation: &'static str,
    action: String,
    go_on: &'a str,
    anew: bool,
    identity_provider: &'a str,
}

/// Returns the sign-in page, with status 401. `anew`: the person is signed in, but must authenticate again
/// before a destructive action.
pub fn sign_in_page(
    app: &App,
    site: &Site<'_>,
    headers: &HeaderMap,
    go_on: &str,
    anew: bool,
) -> Response {
    let language = browser::language(headers);
    let w = SignInWords::of(language);
    let (explanation, action) = match site.realm {
        Realm::Admin => (w.admin, "/sign-in"),
        Realm::Account => (w.account, paths::ACCOUNT_SIGN_IN),
    };
    let template = SignInTemplate {
        w,
        explanation: if anew { w.anew } else { explanation },
        action: format!("{}{action}", site.url.base_path()),
        go_on,
        anew,
        identity_provider: &app.config().upstream.name,
    };
    respond(StatusCode::UNAUTHORIZED, language, Style::People, template.render())
}
