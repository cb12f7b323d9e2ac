//! The shell that plays a schedule in real time, mends everything at its end, waits until all is as it must be, and hands
//! over what it did and saw.
//!
//! One thread does everything, so that what it writes down is in the order in which it was done.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use protocol::alert::Alert;
use protocol::api::{Liveness, NewToken};
use protocol::names::Labels;
use uuid::Uuid;

use super::fleet::Boxes;
use super::history::{Books, Done, History, RULES, ReceiverTruth, Span, Told, end};
use super::oracle;
use super::process::{Clock, Operator, Process};
use super::schedule::{BOXES, Cable, Ill, RECEIVERS, SITE_BOXES, STEP_SECS, Schedule, Step, What, box_name};
use super::world::{Disk, Place};
use crate::clock::{self, secs};
use crate::http;
use crate::lab::Lab;
use crate::sim::credentials::Known;
use crate::webhook::{Arrival, Mode, Webhook};

/// The driver looks at everything this often.
const LOOK: Duration = Duration::from_millis(10);
/// The same while it waits for a notification.
const SHARP_LOOK: Duration = Duration::from_micros(300);
/// Before the schedule begins every box is live, and the server judges.
const START_LIMIT: Duration = secs(20);
/// After the last fault everything is told within this: the longest wait of a receiver's worker that failed for some
/// seconds, a lost answer's time-out, a storm's end, and how long verdicts wait while many come back.
const SETTLE_LIMIT: Duration = secs(45);
/// Between two looks at the books while waiting for that.
const SETTLE_LOOK: Duration = Duration::from_millis(200);
/// All is quiet for so long at the end: what comes then comes without need.
const QUIET: Duration = Duration::from_millis(1200);
/// How late a slow receiver answers.
const SLOW: Duration = Duration::from_millis(700);

/// A receiver with its cable.
struct Hook {
    webhook: Webhook,
    place: Place,
    ill: Vec<(usize, Ill)>,
    truth: ReceiverTruth,
}

struct Driver {
    clock: Clock,
    server: Process,
    disk: Disk,
    boxes: Boxes,
    hooks: Vec<Hook>,
    done: Arc<Mutex<Vec<Done>>>,
    /// Boxes added by the API, with their tokens.
    added: Arc<Mutex<Vec<Known>>>,
    /// The second receiver is a step.
    steps: bool,
    /// The server is to be killed when more notifications than these have arrived.
    armed: Option<usize>,
}

/// Plays the schedule in the namespaces of this process. `library`: the preloaded one of `tests/genuine/sickdisk`.
pub(super) fn play(schedule: &Schedule, dir: &Path, library: &Path) -> Result<(History, String)> {
    let starved = Starved::watch();
    let mut driver = Driver::start(schedule, dir, library)?;
    let zero = driver.clock.ms();
    let mut steps = schedule.begins_and_ends().into_iter().peekable();
    while steps.peek().is_some() {
        let now = (driver.clock.ms() - zero) as u64;
        while let Some(step) = steps.next_if(|step| step.at_ms <= now) {
            driver.perform(schedule, step)?;
        }
        driver.tend()?;
        driver.wait()?;
    }
    let unsettled = driver.settle()?;
    let log = driver.server.log();
    let last = driver.server.books().unwrap_or_default();
    let history = History {
        unsettled,
        refused: driver.refused(),
        starved_ms: starved.worst_ms(),
        starved_percent: starved.percent(),
        ..driver.history(last)
    };
    Ok((history, log))
}

