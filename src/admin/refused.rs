//! `/refused`: the people refused by the rules, why, and what would let them in (threat AD-06). What the identity
//! provider sent is kept for some days (`limits.refused_person_expiry`).

use askama::Template;
use axum::response::Response;

use super::advice::Advice;
use super::client_label::{ClientLabel, label_of};
use super::configured::ConfiguredServer;
use super::links::{PagePlace, ROWS, person_path, query, refused_person_path};
use super::people::{FactWords, fact};
use super::rule_view::{ReportWords, RuleView};
use super::visit::AdminPage;
use crate::app::App;
use crate::config::ConfigSource;
use crate::policy::{Fact, Facts};
use crate::storage::{AuditFilter, RefusedAt, RefusedFilter, RefusedPerson, StorageError};
use crate::web::list_page::{Frame, Pager};
use crate::web::page_error::PageError;
use crate::web::words::{Language, words};

/// Rows that a search by name looks at: 1000, the newest.
const SEARCHED: i64 = 1_000;

words! {
    struct RefusedWords {
        title: "Refused people", "拒否された利用者";
        about: "People refused by the rules of an MCP server, with what the identity provider sent about them. It is stored sealed, for {0}, for {1} people at most.", "MCPサーバーのルールにより拒否された利用者と、IDプロバイダーから送信された情報です。暗号化され、{0}、最大{1}人分保存されます。";
        days: "{0} days", "{0}日間";
        hours: "{0} hours", "{0}時間";
        off: "Nothing is stored: limits.refused_people is 0.", "何も保存されません: limits.refused_people が 0 です。";
        search: "Name, e-mail address, subject, or reference number of a page", "名前・メールアドレス・サブジェクト・ページの参照番号";
        server: "MCP server", "MCPサーバー";
        any: "all", "すべて";
        find: "Search", "検索";
        none: "Nobody was refused.", "拒否された利用者はいません。";
        no_match: "No refused person matches “{0}”.", "「{0}」に一致する利用者はありません。";
        clear: "Clear", "解除";
        person: "Person", "利用者";
        when: "Last refused", "最後の拒否";
        why: "Why", "理由";
        times: "Times", "回数";
        first: "First refused", "最初の拒否";
        when_in_flow: "Refused", "拒否の時点";
        sign_in: "at the sign-in", "サインイン時";
        step_up: "when asking for more scopes", "スコープの追加を要求した時";
        recheck: "at a re-check, so the connection ended", "再確認時(接続は終了)";
        subject: "Subject", "サブジェクト";
        email: "E-mail address", "メールアドレス";
        verified: "verified", "確認済み";
        not_verified: "not verified", "未確認";
        client: "Client", "クライアント";
        asked: "Asked for", "要求";
        reference: "Reference number of the page", "ページの参照番号";
        not_sent: "This is a fault, and no decision about this person: the identity provider did not send what the rules read ({0}), or not completely, or not in a form that can be read. Run portcullis check --login to see what arrives and what to change.", "これはこの利用者に対する判定ではなく、設定または通信の不具合です。ルールが参照する情報({0})がIDプロバイダーから送信されなかったか、省略されたか、読み取れない形式でした。portcullis check --login で、届いた情報と必要な変更を確認できます。";
        let_in: "What would let them in", "利用できるようにするには";
        gives: "gives", "許可:";
        also: "A change of a rule applies to everybody that the rule matches.", "ルールの変更は、該当するすべての人に適用されます。";
        draft: "Draft a rule and see who gains or loses", "ルールを下書きして影響を確認する";
        now_allowed: "With the rules as they are now, and what the provider sent then, this person would be let in.", "現在のルールでは、このとき送信された情報により利用できます。";
        since: "Since then, the provider has sent other facts about this person. With these, they are let in.", "その後、プロバイダーから別の情報が送信されました。その情報では利用できます。";
        gone: "This MCP server is no longer configured.", "このMCPサーバーは設定から削除されています。";
        arrived: "What the identity provider sent", "IDプロバイダーから送信された情報";
        cut: "The provider sent more than is stored; the lists are cut, and a condition may be shown as not met because of it.", "送信された情報が多すぎるため、一覧を省略しています。そのため、条件が満たされていないと表示されることがあります。";
        claims: "Claims that rules name", "ルールが参照するクレーム";
        rules: "The rules, one by one", "各ルールの判定";
        rules_note: "All conditions of a rule must be true. What a rule denies is denied, whatever another allows.", "ルールの条件はすべて満たす必要があります。いずれかのルールが拒否したものは、ほかのルールが許可していても拒否されます。";
        nothing: "nothing", "なし";
        audit: "History in the audit trail", "監査ログの履歴";
        page: "This person", "この利用者のページ";
        all: "All refused people", "拒否された利用者の一覧";
        expired: "Nothing is stored about a refusal of this person at this MCP server. It is kept for {0}, and for the {1} people who were refused last.", "このMCPサーバーでのこの利用者の拒否については、何も保存されていません。保存されるのは{0}、最後に拒否された{1}人までです。";
    }
}

