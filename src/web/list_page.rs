//! The frame of pages with lists: the admin pages and `/account`.

use axum::http::StatusCode;
use axum::response::Response;

use super::browser::Browser;
use super::locales::FrameWords;
use super::pages::{PageFrame, Style};
use super::times::{format, iso};
pub use super::times::{utc, utc_seconds};
use super::web_session::SignedInPerson;
use super::words::{Language, words};
use crate::clock::Timestamp;
use crate::config::{Branding, paths};
use crate::storage::{COUNTED, Realm};

words! {
    /// Words of the lists of administrators.
    struct ListWords {
        previous: "Previous page", "前のページ";
        next: "Next page", "次のページ";
        pages: "Pages of this list", "一覧のページ";
        now: "just now", "たった今";
        minutes_after: " min ago", "分前";
        hours_after: " h ago", "時間前";
        more_than: "more than ", "";
        or_more: "", "以上";
    }
}

/// The links to the pages of a list around this one.
#[derive(Debug)]
pub struct Pager {
    /// The page before this one.
    pub previous: Option<String>,
    pub next: Option<String>,
    w: &'static ListWords,
}

impl Pager {
    /// Makes the links in a language.
    pub fn new(language: Language, previous: Option<String>, next: Option<String>) -> Self {
        Self { previous, next, w: ListWords::of(language) }
    }

    /// Changes the link to the next page into one that searches on, from where a search stopped.
    #[must_use]
    pub fn searching_on(mut self, link: Option<String>, backwards: bool) -> Self {
        if link.is_some() {
            *(if backwards { &mut self.previous } else { &mut self.next }) = link;
        }
        self
    }

    /// Returns whether there is another page.
    pub fn is_needed(&self) -> bool {
        self.previous.is_some() || self.next.is_some()
    }

    /// Returns the name of the links.
    pub fn pages(&self) -> &'static str {
        self.w.pages
    }

    /// Returns the text of the link to the page before this one.
    pub fn previous_page(&self) -> &'static str {
        self.w.previous
    }

    /// Returns the text of the link to the page after this one.
    pub fn next_page(&self) -> &'static str {
        self.w.next
    }
}

/// Formats a count: `128`, `1,234`, or `more than 10,000` where counting stopped.
pub fn count(language: Language, number: i64) -> String {
    let w = ListWords::of(language);
    if number > COUNTED {
        return format!("{}{}{}", w.more_than, grouped(COUNTED), w.or_more);
    }
    grouped(number)
}

/// Formats a number with a comma between groups of three digits.
pub fn grouped(number: i64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// An entry of the navigation.
#[derive(Debug)]
pub struct Section {
    pub path: &'static str,
    pub label: &'static str,
    /// Whether it is the current page.
    pub current: bool,
    /// Number of items there that need attention.
    pub count: i64,
}

/// The parts that surround the content of a page.
#[derive(Debug)]
pub struct Frame {
    pub language: Language,
    pub w: &'static FrameWords,
    /// Display name of the signed-in person.
    pub name: String,
    /// The CSRF token for forms.
    pub csrf: String,
    /// Whether forms are shown.
    pub may_change: bool,
    /// URL path of the sign-out form.
    pub sign_out: String,
    /// Base path, placed before every path of this server on the page.
    pub base: String,
    /// Whether a person may choose another language on the page.
    pub offers_languages: bool,
    /// Name, logo, colour and links of the organisation.
    pub brand: Branding,
    /// Whether this is a page of the public listener.
    pub for_people: bool,
    pub sections: Vec<Section>,
    /// Confirms what the last form did.
    pub notice: Option<String>,
    pub footer: String,
    /// What the page is for, for those who want to know.
    pub help: Option<PageHelp>,
    /// Path of the icon in the browser's tab.
    pub icon: Option<&'static str>,
    /// The present time, on pages whose times are relative to it.
    now: Option<Timestamp>,
}

/// A short text on what a page is for.
#[derive(Clone, Copy, Debug)]
pub struct PageHelp {
    pub title: &'static str,
    pub text: &'static str,
}

impl Frame {
    /// Builds the frame for a signed-in person, without navigation, notice and footer.
    pub fn new(browser: &Browser, visitor: &SignedInPerson) -> Self {
        let PageFrame { language, base, brand, offers_languages, for_people } = browser.frame();
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
            for_people,
            sections: Vec::new(),
            notice: None,
            footer: String::new(),
            help: None,
            icon: None,
            now: (browser.realm == Realm::Admin).then(|| browser.app.now()),
        }
    }

    /// Returns the languages among which a person may choose.
    pub fn languages(&self) -> &'static [Language] {
        &Language::ALL
    }

    /// Formats a time for people: `2026-11-21 08:41 UTC`. On admin pages, a time of the last day also says
    /// how long ago it was: `3 min ago (08:41 UTC)`.
    pub fn utc(&self, moment: &Timestamp) -> String {
        self.ago(*moment, "%H:%M UTC").unwrap_or_else(|| utc(*moment))
    }

    /// The same, with seconds.
    pub fn utc_seconds(&self, moment: &Timestamp) -> String {
        self.ago(*moment, "%H:%M:%S UTC").unwrap_or_else(|| utc_seconds(*moment))
    }

    /// Returns the whole time with its date, for those who point at a relative one.
    pub fn utc_in_full(&self, moment: &Timestamp) -> String {
        utc_seconds(*moment)
    }

    /// Describes a time of the last day by how long ago it was. `None`: it is older, or in the future.
    fn ago(&self, moment: Timestamp, how: &str) -> Option<String> {
        let now = self.now.filter(|now| *now >= moment)?;
        let minutes = now.since(moment).as_secs() / 60;
        let w = ListWords::of(self.language);
        let ago = match minutes {
            0 => w.now.to_owned(),
            1..60 => format!("{minutes}{}", w.minutes_after),
            60..1440 => format!("{}{}", minutes / 60, w.hours_after),
            _ => return None,
        };
        Some(format!("{ago} ({})", format(moment, how)))
    }

    /// The same, for `<time datetime>`.
    pub fn iso(&self, moment: &Timestamp) -> String {
        iso(*moment)
    }

    /// Formats an optional time; returns `never` if there is none.
    pub fn utc_or(&self, moment: &Option<Timestamp>, never: &str) -> String {
        moment.map_or_else(|| never.to_owned(), |moment| self.utc(&moment))
    }

    /// Builds the response with this page, with status 200.
    pub fn answer(&self, html: askama::Result<String>) -> Response {
        self.answer_with(StatusCode::OK, html)
    }

    /// The same, with another status.
    pub fn answer_with(&self, status: StatusCode, html: askama::Result<String>) -> Response {
        let &Self { language, ref base, ref brand, offers_languages, for_people, .. } = self;
        let frame = PageFrame { language, base, offers_languages, brand, for_people };
        frame.respond(status, Style::Lists, html)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_grouped_and_stop_at_the_limit() {
        let english = |number| count(Language::English, number);
        assert_eq!(english(0), "0");
        assert_eq!(english(128), "128");
        assert_eq!(english(1234), "1,234");
        assert_eq!(english(10_000), "10,000");
        assert_eq!(english(10_001), "more than 10,000");
        assert_eq!(count(Language::Japanese, 10_001), "10,000以上");
    }
}
