use super::*;
use crate::checks::disk::mounts::{parse_fstab, parse_mountinfo};
use std::path::PathBuf;

const GIB: u64 = 1 << 30;

fn settings(mounts: &[&str]) -> DiskSettings {
    DiskSettings {
        mounts: mounts.iter().map(PathBuf::from).collect(),
        also: Vec::new(),
        warning_free_ratio: 0.10,
        warning_free_bytes: 5 * GIB,
        failing_free_ratio: 0.02,
        failing_free_bytes: GIB,
        warning_full_within: Duration::from_secs(24 * 3600),
        failing_full_within: Duration::from_secs(2 * 3600),
        restart: None,
        timeout: Duration::from_secs(20),
    }
}

fn ctx() -> Context {
    Context {
        now: "2026-11-21T20:00:00Z".parse().unwrap(),
        root: "/".into(),
        operator_stops: Vec::new(),
        uptime_secs: 100_000,
        boot_id: String::new(),
        monotonic: Duration::from_secs(100_000),
    }
}

fn tables(mountinfo: &str, fstab: &str) -> Tables {
    Tables {
        mounts: parse_mountinfo(mountinfo.as_bytes()),
        error: None,
        fstab: parse_fstab(fstab.as_bytes()),
    }
}

const HEALTHY: &str = "\
1 0 8:1 / / ro,relatime - ext4 /dev/sda1 rw
2 1 8:2 / /data rw - ext4 /dev/sdb1 rw
3 1 8:3 / /nfs rw - nfs4 server:/x rw
";

fn seen(path: &str, total: u64, free: u64) -> Look {
    let usage = Usage {
        total_bytes: total,
        used_bytes: total - free,
        free_bytes: free,
        total_inodes: 1000,
        free_inodes: 900,
        fsid: 1,
    };
    Look::Seen {
        real: path.into(),
        usage,
    }
}

const QUIET: Pressure = Pressure {
    full_avg60_percent: 0.1,
    full_avg300_percent: 0.1,
};

fn run(looks: &[(&str, Look)], tables: &Tables) -> Finding {
    let looks: Vec<_> = looks.iter().map(|(p, l)| (Path::new(*p), l.clone())).collect();
    judge(
        &settings(&[]),
        &looks,
        tables,
        Ok(QUIET),
        DiskHistory::default(),
        &ctx(),
    )
    .0
}

#[test]
fn all_fine_names_the_tightest() {
    let f = run(
        &[
            ("/", seen("/", 100 * GIB, 80 * GIB)),
            ("/data", seen("/data", 50 * GIB, 20 * GIB)),
        ],
        &tables(HEALTHY, ""),
    );
    assert_eq!((f.status, f.why), (Status::Ok, KnownWhy::Fine));
    assert!(
        f.summary.contains("/data: 20.0 GiB free (40.0 %)"),
        "{}",
        f.summary
    );
    assert_eq!(f.values["mounts"]["/"]["free_bytes"], json!(80 * GIB));
}

#[test]
fn one_file_system_counts_once() {
    let looks = [
        ("/", seen("/", 100 * GIB, GIB / 2)),
        ("/var/lib", seen("/var/lib", 100 * GIB, GIB / 2)),
        ("/data", seen("/data", 50 * GIB, 20 * GIB)),
    ];
    let f = run(&looks, &tables(HEALTHY, ""));
    assert_eq!((f.status, f.why), (Status::Failing, KnownWhy::BytesLow));
    assert_eq!(f.summary.matches("512.0 MiB left").count(), 1, "{}", f.summary);
    assert_eq!(f.values["mounts"].as_object().unwrap().len(), 2);
    assert_eq!(f.values["mounts"]["/"]["listed_as"], json!(["/", "/var/lib"]));
}

