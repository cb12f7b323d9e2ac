//! `fleetctl silence` and `fleetctl maintenance`: flags, the request, and what is printed of the answer.

use std::fmt::Write as _;
use std::time::Duration;

use clap::{Args, Subcommand};
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use protocol::incident::{Kind, Severity};
use protocol::matcher::Matcher;
use protocol::mute::{CreateMute, MaintenancePage, MuteKind, MuteState, MuteView, SilencePage};
use protocol::names::{BoxPattern, Labels, ZoneName};
use protocol::weekly::{Day, TimeOfDay, Weekly, days_and_time};
use serde_json::{Value, json};

use crate::client::{Client, Failed};
use crate::commands::{Out, all_pages};
use crate::flags::{duration, pair};
use crate::show::{ago, seconds};
use crate::table::{Cell, Tone, render};

#[derive(Subcommand)]
pub(crate) enum SilenceCommand {
    /// Tells nobody of matching incidents for a while; they are opened and shown all the same.
    Add {
        #[command(flatten)]
        what: Box<What>,
        /// Only this kind; may be given several times.
        #[arg(long = "kind", value_name = "KIND")]
        kinds: Vec<Kind>,
        /// Only this severity; may be given several times.
        #[arg(long = "severity", value_name = "SEVERITY")]
        severities: Vec<Severity>,
        #[command(flatten)]
        when: Box<When>,
    },
    /// Lists those that are active or pending.
    List {
        /// Those that are over, too.
        #[arg(long)]
        all: bool,
    },
    /// Shows one.
    Show {
        /// Its number.
        id: i64,
    },
    /// Ends one now: what is still open is told at once.
    #[command(alias = "end")]
    Expire {
        /// Its number.
        id: i64,
    },
}

#[derive(Subcommand)]
pub(crate) enum MaintenanceCommand {
    /// Lets matching boxes go for a while: nothing about them is told. Those still gone at its end are told at once.
    Add {
        #[command(flatten)]
        what: Box<What>,
        #[command(flatten)]
        when: Box<When>,
    },
    /// Lists those that are active or pending, boxes' own pauses among them.
    List {
        /// Those that are over, too.
        #[arg(long)]
        all: bool,
    },
    /// Shows one.
    Show {
        /// Its number.
        id: i64,
    },
    /// Ends one now.
    #[command(alias = "expire")]
    End {
        /// Its number.
        id: i64,
    },
}

#[derive(Args)]
pub(crate) struct What {
    /// Only boxes (and sites) with this label; may be given several times, all must hold.
    #[arg(long = "match", value_name = "LABEL=VALUE", value_parser = pair)]
    labels: Vec<(String, String)>,
    /// Only this box, or boxes like web-*; may be given several times.
    #[arg(long = "box", value_name = "NAME")]
    boxes: Vec<BoxPattern>,
    /// Why: stands in the incidents' histories.
    #[arg(long)]
    reason: String,
}

#[derive(Args)]
pub(crate) struct When {
    /// How long; with --every, how long each time.
    #[arg(long = "for", value_name = "DURATION", value_parser = duration)]
    length: Option<Duration>,
    /// From when on, by the clocks of --tz or with an offset; now unless given.
    #[arg(long, value_name = "TIME")]
    from: Option<String>,
    /// Until when.
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// Again each week, such as "sun 03:00", "mon,thu 22:30", "mon-fri 01:00" or "daily 04:00".
    #[arg(long, value_name = "DAYS TIME", value_parser = days_and_time, requires = "length")]
    every: Option<(Vec<Day>, TimeOfDay)>,
    /// Whose clocks are meant, such as Europe/Berlin.
    #[arg(long, value_name = "ZONE", default_value = "UTC")]
    tz: ZoneName,
}

/// `fleetctl silence …`.
pub(crate) async fn silences(client: &Client, out: &Out, command: SilenceCommand) -> Result<(), Failed> {
    let path = "silences";
    match command {
        SilenceCommand::Add {
            what,
            kinds,
            severities,
            when,
        } => {
            let matcher = Matcher {
                kind: kinds,
                severity: severities,
                ..what.matcher()?
            };
            out.one(client.post(&[path], &when.create(matcher, what.reason)?).await?)
        }
        SilenceCommand::List { all } => {
            let answer = all_pages(client, path, states(all)).await?;
            out.show(answer, |page: &SilencePage| table(&page.silences, out.now))
        }
        SilenceCommand::Show { id } => out.one(client.get(&[path, &id.to_string()], &[]).await?),
        SilenceCommand::Expire { id } => out.one(expire(client, path, id).await?),
    }
}

/// `fleetctl maintenance …`.
pub(crate) async fn maintenance(
    client: &Client,
    out: &Out,
    command: MaintenanceCommand,
) -> Result<(), Failed> {
    let path = "maintenance";
    match command {
        MaintenanceCommand::Add { what, when } => {
            let matcher = what.matcher()?;
            out.one(client.post(&[path], &when.create(matcher, what.reason)?).await?)
        }
        MaintenanceCommand::List { all } => {
            let answer = all_pages(client, path, states(all)).await?;
            out.show(answer, |page: &MaintenancePage| table(&page.maintenance, out.now))
        }
        MaintenanceCommand::Show { id } => out.one(client.get(&[path, &id.to_string()], &[]).await?),
        MaintenanceCommand::End { id } => out.one(expire(client, path, id).await?),
    }
}

async fn expire(client: &Client, path: &str, id: i64) -> Result<Value, Failed> {
    client.post(&[path, &id.to_string(), "expire"], &json!({})).await
}

fn states(all: bool) -> Vec<(&'static str, String)> {
    let wanted = [MuteState::Active, MuteState::Pending];
    let wanted = wanted.into_iter().filter(|_| !all);
    wanted.map(|state| ("state", state.to_string())).collect()
}

