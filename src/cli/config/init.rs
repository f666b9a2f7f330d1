//! `portcullis config init`: collects the answers, writes a commented configuration file, and checks it.

mod answers;
mod file;
mod probe;
mod questions;

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::{IsTerminal as _, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::builder::PossibleValuesParser;

use self::answers::{Answers, SecretSource, keys_of_issuer};
use self::questions::Terminal;
use super::super::{check, fail, output};
use super::DEFAULT_FILE;
use crate::config::{Preset, paths, presets, schema};

/// Name of the JSON Schema next to the configuration file.
const SCHEMA_FILE: &str = "portcullis.schema.json";

#[derive(clap::Args)]
pub(in crate::cli) struct InitArguments {
    /// The kind of identity provider; oidc for any other
    #[arg(value_name = "PROVIDER", ignore_case = true,
          value_parser = PossibleValuesParser::new(presets().iter().map(|preset| preset.name)))]
    provider: Option<String>,
    /// The file to write
    #[arg(long, env = "PORTCULLIS_CONFIG", value_name = "FILE", default_value = DEFAULT_FILE)]
    config: PathBuf,
    // Not a doc comment: rustdoc wants brackets around the URL, which the help would show.
    #[arg(
        long,
        value_name = "URL",
        help = "The URL that people and clients use, such as https://mcp.example.com"
    )]
    public_url: Option<String>,
    /// Where Portcullis listens
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<SocketAddr>,
    #[command(flatten)]
    keys: ProviderKeys,
    /// The ID of the client that you created for Portcullis at the provider
    #[arg(long, value_name = "ID")]
    client_id: Option<String>,
    /// A file with that client's secret
    #[arg(long, value_name = "FILE", conflicts_with = "client_secret_env")]
    client_secret_file: Option<PathBuf>,
    /// An environment variable with that client's secret
    #[arg(long, value_name = "NAME")]
    client_secret_env: Option<String>,
    /// The name of the provider on the pages, such as Keycloak [default: the host of the issuer]
    #[arg(long, value_name = "NAME")]
    provider_name: Option<String>,
    /// The path of the MCP server for clients [default: /mcp]
    #[arg(long, value_name = "PATH")]
    path: Option<String>,
    /// The address of the MCP server itself, such as http://127.0.0.1:9000/mcp
    #[arg(long, value_name = "URL")]
    target: Option<String>,
    /// The name of the MCP server on the pages
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// The scopes of the MCP server, separated by commas [default: mcp]
    #[arg(long, value_name = "SCOPES", value_delimiter = ',')]
    scopes: Vec<String>,
    /// The scopes that people with a role get; may be given several times. Without it, everybody who can sign in
    /// gets all scopes
    #[arg(long = "rule", value_name = "ROLE=SCOPES", value_parser = rule)]
    rules: Vec<(String, Vec<String>)>,
    /// The claim with the roles, if it is not the provider's usual one
    #[arg(long, value_name = "CLAIM")]
    roles_claim: Option<String>,
    /// A role that may use the admin pages; may be given several times. Without it, there are no admin pages
    #[arg(long = "admin-role", value_name = "ROLE")]
    admin_roles: Vec<String>,
    /// Ask nothing: what is missing is an error
    #[arg(long)]
    yes: bool,
    /// Do not run `portcullis check` on the new file
    #[arg(long)]
    no_check: bool,
}

