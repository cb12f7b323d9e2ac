//! Boxes, their tokens, operators and enrolment codes.

use jiff::Timestamp;
use protocol::witness::Targets;
use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};

use super::Failure;
use super::rows::{hash, json, maybe_time, name, nanos, time, to_json};
use crate::directory::{Role, TokenHash};
use crate::store::{
    BOXES, BoxId, BoxRecord, ENROLL_CODES, EnrollCode, NewBox, OPERATORS, OperatorRecord, StoreError,
    TokenRecord,
};

/// Tokens that one box may have at the same time: rotation overlaps, but not without end.
const TOKENS: u32 = 8;

pub(super) fn add(tx: &Transaction<'_>, new: &NewBox) -> Result<BoxRecord, Failure> {
    room(tx, "SELECT count(*) FROM boxes", "boxes", BOXES)?;
    let taken: bool = tx.query_row(
        "SELECT EXISTS (SELECT 1 FROM boxes WHERE name = ?1)",
        [new.name.as_str()],
        |row| row.get(0),
    )?;
    if taken {
        return Err(StoreError::NameTaken(new.name.clone()).into());
    }
    tx.execute(
        "INSERT INTO boxes (name, labels, declared, witness_tcp, added_at) VALUES (?1, ?2, ?3, ?4, ?5)",
        params![
            new.name.as_str(),
            to_json(&new.labels)?,
            to_json(&new.declared)?,
            witnesses_text(&new.witnesses),
            nanos(new.at)
        ],
    )?;
    let id = BoxId(tx.last_insert_rowid());
    put_token(
        tx,
        id,
        &TokenRecord {
            hash: new.token,
            created_at: new.at,
            expires_at: None,
        },
    )?;
    get(tx, id)
}

pub(super) fn remove(tx: &Transaction<'_>, id: BoxId) -> Result<(), Failure> {
    match tx.execute("DELETE FROM boxes WHERE id = ?1", [id.0])? {
        0 => Err(no_box(id)),
        _ => Ok(()),
    }
}

pub(super) fn rotate(
    tx: &Transaction<'_>,
    id: BoxId,
    token: &TokenHash,
    at: Timestamp,
    old_until: Timestamp,
) -> Result<BoxRecord, Failure> {
    get(tx, id)?;
    tx.execute(
        "DELETE FROM tokens WHERE box_id = ?1 AND expires_at <= ?2",
        params![id.0, nanos(at)],
    )?;
    tx.execute(
        "UPDATE tokens SET expires_at = min(coalesce(expires_at, ?2), ?2) WHERE box_id = ?1",
        params![id.0, nanos(old_until)],
    )?;
    tx.execute(
        "DELETE FROM tokens WHERE box_id = ?1 AND expires_at <= ?2",
        params![id.0, nanos(at)],
    )?;
    let count: u32 = tx.query_row("SELECT count(*) FROM tokens WHERE box_id = ?1", [id.0], |row| {
        row.get(0)
    })?;
    if count >= TOKENS {
        return Err(StoreError::TooMany {
            what: "tokens of this box",
            limit: TOKENS,
        }
        .into());
    }
    put_token(
        tx,
        id,
        &TokenRecord {
            hash: *token,
            created_at: at,
            expires_at: None,
        },
    )?;
    get(tx, id)
}

pub(super) fn set_witnesses(
    tx: &Transaction<'_>,
    id: BoxId,
    witnesses: &Targets,
) -> Result<BoxRecord, Failure> {
    tx.execute(
        "UPDATE boxes SET witness_tcp = ?2 WHERE id = ?1",
        params![id.0, witnesses_text(witnesses)],
    )?;
    get(tx, id)
}

pub(super) fn revoke(tx: &Transaction<'_>, id: BoxId) -> Result<BoxRecord, Failure> {
    tx.execute("DELETE FROM tokens WHERE box_id = ?1", [id.0])?;
    get(tx, id)
}

