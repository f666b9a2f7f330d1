use aws_lc_rs::digest;
use axum::body::Body;
use axum::http::StatusCode;
use axum::response::Response;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http_body_util::BodyExt;

use super::*;
use crate::config::UNBRANDED;
use crate::oauth::redirect_uri::Destination;
use crate::web::words::Language;

/// Inputs that a hostile client may send as names, scopes and addresses.
const HOSTILE: &[&str] = &[
    "<script>alert(1)</script>",
    "\"onmouseover=\"alert(1)",
    "' onfocus='alert(1)' autofocus='",
    "</style><style>*{}",
    "</title><meta http-equiv=refresh content=0>",
    "--><img src=x onerror=alert(1)>",
    "{{ 7*7 }}",
    "&lt;b&gt;&#x22;",
];

fn read(response: Response) -> (StatusCode, axum::http::HeaderMap, String) {
    let (parts, body) = response.into_parts();
    let body = futures_util::FutureExt::now_or_never(Body::new(body).collect()).unwrap().unwrap();
    (parts.status, parts.headers, String::from_utf8(body.to_bytes().to_vec()).unwrap())
}

fn consent(language: Language, text: &str, destination: &Destination) -> Response {
    ConsentPage {
        frame: PageFrame {
            language,
            base: "",
            brand: &UNBRANDED,
            for_people: true,
            offers_languages: true,
        },
        destination,
        redirect_uri: text,
        verified: false,
        publisher: Some(text),
        registered_itself: false,
        client_name: Some(text),
        name_suspicious: true,
        client_id: text,
        resource_name: Some(text),
        resource: text,
        scopes: &[
            ScopeLine {
                scope: text,
                text: Some(text),
                standing: Standing::New,
                destructive: true,
                choice: true,
            },
            ScopeLine {
                scope: text,
                text: None,
                standing: Standing::ApprovedBefore,
                destructive: false,
                choice: true,
            },
            ScopeLine {
                scope: text,
                text: None,
                standing: Standing::IncludedIn(text),
                destructive: true,
                choice: false,
            },
        ],
        services: &[
            ServiceUse { service: text, scopes: vec![text, text] },
            ServiceUse { service: text, scopes: Vec::new() },
        ],
        asked_for_unknown: true,
        offers_another_account: true,
        identity_provider: text,
        account: text,
        request: text,
    }
    .render()
}

fn messages<'a>(text: &'a str, missing: &'a [&'a str]) -> Vec<Message<'a>> {
    vec![
        Message::UnknownClient,
        Message::ClientDocumentRefused,
        Message::ClientDocumentsOff,
        Message::NoNetwork,
        Message::ClientDocumentUnavailable,
        Message::RedirectUriNotRegistered,
        Message::RedirectUriNotAllowed,
        Message::InvalidRequest { what: "code_challenge" },
        Message::UnknownResource,
        Message::ConsentExpired,
        Message::ConsentFromElsewhere,
        Message::AlreadyDecided,
        Message::NothingChosen,
        Message::LoginFromElsewhere,
        Message::LoginExpired,
        Message::LoginUsed,
        Message::SignedOutMeanwhile,
        Message::LoginNotTrusted,
        Message::NoAccess { person: Some(text), resource: text, missing },
        Message::NotAllowedMore { person: Some(text), missing },
        Message::RightsNotKnown,
        Message::ProviderUnavailable,
        Message::ProviderCannot,
        Message::ProviderEndedSignIn,
        Message::ProviderMisconfigured,
        Message::ServerError,
        Message::TemporarilyUnavailable,
        Message::NotFound,
        Message::MethodNotAllowed,
        Message::AskedTooOften { seconds: 20 },
        Message::NoSuchAdminPage,
        Message::TooMany { what: TooMany::ConsentPages, seconds: 61 },
        Message::TooMany { what: TooMany::SignIns, seconds: 1 },
        Message::RequestTooLarge,
        Message::ClientShutOut,
        Message::PersonBlocked,
        Message::FormFromElsewhere,
        Message::NotAnAdministrator,
        Message::LoginRefused,
        Message::WaitingOver,
        Message::ConnectUnknown,
        Message::ConnectNotForYou,
        Message::ConnectFromElsewhere,
        Message::ConnectExpired,
        Message::ConnectUsed,
        Message::TooMany { what: TooMany::Connects, seconds: 61 },
        Message::ServiceUnavailable,
        Message::ServiceMisconfigured,
        Message::ServiceNotTrusted,
    ]
}

