//! The words of the pages about clients.

use crate::web::words::words;

words! {
    /// Words of the list and of a client's page.
    pub(super) struct ClientWords {
        title: "Clients", "クライアント";
        search: "Any part of the name or host, or the client ID", "名前・ホストの一部、またはクライアントID";
        status: "Status", "状態";
        all: "all", "すべて";
        waiting: "waiting for approval", "承認待ち";
        approved: "approved", "承認済み";
        refused: "refused", "拒否";
        blocked: "blocked", "ブロック中";
        trusted: "trusted", "信頼済み";
        unused: "unused for 30 days", "30日間未使用";
        sort: "Sort by", "並べ替え";
        newest: "newest first", "新しい順";
        by_last_use: "last used first", "最終利用順";
        by_name: "name", "名前順";
        find: "Search", "検索";
        clear: "Clear", "クリア";
        none: "No clients match", "該当するクライアントはありません:";
        none_at_all: "No clients yet.", "クライアントはまだありません。";
        none_of_these: "No clients match.", "該当するクライアントはありません。";
        name: "Name", "名前";
        goes_to: "Redirects to", "リダイレクト先";
        kind: "Kind", "種類";
        registered: "registered itself", "自己登録";
        created: "created by an admin", "管理者が作成";
        configured: "in the configuration", "設定ファイル";
        document: "metadata document", "メタデータ文書";
        since: "Registered", "登録日時";
        last_use: "Last use", "最終利用";
        never: "never", "なし";
        searched_newest: "Only the newest {0} clients were searched, and all whose names begin with the text. Sort by the newest to search on.", "新しい{0}件のクライアントと、名前がこの文字列で始まるクライアントだけを調べました。続きを調べるには、新しい順に並べてください。";
        searched: "Each page of this search looks at {0} clients. There are more to search on the next page.", "この検索は1ページにつき{0}件のクライアントを調べます。続きは次のページで調べます。";
        unnamed: "(no name)", "(名前なし)";
        suspicious: "looks like another name", "紛らわしい名前";
        new: "New client", "新しいクライアント";
        patterns: "Approval by pattern", "パターンによる承認";
        client_id: "Client ID", "クライアントID";
        one_waits: "1 person waits", "1人が待機中";
        people_wait: " people wait", "人が待機中";
        waits_since: "· first asked", "· 最初の依頼:";
        redirect_uris: "Redirect URIs", "リダイレクトURI";
        authenticates: "Authentication", "認証方式";
        public_client: "(public client)", "(パブリッククライアント)";
        owner: "Owner", "担当";
        note: "Note", "メモ";
        metadata: "What it registered", "登録内容";
        connections: "Connections", "接続数";
        connected: "Who connected it", "接続した人";
        person: "Person", "利用者";
        server: "MCP server", "MCPサーバー";
        nobody: "Nobody at the moment.", "現在はいません。";
        all_connections: "All connections", "すべての接続";
        wants: "Wants to", "求めている権限";
        waiting_since: "Waiting since", "待機開始";
        waiting_title: "Waiting for your decision", "判断を待っている人";
        waiting_note: "They have signed in. A person gives a client at most what their own role allows.", "サインイン済みです。クライアントに渡される権限は、本人のロールで許可された範囲に限られます。";
        nobody_waits: "Nobody waits at the moment: a sign-in waits for an hour. The first person who waited:", "現在待っている人はいません(サインインが待機するのは1時間です)。最初に待っていた人:";
        digest: "Digest of what is decided about", "判断の対象を表すダイジェスト";
        lapsed: "It has changed since it was approved or trusted, so that decision no longer applies. Look at it again.", "承認または信頼された後に変わったため、その判断は無効です。もう一度確認してください。";
        usage: "What this client used in the last 30 days", "このクライアントの直近30日間の利用状況";
        history: "History in the audit trail", "監査ログの履歴";
        edit: "Edit", "編集";
        approve: "Approve", "承認";
        refuse: "Refuse", "拒否";
        trust: "Trust", "信頼する";
        untrust: "Remove trust", "信頼を解除";
        rotate: "Rotate the secret", "シークレットを更新";
        approve_note: "The people who wait continue at once, and nobody waits for this client again.", "待っている人は先へ進み、以後このクライアントの承認待ちはなくなります。";
        refuse_note: "The people who wait see that it is refused, and its connections end. Nobody can connect it until it is approved.", "待っている人に拒否を表示し、このクライアントの接続を終了します。承認するまで誰も接続できません。";
        trust_note: "“Skip the consent page”: a person who approved it is not asked again in the same browser for 30 days, if they open it directly.", "「同意ページの省略」: 一度承認した利用者には、直接開いた場合に限り、同じブラウザーで30日間確認しません。";
        trust_not_available: "“Skip the consent page” is not available for apps on a device.", "「同意ページの省略」は、端末上のアプリでは利用できません。";
        untrust_note: "People are asked for their approval every time again.", "利用者の承認を毎回求めるようになります。";
        block_note: "Nobody can connect it until it is unblocked. Its connections end at once, open streams included.", "ブロックを解除するまで誰も接続できません。接続は、開いているストリームを含めて直ちに終了します。";
        unblock_note: "People can connect it again. What has ended stays ended.", "もう一度接続できるようになります。終了したものは元に戻りません。";
        end_note: "Ends its connections, open streams included. People can connect it again.", "開いているストリームを含めて接続を終了します。利用者はもう一度接続できます。";
        delete_note: "Removes its registration, and ends its connections. It may register again as a new client.", "登録を削除し、接続を終了します。新しいクライアントとして登録し直すことはできます。";
        rotate_note: "Gives it another secret, which is shown once. The former one ends at once.", "新しいシークレットを発行し、一度だけ表示します。以前のシークレットは直ちに無効になります。";
        block: "Block", "ブロック";
        unblock: "Unblock", "ブロック解除";
        delete: "Delete", "削除";
        end_all: "End all connections", "すべての接続を終了";
        delete_unused: "Delete these clients", "これらのクライアントを削除";
        delete_unused_note: "All clients on this list, after a page that counts and names them. Clients that an administrator created or configured are not on it.", "この一覧のすべてのクライアントが対象です。先に件数と名前を確認するページが表示されます。管理者が作成または設定したクライアントは含まれません。";
        done_approved: "The client is approved; the people who waited continue automatically.", "承認しました。待っている人は自動的に先へ進みます。";
        done_refused: "The client is refused, and its connections have ended.", "拒否し、接続を終了しました。";
        done_trusted: "The client is trusted.", "信頼済みにしました。";
        done_untrusted: "The client is no longer trusted.", "信頼を解除しました。";
        done_blocked: "The client is blocked, and its connections have ended.", "ブロックし、接続を終了しました。";
        done_unblocked: "The client is no longer blocked. People can connect it again.", "ブロックを解除しました。利用者はもう一度接続できます。";
        done_deleted: "The client is deleted, and its connections have ended.", "削除し、接続を終了しました。";
        done_unused: "The unused clients are deleted.", "未使用のクライアントを削除しました。";
        done_saved: "The changes are saved.", "変更を保存しました。";
        changed: "Nothing was decided: the client has changed what it registered since you opened the page. Read it again.", "クライアントの登録内容がページを開いた後に変わったため、何も変更していません。もう一度確認してください。";
        done_ended: "All its connections have ended.", "すべての接続を終了しました。";
    }
}

