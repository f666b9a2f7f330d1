//! `/people` and `/person`: who has signed in, what they may do and why, and how to end their access.

use std::collections::HashMap;

use askama::Template;
use axum::response::Response;

use super::confirm;
use super::connections::{ServiceView, ServiceWords};
use super::grant_view::GrantView;
use super::links::{PagePlace, ROWS, person_path, query};
use super::names::{Linked, Names};
use super::visit::{AdminForm, AdminPage, missing};
use crate::clock::Timestamp;
use crate::config::ResourceConfig;
use crate::connections::provider_keys;
use crate::oauth::scope::ScopeSet;
use crate::policy::{Fact, Facts};
use crate::storage::{
    ConnectionFilter, GrantFilter, PersonFilter, PersonRow, ProviderSession, WebSessionRow,
};
use crate::web::in_force::InForceWords;
use crate::web::list_page::{Frame, Pager, count};
use crate::web::page_error::PageError;
use crate::web::words::words;

words! {
    /// Words for a person's facts. The page of MCP servers uses them too.
    pub(super) struct FactWords {
        groups: "Groups", "グループ";
        roles: "Roles", "ロール";
        permissions: "Permissions", "権限";
        none: "none", "なし";
        not_told: "not told by the identity provider", "IDプロバイダーからの情報なし";
        unreadable: "not known now, because it cannot be read or was not answered: rules that allow do not match, rules that deny do", "読み取れないか回答がないため、現在は不明です。許可のルールには該当せず、拒否のルールには該当します";
    }
}

words! {
    struct PeopleWords {
        title: "People", "利用者";
        search: "Name, beginning of a name, e-mail address or ID", "名前、名前の先頭、メールアドレス、ID";
        only_blocked: "Only blocked", "ブロック中のみ";
        find: "Search", "検索";
        clear: "Clear", "条件をクリア";
        none: "No people match.", "該当する利用者はありません。";
        one: "person", "人";
        many: "people", "人";
        latest_first: "latest first", "新しい順";
        oldest_first: "longest ago first", "古い順";
        name: "Name", "名前";
        email: "E-mail address", "メールアドレス";
        subject: "Subject", "サブジェクト";
        first_seen: "First sign-in", "初回サインイン";
        last_seen: "Last sign-in", "最終サインイン";
        connections: "Connections", "接続";
        state: "Status", "状態";
        blocked: "blocked", "ブロック中";
        blocked_at: "Blocked", "ブロック";
        by: "by", "実行者:";
        provider: "Identity provider", "IDプロバイダー";
        subject_there: "Subject at the provider", "プロバイダーでのサブジェクト";
        verified: "verified", "確認済み";
        not_verified: "not verified", "未確認";
        claims: "Claims that rules name", "ルールが参照するクレーム";
        unknown: "no longer known", "情報は残っていません";
        may: "What this person may do, and why", "この利用者にできることとその理由";
        may_note: "Decided now, from the facts above, as if a client asked for every scope.", "上記の情報に基づき、クライアントがすべてのスコープを要求したものとして、現時点で判定しています。";
        by_client: "Some rules name clients; those do not match here.", "クライアントを指定するルールは、ここでは該当しません。";
        try_client: "Try with a client", "クライアントを指定して試す";
        server: "MCP server", "MCPサーバー";
        granted: "May", "許可";
        missing: "May not", "不許可";
        why: "Why", "理由";
        rules_matched: "Matching rules: ", "該当したルール: ";
        no_rules: "There are no rules: everybody may.", "ルールがないため、全員に許可されます。";
        no_rule: "No rule matches.", "該当するルールがありません。";
        baseline: "Everybody may.", "全員に許可されます。";
        refused: "is not let in", "利用できません";
        is_let_in: "is let in", "利用できます";
        nothing: "nothing", "なし";
        blocked_note: "This person is blocked, so none of this is given to anybody.", "この利用者はブロック中のため、実際には何も許可されません。";
        client: "Client", "クライアント";
        since: "Since", "開始";
        last_use: "Last use", "最終利用";
        live: "live", "有効";
        unnamed: "(no name)", "(名前なし)";
        no_connection: "None at the moment.", "現在はありません。";
        all_connections: "All connections, including ended ones", "終了したものも含むすべての接続";
        end: "End", "終了";
        at_provider: "Sessions at the identity provider", "IDプロバイダーのセッション";
        at_pages: "Sessions at the pages of this server", "このサーバーのページのセッション";
        no_session: "None.", "ありません。";
        began: "Began", "開始";
        last_yes: "Last confirmed", "プロバイダーの最終確認";
        pages: "Pages", "ページ";
        admin_pages: "admin pages", "管理画面";
        account_pages: "own connections", "自分の接続";
        last_request: "Last request", "最終アクセス";
        ends: "Ends", "期限";
        ended: "ended", "終了";
        expired: "expired", "期限切れ";
        active: "active", "有効";
        usage: "What this person used in the last 30 days", "この利用者の直近30日間の利用状況";
        history: "History in the audit trail", "監査ログの履歴";
        sign_out: "Sign out everywhere", "すべてからサインアウト";
        block: "Block", "ブロック";
        unblock: "Unblock", "ブロック解除";
        end_all: "End all connections", "すべての接続を終了";
        end_note: "Ends what their clients have, open streams included. They stay signed in here, and can connect again.", "クライアントの接続を、開いているストリームを含めて終了します。このサーバーへのサインインは残り、もう一度接続できます。";
        sign_out_note: "Ends their connections and all their sessions here. They can sign in again.", "接続と、このサーバーのすべてのセッションを終了します。もう一度サインインできます。";
        block_note: "Ends all of that. They cannot sign in until they are unblocked.", "接続とセッションをすべて終了し、ブロックを解除するまでサインインを拒否します。";
        unblock_note: "They can sign in and connect again. What has ended stays ended.", "もう一度サインインして接続できます。終了したものは元に戻りません。";
        not_yourself: "You cannot block yourself.", "自分自身はブロックできません。";
        shell: "an administrator (command line)", "管理者(コマンドライン)";
        done_one: "The connection has ended.", "接続を終了しました。";
        done_end: "All connections of this person have ended.", "この利用者の接続をすべて終了しました。";
        no_service: "None: MCP servers use no service as this person.", "ありません。MCPサーバーがこの利用者として使うサービスはありません。";
        remove_services: "Remove all connected services", "すべての連携サービスを解除";
        remove_services_note: "Deletes the tokens of all services that this person connected. MCP servers ask them to connect again.", "この利用者が連携したすべてのサービスのトークンを削除します。MCPサーバーは再連携を求めます。";
        blocked_services: "This person is blocked: no MCP server gets a token of theirs. The services stay connected.", "この利用者はブロック中のため、どのMCPサーバーにもトークンは渡されません。連携自体は残ります。";
        done_services: "The connected services were removed.", "連携を解除しました。";
        done_sign_out: "This person is signed out everywhere, and all their connections have ended.", "すべてからサインアウトさせ、接続をすべて終了しました。";
        done_block: "This person is blocked; all their sessions and connections have ended.", "ブロックし、セッションと接続をすべて終了しました。";
        done_unblock: "This person is no longer blocked and can sign in again.", "ブロックを解除しました。もう一度サインインできます。";
    }
}

