//! The backup check on a real box: every source, good and bad, and a command that hangs.

use anyhow::{Result, ensure};

use crate::checkup::Checkup;
use crate::clock::{self, secs};
use crate::genuine::hermes;
use crate::lab::{BoxSpec, Lab};
use crate::runner::needs::resource;
use crate::scenario::{Need, Scenario};

/// This topic's scenarios.
pub const ALL: &[Scenario] = &[
    Scenario::new("backup::files", &[Need::Root], 8, files),
    Scenario::new("backup::commands", &[Need::Root], 12, commands),
    Scenario::new(
        "backup::genuine_hermes_snapshots",
        &[Need::Root, Need::Hermes],
        40,
        genuine_hermes_snapshots,
    ),
];

const NEWEST: &str = "[backup]\nnewest = \"/srv/backups/*.zip\"\nmin_size = \"1KiB\"\n";

fn files(lab: &Lab) -> Result<()> {
    let checkup = Checkup::start()?;
    let made = checkup.boot(lab, BoxSpec::new("box-1"), NEWEST)?;
    let start = clock::now();
    let expect = |status: &str, why: &str| checkup.expect(&made, "backup", status, why);
    let put = |name: &str, bytes: u32, age: &str| {
        made.run_ok(&format!(
            "mkdir -p /srv/backups; cd /srv/backups; head -c {bytes} /dev/zero >{name}; touch -d '{age}' {name}"
        ))
    };
    expect("failing", "no_backup")?.must_say("/srv/backups does not exist")?;
    put("a.zip", 4096, "60 hours ago")?;
    expect("failing", "backup_stale")?.must_say("2 d 12 h old")?;
    put("b.zip", 4096, "30 hours ago")?;
    expect("warning", "backup_stale")?.must_say("b.zip, is 1 d 6 h old")?;
    put("c.zip", 4096, "3 hours ago")?;
    put(".d.zip", 4096, "1 hour ago")?;
    expect("ok", "fine")?.must_say("c.zip, is 3 h old")?;
    put("e.zip", 10, "1 hour ago")?;
    let small = expect("warning", "backup_too_small")?;
    small.must_say("e.zip")?;
    small.must_say("c.zip, is 3 h old")?;
    put("f.zip", 4096, "2 hours")?;
    expect("unknown", "backup_in_future")?.must_say("c.zip, is 3 h old")?;

    checkup.configure(&made, "[backup]\nstamp = \"/srv/backups/stamp\"\n")?;
    expect("failing", "no_backup")?;
    put("stamp", 0, "51 hours ago")?;
    expect("failing", "backup_stale")?;
    put("stamp", 0, "now")?;
    expect("ok", "fine")?;

    // Without the right to look into other people's directories, as an operator may want it.
    made.write_file(
        "/etc/systemd/system/fleet-watchdog.service.d/60-plain.conf",
        0o644,
        "root",
        "[Service]\nAmbientCapabilities=\nCapabilityBoundingSet=\n",
    )?;
    made.run_ok("systemctl daemon-reload; chmod 700 /srv/backups")?;
    checkup.configure(&made, NEWEST)?;
    let closed = expect("unknown", "check_error")?;
    closed.must_say("cannot look into /srv/backups: permission denied")?;
    closed.must_say("setfacl")?;
    lab.figure(
        "longest gap between beats, s",
        format!("{:.2}", checkup.beats_went_on(start)?.as_secs_f64()),
    );
    Ok(())
}

/// Stands in for restic: does what the file /run/restic says.
const RESTIC: &str = "#!/bin/sh\nexec sh /run/restic\n";

fn commands(lab: &Lab) -> Result<()> {
    let checkup = Checkup::start()?;
    let tables = "[backup]\ncommand = [\"/usr/local/bin/restic\", \"snapshots\", \"--json\"]\nformat = \"restic\"\ntimeout = \"3s\"\n";
    let spec = BoxSpec::new("box-1").file("/usr/local/bin/restic", 0o755, "root", RESTIC);
    let made = checkup.boot(lab, spec, tables)?;
    let start = clock::now();
    let does = |script: &str| made.write_file("/run/restic", 0o755, "root", script);
    let expect = |status: &str, why: &str| checkup.expect(&made, "backup", status, why);

    does("date -u -d '10890 seconds ago' '+[{\"time\":\"%FT%T.123456789Z\",\"short_id\":\"ab12cd34\"}]'")?;
    expect("ok", "fine")?.must_say("snapshot ab12cd34, is 3 h 1 min old")?;
    does("echo '[]'")?;
    expect("failing", "no_backup")?;
    does("date -u -d '10890 seconds ago' '+[{\"time\":\"%FT%TZ\",\"short_id\":\"ab12cd34\"}]'")?;
    expect("ok", "fine")?;
    does(
        "echo 'Fatal: unable to open repository at rest:https://box:hunter2@vault/x: no route to host' >&2; exit 1",
    )?;
    let failed = expect("unknown", "backup_command_failed")?;
    failed.must_say("exit status 1")?;
    failed.must_say("seen before is 3 h 1 min old")?;
    ensure!(
        !failed.0.to_string().contains("hunter2"),
        "a secret left the box: {}",
        failed.0
    );

    // It hangs, does not heed SIGTERM, and has started something that does not either.
    does("trap '' TERM; sh -c \"trap '' TERM; sleep 601; :\" & while :; do sleep 1; done")?;
    let run = checkup.run(&made)?;
    let row = run.row("backup")?;
    row.must_be("unknown", "check_timed_out")?;
    row.must_say("restic did not end within 3 s")?;
    lab.figure(
        "a run with a backup command that hangs, s",
        format!("{:.2}", run.took.as_secs_f64()),
    );
    ensure!(
        made.run("pgrep -f '[/]run/restic|[s]leep 601'")?
            .stdout
            .is_empty(),
        "something of it still runs"
    );
    lab.figure(
        "longest gap between beats, s",
        format!("{:.2}", checkup.beats_went_on(start)?.as_secs_f64()),
    );
    Ok(())
}

fn genuine_hermes_snapshots(lab: &Lab) -> Result<()> {
    let checkup = Checkup::start()?;
    let tables = format!("[backup]\nhermes_snapshots = \"{}\"\n", hermes::HOME);
    let spec = hermes::with_hermes(BoxSpec::new("box-1"), &resource(Need::Hermes)?);
    let made = checkup.boot(lab, spec, &tables)?;
    let expect = |status: &str, why: &str| checkup.expect(&made, "backup", status, why);
    expect("failing", "no_backup")?.must_say("hermes backup --quick")?;
    hermes::install_gateway(&made)?;
    hermes::wait_healthy(&made)?;
    hermes::command(&made, "backup --quick")?.ok()?;
    expect("ok", "fine")?;
    // A newer one says that a database failed, as later versions write it.
    let newer = format!("{}/state-snapshots/20991231-000000", hermes::HOME);
    made.run_ok(&format!(
        "now=$(date -u +%Y%m%d-%H%M%S); mkdir {newer}; \
         echo \"{{\\\"timestamp\\\":\\\"$now\\\",\\\"failed_dbs\\\":[\\\"state.db\\\"]}}\" >{newer}/manifest.json"
    ))?;
    expect("failing", "backup_incomplete")?.must_say("state.db failed")?;
    made.write_file(&format!("{newer}/manifest.json"), 0o644, "root", "{\"timesta")?;
    expect("unknown", "check_error")?.must_say("no JSON")?;
    clock::wait_until("the beats", secs(10), || {
        checkup.beats_went_on(clock::now()).is_ok()
    })
    .map(drop)
}
