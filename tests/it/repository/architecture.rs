//! The house's import rule: a module imports only from rows below its own.

use std::fs;
use std::path::{Path, PathBuf};

use portcullis::config::paths;

/// Rows from the top; modules of one row do not import each other.
const ROWS: &[&[&str]] = &[
    &["cli"],
    &["server"],
    &["endpoints", "gateway", "admin"],
    &["web"],
    &["app"],
    &["clients", "upstream", "signing"],
    &["storage", "http_client", "rate_limits"],
    &["telemetry"],
    &["config"],
    &["policy"],
    &["oauth"],
    &["jose"],
    &["clock", "stop_points"],
];

/// Beside the rows: the demo may use these, and only the command line may use the demo.
const DEMO_MAY_USE: &[&str] = &["oauth", "jose", "clock"];

fn row(module: &str) -> Option<usize> {
    ROWS.iter().position(|row| row.contains(&module))
}

fn allowed(from: &str, to: &str) -> bool {
    match (from, to) {
        (from, to) if from == to => true,
        ("cli", "demo") => true,
        (_, "demo") => false,
        ("demo", to) => DEMO_MAY_USE.contains(&to),
        (from, to) => match (row(from), row(to)) {
            (Some(from), Some(to)) => from < to,
            _ => false,
        },
    }
}

pub(crate) fn rust_files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            rust_files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// Modules named after `crate::`, in `use` lines and in paths alike.
fn imports(text: &str) -> Vec<String> {
    let code: Vec<&str> =
        text.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
    let code = code.join("\n");
    let mut found = Vec::new();
    for piece in code.split("crate::").skip(1) {
        if let Some(group) = piece.strip_prefix('{') {
            let group = group.split('}').next().unwrap_or_default();
            found.extend(
                group
                    .split(',')
                    .map(|name| name.trim().split("::").next().unwrap_or("").to_owned()),
            );
        } else {
            let end = piece.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(piece.len());
            found.push(piece[..end].to_owned());
        }
    }
    found.retain(|name| !name.is_empty() && name.chars().all(|c| c.is_lowercase() || c == '_'));
    found
}

