//! The one fault that no test can cause from outside: the sweep alone stops, while everything else of a whole server goes
//! on. Here it stops as a deadlock would stop it: somebody holds the books and does not give them back.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::routing::{get, post};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::oneshot;

use crate::app::Server;
use crate::config;

#[derive(Default)]
struct Service {
    pings: AtomicUsize,
    failures: Mutex<Vec<String>>,
}

impl Service {
    fn pings(&self) -> usize {
        self.pings.load(Ordering::Relaxed)
    }

    fn failures(&self) -> Vec<String> {
        self.failures.lock().unwrap().clone()
    }
}

async fn service() -> (Arc<Service>, String) {
    let service = Arc::new(Service::default());
    let ping = async |State(service): State<Arc<Service>>| {
        service.pings.fetch_add(1, Ordering::Relaxed);
    };
    let fail = async |State(service): State<Arc<Service>>, why: String| {
        service.failures.lock().unwrap().push(why);
    };
    let router = Router::new()
        .route("/ping", get(ping))
        .route("/ping/fail", post(fail))
        .with_state(Arc::clone(&service));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/ping", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    (service, url)
}

async fn until(what: &str, mut look: impl FnMut() -> bool) {
    for _ in 0..600 {
        if look() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("no {what} within 30 s");
}

/// The server has a runtime of its own: a sweep that holds one of its threads may stop all its timers.
#[test]
fn a_sweep_that_stops_alone_stops_the_pings_and_the_reason_is_told() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let (outside, inside) = (Runtime::new().unwrap(), Runtime::new().unwrap());
    let dir = tempfile::tempdir().unwrap();
    let (service, url) = outside.block_on(service());
    let text = format!(
        "listen = \"127.0.0.1:0\"\ndata_dir = \"{}\"\n[dead_man]\nurl = \"{url}\"\nfail_url = \"{url}/fail\"\n\
         every = \"1s\"\n",
        dir.path().join("data").display()
    );
    let settings = config::parse(Path::new("test.toml"), text.as_bytes()).unwrap();
    let server = inside.block_on(Server::build(settings)).unwrap();
    let intake = server.intake();
    let (end, ending) = oneshot::channel::<()>();
    let running = inside.spawn(server.run(async {
        let _ = ending.await;
        "the test"
    }));
    outside.block_on(until("ping of a server that is well", || service.pings() >= 2));

    let books = intake.shared.ledger();
    outside.block_on(until("word of the failure", || !service.failures().is_empty()));
    let stopped_at = service.pings();
    outside.block_on(async { tokio::time::sleep(Duration::from_millis(2500)).await });
    assert_eq!(service.pings(), stopped_at, "no ping while nobody is judged");
    let why = service.failures();
    assert!(
        why.len() == 1 && why[0].contains("has not turned for"),
        "told once, with the reason: {why:?}"
    );

    drop(books);
    outside.block_on(until("ping once it turns again", || service.pings() > stopped_at));
    end.send(()).unwrap();
    inside.block_on(running).unwrap().unwrap();
}
