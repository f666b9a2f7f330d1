//! `portcullis config init`: a script writes a file for each provider, and the file is right.

use std::path::Path;
use std::process::Output;

use portcullis::config::{KeyKind, Preset, presets};

use crate::harness::TestApp;
use crate::harness::database::Database;
use crate::harness::process::run;

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn init(folder: &Path, arguments: &[&str]) -> Output {
    let all = [&["config", "init"], arguments].concat();
    run(folder, &all, &[("SECRET", "upstream-secret-canary")])
}

/// What every provider needs.
const COMMON: [&str; 8] = [
    "--public-url",
    "https://mcp.example.com",
    "--client-id",
    "portcullis",
    "--client-secret-env",
    "SECRET",
    "--target",
    "http://127.0.0.1:9000/mcp",
];

/// The flags for the keys of a provider, from their examples.
fn flags(preset: &Preset) -> Vec<String> {
    let mut flags = Vec::new();
    for key in preset.keys {
        flags.push(format!("--{}", key.name.replace('_', "-")));
        flags.push(match key.kind {
            KeyKind::Guid => "11111111-2222-3333-4444-555555555555".to_owned(),
            _ => key.example.to_owned(),
        });
    }
    if let Some((key, _)) = preset.restricted_by.filter(|_| preset.public_sign_up) {
        flags.extend([format!("--{}", key.replace('_', "-")), "acme.com,acme.org".to_owned()]);
    }
    // An open instance is refused, as it is in any other file.
    flags.iter().map(|flag| flag.replace("gitlab.com", "gitlab.example.com")).collect()
}

#[tokio::test]
async fn the_file_for_each_provider_is_read_without_a_problem() {
    let place = Database::new().await;
    for preset in presets() {
        let file = format!("{}.toml", preset.name);
        let of_preset = flags(preset);
        let mut arguments = vec![preset.name, "--yes", "--no-check", "--config", &file];
        arguments.extend(COMMON);
        arguments.extend(of_preset.iter().map(String::as_str));
        let ran = init(&place.folder, &arguments);
        assert!(ran.status.success(), "{}: {}", preset.name, text(&ran.stderr));
        let said = text(&ran.stdout);
        assert!(said.contains("  https://mcp.example.com/auth/callback\n"), "{said}");
        assert!(said.contains(preset.console.redirect_uri), "{said}");
        assert!(said.contains("  https://mcp.example.com/mcp\n"), "{said}");

        let check = ["config", "check", "--config", &file];
        let ran = run(&place.folder, &check, &[("SECRET", "upstream-secret-canary")]);
        let said = format!("{}{}", text(&ran.stdout), text(&ran.stderr));
        assert_eq!(ran.status.code(), Some(0), "{}: {said}", preset.name);
        let written = std::fs::read_to_string(place.folder.join(&file)).unwrap();
        assert!(written.starts_with("#:schema ./portcullis.schema.json\n"), "{written}");
        assert!(!written.contains("canary"), "{written}");
    }
    let schema = std::fs::read_to_string(place.folder.join("portcullis.schema.json")).unwrap();
    assert!(schema.contains("\"public_url\""));
}