impl RefusedWords {
    /// Says for how long, and for how many people, refusals are kept.
    fn bounds(&self, text: &str, app: &App) -> String {
        let limits = &app.config().limits;
        let hours = limits.refused_person_expiry.as_secs() / 3600;
        let (text_of, number) =
            if hours.is_multiple_of(24) { (self.days, hours / 24) } else { (self.hours, hours) };
        let kept = text_of.replace("{0}", &number.to_string());
        text.replace("{0}", &kept).replace("{1}", &limits.refused_people.to_string())
    }

    fn step(&self, step: RefusedAt) -> &'static str {
        match step {
            RefusedAt::SignIn => self.sign_in,
            RefusedAt::StepUp => self.step_up,
            RefusedAt::Recheck => self.recheck,
        }
    }
}

/// Returns the name of a refused person, or their subject if no name is known.
pub(super) fn shown_name(row: &RefusedPerson) -> &str {
    let name = row.person.name.as_deref().filter(|name| !name.trim().is_empty());
    name.or(row.person.email.as_deref()).unwrap_or(&row.subject)
}

/// Explains why today's rules refuse this person with these facts. `None` if they let them in.
fn advice<'a>(
    server: ConfiguredServer<'a>,
    row: &'a RefusedPerson,
    facts: &'a Facts,
    language: Language,
) -> Option<Advice<'a>> {
    let (policy, client) = (&server.resource.policy, row.client_id.as_str());
    let let_in = match row.step {
        RefusedAt::SignIn | RefusedAt::Recheck => {
            let granted = policy.decide(facts, client, &row.asked).granted;
            !granted.is_empty() || !policy.refuses(&row.asked)
        }
        // All that was lacking is needed.
        RefusedAt::StepUp => false,
    };
    if let_in { None } else { Advice::of(server, facts, client, &row.asked, language) }
}

/// A refused person in the list.
struct RefusedRow {
    row: RefusedPerson,
    server: String,
    why: String,
}

impl RefusedRow {
    fn of(row: RefusedPerson, app: &App, source: &ConfigSource, frame: &Frame) -> Self {
        let w = RefusedWords::of(frame.language);
        let server = ConfiguredServer::with_id(app.config(), source, &row.resource);
        let facts = &row.person.facts;
        let why = match server {
            None => w.gone.to_owned(),
            Some(server) => advice(server, &row, facts, frame.language)
                .map_or_else(|| w.now_allowed.to_owned(), |advice| advice.why()),
        };
        let server = server.map_or_else(|| row.resource.clone(), |one| one.name().to_owned());
        Self { row, server, why }
    }

    fn name(&self) -> &str {
        shown_name(&self.row)
    }

    fn path(&self) -> String {
        refused_person_path(&self.row.subject, &self.row.resource)
    }
}

