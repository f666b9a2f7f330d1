//! Outcomes that metrics count, each with its word in the label.

use strum::{IntoStaticStr, VariantArray};

/// The outcome of a call that the gateway forwarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoStaticStr, VariantArray)]
pub enum Passed {
    /// The MCP server responded with another status than 5xx.
    #[strum(serialize = "answered")]
    Answered,
    /// The MCP server responded with 5xx.
    #[strum(serialize = "failed")]
    Failed,
    /// The MCP server did not respond in time.
    #[strum(serialize = "timed_out")]
    TimedOut,
    /// No response came, or none that may be passed on.
    #[strum(serialize = "broken")]
    Broken,
    /// The gateway itself refused the call or its response: the body was too large, the session another
    /// caller's, or the grant ended meanwhile.
    #[strum(serialize = "withheld")]
    Withheld,
}

impl Passed {
    /// Returns the label in metrics.
    pub(super) fn word(self) -> &'static str {
        self.into()
    }
}

/// What became of a call's need for a person's token of a service, of the gateway or of a token exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoStaticStr, VariantArray)]
pub enum ServiceTokenOutcome {
    /// The stored token was fresh.
    #[strum(serialize = "fresh")]
    Fresh,
    /// The service gave a new one.
    #[strum(serialize = "refreshed")]
    Refreshed,
    /// The person has not connected the service, or the sign-in provider gave no token.
    #[strum(serialize = "not_connected")]
    NotConnected,
    /// The person connected it, with fewer scopes.
    #[strum(serialize = "lacks_scopes")]
    LacksScopes,
    /// The service refuses to renew the token: the person has to connect it again.
    #[strum(serialize = "broken")]
    Broken,
    /// The service or the database does not answer.
    #[strum(serialize = "unavailable")]
    Unavailable,
}

impl ServiceTokenOutcome {
    /// Returns the label in metrics.
    pub(super) fn word(self) -> &'static str {
        self.into()
    }
}

/// The outcome of a recheck: whether the identity provider still confirms a person.
#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoStaticStr, VariantArray)]
pub enum Rechecked {
    /// The last confirmation is recent enough; the provider was not asked.
    #[strum(serialize = "remembered")]
    Remembered,
    /// The provider confirmed the person.
    #[strum(serialize = "confirmed")]
    Confirmed,
    /// The provider cannot be reached; its last confirmation still counts.
    #[strum(serialize = "bridged")]
    Bridged,
    /// The provider refused, or the session has ended.
    #[strum(serialize = "ended")]
    Ended,
    /// The provider cannot be reached, and its last confirmation is too old.
    #[strum(serialize = "unknown")]
    Unknown,
}

impl Rechecked {
    /// Returns the label in metrics.
    pub(super) fn word(self) -> &'static str {
        self.into()
    }
}

/// What became of a notification to administrators.
#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoStaticStr, VariantArray)]
pub enum NotifyOutcome {
    #[strum(serialize = "delivered")]
    Delivered,
    /// An attempt failed; there are more.
    #[strum(serialize = "failed")]
    Failed,
    #[strum(serialize = "given_up")]
    GivenUp,
    /// It was dropped because too many waited.
    #[strum(serialize = "dropped")]
    Dropped,
}

impl NotifyOutcome {
    /// Returns the label in metrics.
    pub(super) fn word(self) -> &'static str {
        self.into()
    }
}

/// Why something was repeated on PostgreSQL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoStaticStr, VariantArray)]
pub enum RetryCause {
    /// Another transaction changed the same rows first.
    #[strum(serialize = "serialization")]
    Serialization,
    /// Two transactions waited for each other.
    #[strum(serialize = "deadlock")]
    Deadlock,
    /// The connection was lost before a transaction began.
    #[strum(serialize = "connection")]
    Connection,
}

impl RetryCause {
    /// Returns the label in metrics.
    pub(super) fn word(self) -> &'static str {
        self.into()
    }
}

/// The outcome of an order at an ACME server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoStaticStr, VariantArray)]
pub enum CertificateOutcome {
    /// It issued a certificate.
    #[strum(serialize = "obtained")]
    Obtained,
    /// It did not, or could not be reached.
    #[strum(serialize = "failed")]
    Failed,
}

impl CertificateOutcome {
    /// Returns the label in metrics.
    pub(super) fn word(self) -> &'static str {
        self.into()
    }
}

/// The outcome of a request to the identity provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoStaticStr, VariantArray)]
pub enum Answered {
    /// 2xx or 3xx.
    #[strum(serialize = "ok")]
    Ok,
    /// 4xx: it refuses a person, a token or this client.
    #[strum(serialize = "refused")]
    Refused,
    /// 5xx.
    #[strum(serialize = "failed")]
    Failed,
    #[strum(serialize = "timed_out")]
    TimedOut,
    /// No connection, no TLS, a failed proxy, or a response that is too large.
    #[strum(serialize = "unreachable")]
    Unreachable,
}

impl Answered {
    /// Returns the label in metrics.
    pub(super) fn word(self) -> &'static str {
        self.into()
    }
}
