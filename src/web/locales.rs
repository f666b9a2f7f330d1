//! The texts of the pages that people see: one file a language in `locales/`, which a translator edits without
//! Rust. The files are embedded in the program.
//!
//! Each key is a field of a struct here, so a page can use no text that does not exist. A file with a missing or
//! an unknown key, or with a text that lacks its placeholder, cannot be read; the tests below read every file and
//! compare its placeholders with those of the English one.

mod placeholders;
mod services;

use std::sync::OnceLock;

use serde::Deserialize;

use super::words::Language;
pub use placeholders::{Around, Between};
pub use services::{ConnectWords, ServicesWords};

/// The texts of one language.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Words {
    pub consent: ConsentWords,
    pub brand: BrandWords,
    /// What the pages with a message have in common.
    pub message: MessageWords,
    pub messages: Messages,
    /// The page of a person who waits for an administrator.
    pub waiting: WaitingWords,
    /// The pages that say how to connect an application.
    pub landing: LandingWords,
    /// The page to sign in to our own pages.
    pub sign_in: SignInWords,
    /// What surrounds pages with lists.
    pub frame: FrameWords,
    pub account: AccountWords,
    /// The page that connects a service.
    pub connect: ConnectWords,
    /// The page with the services that a person has connected.
    pub services: ServicesWords,
}

/// A message: its heading, what happened, and what the person can do.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Text {
    pub title: String,
    pub happened: String,
    pub hint: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConsentWords {
    pub consent_title: String,
    pub wants_to_use: Between,
    pub loopback_is: String,
    pub app_is: String,
    pub opened_by: Around,
    pub published_by: Around,
    pub calls_itself: Around,
    pub no_name: String,
    pub verified: String,
    pub self_registered: String,
    pub self_registered_note: String,
    pub not_verified: String,
    pub not_verified_note: String,
    pub continue_only: Around,
    pub punycode_warning: String,
    pub loopback_warning: String,
    pub app_warning: String,
    pub name_warning: String,
    pub asks_to: String,
    pub at_most: String,
    pub no_scopes: String,
    pub asked_for_unknown: String,
    pub destructive: String,
    pub new_scope: String,
    pub approved_before: String,
    pub included_in: Around,
    pub cancel: String,
    pub continue_to: Around,
    pub other_account: String,
    pub disconnect: Around,
    pub details: String,
    pub scopes: String,
    pub mcp_url: String,
    pub full_address: String,
    pub client_id: String,
    pub acts_in: Between,
    pub acts_in_with: Between,
    pub never_sees: Around,
    pub never_sees_any: Around,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BrandWords {
    pub questions: String,
    pub terms: String,
    pub privacy: String,
}

/// What the pages with a message have in common.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MessageWords {
    pub return_to: Around,
    pub try_again: String,
    pub reference: String,
    pub details: String,
    pub signed_in_as: Around,
    pub no_access_to: Around,
    pub asked_for: String,
    pub not_allowed: String,
    pub wait_seconds: Around,
    pub wait_one_minute: String,
    pub wait_minutes: Around,
    pub to_overview: String,
    pub to_audit: String,
}

/// The page of a person who waits for an administrator.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WaitingWords {
    pub title: String,
    pub happened: String,
    pub hint: String,
    pub notified: String,
    pub not_notified: String,
    pub application: String,
    pub server: String,
    pub since: String,
    pub minutes: Around,
    pub until: String,
    pub cancel: String,
}

/// The pages that say how to connect an application.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LandingWords {
    pub title: String,
    pub server_title: String,
    pub intro: Around,
    pub server_intro: Around,
    pub how: String,
    pub claude: String,
    pub terminal: String,
    pub chatgpt: String,
    pub cursor: String,
    pub vscode: String,
    pub inspector: String,
    pub others: String,
    pub others_note: String,
    pub only_here: String,
    pub yours: Around,
    pub none_yours: String,
    pub sign_in_note: String,
    pub all_servers: String,
}

