//! The table of limits: one row per key in `[limits]`.
//!
//! A row gives the documentation, the name, the type, the default, the range that an administrator may choose
//! from, and what else applies to the limit ([`LimitTrait`]). The struct, its reader, the list of keys that need a
//! restart, the list of keys that may differ between replicas, and the labels of the metric
//! `portcullis_limited_total` are made from the rows. `docs/operations/limits.md` and
//! `portcullis.example.toml` explain each key; a test compares them with this table.

use std::num::NonZeroU32;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::reader::ConfigReader;
use super::value_type::ValueType;

/// What applies to a limit, besides its default and range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LimitTrait {
    /// A new value takes effect after a restart, because sockets, buffers or pools are made with it.
    Restart,
    /// Replicas may have different values, because it concerns the resources of one machine.
    OneMachine,
    /// Exceeding it is counted in the metric `portcullis_limited_total`.
    Counted,
}

/// A limit as the table declares it.
#[derive(Debug)]
pub struct Limit {
    /// Its key below `[limits]`.
    pub name: &'static str,
    /// Its key in the configuration: `limits.clients`.
    pub key: &'static str,
    /// What it limits.
    pub about: &'static str,
    type_and_range: fn() -> ValueType,
    traits: &'static [LimitTrait],
}

impl Limit {
    /// Returns whether `what` applies to this limit.
    pub fn is(&self, what: LimitTrait) -> bool {
        self.traits.contains(&what)
    }

    /// Returns its type and range.
    pub fn value_type(&self) -> ValueType {
        (self.type_and_range)()
    }
}

/// Returns all limits.
pub fn limits() -> impl Iterator<Item = &'static Limit> {
    RateLimits::TABLE.iter().chain(Limits::TABLE)
}

/// A type that a limit can have.
trait LimitValue: Sized {
    /// The type in which default and range are written.
    type Written;

    fn value_type(range: &RangeInclusive<Self::Written>) -> ValueType;

    fn read(
        r: &mut ConfigReader,
        key: &str,
        default: Self::Written,
        range: RangeInclusive<Self::Written>,
    ) -> Self;
}

macro_rules! read_as_number {
    ($($number:ty),*) => {$(
        impl LimitValue for $number {
            type Written = Self;

            fn value_type(range: &RangeInclusive<Self>) -> ValueType {
                let number = |end: Self| u64::try_from(end).unwrap_or(u64::MAX);
                ValueType::Integer(number(*range.start()), number(*range.end()))
            }

            fn read(r: &mut ConfigReader, key: &str, default: Self, range: RangeInclusive<Self>) -> Self {
                r.number(key, default, *range.start(), *range.end())
            }
        }
    )*};
}
read_as_number!(u32, u64, usize);

impl LimitValue for NonZeroU32 {
    type Written = u32;

    fn value_type(range: &RangeInclusive<u32>) -> ValueType {
        u32::value_type(range)
    }

    fn read(r: &mut ConfigReader, key: &str, default: u32, range: RangeInclusive<u32>) -> Self {
        Self::new(u32::read(r, key, default, range)).unwrap_or(Self::MIN)
    }
}

impl LimitValue for bool {
    type Written = Self;

    fn value_type(_: &RangeInclusive<Self>) -> ValueType {
        ValueType::Flag
    }

    fn read(r: &mut ConfigReader, key: &str, default: Self, _: RangeInclusive<Self>) -> Self {
        r.flag(key, default)
    }
}

impl LimitValue for Duration {
    type Written = &'static str;

    fn value_type(range: &RangeInclusive<&'static str>) -> ValueType {
        ValueType::Duration(range.start(), range.end())
    }

    fn read(
        r: &mut ConfigReader,
        key: &str,
        default: &'static str,
        range: RangeInclusive<&'static str>,
    ) -> Self {
        r.duration(key, default, range.start(), range.end())
    }
}

/// Replaces `new` by the running value if they differ, and lists the key in `waiting`.
pub(super) fn keep<T: Clone + PartialEq>(
    key: &'static str,
    new: &mut T,
    running: &T,
    waiting: &mut Vec<&'static str>,
) {
    if new != running {
        new.clone_from(running);
        waiting.push(key);
    }
}

