//! One fleet through its years: boxes, paths, server, in virtual time.
//!
//! A box in fair weather is *calm*: nothing of it is an event, its beats are told in bulk when the weather changes.
//! Around each fault it is played out: every beat, connection, repetition, question to a witness.

mod boxes;
mod queue;
mod watch;

use std::time::Duration;

use fleet_server::liveness::beat::WitnessAnswer;
use fleet_server::liveness::time::Mono;
use fleet_server::store::Store as _;

use self::boxes::{Mode, SimBox};
use self::queue::{Happening, Queue};
use self::watch::Watch;
pub use self::watch::{Record, Strange};
use crate::client::{Around, Client, News, Outcome};
use crate::desk::must;
use crate::dice::Dice;
use crate::path::{Broken, SYN_RTO, Sending, ServerTimes};
use crate::post::Post;
use crate::profile::{self, Profile};
use crate::schedule::{Fault, What, after};
use crate::server::{Server, Turn};

/// Boxes are played out from so long before a fault …
const LEAD: Duration = Duration::from_millis(2500);
/// … until at least so long after it.
const TRAIL: Duration = Duration::from_secs(5);
/// … after trouble of the server: until everybody is judged again.
const SERVER_TRAIL: Duration = Duration::from_secs(20);
/// A witness's question may take so long: a first SYN and its repetition, as the server has it.
const WITNESS_LIMIT: Duration = Duration::from_millis(1500);
/// A box that is away for longer than this must be found.
pub const MUST_FIND: Duration = Duration::from_secs(60);

/// What is simulated.
#[derive(Debug, Clone)]
pub struct Setup<'a> {
    /// The weather.
    pub profile: &'a Profile,
    /// Whether every box has a witness.
    pub witness: bool,
    /// Whether the server asks for its own way out, as it does by default.
    pub own: bool,
    /// The seed.
    pub seed: u64,
    /// Which fleet of that seed.
    pub fleet: u64,
    /// How long.
    pub days: f64,
    /// What happens.
    pub faults: &'a [Fault],
}

/// The simulation of one fleet.
#[derive(Debug)]
pub struct Fleet<'a> {
    setup: Setup<'a>,
    server: Server,
    times: ServerTimes,
    boxes: Vec<SimBox>,
    queue: Queue,
    post: Post,
    own_asking: bool,
    watch: Watch,
    now: Mono,
    out: Vec<(Mono, Outcome)>,
}

impl<'a> Fleet<'a> {
    /// Runs it to its end.
    pub fn run(setup: Setup<'a>) -> Record {
        let mut fleet = Self::new(setup);
        fleet.prove_own();
        let end = after(fleet.setup.days * crate::schedule::DAY_SECS);
        while fleet.step(end) {}
        for ix in fleet.server.forgotten() {
            fleet.watch.forgotten(end, ix.at());
        }
        fleet.last_words();
        let allowed = fleet.server.allowed();
        let faults = fleet.setup.faults.iter();
        let server_troubles = faults.filter(|fault| fault.what.is_the_servers()).count() as u64;
        Record {
            server_troubles,
            ..fleet.watch.finish(end, &fleet.boxes, &allowed)
        }
    }

    fn new(setup: Setup<'a>) -> Self {
        let now = after(0.0);
        let times = server_times(setup.faults);
        let mut boxes = boxes::draw(&setup, now);
        let infos = boxes.iter().map(|one| one.info(&setup)).collect();
        let settings = crate::desk::settings();
        let tolerance = settings.liveness.tolerance;
        let mut server = Server::new(settings, infos, now);
        let mut queue = Queue::new(setup.faults);
        for one in &mut boxes {
            let at = now + Duration::from_secs_f64(one.dice.unit());
            one.mode = Mode::Active(Box::new(Client::new(at, one.dice.draw(), None, 0)));
            one.busy_until = at + TRAIL;
            queue.push(at, Happening::Wake(one.ix.at()));
        }
        let _ = server.turn(now);
        let names = server.desk().receivers().to_vec();
        let dice = Dice::of(&[setup.seed, setup.fleet, 7]);
        let post = Post::new(&names, outages(setup.faults, names.len()), dice);
        let watch = Watch::new(boxes.len(), tolerance, now);
        Self {
            setup,
            server,
            times,
            boxes,
            queue,
            post,
            own_asking: false,
            watch,
            now,
            out: Vec::new(),
        }
    }

