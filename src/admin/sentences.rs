//! The events of the audit trail as sentences, in the languages of administrators (`telling.rs` fills them in).
//!
//! A sentence is a text with places: `{person}`, `{client}`, `{server}` and `{actor}` become names with links,
//! `{rules}`, `{facts}` and `{pages}` become words, and any other place takes the detail of that name. A part in square
//! brackets is left out if one of its places has no value. An event may have a second sentence for one kind of
//! actor: `client_deleted/client`.

/// Event, sentence in English, sentence in Japanese.
pub(super) const SENTENCES: &[(&str, &str, &str)] = &[
    ("client_registered", "{client} registered itself", "{client} が自己登録しました"),
    (
        "client_created",
        "{actor} created the client {client}",
        "{actor} がクライアント {client} を作成しました",
    ),
    (
        "client_changed",
        "{actor} changed the client {client}",
        "{actor} がクライアント {client} を変更しました",
    ),
    (
        "client_changed/client",
        "{client} changed its own registration",
        "{client} が自身の登録内容を変更しました",
    ),
    (
        "client_secret_rotated",
        "{actor} gave the client {client} a new secret[: {reason}]",
        "{actor} がクライアント {client} のシークレットを更新しました[: {reason}]",
    ),
    (
        "client_deleted",
        "{actor} deleted the client {client}[ (connections ended: {grants_ended})][: {reason}]",
        "{actor} がクライアント {client} を削除しました[(終了した接続: {grants_ended}件)][: {reason}]",
    ),
    (
        "client_deleted/client",
        "{client} deleted its own registration[ (connections ended: {grants_ended})]",
        "{client} が自身の登録を削除しました[(終了した接続: {grants_ended}件)]",
    ),
    (
        "client_assertion_replayed",
        "{client} sent a client assertion a second time, and was refused",
        "{client} がクライアントアサーションを再送したため、拒否しました",
    ),
    (
        "client_waits",
        "{person} waits until an administrator approves {client}",
        "{person} が {client} の承認を待っています",
    ),
    (
        "wait_cancelled",
        "{person} no longer waits for the approval of {client}",
        "{person} が {client} の承認を待つのをやめました",
    ),
    ("client_approved", "{actor} approved {client}", "{actor} が {client} を承認しました"),
    (
        "client_approved_by_pattern",
        "{client} was approved by a pattern[: {pattern}]",
        "{client} がパターンにより承認されました[: {pattern}]",
    ),
    (
        "client_refused",
        "{actor} refused {client}[ (connections ended: {grants_ended})][: {reason}]",
        "{actor} が {client} を拒否しました[(終了した接続: {grants_ended}件)][: {reason}]",
    ),
    (
        "client_trusted",
        "{actor} marked {client} as trusted",
        "{actor} が {client} を信頼済みにしました",
    ),
    (
        "client_trusted/server",
        "The configuration marked {client} as trusted",
        "設定により {client} が信頼済みになりました",
    ),
    (
        "client_untrusted",
        "{actor} removed the trust in {client}",
        "{actor} が {client} の信頼を解除しました",
    ),
    (
        "client_untrusted/server",
        "The configuration no longer trusts {client}",
        "設定により {client} の信頼が解除されました",
    ),
    (
        "client_decision_lapsed",
        "{client} has changed, so a decision about it no longer applies[: {lost}]",
        "{client} が変わったため、以前の判断は無効になりました[: {lost}]",
    ),
    (
        "client_blocked",
        "{actor} blocked {client}[ (connections ended: {grants_ended})][: {reason}]",
        "{actor} が {client} をブロックしました[(終了した接続: {grants_ended}件)][: {reason}]",
    ),
    (
        "client_unblocked",
        "{actor} unblocked {client}",
        "{actor} が {client} のブロックを解除しました",
    ),
    (
        "approval_pattern_added",
        "{actor} set the approval pattern {pattern}[, until {until}]",
        "{actor} が承認パターン {pattern} を設定しました[({until} まで)]",
    ),
    (
        "approval_pattern_removed",
        "{actor} removed the approval pattern {pattern}[: {reason}]",
        "{actor} が承認パターン {pattern} を削除しました[: {reason}]",
    ),
    ("page_shown", "An error page was shown[: {reason}]", "エラーページを表示しました[: {reason}]"),
    (
        "consent_shown",
        "The consent page was shown for {client} and {server}",
        "{client} と {server} の同意ページを表示しました",
    ),
    (
        "consent_approved",
        "Somebody approved that {client} uses {server}[ ({scopes})]",
        "{client} による {server} の利用が許可されました[({scopes})]",
    ),
    (
        "consent_remembered",
        "Somebody had approved {client} for {server} before, and was not asked again[ ({scopes})]",
        "{client} による {server} の利用は許可済みのため、確認を省略しました[({scopes})]",
    ),
    (
        "consent_denied",
        "Somebody did not approve that {client} uses {server}",
        "{client} による {server} の利用が許可されませんでした",
    ),
    (
        "login_from_other_browser",
        "A sign-in came back in another browser than it began in, and was refused",
        "サインインが開始時とは別のブラウザーに戻ったため、拒否しました",
    ),
    (
        "login_begun_again",
        "The identity provider ended a sign-in for {client}, which was begun again[: {reason}]",
        "IDプロバイダーが {client} のサインインを終了したため、やり直しました[: {reason}]",
    ),
    (
        "login_refused_by_provider",
        "The identity provider did not sign somebody in for {client}[: {reason}]",
        "IDプロバイダーが {client} のサインインを拒否しました[: {reason}]",
    ),
    (
        "login_failed",
        "A sign-in for {client} failed[: {reason}]",
        "{client} のサインインに失敗しました[: {reason}]",
    ),
    (
        "login_untrusted",
        "A sign-in for {client} was refused, because the identity provider's answer is not trusted[: {reason}]",
        "IDプロバイダーの応答を信頼できないため、{client} のサインインを拒否しました[: {reason}]",
    ),
    (
        "login_held",
        "{person} signed in for {client}, and waits for its approval",
        "{person} が {client} のためにサインインし、承認を待っています",
    ),
    (
        "access_denied",
        "{person} was refused {server}[: {rules}][ ({facts})][; the identity provider did not send: {not_known}][: {reason}]",
        "{person} による {server} の利用を拒否しました[: {rules}][({facts})][。IDプロバイダーから送信されなかった情報: {not_known}][: {reason}]",
    ),
    (
        "person_is_blocked",
        "{person}, who is blocked, tried to sign in for {client}",
        "ブロック中の {person} が {client} のためにサインインしようとしました",
    ),
    (
        "code_issued",
        "{person} connected {client} to {server}[ ({scopes})]",
        "{person} が {client} を {server} に接続しました[({scopes})]",
    ),
    (
        "code_redeemed",
        "{client} received its first tokens for {person}[ ({scopes})]",
        "{client} が {person} の最初のトークンを受け取りました[({scopes})]",
    ),
    (
        "code_replayed",
        "{client} sent an authorization code a second time; the connection was ended",
        "{client} が認可コードを再送したため、接続を終了しました",
    ),
    (
        "refresh_rotated",
        "{client} renewed its tokens for {person}",
        "{client} が {person} のトークンを更新しました",
    ),
    (
        "refresh_grace_replayed",
        "{client} repeated a renewal of its tokens for {person}, and got the same answer",
        "{client} が {person} のトークン更新を繰り返し、同じ応答を受け取りました",
    ),
    (
        "refresh_reused",
        "{client} sent a used refresh token for {person}; the connection was ended",
        "{client} が {person} の使用済みリフレッシュトークンを送ったため、接続を終了しました",
    ),
    (
        "access_lost",
        "{person} lost access to {server} with {client}[: {rules}]",
        "{person} は {client} で {server} を利用できなくなりました[: {rules}]",
    ),
    (
        "tool_refused",
        "{person} was refused a tool[ ({tool})] of {server} with {client}[: it needs {needed}]",
        "{person} による {client} からの {server} のツール[({tool})]の利用を拒否しました[(必要なスコープ: {needed})]",
    ),
    (
        "step_up_refused",
        "{client} asked for more access for {person}, and the rules do not give it[: {missing}]",
        "{client} が {person} の追加の権限を求めましたが、ルールで許可されていません[: {missing}]",
    ),
    (
        "grant_revoked",
        "{actor} ended the connection of {person} with {client}[: {because}][: {reason}]",
        "{actor} が {person} と {client} の接続を終了しました[: {because}][: {reason}]",
    ),
    (
        "grant_revoked/client",
        "{client} ended its connection[ for {person}]",
        "{client} が接続を終了しました[(利用者: {person})]",
    ),
    (
        "grants_revoked",
        "{actor} ended connections[ of {person}][ with {client}][ made before {before}]: {ended}[ ({reason})]",
        "{actor} が接続を終了しました[(利用者: {person})][(クライアント: {client})][({before} より前)]: {ended}件[({reason})]",
    ),
    (
        "upstream_refused",
        "The identity provider no longer confirms {person}[: {reason}]",
        "IDプロバイダーが {person} を確認しなくなりました[: {reason}]",
    ),
    (
        "upstream_identity_changed",
        "The identity provider answered for somebody else than {person}; the session was ended",
        "IDプロバイダーが {person} ではない人について応答したため、セッションを終了しました",
    ),
    (
        "connection_made",
        "{person} connected the service {connection}[ for {server}][ (scopes: {scopes})]",
        "{person} がサービス {connection} を連携しました[(MCPサーバー: {server})][(スコープ: {scopes})]",
    ),
    (
        "connection_scopes_changed",
        "{person} changed what {connection} gives[ to {server}][ (scopes: {scopes})]",
        "{person} がサービス {connection} の連携の権限を変更しました[(MCPサーバー: {server})][(スコープ: {scopes})]",
    ),
    (
        "connection_account_changed",
        "{person} connected another account of {connection}[ (scopes: {scopes})]",
        "{person} がサービス {connection} の別のアカウントを連携しました[(スコープ: {scopes})]",
    ),
    (
        "connection_broken",
        "{connection} refuses to renew the token of {person}, who has to connect it again[: {reason}]",
        "サービス {connection} が {person} のトークンの更新を拒否しました。もう一度連携する必要があります[: {reason}]",
    ),
    (
        "connection_removed",
        "{actor} removed the connection of {person} to the service {connection}[: {because}][: {reason}]",
        "{actor} が {person} とサービス {connection} の連携を解除しました[: {because}][: {reason}]",
    ),
    (
        "connection_removed/person",
        "{person} disconnected the service {connection}",
        "{person} がサービス {connection} の連携を解除しました",
    ),
    (
        "connection_refused",
        "What a service sent back was refused[: {reason}][ (service: {connection})]",
        "サービスから戻った応答を拒否しました[: {reason}][(サービス: {connection})]",
    ),
    (
        "upstream_token_exchanged",
        "{server} received the token of {person} for {connection}[ (scopes: {scopes})]",
        "{server} が {person} の {connection} のトークンを取得しました[(スコープ: {scopes})]",
    ),
    (
        "upstream_token_refused",
        "{server} was refused a token[ of {person}][ for {connection}][: {reason}]",
        "{server} へのトークンの発行を拒否しました[(利用者: {person})][(サービス: {connection})][: {reason}]",
    ),
    (
        "upstream_session_expired",
        "The identity provider could not be asked about {person} for too long; the session was ended",
        "IDプロバイダーに {person} を長時間確認できなかったため、セッションを終了しました",
    ),
    (
        "upstream_logout",
        "The identity provider reported a sign-out[ of {person}][: {because}] (sessions ended: {ended})",
        "IDプロバイダーがサインアウトを通知しました[(利用者: {person})][: {because}](終了したセッション: {ended}件)",
    ),
    (
        "provider_down",
        "The identity provider does not answer[: {reason}]",
        "IDプロバイダーが応答しません[: {reason}]",
    ),
    (
        "provider_back",
        "The identity provider answers again[, {reason}]",
        "IDプロバイダーの応答が再開しました[: {reason}]",
    ),
    (
        "person_blocked",
        "{actor} blocked {person}[ (connections ended: {grants_ended})][: {reason}]",
        "{actor} が {person} をブロックしました[(終了した接続: {grants_ended}件)][: {reason}]",
    ),
    (
        "person_unblocked",
        "{actor} unblocked {person}",
        "{actor} が {person} のブロックを解除しました",
    ),
    (
        "person_signed_out",
        "{actor} signed {person} out everywhere[ (connections ended: {grants_ended})][: {reason}]",
        "{actor} が {person} をすべてからサインアウトさせました[(終了した接続: {grants_ended}件)][: {reason}]",
    ),
    (
        "person_signed_out/person",
        "{person} signed out everywhere[ (connections ended: {grants_ended})]",
        "{person} がすべてからサインアウトしました[(終了した接続: {grants_ended}件)]",
    ),
    (
        "console_signed_in",
        "{person} signed in to {pages}",
        "{person} が{pages}にサインインしました",
    ),
    (
        "console_signed_out",
        "{person} signed out of {pages}",
        "{person} が{pages}からサインアウトしました",
    ),
    (
        "console_refused",
        "{person} was refused {pages}[: {reason}]",
        "{person} による{pages}の利用を拒否しました[: {reason}]",
    ),
    (
        "key_added",
        "{actor} added a signing key[ ({alg})][: {kid}]",
        "{actor} が署名鍵を追加しました[({alg})][: {kid}]",
    ),
    (
        "key_retired",
        "A signing key was retired[ ({alg})][: {kid}]",
        "署名鍵を廃止しました[({alg})][: {kid}]",
    ),
    (
        "ends_soon",
        "Something is near its end[: {what}][: {reason}]",
        "期限が近づいています[: {what}][: {reason}]",
    ),
    (
        "certificate_obtained",
        "The ACME server issued a certificate[ for {domains}]",
        "ACMEサーバーが証明書を発行しました[: {domains}]",
    ),
    (
        "certificate_failed",
        "No certificate was obtained[ for {domains}][: {reason}]",
        "証明書を取得できませんでした[: {domains}][: {reason}]",
    ),
    (
        "clock_accepted",
        "{actor} confirmed the clock of the server",
        "{actor} がサーバーの時計を確認しました",
    ),
    (
        "configuration_loaded",
        "The server started[ with version {version}]",
        "サーバーを起動しました[(バージョン {version})]",
    ),
    (
        "configuration_reloaded",
        "The server took over a changed configuration[: {changed}]",
        "サーバーが変更された設定を反映しました[: {changed}]",
    ),
    (
        "configuration_refused",
        "A changed configuration is not in use[; errors: {mistakes}][; needs a restart: {waiting}]",
        "変更された設定は反映されていません[(エラー: {mistakes})][(再起動が必要: {waiting})]",
    ),
    (
        "notification_tested",
        "{actor} sent a test notification[ to {target}]",
        "{actor} がテスト通知を送信しました[(送信先: {target})]",
    ),
    (
        "notification_given_up",
        "A notification could not be delivered[ to {target}][: {reason}]",
        "通知を送信できませんでした[(送信先: {target})][: {reason}]",
    ),
    (
        "audit_exported",
        "{actor} downloaded the audit trail[ ({search})]",
        "{actor} が監査ログをダウンロードしました[({search})]",
    ),
    (
        "usage_exported",
        "{actor} downloaded who used what[ ({search})]",
        "{actor} が利用状況をダウンロードしました[({search})]",
    ),
    (
        "audit_left_out",
        "Of a flood of events, this many are in the log only: {events}",
        "大量のイベントのうち、ログのみに記録した件数: {events}",
    ),
    (
        "audit_trimmed",
        "The server removed lines of the audit trail, because it was full: {lines}",
        "監査ログが上限に達したため、サーバーが行を削除しました: {lines}行",
    ),
    (
        "audit_line_refused",
        "Lines of the audit trail were not written by this server: {lines}",
        "監査ログに、このサーバーが書き込んでいない行があります: {lines}行",
    ),
    ("backup_made", "{actor} made a backup", "{actor} がバックアップを作成しました"),
    (
        "backup_restored",
        "The server started on a backup (connections ended: {ended})",
        "サーバーがバックアップから起動しました(終了した接続: {ended}件)",
    ),
    (
        "database_went_back",
        "The database was put back to an older state (connections ended: {ended})",
        "データベースが以前の状態に戻されました(終了した接続: {ended}件)",
    ),
];
