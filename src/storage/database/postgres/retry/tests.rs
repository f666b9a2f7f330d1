use std::borrow::Cow;
use std::sync::Arc;

use parking_lot::Mutex;
use sqlx::error::{DatabaseError, ErrorKind};
use sqlx_core::any::AnyValue;

use super::*;
use crate::telemetry::metrics::Snapshot;

/// What the server says to a statement.
enum Reply {
    Affected(u64),
    Text(&'static str),
    /// It fails with this SQLSTATE.
    Fails(&'static str),
    /// It does not answer.
    Silence,
}

use Reply::{Affected, Fails, Silence, Text};

type Script = Box<dyn FnMut(&str) -> Reply + Send>;

/// A server that answers as a test says, and keeps what it was sent.
struct Server {
    depth: usize,
    sent: Arc<Mutex<Vec<String>>>,
    script: Script,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Server")
    }
}

#[derive(Debug)]
struct Failure(&'static str);

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for Failure {}

impl DatabaseError for Failure {
    fn message(&self) -> &str {
        self.0
    }
    fn code(&self) -> Option<Cow<'_, str>> {
        Some(Cow::Borrowed(self.0))
    }
    fn as_error(&self) -> &(dyn std::error::Error + Send + Sync + 'static) {
        self
    }
    fn as_error_mut(&mut self) -> &mut (dyn std::error::Error + Send + Sync + 'static) {
        self
    }
    fn into_error(self: Box<Self>) -> Box<dyn std::error::Error + Send + Sync + 'static> {
        self
    }
    fn kind(&self) -> ErrorKind {
        ErrorKind::Other
    }
}

fn failure(code: &'static str) -> sqlx::Error {
    sqlx::Error::Database(Box::new(Failure(code)))
}

fn silence() -> sqlx::Error {
    sqlx::Error::Io(std::io::ErrorKind::TimedOut.into())
}

impl Server {
    fn answer(&mut self, sql: &str) -> sqlx::Result<Item> {
        self.sent.lock().push(sql.to_owned());
        match (self.script)(sql) {
            Affected(rows_affected) => {
                Ok(Either::Left(AnyQueryResult { rows_affected, last_insert_id: None }))
            }
            Text(text) => {
                let kind = AnyValueKind::Text(Arc::new(text.to_owned()));
                let values = vec![AnyValue { kind }];
                Ok(Either::Right(AnyRow { column_names: Arc::default(), columns: vec![], values }))
            }
            Fails(code) => Err(failure(code)),
            Silence => Err(silence()),
        }
    }
}

impl AnyConnectionBackend for Server {
    fn name(&self) -> &'static str {
        "a server of a test"
    }
    fn close(self: Box<Self>) -> BoxFuture<'static, sqlx::Result<()>> {
        Box::pin(async { Ok(()) })
    }
    fn close_hard(self: Box<Self>) -> BoxFuture<'static, sqlx::Result<()>> {
        Box::pin(async { Ok(()) })
    }
    fn ping(&mut self) -> BoxFuture<'_, sqlx::Result<()>> {
        Box::pin(async { Ok(()) })
    }
    fn begin(&mut self, _: Option<SqlStr>) -> BoxFuture<'_, sqlx::Result<()>> {
        Box::pin(async {
            self.answer("BEGIN")?;
            self.depth += 1;
            Ok(())
        })
    }
    fn commit(&mut self) -> BoxFuture<'_, sqlx::Result<()>> {
        Box::pin(async {
            self.answer("COMMIT")?;
            self.depth -= 1;
            Ok(())
        })
    }
    fn rollback(&mut self) -> BoxFuture<'_, sqlx::Result<()>> {
        Box::pin(async {
            self.answer("ROLLBACK")?;
            self.depth -= 1;
            Ok(())
        })
    }
    fn start_rollback(&mut self) {
        self.depth = self.depth.saturating_sub(1);
    }
    fn get_transaction_depth(&self) -> usize {
        self.depth
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
        sql: SqlStr,
        _: bool,
        _: Option<AnyArguments>,
    ) -> BoxStream<'_, sqlx::Result<Item>> {
        let answer = self.answer(sql.as_str());
        stream::once(async move { answer }).boxed()
    }
    fn fetch_optional(
        &mut self,
        sql: SqlStr,
        _: bool,
        _: Option<AnyArguments>,
    ) -> BoxFuture<'_, sqlx::Result<Option<AnyRow>>> {
        let answer = self.answer(sql.as_str());
        Box::pin(async move { Ok(answer?.right()) })
    }
    fn prepare_with<'c, 'q: 'c>(
        &'c mut self,
        _: SqlStr,
        _: &[AnyTypeInfo],
    ) -> BoxFuture<'c, sqlx::Result<AnyStatement>> {
        Box::pin(async { Err(silence()) })
    }
}

struct Tried {
    connection: RetryConnection<Server>,
    sent: Arc<Mutex<Vec<String>>>,
    metrics: Metrics,
}

