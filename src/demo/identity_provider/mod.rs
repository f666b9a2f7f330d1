//! A small OpenID provider: discovery, login page, codes with PKCE, refresh tokens, userinfo, logout.
//!
//! It behaves well unless told otherwise: [`Misbehaviour`] makes it the broken or hostile provider
//! that a test needs.

mod endpoints;
mod keys;
mod people;
mod token;

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use serde_json::{Map, Value};
use tokio::net::TcpListener;

use self::keys::Keys;
use self::people::Person;
use super::http::{Gate, Recorded, Running, lock, serve};
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

/// Ways to behave badly; the default is to behave well.
#[derive(Clone, Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is one switch of a test")]
pub struct Misbehaviour {
    /// ID tokens carry another nonce.
    pub wrong_nonce: bool,
    /// ID tokens carry no nonce.
    pub no_nonce: bool,
    /// `iss` of ID tokens.
    pub id_token_issuer: Option<String>,
    /// `aud` of ID tokens.
    pub id_token_audience: Option<Value>,
    /// `alg` of ID tokens: `none`, or `HS256` with the client secret.
    pub algorithm: Option<String>,
    /// ID tokens have expired an hour ago.
    pub expired_id_token: bool,
    /// A refresh answers with somebody else's ID token.
    pub other_subject_on_refresh: bool,
    /// No refresh token is issued.
    pub no_refresh_token: bool,
    /// A refresh answers without an ID token.
    pub no_id_token_on_refresh: bool,
    /// Refresh tokens are single use; a second use kills the session.
    pub strict_rotation: bool,
    /// `/token` answers this status and body.
    pub token_answer: Option<(u16, String)>,
    /// `/token` answers so for refreshes only.
    pub refresh_answer: Option<(u16, String)>,
    /// The answer to a refresh breaks off after the token was rotated; that many times.
    pub lose_refresh_answers: u32,
    /// Userinfo answers 503.
    pub userinfo_down: bool,
    /// Discovery answers 503.
    pub discovery_down: bool,
    /// The metadata lists HS256 alone.
    pub only_hs256: bool,
    /// The keys answer 503.
    pub jwks_down: bool,
    /// The browser comes back with this `error` at once.
    pub authorize_error: Option<String>,
    /// `iss` on the way back.
    pub callback_iss: Option<String>,
    /// Merged into ID tokens.
    pub extra_claims: Map<String, Value>,
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
    gate: Gate,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    people: Vec<Person>,
    misbehaviour: Misbehaviour,
    recorded: Vec<Recorded>,
    codes: BTreeMap<String, token::Code>,
    issued: Vec<String>,
    /// Highest generation of each session's refresh tokens; `None` when the session is dead.
    generations: BTreeMap<String, Option<u64>>,
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
        let shared = Arc::new(Shared { options, issuer, keys, gate: Gate::default(), state });
        let running = serve(listener, Arc::clone(&shared), |shared, request| async move {
            endpoints::handle(&shared, request).await
        })?;
        Ok(Self { shared, running })
    }

    /// Its issuer.
    pub fn issuer(&self) -> &str {
        &self.shared.issuer
    }

    /// Changes how it behaves.
    pub fn misbehave(&self, change: impl FnOnce(&mut Misbehaviour)) {
        change(&mut lock(&self.shared.state).misbehaviour);
    }

    /// Holds back answers of the token endpoint while closed.
    pub fn token_gate(&self) -> &Gate {
        &self.shared.gate
    }

    /// Every request so far.
    pub fn recorded(&self) -> Vec<Recorded> {
        lock(&self.shared.state).recorded.clone()
    }

    /// How many requests were sent to `path` so far.
    pub fn requests_to(&self, path: &str) -> usize {
        lock(&self.shared.state).recorded.iter().filter(|request| request.path == path).count()
    }

    /// Every code and token handed out so far.
    pub fn issued(&self) -> Vec<String> {
        lock(&self.shared.state).issued.clone()
    }

    /// A JWT of type `typ` with exactly these claims, signed with its key, or as `alg` says: for the
    /// messages that a provider sends by itself.
    pub fn sign(&self, typ: &str, claims: &Value, alg: Option<&str>) -> io::Result<String> {
        self.shared.keys.jwt(typ, claims, alg, &self.shared.options.client_secret)
    }

    /// Refuses a person from now on.
    pub fn disable(&self, username: &str) {
        self.change(username, |person| person.disabled = true);
    }

    /// Lets a person in again.
    pub fn enable(&self, username: &str) {
        self.change(username, |person| person.disabled = false);
    }

    /// Gives a person other roles.
    pub fn set_roles(&self, username: &str, roles: &[&str]) {
        let roles = roles.iter().map(|&role| role.to_owned()).collect();
        self.change(username, |person| person.roles = roles);
    }

    fn change(&self, username: &str, change: impl FnOnce(&mut Person)) {
        let mut state = lock(&self.shared.state);
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
        lock(&self.state).misbehaviour.clone()
    }

    fn remember(&self, secret: &str) {
        lock(&self.state).issued.push(secret.to_owned());
    }

    fn person(&self, username: &str) -> Option<Person> {
        lock(&self.state).people.iter().find(|person| person.username == username).cloned()
    }
}
