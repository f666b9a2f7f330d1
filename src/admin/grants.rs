//! `/grants`: who connected which client with which scopes, and how to end a connection. The gateway refuses
//! an ended grant at once, and open streams end.

use askama::Template;
use axum::response::Response;

use super::confirm;
use super::grant_view::GrantView;
use super::links::{PagePlace, ROWS, person_path, query};
use super::names::{Names, server_name};
use super::visit::{AdminForm, AdminPage, missing};
use crate::storage::GrantFilter;
use crate::web::in_force::InForceWords;
use crate::web::list_page::{Frame, Pager, count};
use crate::web::page_error::PageError;
use crate::web::words::words;

words! {
    struct GrantWords {
        title: "Connections", "接続";
        explained: "Each line is one person, one client, one MCP server.", "1行が、1人の利用者・1つのクライアント・1つのMCPサーバーの組み合わせです。";
        person: "Person", "利用者";
        client: "Client", "クライアント";
        server: "MCP server", "MCPサーバー";
        since: "Since", "開始";
        last_use: "Last use", "最終利用";
        from: "from", "接続元";
        action: "Action", "操作";
        live: "live", "有効";
        ended: "ended", "終了";
        expired: "expired", "期限切れ";
        include_ended: "Include ended", "終了したものも表示";
        search: "Person or client: name, beginning of a name, e-mail address or ID", "利用者またはクライアント: 名前、名前の先頭、メールアドレス、ID";
        any: "any", "すべて";
        find: "Search", "検索";
        clear: "Clear", "条件をクリア";
        remove: "Remove this filter", "この条件を外す";
        filters: "Filters", "絞り込み";
        none: "No connections match.", "該当する接続はありません。";
        one: "connection", "件の接続";
        many: "connections", "件の接続";
        cut: "More than 100 people or clients match. Only the connections of 100 of them are listed; type more of the name.", "100を超える利用者またはクライアントが該当します。そのうち100の接続だけを表示しています。名前をさらに入力してください。";
        newest_first: "newest first", "新しい順";
        oldest_first: "oldest first", "古い順";
        end: "End", "終了";
        end_before: "End everything given before", "次の日時より前に許可されたものをすべて終了";
        end_before_note: "The next page says how many connections end, and whose, before anything happens.", "次のページで、終了する接続の数と利用者を確認してから実行します。";
        end_all: "Continue", "確認へ進む";
        unnamed: "(no name)", "(名前なし)";
        utc_note: "UTC, at midnight", "UTCの0時";
        done_one: "The connection has ended.", "接続を終了しました。";
        done_many: "connections have ended.", "件の接続を終了しました。";
        not_a_day: "Enter a date.", "日付を入力してください。";
    }
}

/// The search, as it is in the URL.
struct GrantQuery<'a> {
    filter: GrantFilter,
    /// What the person typed: a name or an id.
    text: &'a str,
}

impl GrantQuery<'_> {
    /// Returns the path of this search without the field `without`, and with `further` ones.
    fn path(&self, without: &str, further: &[(&str, &str)]) -> String {
        let filter = &self.filter;
        let yes = |set: bool| if set { "1" } else { "" };
        let fields: [(&str, &str); 6] = [
            ("q", self.text),
            ("sub", &filter.subject),
            ("client", &filter.client_id),
            ("server", &filter.resource),
            ("ended", yes(filter.ended)),
            ("oldest", yes(filter.oldest_first)),
        ];
        let mut query = query("/grants");
        let kept = fields.into_iter().filter(|(name, value)| *name != without && !value.is_empty());
        let path = query.extend_pairs(kept).extend_pairs(further).finish();
        path.trim_end_matches('?').to_owned()
    }

    /// Returns the path to the same list in the other order.
    fn turned(&self) -> String {
        self.path("oldest", if self.filter.oldest_first { &[] } else { &[("oldest", "1")] })
    }
}

#[derive(Template)]
#[template(path = "admin/grants.html")]
struct GrantsTemplate<'a> {
    frame: &'a Frame,
    w: &'static GrantWords,
    scopes: &'static InForceWords,
    asked: &'a GrantQuery<'a>,
    /// The person and the client of the URL by name, and the links without them.
    chips: Vec<(String, String)>,
    resources: Vec<(&'a str, &'a str, bool)>,
    number: String,
    is_one: bool,
    rows: Vec<GrantView>,
    pager: Pager,
}

