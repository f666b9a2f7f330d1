//! The request context of the admin pages: every page takes an [`AdminPage`], every change an [`AdminForm`].

use axum::body::Body;
use axum::http::header;
use axum::response::Response;

use crate::app::App;
use crate::config::ClientApproval;
use crate::storage::{NameSearch, StorageError};
use crate::telemetry::audit::{Actor, AuditEvent};
use crate::web::browser::{Browser, BrowserForm, PageRequest};
use crate::web::list_page::{Frame, PageHelp, Section};
use crate::web::page_error::PageError;
use crate::web::pages::Message;
use crate::web::params::Params;
use crate::web::web_session::{self, SignedInPerson, home, sign_in_page};
use crate::web::words::{Language, words};

words! {
    struct SectionWords {
        overview: "Overview", "概要";
        clients: "Clients", "クライアント";
        grants: "Connections", "接続";
        services: "Connected services", "連携サービス";
        people: "People", "利用者";
        refused: "Refused people", "拒否された利用者";
        servers: "MCP servers", "MCPサーバー";
        usage: "Usage", "利用状況";
        keys: "Keys", "鍵";
        notifications: "Notifications", "通知";
        audit: "Audit", "監査";
    }
}

words! {
    /// What each page is for. Every page shows the text of its section.
    struct HelpWords {
        title: "About this page", "このページについて";
        all_times: "All times are UTC.", "時刻はすべてUTCです。";
        overview: "What needs attention comes first. The numbers cover the last week; the chart shows sign-ins and refusals by the hour.", "対応が必要なものを最初に示します。数値は直近1週間のもので、グラフはサインインと拒否を1時間ごとに示します。";
        clients: "A client is an application that people connect. Approve: people may connect it. Refuse: nobody may. Trust: people who approved it once skip the consent page. Block: ends everything it has, until it is unblocked. Delete: removes its registration; it may register again.", "クライアントは、利用者が接続するアプリケーションです。承認: 接続できるようになります。拒否: 誰も接続できません。信頼: 一度許可した利用者は同意ページが省略されます。ブロック: 解除するまで、すべてを終了します。削除: 登録を削除します。もう一度登録することはできます。";
        grants: "A connection is what one person lets one client do at one MCP server. Approved is the most it can have; in force now is what the rules leave of it. When a connection ends, its next request is refused and its open streams close. The person may connect again.", "接続とは、1人の利用者が1つのクライアントに、1つのMCPサーバーで許可したものです。「承認した範囲」は上限で、「現在有効な範囲」はルールの適用後に残るものです。接続を終了すると、次のリクエストは拒否され、開いているストリームは閉じられます。利用者はもう一度接続できます。";
        services: "A connected service is an account that a person connected, such as GitHub, so that MCP servers can use it as this person. The clients of people never see its tokens. Removing one deletes its tokens and revokes them at the service; MCP servers then ask the person to connect it again. One that is to be connected again was refused by the service: only the person can repair it.", "連携サービスとは、利用者が連携した GitHub などのアカウントです。MCPサーバーがその利用者として使います。クライアントがそのトークンを見ることはありません。連携を解除すると、トークンを削除し、サービス側でも失効させます。その後、MCPサーバーは利用者に再連携を求めます。「再連携が必要」なものは、サービスがトークンを拒否したもので、利用者本人だけが直せます。";
        people: "Everybody who has signed in. Search by any words of the name or their first three letters, by the e-mail address or what is before its @, or by an ID. People who were refused at their first sign-in are on the page “Refused people”, for some days, and in the audit trail.", "サインインしたことのあるすべての利用者です。名前の単語または先頭3文字以上(漢字・かなは1文字以上)、メールアドレスまたは@より前の部分、IDで検索できます。最初のサインインで拒否された利用者は、しばらくの間「拒否された利用者」に表示され、監査ログにも残ります。";
        refused: "Who was refused by rules, and why. Open a person to see what the identity provider sent, how each rule compares with it, and what would let them in.", "ルールにより拒否された利用者とその理由です。利用者を開くと、IDプロバイダーから送信された情報、各ルールとの比較、利用できるようにする方法を確認できます。";
        servers: "MCP servers and their rules are in the configuration. This page shows them as they are in use now, and what the rules give to a person with a client.", "MCPサーバーとそのルールは設定ファイルにあります。このページは、現在の内容と、利用者とクライアントに対する判定の結果を示します。";
        usage: "Calls through the gateway, in sums of an hour: who called which tool of which MCP server with which client, and how it ended. Arguments and answers are never kept. MCP servers that the gateway does not front are not counted.", "ゲートウェイを通った呼び出しを1時間ごとに集計したものです。誰が、どのクライアントで、どのMCPサーバーのどのツールを呼び出し、どう終わったかを示します。引数と応答は保存しません。ゲートウェイを通らないMCPサーバーは集計されません。";
        notifications: "Where messages to administrators go. Targets are in the configuration. A message that cannot be delivered is tried again for twelve hours.", "管理者への通知の送信先です。送信先は設定ファイルにあります。送信できない通知は12時間再試行します。";
        keys: "These keys sign access tokens. Rotate them once a year, or at once if a key may be known to somebody else. No request fails meanwhile.", "アクセストークンに署名する鍵です。年に1回、または鍵が漏れた可能性があるときはすぐに更新してください。更新中もリクエストは失敗しません。";
        audit: "Every line says who did what. It has IDs only, never names: the names on this page come from what is stored of people and clients now. A person who quotes a reference from an error page gave you the quickest search. Routine events (renewals of tokens and the like) are hidden at first, and are part of every download.", "各行は、誰が何をしたかを示します。ログにはIDだけが記録され、名前は含まれません。このページの名前は、現在保存されている利用者とクライアントの情報によります。エラーページの参照番号がわかれば、それで検索するのが最も早い方法です。トークンの更新などの通常のイベントは初めは表示されませんが、ダウンロードには必ず含まれます。";
    }
}

