//! Recognizes servers that speak PostgreSQL's protocol and are not PostgreSQL, by what `version()` says.
//!
//! Managed PostgreSQL (RDS, Aurora, Cloud SQL, AlloyDB, Azure, Neon, Supabase) says that it is PostgreSQL, and
//! is. `docs/operations/postgresql.md` has what is known of each.

use sqlx::postgres::PgConnection;
use sqlx::{Executor, Row};

use crate::storage::database::OpenError;

/// What is known of a server from the text of its version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ServerVerdict {
    /// It lacks this.
    Refused {
        name: &'static str,
        lacks: &'static str,
    },
    /// It may work; this is known of it.
    Untested(&'static str),
    PostgreSql,
}

/// Parts of `version()`, and what they mean.
const KNOWN: &[(&str, ServerVerdict)] = &[
    (
        "CockroachDB",
        ServerVerdict::Refused {
            name: "CockroachDB",
            lacks: "it has no LISTEN and NOTIFY, by which replicas learn at once that a grant has ended, and no advisory locks",
        },
    ),
    (
        "Redshift",
        ServerVerdict::Refused {
            name: "Amazon Redshift",
            lacks: "it does not enforce unique keys, so what may be used once could be used twice",
        },
    ),
    (
        "-YB-",
        ServerVerdict::Untested(
            "YugabyteDB: nobody has tested Portcullis with it. It needs LISTEN and NOTIFY (from 2025.2.3, to be switched on), advisory locks and yb_enable_read_committed_isolation",
        ),
    ),
];

fn verdict(version: &str) -> ServerVerdict {
    if let Some((_, known)) = KNOWN.iter().find(|(part, _)| version.contains(part)) {
        return *known;
    }
    if version.starts_with("PostgreSQL ") {
        return ServerVerdict::PostgreSql;
    }
    ServerVerdict::Untested(
        "it does not call itself PostgreSQL, and nobody has tested Portcullis with it",
    )
}

/// What a server says of itself.
pub(crate) struct ServerVersion {
    /// The first words of `version()`.
    pub(crate) name: String,
    /// Why it may not work.
    pub(crate) doubt: Option<&'static str>,
}

/// Asks the server for its version. Fails for one that is known not to work.
pub(crate) async fn refuse_other_server(
    connection: &mut PgConnection,
) -> Result<ServerVersion, OpenError> {
    let version = connection.fetch_one(sqlx::raw_sql("SELECT version()::text AS version")).await?;
    let version: String = version.try_get("version")?;
    let doubt = match verdict(&version) {
        ServerVerdict::Refused { name, lacks } => {
            return Err(OpenError::OtherServer { name, lacks });
        }
        ServerVerdict::Untested(doubt) => Some(doubt),
        ServerVerdict::PostgreSql => None,
    };
    let name = version.split(" on ").next().unwrap_or_default();
    Ok(ServerVersion { name: name.chars().filter(|c| !c.is_control()).take(80).collect(), doubt })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_recognized_by_what_they_call_themselves() {
        for version in [
            "PostgreSQL 15.13 (Debian 15.13-0+deb12u1) on x86_64-pc-linux-gnu, compiled by gcc",
            "PostgreSQL 16.4 on aarch64-unknown-linux-gnu, compiled by gcc 10.2.1, 64-bit",
            "PostgreSQL 16.3 (EnterpriseDB Advanced Server 16.3.0) on x86_64-pc-linux-gnu",
        ] {
            assert_eq!(verdict(version), ServerVerdict::PostgreSql, "{version}");
        }
        for (version, name) in [
            ("CockroachDB CCL v25.2.1 (x86_64-pc-linux-gnu, built 2025/06/30)", "CockroachDB"),
            ("PostgreSQL 8.0.2 on i686-pc-linux-gnu, compiled by GCC, Redshift 1.0.1", "Redshift"),
        ] {
            let ServerVerdict::Refused { name: found, .. } = verdict(version) else {
                panic!("{version}")
            };
            assert!(found.contains(name), "{version}");
        }
        for version in [
            "PostgreSQL 15.12-YB-2025.2.0.0-b0 on x86_64-pc-linux-gnu, compiled by clang",
            "(openGauss 6.0.0 build 0) compiled at 2024-09-01",
            "",
        ] {
            assert!(matches!(verdict(version), ServerVerdict::Untested(_)), "{version}");
        }
    }
}
