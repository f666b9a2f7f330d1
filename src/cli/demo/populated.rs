//! `portcullis demo --populated`: creates 50 clients, 200 people and two weeks of activity for the admin
//! pages. The data is the same each time, relative to the current time; only ids and secrets differ. All of
//! it is written through the storage methods that the server uses.

use aws_lc_rs::digest;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::json;

use super::connected::connect_calendars;
use super::refused::refuse;
use crate::app::App;
use crate::clock::{Clock, ManualClock, Timestamp};
use crate::oauth::authorization_request::AuthorizationRequest;
use crate::oauth::client::ClientMetadata;
use crate::oauth::client::website::Website;
use crate::oauth::grant::Redemption;
use crate::oauth::scope::ScopeSet;
use crate::oauth::secret::{AuthorizationCode, HeldLogin, RefreshToken, Secret, new_id};
use crate::policy::{Email, Fact, Facts};
use crate::storage::{
    CallCounts, CallOutcome, CalledName, ClientDecision, ClientKind, CodeExchange, GrantTerms,
    NewApprovalPattern, NewCode, NewLoginAwaitingApproval, Person, Redeemed, ReviewDecision,
    SessionUpdate, StorageError, StoredClient, UpstreamTokens, UsageKey,
};
use crate::telemetry::audit::{Actor, AuditEvent};

const PEOPLE: usize = 200;
const CLIENTS: usize = 50;
/// The last clients of the list wait for an administrator's approval.
const WAITING: usize = 4;
const DAY: i64 = 24 * 3600;
const DAYS: i64 = 14;
const ADMIN: &str = "oidc:demo-alice";
const VERIFIER: &str = "the-verifier-of-every-populated-demo-connection";

const FIRST_NAMES: &[&str] = &[
    "Aiko", "Amir", "Ana", "Ben", "Chidi", "Clara", "Daniel", "Elif", "Emma", "Farah", "Finn",
    "Grace", "Hana", "Igor", "Ines", "Jonas", "Kenji", "Leila", "Lucas", "Mei", "Nadia", "Noah",
    "Olga", "Pablo", "Priya",
];
const LAST_NAMES: &[&str] =
    &["Andersson", "Bauer", "Costa", "Dubois", "Garcia", "Ito", "Kowalska", "Okafor"];
/// Name and redirect URI.
const PROGRAMS: &[(&str, &str)] = &[
    ("Claude", "https://claude.ai/api/mcp/auth_callback"),
    ("ChatGPT", "https://chatgpt.com/connector_platform_oauth_redirect"),
    ("Claude Code", "http://localhost/callback"),
    ("Visual Studio Code", "http://127.0.0.1/"),
    ("Cursor", "cursor://anysphere.cursor-mcp/oauth/callback"),
    ("MCP Inspector", "http://localhost/oauth/callback"),
    ("Codex", "http://127.0.0.1/callback"),
    ("Reports", "https://reports.example.com/callback"),
    ("Nightly agent", "https://agents.example.com/callback"),
    ("Research desk", "https://research.example.com/oauth"),
];

/// A pseudo-random generator with a fixed seed, so that the data is the same each time.
struct Dice(u64);

impl Dice {
    fn below(&mut self, sides: usize) -> usize {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap_or(0) % sides.max(1)
    }

    /// Returns a time in the last two weeks, mostly on a working day.
    fn moment(&mut self, now: Timestamp) -> Timestamp {
        let midnight = now.unix() / DAY * DAY;
        let mut days = self.below(14);
        if (midnight / DAY + 3 - i64::try_from(days).unwrap_or(0)).rem_euclid(7) >= 5 {
            days = self.below(14); // a second try makes weekends quiet, not empty
        }
        let hour = 7 + self.below(6) + self.below(6);
        let second = hour * 3600 + self.below(3600);
        let since = i64::try_from(days).unwrap_or(0) * DAY - i64::try_from(second).unwrap_or(0);
        let at = midnight - since;
        Timestamp::from_unix(if at > now.unix() - 300 { at - DAY } else { at })
    }
}

