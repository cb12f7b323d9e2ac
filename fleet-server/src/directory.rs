//! Boxes, tokens and operators in memory: who speaks, by the token alone.
//!
//! A mirror of the store, filled at start and changed after each change there. It does not judge liveness.

use std::collections::HashMap;
use std::fmt;

use jiff::Timestamp;
use protocol::names::{BoxName, Labels};
use protocol::secret::Secret;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::liveness::BoxIx;
use crate::store::{BoxId, BoxRecord, OperatorRecord, TokenRecord};

/// What an operator may. Each may all that the ones before it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Look.
    Viewer,
    /// Acknowledge; add, rotate and revoke boxes.
    Operator,
    /// Everything: remove boxes, operators' tokens.
    Admin,
}

/// SHA-256 of a token or code: all that is kept of it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TokenHash([u8; 32]);

/// A box as the directory knows it.
#[derive(Debug, Clone)]
pub struct BoxEntry {
    /// Its place in this process's tables.
    pub ix: BoxIx,
    /// As stored.
    pub record: BoxRecord,
    /// Its labels: the operator's over those that it declares.
    pub labels: Labels,
}

/// Who an operator's token belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operator {
    /// The token's name.
    pub name: String,
    /// What they may.
    pub role: Role,
}

/// All boxes and operators.
#[derive(Debug, Default)]
pub struct Directory {
    boxes: Vec<Option<BoxEntry>>,
    by_name: HashMap<BoxName, BoxIx>,
    by_id: HashMap<BoxId, BoxIx>,
    /// By the first eight bytes of the hash; the whole hash is then compared in constant time.
    tokens: HashMap<u64, Vec<(TokenRecord, BoxIx)>>,
    operators: Vec<OperatorRecord>,
}

impl Directory {
    /// From what the store holds.
    pub fn new(boxes: Vec<BoxRecord>, operators: Vec<OperatorRecord>) -> Self {
        let mut directory = Self {
            operators,
            ..Self::default()
        };
        for record in boxes {
            directory.put(record);
        }
        directory
    }

    /// The box that `token` belongs to, if it is good at `now`.
    pub fn box_by_token(&self, token: &TokenHash, now: Timestamp) -> Option<BoxIx> {
        let candidates = self.tokens.get(&token.prefix())?;
        let (_, ix) = candidates
            .iter()
            .find(|(known, _)| known.hash.same(token) && known.expires_at.is_none_or(|until| now < until))?;
        Some(*ix)
    }

    /// The operator that `token` belongs to.
    pub fn operator_by_token(&self, token: &TokenHash) -> Option<Operator> {
        let found = self.operators.iter().find(|known| known.hash.same(token))?;
        Some(Operator {
            name: found.name.clone(),
            role: found.role,
        })
    }

    /// The box at `ix`, unless removed.
    pub fn get(&self, ix: BoxIx) -> Option<&BoxEntry> {
        self.boxes.get(ix.at())?.as_ref()
    }

    /// The box named `name`.
    pub fn by_name(&self, name: &BoxName) -> Option<&BoxEntry> {
        self.get(*self.by_name.get(name)?)
    }

    /// The box stored as `id`.
    pub fn by_id(&self, id: BoxId) -> Option<&BoxEntry> {
        self.get(*self.by_id.get(&id)?)
    }

    /// All boxes, by place.
    pub fn iter(&self) -> impl Iterator<Item = &BoxEntry> {
        self.boxes.iter().flatten()
    }

    /// How many boxes there are.
    pub fn len(&self) -> usize {
        self.by_name.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }

    /// How long tables by [`BoxIx`] must be.
    pub fn slots(&self) -> usize {
        self.boxes.len()
    }

    /// All operators' tokens.
    pub fn operators(&self) -> &[OperatorRecord] {
        &self.operators
    }

    /// Adds a box, or puts `record` (new tokens, new labels) in the place of the one with the same id.
    pub fn put(&mut self, record: BoxRecord) -> BoxIx {
        let ix = match self.by_id.get(&record.id) {
            Some(ix) => *ix,
            None => BoxIx(self.boxes.len() as u32),
        };
        let before = self.get(ix).map(|entry| entry.record.clone());
        if let Some(before) = &before {
            self.forget_tokens(&before.tokens, ix);
            self.by_name.remove(&before.name);
        }
        for token in &record.tokens {
            self.tokens
                .entry(token.hash.prefix())
                .or_default()
                .push((token.clone(), ix));
        }
        let declared = before.map_or_else(|| record.declared.clone(), |before| before.declared);
        self.by_name.insert(record.name.clone(), ix);
        self.by_id.insert(record.id, ix);
        let labels = declared.overlaid(&record.labels);
        let entry = BoxEntry {
            ix,
            record: BoxRecord { declared, ..record },
            labels,
        };
        match self.boxes.get_mut(ix.at()) {
            Some(slot) => *slot = Some(entry),
            None => self.boxes.push(Some(entry)),
        }
        ix
    }

    /// The labels that the box declares in its newest report.
    pub fn declare(&mut self, ix: BoxIx, declared: &Labels) {
        if let Some(Some(entry)) = self.boxes.get_mut(ix.at())
            && entry.record.declared != *declared
        {
            entry.record.declared = declared.clone();
            entry.labels = declared.overlaid(&entry.record.labels);
        }
    }

    /// Takes a box away; its place stays empty.
    pub fn remove(&mut self, ix: BoxIx) -> Option<BoxEntry> {
        let entry = self.boxes.get_mut(ix.at())?.take()?;
        self.by_name.remove(&entry.record.name);
        self.by_id.remove(&entry.record.id);
        self.forget_tokens(&entry.record.tokens, ix);
        Some(entry)
    }

    /// Adds an operator's token, or replaces the one of the same name.
    pub fn put_operator(&mut self, operator: OperatorRecord) {
        self.remove_operator(&operator.name);
        self.operators.push(operator);
    }

    /// Takes an operator's token away.
    pub fn remove_operator(&mut self, name: &str) {
        self.operators.retain(|known| known.name != name);
    }

    fn forget_tokens(&mut self, tokens: &[TokenRecord], ix: BoxIx) {
        for token in tokens {
            let prefix = token.hash.prefix();
            if let Some(held) = self.tokens.get_mut(&prefix) {
                held.retain(|(_, of)| *of != ix);
                if held.is_empty() {
                    self.tokens.remove(&prefix);
                }
            }
        }
    }
}

impl Role {
    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }

    /// The role of that word.
    pub fn from_word(word: &str) -> Option<Self> {
        [Self::Viewer, Self::Operator, Self::Admin]
            .into_iter()
            .find(|role| role.as_str() == word)
    }
}

impl TokenHash {
    /// Of a token or code.
    pub fn of(secret: &Secret) -> Self {
        Self(Sha256::digest(secret.expose().as_bytes()).into())
    }

    /// From its 32 bytes.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Its 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Whether both are the same, in a time that does not tell where they differ.
    pub fn same(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }

    fn prefix(&self) -> u64 {
        let [a, b, c, d, e, f, g, h, ..] = self.0;
        u64::from_le_bytes([a, b, c, d, e, f, g, h])
    }
}

impl fmt::Debug for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, ..] = self.0;
        write!(f, "TokenHash({a:02x}{b:02x}…)")
    }
}

impl Serialize for TokenHash {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&hex::encode(self.0))
    }
}

impl<'de> Deserialize<'de> for TokenHash {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(String::deserialize(d)?, &mut bytes)
            .map_err(|_| serde::de::Error::custom("a hash is 64 hexadecimal digits"))?;
        Ok(Self(bytes))
    }
}
