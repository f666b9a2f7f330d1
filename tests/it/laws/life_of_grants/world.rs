//! The storage, driven as the endpoints drive it, beside the model; and what must hold of the database.

use std::collections::BTreeMap;
use std::time::Duration;

use portcullis::clock::{Clock, ManualClock, Timestamp};
use portcullis::oauth::authorization_request::AuthorizationRequest;
use portcullis::oauth::grant::{Redemption, TokenRefused};
use portcullis::oauth::secret::{Secret, new_id};
use portcullis::policy::Facts;
use portcullis::storage::{
    Approval, ApprovedPage, Claimed, ClientDecision, ClientKind, CodeExchange, Comer, Decided,
    Denied, GrantTerms, LoginQuota, LogoutNotice, LogoutSubject, NewCode, NewLogin, OtherBrowser,
    PendingLogin, Person, Redeemed, RefreshExchange, Registered, Retention, ReviewDecision,
    Rotated, Rotation, SessionUpdate, Storage, StorageError, StoredClient, UpstreamTokens,
    session_id,
};
use portcullis::telemetry::audit::{Actor, AuditEvent};
use proptest::test_runner::TestCaseError;
use proptest::{prop_assert, prop_assert_eq};
use sqlx::{AnyConnection, Connection, Row};

use super::model::{Code, Expected, Grant, How, Login, Logout, Op, Page, Token, scopes};
use crate::harness::START;
use crate::harness::client::challenge_of;
use crate::harness::database::Database;

type Done = Result<(), TestCaseError>;

const ISSUER: &str = "https://idp.example";
const REDIRECT_URI: &str = "https://client.example/callback";
const VERIFIER: &str = "a-verifier-that-is-long-enough-to-be-one-0123456789";
const RESOURCES: [&str; 2] = ["https://mcp.example/one", "https://mcp.example/two"];
const YEARS: Duration = Duration::from_hours(24 * 3650);
const LOGIN_LIFE: Duration = Duration::from_mins(15);
const CODE_LIFE: Duration = Duration::from_mins(1);
/// So short and so few that sequences reach every end.
const TERMS: GrantTerms = GrantTerms {
    absolute: Duration::from_hours(72),
    idle: Duration::from_hours(24),
    attempts: 3,
    per_client: 3,
    per_person: 4,
    from: None,
};
const REPLAYS: u32 = 2;

pub(super) struct World {
    database: Database,
    reader: AnyConnection,
    storage: Storage,
    clock: ManualClock,
    rotation: Rotation,
    pages: Vec<Page>,
    logins: Vec<Login>,
    codes: Vec<Code>,
    tokens: Vec<Token>,
    grants: BTreeMap<String, Grant>,
    sessions: BTreeMap<(usize, usize), bool>,
    messages: u32,
    logouts: Vec<Logout>,
    /// Whether the step at hand may end grants.
    may_end: bool,
}

/// The `n`th latest of `len`.
fn latest(n: usize, len: usize) -> Option<usize> {
    (len > 0).then(|| len - 1 - n % len)
}

fn client_id(client: usize) -> String {
    format!("client-{client}")
}

fn upstream(person: usize) -> String {
    format!("person-{person}")
}

fn subject(person: usize) -> String {
    format!("oidc:person-{person}")
}

fn sid(sid: usize) -> String {
    format!("sid-{sid}")
}

async fn open(database: &Database) -> Storage {
    const KEY: &[u8] = b"a test key that is long enough to be one, 0123456789";
    crate::harness::patiently(async || Storage::open(&database.url, Some(KEY)).await).await
}

impl World {
    pub(super) async fn new(grace: u64) -> Self {
        let database = Database::new().await;
        let storage = open(&database).await;
        let reader = AnyConnection::connect(&database.url).await.unwrap();
        let rotation = Rotation {
            grace: Duration::from_secs(grace),
            replays: REPLAYS,
            idle: TERMS.idle,
            from: None,
        };
        Self {
            database,
            reader,
            storage,
            clock: ManualClock::at(Timestamp::from_unix(START)),
            rotation,
            pages: Vec::new(),
            logins: Vec::new(),
            codes: Vec::new(),
            tokens: Vec::new(),
            grants: BTreeMap::new(),
            sessions: BTreeMap::new(),
            messages: 0,
            logouts: Vec::new(),
            may_end: false,
        }
    }