fn waiting(frame: PageFrame<'_>, text: &str) -> Response {
    WaitingPage {
        frame,
        destination: &Destination::Https { host: text.to_owned(), punycode: false },
        client_name: Some(text),
        server: text,
        since: text,
        minutes: 3,
        until: text,
        notified: true,
        id: text,
    }
    .render()
}

fn landing(frame: PageFrame<'_>, text: &str, person: Option<&str>) -> Response {
    let server = ConnectableServer {
        name: Some(text.to_owned()),
        url: text.to_owned(),
        key: text.to_owned(),
        cursor: text.to_owned(),
        vscode: text.to_owned(),
    };
    LandingPage {
        frame,
        of_server: person.is_none(),
        servers: &[server],
        person,
        only_here: true,
        identity_provider: text,
    }
    .render(StatusCode::OK)
}

fn connect(frame: PageFrame<'_>, text: &str, standing: ConnectStanding) -> Response {
    ConnectPage {
        frame,
        standing,
        service: text,
        person: text,
        news: ConnectNews { refused: true, partial: true, other_account: true },
        server: Some(ConnectServer { name: text, id: text }),
        account: Some(text),
        scopes: &[text, text],
        servers: &[text],
        name: "github",
        csrf: text,
    }
    .render()
}

fn all_pages(text: &str) -> Vec<(String, Response)> {
    let destinations = [
        ("https", Destination::Https { host: text.to_owned(), punycode: true }),
        ("loopback", Destination::Loopback { host_and_port: text.to_owned() }),
        ("app", Destination::App { scheme: text.to_owned() }),
    ];
    let mut pages = Vec::new();
    for language in Language::ALL {
        let lang = language.tag();
        for (name, destination) in &destinations {
            pages.push((format!("consent-{name}-{lang}"), consent(language, text, destination)));
        }
        for message in messages(text, &[text, text]) {
            let name = format!("{message:?}");
            let name = name.split_whitespace().next().unwrap().to_owned();
            let page = MessagePage {
                frame: PageFrame {
                    language,
                    base: "",
                    brand: &UNBRANDED,
                    for_people: true,
                    offers_languages: true,
                },
                message,
                reference: Some(text),
                return_to: Some(ReturnLink { url: text, name: Some(text), host_label: text }),
                repeat: Repeat {
                    request: Some(text),
                    page: None,
                    sign_in: None,
                    reload: true,
                    other_account: None,
                    may_choose: true,
                },
            };
            pages.push((format!("{name}-{lang}"), page.render()));
        }
        let frame = PageFrame {
            language,
            base: "",
            brand: &UNBRANDED,
            for_people: true,
            offers_languages: true,
        };
        pages.push((format!("waiting-{lang}"), waiting(frame, text)));
        pages.push((format!("landing-{lang}"), landing(frame, text, Some(text))));
        pages.push((format!("server-{lang}"), landing(frame, text, None)));
        for (name, standing) in [
            ("connect", ConnectStanding::First),
            ("connect_more", ConnectStanding::More),
            ("connect_again", ConnectStanding::Again),
            ("connected", ConnectStanding::Done),
        ] {
            pages.push((format!("{name}-{lang}"), connect(frame, text, standing)));
        }
    }
    pages
}

/// Returns the page without its texts and attribute values: the structure that the browser would build.
fn skeleton(html: &str) -> String {
    let mut out = String::new();
    let (mut tag, mut quoted) = (false, false);
    for c in html.chars() {
        match c {
            '<' if !tag => tag = true,
            '"' if tag => quoted = !quoted,
            '>' if tag && !quoted => {
                tag = false;
                out.push(c);
            }
            _ => {}
        }
        if tag && !quoted {
            out.push(c);
        }
    }
    out
}

