//! A connection to SQLite that runs its statements on the calling thread.
//!
//! sqlx's own SQLite driver gives every connection a thread. Each statement then costs two thread
//! switches, which is more than the statement itself while its pages are in memory. Therefore the
//! transactions and reads of almost every request use rusqlite directly on the calling thread. Slow work
//! stays on connections of sqlx's own driver: migrations, administrators' lists, backups. Operations that
//! wait for the disk, a commit or a checkpoint, run on a blocking thread.
//!
//! Each query text must be a single statement, except [`NEXT_SAVEPOINT`]. Waiting for the lock of another
//! process does not block a thread.

mod error;

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures_util::future::BoxFuture;
use futures_util::stream::{self, BoxStream, StreamExt};
use rusqlite::types::{ToSqlOutput, ValueRef};
use sqlx::any::{
    AnyArguments, AnyConnectOptions, AnyQueryResult, AnyRow, AnyStatement, AnyTypeInfo,
    AnyTypeInfoKind,
};
use sqlx::{Either, SqlStr};
use sqlx_core::HashMap;
use sqlx_core::any::{AnyColumn, AnyConnectionBackend, AnyValue, AnyValueKind};
use sqlx_core::ext::ustr::UStr;
use tokio::time::Instant;
use url::Url;

use error::SqliteError;

use crate::storage::database::arguments::check_texts;

/// Checkpoints as much of the WAL as readers and writers allow. Through this driver it returns no row.
pub(crate) const CHECKPOINT: &str = "PRAGMA wal_checkpoint(PASSIVE)";

/// Replaces the savepoint of one transaction by that of the next, with one call of the driver. A call costs
/// more than the statement itself.
pub(crate) const NEXT_SAVEPOINT: &str = "RELEASE step; SAVEPOINT step";

/// URL scheme of [`options`].
pub(crate) const SCHEME: &str = "sqlite-in-thread";
/// Most prepared statements that a connection keeps: 128.
const PREPARED: usize = 128;
/// Most statements whose shape a connection keeps: 256. Our own are fewer; only lists compose theirs.
const KNOWN: usize = 256;
/// Statements that take longer are logged: 1 second.
const SLOW: Duration = Duration::from_secs(1);
/// First and longest pause between two attempts while another process holds the lock: 1 ms and 25 ms.
const PAUSES: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(25));

/// Returns options for fast connections to the database at `path`. `lock_timeout` is how long they wait
/// while another process holds the lock. See [`super`] for how to fall back to sqlx's own driver.
pub(crate) fn options(
    path: &Path,
    lock_timeout: Duration,
) -> Result<AnyConnectOptions, sqlx::Error> {
    #[cfg(debug_assertions)] // for a test of the fallback; not in release builds
    if std::env::var_os("TEST_SQLX_SQLITE").is_some() {
        return format!("sqlite://{}?mode=rwc", path.display()).parse();
    }
    // Base64, because a path may contain bytes that a URL would change.
    let path = URL_SAFE_NO_PAD.encode(path.as_os_str().as_bytes());
    format!("{SCHEME}:{path}?{}", lock_timeout.as_millis()).parse()
}

/// Returns options for connections of sqlx's own driver, which runs statements on other threads.
pub(crate) fn sqlx_options(path: &Path) -> Result<AnyConnectOptions, sqlx::Error> {
    format!("sqlite://{}", path.display()).parse()
}

/// Returns whether these options are for fast connections, which know whether they are in a transaction.
/// sqlx's own driver does not know of transactions that statements have opened.
pub(crate) fn knows_transactions(options: &AnyConnectOptions) -> bool {
    options.database_url.scheme() == SCHEME
}

/// Parses the URL that [`options`] has made.
pub(crate) fn parse(url: &Url) -> Result<(PathBuf, Duration), sqlx::Error> {
    let path = URL_SAFE_NO_PAD.decode(url.path()).ok();
    let lock_timeout = url.query().and_then(|millis| millis.parse().ok());
    let (Some(path), Some(lock_timeout)) = (path, lock_timeout) else {
        return Err(sqlx::Error::Configuration("not a URL of this driver".into()));
    };
    Ok((PathBuf::from(OsStr::from_bytes(&path)), Duration::from_millis(lock_timeout)))
}

