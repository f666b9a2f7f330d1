//! `portcullis config show`, and loading the configuration for the other commands.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use super::{ConfigFile, fail, output};
use crate::config::{Config, Loaded, Problem, Problems, Unread, text_of};

/// Largest configuration file, in bytes: 4 MiB.
const LARGEST: u64 = 4 << 20;
/// File that is read if none is named.
const DEFAULT_FILE: &str = "portcullis.toml";

/// Loads the configuration from the environment and the named file, or the default file if it exists.
pub(super) fn load(file: &ConfigFile) -> Result<Loaded, String> {
    read(path(file).as_deref()).map_err(|problems| problems.to_string())
}

/// Returns the path to read: the named file, or the default one if it exists.
pub(super) fn path(file: &ConfigFile) -> Option<PathBuf> {
    file.config
        .clone()
        .or_else(|| Path::new(DEFAULT_FILE).exists().then(|| PathBuf::from(DEFAULT_FILE)))
}

/// Reads exactly this file, if any, and the environment.
pub(super) fn read(path: Option<&Path>) -> Result<Loaded, Problems> {
    let text = path.map(|path| text_of(path, LARGEST)).transpose().map_err(|unread| {
        let (reason, hint) = match unread {
            Unread::Failed(cause) => {
                (format!("cannot be read: {cause}"), "check the path and its permissions")
            }
            Unread::TooLarge => (
                format!("is larger than {} MiB", LARGEST >> 20),
                "check the path; a configuration of 10,000 rules takes about 1 MiB",
            ),
        };
        let key = path.map(|path| path.display().to_string()).unwrap_or_default();
        Problems(vec![Problem { key, value: None, reason, hint: hint.to_owned() }])
    })?;
    let environment: BTreeMap<String, String> = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect();
    Config::load(path.zip(text), &environment)
}

/// Prints the merged configuration.
pub(super) fn show(file: &ConfigFile) -> ExitCode {
    match load(file) {
        Ok(loaded) => {
            if let Err(cause) = output::print(&loaded.show()) {
                return fail(&cause);
            }
            for warning in &loaded.warnings {
                let _ = fail(warning);
            }
            ExitCode::SUCCESS
        }
        Err(problems) => fail(&problems),
    }
}
