//! One box's watchdog while something happens: the real plan of when a beat goes out and on which connection, over a
//! path that loses it.
//!
//! What comes of an action is worked out at once, as far into the future as it goes, and told as [`Outcome`]s.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use fleet_server::liveness::ConnId;
use fleet_server::liveness::time::Mono;
use watchdog::beat::lane::{ANSWER_TIMEOUT, CONNECT_TIMEOUT, TLS_TIMEOUT};
use watchdog::beat::plan::{Action, LANES, Plan, Said};

use crate::dice::Dice;
use crate::path::{Path, SYN_RTO, Sending, ServerTimes};

/// Between two beats.
pub const EVERY: Duration = Duration::from_secs(1);
/// The server's answer takes so long, without the way.
const ANSWER: Duration = Duration::from_millis(1);

/// Something that a box's action leads to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Outcome {
    /// A lane has news for the plan.
    Lane {
        /// Which.
        lane: usize,
        /// Its connection: an older one's news is no news.
        conn: ConnId,
        /// What.
        news: News,
    },
    /// A beat reaches the server.
    Arrives {
        /// On which connection.
        conn: ConnId,
        /// Since when that stands.
        conn_since: Mono,
        /// Its number.
        seq: u64,
        /// Which process sent it.
        session: u64,
    },
    /// A beat would have reached the server, but for the server's own trouble.
    LostToServer,
    /// The server sees a connection's end.
    Closes(ConnId),
}

/// What happened to a lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum News {
    /// It stands.
    Connected,
    /// Its beat was answered.
    Answered,
    /// It is gone.
    Lost,
}

/// A connection.
#[derive(Debug, Clone, Copy)]
struct Lane {
    conn: ConnId,
    since: Mono,
    route: usize,
}

/// The watchdog's sending part.
#[derive(Debug)]
pub struct Client {
    plan: Plan,
    lanes: [Option<Lane>; LANES],
    /// The address that answered last; turns count from it.
    route: usize,
    /// Own time is late by the time that the machine stood still: its clock stood still, too.
    pub wake_at: Mono,
    /// When the last beat went out, and whether on a ready connection.
    pub last_sent: Mono,
    /// Beats in a row that were answered within half an interval.
    pub smooth: u32,
    /// Packets of the next beat that are lost whatever the weather.
    pub unlucky: u32,
    sent_at: [Mono; LANES],
}

/// What a box is made of that outlives its windows.
#[derive(Debug)]
pub struct Around<'a> {
    /// Its way.
    pub path: &'a Path,
    /// The server's times.
    pub server: &'a ServerTimes,
    /// Its chances.
    pub dice: &'a mut Dice,
    /// The number of its last beat.
    pub seq: &'a mut u64,
    /// The number of the last connection.
    pub conns: &'a mut u64,
    /// Which process of the box this is.
    pub session: u64,
    /// Timer slack of a beat, seconds.
    pub jitter_secs: (f64, f64),
    /// What comes of it.
    pub out: &'a mut Vec<(Mono, Outcome)>,
}

impl Client {
    /// Beats from `now` on. `calm`: on this connection, which stands.
    pub fn new(now: Mono, seed: u64, calm: Option<ConnId>, route: usize) -> Self {
        let mut client = Self {
            plan: Plan::new(instant(now), EVERY, seed),
            lanes: [None; LANES],
            route,
            wake_at: now,
            last_sent: now,
            smooth: 0,
            unlucky: 0,
            sent_at: [now; LANES],
        };
        if let Some(conn) = calm {
            // The plan opens its first connection at once; it stands already.
            if let Some(Action::Open { lane, .. }) = client.plan.step(instant(now)) {
                client.lanes[lane] = Some(Lane {
                    conn,
                    since: now,
                    route,
                });
                client.plan.connected(instant(now), lane);
            }
        }
        client
    }

    /// Of the server's two, the path that answered last.
    pub fn route(&self) -> usize {
        self.route
    }

    /// Its connections.
    pub fn conns(&self) -> impl Iterator<Item = (usize, ConnId, usize)> {
        let lanes = self.lanes.iter().enumerate();
        lanes.filter_map(|(at, lane)| lane.map(|lane| (at, lane.conn, lane.route)))
    }

    /// The connection of the last beat, if that is the way it goes on.
    pub fn only_conn(&self) -> Option<ConnId> {
        let latest = |(at, _, _): &(usize, ConnId, usize)| self.sent_at[*at];
        self.conns().max_by_key(latest).map(|(_, conn, _)| conn)
    }

    /// News of a lane; an older connection's is ignored.
    pub fn told(&mut self, now: Mono, lane: usize, conn: ConnId, news: News) {
        let Some(of) = self.lanes[lane].filter(|of| of.conn == conn) else {
            return;
        };
        match news {
            News::Connected => self.plan.connected(instant(now), lane),
            News::Answered => {
                let quick = now.since(self.sent_at[lane]) < EVERY / 2;
                self.smooth = if quick { self.smooth + 1 } else { 0 };
                self.route = of.route;
                self.plan
                    .answered(instant(now), lane, Said::Taken { every: EVERY });
            }
            News::Lost => {
                self.lanes[lane] = None;
                self.smooth = 0;
                self.plan.lost(instant(now), lane);
            }
        }
    }

    /// Does all that is to be done now; [`wake_at`](Self::wake_at) says when to come again.
    pub fn turn(&mut self, now: Mono, around: &mut Around<'_>) {
        while let Some(action) = self.plan.step(instant(now)) {
            match action {
                Action::Open { lane, turn } => self.open(now, lane, turn, around),
                Action::Send { lane } => self.send(now, lane, around),
                Action::Close { lane } => self.close(now, lane, around),
            }
        }
        let wake = self.plan.wake(instant(now));
        self.wake_at = now + wake.saturating_duration_since(instant(now));
    }

