//! `/account`: lists a signed-in person's own connected applications. The handlers take the person from the
//! web session only, never from a form field (threat AD-03).

use askama::Template;
use axum::body::Body;
use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use crate::app::App;
use crate::config::{InForce, paths};
use crate::oauth::client::ClientMetadata;
use crate::oauth::client_name::DisplayName;
use crate::oauth::redirect_uri::{Destination, destination};
use crate::oauth::scope::ScopeSet;
use crate::storage::{ConnectedClient, Ended, Ending};
use crate::telemetry::audit::Actor;
use crate::web::browser::{PageError, see_other};
use crate::web::console::{self, AccessError, SignedInPerson, Site};
use crate::web::counted::{CountWords, number};
use crate::web::in_force::{InForceWords, OfGrant};
use crate::web::list_page::{Frame, sign_in_page};
use crate::web::pages::Message;
use crate::web::params::Params;
use crate::web::words::{Language, words};

words! {
    struct AccountWords {
        title: "Your connected applications", "接続しているアプリケーション";
        explained: "These applications can act for you here. Disconnecting one takes effect at once; to use it again, you connect it again.", "次のアプリケーションは、ここであなたに代わって操作できます。接続の解除はすぐに有効になります。また使うには、もう一度接続してください。";
        none: "You have connected no application.", "接続しているアプリケーションはありません。";
        unnamed: "An application without a name", "名前のないアプリケーション";
        gone: "An application that is no longer registered", "登録が削除されたアプリケーション";
        verified: "Verified by your administrator", "管理者が確認済み";
        unverified: "Not verified", "未確認";
        suspicious: "The name could be mistaken for another", "別の名前と紛らわしい";
        server: "MCP server", "MCPサーバー";
        goes_to: "Its answers go to", "応答の送信先";
        on_device: "a program on a device", "端末上のプログラム";
        scopes: "You approved", "許可した操作";
        in_force: "It may now", "現在できる操作";
        nothing: "nothing: your role allows none of it", "なし(あなたのロールでは許可されていません)";
        server_gone: "nothing: this MCP server is no longer here", "なし(このMCPサーバーはもうありません)";
        more_note: "An application never gets more than your role allows. What is in force follows your role.", "アプリケーションが、あなたのロールで許可された範囲を超えることはありません。現在できる操作はロールに従います。";
        no_scopes: "sign you in, and nothing else", "サインインのみ";
        since: "Connected since", "接続日時";
        last_use: "Last used", "最終利用";
        disconnect: "Disconnect", "接続を解除";
        disconnect_what: "Disconnect {}", "{}の接続を解除";
        disconnected: "The application is disconnected.", "接続を解除しました。";
        not_there: "That application was not connected any more.", "そのアプリケーションはすでに接続されていません。";
        sign_out: "Sign out", "サインアウト";
        here: "Sign out here", "ここでサインアウト";
        here_note: "Ends your visit to this page in this browser. Your applications stay connected, unless your organisation ends them with your sign-in.", "このブラウザーでのこのページの利用を終了します。組織の設定でサインインとともに終了する場合を除き、アプリケーションの接続は残ります。";
        everywhere: "Sign out everywhere", "すべての場所でサインアウト";
        everywhere_note: "Disconnects every application and ends every visit to this page, in every browser and on every device.", "すべてのブラウザーと端末で、すべてのアプリケーションの接続とこのページの利用を終了します。";
        confirm_title: "Sign out everywhere?", "すべての場所でサインアウトしますか?";
        confirm_ends: " will end.", "が終了します。";
        confirm_here: "Every visit to this page ends, in every browser and on every device. To use an application again, you connect it again.", "すべてのブラウザーと端末で、このページの利用が終了します。アプリケーションをまた使うには、もう一度接続してください。";
    }
}

/// The act that a confirmation is bound to, see [`console::confirmation`].
const EVERYWHERE: &str = "sign out everywhere";

/// A connected client, prepared for display.
struct AccountPage {
    row: ConnectedClient,
    name: String,
    suspicious: bool,
    verified: bool,
    goes_to: Vec<(String, bool)>,
    resource_name: Option<String>,
    /// Each approved scope, with its configured description.
    scopes: Vec<(String, Option<String>)>,
    /// The scopes in force now, in the same form. When there are none, `nothing` says why.
    in_force: Vec<(String, Option<String>)>,
    nothing: Option<&'static str>,
    facts_note: Option<String>,
    disconnect: String,
}

