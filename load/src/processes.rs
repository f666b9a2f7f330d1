//! Processor time and memory of servers, read from `/proc`: of a process with all its descendants, whichever
//! process group they are in (each process of PostgreSQL leads one of its own).

use std::collections::{BTreeMap, HashMap};

use crate::http::Failure;

/// Clock ticks a second in `/proc/PID/stat`: the same on every architecture on which we measure.
const TICKS_PER_SECOND: u64 = 100;

/// `NAME=PID`: processor time of this process, with its descendants, counts for NAME.
#[derive(Clone, Debug)]
pub struct Watched {
    name: String,
    pid: u32,
}

/// Processor time by name, in clock ticks.
pub struct ProcessorTime(BTreeMap<String, u64>);

/// One line of `/proc/PID/stat`.
struct Stat {
    parent: u32,
    /// Clock ticks of the process, and of children that ended and were waited for.
    ticks: u64,
}

impl std::str::FromStr for Watched {
    type Err = Failure;

    fn from_str(text: &str) -> Result<Self, Failure> {
        let split = text.split_once('=').and_then(|(name, pid)| Some((name, pid.parse().ok()?)));
        let (name, pid) = split.ok_or_else(|| format!("{text} is not NAME=PID"))?;
        Ok(Self { name: name.to_owned(), pid })
    }
}

impl ProcessorTime {
    /// Reads what `watched` and this process (as "load") have used until now.
    pub fn now(watched: &[Watched]) -> Self {
        let stats = stats();
        let own = Watched { name: "load".to_owned(), pid: std::process::id() };
        let mut by_name = BTreeMap::new();
        for Watched { name, pid } in watched.iter().chain([&own]) {
            let pids = with_descendants(&stats, *pid);
            let used: u64 = pids.iter().map(|pid| stats[pid].ticks).sum();
            *by_name.entry(name.clone()).or_default() += used;
        }
        Self(by_name)
    }

    /// Returns what each name has used since `before`, in microseconds.
    pub fn since(&self, before: &Self) -> BTreeMap<String, u64> {
        let used = self.0.iter().map(|(name, ticks)| {
            let ticks = ticks.saturating_sub(before.0.get(name).copied().unwrap_or(0));
            (name.clone(), ticks * 1_000_000 / TICKS_PER_SECOND)
        });
        used.collect()
    }
}

/// Returns the resident memory of a process and its descendants, in KiB.
pub fn resident_kib(pid: u32) -> Option<u64> {
    let stats = stats();
    let group = with_descendants(&stats, pid);
    let sizes = group.iter().filter_map(|pid| resident_kib_of_one(*pid));
    (!group.is_empty()).then(|| sizes.sum())
}

fn resident_kib_of_one(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

/// Reads every process; one that ends meanwhile is left out.
fn stats() -> HashMap<u32, Stat> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let read = pids.filter_map(|pid: u32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        Some((pid, parse(&stat)?))
    });
    read.collect()
}

fn parse(stat: &str) -> Option<Stat> {
    // The second field is the name, in parentheses, and may contain anything.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let number = |at: usize| fields.get(at)?.parse::<u64>().ok();
    let ticks = number(11)? + number(12)? + number(13)? + number(14)?;
    Some(Stat { parent: fields.get(1)?.parse().ok()?, ticks })
}

/// Returns the process, if it is there, and all processes below it.
fn with_descendants(stats: &HashMap<u32, Stat>, pid: u32) -> Vec<u32> {
    let mut found = Vec::from_iter(stats.contains_key(&pid).then_some(pid));
    let mut at = 0;
    while let Some(parent) = found.get(at).copied() {
        found.extend(stats.iter().filter(|(_, stat)| stat.parent == parent).map(|(pid, _)| *pid));
        at += 1;
    }
    found
}