    pub(super) async fn end(self) {
        self.reader.close().await.unwrap();
        self.storage.close().await;
    }

    fn now(&self) -> Timestamp {
        self.clock.now()
    }

    fn new_id(&self) -> String {
        new_id(&Clock::Manual(self.clock.clone()))
    }

    fn event(&self, name: &'static str) -> AuditEvent {
        AuditEvent::new(name, Actor::Server, &Clock::Manual(self.clock.clone()))
    }

    pub(super) async fn step(&mut self, op: &Op) -> Done {
        self.may_end = false;
        match *op {
            Op::Register(client) => self.register(client).await,
            Op::Ask { client, resource, scopes } => {
                self.ask(client, resource, scopes);
                Ok(())
            }
            Op::Approve(page) => self.approve(page).await,
            Op::Deny(page) => self.deny(page).await,
            Op::Callback { login, same_browser, person, sid, allowed } => {
                self.callback(login, same_browser, (person, sid), allowed).await
            }
            Op::Redeem { code, how } => self.redeem(code, how).await,
            Op::Connect { client, resource, person, sid } => {
                self.ask(client, resource, 7);
                self.approve(0).await?;
                self.callback(0, true, (person, sid), 7).await?;
                self.redeem(0, How::Right).await
            }
            Op::Refresh(token) => self.refresh(token).await,
            Op::Revoke(grant) => self.revoke(grant).await,
            Op::BlockClient(client) => self.decide(client, ReviewDecision::Block).await,
            Op::UnblockClient(client) => self.decide(client, ReviewDecision::Unblock).await,
            Op::BlockPerson(person) => self.block_person(person).await,
            Op::UnblockPerson(person) => {
                self.storage
                    .unblock_person(&subject(person), self.event("person_unblocked"))
                    .await
                    .unwrap();
                Ok(())
            }
            Op::SignOut(person) => {
                let event = self.event("person_signed_out");
                self.storage
                    .sign_out_everywhere(&subject(person), "test", self.now(), event)
                    .await
                    .unwrap();
                self.sessions_end(|of| of == person, |_| true);
                Ok(())
            }
            Op::EndSession { person, sid } => self.end_session(person, sid).await,
            Op::LogoutToken { person, sid: of } => {
                self.messages += 1;
                let whom = LogoutSubject::Session { sid: sid(of), subject: Some(upstream(person)) };
                let (jti, later) = (self.messages.to_string(), self.now().plus(CODE_LIFE));
                let notice = LogoutNotice::new(ISSUER.to_owned(), &jti, whom, later);
                let event = self.event("upstream_logout");
                self.storage.apply_logout_notice(&notice, "test", self.now(), event).await.unwrap();
                self.sessions_end(|who| who == person, |session| session == of);
                self.logouts.push(Logout { person, sid: of, at: self.now(), forgotten: false });
                Ok(())
            }
            Op::Sweep => self.sweep().await,
            Op::Wait(seconds) => {
                self.clock.advance(seconds);
                Ok(())
            }
            Op::Restart => {
                self.storage.close().await;
                // The lock on the file goes with the last handle.
                let closed = std::mem::replace(&mut self.database, Database::new().await);
                let elsewhere = open(&self.database).await;
                drop(std::mem::replace(&mut self.storage, elsewhere));
                let reopened = open(&closed).await;
                self.storage.close().await;
                self.storage = reopened;
                self.database = closed;
                Ok(())
            }
        }
    }

    async fn register(&mut self, client: usize) -> Done {
        let stored = StoredClient {
            id: client_id(client),
            identity: Some(client_id(client)),
            secret_hash: None,
            management_hash: None,
            metadata: "{}".to_owned(),
            kind: ClientKind::Registered,
            issued_at: self.now(),
            network: None,
        };
        let event = self.event("client_registered");
        match self.storage.register_client(&stored, 10, None, event).await.unwrap() {
            Registered::New => {}
            Registered::Known(known) => prop_assert_eq!(known.id, stored.id),
            Registered::Full => return Err(TestCaseError::fail("two clients are not too many")),
        }
        Ok(())
    }

