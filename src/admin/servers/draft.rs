//! `/servers/draft`: a draft of a rule, who would gain or lose by it, and its TOML. Nothing is changed.

use std::collections::HashSet;

use askama::Template;
use axum::response::Response;

use super::draft_form::{DraftForm, as_toml};
use crate::admin::configured::ConfiguredServer;
use crate::admin::links::{person_path, refused_person_path};
use crate::admin::refused::shown_name;
use crate::admin::visit::{AdminPage, missing};
use crate::app::App;
use crate::config::{Problem, read_rule};
use crate::policy::{Facts, Policy, Rule, ScopeChange};
use crate::storage::{PersonFilter, RefusedFilter, StorageError};
use crate::web::list_page::Frame;
use crate::web::page_error::PageError;
use crate::web::words::words;

/// People that a draft is tried with: 500, those who signed in last. As many who were refused last.
const PEOPLE: i64 = 500;
/// People shown of those who gain or lose: 100.
const SHOWN: usize = 100;

words! {
    struct DraftWords {
        title: "Draft a rule", "ルールの下書き";
        about: "Shows who would gain or lose which scopes. Nothing is changed: copy the rule into {0}.", "誰のスコープが増減するかを示します。何も変更されません。ルールを {0} にコピーしてください。";
        the_file: "the configuration file", "設定ファイル";
        back: "All MCP servers", "MCPサーバーの一覧";
        server: "MCP server", "MCPサーバー";
        position: "Position", "位置";
        new_rule: "a new rule", "新しいルール";
        replaces: "changes {0}", "{0} の変更";
        name: "Name (optional)", "名前(省略可)";
        conditions: "Conditions: all that you fill in must be true. One value a line; glob: and regex: begin patterns.", "条件: 入力したものをすべて満たす必要があります。1行に1つ入力します。glob: または regex: で始まる値はパターンです。";
        roles: "One of the roles", "次のいずれかのロール";
        groups: "One of the groups", "次のいずれかのグループ";
        permissions: "One of the permissions", "次のいずれかの権限";
        not_roles: "None of the roles", "持たないロール";
        not_groups: "None of the groups", "属さないグループ";
        subjects: "One of the subjects at the provider", "プロバイダーでのサブジェクト";
        email_domains: "A verified e-mail address at one of the domains", "確認済みメールアドレスのドメイン";
        clients: "One of the client IDs", "次のいずれかのクライアントID";
        claims: "Claims: path = value", "クレーム: パス = 値";
        allow: "Scopes to allow, separated by spaces", "許可するスコープ(空白区切り)";
        deny: "Scopes to deny, separated by spaces", "拒否するスコープ(空白区切り)";
        passthrough: "also allow the provider's permissions that are named like scopes", "スコープと同名のプロバイダーの権限も許可する";
        scopes: "Scopes of this MCP server", "このMCPサーバーのスコープ";
        try_it: "Show who gains or loses", "影響を確認";
        problems: "This is not a rule yet:", "ルールとして正しくありません:";
        result: "Who gains or loses", "影響を受ける人";
        bounded: "Tried with {0} people: the {1} who signed in last and those refused last at this MCP server, by what the provider sent last. People who have never come are not among them.", "{0}人で判定しました。最後にサインインした{1}人と、このMCPサーバーで最近拒否された人が対象で、プロバイダーから最後に送信された情報を使用しています。まだアクセスしたことのない人は含まれません。";
        with_client: "As if they used the client {0}.", "クライアント {0} を利用するものとして判定しています。";
        nobody: "Nobody of them gains or loses anything.", "影響を受ける人はいません。";
        sum: "{0} gain, {1} lose, {2} stay as they are.", "増加 {0}人、減少 {1}人、変化なし {2}人。";
        forgotten: "Of {0} people nothing is known any more.", "{0}人については情報が残っていません。";
        first_of: "The first {0} are shown.", "最初の{0}人を表示しています。";
        person: "Person", "利用者";
        gains: "Gains", "増加";
        loses: "Loses", "減少";
        refused: "refused", "拒否された利用者";
        toml: "The rule as TOML", "TOML形式のルール";
        put_new: "Copy it below the other rules of this MCP server, before the next [[resource]]. The MCP server is at {0}.", "このMCPサーバーのほかのルールの下、次の [[resource]] の前にコピーしてください。MCPサーバーの設定場所: {0}";
        put_changed: "Copy it over the rule at {0}.", "{0} のルールをこれに置き換えてください。";
        put: "Copy it into the [[resource]] of this MCP server.", "このMCPサーバーの [[resource]] にコピーしてください。";
    }
}