#[derive(Template)]
#[template(path = "admin/refused.html")]
struct RefusedTemplate<'a> {
    frame: &'a Frame,
    w: &'static RefusedWords,
    about: String,
    search: &'a str,
    servers: Vec<(&'a str, &'a str, bool)>,
    rows: Vec<RefusedRow>,
    no_match: Option<String>,
    pager: Pager,
}

pub(super) async fn list(visit: AdminPage) -> Result<Response, PageError> {
    let frame = visit.frame("/refused").await?;
    let w = RefusedWords::of(frame.language);
    let app = visit.app();
    let (search, server) = (visit.param("q").trim(), visit.param("server"));
    let filter = RefusedFilter { resource: server.to_owned(), ..RefusedFilter::default() };
    // What a search finds is one page.
    let filter = if search.is_empty() {
        let after = visit.param("after").to_owned();
        RefusedFilter { after, backwards: !visit.param("back").is_empty(), ..filter }
    } else {
        filter
    };
    let mut rows = if search.is_empty() {
        app.storage().refused_people(&filter, ROWS + 1).await?
    } else {
        refused_matching(app, &filter, search).await?
    };
    let place = PagePlace { row: &filter.after, backwards: filter.backwards };
    let pager = place.pager(frame.language, &mut rows, |row, backwards| {
        let after = format!("{} {} {}", row.refused_at.unix(), row.subject, row.resource);
        let mut link = query("/refused");
        link.append_pair("server", server).append_pair("after", &after);
        if backwards {
            link.append_pair("back", "1");
        }
        link.finish()
    });
    let source = app.config_source();
    let about = if app.config().limits.refused_people == 0 { w.off } else { w.about };
    let template = RefusedTemplate {
        about: w.bounds(about, app),
        servers: ConfiguredServer::all(app.config(), &source)
            .map(|one| (one.resource.id.as_str(), one.name(), one.resource.id == server))
            .collect(),
        no_match: (!search.is_empty()).then(|| w.no_match.replace("{0}", search)),
        rows: rows.into_iter().map(|row| RefusedRow::of(row, app, &source, &frame)).collect(),
        frame: &frame,
        w,
        search,
        pager,
    };
    Ok(frame.answer(template.render()))
}

/// Returns the refused people that a search finds: by name, address or subject, or by the reference of a page.
/// A reference may be of an earlier refusal, which the audit trail knows.
pub(super) async fn refused_matching(
    app: &App,
    filter: &RefusedFilter,
    search: &str,
) -> Result<Vec<RefusedPerson>, StorageError> {
    let (lower, reference) = (search.to_lowercase(), search.to_uppercase());
    let is_found = |row: &RefusedPerson| {
        let texts = [&row.person.name, &row.person.email];
        row.subject == search
            || row.reference.as_ref() == Some(&reference)
            || texts.into_iter().flatten().any(|text| text.to_lowercase().contains(&lower))
    };
    let mut rows = app.storage().refused_people(filter, SEARCHED).await?;
    rows.retain(is_found);
    rows.truncate(usize::try_from(ROWS).unwrap_or(usize::MAX));
    if !rows.is_empty() {
        return Ok(rows);
    }
    let lines = AuditFilter { reference, ..AuditFilter::default() };
    for line in app.storage().audit_lines(&lines, 1).await? {
        if let (Some(subject), Some(resource)) = (&line.subject, &line.resource) {
            rows.extend(app.storage().refused_person(subject, resource).await?);
        }
    }
    Ok(rows)
}

#[derive(Template)]
#[template(path = "admin/refused_person.html")]
struct RefusedPersonTemplate<'a> {
    frame: &'a Frame,
    w: &'static RefusedWords,
    f: &'static FactWords,
    row: &'a RefusedPerson,
    server: String,
    client: ClientLabel,
    claims: Vec<(&'a String, String)>,
    step: &'static str,
    advice: Option<Advised>,
    reports: Vec<RuleView>,
    rw: &'static ReportWords,
    /// Why there is no advice.
    no_advice: &'static str,
    /// The provider has sent other facts since, with which the person is let in.
    let_in_since: bool,
    /// That the provider did not send what rules read.
    not_sent: Option<String>,
    person_path: Option<String>,
    draft_path: String,
}

