//! The driver that we register with sqlx's `Any` interface, for both engines: SQLite on the calling thread
//! ([`InThreadConnection`]), and PostgreSQL with a timeout on every wait ([`TimeoutConnection`]). sqlx
//! requires many types of a driver (`sqlx_types.rs`), so both share one.

mod sqlx_types;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use sqlx::any::{AnyArguments, AnyQueryResult, AnyRow, AnyStatement, AnyTypeInfo};
use sqlx::{Either, SqlStr};
use sqlx_core::any::AnyConnectionBackend;
use sqlx_core::any::driver::AnyDriver;
use url::Url;

use super::postgres::retry::RetryConnection;
use super::postgres::server::{SCHEME as BOUNDED, Server};
use super::postgres::timeout_connection::TimeoutConnection;
use super::sqlite::connection::{self, InThreadConnection, SCHEME, no_transactions};

pub(crate) use sqlx_types::InThread;

/// The driver, to be registered with sqlx.
pub(crate) const DRIVER: AnyDriver = AnyDriver::without_migrate::<InThread>();

/// A parsed URL of [`connection::options`] or [`Server::options`].
#[derive(Clone, Debug)]
pub(crate) enum DatabaseLocation {
    File {
        path: PathBuf,
        lock_timeout: Duration,
    },
    /// PostgreSQL, with a timeout on every wait.
    Server(Arc<Server>),
}

/// A connection of this driver, to either database.
#[derive(Debug)]
pub(crate) struct OneOfTwo(Box<dyn AnyConnectionBackend>);

impl DatabaseLocation {
    fn of(url: &Url) -> Result<Self, sqlx::Error> {
        if url.scheme() == BOUNDED {
            let server = Server::numbered(url.path());
            return server.map(Self::Server).ok_or(sqlx::Error::PoolClosed);
        }
        let (path, lock_timeout) = connection::parse(url)?;
        Ok(Self::File { path, lock_timeout })
    }

    async fn open(&self) -> Result<OneOfTwo, sqlx::Error> {
        Ok(OneOfTwo(match self {
            Self::File { path, lock_timeout } => {
                Box::new(InThreadConnection::open(path, *lock_timeout)?)
            }
            Self::Server(server) => {
                let connection = TimeoutConnection::new(server.connect().await?);
                Box::new(RetryConnection::new(connection, server.metrics().clone()))
            }
        }))
    }
}

impl AnyConnectionBackend for OneOfTwo {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn close(self: Box<Self>) -> BoxFuture<'static, sqlx::Result<()>> {
        self.0.close()
    }

    fn close_hard(self: Box<Self>) -> BoxFuture<'static, sqlx::Result<()>> {
        self.0.close_hard()
    }

    fn ping(&mut self) -> BoxFuture<'_, sqlx::Result<()>> {
        self.0.ping()
    }

    fn begin(&mut self, statement: Option<SqlStr>) -> BoxFuture<'_, sqlx::Result<()>> {
        self.0.begin(statement)
    }

    fn commit(&mut self) -> BoxFuture<'_, sqlx::Result<()>> {
        self.0.commit()
    }

    fn rollback(&mut self) -> BoxFuture<'_, sqlx::Result<()>> {
        self.0.rollback()
    }

    fn start_rollback(&mut self) {
        self.0.start_rollback();
    }

    fn get_transaction_depth(&self) -> usize {
        self.0.get_transaction_depth()
    }

    fn shrink_buffers(&mut self) {
        self.0.shrink_buffers();
    }

    fn flush(&mut self) -> BoxFuture<'_, sqlx::Result<()>> {
        self.0.flush()
    }

    fn should_flush(&self) -> bool {
        self.0.should_flush()
    }

    fn fetch_many(
        &mut self,
        query: SqlStr,
        persistent: bool,
        arguments: Option<AnyArguments>,
    ) -> BoxStream<'_, sqlx::Result<Either<AnyQueryResult, AnyRow>>> {
        self.0.fetch_many(query, persistent, arguments)
    }

    fn fetch_optional(
        &mut self,
        query: SqlStr,
        persistent: bool,
        arguments: Option<AnyArguments>,
    ) -> BoxFuture<'_, sqlx::Result<Option<AnyRow>>> {
        self.0.fetch_optional(query, persistent, arguments)
    }

    fn prepare_with<'c, 'q: 'c>(
        &'c mut self,
        sql: SqlStr,
        parameters: &[AnyTypeInfo],
    ) -> BoxFuture<'c, sqlx::Result<AnyStatement>> {
        self.0.prepare_with(sql, parameters)
    }
}