    /// The next thing that happens; false at the end.
    fn step(&mut self, end: Mono) -> bool {
        let next = self.queue.next_at();
        let tick = self.server.next_tick();
        let tick = if self.times.handled(tick) == Some(tick) {
            tick
        } else {
            Mono::NEVER
        };
        if tick.min(next) >= end {
            return false;
        }
        if tick < next {
            self.now = tick;
            let turn = self.server.tick(tick, false);
            self.heed(&turn);
            return true;
        }
        let Some((at, happening)) = self.queue.pop() else {
            return false;
        };
        self.now = at;
        match happening {
            Happening::Soon(fault) => self.soon(fault),
            Happening::Begins(fault) => self.begins(fault),
            Happening::Ends(fault) => self.ends(fault),
            Happening::Wake(of) => self.wake(of),
            Happening::Of(of, outcome) => self.outcome(of, outcome),
            Happening::Ask(of) => self.ask(of),
            Happening::Said(of, asked, answer) => self.said(of, asked, answer),
            Happening::AskOwn => self.ask_own(),
            Happening::OwnSaid(asked, answered) => self.own_said(asked, answered),
            Happening::Post(receiver) => self.post(receiver),
            Happening::Posted(receiver, turn) => self.posted(receiver, turn),
        }
        true
    }

    fn concerned(&self, what: What) -> std::ops::Range<usize> {
        let per_site = self.setup.profile.boxes_per_site;
        match what {
            What::Burst(of)
            | What::Rebind(of)
            | What::Unlucky(of)
            | What::Freeze(of)
            | What::Death(of)
            | What::Kill(of)
            | What::Hang(of) => of as usize..of as usize + 1,
            What::ReceiverDown(_) => 0..0,
            What::Flap(site) | What::SiteDeath(site) => {
                (site * per_site) as usize..((site + 1) * per_site) as usize
            }
            What::ServerPause | What::ServerRestart | What::ServerHalfCut(_) | What::ServerCut => {
                0..self.boxes.len()
            }
        }
    }

    /// A fault is near: who it concerns is played out from now on.
    fn soon(&mut self, fault: Fault) {
        let trail = if fault.what.is_the_servers() {
            SERVER_TRAIL
        } else {
            TRAIL
        };
        for of in self.concerned(fault.what) {
            let one = &mut self.boxes[of];
            one.busy_until = one.busy_until.max(fault.to() + trail);
            if let Mode::Calm {
                last_sent,
                conn,
                route,
            } = one.mode
            {
                // A stream of its own for each time: without other faults this one would be the same.
                one.dice = Dice::of(&[
                    self.setup.seed,
                    self.setup.fleet,
                    5,
                    of as u64,
                    fault.from().as_micros(),
                ]);
                let beats = one.calm_beats(last_sent, self.now, self.setup.profile);
                self.watch.on_time(of, &beats, one);
                self.server.beats_came(one.ix, &beats);
                let at = last_sent + Duration::from_secs(u64::from(beats.steady.count) + 1);
                one.path.forget(self.now);
                let seed = one.dice.draw();
                one.mode = Mode::Active(Box::new(Client::new(at, seed, Some(conn), route)));
                self.queue.push(at, Happening::Wake(of));
            }
        }
    }

    fn begins(&mut self, fault: Fault) {
        match fault.what {
            What::Unlucky(of) => {
                if let Mode::Active(client) = &mut self.boxes[of as usize].mode {
                    client.unlucky = 3;
                }
            }
            What::Death(of) | What::Kill(of) | What::Hang(of) => self.dies(of as usize, fault),
            What::SiteDeath(_) => self.concerned(fault.what).for_each(|of| self.dies(of, fault)),
            What::ServerPause | What::ServerRestart => self.server_stops(fault),
            What::Burst(_)
            | What::Flap(_)
            | What::Rebind(_)
            | What::Freeze(_)
            | What::ServerHalfCut(_)
            | What::ServerCut
            | What::ReceiverDown(_) => {}
        }
    }