/// The advice, prepared for display.
struct Advised {
    why: String,
    sentence: String,
    ways: Vec<(String, String)>,
}

impl RefusedPersonTemplate<'_> {
    fn name(&self) -> &str {
        shown_name(self.row)
    }

    fn fact(&self, known: &Fact) -> String {
        fact(self.f, known)
    }
}

pub(super) async fn one(visit: AdminPage) -> Result<Response, PageError> {
    let frame = visit.frame("/refused").await?;
    let w = RefusedWords::of(frame.language);
    let app = visit.app();
    let (subject, server) = (visit.param("sub"), visit.param("server"));
    let Some(row) = app.storage().refused_person(subject, server).await? else {
        return Ok(nothing_stored(&visit, &frame));
    };
    let source = app.config_source();
    let configured = ConfiguredServer::with_id(app.config(), &source, &row.resource);
    let facts = &row.person.facts;
    let advised = configured.and_then(|one| advice(one, &row, facts, frame.language));
    let person = app.storage().person_row(&row.subject).await?;
    let rw = ReportWords::of(frame.language);
    let draft = query("/servers/draft").append_pair("server", &row.resource).finish();
    let template = RefusedPersonTemplate {
        f: FactWords::of(frame.language),
        server: configured.map_or_else(|| row.resource.clone(), |one| one.name().to_owned()),
        client: label_of(app, &row.client_id).await?,
        claims: claims(&row, frame.language),
        let_in_since: match (&person, configured) {
            (Some(person), Some(one)) => person.person.as_ref().is_some_and(|person| {
                let now = &person.facts;
                now != facts && advice(one, &row, now, frame.language).is_none()
            }),
            _ => false,
        },
        no_advice: if configured.is_some() { w.now_allowed } else { w.gone },
        reports: advised.as_ref().map(|advice| RuleView::all(advice, rw)).unwrap_or_default(),
        advice: advised.as_ref().map(|advice| Advised {
            why: advice.why(),
            sentence: advice.sentence(),
            ways: advice.ways(),
        }),
        rw,
        not_sent: configured.and_then(|one| {
            let keys = one.resource.policy.not_known(facts, &row.client_id, &row.asked);
            (!keys.is_empty()).then(|| w.not_sent.replace("{0}", &keys.join(", ")))
        }),
        step: w.step(row.step),
        person_path: person.map(|person| person_path(&person.subject)),
        draft_path: draft,
        frame: &frame,
        w,
        row: &row,
    };
    Ok(frame.answer(template.render()))
}

/// Returns the claims that rules read, with their values.
fn claims(row: &RefusedPerson, language: Language) -> Vec<(&String, String)> {
    let unknown = FactWords::of(language).unreadable;
    let facts = &row.person.facts;
    let known = facts.claims.iter().map(|(path, value)| (path, value.to_string()));
    known.chain(facts.unknown_claims.iter().map(|path| (path, unknown.to_owned()))).collect()
}

#[derive(Template)]
#[template(path = "admin/refused_gone.html")]
struct GoneTemplate<'a> {
    frame: &'a Frame,
    w: &'static RefusedWords,
    text: String,
    audit_path: String,
}

/// Returns the page for a refusal that is not stored, or not any more: an audit line outlives it.
fn nothing_stored(visit: &AdminPage, frame: &Frame) -> Response {
    let w = RefusedWords::of(frame.language);
    let template = GoneTemplate {
        frame,
        w,
        text: w.bounds(w.expired, visit.app()),
        audit_path: query("/audit").append_pair("sub", visit.param("sub")).finish(),
    };
    frame.answer(template.render())
}
