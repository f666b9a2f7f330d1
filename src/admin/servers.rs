//! `/servers`: the configured MCP servers, their rules in words, the recent refusals, and a form that shows
//! what a person may do on a server with a given client.

use askama::Template;
use axum::response::Response;

use super::audit::AuditPageLine;
use super::links::person_path;
use super::people::{FactWords, fact};
use super::visit::AdminPage;
use crate::config::{ResourceConfig, Transport};
use crate::oauth::scope::{Scope, ScopeSet};
use crate::policy::{Conditions, Explanation, OnExcess, Rule, Wanted};
use crate::storage::{AuditFilter, AuditLine};
use crate::web::list_page::Frame;
use crate::web::page_error::PageError;
use crate::web::words::words;

/// Refusals shown per server.
const SHOWN: usize = 10;
/// Audit lines of each kind that are searched for these refusals. With too few, the refusals of one server
/// can hide those of another.
const LOOKED_AT: i64 = 200;
/// Audit events that record a refusal at a server.
const REFUSALS: [&str; 3] = ["access_denied", "access_lost", "tool_refused"];

words! {
    struct ServerWords {
        title: "MCP servers", "MCPサーバー";
        id: "Identifier", "識別子";
        destructive: "deletes or overwrites", "削除または上書き";
        target: "Requests are forwarded to", "転送先";
        not_fronted: "nowhere: this server only gives out tokens for it", "転送なし(トークンの発行のみ)";
        default: "Meant by clients that name none", "指定がない場合の既定";
        yes: "yes", "はい";
        scopes: "Scopes", "スコープ";
        no_scopes: "none", "なし";
        defaults: "Given when a client asks for none", "要求がない場合のスコープ";
        baseline: "Everybody gets", "全員に許可";
        excess: "Unknown scopes in a request", "未知のスコープの要求";
        narrow: "are dropped", "除外";
        reject: "refuse the request", "要求を拒否";
        token_alg: "Tokens are signed with", "トークンの署名方式";
        implies: "implies", "は次を含む:";
        tools: "Tools that need scopes", "スコープが必要なツール";
        hidden: "Tools that somebody may not call", "利用できないツール";
        hidden_yes: "are left out of lists", "一覧から除外";
        transport: "Speaks", "通信方式";
        http_sse: "HTTP+SSE (2024-11-05)", "HTTP+SSE(2024-11-05)";
        assertion: "Is told who is calling, signed for", "署名付きの利用者情報の宛先";
        introspects: "May ask about tokens", "トークンの照会";
        rules: "Rules", "ルール";
        no_rules: "There are no rules: everybody whom the identity provider lets in gets what the client asks for.", "ルールはありません。IDプロバイダーがサインインを許可した全員に、クライアントが要求したスコープが許可されます。";
        rules_note: "All conditions of a rule must hold. What any rule denies is denied, whatever another allows.", "ルールの条件はすべて満たす必要があります。いずれかのルールが拒否したものは、ほかのルールが許可していても拒否されます。";
        rule: "Rule", "ルール";
        who: "Who", "対象";
        allows: "Allows", "許可";
        denies: "Denies", "拒否";
        everybody: "everybody", "全員";
        roles: "has one of the roles", "次のいずれかのロールを持つ:";
        groups: "is in one of the groups", "次のいずれかのグループに属する:";
        permissions: "has one of the permissions", "次のいずれかの権限を持つ:";
        not_roles: "has none of the roles", "次のロールを持たない:";
        not_groups: "is in none of the groups", "次のグループに属さない:";
        subjects: "is one of", "次のいずれかの人:";
        email_domains: "has a verified e-mail address at", "次のドメインの確認済みメールアドレスを持つ:";
        clients: "uses one of the clients", "次のいずれかのクライアントを利用:";
        claim: "has the claim", "クレーム";
        claim_is: "as one of", "が次のいずれか:";
        passthrough: "permissions of the provider that are named like scopes", "スコープと同名のプロバイダーの権限";
        usage: "What was used here in the last 30 days", "直近30日間の利用状況";
        refusals: "Recent refusals", "最近の拒否";
        no_refusals: "None.", "ありません。";
        time: "Time", "日時";
        event: "Event", "イベント";
        person: "Person", "利用者";
        client: "Client", "クライアント";
        detail: "Detail", "詳細";
        attempt: "What may somebody do here with a client?", "この利用者は、このクライアントで何ができますか?";
        attempt_note: "Replays the decision of a sign-in with what is known of the person. Nothing is given to anybody.", "保存されている利用者の情報で、サインイン時の判定を再現します。実際には何も許可されません。";
        server: "MCP server", "MCPサーバー";
        subject: "Subject of the person", "利用者のサブジェクト";
        client_id: "Client ID (may be left out)", "クライアントID(省略可)";
        requested: "Scopes asked for, parted by spaces (may be left out)", "要求するスコープ(空白区切り、省略可)";
        attempt_it: "Try", "試す";
        nobody: "Nobody with exactly this subject has signed in.", "このサブジェクトの利用者はサインインしたことがありません。";
        forgotten: "What the rules read of this person is not known any more; it is at the next sign-in.", "ルールが参照する情報は残っていません。次のサインインで取得されます。";
        not_scopes: "These are not scopes.", "スコープとして正しくありません。";
        asked: "Comes to", "判定の対象";
        granted: "May", "許可";
        missing: "May not", "不許可";
        matched: "Rules that matched", "該当したルール";
        nothing: "nothing", "なし";
        refused: "Not let in: nothing is left of what was asked for.", "利用できません。要求されたスコープが1つも許可されません。";
        rejected: "Refused: a scope is asked for that this server does not have.", "拒否: このサーバーにないスコープが要求されています。";
        let_in: "Let in.", "利用できます。";
        person_blocked: "This person is blocked, so they are not let in, whatever the rules say.", "この利用者はブロック中のため、ルールにかかわらず利用できません。";
        client_shut_out: "This client is blocked or refused, so it is given nothing, whatever the rules say.", "このクライアントはブロックまたは拒否されているため、ルールにかかわらず何も許可されません。";
        client_unknown: "No client with this ID is stored; rules that name it are read all the same.", "このIDのクライアントは保存されていませんが、IDを指定したルールは判定に含めています。";
    }
}