/// A signed-in administrator or viewer requests a page.
pub(super) struct AdminPage {
    browser: Browser,
    params: Params,
    pub(super) visitor: SignedInPerson,
}

/// An administrator submits a form. Origin, CSRF token and the right to change are checked.
pub(super) struct AdminForm {
    pub(super) visit: AdminPage,
    pub(super) form: Params,
}

impl PageRequest for AdminPage {
    async fn of(browser: Browser, _: Body) -> Result<Self, PageError> {
        let visitor = web_session::enter(&browser, browser.path_and_query()).await?;
        let invalid = Message::InvalidRequest { what: "query" };
        let params = browser.params().map_err(|refused| invalid.because(refused))?;
        Ok(Self { browser, params, visitor })
    }
}

impl PageRequest for AdminForm {
    async fn of(browser: Browser, body: Body) -> Result<Self, PageError> {
        let here = page_of_the_form(&browser).to_owned();
        let sent = BrowserForm::of(browser, body).await?;
        let (browser, visitor, form) = web_session::read_form_of_session(sent, &here).await?;
        if !visitor.may_change {
            return Err(read_only());
        }
        Ok(Self { visit: AdminPage { browser, params: Params::default(), visitor }, form })
    }
}

impl AdminForm {
    /// Requires a recent sign-in for a destructive change; otherwise returns the sign-in page. `back` is the
    /// page shown after the new sign-in.
    pub(super) fn needs_fresh_proof(&self, back: &str) -> Result<(), PageError> {
        if self.visit.visitor.fresh {
            return Ok(());
        }
        Err(sign_in_page(&self.visit.browser, back, true).into())
    }

    /// Returns a form field, empty if it is absent or repeated.
    pub(super) fn field(&self, name: &str) -> &str {
        self.form.get(name).ok().flatten().unwrap_or_default()
    }
}

impl AdminPage {
    pub(super) fn app(&self) -> &App {
        &self.browser.app
    }

    pub(super) fn language(&self) -> Language {
        self.browser.language
    }

    /// Returns a query parameter, empty if it is absent or repeated.
    pub(super) fn param(&self, name: &str) -> &str {
        self.params.get(name).ok().flatten().unwrap_or_default()
    }

    /// Finds the people and clients that a text may mean.
    pub(super) async fn find_names(&self, text: &str) -> Result<NameSearch, StorageError> {
        let searched = self.app().config().limits.clients_searched;
        self.app().storage().find_names(text, searched).await
    }

