//! `/servers`: the configured MCP servers, with their rules in words and the lines where they are configured,
//! the recent refusals, a form that shows what a person may do on a server with a given client, and drafts of
//! rules (`draft.rs`).

mod attempt;
mod draft;
mod draft_form;
mod refusals;
mod rule_text;
mod words;

use askama::Template;
use axum::response::Response;

use super::configured::ConfiguredServer;
use super::links::query;
use super::rule_view::{ReportWords, RuleView};
use super::target_line::TargetLine;
use super::visit::AdminPage;
use crate::config::{ResourceConfig, Transport};
use crate::oauth::scope::Scope;
use crate::policy::OnExcess;
use crate::web::list_page::Frame;
use crate::web::page_error::PageError;
use attempt::{AttemptForm, Trial, TrialResult};
use refusals::{RecentRefusal, RecentRefusals};
use rule_text::{RuleText, draft_path};
use words::ServerWords;

pub(super) use draft::get as draft;

/// An MCP server, prepared for display.
struct ServerView<'a> {
    name: &'a str,
    resource: &'a ResourceConfig,
    /// File and line.
    place: Option<String>,
    rules: Vec<RuleText>,
    refusals: Vec<RecentRefusal>,
    draft_path: String,
    refused_path: String,
    /// None if it is not behind the gateway.
    targets: Vec<TargetLine>,
}

impl ServerView<'_> {
    /// Returns the scopes that `scope` implies, separated by commas.
    fn implied(&self, scope: &Scope) -> String {
        let implied = self.resource.policy.hierarchy.implied_by(scope);
        implied.map(Scope::as_str).collect::<Vec<_>>().join(", ")
    }

    fn speaks_sse(&self) -> bool {
        self.resource.transport == Transport::HttpSse
    }

    fn narrows(&self) -> bool {
        self.resource.policy.on_excess == OnExcess::Narrow
    }
}

#[derive(Template)]
#[template(path = "admin/servers.html")]
struct ServersTemplate<'a> {
    frame: &'a Frame,
    w: &'static ServerWords,
    rw: &'static ReportWords,
    read_only: String,
    servers: Vec<ServerView<'a>>,
    attempt: AttemptForm<'a>,
    answer: Option<TrialResult>,
    /// The rules, compared with the person of the form.
    reports: Vec<RuleView>,
}

pub(super) async fn get(visit: AdminPage) -> Result<Response, PageError> {
    let frame = visit.frame("/servers").await?;
    let (language, app) = (frame.language, visit.app());
    let w = ServerWords::of(language);
    let source = app.config_source();
    let mut refusals = RecentRefusals::load(app, w).await?;
    let mut servers = Vec::new();
    for server in ConfiguredServer::all(app.config(), &source) {
        let id = server.resource.id.as_str();
        servers.push(ServerView {
            name: server.name(),
            resource: server.resource,
            place: server.place(),
            rules: RuleText::all(&server, language),
            refusals: refusals.of(id).await?,
            draft_path: draft_path(id, None),
            targets: TargetLine::all(app, server.resource, language),
            refused_path: query("/refused").append_pair("server", id).finish(),
        });
    }
    let asked = visit.param("server");
    let attempt = AttemptForm {
        servers: ConfiguredServer::all(app.config(), &source)
            .map(|one| (one.resource.id.as_str(), one.name(), one.resource.id == asked))
            .collect(),
        person: visit.param("sub").trim(),
        client: visit.param("client").trim(),
        requested: visit.param("scopes").trim(),
    };
    let mut all = ConfiguredServer::all(app.config(), &source);
    let tried = all.find(|one| asked.is_empty() || one.resource.id == asked);
    let mut answer = match Trial::of(&visit, tried, &attempt, language) {
        Some(trial) => Some(trial.result().await?),
        None => None,
    };
    let reports = answer.as_mut().map(|answer| std::mem::take(&mut answer.reports));
    let template = ServersTemplate {
        reports: reports.unwrap_or_default(),
        read_only: match source.file() {
            Some(file) => w.read_only.replace("{0}", file),
            None => w.read_only_env.to_owned(),
        },
        rw: ReportWords::of(language),
        frame: &frame,
        w,
        servers,
        attempt,
        answer,
    };
    Ok(frame.answer(template.render()))
}