impl Driver {
    fn start(schedule: &Schedule, dir: &Path, library: &Path) -> Result<Self> {
        let lab = Lab::new(dir, "faults")?;
        let names: Vec<String> = (0..BOXES)
            .map(|ix| format!("b{ix}"))
            .chain((0..RECEIVERS).map(|ix| format!("r{ix}")))
            .collect();
        let mut places = Place::make(&names)?;
        let hooks = places
            .split_off(BOXES)
            .into_iter()
            .enumerate()
            .map(|(ix, place)| Hook::start(ix, place))
            .collect::<Result<Vec<_>>>()?;
        let at = lab.host_dir("server/data")?;
        let disk = Disk::mount(&lab, &at, schedule.disk_mib)?;
        let clock = Clock::start();
        let config = config(&hooks, schedule.steps);
        let mut server = Process::prepare(&lab, clock, &config, disk.environment(library))?;
        server.want();
        server.tend(false);
        ensure!(server.serves(), "the server does not start:\n{}", server.log());
        let boxes = Boxes::start((&server.url(), server.data_dir()), places, schedule.seed, clock)?;
        let mut driver = Self {
            clock,
            server,
            disk,
            boxes,
            hooks,
            done: Arc::default(),
            added: Arc::default(),
            steps: schedule.steps,
            armed: None,
        };
        let up = |driver: &Self| {
            driver.server.books().is_ok_and(|books| all_live(&books)) && driver.server.is_ready()
        };
        let limit = clock::now() + START_LIMIT;
        while !up(&driver) {
            ensure!(
                clock::now() < limit,
                "not all boxes are live at the start:\n{}",
                driver.server.log()
            );
            driver.tend()?;
            clock::pause(LOOK);
        }
        Ok(driver)
    }

    fn tend(&mut self) -> Result<()> {
        self.boxes.look();
        self.disk.tend()?;
        self.server.tend(self.disk.is_ill());
        Ok(())
    }

    /// A look's time; if the server is to be killed at a notification, with an eye on those.
    fn wait(&mut self) -> Result<()> {
        let end = clock::now() + LOOK;
        while let Some(before) = self.armed {
            if self.arrived() > before {
                self.armed = None;
                self.server.kill_at_once()?;
            } else if clock::now() >= end {
                return Ok(());
            }
            clock::pause(SHARP_LOOK);
        }
        clock::pause(end.saturating_duration_since(clock::now()));
        Ok(())
    }

    fn arrived(&self) -> usize {
        self.hooks.iter().map(|hook| hook.webhook.count()).sum()
    }

    fn perform(&mut self, schedule: &Schedule, step: Step) -> Result<()> {
        let fault = schedule
            .faults
            .get(step.fault)
            .context("a step of the schedule")?;
        if step.ends {
            self.mend(step.fault, fault.what)
        } else {
            self.begin(step.fault, fault.what)
        }
        .with_context(|| format!("{fault}"))
    }

    fn begin(&mut self, number: usize, what: What) -> Result<()> {
        match what {
            What::ServerKill => self.server.kill()?,
            What::ServerKillAtNotification => self.armed = Some(self.arrived()),
            What::ServerRestart => self.server.stop()?,
            What::ServerHang => self.server.hang()?,
            What::StoreFull { again } => {
                self.disk_falls_ill();
                self.disk.fill(again)?;
            }
            What::StoreReadOnly => {
                self.disk_falls_ill();
                self.disk.sicken()?;
            }
            What::StoreReadOnlyAtStart => {
                self.server.kill()?;
                self.disk_falls_ill();
                self.disk.read_only(true)?;
                self.server.want();
            }
            What::Receiver { ix, how } => {
                let hook = self.hooks.get_mut(ix).context("no such receiver")?;
                hook.ill.push((number, how));
                hook.apply()?;
            }
            What::Cable(Cable::Receiver(ix)) => {
                let now = self.clock.ms();
                let hook = self.hooks.get_mut(ix).context("no such receiver")?;
                if hook.place.cut()? {
                    hook.truth.cut.push(Span::begun(now));
                }
            }
            What::Cable(cable) => {
                for ix in behind(cable) {
                    self.boxes.cut(ix)?;
                }
            }
            What::BoxGoes { ix, how } => self.boxes.goes(ix, how)?,
            What::BoxDies { ix } => self.boxes.goes(ix, super::schedule::Going::Silent)?,
            What::Check { ix, check } => self.boxes.fails(ix, check)?,
            What::Acknowledge => self.acknowledge(number),
            What::AddBox => self.add_box(number),
            What::Silence { ix, secs } => self.silence(number, ix, secs),
        }
        Ok(())
    }

