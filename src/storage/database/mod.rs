//! The database: connections, transactions, migrations, and the two engines, SQLite ([`sqlite`]) and
//! PostgreSQL ([`postgres`]). It knows SQL and no OAuth.

pub(crate) mod attach;
pub(crate) mod driver;
pub(crate) mod errors;
pub(crate) mod health;
pub(crate) mod migrate;
pub(crate) mod open;
pub(crate) mod postgres;
pub(crate) mod secret_key;
pub(crate) mod select;
pub(crate) mod sqlite;
