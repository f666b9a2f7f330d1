//! `GET /`: what needs attention first, then each MCP server, numbers that lead to their pages, and the state
//! of the parts.

use askama::Template;
use axum::response::Response;

use super::chart::{Chart, ChartSlot, ChartTexts};
use super::links::query;
use super::target_line::TargetLine;
use super::usage::name_of;
use super::visit::AdminPage;
use crate::app::{App, Compared, ConfigStatus};
use crate::clock::Timestamp;
use crate::config::{ClientApproval, ResourceConfig};
use crate::connections::provider_keys;
use crate::signing::{KeyDescription, KeyState};
use crate::storage::{
    CallOutcome, ConnectionFilter, Overview, Ready, Room, ServerUse, StorageError,
};
use crate::web::list_page::{Frame, count, utc};
use crate::web::page_error::PageError;
use crate::web::words::{Language, words};

words! {
    struct OverviewWords {
        title: "Overview", "概要";
        people: "People", "利用者";
        clients: "Clients", "クライアント";
        live_grants: "Live connections", "有効な接続";
        calls_day: "Calls in the last 24 hours", "呼び出し(直近24時間)";
        logins_day: "Sign-ins in the last 24 hours", "サインイン(直近24時間)";
        logins_week: "Sign-ins in the last 7 days", "サインイン(直近7日間)";
        refusals_day: "Refused in the last 24 hours", "拒否(直近24時間)";
        refusals_week: "Refused in the last 7 days", "拒否(直近7日間)";
        numbers: "Numbers", "集計";
        database: "Database", "データベース";
        size: "Size", "サイズ";
        attention: "Needs attention", "対応が必要なこと";
        nothing: "Nothing needs attention.", "対応が必要なことはありません。";
        servers: "MCP servers", "MCPサーバー";
        server: "MCP server", "MCPサーバー";
        servers_note: "The last 24 hours. The state is what this replica saw at the last call or check of each target; a check connects every 30 seconds.", "直近24時間の集計です。状態は、このレプリカが各転送先への最後の呼び出しまたは30秒ごとの接続確認で確認したものです。";
        used_by: "People", "利用者";
        calls: "Calls", "呼び出し";
        not_let: "Refused", "拒否";
        failed: "Failed", "失敗";
        target: "State", "状態";
        not_fronted: "Not behind the gateway", "ゲートウェイの対象外";
        target_down: "The last call or check of a target of this MCP server failed. Check whether it runs and answers:", "このMCPサーバーの転送先への最後の呼び出しまたは接続確認が失敗しました。稼働し、応答しているか確認してください:";
        room_none: "The database is full: nothing can be written. Make room, or raise limits.database_size.", "データベースがいっぱいで、何も書き込めません。空きを作るか limits.database_size を増やしてください。";
        room_sign_ins: "The database is nearly full: no new sign-ins and no new clients are accepted. Make room, or raise limits.database_size.", "データベースの空きが少ないため、新しいサインインとクライアントを受け付けていません。空きを作るか limits.database_size を増やしてください。";
        room_clients: "The database is filling up: no new clients are accepted. Make room, or raise limits.database_size.", "データベースの空きが減っているため、新しいクライアントを受け付けていません。空きを作るか limits.database_size を増やしてください。";
        week: "Sign-ins and refusals, last seven days, by six hours (UTC)", "直近7日間のサインインと拒否(6時間ごと、UTC)";
        time: "Time (UTC)", "日時(UTC)";
        as_table: "Numbers as a table", "数値を表で見る";
        signed_in: "sign-ins", "サインイン";
        refused: "refusals", "拒否";
        comma: ", ", "、";
        upstream: "Identity provider", "IDプロバイダー";
        provider: "Provider", "プロバイダー";
        state: "State", "状態";
        answers: "Reachable", "応答しています";
        silent: "Paused after repeated failures. People who are signed in can continue.", "失敗が続いたため一時停止中です。サインイン済みの人は引き続き利用できます。";
        last_success: "Last answer", "最後の応答";
        last_error: "Last failure", "最後の失敗";
        never: "none since the start", "起動以降なし";
        version: "Version", "バージョン";
        waiting_one: "1 client waits for your approval.", "1件のクライアントが承認を待っています。";
        waiting: " clients wait for your approval.", "件のクライアントが承認を待っています。";
        broken_one: "1 connected service does not work any more: its person has to connect it again.", "1件の連携サービスが使えなくなっています。利用者本人の再連携が必要です。";
        broken: " connected services do not work any more: their people have to connect them again.", "件の連携サービスが使えなくなっています。利用者本人の再連携が必要です。";
        look: "Review", "確認する";
        upstream_down: "The identity provider does not answer: nobody new can sign in. Check its status page, the network and the time on this machine; `portcullis check` says what is wrong.", "IDプロバイダーが応答しないため、新しいサインインができません。プロバイダーの稼働状況、ネットワーク、このサーバーの時刻を確認してください。`portcullis check` が原因を示します。";
        no_refresh: "The identity provider gives no refresh tokens: a disabled person stays in for as long as max_without_refresh. Switch refresh tokens on there.", "IDプロバイダーがリフレッシュトークンを発行しません。無効化された人が max_without_refresh の間利用できます。プロバイダー側でリフレッシュトークンを有効にしてください。";
        old_key: "A signing key is older than a year. Rotate it on the page “Keys”.", "署名鍵が1年以上前のものです。「鍵」のページで更新してください。";
        no_certificate: "The ACME server has issued no certificate yet: clients refuse this server. The reason is in the audit trail (certificate_failed).", "ACMEサーバーから証明書をまだ取得できていないため、クライアントはこのサーバーに接続できません。原因は監査記録(certificate_failed)にあります。";
        certificate_ends: "The certificate of this server was not renewed in time: it expires soon, or has expired. See docs/operations/tls.md.", "サーバー証明書が期限までに更新されていません。まもなく期限切れになるか、すでに期限切れです。docs/operations/tls.md を参照してください。";
        keys: "Keys", "鍵";
        signing: "Signing key", "署名鍵";
        configuration: "Configuration", "設定";
        read_at: "Read", "読み込み日時";
        problems: "The configuration as it is written now has mistakes; the one before is in use:", "現在の設定ファイルに誤りがあるため、以前の設定で動作しています:";
        waits: "The configuration was changed where only a restart can take it over:", "再起動後に反映される設定が変更されています:";
        since: "created", "作成日時";
        went_back: "The database went back in time, as after a failover to a standby that was behind: everything that may have ended meanwhile was ended, and everybody had to sign in again. What administrators decided since may be lost: compare with the log. See Failover in docs/operations/replicas.md. Noticed", "データベースが過去の状態に戻りました(遅れていたスタンバイへのフェイルオーバーなど)。その間に終了した可能性のあるものはすべて終了させたため、全員の再サインインが必要になりました。その後の管理者の決定は失われている可能性があります。ログと比較してください。docs/operations/replicas.md の Failover を参照してください。検出日時";
        clock_off: "The clock of this replica differs from the database's. Set both by NTP: beyond half a minute, what other replicas make is refused. Seconds ahead:", "このレプリカの時計がデータベースの時計とずれています。両方をNTPで合わせてください。30秒を超えると、ほかのレプリカが発行したものが拒否されます。進んでいる秒数:";
        differing: "replicas have another configuration:", "件のレプリカの設定が異なります:";
    }
}