    fn ask(&mut self, client: usize, resource: usize, bits: u8) {
        let request = AuthorizationRequest {
            client_id: client_id(client),
            redirect_uri: REDIRECT_URI.to_owned(),
            state: None,
            code_challenge: challenge_of(VERIFIER),
            resource: RESOURCES[resource].to_owned(),
            scopes: scopes(bits),
            unknown_scopes: String::new(),
            upstream: std::collections::BTreeSet::new(),
            account: None,
            trace: None,
        };
        let expires_at = self.now().plus(Duration::from_mins(10));
        self.pages.push(Page { id: self.new_id(), request, expires_at, decided: false });
    }

    async fn approve(&mut self, page: usize) -> Done {
        let Some(at) = latest(page, self.pages.len()) else { return Ok(()) };
        let (page, now) = (self.pages[at].clone(), self.now());
        let standing = self.storage.client_review(&page.request.client_id).await.unwrap();
        if now >= page.expires_at || standing.is_denied() {
            return Ok(()); // the endpoint refuses a page that is too old, and a blocked client
        }
        let (state, binding) = (Secret::generate(&self.new_id()), Secret::generate(&self.new_id()));
        let login = PendingLogin {
            request: page.request.clone(),
            nonce: "nonce".to_owned(),
            pkce_verifier: "verifier".to_owned(),
            metadata_hash: String::new(),
            remembered: None,
            retried: false,
            sign_outs_before: 0,
            expires_at: 0,
        };
        let expires_at = now.plus(LOGIN_LIFE);
        let new = NewLogin {
            id: state.id(),
            state: state.hash(),
            binding: binding.hash(),
            login: &login,
            network: None,
            expires_at,
        };
        let approved = ApprovedPage { consent_id: &page.id, expires_at: page.expires_at };
        let event = self.event("consent_approved");
        let quota = LoginQuota { in_all: 1000, per_network: 1000 };
        let decided: Decided<Approval> =
            self.storage.approve(approved, &new, now, quota, event).await.unwrap();
        prop_assert_eq!(matches!(decided, Decided::First(_)), !page.decided, "{:?}", decided);
        if !page.decided {
            self.pages[at].decided = true;
            self.logins.push(Login {
                state,
                binding,
                request: page.request,
                expires_at,
                logouts_before: self.logouts.len(),
                ended: false,
            });
        }
        Ok(())
    }

    async fn deny(&mut self, page: usize) -> Done {
        let Some(at) = latest(page, self.pages.len()) else { return Ok(()) };
        let page = self.pages[at].clone();
        if self.now() >= page.expires_at {
            return Ok(());
        }
        let event = self.event("consent_denied");
        let decided = self.storage.deny(&page.id, page.expires_at, event).await.unwrap();
        prop_assert_eq!(matches!(decided, Decided::First(())), !page.decided);
        self.pages[at].decided = true;
        Ok(())
    }

