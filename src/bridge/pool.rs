//! The processes of the bridge, the sessions and people they serve, and their number.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Duration, Instant, timeout};

use super::conversation::{BridgeCaller, Sharing};
use super::person::BridgePerson;
use super::process::{LaunchPlan, StdioServer};
use crate::oauth::secret::random_text;

/// How long a process may take to make room for another.
const ROOM: Duration = Duration::from_secs(10);

/// What one process serves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ProcessFor {
    /// One session. Requests without sessions share a process for each person.
    #[default]
    Session,
    /// One person, with all sessions and clients.
    Person,
}

/// How many processes there may be, and for how long.
#[derive(Clone, Copy, Debug)]
pub struct ProcessLimits {
    /// What one process serves.
    pub process_for: ProcessFor,
    /// Most processes.
    pub processes: usize,
    /// Most processes for one person.
    pub processes_of_a_person: usize,
    /// A process that nobody uses ends after this time, and a session is forgotten.
    pub idle: Duration,
}

/// A session of a revision before 2026-07-28.
struct BridgeSession {
    server: Arc<StdioServer>,
    person: Option<BridgePerson>,
    /// Whether the process serves this session only.
    is_own: bool,
    used: Instant,
}

/// Whose requests share a process: those of one person, or those of nobody in particular.
#[derive(Clone, PartialEq, Eq, Hash)]
struct SharedFor(Option<BridgePerson>);

#[derive(Default)]
struct PoolState {
    sessions: HashMap<BridgeCaller, BridgeSession>,
    shared: HashMap<SharedFor, Arc<StdioServer>>,
}

/// Why there is no process for a request.
#[derive(Debug)]
pub(super) enum NoServer {
    /// All places are taken.
    TooMany,
    /// All places of this person are taken.
    TooManyOfOne,
    /// Starts have failed; the next one is due in this time.
    Failing(Duration),
    /// The gateway names nobody, and processes are for people.
    Nobody,
    /// The program cannot be started.
    NotStarted(io::Error),
}

/// All processes.
pub(super) struct ProcessPool {
    limits: ProcessLimits,
    pub(super) plan: Arc<LaunchPlan>,
    places: Arc<Semaphore>,
    state: Mutex<PoolState>,
}

impl ProcessPool {
    pub(super) fn new(limits: ProcessLimits, plan: LaunchPlan) -> Self {
        let places = Arc::new(Semaphore::new(limits.processes));
        Self { limits, plan: Arc::new(plan), places, state: Mutex::default() }
    }

    /// Begins a session: its id, and its process.
    pub(super) async fn begin_session(
        &self,
        person: Option<BridgePerson>,
    ) -> Result<(BridgeCaller, Arc<StdioServer>), NoServer> {
        if self.limits.process_for == ProcessFor::Person {
            let server = self.for_person(person.as_ref()).await?;
            return Ok(self.state.lock().insert(server, person, false));
        }
        let place = self.place().await?;
        let mut state = self.state.lock();
        let server = self.start(&state, Sharing::OneSession, person.as_ref(), place)?;
        Ok(state.insert(server, person, true))
    }

    /// Returns the process of a session, if the session is this caller's.
    pub(super) fn session(
        &self,
        id: &str,
        person: Option<&BridgePerson>,
    ) -> Option<(BridgeCaller, Arc<StdioServer>)> {
        let mut state = self.state.lock();
        let (id, session) = state.sessions.get_key_value(id)?;
        let is_same = match (&session.person, person) {
            (Some(of_session), Some(person)) => of_session.is_same_caller(person),
            (None, None) => true,
            _ => false,
        };
        if !is_same {
            return None;
        }
        let (id, server) = (Arc::clone(id), Arc::clone(&session.server));
        if server.conversation.has_ended() {
            state.sessions.remove(&id);
            return None;
        }
        if let Some(session) = state.sessions.get_mut(&id) {
            session.used = Instant::now();
        }
        Some((id, server))
    }

    /// Ends a session, and its process if that serves nobody else.
    pub(super) fn end_session(&self, id: &BridgeCaller) {
        if let Some(session) = self.state.lock().sessions.remove(id) {
            session.end(id);
        }
    }

    /// Returns the process that all requests of a person share, or those of nobody in particular.
    pub(super) async fn for_person(
        &self,
        person: Option<&BridgePerson>,
    ) -> Result<Arc<StdioServer>, NoServer> {
        let sharing = match (person, self.limits.process_for) {
            (Some(_), _) => Sharing::OnePerson,
            (None, ProcessFor::Session) => Sharing::Anybody,
            (None, ProcessFor::Person) => return Err(NoServer::Nobody),
        };
        let whose = SharedFor(person.map(BridgePerson::with_any_client));
        if let Some(server) = self.state.lock().running(&whose) {
            return Ok(server);
        }
        let place = self.place().await?;
        let mut state = self.state.lock();
        if let Some(server) = state.running(&whose) {
            return Ok(server); // somebody else was quicker
        }
        let server = self.start(&state, sharing, whose.0.as_ref(), place)?;
        state.shared.insert(whose, Arc::clone(&server));
        Ok(server)
    }

