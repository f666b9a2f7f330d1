//! Tests of requests on pooled connections.

use std::sync::Arc;

use super::*;

/// A server that responds to one request on each connection, and then does as it was told with a second one.
struct Closing {
    url: String,
    /// How many requests each connection has carried.
    connections: Arc<std::sync::Mutex<Vec<usize>>>,
}

/// What the server does with a second request on a connection.
#[derive(Clone, Copy, Debug)]
enum Second {
    /// It closes the connection without a response.
    Closed,
    Reset,
    /// It sends half a status line.
    Half,
    Answered,
}

impl Closing {
    async fn start(first: bool, second: Second) -> Self {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let connections: Arc<std::sync::Mutex<Vec<usize>>> = Arc::default();
        let seen = Arc::clone(&connections);
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let number = {
                    let mut seen = seen.lock().unwrap();
                    seen.push(0);
                    seen.len() - 1
                };
                let seen = Arc::clone(&seen);
                tokio::spawn(async move {
                    let mut buffer = [0; 4096];
                    loop {
                        if !matches!(stream.read(&mut buffer).await, Ok(1..)) {
                            return;
                        }
                        let count = {
                            let mut seen = seen.lock().unwrap();
                            seen[number] += 1;
                            seen[number]
                        };
                        let answer = match (count, second) {
                            (1, _) if !first => return,
                            (1, _) | (_, Second::Answered) => {
                                "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
                            }
                            (_, Second::Half) => "HTTP/1.1 2",
                            (_, Second::Closed) => return,
                            (_, Second::Reset) => {
                                let linger = Some(Duration::ZERO);
                                let _ = socket2::SockRef::from(&stream).set_linger(linger);
                                return;
                            }
                        };
                        let _ = stream.write_all(answer.as_bytes()).await;
                        if answer.len() < 20 {
                            return;
                        }
                    }
                });
            }
        });
        Self { url, connections }
    }

    fn requests(&self) -> Vec<usize> {
        self.connections.lock().unwrap().clone()
    }
}

/// Which requests are sent twice, and which never are.
#[tokio::test]
async fn a_request_that_a_kept_connection_swallowed_is_sent_once_more_only_when_that_is_safe() {
    for (method, second, is_answered, requests) in [
        ("GET", Second::Closed, true, vec![2, 1]),
        ("GET", Second::Reset, true, vec![2, 1]),
        ("GET", Second::Answered, true, vec![2]),
        // Half a response does no harm either: a GET may be sent twice.
        ("GET", Second::Half, true, vec![2, 1]),
        ("POST", Second::Closed, false, vec![2]),
        ("POST", Second::Reset, false, vec![2]),
        ("POST", Second::Half, false, vec![2]),
        ("POST", Second::Answered, true, vec![2]),
        ("PUT", Second::Closed, false, vec![2]),
    ] {
        let server = Closing::start(true, second).await;
        let client = HttpClient::new(Duration::from_mins(1), &Proxies::default());
        ask(&client, "GET", &server).await.unwrap();
        let again = ask(&client, method, &server).await;
        assert_eq!(again.is_ok(), is_answered, "{method} {second:?}: {again:?}");
        assert_eq!(server.requests(), requests, "{method} {second:?}");
    }
}

/// After a loss, requests that must not be sent twice use new connections.
#[tokio::test]
async fn after_a_kept_connection_swallowed_a_request_codes_go_on_new_connections() {
    for lost in ["GET", "POST"] {
        let server = Closing::start(true, Second::Closed).await;
        let client = HttpClient::new(Duration::from_mins(1), &Proxies::default());
        ask(&client, "GET", &server).await.unwrap();
        let _ = ask(&client, lost, &server).await;
        let before = server.requests().len();
        for _ in 0..3 {
            ask(&client, "POST", &server).await.unwrap();
        }
        let requests = server.requests();
        assert_eq!(requests[before..], [1, 1, 1], "{lost}: {requests:?}");
    }
}

async fn ask(
    client: &HttpClient,
    method: &str,
    server: &Closing,
) -> Result<Response<Vec<u8>>, HttpError> {
    let request = Request::builder().method(method).uri(&server.url).body(Vec::new());
    let answer = client.send(request.unwrap()).await;
    for _ in 0..100 {
        tokio::task::yield_now().await; // until the pool has the connection
    }
    answer
}

/// A failure on a new connection is an outage, so the request is not repeated.
#[tokio::test]
async fn what_fails_on_a_new_connection_is_not_sent_again() {
    for method in ["GET", "POST"] {
        let server = Closing::start(false, Second::Closed).await;
        let client = HttpClient::new(Duration::from_mins(1), &Proxies::default());
        let request = Request::builder().method(method).uri(&server.url).body(Vec::new());
        let answer = client.send(request.unwrap()).await;
        assert!(matches!(answer, Err(HttpError::Connection(_))), "{answer:?}");
        assert_eq!(server.requests(), [1], "{method}");
    }
}