/// An MCP server, prepared for display.
struct ServerLine<'a> {
    name: &'a str,
    used: ServerUse,
    /// None if it is not behind the gateway.
    targets: Vec<TargetLine>,
    /// What is known of its use.
    usage: String,
    /// The calls that were refused for missing scopes, which are most refusals.
    refused: String,
    failed: String,
}

impl<'a> ServerLine<'a> {
    fn of(app: &App, resource: &'a ResourceConfig, numbers: &Overview, language: Language) -> Self {
        let used = numbers.servers.get(&app.storage().server_id(&resource.id));
        let link = |outcome: Option<CallOutcome>| {
            let mut query = query("/usage");
            query.append_pair("server", &resource.id);
            if let Some(outcome) = outcome {
                query.append_pair("outcome", outcome.name());
            }
            query.finish()
        };
        Self {
            name: name_of(resource),
            used: used.cloned().unwrap_or_default(),
            targets: TargetLine::all(app, resource, language),
            usage: link(None),
            refused: link(Some(CallOutcome::ScopeRefused)),
            failed: link(Some(CallOutcome::Failed)),
        }
    }

    fn failures(&self) -> i64 {
        self.used.counts.of(CallOutcome::Failed)
    }

    fn is_down(&self) -> bool {
        self.targets.iter().any(TargetLine::is_down)
    }
}

