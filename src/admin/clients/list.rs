//! `/clients`: the list of clients.

use askama::Template;
use axum::response::Response;

use super::view::ClientView;
use super::words::ClientWords;
use crate::admin::confirm;
use crate::admin::links::{ROWS, next_page, query};
use crate::admin::visit::{AdminForm, AdminPage, missing};
use crate::storage::{ClientFilter, ClientOrder, Storage, UNUSED_AFTER};
use crate::web::list_page::Frame;
use crate::web::page_error::PageError;

/// The value of the filter for clients that nobody has used for 30 days.
const UNUSED: &str = "unused";

/// An option of a filter: value, text, and whether it is chosen.
type ListChoice = (&'static str, &'static str, bool);

#[derive(Template)]
#[template(path = "admin/clients.html")]
struct ClientsTemplate<'a> {
    frame: &'a Frame,
    w: &'static ClientWords,
    search: &'a str,
    standings: Vec<ListChoice>,
    orders: Vec<ListChoice>,
    rows: Vec<ClientView>,
    next: Option<String>,
    /// The list without a filter and from its beginning, if this page is anything else.
    clear: bool,
    first: Option<String>,
    /// Since when the listed clients are unused, if the list is of those.
    unused_since: Option<i64>,
}

pub(in crate::admin) async fn list(visit: AdminPage) -> Result<Response, PageError> {
    let mut frame = visit.frame("/clients").await?;
    let w = ClientWords::of(frame.language);
    frame.notice = done(w, visit.param("done")).map(str::to_owned);
    let filter = filter_of(&visit);
    let (storage, now) = (visit.app().storage(), visit.app().now());
    let mut rows = storage.list_clients(&filter, ROWS + 1).await?;
    let standing = visit.param("standing");
    let next = next_page(&mut rows, |last| {
        link(&filter, standing, &Storage::page_after_client(&filter, last))
    });
    let ids: Vec<&str> = rows.iter().map(|row| row.id.as_str()).collect();
    let mut activity = storage.client_activity(&ids, now).await?;
    let rows = rows.into_iter().map(|row| {
        let activity = activity.remove(&row.id).unwrap_or_default();
        ClientView::of(row, activity)
    });
    let template = ClientsTemplate {
        frame: &frame,
        w,
        search: &filter.search,
        standings: standings(w, standing),
        orders: orders(w, filter.order),
        rows: rows.collect(),
        next,
        clear: !filter.search.is_empty() || !standing.is_empty(),
        first: (!filter.after.is_empty()).then(|| link(&filter, standing, "")),
        unused_since: filter.unused_since.map(crate::clock::Timestamp::unix),
    };
    Ok(frame.answer(template.render()))
}

fn filter_of(visit: &AdminPage) -> ClientFilter {
    let standing = visit.param("standing");
    let unused = standing == UNUSED;
    ClientFilter {
        search: visit.param("q").trim().to_owned(),
        standing: standing.to_owned(),
        unused_since: unused.then(|| visit.app().now().minus(UNUSED_AFTER)),
        order: ClientOrder::parse(visit.param("sort")),
        after: visit.param("after").to_owned(),
    }
}

fn standings(w: &'static ClientWords, chosen: &str) -> Vec<ListChoice> {
    let all = [
        ("", w.all),
        ("waiting", w.waiting),
        ("blocked", w.blocked),
        ("refused", w.refused),
        ("trusted", w.trusted),
        (UNUSED, w.unused),
    ];
    all.map(|(value, text)| (value, text, value == chosen)).to_vec()
}

fn orders(w: &'static ClientWords, chosen: ClientOrder) -> Vec<ListChoice> {
    let all = ClientOrder::ALL.map(|order| {
        let text = match order {
            ClientOrder::Newest => w.newest,
            ClientOrder::LastUse => w.by_last_use,
            ClientOrder::Name => w.by_name,
        };
        (order.as_str(), text, order == chosen)
    });
    all.to_vec()
}

fn link(filter: &ClientFilter, standing: &str, after: &str) -> String {
    let mut query = query("/clients");
    query.append_pair("q", &filter.search).append_pair("standing", standing);
    query.append_pair("sort", filter.order.as_str());
    if !after.is_empty() {
        query.append_pair("after", after);
    }
    query.finish()
}

fn done(w: &'static ClientWords, what: &str) -> Option<&'static str> {
    Some(match what {
        "approve" => w.done_approved,
        "changed" => w.changed,
        "deleted" => w.done_deleted,
        "unused" => w.done_unused,
        _ => return None,
    })
}

/// `POST /clients`: deletes the unused clients, after the confirmation page.
pub(in crate::admin) async fn act_on_list(action: AdminForm) -> Result<Response, PageError> {
    if action.field("action") != "delete_unused" {
        return Err(missing());
    }
    let settled = confirm::delete_unused(&action, action.field("since")).await?;
    Ok(match settled.ok_or_else(missing)? {
        Ok(_) => action.visit.go("/clients?standing=unused&done=unused"),
        Err(asks_first) => asks_first,
    })
}
