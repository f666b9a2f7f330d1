//! `portcullis explain`: replays a scope decision, from claims in a file or for a person who has signed in.

use std::path::PathBuf;
use std::process::ExitCode;

use serde_json::Value;

use super::{ConfigFile, admin_commands, config, fail, output, runtime};
use crate::config::{Config, ResourceConfig};
use crate::oauth::resource::meant;
use crate::oauth::scope::ScopeSet;
use crate::policy::Facts;
use crate::telemetry::{self, LogFormat};
use crate::upstream::claims::{self, Userinfo};

#[derive(clap::Args)]
#[group(required = true, multiple = false, id = "who")]
struct Who {
    /// Claims of an ID token, as a JSON file
    #[arg(long, value_name = "FILE", group = "who")]
    claims: Option<PathBuf>,
    /// A person who has signed in, by the sub of their tokens, such as okta:00u1; safe while the server runs
    #[arg(long, value_name = "SUB", group = "who")]
    user: Option<String>,
}

#[derive(clap::Args)]
pub(super) struct ExplainArguments {
    #[command(flatten)]
    file: ConfigFile,
    #[command(flatten)]
    who: Who,
    /// The MCP server: its URL or path; needed when there are several
    #[arg(long, value_name = "URL")]
    resource: Option<String>,
    /// The scopes a client asks for; its defaults when left out
    #[arg(long, value_name = "SCOPES", default_value = "")]
    request: String,
    /// The client, for rules that name clients
    #[arg(long, value_name = "CLIENT_ID", default_value = "")]
    client: String,
}

pub(super) fn run(arguments: &ExplainArguments) -> ExitCode {
    telemetry::install(Some("error"), LogFormat::Text);
    match explain(arguments) {
        Ok(text) => output::print(&text).map_or_else(|cause| fail(&cause), |()| ExitCode::SUCCESS),
        Err(message) => fail(&message),
    }
}

fn explain(arguments: &ExplainArguments) -> Result<String, String> {
    let loaded = config::load(&arguments.file)?;
    let facts = match (&arguments.who.claims, &arguments.who.user) {
        (Some(file), _) => from_file(&loaded.config, file)?,
        (None, Some(subject)) => from_database(&loaded.config, subject)?,
        (None, None) => return Err("name a person: --claims FILE or --user SUB".to_owned()),
    };
    let resource = find(&loaded.config, arguments.resource.as_deref())?;
    let requested = ScopeSet::parse(&arguments.request).map_err(|refused| refused.to_string())?;
    let Ok(explained) = resource.policy.explain(&facts, &arguments.client, &requested) else {
        let refused = "refused: a requested scope is not declared (on_excess = \"reject\")\n";
        return Ok(refused.to_owned());
    };
    let decision = &explained.decision;
    let or_nothing = |scopes: &ScopeSet| {
        if scopes.is_empty() { "nothing".to_owned() } else { scopes.to_string() }
    };
    let matched =
        if decision.matched.is_empty() { "none".to_owned() } else { decision.matched.join(", ") };
    let email = facts.shown_email();
    let access = if explained.refused { "access         refused\n" } else { "" };
    Ok(format!(
        "person         {}\ne-mail         {email}\ngroups         {}\nroles          {}\npermissions    {}\n\
         MCP server     {}\nasked          {}\nmatched rules  {matched}\n\
         granted        {}\nnot granted    {}\n{access}",
        facts.subject,
        facts.groups,
        facts.roles,
        facts.permissions,
        resource.id,
        or_nothing(&explained.asked),
        or_nothing(&decision.granted),
        or_nothing(&decision.missing),
    ))
}

fn from_file(config: &Config, file: &std::path::Path) -> Result<Facts, String> {
    let cannot = |cause: &dyn std::fmt::Display| format!("{}: {cause}", file.display());
    let text = std::fs::read_to_string(file).map_err(|cause| cannot(&cause))?;
    let id_token: Value = serde_json::from_str(&text).map_err(|cause| cannot(&cause))?;
    let subject = id_token["sub"].as_str().unwrap_or("(no sub)").to_owned();
    let plan = &config.upstream.claims;
    // The file is used for all sources, so that it may also contain claims of an access token or of userinfo.
    let person = claims::read(plan, &subject, &id_token, Some(&id_token), &Userinfo::NotAsked);
    Ok(person.facts)
}

fn from_database(config: &Config, subject: &str) -> Result<Facts, String> {
    let upstream_subject = subject
        .strip_prefix(config.upstream.preset.name)
        .and_then(|rest| rest.strip_prefix(':'))
        .ok_or_else(|| format!("the sub begins with \"{}:\"", config.upstream.preset.name))?;
    let found = runtime().map_err(|cause| cause.to_string())?.block_on(async {
        let storage = admin_commands::open_beside(config).await?;
        let found = storage.latest_person(&config.upstream.issuer, upstream_subject).await;
        storage.close().await;
        found.map_err(|error| error.to_string())
    })?;
    found
        .map(|person| person.facts)
        .ok_or_else(|| format!("nobody with the sub {subject} has signed in"))
}

fn find<'a>(config: &'a Config, asked: Option<&str>) -> Result<&'a ResourceConfig, String> {
    let known = || {
        let ids: Vec<&str> = config.resources.iter().map(|r| r.id.as_str()).collect();
        ids.join(", ")
    };
    match (asked, config.resources.as_slice()) {
        (None, [only]) => Ok(only),
        (None, _) => Err(format!("say which with --resource: {}", known())),
        (Some(asked), all) => {
            let ids = all.iter().map(|resource| resource.id.as_str());
            let id = meant(ids, config.public_url.as_str(), asked);
            all.iter()
                .find(|one| one.path.as_deref() == Some(asked) || Some(one.id.as_str()) == id)
                .ok_or_else(|| format!("{asked} is not one of: {}", known()))
        }
    }
}
