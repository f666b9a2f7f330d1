//! Documents that are made from the program. `UPDATE_DOCUMENTS=1 cargo test --test it -- repository::generated`
//! writes them again.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use clap::{Arg, Command};
use portcullis::config::{Applies, ConfigKey, ValueType, reference, schema};
use serde_json::{Value, json};

/// Longest line of a document.
const WIDTH: usize = 100;
const AGAIN: &str = "UPDATE_DOCUMENTS=1 cargo test --test it -- repository::generated";

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// Compares a document with what the program makes of it now, or writes it.
#[track_caller]
fn is_up_to_date(path: &str, text: &str) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    if std::env::var_os("UPDATE_DOCUMENTS").is_some() {
        fs::write(file, text).unwrap();
    } else {
        let found = fs::read_to_string(file).unwrap_or_default();
        assert!(found == text, "{path} is not up to date. Write it again: {AGAIN}");
    }
}

/// Breaks a text into lines with this indent. The first line has the mark of its list.
fn wrapped(mark: &str, text: &str) -> String {
    let indent = " ".repeat(mark.chars().count());
    let (mut out, mut line) = (String::new(), mark.to_owned());
    let mut is_empty = true;
    for word in text.split_whitespace() {
        if !is_empty && line.chars().count() + 1 + word.chars().count() > WIDTH {
            out.push_str(&line);
            out.push('\n');
            line.clone_from(&indent);
            is_empty = true;
        }
        if !is_empty {
            line.push(' ');
        }
        line.push_str(word);
        is_empty = false;
    }
    out.push_str(&line);
    out.push('\n');
    out
}

fn or(words: &[&str]) -> String {
    let quoted: Vec<String> = words.iter().map(|word| format!("`{word}`")).collect();
    match quoted.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
        _ => quoted.join(""),
    }
}

fn of_type(value: ValueType) -> String {
    match value {
        ValueType::Text => "Text".to_owned(),
        ValueType::Flag => "`true` or `false`".to_owned(),
        ValueType::Integer(least, most) => format!("Number, {least} to {most}"),
        ValueType::Duration(least, most) => format!("Duration, `{least}` to `{most}`"),
        ValueType::Texts => "List of texts".to_owned(),
        ValueType::Word(words) => or(words),
        ValueType::Words(words) => format!("List of {}", or(words)),
        ValueType::Secret => "Secret".to_owned(),
        ValueType::Scopes => "List or table of scopes".to_owned(),
        ValueType::TextTable => "Table of texts".to_owned(),
        ValueType::TranslatedTable => "Table of texts, in one or several languages".to_owned(),
        ValueType::SecretTable => "Table of secrets".to_owned(),
        ValueType::Ratio => "Number, 0 to 1".to_owned(),
        ValueType::ScopeTable => "Table of lists of scopes".to_owned(),
        ValueType::ClaimTable => "Table of claims and values".to_owned(),
        ValueType::KeySet => "Key set".to_owned(),
    }
}

fn of_key(key: &ConfigKey) -> String {
    let default = match (&key.default, key.default_in_words) {
        (Some(value), _) => format!("default `{value}`"),
        (None, "") => "no default".to_owned(),
        (None, words) if words.starts_with("required") => words.to_owned(),
        (None, words) => format!("default: {words}"),
    };
    let applies = match key.applies {
        Applies::AtOnce => "at once",
        Applies::Restart => "restart",
        Applies::Identity => "restart (identity)",
    };
    let mut facts = vec![of_type(key.value), default, applies.to_owned()];
    facts.extend(key.variables().iter().map(|name| format!("`{name}`")));
    let name = key.key.rsplit('.').next().unwrap();
    let mut text = wrapped("- ", &format!("**`{name}`**: {}", key.meaning));
    text.push_str(&wrapped("  ", &format!("*{}*", facts.join(" · "))));
    text
}

/// The beginning of docs/configuration.md.
const CONFIGURATION: &str = "\
# Configuration

<!-- Generated: UPDATE_DOCUMENTS=1 cargo test --test it -- repository::generated -->

Every key of `portcullis.toml`. `portcullis config init` writes a first file, `portcullis config
check` checks it, and `portcullis config show` prints what is in force and where each value came
from. [portcullis.example.toml](../portcullis.example.toml) has all keys in one file.

The line below each key says: its type, its default, when a change applies, and the environment
variable that sets it.

- The environment overrides the file. A variable ending in `_FILE` names a file with the secret.
- *at once*: the running server takes a changed file over within seconds. *restart*: after a
  restart. *restart (identity)*: after a restart, and until then nothing else of the changed file
  applies either.
- A duration is a number with `s`, `m`, `h` or `d`, such as `\"15m\"`, or whole seconds.
- A secret is `{ env = \"NAME\" }`, `{ file = \"path\" }`, or the secret itself, which causes a warning.