#[test]
fn a_mount_that_hangs_hides_nothing() {
    let hung = Look::Unseen(Problem::new(
        Status::Unknown,
        KnownWhy::CheckTimedOut,
        "did not answer within 5 s",
    ));
    let fine = run(
        &[("/nfs", hung.clone()), ("/", seen("/", 100 * GIB, 80 * GIB))],
        &tables(HEALTHY, ""),
    );
    assert_eq!(
        (fine.status, fine.why),
        (Status::Unknown, KnownWhy::CheckTimedOut)
    );
    assert!(
        fine.summary.contains("/nfs did not answer") && fine.summary.contains("other mount is fine"),
        "{}",
        fine.summary
    );
    let full = run(
        &[("/nfs", hung), ("/", seen("/", 100 * GIB, GIB / 2))],
        &tables(HEALTHY, ""),
    );
    assert_eq!(
        (full.status, full.why),
        (Status::Failing, KnownWhy::BytesLow),
        "the worst wins"
    );
    assert!(
        full.summary.contains("/nfs did not answer"),
        "and both are said: {}",
        full.summary
    );
    assert_eq!(full.values["mounts"]["/nfs"]["status"], json!("unknown"));
}

#[test]
fn what_is_so_already_comes_before_what_will_be() {
    let will = Problem::new(Status::Failing, KnownWhy::FillingUp, "will be full");
    let looks = [("/nfs", Look::Unseen(will)), ("/data", Look::Absent)];
    let f = run(&looks, &tables(HEALTHY, ""));
    assert_eq!(
        (f.status, f.why),
        (Status::Failing, KnownWhy::NotMounted),
        "{}",
        f.summary
    );
}

#[test]
fn read_only_by_the_super_options() {
    let looks = [
        ("/data", seen("/data", 50 * GIB, 20 * GIB)),
        ("/", seen("/", 100 * GIB, 80 * GIB)),
    ];
    let ro = HEALTHY.replace("/dev/sdb1 rw", "/dev/sdb1 ro");
    let f = run(&looks, &tables(&ro, ""));
    assert_eq!((f.status, f.why), (Status::Failing, KnownWhy::ReadOnly));
    let meant = run(&looks, &tables(&ro, "/dev/sdb1 /data ext4 ro 0 2\n"));
    assert_eq!(meant.status, Status::Ok, "fstab wants it so: {}", meant.summary);
}

#[test]
fn a_mount_that_fstab_wants_and_is_missing() {
    let gone = HEALTHY
        .lines()
        .filter(|l| !l.contains("/data"))
        .collect::<Vec<_>>()
        .join("\n");
    let looks = [("/data/backups", seen("/data/backups", 100 * GIB, 80 * GIB))];
    let f = run(&looks, &tables(&gone, "/dev/sdb1 /data ext4 nofail 0 2\n"));
    assert_eq!((f.status, f.why), (Status::Failing, KnownWhy::NotMounted));
    assert!(
        f.summary.contains("/etc/fstab wants /data") && f.summary.contains("goes to /"),
        "{}",
        f.summary
    );
    assert_eq!(
        run(&looks, &tables(&gone, "")).status,
        Status::Ok,
        "nobody said that it should be a mount"
    );
    assert_eq!(
        run(&looks, &tables(HEALTHY, "/dev/sdb1 /data ext4 nofail 0 2\n")).status,
        Status::Ok
    );
}

#[test]
fn a_symlink_out_of_a_wanted_mount_is_judged_where_it_leads() {
    let gone = HEALTHY
        .lines()
        .filter(|l| !l.contains("/data"))
        .collect::<Vec<_>>()
        .join("\n");
    let f = run(
        &[("/data/link", seen("/srv", 100 * GIB, 80 * GIB))],
        &tables(&gone, "/dev/sdb1 /data ext4 nofail 0 2\n"),
    );
    assert_eq!(f.status, Status::Ok, "{}", f.summary);
}

#[test]
fn without_a_mount_table_room_is_judged_all_the_same() {
    let none = Tables {
        error: Some("cannot read /proc/self/mountinfo: gone".to_owned()),
        ..Tables::default()
    };
    let fine = run(&[("/", seen("/", 100 * GIB, 80 * GIB))], &none);
    assert_eq!((fine.status, fine.why), (Status::Unknown, KnownWhy::CheckError));
    let full = run(&[("/", seen("/", 100 * GIB, 1))], &none);
    assert_eq!((full.status, full.why), (Status::Failing, KnownWhy::BytesLow));
}

