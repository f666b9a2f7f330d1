//! Everything the server logs during the test run, at the finest level, kept for inspection.

use std::io::Write;
use std::sync::{Mutex, OnceLock};

use tracing_subscriber::fmt::MakeWriter;

static LINES: Mutex<Vec<u8>> = Mutex::new(Vec::new());

/// Starts keeping. The subscriber is the process's; tests share the lines.
pub(crate) fn install() {
    static ONCE: OnceLock<()> = OnceLock::new();
    ONCE.get_or_init(|| {
        portcullis::telemetry::log_throttle::limit_per_thread();
        let filter = tracing_subscriber::EnvFilter::new("warn,portcullis=trace");
        tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false).with_writer(Keep).init();
    });
}

/// All lines so far.
pub(crate) fn all() -> String {
    String::from_utf8_lossy(&LINES.lock().unwrap()).into_owned()
}

struct Keep;

impl Write for Keep {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        LINES.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Keep {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        Self
    }
}