/// Describes one kind of facts in words.
pub(super) fn fact(w: &'static FactWords, fact: &Fact) -> String {
    match fact {
        Fact::Known(values) if values.is_empty() => w.none.to_owned(),
        Fact::Known(values) => values.join(", "),
        Fact::Absent => w.not_told.to_owned(),
        Fact::Unknown => w.unreadable.to_owned(),
    }
}

/// Returns a person's name, or their subject if no name is known.
fn name_of(row: &PersonRow) -> &str {
    let person = row.person.as_ref();
    let name = person.and_then(|person| person.name.as_deref());
    let email = person.and_then(|person| person.email.as_deref());
    let mut known = [name, email].into_iter().flatten().filter(|text| !text.trim().is_empty());
    known.next().unwrap_or(&row.subject)
}

#[derive(Template)]
#[template(path = "admin/people.html")]
struct PeopleTemplate<'a> {
    frame: &'a Frame,
    w: &'static PeopleWords,
    filter: &'a PersonFilter,
    number: String,
    is_one: bool,
    rows: Vec<PersonRow>,
    live_grants: HashMap<String, i64>,
    pager: Pager,
}

impl PeopleTemplate<'_> {
    fn live(&self, row: &PersonRow) -> i64 {
        self.live_grants.get(&row.subject).copied().unwrap_or_default()
    }

    fn name(row: &PersonRow) -> &str {
        name_of(row)
    }

    /// Returns the path to the same list in the other order.
    fn turned(&self) -> String {
        list_path(self.filter, !self.filter.oldest_first, &[])
    }
}

