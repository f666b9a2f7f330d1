use std::path::PathBuf;

use futures_util::future::join_all;

use super::*;
use crate::oauth::secret::random_bytes;
use crate::storage::database::sqlite::connection;

struct Fixture {
    folder: PathBuf,
    options: AnyConnectOptions,
    writer: Writer,
}

impl Fixture {
    async fn new() -> Self {
        crate::storage::database::install_drivers();
        let name = format!("portcullis_writer_{:032x}", u128::from_be_bytes(random_bytes::<16>()));
        let folder = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&folder).unwrap();
        let options = connection::options(&folder.join("test.db"), Duration::from_secs(5)).unwrap();
        let writer =
            Writer::open(options.clone(), Duration::from_secs(5), Metrics::new()).await.unwrap();
        let fixture = Self { folder, options, writer };
        for sql in [
            "CREATE TABLE notes (place INTEGER PRIMARY KEY AUTOINCREMENT, text TEXT UNIQUE)",
            "CREATE TABLE parents (id TEXT PRIMARY KEY)",
            "CREATE TABLE children (parent TEXT REFERENCES parents (id) DEFERRABLE INITIALLY DEFERRED)",
        ] {
            let mut step = fixture.writer.begin().await.unwrap();
            sqlx::query(sql).execute(&mut *step).await.unwrap();
            step.commit().await.unwrap();
        }
        fixture
    }

    /// Reads on another connection, which sees only committed data.
    async fn number(&self, sql: &'static str) -> i64 {
        let mut reader = connect(&self.options).await.unwrap();
        let number = sqlx::query_scalar(sql).fetch_one(&mut reader).await.unwrap();
        reader.close().await.unwrap();
        number
    }

    async fn wait_until_waiting(&self, callers: usize) {
        while self.writer.0.waiting.load(Ordering::SeqCst) < callers {
            tokio::task::yield_now().await;
        }
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

async fn note(writer: &Writer, text: &str) -> Result<(), StorageError> {
    let mut step = writer.begin().await?;
    sqlx::query("INSERT INTO notes (text) VALUES ($1)").bind(text).execute(&mut *step).await?;
    step.commit().await
}

const NOTES: &str = "SELECT COUNT(*) FROM notes";

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn whoever_is_answered_can_be_seen_by_everybody() {
    let fixture = Fixture::new().await;
    join_all((0..300).map(|n| {
        let fixture = &fixture;
        async move {
            note(&fixture.writer, &format!("note {n}")).await.unwrap();
            let mut reader = connect(&fixture.options).await.unwrap();
            let found: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM notes WHERE text = $1")
                .bind(format!("note {n}"))
                .fetch_one(&mut reader)
                .await
                .unwrap();
            assert_eq!(found, 1, "answered before the commit");
        }
    }))
    .await;
    assert_eq!(fixture.number(NOTES).await, 300);
}

#[tokio::test]
async fn nobody_is_answered_before_the_commit_that_all_share() {
    let fixture = Fixture::new().await;
    let first = fixture.writer.begin().await.unwrap();
    let writer = fixture.writer.clone();
    let second = tokio::spawn(async move { note(&writer, "second").await });
    fixture.wait_until_waiting(1).await;
    let writer = fixture.writer.clone();
    let held = tokio::spawn(async move { writer.begin().await.unwrap() });
    fixture.wait_until_waiting(2).await;
    let first = tokio::spawn(first.commit());

    let held = held.await.unwrap(); // the third has the turn: the other two have ended theirs

    assert_eq!(fixture.number(NOTES).await, 0);
    assert!(!first.is_finished() && !second.is_finished());
    held.commit().await.unwrap();
    first.await.unwrap().unwrap();
    second.await.unwrap().unwrap();
    assert_eq!(fixture.number(NOTES).await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_step_that_is_given_up_takes_only_its_own_changes_along() {
    let fixture = Fixture::new().await;
    let outcomes = join_all((0..200).map(|n| {
        let writer = fixture.writer.clone();
        tokio::spawn(async move {
            let mut step = writer.begin().await.unwrap();
            for half in ["a", "b"] {
                sqlx::query("INSERT INTO notes (text) VALUES ($1)")
                    .bind(format!("{n} {half}"))
                    .execute(&mut *step)
                    .await
                    .unwrap();
            }
            match n % 3 {
                0 => drop(step),
                1 => {
                    // A statement that fails does not affect the other callers' changes either.
                    let again = sqlx::query("INSERT INTO notes (text) VALUES ($1)");
                    again.bind(format!("{n} a")).execute(&mut *step).await.unwrap_err();
                }
                _ => step.commit().await.unwrap(),
            }
        })
    }))
    .await;
    assert!(outcomes.iter().all(Result::is_ok));
    assert_eq!(fixture.number(NOTES).await, 2 * 66, "of 200, two notes each of every third");
    assert_eq!(
        fixture.number("SELECT COUNT(*) FROM notes WHERE CAST(text AS INTEGER) % 3 <> 2").await,
        0
    );
}

#[tokio::test]
async fn when_the_shared_commit_fails_nobody_is_told_success_and_nothing_is_kept() {
    let fixture = Fixture::new().await;
    let first = fixture.writer.begin().await.unwrap();
    let notes: Vec<_> = (0..10)
        .map(|n| {
            let writer = fixture.writer.clone();
            tokio::spawn(async move { note(&writer, &format!("note {n}")).await })
        })
        .collect();
    fixture.wait_until_waiting(10).await;
    let writer = fixture.writer.clone();
    let orphan = tokio::spawn(async move {
        let mut step = writer.begin().await?;
        let sql = "INSERT INTO children (parent) VALUES ('nobody')";
        sqlx::query(sql).execute(&mut *step).await?; // the deferred constraint fails at the commit
        step.commit().await
    });
    fixture.wait_until_waiting(11).await;
    first.commit().await.unwrap_err();

    for note in notes {
        assert!(matches!(note.await.unwrap(), Err(StorageError::Unavailable(_))));
    }
    orphan.await.unwrap().unwrap_err();
    assert_eq!(fixture.number(NOTES).await, 0);

    note(&fixture.writer, "later").await.unwrap();
    assert_eq!(fixture.number(NOTES).await, 1);
}

/// SQLite itself rolls back when the disk is full. The earlier callers' changes must not count as
/// committed.
#[tokio::test]
async fn a_transaction_that_vanished_is_nobodys_success() {
    let fixture = Fixture::new().await;
    let mut first = fixture.writer.begin().await.unwrap();
    sqlx::query("INSERT INTO notes (text) VALUES ('first')").execute(&mut *first).await.unwrap();
    let writer = fixture.writer.clone();
    let second = tokio::spawn(async move {
        let mut step = writer.begin().await?;
        sqlx::query("ROLLBACK").execute(&mut *step).await?; // as SQLite does
        step.commit().await
    });
    fixture.wait_until_waiting(1).await;
    let writer = fixture.writer.clone();
    let third = tokio::spawn(async move { note(&writer, "third").await });
    fixture.wait_until_waiting(2).await;

    first.commit().await.unwrap_err();

    second.await.unwrap().unwrap_err();
    let third = third.await.unwrap();
    assert_eq!(fixture.number(NOTES).await, i64::from(third.is_ok()));
    note(&fixture.writer, "later").await.unwrap();
}

/// Cancels at every await point, after a growing number of polls, alone and among other callers.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_caller_may_go_away_at_any_moment() {
    let fixture = Fixture::new().await;
    for polls in 0..60 {
        let goes_away = |n: usize| {
            let writer = fixture.writer.clone();
            async move {
                let text = format!("{polls} goes away {n}");
                let mut left = polls;
                let mut going = std::pin::pin!(note(&writer, &text));
                std::future::poll_fn(|context| {
                    if left == 0 {
                        return std::task::Poll::Ready(());
                    }
                    left -= 1;
                    let polled = going.as_mut().poll(context).is_ready();
                    if !polled {
                        context.waker().wake_by_ref();
                    }
                    if polled { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
                })
                .await;
            }
        };
        let stays = |n: usize| {
            let writer = fixture.writer.clone();
            async move { note(&writer, &format!("{polls} stays {n}")).await.unwrap() }
        };
        let mut tasks = Vec::new();
        for n in 0..8 {
            tasks.push(tokio::spawn(goes_away(n)));
            tasks.push(tokio::spawn(stays(n)));
        }
        for task in tasks {
            task.await.unwrap();
        }
    }
    let stayed = "SELECT COUNT(*) FROM notes WHERE text LIKE '%stays%'";
    assert_eq!(fixture.number(stayed).await, 60 * 8);
    note(&fixture.writer, "the writer is usable").await.unwrap();
}

#[tokio::test]
async fn a_step_waits_for_no_caller_that_has_left_the_queue() {
    let fixture = Fixture::new().await;
    let mut step = fixture.writer.begin().await.unwrap();
    sqlx::query("INSERT INTO notes (text) VALUES ('x')").execute(&mut *step).await.unwrap();
    let writer = fixture.writer.clone();
    let follower = tokio::spawn(async move { writer.begin().await.map(drop) });
    fixture.wait_until_waiting(1).await;
    let committed = tokio::spawn(step.commit());
    follower.abort();
    committed.await.unwrap().unwrap();
    assert_eq!(fixture.number(NOTES).await, 1);
}

#[tokio::test]
async fn turns_are_taken_in_the_order_of_arrival() {
    let fixture = Fixture::new().await;
    let first = fixture.writer.begin().await.unwrap();
    let mut notes = Vec::new();
    for n in 0..200 {
        let writer = fixture.writer.clone();
        notes.push(tokio::spawn(async move { note(&writer, &format!("{n}")).await }));
        fixture.wait_until_waiting(n + 1).await;
    }
    first.commit().await.unwrap();
    for note in notes {
        note.await.unwrap().unwrap();
    }
    let out_of_order = "SELECT COUNT(*) FROM notes a JOIN notes b ON a.place < b.place
                        WHERE CAST(a.text AS INTEGER) > CAST(b.text AS INTEGER)";
    assert_eq!(fixture.number(out_of_order).await, 0);
}

#[tokio::test]
async fn the_queue_is_bounded_and_reads_do_not_stand_in_it() {
    let fixture = Fixture::new().await;
    let step = fixture.writer.begin().await.unwrap();
    let waiting: Vec<_> = (0..QUEUE)
        .map(|n| {
            let writer = fixture.writer.clone();
            tokio::spawn(async move { note(&writer, &format!("{n}")).await })
        })
        .collect();
    fixture.wait_until_waiting(QUEUE).await;

    assert!(matches!(fixture.writer.begin().await, Err(StorageError::Busy)));

    assert_eq!(fixture.number(NOTES).await, 0, "a read is answered meanwhile");
    for task in &waiting {
        task.abort();
    }
    step.commit().await.unwrap();
    note(&fixture.writer, "later").await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_given_up_steps_keeps_no_commit_waiting() {
    let fixture = Fixture::new().await;
    let flood: Vec<_> = (0..8)
        .map(|_| {
            let writer = fixture.writer.clone();
            tokio::spawn(async move {
                loop {
                    drop(writer.begin().await);
                }
            })
        })
        .collect();
    for n in 0..20 {
        note(&fixture.writer, &format!("{n}")).await.unwrap();
    }
    for task in flood {
        task.abort();
    }
}

/// Returns the number of pages in the WAL, and how many of them are checkpointed.
fn log_of(fixture: &Fixture) -> (i64, i64) {
    let here = rusqlite::Connection::open(fixture.folder.join("test.db")).unwrap();
    // NOOP only reads the state.
    here.query_row("PRAGMA wal_checkpoint(NOOP)", [], |row| Ok((row.get(1)?, row.get(2)?))).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_wal_is_checkpointed_while_steps_go_on() {
    let fixture = Fixture::new().await;
    let mut written = 0;

    let (pages, checkpointed) = loop {
        note(&fixture.writer, &format!("note {written}")).await.unwrap();
        written += 1;
        let (pages, checkpointed) = if written % 100 == 0 { log_of(&fixture) } else { (0, 0) };
        if checkpointed > 0 {
            break (pages, checkpointed);
        }
        assert!(written < 50_000, "the WAL is never checkpointed");
    };

    assert!(
        checkpointed <= pages && pages < 8192,
        "{checkpointed} of {pages}: a commit did not do it"
    );
    fixture.writer.close(false).await;
    note(&fixture.writer, "another").await.unwrap();
    assert_eq!(fixture.number(NOTES).await, written + 1);
}
