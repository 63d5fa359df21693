//! What is printed: a line for each campaign, and the sum.

use std::collections::BTreeSet;
use std::time::Duration;

use biogate::crash::POINTS;

use crate::campaign::Outcome;
use crate::plan::Plan;

/// Memory may grow by a quarter and so many KiB from the first third of the run to the last.
const GROWTH_KIB: u64 = 4_096;

/// The sum of all campaigns.
#[derive(Default)]
pub(crate) struct Table {
    /// Whether every campaign says what it did.
    pub(crate) tells: bool,
    pub(crate) kills: u32,
    pub(crate) points: BTreeSet<&'static str>,
    campaigns: u32,
    bad: Vec<u64>,
    readings: u64,
    lost: u64,
    doubled: u64,
    reordered: u64,
    mistimed: u64,
    estimated: u64,
    excused: u64,
    repeated: u64,
    refused: u32,
    slowest_start: Duration,
    memory: Vec<u64>,
}

impl Table {
    /// Prints a campaign's line and takes it into the sum.
    pub(crate) fn add(&mut self, plan: &Plan, outcome: Outcome, took: Duration) {
        let verdict = if outcome.wrong.is_empty() { "ok" } else { "FAILED" };
        println!(
            "seed {:>10} {:9}{} {:3} kills, {:2} points, {:6} arrived, {} lost, {} doubled, {} reordered, {} mistimed, {} \
             estimated, {} excused, start {:4} ms, RSS {:5} KiB, {:3} s: {verdict}",
            plan.seed,
            format!("{:?}", plan.theme),
            if plan.exactly_once { " eos" } else { "    " },
            outcome.kills,
            outcome.points.len(),
            outcome.readings,
            outcome.lost,
            outcome.doubled,
            outcome.reordered,
            outcome.mistimed,
            outcome.estimated,
            outcome.excused,
            outcome.slowest_start.as_millis(),
            outcome.memory.iter().max().unwrap_or(&0),
            took.as_secs(),
        );
        if !outcome.wrong.is_empty() || self.tells {
            outcome.done.iter().chain(&outcome.wrong).for_each(|line| println!("    {line}"));
        }
        if !outcome.wrong.is_empty() {
            self.bad.push(plan.seed);
        }
        self.campaigns += 1;
        self.kills += outcome.kills;
        self.points.extend(outcome.points);
        self.readings += outcome.readings;
        self.lost += outcome.lost;
        self.doubled += outcome.doubled;
        self.reordered += outcome.reordered;
        self.mistimed += outcome.mistimed;
        self.estimated += outcome.estimated;
        self.excused += outcome.excused;
        self.repeated += outcome.repeated;
        self.slowest_start = self.slowest_start.max(outcome.slowest_start);
        self.refused += outcome.refused;
        self.memory.extend(outcome.memory);
    }

    /// Whether any campaign failed, or memory grew.
    pub(crate) fn is_bad(&self) -> bool {
        !self.bad.is_empty() || self.grew()
    }

    /// Medians of the first and the last third of all looks, in KiB.
    fn thirds(&self) -> Option<(u64, u64)> {
        let third = self.memory.len() / 3;
        let median = |looks: &[u64]| {
            let mut sorted = looks.to_vec();
            sorted.sort_unstable();
            sorted[sorted.len() / 2]
        };
        (third > 0).then(|| (median(&self.memory[..third]), median(&self.memory[self.memory.len() - third..])))
    }

    fn grew(&self) -> bool {
        self.thirds().is_some_and(|(first, last)| last > first + first / 4 + GROWTH_KIB)
    }

    /// Prints the sum.
    pub(crate) fn print(&self, took: Duration) {
        let (first, last) = self.thirds().unwrap_or_default();
        println!();
        println!("| what | |\n| --- | --- |");
        println!("| campaigns, failed | {}, {} {:?} |", self.campaigns, self.bad.len(), self.bad);
        println!("| kills | {} |", self.kills);
        println!("| crash points died at | {} of {} |", self.points.len(), POINTS.len());
        println!("| readings looked for and found, all destinations | {} |", self.readings);
        println!("| lost, doubled, reordered | {}, {}, {} |", self.lost, self.doubled, self.reordered);
        println!("| more than 1 s from the truth; marked as estimated | {}; {} |", self.mistimed, self.estimated);
        println!(
            "| sent again and known by event_id: Kafka without transactions, and after damage | {} |",
            self.repeated
        );
        println!("| damaged or evicted, and counted as that | {} |", self.excused);
        println!(
            "| slowest start; starts that a full disk refused | {} ms; {} |",
            self.slowest_start.as_millis(),
            self.refused
        );
        println!(
            "| memory (RSS): most; median of the first and the last third | {} KiB; {first}, {last} KiB{} |",
            self.memory.iter().max().unwrap_or(&0),
            if self.grew() { ": GROWS" } else { "" }
        );
        println!("| took | {} s |", took.as_secs());
    }
}
