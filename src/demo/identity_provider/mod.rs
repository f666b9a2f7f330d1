//! A small OpenID provider: discovery, login page, codes with PKCE, refresh tokens, userinfo, logout.
//!
//! The calendars of its people are a service of their own, with an OAuth client of their own: `calendar/`.
//!
//! It behaves correctly by default. [`Misbehaviour`] turns it into the broken or hostile provider that a test
//! needs.

mod calendar;
mod client_auth;
mod endpoints;
mod keys;
mod misbehaviour;
mod pages;
mod people;
mod session;
mod sign_in_request;
mod token;

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use axum::response::IntoResponse;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::net::TcpListener;

pub use self::calendar::CalendarClient;
use self::calendar::CalendarState;
use self::keys::DemoKeys;
pub use self::misbehaviour::{ChangeText, KeyUse, Misbehaviour};
use self::people::DemoPerson;
use super::http::{Gate, Recorded, Recording, Running, serve};
use crate::clock::Clock;

/// Most codes and tokens that are remembered for tests; the oldest are dropped first.
const MAX_ISSUED: usize = 50_000;

/// Start options of the provider.
#[derive(Clone, Debug)]
pub struct IdentityProviderOptions {
    /// Clock for its codes and tokens.
    pub clock: Clock,
    /// Id of its only client.
    pub client_id: String,
    pub client_secret: String,
    /// Redirect URIs of the client, compared exactly.
    pub redirect_uris: Vec<String>,
    /// The issuer; by default `http://` and the listener's address.
    pub issuer: Option<String>,
    /// URL of the pages that browsers open, where that is not the issuer.
    pub pages_url: Option<String>,
    /// Folder for keys, so that sessions survive a restart; by default keys stay in memory.
    pub state_dir: Option<PathBuf>,
    /// The client of the calendar; without one there is no calendar.
    pub calendar: Option<CalendarClient>,
}

#[derive(Clone)]
pub struct IdentityProvider {
    shared: Arc<IdpShared>,
    address: SocketAddr,
    running: Running,
}

struct IdpShared {
    options: IdentityProviderOptions,
    issuer: String,
    keys: DemoKeys,
    next_keys: OnceLock<DemoKeys>,
    gate: Gate,
    refresh_answers: Gate,
    state: Mutex<IdpState>,
}

#[derive(Default)]
struct IdpState {
    people: Vec<DemoPerson>,
    misbehaviour: Misbehaviour,
    recorded: Recording,
    codes: BTreeMap<String, token::Code>,
    /// The latest codes and tokens, at most [`MAX_ISSUED`].
    issued: VecDeque<String>,
    /// The refresh tokens of each session; `None` once the session has ended.
    generations: BTreeMap<String, Option<token::Generation>>,
    /// Replaces the client secret of the options.
    client_secret: Option<String>,
    calendar: CalendarState,
}

impl IdentityProvider {
    /// Serves on `listener`, which must be on loopback or on every address.
    pub fn start(listener: TcpListener, options: IdentityProviderOptions) -> io::Result<Self> {
        let address = listener.local_addr()?;
        let issuer = options.issuer.clone().unwrap_or_else(|| format!("http://{address}"));
        let keys = match &options.state_dir {
            Some(folder) => DemoKeys::kept_in(folder)?,
            None => DemoKeys::of_process()?,
        };
        let state = IdpState { people: people::everybody(), ..IdpState::default() };
        let state = Mutex::new(state);
        let (next_keys, gate, refresh_answers) =
            (OnceLock::new(), Gate::default(), Gate::default());
        let shared = IdpShared { options, issuer, keys, next_keys, gate, refresh_answers, state };
        let shared = Arc::new(shared);
        let handle = |shared: Arc<IdpShared>, request| async move {
            endpoints::handle(&shared, request).await
        };
        let running = serve(listener, Arc::clone(&shared), handle, IntoResponse::into_response)?;
        Ok(Self { shared, address, running })
    }

