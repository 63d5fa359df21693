//! The fault rig: `make faults` (docs/testing.md).
//!
//! The real binary between real parts, killed again and again; every reading has an identity at its source and is looked
//! for at the far end. One seed is one campaign. Seeds that once failed stand in `seeds` and run first.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, reason = "a program of the tests")]
#![allow(clippy::disallowed_methods, reason = "the rig may wait on its own threads, and is told where its parts are")]

mod bus;
mod campaign;
mod coverage;
mod hub;
mod judge;
mod oracle;
mod plan;
mod receipts;
#[path = "../it/rig/mod.rs"]
#[allow(dead_code, reason = "the integration tests' rig; this program needs some of it")]
mod rig;
mod table;
mod trouble;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use biogate::crash::POINTS;

use campaign::Outcome;
use plan::Plan;
use rig::clickhouse::Engine;
use rig::kafka::Kafka;
use table::Table;

/// What is asked for.
struct Wanted {
    kills: u32,
    seed: u64,
    /// All points must have been hit at the end.
    every_point: bool,
    /// Say what each campaign did.
    tells: bool,
    /// Brokers: with three the leader can move.
    nodes: u64,
}

/// Seeds that once failed, one a line, with what it was.
const FAILED_ONCE: &str = include_str!("seeds");

fn main() -> ExitCode {
    let wanted = match wanted(std::env::args().skip(1)) {
        Ok(wanted) => wanted,
        Err(why) => {
            println!("{why}\nfaults [--kills N] [--seed S] [--every-point] [--nodes 3] [--tell]");
            return ExitCode::from(2);
        }
    };
    let Some(mut engine) = Engine::own() else { return ExitCode::SUCCESS };
    println!("faults: seed {}, {} kills (again with SEED={})", wanted.seed, wanted.kills, wanted.seed);
    // Without Kafka the rest is still worth a run; where everything is required the rig has failed here.
    let options: &[&str] = if wanted.nodes > 1 { &["--nodes", "3"] } else { &[] };
    let kafka = Kafka::own(options);
    if let Some(kafka) = &kafka {
        biogate::report::Kind::ALL.iter().for_each(|kind| kafka.make_topic(kind.topic(), 1, &[]));
    }
    let coverage = coverage::judge();
    println!("coverage, four hours of two devices: {}", if coverage.is_empty() { "ok" } else { "FAILED" });
    coverage.iter().for_each(|wrong| println!("    {wrong}"));
    let mut table = Table::default();
    table.tells = wanted.tells;
    let began = Instant::now();
    let seeds = FAILED_ONCE.lines().filter_map(|line| line.split_whitespace().next()?.parse().ok());
    for seed in seeds.chain(wanted.seed..) {
        if table.kills >= wanted.kills {
            break;
        }
        let plan = Plan::of(seed);
        let Some((outcome, took)) = one(&plan, &mut engine, kafka.as_ref()) else { continue };
        table.add(&plan, outcome, took);
    }
    let missed = |table: &Table| -> Vec<&'static str> {
        let within_reach = |point: &&str| kafka.is_some() || !point.starts_with("kafka");
        POINTS.iter().copied().filter(|point| !table.points.contains(point)).filter(within_reach).collect()
    };
    if wanted.every_point && !missed(&table).is_empty() {
        let plan = plan::at_points(wanted.seed, &missed(&table));
        if let Some((outcome, took)) = one(&plan, &mut engine, kafka.as_ref()) {
            table.add(&plan, outcome, took);
        }
    }
    let never = missed(&table);
    table.print(began.elapsed());
    if !never.is_empty() {
        println!("crash points that nobody died at: {never:?}");
    }
    if !coverage.is_empty() || table.is_bad() || (wanted.every_point && !never.is_empty()) {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    }
}

/// One campaign. `None` when it was skipped: the rig has said why.
fn one(plan: &Plan, engine: &mut Engine, kafka: Option<&Kafka>) -> Option<(Outcome, Duration)> {
    let began = Instant::now();
    engine.database = format!("f_{}_{}", plan.seed, fastrand::u32(..));
    let ran = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| campaign::run(plan, engine, kafka)));
    let outcome = ran.unwrap_or_else(|panic| {
        let said = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
        let said = said.unwrap_or("a panic").to_owned();
        Some(Outcome { wrong: vec![said], ..Outcome::default() })
    });
    oracle::leap(0);
    Some((outcome?, began.elapsed()))
}

fn wanted(arguments: impl Iterator<Item = String>) -> Result<Wanted, String> {
    let mut wanted =
        Wanted { kills: 100, seed: fastrand::u64(..1_000_000_000), every_point: false, tells: false, nodes: 1 };
    let mut arguments = arguments.peekable();
    while let Some(argument) = arguments.next() {
        let mut number = || {
            let text = arguments.next().unwrap_or_default();
            text.parse::<u64>().map_err(|_| format!("{argument}: found \"{text}\"; write a number"))
        };
        match argument.as_str() {
            "--kills" => wanted.kills = number()? as u32,
            "--seed" => wanted.seed = number()?,
            "--nodes" => wanted.nodes = number()?,
            "--tell" => wanted.tells = true,
            "--every-point" => wanted.every_point = true,
            _ => return Err(format!("found {argument}")),
        }
    }
    Ok(wanted)
}
