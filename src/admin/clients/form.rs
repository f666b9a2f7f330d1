//! `/clients/new` and `/clients/edit`: creates a client, changes one, and rotates its secret.

use askama::Template;
use axum::http::StatusCode;
use axum::response::Response;

use super::view::ClientView;
use super::words::ClientFormWords;
use crate::admin::confirm;
use crate::admin::links::client_path;
use crate::admin::visit::{AdminForm, AdminPage, missing, read_only};
use crate::oauth::client::{AuthMethod, ClientMetadata};
use crate::oauth::redirect_uri::RedirectUri;
use crate::storage::{ClientActivity, ClientEdit, ClientEdited, ClientNote, ClientRow};
use crate::web::list_page::Frame;
use crate::web::page_error::PageError;

/// Longest owner and longest note, in characters.
const MAX_OWNER: usize = 128;
const MAX_NOTE: usize = 1000;

#[derive(Template)]
#[template(path = "admin/client_new.html")]
struct NewTemplate<'a> {
    frame: &'a Frame,
    w: &'static ClientFormWords,
    problem: Option<String>,
    name: &'a str,
    redirect_uris: &'a str,
    confidential: bool,
}

pub(in crate::admin) async fn new(visit: AdminPage) -> Result<Response, PageError> {
    let frame = visit.frame("/clients").await?;
    let w = ClientFormWords::of(frame.language);
    let template = NewTemplate {
        frame: &frame,
        w,
        problem: None,
        name: "",
        redirect_uris: "",
        confidential: true,
    };
    Ok(frame.answer(template.render()))
}

#[derive(Template)]
#[template(path = "admin/client_created.html")]
struct CreatedTemplate<'a> {
    frame: &'a Frame,
    w: &'static ClientFormWords,
    title: &'static str,
    note: &'static str,
    id: &'a str,
    path: String,
    secret: Option<&'a str>,
}

/// `POST /clients/new`.
pub(in crate::admin) async fn create(action: AdminForm) -> Result<Response, PageError> {
    action.needs_fresh_proof("/clients/new")?;
    let visit = &action.visit;
    let frame = visit.frame("/clients").await?;
    let w = ClientFormWords::of(frame.language);
    let confidential = !action.field("confidential").is_empty();
    let method = if confidential { AuthMethod::ClientSecretBasic } else { AuthMethod::None };
    let metadata = match from_form(&action, method) {
        Ok(metadata) => metadata,
        Err(refused) => {
            let template = NewTemplate {
                frame: &frame,
                w,
                problem: Some(refused),
                name: action.field("name"),
                redirect_uris: action.field("redirect_uris"),
                confidential,
            };
            return Ok(frame.answer_with(StatusCode::BAD_REQUEST, template.render()));
        }
    };
    let event = visit.event("client_created");
    let made = visit.app().clients().create(metadata, event).await?;
    let template = CreatedTemplate {
        frame: &frame,
        w,
        title: w.created_title,
        note: "",
        id: &made.client.id,
        path: client_path(&made.client.id),
        secret: made.secret.as_deref(),
    };
    Ok(frame.answer(template.render()))
}

/// Checks the form like a dynamic registration.
fn from_form(action: &AdminForm, method: AuthMethod) -> Result<ClientMetadata, String> {
    let uris: Vec<&str> = action.field("redirect_uris").split_whitespace().collect();
    let mut body = serde_json::json!({
        "redirect_uris": uris,
        "token_endpoint_auth_method": method.as_str(),
        "grant_types": ["authorization_code", "refresh_token"],
        "response_types": ["code"],
    });
    let name = action.field("name").trim();
    if !name.is_empty() {
        body["client_name"] = name.into();
    }
    let app = action.visit.app();
    ClientMetadata::parse(
        body.to_string().as_bytes(),
        app.redirect_policy(),
        &app.registration_limits(),
    )
    .map_err(|refused| refused.to_string())
}

#[derive(Template)]
#[template(path = "admin/client_edit.html")]
struct EditTemplate<'a> {
    frame: &'a Frame,
    w: &'static ClientFormWords,
    client: &'a ClientView,
    problem: Option<String>,
    name: &'a str,
    redirect_uris: &'a str,
    owner: &'a str,
    note: &'a str,
}

/// Returns the path of the form.
fn edit_path(id: &str) -> String {
    client_path(id).replacen("/client?", "/clients/edit?", 1)
}

