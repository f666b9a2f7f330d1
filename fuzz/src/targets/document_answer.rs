//! F8: what the host of a client's document answers, from the status line on: the bytes of the input.

use std::sync::LazyLock;
use std::time::Duration;

use portcullis::http_client::guarded::{FetchError, converse};
use portcullis::oauth::web_url::WebUrl;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::runtime::Runtime;

const LIMIT: usize = 1024;

/// The head of an answer that nobody may refuse, to a body of two bytes.
const PLAIN: &[u8] =
    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n";

static URL: LazyLock<WebUrl> =
    LazyLock::new(|| WebUrl::parse("https://good.example/client").expect("a URL"));

thread_local! {
    static RUNTIME: Runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
}

/// The last head of the answer and what follows it; heads of `1xx` answers come before.
fn cut(data: &[u8]) -> Option<(String, &[u8])> {
    let mut rest = data;
    loop {
        // Empty lines before a status line are passed over (RFC 9112 §2.2).
        let blank = rest.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
        rest = &rest[blank..];
        // Lenient as readers are: a bare line feed ends a line.
        let crlf = rest.windows(4).position(|four| four == b"\r\n\r\n").map(|at| at + 4);
        let lf = rest.windows(2).position(|two| two == b"\n\n").map(|at| at + 2);
        let mixed = rest.windows(3).position(|three| three == b"\n\r\n").map(|at| at + 3);
        let end = [crlf, lf, mixed].into_iter().flatten().min()?;
        let head = String::from_utf8_lossy(&rest[..end]).into_owned();
        rest = &rest[end..];
        let status = head.split_whitespace().nth(1).unwrap_or_default().to_owned();
        if !status.starts_with('1') {
            return Some((head, rest));
        }
    }
}

/// Contradicted when something is taken for a document that a strict reader does not see in the answer.
pub fn run(data: &[u8]) {
    let fetched = RUNTIME.with(|runtime| {
        runtime.block_on(async {
            let (ours, theirs) = tokio::io::duplex(data.len() + 4096);
            let (mut read, mut write) = tokio::io::split(theirs);
            let host = async {
                // An answer that comes before the question is none.
                let mut asked = Vec::new();
                while !asked.ends_with(b"\r\n\r\n") {
                    if read.read_buf(&mut asked).await.unwrap_or(0) == 0 {
                        break;
                    }
                }
                let _ = write.write_all(data).await;
                let _ = write.shutdown().await;
                asked
            };
            let exchange =
                tokio::time::timeout(Duration::from_secs(5), converse(ours, &URL, LIMIT));
            let (fetched, asked) = tokio::join!(exchange, host);
            let asked = String::from_utf8_lossy(&asked).to_ascii_lowercase();
            assert!(asked.starts_with("get /client http/1.1\r\n"), "{asked}");
            for secret in ["cookie", "authorization", "referer"] {
                assert!(!asked.contains(secret), "{asked}");
            }
            fetched.expect("an answer that is over ends")
        })
    });
    let fetched = match fetched {
        Ok(fetched) => fetched,
        Err(FetchError::Status(status)) => {
            assert_ne!(status, 200);
            return;
        }
        Err(error) => {
            assert!(!data.starts_with(PLAIN) || data.len() != PLAIN.len() + 2, "{error}");
            return;
        }
    };
    assert!(fetched.body.len() <= LIMIT, "{} bytes", fetched.body.len());
    let (head, rest) = cut(data).expect("a document without a head");
    let head = head.to_ascii_lowercase();
    assert_eq!(head.split_whitespace().nth(1), Some("200"), "{head}");
    let values = |name: &str| -> Vec<String> {
        let named = head.split('\n').filter_map(|line| line.split_once(':'));
        let named = named.filter(|(known, _)| *known == name);
        named.map(|(_, value)| value.trim().to_owned()).collect()
    };
    let kind = values("content-type");
    assert!(
        kind.first().is_some_and(|kind| kind.starts_with("application/") && kind.contains("json")),
        "{head}"
    );
    if values("transfer-encoding").is_empty() {
        match values("content-length").first() {
            Some(length) => assert_eq!(Ok(fetched.body.len()), length.parse(), "{head}"),
            None => assert_eq!(fetched.body, rest, "{head}"),
        }
        assert!(rest.starts_with(&fetched.body), "{head}");
    }
    let caching = values("cache-control").join(",");
    if caching.split(',').any(|directive| matches!(directive.trim(), "no-store" | "no-cache")) {
        assert_eq!(fetched.lifetime, Some(Duration::ZERO), "{head}");
    }
    if caching.is_empty() && values("expires").is_empty() {
        assert_eq!(fetched.lifetime, None, "{head}");
    }
}
