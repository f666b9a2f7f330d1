//! What strangers make us fetch must not tell them which names exist inside: a name of the private
//! network, one that nobody has, and a server that does not answer look alike from outside.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::time::Instant;

use crate::harness::client::{McpClient, REDIRECT_URI};
use crate::harness::http::Answer;
use crate::harness::publisher::{Page, Publisher};
use crate::harness::signer::Signer;
use crate::harness::{Setup, TestApp, logs};

const CALLBACK: &str = "https://client.example/callback";
const REFRESH: [(&str, &str); 2] = [("grant_type", "refresh_token"), ("refresh_token", "rt_x")];

/// Names, and what they resolve to: inside, in every disguise.
const INSIDE: [(&str, &str); 6] = [
    ("payroll.corp.example", "10.0.0.5"),
    ("metadata.corp.example", "169.254.169.254"),
    ("db.corp.example", "[fd00::5]"),
    ("mapped.corp.example", "[::ffff:192.168.1.1]"),
    ("nat64.corp.example", "[64:ff9b::a00:5]"),
    ("shared.corp.example", "100.64.0.1"),
];
/// Nobody has this name.
const UNKNOWN: &str = "nobody.corp.example";
/// A server that refuses connections.
const CLOSED: &str = "closed.corp.example";
/// A server that says nothing.
const SILENT: &str = "silent.corp.example";

fn everybody() -> Vec<&'static str> {
    INSIDE.iter().map(|(name, _)| *name).chain([UNKNOWN, CLOSED, SILENT]).collect()
}

/// A server that can reach these names, as far as they are there.
async fn among_names(publisher: Option<&Publisher>) -> (TestApp, TcpListener) {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let mut setup = match publisher {
        Some(publisher) => publisher.setup(""),
        None => Setup::default(),
    };
    if publisher.is_none() {
        let nobody = Publisher::start(&[]).await;
        setup = nobody.setup_by_name(&format!(
            "unsafe_loopback_hosts = {{ {CLOSED:?} = \"{closed}\", {SILENT:?} = \"{}\" }}",
            silent.local_addr().unwrap()
        ));
        setup.resolves = INSIDE.to_vec();
        return (TestApp::with(setup).await, silent);
    }
    setup.resolves = INSIDE.to_vec();
    (TestApp::with(setup).await, silent)
}

/// What a stranger sees of an answer, but for the number that every page has of its own.
fn seen(answer: &Answer) -> (u16, String) {
    let reference = regex_lite::Regex::new("<p class=\"reference\">.*</p>").unwrap();
    (answer.status.as_u16(), reference.replace_all(answer.text(), "").into_owned())
}

async fn ask(app: &TestApp, id: &str) -> Answer {
    let client = McpClient::known_as(app, id, CALLBACK);
    client.browser.get(&client.authorize_url(&[])).await
}

/// Every answer is the same, and none comes at once.
fn assert_alike(answers: &[(&str, Answer, Duration)]) {
    let (first, expected, _) = &answers[0];
    for (name, answer, took) in answers {
        assert_eq!(seen(answer), seen(expected), "{name} differs from {first}");
        assert!(*took >= Duration::from_millis(1900), "{name} was answered after {took:?}");
    }
}

#[tokio::test]
async fn a_stranger_cannot_tell_which_names_exist_inside() {
    let (app, _silent) = among_names(None).await;
    for door in ["/authorize", "/token"] {
        let answers = everybody().into_iter().map(|name| {
            let app = &app;
            async move {
                let begun = Instant::now();
                let id = format!("https://{name}{door}");
                let answer = match door {
                    "/authorize" => ask(app, &id).await,
                    _ => McpClient::known_as(app, &id, CALLBACK).token(&REFRESH).await,
                };
                (name, answer, begun.elapsed())
            }
        });
        let answers = futures_util::future::join_all(answers).await;
        assert_eq!(answers[0].1.status, 503);
        assert_alike(&answers);
    }
    // Asked again at once, the answer is remembered for all of them alike.
    for name in everybody() {
        let id = format!("https://{name}/authorize");
        assert_eq!(ask(&app, &id).await.status, 503, "{name}");
    }
    // The administrator reads the reason.
    assert!(logs::all().contains("has an address that is not public"));
}

/// Two who ask at the same time get their answers at the same time.
#[tokio::test]
async fn asking_twice_at_once_is_no_faster() {
    let (app, _silent) = among_names(None).await;
    let id = "https://payroll.corp.example/c";
    let begun = Instant::now();
    let (one, two) = tokio::join!(ask(&app, id), ask(&app, id));
    assert_eq!(seen(&one), seen(&two));
    assert!(begun.elapsed() >= Duration::from_millis(1900));
}

