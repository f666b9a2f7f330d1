//! Tests for what the configuration says about the consent page: texts of scopes, and whether people may choose.

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
        (known.text_in("en"), known.destructive)
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
fn the_text_of_a_scope_may_differ_by_language() {
    let scopes = r#"{ read = { text = { en = "Read", ja = "読む", zh-Hans = "读" }, destructive = true }, write = "Write" }"#;
    let loaded =
        load_with(&with_scopes(scopes), &[]).unwrap_or_else(|problems| panic!("{problems}"));
    let [read, write] = &loaded.config.resources[0].scopes[..] else { panic!("two scopes") };
    for (language, text) in [("en", "Read"), ("ja", "読む"), ("zh-Hans", "读"), ("de", "Read")] {
        assert_eq!(read.text_in(language), Some(text), "{language}");
        assert_eq!(write.text_in(language), Some("Write"), "{language}");
    }
    assert!(read.destructive);
    let shown: toml::Table = loaded.show().parse().unwrap();
    let shown = &shown["resource"][0]["scopes"];
    assert_eq!(shown["read"]["text"]["ja"].as_str(), Some("読む"), "{shown}");
}

#[test]
fn the_landing_page_can_be_switched_off() {
    assert!(load(OK).landing);
    assert!(!load(&format!("landing = false\n{OK}")).landing);
}

#[test]
fn mistakes_in_a_scope_are_named() {
    for (scopes, key, reason) in [
        (r#"{ read = 7, write = "" }"#, "resource[0].scopes.read", "not a text or a table"),
        (r"{ read = { text = 7 } }", "resource[0].scopes.read.text", "not a text"),
        (
            r#"{ read = { text = { en = "Read", tlh = "laD" } } }"#,
            "resource[0].scopes.read.text.tlh",
            "not a language of the pages",
        ),
        (
            r#"{ read = { text = { ja = "読む" } } }"#,
            "resource[0].scopes.read.text",
            "no text in English",
        ),
        (r"{ read = { text = {} } }", "resource[0].scopes.read.text", "no text in English"),
        (r"{ read = { text = { en = 7 } } }", "resource[0].scopes.read.text.en", "not a text"),
        (r#"{ read = { text = { en = "" } } }"#, "resource[0].scopes.read.text.en", "not a text"),
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
