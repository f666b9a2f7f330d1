use std::ffi::OsString;

use sqlx::{AnyConnection, AssertSqlSafe, ConnectOptions, Connection, Row};

use super::*;
use crate::oauth::secret::random_bytes;

struct Fixture {
    folder: PathBuf,
}

impl Fixture {
    fn new() -> Self {
        crate::storage::database::install_drivers();
        let name = format!("portcullis_driver_{:032x}", u128::from_be_bytes(random_bytes::<16>()));
        let folder = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&folder).unwrap();
        Self { folder }
    }

    fn at(&self, lock_timeout: u64) -> AnyConnectOptions {
        options(&self.folder.join("test.db"), Duration::from_millis(lock_timeout)).unwrap()
    }

    async fn connect(&self) -> AnyConnection {
        let mut connection = self.at(10_000).connect().await.unwrap();
        for sql in [
            "PRAGMA journal_mode = WAL",
            "CREATE TABLE IF NOT EXISTS notes (id INTEGER PRIMARY KEY, text TEXT UNIQUE, bytes BLOB, size REAL)",
        ] {
            sqlx::query(sql).execute(&mut connection).await.unwrap();
        }
        connection
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

#[test]
fn any_path_is_the_same_path_afterwards() {
    let bytes: Vec<u8> = (1..=255).collect();
    let path = PathBuf::from(OsString::from(OsStr::from_bytes(&bytes)));
    let url = options(&path, Duration::from_secs(5)).unwrap().database_url;
    assert_eq!(parse(&url).unwrap(), (path, Duration::from_secs(5)));
}

#[tokio::test]
async fn values_come_back_as_they_went() {
    let fixture = Fixture::new();
    let mut connection = fixture.connect().await;
    // The second parameter appears first: parameters are matched by number, not by position.
    let inserted = sqlx::query("INSERT INTO notes (text, id, bytes, size) VALUES ($2, $1, $3, $4)")
        .bind(7_i64)
        .bind("it's ‘quoted’; DROP TABLE notes")
        .bind(vec![0_u8, 255])
        .bind(0.5_f64)
        .execute(&mut connection)
        .await
        .unwrap();
    assert_eq!(inserted.rows_affected(), 1);
    let row = sqlx::query("SELECT id, text, bytes, size, $1 AS missing, $2 AS twice FROM notes")
        .bind(None::<String>)
        .bind(i64::MAX)
        .fetch_one(&mut connection)
        .await
        .unwrap();
    assert_eq!(row.get::<i64, _>("id"), 7);
    assert_eq!(row.get::<String, _>("text"), "it's ‘quoted’; DROP TABLE notes");
    assert_eq!(row.get::<Vec<u8>, _>("bytes"), [0, 255]);
    assert!((row.get::<f64, _>("size") - 0.5).abs() < f64::EPSILON);
    assert_eq!(row.get::<Option<String>, _>("missing"), None);
    assert_eq!(row.get::<i64, _>("twice"), i64::MAX);
    connection.close().await.unwrap();
}

#[tokio::test]
async fn changed_rows_are_those_of_this_statement() {
    let fixture = Fixture::new();
    let mut connection = fixture.connect().await;
    let mut changed = async |sql: &'static str| {
        sqlx::query(sql).execute(&mut connection).await.unwrap().rows_affected()
    };
    assert_eq!(changed("INSERT INTO notes (id) VALUES (1), (2), (3)").await, 3);
    assert_eq!(changed("SELECT * FROM notes").await, 0);
    assert_eq!(changed("UPDATE notes SET text = 'x' WHERE id = 9").await, 0);
    assert_eq!(changed("DELETE FROM notes WHERE id > 1").await, 2);
    assert_eq!(changed("UPDATE notes SET text = 'y' RETURNING id").await, 1);
}

#[tokio::test]
async fn a_limit_reads_no_more_and_leaves_no_statement_open() {
    let fixture = Fixture::new();
    let mut connection = fixture.connect().await;
    sqlx::query("INSERT INTO notes (id) VALUES (1), (2)").execute(&mut connection).await.unwrap();
    let first: Option<i64> = sqlx::query_scalar("SELECT id FROM notes ORDER BY id")
        .fetch_optional(&mut connection)
        .await
        .unwrap();
    assert_eq!(first, Some(1));
    // A statement that is still open would prevent the checkpoint.
    let checkpoint =
        sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)").fetch_one(&mut connection).await;
    assert_eq!(checkpoint.unwrap().get::<i64, _>(0), 0, "busy");
    let all = sqlx::query("UPDATE notes SET size = 1 RETURNING id").fetch_optional(&mut connection);
    assert!(all.await.unwrap().is_some());
    let changed = sqlx::query_scalar::<_, i64>("SELECT COUNT(*) FROM notes WHERE size = 1");
    assert_eq!(changed.fetch_one(&mut connection).await.unwrap(), 2, "a change is never cut short");
}