struct Someone {
    subject: String,
    update: SessionUpdate,
    scopes: ScopeSet,
}

impl Someone {
    /// The person's name at the calendar.
    fn account(&self) -> String {
        let address = self.update.person.email.as_deref().unwrap_or_default();
        address.replace("@example.com", "@calendar.example.com")
    }
}

/// Fills the demo's database, unless that was done before.
pub(super) async fn populate(app: &App) -> Result<(), StorageError> {
    let people = everybody(app);
    if app.storage().person_row(&people[0].subject).await?.is_some() {
        return Ok(());
    }
    let now = app.now();
    let mut dice = Dice(2026);
    let mut clients = Vec::with_capacity(CLIENTS);
    for index in 0..CLIENTS {
        clients.push(client(app, index, now).await?);
    }
    let (used, waiting) = clients.split_at(CLIENTS - WAITING);
    // Each person uses one to three clients.
    let mut visits = Vec::new();
    for person in &people {
        for _ in 0..=dice.below(3) {
            // The minimum of two numbers makes the first clients of the list the most popular.
            let client = dice.below(CLIENTS - WAITING).min(dice.below(CLIENTS - WAITING));
            visits.push(SimulatedLogin { at: dice.moment(now), person, client: &used[client] });
        }
    }
    for (index, client) in used.iter().enumerate() {
        // Every client has at least one user.
        visits.push(SimulatedLogin { at: dice.moment(now), person: &people[index * 3], client });
    }
    visits.sort_by_key(|visit| visit.at);
    let mut events = Vec::new();
    for visit in &visits {
        events.extend(connect(app, visit, &mut dice, now).await?);
    }
    events.extend(refusals(app, &people, used, &mut dice, now));
    app.storage().record(events).await?;
    decisions(app, used, &people, now).await?;
    refuse(app, &used[0].id, now).await?;
    let calendars = people.iter().map(|person| (person.subject.clone(), person.account()));
    connect_calendars(app, calendars, now).await?;
    app.storage().add_usage(&calls(app, &visits, &mut dice, now)).await?;
    for (index, client) in waiting.iter().enumerate() {
        wait(app, client, &people[index * 7 + 1], now, index).await?;
    }
    while app.storage().settle_audit().await? > 0 {}
    Ok(())
}

/// Tools of the demo's MCP server; the last one needs a scope that users do not have.
const TOOLS: [&str; 5] = ["get-todos", "create-todo", "agenda", "delete-todo", "purge-todos"];

