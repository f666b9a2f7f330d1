//! A bounded queue of lines for standard error, and the thread that writes them.
//!
//! Standard error is a pipe, a file or a socket that other programs control: the disk may be full, the reader
//! gone or blocked. None of that may delay a request or end the process. A line that does not fit into the
//! queue, or that cannot be written, is dropped and counted. As soon as lines can be written again, one says
//! how many were lost.
//!
//! Waking a thread costs a request more than everything else about its line. So after writing, the thread
//! pauses for 5 milliseconds, and then writes what has come meanwhile.

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
/// Most bytes that are written with one call, unless a single line is longer: 4096. A pipe takes as many at
/// once, so that lines of several writers do not mix.
const TOGETHER: usize = 4096;
/// How long lines gather after others were written: 5 ms.
const GATHER: Duration = Duration::from_millis(5);
/// How long to wait before writing again to an output that would block, and how often to try to report lost
/// lines.
const AGAIN: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));
/// How long shutdown waits for the lines in the queue.
const AT_THE_END: Duration = Duration::from_secs(1);

static QUEUE: LineQueue = LineQueue::new();
static WRITING: AtomicBool = AtomicBool::new(false);
static TOLD: LogThrottle = LogThrottle::new();

thread_local! {
    /// Whether this thread is the writer thread.
    static WRITES: Cell<bool> = const { Cell::new(false) };
    /// Lines that the writer thread itself logs. They bypass the queue, which may be full.
    static OWN: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

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

struct LineQueue {
    waiting: Mutex<WaitingLines>,
    arrived: Condvar,
    written: Condvar,
    full: AtomicU64,
    failed: AtomicU64,
    /// Lost lines that were not reported yet.
    untold: AtomicU64,
}

struct WaitingLines {
    lines: VecDeque<Vec<u8>>,
    bytes: usize,
    /// Lines were taken out and are being written.
    writes: bool,
}

/// Lines that are written with one call.
#[derive(Default)]
struct Batch {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Batch {
    fn add(&mut self, line: &[u8]) {
        self.bytes.extend_from_slice(line);
        self.ends.push(self.bytes.len());
    }

    fn has_room_for(&self, line: &[u8]) -> bool {
        self.ends.is_empty() || self.bytes.len() + line.len() <= TOGETHER
    }
}

impl LineQueue {
    const fn new() -> Self {
        let waiting = WaitingLines { lines: VecDeque::new(), bytes: 0, writes: false };
        let (arrived, written) = (Condvar::new(), Condvar::new());
        let [full, failed, untold] = [const { AtomicU64::new(0) }; 3];
        Self { waiting: Mutex::new(waiting), arrived, written, full, failed, untold }
    }

    fn waiting(&self) -> MutexGuard<'_, WaitingLines> {
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

    fn flush(&self, timeout: Duration) -> bool {
        let is_busy = |waiting: &mut WaitingLines| waiting.writes || !waiting.lines.is_empty();
        let mut waiting = self.waiting();
        !self.written.wait_while_for(&mut waiting, is_busy, timeout).timed_out()
    }

    /// Waits for the next lines. Returns `None` if none came for a second and lost lines are to be reported.
    fn next(&self) -> Option<Batch> {
        let mut waiting = self.waiting();
        waiting.writes = false;
        if waiting.lines.is_empty() {
            self.written.notify_all();
        }
        loop {
            let mut batch = Batch::default();
            while let Some(line) = waiting.lines.pop_front_if(|line| batch.has_room_for(line)) {
                waiting.bytes -= line.len();
                batch.add(&line);
            }
            if !batch.ends.is_empty() {
                waiting.writes = true;
                return Some(batch);
            }
            let waited = self.arrived.wait_for(&mut waiting, AGAIN.1);
            if waited.timed_out() && self.untold.load(Ordering::Relaxed) > 0 {
                return None;
            }
        }
    }

    /// Pauses if all lines are written. While this thread does not wait for lines, a line that comes wakes
    /// nobody.
    fn gather(&self) {
        let mut waiting = self.waiting();
        waiting.writes = false;
        if waiting.lines.is_empty() {
            self.written.notify_all();
            drop(waiting);
            std::thread::park_timeout(GATHER);
        }
    }

    /// Writes lines; never returns.
    fn write_to(&self, out: &mut dyn Write) {
        let mut torn = false;
        loop {
            let wrote = match self.next() {
                Some(batch) => self.write(out, &batch, &mut torn),
                None => true, // try to write the report
            };
            if wrote && self.untold.load(Ordering::Relaxed) > 0 && TOLD.admit().is_some() {
                self.tell(out, &mut torn);
            }
            self.gather();
        }
    }

    /// Writes lines. Loses each line that breaks off, and goes on with the one after it. Returns whether
    /// the last one was written.
    fn write(&self, out: &mut dyn Write, batch: &Batch, torn: &mut bool) -> bool {
        let mut start = 0;
        while let Some(rest) = batch.bytes.get(start..).filter(|rest| !rest.is_empty()) {
            let Err(written) = write_whole(out, rest, torn) else { return true };
            self.lose(&self.failed, 1);
            let at = start + written;
            if written > 0 {
                *torn = !batch.ends.contains(&at);
            }
            start = batch.ends.iter().copied().find(|end| *end > at).unwrap_or(batch.bytes.len());
        }
        false
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

/// Writes whole lines. `torn` is set while the output ends in an incomplete line; a line feed then comes
/// first. If the output fails, returns how many bytes of the lines it took.
fn write_whole(out: &mut dyn Write, lines: &[u8], torn: &mut bool) -> Result<(), usize> {
    let ended = if *torn { &b"\n"[..] } else { &[] };
    for piece in [ended, lines] {
        let (mut rest, mut written) = (piece, 0);
        while !rest.is_empty() {
            match out.write(rest) {
                Ok(0) => return Err(written),
                Ok(length) => {
                    rest = rest.get(length..).unwrap_or_default();
                    written += length;
                    *torn = true;
                }
                Err(cause) if cause.kind() == ErrorKind::Interrupted => {}
                // Another program that shares the output made it non-blocking: it is full, not broken. The
                // standard library cannot wait until it is writable.
                Err(cause) if cause.kind() == ErrorKind::WouldBlock => {
                    std::thread::park_timeout(AGAIN.0);
                }
                Err(_) => return Err(written),
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
        let queue = LineQueue::new();
        let long = "x".repeat(ROOM / 4);
        for _ in 0..10 {
            queue.push(line(&long));
        }
        assert_eq!(queue.waiting().lines.len(), 3);
        assert_eq!(queue.full.load(Ordering::Relaxed), 7);
        assert!(queue.next().is_some());
        queue.push(line("short"));
        assert_eq!(queue.waiting().lines.len(), 3);

        let queue = LineQueue::new();
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

    fn batch(lines: &[&str]) -> Batch {
        let mut batch = Batch::default();
        for text in lines {
            batch.add(&line(text));
        }
        batch
    }

    #[test]
    fn a_line_that_broke_off_ends_before_the_next_one() {
        let written_at_once: [&[&[&str]]; 4] = [
            &[&["first"], &["second"], &["third"]],
            &[&["first", "second", "third"]],
            &[&["first", "second"], &["third"]],
            &[&["first"], &["second", "third"]],
        ];
        for batches in written_at_once {
            let (queue, mut torn) = (LineQueue::new(), false);
            let kind = ErrorKind::StorageFull;
            let mut out = Fails { taken: Vec::new(), room: 8, kind };
            for lines in batches {
                let broke_off = lines.last() == Some(&"second");
                assert_eq!(queue.write(&mut out, &batch(lines), &mut torn), !broke_off);
            }
            assert_eq!(String::from_utf8(out.taken).unwrap(), "first\nse\nthird\n");
            assert_eq!(queue.failed.load(Ordering::Relaxed), 1);
        }
    }

    #[test]
    fn a_line_that_was_not_begun_is_lost_without_a_trace() {
        let (queue, mut torn) = (LineQueue::new(), false);
        let mut out = Fails { taken: Vec::new(), room: 6, kind: ErrorKind::StorageFull };
        assert!(queue.write(&mut out, &batch(&["first", "second", "third"]), &mut torn));
        assert_eq!(String::from_utf8(out.taken).unwrap(), "first\nthird\n");
        assert_eq!(queue.failed.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn lines_are_written_together_up_to_what_a_pipe_takes_at_once() {
        let queue = LineQueue::new();
        let lengths = [1000, 2000, 1000, 97, 1, 5000, 1, 4096];
        for length in lengths {
            queue.push(line(&"x".repeat(length - 1)));
        }
        let batches: Vec<usize> = (0..5).map(|_| queue.next().unwrap().bytes.len()).collect();
        assert_eq!(batches, [4000, 98, 5000, 1, 4096]);
        assert_eq!(queue.waiting().bytes, 0);
    }

    #[test]
    fn an_output_that_takes_nothing_for_a_moment_gets_the_whole_line() {
        for kind in [ErrorKind::WouldBlock, ErrorKind::Interrupted] {
            let (queue, mut torn) = (LineQueue::new(), false);
            let mut out = Fails { taken: Vec::new(), room: 3, kind };
            assert!(queue.write(&mut out, &batch(&["whole", "too"]), &mut torn));
            assert_eq!(out.taken, b"whole\ntoo\n");
        }
    }

    #[test]
    fn flush_waits_for_what_is_written_and_not_for_ever() {
        let queue = LineQueue::new();
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