/// Returns the path of a list of people.
fn list_path(filter: &PersonFilter, oldest_first: bool, further: &[(&str, &str)]) -> String {
    let yes = |set: bool| if set { "1" } else { "" };
    let fields: [(&str, &str); 3] =
        [("q", &filter.search), ("blocked", yes(filter.blocked)), ("oldest", yes(oldest_first))];
    let mut query = query("/people");
    let kept = fields.into_iter().filter(|(_, value)| !value.is_empty());
    let path = query.extend_pairs(kept).extend_pairs(further).finish();
    path.trim_end_matches('?').to_owned()
}

pub(super) async fn list(visit: AdminPage) -> Result<Response, PageError> {
    let frame = visit.frame("/people").await?;
    let filter = PersonFilter {
        search: visit.param("q").trim().to_owned(),
        blocked: !visit.param("blocked").is_empty(),
        oldest_first: !visit.param("oldest").is_empty(),
        after: visit.param("after").to_owned(),
        backwards: !visit.param("back").is_empty(),
    };
    let storage = visit.app().storage();
    let mut rows = storage.browse_people(&filter, ROWS + 1).await?;
    let place = PagePlace { row: &filter.after, backwards: filter.backwards };
    let pager = place.pager(frame.language, &mut rows, |row, backwards| {
        let after = format!("{} {}", row.last_seen_at.unix(), row.subject);
        let further: &[(&str, &str)] = if backwards { &[("back", "1")] } else { &[] };
        let further = [&[("after", after.as_str())][..], further].concat();
        list_path(&filter, filter.oldest_first, &further)
    });
    let number = storage.count_people(&filter).await?;
    let subjects: Vec<&str> = rows.iter().map(|row| row.subject.as_str()).collect();
    let live_grants = storage.live_grants(&subjects, visit.app().now()).await?;
    let template = PeopleTemplate {
        frame: &frame,
        w: PeopleWords::of(frame.language),
        number: count(frame.language, number),
        is_one: number == 1,
        rows,
        live_grants,
        pager,
        filter: &filter,
    };
    Ok(frame.answer(template.render()))
}

/// The scopes that a person gets at one MCP server, prepared for display.
struct Effective<'a> {
    name: &'a str,
    id: &'a str,
    granted: String,
    missing: String,
    matched: String,
    has_rules: bool,
    refused: bool,
}

impl<'a> Effective<'a> {
    fn of(resource: &'a ResourceConfig, facts: &Facts) -> Self {
        let policy = &resource.policy;
        // Cannot fail: the declared scopes of a resource are never in excess of it.
        let explained = policy.explain(facts, "", &policy.declared).ok();
        let text = |scopes: Option<&ScopeSet>| scopes.map(ToString::to_string).unwrap_or_default();
        let decision = explained.as_ref().map(|explained| &explained.decision);
        Self {
            name: resource.name.as_deref().unwrap_or(&resource.id),
            id: &resource.id,
            granted: text(decision.map(|decision| &decision.granted)),
            missing: text(decision.map(|decision| &decision.missing)),
            matched: decision.map(|decision| decision.matched.join(", ")).unwrap_or_default(),
            has_rules: !policy.rules.is_empty(),
            refused: explained.as_ref().is_none_or(|explained| explained.refused),
        }
    }

    fn try_path(&self, subject: &str) -> String {
        let mut query = query("/servers");
        let query = query.append_pair("server", self.id).append_pair("sub", subject);
        format!("{}#try", query.finish())
    }
}

#[derive(Template)]
#[template(path = "admin/person.html")]
struct PersonTemplate<'a> {
    frame: &'a Frame,
    w: &'static PeopleWords,
    f: &'static FactWords,
    scopes: &'static InForceWords,
    person: &'a PersonRow,
    provider: &'a str,
    claims: Vec<(&'a String, String)>,
    effective: Vec<Effective<'a>>,
    by_client: bool,
    grants: Vec<GrantView>,
    services: Vec<ServiceView>,
    s: &'static ServiceWords,
    sessions: (Vec<ProviderSession>, Vec<WebSessionRow>),
    yourself: bool,
    /// Who blocked the person, by name, and the link to their page.
    blocker: Option<Linked>,
    now: Timestamp,
}