impl AccountPage {
    fn of(app: &App, language: Language, row: ConnectedClient) -> Self {
        let w = AccountWords::of(language);
        let metadata = row.client_metadata.as_deref().map(ClientMetadata::from_stored_json);
        let metadata = metadata.and_then(Result::ok);
        let name = DisplayName::of(metadata.as_ref().and_then(|m| m.client_name.as_deref()));
        let unnamed = if metadata.is_some() { w.unnamed } else { w.gone };
        let shown_name = name.text.unwrap_or_else(|| unnamed.to_owned());
        let mut goes_to: Vec<(String, bool)> = Vec::new();
        for uri in metadata.iter().flat_map(|metadata| &metadata.redirect_uris) {
            let to = destination(uri.as_str());
            let one = (to.to_string(), !matches!(to, Destination::Https { .. }));
            if !goes_to.contains(&one) {
                goes_to.push(one);
            }
        }
        let resource = app.resource(&row.resource);
        let texts = resource.map(|resource| resource.scope_texts.as_slice()).unwrap_or_default();
        let told = |scopes: &ScopeSet| {
            let told = scopes.iter().map(|scope| {
                let text = texts.iter().find(|(known, _)| known == scope);
                (scope.to_string(), text.and_then(|(_, text)| text.clone()))
            });
            told.collect::<Vec<_>>()
        };
        let now = in_force_now(app, &row);
        Self {
            suspicious: name.suspicious,
            // A program on a device is never "verified", as on the consent page: any other program can take
            // its redirect URI.
            verified: row.trusted && goes_to.iter().all(|(_, on_device)| !on_device),
            goes_to,
            resource_name: resource.and_then(|resource| resource.name.clone()),
            scopes: told(&row.scopes),
            in_force: told(&now.in_force.scopes()),
            nothing: match now.in_force {
                InForce::Scopes(_) => None,
                InForce::Nothing => Some(w.nothing),
                InForce::ServerGone => Some(w.server_gone),
            },
            facts_note: now.note(InForceWords::of(language)),
            disconnect: w.disconnect_what.replace("{}", &shown_name),
            name: shown_name,
            row,
        }
    }
}

/// Combines all approvals of a connection. When the facts behind them differ in age, the oldest time is
/// shown.
fn in_force_now(app: &App, row: &ConnectedClient) -> OfGrant {
    let mut now = OfGrant { in_force: InForce::Nothing, old_facts: None };
    for one in &row.approvals {
        let facts = (&one.facts, one.facts_at);
        let (resource, client_id) = (&row.resource, &row.client_id);
        let of = OfGrant::by(app.config(), resource, client_id, facts, &one.scopes, app.now());
        now.in_force = match now.in_force {
            InForce::Nothing => of.in_force,
            known => known.or(of.in_force),
        };
        now.old_facts = [now.old_facts, of.old_facts].into_iter().flatten().min();
    }
    now
}

#[derive(Template)]
#[template(path = "account/confirm.html")]
struct ConfirmTemplate<'a> {
    frame: &'a Frame,
    w: &'static AccountWords,
    c: &'static CountWords,
    connections: Vec<AccountPage>,
    any: bool,
    number: String,
    token: String,
    home: String,
}

#[derive(Template)]
#[template(path = "account/connections.html")]
struct AccountTemplate<'a> {
    frame: &'a Frame,
    w: &'static AccountWords,
    connections: Vec<AccountPage>,
}

/// Returns the signed-in person, or a response: the sign-in page or an error page.
async fn enter(app: &App, headers: &HeaderMap) -> Result<SignedInPerson, Response> {
    let site = Site::account(app);
    console::visitor(app, &site, headers).await.map_err(|why| match why {
        AccessError::SignedOut => sign_in_page(app, &site, headers, site.home, false),
        AccessError::NotAllowed => {
            let (status, message) = (StatusCode::FORBIDDEN, Message::LoginRefused);
            PageError::new(headers, status, message, &"not for this person").into_response()
        }
        AccessError::Unavailable(reason) => {
            let (status, message) = (StatusCode::SERVICE_UNAVAILABLE, Message::ProviderUnavailable);
            PageError::new(headers, status, message, &reason).into_response()
        }
        AccessError::Storage(error) => PageError::storage(headers, &error).into_response(),
    })
}

/// Reads a form that one of our pages sent in this web session.
async fn read_form(
    app: &App,
    headers: &HeaderMap,
    query: Option<&str>,
    body: Body,
) -> Result<(SignedInPerson, Params), Response> {
    let visitor = enter(app, headers).await?;
    let form = console::read_form(&Site::account(app), headers, query, body).await;
    let form = form.map_err(IntoResponse::into_response)?;
    console::check_csrf(headers, &visitor, &form).map_err(IntoResponse::into_response)?;
    Ok((visitor, form))
}

fn home(app: &App) -> String {
    app.config().public_url.join(paths::ACCOUNT)
}

