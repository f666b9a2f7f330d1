//! Checks answers before they are written: the configuration that would be written is loaded.

use std::collections::BTreeMap;
use std::path::Path;

use super::answers::{Answers, CompleteAnswers, SecretSource, restriction};
use super::file;
use crate::config::{Config, Problem, presets};

/// Variable of the secret while the other answers are checked. Whether the real one exists, `check` says.
const SECRET: &str = "CLIENT_SECRET_OF_INIT";

/// Returns the mistakes in the answers.
pub(super) fn mistakes(answers: &CompleteAnswers<'_>) -> Vec<String> {
    problems(answers).iter().map(told).collect()
}

/// Returns the mistake in the answer for `key`, if there is one. What is not answered yet is taken for right.
pub(super) fn mistake(answers: &Answers, key: &str) -> Option<String> {
    let mut probe = answers.clone();
    let preset = *probe.preset.get_or_insert(&presets()[0]);
    probe.public_url.get_or_insert_with(|| "https://mcp.example.com".to_owned());
    probe.client_id.get_or_insert_with(|| "portcullis".to_owned());
    probe.target.get_or_insert_with(|| "http://127.0.0.1:9000/mcp".to_owned());
    probe.secret.get_or_insert_with(|| SecretSource::Variable(SECRET.to_owned()));
    for key in preset.keys {
        probe.keys.entry(key.name).or_insert_with(|| key.example.to_owned());
    }
    if restriction(preset).is_some() && probe.allowed.is_empty() {
        probe.allowed.push("example".to_owned());
    }
    let found = problems(&probe.complete().ok()?);
    found.iter().find(|problem| problem.key.starts_with(key)).map(told)
}

fn problems(answers: &CompleteAnswers<'_>) -> Vec<Problem> {
    let secret = SecretSource::Variable(SECRET.to_owned());
    let text = file::text(&CompleteAnswers {
        secret: &secret,
        scopes: answers.scopes.clone(),
        ..*answers
    });
    let env = BTreeMap::from([(SECRET.to_owned(), "x".repeat(32))]);
    match Config::load(Some((Path::new(""), text)), &env) {
        Ok(_) => Vec::new(),
        Err(problems) => problems.0,
    }
}

/// Says what is wrong, without a place: the text is not in a file yet.
fn told(problem: &Problem) -> String {
    let value = problem.value.as_ref().map(|value| format!(" = {value}")).unwrap_or_default();
    format!("{}{value} {}\n  → {}", problem.key, problem.reason, problem.hint)
}
