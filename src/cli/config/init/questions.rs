//! The questions of `config init` on a terminal.

use std::io::{BufRead, Write};
use std::process::{Command, Stdio};

use super::answers::{
    Answers, DEFAULT_PATH, DEFAULT_SCOPE, SecretSource, keys_of_issuer, restriction,
};
use super::probe;
use crate::config::{Preset, SecretText, presets};

/// A person at a terminal.
pub(super) struct Terminal<'t> {
    input: &'t mut dyn BufRead,
    output: &'t mut dyn Write,
}

impl<'t> Terminal<'t> {
    pub(super) fn new(input: &'t mut dyn BufRead, output: &'t mut dyn Write) -> Self {
        Self { input, output }
    }

    fn say(&mut self, text: &str) -> Result<(), String> {
        let written = self.output.write_all(text.as_bytes()).and_then(|()| self.output.flush());
        written.map_err(|cause| format!("the terminal could not be asked: {cause}"))
    }

    /// Asks once. Enter alone is the default, or an empty answer.
    fn ask(&mut self, question: &str, default: &str) -> Result<String, String> {
        if default.is_empty() {
            self.say(&format!("{question}: "))?;
        } else {
            self.say(&format!("{question} [{default}]: "))?;
        }
        let mut line = String::new();
        let read = self.input.read_line(&mut line);
        match read.map_err(|cause| format!("the terminal could not be asked: {cause}"))? {
            0 => Err("the input ended; nothing was written".to_owned()),
            _ if line.trim().is_empty() => Ok(default.to_owned()),
            _ => Ok(line.trim().to_owned()),
        }
    }

    /// Asks until `take` accepts the answer. A refusal says what is wrong.
    fn until_right(
        &mut self,
        question: &str,
        default: &str,
        mut take: impl FnMut(&str) -> Result<(), String>,
    ) -> Result<(), String> {
        loop {
            let answer = self.ask(question, default)?;
            match take(&answer) {
                Ok(()) => return Ok(()),
                Err(reason) => self.say(&format!("  {reason}\n"))?,
            }
        }
    }
}

/// Asks for every answer that is missing.
pub(super) fn ask_for_the_rest(
    answers: &mut Answers,
    terminal: &mut Terminal<'_>,
) -> Result<(), String> {
    terminal.say("Enter accepts the value in brackets.\n\n")?;
    let preset = provider(answers, terminal)?;
    if answers.public_url.is_none() {
        terminal.until_right(
            "URL of Portcullis for people and clients, such as https://mcp.example.com",
            "",
            |text| set(answers, "public_url", |a| a.public_url = Some(text.to_owned())),
        )?;
    }
    provider_keys(answers, terminal, preset)?;
    if answers.client_id.is_none() {
        terminal.until_right("Client ID of Portcullis at the provider", "", |text| {
            set(answers, "upstream.client_id", |a| a.client_id = Some(text.to_owned()))
        })?;
    }
    if answers.secret.is_none() {
        answers.secret = Some(secret(terminal)?);
    }
    if answers.provider_name.is_none() {
        let question = "Name of the provider on the pages, such as Acme (Enter: its host)";
        terminal.until_right(question, "", |text| {
            let name = Some(text.to_owned()).filter(|name| !name.is_empty());
            set(answers, "upstream.name", |a| a.provider_name = name)
        })?;
    }
    server(answers, terminal)?;
    people(answers, terminal, preset)
}