/// Returns the calls of these people: in some of the hours after each login, of tools that they may use, and
/// now and then of one that they may not.
fn calls(
    app: &App,
    visits: &[SimulatedLogin<'_>],
    dice: &mut Dice,
    now: Timestamp,
) -> Vec<(UsageKey, CallCounts)> {
    let resource = app.default_resource().map(|resource| resource.id.clone()).unwrap_or_default();
    let mut calls = Vec::new();
    for visit in visits {
        for _ in 0..2 + dice.below(12) {
            let tool = dice.below(TOOLS.len()).min(dice.below(TOOLS.len()));
            let later = i64::try_from(dice.below(30)).unwrap_or(0);
            let key = UsageKey {
                hour: (visit.at.unix() / 3600 + later).min(now.unix() / 3600),
                resource: resource.clone(),
                subject: visit.person.subject.clone(),
                client_id: visit.client.id.clone(),
                called: CalledName::Tool(TOOLS[tool].to_owned()),
            };
            let outcome = match dice.below(25) {
                _ if tool == TOOLS.len() - 1 => CallOutcome::ScopeRefused,
                0 => CallOutcome::ToolError,
                1 => CallOutcome::Failed,
                _ => CallOutcome::Answered,
            };
            let mut counts = CallCounts::default();
            counts.0[outcome as usize] = i64::try_from(1 + dice.below(9)).unwrap_or(1);
            calls.push((key, counts));
        }
    }
    calls
}

fn event(name: &'static str, actor: Actor, at: Timestamp) -> AuditEvent {
    AuditEvent::new(name, actor, &at_that_time(at))
}

fn at_that_time(at: Timestamp) -> Clock {
    Clock::Manual(ManualClock::at(at))
}

fn everybody(app: &App) -> Vec<Someone> {
    let issuer = &app.config().upstream.issuer;
    (0..PEOPLE)
        .map(|index| {
            let first = FIRST_NAMES[index % FIRST_NAMES.len()];
            let last = LAST_NAMES[index / FIRST_NAMES.len() % LAST_NAMES.len()];
            let upstream = format!("demo-{}-{}", first.to_lowercase(), last.to_lowercase());
            let email = format!("{}.{}@example.com", first.to_lowercase(), last.to_lowercase());
            let role = if index % 20 == 0 { "Admin" } else { "User" };
            let team = ["sales", "support", "engineering", "finance"][index % 4];
            let facts = Facts {
                subject: upstream.clone(),
                roles: Fact::Known(vec![role.to_owned()]),
                groups: Fact::Known(vec!["staff".to_owned(), team.to_owned()]),
                email: Some(Email { address: email.clone(), verified: true }),
                ..Facts::default()
            };
            let person =
                Person { name: Some(format!("{first} {last}")), email: Some(email), facts };
            let scopes = if role == "Admin" {
                "read:todos create:todos delete:todos"
            } else {
                "create:todos"
            };
            Someone {
                subject: app.subject(&upstream),
                scopes: ScopeSet::parse(scopes).unwrap_or_default(),
                update: SessionUpdate {
                    upstream: "oidc".to_owned(),
                    issuer: issuer.clone(),
                    subject: upstream,
                    claim_sub: None,
                    sid: None,
                    sign_outs_before: 0,
                    person,
                    tokens: UpstreamTokens::default(),
                },
            }
        })
        .collect()
}

struct Program {
    id: String,
    redirect_uri: String,
}

async fn client(app: &App, index: usize, now: Timestamp) -> Result<Program, StorageError> {
    let (name, redirect_uri) = PROGRAMS[index % PROGRAMS.len()];
    let round = index / PROGRAMS.len();
    let name = if round == 0 { name.to_owned() } else { format!("{name} {}", round + 1) };
    let count = i64::try_from(index).unwrap_or(0);
    // Unused clients are removed after a day, so those that wait for approval are from today.
    let age = if index >= CLIENTS - WAITING {
        3600 * (count % 10 + 1)
    } else {
        (DAYS + 1) * DAY - count * 60
    };
    let at = Timestamp::from_unix(now.unix() - age);
    let made_here = redirect_uri.contains("example.com") && index < CLIENTS - WAITING;
    let metadata = json!({
        "client_name": name,
        "redirect_uris": [redirect_uri],
        "token_endpoint_auth_method": "none",
        "grant_types": ["authorization_code", "refresh_token"],
        "response_types": ["code"],
    });
    let metadata = ClientMetadata::from_stored_json(&metadata.to_string())?;
    let id = format!("client_{}", new_id(&at_that_time(at)));
    let stored = StoredClient {
        id: id.clone(),
        identity: (!made_here).then(|| format!("{}-populated", metadata.identity())),
        secret_hash: None,
        management_hash: None,
        metadata: metadata.to_json(),
        kind: if made_here { ClientKind::Created } else { ClientKind::Registered },
        issued_at: at,
        network: None,
    };
    let (name, actor) = if made_here {
        ("client_created", Actor::Admin(ADMIN.to_owned()))
    } else {
        ("client_registered", Actor::Client)
    };
    let told = event(name, actor, at).client(&id).with("confidential", false);
    app.storage().register_client(&stored, u64::MAX, None, told).await?;
    Ok(Program { id, redirect_uri: redirect_uri.to_owned() })
}

fn request(app: &App, person: &Someone, client: &Program) -> AuthorizationRequest {
    let challenge = digest::digest(&digest::SHA256, VERIFIER.as_bytes());
    AuthorizationRequest {
        client_id: client.id.clone(),
        redirect_uri: client.redirect_uri.clone(),
        state: None,
        code_challenge: URL_SAFE_NO_PAD.encode(challenge),
        resource: app.default_resource().map(|resource| resource.id.clone()).unwrap_or_default(),
        scopes: person.scopes.clone(),
        unknown_scopes: String::new(),
        upstream: std::collections::BTreeSet::new(),
        account: None,
        trace: None,
    }
}

/// A person who connects a client at some time.
struct SimulatedLogin<'a> {
    at: Timestamp,
    person: &'a Someone,
    client: &'a Program,
}

