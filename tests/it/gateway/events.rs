//! Ids of events and sessions, as clients hold them: of use to their holder only, and the same each time.

use serde_json::json;

use crate::harness::TestApp;
use crate::harness::backend::{Backend, PURGE, answer, answer_events, post, request, send, tokens};
use crate::harness::client::{McpClient, Tokens};

const LISTEN: (&str, &str) = ("accept", "text/event-stream");

async fn listen(
    app: &TestApp,
    tokens: &Tokens,
    last: Option<&str>,
) -> crate::harness::http::Answer {
    let mut headers = vec![LISTEN];
    headers.extend(last.map(|last| ("last-event-id", last)));
    send(app, tokens, "GET", &headers, "").await
}

/// The ids of a stream, as a client reads them.
fn ids(text: &str) -> Vec<String> {
    text.split(['\r', '\n'])
        .filter_map(|line| line.trim_start_matches('\u{feff}').strip_prefix("id:"))
        .map(|id| id.strip_prefix(' ').unwrap_or(id).to_owned())
        .collect()
}

#[tokio::test]
async fn gw_22_an_event_id_is_of_use_to_its_holder_only() {
    let backend = Backend::start().await;
    backend.answers(|seen| match seen.method.as_str() {
        "GET" => answer_events("id: stream-1_7\ndata: {}\n\nid: stream-1_8\ndata: {}\n\n", 1000),
        _ => answer_events("id: call-2_1\ndata: {\"id\":1,\"result\":{}}\n\n", 1000),
    });
    // With and without rules that read bodies, and on the older transport.
    let filtered = "hide_forbidden_tools = true";
    for (extra, rules) in
        [("", ""), ("", PURGE), (filtered, PURGE), ("transport = \"http+sse\"", "")]
    {
        let app = backend.behind(extra, rules).await;
        let (client, bobs) = tokens(&app, "bob").await;
        let (_, alices) = tokens(&app, "alice").await;
        let metadata = json!({
            "client_name": "Other", "redirect_uris": [client.redirect_uri],
            "token_endpoint_auth_method": "none",
        });
        let other = McpClient::register_as(&app, metadata).await;
        let back = other.authorize("bob", &[("scope", "")]).await;
        let other = Tokens::of(&other.redeem(&back.location_param("code").unwrap()).await);

        let heard = listen(&app, &bobs, None).await;
        let held = ids(heard.assert_status(200).text());
        assert_eq!(held.len(), 2, "{}", heard.text());
        assert!(!heard.text().contains("stream-1"), "{}", heard.text());
        assert!(held.iter().all(|id| id.len() < 100), "{held:?}");
        backend.take();
        // Its holder resumes, and the server reads its own id.
        listen(&app, &bobs, Some(&held[0])).await.assert_status(200);
        assert_eq!(backend.take()[0].header("last-event-id"), Some("stream-1_7"));
        if !extra.contains("sse") {
            let call = request("ping", &json!({}));
            let heard = post(&app, &bobs, &[LISTEN], &call).await;
            let held = ids(heard.assert_status(200).text());
            backend.take();
            listen(&app, &bobs, Some(&held[0])).await.assert_status(200);
            assert_eq!(backend.take()[0].header("last-event-id"), Some("call-2_1"));
        }
        for stranger in [&alices, &other] {
            listen(&app, stranger, Some(&held[0])).await.assert_status(400);
        }
        let longer = format!("{}x", held[0]);
        let swapped = held[0].chars().rev().collect::<String>();
        for made_up in ["stream-1_7", "7", "x", &longer, &swapped, &"A".repeat(5000)] {
            let refused = listen(&app, &bobs, Some(made_up)).await;
            assert!(refused.json()["error"]["code"].is_i64(), "{made_up}: {}", refused.text());
            assert_eq!(refused.status, 400, "{made_up}");
        }
        let twice = [LISTEN, ("last-event-id", &held[0]), ("last-event-id", &held[1])];
        send(&app, &bobs, "GET", &twice, "").await.assert_status(400);
        assert!(backend.take().is_empty());
        // An empty one says that there was none.
        listen(&app, &bobs, Some("")).await.assert_status(200);
        assert_eq!(backend.take()[0].header("last-event-id"), None);
    }
}

#[tokio::test]
async fn gw_22_a_session_id_is_no_event_id_and_an_event_id_no_session_id() {
    let backend = Backend::start().await;
    backend.answers(|_| {
        let headers = [("content-type", "text/event-stream"), ("mcp-session-id", "same")];
        answer(200, &headers, "id: same\ndata: {}\n\n")
    });
    let app = backend.behind("", "").await;
    let (_, tokens) = tokens(&app, "bob").await;
    let heard = listen(&app, &tokens, None).await;
    let session = heard.header("mcp-session-id").unwrap();
    let event = &ids(heard.text())[0];
    assert_ne!(session, event);
    listen(&app, &tokens, Some(session)).await.assert_status(400);
    send(&app, &tokens, "GET", &[LISTEN, ("mcp-session-id", event)], "").await.assert_status(404);
}

