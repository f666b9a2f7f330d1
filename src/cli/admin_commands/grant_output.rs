//! Grants as table and as JSON.

use serde_json::{Value, json};

use super::CommandContext;
use super::output::{self, Table};
use crate::config::InForce;
use crate::storage::GrantRow;
use crate::web::in_force::OfGrant;

/// Formats grants as a table.
pub(super) fn table(desk: &CommandContext, rows: &[GrantRow]) -> Table {
    let now = desk.now();
    let headings = ["GRANT", "PERSON", "SUB", "CLIENT", "MCP SERVER"];
    let further = ["APPROVED", "IN FORCE NOW", "SINCE (UTC)", "LAST USE (UTC)", "STATE"];
    let mut table = Table::new(&[&headings[..], &further].concat());
    for row in rows {
        let state = match &row.revoked {
            Some((at, reason)) => format!("ended {}: {reason}", output::utc(*at)),
            None if now >= row.expires_at => "expired".to_owned(),
            None => "live".to_owned(),
        };
        table.row(vec![
            row.id.clone(),
            row.person.name.clone().unwrap_or_default(),
            row.subject.clone(),
            row.client_metadata.as_deref().map_or_else(
                || row.client_id.clone(),
                |metadata| output::client_name(Some(metadata)),
            ),
            row.resource.clone(),
            row.consented_scopes.to_string(),
            OfGrant::of(&desk.config, row, now).line(),
            output::utc_cell(row.created_at),
            output::utc_cell(row.last_used_at),
            state,
        ]);
    }
    table
}

/// Formats a grant as JSON.
pub(super) fn as_json(desk: &CommandContext, row: &GrantRow) -> Value {
    let in_force = match OfGrant::of(&desk.config, row, desk.now()).in_force {
        InForce::Scopes(scopes) => Value::String(scopes.to_string()),
        InForce::Nothing | InForce::ServerGone => Value::Null,
    };
    json!({
        "grant_id": row.id,
        "client_id": row.client_id,
        "sub": row.subject,
        "name": row.person.name,
        "resource": row.resource,
        "approved_scope": row.consented_scopes.to_string(),
        "scope_in_force": in_force,
        "facts_as_of": output::iso(row.facts_at),
        "created_at": output::iso(row.created_at),
        "last_used_at": output::iso(row.last_used_at),
        "last_used_from": row.last_used_from,
        "expires_at": output::iso(row.expires_at),
        "revoked_at": output::iso_or_null(row.revoked.as_ref().map(|(at, _)| *at)),
        "revoked_because": row.revoked.as_ref().map(|(_, reason)| reason),
    })
}
