//! `GET /`: key numbers, the state of the parts, and everything that needs attention.

use askama::Template;
use axum::response::Response;

use super::visit::AdminPage;
use crate::app::{Compared, ConfigStatus};
use crate::clock::Timestamp;
use crate::config::ClientApproval;
use crate::signing::{KeyDescription, KeyState};
use crate::storage::Overview;
use crate::web::list_page::{Frame, utc};
use crate::web::page_error::PageError;
use crate::web::words::words;

words! {
    struct OverviewWords {
        title: "Overview", "概要";
        people: "People", "利用者";
        clients: "Clients", "クライアント";
        live_grants: "Live connections", "有効な接続";
        logins_day: "Sign-ins, last day", "サインイン(24時間)";
        logins_week: "Sign-ins, last week", "サインイン(7日間)";
        refusals_day: "Refusals, last day", "拒否(24時間)";
        refusals_week: "Refusals, last week", "拒否(7日間)";
        database: "Database", "データベース";
        needs_a_hand: "Needs a hand", "対応が必要なこと";
        nothing: "Nothing.", "ありません。";
        week: "Sign-ins and refusals, last seven days, by six hours (UTC)", "直近7日間のサインインと拒否(6時間ごと、UTC)";
        signed_in: "sign-ins", "サインイン";
        refused: "refusals", "拒否";
        comma: ", ", "、";
        upstream: "Identity provider", "IDプロバイダー";
        provider: "Provider", "プロバイダー";
        state: "State", "状態";
        answers: "answers", "応答しています";
        silent: "is left alone after failures; people who are signed in go on", "失敗が続いたため一時停止中。サインイン済みの人は引き続き利用できます";
        last_success: "Last answer", "最後の応答";
        last_error: "Last failure", "最後の失敗";
        never: "none since the start", "起動以降なし";
        version: "Version", "バージョン";
        waiting: "clients wait for your approval.", "件のクライアントが承認を待っています。";
        look: "Decide", "確認する";
        upstream_down: "The identity provider does not answer: nobody new can sign in. Check its status page, the network and the time on this machine; `portcullis check` says what is wrong.", "IDプロバイダーが応答しないため、新しいサインインができません。プロバイダーの稼働状況、ネットワーク、このサーバーの時刻を確認してください。`portcullis check` が原因を示します。";
        no_refresh: "The identity provider gives no refresh tokens: a disabled person stays in for as long as max_without_refresh. Switch refresh tokens on there.", "IDプロバイダーがリフレッシュトークンを発行しません。無効化された人が max_without_refresh の間利用できます。プロバイダー側でリフレッシュトークンを有効にしてください。";
        old_key: "A signing key is older than a year. Rotate it on the page “Keys”.", "署名鍵が1年以上前のものです。「鍵」のページで更新してください。";
        keys: "Keys", "鍵";
        signing: "Signing key", "署名鍵";
        configuration: "Configuration", "設定";
        read_at: "read", "読み込み日時";
        problems: "The configuration as it is written now has mistakes; the one before is in use:", "現在の設定ファイルに誤りがあるため、以前の設定で動作しています:";
        waits: "The configuration was changed where only a restart can take it over:", "再起動後に反映される設定が変更されています:";
        since: "since", "作成日時";
        went_back: "The database went back in time, as after a failover to a standby that was behind: everything that may have ended meanwhile was ended, and everybody had to sign in again. What administrators decided since may be lost: compare with the log. See Failover in docs/operations/replicas.md. Noticed", "データベースが過去の状態に戻りました(遅れていたスタンバイへのフェイルオーバーなど)。その間に終了した可能性のあるものはすべて終了させたため、全員の再サインインが必要になりました。その後の管理者の決定は失われている可能性があります。ログと比較してください。docs/operations/replicas.md の Failover を参照してください。検出日時";
        clock_off: "The clock of this replica differs from the database's. Set both by NTP: beyond half a minute, what other replicas make is refused. Seconds ahead:", "このレプリカの時計がデータベースの時計とずれています。両方をNTPで合わせてください。30秒を超えると、ほかのレプリカが発行したものが拒否されます。進んでいる秒数:";
        differing: "replicas have another configuration:", "件のレプリカの設定が異なります:";
    }
}

#[derive(Template)]
#[template(path = "admin/overview.html")]
struct OverviewTemplate<'a> {
    frame: &'a Frame,
    w: &'static OverviewWords,
    numbers: &'a Overview,
    day: (i64, i64),
    week: (i64, i64),
    chart: Chart,
    size: String,
    provider: &'a str,
    upstream: crate::upstream::Health,
    old_key: bool,
    configured_at: Timestamp,
    reading: ConfigStatus,
    signing: Vec<KeyDescription>,
    waiting: bool,
    version: &'static str,
    went_back_at: Option<Timestamp>,
    compared: Compared,
}

/// The last week as a bar chart. All days are equally wide.
struct Chart {
    bars: Vec<Bar>,
    /// The value of the highest bar.
    most: i64,
    days: Vec<String>,
}

