//! Tests for `[tls]`, `listen_http` and `admin.tls`.

use super::*;

/// Writes a certificate and its key, and returns their paths.
fn files(names: &[&str], years: (i32, i32)) -> (String, String) {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = rcgen::CertificateParams::new(names).unwrap();
    params.not_before = rcgen::date_time_ymd(years.0, 1, 1);
    params.not_after = rcgen::date_time_ymd(years.1, 1, 1);
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = params.self_signed(&key).unwrap();
    let folder = std::env::temp_dir();
    let name = crate::oauth::secret::random_text();
    let write = |kind: &str, text: String| {
        let path = folder.join(format!("portcullis-{name}-{kind}.pem"));
        std::fs::write(&path, text).unwrap();
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        }
        path.to_str().unwrap().to_owned()
    };
    (write("cert", certificate.pem()), write("key", key.serialize_pem()))
}

fn with_files((cert, key): &(String, String), more: &str) -> String {
    format!("{more}\n{OK}\n[tls]\ncert = {cert:?}\nkey = {key:?}\n")
}

fn warnings(text: &str) -> Vec<String> {
    load_with(text, &[]).unwrap_or_else(|problems| panic!("{problems}")).warnings
}

/// Returns keys and reasons of the problems of `[tls]`.
fn problems_of_tls(tls: &str) -> Vec<(String, String)> {
    let found = problems(&format!("{OK}\n{tls}"));
    found.into_iter().map(|problem| (problem.key, problem.reason)).collect()
}

#[test]
fn a_pair_is_read_and_its_files_are_watched() {
    let pair = files(&["mcp.example.com"], (2020, 2090));

    let loaded = load_with(&with_files(&pair, "listen_http = \"0.0.0.0:80\""), &[]).unwrap();

    assert_eq!(loaded.warnings, Vec::<String>::new());
    for path in [&pair.0, &pair.1] {
        assert!(loaded.files.contains(&std::path::PathBuf::from(path)), "{:?}", loaded.files);
    }
    let key = std::fs::read_to_string(&pair.1).unwrap();
    assert!(!loaded.show().contains(key.lines().nth(1).unwrap()), "it shows the path alone");
    assert!(matches!(loaded.config.tls, Some(TlsConfig::Files(_))));
    assert_eq!(loaded.config.listen_http.unwrap().port(), 80);
    let shown = format!("{:?}", loaded.config.tls);
    assert!(!shown.contains("KEY") && shown.len() < 80, "{shown}");
}

#[test]
fn what_clients_would_refuse_is_warned_of() {
    let told = |names: &[&str], years: (i32, i32)| {
        warnings(&with_files(&files(names, years), "")).join("; ")
    };
    assert!(told(&["other.example.com"], (2020, 2090)).contains("is not for \"mcp.example.com\""));
    assert!(told(&["mcp.example.com"], (2020, 2021)).contains("expired"));
    assert!(told(&["mcp.example.com"], (2080, 2090)).contains("is valid in"));
    assert_eq!(told(&["*.example.com"], (2020, 2090)), "");
}

#[cfg(unix)]
#[test]
fn a_key_that_everybody_can_read_is_warned_of() {
    use std::os::unix::fs::PermissionsExt as _;
    let pair = files(&["mcp.example.com"], (2020, 2090));
    std::fs::set_permissions(&pair.1, std::fs::Permissions::from_mode(0o644)).unwrap();

    let told = warnings(&with_files(&pair, ""));

    assert!(told.len() == 1 && told[0].contains("every user of this machine"), "{told:?}");
}

#[test]
fn a_pair_that_does_not_fit_is_refused_with_its_key() {
    let (one, other) =
        (files(&["mcp.example.com"], (2020, 2090)), files(&["mcp.example.com"], (2020, 2090)));
    for (cert, key, wrong, reason) in [
        (one.0.as_str(), other.1.as_str(), "tls.key", "does not belong"),
        (&one.1, &one.1, "tls.cert", "no certificate"),
        (&one.0, &one.0, "tls.key", "no private key"),
        ("/no/such/file", &one.1, "tls.cert", "cannot be read"),
    ] {
        let found = problems_of_tls(&format!("[tls]\ncert = {cert:?}\nkey = {key:?}"));
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0].0, wrong);
        assert!(found[0].1.contains(reason), "{found:?}");
    }
    let missing = problems_of_tls(&format!("[tls]\ncert = {:?}", one.0));
    assert_eq!(missing, [("tls.key".to_owned(), "is missing".to_owned())]);
}