    /// Builds the frame of the page at `path`.
    pub(super) async fn frame(&self, path: &str) -> Result<Frame, PageError> {
        // Where no approval is needed, a request of earlier waits for nothing.
        let waiting = match self.app().config().client_approval {
            ClientApproval::FirstUse => self.app().storage().clients_waiting().await?,
            ClientApproval::None => 0,
        };
        let mut frame = Frame::new(&self.browser, &self.visitor);
        let w = SectionWords::of(frame.language);
        let section = |at: &'static str, label, count| Section {
            path: at,
            label,
            current: at == path,
            count,
        };
        frame.sections = vec![
            section("/", w.overview, 0),
            section("/clients", w.clients, waiting),
            section("/grants", w.grants, 0),
            section("/connections", w.services, 0),
            section("/people", w.people, 0),
            section("/refused", w.refused, 0),
            section("/servers", w.servers, 0),
            section("/usage", w.usage, 0),
            section("/keys", w.keys, 0),
            section("/notifications", w.notifications, 0),
            section("/audit", w.audit, 0),
        ];
        let h = HelpWords::of(frame.language);
        let text = match path {
            "/" => Some(h.overview),
            "/clients" => Some(h.clients),
            "/grants" => Some(h.grants),
            "/connections" => Some(h.services),
            "/people" => Some(h.people),
            "/refused" => Some(h.refused),
            "/servers" => Some(h.servers),
            "/usage" => Some(h.usage),
            "/notifications" => Some(h.notifications),
            "/keys" => Some(h.keys),
            "/audit" => Some(h.audit),
            _ => None,
        };
        frame.help = text.map(|text| PageHelp { title: h.title, text });
        frame.icon = Some(super::icon::PATH);
        frame.footer = format!(
            "Portcullis {} · {} · {}",
            env!("CARGO_PKG_VERSION"),
            self.app().issuer(),
            h.all_times
        );
        Ok(frame)
    }

    /// Creates an audit event with this administrator as the actor.
    pub(super) fn event(&self, event: &'static str) -> AuditEvent {
        self.app().event(event, Actor::Admin(self.visitor.session.subject.clone()))
    }

    /// Returns the administrator's subject, which is stored with their decisions.
    pub(super) fn by(&self) -> &str {
        &self.visitor.session.subject
    }

    /// Redirects to a page of the admin site.
    pub(super) fn go(&self, path: &str) -> Response {
        self.browser.go(path)
    }
}

/// Returns the 404 page for something that does not exist.
pub(super) fn missing() -> PageError {
    Message::NoSuchAdminPage.because("no such row")
}

/// Returns the 403 page for a viewer who tries to change something.
pub(super) fn read_only() -> PageError {
    Message::NotAnAdministrator.because("read only")
}

/// Returns the page that contained the form, by `Referer`: after a new sign-in the browser returns to that
/// page, because the form's own target may not be a page.
fn page_of_the_form(browser: &Browser) -> &str {
    let referer = browser.header(header::REFERER.as_str());
    referer
        .and_then(|url| url.strip_prefix(browser.url().origin()))
        // Otherwise it is another origin that only begins like ours.
        .filter(|path| path.starts_with('/'))
        .unwrap_or(home(browser.realm))
}

/// `POST /sign-in`.
pub(super) async fn sign_in(sent: BrowserForm) -> Result<Response, PageError> {
    let (browser, form) = web_session::read_form(sent).await?;
    let go_on = form.get("go_on").ok().flatten().unwrap_or_default();
    if form.get("account").ok().flatten() == Some("other") {
        return web_session::begin_sign_in_as_another(&browser, go_on).await;
    }
    let anew = form.get("anew").ok().flatten().is_some();
    web_session::begin_sign_in(&browser, go_on, anew).await
}

/// `GET /signed-in`: finishes the sign-in when the browser comes back from the identity provider.
pub(super) async fn signed_in(browser: Browser) -> Result<Response, PageError> {
    web_session::finish_sign_in(&browser).await
}

/// `POST /sign-out`. Viewers may do this too.
pub(super) async fn sign_out(sent: BrowserForm) -> Result<Response, PageError> {
    let first = home(sent.browser.realm);
    let (browser, visitor, _) = web_session::read_form_of_session(sent, first).await?;
    web_session::sign_out(&browser, &visitor).await
}
