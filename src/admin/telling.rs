//! The lines of the audit trail as text with links: the sentence of the event, filled in (`sentences.rs`).

use serde_json::{Map, Value};

use super::names::{Linked, Names, server_name};
use super::people::{FactWords, fact};
use super::sentences::SENTENCES;
use crate::clock::Timestamp;
use crate::config::ResourceConfig;
use crate::storage::{AuditLine, Storage, StorageError};
use crate::web::list_page::utc_seconds;
use crate::web::words::{Language, words};

words! {
    struct SentenceWords {
        somebody: "somebody", "誰か";
        unknown_client: "an unknown client", "不明なクライアント";
        mcp_server: "an MCP server", "MCPサーバー";
        shell: "an administrator (command line)", "管理者(コマンドライン)";
        the_server: "the server", "サーバー";
        provider: "the identity provider", "IDプロバイダー";
        no_rule: "no rule matches", "該当するルールがありません";
        matching: "matching rules: ", "該当したルール: ";
        admin_pages: "the admin pages", "管理画面";
        account_pages: "their own connections page", "自分の接続のページ";
        roles: "roles", "ロール";
        groups: "groups", "グループ";
        comma: ", ", "、";
        nothing: "–", "–";
    }
}

/// What a sentence about a line is made of.
pub(super) struct Telling<'a> {
    line: &'a AuditLine,
    detail: Map<String, Value>,
    names: &'a Names,
    resources: &'a [ResourceConfig],
    w: &'static SentenceWords,
    language: Language,
}

impl<'a> Telling<'a> {
    pub(super) fn of(
        line: &'a AuditLine,
        names: &'a Names,
        resources: &'a [ResourceConfig],
        language: Language,
    ) -> Self {
        let detail = match serde_json::from_str(&line.detail) {
            Ok(Value::Object(members)) => members,
            _ => Map::new(),
        };
        Self { line, detail, names, resources, w: SentenceWords::of(language), language }
    }

    /// Returns the sentence in parts. An event without a sentence, of another version, is its code.
    pub(super) fn sentence(&self) -> Vec<Linked> {
        let Some(template) = sentence_of(&self.line.event, self.kind_of_actor(), self.language)
        else {
            return vec![Linked::foreign(&self.line.event)];
        };
        let mut parts = Vec::new();
        let mut rest = template;
        while let Some(at) = rest.find('[') {
            self.fill(&rest[..at], &mut parts);
            let (optional, after) = rest[at + 1..].split_once(']').unwrap_or((&rest[at + 1..], ""));
            if places(optional).all(|place| self.known(place).is_some()) {
                self.fill(optional, &mut parts);
            }
            rest = after;
        }
        self.fill(rest, &mut parts);
        if let Some(first) = parts.first_mut().filter(|first| !first.foreign) {
            let mut letters = first.text.chars();
            first.text = letters
                .next()
                .map(|letter| letter.to_uppercase().chain(letters).collect())
                .unwrap_or_default();
        }
        parts
    }

    /// Returns the actor, for the column of it.
    pub(super) fn actor(&self) -> Linked {
        let (line, w) = (self.line, self.w);
        if let Some(subject) = admin(line) {
            return self.names.person(subject);
        }
        match line.actor.as_str() {
            who @ ("client" | "person") => self.known(who).unwrap_or_else(|| self.unknown(who)),
            "provider" => Linked::plain(w.provider),
            "server" => Linked::plain(w.the_server),
            "shell" => Linked::plain(w.shell),
            other => Linked::foreign(other),
        }
    }

    fn kind_of_actor(&self) -> &str {
        if admin(self.line).is_some() { "admin" } else { &self.line.actor }
    }

    /// Appends a text with its places filled in.
    fn fill(&self, text: &str, parts: &mut Vec<Linked>) {
        let mut rest = text;
        while let Some((before, (place, after))) =
            rest.split_once('{').and_then(|(before, rest)| Some((before, rest.split_once('}')?)))
        {
            if !before.is_empty() {
                parts.push(Linked::plain(before));
            }
            parts.push(self.known(place).unwrap_or_else(|| self.unknown(place)));
            rest = after;
        }
        if !rest.is_empty() {
            parts.push(Linked::plain(rest));
        }
    }

