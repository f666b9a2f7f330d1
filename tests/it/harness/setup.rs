//! What a test changes before the start: TOML that is merged into the configuration of every test.

use portcullis::demo::{IdentityProvider, TodoServer};

use super::database::Database;

/// What a test changes before the start.
#[derive(Default)]
pub(crate) struct Setup {
    /// The path of `public_url`; `None`: none, or as the environment says.
    pub path: Option<&'static str>,
    /// Documents of TOML, merged in this order into the configuration of every test; see [`Self::toml`].
    pub toml: Vec<String>,
    /// The demo provider plays the preset that `[upstream]` names, at its own address.
    pub persona: bool,
    /// The secret that the provider knows us by.
    pub client_secret: Option<&'static str>,
    /// Environment variables that the server finds, such as those that name proxies.
    pub env: Vec<(&'static str, String)>,
    /// What names resolve to when strangers bring them. No file can say that: it would be a way around
    /// the guard.
    pub resolves: Vec<(&'static str, &'static str)>,
    /// On PostgreSQL, a plain role for the application, that is set to this; none: the one of the run.
    pub role: Vec<(&'static str, &'static str)>,
}

impl Setup {
    /// Merges a TOML document into the configuration of every test:
    ///
    /// - Keys and tables are added. A key that is there already is replaced.
    /// - `[upstream]` with a `provider` is another provider: only `client_id` and `client_secret` stay.
    /// - `[[resource]]` takes the place of the to-do server; `{todo}` is the to-do server's URL, and `{idp}` the
    ///   identity provider's.
    /// - `[resource]`, as if it were a table, keeps the to-do server and adds keys to it.
    pub(crate) fn toml(document: impl Into<String>) -> Self {
        Self::default().and(document)
    }

    /// Merges one more document.
    pub(crate) fn and(mut self, document: impl Into<String>) -> Self {
        self.toml.push(document.into());
        self
    }

    /// Returns whether a document names MCP servers of its own.
    pub(crate) fn has_resources(&self) -> bool {
        self.toml.iter().any(|document| document.lines().any(|line| line.trim() == "[[resource]]"))
    }

    /// Returns the whole configuration. It stays text, so that a test can change what a file says.
    pub(crate) fn config(
        &self,
        place: &ServerAt<'_>,
        idp: &IdentityProvider,
        todo: &TodoServer,
    ) -> String {
        let mut merged = Merged::default();
        for document in self.defaults(place, idp) {
            merged.merge(&document);
        }
        merged.of_default = merged.sections.len();
        for section in &mut merged.sections {
            section.replaceable = section.lines.len();
        }
        for document in &self.toml {
            merged.merge(&document.replace("{todo}", &todo.url()).replace("{idp}", idp.issuer()));
        }
        merged.text(todo)
    }

    fn defaults(&self, place: &ServerAt<'_>, idp: &IdentityProvider) -> Vec<String> {
        let secret = self.client_secret.unwrap_or("upstream-secret-canary");
        let mut documents = vec![format!(
            r#"public_url   = "{url}"
listen       = "{listen}"
database_url = "{database}"
secret_key   = "a test key that is long enough to be one, 0123456789"

[upstream]
provider      = "oidc"
name          = "the demo identity provider"
issuer        = "{issuer}"
client_id     = "portcullis"
client_secret = {secret:?}

[upstream.claims]
{claims}
"#,
            url = place.url,
            listen = place.listen,
            database = place.database.url,
            issuer = idp.issuer(),
            claims = if self.persona { "" } else { "roles = \"roles\"\ngroups = \"groups\"" },
        )];
        let admin =
            place.admin.map(|at| format!("[admin]\nlisten = \"{at}\"\nroles = [\"Admin\"]"));
        documents.extend(admin);
        documents
    }
}

/// Where the server is and what it stores in.
pub(crate) struct ServerAt<'a> {
    pub url: &'a str,
    pub listen: &'a str,
    /// The address of the admin pages, if there are any.
    pub admin: Option<&'a str>,
    pub database: &'a Database,
}

/// A table with its lines.
struct Section {
    /// `[name]`; empty for the keys before the first table.
    header: String,
    lines: Vec<String>,
    /// So many lines at the beginning are defaults, which later documents replace key by key.
    replaceable: usize,
}

