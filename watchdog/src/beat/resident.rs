//! The shell of the resident part: reads the clock, the files and the signals, and turns everything else.
//!
//! One task, one loop. Nothing in it waits for a server, a disk or a bus; the service manager's watchdog is fed from
//! here and nowhere else, so that a loop that hangs is found.

use std::collections::BTreeMap;
use std::path::Path;
use std::pin::pin;
use std::time::{Duration, Instant};

use http::HeaderValue;
use jiff::Timestamp;
use protocol::heartbeat::{Goodbye, GoodbyeWhy};
use protocol::limits;
use protocol::names::UnitName;
use protocol::secret::Secret;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use uuid::Uuid;

use super::BeatError;
use super::body::Body;
use super::files::{self, Brought, Files};
use super::lane::LaneEvent;
use super::plan::LANES;
use super::sender::{Ask, Sender, Supply, chain};
use super::target::{HEARTBEAT, Target, tls_config};
use super::units::Units;
use super::voice::Voice;
use crate::account::around;
use crate::account::judge::Story;
use crate::account::keeper::Keeper;
use crate::account::past::Told;
use crate::clock::{self, Moment};
use crate::config::read_token;
use crate::settings::{HeartbeatMode, Scope, ServerSettings, Settings};
use crate::systemd::follow::{self, News};
use crate::systemd::logind::{self, Departure};
use crate::systemd::notify::Notifier;

/// How long a goodbye may take, over all servers: under logind's five seconds and the unit's `TimeoutStopSec`.
const GOODBYE_MAX: Duration = Duration::from_secs(3);
/// The files are looked at no more often than this.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// A missing token is looked for again after this (the box may be enrolled any time).
const TOKEN_RETRY: Duration = Duration::from_secs(5);
/// The status line is brought up to date this often.
const STATUS_EVERY: Duration = Duration::from_secs(1);
/// For so long the box may say that it is still finding out why it was not heard.
const ASKING_MAX: Duration = Duration::from_secs(8);
/// Once everything is said, the goodbye's record is waited for so long: a disk may hang.
const NOTED_MAX: Duration = Duration::from_secs(1);
/// News of units that wait; the manager's own queue waits behind it.
const NEWS: usize = 32;

/// See [`super::run`].
pub(super) async fn run(settings: Settings, shutdown: impl Future<Output = ()>) -> Result<(), BeatError> {
    if settings.heartbeat.mode == HeartbeatMode::Timer {
        return Err(BeatError::TimerMode);
    }
    let (mut resident, mut inbox) = Resident::new(settings, Notifier::from_env())?;
    resident.follow(&inbox);
    // A task of its own: whatever wakes the future that a runtime was started with also wakes the runtime through the
    // kernel, which would be two system calls more for each piece of news.
    let (stop, stopped) = oneshot::channel::<()>();
    let mut turning = tokio::spawn(async move {
        let stopped = async {
            let _ = stopped.await;
        };
        resident.turn(&mut inbox, stopped).await;
    });
    tokio::select! {
        _ = &mut turning => {}
        () = shutdown => {
            drop(stop);
            let _ = turning.await;
        }
    }
    Ok(())
}

/// Now: for what decides, and for what is shown.
#[expect(clippy::disallowed_methods, reason = "this is the shell that reads the clock")]
fn clocks() -> (Instant, Timestamp) {
    (tokio::time::Instant::now().into_std(), Timestamp::now())
}

/// The same moment on the clocks that silences are counted by. (In tests these follow the virtual one.)
fn moment((now, wall): (Instant, Timestamp)) -> Moment {
    let moment = clock::at(wall);
    #[cfg(test)]
    let moment = tests::as_virtual(moment, now);
    let _ = now;
    moment
}

struct Token {
    number: u64,
    secret: Secret,
    header: HeaderValue,
}

