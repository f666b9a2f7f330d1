//! How telemetry gets to a collector: its settings, collectors that fail, metrics and log lines.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value as Number;
use portcullis::config::Config;
use serde_json::json;
use tokio::net::TcpListener;

use crate::cli::check::{check_with, finding};
use crate::harness::client::McpClient;
use crate::harness::collector::{Collector, attributes, hex};
use crate::harness::process::{Served, run};
use crate::harness::recorder::Recorder;
use crate::harness::{Setup, TestApp};

/// What a test waits for must come within this time; nothing depends on how soon.
const PATIENCE: Duration = Duration::from_mins(1);

#[tokio::test]
async fn the_collector_gets_every_metric_of_a_scrape() {
    let collector = Collector::start().await;
    let app = TestApp::with(collector.setup("traces = 0")).await;
    let (client, tokens) = app.tokens_of("bob").await;
    client.rpc(&tokens.access_token, "tools/list", json!({})).await.assert_status(200);

    app.export().await;

    assert!(collector.messages("traces").is_empty() && collector.messages("logs").is_empty());
    let names: Vec<String> = collector.metrics().into_iter().map(|metric| metric.name).collect();
    for family in [
        "portcullis_http_requests",
        "portcullis_events",
        "portcullis_commit_duration_seconds",
        "portcullis_build_info",
        "portcullis_ready",
        "portcullis_telemetry_dropped",
        "mcp.server.operation.duration",
        "process_start_time_seconds",
    ] {
        assert!(names.iter().any(|name| name == family), "{family}: {names:?}");
    }
    let events = collector.metrics().into_iter().find(|one| one.name == "portcullis_events");
    let Some(Data::Sum(events)) = events.unwrap().data else { panic!() };
    let redeemed = events.data_points.into_iter().find(|point| {
        attributes(point.attributes.clone()).get("event").is_some_and(|e| e == "code_redeemed")
    });
    let one = Number::AsInt(1);
    assert_eq!(redeemed.unwrap().value, Some(one));
}

#[tokio::test]
async fn te_03_a_collector_that_refuses_costs_no_request_and_what_is_lost_is_counted() {
    let collector = Collector::start().await;
    collector.recorder.answer_always(400);
    let app = TestApp::with(collector.setup("traces = 1")).await;

    let (client, tokens) = app.tokens_of("alice").await;
    let call = client.call_tool(&tokens.access_token, "get-todos", json!({})).await;
    call.assert_status(200);
    app.export().await;

    let metrics = app.metrics().await;
    let dropped = |signal: &str| {
        metrics[&format!("portcullis_telemetry_dropped_total{{signal=\"{signal}\"}}")]
    };
    assert!(dropped("traces") >= 5.0, "{}", dropped("traces"));
    assert!(dropped("metrics") >= 1.0);
    assert!(dropped("logs").abs() < f64::EPSILON);
    // It takes them again: only what came meanwhile is lost.
    collector.recorder.answer_always(200);
    client.call_tool(&tokens.access_token, "get-todos", json!({})).await.assert_status(200);
    app.export().await;
    assert!(!collector.metrics().is_empty());
}

#[tokio::test]
async fn te_03_a_collector_that_hangs_costs_no_request_and_delays_shutdown_only_briefly() {
    // It accepts connections and never answers.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let holding = tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok((stream, _)) = listener.accept().await {
            held.push(stream);
        }
    });
    let setup = Setup::toml(format!("[telemetry]\notlp = \"http://{address}\"\ntraces = 1"));
    let mut app = TestApp::with(setup).await;

    let (client, tokens) = app.tokens_of("alice").await;
    let call = client.call_tool(&tokens.access_token, "get-todos", json!({})).await;
    call.assert_status(200);

    tokio::time::timeout(PATIENCE, app.stop()).await.expect("shutdown waits for the collector");
    holding.abort();
}

#[tokio::test]
async fn what_waits_at_a_clean_shutdown_is_still_delivered() {
    let collector = Collector::start().await;
    let mut app = TestApp::with(collector.setup("traces = 1")).await;
    app.tokens_of("alice").await;

    app.stop().await;

    assert_eq!(collector.span("POST /token").attribute("http.response.status_code"), "200");
    assert!(!collector.metrics().is_empty());
}

