//! Sends to one server: does what its `plan` decides, on `lane`s of its own, and tells what came of it.
//!
//! It never waits: a lane is a task, and all news of lanes comes back through one bounded queue.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::HeaderValue;
use jiff::Timestamp;
use protocol::heartbeat::Goodbye;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use uuid::Uuid;

use super::answer::{self, Meaning};
use super::body::Body;
use super::lane::{self, Answer, Happened, LaneError, LaneEvent, Order};
use super::plan::{Action, LANES, Plan};
use super::target::Target;
use super::voice::Voice;

/// Between two sessions begun because a server knew a newer beat: more often would look like two machines.
const RENEW_GAP: Duration = Duration::from_secs(10);

/// What all senders share for a beat.
pub struct Supply<'a> {
    /// Writes it.
    pub body: &'a mut Body,
    /// `Bearer …` and the token's number; none: not enrolled yet.
    pub token: Option<(&'a HeaderValue, u64)>,
    /// What to say while leaving.
    pub goodbye: Option<&'a Goodbye>,
    /// The box's clock.
    pub wall: Timestamp,
}

/// What the shell has to do after an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ask {
    /// Nothing.
    Nothing,
    /// The token with this number is not known: read it again.
    ReadToken(u64),
    /// Begin a new session.
    Renew,
}

/// One server's sender.
pub struct Sender {
    number: usize,
    target: Arc<Target>,
    plan: Plan,
    lanes: [Option<Running>; LANES],
    events: mpsc::Sender<LaneEvent>,
    next_id: u64,
    /// The session's number, and the newest beat in it.
    newest: (u64, u64),
    acked: Option<Uuid>,
    unwanted: Option<Uuid>,
    last_taken: Option<Instant>,
    renewed: Option<Instant>,
    attempted: bool,
    voice: Voice,
}

