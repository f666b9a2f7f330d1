//! `portcullis clients list`, and how the commands show a client.

use std::process::ExitCode;

use clap::ValueEnum;
use serde_json::{Value, json};

use super::output::{self, Table};
use super::{CommandContext, CommandError, Common, Output, PageOptions, run};
use crate::oauth::client::ClientMetadata;
use crate::oauth::redirect_uri::destination;
use crate::storage::{
    ClientFilter, ClientOrder, ClientReview, ClientRow, ReviewState, Storage, UNUSED_AFTER,
};

#[derive(Clone, Copy, ValueEnum)]
enum ReviewFilter {
    Waiting,
    Refused,
    Blocked,
    Trusted,
    Unused,
}

#[derive(Clone, Copy, ValueEnum)]
enum SortBy {
    Newest,
    LastUse,
    Name,
}

#[derive(clap::Args)]
pub(in crate::cli) struct ListClients {
    /// Any part of the name or of the host of the redirect URI, or the whole client ID
    #[arg(long, value_name = "TEXT", default_value = "")]
    search: String,
    /// Only those with this status; unused: nobody has used it for 30 days
    #[arg(long, value_name = "STANDING")]
    standing: Option<ReviewFilter>,
    /// The order
    #[arg(long, value_name = "ORDER", default_value = "newest")]
    sort: SortBy,
    #[command(flatten)]
    page: PageOptions,
    #[command(flatten)]
    common: Common,
}

impl ListClients {
    pub(super) fn run(&self) -> ExitCode {
        run(&self.common, async |desk: &CommandContext| list(desk, self).await)
    }
}

async fn list(desk: &CommandContext, a: &ListClients) -> Result<Output, CommandError> {
    let standing = a.standing.and_then(|wanted| wanted.to_possible_value());
    let unused = matches!(a.standing, Some(ReviewFilter::Unused));
    let filter = ClientFilter {
        search: a.search.trim().to_owned(),
        standing: standing.map(|value| value.get_name().to_owned()).unwrap_or_default(),
        unused_since: unused.then(|| desk.now().minus(UNUSED_AFTER)),
        order: match a.sort {
            SortBy::Newest => ClientOrder::Newest,
            SortBy::LastUse => ClientOrder::LastUse,
            SortBy::Name => ClientOrder::Name,
        },
        after: a.page.after.clone(),
        ..ClientFilter::default()
    };
    let mut rows = desk.storage.list_clients(&filter, a.page.ask()).await?;
    let next = a.page.next(&mut rows, |last| Storage::page_after_client(&filter, last));
    let ids: Vec<&str> = rows.iter().map(|row| row.id.as_str()).collect();
    let activity = desk.storage.client_activity(&ids, desk.now()).await?;
    let mut table = Table::new(&[
        "CLIENT ID",
        "NAME",
        "REDIRECTS TO",
        "KIND",
        "STATUS",
        "CONNECTIONS",
        "LAST USE",
    ]);
    for row in &rows {
        table.row(vec![
            row.id.clone(),
            output::client_name(Some(&row.metadata)),
            goes_to(row),
            row.kind.clone(),
            standing_of(&row.standing),
            activity.get(&row.id).map_or(0, |now| now.connections).to_string(),
            row.last_used_at.map_or_else(|| "never".to_owned(), output::utc),
        ]);
    }
    let listed = rows.iter().map(|row| {
        let now = activity.get(&row.id).copied().unwrap_or_default();
        let mut json = as_json(row);
        json["connections"] = now.connections.into();
        json["people_waiting"] = now.waiting.into();
        json
    });
    Ok(Output::list("clients", &table, listed.collect(), next))
}

pub(super) fn goes_to(row: &ClientRow) -> String {
    let metadata = ClientMetadata::from_stored_json(&row.metadata).ok();
    let first = metadata.as_ref().and_then(|metadata| metadata.redirect_uris.first());
    first.map(|uri| destination(uri.as_str()).to_string()).unwrap_or_default()
}

pub(super) fn standing_of(standing: &ClientReview) -> String {
    let mut words = Vec::new();
    if standing.state != ReviewState::NotReviewed {
        words.push(standing.state.as_str());
    }
    if standing.trusted {
        words.push("trusted");
    }
    if standing.blocked {
        words.push("blocked");
    }
    words.join(", ")
}

pub(super) fn as_json(row: &ClientRow) -> Value {
    json!({
        "client_id": row.id,
        "kind": row.kind,
        "confidential": row.is_confidential(),
        "registered_at": output::iso(row.issued_at),
        "last_used_at": output::iso_or_null(row.last_used_at),
        "approval": row.standing.state.as_str(),
        "trusted": row.standing.trusted,
        "blocked": row.standing.blocked,
        "requested_at": output::iso_or_null(row.standing.requested_at),
        "requested_by": row.standing.requested_by,
        "owner": row.note.owner,
        "note": row.note.note,
        "digest": row.digest,
        "changed_since_decided": row.standing.has_lapsed(),
        "metadata": serde_json::from_str::<Value>(&row.metadata).unwrap_or_default(),
    })
}

/// Loads a client; the error says how to find it.
pub(super) async fn known(desk: &CommandContext, id: &str) -> Result<ClientRow, CommandError> {
    desk.storage.client_details(id).await?.ok_or_else(|| {
        CommandError::from(format!(
            "there is no client {id}; `portcullis clients list --search NAME` finds it by name or host"
        ))
    })
}
