//! Clients that registered themselves (RFC 7591), and stored copies of the others.

mod activity;
mod edit;
mod eviction;
mod list;
mod order;
mod unused;

use std::time::Duration;

use strum::{EnumString, IntoStaticStr};

use self::eviction::evict_from_busiest_network;
use super::client_reviews::decisions::lapse;
use super::{Storage, StorageError, Transaction, Use, column, moment, moment_if_any, select};
use crate::clock::Timestamp;
use crate::oauth::client::ClientMetadata;
use crate::oauth::redirect_uri::destination;
use crate::telemetry::audit::AuditEvent;

pub use activity::ClientActivity;
pub use edit::{ClientEdit, ClientEdited, ClientNote};
pub use list::{ClientPage, ClientRow};
pub use order::{ClientFilter, ClientOrder};
pub use unused::UNUSED_AFTER;

/// How often the last use of a client is written: at most once a minute. It decides about days.
const NOTED: Duration = Duration::from_mins(1);
/// The counters in which PostgreSQL counts most new clients, so that registrations do not wait for each other's
/// commit. The number of clients is the sum of them and of the counter `clients`.
pub(super) const COUNTER_PARTS: [&str; 8] = [
    "clients/0",
    "clients/1",
    "clients/2",
    "clients/3",
    "clients/4",
    "clients/5",
    "clients/6",
    "clients/7",
];
/// Most clients for which the last write is cached: 10,000.
pub(super) const REMEMBERED: usize = 10_000;

/// A client as stored. Its metadata was checked at registration.
#[derive(Clone, Debug)]
pub struct StoredClient {
    pub id: String,
    /// Hash of a public client's metadata, by which an identical registration gets the same client.
    /// `None` for confidential clients, which are never shared.
    pub identity: Option<String>,
    /// Hash of a confidential client's secret.
    pub secret_hash: Option<String>,
    /// Hash of its registration access token, if it has one.
    pub management_hash: Option<String>,
    /// The metadata as JSON.
    pub metadata: String,
    /// How the client came to be stored.
    pub kind: ClientKind,
    /// When it was first registered.
    pub issued_at: Timestamp,
    /// The network from which it registered, if known. Written, but never read back into this struct.
    pub network: Option<String>,
}

/// Where a stored client comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, EnumString, IntoStaticStr)]
pub enum ClientKind {
    /// It registered itself (RFC 7591), and is removed when it is not used.
    #[default]
    #[strum(serialize = "registered")]
    Registered,
    /// An administrator created it. It stays.
    #[strum(serialize = "created")]
    Created,
    /// It is defined in the configuration. The row only shows it to administrators.
    #[strum(serialize = "configured")]
    Configured,
    /// Its metadata document is published at the URL that is its id. The row is the last good copy.
    #[strum(serialize = "document")]
    Document,
}

impl ClientKind {
    /// Returns the word in the database.
    pub(super) fn as_str(self) -> &'static str {
        self.into()
    }
}

/// The current state of a client whose original is in the configuration or at a URL.
#[derive(Clone, Copy, Debug)]
pub struct KeptClient<'a> {
    pub id: &'a str,
    /// `Configured` or `Document`.
    pub kind: ClientKind,
    pub metadata: &'a ClientMetadata,
    /// When the metadata was read.
    pub seen_at: Timestamp,
}

/// The outcome of a registration.
#[derive(Debug)]
pub enum Registered {
    New,
    /// The same public metadata was registered before: the existing client.
    Known(StoredClient),
    /// The quota of clients is reached.
    Full,
}

