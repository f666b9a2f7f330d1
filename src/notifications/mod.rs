//! Notifications to administrators: their texts, their formats, and their delivery to webhooks, chats and mail
//! servers (threats NT-01 to NT-06).
//!
//! When something happens, `storage/notifications` queues it in the transaction of the change, and `app/notifier.rs`
//! takes it from the queue, looks names up, and sends it from here.

mod chat;
mod mail;
mod message;
mod webhook;

use std::time::Duration;

use axum::http::{HeaderName, HeaderValue};

use crate::clock::Timestamp;
use crate::config::{Hook, HookFormat, NotifyChannel, NotifyTarget};
use crate::http_client::guarded::outgoing::OutgoingPost;
use crate::http_client::guarded::{FetchError, GuardedClient, Reach};

pub use message::{Notification, Party, Subject};

/// Why a message was not delivered. Contains nothing of the URL or of the answer's text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeliveryFailed {
    #[error("it cannot be reached: {0}")]
    Unreachable(#[from] FetchError),
    /// A redirect, which could lead anywhere.
    #[error("it answered with a redirect (status {0}), which is not followed")]
    Redirect(u16),
    /// Another status than 2xx.
    #[error("it answered with status {0}")]
    Status(u16),
    /// The mail server, or the dialogue with it.
    #[error("the mail server {0}")]
    Mail(String),
}

impl DeliveryFailed {
    /// Returns what an administrator can do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Unreachable(FetchError::ForbiddenAddress) => {
                "it is in a private network; if that is meant, write allow_private = true for this target"
            }
            Self::Unreachable(FetchError::NoAddress) => {
                "check the host's name, and the resolver of this machine"
            }
            Self::Unreachable(_) => {
                "check the host and the port, and that this machine may connect to them"
            }
            Self::Redirect(_) => "write the URL that the redirect leads to",
            Self::Status(401 | 403 | 404 | 410) => {
                "the URL is not valid there any more, or never was: make a new one and copy it whole"
            }
            Self::Status(_) => "read the log of the receiver",
            Self::Mail(_) => {
                "check host, port, security, username and password, and read the log of the mail server"
            }
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Undelivered {
    pub reason: DeliveryFailed,
    /// How long the receiver wants to be left alone.
    pub retry_after: Option<Duration>,
}

impl From<DeliveryFailed> for Undelivered {
    fn from(reason: DeliveryFailed) -> Self {
        Self { reason, retry_after: None }
    }
}

/// Delivers messages. Cheap to clone.
#[derive(Clone)]
pub struct Messenger {
    http: GuardedClient,
}

fn reach(target: &NotifyTarget) -> Reach {
    if target.allow_private { Reach::Anywhere } else { Reach::Public }
}

impl Messenger {
    /// Creates a messenger that connects through this client.
    pub fn new(http: GuardedClient) -> Self {
        Self { http }
    }

    /// Sends a message once. `now` is the time of this attempt.
    pub async fn deliver(
        &self,
        target: &NotifyTarget,
        message: &Notification,
        now: Timestamp,
    ) -> Result<(), Undelivered> {
        let hook = match &target.channel {
            NotifyChannel::Mail(server) => {
                let sent = mail::send(&self.http, server, reach(target), message).await;
                return sent.map_err(Undelivered::from);
            }
            NotifyChannel::Hook(hook) => hook,
        };
        let body = body_of(hook, message);
        let headers = headers_of(hook, message, &body, now);
        let post = OutgoingPost { url: hook.url.expose(), reach: reach(target), headers, body };
        let answer = self.http.post(post).await.map_err(DeliveryFailed::from)?;
        let status = answer.status.as_u16();
        let reason = match status {
            200..=299 => return Ok(()),
            300..=399 => DeliveryFailed::Redirect(status),
            _ => DeliveryFailed::Status(status),
        };
        Err(Undelivered { reason, retry_after: answer.retry_after })
    }

    /// Connects to a target and sends no message: to a URL's host with TLS, to a mail server up to the sign-in.
    pub async fn knock(&self, target: &NotifyTarget) -> Result<(), DeliveryFailed> {
        match &target.channel {
            NotifyChannel::Hook(hook) => {
                let knocked = self.http.knock(hook.url.expose(), reach(target)).await;
                knocked.map_err(DeliveryFailed::from)
            }
            NotifyChannel::Mail(server) => mail::knock(&self.http, server, reach(target)).await,
        }
    }
}

fn body_of(hook: &Hook, message: &Notification) -> Vec<u8> {
    let json = match hook.format {
        HookFormat::Webhook => webhook::body(message),
        HookFormat::Slack => chat::slack(message),
        HookFormat::Teams => chat::teams(message),
        HookFormat::Discord => chat::discord(message),
    };
    json.to_string().into_bytes()
}

fn headers_of(
    hook: &Hook,
    message: &Notification,
    body: &[u8],
    now: Timestamp,
) -> Vec<(HeaderName, HeaderValue)> {
    let Some(key) = &hook.key else { return Vec::new() };
    let headers = webhook::headers(key, &message.id, now, body);
    let headers = headers.into_iter();
    headers.filter_map(|(name, value)| Some((name, HeaderValue::try_from(value).ok()?))).collect()
}