/// The page to sign in to our own pages.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignInWords {
    pub title: String,
    pub admin: String,
    pub account: String,
    pub again: String,
    pub button: Around,
    pub connect: String,
}

/// What surrounds pages with lists: the admin pages and `/account`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FrameWords {
    pub skip: String,
    pub read_only: String,
    pub sign_out: String,
    pub navigation: String,
    pub language: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AccountWords {
    pub title: String,
    pub explained: String,
    pub more_note: String,
    pub how_to_connect: String,
    pub lasts: Between,
    pub days: Around,
    pub one_hour: String,
    pub hours: Around,
    pub none: String,
    pub unnamed: String,
    pub gone: String,
    pub verified: String,
    pub unverified: String,
    pub suspicious: String,
    pub server: String,
    pub goes_to: String,
    pub on_device: String,
    pub scopes: String,
    pub in_force: String,
    pub nothing: String,
    pub server_gone: String,
    pub no_scopes: String,
    pub as_of: Around,
    pub since: String,
    pub last_use: String,
    pub disconnect: String,
    pub disconnect_what: Around,
    pub disconnected: String,
    pub not_there: String,
    pub sign_out: String,
    pub here: String,
    pub here_note: String,
    pub everywhere: String,
    pub everywhere_note: String,
    pub confirm_title: String,
    pub one_connection: String,
    pub connections: Around,
    pub confirm_ends: Around,
    pub confirm_here: String,
    pub changed: String,
    pub cancel: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Messages {
    pub unknown_client: Text,
    pub client_document_refused: Text,
    pub client_document_unavailable: Text,
    pub client_documents_off: Text,
    pub no_network: Text,
    pub redirect_uri_not_registered: Text,
    pub redirect_uri_not_allowed: Text,
    pub invalid_request: Text,
    pub unknown_resource: Text,
    pub consent_expired: Text,
    pub consent_from_elsewhere: Text,
    pub already_decided: Text,
    pub nothing_chosen: Text,
    pub login_from_elsewhere: Text,
    pub login_expired: Text,
    pub login_used: Text,
    pub login_not_trusted: Text,
    pub signed_out_meanwhile: Text,
    pub no_access: Text,
    pub not_allowed_more: Text,
    pub rights_not_known: Text,
    pub provider_unavailable: Text,
    pub provider_cannot: Text,
    pub provider_ended_sign_in: Text,
    pub provider_misconfigured: Text,
    pub server_error: Text,
    pub temporarily_unavailable: Text,
    pub not_found: Text,
    pub method_not_allowed: Text,
    pub no_such_admin_page: Text,
    pub too_many_consent_pages: Text,
    pub too_many_sign_ins: Text,
    pub asked_too_often: Text,
    pub request_too_large: Text,
    pub client_shut_out: Text,
    pub person_blocked: Text,
    pub form_from_elsewhere: Text,
    pub not_an_administrator: Text,
    pub login_refused: Text,
    pub waiting_over: Text,
    pub connect_unknown: Text,
    pub connect_not_for_you: Text,
    pub connect_from_elsewhere: Text,
    pub connect_expired: Text,
    pub connect_used: Text,
    pub service_unavailable: Text,
    pub service_misconfigured: Text,
    pub service_not_trusted: Text,
    pub too_many_connects: Text,
}

impl Language {
    /// Returns the texts of this language. They are read from the embedded file once, when a page needs them.
    pub fn words(self) -> &'static Words {
        static WORDS: [OnceLock<Words>; Language::ALL.len()] =
            [const { OnceLock::new() }; Language::ALL.len()];
        WORDS[self as usize].get_or_init(|| read(self))
    }
}

#[expect(clippy::expect_used, reason = "the files are embedded, and a test reads each of them")]
fn read(language: Language) -> Words {
    toml::from_str(file(language)).expect("an embedded file of texts is complete")
}

