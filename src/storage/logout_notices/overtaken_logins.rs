//! Detects sign-outs at the identity provider that overtake a login.
//!
//! A logout message may arrive before the callback has stored the session that it should end, and then
//! finds nothing to end. So each message is remembered for as long as a login may take, and a login that
//! began before the message fails when its session would be stored. A counter in the database decides
//! which came first, and not the clock: a person who signs in again after a sign-out succeeds, even
//! within the same second.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::clock::{REPLICAS_APART, Timestamp};
use crate::oauth::sealed::Purpose;
use crate::storage::logout_notices::LogoutSubject;
use crate::storage::upstream_sessions::SessionUpdate;
use crate::storage::{Denied, Engine, Storage, StorageError, Transaction, column};

/// The longest lifetime of a login that can be configured (`tokens.login`): 1 hour.
const LONGEST_LOGIN: Duration = Duration::from_hours(1);
/// The counter of sign-outs.
const NUMBER: &str = "sign_outs";

impl Storage {
    /// Returns the number of sign-outs so far. A login that begins now comes after all of them.
    pub async fn sign_outs_so_far(&self) -> Result<i64, StorageError> {
        let number = sqlx::query("SELECT value FROM counters WHERE name = $1").bind(NUMBER);
        let row = self.read_row(number).await?;
        row.as_ref().map_or(Ok(0), |row| column(row, "value"))
    }

    /// Remembers a sign-out in the caller's transaction, before the search for sessions to end.
    pub(crate) async fn remember_sign_out(
        &self,
        step: &mut Transaction,
        issuer: &str,
        whom: &LogoutSubject,
        now: Timestamp,
    ) -> Result<(), StorageError> {
        let number: i64 = sqlx::query_scalar(
            "INSERT INTO counters (name, value) VALUES ($1, 1)
             ON CONFLICT (name) DO UPDATE SET value = counters.value + 1 RETURNING value",
        )
        .bind(NUMBER)
        .fetch_one(&mut **step)
        .await?;
        let mark = match whom {
            LogoutSubject::Session { sid, subject } => {
                self.sign_out_mark(issuer, "sid", &[sid, subject.as_deref().unwrap_or_default()])
            }
            LogoutSubject::Subject(subject) => self.sign_out_mark(issuer, "sub", &[subject]),
            LogoutSubject::Email(email) => {
                self.sign_out_mark(issuer, "email", &[&email.to_lowercase()])
            }
        };
        sqlx::query(
            "INSERT INTO upstream_sign_outs (id, number, expires_at) VALUES ($1, $2, $3)
             ON CONFLICT (id) DO UPDATE SET number = $2, expires_at = $3",
        )
        .bind(mark)
        .bind(number)
        .bind(now.plus(LONGEST_LOGIN + REPLICAS_APART).unix())
        .execute(&mut **step)
        .await?;
        Ok(())
    }

    /// Fails if a sign-out has overtaken the login of this session, in the transaction that would store
    /// it.
    ///
    /// SQLite runs one transaction at a time. On PostgreSQL the rows that a message would write are
    /// locked here: a concurrent message either waits and then finds the session, or has already been
    /// recorded.
    pub(crate) async fn refuse_signed_out(
        &self,
        step: &mut Transaction,
        session: &SessionUpdate,
        now: Timestamp,
    ) -> Result<(), StorageError> {
        // Transactions of SQLite run one after the other: if no sign-out has been counted since the login
        // began, none concerns it.
        if self.engine() == Engine::Sqlite && sign_outs_now(step).await? <= session.sign_outs_before
        {
            return Ok(());
        }
        for mark in self.marks_of(session) {
            let number: Option<i64> = match self.engine() {
                Engine::Sqlite => {
                    let known =
                        sqlx::query_scalar("SELECT number FROM upstream_sign_outs WHERE id = $1");
                    known.bind(&mark).fetch_optional(&mut **step).await?
                }
                Engine::Postgres => {
                    let locked = sqlx::query_scalar(
                        "INSERT INTO upstream_sign_outs (id, number, expires_at) VALUES ($1, 0, $2)
                         ON CONFLICT (id) DO UPDATE SET number = upstream_sign_outs.number
                         RETURNING number",
                    );
                    locked.bind(&mark).bind(now.unix()).fetch_optional(&mut **step).await?
                }
            };
            if number.is_some_and(|number| number > session.sign_outs_before) {
                return Err(StorageError::ShutOut(Denied::SignedOut));
            }
        }
        Ok(())
    }

    /// Returns the ids of all messages that would end this session, in the order in which all
    /// transactions lock them.
    pub(in crate::storage) fn marks_of(&self, session: &SessionUpdate) -> BTreeSet<String> {
        let issuer = session.issuer.as_str();
        let mut marks = BTreeSet::new();
        for subject in [Some(&session.subject), session.claim_sub.as_ref()].into_iter().flatten() {
            marks.insert(self.sign_out_mark(issuer, "sub", &[subject]));
            if let Some(sid) = &session.sid {
                marks.insert(self.sign_out_mark(issuer, "sid", &[sid, subject]));
            }
        }
        if let Some(sid) = &session.sid {
            marks.insert(self.sign_out_mark(issuer, "sid", &[sid, ""]));
        }
        if let Some(email) = &session.person.email {
            marks.insert(self.sign_out_mark(issuer, "email", &[&email.to_lowercase()]));
        }
        marks
    }

    fn sign_out_mark(&self, issuer: &str, kind: &str, names: &[&str]) -> String {
        let mut parts = vec![b"sign-out".as_slice(), issuer.as_bytes(), kind.as_bytes()];
        parts.extend(names.iter().map(|name| name.as_bytes()));
        self.sealer.mac(Purpose::Search, &parts)
    }
}

/// Returns the number of sign-outs so far, in the caller's transaction.
async fn sign_outs_now(step: &mut Transaction) -> Result<i64, StorageError> {
    let number: Option<i64> = sqlx::query_scalar("SELECT value FROM counters WHERE name = $1")
        .bind(NUMBER)
        .fetch_optional(&mut **step)
        .await?;
    Ok(number.unwrap_or_default())
}