impl InThreadConnection {
    pub(crate) fn open(path: &Path, lock_timeout: Duration) -> Result<Self, sqlx::Error> {
        let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_WRITE
            | rusqlite::OpenFlags::SQLITE_OPEN_CREATE
            | rusqlite::OpenFlags::SQLITE_OPEN_NO_MUTEX; // `&mut` ensures one caller at a time
        let sqlite = rusqlite::Connection::open_with_flags(path, flags).map_err(told)?;
        sqlite.busy_timeout(Duration::ZERO).map_err(told)?;
        sqlite.set_prepared_statement_cache_capacity(PREPARED);
        let known = HashMap::default();
        Ok(Self { sqlite: Some(sqlite), lock_timeout, known })
    }
}

/// A connection whose statements run on the calling thread.
#[derive(Debug)]
pub(crate) struct InThreadConnection {
    /// `None` while a commit or checkpoint runs on another thread, and after its caller was cancelled.
    sqlite: Option<rusqlite::Connection>,
    lock_timeout: Duration,
    /// Shapes by statement text.
    known: HashMap<String, Arc<Shape>>,
}

/// The parts of a statement that are the same at each use.
#[derive(Debug)]
struct Shape {
    /// For each of SQLite's parameters, the index of our argument: `$2` may appear before `$1`.
    parameters: Vec<usize>,
    names: Arc<HashMap<UStr, usize>>,
    columns: Vec<AnyColumn>,
    reads_only: bool,
}

#[derive(Default)]
struct StatementResult {
    rows: Vec<AnyRow>,
    changed: u64,
}

impl InThreadConnection {
    /// Runs a statement and returns at most `limit` rows.
    async fn run(
        &mut self,
        sql: SqlStr,
        arguments: Option<AnyArguments>,
        limit: usize,
    ) -> Result<StatementResult, sqlx::Error> {
        check_texts(arguments.as_ref())?;
        let values = arguments.map(|arguments| arguments.values.0).unwrap_or_default();
        if matches!(sql.as_str(), "COMMIT" | CHECKPOINT) {
            return self.run_blocking(sql).await;
        }
        let begun = Instant::now();
        let mut pause = PAUSES.0;
        loop {
            match self.run_here(sql.as_str(), &values, limit) {
                // Only outside of a transaction: inside one, it could wait for ever, or for itself.
                Err(cause) if is_busy(&cause) && self.is_idle() => {
                    if begun.elapsed() >= self.lock_timeout {
                        return Err(told(cause));
                    }
                    tokio::time::sleep(pause).await;
                    pause = PAUSES.1.min(pause * 2);
                }
                ended => {
                    if begun.elapsed() >= SLOW {
                        let (sql, took) = (sql.as_str(), begun.elapsed());
                        tracing::warn!(sql, ?took, "a statement took long");
                    }
                    return ended.map_err(told);
                }
            }
        }
    }

    /// Runs a statement that waits for the disk, on a blocking thread.
    async fn run_blocking(&mut self, sql: SqlStr) -> Result<StatementResult, sqlx::Error> {
        let sqlite = self.sqlite.take().ok_or_else(gone)?;
        let run = move || {
            let ended = sqlite.execute_batch(sql.as_str());
            (sqlite, ended)
        };
        let (sqlite, ended) = tokio::task::spawn_blocking(run).await.map_err(|_| gone())?;
        self.sqlite = Some(sqlite);
        ended.map(|()| StatementResult::default()).map_err(told)
    }