/// A rule in words.
struct RuleText {
    name: String,
    who: Vec<(String, String)>,
    allow: String,
    deny: String,
    passthrough: bool,
}

impl RuleText {
    fn of(w: &'static ServerWords, position: usize, rule: &Rule) -> Self {
        Self {
            name: rule.name.clone().unwrap_or_else(|| format!("rule {}", position + 1)),
            who: conditions(w, &rule.conditions),
            allow: rule.allow.to_string(),
            deny: rule.deny.to_string(),
            passthrough: rule.passthrough,
        }
    }
}

fn conditions(w: &'static ServerWords, conditions: &Conditions) -> Vec<(String, String)> {
    let names = [
        (w.roles, &conditions.roles),
        (w.groups, &conditions.groups),
        (w.permissions, &conditions.permissions),
        (w.not_roles, &conditions.not_roles),
        (w.not_groups, &conditions.not_groups),
    ];
    let names = names.into_iter().filter_map(|(text, names)| {
        let names: Vec<&str> = names.as_ref()?.iter().map(Wanted::as_str).collect();
        Some((text.to_owned(), names.join(", ")))
    });
    let lists = [
        (w.subjects, &conditions.subjects),
        (w.email_domains, &conditions.email_domains),
        (w.clients, &conditions.clients),
    ];
    let lists = lists.into_iter().filter_map(|(text, values)| {
        values.as_ref().map(|values| (text.to_owned(), values.join(", ")))
    });
    let claims = conditions
        .claims
        .iter()
        .map(|(path, values)| (format!("{} {path} {}", w.claim, w.claim_is), values.join(", ")));
    names.chain(lists).chain(claims).collect()
}

/// An MCP server, prepared for display.
struct ServerView<'a> {
    resource: &'a ResourceConfig,
    rules: Vec<RuleText>,
    refusals: Vec<AuditPageLine>,
}

impl ServerView<'_> {
    fn name(&self) -> &str {
        self.resource.name.as_deref().unwrap_or(&self.resource.id)
    }

    /// Returns the scopes that `scope` implies, separated by commas.
    fn implied(&self, scope: &Scope) -> String {
        let implied = self.resource.policy.hierarchy.implied_by(scope);
        implied.map(Scope::as_str).collect::<Vec<_>>().join(", ")
    }

    fn speaks_sse(&self) -> bool {
        self.resource.transport == Transport::HttpSse
    }

    fn narrows(&self) -> bool {
        self.resource.policy.on_excess == OnExcess::Narrow
    }
}

/// The input of the form.
struct Attempt<'a> {
    servers: Vec<(&'a str, bool)>,
    subject: &'a str,
    client_id: &'a str,
    requested: &'a str,
}

