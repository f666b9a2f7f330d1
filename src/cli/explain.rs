//! `portcullis explain`: replays a scope decision, from claims in a file or for a person who has signed in or
//! was refused. For a refusal it says which rule comes nearest, and what would let the person in.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde_json::{Value, json};

use super::{ConfigFile, admin_commands, config, fail, output, runtime};
use crate::admin::advice::{Advice, RuleReport};
use crate::admin::configured::ConfiguredServer;
use crate::config::{Config, ResourceConfig};
use crate::oauth::resource::meant;
use crate::oauth::scope::ScopeSet;
use crate::policy::{Explanation, Facts, Holds};
use crate::storage::{Person, Storage, StorageError};
use crate::telemetry::{self, LogFormat};
use crate::upstream::claims::{self, Userinfo};
use crate::web::words::Language;

#[derive(clap::Args)]
#[group(required = true, multiple = false, id = "who")]
struct Who {
    /// Claims of an ID token, as a JSON file; - reads them from standard input
    #[arg(long, value_name = "FILE", group = "who")]
    claims: Option<PathBuf>,
    /// A person who has signed in or was refused, by the sub of their tokens, such as okta:00u1, or by the ID at the provider, such as 00u1; safe while the server runs
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
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &ExplainArguments) -> ExitCode {
    telemetry::install(Some("error"), LogFormat::Text);
    match explain(arguments) {
        Ok(text) => output::print(&harmless(&text))
            .map_or_else(|cause| fail(&cause), |()| ExitCode::SUCCESS),
        Err(message) => fail(&message),
    }
}

