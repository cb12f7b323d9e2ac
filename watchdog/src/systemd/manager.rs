//! The service manager over D-Bus: a unit's properties, read fresh each time, and a restart whose job is followed.
//!
//! It does not decide whether to restart, and it never starts, stops or masks anything.

use std::collections::HashMap;
use std::time::Duration;

use futures_util::StreamExt;
use protocol::names::UnitName;
use tokio::sync::OnceCell;
use tokio::time::Instant;
use zbus::{Connection, MatchRule, MessageStream, OwnedObjectPath, OwnedVariant};

use super::facts::{ActiveState, Job, LoadState, Stamp, UnitFacts};
use super::{
    JobOutcome, JobResult, MANAGER_INTERFACE, MANAGER_NAME, MANAGER_PATH, ManagerError, SERVICE_INTERFACE,
    ServiceManager, UNIT_INTERFACE, bus_name, connect,
};
use crate::settings::Scope;

/// Signals kept while nobody reads: jobs of a whole boot at once.
const SIGNALS: usize = 256;

type Properties = HashMap<String, OwnedVariant>;

/// A service manager on its bus; connected at first use, once.
#[derive(Debug)]
pub struct SystemdManager {
    scope: Scope,
    connection: OnceCell<Connection>,
}

impl SystemdManager {
    /// The manager of `scope`; nothing is connected yet.
    pub fn new(scope: Scope) -> Self {
        Self {
            scope,
            connection: OnceCell::new(),
        }
    }

    async fn connection(&self) -> Result<&Connection, ManagerError> {
        self.connection.get_or_try_init(|| connect(&self.scope)).await
    }

    async fn call<B>(
        &self,
        path: &str,
        interface: &str,
        method: &str,
        body: &B,
    ) -> Result<zbus::Message, CallError>
    where
        B: serde::Serialize + zbus::DynamicType,
    {
        let connection = self.connection().await.map_err(CallError::Manager)?;
        connection
            .call_method(Some(MANAGER_NAME), path, Some(interface), method, body)
            .await
            .map_err(CallError::Bus)
    }

    /// An error of `call` that says nothing special about a unit.
    fn plain(&self, call: &str, error: CallError) -> ManagerError {
        let error = match error {
            CallError::Manager(error) => return error,
            CallError::Bus(error) => error,
        };
        let bus = bus_name(&self.scope);
        match &error {
            zbus::Error::InputOutput(io) if io.kind() == std::io::ErrorKind::TimedOut => {
                ManagerError::TimedOut {
                    bus,
                    call: call.to_owned(),
                }
            }
            zbus::Error::InputOutput(io) => ManagerError::Unreachable {
                bus,
                detail: io.to_string(),
            },
            other => ManagerError::Answered {
                bus,
                call: call.to_owned(),
                detail: other.to_string(),
            },
        }
    }

    async fn properties(&self, path: &str, interface: &str) -> Result<Properties, ManagerError> {
        let call = "Properties.GetAll";
        self.call(path, "org.freedesktop.DBus.Properties", "GetAll", &(interface,))
            .await
            .and_then(|reply| reply.body().deserialize().map_err(CallError::Bus))
            .map_err(|error| self.plain(call, error))
    }

    async fn job_kind(&self, path: &str) -> String {
        let body = ("org.freedesktop.systemd1.Job", "JobType");
        let reply = self
            .call(path, "org.freedesktop.DBus.Properties", "Get", &body)
            .await;
        reply
            .ok()
            .and_then(|reply| reply.body().deserialize::<OwnedVariant>().ok())
            .and_then(|kind| String::try_from(kind).ok())
            .unwrap_or_default()
    }

    /// An error of a method that changes `unit`.
    fn refusal(&self, verb: &'static str, call: &str, unit: &UnitName, error: CallError) -> ManagerError {
        let unit = unit.clone();
        match &error {
            CallError::Bus(zbus::Error::FDO(inner)) => match **inner {
                zbus::fdo::Error::InteractiveAuthorizationRequired(_)
                | zbus::fdo::Error::AccessDenied(_)
                | zbus::fdo::Error::AuthFailed(_) => return ManagerError::Refused { verb, unit },
                _ => {}
            },
            CallError::Bus(zbus::Error::MethodError(name, ..)) => match name.as_str() {
                "org.freedesktop.DBus.Error.InteractiveAuthorizationRequired" => {
                    return ManagerError::Refused { verb, unit };
                }
                "org.freedesktop.systemd1.UnitMasked" => return ManagerError::Masked { unit },
                "org.freedesktop.systemd1.NoSuchUnit" => return ManagerError::NoSuchUnit { unit },
                _ => {}
            },
            CallError::Bus(_) | CallError::Manager(_) => {}
        }
        self.plain(call, error)
    }

