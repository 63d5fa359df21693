//! A ClickHouse destination, looked at before the gateway needs it: does the table fit, and for how long is each event
//! counted once?

use std::time::Duration;

use humantime::format_duration;

use super::{Finding, Verdict};
use crate::forward::clickhouse::Settings;
use crate::forward::clickhouse::survey::{Advice, Memory, Survey, survey};

/// Raw counts that are exact through a shorter outage than this deserve a word.
const SHORT: Duration = Duration::from_secs(3_600);

/// More hubs than this make too many small inserts for one table.
const MOST_HUBS: u64 = 100;

/// What writes into the table.
#[derive(Debug, Clone, Copy)]
pub(super) struct Load {
    /// Hubs that write into the same table.
    pub(super) hubs: u64,
    /// The time from one insert of a hub to its next.
    pub(super) interval: Duration,
}

/// Asks the server for its version, the table and its settings, and says how long an outage may last before raw counts
/// can repeat.
pub(super) async fn findings(what: &str, settings: &Settings, load: Load) -> Vec<Finding> {
    let survey = match survey(settings).await {
        Ok(survey) => survey,
        Err(why) => return vec![Finding::of(what, Verdict::Fail, why.to_string())],
    };
    let table = format!("{}.{}", settings.database, settings.table);
    let mut said = vec![Advice::Fine(format!("ClickHouse {}, {table} fits ({})", survey.version, survey.engine))];
    said.extend(survey.faults());
    said.extend(memory(&survey, load));
    if load.hubs > MOST_HUBS {
        said.push(Advice::Weak(format!(
            "{} hubs write small inserts into one table; above {MOST_HUBS} let them write to Kafka, and Kafka to the table",
            load.hubs
        )));
    }
    let finding = |advice| match advice {
        Advice::Fine(said) => Finding::of(what, Verdict::Ok, said),
        Advice::Weak(said) => Finding::of(what, Verdict::Warn, said),
        Advice::Broken(said) => Finding::of(what, Verdict::Fail, said),
    };
    said.into_iter().map(finding).collect()
}

/// For how long the server drops what is repeated.
fn memory(survey: &Survey, load: Load) -> Option<Advice> {
    let Memory { inserts, at_most } = survey.memory()?;
    if inserts == 0 {
        let name = if survey.is_replicated() { "" } else { "non_" };
        return Some(Advice::Weak(format!(
            "the table remembers no inserts ({name}replicated_deduplication_window is 0): a repeated batch counts twice in \
             the raw table until FINAL or a merge; set it to 10000, as `biogate schema apply` does for a new table"
        )));
    }
    let outage = survey.outage(load.hubs, load.interval)?;
    let of_hubs = if load.hubs == 1 { "1 hub".to_owned() } else { format!("{} hubs", load.hubs) };
    let span = at_most.map_or_else(String::new, |at_most| format!(", each at most {}", format_duration(at_most)));
    let more = if load.hubs == 1 { "; --hubs N says it for more" } else { "" };
    let said = format!(
        "the table remembers {inserts} inserts{span}: with {of_hubs} and one insert in {} each, raw counts stay exact through \
         an outage of {}{more}",
        format_duration(load.interval),
        format_duration(Duration::from_secs(outage.as_secs())),
    );
    Some(match outage < SHORT {
        false => Advice::Fine(said),
        true => Advice::Weak(format!("{said}; after that only FINAL and the shipped views count each event once")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn survey(engine: &str, settings: &str) -> Survey {
        let engine_full = format!("{engine} ORDER BY x SETTINGS {settings}");
        Survey { engine: engine.to_owned(), engine_full, ..Survey::default() }
    }

    fn load(hubs: u64) -> Load {
        Load { hubs, interval: Duration::from_secs(4) }
    }

    #[test]
    fn the_time_that_an_outage_may_last_is_said_for_all_hubs() {
        let plain = survey("ReplacingMergeTree", " non_replicated_deduplication_window = 10000");
        let Some(Advice::Fine(said)) = memory(&plain, load(1)) else { panic!() };
        assert!(
            said.contains("with 1 hub and one insert in 4s each") && said.contains("11h 6m 40s; --hubs N"),
            "{said}"
        );
        let Some(Advice::Weak(said)) = memory(&plain, load(40)) else { panic!() };
        assert!(said.contains("with 40 hubs") && said.contains("outage of 16m 40s; after that only FINAL"), "{said}");
        let replicated = survey(
            "ReplicatedReplacingMergeTree",
            " replicated_deduplication_window = 10000, replicated_deduplication_window_seconds = 600",
        );
        let Some(Advice::Weak(said)) = memory(&replicated, load(1)) else { panic!() };
        assert!(said.contains("each at most 10m") && said.contains("outage of 10m"), "{said}");
        let Some(Advice::Weak(said)) = memory(&survey("ReplacingMergeTree", ""), load(1)) else { panic!() };
        assert!(said.contains("(non_replicated_deduplication_window is 0)"), "{said}");
    }
}
