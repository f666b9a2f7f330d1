//! `/grants`: who connected which client with which scopes, and how to end a connection. The gateway refuses
//! an ended grant at once, and open streams end.

use askama::Template;
use axum::response::Response;

use super::confirm;
use super::grant_view::GrantView;
use super::links::{ROWS, next_page, person_path, query};
use super::visit::{AdminForm, AdminPage, missing};
use crate::storage::GrantFilter;
use crate::web::in_force::InForceWords;
use crate::web::list_page::Frame;
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
        state: "State", "状態";
        live: "live", "有効";
        ended: "ended", "終了";
        expired: "expired", "期限切れ";
        include_ended: "ended ones as well", "終了したものも表示";
        subject: "Subject of the person", "利用者のサブジェクト";
        client_id: "Client ID", "クライアントID";
        any: "any", "すべて";
        find: "Find", "検索";
        none: "No connection fits.", "該当する接続はありません。";
        end: "End", "終了";
        end_before: "End everything given before", "次の日時より前に許可されたものをすべて終了";
        end_all: "End", "終了";
        more: "More", "次へ";
        unnamed: "(no name)", "(名前なし)";
        utc_note: "UTC, at midnight", "UTCの0時";
        done_one: "The connection has ended.", "接続を終了しました。";
        done_many: "connections have ended.", "件の接続を終了しました。";
        not_a_day: "That is not a day.", "日付が正しくありません。";
    }
}

#[derive(Template)]
#[template(path = "admin/grants.html")]
struct GrantsTemplate<'a> {
    frame: &'a Frame,
    w: &'static GrantWords,
    scopes: &'static InForceWords,
    filter: &'a GrantFilter,
    resources: Vec<(&'a str, bool)>,
    rows: Vec<GrantView>,
    next: Option<String>,
}

pub(super) async fn list(visit: AdminPage) -> Result<Response, PageError> {
    let mut frame = visit.frame("/grants").await?;
    let w = GrantWords::of(frame.language);
    frame.notice = match visit.param("done") {
        "one" => Some(w.done_one.to_owned()),
        "not_a_day" => Some(w.not_a_day.to_owned()),
        many => many.parse::<u64>().ok().map(|n| format!("{n} {}", w.done_many)),
    };
    let filter = GrantFilter {
        client_id: visit.param("client").trim().to_owned(),
        subject: visit.param("sub").trim().to_owned(),
        resource: visit.param("server").to_owned(),
        ended: !visit.param("ended").is_empty(),
        after: visit.param("after").to_owned(),
        ..GrantFilter::default()
    };
    let now = visit.app().now();
    let mut rows = visit.app().storage().browse_grants(&filter, now, ROWS + 1).await?;
    let next = next_page(&mut rows, |last| link(&filter, &last.id));
    let ids = visit.app().config().resources.iter().map(|resource| resource.id.as_str());
    let template = GrantsTemplate {
        frame: &frame,
        w,
        resources: ids.map(|id| (id, id == filter.resource)).collect(),
        filter: &filter,
        scopes: InForceWords::of(frame.language),
        rows: GrantView::of_all(&visit, &frame, rows),
        next,
    };
    Ok(frame.answer(template.render()))
}

fn link(filter: &GrantFilter, after: &str) -> String {
    let mut query = query("/grants");
    query
        .append_pair("client", &filter.client_id)
        .append_pair("sub", &filter.subject)
        .append_pair("server", &filter.resource);
    if filter.ended {
        query.append_pair("ended", "1");
    }
    query.append_pair("after", after).finish()
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
