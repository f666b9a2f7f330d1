//! The names of tools that have counters of their own. Clients may make names up, so their number is bounded.

use std::collections::{HashMap, HashSet};

use parking_lot::Mutex as Lock;

/// Most names of tools of one MCP server that answered a call, or that the configuration names: 512.
const MOST_PROVEN: usize = 512;
/// Most other names of tools of one MCP server in a day: 64. Clients may make them up.
const MOST_UNPROVEN: usize = 64;
/// Longest name of a tool that is kept, in bytes. MCP allows 128 characters.
const LONGEST_NAME: usize = 128;

/// The names of one MCP server.
#[derive(Default)]
struct NamesOfServer {
    /// Names that answered a call or that the configuration has. Nobody can push them out by making names up.
    proven: HashSet<String>,
    unproven: HashSet<String>,
    /// The day that `unproven` is about.
    day: i64,
}

/// The names of tools of each MCP server that have counters of their own.
#[derive(Default)]
pub(super) struct ToolNames(Lock<HashMap<String, NamesOfServer>>);

impl ToolNames {
    /// Returns whether a tool gets a counter under its own name.
    pub(super) fn admits(&self, resource: &str, name: &str, is_configured: bool, day: i64) -> bool {
        if name.is_empty() || name.len() > LONGEST_NAME || name.chars().any(char::is_control) {
            return false;
        }
        let mut all = self.0.lock();
        let names = match all.get_mut(resource) {
            Some(names) => names,
            None => all.entry(resource.to_owned()).or_default(),
        };
        if names.proven.contains(name) {
            return true;
        }
        if is_configured && names.proven.len() < MOST_PROVEN {
            return names.proven.insert(name.to_owned());
        }
        if names.day != day {
            *names = NamesOfServer {
                day,
                proven: std::mem::take(&mut names.proven),
                ..NamesOfServer::default()
            };
        }
        if names.unproven.contains(name) {
            return true;
        }
        names.unproven.len() < MOST_UNPROVEN && names.unproven.insert(name.to_owned())
    }

    /// Gives a tool that answered a call a counter of its own from now on.
    pub(super) fn prove(&self, resource: &str, name: &str) {
        if name.is_empty() || name.len() > LONGEST_NAME || name.chars().any(char::is_control) {
            return;
        }
        let mut all = self.0.lock();
        if let Some(names) = all.get_mut(resource)
            && names.proven.len() < MOST_PROVEN
            && !names.proven.contains(name)
        {
            names.unproven.remove(name);
            names.proven.insert(name.to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn made_up_names_have_a_bound_that_working_tools_do_not_share() {
        let names = ToolNames::default();
        let made_up = (0..10_000).filter(|n| names.admits("r", &format!("x{n}"), false, 1));
        assert_eq!(made_up.count(), MOST_UNPROVEN);
        assert!(names.admits("r", "x1", false, 1), "a name that has a counter keeps it");
        assert!(!names.admits("r", "real", false, 1));
        names.prove("r", "real");
        assert!(names.admits("r", "real", false, 1), "it answered a call");
        assert!(names.admits("r", "configured", true, 1));
        assert!(names.admits("other", "y", false, 1), "another server has a bound of its own");
        assert!(names.admits("r", "tomorrow", false, 2));
        assert!(names.admits("r", "real", false, 2));
        for n in 0..10_000 {
            names.prove("r", &format!("p{n}"));
        }
        assert_eq!(names.0.lock()["r"].proven.len(), MOST_PROVEN);
        for unfit in ["", "a\nb", "a\u{7f}", &"x".repeat(LONGEST_NAME + 1)] {
            assert!(!names.admits("r", unfit, true, 3), "{unfit:?}");
        }
    }
}
