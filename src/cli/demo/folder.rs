//! The folder of the demo, and the configuration file in it, which every other command can use.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::{CALENDAR, CALENDAR_CLIENT_ID, CLIENT_ID, CLIENT_SECRET, DemoAddresses, DemoArguments};
use crate::cli::reached_at;
use crate::config::{Config, Loaded};

/// First line of the file. A file without it is not ours, and is not overwritten.
const MARK: &str = "# Written by `portcullis demo`";

/// Scopes of the to-do server, who gets them, the tool that needs one, and the tool that needs the calendar.
const SCOPES_AND_RULES: &str = r#"[resource.scopes]
"read:todos"   = "Read everybody's to-dos"
"create:todos" = "Add to-dos"
"delete:todos" = { text = "Delete everybody's to-dos", destructive = true }

[[resource.rule]]
roles = ["Admin"]
allow = ["read:todos", "create:todos", "delete:todos"]

[[resource.rule]]
roles = ["User"]
allow = ["create:todos"]

[resource.tools]
"purge-todos" = ["delete:todos"]

# The tool agenda reads the person's calendar, with a token that each person connects once.
[[resource.connection]]
name   = "calendar"
scopes = ["calendar.read"]
tools  = ["agenda"]
header = "X-Calendar-Token"
"#;

/// The folder in which the demo keeps everything.
pub(super) struct DemoFolder {
    /// As the user wrote it.
    path: PathBuf,
    /// The same from the root: commands find the files wherever they are started.
    absolute: PathBuf,
}

impl DemoFolder {
    /// Creates the folder if it does not exist.
    pub(super) fn at(path: &Path) -> Result<Self, String> {
        std::fs::create_dir_all(path)
            .map_err(|cause| format!("{} cannot be created: {cause}", path.display()))?;
        let absolute = std::path::absolute(path)
            .map_err(|cause| format!("{} has no absolute path: {cause}", path.display()))?;
        Ok(Self { path: path.to_owned(), absolute })
    }

    /// Returns the path of the configuration file.
    pub(super) fn configuration(&self) -> PathBuf {
        self.path.join("portcullis.toml")
    }

    /// Writes the configuration file and loads it.
    pub(super) fn write_configuration(
        &self,
        arguments: &DemoArguments,
        addresses: &DemoAddresses,
    ) -> Result<Loaded, String> {
        let file = self.configuration();
        if std::fs::read(&file).is_ok_and(|found| !found.starts_with(MARK.as_bytes())) {
            return Err(format!(
                "{} was not written by the demo and is left as it is; choose another folder with --data",
                file.display()
            ));
        }
        let secret = self.absolute.join("client-secret");
        let text = self.text(arguments, addresses, &secret) + &arguments.notify_table();
        for (file, text) in [(&secret, CLIENT_SECRET), (&file, text.as_str())] {
            std::fs::write(file, text)
                .map_err(|cause| format!("{} cannot be written: {cause}", file.display()))?;
        }
        load(&file, &text)
    }

    fn text(&self, arguments: &DemoArguments, addresses: &DemoAddresses, secret: &Path) -> String {
        let DemoAddresses { public_url, listen, admin, issuer, target, .. } = addresses;
        let quoted = |text: String| toml::Value::String(text).to_string();
        let proxies = if addresses.is_tunnelled {
            "\n# The tunnel says which address a request came from.\ntrusted_proxies = [\"127.0.0.1\", \"::1\"]\n"
        } else {
            ""
        };
        format!(
            r#"{MARK} each time it starts. Your changes are lost then: copy the file to keep them.
# While the demo runs, the other commands work with it:
#   portcullis clients list --config {file}

public_url   = "{public_url}"
listen       = "{listen}"
database_url = {database}
client_approval = "{approval}"
{proxies}
[upstream]
provider      = "oidc"
name          = "the demo login"
issuer        = "{issuer}"
client_id     = "{CLIENT_ID}"
client_secret = {{ file = {secret} }}

[upstream.claims]
roles  = "roles"
groups = "groups"

{connection}
[[resource]]
path   = "/mcp"
name   = "To-do list"
target = "{target}"

{SCOPES_AND_RULES}
[client_documents]
enabled       = {documents}
through_proxy = {proxied}

[admin]
listen = "{admin}"
url    = "http://{admin_reached}"
roles  = ["Admin"]
"#,
            file = self.configuration().display(),
            database =
                quoted(format!("sqlite://{}", self.absolute.join("portcullis.db").display())),
            approval = arguments.client_approval(),
            admin_reached = reached_at(*admin),
            secret = quoted(secret.display().to_string()),
            connection = calendar(addresses, &quoted(secret.display().to_string())),
            documents = !arguments.no_client_documents,
            proxied = has_proxy(),
        )
    }
}

/// Returns the table of the calendar. Browsers open its pages, and only this machine asks for its tokens.
fn calendar(addresses: &DemoAddresses, secret: &str) -> String {
    let DemoAddresses { issuer, pages_url, .. } = addresses;
    format!(
        r#"# A service that people connect: the demo's calendar, with an OAuth client of its own.
[[connection]]
name          = "{CALENDAR}"
title         = "Demo calendar"
provider      = "oauth2"
client_id     = "{CALENDAR_CLIENT_ID}"
client_secret = {{ file = {secret} }}
authorize_url = "{pages_url}/calendar/authorize"
token_url     = "{issuer}/calendar/token"
revoke_url    = "{issuer}/calendar/revoke"
userinfo_url  = "{issuer}/calendar/me"
scopes        = ["calendar.read"]

[connection.scope_texts]
"calendar.read" = "See the events of your calendar"
"#
    )
}

/// Returns whether the environment names a proxy for websites.
fn has_proxy() -> bool {
    let names = ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"];
    names.into_iter().any(|name| std::env::var_os(name).is_some_and(|url| !url.is_empty()))
}

/// Loads the configuration of the demo. Of the environment it uses only the proxies, which may be the only
/// path to documents that clients publish. If the proxies are invalid, it ignores them, because the demo also
/// runs without.
fn load(file: &Path, text: &str) -> Result<Loaded, String> {
    let proxy = |name: &str| {
        ["HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"].contains(&name.to_ascii_uppercase().as_str())
    };
    let named = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    let proxies: BTreeMap<String, String> = named.filter(|(name, _)| proxy(name)).collect();
    let read = |env: &BTreeMap<String, String>| Config::load(Some((file, text.to_owned())), env);
    read(&proxies).or_else(|_| read(&BTreeMap::new())).map_err(|problems| problems.to_string())
}
