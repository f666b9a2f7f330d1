//! Names the callback URL of each connection, which its service must know. No request is sent:
//! `portcullis doctor --connections` asks the services.

use super::{Finding, Severity, finding};
use crate::config::{Config, ConnectionConfig, paths};

const PROBE: &str = "connection";

/// Returns what to register for each `[[connection]]`.
pub(super) fn run(config: &Config) -> Vec<Finding> {
    let connections = &config.connections;
    let mut findings: Vec<Finding> =
        connections.iter().map(|connection| to_register(config, connection)).collect();
    for (at, one) in connections.iter().enumerate() {
        let other = connections[..at].iter().find(|other| shares_callback(one, other));
        findings.extend(other.map(|other| only_one_callback(one, other)));
    }
    findings
}

fn to_register(config: &Config, connection: &ConnectionConfig) -> Finding {
    let ConnectionConfig { name, title, .. } = connection;
    let callback = config.public_url.join(&paths::connect_callback(name));
    let console = if connection.is_sign_in() {
        config.upstream.preset.console.redirect_uri
    } else {
        connection.preset.console
    };
    let further = if connection.is_sign_in() {
        format!(", in addition to {}", config.public_url.join(paths::CALLBACK))
    } else {
        String::new()
    };
    let found = format!("{name}: {title} must know the callback URL {callback}{further}");
    let hint = format!("{console}\n`portcullis doctor --connections` tests client ID and secret");
    Finding { hint: Some(hint), ..finding(PROBE, Severity::Ok, found) }
}

/// Whether two connections need two callback URLs of an app that has one.
fn shares_callback(one: &ConnectionConfig, other: &ConnectionConfig) -> bool {
    one.preset.name == "atlassian"
        && other.preset.name == one.preset.name
        && other.client_id == one.client_id
}

fn only_one_callback(one: &ConnectionConfig, other: &ConnectionConfig) -> Finding {
    let found = format!(
        "{} and {} have the same client ID, and an app of {} has one callback URL: one of them cannot be connected",
        other.name, one.name, one.title
    );
    let hint = "create an app for each connection".to_owned();
    Finding { hint: Some(hint), ..finding(PROBE, Severity::Failed, found) }
}
