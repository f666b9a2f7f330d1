//! The list of connected services: by person, by service, and those that their person has to connect again.

use askama::Template;
use axum::response::Response;

use super::view::{ServiceView, ServiceWords, used_by};
use crate::admin::links::{PagePlace, ROWS, query};
use crate::admin::names::Names;
use crate::admin::visit::AdminPage;
use crate::connections::provider_keys;
use crate::storage::ConnectionFilter;
use crate::web::list_page::{Frame, Pager, count};
use crate::web::page_error::PageError;
use crate::web::words::words;

words! {
    struct ListOfServicesWords {
        explained: "Each line is one person and one service that MCP servers use as this person.", "1行が、1人の利用者と、MCPサーバーがその利用者として使う1つのサービスです。";
        search: "Person: name, beginning of a name, e-mail address or ID", "利用者: 名前、名前の先頭、メールアドレス、ID";
        any: "any", "すべて";
        gone: "(no longer configured)", "(設定から削除済み)";
        only_broken: "Only those to be connected again", "再連携が必要なもののみ";
        find: "Search", "検索";
        clear: "Clear", "条件をクリア";
        filters: "Filters", "絞り込み";
        remove_filter: "Remove this filter", "この条件を外す";
        none: "No connected services match.", "該当する連携サービスはありません。";
        not_used: "No service is configured: MCP servers use none as a person. docs/connections/README.md explains how.", "サービスが設定されていないため、MCPサーバーが利用者として使うサービスはありません。docs/connections/README.md を参照してください。";
        one: "connected service", "件の連携サービス";
        many: "connected services", "件の連携サービス";
        cut: "More than 100 people match. Only the services of 100 of them are listed; type more of the name.", "100人を超える利用者が該当します。そのうち100人のサービスだけを表示しています。名前をさらに入力してください。";
        newest_first: "newest first", "新しい順";
        oldest_first: "oldest first", "古い順";
        remove_all: "Remove all of this service", "このサービスの連携をすべて解除";
        remove_all_note: "At most 500 at once. The next page says how many, and whose, before anything happens.", "1回に最大500件です。次のページで、件数と利用者を確認してから実行します。";
        go_on: "Continue", "確認へ進む";
        done_one: "The connected service was removed.", "連携を解除しました。";
        done_many: "connected services were removed.", "件の連携を解除しました。";
        done_none: "Nothing was removed: it was gone already.", "すでに解除されていたため、何も行いませんでした。";
    }
}

/// The search, as it is in the URL.
struct ServiceQuery<'a> {
    filter: ConnectionFilter,
    /// What was typed: a name or an ID of a person.
    text: &'a str,
}

impl ServiceQuery<'_> {
    /// Returns the path of this search without the field `without`, and with `further` ones.
    fn path(&self, without: &str, further: &[(&str, &str)]) -> String {
        let filter = &self.filter;
        let yes = |set: bool| if set { "1" } else { "" };
        let fields: [(&str, &str); 5] = [
            ("q", self.text),
            ("sub", &filter.subject),
            ("name", &filter.name),
            ("broken", yes(filter.broken)),
            ("oldest", yes(filter.oldest_first)),
        ];
        let mut query = query("/connections");
        let kept = fields.into_iter().filter(|(name, value)| *name != without && !value.is_empty());
        let path = query.extend_pairs(kept).extend_pairs(further).finish();
        path.trim_end_matches('?').to_owned()
    }

    /// Returns the path to the same list in the other order.
    fn turned(&self) -> String {
        self.path("oldest", if self.filter.oldest_first { &[] } else { &[("oldest", "1")] })
    }
}

/// A service that can be chosen: its name, its text, and whether it is chosen.
struct ServiceChoice {
    name: String,
    text: String,
    /// The MCP servers that use it, and what to say if there are none.
    used_by: String,
    chosen: bool,
}