    async fn callback(
        &mut self,
        login: usize,
        same_browser: bool,
        (person, sid_of): (usize, usize),
        allowed: u8,
    ) -> Done {
        let Some(at) = latest(login, self.logins.len()) else { return Ok(()) };
        let now = self.now();
        let (login, elsewhere) = (&self.logins[at], Secret::generate(&self.new_id()));
        let binding = if same_browser { &login.binding } else { &elsewhere };
        let event = self.event("login_from_other_browser");
        let if_other = OtherBrowser::BurnsLogin;
        let comer = Comer { binding: Some(binding), code: Some("code"), if_other };
        let claimed = self.storage.claim_login(&login.state, comer, now, event).await.unwrap();
        let works = same_browser && !login.ended && now < login.expires_at;
        prop_assert_eq!(matches!(claimed, Claimed::First(_)), works, "(a) {:?}", claimed);
        if !same_browser || works {
            self.logins[at].ended = true;
        }
        let Claimed::First(pending) = claimed else { return Ok(()) };
        let request = self.logins[at].request.clone();
        prop_assert_eq!(&pending.request, &request);
        let standing = self.storage.client_review(&request.client_id).await.unwrap();
        let blocked = self.storage.is_blocked(&subject(person)).await.unwrap();
        if standing.is_denied() || blocked {
            return Ok(());
        }
        let session = SessionUpdate {
            upstream: "oidc".to_owned(),
            issuer: ISSUER.to_owned(),
            subject: upstream(person),
            claim_sub: None,
            sid: Some(sid(sid_of)),
            sign_outs_before: pending.sign_outs_before,
            person: Person { name: None, email: None, facts: Facts::default() },
            tokens: UpstreamTokens::default(),
        };
        let secret = Secret::generate(&self.new_id());
        let scopes = request.scopes.intersection(&scopes(allowed));
        let expires_at = now.plus(CODE_LIFE);
        let subject = subject(person);
        let new = NewCode {
            code: &secret,
            request: &request,
            scopes: &scopes,
            subject: &subject,
            expires_at,
        };
        let event = self.event("code_issued");
        let mut overtaken = self.logouts[self.logins[at].logouts_before..]
            .iter()
            .filter(|logout| (logout.person, logout.sid) == (person, sid_of))
            .peekable();
        let refusable = overtaken.peek().is_some();
        let must_refuse = overtaken.any(|logout| !logout.forgotten);
        match self.storage.finish_login(&session, &new, now, event).await {
            Err(StorageError::ShutOut(Denied::SignedOut)) => {
                prop_assert!(refusable, "(d) refused, though nobody signed out");
                return Ok(());
            }
            finished => prop_assert!(finished.is_ok(), "{:?}", finished.err()),
        }
        prop_assert!(!must_refuse, "(d) a code for a session that ended during its login");
        self.sessions.insert((person, sid_of), true);
        self.codes.push(Code {
            secret,
            request,
            scopes,
            person,
            sid: sid_of,
            issued_at: now,
            expires_at,
            failures: 0,
            dead: false,
            grant: None,
        });
        Ok(())
    }

    async fn redeem(&mut self, code: usize, how: How) -> Done {
        let Some(at) = latest(code, self.codes.len()) else { return Ok(()) };
        let (code, now) = (&self.codes[at], self.now());
        let expected = code.expected(how, TERMS.attempts, now);
        let other_resource = RESOURCES.into_iter().find(|other| *other != code.request.resource);
        let attempt = Redemption {
            client_id: if how == How::OtherClient { "client-9" } else { &code.request.client_id },
            redirect_uri: Some(if how == How::OtherRedirectUri { ISSUER } else { REDIRECT_URI }),
            code_verifier: Some(if how == How::WrongVerifier { &VERIFIER[1..] } else { VERIFIER }),
            resource: if how == How::OtherResource { other_resource } else { None },
            policy: None,
        };
        let secret = Secret::generate(&self.new_id());
        let event = self.event("code_redeemed");
        let exchange =
            CodeExchange { code: &code.secret, attempt, refresh_token: &secret, terms: TERMS };
        let redeemed = self.storage.redeem_code(&exchange, now, event).await.unwrap();
        let first = matches!(redeemed, Redeemed::First(_));
        prop_assert_eq!(
            first,
            expected == Expected::First,
            "(b) {:?} for {:?}",
            redeemed,
            expected
        );
        match redeemed {
            Redeemed::First(grant) => {
                prop_assert!(grant.scopes.is_subset(&code.request.scopes), "(f)");
                prop_assert_eq!(&grant.scopes, &code.scopes, "(f)");
                prop_assert_eq!(&grant.resource, &code.request.resource, "(e)");
                prop_assert_eq!(&grant.subject, &subject(code.person), "(e)");
                let (person, sid, request) = (code.person, code.sid, code.request.clone());
                let expires_at = now.plus(TERMS.absolute);
                let model =
                    Grant { request, person, sid, expires_at, revoked_at: None, minted: None };
                self.codes[at].grant = Some(grant.grant_id.clone());
                self.grants.insert(grant.grant_id.clone(), model);
                self.tokens.push(Token {
                    secret,
                    grant: grant.grant_id,
                    expires_at: now.plus(TERMS.idle),
                    used_at: None,
                    successor: None,
                    replays: 0,
                    swept: false,
                });
                self.may_end = true; // the oldest make room
                self.check_quotas(person).await
            }
            Redeemed::Refused(_) if expected == Expected::Counted => {
                self.codes[at].failures += 1;
                Ok(())
            }
            Redeemed::Refused(_) if expected == Expected::Replay => {
                let grant = code.grant.clone().unwrap();
                self.revoked(|id, _| *id == grant);
                Ok(())
            }
            Redeemed::Refused(_) => Ok(()),
        }
    }

