//! `/clients` and `/client`: the known clients, who connected them, and the decisions about them.

use askama::Template;
use axum::http::StatusCode;
use axum::response::Response;

use super::confirm;
use super::grant_view::GrantView;
use super::links::{ROWS, client_path, next_page, query};
use super::visit::{AdminForm, AdminPage, missing};
use crate::oauth::client::ClientMetadata;
use crate::oauth::client_name::DisplayName;
use crate::oauth::redirect_uri::{Destination, destination};
use crate::storage::{
    ClientDecided, ClientDecision, ClientFilter, ClientReview, ClientRow, GrantFilter,
    ReviewDecision, ReviewState, Storage,
};
use crate::web::in_force::InForceWords;
use crate::web::list_page::Frame;
use crate::web::page_error::PageError;
use crate::web::params::Params;
use crate::web::words::words;

words! {
    struct ClientWords {
        title: "Clients", "クライアント";
        search: "Name, host or client ID begins with", "名前・ホスト・クライアントIDの先頭";
        standing: "Standing", "状態";
        all: "all", "すべて";
        waiting: "waiting for approval", "承認待ち";
        approved: "approved", "承認済み";
        refused: "refused", "拒否";
        blocked: "blocked", "ブロック中";
        trusted: "trusted", "信頼済み";
        find: "Find", "検索";
        none: "No client fits.", "該当するクライアントはありません。";
        name: "Name", "名前";
        goes_to: "Answers go to", "応答先";
        kind: "Kind", "種類";
        registered: "registered itself", "自己登録";
        created: "made here", "管理画面で作成";
        configured: "in the configuration", "設定ファイル";
        document: "metadata document", "メタデータ文書";
        since: "Registered", "登録日時";
        last_use: "Last use", "最終利用";
        never: "never", "なし";
        more: "More", "次へ";
        unnamed: "(no name)", "(名前なし)";
        suspicious: "looks like another name", "紛らわしい名前";
        new: "New client", "新しいクライアント";
        client_id: "Client ID", "クライアントID";
        requested: "A person waits since", "待機開始";
        redirect_uris: "Redirect URIs", "リダイレクトURI";
        authenticates: "Proves itself", "認証方式";
        metadata: "What it registered", "登録内容";
        connections: "Who connected it", "接続した人";
        person: "Person", "利用者";
        server: "MCP server", "MCPサーバー";
        nobody: "Nobody at the moment.", "現在はいません。";
        all_connections: "All connections", "すべての接続";
        digest: "Digest of what is decided about", "判断の対象を表すダイジェスト";
        lapsed: "It has changed since it was approved or trusted, and is so no more. Look at it again.", "承認または信頼された後に変わったため、その判断は無効です。もう一度確認してください。";
        history: "History in the audit trail", "監査ログの履歴";
        approve: "Approve", "承認";
        refuse: "Refuse", "拒否";
        trust: "Trust", "信頼する";
        untrust: "Trust no longer", "信頼を解除";
        trust_note: "Trusted: approvals of people are remembered in their browser for 30 days, when they come directly.", "信頼すると、直接開いた場合に限り、利用者の承認がブラウザーに30日間記憶されます。";
        approve_note: "Whoever waits goes on, and nobody waits for this client again.", "待っている人は先へ進み、以後このクライアントの承認待ちはなくなります。";
        refuse_note: "Whoever waits is told, and what it has ends.", "待っている人に通知し、このクライアントの接続を終了します。";
        untrust_note: "People are asked for their approval every time again.", "利用者の承認を毎回求めるようになります。";
        block_note: "Nobody can connect it until it is unblocked. Its connections end at once, open streams included.", "ブロックを解除するまで誰も接続できません。接続は、開いているストリームを含めて直ちに終了します。";
        unblock_note: "People can connect it again. What has ended stays ended.", "もう一度接続できるようになります。終了したものは元に戻りません。";
        end_note: "Ends its connections, open streams included. People can connect it again.", "開いているストリームを含めて接続を終了します。利用者はもう一度接続できます。";
        delete_note: "Removes its registration, and ends its connections. It may register again as a new client.", "登録を削除し、接続を終了します。新しいクライアントとして登録し直すことはできます。";
        block: "Block", "ブロック";
        unblock: "Unblock", "ブロック解除";
        delete: "Delete", "削除";
        end_all: "End all connections", "すべての接続を終了";
        done_approved: "The client is approved; whoever waits goes on by themselves.", "承認しました。待っている人は自動的に先へ進みます。";
        done_refused: "The client is refused, and its connections have ended.", "拒否し、接続を終了しました。";
        done_trusted: "The client is trusted.", "信頼済みにしました。";
        done_untrusted: "The client is no longer trusted.", "信頼を解除しました。";
        done_blocked: "The client is blocked, and its connections have ended.", "ブロックし、接続を終了しました。";
        done_unblocked: "The client is no longer blocked. People can connect it again.", "ブロックを解除しました。利用者はもう一度接続できます。";
        done_deleted: "The client is deleted, and its connections have ended.", "削除し、接続を終了しました。";
        changed: "Nothing was decided: the client has changed what it registered since you opened the page. Read it again.", "クライアントの登録内容がページを開いた後に変わったため、何も変更していません。もう一度確認してください。";
        done_ended: "All its connections have ended.", "すべての接続を終了しました。";
        new_explained: "For a program that cannot register itself. It is known by the ID and secret that you give to it.", "自己登録できないプログラムのためのものです。発行するIDとシークレットで識別されます。";
        uris_one_a_line: "Redirect URIs, one a line", "リダイレクトURI(1行に1つ)";
        with_secret: "It can keep a secret (a website, not a program on a device)", "シークレットを保持できる(端末上のプログラムではなくウェブサイト)";
        create: "Create", "作成";
        created_title: "The client is made", "クライアントを作成しました";
        secret: "Client secret", "クライアントシークレット";
        secret_once: "This is shown once. Copy it now.", "この画面でのみ表示されます。今すぐ控えてください。";
        go_to_client: "To the client", "クライアントのページへ";
    }
}

