//! Words for rules, and for what would let somebody in. `{0}` and so on stand for values.

use crate::web::words::words;

words! {
    /// Words for the conditions of rules.
    pub(crate) struct ConditionWords {
        roles: "has one of the roles", "次のいずれかのロールを持つ:";
        groups: "is in one of the groups", "次のいずれかのグループに属する:";
        permissions: "has one of the permissions", "次のいずれかの権限を持つ:";
        not_roles: "has none of the roles", "次のロールを持たない:";
        not_groups: "is in none of the groups", "次のグループに属さない:";
        subjects: "is one of", "次のいずれかの人:";
        email_domains: "has a verified e-mail address at", "次のドメインの確認済みメールアドレスを持つ:";
        clients: "uses one of the clients", "次のいずれかのクライアントを利用:";
        claim: "has the claim {0} as one of", "クレーム {0} が次のいずれか:";
        permission_named: "has a permission with the name of a scope", "スコープと同名の権限を持つ";
    }
}

words! {
    /// Words for what would let somebody in.
    pub(crate) struct AdviceWords {
        no_rule_matches: "No rule matches ({0}).", "該当するルールがありません({0})。";
        not_allowed: "The rules that match do not allow {0}.", "該当するルールは {0} を許可していません。";
        denied: "{0} denies {1}.", "{0} が {1} を拒否しています。";
        nothing_sent: "the provider sent nothing that the rules read", "ルールが参照する情報は送信されていません";
        arrived: "{0}: {1}", "{0}: {1}";
        roles: "roles", "ロール";
        groups: "groups", "グループ";
        permissions: "permissions", "権限";
        email: "e-mail address", "メールアドレス";
        claim: "claim {0}", "クレーム {0}";
        client: "client", "クライアント";
        subject: "subject", "サブジェクト";
        none: "none", "なし";
        unknown: "not known", "不明";
        unverified: "{0}, not verified", "{0}(未確認)";
        and: " and ", "、かつ";
        or: ", or ", "、または";
        one_of: ", ", "、";
        full_stop: ".", "。";
        give_role: "give them the role {0} at {1}", "{1} でロール {0} を付与する";
        give_roles: "give them one of the roles {0} at {1}", "{1} でロール {0} のいずれかを付与する";
        give_group: "add them to the group {0} at {1}", "{1} でグループ {0} に追加する";
        give_groups: "add them to one of the groups {0} at {1}", "{1} でグループ {0} のいずれかに追加する";
        give_permission: "give them the permission {0} at {1}", "{1} で権限 {0} を付与する";
        give_permissions: "give them one of the permissions {0} at {1}", "{1} で権限 {0} のいずれかを付与する";
        give_claim: "have {1} send the claim {2} as {0}", "{1} がクレーム {2} を {0} として送信するようにする";
        give_claims: "have {1} send the claim {2} as one of {0}", "{1} がクレーム {2} を {0} のいずれかとして送信するようにする";
        give_address: "have {1} send a verified e-mail address at {0}", "{1} が {0} の確認済みメールアドレスを送信するようにする";
        other_client: "let them connect with the client {0}", "クライアント {0} で接続してもらう";
        confirm: "have {1} verify their e-mail address", "{1} でメールアドレスを確認済みにする";
        tell: "have {1} send their {0} completely and in a form that can be read", "{1} が {0} を、省略せず読み取れる形式で送信するようにする";
        take_role: "take the role {0} from them at {1}", "{1} でロール {0} を外す";
        take_group: "take them out of the group {0} at {1}", "{1} でグループ {0} から外す";
        take_permission: "take the permission {0} from them at {1}", "{1} で権限 {0} を外す";
        permission_named: "give them a permission named {0} at {1}", "{1} で {0} という名前の権限を付与する";
        add_role: "add their role {0} to {2}", "{2} にロール {0} を追加する";
        add_group: "add their group {0} to {2}", "{2} にグループ {0} を追加する";
        add_permission: "add their permission {0} to {2}", "{2} に権限 {0} を追加する";
        add_subject: "add their subject {0} to {2}", "{2} にサブジェクト {0} を追加する";
        add_domain: "add their e-mail domain {0} to {2}", "{2} にメールドメイン {0} を追加する";
        add_client: "add the client {0} to {2}", "{2} にクライアント {0} を追加する";
        add_claim: "add {0} to the values of the claim {1} in {2}", "{2} のクレーム {1} の値に {0} を追加する";
        exempt: "take {0} out of {1} in {2}", "{2} の {1} から {0} を外す";
        change_deny: "change {0}, which denies {1}", "{1} を拒否している {0} を変更する";
        write_rule: "write a rule that allows {0}", "{0} を許可するルールを追加する";
        write_rule_at: "write a rule that allows {0}, for the MCP server at {1}", "{1} のMCPサーバーに、{0} を許可するルールを追加する";
    }
}
