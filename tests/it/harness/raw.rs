//! Bytes on a connection: for requests that no well-behaved client sends.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Host and port of a URL, whatever its path.
pub(crate) fn host(url: &str) -> &str {
    let rest = url.trim_start_matches("http://");
    rest.split('/').next().unwrap_or(rest)
}

/// The path of a URL; empty for an origin. Requests written by hand put it before their own.
pub(crate) fn path(url: &str) -> &str {
    let rest = url.trim_start_matches("http://");
    rest.find('/').map_or("", |begin| &rest[begin..])
}

pub(crate) async fn connect(url: &str) -> TcpStream {
    TcpStream::connect(host(url)).await.unwrap()
}

/// Sends `request` and reads until the other side closes; the request must ask for that.
pub(crate) async fn exchange(url: &str, request: &str) -> String {
    let mut stream = connect(url).await;
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).into_owned()
}

/// The same with a server that may close at once.
pub(crate) async fn try_exchange(url: &str, request: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(host(url)).await?;
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// The status of a raw answer.
pub(crate) fn status(answer: &str) -> u16 {
    answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0)
}

/// Sends a form and leaves the answer unread on the connection.
pub(crate) async fn send_form(url: &str, path: &str, form: &str) -> TcpStream {
    let host = host(url);
    let request = format!(
        "POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/x-www-form-urlencoded\r\n\
         Content-Length: {}\r\n\r\n{form}",
        form.len()
    );
    let mut connection = connect(url).await;
    connection.write_all(request.as_bytes()).await.unwrap();
    connection
}
