//! What is shipped for monitoring names only what a server has: the Grafana dashboard, the alert rules, the runbooks and
//! the documents. `scripts/test-alerts` tries the rules themselves.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use portcullis::config::paths;
use regex_lite::Regex;
use serde_json::{Value, json};

use crate::harness::{Setup, TestApp};
use crate::repository::documents;

/// Labels that Prometheus adds to what it scrapes, and `le`, which histograms have.
const OF_PROMETHEUS: &[&str] = &["job", "instance", "pod", "namespace", "le"];
/// Labels whose values depend on the configuration or on what happened.
const OPEN_LABELS: &[&str] = &["route", "path", "status", "version", "alg", "le"];

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// A service that people can connect: each has its own series.
const A_SERVICE: &str = r#"
[[connection]]
name          = "github"
provider      = "github"
client_id     = "portcullis"
client_secret = "service-secret"
"#;

/// Series by name, each with its labels and their values.
type Series = BTreeMap<String, BTreeMap<String, BTreeSet<String>>>;

/// Returns the series of a server that was used.
async fn series() -> Series {
    let app = TestApp::with(Setup::toml(A_SERVICE)).await;
    let (client, tokens) = app.tokens_of("bob").await;
    client.call_tool(&tokens.access_token, "create-todo", json!({ "title": "x" })).await;
    app.metrics().await; // the admin listener has been asked, too
    let label = Regex::new(r#"([a-z_]+)="([^"]*)""#).unwrap();
    let mut found = Series::new();
    for key in app.metrics().await.keys() {
        let (name, labels) = key.split_once('{').unwrap_or((key, ""));
        let series = found.entry(name.to_owned()).or_default();
        for label in label.captures_iter(labels) {
            series.entry(label[1].to_owned()).or_default().insert(label[2].to_owned());
        }
    }
    // There is one only where a listener has a certificate (`tests/it/server/tls.rs`).
    let sources = ["files", "acme"].map(str::to_owned).into();
    let certificate = [("source".to_owned(), sources)].into();
    found.insert("portcullis_certificate_expires_in_seconds".to_owned(), certificate);
    found
}

/// Returns what is wrong with the series, labels and values that an expression names.
fn unknown_in(expression: &str, known: &Series) -> Vec<String> {
    let name = Regex::new(r"\b((?:portcullis|process)_[a-z0-9_]+)(?:\{([^}]*)\})?").unwrap();
    let matcher = Regex::new(r#"([a-z_]+)\s*(=~|!~|!=|=)\s*"([^"]*)""#).unwrap();
    let grouping = Regex::new(r"\b(?:by|without) \(([^)]*)\)").unwrap();
    let of_any: BTreeSet<&str> =
        known.values().flat_map(|labels| labels.keys().map(String::as_str)).collect();
    let mut wrong = Vec::new();
    for found in name.captures_iter(expression) {
        let Some(labels) = known.get(&found[1]) else {
            wrong.push(format!("{}: there is no such series", &found[1]));
            continue;
        };
        for matched in matcher.captures_iter(found.get(2).map_or("", |labels| labels.as_str())) {
            let (label, operator, value) = (&matched[1], &matched[2], &matched[3]);
            match labels.get(label) {
                None if OF_PROMETHEUS.contains(&label) => {}
                None => wrong.push(format!("{}: it has no label {label}", &found[1])),
                Some(_) if value.contains('$') => {}
                Some(_) if label == "route" => {
                    let routes = value.split('|').filter(|route| !paths::ALL.contains(route));
                    wrong.extend(routes.map(|route| format!("there is no route {route}")));
                }
                Some(_) if OPEN_LABELS.contains(&label) => {}
                Some(values) => {
                    let words =
                        if operator.ends_with('~') { value.split('|') } else { value.split('\n') };
                    let words = words.filter(|word| !values.contains(*word));
                    wrong.extend(
                        words.map(|word| format!("{}: {label} is never {word:?}", &found[1])),
                    );
                }
            }
        }
    }
    for found in grouping.captures_iter(expression) {
        let labels = found[1].split(',').map(str::trim).filter(|label| !label.is_empty());
        let labels =
            labels.filter(|label| !OF_PROMETHEUS.contains(label) && !of_any.contains(label));
        wrong.extend(labels.map(|label| format!("no series has the label {label}")));
    }
    wrong
}

/// The labels that a text shows: `{{ $labels.path }}` in a rule, `{{path}}` in a legend.
fn shown_labels(text: &str) -> BTreeSet<String> {
    let shown = Regex::new(r"\{\{ ?(?:\$labels\.)?([a-z_]+) ?\}\}").unwrap();
    shown.captures_iter(text).map(|found| found[1].to_owned()).collect()
}

#[tokio::test]
async fn a_series_or_label_that_is_not_there_is_found() {
    let known = series().await;
    for (expression, problems) in [
        ("rate(portcullis_events_total{event=\"refresh_reused\"}[5m])", 0),
        ("rate(portcullis_event_total[5m])", 1),
        ("portcullis_events_total{evnt=\"refresh_reused\", job=\"x\"}", 1),
        ("portcullis_events_total{event=~\"refresh_reused|refresh_resued\"}", 1),
        ("sum by (event, job) (portcullis_events_total)", 0),
        ("sum by (evnt) (portcullis_events_total)", 1),
        ("portcullis_http_requests_total{route=~\"/token|/tokens\", status=~\"5..\"}", 1),
    ] {
        assert_eq!(unknown_in(expression, &known).len(), problems, "{expression}");
    }
}

/// Returns the panels of the dashboard.
fn panels(dashboard: &Value) -> &[Value] {
    dashboard["panels"].as_array().unwrap()
}

#[tokio::test]
async fn the_dashboard_names_only_series_and_labels_that_exist() {
    let dashboard: Value =
        serde_json::from_str(&read("packaging/grafana/portcullis.json")).unwrap();
    let known = series().await;
    let (mut wrong, mut queries) = (Vec::new(), 0);
    for panel in panels(&dashboard) {
        for target in panel["targets"].as_array().into_iter().flatten() {
            let (query, legend) =
                (target["expr"].as_str().unwrap(), target["legendFormat"].as_str());
            queries += 1;
            let mut problems = unknown_in(query, &known);
            for label in shown_labels(legend.unwrap()) {
                let grouped = query.contains(&format!("by ({label}"))
                    || query.contains(&format!(", {label})"));
                if !grouped && label != "instance" {
                    problems
                        .push(format!("the legend shows {label}, which the query has summed up"));
                }
            }
            let title = panel["title"].as_str().unwrap();
            wrong.extend(problems.into_iter().map(|problem| format!("{title}: {problem}")));
        }
    }
    let variables = dashboard["templating"]["list"].as_array().unwrap();
    for variable in variables {
        wrong.extend(unknown_in(variable["definition"].as_str().unwrap_or(""), &known));
    }
    assert!(queries > 40, "only {queries} queries found");
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn the_dashboard_can_be_imported() {
    let dashboard: Value =
        serde_json::from_str(&read("packaging/grafana/portcullis.json")).unwrap();
    let ids: Vec<u64> =
        panels(&dashboard).iter().map(|panel| panel["id"].as_u64().unwrap()).collect();
    let unique: BTreeSet<u64> = ids.iter().copied().collect();
    assert_eq!(unique.len(), ids.len(), "an id is given twice: {ids:?}");
    let mut taken = BTreeSet::new();
    for panel in panels(&dashboard) {
        let title = panel["title"].as_str().unwrap();
        let place = |side: &str| panel["gridPos"][side].as_u64().unwrap();
        for x in place("x")..place("x") + place("w") {
            assert!(x < 24, "{title} is wider than the page");
            for y in place("y")..place("y") + place("h") {
                assert!(taken.insert((x, y)), "{title} covers another panel");
            }
        }
        if panel["type"] == "row" {
            continue;
        }
        assert!(!panel["description"].as_str().unwrap().is_empty(), "{title} explains nothing");
        for target in panel["targets"].as_array().unwrap() {
            assert_eq!(target["datasource"]["uid"], "${datasource}", "{title}");
        }
    }
    let variables: Vec<&str> = dashboard["templating"]["list"]
        .as_array()
        .unwrap()
        .iter()
        .map(|variable| variable["name"].as_str().unwrap())
        .collect();
    assert_eq!(variables, ["datasource", "job", "instance", "path"]);
    assert!(dashboard["id"].is_null(), "an id belongs to one Grafana");
}

/// An alert rule, as far as it is written one key a line.
struct AlertRule {
    name: String,
    text: String,
}

impl AlertRule {
    fn value(&self, key: &str) -> &str {
        let line = self.text.lines().find_map(|line| line.trim_start().strip_prefix(key));
        line.unwrap_or_else(|| panic!("{} has no {key}", self.name)).trim()
    }
}

fn alerts() -> Vec<AlertRule> {
    let text = read("packaging/prometheus/alerts.yaml");
    let rules = text.split("- alert: ").skip(1).map(|rule| {
        let (name, text) = rule.split_once('\n').unwrap();
        // Comments of the next rule are not this rule's.
        let lines = text.lines().filter(|line| !line.trim_start().starts_with('#'));
        AlertRule { name: name.to_owned(), text: lines.collect::<Vec<_>>().join("\n") }
    });
    rules.collect()
}

#[tokio::test]
async fn the_alert_rules_name_only_series_and_labels_that_exist() {
    let known = series().await;
    let of_any: BTreeSet<String> =
        known.values().flat_map(|labels| labels.keys().cloned()).collect();
    let mut wrong = Vec::new();
    for rule in alerts() {
        let named =
            rule.text.matches("portcullis_").count() + rule.text.matches("process_").count();
        assert!(
            named > 0 || rule.name == "PortcullisDown",
            "{} asks for nothing of ours",
            rule.name
        );
        let mut problems = unknown_in(&rule.text, &known);
        for label in shown_labels(&rule.text) {
            let replaced = rule.text.contains(&format!("\"{label}\""));
            if !of_any.contains(&label) && !OF_PROMETHEUS.contains(&label.as_str()) && !replaced {
                problems.push(format!("it shows the label {label}, which no series has"));
            }
        }
        wrong.extend(problems.into_iter().map(|problem| format!("{}: {problem}", rule.name)));
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn every_alert_says_how_bad_it_is_and_leads_to_its_runbook() {
    let alerts = alerts();
    assert!(alerts.len() >= 10, "{}", alerts.len());
    let names: BTreeSet<&str> = alerts.iter().map(|rule| rule.name.as_str()).collect();
    assert_eq!(names.len(), alerts.len(), "a name is given twice");
    for rule in &alerts {
        assert!(["critical", "warning"].contains(&rule.value("severity:")), "{}", rule.name);
        assert!(rule.value("summary:").len() > 10, "{}", rule.name);
        assert!(rule.value("description:").len() > 10, "{}", rule.name);
        let runbook = format!("docs/operations/runbooks.md#{}", rule.name.to_lowercase());
        assert_eq!(rule.value("runbook_url:"), runbook);
    }
    let runbooks = read("docs/operations/runbooks.md");
    let headings: BTreeSet<&str> = runbooks
        .lines()
        .filter_map(|line| line.strip_prefix("## Portcullis").map(|_| &line[3..]))
        .collect();
    assert_eq!(headings, names, "the runbooks and the rules differ");
    for name in &names {
        let text = runbooks.split(&format!("## {name}\n")).nth(1).unwrap();
        let text = text.split("\n## ").next().unwrap();
        for part in ["**Meaning.**", "**Confirm.**", "**Do.**"] {
            assert!(text.contains(part), "the runbook of {name} lacks {part}");
        }
    }
    let monitoring = read("docs/operations/monitoring.md");
    let missing: Vec<&&str> = names
        .iter()
        .filter(|name| {
            !monitoring.contains(&format!("[`{name}`](runbooks.md#{})", name.to_lowercase()))
        })
        .collect();
    assert!(missing.is_empty(), "not in docs/operations/monitoring.md: {missing:?}");
}

#[tokio::test]
async fn monitoring_md_explains_every_series_and_no_other() {
    let text = read("docs/operations/monitoring.md");
    let table = text.split("\n| series | meaning |\n|---|---|\n").nth(1).unwrap();
    let first = table.lines().take_while(|line| line.starts_with('|'));
    let first: String = first.map(|line| line.split('|').nth(1).unwrap()).collect();
    let explained: BTreeSet<String> =
        documents::code_spans(&first).map(|name| format!("portcullis_{name}")).collect();
    let known = series().await;
    // A histogram is three series, and the table has its name.
    let suffixes = ["_bucket", "_sum", "_count"];
    let there: BTreeSet<String> = known
        .keys()
        .filter(|name| name.starts_with("portcullis_"))
        .map(|name| {
            let of_histogram = suffixes.iter().find_map(|suffix| name.strip_suffix(suffix));
            let family =
                of_histogram.filter(|family| known.contains_key(&format!("{family}_bucket")));
            family.unwrap_or(name).to_owned()
        })
        .collect();
    assert_eq!(explained, there);
}

#[tokio::test]
async fn documents_name_only_series_that_exist() {
    let known = series().await;
    let name = Regex::new(r"`((?:portcullis|process)_[a-z0-9_]+)[`{ ]").unwrap();
    let mut wrong = Vec::new();
    for document in
        ["monitoring", "runbooks", "kubernetes", "replicas", "run", "notifications", "outages"]
    {
        let text = read(&format!("docs/operations/{document}.md"));
        // The name of a histogram stands for its three series.
        let is_known =
            |name: &str| known.contains_key(name) || known.contains_key(&format!("{name}_bucket"));
        let missing = name.captures_iter(&text).filter(|found| !is_known(&found[1]));
        wrong.extend(missing.map(|found| format!("{document}.md: {}", &found[1])));
        let queries =
            text.split("```promql\n").skip(1).map(|block| block.split("```").next().unwrap());
        wrong.extend(queries.flat_map(|query| unknown_in(query, &known)));
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// The chart is released with the program, and names the image of its version.
#[test]
fn the_chart_has_the_version_of_the_program() {
    let chart = read("packaging/chart/Chart.yaml");
    let value = |key: &str| {
        let line = chart.lines().find_map(|line| line.strip_prefix(key)).unwrap();
        line.trim().trim_matches('"').to_owned()
    };
    assert_eq!(value("version:"), env!("CARGO_PKG_VERSION"));
    assert_eq!(value("appVersion:"), env!("CARGO_PKG_VERSION"));
}

/// The values that a reader finds in the table are those that the chart has.
#[test]
fn the_readme_of_the_chart_explains_every_value() {
    let values = read("packaging/chart/values.yaml");
    let readme = read("packaging/chart/README.md");
    let rows: BTreeSet<&str> = readme
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split('`').next())
        .map(|key| key.split('.').next().unwrap())
        .collect();
    let keys: BTreeSet<&str> = values
        .lines()
        .filter(|line| line.starts_with(|first: char| first.is_ascii_lowercase()))
        .map(|line| line.split(':').next().unwrap())
        .collect();
    assert!(keys.len() > 30, "{keys:?}");
    assert_eq!(rows, keys);
}
