//! `check --login`: a real sign-in, the received claims, the decisions of the rules, and one refresh.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::RawQuery;
use axum::response::Html;
use axum::routing::get;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::{Finding, Severity, finding};
use crate::app::App;
use crate::config::{Protocol, paths};
use crate::policy::NOT_KNOWN;
use crate::storage::SessionUpdate;
use crate::telemetry;
use crate::upstream::test_login::TrialSession;

/// Signs in with the browser of the administrator, and adds findings.
pub(super) async fn run(
    app: &App,
    listen: SocketAddr,
    findings: &mut Vec<Finding>,
) -> Result<(), String> {
    let trial = app.upstream().trial_login().await.map_err(|error| error.to_string())?;
    let listener = TcpListener::bind(listen).await.map_err(|cause| {
        format!("cannot listen on {listen} ({cause}); stop the server for the time of this check")
    })?;
    let (send, mut receive) = mpsc::channel::<String>(1);
    let send = Arc::new(send);
    let callback = format!("{}{}", app.config().public_url.base_path(), paths::CALLBACK);
    let router = Router::new().route(
        &callback,
        get(move |RawQuery(query): RawQuery| {
            let send = Arc::clone(&send);
            async move {
                let _ = send.send(query.unwrap_or_default()).await;
                Html("<!doctype html><title>Portcullis</title><p>Back to the terminal.</p>")
            }
        }),
    );
    let tls = app.certificates().server_config(false).map(TlsAcceptor::from);
    let server = tokio::spawn(async move {
        match tls {
            Some(tls) => axum::serve(SecuredListener { listener, tls }, router).await,
            None => axum::serve(listener, router).await,
        }
    });
    say(&format!("Open this in a browser and sign in:\n\n  {}\n", trial.url()));
    let query = receive.recv().await.unwrap_or_default();
    server.abort();
    let trial = app
        .upstream()
        .finish_trial(&trial, &query)
        .await
        .map_err(|failed| format!("sign-in failed: {failed}"))?;
    describe(app, &trial.session, findings);
    findings.extend(trial.trouble.clone().map(|trouble| {
        let found = format!("{trouble}; what it would tell is not known");
        finding("login", Severity::Warning, found)
    }));
    tolerated("login", &trial.tolerated, findings);
    refresh(app, &trial, findings).await;
    Ok(())
}

/// A listener with the certificate of `[tls]`, for one person's browser.
struct SecuredListener {
    listener: TcpListener,
    tls: TlsAcceptor,
}

/// Longest handshake: 5 s. Browsers open connections that they may never use, and one waits for another here.
const LONGEST_HANDSHAKE: Duration = Duration::from_secs(5);

impl axum::serve::Listener for SecuredListener {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            let (stream, peer) = axum::serve::Listener::accept(&mut self.listener).await;
            let shaken = tokio::time::timeout(LONGEST_HANDSHAKE, self.tls.accept(stream)).await;
            if let Ok(Ok(stream)) = shaken {
                return (stream, peer);
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}

/// Adds a warning for each deviation of the token response that the server tolerates.
fn tolerated(probe: &'static str, details: &[String], findings: &mut Vec<Finding>) {
    findings.extend(details.iter().map(|detail| {
        let found = format!("the token answer: {detail}; the server tolerates it");
        finding(probe, Severity::Warning, found)
    }));
}

fn say(text: &str) {
    telemetry::say(&format!("{text}\n"));
}

fn describe(app: &App, session: &SessionUpdate, findings: &mut Vec<Finding>) {
    let facts = &session.person.facts;
    findings.push(finding("login", Severity::Ok, format!("signed in as {}", session.subject)));
    for (what, fact) in
        [("groups", &facts.groups), ("roles", &facts.roles), ("permissions", &facts.permissions)]
    {
        findings.push(finding("login", Severity::Ok, format!("{what}: {fact}")));
    }
    let email = format!("e-mail: {}", facts.shown_email());
    findings.push(finding("login", Severity::Ok, email));
    for (path, value) in &facts.claims {
        findings.push(finding("login", Severity::Ok, format!("{path}: {value}")));
    }
    for path in &facts.unknown_claims {
        findings.push(finding("login", Severity::Ok, format!("{path}: {NOT_KNOWN}")));
    }
    for resource in &app.config().resources {
        let decision = resource.policy.decide(facts, "", &resource.policy.declared);
        let severity = if decision.granted.is_empty() { Severity::Warning } else { Severity::Ok };
        let found = format!(
            "{}: matched {}; may {}; may not {}",
            resource.id,
            if decision.matched.is_empty() {
                "no rule".to_owned()
            } else {
                decision.matched.join(", ")
            },
            or_nothing(&decision.granted.to_string()),
            or_nothing(&decision.missing.to_string()),
        );
        findings.push(finding("rules", severity, found));
    }
}

fn or_nothing(text: &str) -> &str {
    if text.is_empty() { "nothing" } else { text }
}

async fn refresh(app: &App, trial: &TrialSession, findings: &mut Vec<Finding>) {
    let Some(before) = trial.session.tokens.refresh_token.as_deref() else {
        if app.config().upstream.preset.protocol == Protocol::GitHub {
            let found = "GitHub is asked again with the access token".to_owned();
            findings.push(finding("refresh", Severity::Ok, found));
            return;
        }
        let console = app.config().upstream.preset.console;
        findings.push(Finding {
            probe: "refresh",
            severity: Severity::Warning,
            found: "no refresh token came: people sign in again every max_without_refresh"
                .to_owned(),
            hint: Some(console.refresh.to_owned()),
        });
        return;
    };
    match app.upstream().trial_refresh(trial).await {
        Ok(after) => {
            let rotation = match after.tokens.refresh_token.as_deref() {
                Some(token) if token != before => "a new refresh token came (rotation)",
                _ => "the refresh token stays the same",
            };
            let id_token = if after.has_id_token { "with" } else { "without" };
            let found = format!("refreshed; {rotation}; {id_token} an ID token");
            findings.push(finding("refresh", Severity::Ok, found));
            tolerated("refresh", &after.tolerated, findings);
        }
        Err(reason) => {
            let found = format!("refresh failed: {reason}");
            findings.push(finding("refresh", Severity::Failed, found));
        }
    }
}