/// Flags for the keys that only some providers have.
#[derive(clap::Args)]
struct ProviderKeys {
    /// The issuer of the provider; for every kind of provider
    #[arg(long, value_name = "URL", help_heading = "Provider")]
    issuer: Option<String>,
    /// Okta, Auth0, Logto, ZITADEL: the host name of your organisation
    #[arg(long, value_name = "HOST", help_heading = "Provider")]
    domain: Option<String>,
    /// Keycloak, authentik: the base URL. GitHub: the URL of an Enterprise Server
    #[arg(long, value_name = "URL", help_heading = "Provider")]
    url: Option<String>,
    /// Keycloak: the realm
    #[arg(long, value_name = "NAME", help_heading = "Provider")]
    realm: Option<String>,
    /// Entra: the directory (tenant) ID
    #[arg(long, value_name = "GUID", help_heading = "Provider")]
    tenant: Option<String>,
    /// GitLab: the host name
    #[arg(long, value_name = "HOST", help_heading = "Provider")]
    host: Option<String>,
    /// Cognito, PingOne: the region
    #[arg(long, value_name = "REGION", help_heading = "Provider")]
    region: Option<String>,
    /// Cognito: the ID of the user pool
    #[arg(long, value_name = "ID", help_heading = "Provider")]
    user_pool_id: Option<String>,
    /// authentik: the slug of the application
    #[arg(long, value_name = "SLUG", help_heading = "Provider")]
    application: Option<String>,
    /// PingOne: the environment ID
    #[arg(long, value_name = "GUID", help_heading = "Provider")]
    environment_id: Option<String>,
    /// OneLogin: the part before .onelogin.com
    #[arg(long, value_name = "NAME", help_heading = "Provider")]
    subdomain: Option<String>,
    /// Google: the Workspace domains whose people can sign in, separated by commas
    #[arg(long, value_name = "DOMAINS", value_delimiter = ',', help_heading = "Provider")]
    hosted_domains: Vec<String>,
    /// GitHub: the organisations whose members can sign in, separated by commas
    #[arg(long, value_name = "NAMES", value_delimiter = ',', help_heading = "Provider")]
    organizations: Vec<String>,
}

impl ProviderKeys {
    /// Returns the flags that were given, by the name of their key. The issuer is not among them.
    fn given(&self) -> BTreeMap<&'static str, &String> {
        let texts = [
            ("domain", &self.domain),
            ("url", &self.url),
            ("realm", &self.realm),
            ("tenant", &self.tenant),
            ("host", &self.host),
            ("region", &self.region),
            ("user_pool_id", &self.user_pool_id),
            ("application", &self.application),
            ("environment_id", &self.environment_id),
            ("subdomain", &self.subdomain),
        ];
        texts.into_iter().filter_map(|(name, text)| Some((name, text.as_ref()?))).collect()
    }
}

/// Parses `Admin=read:todos,create:todos`.
fn rule(text: &str) -> Result<(String, Vec<String>), String> {
    let (role, scopes) = text
        .split_once('=')
        .filter(|(role, scopes)| !role.is_empty() && !scopes.is_empty())
        .ok_or("write ROLE=SCOPE,SCOPE")?;
    Ok((role.to_owned(), scopes.split(',').map(str::to_owned).collect()))
}

pub(super) fn run(arguments: &InitArguments) -> ExitCode {
    match init(arguments) {
        Ok(code) => ExitCode::from(code),
        Err(message) => fail(&message),
    }
}

fn init(arguments: &InitArguments) -> Result<u8, String> {
    let path = &arguments.config;
    if path.symlink_metadata().is_ok() {
        let path = path.display();
        return Err(format!(
            "{path} exists. Move it away, or write another one with --config FILE"
        ));
    }
    let mut answers = Answers::default();
    take_flags(arguments, &mut answers)?;
    if !arguments.yes && std::io::stdin().is_terminal() {
        let (mut input, mut output) = (std::io::stdin().lock(), std::io::stderr());
        let mut terminal = Terminal::new(&mut input, &mut output);
        questions::ask_for_the_rest(&mut answers, &mut terminal)?;
    }
    let complete = answers.complete()?;
    let mistakes = probe::mistakes(&complete);
    if !mistakes.is_empty() {
        return Err(format!("nothing was written:\n{}", mistakes.join("\n")));
    }
    write(path, &mut answers)?;
    let complete = answers.complete()?;
    output::print(&next_steps(path, complete.preset, &complete))?;
    if arguments.no_check {
        return Ok(0);
    }
    output::print("\nportcullis check\n")?;
    Ok(match check::file(path) {
        1 => 0, // warnings
        code => code,
    })
}

