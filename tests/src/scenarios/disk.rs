//! The disk check on a real box: full by bytes and by inodes, read-only, missing, hanging.

use anyhow::{Result, ensure};

use crate::checkup::Checkup;
use crate::clock::{self, secs};
use crate::lab::{BoxSpec, Lab, TestBox};
use crate::scenario::{Need, Scenario};

/// This topic's scenarios.
pub const ALL: &[Scenario] = &[
    Scenario::new(
        "disk::full_and_read_only_and_missing",
        &[Need::Root],
        8,
        full_and_read_only_and_missing,
    ),
    Scenario::new("disk::a_mount_that_hangs", &[Need::Root], 12, a_mount_that_hangs),
    Scenario::new("disk::as_shipped", &[Need::Root], 5, as_shipped),
    Scenario::new("disk::the_watchdogs_own", &[Need::Root], 10, the_watchdogs_own),
];

fn full_and_read_only_and_missing(lab: &Lab) -> Result<()> {
    let checkup = Checkup::start()?;
    let spec = BoxSpec::new("box-1").file("/etc/fstab", 0o644, "root", "none /mnt/wanted tmpfs noauto 0 0\n");
    let made = checkup.boot(
        lab,
        spec,
        "[disk]\nmounts = [\"/\", \"/mnt/a bytes\", \"/mnt/nodes\", \"/mnt/guard\", \"/mnt/wanted\"]\n",
    )?;
    made.run_ok(
        "cd /mnt && mkdir 'a bytes' nodes guard wanted && mount -t tmpfs -o size=32M bytes 'a bytes' && \
         mount -t tmpfs -o size=8M,nr_inodes=200 nodes nodes && mount -t tmpfs -o size=8M guard guard",
    )?;
    let start = clock::now();
    let ok = checkup.expect(&made, "disk", "ok", "fine")?;
    ensure!(
        ok.0["values"]["mounts"]["/mnt/nodes"]["total_inodes"] == 200,
        "{}",
        ok.0
    );

    made.run_ok("head -c 33M /dev/zero >'/mnt/a bytes/x' || true")?;
    let full = checkup.expect(&made, "disk", "failing", "bytes_low")?;
    full.must_say("/mnt/a bytes has 0 B left")?;
    full.must_say("other mounts are fine")?;
    made.run_ok("rm '/mnt/a bytes/x'")?;
    checkup.expect(&made, "disk", "ok", "fine")?;

    made.run_ok("cd /mnt/nodes && touch $(seq 300) 2>/dev/null || true")?;
    checkup
        .expect(&made, "disk", "failing", "inodes_low")?
        .must_say("/mnt/nodes has 0 inodes left")?;
    made.run_ok("rm -r /mnt/nodes/*")?;
    checkup.expect(&made, "disk", "ok", "fine")?;

    made.run_ok("mount -o remount,ro /mnt/guard")?;
    checkup
        .expect(&made, "disk", "failing", "read_only")?
        .must_say("/mnt/guard is read-only")?;
    made.run_ok("mount -o remount,rw /mnt/guard")?;
    checkup.expect(&made, "disk", "ok", "fine")?;

    made.write_file(
        "/etc/fstab",
        0o644,
        "root",
        "none /mnt/wanted tmpfs size=8M 0 0\n",
    )?;
    checkup
        .expect(&made, "disk", "failing", "not_mounted")?
        .must_say("/etc/fstab wants /mnt/wanted")?;
    made.run_ok("mount /mnt/wanted")?;
    checkup.expect(&made, "disk", "ok", "fine")?;
    fills_within_the_hour(&made)?;
    let soon = checkup.expect(&made, "disk", "failing", "filling_up")?;
    soon.must_say("/mnt/nodes will be full in about")?;
    ensure!(
        soon.0["values"]["mounts"]["/mnt/nodes"]["bytes_full_at"].is_string(),
        "{}",
        soon.0
    );

    made.run_ok("umount /mnt/wanted && rmdir /mnt/wanted")?;
    checkup
        .expect(&made, "disk", "failing", "not_mounted")?
        .must_say("/mnt/wanted is not there")?;

    lab.figure(
        "longest gap between beats, s",
        format!("{:.2}", checkup.beats_went_on(start)?.as_secs_f64()),
    );
    Ok(())
}

/// Gives /mnt/nodes an hour's history in the state file, as if it had been filling up steadily.
fn fills_within_the_hour(made: &TestBox) -> Result<()> {
    made.run_ok(
        "cd /var/lib/fleet-watchdog && python3 - <<'E'\n\
         import datetime, json\n\
         state = json.load(open('state.json'))\n\
         samples = state['histories']['disk']['series']['/mnt/nodes']['samples']\n\
         last = samples[-1]\n\
         at = datetime.datetime.fromisoformat(last['at'][:19])\n\
         def back(n):\n\
         \x20 then = (at - datetime.timedelta(minutes=2 * n)).isoformat() + 'Z'\n\
         \x20 return dict(last, at=then, free_bytes=last['free_bytes'] * (25 + n) // 25)\n\
         samples[:] = [back(n) for n in range(29, -1, -1)]\n\
         json.dump(state, open('state.json', 'w'))\n\
         E",
    )
    .map(drop)
}