    fn start(
        &self,
        state: &PoolState,
        sharing: Sharing,
        person: Option<&BridgePerson>,
        place: OwnedSemaphorePermit,
    ) -> Result<Arc<StdioServer>, NoServer> {
        if let Some(wait) = self.plan.starts.wait() {
            return Err(NoServer::Failing(wait));
        }
        if let Some(person) = person
            && state.servers_of(person) >= self.limits.processes_of_a_person
        {
            return Err(NoServer::TooManyOfOne);
        }
        StdioServer::start(&self.plan, sharing, person, place).map_err(NoServer::NotStarted)
    }

    /// Returns a place for a process. If all are taken, ends the shared process that was not used for longest:
    /// its callers have no session that they would lose.
    async fn place(&self) -> Result<OwnedSemaphorePermit, NoServer> {
        let places = Arc::clone(&self.places);
        if let Ok(place) = Arc::clone(&places).try_acquire_owned() {
            return Ok(place);
        }
        if !self.state.lock().end_an_unused_one() {
            return Err(NoServer::TooMany);
        }
        let place = timeout(ROOM, places.acquire_owned()).await;
        place.map_err(|_| NoServer::TooMany)?.map_err(|_| NoServer::TooMany)
    }

    /// Ends what nobody uses, and forgets what has ended.
    pub(super) fn sweep(&self) {
        let idle = self.limits.idle;
        let mut state = self.state.lock();
        state.sessions.retain(|id, session| {
            let conversation = &session.server.conversation;
            let is_used = session.used.elapsed() < idle
                || conversation.serves(id)
                || (session.is_own && !session.server.is_idle(idle));
            let stays = is_used && !conversation.has_ended();
            if !stays {
                session.end(id);
            }
            stays
        });
        let in_use: Vec<u32> = state.sessions.values().map(|session| session.server.pid).collect();
        state.shared.retain(|_, server| {
            let stays = !server.conversation.has_ended()
                && (!server.is_idle(idle) || in_use.contains(&server.pid));
            if !stays {
                server.end();
            }
            stays
        });
    }

    /// Returns the number of processes and of sessions.
    pub(super) fn counts(&self) -> (usize, usize) {
        let processes = self.limits.processes - self.places.available_permits();
        (processes, self.state.lock().sessions.len())
    }

    /// Returns the number of requests under way.
    pub(super) fn calls(&self) -> usize {
        self.all().iter().map(|server| server.conversation.calls()).sum()
    }

    /// Ends all processes and waits until they are gone.
    pub(super) async fn end(&self) {
        for server in self.all() {
            server.end();
        }
        // Each process gives its place back when it is gone.
        let places = u32::try_from(self.limits.processes).unwrap_or(u32::MAX);
        let _ = self.places.acquire_many(places).await;
        self.plan.watchdog.end();
    }

    fn all(&self) -> Vec<Arc<StdioServer>> {
        self.state.lock().servers().cloned().collect()
    }
}

impl BridgeSession {
    fn end(&self, id: &BridgeCaller) {
        if self.is_own {
            self.server.end();
        } else {
            self.server.conversation.leave(id);
        }
    }
}

impl PoolState {
    fn insert(
        &mut self,
        server: Arc<StdioServer>,
        person: Option<BridgePerson>,
        is_own: bool,
    ) -> (BridgeCaller, Arc<StdioServer>) {
        let id: BridgeCaller = random_text().into();
        let used = Instant::now();
        let session = BridgeSession { server: Arc::clone(&server), person, is_own, used };
        self.sessions.insert(Arc::clone(&id), session);
        (id, server)
    }

    fn servers(&self) -> impl Iterator<Item = &Arc<StdioServer>> {
        let own = self.sessions.values().filter(|session| session.is_own);
        own.map(|session| &session.server).chain(self.shared.values())
    }

    fn running(&mut self, whose: &SharedFor) -> Option<Arc<StdioServer>> {
        let server = self.shared.get(whose)?;
        if server.conversation.has_ended() {
            self.shared.remove(whose);
            return None;
        }
        server.touch();
        Some(Arc::clone(server))
    }

    fn end_an_unused_one(&mut self) -> bool {
        let in_use: Vec<u32> = self.sessions.values().map(|session| session.server.pid).collect();
        let unused = self.shared.iter().filter(|(_, server)| !in_use.contains(&server.pid));
        let unused = unused.filter_map(|(whose, server)| Some((server.unused_for()?, whose)));
        let Some((_, whose)) = unused.max_by_key(|(unused, _)| *unused) else { return false };
        let whose = whose.clone();
        self.shared.remove(&whose).inspect(|server| server.end()).is_some()
    }

    fn servers_of(&self, person: &BridgePerson) -> usize {
        let is_theirs = |other: Option<&BridgePerson>| {
            other.is_some_and(|other| other.subject == person.subject)
        };
        let own = self.sessions.values().filter(|session| session.is_own);
        let own = own.filter(|session| is_theirs(session.person.as_ref()));
        let shared = self.shared.iter().filter(|(whose, _)| is_theirs(whose.0.as_ref()));
        own.map(|session| &session.server)
            .chain(shared.map(|(_, server)| server))
            .filter(|server| !server.conversation.has_ended())
            .count()
    }
}
