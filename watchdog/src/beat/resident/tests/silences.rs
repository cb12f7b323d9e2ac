//! What a box says once it is heard again.

use protocol::account::{Account, Verdict};
use uuid::Uuid;

use super::*;
use crate::account::record::{Heard, RECORD_FILE, Record};
use crate::account::silence::Stamp;

const SHORT: Duration = Duration::from_millis(500);

fn accounts(server: &Server) -> Vec<Account> {
    let beats = server.taken();
    let accounts = beats
        .iter()
        .filter_map(|(_, beat)| beat.account.as_deref().cloned());
    accounts.collect()
}

/// The accounts that came to an end of finding out.
fn whole(server: &Server) -> Vec<Account> {
    accounts(server)
        .into_iter()
        .filter(|account| !account.pending)
        .collect()
}

#[tokio::test(start_paused = true)]
async fn a_partition_is_explained_once_to_the_server_that_heard_nothing() {
    let (cut, other) = (Server::start().await, Server::start().await);
    let a_box = Watchdog::start(&[&cut.url, &other.url], "");
    sleep(SECOND * 5 + SHORT).await;
    cut.does(Does::Hangs);
    sleep(SECOND * 41).await;
    cut.does(Does::Takes);
    sleep(SECOND * 10).await;
    let told = whole(&cut);
    let [account] = &told[..] else { panic!("{told:#?}") };
    assert_eq!(account.verdict, Verdict::NetworkPath);
    assert!(
        account.summary.ends_with("it was alive all the while"),
        "{}",
        account.summary
    );
    let attempt = &account.attempts[0];
    assert_eq!(
        (attempt.step.as_str(), attempt.detail.as_str()),
        ("answer", "timed out")
    );
    assert!(
        attempt.times >= 5 && cut.url.contains(attempt.address.as_deref().unwrap()),
        "{attempt:?}"
    );
    let silent = account.to.duration_since(account.from).as_secs();
    assert!((40..47).contains(&silent), "{silent}");
    assert!(
        whole(&other).is_empty(),
        "the other server heard it all the while"
    );
    a_box.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_box_without_a_past_has_nothing_to_explain() {
    let server = Server::start().await;
    let a_box = Watchdog::start(&[&server.url], "");
    sleep(SECOND * 30).await;
    assert!(whole(&server).is_empty());
    assert!(accounts(&server).len() <= 1, "only before it had looked");
    a_box.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_new_process_says_that_it_is_finding_out_and_then_what() {
    let server = Server::start().await;
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("token"), "t0ken\n").unwrap();
    let at = |secs: u64| Stamp {
        wall: Timestamp::from_second(1_763_755_200).unwrap(),
        boot_ms: secs * 1000,
    };
    let record = Record {
        boot_id: Uuid::from_u128(99),
        session: Uuid::from_u128(1),
        began: at(1),
        alive: at(100),
        goodbye: None,
        oom_kills: None,
        servers: vec![Heard {
            url: server.url.clone(),
            boot_id: Some(Uuid::from_u128(99)),
            taken: None,
            silent: false,
            tried: Vec::new(),
        }],
    };
    std::fs::write(dir.path().join(RECORD_FILE), serde_json::to_vec(&record).unwrap()).unwrap();
    let a_box = Watchdog::start_in(dir, &[&server.url], "");
    sleep(SECOND * 12).await;
    let all = accounts(&server);
    assert!(all[0].pending, "{all:#?}");
    let told = whole(&server);
    let [account] = &told[..] else { panic!("{all:#?}") };
    assert_eq!(
        (account.verdict, account.from),
        (Verdict::PowerOrCrash, at(100).wall)
    );
    let kept = std::fs::read(a_box.dir.path().join(RECORD_FILE)).unwrap();
    let kept = Record::parse(&kept).unwrap();
    assert_ne!(kept.boot_id, record.boot_id, "the record is of this boot now");
    assert_eq!(
        kept.servers[0].boot_id,
        Some(kept.boot_id),
        "and the server has heard it"
    );
    a_box.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_server_that_refuses_accounts_does_not_silence_the_box() {
    let server = Server::start().await;
    let a_box = Watchdog::start(&[&server.url], "");
    sleep(SECOND * 5 + SHORT).await;
    server.does(Does::RefusesAccounts);
    server.first.lock().unwrap().extend(vec![answer("503 Oh", ""); 5]);
    sleep(SECOND * 15).await;
    let since = server.taken().len();
    sleep(SECOND * 10).await;
    assert!(
        server.taken().len() >= since + 9,
        "{} beats",
        server.taken().len() - since
    );
    a_box.end().await;
}

fn record_of(a_box: &Watchdog) -> Record {
    Record::parse(&std::fs::read(a_box.dir.path().join(RECORD_FILE)).unwrap()).unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_process_that_was_told_to_stop_ends_after_its_goodbye_is_noted_down() {
    let server = Server::start().await;
    let mut a_box = Watchdog::start(&[&server.url], "");
    sleep(SECOND * 5 + SHORT).await;
    assert_eq!(record_of(&a_box).goodbye, None);
    drop(a_box.stop.take());
    (&mut a_box.ended).await.unwrap();
    assert_eq!(record_of(&a_box).goodbye, Some(GoodbyeWhy::WatchdogStopped));
}

#[tokio::test(start_paused = true)]
async fn a_record_with_an_impossible_time_ends_no_process() {
    let server = Server::start().await;
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("token"), "t0ken\n").unwrap();
    let never = Stamp {
        wall: Timestamp::MIN,
        boot_ms: u64::MAX,
    };
    let record = Record {
        boot_id: Uuid::from_u128(99),
        session: Uuid::from_u128(1),
        began: never,
        alive: never,
        goodbye: None,
        oom_kills: Some(u64::MAX),
        servers: Vec::new(),
    };
    std::fs::write(dir.path().join(RECORD_FILE), serde_json::to_vec(&record).unwrap()).unwrap();
    let a_box = Watchdog::start_in(dir, &[&server.url], "");
    sleep(SECOND * 12).await;
    assert_eq!(whole(&server).len(), 1, "{:#?}", accounts(&server));
    a_box.end().await;
}
