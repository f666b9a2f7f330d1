//! The commands as a whole: `--help` in groups, completion scripts, and man pages.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Command, CommandFactory as _};
use clap_complete::Shell;

use super::{Arguments, fail, output};

/// The commands as `--help` groups them.
const GROUPS: &[(&str, &[&str])] = &[
    ("Run", &["demo", "serve", "bridge", "ready"]),
    ("Set up", &["check", "explain", "doctor", "config", "notify"]),
    ("Manage", &["clients", "grants", "connections", "people", "usage", "keys", "audit"]),
    ("Maintain", &["backup", "clock", "completions", "man"]),
];
/// A heading, as clap styles its own. Without a terminal clap removes the style.
const HEADING: &str = "\u{1b}[1m\u{1b}[4m";
const END: &str = "\u{1b}[0m";

#[derive(clap::Args)]
pub(super) struct CompletionArguments {
    /// The shell
    #[arg(value_name = "SHELL")]
    shell: Shell,
}

#[derive(clap::Args)]
pub(super) struct ManArguments {
    /// The folder to write to; it must exist
    #[arg(value_name = "DIR")]
    folder: PathBuf,
}

/// Returns the definition of all commands, with their help.
pub fn command() -> Command {
    let command = tidy(Arguments::command());
    let groups = groups(&command);
    command.help_template(format!(
        "{{about-with-newline}}\n{{usage-heading}} {{usage}}\n{groups}\n\
         {HEADING}Options:{END}\n{{options}}{{after-help}}"
    ))
}

/// Leaves out defaults that say nothing: `[default: ""]`.
fn tidy(command: Command) -> Command {
    command
        .mut_args(|arg| {
            let defaults = arg.get_default_values();
            let is_empty = !defaults.is_empty() && defaults.iter().all(|value| value.is_empty());
            if is_empty { arg.hide_default_value(true) } else { arg }
        })
        .mut_subcommands(tidy)
}

fn groups(command: &Command) -> String {
    let width = command.get_subcommands().map(|one| one.get_name().len()).max().unwrap_or(0);
    let mut text = String::new();
    for (heading, names) in GROUPS {
        let _ = writeln!(text, "\n{HEADING}{heading}:{END}");
        for name in *names {
            let about = command.find_subcommand(name).and_then(Command::get_about);
            let about = about.map(ToString::to_string).unwrap_or_default();
            let _ = writeln!(text, "  {name:width$}  {about}");
        }
    }
    text
}

pub(super) fn completions(arguments: &CompletionArguments) -> ExitCode {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut command(), "portcullis", &mut script);
    match output::print(&String::from_utf8_lossy(&script)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(cause) => fail(&cause),
    }
}

/// Writes a man page for each command.
pub(super) fn man(arguments: &ManArguments) -> ExitCode {
    match clap_mangen::generate_to(command(), &arguments.folder) {
        Ok(()) => ExitCode::SUCCESS,
        Err(cause) => {
            let folder = arguments.folder.display();
            fail(&format!("{folder}: the man pages cannot be written: {cause}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_is_in_one_group_of_the_help() {
        let command = command();
        let mut grouped: Vec<&str> =
            GROUPS.iter().flat_map(|(_, names)| names.iter().copied()).collect();
        grouped.sort_unstable();
        let mut commands: Vec<&str> = command.get_subcommands().map(Command::get_name).collect();
        commands.sort_unstable();
        assert_eq!(grouped, commands);
    }

    #[test]
    fn the_definition_of_the_commands_is_consistent() {
        command().debug_assert();
    }

    #[test]
    fn no_default_is_shown_that_says_nothing() {
        fn look(command: &mut Command) {
            let help = command.render_long_help().to_string();
            assert!(!help.contains("[default: ]"), "{help}");
            assert!(!help.contains("[default: \"\"]"), "{help}");
            for inner in command.get_subcommands_mut() {
                look(inner);
            }
        }
        let mut command = command();
        command.build();
        look(&mut command);
    }
}
