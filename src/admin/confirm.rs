//! `/confirm`: the confirmation page for buttons that end more than one thing. It shows how many connections
//! end, and whose. The confirmation is valid only for exactly these numbers.

use askama::Template;
use axum::response::Response;

use super::grant_view::GrantView;
use super::links::{ROWS, client_path, person_path, query};
use super::visit::{AdminForm, AdminPage, missing, read_only};
use crate::clock::Timestamp;
use crate::oauth::client::ClientMetadata;
use crate::oauth::client_name::DisplayName;
use crate::storage::{Counted, Ended, Ending, Selection};
use crate::web::counted::{CountWords, besides, number, rest};
use crate::web::list_page::{Frame, utc};
use crate::web::page_error::PageError;
use crate::web::web_session::{confirmation, is_confirmed};
use crate::web::words::words;

words! {
    struct ConfirmWords {
        block_client: "Block this client?", "このクライアントをブロックしますか?";
        refuse_client: "Refuse this client?", "このクライアントを拒否しますか?";
        delete_client: "Delete this client?", "このクライアントを削除しますか?";
        end_client: "End all connections of this client?", "このクライアントの接続をすべて終了しますか?";
        block_person: "Block this person?", "この利用者をブロックしますか?";
        sign_out_person: "Sign this person out everywhere?", "この利用者をすべてからサインアウトさせますか?";
        end_person: "End all connections of this person?", "この利用者の接続をすべて終了しますか?";
        before: "End everything that was given before this day?", "この日より前に許可されたものをすべて終了しますか?";
        given_before: "Given before", "許可された日時がこれより前:";
        none_before: "No connection was given before that day.", "この日より前に許可された接続はありません。";
        block: "Block", "ブロックする";
        refuse: "Refuse", "拒否する";
        delete: "Delete", "削除する";
        sign_out: "Sign out everywhere", "すべてからサインアウトさせる";
        end: "End", "終了する";
        block_client_note: "Nobody can connect it until it is unblocked.", "ブロックを解除するまで誰も接続できません。";
        refuse_client_note: "Whoever waits for it is told. Nobody can connect it until it is approved.", "待っている人に通知します。承認するまで誰も接続できません。";
        delete_client_note: "Its registration is removed. It may register again as a new client.", "登録を削除します。新しいクライアントとして登録し直すことはできます。";
        block_person_note: "They can sign in no more until they are unblocked.", "ブロックを解除するまでサインインできません。";
        sign_out_person_note: "They can sign in again.", "もう一度サインインできます。";
        end_note: "They can be connected again.", "もう一度接続できます。";
        person: "Person", "利用者";
        client: "Client", "クライアント";
        server: "MCP server", "MCPサーバー";
        since: "Since", "開始";
        last_use: "Last use", "最終利用";
        unnamed: "(no name)", "(名前なし)";
    }
}

/// An act that needs confirmation: its name in the URL, and the form that carries it out.
struct Question {
    act: &'static str,
    ending: Ending,
    /// Target of the form, and the field that names the object of the act.
    form: &'static str,
    field: (&'static str, String),
    action: &'static str,
    /// The page that the person came from.
    back: String,
}

impl Question {
    /// Returns the question that the query asks for, if it is valid.
    fn asked(visit: &AdminPage) -> Option<Self> {
        let (id, subject) = (visit.param("id"), visit.param("sub"));
        match visit.param("act") {
            "block_client" => Some(Self::of_client("block", id)),
            "refuse_client" => Some(Self::of_client("refuse", id)),
            "delete_client" => Some(Self::of_client("delete", id)),
            "end_client" => Some(Self::of_client("end", id)),
            "block_person" => Some(Self::of_person("block", subject)),
            "sign_out_person" => Some(Self::of_person("sign_out", subject)),
            "end_person" => Some(Self::of_person("end", subject)),
            "before" => Self::before(visit.param("day")),
            _ => None,
        }
    }

