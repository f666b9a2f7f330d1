//! Metrics for OTLP, made from the text of `/metrics`: both show the same numbers.

use std::collections::BTreeMap;

use super::super::metrics::MCP_OPERATIONS;
use super::messages::{
    CUMULATIVE, OtlpAttribute, OtlpGauge, OtlpHistogram, OtlpHistogramPoint, OtlpMetric,
    OtlpNumber, OtlpNumberPoint, OtlpPoints, OtlpSum, attribute, text,
};

/// The name of the metric [`MCP_OPERATIONS`] in the conventions of OpenTelemetry for MCP.
const MCP_OPERATION_DURATION: &str = "mcp.server.operation.duration";

type SampleLabels = Vec<(String, String)>;

/// A family of the text, while its lines are read.
#[derive(Default)]
struct TextFamily {
    name: String,
    help: String,
    unit: String,
    kind: String,
    numbers: Vec<(SampleLabels, OtlpNumber)>,
    histograms: BTreeMap<SampleLabels, TextHistogram>,
}

/// The buckets of a histogram: upper bounds, and how many values lie below each.
#[derive(Default)]
struct TextHistogram {
    buckets: Vec<(f64, u64)>,
    sum: f64,
    count: u64,
}

/// Reads a text of `OpenMetrics`. `time`: since when counters count, and now.
pub(super) fn of_text(open_metrics: &str, time: (u64, u64)) -> Vec<OtlpMetric> {
    let mut families: Vec<TextFamily> = Vec::new();
    for line in open_metrics.lines() {
        match line.strip_prefix("# ") {
            Some(comment) => begin(&mut families, comment),
            None => {
                if let (Some(family), Some((name, labels, value))) =
                    (families.last_mut(), sample(line))
                {
                    family.add(name, labels, value);
                }
            }
        }
    }
    families.into_iter().filter_map(|family| family.metric(time)).collect()
}

/// Reads a `HELP`, `TYPE` or `UNIT` line. The first one of a family begins it.
fn begin(families: &mut Vec<TextFamily>, comment: &str) {
    let mut words = comment.splitn(3, ' ');
    let (Some(what), Some(name)) = (words.next(), words.next()) else { return };
    let said = words.next().unwrap_or_default().to_owned();
    if families.last().is_none_or(|family| family.name != name) {
        families.push(TextFamily { name: name.to_owned(), ..TextFamily::default() });
    }
    let Some(family) = families.last_mut() else { return };
    match what {
        "HELP" => family.help = said,
        "TYPE" => family.kind = said,
        "UNIT" => family.unit = said,
        _ => {}
    }
}

/// Reads a sample: its name, its labels and its value.
fn sample(line: &str) -> Option<(&str, SampleLabels, &str)> {
    let (series, value) = line.rsplit_once(' ')?;
    let Some((name, labels)) = series.split_once('{') else {
        return Some((series, Vec::new(), value));
    };
    Some((name, labels_of(labels.strip_suffix('}')?)?, value))
}

/// Reads `a="x",b="y"`. A backslash escapes the character after it.
fn labels_of(mut rest: &str) -> Option<SampleLabels> {
    let mut labels = Vec::new();
    while !rest.is_empty() {
        let (name, quoted) = rest.split_once("=\"")?;
        let (mut value, mut characters) = (String::new(), quoted.char_indices());
        let end = loop {
            match characters.next()? {
                (at, '"') => break at,
                (_, '\\') => match characters.next()?.1 {
                    'n' => value.push('\n'),
                    escaped => value.push(escaped),
                },
                (_, plain) => value.push(plain),
            }
        };
        labels.push((name.to_owned(), value));
        let after = quoted.get(end + 1..)?;
        rest = after.strip_prefix(',').unwrap_or(after);
    }
    Some(labels)
}

fn number(text: &str) -> Option<OtlpNumber> {
    match text.parse() {
        Ok(whole) => Some(OtlpNumber::Whole(whole)),
        Err(_) => text.parse().ok().map(OtlpNumber::Double),
    }
}

impl TextFamily {
    fn add(&mut self, name: &str, mut labels: SampleLabels, value: &str) {
        if self.kind != "histogram" {
            self.numbers.extend(number(value).map(|number| (labels, number)));
            return;
        }
        let bound = labels.iter().position(|(name, _)| name == "le");
        let bound = bound.map(|at| labels.remove(at).1);
        let histogram = self.histograms.entry(labels).or_default();
        match (name.strip_prefix(self.name.as_str()), bound) {
            (Some("_bucket"), Some(bound)) => {
                let bound = if bound == "+Inf" { Ok(f64::INFINITY) } else { bound.parse() };
                if let (Ok(bound), Ok(below)) = (bound, value.parse()) {
                    histogram.buckets.push((bound, below));
                }
            }
            (Some("_sum"), _) => histogram.sum = value.parse().unwrap_or_default(),
            (Some("_count"), _) => histogram.count = value.parse().unwrap_or_default(),
            _ => {}
        }
    }

