//! `portcullis demo`: an identity provider, an MCP server, and Portcullis in front of it, on loopback. With
//! `--public-url` a tunnel may publish it.

mod announcement;
mod connected;
mod folder;
mod populated;
mod refused;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use tokio::net::TcpListener;

use self::announcement::announce;
use self::folder::DemoFolder;
use super::{fail, reached_at, run_to_the_end, serve};
use crate::clock::Clock;
use crate::config::{PublicUrl, paths};
use crate::demo::{
    CalendarClient, IdentityProvider, IdentityProviderOptions, PAGES_PATH, TodoServer,
    TodoServerOptions, TunnelFront,
};
use crate::server::{self, Listeners};

/// Client id of Portcullis at the demo identity provider.
const CLIENT_ID: &str = "portcullis";
const CLIENT_SECRET: &str = "demo-only";
/// Name of the connection to the calendar.
const CALENDAR: &str = "calendar";
/// Client id of Portcullis at the calendar; the secret is the same.
const CALENDAR_CLIENT_ID: &str = "portcullis-calendar";

#[derive(clap::Args)]
pub(super) struct DemoArguments {
    /// Where the demo listens: loopback, or 0.0.0.0 in a container, whose ports only this machine should reach
    #[arg(
        long,
        env = "PORTCULLIS_DEMO_LISTEN",
        default_value = "127.0.0.1:8000",
        value_name = "ADDRESS"
    )]
    listen: SocketAddr,
    /// The https:// URL of a tunnel to the address of --listen, so that Claude on the web can connect.
    /// Anyone who knows the URL can then use the demo; the admin pages stay on this machine
    #[arg(long, value_name = "URL")]
    public_url: Option<String>,
    /// Where the demo keeps its configuration, database and keys between runs
    #[arg(long, default_value = "portcullis-demo", value_name = "FOLDER")]
    data: PathBuf,
    /// Fill it with 50 clients, 200 people and two weeks of activity, once
    #[arg(long)]
    populated: bool,
    /// Whether an administrator approves each new client: none, or first_use (the default with --populated)
    #[arg(long, value_name = "POLICY")]
    client_approval: Option<DemoApproval>,
    /// Let clients register themselves, and fetch no metadata documents. Without a network this is automatic
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
    pub(super) fn notify_table(&self) -> String {
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
    if !reached_at(arguments.listen).ip().is_loopback() {
        return fail(
            &"the demo listens on loopback (--listen 127.0.0.1:8000), or in a container on 0.0.0.0",
        );
    }
    let tunnel = match arguments.public_url.as_deref().map(tunnel_url).transpose() {
        Ok(tunnel) => tunnel,
        Err(problem) => return fail(&problem),
    };
    if !arguments.populated {
        install_log();
    }
    match run_to_the_end(demo(arguments, tunnel.as_ref())) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => fail(&message),
    }
}

/// Logs warnings only, unless `PORTCULLIS_LOG` says otherwise: the printed addresses stay in view.
fn install_log() {
    serve::install_log_at("warn");
}

/// Reads `--public-url`.
fn tunnel_url(text: &str) -> Result<PublicUrl, String> {
    let url = PublicUrl::parse_origin(text.trim_end_matches('/'))
        .map_err(|(reason, hint)| format!("--public-url {text:?} {reason}; {hint}"))?;
    if url.is_https() {
        return Ok(url);
    }
    Err(format!("--public-url {text:?} is not https; write the URL that the tunnel printed"))
}

struct DemoAddresses {
    /// What clients and browsers use.
    public_url: String,
    /// Where the demo is reached on this machine.
    front: SocketAddr,
    /// Where Portcullis listens: the same, or behind the front of a tunnel.
    listen: SocketAddr,
    /// Where the admin pages listen.
    admin: SocketAddr,
    issuer: String,
    /// URL of the provider's pages.
    pages_url: String,
    /// URL of the MCP server.
    target: String,
    is_tunnelled: bool,
    /// Whether it listens on every address, as it must in a container.
    is_open: bool,
}

