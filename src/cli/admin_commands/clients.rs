//! `portcullis clients`: lists, reviews, blocks, deletes and creates clients.

use std::process::ExitCode;

use clap::Subcommand;
use serde_json::{Value, json};

use super::client_edit::{EditClient, RotateSecret, metadata_of};
use super::client_list::{ListClients, as_json, goes_to, known, standing_of};
use super::client_patterns::PatternsCommand;
use super::ending::{self, Confirm, EndingTexts};
use super::grant_output;
use super::output;
use super::{BY, CommandContext, CommandError, Common, Output, run};
use crate::admin::trustable;
use crate::clients::Clients;
use crate::oauth::client::{AuthMethod, ClientMetadata};
use crate::storage::{
    ClientDecided, ClientDecision, ClientRow, Ending, GrantFilter, ReviewDecision, UNUSED_AFTER,
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
    /// Let people connect it, where client_approval = "first_use"; people who wait continue at once
    #[command(
        after_help = "Examples:\n  portcullis clients approve client_0199c2a7\n  portcullis clients approve client_0199c2a7 --digest DIGEST   # as `clients show` printed it"
    )]
    Approve(Opening),
    /// Refuse it, and end what it has
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
    /// Remember approvals of people; only for clients that redirect to websites
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
    /// Create a client for a program that cannot register itself; its secret is printed once
    #[command(
        after_help = "Examples:\n  portcullis clients create --name Reports --redirect-uri https://reports.example.com/callback\n  portcullis clients create --name Tool --redirect-uri http://127.0.0.1/callback --public"
    )]
    Create(Create),
    /// Change the name and redirect URIs of a client created here; owner and note of any client
    #[command(
        after_help = "Examples:\n  portcullis clients edit client_0199c2a7 --redirect-uri https://reports.example.com/callback\n  portcullis clients edit client_0199c2a7 --owner \"Team Reports\" --note \"ticket 17\""
    )]
    Edit(EditClient),
    /// Give a client created here another secret; the former one ends at once
    #[command(after_help = "Example:\n  portcullis clients rotate-secret client_0199c2a7 --yes")]
    RotateSecret(RotateSecret),
    /// Delete the clients that nobody has used for 30 days; those created here or configured stay
    #[command(
        after_help = "Examples:\n  portcullis clients delete-unused --dry-run\n  portcullis clients delete-unused --yes"
    )]
    DeleteUnused(DeleteUnused),
    /// Websites whose clients need no approval
    #[command(
        subcommand,
        after_help = "Examples:\n  portcullis clients patterns list\n  portcullis clients patterns add chatgpt.com --until 2026-12-31"
    )]
    Patterns(PatternsCommand),
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

#[derive(clap::Args)]
pub(in crate::cli) struct DeleteUnused {
    #[command(flatten)]
    confirm: Confirm,
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
            Self::List(a) => a.run(),
            Self::Show(a) => run(&a.common, async |desk: &CommandContext| show(desk, &a.id).await),
            Self::Approve(a) => open(a, ReviewDecision::Approve),
            Self::Refuse(a) => end(a, Ending::RefuseClient(a.id.clone())),
            Self::Block(a) => end(a, Ending::BlockClient(a.id.clone())),
            Self::Unblock(a) => decide(a, ReviewDecision::Unblock),
            Self::Trust(a) => open(a, ReviewDecision::Trust),
            Self::Untrust(a) => decide(a, ReviewDecision::Untrust),
            Self::Delete(a) => end(a, Ending::DeleteClient(a.id.clone())),
            Self::Create(a) => run(&a.common, async |desk: &CommandContext| create(desk, a).await),
            Self::Edit(a) => a.run(),
            Self::RotateSecret(a) => a.run(),
            Self::DeleteUnused(a) => {
                run(&a.common, async |desk: &CommandContext| delete_unused(desk, &a.confirm).await)
            }
            Self::Patterns(command) => command.run(),
        }
    }
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
        ("redirects to", goes_to(&row)),
        ("has a secret", if row.is_confidential() { "yes" } else { "no" }.to_owned()),
        ("status", standing_of(&row.standing)),
        ("owner", row.note.owner.clone()),
        ("note", row.note.note.clone()),
        ("digest", row.digest.clone()),
        ("registered", output::utc(row.issued_at)),
        ("last use", row.last_used_at.map_or_else(|| "never".to_owned(), output::utc)),
    ]);
    if let Some(at) = row.standing.requested_at {
        let by = row.standing.requested_by.clone().unwrap_or_default();
        text.push_str(&output::facts(&[("waiting since", format!("{} ({by})", output::utc(at)))]));
    }
    if row.standing.has_lapsed() {
        text.push_str("\nIt has changed since it was approved or trusted, so that decision no longer applies.\n");
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
        return Err(CommandError::from(
            "this client cannot be trusted: skipping the consent page is not available for apps on \
             a device, because nobody can tell one from another"
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
    facts.push(("authentication", method.to_owned()));
    facts.extend(metadata.jwks_uri.iter().map(|uri| ("keys at", uri.to_string())));
    facts.extend(metadata.jwks.iter().map(|keys| ("keys", keys.to_string())));
    facts.push(("digest", row.digest.clone()));
    output::facts(&facts)
}

/// Returns the texts for a decision that was made now, and for one that was in force before.
const fn told(verdict: ReviewDecision) -> (&'static str, &'static str) {
    match verdict {
        ReviewDecision::Approve => ("approved; people who wait continue", "approved before"),
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

async fn delete_unused(desk: &CommandContext, confirm: &Confirm) -> Result<Output, CommandError> {
    let since = desk.now().minus(UNUSED_AFTER);
    let words = EndingTexts {
        question: format!("Delete the clients that nobody has used since {}?", output::utc(since)),
        done: "The unused clients are deleted".to_owned(),
        before: "No client has been unused for so long.\n",
    };
    ending::carry_out(desk, confirm, &Ending::DeleteUnused(since), &words).await
}

async fn create(desk: &CommandContext, a: &Create) -> Result<Output, CommandError> {
    let method = if a.public { AuthMethod::None } else { AuthMethod::ClientSecretBasic };
    let metadata = metadata_of(desk, &a.name, &a.redirect_uris, method)
        .map_err(|refused| format!("the client was not created: {refused}"))?;
    let clients = Clients::new(&desk.config, desk.storage.clone(), desk.clock.clone());
    let made = clients.create(metadata, desk.event("client_created")).await?;
    let mut facts = vec![("client ID", made.client.id.clone())];
    if let Some(secret) = &made.secret {
        facts.push(("secret", format!("{secret}  (shown this once)")));
    }
    let text = output::facts(&facts);
    let json = json!({ "client_id": made.client.id, "client_secret": made.secret });
    Ok(Output::said(text, json))
}
