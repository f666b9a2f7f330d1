//! `/audit`: the audit trail, searchable and page by page, and the verification of its chain.

use askama::Template;
use axum::response::Response;
use chrono::NaiveDate;

use super::links::{ROWS, client_path, next_page, person_path, query};
use super::visit::AdminPage;
use crate::clock::Timestamp;
use crate::storage::{AuditFilter, AuditLine, ChainBroken, Storage, StorageError, Verified};
use crate::telemetry::audit::EVENTS;
use crate::web::list_page::{Frame, utc_seconds};
use crate::web::page_error::PageError;
use crate::web::words::words;

words! {
    struct AuditWords {
        title: "Audit", "監査";
        event: "Event", "イベント";
        any: "any", "すべて";
        client_id: "Client ID", "クライアントID";
        subject: "Subject of the person", "利用者のサブジェクト";
        grant_id: "Connection ID", "接続ID";
        reference_of: "Reference number of a page", "ページの参照番号";
        since: "From (UTC)", "開始日(UTC)";
        until: "Up to and including (UTC)", "終了日(UTC、当日を含む)";
        find: "Find", "検索";
        none: "No line fits.", "該当する記録はありません。";
        not_a_day: "That is not a day.", "日付が正しくありません。";
        time: "Time", "日時";
        by: "By", "実行者";
        about: "About", "対象";
        detail: "Detail", "詳細";
        client: "client", "クライアント";
        person: "person", "利用者";
        server: "MCP server", "MCPサーバー";
        grant: "connection", "接続";
        reference: "reference", "参照番号";
        seq: "line", "行";
        not_chained: "not chained yet", "未連結";
        more: "Older", "以前の記録";
        export: "Download what fits", "検索結果をダウンロード";
        csv: "CSV", "CSV";
        jsonl: "JSON Lines", "JSON Lines";
        chain: "The chain", "連結";
        chain_note: "Each line is chained to the one before it, so that a changed, removed or reordered line shows. To prove that the end was not cut off together with everything that knows of it, keep the last line's number and MAC elsewhere.", "各行は直前の行と連結されているため、変更・削除・並べ替えは検出されます。末尾ごと以前の状態に戻されていないことを示すには、最後の行の番号とMACを別の場所に保管してください。";
        last_line: "Last line", "最後の行";
        verify: "Verify now", "今すぐ検証";
        verify_note: "reads the whole trail", "記録全体を読み込みます";
        holds: "The chain holds.", "連結は正常です。";
        lines: "Lines", "行";
        mac: "MAC of the last line", "最後の行のMAC";
        unsettled: "Not chained yet", "未連結";
        removed: "Removed by the server, as old or as too many", "保存期間または容量の上限によりサーバーが削除した行";
        broken: "The chain is broken:", "連結が壊れています:";
        broken_note: "Somebody changed the database past this server, or it is damaged. Keep a copy of the database before anything else, and compare it with your log collector: every line is there as well.", "このサーバーを経由せずにデータベースが変更されたか、破損しています。まずデータベースの複製を保管し、ログ収集側の記録と照合してください。同じ行がログにも記録されています。";
    }
}

/// An audit line, prepared for display.
pub(super) struct AuditPageLine {
    pub(super) row: AuditLine,
    pub(super) moment: Timestamp,
    /// Targets of the links in the line.
    pub(super) person_path: String,
    pub(super) client_path: String,
    actor_path: Option<String>,
}

impl AuditPageLine {
    /// Prepares the lines of a list. A stored person or client is linked to its page. Others (refused at the
    /// first sign-in, deleted) have no page, so the link searches the trail.
    pub(super) async fn of_all(
        storage: &Storage,
        rows: Vec<AuditLine>,
    ) -> Result<Vec<Self>, StorageError> {
        let subjects: Vec<&str> = rows
            .iter()
            .flat_map(|row| row.subject.as_deref().into_iter().chain(admin(row)))
            .collect();
        let people = storage.stored_people(&subjects).await?;
        let ids: Vec<&str> = rows.iter().filter_map(|row| row.client_id.as_deref()).collect();
        let clients = storage.stored_clients(&ids).await?;
        let search = |by: &str, value: &str| {
            let mut query = query("/audit");
            query.append_pair(by, value).finish()
        };
        let person = |subject: &str| {
            if people.contains(subject) { person_path(subject) } else { search("sub", subject) }
        };
        let client =
            |id: &str| if clients.contains(id) { client_path(id) } else { search("client", id) };
        let line = |row: AuditLine| Self {
            moment: Timestamp::from_unix(row.at.div_euclid(1000)),
            person_path: row.subject.as_deref().map(person).unwrap_or_default(),
            client_path: row.client_id.as_deref().map(client).unwrap_or_default(),
            actor_path: admin(&row).map(person),
            row,
        };
        Ok(rows.into_iter().map(line).collect())
    }

