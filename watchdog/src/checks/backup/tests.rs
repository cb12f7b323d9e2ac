use super::*;
use protocol::report::Status;
use protocol::why::KnownWhy;
use std::path::Path;

fn settings(source: BackupSource) -> BackupSettings {
    BackupSettings {
        source,
        warning_after: Duration::from_secs(26 * 3600),
        failing_after: Duration::from_secs(50 * 3600),
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
        monotonic: Duration::from_secs(100_000),
        boot_id: String::new(),
    }
}

fn command(format: BackupFormat, script: &str) -> BackupSource {
    BackupSource::Command {
        argv: ["sh", "-c", script].map(str::to_owned).to_vec(),
        format,
        timeout: Duration::from_secs(10),
    }
}

async fn run(source: BackupSource) -> Finding {
    check(&settings(source), BackupHistory::default(), &ctx()).await.0
}

fn answer(f: &Finding) -> (Status, KnownWhy) {
    (f.status, f.why)
}

#[tokio::test]
async fn each_source_is_asked() {
    let dir = tempfile::tempdir().unwrap();
    let f = run(BackupSource::Newest {
        glob: format!("{}/*.zip", dir.path().display()),
        min_bytes: 1,
    })
    .await;
    assert_eq!(answer(&f), (Status::Failing, KnownWhy::NoBackup), "{}", f.summary);
    let f = run(BackupSource::Stamp(dir.path().join("stamp"))).await;
    assert_eq!(answer(&f), (Status::Failing, KnownWhy::NoBackup), "{}", f.summary);
    let f = run(BackupSource::HermesSnapshots(dir.path().to_owned())).await;
    assert_eq!(answer(&f), (Status::Failing, KnownWhy::NoBackup), "{}", f.summary);
    let f = run(command(
        BackupFormat::Restic,
        r#"echo '[{"time":"2026-11-21T17:00:00Z","short_id":"ab12"}]'"#,
    ))
    .await;
    assert_eq!(answer(&f), (Status::Ok, KnownWhy::Fine), "{}", f.summary);
    assert!(f.summary.contains("snapshot ab12, is 3 h old"), "{}", f.summary);
    assert_eq!(f.values["age_secs"], json!(3 * 3600));
}

#[tokio::test]
async fn a_command_that_fails_is_unknown_and_says_its_last_words() {
    let f = run(command(
        BackupFormat::Restic,
        "echo 'Fatal: wrong password or no key found' >&2; exit 12",
    ))
    .await;
    assert_eq!(answer(&f), (Status::Unknown, KnownWhy::BackupCommandFailed));
    assert_eq!(
        f.summary,
        "sh ended with exit status 12: Fatal: wrong password or no key found"
    );
    let f = run(command(BackupFormat::Restic, "echo what")).await;
    assert_eq!(
        answer(&f),
        (Status::Unknown, KnownWhy::BackupCommandFailed),
        "{}",
        f.summary
    );
    let f = run(command(BackupFormat::Restic, "echo '[]'")).await;
    assert_eq!(answer(&f), (Status::Failing, KnownWhy::NoBackup), "{}", f.summary);
    let f = run(command(BackupFormat::Restic, "kill -9 $$")).await;
    assert_eq!(
        answer(&f),
        (Status::Unknown, KnownWhy::BackupCommandFailed),
        "{}",
        f.summary
    );
}

#[tokio::test]
async fn borg_may_warn() {
    let listing = r#"echo '{"archives":[{"name":"a","time":"2026-11-21T17:00:00.000000"}]}'"#;
    assert_eq!(
        run(command(BackupFormat::Borg, &format!("{listing}; exit 1")))
            .await
            .status,
        Status::Ok
    );
    assert_eq!(
        run(command(BackupFormat::Borg, &format!("{listing}; exit 2")))
            .await
            .status,
        Status::Unknown
    );
    assert_eq!(
        run(command(BackupFormat::Borg, "exit 1")).await.status,
        Status::Unknown
    );
}

#[tokio::test]
async fn a_command_that_hangs_ends_within_the_check_and_is_told() {
    let mut hanging = settings(command(BackupFormat::Restic, "sleep 300"));
    hanging.timeout = Duration::from_secs(1);
    let ctx = ctx();
    let outer = tokio::time::timeout(
        hanging.timeout * 3,
        check(&hanging, BackupHistory::default(), &ctx),
    );
    let (f, _) = outer.await.expect("it ends by itself");
    assert_eq!(
        answer(&f),
        (Status::Unknown, KnownWhy::CheckTimedOut),
        "{}",
        f.summary
    );
}

#[tokio::test]
async fn what_another_source_showed_is_forgotten() {
    let old = BackupHistory {
        source: 1,
        confirmed: Some("2026-01-01T00:00:00Z".parse().unwrap()),
    };
    let failing = settings(command(BackupFormat::Restic, "exit 1"));
    assert_eq!(check(&failing, old, &ctx()).await.0.status, Status::Unknown);
    let own = BackupHistory {
        source: fingerprint(&failing.source),
        confirmed: Some("2026-01-01T00:00:00Z".parse().unwrap()),
    };
    let (f, kept) = check(&failing, own.clone(), &ctx()).await;
    assert_eq!(
        answer(&f),
        (Status::Failing, KnownWhy::BackupCommandFailed),
        "{}",
        f.summary
    );
    assert_eq!(kept, own);
}

#[tokio::test]
async fn a_closed_directory_is_unknown_with_the_fix() {
    if rustix::process::geteuid().is_root() || Path::new("/root").read_dir().is_ok() {
        // Root sees everything: nothing to show. The booted box's run, as an ordinary user, shows it.
        return;
    }
    let f = run(BackupSource::Newest {
        glob: "/root/backups/*.zip".to_owned(),
        min_bytes: 1,
    })
    .await;
    assert_eq!(answer(&f), (Status::Unknown, KnownWhy::CheckError));
    assert!(
        f.summary.contains("/root") && f.summary.contains("setfacl"),
        "{}",
        f.summary
    );
}