async fn demo(arguments: &DemoArguments, tunnel: Option<&PublicUrl>) -> Result<(), String> {
    let folder = DemoFolder::at(&arguments.data)?;
    let at_front = bind(arguments.listen).await?;
    let front = reached_at(local(&at_front)?);
    // Behind a tunnel only the front is for others.
    let is_open = !arguments.listen.ip().is_loopback();
    let inner = match tunnel {
        Some(_) => front,
        None => SocketAddr::new(arguments.listen.ip(), front.port()),
    };
    let public_url =
        tunnel.map_or_else(|| format!("http://{front}"), |url| url.as_str().to_owned());
    let idp = identity_provider(arguments, inner, &public_url, tunnel.is_some()).await?;
    let todo_listener = bind(SocketAddr::new(front.ip(), 0)).await?;
    let calendar = Some(reached_at(idp.address()));
    let todos =
        TodoServer::start(todo_listener, TodoServerOptions { clock: Clock::System, calendar })
            .map_err(|cause| cause.to_string())?;
    let admin_listener = bind_after(inner, 1).await?;
    let admin = local(&admin_listener)?;
    let (listener, tunnel_front) = if tunnel.is_some() {
        let listener = bind(SocketAddr::new(front.ip(), 0)).await?;
        let passing = TunnelFront::start(at_front, local(&listener)?, idp.address());
        (listener, Some(passing.map_err(|cause| cause.to_string())?))
    } else {
        (at_front, None)
    };
    let addresses = DemoAddresses {
        front,
        listen: local(&listener)?,
        admin,
        issuer: idp.issuer().to_owned(),
        pages_url: idp.pages_url().to_owned(),
        target: todos.url(),
        is_tunnelled: tunnel.is_some(),
        is_open,
        public_url,
    };
    let mut loaded = folder.write_configuration(arguments, &addresses)?;
    // Strangers must not read whether there is a network. Behind a tunnel there is one.
    loaded.config.client_documents.only_with_network = tunnel.is_none() && !is_open;
    let digest = loaded.digest();
    let app = serve::open(loaded.config, Clock::System).await?;
    if arguments.populated {
        populated::populate(&app).await.map_err(|error| error.to_string())?;
        install_log(); // only now: two thousand made-up lines would scroll the URLs away
    }
    serve::tell_start(&app, digest).await;
    announce(&addresses, &folder, !arguments.no_client_documents);
    // In the background, because the check may take seconds without a network. Until it ends, clients
    // register themselves.
    let clients = app.clients().clone();
    tokio::spawn(async move { clients.look_for_network().await });
    let listeners = Listeners { admin: Some(admin_listener), ..listener.into() };
    server::serve(app, listeners, serve::shutdown()).await;
    if let Some(front) = tunnel_front {
        front.shutdown();
    }
    idp.shutdown();
    todos.shutdown();
    Ok(())
}

fn local(listener: &TcpListener) -> Result<SocketAddr, String> {
    listener.local_addr().map_err(|cause| cause.to_string())
}

async fn bind(address: SocketAddr) -> Result<TcpListener, String> {
    TcpListener::bind(address).await.map_err(|cause| {
        format!("cannot listen on {address}: {cause}; choose another with --listen")
    })
}

/// Binds the port that is `offset` after ours, so that it stays the same at the next start. Uses any free port
/// if that one is taken.
async fn bind_after(ours: SocketAddr, offset: u16) -> Result<TcpListener, String> {
    let usual = SocketAddr::new(ours.ip(), ours.port().checked_add(offset).unwrap_or(0));
    match bind(usual).await {
        Ok(listener) => Ok(listener),
        Err(_) => bind(SocketAddr::new(ours.ip(), 0)).await,
    }
}

/// Starts the identity provider two ports after ours: the admin pages use the next one. Its issuer stays the
/// same, so nobody has to sign in again. Behind a tunnel, its pages are below a path of the tunnel's URL.
async fn identity_provider(
    arguments: &DemoArguments,
    ours: SocketAddr,
    public_url: &str,
    is_tunnelled: bool,
) -> Result<IdentityProvider, String> {
    let listener = bind_after(ours, 2).await?;
    let reached = reached_at(local(&listener)?);
    let calendar = CalendarClient {
        id: CALENDAR_CLIENT_ID.to_owned(),
        secret: CLIENT_SECRET.to_owned(),
        redirect_uris: vec![format!("{public_url}{}", paths::connect_callback(CALENDAR))],
    };
    let options = IdentityProviderOptions {
        clock: Clock::System,
        client_id: CLIENT_ID.to_owned(),
        client_secret: CLIENT_SECRET.to_owned(),
        redirect_uris: vec![format!("{public_url}{}", paths::CALLBACK)],
        issuer: Some(format!("http://{reached}")),
        pages_url: is_tunnelled.then(|| format!("{public_url}{PAGES_PATH}")),
        state_dir: Some(arguments.data.clone()),
        calendar: Some(calendar),
    };
    IdentityProvider::start(listener, options).map_err(|cause| cause.to_string())
}