impl DraftWords {
    fn of_list(&self, key: &str) -> &'static str {
        match key {
            "roles" => self.roles,
            "groups" => self.groups,
            "permissions" => self.permissions,
            "not_roles" => self.not_roles,
            "not_groups" => self.not_groups,
            "subjects" => self.subjects,
            "email_domains" => self.email_domains,
            _ => self.clients,
        }
    }
}

/// A person whose scopes would change.
struct Affected {
    name: String,
    path: String,
    refused: bool,
    change: ScopeChange,
}

/// The effect of a draft on known people.
#[derive(Default)]
struct Effect {
    affected: Vec<Affected>,
    gain: usize,
    lose: usize,
    same: usize,
    forgotten: usize,
}

impl Effect {
    fn note(&mut self, one: Affected) {
        self.gain += usize::from(!one.change.gains.is_empty());
        self.lose += usize::from(!one.change.loses.is_empty());
        if one.change == ScopeChange::default() {
            self.same += 1;
        } else {
            self.affected.push(one);
        }
    }
}

/// The effect, prepared for display.
struct EffectView {
    bounded: String,
    sum: String,
    notes: Vec<String>,
    affected: Vec<Affected>,
}

/// A field with a list of values.
struct ListField {
    key: &'static str,
    label: &'static str,
    text: String,
}

#[derive(Template)]
#[template(path = "admin/draft.html")]
struct DraftTemplate<'a> {
    frame: &'a Frame,
    w: &'static DraftWords,
    about: String,
    servers: Vec<(&'a str, &'a str, bool)>,
    positions: Vec<(usize, String, bool)>,
    fields: Vec<ListField>,
    form: &'a DraftForm,
    scopes: String,
    problems: Vec<String>,
    effect: Option<EffectView>,
    toml: Option<(String, String)>,
}

/// What the draft amounts to.
#[derive(Default)]
struct Outcome {
    /// Why it is not a rule.
    problems: Vec<String>,
    effect: Option<EffectView>,
    /// The rule, and where it belongs.
    toml: Option<(String, String)>,
}

/// The form, and what it is about.
struct Draft<'a> {
    server: ConfiguredServer<'a>,
    /// Position of the rule that it changes, from 0; `None`: a new rule.
    position: Option<usize>,
    form: DraftForm,
    /// Whether there is anything in the form.
    is_filled: bool,
}

impl<'a> Draft<'a> {
    fn of(visit: &AdminPage, server: ConfiguredServer<'a>) -> Self {
        // Positions begin at 1 in the URL, as in `rule 2`.
        let position = visit.param("rule").parse::<usize>().ok().and_then(|at| at.checked_sub(1));
        let changed = position.and_then(|at| Some((at, server.resource.policy.rules.get(at)?)));
        let sent = !visit.param("try").is_empty();
        let form = match changed {
            Some((_, rule)) if !sent => DraftForm::of(rule),
            _ => DraftForm::sent(visit),
        };
        let is_filled = sent || changed.is_some();
        Self { server, position: changed.map(|(at, _)| at), form, is_filled }
    }

    async fn outcome(&self, app: &App, w: &'static DraftWords) -> Result<Outcome, StorageError> {
        let mut outcome = Outcome::default();
        if !self.is_filled {
            return Ok(outcome);
        }
        let (table, policy) = (self.form.table(), &self.server.resource.policy);
        match read_rule(table.clone(), &policy.declared) {
            Err(refused) => {
                let told = |one: &Problem| {
                    let key = one.key.trim_start_matches("rule.");
                    format!("{key} {} → {}", one.reason, one.hint)
                };
                outcome.problems = refused.0.iter().map(told).collect();
            }
            Ok(rule) => {
                let clients = rule.conditions.clients.clone().unwrap_or_default();
                let client = clients.first().map(String::as_str);
                let draft = with_rule(policy, self.position, rule);
                let effect = effect_of(app, self.server, &draft, client.unwrap_or_default());
                outcome.effect = Some(shown(w, effect.await?, client));
                outcome.toml = Some((as_toml(&table), put(w, &self.server, self.position)));
            }
        }
        Ok(outcome)
    }

    /// Returns the rules that a draft may change, counted from 1.
    fn positions(&self, w: &'static DraftWords) -> Vec<(usize, String, bool)> {
        let rules = self.server.resource.policy.rules.iter().enumerate();
        let option = |(at, rule): (usize, &Rule)| {
            let text = w.replaces.replace("{0}", &rule.name_at(at));
            (at + 1, text, self.position == Some(at))
        };
        rules.map(option).collect()
    }

