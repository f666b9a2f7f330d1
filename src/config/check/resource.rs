//! Reads `[[resource]]`: MCP servers with their scopes and rules.

use std::collections::{BTreeMap, HashSet};

use toml::Value;
use url::Url;

use super::super::paths::hidden_by;
use super::super::public_url::is_plain_segment;
use super::super::reader::{ConfigReader, Problems};
use super::super::values::is_loopback;
use super::super::{ConnectionConfig, OnDeniedTool, PublicUrl, ResourceConfig, TokenAlg};
use super::connections::{TokenDelivery, of_resource};
use super::scope_texts::scopes;
use super::scopes::{declared_scopes, tools};
use super::{enforcement, forward_headers, one_of, targets};
use crate::oauth::scope::ScopeSet;
use crate::policy::{Conditions, OnExcess, Policy, Rule, Wanted};

pub(super) fn all(
    r: &mut ConfigReader,
    env: &BTreeMap<String, String>,
    public_url: Option<&PublicUrl>,
    services: &[ConnectionConfig],
) -> Vec<ResourceConfig> {
    let count = r.count("resource");
    if count == 0 {
        r.problem(
            "resource",
            None,
            "is missing: no MCP server is configured",
            "add [[resource]] with path, target and scopes",
        );
    }
    let resources: Vec<ResourceConfig> =
        (0..count).filter_map(|index| one(r, env, index, (public_url, services))).collect();
    let mut seen = HashSet::new();
    for (index, resource) in resources.iter().enumerate() {
        if !seen.insert(resource.id.clone()) {
            r.problem(
                &format!("resource[{index}]"),
                Some(format!("{:?}", resource.id)),
                "has the same identifier as another resource",
                "give each MCP server a path of its own",
            );
        }
    }
    if resources.iter().filter(|resource| resource.is_default).count() > 1 {
        r.problem("resource", None, "has more than one default", "mark one resource as default");
    }
    resources
}

fn one(
    r: &mut ConfigReader,
    env: &BTreeMap<String, String>,
    index: usize,
    (public_url, services): (Option<&PublicUrl>, &[ConnectionConfig]),
) -> Option<ResourceConfig> {
    let at = |name: &str| format!("resource[{index}].{name}");
    let path = r.text(&at("path"));
    let id = identifier(r, at, path.as_deref(), public_url);
    let targets = targets::urls(r, at, path.is_some());
    let has_target = !targets.is_empty();
    let name = r.text(&at("name"));
    let scopes = scopes(r, &at("scopes"));
    let declared: ScopeSet = scopes.iter().map(|known| known.scope.clone()).collect();
    let default_scopes =
        declared_scopes(r, &at("default_scopes"), &declared).unwrap_or(declared.clone());
    let baseline = declared_scopes(r, &at("baseline"), &declared).unwrap_or_default();
    let on_excess = one_of(r, &at("on_excess"), OnExcess::Narrow);
    let token_alg = one_of(r, &at("token_alg"), TokenAlg::Es256);
    let is_default = r.flag(&at("default"), false);
    let tools = tools(r, &at("tools"), &declared);
    let hierarchy = enforcement::implies(r, &at("implies"), &declared);
    let hide_forbidden_tools =
        enforcement::hide_forbidden_tools(r, &at("hide_forbidden_tools"), &tools);
    let on_denied_tool = one_of(r, &at("on_denied_tool"), OnDeniedTool::Result);
    let forward_headers = forward_headers::read(r, &at("forward_headers"), has_target);
    let transport = enforcement::transport(r, &at("transport"), has_target);
    let timeout = targets::timeout(r, &at("timeout"));
    let connection = targets::connection(r, at, &targets);
    let assertion = enforcement::assertion(r, &at("assertion"), has_target);
    let introspection_secret =
        enforcement::introspection_secret(r, env, &at("introspection_secret"));
    let delivery = TokenDelivery { targets: &targets, forwarded: &forward_headers, services };
    let (upstream_token, connections) = of_resource(r, at, delivery);
    let rules: Vec<Rule> =
        (0..r.count(&at("rule"))).map(|n| rule(r, &at(&format!("rule[{n}]")), &declared)).collect();
    let policy = Policy { declared, default_scopes, baseline, rules, on_excess, hierarchy };
    check_scopes(r, at, &policy);
    Some(ResourceConfig {
        id: id?,
        path,
        targets,
        timeout,
        connection,
        name,
        scopes,
        policy,
        token_alg,
        tools,
        hide_forbidden_tools,
        on_denied_tool,
        forward_headers,
        transport,
        assertion,
        introspection_secret,
        upstream_token,
        connections,
        is_default,
    })
}