/// A client, prepared for display.
struct ClientPage {
    row: ClientRow,
    name: Option<String>,
    suspicious: bool,
    goes_to: String,
}

impl ClientPage {
    fn of(row: ClientRow) -> Self {
        let metadata = ClientMetadata::from_stored_json(&row.metadata).ok();
        let name = metadata.as_ref().and_then(|metadata| metadata.client_name.as_deref());
        let name = DisplayName::of(name);
        let goes_to = metadata
            .and_then(|m| m.redirect_uris.first().map(|uri| destination(uri.as_str()).to_string()))
            .unwrap_or_default();
        Self { row, name: name.text, suspicious: name.suspicious, goes_to }
    }

    fn path(&self) -> String {
        client_path(&self.row.id)
    }

    fn kind(&self, w: &'static ClientWords) -> &'static str {
        match self.row.kind.as_str() {
            "created" => w.created,
            "configured" => w.configured,
            "document" => w.document,
            _ => w.registered,
        }
    }

    fn tags(&self, w: &'static ClientWords) -> Vec<(&'static str, &'static str)> {
        let ClientReview { state: admission, trusted, blocked, .. } = &self.row.standing;
        let mut tags = Vec::new();
        match admission {
            ReviewState::NotReviewed => {}
            ReviewState::Waiting => tags.push(("", w.waiting)),
            ReviewState::Approved => tags.push(("good", w.approved)),
            ReviewState::Rejected => tags.push(("", w.refused)),
        }
        if *trusted {
            tags.push(("good", w.trusted));
        }
        if *blocked {
            tags.push(("", w.blocked));
        }
        tags
    }
}

#[derive(Template)]
#[template(path = "admin/clients.html")]
struct ClientsTemplate<'a> {
    frame: &'a Frame,
    w: &'static ClientWords,
    search: &'a str,
    standings: Vec<(&'static str, &'static str, bool)>,
    rows: Vec<ClientPage>,
    next: Option<String>,
}

