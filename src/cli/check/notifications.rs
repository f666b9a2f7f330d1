//! Checks whether each target of notifications can be reached. No message is sent.

use futures_util::future::join_all;

use super::{Finding, Severity, finding};
use crate::app::App;
use crate::config::{NotifyChannel, NotifyTarget};

const PROBE: &str = "notify";

/// Connects to every target of `[[notify]]`.
pub(super) async fn run(app: &App) -> Vec<Finding> {
    let targets = app.config().notify.iter();
    join_all(targets.map(|target| knock(app, target))).await
}

async fn knock(app: &App, target: &NotifyTarget) -> Finding {
    let (name, to) = (&target.name, target.shown());
    match app.knock_at_target(target).await {
        Ok(()) => {
            let answers = match &target.channel {
                NotifyChannel::Hook(_) => "can be reached",
                NotifyChannel::Mail(mail) if mail.login.is_some() => {
                    "answers, and takes the password"
                }
                NotifyChannel::Mail(_) => "answers",
            };
            let found = format!("{name} ({to}) {answers}");
            let hint = format!("`portcullis notify test {name}` sends a message");
            Finding { hint: Some(hint), ..finding(PROBE, Severity::Ok, found) }
        }
        Err(failed) => {
            let found = format!("{name} ({to}) gets no messages: {failed}");
            let hint = Some(failed.hint().to_owned());
            Finding { hint, ..finding(PROBE, Severity::Warning, found) }
        }
    }
}
