//! The binary as an administrator uses it.

use std::path::Path;

use crate::harness::database::Database;
use crate::harness::process::run;

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn write(folder: &Path, config: &str) {
    std::fs::write(folder.join("portcullis.toml"), config).unwrap();
}

#[tokio::test]
async fn every_command_has_help_with_an_example() {
    let place = Database::new().await;
    let help = text(&run(&place.folder, &["--help"], &[]).stdout);
    for command in ["demo", "serve", "config", "doctor"] {
        assert!(help.contains(command), "{help}");
    }
    let command = portcullis::cli::command();
    let looked: usize = command.get_subcommands().map(look).sum();
    assert!(looked > 35, "{looked}");
}

#[tokio::test]
async fn the_help_is_grouped_and_says_plainly_what_each_command_does() {
    let place = Database::new().await;
    for arguments in [&["--help"][..], &["-h"], &[]] {
        let ran = run(&place.folder, arguments, &[]);
        let help = format!("{}{}", text(&ran.stdout), text(&ran.stderr));
        let at = |part: &str| help.find(part).unwrap_or_else(|| panic!("{part}: {help}"));
        assert!(at("\nRun:\n  demo ") < at("\n  serve "), "{help}");
        assert!(at("\nSet up:\n") < at("\nManage:\n"), "{help}");
        assert!(at("\nMaintain:\n") < at("\nOptions:\n"), "{help}");
        assert!(help.contains("  serve        Run the server\n"), "{help}");
        assert!(!help.contains('\u{1b}'), "no colours without a terminal: {help}");
    }
    let help = text(&run(&place.folder, &["people", "--help"], &[]).stdout);
    assert!(help.contains("Block a person and end their connections and sessions"), "{help}");
    let help = text(&run(&place.folder, &["grants", "list", "--help"], &[]).stdout);
    assert!(!help.contains("[default: ]") && !help.contains("\"\""), "{help}");
    assert!(help.contains("[default: 50]"), "{help}");
}

#[tokio::test]
async fn completions_and_man_pages_are_made_from_the_same_definition() {
    let place = Database::new().await;
    for (shell, mark) in [
        ("bash", "complete -F _portcullis"),
        ("zsh", "#compdef portcullis"),
        ("fish", "complete -c portcullis"),
        ("powershell", "Register-ArgumentCompleter"),
        ("elvish", "edit:completion"),
    ] {
        let ran = run(&place.folder, &["completions", shell], &[]);
        let script = text(&ran.stdout);
        assert!(script.contains(mark), "{shell}: {script}");
        for word in ["revoke-all", "dry-run", "init"] {
            assert!(script.contains(word), "{shell} completes {word}");
        }
    }
    let ran = run(&place.folder, &["man", "."], &[]);
    assert!(ran.status.success(), "{}", text(&ran.stderr));
    for (page, part) in [
        ("portcullis.1", "portcullis\\-serve(1)"),
        ("portcullis-grants-revoke-all.1", "dry\\-run"),
        ("portcullis-config-init.1", "public\\-url"),
    ] {
        let page = std::fs::read_to_string(place.folder.join(page)).unwrap();
        assert!(page.contains(part), "{page}");
    }
    let ran = run(&place.folder, &["man", "nowhere"], &[]);
    assert!(!ran.status.success() && text(&ran.stderr).contains("nowhere"));
}

#[tokio::test]
async fn the_version_is_that_of_the_package_with_the_commit_where_it_is_known() {
    let place = Database::new().await;
    let said = text(&run(&place.folder, &["--version"], &[]).stdout);
    let form = regex_lite::Regex::new(
        r"^portcullis (\d+\.\d+\.\d+)( \([0-9a-f]{12,40} \d{4}-\d\d-\d\d\))?\n$",
    );
    let found = form.unwrap().captures(&said).unwrap_or_else(|| panic!("{said}"));
    assert_eq!(&found[1], env!("CARGO_PKG_VERSION"));
}

#[tokio::test]
async fn a_wrong_configuration_is_explained_all_at_once_and_nothing_starts() {
    let place = Database::new().await;
    write(&place.folder, "public_ulr = \"https://x.example\"\nlisten = \"here\"\n");
    let ran = run(&place.folder, &["serve"], &[]);
    assert!(!ran.status.success());
    let said = text(&ran.stderr);
    for part in ["public_ulr", "did you mean public_url", "listen", "upstream.provider", "resource"]
    {
        assert!(said.contains(part), "{part} is not in: {said}");
    }
    assert!(!place.folder.join("portcullis.db").exists());
}