pub(super) async fn list(visit: AdminPage) -> Result<Response, PageError> {
    let mut frame = visit.frame("/grants").await?;
    let w = GrantWords::of(frame.language);
    frame.notice = match visit.param("done") {
        "one" => Some(w.done_one.to_owned()),
        "not_a_day" => Some(w.not_a_day.to_owned()),
        many => many.parse::<u64>().ok().map(|n| format!("{n} {}", w.done_many)),
    };
    let (storage, now) = (visit.app().storage(), visit.app().now());
    let asked = asked(&visit).await?;
    let filter = &asked.filter;
    let mut rows = storage.browse_grants(filter, now, ROWS + 1).await?;
    let place = PagePlace { row: &filter.after, backwards: filter.backwards };
    let pager = place.pager(frame.language, &mut rows, |row, backwards| {
        let further: &[(&str, &str)] = if backwards { &[("back", "1")] } else { &[] };
        asked.path("", &[&[("after", row.id.as_str())][..], further].concat())
    });
    let number = storage.count_grants(filter, now).await?;
    let resources = &visit.app().config().resources;
    let template = GrantsTemplate {
        frame: &frame,
        w,
        scopes: InForceWords::of(frame.language),
        chips: chips(&visit, &asked, w).await?,
        resources: resources
            .iter()
            .map(|one| {
                (one.id.as_str(), server_name(resources, &one.id), one.id == filter.resource)
            })
            .collect(),
        number: count(frame.language, number),
        is_one: number == 1,
        rows: GrantView::of_all(&visit, &frame, rows),
        pager,
        asked: &asked,
    };
    Ok(frame.answer(template.render()))
}

/// Reads the search, and finds the people and clients that its text means.
async fn asked(visit: &AdminPage) -> Result<GrantQuery<'_>, PageError> {
    let text = visit.param("q").trim();
    let search = match text {
        "" => None,
        text => Some(visit.find_names(text).await?),
    };
    let filter = GrantFilter {
        client_id: visit.param("client").trim().to_owned(),
        subject: visit.param("sub").trim().to_owned(),
        resource: visit.param("server").to_owned(),
        ended: !visit.param("ended").is_empty(),
        search,
        oldest_first: !visit.param("oldest").is_empty(),
        after: visit.param("after").to_owned(),
        backwards: !visit.param("back").is_empty(),
        ..GrantFilter::default()
    };
    Ok(GrantQuery { filter, text })
}

/// Returns the person and the client that the URL names, with the links that remove them.
async fn chips(
    visit: &AdminPage,
    asked: &GrantQuery<'_>,
    w: &'static GrantWords,
) -> Result<Vec<(String, String)>, PageError> {
    let (subject, client) = (asked.filter.subject.as_str(), asked.filter.client_id.as_str());
    let names = Names::of(visit.app().storage(), &[subject], &[client]).await?;
    let mut chips = Vec::new();
    if !subject.is_empty() {
        let text = format!("{}: {}", w.person, names.person(subject).text);
        chips.push((text, asked.path("sub", &[])));
    }
    if !client.is_empty() {
        let text = format!("{}: {}", w.client, names.client(client).text);
        chips.push((text, asked.path("client", &[])));
    }
    Ok(chips)
}

/// `POST /grant`: ends one grant, or all that were granted before a day.
pub(super) async fn act(action: AdminForm) -> Result<Response, PageError> {
    let visit = &action.visit;
    if action.field("action") == "before" {
        return Ok(match confirm::act_before(&action, action.field("day")).await? {
            None => visit.go("/grants?done=not_a_day"),
            Some(Ok(ended)) => visit.go(&format!("/grants?done={ended}")),
            Some(Err(asks_first)) => asks_first,
        });
    }
    let row = visit.app().storage().grant_row(action.field("id")).await?;
    let row = row.ok_or_else(missing)?;
    if let Some(asks_first) = confirm::act_on_grant(&action, &row.id).await? {
        return Ok(asks_first);
    }
    let back = match action.field("back") {
        "person" => person_path(&row.subject),
        _ => "/grants?".to_owned(),
    };
    Ok(visit.go(&format!("{back}&done=one")))
}
