//! The frame of pages with lists: the admin pages and `/account`.

use axum::http::StatusCode;
use axum::response::Response;

use super::browser::Browser;
use super::locales::FrameWords;
use super::pages::{PageFrame, Style};
use super::web_session::SignedInPerson;
use super::words::Language;
use crate::clock::Timestamp;
use crate::config::{Branding, paths};
use crate::storage::Realm;

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
    /// Whether a person may choose another language on the page.
    pub offers_languages: bool,
    /// Name, logo, colour and links of the organisation.
    pub brand: Branding,
    /// The navigation.
    pub sections: Vec<Section>,
    /// Confirms what the last form did.
    pub notice: Option<String>,
    /// Text of the footer.
    pub footer: String,
}

impl Frame {
    /// Builds the frame for a signed-in person, without navigation, notice and footer.
    pub fn new(browser: &Browser, visitor: &SignedInPerson) -> Self {
        let PageFrame { language, base, brand, offers_languages } = browser.frame();
        let person = &visitor.person;
        let name = person.name.clone().or_else(|| person.email.clone());
        Self {
            language,
            w: &language.words().frame,
            name: name.unwrap_or_else(|| visitor.session.subject.clone()),
            csrf: visitor.csrf.clone(),
            may_change: visitor.may_change,
            sign_out: match browser.realm {
                Realm::Admin => format!("{base}/sign-out"),
                Realm::Account => format!("{base}{}", paths::ACCOUNT_SIGN_OUT),
            },
            base: base.to_owned(),
            offers_languages,
            brand: brand.clone(),
            sections: Vec::new(),
            notice: None,
            footer: String::new(),
        }
    }

    /// Returns the languages among which a person may choose.
    pub fn languages(&self) -> &'static [Language] {
        &Language::ALL
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

    /// Builds the response with this page, with status 200.
    pub fn answer(&self, html: askama::Result<String>) -> Response {
        self.answer_with(StatusCode::OK, html)
    }

    /// The same, with another status.
    pub fn answer_with(&self, status: StatusCode, html: askama::Result<String>) -> Response {
        let &Self { language, ref base, ref brand, offers_languages, .. } = self;
        let frame = PageFrame { language, base, offers_languages, brand };
        frame.respond(status, Style::Lists, html)
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