Editors complete keys and mark mistakes with the [JSON Schema](portcullis.schema.json): in VS Code
install *Even Better TOML*; the first line of the file names the schema. `portcullis config schema`
prints it.

```toml
#:schema ./portcullis.schema.json
```
";

#[test]
fn the_reference_of_the_configuration_is_made_from_the_table_of_keys() {
    let mut text = CONFIGURATION.to_owned();
    let mut table = None;
    for key in reference() {
        let of = key.key.rsplit_once('.').map_or("", |(table, _)| table).to_owned();
        if table.as_ref() != Some(&of) {
            let name = of.replace("[]", "");
            let heading = match of.as_str() {
                "" => "Top of the file".to_owned(),
                list if list.ends_with("[]") => format!("`[[{name}]]`"),
                _ => format!("`[{name}]`"),
            };
            let _ = write!(text, "\n## {heading}\n\n");
            if of == "limits" {
                text.push_str("[Limits](operations/limits.md) says what happens beyond each. Sizes are bytes.\n\n");
            }
            table = Some(of);
        }
        text.push_str(&of_key(&key));
    }
    let sections = text.matches("\n## ").count();
    assert_eq!(text.matches("\n## `[upstream]`").count(), 1, "the keys of a table stand together");
    assert!(sections >= 14, "{sections}");
    is_up_to_date("docs/configuration.md", &text);
}

#[test]
fn the_schema_in_the_repository_is_the_one_that_the_program_prints() {
    let text = serde_json::to_string_pretty(&schema()).unwrap();
    is_up_to_date("docs/portcullis.schema.json", &format!("{text}\n"));
}

/// The option as it is written: `-q, --quiet`, `--config <FILE>`.
fn spelling(arg: &Arg) -> String {
    let value = if arg.get_action().takes_values() {
        let names = arg.get_value_names().unwrap_or_default();
        let names: Vec<String> = names.iter().map(|name| format!(" <{name}>")).collect();
        names.concat()
    } else {
        String::new()
    };
    let names = [
        arg.get_short().map(|short| format!("-{short}")),
        arg.get_long().map(|long| format!("--{long}")),
    ];
    let names: Vec<String> = names.into_iter().flatten().collect();
    if names.is_empty() { value.trim().to_owned() } else { format!("{}{value}", names.join(", ")) }
}

fn of_option(arg: &Arg) -> String {
    let help = arg.get_long_help().or_else(|| arg.get_help()).map(ToString::to_string);
    let mut text = format!("`{}`: {}", spelling(arg), help.unwrap_or_default());
    let values: Vec<String> =
        arg.get_possible_values().iter().map(|value| value.get_name().to_owned()).collect();
    if arg.get_action().takes_values() && !values.is_empty() {
        let _ = write!(text, ". One of: {}", values.join(", "));
    }
    let defaults: Vec<_> = arg.get_default_values().iter().map(|v| v.to_string_lossy()).collect();
    if arg.get_action().takes_values() && !arg.is_hide_default_value_set() && !defaults.is_empty() {
        let _ = write!(text, ". Default: {}", defaults.join(", "));
    }
    if let Some(variable) = arg.get_env() {
        let _ = write!(text, ". Environment: `{}`", variable.to_string_lossy());
    }
    wrapped("- ", &text)
}

fn of_command(command: &Command, path: &str, level: usize, text: &mut String) {
    let path = format!("{path} {}", command.get_name()).trim().to_owned();
    let about = command.get_about().map(ToString::to_string).unwrap_or_default();
    let _ =
        write!(text, "\n{} `{path}`\n\n{}", "#".repeat(level), wrapped("", &format!("{about}.")));
    let shown = |arg: &&Arg| {
        !arg.is_hide_set()
            && !arg.is_global_set()
            && !["help", "version"].contains(&arg.get_id().as_str())
    };
    let options: String = command.get_arguments().filter(shown).map(of_option).collect();
    if !options.is_empty() {
        let _ = write!(text, "\n{options}");
    }
    if let Some(after) = command.get_after_help().filter(|_| !command.has_subcommands()) {
        let _ = write!(text, "\n```text\n{after}\n```\n");
    }
    for inner in command.get_subcommands().filter(|inner| inner.get_name() != "help") {
        of_command(inner, &path, level + 1, text);
    }
}

/// The beginning of docs/cli.md.
const CLI: &str = "\
# Commands

<!-- Generated: UPDATE_DOCUMENTS=1 cargo test --test it -- repository::generated -->

Every command and its options, as `--help` prints them. [Command line](operations/command-line.md)
explains how to administer a running server with them.

- `-q, --quiet` works with every command: it prints only results, warnings and errors. `serve` then
  logs from level `warn` on.