    /// Follows jobs from now on. Without `Subscribe` the manager sends no signals.
    async fn job_ends(&self) -> Result<MessageStream, ManagerError> {
        let connection = self.connection().await?;
        let call = "AddMatch";
        let rule = MatchRule::builder()
            .msg_type(zbus::message::Type::Signal)
            .sender(MANAGER_NAME)
            .path(MANAGER_PATH)
            .interface(MANAGER_INTERFACE)
            .member("JobRemoved")
            .build()
            .map_err(|error| self.plain(call, CallError::Bus(error)))?;
        let stream = MessageStream::for_match_rule(rule, connection, std::num::NonZeroUsize::new(SIGNALS));
        let stream = stream
            .await
            .map_err(|error| self.plain(call, CallError::Bus(error)))?;
        self.call(MANAGER_PATH, MANAGER_INTERFACE, "Subscribe", &())
            .await
            .map_err(|error| self.plain("Subscribe", error))?;
        Ok(stream)
    }

    /// A unit in `failed` refuses to be restarted once its start limit is hit.
    async fn reset_if_failed(&self, unit: &UnitName) -> Result<(), ManagerError> {
        if self.unit(unit).await?.active != ActiveState::Failed {
            return Ok(());
        }
        self.call(
            MANAGER_PATH,
            MANAGER_INTERFACE,
            "ResetFailedUnit",
            &(unit.as_str(),),
        )
        .await
        .map(drop)
        .map_err(|error| self.refusal("reset-failed", "ResetFailedUnit", unit, error))
    }
}

impl ServiceManager for SystemdManager {
    async fn unit(&self, unit: &UnitName) -> Result<UnitFacts, ManagerError> {
        let path: OwnedObjectPath = self
            .call(MANAGER_PATH, MANAGER_INTERFACE, "LoadUnit", &(unit.as_str(),))
            .await
            .and_then(|reply| reply.body().deserialize().map_err(CallError::Bus))
            .map_err(|error| self.plain("LoadUnit", error))?;
        let (unit_side, service_side) = tokio::join!(
            self.properties(path.as_str(), UNIT_INTERFACE),
            self.properties(path.as_str(), SERVICE_INTERFACE),
        );
        // A timer or a socket is a unit, too, and has no service side.
        let service_side = match service_side {
            Err(ManagerError::Answered { .. }) => Properties::new(),
            other => other?,
        };
        let mut properties = unit_side?;
        properties.extend(service_side);
        let (mut facts, job) = facts_of(properties);
        if let Some((id, path)) = job {
            let kind = self.job_kind(&path).await;
            facts.job = Some(Job { id, kind });
        }
        Ok(facts)
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "this shell measures how long the job took"
    )]
    async fn restart(&self, unit: &UnitName, deadline: Duration) -> Result<JobOutcome, ManagerError> {
        let asked = Instant::now();
        let mut ends = self.job_ends().await?;
        self.reset_if_failed(unit).await?;
        let job: OwnedObjectPath = self
            .call(
                MANAGER_PATH,
                MANAGER_INTERFACE,
                "RestartUnit",
                &(unit.as_str(), "replace"),
            )
            .await
            .and_then(|reply| reply.body().deserialize().map_err(CallError::Bus))
            .map_err(|error| self.refusal("restart", "RestartUnit", unit, error))?;
        let result = match tokio::time::timeout_at(asked + deadline, job_end(&mut ends, &job)).await {
            Ok(Some(result)) => result,
            Ok(None) => {
                return Err(ManagerError::Unreachable {
                    bus: bus_name(&self.scope),
                    detail: "the connection was closed while the restart was under way".to_owned(),
                });
            }
            Err(_) => JobResult::Pending,
        };
        Ok(JobOutcome {
            result,
            took: asked.elapsed(),
        })
    }
}

/// The end of `job`; none: the bus went away.
async fn job_end(ends: &mut MessageStream, job: &OwnedObjectPath) -> Option<JobResult> {
    while let Some(message) = ends.next().await {
        let Ok(message) = message else { continue };
        let body = message.body();
        let Ok((_, path, _, result)) = body.deserialize::<(u32, OwnedObjectPath, &str, &str)>() else {
            continue;
        };
        if path == *job {
            return Some(JobResult::from(result));
        }
    }
    None
}