    fn mend(&mut self, number: usize, what: What) -> Result<()> {
        match what {
            What::ServerKill | What::ServerRestart => self.server.want(),
            What::ServerKillAtNotification => {
                self.armed = None;
                self.server.want();
            }
            What::ServerHang => self.server.go_on()?,
            What::StoreFull { again } => {
                self.disk.empty(again);
                self.disk.tend()?;
                self.disk_may_be_well();
            }
            What::StoreReadOnly => {
                self.disk.cure()?;
                self.disk_may_be_well();
            }
            What::StoreReadOnlyAtStart => {
                self.disk.read_only(false)?;
                self.disk.tend()?;
                self.disk_may_be_well();
            }
            What::Receiver { ix, .. } => {
                let hook = self.hooks.get_mut(ix).context("no such receiver")?;
                hook.ill.retain(|(fault, _)| *fault != number);
                hook.apply()?;
            }
            What::Cable(Cable::Receiver(ix)) => {
                let now = self.clock.ms();
                let hook = self.hooks.get_mut(ix).context("no such receiver")?;
                if hook.place.heal()? {
                    end(&mut hook.truth.cut, now);
                }
            }
            What::Cable(cable) => {
                for ix in behind(cable) {
                    self.boxes.heal(ix)?;
                }
            }
            What::BoxGoes { ix, .. } => self.boxes.comes(ix)?,
            What::Check { ix, check } => self.boxes.mends(ix, check)?,
            What::BoxDies { .. } | What::Acknowledge | What::AddBox | What::Silence { .. } => {}
        }
        Ok(())
    }

    fn disk_falls_ill(&mut self) {
        let ill = &mut self.server.truth.disk_ill;
        if ill.last().is_none_or(|span| span.to_ms != Span::OPEN) {
            ill.push(Span::begun(self.clock.ms()));
        }
    }

    fn disk_may_be_well(&mut self) {
        if !self.disk.is_ill() {
            end(&mut self.server.truth.disk_ill, self.clock.ms());
        }
    }

    /// Lets an operator do something who is in no hurry: a server in trouble may keep them waiting for seconds.
    fn ask(&self, what: impl FnOnce(&Operator) -> Option<Done> + Send + 'static) {
        if !self.server.serves() {
            return;
        }
        let (operator, done) = (self.server.operator(), Arc::clone(&self.done));
        std::thread::spawn(move || {
            if let Some(one) = what(&operator) {
                lock(&done).push(one);
            }
        });
    }

    fn acknowledge(&self, number: usize) {
        self.ask(move |operator| {
            let books = operator.books().ok()?;
            let open = books
                .incidents
                .iter()
                .find(|one| one.incident.resolved_at.is_none());
            let id = open?.incident.id;
            let note = format!("seen {number}");
            let body = serde_json::json!({ "note": note }).to_string();
            operator.post(&format!("/v1/incidents/{id}/ack"), &body).ok()?;
            let at_ms = operator.ms();
            Some(Done::Acknowledged { at_ms, id, note })
        });
    }

    fn add_box(&self, number: usize) {
        let added = Arc::clone(&self.added);
        self.ask(move |operator| {
            let name = format!("extra-{number}");
            let body = serde_json::json!({ "name": name, "labels": { "site": "extra" } }).to_string();
            let made: NewToken = serde_json::from_value(operator.post("/v1/boxes", &body).ok()?).ok()?;
            let at_ms = operator.ms();
            lock(&added).push(Known {
                name: made.name,
                labels: Labels::default(),
                token: made.token,
            });
            Some(Done::Added { at_ms, name })
        });
    }

    fn silence(&self, number: usize, ix: Option<usize>, for_secs: u64) {
        self.ask(move |operator| {
            let about = ix.map(box_name);
            let name = about.clone().unwrap_or_else(|| format!("nobody-{number}"));
            let wish =
                serde_json::json!({ "match": { "box": [name] }, "for_secs": for_secs, "reason": "none" });
            let asked_ms = operator.ms();
            let id = operator.post("/v1/silences", &wish.to_string()).ok()?["id"].as_i64()?;
            Some(Done::Silenced {
                asked_ms,
                at_ms: operator.ms(),
                id,
                about,
                until_ms: operator.ms() + for_secs as i64 * 1000,
            })
        });
    }

