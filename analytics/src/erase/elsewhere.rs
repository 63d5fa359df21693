//! Where else a person's events may lie: what this program cannot reach, with the command for each place.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::Error;
use super::found::{Device, Found};
use super::zone::Zone;

/// A place outside the database's own tables.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Place {
    /// Where.
    pub place: String,
    /// What is or may be there.
    pub holds: String,
    /// What to do, a command or more, one on a line.
    pub command: String,
}

/// All of them, the ones that would bring events back first.
pub(super) async fn places(zone: &Zone<'_>, user: Uuid, found: &Found) -> Result<Vec<Place>, Error> {
    let mut places = Vec::new();
    let mut hubs: Vec<&str> = found.devices.iter().map(|device| device.gateway_id.as_str()).collect();
    hubs.sort_unstable();
    hubs.dedup();
    for hub in hubs {
        let devices: Vec<&Device> = found.devices.iter().filter(|device| device.gateway_id == hub).collect();
        places.push(on_hub(zone, hub, &devices).await?);
    }
    places.extend(in_kafka());
    places.extend(in_server(zone, user).await);
    let fixed = [
        (
            "backups and file destinations",
            "a backup of the database or a hub's archive made before holds the person's rows; after a restore they are back",
            "biogate-analytics erase --late                   # after each restore; keep the table erasures out of what is restored\n\
             grep -l UUID /var/lib/biogate/archive/*.ndjson   # on a hub with a file destination; its files are yours to remove",
        ),
        (
            "logs and caches of those who asked",
            "the Query API's audit lines name the person (no values); Metabase and Grafana keep answers for a while; so may browsers",
            "journalctl --vacuum-time=30d -u biogate-analytics",
        ),
    ];
    places.extend(fixed.map(|(place, holds, command)| Place {
        place: place.to_owned(),
        holds: holds.to_owned(),
        command: command.to_owned(),
    }));
    Ok(places)
}

async fn on_hub(zone: &Zone<'_>, hub: &str, devices: &[&Device]) -> Result<Place, Error> {
    #[derive(Deserialize)]
    struct Beat {
        backlog_events: u64,
        oldest: String,
        silent_seconds: i64,
    }
    let sql = "SELECT backlog_events, ifNull(toString(oldest_waiting), '') AS oldest, silent_seconds FROM gateway_now \
         WHERE gateway_id = {hub:String}";
    let beat: Vec<Beat> = zone.rows(sql, &[("hub", hub)]).await?;
    let waits = match beat.first() {
        None => "it never said what waits in it".to_owned(),
        Some(beat) if beat.backlog_events == 0 => {
            format!("nothing waited in it {} s ago", beat.silent_seconds)
        }
        Some(beat) => format!(
            "{} events wait in it (said {} s ago), the oldest of {}; those of the person arrive later",
            beat.backlog_events,
            beat.silent_seconds,
            if beat.oldest.is_empty() { "an unknown time" } else { &beat.oldest }
        ),
    };
    let names: Vec<&str> = devices.iter().map(|device| device.device_id.as_str()).collect();
    let mut command = Vec::new();
    for device in devices {
        let name = shell(&device.device_id);
        if device.is_worn == 1 {
            command.push(format!("biogate unassign {name} --from TIME   # the person still has it: events keep coming; what waits leaves as nobody's"));
        }
        command.push(format!("biogate buffer quarantine list --device {name}"));
        command.push(format!(
            "biogate buffer quarantine drop --device {name}   # all that was set aside of this sensor, whosever it was"
        ));
    }
    command.push("biogate buffer stat                      # until nothing waits; then, in the warehouse:".to_owned());
    command.push("biogate-analytics erase --late".to_owned());
    Ok(Place {
        place: format!("hub {hub}, {}", names.join(", ")),
        holds: format!("{waits}; its history of who wore what keeps the pseudonym"),
        command: command.join("\n"),
    })
}

/// Of deploy/kafka/topics.conf.
fn in_kafka() -> [Place; 2] {
    let place = |topics: &str, holds: &str, command: &str| Place {
        place: format!("Kafka, {topics}"),
        holds: holds.to_owned(),
        command: command.to_owned(),
    };
    [
        place(
            "biometric-events, user-activity, landing-zone-refused",
            "records stay until their retention ends (14 days; 90 days of what the sink refused); a sink that reads them again brings rows back",
            "kafka-get-offsets.sh --bootstrap-server HOST:PORT --topic biometric-events --time MS   # offsets at the time until which all may go\n\
             kafka-delete-records.sh --bootstrap-server HOST:PORT --offset-json-file offsets.json   # everybody's records before them: only what the sink has read",
        ),
        place(
            "device-assignments",
            "keeps who wore what for ever (retention.ms=-1)",
            "kafka-delete-records.sh --bootstrap-server HOST:PORT --offset-json-file offsets.json   # the landing zone has the history of the others",
        ),
    ]
}

/// What the server keeps beside its tables. A user who may not look there is told so.
async fn in_server(zone: &Zone<'_>, user: Uuid) -> Vec<Place> {
    let count = async |sql: &str| match zone.number(sql, &[("user", &user.to_string())]).await {
        Ok(n) => n.to_string(),
        Err(_) => "an unknown number of".to_owned(),
    };
    let of = |table: &str, column: &str| {
        format!("SELECT count() AS n FROM {} WHERE position({column}, {{user:String}}) > 0", zone.system(table))
    };
    let (queries, changes) = (count(&of("query_log", "query")).await, count(&of("mutations", "command")).await);
    let parts = "SELECT count() AS n FROM system.detached_parts WHERE database = currentDatabase()";
    let parts = count(parts).await;
    [
        (
            "ClickHouse, system.query_log and text_log",
            format!("{queries} statements of the query log name the person; no values are in it"),
            format!("ALTER TABLE system.query_log DELETE WHERE position(query, '{user}') > 0"),
        ),
        (
            "ClickHouse, system.mutations",
            format!("{changes} finished changes name the person; a table keeps its last 100 of them (finished_mutations_to_keep)"),
            "ALTER TABLE erasures MODIFY SETTING finished_mutations_to_keep = 1   # and likewise of the tables above".to_owned(),
        ),
        (
            "ClickHouse, old parts",
            format!(
                "the parts without the rows are in place; those with them leave the disk within 8 minutes (old_parts_lifetime); \
                 {parts} detached parts and every FREEZE under shadow/ stay"
            ),
            "SELECT table, name FROM system.detached_parts   # ALTER TABLE x DROP DETACHED PART '...'".to_owned(),
        ),
    ]
    .map(|(place, holds, command)| Place { place: place.to_owned(), holds, command })
    .into()
}

/// A name as a shell takes it.
fn shell(name: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "._-:/".contains(c);
    match !name.is_empty() && name.chars().all(is_plain) {
        true => name.to_owned(),
        false => format!("'{}'", name.replace('\'', "'\\''")),
    }
}