enum CallError {
    Manager(ManagerError),
    Bus(zbus::Error),
}

/// Takes a property out, when it is there and of the expected type. A missing one is left at its default: systemd's
/// properties come and go with its versions, and each user of a field knows what its default means.
fn take<T: TryFrom<OwnedVariant>>(properties: &mut Properties, name: &str) -> Option<T> {
    properties.remove(name).and_then(|value| T::try_from(value).ok())
}

fn text(properties: &mut Properties, name: &str) -> String {
    take(properties, name).unwrap_or_default()
}

/// systemd writes "unknown" and "infinite" as the largest number.
fn finite(properties: &mut Properties, name: &str) -> Option<u64> {
    take(properties, name).filter(|&number| number != u64::MAX)
}

fn stamp(properties: &mut Properties, name: &str) -> Stamp {
    Stamp {
        realtime_us: take(properties, name).unwrap_or(0),
        monotonic_us: take(properties, &format!("{name}Monotonic")).unwrap_or(0),
    }
}

/// The facts, and the number and path of a pending job.
fn facts_of(mut properties: Properties) -> (UnitFacts, Option<(u32, String)>) {
    let p = &mut properties;
    let job = take::<(u32, OwnedObjectPath)>(p, "Job").filter(|&(id, _)| id != 0);
    let prevent = take::<(Vec<i32>, Vec<i32>)>(p, "RestartPreventExitStatus");
    let environment: Vec<String> = take(p, "Environment").unwrap_or_default();
    let load_error = take::<(String, String)>(p, "LoadError").map(|(_, message)| message);
    let micros = |number: Option<u64>| number.map(Duration::from_micros);
    let facts = UnitFacts {
        load: LoadState::from(text(p, "LoadState").as_str()),
        active: ActiveState::from(text(p, "ActiveState").as_str()),
        sub: text(p, "SubState"),
        result: text(p, "Result"),
        file_state: text(p, "UnitFileState"),
        restarts: take(p, "NRestarts").unwrap_or(0),
        main_pid: take(p, "MainPID").filter(|&pid: &u32| pid != 0),
        exit_code: take(p, "ExecMainCode").unwrap_or(0),
        exit_status: take(p, "ExecMainStatus").unwrap_or(0),
        main_start: stamp(p, "ExecMainStartTimestamp"),
        main_exit: stamp(p, "ExecMainExitTimestamp"),
        active_enter: stamp(p, "ActiveEnterTimestamp"),
        active_exit: stamp(p, "ActiveExitTimestamp"),
        inactive_enter: stamp(p, "InactiveEnterTimestamp"),
        inactive_exit: stamp(p, "InactiveExitTimestamp"),
        state_change: stamp(p, "StateChangeTimestamp"),
        invocation: take::<Vec<u8>>(p, "InvocationID").map_or_else(String::new, |id| hex(&id)),
        restart: text(p, "Restart"),
        restart_delay: micros(finite(p, "RestartUSec"))
            .max(micros(finite(p, "RestartUSecNext")))
            .unwrap_or_default(),
        start_limited: finite(p, "StartLimitIntervalUSec").is_some_and(|span| span > 0)
            && take(p, "StartLimitBurst").is_some_and(|burst: u32| burst > 0),
        restart_prevent: prevent.map(|(statuses, _)| statuses).unwrap_or_default(),
        timeout_start: micros(finite(p, "TimeoutStartUSec")),
        timeout_stop: micros(finite(p, "TimeoutStopUSec")),
        hermes_home: environment
            .iter()
            .find_map(|line| line.strip_prefix("HERMES_HOME="))
            .map(Into::into),
        user: text(p, "User"),
        fragment: text(p, "FragmentPath"),
        working_directory: text(p, "WorkingDirectory"),
        job: None,
        freezer: text(p, "FreezerState"),
        memory_bytes: finite(p, "MemoryCurrent"),
        tasks: finite(p, "TasksCurrent"),
        control_group: text(p, "ControlGroup"),
        status_text: text(p, "StatusText"),
        load_error: load_error.unwrap_or_default(),
        conditions_held: take(p, "ConditionResult").unwrap_or(true) || stamp(p, "ConditionTimestamp").never(),
    };
    (facts, job.map(|(id, path)| (id, path.to_string())))
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
