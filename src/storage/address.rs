//! `database_url` of a PostgreSQL, as the driver takes it.

use sqlx::postgres::PgConnectOptions;

/// What PostgreSQL shows of our sessions, unless the URL says otherwise.
const APPLICATION: &str = "portcullis";

/// Reads the URL. What it may hold is checked with the configuration.
pub(super) fn options(url: &str) -> Result<PgConnectOptions, sqlx::Error> {
    // PgBouncer refuses this parameter as it is installed, and we store no numbers with fractions.
    let options = url.parse::<PgConnectOptions>()?.extra_float_digits(None);
    Ok(match options.get_application_name() {
        Some(_) => options,
        None => options.application_name(APPLICATION),
    })
}