impl Storage {
    /// Registers a client, or returns the public client with the same metadata. If the registry is full
    /// and `keep` is given, it evicts in the same transaction the newest unused clients of networks that
    /// have more than `keep`.
    pub async fn register_client(
        &self,
        client: &StoredClient,
        quota: u64,
        keep: Option<i64>,
        event: AuditEvent,
    ) -> Result<Registered, StorageError> {
        if self.takes_single_statements() && client.kind == ClientKind::Registered && keep.is_none()
        {
            let registered = self.register_by_statement(client, quota, event.clone()).await?;
            if let Some(registered) = registered {
                return Ok(registered);
            }
        }
        let mut step = self.begin().await?;
        if let Some(identity) = &client.identity {
            let known = sqlx::query(
                "UPDATE clients SET last_registered_at = $2 WHERE identity = $1
                 RETURNING id, identity, secret_hash, management_hash, metadata, kind, issued_at",
            )
            .bind(identity)
            .bind(client.issued_at.unix())
            .fetch_optional(&mut *step)
            .await?;
            if let Some(row) = known {
                let known = read_client(&row)?;
                step.commit().await?;
                return Ok(Registered::Known(known));
            }
        }
        if client.kind == ClientKind::Registered {
            step.refuse_without_room(Use::Newcomers).await?;
        }
        if !insert_client(&mut step, client).await? {
            // A replica registered the same metadata between our UPDATE and INSERT.
            let row = sqlx::query(
                "SELECT id, identity, secret_hash, management_hash, metadata, kind, issued_at
                 FROM clients WHERE identity = $1",
            )
            .bind(client.identity.as_deref())
            .fetch_one(&mut *step)
            .await?;
            let known = read_client(&row)?;
            step.commit().await?;
            return Ok(Registered::Known(known));
        }
        if client.kind == ClientKind::Registered && !count_client(&mut step, quota, keep).await? {
            return Ok(Registered::Full); // rolled back
        }
        step.record(event).await?;
        step.commit().await?;
        Ok(Registered::New)
    }

    /// Returns whether a public client with this identity is registered.
    pub async fn knows_client(&self, identity: &str) -> Result<bool, StorageError> {
        let query = sqlx::query("SELECT id FROM clients WHERE identity = $1").bind(identity);
        let known = self.read_one(query).await?;
        Ok(known.is_some())
    }

    /// Records in the caller's transaction that a client is in use, at most once per [`NOTED`]: the time
    /// decides about days.
    pub(super) async fn client_used(
        &self,
        step: &mut Transaction,
        id: &str,
        now: Timestamp,
    ) -> Result<(), StorageError> {
        if !self.client_use_is_due(id, now) {
            return Ok(());
        }
        sqlx::query("UPDATE clients SET last_used_at = $2 WHERE id = $1")
            .bind(id)
            .bind(now.unix())
            .execute(&mut **step)
            .await?;
        self.client_use_is_noted(id, now);
        Ok(())
    }

    /// Returns whether the use of a client is to be written again.
    pub(super) fn client_use_is_due(&self, id: &str, now: Timestamp) -> bool {
        let noted = self.clients_used.get(id);
        noted.is_none_or(|noted| noted > now || now.since(noted) >= NOTED)
    }

    /// Remembers that the use of a client was written.
    pub(super) fn client_use_is_noted(&self, id: &str, now: Timestamp) {
        self.clients_used.insert(id.to_owned(), now);
    }

    /// Loads a registered or created client. Returns `None` if it has expired: never used within
    /// `unused`, or idle for `idle` without a live grant.
    pub async fn find_client(
        &self,
        id: &str,
        now: Timestamp,
        unused: Duration,
        idle: Duration,
    ) -> Result<Option<StoredClient>, StorageError> {
        let query = sqlx::query(
            "SELECT id, identity, secret_hash, management_hash, metadata, kind, issued_at,
                    last_registered_at, last_used_at
             FROM clients WHERE id = $1 AND kind IN ('registered', 'created')",
        )
        .bind(id);
        let row = self.read_one(query).await?;
        let Some(row) = row else { return Ok(None) };
        let registered = moment(&row, "last_registered_at")?;
        let expired = match moment_if_any(&row, "last_used_at")? {
            None => now.since(registered) >= unused,
            Some(used) => now.since(used.max(registered)) >= idle,
        };
        let kind: String = column(&row, "kind")?;
        if expired && kind == "registered" {
            // A separate query, for expired clients only: they are rare, and a popular client has many
            // grants.
            let live = sqlx::query(
                "SELECT id FROM grants WHERE client_id = $1 AND revoked_at IS NULL
                 AND expires_at > $2 LIMIT 1",
            );
            if self.read_one(live.bind(id).bind(now.unix())).await?.is_none() {
                return Ok(None);
            }
        }
        read_client(&row).map(Some)
    }

