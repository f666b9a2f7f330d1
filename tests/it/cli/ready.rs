//! `portcullis ready`, which containers use as their health check.

use std::path::Path;
use std::process::Output;

use serde_json::json;

use crate::harness::database::Database;
use crate::harness::process::{Served, free_address, run};
use crate::harness::publisher::{Page, Publisher};

/// Runs `portcullis ready` beside what it asks.
async fn ready(folder: &Path, arguments: &[&str], env: &[(&str, &str)]) -> Output {
    let folder = folder.to_owned();
    let words: Vec<String> =
        ["ready"].iter().chain(arguments).map(|&word| word.to_owned()).collect();
    let env: Vec<(String, String)> =
        env.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect();
    let ran = move || {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let env: Vec<(&str, &str)> =
            env.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        run(&folder, &words, &env)
    };
    tokio::task::spawn_blocking(ran).await.unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[track_caller]
fn assert_can_serve(ran: &Output) {
    let said = format!("{}{}", text(&ran.stdout), text(&ran.stderr));
    assert_eq!((ran.status.code(), said.as_str()), (Some(0), "ready\n"));
}

/// Returns what it said.
#[track_caller]
fn assert_cannot(ran: &Output) -> String {
    let said = text(&ran.stderr);
    assert_eq!(ran.status.code(), Some(1), "{said}");
    assert_eq!(text(&ran.stdout), "", "{said}");
    said
}

#[tokio::test]
async fn a_running_server_is_asked_where_the_configuration_says_it_listens() {
    let mut served = Served::start().await;
    let folder = served.database.folder.clone();
    let config = ["--config", "portcullis.toml"];

    assert_can_serve(&ready(&folder, &config, &[]).await);
    assert_can_serve(&ready(&folder, &[], &[]).await);
    let quiet = ready(&folder, &["--quiet"], &[]).await;
    assert_eq!((quiet.status.code(), text(&quiet.stdout)), (Some(0), String::new()));
    let listen = served.url.trim_start_matches("http://").to_owned();
    let port = listen.rsplit(':').next().unwrap().to_owned();
    let everywhere = format!("0.0.0.0:{port}");
    let nowhere = Database::new().await;
    let env = [("PORTCULLIS_LISTEN", everywhere.as_str())];
    assert_can_serve(&ready(&nowhere.folder, &[], &env).await);
    served.kill();

    let said = assert_cannot(&ready(&folder, &config, &[]).await);
    assert!(said.contains(&format!("http://{listen}/ready: no connection")), "{said}");
}

/// A check that needs the secrets would fail where an administrator runs it, and in a container whose
/// configuration is being edited.
#[tokio::test]
async fn neither_secrets_nor_the_rest_of_the_configuration_are_needed() {
    let served = Served::start().await;
    let place = Database::new().await;
    let listen = served.url.trim_start_matches("http://");
    let write = |text: String| std::fs::write(place.folder.join("portcullis.toml"), text).unwrap();

    write(format!(
        "listen = {listen:?}\npublic_ulr = 7\nsecret_key = {{ file = \"/nowhere/key\" }}\n\
         [upstream]\nclient_secret = {{ env = \"NOT_SET\" }}\n"
    ));
    assert_can_serve(&ready(&place.folder, &[], &[]).await);

    write("listen = \"here\"\n".to_owned());
    let said = assert_cannot(&ready(&place.folder, &[], &[]).await);
    assert!(
        said.contains("portcullis.toml:1: listen") && said.contains("not an address"),
        "{said}"
    );
    write("listen = [\n".to_owned());
    let said = assert_cannot(&ready(&place.folder, &[], &[]).await);
    assert!(said.contains("is not TOML"), "{said}");
    let said = assert_cannot(&ready(&place.folder, &["--config", "nowhere.toml"], &[]).await);
    assert!(said.contains("cannot be read"), "{said}");
}

#[tokio::test]
async fn another_server_is_asked_by_its_url() {
    let served = Served::start().await;
    let place = Database::new().await;
    let ask = async |url: &str| ready(&place.folder, &["--url", url], &[]).await;

    let url = &served.url;
    for url in [url.clone(), format!("{url}/"), format!("{url}/ready"), format!("{url}/ready/?a=b")]
    {
        assert_can_serve(&ask(&url).await);
    }
    let said = assert_cannot(&ask(&format!("{url}/below")).await);
    assert!(said.contains("/below/ready: something answered 404"), "{said}");
    let said = assert_cannot(&ask(served.idp.issuer()).await);
    assert!(said.contains("it is not Portcullis' /ready"), "{said}");
    for wrong in ["mcp.example.com", "ftp://mcp.example.com", "https://", ""] {
        let said = assert_cannot(&ask(wrong).await);
        assert!(said.contains("is not a URL") && said.contains("https://mcp"), "{said}");
    }
}

/// The listener has the certificate of the public host, and is asked on this machine.
#[tokio::test]
async fn a_listener_with_tls_is_asked_by_its_own_name_and_its_certificate_is_always_verified() {
    let publisher = Publisher::start(&["mcp.example.com"]).await;
    let address = publisher.address();
    let url = format!("https://mcp.example.com:{}/ready", address.port());
    let place = Database::new().await;
    let config = |host: &str| {
        let text = format!(
            "public_url = \"https://{host}\"\nlisten = \"{address}\"\n\
             [tls]\ncert = \"cert.pem\"\nkey = \"key.pem\"\n"
        );
        std::fs::write(place.folder.join("portcullis.toml"), text).unwrap();
    };
    let trusting = [("SSL_CERT_FILE", publisher.authority())];

    config("mcp.example.com");
    publisher.publish(&url, &json!({ "status": "ready" }));
    assert_can_serve(&ready(&place.folder, &[], &trusting).await);
    assert_eq!(publisher.requests_to(&url), 1);
    publisher.publish(&url, &json!({ "status": "degraded" }));
    assert_eq!(text(&ready(&place.folder, &[], &trusting).await.stdout), "degraded\n");

    let down =
        json!({ "status": "not ready", "database": "takes no writes\u{1b}[31m", "clock": "right" });
    publisher.answer(&url, Page { status: 503, ..Page::json(&down) });
    let said = assert_cannot(&ready(&place.folder, &[], &trusting).await);
    assert!(
        said.contains("not ready; database: takes no writes\u{fffd}[31m; clock: right"),
        "{said}"
    );
    publisher.answer(&url, Page::status(200).with("content-type", "text/html"));
    let said = assert_cannot(&ready(&place.folder, &[], &trusting).await);
    assert!(said.contains("something answered 200"), "{said}");

    let asked = publisher.requests();
    for (host, env) in [("mcp.example.com", &[][..]), ("other.example.com", &trusting)] {
        config(host);
        let said = assert_cannot(&ready(&place.folder, &[], env).await);
        assert!(said.contains("certificate"), "{host}: {said}");
    }
    assert_eq!(
        publisher.requests(),
        asked,
        "nothing was sent to a server that could not prove its name"
    );
}

#[tokio::test]
async fn a_server_that_does_not_exist_is_not_ready() {
    let place = Database::new().await;
    let nobody = free_address().to_string();
    let said =
        assert_cannot(&ready(&place.folder, &[], &[("PORTCULLIS_LISTEN", nobody.as_str())]).await);
    assert!(said.contains(&nobody) && said.contains("no connection"), "{said}");
}
