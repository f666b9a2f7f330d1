//! Phrases for confirmation pages: how many connections an act ends, and whose.

use super::words::{Language, words};
use crate::storage::Counted;

words! {
    /// Words of confirmation pages.
    pub struct CountWords {
        connection: "connection", "件の接続";
        connections: "connections", "件の接続";
        of: " of ", "(利用者";
        person: "1 person", "1人";
        people: " people", "人";
        with: " with ", "、クライアント";
        client: "1 client", "1件";
        clients: " clients", "件)";
        will_end: " will end.", "が終了します。";
        none: "No connection ends.", "終了する接続はありません。";
        one_waits: "1 sign-in that waits for an administrator ends as well.", "管理者の承認を待っているサインイン1件も終了します。";
        wait: " sign-ins that wait for an administrator end as well.", "件の承認待ちのサインインも終了します。";
        one_session: "1 session at the pages of this server ends as well.", "このサーバーのページのセッション1件も終了します。";
        sessions: " sessions at the pages of this server end as well.", "件のこのサーバーのページのセッションも終了します。";
        changed: "What this ends has changed since you looked, or you have signed in again since. Nothing was done; look again.", "表示した後に対象が変わったか、サインインし直したため、何も行いませんでした。もう一度確認してください。";
        more: " more are not shown.", "件は表示していません。";
        cancel: "Cancel", "キャンセル";
    }
}

/// Returns the number of connections as a phrase.
pub fn number(language: Language, counted: &Counted) -> String {
    let w = CountWords::of(language);
    match (language, counted.grants) {
        (Language::Japanese, grants) => format!("{grants}{}", w.connections),
        (_, 1) => format!("1 {}", w.connection),
        (_, grants) => format!("{grants} {}", w.connections),
    }
}

/// Returns the rest of the sentence: whose connections they are, and that they end.
pub fn rest(language: Language, counted: &Counted) -> String {
    let w = CountWords::of(language);
    let Counted { people, clients, .. } = counted;
    let one_of = |number: u64, one: &str, many: &str| {
        // "1 person", and in Japanese as any other number.
        let only_one = number == 1 && language != Language::Japanese;
        if only_one { one.to_owned() } else { format!("{number}{many}") }
    };
    let people = one_of(*people, w.person, w.people);
    let clients = one_of(*clients, w.client, w.clients);
    format!("{}{people}{}{clients}{}", w.of, w.with, w.will_end)
}

/// Returns one sentence for each other thing that ends: waiting sign-ins and sessions.
pub fn besides(language: Language, counted: &Counted) -> Vec<String> {
    let w = CountWords::of(language);
    let told = |number: u64, one: &str, many: &str| match number {
        0 => None,
        1 => Some(one.to_owned()),
        number => Some(format!("{number}{many}")),
    };
    let waiting = told(counted.waiting, w.one_waits, w.wait);
    let sessions = told(counted.sessions, w.one_session, w.sessions);
    waiting.into_iter().chain(sessions).collect()
}