#[tokio::test]
async fn errors_keep_their_kind_and_two_statements_are_refused() {
    let fixture = Fixture::new();
    let mut connection = fixture.connect().await;
    sqlx::query("INSERT INTO notes (text) VALUES ('x')").execute(&mut connection).await.unwrap();
    let again = sqlx::query("INSERT INTO notes (text) VALUES ('x')").execute(&mut connection).await;
    assert!(again.unwrap_err().as_database_error().unwrap().is_unique_violation());
    for sql in ["SELECT 1; DELETE FROM notes", "nonsense", "SELECT * FROM elsewhere"] {
        sqlx::query(sql).execute(&mut connection).await.unwrap_err();
    }
    let left: i64 =
        sqlx::query_scalar("SELECT COUNT(*) FROM notes").fetch_one(&mut connection).await.unwrap();
    assert_eq!(left, 1);
}

#[tokio::test]
async fn the_lock_of_another_is_waited_for_without_holding_up_the_thread() {
    let fixture = Fixture::new();
    let (mut one, mut other) = (fixture.connect().await, fixture.connect().await);
    sqlx::query("BEGIN IMMEDIATE").execute(&mut one).await.unwrap();
    let waiting = tokio::spawn(async move {
        sqlx::query("BEGIN IMMEDIATE").execute(&mut other).await.unwrap();
        sqlx::query("COMMIT").execute(&mut other).await.unwrap();
    });
    for _ in 0..100 {
        tokio::task::yield_now().await; // on the same thread, which a blocking wait would stop
    }
    assert!(!waiting.is_finished());
    sqlx::query("COMMIT").execute(&mut one).await.unwrap();
    waiting.await.unwrap();
}

#[tokio::test]
async fn the_lock_of_another_is_not_waited_for_for_ever() {
    let fixture = Fixture::new();
    let mut one = fixture.connect().await;
    sqlx::query("BEGIN IMMEDIATE").execute(&mut one).await.unwrap();
    let mut other = fixture.at(30).connect().await.unwrap();
    let refused = sqlx::query("BEGIN IMMEDIATE").execute(&mut other).await.unwrap_err();
    assert_eq!(refused.as_database_error().unwrap().code().as_deref(), Some("5"), "SQLITE_BUSY");
}

#[tokio::test]
async fn a_connection_whose_commit_was_given_up_says_so() {
    let fixture = Fixture::new();
    let mut connection = fixture.connect().await;
    sqlx::query("BEGIN IMMEDIATE").execute(&mut connection).await.unwrap();
    sqlx::query("INSERT INTO notes (id) VALUES (1)").execute(&mut connection).await.unwrap();
    {
        let commit = sqlx::query("COMMIT").execute(&mut connection);
        let mut commit = std::pin::pin!(commit);
        let waker = std::task::Waker::noop();
        let _ = commit.as_mut().poll(&mut std::task::Context::from_waker(waker));
    }
    sqlx::query("SELECT 1").execute(&mut connection).await.unwrap_err();
    connection.ping().await.unwrap_err();
}

#[tokio::test]
async fn texts_that_are_made_up_do_not_pile_up() {
    let fixture = Fixture::new();
    let at = fixture.folder.join("test.db");
    let mut connection = InThreadConnection::open(&at, Duration::from_secs(1)).unwrap();
    for n in 0..3 * KNOWN {
        let sql = sqlx::SqlSafeStr::into_sql_str(AssertSqlSafe(format!("SELECT {n}")));
        connection.run(sql, None, 1).await.unwrap();
    }
    assert!(connection.known.len() <= KNOWN, "{}", connection.known.len());
}

#[tokio::test]
async fn a_text_that_is_none_is_damage_and_not_an_outage() {
    let fixture = Fixture::new();
    let mut connection = fixture.connect().await;
    let sql = "INSERT INTO notes (text) VALUES (CAST(x'ff41' AS TEXT))";
    sqlx::query(sql).execute(&mut connection).await.unwrap();

    let read = sqlx::query("SELECT text FROM notes").fetch_one(&mut connection).await;

    assert!(matches!(read, Err(sqlx::Error::Decode(_))));
    // A NUL is rejected, because PostgreSQL rejects it. A long text is accepted.
    let insert = sqlx::query("INSERT INTO notes (id, text) VALUES (9, $1)").bind("a\0b");
    let refused = insert.execute(&mut connection).await;
    assert!(matches!(refused, Err(sqlx::Error::Encode(_))));
    let text = "x".repeat(3 << 20);
    let insert = sqlx::query("INSERT INTO notes (id, text) VALUES (9, $1)").bind(&text);
    insert.execute(&mut connection).await.unwrap();
    let row = sqlx::query("DELETE FROM notes WHERE id = 9 RETURNING text");
    let row = row.fetch_one(&mut connection).await.unwrap();
    assert_eq!(row.get::<String, _>("text"), text);
}