    fn known(&self, place: &str) -> Option<Linked> {
        let line = self.line;
        match place {
            "person" => line.subject.as_deref().map(|subject| self.names.person(subject)),
            "client" => line.client_id.as_deref().map(|id| self.names.client(id)),
            "server" => {
                let id = line.resource.as_deref()?;
                Some(Linked::foreign(server_name(self.resources, id)))
            }
            "actor" => Some(self.actor()),
            "rules" => Some(match self.detail.get("rules")? {
                Value::Array(rules) if rules.is_empty() => Linked::plain(self.w.no_rule),
                rules => Linked::plain(format!("{}{}", self.w.matching, plain(rules))),
            }),
            "facts" => self.names.facts_at(line.reference.as_deref()?).map(|facts| {
                let f = FactWords::of(self.language);
                let (roles, groups) = (fact(f, &facts.roles), fact(f, &facts.groups));
                let (w, comma) = (self.w, self.w.comma);
                Linked::foreign(format!("{}: {roles}{comma}{}: {groups}", w.roles, w.groups))
            }),
            "pages" => match self.detail.get("pages")?.as_str()? {
                "admin" => Some(Linked::plain(self.w.admin_pages)),
                "account" => Some(Linked::plain(self.w.account_pages)),
                other => Some(Linked::foreign(other)),
            },
            _ => match self.detail.get(place)? {
                Value::Null | Value::Bool(_) | Value::Object(_) => None,
                Value::Array(values) if values.is_empty() => None,
                Value::Number(number) if number.as_i64() == Some(0) => None,
                Value::String(text) if text.is_empty() => None,
                value => Some(Linked::foreign(told(place, value))),
            },
        }
    }

    /// Returns what stands for a value that the line does not have.
    fn unknown(&self, place: &str) -> Linked {
        Linked::plain(match place {
            "person" => self.w.somebody,
            "client" => self.w.unknown_client,
            "server" => self.w.mcp_server,
            "pages" => self.w.account_pages,
            "ended" | "lines" | "events" => "0",
            _ => self.w.nothing,
        })
    }
}

/// Loads the names of everybody and everything that these lines mention.
pub(super) async fn names_in(
    storage: &Storage,
    lines: &[AuditLine],
) -> Result<Names, StorageError> {
    let subjects: Vec<&str> = lines
        .iter()
        .flat_map(|line| line.subject.as_deref().into_iter().chain(admin(line)))
        .collect();
    let clients: Vec<&str> = lines.iter().filter_map(|line| line.client_id.as_deref()).collect();
    Names::of(storage, &subjects, &clients).await
}

/// Returns audit lines as English sentences, for the command line.
pub(crate) async fn audit_sentences(
    storage: &Storage,
    lines: &[AuditLine],
    resources: &[ResourceConfig],
) -> Result<Vec<String>, StorageError> {
    let names = names_in(storage, lines).await?;
    let sentence = |line| {
        let telling = Telling::of(line, &names, resources, Language::English);
        telling.sentence().into_iter().map(|part| part.text).collect()
    };
    Ok(lines.iter().map(sentence).collect())
}

/// Returns the places of a text.
fn places(text: &str) -> impl Iterator<Item = &str> {
    text.split('{').skip(1).filter_map(|rest| Some(rest.split_once('}')?.0))
}

/// Returns the sentence of an event, for this kind of actor if there is one of its own.
fn sentence_of(event: &str, actor: &str, language: Language) -> Option<&'static str> {
    let find = |wanted: &str| SENTENCES.iter().find(|(event, ..)| *event == wanted);
    let (_, english, japanese) = find(&format!("{event}/{actor}")).or_else(|| find(event))?;
    Some(match language {
        Language::Japanese => japanese,
        _ => english,
    })
}

/// Returns the subject of the acting administrator.
pub(super) fn admin(line: &AuditLine) -> Option<&str> {
    line.actor.strip_prefix("admin ")
}

