//! What is particular to PostgreSQL: what several at once may do, its errors, rights, connections and schema.
//!
//! On SQLite these tests have nothing to look at and end at once: `scripts/test-postgres` runs them.

mod address;
mod busy;
mod clean_up;
mod pgbouncer;
mod product;
mod ready;
mod retries;
mod schema;
mod single_statements;
mod tls;
