//! Metrics of the process itself, with the names that all Prometheus exporters use.

use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::clock::Clock;

pub(super) struct Process {
    resident: Gauge,
    open_files: Gauge,
    most_files: Gauge,
}

impl Process {
    pub(super) fn register(r: &mut Registry) -> Self {
        let mut gauge = |name: &str, help: &str| {
            let gauge: Gauge = Gauge::default();
            r.register(name, help, gauge.clone());
            gauge
        };
        let help = "When the process started, Unix seconds";
        gauge("process_start_time_seconds", help).set(Clock::System.now().unix());
        Self {
            resident: gauge("process_resident_memory_bytes", "Memory in use"),
            open_files: gauge("process_open_fds", "Open files"),
            most_files: gauge("process_max_fds", "How many files may be open"),
        }
    }

    /// Updates the metrics. Without `/proc`, memory and open files stay unknown.
    pub(super) fn set(&self) {
        const KIB: i64 = 1024;
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let resident = status.lines().find_map(|line| {
            line.strip_prefix("VmRSS:")?.trim().strip_suffix("kB")?.trim().parse().ok()
        });
        if let Some(resident) = resident.and_then(|kib: i64| kib.checked_mul(KIB)) {
            self.resident.set(resident);
        }
        if let Ok(files) = std::fs::read_dir("/proc/self/fd") {
            self.open_files.set(i64::try_from(files.count()).unwrap_or(i64::MAX));
        }
        if let Ok((soft, _)) = rlimit::Resource::NOFILE.get() {
            self.most_files.set(i64::try_from(soft).unwrap_or(i64::MAX));
        }
    }
}