pub(super) fn add_code(tx: &Transaction<'_>, code: &EnrollCode, now: Timestamp) -> Result<(), Failure> {
    tx.execute(
        "DELETE FROM enroll_codes WHERE uses_left < 1 OR expires_at <= ?1",
        [nanos(now)],
    )?;
    room(
        tx,
        "SELECT count(*) FROM enroll_codes",
        "enrolment codes",
        ENROLL_CODES,
    )?;
    put_code(tx, code)
}

/// Uses a code up by one, in the same transaction as the box that it adds.
pub(super) fn use_code(tx: &Transaction<'_>, code: &TokenHash, now: Timestamp) -> Result<(), Failure> {
    let used = tx.execute(
        "UPDATE enroll_codes SET uses_left = uses_left - 1 WHERE hash = ?1 AND uses_left > 0 AND expires_at > ?2",
        params![code.as_bytes(), nanos(now)],
    )?;
    if used == 0 {
        Err(StoreError::BadCode.into())
    } else {
        Ok(())
    }
}

pub(super) fn put_operator(tx: &Transaction<'_>, operator: &OperatorRecord) -> Result<(), Failure> {
    room(
        tx,
        "SELECT count(*) FROM operators",
        "operators' tokens",
        OPERATORS,
    )?;
    tx.execute(
        "INSERT INTO operators (name, role, hash, created_at) VALUES (?1, ?2, ?3, ?4) ON CONFLICT (name) \
         DO UPDATE SET role = excluded.role, hash = excluded.hash, created_at = excluded.created_at",
        params![
            operator.name,
            operator.role.as_str(),
            operator.hash.as_bytes(),
            nanos(operator.created_at)
        ],
    )?;
    Ok(())
}

pub(super) fn remove_operator(tx: &Transaction<'_>, name: &str) -> Result<(), Failure> {
    match tx.execute("DELETE FROM operators WHERE name = ?1", [name])? {
        0 => Err(StoreError::NotFound {
            what: format!("operator {name:?}"),
        }
        .into()),
        _ => Ok(()),
    }
}

/// One box with its tokens.
pub(super) fn get(db: &Connection, id: BoxId) -> Result<BoxRecord, Failure> {
    let mut boxes = db.prepare("SELECT * FROM boxes WHERE id = ?1")?;
    let mut rows = boxes.query([id.0])?;
    let Some(row) = rows.next()? else {
        return Err(no_box(id));
    };
    let mut tokens = db.prepare("SELECT * FROM tokens WHERE box_id = ?1 ORDER BY created_at")?;
    box_of(row, &mut tokens)
}

/// All boxes with their tokens, by id.
pub(super) fn all(db: &Connection) -> Result<Vec<BoxRecord>, Failure> {
    let mut boxes = db.prepare("SELECT * FROM boxes ORDER BY id")?;
    let mut tokens = db.prepare("SELECT * FROM tokens WHERE box_id = ?1 ORDER BY created_at")?;
    let mut rows = boxes.query([])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(box_of(row, &mut tokens)?);
    }
    Ok(found)
}

/// All operators' tokens.
pub(super) fn operators(db: &Connection) -> Result<Vec<OperatorRecord>, Failure> {
    let mut statement = db.prepare("SELECT * FROM operators ORDER BY name")?;
    let mut rows = statement.query([])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        let role: String = row.get("role")?;
        found.push(OperatorRecord {
            name: row.get("name")?,
            role: Role::from_word(&role)
                .ok_or_else(|| Failure::Unreadable(format!("{role:?} is no role of an operator")))?,
            hash: hash(row, "hash")?,
            created_at: time(row, "created_at")?,
        });
    }
    Ok(found)
}

/// All enrolment codes.
pub(super) fn codes(db: &Connection) -> Result<Vec<EnrollCode>, Failure> {
    let mut statement = db.prepare("SELECT * FROM enroll_codes")?;
    let mut rows = statement.query([])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(EnrollCode {
            hash: hash(row, "hash")?,
            uses_left: row.get("uses_left")?,
            expires_at: time(row, "expires_at")?,
        });
    }
    Ok(found)
}