    fn of_client(action: &str, id: &str) -> Self {
        let owned = id.to_owned();
        let (act, action, ending) = match action {
            "block" => ("block_client", "block", Ending::BlockClient(owned)),
            "refuse" => ("refuse_client", "refuse", Ending::RefuseClient(owned)),
            "delete" => ("delete_client", "delete", Ending::DeleteClient(owned)),
            _ => ("end_client", "end", Ending::Grants(Selection::Client(owned))),
        };
        let field = ("id", id.to_owned());
        Self { act, ending, form: "/client", field, action, back: client_path(id) }
    }

    fn of_person(action: &str, subject: &str) -> Self {
        let owned = subject.to_owned();
        let (act, action, ending) = match action {
            "block" => ("block_person", "block", Ending::BlockPerson(owned)),
            "sign_out" => ("sign_out_person", "sign_out", Ending::SignOut(owned)),
            _ => ("end_person", "end", Ending::Grants(Selection::Person(owned))),
        };
        let field = ("sub", subject.to_owned());
        Self { act, ending, form: "/person", field, action, back: person_path(subject) }
    }

    fn before(day: &str) -> Option<Self> {
        let ending = Ending::Grants(Selection::Before(midnight(day)?));
        let (form, field, back) = ("/grant", ("day", day.to_owned()), "/grants".to_owned());
        Some(Self { act: "before", ending, form, field, action: "before", back })
    }

    /// Returns the path of the confirmation page.
    fn path(&self) -> String {
        let mut query = query("/confirm");
        query.append_pair("act", self.act).append_pair(self.field.0, &self.field.1).finish()
    }

    /// Returns the text that the confirmation is bound to: the act and its object.
    fn key(&self) -> String {
        format!("{} {}", self.act, self.field.1)
    }

    fn words(&self, w: &'static ConfirmWords) -> (&'static str, &'static str, &'static str) {
        match self.act {
            "block_client" => (w.block_client, w.block, w.block_client_note),
            "refuse_client" => (w.refuse_client, w.refuse, w.refuse_client_note),
            "delete_client" => (w.delete_client, w.delete, w.delete_client_note),
            "end_client" => (w.end_client, w.end, w.end_note),
            "block_person" => (w.block_person, w.block, w.block_person_note),
            "sign_out_person" => (w.sign_out_person, w.sign_out, w.sign_out_person_note),
            "end_person" => (w.end_person, w.end, w.end_note),
            _ => (w.before, w.end, w.end_note),
        }
    }
}

/// Parses a day and returns its first second in UTC.
pub(super) fn midnight(day: &str) -> Option<Timestamp> {
    let day = chrono::NaiveDate::parse_from_str(day, "%Y-%m-%d").ok()?;
    Some(Timestamp::from_unix(day.and_hms_opt(0, 0, 0)?.and_utc().timestamp()))
}

#[derive(Template)]
#[template(path = "admin/confirm.html")]
struct ConfirmTemplate<'a> {
    frame: &'a Frame,
    w: &'static ConfirmWords,
    c: &'static CountWords,
    question: &'a Question,
    title: &'static str,
    button: &'static str,
    note: &'static str,
    about: String,
    counted: &'a Counted,
    number: String,
    rest: String,
    besides: Vec<String>,
    grants: Vec<GrantView>,
    token: String,
    /// True if the act would change nothing.
    pointless: bool,
}

impl ConfirmTemplate<'_> {
    /// Returns how many connections are not listed.
    fn not_shown(&self) -> u64 {
        self.counted.grants.saturating_sub(self.grants.len() as u64)
    }
}

