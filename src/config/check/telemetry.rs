//! Reads `[telemetry]`, and where a key is absent, the variables of OpenTelemetry.

use std::collections::BTreeMap;

use axum::http::{HeaderName, HeaderValue};
use percent_encoding::percent_decode_str;
use toml::Value;
use url::Url;

use super::super::keys::nearest;
use super::super::reader::ConfigReader;
use super::super::telemetry::{TelemetryConfig, TraceSampling};
use super::super::values::is_loopback;

/// The share of traces that is exported by default: one of ten.
const USUAL_RATIO: f64 = 0.1;
/// Most headers: 16.
const MOST_HEADERS: usize = 16;
/// Most attributes of the resource: 32, and the longest value in characters.
const MOST_ATTRIBUTES: (usize, usize) = (32, 256);
/// The port of OTLP over gRPC, which we do not speak, and that of OTLP over HTTP.
const PORTS: (u16, u16) = (4317, 4318);
const ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
const HEADERS: &str = "OTEL_EXPORTER_OTLP_HEADERS";
const SAMPLER: &str = "OTEL_TRACES_SAMPLER";
const SAMPLER_ARG: &str = "OTEL_TRACES_SAMPLER_ARG";
const SERVICE_NAME: &str = "OTEL_SERVICE_NAME";
const RESOURCE: &str = "OTEL_RESOURCE_ATTRIBUTES";
const DISABLED: &str = "OTEL_SDK_DISABLED";
const MASKED: &str = "********";
const KEY: &str = "telemetry.otlp";
const ENDPOINT_HINT: &str = "write the base URL of a collector that takes OTLP over HTTP, such as \"http://127.0.0.1:4318\", without /v1/traces";

pub(super) fn read(r: &mut ConfigReader, env: &BTreeMap<String, String>) -> TelemetryConfig {
    let otlp = otlp(r, env);
    let headers = headers(r, env);
    let traces = traces(r, env);
    let metrics = r.flag("telemetry.metrics", true);
    let logs = r.flag("telemetry.logs", false);
    let resource = resource(r, env);
    let is_disabled = variable(env, DISABLED).is_some_and(|text| text.eq_ignore_ascii_case("true"));
    if is_disabled {
        r.show_variable(DISABLED, "true".to_owned());
    }
    let otlp = otlp.filter(|_| !is_disabled);
    if let Some(url) = &otlp {
        warn(r, url, !headers.is_empty());
    }
    TelemetryConfig { otlp, headers, traces, metrics, logs, resource }
}

/// Returns the value of a variable; an empty one counts as unset.
fn variable<'e>(env: &'e BTreeMap<String, String>, name: &str) -> Option<&'e str> {
    env.get(name).map(|text| text.trim()).filter(|text| !text.is_empty())
}

fn otlp(r: &mut ConfigReader, env: &BTreeMap<String, String>) -> Option<Url> {
    if r.has(KEY) {
        let text = r.text(KEY)?;
        let url = collector(&text);
        if url.is_none() {
            r.problem(KEY, Some(MASKED.to_owned()), "is not the URL of a collector", ENDPOINT_HINT);
        }
        return url;
    }
    let text = variable(env, ENDPOINT)?;
    let Some(url) = collector(text) else {
        let shown = Some(MASKED.to_owned());
        r.problem(ENDPOINT, shown, "is not the URL of a collector", ENDPOINT_HINT);
        return None;
    };
    r.show_variable(ENDPOINT, url.to_string());
    Some(url)
}

/// Parses the URL of a collector. A user name or a query could be a secret, and would be shown.
fn collector(text: &str) -> Option<Url> {
    let url = Url::parse(text.trim()).ok()?;
    let is_plain = url.username().is_empty()
        && url.password().is_none()
        && url.query().is_none()
        && url.fragment().is_none();
    let is_base = !["/v1/traces", "/v1/metrics", "/v1/logs"]
        .iter()
        .any(|end| url.path().trim_end_matches('/').ends_with(end));
    let is_http = matches!(url.scheme(), "http" | "https") && url.has_host();
    (is_plain && is_base && is_http).then_some(url)
}

fn warn(r: &mut ConfigReader, url: &Url, has_headers: bool) {
    if url.port() == Some(PORTS.0) {
        let (grpc, http) = PORTS;
        r.warnings.push(format!(
            "telemetry.otlp: {grpc} is usually the port of OTLP over gRPC, which Portcullis does not speak; OTLP over HTTP has {http}"
        ));
    }
    if url.scheme() == "http" && !is_loopback(url) && has_headers {
        r.warnings.push(
            "telemetry.otlp is http:// on another machine: the values of telemetry.headers can be read on the way; write https://"
                .to_owned(),
        );
    }
}

