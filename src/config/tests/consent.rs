//! Tests for what the consent page is told: texts of scopes, and whether people may choose.

use super::*;

fn with_scopes(scopes: &str) -> String {
    OK.replace("scopes = [\"read\", \"write\"]", &format!("scopes = {scopes}"))
}

#[test]
fn people_may_choose_unless_an_administrator_says_otherwise() {
    assert!(load(OK).consent_choice);
    assert!(!load(&format!("consent_choice = false\n{OK}")).consent_choice);
}

#[test]
fn a_scope_has_a_text_or_a_table() {
    let scopes = r#"{ read = "Read", "delete:all" = { text = "Delete", destructive = true }, write = { destructive = false }, list = "" }"#;
    let loaded =
        load_with(&with_scopes(scopes), &[]).unwrap_or_else(|problems| panic!("{problems}"));
    let known = |name: &str| {
        let scopes = &loaded.config.resources[0].scopes;
        let known = scopes.iter().find(|known| known.scope.as_str() == name).unwrap();
        (known.text.as_deref(), known.destructive)
    };
    assert_eq!(known("read"), (Some("Read"), false));
    assert_eq!(known("delete:all"), (Some("Delete"), true));
    assert_eq!(known("write"), (None, false));
    assert_eq!(known("list"), (None, false));
    let shown: toml::Table = loaded.show().parse().unwrap();
    let shown = &shown["resource"][0]["scopes"];
    assert_eq!(shown["delete:all"]["destructive"].as_bool(), Some(true), "{shown}");
}

#[test]
fn mistakes_in_a_scope_are_named() {
    for (scopes, key, reason) in [
        (r#"{ read = 7, write = "" }"#, "resource[0].scopes.read", "not a text or a table"),
        (r"{ read = { text = 7 } }", "resource[0].scopes.read.text", "not a text"),
        (
            r#"{ read = { destructive = "yes" } }"#,
            "resource[0].scopes.read.destructive",
            "not true or false",
        ),
        (r"{ read = { destructiv = true } }", "resource[0].scopes.read.destructiv", "not a key"),
    ] {
        let found = problems(&with_scopes(scopes));
        let [problem] = &found[..] else { panic!("{scopes}: {found:#?}") };
        assert_eq!(problem.key, key, "{scopes}");
        assert!(problem.reason.contains(reason), "{scopes}: {}", problem.reason);
    }
}
