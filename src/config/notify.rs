//! `[[notify]]`: the targets of notifications, and the events that each of them receives.

use std::fmt;
use std::time::Duration;

use strum::{EnumString, IntoStaticStr, VariantArray};
use url::Url;

use super::SecretText;

/// A kind of notification, with its name in `events`, in the database and in webhooks.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, EnumString, IntoStaticStr, VariantArray,
)]
pub enum NotifyEvent {
    /// A person waits until an administrator approves a client.
    #[strum(serialize = "client_waits")]
    ClientWaits,
    /// The rules gave a person nothing.
    #[strum(serialize = "person_refused")]
    PersonRefused,
    /// The identity provider does not answer.
    #[strum(serialize = "provider_down")]
    ProviderDown,
    /// It answers again. Sent to the targets that were told of the outage.
    #[strum(serialize = "provider_back")]
    ProviderBack,
    /// An authorization code or a refresh token was used again.
    #[strum(serialize = "token_reused")]
    TokenReused,
    /// A changed configuration is not in use.
    #[strum(serialize = "configuration_refused")]
    ConfigurationRefused,
    /// A key or a secret is near its end.
    #[strum(serialize = "ends_soon")]
    EndsSoon,
    /// An administrator tries a target.
    #[strum(serialize = "test")]
    Test,
}

impl NotifyEvent {
    /// The kinds that `events` may name, which are also its default.
    pub const SELECTABLE: [Self; 6] = [
        Self::ClientWaits,
        Self::PersonRefused,
        Self::ProviderDown,
        Self::TokenReused,
        Self::ConfigurationRefused,
        Self::EndsSoon,
    ];

    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NotifyEvents(u16);

impl NotifyEvents {
    /// Returns the set of these kinds.
    pub fn of(events: &[NotifyEvent]) -> Self {
        Self(events.iter().fold(0, |set, event| set | (1 << (*event as u16))))
    }

    /// Returns whether a target with this set receives `event`.
    pub fn contains(self, event: NotifyEvent) -> bool {
        let selected = match event {
            NotifyEvent::ProviderBack => NotifyEvent::ProviderDown,
            NotifyEvent::Test => return true,
            other => other,
        };
        self.0 & (1 << selected as u16) != 0
    }

    /// Returns the kinds of the set.
    pub fn list(self) -> Vec<NotifyEvent> {
        NotifyEvent::SELECTABLE.into_iter().filter(|event| self.contains(*event)).collect()
    }

    /// Returns the kinds that are in one of two sets.
    #[must_use]
    pub fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

#[derive(Clone, Debug)]
pub struct NotifyTarget {
    /// Its name in the log, on the admin page and on the command line.
    pub name: String,
    pub channel: NotifyChannel,
    /// The kinds that it receives.
    pub events: NotifyEvents,
    /// Shortest time between two messages of one kind. What happens meanwhile is counted in the next message.
    pub interval: Duration,
    /// Whether its host may have a private address.
    pub allow_private: bool,
}

/// How a target is reached.
#[derive(Clone, Debug)]
pub enum NotifyChannel {
    /// A POST to a URL.
    Hook(Hook),
    /// A message to a mail server.
    Mail(Box<MailServer>),
}

/// The format of a POST.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HookFormat {
    /// JSON for programs, signed.
    Webhook,
    /// An incoming webhook of Slack.
    Slack,
    /// A workflow of Microsoft Teams.
    Teams,
    Discord,
}

/// A URL that receives messages.
#[derive(Clone, Debug)]
pub struct Hook {
    pub format: HookFormat,
    /// The URL. Anybody who knows it can post there.
    pub url: HookUrl,
    /// The key of the signature; webhooks only.
    pub key: Option<SigningSecret>,
}

/// A URL that is a secret: `Debug` shows only its host.
#[derive(Clone)]
pub struct HookUrl(pub(super) Url);

impl HookUrl {
    pub fn expose(&self) -> &Url {
        &self.0
    }

    /// Returns its host and port, which may be shown.
    pub fn host(&self) -> String {
        let host = self.0.host_str().unwrap_or_default();
        self.0.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
    }
}

impl fmt::Debug for HookUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HookUrl({})", self.host())
    }
}

/// The bytes of a key. `Debug` shows nothing of them.
#[derive(Clone)]
pub struct SigningSecret(pub(super) zeroize::Zeroizing<Vec<u8>>);

impl SigningSecret {
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for SigningSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SigningSecret")
    }
}

/// How the connection to a mail server is protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, EnumString, IntoStaticStr, VariantArray)]
pub enum MailSecurity {
    /// TLS from the first byte (RFC 8314).
    #[strum(serialize = "tls")]
    Tls,
    /// STARTTLS (RFC 3207). A server that does not offer it gets no message.
    #[strum(serialize = "starttls")]
    StartTls,
    /// None; on this machine only.
    #[strum(serialize = "none")]
    None,
}

impl MailSecurity {
    /// The usual port.
    pub const fn port(self) -> u16 {
        match self {
            Self::Tls => 465,
            Self::StartTls => 587,
            Self::None => 25,
        }
    }
}

/// A mail server, and the addresses of the messages.
#[derive(Clone, Debug)]
pub struct MailServer {
    /// Name or address.
    pub host: String,
    pub port: u16,
    /// How the connection is protected.
    pub security: MailSecurity,
    /// User name and password.
    pub login: Option<(String, SecretText)>,
    pub from: String,
    pub to: Vec<String>,
}

impl NotifyTarget {
    /// Returns the word for its kind in the configuration.
    pub const fn kind(&self) -> &'static str {
        match &self.channel {
            NotifyChannel::Hook(hook) => match hook.format {
                HookFormat::Webhook => "webhook",
                HookFormat::Slack => "slack",
                HookFormat::Teams => "teams",
                HookFormat::Discord => "discord",
            },
            NotifyChannel::Mail(_) => "smtp",
        }
    }

    /// Returns where its messages go, without secrets: the host, or the mail server and the recipients.
    pub fn shown(&self) -> String {
        match &self.channel {
            NotifyChannel::Hook(hook) => hook.url.host(),
            NotifyChannel::Mail(mail) => {
                format!("{}:{} → {}", mail.host, mail.port, mail.to.join(", "))
            }
        }
    }
}