fn terms(app: &App) -> GrantTerms {
    let tokens = &app.config().tokens;
    GrantTerms {
        absolute: tokens.refresh_absolute,
        idle: tokens.refresh_idle,
        attempts: 5,
        per_client: u32::MAX,
        per_person: u32::MAX,
        from: Some(std::net::Ipv4Addr::new(192, 0, 2, 17).into()),
    }
}

/// Simulates consent, sign-in, code and grant. Returns the audit events that no storage method records.
async fn connect(
    app: &App,
    visit: &SimulatedLogin<'_>,
    dice: &mut Dice,
    now: Timestamp,
) -> Result<Vec<AuditEvent>, StorageError> {
    let &SimulatedLogin { at, person, client } = visit;
    let later = |seconds: i64| Timestamp::from_unix(at.unix() + seconds);
    let request = request(app, person, client);
    let about =
        |name, actor, at| event(name, actor, at).client(&client.id).resource(&request.resource);
    let mut events = vec![
        about("consent_approved", Actor::Person, at).with("scopes", request.scopes.to_string()),
    ];
    let code = Secret::<AuthorizationCode>::generate(&new_id(&at_that_time(later(8))));
    let new = NewCode {
        code: &code,
        request: &request,
        scopes: &person.scopes,
        subject: &person.subject,
        expires_at: later(60),
    };
    let issued = about("code_issued", Actor::Person, later(8)).subject(&person.subject);
    let rule = if person.scopes.to_string().contains("delete") { "rule 1" } else { "rule 2" };
    let issued = issued.with("rules", rule).with("scopes", person.scopes.to_string());
    app.storage().finish_login(&person.update, &new, later(8), issued).await?;
    let refresh = Secret::<RefreshToken>::generate(&new_id(&at_that_time(later(9))));
    let attempt = Redemption {
        client_id: &client.id,
        redirect_uri: Some(&client.redirect_uri),
        code_verifier: Some(VERIFIER),
        resource: Some(&request.resource),
        policy: None,
    };
    let redeemed = event("code_redeemed", Actor::Client, later(9)).client(&client.id);
    let exchange =
        CodeExchange { code: &code, attempt, refresh_token: &refresh, terms: terms(app) };
    let redeemed = app.storage().redeem_code(&exchange, later(9), redeemed).await?;
    let Redeemed::First(grant) = redeemed else { return Ok(events) };
    for _ in 0..dice.below(4) {
        let hours = i64::try_from(dice.below(60) + 1).unwrap_or(1);
        let used = later(hours * 3600 + 17);
        if used < now {
            let told = about("refresh_rotated", Actor::Client, used).subject(&person.subject);
            events.push(told.grant(&grant.grant_id));
        }
    }
    if dice.below(12) == 0 && later(3 * 3600) < now {
        let ended = later(3 * 3600);
        let told = about("grant_revoked", Actor::Client, ended).subject(&person.subject);
        app.storage().revoke_grant(&grant.grant_id, "revoked by the client", ended, told).await?;
    }
    Ok(events)
}

