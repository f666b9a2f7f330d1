//! A target of the gateway, prepared for display: whether it works, as far as this replica saw, and why not.

use crate::app::{App, TargetState};
use crate::clock::Timestamp;
use crate::config::ResourceConfig;
use crate::telemetry::metrics::TargetFailure;
use crate::web::words::{Language, words};

words! {
    pub(super) struct TargetWords {
        up: "Reachable", "応答あり";
        unreachable: "Not reachable", "応答なし";
        failing: "Fails", "失敗";
        unseen: "No call yet since the start", "起動以降の呼び出しなし";
        since: "since", "開始日時";
        name: "its host name has no address", "ホスト名のアドレスが見つかりません";
        refused: "nothing listens at its port", "接続が拒否されました(ポートで待ち受けていません)";
        no_connection: "no connection", "接続できません";
        connect_timeout: "no connection in time (connect_timeout)", "時間内に接続できません(connect_timeout)";
        certificate: "its certificate is not trusted (ca)", "証明書を信頼できません(ca)";
        client_certificate: "it does not accept our certificate (client_cert)", "ゲートウェイの証明書が受け入れられません(client_cert)";
        tls: "TLS failed", "TLSに失敗しました";
        timeout: "no answer in time", "時間内に応答がありません";
        broken: "no answer that can be passed on", "転送できる応答がありません";
        status: "the last answer was an error (5xx)", "最後の応答がエラーでした(5xx)";
    }
}

/// A target, prepared for display.
pub(super) struct TargetLine {
    pub(super) url: String,
    state: TargetState,
    pub(super) words: &'static TargetWords,
}

impl TargetLine {
    /// Returns the targets of a resource; none if it is not behind the gateway.
    pub(super) fn all(app: &App, resource: &ResourceConfig, language: Language) -> Vec<Self> {
        let words = TargetWords::of(language);
        let targets = resource.targets.iter().filter(|_| resource.is_fronted());
        let views = targets.map(|url| {
            let state = app.target_seen(resource, url).state();
            Self { url: url.to_string(), state, words }
        });
        views.collect()
    }

    pub(super) fn is_down(&self) -> bool {
        matches!(self.state, TargetState::Down { .. })
    }

    /// Returns the state in a few words.
    pub(super) fn short(&self) -> &'static str {
        match self.state {
            TargetState::Unknown => self.words.unseen,
            TargetState::Up(_) => self.words.up,
            TargetState::Down { failure, .. } if failure.is_of_the_connection() => {
                self.words.unreachable
            }
            TargetState::Down { .. } => self.words.failing,
        }
    }

    /// Returns what is wrong; empty if nothing is.
    pub(super) fn why(&self) -> &'static str {
        let w = self.words;
        let TargetState::Down { failure, .. } = self.state else { return "" };
        match failure {
            TargetFailure::Name => w.name,
            TargetFailure::Refused => w.refused,
            TargetFailure::Unreachable => w.no_connection,
            TargetFailure::ConnectTimeout => w.connect_timeout,
            TargetFailure::Certificate => w.certificate,
            TargetFailure::ClientCertificate => w.client_certificate,
            TargetFailure::Tls => w.tls,
            TargetFailure::Timeout => w.timeout,
            TargetFailure::Broken => w.broken,
            TargetFailure::Status => w.status,
        }
    }

    /// Returns when it was last seen to work, or since when it fails.
    pub(super) fn at(&self) -> Option<Timestamp> {
        match self.state {
            TargetState::Unknown => None,
            TargetState::Up(at) | TargetState::Down { since: at, .. } => Some(at),
        }
    }
}
