//! What the demo prints at its start: where everything is, and lines to copy.

use super::DemoAddresses;
use super::folder::DemoFolder;
use crate::cli::{output, reached_at};

/// Prints where everything is. `documents`: clients may publish their metadata.
pub(super) fn announce(addresses: &DemoAddresses, folder: &DemoFolder, documents: bool) {
    let (open, end) = match (addresses.is_tunnelled, addresses.is_open) {
        (true, _) => (warning(addresses), "Ctrl-C stops the demo. Stop the tunnel too."),
        (false, true) => {
            (open_warning(addresses), "Ctrl-C stops it; nobody is signed out by that.")
        }
        (false, false) => (
            String::new(),
            "Everything listens on this machine only. Ctrl-C stops it; nobody is signed out by that.",
        ),
    };
    let text = format!(
        "Portcullis demo

{places}
Try:
{lines}
{registering}

{open}{end}

",
        places = places(addresses, folder),
        lines = lines(addresses, folder),
        registering = registering(documents),
    );
    if let Err(cause) = output::print(&text) {
        tracing::warn!(%cause, "nobody reads how to use the demo");
    }
}

fn places(addresses: &DemoAddresses, folder: &DemoFolder) -> String {
    let DemoAddresses { public_url, pages_url, .. } = addresses;
    let admin = reached_at(addresses.admin);
    format!(
        "  MCP URL            {public_url}/mcp
  Admin pages        http://{admin}   sign in as alice
  Identity provider  {pages_url}   alice (admin), bob (user), mallory (no access)
                     the password is the name
  Configuration      {file}
",
        file = folder.configuration().display(),
    )
}

fn lines(addresses: &DemoAddresses, folder: &DemoFolder) -> String {
    let DemoAddresses { public_url, .. } = addresses;
    let program = std::env::args().next().unwrap_or_else(|| "portcullis".to_owned());
    let (program, file) = (shell(&program), shell(&folder.configuration().display().to_string()));
    let claude = if addresses.is_tunnelled {
        format!(
            "  Claude on the web  Customize › Connectors › Add custom connector, with the URL {public_url}/mcp
"
        )
    } else {
        String::new()
    };
    format!(
        "{claude}  MCP Inspector      npx @modelcontextprotocol/inspector@2 --web --transport http --server-url {public_url}/mcp
                     needs Node 22.19 or newer; flip the switch on the card
  Claude Code        claude mcp add --transport http todos {public_url}/mcp
                     then /mcp, and Authenticate
  Then               sign in as bob: create-todo and get-todos work, purge-todos is refused
                     sign in as alice, who sees everybody's to-dos and may purge them
  Connect a service  ask the client \"what is on my agenda?\": agenda answers with a link; open it, connect the
                     calendar, and ask again. {public_url}/account/connections shows and disconnects it
  Try the CLI        {program} clients list --config {file}
"
    )
}

fn registering(documents: bool) -> &'static str {
    if documents {
        "Clients that publish a metadata document (Claude Code, VS Code) are known by it while this machine
reaches the network. Without a network they register themselves, as with --no-client-documents."
    } else {
        "Clients register themselves: no metadata document is fetched (--no-client-documents)."
    }
}

fn warning(addresses: &DemoAddresses) -> String {
    let DemoAddresses { public_url, front, admin, .. } = addresses;
    format!(
        "The tunnel must send requests for {public_url} to http://{front}, with their Host header.

WARNING: anyone who knows this URL can use the demo.
  Open          the MCP URL, the registration of clients, the consent and sign-in pages, /account
  Public        the people and their passwords: anyone can sign in as alice, and read, add and delete to-dos,
                and connect the made-up calendars
  Not open      the admin pages (http://{admin}) and everything else on this machine
Write nothing private into the to-do list.

"
    )
}

/// The warning of a demo that listens on every address.
fn open_warning(addresses: &DemoAddresses) -> String {
    let DemoAddresses { front, admin, pages_url, .. } = addresses;
    let (first, admin) = (front.port(), admin.port());
    format!(
        "WARNING: this demo listens on every address. Whoever reaches its ports (MCP and sign-in {first}, admin
pages {admin}, identity provider {pages_url}) can sign in as anybody: the passwords are public.
In a container, publish them on this machine only:  -p 127.0.0.1:{first}-{last}:{first}-{last}
Write nothing private into the to-do list.

",
        last = first.saturating_add(2),
    )
}

/// Quotes a word for a shell where it needs that.
fn shell(word: &str) -> String {
    let is_plain = |c: char| c.is_alphanumeric() || "/._-+:@%,".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::shell;

    #[test]
    fn words_are_quoted_for_the_shell_only_where_needed() {
        assert_eq!(shell("portcullis-demo/portcullis.toml"), "portcullis-demo/portcullis.toml");
        assert_eq!(shell("/my files/p.toml"), "'/my files/p.toml'");
        assert_eq!(shell("it's"), "'it'\\''s'");
    }
}