/// `GET /clients/edit`.
pub(in crate::admin) async fn edit(visit: AdminPage) -> Result<Response, PageError> {
    if !visit.visitor.may_change {
        return Err(read_only());
    }
    let row = visit.app().storage().client_details(visit.param("id")).await?;
    let client = ClientView::of(row.ok_or_else(missing)?, ClientActivity::default());
    let frame = visit.frame("/clients").await?;
    let w = ClientFormWords::of(frame.language);
    let metadata = client.metadata.as_ref();
    let name = metadata.and_then(|metadata| metadata.client_name.as_deref()).unwrap_or_default();
    let uris = metadata.iter().flat_map(|metadata| &metadata.redirect_uris);
    let uris: Vec<&str> = uris.map(RedirectUri::as_str).collect();
    let template = EditTemplate {
        frame: &frame,
        w,
        client: &client,
        problem: (visit.param("done") == "changed").then(|| w.changed.to_owned()),
        name,
        redirect_uris: &uris.join("\n"),
        owner: &client.row.note.owner,
        note: &client.row.note.note,
    };
    Ok(frame.answer(template.render()))
}

/// `POST /clients/edit`.
pub(in crate::admin) async fn save(action: AdminForm) -> Result<Response, PageError> {
    let visit = &action.visit;
    let id = action.field("id");
    let row = visit.app().storage().client_details(id).await?;
    let client = ClientView::of(row.ok_or_else(missing)?, ClientActivity::default());
    let note = ClientNote {
        owner: limited(action.field("owner"), MAX_OWNER),
        note: limited(action.field("note"), MAX_NOTE),
    };
    let metadata = match &client.metadata {
        Some(before) if client.is_created() => {
            action.needs_fresh_proof(&edit_path(id))?;
            match from_form(&action, before.token_endpoint_auth_method) {
                Ok(ClientMetadata { client_name, redirect_uris, .. }) => {
                    Some(ClientMetadata { redirect_uris, client_name, ..before.clone() })
                }
                Err(refused) => return refused_edit(&action, &client, refused).await,
            }
        }
        _ => None,
    };
    let seen = action.field("seen");
    let edit = ClientEdit { id, seen, metadata: metadata.as_ref(), note: &note };
    let event = visit.event("client_changed");
    let edited = visit.app().storage().edit_client(&edit, visit.app().now(), event).await?;
    Ok(match edited {
        ClientEdited::Changed | ClientEdited::Unchanged => {
            visit.go(&format!("{}&done=saved", client_path(id)))
        }
        ClientEdited::OtherClient => visit.go(&format!("{}&done=changed", edit_path(id))),
    })
}

/// Shows the form again, with what was entered.
async fn refused_edit(
    action: &AdminForm,
    client: &ClientView,
    refused: String,
) -> Result<Response, PageError> {
    let frame = action.visit.frame("/clients").await?;
    let template = EditTemplate {
        frame: &frame,
        w: ClientFormWords::of(frame.language),
        client,
        problem: Some(refused),
        name: action.field("name"),
        redirect_uris: action.field("redirect_uris"),
        owner: action.field("owner"),
        note: action.field("note"),
    };
    Ok(frame.answer_with(StatusCode::BAD_REQUEST, template.render()))
}

fn limited(text: &str, most: usize) -> String {
    text.trim().chars().take(most).collect()
}

/// Gives a client another secret, after the confirmation page, and shows it once.
pub(super) async fn rotate(action: &AdminForm, row: &ClientRow) -> Result<Response, PageError> {
    let former =
        row.secret_hash.as_deref().filter(|_| row.kind == "created").ok_or_else(missing)?;
    let confirmed = match confirm::rotate_secret(action, &row.id).await? {
        Ok(confirmed) => confirmed,
        Err(asks_first) => return Ok(asks_first),
    };
    let visit = &action.visit;
    let event = confirmed.explain(visit.event("client_secret_rotated"));
    let secret = visit.app().clients().rotate_secret(&row.id, former, event).await?;
    // A second press of the same button comes too late: the first one has shown the new secret.
    let Some(secret) = secret else { return Ok(confirm::rotated_meanwhile(visit, &row.id)) };
    let frame = visit.frame("/clients").await?;
    let w = ClientFormWords::of(frame.language);
    let template = CreatedTemplate {
        frame: &frame,
        w,
        title: w.rotated_title,
        note: w.rotated_note,
        id: &row.id,
        path: client_path(&row.id),
        secret: Some(&secret),
    };
    Ok(frame.answer(template.render()))
}