impl PersonTemplate<'_> {
    fn name(&self) -> &str {
        name_of(self.person)
    }

    fn fact(&self, known: &Fact) -> String {
        fact(self.f, known)
    }

    fn encoded_subject(&self) -> String {
        form_urlencoded::byte_serialize(self.person.subject.as_bytes()).collect()
    }

    fn is_over(&self, session: &WebSessionRow) -> bool {
        self.now >= session.expires_at
    }
}

pub(super) async fn one(visit: AdminPage) -> Result<Response, PageError> {
    let storage = visit.app().storage();
    let subject = visit.param("sub");
    let row = storage.person_row(subject).await?;
    let person = row.ok_or_else(missing)?;
    let mut frame = visit.frame("/people").await?;
    let (w, s) = (PeopleWords::of(frame.language), ServiceWords::of(frame.language));
    frame.notice = done(w, visit.param("done")).map(str::to_owned);
    let now = visit.app().now();
    let filter = GrantFilter { subject: subject.to_owned(), ..GrantFilter::default() };
    let grants = storage.browse_grants(&filter, now, ROWS).await?;
    let sessions = storage.sessions_of(&person).await?;
    let blocker = match person.blocked.as_ref().map(|(_, by)| by.as_str()) {
        Some("shell") => Some(Linked::plain(w.shell)),
        Some(by) => Some(Names::of(storage, &[by], &[]).await?.person(by)),
        None => None,
    };
    let facts = person.person.as_ref().map(|person| &person.facts);
    let resources = &visit.app().config().resources;
    let template = PersonTemplate {
        frame: &frame,
        w,
        f: FactWords::of(frame.language),
        scopes: InForceWords::of(frame.language),
        provider: &visit.app().config().upstream.name,
        claims: facts
            .iter()
            .flat_map(|facts| &facts.claims)
            .map(|(path, value)| (path, value.to_string()))
            .chain(facts.iter().flat_map(|facts| {
                let unknown = FactWords::of(frame.language).unreadable;
                facts.unknown_claims.iter().map(|path| (path, unknown.to_owned()))
            }))
            .collect(),
        effective: facts
            .iter()
            .flat_map(|facts| resources.iter().map(|resource| Effective::of(resource, facts)))
            .collect(),
        by_client: resources
            .iter()
            .flat_map(|resource| &resource.policy.rules)
            .any(|rule| rule.conditions.clients.is_some()),
        grants: GrantView::of_all(&visit, &frame, grants),
        services: services(&visit, s, subject).await?,
        s,
        sessions,
        blocker,
        yourself: person.subject == visit.by(),
        now,
        person: &person,
    };
    Ok(frame.answer(template.render()))
}

/// Returns the services that a person has connected: one row for each configured service, and for former ones.
async fn services(
    visit: &AdminPage,
    s: &'static ServiceWords,
    subject: &str,
) -> Result<Vec<ServiceView>, PageError> {
    let configured = Some(provider_keys(visit.app().config()));
    let filter = ConnectionFilter { subject: subject.to_owned(), configured, ..Default::default() };
    Ok(ServiceView::first(visit.app(), s, &filter, ROWS).await?)
}

fn done(w: &'static PeopleWords, what: &str) -> Option<&'static str> {
    Some(match what {
        "one" => w.done_one,
        "end" => w.done_end,
        "sign_out" => w.done_sign_out,
        "block" => w.done_block,
        "unblock" => w.done_unblock,
        "services" => w.done_services,
        "not_yourself" => w.not_yourself,
        _ => return None,
    })
}

pub(super) async fn act(action: AdminForm) -> Result<Response, PageError> {
    let visit = &action.visit;
    let (subject, what) = (action.field("sub"), action.field("action"));
    let storage = visit.app().storage();
    let row = storage.person_row(subject).await?;
    let path = person_path(&row.ok_or_else(missing)?.subject);
    if !matches!(what, "end" | "sign_out" | "block" | "unblock") {
        return Err(missing());
    }
    // A person who blocked themselves could not sign in again to undo it.
    if what == "block" && subject == visit.by() {
        action.needs_fresh_proof(&path)?;
        return Ok(visit.go(&format!("{path}&done=not_yourself")));
    }
    if what != "unblock" {
        let asked = confirm::act_on_person(&action, what, subject).await?;
        return Ok(asked.unwrap_or_else(|| visit.go(&format!("{path}&done={what}"))));
    }
    action.needs_fresh_proof(&path)?;
    storage.unblock_person(subject, visit.event("person_unblocked")).await?;
    Ok(visit.go(&format!("{path}&done=unblock")))
}