    /// Waits until all is as it must be now that every fault is over; what is not.
    fn settle(&mut self) -> Result<Vec<String>> {
        self.server.go_on()?;
        self.server.want();
        let limit = clock::now() + SETTLE_LIMIT;
        let mut next_look = clock::now();
        let mut quiet_since = None;
        let mut lacks = vec!["nothing was looked at yet".to_owned()];
        loop {
            self.tend()?;
            let now = clock::now();
            if now >= next_look {
                next_look = now + SETTLE_LOOK;
                lacks = self.lacks();
                let since = *quiet_since.get_or_insert(now);
                if !lacks.is_empty() {
                    quiet_since = None;
                } else if now - since >= QUIET {
                    return Ok(lacks);
                }
            }
            if now >= limit && !lacks.is_empty() {
                return Ok(lacks);
            }
            clock::pause(LOOK);
        }
    }

    fn lacks(&self) -> Vec<String> {
        if !self.server.serves() {
            return vec!["the server does not serve".to_owned()];
        }
        match self.server.books() {
            Ok(books) => oracle::lacks(&self.history(books)),
            Err(err) => vec![format!("the API: {err:#}")],
        }
    }

    /// Boxes that were added meanwhile, and whose token is not taken.
    fn refused(&self) -> Vec<String> {
        let beat = serde_json::json!({
            "boot_id": Uuid::new_v4(), "session": Uuid::new_v4(), "seq": 0, "every_ms": 1000, "sent_at": self.clock.wall(),
        });
        let url = format!("{}/v1/heartbeat", self.server.url());
        let refused = |known: &&Known| {
            let bearer = format!("Bearer {}", known.token.expose());
            let headers = [("authorization", &*bearer), ("content-type", "application/json")];
            http::send("POST", &url, &headers, beat.to_string().as_bytes())
                .is_ok_and(|answer| answer.status == 401)
        };
        lock(&self.added)
            .iter()
            .filter(refused)
            .map(|known| known.name.to_string())
            .collect()
    }

    /// All so far, with these books as the last ones.
    fn history(&self, last: Books) -> History {
        History {
            rules: RULES,
            boxes: self.boxes.truth(),
            server: self.server.truth.clone(),
            step_ms: self.steps.then_some(STEP_SECS as i64 * 1000),
            receivers: self.hooks.iter().map(|hook| hook.told(&self.clock)).collect(),
            restarts: self.server.restarts.clone(),
            done: lock(&self.done).clone(),
            last,
            refused: Vec::new(),
            unsettled: Vec::new(),
            zero: self.clock.wall(),
            starved_ms: 0,
            starved_percent: 0,
            ended_ms: self.clock.ms(),
        }
    }
}

impl Hook {
    fn start(ix: usize, place: Place) -> Result<Self> {
        let address = format!("{}:9900", place.address());
        let webhook = place.inside(|| Webhook::start(&address))?;
        let truth = ReceiverTruth {
            name: format!("hook-{ix}"),
            ..ReceiverTruth::default()
        };
        Ok(Self {
            webhook,
            place,
            ill: Vec::new(),
            truth,
        })
    }

    /// It is as the newest illness that is not over says.
    fn apply(&self) -> Result<()> {
        let mode = match self.ill.last() {
            None => Mode::Up,
            Some((_, ill)) => match ill {
                Ill::Down => Mode::Down,
                Ill::Hang => Mode::Hang,
                Ill::Errors => Mode::Answer(500),
                Ill::TooMany => Mode::Answer(429),
                Ill::Slow => Mode::Slow(SLOW),
                Ill::Garbage => Mode::Garbage,
                Ill::Drops => Mode::Drop,
            },
        };
        self.place.inside(|| self.webhook.set(mode))?;
        // A receiver that hung is restarted, and with it go the requests that hang.
        if mode == Mode::Up {
            self.webhook.hang_up();
        }
        Ok(())
    }

