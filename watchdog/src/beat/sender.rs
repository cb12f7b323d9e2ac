//! Sends to one server: does what its `plan` decides, on `lane`s of its own, and tells what came of it.
//!
//! It never waits: a lane is a task, and all news of lanes comes back through one bounded queue.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::HeaderValue;
use jiff::Timestamp;
use protocol::account::Step;
use protocol::heartbeat::Goodbye;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use uuid::Uuid;

use super::answer::{self, Meaning};
use super::body::Body;
use super::lane::{self, Answer, Fault, Happened, LaneError, LaneEvent, Order, Progress};
use super::plan::{Action, LANES, Plan};
use super::target::Target;
use super::voice::Voice;
use crate::account::around::Sample;
use crate::account::judge::Story;
use crate::account::record::Heard;
use crate::account::silence::{Silence, Stamp, TIMED_OUT};

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
    /// The same moment, on the clock that silences are counted by.
    pub at: Stamp,
    /// What an account is made of.
    pub story: &'a Story,
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
    silence: Silence,
}

struct Running {
    id: u64,
    progress: Arc<Progress>,
    /// A beat is under way on it.
    awaits: bool,
    orders: mpsc::Sender<Order>,
    task: JoinHandle<()>,
    sent: (u64, u64),
    token: u64,
    carries: Option<Uuid>,
    told: Told,
}

/// What the beat under way says of a silence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    /// There is a silence, or none; it says nothing of it.
    Nothing,
    Pending,
    Whole,
    /// There is nothing to explain: the box has never been heard, and has not been there for long.
    Moot,
}