/// `GET /confirm`.
pub(super) async fn get(visit: AdminPage) -> Result<Response, PageError> {
    if !visit.visitor.may_change {
        return Err(read_only());
    }
    let question = Question::asked(&visit).ok_or_else(missing)?;
    let about = about(&visit, &question).await?.ok_or_else(missing)?;
    let section = match question.form {
        "/client" => "/clients",
        "/person" => "/people",
        _ => "/grants",
    };
    let mut frame = visit.frame(section).await?;
    let (w, c) = (ConfirmWords::of(frame.language), CountWords::of(frame.language));
    if !visit.param("changed").is_empty() {
        frame.notice = Some(c.changed.to_owned());
    }
    let (storage, now) = (visit.app().storage(), visit.app().now());
    // Counted before the list is read. A connection made in between is then listed but not counted, so the
    // form asks again.
    let filter = question.ending.selection().filter();
    let counted = storage.count_ending(&question.ending, now).await?;
    let grants = storage.browse_grants(&filter, now, ROWS).await?;
    let (title, button, note) = question.words(w);
    let template = ConfirmTemplate {
        frame: &frame,
        w,
        c,
        title,
        button,
        note,
        about,
        number: number(frame.language, &counted),
        rest: rest(frame.language, &counted),
        besides: besides(frame.language, &counted),
        grants: GrantView::of_all(&visit, &frame, grants),
        token: confirmation(visit.app(), &visit.visitor, &question.key(), &counted),
        pointless: question.act == "before" && counted.grants == 0,
        counted: &counted,
        question: &question,
    };
    Ok(frame.answer(template.render()))
}

/// Returns the name of the object of the act, or `None` if it does not exist.
async fn about(visit: &AdminPage, question: &Question) -> Result<Option<String>, PageError> {
    let storage = visit.app().storage();
    let value = question.field.1.as_str();
    match question.form {
        "/client" => {
            let row = storage.client_details(value).await?;
            Ok(row.map(|row| {
                let metadata = ClientMetadata::from_stored_json(&row.metadata).ok();
                let name = metadata.as_ref().and_then(|known| known.client_name.as_deref());
                DisplayName::of(name).text.unwrap_or(row.id)
            }))
        }
        "/person" => {
            // A person who blocked themselves could not sign in again to undo it.
            if question.act == "block_person" && value == visit.by() {
                return Ok(None);
            }
            let row = storage.person_row(value).await?;
            Ok(row.map(|row| row.person.and_then(|person| person.name).unwrap_or(row.subject)))
        }
        _ => Ok(midnight(value).map(utc)),
    }
}

/// Handles a button on a client's page that ends more than one thing. `Some`: redirect to the confirmation
/// page.
pub(super) async fn act_on_client(
    action: &AdminForm,
    what: &str,
    id: &str,
) -> Result<Option<Response>, PageError> {
    Ok(settle(action, &Question::of_client(what, id)).await?.err())
}

/// The same for a button on a person's page.
pub(super) async fn act_on_person(
    action: &AdminForm,
    what: &str,
    subject: &str,
) -> Result<Option<Response>, PageError> {
    Ok(settle(action, &Question::of_person(what, subject)).await?.err())
}

/// Ends every connection granted before a day. Returns their number, or a redirect to the confirmation page.
/// `None`: `day` is not a valid date.
pub(super) async fn act_before(
    action: &AdminForm,
    day: &str,
) -> Result<Option<Result<u64, Response>>, PageError> {
    match Question::before(day) {
        Some(question) => settle(action, &question).await.map(Some),
        None => Ok(None),
    }
}

/// Carries out the act if its confirmation is valid, and returns how many connections ended. Otherwise
/// redirects to the confirmation page.
async fn settle(
    action: &AdminForm,
    question: &Question,
) -> Result<Result<u64, Response>, PageError> {
    let visit = &action.visit;
    let path = question.path();
    action.needs_fresh_proof(&path)?;
    let (storage, now) = (visit.app().storage(), visit.app().now());
    let sent = action.field("counted");
    if sent.is_empty() {
        return Ok(Err(visit.go(&path)));
    }
    let counted = storage.count_ending(&question.ending, now).await?;
    let again = || visit.go(&format!("{path}&changed=1"));
    if !is_confirmed(visit.app(), &visit.visitor, &question.key(), &counted, sent) {
        return Ok(Err(again()));
    }
    let event = visit.event(question.ending.event());
    let ended =
        storage.apply_counted(&question.ending, Some(&counted), visit.by(), now, event).await?;
    match ended {
        Ended::Done(number) => Ok(Ok(number)),
        Ended::Unchanged => Ok(Ok(0)),
        Ended::Recounted => Ok(Err(again())),
    }
}