pub(super) async fn list(visit: AdminPage) -> Result<Response, PageError> {
    let mut frame = visit.frame("/clients").await?;
    let w = ClientWords::of(frame.language);
    if visit.param("done") == "deleted" {
        frame.notice = Some(w.done_deleted.to_owned());
    }
    let filter = ClientFilter {
        search: visit.param("q").trim().to_owned(),
        standing: visit.param("standing").to_owned(),
        after: visit.param("after").to_owned(),
    };
    let storage = visit.app().storage();
    let mut rows = storage.list_clients(&filter, ROWS + 1).await?;
    let next = next_page(&mut rows, |last| {
        let after = Storage::page_after_client(&filter, last);
        query("/clients")
            .append_pair("q", &filter.search)
            .append_pair("standing", &filter.standing)
            .append_pair("after", &after)
            .finish()
    });
    let standings = [
        ("", w.all),
        ("waiting", w.waiting),
        ("blocked", w.blocked),
        ("trusted", w.trusted),
        ("refused", w.refused),
    ];
    let template = ClientsTemplate {
        frame: &frame,
        w,
        search: &filter.search,
        standings: standings.map(|(value, text)| (value, text, value == filter.standing)).to_vec(),
        rows: rows.into_iter().map(ClientPage::of).collect(),
        next,
    };
    Ok(frame.answer(template.render()))
}

#[derive(Template)]
#[template(path = "admin/client.html")]
struct ClientTemplate<'a> {
    frame: &'a Frame,
    w: &'static ClientWords,
    client: &'a ClientPage,
    redirect_uris: Vec<String>,
    authenticates: &'static str,
    pretty: String,
    grants: Vec<GrantView>,
    scopes: &'static InForceWords,
    trustable: bool,
}

impl ClientTemplate<'_> {
    fn is_waiting(&self) -> bool {
        self.client.row.standing.state == ReviewState::Waiting
    }

    fn is_refused(&self) -> bool {
        self.client.row.standing.state == ReviewState::Rejected
    }

    fn has_lapsed(&self) -> bool {
        self.client.row.standing.has_lapsed()
    }

    fn encoded_id(&self) -> String {
        form_urlencoded::byte_serialize(self.client.row.id.as_bytes()).collect()
    }
}

/// Returns whether all redirect URIs are websites. Only then can a client be told apart from another.
pub(crate) fn trustable(metadata: &ClientMetadata) -> bool {
    metadata
        .redirect_uris
        .iter()
        .all(|uri| matches!(destination(uri.as_str()), Destination::Https { .. }))
}

pub(super) async fn one(visit: AdminPage) -> Result<Response, PageError> {
    let storage = visit.app().storage();
    let id = visit.param("id");
    let row = storage.client_details(id).await?;
    let client = ClientPage::of(row.ok_or_else(missing)?);
    let mut frame = visit.frame("/clients").await?;
    let w = ClientWords::of(frame.language);
    frame.notice = done(w, visit.param("done")).map(str::to_owned);
    let filter = GrantFilter { client_id: id.to_owned(), ..GrantFilter::default() };
    let grants = storage.browse_grants(&filter, visit.app().now(), 10).await?;
    let metadata = ClientMetadata::from_stored_json(&client.row.metadata).ok();
    let template = ClientTemplate {
        frame: &frame,
        w,
        redirect_uris: metadata
            .iter()
            .flat_map(|m| &m.redirect_uris)
            .map(|uri| uri.as_str().to_owned())
            .collect(),
        authenticates: metadata.as_ref().map_or("", |m| m.token_endpoint_auth_method.as_str()),
        trustable: metadata.as_ref().is_some_and(trustable),
        pretty: pretty(&client.row.metadata),
        grants: GrantView::of_all(&visit, &frame, grants),
        scopes: InForceWords::of(frame.language),
        client: &client,
    };
    Ok(frame.answer(template.render()))
}

fn pretty(json: &str) -> String {
    serde_json::from_str::<serde_json::Value>(json)
        .and_then(|value| serde_json::to_string_pretty(&value))
        .unwrap_or_default()
}

