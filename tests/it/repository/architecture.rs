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
    &["connections"],
    &["clients", "upstream", "signing", "notifications", "certificates"],
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

/// The same of the bridge, a process of its own.
const BRIDGE_MAY_USE: &[&str] = &["oauth", "telemetry"];

fn row(module: &str) -> Option<usize> {
    ROWS.iter().position(|row| row.contains(&module))
}

fn allowed(from: &str, to: &str) -> bool {
    match (from, to) {
        (from, to) if from == to => true,
        ("cli", "demo" | "bridge") => true,
        (_, "demo" | "bridge") => false,
        ("bridge", to) => BRIDGE_MAY_USE.contains(&to),
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
        let is_beside = ["demo", "bridge"].contains(&module);
        assert!(row(module).is_some() || is_beside, "{module} has no row");
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
    assert!(!allowed("bridge", "config") && !allowed("gateway", "bridge"));
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
const OTHER_PATHS: &[&str] = &[
    "bridge/",
    "cli/doctor/",
    "upstream/",
    "demo/",
    "config/connections/presets.rs",
    "config/paths.rs",
    "config/public_url.rs",
];

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
    ("bridge/mod.rs", 1, "one connection"),
    ("bridge/process.rs", 3, "one process of an MCP server: its end, its input, its lines"),
    ("cli/check/login.rs", 1, "the command waits for it"),
    ("cli/serve.rs", 2, "asks the provider once; waits for a signal and ends the process"),
    ("clients/remote.rs", 1, "one fetch, and somebody waits for it"),
    ("connections/lease.rs", 1, "as long as one refresh of a connection"),
    ("connections/token.rs", 1, "one refresh of a connection, and somebody waits for it"),
    ("cli/demo.rs", 1, "one look for a network"),
    (
        "http_client/target_connections.rs",
        3,
        "one connection; the rest of one response; as long as a connection is idle",
    ),
    ("server/accept.rs", 1, "one connection"),
    ("server/bodies.rs", 2, "the rest of one body; one stream of HTTP/2"),
    ("signing/rotation.rs", 1, "one reading of the keys"),
    ("storage/change_notices.rs", 1, "one commit, and somebody waits for it"),
    ("storage/connections/mod.rs", 1, "one commit, and somebody waits for it"),
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
    ("upstream/token_exchange.rs", 1, "one exchange, and somebody waits for it"),
];

/// A task that ends without a word is an outage of later: `telemetry::supervision` starts it again and tells.
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
            let named = [
                "supervise(",
                "keep_heeding(",
                "keep_audit_trail(",
                "keep_usage(",
                "keep_exporting(",
            ];
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
            "{inside}: supervise the task (telemetry::supervision), or say why it is short"
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

/// A reader who searches for a type finds one: no name stands for two.
#[test]
fn one_name_is_one_type() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    rust_files(&source, &mut files);
    let declared = regex_lite::Regex::new(
        r"(?m)^(?:\s*(?:pub(?:\([^)]*\))? )?(?:struct|enum|trait|union)|(?:pub(?:\([^)]*\))? )?type) (\w+)",
    )
    .unwrap();
    let mut types = std::collections::BTreeMap::<String, Vec<String>>::new();
    for file in files {
        let inside = file.strip_prefix(&source).unwrap().to_str().unwrap().replace('\\', "/");
        if inside.ends_with("tests.rs") || inside.contains("/tests/") {
            continue;
        }
        let text = fs::read_to_string(&file).unwrap();
        let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
        for name in declared.captures_iter(code) {
            types.entry(name[1].to_owned()).or_default().push(inside.clone());
        }
    }
    assert!(types.len() > 400, "{}", types.len());
    types.retain(|_, files| files.len() > 1);
    assert!(types.is_empty(), "names that stand for two types: {types:#?}");
}

/// A module's name, as the folders and the file give it: `["oauth", "client", "keys"]`.
type ModulePath = Vec<String>;

fn module_path(inside: &Path) -> ModulePath {
    let parts = inside.with_extension("");
    let mut parts: ModulePath =
        parts.iter().map(|part| part.to_str().unwrap().to_owned()).collect();
    parts.pop_if(|last| last == "mod");
    parts
}

/// Returns what a `use` imports: one path for each name of a group.
fn use_paths(before: &[String], tree: &str) -> Vec<ModulePath> {
    let tree = tree.trim();
    let names = |text: &str| -> Vec<String> {
        text.split("::")
            .map(|name| name.trim().to_owned())
            .filter(|name| !name.is_empty())
            .collect()
    };
    let Some((start, group)) = tree.split_once('{') else {
        let name = tree.split(" as ").next().unwrap_or_default();
        return vec![[before, &names(name)].concat()];
    };
    let before = [before, &names(start)].concat();
    let group = group.trim().strip_suffix('}').unwrap_or(group);
    let (mut depth, mut item, mut found) = (0, String::new(), Vec::new());
    for c in group.chars().chain([',']) {
        depth += i32::from(c == '{') - i32::from(c == '}');
        if c == ',' && depth == 0 {
            if !item.trim().is_empty() {
                found.extend(use_paths(&before, &item));
            }
            item.clear();
        } else {
            item.push(c);
        }
    }
    found
}

