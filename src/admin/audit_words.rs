//! The words of `/audit`.

use crate::web::words::words;

words! {
    pub(super) struct AuditWords {
        title: "Audit", "監査";
        event: "Event", "イベント";
        any: "any", "すべて";
        client_id: "Client ID", "クライアントID";
        subject: "Subject of the person", "利用者のサブジェクト";
        grant_id: "Connection ID", "接続ID";
        search: "Reference from an error page, or a person or client: name, beginning of a name, e-mail address or ID", "エラーページの参照番号、または利用者・クライアントの名前、名前の先頭、メールアドレス、ID";
        cut: "More than 100 people or clients match. Only events of 100 of them are listed; type more of the name.", "100を超える利用者またはクライアントが該当します。そのうち100のイベントだけを表示しています。名前をさらに入力してください。";
        since: "From (UTC)", "開始日(UTC)";
        until: "Up to and including (UTC)", "終了日(UTC、当日を含む)";
        further: "More filters", "その他の条件";
        find: "Search", "検索";
        clear: "Clear", "条件をクリア";
        none: "No events match.", "該当するイベントはありません。";
        not_a_day: "Enter a date.", "日付を入力してください。";
        filters: "Filters", "絞り込み";
        all: "All events", "すべてのイベント";
        refusals: "Refusals", "拒否";
        administrators: "Administrators", "管理者";
        any_time: "Any time", "全期間";
        last_hour: "Last hour", "過去1時間";
        last_day: "Last 24 hours", "過去24時間";
        show_routine: "Include routine events", "通常のイベントも表示";
        hide_routine: "Hide routine events", "通常のイベントを隠す";
        routine_hidden: "Hidden as routine:", "通常のイベントとして非表示:";
        remove: "Remove this filter", "この条件を外す";
        time: "Time", "日時";
        what: "What happened", "内容";
        why: "Why?", "理由";
        details: "Details", "詳細";
        by: "By", "実行者";
        client: "Client", "クライアント";
        person: "Person", "利用者";
        server: "MCP server", "MCPサーバー";
        grant: "Connection", "接続";
        reference: "Reference", "参照番号";
        seq: "Line", "行";
        not_chained: "not chained yet", "未連結";
        export: "Download results", "検索結果をダウンロード";
        export_note: "Downloads include routine events.", "ダウンロードには通常のイベントも含まれます。";
        csv: "CSV", "CSV";
        jsonl: "JSON Lines", "JSON Lines";
        chain: "The chain", "連結";
        chain_note: "Each line is chained to the one before it, so that a changed, removed or reordered line shows. To prove that the end was not cut off together with everything that knows of it, keep the last line's number and MAC elsewhere.", "各行は直前の行と連結されているため、変更・削除・並べ替えは検出されます。末尾ごと以前の状態に戻されていないことを示すには、最後の行の番号とMACを別の場所に保管してください。";
        last_line: "Last line", "最後の行";
        verify: "Verify now", "今すぐ検証";
        verify_note: "reads the whole trail", "記録全体を読み込みます";
        holds: "The chain holds.", "連結は正常です。";
        lines: "Lines", "行";
        mac: "MAC of the last line", "最後の行のMAC";
        unsettled: "Not chained yet", "未連結";
        removed: "Removed by the server, as old or as too many", "保存期間または容量の上限によりサーバーが削除した行";
        broken: "The chain is broken:", "連結が壊れています:";
        broken_note: "Somebody changed the database past this server, or it is damaged. Keep a copy of the database before anything else, and compare it with your log collector: every line is there as well.", "このサーバーを経由せずにデータベースが変更されたか、破損しています。まずデータベースの複製を保管し、ログ収集側の記録と照合してください。同じ行がログにも記録されています。";
    }
}
