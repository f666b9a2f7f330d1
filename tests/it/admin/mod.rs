//! The admin pages.

mod access;
mod audit;
mod confirmations;
mod keys;
mod people;
mod servers;