struct Running {
    id: u64,
    orders: mpsc::Sender<Order>,
    task: JoinHandle<()>,
    sent: (u64, u64),
    token: u64,
    carries: Option<Uuid>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Sender {
    /// Number `number`, to `target`, every `every` from `now` on; lanes tell `events`.
    pub fn new(
        number: usize,
        target: Target,
        now: Instant,
        every: Duration,
        seed: u64,
        events: mpsc::Sender<LaneEvent>,
    ) -> Self {
        Self {
            number,
            voice: Voice::new(&target.label),
            target: Arc::new(target),
            plan: Plan::new(now, every, seed),
            lanes: [const { None }; LANES],
            events,
            next_id: 0,
            newest: (0, 0),
            acked: None,
            unwanted: None,
            last_taken: None,
            renewed: None,
            attempted: false,
        }
    }

    /// What decides.
    pub fn plan(&mut self) -> &mut Plan {
        &mut self.plan
    }

    /// When it wants to be driven again.
    pub fn wake(&self, now: Instant) -> Instant {
        self.plan.wake(now)
    }

    /// A first connection was tried.
    pub fn has_attempted(&self) -> bool {
        self.attempted
    }

    /// The session is new: what is under way belongs to the old one.
    pub fn session_renewed(&mut self, now: Instant) {
        self.newest = (self.newest.0 + 1, 0);
        self.renewed = Some(now);
    }

    /// Does all that is to be done at `now`.
    pub fn drive(&mut self, now: Instant, supply: &mut Supply<'_>) {
        let Some((authorization, token)) = supply.token else {
            return;
        };
        while let Some(action) = self.plan.step(now) {
            match action {
                Action::Open { lane, turn } => self.open(lane, turn),
                Action::Close { lane } => self.lanes[lane] = None,
                Action::Send { lane } => self.send(now, lane, supply, authorization.clone(), token),
            }
        }
    }

    /// Takes in what a lane tells; `None` for news of a connection that was given up.
    pub fn happened(&mut self, now: Instant, event: LaneEvent) -> Ask {
        let LaneEvent { lane, id, what, .. } = event;
        if self.lanes[lane].as_ref().is_none_or(|running| running.id != id) {
            return Ask::Nothing;
        }
        match what {
            Happened::Connected => {
                self.plan.connected(now, lane);
                Ask::Nothing
            }
            Happened::Lost(error) => {
                self.lost(now, lane, &error);
                Ask::Nothing
            }
            Happened::Answered(answer) => self.answered(now, lane, &answer),
        }
    }

    /// A line about this server for `systemctl status`.
    pub fn status(&self, now: Instant) -> String {
        let label = &self.target.label;
        let trouble = self.voice.trouble();
        match (self.last_taken, trouble) {
            (Some(_), None) => format!("beats to {label} every {:?}", self.plan.interval()),
            (Some(at), Some(text)) => {
                // In steps of ten seconds: a line that changes each second would cost more than it tells.
                let secs = now.saturating_duration_since(at).as_secs() / 10 * 10;
                format!("no beat taken by {label} for {secs} s: {text}")
            }
            (None, Some(text)) => format!("no beat taken by {label} yet: {text}"),
            (None, None) => format!("connects to {label}"),
        }
    }

    fn open(&mut self, lane: usize, turn: u32) {
        self.attempted = true;
        self.next_id += 1;
        let (number, id) = (self.number, self.next_id);
        let (orders, take_orders) = mpsc::channel(1);
        let (events, target) = (self.events.clone(), Arc::clone(&self.target));
        let tell = async move |what| {
            let server = number;
            // The shell is gone: so is this lane, soon.
            let _ = events
                .send(LaneEvent {
                    server,
                    lane,
                    id,
                    what,
                })
                .await;
        };
        let task = tokio::spawn(lane::run(target, turn, take_orders, tell));
        self.lanes[lane] = Some(Running {
            id,
            orders,
            task,
            sent: (0, 0),
            token: 0,
            carries: None,
        });
    }

    fn send(
        &mut self,
        now: Instant,
        lane: usize,
        supply: &mut Supply<'_>,
        authorization: HeaderValue,
        token: u64,
    ) {
        let report = supply.goodbye.is_none() && self.wants_report(supply.body.report_id());
        let every = self.plan.interval();
        let written = supply.body.write(supply.wall, every, report, supply.goodbye);
        let Some(running) = &mut self.lanes[lane] else {
            return;
        };
        self.newest.1 = written.seq;
        running.sent = self.newest;
        running.token = token;
        running.carries = written.carries;
        let order = Order {
            authorization: Some(authorization),
            body: written.json,
        };
        if running.orders.try_send(order).is_err() {
            // The lane has just ended; its last word is on its way.
            self.lanes[lane] = None;
            self.plan.lost(now, lane);
        }
    }

    fn wants_report(&self, newest: Option<Uuid>) -> bool {
        let under_way = self
            .lanes
            .iter()
            .flatten()
            .any(|running| running.carries.is_some() && running.carries == newest);
        newest.is_some() && newest != self.acked && newest != self.unwanted && !under_way
    }

    fn lost(&mut self, now: Instant, lane: usize, error: &LaneError) {
        self.lanes[lane] = None;
        self.plan.lost(now, lane);
        // A kept-alive connection ends now and then: no trouble until a new one cannot be had.
        if error.step != lane::Step::Idle {
            self.voice.trouble_is(&chain(error));
        }
    }

    fn answered(&mut self, now: Instant, lane: usize, answer: &Answer) -> Ask {
        let (meaning, text) = answer::read(answer);
        self.plan.answered(now, lane, meaning.said());
        let Some(running) = &mut self.lanes[lane] else {
            return Ask::Nothing;
        };
        let (sent, token, carried) = (running.sent, running.token, running.carries.take());
        match meaning {
            Meaning::Taken(taken) => {
                self.last_taken = Some(now);
                self.acked = carried.or(self.acked);
                if taken.want_report {
                    self.acked = None;
                }
                self.voice.fine();
                return Ask::Nothing;
            }
            // A beat that was overtaken by a newer one is refused, and that is all right.
            Meaning::OldSeq | Meaning::Replaced if sent < self.newest => return Ask::Nothing,
            _ => {}
        }
        self.voice.trouble_is(&format!("{} {text}", self.target.label));
        match meaning {
            Meaning::BadToken => Ask::ReadToken(token),
            Meaning::OldSeq if self.renewed.is_none_or(|at| now >= at + RENEW_GAP) => Ask::Renew,
            Meaning::Invalid => {
                // Without the report the beat may be accepted: a box must not go dark over a report.
                self.unwanted = carried.or(self.unwanted);
                Ask::Nothing
            }
            Meaning::Taken(_)
            | Meaning::SlowDown(_)
            | Meaning::OldSeq
            | Meaning::Replaced
            | Meaning::Trouble => Ask::Nothing,
        }
    }
}

/// An error and its sources on one line.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        text = format!("{text}: {inner}");
        source = inner.source();
    }
    text
}
