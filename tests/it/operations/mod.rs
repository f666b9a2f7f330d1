//! Running it: limits, reload, restart, shutdown, replicas, crashes, clocks.

mod acme;
mod clock_jumps;
pub(crate) mod crashes;
mod limits;
mod outages;
mod quotas;
mod reload;
mod replica_agreement;
mod replicas;
mod restart;
#[cfg(unix)]
mod service_manager;
mod shutdown;
mod slow_clocks;