- Colours are used on a terminal only, and not if `NO_COLOR` is set.
- `portcullis completions SHELL` prints a completion script, `portcullis man DIR` writes man pages.
- `portcullis --version` prints the version, and in release builds the commit with its date.
";

#[test]
fn the_reference_of_the_commands_is_made_from_their_definition() {
    let command = portcullis::cli::command();
    let mut text = CLI.to_owned();
    for inner in command.get_subcommands() {
        of_command(inner, "portcullis", 2, &mut text);
    }
    assert!(text.matches("\n### `portcullis clients ").count() > 5, "{text}");
    is_up_to_date("docs/cli.md", &text);
}

/// Returns where a value breaks the rules of a schema: those parts of JSON Schema that ours uses.
fn broken(schema: &Value, value: &Value, at: &str) -> Vec<String> {
    let mut found = Vec::new();
    if let Some(any) = schema["anyOf"].as_array()
        && !any.iter().any(|one| broken(one, value, at).is_empty())
    {
        found.push(format!("{at}: {value} fits none"));
    }
    let fits = match schema["type"].as_str() {
        Some("object") => value.is_object(),
        Some("array") => value.is_array(),
        Some("string") => value.is_string(),
        Some("integer") => value.is_i64() || value.is_u64(),
        Some("boolean") => value.is_boolean(),
        _ => true,
    };
    if !fits {
        found.push(format!("{at}: {value} is not {}", schema["type"]));
    }
    if schema["enum"].as_array().is_some_and(|words| !words.contains(value)) {
        found.push(format!("{at}: {value} is not a known word"));
    }
    if let (Some(pattern), Some(text)) = (schema["pattern"].as_str(), value.as_str())
        && !regex_lite::Regex::new(pattern).unwrap().is_match(text)
    {
        found.push(format!("{at}: {text:?} does not match {pattern}"));
    }
    if let Some(number) = value.as_u64() {
        let least = schema["minimum"].as_u64().unwrap_or(0);
        let most = schema["maximum"].as_u64().unwrap_or(u64::MAX);
        if number < least || number > most {
            found.push(format!("{at}: {number} is out of range"));
        }
    }
    for (index, item) in value.as_array().into_iter().flatten().enumerate() {
        found.extend(broken(&schema["items"], item, &format!("{at}[{index}]")));
    }
    if let (Some("object"), Some(table)) = (schema["type"].as_str(), value.as_object()) {
        for (name, inner) in table {
            let at = format!("{at}.{name}");
            match (&schema["properties"][name], &schema["additionalProperties"]) {
                (Value::Null, Value::Bool(false)) => found.push(format!("{at} is not a key")),
                (Value::Null, Value::Null) => {}
                (Value::Null, more) => found.extend(broken(more, inner, &at)),
                (known, _) => found.extend(broken(known, inner, &at)),
            }
        }
        for name in schema["required"].as_array().into_iter().flatten() {
            if !table.contains_key(name.as_str().unwrap()) {
                found.push(format!("{at}: {name} is missing"));
            }
        }
    }
    found
}

fn toml_as_json(text: &str) -> Value {
    let table: toml::Table = text.parse().unwrap_or_else(|error| panic!("{error}: {text}"));
    serde_json::to_value(table).unwrap()
}

#[test]
fn the_example_file_fits_the_schema_and_mistakes_do_not() {
    let schema = schema();
    let example = read("portcullis.example.toml");
    assert_eq!(broken(&schema, &toml_as_json(&example), ""), Vec::<String>::new());
    assert!(example.starts_with("#:schema ./docs/portcullis.schema.json\n"));

    for (mistake, wanted) in [
        ("listne = \"x\"", ".listne is not a key"),
        ("listen = 7", ".listen: 7 is not \"string\""),
        ("[tokens]\naccess = \"3 weeks\"", ".tokens.access"),
        ("[limits]\nclients = 0", ".limits.clients: 0 is out of range"),
        ("[[resource]]\nscope = [\"a\"]", ".resource[0].scope is not a key"),
        ("[[resource]]\n[[resource.rule]]\nallow = \"a\"", "is not \"array\""),
        ("[upstream]\nprovider = \"Okta\"", "is not a known word"),
        ("[upstream]\nclient_secret = { envv = \"X\" }", "fits none"),
        ("client_approval = \"always\"", "is not a known word"),
    ] {
        let found = broken(&schema, &toml_as_json(mistake), "");
        assert!(found.iter().any(|one| one.contains(wanted)), "{mistake}: {found:?}");
    }
    assert_eq!(schema["properties"]["tokens"]["properties"]["access"]["default"], json!("10m"));
    assert_eq!(schema["properties"]["limits"]["properties"]["clients"]["default"], json!(10_000));
}
