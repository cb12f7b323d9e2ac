//! The door between ingest and judgement: a beat goes in, its answer comes out at once; what it brought (report, units)
//! goes to the sweep through a bounded queue.
//!
//! It parses nothing (ingest did) and decides nothing (liveness does).

use jiff::Timestamp;
use protocol::heartbeat::Heartbeat;
use protocol::names::{BoxName, Labels};

use crate::liveness::beat::{Accepted, Refused};
use crate::liveness::time::Mono;
use crate::liveness::{BoxIx, ConnId};

/// What the judging side needs to know of a box.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BoxInfo {
    /// Its place in the tables.
    pub ix: BoxIx,
    /// Its name.
    pub name: BoxName,
    /// Labels that the operator set (they win over those of its reports).
    pub labels: Labels,
    /// `host:port` that a TCP witness may ask, declared by an operator.
    pub witness_tcp: Option<String>,
}

/// Where ingest puts what arrives. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Intake {}

impl Intake {
    /// A heartbeat that was authenticated as `ix`'s and decoded. `at` and `received` are its arrival, stamped before decoding.
    pub fn beat(
        &self,
        ix: BoxIx,
        conn: ConnId,
        at: Mono,
        received: Timestamp,
        beat: Heartbeat,
    ) -> Result<Accepted, Refused> {
        let _ = (ix, conn, at, received, beat);
        Err(Refused::Removed)
    }

    /// The peer closed (or reset) a connection that beats of `ix` arrived on. Not to be called for connections that
    /// the server itself closes.
    pub fn closed(&self, ix: BoxIx, conn: ConnId, at: Mono) {
        let _ = (ix, conn, at);
    }

    /// A box was added, or its labels or witness changed.
    pub fn upsert(&self, info: &BoxInfo) {
        let _ = info;
    }

    /// A box was removed or its last token revoked: nothing is expected of it any more, its incidents end.
    pub fn remove(&self, ix: BoxIx) {
        let _ = ix;
    }

    /// A receiver's worker says that it fails (`Some(error)`) or works again (`None`).
    pub fn receiver(&self, name: &str, failing: Option<String>) {
        let _ = (name, failing);
    }
}