/// The configuration of a server with these variables, and with these keys of `[telemetry]`.
fn loaded(keys: &str, env: &[(&str, &str)]) -> Result<(Config, String), String> {
    let text = format!(
        "public_url = \"http://localhost:8000\"\n[upstream]\nprovider = \"oidc\"\n\
         issuer = \"https://id.example.com\"\nclient_id = \"c\"\nclient_secret = {{ env = \"S\" }}\n\
         [[resource]]\npath = \"/mcp\"\n[telemetry]\n{keys}"
    );
    let env: BTreeMap<String, String> = [("S", "secret")]
        .iter()
        .chain(env)
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    let loaded = Config::load(Some((Path::new("portcullis.toml"), text)), &env);
    let loaded = loaded.map_err(|problems| problems.to_string())?;
    let shown = format!("{}\n{}", loaded.show(), loaded.warnings.join("\n"));
    Ok((loaded.config, shown))
}

#[test]
fn the_variables_of_opentelemetry_count_where_a_key_is_absent() {
    let env = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "https://collector.example.com/otlp"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "x-api-key=abc%3D1,Authorization=Basic%20Zm9v"),
        ("OTEL_TRACES_SAMPLER", "parentbased_traceidratio"),
        ("OTEL_TRACES_SAMPLER_ARG", "0.25"),
        ("OTEL_SERVICE_NAME", "gate"),
        ("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=pro%20d,service.name=other"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "nonsense that nothing reads"),
    ];
    let (config, shown) = loaded("", &env).unwrap();
    let telemetry = config.telemetry;
    assert_eq!(telemetry.otlp.unwrap().as_str(), "https://collector.example.com/otlp");
    let headers: Vec<_> = telemetry
        .headers
        .iter()
        .map(|(name, value)| (name.as_str(), value.to_str().unwrap()))
        .collect();
    assert_eq!(headers, [("x-api-key", "abc=1"), ("authorization", "Basic Zm9v")]);
    assert!((telemetry.traces.ratio - 0.25).abs() < 1e-9 && telemetry.traces.follows_parent);
    assert_eq!(telemetry.resource["service.name"], "gate");
    assert_eq!(telemetry.resource["deployment.environment.name"], "pro d");
    assert!(shown.contains("OTEL_EXPORTER_OTLP_ENDPOINT") && !shown.contains("Zm9v"), "{shown}");

    let keys =
        "otlp = \"http://127.0.0.1:4318\"\ntraces = 1\nheaders = { x-other = { env = \"S\" } }";
    let (config, _) = loaded(keys, &env).unwrap();
    assert_eq!(config.telemetry.otlp.unwrap().as_str(), "http://127.0.0.1:4318/");
    assert_eq!(config.telemetry.headers.len(), 1);
    assert!((config.telemetry.traces.ratio - 1.0).abs() < 1e-9);

    let (config, _) = loaded(keys, &[("OTEL_SDK_DISABLED", "TRUE")]).unwrap();
    assert_eq!(config.telemetry.otlp, None);
    let (config, _) = loaded("", &[]).unwrap();
    assert_eq!(config.telemetry.otlp, None, "off by default");
    for (sampler, ratio, follows_parent) in [
        ("always_on", 1.0, false),
        ("always_off", 0.0, false),
        ("traceidratio", 1.0, false),
        ("parentbased_always_on", 1.0, true),
        ("parentbased_always_off", 0.0, true),
    ] {
        let (config, _) = loaded("", &[("OTEL_TRACES_SAMPLER", sampler)]).unwrap();
        let traces = config.telemetry.traces;
        assert!((traces.ratio - ratio).abs() < 1e-9, "{sampler}");
        assert_eq!(traces.follows_parent, follows_parent, "{sampler}");
    }
}

