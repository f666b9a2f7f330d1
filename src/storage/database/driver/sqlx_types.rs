//! The types that sqlx requires of a driver. Rows, values and statements of this driver are those of
//! sqlx's `Any`; the driver's own types cannot be constructed.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use log::LevelFilter;
use sqlx::any::{AnyConnectOptions, AnyQueryResult};
use sqlx::error::BoxDynError;
use sqlx::{
    ConnectOptions, Connection, Database, Decode, Either, Encode, Error, SqlStr, Transaction, Type,
};
use sqlx_core::arguments::{Arguments, IntoArguments};
use sqlx_core::column::{Column, ColumnIndex};
use sqlx_core::from_row::FromRow;
use sqlx_core::query::Query;
use sqlx_core::query_as::QueryAs;
use sqlx_core::query_scalar::QueryScalar;
use sqlx_core::row::Row;
use sqlx_core::statement::Statement;
use sqlx_core::transaction::TransactionManager;
use sqlx_core::type_info::TypeInfo;
use sqlx_core::value::{Value, ValueRef};
use url::Url;

use super::{BOUNDED, DatabaseLocation, OneOfTwo, SCHEME, no_transactions};

/// The driver as a type.
#[derive(Debug)]
pub(crate) struct InThread;

impl Database for InThread {
    type Connection = OneOfTwo;
    type TransactionManager = NoTransactions;
    type Row = Never;
    type QueryResult = AnyQueryResult;
    type Column = Never;
    type TypeInfo = Never;
    type Value = Never;
    type ValueRef<'r> = Never;
    type Arguments = NoArguments;
    type ArgumentBuffer = Never;
    type Statement = Never;
    const NAME: &'static str = "SQLite in the caller's thread, or PostgreSQL within bounds";
    const URL_SCHEMES: &'static [&'static str] = &[SCHEME, BOUNDED];
}

impl Connection for OneOfTwo {
    type Database = InThread;
    type Options = DatabaseLocation;

    async fn close(self) -> Result<(), Error> {
        Ok(())
    }

    async fn close_hard(self) -> Result<(), Error> {
        Ok(())
    }

    async fn ping(&mut self) -> Result<(), Error> {
        Ok(())
    }

    async fn begin(&mut self) -> Result<Transaction<'_, InThread>, Error> {
        Err(no_transactions())
    }

    fn shrink_buffers(&mut self) {}

    async fn flush(&mut self) -> Result<(), Error> {
        Ok(())
    }

    fn should_flush(&self) -> bool {
        false
    }
}

impl ConnectOptions for DatabaseLocation {
    type Connection = OneOfTwo;

    fn from_url(url: &Url) -> Result<Self, Error> {
        Self::of(url)
    }

    async fn connect(&self) -> Result<OneOfTwo, Error> {
        self.open().await
    }

    fn log_statements(self, _: LevelFilter) -> Self {
        self
    }

    fn log_slow_statements(self, _: LevelFilter, _: Duration) -> Self {
        self
    }
}

impl FromStr for DatabaseLocation {
    type Err = Error;

    fn from_str(url: &str) -> Result<Self, Error> {
        Self::of(&url.parse().map_err(|cause| Error::Configuration(Box::new(cause)))?)
    }
}

impl TryFrom<&AnyConnectOptions> for DatabaseLocation {
    type Error = Error;

    fn try_from(options: &AnyConnectOptions) -> Result<Self, Error> {
        Self::of(&options.database_url)
    }
}

/// Transactions are opened by statements; see [`super::super::sqlite::group_commit`].
pub(crate) struct NoTransactions;

impl TransactionManager for NoTransactions {
    type Database = InThread;

    async fn begin(_: &mut OneOfTwo, _: Option<SqlStr>) -> Result<(), Error> {
        Err(no_transactions())
    }

    async fn commit(_: &mut OneOfTwo) -> Result<(), Error> {
        Err(no_transactions())
    }

    async fn rollback(_: &mut OneOfTwo) -> Result<(), Error> {
        Err(no_transactions())
    }