/// `GET /account`.
pub(super) async fn get(
    State(app): State<App>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, Response> {
    let visitor = enter(&app, &headers).await?;
    let connections = app.storage().connected_clients(&visitor.session.subject, app.now()).await;
    let connections =
        connections.map_err(|error| PageError::storage(&headers, &error).into_response())?;
    let mut frame = Frame::new(&headers, &visitor, &Site::account(&app));
    let w = AccountWords::of(frame.language);
    frame.notice = match query.as_deref() {
        Some("done=disconnected") => Some(w.disconnected.to_owned()),
        Some("done=not_there") => Some(w.not_there.to_owned()),
        _ => None,
    };
    let connections =
        connections.into_iter().map(|row| AccountPage::of(&app, frame.language, row)).collect();
    let template = AccountTemplate { frame: &frame, w, connections };
    Ok(frame.answer(StatusCode::OK, template.render()))
}

/// `POST /account/sign-in`.
pub(super) async fn sign_in(
    State(app): State<App>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, PageError> {
    let site = Site::account(&app);
    console::read_form(&site, &headers, query.as_deref(), body).await?;
    console::begin_sign_in(&app, &site, &headers, site.home, false).await
}

/// `GET /account/signed-in`: finishes the sign-in when the browser comes back from the identity provider.
pub(super) async fn signed_in(
    State(app): State<App>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, PageError> {
    console::finish_sign_in(&app, &Site::account(&app), &headers, query.as_deref()).await
}

/// `POST /account/disconnect`: disconnects one application from one MCP server.
pub(super) async fn disconnect(
    State(app): State<App>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Response> {
    let (visitor, form) = read_form(&app, &headers, query.as_deref(), body).await?;
    let field = |name| form.get(name).ok().flatten().unwrap_or_default();
    let subject = &visitor.session.subject;
    let event = app.event("grants_revoked", Actor::Person);
    let ended = app
        .storage()
        .disconnect(subject, field("client"), field("server"), app.now(), event)
        .await
        .map_err(|error| PageError::storage(&headers, &error).into_response())?;
    let done = if ended > 0 { "disconnected" } else { "not_there" };
    Ok(see_other(&format!("{}?done={done}", home(&app))))
}

/// `POST /account/sign-out`: ends this browser's web session, and the provider's session too if the provider
/// has a logout page.
pub(super) async fn sign_out(
    State(app): State<App>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Response> {
    let (visitor, _) = read_form(&app, &headers, query.as_deref(), body).await?;
    let response = console::sign_out(&app, &Site::account(&app), &headers, &visitor).await;
    let response = response.map_err(IntoResponse::into_response)?;
    Ok(on_to_provider(&app, &visitor, response).await)
}

/// `GET /account/confirm`: shows what signing out everywhere would end.
pub(super) async fn confirm(
    State(app): State<App>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, Response> {
    let visitor = enter(&app, &headers).await?;
    let storage = |error| PageError::storage(&headers, &error).into_response();
    let (subject, now) = (&visitor.session.subject, app.now());
    let ending = Ending::SignOut(subject.clone());
    let counted = app.storage().count_ending(&ending, now).await.map_err(storage)?;
    let connections = app.storage().connected_clients(subject, now).await.map_err(storage)?;
    let mut frame = Frame::new(&headers, &visitor, &Site::account(&app));
    let language = frame.language;
    let (w, c) = (AccountWords::of(language), CountWords::of(language));
    if query.as_deref() == Some("changed=1") {
        frame.notice = Some(c.changed.to_owned());
    }
    let template = ConfirmTemplate {
        w,
        c,
        connections: connections
            .into_iter()
            .map(|row| AccountPage::of(&app, language, row))
            .collect(),
        any: counted.grants > 0,
        number: number(language, &counted),
        token: console::confirmation(&app, &visitor, EVERYWHERE, &counted),
        home: home(&app),
        frame: &frame,
    };
    Ok(frame.answer(StatusCode::OK, template.render()))
}

/// `POST /account/sign-out-everywhere`: ends every grant and every session of this person.
pub(super) async fn sign_out_everywhere(
    State(app): State<App>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Response> {
    let (visitor, form) = read_form(&app, &headers, query.as_deref(), body).await?;
    let storage = |error| PageError::storage(&headers, &error).into_response();
    let subject = &visitor.session.subject;
    let asks_first = app.config().public_url.join(paths::ACCOUNT_CONFIRM);
    let sent = form.get("counted").ok().flatten().unwrap_or_default();
    if sent.is_empty() {
        return Ok(see_other(&asks_first));
    }
    let again = || see_other(&format!("{asks_first}?changed=1"));
    let now = app.now();
    let ending = Ending::SignOut(subject.clone());
    let counted = app.storage().count_ending(&ending, now).await.map_err(storage)?;
    if !console::is_confirmed(&app, &visitor, EVERYWHERE, &counted, sent) {
        return Ok(again());
    }
    let event = app.event("person_signed_out", Actor::Person);
    let because = "the person signed out everywhere";
    let ended = app.storage().sign_out_as_counted(subject, because, Some(&counted), now, event);
    if ended.await.map_err(storage)? == Ended::Recounted {
        return Ok(again());
    }
    let response = console::signed_out(&Site::account(&app));
    Ok(on_to_provider(&app, &visitor, response).await)
}

/// Redirects the browser to the provider's logout page if the provider has one. Our own sessions have ended
/// before. The provider sends the browser back to us if our address is registered there as a logout
/// redirect.
async fn on_to_provider(app: &App, visitor: &SignedInPerson, mut response: Response) -> Response {
    let url = app.upstream().end_session_url(&visitor.session.session_id, &home(app)).await;
    match url {
        Ok(Some(url)) => {
            if let Ok(url) = HeaderValue::from_str(url.as_str()) {
                response.headers_mut().insert(header::LOCATION, url);
            }
        }
        Ok(None) => {}
        Err(cause) => tracing::error!(%cause, "the provider's logout page is not known now"),
    }
    response
}