#[derive(Template)]
#[template(path = "admin/connections.html")]
struct ConnectionsTemplate<'a> {
    frame: &'a Frame,
    w: &'static ServiceWords,
    l: &'static ListOfServicesWords,
    asked: &'a ServiceQuery<'a>,
    /// The person of the URL by name, and the link without them.
    chip: Option<(String, String)>,
    choices: Vec<ServiceChoice>,
    number: String,
    is_one: bool,
    rows: Vec<ServiceView>,
    pager: Pager,
    /// Whether no service is configured.
    none_configured: bool,
}

pub(in crate::admin) async fn list(visit: AdminPage) -> Result<Response, PageError> {
    let mut frame = visit.frame("/connections").await?;
    let (w, l) = (ServiceWords::of(frame.language), ListOfServicesWords::of(frame.language));
    frame.notice = match visit.param("done") {
        "0" => Some(l.done_none.to_owned()),
        "1" => Some(l.done_one.to_owned()),
        many => many.parse::<u64>().ok().map(|n| format!("{n} {}", l.done_many)),
    };
    let (app, storage) = (visit.app(), visit.app().storage());
    let asked = asked(&visit).await?;
    let filter = &asked.filter;
    let mut rows = storage.list_connections(filter, ROWS + 1).await?;
    let place = PagePlace { row: &filter.after, backwards: filter.backwards };
    let pager = place.pager(frame.language, &mut rows, |row, backwards| {
        let further: &[(&str, &str)] = if backwards { &[("back", "1")] } else { &[] };
        asked.path("", &[&[("after", row.id.as_str())][..], further].concat())
    });
    let number = storage.count_connections(filter).await?;
    let template = ConnectionsTemplate {
        frame: &frame,
        w,
        l,
        chip: chip(&visit, &asked, w).await?,
        choices: choices(&visit, &filter.name, w, l),
        number: count(frame.language, number),
        is_one: number == 1,
        rows: ServiceView::of_all(app, w, rows).await?,
        pager,
        none_configured: app.config().connections.is_empty(),
        asked: &asked,
    };
    Ok(frame.answer(template.render()))
}

/// Reads the search, and finds the people that its text means.
async fn asked(visit: &AdminPage) -> Result<ServiceQuery<'_>, PageError> {
    let text = visit.param("q").trim();
    let search = match text {
        "" => None,
        text => Some(visit.find_names(text).await?),
    };
    let filter = ConnectionFilter {
        subject: visit.param("sub").trim().to_owned(),
        name: visit.param("name").trim().to_owned(),
        broken: !visit.param("broken").is_empty(),
        configured: Some(provider_keys(visit.app().config())),
        search,
        oldest_first: !visit.param("oldest").is_empty(),
        after: visit.param("after").to_owned(),
        backwards: !visit.param("back").is_empty(),
        ..ConnectionFilter::default()
    };
    Ok(ServiceQuery { filter, text })
}

/// Returns the person that the URL names, with the link that removes them.
async fn chip(
    visit: &AdminPage,
    asked: &ServiceQuery<'_>,
    w: &'static ServiceWords,
) -> Result<Option<(String, String)>, PageError> {
    let subject = asked.filter.subject.as_str();
    if subject.is_empty() {
        return Ok(None);
    }
    let names = Names::of(visit.app().storage(), &[subject], &[]).await?;
    let text = format!("{}: {}", w.person, names.person(subject).text);
    Ok(Some((text, asked.path("sub", &[]))))
}

/// Returns the configured services, and the chosen one if it is no longer configured.
fn choices(
    visit: &AdminPage,
    chosen: &str,
    w: &'static ServiceWords,
    l: &'static ListOfServicesWords,
) -> Vec<ServiceChoice> {
    let config = visit.app().config();
    let mut choices: Vec<ServiceChoice> = config
        .connections
        .iter()
        .map(|connection| ServiceChoice {
            name: connection.name.clone(),
            text: connection.title.clone(),
            used_by: used_by(config, w, &connection.name),
            chosen: connection.name == chosen,
        })
        .collect();
    if !chosen.is_empty() && config.connection(chosen).is_none() {
        let text = format!("{chosen} {}", l.gone);
        let used_by = w.used_by_none.to_owned();
        choices.push(ServiceChoice { name: chosen.to_owned(), text, used_by, chosen: true });
    }
    choices
}
