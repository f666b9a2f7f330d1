//! The reference has exactly the keys that the reader reads, and its types and words are those of the reader.

use std::collections::BTreeSet;

use super::super::presets::PRESETS;
use super::super::{Config, Problem};
use super::*;

/// A configuration that mentions every table.
fn whole(provider: &str) -> String {
    let headers = headers().concat();
    assert!(
        headers.contains("[upstream]\n") && headers.contains("[[resource.rule]]\n"),
        "{headers}"
    );
    headers
        .replace("[upstream]\n", &format!("[upstream]\nprovider = {provider:?}\n"))
        .replace("[[resource]]\n", "[[resource]]\npath = \"/mcp\"\n")
}

fn problems(text: &str) -> Vec<Problem> {
    let file = (Path::new("portcullis.toml"), text.to_owned());
    Config::load(Some(file), &BTreeMap::new()).err().map(|problems| problems.0).unwrap_or_default()
}

#[test]
fn the_reference_has_every_key_that_is_read_and_no_other() {
    let mut read = BTreeSet::new();
    for preset in PRESETS {
        let file = (Path::new("portcullis.toml"), whole(preset.name));
        let note = |reader: &ConfigReader| {
            read.extend(reader.read.iter().map(|key| without_indexes(key)));
        };
        let _incomplete = check::load_and_look(Some(file), &BTreeMap::new(), note);
    }
    for header in headers() {
        read.remove(header.trim().trim_matches(['[', ']']));
    }
    let known = known_kinds();
    let missing: Vec<&String> = read.difference(&known).collect();
    assert!(missing.is_empty(), "add to src/config/reference/keys.rs: {missing:?}");
    let unread: Vec<&String> = known.difference(&read).collect();
    assert!(unread.is_empty(), "nothing reads these keys of the reference: {unread:?}");
    assert_eq!(known.len(), reference().len(), "each key is there once");
}

#[test]
fn keys_of_one_provider_are_those_that_only_some_providers_read() {
    let read_by = |provider: &str| {
        let mut read = BTreeSet::new();
        let file = (Path::new("portcullis.toml"), whole(provider));
        let note = |reader: &ConfigReader| read.extend(reader.read.iter().cloned());
        let _incomplete = check::load_and_look(Some(file), &BTreeMap::new(), note);
        read
    };
    let of_all = PRESETS
        .iter()
        .map(|preset| read_by(preset.name))
        .reduce(|all, one| all.intersection(&one).cloned().collect())
        .unwrap();
    for preset in PRESETS {
        let own: BTreeSet<String> =
            preset.own_keys().iter().map(|name| format!("upstream.{name}")).collect();
        let read: BTreeSet<String> = read_by(preset.name).difference(&of_all).cloned().collect();
        assert_eq!(own, read, "{}", preset.name);
    }
}

#[test]
fn the_words_of_the_reference_are_those_that_the_reader_offers() {
    let provider = reference().into_iter().find(|key| key.key == "upstream.provider").unwrap();
    let names: Vec<&str> = PRESETS.iter().map(|preset| preset.name).collect();
    let ValueType::Word(listed) = provider.value else { panic!("{provider:?}") };
    assert_eq!(listed, names, "presets.rs and the reference agree");
    let mut compared = 0;
    for key in reference() {
        let (words, written) = match key.value {
            ValueType::Word(words) => (words, "\"no-such-word\""),
            ValueType::Words(words) => (words, "[\"no-such-word\"]"),
            _ => continue,
        };
        let name = key.key.rsplit('.').next().unwrap();
        // Of the keys of notifications, most are read for one kind of target only.
        let kind = if key.key == "notify[].security" { "kind = \"smtp\"\n" } else { "" };
        let line = format!("{kind}{name} = {written}\n");
        let text = match key.key.rsplit_once('.') {
            None => format!("{line}{}", whole("oidc")),
            Some((table, _)) => {
                let name = table.replace("[]", "");
                let header = if table.ends_with("[]") {
                    format!("[[{name}]]\n")
                } else {
                    format!("[{name}]\n")
                };
                whole(if key.key == "upstream.provider" { "" } else { "oidc" })
                    .replace("provider = \"\"\n", "")
                    .replace(&header, &format!("{header}{line}"))
            }
        };
        let found = problems(&text);
        let problem = found.iter().find(|problem| {
            problem.value.as_deref().is_some_and(|value| value.contains("no-such-word"))
        });
        let problem = problem.unwrap_or_else(|| panic!("{}: {found:#?}", key.key));
        for word in words {
            assert!(problem.hint.contains(word), "{}: {word} in {:?}", key.key, problem.hint);
        }
        compared += 1;
    }
    assert!(compared >= 10, "{compared}");
}