    async fn refresh(&mut self, token: usize) -> Done {
        let Some(at) = latest(token, self.tokens.len()) else { return Ok(()) };
        let (token, now) = (&self.tokens[at], self.now());
        let grant = &self.grants[&token.grant];
        let over = token.swept || grant.revoked_at.is_some() || now >= grant.expires_at;
        let fresh = token.successor.is_none_or(|next| self.tokens[next].used_at.is_none());
        let in_grace = token.used_at.is_some_and(|used| self.rotation.in_grace(used, now));
        let successor = Secret::generate(&self.new_id());
        let event = self.event("refresh_rotated");
        let found = self.storage.find_refresh_token(&token.secret, now).await.unwrap();
        let Some(found) = found else {
            prop_assert!(token.swept, "a token is gone");
            return Ok(());
        };
        let exchange = RefreshExchange {
            presented: &token.secret,
            found: &found,
            successor: &successor,
            rotation: self.rotation,
        };
        let rotated = self.storage.rotate_refresh_token(&exchange, now, event).await.unwrap();
        match (rotated, token.used_at) {
            (Rotated::First, None) => {
                prop_assert!(!over && now < token.expires_at, "(d) minted for what has ended");
                let expires_at = now.plus(TERMS.idle).min(grant.expires_at);
                let next = Token {
                    secret: successor,
                    grant: token.grant.clone(),
                    expires_at,
                    used_at: None,
                    successor: None,
                    replays: 0,
                    swept: false,
                };
                self.tokens.push(next);
                let next = self.tokens.len() - 1;
                let token = &mut self.tokens[at];
                (token.used_at, token.successor) = (Some(now), Some(next));
            }
            (Rotated::Replayed(again), Some(_)) => {
                prop_assert!(!over && in_grace && fresh, "(c) handed out again");
                prop_assert!(token.replays < REPLAYS, "(c) handed out too often");
                let next = &self.tokens[token.successor.unwrap()];
                prop_assert_eq!(again.expose(), next.secret.expose(), "(c) another successor");
                self.tokens[at].replays += 1;
            }
            (Rotated::Refused(refused), used) => {
                let works = match used {
                    None => now < token.expires_at,
                    Some(_) => in_grace && fresh && token.replays < REPLAYS,
                };
                prop_assert!(over || !works, "refused: {:?}", refused);
                let reused = !over && used.is_some() && !(in_grace && fresh);
                prop_assert_eq!(
                    refused == TokenRefused::ReusedRefreshToken,
                    reused,
                    "{:?}",
                    refused
                );
                if reused {
                    let grant = token.grant.clone();
                    self.revoked(|id, _| *id == grant);
                }
            }
            (other, used) => {
                return Err(TestCaseError::fail(format!(
                    "(c) {other:?} for a token used {used:?}"
                )));
            }
        }
        Ok(())
    }

    async fn revoke(&mut self, grant: usize) -> Done {
        let Some(at) = latest(grant, self.grants.len()) else { return Ok(()) };
        let id = self.grants.keys().nth(at).unwrap().clone();
        self.storage
            .revoke_grant(&id, "test", self.now(), self.event("grant_revoked"))
            .await
            .unwrap();
        self.revoked(|other, _| *other == id);
        Ok(())
    }