/// Documents that were merged: tables of one name are one table, and lists of tables stay in their order.
#[derive(Default)]
struct Merged {
    sections: Vec<Section>,
    of_default: usize,
}

/// The name of a table in its header.
fn header_of(line: &str) -> Option<&str> {
    let line = line.trim();
    let is_header = line.starts_with('[') && line.ends_with(']') && !line.contains(',');
    is_header.then_some(line)
}

fn key_of(line: &str) -> Option<&str> {
    let (key, _) = line.split_once('=')?;
    let key = key.trim();
    let is_key = !key.is_empty() && !key.starts_with(['#', '"', '[', '{']);
    is_key.then_some(key)
}

/// The first name of a header.
fn first_name(header: &str) -> &str {
    header.trim_matches(['[', ']']).split('.').next().unwrap_or_default()
}

impl Merged {
    fn merge(&mut self, document: &str) {
        let list = |line: &str| line.starts_with("[[").then(|| first_name(line).to_owned());
        let lists: Vec<String> = document.lines().filter_map(header_of).filter_map(list).collect();
        let mut current = self.section("", true);
        if names_provider(document) {
            let upstream = self.section("[upstream]", true);
            self.drop_defaults(upstream, |key| !key.starts_with("client_"));
        }
        for line in document.lines() {
            if let Some(header) = header_of(line) {
                let in_list = lists.iter().any(|list| list == first_name(header));
                current = self.section(header, !in_list);
                continue;
            }
            if let Some(key) = key_of(line) {
                self.drop_defaults(current, |default| default == key);
            }
            self.sections[current].lines.push(line.to_owned());
        }
    }

    fn drop_defaults(&mut self, at: usize, is_replaced: impl Fn(&str) -> bool) {
        let section = &mut self.sections[at];
        let defaults: Vec<String> = section.lines.drain(..section.replaceable).collect();
        let kept = defaults.into_iter().filter(|line| !key_of(line).is_some_and(&is_replaced));
        let kept: Vec<String> = kept.collect();
        section.replaceable = kept.len();
        section.lines.splice(0..0, kept);
    }

    /// The section with this header, which may be a new one.
    fn section(&mut self, header: &str, shared: bool) -> usize {
        let known = self.sections.iter().position(|known| shared && known.header == header);
        known.unwrap_or_else(|| {
            let header = header.to_owned();
            self.sections.push(Section { header, lines: Vec::new(), replaceable: 0 });
            self.sections.len() - 1
        })
    }

    fn text(self, todo: &TodoServer) -> String {
        let has_resources = self.sections.iter().any(|section| section.header == "[[resource]]");
        let extra = self.sections.iter().find(|section| section.header == "[resource]");
        let has_todo = extra.is_some() || !has_resources;
        let extra = extra.map(|section| section.lines.join("\n")).unwrap_or_default();
        let mut text = String::new();
        for (at, section) in self.sections.iter().enumerate() {
            if at == self.of_default && has_todo {
                text.push_str(&todo_resource(todo, &extra));
            }
            if section.header != "[resource]" {
                text.extend([section.header.as_str(), "\n", &section.lines.join("\n"), "\n\n"]);
            }
        }
        if self.sections.len() == self.of_default && has_todo {
            text.push_str(&todo_resource(todo, &extra));
        }
        text
    }
}

/// Returns whether a document says which provider it is.
fn names_provider(document: &str) -> bool {
    let mut header = "";
    document.lines().any(|line| {
        header = header_of(line).unwrap_or(header);
        header == "[upstream]" && key_of(line) == Some("provider")
    })
}

/// The to-do server of the demo, with its rules. What they do not allow is challenged, as every other missing
/// scope is: `step_up` tests the default, a result.
pub(crate) fn todo_resource(todo: &TodoServer, extra: &str) -> String {
    format!(
        r#"
[[resource]]
path   = "/mcp"
name   = "To-do list"
target = "{target}"
on_denied_tool = "challenge"
scopes = {{ "read:todos" = "Read everybody's to-dos", "create:todos" = "Add to-dos", "delete:todos" = "Delete everybody's to-dos" }}
{extra}

[[resource.rule]]
roles = ["Admin"]
allow = ["read:todos", "create:todos", "delete:todos"]

[[resource.rule]]
roles = ["User"]
allow = ["create:todos"]

[resource.tools]
"purge-todos" = ["delete:todos"]
"#,
        target = todo.url(),
    )
}
