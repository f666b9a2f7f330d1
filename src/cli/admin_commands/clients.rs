//! `portcullis clients`: lists, reviews, blocks, deletes and creates clients.

use std::process::ExitCode;

use clap::{Subcommand, ValueEnum};
use serde_json::{Value, json};

use super::ending::{self, Confirm, EndingTexts};
use super::grant_output;
use super::output::{self, Table};
use super::{BY, CommandContext, CommandError, Common, Output, PageOptions, run};
use crate::admin::trustable;
use crate::clients::Clients;
use crate::oauth::client::{ClientMetadata, RegistrationLimits};
use crate::oauth::redirect_uri::destination;
use crate::storage::{
    ClientDecided, ClientDecision, ClientFilter, ClientReview, ClientRow, Ending, GrantFilter,
    ReviewDecision, ReviewState, Storage,
};

#[derive(Subcommand)]
pub(in crate::cli) enum ClientsCommand {
    /// List clients, newest first
    #[command(
        after_help = "Examples:\n  portcullis clients list --standing waiting\n  portcullis clients list --search claude --json"
    )]
    List(ListClients),
    /// One client: what it registered, what was decided, who connected it
    #[command(after_help = "Example:\n  portcullis clients show client_0199c2a7")]
    Show(OneClient),
    /// Let people connect it, where client_approval = "first_use"; whoever waits goes on by themselves
    #[command(
        after_help = "Examples:\n  portcullis clients approve client_0199c2a7\n  portcullis clients approve client_0199c2a7 --digest DIGEST   # as `clients show` printed it"
    )]
    Approve(Opening),
    /// Turn it away, and end what it has
    #[command(
        after_help = "Examples:\n  portcullis clients refuse client_0199c2a7 --dry-run\n  portcullis clients refuse client_0199c2a7"
    )]
    Refuse(EndClientAccess),
    /// No authorization, no token; what it has ends at once, open streams included
    #[command(
        after_help = "Examples:\n  portcullis clients block client_0199c2a7 --dry-run\n  portcullis clients block client_0199c2a7 --yes"
    )]
    Block(EndClientAccess),
    /// Let people connect it again
    #[command(after_help = "Example:\n  portcullis clients unblock client_0199c2a7")]
    Unblock(OneClient),
    /// Remember approvals of people; for clients whose answers go to websites only
    #[command(
        after_help = "Examples:\n  portcullis clients trust client_0199c2a7\n  portcullis clients trust client_0199c2a7 --digest DIGEST   # as `clients show` printed it"
    )]
    Trust(Opening),
    /// Ask people every time again
    #[command(after_help = "Example:\n  portcullis clients untrust client_0199c2a7")]
    Untrust(OneClient),
    /// Delete it with everything that was given to it
    #[command(
        after_help = "Examples:\n  portcullis clients delete client_0199c2a7 --dry-run\n  portcullis clients delete client_0199c2a7"
    )]
    Delete(EndClientAccess),
    /// Make a client for a program that cannot register itself; its secret is printed once
    #[command(
        after_help = "Examples:\n  portcullis clients create --name Reports --redirect-uri https://reports.example.com/callback\n  portcullis clients create --name Tool --redirect-uri http://127.0.0.1/callback --public"
    )]
    Create(Create),
}

#[derive(Clone, Copy, ValueEnum)]
enum ReviewFilter {
    Waiting,
    Refused,
    Blocked,
    Trusted,
}

#[derive(clap::Args)]
pub(in crate::cli) struct ListClients {
    /// What the name, the host of the redirect URI, or the client ID begins with
    #[arg(long, value_name = "TEXT", default_value = "")]
    search: String,
    /// Only those with this standing
    #[arg(long, value_name = "STANDING")]
    standing: Option<ReviewFilter>,
    #[command(flatten)]
    page: PageOptions,
    #[command(flatten)]
    common: Common,
}

#[derive(clap::Args)]
pub(in crate::cli) struct OneClient {
    /// The client
    #[arg(value_name = "CLIENT_ID")]
    id: String,
    #[command(flatten)]
    common: Common,
}

