//! `portcullis clients edit|rotate-secret`: changes a client.

use std::io::{BufRead, IsTerminal, Write};
use std::process::ExitCode;

use serde_json::json;

use super::client_list::known;
use super::output;
use super::{CommandContext, CommandError, Common, Output, run};
use crate::clients::Clients;
use crate::oauth::client::{AuthMethod, ClientMetadata, RegistrationLimits};
use crate::storage::{ClientEdit, ClientEdited, ClientNote, ClientRow};

/// Exit code if confirmation is needed and there is no terminal.
const NEEDS_YES: u8 = 2;

#[derive(clap::Args)]
pub(in crate::cli) struct EditClient {
    /// The client
    #[arg(value_name = "CLIENT_ID")]
    id: String,
    /// What people read
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Where its answers go, instead of those it has; may be given several times
    #[arg(long = "redirect-uri", value_name = "URL")]
    redirect_uris: Vec<String>,
    /// The person or team that looks after it; empty to remove
    #[arg(long, value_name = "TEXT")]
    owner: Option<String>,
    /// Anything else; empty to remove
    #[arg(long, value_name = "TEXT")]
    note: Option<String>,
    #[command(flatten)]
    common: Common,
}

#[derive(clap::Args)]
pub(in crate::cli) struct RotateSecret {
    /// The client
    #[arg(value_name = "CLIENT_ID")]
    id: String,
    /// Do not ask; needed where there is no terminal to ask
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    common: Common,
}

impl EditClient {
    pub(super) fn run(&self) -> ExitCode {
        run(&self.common, async |desk: &CommandContext| edit(desk, self).await)
    }
}

impl RotateSecret {
    pub(super) fn run(&self) -> ExitCode {
        run(&self.common, async |desk: &CommandContext| rotate(desk, self).await)
    }
}

/// Checks name and redirect URIs like a dynamic registration.
pub(super) fn metadata_of(
    desk: &CommandContext,
    name: &str,
    redirect_uris: &[String],
    method: AuthMethod,
) -> Result<ClientMetadata, String> {
    let mut body = json!({
        "redirect_uris": redirect_uris,
        "token_endpoint_auth_method": method.as_str(),
        "grant_types": ["authorization_code", "refresh_token"],
        "response_types": ["code"],
    });
    if !name.trim().is_empty() {
        body["client_name"] = name.trim().into();
    }
    let policy = desk.config.redirect_policy();
    let limits = RegistrationLimits { redirect_uris: desk.config.limits.redirect_uris };
    ClientMetadata::parse(body.to_string().as_bytes(), &policy, &limits)
        .map_err(|refused| refused.to_string())
}

/// Returns the metadata with what the command changes in them; `None` if it changes nothing there.
fn edited(
    desk: &CommandContext,
    a: &EditClient,
    row: &ClientRow,
) -> Result<Option<ClientMetadata>, CommandError> {
    if a.name.is_none() && a.redirect_uris.is_empty() {
        return Ok(None);
    }
    if row.kind != "created" {
        return Err(CommandError::from(format!(
            "{} was not created here: its name and redirect URIs come from itself or from the \
             configuration. --owner and --note are for every client",
            row.id
        )));
    }
    let before = ClientMetadata::from_stored_json(&row.metadata).map_err(|_| {
        CommandError::from("what is stored of this client cannot be read".to_owned())
    })?;
    let uris = before.redirect_uris.iter().map(|uri| uri.as_str().to_owned());
    let uris = if a.redirect_uris.is_empty() { uris.collect() } else { a.redirect_uris.clone() };
    let name = a.name.as_deref().or(before.client_name.as_deref()).unwrap_or_default();
    let ClientMetadata { client_name, redirect_uris, .. } =
        metadata_of(desk, name, &uris, before.token_endpoint_auth_method)
            .map_err(|refused| format!("nothing was changed: {refused}"))?;
    Ok(Some(ClientMetadata { redirect_uris, client_name, ..before }))
}

async fn edit(desk: &CommandContext, a: &EditClient) -> Result<Output, CommandError> {
    let row = known(desk, &a.id).await?;
    let metadata = edited(desk, a, &row)?;
    let text = |new: &Option<String>, before: &str| {
        new.as_deref().map_or_else(|| before.to_owned(), |new| new.trim().to_owned())
    };
    let note =
        ClientNote { owner: text(&a.owner, &row.note.owner), note: text(&a.note, &row.note.note) };
    let edit =
        ClientEdit { id: &row.id, seen: &row.digest, metadata: metadata.as_ref(), note: &note };
    let event = desk.event("client_changed");
    let id = &row.id;
    match desk.storage.edit_client(&edit, desk.now(), event).await? {
        ClientEdited::Changed => Ok(Output::changed(true, format!("{id} is changed.\n"), "")),
        ClientEdited::Unchanged => {
            Ok(Output::changed(false, String::new(), &format!("{id} was so before.\n")))
        }
        ClientEdited::OtherClient => Err(CommandError::from(format!(
            "nothing was changed: {id} has changed at the same time. Try again"
        ))),
    }
}

async fn rotate(desk: &CommandContext, a: &RotateSecret) -> Result<Output, CommandError> {
    let row = known(desk, &a.id).await?;
    let id = row.id;
    let question = format!("Rotate the secret of {id}? Its former secret ends at once.");
    if !a.yes && !ask(&question)? {
        return Err(CommandError::from("Nothing was changed".to_owned()));
    }
    let clients = Clients::new(&desk.config, desk.storage.clone(), desk.clock.clone());
    let no_secret = || CommandError::from(format!("{id} has no secret that was created here"));
    let former = row.secret_hash.filter(|_| row.kind == "created").ok_or_else(no_secret)?;
    let event = desk.event("client_secret_rotated");
    let secret = clients.rotate_secret(&id, &former, event).await?;
    let secret = secret.ok_or_else(|| {
        CommandError::from(format!("{id} was given another secret at the same time. Try again"))
    })?;
    let shown = format!("{secret}  (shown this once)");
    let text = output::facts(&[("client ID", id.clone()), ("secret", shown)]);
    Ok(Output::said(text, json!({ "client_id": id, "client_secret": secret })))
}

/// Asks on the terminal. Only `y` and `yes` confirm.
fn ask(question: &str) -> Result<bool, CommandError> {
    if !std::io::stdin().is_terminal() {
        let text = format!("{question} There is no terminal to ask: add --yes to do it");
        return Err(CommandError::with_code(NEEDS_YES, text));
    }
    let failed = |cause: std::io::Error| format!("the terminal could not be asked: {cause}");
    let mut terminal = std::io::stderr().lock();
    write!(terminal, "{} [y/N] ", output::plain(question)).map_err(failed)?;
    terminal.flush().map_err(failed)?;
    drop(terminal);
    let mut said = String::new();
    std::io::stdin().lock().read_line(&mut said).map_err(failed)?;
    let said = said.trim();
    Ok(said.eq_ignore_ascii_case("y") || said.eq_ignore_ascii_case("yes"))
}
