//! Access to tasks of MCP servers, where tool rules apply: only the person and client that created a task may
//! use it, and they need the scopes of the call that created it.
//!
//! The creator is stored when the response to a call names a task. Sealed ids, as sessions have them, would
//! need no storage. But task ids appear in many members of messages, in both directions and in two revisions
//! of MCP, and to rewrite a message the gateway would have to understand all of it. A request about an
//! unknown task is forwarded: the MCP server has to check the person too.

use std::time::Duration;

use aws_lc_rs::digest;
use axum::body::{Body, Bytes};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures_util::{StreamExt, stream};
use http_body_util::BodyExt;
use hyper::body::{Body as _, Frame};
use serde_json::Value;

use super::authenticate::Caller;
use super::challenge::{GatewayRefused, MessageRefused};
use super::messages;
use super::spelling::folded;
use crate::app::App;
use crate::config::ResourceConfig;
use crate::oauth::scope::ScopeSet;
use crate::storage::TaskMaker;

/// A response of at most 64 KiB is read for a task id: one that names a task contains little else.
const LONGEST_ANSWER: usize = 64 * 1024;
/// Longest task id that is remembered, in bytes.
const LONGEST_ID: usize = 1024;

/// Returns the scopes that these requests need for the tasks they are about. Refuses a request about a task
/// of another person or client, with the error for a task that does not exist.
pub(super) async fn needed(
    app: &App,
    resource: &ResourceConfig,
    caller: &Caller,
    messages: &[Value],
) -> Result<ScopeSet, GatewayRefused> {
    let mut needed = ScopeSet::default();
    let mut looked_up = 0;
    for message in messages {
        for task in messages::tasks(message) {
            looked_up += 1;
            if looked_up > app.config().limits.gateway_batch {
                return Err(GatewayRefused::TooLarge);
            }
            let maker = app.storage().task_maker(&hash(resource, task), app.now()).await;
            let maker = maker.map_err(|cause| {
                tracing::error!(%cause, "the maker of a task cannot be looked up");
                GatewayRefused::not_looked_up(&cause)
            })?;
            let Some(maker) = maker else { continue };
            let (subject, client_id) = (&caller.grant.subject, &caller.grant.client_id);
            if maker.subject != *subject || maker.client_id != *client_id {
                tracing::info!(
                    grant_id = caller.grant.id,
                    "a task of another person or client was asked for"
                );
                return Err(MessageRefused::UnknownTask(messages::id(message)).into());
            }
            needed = needed.union(&maker.scopes);
        }
    }
    Ok(needed)
}

/// Stores who created the tasks that responses name.
#[derive(Clone)]
pub(super) struct Remembers {
    app: App,
    resource: String,
    maker: TaskMaker,
}

impl Remembers {
    /// For a call by this caller that needed `scopes`.
    pub(super) fn of(app: &App, caller: &Caller, scopes: ScopeSet) -> Self {
        let (subject, client_id) = (caller.grant.subject.clone(), caller.grant.client_id.clone());
        let maker = TaskMaker { subject, client_id, scopes };
        Self { app: app.clone(), resource: caller.grant.resource.clone(), maker }
    }

    /// Returns the tasks that a response names, with their lifetimes.
    fn named(json: &[u8]) -> Vec<(String, Option<Duration>)> {
        let mentions = json.windows(8).any(|eight| eight == b"\"taskId\"");
        let answer = mentions.then(|| serde_json::from_slice::<Value>(json).ok()).flatten();
        let answers = match &answer {
            Some(Value::Array(batch)) => batch.as_slice(),
            Some(single) => std::slice::from_ref(single),
            None => &[],
        };
        answers.iter().filter_map(named).collect()
    }

    /// Whether the data of an event names a task.
    pub(super) fn concerns(data: &str) -> bool {
        data.contains("\"taskId\"")
    }

    /// Stores the tasks that a response names. Must finish before the response is sent, because the client
    /// may ask about a task as soon as it knows the id.
    pub(super) async fn remember(self, json: Vec<u8>) {
        for (task, lives) in Self::named(&json) {
            let hash = hash_in(&self.resource, &task);
            let (storage, now) = (self.app.storage(), self.app.now());
            if let Err(cause) = storage.remember_task(&hash, &self.maker, lives, now).await {
                // The response is sent all the same: the call has been made, and without the id the person
                // could not even cancel the task.
                tracing::error!(%cause, "the maker of a task could not be stored");
            }
        }
    }

    /// Reads a response that is no event stream, stores the tasks that it names, and returns it unchanged.
    pub(super) async fn look_at(self, mut body: Body) -> Body {
        if body.size_hint().lower() > LONGEST_ANSWER as u64 {
            return body;
        }
        let mut read = Vec::new();
        while let Some(frame) = body.frame().await {
            match frame.map(Frame::into_data) {
                Ok(Ok(data)) => read.extend_from_slice(&data),
                Ok(Err(_)) => {} // trailers are dropped
                Err(error) => {
                    let broken = stream::iter([Err::<Bytes, axum::Error>(error)]);
                    return joined(read, Body::from_stream(broken));
                }
            }
            if read.len() > LONGEST_ANSWER {
                return joined(read, body);
            }
        }
        self.remember(read.clone()).await;
        Body::from(read)
    }
}

/// Joins the bytes already read from a body and the rest of it.
fn joined(read: Vec<u8>, rest: Body) -> Body {
    let first = stream::iter([Ok(Bytes::from(read))]);
    Body::from_stream(first.chain(rest.into_data_stream()))
}

/// Returns the task that a message names, in the form of the tasks extension or of revision 2025-11-25, with
/// its lifetime.
fn named(message: &Value) -> Option<(String, Option<Duration>)> {
    let result = message.get("result")?;
    let task = result.get("task").filter(|task| task.is_object()).unwrap_or(result);
    let id = task.get("taskId")?.as_str().filter(|id| id.len() <= LONGEST_ID)?;
    let lives = ["ttlMs", "ttl"].iter().find_map(|name| task.get(name)?.as_f64());
    let lives = lives
        .filter(|lives| *lives >= 0.0)
        .map(|lives| Duration::try_from_secs_f64(lives / 1000.0).unwrap_or(Duration::MAX));
    Some((id.to_owned(), lives))
}

fn hash(resource: &ResourceConfig, task: &str) -> String {
    hash_in(&resource.id, task)
}

/// Ids that differ only in case and punctuation count as one task: some servers accept a UUID in any
/// spelling, and another spelling must not bypass the check.
fn hash_in(resource: &str, task: &str) -> String {
    let letters = folded(task);
    let letters = letters.strip_prefix("urnuuid").unwrap_or(&letters);
    let task = if letters.is_empty() { task } else { letters };
    let text = format!("{resource}\n{task}");
    URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, text.as_bytes()))
}
