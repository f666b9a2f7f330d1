//! The words of confirmation pages.

use super::question::Question;
use crate::web::words::words;

words! {
    pub(super) struct ConfirmWords {
        block_client: "Block this client?", "このクライアントをブロックしますか?";
        refuse_client: "Refuse this client?", "このクライアントを拒否しますか?";
        delete_client: "Delete this client?", "このクライアントを削除しますか?";
        end_client: "End all connections of this client?", "このクライアントの接続をすべて終了しますか?";
        rotate_secret: "Rotate the secret of this client?", "このクライアントのシークレットを更新しますか?";
        delete_unused: "Delete these unused clients?", "これらの未使用のクライアントを削除しますか?";
        remove_pattern: "Remove this pattern?", "このパターンを削除しますか?";
        block_person: "Block this person?", "この利用者をブロックしますか?";
        sign_out_person: "Sign this person out everywhere?", "この利用者をすべてからサインアウトさせますか?";
        end_person: "End all connections of this person?", "この利用者の接続をすべて終了しますか?";
        end_one: "End this connection?", "この接続を終了しますか?";
        before: "End everything that was given before this day?", "この日より前に許可されたものをすべて終了しますか?";
        remove_service: "Remove this connected service?", "この連携を解除しますか?";
        remove_services: "Remove this service from everybody?", "このサービスの連携を全員分解除しますか?";
        remove_services_of: "Remove all connected services of this person?", "この利用者の連携サービスをすべて解除しますか?";
        given_before: "Given before", "許可された日時がこれより前:";
        unused_since: "Not used since", "最終利用がこれより前:";
        nothing_before: "No connection was given before that day.", "この日より前に許可された接続はありません。";
        no_services: "No service is connected.", "連携しているサービスはありません。";
        ended_before: "This connection has ended already.", "この接続はすでに終了しています。";
        nothing_unused: "No client has been unused for so long.", "該当する未使用のクライアントはありません。";
        block: "Block", "ブロックする";
        refuse: "Refuse", "拒否する";
        delete: "Delete", "削除する";
        rotate: "Rotate the secret", "シークレットを更新する";
        remove: "Remove", "削除する";
        sign_out: "Sign out everywhere", "すべてからサインアウトさせる";
        end: "End", "終了する";
        block_client_note: "Nobody can connect it until it is unblocked.", "ブロックを解除するまで誰も接続できません。";
        refuse_client_note: "The people who wait for it see that. Nobody can connect it until it is approved.", "待っている人にはその旨が表示されます。承認するまで誰も接続できません。";
        delete_client_note: "Its registration is removed. It may register again as a new client.", "登録を削除します。新しいクライアントとして登録し直すことはできます。";
        rotate_secret_note: "Its former secret ends at once: until the program has the new one, it gets no tokens. Its connections stay.", "以前のシークレットは直ちに無効になります。プログラムに新しいシークレットを設定するまで、トークンを取得できません。接続はそのまま残ります。";
        rotated: "Nothing was done: the secret was rotated since this page was shown, or you have signed in again since. The new secret was shown when that happened: if you pressed twice, by the first press. Rotate it again only if the new secret is lost.", "このページを表示した後にシークレットが更新されたか、サインインし直したため、何も行いませんでした。新しいシークレットは、更新した人の画面に表示されました(二度押した場合は1回目です)。控えていない場合だけ、もう一度更新してください。";
        delete_unused_note: "Their registrations are removed. They may register again as new clients. Clients that an administrator created or configured stay.", "登録を削除します。新しいクライアントとして登録し直すことはできます。管理者が作成または設定したクライアントは残ります。";
        remove_pattern_note: "From now on its clients wait for a review. Clients that it approved stay approved.", "以後、該当するクライアントは確認を待つことになります。このパターンで承認されたクライアントは承認されたままです。";
        block_person_note: "They cannot sign in until they are unblocked.", "ブロックを解除するまでサインインできません。";
        sign_out_person_note: "They can sign in again.", "もう一度サインインできます。";
        end_note: "They can be connected again.", "もう一度接続できます。";
        end_one_note: "It can be connected again.", "もう一度接続できます。";
        remove_service_note: "The stored tokens are deleted at once, and revoked at the service where it allows that. People can connect it again.", "保存されているトークンを直ちに削除し、可能な場合はサービス側でも失効させます。利用者はもう一度連携できます。";
        removes: "Removes ", "解除する連携サービス: ";
        one_service: "1 connected service", "1件";
        services: " connected services", "件";
        of_one: " of 1 person.", " (利用者1人)。";
        of_people: " of ", " (利用者";
        people_end: " people.", "人)。";
        service_name: "Name in the configuration", "設定での名前";
        account: "Account", "アカウント";
        clients_deleted: " clients are deleted.", "件のクライアントを削除します。";
        one_client_deleted: "1 client", "1件";
        is_deleted: " is deleted.", "のクライアントを削除します。";
        person: "Person", "利用者";
        client: "Client", "クライアント";
        client_id: "Client ID", "クライアントID";
        subject: "Subject", "サブジェクト";
        email: "E-mail", "メールアドレス";
        redirects_to: "Redirects to", "リダイレクト先";
        server: "MCP server", "MCPサーバー";
        since: "Since", "開始";
        last_use: "Last use", "最終利用";
        never: "never", "なし";
        unnamed: "(no name)", "(名前なし)";
        waiting: "Waiting for a decision", "判断を待っている人";
        waiting_since: "Waiting since", "待機開始";
        reason: "Reason (optional)", "理由 (任意)";
        reason_needed: "Reason", "理由";
        reason_note: "Stored in the audit trail, which names nobody: a ticket number is better than a name.", "監査ログに保存されます。監査ログには氏名を残さないため、氏名ではなくチケット番号などを入力してください。";
        type_before: "Type ", "確認のため「";
        type_after: " to confirm", "」と入力してください";
        wrong_number: "Nothing was done: the number that you typed is not the one above.", "入力された数が上の数と異なるため、何も行いませんでした。";
        no_reason: "Nothing was done: write a reason.", "理由が入力されていないため、何も行いませんでした。";
        sign_in_first: "You will be asked to sign in again first, because your last sign-in is older than ten minutes.", "最後のサインインから10分以上経過しているため、先にもう一度サインインが必要です。";
        not_listed: " more clients are not shown.", "件のクライアントは表示していません。";
    }
}