    fn fields(&self, w: &'static DraftWords) -> Vec<ListField> {
        let lists = self.form.lists.iter();
        let field = |(key, text): &(&'static str, String)| ListField {
            key,
            label: w.of_list(key),
            text: text.clone(),
        };
        lists.map(field).collect()
    }
}

pub(in crate::admin) async fn get(visit: AdminPage) -> Result<Response, PageError> {
    let frame = visit.frame("/servers").await?;
    let w = DraftWords::of(frame.language);
    let app = visit.app();
    let source = app.config_source();
    let asked = visit.param("server");
    let mut servers = ConfiguredServer::all(app.config(), &source);
    let server = servers.find(|one| asked.is_empty() || one.resource.id == asked);
    let draft = Draft::of(&visit, server.ok_or_else(missing)?);
    let Outcome { problems, effect, toml } = draft.outcome(app, w).await?;
    let id = &draft.server.resource.id;
    let template = DraftTemplate {
        about: w.about.replace("{0}", source.file().unwrap_or(w.the_file)),
        servers: ConfiguredServer::all(app.config(), &source)
            .map(|one| (one.resource.id.as_str(), one.name(), one.resource.id == *id))
            .collect(),
        positions: draft.positions(w),
        fields: draft.fields(w),
        scopes: draft.server.resource.policy.declared.to_string(),
        form: &draft.form,
        frame: &frame,
        w,
        problems,
        effect,
        toml,
    };
    Ok(frame.answer(template.render()))
}

/// Returns the rules with the draft, as a new rule or in the position of another.
fn with_rule(policy: &Policy, position: Option<usize>, rule: Rule) -> Policy {
    let mut draft = policy.clone();
    match position.and_then(|at| draft.rules.get_mut(at)) {
        Some(changed) => *changed = rule,
        None => draft.rules.push(rule),
    }
    draft
}

/// Tries the draft with the people who signed in last, and with those who were refused last.
async fn effect_of(
    app: &App,
    server: ConfiguredServer<'_>,
    draft: &Policy,
    client: &str,
) -> Result<Effect, StorageError> {
    let policy = &server.resource.policy;
    let change = |facts: &Facts| policy.change_by(draft, facts, client);
    let mut effect = Effect::default();
    let mut seen = HashSet::new();
    for row in app.storage().browse_people(&PersonFilter::default(), PEOPLE).await? {
        seen.insert(row.subject.clone());
        let Some(person) = row.person else {
            effect.forgotten += 1;
            continue;
        };
        effect.note(Affected {
            change: change(&person.facts),
            name: person.name.unwrap_or_else(|| row.subject.clone()),
            path: person_path(&row.subject),
            refused: false,
        });
    }
    let filter = RefusedFilter { resource: server.resource.id.clone(), ..Default::default() };
    for row in app.storage().refused_people(&filter, PEOPLE).await? {
        if seen.insert(row.subject.clone()) {
            effect.note(Affected {
                change: change(&row.person.facts),
                name: shown_name(&row).to_owned(),
                path: refused_person_path(&row.subject, &row.resource),
                refused: true,
            });
        }
    }
    Ok(effect)
}

fn shown(w: &'static DraftWords, effect: Effect, client: Option<&str>) -> EffectView {
    let Effect { mut affected, gain, lose, same, forgotten } = effect;
    let tried = affected.len() + same;
    let mut notes = Vec::new();
    if let Some(client) = client {
        notes.push(w.with_client.replace("{0}", client));
    }
    if forgotten > 0 {
        notes.push(w.forgotten.replace("{0}", &forgotten.to_string()));
    }
    if affected.len() > SHOWN {
        notes.push(w.first_of.replace("{0}", &SHOWN.to_string()));
        affected.truncate(SHOWN);
    }
    let sum = w.sum.replace("{0}", &gain.to_string()).replace("{1}", &lose.to_string());
    EffectView {
        bounded: w.bounded.replace("{0}", &tried.to_string()).replace("{1}", &PEOPLE.to_string()),
        sum: sum.replace("{2}", &same.to_string()),
        notes,
        affected,
    }
}

/// Says where the rule belongs.
fn put(w: &'static DraftWords, server: &ConfiguredServer<'_>, position: Option<usize>) -> String {
    let (text, place) = match position {
        Some(position) => (w.put_changed, server.place_of_rule(position)),
        None => (w.put_new, server.place()),
    };
    place.map_or_else(|| w.put.to_owned(), |place| text.replace("{0}", &place))
}
