//! Tests for `[branding]`.

use super::*;

const DRAWING: &str = "<svg xmlns='http://www.w3.org/2000/svg'><path d='m0 0h1'/></svg>";

/// Returns the path of a file with this content, of this process and name alone.
fn file(name: &str, content: &[u8]) -> String {
    let path = std::env::temp_dir().join(format!("portcullis-{}-{name}", std::process::id()));
    std::fs::write(&path, content).unwrap();
    path.display().to_string()
}

fn with(lines: &str) -> String {
    format!("{OK}\n[branding]\n{lines}\n")
}

#[test]
fn without_a_table_nothing_is_branded() {
    let branding = load(OK).branding;
    assert_eq!(branding.shown_name(), "Portcullis");
    assert!(!branding.has_links() && !branding.changes_policy());
}

#[test]
fn the_whole_table_is_read_and_shown() {
    let logo = file("whole.svg", DRAWING.as_bytes());
    let text = with(&format!(
        "name = \"Acme\"\nlogo = {logo:?}\naccent = \"#14d\"\nsupport = \"it-help@acme.com\"\n\
         terms = \"https://acme.com/terms\"\nprivacy = \"https://acme.com/privacy\"\ntimezone = \"Asia/Tokyo\""
    ));
    let loaded = load_with(&text, &[]).unwrap_or_else(|problems| panic!("{problems}"));
    let branding = &loaded.config.branding;
    assert_eq!(branding.shown_name(), "Acme");
    assert_eq!(branding.support.as_ref().unwrap().href, "mailto:it-help@acme.com");
    assert!(branding.style.contains("#1144dd"), "{}", branding.style);
    let zone = branding.timezone.as_ref().unwrap();
    assert_eq!(zone.iana_name(), Some("Asia/Tokyo"));
    let known = branding.logo.as_ref().unwrap();
    assert_eq!((known.media_type, known.bytes.as_ref()), ("image/svg+xml", DRAWING.as_bytes()));
    assert!(known.path.starts_with("/branding/logo?v="), "{}", known.path);
    assert!(loaded.files.iter().any(|path| path.display().to_string() == logo), "it is watched");
    let shown = loaded.show();
    assert!(shown.contains("[branding]") && shown.contains("\"it-help@acme.com\""), "{shown}");
}

#[test]
fn a_new_drawing_at_the_same_path_is_a_change() {
    let logo = file("changes.svg", DRAWING.as_bytes());
    let text = with(&format!("name = \"Acme\"\nlogo = {logo:?}"));
    let before = load(&text);
    file("changes.svg", DRAWING.replace("m0", "m1").as_bytes());
    let after = load(&text);
    assert_eq!(before.written.changes(&after.written), ["branding.logo"]);
    let path = |config: &Config| config.branding.logo.as_ref().unwrap().path.clone();
    assert_ne!(path(&before), path(&after), "browsers may keep the one before");
}

#[test]
fn mistakes_are_problems_of_their_key() {
    let script = file("script.svg", b"<svg><script>alert(1)</script></svg>");
    let large = file("large.png", "x".repeat((64 << 10) + 1).as_bytes());
    for (lines, key, reason) in [
        ("name = \"\"".to_owned(), "branding.name", "name of 1 to 40"),
        (format!("name = \"{}\"", "a".repeat(41)), "branding.name", "name of 1 to 40"),
        ("accent = \"red; }\"".to_owned(), "branding.accent", "not a colour"),
        ("support = \"javascript:alert(1)\"".to_owned(), "branding.support", "not a link"),
        (
            "support = \"https://{reference}.acme.com/\"".to_owned(),
            "branding.support",
            "not a link",
        ),
        ("timezone = \"Mars/Olympus\"".to_owned(), "branding.timezone", "not a time zone"),
        ("terms = \"it-help@acme.com\"".to_owned(), "branding.terms", "not a link"),
        ("privacy = \"http://acme.com\"".to_owned(), "branding.privacy", "not a link"),
        ("logo = \"/nowhere/logo.svg\"".to_owned(), "branding.logo", "cannot be read"),
        (format!("logo = {script:?}"), "branding.logo", "<script>"),
        (format!("logo = {large:?}"), "branding.logo", "larger than 64 KiB"),
        ("colour = \"#fff\"".to_owned(), "branding.colour", "is not a key"),
    ] {
        let found = problems(&with(&lines));
        let [problem] = &found[..] else { panic!("{lines}: {found:#?}") };
        assert_eq!(problem.key, key, "{lines}");
        assert!(problem.reason.contains(reason), "{lines}: {}", problem.reason);
    }
    let nameless = file("nameless.svg", DRAWING.as_bytes());
    let found = problems(&with(&format!("logo = {nameless:?}")));
    assert_eq!((found.len(), found[0].key.as_str()), (1, "branding.logo"));
}