macro_rules! limits {
    (
        $(#[$about:meta])*
        $table:ident ($($(#[$group_about:meta])* $group:ident: $group_type:ident)?) {
            $(
                $(#[doc = $row_about:literal])*
                $name:ident: $type:ty = $default:expr, $range:expr $(, $trait:ident)*;
            )*
        }
    ) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct $table {
            $($(#[$group_about])* pub $group: $group_type,)?
            $($(#[doc = $row_about])* pub $name: $type,)*
        }

        impl $table {
            const TABLE: &'static [Limit] = &[$(Limit {
                name: stringify!($name),
                key: concat!("limits.", stringify!($name)),
                about: concat!($($row_about),*),
                type_and_range: || <$type as LimitValue>::value_type(&$range),
                traits: &[$(LimitTrait::$trait),*],
            }),*];

            /// Reads all keys of the table. A default may refer to the rows above it.
            pub(super) fn read(r: &mut ConfigReader) -> Self {
                $(let $group = $group_type::read(r);)?
                $(let $name = <$type as LimitValue>::read(
                    r,
                    concat!("limits.", stringify!($name)),
                    $default,
                    $range,
                );)*
                Self { $($group,)? $($name),* }
            }

            /// Keeps the running values of the limits that need a restart, and lists those that changed.
            pub(super) fn keep_until_restart(
                &mut self,
                running: &Self,
                waiting: &mut Vec<&'static str>,
            ) {
                $(self.$group.keep_until_restart(&running.$group, waiting);)?
                $(if [$(LimitTrait::$trait),*].contains(&LimitTrait::Restart) {
                    let key = concat!("limits.", stringify!($name));
                    keep(key, &mut self.$name, &running.$name, waiting);
                })*
            }
        }
    };
}

limits! {
    /// Rate limits, and limits for concurrency.
    RateLimits () {
        /// Consent pages per client address.
        authorize_per_minute: NonZeroU32 = 60, 1..=1_000_000, Counted;
        /// Decisions on the consent page per client address.
        consent_per_minute: NonZeroU32 = 30, 1..=1_000_000, Counted;
        /// Requests of sign-ins to our own pages (start and callback) per client address.
        sign_ins_per_minute: NonZeroU32 = 30, 1..=1_000_000, Counted;
        /// Requests to `/account` and `/waiting` per client address.
        pages_per_minute: NonZeroU32 = 300, 1..=1_000_000, Counted;
        /// Token requests per client address.
        token_per_minute: NonZeroU32 = 600, 1..=1_000_000, Counted;
        /// Failed token requests per client address.
        token_failures_per_minute: NonZeroU32 = 60, 1..=1_000_000, Counted;
        /// Failed sign-ins to the admin pages per client address in 15 minutes.
        admin_sign_in_failures: NonZeroU32 = 5, 1..=1_000_000, Counted;
        /// Client registrations per client address.
        registrations_per_hour: NonZeroU32 = 10, 1..=1_000_000, Counted;
        /// Burst of client registrations per client address.
        registrations_at_once: NonZeroU32 = 5, 1..=1_000_000;
        /// Requests for metadata and keys per client address.
        discovery_per_minute: NonZeroU32 = 600, 1..=1_000_000, Counted;
        /// Refreshes per grant.
        refreshes_per_minute: NonZeroU32 = 20, 1..=1_000_000, Counted;
        /// Open connections per client address.
        connections_per_address: u32 = 100, 1..=1_000_000, OneMachine, Counted;
        /// Concurrent gateway requests per person.
        requests_per_person: u32 = 32, 1..=1_000_000, Counted;
        /// Share of these that one client may use.
        requests_per_client: u32 = three_quarters(requests_per_person), 1..=1_000_000, Counted;
        /// Open event streams per person.
        streams_per_person: u32 = 32, 1..=1_000_000, Counted;
        /// Share of these that one client may use.
        streams_per_client: u32 = three_quarters(streams_per_person), 1..=1_000_000, Counted;
    }
}

limits! {
    /// Limits and quotas, in the order of the keys in `[limits]`. Sizes are in bytes.
    Limits (
        /// Rate limits and limits for concurrency.
        rates: RateLimits
    ) {
        /// Whether request rates are limited; `false` is possible on loopback only, for load tests.
        request_rates: bool = true, false..=true, OneMachine;
        /// Maximum size of a request target, in bytes.
        request_target: usize = 8_192, 1_024..=65_536, Restart;
        /// Maximum size of all headers of a request, in bytes.
        headers: usize = 16_384, 4_096..=262_144, Restart;
        /// Maximum size of one header, in bytes.
        header: usize = 8_192, 1_024..=65_536;
        /// Maximum number of headers of a request.
        header_count: usize = 64, 16..=1_000, Restart;
        /// A connection must send its first byte within this time.
        first_byte: Duration = "5s", "1s"..="60s", Restart, OneMachine;
        /// The headers of a request must arrive within this time.
        header_time: Duration = "10s", "1s"..="60s", Restart, OneMachine;
        /// The body of a request must arrive within this time, and the peer must accept what we send
        /// within this time.
        body_time: Duration = "30s", "1s"..="10m", Restart, OneMachine;
        /// Keep-alive timeout: a connection without a request is closed after this time.
        idle_time: Duration = "60s", "1s"..="1h", Restart, OneMachine;
        /// Maximum number of concurrent requests on one HTTP/2 connection.
        http2_streams: u32 = 64, 1..=1_000, Restart, OneMachine;
        /// Maximum number of streams that an HTTP/2 client may reset before we accept them (protection
        /// against rapid reset).
        http2_resets: usize = 20, 1..=1_000, Restart, OneMachine;
        /// Maximum number of live grants of one person to one client; beyond it the least recently used
        /// one ends.
        grants_per_client: u32 = 20, 1..=10_000;
        /// Maximum number of live grants of one person; beyond it the least recently used one ends.
        grants_per_person: u32 = 100, 1..=100_000;
        /// Maximum number of registered clients.
        clients: u64 = 10_000, 1..=100_000_000, Counted;
        /// How many clients a page of a search looks at, the newest first. Its next page searches on.
        clients_searched: u64 = 200_000, 1..=100_000_000, OneMachine;
        /// A client that was never used is removed after this time.
        unused_client_expiry: Duration = "24h", "10m"..="366d";
        /// A client without a live grant is removed after this time.
        idle_client_expiry: Duration = "90d", "1h"..="3660d";
        /// Maximum size of a registration request, in bytes.
        register_body: usize = 32_768, 1_024..=1_048_576;
        /// Maximum size of a token or revocation request, in bytes.
        token_body: usize = 16_384, 1_024..=1_048_576;
        /// Maximum size of a form from the consent page, in bytes.
        consent_body: usize = 16_384, 8_192..=1_048_576;
        /// Maximum number of consent pages per browser and client in ten minutes; pages that were
        /// approved do not count.
        consent_pages: usize = 6, 1..=50;
        /// Maximum size of an MCP request, in bytes.
        gateway_body: usize = 4_194_304, 1_024..=67_108_864;
        /// Maximum number of messages in an MCP batch request.
        gateway_batch: usize = 100, 1..=10_000;
        /// An event stream without data is closed after this time.
        stream_idle: Duration = "1h", "1s"..="24h";
        /// Longest wait for the first byte of an MCP server's response.
        gateway_response: Duration = "5m", "1s"..="1h";
        /// After the signal to stop, everything is still served for this long while `/ready` already
        /// fails, so that load balancers notice.
        shutdown_delay: Duration = "0s", "0s"..="60s", OneMachine;
        /// Maximum number of redirect URIs of one client.
        redirect_uris: usize = 16, 1..=256;
        /// Maximum number of pending logins in total.
        pending_logins: u64 = 10_000, 1..=10_000_000, Counted;
        /// Maximum number of pending logins per client address.
        pending_logins_per_address: u64 = 50, 1..=10_000_000;
        /// Maximum number of pending logins per browser.
        pending_logins_per_browser: usize = 10, 1..=50;
        /// Maximum number of open connections.
        connections: usize = 10_000, 1..=1_000_000, Restart, OneMachine, Counted;
        /// Maximum number of connections to PostgreSQL.
        database_connections: u32 = 16, 5..=1_000, Restart, OneMachine;
        /// Number of failed redemptions after which an authorization code is invalid.
        code_attempts: u32 = 5, 1..=100;
        /// How often a repeated refresh returns the same successor.
        grace_replays: u32 = 10, 0..=1_000, Counted;
        /// Maximum size of an SQLite database, in bytes.
        database_size: u64 = 2_147_483_648, 1_572_864..=1 << 46, OneMachine;
        /// Maximum size of the audit trail, in bytes; at most half of an SQLite database.
        audit_size: u64 = 1_073_741_824, 65_536..=1 << 46;
        /// Maximum number of refusals by rules that are stored with what the identity provider sent, one
        /// for each person and MCP server; beyond it the oldest go.
        refused_people: u64 = 1_000, 0..=100_000;
        /// What the identity provider sent about a refused person is removed after this time.
        refused_person_expiry: Duration = "7d", "1h"..="90d";
        /// Maximum number of rows about usage: one for each hour in which a person used a tool.
        usage_rows: u64 = 1_000_000, 1_000..=100_000_000;
        /// Size to which the WAL of an SQLite database is truncated, in bytes.
        wal_size: u64 = 67_108_864, 0..=1 << 46, OneMachine;
        /// Maximum number of rows that clean-up removes from a table in one transaction.
        sweep_rows: u32 = 500, 1..=100_000, OneMachine;
        /// Maximum number of concurrent re-checks at the identity provider.
        upstream_requests: usize = 32, 1..=10_000, Counted;
        /// Maximum number of sign-ins that are completed at the identity provider at the same time.
        upstream_sign_ins: usize = 32, 1..=10_000, Counted;
        /// Maximum number of concurrent fetches of documents that clients publish.
        client_fetches: usize = 16, 2..=1_000, Counted;
        /// Maximum number of fetches of documents that clients publish per host and minute.
        client_fetches_per_host: u32 = 10, 2..=100_000;
        /// Maximum number of fetches of documents that clients publish per client address and minute.
        client_fetches_per_address: u32 = 10, 1..=100_000;
        /// Maximum length of a log line, in bytes.
        log_line: usize = 4_096, 512..=1_048_576, Restart, OneMachine;
    }
}

/// The default share of one client in a limit per person, so that one client cannot use up the limit of the
/// others.
const fn three_quarters(all: u32) -> u32 {
    all - all / 4
}
