//! The text of a new configuration file.

use std::fmt::Write as _;

use toml::Value;

use super::answers::{CompleteAnswers, SecretSource, restriction};
use super::{DEFAULT_FILE, SCHEMA_FILE};
use crate::config::paths;

/// Returns the file for these answers. A comment explains each part.
pub(super) fn text(answers: &CompleteAnswers<'_>) -> String {
    let mut text = format!(
        "#:schema ./{SCHEMA_FILE}\n\
         # {DEFAULT_FILE} of Portcullis. docs/configuration.md explains every key.\n\
         # Check it with `portcullis config check`, and the provider with `portcullis check`.\n\n"
    );
    top(&mut text, answers);
    upstream(&mut text, answers);
    resource(&mut text, answers);
    admin(&mut text, answers);
    text
}

fn top(text: &mut String, answers: &CompleteAnswers<'_>) {
    let public_url = quoted(answers.public_url);
    let listen = answers.more.listen.map_or_else(
        || "# listen = \"127.0.0.1:8000\"".to_owned(),
        |listen| format!("listen = \"{listen}\""),
    );
    let _ = write!(
        text,
        "# The URL that people and clients use. A proxy in front of `listen` terminates TLS.\n\
         public_url = {public_url}\n{listen}\n\
         # database_url = \"sqlite://portcullis.db\"  # or \"postgres://user@host/database\"\n"
    );
}

fn upstream(text: &mut String, answers: &CompleteAnswers<'_>) {
    let preset = answers.preset;
    let _ = write!(
        text,
        "\n# The identity provider. Enter this redirect URI there:\n#   {}{}\n[upstream]\n\
         provider = {}\n",
        // Answers are checked before they are written, so the comment stays one line.
        answers.public_url.replace(char::is_control, " "),
        paths::CALLBACK,
        quoted(preset.name),
    );
    if let Some(name) = &answers.more.provider_name {
        let _ = writeln!(text, "name = {}  # on the pages", quoted(name));
    } else {
        let host = "# name = \"Acme\"  # on the pages, instead of the host of the issuer";
        let _ = writeln!(text, "{host}");
    }
    for (name, value) in &answers.more.keys {
        let _ = writeln!(text, "{name} = {}", quoted(value));
    }
    if let Some(key) = restriction(preset) {
        let _ = writeln!(text, "{key} = {}  # only these can sign in", list(&answers.more.allowed));
    }
    let _ = writeln!(text, "client_id = {}", quoted(answers.client_id));
    let secret = match answers.secret {
        SecretSource::Variable(name) => format!("{{ env = {} }}", quoted(name)),
        SecretSource::File(path) => format!("{{ file = {} }}", quoted(&path.to_string_lossy())),
        SecretSource::Typed(_) => "{ file = \"\" }".to_owned(),
    };
    let _ = writeln!(text, "client_secret = {secret}");
    if let Some(claim) = &answers.more.roles_claim {
        let _ = writeln!(text, "roles_claim = {}", quoted(claim));
    } else {
        let _ = writeln!(
            text,
            "# roles_claim = \"roles\"  # where roles are, if not in {:?}",
            preset.claims.roles
        );
    }
}

fn resource(text: &mut String, answers: &CompleteAnswers<'_>) {
    let more = answers.more;
    let _ = write!(
        text,
        "\n# The MCP server. Clients use public_url + path; Portcullis forwards to target.\n\
         [[resource]]\npath = {}\ntarget = {}\n",
        quoted(answers.path),
        quoted(answers.target),
    );
    if let Some(name) = &more.name {
        let _ = writeln!(text, "name = {}", quoted(name));
    }
    let scopes: Vec<String> = answers.scopes.iter().map(|&scope| scope.to_owned()).collect();
    let _ = write!(
        text,
        "# A table gives each scope a text for the consent page: {{ \"read\" = \"Read your notes\" }}\n\
         scopes = {}\n",
        list(&scopes),
    );
    if more.rules.is_empty() {
        let _ = write!(
            text,
            "\n# Without rules, everybody who can sign in gets all scopes. docs/rules.md has recipes.\n\
             # [[resource.rule]]\n# roles = [\"User\"]\n# allow = {}\n",
            list(&scopes),
        );
        return;
    }
    text.push_str("\n# Who gets which scopes. Several rules add up. docs/rules.md has recipes.\n");
    for (role, allow) in &more.rules {
        let _ = writeln!(
            text,
            "[[resource.rule]]\nroles = {}\nallow = {}",
            list(std::slice::from_ref(role)),
            list(allow)
        );
    }
}

fn admin(text: &mut String, answers: &CompleteAnswers<'_>) {
    let roles = &answers.more.admin_roles;
    if roles.is_empty() {
        text.push_str(
            "\n# Pages for administrators, on a listener of their own. docs/admin.md describes them.\n\
             # [admin]\n# roles = [\"Admin\"]\n",
        );
    } else {
        let _ = write!(
            text,
            "\n# Pages for administrators, on a listener of their own. docs/admin.md describes them.\n\
             [admin]\n# listen = \"127.0.0.1:8001\"\nroles = {}\n",
            list(roles)
        );
    }
}

/// Returns a text as a TOML value on one line.
fn quoted(text: &str) -> String {
    // A multi-line literal would still be right, but a comment could follow on its line.
    if text.contains(['\n', '\r']) {
        return format!("{text:?}");
    }
    Value::String(text.to_owned()).to_string()
}

fn list(texts: &[String]) -> String {
    let texts: Vec<String> = texts.iter().map(|text| quoted(text)).collect();
    format!("[{}]", texts.join(", "))
}