/// Returns the identifier of a resource: the URL of its path behind the gateway, or the `id` of a server
/// elsewhere.
fn identifier(
    r: &mut ConfigReader,
    at: impl Fn(&str) -> String,
    path: Option<&str>,
    public_url: Option<&PublicUrl>,
) -> Option<String> {
    match (path, r.text(&at("id"))) {
        (Some(path), None) => {
            check_path(r, &at("path"), path);
            public_url.map(|url| url.join(path))
        }
        (None, Some(id)) => {
            check_id(r, &at("id"), &id, public_url);
            Some(id)
        }
        (None, None) => {
            let hint =
                "write path = \"/mcp\" (behind the gateway) or id = \"https://…\" (elsewhere)";
            r.problem(&at("path"), None, "is missing", hint);
            None
        }
        (Some(_), Some(_)) => {
            let reason = "is set, and so is path; a resource has one of them";
            let hint = "keep path for the gateway, id for a server elsewhere";
            r.problem(&at("id"), None, reason, hint);
            None
        }
    }
}

/// Checks that clients can ask for the scopes.
fn check_scopes(r: &mut ConfigReader, at: impl Fn(&str) -> String, policy: &Policy) {
    let Policy { declared, default_scopes, rules, .. } = policy;
    if !rules.is_empty() && default_scopes.is_empty() && r.problems.is_empty() {
        let reason = "is empty: a client that asks for no scope could never be let in by a rule";
        let hint = "declare scopes, and leave default_scopes out or name some";
        r.problem(&at("default_scopes"), None, reason, hint);
    }
    if ScopeSet::parse(&declared.to_string()).is_err() {
        let reason = "are too many or too long for one request (50 scopes, 1000 characters in all)";
        r.problem(&at("scopes"), None, reason, "declare fewer or shorter scopes");
    }
}

fn check_path(r: &mut ConfigReader, key: &str, path: &str) {
    let shown = Some(format!("{path:?}"));
    let mut segments = path.strip_prefix('/').into_iter().flat_map(|rest| rest.split('/'));
    if !path.starts_with('/') || !segments.all(is_plain_segment) {
        let hint = "write it like \"/mcp\" or \"/team/mcp\": letters, digits, . _ ~ -, no slash at the end";
        r.problem(key, shown, "is not a plain path", hint);
    } else if let Some(ours) = hidden_by(path) {
        let reason = format!("would hide {ours}, a path of Portcullis itself");
        r.problem(key, shown, reason, "choose another, such as \"/mcp\"");
    }
}

fn check_id(r: &mut ConfigReader, key: &str, id: &str, public_url: Option<&PublicUrl>) {
    let shown = Some(format!("{id:?}"));
    let fits = Url::parse(id).is_ok_and(|url| {
        let loopback_http = url.scheme() == "http" && is_loopback(&url);
        (url.scheme() == "https" || loopback_http)
            && url.query().is_none()
            && url.fragment().is_none()
            && url.username().is_empty()
            && (url.as_str() == id || url.as_str() == format!("{id}/"))
    });
    if !fits {
        let hint = "write the URL that people type for this MCP server";
        r.problem(key, shown, "is not a canonical https URL without query and fragment", hint);
        return;
    }
    let below = public_url.and_then(|url| id.strip_prefix(url.as_str()));
    if let Some(ours) = below.filter(|rest| rest.starts_with('/')).and_then(hidden_by) {
        let reason = format!("is at {ours}, a path of Portcullis itself");
        r.problem(key, shown, reason, "write the URL that people type for this MCP server");
    }
}