/// Returns the embedded file of a language.
const fn file(language: Language) -> &'static str {
    match language {
        Language::English => include_str!("../../locales/en.toml"),
        Language::Japanese => include_str!("../../locales/ja.toml"),
        Language::German => include_str!("../../locales/de.toml"),
        Language::French => include_str!("../../locales/fr.toml"),
        Language::Spanish => include_str!("../../locales/es.toml"),
        Language::SimplifiedChinese => include_str!("../../locales/zh-Hans.toml"),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fs;
    use std::path::Path;

    use super::*;

    /// Every text of a file, by its key.
    fn texts(language: Language) -> BTreeMap<String, String> {
        let table: toml::Table = toml::from_str(file(language)).unwrap();
        let mut texts = BTreeMap::new();
        collect("", table, &mut texts);
        texts
    }

    fn collect(path: &str, table: toml::Table, texts: &mut BTreeMap<String, String>) {
        for (key, value) in table {
            let path = format!("{path}.{key}");
            match value {
                toml::Value::Table(inner) => collect(&path, inner, texts),
                toml::Value::String(text) => drop(texts.insert(path, text)),
                other => panic!("{path} is {other}, and not a text"),
            }
        }
    }

    /// The placeholders of a text, braces included.
    fn placeholders(text: &str) -> Vec<&str> {
        let starts = text.split('{').skip(1);
        starts.map(|rest| rest.split_once('}').expect("a brace is closed").0).collect()
    }

    #[test]
    fn every_file_can_be_read() {
        for language in Language::ALL {
            let read = toml::from_str::<Words>(file(language));
            assert!(read.is_ok(), "locales/{}.toml: {}", language.tag(), read.unwrap_err());
        }
    }

    #[test]
    fn every_language_has_the_keys_and_the_placeholders_of_the_english_file() {
        let english = texts(Language::English);
        assert!(english.len() > 150, "{}", english.len());
        for language in Language::ALL {
            let (name, other) = (language.tag(), texts(language));
            let missing: Vec<&String> =
                english.keys().filter(|key| !other.contains_key(*key)).collect();
            assert!(missing.is_empty(), "locales/{name}.toml lacks {missing:?}");
            let unknown: Vec<&String> =
                other.keys().filter(|key| !english.contains_key(*key)).collect();
            assert!(unknown.is_empty(), "locales/{name}.toml has {unknown:?}, English has not");
            for (key, text) in &other {
                let model = &english[key];
                assert_eq!(placeholders(text), placeholders(model), "{name}: {key}");
                assert_eq!(text.is_empty(), model.is_empty(), "{name}: {key}");
                assert_eq!(text.trim(), text, "{name}: {key}: spaces at an end are lost");
                assert!(!text.contains(['<', '>', '&']), "{name}: {key}: texts are not HTML");
            }
        }
    }

    #[test]
    fn nothing_but_names_is_the_same_in_two_languages() {
        let english = texts(Language::English);
        for language in Language::ALL.into_iter().filter(|other| *other != Language::English) {
            let other = texts(language);
            let same = english.iter().filter(|(key, text)| {
                let words =
                    text.split('{').map(|part| part.split_once('}').map_or(part, |(_, rest)| rest));
                !text.is_empty()
                    && other[*key] == **text
                    && words.map(|part| part.chars().count()).sum::<usize>() > 12
            });
            let same: Vec<_> = same.collect();
            assert!(same.is_empty(), "{} is not translated: {same:?}", language.tag());
        }
    }

    #[test]
    fn every_file_of_the_folder_is_a_language_of_the_pages() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("locales");
        let mut files: Vec<String> = fs::read_dir(folder)
            .unwrap()
            .map(|file| file.unwrap().file_name().into_string().unwrap())
            .collect();
        files.sort_unstable();
        let mut ours = Language::ALL.map(|language| format!("{}.toml", language.tag()));
        ours.sort_unstable();
        assert_eq!(files, ours);
    }
}
