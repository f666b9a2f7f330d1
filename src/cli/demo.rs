//! `portcullis demo`: an identity provider, an MCP server, and Portcullis in front of it, on loopback.

mod populated;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use tokio::net::TcpListener;

use super::{fail, output, run_to_the_end, serve};
use crate::clock::Clock;
use crate::config::{Config, Loaded, paths};
use crate::demo::{IdentityProvider, IdentityProviderOptions, TodoServer, TodoServerOptions};
use crate::server;

/// Client id of Portcullis at the demo identity provider.
const CLIENT_ID: &str = "portcullis";
const CLIENT_SECRET: &str = "demo-only";

#[derive(clap::Args)]
pub(super) struct DemoArguments {
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
    client_approval: Option<DemoApproval>,
    /// Let clients register themselves, and fetch nothing that one publishes. Without a network the demo does so by itself
    #[arg(long)]
    no_client_documents: bool,
    /// A URL on this machine that receives notifications as signed webhooks
    #[arg(long, value_name = "URL")]
    notify: Option<String>,
}

/// The key of the demo's webhooks. It is no secret, like everything in the demo.
const NOTIFY_KEY: &str = "whsec_cG9ydGN1bGxpcyBkZW1vIHdlYmhvb2tz";

/// `client_approval` of the configuration.
#[derive(Clone, Copy, clap::ValueEnum)]
enum DemoApproval {
    #[value(name = "none")]
    Nobody,
    #[value(name = "first_use")]
    FirstUse,
}

impl DemoArguments {
    fn client_approval(&self) -> &'static str {
        match self.client_approval {
            Some(DemoApproval::FirstUse) => "first_use",
            None if self.populated => "first_use",
            Some(DemoApproval::Nobody) | None => "none",
        }
    }

    /// Returns the table of the receiver of notifications, if there is one.
    fn notify_table(&self) -> String {
        let table = |url: &String| {
            let url = toml::Value::String(url.clone());
            format!(
                "\n[[notify]]\nname = \"demo\"\nkind = \"webhook\"\nurl = {url}\nsecret = \"{NOTIFY_KEY}\"\nallow_private = true\n"
            )
        };
        self.notify.as_ref().map(table).unwrap_or_default()
    }
}

