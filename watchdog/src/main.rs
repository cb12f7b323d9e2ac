//! `fleet-watchdog`: flags → settings → the command → an exit status. Everything else is in the library.

use std::future::Future;
use std::io::{IsTerminal, Read, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, anyhow};
use clap::Parser;
use protocol::names::BoxName;
use protocol::report::Status;
use protocol::secret::Secret;
use watchdog::ask::Managers;
use watchdog::beat::BeatError;
use watchdog::cli::{CheckArgs, Cli, Command, EnrollArgs};
use watchdog::config::{self, Surroundings, TokenError};
use watchdog::enroll::{self, Enrolment};
use watchdog::pause::{self, Pause};
use watchdog::print::{self, Style};
use watchdog::settings::Settings;
use watchdog::state_dir::StateDir;
use watchdog::systemd::manager::SystemdManager;
use watchdog::{beat, clock, report, run};

/// Something on the box is failing (`check`), or the command could not be carried out.
const EXIT_FAILING: u8 = 1;
/// sysexits' EX_TEMPFAIL: try again later.
const EXIT_BUSY: u8 = 75;
/// sysexits' EX_CONFIG: the configuration is wrong; systemd is told not to try again.
const EXIT_CONFIG: u8 = 78;

fn main() -> ExitCode {
    let cli = Cli::parse();
    log_to_stderr();
    if let Command::CheckConfig { file } = &cli.command {
        return check_config(file.clone().or(cli.config));
    }
    let settings = match config::load(cli.config.as_deref(), &Surroundings::of_this_process()) {
        Ok(settings) => settings,
        Err(err) => {
            eprintln!("{err}");
            return ExitCode::from(EXIT_CONFIG);
        }
    };
    let done = match cli.command {
        Command::Check(args) => check(&settings, &args),
        Command::Beat => resident(settings),
        Command::Status { json } => status(&settings, json),
        Command::Pause { length, reason } => pause_for(&settings, length, &reason),
        Command::Resume => resume(&settings),
        Command::Enroll(args) => enrol(&settings, &args),
        Command::CheckConfig { .. } => Ok(ExitCode::SUCCESS),
    };
    done.unwrap_or_else(|err| {
        eprintln!("{err:#}");
        ExitCode::from(EXIT_FAILING)
    })
}

/// The journal stamps each line itself; a person wants to see the time.
fn log_to_stderr() {
    // A level, not a filter language: that one brings a regex engine, half a megabyte of a resident program.
    let level = std::env::var("FLEET_WATCHDOG_LOG").ok();
    let level = level.and_then(|level| level.parse().ok());
    let level = level.unwrap_or(tracing_subscriber::filter::LevelFilter::INFO);
    let log = tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false);
    if in_journal() {
        log.without_time().init();
    } else {
        log.init();
    }
}

fn in_journal() -> bool {
    std::env::var_os("JOURNAL_STREAM").is_some() && !std::io::stdout().is_terminal()
}

/// Runs `work` to its end; a thread that hangs in the kernel holds nothing up.
fn block_on<T>(work: impl Future<Output = T>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.context("no runtime could be started")?;
    let done = runtime.block_on(work);
    runtime.shutdown_background();
    Ok(done)
}

fn check(settings: &Settings, args: &CheckArgs) -> anyhow::Result<ExitCode> {
    let options = run::Options {
        no_act: args.no_act,
        root: PathBuf::from("/"),
    };
    let managers = Managers::new(settings, |scope| SystemdManager::new(scope.clone()));
    let report = match block_on(run::run(settings, &options, managers))? {
        Ok(report) => report,
        Err(err @ run::RunError::Busy) => {
            eprintln!("{err}");
            return Ok(ExitCode::from(EXIT_BUSY));
        }
    };
    let text = if args.json {
        format!("{}\n", serde_json::to_string_pretty(&report)?)
    } else {
        let style = Style {
            colour: colours(),
            short: in_journal(),
        };
        print::report(&report, style, clock::now().wall)
    };
    say(&text);
    let failing = report.worst() == Status::Failing;
    Ok(if failing {
        ExitCode::from(EXIT_FAILING)
    } else {
        ExitCode::SUCCESS
    })
}

fn resident(settings: Settings) -> anyhow::Result<ExitCode> {
    let beating = async {
        let stopped = stop_signal()?;
        beat::run(settings, stopped).await.map_err(anyhow::Error::from)
    };
    match block_on(beating)? {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(err) if err.downcast_ref().is_some_and(is_misconfigured) => {
            eprintln!("{err:#}");
            Ok(ExitCode::from(EXIT_CONFIG))
        }
        Err(err) => Err(err),
    }
}

/// Whether trying again in a second would only say the same again.
fn is_misconfigured(err: &BeatError) -> bool {
    match err {
        BeatError::NoServer | BeatError::TimerMode | BeatError::Target(_) => true,
        BeatError::Token(err) => !matches!(err, TokenError::Io(..)),
        BeatError::NotTaken(_) => false,
    }
}