/// Reads the headers. Each value is a secret: `{ env = "NAME" }` or `{ file = "path" }`.
fn headers(r: &mut ConfigReader, env: &BTreeMap<String, String>) -> Vec<(HeaderName, HeaderValue)> {
    const KEY: &str = "telemetry.headers";
    let mut headers = Vec::new();
    if r.has(KEY) {
        for name in r.names(KEY) {
            let key = format!("{KEY}.{name}");
            let Some(header) = header_name(&name) else {
                let hint = "write the name of a header, such as authorization or x-api-key";
                r.problem(&key, None, "is not the name of a header that may be set", hint);
                continue;
            };
            let Some(secret) = r.secret(&key, env) else { continue };
            if let Some(value) = header_value(secret.expose()) {
                headers.push((header, value));
            } else {
                let hint = "a header has one line of ASCII characters";
                r.problem(&key, Some(MASKED.to_owned()), "cannot be sent in a header", hint);
            }
        }
        if !matches!(r.value(KEY), Some(Value::Table(_))) {
            let hint = "write { authorization = { env = \"NAME\" } }";
            r.problem(KEY, Some(MASKED.to_owned()), "is not a table of headers", hint);
        }
    } else if let Some(text) = variable(env, HEADERS) {
        r.show_variable(HEADERS, MASKED.to_owned());
        for pair in text.split(',').filter(|pair| !pair.trim().is_empty()) {
            let parts = pair.split_once('=');
            let header = parts.and_then(|(name, value)| {
                let value = percent_decode_str(value.trim()).decode_utf8().ok()?;
                Some((header_name(name.trim())?, header_value(&value)?))
            });
            if let Some(header) = header {
                headers.push(header);
            } else {
                let hint = "write name=value,name=value, values percent-encoded";
                let shown = Some(MASKED.to_owned());
                r.problem(HEADERS, shown, "is not a list of headers", hint);
            }
        }
    }
    if headers.len() > MOST_HEADERS {
        let hint = format!("keep {MOST_HEADERS} at most");
        r.problem(KEY, Some(headers.len().to_string()), "are too many headers", hint);
    }
    headers
}

/// Returns the name of a header, unless requests set it themselves.
fn header_name(name: &str) -> Option<HeaderName> {
    const OURS: [&str; 6] = [
        "content-type",
        "content-length",
        "content-encoding",
        "host",
        "connection",
        "transfer-encoding",
    ];
    let name = HeaderName::from_bytes(name.as_bytes()).ok()?;
    (!OURS.contains(&name.as_str()) && !name.as_str().contains('.')).then_some(name)
}

fn header_value(text: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(text).ok()?;
    value.set_sensitive(true); // it is not printed
    Some(value)
}

/// Reads which traces are exported.
fn traces(r: &mut ConfigReader, env: &BTreeMap<String, String>) -> TraceSampling {
    const KEY: &str = "telemetry.traces";
    let follows_parent = true;
    if let Some(value) = r.value(KEY) {
        let Some(ratio) = ratio(&value) else {
            let hint = "write a number from 0 (none) to 1 (all), such as 0.1";
            r.problem(KEY, Some(value.to_string()), "is not a ratio", hint);
            return TraceSampling::default();
        };
        r.show(KEY, ratio, true);
        return TraceSampling { ratio, follows_parent };
    }
    let usual = TraceSampling { ratio: USUAL_RATIO, follows_parent };
    let Some(name) = variable(env, SAMPLER) else {
        r.show(KEY, USUAL_RATIO, false);
        return usual;
    };
    let argument = variable(env, SAMPLER_ARG);
    let (base, follows_parent) = match name.strip_prefix("parentbased_") {
        Some(base) => (base, true),
        None => (name, false),
    };
    let ratio = match base {
        "always_on" => Some(1.0),
        "always_off" => Some(0.0),
        "traceidratio" => ratio(&Value::String(argument.unwrap_or("1").to_owned())),
        _ => {
            let known = ["always_on", "always_off", "traceidratio", "parentbased_always_on"];
            let known =
                known.into_iter().chain(["parentbased_always_off", "parentbased_traceidratio"]);
            let hint = match nearest(name, known) {
                Some(near) => format!("did you mean {near}?"),
                None => "write parentbased_traceidratio, and the ratio in OTEL_TRACES_SAMPLER_ARG"
                    .to_owned(),
            };
            r.problem(SAMPLER, Some(format!("{name:?}")), "is not a known sampler", hint);
            return usual;
        }
    };
    let Some(ratio) = ratio else {
        let shown = argument.map(|text| format!("{text:?}"));
        r.problem(SAMPLER_ARG, shown, "is not a ratio", "write a number from 0 to 1, such as 0.1");
        return usual;
    };
    r.show_variable(SAMPLER, name.to_owned());
    if let Some(argument) = argument {
        r.show_variable(SAMPLER_ARG, argument.to_owned());
    }
    TraceSampling { ratio, follows_parent }
}

fn ratio(value: &Value) -> Option<f64> {
    let ratio = match value {
        Value::Float(number) => *number,
        Value::Integer(0) => 0.0,
        Value::Integer(1) => 1.0,
        Value::String(text) => text.trim().parse().ok()?,
        _ => return None,
    };
    (0.0..=1.0).contains(&ratio).then_some(ratio)
}

/// Reads what the process says of itself.
fn resource(r: &mut ConfigReader, env: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let mut attributes = BTreeMap::new();
    if let Some(text) = variable(env, RESOURCE) {
        for pair in text.split(',').filter(|pair| !pair.trim().is_empty()) {
            let decoded = pair.split_once('=').and_then(|(name, value)| {
                let value = percent_decode_str(value.trim()).decode_utf8().ok()?;
                let name = name.trim();
                (!name.is_empty()).then(|| (name.to_owned(), value.into_owned()))
            });
            if let Some((name, value)) = decoded {
                attributes.insert(name, value);
            } else {
                let hint = "write name=value,name=value, values percent-encoded";
                let shown = Some(format!("{pair:?}"));
                r.problem(RESOURCE, shown, "is not a list of attributes", hint);
            }
        }
        r.show_variable(RESOURCE, text.to_owned());
    }
    if let Some(name) = variable(env, SERVICE_NAME) {
        r.show_variable(SERVICE_NAME, name.to_owned());
        attributes.insert("service.name".to_owned(), name.to_owned());
    }
    let (most, longest) = MOST_ATTRIBUTES;
    if attributes.len() > most || attributes.values().any(|value| value.chars().count() > longest) {
        let hint = format!("keep {most} at most, each of {longest} characters at most");
        r.problem(RESOURCE, None, "has too many or too long attributes", hint);
    }
    attributes
}