/// A configuration with a key set at the top or in a table.
fn loaded(table: &str, line: &str) -> Config {
    const TEXT: &str = "\
        public_url = \"https://mcp.example.com\"\n\
        [upstream]\nprovider = \"oidc\"\nissuer = \"https://id.example.com\"\n\
        client_id = \"portcullis\"\nclient_secret = \"secret\"\n\
        [admin]\nroles = [\"Admin\"]\n\
        [tls.acme]\ndomains = [\"mcp.example.com\"]\nterms = true\n\
        [telemetry]\n\
        [[resource]]\npath = \"/mcp\"\nscopes = [\"read\"]\n";
    let name = line.split(' ').next().unwrap();
    let kept: Vec<&str> = TEXT.lines().filter(|l| !l.starts_with(&format!("{name} ="))).collect();
    let kept = kept.join("\n");
    let text = if table.is_empty() {
        format!("{line}\n{kept}")
    } else {
        kept.replace(&format!("[{table}]"), &format!("[{table}]\n{line}"))
    };
    let file = (Path::new("portcullis.toml"), text);
    let loaded = Config::load(Some(file), &BTreeMap::new());
    loaded.unwrap_or_else(|problems| panic!("{problems}")).config
}

#[test]
fn a_key_that_waits_for_a_restart_is_one_that_the_reload_leaves_as_it_was() {
    let running = loaded("", "log = \"info\"");
    let mut tried = BTreeSet::new();
    for (table, line) in [
        ("", "listen = \"127.0.0.1:9\""),
        ("", "listen_http = \"127.0.0.1:80\""),
        ("", "http2 = false"),
        ("", "database_url = \"sqlite://other.db\""),
        ("", "secret_key = \"0123456789abcdef0123456789abcdef\""),
        ("admin", "listen = \"127.0.0.1:9\""),
        ("admin", "url = \"https://admin.example.com\""),
        ("admin", "tls = true"),
        ("telemetry", "otlp = \"http://127.0.0.1:4318\""),
        ("telemetry", "headers = { x-api-key = \"key\" }"),
        ("telemetry", "traces = 0.5"),
        ("telemetry", "metrics = false"),
        ("telemetry", "logs = true"),
    ] {
        let name = line.split(' ').next().unwrap();
        let key = if table.is_empty() { name.to_owned() } else { format!("{table}.{name}") };
        let waiting = loaded(table, line).in_place_of(&running).unwrap().waiting;
        assert!(waiting.contains(&key.as_str()), "{key}: {waiting:?}");
        tried.insert(key);
    }
    let of = |applies| -> BTreeSet<String> {
        let keys = reference().into_iter().filter(|key| key.applies == applies);
        keys.map(|key| key.key).filter(|key| !key.starts_with("limits.")).collect()
    };
    assert_eq!(of(Applies::Restart), tried);

    // What makes the issuer of the provider is its identity too.
    let mut identity: BTreeSet<String> = PRESETS
        .iter()
        .flat_map(|preset| preset.keys.iter().map(|key| key.name))
        .chain(["url", "authorization_server"])
        .map(|name| format!("upstream.{name}"))
        .collect();
    for (table, line) in [
        ("", "public_url = \"https://other.example.com\""),
        ("upstream", "issuer = \"https://other.example.com\""),
        ("upstream", "client_id = \"other\""),
        ("upstream", "provider = \"dex\""),
    ] {
        let name = line.split(' ').next().unwrap();
        let key = if table.is_empty() { name.to_owned() } else { format!("{table}.{name}") };
        let refused = loaded(table, line).in_place_of(&running).err();
        assert_eq!(refused.as_deref(), Some(&[key.as_str()][..]), "{key}");
        identity.insert(key);
    }
    assert_eq!(of(Applies::Identity), identity);
    let log = reference().into_iter().find(|key| key.key == "log").unwrap();
    assert_eq!(log.applies, Applies::AtOnce);
}

#[test]
fn variables_are_those_that_the_reader_reads() {
    let variables = |wanted: &str| {
        reference().into_iter().find(|key| key.key == wanted).map(|key| key.variables()).unwrap()
    };
    assert_eq!(variables("listen"), ["PORTCULLIS_LISTEN"]);
    assert_eq!(
        variables("upstream.client_secret"),
        ["PORTCULLIS_UPSTREAM__CLIENT_SECRET", "PORTCULLIS_UPSTREAM__CLIENT_SECRET_FILE"]
    );
    assert_eq!(variables("resource[].path"), ["PORTCULLIS_RESOURCE__PATH"]);
    assert_eq!(variables("resource[].rule[].roles"), Vec::<String>::new());
    assert_eq!(variables("client[].secret"), Vec::<String>::new());
}