impl Tried {
    fn with(script: impl FnMut(&str) -> Reply + Send + 'static) -> Self {
        let (sent, metrics) = (Arc::default(), Metrics::new());
        let server = Server { depth: 0, sent: Arc::clone(&sent), script: Box::new(script) };
        let mut connection = RetryConnection::new(server, metrics.clone());
        connection.pause = Duration::ZERO;
        Self { connection, sent, metrics }
    }

    async fn execute(&mut self, sql: &'static str) -> sqlx::Result<u64> {
        let items = self.connection.fetch_many(SqlStr::from_static(sql), true, None);
        let items: Vec<Item> = items.try_collect().await?;
        Ok(SeenResult::of(&items).affected)
    }

    async fn row(&mut self, sql: &'static str) -> sqlx::Result<Option<AnyRow>> {
        self.connection.fetch_optional(SqlStr::from_static(sql), true, None).await
    }

    /// The transaction of most tests.
    async fn step(&mut self) -> sqlx::Result<()> {
        self.connection.begin(None).await?;
        self.row("read").await?;
        self.execute("write").await?;
        self.connection.commit().await
    }

    fn sent(&self) -> String {
        self.sent.lock().join(" ")
    }

    fn repeated_because(&self, cause: &str) -> u64 {
        let text = self.metrics.text(&Snapshot::default()).unwrap();
        let series = format!("portcullis_database_retries_total{{cause=\"{cause}\"}} ");
        text.lines().find_map(|line| line.strip_prefix(&series)).unwrap().parse().unwrap()
    }

    fn repeated(&self) -> u64 {
        self.repeated_because("serialization") + self.repeated_because("deadlock")
    }
}

/// Answers well, and fails with `code` the first `times` times that it is sent `what`.
fn failing(what: &'static str, code: &'static str, times: usize) -> impl FnMut(&str) -> Reply {
    let mut failed = 0;
    move |sql| {
        if sql == what && failed < times {
            failed += 1;
            return Fails(code);
        }
        if sql == "read" { Text("same") } else { Affected(1) }
    }
}

#[tokio::test]
async fn a_transaction_that_was_rolled_back_is_repeated_from_its_beginning() {
    for (what, sent) in [
        ("read", "BEGIN read ROLLBACK BEGIN read write COMMIT"),
        ("write", "BEGIN read write ROLLBACK BEGIN read write COMMIT"),
        ("COMMIT", "BEGIN read write COMMIT ROLLBACK BEGIN read write COMMIT"),
    ] {
        for (code, cause) in [("40001", "serialization"), ("40P01", "deadlock")] {
            let mut tried = Tried::with(failing(what, code, 1));
            tried.step().await.unwrap();
            assert_eq!(tried.sent(), sent, "{what} {code}");
            assert_eq!(tried.repeated_because(cause), 1);
            assert_eq!(tried.repeated(), 1);
        }
    }
}

#[tokio::test]
async fn endless_failures_end_with_the_error_of_the_server() {
    for what in ["read", "write", "COMMIT"] {
        let mut tried = Tried::with(failing(what, "40001", usize::MAX));
        let cause = tried.step().await.unwrap_err();
        assert_eq!(retry_cause(&cause), Some(RetryCause::Serialization), "{what}");
        assert_eq!(tried.repeated(), u64::from(REPETITIONS));
        tried.connection.start_rollback();
        assert_eq!(tried.connection.get_transaction_depth(), 0);
    }
}

/// What another transaction changed meanwhile may lead to another decision: only the caller can make it.
#[tokio::test]
async fn a_repetition_that_finds_something_else_fails_and_commits_nothing() {
    let changed = |what: &'static str, to: fn() -> Reply| {
        let (mut times, mut fail) = (0, failing("COMMIT", "40001", 1));
        move |sql: &str| {
            times += usize::from(sql == what);
            if sql == what && times == 2 { to() } else { fail(sql) }
        }
    };
    for (what, to) in [("read", (|| Text("other")) as fn() -> Reply), ("write", || Affected(0))] {
        let mut tried = Tried::with(changed(what, to));
        let cause = tried.step().await.unwrap_err();
        assert_eq!(retry_cause(&cause), Some(RetryCause::Serialization), "{what}");
        // A caller that continues all the same changes nothing.
        tried.execute("later").await.unwrap_err();
        tried.connection.commit().await.unwrap_err();
        assert_eq!(tried.sent().matches("COMMIT").count(), 1, "{}", tried.sent());
        assert!(!tried.sent().contains("later"));
    }
}

#[tokio::test]
async fn an_unknown_outcome_and_every_other_error_are_not_repeated() {
    for what in ["read", "write", "COMMIT"] {
        for code in ["40003", "40000", "08007", "57P01", "25006", "55P03", "57014", "23505"] {
            let mut tried = Tried::with(failing(what, code, 1));
            let cause = tried.step().await.unwrap_err();
            assert_eq!(errors::code(&cause).as_deref(), Some(code), "{what}");
            assert_eq!((tried.repeated(), tried.sent.lock().last().unwrap().as_str()), (0, what));
        }
        let silent = move |sql: &str| if sql == what { Silence } else { Affected(1) };
        let mut tried = Tried::with(silent);
        assert!(matches!(tried.step().await, Err(sqlx::Error::Io(_))), "{what}");
        assert_eq!((tried.repeated(), tried.sent.lock().last().unwrap().as_str()), (0, what));
    }
}

