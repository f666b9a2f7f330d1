//! The demo in a container: it listens on every address, because a published port reaches no loopback.

use std::net::{IpAddr, SocketAddr, UdpSocket};

use crate::harness::demo::DemoProcess;
use crate::harness::http::Http;
use crate::harness::process::run;

/// An address of this machine that is not loopback, if it has one.
fn another_address() -> Option<IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("192.0.2.1:9").ok()?; // sends nothing: it only chooses a route
    socket.local_addr().ok().map(|address| address.ip()).filter(|ip| !ip.is_loopback())
}

#[tokio::test]
async fn a_demo_in_a_container_is_reached_at_loopback_of_its_host_and_warns() {
    let demo = DemoProcess::start_open().await;
    let port = demo.address.port();
    let url = format!("http://127.0.0.1:{port}");

    for part in [format!("MCP URL            {url}/mcp"), "http://127.0.0.1:".to_owned()] {
        assert!(demo.text.contains(&part), "{part}: {}", demo.text);
    }
    let warning = demo.text.split("WARNING").nth(1);
    let warning = warning.unwrap_or_else(|| panic!("no warning: {}", demo.text));
    for part in ["every address", "sign in as anybody", "-p 127.0.0.1:"] {
        assert!(warning.contains(part), "{part}: {warning}");
    }
    assert!(!demo.text.contains("this machine only."), "{}", demo.text);
    assert!(!demo.text.contains("0.0.0.0"), "nobody can open that: {}", demo.text);

    let http = Http::default();
    let metadata = format!("{url}/.well-known/oauth-protected-resource/mcp");
    let metadata = http.get(&metadata).await;
    assert_eq!(metadata.json()["resource"], format!("{url}/mcp"));
    let folder = demo.folder().to_owned();
    let file = demo.configuration().display().to_string();
    let ran = move || run(&folder, &["ready", "--config", &file], &[]);
    let ran = tokio::task::spawn_blocking(ran).await.unwrap();
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));

    // A request with another host name is refused, as everywhere.
    if let Some(ip) = another_address() {
        let other = format!("http://{}", SocketAddr::new(ip, port));
        http.get(&format!("{other}/health")).await.assert_status(200);
        http.get(&format!("{other}/account")).await.assert_status(421);
    }
}
