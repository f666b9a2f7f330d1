//! `database_url`: options that are not known, hosts and sockets, files, and what is shown of it.

use portcullis::storage::Storage;

use crate::harness::TestApp;
use crate::harness::process::run;

/// What `config show` says with this URL.
fn show(folder: &std::path::Path, text: &str, url: &str) -> (bool, String) {
    let line = text.lines().find(|line| line.starts_with("database_url")).unwrap();
    let text = text.replace(line, &format!("database_url = {url:?}"));
    std::fs::write(folder.join("portcullis.toml"), text).unwrap();
    let ran = run(folder, &["config", "show"], &[]);
    let said = [ran.stdout, ran.stderr].concat();
    (ran.status.success(), String::from_utf8(said).unwrap())
}

#[tokio::test]
async fn config_show_masks_what_may_be_secret_and_unknown_options_are_named() {
    let app = TestApp::start().await;
    let (folder, text) = (app.database.folder.clone(), app.config_text());
    let file = folder.join("root.pem");
    std::fs::write(&file, "-----BEGIN CERTIFICATE-----\n").unwrap();
    let empty = folder.join("empty.pem");
    std::fs::write(&empty, "nothing").unwrap();
    let (file, empty) = (file.display().to_string(), empty.display().to_string());
    let file = format!("sslmode=verify-full&sslrootcert={file}");
    let bad = format!("sslrootcert={empty}");
    for (options, good, says) in [
        ("password=canary", true, "password=********"),
        ("sslkey=canary", false, "sslkey names canary, which cannot be read"),
        ("options=-c%20a.b%3Dcanary", true, "options=********"),
        ("sslpassword=canary", false, "unknown option sslpassword\n"),
        ("ssl_mode=require", false, "unknown option ssl_mode"),
        ("ssl_mode=require", false, "did you mean sslmode?"),
        ("pasword=canary", false, "did you mean password?"),
        ("target_session_attrs=canary", false, "unknown option target_session_attrs"),
        ("connect_timeout=7777", false, "unknown option connect_timeout"),
        ("optionsX=canary", false, "did you mean options?"),
        ("sslmode=verify", false, "unknown sslmode"),
        ("port=high", false, "has a port that is no number"),
        ("host=a,b", false, "names several of host"),
        ("sslrootcert=/not/there.pem", false, "/not/there.pem, which cannot be read"),
        (bad.as_str(), false, "empty.pem, which has no certificate in PEM"),
        (file.as_str(), true, "sslmode=verify-full"),
        ("sslmode=require", true, "sslmode=require"),
    ] {
        let (ok, said) = show(&folder, &text, &format!("postgres://u@127.0.0.1:1/d?{options}"));
        let says = says.trim_end();
        assert!(ok == good && said.contains(says), "{options}: {said}");
        let secret = !options.starts_with("sslkey") && said.contains("canary");
        assert!(!secret && !said.contains("7777"), "{options}: {said}");
    }
    for (url, says) in [
        ("postgres://a,b/d", "names several hosts"),
        ("postgres://u:canary@a:1,b:2/d?sslmode=require", "names several hosts"),
        ("postgres://u@h:port/d?password=canary", "cannot be read"),
        ("postgres://u@/d?host=/run", "write postgres:///database?host=/folder&user=name"),
    ] {
        let (ok, said) = show(&folder, &text, url);
        assert!(!ok && said.contains(says) && !said.contains("canary"), "{url}: {said}");
    }
}

#[tokio::test]
async fn a_certificate_that_nobody_looks_at_is_warned_of() {
    let app = TestApp::start().await;
    let (folder, text) = (app.database.folder.clone(), app.config_text());
    let file = folder.join("root.pem");
    std::fs::write(&file, "-----BEGIN CERTIFICATE-----\n").unwrap();
    for (mode, warned) in [
        ("require", true),
        ("prefer", true),
        ("", true),
        ("verify-ca", false),
        ("verify-full", false),
    ] {
        let mode = if mode.is_empty() { String::new() } else { format!("sslmode={mode}&") };
        let url = format!("postgres://u@h/d?{mode}sslrootcert={}", file.display());
        let (ok, said) = show(&folder, &text, &url);
        assert!(ok, "{said}");
        assert_eq!(said.contains("nobody looks at the server's certificate"), warned, "{said}");
    }
}

#[tokio::test]
async fn sockets_work_in_every_spelling() {
    let app = TestApp::start().await;
    if !app.database.is_postgres() {
        return;
    }
    let folder = app.database.text("SHOW unix_socket_directories").await;
    let port = app.database.text("SHOW port").await;
    let options = app.database.url.split('?').nth(1).unwrap();
    let encoded = folder.replace('/', "%2F");
    for url in [
        format!("postgres://portcullis@{encoded}:{port}/postgres?{options}"),
        format!("postgres:///postgres?host={folder}&port={port}&user=portcullis&{options}"),
    ] {
        let key = app.config();
        let key = key.secret_key.as_ref().map(|key| key.expose().as_bytes());
        let opened = Storage::open(&url, key).await;
        opened.unwrap_or_else(|cause| panic!("{url}: {cause}")).close().await;
    }
}