    fn run_here(
        &mut self,
        sql: &str,
        values: &[AnyValueKind],
        limit: usize,
    ) -> Result<StatementResult, rusqlite::Error> {
        if sql == NEXT_SAVEPOINT {
            self.run_here("RELEASE step", &[], 0)?;
            return self.run_here("SAVEPOINT step", &[], 0);
        }
        let Some(sqlite) = &self.sqlite else { return Err(rusqlite::Error::InvalidQuery) };
        let mut statement = sqlite.prepare_cached(sql)?;
        let shape = if let Some(shape) = self.known.get(sql) {
            Arc::clone(shape)
        } else {
            let shape = Arc::new(Shape::of(&statement));
            if self.known.len() >= KNOWN {
                self.known.clear();
            }
            self.known.insert(sql.to_owned(), Arc::clone(&shape));
            shape
        };
        for (position, ours) in shape.parameters.iter().enumerate() {
            let value = values.get(*ours).map_or(Ok(NULL), bound)?;
            statement.raw_bind_parameter(position + 1, value)?;
        }
        let mut outcome = StatementResult::default();
        let mut rows = statement.raw_query();
        while let Some(row) = rows.next()? {
            if outcome.rows.len() < limit {
                outcome.rows.push(shape.row(row)?);
            }
            if outcome.rows.len() == limit && shape.reads_only {
                break;
            }
        }
        drop(rows);
        if !shape.reads_only {
            outcome.changed = sqlite.changes();
        }
        Ok(outcome)
    }

    fn is_idle(&self) -> bool {
        self.sqlite.as_ref().is_some_and(rusqlite::Connection::is_autocommit)
    }
}

impl Shape {
    fn of(statement: &rusqlite::Statement<'_>) -> Self {
        let parameters = (1..=statement.parameter_count()).map(|position| {
            let numbered = statement.parameter_name(position).and_then(|name| name.get(1..));
            numbered.and_then(|number| number.parse().ok()).unwrap_or(position) - 1
        });
        let kind = AnyTypeInfoKind::Null; // columns have no known type; each value carries its own
        let columns = statement.column_names().into_iter().enumerate().map(|(ordinal, name)| {
            AnyColumn { ordinal, name: UStr::new(name), type_info: AnyTypeInfo { kind } }
        });
        let columns: Vec<_> = columns.collect();
        let names = columns.iter().map(|column| (column.name.clone(), column.ordinal));
        Self {
            parameters: parameters.collect(),
            names: Arc::new(names.collect()),
            columns,
            reads_only: statement.readonly(),
        }
    }

    fn row(&self, row: &rusqlite::Row<'_>) -> Result<AnyRow, rusqlite::Error> {
        let values = (0..self.columns.len()).map(|position| {
            let kind = match row.get_ref(position)? {
                ValueRef::Null => AnyValueKind::Null(AnyTypeInfoKind::Null),
                ValueRef::Integer(number) => AnyValueKind::BigInt(number),
                ValueRef::Real(number) => AnyValueKind::Double(number),
                ValueRef::Text(text) => {
                    AnyValueKind::Text(Arc::new(String::from_utf8(text.to_vec()).map_err(
                        |cause| rusqlite::Error::Utf8Error(position, cause.utf8_error()),
                    )?))
                }
                ValueRef::Blob(bytes) => AnyValueKind::Blob(Arc::new(bytes.to_vec())),
            };
            Ok(AnyValue { kind })
        });
        Ok(AnyRow {
            column_names: Arc::clone(&self.names),
            columns: self.columns.clone(),
            values: values.collect::<Result<_, rusqlite::Error>>()?,
        })
    }
}

const NULL: ToSqlOutput<'static> = ToSqlOutput::Borrowed(ValueRef::Null);

fn bound(value: &AnyValueKind) -> Result<ToSqlOutput<'_>, rusqlite::Error> {
    Ok(ToSqlOutput::Borrowed(match value {
        AnyValueKind::Null(_) => ValueRef::Null,
        AnyValueKind::Bool(yes) => ValueRef::Integer(i64::from(*yes)),
        AnyValueKind::SmallInt(number) => ValueRef::Integer(i64::from(*number)),
        AnyValueKind::Integer(number) => ValueRef::Integer(i64::from(*number)),
        AnyValueKind::BigInt(number) => ValueRef::Integer(*number),
        AnyValueKind::Real(number) => ValueRef::Real(f64::from(*number)),
        AnyValueKind::Double(number) => ValueRef::Real(*number),
        AnyValueKind::Text(text) => ValueRef::Text(text.as_bytes()),
        AnyValueKind::TextSlice(text) => ValueRef::Text(text.as_bytes()),
        AnyValueKind::Blob(bytes) => ValueRef::Blob(bytes),
        _ => return Err(rusqlite::Error::InvalidQuery), // a kind that a later sqlx added
    }))
}

