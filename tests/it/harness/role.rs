//! A role of PostgreSQL for one test: a plain one, that owns its schema and nothing else, with defaults of its
//! own.

use sqlx::{AssertSqlSafe, Connection};

use super::database::Database;

/// Makes a role that the application connects as, set as `settings` say. Nothing happens on SQLite.
pub(crate) async fn connect_as_role(database: &mut Database, settings: &[(&str, &str)]) {
    if !database.is_postgres() {
        return;
    }
    let schema = database.url.rsplit_once("%3D").unwrap().1.to_owned();
    let role = schema.clone(); // roles and schemas have names of their own
    let mut connection = sqlx::AnyConnection::connect(&database.url).await.unwrap();
    let mut statements =
        vec![format!("CREATE ROLE {role} LOGIN"), format!("ALTER SCHEMA {schema} OWNER TO {role}")];
    for (name, value) in settings {
        statements.push(format!("ALTER ROLE {role} SET {name} = '{value}'"));
    }
    for statement in statements {
        sqlx::query(AssertSqlSafe(statement)).execute(&mut connection).await.unwrap();
    }
    connection.close().await.unwrap();
    let (scheme, rest) = database.url.split_once("://").unwrap();
    let (_, place) = rest.split_once('@').expect("the URL names a role");
    database.url = format!("{scheme}://{role}@{place}");
}

/// Runs a statement as the superuser of the run, whatever role the application has.
pub(crate) async fn as_superuser(sql: &'static str) {
    let server = std::env::var("TEST_DATABASE_URL").unwrap();
    let mut connection = sqlx::AnyConnection::connect(&server).await.unwrap();
    sqlx::query(sql).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
}
