//! A steady load for as long as is wanted, while the gateway's memory is looked at: it must stay flat.

#![expect(
    clippy::cast_precision_loss,
    clippy::disallowed_types,
    reason = "figures are rounded for people, and real time is measured"
)]

use std::cell::RefCell;
use std::time::{Duration, Instant};

use anyhow::Context as _;

use crate::contenders::Start;
use crate::load::{Plan, Workload};
use crate::measure::{Site, SiteOptions};
use crate::report::thousands;
use crate::{Arguments, report};

/// Loads every gateway in turn and prints its memory. Returns whether the nodes counted the acknowledged readings.
pub(crate) async fn run(workload: &Workload, seconds: u64, arguments: &Arguments) -> anyhow::Result<bool> {
    let plan = Plan {
        requests: (arguments.rate * seconds).div_ceil(workload.readings_a_request),
        spacing: Duration::from_secs(workload.readings_a_request).div_f64(arguments.rate as f64),
    };
    let sample_every = Duration::from_secs(arguments.sample_every);
    let mut exact = true;
    let gateways =
        arguments.servers_for(workload).filter(|contender| matches!(contender.start, Start::Gateway(_)));
    for contender in gateways {
        let site = Site::start(contender, SiteOptions::of(workload, arguments)).await;
        let site = site.context(contender.name)?;
        println!("{}, {}, {} readings/s:", contender.name, workload.name, thousands(arguments.rate));
        exact &= load_and_watch(&site, workload, plan, sample_every).await.context(contender.name)?;
    }
    Ok(exact)
}

async fn load_and_watch(
    site: &Site,
    workload: &Workload,
    plan: Plan,
    sample_every: Duration,
) -> anyhow::Result<bool> {
    let requests = workload.render(|number| site.header(number));
    let idle = site.server.memory()?.resident;
    let resident = RefCell::new(Vec::new());
    let (started_at, cpu_before) = (Instant::now(), site.server.cpu_seconds()?);
    let watch = async {
        loop {
            tokio::time::sleep(sample_every).await;
            let (now, buffered) = (site.server.memory()?.resident, site.buffered().await?);
            let second = started_at.elapsed().as_secs();
            println!("{second:>6} s  {now:>7.1} MiB  {} readings buffered", thousands(buffered));
            resident.borrow_mut().push(now);
        }
    };
    let tally = tokio::select! {
        sent = site.send(workload, &requests, plan) => sent?,
        failed = watch => return failed,
    };
    let cpu = (site.server.cpu_seconds()? - cpu_before) / tally.elapsed.as_secs_f64();
    let peak = site.server.memory()?.peak;
    let resident = resident.into_inner();
    let (first, last) = (resident.first().unwrap_or(&idle), resident.last().unwrap_or(&idle));
    println!(
        "RSS: idle {idle:.1}, first {first:.1}, last {last:.1}, peak {peak:.1} MiB; CPU: {cpu:.2} cores"
    );
    let Some(delivered) = site.delivered().await? else { return Ok(true) };
    println!("{}", report::delivered(workload.name, delivered));
    Ok(delivered.is_exact())
}
