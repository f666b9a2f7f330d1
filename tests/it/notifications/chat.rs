//! Messages to Slack, Teams and Discord: their formats, and names that would be commands there (threat NT-05).

use serde_json::Value;

use super::{begins_to_wait, waiting};
use crate::harness::TestApp;
use crate::harness::recorder::Recorder;

/// What a chat receives when this client begins to wait, for a person of this name.
async fn sent_to(kind: &str, client: &str, person: &str) -> (Value, TestApp) {
    let hook = Recorder::start().await;
    let table = format!(
        "[[notify]]\nname = \"chat\"\nkind = {kind:?}\nurl = {:?}\nallow_private = true\n",
        hook.url("/services/x")
    );
    let app = TestApp::with(waiting().and(table)).await;
    app.idp.set_name("bob", person);
    begins_to_wait(&app, client).await;
    let request = hook.next().await;
    assert_eq!(request.header("webhook-signature"), None, "there is no key to sign with");
    (request.json(), app)
}

const CLIENT: &str = "<!channel> @everyone [free](https://evil.example)";
const PERSON: &str = "<!here|x> <@U1> @everyone [free](https://evil.example) *b*";

#[tokio::test]
async fn nt_05_slack_calls_nobody_whatever_a_client_or_person_is_called() {
    let (json, app) = sent_to("slack", CLIENT, PERSON).await;
    let text = json["text"].as_str().unwrap();
    assert!(text.starts_with("A client waits for approval\n"), "{text}");
    assert!(text.contains("&lt;!here|x&gt; &lt;@U1&gt;"), "{text}");
    assert!(!text.contains(['<', '>']), "{text}");
    assert_eq!(json["link_names"], false);
    assert!(text.contains(&format!("{}/client?id=", app.admin_url)), "{text}");
}

#[tokio::test]
async fn nt_05_discord_calls_nobody_whatever_a_client_or_person_is_called() {
    let (json, _app) = sent_to("discord", CLIENT, PERSON).await;
    assert_eq!(json["allowed_mentions"], serde_json::json!({ "parse": [] }));
    assert_eq!(json["flags"], 4);
    let text = json["content"].as_str().unwrap();
    assert!(text.starts_with("**A client waits for approval**\n"), "{text}");
    assert!(
        text.contains("\\<\\@U1\\> \\@everyone \\[free\\](https\\://evil.example) \\*b\\*"),
        "{text}"
    );
    assert!(text.chars().count() <= 2_000);
}

#[tokio::test]
async fn nt_05_teams_gets_a_card_without_markdown() {
    let (json, app) = sent_to("teams", CLIENT, PERSON).await;
    assert_eq!(json["type"], "message");
    let attachment = &json["attachments"][0];
    assert_eq!(attachment["contentType"], "application/vnd.microsoft.card.adaptive");
    let card = &attachment["content"];
    assert_eq!((&card["type"], &card["version"]), (&"AdaptiveCard".into(), &"1.4".into()));
    let body = card["body"].as_array().unwrap();
    // The title is ours. Whatever has names is a run of text, which knows no Markdown.
    assert_eq!(body[0]["text"], "A client waits for approval");
    for block in &body[1..] {
        assert_eq!(block["type"], "RichTextBlock");
        assert_eq!(block["inlines"][0]["type"], "TextRun");
    }
    let whole = card["body"].to_string();
    assert!(whole.contains("[free](https://evil.example)"), "{whole}");
    assert!(card.get("entities").is_none() && card["msteams"].get("entities").is_none());
    let link = card["actions"][0]["url"].as_str().unwrap();
    assert!(link.starts_with(&format!("{}/client?id=", app.admin_url)), "{link}");
}
