//! The admin pages.

mod access;
mod audit;
mod clients;
mod confirmations;
mod keys;
mod people;
mod servers;