#[test]
fn xs_01_hostile_text_changes_no_page() {
    let benign: Vec<String> =
        all_pages("benign").into_iter().map(|(_, page)| skeleton(&read(page).2)).collect();
    for text in HOSTILE {
        for ((name, page), benign) in all_pages(text).into_iter().zip(&benign) {
            let html = read(page).2;
            assert_eq!(&skeleton(&html), benign, "{name} is changed by {text}");
        }
    }
}

#[test]
fn xs_01_every_page_carries_the_strict_headers_and_its_own_style() {
    for (name, page) in all_pages("text") {
        let (_, headers, html) = read(page);
        let style = html.split_once("<style>").unwrap().1.split_once("</style>").unwrap().0;
        let hash = STANDARD.encode(digest::digest(&digest::SHA256, style.as_bytes()));
        let policy = headers["content-security-policy"].to_str().unwrap();
        assert_eq!(
            policy,
            format!(
                "default-src 'none'; style-src 'sha256-{hash}'; img-src 'self'; base-uri 'none'; frame-ancestors 'none'"
            ),
            "{name}"
        );
        assert_eq!(headers["content-type"], "text/html; charset=utf-8");
        assert_eq!(headers["cache-control"], "no-store");
        assert_eq!(headers["x-frame-options"], "DENY");
        assert_eq!(headers["referrer-policy"], "same-origin");
        assert_eq!(headers["x-content-type-options"], "nosniff");
        assert!(!html.contains("<script") && !html.contains(" style=") && !html.contains("src="));
        assert!(!html.contains("autofocus") && !html.contains(" id="), "{name}");
        let lang = headers["content-language"].to_str().unwrap();
        assert!(html.contains(&format!("<html lang=\"{lang}\">")), "{name}");
        let headings = html.matches("<h1").count();
        assert!(headings == 1 && html.contains("<main>"), "{name}: {headings} headings");
    }
}

#[test]
fn every_page_is_in_its_language_and_offers_the_others() {
    for (name, page) in all_pages("text") {
        let html = read(page).2;
        let body = html.split_once("</style>").unwrap().1;
        assert!(!body.contains(['{', '}']), "{name} has a placeholder that nothing filled: {body}");
        for language in Language::ALL {
            let button = format!("value=\"{}\" lang=\"{0}\"", language.tag());
            assert!(body.contains(&button) && body.contains(language.name()), "{name}: {button}");
        }
        let (_, tag) = name.split_once('-').unwrap();
        let language = Language::ALL.into_iter().find(|one| tag.ends_with(one.tag())).unwrap();
        let current = format!("lang=\"{}\" aria-current=\"true\"", language.tag());
        assert_eq!(body.matches("aria-current").count(), 1, "{name}");
        assert!(body.contains(&current), "{name}");
    }
}

#[test]
fn a_page_that_cannot_be_shown_again_offers_no_language() {
    let frame = PageFrame {
        language: Language::German,
        base: "",
        brand: &UNBRANDED,
        for_people: true,
        offers_languages: false,
    };
    let html = read(waiting(frame, "text")).2;
    assert!(html.contains("<html lang=\"de\">"), "{html}");
    assert!(!html.contains("/account/language"), "{html}");
}

#[test]
fn the_consent_page_says_the_same_in_each_language() {
    let destination = Destination::Https { host: "host.example".to_owned(), punycode: false };
    for language in Language::ALL {
        let html = read(consent(language, "the-text", &destination)).2;
        let w = &language.words().consent;
        for text in [&w.consent_title, &w.asks_to, &w.not_verified, &w.cancel, &w.other_account] {
            assert!(html.contains(text.as_str()), "{}: {text}", language.tag());
        }
        let sentence = format!(
            "{}<span class=\"host\">host.example</span>{}<span class=\"name\">the-text</span>{}",
            w.wants_to_use.0, w.wants_to_use.1, w.wants_to_use.2
        );
        assert!(html.contains(&sentence), "{}: {sentence}", language.tag());
        let button = format!(">{}</button>", w.continue_to.with("the-text"));
        assert!(html.contains(&button), "{}: {button}", language.tag());
    }
}