#[tokio::test]
async fn what_config_show_prints_is_toml_and_says_what_was_written() {
    let place = crate::harness::database::Database::new().await;
    let example = std::fs::read_to_string("portcullis.example.toml").unwrap();
    let ours = r##"
public_url = "https://mcp.example.com"
listen     = "127.0.0.1:8765"

[upstream]
provider      = "okta"
domain        = "acme.okta.com"
client_id     = "0oa1"
client_secret = { env = "OKTA_CLIENT_SECRET" }

[upstream.authorize_params]
acr_values = "urn:x \"y\""

[[resource]]
path   = "/mcp"
name   = "To-do 'list' \u202e \\ \u00e9"
target = "http://127.0.0.1:9000/"
scopes = { "a:b" = "One, = \"two\"", "c" = "#no comment" }

[[resource.rule]]
roles = ["Admin # one"]
allow = ["a:b"]

[resource.tools]
"purge.all" = ["c"]

[[resource]]
path   = "/two"
target = "http://127.0.0.1:9001/"
scopes = ["x"]

[limits]
registrations_per_hour = 7
"##;
    let env = [
        ("OKTA_CLIENT_SECRET", "a-canary"),
        ("PORTCULLIS_SECRET_KEY", "canary-0123456789012345678901234567890"),
    ];
    let mut seen = 0;
    for (name, written) in [("example.toml", example.as_str()), ("ours.toml", ours)] {
        std::fs::write(place.folder.join(name), written).unwrap();
        let ran = run(&place.folder, &["config", "show", "--config", name], &env);
        if name == "ours.toml" || ran.status.success() {
            assert!(ran.status.success(), "{}", text(&ran.stderr));
            let shown = text(&ran.stdout);
            let table: toml::Table =
                shown.parse().unwrap_or_else(|error| panic!("{name}: {error}\n{shown}"));
            assert!(!shown.contains("a-canary"), "{shown}");
            seen += 1;
            if name == "ours.toml" {
                let two = &table["resource"].as_array().unwrap()[1];
                assert_eq!(two["path"].as_str(), Some("/two"));
                let one = &table["resource"].as_array().unwrap()[0];
                let wrote: toml::Table = ours.parse().unwrap();
                let wrote = &wrote["resource"].as_array().unwrap()[0];
                for key in ["path", "name", "scopes", "tools"] {
                    assert_eq!(one[key], wrote[key], "{shown}");
                }
                assert_eq!(one["rule"][0]["roles"], wrote["rule"][0]["roles"], "{shown}");
                assert_eq!(table["limits"]["registrations_per_hour"].as_integer(), Some(7));
                let secret = shown.lines().find(|line| line.contains("client_secret")).unwrap();
                assert!(secret.contains("# env OKTA_CLIENT_SECRET"), "{secret}");
                let key = shown.lines().find(|line| line.contains("secret_key")).unwrap();
                assert!(key.contains("PORTCULLIS_SECRET_KEY"), "{key}");
                let path = shown.lines().find(|line| line.contains("\"/two\"")).unwrap();
                assert!(path.contains("# ours.toml"), "{path}");
            }
        }
    }
    assert!(seen >= 1);
}

#[tokio::test]
async fn config_show_tells_values_and_origins_and_masks_secrets() {
    let place = Database::new().await;
    write(
        &place.folder,
        r#"
        public_url = "https://mcp.example.com"
        [upstream]
        provider = "okta"
        domain = "acme.okta.com"
        client_id = "0oa1"
        [[resource]]
        path = "/mcp"
        scopes = ["read"]
        "#,
    );
    let env = [
        ("PORTCULLIS_UPSTREAM__CLIENT_SECRET", "canary-secret"),
        ("PORTCULLIS_LISTEN", "127.0.0.1:8765"),
    ];
    let ran = run(&place.folder, &["config", "show"], &env);
    assert!(ran.status.success(), "{}", text(&ran.stderr));
    let shown = text(&ran.stdout);
    assert!(shown.contains("127.0.0.1:8765") && shown.contains("PORTCULLIS_LISTEN"), "{shown}");
    assert!(shown.contains("portcullis.toml") && shown.contains("acme.okta.com"), "{shown}");
    assert!(!format!("{shown}{}", text(&ran.stderr)).contains("canary"));
}