/// PostgreSQL answers the COMMIT of a failed transaction with ROLLBACK, which is no error.
#[tokio::test]
async fn a_commit_after_a_failed_statement_fails() {
    let mut tried = Tried::with(failing("write", "23505", 1));
    tried.connection.begin(None).await.unwrap();
    tried.execute("write").await.unwrap_err();
    tried.connection.commit().await.unwrap_err();
    assert_eq!(tried.sent(), "BEGIN write");
    tried.connection.rollback().await.unwrap();
    tried.step().await.unwrap();
}

#[tokio::test]
async fn a_statement_outside_of_a_transaction_is_repeated_alone() {
    let mut tried = Tried::with(failing("write", "40P01", 2));
    assert_eq!(tried.execute("write").await.unwrap(), 1);
    assert_eq!(tried.sent(), "write write write");
    let mut tried = Tried::with(failing("read", "40001", usize::MAX));
    assert!(tried.row("read").await.is_err());
    assert_eq!(tried.repeated(), u64::from(REPETITIONS));
}

#[tokio::test]
async fn a_lost_connection_while_repeating_ends_it() {
    let mut failed = false;
    let mut tried = Tried::with(move |sql| match sql {
        "write" if !failed => {
            failed = true;
            Fails("40001")
        }
        "ROLLBACK" => Silence,
        _ => Affected(1),
    });
    assert!(matches!(tried.step().await, Err(sqlx::Error::Io(_))));
    assert_eq!(tried.sent(), "BEGIN read write ROLLBACK");
}

#[tokio::test]
async fn transactions_with_savepoints_or_with_large_results_are_not_repeated() {
    let mut tried = Tried::with(failing("write", "40001", 1));
    tried.connection.begin(None).await.unwrap();
    tried.connection.begin(None).await.unwrap();
    tried.execute("write").await.unwrap_err();
    assert_eq!(tried.repeated(), 0);

    let mut tried = Tried::with(failing("write", "40001", 1));
    tried.connection.begin(None).await.unwrap();
    for _ in 0..=VALUES {
        tried.row("read").await.unwrap();
    }
    tried.execute("write").await.unwrap_err();
    assert_eq!(tried.repeated(), 0);
    assert!(tried.connection.step.as_ref().unwrap().done.is_empty());
}

#[tokio::test]
async fn a_whole_step_runs_a_few_times_after_errors_that_changed_nothing() {
    let lost = || StorageError::from(failure("40001"));
    let mut attempts = Attempts::new();
    let mut times = 1;
    while attempts.again(&lost()).await {
        times += 1;
    }
    assert_eq!(times, ATTEMPTS);
    let mut attempts = Attempts::new();
    for other in [failure("40003").into(), silence().into(), StorageError::Busy] {
        assert!(!attempts.again(&other).await, "{other}");
    }
    attempts.begun = attempts.begun.checked_sub(REPEATED_FOR).unwrap();
    assert!(!attempts.again(&lost()).await);
}

#[test]
fn nothing_is_repeated_long_after_the_first_failure() {
    let mut recording = RecordedStep::new(true);
    assert_eq!(recording.next(), Some(1));
    recording.failed_at = Instant::now().checked_sub(REPEATED_FOR);
    assert_eq!(recording.next(), None);
}

#[tokio::test]
async fn a_connection_that_takes_no_writes_is_given_up() {
    let mut tried = Tried::with(failing("write", "25006", 1));
    tried.connection.ping().await.unwrap();
    tried.step().await.unwrap_err();
    tried.connection.start_rollback();
    tried.connection.ping().await.unwrap_err();
}

#[test]
fn pauses_grow_and_differ() {
    for repetition in 1..=REPETITIONS {
        let longest = PAUSE * 2_u32.pow(repetition - 1);
        let pauses: Vec<Duration> = (0..100).map(|_| pause(PAUSE, repetition)).collect();
        assert!(pauses.iter().all(|pause| (longest / 2..=longest).contains(pause)));
        assert!(pauses.iter().any(|pause| *pause != pauses[0]));
    }
}

#[test]
fn values_of_different_kinds_differ() {
    let text = |text: &str| AnyValueKind::Text(Arc::new(text.to_owned()));
    assert!(is_same(&text("a"), &text("a")));
    assert!(!is_same(&text("a"), &text("b")));
    assert!(!is_same(&AnyValueKind::Integer(1), &AnyValueKind::BigInt(1)));
    assert!(is_same(&AnyValueKind::Double(f64::NAN), &AnyValueKind::Double(f64::NAN)));
}