#[test]
fn con_02_the_page_tells_first_where_the_answer_goes() {
    let destination = Destination::Https { host: "host.example".to_owned(), punycode: false };
    let page = ConsentPage {
        frame: PageFrame {
            language: Language::English,
            base: "",
            brand: &UNBRANDED,
            for_people: true,
            offers_languages: false,
        },
        destination: &destination,
        redirect_uri: "https://host.example/callback",
        verified: false,
        publisher: None,
        registered_itself: true,
        client_name: Some("Client Name"),
        name_suspicious: false,
        client_id: "client_1",
        resource_name: Some("The Server"),
        resource: "https://mcp.example.com/mcp",
        scopes: &[ScopeLine {
            scope: "read:things",
            text: Some("Read things"),
            standing: Standing::Asked,
            destructive: false,
            choice: false,
        }],
        services: &[],
        asked_for_unknown: false,
        offers_another_account: true,
        identity_provider: "Okta",
        account: "https://mcp.example.com/account",
        request: "sealed",
    };
    let html = read(page.render()).2;
    let order = [
        "host.example",
        "The Server",
        "Client Name",
        "Read things",
        "\"deny\"",
        "\"approve\"",
        "Continue to Okta",
    ];
    let positions: Vec<usize> = order.iter().map(|text| html.find(text).unwrap()).collect();
    assert!(positions.is_sorted(), "{positions:?}");
    assert!(html.contains("· self-registered</p>"), "{html}");
    assert!(html.contains("<span class=\"at\">mcp.example.com</span>"), "{html}");
    assert!(!html.contains("class=\"warn\""), "nothing is unusual about this request");
    let body = html.split_once("<body>").unwrap().1;
    let links: Vec<&str> = body.split(" href=").skip(1).collect();
    let [account] = links[..] else { panic!("nothing of the client's is a link: {links:?}") };
    assert!(account.starts_with("\"https://mcp.example.com/account\">mcp.example.com/account<"));
}

#[test]
fn con_02_what_the_client_says_never_becomes_the_subject_of_the_sentence() {
    let destination = Destination::Loopback { host_and_port: "127.0.0.1:6274".to_owned() };
    let html = read(consent(Language::English, "claude.ai wants to use", &destination)).2;
    let heading = html.split_once("<h1").unwrap().1.split_once("</h1>").unwrap().0;
    assert!(
        heading.contains("<span class=\"host\">A program on this computer</span>"),
        "{heading}"
    );
    let about = html.split_once("<p class=\"about\">").unwrap().1;
    assert!(about.trim_start().starts_with("<code>127.0.0.1:6274</code>"), "{about}");
}

#[test]
fn amber_is_for_loopback_apps_punycode_and_names_that_imitate_others() {
    let website = |punycode| Destination::Https { host: "host.example".to_owned(), punycode };
    let loopback = Destination::Loopback { host_and_port: "127.0.0.1:6274".to_owned() };
    let app = Destination::App { scheme: "cursor".to_owned() };
    for (destination, name_suspicious, publisher, warnings) in [
        (&website(false), false, None, 0),
        (&website(false), false, Some("host.example"), 0),
        (&website(true), false, None, 1),
        (&website(true), false, Some("xn--pple-43d.example"), 1),
        (&website(false), false, Some("xn--pple-43d.example"), 1),
        (&website(false), true, None, 1),
        (&loopback, false, None, 1),
        (&loopback, true, None, 2),
        (&app, false, None, 1),
    ] {
        let page = ConsentPage {
            frame: PageFrame {
                language: Language::English,
                base: "",
                brand: &UNBRANDED,
                for_people: true,
                offers_languages: false,
            },
            destination,
            redirect_uri: "uri",
            verified: false,
            publisher,
            registered_itself: publisher.is_none(),
            client_name: Some("Client Name"),
            name_suspicious,
            client_id: "client_1",
            resource_name: None,
            resource: "https://mcp.example.com/mcp",
            scopes: &[],
            services: &[],
            asked_for_unknown: false,
            offers_another_account: false,
            identity_provider: "Okta",
            account: "https://mcp.example.com/account",
            request: "sealed",
        };
        let html = read(page.render()).2;
        let amber = html.matches("class=\"warn\"").count() + html.matches("class=\"tag\"").count();
        assert_eq!(amber, warnings, "{destination:?} {name_suspicious} {publisher:?}");
    }
}