    fn ends(&mut self, fault: Fault) {
        match fault.what {
            What::Death(of) | What::Kill(of) | What::Hang(of) => self.returns(of as usize, fault),
            What::SiteDeath(_) => self.concerned(fault.what).for_each(|of| self.returns(of, fault)),
            What::ServerPause => {
                // The tick first: what waits in sockets is read after it, in the worst case.
                let turn = self.server.tick(self.now, true);
                self.heed(&turn);
            }
            What::ServerRestart => {
                self.server.restart(fault.from(), self.now);
                self.watch.restarted();
                self.wake_workers();
                self.prove_own();
            }
            What::Burst(_)
            | What::Flap(_)
            | What::Rebind(_)
            | What::Unlucky(_)
            | What::Freeze(_)
            | What::ServerHalfCut(_)
            | What::ServerCut
            | What::ReceiverDown(_) => {}
        }
    }

    fn dies(&mut self, of: usize, fault: Fault) {
        let one = &mut self.boxes[of];
        if one.gone_with.is_some() || !one.path.is_own(&fault) {
            return;
        }
        one.gone_with = Some(fault);
        let client = std::mem::replace(&mut one.mode, Mode::Gone);
        if let (Mode::Active(mut client), What::Kill(_)) = (client, fault.what) {
            let mut around = one.around(&self.times, self.setup.profile, &mut self.out);
            client.killed(self.now, &mut around);
        }
        self.take_out(of);
        self.watch.died(of, fault);
    }

    fn returns(&mut self, of: usize, fault: Fault) {
        let one = &mut self.boxes[of];
        if one.gone_with != Some(fault) {
            return;
        }
        one.gone_with = None;
        one.reborn(matches!(fault.what, What::Death(_) | What::SiteDeath(_)));
        let seed = one.dice.draw();
        one.mode = Mode::Active(Box::new(Client::new(self.now, seed, None, 0)));
        one.busy_until = one.busy_until.max(self.now + TRAIL);
        self.queue.push(self.now, Happening::Wake(of));
        self.watch.returned(of);
    }

    fn server_stops(&mut self, fault: Fault) {
        // Up to its last moment it ticked.
        if self.now.since(self.server.last_tick()) > fleet_server::liveness::self_doubt::TICK {
            self.server.ticked_until(self.now);
        }
        if fault.what != What::ServerRestart {
            return;
        }
        self.post.stopped();
        for of in 0..self.boxes.len() {
            let one = &self.boxes[of];
            let Mode::Active(client) = &one.mode else { continue };
            for (lane, conn, route) in client.conns() {
                let sending = one.sending(self.now, route);
                let hears = one.path.blocked(&self.times, self.now, sending).is_none();
                let after = if hears { one.path.rtt_secs / 2.0 } else { 5.0 };
                let at = self.now + Duration::from_secs_f64(after);
                let news = News::Lost;
                self.queue
                    .push(at, Happening::Of(of, Outcome::Lane { lane, conn, news }));
            }
        }
    }

    fn wake(&mut self, of: usize) {
        if self.asleep(of, Happening::Wake(of)) {
            return;
        }
        let one = &mut self.boxes[of];
        let due = matches!(&one.mode, Mode::Active(client) if client.wake_at <= self.now);
        if due {
            self.turn_client(of);
        }
    }

    /// A machine that stands still does it when it goes on.
    fn asleep(&mut self, of: usize, happening: Happening) -> bool {
        let still = self.boxes[of].path.standing_still(self.now);
        let Some(until) = still.filter(|one| one.of == Broken::Frozen).map(|one| one.to) else {
            return false;
        };
        self.queue.push(until, happening);
        true
    }

    fn turn_client(&mut self, of: usize) {
        let one = &mut self.boxes[of];
        let Mode::Active(mut client) = std::mem::replace(&mut one.mode, Mode::Gone) else {
            return;
        };
        let before = client.wake_at;
        let mut around: Around<'_> = one.around(&self.times, self.setup.profile, &mut self.out);
        client.turn(self.now, &mut around);
        if client.wake_at != before || before <= self.now {
            self.queue.push(client.wake_at, Happening::Wake(of));
        }
        one.mode = Mode::Active(client);
        self.take_out(of);
    }

    fn take_out(&mut self, of: usize) {
        for (at, outcome) in self.out.drain(..) {
            self.queue.push(at, Happening::Of(of, outcome));
        }
    }