#[tokio::test]
async fn a_missing_file_and_a_taken_port_are_said_plainly() {
    let place = Database::new().await;
    let ran = run(&place.folder, &["serve", "--config", "nowhere.toml"], &[]);
    let said = text(&ran.stderr);
    assert!(said.contains("nowhere.toml\n    cannot be read: "), "{said}");
    assert!(!ran.status.success());

    let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let ran = run(&place.folder, &["demo", "--listen", &address], &[]);
    assert!(!ran.status.success());
    assert!(text(&ran.stderr).contains("cannot listen on"), "{}", text(&ran.stderr));
    let ran = run(&place.folder, &["demo", "--listen", "192.0.2.1:0"], &[]);
    assert!(text(&ran.stderr).contains("listens on loopback"), "{}", text(&ran.stderr));
}

/// What is in the way of a start is named by its key.
#[tokio::test]
async fn an_address_that_cannot_be_listened_on_names_its_key() {
    let app = crate::harness::TestApp::start().await;
    let folder = &app.database.folder;
    let free = crate::harness::process::free_address().to_string();
    let (public, admin) = (&app.origin["http://".len()..], &app.admin_url["http://".len()..]);
    let another = Database::new().await;
    let text = app.config_text().replace(&app.database.url, &another.url);
    let cases = [
        (text.clone(), "listen", public.to_owned(), "in use"),
        (text.replacen(public, &free, 2), "admin.listen", admin.to_owned(), "in use"),
        (
            text.replacen(
                &format!("listen       = \"{public}\""),
                "listen = \"192.0.2.1:8000\"",
                1,
            ),
            "listen",
            "192.0.2.1:8000".to_owned(),
            "this machine has no such address",
        ),
    ];
    for (text, key, address, why) in cases {
        write(folder, &text);
        let folder = folder.clone();
        let ran = tokio::task::spawn_blocking(move || run(&folder, &["serve"], &[])).await.unwrap();
        let said = String::from_utf8(ran.stderr).unwrap();
        assert_eq!(ran.status.code(), Some(1), "{said}");
        let line = format!("portcullis: {key} = \"{address}\": ");
        assert!(said.contains(&line) && said.contains(why), "{line}: {said}");
    }
}

/// A configuration is read whole into memory: what is too large to be one is not.
#[cfg(unix)]
#[tokio::test]
async fn files_too_large_to_be_a_configuration_or_a_secret_are_refused() {
    let place = Database::new().await;
    let example = std::fs::read_to_string("portcullis.example.toml").unwrap();
    let large = place.folder.join("large");
    std::fs::write(&large, "#".repeat(5 << 20)).unwrap();
    let secret = |path: &str| {
        format!(
            "public_url = \"https://mcp.example.com\"\n[upstream]\nprovider = \"okta\"\ndomain = \"a.okta.com\"\n\
             client_id = \"x\"\nclient_secret = {{ file = {path:?} }}\n[[resource]]\npath = \"/mcp\"\n\
             target = \"http://127.0.0.1:9/\"\nscopes = [\"a\"]\n"
        )
    };
    let cases = [
        ("a file", format!("{example}\n{}", "#".repeat(5 << 20)), "portcullis.toml", "4 MiB"),
        ("a secret", secret(&large.display().to_string()), "client_secret", "64 KiB"),
        ("an endless secret", secret("/dev/zero"), "client_secret", "64 KiB"),
    ];
    for (what, text, key, limit) in cases {
        write(&place.folder, &text);
        for command in [&["config", "show"][..], &["serve"]] {
            let ran = run(&place.folder, command, &[]);
            let said = String::from_utf8(ran.stderr).unwrap();
            assert!(!ran.status.success(), "{what}: {said}");
            assert!(said.contains(key) && said.contains(limit), "{what}: {said}");
        }
    }
    let ran = run(&place.folder, &["config", "show", "--config", "/dev/zero"], &[]);
    assert!(String::from_utf8(ran.stderr).unwrap().contains("4 MiB"));
}
fn look(command: &clap::Command) -> usize {
    let mut looked = 1;
    let after = command.get_after_help().map(ToString::to_string).unwrap_or_default();
    assert!(after.contains("Example"), "{}: {after}", command.get_name());
    for inner in command.get_subcommands() {
        looked += look(inner);
    }
    looked
}