/// Takes the answers that are flags.
fn take_flags(arguments: &InitArguments, answers: &mut Answers) -> Result<(), String> {
    let name = arguments.provider.as_ref().map(|name| name.to_lowercase());
    answers.preset = name.and_then(|name| presets().iter().find(|preset| preset.name == name));
    if let Some(preset) = answers.preset {
        take_provider_keys(&arguments.keys, preset, answers)?;
    }
    answers.public_url.clone_from(&arguments.public_url);
    answers.listen = arguments.listen;
    answers.client_id.clone_from(&arguments.client_id);
    answers.secret = match (&arguments.client_secret_file, &arguments.client_secret_env) {
        (Some(file), _) => Some(SecretSource::File(file.clone())),
        (None, Some(name)) => Some(SecretSource::Variable(name.clone())),
        (None, None) => None,
    };
    answers.provider_name.clone_from(&arguments.provider_name);
    answers.path.clone_from(&arguments.path);
    answers.target.clone_from(&arguments.target);
    answers.name.clone_from(&arguments.name);
    answers.scopes.clone_from(&arguments.scopes);
    answers.rules.clone_from(&arguments.rules);
    answers.roles_claim.clone_from(&arguments.roles_claim);
    answers.admin_roles.clone_from(&arguments.admin_roles);
    Ok(())
}

fn take_provider_keys(
    keys: &ProviderKeys,
    preset: &'static Preset,
    answers: &mut Answers,
) -> Result<(), String> {
    if let Some(issuer) = &keys.issuer {
        answers.keys.extend(keys_of_issuer(preset, issuer)?);
    }
    let own = preset.own_keys();
    for (name, value) in keys.given() {
        if !own.contains(&name) {
            let own = own.iter().map(|own| format!("--{}", own.replace('_', "-")));
            let own: Vec<String> = own.collect();
            return Err(format!(
                "--{} is not for {}, which has --issuer {}",
                name.replace('_', "-"),
                preset.name,
                own.join(" ")
            ));
        }
        let known = answers.keys.insert(name, value.clone());
        if known.is_some_and(|known| known != *value) {
            let name = name.replace('_', "-");
            return Err(format!(
                "--{name} says something else than --issuer; leave one of them out"
            ));
        }
    }
    answers.allowed = match preset.name {
        "google" => keys.hosted_domains.clone(),
        "github" => keys.organizations.clone(),
        _ => Vec::new(),
    };
    Ok(())
}

/// Writes the secret that was typed, the configuration, and the schema for editors. Existing files stay.
fn write(path: &Path, answers: &mut Answers) -> Result<(), String> {
    if let Some(SecretSource::Typed(secret)) = &answers.secret {
        let file = path.with_extension("secret");
        create(&file, secret.expose(), true)?;
        answers.secret = Some(SecretSource::File(file));
    }
    create(path, &file::text(&answers.complete()?), false)?;
    let schema = serde_json::to_string_pretty(&schema()).map_err(|cause| cause.to_string())?;
    let beside = path.with_file_name(SCHEMA_FILE);
    // For editors only, so that a folder in which it exists already is no mistake.
    let _exists = create(&beside, &format!("{schema}\n"), false);
    Ok(())
}

/// Creates a file; `private`: nobody else can read it.
fn create(path: &Path, text: &str, private: bool) -> Result<(), String> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    if private {
        use std::os::unix::fs::OpenOptionsExt as _;
        options.mode(0o600);
    }
    #[cfg(not(unix))]
    let _ = private;
    let written = options.open(path).and_then(|mut file| file.write_all(text.as_bytes()));
    written.map_err(|cause| format!("{} cannot be written: {cause}", path.display()))
}

fn next_steps(path: &Path, preset: &Preset, answers: &answers::CompleteAnswers<'_>) -> String {
    let (url, config) = (answers.public_url, path.display());
    let serve = if path == Path::new(DEFAULT_FILE) {
        "portcullis serve".to_owned()
    } else {
        format!("portcullis serve --config {config}")
    };
    format!(
        "{config} is written.\n\n\
         Redirect URI to enter at the provider:\n  {url}{callback}\n  ({place})\n\n\
         URL for MCP clients:\n  {url}{mcp}\n\n\
         Start:\n  {serve}\n",
        callback = paths::CALLBACK,
        place = preset.console.redirect_uri,
        mcp = answers.path,
    )
}
