//! The audit trail, logs, metrics, and the tasks that are supervised.

mod audit;
mod export;
#[cfg(target_os = "linux")] // where there is a disk that is always full
mod log_failures;
mod logs;
mod metrics;
#[cfg(debug_assertions)] // as the places at which tasks panic
mod supervision;
mod traces;
