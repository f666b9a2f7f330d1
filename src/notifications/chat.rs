//! Messages to Slack, Microsoft Teams and Discord: threat NT-05.
//!
//! A client chooses its own name, and chats read names as commands: `<!channel>` and `@everyone` call everybody,
//! and marks make links. So the text is sent as plain text, or the marks are escaped.

use serde_json::{Value, json};

use super::message::Notification;

/// Most characters of a message to Discord, which refuses longer ones: 2,000.
const LONGEST_DISCORD: usize = 2_000;

/// An incoming webhook of Slack. Only `&`, `<` and `>` have a meaning there that reaches beyond how a text looks:
/// escaped, they call nobody and make no link (docs.slack.dev, "Formatting message text").
pub(super) fn slack(message: &Notification) -> Value {
    let escaped = message.text().replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    json!({ "text": escaped, "link_names": false, "unfurl_links": false, "unfurl_media": false })
}

/// A workflow "when a Teams webhook request is received": an adaptive card. Its runs of text know no Markdown, and
/// a mention would need an entity that we do not send.
pub(super) fn teams(message: &Notification) -> Value {
    let line = |text: &str| {
        json!({
            "type": "RichTextBlock",
            "inlines": [{ "type": "TextRun", "text": text }],
        })
    };
    let mut body = vec![
        json!({
            "type": "TextBlock",
            "text": message.title(),
            "weight": "Bolder",
            "size": "Medium",
            "wrap": true,
        }),
        line(message.meaning()),
    ];
    body.extend(message.details().iter().map(|text| line(text)));
    body.push(line(&format!("Portcullis at {}", message.issuer)));
    let open = |link: &String| json!({ "type": "Action.OpenUrl", "title": "Open the admin page", "url": link });
    json!({
        "type": "message",
        "attachments": [{
            "contentType": "application/vnd.microsoft.card.adaptive",
            "contentUrl": null,
            "content": {
                "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
                "type": "AdaptiveCard",
                "version": "1.4",
                "msteams": { "width": "Full" },
                "body": body,
                "actions": message.link.iter().map(open).collect::<Vec<_>>(),
            },
        }],
    })
}

/// A webhook of Discord. No mention is allowed, no preview is made (flag 4), and marks of Markdown are escaped.
pub(super) fn discord(message: &Notification) -> Value {
    let mut lines = vec![format!("**{}**", message.title()), message.meaning().to_owned()];
    lines.extend(message.details().iter().map(|line| escaped(line)));
    lines.extend(message.link.as_ref().map(|link| format!("<{link}>")));
    lines.push(escaped(&format!("Portcullis at {}", message.issuer)));
    let text: String = lines.join("\n").chars().take(LONGEST_DISCORD).collect();
    json!({ "content": text, "allowed_mentions": { "parse": [] }, "flags": 4 })
}

/// Puts a backslash before each mark of Discord's Markdown.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        if matches!(c, '\\' | '*' | '_' | '~' | '`' | '|' | '>' | '<' | '[' | ']' | '#' | '@' | ':')
        {
            escaped.push('\\');
        }
        escaped.push(c);
    }
    escaped
}