/// The machine, or this process, is about to go.
struct Leaving {
    goodbye: Goodbye,
    /// After this the goodbye is not waited for any longer.
    until: Instant,
    /// Dropped once the goodbye is out.
    said: Option<oneshot::Sender<()>>,
    /// Everything was said (or given up), and the machine should be gone by `until`.
    quiet: bool,
}

struct Resident {
    settings: Settings,
    server: ServerSettings,
    senders: Vec<Sender>,
    body: Body,
    files: Files,
    units: Units,
    token: Option<Token>,
    notifier: Notifier,
    leaving: Option<Leaving>,
    terminating: bool,
    /// After this nothing is waited for any more.
    noted_by: Instant,
    look_at: Instant,
    token_at: Instant,
    status_at: Instant,
    alive_at: Instant,
    ready: bool,
    report_changed: Instant,
    token_voice: Voice,
    file_voice: Voice,
    bus_voice: Voice,
    logind_voice: Voice,
    record_voice: Voice,
    story: Story,
    keeper: Keeper,
    session: Uuid,
    sampled_at: Option<Instant>,
    note_at: Instant,
    asking_until: Instant,
    oom_kills: Option<u64>,
    tell: mpsc::Sender<Told>,
    tasks: JoinSet<()>,
}

struct Inbox {
    lanes: mpsc::Receiver<LaneEvent>,
    news: mpsc::Receiver<News>,
    tell_news: mpsc::Sender<News>,
    departures: mpsc::Receiver<Departure>,
    tell_departure: mpsc::Sender<Departure>,
    brought: mpsc::Receiver<Brought>,
    told: mpsc::Receiver<Told>,
}

impl Resident {
    fn new(settings: Settings, notifier: Notifier) -> Result<(Self, Inbox), BeatError> {
        let server = settings.server.clone().ok_or(BeatError::NoServer)?;
        let (now, wall) = clocks();
        let session = Uuid::new_v4();
        let boot_id = clock::boot_id().unwrap_or(Uuid::nil());
        let secure = server.urls.iter().any(|url| url.scheme() == "https");
        let tls = if secure {
            Some(tls_config(server.ca_file.as_deref())?)
        } else {
            None
        };
        let (tell_lane, lanes) = mpsc::channel(server.urls.len() * LANES);
        let every = settings.heartbeat.every;
        let seed = session.as_u64_pair().0;
        let mut senders = Vec::new();
        for (number, url) in server.urls.iter().enumerate() {
            let target = Target::new(url, HEARTBEAT, tls.as_ref())?;
            let seed = seed.wrapping_add(number as u64);
            senders.push(Sender::new(number, target, now, every, seed, tell_lane.clone()));
        }
        let mut file_voice = Voice::new("state directory");
        let stops = files::read_stops(&settings.state_dir).unwrap_or_else(|error| {
            file_voice.trouble_is(&error.to_string());
            Vec::new()
        });
        let names = settings.gateways.iter().map(|gateway| gateway.unit.clone());
        let (bring, brought) = mpsc::channel(3);
        let (tell_news, news) = mpsc::channel(NEWS);
        let (tell_departure, departures) = mpsc::channel(2);
        let (tell, told) = mpsc::channel(8);
        let began = moment((now, wall));
        let watchdog = notifier.watchdog_every().map(|every| every * 2);
        let resident = Self {
            senders,
            body: Body::new(boot_id, session, settings.run.every),
            files: Files::new(&settings.state_dir, settings.spare_dir.as_deref(), bring),
            units: Units::new(names.take(limits::UNITS), boot_id, &stops),
            token: None,
            notifier,
            leaving: None,
            terminating: false,
            noted_by: now,
            look_at: now,
            token_at: now,
            status_at: now,
            alive_at: now,
            ready: false,
            report_changed: now,
            token_voice: Voice::new("token"),
            file_voice,
            bus_voice: Voice::new("service manager"),
            logind_voice: Voice::new("logind"),
            record_voice: Voice::new("record of the beat"),
            story: Story::new(boot_id, began.into(), watchdog),
            keeper: Keeper::new(
                &settings.state_dir,
                settings.spare_dir.as_deref(),
                boot_id,
                tell.clone(),
            ),
            session,
            sampled_at: None,
            note_at: now,
            asking_until: now + ASKING_MAX,
            oom_kills: around::oom_kills(Path::new("/")),
            tell,
            tasks: JoinSet::new(),
            settings,
            server,
        };
        let inbox = Inbox {
            lanes,
            news,
            tell_news,
            departures,
            tell_departure,
            brought,
            told,
        };
        Ok((resident, inbox))
    }

