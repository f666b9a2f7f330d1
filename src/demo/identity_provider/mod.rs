//! A small OpenID provider: discovery, login page, codes with PKCE, refresh tokens, userinfo, logout.
//!
//! It behaves well unless told otherwise: [`Misbehaviour`] makes it the broken or hostile provider
//! that a test needs.

mod endpoints;
mod keys;
mod misbehaviour;
mod people;
mod token;

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use axum::response::IntoResponse;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use self::keys::Keys;
pub use self::misbehaviour::{ChangeText, KeyUse, Misbehaviour};
use self::people::Person;
use super::http::{Gate, Recorded, Running, serve};
use crate::clock::Clock;

/// What a provider is started with.
#[derive(Clone, Debug)]
pub struct IdentityProviderOptions {
    /// The clock of its codes and tokens.
    pub clock: Clock,
    /// The only client.
    pub client_id: String,
    /// Its secret.
    pub client_secret: String,
    /// Where it may send people back to; exact.
    pub redirect_uris: Vec<String>,
    /// Its issuer; `http://` and the listener's address when left out.
    pub issuer: Option<String>,
    /// Where keys are kept, so that sessions survive a restart; in memory when left out.
    pub state_dir: Option<PathBuf>,
}

/// A running provider.
#[derive(Clone)]
pub struct IdentityProvider {
    shared: Arc<Shared>,
    running: Running,
}

struct Shared {
    options: IdentityProviderOptions,
    issuer: String,
    keys: Keys,
    next_keys: OnceLock<Keys>,
    gate: Gate,
    refresh_answers: Gate,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    people: Vec<Person>,
    misbehaviour: Misbehaviour,
    recorded: Vec<Recorded>,
    codes: BTreeMap<String, token::Code>,
    issued: Vec<String>,
    /// The refresh tokens of each session; `None` when the session is dead.
    generations: BTreeMap<String, Option<token::Generation>>,
    /// In place of the secret it was started with.
    client_secret: Option<String>,
}

impl IdentityProvider {
    /// Serves on `listener`, which must be on loopback.
    pub fn start(listener: TcpListener, options: IdentityProviderOptions) -> io::Result<Self> {
        let address = listener.local_addr()?;
        let issuer = options.issuer.clone().unwrap_or_else(|| format!("http://{address}"));
        let keys = match &options.state_dir {
            Some(folder) => Keys::kept_in(folder)?,
            None => Keys::of_process()?,
        };
        let state = State { people: people::everybody(), ..State::default() };
        let state = Mutex::new(state);
        let (next_keys, gate, refresh_answers) =
            (OnceLock::new(), Gate::default(), Gate::default());
        let shared = Shared { options, issuer, keys, next_keys, gate, refresh_answers, state };
        let shared = Arc::new(shared);
        let handle =
            |shared: Arc<Shared>, request| async move { endpoints::handle(&shared, request).await };
        let running = serve(listener, Arc::clone(&shared), handle, IntoResponse::into_response)?;
        Ok(Self { shared, running })
    }

    /// Its issuer.
    pub fn issuer(&self) -> &str {
        &self.shared.issuer
    }

    /// Changes how it behaves.
    pub fn misbehave(&self, change: impl FnOnce(&mut Misbehaviour)) {
        change(&mut self.shared.state.lock().misbehaviour);
    }

    /// Holds back answers of the token endpoint while closed.
    pub fn token_gate(&self) -> &Gate {
        &self.shared.gate
    }

    /// Holds back answers to refreshes while closed, after the token was rotated.
    pub fn refresh_answers(&self) -> &Gate {
        &self.shared.refresh_answers
    }

    /// Every request so far.
    pub fn recorded(&self) -> Vec<Recorded> {
        self.shared.state.lock().recorded.clone()
    }

    /// How many requests were sent to `path` so far.
    pub fn requests_to(&self, path: &str) -> usize {
        self.shared.state.lock().recorded.iter().filter(|request| request.path == path).count()
    }

    /// Every code and token handed out so far.
    pub fn issued(&self) -> Vec<String> {
        self.shared.state.lock().issued.clone()
    }

    /// A JWT of type `typ` with exactly these claims, signed with its key, or as `alg` says: for the
    /// messages that a provider sends by itself.
    pub fn sign(&self, typ: &str, claims: &Value, alg: Option<&str>) -> io::Result<String> {
        self.shared.keys.jwt(&json!({ "typ": typ }), claims, alg, &self.shared.client_secret())
    }

    /// Gives the client another secret.
    pub fn set_client_secret(&self, secret: &str) {
        self.shared.state.lock().client_secret = Some(secret.to_owned());
    }

    /// Refuses a person from now on.
    pub fn disable(&self, username: &str) {
        self.change(username, |person| person.disabled = true);
    }

    /// Lets a person in again.
    pub fn enable(&self, username: &str) {
        self.change(username, |person| person.disabled = false);
    }

    /// Puts a person into other groups.
    pub fn set_groups(&self, username: &str, groups: &[&str]) {
        let groups = groups.iter().map(|&group| group.to_owned()).collect();
        self.change(username, |person| person.groups = groups);
    }

    /// Gives a person another name, whatever it is.
    pub fn set_name(&self, username: &str, name: &str) {
        self.change(username, |person| name.clone_into(&mut person.name));
    }

    /// Gives a person other roles.
    pub fn set_roles(&self, username: &str, roles: &[&str]) {
        let roles = roles.iter().map(|&role| role.to_owned()).collect();
        self.change(username, |person| person.roles = roles);
    }

    fn change(&self, username: &str, change: impl FnOnce(&mut Person)) {
        let mut state = self.shared.state.lock();
        if let Some(person) = state.people.iter_mut().find(|person| person.username == username) {
            change(person);
        }
    }

    /// Stops serving; open connections end.
    pub fn shutdown(&self) {
        self.running.stop();
    }
}

impl Shared {
    fn misbehaviour(&self) -> Misbehaviour {
        self.state.lock().misbehaviour.clone()
    }

    fn client_secret(&self) -> String {
        let changed = self.state.lock().client_secret.clone();
        changed.unwrap_or_else(|| self.options.client_secret.clone())
    }

    /// The keys after a rotation.
    fn next_keys(&self) -> &Keys {
        self.next_keys.get_or_init(|| Keys::next_of_process().unwrap_or_else(|_| self.keys.clone()))
    }

    fn remember(&self, secret: &str) {
        self.state.lock().issued.push(secret.to_owned());
    }

    fn person(&self, username: &str) -> Option<Person> {
        self.state.lock().people.iter().find(|person| person.username == username).cloned()
    }
}
