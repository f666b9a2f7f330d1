//! Statements of a step whose answers nobody waits for: they go to the database together, right before
//! the commit. On SQLite that is one text with one round trip to the connection's thread, which is what
//! a statement costs there; PostgreSQL takes them one by one.

use sqlx::AssertSqlSafe;

use super::{Step, StorageError, Work};

/// Statements that go together at most: each number of them is another text to keep prepared.
const TOGETHER: usize = 3;

/// A statement with what it is given. It changes rows that nothing else in its step reads.
pub(super) struct Later {
    sql: &'static str,
    values: Vec<Value>,
}

/// What a parameter is given.
pub(super) enum Value {
    Text(Option<String>),
    Number(i64),
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(Some(text.to_owned()))
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(Some(text))
    }
}

impl From<Option<&str>> for Value {
    fn from(text: Option<&str>) -> Self {
        Self::Text(text.map(str::to_owned))
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Self::Number(number)
    }
}

impl Later {
    pub(super) fn new(sql: &'static str, values: Vec<Value>) -> Self {
        Self { sql, values }
    }
}

impl Step {
    /// Leaves a statement for later: for the commit, or until enough have come together.
    pub(super) async fn leave(&mut self, statement: Later) -> Result<(), StorageError> {
        self.later.push(statement);
        let at_once = match self.work {
            Work::Sqlite(_) => TOGETHER,
            Work::Postgres(_) => 1,
        };
        if self.later.len() < at_once { Ok(()) } else { self.run_what_was_left().await }
    }

    /// Runs the statements that were left for later; any that fails fails the step.
    pub(super) async fn run_what_was_left(&mut self) -> Result<(), StorageError> {
        if self.later.is_empty() {
            return Ok(());
        }
        let (mut sql, mut values) = (String::new(), Vec::new());
        for statement in std::mem::take(&mut self.later) {
            if !sql.is_empty() {
                sql.push_str("; ");
            }
            renumber(statement.sql, values.len(), &mut sql);
            values.extend(statement.values);
        }
        let mut query = sqlx::query(AssertSqlSafe(sql)); // our own texts, with placeholders
        for value in values {
            query = match value {
                Value::Text(text) => query.bind(text),
                Value::Number(number) => query.bind(number),
            };
        }
        query.execute(&mut **self).await?;
        Ok(())
    }
}

/// Adds a statement to a text whose parameters up to `taken` belong to those before it.
fn renumber(sql: &str, taken: usize, text: &mut String) {
    let mut parts = sql.split('$');
    text.push_str(parts.next().unwrap_or_default());
    for part in parts {
        let end = part.find(|c: char| !c.is_ascii_digit()).unwrap_or(part.len());
        let (number, rest) = part.split_at(end);
        let number = number.parse::<usize>().unwrap_or_default() + taken;
        text.push('$');
        text.push_str(&number.to_string());
        text.push_str(rest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_statement_keeps_parameters_of_its_own() {
        let mut text = String::new();
        renumber("INSERT INTO a VALUES ($1, $2, $1)", 0, &mut text);
        text.push(';');
        renumber("UPDATE b SET c = $10 WHERE d = $1", 2, &mut text);
        assert_eq!(text, "INSERT INTO a VALUES ($1, $2, $1);UPDATE b SET c = $12 WHERE d = $3");
    }
}