/// Replaces characters that a terminal would obey: claims may come from anybody.
fn harmless(text: &str) -> String {
    let obeyed = |c: char| c.is_control() && c != '\n';
    text.chars().map(|c| if obeyed(c) { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

fn explain(arguments: &ExplainArguments) -> Result<String, String> {
    let loaded = config::load(&arguments.file)?;
    let resource = find(&loaded.config, arguments.resource.as_deref())?;
    let facts = match (&arguments.who.claims, &arguments.who.user) {
        (Some(file), _) => from_file(&loaded.config, file)?,
        (None, Some(subject)) => from_database(&loaded.config, &resource.id, subject)?,
        (None, None) => return Err("name a person: --claims FILE or --user SUB".to_owned()),
    };
    let requested = ScopeSet::parse(&arguments.request).map_err(|refused| refused.to_string())?;
    let Ok(explained) = resource.policy.explain(&facts, &arguments.client, &requested) else {
        let why = "a requested scope is not declared (on_excess = \"reject\")";
        if arguments.json {
            return Ok(format!("{}\n", json!({ "refused": true, "why": why })));
        }
        return Ok(format!("refused: {why}\n"));
    };
    let config = &loaded.config;
    let advice =
        ConfiguredServer::with_id(config, &config.source, &resource.id).and_then(|server| {
            let asked = &explained.asked;
            Advice::of(server, &facts, &arguments.client, asked, Language::English)
        });
    if arguments.json {
        return Ok(format!("{}\n", as_json(resource, &facts, &explained, advice.as_ref())));
    }
    let mut text = as_text(resource, &facts, &explained);
    if let Some(advice) = advice.filter(|_| explained.refused) {
        text.push_str(&advised(&advice));
    }
    Ok(text)
}

fn as_text(resource: &ResourceConfig, facts: &Facts, explained: &Explanation) -> String {
    let decision = &explained.decision;
    let or_nothing = |scopes: &ScopeSet| {
        if scopes.is_empty() { "nothing".to_owned() } else { scopes.to_string() }
    };
    let matched =
        if decision.matched.is_empty() { "none".to_owned() } else { decision.matched.join(", ") };
    let email = facts.shown_email();
    let access = if explained.refused { "access         refused\n" } else { "" };
    format!(
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
    )
}

/// Returns why a person is refused, and what would let them in.
fn advised(advice: &Advice<'_>) -> String {
    let mut text = format!("why            {}\n", advice.why());
    if let Some(nearest) = advice.nearest() {
        let _ = writeln!(text, "nearest rule   {nearest}");
    }
    for (index, (change, gives)) in advice.ways().iter().enumerate() {
        let label = if index == 0 { "to let them in" } else { "or" };
        let _ = writeln!(text, "{label:14} {change} (gives {gives})");
    }
    text
}

fn as_json(
    resource: &ResourceConfig,
    facts: &Facts,
    explained: &Explanation,
    advice: Option<&Advice<'_>>,
) -> Value {
    let list = |scopes: &ScopeSet| scopes.iter().map(ToString::to_string).collect::<Vec<_>>();
    let decision = &explained.decision;
    let rules = advice.map(Advice::rules).unwrap_or_default();
    let ways = advice.map(Advice::ways).unwrap_or_default();
    json!({
        "person": facts,
        "mcp_server": resource.id,
        "asked": list(&explained.asked),
        "matched_rules": decision.matched,
        "granted": list(&decision.granted),
        "not_granted": list(&decision.missing),
        "refused": explained.refused,
        "why": advice.map(Advice::why),
        "nearest_rule": advice.and_then(Advice::nearest),
        "rules": rules.iter().map(rule_as_json).collect::<Vec<_>>(),
        "ways": ways
            .iter()
            .map(|(change, gives)| json!({ "change": change, "gives": gives }))
            .collect::<Vec<_>>(),
    })
}

fn rule_as_json(rule: &RuleReport) -> Value {
    let conditions = rule.conditions.iter().map(|condition| {
        json!({
            "key": condition.key,
            "wanted": condition.wanted,
            "sent": condition.arrived,
            "met": truth(condition.holds),
        })
    });
    json!({
        "rule": rule.name,
        "place": rule.place,
        "nearest": rule.is_nearest,
        "matches": truth(rule.holds),
        "would_allow": rule.allows.to_string(),
        "denies": rule.denies.to_string(),
        "conditions": conditions.collect::<Vec<_>>(),
    })
}

/// Returns true, false, or null for unknown.
const fn truth(holds: Holds) -> Option<bool> {
    match holds {
        Holds::Yes => Some(true),
        Holds::No => Some(false),
        Holds::Unknown => None,
    }
}

fn from_file(config: &Config, file: &Path) -> Result<Facts, String> {
    let cannot = |cause: &dyn std::fmt::Display| format!("{}: {cause}", file.display());
    let text = if file == Path::new("-") {
        std::io::read_to_string(std::io::stdin().lock())
    } else {
        std::fs::read_to_string(file)
    };
    let text = text.map_err(|cause| cannot(&cause))?;
    let id_token: Value = serde_json::from_str(&text).map_err(|cause| cannot(&cause))?;
    let subject = id_token["sub"].as_str().unwrap_or("(no sub)").to_owned();
    let plan = &config.upstream.claims;
    // The file is used for all sources, so that it may also contain claims of an access token or of userinfo.
    let person = claims::read(plan, &subject, &id_token, Some(&id_token), &Userinfo::NotAsked);
    Ok(person.facts)
}

/// Returns what the provider sent last about a person: at a sign-in, or when the rules of this MCP server
/// refused them. Takes the `sub` of their tokens, and the id at the provider, which rules have in `subjects`.
fn from_database(config: &Config, resource: &str, asked: &str) -> Result<Facts, String> {
    let ours = format!("{}:", config.upstream.preset.name);
    // An id at the provider may itself begin like that, so both are looked up.
    let ids = asked.strip_prefix(&ours).into_iter().chain([asked]);
    let found = runtime().map_err(|cause| cause.to_string())?.block_on(async {
        let storage = admin_commands::open_beside(config).await?;
        let mut found = Ok(None);
        for id in ids {
            found = person_in(&storage, config, (resource, &format!("{ours}{id}"), id)).await;
            if !matches!(found, Ok(None)) {
                break;
            }
        }
        storage.close().await;
        found.map_err(|error| error.to_string())
    })?;
    found.map(|person| person.facts).ok_or_else(|| {
        format!("nobody with the sub or the ID {asked} has signed in or was refused")
    })
}

async fn person_in(
    storage: &Storage,
    config: &Config,
    (resource, subject, upstream_subject): (&str, &str, &str),
) -> Result<Option<Person>, StorageError> {
    let refused = storage.refused_person(subject, resource).await?;
    let known = storage.latest_person(&config.upstream.issuer, upstream_subject).await?;
    Ok(known.or(refused.map(|refused| refused.person)))
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
