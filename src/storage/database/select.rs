//! Builds queries for paged lists. Values are always bound. The next page begins after a key and never at
//! an offset, so that the last page costs no more than the first.

use std::collections::BTreeSet;

use sqlx::any::AnyRow;
use sqlx::{AnyPool, AssertSqlSafe};

use super::{StorageError, column};

/// Most names in one statement: 100.
const AT_ONCE: usize = 100;

/// Lists are counted up to this many rows: 10,000. To count more would take longer than to show the page.
pub const COUNTED: i64 = 10_000;

/// A value to compare with.
pub(crate) enum BoundValue {
    Text(String),
    Number(i64),
}

impl From<&str> for BoundValue {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for BoundValue {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<i64> for BoundValue {
    fn from(number: i64) -> Self {
        Self::Number(number)
    }
}

/// A query under construction. Its text consists of constants in this program; every other value is
/// bound.
pub(crate) struct SelectBuilder {
    sql: String,
    values: Vec<BoundValue>,
    narrowed: bool,
}

impl SelectBuilder {
    /// Begins with `SELECT … FROM …`, without conditions.
    pub(crate) fn new(select: &'static str) -> Self {
        Self { sql: select.to_owned(), values: Vec::new(), narrowed: false }
    }

    /// Binds a value for the text that follows, and returns its placeholder.
    fn bind(&mut self, value: impl Into<BoundValue>) -> String {
        self.values.push(value.into());
        format!("${}", self.values.len())
    }

    /// Adds a condition with one `?` for the value.
    pub(crate) fn and(
        &mut self,
        condition: &'static str,
        value: impl Into<BoundValue>,
    ) -> &mut Self {
        let placeholder = self.bind(value);
        let condition = condition.replace('?', &placeholder);
        self.condition(&condition)
    }

    /// Continues the last condition with text that has one `?` for another value.
    pub(crate) fn ends(&mut self, rest: &'static str, value: impl Into<BoundValue>) -> &mut Self {
        let placeholder = self.bind(value);
        self.sql.push_str(&rest.replace('?', &placeholder));
        self
    }

    /// Continues the last condition.
    pub(crate) fn text(&mut self, rest: &'static str) -> &mut Self {
        self.sql.push_str(rest);
        self
    }

    /// Adds a condition without a value.
    pub(crate) fn only(&mut self, condition: &'static str) -> &mut Self {
        self.condition(condition)
    }

    fn condition(&mut self, condition: &str) -> &mut Self {
        self.sql.push_str(if self.narrowed { " AND " } else { " WHERE " });
        self.sql.push_str(condition);
        self.narrowed = true;
        self
    }

    /// Adds the condition that a column has one of these values, of which there must be at least one.
    /// `among` is its beginning, as in `id IN (?`.
    pub(crate) fn among(&mut self, among: &'static str, values: &[&str]) -> &mut Self {
        let Some((first, others)) = values.split_first() else { return self.only("1 = 0") };
        self.and(among, *first);
        for value in others {
            self.ends(", ?", *value);
        }
        self.text(")")
    }

    /// Appends the order and the limit, and runs the query.
    pub(crate) async fn fetch(
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
        self.run(pool).await
    }

    /// The same with the limit and the number of rows to skip. Only for what an index has in that order.
    pub(crate) async fn fetch_from(
        mut self,
        pool: &AnyPool,
        order: &'static str,
        (limit, skipped): (i64, i64),
    ) -> Result<Vec<AnyRow>, StorageError> {
        let (limit, skipped) = (self.bind(limit), self.bind(skipped));
        self.sql = format!("{} {order} LIMIT {limit} OFFSET {skipped}", self.sql);
        self.run(pool).await
    }

    /// Counts the rows, and stops at [`COUNTED`] and one more.
    pub(crate) async fn count(mut self, pool: &AnyPool) -> Result<i64, StorageError> {
        let placeholder = self.bind(COUNTED + 1);
        self.sql =
            format!("SELECT COUNT(*) AS number FROM ({} LIMIT {placeholder}) AS counted", self.sql);
        let rows = self.run(pool).await?;
        rows.first().map_or(Ok(0), |row| column(row, "number"))
    }

    /// Runs the query as it is, without a prepared statement. PostgreSQL plans a prepared one without its values from
    /// the sixth time on: without the limit, it sorted all 40,000 grants of a client to show ten.
    async fn run(self, pool: &AnyPool) -> Result<Vec<AnyRow>, StorageError> {
        let mut query = sqlx::query(AssertSqlSafe(self.sql)).persistent(false);
        for value in self.values {
            query = match value {
                BoundValue::Text(text) => query.bind(text),
                BoundValue::Number(number) => query.bind(number),
            };
        }
        Ok(query.fetch_all(pool).await?)
    }
}

/// Returns the rows that a `select` finds for `names`. `among` is the beginning of the condition, as in
/// `id IN (?`.
pub(crate) async fn rows_of(
    pool: &AnyPool,
    select: &'static str,
    among: &'static str,
    names: &[&str],
) -> Result<Vec<AnyRow>, StorageError> {
    let names: Vec<&str> = names.iter().copied().collect::<BTreeSet<&str>>().into_iter().collect();
    let mut rows = Vec::new();
    for names in names.chunks(AT_ONCE) {
        let mut listing = SelectBuilder::new(select);
        listing.among(among, names);
        rows.extend(listing.fetch(pool, "", i64::MAX).await?);
    }
    Ok(rows)
}

/// Splits the `seconds key` with which the next page begins.
pub(crate) fn after(text: &str) -> Option<(i64, &str)> {
    let (seconds, key) = text.split_once(' ')?;
    Some((seconds.parse().ok()?, key))
}

/// Returns what a `…_key` column holds: the first 64 characters of the text, in lower case, as
/// hexadecimal bytes.
pub(crate) fn key(text: &str) -> String {
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