impl AnyConnectionBackend for InThreadConnection {
    fn name(&self) -> &'static str {
        "SQLite"
    }

    fn close(self: Box<Self>) -> BoxFuture<'static, sqlx::Result<()>> {
        Box::pin(async move {
            match self.sqlite {
                Some(sqlite) => sqlite.close().map_err(|(_, cause)| told(cause)),
                None => Ok(()),
            }
        })
    }

    fn close_hard(self: Box<Self>) -> BoxFuture<'static, sqlx::Result<()>> {
        self.close()
    }

    fn ping(&mut self) -> BoxFuture<'_, sqlx::Result<()>> {
        Box::pin(async move { self.sqlite.as_ref().map(drop).ok_or_else(gone) })
    }

    fn begin(&mut self, _: Option<SqlStr>) -> BoxFuture<'_, sqlx::Result<()>> {
        Box::pin(async { Err(no_transactions()) })
    }

    fn commit(&mut self) -> BoxFuture<'_, sqlx::Result<()>> {
        Box::pin(async { Err(no_transactions()) })
    }

    fn rollback(&mut self) -> BoxFuture<'_, sqlx::Result<()>> {
        Box::pin(async { Err(no_transactions()) })
    }

    fn start_rollback(&mut self) {}

    fn get_transaction_depth(&self) -> usize {
        usize::from(self.sqlite.is_some() && !self.is_idle())
    }

    fn shrink_buffers(&mut self) {}

    fn flush(&mut self) -> BoxFuture<'_, sqlx::Result<()>> {
        Box::pin(async { Ok(()) })
    }

    fn should_flush(&self) -> bool {
        false
    }

    fn fetch_many(
        &mut self,
        query: SqlStr,
        _persistent: bool,
        arguments: Option<AnyArguments>,
    ) -> BoxStream<'_, sqlx::Result<Either<AnyQueryResult, AnyRow>>> {
        let answer = async move {
            let told: Vec<sqlx::Result<_>> = match self.run(query, arguments, usize::MAX).await {
                Err(cause) => vec![Err(cause)],
                Ok(StatementResult { rows, changed }) => {
                    let result = AnyQueryResult { rows_affected: changed, last_insert_id: None };
                    let rows = rows.into_iter().map(|row| Ok(Either::Right(row)));
                    rows.chain([Ok(Either::Left(result))]).collect()
                }
            };
            stream::iter(told)
        };
        stream::once(answer).flatten().boxed()
    }

    fn fetch_optional(
        &mut self,
        query: SqlStr,
        _persistent: bool,
        arguments: Option<AnyArguments>,
    ) -> BoxFuture<'_, sqlx::Result<Option<AnyRow>>> {
        Box::pin(async move { Ok(self.run(query, arguments, 1).await?.rows.pop()) })
    }

    fn prepare_with<'c, 'q: 'c>(
        &'c mut self,
        _sql: SqlStr,
        _parameters: &[AnyTypeInfo],
    ) -> BoxFuture<'c, sqlx::Result<AnyStatement>> {
        Box::pin(async {
            Err(sqlx::Error::Protocol("statements are prepared by their use".into()))
        })
    }
}

fn is_busy(error: &rusqlite::Error) -> bool {
    use rusqlite::ErrorCode::{DatabaseBusy, DatabaseLocked};
    matches!(error.sqlite_error_code(), Some(DatabaseBusy | DatabaseLocked))
}

/// Converts an error of SQLite into one of sqlx.
fn told(error: rusqlite::Error) -> sqlx::Error {
    if matches!(error, rusqlite::Error::Utf8Error(..)) {
        return sqlx::Error::Decode(error.into()); // waiting does not help
    }
    match error.sqlite_error_code() {
        Some(_) => sqlx::Error::Database(Box::new(SqliteError::new(error))),
        None => sqlx::Error::Protocol(error.to_string()),
    }
}

fn gone() -> sqlx::Error {
    sqlx::Error::Protocol("the connection was given up while it waited for the disk".into())
}

/// Transactions are opened by statements, so that they can be shared: see [`super::group_commit`].
pub(crate) fn no_transactions() -> sqlx::Error {
    sqlx::Error::Protocol("transactions of this driver are opened by statements".into())
}

#[cfg(test)]
mod tests;