fn provider(answers: &mut Answers, terminal: &mut Terminal<'_>) -> Result<&'static Preset, String> {
    if let Some(preset) = answers.preset {
        return Ok(preset);
    }
    let names: Vec<&str> = presets().iter().map(|preset| preset.name).collect();
    terminal.say(&format!("Identity providers: {}\n", names.join(", ")))?;
    let mut chosen = &presets()[0];
    terminal.until_right("Identity provider (oidc for any other)", chosen.name, |text| {
        let name = text.to_lowercase();
        chosen = presets()
            .iter()
            .find(|preset| preset.name == name)
            .ok_or_else(|| format!("{text:?} is none of these"))?;
        Ok(())
    })?;
    answers.preset = Some(chosen);
    Ok(chosen)
}

/// Asks for the keys of this provider. The issuer as a whole is a good answer, too.
fn provider_keys(
    answers: &mut Answers,
    terminal: &mut Terminal<'_>,
    preset: &'static Preset,
) -> Result<(), String> {
    for key in preset.keys {
        if answers.keys.contains_key(key.name) {
            continue;
        }
        let question = format!("{} of {}, such as {}", key.name, preset.name, key.example);
        terminal.until_right(&question, "", |text| {
            if let Ok(keys) = keys_of_issuer(preset, text)
                && keys.iter().any(|(name, _)| *name == key.name)
            {
                return set(answers, "upstream.", |a| a.keys.extend(keys));
            }
            let at = format!("upstream.{}", key.name);
            set(answers, &at, |a| {
                a.keys.insert(key.name, text.to_owned());
            })
        })?;
    }
    if let Some(key) = restriction(preset).filter(|_| answers.allowed.is_empty()) {
        let question = format!("{key}: who can sign in, separated by commas");
        terminal.until_right(&question, "", |text| {
            set(answers, "upstream.", |a| a.allowed = separated(text)).and_then(|()| {
                if text.is_empty() { Err("name at least one".to_owned()) } else { Ok(()) }
            })
        })?;
    }
    Ok(())
}

fn secret(terminal: &mut Terminal<'_>) -> Result<SecretSource, String> {
    terminal.say(
        "Client secret. Type it, and it is stored in a file that only you can read;\n\
         or write env:NAME for an environment variable, or file:PATH for a file.\n",
    )?;
    loop {
        let _hidden = HiddenInput::begin();
        let text = terminal.ask("Client secret (not shown)", "")?;
        terminal.say("\n")?;
        let source = match (text.strip_prefix("env:"), text.strip_prefix("file:")) {
            (Some(name), _) => SecretSource::Variable(name.trim().to_owned()),
            (_, Some(path)) => SecretSource::File(path.trim().into()),
            (None, None) => SecretSource::Typed(SecretText::new(text.as_str())),
        };
        if !text.is_empty() {
            return Ok(source);
        }
    }
}

fn server(answers: &mut Answers, terminal: &mut Terminal<'_>) -> Result<(), String> {
    if answers.target.is_none() {
        let question = "Address of the MCP server itself, such as http://127.0.0.1:9000/mcp";
        terminal.until_right(question, "", |text| {
            set(answers, "resource[0].target", |a| a.target = Some(text.to_owned()))
        })?;
    }
    if answers.path.is_none() {
        terminal.until_right("Its path for clients", DEFAULT_PATH, |text| {
            set(answers, "resource[0].path", |a| a.path = Some(text.to_owned()))
        })?;
    }
    if answers.scopes.is_empty() {
        terminal.until_right("Its scopes, separated by commas", DEFAULT_SCOPE, |text| {
            set(answers, "resource[0].scopes", |a| a.scopes = separated(text))
        })?;
    }
    Ok(())
}

/// Asks for roles: who may use the MCP server, and the admin pages.
fn people(
    answers: &mut Answers,
    terminal: &mut Terminal<'_>,
    preset: &'static Preset,
) -> Result<(), String> {
    if answers.roles_claim.is_none() {
        let usual = preset.claims.roles;
        let claim = terminal.ask("Claim with the roles of people", usual)?;
        answers.roles_claim = Some(claim).filter(|claim| claim != usual);
    }
    if answers.rules.is_empty() {
        let role = terminal.ask("Role that may use it (Enter: everybody who can sign in)", "")?;
        if !role.is_empty() {
            answers.rules.push((role, answers.scopes.clone()));
        }
    }
    if answers.admin_roles.is_empty() {
        let role = terminal.ask("Role of administrators (Enter: no admin pages)", "")?;
        answers.admin_roles = separated(&role);
    }
    Ok(())
}

/// Takes an answer unless the configuration would refuse it.
fn set(answers: &mut Answers, key: &str, take: impl FnOnce(&mut Answers)) -> Result<(), String> {
    let mut with = answers.clone();
    take(&mut with);
    if let Some(mistake) = probe::mistake(&with, key) {
        return Err(mistake);
    }
    *answers = with;
    Ok(())
}

fn separated(text: &str) -> Vec<String> {
    let parts = text.split([',', ' ']).map(str::trim);
    parts.filter(|part| !part.is_empty()).map(str::to_owned).collect()
}

/// Switches the echo of the terminal off while a secret is typed. Without `stty` the secret is shown.
struct HiddenInput;

impl HiddenInput {
    fn begin() -> Self {
        stty("-echo");
        Self
    }
}

impl Drop for HiddenInput {
    fn drop(&mut self) {
        stty("echo");
    }
}

fn stty(setting: &str) {
    if cfg!(test) || !cfg!(unix) {
        return;
    }
    let mut command = Command::new("stty");
    let _no_stty = command.arg(setting).stdout(Stdio::null()).stderr(Stdio::null()).status();
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the answers to what somebody types, and what the terminal showed.
    fn dialogue(answers: &mut Answers, typed: &str) -> (Result<(), String>, String) {
        let (mut input, mut output) = (typed.as_bytes(), Vec::new());
        let mut terminal = Terminal::new(&mut input, &mut output);
        let asked = ask_for_the_rest(answers, &mut terminal);
        (asked, String::from_utf8(output).unwrap())
    }

    #[test]
    fn mistakes_are_asked_again_and_an_issuer_answers_two_questions() {
        let mut answers = Answers::default();
        let (asked, shown) = dialogue(
            &mut answers,
            "keyclok\nKeycloak\nhttp://mcp.example.com/\nhttps://mcp.example.com\n\
             https://sso.example.com/realms/acme\nportcullis\nenv:SECRET\nAcme\n\
             not a url\nhttp://127.0.0.1:9000/mcp\nmcp/\n\nread:todos, create:todos\n\nUser\nAdmin\n",
        );
        assert_eq!(asked, Ok(()), "{shown}");
        assert!(shown.contains("\"keyclok\" is none of these"), "{shown}");
        assert!(shown.contains("is not https"), "{shown}");
        assert!(shown.contains("is not the plain URL of an MCP server"), "{shown}");
        assert!(shown.contains("is not a plain path"), "{shown}");
        let complete = answers.complete().unwrap();
        assert_eq!(probe::mistakes(&complete), Vec::<String>::new());
        assert_eq!((complete.public_url, complete.path), ("https://mcp.example.com", "/mcp"));
        assert_eq!(answers.keys["url"], "https://sso.example.com");
        assert_eq!(answers.keys["realm"], "acme");
        assert_eq!(answers.provider_name.as_deref(), Some("Acme"));
        assert_eq!(answers.scopes, ["read:todos", "create:todos"]);
        assert_eq!(answers.rules, [("User".to_owned(), answers.scopes.clone())]);
        assert_eq!(answers.admin_roles, ["Admin"]);
        assert_eq!(answers.roles_claim, None, "Enter keeps the usual claim");
        assert!(
            matches!(answers.secret, Some(SecretSource::Variable(ref name)) if name == "SECRET")
        );
    }

    #[test]
    fn a_typed_secret_is_not_shown_and_the_end_of_input_writes_nothing() {
        let mut answers = Answers::default();
        let (asked, shown) = dialogue(
            &mut answers,
            "\nhttps://mcp.example.com\nacme.okta.com\n0oa1\n\nthe-canary\n",
        );
        assert_eq!(asked, Err("the input ended; nothing was written".to_owned()));
        assert!(matches!(answers.secret, Some(SecretSource::Typed(_))));
        assert!(!shown.contains("canary"), "{shown}");
    }
}
