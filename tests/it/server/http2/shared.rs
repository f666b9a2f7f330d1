//! One connection, many people: what a proxy in front puts on a connection must not let one of them take
//! something from the others.

use std::net::SocketAddr;

use tokio::net::TcpListener;

use super::*;
use crate::harness::client::Tokens;

/// An app whose MCP server is ours to play.
async fn before(backend: SocketAddr, limits: &str) -> (TestApp, Tokens) {
    let resource = format!(
        "[[resource]]\npath = \"/mcp\"\ntarget = \"http://{backend}/mcp\"\nscopes = [\"create:todos\"]"
    );
    let app = TestApp::with(Setup::toml(resource).and(limits)).await;
    let client = app.client().await;
    let code = client.authorize("bob", &[("scope", "create:todos")]).await;
    let tokens = Tokens::of(&client.redeem(&code.location_param("code").unwrap()).await);
    (app, tokens)
}

/// Proxies begin before they have heard how many requests may be open at once, and many assume a hundred.
#[tokio::test]
async fn a_burst_before_the_settings_were_heard_costs_no_request_that_was_taken() {
    const REFUSED_STREAM: u32 = 7;
    let app = TestApp::start().await;
    let mut frames = Frames(raw::connect(&app.url).await);
    let mut burst = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    burst.extend(frame(SETTINGS, 0, 0, &[]));
    let streams: Vec<u32> = (1..).step_by(2).take(250).collect();
    let headers = packed(&post(&app, "/token"));
    for stream in &streams {
        burst.extend(frame(HEADERS, END_HEADERS, *stream, &headers));
    }
    frames.write(&burst).await;
    for stream in &streams[..64] {
        frames.write(&frame(DATA, END_STREAM, *stream, b"grant_type=none")).await;
    }

    let (mut answered, mut refused) = (0, 0);
    while answered + refused < streams.len() {
        let frame = frames.until(|frame| [HEADERS, RST_STREAM, GOAWAY].contains(&frame.kind)).await;
        match frame.expect("the connection goes on") {
            frame if frame.kind == HEADERS => answered += 1,
            frame if frame.kind == RST_STREAM => {
                assert_eq!(frame.code(), REFUSED_STREAM);
                refused += 1;
            }
            frame => panic!("the whole connection ends: {}", frame.code()),
        }
    }
    assert_eq!(answered, 64);
}

/// A body that an MCP server does not take must not fill the window that everybody's bodies share.
#[tokio::test]
async fn gw_03_bodies_that_nobody_takes_hold_up_no_other_request_of_the_connection() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let limits = "[limits]\ngateway_body = 67108864";
    let (app, tokens) = before(listener.local_addr().unwrap(), limits).await;
    let asleep = tokio::spawn(async move {
        let mut taken = Vec::new();
        while let Ok((connection, _)) = listener.accept().await {
            taken.push(connection); // and nothing is ever read
        }
    });
    let client = client();
    let (mut stuck, body) = (Vec::new(), Bytes::from(vec![b' '; 33_554_432]));
    for _ in 0..16 {
        let request = Request::post(app.mcp_url())
            .header("authorization", format!("Bearer {}", tokens.access_token))
            .header("content-type", "application/json")
            .body(Full::new(body.clone()))
            .unwrap();
        stuck.push(tokio::spawn(client.request(request)));
    }
    // As long as anything still moves.
    tokio::time::sleep(Duration::from_secs(2)).await;

    let form = "grant_type=refresh_token&client_id=nobody&refresh_token=x".repeat(50);
    let request = Request::post(app.at("/token"))
        .header("content-type", "application/x-www-form-urlencoded")
        .body(Full::new(Bytes::from(form)))
        .unwrap();
    let answer = tokio::time::timeout(Duration::from_secs(5), client.request(request)).await;

    let answer = answer.expect("it is answered meanwhile").unwrap();
    assert_eq!(answer.status(), 400);
    stuck.iter().for_each(tokio::task::JoinHandle::abort);
    asleep.abort();
}

