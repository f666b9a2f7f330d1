//! The admin pages.

mod access;
mod audit;
mod clients;
mod confirmations;
mod connections;
mod frame;
mod keys;
mod overview;
mod people;
mod refused;
mod servers;
mod usage;