    /// Begins to listen to the service managers and to logind.
    fn follow(&mut self, inbox: &Inbox) {
        let mut scopes: BTreeMap<String, (Scope, Vec<UnitName>)> = BTreeMap::new();
        for gateway in self.settings.gateways.iter().take(limits::UNITS) {
            let entry = scopes.entry(format!("{:?}", gateway.scope));
            let (_, units) = entry.or_insert_with(|| (gateway.scope.clone(), Vec::new()));
            units.push(gateway.unit.clone());
        }
        for (scope, units) in scopes.into_values() {
            self.tasks
                .spawn(follow::follow(scope, units, inbox.tell_news.clone()));
        }
        self.tasks.spawn(logind::follow(inbox.tell_departure.clone()));
    }

    /// The loop.
    async fn turn(&mut self, inbox: &mut Inbox, shutdown: impl Future<Output = ()>) {
        let mut shutdown = pin!(shutdown);
        self.read_record();
        loop {
            let wake = self.drive();
            if self.terminating && self.is_done() {
                return;
            }
            tokio::select! {
                Some(event) = inbox.lanes.recv() => self.lane_event(event),
                Some(news) = inbox.news.recv() => self.news(news),
                Some(departure) = inbox.departures.recv() => self.departure(departure),
                Some(brought) = inbox.brought.recv() => self.brought(brought),
                Some(told) = inbox.told.recv() => self.told(told),
                () = &mut shutdown, if !self.terminating => self.terminate().await,
                () = tokio::time::sleep_until(wake.into()) => {}
            }
        }
    }

    /// All is said, and what the next process needs is noted down.
    fn is_done(&self) -> bool {
        let (now, _) = clocks();
        let said = self.leaving.as_ref().is_none_or(|leaving| leaving.quiet);
        said && (!self.keeper.is_writing() || now >= self.noted_by)
    }

    /// Does everything that is due; when to look again.
    fn drive(&mut self) -> Instant {
        let (now, wall) = clocks();
        let moment = moment((now, wall));
        if self.story.stalls.begins(moment) {
            // The service manager may be about to end a process that seemed to hang; all of the machine did.
            self.notifier.alive();
        }
        if now >= self.look_at {
            self.look_at = now + LOOK_EVERY;
            self.files.look();
            self.body.set_stale(self.stale(now, wall));
        }
        if self.token.is_none() && now >= self.token_at {
            self.token_at = now + TOKEN_RETRY;
            self.read_token();
        }
        let mut supply = Supply {
            body: &mut self.body,
            token: self.token.as_ref().map(|token| (&token.header, token.number)),
            goodbye: self.leaving.as_ref().map(|leaving| &leaving.goodbye),
            wall,
            at: moment.into(),
            story: &self.story,
        };
        for sender in &mut self.senders {
            sender.drive(now, &mut supply);
        }
        self.leave(now);
        self.tell_manager(now);
        self.note_down(now, moment);
        let wake = self.wake(now);
        self.story
            .stalls
            .ends(moment, wake.saturating_duration_since(now));
        wake
    }

    fn wake(&self, now: Instant) -> Instant {
        let mut wake = now + limits::INTERVAL_MAX;
        if self.token.is_none() {
            wake = wake.min(self.token_at);
        } else {
            wake = self
                .senders
                .iter()
                .map(|sender| sender.wake(now))
                .min()
                .unwrap_or(wake)
                .min(wake);
        }
        if let Some(leaving) = &self.leaving {
            let noted = self.terminating && leaving.quiet;
            wake = wake.min(if noted { self.noted_by } else { leaving.until });
        }
        if self.notifier.watchdog_every().is_some() {
            wake = wake.min(self.alive_at);
        }
        wake.max(now)
    }