#[tokio::test]
async fn rules_roles_and_names_are_what_the_flags_say() {
    let place = Database::new().await;
    std::fs::write(place.folder.join("secret"), "keycloak-secret").unwrap();
    let ran = init(
        &place.folder,
        &[
            "Keycloak",
            "--yes",
            "--no-check",
            "--public-url",
            "http://127.0.0.1:8000",
            "--issuer",
            "http://127.0.0.1:8080/realms/acme",
            "--client-id",
            "portcullis",
            "--client-secret-file",
            "secret",
            "--provider-name",
            "Acme \"Keycloak\"",
            "--listen",
            "127.0.0.1:8000",
            "--target",
            "http://127.0.0.1:9000/mcp",
            "--path",
            "/todos",
            "--name",
            "The \"to-do\" list",
            "--scopes",
            "read:todos,create:todos",
            "--rule",
            "Admin=read:todos,create:todos",
            "--rule",
            "User=read:todos",
            "--roles-claim",
            "/resource_access/todo/roles",
            "--admin-role",
            "Admin",
        ],
    );
    assert!(ran.status.success(), "{}", text(&ran.stderr));
    let ran = run(&place.folder, &["config", "show"], &[]);
    assert!(ran.status.success(), "{}", text(&ran.stderr));
    let shown: toml::Table = text(&ran.stdout).parse().unwrap();
    assert_eq!(shown["upstream"]["url"].as_str(), Some("http://127.0.0.1:8080"));
    assert_eq!(shown["upstream"]["realm"].as_str(), Some("acme"));
    assert_eq!(shown["upstream"]["name"].as_str(), Some("Acme \"Keycloak\""));
    assert_eq!(shown["upstream"]["roles_claim"].as_str(), Some("/resource_access/todo/roles"));
    assert_eq!(shown["admin"]["roles"][0].as_str(), Some("Admin"));
    let resource = &shown["resource"][0];
    assert_eq!(resource["path"].as_str(), Some("/todos"));
    assert_eq!(resource["name"].as_str(), Some("The \"to-do\" list"));
    assert_eq!(resource["rule"][1]["roles"][0].as_str(), Some("User"));
    assert_eq!(resource["rule"][1]["allow"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn nothing_is_written_over_a_file_or_from_wrong_answers() {
    let place = Database::new().await;
    let file = place.folder.join("portcullis.toml");
    let mut okta = vec!["okta", "--yes", "--no-check", "--domain", "acme.okta.com"];
    okta.extend(COMMON);
    for (arguments, wanted) in [
        (vec!["okta", "--yes"], "missing: --public-url, --client-id, --client-secret-file or"),
        (vec!["--yes"], "name the identity provider: okta, auth0, keycloak"),
        ([&okta[..], &["--realm", "acme"]].concat(), "--realm is not for okta"),
        (
            [&okta[..3], &COMMON[..], &["--issuer", "https://sso.example.com/realms/acme"]]
                .concat(),
            "is not a host name",
        ),
        (
            [&okta[..], &["--issuer", "https://other.okta.com"]].concat(),
            "--domain says something else than --issuer",
        ),
        ([&okta[..], &["--path", "/token"]].concat(), "a path of Portcullis itself"),
        (
            okta.iter()
                .map(|&part| {
                    part.strip_suffix("s://mcp.example.com")
                        .map_or(part, |_| "http://mcp.example.com/")
                })
                .collect(),
            "is not https, and ends with",
        ),
        ([&okta[..], &["--rule", "Admin=nothing"]].concat(), "is not a scope of this resource"),
    ] {
        let ran = init(&place.folder, &arguments);
        let said = text(&ran.stderr);
        assert_eq!(ran.status.code(), Some(1), "{arguments:?}: {said}");
        assert!(said.contains(wanted), "{arguments:?}: {said}");
        assert!(!file.exists(), "{arguments:?}");
    }
    let ran = init(&place.folder, &["oktta", "--yes"]);
    assert!(text(&ran.stderr).contains("okta"), "{}", text(&ran.stderr));

    std::fs::write(&file, "# mine\n").unwrap();
    let ran = init(&place.folder, &okta);
    assert_eq!(ran.status.code(), Some(1));
    assert!(text(&ran.stderr).contains("portcullis.toml exists"), "{}", text(&ran.stderr));
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "# mine\n");
}

#[tokio::test]
async fn the_new_file_is_checked_at_the_provider_and_stays_when_the_check_fails() {
    let app = TestApp::start_on_the_real_clock().await;
    let (origin, issuer) = (app.url.clone(), app.idp.issuer().to_owned());
    let run_init = async |secret: &'static str, file: &'static str| {
        let (origin, issuer, folder) =
            (origin.clone(), issuer.clone(), app.database.folder.clone());
        tokio::task::spawn_blocking(move || {
            std::fs::write(folder.join("secret"), secret).unwrap();
            let ran = init(
                &folder,
                &[
                    "oidc",
                    "--yes",
                    "--config",
                    file,
                    "--public-url",
                    &origin,
                    "--issuer",
                    &issuer,
                    "--client-id",
                    "portcullis",
                    "--client-secret-file",
                    "secret",
                    "--target",
                    "http://127.0.0.1:9000/mcp",
                ],
            );
            (
                format!("{}{}", text(&ran.stdout), text(&ran.stderr)),
                ran.status.code(),
                folder.join(file),
            )
        })
        .await
        .unwrap()
    };

    let (said, code, file) = run_init("upstream-secret-canary", "right.toml").await;
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("ok    secret"), "{said}");
    assert!(file.exists() && !said.contains("canary"), "{said}");

    let (said, code, file) = run_init("another-secret", "wrong.toml").await;
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("FAIL  secret"), "{said}");
    assert!(file.exists(), "the file stays: one word in it is to be changed");
}

/// A secret that is typed goes into a file that nobody else can read, and never onto the screen.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn lg_01_a_typed_secret_goes_into_a_file_of_its_own() {
    use std::io::Write as _;
    use std::os::unix::fs::PermissionsExt as _;
    use std::process::{Command, Stdio};

    if Command::new("script").arg("--version").output().is_err() {
        return; // nothing here plays a terminal
    }
    let place = Database::new().await;
    let binary = env!("CARGO_BIN_EXE_portcullis");
    // `script` gives the command a terminal.
    let child = Command::new("script")
        .args(["-qec", &format!("{binary} config init okta --no-check"), "/dev/null"])
        .current_dir(&place.folder)
        .env_remove("PORTCULLIS_CONFIG")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn();
    let mut child = child.unwrap();
    let typed = "https://mcp.example.com\nacme.okta.com\n0oa1\nthe-typed-canary\nAcme sign-in\n\
                 http://127.0.0.1:9000/mcp\n\n\n\n\n\n";
    child.stdin.take().unwrap().write_all(typed.as_bytes()).unwrap();
    let ran = child.wait_with_output().unwrap();
    let shown = text(&ran.stdout);
    assert!(ran.status.success(), "{shown}");

    let secret = place.folder.join("portcullis.secret");
    assert_eq!(std::fs::read_to_string(&secret).unwrap(), "the-typed-canary");
    assert_eq!(secret.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let file = std::fs::read_to_string(place.folder.join("portcullis.toml")).unwrap();
    assert!(file.contains("client_secret = { file = \"portcullis.secret\" }"), "{file}");
    assert!(shown.contains("Name of the provider on the pages"), "{shown}");
    assert!(file.contains("\nname = \"Acme sign-in\""), "{file}");
    let ran = run(&place.folder, &["config", "check"], &[]);
    assert_eq!(ran.status.code(), Some(0), "{}", text(&ran.stderr));
}