impl ConfirmWords {
    /// Returns title, button and note of a question.
    pub(super) fn of_question(
        &self,
        question: &Question,
    ) -> (&'static str, &'static str, &'static str) {
        match question.act {
            "block_client" => (self.block_client, self.block, self.block_client_note),
            "refuse_client" => (self.refuse_client, self.refuse, self.refuse_client_note),
            "delete_client" => (self.delete_client, self.delete, self.delete_client_note),
            "end_client" => (self.end_client, self.end, self.end_note),
            "rotate_secret" => (self.rotate_secret, self.rotate, self.rotate_secret_note),
            "delete_unused" => (self.delete_unused, self.delete, self.delete_unused_note),
            "remove_pattern" => (self.remove_pattern, self.remove, self.remove_pattern_note),
            "block_person" => (self.block_person, self.block, self.block_person_note),
            "sign_out_person" => (self.sign_out_person, self.sign_out, self.sign_out_person_note),
            "end_person" => (self.end_person, self.end, self.end_note),
            "end_one" => (self.end_one, self.end, self.end_one_note),
            "remove_service" => (self.remove_service, self.remove, self.remove_service_note),
            "remove_services" => (self.remove_services, self.remove, self.remove_service_note),
            "remove_services_of" => {
                (self.remove_services_of, self.remove, self.remove_service_note)
            }
            _ => (self.before, self.end, self.end_note),
        }
    }

    /// Returns what to say of an act that would change nothing.
    pub(super) fn pointless(&self, question: &Question) -> &'static str {
        match question.act {
            "end_one" => self.ended_before,
            "remove_service" | "remove_services" | "remove_services_of" => self.no_services,
            "delete_unused" => self.nothing_unused,
            _ => self.nothing_before,
        }
    }
}