/// Ready at SIGTERM or SIGINT.
fn stop_signal() -> anyhow::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut term = signal(SignalKind::terminate()).context("SIGTERM cannot be listened to")?;
    let mut int = signal(SignalKind::interrupt()).context("SIGINT cannot be listened to")?;
    Ok(async move {
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
    })
}

fn status(settings: &Settings, json: bool) -> anyhow::Result<ExitCode> {
    let (dir, now) = (StateDir::new(&settings.state_dir), clock::now().wall);
    let newest = report::newest(&dir, settings.spare_dir.as_deref())?;
    let paused = match pause::read(&dir, now) {
        Pause::None => None,
        Pause::Until(paused) => Some(paused),
        // It holds remedies back; the report is to be seen all the same.
        Pause::Unreadable(text) => {
            eprintln!("{text}");
            None
        }
    };
    if json {
        let whole = serde_json::json!({ "report": newest, "paused": paused, "box": settings.name });
        say(&format!("{}\n", serde_json::to_string_pretty(&whole)?));
        return Ok(ExitCode::SUCCESS);
    }
    say(&print::heading(
        newest.as_ref(),
        paused.as_ref(),
        settings.run.every,
        now,
    ));
    if let Some(report) = &newest {
        say(&print::report(
            report,
            Style {
                colour: colours(),
                short: false,
            },
            now,
        ));
    }
    Ok(ExitCode::SUCCESS)
}

fn pause_for(settings: &Settings, length: std::time::Duration, reason: &str) -> anyhow::Result<ExitCode> {
    let dir = StateDir::new(&settings.state_dir);
    let paused = pause::write(&dir, length, reason, clock::now().wall)?;
    say(&format!(
        "remedies are paused until {}; checks and heartbeats go on\n",
        paused.until.strftime("%Y-%m-%d %H:%M:%S UTC")
    ));
    Ok(ExitCode::SUCCESS)
}

fn resume(settings: &Settings) -> anyhow::Result<ExitCode> {
    let was = pause::remove(&StateDir::new(&settings.state_dir))?;
    say(if was {
        "remedies go on\n"
    } else {
        "nothing was paused\n"
    });
    Ok(ExitCode::SUCCESS)
}

fn enrol(settings: &Settings, args: &EnrollArgs) -> anyhow::Result<ExitCode> {
    let configured = settings.server.as_ref();
    let server = match &args.server {
        Some(text) => config::server_url(text).map_err(|why| anyhow!("--server {text}: {why}"))?,
        None => configured
            .and_then(|s| s.urls.first().cloned())
            .context("no server: give --server URL, or [server] urls in the configuration")?,
    };
    let name = match &args.name {
        Some(text) => BoxName::new(text.as_str()).map_err(|why| anyhow!("--name {text:?} {why}"))?,
        None => settings.name.clone(),
    };
    let code = if args.code == "-" {
        code_from_stdin()?
    } else {
        Secret::new(&args.code)
    };
    let enrolment = Enrolment {
        server,
        code,
        name,
        labels: settings.labels.clone(),
        token_file: configured.map_or_else(
            || PathBuf::from("/etc/fleet-watchdog/token"),
            |s| s.token_file.clone(),
        ),
        ca_file: configured.and_then(|s| s.ca_file.clone()),
        force: args.force,
    };
    let enrolled = block_on(enroll::run(enrolment))??;
    say(&format!("{enrolled}\n"));
    Ok(ExitCode::SUCCESS)
}

fn code_from_stdin() -> anyhow::Result<Secret> {
    let mut text = String::new();
    let limit = protocol::limits::TOKEN_BYTES as u64 + 2;
    std::io::stdin()
        .take(limit)
        .read_to_string(&mut text)
        .context("no code on standard input")?;
    Ok(Secret::new(text))
}

fn check_config(file: Option<PathBuf>) -> ExitCode {
    let settings = match config::load(file.as_deref(), &Surroundings::of_this_process()) {
        Ok(settings) => settings,
        Err(err) => {
            eprintln!("{err}");
            return ExitCode::from(EXIT_CONFIG);
        }
    };
    let file = file.unwrap_or_else(|| PathBuf::from(config::DEFAULT_FILE));
    if let Some(server) = &settings.server
        && let Err(err) = config::read_token(server)
    {
        eprintln!("{}: server.token_file: {err}", file.display());
        return ExitCode::from(EXIT_CONFIG);
    }
    say(&format!(
        "{}: right\n{}",
        file.display(),
        print::settings(&settings)
    ));
    ExitCode::SUCCESS
}

fn colours() -> bool {
    std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none()
}

/// To standard output; a reader that went away (`| head`) is no error.
fn say(text: &str) {
    let _ = std::io::stdout().write_all(text.as_bytes());
}
