//! `portcullis config check`, `show` and `schema`, and what every command says about a configuration with mistakes.

use std::path::Path;
use std::process::Output;

use serde_json::Value;

use crate::harness::database::Database;
use crate::harness::process::run;

const FILE: &str = "\
# A comment
public_url = \"https://mcp.example.com\"

[upstream]
provider      = \"okta\"
domain        = \"acme.okta.com\"
client_id     = \"0oa1\"
client_secret = { env = \"OKTA_CLIENT_SECRET\" }

[[resource]]
path   = \"/mcp\"
target = \"http://127.0.0.1:9000/mcp\"
scopes = [\"read:todos\", \"create:todos\"]

[[resource.rule]]
roles = [\"User\"]
allow = [\"read:todos\"]
";
const ENV: [(&str, &str); 1] = [("OKTA_CLIENT_SECRET", "a-canary")];

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn write(folder: &Path, config: &str) {
    std::fs::write(folder.join("portcullis.toml"), config).unwrap();
}

/// Runs `config check --json` on this text; the result and the exit code.
fn check(folder: &Path, config: &str, env: &[(&str, &str)]) -> (Value, i32) {
    write(folder, config);
    let ran = run(folder, &["config", "check", "--json"], env);
    let json = serde_json::from_slice(&ran.stdout)
        .unwrap_or_else(|_| panic!("{}{}", text(&ran.stdout), text(&ran.stderr)));
    (json, ran.status.code().unwrap())
}

#[tokio::test]
async fn config_check_says_whether_the_file_is_valid_and_its_exit_code_too() {
    let place = Database::new().await;
    let (json, code) = check(&place.folder, FILE, &ENV);
    assert_eq!((json["valid"].as_bool(), code), (Some(true), 0), "{json}");
    assert_eq!(json["warnings"], serde_json::json!([]));
    let ran = run(&place.folder, &["config", "check"], &ENV);
    assert_eq!(text(&ran.stdout), "ok    portcullis.toml is a valid configuration.\n");
    let ran = run(&place.folder, &["--quiet", "config", "check"], &ENV);
    assert_eq!((text(&ran.stdout).as_str(), ran.status.code()), ("", Some(0)));

    let in_file = FILE.replace("{ env = \"OKTA_CLIENT_SECRET\" }", "\"a-canary\"");
    let (json, code) = check(&place.folder, &in_file, &[]);
    assert_eq!((json["valid"].as_bool(), code), (Some(true), 1), "{json}");
    assert_eq!(json["warnings"].as_array().unwrap().len(), 1, "{json}");
    let ran = run(&place.folder, &["config", "check", "-q"], &[]);
    let said = text(&ran.stdout);
    // File and line, as with an error.
    let line = in_file.lines().position(|line| line.contains("a-canary")).unwrap() + 1;
    let begins = format!("warn  portcullis.toml:{line}: upstream.client_secret is in the file");
    assert!(said.starts_with(&begins), "{said}");
    let ran = run(&place.folder, &["config", "show"], &[]);
    assert!(text(&ran.stderr).contains("upstream.client_secret"), "{}", text(&ran.stderr));

    let (json, code) = check(&place.folder, &FILE.replace("/mcp\"\ntarget", "mcp\"\ntarget"), &ENV);
    assert_eq!((json["valid"].as_bool(), code), (Some(false), 2), "{json}");
    let problem = &json["problems"][0];
    assert_eq!(problem["key"], "resource[0].path");
    assert_eq!(problem["file"], "portcullis.toml");
    assert_eq!(problem["line"], 11);
    let ran = run(&place.folder, &["config", "check"], &ENV);
    assert_eq!(ran.status.code(), Some(2));
    let said = text(&ran.stderr);
    assert!(said.contains("\n  portcullis.toml:11: resource[0].path = \"mcp\"\n"), "{said}");
}

#[tokio::test]
async fn every_mistake_names_file_and_line_or_the_variable_that_sets_it() {
    let place = Database::new().await;
    let folder = &place.folder;
    for (wrong, right, key, line) in [
        ("okta\"\nd", "oktta\"\nd", "upstream.provider", 5),
        ("client_id     = \"0oa1\"\n", "", "upstream.client_id", 4),
        ("OKTA_CLIENT_SECRET", "ABSENT", "upstream.client_secret", 8),
        ("http://127.0.0.1:9000", "ftp://127.0.0.1", "resource[0].target", 12),
        ("path   = \"/mcp\"\n", "", "resource[0].path", 10),
        ("roles =", "emails =", "resource[0].rule[0].emails", 16),
        ("allow = [\"read", "allow = [\"raed", "resource[0].rule[0].allow", 17),
        ("allow = [\"read:todos\"]\n", "", "resource[0].rule[0]", 15),
        ("# A comment", "[tokens]\naccess = \"1s\"\n[x]", "tokens.access", 2),
    ] {
        let (json, code) = check(folder, &FILE.replacen(wrong, right, 1), &ENV);
        assert_eq!(code, 2, "{key}: {json}");
        let problems = json["problems"].as_array().unwrap();
        let problem = problems.iter().find(|problem| problem["key"] == key);
        let problem = problem.unwrap_or_else(|| panic!("{key}: {json}"));
        assert_eq!(problem["file"], "portcullis.toml", "{problem}");
        assert_eq!(problem["line"], line, "{problem}");
    }
    let (json, _) = check(folder, FILE, &[ENV[0], ("PORTCULLIS_RESOURCE__TARGET", "ftp://x")]);
    let problem = &json["problems"][0];
    assert_eq!(problem["variable"], "PORTCULLIS_RESOURCE__TARGET", "{problem}");
    assert!(problem["line"].is_null(), "{problem}");
    write(folder, &format!("{FILE}x = = 1\n"));
    let said = text(&run(folder, &["config", "check"], &ENV).stderr);
    assert!(said.contains("\n  portcullis.toml:18\n    is not TOML"), "{said}");
}

/// A hint that sends the reader to the wrong place is worse than none.
#[tokio::test]
async fn a_hint_names_what_was_meant_and_one_mistake_is_one_problem() {
    let place = Database::new().await;
    let client = "[[client]]\nclient_id = \"x\"\nname = \"X\"\npublic = true\n\
                  redirect_uris = [\"http://x.example.com/cb\"]\n[upstream]";
    for (wrong, right, key, hint) in [
        ("\"okta\"", "\"Okta\"", "upstream.provider", "did you mean \"okta\"?"),
        ("domain ", "tenant = \"x\"\ndomain ", "upstream.tenant", "tenant is for entra"),
        ("path ", "url = \"https://x\"\npath ", "resource[0].url", "public_url + path"),
        ("roles =", "emails = [\"a@b\"]\nroles =", "resource[0].rule[0].emails", "subjects"),
        (
            "path ",
            "client_approval = \"none\"\npath ",
            "resource[0].client_approval",
            "Move it above the first [table]",
        ),
        ("# A comment", "client_idd = \"x\"", "client_idd", "upstream.client_id"),
        ("https://mcp.example.com", "http://mcp.example.com/", "public_url", "write https://mcp."),
        ("# A comment", "url = \"https://x.example.com\"", "url", "did you mean public_url?"),
        ("[upstream]", client, "client[0].redirect_uris", "write https://"),
    ] {
        let (json, _) = check(&place.folder, &FILE.replacen(wrong, right, 1), &ENV);
        let problems = json["problems"].as_array().unwrap();
        assert_eq!(problems.len(), 1, "{key}: {json}");
        assert_eq!(problems[0]["key"], key, "{json}");
        let said = problems[0]["hint"].as_str().unwrap();
        assert!(said.contains(hint), "{key}: {said}");
    }
    let (json, _) = check(
        &place.folder,
        &FILE.replace("https://mcp.example.com", "http://mcp.example.com/"),
        &ENV,
    );
    assert_eq!(json["problems"][0]["reason"], "is not https, and ends with \"/\"");
}

#[tokio::test]
async fn without_any_configuration_every_command_says_how_to_start() {
    let place = Database::new().await;
    let run =
        |arguments: &[&str], env: &[(&str, &str)]| -> Output { run(&place.folder, arguments, env) };
    for (command, code) in [
        (&["serve"][..], 1),
        (&["check"], 2),
        (&["config", "check"], 2),
        (&["config", "show"], 1),
        (&["people", "list"], 1),
        (&["explain", "--user", "okta:00u1"], 1),
    ] {
        // What Kubernetes sets for a Service called `portcullis` is no configuration.
        let ran = run(command, &[("PORTCULLIS_PORT", "tcp://10.96.13.7:8000")]);
        let said = text(&ran.stderr);
        let folder = place.folder.canonicalize().unwrap();
        assert!(
            said.starts_with("portcullis: No configuration: portcullis.toml is not in"),
            "{said}"
        );
        assert!(said.contains(folder.to_str().unwrap()), "{command:?}: {said}");
        assert!(said.contains("portcullis config init okta"), "{command:?}: {said}");
        assert!(!said.contains("problems"), "{command:?}: {said}");
        assert_eq!(ran.status.code(), Some(code), "{command:?}: {said}");
    }
    // One variable is a configuration, if an incomplete one.
    let ran = run(&["config", "check"], &[("PORTCULLIS_LISTEN", "127.0.0.1:8000")]);
    assert!(text(&ran.stderr).contains("public_url"), "{}", text(&ran.stderr));
}

#[tokio::test]
async fn config_show_as_json_has_each_value_with_its_origin() {
    let place = Database::new().await;
    write(&place.folder, FILE);
    let env = [ENV[0], ("PORTCULLIS_LISTEN", "127.0.0.1:8765")];
    let ran = run(&place.folder, &["config", "show", "--json"], &env);
    let shown: Value = serde_json::from_slice(&ran.stdout).unwrap();
    assert!(!shown.to_string().contains("canary"), "{shown}");
    let of = |key: &str| {
        let values = shown["values"].as_array().unwrap();
        let value = values.iter().find(|value| value["key"] == key);
        value.unwrap_or_else(|| panic!("{key}: {shown}")).clone()
    };
    assert_eq!(of("listen")["value"], "127.0.0.1:8765");
    assert_eq!(of("listen")["origin"], "PORTCULLIS_LISTEN");
    assert_eq!(of("upstream.client_secret")["value"], "********");
    assert_eq!(of("upstream.client_secret")["origin"], "env OKTA_CLIENT_SECRET");
    assert_eq!(of("resource[0].rule[0].allow")["value"], serde_json::json!(["read:todos"]));
    assert_eq!(of("limits.clients")["value"], 10_000);
    assert_eq!(shown["warnings"], serde_json::json!([]));
}

#[tokio::test]
async fn config_schema_prints_the_schema_of_the_repository() {
    let place = Database::new().await;
    let ran = run(&place.folder, &["config", "schema"], &[]);
    let expected = std::fs::read_to_string("docs/portcullis.schema.json").unwrap();
    assert_eq!(text(&ran.stdout), expected);
}

#[tokio::test]
async fn a_database_that_is_refused_is_named() {
    let place = Database::new().await;
    let local = FILE.replace("https://mcp.example.com", "http://127.0.0.1:8000");
    write(&place.folder, &format!("database_url = \"sqlite://other.db\"\n{local}"));
    std::fs::write(place.folder.join("other.db"), "not a database at all. ".repeat(1000)).unwrap();
    let ran = run(&place.folder, &["serve"], &ENV);
    assert!(!ran.status.success());
    assert!(text(&ran.stderr).contains("other.db"), "{}", text(&ran.stderr));
}