    /// READY once the first connection was tried, WATCHDOG as long as the loop comes by here, STATUS now and then.
    fn tell_manager(&mut self, now: Instant) {
        if !self.ready && (self.token.is_none() || self.senders.iter().all(Sender::has_attempted)) {
            self.ready = true;
            self.notifier.ready();
        }
        if let Some(every) = self.notifier.watchdog_every()
            && now >= self.alive_at
        {
            self.alive_at = now + every;
            self.notifier.alive();
        }
        if now >= self.status_at {
            self.status_at = now + STATUS_EVERY;
            let status = self.status(now);
            self.notifier.status(&status);
        }
    }

    fn status(&self, now: Instant) -> String {
        let servers: Vec<String> = self.senders.iter().map(|sender| sender.status(now)).collect();
        let troubles = [
            &self.token_voice,
            &self.file_voice,
            &self.bus_voice,
            &self.logind_voice,
        ];
        let troubles = troubles.into_iter().filter_map(Voice::trouble).map(str::to_owned);
        match &self.leaving {
            Some(leaving) => format!("goodbye: {}", leaving.goodbye.why),
            None if self.token.is_none() => troubles.collect::<Vec<_>>().join("; "),
            None => servers.into_iter().chain(troubles).collect::<Vec<_>>().join("; "),
        }
    }

    /// How old the newest report is, once two periods of the timer passed without a new one. Counted on the steady
    /// clock from when it was seen to change: a clock that is set, and a reboot, make no report old.
    fn stale(&self, now: Instant, wall: Timestamp) -> Option<Duration> {
        let unchanged = now.saturating_duration_since(self.report_changed);
        if unchanged <= self.settings.run.every * 2 {
            return None;
        }
        let age = self.body.report_at().map(|at| wall.duration_since(at));
        let age = age.and_then(|age| Duration::try_from(age).ok());
        Some(age.unwrap_or(unchanged).max(unchanged))
    }

    fn read_token(&mut self) {
        let secret = match read_token(&self.server) {
            Ok(secret) => secret,
            Err(error) => return self.token_voice.trouble_is(&chain(&error)),
        };
        let Ok(mut header) = HeaderValue::try_from(format!("Bearer {}", secret.expose())) else {
            let path = self.server.token_file.display();
            return self
                .token_voice
                .trouble_is(&format!("the token in {path} has characters that no token has"));
        };
        header.set_sensitive(true);
        self.token_voice.settled();
        let number = self.token.as_ref().map_or(1, |token| token.number + 1);
        if self.token.as_ref().is_none_or(|token| token.secret != secret) {
            self.token = Some(Token {
                number,
                secret,
                header,
            });
            for sender in &mut self.senders {
                sender.plan().unhold();
            }
        }
    }

    fn lane_event(&mut self, event: LaneEvent) {
        let (now, wall) = clocks();
        let at = moment((now, wall)).into();
        let Some(sender) = self.senders.get_mut(event.server) else {
            return;
        };
        match sender.happened((now, at), event) {
            Ask::Nothing => {}
            Ask::ReadToken(number) => {
                if self.token.as_ref().is_some_and(|token| token.number == number) {
                    self.read_token();
                } else {
                    // It was refused with an older token than the one at hand.
                    sender.plan().unhold();
                }
            }
            Ask::Renew => {
                self.body.renew(Uuid::new_v4());
                for sender in &mut self.senders {
                    sender.session_renewed(now);
                }
            }
        }
    }

