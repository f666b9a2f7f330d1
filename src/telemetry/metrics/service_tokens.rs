//! People's tokens of services: what became of the calls that needed one, and the connections that need their
//! person.

use std::borrow::Cow;

use parking_lot::RwLock;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;
use strum::VariantArray as _;

use super::super::families::{Counters, Gauges, Labels};
use super::outcomes::ServiceTokenOutcome;

/// The broken connections of one service, for [`super::Snapshot`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokenConnections {
    /// The name of the configured connection.
    pub service: String,
    /// How many people have to connect it again.
    pub people: i64,
}

fn of(service: &str, outcome: ServiceTokenOutcome) -> Labels<2> {
    [("service", Cow::Owned(service.to_owned())), ("outcome", Cow::Borrowed(outcome.word()))]
}

/// The time series of all services.
pub(super) struct ServiceTokenSeries {
    calls: Counters<2>,
    broken: Gauges<1>,
    /// The counters of each service, by outcome. A list, because a server has few services.
    known: RwLock<Vec<(String, Vec<Counter>)>>,
}

impl ServiceTokenSeries {
    pub(super) fn register(r: &mut Registry) -> Self {
        let (calls, broken) = (Counters::default(), Gauges::default());
        let help = "Calls that needed a person's token of a service, by service and outcome";
        r.register("upstream_tokens", help, calls.clone());
        let help = "People who have to connect a service again, by service";
        r.register("connections_broken", help, broken.clone());
        Self { calls, broken, known: RwLock::default() }
    }

    pub(super) fn count(&self, service: &str, outcome: ServiceTokenOutcome) {
        if let Some((_, counters)) = self.known.read().iter().find(|(known, _)| known == service) {
            counters[outcome as usize].inc();
            return;
        }
        let of_service =
            |outcome: &ServiceTokenOutcome| self.calls.get_or_create_owned(&of(service, *outcome));
        let counters: Vec<Counter> = ServiceTokenOutcome::VARIANTS.iter().map(of_service).collect();
        counters[outcome as usize].inc();
        let mut known = self.known.write();
        if !known.iter().any(|(known, _)| known == service) {
            known.push((service.to_owned(), counters));
        }
    }

    /// Sets the gauges, and begins the counters of each service at zero. Services that are no longer configured
    /// have no gauge; what the database did not tell stays as it was.
    pub(super) fn set(&self, broken: Option<&[BrokenConnections]>) {
        let Some(broken) = broken else { return };
        self.broken.clear();
        for BrokenConnections { service, people } in broken {
            let labels = [("service", Cow::Owned(service.clone()))];
            self.broken.get_or_create(&labels).set(*people);
            for outcome in ServiceTokenOutcome::VARIANTS {
                drop(self.calls.get_or_create(&of(service, *outcome)));
            }
        }
    }
}