/// Returns the modules that a file imports from, as far as `modules` knows them. Comments and tests beside
/// the code do not count.
fn imported_modules(module: &ModulePath, text: &str, modules: &[ModulePath]) -> Vec<ModulePath> {
    let code: Vec<&str> =
        text.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
    let code = code.join("\n");
    let code = code.split("#[cfg(test)]\nmod tests {").next().unwrap();
    let statement = regex_lite::Regex::new(r"\buse\s+([^;]+);").unwrap();
    let path = regex_lite::Regex::new(r"(?:^|[^\w:])(\w+(?:::\w+)+)").unwrap();
    let mut paths: Vec<ModulePath> =
        statement.captures_iter(code).flat_map(|found| use_paths(&[], &found[1])).collect();
    let rest = statement.replace_all(code, "");
    paths.extend(path.captures_iter(&rest).flat_map(|found| use_paths(&[], &found[1])));
    let is_module = |path: &[String]| modules.iter().any(|known| known == path);
    let full = paths.into_iter().filter_map(|path| {
        let mut names = path.into_iter().peekable();
        let mut full = match names.peek()?.as_str() {
            "crate" => Vec::new(),
            "self" | "super" => module.clone(),
            child if is_module(&[module.as_slice(), &[child.to_owned()]].concat()) => {
                return Some([module.clone(), names.collect()].concat());
            }
            _ => return None,
        };
        while let Some(name) =
            names.next_if(|name| matches!(name.as_str(), "crate" | "self" | "super"))
        {
            if name == "super" {
                full.pop();
            }
        }
        full.extend(names);
        Some(full)
    });
    let longest = |mut path: ModulePath| {
        while !path.is_empty() && !is_module(&path) {
            path.pop();
        }
        path
    };
    full.map(longest).filter(|path| !path.is_empty() && path != module).collect()
}

/// Returns the circles among files, each as the files on the way back to its first one. A module and the
/// modules inside it may import each other: they are one thing in several files.
fn circles(files: &[(ModulePath, String)]) -> Vec<Vec<String>> {
    let modules: Vec<ModulePath> = files.iter().map(|(module, _)| module.clone()).collect();
    let mut imports = std::collections::BTreeMap::new();
    for (module, text) in files {
        let mut found = imported_modules(module, text, &modules);
        found.retain(|other| !other.starts_with(module) && !module.starts_with(other));
        imports.insert(module.clone(), found);
    }
    let mut circles: Vec<Vec<String>> = Vec::new();
    for start in &modules {
        // The shortest way from this file back to itself.
        let mut ways = std::collections::VecDeque::from([vec![start.clone()]]);
        let mut seen = std::collections::BTreeSet::new();
        while let Some(way) = ways.pop_front() {
            let next = imports.get(way.last().unwrap()).into_iter().flatten();
            if next.clone().any(|module| module == start) {
                let mut circle: Vec<String> = way.iter().map(|module| module.join("/")).collect();
                circle.sort();
                circles.push(circle);
                break;
            }
            for module in next {
                if seen.insert(module.clone()) {
                    ways.push_back([way.as_slice(), std::slice::from_ref(module)].concat());
                }
            }
        }
    }
    circles.sort();
    circles.dedup();
    circles
}

#[test]
fn no_files_import_each_other() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    rust_files(&source, &mut files);
    let files: Vec<(ModulePath, String)> = files
        .into_iter()
        .map(|file| {
            let module = module_path(file.strip_prefix(&source).unwrap());
            (module, fs::read_to_string(&file).unwrap())
        })
        .filter(|(module, _)| !matches!(module.join("/").as_str(), "lib" | "main"))
        .collect();
    assert!(files.len() > 200);
    let found = circles(&files);
    assert!(found.is_empty(), "files that import each other: {found:#?}");
}

#[test]
fn a_circle_of_imports_would_be_found() {
    let circles_of = |files: &[(&str, &str)]| {
        let files: Vec<(ModulePath, String)> = files
            .iter()
            .map(|(path, text)| (module_path(Path::new(path)), (*text).to_owned()))
            .collect();
        circles(&files)
    };
    let two = [("a/x.rs", "use super::y::Y;"), ("a/y.rs", "fn f() {\n    super::x::g();\n}")];
    assert_eq!(circles_of(&two), [["a/x", "a/y"]]);
    let three = [
        ("a/x.rs", "use crate::a::{\n    m::{self, N},\n    y::Y,\n};"),
        ("a/y.rs", "use super::z;"),
        ("a/z/mod.rs", "use super::x::X as Other;"),
        ("a/m.rs", "// use super::x::X;"),
    ];
    assert_eq!(circles_of(&three), [["a/x", "a/y", "a/z"]]);
    // A module and what is inside it.
    let inside = [("a/mod.rs", "mod x;\nuse x::X;"), ("a/x.rs", "use super::A;")];
    assert_eq!(circles_of(&inside), Vec::<Vec<String>>::new());
    let in_a_test = [
        ("a/x.rs", "use super::y::Y;"),
        ("a/y.rs", "fn f() {}\n\n#[cfg(test)]\nmod tests {\n    use crate::a::x::X;\n}"),
    ];
    assert_eq!(circles_of(&in_a_test), Vec::<Vec<String>>::new());
}