#[derive(clap::Args)]
pub(in crate::cli) struct Opening {
    /// The client
    #[arg(value_name = "CLIENT_ID")]
    id: String,
    /// What `clients show` printed: nothing is decided about a client that is another one by now.
    /// Left out, the decision is about the client as this command prints it
    #[arg(long, value_name = "DIGEST")]
    digest: Option<String>,
    #[command(flatten)]
    common: Common,
}

#[derive(clap::Args)]
pub(in crate::cli) struct EndClientAccess {
    /// The client
    #[arg(value_name = "CLIENT_ID")]
    id: String,
    #[command(flatten)]
    confirm: Confirm,
    #[command(flatten)]
    common: Common,
}

#[derive(clap::Args)]
pub(in crate::cli) struct Create {
    /// What people read
    #[arg(long, value_name = "NAME", default_value = "")]
    name: String,
    /// Where its answers go; may be given several times
    #[arg(long = "redirect-uri", value_name = "URL", required = true)]
    redirect_uris: Vec<String>,
    /// It cannot keep a secret: a program on a device, not a website
    #[arg(long)]
    public: bool,
    #[command(flatten)]
    common: Common,
}

impl ClientsCommand {
    pub(in crate::cli) fn run(&self) -> ExitCode {
        let decide = |one: &OneClient, verdict| {
            run(&one.common, async |desk: &CommandContext| decide(desk, &one.id, verdict).await)
        };
        let open = |a: &Opening, verdict| {
            run(&a.common, async |desk: &CommandContext| open(desk, a, verdict).await)
        };
        let end = |a: &EndClientAccess, ending: Ending| {
            run(&a.common, async |desk: &CommandContext| end(desk, a, &ending).await)
        };
        match self {
            Self::List(a) => run(&a.common, async |desk: &CommandContext| list(desk, a).await),
            Self::Show(a) => run(&a.common, async |desk: &CommandContext| show(desk, &a.id).await),
            Self::Approve(a) => open(a, ReviewDecision::Approve),
            Self::Refuse(a) => end(a, Ending::RefuseClient(a.id.clone())),
            Self::Block(a) => end(a, Ending::BlockClient(a.id.clone())),
            Self::Unblock(a) => decide(a, ReviewDecision::Unblock),
            Self::Trust(a) => open(a, ReviewDecision::Trust),
            Self::Untrust(a) => decide(a, ReviewDecision::Untrust),
            Self::Delete(a) => end(a, Ending::DeleteClient(a.id.clone())),
            Self::Create(a) => run(&a.common, async |desk: &CommandContext| create(desk, a).await),
        }
    }
}

async fn list(desk: &CommandContext, a: &ListClients) -> Result<Output, CommandError> {
    let standing = a.standing.and_then(|wanted| wanted.to_possible_value());
    let filter = ClientFilter {
        search: a.search.trim().to_owned(),
        standing: standing.map(|value| value.get_name().to_owned()).unwrap_or_default(),
        after: a.page.after.clone(),
    };
    let mut rows = desk.storage.list_clients(&filter, a.page.ask()).await?;
    let next = a.page.next(&mut rows, |last| Storage::page_after_client(&filter, last));
    let mut table =
        Table::new(&["CLIENT ID", "NAME", "ANSWERS GO TO", "KIND", "STANDING", "LAST USE"]);
    for row in &rows {
        table.row(vec![
            row.id.clone(),
            output::client_name(Some(&row.metadata)),
            goes_to(row),
            row.kind.clone(),
            standing_of(&row.standing),
            row.last_used_at.map_or_else(|| "never".to_owned(), output::utc),
        ]);
    }
    Ok(Output::list("clients", &table, rows.iter().map(as_json).collect(), next))
}

fn goes_to(row: &ClientRow) -> String {
    let metadata = ClientMetadata::from_stored_json(&row.metadata).ok();
    let first = metadata.as_ref().and_then(|metadata| metadata.redirect_uris.first());
    first.map(|uri| destination(uri.as_str()).to_string()).unwrap_or_default()
}