    /// Replaces the metadata of a client that manages itself (RFC 7592 §2.2). Returns `false` when the
    /// client is gone. Approval and trust that were given to other metadata lapse, so administrators have
    /// to decide again.
    pub async fn replace_client(
        &self,
        id: &str,
        metadata: &ClientMetadata,
        now: Timestamp,
        event: AuditEvent,
    ) -> Result<bool, StorageError> {
        let (metadata, digest) = (&metadata.to_json(), &metadata.digest());
        let (name_key, search_text) = found_by(metadata);
        let mut step = self.begin_for(Use::Newcomers).await?;
        let replaced = sqlx::query(
            "UPDATE clients SET metadata = $2, name_key = $3, search_text = $4
             WHERE id = $1 AND management_hash IS NOT NULL",
        )
        .bind(id)
        .bind(metadata)
        .bind(name_key)
        .bind(search_text)
        .execute(&mut *step)
        .await?;
        if replaced.rows_affected() == 0 {
            return Ok(false);
        }
        // Any change counts: a remembered consent covers all of the metadata.
        sqlx::query("DELETE FROM remembered_consents WHERE client_id = $1")
            .bind(id)
            .execute(&mut *step)
            .await?;
        lapse(&mut step, id, digest, now, &event).await?;
        step.record(event).await?;
        step.commit().await?;
        Ok(true)
    }

    /// Stores a copy of a configured or published client after a login with it. Administrators can then
    /// find it, and a published client survives an outage of its publisher. An older copy never replaces
    /// a newer one that another process read. If the metadata differs from what was approved or trusted,
    /// that decision lapses in the same transaction, and `event` records it.
    pub async fn keep_client(
        &self,
        kept: &KeptClient<'_>,
        now: Timestamp,
        event: AuditEvent,
    ) -> Result<(), StorageError> {
        let KeptClient { id, kind, metadata, seen_at } = kept;
        let (metadata, digest) = (metadata.to_json(), metadata.digest());
        let (name_key, search_text) = found_by(&metadata);
        let mut step = self.begin().await?;
        let written = sqlx::query(
            "INSERT INTO clients (id, metadata, issued_at, last_registered_at, name_key, search_text,
                                  kind, last_used_at)
             VALUES ($1, $2, $4, $3, $5, $6, $7, $4)
             ON CONFLICT (id) DO UPDATE SET
                 metadata = excluded.metadata, last_registered_at = excluded.last_registered_at,
                 name_key = excluded.name_key, search_text = excluded.search_text, kind = excluded.kind,
                 last_used_at = excluded.last_used_at
             WHERE clients.kind IN ('configured', 'document')
               AND clients.last_registered_at <= excluded.last_registered_at",
        )
        .bind(*id)
        .bind(&metadata)
        .bind(seen_at.unix())
        .bind(now.unix())
        .bind(name_key)
        .bind(search_text)
        .bind(kind.as_str())
        .execute(&mut *step)
        .await?;
        if written.rows_affected() == 1 {
            lapse(&mut step, id, &digest, now, &event).await?;
        }
        step.commit().await
    }

    /// Loads the last good copy of a published client, and when it was read.
    pub async fn published_client(
        &self,
        id: &str,
    ) -> Result<Option<(StoredClient, Timestamp)>, StorageError> {
        let query = sqlx::query(
            "SELECT id, identity, secret_hash, management_hash, metadata, kind, issued_at,
                    last_registered_at
             FROM clients WHERE id = $1 AND kind = 'document'",
        )
        .bind(id);
        let row = self.read_one(query).await?;
        row.map(|row| Ok((read_client(&row)?, moment(&row, "last_registered_at")?))).transpose()
    }
}