/// Puts everything in the place of what is there (from the second copy).
pub(super) fn replace_all(
    tx: &Transaction<'_>,
    boxes: &[BoxRecord],
    operators: &[OperatorRecord],
    codes: &[EnrollCode],
) -> Result<(), Failure> {
    tx.execute_batch("DELETE FROM tokens; DELETE FROM operators; DELETE FROM enroll_codes;")?;
    let keep: Vec<i64> = boxes.iter().map(|record| record.id.0).collect();
    tx.execute(
        "DELETE FROM boxes WHERE id NOT IN (SELECT value FROM json_each(?1))",
        [to_json(&keep)?],
    )?;
    let mut put = tx.prepare(
        "INSERT INTO boxes (id, name, labels, declared, witness_tcp, added_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6) \
         ON CONFLICT (id) DO UPDATE SET name = excluded.name, labels = excluded.labels, \
         declared = excluded.declared, witness_tcp = excluded.witness_tcp, added_at = excluded.added_at",
    )?;
    for record in boxes {
        put.execute(params![
            record.id.0,
            record.name.as_str(),
            to_json(&record.labels)?,
            to_json(&record.declared)?,
            witnesses_text(&record.witnesses),
            nanos(record.added_at)
        ])?;
        for token in &record.tokens {
            put_token(tx, record.id, token)?;
        }
    }
    for operator in operators {
        put_operator(tx, operator)?;
    }
    for code in codes {
        put_code(tx, code)?;
    }
    Ok(())
}

fn box_of(row: &Row<'_>, tokens: &mut rusqlite::Statement<'_>) -> Result<BoxRecord, Failure> {
    let id: i64 = row.get("id")?;
    let mut held = tokens.query([id])?;
    let mut record = BoxRecord {
        id: BoxId(id),
        name: name(row, "name")?,
        labels: json(row, "labels")?,
        declared: json(row, "declared")?,
        witnesses: witnesses(row)?,
        added_at: time(row, "added_at")?,
        tokens: Vec::new(),
    };
    while let Some(token) = held.next()? {
        record.tokens.push(TokenRecord {
            hash: hash(token, "hash")?,
            created_at: time(token, "created_at")?,
            expires_at: maybe_time(token, "expires_at")?,
        });
    }
    Ok(record)
}

fn put_token(tx: &Transaction<'_>, id: BoxId, token: &TokenRecord) -> Result<(), Failure> {
    tx.execute(
        "INSERT INTO tokens (hash, box_id, created_at, expires_at) VALUES (?1, ?2, ?3, ?4)",
        params![
            token.hash.as_bytes(),
            id.0,
            nanos(token.created_at),
            token.expires_at.map(nanos)
        ],
    )?;
    Ok(())
}

fn put_code(tx: &Transaction<'_>, code: &EnrollCode) -> Result<(), Failure> {
    tx.execute(
        "INSERT INTO enroll_codes (hash, uses_left, expires_at) VALUES (?1, ?2, ?3)",
        params![code.hash.as_bytes(), code.uses_left, nanos(code.expires_at)],
    )?;
    Ok(())
}

fn room(tx: &Transaction<'_>, count: &str, what: &'static str, limit: u32) -> Result<(), Failure> {
    let count: u32 = tx.query_row(count, [], |row| row.get(0)).optional()?.unwrap_or(0);
    if count >= limit {
        Err(StoreError::TooMany { what, limit }.into())
    } else {
        Ok(())
    }
}

fn no_box(id: BoxId) -> Failure {
    StoreError::NotFound {
        what: format!("box with the id {}", id.0),
    }
    .into()
}

/// As texts separated by commas, which one written before there could be several is as well.
fn witnesses_text(witnesses: &Targets) -> Option<String> {
    (!witnesses.is_empty()).then(|| witnesses.to_string())
}

/// A witness that cannot be read is no reason to lose a box.
fn witnesses(row: &Row<'_>) -> Result<Targets, Failure> {
    let text: Option<String> = row.get("witness_tcp")?;
    Ok(text.and_then(|text| text.parse().ok()).unwrap_or_default())
}