    fn told(&self, clock: &Clock) -> ReceiverTruth {
        let mut truth = self.truth.clone();
        for arrival in self.webhook.arrivals() {
            match told(&arrival, clock) {
                Ok(told) => truth.told.push(told),
                Err(err) => truth.garbled.push(format!("{err}: {}", arrival.body)),
            }
        }
        truth
    }
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

fn told(arrival: &Arrival, clock: &Clock) -> Result<Told> {
    let alert: Alert = serde_json::from_value(arrival.json.clone())?;
    Ok(Told {
        at_ms: clock.ms_of(arrival.at),
        answered: arrival.answered,
        answered_ms: arrival.answered_at.map(|at| clock.ms_of(at)),
        idempotency_key: arrival.header("idempotency-key").to_owned(),
        connection: arrival.connection,
        alert,
    })
}

fn config(hooks: &[Hook], steps: bool) -> String {
    let ms = |ms: i64| format!("\"{ms}ms\"");
    let liveness = format!(
        "[liveness]\nevery = {}\ndark_after = {}\ndark_after_max = {}\nwarm_up = {}\n",
        ms(RULES.every_ms),
        ms(RULES.dark_after_ms),
        ms(RULES.dark_after_max_ms),
        ms(RULES.warm_up_ms)
    );
    let receiver = |hook: &Hook| {
        let (name, url) = (&hook.truth.name, hook.webhook.url());
        format!("[[receiver]]\nname = {name:?}\nwebhook = {{ url = {url:?} }}\n")
    };
    // The oracle counts each opening and each end; what flaps would be told of once.
    let damping = "[flapping]\nenabled = false\n";
    let route = if steps {
        let (first, second) = (&hooks[0].truth.name, &hooks[1].truth.name);
        format!(
            "[[route]]\nreceivers = [{first:?}]\nsteps = [{{ after = \"{STEP_SECS}s\", receivers = [{second:?}] }}]\n"
        )
    } else {
        String::new()
    };
    liveness + damping + &route + &hooks.iter().map(receiver).collect::<String>()
}

fn behind(cable: Cable) -> Vec<usize> {
    match cable {
        Cable::Box(ix) => vec![ix],
        Cable::Site(site) => (site * SITE_BOXES..(site + 1) * SITE_BOXES).collect(),
        Cable::Uplink => (0..BOXES).collect(),
        Cable::Receiver(_) => Vec::new(),
    }
}

fn all_live(books: &Books) -> bool {
    (0..BOXES).all(|ix| {
        let name = box_name(ix);
        books
            .boxes
            .iter()
            .any(|row| row.name.as_str() == name && row.state == Liveness::Live)
    })
}

/// Looks whether this process gets its time: a test that did not get round to beating proves nothing about the server,
/// and a server that gets half of its time judges late, as it should.
struct Starved {
    worst_ms: Arc<AtomicI64>,
    total_us: Arc<AtomicI64>,
    since: Instant,
    end: Arc<AtomicBool>,
}

impl Starved {
    fn watch() -> Self {
        let starved = Self {
            worst_ms: Arc::default(),
            total_us: Arc::default(),
            since: clock::now(),
            end: Arc::default(),
        };
        let (worst, total) = (Arc::clone(&starved.worst_ms), Arc::clone(&starved.total_us));
        let ended = Arc::clone(&starved.end);
        std::thread::spawn(move || {
            while !ended.load(Ordering::Relaxed) {
                let before = clock::now();
                clock::pause(LOOK);
                let late = before.elapsed().saturating_sub(LOOK);
                worst.fetch_max(late.as_millis() as i64, Ordering::Relaxed);
                total.fetch_add(late.as_micros() as i64, Ordering::Relaxed);
            }
        });
        starved
    }

    fn worst_ms(&self) -> i64 {
        self.worst_ms.load(Ordering::Relaxed)
    }

    /// Of all its time.
    fn percent(&self) -> i64 {
        let all = self.since.elapsed().as_micros() as i64;
        self.total_us.load(Ordering::Relaxed) * 100 / all.max(1)
    }
}

impl Drop for Starved {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Relaxed);
    }
}
