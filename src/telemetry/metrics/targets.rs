//! The targets of the gateway: whether each can be reached, and its failures by class.

use std::borrow::Cow;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;
use strum::{IntoStaticStr, VariantArray};

use super::super::families::{Counters, Gauges};

/// Why a target of the gateway failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoStaticStr, VariantArray)]
pub enum TargetFailure {
    /// Its host name has no address.
    #[strum(serialize = "name")]
    Name,
    /// Nothing listens at its port.
    #[strum(serialize = "refused")]
    Refused,
    /// There was no connection for another reason.
    #[strum(serialize = "unreachable")]
    Unreachable,
    /// There was no connection within `connect_timeout`.
    #[strum(serialize = "connect_timeout")]
    ConnectTimeout,
    /// Its certificate is not trusted.
    #[strum(serialize = "certificate")]
    Certificate,
    /// It refuses our certificate, or wants one and we have none.
    #[strum(serialize = "client_certificate")]
    ClientCertificate,
    /// TLS failed for another reason.
    #[strum(serialize = "tls")]
    Tls,
    /// It did not begin its response in time.
    #[strum(serialize = "timeout")]
    Timeout,
    /// The connection broke off before the response, or the response cannot be passed on.
    #[strum(serialize = "broken")]
    Broken,
    /// It responded with 5xx.
    #[strum(serialize = "status")]
    Status,
}

impl TargetFailure {
    /// Returns the label in metrics, which the log uses too.
    pub fn word(self) -> &'static str {
        self.into()
    }

    /// Returns the failure with this place in the list of all.
    pub fn at(place: u8) -> Self {
        Self::VARIANTS.get(usize::from(place)).copied().unwrap_or(Self::Broken)
    }

    /// Whether no connection could be used. A check that connects finds out when that is over.
    pub const fn is_of_the_connection(self) -> bool {
        match self {
            Self::Name
            | Self::Refused
            | Self::Unreachable
            | Self::ConnectTimeout
            | Self::Certificate
            | Self::ClientCertificate
            | Self::Tls => true,
            Self::Timeout | Self::Broken | Self::Status => false,
        }
    }
}

/// The failures of one target, by class.
pub struct TargetCounters(Vec<Counter>);

impl TargetCounters {
    /// Counts a failure.
    pub fn failed(&self, failure: TargetFailure) {
        self.0[failure as usize].inc();
    }
}

/// Whether a target can be reached, for [`super::Snapshot`].
#[derive(Clone, Debug)]
pub struct TargetUp {
    /// The path of its resource.
    pub path: String,
    /// Its label.
    pub target: String,
    /// Whether its last call or check succeeded, or there was none yet.
    pub up: bool,
}

/// The time series of all targets.
pub(super) struct TargetSeries {
    up: Gauges<2>,
    failures: Counters<3>,
}

impl TargetSeries {
    pub(super) fn register(r: &mut Registry) -> Self {
        let (up, failures) = (Gauges::default(), Counters::default());
        let help = "0 after the last call or check of a target failed, by path and target";
        r.register("target_up", help, up.clone());
        let help = "Calls that a target failed, by path, target and class";
        r.register("target_failures", help, failures.clone());
        Self { up, failures }
    }

    pub(super) fn counters(&self, path: &str, target: &str) -> TargetCounters {
        let counter = |failure: &TargetFailure| {
            let labels = [
                ("path", Cow::Owned(path.to_owned())),
                ("target", Cow::Owned(target.to_owned())),
                ("class", Cow::Borrowed(failure.word())),
            ];
            self.failures.get_or_create_owned(&labels)
        };
        TargetCounters(TargetFailure::VARIANTS.iter().map(counter).collect())
    }

    /// Sets the gauges. Targets that are no longer configured disappear.
    pub(super) fn set(&self, targets: &[TargetUp]) {
        self.up.clear();
        for TargetUp { path, target, up } in targets {
            let labels =
                [("path", Cow::Owned(path.clone())), ("target", Cow::Owned(target.clone()))];
            self.up.get_or_create(&labels).set(i64::from(*up));
        }
    }
}
