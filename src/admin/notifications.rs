//! `/notifications`: who receives messages about what happens, what became of the messages, and a test.

use askama::Template;
use axum::response::Response;

use super::visit::{AdminForm, AdminPage, missing};
use crate::app::TestFailed;
use crate::config::NotifyTarget;
use crate::storage::TargetReport;
use crate::web::list_page::Frame;
use crate::web::page_error::PageError;
use crate::web::words::words;

words! {
    struct NotificationWords {
        title: "Notifications", "通知";
        explained: "These targets receive a message when something needs an administrator. They are configured as [[notify]] in the configuration file.", "管理者の対応が必要なことが起きたとき、次の宛先に通知します。設定ファイルの [[notify]] で設定します。";
        none: "Nobody is notified: the configuration has no [[notify]]. Without it, you learn of a waiting client only when you look here.", "通知先がありません。設定ファイルに [[notify]] を追加してください。追加しない場合、承認待ちのクライアントはこの画面でしか確認できません。";
        name: "Name", "名前";
        kind: "Kind", "種類";
        to: "Where to", "宛先";
        events: "Receives", "通知する内容";
        delivered: "Last delivery", "最後の送信";
        failed: "Last failure", "最後の失敗";
        waiting: "Waiting", "送信待ち";
        never: "none yet", "まだありません";
        test: "Send a test", "テストを送信";
        test_note: "A test is sent at once, and no further attempt is made.", "テストはすぐに一度だけ送信します。";
        sent: "The test was delivered to", "テストを送信しました。宛先:";
        not_sent: "The test was not delivered to", "テストを送信できませんでした。宛先:";
        client_waits: "a client waits for approval", "承認待ちのクライアント";
        person_refused: "a person was refused", "利用者の拒否";
        provider_down: "the identity provider is down, and back", "IDプロバイダーの停止と復旧";
        token_reused: "a token or code was used again", "トークンまたは認可コードの再使用";
        configuration_refused: "a changed configuration is not in use", "反映されなかった設定変更";
        ends_soon: "a key or secret ends soon", "期限が近い鍵・シークレット";
        comma: ", ", "、";
    }
}

impl NotificationWords {
    /// Returns the kinds that a target receives, in words.
    fn events(&self, target: &NotifyTarget) -> String {
        use crate::config::NotifyEvent as Event;
        let word = |event: &Event| match event {
            Event::ClientWaits => self.client_waits,
            Event::PersonRefused => self.person_refused,
            Event::ProviderDown | Event::ProviderBack => self.provider_down,
            Event::TokenReused => self.token_reused,
            Event::ConfigurationRefused => self.configuration_refused,
            Event::EndsSoon => self.ends_soon,
            Event::Test => self.test,
        };
        target.events.list().iter().map(word).collect::<Vec<_>>().join(self.comma)
    }
}

/// A target, prepared for display: nothing of its secrets.
struct TargetView {
    name: String,
    kind: &'static str,
    to: String,
    events: String,
    report: TargetReport,
}

#[derive(Template)]
#[template(path = "admin/notifications.html")]
struct NotificationsTemplate<'a> {
    frame: &'a Frame,
    w: &'static NotificationWords,
    targets: Vec<TargetView>,
}

pub(super) async fn get(visit: AdminPage) -> Result<Response, PageError> {
    let mut frame = visit.frame("/notifications").await?;
    let w = NotificationWords::of(frame.language);
    let (name, app) = (visit.param("target"), visit.app());
    let known = app.config().notify.iter().any(|target| target.name == name);
    frame.notice = match visit.param("done") {
        "sent" if known => Some(format!("{} {name}", w.sent)),
        "not_sent" if known => Some(format!("{} {name}", w.not_sent)),
        _ => None,
    };
    let view = |(target, report): (&NotifyTarget, TargetReport)| TargetView {
        name: target.name.clone(),
        kind: target.kind(),
        to: target.shown(),
        events: w.events(target),
        report,
    };
    let targets = app.target_reports().await?.into_iter().map(view).collect();
    let template = NotificationsTemplate { frame: &frame, w, targets };
    Ok(frame.answer(template.render()))
}

/// `POST /notifications`: sends a test message.
pub(super) async fn act(action: AdminForm) -> Result<Response, PageError> {
    let (visit, name) = (&action.visit, action.field("target"));
    if action.field("action") != "test" {
        return Err(missing());
    }
    let done = match visit.app().send_test(name, visit.event("notification_tested")).await {
        Ok(()) => "sent",
        Err(TestFailed::Undelivered(_)) => "not_sent",
        Err(TestFailed::Unknown) => return Err(missing()),
        Err(TestFailed::Storage(error)) => return Err(error.into()),
    };
    // The name is one of the configuration: letters, digits, - and _.
    Ok(visit.go(&format!("/notifications?done={done}&target={name}")))
}
