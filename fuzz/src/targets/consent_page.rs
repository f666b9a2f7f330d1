//! F13: the consent page, with anything in the places of its texts.

use std::borrow::Cow;
use std::sync::OnceLock;

use axum::body::Body;
use futures_util::FutureExt;
use html5gum::{Token, Tokenizer};
use http_body_util::BodyExt;
use portcullis::config::UNBRANDED;
use portcullis::oauth::client_name::DisplayName;
use portcullis::oauth::redirect_uri::Destination;
use portcullis::web::pages::{ConsentPage, PageFrame, ScopeLine, Standing};
use portcullis::web::words::Language;

/// The first byte chooses the kind of page; the lines after it are the texts.
struct Texts<'a> {
    kind: u8,
    lines: Vec<Cow<'a, str>>,
}

impl Texts<'_> {
    fn line(&self, at: usize) -> &str {
        self.lines.get(at).map_or("x", |line| line)
    }
}

fn render(texts: &Texts<'_>) -> String {
    let bit = |at: u8| texts.kind & (1 << at) != 0;
    let host = texts.line(1).to_owned();
    // Whether a label is punycode decides on a warning of ours, and belongs to the skeleton.
    let punycode = bit(2);
    let destination = match texts.kind % 3 {
        0 => Destination::Https { host, punycode },
        1 => Destination::Loopback { host_and_port: host },
        _ => Destination::App { scheme: host },
    };
    let publisher = texts.line(3).replace("xn--", "");
    let page = ConsentPage {
        frame: PageFrame {
            language: if bit(3) { Language::Japanese } else { Language::English },
            base: "",
            offers_languages: bit(6),
            brand: &UNBRANDED,
            for_people: true,
        },
        destination: &destination,
        redirect_uri: texts.line(2),
        verified: bit(4),
        publisher: bit(5).then_some(publisher.as_str()),
        registered_itself: bit(6),
        client_name: Some(texts.line(0)),
        name_suspicious: bit(7),
        client_id: texts.line(4),
        resource_name: Some(texts.line(5)),
        resource: texts.line(6),
        scopes: &[
            ScopeLine {
                scope: texts.line(7),
                text: Some(texts.line(8)),
                standing: Standing::New,
                destructive: bit(6),
                choice: bit(1),
            },
            ScopeLine {
                scope: "s",
                text: None,
                standing: Standing::IncludedIn(texts.line(7)),
                destructive: bit(1),
                choice: false,
            },
        ],
        services: &[],
        asked_for_unknown: bit(2),
        offers_another_account: bit(1),
        identity_provider: texts.line(9),
        account: "https://mcp.example.com/account",
        request: texts.line(10),
    };
    let body = page.render().into_body();
    let body = Body::new(body).collect().now_or_never().expect("a page is at hand").expect("whole");
    String::from_utf8(body.to_bytes().to_vec()).expect("a page is text")
}

/// Tags with their attributes, in order, and the texts between them. The values of inputs carry
/// texts of the page and are told apart.
fn read(html: &str) -> (Vec<String>, Vec<String>) {
    let (mut skeleton, mut texts) = (Vec::new(), Vec::new());
    // The style sheet stands before every text of a page, and is long.
    let (head, rest) = html.split_once("<style>").expect("a page has a style sheet");
    let (_, body) = rest.split_once("</style>").expect("a style sheet ends");
    for token in Tokenizer::new(head).chain(Tokenizer::new(body)) {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        match token.expect("the tokenizer reads everything") {
            Token::StartTag(tag) => {
                let name = text(&tag.name);
                let mut shape = format!("<{name}");
                for (attribute, value) in &tag.attributes {
                    let value = text(value);
                    if name == "input" && &***attribute == b"value" {
                        texts.push(value);
                        shape.push_str(" value");
                    } else {
                        shape = format!("{shape} {}={value:?}", text(attribute));
                    }
                }
                skeleton.push(shape);
            }
            Token::EndTag(tag) => skeleton.push(format!("</{}", text(&tag.name))),
            Token::String(string) => texts.push(text(&string)),
            Token::Comment(comment) => skeleton.push(format!("<!--{}", text(&comment))),
            Token::Doctype(_) => skeleton.push("<!doctype".to_owned()),
            Token::Error(_) => {}
        }
    }
    (skeleton, texts)
}

/// The pages with nothing hostile in them, by kind.
static GOLDEN: [OnceLock<Vec<String>>; 256] = [const { OnceLock::new() }; 256];

/// Contradicted when a text changes anything but the text in its own place.
pub fn run(data: &[u8]) {
    let Some((kind, rest)) = data.split_first() else { return };
    let kind = *kind;
    let mut lines: Vec<Cow<'_, str>> =
        rest.split(|byte| *byte == b'\n').map(String::from_utf8_lossy).collect();
    if rest.len() % 2 == 0 {
        // As it really goes: a name is made fit to be shown first.
        lines[0] = DisplayName::of(Some(&lines[0])).text.unwrap_or_default().into();
    }
    let texts = Texts { kind, lines };
    let (skeleton, read_texts) = read(&render(&texts));
    let golden = GOLDEN[usize::from(kind)]
        .get_or_init(|| read(&render(&Texts { kind, lines: Vec::new() })).0);
    assert_eq!(&skeleton, golden, "{:?}", texts.lines);
    let settled = |text: &str| {
        // What a reader of HTML makes of characters that it does not keep.
        text.replace("\r\n", "\n").replace('\r', "\n").replace(['\0', '\u{fffd}'], "")
    };
    let whole = settled(&read_texts.join(""));
    for at in [0, 2, 4, 6, 7, 9, 10] {
        let expected = settled(texts.line(at));
        assert!(whole.contains(&expected), "{expected:?} is not on the page");
    }
}