pub(super) fn run(arguments: &DemoArguments) -> ExitCode {
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

async fn demo(arguments: &DemoArguments) -> Result<(), String> {
    std::fs::create_dir_all(&arguments.data)
        .map_err(|cause| format!("{} cannot be made: {cause}", arguments.data.display()))?;
    let listener = bind(arguments.listen).await?;
    let listen = listener.local_addr().map_err(|cause| cause.to_string())?;
    let public_url = format!("http://{listen}");
    let idp = identity_provider(arguments, listen, &public_url).await?;
    let todo_listener = bind(SocketAddr::new(listen.ip(), 0)).await?;
    let todos = TodoServer::start(todo_listener, TodoServerOptions { clock: Clock::System })
        .map_err(|cause| cause.to_string())?;

    // Prefers the port after ours; any free port if it is taken.
    let usual = SocketAddr::new(listen.ip(), listen.port().checked_add(1).unwrap_or(0));
    let admin_listener = match bind(usual).await {
        Ok(listener) => listener,
        Err(_) => bind(SocketAddr::new(listen.ip(), 0)).await?,
    };
    let admin = admin_listener.local_addr().map_err(|cause| cause.to_string())?;
    let addresses = DemoAddresses { public_url: &public_url, listen, admin, data: &arguments.data };
    let approval = arguments.client_approval();
    let documents = !arguments.no_client_documents;
    let text = config_text(&addresses, idp.issuer(), &todos.url(), approval, documents);
    let mut loaded = load(&format!("{text}{}", arguments.notify_table()))?;
    loaded.config.client_documents.only_with_network = true;
    let digest = loaded.digest();
    let app = serve::open(loaded.config, Clock::System).await?;
    if arguments.populated {
        populated::populate(&app).await.map_err(|error| error.to_string())?;
        serve::install_log(); // only now: two thousand made-up lines would scroll the URLs away
    }
    serve::tell_start(&app, digest).await;
    announce(&addresses, idp.issuer(), documents);
    // In the background, because the check may take seconds without a network. Until it ends, clients
    // register themselves.
    let clients = app.clients().clone();
    tokio::spawn(async move { clients.look_for_network().await });
    server::serve(app, listener, Some(admin_listener), serve::shutdown()).await;
    idp.shutdown();
    todos.shutdown();
    Ok(())
}

/// Loads the configuration of the demo. Of the environment it uses only the proxies, which may be the only
/// path to documents that clients publish. If the proxies are invalid, it ignores them, because the demo also
/// runs without.
fn load(text: &str) -> Result<Loaded, String> {
    let proxy = |name: &str| {
        ["HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"].contains(&name.to_ascii_uppercase().as_str())
    };
    let named = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    let proxies: BTreeMap<String, String> = named.filter(|(name, _)| proxy(name)).collect();
    let read = |env: &BTreeMap<String, String>| {
        Config::load(Some((Path::new("demo"), text.to_owned())), env)
    };
    read(&proxies).or_else(|_| read(&BTreeMap::new())).map_err(|problems| problems.to_string())
}

async fn bind(address: SocketAddr) -> Result<TcpListener, String> {
    TcpListener::bind(address).await.map_err(|cause| {
        format!("cannot listen on {address}: {cause}; choose another with --listen")
    })
}

/// Starts the identity provider two ports after ours (the admin pages use the next one), so that its issuer
/// stays the same at the next start and nobody has to sign in again. Uses any free port if that one is taken.
async fn identity_provider(
    arguments: &DemoArguments,
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
        redirect_uris: vec![format!("{public_url}{}", paths::CALLBACK)],
        issuer: None,
        state_dir: Some(arguments.data.clone()),
    };
    IdentityProvider::start(listener, options).map_err(|cause| cause.to_string())
}

/// Addresses and folder of the demo.
struct DemoAddresses<'a> {
    public_url: &'a str,
    listen: SocketAddr,
    admin: SocketAddr,
    data: &'a Path,
}

fn config_text(
    addresses: &DemoAddresses<'_>,
    issuer: &str,
    target: &str,
    approval: &str,
    documents: bool,
) -> String {
    let DemoAddresses { public_url, listen, admin, data } = addresses;
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
scopes = {{ "read:todos" = "Read everybody's to-dos", "create:todos" = "Add to-dos", "delete:todos" = {{ text = "Delete everybody's to-dos", destructive = true }} }}

[[resource.rule]]
roles = ["Admin"]
allow = ["read:todos", "create:todos", "delete:todos"]

[[resource.rule]]
roles = ["User"]
allow = ["create:todos"]

[resource.tools]
"purge-todos" = ["delete:todos"]

[client_documents]
enabled       = {documents}
through_proxy = true

[admin]
listen = "{admin}"
roles  = ["Admin"]
"#,
        database = toml::Value::String(database),
    )
}

fn announce(addresses: &DemoAddresses<'_>, issuer: &str, documents: bool) {
    let registering = if documents {
        "Clients that publish a description of themselves (Claude Code, VS Code) are known by it as long as this
machine reaches the network; without one they register themselves, as with --no-client-documents."
    } else {
        "Clients register themselves: nothing that one publishes is fetched (--no-client-documents)."
    };
    let DemoAddresses { public_url, admin, .. } = addresses;
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

{registering}

Everything listens on this machine only. Ctrl-C stops it; nobody is logged out by that.

"
    );
    if let Err(cause) = output::print(&text) {
        tracing::warn!(%cause, "nobody reads how to use the demo");
    }
}