impl Running {
    fn idle(&self) -> bool {
        !self.awaits && self.progress.get().0 == lane::Step::Answer
    }
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
            silence: Silence::new(),
        }
    }

    /// The silence of this server.
    pub fn silence(&mut self) -> &mut Silence {
        &mut self.silence
    }

    /// To be called now and then.
    pub fn turns(&mut self, now: Stamp) {
        self.silence.turns(now, self.plan.interval());
    }

    /// For how long it has taken no beat, if that is a silence.
    pub fn silent_for(&self, now: Stamp, began: Stamp) -> Option<Duration> {
        let silent = self.silence.is_silent(now, self.plan.interval());
        silent.then(|| now.since(self.silence.taken().unwrap_or(began)))
    }

    /// How the box is at `now`: of interest while this server takes no beat.
    pub fn seen(&mut self, now: Stamp, sample: &Sample) {
        self.silence.seen(now, self.plan.interval(), sample);
    }

    /// For the record: what this server has heard, as far as `story` knows.
    pub fn heard(&self, now: Stamp, story: &Story) -> Heard {
        let url = self.target.label.to_string();
        let silent = self.silence.is_silent(now, self.plan.interval());
        let taken = self.silence.reached().or(self.silence.taken());
        if taken.is_none()
            && let Some(known) = story.heard_before(&url)
        {
            let tried = match self.silence.tried() {
                [] => known.tried,
                tried => tried.to_vec(),
            };
            return Heard { tried, ..known };
        }
        Heard {
            url,
            boot_id: taken.map(|_| story.boot_id),
            taken,
            silent,
            tried: self.silence.tried().to_vec(),
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
                Action::Close { lane } => self.give_up(lane, supply.at),
                Action::Send { lane } => self.send(now, lane, supply, authorization.clone(), token),
            }
        }
    }

    /// Takes in what a lane tells; `None` for news of a connection that was given up.
    pub fn happened(&mut self, (now, at): (Instant, Stamp), event: LaneEvent) -> Ask {
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
                self.lost((now, at), lane, &error);
                Ask::Nothing
            }
            Happened::Answered(answer) => self.answered((now, at), lane, &answer),
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

    fn give_up(&mut self, lane: usize, at: Stamp) {
        let Some(running) = self.lanes[lane].take() else {
            return;
        };
        let (step, address) = running.progress.get();
        // One that has nothing to do is no try that failed.
        if let Some(step) = step_of(step).filter(|_| !running.idle()) {
            self.silence.failed(at, step, address, TIMED_OUT);
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
        let progress = Arc::new(Progress::default());
        let task = tokio::spawn(lane::run(
            target,
            (turn, Arc::clone(&progress)),
            take_orders,
            tell,
        ));
        self.lanes[lane] = Some(Running {
            id,
            progress,
            awaits: false,
            orders,
            task,
            sent: (0, 0),
            token: 0,
            carries: None,
            told: Told::Nothing,
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
        let every = self.plan.interval();
        self.silence.turns(supply.at, every);
        let gap = self
            .silence
            .gap(supply.at, every)
            .filter(|_| supply.goodbye.is_none());
        let silence = gap.is_some();
        let account = gap.and_then(|gap| supply.story.account(&self.target.label, gap, supply.at));
        let told = match &account {
            None if silence => Told::Moot,
            None => Told::Nothing,
            Some(account) if account.pending => Told::Pending,
            Some(_) => Told::Whole,
        };
        // A beat has room for one of both.
        let report =
            supply.goodbye.is_none() && told != Told::Whole && self.wants_report(supply.body.report_id());
        supply.body.set_account(account.map(Box::new));
        let written = supply.body.write(supply.wall, every, report, supply.goodbye);
        let Some(running) = &mut self.lanes[lane] else {
            return;
        };
        self.newest.1 = written.seq;
        running.sent = self.newest;
        running.token = token;
        running.carries = written.carries;
        running.told = told;
        running.awaits = true;
        let order = Order {
            late_too: supply.goodbye.is_some(),
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

    fn lost(&mut self, (now, at): (Instant, Stamp), lane: usize, error: &LaneError) {
        self.lanes[lane] = None;
        self.plan.lost(now, lane);
        // A kept-alive connection ends now and then: no trouble until a new one cannot be had.
        if error.step != lane::Step::Idle {
            self.voice.trouble_is(&chain(error));
        }
        if let Some(step) = step_of(error.step) {
            self.silence
                .failed(at, step, error.address, &detail_of(&error.fault));
        }
    }

    fn answered(&mut self, (now, at): (Instant, Stamp), lane: usize, answer: &Answer) -> Ask {
        let (meaning, text) = answer::read(answer);
        self.plan.answered(now, lane, meaning.said());
        let Some(running) = &mut self.lanes[lane] else {
            return Ask::Nothing;
        };
        let (sent, token, carried) = (running.sent, running.token, running.carries.take());
        let told = std::mem::replace(&mut running.told, Told::Nothing);
        running.awaits = false;
        match meaning {
            Meaning::Taken(taken) => {
                self.last_taken = Some(now);
                let told = matches!(told, Told::Whole | Told::Moot);
                self.silence.answered(at, self.plan.interval(), told);
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
        self.silence
            .failed(at, Step::HttpStatus, None, &format!("{}: {text}", answer.status));
        match meaning {
            Meaning::BadToken => Ask::ReadToken(token),
            Meaning::OldSeq if self.renewed.is_none_or(|at| now >= at + RENEW_GAP) => Ask::Renew,
            Meaning::Invalid => {
                // Without the report the beat may be accepted: a box must not go dark over a report.
                self.unwanted = carried.or(self.unwanted);
                if matches!(told, Told::Pending | Told::Whole) && carried.is_none() {
                    self.silence.unwanted();
                }
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

fn step_of(step: lane::Step) -> Option<Step> {
    match step {
        lane::Step::Resolve => Some(Step::Dns),
        lane::Step::Connect => Some(Step::Connect),
        lane::Step::Tls => Some(Step::Tls),
        lane::Step::Answer => Some(Step::Answer),
        // A kept-alive connection ends now and then; what comes of the next one counts.
        lane::Step::Idle => None,
    }
}

fn detail_of(fault: &Fault) -> String {
    match fault {
        Fault::TimedOut(_) => TIMED_OUT.to_owned(),
        Fault::Resolve(_)
        | Fault::NoAddress
        | Fault::Io(_)
        | Fault::UnknownIssuer
        | Fault::Http(_)
        | Fault::TooLong
        | Fault::Closed => fault.to_string(),
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
