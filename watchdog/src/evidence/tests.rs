//! What is kept on the box, and what leaves it.

use std::os::unix::fs::PermissionsExt;

use jiff::Timestamp;
use proptest::prelude::*;
use protocol::limits::EVIDENCE_BYTES;

use super::*;
use crate::systemd::UnitFacts;
use crate::systemd::fake::FakeManager;

fn ctx(second: i64) -> Context {
    Context {
        now: Timestamp::from_second(1_795_291_200 + second).unwrap(),
        root: "/".into(),
        operator_stops: vec![],
        uptime_secs: 0,
        monotonic: Duration::ZERO,
        boot_id: String::new(),
    }
}

fn part(name: &'static str, text: &str) -> Part {
    Part {
        name,
        text: text.to_owned(),
    }
}

#[tokio::test]
async fn a_bundle_is_private_complete_and_one_of_few() {
    let dir = tempfile::tempdir().unwrap();
    let unit = UnitName::new("hermes-gateway.service").unwrap();
    let facts = UnitFacts {
        main_pid: Some(std::process::id()),
        sub: "running".into(),
        ..UnitFacts::default()
    };
    let manager = FakeManager::with(&unit, facts);
    let mut last = None;
    for second in 0..5 {
        let saved = save(dir.path(), 3, &unit, &Scope::System, &ctx(second), &manager).await;
        assert!(saved.digest.contains("sub=running"), "{}", saved.digest);
        last = saved.dir;
    }
    let bundle = last.expect("it was written");
    let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(
        (mode(&bundle), mode(&dir.path().join("evidence"))),
        (0o700, 0o700)
    );
    let mut names = vec![];
    for entry in std::fs::read_dir(&bundle).unwrap().flatten() {
        assert_eq!(mode(&entry.path()), 0o600);
        names.push(entry.file_name().into_string().unwrap());
    }
    names.sort();
    assert_eq!(
        names,
        [
            "commands.txt",
            "journal.txt",
            "machine.txt",
            "processes.txt",
            "unit.json"
        ]
    );
    let processes = std::fs::read_to_string(bundle.join("processes.txt")).unwrap();
    assert!(
        processes.contains("State:") && processes.contains(" in all"),
        "{processes}"
    );
    let mut kept: Vec<_> = std::fs::read_dir(dir.path().join("evidence"))
        .unwrap()
        .flatten()
        .map(|entry| entry.file_name().into_string().unwrap())
        .collect();
    kept.sort();
    assert_eq!(
        kept,
        [2, 3, 4].map(|second| format!("20261121T20000{second}Z-hermes-gateway.service"))
    );
}

#[tokio::test]
async fn a_place_that_cannot_be_written_is_said() {
    let unit = UnitName::new("x.service").unwrap();
    let saved = save(
        Path::new("/proc/no"),
        3,
        &unit,
        &Scope::System,
        &ctx(0),
        &FakeManager::default(),
    )
    .await;
    assert_eq!(saved.dir, None);
    assert!(
        saved.digest.starts_with("(not saved on the box: "),
        "{}",
        saved.digest
    );
}

#[test]
fn the_digest_tells_the_telling_lines_and_no_secret() {
    let parts = [
        part(
            "unit.json",
            r#"{"active":"active","sub":"running","fragment":"/etc/x","main_pid":7,"status_text":""}"#,
        ),
        part(
            "processes.txt",
            "== process 7\nState:\tT (stopped)\nUid:\t0\n-- threads\n7 S main ep_poll\n8 D io folio_wait\n12 in all\n",
        ),
        part(
            "machine.txt",
            "MemTotal:  10 kB\nBuffers: 3 kB\n-- pressure/io\nsome avg10=0.10\n",
        ),
        part(
            "journal.txt",
            "starting\nTELEGRAM_TOKEN=123456789:AAHdqTcvCH1vGWJxfSeofSAs0K5PALDsaw\n\u{1b}[31mlast\n",
        ),
    ];
    let digest = digest::of(&parts);
    assert_eq!(
        digest,
        "unit: active=active sub=running main_pid=7\n== process 7\nState: T (stopped)\n8 D io folio_wait\n12 in all\n\
         MemTotal: 10 kB\n-- pressure/io\nsome avg10=0.10\njournal, last lines:\nstarting\nTELEGRAM_TOKEN=[redacted]\n [31mlast\n"
    );
}

#[test]
fn of_a_long_journal_the_end_is_told() {
    let lines: Vec<String> = (0..5000).map(|n| format!("line {n}")).collect();
    let journal = lines.join("\n") + "\n";
    let digest = digest::of(&[part("journal.txt", &journal)]);
    assert!(digest.len() <= EVIDENCE_BYTES && digest.len() > EVIDENCE_BYTES - 100);
    assert!(
        digest.ends_with("line 4999\n") && digest.contains("last lines:\nline "),
        "{digest}"
    );
}

proptest! {
    #[test]
    fn any_parts_make_a_digest_that_a_report_may_hold(texts in prop::array::uniform4("[\\PC\n\t\u{1}]{0,3000}")) {
        let [unit, processes, machine, journal] = &texts;
        let digest = digest::of(&[
            part("unit.json", unit), part("processes.txt", processes), part("machine.txt", machine), part("journal.txt", journal),
        ]);
        prop_assert!(digest.len() <= EVIDENCE_BYTES);
        prop_assert!(!digest.chars().any(|c| c.is_control() && c != '\n' && c != '\t'));
    }
}

#[tokio::test]
async fn what_root_saves_the_service_can_go_on_with_and_a_link_is_not_followed() {
    use std::os::unix::fs::{MetadataExt, chown, symlink};
    let dir = tempfile::tempdir().unwrap();
    let unit = UnitName::new("g.service").unwrap();
    let manager = FakeManager::with(&unit, UnitFacts::default());
    let root = rustix::process::geteuid().is_root();
    if root {
        chown(dir.path(), Some(4711), Some(4712)).unwrap();
    }
    let owner = std::fs::metadata(dir.path()).unwrap().uid();
    let saved = save(dir.path(), 2, &unit, &Scope::System, &ctx(0), &manager).await;
    let bundle = saved.dir.unwrap();
    for path in [
        dir.path().join("evidence"),
        bundle.clone(),
        bundle.join("unit.json"),
    ] {
        assert_eq!(path.metadata().unwrap().uid(), owner, "{}", path.display());
    }
    std::fs::remove_dir_all(dir.path().join("evidence")).unwrap();
    let theirs = tempfile::tempdir().unwrap();
    for name in ["a", "b", "c"] {
        std::fs::create_dir(theirs.path().join(name)).unwrap();
    }
    symlink(theirs.path(), dir.path().join("evidence")).unwrap();
    let saved = save(dir.path(), 1, &unit, &Scope::System, &ctx(1), &manager).await;
    assert!(
        saved.dir.is_none() && saved.digest.contains("not saved"),
        "{}",
        saved.digest
    );
    assert_eq!(
        std::fs::read_dir(theirs.path()).unwrap().count(),
        3,
        "nothing there was touched"
    );
}
