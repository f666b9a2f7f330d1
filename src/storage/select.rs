//! Lists that people page through: conditions are put together, values are always bound, and the next
//! page begins after a key (never at an offset), so that the millionth row costs what the first does.

use sqlx::any::AnyRow;
use sqlx::{AnyPool, AssertSqlSafe};

use super::StorageError;

/// What a condition compares with.
pub(super) enum Value {
    Text(String),
    Number(i64),
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Self::Number(number)
    }
}

/// A statement under construction. Every piece of text is a constant of ours; what comes from
/// elsewhere is bound.
pub(super) struct SelectBuilder {
    sql: String,
    values: Vec<Value>,
    narrowed: bool,
}

impl SelectBuilder {
    /// Begins with `SELECT … FROM …`, without conditions.
    pub(super) fn new(select: &'static str) -> Self {
        Self { sql: select.to_owned(), values: Vec::new(), narrowed: false }
    }

    /// Binds a value for use in the text that comes next; answers its placeholder.
    fn bind(&mut self, value: impl Into<Value>) -> String {
        self.values.push(value.into());
        format!("${}", self.values.len())
    }

    /// A condition with one `?` for the value.
    pub(super) fn and(&mut self, condition: &'static str, value: impl Into<Value>) -> &mut Self {
        let placeholder = self.bind(value);
        let condition = condition.replace('?', &placeholder);
        self.condition(&condition)
    }

    /// The rest of the condition that was begun, with one `?` for another value.
    pub(super) fn ends(&mut self, rest: &'static str, value: impl Into<Value>) -> &mut Self {
        let placeholder = self.bind(value);
        self.sql.push_str(&rest.replace('?', &placeholder));
        self
    }

    /// More of the condition that was begun.
    pub(super) fn text(&mut self, rest: &'static str) -> &mut Self {
        self.sql.push_str(rest);
        self
    }

    /// A condition without a value.
    pub(super) fn only(&mut self, condition: &'static str) -> &mut Self {
        self.condition(condition)
    }

    /// Hexadecimal text that begins with `prefix`, as a range that an index answers: `g` follows every
    /// hexadecimal digit in every collation.
    pub(super) fn begins(
        &mut self,
        from: &'static str,
        below: &'static str,
        prefix: &str,
    ) -> &mut Self {
        self.and(from, prefix);
        self.and(below, format!("{prefix}g"))
    }

    fn condition(&mut self, condition: &str) -> &mut Self {
        self.sql.push_str(if self.narrowed { " AND " } else { " WHERE " });
        self.sql.push_str(condition);
        self.narrowed = true;
        self
    }

    /// Ends with an order and a limit, and fetches.
    pub(super) async fn fetch(
        mut self,
        pool: &AnyPool,
        order: &'static str,
        limit: i64,
    ) -> Result<Vec<AnyRow>, StorageError> {
        let placeholder = self.bind(limit);
        self.sql.push(' ');
        self.sql.push_str(order);
        self.sql.push_str(" LIMIT ");
        self.sql.push_str(&placeholder);
        let mut query = sqlx::query(AssertSqlSafe(self.sql));
        for value in self.values {
            query = match value {
                Value::Text(text) => query.bind(text),
                Value::Number(number) => query.bind(number),
            };
        }
        Ok(query.fetch_all(pool).await?)
    }
}

/// Lower-case letters in hexadecimal, at most 64 of them: what a `…_key` column holds.
pub(super) fn key(text: &str) -> String {
    use std::fmt::Write as _;
    let mut key = String::new();
    for byte in text.to_lowercase().chars().take(64).collect::<String>().bytes() {
        let _ = write!(key, "{byte:02x}");
    }
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_keep_the_order_of_beginnings() {
        assert_eq!(key("Claude"), "636c61756465");
        assert!(key("Claude Code").starts_with(&key("cLAU")));
        assert_eq!(key(&"é".repeat(100)).len(), 64 * 4);
    }
}