/// Longest part of a name or a host that a search looks at, in characters.
const SEARCHED: usize = 64;

/// Returns what a list is sorted by, and what a search looks at: the key of the client's name, and its
/// name and the host of its first redirect URI as a text.
pub(super) fn found_by(metadata: &str) -> (String, String) {
    let Ok(metadata) = ClientMetadata::from_stored_json(metadata) else {
        return (String::new(), String::new());
    };
    let name = metadata.client_name.unwrap_or_default();
    let host = metadata.redirect_uris.first().map(|uri| destination(uri.as_str()).to_string());
    let text = format!("{}\n{}", searchable(&name), searchable(&host.unwrap_or_default()));
    (select::key(&name), text)
}

/// Returns a text as searches compare it: in lower case, without control characters.
fn searchable(text: &str) -> String {
    let lower = text.to_lowercase();
    lower.chars().map(|c| if c.is_control() { ' ' } else { c }).take(SEARCHED).collect()
}

/// Inserts a client. Returns `false` if one with the same identity is stored.
async fn insert_client(
    step: &mut Transaction,
    client: &StoredClient,
) -> Result<bool, StorageError> {
    let (name_key, search_text) = found_by(&client.metadata);
    let written = sqlx::query(
        "INSERT INTO clients (id, identity, secret_hash, management_hash, metadata, issued_at,
                              last_registered_at, name_key, search_text, kind, network)
         VALUES ($1, $2, $3, $4, $5, $6, $6, $7, $8, $9, $10) ON CONFLICT (identity) DO NOTHING",
    )
    .bind(&client.id)
    .bind(client.identity.as_deref())
    .bind(client.secret_hash.as_deref())
    .bind(client.management_hash.as_deref())
    .bind(&client.metadata)
    .bind(client.issued_at.unix())
    .bind(name_key)
    .bind(search_text)
    .bind(client.kind.as_str())
    .bind(client.network.as_deref())
    .execute(&mut **step)
    .await?;
    Ok(written.rows_affected() != 0)
}

/// Counts a new client. If that exceeds `quota`, evicts others of networks that have more than `keep`.
/// Returns `false` if the registry stays full.
async fn count_client(
    step: &mut Transaction,
    quota: u64,
    keep: Option<i64>,
) -> Result<bool, StorageError> {
    // A counter, because counting rows takes longer with every client.
    let counted = sqlx::query(
        "UPDATE counters SET value = value + 1
         WHERE name = 'clients'
           AND value < $1 - (SELECT COALESCE(SUM(value), 0) FROM counters WHERE name LIKE 'clients/%')",
    )
    .bind(i64::try_from(quota).unwrap_or(i64::MAX))
    .execute(&mut **step)
    .await?;
    if counted.rows_affected() != 0 {
        return Ok(true);
    }
    match keep {
        Some(keep) => Ok(evict_from_busiest_network(step, keep).await? > 0),
        None => Ok(false),
    }
}

pub(super) fn read_client(row: &sqlx::any::AnyRow) -> Result<StoredClient, StorageError> {
    Ok(StoredClient {
        id: column(row, "id")?,
        identity: column(row, "identity")?,
        secret_hash: column(row, "secret_hash")?,
        management_hash: column(row, "management_hash")?,
        metadata: column(row, "metadata")?,
        kind: column::<String>(row, "kind")?.parse().unwrap_or_default(),
        issued_at: moment(row, "issued_at")?,
        network: None,
    })
}
