//! The words of `/usage`.

use crate::storage::CallOutcome;
use crate::web::words::words;

words! {
    pub(super) struct UsageWords {
        title: "Usage", "利用状況";
        explained: "Calls through the gateway, counted by the hour. Arguments and results are never kept. The last ten seconds may be missing.", "ゲートウェイを通った呼び出しの1時間ごとの集計です。引数と結果は保存しません。直近10秒間は含まれないことがあります。";
        person: "Person", "利用者";
        person_field: "Person: name, e-mail address or subject", "利用者: 名前、メールアドレス、またはサブジェクト";
        client: "Client", "クライアント";
        client_field: "Client: name, host or ID", "クライアント: 名前、ホスト、またはID";
        server: "MCP server", "MCPサーバー";
        tool: "Tool", "ツール";
        outcome: "Outcome", "結果";
        any: "any", "すべて";
        when: "When (UTC)", "期間(UTC)";
        day: "last 24 hours", "直近24時間";
        week: "last 7 days", "直近7日間";
        month: "last 30 days", "直近30日間";
        own: "from … to", "期間を指定";
        since: "From", "開始日";
        until: "Up to and including", "終了日(当日を含む)";
        search: "Search", "検索";
        clear: "Clear", "条件をクリア";
        not_a_day: "Enter two dates, the first one first.", "開始日と終了日を正しい順で入力してください。";
        nobody: "No person matches.", "該当する利用者はいません。";
        no_client: "No client matches.", "該当するクライアントはありません。";
        many_people: "More people match than can be shown at once: these are 20 of them. Enter more of the name.", "該当者が多すぎるため、20人のみを対象にしています。名前をさらに入力してください。";
        many_clients: "More clients match than can be shown at once: these are 20 of them. Enter more of the name.", "該当するクライアントが多すぎるため、20件のみを対象にしています。名前をさらに入力してください。";
        none: "No calls match.", "該当する呼び出しはありません。";
        all_calls: "All calls", "すべての呼び出し";
        calls: "Calls", "呼び出し";
        ended: "Not answered with a result", "結果が返らなかった呼び出し";
        last_call: "Last call", "最後の呼び出し";
        csv: "Download results as CSV", "検索結果をCSVでダウンロード";
        unnamed: "(no name)", "(名前なし)";
        other_tools: "other tools", "その他のツール";
        other_methods: "other requests", "その他の要求";
        method: "method", "メソッド";
        answered: "answered", "応答あり";
        tool_errors: "tool failed", "ツールのエラー";
        errors: "error from the server", "サーバーのエラー";
        scope_refused: "refused: scope missing", "拒否(スコープ不足)";
        refused: "refused for another reason", "拒否(その他)";
        failed: "server not reached", "サーバーに接続できず";
        unanswered: "broken off", "中断";
        not_answered: "all others", "それ以外";
        time: "Time (UTC)", "日時(UTC)";
        as_table: "Numbers as a table", "数値を表で見る";
        chart_of: "calls", "件の呼び出し";
    }
}

impl UsageWords {
    /// Returns an outcome in words.
    pub(super) fn outcome(&self, outcome: CallOutcome) -> &'static str {
        match outcome {
            CallOutcome::Answered => self.answered,
            CallOutcome::ToolError => self.tool_errors,
            CallOutcome::Error => self.errors,
            CallOutcome::ScopeRefused => self.scope_refused,
            CallOutcome::Refused => self.refused,
            CallOutcome::Failed => self.failed,
            CallOutcome::Unanswered => self.unanswered,
        }
    }
}