#[derive(Template)]
#[template(path = "admin/overview.html")]
struct OverviewTemplate<'a> {
    frame: &'a Frame,
    w: &'static OverviewWords,
    numbers: &'a Overview,
    servers: Vec<ServerLine<'a>>,
    calls: i64,
    /// The first days of the searches behind the numbers of sign-ins: of 24 hours, and of a week.
    since: (String, String),
    day: (i64, i64),
    week: (i64, i64),
    chart: Chart,
    size: String,
    room: Option<&'static str>,
    provider: &'a str,
    upstream: crate::upstream::Health,
    old_key: bool,
    certificate: Option<&'static str>,
    configured_at: Timestamp,
    reading: ConfigStatus,
    signing: Vec<KeyDescription>,
    waiting: bool,
    version: &'static str,
    went_back_at: Option<Timestamp>,
    compared: Compared,
    /// How many connected services their people have to connect again.
    broken: i64,
}

impl OverviewTemplate<'_> {
    /// Returns the number of these services for a reader.
    fn number_broken(&self) -> String {
        count(self.frame.language, self.broken)
    }

    /// Whether there is nothing to do for an administrator.
    fn is_calm(&self) -> bool {
        self.went_back_at.is_none()
            && self.compared.clock_off().is_none()
            && self.compared.differing.is_empty()
            && !self.waiting
            && self.broken == 0
            && !self.upstream.paused
            && !self.upstream.without_refresh
            && !self.old_key
            && self.certificate.is_none()
            && self.room.is_none()
            && self.reading.problems.is_empty()
            && self.reading.waiting.is_empty()
            && !self.servers.iter().any(ServerLine::is_down)
    }
}

/// Hours covered by one bar.
const HOURS: i64 = 6;
/// Bars per day.
const A_DAY: i64 = 24 / HOURS;

pub(super) async fn get(visit: AdminPage) -> Result<Response, PageError> {
    let app = visit.app();
    let now = app.now();
    let numbers = app.storage().overview(now).await?;
    let frame = visit.frame("/").await?;
    let w = OverviewWords::of(frame.language);
    let hour = now.unix() / 3600;
    let since = |list: &[(i64, i64)], hours: i64| {
        list.iter().filter(|(at, _)| *at > hour - hours).map(|(_, n)| n).sum::<i64>()
    };
    let year = std::time::Duration::from_hours(24 * 365);
    let week = std::time::Duration::from_hours(24 * 7);
    let went_back_at = app.storage().went_back_at().filter(|at| now.since(*at) <= week);
    let mut signing = app.keys().describe();
    signing.retain(|key| key.state == KeyState::Current);
    let resources = app.config().resources.iter();
    let template = OverviewTemplate {
        w,
        servers: resources
            .map(|resource| ServerLine::of(app, resource, &numbers, frame.language))
            .collect(),
        since: (day_before(now, 1), day_before(now, 6)),
        calls: numbers.servers.values().map(|used| used.counts.total()).sum(),
        day: (since(&numbers.logins, 24), since(&numbers.refusals, 24)),
        week: (since(&numbers.logins, 24 * 7), since(&numbers.refusals, 24 * 7)),
        chart: week_chart(w, &numbers, hour),
        size: bytes(numbers.database_bytes),
        room: room(w, app.storage().ready(now).await),
        provider: &app.config().upstream.name,
        upstream: app.upstream().health(),
        configured_at: app.configured_at(),
        reading: app.reading(),
        certificate: certificate(w, app, now),
        old_key: signing.iter().any(|key| now.since(key.created_at) > year),
        signing,
        waiting: app.config().client_approval == ClientApproval::FirstUse && numbers.waiting > 0,
        version: env!("CARGO_PKG_VERSION"),
        went_back_at,
        compared: app.compared(),
        broken: broken(app).await?,
        numbers: &numbers,
        frame: &frame,
    };
    Ok(frame.answer(template.render()))
}

