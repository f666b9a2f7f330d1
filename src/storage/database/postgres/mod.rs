//! PostgreSQL: one server, shared by several replicas.

pub(crate) mod address;
pub(crate) mod examine;
pub(crate) mod notify;
pub(crate) mod pools;
pub(crate) mod privileges;
pub(crate) mod probe;
pub(crate) mod product;
pub(crate) mod retry;
pub(crate) mod server;
pub(crate) mod session_settings;
pub(crate) mod single_statement;
pub(crate) mod timeout_connection;
pub(crate) mod timeouts;
pub(crate) mod transaction_pooling;
