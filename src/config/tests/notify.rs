//! Tests for `[[notify]]`.

use super::*;

const SECRET: &str = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";

fn with(lines: &str) -> String {
    format!("{OK}\n[[notify]]\n{lines}\n")
}

fn webhook(lines: &str) -> String {
    let usual =
        "name = \"ops\"\nkind = \"webhook\"\nurl = { env = \"HOOK\" }\nsecret = { env = \"KEY\" }";
    with(&format!("{usual}\n{lines}"))
}

fn mail(lines: &str) -> String {
    let usual =
        "name = \"mail\"\nkind = \"smtp\"\nfrom = \"a@example.com\"\nto = [\"b@example.com\"]";
    with(&format!("{usual}\n{lines}"))
}

const HOOK: (&str, &str) = ("HOOK", "https://hooks.example.com/services/canary-77");
const KEY: (&str, &str) = ("KEY", SECRET);

#[test]
fn without_a_table_nobody_is_notified() {
    assert!(load(OK).notify.is_empty());
}

#[test]
fn a_webhook_is_read_and_shown_without_its_secrets() {
    let loaded =
        load_with(&webhook(""), &[HOOK, KEY]).unwrap_or_else(|problems| panic!("{problems}"));
    assert_eq!(loaded.warnings, Vec::<String>::new());
    let target = &loaded.config.notify[0];
    assert_eq!((target.name.as_str(), target.kind()), ("ops", "webhook"));
    assert_eq!(target.events.list(), NotifyEvent::SELECTABLE);
    assert!(target.events.contains(NotifyEvent::ProviderBack), "with provider_down");
    assert_eq!((target.interval.as_secs(), target.allow_private), (300, false));
    let NotifyChannel::Hook(hook) = &target.channel else { panic!("{target:?}") };
    assert_eq!(hook.key.as_ref().unwrap().expose(), b"0123456789abcdef0123456789abcdef");
    let shown = loaded.show();
    for text in [shown, format!("{target:?}"), target.shown()] {
        assert!(!text.contains("canary-77") && !text.contains("MDEyMzQ1"), "{text}");
    }
    assert_eq!(target.shown(), "hooks.example.com");
}

#[test]
fn events_are_chosen_by_name() {
    let text = webhook("events = [\"client_waits\", \"ends_soon\"]");
    let config = load_with(&text, &[HOOK, KEY]).unwrap().config;
    let events = config.notify[0].events;
    assert_eq!(events.list(), [NotifyEvent::ClientWaits, NotifyEvent::EndsSoon]);
    assert!(!events.contains(NotifyEvent::ProviderBack));
    assert!(events.contains(NotifyEvent::Test), "a test is for everybody");
}

#[test]
fn chats_need_no_secret_and_mail_has_a_port_for_each_protection() {
    for kind in ["slack", "teams", "discord"] {
        let text = with(&format!("name = \"chat\"\nkind = {kind:?}\nurl = {{ env = \"HOOK\" }}"));
        assert_eq!(load_with(&text, &[HOOK]).unwrap().config.notify[0].kind(), kind);
    }
    for (lines, port) in [
        ("host = \"mail.example.com\"", 465),
        ("host = \"mail.example.com\"\nsecurity = \"starttls\"", 587),
        ("host = \"localhost\"\nsecurity = \"none\"\nallow_private = true", 25),
        ("host = \"mail.example.com\"\nport = 2525", 2525),
    ] {
        let config = load(&mail(lines));
        let NotifyChannel::Mail(server) = &config.notify[0].channel else { panic!("{lines}") };
        assert_eq!(server.port, port, "{lines}");
    }
    let config = load(&mail("host = \"mail.example.com\""));
    assert_eq!(config.notify[0].shown(), "mail.example.com:465 → b@example.com");
}

#[test]
fn mistakes_are_problems_of_their_key_and_show_no_secret() {
    let url = |url: &'static str| [("HOOK", url), KEY];
    let key = |key: &'static str| [HOOK, ("KEY", key)];
    let good = [HOOK, KEY];
    for (text, env, at, reason) in [
        (webhook(""), url("http://hooks.example.com/canary"), "url", "is not https"),
        (webhook(""), url("https://10.0.0.5/canary"), "url", "names an address"),
        (webhook(""), url("https://localhost/canary"), "url", "names an address"),
        (webhook(""), url("https://u:canary@hooks.example.com/"), "url", "holds a user name"),
        (webhook(""), url("https://hooks.example.com/#canary"), "url", "holds a user name"),
        (webhook(""), url("canary"), "url", "is not a URL"),
        (webhook("allow_private = true"), url("http://10.0.0.5/canary"), "url", "is not https"),
        (webhook(""), key("canary"), "secret", "is not whsec_"),
        (webhook(""), key("whsec_Y2FuYXJ5"), "secret", "is not whsec_"),
        (webhook("events = [\"client_wait\"]"), good, "events", "is not an event"),
        (webhook("events = []"), good, "events", "names no event"),
        (webhook("interval = \"1s\""), good, "interval", "no duration within its range"),
        (webhook("colour = \"red\""), good, "colour", "is not a key"),
        (webhook("").replace("\"webhook\"", "\"slak\""), good, "kind", "is not one of"),
        (webhook("").replace("\"ops\"", "\"two words\""), good, "name", "is not a name"),
        (mail(""), good, "host", "is missing"),
        (mail("host = \"10.0.0.5\""), good, "host", "is an address"),
        (mail("host = \"https://mail.example.com\""), good, "host", "is not the name of a host"),
        (
            mail("host = \"mail.example.com\"\nsecurity = \"none\""),
            good,
            "security",
            "protects nothing",
        ),
        (mail("host = \"mail.example.com\"\nusername = \"x\""), good, "password", "is missing"),
        (
            mail("host = \"mail.example.com\"").replace("b@example.com", "Ops <b@example.com>"),
            good,
            "to",
            "is not an e-mail address",
        ),
        (
            mail("host = \"mail.example.com\"")
                .replace("a@example.com", "a@example.com\\nBcc: x@y"),
            good,
            "from",
            "is not an e-mail address",
        ),
    ] {
        let found = load_with(&text, &env).err().unwrap_or_else(|| panic!("accepted: {text}")).0;
        let [problem] = &found[..] else { panic!("{text}: {found:#?}") };
        assert_eq!(problem.key, format!("notify[0].{at}"), "{text}");
        assert!(problem.reason.contains(reason), "{text}: {}", problem.reason);
        let shown = Problems(found.clone()).to_string();
        assert!(!shown.contains("canary"), "{shown}");
    }
    let twice =
        format!("{}\n[[notify]]\n{}", webhook(""), webhook("").split("[[notify]]").nth(1).unwrap());
    let found = load_with(&twice, &good).err().unwrap().0;
    assert_eq!((found.len(), found[0].reason.as_str()), (1, "is the name of two targets"));
}

#[test]
fn the_end_of_the_client_secret_is_a_day() {
    let text = |day: &str| {
        let line = format!("client_secret_expires = {day:?}\nclient_secret");
        OK.replacen("client_secret", &line, 1)
    };
    let expires = load(&text("2027-03-01")).upstream.client_secret_expires;
    assert_eq!(expires.map(Timestamp::unix), Some(1_803_859_200));
    assert_eq!(load(OK).upstream.client_secret_expires, None);
    let found = problems(&text("next year"));
    assert_eq!((found.len(), found[0].key.as_str()), (1, "upstream.client_secret_expires"));
}
