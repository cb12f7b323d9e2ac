//! Plays a fleet of boxes against a fleet server; see `fleet_tests::sim`.

use std::io::BufRead;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use fleet_tests::clock;
use fleet_tests::sim::command::{Command, USAGE};
use fleet_tests::sim::credentials::{self, Source};
use fleet_tests::sim::fleet::BOXES_MAX;
use fleet_tests::sim::player::Habits;
use fleet_tests::sim::{Fleet, Settings};
use protocol::limits;
use protocol::names::{BoxName, Labels};
use serde_json::json;
use uuid::Uuid;

/// Lines waiting to be obeyed.
const QUEUE: usize = 64;

/// Plays boxes that send real heartbeats over HTTP to a fleet server on this machine.
///
/// Prints one JSON object a second (totals since the start), and one for each command read from standard input. It
/// ends at the end of standard input, or after --secs.
#[derive(Debug, Parser)]
#[command(name = "fleet-sim", after_help = format!("Commands on standard input:\n{USAGE}"))]
struct Args {
    /// The server, http://host:port (loopback or a private address)
    #[arg(long)]
    server: String,
    /// How many boxes; with --tokens: all in the file
    #[arg(long, default_value_t = 20)]
    boxes: usize,
    /// Their names: this, and a number of two digits or more from 01
    #[arg(long, default_value = "sim-")]
    prefix: String,
    /// Label of every box, k=v (may be given again)
    #[arg(long = "label", value_name = "K=V")]
    labels: Vec<String>,
    /// Sites, in turn, as the label `site`: fsn1,hel1
    #[arg(long, value_delimiter = ',')]
    sites: Vec<String>,
    /// File of name<TAB>token lines
    #[arg(long, group = "source")]
    tokens: Option<PathBuf>,
    /// File with an enrolment code that is good for all of them
    #[arg(long, group = "source")]
    enroll_code_file: Option<PathBuf>,
    /// File with an admin token: adds the boxes (and rotates the tokens of those already there)
    #[arg(long, group = "source")]
    admin_token_file: Option<PathBuf>,
    /// Write name<TAB>token lines (mode 0600) for a later --tokens
    #[arg(long)]
    save_tokens: Option<PathBuf>,
    /// Between two beats of a box, milliseconds
    #[arg(long, default_value_t = 1000)]
    every_ms: u64,
    /// Part of the interval by which a beat comes early or late at random, 0 to 0.5
    #[arg(long, default_value_t = 0.02)]
    jitter: f64,
    /// Between two reports of a box, seconds
    #[arg(long, default_value_t = 120)]
    check_every_secs: u64,
    /// Addresses of this machine to send from, in turn: some thousands of boxes each
    #[arg(long, value_delimiter = ',')]
    from: Vec<IpAddr>,
    /// End after this many seconds instead of at the end of standard input
    #[arg(long)]
    secs: Option<u64>,
    /// Play the same moments and ids again; printed at the start
    #[arg(long)]
    seed: Option<u64>,
}

fn main() -> Result<ExitCode> {
    let args = Args::parse();
    let settings = Settings {
        server: args.server.trim_end_matches('/').to_owned(),
        habits: args.habits()?,
        from: args.from.clone(),
        seed: args.seed.unwrap_or_else(|| Uuid::new_v4().as_u64_pair().0),
    };
    let known = credentials::obtain(&settings.server, &args.source()?, &args.wanted()?)?;
    if let Some(path) = &args.save_tokens {
        credentials::save(path, &known)?;
    }
    println!(
        "{}",
        json!({"seed": settings.seed, "boxes": known.len(), "server": settings.server})
    );
    let fleet = Fleet::start(&settings, known)?;
    run(&fleet, args.secs.map(clock::secs));
    Ok(ExitCode::SUCCESS)
}

/// A line a second, and an answer to each command, until the end.
fn run(fleet: &Fleet, span: Option<Duration>) {
    let input = lines();
    let start = clock::now();
    let mut ended = false;
    for second in 1_u64.. {
        let due = start + clock::secs(second);
        while let Some(left) = due.checked_duration_since(clock::now()) {
            if ended {
                clock::pause(left);
                continue;
            }
            match input.recv_timeout(left) {
                Ok(line) if line.trim().is_empty() => {}
                Ok(line) => match line
                    .parse()
                    .and_then(|command| Ok((fleet.obey(&command)?, command)))
                {
                    Ok((_, Command::Quit)) => return,
                    Ok((answer, _)) => println!("{answer}"),
                    Err(err) => println!("{}", json!({"error": format!("{err:#}")})),
                },
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => ended = true,
            }
            if ended && span.is_none() {
                return;
            }
        }
        println!("{}", json!(fleet.line()));
        if span.is_some_and(|span| start.elapsed() >= span) {
            return;
        }
    }
}

fn lines() -> Receiver<String> {
    let (give, take) = sync_channel(QUEUE);
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            if give.send(line).is_err() {
                return;
            }
        }
    });
    take
}

impl Args {
    fn habits(&self) -> Result<Habits> {
        let every = Duration::from_millis(self.every_ms);
        let (min, max) = (limits::INTERVAL_MIN, limits::INTERVAL_MAX);
        ensure!(
            (min..=max).contains(&every),
            "--every-ms: {} to {} are allowed",
            min.as_millis(),
            max.as_millis()
        );
        ensure!(
            (0.0..=0.5).contains(&self.jitter),
            "--jitter: 0 to 0.5 is allowed"
        );
        ensure!(self.check_every_secs > 0, "--check-every-secs: at least 1");
        Ok(Habits {
            every,
            jitter: self.jitter,
            check_every: clock::secs(self.check_every_secs),
        })
    }

    fn source(&self) -> Result<Source> {
        let sources = [
            self.tokens.clone().map(Source::File),
            self.enroll_code_file.clone().map(Source::EnrollCode),
            self.admin_token_file.clone().map(Source::Admin),
        ];
        let source = sources.into_iter().flatten().next();
        source.context("one of --tokens, --enroll-code-file and --admin-token-file is needed")
    }

    fn wanted(&self) -> Result<Vec<(BoxName, Labels)>> {
        ensure!(
            (1..=BOXES_MAX).contains(&self.boxes),
            "--boxes: 1 to {BOXES_MAX} can be played"
        );
        let digits = self.boxes.to_string().len().max(2);
        let one = |n: usize| {
            let name = BoxName::new(format!("{}{n:0digits$}", self.prefix)).context("--prefix")?;
            let given = self.labels.iter().map(|label| {
                label
                    .split_once('=')
                    .with_context(|| format!("--label {label}: want k=v"))
            });
            let mut labels = given.collect::<Result<Vec<_>>>()?;
            let site = (n - 1) % self.sites.len().max(1);
            labels.extend(self.sites.get(site).map(|site| ("site", site.as_str())));
            Ok((name, Labels::from_texts(labels)?))
        };
        (1..=self.boxes).map(one).collect()
    }
}