    async fn decide(&mut self, client: usize, verdict: ReviewDecision) -> Done {
        let id = client_id(client);
        let event = self.event("client_blocked");
        let changed = self
            .storage
            .decide_client(ClientDecision::new(&id, verdict, "test"), self.now(), event)
            .await
            .unwrap();
        if changed && verdict == ReviewDecision::Block {
            self.revoked(|_, grant| grant.request.client_id == id);
            for code in self.codes.iter_mut().filter(|code| code.request.client_id == id) {
                code.dead = true;
            }
            for login in self.logins.iter_mut().filter(|login| login.request.client_id == id) {
                login.ended = true;
            }
        }
        Ok(())
    }

    async fn block_person(&mut self, person: usize) -> Done {
        let event = self.event("person_blocked");
        let blocked =
            self.storage.block_person(&subject(person), "test", self.now(), event).await.unwrap();
        if blocked {
            self.sessions_end(|of| of == person, |_| true);
        }
        Ok(())
    }

    async fn end_session(&mut self, person: usize, of: usize) -> Done {
        let id = session_id(ISSUER, &upstream(person), Some(&sid(of)));
        let session = self.storage.upstream_session(&id).await.unwrap();
        let Some(session) = session else { return Ok(()) };
        let event = self.event("upstream_session_expired");
        let ended = self.storage.end_session(&session, "test", self.now(), event).await.unwrap();
        prop_assert!(ended, "nothing came in between");
        self.sessions_end(|who| who == person, |session| session == of);
        Ok(())
    }

    async fn sweep(&mut self) -> Done {
        let now = self.now();
        let keep = Retention {
            unused_client: YEARS,
            idle_client: YEARS,
            audit: YEARS,
            refused_person: YEARS,
            refresh_idle: Duration::from_hours(1),
            rows: 500,
        };
        while self.storage.sweep(now, keep).await.unwrap() > 0 {}
        for logout in &mut self.logouts {
            logout.forgotten |= logout.at.plus(LOGIN_LIFE) <= now;
        }
        let gone = now.minus(Duration::from_hours(24));
        for token in &mut self.tokens {
            let grant = &self.grants[&token.grant];
            let ended = grant.expires_at < gone || grant.revoked_at.is_some_and(|at| at < gone);
            token.swept |= ended || (token.used_at.is_some() && token.expires_at < gone);
        }
        Ok(())
    }

    /// Sessions at the provider have ended: their grants with them, and codes that were on their way.
    fn sessions_end(&mut self, of: impl Fn(usize) -> bool, which: impl Fn(usize) -> bool) {
        let known = |person, sid| of(person) && which(sid);
        for (_, alive) in self.sessions.iter_mut().filter(|((person, sid), _)| known(*person, *sid))
        {
            *alive = false;
        }
        for code in self.codes.iter_mut().filter(|code| known(code.person, code.sid)) {
            code.dead = true;
        }
        self.revoked(|_, grant| known(grant.person, grant.sid));
    }

    fn revoked(&mut self, which: impl Fn(&String, &Grant) -> bool) {
        let now = self.now();
        self.may_end = true;
        for (id, grant) in &mut self.grants {
            if grant.revoked_at.is_none() && which(id, grant) {
                grant.revoked_at = Some(now);
            }
        }
    }

    /// Right after a redemption nobody has more than one may have.
    async fn check_quotas(&mut self, person: usize) -> Done {
        for (column, most) in [("subject", TERMS.per_person), ("client_id", TERMS.per_client)] {
            let sql = format!(
                "SELECT COUNT(*) AS n FROM grants WHERE subject = $1 AND revoked_at IS NULL
                 AND expires_at > $2 GROUP BY {column} ORDER BY n DESC LIMIT 1"
            );
            let live: i64 = sqlx::query_scalar(sqlx::AssertSqlSafe(sql))
                .bind(subject(person))
                .bind(self.now().unix())
                .fetch_one(&mut self.reader)
                .await
                .unwrap();
            prop_assert!(live <= i64::from(most), "{} live grants by {}", live, column);
        }
        Ok(())
    }

