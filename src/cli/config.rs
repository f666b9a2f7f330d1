//! `portcullis config show`, and loading for the other commands.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use super::{ConfigFile, fail};
use crate::config::{Config, Loaded};

/// The file that is read when none is named.
const DEFAULT_FILE: &str = "portcullis.toml";

/// Loads the configuration from the named file, or the default one if it exists, and the environment.
pub(super) fn load(file: &ConfigFile) -> Result<Loaded, String> {
    let path = file
        .config
        .clone()
        .or_else(|| Path::new(DEFAULT_FILE).exists().then(|| PathBuf::from(DEFAULT_FILE)));
    let text = match &path {
        Some(path) => Some(
            std::fs::read_to_string(path)
                .map_err(|cause| format!("{} cannot be read: {cause}", path.display()))?,
        ),
        None => None,
    };
    let environment: BTreeMap<String, String> = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect();
    Config::load(path.as_deref().zip(text), &environment).map_err(|problems| problems.to_string())
}

/// Prints the merged configuration.
pub(super) fn show(file: &ConfigFile) -> ExitCode {
    match load(file) {
        Ok(loaded) => {
            #[expect(clippy::print_stdout, reason = "this is the command's output")]
            {
                print!("{}", loaded.show());
            }
            for warning in &loaded.warnings {
                let _ = fail(warning);
            }
            ExitCode::SUCCESS
        }
        Err(problems) => fail(&problems),
    }
}
