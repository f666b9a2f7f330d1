//! A bounded queue of lines for standard error, and the thread that writes them.
//!
//! Standard error is a pipe, a file or a socket that other programs control: the disk may be full, the reader
//! gone or blocked. None of that may delay a request or end the process. A line that does not fit into the
//! queue, or that cannot be written, is dropped and counted. As soon as lines can be written again, one says
//! how many were lost.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io::{self, ErrorKind, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use super::log_throttle::LogThrottle;
use parking_lot::{Condvar, Mutex, MutexGuard};

/// Most bytes of lines in the queue: 1 MiB. An empty queue accepts a line of any length.
const ROOM: usize = 1 << 20;
/// How long to wait before writing again to an output that would block, and how often to try to report lost
/// lines.
const AGAIN: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));
/// How long shutdown waits for the lines in the queue.
const AT_THE_END: Duration = Duration::from_secs(1);

static QUEUE: Queue = Queue::new();
static WRITING: AtomicBool = AtomicBool::new(false);
static TOLD: LogThrottle = LogThrottle::new();

thread_local! {
    /// Whether this thread is the writer thread.
    static WRITES: Cell<bool> = const { Cell::new(false) };
    /// Lines that the writer thread itself logs. They bypass the queue, which may be full.
    static OWN: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Starts the writer thread.
pub(super) fn start() {
    if WRITING.swap(true, Ordering::SeqCst) {
        return;
    }
    let mut out = standard_error();
    let writing = move || {
        WRITES.set(true);
        loop {
            // A panic while writing one line must not end the log.
            let _ = catch_unwind(AssertUnwindSafe(|| QUEUE.write_to(&mut *out)));
        }
    };
    if std::thread::Builder::new().name("log".to_owned()).spawn(writing).is_err() {
        WRITING.store(false, Ordering::SeqCst); // each thread writes its own lines
    }
}

/// Queues a line without waiting, or drops it if the queue is full. Without a writer thread, writes it
/// directly.
pub(super) fn push(line: Vec<u8>) {
    if WRITES.get() {
        OWN.with_borrow_mut(|own| own.extend_from_slice(&line));
    } else if WRITING.load(Ordering::Relaxed) {
        QUEUE.push(line);
    } else if io::stderr().write_all(&line).is_err() {
        QUEUE.lose(&QUEUE.failed, 1);
    }
}

/// Waits up to a second until all lines are written; returns `false` if some are not.
pub fn flush() -> bool {
    !WRITING.load(Ordering::Relaxed) || QUEUE.flush(AT_THE_END)
}

/// Returns how many lines were lost so far: because the queue was full, and because they could not be
/// written.
pub(super) fn lost() -> (u64, u64) {
    (QUEUE.full.load(Ordering::Relaxed), QUEUE.failed.load(Ordering::Relaxed))
}

/// Returns standard error without the lock of the standard library: if the writer thread blocked while it
/// held that lock, other code that writes to standard error would block too.
fn standard_error() -> Box<dyn Write + Send> {
    #[cfg(unix)]
    {
        use std::os::fd::AsFd as _;
        if let Ok(own) = io::stderr().as_fd().try_clone_to_owned() {
            return Box::new(std::fs::File::from(own));
        }
    }
    Box::new(io::stderr())
}

struct Queue {
    waiting: Mutex<Waiting>,
    arrived: Condvar,
    written: Condvar,
    full: AtomicU64,
    failed: AtomicU64,
    /// Lost lines that were not reported yet.
    untold: AtomicU64,
}

struct Waiting {
    lines: VecDeque<Vec<u8>>,
    bytes: usize,
    /// A line was taken out and is being written.
    writes: bool,
}

impl Queue {
    const fn new() -> Self {
        let waiting = Waiting { lines: VecDeque::new(), bytes: 0, writes: false };
        let (arrived, written) = (Condvar::new(), Condvar::new());
        let [full, failed, untold] = [const { AtomicU64::new(0) }; 3];
        Self { waiting: Mutex::new(waiting), arrived, written, full, failed, untold }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock()
    }

    fn push(&self, line: Vec<u8>) {
        let mut waiting = self.waiting();
        if !waiting.lines.is_empty() && waiting.bytes + line.len() > ROOM {
            drop(waiting);
            self.lose(&self.full, 1);
            return;
        }
        waiting.bytes += line.len();
        waiting.lines.push_back(line);
        drop(waiting);
        self.arrived.notify_one();
    }

    fn lose(&self, why: &AtomicU64, lines: u64) {
        why.fetch_add(lines, Ordering::Relaxed);
        self.untold.fetch_add(lines, Ordering::Relaxed);
    }

    fn flush(&self, patience: Duration) -> bool {
        let is_busy = |waiting: &mut Waiting| waiting.writes || !waiting.lines.is_empty();
        let mut waiting = self.waiting();
        !self.written.wait_while_for(&mut waiting, is_busy, patience).timed_out()
    }

    /// Waits for the next line. Returns `None` if none came for a second and lost lines are to be reported.
    fn next(&self) -> Option<Vec<u8>> {
        let mut waiting = self.waiting();
        waiting.writes = false;
        if waiting.lines.is_empty() {
            self.written.notify_all();
        }
        loop {
            if let Some(line) = waiting.lines.pop_front() {
                waiting.bytes -= line.len();
                waiting.writes = true;
                return Some(line);
            }
            let waited = self.arrived.wait_for(&mut waiting, AGAIN.1);
            if waited.timed_out() && self.untold.load(Ordering::Relaxed) > 0 {
                return None;
            }
        }
    }

    /// Writes lines; never returns.
    fn write_to(&self, out: &mut dyn Write) {
        let mut torn = false;
        loop {
            let wrote = match self.next() {
                Some(line) => self.write(out, &line, &mut torn),
                None => true, // try to write the report
            };
            if wrote && self.untold.load(Ordering::Relaxed) > 0 && TOLD.admit().is_some() {
                self.tell(out, &mut torn);
            }
        }
    }

    fn write(&self, out: &mut dyn Write, line: &[u8], torn: &mut bool) -> bool {
        let written = write_whole(out, line, torn);
        if written.is_err() {
            self.lose(&self.failed, 1);
        }
        written.is_ok()
    }

    /// Reports how many lines were lost.
    fn tell(&self, out: &mut dyn Write, torn: &mut bool) {
        let lost = self.untold.swap(0, Ordering::Relaxed);
        tracing::error!(
            lost,
            "lines of the log were lost: they came too fast or could not be written"
        );
        let line = OWN.take();
        if write_whole(out, &line, torn).is_err() {
            self.untold.fetch_add(lost, Ordering::Relaxed);
        }
    }
}

/// Writes a whole line. `torn` is set while the output ends in an incomplete line; a line feed then comes
/// first.
fn write_whole(out: &mut dyn Write, line: &[u8], torn: &mut bool) -> io::Result<()> {
    let ended = if *torn { &b"\n"[..] } else { &[] };
    for piece in [ended, line] {
        let mut rest = piece;
        while !rest.is_empty() {
            match out.write(rest) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(length) => {
                    rest = rest.get(length..).unwrap_or_default();
                    *torn = true;
                }
                Err(cause) if cause.kind() == ErrorKind::Interrupted => {}
                // Another program that shares the output made it non-blocking: it is full, not broken. The
                // standard library cannot wait until it is writable.
                Err(cause) if cause.kind() == ErrorKind::WouldBlock => {
                    std::thread::park_timeout(AGAIN.0);
                }
                Err(cause) => return Err(cause),
            }
        }
    }
    *torn = false;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: &str) -> Vec<u8> {
        format!("{text}\n").into_bytes()
    }

    #[test]
    fn a_full_queue_drops_what_comes_last_and_counts_it() {
        let queue = Queue::new();
        let long = "x".repeat(ROOM / 4);
        for _ in 0..10 {
            queue.push(line(&long));
        }
        assert_eq!(queue.waiting().lines.len(), 3);
        assert_eq!(queue.full.load(Ordering::Relaxed), 7);
        assert!(queue.next().is_some());
        queue.push(line("short"));
        assert_eq!(queue.waiting().lines.len(), 3);

        let queue = Queue::new();
        queue.push(line(&"x".repeat(2 * ROOM))); // limits.log_line may be that long
        queue.push(line("short"));
        assert_eq!((queue.waiting().lines.len(), queue.full.load(Ordering::Relaxed)), (1, 1));
    }

    /// Accepts `room` bytes, then fails once with `kind`, then accepts everything.
    struct Fails {
        taken: Vec<u8>,
        room: usize,
        kind: ErrorKind,
    }

    impl Write for Fails {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if self.room == 0 {
                self.room = usize::MAX; // the disk has room again, the reader goes on
                return Err(self.kind.into());
            }
            let length = bytes.len().min(self.room);
            self.room -= length;
            self.taken.extend_from_slice(&bytes[..length]);
            Ok(length)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_line_that_broke_off_ends_before_the_next_one() {
        let (queue, mut torn) = (Queue::new(), false);
        let kind = ErrorKind::StorageFull;
        let mut out = Fails { taken: Vec::new(), room: 8, kind };
        assert!(queue.write(&mut out, b"first\n", &mut torn));
        assert!(!queue.write(&mut out, b"second\n", &mut torn));
        assert!(queue.write(&mut out, b"third\n", &mut torn));
        assert_eq!(String::from_utf8(out.taken).unwrap(), "first\nse\nthird\n");
        assert_eq!(queue.failed.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn an_output_that_takes_nothing_for_a_moment_gets_the_whole_line() {
        for kind in [ErrorKind::WouldBlock, ErrorKind::Interrupted] {
            let (queue, mut torn) = (Queue::new(), false);
            let mut out = Fails { taken: Vec::new(), room: 3, kind };
            assert!(queue.write(&mut out, b"whole\n", &mut torn));
            assert_eq!(out.taken, b"whole\n");
        }
    }

    #[test]
    fn flush_waits_for_what_is_written_and_not_for_ever() {
        let queue = Queue::new();
        assert!(queue.flush(Duration::ZERO));
        queue.push(line("one"));
        assert!(!queue.flush(Duration::ZERO));
        assert!(queue.next().is_some());
        assert!(!queue.flush(Duration::ZERO), "it is taken out, and not written yet");
        queue.lose(&queue.full, 1);
        assert!(queue.next().is_none());
        assert!(queue.flush(Duration::ZERO));
    }
}
