//! `portcullis demo`: the identity provider, the MCP server, and Portcullis in front, on loopback.

mod populated;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use tokio::net::TcpListener;

use super::{fail, output, run_to_the_end, serve};
use crate::clock::Clock;
use crate::config::Config;
use crate::demo::{IdentityProvider, IdentityProviderOptions, TodoServer, TodoServerOptions};
use crate::server;

/// Portcullis' identity at the demo identity provider.
const CLIENT_ID: &str = "portcullis";
const CLIENT_SECRET: &str = "demo-only";

#[derive(clap::Args)]
pub(super) struct Arguments {
    /// Where Portcullis listens; loopback only
    #[arg(long, default_value = "127.0.0.1:8000", value_name = "ADDRESS")]
    listen: SocketAddr,
    /// Where the demo keeps its database and keys between runs
    #[arg(long, default_value = "portcullis-demo", value_name = "FOLDER")]
    data: PathBuf,
    /// Fill it with 50 clients, 200 people and two weeks of what happened, once
    #[arg(long)]
    populated: bool,
    /// Whether an administrator approves each new client: none, or first_use (as it is with --populated)
    #[arg(long, value_name = "POLICY")]
    client_approval: Option<Approval>,
}

/// `client_approval` of the configuration.
#[derive(Clone, Copy, clap::ValueEnum)]
enum Approval {
    #[value(name = "none")]
    Nobody,
    #[value(name = "first_use")]
    FirstUse,
}

impl Arguments {
    fn client_approval(&self) -> &'static str {
        match self.client_approval {
            Some(Approval::FirstUse) => "first_use",
            None if self.populated => "first_use",
            Some(Approval::Nobody) | None => "none",
        }
    }
}

pub(super) fn run(arguments: &Arguments) -> ExitCode {
    if !arguments.listen.ip().is_loopback() {
        return fail(&"the demo listens on loopback only: --listen 127.0.0.1:8000");
    }
    if !arguments.populated {
        serve::install_log();
    }
    match run_to_the_end(demo(arguments)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => fail(&message),
    }
}

async fn demo(arguments: &Arguments) -> Result<(), String> {
    std::fs::create_dir_all(&arguments.data)
        .map_err(|cause| format!("{} cannot be made: {cause}", arguments.data.display()))?;
    let listener = bind(arguments.listen).await?;
    let listen = listener.local_addr().map_err(|cause| cause.to_string())?;
    let public_url = format!("http://{listen}");
    let idp = identity_provider(arguments, listen, &public_url).await?;
    let todo_listener = bind(SocketAddr::new(listen.ip(), 0)).await?;
    let todos = TodoServer::start(todo_listener, TodoServerOptions { clock: Clock::System })
        .map_err(|cause| cause.to_string())?;

    // The port next to ours; when it is taken, any other will do.
    let usual = SocketAddr::new(listen.ip(), listen.port().checked_add(1).unwrap_or(0));
    let admin_listener = match bind(usual).await {
        Ok(listener) => listener,
        Err(_) => bind(SocketAddr::new(listen.ip(), 0)).await?,
    };
    let admin = admin_listener.local_addr().map_err(|cause| cause.to_string())?;
    let places = Places { public_url: &public_url, listen, admin, data: &arguments.data };
    let approval = arguments.client_approval();
    let text = config_text(&places, idp.issuer(), &todos.url(), approval);
    let loaded = Config::load(Some((Path::new("demo"), text)), &BTreeMap::new())
        .map_err(|problems| problems.to_string())?;
    let digest = loaded.digest();
    let app = serve::open(loaded.config, Clock::System).await?;
    if arguments.populated {
        populated::populate(&app).await.map_err(|error| error.to_string())?;
        serve::install_log(); // only now: two thousand made-up lines would push the addresses away
    }
    serve::tell_start(&app, digest).await;
    announce(&places, idp.issuer());
    server::serve(app, listener, Some(admin_listener), serve::shutdown()).await;
    idp.shutdown();
    todos.shutdown();
    Ok(())
}

async fn bind(address: SocketAddr) -> Result<TcpListener, String> {
    TcpListener::bind(address).await.map_err(|cause| {
        format!("cannot listen on {address}: {cause}; choose another with --listen")
    })
}

/// The provider sits two ports further (the next is the admin pages'), so that its issuer, and with
/// it everybody's sign-in, is the same at the next start. When that port is taken, any other will do.
async fn identity_provider(
    arguments: &Arguments,
    listen: SocketAddr,
    public_url: &str,
) -> Result<IdentityProvider, String> {
    let usual = SocketAddr::new(listen.ip(), listen.port().checked_add(2).unwrap_or(0));
    let listener = match bind(usual).await {
        Ok(listener) => listener,
        Err(_) => bind(SocketAddr::new(listen.ip(), 0)).await?,
    };
    let options = IdentityProviderOptions {
        clock: Clock::System,
        client_id: CLIENT_ID.to_owned(),
        client_secret: CLIENT_SECRET.to_owned(),
        redirect_uris: vec![format!("{public_url}/auth/callback")],
        issuer: None,
        state_dir: Some(arguments.data.clone()),
    };
    IdentityProvider::start(listener, options).map_err(|cause| cause.to_string())
}

/// Where things are.
struct Places<'a> {
    public_url: &'a str,
    listen: SocketAddr,
    admin: SocketAddr,
    data: &'a Path,
}

fn config_text(places: &Places<'_>, issuer: &str, target: &str, approval: &str) -> String {
    let Places { public_url, listen, admin, data } = places;
    let database = format!("sqlite://{}", data.join("portcullis.db").display());
    format!(
        r#"
public_url   = "{public_url}"
listen       = "{listen}"
database_url = {database}
client_approval = "{approval}"

[upstream]
provider      = "oidc"
name          = "the demo identity provider"
issuer        = "{issuer}"
client_id     = "{CLIENT_ID}"
client_secret = "{CLIENT_SECRET}"

[upstream.claims]
roles  = "roles"
groups = "groups"

[[resource]]
path   = "/mcp"
name   = "To-do list"
target = "{target}"
scopes = {{ "read:todos" = "Read everybody's to-dos", "create:todos" = "Add to-dos", "delete:todos" = "Delete everybody's to-dos" }}

[[resource.rule]]
roles = ["Admin"]
allow = ["read:todos", "create:todos", "delete:todos"]

[[resource.rule]]
roles = ["User"]
allow = ["create:todos"]

[resource.tools]
"purge-todos" = ["delete:todos"]

[admin]
listen = "{admin}"
roles  = ["Admin"]
"#,
        database = toml::Value::String(database),
    )
}

fn announce(places: &Places<'_>, issuer: &str) {
    let Places { public_url, admin, .. } = places;
    let text = format!(
        "Portcullis demo

  MCP URL            {public_url}/mcp
  Admin pages        http://{admin}   sign in as alice
  Identity provider  {issuer}   alice (admin), bob (user), mallory (no access)
                     the password is the name

Try:
  Claude Code        claude mcp add --transport http todos {public_url}/mcp
  MCP Inspector      npx @modelcontextprotocol/inspector
                     transport Streamable HTTP, URL {public_url}/mcp, then Connect
  Then               sign in as bob, create-todo, get-todos; purge-todos is refused
                     sign in as alice, who sees everybody's and may purge

Everything listens on this machine only. Ctrl-C stops it; nobody is logged out by that.

"
    );
    if let Err(cause) = output::print(&text) {
        tracing::warn!(%cause, "nobody reads how to use the demo");
    }
}