words! {
    /// Words of the forms that create and change a client.
    pub(super) struct ClientFormWords {
        new: "New client", "新しいクライアント";
        new_explained: "For a program that cannot register itself. It is known by the ID and secret that you give to it.", "自己登録できないプログラムのためのものです。発行するIDとシークレットで識別されます。";
        edit: "Edit a client", "クライアントの編集";
        edit_explained: "A client that an administrator created stays approved when you change it, and is no longer trusted: people agreed to what it was before.", "管理者が作成したクライアントは、変更しても承認されたままですが、信頼は解除されます。利用者が承認したのは変更前の内容だからです。";
        note_explained: "Only administrators read the owner and the note.", "担当とメモは管理者だけに表示されます。";
        name: "Name", "名前";
        uris_one_a_line: "Redirect URIs, one a line", "リダイレクトURI(1行に1つ)";
        with_secret: "It can keep a secret (a website, not a program on a device)", "シークレットを保持できる(端末上のプログラムではなくウェブサイト)";
        owner: "Owner: the person or team that looks after it", "担当(管理する人またはチーム)";
        note: "Note", "メモ";
        create: "Create", "作成";
        save: "Save", "保存";
        cancel: "Cancel", "キャンセル";
        created_title: "Client created", "クライアントを作成しました";
        rotated_title: "New secret", "新しいシークレット";
        rotated_note: "The former secret has ended.", "以前のシークレットは無効になりました。";
        client_id: "Client ID", "クライアントID";
        secret: "Client secret", "クライアントシークレット";
        secret_once: "This is shown once. Copy it now.", "この画面でのみ表示されます。今すぐ控えてください。";
        view_client: "View client", "クライアントを表示";
        changed: "Nothing was saved: the client has changed since you opened the page. Read it again.", "ページを開いた後にクライアントが変わったため、保存していません。もう一度確認してください。";
    }
}

