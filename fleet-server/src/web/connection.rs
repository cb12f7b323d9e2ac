//! What is known of the connection that a request came on, and of the moment it came.
//!
//! A connection that closes is a hint about the box behind it, but only if it was that box's own: one that a proxy
//! shares between boxes says nothing.

use std::sync::{Arc, Mutex, PoisonError};

use axum::http::{HeaderMap, header};
use jiff::Timestamp;

use crate::clock::Clock;
use crate::liveness::time::Mono;
use crate::liveness::{BoxIx, ConnId};

/// When a request's head was read, by both clocks.
#[derive(Debug, Clone, Copy)]
pub struct Arrived {
    /// To judge by.
    pub mono: Mono,
    /// To show.
    pub wall: Timestamp,
}

impl Arrived {
    /// Now.
    pub fn now(clock: &Clock) -> Self {
        Self {
            mono: clock.mono(),
            wall: clock.wall(),
        }
    }
}

/// The connection of a request; one for all requests on it.
#[derive(Debug, Clone)]
pub struct Peer {
    id: ConnId,
    carried: Arc<Mutex<Carried>>,
}

/// Whose beats came on a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Carried {
    #[default]
    Nobody,
    /// One box's: how many; and whether the last one was a goodbye.
    Box { ix: BoxIx, beats: u32, goes: bool },
    /// Several boxes', or a proxy's.
    Shared,
}

impl Peer {
    /// A new connection.
    pub fn new(id: ConnId) -> Self {
        Self {
            id,
            carried: Arc::default(),
        }
    }

    /// Its number.
    pub fn id(&self) -> ConnId {
        self.id
    }

    /// A beat of `ix` came on it; `goes`: it was a goodbye.
    pub fn carries(&self, ix: BoxIx, goes: bool) {
        let mut carried = self.carried();
        *carried = match *carried {
            Carried::Nobody => Carried::Box { ix, beats: 1, goes },
            Carried::Box { ix: same, beats, .. } if same == ix => Carried::Box {
                ix,
                beats: beats.saturating_add(1),
                goes,
            },
            Carried::Box { .. } | Carried::Shared => Carried::Shared,
        };
    }

    /// A request's head: one that went through a proxy, or that wants the connection closed, makes its end meaningless.
    pub fn request(&self, headers: &HeaderMap) {
        const PROXIED: [&str; 3] = ["forwarded", "via", "x-forwarded-for"];
        let closes = headers
            .get(header::CONNECTION)
            .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"close"));
        if closes || PROXIED.iter().any(|name| headers.contains_key(*name)) {
            *self.carried() = Carried::Shared;
        }
    }

    /// The box whose end of a kept connection has just gone, if that is what the connection's end means: it was one
    /// box's alone, used more than once, and nobody said goodbye on it.
    pub fn bereaved(&self) -> Option<BoxIx> {
        match *self.carried() {
            Carried::Box { ix, beats, goes } if beats > 1 && !goes => Some(ix),
            Carried::Box { .. } | Carried::Nobody | Carried::Shared => None,
        }
    }

    fn carried(&self) -> std::sync::MutexGuard<'_, Carried> {
        self.carried.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn used(by: &[(u32, bool)]) -> Option<BoxIx> {
        let peer = Peer::new(ConnId(1));
        for (ix, goes) in by {
            peer.carries(BoxIx(*ix), *goes);
        }
        peer.bereaved()
    }

    #[test]
    fn only_one_boxs_own_kept_connection_means_something() {
        assert_eq!(used(&[(7, false), (7, false)]), Some(BoxIx(7)));
        assert_eq!(
            used(&[(7, false)]),
            None,
            "one beat a connection is no kept connection"
        );
        assert_eq!(used(&[(7, false), (8, false), (7, false)]), None);
        assert_eq!(used(&[(7, false), (7, true)]), None, "it said goodbye");
    }

    #[test]
    fn a_proxys_connection_means_nothing() {
        let peer = Peer::new(ConnId(1));
        let mut headers = HeaderMap::new();
        headers.insert("x-forwarded-for", "10.0.0.1".parse().unwrap());
        peer.carries(BoxIx(7), false);
        peer.request(&headers);
        peer.carries(BoxIx(7), false);
        assert_eq!(peer.bereaved(), None);
    }
}
