//! Requests by route and status.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::RwLock;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use strum::IntoStaticStr;

use super::super::families::{Counters, Histograms, Labels, seconds};

/// Statuses with a time series of their own. Others, which an MCP server may send, count as `other`.
const STATUSES: [u16; 30] = [
    200, 201, 202, 204, 206, 301, 302, 303, 304, 307, 308, 400, 401, 403, 404, 405, 406, 408, 409,
    410, 413, 414, 415, 421, 429, 431, 500, 502, 503, 504,
];
/// Most routes with time series of their own, more than any configuration has. Further ones count as
/// [`OTHER`].
const MOST: usize = 500;
/// The label of everything else.
const OTHER: &str = "other";

/// The listener that a request came through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, IntoStaticStr)]
pub enum ListenerKind {
    /// The listener for clients and people.
    #[strum(serialize = "public")]
    Public,
    #[strum(serialize = "admin")]
    Admin,
    /// The listener without TLS that redirects to https.
    #[strum(serialize = "http")]
    Plain,
}

impl ListenerKind {
    /// Returns the label in metrics.
    pub(super) fn word(self) -> &'static str {
        self.into()
    }
}

/// The metrics of one route.
pub struct RouteMetrics {
    labels: Labels<2>,
    requests: Counters<3>,
    statuses: [OnceLock<Counter>; STATUSES.len() + 1],
    seconds: Histogram,
}

impl RouteMetrics {
    /// Counts a response, and the time until its headers were ready.
    pub fn answered(&self, status: u16, took: Duration) {
        let index = STATUSES.binary_search(&status).unwrap_or(STATUSES.len());
        if let Some(counter) = self.statuses.get(index) {
            counter.get_or_init(|| self.counter(index)).inc();
        }
        self.seconds.observe(took.as_secs_f64());
    }

    fn counter(&self, index: usize) -> Counter {
        let status = STATUSES.get(index).map_or(Cow::Borrowed(OTHER), |s| s.to_string().into());
        let [listener, route] = self.labels.clone();
        self.requests.get_or_create_owned(&[listener, route, ("status", status)])
    }
}

/// The metrics of all routes that were requested so far.
pub(super) struct Routes {
    requests: Counters<3>,
    seconds: Histograms<2>,
    /// One map for each listener.
    known: [RwLock<HashMap<String, Arc<RouteMetrics>>>; 3],
}

impl Routes {
    pub(super) fn register(r: &mut Registry) -> Self {
        let requests = Counters::default();
        r.register("http_requests", "Requests by route and status", requests.clone());
        let duration = Histograms::new_with_constructor(seconds);
        let help = "Until the head of an answer was ready, by route";
        r.register_with_unit("http_request_duration", help, Unit::Seconds, duration.clone());
        Self { requests, seconds: duration, known: Default::default() }
    }

    pub(super) fn of(&self, listener: ListenerKind, template: &str) -> Arc<RouteMetrics> {
        let known = &self.known[listener as usize];
        if let Some(route) = known.read().get(template) {
            return Arc::clone(route);
        }
        let mut known = known.write();
        let template = if known.len() < MOST { template } else { OTHER };
        let route = known.entry(template.to_owned()).or_insert_with(|| {
            let labels: Labels<2> =
                [("listener", listener.word().into()), ("route", Cow::Owned(template.to_owned()))];
            Arc::new(RouteMetrics {
                requests: self.requests.clone(),
                statuses: std::array::from_fn(|_| OnceLock::new()),
                seconds: self.seconds.get_or_create_owned(&labels),
                labels,
            })
        });
        Arc::clone(route)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_in_order() {
        assert!(STATUSES.is_sorted());
    }

    #[test]
    fn made_up_routes_are_one() {
        let routes = Routes::register(&mut Registry::default());
        for number in 0..2 * MOST {
            routes.of(ListenerKind::Public, &format!("/{number}"));
        }
        let known = routes.known[0].read().len();
        assert!(known <= MOST + 1, "{known}");
    }
}
