//! `portcullis ready`: asks a running server whether it can serve, for the health check of a container that has no
//! shell.

use std::net::IpAddr;
use std::process::ExitCode;
use std::time::Duration;

use axum::http::{Request, header};
use serde_json::Value;
use url::Url;

use super::{ConfigFile, config, fail, output, reached_at, runtime};
use crate::config::{ListenerAddress, Proxies, paths};
use crate::http_client::{HttpClient, send_to};

/// Longest wait for the answer: 5 s. Orchestrators ask every few seconds.
const TIMEOUT: Duration = Duration::from_secs(5);

#[derive(clap::Args)]
pub(super) struct ReadyArguments {
    #[command(flatten)]
    file: ConfigFile,
    /// Ask this server instead of the configured listener on this machine; no configuration is read
    #[arg(long, value_name = "URL")]
    url: Option<String>,
}

/// What to ask.
struct ReadyCheck {
    url: Url,
    /// The address to connect to, where the host of the URL does not name it.
    at: Option<IpAddr>,
}

pub(super) fn run(arguments: &ReadyArguments) -> ExitCode {
    let check = match &arguments.url {
        Some(url) => named(url),
        None => configured(&arguments.file),
    };
    let answered = check.and_then(|check| {
        let runtime = runtime().map_err(|cause| cause.to_string())?;
        runtime.block_on(ask(&check))
    });
    match answered {
        Ok(status) if output::is_quiet() || status.is_empty() => ExitCode::SUCCESS,
        Ok(status) => match output::print(&format!("{status}\n")) {
            Ok(()) => ExitCode::SUCCESS,
            Err(cause) => fail(&cause),
        },
        Err(reason) => fail(&reason),
    }
}

/// Reads `--url`. The path of the health check is added where it is missing.
fn named(text: &str) -> Result<ReadyCheck, String> {
    let url = Url::parse(text)
        .ok()
        .filter(|url| matches!(url.scheme(), "http" | "https") && url.host().is_some());
    let mut url = url.ok_or_else(|| {
        format!("--url {text:?} is not a URL; write one such as https://mcp.example.com")
    })?;
    url.set_query(None);
    url.set_fragment(None);
    let path = url.path().trim_end_matches('/').to_owned();
    let path = if path.ends_with(paths::READY) { path } else { path + paths::READY };
    url.set_path(&path);
    Ok(ReadyCheck { url, at: None })
}

/// Finds the configured listener. Nothing else in the configuration has to be right, and no secret is read.
fn configured(file: &ConfigFile) -> Result<ReadyCheck, String> {
    let path = config::path(file);
    let ListenerAddress { listen, tls_host } =
        config::listener(path.as_deref()).map_err(|problems| problems.to_string())?;
    let reached = reached_at(listen);
    let text = match &tls_host {
        Some(host) => format!("https://{host}:{}{}", listen.port(), paths::READY),
        None => format!("http://{reached}{}", paths::READY),
    };
    let url = Url::parse(&text).map_err(|cause| format!("{text}: {cause}"))?;
    Ok(ReadyCheck { url, at: Some(reached.ip()) })
}

/// Returns what the server says of itself if it can serve; otherwise why it cannot.
async fn ask(check: &ReadyCheck) -> Result<String, String> {
    let url = check.url.as_str();
    let request = Request::builder()
        .uri(url)
        .header(header::USER_AGENT, concat!("portcullis-ready/", env!("CARGO_PKG_VERSION")))
        .body(Vec::new())
        .map_err(|cause| format!("{url}: {cause}"))?;
    let answer = if let Some(address) = check.at {
        send_to(address, request, TIMEOUT).await
    } else {
        HttpClient::new(TIMEOUT, &Proxies::default()).allowing_http(true).send(request).await
    };
    let answer = answer.map_err(|cause| format!("{url}: {cause}"))?;
    let (code, body) = (answer.status(), answer.body());
    let body: Option<Value> = serde_json::from_slice(body).ok();
    let said = body.as_ref().and_then(|body| body.get("status")?.as_str()).map(output::plain);
    match (code.as_u16(), said) {
        (200, Some(status)) => Ok(status),
        (503, Some(status)) => Err(format!("{url}: {status}{}", reasons(body.as_ref()))),
        (code, _) => Err(format!(
            "{url}: something answered {code}, and it is not Portcullis' {}",
            paths::READY
        )),
    }
}

/// Returns what the answer says of database and clock, which decide whether a server can serve.
fn reasons(body: Option<&Value>) -> String {
    let said = |name: &str| {
        let text = body?.get(name)?.as_str()?;
        Some(format!("; {name}: {}", output::plain(text)))
    };
    ["database", "clock"].into_iter().filter_map(said).collect()
}
