//! The database: both engines, budgets, backups, and what a thief gets.

mod backup;
mod budgets;
mod certificates;
mod hang_ups;
mod postgres;
mod rollback_detection;
mod session_settings;
mod stolen_database;
