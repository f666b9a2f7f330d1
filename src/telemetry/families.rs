//! Families of metrics: one time series for each value of their labels.

use std::borrow::Cow;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

pub(super) type Label = (&'static str, Cow<'static, str>);
pub(super) type Labels<const N: usize> = [Label; N];
pub(super) type Counters<const N: usize> = Family<Labels<N>, Counter>;
pub(super) type Gauges<const N: usize> = Family<Labels<N>, Gauge>;
pub(super) type Histograms<const N: usize> = Family<Labels<N>, Histogram, fn() -> Histogram>;

/// Buckets of response times in seconds, from a cached document to a slow identity provider.
const SECONDS: [f64; 14] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0];

/// Returns a histogram of response times.
pub(super) fn seconds() -> Histogram {
    Histogram::new(SECONDS)
}

pub(super) fn one(name: &'static str, value: &'static str) -> Labels<1> {
    [(name, Cow::Borrowed(value))]
}

/// Registers a counter.
pub(super) fn counter(r: &mut Registry, name: &str, help: &str) -> Counter {
    let counter = Counter::default();
    r.register(name, help, counter.clone());
    counter
}

/// Registers a gauge.
pub(super) fn gauge(r: &mut Registry, name: &str, help: &str) -> Gauge {
    let gauge = Gauge::default();
    r.register(name, help, gauge.clone());
    gauge
}

/// Registers a histogram of response times.
pub(super) fn duration(r: &mut Registry, name: &str, help: &str) -> Histogram {
    let histogram = seconds();
    r.register_with_unit(name, help, Unit::Seconds, histogram.clone());
    histogram
}

/// Registers a counter for each value of a label. Returns them in the order of `values`.
pub(super) fn counters(
    r: &mut Registry,
    (name, help): (&str, &str),
    label: &'static str,
    values: impl IntoIterator<Item = &'static str>,
) -> Vec<Counter> {
    let family = Counters::<1>::default();
    r.register(name, help, family.clone());
    values.into_iter().map(|value| family.get_or_create_owned(&one(label, value))).collect()
}
