//! A scenario as a process of its own, in namespaces of its own.
//!
//! Outside: [`start`] runs this very program again under `unshare`. Inside: [`inner`] makes the lab and runs the
//! function. When the runner goes, however it goes, the kernel ends the scenario and every box in it.

use std::any::Any;
use std::fs::{self, File};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Arc;

use anyhow::{Context, Result, bail};

use super::outcome::{Outcome, Skipped, Verdict};
use crate::clock;
use crate::lab::Lab;
use crate::scenario::Scenario;

/// What `unshare` is told; no network namespace but this one reaches the machine's.
const NAMESPACES: [&str; 8] = [
    "--fork",
    "--pid",
    "--kill-child",
    "--mount-proc",
    "--net",
    "--mount",
    "--propagation",
    "private",
];

/// `program` under namespaces of its own; as a user who is not root, through a user namespace.
///
/// Spawn it from a thread that lives as long as the process shall: its end takes the process along.
pub fn command(program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "unshare"]).args(NAMESPACES);
    if !rustix::process::geteuid().is_root() {
        command.args(["--user", "--map-root-user"]);
    }
    command.arg("--").arg(program);
    command
}

/// Starts the scenario; its log goes to `scenario.log` in `dir`.
pub fn start(scenario: &Scenario, dir: &Path, environment: &[(String, String)]) -> Result<Child> {
    let log = File::create(dir.join("scenario.log"))?;
    let mut command = command(&std::env::current_exe()?);
    command.args(["--inner", scenario.name, "--dir"]).arg(dir);
    command.envs(environment.iter().cloned());
    // An error says what it is about; where it was made is noise in a log.
    command.env("RUST_BACKTRACE", "0");
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    command.spawn().context("cannot start unshare")
}

/// Inside: runs the scenario to its end or its time-out, and leaves the verdict in `dir`.
pub fn inner(scenario: Scenario, dir: &Path) -> Result<ExitCode> {
    let root = dir.join("lab");
    fs::create_dir_all(&root)?;
    let id = fs::read_link("/proc/self/ns/net")?
        .to_string_lossy()
        .replace(|c: char| !c.is_ascii_digit(), "");
    let lab = Arc::new(Lab::new(&root, &id)?);
    let (done, ended) = std::sync::mpsc::sync_channel(1);
    let running = Arc::clone(&lab);
    std::thread::Builder::new()
        .name(scenario.name.to_owned())
        .spawn(move || {
            let outcome = match catch_unwind(AssertUnwindSafe(|| (scenario.run)(&running))) {
                Ok(Ok(())) => Outcome::Passed,
                Ok(Err(err)) => of_error(&err),
                Err(panic) => Outcome::Failed {
                    why: text_of_panic(&*panic),
                },
            };
            let _ = done.send(outcome);
        })?;
    let limit = clock::secs(scenario.limit_secs());
    let late = |_| Outcome::Failed {
        why: format!("not done after {} s", limit.as_secs()),
    };
    let outcome = ended.recv_timeout(limit).unwrap_or_else(late);
    if let Outcome::Failed { why } = &outcome {
        println!("FAILED: {why}");
        lab.dump(dir);
    }
    lab.power_off();
    Verdict {
        outcome,
        figures: lab.figures(),
    }
    .write(dir)?;
    // The scenario's thread may still hang on something; with this process all of it ends.
    Ok(ExitCode::SUCCESS)
}

fn of_error(err: &anyhow::Error) -> Outcome {
    match err.downcast_ref::<Skipped>() {
        Some(Skipped(why)) => Outcome::Skipped { why: why.clone() },
        None => Outcome::Failed {
            why: format!("{err:?}"),
        },
    }
}

fn text_of_panic(panic: &(dyn Any + Send)) -> String {
    let text = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied());
    text.unwrap_or("it panicked").to_owned()
}

/// Whether namespaces can be made here at all.
pub fn usable() -> Result<()> {
    let done = crate::exec::run(&mut command(Path::new("/bin/true")))?;
    if !done.success() {
        bail!("unshare is refused here: {}", done.stderr.trim());
    }
    Ok(())
}