fn standing_of(standing: &ClientReview) -> String {
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

fn as_json(row: &ClientRow) -> Value {
    json!({
        "client_id": row.id,
        "kind": row.kind,
        "confidential": row.confidential,
        "registered_at": output::iso(row.issued_at),
        "last_used_at": output::iso_or_null(row.last_used_at),
        "approval": row.standing.state.as_str(),
        "trusted": row.standing.trusted,
        "blocked": row.standing.blocked,
        "requested_at": output::iso_or_null(row.standing.requested_at),
        "requested_by": row.standing.requested_by,
        "digest": row.digest,
        "changed_since_decided": row.standing.has_lapsed(),
        "metadata": serde_json::from_str::<Value>(&row.metadata).unwrap_or_default(),
    })
}

async fn known(desk: &CommandContext, id: &str) -> Result<ClientRow, CommandError> {
    desk.storage.client_details(id).await?.ok_or_else(|| {
        CommandError::from(format!(
            "there is no client {id}; `portcullis clients list --search NAME` finds it by name or host"
        ))
    })
}

async fn show(desk: &CommandContext, id: &str) -> Result<Output, CommandError> {
    let row = known(desk, id).await?;
    let filter = GrantFilter { client_id: row.id.clone(), ..GrantFilter::default() };
    let grants = desk.storage.browse_grants(&filter, desk.now(), 20).await?;
    let metadata = serde_json::from_str::<Value>(&row.metadata).unwrap_or_default();
    let mut text = output::facts(&[
        ("client ID", row.id.clone()),
        ("name", output::client_name(Some(&row.metadata))),
        ("kind", row.kind.clone()),
        ("answers go to", goes_to(&row)),
        ("has a secret", if row.confidential { "yes" } else { "no" }.to_owned()),
        ("standing", standing_of(&row.standing)),
        ("digest", row.digest.clone()),
        ("registered", output::utc(row.issued_at)),
        ("last use", row.last_used_at.map_or_else(|| "never".to_owned(), output::utc)),
    ]);
    if let Some(at) = row.standing.requested_at {
        let by = row.standing.requested_by.clone().unwrap_or_default();
        text.push_str(&output::facts(&[("waits since", format!("{} ({by})", output::utc(at)))]));
    }
    if row.standing.has_lapsed() {
        text.push_str("\nIt has changed since it was approved or trusted, and is so no more.\n");
    }
    text.push_str("\nwhat it registered\n");
    text.push_str(&output::plain(&serde_json::to_string_pretty(&metadata).unwrap_or_default()));
    text.push_str("\n\nwho connected it\n");
    text.push_str(&grant_output::table(desk, &grants).to_string());
    let mut json = as_json(&row);
    json["grants"] = grants.iter().map(|row| grant_output::as_json(desk, row)).collect();
    Ok(Output::said(text, json))
}

async fn decide(
    desk: &CommandContext,
    id: &str,
    verdict: ReviewDecision,
) -> Result<Output, CommandError> {
    known(desk, id).await?;
    let event = desk.event(verdict.event());
    let decision = ClientDecision::new(id, verdict, BY);
    let changed = desk.storage.decide_client(decision, desk.now(), event).await?;
    let (done, before) = told(verdict);
    Ok(Output::changed(changed, format!("{id} is {done}.\n"), &format!("{id} was {before}.\n")))
}

/// Approves or trusts a client. Prints the client that the decision concerns, and decides nothing if the
/// client has changed.
async fn open(
    desk: &CommandContext,
    a: &Opening,
    verdict: ReviewDecision,
) -> Result<Output, CommandError> {
    let row = known(desk, &a.id).await?;
    let metadata = ClientMetadata::from_stored_json(&row.metadata).map_err(|_| {
        CommandError::from("what is stored of this client cannot be read".to_owned())
    })?;
    if verdict == ReviewDecision::Trust && !trustable(&metadata) {
        return Err(CommandError::from("this client cannot be trusted: its answers go to a program on a device, which nobody can tell \
             apart from another. People go on being asked each time"
                .to_owned(),
        ));
    }
    let (id, digest) = (&row.id, a.digest.as_deref().map_or(row.digest.as_str(), str::trim));
    let (event, now) = (desk.event(verdict.event()), desk.now());
    let decision = ClientDecision::new(id, verdict, BY).of_seen(digest);
    let decided = desk.storage.decide_client_as_seen(decision, now, event).await?;
    let changed = match decided {
        ClientDecided::Changed => true,
        ClientDecided::Unchanged => false,
        ClientDecided::OtherClient => {
            return Err(CommandError::from(format!(
                "nothing was decided: {id} has changed since you looked at it. Read it again with `portcullis clients show {id}`"
            )));
        }
    };
    let (done, before) = told(verdict);
    let said = if changed { format!("is {done}") } else { format!("was {before}") };
    let text = format!("{}\n{id} {said}.\n", about(&row, &metadata));
    Ok(Output::said(text, json!({ "changed": changed, "digest": digest })))
}

/// Returns the facts about a client that a decision depends on.
fn about(row: &ClientRow, metadata: &ClientMetadata) -> String {
    let mut facts = vec![
        ("client ID", row.id.clone()),
        ("name", output::client_name(Some(&row.metadata))),
        ("kind", row.kind.clone()),
    ];
    facts
        .extend(metadata.redirect_uris.iter().map(|uri| ("redirect URI", uri.as_str().to_owned())));
    facts.extend(metadata.client_uri.iter().map(|uri| ("home page", uri.clone())));
    let method = metadata.token_endpoint_auth_method.as_str();
    facts.push(("proves itself", method.to_owned()));
    facts.extend(metadata.jwks_uri.iter().map(|uri| ("keys at", uri.to_string())));
    facts.extend(metadata.jwks.iter().map(|keys| ("keys", keys.to_string())));
    facts.push(("digest", row.digest.clone()));
    output::facts(&facts)
}

/// Returns the texts for a decision that was made now, and for one that was in force before.
const fn told(verdict: ReviewDecision) -> (&'static str, &'static str) {
    match verdict {
        ReviewDecision::Approve => ("approved; whoever waits goes on", "approved before"),
        ReviewDecision::Trust => ("trusted", "trusted before"),
        ReviewDecision::Untrust => ("no longer trusted", "not trusted before"),
        ReviewDecision::Unblock => {
            ("no longer blocked; people can connect it again", "not blocked before")
        }
        // These decisions end grants and go through `ending.rs`, so the texts are not used.
        ReviewDecision::Refuse | ReviewDecision::Block => ("decided", "decided before"),
    }
}

async fn end(
    desk: &CommandContext,
    a: &EndClientAccess,
    ending: &Ending,
) -> Result<Output, CommandError> {
    let id = &known(desk, &a.id).await?.id;
    let (verb, done) = match ending {
        Ending::RefuseClient(_) => ("Refuse", "refused"),
        Ending::DeleteClient(_) => ("Delete", "deleted"),
        _ => ("Block", "blocked"),
    };
    let words = EndingTexts {
        question: format!("{verb} {id}?"),
        done: format!("{id} is {done}"),
        before: &format!("{id} was {done} before.\n"),
    };
    ending::carry_out(desk, &a.confirm, ending, &words).await
}

async fn create(desk: &CommandContext, a: &Create) -> Result<Output, CommandError> {
    let mut body = json!({
        "redirect_uris": a.redirect_uris,
        "token_endpoint_auth_method": if a.public { "none" } else { "client_secret_basic" },
        "grant_types": ["authorization_code", "refresh_token"],
        "response_types": ["code"],
    });
    if !a.name.trim().is_empty() {
        body["client_name"] = a.name.trim().into();
    }
    let config = &desk.config;
    let policy = config.redirect_policy();
    let limits = RegistrationLimits { redirect_uris: config.limits.redirect_uris };
    let metadata = ClientMetadata::parse(body.to_string().as_bytes(), &policy, &limits)
        .map_err(|refused| format!("the client was not made: {refused}"))?;
    let clients = Clients::new(config, desk.storage.clone(), desk.clock.clone());
    let made = clients.create(metadata, desk.event("client_created")).await?;
    let mut facts = vec![("client ID", made.client.id.clone())];
    if let Some(secret) = &made.secret {
        facts.push(("secret", format!("{secret}  (shown this once)")));
    }
    let text = output::facts(&facts);
    let json = json!({ "client_id": made.client.id, "client_secret": made.secret });
    Ok(Output::said(text, json))
}