#[tokio::test]
async fn an_event_has_one_id_each_time_and_everything_else_passes_as_it_is() {
    let backend = Backend::start().await;
    let app = backend.behind("", "").await;
    let (_, tokens) = tokens(&app, "bob").await;
    let plain = "\u{feff}: hi\n\nevent: a\nid: 1\ndata: id: 1\n\ndata: 2\nid:2\n\nid\ndata: x\n\n\
                 id:\ndata: y\n\nidx: 3\nid : 4\n id: 5\nID: 6\ndata: i\n\nretry: 5\n\nid: 7\ndata: z";
    let mut first = None;
    for end in ["\n", "\r", "\r\n"] {
        let text = plain.replace('\n', end);
        for size in [1, 2, 3, 7, 1000] {
            let sent = text.clone();
            backend.answers(move |_| answer_events(&sent, size));
            let heard = listen(&app, &tokens, None).await;
            let held: Vec<String> =
                ids(heard.text()).into_iter().filter(|id| !id.is_empty()).collect();
            assert_eq!(held.len(), 3, "{end:?} {size}: {}", heard.text());
            assert_eq!(first.get_or_insert_with(|| held.clone()), &held, "{end:?} {size}");
            // With the plain ids put back, it is what was sent.
            let mut back = heard.text().to_owned();
            for (sealed, plain) in held.iter().zip(["1", "2", "7"]) {
                back = back.replace(&format!("id:{sealed}"), &format!("id:{plain}"));
                back = back.replace(&format!("id: {sealed}"), &format!("id: {plain}"));
            }
            let loose = |text: &str| text.replace("id: ", "id:");
            assert_eq!(loose(&back), loose(&text), "{end:?} {size}");
        }
    }
    // An id that no header could carry back is left out, and the event is not.
    let long = "y".repeat(20_000);
    let sent = format!("id: {long}\ndata: kept\n\n");
    backend.answers(move |_| answer_events(&sent, 700));
    let heard = listen(&app, &tokens, None).await;
    assert_eq!(heard.text(), ":\ndata: kept\n\n");
    // One with a zero byte is none at all (HTML Standard).
    backend.answers(|_| answer_events("id: a\0b\ndata: kept\n\n", 700));
    assert!(listen(&app, &tokens, None).await.text().ends_with("data: kept\n\n"));
}

#[tokio::test]
async fn gw_06_a_session_and_an_event_have_one_id_on_every_answer_and_every_replica() {
    let backend = Backend::start().await;
    backend.answers(|_| {
        let headers = [("content-type", "text/event-stream"), ("mcp-session-id", "s-1")];
        answer(200, &headers, "id: 9\ndata: {}\n\n")
    });
    let mut app = backend.behind("", "").await;
    let (_, bobs) = tokens(&app, "bob").await;
    let (_, alices) = tokens(&app, "alice").await;
    let held = async |app: &TestApp, url: &str, tokens: &Tokens| {
        let authorization = format!("Bearer {}", tokens.access_token);
        let headers = [("authorization", authorization.as_str()), LISTEN];
        let heard = app.http.send("GET", url, &headers, "").await;
        let session = heard.assert_status(200).header("mcp-session-id").unwrap().to_owned();
        (session, ids(heard.text()))
    };
    let url = app.mcp_url();
    let first = held(&app, &url, &bobs).await;
    assert_eq!(held(&app, &url, &bobs).await, first);
    assert_ne!(held(&app, &url, &alices).await.0, first.0, "another person has another id");
    if app.database.is_postgres() {
        let (replica, _stop) = app.replica().await;
        let elsewhere = format!("{replica}/mcp");
        assert_eq!(held(&app, &elsewhere, &bobs).await, first);
        // And it is of use there: the server reads its own id, and the client is answered with the same text.
        backend.take();
        let authorization = format!("Bearer {}", bobs.access_token);
        let headers = [
            ("authorization", authorization.as_str()),
            LISTEN,
            ("mcp-session-id", first.0.as_str()),
            ("last-event-id", first.1[0].as_str()),
        ];
        let heard = app.http.send("GET", &elsewhere, &headers, "").await;
        assert_eq!(heard.assert_status(200).header("mcp-session-id"), Some(first.0.as_str()));
        let seen = backend.take();
        assert_eq!(seen[0].header("mcp-session-id"), Some("s-1"));
        assert_eq!(seen[0].header("last-event-id"), Some("9"));
    }
    app.restart().await;
    assert_eq!(held(&app, &url, &bobs).await, first);
}
