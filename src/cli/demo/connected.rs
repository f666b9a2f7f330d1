//! `portcullis demo --populated`: people who have connected the calendar.

use super::CALENDAR;
use crate::app::App;
use crate::clock::{Clock, ManualClock, Timestamp};
use crate::oauth::secret::{BrowserBinding, ConnectState, Secret, new_id, random_text};
use crate::storage::{
    AttemptClaim, AttemptComer, AttemptRequest, NewAttempt, NewConnection, ServiceTokens,
    StorageError,
};
use crate::telemetry::audit::{Actor, AuditEvent};

/// Every so many people have connected it, and the calendar has ended every so many connections.
const CONNECTED: usize = 3;
const BROKEN: usize = 8;

/// Stores connections of every third of these people, who are given by subject and name at the calendar. The tokens
/// are made up: the calendar refuses them.
pub(super) async fn connect_calendars(
    app: &App,
    people: impl Iterator<Item = (String, String)>,
    now: Timestamp,
) -> Result<(), StorageError> {
    for (index, (subject, account)) in people.step_by(CONNECTED).enumerate() {
        let hours = i64::try_from(index * 5 + 2).unwrap_or(2);
        let at = Timestamp::from_unix(now.unix() - hours * 3600);
        connect(app, &subject, &account, at).await?;
        let used = Timestamp::from_unix(now.unix() - hours * 600);
        app.storage().note_connection_used(&subject, CALENDAR, used).await?;
        if index % BROKEN == BROKEN - 1
            && let Some(connection) = app.storage().connection(&subject, CALENDAR).await?
        {
            let told = event("connection_broken", Actor::Server, used);
            let reason = "the service refuses to renew the access: invalid_grant";
            app.storage().break_connection(&connection, reason, used, told).await?;
        }
    }
    Ok(())
}

fn event(name: &'static str, actor: Actor, at: Timestamp) -> AuditEvent {
    AuditEvent::new(name, actor, &Clock::Manual(ManualClock::at(at)))
}

/// Simulates the button of the page, and the callback.
async fn connect(
    app: &App,
    subject: &str,
    account: &str,
    at: Timestamp,
) -> Result<(), StorageError> {
    let id = || new_id(&Clock::Manual(ManualClock::at(at)));
    let (state, binding) =
        (Secret::<ConnectState>::generate(&id()), Secret::<BrowserBinding>::generate(&id()));
    let resource = app.default_resource().map(|resource| resource.id.as_str()).unwrap_or_default();
    let scopes = std::iter::once("calendar.read".to_owned()).collect();
    let request =
        AttemptRequest { verifier: random_text(), nonce: random_text(), return_to: "/".to_owned() };
    let until = Timestamp::from_unix(at.unix() + 300);
    let attempt = NewAttempt {
        state: &state,
        binding: binding.hash(),
        subject,
        web_session_id: "",
        name: CALENDAR,
        scopes: &scopes,
        resource,
        request: &request,
        expires_at: until,
    };
    app.storage().begin_connection(&attempt, at).await?;
    let comer = AttemptComer { binding: Some(&binding), subject, name: CALENDAR };
    let told = event("connection_made", Actor::Person, at).resource(resource);
    let came = app.storage().take_attempt(&state, comer, at, told.clone()).await?;
    let AttemptClaim::First(attempt) = came else { return Ok(()) };
    let new = NewConnection {
        subject: subject.to_owned(),
        name: CALENDAR.to_owned(),
        provider_key: app.connections().provider_key(CALENDAR),
        account_key: Some(account.to_owned()),
        account_label: Some(account.to_owned()),
        scopes,
        tokens: ServiceTokens {
            access_token: random_text(),
            refresh_token: Some(random_text()),
            token_type: "Bearer".to_owned(),
        },
        access_until: Some(until),
    };
    app.storage().put_connection(&attempt.id, &new, at, told).await?;
    Ok(())
}
