//! Replicas: three real processes on one PostgreSQL, one of them killed or paused, PostgreSQL itself
//! restarted, all of them replaced: `scripts/test-replicas`.

mod crash;
mod database;
mod everywhere;
mod failover;
mod fleet;
mod killed;
mod load;
mod logins;
mod paused;
mod restored;
mod rolling;
mod usage;
mod vanished;