#[test]
fn a_slow_disk_is_a_warning() {
    let looks = [(Path::new("/"), seen("/", 100 * GIB, 80 * GIB))];
    let slow = Ok(Pressure {
        full_avg60_percent: 35.0,
        full_avg300_percent: 12.0,
    });
    let f = judge(
        &settings(&[]),
        &looks,
        &tables(HEALTHY, ""),
        slow,
        DiskHistory::default(),
        &ctx(),
    )
    .0;
    assert_eq!((f.status, f.why), (Status::Warning, KnownWhy::IoPressure));
    let none = judge(
        &settings(&[]),
        &looks,
        &tables(HEALTHY, ""),
        Err(NoPressure::Absent),
        DiskHistory::default(),
        &ctx(),
    )
    .0;
    assert_eq!(none.status, Status::Ok);
    assert!(none.values.contains_key("io_pressure_unknown"));
}

#[test]
fn the_hour_it_fills_is_told() {
    let (mut history, mut ctx) = (DiskHistory::default(), ctx());
    let mut last = None;
    for n in 0..30u64 {
        let looks = [(Path::new("/"), seen("/", 200 * GIB, (100 - n) * GIB))];
        let (finding, next) = judge(
            &settings(&[]),
            &looks,
            &tables(HEALTHY, ""),
            Ok(QUIET),
            history,
            &ctx,
        );
        history = next;
        last = Some(finding);
        ctx.now += SignedDuration::from_mins(2);
        ctx.uptime_secs += 120;
    }
    let last = last.unwrap();
    assert_eq!((last.status, last.why), (Status::Warning, KnownWhy::FillingUp));
    assert!(
        last.summary.contains("full in about 2 h 22 min"),
        "{}",
        last.summary
    );
    // Last sample at 20:58; 71 GiB left at half a GiB a minute.
    assert_eq!(
        last.values["mounts"]["/"]["bytes_full_at"],
        json!("2026-11-21T23:20:00Z")
    );
}

#[test]
fn a_report_with_many_mounts_stays_within_its_limits() {
    let names: Vec<String> = (0..40)
        .map(|n| format!("/mnt/a-rather-long-name-of-a-mount-{n}"))
        .collect();
    let line = |(n, p): (usize, &String)| format!("{} 1 9:{n} / {p} rw - ext4 /dev/x rw", n + 2);
    let table: Vec<String> = names.iter().enumerate().map(line).collect();
    let looks: Vec<_> = names.iter().map(|p| (p.as_str(), seen(p, 50 * GIB, 1))).collect();
    let f = run(&looks, &tables(&format!("{HEALTHY}{}", table.join("\n")), ""));
    assert!(f.summary.len() <= protocol::limits::SUMMARY_BYTES);
    assert!(serde_json::to_vec(&f.values).unwrap().len() < protocol::limits::VALUES_BYTES);
}

#[tokio::test]
async fn this_machine_answers() {
    let dir = tempfile::tempdir().unwrap();
    let gone = dir.path().join("gone");
    let mut list = settings(&["/", "/proc", gone.to_str().unwrap()]);
    list.also = vec![dir.path().join("not made yet"), dir.path().to_owned()];
    let (f, history) = check(&list, DiskHistory::default(), &ctx()).await;
    assert_eq!(
        (f.status, f.why),
        (Status::Failing, KnownWhy::NotMounted),
        "{f:?}"
    );
    assert!(f.summary.contains("gone is not there"), "{}", f.summary);
    assert!(
        !f.summary.contains("not made yet"),
        "only looked at as far as it exists: {}",
        f.summary
    );
    let root = &f.values["mounts"]["/"];
    assert!(root["total_bytes"].as_u64().unwrap() > 0, "{f:?}");
    assert_ne!(history, DiskHistory::default());
}