/// Formats a detail for people: times as times, everything else as text.
pub(super) fn told(name: &str, value: &Value) -> String {
    match value {
        Value::Array(values) if values.is_empty() && name == "rules" => "none matched".to_owned(),
        _ => match value.as_i64() {
            Some(at) if is_time(name) => utc_seconds(Timestamp::from_unix(at)),
            _ => plain(value),
        },
    }
}

/// Returns whether the detail of this name is a time, if it is a number.
fn is_time(name: &str) -> bool {
    name.ends_with("_at") || name.ends_with("_from") || matches!(name, "before" | "until")
}

/// Formats a JSON value for people.
fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(values) if values.is_empty() => "none".to_owned(),
        Value::Array(values) => values.iter().map(plain).collect::<Vec<_>>().join(", "),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::telemetry::audit::EVENTS;

    #[test]
    fn every_event_has_a_sentence_in_both_languages() {
        for event in EVENTS {
            assert!(sentence_of(event, "server", Language::English).is_some(), "{event} has none");
        }
        for (key, english, japanese) in SENTENCES {
            let (event, actor) = key.split_once('/').unwrap_or((key, "client"));
            assert!(EVENTS.contains(&event), "{event} is not an event");
            let actors = ["admin", "shell", "client", "person", "provider", "server"];
            assert!(actors.contains(&actor), "{key}");
            let of = |text: &'static str| places(text).collect::<BTreeSet<&str>>();
            assert!(!english.is_empty() && english.is_ascii(), "{key}: {english}");
            assert!(japanese.chars().any(|c| c > '\u{3000}'), "{key}: {japanese}");
            assert_eq!(of(english), of(japanese), "{key}: other places in the other language");
            assert_eq!(english.matches('[').count(), japanese.matches('[').count(), "{key}");
        }
        let keys: BTreeSet<&str> = SENTENCES.iter().map(|(key, ..)| *key).collect();
        assert_eq!(keys.len(), SENTENCES.len(), "an event has two sentences");
    }

    fn line(event: &str, actor: &str, detail: &str) -> AuditLine {
        AuditLine {
            id: String::new(),
            at: 0,
            event: event.to_owned(),
            actor: actor.to_owned(),
            client_id: None,
            subject: None,
            resource: None,
            grant_id: None,
            reference: None,
            detail: detail.to_owned(),
            seq: None,
        }
    }

    fn text(line: &AuditLine, language: Language) -> String {
        let names = Names::default();
        let telling = Telling::of(line, &names, &[], language);
        telling.sentence().into_iter().map(|part| part.text).collect()
    }

    #[test]
    fn a_sentence_says_what_the_line_knows_and_no_more() {
        let mut denied = line("access_denied", "person", r#"{"asked":"a","rules":[]}"#);
        assert_eq!(
            text(&denied, Language::English),
            "Somebody was refused an MCP server: no rule matches"
        );
        denied.subject = Some("oidc:igor".to_owned());
        denied.detail = r#"{"reason":"the client is blocked"}"#.to_owned();
        assert_eq!(
            text(&denied, Language::English),
            "oidc:igor was refused an MCP server: the client is blocked"
        );
        let ended =
            |detail: &str| text(&line("grants_revoked", "shell", detail), Language::English);
        assert_eq!(
            ended(r#"{"before":1795219200,"ended":128}"#),
            "An administrator (command line) ended connections made before 2026-11-21 00:00:00 UTC: 128"
        );
        assert_eq!(ended(r#"{"ended":0}"#), "An administrator (command line) ended connections: 0");
        let trimmed = line("audit_trimmed", "server", r#"{"lines":500}"#);
        assert!(text(&trimmed, Language::Japanese).ends_with(": 500行"));
        assert_eq!(
            text(&line("of_the_future", "server", "broken"), Language::English),
            "of_the_future"
        );
    }

    #[test]
    fn details_are_words() {
        assert_eq!(told("rules", &serde_json::json!([])), "none matched");
        assert_eq!(told("rules", &serde_json::json!(["rule 1", "rule 2"])), "rule 1, rule 2");
        assert_eq!(told("taken_at", &serde_json::json!(1_795_219_200)), "2026-11-21 00:00:00 UTC");
    }
}
