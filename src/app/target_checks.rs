//! Checks the targets of the gateway: connects to each from time to time, with TLS if it is https, and says
//! nothing. So a target that nobody calls shows its state too, and one that works again is used again without
//! a call that has to try it.
//!
//! A request would show more, but it needs the credentials of somebody: MCP knows none without, and any other
//! path may mean anything to a server. A connection costs the target nothing that it notices.

use std::time::Duration;

use futures_util::future::join_all;
use url::Url;

use super::App;
use crate::config::ResourceConfig;
use crate::http_client::TargetFault;
use crate::telemetry::metrics::TargetFailure;

/// Interval of the checks of targets that could not be reached.
const INTERVAL: Duration = Duration::from_secs(5);
/// All targets are checked at every sixth interval, so every 30 seconds.
const ALL: u32 = 6;

/// The outcome of a check.
pub struct CheckedTarget<'a> {
    pub resource: &'a ResourceConfig,
    /// The URL of the target.
    pub target: &'a Url,
    /// Why it could not be reached.
    pub outcome: Result<(), TargetFault>,
}

impl App {
    /// Checks the targets of the newest configuration for ever.
    pub async fn keep_checking_targets(&self) {
        panic_point!("targets");
        let mut round = 0_u32;
        loop {
            tokio::time::sleep(INTERVAL).await;
            round = round.wrapping_add(1);
            let app = self.current();
            Box::pin(app.check_targets(round.is_multiple_of(ALL))).await;
        }
    }

    /// Connects to all targets, or to those that could not be reached, and notes the outcome.
    pub async fn check_targets(&self, all: bool) {
        self.0.shared.targets.keep(|resource, target| {
            self.resource(resource).is_some_and(|resource| resource.targets.contains(target))
        });
        for CheckedTarget { resource, target, outcome } in self.knock_at_targets(all).await {
            let (seen, now) = (self.target_seen(resource, target), self.now());
            match outcome {
                Ok(()) => seen.connected(now),
                Err(fault) => seen.unreachable(fault.failure, &fault.cause, now),
            }
        }
    }

    /// Connects to all targets, or to those that could not be reached.
    pub async fn knock_at_targets(&self, all: bool) -> Vec<CheckedTarget<'_>> {
        let fronted = self.config().resources.iter().filter(|resource| resource.is_fronted());
        let targets = fronted
            .flat_map(|resource| resource.targets.iter().map(move |target| (resource, target)));
        let asked = targets.filter(|(resource, target)| {
            all || self.target_seen(resource, target).is_unreachable()
        });
        join_all(asked.map(|(resource, target)| self.knock_at(resource, target))).await
    }

    async fn knock_at<'a>(
        &self,
        resource: &'a ResourceConfig,
        target: &'a Url,
    ) -> CheckedTarget<'a> {
        let outcome = match (self.backends(resource), target.as_str().parse()) {
            (Some(backends), Ok(uri)) => Box::pin(backends.knock(uri)).await,
            _ => Err(TargetFault {
                failure: TargetFailure::Name,
                cause: "its URL cannot be used in an HTTP request".to_owned(),
            }),
        };
        CheckedTarget { resource, target, outcome }
    }
}