    /// Returns the address that it listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn issuer(&self) -> &str {
        &self.shared.issuer
    }

    /// Returns the URL of the pages that browsers open.
    pub fn pages_url(&self) -> &str {
        self.shared.pages_url()
    }

    /// Changes the switches for misbehaviour.
    pub fn misbehave(&self, change: impl FnOnce(&mut Misbehaviour)) {
        change(&mut self.shared.state.lock().misbehaviour);
    }

    /// Returns the gate that delays the token endpoint while it is closed.
    pub fn token_gate(&self) -> &Gate {
        &self.shared.gate
    }

    /// Returns the gate that delays responses to refreshes after the token was rotated.
    pub fn refresh_answers(&self) -> &Gate {
        &self.shared.refresh_answers
    }

    /// Returns all requests so far.
    pub fn recorded(&self) -> Vec<Recorded> {
        self.shared.state.lock().recorded.all()
    }

    /// Returns the number of requests to `path` so far.
    pub fn requests_to(&self, path: &str) -> usize {
        self.shared.state.lock().recorded.count_of(path)
    }

    /// Returns all codes and tokens issued so far.
    pub fn issued(&self) -> Vec<String> {
        self.shared.state.lock().issued.iter().cloned().collect()
    }

    /// Signs a JWT of type `typ` with exactly these claims, with RS256 or with `alg`. For messages that a
    /// provider sends on its own, such as logout tokens.
    pub fn sign(&self, typ: &str, claims: &Value, alg: Option<&str>) -> io::Result<String> {
        self.shared.keys.jwt(&json!({ "typ": typ }), claims, alg, &self.shared.client_secret())
    }

    pub fn set_client_secret(&self, secret: &str) {
        self.shared.state.lock().client_secret = Some(secret.to_owned());
    }

    /// Disables a person, so that sign-ins and refreshes fail.
    pub fn disable(&self, username: &str) {
        self.change(username, |person| person.disabled = true);
    }

    pub fn enable(&self, username: &str) {
        self.change(username, |person| person.disabled = false);
    }

    /// Sets the groups of a person.
    pub fn set_groups(&self, username: &str, groups: &[&str]) {
        let groups = groups.iter().map(|&group| group.to_owned()).collect();
        self.change(username, |person| person.groups = groups);
    }

    /// Sets the name of a person, without any check.
    pub fn set_name(&self, username: &str, name: &str) {
        self.change(username, |person| name.clone_into(&mut person.name));
    }

    /// Sets the roles of a person.
    pub fn set_roles(&self, username: &str, roles: &[&str]) {
        let roles = roles.iter().map(|&role| role.to_owned()).collect();
        self.change(username, |person| person.roles = roles);
    }

    fn change(&self, username: &str, change: impl FnOnce(&mut DemoPerson)) {
        let mut state = self.shared.state.lock();
        if let Some(person) = state.people.iter_mut().find(|person| person.username == username) {
            change(person);
        }
    }

    /// Stops serving and closes open connections.
    pub fn shutdown(&self) {
        self.running.stop();
    }
}

impl IdpShared {
    /// Returns the URL of the pages that browsers open.
    fn pages_url(&self) -> &str {
        self.options.pages_url.as_deref().unwrap_or(&self.issuer)
    }

    fn misbehaviour(&self) -> Misbehaviour {
        self.state.lock().misbehaviour.clone()
    }

    fn client_secret(&self) -> String {
        let changed = self.state.lock().client_secret.clone();
        changed.unwrap_or_else(|| self.options.client_secret.clone())
    }

    /// Returns the keys after a rotation.
    fn next_keys(&self) -> &DemoKeys {
        self.next_keys
            .get_or_init(|| DemoKeys::next_of_process().unwrap_or_else(|_| self.keys.clone()))
    }

    fn remember(&self, secret: &str) {
        let issued = &mut self.state.lock().issued;
        if issued.len() >= MAX_ISSUED {
            issued.pop_front();
        }
        issued.push_back(secret.to_owned());
    }

    fn person(&self, username: &str) -> Option<DemoPerson> {
        self.state.lock().people.iter().find(|person| person.username == username).cloned()
    }
}
