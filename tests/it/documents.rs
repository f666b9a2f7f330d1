//! What the documents promise is there.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use portcullis::config::Config;

use crate::architecture::rust_files;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap()
}

#[test]
fn every_test_that_security_md_names_exists() {
    let mut files = Vec::new();
    rust_files(&root().join("src"), &mut files);
    rust_files(&root().join("tests"), &mut files);
    let code: String = files.iter().map(|file| fs::read_to_string(file).unwrap()).collect();
    let security = read("SECURITY.md");
    let names: Vec<&str> = security
        .split('`')
        .skip(1)
        .step_by(2)
        .filter(|name| name.matches('_').count() >= 3 && !name.contains(['.', '/', ' ']))
        .collect();
    assert!(names.len() > 70, "only {} tests are named", names.len());
    let missing: Vec<&&str> =
        names.iter().filter(|name| !code.contains(&format!("fn {name}("))).collect();
    assert!(missing.is_empty(), "named in SECURITY.md and not there: {missing:#?}");
}

#[test]
fn every_test_in_the_table_of_provider_behaviours_exists() {
    let mut files = Vec::new();
    rust_files(&root().join("src"), &mut files);
    rust_files(&root().join("tests"), &mut files);
    let code: String = files.iter().map(|file| fs::read_to_string(file).unwrap()).collect();
    let table = read("tests/it/identity_provider/mod.rs");
    let rows = table.lines().filter(|line| line.starts_with("//! | "));
    let names: Vec<&str> = rows
        .flat_map(|row| row.split('`').skip(1).step_by(2))
        .filter(|name| !name.contains(['.', '/']))
        .collect();
    assert!(names.len() > 60, "only {} tests are named", names.len());
    let missing: Vec<&&str> =
        names.iter().filter(|name| !code.contains(&format!("fn {name}("))).collect();
    assert!(missing.is_empty(), "named in the table and not there: {missing:#?}");
}

/// The blocks of TOML in a document.
fn toml_blocks(text: &str) -> Vec<&str> {
    text.split("```toml").skip(1).map(|rest| rest.split("```").next().unwrap()).collect()
}

#[test]
fn every_whole_configuration_in_the_documents_loads() {
    let secret = std::env::temp_dir().join("portcullis-documents-secret");
    fs::write(&secret, "secret").unwrap();
    let file = regex_lite::Regex::new(r#"\{ file = "[^"]*" \}"#).unwrap();
    let variable = regex_lite::Regex::new(r#"\{ env = "([^"]*)" \}"#).unwrap();
    let mut documents = vec![root().join("README.md")];
    let guides = fs::read_dir(root().join("docs/identity-providers")).unwrap();
    documents.extend(guides.map(|entry| entry.unwrap().path()));
    let mut loaded_blocks = 0;
    for document in documents {
        let text = fs::read_to_string(&document).unwrap();
        let in_place = format!("{{ file = {:?} }}", secret.to_str().unwrap());
        let text = file.replace_all(&text, in_place.as_str());
        // Without public_url it is a fragment that shows one thing.
        for block in toml_blocks(&text).into_iter().filter(|block| block.contains("public_url")) {
            let env: BTreeMap<String, String> = variable
                .captures_iter(block)
                .map(|captures| (captures[1].to_owned(), "x".to_owned()))
                .collect();
            let name = document.file_name().unwrap().to_str().unwrap();
            let loaded = Config::load(Some((Path::new(name), block.to_owned())), &env);
            let loaded = loaded.unwrap_or_else(|problems| panic!("{name}: {problems}\n{block}"));
            assert_eq!(loaded.warnings, Vec::<String>::new(), "{name}");
            loaded_blocks += 1;
        }
    }
    assert!(loaded_blocks >= 6, "only {loaded_blocks} configurations found");
}

#[test]
fn the_fragments_of_the_guide_to_clients_load_in_a_whole_configuration() {
    let whole = read("README.md");
    let whole = toml_blocks(&whole).into_iter().find(|block| block.contains("okta")).unwrap();
    let guide = read("docs/clients.md");
    let long = "x".repeat(32);
    let env = ["OKTA_CLIENT_SECRET", "INTRANET_SECRET"].map(|name| (name.to_owned(), long.clone()));
    for block in toml_blocks(&guide) {
        let text = format!("{whole}\n{block}");
        let loaded =
            Config::load(Some((Path::new("clients.md"), text)), &BTreeMap::from(env.clone()));
        let loaded = loaded.unwrap_or_else(|problems| panic!("{problems}\n{block}"));
        assert_eq!(loaded.warnings, Vec::<String>::new());
    }
}

#[test]
fn every_audit_event_is_explained() {
    let operations = read("docs/operations.md");
    for event in portcullis::telemetry::audit::EVENTS {
        assert!(operations.contains(&format!("`{event}`")), "{event} is not in docs/operations.md");
    }
}

#[test]
fn the_table_of_limits_has_every_limit_with_its_default() {
    let whole = read("README.md");
    let whole = toml_blocks(&whole).into_iter().find(|block| block.contains("okta")).unwrap();
    let env = [("OKTA_CLIENT_SECRET".to_owned(), "x".repeat(32))];
    let loaded =
        Config::load(Some((Path::new("README.md"), whole.to_owned())), &BTreeMap::from(env));
    let shown = loaded.unwrap_or_else(|problems| panic!("{problems}")).show();
    let table: toml::Table = shown.parse().unwrap();
    let limits: BTreeMap<String, String> = table["limits"]
        .as_table()
        .unwrap()
        .iter()
        .map(|(key, value)| (key.clone(), value.to_string().trim_matches('"').to_owned()))
        .collect();
    assert!(limits.len() > 40, "only {} limits: {shown}", limits.len());

    let operations = read("docs/operations.md");
    let section = operations.split("## Limits\n").nth(1).unwrap().split("\n## ").next().unwrap();
    let rows: BTreeMap<String, String> = section
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once("` | `"))
        .map(|(key, rest)| (key.to_owned(), rest.split('`').next().unwrap().to_owned()))
        .collect();
    assert_eq!(rows, limits);

    let example = read("portcullis.example.toml");
    let example: toml::Table = example.parse().unwrap();
    let example: BTreeMap<String, String> = example["limits"]
        .as_table()
        .unwrap()
        .iter()
        .map(|(key, value)| (key.clone(), value.to_string().trim_matches('"').to_owned()))
        .collect();
    assert_eq!(example, limits);
}