/// Reads a rule of an MCP server with these scopes, with the checks of the configuration. The keys of problems
/// begin with `rule.`.
pub fn read_rule(table: toml::Table, declared: &ScopeSet) -> Result<Rule, Problems> {
    let mut r =
        ConfigReader::of(toml::Table::from_iter([("rule".to_owned(), Value::Table(table))]));
    let rule = rule(&mut r, "rule", declared);
    if r.problems.is_empty() { Ok(rule) } else { Err(Problems(r.problems)) }
}

fn rule(r: &mut ConfigReader, key: &str, declared: &ScopeSet) -> Rule {
    let at = |name: &str| format!("{key}.{name}");
    let conditions = conditions(r, at);
    let passthrough = passthrough(r, &at("passthrough"));
    let rule = Rule {
        name: r.text(&at("name")),
        allow: declared_scopes(r, &at("allow"), declared).unwrap_or_default(),
        deny: declared_scopes(r, &at("deny"), declared).unwrap_or_default(),
        conditions,
        passthrough,
    };
    let gives_nothing = !r.has(&at("allow")) && !r.has(&at("deny")) && !passthrough;
    if gives_nothing {
        let reason = "neither allows nor denies anything";
        r.problem(key, None, reason, "add allow = [\"scope\"] or deny = [\"scope\"]");
    }
    rule
}

fn conditions(r: &mut ConfigReader, at: impl Fn(&str) -> String) -> Conditions {
    Conditions {
        roles: wanted(r, &at("roles")),
        groups: wanted(r, &at("groups")),
        permissions: wanted(r, &at("permissions")),
        not_roles: wanted(r, &at("not_roles")),
        not_groups: wanted(r, &at("not_groups")),
        subjects: exact_values(r, &at("subjects")),
        email_domains: exact_values(r, &at("email_domains")),
        clients: exact_values(r, &at("clients")),
        claims: claims(r, &at("claim")),
    }
}

/// Reads names or patterns of names.
fn wanted(r: &mut ConfigReader, key: &str) -> Option<Vec<Wanted>> {
    let values = r.texts(key)?;
    let mut wanted = Vec::new();
    for value in &values {
        match Wanted::parse(value) {
            Ok(value) => wanted.push(value),
            Err(reason) => {
                let hint = "write regex: and a regular expression for the whole name, glob: and a pattern with stars, or the name itself";
                r.problem(key, Some(format!("{value:?}")), reason, hint);
            }
        }
    }
    Some(wanted)
}

/// Reads values that may not be patterns.
fn exact_values(r: &mut ConfigReader, key: &str) -> Option<Vec<String>> {
    let values = r.texts(key)?;
    if let Some(pattern) = values.iter().find(|value| Wanted::is_pattern(value)) {
        let reason = "is a pattern; these values are compared exactly";
        r.problem(key, Some(format!("{pattern:?}")), reason, "write the value itself");
    }
    Some(values)
}

/// Reads the values that claims must have, by the path of the claim.
fn claims(r: &mut ConfigReader, key: &str) -> BTreeMap<String, Vec<String>> {
    let mut table = toml::Table::new();
    if let Some(Value::Table(found)) = r.value(key) {
        r.show(key, found.clone(), true);
        table = found;
    }
    let mut claims = BTreeMap::new();
    for (path, value) in table {
        let values = match value {
            Value::String(text) => Some(vec![text]),
            Value::Array(items) => {
                items.iter().map(|item| item.as_str().map(str::to_owned)).collect()
            }
            _ => None,
        };
        match values {
            Some(values) => {
                claims.insert(path, values);
            }
            None => r.problem(
                key,
                Some(format!("{path:?}")),
                "is not compared with texts",
                "write claim = { \"/org_id\" = [\"org_1\"] }",
            ),
        }
    }
    claims
}

/// Returns whether the person's permissions become scopes.
fn passthrough(r: &mut ConfigReader, key: &str) -> bool {
    match r.text(key).as_deref() {
        None => false,
        Some("permissions") => true,
        Some(other) => {
            let hint = "write passthrough = \"permissions\"";
            r.problem(key, Some(format!("{other:?}")), "is not known", hint);
            false
        }
    }
}