    fn outcome(&mut self, of: usize, outcome: Outcome) {
        match outcome {
            Outcome::Lane { lane, conn, news } => {
                if self.asleep(of, Happening::Of(of, outcome)) {
                    return;
                }
                let Mode::Active(client) = &mut self.boxes[of].mode else {
                    return;
                };
                client.told(self.now, lane, conn, news);
                self.turn_client(of);
                self.perhaps_calm(of);
            }
            Outcome::Arrives {
                conn,
                conn_since,
                seq,
                session,
            } => {
                let outlived = conn_since < self.server.started() && self.server.started() > after(0.0);
                if self.down() || outlived {
                    self.watch.lost_to_server(of, self.now);
                    return;
                }
                let beat = self.boxes[of].arrival(conn, seq, session);
                let ix = self.boxes[of].ix;
                if self.server.beat(ix, self.now, &beat).is_ok() {
                    self.watch.heard(of, self.now, &self.boxes[of], &self.times);
                }
            }
            Outcome::LostToServer => self.watch.lost_to_server(of, self.now),
            Outcome::Closes(conn) => {
                if self.down() {
                    return;
                }
                self.server.closed(self.boxes[of].ix, conn, self.now);
            }
        }
    }

    fn perhaps_calm(&mut self, of: usize) {
        let one = &mut self.boxes[of];
        let Mode::Active(client) = &one.mode else { return };
        if self.now < one.busy_until || client.smooth < 3 {
            return;
        }
        let (Some(conn), true) = (client.only_conn(), self.server.is_live(one.ix)) else {
            return;
        };
        one.mode = Mode::Calm {
            last_sent: client.last_sent,
            conn,
            route: client.route(),
        };
        self.server.in_bulk(one.ix);
    }

    fn ask(&mut self, of: usize) {
        if self.later(Happening::Ask(of)) || !self.server.is_suspect(self.boxes[of].ix) {
            self.boxes[of].asking = false;
            return;
        }
        let answer = self.probe(of);
        let said = Happening::Said(of, self.now, answer.1);
        self.queue.push(answer.0, said);
        let again = self.now + Duration::from_secs_f64(profile::WITNESS_EVERY_SECS);
        self.queue.push(again, Happening::Ask(of));
    }

    /// A TCP connection to the box's machine: a SYN and its repetition.
    fn probe(&mut self, of: usize) -> (Mono, WitnessAnswer) {
        let limit = self.now + WITNESS_LIMIT;
        let one = &mut self.boxes[of];
        for at in [self.now, self.now + SYN_RTO] {
            let sending = Sending {
                conn_since: at,
                ..one.sending(at, 0)
            };
            let both = one.dice.chance((1.0 - one.path.loss(at)).powi(2));
            if both && one.path.blocked(&self.times, at, sending).is_none() {
                let back = at + one.path.delay(&mut one.dice, at) + one.path.delay(&mut one.dice, at);
                if back <= limit {
                    return (back, WitnessAnswer::Reachable);
                }
            }
        }
        (limit, WitnessAnswer::Unreachable)
    }

    fn said(&mut self, of: usize, asked: Mono, answer: WitnessAnswer) {
        if !self.later(Happening::Said(of, asked, answer)) {
            self.server.witness(self.boxes[of].ix, asked, self.now, answer);
        }
    }

    /// A server that stands still does it later; one that is down, never.
    fn later(&mut self, happening: Happening) -> bool {
        match self.times.handled(self.now) {
            Some(at) if at > self.now => {
                self.queue.push(at, happening);
                true
            }
            Some(_) => false,
            None => true,
        }
    }

    /// The hosts of the receivers, as the server has it by default: while somebody is overdue, each second.
    fn ask_own(&mut self) {
        if self.later(Happening::AskOwn) || !self.server.is_doubtful(self.now) {
            self.own_asking = false;
            return;
        }
        self.own_asking = true;
        self.server.own_asked(self.now);
        let (at, answered) = if self.times.cut(0, self.now) {
            (self.now + WITNESS_LIMIT, false)
        } else {
            (self.now + Duration::from_secs_f64(profile::OWN_ANSWER_SECS), true)
        };
        self.queue.push(at, Happening::OwnSaid(self.now, answered));
        let again = self.now + Duration::from_secs_f64(profile::WITNESS_EVERY_SECS);
        self.queue.push(again, Happening::AskOwn);
    }

    fn own_said(&mut self, asked: Mono, answered: bool) {
        if !self.later(Happening::OwnSaid(asked, answered)) && asked >= self.server.started() {
            self.server.own_answered(asked, answered);
        }
    }

    fn post(&mut self, receiver: usize) {
        if self.later(Happening::Post(receiver)) {
            return;
        }
        let store = self.server.desk().store();
        let (ends, taken) = self.post.look(receiver, self.now, store, &self.times);
        if let Some((at, turn)) = ends {
            self.queue.push(at, Happening::Posted(receiver, turn));
        }
        for one in taken {
            self.watch.taken(&one);
        }
    }