/// A bar, in the coordinates of the chart.
struct Bar {
    x: i64,
    logins: (i64, i64),
    refusals: (i64, i64),
    label: String,
}

/// Hours covered by one bar.
const HOURS: i64 = 6;
/// Bars per day.
const A_DAY: i64 = 24 / HOURS;
/// Height of the highest bar, in chart units.
const HEIGHT: i64 = 90;

pub(super) async fn get(visit: AdminPage) -> Result<Response, PageError> {
    let app = visit.app();
    let now = app.now();
    let numbers = app.storage().overview(now).await?;
    let frame = visit.frame("/").await?;
    let hour = now.unix() / 3600;
    let since = |list: &[(i64, i64)], hours: i64| {
        list.iter().filter(|(at, _)| *at > hour - hours).map(|(_, n)| n).sum::<i64>()
    };
    let year = std::time::Duration::from_hours(24 * 365);
    let week = std::time::Duration::from_hours(24 * 7);
    let went_back_at = app.storage().went_back_at().filter(|at| now.since(*at) <= week);
    let mut signing = app.keys().describe();
    signing.retain(|key| key.state == KeyState::Current);
    let template = OverviewTemplate {
        w: OverviewWords::of(frame.language),
        day: (since(&numbers.logins, 24), since(&numbers.refusals, 24)),
        week: (since(&numbers.logins, 24 * 7), since(&numbers.refusals, 24 * 7)),
        chart: Chart::of(&numbers, hour),
        size: bytes(numbers.database_bytes),
        provider: &app.config().upstream.name,
        upstream: app.upstream().health(),
        configured_at: app.configured_at(),
        reading: app.reading(),
        old_key: signing.iter().any(|key| now.since(key.created_at) > year),
        signing,
        waiting: app.config().client_approval == ClientApproval::FirstUse && numbers.waiting > 0,
        version: env!("CARGO_PKG_VERSION"),
        went_back_at,
        compared: app.compared(),
        numbers: &numbers,
        frame: &frame,
    };
    Ok(frame.answer(template.render()))
}

impl Chart {
    /// Charts the last seven days in UTC, including all of today.
    fn of(numbers: &Overview, hour: i64) -> Self {
        let today = hour / 24;
        let slots = (today - 6) * A_DAY..(today + 1) * A_DAY;
        let sum = |list: &[(i64, i64)], slot: i64| {
            list.iter().filter(|(at, _)| at / HOURS == slot).map(|(_, n)| n).sum::<i64>()
        };
        let slots: Vec<(i64, i64, i64)> = slots
            .map(|slot| (slot, sum(&numbers.logins, slot), sum(&numbers.refusals, slot)))
            .collect();
        let most = slots.iter().map(|(_, logins, refusals)| logins + refusals).max().unwrap_or(0);
        let scaled = |n: i64| if n == 0 { 0 } else { (n * HEIGHT / most.max(1)).max(2) };
        let bar = |(index, (slot, logins, refusals)): (usize, &(i64, i64, i64))| {
            let begins = Timestamp::from_unix(slot * HOURS * 3600);
            let (up, down) = (scaled(*logins), scaled(*refusals));
            Bar {
                x: i64::try_from(index).unwrap_or(0) * 20 + 2,
                logins: (HEIGHT - up, up),
                refusals: (HEIGHT - up - down, down),
                label: format!("{}: {logins} / {refusals}", utc(begins)),
            }
        };
        let day = |day: i64| {
            let midnight = Timestamp::from_unix(day * 24 * 3600);
            utc(midnight).get(5..10).unwrap_or_default().to_owned()
        };
        Self {
            bars: slots.iter().enumerate().map(bar).collect(),
            most,
            days: (today - 6..=today).map(day).collect(),
        }
    }
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
    fn the_chart_covers_a_week_and_shows_the_smallest_number() {
        let hour = 1_795_219_200 / 3600;
        let numbers = Overview { logins: vec![(hour, 1000), (hour - 6, 1)], ..Overview::default() };

        let chart = Chart::of(&numbers, hour);

        assert_eq!((chart.bars.len(), chart.most), (28, 1000));
        assert_eq!(chart.days.first().map(String::as_str), Some("11-15"));
        assert_eq!(chart.days.last().map(String::as_str), Some("11-21"));
        assert_eq!(chart.bars[24].label, "2026-11-21 00:00 UTC: 1000 / 0");
        assert_eq!(chart.bars[24].logins.1, HEIGHT);
        assert!(chart.bars[23].logins.1 >= 2);
        // Each day is as wide as its label: four bars, a seventh of the chart.
        assert!(
            chart
                .bars
                .iter()
                .enumerate()
                .all(|(index, bar)| bar.x / 80 == i64::try_from(index / 4).unwrap())
        );
        assert_eq!(Chart::of(&Overview::default(), hour).most, 0);
    }
}
