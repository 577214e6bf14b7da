//! The gateway that is started and killed.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Mutex;

use serde_json::Value;
use tokio::sync::watch;
use tokio::time::sleep;

use crate::support::process::{Finished, Process, forebay};
use crate::support::{RunningGateway, eventually};
use crate::weather::{End, Round, Sky};

/// Small bounds, so that segments begin, are settled and go again all the time.
const SETTINGS: [(&str, &str); 13] = [
    ("server.listen", "127.0.0.1:0"),
    ("server.shutdown_timeout", "400ms"),
    ("buffer.path", "buffer"),
    ("buffer.max_bytes", "1MiB"),
    ("batch.max_readings", "40"),
    ("batch.max_bytes", "3KiB"),
    ("batch.max_age", "15ms"),
    ("cluster.timeout", "250ms"),
    ("cluster.max_in_flight", "4"),
    ("cluster.retry.initial", "5ms"),
    ("cluster.retry.max", "40ms"),
    ("cluster.health.probe", "20ms"),
    ("log.level", "info"),
];

/// The settings of a route.
pub type Route = &'static [(&'static str, &'static str)];

pub const BALANCE: Route = &[("cluster.route", "balance")];
pub const REPLICATE: Route = &[("cluster.route", "replicate")];
pub const SHARD: Route = &[("cluster.route", "shard")];

/// The gateway that is started again and again.
pub struct Victim<'a> {
    pub directory: &'a Path,
    pub nodes: String,
    pub route: Route,
    /// The text of its file.
    pub config: &'a str,
}

impl Victim<'_> {
    fn launch(&self) -> Process {
        let settings = [&SETTINGS[..], self.route, &[("cluster.nodes", &self.nodes)]].concat();
        std::fs::write(self.directory.join("forebay.toml"), self.config).expect("the file is written");
        Process::launch(forebay(self.directory, &["serve", "--config", "forebay.toml"], &settings))
    }

    /// Starts it and looks at its books. Returns how many readings it found, too.
    pub async fn start(&self) -> (Process, u64) {
        let process = Mutex::new(self.launch());
        let listening = || std::future::ready(process.lock().expect("not poisoned").is_listening());
        eventually("it listens", listening).await;
        let process = process.into_inner().expect("not poisoned");
        let ledger = sound_ledger(&process.gateway()).await;
        (process, ledger["recovered"].as_u64().expect("a number"))
    }
}

/// The ledger, which adds up; nothing is damaged, and nothing is given up.
pub async fn sound_ledger(gateway: &RunningGateway) -> Value {
    let ledger = gateway.ledger().await;
    assert_eq!((&ledger["dead_lettered"], &ledger["dropped"]), (&0.into(), &0.into()), "{ledger}");
    let damaged = gateway.metric("forebay_buffer_damaged_records_total").await;
    assert_eq!(damaged, Some(0.0), "a crash is no damage");
    ledger
}

/// A crash is no reason to worry anybody, and nothing else has happened.
pub fn check_log(ended: &Finished) {
    for sign in ["ERROR", "panicked", "not whole", "passing over"] {
        assert!(!ended.stderr.contains(sign), "{sign} in\n{}", ended.stderr);
    }
}

/// One life of the gateway. Returns how many readings it found at its start.
pub async fn live(
    victim: &Victim<'_>,
    round: &Round,
    sky: &Sky,
    address: &watch::Sender<Option<SocketAddr>>,
) -> u64 {
    sky.set(round.weather[0]);
    if matches!(round.end, End::KilledAtStart) {
        let process = victim.launch();
        sleep(round.grace).await;
        check_log(&process.kill().await);
        return 0;
    }
    let (process, recovered) = victim.start().await;
    address.send_replace(Some(process.address()));
    sleep(round.half).await;
    sound_ledger(&process.gateway()).await;
    sky.set(round.weather[1]);
    sleep(round.half).await;
    let ended = match round.end {
        End::KilledAtStart | End::Killed => process.kill().await,
        End::KilledAtStop => {
            process.terminate();
            sleep(round.grace).await;
            process.kill().await
        }
        End::Stopped => {
            process.terminate();
            process.ended().await.expect_status(0)
        }
    };
    address.send_replace(None);
    check_log(&ended);
    recovered
}

/// Numbers of the segments on disk.
pub fn segments(directory: &Path) -> Vec<u64> {
    let entries = std::fs::read_dir(directory.join("buffer")).expect("the directory of the buffer");
    let names = entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("UTF-8"));
    names.filter_map(|name| name.strip_suffix(".segment")?.parse().ok()).collect()
}