fn done(w: &'static ClientWords, what: &str) -> Option<&'static str> {
    Some(match what {
        "approve" => w.done_approved,
        "refuse" => w.done_refused,
        "trust" => w.done_trusted,
        "untrust" => w.done_untrusted,
        "block" => w.done_blocked,
        "unblock" => w.done_unblocked,
        "end" => w.done_ended,
        "changed" => w.changed,
        _ => return None,
    })
}

pub(super) async fn act(action: AdminForm) -> Result<Response, PageError> {
    let visit = &action.visit;
    let (id, what) = (action.field("id"), action.field("action"));
    let storage = visit.app().storage();
    let row = storage.client_details(id).await?;
    let row = row.ok_or_else(missing)?;
    let verdict = match what {
        "approve" => ReviewDecision::Approve,
        "trust" => ReviewDecision::Trust,
        "untrust" => ReviewDecision::Untrust,
        "unblock" => ReviewDecision::Unblock,
        "refuse" | "block" | "end" | "delete" => {
            let asked = confirm::act_on_client(&action, what, id).await?;
            return Ok(asked.unwrap_or_else(|| match what {
                "delete" => visit.go("/clients?done=deleted"),
                _ => visit.go(&format!("{}&done={what}", client_path(id))),
            }));
        }
        _ => return Err(missing()),
    };
    // Approving a client that people wait for needs no recent sign-in: it ends nothing and reopens nothing.
    let lets_somebody_go_on =
        verdict == ReviewDecision::Approve && row.standing.state == ReviewState::Waiting;
    if !lets_somebody_go_on {
        action.needs_fresh_proof(&client_path(id))?;
    }
    if verdict == ReviewDecision::Trust {
        let metadata = ClientMetadata::from_stored_json(&row.metadata);
        if !metadata.is_ok_and(|metadata| trustable(&metadata)) {
            return Ok(visit.go(&client_path(id)));
        }
    }
    // A decision that grants something applies only to the metadata that the administrator has seen, not to
    // newer ones.
    let decision = ClientDecision::new(id, verdict, visit.by()).of_seen(action.field("seen"));
    let event = visit.event(verdict.event());
    let decided = storage.decide_client_as_seen(decision, visit.app().now(), event).await?;
    if decided == ClientDecided::OtherClient {
        return Ok(visit.go(&format!("{}&done=changed", client_path(id))));
    }
    Ok(visit.go(&format!("{}&done={what}", client_path(id))))
}

#[derive(Template)]
#[template(path = "admin/client_new.html")]
struct NewTemplate<'a> {
    frame: &'a Frame,
    w: &'static ClientWords,
    problem: Option<String>,
    name: &'a str,
    redirect_uris: &'a str,
    confidential: bool,
}

pub(super) async fn new(visit: AdminPage) -> Result<Response, PageError> {
    let frame = visit.frame("/clients").await?;
    let w = ClientWords::of(frame.language);
    let template = NewTemplate {
        frame: &frame,
        w,
        problem: None,
        name: "",
        redirect_uris: "",
        confidential: true,
    };
    Ok(frame.answer(template.render()))
}

#[derive(Template)]
#[template(path = "admin/client_created.html")]
struct CreatedTemplate<'a> {
    frame: &'a Frame,
    w: &'static ClientWords,
    id: &'a str,
    path: String,
    secret: Option<&'a str>,
}

pub(super) async fn create(action: AdminForm) -> Result<Response, PageError> {
    action.needs_fresh_proof("/clients/new")?;
    let visit = &action.visit;
    let frame = visit.frame("/clients").await?;
    let w = ClientWords::of(frame.language);
    let metadata = match from_form(visit, &action.form) {
        Ok(metadata) => metadata,
        Err(refused) => {
            let template = NewTemplate {
                frame: &frame,
                w,
                problem: Some(refused),
                name: action.field("name"),
                redirect_uris: action.field("redirect_uris"),
                confidential: !action.field("confidential").is_empty(),
            };
            return Ok(frame.answer_with(StatusCode::BAD_REQUEST, template.render()));
        }
    };
    let event = visit.event("client_created");
    let made = visit.app().clients().create(metadata, event).await?;
    let template = CreatedTemplate {
        frame: &frame,
        w,
        id: &made.client.id,
        path: client_path(&made.client.id),
        secret: made.secret.as_deref(),
    };
    Ok(frame.answer(template.render()))
}

/// Checks the form like a dynamic registration.
fn from_form(visit: &AdminPage, form: &Params) -> Result<ClientMetadata, String> {
    let field = |name| form.get(name).ok().flatten().unwrap_or_default();
    let uris: Vec<&str> = field("redirect_uris").split_whitespace().collect();
    let method = if field("confidential").is_empty() { "none" } else { "client_secret_basic" };
    let mut body = serde_json::json!({
        "redirect_uris": uris,
        "token_endpoint_auth_method": method,
        "grant_types": ["authorization_code", "refresh_token"],
        "response_types": ["code"],
    });
    let name = field("name").trim();
    if !name.is_empty() {
        body["client_name"] = name.into();
    }
    ClientMetadata::parse(
        body.to_string().as_bytes(),
        visit.app().redirect_policy(),
        &visit.app().registration_limits(),
    )
    .map_err(|refused| refused.to_string())
}
