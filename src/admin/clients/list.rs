//! `/clients`: the list of clients.

use askama::Template;
use axum::response::Response;

use super::view::ClientView;
use super::words::ClientWords;
use crate::admin::confirm;
use crate::admin::links::{PagePlace, ROWS, query};
use crate::admin::visit::{AdminForm, AdminPage, missing};
use crate::storage::{ClientFilter, ClientOrder, Storage, UNUSED_AFTER};
use crate::web::list_page::{Frame, Pager, grouped};
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
    pager: Pager,
    /// That not all clients were searched.
    searched: Option<String>,
    /// Whether the list is filtered.
    clear: bool,
    /// Since when the listed clients are unused, if the list is of those.
    unused_since: Option<i64>,
}

pub(in crate::admin) async fn list(visit: AdminPage) -> Result<Response, PageError> {
    let mut frame = visit.frame("/clients").await?;
    let w = ClientWords::of(frame.language);
    frame.notice = done(w, visit.param("done")).map(str::to_owned);
    let filter = filter_of(&visit);
    let (storage, now) = (visit.app().storage(), visit.app().now());
    let page = storage.browse_clients(&filter, ROWS + 1).await?;
    let standing = visit.param("standing");
    let mut rows = page.rows;
    let place = PagePlace { row: &filter.after, backwards: filter.backwards };
    let pager = place.pager(frame.language, &mut rows, |row, backwards| {
        link(&filter, standing, (&Storage::page_after_client(&filter, row), backwards))
    });
    let on = page.searched_to.map(|place| link(&filter, standing, (&place, filter.backwards)));
    let note = if on.is_some() { w.searched } else { w.searched_newest };
    let looked_at = grouped(i64::try_from(filter.searched).unwrap_or(i64::MAX));
    let searched = page.is_partial.then(|| note.replace("{0}", &looked_at));
    let mut pager = pager.searching_on(on, filter.backwards);
    if pager.previous.is_none() && !filter.after.is_empty() && rows.is_empty() {
        pager.previous = Some(link(&filter, standing, ("", false)));
    }
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
        pager,
        searched,
        clear: !filter.search.is_empty() || !standing.is_empty(),
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
        backwards: !visit.param("back").is_empty(),
        searched: visit.app().config().limits.clients_searched,
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

/// Returns the link to the page after a row, or to the page before it.
fn link(filter: &ClientFilter, standing: &str, (row, backwards): (&str, bool)) -> String {
    let mut query = query("/clients");
    query.append_pair("q", &filter.search).append_pair("standing", standing);
    query.append_pair("sort", filter.order.as_str());
    if !row.is_empty() {
        query.append_pair("after", row);
    }
    if backwards {
        query.append_pair("back", "1");
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