    /// Returns the details as `name: value`, separated by semicolons.
    pub(super) fn detail_text(&self) -> String {
        let Ok(serde_json::Value::Object(members)) = serde_json::from_str(&self.row.detail) else {
            return self.row.detail.clone();
        };
        let told = |name: &str, value: &serde_json::Value| match value.as_i64() {
            Some(at) if name.ends_with("_at") || name.ends_with("_from") || name == "before" => {
                utc_seconds(Timestamp::from_unix(at))
            }
            _ => plain(value),
        };
        let pairs = members.iter().map(|(name, value)| format!("{name}: {}", told(name, value)));
        pairs.collect::<Vec<_>>().join("; ")
    }

    /// Returns the actor, and a link if the actor is an administrator.
    fn actor(&self) -> (&str, Option<&str>) {
        (&self.row.actor, self.actor_path.as_deref())
    }
}

/// Returns the subject of the acting administrator.
fn admin(row: &AuditLine) -> Option<&str> {
    row.actor.strip_prefix("admin ")
}

/// Formats a JSON value for people.
fn plain(value: &serde_json::Value) -> String {
    match value {
        serde_json::Value::String(text) => text.clone(),
        serde_json::Value::Array(values) if values.is_empty() => "–".to_owned(),
        serde_json::Value::Array(values) => values.iter().map(plain).collect::<Vec<_>>().join(", "),
        other => other.to_string(),
    }
}

/// The input of the search form.
pub(super) struct AuditSearch {
    pub(super) filter: AuditFilter,
    since: String,
    until: String,
    pub(super) not_a_day: bool,
}

impl AuditSearch {
    pub(super) fn of(visit: &AdminPage) -> Self {
        let text = |name| visit.param(name).trim().to_owned();
        let (since, until) = (text("since"), text("until"));
        let day = |text: &str| NaiveDate::parse_from_str(text, "%Y-%m-%d").ok();
        let midnight = |day: NaiveDate| {
            day.and_hms_opt(0, 0, 0).map(|at| Timestamp::from_unix(at.and_utc().timestamp()))
        };
        let (first, last) = (day(&since), day(&until));
        Self {
            filter: AuditFilter {
                event: text("event"),
                client_id: text("client"),
                subject: text("sub"),
                grant_id: text("grant"),
                // In upper case, because people may type the reference from hearing, or paste it from a
                // mail.
                reference: text("ref").to_uppercase(),
                since: first.and_then(midnight),
                until: last.and_then(|day| day.succ_opt()).and_then(midnight),
                before: text("before"),
            },
            not_a_day: (!since.is_empty() && first.is_none())
                || (!until.is_empty() && last.is_none()),
            since,
            until,
        }
    }

    /// Returns a URL with the same search and `further` parameters. Empty fields are omitted.
    fn query(&self, path: &str, further: &[(&str, &str)]) -> String {
        let filter = &self.filter;
        let mut query = form_urlencoded::Serializer::for_suffix(format!("{path}?"), path.len() + 1);
        let fields = [
            ("event", &filter.event),
            ("client", &filter.client_id),
            ("sub", &filter.subject),
            ("grant", &filter.grant_id),
            ("ref", &filter.reference),
            ("since", &self.since),
            ("until", &self.until),
        ];
        for (name, value) in fields.into_iter().filter(|(_, value)| !value.is_empty()) {
            query.append_pair(name, value);
        }
        query.extend_pairs(further).finish()
    }

    /// Returns the search as text, for the audit event of an export.
    pub(super) fn told(&self) -> String {
        self.query("", &[]).trim_start_matches('?').to_owned()
    }
}

#[derive(Template)]
#[template(path = "admin/audit.html")]
struct AuditTemplate<'a> {
    frame: &'a Frame,
    w: &'static AuditWords,
    search: &'a AuditSearch,
    events: Vec<(&'static str, bool)>,
    rows: Vec<AuditPageLine>,
    next: Option<String>,
    head: i64,
    verified: Option<Result<Verified, ChainBroken>>,
}

pub(super) async fn get(visit: AdminPage) -> Result<Response, PageError> {
    let mut frame = visit.frame("/audit").await?;
    let w = AuditWords::of(frame.language);
    let search = AuditSearch::of(&visit);
    if search.not_a_day {
        frame.notice = Some(w.not_a_day.to_owned());
    }
    let storage = visit.app().storage();
    let verified = if visit.param("verify").is_empty() {
        None
    } else {
        let verified = storage.verify_audit().await?;
        // A sweep that removes old lines during the first walk makes them look missing. Only a second
        // failure counts.
        Some(match verified {
            Ok(verified) => Ok(verified),
            Err(_) => storage.verify_audit().await?,
        })
    };
    let mut rows = storage.audit_lines(&search.filter, ROWS + 1).await?;
    let next = next_page(&mut rows, |last| search.query("/audit", &[("before", &last.id)]));
    let template = AuditTemplate {
        frame: &frame,
        w,
        events: EVENTS.iter().map(|event| (*event, *event == search.filter.event)).collect(),
        rows: AuditPageLine::of_all(storage, rows).await?,
        next,
        head: storage.audit_head().await?,
        verified,
        search: &search,
    };
    Ok(frame.answer(template.render()))
}