#[tokio::test]
async fn the_address_of_a_clients_keys_tells_no_more_than_the_address_of_its_document() {
    let (app, _silent) = among_names(None).await;
    let signer = Signer::new("one");
    let answers = everybody().into_iter().map(|name| {
        let (app, signer) = (&app, &signer);
        async move {
            // Registering resolves nothing: it is the same whatever the name is.
            let metadata = json!({
                "client_name": "Signer", "redirect_uris": [REDIRECT_URI],
                "token_endpoint_auth_method": "private_key_jwt",
                "jwks_uri": format!("https://{name}/jwks"),
                "logo_uri": format!("https://{name}/logo.png"),
                "client_uri": format!("https://{name}/"),
                "policy_uri": format!("https://{name}/policy"),
                "tos_uri": format!("https://{name}/terms"),
            });
            let client = McpClient::register_as(app, metadata).await;
            let begun = Instant::now();
            let answer = signer.token(app, &client, &REFRESH).await;
            (name, answer, begun.elapsed())
        }
    });
    let answers = futures_util::future::join_all(answers).await;
    assert_eq!(answers[0].1.status, 503);
    assert_alike(&answers);
}

/// The keys of a published client: its document comes from outside, and names an address inside.
#[tokio::test]
async fn a_document_that_names_keys_inside_tells_nothing_either() {
    let publisher = Publisher::start(&["client.example"]).await;
    let (app, _silent) = among_names(Some(&publisher)).await;
    let signer = Signer::new("one");
    let names = INSIDE.iter().map(|(name, _)| *name).chain([UNKNOWN]);
    let answers = names.enumerate().map(|(number, name)| {
        let id = format!("https://client.example/{number}");
        publisher.publish(
            &id,
            &json!({
                "client_id": id, "client_name": "Signer", "redirect_uris": [CALLBACK],
                "token_endpoint_auth_method": "private_key_jwt",
                "jwks_uri": format!("https://{name}/jwks"),
            }),
        );
        let (app, signer) = (&app, &signer);
        async move {
            let client = McpClient::known_as(app, &id, CALLBACK);
            let begun = Instant::now();
            let answer = signer.token(app, &client, &REFRESH).await;
            (name, answer, begun.elapsed())
        }
    });
    let answers = futures_util::future::join_all(answers).await;
    assert_eq!(answers[0].1.status, 503);
    assert_alike(&answers);
}

/// Registration itself: nothing that a client registers is resolved, let alone fetched.
#[tokio::test]
async fn registering_resolves_no_name() {
    let (app, silent) = among_names(None).await;
    for name in everybody() {
        for member in ["logo_uri", "client_uri", "policy_uri", "tos_uri", "jwks_uri"] {
            let mut metadata = json!({
                "client_name": "x", "redirect_uris": [REDIRECT_URI],
                "token_endpoint_auth_method": "none",
            });
            if member == "jwks_uri" {
                metadata["token_endpoint_auth_method"] = "private_key_jwt".into();
            }
            metadata[member] = format!("https://{name}/{member}").into();
            let begun = Instant::now();
            let answer = app.http.post_json(&app.at("/register"), &metadata, &[]).await;
            if answer.status != 429 {
                answer.assert_status(201);
            }
            assert!(begun.elapsed() < Duration::from_secs(2), "{name} {member}");
        }
    }
    let knocked = futures_util::FutureExt::now_or_never(silent.accept());
    assert!(knocked.is_none(), "somebody connected");
}

/// A redirect is refused for what it is, wherever it leads.
#[tokio::test]
async fn a_redirect_tells_nothing_of_where_it_leads() {
    let publisher = Publisher::start(&["client.example"]).await;
    let (app, _silent) = among_names(Some(&publisher)).await;
    let mut answers = Vec::new();
    for (number, name) in everybody().into_iter().chain(["other.example"]).enumerate() {
        app.advance(60); // a website is asked so often a minute
        let id = format!("https://client.example/{number}");
        publisher.answer(&id, Page::status(302).with("location", &format!("https://{name}/c")));
        answers.push((name, seen(&ask(&app, &id).await)));
    }
    assert!(answers.iter().all(|(_, seen)| *seen == answers[0].1), "{answers:?}");
}

/// Whoever owns a website that was read before can lead its name inside as well: its last copy serves, and
/// no sooner than any other answer of that kind.
#[tokio::test]
async fn a_client_that_was_good_before_tells_no_more() {
    const ID: &str = "https://client.example/oauth/client.json";
    let mut publisher = Publisher::start(&["client.example"]).await;
    let document: Value =
        json!({ "client_id": ID, "client_name": "Known", "redirect_uris": [CALLBACK] });
    publisher.publish(ID, &document);
    let (mut app, _silent) = among_names(Some(&publisher)).await;
    McpClient::known_as(&app, ID, CALLBACK).sign_in("bob").await;
    publisher.stop().await;
    for restarted in [false, true] {
        if restarted {
            app.restart().await;
        }
        app.advance(60 * 60);
        let begun = Instant::now();
        assert_eq!(ask(&app, ID).await.status, 200, "restarted: {restarted}");
        assert!(begun.elapsed() >= Duration::from_millis(1900), "restarted: {restarted}");
        let begun = Instant::now();
        assert_eq!(ask(&app, ID).await.status, 200, "restarted: {restarted}");
        assert!(begun.elapsed() < Duration::from_millis(1500), "it is not asked again so soon");
    }
}
