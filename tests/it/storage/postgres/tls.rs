//! TLS to a PostgreSQL with a certificate of its own authority, as managed databases have.
//!
//! A front that speaks TLS is put before the PostgreSQL of the run, which has none.

use std::path::PathBuf;
use std::sync::Arc;

use portcullis::storage::examine;
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::cli::check::{check_with, finding};
use crate::harness::TestApp;
use crate::harness::tls::{CertificateAuthority, Pair};

/// Host and port of the PostgreSQL of the run.
fn place() -> Option<String> {
    let url = std::env::var("TEST_DATABASE_URL").ok()?;
    let place = url.split('@').nth(1)?.split('/').next()?;
    Some(place.to_owned())
}

/// Starts the front with this certificate. Returns its port.
async fn front(pair: &Pair) -> u16 {
    let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![pair.der.clone()], key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        loop {
            let (mut client, _) = listener.accept().await.unwrap();
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let mut request = [0; 8];
                client.read_exact(&mut request).await?;
                client.write_all(b"S").await?; // TLS is welcome
                let mut client = acceptor.accept(client).await?;
                let mut server = TcpStream::connect(place().unwrap()).await?;
                copy_bidirectional(&mut client, &mut server).await
            });
        }
    });
    port
}

fn file(app: &TestApp, name: &str, pem: &str) -> PathBuf {
    let path = app.database.folder.join(name);
    std::fs::write(&path, pem).unwrap();
    path
}

#[tokio::test]
async fn a_database_with_an_authority_of_its_own_is_trusted_by_its_file_and_its_name() {
    let app = TestApp::start().await;
    if !app.database.is_postgres() {
        return;
    }
    let (ours, other) = (CertificateAuthority::new(), CertificateAuthority::new());
    let (root, wrong_root) =
        (file(&app, "root.pem", &ours.pem), file(&app, "other.pem", &other.pem));
    let right = front(&ours.issue_for(&["localhost"], (2020, 2040))).await;
    let named_otherwise = front(&ours.issue_for(&["db.example"], (2020, 2040))).await;
    let database = app.database.url.rsplit('/').next().unwrap().to_owned();
    for (port, mode, root, works) in [
        (right, "verify-full", Some(&root), true),
        (right, "verify-full", Some(&wrong_root), false),
        (right, "verify-full", None, false),
        (right, "verify-ca", None, false),
        (right, "require", None, true),
        (named_otherwise, "verify-full", Some(&root), false),
        (named_otherwise, "verify-ca", Some(&root), true),
    ] {
        let root = root.map(|root| format!("&sslrootcert={}", root.display())).unwrap_or_default();
        let url = format!("postgres://portcullis@localhost:{port}/{database}&sslmode={mode}{root}");
        let looked = examine(&url).await;
        assert_eq!(looked.is_ok(), works, "{url}: {looked:?}");
        if let Err(cause) = looked {
            assert!(cause.to_string().contains("certificate"), "{url}: {cause}");
        }
    }
}

/// The authorities of the system count too, as everywhere else in the program.
#[tokio::test]
async fn the_authorities_of_the_system_are_trusted() {
    let app = TestApp::start_on_the_real_clock().await;
    if !app.database.is_postgres() {
        return;
    }
    let ours = CertificateAuthority::new();
    let root = file(&app, "root.pem", &ours.pem);
    let port = front(&ours.issue_for(&["localhost"], (2020, 2040))).await;
    let database = app.database.url.rsplit('/').next().unwrap();
    let url = format!("postgres://portcullis@localhost:{port}/{database}&sslmode=verify-full");
    let config = app.config_text().replace(&app.database.url, &url);
    let trusted = [("SSL_CERT_FILE", root.display().to_string())];
    for (env, severity) in [(&trusted[..], "ok"), (&[], "failed")] {
        let (findings, _) = check_with(&app, &config, env).await;
        let found = finding(&findings, "database");
        assert_eq!(found["severity"], severity, "{found}");
    }
}