/// Counts the connected services that their people have to connect again.
async fn broken(app: &App) -> Result<i64, StorageError> {
    let configured = Some(provider_keys(app.config()));
    let filter = ConnectionFilter { broken: true, configured, ..ConnectionFilter::default() };
    app.storage().count_connections(&filter).await
}

/// Returns what is wrong with the certificate of the listeners.
fn certificate(w: &'static OverviewWords, app: &App, now: Timestamp) -> Option<&'static str> {
    let certificates = app.certificates();
    if app.config().tls.is_some() && certificates.expires_at().is_none() {
        return Some(w.no_certificate);
    }
    certificates.is_overdue(now).then_some(w.certificate_ends)
}

/// Returns the day so many days ago, as a search takes it.
fn day_before(now: Timestamp, days: u64) -> String {
    let before = now.minus(std::time::Duration::from_hours(24 * days));
    utc(before).get(..10).unwrap_or_default().to_owned()
}

/// Returns what a database that is nearly full does not accept any more.
fn room(w: &'static OverviewWords, ready: Ready) -> Option<&'static str> {
    match ready {
        Ready::Yes(Room::None) => Some(w.room_none),
        Ready::Yes(Room::NoSignIns) => Some(w.room_sign_ins),
        Ready::Yes(Room::NoRegistrations) => Some(w.room_clients),
        _ => None,
    }
}

/// Charts the last seven days in UTC, including all of today.
fn week_chart(w: &'static OverviewWords, numbers: &Overview, hour: i64) -> Chart {
    let today = hour / 24;
    let sum = |list: &[(i64, i64)], slot: i64| {
        list.iter().filter(|(at, _)| at / HOURS == slot).map(|(_, n)| n).sum::<i64>()
    };
    let begins = |seconds: i64| utc(Timestamp::from_unix(seconds));
    let slot = |slot: i64| ChartSlot {
        label: begins(slot * HOURS * 3600),
        numbers: (sum(&numbers.logins, slot), sum(&numbers.refusals, slot)),
    };
    let slots: Vec<ChartSlot> = ((today - 6) * A_DAY..(today + 1) * A_DAY).map(slot).collect();
    let day = |day: i64| begins(day * 24 * 3600).get(5..10).unwrap_or_default().to_owned();
    let (logins, refusals) = slots.iter().fold((0, 0), |(logins, refusals), slot| {
        (logins + slot.numbers.0, refusals + slot.numbers.1)
    });
    let texts = ChartTexts {
        about: format!("{}: {logins} {}{}{refusals} {}", w.week, w.signed_in, w.comma, w.refused),
        first: w.signed_in,
        second: w.refused,
        time: w.time,
        as_table: w.as_table,
    };
    Chart::of(slots, (today - 6..=today).map(day).collect(), 4, texts)
}

#[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
fn bytes(count: i64) -> String {
    let mut size = count as f64;
    for unit in ["B", "KB", "MB", "GB"] {
        if size < 1000.0 {
            return if unit == "B" { format!("{size} B") } else { format!("{size:.1} {unit}") };
        }
        size /= 1000.0;
    }
    format!("{size:.1} TB")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_short() {
        assert_eq!(bytes(0), "0 B");
        assert_eq!(bytes(999), "999 B");
        assert_eq!(bytes(123_456), "123.5 KB");
        assert_eq!(bytes(2_500_000_000_000), "2.5 TB");
    }

    #[test]
    fn the_chart_covers_a_week_up_to_today() {
        let hour = 1_795_219_200 / 3600;
        let numbers = Overview { logins: vec![(hour, 1000), (hour - 6, 1)], ..Overview::default() };

        let chart = week_chart(OverviewWords::of(Language::English), &numbers, hour);

        assert_eq!((chart.bars.len(), chart.marks[0]), (28, 1000));
        assert_eq!(chart.labels.first().map(String::as_str), Some("11-15"));
        assert_eq!(chart.labels.last().map(String::as_str), Some("11-21"));
        assert_eq!(chart.bars[24].slot.label, "2026-11-21 00:00 UTC");
        assert_eq!(chart.bars[24].slot.numbers, (1000, 0));
        assert_eq!(chart.bars[23].slot.numbers, (1, 0));
        assert!(
            chart.texts.about.ends_with(": 1001 sign-ins, 0 refusals"),
            "{}",
            chart.texts.about
        );
    }
}