impl What {
    fn matcher(&self) -> Result<Matcher, Failed> {
        let labels = Labels::from_texts(self.labels.iter().map(|(name, value)| (name, value)));
        Ok(Matcher {
            boxes: self.boxes.clone(),
            labels: labels.map_err(|err| {
                Failed::Usage(format!(
                    "--match: {err}; boxes, kinds and severities have their own flags"
                ))
            })?,
            ..Matcher::default()
        })
    }
}

impl When {
    fn create(self, matcher: Matcher, reason: String) -> Result<CreateMute, Failed> {
        let zone = TimeZone::get(self.tz.as_str()).map_err(|_| {
            let text = format!(
                "--tz {}: there is no such time zone; write it like Europe/Berlin",
                self.tz
            );
            Failed::Usage(text)
        })?;
        let time = |flag: &str, text: Option<String>| {
            text.map(|text| {
                moment(&text, &zone).map_err(|why| Failed::Usage(format!("--{flag} {text:?}: {why}")))
            })
            .transpose()
        };
        Ok(CreateMute {
            matcher,
            reason,
            from: time("from", self.from)?,
            until: time("until", self.until)?,
            for_secs: self.length.map(|length| length.as_secs()),
            every: self.every.map(|(days, at)| Weekly {
                days,
                at,
                tz: self.tz,
            }),
        })
    }
}

/// With an offset, or by the clocks of `zone`.
fn moment(text: &str, zone: &TimeZone) -> Result<Timestamp, String> {
    if let Ok(at) = text.parse::<Timestamp>() {
        return Ok(at);
    }
    let wrong = |_| "write it like 2026-12-24T22:00, or 2026-12-24T22:00:00+01:00".to_owned();
    let shown: DateTime = text.parse().map_err(wrong)?;
    zone.to_timestamp(shown).map_err(wrong)
}

impl Out {
    /// One silence or maintenance.
    fn one(&self, answer: Value) -> Result<(), Failed> {
        self.show(answer, |view: &MuteView| one(view, self.now))
    }
}

fn table(views: &[MuteView], now: Timestamp) -> String {
    if views.is_empty() {
        return "none\n".to_owned();
    }
    let row = |view: &MuteView| {
        let record = &view.record;
        vec![
            Cell::plain(record.id),
            state(view),
            Cell::plain(window(view, now)),
            Cell::plain(what(view)),
            Cell::plain(&record.created.by),
            Cell::plain(&record.reason),
        ]
    };
    let rows: Vec<_> = views.iter().map(row).collect();
    render(&["ID", "STATE", "WHEN", "WHAT", "BY", "REASON"], &rows)
}

fn one(view: &MuteView, now: Timestamp) -> String {
    let record = &view.record;
    let mut facts = vec![
        ("id", Cell::plain(format!("{} ({})", record.id, record.kind))),
        ("state", state(view)),
        ("what", Cell::plain(what(view))),
        ("reason", Cell::plain(&record.reason)),
        ("from", Cell::plain(seconds(record.from))),
    ];
    if let Some(until) = record.until {
        facts.push(("until", Cell::plain(seconds(until))));
    }
    if record.every.is_some() {
        facts.push(("every", Cell::plain(every(view))));
        facts.push(("window", Cell::plain(window(view, now))));
    }
    let signed = |by: &str, at: Timestamp| format!("{by}, {} ({})", seconds(at), ago(Some(at), now));
    facts.push((
        "made by",
        Cell::plain(signed(&record.created.by, record.created.at)),
    ));
    if let Some(ended) = &record.ended {
        facts.push(("ended by", Cell::plain(signed(&ended.by, ended.at))));
    }
    let rows: Vec<_> = facts
        .into_iter()
        .map(|(name, cell)| vec![Cell::plain(name), cell])
        .collect();
    render(&["", ""], &rows).trim_start().to_owned()
}

fn state(view: &MuteView) -> Cell {
    match view.state {
        MuteState::Active => Cell::toned("active", Tone::Odd),
        MuteState::Pending | MuteState::Expired => Cell::plain(view.state),
    }
}

fn what(view: &MuteView) -> String {
    match view.record.kind {
        MuteKind::Silence | MuteKind::Maintenance => view.record.matcher.to_string(),
        MuteKind::Pause => format!("{} (its own pause)", view.record.matcher),
    }
}

/// The window that is open or comes next, or when it was over.
fn window(view: &MuteView, now: Timestamp) -> String {
    let mut text = match (view.state, &view.window) {
        (MuteState::Active, Some(window)) => format!("until {}", seconds(window.until)),
        (MuteState::Pending, Some(window)) => {
            format!("{} to {}", seconds(window.from), seconds(window.until))
        }
        (MuteState::Active | MuteState::Pending, None) => {
            "never: its time zone is not known to the server".to_owned()
        }
        (MuteState::Expired, _) => match (&view.record.ended, view.record.over_at()) {
            (Some(ended), _) => format!("ended by {} {}", ended.by, ago(Some(ended.at), now)),
            (None, at) => format!("over {}", ago(at, now)),
        },
    };
    if view.record.every.is_some() && view.state != MuteState::Expired {
        let _ = write!(text, ", {}", every(view));
    }
    text
}

fn every(view: &MuteView) -> String {
    let Some(every) = &view.record.every else {
        return String::new();
    };
    let days: Vec<&str> = every.days.iter().map(|day| day.as_str()).collect();
    let days = if days.len() == 7 {
        "daily".to_owned()
    } else {
        days.join(",")
    };
    let length = Duration::from_secs(view.record.for_secs.unwrap_or(0));
    format!(
        "{days} {} {} for {}",
        every.at,
        every.tz,
        humantime::format_duration(length)
    )
}