    fn open(&mut self, now: Mono, lane: usize, turn: u32, around: &mut Around<'_>) {
        *around.conns += 1;
        let conn = ConnId(*around.conns);
        let route = (self.route + turn as usize) % 2;
        let (at, news, since) = connect(now, route, around);
        self.lanes[lane] = Some(Lane { conn, since, route });
        around.out.push((at, Outcome::Lane { lane, conn, news }));
    }

    fn send(&mut self, now: Mono, lane: usize, around: &mut Around<'_>) {
        let Some(of) = self.lanes[lane] else { return };
        *around.seq += 1;
        self.last_sent = now;
        self.sent_at[lane] = now;
        let jitter = Duration::from_secs_f64(around.dice.between(around.jitter_secs));
        let sending = Sending {
            at: now + jitter,
            route: of.route,
            conn_since: of.since,
            rto: around.path.rto(),
            unlucky: std::mem::take(&mut self.unlucky),
        };
        let passage = around.path.send(around.dice, around.server, sending);
        if let Some(would) = passage.but_for_server {
            around.out.push((would, Outcome::LostToServer));
        }
        let handled = passage.arrived.and_then(|at| around.server.handled(at));
        if let Some(at) = passage.arrived
            && handled != Some(at)
        {
            around.out.push((at, Outcome::LostToServer));
        }
        let answered = handled.and_then(|at| {
            around.out.push((
                at,
                Outcome::Arrives {
                    conn: of.conn,
                    conn_since: of.since,
                    seq: *around.seq,
                    session: around.session,
                },
            ));
            let answer = Sending {
                at: at + ANSWER,
                unlucky: 0,
                ..sending
            };
            around.path.send(around.dice, around.server, answer).arrived
        });
        let limit = now + ANSWER_TIMEOUT;
        let (at, news) = match answered {
            Some(at) if at <= limit => (at, News::Answered),
            Some(_) | None => (limit, News::Lost),
        };
        let conn = of.conn;
        around.out.push((at, Outcome::Lane { lane, conn, news }));
        if news == News::Lost {
            Self::end(limit, of, around);
        }
    }

    fn close(&mut self, now: Mono, lane: usize, around: &mut Around<'_>) {
        if let Some(of) = self.lanes[lane].take() {
            Self::end(now, of, around);
        }
    }

    /// The kernel says that a connection is over.
    fn end(now: Mono, of: Lane, around: &mut Around<'_>) {
        let sending = Sending {
            at: now,
            route: of.route,
            conn_since: of.since,
            rto: around.path.rto(),
            unlucky: 0,
        };
        let end = around.path.send(around.dice, around.server, sending).arrived;
        if let Some(at) = end.and_then(|at| around.server.handled(at)) {
            around.out.push((at, Outcome::Closes(of.conn)));
        }
    }

    /// The process ends: the kernel closes what it had.
    pub fn killed(&mut self, now: Mono, around: &mut Around<'_>) {
        for lane in 0..LANES {
            self.close(now, lane, around);
        }
    }
}

/// TCP's handshake, then TLS's: each one round trip. When there is news, what, and since when the server's kernel has it.
fn connect(now: Mono, route: usize, around: &mut Around<'_>) -> (Mono, News, Mono) {
    let there_and_back = |around: &mut Around<'_>, at: Mono, rto: Duration| {
        let sending = Sending {
            at,
            route,
            conn_since: now,
            rto,
            unlucky: 0,
        };
        let passage = around.path.send(around.dice, around.server, sending);
        if let Some(would) = passage.but_for_server {
            // The way back, TLS, and the beat.
            let rest = Duration::from_secs_f64(around.path.rtt_secs * 2.0);
            around.out.push((would + rest, Outcome::LostToServer));
        }
        let there = passage.arrived?;
        // A SYN is answered by the kernel, whatever the process does.
        let handled = if rto == SYN_RTO {
            around.server.handled(there).map(|_| there)
        } else {
            around.server.handled(there)
        };
        let Some(handled) = handled else {
            let rest = Duration::from_secs_f64(around.path.rtt_secs * 2.0);
            around.out.push((there + rest, Outcome::LostToServer));
            return Some(Err(there));
        };
        let back = Sending {
            at: handled,
            ..sending
        };
        let back = around.path.send(around.dice, around.server, back).arrived;
        back.map(|back| Ok((back, there)))
    };
    let half = Duration::from_secs_f64(around.path.rtt_secs / 2.0);
    let limit = now + CONNECT_TIMEOUT;
    let (stands, since) = match there_and_back(around, now, SYN_RTO) {
        Some(Ok((at, since))) if at <= limit => (at, since),
        Some(Err(refused)) if refused + half <= limit => return (refused + half, News::Lost, now),
        Some(Ok(_) | Err(_)) | None => return (limit, News::Lost, now),
    };
    let limit = stands + TLS_TIMEOUT;
    match there_and_back(around, stands, around.path.rto()) {
        Some(Ok((at, _))) if at <= limit => (at, News::Connected, since),
        Some(Ok(_) | Err(_)) | None => (limit, News::Lost, since),
    }
}

/// The plan wants moments of the process's clock; any one of them will do as virtual time's beginning.
fn instant(at: Mono) -> Instant {
    static BEGINNING: OnceLock<Instant> = OnceLock::new();
    #[expect(
        clippy::disallowed_methods,
        reason = "only differences from it are ever looked at"
    )]
    let beginning = BEGINNING.get_or_init(Instant::now);
    *beginning + Duration::from_micros(at.as_micros())
}