#[test]
fn imports_point_downwards_only() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    rust_files(&source, &mut files);
    let mut wrong = Vec::new();
    for file in files {
        let inside = file.strip_prefix(&source).unwrap();
        let first = inside.components().next().unwrap().as_os_str().to_str().unwrap();
        let module = first.trim_end_matches(".rs");
        if matches!(module, "lib" | "main") {
            continue;
        }
        assert!(row(module).is_some() || module == "demo", "{module} has no row");
        let text = fs::read_to_string(&file).unwrap();
        for import in imports(&text) {
            if !allowed(module, &import) {
                wrong.push(format!("{} uses {import}", inside.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "imports that point upwards or sideways:\n{}", wrong.join("\n"));
}

#[test]
fn an_upward_or_sideways_import_would_be_found() {
    assert_eq!(
        imports("use crate::{app::App, web::error};\nlet x = crate::oauth::y();"),
        ["app", "web", "oauth"]
    );
    assert!(allowed("endpoints", "web"));
    assert!(!allowed("web", "endpoints"));
    assert!(!allowed("gateway", "endpoints"));
    assert!(!allowed("server", "demo"));
    assert!(!allowed("demo", "storage"));
}

/// `storage/database/` knows SQL and no OAuth: it must not depend on what the tables mean.
#[test]
fn the_database_imports_nothing_of_the_storage_above_it() {
    let database = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/storage/database");
    let mut files = Vec::new();
    rust_files(&database, &mut files);
    assert!(files.len() > 20);
    for file in files {
        let inside = file.strip_prefix(&database).unwrap().with_extension("");
        // How many `super::` lead to the database itself; one more leads out of it.
        let depth = inside.components().filter(|part| part.as_os_str() != "mod").count();
        let text = fs::read_to_string(&file).unwrap();
        let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
        let code: String = code.flat_map(|line| [line, "\n"]).collect();
        for path in code.split("crate::storage::").skip(1) {
            assert!(path.starts_with("database::"), "{} uses {path:.40}", file.display());
        }
        let upward = "super::".repeat(depth + 1);
        assert!(!code.contains(&upward), "{} leaves the database", file.display());
    }
}

/// A route that is not in `config/paths.rs` could be hidden by an MCP server configured at the same path.
#[test]
fn every_route_of_the_public_listener_is_made_from_the_list_of_our_paths() {
    let endpoints = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/endpoints");
    let mut files = Vec::new();
    rust_files(&endpoints, &mut files);
    let mut routes = 0;
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        for route in text.split(".route(").skip(1) {
            routes += 1;
            let path = route.trim_start();
            let listed = path.lines().next().is_some_and(|first| first.contains("paths::"));
            assert!(listed, "{}: {}", file.display(), path.lines().next().unwrap_or_default());
        }
    }
    assert!(routes > 20);
}

/// Files that speak of paths of other servers, or test the paths themselves.
const OTHER_PATHS: &[&str] =
    &["cli/doctor/", "upstream/", "demo/", "config/paths.rs", "config/public_url.rs"];

/// A path that is written in a second place goes wrong when the first one changes.
#[test]
fn our_paths_are_written_in_one_file_only() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    rust_files(&source, &mut files);
    let mut found = Vec::new();
    for file in files {
        let inside = file.strip_prefix(&source).unwrap().to_str().unwrap().replace('\\', "/");
        if inside.contains("tests") || OTHER_PATHS.iter().any(|other| inside.starts_with(other)) {
            continue;
        }
        let text = fs::read_to_string(&file).unwrap();
        let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
        for (at, line) in text.lines().enumerate() {
            let literals = line.split('"').skip(1).step_by(2);
            let mut ours = literals.filter(|literal| {
                let after_braces = literal.rsplit_once('}').map_or(*literal, |(_, rest)| rest);
                let plain = after_braces.split('?').next().unwrap_or_default();
                paths::ALL.contains(&plain)
            });
            if let Some(path) = ours.next() {
                found.push(format!("{inside}:{}: {path}", at + 1));
            }
        }
    }
    assert!(found.is_empty(), "use config::paths:\n{}", found.join("\n"));
}

/// Tasks that nobody supervises, by file: how many at most, and why none of them lives as long as the process.
const SHORT_TASKS: &[(&str, usize, &str)] = &[
    ("cli/check/login.rs", 1, "the command waits for it"),
    ("cli/serve.rs", 2, "asks the provider once; waits for a signal and ends the process"),
    ("clients/remote.rs", 1, "one fetch, and somebody waits for it"),
    ("cli/demo.rs", 1, "one look for a network"),
    ("server.rs", 1, "one connection"),
    ("server/bodies.rs", 2, "the rest of one body; one stream of HTTP/2"),
    ("signing/rotation.rs", 1, "one reading of the keys"),
    ("storage/change_notices.rs", 1, "one commit, and somebody waits for it"),
    (
        "storage/rollback/detection.rs",
        1,
        "one repair after a rollback, and its caller waits for it",
    ),
    (
        "storage/database/sqlite/group_commit/checkpoint.rs",
        1,
        "one checkpoint; the next commit does what it left",
    ),
    ("storage/database/sqlite/group_commit/mod.rs", 3, "one commit"),
    ("upstream/recheck/lease.rs", 1, "as long as one question to the provider"),
    ("upstream/recheck/mod.rs", 1, "one question to the provider, and somebody waits for it"),
];

/// A task that ends without a word is an outage of later: `telemetry::tasks` starts it again and tells.
#[test]
fn every_task_is_supervised_or_known_to_be_short() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    rust_files(&source, &mut files);
    let mut supervised = 0;
    for file in files {
        let inside = file.strip_prefix(&source).unwrap().to_str().unwrap().replace('\\', "/");
        let is_test = inside.ends_with("tests.rs") || inside.contains("/fixtures/");
        if is_test || inside.starts_with("demo/") {
            continue;
        }
        let text = fs::read_to_string(&file).unwrap();
        let mut short = 0;
        for begun in text.split("tokio::spawn(").skip(1).chain(text.split("runtime.spawn(").skip(1))
        {
            // Either here, or by the function that is started.
            let statement: Vec<&str> = begun.lines().take(4).collect();
            let named = ["supervise(", "keep_heeding(", "keep_audit_trail("];
            if named.iter().any(|name| statement.join("\n").contains(name)) {
                supervised += 1;
            } else {
                short += 1;
            }
        }
        let listed = SHORT_TASKS.iter().find(|(file, _, _)| *file == inside);
        let most = listed.map_or(0, |(_, most, _)| *most);
        assert!(
            short <= most,
            "{inside}: supervise the task (telemetry::tasks), or say why it is short"
        );
    }
    assert!(supervised >= 4, "{supervised}");
}

/// Keys and tokens have one home: who else used these crates would read tokens by other rules.
#[test]
fn crates_for_tokens_are_used_in_one_place_each() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    rust_files(&source, &mut files);
    for (name, home) in [
        ("jsonwebtoken::", "jose/jwk"),
        ("openidconnect::", "upstream/provider_key"),
        ("ParsedPublicKey", "jose/jwk"),
    ] {
        let mut found = 0;
        for file in &files {
            let inside = file.strip_prefix(&source).unwrap().to_str().unwrap().replace('\\', "/");
            if fs::read_to_string(file).unwrap().contains(name) {
                assert!(inside.starts_with(home), "{inside} uses {name}");
                found += 1;
            }
        }
        assert!(found > 0, "nobody uses {name}");
    }
}