/// Of a large answer, something must be taken in time; not all of it.
#[tokio::test]
async fn ds_04_an_answer_that_is_taken_slowly_and_steadily_arrives_whole() {
    const WINDOW_UPDATE: u8 = 8;
    const LENGTH: usize = 300_000;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let limits = "[limits]\nbody_time = \"1s\"";
    let (app, tokens) = before(listener.local_addr().unwrap(), limits).await;
    tokio::spawn(async move {
        let (mut connection, _) = listener.accept().await.unwrap();
        let _ = connection.read(&mut [0; 4096]).await.unwrap();
        let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: ";
        let answer = format!("{head}{LENGTH}\r\n\r\n{}", "x".repeat(LENGTH));
        connection.write_all(answer.as_bytes()).await.unwrap();
        std::future::pending::<()>().await;
    });
    let mut frames = Frames::open(&app, &[(4, 16_384)]).await;
    let bearer = format!("Bearer {}", tokens.access_token);
    let mut headers = post(&app, "/mcp");
    headers.extend([("authorization", bearer.as_str()), ("content-type", "application/json")]);
    frames.ask(1, &headers, false).await;
    frames.write(&frame(DATA, END_STREAM, 1, br#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#)).await;
    assert_eq!(frames.answer(1).await, Ok(200));

    let (mut taken, start) = (0, Instant::now());
    while taken < LENGTH {
        let frame_ = frames.until(|frame| frame.stream == 1).await.expect("the connection goes on");
        assert_eq!(frame_.kind, DATA, "after {taken} bytes: {}", frame_.code());
        taken += frame_.payload.len();
        // The clock of sockets is the system's: no hand moves it.
        tokio::time::sleep(Duration::from_millis(200)).await;
        let more = u32::try_from(frame_.payload.len()).unwrap().to_be_bytes();
        frames.write(&frame(WINDOW_UPDATE, 0, 1, &more)).await;
        frames.write(&frame(WINDOW_UPDATE, 0, 0, &more)).await;
    }
    assert!(start.elapsed() > Duration::from_secs(2));
}

/// GW-08: what comes behind the body passes by no list, so it does not pass.
#[tokio::test]
async fn gw_08_what_follows_the_body_of_an_answer_is_left_out() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (app, tokens) = before(listener.local_addr().unwrap(), "").await;
    tokio::spawn(async move {
        loop {
            let (mut connection, _) = listener.accept().await.unwrap();
            let _ = connection.read(&mut [0; 4096]).await.unwrap();
            let answer = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTrailer: Set-Cookie\r\n\
                Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\nSet-Cookie: a=b\r\nX-Late: 1\r\n\r\n";
            connection.write_all(answer.as_bytes()).await.unwrap();
        }
    });
    let request = Request::post(app.mcp_url())
        .header("authorization", format!("Bearer {}", tokens.access_token))
        .header("content-type", "application/json")
        .header("te", "trailers")
        .body(Full::new(Bytes::from(r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#)))
        .unwrap();

    let answer = client().request(request).await.unwrap();

    assert_eq!(answer.status(), 200);
    let answer = answer.into_body().collect().await.unwrap();
    assert_eq!(answer.trailers(), None);
    assert_eq!(answer.to_bytes(), "{}");
}

/// Some proxies take a reset for the end of everything, and their client never reads why it was refused.
#[tokio::test]
async fn a_refusal_is_not_taken_back_while_the_body_is_still_on_its_way() {
    const NO_ERROR: u32 = 0;
    let app = TestApp::start().await;
    let body = |flags| frame(DATA, flags, 1, &[b'x'; 16_000]);
    let refused = async || {
        let mut frames = Frames::open(&app, &[]).await;
        frames.ask(1, &post(&app, "/token"), false).await;
        frames.write(&[body(0), body(0)].concat()).await;
        assert_eq!(frames.answer(1).await, Ok(413));
        frames.until(|frame| frame.stream == 1 && frame.flags & END_STREAM != 0).await.unwrap();
        frames
    };
    let mut goes_on = refused().await;
    // As much as fits into the window without another word.
    goes_on.write(&body(0)).await;
    goes_on.write(&body(END_STREAM)).await;
    goes_on.write(&frame(PING, 0, 0, &[7; 8])).await;
    loop {
        let frame = goes_on.read().await.expect("the connection goes on");
        assert!(frame.kind != RST_STREAM && frame.kind != GOAWAY, "{frame:?}");
        if frame.kind == PING {
            break;
        }
    }
    let health = get(&app, "/health");
    goes_on.ask(3, &health, true).await;
    assert_eq!(goes_on.answer(3).await, Ok(200));

    // But not for ever.
    let (mut stays, start) = (refused().await, Instant::now());
    let reset = stays.until(|frame| frame.kind == RST_STREAM).await.unwrap();
    assert_eq!((reset.stream, reset.code()), (1, NO_ERROR));
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
}