words! {
    /// Words of the page of approval patterns.
    pub(super) struct PatternWords {
        title: "Approval by pattern", "パターンによる承認";
        explained: "A client is approved at once if all its redirect URIs go to one of these websites. The whole host must be the same: a name that looks like it, a subdomain, or a program on a device is not approved. A refusal and a block stay.", "リダイレクトURIがすべて次のウェブサイトのいずれかに向かうクライアントは、直ちに承認されます。ホスト全体が一致する必要があり、紛らわしい名前、サブドメイン、端末上のプログラムは承認されません。拒否とブロックはそのまま残ります。";
        no_effect: "Clients need no approval on this server (client_approval), so patterns have no effect now.", "このサーバーではクライアントの承認が不要なため(client_approval)、パターンは現在効果がありません。";
        website: "Website", "ウェブサイト";
        website_hint: "Website, such as chatgpt.com", "ウェブサイト(例: chatgpt.com)";
        until: "Until", "期限";
        until_hint: "Until the end of this day, UTC (optional)", "この日の終わりまで、UTC(任意)";
        no_end: "no end", "なし";
        over: "over", "期限切れ";
        approved: "Approved so far", "承認した数";
        added: "Added", "追加日時";
        by: "By", "追加した人";
        shell: "command line", "コマンドライン";
        none: "There are no patterns.", "パターンはありません。";
        add: "Add", "追加";
        add_title: "Add a pattern, or change its end", "パターンの追加、または期限の変更";
        add_note: "Clients that wait and match are approved at once.", "待機中で該当するクライアントは直ちに承認されます。";
        remove: "Remove", "削除";
        back: "All clients", "すべてのクライアント";
        done_added: "The pattern is in force.", "パターンが有効になりました。";
        one_approved: "1 waiting client is approved.", "待機中のクライアント1件を承認しました。";
        many_approved: " waiting clients are approved.", "件の待機中のクライアントを承認しました。";
        done_removed: "The pattern is removed. Clients that it approved stay approved.", "パターンを削除しました。このパターンで承認されたクライアントは承認されたままです。";
        not_a_host: "Write the host alone, such as chatgpt.com or example.com:8443.", "chatgpt.com や example.com:8443 のように、ホストだけを入力してください。";
        not_a_website: "Write the whole name of a website, such as chatgpt.com.", "chatgpt.com のように、ウェブサイトの名前全体を入力してください。";
        other_letters: "A name with other letters than a to z may look like another name. Approve its clients one by one.", "aからz以外の文字を含む名前は、ほかの名前と紛らわしい場合があります。クライアントを1件ずつ承認してください。";
        not_a_day: "Enter a date that is not over.", "過ぎていない日付を入力してください。";
        too_many: "There are 100 patterns already. Remove one first.", "パターンはすでに100件あります。先に1件削除してください。";
    }
}