#[test]
fn mistakes_in_telemetry_are_named_and_no_secret_is_shown() {
    for (keys, env, told) in [
        ("otlp = \"ftp://x\"", ("X", ""), "is not the URL of a collector"),
        ("otlp = \"http://me:pw@x\"", ("X", ""), "is not the URL of a collector"),
        ("otlp = \"http://x:4318/v1/traces\"", ("X", ""), "without /v1/traces"),
        ("traces = 1.5", ("X", ""), "is not a ratio"),
        ("traces = \"many\"", ("X", ""), "is not a ratio"),
        ("headers = \"a=b\"", ("X", ""), "is not a table of headers"),
        ("headers = { host = { env = \"S\" } }", ("X", ""), "is not the name of a header"),
        ("headers = { x-key = { env = \"NONE\" } }", ("X", ""), "is not set"),
        ("header = 1", ("X", ""), "is not a key"),
        ("", ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4318"), "is not the URL of a collector"),
        ("", ("OTEL_EXPORTER_OTLP_HEADERS", "pw-without-a-name"), "is not a list of headers"),
        ("", ("OTEL_TRACES_SAMPLER", "traceidratios"), "did you mean traceidratio?"),
        ("", ("OTEL_RESOURCE_ATTRIBUTES", "x"), "is not a list of attributes"),
    ] {
        let problems = loaded(keys, &[env]).err().unwrap_or_else(|| panic!("{keys} {env:?}"));
        assert!(problems.contains(told), "{keys} {env:?}: {problems}");
        assert!(!problems.contains("pw"), "{problems}");
    }
    let (_, warned) = loaded("otlp = \"http://collector:4317\"", &[]).unwrap();
    assert!(warned.contains("4318"), "{warned}");
    let keys = "otlp = \"http://collector:4318\"\nheaders = { x-key = { env = \"S\" } }";
    let (_, warned) = loaded(keys, &[]).unwrap();
    assert!(warned.contains("can be read on the way"), "{warned}");
}

#[tokio::test]
async fn headers_and_what_the_process_says_of_itself_reach_the_collector() {
    let collector = Collector::start().await;
    let mut setup = collector.setup("traces = 1\nheaders = { x-api-key = { env = \"API_KEY\" } }");
    setup.env.push(("API_KEY", "the key".to_owned()));
    setup.env.push(("OTEL_SERVICE_NAME", "gate".to_owned()));
    let app = TestApp::with(setup).await;
    app.http.get(&app.at("/account")).await;

    app.export().await;

    let message = collector.messages("traces").remove(0);
    assert_eq!(message.header("x-api-key"), Some("the key"));
    let resource = collector.resource();
    assert_eq!(resource["service.name"], "gate");
    assert_eq!(resource["service.version"], env!("CARGO_PKG_VERSION"));
    assert!(!resource["service.instance.id"].is_empty());
    assert!(!collector.everything().contains("the key"));
}

#[tokio::test]
async fn check_says_whether_the_collector_takes_telemetry() {
    let collector = Collector::start().await;
    let app = TestApp::with(collector.setup("")).await;
    let env = [("X", String::new())];

    let (findings, _) = check_with(&app, &app.config_text(), &env).await;
    let found = finding(&findings, "telemetry");
    assert_eq!(found["severity"], "ok", "{found}");

    collector.recorder.answer_always(403);
    let (findings, _) = check_with(&app, &app.config_text(), &env).await;
    let found = finding(&findings, "telemetry");
    assert_eq!(found["severity"], "warning", "{found}");
    assert!(found["found"].as_str().unwrap().contains("status 403"), "{found}");

    let folder = app.database.folder.clone();
    let checked = tokio::task::spawn_blocking(move || run(&folder, &["config", "check"], &[]));
    let told = String::from_utf8(checked.await.unwrap().stdout).unwrap();
    assert!(told.contains("takes no telemetry now") && told.contains("403"), "{told}");
}

#[tokio::test]
async fn the_lines_of_the_log_reach_the_collector_with_their_level_and_trace() {
    let collector = Collector::start().await;
    let mut served = Served::with(&collector.setup("traces = 1\nlogs = true")).await;
    let client = McpClient::register(&served).await;
    client.sign_in("alice").await;

    let ended = tokio::time::timeout(PATIENCE, served.terminate()).await.unwrap().unwrap();

    assert!(ended.success());
    let lines = collector.lines();
    let body = |line: &LogRecord| {
        attributes(vec![KeyValue {
            key: "body".to_owned(),
            value: line.body.clone(),
            ..Default::default()
        }])["body"]
            .clone()
    };
    let redeemed = lines.iter().find(|line| body(line).contains("code_redeemed")).unwrap();
    assert_eq!(redeemed.severity_text, "INFO");
    assert!(!body(redeemed).contains(['\n', '\u{1b}']));
    assert!(lines.iter().any(|line| body(line).contains("shutting down")), "to the end");
    let token = collector.span("POST /token");
    assert_eq!(hex(&redeemed.span_id), token.id);
}

#[tokio::test]
async fn a_message_that_may_be_taken_later_is_sent_again() {
    let recorder = Recorder::start().await;
    recorder.answer_next(&[503]);
    let setup =
        Setup::toml(format!("[telemetry]\notlp = \"{}\"\nmetrics = false", recorder.url("")));
    let app = TestApp::with(setup.and("[telemetry]\ntraces = 1")).await;
    app.http.get(&app.at("/account")).await;

    app.export().await;

    let received = recorder.received();
    assert_eq!(received.len(), 2);
    assert_eq!(received[0].body, received[1].body);
    let metrics = app.metrics().await;
    assert!(metrics["portcullis_telemetry_dropped_total{signal=\"traces\"}"].abs() < f64::EPSILON);
}
