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
fn every_configuration_in_the_readme_loads() {
    let secret = std::env::temp_dir().join("portcullis-readme-secret");
    fs::write(&secret, "secret").unwrap();
    let readme = read("README.md").replace("/run/secrets/keycloak", secret.to_str().unwrap());
    let env = BTreeMap::from(
        ["OKTA_CLIENT_SECRET", "AUTH0_CLIENT_SECRET"].map(|name| (name.to_owned(), "x".to_owned())),
    );
    let blocks: Vec<&str> =
        readme.split("```toml").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    assert_eq!(blocks.len(), 3);
    for block in blocks {
        let loaded = Config::load(Some((Path::new("README.md"), block.to_owned())), &env);
        let loaded = loaded.unwrap_or_else(|problems| panic!("{problems}\n{block}"));
        assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
        assert!(!loaded.config.resources[0].policy.rules.is_empty());
    }
}

#[test]
fn every_audit_event_is_explained() {
    let mut files = Vec::new();
    rust_files(&root().join("src"), &mut files);
    let operations = read("docs/operations.md");
    let mut found = 0;
    for file in files {
        let code = fs::read_to_string(&file).unwrap();
        for call in code.split("audit!(").skip(1) {
            let Some(event) = call.trim_start().strip_prefix('"') else { continue };
            let event = event.split('"').next().unwrap();
            assert!(
                operations.contains(&format!("`{event}`")),
                "{event} is not in docs/operations.md"
            );
            found += 1;
        }
    }
    assert!(found > 10, "only {found} events");
}
