//! What systemd is told, so that `systemctl start` reports a server that does not serve (`Type=notify`).

use std::os::unix::net::UnixDatagram;

use crate::harness::process::{Served, run};

/// A socket as systemd makes it, and its name.
fn socket(folder: &std::path::Path) -> (UnixDatagram, String) {
    let path = folder.join("notify");
    (UnixDatagram::bind(&path).unwrap(), path.display().to_string())
}

fn message(socket: &UnixDatagram) -> String {
    let mut buffer = [0; 64];
    let length = socket.recv(&mut buffer).unwrap();
    String::from_utf8(buffer[..length].to_vec()).unwrap()
}

#[tokio::test]
async fn systemd_hears_when_the_server_serves_and_when_it_ends() {
    let mut served = Served::prepared().await;
    let (socket, name) = socket(&served.database.folder);
    served.env.push(("NOTIFY_SOCKET", name));

    served.launch();
    assert_eq!(message(&socket), "READY=1");
    assert!(served.terminate().await.unwrap().success());

    assert_eq!(message(&socket), "STOPPING=1");
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn the_socket_may_have_an_abstract_name() {
    use std::os::linux::net::SocketAddrExt as _;
    let name = format!("portcullis-{}", portcullis::oauth::secret::random_text());
    let address = std::os::unix::net::SocketAddr::from_abstract_name(&name).unwrap();
    let socket = UnixDatagram::bind_addr(&address).unwrap();
    let mut served = Served::prepared().await;
    served.env.push(("NOTIFY_SOCKET", format!("@{name}")));

    served.launch();

    assert_eq!(message(&socket), "READY=1");
}

/// Otherwise `systemctl start` would report success for a configuration with mistakes.
#[tokio::test]
async fn a_server_that_does_not_start_reports_nothing() {
    let place = crate::harness::database::Database::new().await;
    let (socket, name) = socket(&place.folder);
    std::fs::write(place.folder.join("portcullis.toml"), "listen = \"here\"\n").unwrap();

    let ran = run(&place.folder, &["serve"], &[("NOTIFY_SOCKET", name.as_str())]);

    assert_eq!(ran.status.code(), Some(1));
    socket.set_nonblocking(true).unwrap();
    assert!(socket.recv(&mut [0; 64]).is_err());
}

#[tokio::test]
async fn a_service_manager_that_is_gone_stops_no_server() {
    let mut served = Served::prepared().await;
    let gone = served.database.folder.join("gone").display().to_string();
    served.env.push(("NOTIFY_SOCKET", gone));

    served.launch();

    let ready = served.http.get(&format!("{}/ready", served.url)).await;
    ready.assert_status(200);
}