/// The result of the form.
#[derive(Default)]
struct TrialResult {
    /// Why there is no decision.
    problem: Option<&'static str>,
    /// Facts that override the rules, such as a blocked person.
    warnings: Vec<&'static str>,
    person: Option<(String, String)>,
    facts: Vec<(&'static str, String)>,
    explained: Option<Explanation>,
}

#[derive(Template)]
#[template(path = "admin/servers.html")]
struct ServersTemplate<'a> {
    frame: &'a Frame,
    w: &'static ServerWords,
    servers: Vec<ServerView<'a>>,
    attempt: Attempt<'a>,
    answer: Option<TrialResult>,
}

pub(super) async fn get(visit: AdminPage) -> Result<Response, PageError> {
    let frame = visit.frame("/servers").await?;
    let w = ServerWords::of(frame.language);
    let refusals = refusals(&visit).await?;
    let resources = &visit.app().config().resources;
    let mut servers = Vec::with_capacity(resources.len());
    for resource in resources {
        let of_this = |line: &&AuditLine| line.resource.as_deref() == Some(resource.id.as_str());
        let refusals = refusals.iter().filter(of_this).take(SHOWN).cloned().collect();
        let refusals = AuditPageLine::of_all(visit.app().storage(), refusals).await?;
        let rules = resource.policy.rules.iter().enumerate();
        servers.push(ServerView {
            resource,
            rules: rules.map(|(position, rule)| RuleText::of(w, position, rule)).collect(),
            refusals,
        });
    }
    let asked = visit.param("server");
    let template = ServersTemplate {
        frame: &frame,
        w,
        servers,
        attempt: Attempt {
            servers: resources.iter().map(|one| (one.id.as_str(), one.id == asked)).collect(),
            subject: visit.param("sub").trim(),
            client_id: visit.param("client").trim(),
            requested: visit.param("scopes").trim(),
        },
        answer: answer(&visit, w, FactWords::of(frame.language)).await?,
    };
    Ok(frame.answer(template.render()))
}

/// Loads the latest refusals of all servers, newest first.
async fn refusals(visit: &AdminPage) -> Result<Vec<AuditLine>, PageError> {
    let mut lines = Vec::new();
    for event in REFUSALS {
        let filter = AuditFilter { event: event.to_owned(), ..AuditFilter::default() };
        lines.extend(visit.app().storage().audit_lines(&filter, LOOKED_AT).await?);
    }
    lines.sort_by(|a, b| b.id.cmp(&a.id));
    Ok(lines)
}

async fn answer(
    visit: &AdminPage,
    w: &'static ServerWords,
    f: &'static FactWords,
) -> Result<Option<TrialResult>, PageError> {
    let (subject, client_id) = (visit.param("sub").trim(), visit.param("client").trim());
    let Some(resource) = visit.app().resource(visit.param("server")) else { return Ok(None) };
    if subject.is_empty() {
        return Ok(None);
    }
    let problem = |text| Ok(Some(TrialResult { problem: Some(text), ..TrialResult::default() }));
    let storage = visit.app().storage();
    let row = storage.person_row(subject).await?;
    let Some(row) = row else { return problem(w.nobody) };
    let Ok(requested) = ScopeSet::parse(visit.param("scopes").trim()) else {
        return problem(w.not_scopes);
    };
    let Some(person) = row.person else { return problem(w.forgotten) };
    let mut answer = TrialResult::default();
    if row.blocked.is_some() {
        answer.warnings.push(w.person_blocked);
    }
    if !client_id.is_empty() {
        let standing = storage.client_review(client_id).await?;
        if standing.is_denied() {
            answer.warnings.push(w.client_shut_out);
        }
        let known = storage.client_details(client_id).await?;
        if known.is_none() {
            answer.warnings.push(w.client_unknown);
        }
    }
    let facts = &person.facts;
    match resource.policy.explain(facts, client_id, &requested) {
        Ok(explained) => answer.explained = Some(explained),
        Err(_) => answer.problem = Some(w.rejected),
    }
    let known =
        [(f.roles, &facts.roles), (f.groups, &facts.groups), (f.permissions, &facts.permissions)];
    answer.facts = known.into_iter().map(|(label, known)| (label, fact(f, known))).collect();
    let name = person.name.clone().unwrap_or_else(|| subject.to_owned());
    answer.person = Some((person_path(subject), name));
    Ok(Some(answer))
}