/// Returns audit events of failures and refusals.
fn refusals(
    app: &App,
    people: &[Someone],
    clients: &[Program],
    dice: &mut Dice,
    now: Timestamp,
) -> Vec<AuditEvent> {
    let resource = app.default_resource().map(|resource| resource.id.as_str()).unwrap_or_default();
    let letters: Vec<char> = "0123456789ABCDEFGHJKMNPQRSTVWXYZ".chars().collect();
    (0..90)
        .map(|index| {
            let at = dice.moment(now);
            let client = &clients[dice.below(clients.len())].id;
            let subject = &people[dice.below(people.len())].subject;
            match index % 6 {
                0 => event("access_denied", Actor::Person, at)
                    .client(client)
                    .subject(subject)
                    .resource(resource),
                1 => event("login_refused_by_provider", Actor::Provider, at)
                    .client(client)
                    .with("error", "access_denied"),
                2 => event("tool_refused", Actor::Client, at)
                    .client(client)
                    .subject(subject)
                    .resource(resource)
                    .with("tool", "purge-todos")
                    .with("missing", "delete:todos"),
                3 => event("consent_denied", Actor::Person, at).client(client).resource(resource),
                _ => {
                    let mut half =
                        || (0..4).map(|_| letters[dice.below(letters.len())]).collect::<String>();
                    let reference = format!("{}-{}", half(), half());
                    event("page_shown", Actor::Person, at)
                        .reference(&reference)
                        .with("status", 400)
                        .with("reason", "unknown client")
                }
            }
        })
        .collect()
}

async fn decisions(
    app: &App,
    clients: &[Program],
    people: &[Someone],
    now: Timestamp,
) -> Result<(), StorageError> {
    let ago = |hours: i64| Timestamp::from_unix(now.unix() - hours * 3600);
    let decided = |name, at| event(name, Actor::Admin(ADMIN.to_owned()), at);
    let first_day = Timestamp::from_unix(now.unix() - DAYS * DAY - 3600);
    for (index, client) in clients.iter().enumerate() {
        let mut verdicts = vec![(ReviewDecision::Approve, first_day)];
        match index {
            0 | 1 | 7 | 8 => verdicts.push((ReviewDecision::Trust, ago(200))),
            25 | 36 | 45 => verdicts.push((ReviewDecision::Block, ago(20))),
            29 | 42 => verdicts = vec![(ReviewDecision::Refuse, ago(15))],
            _ => {}
        }
        for (verdict, at) in verdicts {
            let told = decided(verdict.event(), at);
            let decision = ClientDecision::new(&client.id, verdict, ADMIN);
            app.storage().decide_client(decision, at, told).await?;
        }
    }
    if let Ok(website) = Website::parse("claude.ai") {
        let new = NewApprovalPattern { website: &website, until: None, by: ADMIN };
        let told = decided("approval_pattern_added", ago(150));
        app.storage().add_approval_pattern(&new, ago(150), told).await?;
    }
    for (index, hours) in [(33, 30), (120, 6)] {
        let told = decided("person_blocked", ago(hours));
        app.storage().block_person(&people[index].subject, ADMIN, ago(hours), told).await?;
    }
    let told = decided("person_signed_out", ago(5));
    let reason = "signed out by an administrator";
    app.storage().sign_out_everywhere(&people[61].subject, reason, ago(5), told).await?;
    Ok(())
}

/// Simulates a person who waits for the administrator's approval of a client.
async fn wait(
    app: &App,
    client: &Program,
    person: &Someone,
    now: Timestamp,
    index: usize,
) -> Result<(), StorageError> {
    let minutes = i64::try_from(index * 11 + 3).unwrap_or(3);
    let at = Timestamp::from_unix(now.unix() - minutes * 60);
    let token = Secret::<HeldLogin>::generate(&new_id(&at_that_time(at)));
    let request = request(app, person, client);
    let told = event("login_held", Actor::Person, at).client(&client.id).subject(&person.subject);
    let known = app.clients().find(&client.id, None).await;
    let digest = known.ok().flatten().map(|client| client.metadata.digest()).unwrap_or_default();
    let held = NewLoginAwaitingApproval {
        token: &token,
        request: &request,
        session: &person.update,
        subject: &person.subject,
        client_digest: &digest,
        expires_at: Timestamp::from_unix(at.unix() + 3600),
    };
    app.storage().await_approval(&held, at, told).await
}
