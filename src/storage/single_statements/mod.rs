//! Steps of the protocol that are one statement on PostgreSQL, and so one round trip instead of six to
//! fifteen.
//!
//! A transaction of several statements waits for the network between any two of them, with its rows locked
//! and its connection in use. The steps that every client takes all the time (a registration, a sign-in, a
//! redemption, a refresh) are therefore one statement here: `WITH`, and in it each INSERT and UPDATE of the
//! step. PostgreSQL runs it as a transaction of its own.
//!
//! Such a statement succeeds as a whole or changes nothing. What it cannot do, because a condition does not
//! hold (the token was used before, the person is blocked, a limit is reached), the transaction beside it does:
//! that one is the same for both engines, finds out why, and says so. The statement is only the short way
//! through the case in which everything is as it should be. It makes every check that the transaction makes.
//!
//! # How to read such a statement
//!
//! - The parts see the database as it was before the statement, and not what other parts changed. What a part
//!   depends on is what the part before it returns (`EXISTS (SELECT 1 FROM used)`), which also decides which
//!   of them runs first: rows are locked in the same order as in the transaction.
//! - An UPDATE or an INSERT … ON CONFLICT that waits for a row looks at its condition again, on the row as it is
//!   then. So what may happen once is decided by one conditional write here too.
//! - Where a later part may find that its condition does not hold any more, the statement ends with
//!   `1 / (SELECT COUNT(*) FROM …)`: the division by zero takes everything back. That needs a revocation within
//!   the milliseconds of the statement.
//! - `COALESCE(ended_at, 0) = 0` is `ended_at IS NULL` without the partial index of that condition: as long as
//!   PostgreSQL has not analysed a growing table, it takes that index for the smallest and reads all of it.
//! - SQLite knows no INSERT or UPDATE in `WITH`, so these texts are for PostgreSQL alone. There are six of them,
//!   one in each file of this folder.
//!
//! A step that is stopped in the middle by a test (`stop_points.rs`) is the transaction.

mod approval;
mod callback;
mod login;
mod redemption;
mod refresh;
mod registration;