    /// What must hold after every step, read from the database.
    pub(super) async fn check_invariants(&mut self, op: &Op) -> Done {
        for (broken, sql) in [
            (
                "(b) a grant of several codes",
                "SELECT COUNT(*) FROM (SELECT grant_id FROM authorization_codes
                 WHERE grant_id IS NOT NULL GROUP BY grant_id HAVING COUNT(*) > 1) x",
            ),
            (
                "(b) a grant that was not redeemed exactly once",
                "SELECT COUNT(*) FROM grants g WHERE (SELECT COUNT(*) FROM audit_events e
                 WHERE e.grant_id = g.id AND e.event = 'code_redeemed') <> 1",
            ),
            (
                "(c) a family with several unused tokens",
                "SELECT COUNT(*) FROM (SELECT grant_id FROM refresh_tokens WHERE used_at IS NULL
                 GROUP BY grant_id HAVING COUNT(*) > 1) x",
            ),
            (
                "(e) a grant that differs from its code",
                "SELECT COUNT(*) FROM grants g JOIN authorization_codes c ON c.grant_id = g.id
                 WHERE g.resource <> c.resource OR g.consented_scopes <> c.consented_scopes OR g.subject <> c.subject
                    OR g.client_id <> c.client_id OR g.session_id <> c.session_id",
            ),
            (
                "(d) a live grant of a dead session",
                "SELECT COUNT(*) FROM grants g JOIN upstream_sessions s ON s.id = g.session_id
                 WHERE g.revoked_at IS NULL AND s.state <> 'active'",
            ),
            (
                "(d) a live grant of a blocked person or client",
                "SELECT COUNT(*) FROM grants g WHERE g.revoked_at IS NULL AND
                 (EXISTS (SELECT 1 FROM people p WHERE p.subject = g.subject AND p.blocked_at IS NOT NULL)
                  OR EXISTS (SELECT 1 FROM client_reviews s WHERE s.client_id = g.client_id AND s.blocked = 1))",
            ),
        ] {
            let found: i64 = sqlx::query_scalar(sql).fetch_one(&mut self.reader).await.unwrap();
            prop_assert_eq!(found, 0, "{} after {:?}", broken, op);
        }
        let rows = sqlx::query(
            "SELECT g.id, g.client_id, g.subject, g.resource, g.consented_scopes, g.revoked_at, g.expires_at,
                    (SELECT COUNT(*) FROM refresh_tokens r WHERE r.grant_id = g.id) AS tokens,
                    (SELECT COALESCE(CAST(SUM(r.replays) AS BIGINT), 0) FROM refresh_tokens r
                     WHERE r.grant_id = g.id) AS replays
             FROM grants g",
        )
        .fetch_all(&mut self.reader)
        .await
        .unwrap();
        for row in rows {
            let id: String = row.get("id");
            let Some(grant) = self.grants.get_mut(&id) else {
                return Err(TestCaseError::fail(format!("(a) a grant from nowhere after {op:?}")));
            };
            prop_assert_eq!(
                row.get::<String, _>("client_id"),
                grant.request.client_id.clone(),
                "(e)"
            );
            prop_assert_eq!(
                row.get::<String, _>("resource"),
                grant.request.resource.clone(),
                "(e)"
            );
            prop_assert_eq!(row.get::<String, _>("subject"), subject(grant.person), "(e)");
            prop_assert_eq!(
                row.get::<String, _>("consented_scopes"),
                grant.request.scopes.to_string(),
                "(f)"
            );
            prop_assert_eq!(
                row.get::<i64, _>("expires_at"),
                grant.expires_at.unix(),
                "no refresh moves it"
            );
            let revoked = row.get::<Option<i64>, _>("revoked_at").map(Timestamp::from_unix);
            if revoked.is_some() && grant.revoked_at.is_none() {
                prop_assert!(self.may_end, "{} ended without a reason: {:?}", id, op);
                grant.revoked_at = revoked;
            }
            prop_assert_eq!(revoked.is_some(), grant.revoked_at.is_some(), "(d) {:?}", op);
            let minted = (row.get("tokens"), row.get("replays"));
            if revoked.is_some() {
                let before = *grant.minted.get_or_insert(minted);
                prop_assert!(
                    minted.0 <= before.0 && minted.1 <= before.1,
                    "(d) minted after its end"
                );
            }
        }
        Ok(())
    }
}