    fn posted(&mut self, receiver: usize, turn: u64) {
        if self.later(Happening::Posted(receiver, turn)) {
            return;
        }
        let store = self.server.desk().store();
        let (again, health) = self.post.settle((receiver, turn), self.now, store);
        if again < Mono::NEVER {
            self.queue.push(again, Happening::Post(receiver));
        }
        if let Some(health) = health {
            let turn = self.server.receiver(&health, self.now);
            self.heed(&turn);
        }
    }

    /// Who has never answered is not believed: they are asked at the start.
    fn prove_own(&mut self) {
        if self.setup.own && !std::mem::replace(&mut self.own_asking, true) {
            self.queue.push(self.now, Happening::AskOwn);
        }
    }

    fn wake_workers(&mut self) {
        for receiver in 0..self.server.desk().receivers().len() {
            self.queue.push(self.now, Happening::Post(receiver));
        }
    }

    /// The time is over: nothing happens any more but that receivers are told of what was decided.
    fn last_words(&mut self) {
        while let Some((at, happening)) = self.queue.pop() {
            self.now = at;
            match happening {
                Happening::Post(receiver) => self.post(receiver),
                Happening::Posted(receiver, turn) => {
                    let store = self.server.desk().store();
                    let (again, _) = self.post.settle((receiver, turn), at, store);
                    if again < Mono::NEVER {
                        self.queue.push(again, Happening::Post(receiver));
                    }
                }
                Happening::Ends(fault) if fault.what == What::ServerRestart => self.wake_workers(),
                Happening::Soon(_)
                | Happening::Begins(_)
                | Happening::Ends(_)
                | Happening::Wake(_)
                | Happening::Of(..)
                | Happening::Ask(_)
                | Happening::AskOwn
                | Happening::OwnSaid(..)
                | Happening::Said(..) => {}
            }
        }
        let waiting = must(self.server.desk().store().pending());
        self.post.told.lost = waiting.iter().map(|one| one.count).sum();
        self.post.told.untold = self.post.untold();
        self.watch.told(self.post.told);
    }

    fn down(&self) -> bool {
        self.times.handled(self.now).is_none()
    }

    fn heed(&mut self, turn: &Turn) {
        self.post.decided(&turn.changes);
        for receiver in 0..self.server.desk().receivers().len() {
            let name = &self.server.desk().receivers()[receiver];
            if turn.rows.iter().any(|row| row.receiver == *name) {
                self.queue.push(self.now, Happening::Post(receiver));
            }
        }
        if self.server.is_doubtful(self.now) {
            self.prove_own();
        }
        for ix in self.watch.heed(self.now, turn, &self.boxes) {
            let one = &mut self.boxes[ix.at()];
            if self.setup.witness && !one.asking {
                one.asking = true;
                self.queue.push(self.now, Happening::Ask(ix.at()));
            }
        }
    }
}

/// When each receiver takes nothing.
fn outages(faults: &[Fault], receivers: usize) -> Vec<Vec<(Mono, Mono)>> {
    let of = |receiver: usize| {
        let own = faults.iter().filter(|fault| match fault.what {
            What::ReceiverDown(of) => usize::from(of) == receiver,
            _ => false,
        });
        own.map(|fault| (fault.from(), fault.to())).collect()
    };
    (0..receivers).map(of).collect()
}

fn server_times(faults: &[Fault]) -> ServerTimes {
    let mut times = ServerTimes::default();
    let of = |wanted: &dyn Fn(What) -> bool| {
        let mut all: Vec<(Mono, Mono)> = Vec::new();
        for fault in faults.iter().filter(|fault| wanted(fault.what)) {
            // One after the other: a second of the same while the first lasts makes it longer.
            match all.last_mut() {
                Some(last) if last.1 >= fault.from() => last.1 = last.1.max(fault.to()),
                Some(_) | None => all.push((fault.from(), fault.to())),
            }
        }
        all
    };
    for route in 0..2_u8 {
        times.cuts[usize::from(route)] =
            of(&|what| what == What::ServerCut || what == What::ServerHalfCut(route));
    }
    times.pauses = of(&|what| what == What::ServerPause);
    times.downs = of(&|what| what == What::ServerRestart);
    times
}