    fn start_rollback(_: &mut OneOfTwo) {}

    fn get_transaction_depth(_: &OneOfTwo) -> usize {
        0
    }
}

/// Accepts no argument: arguments arrive as those of `Any`.
#[derive(Default)]
pub(crate) struct NoArguments;

impl Arguments for NoArguments {
    type Database = InThread;

    fn reserve(&mut self, _: usize, _: usize) {}

    fn add<'t, T>(&mut self, _: T) -> Result<(), BoxDynError>
    where
        T: Encode<'t, InThread> + Type<InThread>,
    {
        Err("arguments come as those of Any".into())
    }

    fn len(&self) -> usize {
        0
    }
}

impl IntoArguments<InThread> for NoArguments {
    fn into_arguments(self) -> NoArguments {
        self
    }
}

/// The type of everything that this driver never creates.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Never {}

impl fmt::Display for Never {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {}
    }
}

impl Row for Never {
    type Database = InThread;

    fn columns(&self) -> &[Never] {
        match *self {}
    }

    fn try_get_raw<I: ColumnIndex<Self>>(&self, _: I) -> Result<Never, Error> {
        match *self {}
    }
}

impl ColumnIndex<Never> for usize {
    fn index(&self, never: &Never) -> Result<usize, Error> {
        match *never {}
    }
}

impl ColumnIndex<Never> for str {
    fn index(&self, never: &Never) -> Result<usize, Error> {
        match *never {}
    }
}

impl Column for Never {
    type Database = InThread;

    fn ordinal(&self) -> usize {
        match *self {}
    }

    fn name(&self) -> &str {
        match *self {}
    }

    fn type_info(&self) -> &Never {
        match *self {}
    }
}

impl TypeInfo for Never {
    fn is_null(&self) -> bool {
        match *self {}
    }

    fn name(&self) -> &str {
        match *self {}
    }
}

impl Value for Never {
    type Database = InThread;

    fn as_ref(&self) -> Never {
        match *self {}
    }

    fn type_info(&self) -> Cow<'_, Never> {
        match *self {}
    }

    fn is_null(&self) -> bool {
        match *self {}
    }
}

impl ValueRef<'_> for Never {
    type Database = InThread;

    fn to_owned(&self) -> Never {
        match *self {}
    }

    fn type_info(&self) -> Cow<'_, Never> {
        match *self {}
    }

    fn is_null(&self) -> bool {
        match *self {}
    }
}

impl Decode<'_, InThread> for Never {
    fn decode(never: Never) -> Result<Self, BoxDynError> {
        match never {}
    }
}

impl Statement for Never {
    type Database = InThread;

    fn into_sql(self) -> SqlStr {
        match self {}
    }

    fn sql(&self) -> &SqlStr {
        match *self {}
    }

    fn parameters(&self) -> Option<Either<&[Never], usize>> {
        match *self {}
    }

    fn columns(&self) -> &[Never] {
        match *self {}
    }

    fn query(&self) -> Query<'_, InThread, NoArguments> {
        match *self {}
    }

    fn query_with<A: IntoArguments<InThread>>(&self, _: A) -> Query<'_, InThread, A> {
        match *self {}
    }

    fn query_as<O>(&self) -> QueryAs<'_, InThread, O, NoArguments>
    where
        O: for<'r> FromRow<'r, Never>,
    {
        match *self {}
    }

    fn query_as_with<'s, O, A>(&'s self, _: A) -> QueryAs<'s, InThread, O, A>
    where
        O: for<'r> FromRow<'r, Never>,
        A: IntoArguments<InThread>,
    {
        match *self {}
    }

    fn query_scalar<O>(&self) -> QueryScalar<'_, InThread, O, NoArguments>
    where
        (O,): for<'r> FromRow<'r, Never>,
    {
        match *self {}
    }

    fn query_scalar_with<'s, O, A>(&'s self, _: A) -> QueryScalar<'s, InThread, O, A>
    where
        (O,): for<'r> FromRow<'r, Never>,
        A: IntoArguments<InThread>,
    {
        match *self {}
    }
}