#[test]
fn acme_needs_names_and_the_terms() {
    let acme = |more: &str| format!("[tls.acme]\n{more}");
    let good = "domains = [\"MCP.example.com\", \"mcp.example.com\"]\nterms = true";
    let config = load(&format!("{OK}\n{}\ncontact = \"ops@example.com\"", acme(good)));
    let Some(TlsConfig::Acme(read)) = config.tls else { panic!("{:?}", config.tls) };
    assert_eq!(read.domains, ["mcp.example.com"]);
    assert_eq!(read.directory, "https://acme-v02.api.letsencrypt.org/directory");

    for (text, key) in [
        ("domains = [\"mcp.example.com\"]", "tls.acme.terms"),
        ("domains = [\"mcp.example.com\"]\nterms = false", "tls.acme.terms"),
        ("terms = true", "tls.acme.domains"),
        ("domains = []\nterms = true", "tls.acme.domains"),
        ("domains = [\"*.example.com\"]\nterms = true", "tls.acme.domains"),
        ("domains = [\"192.0.2.7\"]\nterms = true", "tls.acme.domains"),
        ("domains = [\"localhost\"]\nterms = true", "tls.acme.domains"),
        ("domains = [\"a b.example\"]\nterms = true", "tls.acme.domains"),
        (&format!("{good}\ndirectory = \"http://acme.example/dir\""), "tls.acme.directory"),
        (&format!("{good}\ncontact = \"nobody\""), "tls.acme.contact"),
        (&format!("{good}\ncontact = \"a@b.example,c@d.example\""), "tls.acme.contact"),
        (&format!("{good}\nca = \"/no/such/file\""), "tls.acme.ca"),
    ] {
        let found = problems_of_tls(&acme(text));
        assert_eq!(found.len(), 1, "{text}: {found:?}");
        assert_eq!(found[0].0, key, "{text}");
    }
    let lacks = "domains = [\"other.example.com\"]\nterms = true";
    let told = warnings(&format!("{OK}\n{}", acme(lacks)));
    assert!(told[0].contains("lacks \"mcp.example.com\""), "{told:?}");
    let both = format!("[tls]\ncert = \"x\"\n{}", acme(good));
    assert_eq!(problems_of_tls(&both)[0].0, "tls.acme");
}

#[test]
fn an_external_account_is_a_key_and_its_id() {
    const GOOD: &str = "[tls.acme]\ndomains = [\"mcp.example.com\"]\nterms = true\n";
    let account = |more: &str| {
        let config = load(&format!("{OK}\n{GOOD}{more}"));
        let Some(TlsConfig::Acme(read)) = config.tls else { panic!("{:?}", config.tls) };
        read.external_account.clone()
    };
    assert!(account("").is_none());
    // With and without padding; `_` and `-` tell base64url from base64.
    for encoded in ["_-8xMg", "_-8xMg=="] {
        let more = format!("eab_key_id = \"kid-1\"\neab_hmac_key = {encoded:?}");
        let read = account(&more).unwrap();
        assert_eq!(read.key_id, "kid-1");
        assert_eq!(read.hmac_key.expose(), [0xff, 0xef, b'1', b'2']);
        assert!(!format!("{read:?}").contains("255"), "{read:?}");
    }
    let id = format!("{OK}\n{GOOD}eab_key_id = \"kid-1\"\n");
    let by_name = format!("{id}eab_hmac_key = {{ env = \"HMAC_KEY\" }}");
    for (text, variable) in [(&id, "PORTCULLIS_TLS__ACME__EAB_HMAC_KEY"), (&by_name, "HMAC_KEY")] {
        let loaded = load_with(text, &[(variable, "_-8xMg")]);
        let loaded = loaded.unwrap_or_else(|problems| panic!("{problems}"));
        assert!(!loaded.show().contains("_-8xMg"), "{}", loaded.show());
    }

    for (more, key, reason) in [
        ("eab_key_id = \"kid-1\"", "tls.acme.eab_hmac_key", "is missing"),
        ("eab_hmac_key = \"_-8xMg\"", "tls.acme.eab_key_id", "is missing"),
        ("eab_key_id = \"\"\neab_hmac_key = \"_-8xMg\"", "tls.acme.eab_key_id", "is empty"),
        (
            "eab_key_id = \"kid-1\"\neab_hmac_key = \"no base64\"",
            "tls.acme.eab_hmac_key",
            "is not text in base64url",
        ),
        (
            "eab_key_id = \"kid-1\"\neab_hmac_key = \"/+8xMg\"",
            "tls.acme.eab_hmac_key",
            "is not text in base64url",
        ),
    ] {
        let found = problems_of_tls(&format!("{GOOD}{more}"));
        assert_eq!(found, [(key.to_owned(), reason.to_owned())], "{more}");
    }
}

#[test]
fn what_needs_tls_is_refused_without_it() {
    assert_eq!(problem_of_top("listen_http = \"0.0.0.0:80\"").key, "listen_http");
    let pair = files(&["mcp.example.com"], (2020, 2090));
    let local = with_files(&pair, "").replace("https://mcp.example.com", "http://127.0.0.1:8000");
    assert_eq!(problems(&local)[0].key, "tls");
    let admin = "[admin]\nroles = [\"Admin\"]\n";
    let found = problems_of_tls(&format!("{admin}tls = true\nurl = \"https://admin.example.com\""));
    assert_eq!(found[0].0, "admin.tls");
}

#[test]
fn the_admin_listener_speaks_tls_unless_it_is_on_loopback() {
    let pair = files(&["mcp.example.com", "admin.example.com"], (2020, 2090));
    let admin = |more: &str| {
        let admin = format!("{}\n[admin]\nroles = [\"Admin\"]\n{more}", with_files(&pair, ""));
        load(&admin).admin.unwrap()
    };
    let here = admin("");
    assert_eq!((here.tls, here.url.as_str()), (false, "http://127.0.0.1:8001"));
    let told = admin("tls = true");
    assert_eq!((told.tls, told.url.as_str()), (true, "https://127.0.0.1:8001"));
    let open = "listen = \"0.0.0.0:8001\"\nurl = \"https://admin.example.com\"";
    assert!(admin(open).tls);
    assert!(!admin(&format!("{open}\ntls = false")).tls);
}