    fn news(&mut self, news: News) {
        let (_, wall) = clocks();
        match &news {
            News::Lost { detail, .. } => self.bus_voice.trouble_is(detail),
            News::Unit { .. } => self.bus_voice.settled(),
            News::JobNew { .. } | News::JobKind { .. } | News::JobEnded { .. } => {}
        }
        let mut change = self.units.take(news, wall);
        if let Some(unit) = self.units.take_killed() {
            change.told |= self.killed(&unit, wall);
        }
        if change.told {
            self.units_changed();
        }
        if change.stops {
            self.files.write_stops(self.units.stops());
        }
    }

    fn brought(&mut self, brought: Brought) {
        self.files.brought(&brought);
        let (now, _) = clocks();
        let trouble = match brought {
            Brought::Report(Ok(Some(report))) => {
                self.report_changed = now;
                self.body
                    .set_report(report)
                    .err()
                    .map(|error| format!("report.json cannot be sent: {error}"))
            }
            Brought::Paused(Ok(paused)) => {
                self.body.set_paused(paused);
                None
            }
            Brought::Report(Ok(None)) | Brought::StopsWritten(Ok(())) => None,
            Brought::Report(Err(error)) | Brought::Paused(Err(error)) | Brought::StopsWritten(Err(error)) => {
                Some(chain(&error))
            }
        };
        match trouble {
            Some(text) => self.file_voice.trouble_is(&text),
            None => self.file_voice.settled(),
        }
    }

    fn departure(&mut self, departure: Departure) {
        match departure {
            Departure::Going { why, said } => {
                if why != GoodbyeWhy::Suspend {
                    self.units.set_going_down(true);
                }
                self.say_goodbye(why, Some(said));
            }
            Departure::Staying => self.stay(),
            Departure::Holding => self.logind_voice.settled(),
            Departure::Lost(detail) => {
                let text = format!("no goodbye through logind for now (SIGTERM still says one): {detail}");
                self.logind_voice.trouble_is(&text);
                self.stay();
            }
        }
    }

    fn say_goodbye(&mut self, why: GoodbyeWhy, said: Option<oneshot::Sender<()>>) {
        let (now, _) = clocks();
        tracing::info!("goodbye: {why}");
        let back_within_secs = self.settings.heartbeat.back_within.as_secs();
        self.leaving = Some(Leaving {
            goodbye: Goodbye {
                why,
                back_within_secs,
            },
            until: now + GOODBYE_MAX,
            said,
            quiet: false,
        });
        for sender in &mut self.senders {
            sender.plan().leave(now);
        }
    }

    /// Lets the machine go on once all servers know, or the time is up; and beats again if it never goes.
    fn leave(&mut self, now: Instant) {
        let all_know = self.senders.iter_mut().all(|sender| sender.plan().is_gone());
        let Some(leaving) = &mut self.leaving else { return };
        let due = now >= leaving.until;
        if leaving.quiet {
            if due {
                tracing::warn!("the goodbye's time is over and the machine still runs; beats again");
                self.stay();
            }
        } else if due || all_know || self.token.is_none() {
            tracing::info!(all_servers_know = all_know, "goodbye said");
            leaving.quiet = true;
            leaving.until = now + self.settings.heartbeat.back_within;
            self.noted_by = now + NOTED_MAX;
            // logind waits for this.
            drop(leaving.said.take());
        }
    }

    fn stay(&mut self) {
        if self.terminating {
            return;
        }
        let (now, _) = clocks();
        self.leaving = None;
        self.units.set_going_down(false);
        for sender in &mut self.senders {
            sender.plan().stay(now);
        }
    }

    /// SIGTERM. If the goodbye was said already, there is nothing more to say.
    async fn terminate(&mut self) {
        self.terminating = true;
        self.notifier.stopping();
        if self.leaving.as_ref().is_some_and(|leaving| leaving.quiet) {
            let (now, _) = clocks();
            self.noted_by = now + NOTED_MAX;
            return;
        }
        let why = logind::going_down().await.unwrap_or(GoodbyeWhy::WatchdogStopped);
        let said = self.leaving.take().and_then(|leaving| leaving.said);
        self.say_goodbye(why, said);
    }
}

mod explain;
#[cfg(test)]
mod tests;