#[test]
fn a_client_without_a_name_and_a_request_without_scopes_are_said_in_words() {
    let destination = Destination::App { scheme: "cursor".to_owned() };
    let mut page = ConsentPage {
        frame: PageFrame {
            language: Language::English,
            base: "",
            brand: &UNBRANDED,
            for_people: true,
            offers_languages: false,
        },
        destination: &destination,
        redirect_uri: "cursor://callback",
        verified: false,
        publisher: None,
        registered_itself: true,
        client_name: None,
        name_suspicious: false,
        client_id: "client_1",
        resource_name: None,
        resource: "https://mcp.example.com/mcp",
        scopes: &[],
        services: &[],
        asked_for_unknown: false,
        offers_another_account: true,
        identity_provider: "Okta",
        account: "https://mcp.example.com/account",
        request: "sealed",
    };
    let english = read(page.render()).2;
    assert!(english.contains("did not give a name") && english.contains("without any particular"));
    page.frame.language = Language::Japanese;
    let japanese = read(page.render()).2;
    assert!(japanese.contains("名前を名乗っていません") && japanese.contains("Okta に進む"));
}

#[test]
fn no_page_with_a_reference_leads_on_by_itself() {
    for (name, page) in all_pages("text") {
        let html = read(page).2;
        let refreshes = html.contains("http-equiv");
        assert_eq!(refreshes, name.starts_with("waiting"), "{name}");
        assert!(!(refreshes && html.contains("class=\"reference\"")), "{name}");
    }
}

#[test]
fn a_message_offers_what_helps_and_the_request_is_sealed() {
    let frame = PageFrame {
        language: Language::English,
        base: "/auth",
        brand: &UNBRANDED,
        for_people: true,
        offers_languages: false,
    };
    let page = |message, repeat| {
        let (reference, return_to) = (Some("AB12-CD34"), None);
        read(MessagePage { frame, message, reference, return_to, repeat }.render()).2
    };
    let known = Repeat { request: Some("sealed"), may_choose: true, ..Repeat::default() };
    let form = "<form class=\"way\" method=\"post\" action=\"/auth/authorize/again\">";
    let html = page(Message::ProviderUnavailable, known);
    assert!(html.contains(form) && html.contains("value=\"sealed\""), "{html}");
    assert!(html.contains("value=\"same\">Try again</button>"), "{html}");
    let no_access = Message::NoAccess { person: None, resource: "todos", missing: &["Add to-dos"] };
    let html = page(no_access, known);
    assert!(html.contains("value=\"other\">Continue with another account</button>"), "{html}");
    assert!(html.contains("<li>Add to-dos</li>"), "{html}");
    let html = page(no_access, Repeat { may_choose: false, ..known });
    assert!(!html.contains("<form"), "{html}");
    for message in [Message::LoginNotTrusted, Message::LoginFromElsewhere, Message::ClientShutOut] {
        assert!(!page(message, known).contains("<form"), "{message:?}");
    }
    let html = page(Message::ServerError, Repeat { reload: true, ..Repeat::default() });
    assert!(html.contains("<a class=\"button go\" href=\"\">Try again</a>"), "{html}");
    let html = page(
        Message::NotAnAdministrator,
        Repeat { other_account: Some("/sign-in"), may_choose: true, ..Repeat::default() },
    );
    assert!(html.contains("action=\"/auth/sign-in\"") && html.contains("value=\"other\""));
    assert!(html.contains("href=\"/auth/account\">Your connected applications</a>"), "{html}");
}
