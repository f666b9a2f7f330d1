//! Converts the `database_url` of a PostgreSQL into options of the driver.

use sqlx::postgres::PgConnectOptions;

/// The default `application_name` of our sessions in PostgreSQL.
const APPLICATION: &str = "portcullis";

/// Parses the URL. The configuration has validated it.
pub(crate) fn options(url: &str) -> Result<PgConnectOptions, sqlx::Error> {
    // By default PgBouncer rejects this parameter, and we store no fractional numbers.
    let options = url.parse::<PgConnectOptions>()?.extra_float_digits(None);
    Ok(match options.get_application_name() {
        Some(_) => options,
        None => options.application_name(APPLICATION),
    })
}
