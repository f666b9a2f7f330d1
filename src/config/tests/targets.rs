//! The targets of a resource.

use super::*;

/// The configuration with these lines in its resource.
fn with(lines: &str) -> String {
    OK.replace("path = \"/mcp\"\n", &format!("path = \"/mcp\"\n{lines}\n"))
}

#[test]
fn targets_are_one_or_several_and_keep_their_order() {
    let config = load(&with("target = \"http://127.0.0.1:9000/mcp\""));
    let resource = &config.resources[0];
    assert_eq!(
        resource.targets.iter().map(Url::as_str).collect::<Vec<_>>(),
        ["http://127.0.0.1:9000/mcp"]
    );
    assert_eq!((resource.timeout, resource.connection.connect_timeout.as_secs()), (None, 5));
    let several =
        "targets = [\"http://b/mcp\", \"http://a/mcp\"]\ntimeout = \"90s\"\nconnect_timeout = 2";
    let config = load(&with(several));
    let resource = &config.resources[0];
    assert_eq!(
        resource.targets.iter().map(Url::as_str).collect::<Vec<_>>(),
        ["http://b/mcp", "http://a/mcp"]
    );
    assert_eq!(resource.timeout.map(|timeout| timeout.as_secs()), Some(90));
    assert!(resource.is_fronted() && !load(OK).resources[0].is_fronted());

    let variables = [("PORTCULLIS_RESOURCE__TARGETS", "http://a/mcp,http://b/mcp")];
    let loaded = load_with(OK, &variables).unwrap_or_else(|problems| panic!("{problems}"));
    assert_eq!(loaded.config.resources[0].targets.len(), 2);
    assert!(loaded.show().contains("targets"), "{}", loaded.show());
}

#[test]
fn each_mistake_in_targets_is_named() {
    let many: Vec<String> = (0..33).map(|number| format!("http://host{number}/mcp")).collect();
    let many = format!("targets = {many:?}");
    for (lines, key, reason) in [
        ("target = \"http://a/\"\ntargets = [\"http://b/\"]", "targets", "and so is target"),
        ("targets = []", "targets", "has 0 entries; it takes 1 to 32"),
        (many.as_str(), "targets", "has 33 entries"),
        ("targets = [\"http://a/mcp\", \"HTTP://A:80/mcp\"]", "targets", "listed twice"),
        ("targets = [\"http://a/mcp\", \"ftp://b\"]", "targets", "not the plain URL"),
        ("targets = [\"http://user:secret@a/mcp\"]", "targets", "not the plain URL"),
        ("targets = \"http://a/mcp\"", "targets", "is not a list of texts"),
        ("targets = [\"https://a/mcp\", \"http://b/mcp\"]", "targets", "plain http to another"),
        ("target = \"http://a/mcp\"\ntimeout = \"2h\"", "timeout", "within its range"),
        ("target = \"http://a/mcp\"\nconnect_timeout = \"0s\"", "connect_timeout", "within"),
        ("target = \"https://a/mcp\"\nca = \"/nowhere.pem\"", "ca", "cannot be read"),
        ("target = \"https://a/mcp\"\nca = \"Cargo.toml\"", "ca", "without certificates"),
        (
            "target = \"https://a/mcp\"\nclient_key = \"Cargo.toml\"",
            "client_key",
            "without client_cert",
        ),
    ] {
        let found = problems(&with(lines));
        let problem = found.iter().find(|problem| problem.reason.contains(reason));
        let problem = problem.unwrap_or_else(|| panic!("{lines}: {found:#?}"));
        assert_eq!(problem.key, format!("resource[0].{key}"));
        assert!(!problem.hint.is_empty());
    }
    let mixed_here = "targets = [\"https://a/mcp\", \"http://127.0.0.1:9000/mcp\"]";
    assert_eq!(load(&with(mixed_here)).resources[0].targets.len(), 2, "this machine is no network");
}

#[test]
fn certificates_are_read_as_pairs_and_for_https_only() {
    let folder = std::env::temp_dir().join(crate::oauth::secret::random_text());
    std::fs::create_dir_all(&folder).unwrap();
    let path = |name: &str| folder.join(name).display().to_string();
    let pair = |name: &str| {
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(vec!["portcullis.example".to_owned()]).unwrap();
        std::fs::write(path(&format!("{name}.pem")), params.self_signed(&key).unwrap().pem())
            .unwrap();
        std::fs::write(path(&format!("{name}.key")), key.serialize_pem()).unwrap();
    };
    pair("one");
    pair("two");
    let lines = |target: &str, cert: &str, key: &str| {
        let (ca, cert, key) = (path("one.pem"), path(cert), path(key));
        with(&format!(
            "target = {target:?}\nca = {ca:?}\nclient_cert = {cert:?}\nclient_key = {key:?}"
        ))
    };

    let loaded = load_with(&lines("https://a/mcp", "one.pem", "one.key"), &[]);
    let loaded = loaded.unwrap_or_else(|problems| panic!("{problems}"));
    let connection = &loaded.config.resources[0].connection;
    assert_eq!(connection.authorities.len(), 1);
    assert!(connection.identity.is_some());
    assert_eq!(loaded.files.len(), 3, "each is read again when it changes");
    let secret = std::fs::read_to_string(path("one.key")).unwrap();
    let secret = secret.lines().nth(1).unwrap();
    assert!(!loaded.show().contains(secret) && !format!("{:?}", loaded.config).contains(secret));

    for (text, key, reason) in [
        (lines("https://a/mcp", "one.pem", "two.key"), "client_key", "does not go with"),
        (lines("https://a/mcp", "one.pem", "two.pem"), "client_key", "without a private key"),
        (lines("https://a/mcp", "one.key", "one.key"), "client_cert", "without certificates"),
        (lines("http://a/mcp", "one.pem", "one.key"), "ca", "no target is https"),
        (lines("http://a/mcp", "one.pem", "one.key"), "client_cert", "no target is https"),
    ] {
        let found = problems(&text);
        let named = found.iter().any(|problem| {
            problem.key == format!("resource[0].{key}") && problem.reason.contains(reason)
        });
        assert!(named, "{key} {reason}: {found:#?}");
    }
    std::fs::remove_dir_all(&folder).unwrap();
}
