//! Columns to values and back, and SQLite's errors as ours.

use std::path::Path;

use jiff::Timestamp;
use protocol::names::BoxName;
use rusqlite::{Connection, ErrorCode, Params, Row};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Failure;
use crate::directory::TokenHash;
use crate::store::StoreError;

/// Statements that are kept compiled; more than there are on the ways that are gone often.
pub(super) const STATEMENTS: usize = 64;

/// Runs a statement that is kept compiled for the next time; how many rows it changed.
pub(super) fn run(db: &Connection, sql: &str, values: impl Params) -> rusqlite::Result<usize> {
    db.prepare_cached(sql)?.execute(values)
}

/// The one row of a query that is kept compiled for the next time.
pub(super) fn one<T>(
    db: &Connection,
    sql: &str,
    values: impl Params,
    read: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
) -> rusqlite::Result<T> {
    db.prepare_cached(sql)?.query_row(values, read)
}

/// A time as the tables hold it: nanoseconds since 1970, exact until the year 2262.
pub(super) fn nanos(at: Timestamp) -> i64 {
    i64::try_from(at.as_nanosecond()).unwrap_or(if at < Timestamp::UNIX_EPOCH {
        i64::MIN
    } else {
        i64::MAX
    })
}

/// A column that holds a time.
pub(super) fn time(row: &Row<'_>, column: &str) -> Result<Timestamp, Failure> {
    instant(row.get(column)?)
}

/// A column that holds a time or nothing.
pub(super) fn maybe_time(row: &Row<'_>, column: &str) -> Result<Option<Timestamp>, Failure> {
    let found: Option<i64> = row.get(column)?;
    found.map(instant).transpose()
}

/// The time of so many nanoseconds.
pub(super) fn instant(nanos: i64) -> Result<Timestamp, Failure> {
    Timestamp::from_nanosecond(i128::from(nanos))
        .map_err(|err| Failure::Unreadable(format!("a time of {nanos} ns: {err}")))
}

/// A column that holds JSON.
pub(super) fn json<T: DeserializeOwned>(row: &Row<'_>, column: &str) -> Result<T, Failure> {
    let text: String = row.get(column)?;
    serde_json::from_str(&text).map_err(|err| Failure::Unreadable(format!("column {column}: {err}")))
}

/// A column that holds JSON or nothing.
pub(super) fn maybe_json<T: DeserializeOwned>(row: &Row<'_>, column: &str) -> Result<Option<T>, Failure> {
    let text: Option<String> = row.get(column)?;
    text.map(|text| {
        serde_json::from_str(&text).map_err(|err| Failure::Unreadable(format!("column {column}: {err}")))
    })
    .transpose()
}

/// A column that holds a box's name.
pub(super) fn name(row: &Row<'_>, column: &str) -> Result<BoxName, Failure> {
    let text: String = row.get(column)?;
    BoxName::new(text).map_err(|err| Failure::Unreadable(format!("a box's name {err}")))
}

/// A column that holds a hash.
pub(super) fn hash(row: &Row<'_>, column: &str) -> Result<TokenHash, Failure> {
    Ok(TokenHash::from_bytes(row.get::<_, [u8; 32]>(column)?))
}

/// A value as JSON. Our own types have text keys and finite numbers: it cannot fail for another reason than memory.
pub(super) fn to_json<T: Serialize>(value: &T) -> Result<String, Failure> {
    serde_json::to_string(value)
        .map_err(|err| Failure::Sqlite(rusqlite::Error::ToSqlConversionFailure(err.into())))
}

/// SQLite's error as one that names the object and the fix.
pub(super) fn classify(path: &Path, doing: &'static str, err: rusqlite::Error) -> StoreError {
    let path = path.to_owned();
    let unreadable = matches!(
        err,
        rusqlite::Error::FromSqlConversionFailure(..)
            | rusqlite::Error::IntegralValueOutOfRange(..)
            | rusqlite::Error::InvalidColumnType(..)
            | rusqlite::Error::Utf8Error(..)
    );
    if unreadable {
        return StoreError::Corrupt {
            path,
            detail: err.to_string(),
        };
    }
    match err.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => StoreError::Busy { path },
        Some(ErrorCode::DiskFull) => StoreError::Full { path },
        Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied) => StoreError::ReadOnly { path },
        Some(ErrorCode::SystemIoFailure) => StoreError::DiskFails {
            path,
            detail: err.to_string(),
        },
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => StoreError::Corrupt {
            path,
            detail: err.to_string(),
        },
        _ => StoreError::Database {
            path,
            doing,
            source: err.into(),
        },
    }
}
