//! `fleet-server`: flags, settings, log, signals. Everything else is the library.

use std::error::Error as _;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};
use fleet_server::app::{AppError, EXIT_CONFIG, Server};
use fleet_server::config;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// Takes heartbeats of boxes, finds those that go dark, and tells on-call.
///
/// Exit status: 0 ended as asked, 1 could not start or had to end, 78 the configuration is wrong.
#[derive(Parser)]
#[command(name = "fleet-server", version, args_conflicts_with_subcommands = true)]
struct Flags {
    /// The configuration file.
    #[arg(long, value_name = "FILE", default_value = config::DEFAULT_FILE)]
    config: PathBuf,
    /// How the log is written.
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    log: LogFormat,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Says what is wrong with a configuration file, and does nothing else.
    CheckConfig {
        /// The configuration file.
        #[arg(value_name = "FILE", default_value = config::DEFAULT_FILE)]
        file: PathBuf,
    },
}

#[derive(Clone, Copy, ValueEnum)]
enum LogFormat {
    /// A line of text an event.
    Text,
    /// A JSON object an event.
    Json,
}

fn main() -> ExitCode {
    let flags = Flags::parse();
    if let Some(Command::CheckConfig { file }) = flags.command {
        return check_config(&file);
    }
    let settings = match config::load(&flags.config) {
        Ok(settings) => settings,
        Err(err) => {
            eprintln!("{err}");
            return ExitCode::from(EXIT_CONFIG);
        }
    };
    log_to_stderr(flags.log);
    // Both uses of TLS, ours and the receivers', take ring.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(err) => {
            tracing::error!("cannot start threads: {err}");
            return ExitCode::FAILURE;
        }
    };
    let ended = runtime.block_on(async {
        let shutdown = shutdown_signal().map_err(|source| AppError::System {
            doing: "listening for signals",
            source: Box::new(source),
        })?;
        Server::build(settings).await?.run(shutdown).await
    });
    // A thread that hangs in the file system must not keep the process.
    runtime.shutdown_background();
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(err) => {
            tracing::error!("{}", chain(&err));
            err.exit_code()
        }
    }
}

fn check_config(file: &std::path::Path) -> ExitCode {
    let checked = config::load(file)
        .map_err(|err| err.to_string())
        .and_then(|settings| {
            let tls = settings
                .tls
                .as_ref()
                .map(fleet_server::web::tls::Certificates::load)
                .transpose();
            tls.map_err(|err| format!("{}: {err}", file.display()))?;
            Ok(settings)
        });
    match checked {
        Ok(settings) => {
            let (receivers, routes) = (settings.receivers.len(), settings.routes.len());
            println!(
                "{}: good ({receivers} receivers, {routes} routes)",
                file.display()
            );
            ExitCode::SUCCESS
        }
        Err(text) => {
            eprintln!("{text}");
            ExitCode::from(EXIT_CONFIG)
        }
    }
}

fn shutdown_signal() -> std::io::Result<impl Future<Output = &'static str>> {
    let mut term = signal(SignalKind::terminate())?;
    let mut int = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = term.recv() => "SIGTERM",
            _ = int.recv() => "SIGINT",
        }
    })
}

fn log_to_stderr(format: LogFormat) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false);
    match format {
        LogFormat::Text => builder.init(),
        LogFormat::Json => builder.json().init(),
    }
}

fn chain(err: &AppError) -> String {
    let mut text = err.to_string();
    let mut cause = err.source();
    while let Some(inner) = cause {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        cause = inner.source();
    }
    text
}