/// A FUSE file system whose process never answers, as a dead NFS server's.
const HANGING: &str = r#"
import ctypes, os, time
fuse = os.open("/dev/fuse", os.O_RDWR)
options = "fd=%d,rootmode=40000,user_id=0,group_id=0,allow_other" % fuse
libc = ctypes.CDLL(None, use_errno=True)
if libc.mount(b"hanging", b"/mnt/hanging", b"fuse.hanging", 0, options.encode()) != 0:
    raise OSError(ctypes.get_errno(), "mount")
open("/run/hangs", "w").close()
time.sleep(3600)
"#;

fn a_mount_that_hangs(lab: &Lab) -> Result<()> {
    let checkup = Checkup::start()?;
    let spec = BoxSpec::new("box-1").nspawn("--bind=/dev/fuse").file(
        "/usr/local/lib/hanging.py",
        0o644,
        "root",
        HANGING,
    );
    let made = checkup.boot(
        lab,
        spec,
        "[disk]\nmounts = [\"/mnt/hanging\", \"/\", \"/mnt/small\"]\n",
    )?;
    made.run_ok("cd /mnt && mkdir hanging small && mount -t tmpfs -o size=8M small small")?;
    made.spawn("hanging", "/usr/bin/python3 /usr/local/lib/hanging.py")?;
    made.wait_until("test -e /run/hangs", secs(10))?;

    let start = clock::now();
    let run = checkup.run(&made)?;
    let row = run.row("disk")?;
    row.must_be("unknown", "check_timed_out")?;
    row.must_say("/mnt/hanging did not answer")?;
    row.must_say("2 other mounts are fine")?;
    lab.figure(
        "a run with a mount that hangs, s",
        format!("{:.2}", run.took.as_secs_f64()),
    );

    made.run_ok("head -c 9M /dev/zero >/mnt/small/x || true")?;
    let row = checkup.expect(&made, "disk", "failing", "bytes_low")?;
    row.must_say("/mnt/small has 0 B left")?;
    row.must_say("/mnt/hanging did not answer")?;
    lab.figure(
        "longest gap between beats, s",
        format!("{:.2}", checkup.beats_went_on(start)?.as_secs_f64()),
    );

    made.run_ok("systemctl kill -s KILL hanging.service")?;
    let gone = checkup.expect(&made, "disk", "failing", "not_mounted")?;
    gone.must_say("/mnt/hanging is not mounted any more")
}

/// Without a `[disk]` table: `/`, and what the watchdog and the backups need.
fn as_shipped(lab: &Lab) -> Result<()> {
    let checkup = Checkup::start()?;
    let spec = BoxSpec::new("box-1").user("agent", 1500);
    let made = checkup.boot(
        lab,
        spec,
        "[disk]\n[backup]\nnewest = \"/home/agent/hermes-backup-*.zip\"\n",
    )?;
    made.run_ok(
        "chmod 700 /home/agent; head -c 4096 /dev/zero >/home/agent/hermes-backup-2026-11-21-030000.zip",
    )?;
    let run = checkup.run(&made)?;
    let disk = run.row("disk")?;
    ensure!(
        disk.0["why"] != "not_mounted" && disk.0["why"] != "read_only",
        "a healthy /: {}",
        disk.0
    );
    ensure!(
        disk.0["values"]["mounts"]["/"]["total_bytes"].is_u64(),
        "{}",
        disk.0
    );
    run.row("backup")?.must_be("ok", "fine")?;
    made.run_ok("mkdir /mnt/b && mount -t tmpfs -o size=1M b /home/agent && head -c 2M /dev/zero >/home/agent/x || true")?;
    checkup
        .expect(&made, "disk", "failing", "bytes_low")?
        .must_say("/home/agent has 0 B left")
}

/// The disk that the report itself would lie on takes nothing any more: the server hears of it all the same.
fn the_watchdogs_own(lab: &Lab) -> Result<()> {
    const STATE: &str = "/var/lib/fleet-watchdog";
    let checkup = Checkup::start()?;
    let made = checkup.boot(
        lab,
        BoxSpec::new("box-1"),
        &format!("[disk]\nmounts = [\"{STATE}\"]\n"),
    )?;
    made.run_ok(&format!(
        "systemctl stop fleet-watchdog-beat.service && \
         mount -t tmpfs -o size=8M,uid=$(id -u fleet-watchdog),gid=$(id -g fleet-watchdog),mode=750 own {STATE} && \
         systemctl start fleet-watchdog-beat.service"
    ))?;
    let began = clock::now();
    let told = |shell: &str, why: &str| -> Result<()> {
        made.run_ok(shell)?;
        made.run_within("systemctl start fleet-watchdog.service", secs(60))?
            .ok()?;
        checkup.told("disk", why)
    };
    told("true", "fine")?;
    told(
        &format!("head -c 16M /dev/zero >{STATE}/filler || true"),
        "bytes_low",
    )?;
    let status = made.run_ok("fleet-watchdog status")?;
    ensure!(
        status.contains("bytes_low"),
        "status shows an older report: {status}"
    );
    told(&format!("rm {STATE}/filler"), "fine")?;
    told(&format!("mount -o remount,ro {STATE}"), "read_only")?;
    told(&format!("mount -o remount,rw {STATE}"), "fine")?;
    checkup.beats_went_on(began).map(drop)?;
    let verified = made.run("systemd-analyze verify --man=no /usr/lib/systemd/system/fleet-watchdog*")?;
    ensure!(
        verified.code() == 0 && verified.stderr.trim().is_empty(),
        "systemd-analyze verify: {}",
        verified.stderr
    );
    Ok(())
}