    fn metric(self, time: (u64, u64)) -> Option<OtlpMetric> {
        let is_operations = self.name == format!("portcullis_{MCP_OPERATIONS}_seconds");
        let attributes = |labels: SampleLabels| attributes(labels, is_operations);
        let point = |(labels, value): (SampleLabels, OtlpNumber)| OtlpNumberPoint {
            attributes: attributes(labels),
            start_time_unix_nano: time.0,
            time_unix_nano: time.1,
            value: Some(value),
        };
        let data = match self.kind.as_str() {
            "counter" => OtlpPoints::Sum(OtlpSum {
                data_points: self.numbers.into_iter().map(point).collect(),
                aggregation_temporality: CUMULATIVE,
                is_monotonic: true,
            }),
            "gauge" | "info" => OtlpPoints::Gauge(OtlpGauge {
                data_points: self.numbers.into_iter().map(point).collect(),
            }),
            "histogram" => {
                let points = self.histograms.into_iter();
                let points =
                    points.map(|(labels, histogram)| histogram.point(attributes(labels), time));
                OtlpPoints::Histogram(OtlpHistogram {
                    data_points: points.collect(),
                    aggregation_temporality: CUMULATIVE,
                })
            }
            _ => return None,
        };
        let name = match self.kind.as_str() {
            "info" => format!("{}_info", self.name),
            _ if is_operations => MCP_OPERATION_DURATION.to_owned(),
            _ => self.name,
        };
        let unit = if self.unit == "seconds" { "s".to_owned() } else { self.unit };
        Some(OtlpMetric { name, description: self.help, unit, data: Some(data) })
    }
}

impl TextHistogram {
    fn point(self, attributes: Vec<OtlpAttribute>, time: (u64, u64)) -> OtlpHistogramPoint {
        let mut before = 0;
        let counts = self.buckets.iter().map(|(_, below)| {
            let within = below.saturating_sub(before);
            before = *below;
            within
        });
        OtlpHistogramPoint {
            attributes,
            start_time_unix_nano: time.0,
            time_unix_nano: time.1,
            count: self.count,
            sum: Some(self.sum),
            bucket_counts: counts.collect(),
            explicit_bounds: self
                .buckets
                .iter()
                .map(|(bound, _)| *bound)
                .filter(|bound| bound.is_finite())
                .collect(),
        }
    }
}

/// Returns the labels as attributes. Those of the calls of MCP get the names of the conventions, and a call
/// that did not fail has no `error.type`.
fn attributes(labels: SampleLabels, is_operations: bool) -> Vec<OtlpAttribute> {
    let labels = labels.into_iter().filter(|(_, value)| !is_operations || !value.is_empty());
    let named = |(name, value): (String, String)| {
        let name = match name.as_str() {
            "method" if is_operations => "mcp.method.name",
            "error_type" if is_operations => "error.type",
            "path" if is_operations => "portcullis.path",
            other => other,
        };
        attribute(name, text(value))
    };
    labels.map(named).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::metrics::{Metrics, Snapshot};

    #[test]
    fn all_families_of_the_text_are_metrics_with_the_same_numbers() {
        let metrics = Metrics::new();
        metrics.event("code_redeemed");
        let calls = metrics.calls("/a\"b\\c");
        let begun = tokio::time::Instant::now();
        calls.operation(("tools/call", "tool_error"), begun);
        calls.operation(("tools/call", ""), begun);
        calls.operation(("tools/call", ""), begun);
        let open_metrics = metrics.text(&Snapshot::default()).unwrap();

        let found = of_text(&open_metrics, (1, 2));

        let families = open_metrics.lines().filter(|line| line.starts_with("# TYPE ")).count();
        assert_eq!(found.len(), families);
        let named = |name: &str| found.iter().find(|metric| metric.name == name).unwrap();
        let Some(OtlpPoints::Sum(events)) = &named("portcullis_events").data else { panic!() };
        assert!(events.is_monotonic);
        let ones =
            events.data_points.iter().filter(|point| point.value == Some(OtlpNumber::Whole(1)));
        let one: Vec<_> = ones.collect();
        assert_eq!(one.len(), 1);
        assert_eq!(one[0].attributes, [attribute("event", text("code_redeemed"))]);
        assert!(matches!(named("portcullis_build_info").data, Some(OtlpPoints::Gauge(_))));
        let operations = named(MCP_OPERATION_DURATION);
        assert_eq!(operations.unit, "s");
        let Some(OtlpPoints::Histogram(operations)) = &operations.data else { panic!() };
        let counts: Vec<u64> = operations.data_points.iter().map(|point| point.count).collect();
        assert_eq!(counts, [2, 1]);
        let failed = &operations.data_points[1];
        assert_eq!(failed.bucket_counts.iter().sum::<u64>(), 1);
        assert_eq!(failed.bucket_counts.len(), failed.explicit_bounds.len() + 1);
        let path = attribute("portcullis.path", text("/a\"b\\c"));
        let error = attribute("error.type", text("tool_error"));
        assert!(failed.attributes.contains(&path) && failed.attributes.contains(&error));
        assert_eq!(operations.data_points[0].attributes.len(), 2);
    }
}
