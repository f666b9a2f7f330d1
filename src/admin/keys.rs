//! `/keys`: the current, next and formerly used signing keys, and how to rotate them.

use askama::Template;
use axum::response::Response;

use super::visit::{AdminForm, AdminPage, missing};
use crate::clock::Timestamp;
use crate::config::paths;
use crate::signing::{KeyDescription, KeyRotation, KeyState};
use crate::storage::RetiredKey;
use crate::web::list_page::Frame;
use crate::web::page_error::PageError;
use crate::web::words::words;

words! {
    struct KeyWords {
        title: "Keys", "鍵";
        explained: "These keys sign access tokens. MCP servers that verify tokens themselves read the public halves from", "アクセストークンに署名する鍵です。トークンを自分で検証するMCPサーバーは、公開鍵を次の場所から取得します:";
        key: "Key ID", "鍵ID";
        alg: "Algorithm", "方式";
        generation: "Generation", "世代";
        state: "Status", "状態";
        made: "Created", "作成";
        age: "Age", "経過";
        days: "days", "日";
        times: "Next", "予定";
        current: "signing", "署名中";
        next: "next", "次の鍵";
        former: "former", "以前の鍵";
        signs_from: "signs from", "署名開始:";
        published_until: "published until", "公開終了:";
        stays: "until the next rotation", "次の更新まで";
        retired: "Retired keys", "廃止した鍵";
        retired_at: "Retired", "廃止";
        none: "None yet.", "まだありません。";
        rotate: "Rotate now", "今すぐ更新";
        rotate_note: "A new key is published at once and signs ten minutes later, when everybody who verifies tokens has had time to read it. The old key stays published until the last token that it signed has expired, and its private half is then erased. Nobody is interrupted.", "新しい鍵はすぐに公開され、トークンを検証する側が取得できるよう、10分後から署名に使われます。以前の鍵は、その鍵で署名した最後のトークンが期限切れになるまで公開され、その後、秘密鍵が消去されます。利用者への影響はありません。";
        under_way: "A rotation is in progress. The next one can begin when the new key signs.", "更新の途中です。新しい鍵が署名を始めると、次の更新ができます。";
        done: "The next key is created and published.", "次の鍵を作成し、公開しました。";
    }
}

#[derive(Template)]
#[template(path = "admin/keys.html")]
struct KeysTemplate<'a> {
    frame: &'a Frame,
    w: &'static KeyWords,
    jwks: String,
    keys: Vec<KeyDescription>,
    retired: Vec<RetiredKey>,
    now: Timestamp,
}

impl KeysTemplate<'_> {
    fn days(&self, key: &KeyDescription) -> u64 {
        self.now.since(key.created_at).as_secs() / 86_400
    }

    fn under_way(&self) -> bool {
        self.keys.iter().any(|key| key.state == KeyState::Next)
    }
}

pub(super) async fn get(visit: AdminPage) -> Result<Response, PageError> {
    let mut frame = visit.frame("/keys").await?;
    let w = KeyWords::of(frame.language);
    frame.notice = match visit.param("done") {
        "rotated" => Some(w.done.to_owned()),
        "under_way" => Some(w.under_way.to_owned()),
        _ => None,
    };
    let keys = visit.app().keys();
    let retired = keys.retired().await?;
    let template = KeysTemplate {
        frame: &frame,
        w,
        jwks: visit.app().config().public_url.join(paths::JWKS),
        keys: keys.describe(),
        retired,
        now: visit.app().now(),
    };
    Ok(frame.answer(template.render()))
}

/// `POST /keys`: starts a key rotation.
pub(super) async fn act(action: AdminForm) -> Result<Response, PageError> {
    let visit = &action.visit;
    if action.field("action") != "rotate" {
        return Err(missing());
    }
    action.needs_fresh_proof("/keys")?;
    Ok(match visit.app().keys().rotate(visit.event("key_added")).await? {
        KeyRotation::Begun => visit.go("/keys?done=rotated"),
        KeyRotation::UnderWay => visit.go("/keys?done=under_way"),
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_page_says_how_long_a_key_is_published_before_it_signs() {
        assert_eq!(crate::signing::PUBLISHED_BEFORE.as_secs(), 600, "“ten minutes” in rotate_note");
    }
}
