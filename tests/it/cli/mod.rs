//! The command line, as an administrator uses it.

mod admin_commands;
pub(crate) mod check;
mod command_line;
mod config_init;
mod configuration;
mod doctor;
mod no_network;
mod ready;
mod usage;
